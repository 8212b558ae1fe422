//! What queue groups promise, whichever engine keeps the log: each check is given a way to start a proxy on the same log again.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::{Value, json};

use super::process::Server;
use super::wait::until;

/// Commands of one batch.
const BATCH: u64 = 500;

/// Publishes numbers to a channel.
pub(crate) fn publish(server: &Server, channel: &str, numbers: std::ops::Range<u64>) {
    let all: Vec<u64> = numbers.collect();
    for part in all.chunks(BATCH as usize) {
        let commands: Vec<Value> = part
            .iter()
            .map(|n| json!({ "publish": { "channel": channel, "data": { "n": n } } }))
            .collect();
        let replies = server.api("batch", &json!({ "commands": commands }))["replies"].take();
        for reply in replies.as_array().expect("replies") {
            assert!(reply.get("error").is_none(), "{reply}");
        }
    }
}

/// Publishes numbers with tags.
fn publish_tagged(server: &Server, channel: &str, numbers: std::ops::Range<u64>, tag: &str) {
    for n in numbers {
        let publish = json!({ "channel": channel, "data": { "n": n }, "tags": { "who": tag } });
        server.api_result("publish", &publish);
    }
}

pub(crate) fn fetch(server: &Server, request: &Value) -> Vec<Value> {
    match server.api_result("queue/fetch", request)["deliveries"].take() {
        Value::Array(deliveries) => deliveries,
        other => panic!("{other}"),
    }
}

fn numbers(deliveries: &[Value]) -> Vec<u64> {
    let number = |one: &Value| one["data"]["n"].as_u64().expect("its number");
    deliveries.iter().map(number).collect()
}

fn names(deliveries: &[Value]) -> Vec<&Value> {
    deliveries.iter().map(|one| &one["delivery"]).collect()
}

fn group(server: &Server, name: &str) -> Value {
    let mut groups = server.api_result("queue/groups", &json!({}));
    let all = groups["groups"].as_array_mut().expect("groups");
    let found = all.iter_mut().find(|group| group["group"] == name);
    found.expect("the group").take()
}

fn kill(mut server: Server) {
    server.signal("KILL");
    server.exit_status();
}

/// Failures that wait keep nobody from going on, and come back when they are due, over a kill.
pub(crate) fn failures_wait_aside(start: &dyn Fn() -> Server, many: u64) {
    let server = start();
    publish(&server, "orders:1", 0..many);
    let request = json!({ "group": "g", "channels": ["orders:*"], "limit": 1000, "wait_ms": 5000, "ack_wait_ms": 120_000 });
    let mut failed = 0;
    while failed < many {
        let deliveries = fetch(&server, &request);
        assert!(!deliveries.is_empty(), "{failed} of {many} were given");
        failed += deliveries.len() as u64;
        let nak = json!({ "deliveries": names(&deliveries), "delay_ms": 3_600_000 });
        assert_eq!(
            server.api_result("queue/nak", &nak)["naked"],
            deliveries.len()
        );
    }
    publish(&server, "orders:2", many..many + 10);
    let mut fresh = Vec::new();
    until("new work", || {
        let deliveries = fetch(&server, &request);
        fresh.extend(numbers(&deliveries));
        let done = json!({ "deliveries": names(&deliveries[..deliveries.len().min(9)]) });
        server.api_result("queue/ack", &done);
        if let Some(last) = deliveries.get(9) {
            let soon = json!({ "delivery": last["delivery"], "delay_ms": 3000, "reason": "soon", "sync": true });
            server.api_result("queue/nak", &soon);
        }
        (fresh.len() == 10).then_some(())
    });
    assert_eq!(fresh, (many..many + 10).collect::<Vec<_>>());
    let failed_at = super::wait::now();
    kill(server);
    let server = start();
    let again = until("the one that is due soon", || {
        let deliveries = fetch(&server, &request);
        (!deliveries.is_empty()).then_some(deliveries)
    });
    assert_eq!(numbers(&again), [many + 9]);
    assert_eq!(again[0]["attempt"], 2);
    assert!(
        failed_at.elapsed() >= Duration::from_millis(2900),
        "{:?}",
        failed_at.elapsed()
    );
    server.api_result(
        "queue/ack",
        &json!({ "delivery": again[0]["delivery"], "sync": true }),
    );
    until("the rest is counted as not done", || {
        (group(&server, "g")["lag"] == many).then_some(())
    });
    kill(server);
}

