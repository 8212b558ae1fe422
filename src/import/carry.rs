//! From the keys of a Centrifugo configuration to ours: what has a key here is carried over as it is, a few keys are
//! converted, and everything else gets a fate that says why.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use super::convert::{self, is_zero};
use super::document::{Table, Value};
use super::known::{self, Known, Shape};
use super::output::{Output, toml};
use super::reasons::{self, INTERNAL, PONG};
use super::{Entry, Fate};
use crate::config::{Key, KeyKind, show_duration};

/// Unknown keys that get a nearest name; each is compared with every known one.
const NEAREST_MAX: usize = 200;
const LISTEN: &str = "server.listen";
const ADMIN: &str = "admin.listen";
/// Port of health and metrics where the file names none.
const ADMIN_PORT: u16 = 8001;

/// One key of the input that stands for itself: a value, or a list of values.
struct Leaf<'a> {
    /// With indices.
    path: String,
    /// With `[]` for each member of a list.
    pattern: String,
    value: &'a Value,
    /// The tables around it with their patterns, the outermost first.
    around: Vec<(&'a Table, String)>,
}

/// Keys on their way from one configuration to the other.
pub(super) struct Carry<'a> {
    root: &'a Value,
    known: BTreeMap<String, Known>,
    ours: BTreeMap<String, (usize, Key)>,
    output: Output,
    pub(super) entries: Vec<Entry>,
    /// Our key, and the key of the input that it comes from.
    pub(super) origins: Vec<(String, String)>,
    /// Tables of lists that exist, by pattern: their defaults may have to be written.
    members: Vec<(String, String)>,
    unknown: usize,
}

impl<'a> Carry<'a> {
    pub(super) fn new(root: &'a Value, known: BTreeMap<String, Known>, keys: Vec<Key>) -> Self {
        let places = keys.into_iter().enumerate();
        Self {
            root,
            known,
            ours: places
                .map(|(place, key)| (key.path.clone(), (place, key)))
                .collect(),
            output: Output::default(),
            entries: Vec::new(),
            origins: Vec::new(),
            members: Vec::new(),
            unknown: 0,
        }
    }

    /// Gives every key of the input its fate; then the file is whole.
    pub(super) fn run(&mut self) -> String {
        let root = self.root;
        self.walk(root, String::new(), String::new(), &mut Vec::new());
        self.listen();
        self.admin();
        self.drain();
        self.defaults();
        self.output.render()
    }

