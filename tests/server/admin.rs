//! Control's own listener.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::client::Client;
use crate::support::http::{Http, Response};
use crate::support::process::{
    API_KEY, Server, Start, binary, config, reactor_under_test, read_log,
};
use crate::support::wait;

#[test]
fn health_ready_and_metrics_are_on_the_admin_listener_only() {
    let server = Server::start(&config("[client]\ninsecure = true\n"));
    let mut admin = Http::open(server.admin);
    assert_eq!(admin.get("/health", &[]).status, 200);
    assert_eq!(admin.get("/ready", &[]).status, 200);
    let metrics = admin.get("/metrics", &[]);
    assert_eq!(metrics.status, 200);
    assert!(
        metrics
            .header("content-type")
            .is_some_and(|kind| kind.starts_with("text/plain"))
    );
    assert!(
        metrics
            .text()
            .lines()
            .any(|line| line.starts_with("# TYPE ringmain_"))
    );
    assert_eq!(admin.get("/never", &[]).status, 404);
    for path in ["/health", "/ready", "/metrics"] {
        assert_eq!(
            Http::open(server.listen).get(path, &[]).status,
            404,
            "{path} is not for clients"
        );
    }
    assert_eq!(
        server.reactor,
        reactor_under_test(),
        "the tests drive the reactor they are told to"
    );
}

#[test]
fn metrics_follow_the_connections() {
    let server = Server::start(&config("[client]\ninsecure = true\n"));
    let sum = || -> f64 { server.metric("ringmain_connections") };
    let clients: Vec<Client> = (0..7).map(|_| Client::anonymous(&server)).collect();
    wait::until("seven connections in the metrics", || {
        (sum() >= 7.0).then_some(())
    });
    drop(clients);
    wait::until("none in the metrics", || (sum() < 1.0).then_some(()));
}

#[test]
fn secrets_appear_neither_in_metrics_nor_in_the_log() {
    let server = Server::start(&config("[client]\ninsecure = true\n"));
    drop(Client::user(&server, "42"));
    let metrics = Http::open(server.admin).get("/metrics", &[]).text();
    for text in [metrics, server.log()] {
        assert!(!text.contains("token-secret-of-the-tests"));
        assert!(!text.contains("api-key-of-the-tests"));
    }
}

const DURABLE: &str = r#"
[durable.embedded]
directory = "events"

[[channel.namespaces]]
name = "orders"
delivery = "durable"
"#;

/// A server whose group `billing` has something to lose.
fn with_a_group(start: Start) -> Server {
    let server = start.run();
    let publish = json!({ "channel": "orders:1", "data": { "card": "4711-secret" } });
    server.api_result("publish", &publish);
    let fetch =
        json!({ "group": "billing", "channels": ["orders:*"], "limit": 1, "wait_ms": 2000 });
    server.api_result("queue/fetch", &fetch);
    server
}

fn has_the_group(server: &Server) -> bool {
    let groups = server.api_result("queue/groups", &json!({}));
    groups.to_string().contains("billing")
}

fn ask(address: SocketAddr, path: &str, headers: &[(&str, &str)], body: &Value) -> Response {
    Http::open(address).post(path, headers, body.to_string().as_bytes())
}

