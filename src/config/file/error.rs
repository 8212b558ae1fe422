//! What can be wrong with a configuration: where, which key, and what to do about it.

use std::fmt;

use crate::wire::condition::ConditionError;

/// Where a value was written.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ValueOrigin {
    /// A line of a file, counted from 1.
    File {
        /// As given in `Source::name`.
        name: String,
        /// Counted from 1.
        line: usize,
    },
    /// An environment variable or a command-line option.
    Setting(String),
    /// `POST /admin/tenants`, which has added the tenant with this id.
    Added(String),
    /// Nowhere: the default.
    BuiltIn,
}

impl fmt::Display for ValueOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { name, line } => write!(f, "{name}:{line}"),
            Self::Setting(name) => f.write_str(name),
            Self::Added(id) => write!(f, "tenant `{id}`, added at /admin/tenants"),
            Self::BuiltIn => f.write_str("built-in defaults"),
        }
    }
}

/// One thing that is wrong. The text says where, which key, and what would be right. No variant carries a value,
/// because a value may be a secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The file is not TOML.
    #[error("{origin}: this is not valid TOML: {message}")]
    Syntax {
        /// Where.
        origin: ValueOrigin,
        /// What the TOML parser says.
        message: String,
    },
    /// What the API was given is not JSON.
    #[error("{origin}: this is not valid JSON: {message}")]
    Json {
        /// Where.
        origin: ValueOrigin,
        /// Where in it.
        message: String,
    },
    /// No such key.
    #[error("{origin}: unknown key `{key}`; {}", remedy(nearest.as_deref()))]
    UnknownKey {
        /// Where.
        origin: ValueOrigin,
        /// The whole key.
        key: String,
        /// The known key that looks most like it.
        nearest: Option<String>,
    },
    /// A value of the wrong kind.
    #[error("{origin}: `{key}` must be {expected}, but this is {found}")]
    WrongType {
        /// Where.
        origin: ValueOrigin,
        /// The whole key.
        key: String,
        /// What belongs here.
        expected: &'static str,
        /// What stands here.
        found: &'static str,
    },
    /// The right kind, but not of the right form.
    #[error("{origin}: `{key}` must be {expected}")]
    Malformed {
        /// Where.
        origin: ValueOrigin,
        /// The whole key.
        key: String,
        /// What belongs here.
        expected: &'static str,
    },
    /// Of the right form, and yet it could not work.
    #[error("{origin}: `{key}`: {why}")]
    Unworkable {
        /// Where.
        origin: ValueOrigin,
        /// The whole key.
        key: String,
        /// Why, and what would. It shows a value only where values are public, as origins and paths are.
        why: String,
    },
    /// Too small or too large.
    #[error("{origin}: `{key}` must be between {min} and {max}{}", or_zero(*zero))]
    OutOfRange {
        /// Where.
        origin: ValueOrigin,
        /// The whole key.
        key: String,
        /// Smallest allowed value.
        min: String,
        /// Largest allowed value.
        max: String,
        /// Zero is allowed too: it turns the thing off.
        zero: bool,
    },
    /// Not one of a closed set.
    #[error("{origin}: `{key}` must be one of {}", quoted(allowed))]
    NotOneOf {
        /// Where.
        origin: ValueOrigin,
        /// The whole key.
        key: String,
        /// The set.
        allowed: Vec<&'static str>,
    },
    /// A duration finer than its meaning.
    #[error("{origin}: `{key}` counts in whole seconds; write for example \"60s\"")]
    NotWholeSeconds {
        /// Where.
        origin: ValueOrigin,
        /// The whole key.
        key: String,
    },
    /// A required key is absent.
    #[error("{origin}: `{key}` is missing; add it")]
    Missing {
        /// Where the table begins.
        origin: ValueOrigin,
        /// The whole key.
        key: String,
    },
    /// Two namespaces have one name, two listeners one address, or two endpoints one path.
    #[error("{origin}: `{key}` repeats what stands at {first}; change or remove one of them")]
    Repeated {
        /// Where the second stands.
        origin: ValueOrigin,
        /// The whole key.
        key: String,
        /// Where the first stands.
        first: ValueOrigin,
    },
    /// One of `history_size` and `history_ttl` without the other.
    #[error(
        "{origin}: `{key}` is set, so `{missing}` must be set too: history needs both a size and a time"
    )]
    HalfHistory {
        /// Where the one stands.
        origin: ValueOrigin,
        /// The one that is set.
        key: String,
        /// The one that is not.
        missing: String,
    },
    /// `force_recovery` without history.
    #[error(
        "{origin}: `{key}` needs history: set `history_size` and `history_ttl` in the same namespace"
    )]
    RecoveryWithoutHistory {
        /// Where.
        origin: ValueOrigin,
        /// The whole key.
        key: String,
    },
    /// Nothing would be recovered.
    #[error(
        "{origin}: `{key}` needs `force_recovery = true` and `force_recovery_mode = \"cache\"` in the same namespace"
    )]
    CacheWithoutRecovery {
        /// Where.
        origin: ValueOrigin,
        /// The whole key.
        key: String,
    },
    /// Metadata would be gone before the publications it describes.
    #[error("{origin}: `{key}` must not be longer than `{meta}`")]
    HistoryOutlivesMeta {
        /// Where.
        origin: ValueOrigin,
        /// Key of `history_ttl`.
        key: String,
        /// Key of `history_meta_ttl`.
        meta: String,
    },
    /// Something about publications that wait for each other, which none does.
    #[error(
        "{origin}: `{key}` needs publications that wait: set `batch_max_delay` in the same namespace"
    )]
    BatchWithoutDelay {
        /// Where.
        origin: ValueOrigin,
        /// What is set.
        key: String,
    },
    /// The answer to a ping would be due after the next ping.
    #[error(
        "{origin}: `{key}` must be smaller than `client.ping_interval`; set `ping_interval = \"0s\"` to turn pings off"
    )]
    PongNotBelowPing {
        /// Where.
        origin: ValueOrigin,
        /// The whole key.
        key: String,
    },
    /// A namespace is referred to that is not there.
    #[error(
        "{origin}: `{key}` names a namespace that does not exist; add it under [[channel.namespaces]]"
    )]
    UnknownNamespace {
        /// Where.
        origin: ValueOrigin,
        /// The whole key.
        key: String,
    },
    /// A hook target is referred to that is not there.
    #[error("{origin}: `{key}` needs an endpoint that is not configured; set `{missing}`")]
    UnknownTarget {
        /// Where.
        origin: ValueOrigin,
        /// The whole key.
        key: String,
        /// Where it would be configured.
        missing: String,
    },
    /// The condition of a trigger cannot be read, or no payload can fit it. Conditions are no secrets.
    #[error("{origin}: `{key}`: {fault}")]
    Condition {
        /// Where.
        origin: ValueOrigin,
        /// The whole key.
        key: String,
        /// What is wrong with it.
        fault: ConditionError,
    },
    /// What is said about durable publications, or what they are made from, does not fit together.
    #[error("{origin}: `{key}` needs {needs}")]
    Durable {
        /// Where.
        origin: ValueOrigin,
        /// The whole key.
        key: String,
        /// What is missing.
        needs: &'static str,
    },
    /// What a namespace says about slow subscribers does not fit together.
    #[error("{origin}: `{key}` needs {needs}")]
    SlowConsumer {
        /// Where.
        origin: ValueOrigin,
        /// The whole key.
        key: String,
        /// What is missing.
        needs: &'static str,
    },
    /// A name that means something already.
    #[error("{origin}: `{key}` is a name that has a meaning already; choose another")]
    ReservedName {
        /// Where.
        origin: ValueOrigin,
        /// The whole key.
        key: String,
    },
    /// Both of two things, or neither.
    #[error(
        "{origin}: `{key}` needs a code in exactly one of `to_error` and `to_disconnect`, the latter from 3000 to 4999"
    )]
    OneOfTwo {
        /// Where.
        origin: ValueOrigin,
        /// The whole key.
        key: String,
    },
    /// A status that is an answer by itself.
    #[error("{origin}: `{key}` must not be 200: that is the status of a successful call")]
    StatusOk {
        /// Where.
        origin: ValueOrigin,
        /// The whole key.
        key: String,
    },
    /// Two marks in channel names would be the same.
    #[error(
        "{origin}: `{key}` and `{other}` must differ: both would mean something at the same place of a channel name"
    )]
    SameMark {
        /// Where.
        origin: ValueOrigin,
        /// The whole key.
        key: String,
        /// The other key.
        other: String,
    },
    /// Two ways to say one thing.
    #[error("{origin}: `{key}` and `{other}` exclude each other; remove one of them")]
    Both {
        /// Where.
        origin: ValueOrigin,
        /// The whole key.
        key: String,
        /// The other key.
        other: String,
    },
    /// A previous key without a current one.
    #[error(
        "{origin}: `{key}` is set, so `{current}` must be set too: the previous key is for rotation only"
    )]
    PreviousKeyAlone {
        /// Where.
        origin: ValueOrigin,
        /// The whole key.
        key: String,
        /// The key that is missing.
        current: String,
    },
}

