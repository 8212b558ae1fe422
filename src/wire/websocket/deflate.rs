//! Compressed messages: `permessage-deflate` (RFC 7692).
//!
//! A message is deflated as a whole and its last four bytes, which are always the same, stay off the wire; the first of its frames
//! carries RSV1. State is allocated by the first message that needs it.

mod negotiation;

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use super::WebSocketError;
pub use negotiation::{Agreement, DeflateTerms, MalformedExtensions, negotiate};

/// What a flush ends with: the length of an empty stored block (RFC 7692 §7.2.1).
const TAIL: [u8; 4] = [0, 0, 0xFF, 0xFF];
/// The tail, and an empty last block: what is at its end behind these two was whole before them.
const TAIL_AND_END: [u8; 6] = [0, 0, 0xFF, 0xFF, 3, 0];
/// The empty message: the first byte of an empty stored block, whose other four are the tail (RFC 7692 §7.2.3.6).
const EMPTY: u8 = 0;
/// Window bits of an endpoint that was not asked for fewer (RFC 7692 §7.1.2).
const WINDOW_BITS_MAX: u8 = 15;
/// The smallest window that zlib's streams have.
const WINDOW_BITS_MIN: u8 = 9;
/// What a message is first given when it is inflated, as a multiple of its compressed size.
const INFLATED_RATIO_USUAL: usize = 4;
/// And at least.
const INFLATED_BYTES_USUAL: usize = 256;

/// The window of a stream whose distances stay within `1 << bits`.
///
/// A window of 256 bytes (8 bits) cannot be had of zlib for raw streams. The next larger one serves: a compressor never looks back
/// further than its window less the longest match and what is looked at ahead, which for 512 bytes are 250; and whoever inflates may
/// always remember more than is referred to.
const fn zlib_bits(bits: u8) -> u8 {
    if bits < WINDOW_BITS_MIN {
        WINDOW_BITS_MIN
    } else {
        bits
    }
}

/// Deflates the messages of one connection, or of many that keep no context.
#[derive(Debug)]
pub struct Deflater {
    state: Option<Compress>,
    level: u32,
    window_bits: u8,
    keeps_context: bool,
}

impl Deflater {
    /// For many connections: every message stands by itself.
    ///
    /// `level` is zlib's: 1 is fast, 9 is small.
    #[must_use]
    pub const fn shared(level: u32) -> Self {
        Self {
            state: None,
            level,
            window_bits: WINDOW_BITS_MAX,
            keeps_context: false,
        }
    }

    /// For one connection, as it was agreed.
    #[must_use]
    pub fn agreed(agreement: &Agreement, level: u32) -> Self {
        Self {
            state: None,
            level,
            window_bits: agreement
                .server_max_window_bits
                .map_or(WINDOW_BITS_MAX, zlib_bits),
            keeps_context: !agreement.server_no_context_takeover,
        }
    }

    /// Appends the payload of a message's only frame.
    ///
    /// With a kept context every message that was deflated must be sent.
    pub fn deflate(&mut self, message: &[u8], out: &mut Vec<u8>) {
        if message.is_empty() {
            // Nothing to flush: zlib would say nothing.
            out.push(EMPTY);
            return;
        }
        let state = match &mut self.state {
            Some(state) => {
                if !self.keeps_context {
                    state.reset();
                }
                state
            }
            None => self.state.insert(Compress::new_with_window_bits(
                Compression::new(self.level),
                false,
                self.window_bits,
            )),
        };
        let from = out.len();
        let mut rest = message;
        // A flush is over when it leaves room.
        while !rest.is_empty() || out.len() == out.capacity() {
            out.reserve(rest.len() / 2 + 64);
            let before = state.total_in();
            let status = state.compress_vec(rest, out, FlushCompress::Sync);
            assert!(
                matches!(status, Ok(Status::Ok | Status::BufError)),
                "a stream that nobody ends goes on"
            );
            rest = &rest[(state.total_in() - before) as usize..];
        }
        assert!(
            out[from..].ends_with(&TAIL),
            "a flushed stream ends with an empty block"
        );
        out.truncate(out.len() - TAIL.len());
    }
}

/// Inflates the messages of one connection, or of many that keep no context.
#[derive(Debug)]
pub struct Inflater {
    state: Option<Decompress>,
    bytes_max: usize,
    window_bits: u8,
    keeps_context: bool,
}

