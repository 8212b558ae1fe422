//! The checks of the Centrifuge v2 conformance list, one test each, named after its number, against the real binary.

#[expect(
    dead_code,
    reason = "each test crate uses its own part of what they share"
)]
#[path = "support/support.rs"]
mod support;

#[path = "conformance/authentication.rs"]
mod authentication;
#[path = "conformance/compression.rs"]
mod compression;
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
#[path = "conformance/json_text.rs"]
mod json_text;
#[path = "conformance/openapi.rs"]
mod openapi;
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
#[path = "conformance/transports.rs"]
mod transports;
