//! What `deploy/` promises: dashboard and alerts name metrics that exist, manifests are accepted by those who read them, balancers
//! run with the shipped configuration in front of the real binary, and it lives under the shipped seccomp profile.

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
#[path = "support/nats_server.rs"]
mod nats_server;

#[path = "deploy/balancers.rs"]
mod balancers;
#[path = "deploy/health.rs"]
mod health;
#[path = "deploy/manifests.rs"]
mod manifests;
#[path = "deploy/monitoring.rs"]
mod monitoring;
// The numbers of the older calls that the profile names are those of this machine.
#[cfg(target_arch = "x86_64")]
#[path = "deploy/seccomp.rs"]
mod seccomp;
#[path = "deploy/tools.rs"]
mod tools;
