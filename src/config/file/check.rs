//! What one key alone cannot tell (`spec/centrifuge.md` §7.3, end).

mod access;
mod durable;
mod hooks;
mod outbox;
mod reach;
mod sources;
mod tenants;

use super::super::namespace::{ChannelRules, Namespace, RecoveryMode};
use super::super::{Client, Config, ListenAddr, Token};
use super::reader::Keys;
use super::{ConfigError, ValueOrigin};

/// Adds everything that does not fit together. The namespaces are still in the order of the file.
pub(super) fn check(config: &Config, keys: &Keys, errors: &mut Vec<ConfigError>) {
    listeners(config, keys, errors);
    paths(config, keys, errors);
    reach::check(config, keys, errors);
    access::check(config, keys, errors);
    client(&config.client, &config.channels, keys, errors);
    marks(&config.channels, keys, errors);
    hooks::check(config, keys, errors);
    durable::check(config, keys, errors);
    sources::check(config, keys, errors);
    outbox::check(config, keys, errors);
    tenants::check(config, keys, errors);
    for (path, rules) in all_rules(config) {
        namespace(
            &format!("{path}.without_namespace"),
            &rules.without_namespace,
            keys,
            errors,
        );
        for (index, one) in rules.namespaces.iter().enumerate() {
            let namespaces = format!("{path}.namespaces");
            namespace(&format!("{namespaces}[{index}]"), one, keys, errors);
            name(&namespaces, index, rules, keys, errors);
        }
    }
}

/// The rules of channels, of everybody and of each set, and where they stand.
pub(super) fn all_rules(config: &Config) -> Vec<(String, &ChannelRules)> {
    let sets = config.channel_sets.iter().enumerate();
    let sets = sets.map(|(index, set)| (format!("channel_sets[{index}]"), &set.rules));
    let all = std::iter::once(("channel".to_owned(), &config.channels));
    all.chain(sets).collect()
}

/// All namespaces, and where they stand.
pub(super) fn all_namespaces(config: &Config) -> Vec<(String, &Namespace)> {
    let of = |(path, rules): (String, _)| -> Vec<(String, &Namespace)> {
        let rules: &ChannelRules = rules;
        let without: (_, &Namespace) = (
            format!("{path}.without_namespace"),
            &rules.without_namespace,
        );
        let members = rules.namespaces.iter().enumerate();
        let members = members.map(|(index, one)| (format!("{path}.namespaces[{index}]"), &**one));
        std::iter::once(without).chain(members).collect()
    };
    all_rules(config).into_iter().flat_map(of).collect()
}

/// Was a value of these keys refused? Then a default stands in its place, and says nothing about the file.
pub(super) fn refused(errors: &[ConfigError], keys: &[&str]) -> bool {
    errors
        .iter()
        .filter_map(ConfigError::key)
        .any(|key| keys.contains(&key))
}

fn listeners(config: &Config, keys: &Keys, errors: &mut Vec<ConfigError>) {
    let listen = &config.server.listen;
    // Members that were refused stand somewhere; then their own errors say enough.
    if listen.is_empty() && keys.origin("server.listen[0]") == ValueOrigin::BuiltIn {
        let key = "server.listen".to_owned();
        errors.push(ConfigError::Missing {
            origin: keys.origin(&key),
            key,
        });
    }
    let member = |list: &'static str| {
        move |(index, addr): (usize, &ListenAddr)| (format!("{list}[{index}]"), addr.clone())
    };
    let clients = listen.iter().enumerate().map(member("server.listen"));
    let internal = &config.server.internal_listen;
    let internal = internal
        .iter()
        .enumerate()
        .map(member("server.internal_listen"));
    let admin = config.admin.listen.clone();
    let admin = admin.map(|addr| ("admin.listen".to_owned(), addr));
    let all: Vec<(String, ListenAddr)> = clients.chain(internal).chain(admin).collect();
    for (index, (key, addr)) in all.iter().enumerate() {
        // The admin listener is the last.
        let is_admin = key == "admin.listen";
        let mut before = all[..index].iter();
        if let Some((first, _)) = before.find(|(_, other)| meets(addr, is_admin, other)) {
            errors.push(ConfigError::Repeated {
                origin: keys.origin(key),
                key: key.clone(),
                first: keys.origin(first),
            });
        }
    }
}

