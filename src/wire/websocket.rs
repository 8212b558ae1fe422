//! The server's side of RFC 6455: a client's bytes to events, and the frames a server sends.
//!
//! A frame that lies whole in the received bytes, which is nearly every frame, is unmasked where it lies and handed out borrowed. Only what a receive cuts in two,
//! and messages of several fragments, take memory, and give it back with the message's end.

mod close;
mod header;
mod mask;
mod message;

use std::borrow::Cow;
use std::mem;
use std::ops::Deref;

use tungstenite::protocol::frame::coding::CloseCode;

pub use close::encode_close;
use header::{CLIENT_HEADER_BYTES_MAX, Header};
pub use header::{CONTROL_PAYLOAD_BYTES_MAX, Opcode, SERVER_HEADER_BYTES_MAX, ServerHeader, encode_frame_header};
use mask::{mask_at, unmask};
use message::Message;

/// Reads one connection's frames. Holds nothing but a null pointer while no frame and no message is unfinished.
///
/// After an error the stream has no meaning any more: close the connection with [`WebSocketError::close_code`] and feed nothing further.
#[derive(Debug, Default)]
pub struct Decoder {
    partial: Option<Box<Partial>>,
}

const _: () = assert!(size_of::<Decoder>() == 8, "an idle connection pays for this state");

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
    /// A message beyond the limit, known from its headers.
    #[error("message too large")]
    TooLarge,
}

impl WebSocketError {
    /// The code of the close frame that answers it: 1002, 1007 or 1009.
    pub fn close_code(self) -> u16 {
        let code = match self {
            Self::Protocol => CloseCode::Protocol,
            Self::InvalidUtf8 => CloseCode::Invalid,
            Self::TooLarge => CloseCode::Size,
        };
        code.into()
    }
}

impl Decoder {
    /// Takes the next event out of `input`, whose front moves past what was read. `Ok(None)`: all of `input` was read, and what is unfinished is kept for the next call.
    ///
    /// `message_bytes_max` bounds a message, in all its fragments together; it is checked as soon as a header is there and before memory is taken.
    #[inline]
    pub fn next<'a>(&mut self, input: &mut &'a mut [u8], message_bytes_max: usize) -> Result<Option<Event<'a>>, WebSocketError> {
        while !input.is_empty() {
            let event = match &mut self.partial {
                Some(partial) if partial.is_inside_frame() => {
                    let event = partial.resume(input, message_bytes_max)?;
                    if partial.is_empty() {
                        self.partial = None;
                    }
                    event
                }
                _ => self.take_frame(input, message_bytes_max)?,
            };
            if event.is_some() {
                return Ok(event);
            }
        }
        Ok(None)
    }

    /// Reads a frame from its first byte. Takes at least one byte of `input`, which is not empty.
    #[inline]
    fn take_frame<'a>(&mut self, input: &mut &'a mut [u8], message_bytes_max: usize) -> Result<Option<Event<'a>>, WebSocketError> {
        let Some(header) = Header::decode(input)? else {
            self.partial_mut().keep_header(take(input, input.len()));
            return Ok(None);
        };
        let message_len = self.partial.as_ref().and_then(|partial| partial.message_len());
        header.admit(message_len, message_bytes_max)?;
        let header_len = usize::from(header.header_len);
        if header.payload_len > (input.len() - header_len) as u64 {
            take(input, header_len);
            self.partial_mut().begin(header);
            return Ok(None);
        }
        take(input, header_len);
        let payload = take(input, header.payload_len as usize);
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
            Opcode::Text | Opcode::Binary | Opcode::Continuation => self.take_fragment(header, payload, message_bytes_max),
        }
    }

    /// A whole frame that is not a whole message.
    fn take_fragment<'a>(&mut self, header: Header, masked: &[u8], message_bytes_max: usize) -> Result<Option<Event<'a>>, WebSocketError> {
        let partial = self.partial_mut();
        partial.begin(header);
        let event = partial.receive(header, 0, masked, message_bytes_max)?;
        if partial.is_empty() {
            self.partial = None;
        }
        Ok(event)
    }

    fn partial_mut(&mut self) -> &mut Partial {
        self.partial.get_or_insert_default()
    }
}