/// In an ordered group a channel that waits, with much behind it, stops no other one.
pub(crate) fn ordered_channel_stops_no_other(start: &dyn Fn() -> Server, many: u64) {
    let server = start();
    publish(&server, "orders:1", 0..many);
    publish(&server, "orders:2", many..many + 3);
    let request = json!({ "group": "o", "channels": ["orders:*"], "ordered": true, "limit": 2, "wait_ms": 10_000, "ack_wait_ms": 120_000 });
    let mut given = Vec::new();
    until("one of each channel", || {
        given.extend(fetch(&server, &request));
        (given.len() == 2).then_some(())
    });
    given.sort_by_key(|one| one["data"]["n"].as_u64());
    assert_eq!(numbers(&given), [0, many]);
    let later = json!({ "delivery": given[0]["delivery"], "delay_ms": 60_000, "sync": true });
    server.api_result("queue/nak", &later);
    let done = json!({ "delivery": given[1]["delivery"], "sync": true });
    server.api_result("queue/ack", &done);
    for n in many + 1..many + 3 {
        let next = fetch(&server, &request);
        assert_eq!(numbers(&next), [n]);
        server.api_result(
            "queue/ack",
            &json!({ "delivery": next[0]["delivery"], "sync": true }),
        );
    }
    let before = group(&server, "o");
    assert!(
        before["held"].as_u64().is_some_and(|held| held < 1000),
        "{before}"
    );
    kill(server);
    // The channel waits for its first publication, over a kill as well.
    let server = start();
    publish(&server, "orders:3", 1..2);
    let next = until("the other channel", || {
        let next = fetch(&server, &request);
        (!next.is_empty()).then_some(next)
    });
    assert_eq!(next[0]["channel"], "orders:3");
    kill(server);
}

/// A channel waits for its first publication, however far away that is, also over a time in which nobody takes anything.
pub(crate) fn ordered_channel_keeps_its_order_while_nobody_takes(start: &dyn Fn() -> Server) {
    let server = start();
    publish(&server, "orders:1", 0..4);
    publish(&server, "orders:2", 4..5);
    let request = json!({ "group": "i", "channels": ["orders:*"], "ordered": true, "wait_ms": 5000, "ack_wait_ms": 120_000 });
    let mut given = Vec::new();
    until("one of each channel", || {
        given.extend(fetch(&server, &request));
        (given.len() == 2).then_some(())
    });
    given.sort_by_key(|one| one["data"]["n"].as_u64());
    assert_eq!(numbers(&given), [0, 4]);
    let delay = Duration::from_secs(15);
    let due = super::wait::now() + delay;
    for (one, wait) in given.iter().zip([delay, Duration::ZERO]) {
        let nak = json!({ "delivery": one["delivery"], "delay_ms": wait.as_millis() as u64, "sync": true });
        server.api_result("queue/nak", &nak);
    }
    until("nothing is held here", || {
        (group(&server, "i")["held"] == 0).then_some(())
    });
    let other = until("the other channel", || fetch(&server, &request).pop());
    assert_eq!(other["channel"], "orders:2", "{other}");
    let done = json!({ "delivery": other["delivery"], "sync": true });
    server.api_result("queue/ack", &done);
    for n in 0..4 {
        let next = until("the next one", || fetch(&server, &request).pop());
        assert_eq!(next["data"]["n"], n, "{next}");
        let now = super::wait::now();
        assert!(now + Duration::from_millis(100) >= due, "{n} is early");
        let done = json!({ "delivery": next["delivery"], "sync": true });
        server.api_result("queue/ack", &done);
    }
    kill(server);
}

