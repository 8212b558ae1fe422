//! `ringmain dlq`: dead letters of queue groups.

use std::collections::BTreeMap;
use std::io::Write as _;

use serde_json::{Value, json};

use super::client::Client;
use super::table::Table;
use super::{Chosen, LetterFilter, RetryArgs, ToolError, when};

/// Letters asked for at a time.
const PAGE: u64 = 500;

/// Letters that the server takes in one question that means all.
const ALL_MAX: u64 = 100_000;

impl LetterFilter {
    /// Adds it to a question. `true` if there was something to add.
    fn add_to(&self, request: &mut Value) -> bool {
        let text = |text: &Option<String>| text.as_ref().map(|text| json!(text));
        let number = |number: Option<u64>| number.map(|number| json!(number));
        let mut is_any = false;
        for (name, value) in [
            ("reason", text(&self.reason)),
            ("class", text(&self.class)),
            ("channel", text(&self.channel)),
            ("key", text(&self.idempotency_key)),
            ("from", number(self.from)),
            ("to", number(self.to)),
        ] {
            if let Some(value) = value {
                request[name] = value;
                is_any = true;
            }
        }
        is_any
    }
}

/// Lists letters, page by page.
pub(super) fn list(
    client: &mut Client,
    group: Option<&str>,
    filter: &LetterFilter,
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
    let mut counts = Value::Null;
    while left > 0 {
        let mut request = json!({ "limit": left.min(PAGE) });
        if let Some(group) = group {
            request["group"] = json!(group);
        }
        filter.add_to(&mut request);
        if let Some(after) = &after {
            request["after"] = json!(after);
        }
        let mut result = client.call("dlq/list", &request)?;
        if after.is_none() {
            counts = result["counts"].take();
        }
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
        // A page may be empty where few letters are meant.
        if next.is_none() || next == after.as_deref() {
            break;
        }
        after = next.map(str::to_owned);
    }
    if !as_json {
        write!(out, "{}{}", table.text(), census(&counts))
            .map_err(|error| ToolError::file("standard output", error))?;
    }
    Ok(())
}

/// A line for each group with letters: how many, and what they died of.
fn census(counts: &Value) -> String {
    let mut groups = BTreeMap::<&str, (u64, Vec<String>)>::new();
    for count in counts.as_array().into_iter().flatten() {
        let letters = count["letters"].as_u64().unwrap_or(0);
        let of_group = groups
            .entry(count["group"].as_str().unwrap_or(""))
            .or_default();
        of_group.0 += letters;
        of_group
            .1
            .push(format!("{} {letters}", text(&count["class"])));
    }
    let line = |(group, (letters, classes)): (&str, (u64, Vec<String>))| {
        format!("{group}: {letters} in all, {}\n", classes.join(", "))
    };
    groups.into_iter().map(line).collect()
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

/// Retries letters.
pub(super) fn retry(client: &mut Client, args: &RetryArgs) -> Result<(), ToolError> {
    let mut request = json!({ "group": args.chosen.group });
    for (name, to) in [
        ("to_group", &args.to_group),
        ("to_channel", &args.to_channel),
    ] {
        if let Some(to) = to {
            request[name] = json!(to);
        }
    }
    if let Some(data) = &args.data {
        if args.chosen.events.len() != 1 {
            let text = "--data is for one letter: name its event";
            return Err(ToolError::Usage(text.to_owned()));
        }
        let data = serde_json::from_str::<Value>(data);
        request["data"] =
            data.map_err(|error| ToolError::Usage(format!("--data is not JSON: {error}")))?;
    }
    let done = match (&args.to_group, &args.to_channel) {
        (Some(group), _) => format!("put into the queue of {group}"),
        (None, Some(channel)) => format!("put onto {channel}"),
        (None, None) => "given back to their group".to_owned(),
    };
    each(
        client,
        ("dlq/retry", "retried", &done),
        &request,
        &args.chosen,
    )
}

/// Forgets letters.
pub(super) fn drop(client: &mut Client, chosen: &Chosen) -> Result<(), ToolError> {
    let request = json!({ "group": chosen.group });
    each(client, ("dlq/drop", "dropped", "dropped"), &request, chosen)
}

/// Does the same with each letter and says with how many. Those before one that fails are done.
fn each(
    client: &mut Client,
    (path, counted, done): (&str, &str, &str),
    request: &Value,
    chosen: &Chosen,
) -> Result<(), ToolError> {
    let (mut count, mut refused) = (0, None);
    if chosen.all {
        let mut request = request.clone();
        request["all"] = json!(true);
        chosen.filter.add_to(&mut request);
        loop {
            let result = client.call(path, &request)?;
            let of_part = result[counted].as_u64().unwrap_or(0);
            count += of_part;
            if let Some(of_part) = result["refused"].as_u64() {
                refused = Some((of_part, text(&result["reason"])));
            }
            // Letters that have died again meanwhile are for the next time.
            if of_part < ALL_MAX {
                break;
            }
        }
    } else if chosen.filter.add_to(&mut json!({})) {
        let text = "an event is named or --all with what leaves some, not both";
        return Err(ToolError::Usage(text.to_owned()));
    }
    for event in &chosen.events {
        let mut request = request.clone();
        request["event_id"] = json!(event);
        client.call(path, &request)?;
        count += 1;
    }
    let group = &chosen.group;
    if let Some((refused, reason)) = refused {
        let text =
            format!("{count} dead letters of {group} {done}, {refused} were refused: {reason}");
        return Err(ToolError::Nothing(text));
    }
    if count == 0 {
        let text = match chosen.filter.add_to(&mut json!({})) {
            true => format!("the group {group} has no such dead letters"),
            false => format!("the group {group} has no dead letters"),
        };
        return Err(ToolError::Nothing(text));
    }
    println!("{count} dead letters of {group} {done}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn census_has_a_line_for_each_group() {
        let counts = json!([
            { "group": "a", "class": "ack_wait", "letters": 2 },
            { "group": "a", "class": "failed", "letters": 3 },
            { "group": "b", "class": "loop", "letters": 1 },
        ]);
        let expected = "a: 5 in all, ack_wait 2, failed 3\nb: 1 in all, loop 1\n";
        assert_eq!(census(&counts), expected);
        assert_eq!(census(&Value::Null), "");
    }

    #[test]
    fn filter_asks_for_what_it_names() {
        let filter = LetterFilter {
            class: Some("failed".to_owned()),
            idempotency_key: Some("k".to_owned()),
            from: Some(5),
            ..LetterFilter::default()
        };
        let mut request = json!({ "all": true });
        assert!(filter.add_to(&mut request));
        let expected = json!({ "all": true, "class": "failed", "key": "k", "from": 5 });
        assert_eq!(request, expected);
        assert!(!LetterFilter::default().add_to(&mut request));
        assert_eq!(request, expected);
    }
}
