//! Frame headers of RFC 6455 §5.2: those a client sends, and those a server sends.

use std::ops::Deref;

use super::WebSocketError;

/// Bytes of the longest header a client sends: two, eight of length, four of mask.
pub(super) const CLIENT_HEADER_BYTES_MAX: usize = 14;
/// Bytes of the longest header a server sends.
pub const SERVER_HEADER_BYTES_MAX: usize = 10;
/// Bytes of a control frame's payload (RFC 6455 §5.5).
pub const CONTROL_PAYLOAD_BYTES_MAX: usize = 125;

const FIN: u8 = 0x80;
const RESERVED_BITS: u8 = 0x70;
/// The first frame of a compressed message carries it (RFC 7692 §6).
const RSV1: u8 = 0x40;
const MASKED: u8 = 0x80;
const LENGTH_IN_16_BITS: u8 = 126;
const LENGTH_IN_64_BITS: u8 = 127;

/// The opcodes of RFC 6455 §11.8; every other value is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Opcode {
    /// A further fragment of the message begun before.
    Continuation = 0x0,
    /// A text message or its first fragment.
    Text = 0x1,
    /// A binary message or its first fragment.
    Binary = 0x2,
    /// The last frame of either side.
    Close = 0x8,
    /// Asks for a pong with the same payload.
    Ping = 0x9,
    /// Answers a ping, or is sent unasked.
    Pong = 0xA,
}

impl Opcode {
    fn parse(bits: u8) -> Result<Self, WebSocketError> {
        match bits {
            0x0 => Ok(Self::Continuation),
            0x1 => Ok(Self::Text),
            0x2 => Ok(Self::Binary),
            0x8 => Ok(Self::Close),
            0x9 => Ok(Self::Ping),
            0xA => Ok(Self::Pong),
            _ => Err(WebSocketError::Protocol),
        }
    }

    pub(super) fn is_control(self) -> bool {
        match self {
            Self::Continuation | Self::Text | Self::Binary => false,
            Self::Close | Self::Ping | Self::Pong => true,
        }
    }
}

/// A client's frame header, whole and legal by itself. Whether it may come now is `FrameHead::admit`'s question.
#[derive(Clone, Copy, Debug)]
pub(super) struct FrameHead {
    /// Below 2^63.
    pub(super) payload_len: u64,
    pub(super) mask: [u8; 4],
    pub(super) opcode: Opcode,
    /// The last frame of its message.
    pub(super) fin: bool,
    /// The first frame of a compressed message.
    pub(super) is_deflated: bool,
    /// Bytes of the header itself. 6 <= header_len <= CLIENT_HEADER_BYTES_MAX.
    pub(super) header_len: u8,
}

impl FrameHead {
    /// `None`: legal so far, but more bytes are needed. Each byte is judged as soon as it is there and in order, so that the verdict does not depend on how the bytes were split.
    ///
    /// `may_deflate`: compression was agreed on. RSV1 is legal then, on a frame that begins a message.
    #[inline]
    pub(super) fn decode(bytes: &[u8], may_deflate: bool) -> Result<Option<Self>, WebSocketError> {
        let Some(&first) = bytes.first() else {
            return Ok(None);
        };
        let fin = first & FIN != 0;
        let opcode = Opcode::parse(first & 0x0F)?;
        let reserved = first & RESERVED_BITS;
        let is_deflated =
            reserved == RSV1 && may_deflate && matches!(opcode, Opcode::Text | Opcode::Binary);
        if (reserved != 0 && !is_deflated) || (opcode.is_control() && !fin) {
            return Err(WebSocketError::Protocol);
        }
        let Some(&second) = bytes.get(1) else {
            return Ok(None);
        };
        let short_len = second & !MASKED;
        if second & MASKED == 0
            || (opcode.is_control() && usize::from(short_len) > CONTROL_PAYLOAD_BYTES_MAX)
        {
            return Err(WebSocketError::Protocol);
        }
        let rest = &bytes[2..];
        let (payload_len, length_bytes) = match short_len {
            LENGTH_IN_16_BITS => match rest.first_chunk() {
                Some(length) => (u64::from(u16::from_be_bytes(*length)), 2),
                None => return Ok(None),
            },
            LENGTH_IN_64_BITS => match rest.first_chunk() {
                Some(length) => (u64::from_be_bytes(*length), 8),
                None => return Ok(None),
            },
            _ => (u64::from(short_len), 0),
        };
        let is_minimal = match length_bytes {
            0 => true,
            2 => payload_len >= u64::from(LENGTH_IN_16_BITS),
            _ => payload_len > u64::from(u16::MAX) && payload_len >> 63 == 0,
        };
        if !is_minimal {
            return Err(WebSocketError::Protocol);
        }
        let Some(mask) = rest[length_bytes..].first_chunk() else {
            return Ok(None);
        };
        let header_len = (2 + length_bytes + mask.len()) as u8;
        Ok(Some(Self {
            payload_len,
            mask: *mask,
            opcode,
            fin,
            is_deflated,
            header_len,
        }))
    }

