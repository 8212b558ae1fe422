//! The visitor that lists a configuration as keys and TOML values.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::super::{AccessKey, Config, Secret, Tenant, Tenants};
use super::duration;
use super::form::{Form, Span};
use super::schema;
use super::visit::{Number, Visit};

/// What is written for a secret that is set.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum SecretsWritten {
    /// `***`
    Hidden,
    /// Itself: for comparing two configurations, never for showing.
    Plain,
}

/// One key and its value.
pub(super) struct Line {
    /// The header of its table: `[client.token]`.
    pub(super) header: String,
    /// The whole key: `client.token.issuer`, `channel.namespaces[0].name`.
    pub(super) key: String,
    /// The value, as TOML.
    pub(super) text: String,
}

struct TomlWriter {
    secrets: SecretsWritten,
    lines: Vec<Line>,
    /// Path of the current table without indices, which is what TOML headers take.
    table: Vec<&'static str>,
    /// Path of the current table with indices.
    path: String,
    in_list: bool,
}

/// Every key of a configuration.
pub(super) fn lines(config: &Config, secrets: SecretsWritten) -> Vec<Line> {
    let mut writer = TomlWriter {
        secrets,
        lines: Vec::new(),
        table: Vec::new(),
        path: String::new(),
        in_list: false,
    };
    schema::config(&mut writer, &mut config.clone());
    writer.lines
}

/// All tenants as objects with their keys, but for those that are as they are by default. Secrets are hidden.
#[must_use]
pub fn shown_tenants(config: &Config) -> Vec<serde_json::Value> {
    let lines = |tenants: &Tenants| {
        let mut writer = TomlWriter {
            secrets: SecretsWritten::Hidden,
            lines: Vec::new(),
            table: Vec::new(),
            path: String::new(),
            in_list: false,
        };
        schema::tenants(&mut writer, &mut tenants.clone());
        writer.lines
    };
    let plain = Tenant {
        keys: vec![AccessKey::default()],
        ..Tenant::default()
    };
    let plain = lines(&Tenants::plain(vec![Arc::new(plain)]));
    let plain: BTreeMap<String, String> = plain
        .into_iter()
        .map(|line| (without_numbers(&line.key), line.text))
        .collect();
    let mut shown = serde_json::json!({ "tenants": [] });
    for line in lines(&config.tenants) {
        if plain.get(&without_numbers(&line.key)) == Some(&line.text) {
            continue;
        }
        let parsed = format!("v = {}", line.text).parse::<toml::Table>();
        let value = parsed.ok().and_then(|mut table| table.remove("v"));
        let mut place = &mut shown;
        for part in line.key.split('.') {
            let (name, index) = match part.split_once('[') {
                Some((name, rest)) => (name, rest.trim_end_matches(']').parse::<usize>().ok()),
                None => (part, None),
            };
            place = &mut place[name];
            if let Some(index) = index {
                if place.is_null() {
                    *place = serde_json::json!([]);
                }
                if let serde_json::Value::Array(list) = place {
                    list.resize(list.len().max(index + 1), serde_json::Value::Null);
                }
                place = &mut place[index];
            }
        }
        *place = serde_json::to_value(value).unwrap_or_default();
    }
    match shown["tenants"].take() {
        serde_json::Value::Array(tenants) => tenants,
        _ => Vec::new(),
    }
}

/// `tenants[7].keys[0].name` as `tenants[].keys[].name`.
fn without_numbers(key: &str) -> String {
    let mut is_inside = false;
    let keep = |c: &char| {
        let was_inside = is_inside;
        is_inside = *c == '[' || is_inside && *c != ']';
        !(was_inside && is_inside)
    };
    key.chars().filter(keep).collect()
}

/// The whole configuration as a file, secrets hidden.
pub(super) fn toml(config: &Config) -> String {
    let mut out = String::new();
    let mut table = String::new();
    for line in lines(config, SecretsWritten::Hidden) {
        let (path, name) = line.key.rsplit_once('.').unwrap_or(("", &line.key));
        if path != table {
            let gap = if table.is_empty() { "" } else { "\n" };
            out.push_str(&format!("{gap}{}\n", line.header));
            path.clone_into(&mut table);
        }
        out.push_str(&format!("{name} = {}\n", line.text));
    }
    out
}

