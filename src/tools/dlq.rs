//! `ringmain dlq`: dead letters of queue groups.

use std::io::Write as _;

use serde_json::{Value, json};

use super::client::Client;
use super::table::Table;
use super::{Chosen, ToolError, when};

/// Letters asked for at a time.
const PAGE: u64 = 500;

/// Letters that the server takes in one question that means all.
const ALL_MAX: u64 = 100_000;

/// What is done with a letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Retry,
    Drop,
}

impl Change {
    const fn path(self) -> &'static str {
        match self {
            Self::Retry => "dlq/retry",
            Self::Drop => "dlq/drop",
        }
    }

    /// How the server calls the number of them.
    const fn counted(self) -> &'static str {
        match self {
            Self::Retry => "retried",
            Self::Drop => "dropped",
        }
    }

    const fn done(self) -> &'static str {
        match self {
            Self::Retry => "given back to their group",
            Self::Drop => "dropped",
        }
    }
}

/// Lists letters, page by page.
pub(super) fn list(
    client: &mut Client,
    group: Option<&str>,
    limit: u64,
    as_json: bool,
) -> Result<(), ToolError> {
    let mut out = std::io::stdout().lock();
    let mut table = Table::new(&[
        "GROUP",
        "EVENT",
        "CHANNEL",
        "OFFSET",
        "ATTEMPTS",
        "DIED",
        "LAST REASON",
    ]);
    let (mut after, mut left) = (None::<String>, if limit == 0 { u64::MAX } else { limit });
    while left > 0 {
        let mut request = json!({ "limit": left.min(PAGE) });
        if let Some(group) = group {
            request["group"] = json!(group);
        }
        if let Some(after) = &after {
            request["after"] = json!(after);
        }
        let mut result = client.call("dlq/list", &request)?;
        let letters = match result["letters"].take() {
            Value::Array(letters) => letters,
            _ => Vec::new(),
        };
        left = left.saturating_sub(letters.len() as u64);
        for letter in &letters {
            if as_json {
                writeln!(out, "{letter}")
                    .map_err(|error| ToolError::file("standard output", error))?;
            } else {
                table.push(row(letter));
            }
        }
        let next = result["next"].as_str().filter(|next| !next.is_empty());
        if letters.is_empty() || next.is_none() || next == after.as_deref() {
            break;
        }
        after = next.map(str::to_owned);
    }
    if !as_json {
        write!(out, "{}", table.text())
            .map_err(|error| ToolError::file("standard output", error))?;
    }
    Ok(())
}

fn row(letter: &Value) -> Vec<String> {
    let failures = letter["failures"].as_array();
    let attempts = letter["attempts"]
        .as_u64()
        .or(failures.map(|all| all.len() as u64));
    let died = letter["died_at"].as_u64();
    vec![
        text(&letter["group"]),
        text(&letter["event_id"]),
        text(&letter["channel"]),
        text(&letter["offset"]),
        attempts.map_or_else(String::new, |n| n.to_string()),
        died.map_or_else(String::new, when::shown),
        text(&letter["reason"]),
    ]
}

/// A scalar for a cell.
pub(super) fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Prints one letter.
pub(super) fn show(client: &mut Client, group: &str, event: &str) -> Result<(), ToolError> {
    let letter = client.call("dlq/show", &json!({ "group": group, "event_id": event }))?;
    let text = serde_json::to_string_pretty(&letter).unwrap_or_default();
    writeln!(std::io::stdout().lock(), "{text}")
        .map_err(|error| ToolError::file("standard output", error))
}

/// Retries or drops letters and says how many. Those before one that fails are done.
pub(super) fn each(client: &mut Client, change: Change, chosen: &Chosen) -> Result<(), ToolError> {
    let mut done = 0;
    if chosen.all {
        loop {
            let request = json!({ "group": chosen.group, "all": true });
            let result = client.call(change.path(), &request)?;
            let count = result[change.counted()].as_u64().unwrap_or(0);
            done += count;
            // Letters that have died again meanwhile are for the next time.
            if count < ALL_MAX {
                break;
            }
        }
    }
    for event in &chosen.events {
        client.call(
            change.path(),
            &json!({ "group": chosen.group, "event_id": event }),
        )?;
        done += 1;
    }
    if done == 0 {
        let text = format!("the group {} has no dead letters", chosen.group);
        return Err(ToolError::Nothing(text));
    }
    println!("{done} dead letters of {} {}", chosen.group, change.done());
    Ok(())
}
