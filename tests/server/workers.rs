//! Workers of queue groups: what they are given fits their connection, and who is gone gets nothing.

use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use socket2::SockRef;

use crate::support::client::{Client, Encoding, PATH};
use crate::support::http::{Http, encode};
use crate::support::process::{API_KEY, Server, Start, binary, config, read_log};
use crate::support::token::{after, sign};
use crate::support::wait::until;

fn start(directory: &Path) -> Server {
    let rules = config(&format!(
        r#"
[durable.embedded]
directory = "{}"

[[channel.namespaces]]
name = "orders"
delivery = "durable"
"#,
        directory.display()
    ));
    Start::with_config(&rules).shards(2).run()
}

fn token() -> String {
    sign(&json!({ "sub": "w", "exp": after(600), "consume": { "*": ["orders:*"] } }))
}

fn worker(server: &Server) -> Client {
    Client::with_token(server, &token())
}

fn rpc(client: &mut Client, method: &str, data: &Value) -> Value {
    client.ok("rpc", &json!({ "method": method, "data": data }))["data"].clone()
}

/// Publications with payloads of so many bytes.
fn publish(server: &Server, count: usize, bytes: usize) {
    let filler = "x".repeat(bytes);
    for n in 0..count {
        let publish = json!({ "channel": "orders:1", "data": { "n": n, "x": filler } });
        server.api_result("publish", &publish);
    }
}

/// Works off so many publications at once as they come; gives how many deliveries that took.
fn work(client: &mut Client, count: usize) -> usize {
    let mut seen = std::collections::BTreeSet::new();
    let mut deliveries = 0;
    while seen.len() < count {
        let delivery = client.push()["message"]["data"].clone();
        deliveries += 1;
        assert_eq!(delivery["attempt"], 1);
        seen.insert(delivery["data"]["n"].as_u64().expect("its number"));
        let ack = json!({ "delivery": delivery["delivery"] });
        assert_eq!(rpc(client, "ringmain.ack", &ack)["acked"], 1);
    }
    deliveries
}

#[test]
fn worker_that_keeps_up_gets_everything_however_large_it_is_on_its_first_connection() {
    for (count, bytes, credit) in [
        (60, 200_000, 16),
        (256, 8_000, 256),
        (2, 1_500_000, 1),
        (3, 600_000, 2),
    ] {
        let directory = tempfile::tempdir().expect("a directory");
        let server = start(directory.path());
        publish(&server, count, bytes);
        for encoding in [Encoding::Json, Encoding::Protobuf] {
            let group = format!("g{encoding:?}");
            let mut client =
                Client::open_as(&server, encoding).connect(&json!({ "token": token() }));
            let consume = json!({ "group": group, "channels": ["orders:*"], "credit": credit });
            rpc(&mut client, "ringmain.consume", &consume);
            assert_eq!(
                work(&mut client, count),
                count,
                "{count} × {bytes}, nothing came twice"
            );
        }
        assert!(server.metric("ringmain_disconnected_slow_total") < 1.0);
    }
}

#[test]
fn groups_of_one_worker_share_what_fits_its_connection() {
    let directory = tempfile::tempdir().expect("a directory");
    let server = start(directory.path());
    publish(&server, 6, 300_000);
    let mut client = worker(&server);
    for group in 0..8 {
        let consume = json!({ "group": format!("g{group}"), "channels": ["orders:*"] });
        rpc(&mut client, "ringmain.consume", &consume);
    }
    for _ in 0..6 * 8 {
        let delivery = client.push()["message"]["data"].clone();
        rpc(
            &mut client,
            "ringmain.ack",
            &json!({ "delivery": delivery["delivery"] }),
        );
    }
    assert!(server.metric("ringmain_disconnected_slow_total") < 1.0);
}

