//! Bytes that several wait for, in memory once, and the count of what is held for who waits.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::Tick;
use crate::image::image;

/// Memory of all backlogs of a shard: bytes, each counted once, and what stands around them, which is more where many pieces are small or
/// many connections share them. Only the shard's thread counts; the shard is made on another one.
#[derive(Clone, Debug, Default)]
pub struct HeldBytes(Arc<AtomicUsize>);

impl HeldBytes {
    /// How many there are.
    #[must_use]
    pub fn get(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// So many come.
    pub fn add(&self, bytes: usize) {
        self.0.fetch_add(bytes, Ordering::Relaxed);
    }

    /// So many go.
    pub fn sub(&self, bytes: usize) {
        let before = self.0.fetch_sub(bytes, Ordering::Relaxed);
        debug_assert!(before >= bytes, "more bytes go than there were");
    }
}

/// The one publication that bytes are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// Its offset; 0 where it has none.
    pub offset: u64,
    /// When it was given to subscribers.
    pub since: Tick,
    /// What tells it apart from others of its channel; `None` where no later one replaces it.
    pub key: Option<OriginKey>,
}

/// What tells a publication apart from others of its channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OriginKey {
    /// A secret hash of the bytes.
    pub hash: u64,
    /// They tell it apart, the hash does not.
    pub bytes: Box<[u8]>,
}

image!(struct Origin { offset, since, key });
image!(struct OriginKey { hash, bytes });

/// Bytes that any number of connections have to send.
#[derive(Debug)]
pub struct Shared {
    bytes: Vec<u8>,
    /// Which publication they are; nothing where they are none, or several.
    origin: Origin,
    held: HeldBytes,
}

impl Shared {
    /// Bytes of memory beside its own, counts of the `Arc` included.
    pub const AROUND: usize = size_of::<Self>() + 2 * size_of::<usize>();

    /// They count until the last connection has sent or dropped them.
    #[must_use]
    pub fn new(bytes: Vec<u8>, held: &HeldBytes) -> Arc<Self> {
        Self::of(bytes, Origin::default(), held)
    }

    /// They are one publication.
    #[must_use]
    pub fn of(bytes: Vec<u8>, origin: Origin, held: &HeldBytes) -> Arc<Self> {
        let shared = Self {
            bytes,
            origin,
            held: held.clone(),
        };
        held.add(shared.memory());
        Arc::new(shared)
    }

    /// What is to be sent.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Which publication they are.
    #[must_use]
    pub const fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Bytes of memory that it takes.
    #[must_use]
    pub fn memory(&self) -> usize {
        let key = self.origin.key.as_ref().map_or(0, |key| key.bytes.len());
        self.bytes.len() + key + Self::AROUND
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.held.sub(self.memory());
    }
}
