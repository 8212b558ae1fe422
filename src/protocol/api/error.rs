//! What can be wrong with an API request.

use crate::mesh::durable::LogError;
use crate::wire::json::Malformed;

/// Answers one request in place of its result (`spec/centrifuge.md` §8.1).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApiError {
    /// 100
    #[error("internal server error")]
    Internal,
    /// 102
    #[error("unknown channel")]
    UnknownChannel,
    /// 103
    #[error("permission denied: {0}")]
    PermissionDenied(Closed),
    /// 104
    #[error("not found")]
    NotFound,
    /// 106
    #[error("limit exceeded")]
    LimitExceeded,
    /// 107
    #[error("bad request")]
    BadRequest,
    /// 107, with the member that is missing or wrong.
    #[error("bad request: {0}")]
    Member(Box<str>),
    /// 108
    #[error("not available")]
    NotAvailable,
    /// 111
    #[error("too many requests")]
    TooManyRequests,
    /// 111: more than a rate of the tenant allows. When to ask again, milliseconds.
    #[error("too many requests")]
    TooFast(u32),
    /// 112
    #[error("unrecoverable position")]
    UnrecoverablePosition,
    /// What the durable log's side says.
    #[error("{0}")]
    Log(LogError),
}

/// What the key of a service does not open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Closed {
    /// The method is not among those of the key.
    #[error("the key does not open this method")]
    Method,
    /// The channel is in no namespace of the key.
    #[error("the key does not open channels of this namespace")]
    Namespace,
    /// The key is for channels of some namespaces, and the method acts on something else.
    #[error("the key opens channels of some namespaces only, and this acts on more than them")]
    BeyondChannels,
}

impl ApiError {
    /// All of them, by code.
    pub const ALL: [Self; 10] = [
        Self::Internal,
        Self::UnknownChannel,
        Self::PermissionDenied(Closed::Method),
        Self::NotFound,
        Self::LimitExceeded,
        Self::BadRequest,
        Self::NotAvailable,
        Self::TooManyRequests,
        Self::UnrecoverablePosition,
        Self::Log(LogError::NoReply),
    ];

    /// A member that must be there is not.
    #[must_use]
    pub fn missing(member: &str) -> Self {
        Self::Member(format!("`{member}` is missing").into())
    }

    /// A member is not what it must be.
    #[must_use]
    pub fn wrong(member: &str, what: &str) -> Self {
        Self::Member(format!("{member}: {what}").into())
    }

    /// Code on the wire.
    #[must_use]
    pub const fn code(&self) -> u32 {
        match self {
            Self::Internal => 100,
            Self::UnknownChannel => 102,
            Self::PermissionDenied(_) => 103,
            Self::NotFound => 104,
            Self::LimitExceeded => 106,
            Self::BadRequest | Self::Member(_) => 107,
            Self::NotAvailable => 108,
            Self::TooManyRequests | Self::TooFast(_) => 111,
            Self::UnrecoverablePosition => 112,
            Self::Log(LogError::Unavailable { .. }) => 100,
            Self::Log(LogError::Busy { .. } | LogError::Behind { .. }) => 111,
            Self::Log(LogError::Refused(_) | LogError::BadRequest(_)) => 107,
            Self::Log(LogError::Forbidden(_)) => 103,
            Self::Log(LogError::NotFound(_)) => 104,
            Self::Log(LogError::Full(_)) => 106,
            Self::Log(LogError::NoReply) => 113,
        }
    }

    /// Message on the wire.
    #[must_use]
    pub fn message(&self) -> std::borrow::Cow<'static, str> {
        match self {
            Self::Internal => "internal server error".into(),
            Self::UnknownChannel => "unknown channel".into(),
            Self::NotFound => "not found".into(),
            Self::LimitExceeded => "limit exceeded".into(),
            Self::BadRequest => "bad request".into(),
            Self::PermissionDenied(_) | Self::Member(_) => self.to_string().into(),
            Self::NotAvailable => "not available".into(),
            Self::TooManyRequests | Self::TooFast(_) => "too many requests".into(),
            Self::UnrecoverablePosition => "unrecoverable position".into(),
            Self::Log(error) => error.to_string().into(),
        }
    }

    /// When the same may be asked again, in milliseconds, where that is known.
    #[must_use]
    pub fn retry_after_ms(&self) -> Option<u64> {
        match self {
            Self::Log(error) => error
                .retry_after()
                .map(|after| u64::try_from(after.as_millis()).unwrap_or(u64::MAX)),
            Self::TooFast(ms) => Some(u64::from(*ms)),
            _ => None,
        }
    }

    /// HTTP status in transport error mode; otherwise it is 200. A code without a row in §8.1 is 500.
    #[must_use]
    pub const fn http_status(&self) -> u16 {
        match self {
            Self::Internal | Self::LimitExceeded | Self::TooManyRequests => 500,
            Self::TooFast(_) => 429,
            Self::PermissionDenied(_) => 403,
            Self::UnknownChannel | Self::NotFound => 404,
            Self::BadRequest | Self::Member(_) | Self::NotAvailable => 400,
            Self::UnrecoverablePosition => 416,
            Self::Log(
                LogError::Unavailable { .. } | LogError::Busy { .. } | LogError::Behind { .. },
            ) => 503,
            Self::Log(LogError::Refused(_) | LogError::BadRequest(_)) => 400,
            Self::Log(LogError::Forbidden(_)) => 403,
            Self::Log(LogError::NotFound(_)) => 404,
            Self::Log(LogError::Full(_)) => 500,
            Self::Log(LogError::NoReply) => 504,
        }
    }
}

/// Spoils the whole HTTP request; answered in plain text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApiDecodeError {
    /// The path names no method of this server.
    #[error("unknown method")]
    UnknownMethod,
    /// A command of the legacy endpoint names no method.
    #[error("unknown method in a command")]
    UnknownLegacyMethod,
    /// No body, where at least `{}` is needed.
    #[error("empty body")]
    EmptyBody,
    /// Not JSON, or a member of another type than its own.
    #[error("malformed body: {0}")]
    Malformed(#[from] Malformed),
    /// More commands than `limits::COMMANDS_PER_FRAME_MAX`.
    #[error("too many commands")]
    TooManyCommands,
}

impl ApiDecodeError {
    /// HTTP status of the answer.
    #[must_use]
    pub const fn http_status(&self) -> u16 {
        match self {
            Self::UnknownMethod => 404,
            Self::UnknownLegacyMethod
            | Self::EmptyBody
            | Self::Malformed(_)
            | Self::TooManyCommands => 400,
        }
    }
}
