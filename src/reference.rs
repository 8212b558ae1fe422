//! The reference pages of the documentation, made from what the program itself reads and writes: `ringmain help TOPIC` prints one,
//! and `docs/reference` has them all.

mod bounds;
mod codes;
mod manual;
mod meanings;
mod methods;

pub use manual::manual;
pub use meanings::described_as;

use std::collections::BTreeSet;
use std::fmt::Write as _;

use crate::config::namespace::OPTIONS;
use crate::config::{self, FileKey, KeyKind};
use crate::control::prometheus;

/// A page: its name, what it has, how it is made.
pub struct ReferencePage {
    /// What follows `ringmain help`, and the name of its file.
    pub name: &'static str,
    /// What is in it.
    pub about: &'static str,
    /// Makes it.
    pub page: fn() -> String,
}

/// Every page.
pub const PAGES: [ReferencePage; 6] = [
    ReferencePage {
        name: "configuration",
        about: "every key of the configuration",
        page: configuration,
    },
    ReferencePage {
        name: "options",
        about: "the options of a namespace",
        page: options,
    },
    ReferencePage {
        name: "metrics",
        about: "every metric at /metrics",
        page: metrics,
    },
    ReferencePage {
        name: "codes",
        about: "codes of errors, disconnects and unsubscribes",
        page: codes::page,
    },
    ReferencePage {
        name: "api",
        about: "every method of the server API with its fields",
        page: methods::page,
    },
    ReferencePage {
        name: "limits",
        about: "bounds that no key changes",
        page: bounds::page,
    },
];

/// Begins a page.
fn begun(name: &str, title: &str, about: &str) -> String {
    format!(
        "# {title}\n\n{about}\nThis page is made by the program: `ringmain help {name}` prints it.\n"
    )
}

/// A cell of a table: on one line, without what would end it.
fn cell(text: &str) -> String {
    text.trim().replace('\n', " ").replace('|', "\\|")
}

fn row(out: &mut String, cells: &[&str]) {
    for one in cells {
        write!(out, "| {} ", cell(one)).expect("a String takes every write");
    }
    out.push_str("|\n");
}

fn table(out: &mut String, heads: &[&str]) {
    out.push('\n');
    row(out, heads);
    out.push_str(&"|---".repeat(heads.len()));
    out.push_str("|\n");
}

fn code(text: &str) -> String {
    format!("`{text}`")
}

/// The options of a namespace have a page of their own.
fn is_option(key: &FileKey) -> bool {
    let name = |table: &str| key.path.strip_prefix(table);
    if name("channel.without_namespace.").is_some() {
        return true;
    }
    name("channel.namespaces[].").is_some_and(|name| OPTIONS.iter().any(|option| option.0 == name))
}

/// The variable of the environment that sets a key; none sets one key of a table in a list.
fn variable(path: &str) -> String {
    if path.contains("[]") {
        return "in its list".to_owned();
    }
    code(&format!(
        "RINGMAIN__{}",
        path.replace('.', "__").to_uppercase()
    ))
}

fn configuration() -> String {
    let mut out = begun(
        "configuration",
        "Configuration keys",
        "This page lets you look up every key of the configuration file: what it takes, its default, and whether a reload changes it.",
    );
    out.push_str(
        "Options of namespaces are in [options](options.md). How files, environment and command line go together is in\n[configure](../configure.md). \
         The annotated [example](../../tuning/ringmain.example.toml) has the same keys.\n",
    );
    let meanings = meanings::all();
    let header = |path: &str| match path.strip_suffix("[]") {
        Some(list) => format!("[[{}]]", list.replace("[]", "")),
        None => format!("[{}]", path.replace("[]", "")),
    };
    let all = config::keys();
    let has = |path: &str| all.iter().any(|key| key.path == path);
    let mut table_path: Option<String> = None;
    let mut told = BTreeSet::new();
    for key in all.iter().filter(|key| !is_option(key)) {
        if let Some((there, here)) = meanings::same_as(&key.path)
            && has(&format!("{here}{}", &key.path[there.len()..]))
        {
            if told.insert(there) {
                let (title, other) = (header(there), header(here));
                let text = if table_path.as_deref() == Some(there) {
                    format!("\nIts other keys are those of `{other}`.\n")
                } else {
                    format!("\n## `{title}`\n\nThe keys of `{other}`.\n")
                };
                out.push_str(&text);
                table_path = Some(there.to_owned());
            }
            continue;
        }
        let (path, name) = key.path.rsplit_once('.').unwrap_or(("", &key.path));
        if table_path.as_deref() != Some(path) {
            let title = match path {
                "" => "Lists of tables".to_owned(),
                _ => code(&header(path)),
            };
            write!(out, "\n## {title}\n").expect("a String takes every write");
            table(
                &mut out,
                &[
                    "key",
                    "takes",
                    "default",
                    "reload",
                    "environment",
                    "meaning",
                ],
            );
            table_path = Some(path.to_owned());
        }
        let default = match key.kind {
            KeyKind::Secret | KeyKind::Secrets => "none".to_owned(),
            _ => code(&key.default),
        };
        let reload = if config::is_fixed_at_start(&key.path) {
            "no, restart"
        } else {
            "yes"
        };
        let meaning = meanings.of(&key.path).unwrap_or_default();
        let cells = [
            &code(name),
            &key.takes,
            &default,
            reload,
            &variable(&key.path),
            meaning,
        ];
        row(&mut out, &cells);
    }
    out
}