#[test]
fn answers_to_fetches_have_fewer_deliveries_than_asked_for_where_they_are_large() {
    let directory = tempfile::tempdir().expect("a directory");
    let server = start(directory.path());
    publish(&server, 100, 20_000);
    let fetch = json!({ "group": "g", "channels": ["orders:*"], "limit": 100, "wait_ms": 5000 });
    let mut client = worker(&server);
    let first = rpc(&mut client, "ringmain.fetch", &fetch);
    let first = first["deliveries"].as_array().expect("deliveries").clone();
    assert!((20..=27).contains(&first.len()), "{}", first.len());
    let mut seen = first.len();
    // Several wait at once, and nothing of it is settled. None of them waits any longer when there is more.
    let mut short = fetch.clone();
    short["wait_ms"] = json!(1000);
    let asked = json!({ "method": "ringmain.fetch", "data": short });
    while seen < 100 {
        let ids: Vec<u64> = (0..5).map(|_| client.send("rpc", &asked)).collect();
        for id in ids {
            let reply = client.reply(id);
            let deliveries = reply["rpc"]["data"]["deliveries"].as_array().cloned();
            let deliveries = deliveries.expect("deliveries");
            assert!(deliveries.iter().all(|one| one["attempt"] == 1));
            seen += deliveries.len();
        }
    }
    assert_eq!(seen, 100);
    publish(&server, 6, 1_500_000);
    let one = rpc(&mut client, "ringmain.fetch", &fetch);
    assert_eq!(one["deliveries"].as_array().map(Vec::len), Some(1));
    // An answer over HTTP is bounded, too, and has what is read by then.
    let mut seen = 1;
    while seen < 6 {
        let some = server.api_result("queue/fetch", &fetch);
        let some = some["deliveries"].as_array().map_or(0, Vec::len);
        assert!((1..=2).contains(&some), "{some}");
        seen += some;
    }
    assert!(server.metric("ringmain_disconnected_slow_total") < 1.0);
}

/// How a service goes away.
#[derive(Clone, Copy, Debug)]
enum Goes {
    Fin,
    HalfClose,
    Reset,
}

/// A fetch that waits at the server.
fn waiting_fetch(server: &Server, wish: &Value) -> TcpStream {
    let before = in_wait(server);
    let http = Http::open(server.listen);
    let body = wish.to_string();
    let headers = [("X-API-Key", API_KEY)];
    let bytes = encode("POST", "/api/queue/fetch", &headers, body.as_bytes());
    let mut stream = http.into_stream();
    std::io::Write::write_all(&mut stream, &bytes).expect("sent");
    until("the fetch to wait", || {
        (in_wait(server) > before).then_some(())
    });
    stream
}

fn in_wait(server: &Server) -> u64 {
    let groups = server.api_result("queue/groups", &json!({}));
    let groups = groups["groups"].as_array().expect("groups").clone();
    groups
        .iter()
        .filter_map(|group| group["fetches"].as_u64())
        .sum()
}

#[test]
fn service_that_is_gone_gets_nothing_and_costs_no_attempt() {
    for goes in [Goes::Fin, Goes::HalfClose, Goes::Reset] {
        let directory = tempfile::tempdir().expect("a directory");
        let server = start(directory.path());
        let wish = json!({ "group": "g", "channels": ["orders:*"], "limit": 1, "wait_ms": 20_000, "max_attempts": 1 });
        for _ in 0..3 {
            let stream = waiting_fetch(&server, &wish);
            match goes {
                Goes::Fin => drop(stream),
                Goes::Reset => {
                    let linger = Some(Duration::ZERO);
                    SockRef::from(&stream)
                        .set_linger(linger)
                        .expect("no linger");
                    drop(stream);
                }
                Goes::HalfClose => {
                    let mut http = Http::over(stream);
                    http.finish();
                    let answer = http.response().expect("an answer");
                    assert_eq!(answer.json()["result"], json!({ "deliveries": [] }));
                }
            }
            until("nobody to wait", || (in_wait(&server) == 0).then_some(()));
        }
        publish(&server, 1, 10);
        let got = server.api_result("queue/fetch", &wish);
        assert_eq!(got["deliveries"][0]["attempt"], 1, "{goes:?}");
    }
}

