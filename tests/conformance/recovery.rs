//! Checks 51 – 55, 58, 59: positions, recovery, gaps.

use std::time::Duration;

use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};

use crate::history::fill;
use crate::servers::{plain, with_namespaces};
use crate::support::client::{Client, Encoding, PATH};
use crate::support::process::Server;
use crate::support::scenario;
use crate::support::token::sign;
use crate::support::wait::DEADLINE;

fn recover(client: &mut Client, channel: &str, epoch: &str, offset: u64) -> Value {
    client.ok("subscribe", &json!({ "channel": channel, "recover": true, "recoverable": true, "epoch": epoch, "offset": offset }))
}

#[test]
fn c51_missed_publications_are_recovered_in_order() {
    let mut client = Client::anonymous(plain());
    let result = client.subscribe("three:c51");
    assert_eq!(result["recoverable"], true);
    let epoch = result["epoch"].as_str().expect("an epoch").to_owned();
    assert!(
        result.get("recovered").is_none() && result.get("was_recovering").is_none(),
        "{result}"
    );
    plain().api_result("publish", &json!({ "channel": "three:c51", "data": 0 }));
    assert_eq!(client.publication("three:c51")["offset"], 1);
    drop(client);
    for n in 2..=4 {
        plain().api_result("publish", &json!({ "channel": "three:c51", "data": n }));
    }

    let mut client = Client::anonymous(plain());
    let result = recover(&mut client, "three:c51", &epoch, 1);
    assert_eq!(result["recovered"], true);
    assert_eq!(result["was_recovering"], true);
    assert_eq!(result["offset"], 1, "the request offset");
    assert_eq!(result["epoch"], epoch.as_str());
    let missed: Vec<_> = result["publications"]
        .as_array()
        .expect("publications")
        .iter()
        .collect();
    assert_eq!(
        missed
            .iter()
            .map(|publication| &publication["offset"])
            .collect::<Vec<_>>(),
        [2, 3, 4]
    );
    assert_eq!(
        missed
            .iter()
            .map(|publication| &publication["data"])
            .collect::<Vec<_>>(),
        [2, 3, 4]
    );

    plain().api_result("publish", &json!({ "channel": "three:c51", "data": 5 }));
    assert_eq!(
        client.publication("three:c51")["offset"],
        5,
        "live goes on where recovery ended"
    );
}

#[test]
fn c52_nothing_missed_is_recovered_without_publications() {
    let epoch = fill("three:c52", 2);
    let mut client = Client::anonymous(plain());
    let result = recover(&mut client, "three:c52", &epoch, 2);
    assert_eq!(result["recovered"], true);
    assert_eq!(result["was_recovering"], true);
    assert_eq!(result["offset"], 2);
    assert_eq!(
        result
            .get("publications")
            .and_then(Value::as_array)
            .map_or(0, Vec::len),
        0
    );
}

#[test]
fn c53_more_missed_than_kept_is_not_recovered() {
    let epoch = fill("three:c53", 6);
    let mut client = Client::anonymous(plain());
    let result = recover(&mut client, "three:c53", &epoch, 2);
    assert_ne!(result["recovered"], true, "{result}");
    assert_eq!(result["was_recovering"], true);
    assert_eq!(result["offset"], 6, "the current top");
    assert_eq!(result["epoch"], epoch.as_str());
    assert_eq!(
        result
            .get("publications")
            .and_then(Value::as_array)
            .map_or(0, Vec::len),
        0
    );
    let mut client = Client::anonymous(plain());
    assert_eq!(
        recover(&mut client, "three:c53", &epoch, 3)["recovered"],
        true,
        "the oldest kept follows the position"
    );
}

#[test]
fn c53_more_missed_than_the_cap_is_not_recovered() {
    let epoch = fill("kept:c53", 302);
    let mut client = Client::anonymous(plain());
    let result = recover(&mut client, "kept:c53", &epoch, 1);
    assert_ne!(result["recovered"], true);
    assert_eq!(result["offset"], 302);
    let mut client = Client::anonymous(plain());
    let result = recover(&mut client, "kept:c53", &epoch, 2);
    assert_eq!(result["recovered"], true);
    assert_eq!(result["publications"].as_array().map_or(0, Vec::len), 300);
}

#[test]
fn c53_position_ahead_of_the_top_is_not_recovered() {
    let epoch = fill("three:c53-ahead", 2);
    let mut client = Client::anonymous(plain());
    let result = recover(&mut client, "three:c53-ahead", &epoch, 9);
    assert_ne!(result["recovered"], true);
    assert_eq!(result["offset"], 2);
}

#[test]
fn c54_wrong_epoch_is_not_recovered() {
    let epoch = fill("three:c54", 2);
    for wrong in ["_", "abcdefgh", "wrong"] {
        let mut client = Client::anonymous(plain());
        let result = recover(&mut client, "three:c54", wrong, 2);
        assert_ne!(result["recovered"], true, "{wrong}: {result}");
        assert_eq!(result["was_recovering"], true);
        assert_eq!(result["epoch"], epoch.as_str());
        assert_eq!(result["offset"], 2);
    }
    let mut client = Client::anonymous(plain());
    assert_eq!(
        recover(&mut client, "three:c54", "", 1)["recovered"],
        true,
        "an empty epoch matches any"
    );
}

