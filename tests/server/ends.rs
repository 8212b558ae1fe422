//! What ends by itself does so at whatever door it came in.

use std::time::Duration;

use serde_json::json;

use crate::support::backend::{Backend, Reply};
use crate::support::client::Client;
use crate::support::process::{Server, config};
use crate::support::wait::{now, until};

const TTL_MS: u64 = 400;

/// The channel has had publications, and none of them is left.
fn ends(server: &Server, channel: &str) {
    until(&format!("the end of what was in {channel}"), || {
        let history = server.api("history", &json!({ "channel": channel, "limit": 10 }));
        let result = &history["result"];
        let had = result["offset"].as_u64().is_some_and(|offset| offset > 0);
        let is_left = result["publications"]
            .as_array()
            .is_none_or(|all| !all.is_empty());
        (had && !is_left).then_some(())
    });
}

fn count(server: &Server, channel: &str) -> usize {
    let history = server.api_result("history", &json!({ "channel": channel, "limit": 10 }));
    history["publications"].as_array().map_or(0, Vec::len)
}

#[test]
fn time_to_live_counts_for_requests_triggers_and_what_a_backend_approves() {
    let directory = tempfile::tempdir().expect("a directory");
    let backend = Backend::start(|_| Reply::Json(json!({ "result": { "ttl_ms": TTL_MS } })));
    let text = config(&format!(
        r#"
[durable.embedded]
directory = "{}"
[channel.proxy.publish]
endpoint = "{}"
[[channel.namespaces]]
name = "asked"
delivery = "durable"
allow_publish_for_client = true
[[channel.namespaces]]
name = "orders"
delivery = "durable"
[[channel.namespaces.triggers]]
name = "brief"
append = "copies:{{rest}}"
ttl = "{TTL_MS}ms"
[[channel.namespaces]]
name = "copies"
delivery = "durable"
[[channel.namespaces]]
name = "hooked"
delivery = "durable"
publish_proxy_enabled = true
"#,
        directory.path().join("log").display(),
        backend.url("/publish"),
    ));
    let server = Server::start(&text);
    let begun = now();
    let request = json!({ "channel": "asked:1", "data": 1, "ttl_ms": TTL_MS, "timeout_ms": 1 });
    assert_eq!(server.api_error("queue/request", &request), 113);
    let mut client = Client::user(&server, "42");
    let request = json!({ "channel": "asked:2", "data": 1, "ttl_ms": TTL_MS, "timeout_ms": 1 });
    let call = json!({ "method": "ringmain.request", "data": request });
    assert_eq!(client.error("rpc", &call), 113);
    server.api_result("publish", &json!({ "channel": "orders:1", "data": 1 }));
    client.publish("hooked:1", &json!(1));
    for channel in ["asked:1", "asked:2", "copies:1", "hooked:1"] {
        ends(&server, channel);
    }
    assert!(begun.elapsed() >= Duration::from_millis(TTL_MS));
    assert_eq!(
        count(&server, "orders:1"),
        1,
        "the source of what has ended"
    );
    let long = json!({ "channel": "asked:1", "data": 1, "ttl_ms": 31_536_000_001u64 });
    assert_eq!(server.api_error("queue/request", &long), 107);
}
