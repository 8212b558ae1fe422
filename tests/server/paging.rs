//! Every page equals the slice of the whole: of history in both kinds of channels, of replays, of groups' work and of letters.

use serde_json::{Value, json};

use crate::support::process::{Server, config};
use crate::support::wait::until;

const RULES: &str = r#"
[[channel.namespaces]]
name = "kept"
history_size = 100
history_ttl = "60s"

[[channel.namespaces]]
name = "orders"
delivery = "durable"
history_size = 3
history_ttl = "60s"
"#;

const ALL: u64 = 9;

fn offsets(list: &Value) -> Vec<u64> {
    let list = list.as_array().expect("a list");
    list.iter()
        .map(|one| one["offset"].as_u64().expect("an offset"))
        .collect()
}

fn fill(server: &Server, channel: &str) {
    for n in 1..=ALL {
        server.api_result("publish", &json!({ "channel": channel, "data": n }));
    }
}

#[test]
fn every_page_of_history_of_both_kinds_is_the_slice_of_the_whole() {
    let server = Server::start(&config(RULES));
    for channel in ["kept:1", "orders:1"] {
        fill(&server, channel);
        let top = server.api_result("history", &json!({ "channel": channel }));
        let mut asked = Vec::new();
        let mut wanted = Vec::new();
        for limit in [0, 1, 2, 5, 9, 10, -1] {
            for since in std::iter::once(None).chain((0..=ALL + 3).map(Some)) {
                for reverse in [false, true] {
                    if reverse && since == Some(0) {
                        continue;
                    }
                    let mut ask = json!({ "channel": channel, "limit": limit, "reverse": reverse });
                    if let Some(offset) = since {
                        ask["since"] = json!({ "offset": offset, "epoch": top["epoch"] });
                    }
                    let is_meant = |offset: &u64| match since {
                        Some(since) if reverse => *offset < since,
                        Some(since) => *offset > since,
                        None => true,
                    };
                    let mut slice: Vec<u64> = (1..=ALL).filter(is_meant).collect();
                    if reverse {
                        slice.reverse();
                    }
                    slice.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
                    wanted.push(slice);
                    asked.push(json!({ "history": ask }));
                }
            }
        }
        let answer = server.api("batch", &json!({ "commands": asked }));
        let replies = answer["replies"].as_array().expect("replies");
        assert_eq!(replies.len(), asked.len());
        for ((reply, ask), slice) in replies.iter().zip(&asked).zip(&wanted) {
            assert_eq!(
                offsets(&reply["history"]["publications"]),
                *slice,
                "{ask}: {reply}"
            );
        }
    }
}

/// Pages of so many, one after the other, put together.
fn pages(limit: u64, mut ask: impl FnMut(&Value, u64) -> (Vec<Value>, Value)) -> Vec<Value> {
    let (mut all, mut after) = (Vec::new(), Value::Null);
    loop {
        let (page, next) = ask(&after, limit);
        assert!(page.len() as u64 <= limit);
        all.extend(page);
        if next.is_null() || next == "" {
            return all;
        }
        after = next;
    }
}

fn list(answer: &Value, members: &str) -> Vec<Value> {
    answer[members].as_array().cloned().unwrap_or_default()
}

#[test]
fn pages_of_replays_of_work_and_of_letters_put_together_are_the_whole() {
    let server = Server::start(&config(RULES));
    fill(&server, "orders:1");
    fill(&server, "orders:2");
    let group = |name: &str| json!({ "group": name, "channels": ["orders:*"], "from": "beginning", "max_attempts": 1, "limit": 100, "ack_wait_ms": 60_000, "wait_ms": 5000 });
    server.api_result(
        "queue/fetch",
        &json!({ "group": "idle", "channels": ["orders:*"], "from": "beginning", "limit": 1 }),
    );
    let given = server.api_result("queue/fetch", &group("failing"));
    let deliveries: Vec<Value> = list(&given, "deliveries")
        .iter()
        .map(|one| one["delivery"].clone())
        .collect();
    assert_eq!(deliveries.len() as u64, 2 * ALL);
    server.api_result(
        "queue/nak",
        &json!({ "deliveries": deliveries, "reason": "no" }),
    );
    let letters = |after: &Value, limit: u64| {
        let mut ask = json!({ "group": "failing", "limit": limit });
        if !after.is_null() {
            ask["after"] = after.clone();
        }
        let answer = server.api_result("dlq/list", &ask);
        (list(&answer, "letters"), answer["next"].clone())
    };
    let is_all = |found: &Vec<Value>| found.len() as u64 == 2 * ALL;
    let whole_letters = until("the letters", || {
        Some(letters(&Value::Null, 100).0).filter(is_all)
    });
    let work = |after: &Value, limit: u64| {
        let ask = json!({ "group": "idle", "limit": limit, "after": after });
        let answer = server.api_result("queue/peek", &ask);
        let events = list(&answer, "entries")
            .iter()
            .map(|one| one["event_id"].clone())
            .collect();
        (events, answer["next"].clone())
    };
    let replay = |after: &Value, limit: u64| {
        let from = match after {
            Value::Null => json!("beginning"),
            cursor => json!({ "cursor": cursor }),
        };
        let ask = json!({ "channels": ["orders:*"], "from": from, "to": "now", "limit": limit });
        let answer = server.api_result("replay", &ask);
        let events = list(&answer, "events")
            .iter()
            .map(|one| one["event_id"].clone())
            .collect();
        let next = if answer["done"] == true {
            Value::Null
        } else {
            answer["next"].clone()
        };
        (events, next)
    };
    let whole: Vec<Value> = replay(&Value::Null, 100).0;
    assert_eq!(whole.len() as u64, 2 * ALL);
    for limit in (1..=20).chain([100]) {
        assert_eq!(pages(limit, letters), whole_letters, "letters by {limit}");
        assert_eq!(pages(limit, work), whole, "work by {limit}");
        assert_eq!(pages(limit, replay), whole, "events by {limit}");
    }
    // What was not done when a page was asked for stays where it is while others come.
    let first = replay(&Value::Null, 5).1;
    fill(&server, "orders:3");
    let rest = pages(4, |after, limit| {
        replay(if after.is_null() { &first } else { after }, limit)
    });
    assert_eq!(
        rest,
        whole[5..],
        "the end of a replay is fixed by its first page"
    );
    let moved = json!({ "channels": ["orders:*"], "from": { "cursor": first, "follow": true }, "limit": 100 });
    let all = server.api_result("replay", &moved);
    assert_eq!(
        list(&all, "events").len() as u64,
        3 * ALL - 5,
        "unless it follows"
    );
}
