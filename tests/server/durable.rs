//! Durable channels: what was acknowledged is there after a kill, subscribers recover beyond what memory keeps, workers get
//! each publication until they say that it is done.

use std::path::Path;

use serde_json::{Value, json};

use crate::support::client::Client;
use crate::support::process::{Server, Start, config};
use crate::support::token::{after, sign};
use crate::support::wait::until;

fn rules(directory: &Path, more: &str) -> String {
    config(&format!(
        r#"
[durable.embedded]
directory = "{}"

[[channel.namespaces]]
name = "orders"
delivery = "durable"
history_size = 8
history_ttl = "60s"
allow_subscribe_for_client = true
allow_publish_for_client = true
allow_history_for_client = true
{more}
"#,
        directory.display()
    ))
}

fn start(directory: &Path) -> Server {
    Start::with_config(&rules(directory, "")).shards(2).run()
}

fn data_of(publications: &Value) -> Vec<u64> {
    let list = publications.as_array().expect("publications");
    list.iter()
        .map(|one| one["data"]["n"].as_u64().expect("its number"))
        .collect()
}

#[test]
fn acknowledged_publication_survives_a_kill_and_its_key_too() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut server = start(directory.path());
    let mut epoch = String::new();
    for n in 1..=20 {
        let publish = json!({ "channel": "orders:1", "data": { "n": n }, "idempotency_key": format!("k{n}") });
        let result = server.api_result("publish", &publish);
        assert_eq!(result["offset"], n);
        epoch = result["epoch"].as_str().expect("an epoch").to_owned();
    }
    server.signal("KILL");
    server.exit_status();
    let server = start(directory.path());
    let all = server.api_result("history", &json!({ "channel": "orders:1", "limit": 100 }));
    assert_eq!(data_of(&all["publications"]), (1..=20).collect::<Vec<_>>());
    assert_eq!(all["epoch"], *epoch);
    let again = json!({ "channel": "orders:1", "data": { "n": 3 }, "idempotency_key": "k3" });
    assert_eq!(server.api_result("publish", &again)["offset"], 3);
    let next = json!({ "channel": "orders:1", "data": { "n": 21 } });
    assert_eq!(server.api_result("publish", &next)["offset"], 21);
}

#[test]
fn subscriber_recovers_everything_that_the_log_keeps_in_order_and_then_what_comes() {
    const ALL: u64 = 1500;
    let directory = tempfile::tempdir().expect("a directory");
    let server = start(directory.path());
    let commands: Vec<Value> = (1..=ALL)
        .map(|n| json!({ "publish": { "channel": "orders:1", "data": { "n": n } } }))
        .collect();
    for part in commands.chunks(500) {
        server.api("batch", &json!({ "commands": part }));
    }
    let top = server.api_result("history", &json!({ "channel": "orders:1" }));
    assert_eq!(top["offset"], ALL);
    let mut client = Client::user(&server, "42");
    let subscribe = json!({ "channel": "orders:1", "recoverable": true, "recover": true, "epoch": top["epoch"], "offset": 0 });
    let result = client.ok("subscribe", &subscribe);
    assert_eq!(result["recovered"], true);
    let mut seen = data_of(&result["publications"]);
    assert!(!seen.is_empty());
    server.api_result(
        "publish",
        &json!({ "channel": "orders:1", "data": { "n": ALL + 1 } }),
    );
    while (seen.len() as u64) <= ALL {
        let publication = client.publication("orders:1");
        seen.push(publication["data"]["n"].as_u64().expect("its number"));
    }
    assert_eq!(seen, (1..=ALL + 1).collect::<Vec<_>>());
}

#[test]
fn many_subscribers_that_recover_the_same_read_the_log_once() {
    let directory = tempfile::tempdir().expect("a directory");
    let server = start(directory.path());
    for n in 1..=100 {
        server.api_result(
            "publish",
            &json!({ "channel": "orders:1", "data": { "n": n } }),
        );
    }
    let epoch = server.api_result("history", &json!({ "channel": "orders:1" }))["epoch"].clone();
    let before = server.metric("ringmain_log_reads_total");
    let subscribe = json!({ "channel": "orders:1", "recoverable": true, "recover": true, "epoch": epoch, "offset": 10 });
    for user in 0..50 {
        let mut client = Client::user(&server, &format!("u{user}"));
        let result = client.ok("subscribe", &subscribe);
        assert_eq!(
            data_of(&result["publications"]),
            (11..=100).collect::<Vec<_>>()
        );
    }
    let reads = server.metric("ringmain_log_reads_total") - before;
    assert!(reads <= 2.0, "{reads} reads for 50 subscribers");
}

