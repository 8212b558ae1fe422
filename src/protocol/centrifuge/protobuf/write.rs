//! Appends Protobuf fields to a buffer. No message is ever built in between.

use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint};

/// The fields of one message, appended as they come. Those of a scalar type are left out when they have its zero value.
pub(super) struct Fields<'o> {
    out: &'o mut Vec<u8>,
}

impl<'o> Fields<'o> {
    /// Fields of the message that starts at the end of `out`.
    pub(super) const fn new(out: &'o mut Vec<u8>) -> Self {
        Self { out }
    }

    /// A number that is never negative: uint32, uint64, int64.
    pub(super) fn number(&mut self, tag: u32, value: u64) {
        if value != 0 {
            encode_key(tag, WireType::Varint, self.out);
            encode_varint(value, self.out);
        }
    }

    /// A bool.
    pub(super) fn flag(&mut self, tag: u32, value: bool) {
        self.number(tag, u64::from(value));
    }

    /// A string.
    pub(super) fn text(&mut self, tag: u32, text: &str) {
        self.bytes(tag, text.as_bytes());
    }

    /// Bytes.
    pub(super) fn bytes(&mut self, tag: u32, bytes: &[u8]) {
        if !bytes.is_empty() {
            encode_key(tag, WireType::LengthDelimited, self.out);
            encode_varint(bytes.len() as u64, self.out);
            self.out.extend_from_slice(bytes);
        }
    }

    /// A message, present also when it has no field (trap T4).
    pub(super) fn message(&mut self, tag: u32, fields: impl FnOnce(&mut Fields<'_>)) {
        self.large_message(tag, 0, fields);
    }

    /// A message that is expected to have about `len` bytes or a few more: if its length takes as many bytes as that of `len`,
    /// nothing has to move.
    pub(super) fn large_message(
        &mut self,
        tag: u32,
        len: usize,
        fields: impl FnOnce(&mut Fields<'_>),
    ) {
        encode_key(tag, WireType::LengthDelimited, self.out);
        let start = self.out.len();
        let expected = encoded_len_varint(len as u64);
        self.out.resize(start + expected, 0);
        fields(&mut Fields::new(self.out));
        let end = self.out.len();
        let len = end - start - expected;
        let prefix = encoded_len_varint(len as u64);
        if prefix > expected {
            self.out.resize(end + prefix - expected, 0);
        }
        if prefix != expected {
            self.out.copy_within(start + expected..end, start + prefix);
            self.out.truncate(start + prefix + len);
        }
        encode_varint(len as u64, &mut &mut self.out[start..start + prefix]);
    }

    /// The fields that `append` appends by itself.
    pub(super) fn appended(&mut self, append: impl FnOnce(&mut Vec<u8>)) {
        append(self.out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_values_are_absent_and_empty_messages_are_present() {
        let mut out = Vec::new();
        let mut fields = Fields::new(&mut out);
        fields.number(1, 0);
        fields.flag(2, false);
        fields.text(3, "");
        fields.bytes(4, b"");
        fields.message(5, |_| {});
        assert_eq!(out, [5 << 3 | 2, 0]);
    }

    #[test]
    fn message_stands_behind_its_length_whatever_was_expected() {
        for len in [0, 1, 127, 128, 16_383, 16_384, 70_000, 2_097_152] {
            for expected in [0, 127, 128, 16_384, 2_097_152] {
                let mut out = b"before".to_vec();
                Fields::new(&mut out).large_message(16, expected, |fields| {
                    fields.appended(|out| out.resize(out.len() + len, b'x'));
                });
                let mut wanted = b"before\x82\x01".to_vec();
                encode_varint(len as u64, &mut wanted);
                wanted.resize(wanted.len() + len, b'x');
                assert!(out == wanted, "{len} bytes where {expected} were expected");
            }
        }
    }
}
