//! A Centrifuge client over an independent WebSocket library. It has no rules of its own: it sends what a test
//! says, and hands out replies by id and pushes in order. A test always speaks JSON; a client whose encoding is Protobuf
//! turns commands and replies into each other's form by an independent codec.

use std::collections::VecDeque;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::{Value, json};
use tungstenite::client::IntoClientRequest;
use tungstenite::error::ProtocolError;
use tungstenite::http::{HeaderName, HeaderValue};
use tungstenite::protocol::frame::{CloseFrame, Frame};
use tungstenite::protocol::{Role, WebSocketConfig};
use tungstenite::{Error, Message, WebSocket};

use super::http::Http;
use super::process::Server;
use super::token;
use super::transcode;
use super::wait::{DEADLINE, now};

/// Path of the client endpoint.
pub(crate) const PATH: &str = "/connection/websocket";

/// How a client and the server write to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encoding {
    Json,
    Protobuf,
}

impl Encoding {
    /// What clients of this test crate use if a test does not choose.
    pub(crate) fn of_the_crate() -> Self {
        if env!("CARGO_CRATE_NAME").ends_with("_protobuf") {
            Self::Protobuf
        } else {
            Self::Json
        }
    }

    /// Header that asks for it.
    pub(crate) const fn header(self) -> Option<(&'static str, &'static str)> {
        match self {
            Self::Json => None,
            Self::Protobuf => Some(("Sec-WebSocket-Protocol", "centrifuge-protobuf")),
        }
    }
}

/// A WebSocket connection to the client endpoint.
pub(crate) struct Client<S = TcpStream> {
    /// The independent peer.
    pub(crate) socket: WebSocket<S>,
    /// Of its frames.
    encoding: Encoding,
    /// Objects received and not asked for yet: replies and pushes, in order.
    received: VecDeque<Value>,
    next_id: u64,
    /// Answers the server's pings, as a client must.
    pub(crate) answers_pings: bool,
    /// Pings seen.
    pub(crate) pings: u32,
    /// Id of the connection, once connected.
    pub(crate) id: String,
    /// The connect result, once connected.
    pub(crate) connected: Value,
}

/// What a connection ends with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ended {
    /// Code of the close frame; 1006 when there was none.
    pub(crate) code: u16,
    /// Reason of the close frame, or how the connection ended without one.
    pub(crate) reason: String,
}

/// A TCP connection with deadlines.
pub(crate) fn tcp(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect_timeout(&address, DEADLINE).expect("the listener accepts");
    stream.set_read_timeout(Some(DEADLINE)).expect("a deadline");
    stream
        .set_write_timeout(Some(DEADLINE))
        .expect("a deadline");
    stream.set_nodelay(true).expect("no delay");
    stream
}

/// Limits of the peer that lie above everything the server sends.
pub(crate) fn wide_limits() -> WebSocketConfig {
    WebSocketConfig::default()
        .max_message_size(Some(64 << 20))
        .max_frame_size(Some(32 << 20))
}

/// A WebSocket handshake to `path` with more headers.
pub(crate) fn upgrade(
    address: SocketAddr,
    path: &str,
    headers: &[(&str, &str)],
) -> WebSocket<TcpStream> {
    upgrade_over(tcp(address), path, headers).expect("the upgrade is accepted")
}

/// The same over a connection that exists; the status when it is refused.
pub(crate) fn upgrade_over<S: std::io::Read + std::io::Write>(
    stream: S,
    path: &str,
    headers: &[(&str, &str)],
) -> Result<WebSocket<S>, u16> {
    let mut request = format!("ws://localhost{path}")
        .into_client_request()
        .expect("an address");
    for (name, value) in headers {
        let name = HeaderName::from_bytes(name.as_bytes()).expect("a header name");
        request
            .headers_mut()
            .insert(name, HeaderValue::from_str(value).expect("a header value"));
    }
    match tungstenite::client::client_with_config(request, stream, Some(wide_limits())) {
        Ok((socket, _)) => Ok(socket),
        Err(tungstenite::HandshakeError::Failure(Error::Http(response))) => {
            Err(response.status().as_u16())
        }
        Err(other) => panic!("the handshake failed otherwise than with a status: {other}"),
    }
}

