//! A client for one server that waits for every answer: one connection that is kept, one request at a time.

use std::error::Error as _;
use std::io::{self, ErrorKind};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderValue, Method, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Body as _, Incoming};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream, lookup_host};
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;

use super::ToolError;
use crate::config::{Tenant, path_of};
use crate::model::TenantId;

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
/// The header that carries the key.
const KEY: &str = "x-api-key";
/// Type of a body that is no JSON.
const STREAM: &str = "application/octet-stream";
/// Type of a body that is lines of JSON, one after the other.
const LINES: &str = "application/x-ndjson";

type Connection = http1::SendRequest<Full<Bytes>>;

/// A connection to a server.
pub(super) struct Client {
    /// HOST:PORT, or `unix:PATH`.
    address: String,
    /// Those of every request.
    headers: HeaderMap,
    /// It runs while an answer is awaited.
    runtime: Runtime,
    connection: Option<Connection>,
    /// What stands before the paths of the API: it says whose it is.
    root: String,
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
        let host = if is_unix { "localhost" } else { address };
        let (Ok(host), Ok(key)) = (
            HeaderValue::from_str(host),
            key.map(HeaderValue::from_str).transpose(),
        ) else {
            return Err(ToolError::Usage(
                "--address, --key: not what a header may hold".to_owned(),
            ));
        };
        let mut headers = HeaderMap::new();
        headers.insert(HOST, host);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.extend(key.map(|key| (http::HeaderName::from_static(KEY), key)));
        let runtime = Builder::new_current_thread().enable_all().build();
        Ok(Self {
            address: address.to_owned(),
            headers,
            runtime: runtime.map_err(|source| ToolError::Unreachable {
                address: address.to_owned(),
                source,
            })?,
            connection: None,
            root: String::new(),
        })
    }

    /// Asks about what this tenant has.
    pub(super) fn of(mut self, tenant: Option<&str>) -> Result<Self, ToolError> {
        match tenant {
            None => {}
            Some(id) if Tenant::is_id(id) => self.root = path_of(TenantId::new(id)),
            Some(_) => {
                let text = "--tenant: the id of a tenant is lower-case letters, digits and `-`";
                return Err(ToolError::Usage(text.to_owned()));
            }
        }
        Ok(self)
    }

    /// Whom it asks.
    pub(super) fn address(&self) -> &str {
        &self.address
    }

    /// The key that it shows.
    #[cfg(test)]
    pub(super) fn key(&self) -> Option<&str> {
        self.headers.get(KEY).and_then(|key| key.to_str().ok())
    }

    /// Asks a method of the API and takes its result out of the answer.
    pub(super) fn call(&mut self, path: &str, request: &Value) -> Result<Value, ToolError> {
        let body = self.post(path, request)?;
        result(path, &body)
    }

    /// The body of the answer.
    pub(super) fn post(&mut self, path: &str, request: &Value) -> Result<Vec<u8>, ToolError> {
        self.post_text(path, request.to_string())
    }

    /// The same of a request that is text already.
    pub(super) fn post_text(&mut self, path: &str, request: String) -> Result<Vec<u8>, ToolError> {
        let body = Bytes::from(request);
        let (status, body) = self.ask(Method::POST, &format!("{}/api/{path}", self.root), &body)?;
        answered(path, status, body)
    }

    /// Asks the admin listener to do something: its answer, or what it says against it.
    pub(super) fn manage(
        &mut self,
        method: &'static str,
        path: &str,
        request: &Value,
    ) -> Result<Value, ToolError> {
        let method = Method::from_bytes(method.as_bytes()).unwrap_or_default();
        let body = match request {
            Value::Null => Bytes::new(),
            request => Bytes::from(request.to_string()),
        };
        let (status, body) = self.ask(method, path, &body)?;
        if status == 200 {
            return serde_json::from_slice(&body).map_err(|source| ToolError::Answer {
                path: path.to_owned(),
                source,
            });
        }
        let told = serde_json::from_slice::<Value>(&body).unwrap_or_default();
        match told["error"]["message"].as_str() {
            Some(text) => Err(ToolError::Status {
                path: path.to_owned(),
                status,
                text: text.to_owned(),
            }),
            None => Err(unexpected(path.to_owned(), status, &body)),
        }
    }

    /// Asks for something long, which is given away as it comes. `each` says whether more is wanted.
    pub(super) fn stream(
        &mut self,
        path: &str,
        request: &Value,
        each: impl FnMut(&[u8]) -> Result<bool, ToolError>,
    ) -> Result<(), ToolError> {
        match self.take(&format!("{}/api/{path}", self.root), STREAM, request, each)? {
            None => Ok(()),
            Some((status, body)) => {
                let text = answered(path, status, body)?;
                result::<Value>(path, &text).map(drop)
            }
        }
    }

    /// Asks for lines that come while something lasts, and gives them away likewise.
    pub(super) fn follow(
        &mut self,
        path: &str,
        request: &Value,
        each: impl FnMut(&[u8]) -> Result<bool, ToolError>,
    ) -> Result<(), ToolError> {
        match self.take(path, LINES, request, each)? {
            None => Ok(()),
            Some((status, body)) => Err(unexpected(path.to_owned(), status, &body)),
        }
    }

    /// Gives away the parts of an answer of this type; status and body of any other one.
    fn take(
        &mut self,
        path: &str,
        kind: &str,
        request: &Value,
        mut each: impl FnMut(&[u8]) -> Result<bool, ToolError>,
    ) -> Result<Option<(u16, Vec<u8>)>, ToolError> {
        // What is left of an answer that nobody wants goes with its connection.
        let mut connection = self.connection.take();
        let outcome = self.runtime.block_on(async {
            let request = self.request(&Method::POST, path, &Bytes::from(request.to_string()))?;
            let response = send(&mut connection, &self.address, request).await?;
            let (parts, mut body) = response.into_parts();
            let of = parts.headers.get(CONTENT_TYPE);
            let is_stream = of.is_some_and(|of| of == kind) && parts.status == 200;
            if !is_stream {
                return Ok(Some((parts.status.as_u16(), whole(body).await?)));
            }
            while let Some(frame) = heard(body.frame()).await? {
                let frame = frame.map_err(|error| Broken::Answer(cause(&error)))?;
                let more = each(&frame.into_data().unwrap_or_default());
                if !more.map_err(Broken::Taker)? {
                    break;
                }
            }
            Ok(None)
        });
        outcome.map_err(|broken| self.error(broken))
    }

    /// The body of a page, which must be there within this time.
    pub(super) fn page(mut self, path: &str, within: Duration) -> Result<Vec<u8>, ToolError> {
        let request = self
            .request(&Method::GET, path, &Bytes::new())
            .map_err(|broken| self.error(broken))?;
        let asked = exchange(&mut self.connection, &self.address, request);
        let answer = self
            .runtime
            .block_on(async { timeout(within, asked).await });
        let late = |_| {
            let reason = format!("no answer came within {} s", within.as_secs());
            Err(Broken::Answer(reason))
        };
        let (status, body) = answer
            .unwrap_or_else(late)
            .map_err(|broken| self.error(broken))?;
        if status == 200 {
            return Ok(body);
        }
        Err(unexpected(path.to_owned(), status, &body))
    }

    /// Status and body of a page.
    pub(super) fn get(&mut self, path: &str) -> Result<(u16, Vec<u8>), ToolError> {
        self.ask(Method::GET, path, &Bytes::new())
    }

    fn ask(
        &mut self,
        method: Method,
        path: &str,
        body: &Bytes,
    ) -> Result<(u16, Vec<u8>), ToolError> {
        let was_used = self.connection.is_some();
        match self.exchange(&method, path, body) {
            // A kept connection that was closed meanwhile has taken no request.
            Err(Broken::BeforeAnswer(_)) if was_used => self.exchange(&method, path, body),
            other => other,
        }
        .map_err(|broken| self.error(broken))
    }

    fn error(&self, broken: Broken) -> ToolError {
        let address = self.address.clone();
        match broken {
            Broken::Connect(source) => ToolError::Unreachable { address, source },
            Broken::BeforeAnswer(reason) | Broken::Answer(reason) => {
                ToolError::Connection { address, reason }
            }
            Broken::Taker(error) => error,
        }
    }

    fn request(
        &self,
        method: &Method,
        path: &str,
        body: &Bytes,
    ) -> Result<Request<Full<Bytes>>, Broken> {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .body(Full::new(body.clone()))
            .map_err(|error| Broken::Answer(error.to_string()))?;
        request.headers_mut().clone_from(&self.headers);
        Ok(request)
    }

    fn exchange(
        &mut self,
        method: &Method,
        path: &str,
        body: &Bytes,
    ) -> Result<(u16, Vec<u8>), Broken> {
        let request = self.request(method, path, body)?;
        let outcome = self
            .runtime
            .block_on(exchange(&mut self.connection, &self.address, request));
        if outcome.is_err() {
            self.connection = None;
        }
        outcome
    }
}

