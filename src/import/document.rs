//! A Centrifugo configuration as a tree, read from JSON, YAML or TOML with everything that a hostile file could
//! make large bounded before memory is taken.

pub(super) mod json;
mod yaml;

use std::collections::BTreeMap;

/// Bytes of a file.
pub const BYTES_MAX: usize = 4 << 20;
/// Tables and lists within each other.
pub(super) const DEPTH_MAX: usize = 32;
/// Values of a file, with every YAML alias counted as what it stands for.
const NODES_MAX: usize = 50_000;
/// Bytes of all strings and keys, counted likewise.
const TEXT_BYTES_MAX: usize = 2 * BYTES_MAX;

/// How a file is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// RFC 8259.
    Json,
    /// YAML 1.2, core schema, with merge keys.
    Yaml,
    /// TOML 1.0.
    Toml,
}

impl Format {
    /// By the extension of the file's name; `None` for any other name.
    #[must_use]
    pub fn of_name(name: &str) -> Option<Self> {
        let (_, extension) = name.rsplit_once('.')?;
        match extension.to_ascii_lowercase().as_str() {
            "json" => Some(Self::Json),
            "yaml" | "yml" => Some(Self::Yaml),
            "toml" => Some(Self::Toml),
            _ => None,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Json => "JSON",
            Self::Yaml => "YAML",
            Self::Toml => "TOML",
        }
    }
}

/// Keys are in lower case: Centrifugo does not distinguish.
pub(super) type Table = BTreeMap<String, Value>;

/// What can be written.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Null,
    Boolean(bool),
    Integer(i64),
    Float(f64),
    Text(String),
    List(Vec<Self>),
    Table(Table),
}

/// A list of tables, each of whose keys stands for itself.
pub(super) fn is_tables(values: &[Value]) -> bool {
    !values.is_empty() && values.iter().all(|value| matches!(value, Value::Table(_)))
}

impl Value {
    /// Its kind, for the report. Values are never shown: they may be secrets.
    pub(super) const fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Boolean(_) => "a boolean",
            Self::Integer(_) | Self::Float(_) => "a number",
            Self::Text(_) => "a string",
            Self::List(_) => "a list",
            Self::Table(_) => "a table",
        }
    }

    /// The value at a path without indices.
    pub(super) fn at(&self, path: &str) -> Option<&Self> {
        path.split('.').try_fold(self, |value, key| match value {
            Self::Table(table) => table.get(key),
            _ => None,
        })
    }
}

/// What is left of the bounds while a file is read.
pub(super) struct Budget {
    nodes: usize,
    bytes: usize,
}

impl Budget {
    pub(super) const fn new() -> Self {
        Self {
            nodes: NODES_MAX,
            bytes: TEXT_BYTES_MAX,
        }
    }

    /// Pays for one value with this many bytes of text.
    pub(super) fn spend(&mut self, bytes: usize) -> Result<(), String> {
        let left = self.nodes.checked_sub(1).zip(self.bytes.checked_sub(bytes));
        let Some((nodes, bytes)) = left else {
            return Err(format!(
                "more than {NODES_MAX} values, or more than {TEXT_BYTES_MAX} bytes of text"
            ));
        };
        (self.nodes, self.bytes) = (nodes, bytes);
        Ok(())
    }

    /// Pays for a copy of a value, before it is made. `depth` counts what stands around it.
    pub(super) fn spend_copy(&mut self, value: &Value, depth: usize) -> Result<(), String> {
        check_depth(depth)?;
        match value {
            Value::Text(text) => self.spend(text.len()),
            Value::List(values) => {
                self.spend(0)?;
                values
                    .iter()
                    .try_for_each(|value| self.spend_copy(value, depth + 1))
            }
            Value::Table(table) => {
                self.spend(0)?;
                table.iter().try_for_each(|(key, value)| {
                    self.spend(key.len())?;
                    self.spend_copy(value, depth + 1)
                })
            }
            Value::Null | Value::Boolean(_) | Value::Integer(_) | Value::Float(_) => self.spend(0),
        }
    }
}

/// Refuses what lies too deep.
pub(super) fn check_depth(depth: usize) -> Result<(), String> {
    if depth > DEPTH_MAX {
        return Err(format!("nested deeper than {DEPTH_MAX} levels"));
    }
    Ok(())
}

