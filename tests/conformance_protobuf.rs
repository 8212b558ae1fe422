//! The checks of the Centrifuge v2 conformance list again, with clients that speak Protobuf: the same tests as in
//! `conformance`, but for those that are about JSON text, and those that are about Protobuf bytes.

#[expect(
    dead_code,
    reason = "each test crate uses its own part of what they share"
)]
#[path = "support/support.rs"]
mod support;

#[path = "conformance/authentication.rs"]
mod authentication;
#[path = "conformance/delta.rs"]
mod delta;
#[path = "conformance/filter.rs"]
mod filter;
#[path = "conformance/framing.rs"]
mod framing;
#[path = "conformance/history.rs"]
mod history;
#[path = "conformance/hooks.rs"]
mod hooks;
#[path = "conformance/payloads.rs"]
mod payloads;
#[path = "conformance/protobuf_bytes.rs"]
mod protobuf_bytes;
#[path = "conformance/publishing.rs"]
mod publishing;
#[path = "conformance/recovery.rs"]
mod recovery;
#[path = "conformance/server_api.rs"]
mod server_api;
#[path = "conformance/servers.rs"]
mod servers;
#[path = "conformance/subscriptions.rs"]
mod subscriptions;