/// A URL without what may be secret: the values of its query, and a user's name and password.
#[must_use]
pub fn shown_url(url: &str) -> String {
    let (rest, query) = url
        .split_once('?')
        .map_or((url, None), |(rest, query)| (rest, Some(query)));
    let mut out = match rest.split_once("://") {
        Some((scheme, behind)) => {
            let (authority, path) = behind.split_at(behind.find('/').unwrap_or(behind.len()));
            match authority.rsplit_once('@') {
                Some((_, host)) => format!("{scheme}://***@{host}{path}"),
                None => rest.to_owned(),
            }
        }
        None => rest.to_owned(),
    };
    for (at, pair) in query
        .into_iter()
        .flat_map(|query| query.split('&'))
        .enumerate()
    {
        out.push(if at == 0 { '?' } else { '&' });
        match pair.split_once('=') {
            Some((name, _)) => {
                out.push_str(name);
                out.push_str("=***");
            }
            None => out.push_str("***"),
        }
    }
    out
}

impl TomlWriter {
    fn shown<T>(&self, form: &Form<T>, value: &T) -> String {
        if form.is_url && self.secrets == SecretsWritten::Hidden {
            string(&shown_url(&(form.show)(value)))
        } else {
            shown(form, value)
        }
    }

    fn line(&mut self, key: &'static str, text: String) {
        let header = self.table.join(".");
        let header = if self.in_list {
            format!("[[{header}]]")
        } else {
            format!("[{header}]")
        };
        self.lines.push(Line {
            header,
            key: format!("{}.{key}", self.path),
            text,
        });
    }

    fn within(&mut self, key: &'static str, index: Option<usize>, inside: impl FnOnce(&mut Self)) {
        let above = self.path.len();
        let was_in_list = std::mem::replace(&mut self.in_list, index.is_some());
        if above > 0 {
            self.path.push('.');
        }
        self.path.push_str(key);
        if let Some(index) = index {
            self.path.push_str(&format!("[{index}]"));
        }
        self.table.push(key);
        inside(self);
        self.table.pop();
        self.path.truncate(above);
        self.in_list = was_in_list;
    }
}

/// A string as TOML.
pub(super) fn string(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

pub(super) fn shown<T>(form: &Form<T>, value: &T) -> String {
    let text = (form.show)(value);
    if form.number { text } else { string(&text) }
}

impl Visit for TomlWriter {
    fn section(&mut self, key: &'static str, inside: impl FnOnce(&mut Self)) {
        self.within(key, None, inside);
    }

    fn sections<T: Clone>(
        &mut self,
        key: &'static str,
        _: &T,
        values: &mut Vec<T>,
        inside: impl Fn(&mut Self, &mut T),
    ) {
        for (index, value) in values.iter_mut().enumerate() {
            self.within(key, Some(index), |writer| inside(writer, value));
        }
    }

    fn boolean(&mut self, key: &'static str, value: &mut bool) {
        self.line(key, value.to_string());
    }

    fn integer<T: Number>(&mut self, key: &'static str, _: u64, max: u64, value: &mut T) {
        let value: u64 = (*value).try_into().unwrap_or(max);
        self.line(key, value.to_string());
    }

    fn duration(&mut self, key: &'static str, _: Span, value: &mut Duration) {
        self.line(key, string(&duration::show(*value)));
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
        self.line(key, string(name));
    }

    fn text<T>(&mut self, key: &'static str, form: &Form<T>, value: &mut T) {
        let text = self.shown(form, value);
        self.line(key, text);
    }

    fn list<T>(&mut self, key: &'static str, form: &Form<T>, values: &mut Vec<T>) {
        let shown: Vec<String> = values.iter().map(|value| self.shown(form, value)).collect();
        self.line(key, format!("[{}]", shown.join(", ")));
    }

    fn secret(&mut self, key: &'static str, value: &mut Secret) {
        let hide = self.secrets == SecretsWritten::Hidden && !value.0.is_empty();
        self.line(key, string(if hide { "***" } else { &value.0 }));
    }

    fn texts(
        &mut self,
        key: &'static str,
        _: &Form<String>,
        _: &Form<String>,
        values: &mut Vec<(String, String)>,
    ) {
        let values = values.iter().map(|(name, value)| (&**name, &**value));
        self.line(key, table(values));
    }

    fn secrets(
        &mut self,
        key: &'static str,
        _: &Form<String>,
        _: &Form<String>,
        values: &mut Vec<(String, Secret)>,
    ) {
        let hide = self.secrets == SecretsWritten::Hidden;
        let values = values.iter().map(|(name, value)| {
            let text: &str = if hide { "***" } else { &value.0 };
            (&**name, text)
        });
        self.line(key, table(values));
    }
}

/// A table in one line.
fn table<'a>(values: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    let shown: Vec<String> = values
        .map(|(name, value)| format!("{} = {}", string(name), string(value)))
        .collect();
    if shown.is_empty() {
        "{}".to_owned()
    } else {
        format!("{{ {} }}", shown.join(", "))
    }
}