/// Adds a key. `a.b` is `b` in the table `a`, as Centrifugo reads it.
pub(super) fn insert(table: &mut Table, key: &str, value: Value) -> Result<(), String> {
    let key = key.to_lowercase();
    let mut parts: Vec<&str> = key.split('.').collect();
    check_depth(parts.len())?;
    let leaf = parts.pop().unwrap_or_default();
    let mut at = table;
    for part in parts {
        let inner = at
            .entry(part.to_owned())
            .or_insert_with(|| Value::Table(Table::new()));
        let Value::Table(inner) = inner else {
            return Err(format!("the key `{key}` is given twice"));
        };
        at = inner;
    }
    if at.contains_key(leaf) {
        return Err(format!("the key `{key}` is given twice"));
    }
    at.insert(leaf.to_owned(), value);
    Ok(())
}

/// Reads a file. Without a format each is tried, the strictest first.
///
/// # Errors
/// What is wrong with the text, as sentences without any value of it.
pub(super) fn read(bytes: &[u8], format: Option<Format>) -> Result<Table, String> {
    if bytes.len() > BYTES_MAX {
        return Err(format!("larger than {BYTES_MAX} bytes"));
    }
    let text = std::str::from_utf8(bytes)
        .map_err(|error| format!("byte {} is not UTF-8", error.valid_up_to()))?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if let Some(format) = format {
        return read_as(text, format).map_err(|error| format!("not {}: {error}", format.name()));
    }
    let mut errors = Vec::new();
    for format in [Format::Json, Format::Toml, Format::Yaml] {
        match read_as(text, format) {
            Ok(table) => return Ok(table),
            Err(error) => errors.push(format!("not {}: {error}", format.name())),
        }
    }
    Err(errors.join("; "))
}

fn read_as(text: &str, format: Format) -> Result<Table, String> {
    let value = match format {
        Format::Json => json::read(text)?,
        Format::Yaml => yaml::read(text)?,
        Format::Toml => toml_value(text)?,
    };
    match value {
        Value::Table(table) => Ok(table),
        Value::Null => Ok(Table::new()),
        other => Err(format!("{} instead of a table of keys", other.kind())),
    }
}

fn toml_value(text: &str) -> Result<Value, String> {
    let table: toml::Table = toml::from_str(text).map_err(|error| {
        // Its message, not its Display: that would quote the line, which may hold a secret.
        let before = error.span().map_or(0, |span| span.start.min(text.len()));
        let line = text.as_bytes()[..before]
            .iter()
            .filter(|&&b| b == b'\n')
            .count()
            + 1;
        format!("line {line}: {}", error.message())
    })?;
    convert_toml(toml::Value::Table(table), 0, &mut Budget::new())
}

fn convert_toml(value: toml::Value, depth: usize, budget: &mut Budget) -> Result<Value, String> {
    check_depth(depth)?;
    budget.spend(value.as_str().map_or(0, str::len))?;
    Ok(match value {
        toml::Value::String(text) => Value::Text(text),
        toml::Value::Integer(integer) => Value::Integer(integer),
        toml::Value::Float(float) => Value::Float(float),
        toml::Value::Boolean(boolean) => Value::Boolean(boolean),
        toml::Value::Datetime(date) => Value::Text(date.to_string()),
        toml::Value::Array(values) => Value::List(
            values
                .into_iter()
                .map(|value| convert_toml(value, depth + 1, budget))
                .collect::<Result<_, _>>()?,
        ),
        toml::Value::Table(fields) => {
            let mut table = Table::new();
            for (key, value) in fields {
                budget.spend(key.len())?;
                let value = convert_toml(value, depth + 1, budget)?;
                insert(&mut table, &key, value)?;
            }
            Value::Table(table)
        }
    })
}

/// The value of one line of YAML's core schema, or of a variable of the environment.
pub(super) fn plain(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" => return Value::Boolean(true),
        "false" | "False" | "FALSE" => return Value::Boolean(false),
        _ => {}
    }
    if let Some(integer) = integer(text) {
        return Value::Integer(integer);
    }
    let float = text
        .bytes()
        .all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'-' | b'+' | b'e' | b'E'))
        && text.bytes().any(|b| b.is_ascii_digit());
    match text.parse() {
        Ok(number) if float => Value::Float(number),
        _ => Value::Text(text.to_owned()),
    }
}

/// A whole number in decimal, `0x…`, `0o…` or `0b…`.
pub(super) fn integer(text: &str) -> Option<i64> {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => ("-", digits),
        None => ("", text.strip_prefix('+').unwrap_or(text)),
    };
    let (radix, digits) = match digits.get(..2) {
        Some("0x" | "0X") => (16, &digits[2..]),
        Some("0o" | "0O") => (8, &digits[2..]),
        Some("0b" | "0B") => (2, &digits[2..]),
        _ => (10, digits),
    };
    if !digits.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        return None;
    }
    i64::from_str_radix(&format!("{sign}{digits}"), radix).ok()
}
