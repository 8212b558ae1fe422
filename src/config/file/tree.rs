//! Values as written, each with the place where it stands.

use std::ops::Range;

use toml::de::{DeTable, DeValue};

use super::{ConfigError, Setting, Source, ValueOrigin};

/// A table, in the order of the parser.
#[derive(Clone, Debug, Default)]
pub(super) struct TreeTable(pub(super) Vec<(String, TreeEntry)>);

/// A value and where it stands.
#[derive(Clone, Debug)]
pub(super) struct TreeEntry {
    pub(super) origin: ValueOrigin,
    pub(super) value: TreeValue,
}

/// What can be written.
#[derive(Clone, Debug)]
pub(super) enum TreeValue {
    Boolean(bool),
    Integer(i64),
    Text(String),
    Array(Vec<TreeEntry>),
    Table(TreeTable),
    /// The text of a setting. What it is depends on the key, which only the reader knows.
    Bare(String),
    /// A kind that no key takes: its name.
    Other(&'static str),
}

impl TreeValue {
    /// Its kind, for errors.
    pub(super) const fn kind(&self) -> &'static str {
        match self {
            Self::Boolean(_) => "a boolean",
            Self::Integer(_) => "a number",
            Self::Text(_) => "a string",
            Self::Array(_) => "a list",
            Self::Table(_) => "a table",
            Self::Bare(_) => "text of another form",
            Self::Other(kind) => kind,
        }
    }
}

impl TreeTable {
    /// Removes and returns the value of a key.
    pub(super) fn take(&mut self, key: &str) -> Option<TreeEntry> {
        let at = self.0.iter().position(|(name, _)| name == key)?;
        Some(self.0.swap_remove(at).1)
    }

    /// The value of a key, made with `absent` if there is none.
    fn entry(&mut self, key: &str, absent: impl FnOnce() -> TreeEntry) -> &mut TreeEntry {
        let at = self
            .0
            .iter()
            .position(|(name, _)| name == key)
            .unwrap_or_else(|| {
                self.0.push((key.to_owned(), absent()));
                self.0.len() - 1
            });
        &mut self.0[at].1
    }
}

/// Where things stand in a text.
enum Place<'a> {
    /// The line of a span, found in the starts of lines.
    Lines { name: &'a str, starts: Vec<usize> },
    /// All of it in one place.
    One(&'a ValueOrigin),
}

impl Place<'_> {
    fn of(&self, span: Range<usize>) -> ValueOrigin {
        match self {
            Self::Lines { name, starts } => ValueOrigin::File {
                name: (*name).to_owned(),
                line: starts.partition_point(|&start| start <= span.start),
            },
            Self::One(origin) => (*origin).clone(),
        }
    }
}

/// Reads a file.
pub(super) fn parse(source: &Source<'_>) -> Result<TreeTable, ConfigError> {
    let starts = std::iter::once(0)
        .chain(memchr::memchr_iter(b'\n', source.text.as_bytes()).map(|at| at + 1));
    let place = Place::Lines {
        name: source.name,
        starts: starts.collect(),
    };
    match DeTable::parse(source.text) {
        Ok(table) => Ok(convert_table(table.get_ref(), &place)),
        Err(error) => Err(ConfigError::Syntax {
            origin: place.of(error.span().unwrap_or(0..0)),
            // Its message, not its Display: that would quote the line, which may hold a secret.
            message: error.message().to_owned(),
        }),
    }
}

/// Reads the text of a setting as TOML, else as JSON.
pub(super) fn parse_bare(text: &str, origin: &ValueOrigin) -> Option<TreeValue> {
    // A block of YAML ends with a line break, which is no part of the value.
    if let Ok(value) = DeValue::parse(text.trim()) {
        return Some(convert(value.get_ref(), &Place::One(origin)));
    }
    let value: serde_json::Value = serde_json::from_str(text).ok()?;
    Some(convert_json(value, origin))
}

/// Reads JSON. What is wrong with it is told without the text, which may hold a secret.
pub(super) fn parse_json(text: &str, origin: &ValueOrigin) -> Result<TreeValue, String> {
    let value: serde_json::Value = serde_json::from_str(text)
        .map_err(|error| format!("line {}, column {}", error.line(), error.column()))?;
    Ok(convert_json(value, origin))
}

fn convert_table(table: &DeTable<'_>, place: &Place<'_>) -> TreeTable {
    let entries = table.iter().map(|(key, value)| {
        let entry = TreeEntry {
            origin: place.of(key.span()),
            value: convert(value.get_ref(), place),
        };
        (key.get_ref().clone().into_owned(), entry)
    });
    TreeTable(entries.collect())
}