#[test]
fn every_answer_to_a_durable_publish_says_where_it_stands_and_what_it_is_called() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut server = start(directory.path());
    let mut client = Client::user(&server, "42");
    let publish = json!({ "method": "ringmain.publish", "data": {
        "channel": "orders:1", "data": { "n": 1 }, "key": "a", "tags": { "kind": "new" } } });
    let first = client.ok("rpc", &publish)["data"].clone();
    assert_eq!(first["offset"], 1);
    assert_eq!(first["event_id"].as_str().map(str::len), Some(36));
    let second = client.ok("rpc", &publish)["data"].clone();
    assert_eq!(second, first, "the same publication");
    let mut other = Client::user(&server, "43");
    let of_other = other.ok("rpc", &publish)["data"].clone();
    assert_eq!(of_other["offset"], 2, "a key belongs to its user");
    let same = json!({ "channel": "orders:1", "data": { "n": 1 }, "idempotency_key": "a" });
    let of_service = server.api_result("publish", &same);
    assert_eq!(of_service["offset"], 3, "and not to services");
    assert_eq!(server.api_result("publish", &same), of_service);
    let one = json!({ "channel": "orders:1", "data": { "n": 2 }, "idempotency_key": "b" });
    let batch = json!({ "commands": [{ "publish": one }, { "publish": one }] });
    let replies = server.api("batch", &batch)["replies"].clone();
    assert_eq!(replies[0], replies[1]);
    assert_eq!(
        replies[0]["publish"]["event_id"].as_str().map(str::len),
        Some(36)
    );
    let many = json!({ "channels": ["orders:1", "orders:2"], "data": { "n": 3 } });
    let many = server.api_result("broadcast", &many)["responses"].clone();
    for one in many.as_array().expect("responses") {
        assert_eq!(one["result"]["event_id"].as_str().map(str::len), Some(36));
    }
    server.signal("KILL");
    server.exit_status();
    let server = start(directory.path());
    assert_eq!(
        server.api_result("publish", &same),
        of_service,
        "and after a crash"
    );
    let mut client = Client::user(&server, "42");
    assert_eq!(client.ok("rpc", &publish)["data"], first);
    for bad in [
        json!({}),
        json!({ "channel": "orders:1" }),
        json!({ "channel": "orders:1", "data": 1, "unknown": 1 }),
    ] {
        let code = client.error("rpc", &json!({ "method": "ringmain.publish", "data": bad }));
        assert_eq!(code, 107, "{bad}");
    }
    let code = client.error("rpc", &json!({ "method": "ringmain.nothing", "data": {} }));
    assert_eq!(code, 104);
}

fn worker(server: &Server) -> Client {
    let claims = json!({ "sub": "w", "exp": after(600), "consume": { "billing*": ["orders:*"] } });
    Client::with_token(server, &sign(&claims))
}

fn rpc(client: &mut Client, method: &str, data: &Value) -> Value {
    client.ok("rpc", &json!({ "method": method, "data": data }))["data"].clone()
}

fn delivery(client: &mut Client) -> Value {
    client.push()["message"]["data"].clone()
}

fn publish(server: &Server, n: u64) {
    server.api_result(
        "publish",
        &json!({ "channel": "orders:1", "data": { "n": n } }),
    );
}

#[test]
fn worker_that_goes_leaves_its_deliveries_to_others_without_counting_an_attempt() {
    let directory = tempfile::tempdir().expect("a directory");
    let server = start(directory.path());
    let consume = json!({ "group": "billing", "channels": ["orders:*"], "credit": 1 });
    let mut first = worker(&server);
    rpc(&mut first, "ringmain.consume", &consume);
    publish(&server, 1);
    let had = delivery(&mut first);
    assert_eq!(had["attempt"], 1);
    drop(first);
    let mut second = worker(&server);
    rpc(&mut second, "ringmain.consume", &consume);
    let got = delivery(&mut second);
    assert_eq!(got["event_id"], had["event_id"]);
    assert_eq!(got["attempt"], 1, "its going was no attempt");
    let acked = rpc(
        &mut second,
        "ringmain.ack",
        &json!({ "delivery": got["delivery"] }),
    );
    assert_eq!(acked["acked"], 1);
    let foreign = rpc(
        &mut second,
        "ringmain.ack",
        &json!({ "delivery": had["delivery"] }),
    );
    assert_eq!(foreign["acked"], 0);
}

