//! Keys of services and of operators: what one of them alone, and what all together cannot be.

use std::collections::BTreeMap;

use super::super::super::access::{AccessKey, CHANNEL_METHODS, HIDDEN, KeyDigest};
use super::super::super::hooks::Signing;
use super::super::super::{ChannelRules, Config, Secret};
use super::super::reader::Keys;
use super::super::{ConfigError, ValueOrigin};
use super::reach::{header_value, unworkable};
use super::refused;
use crate::limits::ACCESS_KEYS_MAX;

/// Adds everything that does not fit together.
pub(super) fn check(config: &Config, keys: &Keys, errors: &mut Vec<ConfigError>) {
    let (api, admin) = (&config.http_api, &config.admin);
    header_value("http_api.key", &api.key, keys, errors);
    header_value("admin.key", &admin.key, keys, errors);
    for (table, unnamed, list) in [
        ("http_api", &api.key, &api.keys),
        ("admin", &admin.key, &admin.keys),
    ] {
        if list.len() > ACCESS_KEYS_MAX {
            let why =
                format!("there are at most {ACCESS_KEYS_MAX} keys; take out what nobody uses");
            unworkable(&format!("{table}.keys"), why, keys, errors);
        }
        for index in 0..list.len() {
            one(table, list, index, keys, errors);
            unlike(table, unnamed, list, index, keys, errors);
        }
    }
    for (index, key) in api.keys.iter().enumerate() {
        let path = format!("http_api.keys[{index}]");
        scope(&config.channels, &path, key, keys, errors);
    }
    tenants(config, keys, errors);
    signing(config, keys, errors);
}

/// A tenant's key opens what is that tenant's, so it is nobody else's.
fn tenants(config: &Config, keys: &Keys, errors: &mut Vec<ConfigError>) {
    let mut seen: BTreeMap<&KeyDigest, String> = BTreeMap::new();
    let of_all = config.http_api.keys.iter().enumerate();
    seen.extend(
        of_all.filter_map(|(at, key)| Some((key.digest()?, format!("http_api.keys[{at}]")))),
    );
    for (at, tenant) in config.tenants.list.iter().enumerate() {
        let table = format!("tenants[{at}]");
        if tenant.keys.len() > ACCESS_KEYS_MAX {
            let why =
                format!("there are at most {ACCESS_KEYS_MAX} keys; take out what nobody uses");
            unworkable(&format!("{table}.keys"), why, keys, errors);
        }
        let set = config
            .channel_sets
            .iter()
            .find(|set| set.name == tenant.channel_set);
        let rules = set.map_or(&config.channels, |set| &set.rules);
        for (index, key) in tenant.keys.iter().enumerate() {
            let path = format!("{table}.keys[{index}]");
            one(&table, &tenant.keys, index, keys, errors);
            scope(rules, &path, key, keys, errors);
            let first = match key.digest() {
                _ if key.is_key(&config.http_api.key) => Some("http_api.key".to_owned()),
                Some(digest) => seen.insert(digest, path.clone()),
                None => None,
            };
            if let Some(first) = first {
                errors.push(ConfigError::Repeated {
                    origin: keys.origin(&path),
                    key: path,
                    first: keys.origin(&first),
                });
            }
        }
    }
}

fn one(table: &str, list: &[AccessKey], index: usize, keys: &Keys, errors: &mut Vec<ConfigError>) {
    let path = format!("{table}.keys[{index}]");
    let key = &list[index];
    let name = format!("{path}.name");
    if key.name.is_empty() {
        // A name that was refused stands somewhere; one that is missing does not.
        if keys.origin(&name) == ValueOrigin::BuiltIn {
            errors.push(ConfigError::Missing {
                origin: keys.origin(&path),
                key: name,
            });
        }
    } else if let Some(first) = list[..index].iter().position(|one| one.name == key.name) {
        errors.push(ConfigError::Repeated {
            origin: keys.origin(&name),
            key: name,
            first: keys.origin(&format!("{table}.keys[{first}].name")),
        });
    }
    let (plain, hash) = (format!("{path}.key"), format!("{path}.hash"));
    match (key.key.0.is_empty(), key.hash.0.is_empty()) {
        (true, true) if !refused(errors, &[&plain, &hash]) => {
            let why = "it needs `key` or `hash`: `ringmain key new` makes both".to_owned();
            errors.push(ConfigError::Unworkable {
                origin: keys.origin(&path),
                key: path,
                why,
            });
        }
        (false, false) => errors.push(ConfigError::Both {
            origin: keys.origin(&hash),
            key: hash,
            other: plain,
        }),
        (false, true) => header_value(&plain, &key.key, keys, errors),
        (true, false) if key.hash.0 != HIDDEN && KeyDigest::parse(&key.hash.0).is_none() => {
            errors.push(ConfigError::Malformed {
                origin: keys.origin(&hash),
                key: hash,
                expected: "\"sha256:\" and 64 hexadecimal digits, as `ringmain key hash` makes them of a key",
            });
        }
        (true, _) => {}
    }
}