fn convert(value: &DeValue<'_>, place: &Place<'_>) -> TreeValue {
    match value {
        DeValue::String(text) => TreeValue::Text(text.clone().into_owned()),
        DeValue::Integer(integer) => {
            i64::from_str_radix(&integer.as_str().replace('_', ""), integer.radix()).map_or(
                TreeValue::Other("a number of more than 64 bits"),
                TreeValue::Integer,
            )
        }
        DeValue::Float(_) => TreeValue::Other("a number with a fraction"),
        DeValue::Boolean(boolean) => TreeValue::Boolean(*boolean),
        DeValue::Datetime(_) => TreeValue::Other("a date"),
        DeValue::Array(values) => TreeValue::Array(
            values
                .iter()
                .map(|value| TreeEntry {
                    origin: place.of(value.span()),
                    value: convert(value.get_ref(), place),
                })
                .collect(),
        ),
        DeValue::Table(table) => TreeValue::Table(convert_table(table, place)),
    }
}

fn convert_json(value: serde_json::Value, origin: &ValueOrigin) -> TreeValue {
    let entry = |value| TreeEntry {
        origin: origin.clone(),
        value: convert_json(value, origin),
    };
    match value {
        serde_json::Value::Null => TreeValue::Other("null"),
        serde_json::Value::Bool(boolean) => TreeValue::Boolean(boolean),
        serde_json::Value::Number(number) => number.as_i64().map_or(
            TreeValue::Other("a number with a fraction"),
            TreeValue::Integer,
        ),
        serde_json::Value::String(text) => TreeValue::Text(text),
        serde_json::Value::Array(values) => {
            TreeValue::Array(values.into_iter().map(entry).collect())
        }
        serde_json::Value::Object(fields) => TreeValue::Table(TreeTable(
            fields
                .into_iter()
                .map(|(key, value)| (key, entry(value)))
                .collect(),
        )),
    }
}

/// Lays one file over another: tables key by key, everything else as a whole.
pub(super) fn merge(under: &mut TreeTable, over: TreeTable) {
    for (key, entry) in over.0 {
        let Some((_, old)) = under.0.iter_mut().find(|(name, _)| *name == key) else {
            under.0.push((key, entry));
            continue;
        };
        match (&mut old.value, entry.value) {
            (TreeValue::Table(old), TreeValue::Table(new)) => merge(old, new),
            (_, value) => {
                *old = TreeEntry {
                    origin: entry.origin,
                    value,
                }
            }
        }
    }
}

/// Adds a table to a list of tables. Where something else stands, the reader says what is wrong with that.
pub(super) fn push(root: &mut TreeTable, list: &str, table: TreeEntry) {
    let list = root.entry(list, || TreeEntry {
        origin: table.origin.clone(),
        value: TreeValue::Array(Vec::new()),
    });
    if let TreeValue::Bare(text) = &list.value
        && let Some(value @ TreeValue::Array(_)) = parse_bare(text, &list.origin)
    {
        list.value = value;
    }
    if let TreeValue::Array(tables) = &mut list.value {
        tables.push(table);
    }
}

/// Lays one setting over everything before it.
pub(super) fn set(root: &mut TreeTable, setting: &Setting) -> Result<(), ConfigError> {
    let origin = ValueOrigin::Setting(setting.origin.clone());
    let (sections, leaf) = setting.key.rsplit_once('.').unwrap_or(("", &setting.key));
    let mut table = root;
    for section in sections.split('.').filter(|_| !sections.is_empty()) {
        let entry = table.entry(section, || TreeEntry {
            origin: origin.clone(),
            value: TreeValue::Table(TreeTable::default()),
        });
        if let TreeValue::Bare(text) = &entry.value
            && let Some(value @ TreeValue::Table(_)) = parse_bare(text, &entry.origin)
        {
            entry.value = value;
        }
        let found = entry.value.kind();
        table = match &mut entry.value {
            TreeValue::Table(table) => table,
            _ => {
                let key = setting.key.clone();
                return Err(ConfigError::WrongType {
                    origin,
                    key,
                    expected: "a key of a table",
                    found,
                });
            }
        };
    }
    let old = table.entry(leaf, || TreeEntry {
        origin: origin.clone(),
        value: TreeValue::Bare(String::new()),
    });
    if let TreeValue::Table(old) = &mut old.value
        && let Some(TreeValue::Table(new)) = parse_bare(&setting.text, &origin)
    {
        merge(old, new);
        return Ok(());
    }
    *old = TreeEntry {
        origin,
        value: TreeValue::Bare(setting.text.clone()),
    };
    Ok(())
}
