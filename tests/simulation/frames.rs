//! The client's end of the wire, strict: what the server must not send fails the run.

use std::io::Cursor;

use ringmain::mem::Rng;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};
use tungstenite::protocol::frame::{Frame, FrameHeader};

/// Appends one message, masked, sometimes in fragments.
pub fn send_message(out: &mut Vec<u8>, rng: &mut Rng, payload: &[u8], is_binary: bool) {
    let pieces = if payload.len() > 1 && rng.below(10) == 0 {
        2 + rng.below(2) as usize
    } else {
        1
    };
    let each = payload.len().div_ceil(pieces).max(1);
    let mut at = 0;
    let mut opcode = OpCode::Data(match is_binary {
        true => Data::Binary,
        false => Data::Text,
    });
    loop {
        let end = (at + each).min(payload.len());
        send(
            out,
            rng,
            Frame::message(payload[at..end].to_vec(), opcode, end == payload.len()),
        );
        if end == payload.len() {
            return;
        }
        if rng.below(4) == 0 {
            send(out, rng, Frame::ping(b"between".to_vec()));
        }
        opcode = OpCode::Data(Data::Continue);
        at = end;
    }
}

/// Appends one frame, masked.
pub fn send(out: &mut Vec<u8>, rng: &mut Rng, mut frame: Frame) {
    frame.header_mut().mask = Some((rng.bits() as u32).to_be_bytes());
    frame.format(out).expect("a vector takes everything");
}

/// What a server may say in one frame.
#[derive(Debug)]
pub enum Heard {
    /// Its bytes, and whether they are binary.
    Message(Vec<u8>, bool),
    Ping(Vec<u8>),
    Pong,
    Close(Option<u16>),
}

/// Bytes of one connection that are no whole frame yet.
#[derive(Default)]
pub struct FrameReader {
    bytes: Vec<u8>,
    at: usize,
}

impl FrameReader {
    pub fn push(&mut self, bytes: &[u8]) {
        if self.at > 0 {
            self.bytes.drain(..self.at);
            self.at = 0;
        }
        self.bytes.extend_from_slice(bytes);
    }

    pub fn is_empty(&self) -> bool {
        self.at == self.bytes.len()
    }

    /// The next frame.
    pub fn next(&mut self) -> Option<Heard> {
        let mut cursor = Cursor::new(&self.bytes[self.at..]);
        let (header, len) = FrameHeader::parse(&mut cursor).expect("a header of the server")?;
        let start = self.at + cursor.position() as usize;
        let end = start + len as usize;
        if end > self.bytes.len() {
            return None;
        }
        assert!(header.mask.is_none(), "a server masks nothing");
        assert!(header.is_final, "this server fragments nothing");
        assert!(
            !header.rsv1 && !header.rsv2 && !header.rsv3,
            "no extension was agreed"
        );
        let payload = self.bytes[start..end].to_vec();
        self.at = end;
        Some(match header.opcode {
            OpCode::Data(Data::Text) => Heard::Message(payload, false),
            OpCode::Data(Data::Binary) => Heard::Message(payload, true),
            OpCode::Control(Control::Ping) => Heard::Ping(payload),
            OpCode::Control(Control::Pong) => Heard::Pong,
            OpCode::Control(Control::Close) => {
                assert!(
                    payload.is_empty() || payload.len() >= 2,
                    "a close frame has a whole code"
                );
                Heard::Close(payload.first_chunk().map(|code| u16::from_be_bytes(*code)))
            }
            other => panic!("a server sent {other:?}"),
        })
    }
}
