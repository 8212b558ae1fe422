//! Channels: what an owner keeps of them (`owner`), and who listens on this shard (`hub`).

mod channel;
pub mod durable;
pub mod filter;
pub mod hub;
mod idempotency;
pub mod owner;
mod presence;
pub mod recovery;

pub use filter::{Filter, FilterError};
pub use hub::{Hub, HubChannel, HubId};
pub use owner::Owner;
