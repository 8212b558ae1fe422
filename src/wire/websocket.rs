//! The server's side of RFC 6455: a client's bytes to events, and the frames a server sends.
//!
//! A frame that lies whole in the received bytes, which is nearly every frame, is unmasked where it lies and handed out borrowed. Only what a receive cuts in two,
//! and messages of several fragments, take memory, and give it back with the message's end.

mod close;
pub mod deflate;
mod header;
mod image;
mod mask;
mod message;

use std::borrow::Cow;
use std::mem;
use std::ops::Deref;

use tungstenite::protocol::frame::coding::CloseCode;

pub use close::encode_close;
pub use deflate::{Deflater, Inflater};
use header::{CLIENT_HEADER_BYTES_MAX, FrameHead};
pub use header::{
    CONTROL_PAYLOAD_BYTES_MAX, Opcode, SERVER_HEADER_BYTES_MAX, ServerHeader, encode_frame_header,
};
use mask::{mask_at, unmask};
use message::{PartialMessage, inflated};

/// Reads one connection's frames. Holds nothing but a null pointer while no frame and no message is unfinished.
///
/// After an error the stream has no meaning any more: close the connection with [`WebSocketError::close_code`] and feed nothing further.
#[derive(Debug, Default)]
pub struct Decoder {
    partial: Option<Box<Partial>>,
}

const _: () = assert!(
    size_of::<Decoder>() == 8,
    "an idle connection pays for this state"
);

/// What a client has sent.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// A whole text message; its bytes are UTF-8.
    Text(Payload<'a>),
    /// A whole binary message.
    Binary(Payload<'a>),
    /// A pong with the same payload is due.
    Ping(Payload<'a>),
    /// An answer to a ping, or a sign of life sent unasked.
    Pong,
    /// The closing handshake, with code and reason if there are any. Nothing that follows it counts.
    Close(Option<(u16, Cow<'a, str>)>),
}

/// Unmasked bytes: in place in the received bytes, or put together from several receives or fragments.
#[derive(Debug)]
pub enum Payload<'a> {
    /// Part of the input.
    Borrowed(&'a mut [u8]),
    /// The decoder's, given away.
    Owned(Vec<u8>),
}

impl Deref for Payload<'_> {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        match self {
            Self::Borrowed(bytes) => bytes,
            Self::Owned(bytes) => bytes,
        }
    }
}

impl PartialEq for Payload<'_> {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Payload<'_> {}

/// Why the connection has to be failed (RFC 6455 §7.1.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WebSocketError {
    /// A frame that RFC 6455 forbids, at all or at this place.
    #[error("protocol error")]
    Protocol,
    /// A text message or a close reason that is not UTF-8.
    #[error("invalid UTF-8")]
    InvalidUtf8,
    /// A message beyond the limit, known from its headers or while it was inflated.
    #[error("message too large")]
    TooLarge,
    /// A compressed message that cannot be inflated.
    #[error("corrupt compressed data")]
    CorruptDeflate,
}

impl WebSocketError {
    /// The code of the close frame that answers it: 1002, 1007 or 1009.
    pub fn close_code(self) -> u16 {
        let code = match self {
            Self::Protocol => CloseCode::Protocol,
            Self::InvalidUtf8 | Self::CorruptDeflate => CloseCode::Invalid,
            Self::TooLarge => CloseCode::Size,
        };
        code.into()
    }
}