impl Client {
    /// Upgraded, nothing sent yet.
    pub(crate) fn open(server: &Server) -> Self {
        Self::open_as(server, Encoding::of_the_crate())
    }

    /// Upgraded with this encoding.
    pub(crate) fn open_as(server: &Server, encoding: Encoding) -> Self {
        Self::open_over(tcp(server.listen), PATH, &[], encoding)
    }

    /// Upgraded with a query and headers.
    pub(crate) fn open_with(server: &Server, path: &str, headers: &[(&str, &str)]) -> Self {
        Self::open_over(tcp(server.listen), path, headers, Encoding::of_the_crate())
    }

    /// Connected without a token.
    pub(crate) fn anonymous(server: &Server) -> Self {
        Self::open(server).connect(&json!({}))
    }

    /// Connected as this user.
    pub(crate) fn user(server: &Server, user: &str) -> Self {
        Self::with_token(server, &token::user(user))
    }

    /// Connected with this token.
    pub(crate) fn with_token(server: &Server, token: &str) -> Self {
        Self::open(server).connect(&json!({ "token": token }))
    }

    /// Upgraded over a handshake that was done by hand, with JSON.
    pub(crate) fn from_http(http: Http) -> Self {
        Self::from_http_as(Encoding::Json, http)
    }

    /// Upgraded over a handshake that was done by hand.
    pub(crate) fn from_http_as(encoding: Encoding, http: Http) -> Self {
        let stream = http.into_stream();
        let socket = WebSocket::from_raw_socket(stream, Role::Client, Some(wide_limits()));
        Self::speaking(encoding, socket)
    }

    /// From here on, a read that brings nothing for this long fails.
    pub(crate) fn set_read_deadline(&self, deadline: Duration) {
        self.socket
            .get_ref()
            .set_read_timeout(Some(deadline))
            .expect("a deadline");
    }
}

impl<S: std::io::Read + std::io::Write> Client<S> {
    /// Upgraded over a connection that exists.
    pub(crate) fn open_over(
        stream: S,
        path: &str,
        headers: &[(&str, &str)],
        encoding: Encoding,
    ) -> Self {
        let headers: Vec<_> = headers.iter().copied().chain(encoding.header()).collect();
        let socket = upgrade_over(stream, path, &headers).expect("the upgrade is accepted");
        Self::speaking(encoding, socket)
    }

    /// Takes over an upgraded connection that speaks JSON.
    pub(crate) fn over(socket: WebSocket<S>) -> Self {
        Self::speaking(Encoding::Json, socket)
    }

    /// Takes over an upgraded connection.
    pub(crate) fn speaking(encoding: Encoding, socket: WebSocket<S>) -> Self {
        Self {
            socket,
            encoding,
            received: VecDeque::new(),
            next_id: 0,
            answers_pings: true,
            pings: 0,
            id: String::new(),
            connected: Value::Null,
        }
    }

    /// Sends the connect command, which must succeed.
    pub(crate) fn connect(mut self, request: &Value) -> Self {
        let reply = self.call("connect", request);
        self.connected = reply["connect"].clone();
        self.id = self.connected["client"]
            .as_str()
            .unwrap_or_else(|| panic!("connected: {reply}"))
            .to_owned();
        self
    }

    /// Sends a message: the text as it is, or its commands in Protobuf.
    pub(crate) fn send_text(&mut self, text: &str) {
        assert!(self.try_send_text(text), "the server reads");
    }

