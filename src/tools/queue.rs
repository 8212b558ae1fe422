//! `ringmain queue`: how queue groups do, and what operators do with them.

use std::io::Write as _;

use serde_json::{Value, json};

use super::ToolError;
use super::client::Client;
use super::dlq::text;
use super::table::Table;
use super::when::{self, When};

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
    print(&out)
}

fn print(text: &str) -> Result<(), ToolError> {
    std::io::stdout()
        .lock()
        .write_all(text.as_bytes())
        .map_err(|error| ToolError::file("standard output", error))
}

/// Prints who takes from a group.
pub(super) fn workers(client: &mut Client, group: &str) -> Result<(), ToolError> {
    let result = client.call("queue/workers", &json!({ "group": group }))?;
    let mut out = String::new();
    for worker in result["workers"].as_array().into_iter().flatten() {
        out.push_str(&format!("{worker}\n"));
    }
    print(&out)
}

/// Prints what a group has not done, page by page.
pub(super) fn peek(client: &mut Client, group: &str, limit: u64) -> Result<(), ToolError> {
    const PAGE: u64 = 500;
    let mut left = if limit == 0 { u64::MAX } else { limit };
    let mut after = Value::Null;
    while left > 0 {
        let request = json!({ "group": group, "limit": left.min(PAGE), "after": after });
        let result = client.call("queue/peek", &request)?;
        let mut out = String::new();
        for entry in result["entries"].as_array().into_iter().flatten() {
            out.push_str(&format!("{entry}\n"));
            left = left.saturating_sub(1);
        }
        print(&out)?;
        after = result["next"].clone();
        if after.is_null() {
            break;
        }
    }
    Ok(())
}

/// Does one thing with a group, and says what came of it.
pub(super) fn change(client: &mut Client, what: &str, group: &str) -> Result<(), ToolError> {
    let result = client.call(&format!("queue/{what}"), &json!({ "group": group }))?;
    print(&match what {
        "pause" => format!("{group} is paused\n"),
        "resume" => format!("{group} goes on\n"),
        "purge" => format!("{} publications are forgotten\n", text(&result["purged"])),
        _ => format!("{group} is deleted\n"),
    })
}

/// Copies a group.
pub(super) fn copy(client: &mut Client, group: &str, to: &str) -> Result<(), ToolError> {
    client.call("queue/copy", &json!({ "group": group, "to": to }))?;
    print(&format!("{to} begins with what {group} has not done\n"))
}

/// Lets a group begin anew elsewhere.
pub(super) fn seek(
    client: &mut Client,
    group: &str,
    to: Option<When>,
    channel: Option<&str>,
    last: Option<u64>,
) -> Result<(), ToolError> {
    let place = match (to, last) {
        (_, Some(last)) => json!({ "last": last }),
        (Some(When::Beginning), None) => json!("beginning"),
        (Some(When::Now) | None, None) => json!("end"),
        (Some(When::Time(time)), None) => json!({ "time": time }),
        (Some(When::Offset(offset)), None) => json!({ "channel": channel, "offset": offset }),
    };
    let result = client.call("queue/seek", &json!({ "group": group, "to": place }))?;
    print(&format!(
        "{} publications are not done\n",
        text(&result["lag"])
    ))
}

fn table(groups: &[Value]) -> String {
    let mut table = Table::new(&[
        "GROUP",
        "CHANNELS",
        "LAG",
        "READY",
        "DELAYED",
        "IN FLIGHT",
        "OLDEST",
        "WORKERS",
        "REDELIVERED",
        "DEAD",
        "LETTERS",
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
        let paused = match group["paused"] == true {
            _ if group["seeking"] == true => " (seeking)",
            true => " (paused)",
            false => "",
        };
        let name = format!("{}{paused}", text(&group["group"]));
        let mut row = vec![name, channels];
        for key in ["lag", "ready", "delayed", "in_flight"] {
            row.push(text(&group[key]));
        }
        row.push(oldest);
        for key in ["workers", "redelivered", "dead", "letters", "lost"] {
            row.push(text(&group[key]));
        }
        table.push(row);
    }
    table.text()
}
