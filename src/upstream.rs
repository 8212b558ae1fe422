//! What must not be lost: the durable log behind the shards, and the queue groups that work it off.
//!
//! One thread, the **bridge**, with a runtime of its own: it takes what the shards ask (`mesh/durable`), appends in
//! batches, and gives back what was stored. The log itself is one of several behind the traits of `log`.

pub mod bell;
pub mod bridge;
pub mod copy;
pub mod desk;
pub mod embedded;
pub mod log;
#[cfg(test)]
mod memory;
#[cfg(feature = "nats")]
pub mod nats;
pub mod schema;
pub mod sources;

pub use embedded::Embedded;
