//! The description of the server API is what the running server does.

use std::sync::OnceLock;

use serde_json::{Value, json};

use crate::servers::{plain, with_namespaces};
use crate::support::client::Client;
use crate::support::http::Http;
use crate::support::process::{API_KEY, Server, config};

/// With a durable log.
fn durable() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(|| {
        Server::start(&config(
            r#"
[durable.embedded]
directory = "events"

[[channel.namespaces]]
name = "orders"
delivery = "durable"
"#,
        ))
    })
}

/// Of its own: the examples disconnect and sign out users whom other tests are.
fn memory() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(|| {
        let client = "\n[client]\nallow_anonymous_connect_without_token = true\n";
        Server::start(&with_namespaces(client))
    })
}

fn document() -> Value {
    let response = Http::open(plain().admin).get("/api/openapi.json", &[]);
    assert_eq!(response.status, 200);
    assert_eq!(response.header("content-type"), Some("application/json"));
    assert!(!response.text().contains(API_KEY));
    response.json()
}

/// What of `value` does not fit `schema`.
fn misfit(document: &Value, schema: &Value, value: &Value, at: &str) -> Option<String> {
    if let Some(path) = schema["$ref"].as_str() {
        let target = document
            .pointer(path.strip_prefix('#').expect("of this document"))
            .expect("it leads somewhere");
        return misfit(document, target, value, at);
    }
    let fits = match schema["type"].as_str() {
        Some("object") => value.is_object(),
        Some("array") => value.is_array(),
        Some("string") => value.is_string(),
        Some("integer") => value.is_i64() || value.is_u64(),
        Some("number") => value.is_number(),
        Some("boolean") => value.is_boolean(),
        Some(other) => panic!("type {other}"),
        None => true,
    };
    if !fits {
        return Some(format!("{at}: {value} is no {}", schema["type"]));
    }
    for name in schema["required"].as_array().into_iter().flatten() {
        let name = name.as_str().expect("a name");
        if value.get(name).is_none() {
            return Some(format!("{at}: {name} is missing"));
        }
    }
    if let (Some("object"), Some(members)) = (schema["type"].as_str(), value.as_object()) {
        for (name, member) in members {
            let inner = schema["properties"]
                .get(name)
                .or(schema.get("additionalProperties"));
            // An object without listed properties holds anything.
            if inner.is_none() && schema.get("properties").is_none() {
                continue;
            }
            let Some(inner) = inner else {
                return Some(format!("{at}: {name} is not described"));
            };
            if let Some(misfit) = misfit(document, inner, member, &format!("{at}.{name}")) {
                return Some(misfit);
            }
        }
    }
    for (index, item) in value.as_array().into_iter().flatten().enumerate() {
        if let Some(misfit) = misfit(document, &schema["items"], item, &format!("{at}[{index}]")) {
            return Some(misfit);
        }
    }
    None
}

#[test]
fn c70_every_path_of_the_description_is_answered_as_it_says() {
    let mut member = Client::user(memory(), "openapi");
    member.subscribe("members:1");
    memory().api_result(
        "publish",
        &json!({ "channel": "kept:1", "data": { "n": 1 }, "tags": { "a": "b" } }),
    );
    memory().api_result(
        "publish",
        &json!({ "channel": "kept:1", "b64data": "AP8=" }),
    );
    let document = document();
    let paths = document["paths"].as_object().expect("paths");
    assert!(paths.len() > 14, "every method, and the legacy form");
    durable().api_result(
        "queue/fetch",
        &json!({ "group": "billing", "channels": ["orders:*"] }),
    );
    // No backend, no such letter, delivery or publication, and nobody who replies.
    let asks_in_vain = [
        "/api/rpc",
        "/api/dlq/show",
        "/api/queue/reply",
        "/api/queue/request",
        "/api/scheduled/cancel",
        "/api/scheduled/change",
    ];
    let of_the_log = ["/api/dlq/", "/api/queue/", "/api/replay", "/api/scheduled/"];
    for (path, item) in paths {
        let is_of_the_log = of_the_log.iter().any(|start| path.starts_with(start));
        let server = if is_of_the_log { durable() } else { memory() };
        let content = &item["post"]["requestBody"]["content"]["application/json"];
        let example = content["example"].to_string();
        assert_eq!(
            misfit(&document, &content["schema"], &content["example"], path),
            None
        );
        let post = |headers: &[(&str, &str)]| {
            Http::open(server.listen).post(path, headers, example.as_bytes())
        };
        assert_eq!(post(&[]).status, 401, "{path}");
        assert_eq!(
            Http::open(server.listen).get(path, &[]).status,
            405,
            "{path}"
        );
        let response = post(&[("X-API-Key", API_KEY)]);
        assert_eq!(response.status, 200, "{path}");
        let schema = &item["post"]["responses"]["200"]["content"]["application/json"]["schema"];
        let answer = response.json();
        assert_eq!(misfit(&document, schema, &answer, path), None, "{answer}");
        let is_error = answer.get("error").is_some();
        assert_eq!(
            is_error,
            asks_in_vain.contains(&path.as_str()),
            "{path}: {answer}"
        );
    }
}

#[test]
fn c70_errors_have_the_statuses_of_the_description_in_transport_mode() {
    let document = document();
    let cases = [
        (
            "publish",
            json!({ "channel": "nowhere:1", "data": 1 }),
            "404",
        ),
        ("publish", json!({ "channel": "open:1" }), "400"),
        (
            "history",
            json!({ "channel": "kept:1", "since": { "offset": 1, "epoch": "wrong" } }),
            "416",
        ),
    ];
    for (method, body, status) in cases {
        let headers = [
            ("X-API-Key", API_KEY),
            ("X-Centrifugo-Error-Mode", "transport"),
        ];
        let response = Http::open(plain().listen).post(
            &format!("/api/{method}"),
            &headers,
            body.to_string().as_bytes(),
        );
        assert_eq!(response.status.to_string(), status, "{method}");
        let described = &document["paths"][format!("/api/{method}")]["post"]["responses"][status];
        let schema = &described["content"]["application/json"]["schema"];
        assert_eq!(misfit(&document, schema, &response.json(), method), None);
    }
}
