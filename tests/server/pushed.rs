//! Queue groups whose deliveries are posted to a target (`[[queue.push]]`): see also `support/push`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::backend::{Asked, Backend, Reply};
use crate::support::groups::{fetch, publish};
use crate::support::process::{Server, Start, free_port};
use crate::support::push::{
    PUSH, all_done, deliveries, every_delivery_is_posted_until_it_is_taken, group, rules, start,
};
use crate::support::wait::{now, until};

const LOG: &str = "[durable.embedded]\ndirectory = \"events\"";

fn letters(server: &Server) -> Vec<Value> {
    let mut found = server.api_result("dlq/list", &json!({}));
    match found["letters"].take() {
        Value::Array(letters) => letters,
        other => panic!("{other}"),
    }
}

#[test]
fn every_delivery_is_posted_until_the_target_has_taken_it() {
    let directory = tempfile::tempdir().expect("a directory");
    let log = format!(
        "[durable.embedded]\ndirectory = \"{}\"",
        directory.path().display()
    );
    every_delivery_is_posted_until_it_is_taken(&log, "KILL");
}

#[test]
fn body_is_the_delivery_as_workers_get_it_and_a_4xx_is_a_nak_with_its_body_as_reason() {
    let backend = Backend::start(|_| Reply::Full(422, String::new(), "no price".to_owned()));
    let push = format!("{PUSH}max_attempts = 2\n");
    let server = start(&rules(LOG, &backend, &push));
    server.api_result(
        "publish",
        &json!({ "channel": "orders:1", "data": { "n": 1 }, "tags": { "a": "b" }, "idempotency_key": "k" }),
    );
    let first = backend.asked();
    assert_eq!(first.path, "/work");
    for (member, value) in [
        ("group", json!("pushed")),
        ("attempt", json!(1)),
        ("channel", json!("orders:1")),
        ("offset", json!(1)),
        ("key", json!("k")),
        ("tags", json!({ "a": "b" })),
        ("data", json!({ "n": 1 })),
    ] {
        assert_eq!(first.body[member], value, "{member}");
    }
    let second = backend.asked();
    assert_eq!(second.body["attempt"], 2);
    assert_eq!(second.body["event_id"], first.body["event_id"]);
    let letter = until("a dead letter", || letters(&server).pop());
    assert_eq!(letter["reason"], "status 422: no price");
    assert_eq!(letter["attempts"], 2);
}

#[test]
fn answer_to_a_batch_names_what_is_not_done_and_the_rest_is() {
    let backend = Backend::start(|asked: &Asked| {
        let failed: Vec<Value> = deliveries(asked)
            .iter()
            .filter(|one| one["data"]["n"].as_u64().is_some_and(|n| n % 10 == 3))
            .map(|one| json!({ "event_id": one["event_id"], "reason": "odd", "delay_ms": 1 }))
            .collect();
        Reply::Json(json!({ "failed": failed }))
    });
    let push = format!("{PUSH}max_attempts = 2\nbatch = 20\nconcurrency = 1\n");
    let text = rules(LOG, &backend, "");
    let server = start(&text);
    publish(&server, "orders:1", 0..100);
    server.write_config(&rules(LOG, &backend, &push));
    server.signal("HUP");
    all_done(&server, 90);
    let dead = until("the letters", || {
        let dead = letters(&server);
        (dead.len() == 10).then_some(dead)
    });
    for letter in dead {
        assert_eq!(letter["reason"], "odd");
    }
    let calls = backend.unread();
    let most = calls.iter().map(|asked| deliveries(asked).len()).max();
    assert_eq!(most, Some(20));
    assert!(
        calls
            .iter()
            .all(|asked| asked.body["deliveries"].is_array()),
        "a batch of one is a batch"
    );
}