    /// Sends a message; false when the server has closed.
    pub(crate) fn try_send_text(&mut self, text: &str) -> bool {
        let message = match self.encoding {
            Encoding::Json => Message::text(text),
            Encoding::Protobuf => {
                let mut frame = Vec::new();
                for line in text.lines() {
                    let command = serde_json::from_str(line)
                        .unwrap_or_else(|error| panic!("a command: {error}: {line:?}"));
                    transcode::delimit(&mut frame, &transcode::encode("Command", &command));
                }
                Message::binary(frame)
            }
        };
        self.socket.send(message).is_ok()
    }

    /// Sends a binary message as it is.
    pub(crate) fn send_bytes(&mut self, bytes: &[u8]) {
        self.socket
            .send(Message::binary(bytes.to_vec()))
            .expect("the server reads");
    }

    /// Sends one frame as the library builds it.
    pub(crate) fn send_frame(&mut self, frame: Frame) {
        self.socket
            .send(Message::Frame(frame))
            .expect("the server reads");
    }

    /// Sends a command and returns its id without waiting for the reply.
    pub(crate) fn send(&mut self, part: &str, request: &Value) -> u64 {
        self.next_id += 1;
        self.send_text(&json!({ "id": self.next_id, part: request }).to_string());
        self.next_id
    }

    /// Sends a command and returns its reply. What comes before it stays in order.
    pub(crate) fn call(&mut self, part: &str, request: &Value) -> Value {
        let id = self.send(part, request);
        self.reply(id)
    }

    /// Sends a command that must succeed and returns its result.
    pub(crate) fn ok(&mut self, part: &str, request: &Value) -> Value {
        let mut reply = self.call(part, request);
        assert!(reply.get(part).is_some(), "{part} {request}: {reply}");
        reply[part].take()
    }

    /// Sends a command that must be refused and returns the error code.
    pub(crate) fn error(&mut self, part: &str, request: &Value) -> u64 {
        let reply = self.call(part, request);
        let error = &reply["error"];
        assert!(
            error["message"]
                .as_str()
                .is_some_and(|text| !text.is_empty()),
            "{part} {request}: {reply}"
        );
        error["code"].as_u64().expect("an error code")
    }

    /// Subscribes, which must succeed.
    pub(crate) fn subscribe(&mut self, channel: &str) -> Value {
        self.ok("subscribe", &json!({ "channel": channel }))
    }

    /// Publishes, which must succeed.
    pub(crate) fn publish(&mut self, channel: &str, data: &Value) {
        self.ok("publish", &json!({ "channel": channel, "data": data }));
    }

    /// The reply to the command with this id.
    pub(crate) fn reply(&mut self, id: u64) -> Value {
        self.find(&format!("the reply {id}"), |object| object["id"] == id)
    }

    /// The next push.
    pub(crate) fn push(&mut self) -> Value {
        self.find("a push", |object| object.get("push").is_some())["push"].take()
    }

    /// The next push, which must be a publication in this channel.
    pub(crate) fn publication(&mut self, channel: &str) -> Value {
        let mut push = self.push();
        assert_eq!(push["channel"], channel, "{push}");
        assert!(push["pub"].is_object(), "{push}");
        push["pub"].take()
    }

    /// A push that has come already.
    pub(crate) fn unread_push(&mut self) -> Option<Value> {
        let at = self
            .received
            .iter()
            .position(|object| object.get("push").is_some())?;
        self.received
            .remove(at)
            .map(|mut object| object["push"].take())
    }

    /// The next object that has come already.
    pub(crate) fn unread_first(&mut self) -> Option<Value> {
        self.received.pop_front()
    }

    /// The next object, whatever it is.
    pub(crate) fn next(&mut self) -> Value {
        self.find("anything", |_| true)
    }

    /// Everything that came before the server answered a command sent now.
    pub(crate) fn pending(&mut self) -> Vec<Value> {
        assert_eq!(
            self.error("rpc", &json!({ "method": "barrier" })),
            108,
            "an rpc without a backend"
        );
        self.received.drain(..).collect()
    }

