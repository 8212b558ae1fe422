//! JSON from others: what may be left out may be `null`, what is wrong is named, what cannot be read is never taken for a no.

use std::path::Path;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::backend::{Backend, Reply};
use crate::support::client::{Client, Encoding, PATH};
use crate::support::http::Http;
use crate::support::process::{API_KEY, Server, Start, binary, config, read_log};
use crate::support::token::{after, sign};
use crate::support::wait::until;

fn nested(levels: usize) -> String {
    "[".repeat(levels) + &"]".repeat(levels)
}

/// Connects and subscribes through a backend; `odd:` answers what nobody agreed on.
fn hooked(backend: &Backend) -> Server {
    Server::start(&config(&format!(
        r#"
[client.proxy.connect]
enabled = true
endpoint = "{}"
[channel.proxy.subscribe]
endpoint = "{}"
[channel.proxy.publish]
endpoint = "{}"
[rpc.proxy]
endpoint = "{}"
[rpc.without_namespace]
proxy_enabled = true
[channel.without_namespace]
subscribe_proxy_enabled = true
publish_proxy_enabled = true
"#,
        backend.url("/connect"),
        backend.url("/subscribe"),
        backend.url("/publish"),
        backend.url("/rpc"),
    )))
}

#[test]
fn backends_that_print_every_member_as_null_are_understood() {
    let backend = Backend::start(|asked| {
        Reply::Json(match asked.path.as_str() {
            "/connect" => json!({ "error": null, "disconnect": null, "result": {
                "user": "5", "expire_at": null, "info": null, "b64info": null, "data": null, "b64data": null,
                "channels": null, "subs": { "mine": null }, "meta": null, "caps": null,
            } }),
            "/subscribe" => json!({ "error": null, "disconnect": null, "result": {
                "expire_at": null, "info": null, "b64info": null, "data": null, "b64data": null, "cache_recover": null,
                "override": { "presence": { "value": null }, "join_leave": null, "force_recovery": null },
            } }),
            "/publish" => json!({ "error": null, "disconnect": null, "result": {
                "data": null, "b64data": null, "skip_history": null, "tags": null, "idempotency_key": null,
                "delta": null, "version": null, "version_epoch": null,
            } }),
            _ => {
                json!({ "result": null, "disconnect": null, "error": { "code": 1404, "message": null, "temporary": null } })
            }
        })
    });
    let server = hooked(&backend);
    let mut client = Client::open(&server);
    let result = client.ok("connect", &json!({}));
    assert_eq!(result["subs"], json!({ "mine": {} }), "{result}");
    assert!(result.get("expires").is_none(), "{result}");
    client.subscribe("a");
    client.publish("a", &json!({ "n": 1 }));
    assert_eq!(client.publication("a")["data"], json!({ "n": 1 }));
    let refused = client.call("rpc", &json!({ "method": "m" }));
    assert_eq!(refused["error"], json!({ "code": 1404, "message": "" }));
    let failures = server.metric("ringmain_hook_failures_total");
    assert!(failures == 0.0, "{failures} failures for the breaker");
}

#[test]
fn refused_answer_of_a_backend_is_told_once_with_its_member_and_without_its_values() {
    let backend = Backend::start(|_| {
        Reply::result(json!({ "user": "5", "subs": { "chat:1": { "expire_at": "SECRET" } } }))
    });
    let server = hooked(&backend);
    for _ in 0..5 {
        let mut client = Client::open(&server);
        assert_eq!(client.error("connect", &json!({})), 100);
    }
    let log = server.log();
    let line = r#"result.subs[\"chat:1\"].expire_at: expected a whole number"#;
    let plain = line.replace('\\', "");
    let told = log.matches(line).count() + log.matches(&plain).count();
    assert_eq!(told, 1, "{log}");
    assert!(!log.contains("SECRET"), "{log}");
}

