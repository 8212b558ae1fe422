//! A blocking HTTP/1.1 client for one server: one connection that is kept, one request at a time.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use super::ToolError;

/// Time for a connection to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest silence while an answer is awaited. A page of a replay may have to look at much before it has something to say.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// Bytes of a response's head.
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// Bytes of a response's body: a page with every byte escaped, several times over.
const BODY_BYTES_MAX: usize = 512 << 20;
/// What the address of a unix socket begins with.
const UNIX: &str = "unix:";
/// Header lines of a response.
const HEADERS_MAX: usize = 64;

/// A connection to a server.
pub(super) struct Client {
    /// HOST:PORT, or `unix:PATH`.
    address: String,
    key: Option<String>,
    stream: Option<Stream>,
    /// Read and not taken yet.
    buffer: Vec<u8>,
}

#[derive(Deserialize)]
struct Answer<T> {
    result: Option<T>,
    error: Option<Refusal>,
}

#[derive(Deserialize)]
struct Refusal {
    code: u32,
    #[serde(default)]
    message: String,
    retry_after_ms: Option<u64>,
}

/// What a response's head says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Head {
    status: u16,
    /// Bytes of the head.
    len: usize,
    /// Bytes of the body; `None` if it comes in chunks.
    body: Option<usize>,
    /// The server closes behind it.
    closes: bool,
}

impl Client {
    /// Not connected yet.
    pub(super) fn new(address: &str, key: Option<&str>) -> Result<Self, ToolError> {
        if address.starts_with("https://") {
            let text = "--address: this command speaks plain HTTP; ask the admin listener on the host itself";
            return Err(ToolError::Usage(text.to_owned()));
        }
        let is_plain = |text: &str| text.bytes().all(|b| b.is_ascii_graphic());
        let is_unix = address.starts_with(UNIX);
        let address = address.strip_prefix("http://").unwrap_or(address);
        let address = if is_unix {
            address
        } else {
            address.trim_end_matches('/')
        };
        let is_host =
            !is_unix && !address.is_empty() && is_plain(address) && !address.contains('/');
        if !(is_host || is_unix && address.len() > UNIX.len()) {
            return Err(ToolError::Usage(
                "--address: HOST:PORT or unix:PATH is expected".to_owned(),
            ));
        }
        if !key.is_none_or(is_plain) {
            return Err(ToolError::Usage(
                "--key, --api-key: a key has no spaces".to_owned(),
            ));
        }
        Ok(Self {
            address: address.to_owned(),
            key: key.map(str::to_owned),
            stream: None,
            buffer: Vec::new(),
        })
    }

    /// Whom it asks.
    #[cfg(test)]
    pub(super) fn address(&self) -> &str {
        &self.address
    }

    /// The key that it shows.
    #[cfg(test)]
    pub(super) fn key(&self) -> Option<&str> {
        self.key.as_deref()
    }

    /// Asks a method of the API and takes its result out of the answer.
    pub(super) fn call(&mut self, path: &str, request: &Value) -> Result<Value, ToolError> {
        let body = self.post(path, request)?;
        result(path, &body)
    }

    /// The body of the answer.
    pub(super) fn post(&mut self, path: &str, request: &Value) -> Result<Vec<u8>, ToolError> {
        let body = request.to_string();
        let host = if self.address.starts_with(UNIX) {
            "localhost"
        } else {
            &self.address
        };
        let key = self
            .key
            .as_ref()
            .map_or_else(String::new, |key| format!("X-API-Key: {key}\r\n"));
        let bytes = format!(
            "POST /api/{path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n{key}\r\n{body}",
            body.len()
        );
        let was_used = self.stream.is_some();
        let (status, body) = match self.exchange(bytes.as_bytes()) {
            // A kept connection that was closed meanwhile has taken no request.
            Err(Broken::BeforeAnswer(_)) if was_used => self.exchange(bytes.as_bytes()),
            other => other,
        }
        .map_err(|broken| self.error(broken))?;
        if status == 200 {
            return Ok(body);
        }
        // Errors of the API come with a status, too, where the server is told to do so.
        if let Ok(Answer::<Value> {
            error: Some(refusal),
            ..
        }) = serde_json::from_slice(&body)
        {
            return Err(refused(path, refusal));
        }
        Err(ToolError::Status {
            path: format!("/api/{path}"),
            status,
            text: String::from_utf8_lossy(&body)
                .trim()
                .chars()
                .take(200)
                .collect(),
        })
    }