/// The event of a whole control frame.
#[inline]
fn control_event(opcode: Opcode, payload: Payload<'_>) -> Result<Event<'_>, WebSocketError> {
    match opcode {
        Opcode::Ping => Ok(Event::Ping(payload)),
        Opcode::Pong => Ok(Event::Pong),
        Opcode::Close => Ok(Event::Close(close::decode(payload)?)),
        Opcode::Continuation | Opcode::Text | Opcode::Binary => unreachable!("a data frame is no control frame"),
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
    message: Option<Message>,
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
    Header { bytes: [u8; CLIENT_HEADER_BYTES_MAX], len: u8 },
    /// `received` bytes of the payload are in `message` or `control`. received < header.payload_len, except while a frame ends.
    Payload { header: Header, received: u64 },
}

impl Partial {
    fn is_inside_frame(&self) -> bool {
        !matches!(self.frame, Unfinished::Nothing)
    }

    fn is_empty(&self) -> bool {
        !self.is_inside_frame() && self.message.is_none()
    }

    fn message_len(&self) -> Option<usize> {
        self.message.as_ref().map(Message::len)
    }

    fn keep_header(&mut self, front: &[u8]) {
        let mut bytes = [0; CLIENT_HEADER_BYTES_MAX];
        bytes[..front.len()].copy_from_slice(front);
        self.frame = Unfinished::Header { bytes, len: front.len() as u8 };
    }

    /// Enters the payload of an admitted frame.
    fn begin(&mut self, header: Header) {
        match header.opcode {
            Opcode::Text => self.message = Some(Message::new(true)),
            Opcode::Binary => self.message = Some(Message::new(false)),
            Opcode::Continuation => {}
            Opcode::Close | Opcode::Ping | Opcode::Pong => self.control = Vec::with_capacity(header.payload_len as usize),
        }
        self.frame = Unfinished::Payload { header, received: 0 };
    }

    /// Reads on inside a frame.
    fn resume<'a>(&mut self, input: &mut &'a mut [u8], message_bytes_max: usize) -> Result<Option<Event<'a>>, WebSocketError> {
        let (header, received) = match &mut self.frame {
            Unfinished::Nothing => return Ok(None),
            Unfinished::Payload { header, received } => (*header, *received),
            Unfinished::Header { bytes, len } => {
                let had = usize::from(*len);
                let has = CLIENT_HEADER_BYTES_MAX.min(had + input.len());
                bytes[had..has].copy_from_slice(&input[..has - had]);
                let Some(header) = Header::decode(&bytes[..has])? else {
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
        let count = usize::try_from(missing).map_or(input.len(), |missing| missing.min(input.len()));
        self.receive(header, received, take(input, count), message_bytes_max)
    }

    /// Takes the next bytes of the frame's payload; gives the event they complete.
    fn receive<'a>(&mut self, header: Header, received: u64, masked: &[u8], message_bytes_max: usize) -> Result<Option<Event<'a>>, WebSocketError> {
        let mask = mask_at(header.mask, received);
        let missing = header.payload_len - received;
        if header.opcode.is_control() {
            let from = self.control.len();
            self.control.extend_from_slice(masked);
            unmask(&mut self.control[from..], mask);
        } else if let Some(message) = &mut self.message {
            // The last frame's end is the message's end; before it the message may grow to its limit.
            let len_max = if header.fin { message.len() + missing as usize } else { message_bytes_max };
            message.push(masked, mask, len_max)?;
        }
        if (masked.len() as u64) < missing {
            self.frame = Unfinished::Payload { header, received: received + masked.len() as u64 };
            return Ok(None);
        }
        self.frame = Unfinished::Nothing;
        if header.opcode.is_control() {
            return control_event(header.opcode, Payload::Owned(mem::take(&mut self.control))).map(Some);
        }
        match self.message.take_if(|_| header.fin) {
            None => Ok(None),
            Some(message) if message.is_text() => Ok(Some(Event::Text(Payload::Owned(message.finish()?)))),
            Some(message) => Ok(Some(Event::Binary(Payload::Owned(message.finish()?)))),
        }
    }
}


