//! From a Centrifugo configuration to ours: `ringmain import-centrifugo`.
//!
//! `document` (with `json`, `yaml`) reads a file into a tree, `environment` lays variables over it and `arguments` options,
//! `legacy` puts what versions before 6 said where version 6 says it, `carry` gives every key a fate, `output` writes the
//! file, and our own loader reads it before anybody gets it; what it refuses is left out. What cannot be carried over is
//! reported with its reason: no key is dropped silently.

mod arguments;
mod carry;
mod convert;
mod document;
mod environment;
mod known;
mod legacy;
mod output;
mod reasons;
mod report;
mod version;

use std::cmp::Ordering;
use std::collections::BTreeMap;

use crate::config::keys;
use carry::Carry;
pub use document::{BYTES_MAX, Format};
use document::{Table, Value};
use known::{Known, Shape};
use legacy::Modern;
pub use reasons::Reason;
pub use version::Version;

/// What is to be imported.
#[derive(Clone, Copy, Debug, Default)]
pub struct Input<'a> {
    /// Name of the file, for the report; empty if there is none.
    pub name: &'a str,
    /// Its bytes.
    pub bytes: &'a [u8],
    /// How it is written; without it each format is tried.
    pub format: Option<Format>,
    /// Variables of the environment, of which those that begin with `CENTRIFUGO_` count.
    pub variables: &'a [(String, String)],
    /// Options of Centrifugo's command line.
    pub arguments: &'a str,
    /// Which version all of it is for, if its names are not to tell.
    pub version: Option<Version>,
}

/// A configuration that our loader accepts, and what became of each key.
#[derive(Clone)]
pub struct Imported {
    /// The file. It holds the secrets of the input.
    pub toml: String,
    /// Every key of the input, in the order of names and of numbers in lists.
    pub entries: Vec<Entry>,
    /// Which version the input is for.
    pub version: Version,
}

/// One key of the input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its path: `channel.namespaces[0].history_ttl`, or the name of the variable or option where it sets no key.
    pub path: String,
    /// The path with names of members in place of their numbers: `channel.namespaces[chat].history_ttl`.
    pub label: String,
    /// The kind of its value: `a string`, `a list`. The value itself is never shown.
    pub kind: &'static str,
    /// The variable or option that set it.
    pub variable: Option<String>,
    /// What became of it.
    pub fate: Fate,
}

/// What became of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is in these keys of ours.
    Carried(Vec<String>),
    /// It is in these keys of ours, but something of it is lost.
    Partly {
        /// Our keys.
        to: Vec<String>,
        /// What is lost.
        reason: &'static Reason,
    },
    /// What it asks for is there, but somewhere else: where.
    Moved(&'static str),
    /// There is nothing to write, and nothing is lost: why.
    Needless(String),
    /// It is off, empty, or at a default that is ours too.
    Default,
    /// It has no equivalent.
    Lost(&'static Reason),
    /// Our loader takes no such value, which is left out: why.
    Refused(String),
    /// Centrifugo has no such key either; the one that looks most like it.
    Unknown(Option<String>),
}

/// Why nothing is written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ImportError {
    /// The input cannot be read.
    #[error("{name}: {message}")]
    Unreadable {
        /// The file.
        name: String,
        /// What is wrong, without any value.
        message: String,
    },
    /// Our loader refuses what the input says, whatever is left out of it.
    #[error("nothing was written:\n{}", keys.join("\n"))]
    Refused {
        /// One line for each key: which one of the input, and what is wrong with it.
        keys: Vec<String>,
    },
}

impl std::fmt::Debug for Imported {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Not the file: it holds secrets.
        f.debug_struct("Imported")
            .field("entries", &self.entries)
            .finish_non_exhaustive()
    }
}