#[test]
fn target_that_is_not_there_costs_no_attempt_and_stops_no_other() {
    let there = Backend::start(|_| Reply::Status(200));
    let address = free_port();
    let second = format!(
        "[[proxies]]\nname = \"away\"\nendpoint = \"http://{address}/away\"\nbreaker.open_for = \"300ms\"\n{}{PUSH}",
        "[[queue.push]]\ngroup = \"away\"\nchannels = [\"orders:*\"]\ntarget = \"away\"\nmax_attempts = 1\n"
    );
    let server = start(&rules(LOG, &there, &second));
    publish(&server, "orders:1", 0..50);
    all_done(&server, 50);
    until("the breaker is open, or was", || {
        (server.metric("ringmain_hook_failures_total") >= 5.0).then_some(())
    });
    let back = Backend::start_at(address, |_| Reply::Status(200));
    let mut first_attempts = 0;
    for _ in 0..50 {
        assert_eq!(back.asked().body["attempt"], 1);
        first_attempts += 1;
    }
    assert_eq!(first_attempts, 50);
    assert_eq!(letters(&server), Vec::<Value>::new());
}

#[test]
fn retry_after_is_obeyed_and_429_costs_no_attempt() {
    let is_busy = Arc::new(AtomicBool::new(true));
    let backend = {
        let is_busy = Arc::clone(&is_busy);
        Backend::start(move |_| match is_busy.swap(false, Ordering::SeqCst) {
            true => Reply::Full(429, "Retry-After: 2\r\n".to_owned(), String::new()),
            false => Reply::Status(200),
        })
    };
    let push = format!("{PUSH}max_attempts = 1\nconcurrency = 1\n");
    let server = start(&rules(LOG, &backend, &push));
    publish(&server, "orders:1", 0..1);
    backend.asked();
    let refused = now();
    publish(&server, "orders:1", 1..2);
    assert_eq!(backend.asked().body["attempt"], 1);
    assert!(refused.elapsed() >= Duration::from_millis(1900));
    all_done(&server, 2);
    assert_eq!(letters(&server), Vec::<Value>::new());
}

#[test]
fn concurrency_bounds_the_calls_under_way() {
    let (under_way, most) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let backend = {
        let (under_way, most) = (Arc::clone(&under_way), Arc::clone(&most));
        Backend::start(move |_| {
            let calls = under_way.fetch_add(1, Ordering::SeqCst) + 1;
            most.fetch_max(calls, Ordering::SeqCst);
            std::thread::yield_now();
            under_way.fetch_sub(1, Ordering::SeqCst);
            Reply::Status(200)
        })
    };
    let push = format!("{PUSH}concurrency = 3\n");
    let server = start(&rules(LOG, &backend, &push));
    publish(&server, "orders:1", 0..300);
    all_done(&server, 300);
    assert!((1..=3).contains(&most.load(Ordering::SeqCst)));
}

#[test]
fn reload_adds_changes_and_removes_push_rules() {
    let backend = Backend::start(|_| Reply::Status(200));
    let none = rules(LOG, &backend, "");
    let server = start(&none);
    let reload = |text: &str| {
        server.write_config(text);
        server.signal("HUP");
    };
    publish(&server, "orders:1", 0..1);
    reload(&rules(LOG, &backend, PUSH));
    assert_eq!(backend.asked().body["data"]["n"], 0);
    let error = server.api("queue/delete", &json!({ "group": "pushed" }))["error"].take();
    let message = error["message"].as_str().expect("a message");
    assert!(message.contains("queue.push"), "{message}");
    reload(&rules(LOG, &backend, &format!("{PUSH}batch = 5\n")));
    until("the batch", || {
        publish(&server, "orders:1", 1..2);
        let calls = backend.unread();
        calls
            .iter()
            .any(|asked| asked.body["deliveries"].is_array())
            .then_some(())
    });
    reload(&none);
    until("nobody takes", || {
        (group(&server)?["workers"] == 0).then_some(())
    });
    // The group is one like others: it goes on where it was.
    publish(&server, "orders:1", 70..71);
    let request = json!({ "group": "pushed", "limit": 10, "wait_ms": 5000 });
    let given = until("what nobody pushes", || {
        let given = fetch(&server, &request);
        given.iter().find(|one| one["data"]["n"] == 70).cloned()
    });
    server.api_result("queue/ack", &json!({ "delivery": given["delivery"] }));
    server.api_result("queue/delete", &json!({ "group": "pushed" }));
}

