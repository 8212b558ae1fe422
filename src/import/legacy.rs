//! Configurations of Centrifugo 3 to 5, whose names are flat, in the shape of version 6.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use super::Fate;
use super::convert::{boolean, is_zero};
use super::document::{Table, Value, is_tables};
use super::known::Known;
use super::reasons::of_pro;

const LIST: &str = include_str!("legacy.txt");

/// Hooks by the start of their old names, and where they are today.
const HOOKS: [(&str, &str); 7] = [
    ("connect", "client.proxy.connect"),
    ("refresh", "client.proxy.refresh"),
    ("subscribe", "channel.proxy.subscribe"),
    ("publish", "channel.proxy.publish"),
    ("sub_refresh", "channel.proxy.sub_refresh"),
    ("subscribe_stream", "channel.proxy.subscribe_stream"),
    ("rpc", "rpc.proxy"),
];
/// What all hooks had in common, or each of `proxies` had for itself, and what it is called below a hook.
const OF_HOOKS: [(&str, &str); 10] = [
    ("proxy_http_headers", "http_headers"),
    ("proxy_static_http_headers", "http.static_headers"),
    ("proxy_binary_encoding", "binary_encoding"),
    ("proxy_include_connection_meta", "include_connection_meta"),
    (
        "proxy_http_status_code_transforms",
        "http.status_to_code_transforms",
    ),
    ("proxy_grpc_metadata", "grpc_metadata"),
    ("proxy_grpc_compression", "grpc.compression"),
    ("proxy_grpc_credentials_key", "grpc.credentials_key"),
    ("proxy_grpc_credentials_value", "grpc.credentials_value"),
    ("proxy_grpc_cert_file", "grpc.tls.server_ca_pem"),
];
/// Switches of a namespace.
const SWITCHES: [(&str, &str); 5] = [
    ("proxy_subscribe", "subscribe_proxy_enabled"),
    ("proxy_publish", "publish_proxy_enabled"),
    ("proxy_sub_refresh", "sub_refresh_proxy_enabled"),
    ("proxy_subscribe_stream", "subscribe_stream_proxy_enabled"),
    (
        "proxy_subscribe_stream_bidirectional",
        "subscribe_stream_proxy_bidirectional",
    ),
];
/// Names of a namespace that version 3 has and no later one.
pub(super) const OF_VERSION_3: [&str; 8] = [
    "protected",
    "publish",
    "subscribe_to_publish",
    "anonymous",
    "presence_disabled_for_client",
    "history_disabled_for_client",
    "position",
    "recover",
];
const IMPLIED_BY_3: &str = "version 3 allows it without being told";
const ENABLED: &str = "version 6 wants it said; before, the hook's address was enough";

/// A configuration in today's shape.
#[derive(Default)]
pub(super) struct Modern {
    pub(super) root: Table,
    /// Paths in `root`, and where the input has them. What stands below a path stands there below the other.
    pub(super) origins: BTreeMap<String, String>,
    /// Paths in `root` that follow from other keys of the input, and why they are there.
    pub(super) implied: BTreeMap<String, &'static str>,
    /// Keys of the input that go nowhere.
    pub(super) loose: Vec<(String, &'static str, Fate)>,
}

/// Today's name of an old one; `None` for a name that no version before 6 had.
pub(super) fn today(name: &str, known: &BTreeMap<String, Known>) -> Option<String> {
    if let Some(path) = of_list(name) {
        return Some(path);
    }
    let switch = SWITCHES.iter().find(|(old, _)| *old == name);
    let option = switch.map_or(name, |(_, new)| new);
    let option = format!("channel.without_namespace.{option}");
    if known.contains_key(&option) {
        return Some(option);
    }
    let enabled = format!("{name}.enabled");
    if known.contains_key(&enabled) && !name.contains('.') {
        return Some(enabled);
    }
    let mut paths = known.keys().filter(|path| !path.contains("[]"));
    paths.find(|path| is_flat(path, name)).cloned()
}

fn is_flat(path: &str, name: &str) -> bool {
    path.len() == name.len()
        && path
            .bytes()
            .zip(name.bytes())
            .all(|(a, b)| a == b || a == b'.' && b == b'_')
}

/// Is it a name that only versions before 6 have?
pub(super) fn is_old(name: &str, known: &BTreeMap<String, Known>) -> bool {
    let is_gone = GONE.iter().any(|gone| starts_as(name, gone));
    let is_of_hooks = OF_HOOKS.iter().any(|(old, _)| *old == name);
    let is_switch = SWITCHES.iter().any(|(old, _)| *old == name);
    is_gone
        || is_of_hooks
        || is_switch
        || OF_VERSION_3.contains(&name)
        || of_list(name).is_some()
        || known.contains_key(&format!("channel.without_namespace.{name}"))
        || known.contains_key(&format!("{name}.enabled"))
}

/// What is not there any more.
const GONE: [&str; 9] = [
    "sockjs",
    "tarantool",
    "gomaxprocs",
    "granular_proxy_mode",
    "connect_proxy_name",
    "refresh_proxy_name",
    "use_client_protocol_v1_by_default",
    "disable_client_protocol_v1",
    "use_unlimited_history_by_default",
];

fn starts_as(name: &str, gone: &str) -> bool {
    name.strip_prefix(gone)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('_'))
}

