//! What may cross threads: queues between shards, and between shards and control.

pub mod control;
pub mod durable;
mod endpoint;
pub mod hook;
pub mod message;

pub use endpoint::{ANSWERS_MAX, Endpoint, build, build_with};
pub use message::Message;
