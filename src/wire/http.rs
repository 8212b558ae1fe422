//! HTTP/1.1 of the server's side (RFC 9112), as far as an edge needs it: request heads, bodies, responses, the upgrade to WebSocket.
//!
//! Where two readers of one request could disagree about its end, the request is refused.

mod body;
mod cors;
pub mod date;
mod head;
mod image;
mod response;

pub use body::BodyReader;
pub use cors::{Cors, is_same_site};
pub use date::DateLine;
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

/// What a resource lets be done with it: values of `Allow` (RFC 9110 §10.2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allow {
    /// It is read.
    Get,
    /// It is read, or asked for its head.
    GetHead,
    /// It is read, by a browser too that asks first.
    GetOptions,
    /// It is read or written.
    GetPost,
    /// It is written.
    Post,
    /// It is written, by a browser too that asks first.
    PostOptions,
    /// What any resource of the server may allow.
    Any,
}

impl Allow {
    /// As the header has it.
    #[must_use]
    pub const fn value(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::GetHead => "GET, HEAD",
            Self::GetOptions => "GET, OPTIONS",
            Self::GetPost => "GET, POST",
            Self::Post => "POST",
            Self::PostOptions => "POST, OPTIONS",
            Self::Any => "GET, HEAD, POST, OPTIONS",
        }
    }
}

/// Why a request is refused. See [`HttpError::ends_connection`] for what becomes of its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HttpError {
    /// Against RFC 9112 or RFC 6455, or ambiguous.
    #[error("bad request")]
    BadRequest,
    /// The key of the server API is missing or wrong.
    #[error("unauthorized")]
    Unauthorized,
    /// The key of the server API was right until its time was over.
    #[error("the key has expired")]
    KeyExpired,
    /// The origin is not allowed.
    #[error("origin not allowed")]
    Forbidden,
    /// Nothing is at this path.
    #[error("not found")]
    NotFound,
    /// The path knows only these methods.
    #[error("method not allowed")]
    MethodNotAllowed(Allow),
    /// The request did not arrive in time.
    #[error("request timeout")]
    Timeout,
    /// Beyond what its path takes, or chunked into crumbs.
    #[error("content too large")]
    BodyTooLarge,
    /// The request line alone is beyond `HTTP_HEAD_BYTES_MAX`.
    #[error("URI too long")]
    UriTooLong,
    /// `Expect` names something else than `100-continue`.
    #[error("expectation failed")]
    ExpectationFailed,
    /// A WebSocket version other than 13, or a plain request where only WebSocket is spoken.
    #[error("upgrade required")]
    UpgradeRequired,
    /// Beyond `HTTP_HEAD_BYTES_MAX`.
    #[error("request header fields too large")]
    HeadTooLarge,
    /// More than `HTTP_HEADERS_MAX`.
    #[error("too many request header fields")]
    TooManyHeaders,
    /// The shard holds as much unfinished input as it may, and this connection the most of it.
    #[error("too much unfinished input")]
    Overloaded,
    /// The request is not whole, and the program ends.
    #[error("shutting down")]
    ShuttingDown,
    /// A method that no path of this program knows.
    #[error("method not implemented")]
    MethodUnknown,
    /// A transfer coding other than `chunked`.
    #[error("transfer coding not implemented")]
    TransferEncodingUnsupported,
    /// Neither HTTP/1.1 nor HTTP/1.0.
    #[error("HTTP version not supported")]
    VersionUnsupported,
}

impl HttpError {
    /// The status code of the answer.
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            Self::BadRequest => 400,
            Self::Unauthorized | Self::KeyExpired => 401,
            Self::Forbidden => 403,
            Self::NotFound => 404,
            Self::MethodNotAllowed(_) => 405,
            Self::Timeout => 408,
            Self::BodyTooLarge => 413,
            Self::UriTooLong => 414,
            Self::ExpectationFailed => 417,
            Self::UpgradeRequired => 426,
            Self::HeadTooLarge | Self::TooManyHeaders => 431,
            Self::MethodUnknown | Self::TransferEncodingUnsupported => 501,
            Self::Overloaded | Self::ShuttingDown => 503,
            Self::VersionUnsupported => 505,
        }
    }

    /// The body of the answer: a line of text.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::BadRequest => "bad request\n",
            Self::Unauthorized => "unauthorized\n",
            Self::KeyExpired => "this key has expired: ask for a new one\n",
            Self::Forbidden => "origin not allowed\n",
            Self::NotFound => "not found\n",
            Self::MethodNotAllowed(_) => "method not allowed\n",
            Self::Timeout => "the request did not arrive in time\n",
            Self::BodyTooLarge => "request body too large\n",
            Self::UriTooLong => "request line too long\n",
            Self::ExpectationFailed => "expectation not known\n",
            Self::UpgradeRequired => "WebSocket version 13 is spoken here\n",
            Self::HeadTooLarge => "request head too large\n",
            Self::TooManyHeaders => "too many request headers\n",
            Self::MethodUnknown => "method not implemented\n",
            Self::TransferEncodingUnsupported => "transfer coding not implemented\n",
            Self::Overloaded => "try again\n",
            Self::ShuttingDown => "shutting down\n",
            Self::VersionUnsupported => "HTTP version not supported\n",
        }
    }

    /// What the status asks for beside it (RFC 9110 §15.5.2, §15.5.6, §15.5.22; RFC 6455 §4.2.2).
    #[must_use]
    pub fn headers(self) -> Vec<(&'static str, &'static str)> {
        match self {
            Self::Unauthorized | Self::KeyExpired => {
                vec![("WWW-Authenticate", "ApiKey realm=\"server API\"")]
            }
            Self::Forbidden => vec![("Vary", "Origin")],
            Self::MethodNotAllowed(allow) => vec![("Allow", allow.value())],
            Self::UpgradeRequired => {
                vec![("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13")]
            }
            // When to come back is said where there is chance (`shard/answers`).
            Self::Overloaded
            | Self::ShuttingDown
            | Self::BadRequest
            | Self::NotFound
            | Self::Timeout
            | Self::BodyTooLarge
            | Self::UriTooLong
            | Self::ExpectationFailed
            | Self::HeadTooLarge
            | Self::TooManyHeaders
            | Self::MethodUnknown
            | Self::TransferEncodingUnsupported
            | Self::VersionUnsupported => Vec::new(),
        }
    }

    /// The end of the request cannot be trusted, or will not be waited for: the connection ends with the answer. Where it is
    /// false the head was understood and the next request begins behind its body.
    #[must_use]
    pub const fn ends_connection(self) -> bool {
        match self {
            Self::Unauthorized
            | Self::KeyExpired
            | Self::Forbidden
            | Self::NotFound
            | Self::MethodNotAllowed(_)
            | Self::UpgradeRequired => false,
            Self::BadRequest
            | Self::Timeout
            | Self::BodyTooLarge
            | Self::UriTooLong
            | Self::ExpectationFailed
            | Self::HeadTooLarge
            | Self::TooManyHeaders
            | Self::Overloaded
            | Self::ShuttingDown
            | Self::MethodUnknown
            | Self::TransferEncodingUnsupported
            | Self::VersionUnsupported => true,
        }
    }
}

/// A line feed that no carriage return precedes; `httparse` takes it for a line's end, another reader might not.
fn has_bare_line_feed(bytes: &[u8]) -> bool {
    memchr::memchr_iter(b'\n', bytes).any(|at| at == 0 || bytes[at - 1] != b'\r')
}