fn of_list(name: &str) -> Option<String> {
    let lines = LIST.lines().filter(|line| !line.starts_with('#'));
    let mut pairs = lines.filter_map(|line| line.split_once(' '));
    pairs.find_map(|(old, new)| match old.strip_suffix('*') {
        Some(start) => {
            let rest = name.strip_prefix(start).filter(|rest| !rest.is_empty())?;
            Some(new.replace('*', pem(new, rest)))
        }
        None => (old == name).then(|| new.to_owned()),
    })
}

/// Keys of TLS were files or texts; today each is either.
fn pem<'a>(path: &str, rest: &'a str) -> &'a str {
    if !path.contains("tls.") {
        return rest;
    }
    match rest {
        "cert" | "cert_pem" => "cert_pem",
        "key" | "key_pem" => "key_pem",
        "root_ca" | "root_ca_pem" => "server_ca_pem",
        "client_ca" | "client_ca_pem" => "client_ca_pem",
        other => other,
    }
}

/// Puts everything where version 6 has it. Version 3 says what clients may not do, and later ones what they may.
pub(super) fn modernise(
    mut old: Table,
    is_version_3: bool,
    known: &BTreeMap<String, Known>,
) -> Modern {
    let mut modern = Modern::default();
    let granular = old.get("granular_proxy_mode").and_then(boolean) == Some(true);
    let how = How {
        granular,
        is_version_3,
        rpc: old
            .get("proxy_rpc_endpoint")
            .is_some_and(|value| !is_zero(value)),
    };
    let options: BTreeSet<String> = old
        .keys()
        .filter(|name| {
            known.contains_key(&format!("channel.without_namespace.{name}"))
                || SWITCHES.iter().any(|(old, _)| old == name)
                || how.is_version_3 && OF_VERSION_3.contains(&name.as_str())
        })
        .cloned()
        .collect();
    let given: Table = options
        .iter()
        .filter_map(|name| old.remove_entry(name))
        .collect();
    let without = modern.namespace(given, "", "channel.without_namespace", how);
    if !without.is_empty() {
        let channel = section(&mut modern.root, "channel");
        channel.insert("without_namespace".to_owned(), Value::Table(without));
    }
    modern.hooks(&mut old, how);
    modern.members(&mut old, how);
    let mut kept = Table::new();
    for (name, value) in old {
        let is_kept = GONE.iter().any(|gone| starts_as(&name, gone)) || of_pro(&name).is_some();
        match modern_path(&name, &value, known).filter(|_| !is_kept) {
            Some(path) => modern.put(&path, &name, value),
            None => {
                kept.insert(name, value);
            }
        }
    }
    // What has no other place stays, unless version 6 has a table there by now.
    for (name, value) in kept {
        match modern.root.entry(name) {
            Entry::Vacant(vacant) => {
                vacant.insert(value);
            }
            Entry::Occupied(taken) => {
                let path = taken.key().clone();
                modern.lose(&path, &value, &Fate::Unknown(None));
            }
        }
    }
    modern
}

