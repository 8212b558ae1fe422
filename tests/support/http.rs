//! A small blocking HTTP/1.1 client: one connection, one request after another or many at once.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};

use serde_json::Value;

use super::wait::DEADLINE;

/// An HTTP connection.
pub(crate) struct Http<S = TcpStream> {
    stream: S,
    received: Vec<u8>,
}

/// A response.
#[derive(Clone, Debug)]
pub(crate) struct Response {
    /// Status code.
    pub(crate) status: u16,
    headers: Vec<(String, String)>,
    /// Body bytes.
    pub(crate) body: Vec<u8>,
}

impl Response {
    /// First header with this name, in any case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(own, _)| own.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    /// Body as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Body as JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }
}

impl Http {
    /// Connects; reads and writes have a deadline.
    pub(crate) fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect_timeout(&address, DEADLINE).expect("the listener accepts");
        stream.set_read_timeout(Some(DEADLINE)).expect("a deadline");
        stream
            .set_write_timeout(Some(DEADLINE))
            .expect("a deadline");
        stream.set_nodelay(true).expect("no delay");
        Self::over(stream)
    }

    /// Tells the peer that nothing more will be sent.
    pub(crate) fn finish(&self) {
        self.stream.shutdown(Shutdown::Write).expect("a half close");
    }

    /// The socket, for a protocol that follows an upgrade.
    pub(crate) fn into_stream(self) -> TcpStream {
        assert!(
            self.received.is_empty(),
            "bytes of the next protocol were read"
        );
        self.stream
    }
}

impl<S: Read + Write> Http<S> {
    /// Speaks over a connection that exists.
    pub(crate) fn over(stream: S) -> Self {
        Self {
            stream,
            received: Vec::new(),
        }
    }

    /// One GET.
    pub(crate) fn get(&mut self, path: &str, headers: &[(&str, &str)]) -> Response {
        self.request("GET", path, headers, b"")
    }

    /// One POST.
    pub(crate) fn post(&mut self, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Response {
        self.request("POST", path, headers, body)
    }

    /// One request and its response.
    pub(crate) fn request(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Response {
        self.send(&encode(method, path, headers, body));
        self.response_to(method).expect("a response")
    }

    /// Sends bytes as they are.
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("the server reads");
    }

    /// Sends bytes as they are; false when the server has closed.
    pub(crate) fn try_send(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).is_ok()
    }

    /// The next response; `None` when the server closed without one.
    pub(crate) fn response(&mut self) -> Option<Response> {
        self.response_to("GET")
    }

    /// The same to a request with this method: one to `HEAD` has no body.
    fn response_to(&mut self, method: &str) -> Option<Response> {
        loop {
            if let Some((response, length)) = parse(&self.received, method == "HEAD") {
                self.received.drain(..length);
                if response.status != 100 {
                    return Some(response);
                }
                continue;
            }
            if !self.receive() {
                assert!(
                    self.received.is_empty(),
                    "half a response: {}",
                    String::from_utf8_lossy(&self.received)
                );
                return None;
            }
        }
    }

    /// The first line of what comes.
    pub(crate) fn first_line(&mut self) -> String {
        while !self.received.contains(&b'\n') && self.receive() {}
        let line = self.received.split(|byte| *byte == b'\n').next();
        String::from_utf8_lossy(line.unwrap_or_default()).into_owned()
    }

    /// Reads until the server closes and returns what came.
    pub(crate) fn rest(&mut self) -> Vec<u8> {
        while self.receive() {}
        std::mem::take(&mut self.received)
    }

    /// False at the end of the stream; a reset is an end as well.
    fn receive(&mut self) -> bool {
        let mut chunk = [0; 16 * 1024];
        match self.stream.read(&mut chunk) {
            Ok(0) => false,
            Ok(length) => {
                self.received.extend_from_slice(&chunk[..length]);
                true
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                panic!("no answer within {DEADLINE:?}")
            }
            Err(_) => false,
        }
    }
}

/// A request as it stands on the wire.
pub(crate) fn encode(method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut head = format!("{method} {path} HTTP/1.1\r\n");
    if !headers
        .iter()
        .any(|(name, _)| name.eq_ignore_ascii_case("Host"))
    {
        head.push_str("Host: localhost\r\n");
    }
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    if method != "GET" {
        head.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    head.push_str("\r\n");
    let mut bytes = head.into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

/// A response and its length in `bytes`; `None` while it is not whole.
fn parse(bytes: &[u8], to_head: bool) -> Option<(Response, usize)> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut head = httparse::Response::new(&mut headers);
    let start = match head.parse(bytes).expect("an HTTP response") {
        httparse::Status::Complete(length) => length,
        httparse::Status::Partial => return None,
    };
    let status = head.code.expect("a status");
    let headers: Vec<_> = head
        .headers
        .iter()
        .map(|header| {
            (
                header.name.to_owned(),
                String::from_utf8_lossy(header.value).into_owned(),
            )
        })
        .collect();
    let response = Response {
        status,
        headers,
        body: Vec::new(),
    };
    let length = match response.header("content-length") {
        Some(_) if to_head => 0,
        Some(text) => text.parse().expect("a length"),
        None => {
            assert!(
                response.header("transfer-encoding").is_none(),
                "responses have a length: {response:?}"
            );
            0
        }
    };
    let body = bytes.get(start..start + length)?.to_vec();
    Some((Response { body, ..response }, start + length))
}