impl Imported {
    /// Did everything that was asked for come along?
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.entries.iter().all(|entry| {
            matches!(
                entry.fate,
                Fate::Carried(_) | Fate::Needless(_) | Fate::Default | Fate::Moved(_)
            )
        })
    }

    /// What did not come along and why, for a person; without values. `verbose` also names what asked for nothing.
    #[must_use]
    pub fn report(&self, verbose: bool) -> String {
        report::text(&self.entries, self.version, verbose)
    }

    /// The file with the report as comments at its end.
    #[must_use]
    pub fn annotated(&self) -> String {
        let mut out = self.toml.clone();
        let report = self.report(false);
        if !report.is_empty() {
            out.push('\n');
            output::comment(&mut out, &report);
        }
        out
    }
}

/// Reads a Centrifugo configuration and writes ours. One part that cannot come along keeps no other from it.
///
/// # Errors
/// The input is no configuration at all.
pub fn import(input: &Input<'_>) -> Result<Imported, ImportError> {
    let known = known::all();
    let unreadable = |name: &str, message: String| ImportError::Unreadable {
        name: name.to_owned(),
        message,
    };
    let mut root = if input.name.is_empty() {
        Table::new()
    } else {
        document::read(input.bytes, input.format)
            .map_err(|message| unreadable(input.name, message))?
    };
    let flags = arguments::read(input.arguments, &known)
        .map_err(|message| unreadable("command line", message))?;
    let version = input.version.unwrap_or_else(|| {
        let mut names = environment::names(input.variables);
        names.extend(flags.iter().map(|flag| flag.key.replace('.', "_")));
        version::detect(&root, &names, &known)
    });
    let mut over = Over::default();
    over.environment(&mut root, input, version, &known);
    over.flags(&mut root, flags, version, &known);
    let unset = expand(&mut root, &known, input.variables);
    let modern = if version == Version::Six {
        Modern {
            root,
            ..Modern::default()
        }
    } else {
        legacy::modernise(root, version == Version::Three, &known)
    };
    finish(input, version, modern, over, unset, known)
}

/// Writes the file, and says what became of each key.
fn finish(
    input: &Input<'_>,
    version: Version,
    mut modern: Modern,
    over: Over,
    unset: Vec<(String, String)>,
    known: BTreeMap<String, Known>,
) -> Result<Imported, ImportError> {
    let root = Value::Table(std::mem::take(&mut modern.root));
    let mut carry = Carry::new(&root, known, keys(), modern.implied.clone());
    carry.run();
    let toml = carry
        .accepted(&report::head(input.name, version))
        .map_err(|errors| ImportError::Refused {
            keys: report::refused(&errors, &carry.origins, &over.variables),
        })?;
    let carried = carry
        .entries
        .into_iter()
        .filter(|entry| !modern.implied.contains_key(&entry.path))
        .map(|entry| Entry {
            path: modern.origin(&entry.path),
            ..entry
        });
    let loose = modern.loose.iter().map(|(path, kind, fate)| Entry {
        path: path.clone(),
        label: String::new(),
        kind,
        variable: None,
        fate: fate.clone(),
    });
    let mut entries = merged(carried.chain(loose));
    entries.extend(over.entries);
    for (path, why) in unset {
        if let Some(entry) = entries.iter_mut().find(|entry| entry.path == path) {
            entry.fate = Fate::Refused(why);
        }
    }
    for entry in &mut entries {
        if entry.variable.is_none() {
            entry.variable = variable_of(&over.variables, &entry.path);
        }
        entry.label = label(&over.labels, &entry.path);
    }
    entries.sort_by(|a, b| by_name_and_number(&a.path, &b.path));
    Ok(Imported {
        toml,
        entries,
        version,
    })
}

