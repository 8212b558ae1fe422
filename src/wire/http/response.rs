//! Responses.

use tungstenite::handshake::derive_accept_key;

/// Asks a client for the body it holds back.
pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// Ends a body that [`encode_stream_head`] began.
pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// A response whose body is at hand.
#[derive(Clone, Copy, Debug)]
pub struct Response<'a> {
    /// The status code, 200 to 599.
    pub status: u16,
    /// `Content-Type`; empty: no such header.
    pub content_type: &'a str,
    /// `Date`.
    pub date: &'a str,
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
    encode_header(out, "Date", response.date);
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
    let upgrade = response
        .headers
        .iter()
        .any(|(name, _)| name.eq_ignore_ascii_case("upgrade"));
    match (response.keep_alive, upgrade) {
        (true, false) => encode_header(out, "Connection", "keep-alive"),
        (true, true) => encode_header(out, "Connection", "keep-alive, upgrade"),
        (false, false) => encode_header(out, "Connection", "close"),
        (false, true) => encode_header(out, "Connection", "close, upgrade"),
    }
    out.extend_from_slice(b"\r\n");
}

/// Appends the head of a response whose body goes on: in chunks until [`LAST_CHUNK`], or until the connection ends, as
/// HTTP/1.0 has it. Either way the connection ends with it, and says so. Nobody between here and the client is to keep or
/// gather what comes (`spec/centrifuge.md` §1.5).
pub fn encode_stream_head(
    out: &mut Vec<u8>,
    date: &str,
    content_type: &str,
    chunked: bool,
    headers: &[(&str, &str)],
) {
    out.extend_from_slice(b"HTTP/1.1 200 OK\r\n");
    for (name, value) in [
        ("Date", date),
        ("Content-Type", content_type),
        ("X-Accel-Buffering", "no"),
        (
            "Cache-Control",
            "private, no-cache, no-store, must-revalidate, max-age=0",
        ),
        ("Pragma", "no-cache"),
        ("Expire", "0"),
        ("Connection", "close"),
    ] {
        encode_header(out, name, value);
    }
    if chunked {
        encode_header(out, "Transfer-Encoding", "chunked");
    }
    for (name, value) in headers {
        encode_header(out, name, value);
    }
    out.extend_from_slice(b"\r\n");
}

/// Appends the answer that ends HTTP on this connection and begins WebSocket (RFC 6455 §4.2.2). `protocol` is one the client offered.
pub fn encode_upgrade(
    out: &mut Vec<u8>,
    key: &str,
    protocol: Option<&str>,
    headers: &[(&str, &str)],
) {
    out.extend_from_slice(
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n",
    );
    encode_header(
        out,
        "Sec-WebSocket-Accept",
        &derive_accept_key(key.as_bytes()),
    );
    if let Some(protocol) = protocol {
        encode_header(out, "Sec-WebSocket-Protocol", protocol);
    }
    for (name, value) in headers {
        encode_header(out, name, value);
    }
    out.extend_from_slice(b"\r\n");
}

