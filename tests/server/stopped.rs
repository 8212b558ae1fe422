//! A process that was stopped, or whose machine was, goes on as if no time had passed: what arrived meanwhile was in time.

use std::time::Duration;

use serde_json::json;

use crate::support::http::{Http, encode};
use crate::support::process::{API_KEY, Start, config};
use crate::support::wait::{self, now};

#[test]
fn acknowledgement_that_arrived_while_the_process_stood_still_is_in_time() {
    let directory = tempfile::tempdir().expect("a directory");
    let text = config(&format!(
        r#"
[durable.embedded]
directory = "{}"

[[channel.namespaces]]
name = "orders"
delivery = "durable"
history_size = 8
history_ttl = "60s"
"#,
        directory.path().display()
    ));
    let server = Start::with_config(&text).run();
    let fetch = |wait_ms: u32| {
        let wish = json!({ "group": "g", "channels": ["orders:*"], "limit": 1, "ack_wait_ms": 3000,
            "wait_ms": wait_ms });
        server.api_result("queue/fetch", &wish)
    };
    fetch(0);
    server.api_result("publish", &json!({ "channel": "orders:1", "data": 1 }));
    let given = fetch(20_000);
    let delivery = given["deliveries"][0]["delivery"].clone();
    assert!(!delivery.is_null(), "{given}");
    let mut worker = Http::open(server.listen);
    server.signal("STOP");
    let stopped = now();
    let ack = json!({ "deliveries": [delivery] });
    worker.send(&encode(
        "POST",
        "/api/queue/ack",
        &[("X-API-Key", API_KEY)],
        ack.to_string().as_bytes(),
    ));
    wait::until("the delivery to run out by the clock on the wall", || {
        (stopped.elapsed() > Duration::from_millis(4500)).then_some(())
    });
    server.signal("CONT");
    let answer = worker.response().expect("an answer").json();
    assert!(answer["result"].is_object(), "{answer}");
    assert!(answer["result"].get("unknown").is_none(), "{answer}");
    let groups = server.api_result("queue/groups", &json!({}));
    assert_eq!(groups["groups"][0]["acked"], 1, "{groups}");
    assert_eq!(groups["groups"][0]["timed_out"], 0, "{groups}");
}
