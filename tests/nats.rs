//! The durable log in NATS JetStream against real servers: alone, killed, cut off, and three together.

#[path = "support/nats_server.rs"]
mod nats_server;

#[expect(
    dead_code,
    reason = "each test crate uses its own part of what they share"
)]
#[path = "support/support.rs"]
mod support;

#[path = "nats/appends.rs"]
mod appends;
#[path = "nats/breaker.rs"]
mod breaker;
#[path = "nats/faults.rs"]
mod faults;
#[path = "nats/groups.rs"]
mod groups;
#[path = "nats/joins.rs"]
mod joins;
#[path = "nats/lab.rs"]
mod lab;
#[path = "nats/leases.rs"]
mod leases;
#[path = "nats/letters.rs"]
mod letters;
#[path = "nats/moving.rs"]
mod moving;
#[path = "nats/proxy.rs"]
mod proxy;
#[path = "nats/pushed.rs"]
mod pushed;
#[path = "nats/queues.rs"]
mod queues;
#[path = "nats/reads.rs"]
mod reads;
#[path = "nats/requests.rs"]
mod requests;
#[path = "nats/rotation.rs"]
mod rotation;
#[path = "nats/scheduled.rs"]
mod scheduled;
#[path = "nats/secure.rs"]
mod secure;
#[path = "nats/seeks.rs"]
mod seeks;
#[path = "nats/setup.rs"]
mod setup;
#[path = "nats/tenants.rs"]
mod tenants;