/// A table may be one of today's whose dots are underscores.
fn modern_path(name: &str, value: &Value, known: &BTreeMap<String, Known>) -> Option<String> {
    if let Some(path) = today(name, known) {
        return Some(path);
    }
    if !matches!(value, Value::Table(_)) {
        return None;
    }
    known.keys().find_map(|path| {
        let table = path.get(..name.len())?;
        (path[name.len()..].starts_with('.') && is_flat(table, name)).then(|| table.to_owned())
    })
}

/// What decides about the meaning of other keys.
#[derive(Clone, Copy)]
struct How {
    granular: bool,
    is_version_3: bool,
    /// Every RPC goes to the hook.
    rpc: bool,
}

fn section<'a>(table: &'a mut Table, name: &str) -> &'a mut Table {
    let at = table
        .entry(name.to_owned())
        .or_insert_with(|| Value::Table(Table::new()));
    if !matches!(at, Value::Table(_)) {
        *at = Value::Table(Table::new());
    }
    match at {
        Value::Table(table) => table,
        _ => unreachable!("it was made a table above"),
    }
}

/// Sets a key below a table unless it is set.
fn set(table: &mut Table, path: &str, value: Value) -> bool {
    let (sections, leaf) = path.rsplit_once('.').unwrap_or(("", path));
    let mut at = table;
    for name in sections.split('.').filter(|name| !name.is_empty()) {
        at = section(at, name);
    }
    if at.contains_key(leaf) {
        return false;
    }
    at.insert(leaf.to_owned(), value);
    true
}

fn join(above: &str, name: &str) -> String {
    if above.is_empty() {
        name.to_owned()
    } else {
        format!("{above}.{name}")
    }
}

impl Modern {
    /// Where the input has what stands at a path of `root`.
    pub(super) fn origin(&self, path: &str) -> String {
        let mut end = path.len();
        loop {
            if let Some(origin) = self.origins.get(&path[..end]) {
                return format!("{origin}{}", &path[end..]);
            }
            match path[..end].rfind(['.', '[']) {
                Some(at) => end = at,
                None => return path.to_owned(),
            }
        }
    }

    fn put(&mut self, path: &str, from: &str, value: Value) {
        if set(&mut self.root, path, value.clone()) {
            self.origins.insert(path.to_owned(), from.to_owned());
        } else {
            let why = "another key of the input says the same".to_owned();
            self.lose(from, &value, &Fate::Needless(why));
        }
    }

    /// A key of the input goes nowhere, with all that stands below it.
    fn lose(&mut self, path: &str, value: &Value, fate: &Fate) {
        match value {
            Value::Table(table) if !table.is_empty() => {
                for (name, value) in table {
                    self.lose(&join(path, name), value, fate);
                }
            }
            Value::List(values) if is_tables(values) => {
                for (at, value) in values.iter().enumerate() {
                    self.lose(&format!("{path}[{at}]"), value, fate);
                }
            }
            _ => {
                let lost = (path.to_owned(), value.kind(), fate.clone());
                self.loose.push(lost);
            }
        }
    }

    fn imply(&mut self, path: &str, why: &'static str) {
        if set(&mut self.root, path, Value::Boolean(true)) {
            self.implied.insert(path.to_owned(), why);
        }
    }

    fn needless(&mut self, path: String, value: &Value, why: &str) {
        let fate = Fate::Needless(why.to_owned());
        self.loose.push((path, value.kind(), fate));
    }

