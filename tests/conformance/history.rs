//! Checks 47, 48, 56: history.

use serde_json::{Value, json};

use crate::servers::plain;
use crate::support::client::Client;

/// Publishes 1 ..= count and returns the epoch.
pub(crate) fn fill(channel: &str, count: u64) -> String {
    let mut epoch = String::new();
    for n in 1..=count {
        let result = plain().api_result(
            "publish",
            &json!({ "channel": channel, "data": { "n": n } }),
        );
        assert_eq!(result["offset"], n, "offsets have no holes");
        let now = result["epoch"].as_str().expect("an epoch").to_owned();
        assert!(
            !now.is_empty() && (epoch.is_empty() || epoch == now),
            "one epoch: {epoch} {now}"
        );
        epoch = now;
    }
    epoch
}

fn offsets(history: &Value) -> Vec<u64> {
    let all = history["publications"].as_array().expect("publications");
    all.iter()
        .map(|publication| publication["offset"].as_u64().expect("an offset"))
        .collect()
}

#[test]
fn c47_limit_0_returns_only_the_position() {
    let epoch = fill("kept:c47", 5);
    let mut client = Client::anonymous(plain());
    for request in [
        json!({ "channel": "kept:c47" }),
        json!({ "channel": "kept:c47", "limit": 0 }),
    ] {
        let expected = json!({ "publications": [], "epoch": epoch, "offset": 5 });
        assert_eq!(client.ok("history", &request), expected);
        assert_eq!(plain().api_result("history", &request), expected);
    }
}

#[test]
fn c47_pages_forward_without_overlap() {
    let epoch = fill("kept:c47-pages", 7);
    let mut client = Client::anonymous(plain());
    let mut since = 0;
    let mut seen = Vec::new();
    loop {
        let request = json!({ "channel": "kept:c47-pages", "limit": 2, "since": { "offset": since, "epoch": epoch } });
        let page = client.ok("history", &request);
        assert_eq!(
            plain().api_result("history", &request)["offset"],
            page["offset"]
        );
        let offsets = offsets(&page);
        assert!(offsets.len() <= 2);
        let Some(last) = offsets.last() else { break };
        since = *last;
        for publication in page["publications"].as_array().expect("publications") {
            assert_eq!(publication["data"]["n"], publication["offset"]);
        }
        seen.extend(offsets);
    }
    assert_eq!(seen, [1, 2, 3, 4, 5, 6, 7]);
}

#[test]
fn c47_reverse_pages_backward() {
    let epoch = fill("kept:c47-reverse", 5);
    let mut client = Client::anonymous(plain());
    let request = json!({ "channel": "kept:c47-reverse", "limit": 2, "reverse": true });
    assert_eq!(
        offsets(&client.ok("history", &request)),
        [5, 4],
        "without since from the newest"
    );
    let mut page = |offset: u64| {
        let since = json!({ "offset": offset, "epoch": epoch });
        let request =
            json!({ "channel": "kept:c47-reverse", "limit": 2, "reverse": true, "since": since });
        offsets(&client.ok("history", &request))
    };
    assert_eq!(page(4), [3, 2]);
    assert_eq!(page(2), [1]);
    assert_eq!(page(1), [0; 0]);
}

#[test]
fn c47_wrong_epoch_is_112_and_reverse_from_0_is_107() {
    fill("kept:c47-bad", 3);
    let mut client = Client::anonymous(plain());
    let wrong = json!({ "channel": "kept:c47-bad", "limit": 2, "since": { "offset": 1, "epoch": "wrong" } });
    assert_eq!(client.error("history", &wrong), 112);
    assert_eq!(plain().api_error("history", &wrong), 112);
    let zero =
        json!({ "channel": "kept:c47-bad", "limit": 2, "reverse": true, "since": { "offset": 0 } });
    assert_eq!(client.error("history", &zero), 107);
    assert_eq!(plain().api_error("history", &zero), 107);
}

#[test]
fn c47_limit_is_capped_for_clients_and_not_for_the_api() {
    fill("kept:c47-cap", 310);
    let mut client = Client::anonymous(plain());
    for limit in [-1, 301, i32::MAX] {
        let history = client.ok(
            "history",
            &json!({ "channel": "kept:c47-cap", "limit": limit }),
        );
        assert_eq!(offsets(&history).len(), 300, "{limit}");
    }
    let history = plain().api_result(
        "history",
        &json!({ "channel": "kept:c47-cap", "limit": -1 }),
    );
    assert_eq!(offsets(&history), (1..=310).collect::<Vec<_>>());
}

#[test]
fn c47_history_that_is_off_is_108_and_not_permitted_103() {
    let mut client = Client::anonymous(plain());
    assert_eq!(
        client.error("history", &json!({ "channel": "open:c47", "limit": 1 })),
        108
    );
    assert_eq!(
        client.error("history", &json!({ "channel": "three:c47", "limit": 1 })),
        103
    );
    assert_eq!(
        client.error("history", &json!({ "channel": "members:c47", "limit": 1 })),
        103,
        "subscribers only"
    );
    assert_eq!(
        client.error("history", &json!({ "channel": "nowhere:c47", "limit": 1 })),
        102
    );
    client.subscribe("members:c47");
    client.ok("history", &json!({ "channel": "members:c47", "limit": 1 }));
}

#[test]
fn c48_publications_have_offsets_without_holes_and_one_epoch() {
    let mut client = Client::anonymous(plain());
    let result = client.ok(
        "subscribe",
        &json!({ "channel": "kept:c48", "positioned": true }),
    );
    assert_eq!(result["positioned"], true);
    let epoch = result["epoch"].as_str().expect("an epoch").to_owned();
    assert_eq!(result.get("offset").and_then(Value::as_u64).unwrap_or(0), 0);
    assert_eq!(fill("kept:c48", 20), epoch);
    for n in 1..=20 {
        let publication = client.publication("kept:c48");
        assert_eq!(publication["offset"], n);
        assert_eq!(publication["data"]["n"], n);
    }
    client.publish("kept:c48", &json!("by a client"));
    assert_eq!(client.publication("kept:c48")["offset"], 21);
}

#[test]
fn c48_only_the_newest_of_history_size_are_kept() {
    fill("three:c48", 8);
    let history = plain().api_result("history", &json!({ "channel": "three:c48", "limit": -1 }));
    assert_eq!(offsets(&history), [6, 7, 8]);
    assert_eq!(history["offset"], 8);
    let since = json!({ "channel": "three:c48", "limit": -1, "since": { "offset": 2, "epoch": history["epoch"] } });
    assert_eq!(
        offsets(&plain().api_result("history", &since)),
        [6, 7, 8],
        "what is left"
    );
}

#[test]
fn c56_history_remove_keeps_epoch_and_top() {
    let epoch = fill("kept:c56", 4);
    assert_eq!(
        plain().api_result("history_remove", &json!({ "channel": "kept:c56" })),
        json!({})
    );
    let history = plain().api_result("history", &json!({ "channel": "kept:c56", "limit": -1 }));
    assert_eq!(
        history,
        json!({ "publications": [], "epoch": epoch, "offset": 4 })
    );
    let result = plain().api_result("publish", &json!({ "channel": "kept:c56", "data": {} }));
    assert_eq!(result, json!({ "offset": 5, "epoch": epoch }));
}