fn options() -> String {
    let mut out = begun(
        "options",
        "Options of a namespace",
        "This page lets you look up every option that a namespace may have, its type and its default.",
    );
    out.push_str(
        "They stand in `[channel.without_namespace]` and in each `[[channel.namespaces]]`. A reload changes all of them but\n`delivery`. \
         [Channels](../channels.md) says what they are for.\n",
    );
    table(&mut out, &["option", "type", "default", "meaning"]);
    for (name, kind, default, meaning) in OPTIONS {
        row(&mut out, &[&code(name), kind, &code(default), meaning]);
    }
    out
}

/// One metric of a scrape.
struct Metric<'a> {
    name: &'a str,
    help: &'a str,
    kind: &'a str,
    labels: Vec<&'a str>,
}

/// What a scrape says of its metrics.
fn described(text: &str) -> Vec<Metric<'_>> {
    let mut found: Vec<Metric<'_>> = Vec::new();
    for line in text.lines() {
        if let Some((name, help)) = line
            .strip_prefix("# HELP ")
            .and_then(|rest| rest.split_once(' '))
        {
            found.push(Metric {
                name,
                help,
                kind: "",
                labels: Vec::new(),
            });
            continue;
        }
        let Some(metric) = found.last_mut() else {
            continue;
        };
        if let Some((_, kind)) = line
            .strip_prefix("# TYPE ")
            .and_then(|rest| rest.split_once(' '))
        {
            metric.kind = kind;
        } else if let Some((_, rest)) = line.split_once('{') {
            let inside = rest.split_once('}').map_or(rest, |(inside, _)| inside);
            for label in inside
                .split(',')
                .filter_map(|label| label.split('=').next())
            {
                if label != "le" && !metric.labels.contains(&label) {
                    metric.labels.push(label);
                }
            }
        }
    }
    found
}

fn metrics() -> String {
    let mut out = begun(
        "metrics",
        "Metrics",
        "This page lets you look up every metric that `/metrics` shows, with its type, its labels and its meaning.",
    );
    out.push_str(
        "Metrics of hooks are there while a target is configured, those of the log while there is one. Times are seconds.\n\
         [Operate](../operate.md) says what to watch.\n",
    );
    table(&mut out, &["metric", "type", "labels", "meaning"]);
    let sample = prometheus::sample();
    for metric in described(&sample) {
        let labels = metric.labels.iter().map(|label| code(label));
        let labels = labels.collect::<Vec<_>>().join(", ");
        row(
            &mut out,
            &[&code(metric.name), metric.kind, &labels, metric.help],
        );
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_of_the_file_is_told_with_its_meaning() {
        let meanings = meanings::all();
        let untold: Vec<String> = config::keys()
            .iter()
            .filter(|key| !is_option(key) && meanings.of(&key.path).is_none())
            .map(|key| key.path.clone())
            .collect();
        assert!(
            untold.is_empty(),
            "describe these in tuning/ringmain.example.toml:\n{}",
            untold.join("\n")
        );
    }

    #[test]
    fn a_scrape_is_read_back_with_types_and_labels() {
        let sample = prometheus::sample();
        let metrics = described(&sample);
        let of = |name: &str| {
            let metric = metrics.iter().find(|metric| metric.name == name);
            metric.unwrap_or_else(|| panic!("{name}"))
        };
        assert_eq!(of("ringmain_turn_seconds").kind, "histogram");
        assert_eq!(of("ringmain_turn_seconds").labels, ["shard"]);
        assert_eq!(of("ringmain_hook_seconds").labels, ["target"]);
        assert_eq!(of("ringmain_group_lag").labels, ["group"]);
        assert!(metrics.iter().all(|metric| !metric.kind.is_empty()));
    }

    #[test]
    fn a_cell_ends_no_table() {
        assert_eq!(cell(" a|b\nc "), "a\\|b c");
    }
}
