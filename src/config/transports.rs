//! The endpoints of clients beside the WebSocket: where they are and what they take (`spec/centrifuge.md` §1).

use std::time::Duration;

/// Bytes of one request body, unless a section says otherwise.
const BODY_BYTES: usize = 65_536;

/// `[http_stream]`, `[sse]`: what goes to clients that send with `[emulation]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Downstream {
    /// Default false.
    pub enabled: bool,
    /// Path, without a trailing slash.
    pub handler_prefix: String,
    /// Bytes of the body with the first commands, default 65 536; more is answered with 413.
    pub max_request_body_size: usize,
}

/// `[emulation]`: what comes from clients of `[http_stream]` and `[sse]`; on when one of them is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Emulation {
    /// Path, without a trailing slash.
    pub handler_prefix: String,
    /// Bytes of one body, default 65 536; more is answered with 413.
    pub max_request_body_size: usize,
}

/// `[uni_websocket]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UniWebSocket {
    /// Default false.
    pub enabled: bool,
    /// Path, without a trailing slash.
    pub handler_prefix: String,
    /// Bytes of one message from a client, default 65 536; longer closes with 1009.
    pub message_size_limit: usize,
    /// Publications that go out at the same time share a frame, a line each.
    pub join_push_messages: bool,
    /// The end is told by the close frame alone.
    pub disable_disconnect_push: bool,
    /// TCP ends without a close frame.
    pub disable_closing_handshake: bool,
}

/// `[uni_sse]`, `[uni_http_stream]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UniStream {
    /// Default false.
    pub enabled: bool,
    /// Path, without a trailing slash.
    pub handler_prefix: String,
    /// Bytes of the body with the connect request, default 65 536; more is answered with 413.
    pub max_request_body_size: usize,
    /// A refused connect is answered with a status instead of a stream that ends at once.
    pub connect_code_to_http_response: Transforms<HttpAnswer>,
}

/// `[init]`: answers `{}`, for warming up a connection and testing CORS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Init {
    /// Default false.
    pub enabled: bool,
    /// Path, without a trailing slash.
    pub handler_prefix: String,
}

/// `[poll]`: long polling of one channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Poll {
    /// Default false.
    pub enabled: bool,
    /// Path, without a trailing slash.
    pub handler_prefix: String,
    /// How long a request waits for a publication when it does not say so itself, default 25 s.
    pub timeout: Duration,
    /// How long a request may wait at most, default 60 s.
    pub max_timeout: Duration,
}

/// What becomes of the code with which a connect is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transforms<T> {
    /// Default false.
    pub enabled: bool,
    /// The first with the code counts.
    pub transforms: Vec<(u32, T)>,
}

impl<T> Transforms<T> {
    /// What a code becomes, if it is listed.
    #[must_use]
    pub fn of(&self, code: u32) -> Option<&T> {
        let mut listed = self.transforms.iter().filter(|_| self.enabled);
        listed.find(|(from, _)| *from == code).map(|(_, to)| to)
    }
}

impl<T> Default for Transforms<T> {
    fn default() -> Self {
        Self {
            enabled: false,
            transforms: Vec::new(),
        }
    }
}

/// `connect_code_to_http_response.transforms.to`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpAnswer {
    /// 200 to 599.
    pub status_code: u16,
    /// Empty: the text that belongs to the code.
    pub body: String,
}

/// `connect_code_to_unidirectional_disconnect.transforms.to`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DisconnectCode {
    /// 3000 to 4999.
    pub code: u16,
    /// 1 to 123 bytes, not JSON.
    pub reason: String,
}

impl Downstream {
    pub(super) fn at(path: &str) -> Self {
        Self {
            enabled: false,
            handler_prefix: path.to_owned(),
            max_request_body_size: BODY_BYTES,
        }
    }
}

impl Default for Emulation {
    fn default() -> Self {
        Self {
            handler_prefix: "/emulation".to_owned(),
            max_request_body_size: BODY_BYTES,
        }
    }
}

impl Default for UniWebSocket {
    fn default() -> Self {
        Self {
            enabled: false,
            handler_prefix: "/connection/uni_websocket".to_owned(),
            message_size_limit: BODY_BYTES,
            join_push_messages: false,
            disable_disconnect_push: false,
            disable_closing_handshake: false,
        }
    }
}

impl UniStream {
    pub(super) fn at(path: &str) -> Self {
        Self {
            enabled: false,
            handler_prefix: path.to_owned(),
            max_request_body_size: BODY_BYTES,
            connect_code_to_http_response: Transforms::default(),
        }
    }
}

impl Default for Init {
    fn default() -> Self {
        Self {
            enabled: false,
            handler_prefix: "/connection/init".to_owned(),
        }
    }
}

impl Default for Poll {
    fn default() -> Self {
        Self {
            enabled: false,
            handler_prefix: "/connection/poll".to_owned(),
            timeout: Duration::from_secs(25),
            max_timeout: Duration::from_secs(60),
        }
    }
}

impl Default for HttpAnswer {
    fn default() -> Self {
        Self {
            status_code: 500,
            body: String::new(),
        }
    }
}

impl Default for DisconnectCode {
    fn default() -> Self {
        Self {
            code: 3004,
            reason: "internal server error".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_transformed_only_while_transforms_are_on() {
        let mut transforms = Transforms {
            enabled: true,
            transforms: vec![(109, 401), (109, 403)],
        };
        assert_eq!(transforms.of(109), Some(&401), "the first counts");
        assert_eq!(transforms.of(110), None);
        transforms.enabled = false;
        assert_eq!(transforms.of(109), None);
    }
}
