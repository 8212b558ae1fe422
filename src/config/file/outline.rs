//! The visitor that lists which keys there are, for who writes a configuration rather than reads one.

use std::time::Duration;

use super::super::{Config, Secret};
use super::duration;
use super::form::{Form, Span};
use super::schema;
use super::visit::{Number, Visit};
use super::writer::{shown, string};

/// One key of the configuration file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileKey {
    /// The whole key; `[]` stands for each member of a list of tables: `channel.namespaces[].name`.
    pub path: String,
    /// What it takes.
    pub kind: KeyKind,
    /// The same in words, with its range.
    pub takes: String,
    /// Its default, as TOML.
    pub default: String,
}

/// What a key takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyKind {
    /// `true` or `false`.
    Boolean,
    /// A whole number.
    Integer {
        /// Smallest allowed value.
        min: u64,
        /// Largest allowed value.
        max: u64,
    },
    /// A string such as `"25s"`.
    Duration,
    /// One of these strings.
    Choice(Vec<&'static str>),
    /// A string.
    Text,
    /// A string that is never shown.
    Secret,
    /// A list of strings, or of numbers.
    List {
        /// Its members are numbers.
        numbers: bool,
    },
    /// A list of tables, whose keys follow.
    Tables,
    /// A table of free names and strings.
    Texts,
    /// A table of free names and strings, which are never shown.
    Secrets,
}

struct Outline {
    keys: Vec<FileKey>,
    path: String,
}

/// Every key, in the order in which a file has them.
#[must_use]
pub fn keys() -> Vec<FileKey> {
    let mut outline = Outline {
        keys: Vec::new(),
        path: String::new(),
    };
    schema::config(&mut outline, &mut Config::built_in());
    outline.keys
}

/// Reads a duration as the file has it: `25s`, `1h30m`. `None` for any other text.
#[must_use]
pub fn parse_duration(text: &str) -> Option<Duration> {
    duration::parse(text)
}

/// Writes what `parse_duration` reads, in the largest units that fit.
#[must_use]
pub fn show_duration(value: Duration) -> String {
    duration::show(value)
}

impl Outline {
    fn key(&mut self, key: &'static str, kind: KeyKind, takes: String, default: String) {
        let path = format!("{}.{key}", self.path);
        self.keys.push(FileKey {
            path,
            kind,
            takes,
            default,
        });
    }

    fn within(&mut self, key: &'static str, mark: &str, inside: impl FnOnce(&mut Self)) {
        let above = self.path.len();
        if above > 0 {
            self.path.push('.');
        }
        self.path.push_str(key);
        self.path.push_str(mark);
        inside(self);
        self.path.truncate(above);
    }
}

impl Visit for Outline {
    fn section(&mut self, key: &'static str, inside: impl FnOnce(&mut Self)) {
        self.within(key, "", inside);
    }

    fn sections<T: Clone>(
        &mut self,
        key: &'static str,
        fresh: &T,
        _: &mut Vec<T>,
        inside: impl Fn(&mut Self, &mut T),
    ) {
        let path = if self.path.is_empty() {
            key.to_owned()
        } else {
            format!("{}.{key}", self.path)
        };
        self.keys.push(FileKey {
            path,
            kind: KeyKind::Tables,
            takes: "tables".to_owned(),
            default: "[]".to_owned(),
        });
        self.within(key, "[]", |outline| inside(outline, &mut fresh.clone()));
    }

    fn boolean(&mut self, key: &'static str, value: &mut bool) {
        let takes = "`true` or `false`".to_owned();
        self.key(key, KeyKind::Boolean, takes, value.to_string());
    }

    fn integer<T: Number>(&mut self, key: &'static str, min: u64, max: u64, value: &mut T) {
        let default: u64 = (*value).try_into().unwrap_or(max);
        let takes = format!("{min} to {max}");
        self.key(
            key,
            KeyKind::Integer { min, max },
            takes,
            default.to_string(),
        );
    }

    fn duration(&mut self, key: &'static str, span: Span, value: &mut Duration) {
        let Span {
            min,
            max,
            zero,
            whole_seconds,
        } = span;
        let takes = format!(
            "{} to {}{}{}",
            duration::show(min),
            duration::show(max),
            if whole_seconds { ", whole seconds" } else { "" },
            if zero { ", or `0s` for off" } else { "" },
        );
        let default = string(&duration::show(*value));
        self.key(key, KeyKind::Duration, takes, default);
    }

    fn choice<T: Copy + PartialEq>(
        &mut self,
        key: &'static str,
        set: &[(&'static str, T)],
        value: &mut T,
    ) {
        let name = set
            .iter()
            .find(|(_, one)| one == value)
            .map_or("", |(name, _)| name);
        let names: Vec<&str> = set.iter().map(|(name, _)| *name).collect();
        let quoted: Vec<String> = names.iter().map(|name| format!("`\"{name}\"`")).collect();
        let takes = quoted.join(", ");
        self.key(key, KeyKind::Choice(names), takes, string(name));
    }

    fn text<T>(&mut self, key: &'static str, form: &Form<T>, value: &mut T) {
        let takes = form.expected.to_owned();
        self.key(key, KeyKind::Text, takes, shown(form, value));
    }

    fn list<T>(&mut self, key: &'static str, form: &Form<T>, values: &mut Vec<T>) {
        let shown: Vec<String> = values.iter().map(|value| shown(form, value)).collect();
        let numbers = form.number;
        self.key(
            key,
            KeyKind::List { numbers },
            format!("a list, each {}", form.expected),
            format!("[{}]", shown.join(", ")),
        );
    }

    fn secret(&mut self, key: &'static str, _: &mut Secret) {
        let takes = "a secret".to_owned();
        self.key(key, KeyKind::Secret, takes, string(""));
    }

    fn texts(
        &mut self,
        key: &'static str,
        names: &Form<String>,
        texts: &Form<String>,
        _: &mut Vec<(String, String)>,
    ) {
        self.key(key, KeyKind::Texts, table(names, texts), "{}".to_owned());
    }

    fn secrets(
        &mut self,
        key: &'static str,
        names: &Form<String>,
        texts: &Form<String>,
        _: &mut Vec<(String, Secret)>,
    ) {
        self.key(key, KeyKind::Secrets, table(names, texts), "{}".to_owned());
    }
}

fn table(names: &Form<String>, texts: &Form<String>) -> String {
    let (name, value) = (names.expected, texts.expected);
    format!("a table, each name {name} and each value {value}")
}