/// Keys of the input once each, with what they became at all places.
fn merged(entries: impl Iterator<Item = Entry>) -> Vec<Entry> {
    let weight = |fate: &Fate| match fate {
        Fate::Default => 0,
        Fate::Needless(_) => 1,
        Fate::Moved(_) => 2,
        Fate::Carried(_) => 3,
        Fate::Unknown(_) => 4,
        Fate::Partly { .. } => 5,
        Fate::Lost(_) => 6,
        Fate::Refused(_) => 7,
    };
    let mut by_path: BTreeMap<String, Entry> = BTreeMap::new();
    for entry in entries {
        let Some(before) = by_path.get_mut(&entry.path) else {
            by_path.insert(entry.path.clone(), entry);
            continue;
        };
        if let (Fate::Carried(to), Fate::Carried(more)) = (&mut before.fate, &entry.fate) {
            to.extend(more.iter().cloned());
        } else if weight(&entry.fate) > weight(&before.fate) {
            before.fate = entry.fate;
        }
    }
    by_path.into_values().collect()
}

/// What stands over the file.
#[derive(Default)]
struct Over {
    entries: Vec<Entry>,
    /// Who set a key, by path.
    variables: BTreeMap<String, String>,
    /// Names of the members of lists, by path.
    labels: BTreeMap<String, String>,
}

impl Over {
    fn entry(&mut self, path: &str, kind: &'static str, variable: Option<&str>, fate: Fate) {
        self.entries.push(Entry {
            path: path.to_owned(),
            label: String::new(),
            kind,
            variable: variable.map(str::to_owned),
            fate,
        });
    }

    /// A variable or option that sets no key.
    fn alone(&mut self, name: &str, fate: Fate) {
        let kind = if name.starts_with('-') {
            "an option"
        } else {
            "a variable"
        };
        self.entry(name, kind, Some(name), fate);
    }

    fn lay(&mut self, root: &mut Table, by: String, path: String, value: Value) {
        match set(root, &path, value) {
            Ok(old) => {
                if let Some(old) = old {
                    let fate = Fate::Needless(format!("{by} goes over it"));
                    let variable = self.variables.get(&path).cloned();
                    self.entry(&path, old.kind(), variable.as_deref(), fate);
                }
                self.variables.insert(path, by);
            }
            Err(why) => self.alone(&by, Fate::Refused(why)),
        }
    }

    fn environment(
        &mut self,
        root: &mut Table,
        input: &Input<'_>,
        version: Version,
        known: &BTreeMap<String, Known>,
    ) {
        let environment = if version == Version::Six {
            environment::read(input.variables, known, root)
        } else {
            environment::read_old(input.variables, known)
        };
        for setting in environment.settings {
            self.lay(root, setting.variable, setting.path, setting.value);
        }
        for (name, why) in environment.empty {
            let fate = match why {
                environment::EMPTY => Fate::Default,
                why => Fate::Needless(why.to_owned()),
            };
            self.alone(&name, fate);
        }
        for (name, nearest) in environment.unknown {
            self.alone(&name, Fate::Unknown(nearest));
        }
        for (name, why) in environment.refused {
            self.alone(&name, Fate::Refused(why));
        }
        label_members(root, "", &mut self.labels);
    }

    fn flags(
        &mut self,
        root: &mut Table,
        flags: Vec<arguments::Flag>,
        version: Version,
        known: &BTreeMap<String, Known>,
    ) {
        for flag in flags {
            let today = if known.contains_key(&flag.key) {
                Some(flag.key.clone())
            } else {
                legacy::today(&flag.key, known)
            };
            let is_short = !flag.word.starts_with("--");
            let path = match (version, &today) {
                _ if flag.key == "config" => {
                    let why = "the file to read is the command's own argument".to_owned();
                    self.alone(&flag.word, Fate::Needless(why));
                    continue;
                }
                (Version::Six, Some(path)) if is_short || known.contains_key(&flag.key) => {
                    path.clone()
                }
                (Version::Six, near) => {
                    let near = near.as_ref().map(|path| format!("--{path}"));
                    self.alone(&flag.word, Fate::Unknown(near));
                    continue;
                }
                _ => flag.key.clone(),
            };
            let shape = today
                .and_then(|path| known.get(&path))
                .map(|known| known.shape);
            match environment::value(&flag.value, shape.unwrap_or(Shape::Text)) {
                Ok(value) => self.lay(root, flag.word, path, value),
                Err(why) => self.alone(&flag.word, Fate::Refused(why)),
            }
        }
    }
}

