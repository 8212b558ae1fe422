//! `CENTRIFUGO_…` variables as keys.

use std::collections::BTreeMap;

use super::document::{Budget, Table, Value, json};
use super::known::{Known, Shape};
use super::legacy;

const PREFIX: &str = "CENTRIFUGO_";
/// Variables that strings may refer to; no keys of their own.
pub(super) const CUSTOM: &str = "CENTRIFUGO_VAR_";
pub(super) const EMPTY: &str = "an empty variable counts as unset";

/// A key that a variable sets.
pub(super) struct Setting {
    pub(super) variable: String,
    /// The key's path, with indices.
    pub(super) path: String,
    pub(super) value: Value,
}

/// What the environment says.
#[derive(Default)]
pub(super) struct Environment {
    /// Over the file, in this order: lists before the keys of their members.
    pub(super) settings: Vec<Setting>,
    /// Variables with the prefix that set no key of Centrifugo, and the one that may be meant.
    pub(super) unknown: Vec<(String, Option<String>)>,
    /// Variables with the prefix that set nothing, and why.
    pub(super) empty: Vec<(String, &'static str)>,
    /// Variables whose text is none of their key's, and what is wrong.
    pub(super) refused: Vec<(String, String)>,
}

/// Names of the variables without the prefix, in lower case: what tells the version.
pub(super) fn names(variables: &[(String, String)]) -> Vec<String> {
    let mine = variables.iter().filter_map(|(name, text)| {
        let bare = name.strip_prefix(PREFIX)?;
        let counts = !text.is_empty() && !name.starts_with(CUSTOM) && !is_of_kubernetes(name, text);
        counts.then(|| bare.to_ascii_lowercase())
    });
    mine.collect()
}

/// The keys among the variables. `root` is the file, whose named members variables may refer to.
pub(super) fn read(
    variables: &[(String, String)],
    known: &BTreeMap<String, Known>,
    root: &Table,
) -> Environment {
    let mut names = plain_names(known);
    let mut environment = Environment::default();
    let mut mine: Vec<&(String, String)> = variables
        .iter()
        .filter(|(name, _)| name.starts_with(PREFIX))
        .collect();
    mine.sort();
    let mut by_number = Vec::new();
    for list in &lists(known) {
        let of_file = lookup(root, list);
        let found = mine.iter().position(|(name, _)| *name == variable(list));
        let Some((name, text)) = found.map(|at| mine.remove(at)) else {
            add_members(&mut names, list, known, of_file, &mut by_number);
            continue;
        };
        if text.is_empty() {
            environment.empty.push((name.clone(), EMPTY));
            add_members(&mut names, list, known, of_file, &mut by_number);
            continue;
        }
        let has_names = known.contains_key(&format!("{list}[].name"));
        match list_value(text, of_file.filter(|_| has_names), has_names) {
            Ok(value) => {
                add_members(&mut names, list, known, Some(&value), &mut by_number);
                environment.settings.push(Setting {
                    variable: name.clone(),
                    path: list.clone(),
                    value,
                });
            }
            Err(error) => environment.refused.push((name.clone(), error)),
        }
    }
    for (name, text) in mine {
        let Some((path, known_as)) = names.get(name.as_str()) else {
            environment.other(name, text, known, &by_number);
            continue;
        };
        if text.is_empty() {
            environment.empty.push((name.clone(), EMPTY));
            continue;
        }
        match value(text, known_as.shape) {
            Ok(value) => environment.settings.push(Setting {
                variable: name.clone(),
                path: path.clone(),
                value,
            }),
            Err(error) => environment.refused.push((name.clone(), error)),
        }
    }
    environment
}

/// The variables of a version before 6, as keys of its flat configuration.
pub(super) fn read_old(
    variables: &[(String, String)],
    known: &BTreeMap<String, Known>,
) -> Environment {
    let mut environment = Environment::default();
    let mut mine: Vec<&(String, String)> = variables
        .iter()
        .filter(|(name, _)| name.starts_with(PREFIX))
        .collect();
    mine.sort();
    for (name, text) in mine {
        let key = name[PREFIX.len()..].to_ascii_lowercase();
        let today = legacy::today(&key, known);
        let is_key = today.is_some() || legacy::is_old(&key, known) || is_list(&key);
        if !is_key || is_of_kubernetes(name, text) || name.starts_with(CUSTOM) {
            environment.other(name, text, known, &[]);
        } else if text.is_empty() {
            environment.empty.push((name.clone(), EMPTY));
        } else {
            let shape = today
                .and_then(|path| known.get(&path))
                .map(|known| known.shape);
            let value = match shape {
                _ if is_list(&key) => json_of(text),
                Some(shape) => value(text, shape),
                None if text.starts_with(['[', '{']) => json_of(text),
                None => Ok(Value::Text(text.clone())),
            };
            match value {
                Ok(value) => environment.settings.push(Setting {
                    variable: name.clone(),
                    path: key,
                    value,
                }),
                Err(error) => environment.refused.push((name.clone(), error)),
            }
        }
    }
    environment
}

/// The value that the text of an option has.
pub(super) fn value(text: &str, shape: Shape) -> Result<Value, String> {
    Budget::new().spend(text.len())?;
    Ok(match shape {
        Shape::List => Value::List(
            text.split(' ')
                .filter(|member| !member.is_empty())
                .map(|member| Value::Text(member.to_owned()))
                .collect(),
        ),
        Shape::Map => json_of(text)?,
        Shape::Boolean | Shape::Integer | Shape::Duration | Shape::Text => {
            Value::Text(text.to_owned())
        }
    })
}

fn is_list(key: &str) -> bool {
    matches!(
        key,
        "namespaces" | "rpc_namespaces" | "proxies" | "consumers"
    )
}

fn json_of(text: &str) -> Result<Value, String> {
    json::read(text).map_err(|error| format!("not JSON: {error}"))
}

/// A list of tables is JSON; where members have names, names with blanks between them do too, and stand behind the
/// members of the file.
fn list_value(text: &str, of_file: Option<&Value>, has_names: bool) -> Result<Value, String> {
    if !has_names || text.starts_with(['[', '{']) {
        return json_of(text);
    }
    let mut members = match of_file {
        Some(Value::List(members)) => members.clone(),
        _ => Vec::new(),
    };
    for name in text.split_whitespace() {
        Budget::new().spend(name.len())?;
        let name = Value::Text(name.to_owned());
        if !members
            .iter()
            .any(|member| member.at("name") == Some(&name))
        {
            members.push(Value::Table(Table::from([("name".to_owned(), name)])));
        }
    }
    Ok(Value::List(members))
}

impl Environment {
    /// A variable that sets no key.
    fn other(
        &mut self,
        name: &str,
        text: &str,
        known: &BTreeMap<String, Known>,
        by_number: &[(String, String)],
    ) {
        if name.starts_with(CUSTOM) {
            self.empty
                .push((name.to_owned(), "other values may refer to it"));
        } else if is_of_kubernetes(name, text) {
            self.empty.push((
                name.to_owned(),
                "Kubernetes sets it for a service of this name",
            ));
        } else {
            let numbered = by_number.iter().find_map(|(number, named)| {
                let rest = name.strip_prefix(number)?;
                Some(format!("{named}{rest}, as members go by name"))
            });
            let old = || {
                let key = name[PREFIX.len()..].to_ascii_lowercase();
                legacy::today(&key, known).map(|path| variable(&path))
            };
            self.unknown.push((name.to_owned(), numbered.or_else(old)));
        }
    }
}

fn variable(path: &str) -> String {
    let name = path.to_ascii_uppercase();
    let name: String = name
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '_' })
        .collect();
    format!("{PREFIX}{name}")
}

