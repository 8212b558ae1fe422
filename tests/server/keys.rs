//! Keys of services: several, for a part of the server API, for a time, and told by nobody.

use std::io::Write as _;
use std::net::SocketAddr;
use std::process::Stdio;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::http::{Http, Response};
use crate::support::process::{API_KEY, Server, Start, binary, config, read_log};
use crate::support::wait;

/// `ringmain key` with this standard input: its status and what it printed to standard output.
fn key_command(arguments: &[&str], input: &str) -> (Option<i32>, String) {
    let directory = TempDir::new().expect("a directory");
    let mut child = binary(directory.path())
        .arg("key")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    let mut stdin = child.stdin.take().expect("its standard input");
    // A command that reads nothing may have ended.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    let output = child.wait_with_output().expect("it ends");
    let text = String::from_utf8(output.stdout).expect("text");
    (output.status.code(), text)
}

/// A new key, and the lines that the configuration has of it.
fn new_key(name: &str) -> (String, String) {
    let (status, text) = key_command(&["new", "--name", name], "");
    assert_eq!(status, Some(0), "{text}");
    let (key, lines) = text.split_once('\n').expect("two lines at least");
    (key.to_owned(), lines.to_owned())
}

fn ask(address: SocketAddr, method: &str, headers: &[(&str, &str)], body: &Value) -> Response {
    let path = format!("/api/{method}");
    Http::open(address).post(&path, headers, body.to_string().as_bytes())
}

/// Code of the error, 0 for a result.
fn code(answer: &Value) -> u64 {
    answer["error"]["code"].as_u64().unwrap_or(0)
}

const NAMESPACES: &str = r#"
[[channel.namespaces]]
name = "orders"
presence = true
[[channel.namespaces]]
name = "chat"
presence = true
"#;

#[test]
fn new_key_is_printed_once_and_its_hash_opens_every_door_to_whoever_sends_it() {
    let (key, lines) = new_key("billing");
    assert!(
        lines.contains("name = \"billing\"\nhash = \"sha256:"),
        "{lines}"
    );
    assert!(!lines.contains(&key));
    let (status, again) = key_command(&["hash", "--name", "billing"], &format!("{key}\n"));
    assert_eq!((status, again.as_str()), (Some(0), lines.as_str()));
    let hash = lines.split('"').nth(3).expect("the hash").to_owned();
    let doors = "[server]\ninternal_listen = [\"127.0.0.1:0\"]\n";
    let text = config(&format!("{doors}\n[[http_api.keys]]\n{lines}")).replacen(
        "[http_api]",
        "[http_api]\nexternal = true",
        1,
    );
    let server = Start::with_config(&text).run();
    let by_apikey = format!("apikey {key}");
    for address in [server.listen, server.internal] {
        for headers in [
            [("X-API-Key", key.as_str())],
            [("Authorization", by_apikey.as_str())],
            [("X-API-Key", API_KEY)],
        ] {
            assert_eq!(
                ask(address, "info", &headers, &json!({})).status,
                200,
                "{headers:?}"
            );
        }
        let query = format!("/api/info?api_key={key}");
        assert_eq!(Http::open(address).post(&query, &[], b"{}").status, 200);
        for wrong in [hash.as_str(), "", "***", &key[1..]] {
            let answer = ask(address, "info", &[("X-API-Key", wrong)], &json!({}));
            assert_eq!(answer.status, 401, "{wrong}");
        }
    }
    // Nobody tells it, neither as it is nor hashed.
    let directory = TempDir::new().expect("a directory");
    let checked = binary(directory.path())
        .arg("--config")
        .arg(server.directory().join("ringmain.toml"))
        .arg("check")
        .status();
    assert!(checked.expect("the binary starts").success());
    let metrics = Http::open(server.admin).get("/metrics", &[]).text();
    for text in [read_log(directory.path()), server.log(), metrics] {
        assert!(!text.contains(&key) && !text.contains(&hash[7..]), "{text}");
    }
}

#[test]
fn what_cannot_be_a_key_is_refused_with_a_reason() {
    for (arguments, input) in [
        (&["hash"][..], ""),
        (&["hash"], "short\n"),
        (&["hash"], "a key with blanks in it\n"),
        (&["new", "--name", "no name"], ""),
    ] {
        let (status, text) = key_command(arguments, input);
        assert_eq!(
            (status, text.as_str()),
            (Some(2), ""),
            "{arguments:?} {input:?}"
        );
    }
}