/// Members of lists that have a name which is one.
fn label_members(table: &Table, path: &str, labels: &mut BTreeMap<String, String>) {
    const LABEL_BYTES_MAX: usize = 64;
    let is_label = |text: &str| {
        !text.is_empty()
            && text.len() <= LABEL_BYTES_MAX
            && text
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'/'))
    };
    for (name, value) in table {
        let path = if path.is_empty() {
            name.clone()
        } else {
            format!("{path}.{name}")
        };
        match value {
            Value::Table(inner) => label_members(inner, &path, labels),
            Value::List(members) => {
                for (index, member) in members.iter().enumerate() {
                    let Value::Table(inner) = member else {
                        continue;
                    };
                    let path = format!("{path}[{index}]");
                    if let Some(Value::Text(name)) =
                        inner.get("name").filter(|_| labels.len() < 10_000)
                        && is_label(name)
                    {
                        labels.insert(path.clone(), name.clone());
                    }
                    label_members(inner, &path, labels);
                }
            }
            _ => {}
        }
    }
}

/// A path with names in place of numbers.
fn label(labels: &BTreeMap<String, String>, path: &str) -> String {
    let mut out = String::new();
    let mut from = 0;
    while let Some(open) = path[from..].find('[').map(|at| from + at) {
        let Some(close) = path[open..].find(']').map(|at| open + at) else {
            break;
        };
        out.push_str(&path[from..=open]);
        match labels.get(&path[..=close]) {
            Some(name) => out.push_str(name),
            None => out.push_str(&path[open + 1..close]),
        }
        out.push(']');
        from = close + 1;
    }
    out.push_str(&path[from..]);
    out
}

/// Names in the order of letters, members of lists in the order of numbers.
fn by_name_and_number(a: &str, b: &str) -> Ordering {
    let parts = |path: &str| -> Vec<(u64, String)> {
        path.split(['.', '[', ']'])
            .map(|part| match part.parse::<u64>() {
                Ok(number) => (number, String::new()),
                Err(_) => (0, part.to_owned()),
            })
            .collect()
    };
    parts(a).cmp(&parts(b)).then_with(|| a.cmp(b))
}

/// The variable that set a key or a list that the key is in.
fn variable_of(variables: &BTreeMap<String, String>, path: &str) -> Option<String> {
    if let Some(variable) = variables.get(path) {
        return Some(variable.clone());
    }
    let at = path.rfind(['.', '['])?;
    variable_of(variables, &path[..at])
}

/// Sets a key, whose path has indices, and returns what stood there.
fn set(root: &mut Table, path: &str, value: Value) -> Result<Option<Value>, String> {
    let (sections, leaf) = path.rsplit_once('.').unwrap_or(("", path));
    let mut table = root;
    for section in sections.split('.').filter(|section| !section.is_empty()) {
        let (name, index) = match section.strip_suffix(']').and_then(|s| s.split_once('[')) {
            Some((name, index)) => (name, index.parse::<usize>().ok()),
            None => (section, None),
        };
        let at = table
            .entry(name.to_owned())
            .or_insert_with(|| Value::Table(Table::new()));
        let at = match (at, index) {
            (Value::List(members), Some(index)) => members.get_mut(index),
            (at, _) => Some(at),
        };
        table = match at {
            Some(Value::Table(table)) => table,
            _ => {
                return Err(format!(
                    "`{section}` is not a table, and a variable sets `{path}`"
                ));
            }
        };
    }
    Ok(table.insert(leaf.to_owned(), value))
}

