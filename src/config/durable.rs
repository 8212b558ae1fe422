//! `[durable]`: where publications of durable channels are kept; `[queue]`; what a namespace says about payloads and triggers.

use std::path::PathBuf;
use std::time::Duration;

use super::Secret;
use super::apart::Key;

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
    /// Publications that wait for their time at most, default ten million; one beyond it is refused.
    pub scheduled_max: u64,
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
    /// A log that is not there is made, default true. Without it that is an error.
    pub create: bool,
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
    /// A stream that is not there is made, default true. Without it that is an error.
    pub create: bool,
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
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Queue {
    /// Name of the hook (of `proxies`) that is told of every dead letter; empty for none. Each is announced on the channel
    /// `$dead:<group>` of the log, from which the hook is told.
    pub dead_letter_hook: String,
    /// How long a dead letter is kept, default 90 days; zero is for ever.
    pub dead_letter_retention: Duration,
    /// Dead letters kept at most, the oldest go first; default 1,000,000; 0 is any number.
    pub dead_letters_max: u64,
    /// Bytes of dead letters kept at most, the oldest go first; default 4 GiB; 0 is any number.
    pub dead_letters_bytes_max: u64,
    /// Groups whose deliveries are posted to a hook.
    pub push: Vec<Push>,
}

impl Default for Queue {
    fn default() -> Self {
        Self {
            dead_letter_hook: String::new(),
            dead_letter_retention: Duration::from_hours(90 * 24),
            dead_letters_max: 1_000_000,
            dead_letters_bytes_max: 4 << 30,
            push: Vec::new(),
        }
    }
}

/// One of `[[queue.push]]`: a queue group whose deliveries are posted to a target, which answers what became of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Push {
    /// The group, named once.
    pub group: String,
    /// Channels that it takes from: names, or globs.
    pub channels: Vec<String>,
    /// Name of the target (of `proxies`).
    pub target: String,
    /// Deliveries in one call at most, default 1. With 1 the body is the delivery itself.
    pub batch: u32,
    /// Calls under way at a time, default 4.
    pub concurrency: u32,
    /// A new group begins with what comes next; else with what the log has kept, the default.
    pub from_new: bool,
    /// A call that is not answered within this time, its wait for a place included, has failed. Default 30 s.
    pub ack_wait: Duration,
    /// Failed attempts that make a dead letter, default 5.
    pub max_attempts: u32,
    /// At most one unsettled publication of each channel at a time.
    pub ordered: bool,
    /// What the payload must say; empty for all.
    pub condition: String,
    /// Tags that a publication must have, all of them.
    pub tags: Vec<(String, String)>,
    /// Where it says how urgent it is, 0 to 3; empty for no lanes.
    pub lanes_by: String,
    /// Turns of the lanes against each other, the least urgent first; default 1, 2, 4 and 8.
    pub lanes_weights: Vec<u32>,
    /// What publications take turns by; empty for none.
    pub key: String,
    /// Publications of one key under way; 0 for no bound.
    pub key_concurrency: u32,
    /// Publications of one key in a second; 0 for no bound.
    pub key_rate: u32,
    /// Time after the first failed attempt, default 1 s.
    pub backoff_base: Duration,
    /// What it grows by, default 2.
    pub backoff_factor: u32,
    /// What it grows up to, default 5 min.
    pub backoff_cap: Duration,
}

impl Default for Push {
    fn default() -> Self {
        Self {
            group: String::new(),
            channels: Vec::new(),
            target: String::new(),
            batch: 1,
            concurrency: 4,
            from_new: false,
            ack_wait: Duration::from_secs(30),
            max_attempts: 5,
            ordered: false,
            condition: String::new(),
            tags: Vec::new(),
            lanes_by: String::new(),
            lanes_weights: vec![1, 2, 4, 8],
            key: String::new(),
            key_concurrency: 0,
            key_rate: 0,
            backoff_base: Duration::from_secs(1),
            backoff_factor: 2,
            backoff_cap: Duration::from_mins(5),
        }
    }
}

/// Is it a text that tells publications apart: `channel`, `user`, `tag:NAME` or `data:PATH`?
#[must_use]
pub fn is_key(text: &str) -> bool {
    Key::parse(text).is_ok()
}

/// As `is_key`; a bare name is that of a tag.
#[must_use]
pub fn join_key(text: &str) -> Option<String> {
    if is_key(text) {
        return Some(text.to_owned());
    }
    let is_bare = !text.is_empty() && !text.contains(':');
    is_bare.then(|| format!("tag:{text}"))
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
    /// What is appended is published so much later.
    pub delay: Duration,
    /// What is appended is kept for so long; zero (default) for as long as its source, or as its channel keeps others.
    pub ttl: Duration,
    /// Several publications lead to one.
    pub join: Join,
}

/// `join` of a trigger: what is appended has all publications in it that have a key in common. Nothing is joined where `by` is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Join {
    /// What they have in common: `channel`, `user`, `tag:NAME` or `data:PATH`.
    pub by: String,
    /// How many belong together; 0 where they say it themselves.
    pub count: u32,
    /// Where one of them says how many belong together, `tag:NAME` or `data:PATH`; empty for none.
    pub expected: String,
    /// How long the first one waits for the others.
    pub within: Duration,
}

impl Default for Durable {
    fn default() -> Self {
        Self {
            engine: Engine::Embedded,
            retention_age: Duration::from_hours(72),
            retention_bytes: 0,
            append_timeout: Duration::from_secs(5),
            scheduled_max: 10_000_000,
            embedded: Embedded {
                directory: PathBuf::from("ringmain-data/log"),
                create: true,
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
                create: true,
                subject_prefix: "ringmain".to_owned(),
                replicas: 1,
                memory_storage: false,
                duplicate_window: Duration::from_secs(1),
            },
        }
    }
}
