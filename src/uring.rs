//! The kernel's side of a shard: a ring, its buffers, and what the kernel may touch.
//!
//! The only place with `unsafe`. Its public face is safe: memory that the kernel reads or writes is owned by the
//! ring until the last completion of the operation, or borrowed for a call that returns only when the kernel is done with it.
//! Kernel facts behind every choice are in `spec/io_uring.md`; section numbers in comments refer to it.
#![expect(unsafe_code, reason = "io_uring shares memory with the kernel")]

mod bell;
mod buffer_ring;
mod completion;
mod in_flight;
pub mod inherited;
pub mod listen;
pub mod memory;
pub mod op;
pub mod probe;
mod ring;
mod setup;
pub mod socket;

pub use bell::EventFd;
pub use buffer_ring::BufferConfig;
pub use completion::{Accepted, Completion};
pub use op::{Kind, Sqe, UserData};
pub use probe::{Abilities, ProbeError};
pub use ring::Ring;
pub use setup::{RingConfig, SetupError, Step};
