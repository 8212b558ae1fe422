//! Dead letters from outside: whoever has to know of one does, whatever is down meanwhile, and an operator has them in hand.

use std::net::SocketAddr;
use std::path::Path;

use serde_json::{Value, json};

use crate::support::backend::{Backend, Reply};
use crate::support::client::Client;
use crate::support::process::{API_KEY, Server, Start, binary, config, free_port, read_log};
use crate::support::token::{after, sign};
use crate::support::wait::until;

/// The part of a configuration that names the log.
fn embedded(directory: &Path) -> String {
    format!(
        "[durable.embedded]\ndirectory = \"{}\"\n",
        directory.display()
    )
}

fn rules_of(log: &str, more: &str) -> String {
    let namespace = "[[channel.namespaces]]\nname = \"orders\"\ndelivery = \"durable\"\n";
    config(&format!("{log}\n{namespace}\n{more}"))
}

fn rules(directory: &Path, more: &str) -> String {
    rules_of(&embedded(directory), more)
}

fn with_hook(address: SocketAddr) -> String {
    format!(
        "[[proxies]]\nname = \"ops\"\nendpoint = \"http://{address}/dead\"\n[queue]\ndead_letter_hook = \"ops\"\n"
    )
}

fn start_with(log: &str, more: &str) -> Server {
    Start::with_config(&rules_of(log, more)).shards(2).run()
}

fn start(directory: &Path, more: &str) -> Server {
    start_with(&embedded(directory), more)
}

/// Lets so many publications of a channel become dead letters; gives their event ids.
fn die(server: &Server, group: &str, channel: &str, reason: &str, count: usize) -> Vec<Value> {
    for n in 0..count {
        let key = format!("{}-{n}", server.pid());
        let publish = json!({ "channel": channel, "data": { "n": n }, "idempotency_key": key });
        // A log in JetStream is connected to a moment after the start.
        until("a publication", || {
            server.api("publish", &publish).get("result").cloned()
        });
    }
    let fetch = json!({ "group": group, "channels": ["orders:*"], "ordered": true, "max_attempts": 1,
        "limit": count, "wait_ms": 5000 });
    let mut events = Vec::new();
    while events.len() < count {
        let got = server.api_result("queue/fetch", &fetch);
        for given in got["deliveries"].as_array().expect("deliveries") {
            events.push(given["event_id"].clone());
            let nak = json!({ "delivery": given["delivery"], "reason": reason });
            assert_eq!(server.api_result("queue/nak", &nak)["naked"], 1);
        }
    }
    events
}

fn letters(server: &Server, asked: &Value) -> Vec<Value> {
    let list = server.api_result("dlq/list", asked);
    list["letters"].as_array().cloned().unwrap_or_default()
}

fn announced(server: &Server, group: &str) -> Vec<Value> {
    let asked = json!({ "channel": format!("$dead:{group}"), "limit": 1000 });
    let history = server.api_result("history", &asked);
    let all = history["publications"].as_array().cloned();
    let data = all.unwrap_or_default();
    data.iter().map(|one| one["data"].clone()).collect()
}

fn told_in_order_through_a_kill(log: &str) {
    let address = free_port();
    let more = with_hook(address);
    let mut server = start_with(log, &more);
    let events = die(&server, "billing", "orders:1", "no", 3);
    // Nobody listens there: it has been called more often than it used to be.
    until("six calls that failed", || {
        let failed = server.log().matches("could not be told yet").count();
        (failed >= 6).then_some(())
    });
    server.signal("KILL");
    server.exit_status();
    let server = start_with(log, &more);
    until("its call after the kill", || {
        let failed = server.log().contains("could not be told yet");
        failed.then_some(())
    });
    let backend = Backend::start_at(address, |_| Reply::result(json!({})));
    let mut told = Vec::new();
    while told.len() < events.len() {
        let asked = backend.asked();
        assert_eq!(asked.path, "/dead");
        assert_eq!(asked.body["group"], "billing");
        assert_eq!(asked.body["reason"], "no");
        if told.last() != Some(&asked.body["event_id"]) {
            told.push(asked.body["event_id"].clone());
        }
    }
    assert_eq!(told, events);
    assert_eq!(announced(&server, "billing").len(), 3);
}