#[test]
fn what_a_backend_sends_to_clients_is_no_deeper_than_they_read() {
    let deep = |levels: usize| serde_json::from_str::<Value>(&nested(levels)).expect("JSON");
    let backend = Backend::start(move |asked| match asked.path.as_str() {
        "/connect" => Reply::result(json!({ "user": "5", "data": deep(64) })),
        "/rpc" => Reply::result(json!({ "data": deep(65) })),
        _ => Reply::result(json!({ "info": deep(65), "data": deep(65) })),
    });
    let server = hooked(&backend);
    let mut client = Client::open(&server);
    client.ok("connect", &json!({}));
    assert_eq!(client.error("rpc", &json!({ "method": "m" })), 100);
    assert_eq!(client.error("subscribe", &json!({ "channel": "a" })), 100);
    assert_eq!(
        client.error("publish", &json!({ "channel": "a", "data": 1 })),
        100
    );
}

#[test]
fn tokens_with_null_claims_connect_and_subscribe() {
    let server = Server::start(&config(""));
    let claims = json!({
        "sub": "42", "exp": after(600), "nbf": null, "iat": null, "jti": null, "expire_at": null, "aud": null, "iss": null,
        "channel": null, "client": null, "info": null, "b64info": null, "data": null, "b64data": null, "meta": null,
        "channels": null, "consume": null, "override": null, "subs": { "mine": null },
    });
    let mut client = Client::open(&server);
    let result = client.ok("connect", &json!({ "token": sign(&claims) }));
    assert_eq!(result["subs"], json!({ "mine": {} }), "{result}");
}

fn durable(directory: &Path) -> String {
    config(&format!(
        r#"
[durable.embedded]
directory = "{}"

[client]
json_depth_max = 20

[channel.without_namespace]
allow_publish_for_client = true
allow_subscribe_for_client = true

[[channel.namespaces]]
name = "orders"
delivery = "durable"
history_size = 8
history_ttl = "60s"
allow_publish_for_client = true

[[channel.namespaces.triggers]]
name = "large"
condition = "n > 100"
append = "large:{{rest}}"

[[channel.namespaces]]
name = "large"
delivery = "durable"

[[channel.namespaces]]
name = "strict"
delivery = "durable"
allow_publish_for_client = true
schema.versions = [{{ version = 1, json_schema = '{{"properties":{{"n":{{"maximum":5}}}}}}' }}]
"#,
        directory.display()
    ))
}

fn start(directory: &Path) -> Server {
    Start::with_config(&durable(directory)).shards(2).run()
}

