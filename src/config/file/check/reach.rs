//! What is well-formed and yet nobody would reach, or could use.

use super::super::super::durable::{Engine, Join};
use super::super::super::namespace::Namespace;
use super::super::super::{Config, Secret};
use super::super::reader::Keys;
use super::super::{ConfigError, ValueOrigin};
use super::{endpoints, refused};

/// Adds everything that could not work.
pub(super) fn check(config: &Config, keys: &Keys, errors: &mut Vec<ConfigError>) {
    shadows(config, keys, errors);
    names(config, keys, errors);
    transforms(config, keys, errors);
    triggers(config, keys, errors);
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

pub(super) fn unworkable(key: &str, why: String, keys: &Keys, errors: &mut Vec<ConfigError>) {
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
pub(super) fn header_value(key: &str, secret: &Secret, keys: &Keys, errors: &mut Vec<ConfigError>) {
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
            ValueOrigin::BuiltIn => "poll.max_timeout",
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
    for (path, namespace) in super::all_namespaces(config) {
        if usize::try_from(namespace.size_max).is_ok_and(|size| size > queue) {
            let why = "a publication of this size would not fit into client.queue_max_size: every subscriber would be disconnected as slow".to_owned();
            unworkable(&format!("{path}.size_max"), why, keys, errors);
        }
    }
}

/// A namespace that no name leads to.
fn names(config: &Config, keys: &Keys, errors: &mut Vec<ConfigError>) {
    let common = &config.channels;
    let (boundary, prefix) = (
        common.namespace_boundary.as_str(),
        common.private_prefix.as_str(),
    );
    let all = super::all_rules(config).into_iter();
    let all = all.flat_map(|(path, rules)| {
        let members = rules.namespaces.iter().enumerate();
        members.map(move |(index, one)| (format!("{path}.namespaces[{index}].name"), one))
    });
    for (key, namespace) in all {
        let name = namespace.name.as_str();
        let why = if name.is_empty() {
            continue;
        } else if name.contains(boundary) {
            "no channel is in it, as a namespace ends at channel.namespace_boundary, which this name contains"
        } else if !prefix.is_empty() && name.starts_with(prefix) {
            "it begins with channel.private_prefix, which is taken off before the namespace is looked for"
        } else if name.len() + boundary.len() >= common.max_length {
            "channel.max_length leaves no room for a channel of this namespace"
        } else {
            continue;
        };
        unworkable(&key, why.to_owned(), keys, errors);
    }
    let methods = &config.hooks.methods;
    for (index, namespace) in methods.namespaces.iter().enumerate() {
        if namespace.name.contains(&methods.namespace_boundary) {
            let why = "no method is in it, as a namespace ends at rpc.namespace_boundary, which this name contains";
            let key = format!("rpc.namespaces[{index}].name");
            unworkable(&key, why.to_owned(), keys, errors);
        }
    }
}

/// What becomes of no code is nothing.
fn transforms(config: &Config, keys: &Keys, errors: &mut Vec<ConfigError>) {
    let codes = |codes: &[u32]| -> Vec<usize> {
        let at = codes.iter().enumerate().filter(|(_, code)| **code == 0);
        at.map(|(index, _)| index).collect()
    };
    let disconnects = &config.client.connect_code_to_unidirectional_disconnect;
    let (sse, stream) = (
        &config.uni_sse.connect_code_to_http_response,
        &config.uni_http_stream.connect_code_to_http_response,
    );
    let of = |list: &[(u32, _)]| list.iter().map(|(code, _)| *code).collect::<Vec<u32>>();
    for (path, without) in [
        (
            "client.connect_code_to_unidirectional_disconnect",
            codes(
                &disconnects
                    .transforms
                    .iter()
                    .map(|(code, _)| *code)
                    .collect::<Vec<u32>>(),
            ),
        ),
        (
            "uni_sse.connect_code_to_http_response",
            codes(&of(&sse.transforms)),
        ),
        (
            "uni_http_stream.connect_code_to_http_response",
            codes(&of(&stream.transforms)),
        ),
    ] {
        for index in without {
            let table = format!("{path}.transforms[{index}]");
            let key = format!("{table}.code");
            // A code that was refused stands somewhere.
            if keys.origin(&key) == ValueOrigin::BuiltIn {
                errors.push(ConfigError::Missing {
                    origin: keys.origin(&table),
                    key,
                });
            }
        }
    }
}

/// A trigger that nothing sets off, or whose target is not what it looks like.
fn triggers(config: &Config, keys: &Keys, errors: &mut Vec<ConfigError>) {
    let rules = &config.channels;
    if !rules.without_namespace.triggers.is_empty() && rules.without_namespace.is_durable() {
        let why = "only a namespace with a name has triggers".to_owned();
        unworkable("channel.without_namespace.triggers", why, keys, errors);
    }
    for (index, namespace) in rules.namespaces.iter().enumerate() {
        let start = format!("{}{}", namespace.name, rules.namespace_boundary);
        for (at, key, why) in idle_triggers(namespace, &start) {
            let key = format!("channel.namespaces[{index}].triggers[{at}].{key}");
            unworkable(&key, why, keys, errors);
        }
    }
}

fn idle_triggers(namespace: &Namespace, start: &str) -> Vec<(usize, &'static str, String)> {
    let mut found = Vec::new();
    for (at, trigger) in namespace.triggers.iter().enumerate() {
        let fixed = trigger.channels.split('*').next().unwrap_or_default();
        let meets = start.starts_with(fixed) || fixed.starts_with(start);
        if !trigger.channels.is_empty() && !meets {
            let why = format!("no channel of this namespace matches: they begin with {start}");
            found.push((at, "channels", why));
        }
        let bare = trigger
            .append
            .replace("{channel}", "")
            .replace("{rest}", "");
        let joins = trigger.join != Join::default();
        let bare = match joins {
            true => bare.replace("{key}", ""),
            false => bare,
        };
        if bare.contains(['{', '}']) {
            let why = match joins {
                true => "only {channel}, {rest} and {key} stand for something here",
                false => {
                    "only {channel} and {rest} stand for something here, and {key} where the trigger has a `join`"
                }
            };
            found.push((at, "append", why.to_owned()));
        }
    }
    found
}