impl Inflater {
    /// For many connections: every message stands by itself.
    ///
    /// A message of more than `bytes_max` inflated bytes is refused; at no time is more memory taken for it.
    #[must_use]
    pub const fn shared(bytes_max: usize) -> Self {
        Self {
            state: None,
            bytes_max,
            window_bits: WINDOW_BITS_MAX,
            keeps_context: false,
        }
    }

    /// For one connection, as it was agreed. `bytes_max` as for [`Inflater::shared`].
    #[must_use]
    pub fn agreed(agreement: &Agreement, bytes_max: usize) -> Self {
        Self {
            state: None,
            bytes_max,
            window_bits: agreement
                .client_max_window_bits
                .map_or(WINDOW_BITS_MAX, zlib_bits),
            keeps_context: !agreement.client_no_context_takeover,
        }
    }

    /// The message whose frames had these payloads.
    pub(super) fn inflate(&mut self, payload: &[u8]) -> Result<Vec<u8>, WebSocketError> {
        if payload.is_empty() {
            return Ok(Vec::new());
        }
        let state = match &mut self.state {
            Some(state) => {
                if !self.keeps_context {
                    state.reset(false);
                }
                state
            }
            None => self
                .state
                .insert(Decompress::new_with_window_bits(false, self.window_bits)),
        };
        let mut inflating = Inflating {
            state,
            out: Vec::new(),
            bytes_max: self.bytes_max,
        };
        let usual = (payload.len() * INFLATED_RATIO_USUAL).max(INFLATED_BYTES_USUAL);
        inflating.out.reserve_exact(usual.min(self.bytes_max));
        if inflating.feed(payload)? == Fed::AtEnd {
            // The client ended its stream with the message (RFC 7692 §7.2.3.4); the next message begins another one.
            inflating.state.reset(false);
            return Ok(inflating.out);
        }
        let len = inflating.out.len();
        let is_whole = if self.keeps_context {
            inflating.feed(&TAIL)? == Fed::Open
        } else {
            inflating.feed(&TAIL_AND_END)? == Fed::AtEnd
        };
        if !is_whole || inflating.out.len() != len {
            return Err(WebSocketError::CorruptDeflate);
        }
        Ok(inflating.out)
    }
}

/// A message on its way out.
struct Inflating<'a> {
    state: &'a mut Decompress,
    out: Vec<u8>,
    bytes_max: usize,
}

/// Where the stream is behind the bytes it was fed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fed {
    /// It goes on.
    Open,
    /// Its last block ended with them.
    AtEnd,
}

impl Inflating<'_> {
    fn feed(&mut self, mut input: &[u8]) -> Result<Fed, WebSocketError> {
        loop {
            let (before_in, before_out) = (self.state.total_in(), self.state.total_out());
            let status = self.step(input)?;
            let taken = (self.state.total_in() - before_in) as usize;
            let is_stuck = taken == 0 && self.state.total_out() == before_out;
            input = &input[taken..];
            match status {
                Status::StreamEnd if input.is_empty() => return Ok(Fed::AtEnd),
                // Behind a last block another stream begins. Each takes a byte of the message at least.
                Status::StreamEnd => self.state.reset(false),
                Status::Ok | Status::BufError if is_stuck && input.is_empty() => {
                    return Ok(Fed::Open);
                }
                Status::Ok | Status::BufError if is_stuck => {
                    return Err(WebSocketError::CorruptDeflate);
                }
                Status::Ok | Status::BufError => {}
            }
        }
    }

    /// Inflates into what room there is, or asks for a byte that there is no room for.
    fn step(&mut self, input: &[u8]) -> Result<Status, WebSocketError> {
        let (len, capacity) = (self.out.len(), self.out.capacity());
        if len == capacity && capacity < self.bytes_max {
            let target = (capacity * 2).clamp(1, self.bytes_max);
            self.out.reserve_exact(target - len);
        }
        let status = if len < self.bytes_max {
            self.state
                .decompress_vec(input, &mut self.out, FlushDecompress::None)
        } else {
            let before = self.state.total_out();
            let status = self
                .state
                .decompress(input, &mut [0], FlushDecompress::None);
            if self.state.total_out() > before {
                return Err(WebSocketError::TooLarge);
            }
            status
        };
        status.map_err(|_| WebSocketError::CorruptDeflate)
    }
}

#[cfg(test)]
mod tests;