    fn find(&mut self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let mut seen = 0;
        loop {
            if let Some(at) = self.received.iter().skip(seen).position(&wanted) {
                return self
                    .received
                    .remove(seen + at)
                    .expect("the position was found");
            }
            seen = self.received.len();
            if let Err(ended) = self.receive() {
                panic!(
                    "waited for {what}, the server closed: {ended:?}; before it: {:?}",
                    self.received
                );
            }
        }
    }

    /// Reads one message into `received`.
    pub(crate) fn receive(&mut self) -> Result<(), Ended> {
        match self.socket.read() {
            Ok(Message::Text(text)) if self.encoding == Encoding::Json => {
                for line in text.as_str().split('\n') {
                    let object = serde_json::from_str(line);
                    self.take(object.unwrap_or_else(|error| panic!("{error}: {line:?}")));
                }
                Ok(())
            }
            Ok(Message::Binary(frame)) if self.encoding == Encoding::Protobuf => {
                for reply in transcode::split(&frame) {
                    self.take(transcode::decode("Reply", reply));
                }
                Ok(())
            }
            Ok(Message::Ping(_) | Message::Pong(_)) => Ok(()),
            Ok(Message::Close(frame)) => Err(Ended::from_frame(frame)),
            Ok(other) => panic!("JSON travels in text frames, Protobuf in binary ones: {other:?}"),
            Err(Error::Io(error)) if error.kind() == std::io::ErrorKind::WouldBlock => {
                panic!("nothing came in time; unread: {:?}", self.received)
            }
            Err(
                cause @ (Error::ConnectionClosed
                | Error::AlreadyClosed
                | Error::Io(_)
                | Error::Protocol(ProtocolError::ResetWithoutClosingHandshake)),
            ) => Err(Ended {
                code: 1006,
                reason: cause.to_string(),
            }),
            Err(error) => panic!("the peer's library refuses the server's bytes: {error}"),
        }
    }

    fn take(&mut self, object: Value) {
        if object == json!({}) {
            self.pings += 1;
            if self.answers_pings {
                self.send_text("{}");
            }
        } else {
            self.received.push_back(object);
        }
    }

    /// Waits for one more server ping.
    pub(crate) fn ping(&mut self) {
        let before = self.pings;
        while self.pings == before {
            if let Err(ended) = self.receive() {
                panic!("waited for a ping, the server closed: {ended:?}");
            }
        }
    }

    /// Waits for the server's close and answers it. Objects that come before it stay readable.
    pub(crate) fn ended(&mut self) -> Ended {
        let end = now() + DEADLINE;
        loop {
            assert!(
                now() < end,
                "the server does not close; unread: {} objects",
                self.received.len()
            );
            if let Err(ended) = self.receive() {
                if ended.code != 1006 {
                    // Sends the answer to the close frame; the server may be gone already.
                    while self.socket.read().is_ok() {}
                }
                return ended;
            }
        }
    }

    /// Waits for the server's close, which must have this code and a reason that SDKs can read (trap T1).
    pub(crate) fn ends_with(&mut self, code: u16) -> String {
        let ended = self.ended();
        assert_eq!(
            ended.code, code,
            "{ended:?}; before it: {:?}",
            self.received
        );
        assert!(!ended.reason.is_empty(), "{code} has a reason");
        assert!(
            serde_json::from_str::<Value>(&ended.reason).is_err(),
            "{code}: the reason is not JSON"
        );
        ended.reason
    }

    /// What came and was not asked for.
    pub(crate) fn unread(&mut self) -> Vec<Value> {
        self.received.drain(..).collect()
    }
}

impl Ended {
    pub(crate) fn from_frame(frame: Option<CloseFrame>) -> Self {
        match frame {
            Some(frame) => Self {
                code: frame.code.into(),
                reason: frame.reason.as_str().to_owned(),
            },
            None => Self {
                code: 1005,
                reason: String::new(),
            },
        }
    }
}
