//! Errors that answer a command and leave the connection open (`spec/centrifuge.md` §5.1).

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
    /// 112
    #[error("unrecoverable position")]
    UnrecoverablePosition,
}

impl ClientError {
    /// Code on the wire.
    #[must_use]
    pub const fn code(self) -> u32 {
        match self {
            Self::Internal => 100,
            Self::Unauthorized => 101,
            Self::UnknownChannel => 102,
            Self::PermissionDenied => 103,
            Self::MethodNotFound => 104,
            Self::AlreadySubscribed => 105,
            Self::LimitExceeded => 106,
            Self::BadRequest => 107,
            Self::NotAvailable => 108,
            Self::TokenExpired => 109,
            Self::Expired => 110,
            Self::TooManyRequests => 111,
            Self::UnrecoverablePosition => 112,
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
            Self::LimitExceeded => "limit exceeded",
            Self::BadRequest => "bad request",
            Self::NotAvailable => "not available",
            Self::TokenExpired => "token expired",
            Self::Expired => "expired",
            Self::TooManyRequests => "too many requests",
            Self::UnrecoverablePosition => "unrecoverable position",
        }
    }

    /// The client may try again.
    #[must_use]
    pub const fn temporary(self) -> bool {
        matches!(self, Self::Internal | Self::TooManyRequests)
    }
}
