//! A message that arrives in pieces: fragments, or a frame split over receives.

use super::mask::unmask;
use super::{Inflater, WebSocketError};

/// The unmasked bytes so far. Its memory follows the bytes received, never an announced length.
#[derive(Debug)]
pub(super) struct PartialMessage {
    bytes: Vec<u8>,
    /// `bytes[..valid_to]` is UTF-8; what follows is at most the beginning of one character. Unused for binary and compressed bytes.
    valid_to: usize,
    is_text: bool,
    is_deflated: bool,
}

impl PartialMessage {
    pub(super) fn new(is_text: bool, is_deflated: bool) -> Self {
        Self {
            bytes: Vec::new(),
            valid_to: 0,
            is_text,
            is_deflated,
        }
    }

    /// What it is made of: bytes, how many of them are UTF-8 for certain, whether it is a text, whether it is compressed.
    pub(super) const fn parts(&self) -> (&Vec<u8>, usize, bool, bool) {
        let Self {
            bytes,
            valid_to,
            is_text,
            is_deflated,
        } = self;
        (bytes, *valid_to, *is_text, *is_deflated)
    }

    /// The message of these parts; `None` if they cannot be.
    pub(super) fn of(
        bytes: Vec<u8>,
        valid_to: usize,
        is_text: bool,
        is_deflated: bool,
    ) -> Option<Self> {
        let valid = bytes.get(..valid_to)?;
        simdutf8::basic::from_utf8(valid).ok()?;
        Some(Self {
            bytes,
            valid_to,
            is_text,
            is_deflated,
        })
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn held_bytes(&self) -> usize {
        self.bytes.capacity()
    }

    pub(super) fn is_text(&self) -> bool {
        self.is_text
    }

    /// Appends `masked`. `len_max` is the most this message can still become; memory is never reserved beyond it.
    pub(super) fn push(
        &mut self,
        masked: &[u8],
        mask: [u8; 4],
        len_max: usize,
    ) -> Result<(), WebSocketError> {
        let from = self.bytes.len();
        let needed = from + masked.len();
        debug_assert!(needed <= len_max, "a frame was admitted beyond the limit");
        if needed > self.bytes.capacity() {
            let target = needed
                .max(self.bytes.capacity() * 2)
                .min(len_max.max(needed));
            self.bytes.reserve_exact(target - from);
        }
        self.bytes.extend_from_slice(masked);
        let is_ascii = unmask(&mut self.bytes[from..], mask);
        if self.is_text && !self.is_deflated {
            self.validate(from, is_ascii)
        } else {
            Ok(())
        }
    }

    /// Fails as soon as no continuation could make the text valid.
    fn validate(&mut self, from: usize, is_ascii: bool) -> Result<(), WebSocketError> {
        if is_ascii && self.valid_to == from {
            self.valid_to = self.bytes.len();
            return Ok(());
        }
        match simdutf8::compat::from_utf8(&self.bytes[self.valid_to..]) {
            Ok(_) => self.valid_to = self.bytes.len(),
            Err(error) if error.error_len().is_none() => self.valid_to += error.valid_up_to(),
            Err(_) => return Err(WebSocketError::InvalidUtf8),
        }
        Ok(())
    }

    /// The whole message. A text that ends inside a character is refused.
    pub(super) fn finish(self, inflater: Option<&mut Inflater>) -> Result<Vec<u8>, WebSocketError> {
        if self.is_deflated {
            return inflated(&self.bytes, self.is_text, inflater);
        }
        if self.is_text && self.valid_to < self.bytes.len() {
            return Err(WebSocketError::InvalidUtf8);
        }
        Ok(self.bytes)
    }

    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.bytes.capacity()
    }
}

/// The message that compressed bytes hold.
pub(super) fn inflated(
    bytes: &[u8],
    is_text: bool,
    inflater: Option<&mut Inflater>,
) -> Result<Vec<u8>, WebSocketError> {
    // Its header was refused already if nothing was agreed on.
    let inflater = inflater.ok_or(WebSocketError::Protocol)?;
    let message = inflater.inflate(bytes)?;
    if is_text && simdutf8::basic::from_utf8(&message).is_err() {
        return Err(WebSocketError::InvalidUtf8);
    }
    Ok(message)
}