/// A start, some work of every kind and a stop are nobody's business: no line of the log says otherwise.
pub(crate) fn clean_start_and_stop_warn_nobody(start: &dyn Fn() -> Server) {
    let mut server = start();
    publish(&server, "orders:1", 0..40);
    publish(&server, "orders:2", 40..60);
    let ordered = json!({ "group": "o", "channels": ["orders:*"], "ordered": true, "limit": 2, "wait_ms": 5000 });
    let keyed = json!({ "group": "k", "channels": ["orders:*"], "key": "channel", "key_concurrency": 2, "limit": 9, "wait_ms": 5000 });
    let plain = json!({ "group": "p", "channels": ["orders:*"], "limit": 20, "wait_ms": 5000, "max_attempts": 1 });
    for (request, most) in [(&ordered, 2), (&keyed, 4), (&plain, 20)] {
        let mut given = Vec::new();
        until("deliveries", || {
            given.extend(fetch(&server, request));
            (given.len() >= most).then_some(())
        });
        // One is done, one has failed, and the rest is under way when the server is stopped.
        server.api_result("queue/ack", &json!({ "delivery": given[0]["delivery"] }));
        let nak = json!({ "delivery": given[1]["delivery"], "delay_ms": 30_000, "sync": true });
        server.api_result("queue/nak", &nak);
    }
    until("a dead letter", || {
        (group(&server, "p")["letters"] == 1).then_some(())
    });
    server.api_result("queue/seek", &json!({ "group": "k", "to": "beginning" }));
    server.api_result("queue/pause", &json!({ "group": "o" }));
    server.api_result("queue/resume", &json!({ "group": "o" }));
    server.api_result("queue/copy", &json!({ "group": "p", "to": "q" }));
    server.api_result("queue/delete", &json!({ "group": "q" }));
    server.signal("TERM");
    assert!(server.exit_status().success());
    let log = server.log();
    // What the configuration is doubted for is another matter.
    let is_doubt = |line: &&str| line.contains("\"message\":\"channel namespace");
    let loud: Vec<&str> = log
        .lines()
        .filter(|line| line.contains("\"WARN\"") || line.contains("\"ERROR\""))
        .filter(|line| !is_doubt(line))
        .collect();
    assert!(loud.is_empty(), "{loud:#?}");
}

/// What was settled with `sync` is settled, whatever is killed right behind the answer.
pub(crate) fn synced_acknowledgements_are_stored(start: &dyn Fn() -> Server) {
    let server = start();
    publish(&server, "orders:1", 0..200);
    let request = json!({ "group": "s", "channels": ["orders:*"], "limit": 200, "wait_ms": 5000, "ack_wait_ms": 5000 });
    let mut all = Vec::new();
    until("everything", || {
        all.extend(fetch(&server, &request));
        (all.len() == 200).then_some(())
    });
    let done = json!({ "deliveries": names(&all[..199]), "sync": true });
    assert_eq!(server.api_result("queue/ack", &done)["acked"], 199);
    kill(server);
    let server = start();
    until("one is not done", || {
        (group(&server, "s")["lag"] == 1).then_some(())
    });
    let next = server.api_result("queue/fetch", &request);
    assert!(
        next["deliveries"]
            .as_array()
            .is_some_and(|next| next.len() <= 1),
        "{next}"
    );
    kill(server);
}

