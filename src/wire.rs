//! Pure functions on bytes: HTTP/1.1, RFC 6455, Fossil delta, JSON and conditions on it.

pub mod condition;
pub mod decimal;
pub mod fossil;
pub mod http;
pub mod json;
pub mod websocket;
