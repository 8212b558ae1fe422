//! Publications that wait for others of their channel: nobody sees a gap or a repeat, nobody waits longer than said, and what is
//! left out is left out on purpose.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::client::{Client, Encoding};
use crate::support::http::{Http, encode};
use crate::support::process::{Server, Start, config};
use crate::support::wait::{now, until};

const RULES: &str = r#"
[client]
allow_anonymous_connect_without_token = true

[poll]
enabled = true

[channel.without_namespace]
allow_subscribe_for_client = true
allow_subscribe_for_anonymous = true
allow_publish_for_client = true
allow_publish_for_anonymous = true
history_size = 100
history_ttl = "60s"
force_recovery = true

[[channel.namespaces]]
name = "slow"
batch_max_delay = "10s"
batch_max_size = 3
allow_subscribe_for_client = true
allow_subscribe_for_anonymous = true
allow_publish_for_client = true
allow_publish_for_anonymous = true
history_size = 100
history_ttl = "60s"
force_recovery = true

[[channel.namespaces]]
name = "soon"
batch_max_delay = "50ms"
allow_subscribe_for_client = true
allow_subscribe_for_anonymous = true

[[channel.namespaces]]
name = "state"
batch_max_delay = "10s"
batch_max_size = 5
batch_flush_latest = true
allowed_delta_types = ["fossil"]
delta_publish = true
allow_tags_filter = true
allow_subscribe_for_client = true
allow_subscribe_for_anonymous = true
history_size = 100
history_ttl = "60s"
allow_positioning = true
allow_recovery = true
allow_history_for_client = true
allow_history_for_anonymous = true
"#;

fn server(more: &str) -> Server {
    Start::with_config(&config(&format!("{RULES}{more}")))
        .shards(2)
        .run()
}

fn publish(server: &Server, channel: &str, n: u64) {
    let body = json!({ "channel": channel, "data": { "n": n, "always": "the same" } });
    server.api_result("publish", &body);
}

fn offsets(client: &mut Client, channel: &str, count: usize) -> Vec<u64> {
    let next = |_| {
        client.publication(channel)["offset"]
            .as_u64()
            .expect("an offset")
    };
    (0..count).map(next).collect()
}

fn waits(server: &Server) -> bool {
    server.metric("ringmain_batch_bytes") > 0.0
}

#[test]
fn nothing_goes_before_its_number_or_its_time_and_all_of_it_then() {
    let server = server("");
    let mut clients: Vec<Client> = [Encoding::Json, Encoding::Protobuf]
        .map(|encoding| Client::open_as(&server, encoding).connect(&json!({})))
        .into();
    for client in &mut clients {
        client.subscribe("slow:a");
        client.subscribe("soon:a");
    }
    publish(&server, "slow:a", 1);
    publish(&server, "slow:a", 2);
    until("two to wait", || waits(&server).then_some(()));
    for client in &mut clients {
        assert!(client.pending().is_empty(), "two of three");
    }
    publish(&server, "slow:a", 3);
    for client in &mut clients {
        assert_eq!(offsets(client, "slow:a", 3), [1, 2, 3]);
    }
    let begun = now();
    publish(&server, "soon:a", 1);
    for client in &mut clients {
        client.publication("soon:a");
    }
    assert!(begun.elapsed() >= Duration::from_millis(50), "it waited");
    assert!(!waits(&server));
}

#[test]
fn a_publisher_is_answered_before_what_it_published_comes() {
    let server = server("");
    let mut client = Client::anonymous(&server);
    client.subscribe("slow:a");
    for n in 1..=2 {
        client.publish("slow:a", &json!({ "n": n }));
        assert_eq!(client.unread_push(), None);
    }
    client.publish("slow:a", &json!({ "n": 3 }));
    assert_eq!(offsets(&mut client, "slow:a", 3), [1, 2, 3]);
}

