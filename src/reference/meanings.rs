//! What the annotated example says of each key.

use std::collections::BTreeMap;

const EXAMPLE: &str = include_str!("../../tuning/ringmain.example.toml");

/// Tables that have the same keys as another one, which the example describes.
const SAME: &[(&str, &str)] = &[
    ("client.subscription_token.", "client.token."),
    ("client.proxy.refresh.", "client.proxy.connect."),
    ("channel.proxy.subscribe.", "client.proxy.connect."),
    ("channel.proxy.publish.", "client.proxy.connect."),
    ("channel.proxy.sub_refresh.", "client.proxy.connect."),
    ("rpc.proxy.", "client.proxy.connect."),
    ("proxies[].", "client.proxy.connect."),
    ("channel.without_namespace.", "channel.namespaces[]."),
    ("channel_sets[].without_namespace.", "channel.namespaces[]."),
    ("channel_sets[].namespaces[].", "channel.namespaces[]."),
    ("channel_sets[].", "channel."),
    ("tenants[].token.", "client.token."),
    ("tenants[].keys[].", "http_api.keys[]."),
    ("tenants[].proxies[].name", "tenants[].proxies[].name"),
    ("tenants[].proxies[].", "client.proxy.connect."),
];

/// What the example says.
pub(super) struct Meanings(BTreeMap<String, String>);

/// The table whose keys another one has, as its path and theirs.
pub(super) fn same_as(path: &str) -> Option<(&'static str, &'static str)> {
    SAME.iter()
        .find(|(there, _)| path.starts_with(there))
        .map(|(there, here)| (there.trim_end_matches('.'), here.trim_end_matches('.')))
}

/// The key that the example describes in place of this one, or this one.
#[must_use]
pub fn described_as(path: &str) -> String {
    let same = SAME
        .iter()
        .find_map(|(there, here)| Some(format!("{here}{}", path.strip_prefix(there)?)));
    same.unwrap_or_else(|| path.to_owned())
}

impl Meanings {
    /// Of a key, or of the one that is the same elsewhere.
    pub(super) fn of(&self, path: &str) -> Option<&str> {
        let told = self.0.get(path).or_else(|| self.0.get(&described_as(path)));
        told.map(String::as_str)
    }
}

/// A line of the example, as it is or behind `# `.
enum Line<'a> {
    /// A table or a list of tables, by its path.
    Table(String),
    Key(&'a str),
    Comment(&'a str),
    Gap,
}

fn read(line: &str) -> Line<'_> {
    let inside = line.strip_prefix("# ").unwrap_or(line);
    let table = |open: &str, close: &str| {
        inside
            .strip_prefix(open)
            .and_then(|rest| rest.split_once(close))
            .map(|(path, _)| path)
            .filter(|path| {
                path.bytes()
                    .all(|b| b.is_ascii_lowercase() || matches!(b, b'_' | b'.'))
            })
    };
    if let Some(path) = table("[[", "]]") {
        return Line::Table(format!("{path}[]"));
    }
    if let Some(path) = table("[", "]") {
        return Line::Table(path.to_owned());
    }
    let name = inside.split(" = ").next().unwrap_or_default();
    let is_name = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
    if name.len() < inside.len() && name.bytes().all(is_name) {
        Line::Key(name)
    } else if line.starts_with('#') {
        Line::Comment(inside.trim_start_matches('#'))
    } else {
        Line::Gap
    }
}

/// A key means what the comment above it says; where keys stand together, that of the first is said of all, and where there is none,
/// the one above the table.
pub(super) fn all() -> Meanings {
    let mut found = BTreeMap::new();
    let mut table = String::new();
    let mut comment = String::new();
    let mut is_used = false;
    // What is said of a table and of those within it.
    let (mut above, mut above_of) = (String::new(), String::new());
    // Lists of tables that the table may be within, each within the one before.
    let mut lists: Vec<String> = Vec::new();
    for line in EXAMPLE.lines() {
        match read(line) {
            Line::Table(path) => {
                // `[a.b]` within the list of tables `a` is `a[].b`.
                lists.retain(|list| path.starts_with(&format!("{list}.")));
                table = lists.iter().rev().fold(path.clone(), |table, list| {
                    format!("{list}[]{}", &table[list.len()..])
                });
                lists.extend(path.strip_suffix("[]").map(str::to_owned));
                if !comment.is_empty() && !is_used {
                    above.clone_from(&comment);
                    above_of.clone_from(&table);
                } else if !table.starts_with(above_of.trim_end_matches("[]")) {
                    above.clear();
                }
                if let Some(list) = table.strip_suffix("[]") {
                    found
                        .entry(list.to_owned())
                        .or_insert_with(|| above.clone());
                }
                comment.clear();
                is_used = false;
            }
            Line::Key(name) => {
                let dot = if table.is_empty() { "" } else { "." };
                let path = format!("{table}{dot}{name}");
                let told = if comment.is_empty() { &above } else { &comment };
                if !told.is_empty() {
                    found.entry(path).or_insert_with(|| told.clone());
                }
                is_used = true;
            }
            Line::Comment(text) => {
                if is_used {
                    comment.clear();
                    is_used = false;
                }
                if !comment.is_empty() {
                    comment.push(' ');
                }
                comment.push_str(text.trim());
            }
            Line::Gap => {
                comment.clear();
                is_used = false;
            }
        }
    }
    Meanings(found)
}