impl Decoder {
    /// Bytes of memory that what is unfinished takes.
    #[inline]
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.partial
            .as_ref()
            .map_or(0, |partial| partial.held_bytes())
    }

    /// Does `input` begin with a close frame?
    #[must_use]
    pub fn begins_close(&self, input: &[u8]) -> bool {
        let is_inside = |partial: &Partial| partial.is_inside_frame();
        let opcode = input.first().map(|first| first & 0x0F);
        opcode == Some(Opcode::Close as u8) && !self.partial.as_deref().is_some_and(is_inside)
    }

    /// Takes the next event out of `input`, whose front moves past what was read. `Ok(None)`: all of `input` was read, and what is unfinished is kept for the next call.
    ///
    /// `message_bytes_max` bounds a message, in all its fragments together; it is checked as soon as a header is there and before memory is taken.
    #[inline]
    pub fn next<'a>(
        &mut self,
        input: &mut &'a mut [u8],
        message_bytes_max: usize,
    ) -> Result<Option<Event<'a>>, WebSocketError> {
        self.step(input, message_bytes_max, None)
    }

    /// The same for a client that compression was agreed on with: its messages may be compressed and are handed out inflated.
    ///
    /// `message_bytes_max` bounds a message as it was sent; `inflater` bounds it further as it is handed out.
    pub fn next_inflated<'a>(
        &mut self,
        input: &mut &'a mut [u8],
        message_bytes_max: usize,
        inflater: &mut Inflater,
    ) -> Result<Option<Event<'a>>, WebSocketError> {
        self.step(input, message_bytes_max, Some(inflater))
    }

    #[inline]
    fn step<'a>(
        &mut self,
        input: &mut &'a mut [u8],
        message_bytes_max: usize,
        mut inflater: Option<&mut Inflater>,
    ) -> Result<Option<Event<'a>>, WebSocketError> {
        while !input.is_empty() {
            let inflater = inflater.as_deref_mut();
            let event = match &mut self.partial {
                Some(partial) if partial.is_inside_frame() => {
                    let event = partial.resume(input, message_bytes_max, inflater)?;
                    if partial.is_empty() {
                        self.partial = None;
                    }
                    event
                }
                _ => self.take_frame(input, message_bytes_max, inflater)?,
            };
            if event.is_some() {
                return Ok(event);
            }
        }
        Ok(None)
    }

    /// Reads a frame from its first byte. Takes at least one byte of `input`, which is not empty.
    #[inline]
    fn take_frame<'a>(
        &mut self,
        input: &mut &'a mut [u8],
        message_bytes_max: usize,
        inflater: Option<&mut Inflater>,
    ) -> Result<Option<Event<'a>>, WebSocketError> {
        let Some(header) = FrameHead::decode(input, inflater.is_some())? else {
            self.partial_mut().keep_header(take(input, input.len()));
            return Ok(None);
        };
        let message_len = self
            .partial
            .as_ref()
            .and_then(|partial| partial.message_len());
        header.admit(message_len, message_bytes_max)?;
        let header_len = usize::from(header.header_len);
        if header.payload_len > (input.len() - header_len) as u64 {
            take(input, header_len);
            self.partial_mut().begin(header);
            return Ok(None);
        }
        take(input, header_len);
        let payload = take(input, header.payload_len as usize);
        if header.is_deflated && header.fin {
            unmask(payload, header.mask);
            return inflated_event(header.opcode, payload, inflater).map(Some);
        }
        match header.opcode {
            Opcode::Text if header.fin => {
                if !unmask(payload, header.mask) && simdutf8::basic::from_utf8(payload).is_err() {
                    return Err(WebSocketError::InvalidUtf8);
                }
                Ok(Some(Event::Text(Payload::Borrowed(payload))))
            }
            Opcode::Binary if header.fin => {
                unmask(payload, header.mask);
                Ok(Some(Event::Binary(Payload::Borrowed(payload))))
            }
            Opcode::Close | Opcode::Ping | Opcode::Pong => {
                unmask(payload, header.mask);
                control_event(header.opcode, Payload::Borrowed(payload)).map(Some)
            }
            Opcode::Text | Opcode::Binary | Opcode::Continuation => {
                self.take_fragment(header, payload, message_bytes_max, inflater)
            }
        }
    }

    /// A whole frame that is not a whole message.
    #[cold]
    fn take_fragment<'a>(
        &mut self,
        header: FrameHead,
        masked: &[u8],
        message_bytes_max: usize,
        inflater: Option<&mut Inflater>,
    ) -> Result<Option<Event<'a>>, WebSocketError> {
        let partial = self.partial_mut();
        partial.begin(header);
        let event = partial.receive(header, 0, masked, message_bytes_max, inflater)?;
        if partial.is_empty() {
            self.partial = None;
        }
        Ok(event)
    }

    #[cold]
    fn partial_mut(&mut self) -> &mut Partial {
        self.partial.get_or_insert_default()
    }
}

/// The event of a compressed message that is one frame.
#[cold]
fn inflated_event<'a>(
    opcode: Opcode,
    payload: &[u8],
    inflater: Option<&mut Inflater>,
) -> Result<Event<'a>, WebSocketError> {
    let is_text = opcode == Opcode::Text;
    let message = Payload::Owned(inflated(payload, is_text, inflater)?);
    Ok(if is_text {
        Event::Text(message)
    } else {
        Event::Binary(message)
    })
}

