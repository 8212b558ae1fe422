//! A client that repeats a publish with its key gets the first position, in channels that are not durable as in those that are.

use serde_json::{Value, json};

use crate::support::client::Client;
use crate::support::process::{Server, Start, config};

fn server(shards: u32, directory: &std::path::Path) -> Server {
    let text = config(&format!(
        r#"
[client]
allow_anonymous_connect_without_token = true

[durable.embedded]
directory = "{}"

[[channel.namespaces]]
name = "chat"
history_size = 100
history_ttl = "60s"
allow_publish_for_client = true
allow_publish_for_anonymous = true
allow_subscribe_for_client = true

[[channel.namespaces]]
name = "safe"
delivery = "durable"
allow_publish_for_client = true
allow_publish_for_anonymous = true
allow_subscribe_for_client = true
"#,
        directory.display()
    ));
    Start::with_config(&text).shards(shards).run()
}

fn rpc(channel: &str, key: &str) -> Value {
    let data = json!({ "channel": channel, "data": key, "key": key });
    json!({ "method": "ringmain.publish", "data": data })
}

/// Offset and epoch of an answer.
fn place(reply: &Value) -> (u64, String) {
    let data = &reply["data"];
    let epoch = data["epoch"].as_str().expect("an epoch").to_owned();
    (data["offset"].as_u64().expect("an offset"), epoch)
}

#[test]
fn repeat_over_another_connection_gets_the_first_position_and_nobody_elses_does() {
    for shards in [1, 4] {
        let directory = tempfile::tempdir().expect("a directory");
        let server = server(shards, directory.path());
        for channel in ["chat:1", "safe:1"] {
            let mut reader = Client::user(&server, "reader");
            reader.subscribe(channel);
            // The answer is lost with the connection, which goes before or behind it.
            let mut first = Client::user(&server, "alice");
            first.send("rpc", &rpc(channel, "one"));
            let mut second = Client::user(&server, "alice");
            let while_under_way = second.send("rpc", &rpc(channel, "one"));
            drop(first);
            let repeated = place(&second.reply(while_under_way)["rpc"]);
            let mut third = Client::user(&server, "alice");
            assert_eq!(place(&third.ok("rpc", &rpc(channel, "one"))), repeated);
            assert_eq!(repeated.0, 1, "{channel}");
            let mut next = 2;
            let mut new = |place: (u64, String)| {
                assert_eq!(place, (next, repeated.1.clone()), "{channel}");
                next += 1;
            };
            let mut bob = Client::user(&server, "bob");
            new(place(&bob.ok("rpc", &rpc(channel, "one"))));
            let mut anonymous = Client::anonymous(&server);
            new(place(&anonymous.ok("rpc", &rpc(channel, "one"))));
            let service = json!({ "channel": channel, "data": "one", "idempotency_key": "one" });
            let of_service = server.api_result("publish", &service);
            new(place(&json!({ "data": of_service })));
            new(place(&third.ok("rpc", &rpc(channel, "two"))));
            let mut other = Client::anonymous(&server);
            assert_eq!(
                place(&other.ok("rpc", &rpc(channel, "one"))).0,
                3,
                "they share theirs"
            );
            let came: Vec<Value> = (0..5).map(|_| reader.publication(channel)).collect();
            let data: Vec<&Value> = came.iter().map(|one| &one["data"]).collect();
            assert_eq!(data, ["one", "one", "one", "one", "two"], "each once");
            let offsets: Vec<u64> = came
                .iter()
                .filter_map(|one| one["offset"].as_u64())
                .collect();
            assert_eq!(offsets, [1, 2, 3, 4, 5]);
        }
    }
}
