//! What can be wrong with an API request.

/// Answers one request in place of its result (`spec/centrifuge.md` §8.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApiError {
    /// 100
    #[error("internal server error")]
    Internal,
    /// 102
    #[error("unknown channel")]
    UnknownChannel,
    /// 104
    #[error("not found")]
    NotFound,
    /// 106
    #[error("limit exceeded")]
    LimitExceeded,
    /// 107
    #[error("bad request")]
    BadRequest,
    /// 108
    #[error("not available")]
    NotAvailable,
    /// 111
    #[error("too many requests")]
    TooManyRequests,
    /// 112
    #[error("unrecoverable position")]
    UnrecoverablePosition,
}

impl ApiError {
    /// All of them, by code.
    pub const ALL: [Self; 8] = [
        Self::Internal,
        Self::UnknownChannel,
        Self::NotFound,
        Self::LimitExceeded,
        Self::BadRequest,
        Self::NotAvailable,
        Self::TooManyRequests,
        Self::UnrecoverablePosition,
    ];

    /// Code on the wire.
    #[must_use]
    pub const fn code(self) -> u32 {
        match self {
            Self::Internal => 100,
            Self::UnknownChannel => 102,
            Self::NotFound => 104,
            Self::LimitExceeded => 106,
            Self::BadRequest => 107,
            Self::NotAvailable => 108,
            Self::TooManyRequests => 111,
            Self::UnrecoverablePosition => 112,
        }
    }

    /// Message on the wire.
    #[must_use]
    pub const fn message(self) -> &'static str {
        match self {
            Self::Internal => "internal server error",
            Self::UnknownChannel => "unknown channel",
            Self::NotFound => "not found",
            Self::LimitExceeded => "limit exceeded",
            Self::BadRequest => "bad request",
            Self::NotAvailable => "not available",
            Self::TooManyRequests => "too many requests",
            Self::UnrecoverablePosition => "unrecoverable position",
        }
    }

    /// HTTP status in transport error mode; otherwise it is 200. A code without a row in §8.1 is 500.
    #[must_use]
    pub const fn http_status(self) -> u16 {
        match self {
            Self::Internal | Self::LimitExceeded | Self::TooManyRequests => 500,
            Self::UnknownChannel | Self::NotFound => 404,
            Self::BadRequest | Self::NotAvailable => 400,
            Self::UnrecoverablePosition => 416,
        }
    }
}

/// Spoils the whole HTTP request; answered in plain text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
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
    /// Not JSON, or a field of another type than its own.
    #[error("malformed body")]
    BadJson,
    /// More commands than `limits::COMMANDS_PER_FRAME_MAX`.
    #[error("too many commands")]
    TooManyCommands,
}

impl ApiDecodeError {
    /// HTTP status of the answer.
    #[must_use]
    pub const fn http_status(self) -> u16 {
        match self {
            Self::UnknownMethod => 404,
            Self::UnknownLegacyMethod | Self::EmptyBody | Self::BadJson | Self::TooManyCommands => {
                400
            }
        }
    }
}