#[test]
fn who_comes_and_who_goes_meanwhile_sees_neither_gap_nor_repeat() {
    let server = server("");
    let mut first = Client::anonymous(&server);
    first.subscribe("slow:a");
    publish(&server, "slow:a", 1);
    until("it to wait", || waits(&server).then_some(()));
    // Whoever comes begins behind what waits, which the others get at once.
    let mut second = Client::anonymous(&server);
    let subscribed = second.subscribe("slow:a");
    assert_eq!(subscribed["offset"], 1);
    assert_eq!(offsets(&mut first, "slow:a", 1), [1]);
    publish(&server, "slow:a", 2);
    until("it to wait", || waits(&server).then_some(()));
    // Whoever goes and comes back with its position has what waited.
    first.ok("unsubscribe", &json!({ "channel": "slow:a" }));
    assert_eq!(first.unread_push(), None, "it has gone");
    let epoch = subscribed["epoch"].clone();
    let back = json!({ "channel": "slow:a", "recover": true, "epoch": epoch, "offset": 1 });
    let recovered = first.ok("subscribe", &back);
    assert_eq!(recovered["recovered"], true);
    assert_eq!(recovered["publications"][0]["offset"], 2);
    assert_eq!(recovered["publications"].as_array().map(Vec::len), Some(1));
    publish(&server, "slow:a", 3);
    publish(&server, "slow:a", 4);
    publish(&server, "slow:a", 5);
    assert_eq!(offsets(&mut second, "slow:a", 4), [2, 3, 4, 5]);
    assert_eq!(offsets(&mut first, "slow:a", 3), [3, 4, 5]);
    // A poll is answered with what waited.
    let path = format!(
        "/connection/poll?channel=slow:a&epoch={}&offset=5&timeout=20s",
        epoch.as_str().unwrap()
    );
    let mut http = Http::open(server.listen);
    http.send(&encode("GET", &path, &[], b""));
    until("the poll to be there", || {
        (server.metric("ringmain_subscriptions") >= 3.0).then_some(())
    });
    for n in 6..=8 {
        publish(&server, "slow:a", n);
    }
    let polled = http.response().expect("an answer").json();
    assert_eq!(
        polled["publications"].as_array().map(Vec::len),
        Some(3),
        "{polled}"
    );
}

#[test]
fn whom_a_service_sends_away_has_what_it_published_before() {
    let server = server("");
    let mut client = Client::user(&server, "42");
    let mut other = Client::user(&server, "43");
    for client in [&mut client, &mut other] {
        client.subscribe("slow:a");
    }
    publish(&server, "slow:a", 1);
    server.api_result("unsubscribe", &json!({ "user": "43", "channel": "slow:a" }));
    assert_eq!(offsets(&mut other, "slow:a", 1), [1]);
    assert_eq!(other.push()["unsubscribe"]["code"], 2000);
    publish(&server, "slow:a", 2);
    server.api_result("disconnect", &json!({ "user": "42" }));
    assert_eq!(offsets(&mut client, "slow:a", 2), [1, 2]);
    client.ends_with(3503);
}

#[test]
fn a_server_that_stops_gives_what_waits_first() {
    let server = server("");
    let mut client = Client::anonymous(&server);
    client.subscribe("slow:a");
    publish(&server, "slow:a", 1);
    until("it to wait", || waits(&server).then_some(()));
    server.signal("TERM");
    assert_eq!(offsets(&mut client, "slow:a", 1), [1]);
    client.ends_with(3001);
}

#[test]
fn a_reload_that_turns_waiting_off_gives_what_waits_with_the_next() {
    let server = server("");
    let mut client = Client::anonymous(&server);
    client.subscribe("slow:a");
    publish(&server, "slow:a", 1);
    until("it to wait", || waits(&server).then_some(()));
    let plain = RULES.replace("batch_max_delay = \"10s\"\nbatch_max_size = 3\n", "");
    server.write_config(&config(&plain));
    server.signal("HUP");
    until("the reload", || {
        (server.metric("ringmain_reloads_total") >= 2.0).then_some(())
    });
    publish(&server, "slow:a", 2);
    assert_eq!(offsets(&mut client, "slow:a", 2), [1, 2]);
    assert!(!waits(&server), "nothing is counted as waiting");
}