/// How far an exchange came, and what broke it.
#[derive(Debug)]
enum Broken {
    Connect(io::Error),
    BeforeAnswer(String),
    Answer(String),
    /// Whoever takes the answer cannot.
    Taker(ToolError),
}

impl Broken {
    /// What a request without an answer ended with.
    fn request(error: &hyper::Error) -> Self {
        if error.is_parse_too_large() {
            Self::Answer("the head of the answer is too large".to_owned())
        } else if error.is_parse() {
            Self::Answer("the answer is not HTTP".to_owned())
        } else if error.is_canceled() || error.is_closed() || error.is_incomplete_message() {
            Self::BeforeAnswer("it was closed before there was an answer".to_owned())
        } else {
            Self::BeforeAnswer(cause(error))
        }
    }
}

/// What lies under an error of the HTTP library, which itself says only where it came up.
fn cause(error: &hyper::Error) -> String {
    error
        .source()
        .map_or_else(|| error.to_string(), ToString::to_string)
}

/// Waits no longer than a server may be silent.
async fn heard<F: Future>(what: F) -> Result<F::Output, Broken> {
    let silence = |_| Broken::Answer(format!("nothing came for {} s", SILENCE_MAX.as_secs()));
    timeout(SILENCE_MAX, what).await.map_err(silence)
}