#[test]
fn web_page_changes_and_reads_nothing_through_the_admin_listener() {
    let server = with_a_group(Start::with_config(&config(DURABLE)));
    const JSON: (&str, &str) = ("Content-Type", "application/json");
    const KEY: (&str, &str) = ("X-API-Key", API_KEY);
    let asks = [
        ("/api/queue/delete", json!({ "group": "billing" })),
        ("/api/queue/groups", json!({})),
        ("/api/dlq/list", json!({})),
        (
            "/api/dlq/show",
            json!({ "group": "billing", "event_id": "x" }),
        ),
        (
            "/api/dlq/retry",
            json!({ "group": "billing", "event_id": "x" }),
        ),
        (
            "/api/dlq/drop",
            json!({ "group": "billing", "event_id": "x" }),
        ),
        ("/api/replay", json!({ "channels": ["orders:*"] })),
    ];
    for (path, body) in &asks {
        // What a page can send without asking first, and under which name it could read the answer; with the key too.
        let plain = ("Content-Type", "text/plain");
        let refused: [(&[(&str, &str)], u16); 7] = [
            (&[("Origin", "http://evil.example"), plain], 403),
            (&[("Origin", "null"), plain, KEY], 403),
            (&[("Host", "rebind.evil"), JSON, KEY], 403),
            (&[("Sec-Fetch-Site", "cross-site"), JSON, KEY], 403),
            (&[plain, KEY], 415),
            (&[KEY], 415),
            (&[JSON], 401),
        ];
        for (headers, status) in refused {
            let answer = ask(server.admin, path, headers, body);
            assert_eq!(
                answer.status,
                status,
                "{path} {headers:?}: {}",
                answer.text()
            );
            assert!(!answer.text().contains("4711"), "{}", answer.text());
        }
        assert!(has_the_group(&server), "{path}");
    }
    for path in ["/ready", "/metrics", "/api/openapi.json"] {
        let mut admin = Http::open(server.admin);
        assert_eq!(
            admin.get(path, &[("Host", "rebind.evil")]).status,
            403,
            "{path}"
        );
        assert_eq!(admin.get(path, &[]).status, 200, "{path}");
    }
    let replay = ask(server.admin, "/api/replay", &[JSON, KEY], &asks[6].1);
    assert!(
        replay.text().contains("4711"),
        "who has the key may: {}",
        replay.text()
    );
}