    /// Whether this frame may come now. `message_len` is what the unfinished message holds so far, `None` when there is none.
    #[inline]
    pub(super) fn admit(
        &self,
        message_len: Option<usize>,
        message_bytes_max: usize,
    ) -> Result<(), WebSocketError> {
        match (self.opcode, message_len) {
            (Opcode::Close | Opcode::Ping | Opcode::Pong, _) => return Ok(()),
            (Opcode::Continuation, None) | (Opcode::Text | Opcode::Binary, Some(_)) => {
                return Err(WebSocketError::Protocol);
            }
            (Opcode::Continuation, Some(_)) | (Opcode::Text | Opcode::Binary, None) => {}
        }
        // No overflow: a length is below 2^63 and a message is in memory.
        if self.payload_len + message_len.unwrap_or(0) as u64 > message_bytes_max as u64 {
            return Err(WebSocketError::TooLarge);
        }
        Ok(())
    }
}

/// The header of an unmasked, unfragmented frame of the server; dereferences to its bytes.
#[derive(Clone, Copy, Debug)]
pub struct ServerHeader {
    bytes: [u8; SERVER_HEADER_BYTES_MAX],
    len: u8,
}

impl ServerHeader {
    /// For a payload of `payload_len` bytes; at most [`CONTROL_PAYLOAD_BYTES_MAX`] for a control frame.
    #[inline]
    pub fn new(opcode: Opcode, payload_len: usize) -> Self {
        Self::with_first(FIN | opcode as u8, opcode, payload_len)
    }

    /// For the compressed payload of a message, which is `payload_len` bytes long.
    pub fn deflated(opcode: Opcode, payload_len: usize) -> Self {
        assert!(!opcode.is_control(), "control frames are never compressed");
        Self::with_first(FIN | RSV1 | opcode as u8, opcode, payload_len)
    }

    /// Bytes of the header at the front of a frame that this program wrote.
    pub(crate) fn len_of(frame: &[u8]) -> usize {
        match frame[1] {
            LENGTH_IN_16_BITS => 4,
            LENGTH_IN_64_BITS => 10,
            _ => 2,
        }
    }

    #[inline]
    fn with_first(first: u8, opcode: Opcode, payload_len: usize) -> Self {
        assert!(
            !opcode.is_control() || payload_len <= CONTROL_PAYLOAD_BYTES_MAX,
            "a control frame is short"
        );
        let mut bytes = [0; SERVER_HEADER_BYTES_MAX];
        bytes[0] = first;
        let len = if payload_len < usize::from(LENGTH_IN_16_BITS) {
            bytes[1] = payload_len as u8;
            2
        } else if let Ok(short) = u16::try_from(payload_len) {
            bytes[1] = LENGTH_IN_16_BITS;
            bytes[2..4].copy_from_slice(&short.to_be_bytes());
            4
        } else {
            bytes[1] = LENGTH_IN_64_BITS;
            bytes[2..].copy_from_slice(&(payload_len as u64).to_be_bytes());
            10
        };
        Self { bytes, len }
    }
}

impl Deref for ServerHeader {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

/// Appends the header of an unmasked frame with FIN set; the caller appends `payload_len` bytes of payload.
#[inline]
pub fn encode_frame_header(out: &mut Vec<u8>, opcode: Opcode, payload_len: usize) {
    out.extend_from_slice(&ServerHeader::new(opcode, payload_len));
}