#[test]
fn c54_with_flag_2_an_unrecovered_subscribe_is_error_112() {
    fill("three:c54-flag", 2);
    let mut client = Client::anonymous(plain());
    let request = json!({ "channel": "three:c54-flag", "recover": true, "epoch": "wrong", "offset": 1, "flag": 3 });
    assert_eq!(client.error("subscribe", &request), 112);
    client.subscribe("three:c54-flag");
}

#[test]
fn c54_options_that_are_not_granted_are_not_reflected() {
    let mut client = Client::anonymous(plain());
    let request =
        json!({ "channel": "c54", "positioned": true, "recoverable": true, "join_leave": true });
    assert_eq!(client.ok("subscribe", &request), json!({}));
}

#[test]
fn c55_resubscribing_while_publications_are_in_flight_loses_and_repeats_nothing() {
    let server = Server::start(&with_namespaces(
        "\n[client]\nallow_anonymous_connect_without_token = true\nrecovery_max_publication_limit = 2000\n",
    ));
    scenario::resubscribe_while_publishing(&server, "kept:c55");
}

#[test]
fn c58_server_side_subscription_recovers_through_connect_subs() {
    let token = sign(&json!({ "sub": "42", "channels": ["three:c58"] }));
    let mut client = Client::with_token(plain(), &token);
    let epoch = client.connected["subs"]["three:c58"]["epoch"]
        .as_str()
        .expect("an epoch")
        .to_owned();
    plain().api_result("publish", &json!({ "channel": "three:c58", "data": 1 }));
    assert_eq!(client.publication("three:c58")["offset"], 1);
    drop(client);
    for n in 2..=3 {
        plain().api_result("publish", &json!({ "channel": "three:c58", "data": n }));
    }
    let subs = json!({ "three:c58": { "recover": true, "epoch": epoch, "offset": 1 } });
    let mut client = Client::open(plain()).connect(&json!({ "token": token, "subs": subs }));
    let result = &client.connected["subs"]["three:c58"];
    assert_eq!(result["recovered"], true, "{result}");
    assert_eq!(result["was_recovering"], true);
    assert_eq!(result["offset"], 1);
    let missed = result["publications"].as_array().expect("publications");
    assert_eq!(
        missed
            .iter()
            .map(|publication| &publication["offset"])
            .collect::<Vec<_>>(),
        [2, 3]
    );
    plain().api_result("publish", &json!({ "channel": "three:c58", "data": 4 }));
    assert_eq!(client.publication("three:c58")["offset"], 4);
}

/// A connected client whose kernel buffers are small, so that it is slow at once when it does not read.
pub(crate) fn slow_reader(request: &Value) -> Client {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket
        .set_recv_buffer_size(32 * 1024)
        .expect("a small buffer");
    socket
        .connect(&plain().listen.into())
        .expect("the listener accepts");
    let stream = std::net::TcpStream::from(socket);
    stream.set_read_timeout(Some(DEADLINE)).expect("a deadline");
    stream
        .set_write_timeout(Some(DEADLINE))
        .expect("a deadline");
    Client::open_over(stream, PATH, &[], Encoding::of_the_crate()).connect(request)
}

/// Publishes more than the kernel and the outbox of a reader that stands still can hold.
fn flood(channel: &str) -> u64 {
    let fill = "x".repeat(60_000);
    let mut offset = 0;
    for n in 0..200 {
        let result = plain().api_result(
            "publish",
            &json!({ "channel": channel, "data": { "n": n, "fill": fill } }),
        );
        offset = result["offset"].as_u64().expect("an offset");
    }
    offset
}

#[test]
fn c59_gap_of_a_client_side_subscription_is_push_2500() {
    let mut client = slow_reader(&json!({}));
    client.set_read_deadline(Duration::from_secs(30));
    let result = client.subscribe("lossy:c59");
    assert_eq!(result["positioned"], true);
    flood("lossy:c59");
    let mut offset = 0;
    loop {
        let push = client.push();
        assert_eq!(push["channel"], "lossy:c59");
        if push.get("unsubscribe").is_some() {
            assert_eq!(
                push["unsubscribe"],
                json!({ "code": 2500, "reason": "insufficient state" })
            );
            break;
        }
        offset += 1;
        assert_eq!(push["pub"]["offset"], offset, "no hole without notice");
    }
    client.subscribe("lossy:c59");
    assert_eq!(
        client.pending(),
        Vec::<Value>::new(),
        "nothing of the ended subscription comes later"
    );
}

#[test]
fn c59_gap_of_a_server_side_subscription_closes_with_3010() {
    let token = sign(&json!({ "sub": "c59", "channels": ["lossy:c59-server"] }));
    let mut client = slow_reader(&json!({ "token": token }));
    client.set_read_deadline(Duration::from_secs(30));
    flood("lossy:c59-server");
    client.ends_with(3010);
    for (at, push) in client.unread().iter().enumerate() {
        assert_eq!(
            push["push"]["pub"]["offset"],
            at + 1,
            "no hole without notice"
        );
    }
}
