//! What may cross threads: queues between shards, and between shards and control.

pub mod control;
mod endpoint;
pub mod message;

pub use endpoint::{Endpoint, build};
pub use message::Message;
