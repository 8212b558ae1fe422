//! `ringmain scheduled`: publications that wait for their time.

use std::io::Write as _;

use serde_json::{Value, json};

use super::client::Client;
use super::dlq::text;
use super::table::Table;
use super::{ScheduledName, ToolError, When, when};

/// Publications asked for at a time.
const PAGE: u64 = 500;

/// Reads when something is to be published.
///
/// # Errors
/// What would have been understood.
pub(super) fn time(text: &str) -> Result<u64, String> {
    let now = when::unix_ms();
    let later = text.strip_prefix('+').map(when::duration_ms);
    let at = match later {
        Some(ms) => ms.map(|ms| now.saturating_add(ms)),
        None => match When::parse(text) {
            Ok(When::Time(at)) => Some(at),
            Ok(When::Now) => Some(now),
            Ok(When::Beginning | When::Offset(_)) | Err(_) => None,
        },
    };
    at.ok_or_else(|| {
        "expected 2026-11-25T08:00:00Z, +15m, +2h, Unix milliseconds or `now`".to_owned()
    })
}

/// Lists them, page by page.
pub(super) fn list(
    client: &mut Client,
    channel: Option<&str>,
    limit: u64,
    as_json: bool,
) -> Result<(), ToolError> {
    let mut out = std::io::stdout().lock();
    let failed = |error| ToolError::file("standard output", error);
    let mut table = Table::new(&["DUE", "CHANNEL", "EVENT", "KEY", "USER"]);
    let (mut after, mut left) = (None::<String>, if limit == 0 { u64::MAX } else { limit });
    while left > 0 {
        let mut request = json!({ "limit": left.min(PAGE) });
        if let Some(channel) = channel {
            request["channel"] = json!(channel);
        }
        if let Some(after) = &after {
            request["after"] = json!(after);
        }
        let mut result = client.call("scheduled/list", &request)?;
        let found = match result["scheduled"].take() {
            Value::Array(found) => found,
            _ => Vec::new(),
        };
        left = left.saturating_sub(found.len() as u64);
        for one in &found {
            if as_json {
                writeln!(out, "{one}").map_err(failed)?;
            } else {
                table.push(row(one));
            }
        }
        let next = result["next"].as_str().filter(|next| !next.is_empty());
        if found.is_empty() || next.is_none() {
            break;
        }
        after = next.map(str::to_owned);
    }
    if !as_json {
        write!(out, "{}", table.text()).map_err(failed)?;
    }
    Ok(())
}

fn row(one: &Value) -> Vec<String> {
    vec![
        one["deliver_at"]
            .as_u64()
            .map_or_else(String::new, when::shown),
        text(&one["channel"]),
        text(&one["event_id"]),
        text(&one["key"]),
        text(&one["publisher"]["user"]),
    ]
}

/// The names that are meant, as the server API takes them.
fn each(name: &ScheduledName) -> Vec<Value> {
    let channel = &name.channel;
    let key = name.idempotency_key.iter();
    let keys = key.map(|key| json!({ "channel": channel, "key": key }));
    let events = name.events.iter();
    keys.chain(events.map(|event| json!({ "channel": channel, "event_id": event })))
        .collect()
}

/// Forgets them. Those before one that fails are forgotten.
pub(super) fn cancel(client: &mut Client, name: &ScheduledName) -> Result<(), ToolError> {
    for request in each(name) {
        let told = client.call("scheduled/cancel", &request)?;
        println!("{} is cancelled", text(&told["event_id"]));
    }
    Ok(())
}

/// Gives them another time. Likewise.
pub(super) fn change(client: &mut Client, name: &ScheduledName, at: u64) -> Result<(), ToolError> {
    for mut request in each(name) {
        request["deliver_at"] = json!(at);
        let told = client.call("scheduled/change", &request)?;
        let due = told["deliver_at"].as_u64().unwrap_or(at);
        println!(
            "{} is published at {}",
            text(&told["event_id"]),
            when::shown(due)
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_moments_or_from_now_on() {
        let now = when::unix_ms();
        assert_eq!(time("2026-11-25T08:00:00Z"), Ok(1_795_593_600_000));
        assert!(time("+15m").is_ok_and(|at| (900_000..960_000).contains(&(at - now))));
        assert!(time("now").is_ok_and(|at| at >= now));
        for wrong in ["15", "+15", "soon", "beginning"] {
            assert!(time(wrong).is_err(), "{wrong}");
        }
    }
}
