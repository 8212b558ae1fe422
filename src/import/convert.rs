//! Values: Centrifugo takes many forms of one value, ringmain one.

use std::time::Duration;

use super::document::{Table, Value, integer};
use super::known::{Known, Shape};
use super::output::toml;
use crate::config::{KeyKind, parse_duration, show_duration};

/// Nothing, as Centrifugo sees it: an option with a default takes its default then.
pub(super) fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Boolean(boolean) => !boolean,
        Value::Integer(integer) => *integer == 0,
        Value::Float(float) => *float == 0.0,
        Value::Text(text) => text.is_empty() || parse_duration(text) == Some(Duration::ZERO),
        Value::List(values) => values.is_empty(),
        Value::Table(table) => table.is_empty(),
    }
}

/// True and false in every form that Centrifugo takes.
pub(super) fn boolean(value: &Value) -> Option<bool> {
    match value {
        Value::Boolean(boolean) => Some(*boolean),
        Value::Integer(integer) => Some(*integer != 0),
        Value::Text(text) => match text.as_str() {
            "1" | "t" | "T" | "true" | "True" | "TRUE" => Some(true),
            "0" | "f" | "F" | "false" | "False" | "FALSE" | "" => Some(false),
            _ => None,
        },
        _ => None,
    }
}

/// A time in every form that Centrifugo takes: a number counts nanoseconds.
pub(super) fn duration(value: &Value) -> Option<Duration> {
    match value {
        Value::Text(text) => parse_duration(text),
        Value::Integer(nanos) => u64::try_from(*nanos).ok().map(Duration::from_nanos),
        _ => None,
    }
}

/// `-1`, `"-1s"`: off, for some times.
pub(super) fn is_negative(value: &Value) -> bool {
    match value {
        Value::Integer(integer) => *integer < 0,
        Value::Float(float) => *float < 0.0,
        Value::Text(text) => text
            .strip_prefix('-')
            .is_some_and(|rest| parse_duration(rest).is_some() || rest.parse::<u32>().is_ok()),
        _ => false,
    }
}

/// The value as TOML in the form that our key takes, and what a reader of the file should know. A value of no such
/// form stays as it is: the loader says what is wrong with it.
pub(super) fn to(kind: &KeyKind, value: &Value) -> (String, Option<String>) {
    let (converted, note) = match kind {
        KeyKind::Boolean => (boolean(value).map(Value::Boolean), None),
        KeyKind::Integer { .. } => (whole(value).map(Value::Integer), None),
        KeyKind::Duration => {
            let note = matches!(value, Value::Integer(_))
                .then(|| "a number there counts nanoseconds".to_owned());
            let text = match value {
                Value::Text(text) if parse_duration(text).is_some() => Some(text.clone()),
                _ => duration(value).map(show_duration),
            };
            (text.map(Value::Text), note)
        }
        KeyKind::Choice(_) | KeyKind::Text | KeyKind::Secret => (text(value), None),
        KeyKind::List { numbers: false } => (list(value).map(Value::List), None),
        KeyKind::Texts | KeyKind::Secrets => (map(value).map(Value::Table), None),
        KeyKind::List { numbers: true } | KeyKind::Tables => (None, None),
    };
    match converted {
        Some(value) => (toml(&value), note),
        None => (toml(value), None),
    }
}

fn whole(value: &Value) -> Option<i64> {
    match value {
        Value::Integer(integer) => Some(*integer),
        #[expect(
            clippy::cast_possible_truncation,
            reason = "a whole number of 53 bits fits"
        )]
        Value::Float(float) if float.fract() == 0.0 && float.abs() < 9e15 => Some(*float as i64),
        Value::Text(text) => integer(text),
        _ => None,
    }
}

fn text(value: &Value) -> Option<Value> {
    match value {
        Value::Text(text) => Some(Value::Text(text.clone())),
        Value::Integer(_) | Value::Float(_) => Some(Value::Text(toml(value))),
        _ => None,
    }
}

/// The members of a list of texts; a single value is a list of one.
pub(super) fn list(value: &Value) -> Option<Vec<Value>> {
    match value {
        Value::List(values) => values.iter().map(text).collect(),
        _ => text(value).map(|text| vec![text]),
    }
}

/// Is the value what Centrifugo takes without the key?
pub(super) fn is_default(known: Known, value: &Value) -> bool {
    if known.default.is_empty() {
        return is_zero(value) || boolean(value) == Some(false) && known.shape == Shape::Boolean;
    }
    let default = Value::Text(known.default.to_owned());
    let same = match known.shape {
        Shape::Integer => whole(value) == integer(known.default),
        Shape::Duration => duration(value) == parse_duration(known.default),
        Shape::Boolean => boolean(value) == boolean(&default),
        Shape::List => *value == default || *value == Value::List(vec![default]),
        Shape::Text | Shape::Map => *value == default,
    };
    same || is_zero(value)
}

/// Centrifugo's default in the form of our key; `None` where it has none to speak of.
pub(super) fn default_text(known: &Known, kind: &KeyKind) -> Option<String> {
    let value = match (known.default, kind) {
        ("", KeyKind::Boolean) => Value::Boolean(false),
        ("", KeyKind::Integer { min: 0, .. }) => Value::Integer(0),
        ("", _) => return None,
        (default, _) => Value::Text(default.to_owned()),
    };
    Some(to(kind, &value).0)
}

/// Are two texts the same value?
pub(super) fn is_same(kind: &KeyKind, a: &str, b: &str) -> bool {
    let time = |text: &str| parse_duration(text.trim_matches('"'));
    a == b || *kind == KeyKind::Duration && time(a).is_some() && time(a) == time(b)
}

/// A table of names and strings, also where it is a list of `{key, value}`. `None` for any other form, and where a
/// name comes twice.
pub(super) fn map(value: &Value) -> Option<Table> {
    let Value::List(pairs) = value else {
        return match value {
            Value::Table(table) => Some(table.clone()),
            _ => None,
        };
    };
    let mut table = Table::new();
    for pair in pairs {
        let (Some(Value::Text(key)), Some(value)) = (pair.at("key"), pair.at("value")) else {
            return None;
        };
        if table.insert(key.clone(), value.clone()).is_some() {
            return None;
        }
    }
    Some(table)
}
