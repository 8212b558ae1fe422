//! Request and reply over queue groups: see also `support/request`.

use serde_json::json;

use crate::support::client::Client;
use crate::support::process::Server;
use crate::support::request::{next, reply_reaches_whoever_asks_and_stays_the_same, rules};
use crate::support::token::{after, sign};

const LOG: &str = "[durable.embedded]\ndirectory = \"events\"";

#[test]
fn reply_reaches_whoever_asks_and_who_asks_again_gets_the_same() {
    let directory = tempfile::tempdir().expect("a directory");
    let log = format!(
        "[durable.embedded]\ndirectory = \"{}\"",
        directory.path().display()
    );
    reply_reaches_whoever_asks_and_stays_the_same(&log);
}

#[test]
fn request_without_a_reply_ends_with_an_error_of_its_own_and_may_be_asked_again() {
    let server = Server::start(&rules(LOG));
    let asked = json!({ "channel": "orders:1", "data": 1, "key": "k", "timeout_ms": 50 });
    assert_eq!(server.api_error("queue/request", &asked), 113);
    let delivery = next(&server);
    let late = json!({ "delivery": delivery["delivery"], "b64data": "AP8=" });
    server.api_result("queue/reply", &late);
    let again = json!({ "channel": "orders:1", "data": 1, "key": "k", "timeout_ms": 10_000 });
    let answer = server.api_result("queue/request", &again);
    assert_eq!(answer["b64data"], "AP8=");
    assert_eq!(answer["event_id"], delivery["event_id"]);
}

#[test]
fn first_reply_counts_and_only_requests_take_one() {
    let server = Server::start(&rules(LOG));
    server.api_result("publish", &json!({ "channel": "orders:1", "data": 1 }));
    let plain = json!({ "delivery": next(&server)["delivery"], "data": 1 });
    assert_eq!(server.api_error("queue/reply", &plain), 107);
    server.api_result("queue/ack", &json!({ "delivery": plain["delivery"] }));
    assert_eq!(server.api_error("queue/reply", &plain), 104);
    let asked = json!({ "channel": "orders:1", "data": 2, "key": "k", "timeout_ms": 50 });
    server.api_error("queue/request", &asked);
    let reply = json!({ "delivery": next(&server)["delivery"], "data": "x".repeat(300_000) });
    assert_eq!(server.api_error("queue/reply", &reply), 107);
    let reply = json!({ "delivery": reply["delivery"], "data": "first" });
    assert_eq!(server.api_result("queue/reply", &reply)["replied"], true);
    assert_eq!(server.api_error("queue/reply", &reply), 104);
}

#[test]
fn request_that_cannot_be_is_refused() {
    let server = Server::start(&rules(LOG));
    for (asked, code) in [
        (json!({ "data": 1 }), 107),
        (
            json!({ "channel": "orders:1", "group": "g", "data": 1 }),
            107,
        ),
        (json!({ "channel": "orders:1" }), 107),
        (json!({ "channel": "chat:1", "data": 1 }), 107),
        (json!({ "group": "none", "data": 1 }), 104),
        (
            json!({ "channel": "orders:1", "data": 1, "timeout_ms": 20_001 }),
            107,
        ),
        (
            json!({ "channel": "orders:1", "data": 1, "b64data": "AA==" }),
            107,
        ),
        (json!({ "channel": "orders:1", "data": 1, "other": 1 }), 107),
    ] {
        assert_eq!(server.api_error("queue/request", &asked), code, "{asked}");
    }
}

#[test]
fn client_asks_where_it_may_publish_and_a_worker_of_a_client_replies() {
    let server = Server::start(&rules(LOG));
    let mut asker = Client::user(&server, "42");
    let ask = |channel: &str| json!({ "method": "ringmain.request", "data": { "channel": channel, "data": 5, "timeout_ms": 20_000 } });
    assert_eq!(asker.error("rpc", &ask("orders:1")), 103);
    let of_group = json!({ "method": "ringmain.request", "data": { "group": "g", "data": 5 } });
    assert_eq!(asker.error("rpc", &of_group), 107);
    let token = sign(&json!({ "sub": "w", "exp": after(600), "consume": { "*": ["open:*"] } }));
    let mut worker = Client::with_token(&server, &token);
    let consume =
        json!({ "method": "ringmain.consume", "data": { "group": "w", "channels": ["open:*"] } });
    worker.ok("rpc", &consume);
    std::thread::scope(|scope| {
        let answer = scope.spawn(|| asker.ok("rpc", &ask("open:1")));
        let delivery = worker.push()["message"]["data"].clone();
        assert_eq!(delivery["publisher"]["user"], "42");
        let reply = json!({ "method": "ringmain.reply", "data": { "delivery": delivery["delivery"], "data": { "n": delivery["data"] } } });
        worker.ok("rpc", &reply);
        let answer = answer.join().expect("an answer");
        assert_eq!(answer["data"]["data"], json!({ "n": 5 }), "{answer}");
    });
}
