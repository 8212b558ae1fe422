//! What may cross threads: queues between shards, and between shards and control.

pub mod bell;
pub mod control;
pub mod durable;
mod endpoint;
pub mod hook;
pub mod message;
mod wire;

pub use endpoint::{Endpoint, build, build_with};
pub use message::Message;
pub use wire::{Passed, Wire, build_wired};
