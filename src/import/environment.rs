//! `CENTRIFUGO_…` variables as keys.

use std::collections::BTreeMap;

use super::document::{Budget, Table, Value};
use super::json;
use super::known::{Known, Shape};

const PREFIX: &str = "CENTRIFUGO_";
/// Variables that strings may refer to; no keys of their own.
pub(super) const CUSTOM: &str = "CENTRIFUGO_VAR_";

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
    /// Variables with the prefix that set no key of Centrifugo.
    pub(super) unknown: Vec<String>,
    /// Variables with the prefix that set nothing, and why.
    pub(super) empty: Vec<(String, &'static str)>,
}

/// The keys among the variables. `root` is the file, whose named members variables may refer to.
///
/// # Errors
/// A variable that must be JSON and is not.
pub(super) fn read(
    variables: &[(String, String)],
    known: &BTreeMap<String, Known>,
    root: &Table,
) -> Result<Environment, String> {
    let mut names = plain_names(known);
    let mut environment = Environment::default();
    let mut mine: Vec<&(String, String)> = variables
        .iter()
        .filter(|(name, _)| name.starts_with(PREFIX))
        .collect();
    mine.sort();
    let lists = lists(known);
    for list in &lists {
        let Some(at) = mine.iter().position(|(name, _)| *name == variable(list)) else {
            add_members(&mut names, list, known, lookup(root, list));
            continue;
        };
        let (name, text) = mine.remove(at);
        if text.is_empty() {
            environment.empty.push((name.clone(), EMPTY));
            continue;
        }
        let value = json::read(text).map_err(|error| format!("{name}: not JSON: {error}"))?;
        add_members(&mut names, list, known, Some(&value));
        environment.settings.push(Setting {
            variable: name.clone(),
            path: list.clone(),
            value,
        });
    }
    for (name, text) in mine {
        let Some((path, known)) = names.get(name.as_str()) else {
            if name.starts_with(CUSTOM) {
                environment
                    .empty
                    .push((name.clone(), "other values may refer to it"));
            } else if is_of_kubernetes(name) {
                environment.empty.push((
                    name.clone(),
                    "Kubernetes sets it for a service of this name",
                ));
            } else {
                environment.unknown.push(name.clone());
            }
            continue;
        };
        if text.is_empty() {
            environment.empty.push((name.clone(), EMPTY));
            continue;
        }
        environment.settings.push(Setting {
            variable: name.clone(),
            path: path.clone(),
            value: value(text, known.shape).map_err(|error| format!("{name}: {error}"))?,
        });
    }
    Ok(environment)
}

const EMPTY: &str = "an empty variable counts as unset";

fn value(text: &str, shape: Shape) -> Result<Value, String> {
    Budget::new().spend(text.len())?;
    Ok(match shape {
        Shape::List => Value::List(
            text.split(' ')
                .filter(|member| !member.is_empty())
                .map(|member| Value::Text(member.to_owned()))
                .collect(),
        ),
        Shape::Map => json::read(text).map_err(|error| format!("not JSON: {error}"))?,
        Shape::Boolean | Shape::Integer | Shape::Duration | Shape::Text => {
            Value::Text(text.to_owned())
        }
    })
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

/// `CENTRIFUGO_CHANNEL_NAMESPACES_CHAT_PRESENCE` sets a key of the member whose name is `chat`.
fn add_members(
    names: &mut BTreeMap<String, (String, Known)>,
    list: &str,
    known: &BTreeMap<String, Known>,
    members: Option<&Value>,
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
        for (path, known) in known.range(start.clone()..) {
            let Some(key) = path.strip_prefix(&start) else {
                break;
            };
            if !key.contains("[]") {
                let variable = variable(&format!("{list}.{name}.{key}"));
                names
                    .entry(variable)
                    .or_insert_with(|| (format!("{list}[{index}].{key}"), *known));
            }
        }
    }
}

/// `CENTRIFUGO_PORT_8000_TCP_ADDR`, `CENTRIFUGO_SERVICE_HOST` and their like.
fn is_of_kubernetes(name: &str) -> bool {
    let rest = &name[PREFIX.len() - 1..];
    rest.contains("_PORT") || rest.contains("_SERVICE_")
}
