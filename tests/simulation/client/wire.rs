//! How a client's messages stand on the wire, by transport and encoding. It is strict: what a server must not send fails the run.

use ringmain::mem::Rng;
use serde_json::Value;
use tungstenite::protocol::frame::{CloseFrame, Frame, coding::CloseCode};

use super::super::frames::{FrameReader, Heard, send, send_message};
use crate::transcode;

/// How a client is connected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Transport {
    #[default]
    WebSocket,
    HttpStream,
    Sse,
    UniWebSocket,
    UniHttpStream,
    UniSse,
}

impl Transport {
    pub fn random(rng: &mut Rng) -> Self {
        match rng.below(100) {
            0..=69 => Self::WebSocket,
            70..=79 => Self::HttpStream,
            80..=87 => Self::Sse,
            88..=91 => Self::UniWebSocket,
            92..=95 => Self::UniHttpStream,
            _ => Self::UniSse,
        }
    }

    pub const fn is_websocket(self) -> bool {
        matches!(self, Self::WebSocket | Self::UniWebSocket)
    }

    pub const fn is_unidirectional(self) -> bool {
        matches!(
            self,
            Self::UniWebSocket | Self::UniHttpStream | Self::UniSse
        )
    }

    /// Commands go in requests of their own.
    pub const fn is_emulated(self) -> bool {
        matches!(self, Self::HttpStream | Self::Sse)
    }
}

/// What a client hears.
#[derive(Debug)]
pub enum Event {
    /// The response is there.
    Opened,
    /// Its request was refused with this status.
    Refused(u16),
    Message(Value),
    Ping(Vec<u8>),
    Close(Option<u16>),
}

#[derive(Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Head,
    Open,
    /// Nothing more counts.
    Over,
}

/// One connection of a client.
#[derive(Default)]
pub struct Wire {
    pub transport: Transport,
    /// Protobuf.
    pub is_binary: bool,
    accept: String,
    state: State,
    head: Vec<u8>,
    frames: FrameReader,
    /// Of a stream, as it came: chunks.
    chunked: Vec<u8>,
    /// Of a stream, out of its chunks.
    body: Vec<u8>,
    /// The last chunk is there.
    has_ended: bool,
}

/// Appends a frame of commands.
fn encode(lines: &[String], is_binary: bool) -> Vec<u8> {
    if !is_binary {
        return lines.join("\n").into_bytes();
    }
    let mut frame = Vec::new();
    for line in lines {
        let command = serde_json::from_str(line).expect("commands are JSON");
        transcode::delimit(&mut frame, &transcode::encode("Command", &command));
    }
    frame
}