    fn error(&self, broken: Broken) -> ToolError {
        let (address, reason) = (self.address.clone(), |error: std::io::Error| {
            match error.kind() {
                ErrorKind::WouldBlock | ErrorKind::TimedOut => {
                    format!("nothing came for {} s", SILENCE_MAX.as_secs())
                }
                _ => error.to_string(),
            }
        });
        match broken {
            Broken::Connect(source) => ToolError::Unreachable { address, source },
            Broken::BeforeAnswer(error) | Broken::Answer(error) => ToolError::Connection {
                address,
                reason: reason(error),
            },
        }
    }

    fn exchange(&mut self, request: &[u8]) -> Result<(u16, Vec<u8>), Broken> {
        let outcome = self.exchange_on_stream(request);
        if outcome.is_err() {
            self.stream = None;
            self.buffer.clear();
        }
        outcome
    }

    fn exchange_on_stream(&mut self, request: &[u8]) -> Result<(u16, Vec<u8>), Broken> {
        if self.stream.is_none() {
            self.stream = Some(connect(&self.address).map_err(Broken::Connect)?);
        }
        let Self {
            stream: Some(stream),
            buffer,
            ..
        } = self
        else {
            return Err(Broken::Connect(ErrorKind::NotConnected.into()));
        };
        stream.write_all(request).map_err(Broken::BeforeAnswer)?;
        let head = read_head(stream, buffer)?;
        let body = match head.body {
            Some(len) => read_body(stream, buffer, len),
            None => read_chunks(stream, buffer),
        }
        .map_err(Broken::Answer)?;
        if head.closes {
            self.stream = None;
            self.buffer.clear();
        }
        Ok((head.status, body))
    }
}

/// How far an exchange came.
#[derive(Debug)]
enum Broken {
    Connect(std::io::Error),
    BeforeAnswer(std::io::Error),
    Answer(std::io::Error),
}

/// The result in the answer of the API, or the error.
pub(super) fn result<'a, T: Deserialize<'a>>(path: &str, body: &'a [u8]) -> Result<T, ToolError> {
    let answer: Answer<T> = serde_json::from_slice(body).map_err(|source| ToolError::Answer {
        path: format!("/api/{path}"),
        source,
    })?;
    match answer {
        Answer {
            error: Some(refusal),
            ..
        } => Err(refused(path, refusal)),
        Answer {
            result: Some(result),
            ..
        } => Ok(result),
        Answer {
            result: None,
            error: None,
        } => Err(ToolError::Answer {
            path: format!("/api/{path}"),
            source: serde::de::Error::custom("neither a result nor an error"),
        }),
    }
}

fn refused(path: &str, refusal: Refusal) -> ToolError {
    ToolError::Refused {
        path: format!("/api/{path}"),
        code: refusal.code,
        message: refusal.message,
        retry_after_ms: refusal.retry_after_ms,
    }
}

/// A connection over TCP or a unix socket.
enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Read for Stream {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(buf),
            Self::Unix(stream) => stream.read(buf),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write(buf),
            Self::Unix(stream) => stream.write(buf),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.flush(),
            Self::Unix(stream) => stream.flush(),
        }
    }
}

fn connect(address: &str) -> std::io::Result<Stream> {
    if let Some(path) = address.strip_prefix(UNIX) {
        let stream = UnixStream::connect(path)?;
        stream.set_read_timeout(Some(SILENCE_MAX))?;
        stream.set_write_timeout(Some(SILENCE_MAX))?;
        return Ok(Stream::Unix(stream));
    }
    let mut last = ErrorKind::AddrNotAvailable.into();
    for address in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, CONNECT_TIMEOUT) {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(SILENCE_MAX))?;
                stream.set_write_timeout(Some(SILENCE_MAX))?;
                return Ok(Stream::Tcp(stream));
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn invalid(text: &'static str) -> std::io::Error {
    std::io::Error::new(ErrorKind::InvalidData, text)
}

