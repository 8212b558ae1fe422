//! `ringmain queue groups`: how queue groups do.

use std::io::Write as _;

use serde_json::{Value, json};

use super::client::Client;
use super::dlq::text;
use super::table::Table;
use super::{ToolError, when};

/// Prints all groups.
pub(super) fn groups(client: &mut Client, as_json: bool) -> Result<(), ToolError> {
    let mut result = client.call("queue/groups", &json!({}))?;
    let groups = match result["groups"].take() {
        Value::Array(groups) => groups,
        _ => Vec::new(),
    };
    let mut out = String::new();
    if as_json {
        for group in &groups {
            out.push_str(&format!("{group}\n"));
        }
    } else {
        out = table(&groups);
    }
    std::io::stdout()
        .lock()
        .write_all(out.as_bytes())
        .map_err(|error| ToolError::file("standard output", error))
}

fn table(groups: &[Value]) -> String {
    let mut table = Table::new(&[
        "GROUP",
        "CHANNELS",
        "LAG",
        "OLDEST",
        "IN FLIGHT",
        "WORKERS",
        "REDELIVERED",
        "DEAD",
        "LOST",
    ]);
    for group in groups {
        let channels = group["channels"]
            .as_array()
            .map_or_else(String::new, |channels| {
                channels.iter().map(text).collect::<Vec<_>>().join(" ")
            });
        let oldest = group["oldest_age_ms"]
            .as_u64()
            .map_or_else(String::new, when::age);
        let mut row = vec![text(&group["group"]), channels, text(&group["lag"]), oldest];
        for key in ["in_flight", "workers", "redelivered", "dead", "lost"] {
            row.push(text(&group[key]));
        }
        table.push(row);
    }
    table.text()
}