#[test]
fn publication_that_fails_too_often_becomes_a_dead_letter_and_can_be_tried_again() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut server = start(directory.path());
    let consume = json!({ "group": "billing", "channels": ["orders:*"], "credit": 4, "max_attempts": 2,
        "backoff": { "base_ms": 10, "jitter": 0.0 } });
    let mut client = worker(&server);
    rpc(&mut client, "ringmain.consume", &consume);
    publish(&server, 1);
    let mut event = Value::Null;
    for attempt in 1..=2 {
        let got = delivery(&mut client);
        assert_eq!(got["attempt"], attempt);
        event = got["event_id"].clone();
        let nak = json!({ "delivery": got["delivery"], "reason": format!("broken {attempt}") });
        rpc(&mut client, "ringmain.nak", &nak);
    }
    let letters = until("a dead letter", || {
        let list = server.api_result("dlq/list", &json!({ "group": "billing" }));
        let letters = list["letters"].as_array().cloned().unwrap_or_default();
        (!letters.is_empty()).then_some(letters)
    });
    assert_eq!(letters.len(), 1);
    let letter = &letters[0];
    assert_eq!(
        (&letter["event_id"], &letter["channel"]),
        (&event, &json!("orders:1"))
    );
    let reasons: Vec<&str> = letter["failures"]
        .as_array()
        .expect("its history")
        .iter()
        .filter_map(|failure| failure["reason"].as_str())
        .collect();
    assert_eq!(reasons, ["broken 1", "broken 2"]);
    // It outlives the process, and is worked off once it is tried again. (One that is killed before the group's settlements are stored
    // makes the letter again.)
    server.signal("TERM");
    server.exit_status();
    let server = start(directory.path());
    let one = json!({ "group": "billing", "event_id": event });
    assert_eq!(server.api_result("dlq/show", &one)["data"]["n"], 1);
    let mut client = worker(&server);
    rpc(&mut client, "ringmain.consume", &consume);
    assert_eq!(server.api_result("dlq/retry", &one)["retried"], 1);
    let got = delivery(&mut client);
    assert_eq!(
        (&got["event_id"], &got["channel"], &got["offset"]),
        (&event, &json!("orders:1"), &json!(1))
    );
    rpc(
        &mut client,
        "ringmain.ack",
        &json!({ "delivery": got["delivery"] }),
    );
    assert_eq!(server.api_error("dlq/show", &one), 104);
}

#[test]
fn token_says_what_may_be_consumed() {
    let directory = tempfile::tempdir().expect("a directory");
    let server = start(directory.path());
    let consume = |client: &mut Client, group: &str, channel: &str| {
        let data = json!({ "group": group, "channels": [channel] });
        client.error(
            "rpc",
            &json!({ "method": "ringmain.consume", "data": data }),
        )
    };
    let mut client = worker(&server);
    assert_eq!(consume(&mut client, "other", "orders:*"), 103);
    assert_eq!(consume(&mut client, "billing", "*"), 103);
    assert_eq!(consume(&mut client, "billing", "logs:*"), 103);
    let mut none = Client::user(&server, "42");
    assert_eq!(consume(&mut none, "billing", "orders:1"), 103);
}

#[test]
fn trigger_appends_to_another_durable_channel() {
    let directory = tempfile::tempdir().expect("a directory");
    let more = r#"
[[channel.namespaces.triggers]]
name = "bill"
condition = "n = 2"
append = "bills:{rest}"

[[channel.namespaces]]
name = "bills"
delivery = "durable"
"#;
    let server = Start::with_config(&rules(directory.path(), more))
        .shards(2)
        .run();
    for n in 1..=3 {
        publish(&server, n);
    }
    let bills = until("a bill", || {
        let all = server.api_result("history", &json!({ "channel": "bills:1", "limit": 10 }));
        let list = all["publications"].as_array().cloned().unwrap_or_default();
        (!list.is_empty()).then_some(all)
    });
    assert_eq!(data_of(&bills["publications"]), [2]);
}

#[test]
fn what_is_published_once_more_must_fit_the_namespace_that_it_goes_to() {
    let directory = tempfile::tempdir().expect("a directory");
    let more = r#"
[[channel.namespaces]]
name = "lists"
delivery = "durable"
publication_data_format = "json_object"
size_max = 8
history_size = 8
history_ttl = "60s"
"#;
    let server = Start::with_config(&rules(directory.path(), more))
        .shards(2)
        .run();
    for n in [1, 1_000_000, 2] {
        publish(&server, n);
    }
    let ask = json!({ "channels": ["orders:1"], "into": { "channel": "lists:1" } });
    let page = server.api_result("replay", &ask);
    assert_eq!((&page["stored"], &page["refused"]), (&json!(2), &json!(1)));
    let reason = page["reason"].as_str().expect("why one is refused");
    assert!(
        reason.contains("namespace `lists`: data: expected at most 8 bytes"),
        "{reason}"
    );
    let ask = json!({ "channel": "lists:1", "limit": 10 });
    let kept = until("the others", || {
        let all = server.api_result("history", &ask);
        let list = all["publications"].as_array().cloned().unwrap_or_default();
        (list.len() == 2).then_some(all)
    });
    assert_eq!(data_of(&kept["publications"]), [1, 2]);
}

#[test]
fn second_process_is_refused_the_directory() {
    let directory = tempfile::tempdir().expect("a directory");
    let _first = start(directory.path());
    let text = rules(directory.path(), "");
    let own = tempfile::tempdir().expect("a directory");
    std::fs::write(own.path().join("ringmain.toml"), text).expect("written");
    let mut second = crate::support::process::binary(own.path())
        .args(["serve", "--listen", "127.0.0.1:0"])
        .env("RINGMAIN__ADMIN__LISTEN", "")
        .spawn()
        .expect("the binary");
    let status = until("its end", || second.try_wait().expect("a child"));
    assert_eq!(status.code(), Some(1));
    let log = crate::support::process::read_log(own.path());
    assert!(
        log.contains(&directory.path().display().to_string()),
        "{log}"
    );
}
