//! Channels: what an owner keeps of them (`owner`), and who listens on this shard (`hub`).

mod channel;
pub mod hub;
mod idempotency;
pub mod owner;
mod presence;
pub mod recovery;

pub use hub::{Hub, HubChannel, HubId};
pub use owner::Owner;
