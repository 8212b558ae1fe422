//! Numbers and strings in stored values: written compactly, read without trust.

use bytes::Bytes;

/// What was stored is not what this program writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// It ends too early.
    #[error("a stored value is cut off")]
    Short,
    /// Its checksum is another one.
    #[error("a stored value does not have its checksum")]
    Checksum,
    /// It is of a format that this version does not know.
    #[error("a stored value has format {0}, which this version does not know")]
    Format(u8),
    /// A part of it cannot be.
    #[error("a stored value holds what cannot be")]
    Value,
}

/// Appends seven bits a byte, the lowest first.
pub fn put_number(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends a length and that many bytes.
pub fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_number(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Reads a stored value from its start.
#[derive(Debug)]
pub struct Reader<'a> {
    whole: &'a Bytes,
    at: usize,
}

impl<'a> Reader<'a> {
    /// From `at` on.
    #[must_use]
    pub fn new(whole: &'a Bytes, at: usize) -> Self {
        Self { whole, at }
    }

    /// Nothing is left.
    #[must_use]
    pub fn is_at_end(&self) -> bool {
        self.at >= self.whole.len()
    }

    /// The next `count` bytes.
    ///
    /// # Errors
    ///
    /// There are not so many.
    pub fn take(&mut self, count: usize) -> Result<&'a [u8], Damage> {
        let end = self.at.checked_add(count).ok_or(Damage::Short)?;
        let taken = self.whole.get(self.at..end).ok_or(Damage::Short)?;
        self.at = end;
        Ok(taken)
    }

    /// The next `N` bytes.
    ///
    /// # Errors
    ///
    /// There are not so many.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], Damage> {
        self.take(N)?.try_into().map_err(|_| Damage::Short)
    }

    /// One byte.
    ///
    /// # Errors
    ///
    /// Nothing is left.
    pub fn byte(&mut self) -> Result<u8, Damage> {
        Ok(self.array::<1>()?[0])
    }

    /// See `put_number`.
    ///
    /// # Errors
    ///
    /// It ends early, or is larger than 64 bits.
    pub fn number(&mut self) -> Result<u64, Damage> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return Err(Damage::Value);
            }
            value |= bits << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(Damage::Value)
    }

    fn length(&mut self) -> Result<usize, Damage> {
        usize::try_from(self.number()?).map_err(|_| Damage::Short)
    }

    /// See `put_bytes`; shares the memory of the whole.
    ///
    /// # Errors
    ///
    /// It ends early.
    pub fn shared(&mut self) -> Result<Bytes, Damage> {
        let length = self.length()?;
        let start = self.at;
        self.take(length)?;
        Ok(self.whole.slice(start..self.at))
    }

    /// See `put_bytes`.
    ///
    /// # Errors
    ///
    /// It ends early, or is no UTF-8.
    pub fn text(&mut self) -> Result<&'a str, Damage> {
        let length = self.length()?;
        str::from_utf8(self.take(length)?).map_err(|_| Damage::Value)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn numbers_come_back(value: u64) {
            let mut out = Vec::new();
            put_number(&mut out, value);
            let whole = Bytes::from(out);
            let mut reader = Reader::new(&whole, 0);
            prop_assert_eq!(reader.number(), Ok(value));
            prop_assert!(reader.is_at_end());
        }
    }

    #[test]
    fn numbers_beyond_64_bits_are_refused() {
        let whole = Bytes::from_static(&[0xff; 11]);
        assert_eq!(Reader::new(&whole, 0).number(), Err(Damage::Value));
    }
}
