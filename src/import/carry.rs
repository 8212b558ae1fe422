//! From the keys of a Centrifugo configuration to ours: what has a key here is carried over as it is, a few keys are
//! converted, and everything else gets a fate that says why.

mod listeners;
mod mend;

use std::collections::BTreeMap;
use std::time::Duration;

use super::convert::{self, is_zero};
use super::document::{Table, Value, is_tables};
use super::known::{self, Known, Shape};
use super::legacy;
use super::output::{Output, toml};
use super::reasons::{self, OWN_HEADERS, PONG};
use super::{Entry, Fate};
use crate::config::{FileKey, KeyKind, show_duration, unmatched_origin};

/// Unknown keys that get a nearest name; each is compared with every known one.
const NEAREST_MAX: usize = 200;
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
    ours: BTreeMap<String, (usize, FileKey)>,
    output: Output,
    pub(super) entries: Vec<Entry>,
    /// Our key, and the key of the input that it comes from.
    pub(super) origins: Vec<(String, String)>,
    /// Tables of lists that exist, by pattern: their defaults may have to be written.
    members: Vec<(String, String)>,
    unknown: usize,
    /// Keys that no key of the input is, and why they are there.
    implied: BTreeMap<String, &'static str>,
}

impl<'a> Carry<'a> {
    pub(super) fn new(
        root: &'a Value,
        known: BTreeMap<String, Known>,
        keys: Vec<FileKey>,
        implied: BTreeMap<String, &'static str>,
    ) -> Self {
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
            implied,
        }
    }

    /// Gives every key of the input its fate; then the file is whole.
    pub(super) fn run(&mut self) {
        let root = self.root;
        self.walk(root, String::new(), String::new(), &mut Vec::new());
        self.listen();
        self.admin();
        self.drain();
        self.defaults();
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
            Fate::Default
        } else {
            self.of_listeners(leaf)
                .or_else(|| self.special(leaf))
                .or_else(|| self.same(leaf))
                .unwrap_or_else(|| self.fate(leaf))
        };
        self.entries.push(Entry {
            path: leaf.path.clone(),
            label: String::new(),
            kind: leaf.value.kind(),
            variable: None,
            fate,
        });
    }

    /// Keys whose name, place or values differ.
    fn special(&mut self, leaf: &Leaf<'a>) -> Option<Fate> {
        let value = leaf.value;
        match leaf.pattern.as_str() {
            "log.level" => {
                let (level, note) = log_level(value);
                if level == Value::Text("info".to_owned()) || is_zero(value) {
                    return Some(Fate::Default);
                }
                self.write("log.level", leaf, toml(&level), note);
                Some(self.to("log.level", leaf))
            }
            "shutdown.timeout" if !is_zero(value) => {
                self.origin("drain.window", leaf);
                Some(self.to("drain.grace", leaf))
            }
            "client.allowed_origins" => self.origins_of_pages(leaf),
            "http_api.disabled" => Some(if convert::boolean(value) == Some(false) {
                Fate::Default
            } else {
                let note = "http_api.disabled: an empty key refuses every request".to_owned();
                self.write("http_api.key", leaf, "\"\"".to_owned(), Some(note));
                self.to("http_api.key", leaf)
            }),
            "http_api.key" | "http_api.insecure" if self.api_is_off() => Some(Fate::Needless(
                "http_api.disabled is set: no key opens the server API".to_owned(),
            )),
            // As here, one after the other.
            "client.concurrency" if is_zero(value) => Some(Fate::Default),
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

    /// Origins that can never match are left out: without them, as little matches as before.
    fn origins_of_pages(&mut self, leaf: &Leaf<'a>) -> Option<Fate> {
        let mut members = convert::list(leaf.value)?;
        let mut faults = Vec::new();
        members.retain(|member| {
            let Value::Text(text) = member else {
                return true;
            };
            let fault = unmatched_origin(text);
            let fits = fault.is_none();
            faults.extend(fault);
            fits
        });
        if faults.is_empty() {
            return None;
        }
        let rest = toml(&Value::List(members));
        let note = format!("left out: {}", faults.join("; "));
        self.write("client.allowed_origins", leaf, rest, Some(note));
        Some(Fate::Refused(format!(
            "{}; the others came along",
            faults.join("; ")
        )))
    }

    /// Our key has the same path.
    fn same(&mut self, leaf: &Leaf<'a>) -> Option<Fate> {
        let key = self.ours.get(&leaf.pattern)?.1.clone();
        let known = self.known.get(&leaf.pattern);
        let is_unset = known.is_some_and(|known| !known.default.is_empty() && is_zero(leaf.value));
        let is_empty_list = key.kind == KeyKind::Tables && is_empty(leaf.value);
        let is_no_choice = matches!(key.kind, KeyKind::Choice(_)) && is_zero(leaf.value);
        let is_no_time = key.kind == KeyKind::Duration && is_zero(leaf.value) && !takes_zero(&key);
        let is_no_number =
            matches!(key.kind, KeyKind::Integer { min: 1.., .. }) && is_zero(leaf.value);
        if is_unset || is_empty_list || is_no_choice || is_no_time || is_no_number {
            return Some(Fate::Default);
        }
        if key.kind == KeyKind::Secrets {
            return Some(self.headers(leaf, &key.kind));
        }
        let (text, note) = convert::to(&key.kind, leaf.value);
        if !inherits(&leaf.pattern) && convert::is_same(&key.kind, &text, &key.default) {
            let path = leaf.path.clone();
            self.origin(&path, leaf);
            return Some(Fate::Default);
        }
        self.write(&leaf.path.clone(), leaf, text, note);
        Some(Fate::Carried(vec![leaf.path.clone()]))
    }

    /// Headers of every call of a hook, without those that ringmain sets itself.
    fn headers(&mut self, leaf: &Leaf<'a>, kind: &KeyKind) -> Fate {
        const OWN: [&str; 4] = [
            "content-length",
            "content-type",
            "host",
            "transfer-encoding",
        ];
        let Some(mut table) = convert::map(leaf.value) else {
            let (text, note) = convert::to(kind, leaf.value);
            self.write(&leaf.path.clone(), leaf, text, note);
            return Fate::Carried(vec![leaf.path.clone()]);
        };
        let given = table.len();
        table.retain(|name, _| !OWN.contains(&name.to_ascii_lowercase().as_str()));
        let is_whole = table.len() == given;
        if table.is_empty() {
            return if is_whole {
                Fate::Default
            } else {
                Fate::Lost(&OWN_HEADERS)
            };
        }
        self.write(&leaf.path.clone(), leaf, toml(&Value::Table(table)), None);
        let to = vec![leaf.path.clone()];
        if is_whole {
            Fate::Carried(to)
        } else {
            Fate::Partly {
                to,
                reason: &OWN_HEADERS,
            }
        }
    }

    /// There is no such key here.
    fn fate(&mut self, leaf: &Leaf<'a>) -> Fate {
        let known = self.known.get(&leaf.pattern).copied();
        if let Some(known) = known
            && (convert::is_default(known, leaf.value) || self.is_off(leaf))
        {
            return Fate::Default;
        }
        let is_known = known.is_some() || self.is_table_of_known(&leaf.pattern);
        if is_known && is_empty(leaf.value) {
            return Fate::Default;
        }
        let reason = if is_known {
            reasons::of(&leaf.pattern)
        } else {
            reasons::of_pro(&leaf.pattern).or_else(|| reasons::of_gone(&leaf.pattern))
        };
        if !is_known && reason.is_some() && is_zero(leaf.value) {
            return Fate::Default;
        }
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
        let old = || legacy::today(pattern, &self.known);
        old().or_else(|| known::nearest(names, pattern).map(str::to_owned))
    }

    /// Does the key belong to something that is switched off or not chosen?
    fn is_off(&self, leaf: &Leaf<'a>) -> bool {
        leaf.around.iter().any(|(table, pattern)| {
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
                    return true;
                }
            }
            let Some(known) = self.known.get(&choice).filter(|_| leaf.pattern != choice) else {
                return false;
            };
            let chosen = match table.get("type") {
                Some(Value::Text(text)) if !text.is_empty() => text.as_str(),
                _ => known.default,
            };
            let below = leaf.pattern[pattern.len()..].trim_start_matches('.');
            let (kind, rest) = below.split_once('.').unwrap_or((below, ""));
            !rest.is_empty() && kind != chosen
        })
    }

    fn api_is_off(&self) -> bool {
        self.root.at("http_api.disabled").and_then(convert::boolean) == Some(true)
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
        let implied = self.implied.get(&leaf.path).map(|why| (*why).to_owned());
        self.put(path, text, note.or(implied));
    }

    /// Writes a key of ours; a key that the schema does not have is not written.
    fn put(&mut self, path: &str, text: String, note: Option<String>) {
        if let Some((place, _)) = self.ours.get(&pattern(path)) {
            self.output.set(*place, path, text, note);
        }
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

fn is_empty(value: &Value) -> bool {
    match value {
        Value::List(values) => values.is_empty(),
        Value::Table(table) => table.is_empty(),
        _ => false,
    }
}

/// Does zero mean something to us? A default of zero tells.
fn takes_zero(key: &FileKey) -> bool {
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

/// Options of a namespace whose default is said once for all of them: to say the same is not to say nothing.
fn inherits(pattern: &str) -> bool {
    let (table, leaf) = pattern.rsplit_once('.').unwrap_or(("", pattern));
    matches!(table, "channel.without_namespace" | "channel.namespaces[]")
        && matches!(leaf, "history_meta_ttl" | "publication_data_format")
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