#[test]
fn of_what_waited_the_latest_comes_and_nobody_takes_that_for_a_gap() {
    let server = server("");
    let mut plain = Client::anonymous(&server);
    plain.subscribe("state:a");
    let mut positioned = Client::anonymous(&server);
    let tracked = json!({ "channel": "state:a", "positioned": true, "recoverable": true });
    let subscribed = positioned.ok("subscribe", &tracked);
    let mut patched = Client::anonymous(&server);
    let delta =
        json!({ "channel": "state:a", "delta": "fossil", "positioned": true, "recoverable": true });
    patched.ok("subscribe", &delta);
    let mut even = Client::anonymous(&server);
    let filter = json!({ "key": "even", "cmp": "eq", "val": "yes" });
    even.ok("subscribe", &json!({ "channel": "state:a", "tf": filter }));
    let tagged = |n: u64| {
        let even = if n.is_multiple_of(2) { "yes" } else { "no" };
        let data = json!({ "n": n, "always": "the same, so that a patch is worth it" });
        let body = json!({ "channel": "state:a", "data": data, "tags": { "even": even } });
        server.api_result("publish", &body);
    };
    for n in 1..=10 {
        tagged(n);
    }
    for client in [&mut plain, &mut positioned] {
        assert_eq!(offsets(client, "state:a", 2), [5, 10]);
    }
    assert_eq!(
        offsets(&mut even, "state:a", 2),
        [4, 10],
        "the latest that it wants"
    );
    for offset in [5, 10] {
        let publication = patched.publication("state:a");
        assert_eq!(publication["offset"], offset);
        assert_eq!(publication.get("delta"), None, "it has not the one before");
    }
    assert!(server.metric("ringmain_batch_left_out_total") >= 8.0);
    // The history has all, and whoever was away gets all that it has missed.
    let history = plain.ok("history", &json!({ "channel": "state:a", "limit": 100 }));
    assert_eq!(history["publications"].as_array().map(Vec::len), Some(10));
    tagged(11);
    until("it to wait", || waits(&server).then_some(()));
    positioned.ok("unsubscribe", &json!({ "channel": "state:a" }));
    let mut back = tracked.clone();
    back["recover"] = Value::Bool(true);
    back["epoch"] = subscribed["epoch"].clone();
    back["offset"] = json!(10);
    let recovered = positioned.ok("subscribe", &back);
    assert_eq!(recovered["recovered"], true);
    assert_eq!(recovered["publications"][0]["offset"], 11);
    // One that nobody replaced is a patch of the one before, which they have.
    let publication = patched.publication("state:a");
    assert_eq!(
        (&publication["offset"], &publication["delta"]),
        (&json!(11), &json!(true))
    );
}

#[test]
fn publications_of_the_log_wait_like_others() {
    let directory = tempfile::tempdir().expect("a directory");
    let server = server(&format!(
        r#"
[durable.embedded]
directory = "{}"

[[channel.namespaces]]
name = "orders"
delivery = "durable"
batch_max_delay = "10s"
batch_max_size = 4
force_recovery = true
history_size = 10
history_ttl = "60s"
allow_subscribe_for_client = true
allow_subscribe_for_anonymous = true
"#,
        directory.path().display()
    ));
    let mut client = Client::anonymous(&server);
    let subscribed = client.subscribe("orders:a");
    for n in 1..=3 {
        publish(&server, "orders:a", n);
    }
    until("them to wait", || waits(&server).then_some(()));
    assert!(client.pending().is_empty(), "three of four");
    publish(&server, "orders:a", 4);
    assert_eq!(offsets(&mut client, "orders:a", 4), [1, 2, 3, 4]);
    publish(&server, "orders:a", 5);
    until("it to wait", || waits(&server).then_some(()));
    client.ok("unsubscribe", &json!({ "channel": "orders:a" }));
    let back = json!({ "channel": "orders:a", "recover": true, "epoch": subscribed["epoch"], "offset": 4 });
    let recovered = client.ok("subscribe", &back);
    assert_eq!(recovered["publications"][0]["offset"], 5);
}
