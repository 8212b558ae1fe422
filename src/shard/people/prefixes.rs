//! Where the client of each connection is: a number that stands for its address prefix, the same on every shard.

use std::hash::BuildHasher;
use std::net::IpAddr;

use super::gate::prefix_of;
use crate::config::Client;
use crate::image::{Image, ImageError, ImageReader, ImageWriter};
use crate::mem::{Key, SecretHash};

/// See the module.
pub(super) struct Prefixes {
    /// By slot; 0 where it is not known.
    of: Vec<u32>,
    hash: SecretHash,
}

impl Prefixes {
    pub(super) fn new(process: &Key) -> Self {
        Self {
            of: Vec::new(),
            hash: SecretHash::new(&process.derive("address prefixes")),
        }
    }

    /// The client of the connection in a slot is there, as far as that is known.
    pub(super) fn set(&mut self, client: &Client, slot: u32, address: Option<IpAddr>) {
        let slot = slot as usize;
        if self.of.len() <= slot {
            self.of.resize(slot + 1, 0);
        }
        self.of[slot] = address.map_or(0, |address| {
            let prefix = prefix_of(client, address);
            (self.hash.hash_one(prefix) as u32).max(1)
        });
    }

    pub(super) fn at(&self, slot: u32) -> u32 {
        self.of.get(slot as usize).copied().unwrap_or(0)
    }

    pub(super) fn write(&self, out: &mut ImageWriter) {
        let Self { of, hash: _ } = self;
        of.write(out);
    }

    pub(super) fn read(process: &Key, from: &mut ImageReader<'_>) -> Result<Self, ImageError> {
        let mut prefixes = Self::new(process);
        prefixes.of = Image::read(from)?;
        Ok(prefixes)
    }
}
