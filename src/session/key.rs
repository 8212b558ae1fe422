//! What a client names to be heard on another connection than the one it listens on (`spec/centrifuge.md` §1.7).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;

use crate::model::{ConnId, ShardId};

/// Bytes of a key as it is encoded: shard, slot, generation, secret.
const BYTES: usize = 2 + 4 + 4 + 16;
/// Characters of a key.
const CHARS: usize = (BYTES * 4).div_ceil(3);

/// Where a session is, and the secret that proves that one has been told.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SessionKey {
    /// Shard of the session.
    pub shard: ShardId,
    /// Its connection.
    pub conn: ConnId,
    /// Compared with `is` only.
    secret: [u8; 16],
}

impl std::fmt::Debug for SessionKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} {:?} ***", self.shard, self.conn)
    }
}

impl SessionKey {
    /// Of a session with this secret.
    #[must_use]
    pub const fn new(shard: ShardId, conn: ConnId, secret: [u8; 16]) -> Self {
        Self {
            shard,
            conn,
            secret,
        }
    }

    /// The text that a client is told.
    #[must_use]
    pub fn encode(&self) -> String {
        let mut bytes = [0; BYTES];
        bytes[..2].copy_from_slice(&self.shard.0.to_be_bytes());
        bytes[2..6].copy_from_slice(&self.conn.slot.to_be_bytes());
        bytes[6..10].copy_from_slice(&self.conn.generation.to_be_bytes());
        bytes[10..].copy_from_slice(&self.secret);
        BASE64.encode(bytes)
    }

    /// Reads what a client names; `None` for what no session was ever told.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() != CHARS {
            return None;
        }
        let mut bytes = [0; BYTES];
        if BASE64.decode_slice_unchecked(text, &mut bytes) != Ok(BYTES) {
            return None;
        }
        Some(Self {
            shard: ShardId(u16::from_be_bytes([bytes[0], bytes[1]])),
            conn: ConnId {
                slot: u32::from_be_bytes([bytes[2], bytes[3], bytes[4], bytes[5]]),
                generation: u32::from_be_bytes([bytes[6], bytes[7], bytes[8], bytes[9]]),
            },
            secret: bytes[10..].try_into().ok()?,
        })
    }

    /// Is this the session's secret? Takes the same time whatever the answer is.
    #[must_use]
    pub fn is(&self, secret: &[u8; 16]) -> bool {
        let differ = |differ, (a, b): (&u8, &u8)| differ | (a ^ b);
        std::hint::black_box(self.secret.iter().zip(secret).fold(0, differ)) == 0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_key_reads_back_and_every_other_character_is_another_key(
            shard: u16, slot: u32, generation: u32, secret: [u8; 16], at in 0..CHARS,
        ) {
            let conn = ConnId { slot, generation };
            let key = SessionKey::new(ShardId(shard), conn, secret);
            let mut text = key.encode();
            prop_assert_eq!(text.len(), CHARS);
            prop_assert_eq!(SessionKey::parse(&text), Some(key));
            prop_assert!(key.is(&secret));
            let other = if &text[at..=at] == "A" { "B" } else { "A" };
            text.replace_range(at..=at, other);
            prop_assert_ne!(SessionKey::parse(&text), Some(key));
        }

        #[test]
        fn a_secret_that_differs_in_one_bit_is_none(secret: [u8; 16], bit in 0usize..128) {
            let conn = ConnId { slot: 1, generation: 2 };
            let mut other = secret;
            other[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(!SessionKey::new(ShardId(0), conn, secret).is(&other));
        }

        #[test]
        fn arbitrary_text_never_panics(text in ".{0,60}") {
            let _ = SessionKey::parse(&text);
        }
    }
}
