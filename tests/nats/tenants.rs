//! Tenants that are added while processes run: JetStream keeps them for all of them.

use serde_json::{Value, json};

use crate::nats_server::NatsServer;
use crate::support::http::Http;
use crate::support::process::{API_KEY, Server, Start, config};
use crate::support::wait;

fn start(nats: &NatsServer) -> Server {
    let rules = config(&format!(
        r#"
[durable]
engine = "nats"
nats.servers = ["{}"]

[[channel.namespaces]]
name = "orders"
delivery = "durable"
"#,
        nats.url(),
    ));
    Start::with_config(&rules).shards(2).run()
}

fn managed(server: &Server, method: &str, path: &str, body: &Value) -> (u16, Value) {
    let headers = [("X-API-Key", API_KEY), ("Content-Type", "application/json")];
    let path = format!("/admin/tenants{path}");
    let body = body.to_string();
    let response = Http::open(server.admin).request(method, &path, &headers, body.as_bytes());
    (response.status, response.json())
}

fn ids(server: &Server) -> Vec<String> {
    let (_, list) = managed(server, "GET", "", &Value::Null);
    let tenants = list["tenants"].as_array().expect("a list");
    let id = |one: &Value| one["id"].as_str().expect("an id").to_owned();
    tenants.iter().map(id).collect()
}

#[test]
fn what_one_process_adds_or_removes_the_others_follow_and_a_restart_keeps() {
    let mut nats = NatsServer::start();
    let (one, two) = (start(&nats), start(&nats));
    let known = |server: &Server, expected: &[&str]| {
        wait::until("the tenants", || (ids(server) == expected).then_some(()));
    };
    for id in ["b", "a"] {
        let (status, answer) = managed(
            &one,
            "POST",
            "",
            &json!({ "id": id, "hosts": [format!("{id}.test")] }),
        );
        assert_eq!(status, 200, "{answer}");
    }
    known(&two, &["a", "b"]);
    // The other one knows it before it answers, whatever it has seen by then.
    let (status, answer) = managed(&two, "POST", "", &json!({ "id": "c", "hosts": ["a.test"] }));
    assert_eq!(status, 422, "{answer}");
    let (status, answer) = managed(&two, "DELETE", "/a", &Value::Null);
    assert_eq!(status, 200, "{answer}");
    let (status, answer) = managed(&one, "POST", "", &json!({ "id": "c", "hosts": ["a.test"] }));
    assert_eq!(status, 200, "{answer}");
    known(&two, &["b", "c"]);
    drop(two);
    known(&start(&nats), &["b", "c"]);
    // One that starts while the log is away serves, says so, and has them when it is back.
    nats.kill();
    let late = start(&nats);
    let (status, answer) = managed(&late, "POST", "", &json!({ "id": "d" }));
    assert_eq!(
        (status, &answer["error"]["reason"]),
        (503, &json!("unavailable")),
        "{answer}"
    );
    assert_eq!(managed(&late, "GET", "", &Value::Null).1["complete"], false);
    nats.restart();
    known(&late, &["b", "c"]);
    assert_eq!(managed(&late, "GET", "", &Value::Null).1["complete"], true);
}
