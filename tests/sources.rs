//! Sources against real servers: rows of PostgreSQL and records of Kafka become publications, each once, whoever is killed.

#[expect(
    dead_code,
    reason = "each test crate uses its own part of what they share"
)]
#[path = "support/support.rs"]
mod support;

#[expect(
    dead_code,
    reason = "each test crate uses its own part of what they share"
)]
#[cfg(feature = "nats")]
#[path = "support/nats_server.rs"]
mod nats_server;

#[path = "support/kafka_server.rs"]
mod kafka_server;
#[path = "support/postgres_server.rs"]
mod postgres_server;

#[path = "sources/kafka.rs"]
mod kafka;
#[path = "sources/kills.rs"]
mod kills;
#[path = "sources/lab.rs"]
mod lab;
#[path = "sources/postgres.rs"]
mod postgres;
