//! Pure functions on bytes: HTTP/1.1 and RFC 6455.

pub mod http;
pub mod websocket;
