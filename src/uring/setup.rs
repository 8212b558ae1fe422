//! The shape of a ring, and why the kernel refused one.

use std::io;

use super::buffer_ring::BufferConfig;

/// Sizes of a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingConfig {
    /// Submissions, a power of two up to 32 768.
    pub submissions: u32,
    /// Completions, a power of two up to 65 536. An overflow loses none but ends armed receives (§3).
    pub completions: u32,
    /// Slots of the file table; cut to `RLIMIT_NOFILE`. 0 makes a ring without direct descriptors.
    pub slots: u32,
    /// Lowest slots that the kernel does not give out: listeners.
    pub reserved: u32,
    /// Accepts that may be armed at once.
    pub accepts: u32,
    /// Receive buffers.
    pub buffers: BufferConfig,
}

impl RingConfig {
    /// A shard's ring with room for `connections` sockets.
    #[must_use]
    pub const fn shard(connections: u32) -> Self {
        Self {
            submissions: 4096,
            completions: 65_536,
            slots: connections.saturating_add(64),
            reserved: 64,
            accepts: 64,
            buffers: BufferConfig::SHARD,
        }
    }
}

/// A step of the set-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// `io_uring_setup`
    Setup,
    /// `IORING_REGISTER_FILES2` with this many slots.
    FileTable(u32),
    /// `IORING_REGISTER_FILE_ALLOC_RANGE`
    AllocationRange,
    /// `IORING_REGISTER_PBUF_RING`
    Buffers,
}

/// The kernel refused a ring.
#[derive(Debug, thiserror::Error)]
#[error("io_uring set-up failed at {step:?}: {cause}")]
pub struct SetupError {
    /// Where.
    pub step: Step,
    /// Why.
    #[source]
    pub cause: io::Error,
}