#[test]
fn waiting_fetch_is_answered_when_the_server_drains() {
    let directory = tempfile::tempdir().expect("a directory");
    let server = start(directory.path());
    let wish = json!({ "group": "g", "channels": ["orders:*"], "wait_ms": 20_000 });
    let stream = waiting_fetch(&server, &wish);
    server.signal("TERM");
    let answer = Http::over(stream).response().expect("an answer");
    assert_eq!(answer.json()["result"], json!({ "deliveries": [] }));
    assert_eq!(answer.header("connection"), Some("close"));
}

#[test]
fn worker_that_goes_with_an_answer_on_its_way_leaves_it_to_others() {
    let directory = tempfile::tempdir().expect("a directory");
    let server = start(directory.path());
    publish(&server, 3, 400_000);
    let fetch = json!({ "group": "g", "channels": ["orders:*"], "limit": 3, "wait_ms": 5000, "max_attempts": 1 });
    for _ in 0..3 {
        let mut client =
            Client::open_with(&server, PATH, &[]).connect(&json!({ "token": token() }));
        for _ in 0..3 {
            client.send("rpc", &json!({ "method": "ringmain.fetch", "data": fetch }));
        }
        drop(client);
    }
    let mut client = worker(&server);
    let mut seen = 0;
    while seen < 3 {
        let got = rpc(&mut client, "ringmain.fetch", &fetch);
        for one in got["deliveries"].as_array().expect("deliveries") {
            assert_eq!(one["attempt"], 1);
            rpc(
                &mut client,
                "ringmain.ack",
                &json!({ "delivery": one["delivery"] }),
            );
            seen += 1;
        }
    }
}

#[test]
fn worker_and_whoever_waits_are_told_that_their_group_is_deleted() {
    let directory = tempfile::tempdir().expect("a directory");
    let server = start(directory.path());
    let mut client = worker(&server);
    let consume = json!({ "group": "g", "channels": ["orders:*"] });
    rpc(&mut client, "ringmain.consume", &consume);
    let fetch = json!({ "group": "g", "wait_ms": 20_000 });
    let waiting = waiting_fetch(&server, &fetch);
    server.api_result("queue/delete", &json!({ "group": "g" }));
    assert_eq!(
        client.push()["message"]["data"],
        json!({ "group": "g", "deleted": true })
    );
    let answer = Http::over(waiting).response().expect("an answer").json();
    assert_eq!(answer["error"]["code"], 104);
    assert_eq!(answer["error"]["message"], "the group `g` was deleted");
    assert_eq!(server.api_error("queue/fetch", &fetch), 104);
}

#[test]
fn command_that_finds_nothing_says_so_and_ends_with_status_1() {
    let directory = tempfile::tempdir().expect("a directory");
    let server = start(directory.path());
    server.api_result(
        "queue/fetch",
        &json!({ "group": "g", "channels": ["orders:*"] }),
    );
    let address = server.listen.to_string();
    for (arguments, says) in [
        (
            &["dlq", "retry", "--group", "g", "--all"][..],
            "no dead letters",
        ),
        (
            &["dlq", "drop", "--group", "nope", "--all"],
            "there is no group `nope`",
        ),
        (
            &["dlq", "list", "--group", "nope"],
            "there is no group `nope`",
        ),
        (
            &["replay", "--channel", "orders:*"],
            "nothing is kept there",
        ),
        (
            &["replay", "--channel", "lobby"],
            "no channel of a durable namespace",
        ),
    ] {
        let own = tempfile::tempdir().expect("a directory");
        let status = binary(own.path())
            .args(arguments)
            .args(["--address", &address, "--api-key", API_KEY])
            .status()
            .expect("the binary starts");
        let printed = read_log(own.path());
        assert_eq!(status.code(), Some(1), "{arguments:?}: {printed}");
        assert!(printed.contains(says), "{arguments:?}: {printed}");
    }
}
