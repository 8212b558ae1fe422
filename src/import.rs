//! From a Centrifugo 6 configuration to ours: `ringmain import-centrifugo`.
//!
//! `document` (with `json`, `yaml`) reads a file into a tree, `environment` lays variables over it, `carry` gives
//! every key a fate, `output` writes the file, and our own loader reads it before anybody gets it. What cannot be
//! carried over is reported with its reason: no key is dropped silently.

mod carry;
mod convert;
mod document;
mod environment;
mod json;
mod known;
mod output;
mod reasons;
mod report;
mod yaml;

use std::collections::BTreeMap;

use crate::config::{Config, Source, keys};
use carry::Carry;
pub use document::{BYTES_MAX, Format};
use document::{Table, Value};
pub use reasons::Reason;

/// What is to be imported.
#[derive(Clone, Copy, Debug, Default)]
pub struct Input<'a> {
    /// Name of the file, for the report; empty if there is only an environment.
    pub name: &'a str,
    /// Its bytes.
    pub bytes: &'a [u8],
    /// How it is written; without it each format is tried.
    pub format: Option<Format>,
    /// Variables of the environment, of which those that begin with `CENTRIFUGO_` count.
    pub variables: &'a [(String, String)],
}

/// A configuration that our loader accepts, and what became of each key.
#[derive(Clone)]
pub struct Imported {
    /// The file. It holds the secrets of the input.
    pub toml: String,
    /// Every key of the input, sorted by path.
    pub entries: Vec<Entry>,
}

/// One key of the input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its path: `channel.namespaces[0].history_ttl`, or the variable's name where it sets no key.
    pub path: String,
    /// The kind of its value: `a string`, `a list`. The value itself is never shown.
    pub kind: &'static str,
    /// The variable that set it.
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
    /// There is nothing to write, and nothing is lost: why.
    Needless(String),
    /// It has no equivalent.
    Lost(&'static Reason),
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
    /// Our loader refuses what the input says.
    #[error("nothing was written:\n{}", keys.join("\n"))]
    Refused {
        /// One line for each key: which one of the input, and what is wrong with it.
        keys: Vec<String>,
        /// What would have become of every key.
        entries: Vec<Entry>,
    },
}

/// What did not come along and why, for a person; without values.
#[must_use]
pub fn report(entries: &[Entry]) -> String {
    report::text(entries)
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
        self.entries
            .iter()
            .all(|entry| matches!(entry.fate, Fate::Carried(_) | Fate::Needless(_)))
    }

    /// What did not come along and why, for a person; without values.
    #[must_use]
    pub fn report(&self) -> String {
        report(&self.entries)
    }

    /// The file with the report as comments at its end.
    #[must_use]
    pub fn annotated(&self) -> String {
        let mut out = self.toml.clone();
        let report = self.report();
        if !report.is_empty() {
            out.push('\n');
            output::comment(&mut out, &report);
        }
        out
    }
}

/// Reads a Centrifugo configuration and writes ours.
///
/// # Errors
/// The input is no configuration, or our loader refuses a value of it.
pub fn import(input: &Input<'_>) -> Result<Imported, ImportError> {
    let unreadable = |message| ImportError::Unreadable {
        name: if input.name.is_empty() {
            "environment".to_owned()
        } else {
            input.name.to_owned()
        },
        message,
    };
    let mut root = if input.name.is_empty() {
        Table::new()
    } else {
        document::read(input.bytes, input.format).map_err(unreadable)?
    };
    let known = known::all();
    let environment = environment::read(input.variables, &known, &root).map_err(unreadable)?;
    let mut entries = Vec::new();
    let mut variables = BTreeMap::new();
    for setting in environment.settings {
        let path = setting.path.clone();
        let old = set(&mut root, &path, setting.value).map_err(unreadable)?;
        if let Some(old) = old {
            entries.push(Entry {
                path: path.clone(),
                kind: old.kind(),
                variable: None,
                fate: Fate::Needless(format!("{} goes over it", setting.variable)),
            });
        }
        variables.insert(path, setting.variable);
    }
    let none = |name: String, fate| Entry {
        path: name.clone(),
        kind: "a variable",
        variable: Some(name),
        fate,
    };
    for (name, why) in environment.empty {
        entries.push(none(name, Fate::Needless(why.to_owned())));
    }
    for name in environment.unknown {
        entries.push(none(name, Fate::Unknown(None)));
    }
    expand(&mut root, &known, input.variables).map_err(unreadable)?;

    let root = Value::Table(root);
    let mut carry = Carry::new(&root, known, keys());
    let body = carry.run();
    let toml = format!("{}{}", report::head(input.name), body);
    entries.append(&mut carry.entries);
    for entry in &mut entries {
        if entry.variable.is_none() {
            entry.variable = variable_of(&variables, &entry.path);
        }
    }
    entries.sort_by(|a, b| a.path.cmp(&b.path));
    let source = Source {
        name: "output",
        text: &toml,
    };
    match Config::load(&[source], &[]) {
        Ok(_) => Ok(Imported { toml, entries }),
        Err(errors) => Err(ImportError::Refused {
            keys: report::refused(&errors, &carry.origins, &variables),
            entries,
        }),
    }
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

/// Puts the value of `${CENTRIFUGO_VAR_NAME}` in its place, in the maps that Centrifugo does it in.
fn expand(
    root: &mut Table,
    known: &BTreeMap<String, known::Known>,
    variables: &[(String, String)],
) -> Result<(), String> {
    fn within(
        value: &mut Value,
        pattern: &str,
        known: &BTreeMap<String, known::Known>,
        variables: &[(String, String)],
    ) -> Result<(), String> {
        let is_map = known
            .get(pattern)
            .is_some_and(|known| known.shape == known::Shape::Map);
        match value {
            Value::Table(table) => table.iter_mut().try_for_each(|(name, value)| {
                match value {
                    Value::Text(text) if is_map => *text = substitute(text, variables)?,
                    _ => {
                        let below = if pattern.is_empty() {
                            name.clone()
                        } else if is_map {
                            pattern.to_owned()
                        } else {
                            format!("{pattern}.{name}")
                        };
                        within(value, &below, known, variables)?;
                    }
                }
                Ok(())
            }),
            Value::List(values) => {
                let pattern = if is_map {
                    pattern.to_owned()
                } else {
                    format!("{pattern}[]")
                };
                values
                    .iter_mut()
                    .try_for_each(|value| within(value, &pattern, known, variables))
            }
            _ => Ok(()),
        }
    }
    let mut value = Value::Table(std::mem::take(root));
    let result = within(&mut value, "", known, variables);
    if let Value::Table(table) = value {
        *root = table;
    }
    result
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
                Shape::List => Value::List(vec![Value::Text("77".to_owned())]),
                Shape::Map => Value::Table(Table::from([("x".to_owned(), Value::Null)])),
            };
            let root = Value::Table(with_key(pattern, value, &known));
            let mut carry = Carry::new(&root, known.clone(), keys());
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
