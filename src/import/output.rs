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
    tables: BTreeMap<String, Below>,
    /// A member of a list that is left out.
    is_dropped: bool,
}

/// What stands in one table under a name: a table, or a list of them.
struct Below {
    /// In the schema.
    place: usize,
    members: Vec<Output>,
    is_list: bool,
}

struct Line {
    name: String,
    text: String,
    notes: Vec<String>,
    /// Only the notes are written.
    is_dropped: bool,
}

fn split(head: &str) -> (&str, Option<usize>) {
    match head.strip_suffix(']').and_then(|head| head.split_once('[')) {
        Some((name, index)) => (name, index.parse().ok()),
        None => (head, None),
    }
}

impl Output {
    /// Sets a key. `place` is its place in the schema; the path has indices. A note stands above it, once.
    pub(super) fn set(&mut self, place: usize, path: &str, text: String, note: Option<String>) {
        let Some((head, rest)) = path.split_once('.') else {
            let notes = self.lines.remove(&place).map(|line| line.notes);
            let mut notes = notes.unwrap_or_default();
            notes.extend(note);
            let line = Line {
                name: path.to_owned(),
                text,
                notes,
                is_dropped: false,
            };
            self.lines.insert(place, line);
            return;
        };
        let (name, index) = split(head);
        let entry = self.tables.entry(name.to_owned()).or_insert_with(|| Below {
            place,
            members: Vec::new(),
            is_list: index.is_some(),
        });
        entry.place = entry.place.min(place);
        let index: usize = index.unwrap_or(0);
        // Members come in order, and a member without any key keeps its place.
        while entry.members.len() <= index {
            entry.members.push(Self::default());
        }
        entry.members[index].set(place, rest, text, note);
    }

    /// Leaves a key out, or everything below it, and says so in its place. `false` where nothing of it is written.
    pub(super) fn leave_out(&mut self, path: &str, note: &str) -> bool {
        let (head, rest) = path.split_once('.').unwrap_or((path, ""));
        let (name, index) = split(head);
        if rest.is_empty() {
            let mut lines = self.lines.values_mut();
            if let Some(line) = lines.find(|line| line.name == name && !line.is_dropped) {
                line.is_dropped = true;
                line.notes = vec![format!("{name} is left out: {note}")];
                return true;
            }
        }
        let Some(below) = self.tables.get_mut(name) else {
            return false;
        };
        let Some(member) = below.members.get_mut(index.unwrap_or(0)) else {
            return false;
        };
        if member.is_dropped {
            return false;
        }
        if rest.is_empty() {
            member.is_dropped = true;
            return true;
        }
        member.leave_out(rest, note)
    }

    /// The path of what is written at this path: members that are left out do not count there.
    pub(super) fn written_at(&self, path: &str) -> String {
        let (head, rest) = path.split_once('.').unwrap_or((path, ""));
        let (name, index) = split(head);
        let below = self.tables.get(name);
        let (at, member) = match (below, index) {
            (Some(below), Some(index)) => {
                let mut kept = below.members.iter().enumerate();
                let mut kept = kept.by_ref().filter(|(_, member)| !member.is_dropped);
                match kept.nth(index) {
                    Some((at, member)) => (format!("{name}[{at}]"), Some(member)),
                    None => (head.to_owned(), None),
                }
            }
            (Some(below), None) => (head.to_owned(), below.members.first()),
            (None, _) => (head.to_owned(), None),
        };
        match (rest, member) {
            ("", _) => at,
            (rest, Some(member)) => format!("{at}.{}", member.written_at(rest)),
            (rest, None) => format!("{at}.{rest}"),
        }
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
            if !line.is_dropped {
                // Writing to a String cannot fail.
                let _ = writeln!(out, "{} = {}", key(&line.name), line.text);
            }
        }
        let mut tables: Vec<_> = self.tables.iter().collect();
        tables.sort_by_key(|(_, below)| below.place);
        for (name, below) in tables {
            let path = if path.is_empty() {
                key(name)
            } else {
                format!("{path}.{}", key(name))
            };
            for member in below.members.iter().filter(|member| !member.is_dropped) {
                if below.is_list {
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
