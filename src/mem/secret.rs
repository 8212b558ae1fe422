//! Secrets of connections. Unlike `Rng`, what it has given says nothing about what it will give.

use hmac::{Hmac, Mac};
use sha2::Sha256;

/// A key, and how many secrets were made with it: HMAC-SHA256 of a number that never comes again.
#[derive(Clone)]
pub struct Secrets {
    mac: Hmac<Sha256>,
    made: u64,
    /// The other half of what was computed last.
    spare: Option<[u8; 16]>,
}

impl Secrets {
    /// With the key of the process. `shard` keeps shards with one key apart.
    #[must_use]
    pub fn new(key: &[u8; 32], shard: u16) -> Self {
        // A key shorter than a block of the hash is filled up with zeros (RFC 2104).
        let mut block = [0; 64];
        block[..key.len()].copy_from_slice(key);
        let mut mac = Hmac::<Sha256>::new((&block).into());
        mac.update(&shard.to_le_bytes());
        Self {
            mac,
            made: 0,
            spare: None,
        }
    }

    /// 128 bits that nobody without the key can guess.
    pub fn make(&mut self) -> [u8; 16] {
        if let Some(secret) = self.spare.take() {
            return secret;
        }
        let mut mac = self.mac.clone();
        mac.update(&self.made.to_le_bytes());
        self.made += 1;
        let tag: [u8; 32] = mac.finalize().into_bytes().into();
        let (mut first, mut second) = ([0; 16], [0; 16]);
        first.copy_from_slice(&tag[..16]);
        second.copy_from_slice(&tag[16..]);
        self.spare = Some(second);
        first
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_differ_by_key_shard_and_number() {
        let mut seen = std::collections::BTreeSet::new();
        for key in [[1; 32], [2; 32]] {
            for shard in 0..3 {
                let mut secrets = Secrets::new(&key, shard);
                for _ in 0..100 {
                    assert!(seen.insert(secrets.make()));
                }
            }
        }
    }
}