    /// The options of a namespace, or of channels without one.
    fn namespace(&mut self, given: Table, from: &str, to: &str, how: How) -> Table {
        const SWITCH: &str = "what it kept closed is closed unless something opens it";
        let mut out = Table::new();
        // Also of channels without a namespace that nothing is said of: version 3 has them all the same.
        let implied = if how.is_version_3 {
            implied_by_3(&given)
        } else {
            Vec::new()
        };
        let is = |name: &str| given.get(name).and_then(boolean) == Some(true);
        let (to_publish, protected) = (is("subscribe_to_publish"), is("protected"));
        let mut named = Vec::new();
        for (name, value) in given {
            let switch = SWITCHES.iter().find(|(old, _)| *old == name);
            let new = match (name.as_str(), how.is_version_3) {
                (_, _) if switch.is_some() => switch.map_or("", |(_, new)| new),
                ("publish", true) if to_publish => "allow_publish_for_subscriber",
                ("publish", true) => "allow_publish_for_client",
                ("anonymous", true) if !protected => "allow_subscribe_for_anonymous",
                ("position", true) => "force_positioning",
                ("recover", true) => "force_recovery",
                (old, true) if OF_VERSION_3.contains(&old) => {
                    self.needless(join(from, old), &value, SWITCH);
                    continue;
                }
                (other, _) if other.ends_with("_proxy_name") => {
                    if is_zero(&value) || !how.granular {
                        let why = "names of hooks count in granular_proxy_mode only";
                        self.needless(join(from, other), &value, why);
                        continue;
                    }
                    named.push(other.replace("_name", "_enabled"));
                    other
                }
                (other, _) => other,
            };
            let new = new.to_owned();
            self.origins
                .insert(format!("{to}.{new}"), join(from, &name));
            out.insert(new, value);
        }
        let switches = named.into_iter().map(|name| (name, ENABLED));
        let implied = implied
            .into_iter()
            .map(|name| (name.to_owned(), IMPLIED_BY_3));
        for (name, why) in implied.chain(switches) {
            if let Entry::Vacant(vacant) = out.entry(name) {
                self.implied.insert(format!("{to}.{}", vacant.key()), why);
                vacant.insert(Value::Boolean(true));
            }
        }
        out
    }

    /// Lists of tables.
    fn members(&mut self, old: &mut Table, how: How) {
        for (name, path) in [
            ("namespaces", "channel.namespaces"),
            ("rpc_namespaces", "rpc.namespaces"),
            ("proxies", "proxies"),
        ] {
            let Some(value) = old.remove(name) else {
                continue;
            };
            let Value::List(values) = value else {
                self.put(path, name, value);
                continue;
            };
            let mut members = Vec::new();
            for (index, value) in values.into_iter().enumerate() {
                let (from, to) = (format!("{name}[{index}]"), format!("{path}[{index}]"));
                let Value::Table(given) = value else {
                    members.push(value);
                    continue;
                };
                let table = match name {
                    "namespaces" => self.namespace(given, &from, &to, how),
                    "rpc_namespaces" => self.methods(given, &from, &to, how),
                    _ => self.target(given, &from, &to),
                };
                members.push(Value::Table(table));
            }
            self.origins.insert(path.to_owned(), name.to_owned());
            set(&mut self.root, path, Value::List(members));
        }
        if how.granular {
            self.referred(old);
        }
    }

    fn methods(&mut self, given: Table, from: &str, to: &str, how: How) -> Table {
        let mut out = Table::new();
        for (name, value) in given {
            let new = if name == "rpc_proxy_name" {
                "proxy_name"
            } else {
                &name
            };
            self.origins
                .insert(format!("{to}.{new}"), join(from, &name));
            out.insert(new.to_owned(), value);
        }
        let named = out.get("proxy_name").is_some_and(|value| !is_zero(value));
        if named || how.rpc && !how.granular {
            self.implied.insert(format!("{to}.proxy_enabled"), ENABLED);
            out.insert("proxy_enabled".to_owned(), Value::Boolean(true));
        }
        out
    }

    fn target(&mut self, given: Table, from: &str, to: &str) -> Table {
        let mut out = Table::new();
        for (name, value) in given {
            let old = format!("proxy_{name}");
            let new = OF_HOOKS.iter().find(|(of_all, _)| *of_all == old);
            let new = new.map_or(name.as_str(), |(_, new)| new);
            self.origins
                .insert(format!("{to}.{new}"), join(from, &name));
            set(&mut out, new, value);
        }
        out
    }