#[test]
fn hook_that_is_away_for_longer_than_five_calls_and_through_a_kill_is_told_in_order() {
    let directory = tempfile::tempdir().expect("a directory");
    told_in_order_through_a_kill(&embedded(directory.path()));
}

#[cfg(feature = "nats")]
fn jetstream(nats: &crate::nats_server::NatsServer) -> String {
    let url = nats.url();
    format!("[durable]\nengine = \"nats\"\n[durable.nats]\nservers = [\"{url}\"]\n")
}

#[cfg(feature = "nats")]
#[test]
fn hook_is_told_in_order_through_a_kill_from_jetstream_too() {
    let nats = crate::nats_server::NatsServer::start();
    told_in_order_through_a_kill(&jetstream(&nats));
}

fn killed_right_after_letters(log: &str, lives: usize) {
    let backend = Backend::start(|_| Reply::result(json!({})));
    let more = with_hook(backend.address);
    for life in 1..=lives {
        let mut server = start_with(log, &more);
        let event = die(&server, "billing", "orders:1", "no", 1).remove(0);
        until("the letter", || {
            let all = letters(&server, &json!({ "group": "billing" }));
            (all.len() == life).then_some(())
        });
        server.signal("KILL");
        server.exit_status();
        let mut server = start_with(log, &more);
        // Told before or after the kill; perhaps twice, but of this letter.
        while backend.asked().body["event_id"] != event {}
        let marker = json!({ "channel": "orders:1", "data": { "n": "marker" } });
        until("a publication", || {
            server.api("publish", &marker).get("result").cloned()
        });
        let fetch = json!({ "group": "billing", "limit": 10, "wait_ms": 5000 });
        let got = until("what is behind it", || {
            let got = server.api("queue/fetch", &fetch);
            let all = got["result"]["deliveries"].as_array().cloned()?;
            (!all.is_empty()).then_some(all)
        });
        assert!(
            got.iter().all(|given| given["data"]["n"] == "marker"),
            "life {life}: the letter's event does not come again: {got:?}"
        );
        for given in &got {
            let ack = json!({ "delivery": given["delivery"] });
            assert_eq!(server.api_result("queue/ack", &ack)["acked"], 1);
        }
        let said = announced(&server, "billing");
        assert_eq!(said.len(), life, "announced once each");
        server.signal("TERM");
        server.exit_status();
    }
}

#[test]
fn kill_right_after_a_letter_loses_no_alert_and_the_event_does_not_come_again() {
    let directory = tempfile::tempdir().expect("a directory");
    killed_right_after_letters(&embedded(directory.path()), 4);
}

#[cfg(feature = "nats")]
#[test]
fn kill_right_after_a_letter_loses_no_alert_from_jetstream_either() {
    let nats = crate::nats_server::NatsServer::start();
    killed_right_after_letters(&jetstream(&nats), 2);
}

/// The letter of the last attempt is kept, or the event comes again: never both, whenever the process is killed.
fn killed_within_moments_of_the_last_nak(log: &str, lives: usize) {
    let fetch = json!({ "group": "billing", "limit": 1, "wait_ms": 5000 });
    for life in 0..lives {
        let mut server = start_with(log, "");
        let events = die(&server, "billing", "orders:1", "no", 3);
        // Without a wait: the last letter is under way.
        server.signal("KILL");
        server.exit_status();
        let mut server = start_with(log, "");
        let marker = json!({ "channel": "orders:1", "data": { "n": "marker" } });
        until("a publication", || {
            server.api("publish", &marker).get("result").cloned()
        });
        let mut again = Vec::new();
        loop {
            let got = until("a delivery", || {
                let got = server.api("queue/fetch", &fetch);
                got["result"]["deliveries"].get(0).cloned()
            });
            let ack = json!({ "delivery": got["delivery"] });
            assert_eq!(server.api_result("queue/ack", &ack)["acked"], 1);
            if got["data"]["n"] == "marker" {
                break;
            }
            again.push(got["event_id"].clone());
        }
        // What was before the marker in its channel is done or dead by now.
        for event in &events {
            let one = json!({ "group": "billing", "event_id": event });
            let is_letter = server.api("dlq/show", &one)["result"].is_object();
            assert_ne!(
                is_letter,
                again.contains(event),
                "life {life}: {event} of {events:?}, again: {again:?}"
            );
        }
        let kept = letters(&server, &json!({ "limit": 1000 })).len();
        assert_eq!(announced(&server, "billing").len(), kept, "life {life}");
        server.signal("TERM");
        server.exit_status();
    }
}

