//! The visitor that lowers a tree into a configuration.

use std::time::Duration;

use super::super::{Config, Secret};
use super::form::{Form, Span};
use super::schema;
use super::tree::{self, TreeEntry, TreeTable, TreeValue};
use super::visit::{Number, Visit};
use super::writer::{self, SecretsWritten};
use super::{ConfigError, ValueOrigin, duration};

/// Keys that were set, and where.
#[derive(Default)]
pub(super) struct Keys(Vec<(String, ValueOrigin)>);

impl Keys {
    /// Where a key was set.
    pub(super) fn origin(&self, key: &str) -> ValueOrigin {
        self.0
            .iter()
            .find(|(name, _)| name == key)
            .map_or(ValueOrigin::BuiltIn, |(_, origin)| origin.clone())
    }
}

struct FileReader {
    /// The table that is being read. Keys that are left in it at its end are unknown.
    table: TreeTable,
    /// Its path.
    path: String,
    /// The keys that were asked for in it.
    known: Vec<&'static str>,
    keys: Keys,
    errors: Vec<ConfigError>,
    /// Unknown keys, for which a suggestion is looked for once all known keys of their table are known.
    unknown: Vec<(ValueOrigin, String, Option<String>)>,
}

/// Lowers a tree over the built-in defaults.
pub(super) fn read(table: TreeTable) -> (Config, Keys, Vec<ConfigError>) {
    let mut config = Config::built_in();
    let mut reader = FileReader {
        table,
        path: String::new(),
        known: Vec::new(),
        keys: Keys::default(),
        errors: Vec::new(),
        unknown: Vec::new(),
    };
    schema::config(&mut reader, &mut config);
    reader.close();
    for (origin, key, nearest) in reader.unknown {
        let nearest = nearest.or_else(|| same_name_elsewhere(&key));
        reader.errors.push(ConfigError::UnknownKey {
            origin,
            key,
            nearest,
        });
    }
    (config, reader.keys, reader.errors)
}

/// A known key of another table whose last part is the same.
fn same_name_elsewhere(key: &str) -> Option<String> {
    let (_, leaf) = key.rsplit_once('.').unwrap_or(("", key));
    let all = writer::lines(&Config::built_in(), SecretsWritten::Plain);
    let found = all.into_iter().find(|line| {
        line.key
            .rsplit_once('.')
            .is_some_and(|(_, name)| name == leaf)
    })?;
    Some(found.key)
}