impl ConfigError {
    /// Where it is.
    #[must_use]
    pub const fn origin(&self) -> &ValueOrigin {
        match self {
            Self::Syntax { origin, .. }
            | Self::Json { origin, .. }
            | Self::UnknownKey { origin, .. }
            | Self::WrongType { origin, .. }
            | Self::Malformed { origin, .. }
            | Self::Unworkable { origin, .. }
            | Self::OutOfRange { origin, .. }
            | Self::NotOneOf { origin, .. }
            | Self::NotWholeSeconds { origin, .. }
            | Self::Missing { origin, .. }
            | Self::Repeated { origin, .. }
            | Self::HalfHistory { origin, .. }
            | Self::RecoveryWithoutHistory { origin, .. }
            | Self::CacheWithoutRecovery { origin, .. }
            | Self::HistoryOutlivesMeta { origin, .. }
            | Self::BatchWithoutDelay { origin, .. }
            | Self::PongNotBelowPing { origin, .. }
            | Self::UnknownNamespace { origin, .. }
            | Self::UnknownTarget { origin, .. }
            | Self::Durable { origin, .. }
            | Self::SlowConsumer { origin, .. }
            | Self::ReservedName { origin, .. }
            | Self::OneOfTwo { origin, .. }
            | Self::StatusOk { origin, .. }
            | Self::SameMark { origin, .. }
            | Self::Both { origin, .. }
            | Self::Condition { origin, .. }
            | Self::PreviousKeyAlone { origin, .. } => origin,
        }
    }