/// The backlog of one key stands in front of nobody, and no more of a key is under way than may be.
pub(crate) fn keys_take_turns(start: &dyn Fn() -> Server) {
    let server = start();
    publish_tagged(&server, "orders:1", 0..400, "big");
    publish_tagged(&server, "orders:1", 400..403, "small");
    let request = json!({
        "group": "k", "channels": ["orders:*"], "key": "tag:who", "key_concurrency": 5, "limit": 50, "wait_ms": 3000,
        "ack_wait_ms": 120_000,
    });
    let mut given = Vec::new();
    until("five of the one and three of the other", || {
        given.extend(fetch(&server, &request));
        (given.len() >= 8).then_some(())
    });
    let mut of: BTreeMap<String, usize> = BTreeMap::new();
    for one in &given {
        *of.entry(one["tags"]["who"].to_string()).or_default() += 1;
    }
    assert_eq!(
        of,
        [("\"big\"".to_owned(), 5), ("\"small\"".to_owned(), 3)].into()
    );
    // Everything is done at last, each once.
    let mut done: BTreeSet<u64> = BTreeSet::new();
    while done.len() < 403 {
        for n in numbers(&given) {
            assert!(done.insert(n), "{n} came twice");
        }
        server.api_result("queue/ack", &json!({ "deliveries": names(&given) }));
        given = fetch(&server, &request);
    }
    kill(server);
}

/// A group takes the part of its channels that it was made for.
pub(crate) fn group_takes_a_part(start: &dyn Fn() -> Server) {
    let server = start();
    publish_tagged(&server, "orders:1", 0..10, "north");
    publish_tagged(&server, "orders:1", 10..20, "south");
    let request = json!({
        "group": "p", "channels": ["orders:*"], "tags": { "who": "south" }, "where": "n >= 15", "limit": 50, "wait_ms": 3000,
    });
    let given = until("what fits", || {
        let given = fetch(&server, &request);
        (!given.is_empty()).then_some(given)
    });
    assert_eq!(numbers(&given), (15..20).collect::<Vec<_>>());
    server.api_result(
        "queue/ack",
        &json!({ "deliveries": names(&given), "sync": true }),
    );
    until("nothing is left", || {
        (group(&server, "p")["lag"] == 0).then_some(())
    });
    assert_eq!(group(&server, "p")["passed"], 15);
    kill(server);
}

