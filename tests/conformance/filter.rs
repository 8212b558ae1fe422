//! Check 63: subscriptions by tags; the time of publications; names by a pattern.

use serde_json::{Value, json};

use crate::servers::plain;
use crate::support::client::Client;
use crate::support::wait::unix_seconds;

fn publish(channel: &str, n: u64, tags: &Value) {
    let request = json!({ "channel": channel, "data": n, "tags": tags });
    plain().api_result("publish", &request);
}

/// Every third publication is of kind `c`; the price rises.
fn publish_many(channel: &str, range: std::ops::RangeInclusive<u64>) {
    for n in range {
        let kind = ["a", "b", "c"][n as usize % 3];
        publish(
            channel,
            n,
            &json!({ "kind": kind, "price": format!("{}.5", n) }),
        );
    }
}

fn leaf(key: &str, cmp: &str, val: &str) -> Value {
    json!({ "key": key, "cmp": cmp, "val": val })
}

fn offsets(publications: &Value) -> Vec<u64> {
    let list = publications.as_array().map_or(&[][..], |list| list);
    list.iter()
        .filter_map(|publication| publication["offset"].as_u64())
        .collect()
}

#[test]
fn c63_subscriber_gets_matching_publications_only() {
    let filters = [
        (leaf("kind", "eq", "c"), &[2, 5, 8][..]),
        (
            json!({ "key": "kind", "cmp": "in", "vals": ["a", "b"] }),
            &[1, 3, 4, 6, 7, 9],
        ),
        (leaf("price", "gte", "7.50"), &[7, 8, 9]),
        (
            json!({ "op": "and", "nodes": [leaf("kind", "neq", "c"), leaf("price", "lt", "4")] }),
            &[1, 3],
        ),
        (
            json!({ "op": "not", "nodes": [leaf("kind", "sw", "c")] }),
            &[1, 3, 4, 6, 7, 9],
        ),
        (json!({ "key": "color", "cmp": "ex" }), &[]),
    ];
    let mut clients: Vec<Client> = filters
        .iter()
        .map(|(filter, _)| {
            let mut client = Client::anonymous(plain());
            client.ok(
                "subscribe",
                &json!({ "channel": "tagged:c63", "tf": filter }),
            );
            client
        })
        .collect();
    let mut everything = Client::anonymous(plain());
    everything.subscribe("tagged:c63");
    publish_many("tagged:c63", 1..=9);
    publish(
        "tagged:c63",
        10,
        &json!({ "kind": "c", "price": "99", "color": "" }),
    );
    for n in 1..=10 {
        assert_eq!(everything.publication("tagged:c63")["offset"], n);
    }
    for (client, (filter, wanted)) in clients.iter_mut().zip(&filters) {
        let got: Vec<u64> = client
            .pending()
            .iter()
            .map(|push| push["push"]["pub"]["offset"].as_u64().expect("an offset"))
            .collect();
        let got: Vec<u64> = got.into_iter().filter(|&offset| offset < 10).collect();
        assert_eq!(got, *wanted, "{filter}");
    }
}

#[test]
fn c63_what_is_kept_back_is_no_gap() {
    let filter = leaf("kind", "eq", "c");
    let subscribe = json!({ "channel": "tagged:c63-gap", "tf": filter, "recoverable": true, "positioned": true });
    let mut client = Client::anonymous(plain());
    let result = client.ok("subscribe", &subscribe);
    assert_eq!(result["positioned"], true, "{result}");
    publish_many("tagged:c63-gap", 1..=6);
    for offset in [2, 5] {
        assert_eq!(client.publication("tagged:c63-gap")["offset"], offset);
    }
    drop(client);
    publish_many("tagged:c63-gap", 7..=12);
    let mut client = Client::anonymous(plain());
    let mut again = subscribe.clone();
    again["recover"] = json!(true);
    again["epoch"] = result["epoch"].clone();
    again["offset"] = json!(5);
    let result = client.ok("subscribe", &again);
    assert_eq!(result["recovered"], true, "{result}");
    assert_eq!(result["offset"], 5, "the request offset");
    assert_eq!(offsets(&result["publications"]), [8, 11]);
    publish_many("tagged:c63-gap", 13..=15);
    assert_eq!(client.publication("tagged:c63-gap")["offset"], 14);
    assert_eq!(
        client.pending(),
        Vec::<Value>::new(),
        "nobody is told of a gap"
    );
}

#[test]
fn c63_malformed_filter_is_error_107_and_leaves_nothing_behind() {
    let mut client = Client::anonymous(plain());
    for filter in [
        json!({}),
        json!({ "op": "xor", "nodes": [leaf("k", "eq", "v")] }),
        leaf("k", "like", "v"),
        leaf("", "eq", "v"),
        json!({ "key": "k", "cmp": "in" }),
        json!({ "key": "k", "cmp": "eq", "val": "v", "vals": ["w"] }),
        leaf("k", "ex", "v"),
        json!({ "op": "and" }),
        json!({ "op": "not", "nodes": [leaf("k", "eq", "v"), leaf("k", "eq", "w")] }),
        leaf("k", "eq", &"v".repeat(20_000)),
    ] {
        let request = json!({ "channel": "tagged:c63-bad", "tf": filter });
        assert_eq!(client.error("subscribe", &request), 107, "{filter}");
    }
    client.subscribe("tagged:c63-bad");
}

#[test]
fn c63_filter_that_the_namespace_does_not_allow_is_error_107() {
    let mut client = Client::anonymous(plain());
    let request = json!({ "channel": "kept:c63", "tf": leaf("kind", "eq", "c") });
    assert_eq!(client.error("subscribe", &request), 107);
}

#[test]
fn c63_delta_is_not_granted_together_with_a_filter() {
    let mut client = Client::anonymous(plain());
    let request = json!({ "channel": "patches:c63", "tf": leaf("kind", "eq", "c"), "delta": "fossil", "recoverable": true });
    let result = client.ok("subscribe", &request);
    assert!(result.get("delta").is_none(), "{result}");
    publish("patches:c63", 1, &json!({ "kind": "c" }));
    assert_eq!(client.publication("patches:c63")["data"], 1);
}

#[test]
fn publication_tells_its_time_in_pushes_recovery_and_history() {
    let mut client = Client::anonymous(plain());
    let before = unix_seconds() - 1;
    let result = client.ok(
        "subscribe",
        &json!({ "channel": "tagged:time", "recoverable": true }),
    );
    publish("tagged:time", 1, &json!({}));
    let publication = client.publication("tagged:time");
    let time = publication["time"].as_i64().expect("a time");
    assert!((before..=unix_seconds()).contains(&(time / 1000)), "{time}");
    let history = client.ok("history", &json!({ "channel": "tagged:time", "limit": 1 }));
    assert_eq!(history["publications"][0]["time"], time);
    let mut client = Client::anonymous(plain());
    let request = json!({ "channel": "tagged:time", "recoverable": true, "recover": true, "epoch": result["epoch"], "offset": 0 });
    let result = client.ok("subscribe", &request);
    assert_eq!(result["publications"][0]["time"], time);
}

#[test]
fn name_that_the_pattern_of_its_namespace_does_not_match_is_error_107() {
    let mut client = Client::anonymous(plain());
    client.subscribe("letters:größe");
    client.subscribe("letters:plain");
    for channel in ["letters:a1", "letters:", "letters:a:b", "open:größe"] {
        assert_eq!(
            client.error("subscribe", &json!({ "channel": channel })),
            107,
            "{channel}"
        );
    }
}