/// One key opens one thing.
fn unlike(
    table: &str,
    unnamed: &Secret,
    list: &[AccessKey],
    index: usize,
    keys: &Keys,
    errors: &mut Vec<ConfigError>,
) {
    let key = &list[index];
    let first = if key.is_key(unnamed) {
        Some(format!("{table}.key"))
    } else {
        let same = list[..index].iter().position(|one| one.is_same(key));
        same.map(|first| format!("{table}.keys[{first}]"))
    };
    if let Some(first) = first {
        let path = format!("{table}.keys[{index}]");
        errors.push(ConfigError::Repeated {
            origin: keys.origin(&path),
            key: path,
            first: keys.origin(&first),
        });
    }
}

/// A part of the server API that is none.
fn scope(
    rules: &ChannelRules,
    path: &str,
    key: &AccessKey,
    keys: &Keys,
    errors: &mut Vec<ConfigError>,
) {
    let namespaces = &rules.namespaces;
    for (index, name) in key.namespaces.iter().enumerate() {
        let is_there = name.is_empty() || namespaces.iter().any(|one| one.name == *name);
        if !is_there {
            let key = format!("{path}.namespaces[{index}]");
            errors.push(ConfigError::UnknownNamespace {
                origin: keys.origin(&key),
                key,
            });
        }
    }
    let meets = |pattern: &String| {
        let mut known = CHANNEL_METHODS.iter();
        known.any(|method| super::super::super::glob_match(pattern, method))
    };
    if key.namespaces.is_empty() {
        return;
    }
    for (index, pattern) in key.methods.iter().enumerate() {
        if !meets(pattern) {
            let why = format!(
                "it acts on no channel of a request, and a key with `namespaces` opens only what does: {}",
                CHANNEL_METHODS.join(", ")
            );
            unworkable(&format!("{path}.methods[{index}]"), why, keys, errors);
        }
    }
}

/// A previous secret without a current one signs nothing that anybody expects.
fn signing(config: &Config, keys: &Keys, errors: &mut Vec<ConfigError>) {
    let hooks = &config.hooks;
    let fixed = [
        &hooks.connect,
        &hooks.refresh,
        &hooks.subscribe,
        &hooks.publish,
        &hooks.sub_refresh,
        &hooks.rpc,
    ];
    let fixed = fixed.map(|target| (format!("{}.http", target.name), &target.signing));
    let named = hooks.named.iter().enumerate();
    let named = named.map(|(at, target)| (format!("proxies[{at}].http"), &target.signing));
    let of_tenants = config.tenants.list.iter().enumerate();
    let of_tenants = of_tenants.flat_map(|(at, tenant)| {
        let proxies = tenant.proxies.iter().enumerate();
        proxies.map(move |(index, target)| {
            let path = format!("tenants[{at}].proxies[{index}].http");
            (path, &target.signing)
        })
    });
    let all = std::iter::once(("hooks".to_owned(), &hooks.signing));
    let all = all.chain(fixed).chain(named).chain(of_tenants);
    for (path, Signing { secret, previous }) in all {
        if secret.0.is_empty() && !previous.0.is_empty() {
            let key = format!("{path}.signature_previous_secret");
            errors.push(ConfigError::PreviousKeyAlone {
                origin: keys.origin(&key),
                key,
                current: format!("{path}.signature_secret"),
            });
        }
    }
}
