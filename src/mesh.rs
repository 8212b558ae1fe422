//! What may cross threads: queues between shards, and between shards and control.

pub mod control;