/// The known key that looks most like an unknown one: at most every third letter differs.
fn nearest(known: &[&'static str], unknown: &str) -> Option<&'static str> {
    let distance = |name: &str| strsim::osa_distance(name, unknown);
    let best = known.iter().copied().min_by_key(|name| distance(name))?;
    (distance(best) <= (best.len().max(unknown.len()) / 3).max(1)).then_some(best)
}

impl FileReader {
    fn key(&self, key: &str) -> String {
        if self.path.is_empty() {
            key.to_owned()
        } else {
            format!("{}.{key}", self.path)
        }
    }

    /// The value of a key, if it was written.
    fn take(&mut self, key: &'static str) -> Option<TreeEntry> {
        self.known.push(key);
        let entry = self.table.take(key)?;
        let key = self.key(key);
        self.keys.0.push((key, entry.origin.clone()));
        Some(entry)
    }

    /// What is left in the table is unknown.
    fn close(&mut self) {
        for (name, entry) in std::mem::take(&mut self.table.0) {
            let key = self.key(&name);
            let near = nearest(&self.known, &name).map(|near| self.key(near));
            self.unknown.push((entry.origin, key, near));
        }
    }

    /// Reads a table of its own.
    fn within(&mut self, path: String, table: TreeTable, inside: impl FnOnce(&mut Self)) {
        let above = (
            std::mem::replace(&mut self.table, table),
            std::mem::replace(&mut self.path, path),
            std::mem::take(&mut self.known),
        );
        inside(self);
        self.close();
        (self.table, self.path, self.known) = above;
    }

    fn wrong(&mut self, key: &str, origin: ValueOrigin, expected: &'static str, found: &TreeValue) {
        let key = self.key(key);
        self.errors.push(match found {
            TreeValue::Bare(_) => ConfigError::Malformed {
                origin,
                key,
                expected,
            },
            _ => ConfigError::WrongType {
                origin,
                key,
                expected,
                found: found.kind(),
            },
        });
    }

    /// A text that is no value of its kind.
    fn misformed<T>(&mut self, key: &str, origin: ValueOrigin, form: &Form<T>, text: &str) {
        match (form.why)(text) {
            Some(why) => {
                let key = self.key(key);
                self.errors
                    .push(ConfigError::Unworkable { origin, key, why });
            }
            None => self.malformed(key, origin, form.expected),
        }
    }

    fn malformed(&mut self, key: &str, origin: ValueOrigin, expected: &'static str) {
        let key = self.key(key);
        self.errors.push(ConfigError::Malformed {
            origin,
            key,
            expected,
        });
    }

    /// A string, also a bare one.
    fn string(
        &mut self,
        key: &'static str,
        expected: &'static str,
    ) -> Option<(ValueOrigin, String)> {
        let entry = self.take(key)?;
        match entry.value {
            TreeValue::Text(text) | TreeValue::Bare(text) => Some((entry.origin, text)),
            other => {
                self.wrong(key, entry.origin, expected, &other);
                None
            }
        }
    }

    /// The members of a list. A bare text is one in TOML or JSON, or members with commas or blanks between them.
    fn members(&mut self, key: &'static str, expected: &'static str) -> Option<Vec<TreeEntry>> {
        let entry = self.take(key)?;
        let TreeEntry { origin, value } = entry;
        match value {
            TreeValue::Array(members) => Some(members),
            // `[::1]:8000` begins with a bracket and is no list.
            TreeValue::Bare(text)
                if text.trim_start().starts_with('[') && text.trim_end().ends_with(']') =>
            {
                if let Some(TreeValue::Array(members)) = tree::parse_bare(&text, &origin) {
                    return Some(members);
                }
                self.malformed(key, origin, expected);
                None
            }
            TreeValue::Bare(text) => {
                let members = bare_members(&text);
                let entry = |member: &str| TreeEntry {
                    origin: origin.clone(),
                    value: TreeValue::Bare(member.to_owned()),
                };
                Some(members.into_iter().map(entry).collect())
            }
            other => {
                self.wrong(key, origin, expected, &other);
                None
            }
        }
    }

    /// The table under a key, written as a table or as bare text.
    fn subtable(&mut self, key: &'static str, entry: TreeEntry) -> Option<TreeTable> {
        const EXPECTED: &str = "a table";
        let value = match entry.value {
            TreeValue::Bare(text) => {
                tree::parse_bare(&text, &entry.origin).unwrap_or(TreeValue::Bare(text))
            }
            value => value,
        };
        match value {
            TreeValue::Table(table) => Some(table),
            other => {
                self.wrong(key, entry.origin, EXPECTED, &other);
                None
            }
        }
    }
}

/// Members with commas or blanks between them. A comma within braces or brackets belongs to its member, and so does a
/// blank in the path of a unix socket.
fn bare_members(text: &str) -> Vec<&str> {
    let mut depth = 0_usize;
    let is_comma = |c: char| {
        match c {
            '{' | '[' => depth += 1,
            '}' | ']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        c == ',' && depth == 0
    };
    let mut members = Vec::new();
    for part in text.split(is_comma).map(str::trim) {
        if part.starts_with("unix:") {
            members.push(part);
        } else {
            members.extend(part.split_whitespace());
        }
    }
    members
}

impl Visit for FileReader {
    fn reads(&self) -> bool {
        true
    }

    fn section(&mut self, key: &'static str, inside: impl FnOnce(&mut Self)) {
        let entry = self.take(key);
        let table = entry
            .and_then(|entry| self.subtable(key, entry))
            .unwrap_or_default();
        self.within(self.key(key), table, inside);
    }

    fn sections<T: Clone>(
        &mut self,
        key: &'static str,
        fresh: &T,
        values: &mut Vec<T>,
        inside: impl Fn(&mut Self, &mut T),
    ) {
        let Some(entry) = self.take(key) else { return };
        let list = match entry.value {
            TreeValue::Bare(text) => {
                tree::parse_bare(&text, &entry.origin).unwrap_or(TreeValue::Bare(text))
            }
            value => value,
        };
        let TreeValue::Array(list) = list else {
            self.wrong(
                key,
                entry.origin,
                "a list of tables: in a file [[channel.namespaces]] and its like, in the environment [{ name = \"chat\" }] in TOML or JSON",
                &list,
            );
            return;
        };
        values.clear();
        for (index, entry) in list.into_iter().enumerate() {
            let path = format!("{}[{index}]", self.key(key));
            self.keys.0.push((path.clone(), entry.origin.clone()));
            let Some(table) = self.subtable(key, entry) else {
                continue;
            };
            let mut value = fresh.clone();
            self.within(path, table, |reader| inside(reader, &mut value));
            values.push(value);
        }
    }

    fn boolean(&mut self, key: &'static str, value: &mut bool) {
        let Some(entry) = self.take(key) else { return };
        match entry.value {
            TreeValue::Boolean(boolean) => *value = boolean,
            TreeValue::Bare(text) if text == "true" => *value = true,
            TreeValue::Bare(text) if text == "false" => *value = false,
            other => self.wrong(key, entry.origin, "true or false", &other),
        }
    }

    fn integer<T: Number>(&mut self, key: &'static str, min: u64, max: u64, value: &mut T) {
        const EXPECTED: &str = "a whole number";
        let Some(entry) = self.take(key) else { return };
        let number = match entry.value {
            TreeValue::Integer(number) => number,
            TreeValue::Bare(ref text) => match text.trim().parse() {
                Ok(number) => number,
                Err(_) => return self.wrong(key, entry.origin, EXPECTED, &entry.value),
            },
            ref other => return self.wrong(key, entry.origin, EXPECTED, other),
        };
        let in_range = u64::try_from(number)
            .ok()
            .filter(|number| (min..=max).contains(number));
        match in_range.and_then(|number| T::try_from(number).ok()) {
            Some(number) => *value = number,
            None => {
                let (key, min, max) = (self.key(key), min.to_string(), max.to_string());
                self.errors.push(ConfigError::OutOfRange {
                    origin: entry.origin,
                    key,
                    min,
                    max,
                    zero: false,
                });
            }
        }
    }

    fn duration(&mut self, key: &'static str, span: Span, value: &mut Duration) {
        const EXPECTED: &str = "a duration such as \"25s\", \"500ms\" or \"1h30m\"";
        let Some((origin, text)) = self.string(key, EXPECTED) else {
            return;
        };
        let Some(duration) = duration::parse(&text) else {
            return self.malformed(key, origin, EXPECTED);
        };
        let allowed = (span.min..=span.max).contains(&duration) || span.zero && duration.is_zero();
        if !allowed {
            let (min, max) = (duration::show(span.min), duration::show(span.max));
            let key = self.key(key);
            self.errors.push(ConfigError::OutOfRange {
                origin,
                key,
                min,
                max,
                zero: span.zero,
            });
        } else if span.whole_seconds && duration.subsec_nanos() != 0 {
            let key = self.key(key);
            self.errors
                .push(ConfigError::NotWholeSeconds { origin, key });
        } else {
            *value = duration;
        }
    }

    fn choice<T: Copy + PartialEq>(
        &mut self,
        key: &'static str,
        set: &[(&'static str, T)],
        value: &mut T,
    ) {
        let Some((origin, text)) = self.string(key, "a string") else {
            return;
        };
        match set.iter().find(|(name, _)| *name == text) {
            Some((_, one)) => *value = *one,
            None => {
                let key = self.key(key);
                let allowed = set.iter().map(|(name, _)| *name).collect();
                self.errors.push(ConfigError::NotOneOf {
                    origin,
                    key,
                    allowed,
                });
            }
        }
    }

    fn text<T>(&mut self, key: &'static str, form: &Form<T>, value: &mut T) {
        let Some((origin, text)) = self.string(key, form.expected) else {
            return;
        };
        match (form.parse)(&text) {
            Some(parsed) => *value = parsed,
            None => self.misformed(key, origin, form, &text),
        }
    }

    fn list<T>(&mut self, key: &'static str, form: &Form<T>, values: &mut Vec<T>) {
        let Some(members) = self.members(key, form.expected) else {
            return;
        };
        values.clear();
        for (index, member) in members.into_iter().enumerate() {
            let text = match &member.value {
                TreeValue::Text(text) if !form.number => Some(text.clone()),
                TreeValue::Integer(number) if form.number => Some(number.to_string()),
                TreeValue::Bare(text) => Some(text.clone()),
                _ => None,
            };
            let path = format!("{}[{index}]", self.key(key));
            self.keys.0.push((path, member.origin.clone()));
            match text.map(|text| (form.parse)(&text).ok_or(text)) {
                Some(Ok(value)) => values.push(value),
                Some(Err(text)) => self.misformed(key, member.origin, form, &text),
                None => self.wrong(key, member.origin, form.expected, &member.value),
            }
        }
    }

    fn secret(&mut self, key: &'static str, value: &mut Secret) {
        if let Some((_, text)) = self.string(key, "a string") {
            *value = Secret(text);
        }
    }

    fn texts(
        &mut self,
        key: &'static str,
        names: &Form<String>,
        texts: &Form<String>,
        values: &mut Vec<(String, String)>,
    ) {
        if let Some(found) = self.table(key, names, texts) {
            *values = found;
        }
    }

    fn secrets(
        &mut self,
        key: &'static str,
        names: &Form<String>,
        texts: &Form<String>,
        values: &mut Vec<(String, Secret)>,
    ) {
        if let Some(found) = self.table(key, names, texts) {
            let found = found.into_iter();
            *values = found.map(|(name, text)| (name, Secret(text))).collect();
        }
    }
}

impl FileReader {
    /// A table with free keys; `None` where there is none.
    fn table(
        &mut self,
        key: &'static str,
        names: &Form<String>,
        texts: &Form<String>,
    ) -> Option<Vec<(String, String)>> {
        let entry = self.take(key)?;
        let table = self.subtable(key, entry)?;
        let mut values = Vec::new();
        for (name, TreeEntry { origin, value }) in table.0 {
            let path = format!("{key}.{name}");
            let (TreeValue::Text(text) | TreeValue::Bare(text)) = &value else {
                self.wrong(&path, origin, texts.expected, &value);
                continue;
            };
            match ((names.parse)(&name), (texts.parse)(text)) {
                (Some(name), Some(text)) => values.push((name, text)),
                (None, _) => self.misformed(&path, origin, names, &name),
                (_, None) => self.misformed(&path, origin, texts, text),
            }
        }
        Some(values)
    }
}