fn plain_names(known: &BTreeMap<String, Known>) -> BTreeMap<String, (String, Known)> {
    known
        .iter()
        .filter(|(path, _)| !path.contains("[]"))
        .map(|(path, known)| (variable(path), (path.clone(), *known)))
        .collect()
}

/// Lists of tables that are not within others: `channel.namespaces`.
fn lists(known: &BTreeMap<String, Known>) -> Vec<String> {
    let mut lists: Vec<String> = known
        .keys()
        .filter_map(|path| Some(path.split_once("[]")?.0.to_owned()))
        .collect();
    lists.dedup();
    lists.sort();
    lists.dedup();
    lists
}

fn lookup<'a>(root: &'a Table, path: &str) -> Option<&'a Value> {
    let (head, rest) = path.split_once('.').unwrap_or((path, ""));
    let value = root.get(head)?;
    if rest.is_empty() {
        Some(value)
    } else {
        value.at(rest)
    }
}

/// `CENTRIFUGO_CHANNEL_NAMESPACES_CHAT_PRESENCE` sets a key of the member whose name is `chat`. `by_number` gets the
/// start of such names with the member's number in place of its name, which Centrifugo does not read.
fn add_members(
    names: &mut BTreeMap<String, (String, Known)>,
    list: &str,
    known: &BTreeMap<String, Known>,
    members: Option<&Value>,
    by_number: &mut Vec<(String, String)>,
) {
    /// Each member costs as many names as the table has keys.
    const MEMBERS_MAX: usize = 1_000;
    let Some(Value::List(members)) = members else {
        return;
    };
    let start = format!("{list}[].");
    for (index, member) in members.iter().take(MEMBERS_MAX).enumerate() {
        let Some(Value::Text(name)) = member.at("name") else {
            continue;
        };
        let start_of = |name: &str| format!("{}_", variable(&format!("{list}.{name}")));
        by_number.push((start_of(&index.to_string()), start_of(name)));
        for (path, known) in known.range(start.clone()..) {
            let Some(key) = path.strip_prefix(&start) else {
                break;
            };
            let (key, shape) = match key.split_once("[]") {
                None => (key, known.shape),
                // A list of tables within the member is one variable, in JSON.
                Some((list, _)) => (list, Shape::Map),
            };
            let variable = variable(&format!("{list}.{name}.{key}"));
            names.entry(variable).or_insert_with(|| {
                let known = Known { shape, ..*known };
                (format!("{list}[{index}].{key}"), known)
            });
        }
    }
}

/// `CENTRIFUGO_PORT_8000_TCP_ADDR`, `CENTRIFUGO_SERVICE_HOST` and their like. A port that is a number is Centrifugo's own
/// of older versions.
fn is_of_kubernetes(name: &str, text: &str) -> bool {
    let rest = &name[PREFIX.len() - 1..];
    match rest {
        "_PORT" => text.contains("://"),
        "_INTERNAL_PORT" | "_GRPC_API_PORT" | "_UNI_GRPC_PORT" | "_GRAPHITE_PORT" => false,
        rest => rest.contains("_PORT") || rest.contains("_SERVICE_"),
    }
}
