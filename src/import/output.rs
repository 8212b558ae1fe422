//! The file that is written: keys in the order of ringmain's own schema.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::document::Value;

/// A value as TOML, in one line unless a string has several.
pub(super) fn toml(value: &Value) -> String {
    match value {
        // There is no null in TOML, and no key that takes one gets here.
        Value::Null => "\"\"".to_owned(),
        Value::Boolean(boolean) => boolean.to_string(),
        Value::Integer(integer) => integer.to_string(),
        Value::Float(float) => toml::Value::Float(*float).to_string(),
        Value::Text(text) => toml::Value::String(text.clone()).to_string(),
        Value::List(values) => {
            let values: Vec<String> = values.iter().map(toml).collect();
            format!("[{}]", values.join(", "))
        }
        Value::Table(table) => {
            let fields: Vec<String> = table
                .iter()
                .map(|(name, value)| format!("{} = {}", key(name), toml(value)))
                .collect();
            format!("{{ {} }}", fields.join(", "))
        }
    }
}

fn key(name: &str) -> String {
    let is_bare = !name.is_empty()
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
    if is_bare {
        name.to_owned()
    } else {
        toml::Value::String(name.to_owned()).to_string()
    }
}

/// A table that is being written.
#[derive(Default)]
pub(super) struct Output {
    /// By place in the schema.
    lines: BTreeMap<usize, Line>,
    tables: BTreeMap<String, (usize, Vec<Self>, bool)>,
}

struct Line {
    name: String,
    text: String,
    notes: Vec<String>,
}

impl Output {
    /// Sets a key. `place` is its place in the schema; the path has indices. A note stands above it, once.
    pub(super) fn set(&mut self, place: usize, path: &str, text: String, note: Option<String>) {
        let Some((head, rest)) = path.split_once('.') else {
            let notes = self.lines.remove(&place).map(|line| line.notes);
            let mut notes = notes.unwrap_or_default();
            notes.extend(note);
            let name = path.to_owned();
            self.lines.insert(place, Line { name, text, notes });
            return;
        };
        let (name, index) = match head.strip_suffix(']').and_then(|head| head.split_once('[')) {
            Some((name, index)) => (name, index.parse().ok()),
            None => (head, None),
        };
        let entry = self
            .tables
            .entry(name.to_owned())
            .or_insert_with(|| (place, Vec::new(), index.is_some()));
        entry.0 = entry.0.min(place);
        let index: usize = index.unwrap_or(0);
        // Members come in order, and a member without any key keeps its place.
        while entry.1.len() <= index {
            entry.1.push(Self::default());
        }
        entry.1[index].set(place, rest, text, note);
    }

    /// The whole file.
    pub(super) fn render(&self) -> String {
        let mut out = String::new();
        self.write(&mut out, "");
        out
    }

    fn write(&self, out: &mut String, path: &str) {
        for line in self.lines.values() {
            for note in &line.notes {
                comment(out, note);
            }
            // Writing to a String cannot fail.
            let _ = writeln!(out, "{} = {}", key(&line.name), line.text);
        }
        let mut tables: Vec<_> = self.tables.iter().collect();
        tables.sort_by_key(|(_, (place, ..))| *place);
        for (name, (_, members, is_list)) in tables {
            let path = if path.is_empty() {
                key(name)
            } else {
                format!("{path}.{}", key(name))
            };
            for member in members {
                if *is_list {
                    let _ = writeln!(out, "\n[[{path}]]");
                } else if !member.lines.is_empty() {
                    let _ = writeln!(out, "\n[{path}]");
                }
                member.write(out, &path);
            }
        }
    }
}

/// A comment of one or more lines.
pub(super) fn comment(out: &mut String, text: &str) {
    for line in text.lines() {
        let line = line.replace(|c: char| c.is_control(), " ");
        let _ = writeln!(out, "# {line}");
    }
}