/// Would a connection to one of these be one to the other? Every address of a family is all of that family, and `[::]` of the
/// admin listener is IPv4 as well.
fn meets(one: &ListenAddr, is_admin: bool, other: &ListenAddr) -> bool {
    match (one, other) {
        (ListenAddr::Tcp(one), ListenAddr::Tcp(other)) => {
            let is_one_family = one.is_ipv4() == other.is_ipv4();
            let is_all = one.ip().is_unspecified() || other.ip().is_unspecified();
            let is_both_families = is_admin && one.is_ipv6() && one.ip().is_unspecified();
            one.port() != 0
                && one.port() == other.port()
                && (one.ip() == other.ip() || is_one_family && is_all || is_both_families)
        }
        (one, other) => one == other,
    }
}

/// The endpoints of clients: section, whether it is on, and where.
pub(super) fn endpoints(config: &Config) -> [(&'static str, bool, &str); 10] {
    let emulation = config.http_stream.enabled || config.sse.enabled;
    let (websocket, uni_websocket) = (&config.websocket, &config.uni_websocket);
    let (stream, sse) = (&config.http_stream, &config.sse);
    let (uni_stream, uni_sse) = (&config.uni_http_stream, &config.uni_sse);
    [
        ("websocket", !websocket.disabled, &websocket.handler_prefix),
        ("http_stream", stream.enabled, &stream.handler_prefix),
        ("sse", sse.enabled, &sse.handler_prefix),
        ("emulation", emulation, &config.emulation.handler_prefix),
        (
            "uni_websocket",
            uni_websocket.enabled,
            &uni_websocket.handler_prefix,
        ),
        ("uni_sse", uni_sse.enabled, &uni_sse.handler_prefix),
        (
            "uni_http_stream",
            uni_stream.enabled,
            &uni_stream.handler_prefix,
        ),
        ("init", config.init.enabled, &config.init.handler_prefix),
        ("poll", config.poll.enabled, &config.poll.handler_prefix),
        (
            "health",
            config.health.enabled,
            &config.health.handler_prefix,
        ),
    ]
}

/// Two endpoints cannot be at one path.
fn paths(config: &Config, keys: &Keys, errors: &mut Vec<ConfigError>) {
    let paths = endpoints(config);
    for (index, (section, on, path)) in paths.iter().enumerate() {
        let first = paths[..index]
            .iter()
            .find(|(_, other_on, other)| *on && *other_on && path == other);
        if let Some((first, _, _)) = first {
            let origin = |section: &str| keys.origin(&format!("{section}.handler_prefix"));
            // The one that was written is the one to change.
            let (section, first) = match origin(section) {
                ValueOrigin::BuiltIn => (first, section),
                _ => (section, first),
            };
            errors.push(ConfigError::Repeated {
                origin: origin(section),
                key: format!("{section}.handler_prefix"),
                first: origin(first),
            });
        }
    }
}

fn client(client: &Client, rules: &ChannelRules, keys: &Keys, errors: &mut Vec<ConfigError>) {
    let late = client
        .ping_interval
        .is_some_and(|interval| client.pong_timeout >= interval);
    if late && !refused(errors, &["client.ping_interval", "client.pong_timeout"]) {
        // Either of the two may be the one that was written.
        let origin = match keys.origin("client.pong_timeout") {
            ValueOrigin::BuiltIn => keys.origin("client.ping_interval"),
            origin => origin,
        };
        errors.push(ConfigError::PongNotBelowPing {
            origin,
            key: "client.pong_timeout".to_owned(),
        });
    }
    token("client.token", &client.token, keys, errors);
    if client.subscription_token != client.token {
        token(
            "client.subscription_token",
            &client.subscription_token,
            keys,
            errors,
        );
    }
    if let Some(name) = client
        .user_personal_channel
        .as_deref()
        .filter(|name| !name.is_empty())
        && !rules
            .namespaces
            .iter()
            .any(|namespace| namespace.name == name)
    {
        let key = "client.subscribe_to_user_personal_channel.personal_channel_namespace".to_owned();
        errors.push(ConfigError::UnknownNamespace {
            origin: keys.origin(&key),
            key,
        });
    }
}

fn token(path: &str, token: &Token, keys: &Keys, errors: &mut Vec<ConfigError>) {
    for (name, exact, pattern) in [
        ("audience", &token.audience, &token.audience_regex),
        ("issuer", &token.issuer, &token.issuer_regex),
    ] {
        if !exact.is_empty() && pattern.is_some() {
            let key = format!("{path}.{name}_regex");
            errors.push(ConfigError::Both {
                origin: keys.origin(&key),
                key,
                other: format!("{path}.{name}"),
            });
        }
    }
    let (rsa, ecdsa) = (&token.rsa_public_key, &token.ecdsa_public_key);
    let has_previous = !token.hmac_previous_secret_key.0.is_empty();
    let (old_rsa, old_ecdsa) = (
        &token.rsa_previous_public_key,
        &token.ecdsa_previous_public_key,
    );
    for (current, previous, is_alone) in [
        (
            "hmac_secret_key",
            "hmac_previous_secret_key",
            token.hmac_secret_key.0.is_empty() && has_previous,
        ),
        (
            "rsa_public_key",
            "rsa_previous_public_key",
            rsa.is_none() && old_rsa.is_some(),
        ),
        (
            "ecdsa_public_key",
            "ecdsa_previous_public_key",
            ecdsa.is_none() && old_ecdsa.is_some(),
        ),
    ] {
        let current = format!("{path}.{current}");
        if is_alone && !refused(errors, &[&current]) {
            let key = format!("{path}.{previous}");
            errors.push(ConfigError::PreviousKeyAlone {
                origin: keys.origin(&key),
                key,
                current,
            });
        }
    }
}

/// Marks that are looked for in the same text must differ.
fn marks(rules: &ChannelRules, keys: &Keys, errors: &mut Vec<ConfigError>) {
    let marks = [
        ("channel.private_prefix", &rules.private_prefix),
        ("channel.namespace_boundary", &rules.namespace_boundary),
        ("channel.user_boundary", &rules.user_boundary),
        ("channel.user_separator", &rules.user_separator),
    ];
    for (at, (key, mark)) in marks.iter().enumerate() {
        let Some((other, _)) = marks[..at].iter().find(|(_, other)| other == mark) else {
            continue;
        };
        let origin = match keys.origin(key) {
            ValueOrigin::BuiltIn => keys.origin(other),
            origin => origin,
        };
        errors.push(ConfigError::SameMark {
            origin,
            key: (*key).to_owned(),
            other: (*other).to_owned(),
        });
    }
}

fn name(
    namespaces: &str,
    index: usize,
    rules: &ChannelRules,
    keys: &Keys,
    errors: &mut Vec<ConfigError>,
) {
    let path = format!("{namespaces}[{index}]");
    let key = format!("{path}.name");
    let name = &rules.namespaces[index].name;
    if name.is_empty() {
        // A name that was refused stands somewhere; one that is missing does not.
        if keys.origin(&key) == ValueOrigin::BuiltIn {
            errors.push(ConfigError::Missing {
                origin: keys.origin(&path),
                key,
            });
        }
    } else if let Some(first) = rules.namespaces[..index]
        .iter()
        .position(|other| other.name == *name)
    {
        let first = keys.origin(&format!("{namespaces}[{first}].name"));
        errors.push(ConfigError::Repeated {
            origin: keys.origin(&key),
            key,
            first,
        });
    }
}

fn namespace(path: &str, namespace: &Namespace, keys: &Keys, errors: &mut Vec<ConfigError>) {
    let key = |option: &str| format!("{path}.{option}");
    if namespace.batch_max_delay.is_zero() && !refused(errors, &[&key("batch_max_delay")]) {
        let set = [
            ("batch_max_size", namespace.batch_max_size > 0),
            ("batch_flush_latest", namespace.batch_flush_latest),
        ];
        for (option, _) in set.into_iter().filter(|(_, is_set)| *is_set) {
            errors.push(ConfigError::BatchWithoutDelay {
                origin: keys.origin(&key(option)),
                key: key(option),
            });
        }
    }
    if refused(
        errors,
        &[
            &key("history_size"),
            &key("history_ttl"),
            &key("history_meta_ttl"),
        ],
    ) {
        return;
    }
    let (size, ttl) = (namespace.history_size > 0, !namespace.history_ttl.is_zero());
    if size != ttl {
        let (set, missing) = if size {
            ("history_size", "history_ttl")
        } else {
            ("history_ttl", "history_size")
        };
        let (key, missing) = (key(set), key(missing));
        errors.push(ConfigError::HalfHistory {
            origin: keys.origin(&key),
            key,
            missing,
        });
    } else if namespace.force_recovery && !size {
        let key = key("force_recovery");
        errors.push(ConfigError::RecoveryWithoutHistory {
            origin: keys.origin(&key),
            key,
        });
    }
    if namespace.auto_cache_recover
        && !(namespace.force_recovery && namespace.force_recovery_mode == RecoveryMode::Cache)
        && !refused(errors, &[&key("force_recovery_mode")])
    {
        let key = key("auto_cache_recover");
        errors.push(ConfigError::CacheWithoutRecovery {
            origin: keys.origin(&key),
            key,
        });
    }
    if namespace.history_ttl > namespace.history_meta_ttl {
        let (key, meta) = (key("history_ttl"), key("history_meta_ttl"));
        errors.push(ConfigError::HistoryOutlivesMeta {
            origin: keys.origin(&key),
            key,
            meta,
        });
    }
}