#[test]
fn key_opens_its_methods_and_namespaces_and_refuses_the_rest_with_103() {
    let keys = r#"
[[http_api.keys]]
name = "publisher"
key = "key-of-a-publisher"
methods = ["publish", "broadcast"]
namespaces = ["orders", ""]
[[http_api.keys]]
name = "reader"
key = "key-of-a-reader"
methods = ["presence*", "info"]
"#;
    let server = Start::with_config(&config(&format!("{keys}{NAMESPACES}")))
        .shards(2)
        .run();
    let by = |key: &'static str, method: &str, body: Value| {
        let answer = ask(server.listen, method, &[("X-API-Key", key)], &body);
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()
    };
    let publisher = |method, body| by("key-of-a-publisher", method, body);
    let publish = |channel: &str| json!({ "channel": channel, "data": 1 });
    assert_eq!(code(&publisher("publish", publish("orders:1"))), 0);
    assert_eq!(code(&publisher("publish", publish("plain"))), 0);
    for closed in ["chat:1", "unknown:1"] {
        let answer = publisher("publish", publish(closed));
        assert_eq!(code(&answer), 103, "{closed}");
        let message = answer["error"]["message"].as_str().expect("a message");
        assert!(
            message.starts_with("permission denied: the key does not open"),
            "{message}"
        );
    }
    let channels = json!({ "channels": ["orders:1", "chat:1", "plain"], "data": 1 });
    let answer = publisher("broadcast", channels);
    let responses = answer["result"]["responses"].as_array().expect("responses");
    let codes: Vec<u64> = responses.iter().map(code).collect();
    assert_eq!(codes, [0, 103, 0]);
    let batch = json!({ "commands": [
        { "publish": publish("orders:1") }, { "publish": publish("chat:1") }, { "info": {} },
    ] });
    let answer = publisher("batch", batch);
    let replies = answer["replies"].as_array().expect("replies");
    assert!(replies[0].get("publish").is_some(), "{answer}");
    assert_eq!(
        [code(&replies[1]), code(&replies[2])],
        [103, 103],
        "{answer}"
    );
    assert_eq!(code(&publisher("info", json!({}))), 103);
    let reader = |method, body| by("key-of-a-reader", method, body);
    assert_eq!(code(&reader("presence", json!({ "channel": "chat:1" }))), 0);
    assert_eq!(code(&reader("info", json!({}))), 0);
    assert_eq!(code(&reader("publish", publish("chat:1"))), 103);
    // The older form, and statuses for errors.
    let command = json!({ "id": 1, "method": "publish", "params": publish("chat:1") });
    let key = ("X-API-Key", "key-of-a-publisher");
    let older = Http::open(server.listen).post("/api", &[key], command.to_string().as_bytes());
    assert_eq!(code(&older.json()), 103, "{}", older.text());
    let statuses = ("X-Centrifugo-Error-Mode", "transport");
    let answer = ask(
        server.listen,
        "publish",
        &[key, statuses],
        &publish("chat:1"),
    );
    assert_eq!(answer.status, 403);
    let metrics = Http::open(server.admin).get("/metrics", &[]).text();
    let reads = "ringmain_api_key_requests_total{key=\"reader\"} 3";
    assert!(metrics.lines().any(|line| line == reads), "{metrics}");
}

#[test]
fn key_ends_at_its_time_and_its_bearer_is_told_so() {
    let with_end = |end: &str| {
        config(&format!(
            "[[http_api.keys]]\nname = \"guest\"\nkey = \"key-of-a-guest\"\nexpires = \"{end}\"\n\
             [[admin.keys]]\nname = \"guest\"\nkey = \"key-of-an-operator\"\nexpires = \"{end}\"\n"
        ))
    };
    let server = Server::start(&with_end("2999-12-31T23:59:59+01:00"));
    let api = || {
        ask(
            server.listen,
            "info",
            &[("X-API-Key", "key-of-a-guest")],
            &json!({}),
        )
    };
    let admin = || {
        let key = ("X-API-Key", "key-of-an-operator");
        let kind = ("Content-Type", "application/json");
        ask(server.admin, "queue/groups", &[key, kind], &json!({}))
    };
    assert_eq!((api().status, admin().status), (200, 200));
    server.write_config(&with_end("2020-01-01T00:00:00Z"));
    server.signal("HUP");
    wait::until("the end of the keys", || {
        (api().status == 401 && admin().status == 401).then_some(())
    });
    assert!(api().text().contains("expired") && admin().text().contains("expired"));
    let log = server.log();
    assert!(log.contains("the key `guest` has expired"), "{log}");
    let wrong = ask(
        server.listen,
        "info",
        &[("X-API-Key", "another")],
        &json!({}),
    );
    assert!(
        !wrong.text().contains("expired"),
        "who has no key is told nothing"
    );
}
