//! What requests over queue groups promise, whichever engine keeps the log.

use serde_json::{Value, json};

use super::process::Server;
use super::push::start;
use super::wait::until;

/// A proxy with the durable namespace `orders`, and a worker's fetch.
pub(crate) fn rules(log: &str) -> String {
    super::process::config(&format!(
        "{log}\n[[channel.namespaces]]\nname = \"orders\"\ndelivery = \"durable\"\n\
         [[channel.namespaces]]\nname = \"open\"\ndelivery = \"durable\"\nallow_publish_for_client = true\n"
    ))
}

/// The next delivery of the group `g`.
pub(crate) fn next(server: &Server) -> Value {
    let request =
        json!({ "group": "g", "channels": ["orders:*", "open:*"], "limit": 1, "wait_ms": 5000 });
    until("a delivery", || {
        let mut found = server.api_result("queue/fetch", &request);
        found["deliveries"].get_mut(0).map(Value::take)
    })
}

/// Asks while a worker works; gives the answer.
fn ask_and_reply(server: &Server, asked: &Value, reply: &Value) -> Value {
    std::thread::scope(|scope| {
        let answer = scope.spawn(|| server.api_result("queue/request", asked));
        let delivery = next(server);
        let reply = json!({ "delivery": delivery["delivery"], "data": reply });
        let replied = server.api_result("queue/reply", &reply);
        assert_eq!(replied, json!({ "replied": true, "acked": true }));
        answer.join().expect("an answer")
    })
}

/// The asker gets what the worker replies, and whoever asks again with the same key gets the same, after a kill as well.
pub(crate) fn reply_reaches_whoever_asks_and_stays_the_same(log: &str) {
    let rules = rules(log);
    let mut server = start(&rules);
    let asked =
        json!({ "channel": "orders:1", "data": { "n": 1 }, "key": "k", "timeout_ms": 20_000 });
    let answer = ask_and_reply(&server, &asked, &json!({ "price": 7 }));
    assert_eq!(answer["data"], json!({ "price": 7 }));
    assert_eq!(server.api_result("queue/request", &asked), answer);
    let of_group = json!({ "group": "g", "data": { "n": 2 }, "timeout_ms": 20_000 });
    let other = ask_and_reply(&server, &of_group, &json!("done"));
    assert_eq!(other["data"], "done");
    assert_ne!(other["event_id"], answer["event_id"]);
    server.signal("KILL");
    server.exit_status();
    let server = start(&rules);
    assert_eq!(server.api_result("queue/request", &asked), answer);
}