#[test]
fn kill_within_moments_of_the_last_nak_leaves_the_letter_or_the_event() {
    let directory = tempfile::tempdir().expect("a directory");
    killed_within_moments_of_the_last_nak(&embedded(directory.path()), 8);
}

#[cfg(feature = "nats")]
#[test]
fn kill_within_moments_of_the_last_nak_leaves_the_letter_or_the_event_in_jetstream() {
    let nats = crate::nats_server::NatsServer::start();
    killed_within_moments_of_the_last_nak(&jetstream(&nats), 2);
}

#[test]
fn announcements_are_read_replayed_and_consumed_by_those_who_may_and_published_by_nobody() {
    let directory = tempfile::tempdir().expect("a directory");
    let server = start(directory.path(), "");
    let sub = json!({ "sub": "ops", "channel": "$dead:billing", "exp": after(600) });
    let claims = json!({ "sub": "ops", "exp": after(600), "consume": { "alerts": ["$dead:*"], "greedy": ["*"] } });
    let mut client = Client::with_token(&server, &sign(&claims));
    assert_eq!(
        client.error("subscribe", &json!({ "channel": "$dead:billing" })),
        103
    );
    client.ok(
        "subscribe",
        &json!({ "channel": "$dead:billing", "token": sign(&sub) }),
    );
    let events = die(&server, "billing", "orders:1", "no", 2);
    for (at, event) in events.iter().enumerate() {
        let publication = client.publication("$dead:billing");
        assert_eq!(publication["data"]["event_id"], *event);
        assert_eq!(publication["offset"], at as u64 + 1);
    }
    assert_eq!(announced(&server, "billing").len(), 2);
    let replay = server.api_result("replay", &json!({ "channels": ["$dead:*"] }));
    assert_eq!(replay["events"].as_array().map(Vec::len), Some(2));
    let everything = server.api_result("replay", &json!({ "channels": ["*"] }));
    assert_eq!(everything["events"].as_array().map(Vec::len), Some(2));
    assert_eq!(everything["events"][0]["channel"], "orders:1");
    let consume = json!({ "method": "ringmain.fetch", "data": { "group": "alerts", "channels": ["$dead:*"], "limit": 2, "wait_ms": 5000 } });
    let got = client.ok("rpc", &consume)["data"].clone();
    assert_eq!(got["deliveries"][0]["channel"], "$dead:billing");
    let greedy = json!({ "method": "ringmain.fetch", "data": { "group": "greedy", "channels": ["$dead:*"] } });
    assert_eq!(client.error("rpc", &greedy), 103);
    let publish = json!({ "channel": "$dead:billing", "data": {} });
    assert!(server.api("publish", &publish)["error"].is_object());
    assert!(client.error("publish", &publish) > 0);
    assert_eq!(announced(&server, "billing").len(), 2);
}

#[test]
fn letters_that_exist_are_counted_over_restarts_and_go_by_their_own_retention() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut server = start(directory.path(), "");
    die(&server, "billing", "orders:1", "no", 3);
    let gauge = "ringmain_dead_letters{group=\"billing\",class=\"failed\"}";
    let seen = |server: &Server, count: f64| {
        until("the gauge", || {
            (server.metric(gauge) == count).then_some(())
        });
    };
    seen(&server, 3.0);
    server.signal("TERM");
    server.exit_status();
    let server = start(directory.path(), "");
    seen(&server, 3.0);
    let groups = server.api_result("queue/groups", &json!({}));
    assert_eq!(groups["groups"][0]["letters"], 3);
    assert_eq!(groups["groups"][0]["dead"], 0, "since this start");
    server.write_config(&rules(directory.path(), "[queue]\ndead_letters_max = 1\n"));
    server.signal("HUP");
    seen(&server, 1.0);
    assert_eq!(server.metric("ringmain_dead_letters_expired_total"), 2.0);
    until("a line about it", || {
        let log = server.log();
        log.contains("dead letters were forgotten").then_some(())
    });
    assert_eq!(letters(&server, &json!({})).len(), 1);
}

