//! Errors that answer a command and leave the connection open (`spec/centrifuge.md` §5.1).

use std::time::Duration;

use crate::mesh::durable::LogError;
use crate::mesh::message::PublishError;

/// Answer and go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// 100, temporary
    #[error("internal server error")]
    Internal,
    /// 101
    #[error("unauthorized")]
    Unauthorized,
    /// 102
    #[error("unknown channel")]
    UnknownChannel,
    /// 103
    #[error("permission denied")]
    PermissionDenied,
    /// 104
    #[error("method not found")]
    MethodNotFound,
    /// 105
    #[error("already subscribed")]
    AlreadySubscribed,
    /// 106
    #[error("limit exceeded")]
    LimitExceeded,
    /// 107
    #[error("bad request")]
    BadRequest,
    /// 108
    #[error("not available")]
    NotAvailable,
    /// 109
    #[error("token expired")]
    TokenExpired,
    /// 110
    #[error("expired")]
    Expired,
    /// 111, temporary
    #[error("too many requests")]
    TooManyRequests,
    /// 111, temporary: more than a rate allows. When to try again, milliseconds.
    #[error("too many requests")]
    TooFast(u32),
    /// 106, temporary: every place of the tenant is taken. When to try again, milliseconds.
    #[error("limit exceeded")]
    Full(u32),
    /// 112
    #[error("unrecoverable position")]
    UnrecoverablePosition,
    /// 113, temporary: nobody has replied to a request
    #[error("no reply in time")]
    NoReply,
    /// 111, temporary: too much is on its way to the durable log. When to try again, milliseconds.
    #[error("durable log is busy")]
    LogBusy(u32),
    /// 111, temporary: a queue group of the channel has as much to do as it may have. When to try again, milliseconds.
    #[error("a queue group of this channel is too far behind")]
    GroupBehind(u32),
    /// 100, temporary: the durable log does not store. When to try again, milliseconds.
    #[error("durable log is not available")]
    LogUnavailable(u32),
}

impl From<PublishError> for ClientError {
    fn from(error: PublishError) -> Self {
        match error {
            PublishError::UnknownChannel => Self::UnknownChannel,
            PublishError::Overloaded => Self::Internal,
            PublishError::TooManyNew => Self::TooManyRequests,
            PublishError::TooFast(ms) => Self::TooFast(ms),
            PublishError::TenantFull => Self::LimitExceeded,
        }
    }
}

impl ClientError {
    /// Code on the wire.
    #[must_use]
    pub const fn code(self) -> u32 {
        match self {
            Self::Internal | Self::LogUnavailable(_) => 100,
            Self::Unauthorized => 101,
            Self::UnknownChannel => 102,
            Self::PermissionDenied => 103,
            Self::MethodNotFound => 104,
            Self::AlreadySubscribed => 105,
            Self::LimitExceeded | Self::Full(_) => 106,
            Self::BadRequest => 107,
            Self::NotAvailable => 108,
            Self::TokenExpired => 109,
            Self::Expired => 110,
            Self::TooManyRequests | Self::TooFast(_) | Self::LogBusy(_) | Self::GroupBehind(_) => {
                111
            }
            Self::UnrecoverablePosition => 112,
            Self::NoReply => 113,
        }
    }

    /// Message on the wire.
    #[must_use]
    pub const fn message(self) -> &'static str {
        match self {
            Self::Internal => "internal server error",
            Self::Unauthorized => "unauthorized",
            Self::UnknownChannel => "unknown channel",
            Self::PermissionDenied => "permission denied",
            Self::MethodNotFound => "method not found",
            Self::AlreadySubscribed => "already subscribed",
            Self::LimitExceeded | Self::Full(_) => "limit exceeded",
            Self::BadRequest => "bad request",
            Self::NotAvailable => "not available",
            Self::TokenExpired => "token expired",
            Self::Expired => "expired",
            Self::TooManyRequests | Self::TooFast(_) => "too many requests",
            Self::UnrecoverablePosition => "unrecoverable position",
            Self::NoReply => "no reply in time",
            Self::LogBusy(_) => "durable log is busy",
            Self::GroupBehind(_) => "a queue group of this channel is too far behind",
            Self::LogUnavailable(_) => "durable log is not available",
        }
    }

    /// The client may try again.
    #[must_use]
    pub const fn temporary(self) -> bool {
        matches!(
            self,
            Self::Internal
                | Self::TooManyRequests
                | Self::TooFast(_)
                | Self::Full(_)
                | Self::NoReply
                | Self::LogBusy(_)
                | Self::GroupBehind(_)
                | Self::LogUnavailable(_)
        )
    }

    /// When the command may be sent again, in milliseconds, where that is known: `retry_after_ms` of the error.
    #[must_use]
    pub const fn retry_after_ms(self) -> Option<u32> {
        match self {
            Self::TooFast(ms)
            | Self::Full(ms)
            | Self::GroupBehind(ms)
            | Self::LogBusy(ms)
            | Self::LogUnavailable(ms) => Some(ms),
            _ => None,
        }
    }

    /// A rate says no for so long.
    #[must_use]
    pub fn too_fast(wait: Duration) -> Self {
        // Who comes a part of a millisecond early is refused again.
        let ms = wait.as_nanos().div_ceil(1_000_000);
        Self::TooFast(u32::try_from(ms).unwrap_or(u32::MAX))
    }

    /// Every place is taken, and it may be worth to try again after so long.
    #[must_use]
    pub fn full(retry_after: Duration) -> Self {
        Self::Full(u32::try_from(retry_after.as_millis()).unwrap_or(u32::MAX))
    }

    /// What the log's side says, as a client hears it; texts are lost.
    #[must_use]
    pub fn of_log(error: &LogError) -> Self {
        let ms = |after: Duration| u32::try_from(after.as_millis()).unwrap_or(u32::MAX);
        match error {
            LogError::Unavailable { retry_after, .. } => Self::LogUnavailable(ms(*retry_after)),
            LogError::Busy { retry_after } => Self::LogBusy(ms(*retry_after)),
            LogError::Behind { retry_after } => Self::GroupBehind(ms(*retry_after)),
            LogError::Refused(_) | LogError::BadRequest(_) => Self::BadRequest,
            LogError::Forbidden(_) => Self::PermissionDenied,
            LogError::NotFound(_) => Self::NotAvailable,
            LogError::Full(_) => Self::LimitExceeded,
            LogError::NoReply => Self::NoReply,
        }
    }
}