/// A request with a body.
pub fn post(path: &str, is_binary: bool, body: &[u8]) -> Vec<u8> {
    let kind = match is_binary {
        true => "Content-Type: application/octet-stream\r\n",
        false => "",
    };
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: h\r\n{kind}Content-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

impl Wire {
    /// A connection that is not there yet.
    pub fn random(rng: &mut Rng) -> Self {
        let transport = Transport::random(rng);
        let takes_binary = matches!(transport, Transport::WebSocket | Transport::HttpStream);
        Self {
            transport,
            is_binary: takes_binary && rng.below(5) == 0,
            ..Self::default()
        }
    }

    /// What a connection begins with: `connect` alone, or commands of which the first is a connect, or nothing. Also how many of
    /// these are in the first frame.
    pub fn open(&mut self, rng: &mut Rng, connect: &str, lines: &[String]) -> (Vec<u8>, usize) {
        if self.transport == Transport::WebSocket {
            let mut up = self.upgrade(rng, "/connection/websocket");
            let first = self.say(&mut up, lines, rng);
            return (up, first);
        }
        let frame = match self.transport.is_unidirectional() {
            true => connect.as_bytes().to_vec(),
            false => encode(lines, self.is_binary),
        };
        let in_query = form_urlencoded::byte_serialize(&frame).collect::<String>();
        // A query carries a connect command and nothing else.
        let is_post = rng.below(2) == 0 || lines.len() > 1;
        let up = match self.transport {
            Transport::WebSocket | Transport::UniWebSocket if is_post => {
                let mut up = self.upgrade(rng, "/connection/uni_websocket");
                send_message(&mut up, rng, &frame, false);
                up
            }
            Transport::WebSocket | Transport::UniWebSocket => {
                let path = format!("/connection/uni_websocket?cf_connect={in_query}");
                self.upgrade(rng, &path)
            }
            Transport::HttpStream => post("/connection/http_stream", self.is_binary, &frame),
            Transport::UniHttpStream => post("/connection/uni_http_stream", false, &frame),
            Transport::Sse | Transport::UniSse => {
                let path = match self.transport {
                    Transport::Sse => "/connection/sse",
                    _ => "/connection/uni_sse",
                };
                match is_post {
                    true => post(path, false, &frame),
                    false => {
                        format!("GET {path}?cf_connect={in_query} HTTP/1.1\r\nHost: h\r\n\r\n")
                            .into_bytes()
                    }
                }
            }
        };
        (up, lines.len())
    }

    fn upgrade(&mut self, rng: &mut Rng, path: &str) -> Vec<u8> {
        let key = base64::Engine::encode(
            &base64::prelude::BASE64_STANDARD,
            rng.wide_bits().to_be_bytes(),
        );
        self.accept = tungstenite::handshake::derive_accept_key(key.as_bytes());
        let query = match (self.transport, rng.below(5)) {
            (Transport::WebSocket, 0) => "?cf_ws_frame_ping_pong=true",
            _ => "",
        };
        let protocol = match self.is_binary {
            true => "Sec-WebSocket-Protocol: centrifuge-protobuf\r\n",
            false => "",
        };
        format!(
            "GET {path}{query} HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n{protocol}\r\n"
        )
        .into_bytes()
    }

    /// Sends commands in frames, some together. Returns how many the first one has.
    pub fn say(&self, up: &mut Vec<u8>, lines: &[String], rng: &mut Rng) -> usize {
        let mut at = 0;
        let mut first = 0;
        while at < lines.len() {
            let many = 1 + rng.below((lines.len() - at) as u64) as usize;
            let frame = encode(&lines[at..at + many], self.is_binary);
            send_message(up, rng, &frame, self.is_binary);
            first = if at == 0 { many } else { first };
            at += many;
        }
        first
    }

    /// The body of a request with commands for the session of that name on that node.
    pub fn emulation(&self, session: &str, node: &str, lines: &[String]) -> Vec<u8> {
        let frame = encode(lines, self.is_binary);
        if self.is_binary {
            let mut request = Vec::new();
            for (tag, bytes) in [(1, node.as_bytes()), (2, session.as_bytes()), (3, &frame)] {
                request.push(tag << 3 | 2);
                transcode::delimit(&mut request, bytes);
            }
            return request;
        }
        let data = String::from_utf8(frame).expect("lines are text");
        let request = serde_json::json!({ "session": session, "node": node, "data": data });
        request.to_string().into_bytes()
    }

    /// Says that it goes.
    pub fn close(&self, up: &mut Vec<u8>, rng: &mut Rng) {
        let frame = CloseFrame {
            code: CloseCode::Normal,
            reason: "bye".into(),
        };
        send(up, rng, Frame::close(Some(frame)));
    }

    /// Bytes from the server.
    pub fn heard(&mut self, bytes: &[u8]) -> Vec<Event> {
        let mut events = Vec::new();
        match self.state {
            State::Over => return events,
            State::Head => {
                self.head.extend_from_slice(bytes);
                let end = self.head.windows(4).position(|four| four == b"\r\n\r\n");
                let Some(end) = end else { return events };
                let rest = self.head.split_off(end + 4);
                self.head.truncate(end);
                events.push(self.opened());
                self.push(&rest);
            }
            State::Open => self.push(bytes),
        }
        if self.state == State::Open {
            match self.transport.is_websocket() {
                true => self.next_frames(&mut events),
                false => self.next_messages(&mut events),
            }
        }
        events
    }

    /// The server has ended the connection: not within anything.
    pub fn ended(&self) {
        if self.state != State::Open {
            return;
        }
        assert!(self.frames.is_empty(), "the server ended within a frame");
        let is_whole = self.transport.is_websocket() || self.has_ended;
        assert!(is_whole, "the server ended a stream without its last chunk");
    }

    fn opened(&mut self) -> Event {
        let head = String::from_utf8(std::mem::take(&mut self.head)).expect("a head is text");
        let status: u16 = head
            .get(9..12)
            .and_then(|status| status.parse().ok())
            .unwrap_or_else(|| panic!("no head: {head}"));
        let wanted = if self.transport.is_websocket() {
            101
        } else {
            200
        };
        if status != wanted {
            // Too many connections, too slow, too large.
            let refuses = matches!(status, 503 | 408 | 413);
            assert!(refuses, "a request was answered with {head}");
            self.state = State::Over;
            return Event::Refused(status);
        }
        if self.transport.is_websocket() {
            assert!(
                head.contains(&self.accept),
                "another's upgrade was answered"
            );
            let names = head.contains("centrifuge-protobuf");
            assert_eq!(names, self.is_binary, "the protocol asked for: {head}");
        } else {
            let lower = head.to_ascii_lowercase();
            assert!(lower.contains("transfer-encoding: chunked"), "{head}");
        }
        self.state = State::Open;
        Event::Opened
    }

    fn push(&mut self, bytes: &[u8]) {
        if self.state == State::Open && self.transport.is_websocket() {
            self.frames.push(bytes);
        } else if self.state == State::Open {
            self.chunked.extend_from_slice(bytes);
        }
    }

    fn next_frames(&mut self, events: &mut Vec<Event>) {
        while let Some(frame) = self.frames.next() {
            assert!(self.state == State::Open, "a frame after the close frame");
            match frame {
                Heard::Message(bytes, is_binary) => {
                    assert_eq!(is_binary, self.is_binary, "frames of its encoding");
                    self.messages(&bytes, events);
                }
                Heard::Ping(payload) => events.push(Event::Ping(payload)),
                Heard::Pong => {}
                Heard::Close(code) => {
                    self.state = State::Over;
                    events.push(Event::Close(code));
                }
            }
        }
    }

    /// The messages of a frame.
    fn messages(&self, bytes: &[u8], events: &mut Vec<Event>) {
        if self.is_binary {
            for message in transcode::split(bytes) {
                events.push(Event::Message(transcode::decode("Reply", message)));
            }
            return;
        }
        for line in bytes.split(|&byte| byte == b'\n') {
            events.push(Event::Message(json(line)));
        }
    }

    fn next_messages(&mut self, events: &mut Vec<Event>) {
        while let Some((chunk, used)) = next_chunk(&self.chunked) {
            assert!(!self.has_ended, "a chunk after the last one");
            self.has_ended = chunk.is_empty();
            self.body.extend_from_slice(chunk);
            self.chunked.drain(..used);
        }
        let is_sse = matches!(self.transport, Transport::Sse | Transport::UniSse);
        while let Some((message, used)) = match (is_sse, self.is_binary) {
            (true, _) => next_event(&self.body),
            (_, true) => next_delimited(&self.body),
            _ => next_line(&self.body),
        } {
            let message = message.to_vec();
            self.body.drain(..used);
            if self.is_binary {
                events.push(Event::Message(transcode::decode("Reply", &message)));
            } else if !message.is_empty() {
                events.push(Event::Message(json(&message)));
            }
        }
        let is_whole = !self.has_ended || self.body.is_empty();
        assert!(is_whole, "a stream ended within a message");
    }
}

fn json(line: &[u8]) -> Value {
    serde_json::from_slice(line)
        .unwrap_or_else(|error| panic!("{error} in {}", String::from_utf8_lossy(line)))
}

fn next_chunk(bytes: &[u8]) -> Option<(&[u8], usize)> {
    let end = bytes.windows(2).position(|two| two == b"\r\n")?;
    let size = std::str::from_utf8(&bytes[..end]).expect("the size of a chunk");
    let size = usize::from_str_radix(size, 16).expect("the size of a chunk");
    let from = end + 2;
    let chunk = bytes.get(from..from + size)?;
    let rest = bytes.get(from + size..from + size + 2)?;
    assert_eq!(rest, b"\r\n", "the end of a chunk");
    Some((chunk, from + size + 2))
}

fn next_line(body: &[u8]) -> Option<(&[u8], usize)> {
    let end = body.iter().position(|&byte| byte == b'\n')?;
    Some((&body[..end], end + 1))
}

/// The empty line that a stream of events begins with is an empty message.
fn next_event(body: &[u8]) -> Option<(&[u8], usize)> {
    if body.starts_with(b"\r\n") {
        return Some((&[], 2));
    }
    let end = body.windows(2).position(|two| two == b"\n\n")?;
    let event = body[..end].strip_prefix(b"data: ");
    Some((event.expect("an event is its data"), end + 2))
}

fn next_delimited(body: &[u8]) -> Option<(&[u8], usize)> {
    let mut rest = body;
    let mut len = 0;
    for shift in (0..).step_by(7) {
        let (&byte, after) = rest.split_first()?;
        rest = after;
        len |= usize::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            break;
        }
    }
    let used = body.len() - rest.len();
    Some((rest.get(..len)?, used + len))
}