#[test]
fn operator_lists_retries_and_drops_what_the_options_mean() {
    let directory = tempfile::tempdir().expect("a directory");
    let server = start(directory.path(), "");
    let one = die(&server, "billing", "orders:1", "card declined", 2);
    die(&server, "billing", "orders:2", "no price", 2);
    until("all letters", || {
        (letters(&server, &json!({})).len() == 4).then_some(())
    });
    let address = server.listen.to_string();
    let run = |arguments: &[&str]| {
        let own = tempfile::tempdir().expect("a directory");
        let mut command = binary(own.path());
        command
            .args(arguments)
            .args(["--address", &address, "--api-key", API_KEY]);
        let status = command.status().expect("the binary starts");
        (status.code(), read_log(own.path()))
    };
    let (status, said) = run(&["dlq", "list", "--reason", "declined"]);
    assert_eq!(status, Some(0), "{said}");
    assert_eq!(said.matches("card declined").count(), 2, "{said}");
    assert!(said.contains("billing: 4 in all, failed 4"), "{said}");
    let (status, said) = run(&[
        "dlq",
        "drop",
        "--group",
        "billing",
        "--all",
        "--channel",
        "orders:2",
    ]);
    assert_eq!(
        (status, said.contains("2 dead letters of billing dropped")),
        (Some(0), true),
        "{said}"
    );
    let (status, said) = run(&[
        "dlq", "drop", "--group", "billing", "--all", "--class", "loop",
    ]);
    assert_eq!(
        (status, said.contains("no such dead letters")),
        (Some(1), true),
        "{said}"
    );
    let event = one[0].as_str().expect("an id");
    let (status, said) = run(&[
        "dlq",
        "retry",
        "--group",
        "billing",
        event,
        "--data",
        r#"{"n":7}"#,
    ]);
    assert_eq!(status, Some(0), "{said}");
    let fetch = json!({ "group": "billing", "wait_ms": 5000 });
    let got = server.api_result("queue/fetch", &fetch);
    assert_eq!(got["deliveries"][0]["data"], json!({ "n": 7 }));
    assert_eq!(got["deliveries"][0]["event_id"], event);
    server.api_result("queue/delete", &json!({ "group": "billing" }));
    let (status, said) = run(&["dlq", "retry", "--group", "billing", "--all"]);
    assert_eq!(
        (status, said.contains("to_group")),
        (Some(1), true),
        "{said}"
    );
    let (status, said) = run(&[
        "dlq",
        "retry",
        "--group",
        "billing",
        "--all",
        "--to-channel",
        "orders:9",
    ]);
    assert_eq!(
        (status, said.contains("put onto orders:9")),
        (Some(0), true),
        "{said}"
    );
    assert!(letters(&server, &json!({})).is_empty());
    for nothing in [
        &["dlq", "list", "--class", "other"][..],
        &["dlq", "retry", "--group", "nope", "--all"],
        &["dlq", "drop", "--group", "nope", "--all"],
    ] {
        let (status, said) = run(nothing);
        assert_eq!(status, Some(1), "{nothing:?}: {said}");
    }
    let (status, said) = run(&[
        "dlq", "drop", "--group", "billing", event, "--class", "loop",
    ]);
    assert_eq!(status, Some(2), "{said}");
}

#[test]
fn letters_that_a_channel_does_not_take_stay_and_hold_up_no_others() {
    let directory = tempfile::tempdir().expect("a directory");
    let small = "[[channel.namespaces]]\nname = \"small\"\ndelivery = \"durable\"\nsize_max = 7\n";
    let server = start(directory.path(), small);
    die(&server, "billing", "orders:1", "no", 11);
    until("all letters", || {
        (letters(&server, &json!({})).len() == 11).then_some(())
    });
    // The last one is `{"n":10}`.
    let retry = json!({ "group": "billing", "all": true, "to_channel": "small:1" });
    let answer = server.api_result("dlq/retry", &retry);
    assert_eq!(
        (&answer["retried"], &answer["refused"]),
        (&json!(10), &json!(1))
    );
    let reason = answer["reason"].as_str().expect("a reason");
    assert!(reason.contains("small"), "{reason}");
    let left = letters(&server, &json!({}));
    assert_eq!((left.len(), &left[0]["offset"]), (1, &json!(11)));
    let history = server.api_result("history", &json!({ "channel": "small:1", "limit": 100 }));
    assert_eq!(history["publications"].as_array().map(Vec::len), Some(10));
}