/// The event of a whole control frame.
#[inline]
fn control_event(opcode: Opcode, payload: Payload<'_>) -> Result<Event<'_>, WebSocketError> {
    match opcode {
        Opcode::Ping => Ok(Event::Ping(payload)),
        Opcode::Pong => Ok(Event::Pong),
        Opcode::Close => Ok(Event::Close(close::decode(payload)?)),
        Opcode::Continuation | Opcode::Text | Opcode::Binary => {
            unreachable!("a data frame is no control frame")
        }
    }
}

/// Moves the front of `input` past `count` bytes and gives them out.
#[inline]
fn take<'a>(input: &mut &'a mut [u8], count: usize) -> &'a mut [u8] {
    let (taken, rest) = mem::take(input).split_at_mut(count);
    *input = rest;
    taken
}

/// What is unfinished: a frame, a message of several frames, or both.
#[derive(Debug, Default)]
struct Partial {
    frame: Unfinished,
    /// The data of the message in progress, the unfinished data frame's included.
    message: Option<PartialMessage>,
    /// The unmasked payload of an unfinished control frame.
    control: Vec<u8>,
}

/// The frame that has begun and not ended.
#[derive(Debug, Default)]
enum Unfinished {
    /// The next byte begins a frame.
    #[default]
    Nothing,
    /// `bytes[..len]` is the beginning of a header.
    FrameHead {
        bytes: [u8; CLIENT_HEADER_BYTES_MAX],
        len: u8,
    },
    /// `received` bytes of the payload are in `message` or `control`. received < header.payload_len, except while a frame ends.
    Payload { header: FrameHead, received: u64 },
}

impl Partial {
    fn is_inside_frame(&self) -> bool {
        !matches!(self.frame, Unfinished::Nothing)
    }

    fn is_empty(&self) -> bool {
        !self.is_inside_frame() && self.message.is_none()
    }

    #[cold]
    fn held_bytes(&self) -> usize {
        let message = self.message.as_ref().map_or(0, PartialMessage::held_bytes);
        size_of::<Self>() + message + self.control.capacity()
    }

    fn message_len(&self) -> Option<usize> {
        self.message.as_ref().map(PartialMessage::len)
    }

    fn keep_header(&mut self, front: &[u8]) {
        let mut bytes = [0; CLIENT_HEADER_BYTES_MAX];
        bytes[..front.len()].copy_from_slice(front);
        self.frame = Unfinished::FrameHead {
            bytes,
            len: front.len() as u8,
        };
    }

    /// Enters the payload of an admitted frame.
    fn begin(&mut self, header: FrameHead) {
        match header.opcode {
            Opcode::Text | Opcode::Binary => {
                let is_text = header.opcode == Opcode::Text;
                self.message = Some(PartialMessage::new(is_text, header.is_deflated));
            }
            Opcode::Continuation => {}
            Opcode::Close | Opcode::Ping | Opcode::Pong => {
                self.control = Vec::with_capacity(header.payload_len as usize)
            }
        }
        self.frame = Unfinished::Payload {
            header,
            received: 0,
        };
    }

