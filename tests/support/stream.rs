//! A client of the streams: the response of one connection is read chunk by chunk, commands go by requests of their own.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use serde_json::{Value, json};

use super::client::tcp;
use super::http::{Http, Response, encode};
use super::process::Server;

/// What stands around each message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// `{…}\n`
    Lines,
    /// `data: {…}\n\n`
    Events,
}

/// A response without an end.
pub(crate) struct Stream {
    pub(crate) socket: TcpStream,
    shape: Shape,
    received: Vec<u8>,
    /// Head of the response.
    pub(crate) head: String,
    messages: VecDeque<Value>,
    /// Pings seen.
    pub(crate) pings: u32,
    /// `session` and `node` of the connect result.
    key: (String, String),
    server: SocketAddr,
    next_id: u64,
    /// The connect result.
    pub(crate) connected: Value,
}

impl Stream {
    /// Sends a request and reads the head of its response, which must be a stream.
    pub(crate) fn request(
        server: &Server,
        shape: Shape,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Self {
        Self::over(
            tcp(server.listen),
            server,
            shape,
            &encode(method, path, headers, body),
        )
    }

    /// The same over a connection that exists.
    pub(crate) fn over(socket: TcpStream, server: &Server, shape: Shape, request: &[u8]) -> Self {
        let mut stream = Self {
            socket,
            shape,
            received: Vec::new(),
            head: String::new(),
            messages: VecDeque::new(),
            pings: 0,
            key: Default::default(),
            server: server.listen,
            next_id: 1,
            connected: Value::Null,
        };
        stream.socket.write_all(request).expect("the server reads");
        let end = loop {
            let found = stream
                .received
                .windows(4)
                .position(|four| four == b"\r\n\r\n");
            if let Some(found) = found {
                break found + 4;
            }
            assert!(stream.receive(), "a head, not {:?}", stream.received);
        };
        let head: Vec<u8> = stream.received.drain(..end).collect();
        stream.head = String::from_utf8(head).expect("text");
        assert!(stream.head.starts_with("HTTP/1.1 200 "), "{}", stream.head);
        assert_eq!(stream.header("connection"), Some("close"));
        let is_http_1_0 = request
            .split(|&byte| byte == b'\r')
            .next()
            .is_some_and(|line| line.ends_with(b"HTTP/1.0"));
        let coding = (!is_http_1_0).then_some("chunked");
        assert_eq!(stream.header("transfer-encoding"), coding);
        if shape == Shape::Events {
            assert_eq!(
                stream.chunk().as_deref(),
                Some(&b"\r\n"[..]),
                "the stream opens with an empty line"
            );
        }
        stream
    }

    /// A connected client of `/connection/http_stream` or `/connection/sse`.
    pub(crate) fn connect(server: &Server, shape: Shape, request: &Value) -> Self {
        Self::connect_as(server, shape, request, "HTTP/1.1")
    }

    /// The same, asked for in this version of HTTP.
    pub(crate) fn connect_as(
        server: &Server,
        shape: Shape,
        request: &Value,
        version: &str,
    ) -> Self {
        let command = json!({ "id": 1, "connect": request }).to_string();
        let request = match shape {
            Shape::Lines => encode("POST", "/connection/http_stream", &[], command.as_bytes()),
            Shape::Events => {
                let query: String = form_urlencoded::byte_serialize(command.as_bytes()).collect();
                encode(
                    "GET",
                    &format!("/connection/sse?cf_connect={query}"),
                    &[],
                    b"",
                )
            }
        };
        let request = String::from_utf8(request).expect("text");
        let request = request.replacen("HTTP/1.1", version, 1);
        let mut stream = Self::over(tcp(server.listen), server, shape, request.as_bytes());
        let reply = stream.next();
        assert_eq!(reply["id"], 1, "{reply}");
        stream.connected = reply["connect"].clone();
        let text = |value: &Value| value.as_str().expect("session and node").to_owned();
        stream.key = (
            text(&stream.connected["session"]),
            text(&stream.connected["node"]),
        );
        stream
    }

    /// A header of the response.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (own, value) = line.split_once(": ")?;
            own.eq_ignore_ascii_case(name).then_some(value)
        })
    }

    /// Body of an emulation request with these commands.
    pub(crate) fn emulation(&self, data: &str) -> Vec<u8> {
        let (session, node) = &self.key;
        json!({ "session": session, "node": node, "data": data })
            .to_string()
            .into_bytes()
    }

    /// Sends commands by a connection of their own.
    pub(crate) fn emulate(&self, data: &str) -> Response {
        Http::open(self.server).post("/emulation", &[], &self.emulation(data))
    }

    /// Sends one command and waits for its reply; what comes before it is kept.
    pub(crate) fn call(&mut self, name: &str, request: &Value) -> Value {
        self.next_id += 1;
        let id = self.next_id;
        let command = json!({ "id": id, name: request }).to_string();
        assert_eq!(self.emulate(&command).status, 204);
        self.wait_for(|message| message["id"] == id)
    }

    /// A subscription that must succeed.
    pub(crate) fn subscribe(&mut self, channel: &str) -> Value {
        let reply = self.call("subscribe", &json!({ "channel": channel }));
        assert!(reply.get("subscribe").is_some(), "{reply}");
        reply["subscribe"].clone()
    }

    /// The first message that fits; those before it stay.
    pub(crate) fn wait_for(&mut self, fits: impl Fn(&Value) -> bool) -> Value {
        let kept: Vec<Value> = std::mem::take(&mut self.messages).into();
        let mut before = VecDeque::new();
        let mut found = None;
        for message in kept {
            if found.is_none() && fits(&message) {
                found = Some(message);
            } else {
                before.push_back(message);
            }
        }
        let found = found.unwrap_or_else(|| {
            loop {
                let message = self.read().expect("the stream goes on");
                if fits(&message) {
                    break message;
                }
                before.push_back(message);
            }
        });
        self.messages = before;
        found
    }

    /// The next message that is no ping; the stream must go on.
    pub(crate) fn next(&mut self) -> Value {
        self.try_next().expect("the stream goes on")
    }

    /// The same; `None` once the stream has ended with its last chunk.
    pub(crate) fn try_next(&mut self) -> Option<Value> {
        self.messages.pop_front().or_else(|| self.read())
    }

    fn read(&mut self) -> Option<Value> {
        loop {
            let chunk = self.chunk()?;
            let message = match self.shape {
                Shape::Lines => chunk.strip_suffix(b"\n"),
                Shape::Events => chunk
                    .strip_prefix(b"data: ")
                    .and_then(|rest| rest.strip_suffix(b"\n\n")),
            };
            let message = message.unwrap_or_else(|| panic!("a whole message, not {chunk:?}"));
            let message: Value = serde_json::from_slice(message)
                .unwrap_or_else(|error| panic!("one message in a chunk: {error}: {chunk:?}"));
            if message == json!({}) {
                self.pings += 1;
            } else {
                return Some(message);
            }
        }
    }

    /// The next chunk of the body; `None` for the last one, after which the connection must end.
    pub(crate) fn chunk(&mut self) -> Option<Vec<u8>> {
        if self.header("transfer-encoding").is_none() {
            return self.piece();
        }
        loop {
            let line = self.received.windows(2).position(|two| two == b"\r\n");
            if let Some(line) = line {
                let size = std::str::from_utf8(&self.received[..line]).expect("a size");
                let size = usize::from_str_radix(size, 16).expect("a size in hex");
                let whole = line + 2 + size + 2;
                if self.received.len() >= whole {
                    let chunk = self.received[line + 2..line + 2 + size].to_vec();
                    assert_eq!(&self.received[whole - 2..whole], b"\r\n");
                    self.received.drain(..whole);
                    if size > 0 {
                        return Some(chunk);
                    }
                    assert!(!self.receive(), "nothing follows the last chunk");
                    return None;
                }
            }
            assert!(self.receive(), "the stream ends with its last chunk");
        }
    }

    /// The same of a body without chunks: what one message takes, as its shape ends it.
    fn piece(&mut self) -> Option<Vec<u8>> {
        loop {
            let end: &[u8] = match self.shape {
                Shape::Lines => b"\n",
                Shape::Events if self.received.starts_with(b"\r") => b"\r\n",
                Shape::Events => b"\n\n",
            };
            let mut places = self.received.windows(end.len());
            if let Some(found) = places.position(|place| place == end) {
                return Some(self.received.drain(..found + end.len()).collect());
            }
            if !self.receive() {
                assert!(
                    self.received.is_empty(),
                    "half a message: {:?}",
                    self.received
                );
                return None;
            }
        }
    }

    fn receive(&mut self) -> bool {
        let mut bytes = [0; 16 * 1024];
        match self.socket.read(&mut bytes) {
            Ok(0) => false,
            Ok(length) => {
                self.received.extend_from_slice(&bytes[..length]);
                true
            }
            Err(error) => panic!("{error}"),
        }
    }

    /// Reads to the end of the stream and returns code and reason of its disconnect push.
    pub(crate) fn ends_with(&mut self) -> (u64, String) {
        let mut last = Value::Null;
        while let Some(message) = self.try_next() {
            last = message;
        }
        let push = last.get("push").unwrap_or(&last);
        let disconnect = &push["disconnect"];
        (
            disconnect["code"]
                .as_u64()
                .unwrap_or_else(|| panic!("a disconnect push at the end, not {last}")),
            disconnect["reason"].as_str().expect("a reason").to_owned(),
        )
    }
}