fn published(server: &Server, channel: &str, payload: &str) -> Value {
    let body = format!(r#"{{"channel":"{channel}","data":{payload}}}"#);
    server.api_response("publish", &body).json()
}

#[test]
fn trigger_is_not_evaded_by_what_stands_beside_its_member() {
    let directory = tempfile::tempdir().expect("a directory");
    let server = start(directory.path());
    let deep = nested(19);
    let payloads = [
        r#"{"n":101}"#.to_owned(),
        r#"{"n":101,"x":"\ud800"}"#.to_owned(),
        r#"{"x":1e999,"n":101}"#.to_owned(),
        format!(r#"{{"n":101,"x":{deep}}}"#),
        r#"{"n":1e999}"#.to_owned(),
        r#"{"n":100.00000000000000000000000001}"#.to_owned(),
    ];
    for payload in [r#"{"n":100}"#, r#"{"n":"101"}"#, r#"{"m":101}"#] {
        published(&server, "orders:1", payload);
    }
    for payload in &payloads {
        let answer = published(&server, "orders:1", payload);
        assert!(answer.get("error").is_none(), "{payload}: {answer}");
    }
    let wanted = payloads.len() as u64;
    let fired = until("what fires", || {
        let top = server.api_result("history", &json!({ "channel": "large:1" }));
        top["offset"].as_u64().filter(|&offset| offset >= wanted)
    });
    assert_eq!(fired, wanted);
}

#[test]
fn what_a_condition_cannot_read_becomes_a_dead_letter_with_the_reason() {
    let directory = tempfile::tempdir().expect("a directory");
    let server = start(directory.path());
    for payload in [r#"{"n":101,"n":1}"#, r#"{"n":1,"\u006e":101}"#] {
        assert!(
            published(&server, "orders:1", payload)
                .get("error")
                .is_none()
        );
    }
    let binary = json!({ "channel": "orders:1", "b64data": "eyJuIjoxMDEsfQ==" });
    server.api_result("publish", &binary);
    let letters = until("dead letters", || {
        let list = server.api_result("dlq/list", &json!({}));
        let letters = list["letters"].as_array().cloned().unwrap_or_default();
        (letters.len() >= 3).then_some(letters)
    });
    let mut reasons: Vec<&str> = letters
        .iter()
        .filter_map(|letter| letter["reason"].as_str())
        .collect();
    // They stand in the order of their ids, which of one millisecond is any.
    reasons.sort_unstable();
    let ambiguous = "condition: ambiguous: the payload has the member `n` more than once";
    assert_eq!(
        reasons,
        [ambiguous, ambiguous, "condition: the payload is not JSON"]
    );
    // A replay cannot judge them either: it leaves them out and says so.
    let ask = json!({ "channels": ["orders:*"], "where": "n > 100" });
    let page = server.api_result("replay", &ask);
    assert_eq!(
        (&page["events"], &page["unreadable"]),
        (&json!([]), &json!(3)),
        "{page}"
    );
    let named = page["unreadable_events"].as_array().map(Vec::len);
    assert_eq!(named, Some(3), "{page}");
}

#[test]
fn json_deeper_than_clients_read_is_refused_at_every_door() {
    let directory = tempfile::tempdir().expect("a directory");
    let server = start(directory.path());
    for channel in ["lobby", "orders:1", "strict:1"] {
        let fine = published(&server, channel, &nested(20));
        assert!(fine.get("error").is_none(), "{channel}: {fine}");
        let deep = published(&server, channel, &nested(21));
        assert_eq!(deep["error"]["code"], 107, "{channel}: {deep}");
        let message = deep["error"]["message"].as_str().expect("a message");
        assert!(message.contains("client.json_depth_max"), "{message}");
        let encoded = base64(&nested(21));
        let deep = server.api(
            "publish",
            &json!({ "channel": channel, "b64data": encoded }),
        );
        assert_eq!(deep["error"]["code"], 107, "{channel}: {deep}");
    }
    let data: Value = serde_json::from_str(&nested(21)).expect("JSON");
    let broadcast = server.api_result("broadcast", &json!({ "channels": ["lobby"], "data": data }));
    assert_eq!(broadcast["responses"][0]["error"]["code"], 107);
    for encoding in [Encoding::Json, Encoding::Protobuf] {
        let mut client = Client::open_as(&server, encoding);
        let token = sign(&json!({ "sub": "42", "exp": after(600) }));
        client.ok("connect", &json!({ "token": token }));
        for channel in ["lobby", "orders:1"] {
            let publish = json!({ "channel": channel, "data": data });
            assert_eq!(client.error("publish", &publish), 107, "{channel}");
            let rpc = json!({ "method": "ringmain.publish", "data": publish });
            assert_eq!(client.error("rpc", &rpc), 107, "{channel}");
        }
    }
    for (method, member) in [
        ("subscribe", "info"),
        ("subscribe", "data"),
        ("refresh", "info"),
    ] {
        let mut body = json!({ "user": "42", "channel": "lobby" });
        body[member] = data.clone();
        assert_eq!(server.api_error(method, &body), 107, "{method} {member}");
        body[member] = serde_json::from_str(&nested(20)).expect("JSON");
        server.api_result(method, &body);
    }
    for claims in [
        json!({ "sub": "42", "info": data }),
        json!({ "sub": "42", "subs": { "lobby": { "info": data } } }),
        json!({ "sub": "42", "subs": { "lobby": { "data": data } } }),
    ] {
        let mut client = Client::open(&server);
        client.send("connect", &json!({ "token": sign(&claims) }));
        client.ends_with(3500);
    }
    let mut client = Client::user(&server, "42");
    let claims = json!({ "sub": "42", "channel": "lobby", "info": data });
    let subscribe = json!({ "channel": "lobby", "token": sign(&claims) });
    assert_eq!(client.error("subscribe", &subscribe), 103);
    // What is no JSON has no depth.
    let binary = base64(&"[".repeat(5000));
    server.api_result("publish", &json!({ "channel": "lobby", "b64data": binary }));
}

fn base64(text: &str) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(text)
}

#[test]
fn schema_is_not_evaded_by_a_member_that_stands_twice() {
    let directory = tempfile::tempdir().expect("a directory");
    let server = start(directory.path());
    let publish = |payload: &str| {
        let body = format!(r#"{{"channel":"strict:1","schema":1,"data":{payload}}}"#);
        server.api_response("publish", &body).json()
    };
    assert!(publish(r#"{"n":5}"#).get("error").is_none());
    for payload in [
        r#"{"n":6}"#,
        r#"{"n":6,"n":5}"#,
        r#"{"n":1e999}"#,
        r#"{"n":5,"x":"\ud800"}"#,
    ] {
        assert_eq!(publish(payload)["error"]["code"], 107, "{payload}");
    }
}

#[test]
fn options_that_a_durable_publication_does_not_have_are_named() {
    let directory = tempfile::tempdir().expect("a directory");
    let server = start(directory.path());
    let message = |body: &Value| {
        let answer = server.api("publish", body);
        assert_eq!(answer["error"]["code"], 107, "{answer}");
        answer["error"]["message"]
            .as_str()
            .expect("a message")
            .to_owned()
    };
    for (member, wanted) in [
        ("visibility", "visibility: unknown, known are "),
        ("ttl", "ttl: unknown, "),
        ("priority", "priority: unknown, "),
        ("idempotency_keys", "did you mean `idempotency_key`?"),
    ] {
        let mut body = json!({ "channel": "orders:1", "data": 1 });
        body[member] = json!(5);
        let told = message(&body);
        assert!(told.contains(wanted), "{told}");
        // The methods of the reference ignore what they do not know.
        body["channel"] = json!("lobby");
        server.api_result("publish", &body);
    }
    assert_eq!(
        message(&json!({ "channel": "orders:1", "data": 1, "schema": 9 })),
        "bad request: schema: the namespace of the channel has none, leave it out"
    );
    assert_eq!(
        message(&json!({ "channel": "lobby", "data": 1, "schema": 9 })),
        "bad request: schema: only channels of durable namespaces have one"
    );
    assert_eq!(
        message(&json!({ "channel": "lobby" })),
        "bad request: `data` is missing"
    );
    let mut client = Client::user(&server, "42");
    for (data, wanted) in [
        (json!({ "channel": "orders:1" }), "`data` is missing"),
        (json!({ "data": 1 }), "`channel` is missing"),
        (
            json!({ "channel": "orders:1", "data": 1, "ttl": 5 }),
            "ttl: unknown, ",
        ),
        (
            json!({ "channel": "orders:1", "data": 1, "keys": "k" }),
            "did you mean `key`?",
        ),
        (
            json!({ "channel": "orders:1", "data": 1, "schema": 9 }),
            "schema: the namespace",
        ),
        (
            json!({ "channel": "orders:1", "data": 1, "b64data": "MQ==" }),
            "exclude each other",
        ),
        (
            json!({ "channel": 5, "data": 1 }),
            "channel: expected a string",
        ),
    ] {
        let reply = client.call(
            "rpc",
            &json!({ "method": "ringmain.publish", "data": data }),
        );
        assert_eq!(reply["error"]["code"], 107, "{reply}");
        let told = reply["error"]["message"].as_str().expect("a message");
        assert!(told.contains(wanted), "{told}");
    }
    let nulls = json!({ "channel": "orders:1", "data": 1, "b64data": null, "key": null, "schema": null, "tags": null,
        "trace": null, "delta": null, "deliver_at": null, "delay_ms": null });
    let rpc = json!({ "method": "ringmain.publish", "data": nulls });
    assert!(client.ok("rpc", &rpc)["data"]["offset"].is_u64());
}

#[test]
fn questions_to_the_log_name_the_member_that_is_wrong_on_both_listeners() {
    let directory = tempfile::tempdir().expect("a directory");
    let server = start(directory.path());
    for (method, body, wanted) in [
        (
            "queue/fetch",
            json!({ "groups": "g" }),
            "groups: unknown, did you mean `group`?",
        ),
        (
            "queue/ack",
            json!({ "delivry": 1 }),
            "delivry: unknown, did you mean `delivery`?",
        ),
        (
            "queue/groups",
            json!({ "group": "g" }),
            "group: unknown, nothing may stand here",
        ),
        (
            "dlq/list",
            json!({ "limits": 1 }),
            "limits: unknown, did you mean `limit`?",
        ),
        (
            "replay",
            json!({ "channels": ["orders:*"], "were": "n = 1" }),
            "were: unknown, did you mean `where`?",
        ),
        (
            "replay",
            json!({ "channels": ["orders:*"], "where": "$.n = 3" }),
            "leave out `$`",
        ),
        (
            "replay",
            json!({ "channels": ["orders:*"], "where": "n = abc" }),
            r#"write `"abc"`"#,
        ),
    ] {
        let text = body.to_string();
        let admin = ["dlq/list", "replay", "queue/groups"].contains(&method);
        let path = format!("/api/{method}");
        let headers = [("X-API-Key", API_KEY), ("Content-Type", "application/json")];
        for address in [Some(server.listen), admin.then_some(server.admin)]
            .into_iter()
            .flatten()
        {
            let response = Http::open(address).post(&path, &headers, text.as_bytes());
            assert_eq!(response.status, 200, "{method}");
            let answer = response.json();
            assert_eq!(answer["error"]["code"], 107, "{method}: {answer}");
            let told = answer["error"]["message"].as_str().expect("a message");
            assert!(told.contains(wanted), "{method}: {told}");
        }
    }
    let nulls =
        json!({ "group": null, "event_id": null, "all": null, "after": null, "limit": null });
    assert_eq!(server.api_result("dlq/list", &nulls)["letters"], json!([]));
}

#[test]
fn bad_body_says_which_member() {
    let server = Server::start(&config(""));
    let response = server.api_response("publish", r#"{"channel":"a","data":1,"tags":{"k":5}}"#);
    assert_eq!(response.status, 400);
    assert_eq!(
        response.text(),
        "malformed body: tags.k: expected a string\n"
    );
}

fn run(arguments: &[&str], text: &str) -> (Option<i32>, String) {
    let directory = TempDir::new().expect("a directory");
    std::fs::write(directory.path().join("ringmain.toml"), text).expect("the file");
    let status = binary(directory.path())
        .args(arguments)
        .status()
        .expect("the binary starts");
    (status.code(), read_log(directory.path()))
}

#[test]
fn check_refuses_conditions_that_no_payload_can_fit_and_says_what_to_write() {
    for (condition, advice) in [
        ("$.n = 3", "leave out `$`"),
        ("n = abc", "a text stands in double quotes"),
        ("list = [1,2]", "list[0] = 1"),
        ("n = 1 and n = 2", "no payload can fit"),
        ("n =", "expected a value at byte 3"),
    ] {
        let text = durable(Path::new("log")).replace("n > 100", condition);
        for command in ["check", "serve"] {
            let (status, printed) = run(&[command], &text);
            assert_eq!(status, Some(2), "{condition}: {printed}");
            assert_eq!(printed.matches(advice).count(), 1, "{condition}: {printed}");
            assert!(printed.contains("triggers[0].condition"), "{printed}");
        }
    }
}

#[test]
fn what_is_wrong_is_printed_once() {
    let arguments = ["queue", "groups", "--address", "127.0.0.1:1"];
    let (status, printed) = run(&arguments, &config(""));
    assert_eq!(status, Some(1), "{printed}");
    assert_eq!(printed.matches("os error 111").count(), 1, "{printed}");
    let (_, printed) = run(&["check", "--config", "/nowhere.toml"], "");
    assert_eq!(printed.matches("os error 2").count(), 1, "{printed}");
}

#[test]
fn payloads_of_clients_are_checked_in_both_encodings_and_null_is_one() {
    let server = Server::start(&config(
        "[channel.without_namespace]\nallow_publish_for_client = true\nallow_subscribe_for_client = true\n",
    ));
    let mut client = Client::user(&server, "42");
    client.subscribe("a");
    client.publish("a", &Value::Null);
    assert_eq!(client.publication("a")["data"], Value::Null);
    server.api_result("publish", &json!({ "channel": "a", "data": null }));
    assert_eq!(client.publication("a")["data"], Value::Null);
    let mut text = Client::open_with(&server, PATH, &[]);
    let token = sign(&json!({ "sub": "42", "exp": after(600) }));
    text.ok("connect", &json!({ "token": token }));
    for levels in [64, 65] {
        let data: Value = serde_json::from_str(&nested(levels)).expect("JSON");
        let reply = text.call("publish", &json!({ "channel": "a", "data": data }));
        assert_eq!(
            reply["error"]["code"].as_u64(),
            (levels > 64).then_some(107),
            "{levels}"
        );
    }
}
