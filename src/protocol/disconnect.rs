//! Reasons to close a session (`spec/centrifuge.md` §5.2). The reason is never empty and never JSON (trap T1).

use crate::wire::json::is_json;

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
    /// 4510: too slow for what is pushed. The reason says where to poll, and from which position.
    Degraded(Box<str>),
    /// Chosen by the server API: code and reason.
    Custom(u16, Box<str>),
}

/// Bytes of a reason: what a close frame has room for beside the code (RFC 6455 §5.5).
const CLOSE_REASON_BYTES_MAX: usize = 123;

impl Disconnect {
    /// A disconnect that a service chose. `None` for a code outside 3000..=4999, which clients give a meaning of their
    /// own or which no close frame may carry, and for a reason that is too long or would be read as JSON.
    #[must_use]
    pub fn chosen(code: u32, reason: &str) -> Option<Self> {
        let code = u16::try_from(code)
            .ok()
            .filter(|code| (3000..=4999).contains(code))?;
        if reason.len() > CLOSE_REASON_BYTES_MAX || is_json(reason.as_bytes()) {
            return None;
        }
        let reason = if reason.is_empty() {
            "disconnect"
        } else {
            reason
        };
        Some(Self::Custom(code, reason.into()))
    }

    /// The reason of who is to poll from here on: the path of the endpoint with the channel and the position, as a request line
    /// has them. A channel's name that leaves no room is left out: the client knows it.
    #[must_use]
    pub fn degraded(path: &str, channel: &str, epoch: &str, offset: u64) -> Self {
        let named = |channel: &str| {
            let mut reason = format!("poll {path}?epoch={epoch}&offset={offset}");
            if !channel.is_empty() {
                reason.push_str("&channel=");
                for byte in channel.bytes() {
                    match byte {
                        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                            reason.push(char::from(byte));
                        }
                        _ => reason.push_str(&format!("%{byte:02X}")),
                    }
                }
            }
            reason
        };
        let fits = |reason: &String| reason.len() <= CLOSE_REASON_BYTES_MAX;
        let position = || format!("poll epoch={epoch}&offset={offset}");
        let reason = Some(named(channel)).filter(fits);
        let reason = reason.or_else(|| Some(named("")).filter(fits));
        Self::Degraded(reason.unwrap_or_else(position).into())
    }

    /// The peer is not told: its connection is dropped (code 3000, also where a service chose it).
    #[must_use]
    pub const fn is_silent(&self) -> bool {
        self.code() == Self::ConnectionClosed.code()
    }

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
            Self::Degraded(_) => 4510,
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
            Self::Degraded(reason) | Self::Custom(_, reason) => reason,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chosen_disconnect_has_a_code_and_a_reason_that_clients_understand() {
        assert_eq!(
            Disconnect::chosen(4001, "bye"),
            Some(Disconnect::Custom(4001, "bye".into()))
        );
        assert_eq!(
            Disconnect::chosen(3500, "invalid token").map(|chosen| chosen.code()),
            Some(3500)
        );
        for code in [0, 1000, 2999, 5000, 65_536 + 4000] {
            assert_eq!(Disconnect::chosen(code, "bye"), None, "{code}");
        }
    }

    #[test]
    fn chosen_disconnect_never_has_an_empty_or_json_or_too_long_reason() {
        assert_eq!(
            Disconnect::chosen(4001, "").map(|chosen| chosen.reason().to_owned()),
            Some("disconnect".into())
        );
        for reason in [
            "{}",
            "7",
            "null",
            r#"{"reason":"x","reconnect":true}"#,
            &"x".repeat(124),
        ] {
            assert_eq!(Disconnect::chosen(4001, reason), None, "{reason}");
        }
    }
}
