//! What sources say, where one key alone cannot tell.

use super::super::super::Config;
use super::super::super::sources::{ChannelPattern, OutboxSource, SourceKind};
use super::super::reader::Keys;
use super::super::{ConfigError, ValueOrigin};
use super::{durable, refused};
use crate::limits::SOURCES_MAX;

/// Adds everything that does not fit together. The namespaces are still in the order of the file.
pub(super) fn check(config: &Config, keys: &Keys, errors: &mut Vec<ConfigError>) {
    for (index, source) in config.sources.iter().enumerate() {
        let path = format!("sources[{index}]");
        name(&path, index, config, keys, errors);
        let mut found = Found { keys, errors };
        if index == SOURCES_MAX {
            found.needs(path.clone(), "to be one of at most 64 sources");
        }
        channel(&path, source, config, &mut found);
        match source.kind {
            SourceKind::Postgres => postgres(&path, source, &mut found),
            SourceKind::Kafka => kafka(&path, source, &mut found),
        }
    }
}

struct Found<'a> {
    keys: &'a Keys,
    errors: &'a mut Vec<ConfigError>,
}

impl Found<'_> {
    fn needs(&mut self, key: String, needs: &'static str) {
        self.errors.push(ConfigError::Durable {
            origin: self.keys.origin(&key),
            key,
            needs,
        });
    }

    /// A key without which there is nothing to do. One whose value was refused stands somewhere.
    fn missing(&mut self, path: &str, name: &str) {
        let key = format!("{path}.{name}");
        if !refused(self.errors, &[&key]) {
            self.errors.push(ConfigError::Missing {
                origin: self.keys.origin(path),
                key,
            });
        }
    }

    fn is_written(&self, key: &str) -> bool {
        self.keys.origin(key) != ValueOrigin::BuiltIn
    }

    fn passwords(&mut self, path: &str, password: bool, file: bool) {
        if password && file {
            let key = format!("{path}.password_file");
            self.errors.push(ConfigError::Both {
                origin: self.keys.origin(&key),
                key,
                other: format!("{path}.password"),
            });
        }
    }
}

fn name(path: &str, index: usize, config: &Config, keys: &Keys, errors: &mut Vec<ConfigError>) {
    let key = format!("{path}.name");
    let name = &config.sources[index].name;
    let mut before = config.sources[..index].iter();
    if name.is_empty() {
        Found { keys, errors }.missing(path, "name");
    } else if let Some(first) = before.position(|other| other.name == *name) {
        let first = keys.origin(&format!("sources[{first}].name"));
        errors.push(ConfigError::Repeated {
            origin: keys.origin(&key),
            key,
            first,
        });
    }
}

fn channel(path: &str, source: &OutboxSource, config: &Config, found: &mut Found<'_>) {
    const DURABLE: &str = "a channel of a namespace with `delivery = \"durable\"`";
    let key = format!("{path}.channel");
    if source.channel.is_empty() {
        if source.kind == SourceKind::Kafka {
            found.missing(path, "channel");
        } else if !config.is_durable() {
            found.needs(path.to_owned(), "a namespace with `delivery = \"durable\"`");
        }
        return;
    }
    let pattern = match ChannelPattern::parse(&source.channel) {
        Ok(pattern) => pattern,
        Err(needs) => return found.needs(key, needs),
    };
    if source.kind == SourceKind::Postgres && !pattern.is_fixed() {
        return found.needs(
            key,
            "no braces: what differs between rows stands in `channel_column`",
        );
    }
    let start = pattern.start();
    let is_known = pattern.is_fixed() || start.contains(&config.channels.namespace_boundary);
    let is_durable = match is_known {
        true => durable::is_durable(&config.channels, start),
        false => config.is_durable(),
    };
    if !is_durable {
        found.needs(key, DURABLE);
    }
}

fn postgres(path: &str, source: &OutboxSource, found: &mut Found<'_>) {
    let postgres = &source.postgres;
    if source.kafka != OutboxSource::default().kafka {
        found.needs(format!("{path}.kafka"), "`kind = \"kafka\"`");
    }
    let path = format!("{path}.postgres");
    for (name, value) in [("database", &postgres.database), ("user", &postgres.user)] {
        if value.is_empty() {
            found.missing(&path, name);
        }
    }
    let has_password = !postgres.password.0.is_empty();
    let has_file = !postgres.password_file.as_os_str().is_empty();
    found.passwords(&path, has_password, has_file);
}

fn kafka(path: &str, source: &OutboxSource, found: &mut Found<'_>) {
    let kafka = &source.kafka;
    if source.postgres != OutboxSource::default().postgres {
        found.needs(format!("{path}.postgres"), "`kind = \"postgres\"`");
    }
    let path = format!("{path}.kafka");
    if kafka.brokers.is_empty() && !found.is_written(&format!("{path}.brokers[0]")) {
        found.missing(&path, "brokers");
    }
    if kafka.topics.is_empty() && !found.is_written(&format!("{path}.topics[0]")) {
        found.missing(&path, "topics");
    }
    let has_password = !kafka.password.0.is_empty();
    let has_file = !kafka.password_file.as_os_str().is_empty();
    found.passwords(&path, has_password, has_file);
    if kafka.user.is_empty() && (has_password || has_file) {
        found.missing(&path, "user");
    }
}
