//! Reasons to close a session (`spec/centrifuge.md` §5.2). The reason is never empty and never JSON (trap T1).

/// Answer and close.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Disconnect {
    /// 3000
    ConnectionClosed,
    /// 3001
    Shutdown,
    /// 3004
    Internal,
    /// 3005
    Expired,
    /// 3006
    SubscriptionExpired,
    /// 3008
    Slow,
    /// 3009
    WriteError,
    /// 3010
    InsufficientState,
    /// 3011
    ForceReconnect,
    /// 3012
    NoPong,
    /// 3013
    TooManyRequests,
    /// 3500
    InvalidToken,
    /// 3501
    BadRequest,
    /// 3502
    Stale,
    /// 3503
    ForceDisconnect,
    /// 3504
    ConnectionLimit,
    /// 3505
    ChannelLimit,
    /// 3506
    InappropriateProtocol,
    /// 3507
    PermissionDenied,
    /// 3508
    NotAvailable,
    /// Chosen by the server API: code and reason.
    Custom(u16, Box<str>),
}

impl Disconnect {
    /// Status code of the close frame.
    #[must_use]
    pub const fn code(&self) -> u16 {
        match self {
            Self::ConnectionClosed => 3000,
            Self::Shutdown => 3001,
            Self::Internal => 3004,
            Self::Expired => 3005,
            Self::SubscriptionExpired => 3006,
            Self::Slow => 3008,
            Self::WriteError => 3009,
            Self::InsufficientState => 3010,
            Self::ForceReconnect => 3011,
            Self::NoPong => 3012,
            Self::TooManyRequests => 3013,
            Self::InvalidToken => 3500,
            Self::BadRequest => 3501,
            Self::Stale => 3502,
            Self::ForceDisconnect => 3503,
            Self::ConnectionLimit => 3504,
            Self::ChannelLimit => 3505,
            Self::InappropriateProtocol => 3506,
            Self::PermissionDenied => 3507,
            Self::NotAvailable => 3508,
            Self::Custom(code, _) => *code,
        }
    }

    /// Reason of the close frame.
    #[must_use]
    pub fn reason(&self) -> &str {
        match self {
            Self::ConnectionClosed => "connection closed",
            Self::Shutdown => "shutdown",
            Self::Internal => "internal server error",
            Self::Expired => "connection expired",
            Self::SubscriptionExpired => "subscription expired",
            Self::Slow => "slow",
            Self::WriteError => "write error",
            Self::InsufficientState => "insufficient state",
            Self::ForceReconnect => "force reconnect",
            Self::NoPong => "no pong",
            Self::TooManyRequests => "too many requests",
            Self::InvalidToken => "invalid token",
            Self::BadRequest => "bad request",
            Self::Stale => "stale",
            Self::ForceDisconnect => "force disconnect",
            Self::ConnectionLimit => "connection limit",
            Self::ChannelLimit => "channel limit",
            Self::InappropriateProtocol => "inappropriate protocol",
            Self::PermissionDenied => "permission denied",
            Self::NotAvailable => "not available",
            Self::Custom(_, reason) => reason,
        }
    }
}