fn encode_header(out: &mut Vec<u8>, name: &str, value: &str) {
    assert!(
        memchr::memchr2(b'\r', b'\n', value.as_bytes()).is_none(),
        "a header is one line"
    );
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
        417 => "Expectation Failed",
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

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::io::{self, Read, Write};

    use tungstenite::client::IntoClientRequest as _;
    use tungstenite::http::HeaderValue;

    use super::*;
    use crate::wire::http::{Allow, Decoded, HttpError, decode_head};

    /// Status and headers as `httparse` reads them, and what follows the head.
    fn parse(wire: &[u8]) -> (u16, Vec<(String, String)>, Vec<u8>) {
        let mut headers = [httparse::EMPTY_HEADER; 16];
        let mut response = httparse::Response::new(&mut headers);
        let used = response.parse(wire).unwrap().unwrap();
        let headers = response.headers.iter().map(|header| {
            (
                header.name.into(),
                str::from_utf8(header.value).unwrap().into(),
            )
        });
        (
            response.code.unwrap(),
            headers.collect(),
            wire[used..].to_vec(),
        )
    }

    fn encoded(response: &Response<'_>) -> (u16, Vec<(String, String)>, Vec<u8>) {
        let mut out = Vec::new();
        encode_response(&mut out, response);
        parse(&out)
    }

    const DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";

    fn pair(name: &str, value: &str) -> (String, String) {
        (name.into(), value.into())
    }

    #[test]
    fn response_carries_its_headers_and_its_body() {
        let response = Response {
            status: 200,
            content_type: "application/json",
            date: DATE,
            headers: &[("Vary", "Origin")],
            body: b"{}",
            keep_alive: true,
        };
        let headers = vec![
            pair("Date", DATE),
            pair("Content-Type", "application/json"),
            pair("Content-Length", "2"),
            pair("Vary", "Origin"),
            pair("Connection", "keep-alive"),
        ];
        assert_eq!(encoded(&response), (200, headers.clone(), b"{}".to_vec()));
        let mut out = Vec::new();
        encode_response_head(&mut out, &response);
        assert_eq!(parse(&out), (200, headers, Vec::new()));
    }

    #[test]
    fn response_without_content_has_no_length() {
        let response = Response {
            status: 204,
            content_type: "",
            date: DATE,
            headers: &[],
            body: b"",
            keep_alive: false,
        };
        assert_eq!(
            encoded(&response),
            (
                204,
                vec![pair("Date", DATE), pair("Connection", "close")],
                Vec::new()
            )
        );
    }

    fn refusal(error: HttpError) -> (u16, Vec<(String, String)>, Vec<u8>) {
        encoded(&Response {
            status: error.status(),
            content_type: "text/plain",
            date: DATE,
            headers: &error.headers(),
            body: error.text().as_bytes(),
            keep_alive: !error.ends_connection(),
        })
    }

    #[test]
    fn each_refusal_has_its_status_and_what_the_status_asks_for() {
        for (error, status, header) in [
            (HttpError::BadRequest, 400, None),
            (HttpError::Unauthorized, 401, Some("WWW-Authenticate")),
            (HttpError::Forbidden, 403, Some("Vary")),
            (HttpError::NotFound, 404, None),
            (HttpError::MethodNotAllowed(Allow::Get), 405, Some("Allow")),
            (HttpError::Timeout, 408, None),
            (HttpError::BodyTooLarge, 413, None),
            (HttpError::UriTooLong, 414, None),
            (HttpError::ExpectationFailed, 417, None),
            (HttpError::UpgradeRequired, 426, Some("Upgrade")),
            (HttpError::HeadTooLarge, 431, None),
            (HttpError::TooManyHeaders, 431, None),
            (HttpError::Overloaded, 503, None),
            (HttpError::MethodUnknown, 501, None),
            (HttpError::TransferEncodingUnsupported, 501, None),
            (HttpError::VersionUnsupported, 505, None),
        ] {
            let (code, headers, body) = refusal(error);
            assert_eq!(code, status);
            assert_eq!(headers[2], pair("Content-Length", &body.len().to_string()));
            assert_eq!(headers[0], pair("Date", DATE));
            assert!(!reason_phrase(status).is_empty());
            if let Some(header) = header {
                assert!(headers.iter().any(|(name, _)| name == header), "{error:?}");
            }
        }
        let (_, headers, _) = refusal(HttpError::UpgradeRequired);
        assert!(headers.contains(&pair("Sec-WebSocket-Version", "13")));
        assert!(headers.contains(&pair("Connection", "keep-alive, upgrade")));
    }

    #[test]
    fn stream_says_from_its_start_that_the_connection_ends_with_it() {
        for chunked in [true, false] {
            let mut out = Vec::new();
            encode_stream_head(&mut out, DATE, "text/plain", chunked, &[("Vary", "Origin")]);
            let (status, headers, rest) = parse(&out);
            assert_eq!((status, rest.len()), (200, 0));
            assert!(headers.contains(&pair("Connection", "close")));
            assert!(headers.contains(&pair("Vary", "Origin")));
            let has_chunks = headers.contains(&pair("Transfer-Encoding", "chunked"));
            assert_eq!(has_chunks, chunked);
        }
    }

    #[test]
    fn accept_key_is_that_of_the_rfc() {
        let mut out = Vec::new();
        encode_upgrade(&mut out, "dGhlIHNhbXBsZSBub25jZQ==", None, &[]);
        let (status, headers, rest) = parse(&out);
        assert_eq!((status, rest.len(), headers.len()), (101, 0, 3));
        assert_eq!(
            headers[2],
            pair("Sec-WebSocket-Accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")
        );
    }

    #[derive(Debug, Default)]
    struct Wire {
        to_client: VecDeque<u8>,
        to_server: Vec<u8>,
    }

    impl Read for Wire {
        fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
            if self.to_client.is_empty() {
                Err(io::ErrorKind::WouldBlock.into())
            } else {
                self.to_client.read(out)
            }
        }
    }

    impl Write for Wire {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.to_server.write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn peer_accepts_the_upgrade_it_asked_for() {
        let mut request = "ws://edge.example/connection/websocket?a=b"
            .into_client_request()
            .unwrap();
        request.headers_mut().insert(
            "Sec-WebSocket-Protocol",
            HeaderValue::from_static("x, centrifuge-json"),
        );
        let Err(tungstenite::HandshakeError::Interrupted(mut handshake)) =
            tungstenite::client(request, Wire::default())
        else {
            panic!("the client waits for an answer");
        };
        let wire = handshake.get_mut().get_mut();
        let Ok(Decoded::Complete(head, used)) = decode_head(&wire.to_server) else {
            panic!("{wire:?}")
        };
        assert_eq!(
            (used, head.path, head.query),
            (wire.to_server.len(), "/connection/websocket", "a=b")
        );
        let upgrade = head.upgrade.unwrap();
        let known = ["centrifuge-json"];
        assert_eq!(upgrade.first_of(&known), Some(known[0]));
        let mut out = Vec::new();
        encode_upgrade(&mut out, upgrade.key, Some("centrifuge-json"), &[]);
        wire.to_client.extend(out);
        let Ok((_, response)) = handshake.handshake() else {
            panic!("the client refused")
        };
        assert_eq!(
            response.headers()["Sec-WebSocket-Protocol"],
            "centrifuge-json"
        );
    }
}
