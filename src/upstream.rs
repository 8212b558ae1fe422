//! What must not be lost: the durable log behind the shards, and the queue groups that work it off.
//!
//! One thread, the **bridge**, with a runtime of its own: it takes what the shards ask (`mesh/durable`), appends in
//! batches, and gives back what was stored. The log itself is one of several behind the `Log` trait.

pub mod log;
#[cfg(feature = "nats")]
pub mod nats;

pub use log::Log;
