//! A WebSocket peer that speaks `permessage-deflate`, which the client library of the other tests does not. Frames are that library's,
//! compression is zlib's.

use std::io::{Cursor, Read, Write};
use std::net::{SocketAddr, TcpStream};

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress};
use serde_json::Value;
use tungstenite::protocol::frame::coding::{Data, OpCode};
use tungstenite::protocol::frame::{Frame, FrameHeader};

use super::http::Http;

const TAIL: [u8; 4] = [0, 0, 0xFF, 0xFF];

/// See the module.
pub(crate) struct Peer {
    stream: TcpStream,
    received: Vec<u8>,
    /// What the server agreed to.
    pub(crate) extensions: Option<String>,
    deflate: Compress,
    inflate: Decompress,
    keeps_own: bool,
    keeps_theirs: bool,
}

/// A frame of the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Received {
    pub(crate) opcode: OpCode,
    pub(crate) rsv1: bool,
    /// Payload on the wire.
    pub(crate) wire_len: usize,
    /// Payload, inflated.
    pub(crate) payload: Vec<u8>,
}

impl Received {
    /// Code of a close frame.
    pub(crate) fn close_code(&self) -> Option<u16> {
        let code = self.payload.first_chunk().copied().map(u16::from_be_bytes);
        matches!(self.opcode, OpCode::Control(_))
            .then_some(code)
            .flatten()
    }
}

/// The answer to a handshake with this value of `Sec-WebSocket-Extensions`.
pub(crate) fn handshake(
    address: SocketAddr,
    path: &str,
    offers: &[&str],
) -> (Http, u16, Option<String>) {
    handshake_over(Http::open(address), path, offers)
}

fn handshake_over(mut http: Http, path: &str, offers: &[&str]) -> (Http, u16, Option<String>) {
    let mut headers = vec![
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    headers.extend(
        offers
            .iter()
            .map(|offer| ("Sec-WebSocket-Extensions", *offer)),
    );
    let response = http.get(path, &headers);
    let extensions = response.header("Sec-WebSocket-Extensions");
    let extensions = extensions.map(str::to_owned);
    (http, response.status, extensions)
}

impl Peer {
    /// Upgraded with this offer, which is heeded as far as the server agreed.
    pub(crate) fn open(address: SocketAddr, path: &str, offer: &str) -> Self {
        Self::over(Http::open(address), path, offer)
    }

    /// The same over a connection that exists.
    pub(crate) fn over(http: Http, path: &str, offer: &str) -> Self {
        let (http, status, extensions) = handshake_over(http, path, &[offer]);
        assert_eq!(status, 101);
        let agreed = extensions.clone().unwrap_or_default();
        let bits = |name: &str| {
            let value = agreed
                .split("; ")
                .find_map(|part| part.strip_prefix(name)?.strip_prefix('='));
            let bits = value.map_or(15, |bits| bits.parse::<u8>().expect("bits"));
            bits.max(9)
        };
        Self {
            stream: http.into_stream(),
            received: Vec::new(),
            deflate: Compress::new_with_window_bits(
                Compression::best(),
                false,
                bits("client_max_window_bits"),
            ),
            inflate: Decompress::new_with_window_bits(false, bits("server_max_window_bits")),
            keeps_own: !agreed.contains("client_no_context_takeover"),
            keeps_theirs: !agreed.contains("server_no_context_takeover"),
            extensions,
        }
    }

    /// Sends one frame.
    pub(crate) fn send(&mut self, opcode: Data, is_final: bool, rsv1: bool, payload: &[u8]) {
        let header = FrameHeader {
            is_final,
            rsv1,
            opcode: OpCode::Data(opcode),
            mask: Some([9, 8, 7, 6]),
            ..FrameHeader::default()
        };
        let mut bytes = Vec::new();
        Frame::from_payload(header, payload.to_vec().into())
            .format(&mut bytes)
            .expect("memory");
        self.stream.write_all(&bytes).expect("the server reads");
    }

    /// The payload of a compressed message.
    pub(crate) fn deflated(&mut self, message: &[u8]) -> Vec<u8> {
        if !self.keeps_own {
            self.deflate.reset();
        }
        let mut out = Vec::with_capacity(message.len() * 2 + 64);
        self.deflate
            .compress_vec(message, &mut out, FlushCompress::Sync)
            .expect("deflated");
        if !out.ends_with(&TAIL) {
            assert!(message.is_empty(), "a flush has a tail");
            return vec![0];
        }
        out.truncate(out.len() - TAIL.len());
        out
    }

    /// Sends one compressed message.
    pub(crate) fn send_deflated(&mut self, opcode: Data, message: &[u8]) {
        let payload = self.deflated(message);
        self.send(opcode, true, true, &payload);
    }

    /// Sends commands, compressed.
    pub(crate) fn send_json(&mut self, commands: &Value) {
        self.send_deflated(Data::Text, commands.to_string().as_bytes());
    }

    /// The next frame; `None` at the end.
    pub(crate) fn next(&mut self) -> Option<Received> {
        loop {
            let mut cursor = Cursor::new(&self.received[..]);
            if let Some((header, len)) = FrameHeader::parse(&mut cursor).expect("a frame") {
                let start = cursor.position() as usize;
                let end = start + len as usize;
                if let Some(payload) = self.received.get(start..end) {
                    assert!(header.is_final && header.mask.is_none());
                    let payload = payload.to_vec();
                    self.received.drain(..end);
                    return Some(Received {
                        opcode: header.opcode,
                        rsv1: header.rsv1,
                        wire_len: payload.len(),
                        payload: if header.rsv1 {
                            self.inflated(payload)
                        } else {
                            payload
                        },
                    });
                }
            }
            let mut chunk = [0; 64 * 1024];
            match self.stream.read(&mut chunk) {
                Ok(0) => return None,
                Ok(len) => self.received.extend_from_slice(&chunk[..len]),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    panic!("no frame in time")
                }
                Err(_) => return None,
            }
        }
    }

    /// The next message as JSON objects, pings of the protocol aside.
    pub(crate) fn next_json(&mut self) -> (Value, Received) {
        loop {
            let frame = self.next().expect("a message");
            let value: Value = serde_json::from_slice(&frame.payload).expect("one JSON object");
            if value != serde_json::json!({}) {
                return (value, frame);
            }
        }
    }

    /// Code of the close frame that comes next.
    pub(crate) fn closed_with(&mut self) -> Option<u16> {
        std::iter::from_fn(|| self.next()).find_map(|frame| frame.close_code())
    }

    fn inflated(&mut self, mut payload: Vec<u8>) -> Vec<u8> {
        if !self.keeps_theirs {
            self.inflate.reset(false);
        }
        payload.extend_from_slice(&TAIL);
        let mut out = Vec::new();
        let start = self.inflate.total_in();
        loop {
            let used = (self.inflate.total_in() - start) as usize;
            if used == payload.len() && out.len() < out.capacity() {
                return out;
            }
            out.reserve(payload.len() * 2 + 1024);
            self.inflate
                .decompress_vec(&payload[used..], &mut out, FlushDecompress::Sync)
                .expect("the server compresses");
        }
    }
}
