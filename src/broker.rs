//! Channels: what an owner keeps of them (`owner`), and who listens on this shard (`hub`).

mod channel;
mod epochs;
pub mod filter;
pub mod followed;
pub mod hub;
mod idempotency;
mod image;
mod list;
mod makers;
pub mod owner;
mod presence;
pub mod recovery;
mod table;

pub use filter::{Filter, FilterError};
pub use hub::{Hub, HubChannel};
pub use owner::Owner;
