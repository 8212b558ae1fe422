//! The annotated example describes every key that the program reads.

use std::collections::BTreeSet;

use ringmain::config::{Config, Source};
use ringmain::reference::described_as;

const EXAMPLE: &str = include_str!("../tuning/ringmain.example.toml");

/// The example with every `# key = value` and `# [table]` taken at its word.
fn uncommented() -> String {
    let is_key = |line: &str| {
        let name = line.split(" = ").next().unwrap_or_default();
        name.len() < line.len()
            && name
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
    };
    let lines = EXAMPLE.lines().map(|line| match line.strip_prefix("# ") {
        Some(inside) if is_key(inside) || inside.starts_with('[') && inside.ends_with(']') => {
            inside
        }
        _ => line,
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn example_has_every_key_and_is_valid_with_all_of_them() {
    fn walk(value: &toml::Value, path: &str, found: &mut BTreeSet<String>) {
        found.insert(path.to_owned());
        match value {
            toml::Value::Table(table) => {
                for (name, value) in table {
                    let dot = if path.is_empty() { "" } else { "." };
                    walk(value, &format!("{path}{dot}{name}"), found);
                }
            }
            toml::Value::Array(members) => {
                for member in members {
                    walk(member, &format!("{path}[]"), found);
                }
            }
            _ => {}
        }
    }
    let text = uncommented();
    let source = Source {
        name: "ringmain.example.toml",
        text: &text,
    };
    Config::load(&[source], &[]).unwrap_or_else(|errors| panic!("{errors}"));
    let table: toml::Table = text.parse().expect("TOML");
    let mut found = BTreeSet::new();
    walk(&toml::Value::Table(table), "", &mut found);
    let missing: Vec<String> = ringmain::config::keys()
        .into_iter()
        .filter(|key| !found.contains(&key.path) && !found.contains(&described_as(&key.path)))
        .map(|key| format!("{} = {}", key.path, key.default))
        .collect();
    assert!(
        missing.is_empty(),
        "describe these in tuning/ringmain.example.toml:\n{}",
        missing.join("\n")
    );
}
