//! What is well-formed and yet nobody would reach, or could use.

use super::super::durable::Engine;
use super::super::{Config, Secret};
use super::check::{endpoints, refused};
use super::reader::Keys;
use super::{ConfigError, Origin};

/// Adds everything that could not work.
pub(super) fn check(config: &Config, keys: &Keys, errors: &mut Vec<ConfigError>) {
    shadows(config, keys, errors);
    header_value("http_api.key", &config.http_api.key, keys, errors);
    poll(config, keys, errors);
    sizes(config, keys, errors);
    if config.is_durable()
        && config.durable.engine == Engine::Nats
        && config.durable.nats.servers.is_empty()
    {
        let why = "a log in NATS needs at least one server".to_owned();
        unworkable("durable.nats.servers", why, keys, errors);
    }
}

fn unworkable(key: &str, why: String, keys: &Keys, errors: &mut Vec<ConfigError>) {
    errors.push(ConfigError::Unworkable {
        origin: keys.origin(key),
        key: key.to_owned(),
        why,
    });
}

/// Clients' endpoints are looked for before those of services.
fn shadows(config: &Config, keys: &Keys, errors: &mut Vec<ConfigError>) {
    const API: &str = "/api";
    for (section, is_on, path) in endpoints(config) {
        let is_of_api = path
            .strip_prefix(API)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        if is_on && is_of_api {
            let why = format!(
                "{path} is where the server API is, which nobody would reach there; choose another path"
            );
            unworkable(&format!("{section}.handler_prefix"), why, keys, errors);
        }
    }
}

/// What comes in a header has no line breaks and no blanks around it.
fn header_value(key: &str, secret: &Secret, keys: &Keys, errors: &mut Vec<ConfigError>) {
    let text = secret.0.as_str();
    let why = if text.ends_with(['\n', '\r']) {
        "it ends with a line break, as files of secrets often do, and no header can carry that; take it off where the secret is made (printf instead of echo)"
    } else if text.contains(|c: char| c.is_control()) {
        "it has a control character, which no header can carry"
    } else if text.trim() != text {
        "it has blanks at an end, which headers lose"
    } else {
        return;
    };
    unworkable(key, why.to_owned(), keys, errors);
}

fn poll(config: &Config, keys: &Keys, errors: &mut Vec<ConfigError>) {
    let poll = &config.poll;
    if poll.timeout > poll.max_timeout && !refused(errors, &["poll.timeout", "poll.max_timeout"]) {
        // Either of the two may be the one that was written.
        let key = match keys.origin("poll.timeout") {
            Origin::BuiltIn => "poll.max_timeout",
            _ => "poll.timeout",
        };
        let why = "poll.timeout must not be longer than poll.max_timeout".to_owned();
        unworkable(key, why, keys, errors);
    }
}

/// A publication that fills the queue of every subscriber ends all of their connections.
fn sizes(config: &Config, keys: &Keys, errors: &mut Vec<ConfigError>) {
    let queue = config.client.queue_max_size;
    if refused(errors, &["client.queue_max_size"]) {
        return;
    }
    let rules = &config.channels;
    let members = rules.namespaces.iter().enumerate();
    let paths = members.map(|(index, one)| (format!("channel.namespaces[{index}]"), one));
    let without = (
        "channel.without_namespace".to_owned(),
        &rules.without_namespace,
    );
    for (path, namespace) in std::iter::once(without).chain(paths) {
        if usize::try_from(namespace.size_max).is_ok_and(|size| size > queue) {
            let why = "a publication of this size would not fit into client.queue_max_size: every subscriber would be disconnected as slow".to_owned();
            unworkable(&format!("{path}.size_max"), why, keys, errors);
        }
    }
}