    /// Reads on inside a frame.
    #[cold]
    fn resume<'a>(
        &mut self,
        input: &mut &'a mut [u8],
        message_bytes_max: usize,
        inflater: Option<&mut Inflater>,
    ) -> Result<Option<Event<'a>>, WebSocketError> {
        let (header, received) = match &mut self.frame {
            Unfinished::Nothing => return Ok(None),
            Unfinished::Payload { header, received } => (*header, *received),
            Unfinished::FrameHead { bytes, len } => {
                let had = usize::from(*len);
                let has = CLIENT_HEADER_BYTES_MAX.min(had + input.len());
                bytes[had..has].copy_from_slice(&input[..has - had]);
                let Some(header) = FrameHead::decode(&bytes[..has], inflater.is_some())? else {
                    *len = has as u8;
                    take(input, has - had);
                    return Ok(None);
                };
                header.admit(self.message_len(), message_bytes_max)?;
                take(input, usize::from(header.header_len) - had);
                self.begin(header);
                (header, 0)
            }
        };
        let missing = header.payload_len - received;
        let count =
            usize::try_from(missing).map_or(input.len(), |missing| missing.min(input.len()));
        let masked = take(input, count);
        self.receive(header, received, masked, message_bytes_max, inflater)
    }

    /// Takes the next bytes of the frame's payload; gives the event they complete.
    fn receive<'a>(
        &mut self,
        header: FrameHead,
        received: u64,
        masked: &[u8],
        message_bytes_max: usize,
        inflater: Option<&mut Inflater>,
    ) -> Result<Option<Event<'a>>, WebSocketError> {
        let mask = mask_at(header.mask, received);
        let missing = header.payload_len - received;
        if header.opcode.is_control() {
            let from = self.control.len();
            self.control.extend_from_slice(masked);
            unmask(&mut self.control[from..], mask);
        } else if let Some(message) = &mut self.message {
            // The last frame's end is the message's end; before it the message may grow to its limit.
            let len_max = if header.fin {
                message.len() + missing as usize
            } else {
                message_bytes_max
            };
            message.push(masked, mask, len_max)?;
        }
        if (masked.len() as u64) < missing {
            self.frame = Unfinished::Payload {
                header,
                received: received + masked.len() as u64,
            };
            return Ok(None);
        }
        self.frame = Unfinished::Nothing;
        if header.opcode.is_control() {
            return control_event(header.opcode, Payload::Owned(mem::take(&mut self.control)))
                .map(Some);
        }
        match self.message.take_if(|_| header.fin) {
            None => Ok(None),
            Some(message) => {
                let is_text = message.is_text();
                let payload = Payload::Owned(message.finish(inflater)?);
                Ok(Some(if is_text {
                    Event::Text(payload)
                } else {
                    Event::Binary(payload)
                }))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::io::{self, Read, Write};

    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::Index;
    use tungstenite::Message as PeerMessage;
    use tungstenite::protocol::Role;
    use tungstenite::protocol::frame::coding::{Control, Data, OpCode};
    use tungstenite::protocol::frame::{CloseFrame, Frame, FrameHeader};

    use super::*;

    const LIMIT: usize = 1 << 20;
    const MASK: [u8; 4] = [0x37, 0xFA, 0x21, 0x3D];
    const TEXT: OpCode = OpCode::Data(Data::Text);
    const BINARY: OpCode = OpCode::Data(Data::Binary);
    const CONTINUATION: OpCode = OpCode::Data(Data::Continue);
    const PING: OpCode = OpCode::Control(Control::Ping);
    const PONG: OpCode = OpCode::Control(Control::Pong);
    const CLOSE: OpCode = OpCode::Control(Control::Close);

    /// An event that outlives its input.
    #[derive(Clone, Debug, PartialEq)]
    enum Seen {
        Text(Vec<u8>),
        Binary(Vec<u8>),
        Ping(Vec<u8>),
        Pong,
        Close(Option<(u16, String)>),
    }

    fn seen(event: Event<'_>) -> Seen {
        match event {
            Event::Text(payload) => Seen::Text(payload.to_vec()),
            Event::Binary(payload) => Seen::Binary(payload.to_vec()),
            Event::Ping(payload) => Seen::Ping(payload.to_vec()),
            Event::Pong => Seen::Pong,
            Event::Close(reason) => {
                Seen::Close(reason.map(|(code, text)| (code, text.into_owned())))
            }
        }
    }

    /// Feeds `pieces` one after the other. No memory beyond `max` may be held at any time.
    fn decode_pieces<'a>(
        pieces: impl IntoIterator<Item = &'a [u8]>,
        max: usize,
    ) -> (Vec<Seen>, Result<Decoder, WebSocketError>) {
        let mut decoder = Decoder::default();
        let mut events = Vec::new();
        for piece in pieces {
            let mut piece = piece.to_vec();
            let mut input = &mut piece[..];
            loop {
                match decoder.next(&mut input, max) {
                    Ok(Some(event)) => events.push(seen(event)),
                    Ok(None) => break,
                    Err(error) => return (events, Err(error)),
                }
                assert_bounded(&decoder, max);
            }
            assert!(input.is_empty(), "everything was read");
            assert_bounded(&decoder, max);
        }
        (events, Ok(decoder))
    }

    fn assert_bounded(decoder: &Decoder, max: usize) {
        if let Some(partial) = &decoder.partial {
            assert!(partial.message.as_ref().map_or(0, PartialMessage::capacity) <= max);
            assert!(partial.control.capacity() <= CONTROL_PAYLOAD_BYTES_MAX);
            assert!(!partial.is_empty(), "memory is held for nothing");
        }
    }

    fn decode(bytes: &[u8]) -> (Vec<Seen>, Option<WebSocketError>) {
        let (events, end) = decode_pieces([bytes], LIMIT);
        let (bytewise, bytewise_end) = decode_pieces(bytes.chunks(1), LIMIT);
        assert_eq!(events, bytewise);
        assert_eq!(end.as_ref().err(), bytewise_end.as_ref().err());
        (events, end.err())
    }

    fn split_at<'a>(bytes: &'a [u8], cuts: &[Index]) -> Vec<&'a [u8]> {
        let mut places: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
        places.sort_unstable();
        let mut pieces = Vec::new();
        let mut from = 0;
        for place in places {
            pieces.push(&bytes[from..place]);
            from = place;
        }
        pieces.push(&bytes[from..]);
        pieces
    }

    /// A client's frame, written by the peer.
    fn frame(opcode: OpCode, fin: bool, payload: impl Into<Vec<u8>>) -> Vec<u8> {
        edited_frame(opcode, fin, payload, |_| {})
    }

    fn edited_frame(
        opcode: OpCode,
        fin: bool,
        payload: impl Into<Vec<u8>>,
        edit: impl FnOnce(&mut FrameHeader),
    ) -> Vec<u8> {
        let mut header = FrameHeader {
            is_final: fin,
            opcode,
            mask: Some(MASK),
            ..FrameHeader::default()
        };
        edit(&mut header);
        let mut bytes = Vec::new();
        Frame::from_payload(header, payload.into().into())
            .format(&mut bytes)
            .unwrap();
        bytes
    }

    /// The server's end of a wire whose other end is tungstenite.
    #[derive(Default)]
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

    fn peer() -> tungstenite::WebSocket<Wire> {
        tungstenite::WebSocket::from_raw_socket(Wire::default(), Role::Client, None)
    }

    #[test]
    fn whole_frame_is_handed_out_where_it_lies() {
        for (opcode, payload) in [(TEXT, "grün"), (BINARY, "abc"), (PING, "now")] {
            let mut bytes = frame(opcode, true, payload);
            let range = bytes.as_ptr_range();
            let mut decoder = Decoder::default();
            let mut input = &mut bytes[..];
            match decoder.next(&mut input, LIMIT).unwrap().unwrap() {
                Event::Text(Payload::Borrowed(found))
                | Event::Binary(Payload::Borrowed(found))
                | Event::Ping(Payload::Borrowed(found)) => {
                    assert_eq!(found, payload.as_bytes());
                    assert!(range.contains(&found.as_ptr()));
                }
                other => panic!("{other:?}"),
            }
            assert!(input.is_empty() && decoder.partial.is_none());
        }
    }

    #[test]
    fn messages_of_the_peer_arrive_as_they_were_sent() {
        let mut peer = peer();
        let mut expected = Vec::new();
        for len in [0, 1, 125, 126, 127, 1000, 65_535, 65_536, 200_000] {
            let text: String = "aé漢🦀".chars().cycle().take(len / 2).collect();
            peer.write(PeerMessage::text(text.clone())).unwrap();
            expected.push(Seen::Text(text.into_bytes()));
            let binary: Vec<u8> = (0..len).map(|i| i as u8).collect();
            peer.write(PeerMessage::binary(binary.clone())).unwrap();
            expected.push(Seen::Binary(binary));
        }
        peer.write(PeerMessage::Ping("are you there".into()))
            .unwrap();
        expected.push(Seen::Ping("are you there".into()));
        peer.write(PeerMessage::Pong("yes".into())).unwrap();
        expected.push(Seen::Pong);
        peer.close(Some(CloseFrame {
            code: CloseCode::Library(4321),
            reason: "bye".into(),
        }))
        .unwrap();
        expected.push(Seen::Close(Some((4321, "bye".into()))));
        peer.flush().unwrap();
        let bytes = &peer.get_ref().to_server;
        for size in [bytes.len(), 16_384, 4096, 1460, 7] {
            let (events, end) = decode_pieces(bytes.chunks(size), LIMIT);
            assert_eq!(events, expected);
            assert!(end.unwrap().partial.is_none());
        }
    }

    #[test]
    fn frames_of_the_server_are_read_by_the_peer() {
        let mut peer = peer();
        let lens = [0, 1, 125, 126, 127, 65_535, 65_536, 100_000];
        let mut out = Vec::new();
        for len in lens {
            encode_frame_header(&mut out, Opcode::Text, len);
            out.resize(out.len() + len, b'x');
            out.extend_from_slice(&ServerHeader::new(Opcode::Binary, len));
            out.resize(out.len() + len, 0xFF);
        }
        encode_frame_header(&mut out, Opcode::Ping, 4);
        out.extend_from_slice(b"ping");
        encode_close(&mut out, 3001, &"é".repeat(100));
        peer.get_mut().to_client.extend(out);
        for len in lens {
            assert_eq!(peer.read().unwrap(), PeerMessage::text("x".repeat(len)));
            assert_eq!(peer.read().unwrap(), PeerMessage::binary(vec![0xFF; len]));
        }
        assert_eq!(peer.read().unwrap(), PeerMessage::Ping("ping".into()));
        let close = CloseFrame {
            code: CloseCode::Iana(3001),
            reason: "é".repeat(61).into(),
        };
        assert_eq!(peer.read().unwrap(), PeerMessage::Close(Some(close)));
    }

    #[test]
    fn control_frames_come_through_between_fragments() {
        let bytes = [
            frame(TEXT, false, "Hel"),
            frame(PING, true, "1"),
            frame(CONTINUATION, false, ""),
            frame(PONG, true, ""),
            frame(CONTINUATION, true, "lo"),
            frame(BINARY, false, ""),
            frame(CONTINUATION, true, ""),
        ]
        .concat();
        let expected = vec![
            Seen::Ping("1".into()),
            Seen::Pong,
            Seen::Text("Hello".into()),
            Seen::Binary(Vec::new()),
        ];
        assert_eq!(decode(&bytes), (expected, None));
    }

    #[test]
    fn frame_out_of_place_is_a_protocol_error() {
        for bytes in [
            frame(CONTINUATION, true, "a"),
            frame(CONTINUATION, false, "a"),
            [frame(TEXT, false, "a"), frame(TEXT, true, "b")].concat(),
            [frame(BINARY, false, "a"), frame(TEXT, false, "b")].concat(),
            [
                frame(TEXT, false, "a"),
                frame(CONTINUATION, true, "b"),
                frame(CONTINUATION, true, "c"),
            ]
            .concat(),
        ] {
            assert_eq!(
                decode(&bytes).1,
                Some(WebSocketError::Protocol),
                "{bytes:?}"
            );
        }
    }

    #[test]
    fn frame_that_the_rfc_forbids_is_a_protocol_error() {
        let mut forbidden = vec![
            edited_frame(TEXT, true, "a", |header| header.mask = None),
            edited_frame(TEXT, true, "a", |header| header.rsv1 = true),
            edited_frame(BINARY, true, "a", |header| header.rsv2 = true),
            edited_frame(PING, true, "a", |header| header.rsv3 = true),
            frame(PING, false, "a"),
            frame(PONG, false, "a"),
            frame(CLOSE, false, ""),
            frame(PING, true, vec![0; 126]),
            frame(CLOSE, true, "x"),
            // Lengths that a shorter form could have said, and a length with the top bit.
            vec![0x82, 0xFE, 0, 125, 0, 0, 0, 0],
            vec![0x82, 0xFF, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF, 0, 0, 0, 0],
            vec![0x82, 0xFF, 0x80, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0],
            vec![0x89, 0xFE, 0, 126, 0, 0, 0, 0],
        ];
        forbidden
            .extend((3..8).map(|reserved| frame(OpCode::Data(Data::Reserved(reserved)), true, "")));
        forbidden.extend(
            (11..16).map(|reserved| frame(OpCode::Control(Control::Reserved(reserved)), true, "")),
        );
        for bytes in forbidden {
            assert_eq!(
                decode(&bytes),
                (vec![], Some(WebSocketError::Protocol)),
                "{bytes:?}"
            );
        }
    }

    #[test]
    fn close_codes_are_those_of_the_registry() {
        for code in 0..=u16::MAX {
            let allowed = matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999);
            let (events, end) = decode_pieces([&frame(CLOSE, true, code.to_be_bytes())[..]], LIMIT);
            if allowed {
                assert_eq!(events, [Seen::Close(Some((code, String::new())))]);
            } else {
                assert_eq!(end.err(), Some(WebSocketError::Protocol), "{code}");
            }
        }
    }

    #[test]
    fn close_frame_gives_code_and_reason() {
        assert_eq!(
            decode(&frame(CLOSE, true, "")),
            (vec![Seen::Close(None)], None)
        );
        let payload = [&1001_u16.to_be_bytes()[..], "tschüß".as_bytes()].concat();
        assert_eq!(
            decode(&frame(CLOSE, true, payload)),
            (vec![Seen::Close(Some((1001, "tschüß".into())))], None)
        );
        assert_eq!(
            decode(&frame(CLOSE, true, b"\x03\xE8\xFF".to_vec())),
            (vec![], Some(WebSocketError::InvalidUtf8))
        );
    }

    #[test]
    fn text_that_is_not_utf8_is_refused_at_the_byte_that_makes_it_so() {
        // After these many bytes no continuation is UTF-8: stray, overlong, surrogate, beyond U+10FFFF, interrupted.
        let invalid: [(&[u8], usize); 6] = [
            (b"ab\x80", 3),
            (b"\xC0\xAF", 1),
            (b"\xE0\x80\x80", 2),
            (b"a\xED\xA0\x80", 3),
            (b"\xF4\x90\x80\x80", 2),
            (b"\xE6\xBCx", 3),
        ];
        for (text, fatal) in invalid {
            assert_eq!(
                decode(&frame(TEXT, true, text)).1,
                Some(WebSocketError::InvalidUtf8)
            );
            let long = [text, &[b'a'; 200]].concat();
            assert_eq!(
                decode(&frame(TEXT, true, long.clone())).1,
                Some(WebSocketError::InvalidUtf8)
            );
            // Byte by byte, in a frame that is not complete and is not the last.
            let bytes = frame(TEXT, false, long);
            let header_len = bytes.len() - text.len() - 200;
            let until = |len: usize| {
                decode_pieces(bytes[..header_len + len].chunks(1), LIMIT)
                    .1
                    .err()
            };
            assert_eq!(until(fatal - 1), None, "{text:?}");
            assert_eq!(until(fatal), Some(WebSocketError::InvalidUtf8), "{text:?}");
        }
    }

    #[test]
    fn character_may_be_cut_by_fragments_but_not_by_the_message() {
        let crab = "🦀".as_bytes();
        let bytes = [
            frame(TEXT, false, &crab[..1]),
            frame(PING, true, ""),
            frame(CONTINUATION, false, &crab[1..3]),
            frame(CONTINUATION, true, &crab[3..]),
        ];
        assert_eq!(
            decode(&bytes.concat()),
            (
                vec![Seen::Ping(Vec::new()), Seen::Text(crab.to_vec())],
                None
            )
        );
        assert_eq!(
            decode(&frame(TEXT, true, &crab[..3])).1,
            Some(WebSocketError::InvalidUtf8)
        );
        let bytes = [
            frame(TEXT, false, crab),
            frame(CONTINUATION, true, &crab[..2]),
        ]
        .concat();
        assert_eq!(decode(&bytes).1, Some(WebSocketError::InvalidUtf8));
        assert_eq!(decode(&frame(BINARY, true, &crab[..3])).1, None);
    }

    #[test]
    fn message_at_the_limit_passes_and_one_byte_more_is_refused_from_the_header() {
        let max = 1000;
        let fits = frame(BINARY, true, vec![1; max]);
        assert_eq!(
            decode_pieces([&fits[..]], max).0,
            [Seen::Binary(vec![1; max])]
        );
        let over = frame(BINARY, true, vec![1; max + 1]);
        assert_eq!(
            decode_pieces([&over[..8]], max).1.err(),
            Some(WebSocketError::TooLarge)
        );
        let fragments = [
            frame(TEXT, false, vec![b'a'; 400]),
            frame(CONTINUATION, false, vec![b'a'; 600]),
        ]
        .concat();
        assert!(decode_pieces(fragments.chunks(10), max).1.is_ok());
        let fragments = [fragments, frame(CONTINUATION, false, "")].concat();
        assert!(decode_pieces([&fragments[..]], max).1.is_ok());
        let fragments = [fragments, frame(CONTINUATION, true, "b")].concat();
        let header_end = fragments.len() - 1;
        assert_eq!(
            decode_pieces([&fragments[..header_end]], max).1.err(),
            Some(WebSocketError::TooLarge)
        );
    }

    #[test]
    fn memory_follows_the_bytes_received_not_the_length_announced() {
        let max = 16 << 20;
        let bytes = frame(BINARY, true, vec![7; max]);
        let decoder = decode_pieces([&bytes[..1000]], max).1.unwrap();
        assert!(decoder.partial.unwrap().message.unwrap().capacity() <= 1000);
    }

    #[test]
    fn each_error_has_its_close_code() {
        let errors = [
            WebSocketError::Protocol,
            WebSocketError::InvalidUtf8,
            WebSocketError::TooLarge,
        ];
        assert_eq!(errors.map(WebSocketError::close_code), [1002, 1007, 1009]);
    }

    /// A message in fragments with control frames between: its frames, and the events they mean.
    fn message() -> impl Strategy<Value = (Vec<u8>, Vec<Seen>)> {
        let text = prop_oneof![4 => ".{0,80}", 1 => ".{200,400}", 1 => "[a-zé🦀]{20000,30000}"]
            .prop_map(|text| (TEXT, text.into_bytes()));
        let binary =
            prop_oneof![4 => vec(any::<u8>(), 0..300), 1 => vec(any::<u8>(), 65_530..65_550)]
                .prop_map(|bytes| (BINARY, bytes));
        let control = prop_oneof![
            Just((PONG, Vec::new())),
            vec(any::<u8>(), 0..=125).prop_map(|payload| (PING, payload))
        ];
        (
            prop_oneof![text, binary],
            vec((any::<Index>(), control), 0..4),
        )
            .prop_map(|((opcode, payload), mut cuts)| {
                cuts.sort_by_key(|(cut, _)| cut.index(payload.len() + 1));
                let (mut bytes, mut events, mut from, mut next) =
                    (Vec::new(), Vec::new(), 0, opcode);
                for (cut, (control, control_payload)) in cuts {
                    let to = cut.index(payload.len() + 1);
                    bytes.extend(frame(next, false, &payload[from..to]));
                    bytes.extend(frame(control, true, control_payload.clone()));
                    events.push(if control == PING {
                        Seen::Ping(control_payload)
                    } else {
                        Seen::Pong
                    });
                    (from, next) = (to, CONTINUATION);
                }
                bytes.extend(frame(next, true, &payload[from..]));
                events.push(if opcode == TEXT {
                    Seen::Text(payload)
                } else {
                    Seen::Binary(payload)
                });
                (bytes, events)
            })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn events_are_the_same_in_whatever_split_the_bytes_arrive(messages in vec(message(), 1..6), cuts in vec(any::<Index>(), 0..20)) {
            let (bytes, events): (Vec<_>, Vec<_>) = messages.into_iter().unzip();
            let (bytes, events) = (bytes.concat(), events.concat());
            let whole = decode_pieces([&bytes[..]], LIMIT);
            prop_assert_eq!(&whole.0, &events);
            prop_assert!(whole.1.unwrap().partial.is_none());
            let pieces = decode_pieces(split_at(&bytes, &cuts), LIMIT);
            prop_assert_eq!(&pieces.0, &events);
            prop_assert!(pieces.1.unwrap().partial.is_none());
        }

        #[test]
        fn short_sequences_survive_arrival_byte_by_byte(messages in vec(message(), 1..3)) {
            let (bytes, events): (Vec<_>, Vec<_>) = messages.into_iter().unzip();
            let (seen, end) = decode(&bytes.concat());
            prop_assert_eq!(seen, events.concat());
            prop_assert_eq!(end, None);
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_stay_within_the_limit_and_mean_the_same_in_any_split(
            bytes in vec(prop_oneof![any::<u8>(), Just(0x81), Just(0x01), Just(0x00), Just(0x80), Just(0x89)], 0..400),
            cuts in vec(any::<Index>(), 0..20),
            max in 0_usize..300,
        ) {
            let whole = decode_pieces([&bytes[..]], max);
            let pieces = decode_pieces(split_at(&bytes, &cuts), max);
            prop_assert_eq!(whole.0, pieces.0);
            prop_assert_eq!(whole.1.err(), pieces.1.err());
        }

        #[test]
        fn damaged_frames_mean_the_same_in_any_split(
            messages in vec(message().prop_filter("short", |(bytes, _)| bytes.len() < 2000), 1..4),
            damage in vec((any::<Index>(), any::<u8>()), 1..4),
            cuts in vec(any::<Index>(), 0..20),
        ) {
            let mut bytes: Vec<u8> = messages.into_iter().flat_map(|(bytes, _)| bytes).collect();
            for (at, value) in damage {
                let at = at.index(bytes.len());
                bytes[at] = value;
            }
            let whole = decode_pieces([&bytes[..]], 1000);
            let pieces = decode_pieces(split_at(&bytes, &cuts), 1000);
            prop_assert_eq!(whole.0, pieces.0);
            prop_assert_eq!(whole.1.err(), pieces.1.err());
        }
    }
}
