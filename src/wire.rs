//! Pure functions on bytes: HTTP/1.1, RFC 6455, Fossil delta.

pub mod fossil;
pub mod http;
pub mod websocket;
