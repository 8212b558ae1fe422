//! The checks of the Centrifuge v2 conformance list, one test each, named after its number, against the real binary.

#[expect(dead_code, reason = "each test crate uses its own part of what they share")]
mod support {
    pub(crate) mod client;
    pub(crate) mod http;
    pub(crate) mod process;
    pub(crate) mod scenario;
    pub(crate) mod token;
    pub(crate) mod wait;
}

#[path = "conformance/authentication.rs"]
mod authentication;
#[path = "conformance/framing.rs"]
mod framing;
#[path = "conformance/history.rs"]
mod history;
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
