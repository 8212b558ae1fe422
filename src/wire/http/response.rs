//! Responses.

use tungstenite::handshake::derive_accept_key;

/// Asks a client for the body it holds back.
pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// A response whose body is at hand.
#[derive(Clone, Copy, Debug)]
pub struct Response<'a> {
    /// The status code, 200 to 599.
    pub status: u16,
    /// `Content-Type`; empty: no such header.
    pub content_type: &'a str,
    /// Further headers, name and value. Neither holds a CR or LF.
    pub headers: &'a [(&'a str, &'a str)],
    /// The body; empty with status 204 and 304.
    pub body: &'a [u8],
    /// False: the connection closes after this response.
    pub keep_alive: bool,
}

/// Appends a whole response.
pub fn encode_response(out: &mut Vec<u8>, response: &Response<'_>) {
    encode_response_head(out, response);
    out.extend_from_slice(response.body);
}

/// Appends a response without its body, the answer to `HEAD`; `Content-Length` is that of the body left out.
pub fn encode_response_head(out: &mut Vec<u8>, response: &Response<'_>) {
    let mut digits = itoa::Buffer::new();
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(digits.format(response.status).as_bytes());
    out.push(b' ');
    out.extend_from_slice(reason_phrase(response.status).as_bytes());
    out.extend_from_slice(b"\r\n");
    if !response.content_type.is_empty() {
        encode_header(out, "Content-Type", response.content_type);
    }
    if response.status == 204 || response.status == 304 {
        assert!(response.body.is_empty(), "this status has no body");
    } else {
        encode_header(out, "Content-Length", digits.format(response.body.len()));
    }
    for (name, value) in response.headers {
        encode_header(out, name, value);
    }
    // HTTP/1.0 clients need the one, HTTP/1.1 clients the other, spelled out. `Upgrade` is an option of the connection too (RFC 9110 §7.8).
    let upgrade = response.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("upgrade"));
    match (response.keep_alive, upgrade) {
        (true, _) => encode_header(out, "Connection", "keep-alive"),
        (false, false) => encode_header(out, "Connection", "close"),
        (false, true) => encode_header(out, "Connection", "close, upgrade"),
    }
    out.extend_from_slice(b"\r\n");
}

/// Appends the answer that ends HTTP on this connection and begins WebSocket (RFC 6455 §4.2.2). `protocol` is one the client offered.
pub fn encode_upgrade(out: &mut Vec<u8>, key: &str, protocol: Option<&str>) {
    out.extend_from_slice(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n");
    encode_header(out, "Sec-WebSocket-Accept", &derive_accept_key(key.as_bytes()));
    if let Some(protocol) = protocol {
        encode_header(out, "Sec-WebSocket-Protocol", protocol);
    }
    out.extend_from_slice(b"\r\n");
}

fn encode_header(out: &mut Vec<u8>, name: &str, value: &str) {
    assert!(memchr::memchr2(b'\r', b'\n', value.as_bytes()).is_none(), "a header is one line");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value.as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// The reason phrases of RFC 9110 §15 and RFC 6585; empty, as is legal, for codes this program has no use for.
fn reason_phrase(status: u16) -> &'static str {
    match status {
        200 => "OK",
        204 => "No Content",
        304 => "Not Modified",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        413 => "Content Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        426 => "Upgrade Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        503 => "Service Unavailable",
        505 => "HTTP Version Not Supported",
        _ => "",
    }
}