/// Reads more; an end is an error.
fn fill(stream: &mut impl Read, buffer: &mut Vec<u8>) -> std::io::Result<()> {
    let mut chunk = [0; 64 * 1024];
    loop {
        match stream.read(&mut chunk) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(len) => {
                buffer.extend_from_slice(&chunk[..len]);
                return Ok(());
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

fn read_head(stream: &mut impl Read, buffer: &mut Vec<u8>) -> Result<Head, Broken> {
    loop {
        match parse_head(buffer).map_err(Broken::Answer)? {
            Some(head) => {
                buffer.drain(..head.len);
                if head.status >= 200 {
                    return Ok(head);
                }
            }
            None if buffer.len() > HEAD_BYTES_MAX => {
                return Err(Broken::Answer(invalid(
                    "the head of the answer is too large",
                )));
            }
            None => {
                let is_first = buffer.is_empty();
                fill(stream, buffer).map_err(|error| match error.kind() {
                    ErrorKind::WouldBlock | ErrorKind::TimedOut => Broken::Answer(error),
                    _ if is_first => Broken::BeforeAnswer(error),
                    _ => Broken::Answer(error),
                })?;
            }
        }
    }
}

fn parse_head(bytes: &[u8]) -> std::io::Result<Option<Head>> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut response = httparse::Response::new(&mut headers);
    let len = match response.parse(bytes) {
        Ok(httparse::Status::Complete(len)) => len,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(_) => return Err(invalid("the answer is not HTTP")),
    };
    let value = |name: &str| {
        let header = response
            .headers
            .iter()
            .find(|header| header.name.eq_ignore_ascii_case(name));
        header.and_then(|header| std::str::from_utf8(header.value).ok())
    };
    let is =
        |name, word: &str| value(name).is_some_and(|value| value.trim().eq_ignore_ascii_case(word));
    let status = response.code.unwrap_or(0);
    let body = match value("content-length") {
        _ if is("transfer-encoding", "chunked") => None,
        _ if status < 200 => Some(0),
        Some(text) => Some(
            text.trim()
                .parse()
                .map_err(|_| invalid("a length that is no number"))?,
        ),
        None => return Err(invalid("an answer without a length")),
    };
    if body.is_some_and(|len| len > BODY_BYTES_MAX) {
        return Err(invalid("the answer is too large"));
    }
    Ok(Some(Head {
        status,
        len,
        body,
        closes: is("connection", "close"),
    }))
}

fn read_body(stream: &mut impl Read, buffer: &mut Vec<u8>, len: usize) -> std::io::Result<Vec<u8>> {
    let has = buffer.len().min(len);
    let mut body = Vec::with_capacity(len);
    body.extend(buffer.drain(..has));
    let mut rest = Read::take(&mut *stream, (len - has) as u64);
    rest.read_to_end(&mut body)?;
    if body.len() < len {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    Ok(body)
}

fn read_chunks(stream: &mut impl Read, buffer: &mut Vec<u8>) -> std::io::Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let line = read_line(stream, buffer)?;
        let digits = line.split(|b| *b == b';').next().unwrap_or_default();
        let len = std::str::from_utf8(digits)
            .ok()
            .and_then(|digits| usize::from_str_radix(digits.trim(), 16).ok())
            .ok_or_else(|| invalid("a chunk without a length"))?;
        if len > BODY_BYTES_MAX - body.len() {
            return Err(invalid("the answer is too large"));
        }
        body.extend_from_slice(&read_body(stream, buffer, len)?);
        if len == 0 {
            // Trailers end with an empty line.
            while !read_line(stream, buffer)?.is_empty() {}
            return Ok(body);
        }
        if !read_line(stream, buffer)?.is_empty() {
            return Err(invalid("a chunk that does not end"));
        }
    }
}

fn read_line(stream: &mut impl Read, buffer: &mut Vec<u8>) -> std::io::Result<Vec<u8>> {
    loop {
        if let Some(end) = memchr::memmem::find(buffer, b"\r\n") {
            let line = buffer[..end].to_vec();
            buffer.drain(..end + 2);
            return Ok(line);
        }
        if buffer.len() > HEAD_BYTES_MAX {
            return Err(invalid("a line that does not end"));
        }
        fill(stream, buffer)?;
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use std::net::TcpListener;

    /// A server that answers each request by this; one connection after another. Gives the bodies of the requests back.
    pub(crate) fn server(
        mut answer: impl FnMut(&str, Value) -> Option<Vec<u8>> + Send + 'static,
    ) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut buffer = Vec::new();
                while let Some((path, body)) = request(&mut stream, &mut buffer) {
                    let Some(bytes) = answer(&path, body) else {
                        break;
                    };
                    if stream.write_all(&bytes).is_err() {
                        break;
                    }
                }
            }
        });
        address
    }

    fn request(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<(String, Value)> {
        loop {
            let mut headers = [httparse::EMPTY_HEADER; 16];
            let mut request = httparse::Request::new(&mut headers);
            if let httparse::Status::Complete(head) = request.parse(buffer).unwrap() {
                let len = request
                    .headers
                    .iter()
                    .find(|h| h.name == "Content-Length")
                    .unwrap();
                let len: usize = std::str::from_utf8(len.value).unwrap().parse().unwrap();
                if buffer.len() >= head + len {
                    let path = request.path.unwrap().to_owned();
                    let body = serde_json::from_slice(&buffer[head..head + len]).unwrap();
                    buffer.drain(..head + len);
                    return Some((path, body));
                }
            }
            fill(stream, buffer).ok()?;
        }
    }

    pub(crate) fn ok(body: &str) -> Vec<u8> {
        format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
        .into_bytes()
    }

    #[test]
    fn results_and_errors_are_told_apart_on_one_connection() {
        let mut asked = 0;
        let address = server(move |path, body| {
            asked += 1;
            assert_eq!(
                (path, &body["n"]),
                ("/api/queue/groups", &Value::from(asked))
            );
            Some(match asked {
                1 => ok("{\"result\":{\"a\":1}}"),
                2 => ok("{\"error\":{\"code\":111,\"message\":\"busy\",\"retry_after_ms\":7}}"),
                3 => b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\nno".to_vec(),
                4 => b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{\"res\r\n9;x\r\nult\":[1]}\r\n0\r\nT: x\r\n\r\n".to_vec(),
                _ => return None,
            })
        });
        let mut client = Client::new(&format!("http://{address}/"), Some("k")).unwrap();
        let mut ask = |n: u32| client.call("queue/groups", &serde_json::json!({ "n": n }));
        assert_eq!(ask(1).unwrap(), serde_json::json!({ "a": 1 }));
        assert!(matches!(
            ask(2),
            Err(ToolError::Refused {
                code: 111,
                retry_after_ms: Some(7),
                ..
            })
        ));
        let refused = ask(3).unwrap_err();
        assert!(refused.to_string().contains("--key"), "{refused}");
        assert_eq!(ask(4).unwrap(), serde_json::json!([1]));
    }

    #[test]
    fn a_kept_connection_that_was_closed_is_opened_again() {
        let mut asked = 0;
        let address = server(move |_, _| {
            asked += 1;
            (asked != 2).then(|| ok("{\"result\":true}"))
        });
        let mut client = Client::new(&address, None).unwrap();
        assert_eq!(client.call("x", &Value::Null).unwrap(), true);
        assert_eq!(client.call("x", &Value::Null).unwrap(), true);
    }

    #[test]
    fn hostile_answers_are_errors() {
        for answer in [
            "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
            "HTTP/1.1 200 OK\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffff\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 9\r\nConnection: close\r\n\r\n{\"error\":",
            "SSH-2.0-x\r\n\r\n",
        ] {
            let address = server(move |_, _| Some(answer.as_bytes().to_vec()));
            let mut client = Client::new(&address, None).unwrap();
            assert!(client.call("x", &Value::Null).is_err(), "{answer}");
        }
        for address in ["", "a/b", "https://a:1", "a b:1", "unix:"] {
            assert!(Client::new(address, None).is_err(), "{address}");
        }
        assert!(Client::new("a:1", Some("k\r\nX: y")).is_err());
    }
}
