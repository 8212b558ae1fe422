//! `[[sources]]`: tables and logs of others, whose rows and records become publications.

use std::path::PathBuf;
use std::time::Duration;

use super::Secret;

/// One of `sources`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutboxSource {
    /// Unique; it keeps its place in the log under this name.
    pub name: String,
    /// What is read.
    pub kind: SourceKind,
    /// Channel of every publication, with `{topic}`, `{partition}` and `{key}` for those of a record; empty where a column says it.
    pub channel: String,
    /// What happens to what cannot be published.
    pub on_error: OnError,
    /// Rows or records that are read and published together, default 1000.
    pub batch: u32,
    /// Looks for more at least this often, default 1 s.
    pub poll_interval: Duration,
    /// `[sources.postgres]`
    pub postgres: Postgres,
    /// `[sources.kafka]`
    pub kafka: Kafka,
}

/// `sources[].kind`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceKind {
    /// A table of PostgreSQL.
    Postgres,
    /// Logs of a Kafka cluster.
    Kafka,
}

impl SourceKind {
    /// As the file and metrics say it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
            Self::Kafka => "kafka",
        }
    }
}

/// `sources[].on_error`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnError {
    /// The source stands still until it can be published.
    Stop,
    /// It is named in the log, counted, and left where it is.
    Skip,
}

/// `sources[].kafka.start`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartAt {
    /// With the oldest record that is kept.
    Beginning,
    /// With what comes after the source has begun.
    End,
}

/// `[sources.postgres]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Postgres {
    /// Name or address of the server, or the directory of its unix socket; default `127.0.0.1`.
    pub host: String,
    /// Default 5432.
    pub port: u16,
    /// Database.
    pub database: String,
    /// Role.
    pub user: String,
    /// Its password; empty for none.
    pub password: Secret,
    /// File with the password, read at each connection; empty for none.
    pub password_file: PathBuf,
    /// Table, perhaps with its schema before a dot; default `outbox`.
    pub table: String,
    /// Column with a number of its own for each row, default `id`.
    pub id_column: String,
    /// Column with the channel, default `channel`. Not looked at where the source has a channel.
    pub channel_column: String,
    /// Column with the payload, default `data`.
    pub data_column: String,
    /// Column with the idempotency key; empty for none.
    pub key_column: String,
    /// Column with an object of tags; empty for none.
    pub tags_column: String,
    /// Column with a trace id; empty for none.
    pub trace_column: String,
    /// Column with the version of the payload's schema; empty for none.
    pub schema_column: String,
    /// Column with how many milliseconds the publication is kept; empty for none.
    pub ttl_column: String,
    /// Rows that were published are deleted, default true.
    pub delete: bool,
    /// Column with the number of the row's transaction, default `xact`. Needed where rows stay.
    pub xact_column: String,
    /// Channel of `NOTIFY` that says that there are rows; empty for none.
    pub listen: String,
}

/// `[sources.kafka]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kafka {
    /// Servers that are asked for the others.
    pub brokers: Vec<String>,
    /// What is read, with all partitions.
    pub topics: Vec<String>,
    /// Where a partition begins that was never read, default the beginning.
    pub start: StartAt,
    /// User of SASL/PLAIN; empty for none.
    pub user: String,
    /// Its password.
    pub password: Secret,
    /// File with the password, read at each connection; empty for none.
    pub password_file: PathBuf,
}

impl Default for OutboxSource {
    fn default() -> Self {
        Self {
            name: String::new(),
            kind: SourceKind::Postgres,
            channel: String::new(),
            on_error: OnError::Stop,
            batch: 1000,
            poll_interval: Duration::from_secs(1),
            postgres: Postgres {
                host: "127.0.0.1".to_owned(),
                port: 5432,
                database: String::new(),
                user: String::new(),
                password: Secret::default(),
                password_file: PathBuf::new(),
                table: "outbox".to_owned(),
                id_column: "id".to_owned(),
                channel_column: "channel".to_owned(),
                data_column: "data".to_owned(),
                key_column: String::new(),
                tags_column: String::new(),
                trace_column: String::new(),
                schema_column: String::new(),
                ttl_column: String::new(),
                delete: true,
                xact_column: "xact".to_owned(),
                listen: String::new(),
            },
            kafka: Kafka {
                brokers: Vec::new(),
                topics: Vec::new(),
                start: StartAt::Beginning,
                user: String::new(),
                password: Secret::default(),
                password_file: PathBuf::new(),
            },
        }
    }
}

/// The channel of a record: a text with names in braces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelPattern(Vec<ChannelPart>);

/// A part of it.
#[derive(Clone, Debug, PartialEq, Eq)]
enum ChannelPart {
    Text(String),
    Log,
    Partition,
    Key,
}

impl ChannelPattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        const UNKNOWN: &str = "{topic}, {partition} or {key} between braces";
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some(open) = rest.find(['{', '}']) {
            let (before, behind) = rest.split_at(open);
            let Some((name, after)) = behind.strip_prefix('{').and_then(|b| b.split_once('}'))
            else {
                return Err(UNKNOWN);
            };
            if !before.is_empty() {
                parts.push(ChannelPart::Text(before.to_owned()));
            }
            parts.push(match name {
                "topic" => ChannelPart::Log,
                "partition" => ChannelPart::Partition,
                "key" => ChannelPart::Key,
                _ => return Err(UNKNOWN),
            });
            rest = after;
        }
        if !rest.is_empty() {
            parts.push(ChannelPart::Text(rest.to_owned()));
        }
        Ok(Self(parts))
    }

    /// Is it the same for all?
    #[must_use]
    pub fn is_fixed(&self) -> bool {
        let mut parts = self.0.iter();
        parts.all(|part| matches!(part, ChannelPart::Text(_)))
    }

    /// What it begins with, whatever the record.
    #[must_use]
    pub fn start(&self) -> &str {
        match self.0.first() {
            Some(ChannelPart::Text(text)) => text,
            _ => "",
        }
    }

    /// The channel of one record; `None` where the pattern wants a key and there is none.
    #[must_use]
    pub fn fill(&self, log: &str, partition: i32, key: Option<&str>) -> Option<String> {
        let mut out = String::new();
        for part in &self.0 {
            match part {
                ChannelPart::Text(text) => out.push_str(text),
                ChannelPart::Log => out.push_str(log),
                ChannelPart::Partition => out.push_str(&partition.to_string()),
                ChannelPart::Key => out.push_str(key?),
            }
        }
        Some(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_is_filled_with_what_the_record_has() {
        let fill = |text: &str, key| {
            let pattern = ChannelPattern::parse(text).expect("a pattern");
            pattern.fill("shop.orders", 3, key)
        };
        assert_eq!(fill("orders:all", None).as_deref(), Some("orders:all"));
        assert_eq!(fill("orders:{key}", Some("7")).as_deref(), Some("orders:7"));
        assert_eq!(fill("orders:{key}", None), None);
        assert_eq!(
            fill("{topic}:{partition}/{key}", Some("k")).as_deref(),
            Some("shop.orders:3/k")
        );
        for wrong in ["orders:{id}", "orders:{", "orders:}", "{}", "{key"] {
            assert!(ChannelPattern::parse(wrong).is_err(), "{wrong}");
        }
        let pattern = |text| ChannelPattern::parse(text).expect("a pattern");
        assert!(pattern("orders:x").is_fixed() && !pattern("orders:{key}").is_fixed());
        assert_eq!(pattern("orders:{key}").start(), "orders:");
        assert_eq!(pattern("{key}").start(), "");
    }
}