/// Puts the value of `${CENTRIFUGO_VAR_NAME}` in its place, in the maps that Centrifugo does it in. Returns the paths of
/// those in which a variable is missing, which set nothing then, and what is wrong.
fn expand(
    root: &mut Table,
    known: &BTreeMap<String, Known>,
    variables: &[(String, String)],
) -> Vec<(String, String)> {
    fn within(
        table: &mut Table,
        path: &str,
        known: &BTreeMap<String, Known>,
        variables: &[(String, String)],
        unset: &mut Vec<(String, String)>,
    ) {
        for (name, value) in table.iter_mut() {
            let path = if path.is_empty() {
                name.clone()
            } else {
                format!("{path}.{name}")
            };
            let is_map = known
                .get(&carry::pattern(&path))
                .is_some_and(|known| known.shape == Shape::Map);
            match value {
                value if is_map => {
                    if let Err(why) = in_texts(value, variables) {
                        *value = Value::Null;
                        unset.push((path, why));
                    }
                }
                Value::Table(inner) => within(inner, &path, known, variables, unset),
                Value::List(members) => {
                    for (index, member) in members.iter_mut().enumerate() {
                        if let Value::Table(inner) = member {
                            let path = format!("{path}[{index}]");
                            within(inner, &path, known, variables, unset);
                        }
                    }
                }
                _ => {}
            }
        }
    }
    let mut unset = Vec::new();
    within(root, "", known, variables, &mut unset);
    unset
}

fn in_texts(value: &mut Value, variables: &[(String, String)]) -> Result<(), String> {
    match value {
        Value::Text(text) => {
            *text = substitute(text, variables)?;
            Ok(())
        }
        Value::Table(table) => table
            .values_mut()
            .try_for_each(|value| in_texts(value, variables)),
        Value::List(values) => values
            .iter_mut()
            .try_for_each(|value| in_texts(value, variables)),
        _ => Ok(()),
    }
}

