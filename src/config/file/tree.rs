//! Values as written, each with the place where it stands.

use std::ops::Range;

use toml::de::{DeTable, DeValue};

use super::{ConfigError, Origin, Setting, Source};

/// A table, in the order of the parser.
#[derive(Clone, Debug, Default)]
pub(super) struct Table(pub(super) Vec<(String, Entry)>);

/// A value and where it stands.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) origin: Origin,
    pub(super) value: Value,
}

/// What can be written.
#[derive(Clone, Debug)]
pub(super) enum Value {
    Boolean(bool),
    Integer(i64),
    Text(String),
    Array(Vec<Entry>),
    Table(Table),
    /// The text of a setting. What it is depends on the key, which only the reader knows.
    Bare(String),
    /// A kind that no key takes: its name.
    Other(&'static str),
}

impl Value {
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

impl Table {
    /// Removes and returns the value of a key.
    pub(super) fn take(&mut self, key: &str) -> Option<Entry> {
        let at = self.0.iter().position(|(name, _)| name == key)?;
        Some(self.0.swap_remove(at).1)
    }

    /// The value of a key, made with `absent` if there is none.
    fn entry(&mut self, key: &str, absent: impl FnOnce() -> Entry) -> &mut Entry {
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
    One(&'a Origin),
}

impl Place<'_> {
    fn of(&self, span: Range<usize>) -> Origin {
        match self {
            Self::Lines { name, starts } => Origin::File {
                name: (*name).to_owned(),
                line: starts.partition_point(|&start| start <= span.start),
            },
            Self::One(origin) => (*origin).clone(),
        }
    }
}

/// Reads a file.
pub(super) fn parse(source: &Source<'_>) -> Result<Table, ConfigError> {
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
pub(super) fn parse_bare(text: &str, origin: &Origin) -> Option<Value> {
    if let Ok(value) = DeValue::parse(text) {
        return Some(convert(value.get_ref(), &Place::One(origin)));
    }
    let value: serde_json::Value = serde_json::from_str(text).ok()?;
    Some(convert_json(value, origin))
}

fn convert_table(table: &DeTable<'_>, place: &Place<'_>) -> Table {
    let entries = table.iter().map(|(key, value)| {
        let entry = Entry {
            origin: place.of(key.span()),
            value: convert(value.get_ref(), place),
        };
        (key.get_ref().clone().into_owned(), entry)
    });
    Table(entries.collect())
}

fn convert(value: &DeValue<'_>, place: &Place<'_>) -> Value {
    match value {
        DeValue::String(text) => Value::Text(text.clone().into_owned()),
        DeValue::Integer(integer) => {
            i64::from_str_radix(&integer.as_str().replace('_', ""), integer.radix()).map_or(
                Value::Other("a number of more than 64 bits"),
                Value::Integer,
            )
        }
        DeValue::Float(_) => Value::Other("a number with a fraction"),
        DeValue::Boolean(boolean) => Value::Boolean(*boolean),
        DeValue::Datetime(_) => Value::Other("a date"),
        DeValue::Array(values) => Value::Array(
            values
                .iter()
                .map(|value| Entry {
                    origin: place.of(value.span()),
                    value: convert(value.get_ref(), place),
                })
                .collect(),
        ),
        DeValue::Table(table) => Value::Table(convert_table(table, place)),
    }
}

fn convert_json(value: serde_json::Value, origin: &Origin) -> Value {
    let entry = |value| Entry {
        origin: origin.clone(),
        value: convert_json(value, origin),
    };
    match value {
        serde_json::Value::Null => Value::Other("null"),
        serde_json::Value::Bool(boolean) => Value::Boolean(boolean),
        serde_json::Value::Number(number) => number
            .as_i64()
            .map_or(Value::Other("a number with a fraction"), Value::Integer),
        serde_json::Value::String(text) => Value::Text(text),
        serde_json::Value::Array(values) => Value::Array(values.into_iter().map(entry).collect()),
        serde_json::Value::Object(fields) => Value::Table(Table(
            fields
                .into_iter()
                .map(|(key, value)| (key, entry(value)))
                .collect(),
        )),
    }
}

/// Lays one file over another: tables key by key, everything else as a whole.
pub(super) fn merge(under: &mut Table, over: Table) {
    for (key, entry) in over.0 {
        let Some((_, old)) = under.0.iter_mut().find(|(name, _)| *name == key) else {
            under.0.push((key, entry));
            continue;
        };
        match (&mut old.value, entry.value) {
            (Value::Table(old), Value::Table(new)) => merge(old, new),
            (_, value) => {
                *old = Entry {
                    origin: entry.origin,
                    value,
                }
            }
        }
    }
}

/// Lays one setting over everything before it.
pub(super) fn set(root: &mut Table, setting: &Setting) -> Result<(), ConfigError> {
    let origin = Origin::Setting(setting.origin.clone());
    let (sections, leaf) = setting.key.rsplit_once('.').unwrap_or(("", &setting.key));
    let mut table = root;
    for section in sections.split('.').filter(|_| !sections.is_empty()) {
        let entry = table.entry(section, || Entry {
            origin: origin.clone(),
            value: Value::Table(Table::default()),
        });
        if let Value::Bare(text) = &entry.value
            && let Some(value @ Value::Table(_)) = parse_bare(text, &entry.origin)
        {
            entry.value = value;
        }
        let found = entry.value.kind();
        table = match &mut entry.value {
            Value::Table(table) => table,
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
    let old = table.entry(leaf, || Entry {
        origin: origin.clone(),
        value: Value::Bare(String::new()),
    });
    if let Value::Table(old) = &mut old.value
        && let Some(Value::Table(new)) = parse_bare(&setting.text, &origin)
    {
        merge(old, new);
        return Ok(());
    }
    *old = Entry {
        origin,
        value: Value::Bare(setting.text.clone()),
    };
    Ok(())
}