#[test]
fn push_rule_that_cannot_be_is_refused_with_what_is_missing() {
    let backend = Backend::start(|_| Reply::Status(200));
    for (push, wanted) in [
        ("channels = [\"orders:*\"]\ntarget = \"work\"", "group"),
        ("group = \"a\"\ntarget = \"work\"", "channels"),
        (
            "group = \"a\"\nchannels = [\"chat:*\"]\ntarget = \"work\"",
            "durable",
        ),
        (
            "group = \"a\"\nchannels = [\"orders:*\"]\ntarget = \"none\"",
            "endpoint of `none`",
        ),
        (
            "group = \"a\"\nchannels = [\"orders:*\"]\ntarget = \"work\"\nkey = \"tag\"",
            "tag:NAME",
        ),
        (
            "group = \"a\"\nchannels = [\"orders:*\"]\ntarget = \"work\"\nkey_rate = 5",
            "key",
        ),
        (
            "group = \"a\"\nchannels = [\"orders:*\"]\ntarget = \"work\"\nbatch = 101",
            "batch",
        ),
        (
            "group = \"a\"\nchannels = [\"orders:*\"]\ntarget = \"work\"\ncondition = \"a b\"",
            "condition",
        ),
        (
            "group = \"a\"\nchannels = [\"orders:*\"]\ntarget = \"work\"\nlanes = { by = \"tag:p\", weights = [1, 2] }",
            "four weights",
        ),
        (
            "group = \"a\"\nchannels = [\"orders:*\"]\ntarget = \"work\"\nlanes.weights = [1, 1, 1, 2]",
            "lanes.by",
        ),
        (
            "group = \"a\"\nchannels = [\"orders:*\"]\ntarget = \"work\"\ntags = { shop = 1 }",
            "tags.shop",
        ),
    ] {
        let text = rules(LOG, &backend, &format!("[[queue.push]]\n{push}\n"));
        let (_, printed) = Start::with_config(&text).refused();
        assert!(
            printed.contains("queue.push[0]") && printed.contains(wanted),
            "{push}: {printed}"
        );
    }
}

#[test]
fn pushes_are_signed_and_counted_with_their_target() {
    let backend = Backend::start(|_| Reply::Status(200));
    let secret = "[hooks]\nsignature_secret = \"secret-of-hooks-0123456789-0123456789\"\n";
    let server = start(&rules(LOG, &backend, &format!("{secret}{PUSH}")));
    publish(&server, "orders:1", 0..5);
    all_done(&server, 5);
    let calls = backend.unread();
    assert_eq!(calls.len(), 5);
    for call in &calls {
        let signature = call.header("X-Ringmain-Signature").expect("a signature");
        assert!(signature.starts_with("t="), "{signature}");
        assert_eq!(call.header("Content-Type"), Some("application/json"));
    }
    until("the calls are counted", || {
        (server.metric("ringmain_hook_calls_total") >= 5.0).then_some(())
    });
}

#[test]
fn rule_takes_what_has_its_tags_and_urgent_ones_first() {
    let backend = Backend::start(|_| Reply::Status(200));
    let server = start(&rules(LOG, &backend, ""));
    for n in 0..30 {
        let shop = if n % 3 == 0 { "south" } else { "north" };
        let priority = if n < 20 { "0" } else { "3" };
        let tags = json!({ "shop": shop, "priority": priority });
        let publish = json!({ "channel": "orders:1", "data": { "n": n }, "tags": tags });
        server.api_result("publish", &publish);
    }
    let more = "concurrency = 1\ntags = { shop = \"north\" }\n\
        lanes = { by = \"tag:priority\", weights = [1, 1, 1, 100] }\n";
    server.write_config(&rules(LOG, &backend, &format!("{PUSH}{more}")));
    server.signal("HUP");
    all_done(&server, 20);
    let posted = backend.unread();
    let numbers: Vec<u64> = posted
        .iter()
        .filter_map(|asked| asked.body["data"]["n"].as_u64())
        .collect();
    let urgent = numbers[..8].iter().filter(|n| **n >= 20);
    assert_eq!(urgent.count(), 7, "{numbers:?}");
    let mut all = numbers.clone();
    all.sort_unstable();
    let wanted: Vec<u64> = (0..30).filter(|n| n % 3 != 0).collect();
    assert_eq!(all, wanted);
}