    /// The whole key; `None` where there is no key yet.
    #[must_use]
    pub fn key(&self) -> Option<&str> {
        match self {
            Self::Syntax { .. } | Self::Json { .. } => None,
            Self::UnknownKey { key, .. }
            | Self::WrongType { key, .. }
            | Self::Malformed { key, .. }
            | Self::Unworkable { key, .. }
            | Self::OutOfRange { key, .. }
            | Self::NotOneOf { key, .. }
            | Self::NotWholeSeconds { key, .. }
            | Self::Missing { key, .. }
            | Self::Repeated { key, .. }
            | Self::HalfHistory { key, .. }
            | Self::RecoveryWithoutHistory { key, .. }
            | Self::CacheWithoutRecovery { key, .. }
            | Self::HistoryOutlivesMeta { key, .. }
            | Self::BatchWithoutDelay { key, .. }
            | Self::PongNotBelowPing { key, .. }
            | Self::UnknownNamespace { key, .. }
            | Self::UnknownTarget { key, .. }
            | Self::Durable { key, .. }
            | Self::SlowConsumer { key, .. }
            | Self::ReservedName { key, .. }
            | Self::OneOfTwo { key, .. }
            | Self::StatusOk { key, .. }
            | Self::SameMark { key, .. }
            | Self::Both { key, .. }
            | Self::Condition { key, .. }
            | Self::PreviousKeyAlone { key, .. } => Some(key),
        }
    }
}

/// Everything that is wrong with a configuration; never empty. One line each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors(pub Vec<ConfigError>);

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, error) in self.0.iter().enumerate() {
            let line_break = if at == 0 { "" } else { "\n" };
            write!(f, "{line_break}{error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

/// Why a running process keeps its configuration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "nothing was changed: {} cannot change while running; restart the process for it",
    quoted(keys)
)]
pub struct ReloadRefused {
    /// The keys that differ and are read only at start.
    pub keys: Vec<String>,
}

fn quoted(names: &[impl AsRef<str>]) -> String {
    let names: Vec<String> = names
        .iter()
        .map(|name| {
            if name.as_ref().is_empty() {
                "\"\"".to_owned()
            } else {
                format!("`{}`", name.as_ref())
            }
        })
        .collect();
    names.join(", ")
}

fn remedy(nearest: Option<&str>) -> String {
    match nearest {
        Some(nearest) => format!("did you mean `{nearest}`?"),
        None => "remove it, or see `ringmain check` for all keys".to_owned(),
    }
}

const fn or_zero(zero: bool) -> &'static str {
    if zero { ", or 0" } else { "" }
}