/// What an answer with this status says.
fn answered(path: &str, status: u16, body: Vec<u8>) -> Result<Vec<u8>, ToolError> {
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
    Err(unexpected(format!("/api/{path}"), status, &body))
}

async fn exchange(
    connection: &mut Option<Connection>,
    address: &str,
    request: Request<Full<Bytes>>,
) -> Result<(u16, Vec<u8>), Broken> {
    let response = send(connection, address, request).await?;
    let status = response.status().as_u16();
    let is_chunked = response.headers().contains_key(TRANSFER_ENCODING);
    let body = response.into_body();
    if body.size_hint().exact().is_none() && !is_chunked {
        return Err(Broken::Answer("an answer without a length".to_owned()));
    }
    Ok((status, whole(body).await?))
}

async fn send(
    connection: &mut Option<Connection>,
    address: &str,
    request: Request<Full<Bytes>>,
) -> Result<Response<Incoming>, Broken> {
    let connection = match connection {
        Some(connection) => connection,
        None => connection.insert(connect(address).await?),
    };
    let ready = heard(connection.ready()).await?;
    ready.map_err(|error| Broken::request(&error))?;
    heard(connection.send_request(request))
        .await?
        .map_err(|error| Broken::request(&error))
}

/// A whole body, within a bound.
async fn whole(mut body: Incoming) -> Result<Vec<u8>, Broken> {
    let too_large = || Broken::Answer("the answer is too large".to_owned());
    let len = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    if len > BODY_BYTES_MAX {
        return Err(too_large());
    }
    let mut bytes = Vec::with_capacity(len);
    while let Some(frame) = heard(body.frame()).await? {
        let frame = frame.map_err(|error| Broken::Answer(cause(&error)))?;
        // Trailers are no part of it.
        let data = frame.into_data().unwrap_or_default();
        if data.len() > BODY_BYTES_MAX - bytes.len() {
            return Err(too_large());
        }
        bytes.extend_from_slice(&data);
    }
    Ok(bytes)
}

async fn connect(address: &str) -> Result<Connection, Broken> {
    if let Some(path) = address.strip_prefix(UNIX) {
        return open(UnixStream::connect(path).await.map_err(Broken::Connect)?).await;
    }
    let mut last = ErrorKind::AddrNotAvailable.into();
    for address in lookup_host(address).await.map_err(Broken::Connect)? {
        match timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                stream.set_nodelay(true).map_err(Broken::Connect)?;
                return open(stream).await;
            }
            Ok(Err(error)) => last = error,
            Err(_late) => last = ErrorKind::TimedOut.into(),
        }
    }
    Err(Broken::Connect(last))
}

async fn open(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
) -> Result<Connection, Broken> {
    let (connection, driver) = http1::Builder::new()
        .max_buf_size(HEAD_BYTES_MAX)
        .max_headers(HEADERS_MAX)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| Broken::request(&error))?;
    // What ends it is said to whoever awaits the answer.
    tokio::spawn(driver);
    Ok(connection)
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

/// An answer with a status that is no success.
fn unexpected(path: String, status: u16, body: &[u8]) -> ToolError {
    ToolError::Status {
        path,
        status,
        text: String::from_utf8_lossy(body)
            .trim()
            .chars()
            .take(200)
            .collect(),
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

#[cfg(test)]
pub(super) mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::{TcpListener, TcpStream};

    use super::*;

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
                    .find(|h| h.name.eq_ignore_ascii_case("content-length"))
                    .unwrap();
                let len: usize = std::str::from_utf8(len.value).unwrap().parse().unwrap();
                if buffer.len() >= head + len {
                    let path = request.path.unwrap().to_owned();
                    let body = serde_json::from_slice(&buffer[head..head + len]).unwrap();
                    buffer.drain(..head + len);
                    return Some((path, body));
                }
            }
            let mut chunk = [0; 4096];
            let len = stream.read(&mut chunk).ok().filter(|len| *len > 0)?;
            buffer.extend_from_slice(&chunk[..len]);
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
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n",
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