/// Operators look, pause, begin anew, copy and purge.
pub(crate) fn operators_move_groups(start: &dyn Fn() -> Server) {
    let server = start();
    publish(&server, "orders:1", 0..100);
    let request = json!({ "group": "m", "channels": ["orders:*"], "limit": 10, "wait_ms": 3000, "ack_wait_ms": 120_000 });
    let mut given = Vec::new();
    until("ten", || {
        let left = 10 - given.len();
        given.extend(fetch(&server, &{
            let mut request = request.clone();
            request["limit"] = left.into();
            request
        }));
        (given.len() == 10).then_some(())
    });
    server.api_result(
        "queue/ack",
        &json!({ "deliveries": names(&given), "sync": true }),
    );
    let peeked = server.api_result("queue/peek", &json!({ "group": "m", "limit": 5 }));
    let shown = peeked["entries"].as_array().expect("entries");
    assert_eq!(numbers(shown), [10, 11, 12, 13, 14]);
    assert_eq!(shown[0]["state"], "ready");
    let next = server.api_result(
        "queue/peek",
        &json!({ "group": "m", "limit": 1, "after": peeked["next"] }),
    );
    assert_eq!(next["entries"][0]["data"]["n"], 15);

    server.api_result("queue/copy", &json!({ "group": "m", "to": "sandbox" }));
    let copied = until("the copy", || {
        let copied = fetch(&server, &json!({ "group": "sandbox", "wait_ms": 3000 }));
        (!copied.is_empty()).then_some(copied)
    });
    assert_eq!(numbers(&copied), [10]);

    assert_eq!(
        server.api_result("queue/pause", &json!({ "group": "m" }))["paused"],
        true
    );
    assert!(
        fetch(
            &server,
            &json!({ "group": "m", "limit": 10, "wait_ms": 100 })
        )
        .is_empty()
    );
    kill(server);
    let server = start();
    until("the group", || {
        (group(&server, "m")["paused"] == true).then_some(())
    });
    assert!(
        fetch(
            &server,
            &json!({ "group": "m", "limit": 10, "wait_ms": 100 })
        )
        .is_empty()
    );
    assert_eq!(
        server.api_result("queue/resume", &json!({ "group": "m" }))["paused"],
        false
    );

    let held = until("deliveries", || {
        let held = fetch(
            &server,
            &json!({ "group": "m", "limit": 3, "wait_ms": 3000 }),
        );
        (!held.is_empty()).then_some(held)
    });
    for (to, first) in [
        (json!("beginning"), 0),
        (json!({ "last": 7 }), 93),
        (json!({ "channel": "orders:1", "offset": 51 }), 50),
    ] {
        server.api_result("queue/seek", &json!({ "group": "m", "to": to }));
        let given = until("what is sought", || {
            let given = fetch(&server, &json!({ "group": "m", "wait_ms": 3000 }));
            (!given.is_empty()).then_some(given)
        });
        assert_eq!(numbers(&given), [first], "{to}");
        assert_eq!(given[0]["attempt"], 1);
    }
    let old = server.api_result("queue/ack", &json!({ "delivery": held[0]["delivery"] }));
    assert_eq!(old["acked"], 0, "a delivery from before means nothing");
    let purged = server.api_result("queue/purge", &json!({ "group": "m" }));
    assert_eq!(purged["purged"], 50);
    assert!(fetch(&server, &json!({ "group": "m", "wait_ms": 100 })).is_empty());
    publish(&server, "orders:1", 100..101);
    let given = until("what comes next", || {
        let given = fetch(&server, &json!({ "group": "m", "wait_ms": 3000 }));
        (!given.is_empty()).then_some(given)
    });
    assert_eq!(numbers(&given), [100]);
    let workers = server.api_result("queue/workers", &json!({ "group": "m" }));
    assert_eq!(
        workers["workers"],
        json!([]),
        "a fetch that was answered takes nothing more"
    );
    kill(server);
}

fn history(server: &Server, channel: &str) -> Vec<(u64, u64)> {
    let page = server.api_result("history", &json!({ "channel": channel, "limit": 100 }));
    let list = page["publications"].as_array().cloned().unwrap_or_default();
    let pair = |one: &Value| Some((one["offset"].as_u64()?, one["data"]["n"].as_u64()?));
    list.iter()
        .map(|one| pair(one).expect("its numbers"))
        .collect()
}

fn publish_for(server: &Server, channel: &str, n: u64, ttl_ms: u64) {
    let publish = json!({ "channel": channel, "data": { "n": n }, "ttl_ms": ttl_ms });
    server.api_result("publish", &publish);
}

/// Offsets of what became letters because it was forgotten.
fn expired_letters(server: &Server, group: &str) -> Vec<u64> {
    let asked = json!({ "group": group, "class": "expired" });
    let list = server.api_result("dlq/list", &asked);
    let letters = list["letters"].as_array().expect("letters");
    let offset = |one: &Value| one["offset"].as_u64().expect("its place");
    letters.iter().map(offset).collect()
}