fn substitute(text: &str, variables: &[(String, String)]) -> Result<String, String> {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        out.push_str(before);
        let Some((name, behind)) = after
            .split_once('}')
            .filter(|(name, _)| name.starts_with(environment::CUSTOM))
        else {
            out.push_str("${");
            rest = after;
            continue;
        };
        let found = variables.iter().find(|(variable, _)| variable == name);
        let Some((_, value)) = found else {
            return Err(format!(
                "a value refers to {name}, which is not in the environment; set it and give --env"
            ));
        };
        out.push_str(value);
        rest = behind;
    }
    out.push_str(rest);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::known::{Known, Shape};
    use super::*;

    /// A file with this one key, every switch around it on and every choice made for it.
    fn with_key(pattern: &str, value: Value, known: &BTreeMap<String, Known>) -> Table {
        fn build(
            pattern: &str,
            rest: &[&str],
            value: Value,
            known: &BTreeMap<String, Known>,
        ) -> Value {
            let Some((part, rest)) = rest.split_first() else {
                return value;
            };
            let name = part.trim_end_matches("[]");
            let mut table = Table::new();
            let at = |name: &str| {
                if pattern.is_empty() {
                    name.to_owned()
                } else {
                    format!("{pattern}.{name}")
                }
            };
            if known.contains_key(&at("enabled")) {
                table.insert("enabled".to_owned(), Value::Boolean(true));
            }
            if known.contains_key(&at("type")) {
                table.insert("type".to_owned(), Value::Text(name.to_owned()));
            }
            let inner = build(&at(part), rest, value, known);
            let inner = if part.ends_with("[]") {
                Value::List(vec![inner])
            } else {
                inner
            };
            table.insert(name.to_owned(), inner);
            Value::Table(table)
        }
        let parts: Vec<&str> = pattern.split('.').collect();
        match build("", &parts, value, known) {
            Value::Table(table) => table,
            _ => panic!("{pattern} has a name"),
        }
    }

    #[test]
    fn every_key_of_centrifugo_is_carried_or_has_a_reason() {
        let known = known::all();
        let ours: Vec<String> = keys().into_iter().map(|key| key.path).collect();
        for (pattern, one) in &known {
            let value = match one.shape {
                Shape::Boolean => Value::Boolean(true),
                Shape::Integer => Value::Integer(77),
                Shape::Duration => Value::Text("77s".to_owned()),
                Shape::Text => Value::Text("77".to_owned()),
                // An origin has a scheme, or no browser sends it.
                Shape::List if pattern == "client.allowed_origins" => {
                    Value::List(vec![Value::Text("https://example.com".to_owned())])
                }
                Shape::List => Value::List(vec![Value::Text("77".to_owned())]),
                Shape::Map => Value::Table(Table::from([("x".to_owned(), Value::Null)])),
            };
            let root = Value::Table(with_key(pattern, value, &known));
            let mut carry = Carry::new(&root, known.clone(), keys(), BTreeMap::new());
            carry.run();
            let path = pattern.replace("[]", "[0]");
            let entry = carry.entries.iter().find(|entry| entry.path == path);
            let fate = &entry.unwrap_or_else(|| panic!("{pattern} is dropped")).fate;
            assert!(!matches!(fate, Fate::Unknown(_)), "{pattern} has no reason");
            if ours.contains(pattern) {
                assert!(matches!(fate, Fate::Carried(_)), "{pattern}: {fate:?}");
            }
        }
    }

    #[test]
    fn every_kind_of_input_that_no_format_allows_is_refused() {
        for (text, format) in [
            ("{\"a\": 1, \"a\": 2}", Format::Json),
            ("{\"a\": 1, \"A\": 2}", Format::Json),
            ("{\"a\": 1} x", Format::Json),
            ("[1]", Format::Json),
            ("a: 1\na: 2\n", Format::Yaml),
            ("a: &x [*x]\n", Format::Yaml),
            ("a: *nowhere\n", Format::Yaml),
            ("a: 1\n---\nb: 2\n", Format::Yaml),
            ("? [a]\n: 1\n", Format::Yaml),
            ("a: {<<: 1}\n", Format::Yaml),
            ("a = 1\na = 2\n", Format::Toml),
            ("a = \"s3cret", Format::Toml),
        ] {
            let error = document::read(text.as_bytes(), Some(format)).expect_err(text);
            assert!(!error.contains("s3cret"), "{error}");
        }
    }

    #[test]
    fn format_is_found_without_an_extension() {
        for text in [
            "{\"log\": {\"level\": \"warn\"}}",
            "log:\n  level: warn\n",
            "[log]\nlevel = \"warn\"\n",
        ] {
            let table = document::read(text.as_bytes(), None).expect(text);
            let level = Value::Table(table).at("log.level").cloned();
            assert_eq!(level, Some(Value::Text("warn".to_owned())), "{text}");
        }
        assert_eq!(Format::of_name("a/b.YML"), Some(Format::Yaml));
        assert_eq!(Format::of_name("config"), None);
    }

    #[test]
    fn scalars_of_yaml_have_the_kinds_of_the_core_schema() {
        let text = "a: yes\nb: 0x10\nc: 0o17\nd: '7'\ne: ~\nf: 1.5\ng: True\nh: !!str 7\ni: 1e3\nj: 10.0.0.5\nk: 25s\nl: '-'\nm: \"\"\n";
        let table = document::read(text.as_bytes(), Some(Format::Yaml)).expect("YAML");
        let text = |text: &str| Value::Text(text.to_owned());
        let expected = [
            text("yes"),
            Value::Integer(16),
            Value::Integer(15),
            text("7"),
            Value::Null,
            Value::Float(1.5),
            Value::Boolean(true),
            text("7"),
            Value::Float(1000.0),
            text("10.0.0.5"),
            text("25s"),
            text("-"),
            text(""),
        ];
        assert_eq!(table.into_values().collect::<Vec<_>>(), expected);
    }
}