/// Runs a command with this configuration; its status and everything printed.
fn run(config: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> (Option<i32>, String) {
    let directory = TempDir::new().expect("a directory");
    let status = binary(directory.path())
        .arg("--config")
        .arg(config)
        .args(arguments)
        .envs(environment.iter().copied())
        .status()
        .expect("the binary starts");
    (status.code(), read_log(directory.path()))
}

#[test]
fn commands_on_the_same_host_find_the_key_themselves() {
    let own_key = format!("[admin]\nkey = \"key-of-the-admin\"\n{DURABLE}");
    let server = with_a_group(Start::with_config(&config(&own_key)));
    let config = server.directory().join("ringmain.toml");
    let admin = server.admin.to_string();
    let listen = ("RINGMAIN__ADMIN__LISTEN", admin.as_str());
    for (arguments, environment) in [
        (&["queue", "groups", "--json"][..], &[listen][..]),
        (&["queue", "groups", "--address", &admin], &[]),
    ] {
        let (status, printed) = run(&config, arguments, environment);
        assert_eq!(status, Some(0), "{arguments:?}: {printed}");
        assert!(printed.contains("billing"), "{printed}");
    }
    let (status, printed) = run(&config, &["replay", "--channel", "orders:*"], &[listen]);
    assert_eq!(status, Some(0), "{printed}");
    assert!(printed.contains("4711-secret"), "{printed}");
    let wrong = ["queue", "groups", "--address", &admin, "--key", "wrong"];
    let (status, printed) = run(&config, &wrong, &[]);
    assert_eq!(status, Some(1), "{printed}");
    assert!(
        printed.contains("401") && printed.contains("--key"),
        "{printed}"
    );
    let given = [("RINGMAIN_ADMIN_KEY", "key-of-the-admin")];
    let elsewhere = TempDir::new().expect("a directory");
    let empty = elsewhere.path().join("empty.toml");
    std::fs::write(&empty, "").expect("a file");
    let (status, printed) = run(&empty, &["queue", "groups", "--address", &admin], &given);
    assert_eq!(status, Some(0), "{printed}");
}

#[test]
fn new_admin_key_counts_from_the_reload_on() {
    let with_key = |key: &str| config(&format!("[admin]\nkey = \"{key}\"\n{DURABLE}"));
    let server = Start::with_config(&with_key("old")).run();
    let status = |key: &str| {
        let headers = [("Content-Type", "application/json"), ("X-API-Key", key)];
        ask(server.admin, "/api/queue/groups", &headers, &json!({})).status
    };
    assert_eq!((status("old"), status("new")), (200, 401));
    server.write_config(&with_key("new"));
    server.signal("HUP");
    wait::until("the new key", || (status("new") == 200).then_some(()));
    assert_eq!(status("old"), 401);
}

#[test]
fn admin_listener_on_a_unix_socket_is_its_owners_and_needs_no_key() {
    let directory = TempDir::new().expect("a directory");
    let path = directory.path().join("admin.sock");
    let listen = format!("unix:{}", path.display());
    let server =
        with_a_group(Start::with_config(&config(DURABLE)).env("RINGMAIN__ADMIN__LISTEN", &listen));
    let mode = std::fs::metadata(&path)
        .expect("the socket")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    let mut admin = Http::over(UnixStream::connect(&path).expect("it listens"));
    assert_eq!(admin.get("/ready", &[("Host", "any.name")]).status, 200);
    let config = server.directory().join("ringmain.toml");
    let (status, printed) = run(
        &config,
        &["queue", "groups"],
        &[("RINGMAIN__ADMIN__LISTEN", &listen)],
    );
    assert_eq!(status, Some(0), "{printed}");
    assert!(printed.contains("billing"), "{printed}");
}

#[test]
fn web_page_uses_no_server_on_loopback_that_asks_for_nothing() {
    let open = "[client]\ninsecure = true\n[uni_sse]\nenabled = true\n";
    let text = config(open).replacen("[http_api]", "[http_api]\ninsecure = true", 1);
    let server = Start::with_config(&text).run();
    let body = json!({ "channel": "news", "data": 1 });
    for header in [
        ("Origin", "http://evil.example"),
        ("Origin", "null"),
        ("Sec-Fetch-Site", "cross-site"),
        ("Host", "rebind.evil"),
    ] {
        let plain = ("Content-Type", "text/plain");
        let answer = ask(server.listen, "/api/publish", &[header, plain], &body);
        assert_eq!(answer.status, 403, "{header:?}");
        let path = "/connection/uni_sse?cf_connect=%7B%7D";
        let mut http = Http::open(server.listen);
        http.send(&crate::support::http::encode("GET", path, &[header], b""));
        let start = http.first_line();
        assert!(start.contains(" 403 "), "{header:?}: {start}");
    }
    assert_eq!(ask(server.listen, "/api/publish", &[], &body).status, 200);
}

#[test]
fn web_page_uses_no_server_api_that_asks_for_nothing_though_clients_may_come_from_every_page() {
    let doors =
        "[client]\nallowed_origins = [\"*\"]\n[server]\ninternal_listen = [\"127.0.0.1:0\"]\n";
    let text = config(doors).replacen(
        "[http_api]",
        "[http_api]\ninsecure = true\nexternal = true",
        1,
    );
    let body = json!({ "channel": "news", "data": 1 });
    for listen in ["127.0.0.1:0", "0.0.0.0:0"] {
        let server = Start::with_config(&text).listen(listen).run();
        for address in [server.listen, server.internal] {
            let evil = "http://evil.example:9000";
            let pages: [&[(&str, &str)]; 4] = [
                &[("Origin", evil)],
                &[("Origin", "null")],
                &[("Origin", evil), ("Host", "evil.example:9000")],
                &[("Sec-Fetch-Site", "cross-site")],
            ];
            for page in pages {
                let plain = [page, &[("Content-Type", "text/plain")]].concat();
                let answer = ask(address, "/api/publish", &plain, &body);
                assert_eq!(answer.status, 403, "{listen} {page:?}");
            }
            let services: [&[(&str, &str)]; 2] = [&[], &[("Host", "ringmain.internal")]];
            for service in services {
                let is_refused = !service.is_empty() && listen.starts_with("127.");
                let status = if is_refused { 403 } else { 200 };
                let answer = ask(address, "/api/publish", service, &body);
                assert_eq!(answer.status, status, "{listen} {service:?}");
            }
        }
    }
}