    fn walk(
        &mut self,
        value: &'a Value,
        path: String,
        pattern: String,
        around: &mut Vec<(&'a Table, String)>,
    ) {
        let is_map = self
            .known
            .get(&pattern)
            .is_some_and(|known| known.shape == Shape::Map);
        match value {
            Value::Table(table) if !is_map && (!table.is_empty() || path.is_empty()) => {
                around.push((table, pattern.clone()));
                for (name, value) in table {
                    let below = |above: &str| {
                        if above.is_empty() {
                            name.clone()
                        } else {
                            format!("{above}.{name}")
                        }
                    };
                    self.walk(value, below(&path), below(&pattern), around);
                }
                around.pop();
            }
            Value::List(values) if !is_map && is_tables(values) => {
                for (index, value) in values.iter().enumerate() {
                    let path = format!("{path}[{index}]");
                    let pattern = format!("{pattern}[]");
                    self.members.push((path.clone(), pattern.clone()));
                    self.walk(value, path, pattern, around);
                }
            }
            _ => self.leaf(&Leaf {
                path,
                pattern,
                value,
                around: around.clone(),
            }),
        }
    }

    fn leaf(&mut self, leaf: &Leaf<'a>) {
        let fate = if *leaf.value == Value::Null {
            Fate::Needless("null sets nothing".to_owned())
        } else {
            self.special(leaf)
                .or_else(|| self.same(leaf))
                .unwrap_or_else(|| self.fate(leaf))
        };
        self.entries.push(Entry {
            path: leaf.path.clone(),
            kind: leaf.value.kind(),
            variable: None,
            fate,
        });
    }

    /// Keys whose name, place or values differ.
    fn special(&mut self, leaf: &Leaf<'a>) -> Option<Fate> {
        let value = leaf.value;
        match leaf.pattern.as_str() {
            "http_server.address" | "http_server.port" => Some(self.to(LISTEN, leaf)),
            "http_server.internal_address" | "http_server.internal_port" => {
                if is_zero(value) {
                    return Some(Fate::Needless("empty: no second listener".to_owned()));
                }
                self.origin(ADMIN, leaf);
                Some(Fate::Partly {
                    to: vec![ADMIN.to_owned()],
                    reason: &INTERNAL,
                })
            }
            "prometheus.enabled" | "health.enabled" => {
                Some(if convert::boolean(value) == Some(false) {
                    Fate::Needless("health and metrics are always at admin.listen, which is loopback only unless you change it".to_owned())
                } else {
                    self.to(ADMIN, leaf)
                })
            }
            "log.level" => {
                let (level, note) = log_level(value);
                self.write("log.level", leaf, toml(&level), note);
                Some(self.to("log.level", leaf))
            }
            "shutdown.timeout" if !is_zero(value) => {
                self.origin("drain.window", leaf);
                Some(self.to("drain.grace", leaf))
            }
            "http_api.disabled" if !self.ours.contains_key("http_api.disabled") => {
                Some(if convert::boolean(value) == Some(false) {
                    Fate::Needless(
                        "the server API is there; an empty http_api.key refuses every request"
                            .to_owned(),
                    )
                } else {
                    let note = "http_api.disabled: an empty key refuses every request".to_owned();
                    self.write("http_api.key", leaf, "\"\"".to_owned(), Some(note));
                    self.to("http_api.key", leaf)
                })
            }
            "http_api.key" | "http_api.insecure" if self.api_is_off() => Some(Fate::Needless(
                "http_api.disabled is set: no key opens the server API".to_owned(),
            )),
            "client.ping_interval" if convert::is_negative(value) => {
                let note = "a negative interval turns pings off".to_owned();
                self.write(
                    "client.ping_interval",
                    leaf,
                    "\"0s\"".to_owned(),
                    Some(note),
                );
                Some(self.to("client.ping_interval", leaf))
            }
            "client.pong_timeout" if convert::is_negative(value) => {
                let interval = self.root.at("client.ping_interval");
                Some(if interval.is_some_and(convert::is_negative) {
                    Fate::Needless("there are no pings to answer".to_owned())
                } else {
                    Fate::Lost(&PONG)
                })
            }
            "channel.without_namespace.subscription_type"
            | "channel.namespaces[].subscription_type"
                if *value == Value::Text("stream".to_owned()) =>
            {
                Some(Fate::Needless("every channel is a stream".to_owned()))
            }
            _ => None,
        }
    }

    /// Our key has the same path.
    fn same(&mut self, leaf: &Leaf<'a>) -> Option<Fate> {
        let key = self.ours.get(&leaf.pattern)?.1.clone();
        let known = self.known.get(&leaf.pattern);
        if let Some(known) = known.filter(|known| !known.default.is_empty() && is_zero(leaf.value))
        {
            let why = format!(
                "counts as unset there: its default {} stands",
                known.default
            );
            return Some(Fate::Needless(why));
        }
        if key.kind == KeyKind::Tables {
            let is_empty = matches!(leaf.value, Value::List(values) if values.is_empty());
            if is_empty {
                return Some(Fate::Needless("an empty list".to_owned()));
            }
        }
        if key.kind == KeyKind::Duration && is_zero(leaf.value) && !takes_zero(&key) {
            return Some(Fate::Needless("zero counts as unset there".to_owned()));
        }
        let (text, note) = convert::to(&key.kind, leaf.value);
        self.write(&leaf.path.clone(), leaf, text, note);
        Some(Fate::Carried(vec![leaf.path.clone()]))
    }

    /// There is no such key here.
    fn fate(&mut self, leaf: &Leaf<'a>) -> Fate {
        let known = self.known.get(&leaf.pattern).copied();
        if let Some(known) = known {
            if convert::is_default(known, leaf.value) {
                return Fate::Needless("Centrifugo's default: nothing is asked for".to_owned());
            }
            if let Some(why) = self.is_off(leaf) {
                return Fate::Needless(why);
            }
        }
        let is_known = known.is_some() || self.is_table_of_known(&leaf.pattern);
        if is_known && is_empty(leaf.value) {
            return Fate::Needless("empty: nothing is asked for".to_owned());
        }
        let reason = if is_known {
            reasons::of(&leaf.pattern)
        } else {
            reasons::of_pro(&leaf.pattern)
        };
        match reason {
            Some(reason) if reason.is_loss => Fate::Lost(reason),
            Some(reason) => Fate::Needless(reason.why.to_owned()),
            None => Fate::Unknown(self.nearest(&leaf.pattern)),
        }
    }

    /// Is there a known key below this one?
    fn is_table_of_known(&self, pattern: &str) -> bool {
        let below = |mark: &str| {
            let start = format!("{pattern}{mark}");
            let next = self.known.range(start.clone()..).next();
            next.is_some_and(|(path, _)| path.starts_with(&start))
        };
        !pattern.is_empty() && (below(".") || below("[]."))
    }

    fn nearest(&mut self, pattern: &str) -> Option<String> {
        self.unknown += 1;
        if self.unknown > NEAREST_MAX {
            return None;
        }
        let names = self
            .known
            .keys()
            .chain(self.ours.keys())
            .map(String::as_str);
        known::nearest(names, pattern).map(str::to_owned)
    }

    /// Does the key belong to something that is switched off or not chosen?
    fn is_off(&self, leaf: &Leaf<'a>) -> Option<String> {
        for (table, pattern) in &leaf.around {
            let name = |key: &str| {
                if pattern.is_empty() {
                    key.to_owned()
                } else {
                    format!("{pattern}.{key}")
                }
            };
            let (switch, choice) = (name("enabled"), name("type"));
            if self.known.contains_key(&switch) && leaf.pattern != switch {
                let enabled = table.get("enabled").and_then(convert::boolean);
                if enabled != Some(true) {
                    return Some(format!("{switch} is not true"));
                }
            }
            let Some(known) = self.known.get(&choice).filter(|_| leaf.pattern != choice) else {
                continue;
            };
            let chosen = match table.get("type") {
                Some(Value::Text(text)) if !text.is_empty() => text.as_str(),
                _ => known.default,
            };
            let below = leaf.pattern[pattern.len()..].trim_start_matches('.');
            let (kind, rest) = below.split_once('.').unwrap_or((below, ""));
            if !rest.is_empty() && kind != chosen {
                return Some(format!("{choice} does not choose it"));
            }
        }
        None
    }

    fn api_is_off(&self) -> bool {
        !self.ours.contains_key("http_api.disabled")
            && self.root.at("http_api.disabled").and_then(convert::boolean) == Some(true)
    }

    fn origin(&mut self, ours: &str, leaf: &Leaf<'a>) {
        self.origins.push((ours.to_owned(), leaf.path.clone()));
    }

    fn to(&mut self, ours: &str, leaf: &Leaf<'a>) -> Fate {
        self.origin(ours, leaf);
        Fate::Carried(vec![ours.to_owned()])
    }

    /// Writes a key of ours that comes from a key of the input.
    fn write(&mut self, path: &str, leaf: &Leaf<'a>, text: String, note: Option<String>) {
        self.origin(path, leaf);
        self.put(path, text, note);
    }

    /// Writes a key of ours; a key that the schema does not have is not written.
    fn put(&mut self, path: &str, text: String, note: Option<String>) {
        if let Some((place, _)) = self.ours.get(&pattern(path)) {
            self.output.set(*place, path, text, note);
        }
    }

    fn text_at(&self, path: &str) -> Option<String> {
        match self.root.at(path)? {
            value if is_zero(value) => None,
            Value::Text(text) => Some(text.clone()),
            Value::Integer(integer) => Some(integer.to_string()),
            _ => None,
        }
    }

    fn listen(&mut self) {
        let address = self.text_at("http_server.address");
        let port = self
            .text_at("http_server.port")
            .unwrap_or_else(|| "8000".to_owned());
        let (at, note): (Vec<String>, _) = match address.as_deref() {
            None => (
                vec![format!("0.0.0.0:{port}"), format!("[::]:{port}")],
                Some("every address, as Centrifugo does; take [::] out on a host without IPv6"),
            ),
            Some("localhost") => (vec![format!("127.0.0.1:{port}")], None),
            Some(address) => (vec![socket(address, &port)], None),
        };
        let at = Value::List(at.into_iter().map(Value::Text).collect());
        self.put(LISTEN, toml(&at), note.map(str::to_owned));
    }

    fn admin(&mut self) {
        let wants = |path: &str| self.root.at(path).and_then(convert::boolean) == Some(true);
        let observed = wants("prometheus.enabled") || wants("health.enabled");
        let address = self.text_at("http_server.internal_address");
        let port = self.text_at("http_server.internal_port");
        let main = self
            .text_at("http_server.port")
            .unwrap_or_else(|| "8000".to_owned());
        let (at, note) = if address.is_some() || port.is_some() {
            let address = address.or_else(|| self.text_at("http_server.address"));
            let at = socket(
                match address.as_deref() {
                    None => "0.0.0.0",
                    Some("localhost") => "127.0.0.1",
                    Some(address) => address,
                },
                &port.unwrap_or(main),
            );
            (
                at,
                "/health, /ready and /metrics; the server API stays on server.listen",
            )
        } else if observed || main == ADMIN_PORT.to_string() {
            let free = if main == ADMIN_PORT.to_string() {
                ADMIN_PORT + 1
            } else {
                ADMIN_PORT
            };
            (
                format!("127.0.0.1:{free}"),
                "/health, /ready and /metrics are here, not on server.listen; metrics' names begin with ringmain_",
            )
        } else {
            return;
        };
        self.put(ADMIN, toml(&Value::Text(at)), Some(note.to_owned()));
    }

    /// One timeout there, two times here: until all clients are told, and until those that stayed are cut.
    fn drain(&mut self) {
        const DEFAULT: Duration = Duration::from_secs(30);
        let set = self
            .root
            .at("shutdown.timeout")
            .filter(|value| !is_zero(value));
        let timeout = match set {
            None => DEFAULT,
            Some(value) => match convert::duration(value) {
                Some(timeout) => timeout,
                None => {
                    // The loader says what is wrong with it.
                    let (text, _) = convert::to(&KeyKind::Duration, value);
                    return self.put("drain.grace", text, None);
                }
            },
        };
        let window =
            Duration::from_millis(u64::try_from(timeout.as_millis() / 2).unwrap_or(u64::MAX));
        let note = format!(
            "shutdown.timeout {}: clients are told over the first half, those left at its end are cut",
            show_duration(timeout)
        );
        let text = |time: Duration| toml(&Value::Text(show_duration(time)));
        self.put("drain.window", text(window), Some(note));
        self.put("drain.grace", text(timeout.saturating_sub(window)), None);
    }

    /// Writes Centrifugo's default where ours differs and the input says nothing.
    fn defaults(&mut self) {
        let mut tables = vec![(String::new(), String::new())];
        tables.append(&mut self.members);
        let differing: Vec<(String, String)> = self
            .ours
            .iter()
            .filter(|(path, _)| !SETTLED.contains(&path.as_str()))
            .filter_map(|(path, (_, key))| {
                let default = convert::default_text(self.known.get(path)?, &key.kind)?;
                (!convert::is_same(&key.kind, &default, &key.default))
                    .then(|| (path.clone(), default))
            })
            .collect();
        for (path, default) in differing {
            let (list, leaf) = path.rsplit_once("[].").unwrap_or(("", &path));
            let within = if list.is_empty() {
                String::new()
            } else {
                format!("{list}[]")
            };
            for (table, _) in tables.iter().filter(|(_, pattern)| *pattern == within) {
                let path = if table.is_empty() {
                    leaf.to_owned()
                } else {
                    format!("{table}.{leaf}")
                };
                if !self.origins.iter().any(|(ours, _)| *ours == path) {
                    let note = "Centrifugo's default, which differs from ringmain's".to_owned();
                    self.put(&path, default.clone(), Some(note));
                }
            }
        }
    }
}

/// Keys that have a conversion of their own.
const SETTLED: &[&str] = &["log.level"];

fn is_tables(values: &[Value]) -> bool {
    !values.is_empty() && values.iter().all(|value| matches!(value, Value::Table(_)))
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::List(values) => values.is_empty(),
        Value::Table(table) => table.is_empty(),
        _ => false,
    }
}

/// Does zero mean something to us? A default of zero tells.
fn takes_zero(key: &Key) -> bool {
    key.default == "\"0s\""
}

/// `channel.namespaces[3].name` → `channel.namespaces[].name`
pub(super) fn pattern(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    let mut within = false;
    for c in path.chars() {
        within &= c != ']';
        if !within {
            out.push(c);
        }
        within |= c == '[';
    }
    out
}

fn socket(address: &str, port: &str) -> String {
    let bare = address.trim_start_matches('[').trim_end_matches(']');
    match bare.parse() {
        Ok(IpAddr::V6(_)) => format!("[{bare}]:{port}"),
        _ => format!("{address}:{port}"),
    }
}

fn log_level(value: &Value) -> (Value, Option<String>) {
    let Value::Text(text) = value else {
        return (value.clone(), None);
    };
    let level = text.to_lowercase();
    let (level, note) = match level.as_str() {
        "trace" => ("debug", Some("trace: debug is the most there is")),
        "fatal" => ("error", Some("fatal: error is the least there is")),
        "none" => ("error", Some("none: error is the least there is")),
        other => (other, None),
    };
    (Value::Text(level.to_owned()), note.map(str::to_owned))
}
