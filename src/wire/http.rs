//! HTTP/1.1 of the server's side (RFC 9112), as far as an edge needs it: request heads, bodies, responses, the upgrade to WebSocket.
//!
//! Where two readers of one request could disagree about its end, the request is refused.

mod body;
mod cors;
mod head;
mod response;

pub use body::{CHUNK_FRAMING_BYTES_MAX, decode_chunked};
pub use cors::{Cors, is_same_site};
pub use head::{BodyLength, Method, RequestHead, UpgradeRequest, decode_head, query_value};
pub use response::{
    CONTINUE, LAST_CHUNK, Response, encode_response, encode_response_head, encode_stream_head,
    encode_upgrade,
};

/// What the front of a buffer holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decoded<T> {
    /// The value, and how many bytes of the buffer it took.
    Complete(T, usize),
    /// Legal so far; call again with more bytes behind these.
    Incomplete,
}

/// Why a request is refused. Its bytes have no trustworthy end: the connection closes after the answer, which is [`HttpError::response`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HttpError {
    /// Against RFC 9112 or RFC 6455, or ambiguous.
    #[error("bad request")]
    BadRequest,
    /// The path knows other methods only.
    #[error("method not allowed")]
    MethodNotAllowed,
    /// The request did not arrive in time.
    #[error("request timeout")]
    Timeout,
    /// Beyond `HTTP_BODY_BYTES_MAX`, or chunked into crumbs.
    #[error("content too large")]
    BodyTooLarge,
    /// The request line alone is beyond `HTTP_HEAD_BYTES_MAX`.
    #[error("URI too long")]
    UriTooLong,
    /// Beyond `HTTP_HEAD_BYTES_MAX`.
    #[error("request header fields too large")]
    HeadTooLarge,
    /// More than `HTTP_HEADERS_MAX`.
    #[error("too many request header fields")]
    TooManyHeaders,
    /// A WebSocket version other than 13, or a plain request where only WebSocket is spoken.
    #[error("upgrade required")]
    UpgradeRequired,
    /// A transfer coding other than `chunked`.
    #[error("transfer coding not implemented")]
    TransferEncodingUnsupported,
    /// Neither HTTP/1.1 nor HTTP/1.0.
    #[error("HTTP version not supported")]
    VersionUnsupported,
}

impl HttpError {
    /// The status code of the answer.
    pub fn status(self) -> u16 {
        match self {
            Self::BadRequest => 400,
            Self::MethodNotAllowed => 405,
            Self::Timeout => 408,
            Self::BodyTooLarge => 413,
            Self::UriTooLong => 414,
            Self::UpgradeRequired => 426,
            Self::HeadTooLarge | Self::TooManyHeaders => 431,
            Self::TransferEncodingUnsupported => 501,
            Self::VersionUnsupported => 505,
        }
    }

    /// The answer: a line of text, and the connection's end.
    pub fn response(self) -> Response<'static> {
        let (body, headers): (&str, &[(&str, &str)]) = match self {
            Self::BadRequest => ("bad request\n", &[]),
            Self::MethodNotAllowed => ("method not allowed\n", &[]),
            Self::Timeout => ("the request did not arrive in time\n", &[]),
            Self::BodyTooLarge => ("request body too large\n", &[]),
            Self::UriTooLong => ("request line too long\n", &[]),
            Self::UpgradeRequired => (
                "WebSocket version 13 is spoken here\n",
                &[("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13")],
            ),
            Self::HeadTooLarge => ("request head too large\n", &[]),
            Self::TooManyHeaders => ("too many request headers\n", &[]),
            Self::TransferEncodingUnsupported => ("transfer coding not implemented\n", &[]),
            Self::VersionUnsupported => ("HTTP version not supported\n", &[]),
        };
        Response {
            status: self.status(),
            content_type: "text/plain; charset=utf-8",
            headers,
            body: body.as_bytes(),
            keep_alive: false,
        }
    }
}

/// A line feed that no carriage return precedes; `httparse` takes it for a line's end, another reader might not.
fn has_bare_line_feed(bytes: &[u8]) -> bool {
    memchr::memchr_iter(b'\n', bytes).any(|at| at == 0 || bytes[at - 1] != b'\r')
}