    /// Who decides about connections and RPC is one of `proxies`, by name.
    fn referred(&mut self, old: &mut Table) {
        let targets = self.root.get("proxies").cloned();
        for (name, path) in [
            ("connect_proxy_name", "client.proxy.connect"),
            ("refresh_proxy_name", "client.proxy.refresh"),
        ] {
            let Some(value) = old.remove(name) else {
                continue;
            };
            let Some(Value::List(targets)) = &targets else {
                self.needless(name.to_owned(), &value, "there is no hook of this name");
                continue;
            };
            let named = targets
                .iter()
                .position(|one| one.at("name") == Some(&value));
            let Some((index, Value::Table(target))) = named.map(|index| (index, &targets[index]))
            else {
                self.needless(name.to_owned(), &value, "there is no hook of this name");
                continue;
            };
            let mut target = target.clone();
            target.remove("name");
            target.insert("enabled".to_owned(), Value::Boolean(true));
            set(&mut self.root, path, Value::Table(target));
            self.origins
                .insert(path.to_owned(), format!("proxies[{index}]"));
            self.origins
                .insert(format!("{path}.enabled"), name.to_owned());
            for (_, below) in OF_HOOKS {
                let origin = self
                    .origins
                    .get(&format!("proxies[{index}].{below}"))
                    .cloned();
                self.origins
                    .extend(origin.map(|origin| (format!("{path}.{below}"), origin)));
            }
        }
        if old
            .get("rpc_proxy_name")
            .is_some_and(|value| !is_zero(value))
        {
            self.imply("rpc.without_namespace.proxy_enabled", ENABLED);
        }
    }

    /// The hooks that every event has one of.
    fn hooks(&mut self, old: &mut Table, how: How) {
        let mut paths = Vec::new();
        for (name, path) in HOOKS {
            let (endpoint, timeout) = (
                format!("proxy_{name}_endpoint"),
                format!("proxy_{name}_timeout"),
            );
            let is_set = old.get(&endpoint).is_some_and(|value| !is_zero(value));
            if how.granular {
                for name in [endpoint, timeout] {
                    if let Some(value) = old.remove(&name) {
                        self.needless(name, &value, "granular_proxy_mode reads `proxies` instead");
                    }
                }
                continue;
            }
            if !is_set {
                continue;
            }
            paths.push(path);
            match name {
                "connect" | "refresh" => self.imply(&format!("{path}.enabled"), ENABLED),
                "rpc" => self.imply("rpc.without_namespace.proxy_enabled", ENABLED),
                _ => {}
            }
        }
        for (name, below) in OF_HOOKS {
            let Some(value) = old.remove(name) else {
                continue;
            };
            if paths.is_empty() {
                self.needless(name.to_owned(), &value, "there is no hook that it is for");
            }
            for path in &paths {
                self.put(&format!("{path}.{below}"), name, value.clone());
            }
        }
    }
}

/// What version 3 allows in a namespace unless told otherwise.
fn implied_by_3(given: &Table) -> Vec<&'static str> {
    let is = |name: &str| given.get(name).and_then(boolean) == Some(true);
    let has = |name: &str| given.get(name).is_some_and(|value| !is_zero(value));
    let mut implied = vec!["allow_user_limited_channels"];
    if !is("protected") {
        implied.push("allow_subscribe_for_client");
    }
    if is("publish") {
        implied.push("allow_publish_for_anonymous");
    }
    if is("presence") && !is("presence_disabled_for_client") {
        implied.extend([
            "allow_presence_for_subscriber",
            "allow_presence_for_anonymous",
        ]);
    }
    if has("history_size") && has("history_ttl") && !is("history_disabled_for_client") {
        implied.extend([
            "allow_history_for_subscriber",
            "allow_history_for_anonymous",
        ]);
    }
    if is("join_leave") {
        implied.push("force_push_join_leave");
    }
    implied
}
