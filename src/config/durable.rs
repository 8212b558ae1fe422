//! `[durable]`: where publications of durable channels are kept; `[queue]`; what a namespace says about payloads and triggers.

use std::path::PathBuf;
use std::time::Duration;

use super::Secret;

/// `[durable]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Durable {
    /// Which log.
    pub engine: Engine,
    /// How long a publication is kept, default 72 h.
    pub retention_age: Duration,
    /// Bytes kept at most, the oldest publications go first; 0 (default) leaves only the age.
    pub retention_bytes: u64,
    /// An append that is not stored within this time gets a temporary error, default 5 s.
    pub append_timeout: Duration,
    /// `[durable.embedded]`
    pub embedded: Embedded,
    /// `[durable.nats]`
    pub nats: Nats,
}

/// `durable.engine`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Engine {
    /// In a directory of this machine.
    #[default]
    Embedded,
    /// In NATS JetStream.
    Nats,
}

/// `[durable.embedded]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Embedded {
    /// Where it is, default `ringmain-data/log`. One process uses it at a time.
    pub directory: PathBuf,
    /// Bytes of memory for blocks that were read, default 64 MiB.
    pub cache_bytes: u64,
}

/// `[durable.nats]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nats {
    /// Servers, default `nats://127.0.0.1:4222`.
    pub servers: Vec<String>,
    /// User name; empty for none.
    pub user: String,
    /// Its password.
    pub password: Secret,
    /// Token in place of user and password; empty for none.
    pub token: Secret,
    /// File with credentials (`nsc`); empty for none.
    pub credentials: PathBuf,
    /// File with the certificates of an authority of one's own; empty for the public ones.
    pub tls_ca: PathBuf,
    /// Stream that keeps the publications, default `RINGMAIN`; dead letters and state of groups are beside it.
    pub stream: String,
    /// Start of the subjects, default `ringmain`.
    pub subject_prefix: String,
    /// Servers that keep each publication, 1 to 5; default 1.
    pub replicas: u32,
    /// In memory only; default false.
    pub memory_storage: bool,
    /// How long the server remembers ids of publications, default 1 s. Neither idempotency keys nor anything else here
    /// depends on it; it costs the server memory for each publication within it.
    pub duplicate_window: Duration,
}

/// `[queue]`: groups of workers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Queue {
    /// Name of the hook (of `proxies`) that is told of every dead letter; empty for none. Each is also announced on the
    /// channel `$dead:<group>`.
    pub dead_letter_hook: String,
}

/// `schema` of a namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Schema {
    /// Versions that a publication may name; empty accepts every version.
    pub accepted: Vec<SchemaVersion>,
    /// A publication names its version. Without it, one that names none is not checked.
    pub required: bool,
}

/// One version of a namespace's payloads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SchemaVersion {
    /// From 1.
    pub version: u32,
    /// JSON Schema, as text; empty accepts every payload.
    pub json_schema: String,
}

/// What a durable namespace keeps less of than the whole log: `retention_age`, `retention_bytes`, `retention_count`,
/// `expired`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// How long a publication is kept; zero (default) leaves `durable.retention_age`.
    pub age: Duration,
    /// Bytes kept of the namespace, its oldest publications go first; 0 (default) leaves `durable.retention_bytes`.
    pub bytes: u64,
    /// Publications kept of each of its channels, the newest ones; 0 (default) keeps all.
    pub count: u64,
    /// What becomes of a publication that a queue group has not done when it expires.
    pub expired: Expired,
}

/// `expired`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Expired {
    /// `drop`: it is lost, and counted.
    #[default]
    Drop,
    /// `dead_letter`: it is counted, and kept as a dead letter of the group.
    DeadLetter,
}

impl Kept {
    /// Something is kept for a shorter time, or less of it.
    #[must_use]
    pub const fn is_less(&self) -> bool {
        !self.age.is_zero() || self.bytes > 0 || self.count > 0
    }
}

/// One of `triggers` of a namespace: each publication of the namespace that matches leads to one thing more, at least once.
/// Exactly one of `append` and `hook` is set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trigger {
    /// Unique within its namespace; it keeps its place in the log under this name.
    pub name: String,
    /// Channels, a glob over whole names; empty for all of the namespace.
    pub channels: String,
    /// What the payload must say, see `wire::condition`; empty for all.
    pub condition: String,
    /// Durable channel that gets the publication too; `{channel}` is the name of its channel, `{rest}` what stands in it
    /// behind the namespace. Empty for none.
    pub append: String,
    /// Name of the hook (of `proxies`) that is called; empty for none.
    pub hook: String,
}

impl Default for Durable {
    fn default() -> Self {
        Self {
            engine: Engine::Embedded,
            retention_age: Duration::from_hours(72),
            retention_bytes: 0,
            append_timeout: Duration::from_secs(5),
            embedded: Embedded {
                directory: PathBuf::from("ringmain-data/log"),
                cache_bytes: 64 << 20,
            },
            nats: Nats {
                servers: vec!["nats://127.0.0.1:4222".to_owned()],
                user: String::new(),
                password: Secret::default(),
                token: Secret::default(),
                credentials: PathBuf::new(),
                tls_ca: PathBuf::new(),
                stream: "RINGMAIN".to_owned(),
                subject_prefix: "ringmain".to_owned(),
                replicas: 1,
                memory_storage: false,
                duplicate_window: Duration::from_secs(1),
            },
        }
    }
}
