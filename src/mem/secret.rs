//! What follows from the key of the process. Unlike `Rng`, what it has given says nothing about what it will give.

use std::hash::{BuildHasher, DefaultHasher, Hasher};

use hmac::{Hmac, Mac};
use sha2::Sha256;

use crate::image::{Image, ImageError, ImageReader, ImageWriter};

/// A key from which others follow, one for each purpose.
#[derive(Clone)]
pub struct Key([u8; 32]);

impl Key {
    /// The key itself.
    #[must_use]
    pub const fn new(key: [u8; 32]) -> Self {
        Self(key)
    }

    /// The key for one purpose. It says nothing about this one, nor about that for another purpose.
    #[must_use]
    pub fn derive(&self, purpose: &str) -> Self {
        Self(self.mac(&[purpose.as_bytes()]))
    }

    /// HMAC-SHA256 of parts, each with its length: no two lists of parts have the same.
    #[must_use]
    pub fn mac(&self, parts: &[&[u8]]) -> [u8; 32] {
        let mut mac = mac_with(&self.0);
        for part in parts {
            mac.update(&(part.len() as u64).to_le_bytes());
            mac.update(part);
        }
        mac.finalize().into_bytes().into()
    }

    /// A number in place of the key.
    #[must_use]
    pub const fn seed(&self) -> u64 {
        u64::from_le_bytes(*self.0.first_chunk().expect("32 bytes begin with eight"))
    }
}

/// A hash that nobody foresees who has not the key: whoever chooses the names of a table cannot choose where they are filed.
/// It is SipHash; a faster one with a seed alone has names that collide whatever the seed.
#[derive(Clone, Debug)]
pub struct SecretHash(DefaultHasher);

impl SecretHash {
    /// The hash with this key.
    #[must_use]
    pub fn new(key: &Key) -> Self {
        let mut keyed = DefaultHasher::new();
        keyed.write(&key.0);
        Self(keyed)
    }

    /// The hash of some bytes.
    #[must_use]
    pub fn of(&self, bytes: &[u8]) -> u64 {
        let mut hasher = self.0.clone();
        hasher.write(bytes);
        hasher.finish()
    }
}

impl BuildHasher for SecretHash {
    type Hasher = DefaultHasher;
    fn build_hasher(&self) -> DefaultHasher {
        self.0.clone()
    }
}

fn mac_with(key: &[u8; 32]) -> Hmac<Sha256> {
    // A key shorter than a block of the hash is filled up with zeros (RFC 2104).
    let mut block = [0; 64];
    block[..key.len()].copy_from_slice(key);
    Hmac::<Sha256>::new((&block).into())
}

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
        let mut mac = mac_with(key);
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

impl Secrets {
    /// Writes how many were made, and what is left of them; not the key.
    pub fn write(&self, out: &mut ImageWriter) {
        let Self {
            mac: _,
            made,
            spare,
        } = self;
        made.write(out);
        spare.write(out);
    }

    /// Reads what `write` has written: goes on with the same key, and makes none again.
    ///
    /// # Errors
    /// It cannot be.
    pub fn read(self, from: &mut ImageReader<'_>) -> Result<Self, ImageError> {
        Ok(Self {
            made: Image::read(from)?,
            spare: Image::read(from)?,
            ..self
        })
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

    #[test]
    fn keys_and_hashes_differ_by_purpose_and_parts_are_not_run_together() {
        let key = Key::new([1; 32]);
        let (a, b) = (key.derive("a"), key.derive("b"));
        assert_ne!(a.seed(), b.seed());
        assert_ne!(a.mac(&[b"x", b"yz"]), a.mac(&[b"xy", b"z"]));
        assert_ne!(
            SecretHash::new(&a).of(b"name"),
            SecretHash::new(&b).of(b"name")
        );
        assert_eq!(
            SecretHash::new(&a).of(b"name"),
            SecretHash::new(&key.derive("a")).of(b"name")
        );
    }
}