/// What has a time to live is gone when that is over, also over a kill: from history, and from groups, which count it or have a
/// letter of it. `orders:…` drops, `brief:…` makes letters.
pub(crate) fn publications_end_by_themselves(start: &dyn Fn() -> Server) {
    let server = start();
    let asked = |group: &str, channel: &str| json!({ "group": group, "channels": [channel], "limit": 10, "from": "beginning", "wait_ms": 300, "ack_wait_ms": 5000 });
    // Whoever does not wait does not hear of JetStream.
    let (drops, buries) = (asked("drops", "orders:*"), asked("buries", "brief:*"));
    for group in [&drops, &buries] {
        assert!(fetch(&server, group).is_empty());
    }
    for (n, ttl) in [(0, 0), (1, 400), (2, 0), (3, 3_600_000), (4, 400)] {
        publish_for(&server, "orders:1", n, ttl);
    }
    for (n, ttl) in [(5, 400), (6, 0)] {
        publish_for(&server, "brief:1", n, ttl);
    }
    let kept = [(1, 0), (3, 2), (4, 3)];
    let gone = || history(&server, "brief:1").len() == 1 && history(&server, "orders:1") == kept;
    until("their end", || gone().then_some(()));
    for (group, expected) in [(&drops, vec![0, 2, 3]), (&buries, vec![6])] {
        let mut given = Vec::new();
        until("what is left", || {
            given.extend(numbers(&fetch(&server, group)));
            (given == expected).then_some(())
        });
    }
    until("the losses", || {
        let has_lost = |name: &str| group(&server, name)["lost"].as_u64();
        let counted = has_lost("drops") == Some(2);
        let dead = server.metric(r#"ringmain_group_dead_total{group="buries"}"#);
        (counted && dead == 1.0).then_some(())
    });
    // Its end comes while nobody runs, for a group that nobody takes from.
    let copy = json!({ "group": "buries", "to": "idle" });
    server.api_result("queue/copy", &copy);
    publish_for(&server, "brief:1", 7, 300);
    kill(server);
    let server = start();
    until("its end", || {
        (history(&server, "brief:1").len() == 1).then_some(())
    });
    assert_eq!(history(&server, "orders:1"), kept);
    until("the letters", || {
        let found = fetch(&server, &asked("idle", "brief:*"));
        assert!(found.iter().all(|one| one["data"]["n"] == 6), "{found:?}");
        (expired_letters(&server, "idle") == [3]).then_some(())
    });
    assert_eq!(expired_letters(&server, "buries")[0], 1);
    let announced = json!({ "channel": "$dead:idle", "limit": 10 });
    let announced = server.api_result("history", &announced);
    let reasons = announced["publications"].as_array().expect("one");
    assert!(
        reasons.len() == 1 && reasons.iter().all(|one| one["data"]["reason"] == "expired"),
        "{announced}"
    );
    publish_for(&server, "orders:1", 8, 0);
    until("its place", || {
        (history(&server, "orders:1")[3..] == [(6, 8)]).then_some(())
    });
    let refused = json!({ "channel": "orders:1", "data": 1, "ttl_ms": 40_000_000_000u64 });
    let error = server.api("publish", &refused)["error"].take();
    assert_eq!(error["code"], 107, "{error}");
}

/// Namespaces keep less than the whole log, and groups say what they lose by it. `few:…` keeps three of each channel, `short:…`
/// everything for two seconds.
pub(crate) fn namespaces_keep_less(start: &dyn Fn() -> Server) {
    let server = start();
    let asked = |group: &str, channel: &str| json!({ "group": group, "channels": [channel], "limit": 100, "from": "beginning", "wait_ms": 300 });
    for (name, channel) in [
        ("few", "few:*"),
        ("short", "short:*"),
        ("other", "orders:*"),
    ] {
        let mut first = asked(&format!("{name}-first"), channel);
        first["wait_ms"] = json!(0);
        assert!(fetch(&server, &first).is_empty());
        // JetStream may give that one something yet, and nothing to those that were never asked for.
        let copy = json!({ "group": format!("{name}-first"), "to": name });
        server.api_result("queue/copy", &copy);
    }
    publish(&server, "orders:1", 0..4);
    publish(&server, "short:1", 0..5);
    publish(&server, "few:1", 0..10);
    publish(&server, "few:2", 0..2);
    let numbers_of = |server: &Server, channel: &str| -> Vec<u64> {
        history(server, channel).iter().map(|(_, n)| *n).collect()
    };
    until("what is kept", || {
        let few = numbers_of(&server, "few:1") == [7, 8, 9];
        (few && history(&server, "short:1").is_empty()).then_some(())
    });
    let lost = |server: &Server, name: &str| group(server, name)["lost"].as_u64();
    until("the losses", || {
        let counted = (lost(&server, "few"), lost(&server, "short")) == (Some(7), Some(5));
        let expired = |name: &str| {
            let metric = format!("ringmain_durable_expired_total{{namespace=\"{name}\"}}");
            server.metric(&metric)
        };
        (counted && (expired("few"), expired("short")) == (7.0, 5.0)).then_some(())
    });
    kill(server);
    let server = start();
    assert_eq!(numbers_of(&server, "few:1"), [7, 8, 9]);
    assert_eq!(numbers_of(&server, "few:2"), [0, 1]);
    assert_eq!(numbers_of(&server, "orders:1"), [0, 1, 2, 3]);
    assert!(history(&server, "short:1").is_empty());
    let mut given = Vec::new();
    until("what is left", || {
        given.extend(numbers(&fetch(&server, &asked("few", "few:*"))));
        given.sort_unstable();
        (given == [0, 1, 7, 8, 9]).then_some(())
    });
    until("the losses over the kill", || {
        let all = ["few", "short", "other"].map(|name| lost(&server, name));
        (all == [Some(7), Some(5), Some(0)]).then_some(())
    });
}

/// A group that has as much to do as it may have holds back whoever publishes for it, and nobody else, until it has caught up.
pub(crate) fn a_group_that_is_behind_holds_back_its_publishers(start: &dyn Fn() -> Server) {
    let mut server = start();
    let rules =
        json!({ "group": "b", "channels": ["orders:b*"], "lag_max": 10, "tags": { "do": "it" } });
    fetch(&server, &rules);
    let publish = |server: &Server, channel: &str, tags: Value| {
        server.api(
            "publish",
            &json!({ "channel": channel, "data": 1, "tags": tags }),
        )
    };
    let taken = json!({ "do": "it" });
    let fill = |server: &Server| -> usize {
        let mut published = 0;
        loop {
            let answer = publish(server, "orders:b1", taken.clone());
            match answer.get("error") {
                None => published += 1,
                Some(error) => {
                    assert_eq!(error["code"], 111, "{answer}");
                    assert!(error["retry_after_ms"].as_u64() > Some(0), "{answer}");
                    return published;
                }
            }
        }
    };
    assert_eq!(fill(&server), 10);
    for _ in 0..5 {
        // Neither another channel nor what the group does not take.
        assert!(
            publish(&server, "orders:c1", taken.clone())
                .get("error")
                .is_none()
        );
        assert!(
            publish(&server, "orders:b1", json!({}))
                .get("error")
                .is_none()
        );
    }
    let own = until("what it shows", || {
        Some(group(&server, "b")).filter(|own| own["held_back"] == 1)
    });
    assert_eq!(own["lag_max"], 10, "{own}");
    until("its number", || {
        (server.metric("ringmain_group_held_back_total") > 0.5).then_some(())
    });

    kill(server);
    server = start();
    let again = json!({ "group": "b", "limit": 4, "wait_ms": 5000 });
    let mut given = Vec::new();
    until("four of them", || {
        given.extend(fetch(&server, &again));
        (given.len() >= 4).then_some(())
    });
    until("what it has to do is known", || {
        let answer = publish(&server, "orders:b1", taken.clone());
        answer.get("error").map(|_| ())
    });
    for delivery in &given {
        server.api_result("queue/ack", &json!({ "delivery": delivery["delivery"] }));
    }
    until("room", || {
        let answer = publish(&server, "orders:b2", taken.clone());
        answer.get("error").is_none().then_some(())
    });
    let more = json!({ "group": "b", "channels": ["orders:b*"], "lag_max": 0, "update": true });
    fetch(&server, &more);
    for _ in 0..20 {
        assert!(
            publish(&server, "orders:b1", taken.clone())
                .get("error")
                .is_none()
        );
    }
    kill(server);
}
