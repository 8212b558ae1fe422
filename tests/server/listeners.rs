//! Where clients may connect: IPv4, IPv6, unix sockets, several at once.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;

use serde_json::json;
use tempfile::TempDir;

use crate::support::client::{Client, PATH, upgrade_over};
use crate::support::http::Http;
use crate::support::process::{
    API_KEY, Start, binary, config, free_port, guard, reactor_under_test, read_log,
};
use crate::support::wait::{self, DEADLINE};

const OPEN: &str = "[client]\ninsecure = true\n";

#[test]
fn ipv6_listener_serves_clients_and_the_api() {
    let server = Start::with_config(&config(OPEN)).listen("[::1]:0").run();
    assert!(server.listen.is_ipv6(), "{}", server.listen);
    let mut client = Client::anonymous(&server);
    client.subscribe("news");
    server.api_result("publish", &json!({ "channel": "news", "data": 6 }));
    assert_eq!(client.publication("news")["data"], 6);
}

#[test]
fn unix_listener_serves_clients_and_the_api_on_every_shard() {
    for shards in [1, 3] {
        let directory = TempDir::new().expect("a directory");
        let path = directory.path().join("socket");
        let listen = format!("unix:{}", path.display());
        let mut server = Start::with_config(&config(OPEN))
            .listen(&listen)
            .shards(shards)
            .run();
        let connect = || {
            let stream = UnixStream::connect(&path).expect("the listener accepts");
            stream.set_read_timeout(Some(DEADLINE)).expect("a deadline");
            stream
        };
        let mut crowd: Vec<_> = (0..8)
            .map(|_| {
                Client::over(upgrade_over(connect(), PATH, &[]).expect("an upgrade"))
                    .connect(&json!({}))
            })
            .collect();
        for client in &mut crowd {
            client.subscribe("news");
        }
        let body = json!({ "channel": "news", "data": shards }).to_string();
        let response =
            Http::over(connect()).post("/api/publish", &[("X-API-Key", API_KEY)], body.as_bytes());
        assert_eq!(response.json(), json!({ "result": {} }));
        for client in &mut crowd {
            assert_eq!(client.publication("news")["data"], shards);
        }
        drop(crowd);
        server.signal("TERM");
        assert_eq!(server.exit_status().code(), Some(0), "{}", server.log());
    }
}

#[test]
fn unix_socket_left_behind_by_a_dead_process_is_taken_over() {
    let directory = TempDir::new().expect("a directory");
    let listen = format!("unix:{}", directory.path().join("socket").display());
    let mut first = Start::with_config(&config(OPEN)).listen(&listen).run();
    first.signal("KILL");
    first.exit_status();
    wait::until(
        "the kernel to take the ring of the dead process down",
        || {
            UnixStream::connect(directory.path().join("socket"))
                .is_err()
                .then_some(())
        },
    );
    let second = Start::with_config(&config(OPEN)).listen(&listen).run();
    assert!(
        UnixStream::connect(directory.path().join("socket")).is_ok(),
        "{}",
        second.log()
    );
}

#[test]
fn several_listeners_serve_the_same_channels() {
    let directory = TempDir::new().expect("a directory");
    let path = directory.path().join("socket");
    let listen = format!(
        "[server]\nlisten = [\"127.0.0.1:0\", \"[::1]:0\", \"unix:{}\"]\n",
        path.display()
    );
    let server = Start::with_config(&config(&format!("{listen}{OPEN}")))
        .listen("")
        .run();
    let mut over_tcp = Client::anonymous(&server);
    let stream = UnixStream::connect(&path).expect("the listener accepts");
    let mut over_unix =
        Client::over(upgrade_over(stream, PATH, &[]).expect("an upgrade")).connect(&json!({}));
    over_tcp.subscribe("news");
    over_unix.publish("news", &json!("across"));
    assert_eq!(over_tcp.publication("news")["data"], "across");
}

#[test]
fn internal_listener_has_api_health_readiness_and_metrics_and_nothing_for_clients() {
    let internal = "[server]\ninternal_listen = [\"127.0.0.1:0\"]\n";
    let server = Start::with_config(&config(&format!("{internal}{OPEN}")))
        .shards(2)
        .run();
    let mut client = Client::anonymous(&server);
    client.subscribe("news");
    let body = json!({ "channel": "news", "data": 1 }).to_string();
    let key = [("X-API-Key", API_KEY)];
    let mut inside = Http::open(server.internal);
    let published = inside.post("/api/publish", &key, body.as_bytes());
    assert_eq!(published.json(), json!({ "result": {} }));
    assert_eq!(client.publication("news")["data"], 1);
    assert_eq!(
        inside.post("/api/publish", &[], body.as_bytes()).status,
        401,
        "the key is asked for here too"
    );
    let mut inside = Http::open(server.internal);
    assert_eq!(inside.get("/health", &[]).json(), json!({}));
    let ready = inside.get("/ready", &[]);
    assert_eq!((ready.status, &ready.json()["ready"]), (200, &json!(true)));
    let metrics = inside.get("/metrics", &[]);
    assert_eq!(metrics.status, 200);
    assert!(metrics.text().contains("ringmain_connections{shard=\"1\"}"));
    assert!(inside.get("/api/openapi.json", &[]).json()["paths"].is_object());
    for path in [PATH, "/", "/connection/uni_sse"] {
        assert_eq!(inside.get(path, &[]).status, 404, "{path}");
    }
    let outside = Http::open(server.listen).post("/api/publish", &key, body.as_bytes());
    assert_eq!(outside.status, 404, "the API has a listener of its own");
}

#[test]
fn external_server_api_is_on_both_listeners() {
    let config = config("[server]\ninternal_listen = [\"127.0.0.1:0\"]\n").replacen(
        "[http_api]",
        "[http_api]\nexternal = true",
        1,
    );
    let server = Start::with_config(&config).run();
    for address in [server.listen, server.internal] {
        let answer = Http::open(address).post("/api/info", &[("X-API-Key", API_KEY)], b"{}");
        assert_eq!(answer.status, 200, "{address}");
    }
}

#[test]
fn page_of_a_stranger_reads_nothing_at_the_internal_listener() {
    let internal = "[server]\ninternal_listen = [\"127.0.0.1:0\"]\n";
    let hosts = "[admin]\nhosts = [\"probe.internal\"]\n";
    let server = Start::with_config(&config(&format!("{internal}{hosts}"))).run();
    for path in ["/ready", "/metrics"] {
        for header in [
            ("Host", "evil.example"),
            ("Origin", "http://evil.example"),
            ("Origin", "null"),
            ("Sec-Fetch-Site", "cross-site"),
        ] {
            let answer = Http::open(server.internal).get(path, &[header]);
            assert_eq!(answer.status, 403, "{path} {header:?}");
        }
        let answer = Http::open(server.internal).get(path, &[("Host", "probe.internal:9000")]);
        assert_eq!(answer.status, 200, "{path}");
    }
}

#[test]
fn health_is_on_the_clients_port_where_it_is_asked_for() {
    let health = "[health]\nenabled = true\nhandler_prefix = \"/healthz/\"\n";
    let server = Start::with_config(&config(health)).run();
    let mut http = Http::open(server.listen);
    let answer = http.get("/healthz", &[("Host", "edge.example")]);
    assert_eq!((answer.status, answer.json()), (200, json!({})));
    assert_eq!(http.get("/health", &[]).status, 404);
    let server = Start::with_config(&config("")).run();
    assert_eq!(Http::open(server.listen).get("/health", &[]).status, 404);
}

/// Starts a second process on an address; its status, and what it said.
fn second(listen: &str, more: &[(&str, &str)]) -> (Option<i32>, String) {
    let directory = TempDir::new().expect("a directory");
    std::fs::write(directory.path().join("ringmain.toml"), config("")).expect("a file");
    let status = binary(directory.path())
        .args(["--listen", listen, "--shards", "2"])
        .env("RINGMAIN__ADMIN__LISTEN", "")
        // Both reactors take addresses the same way, and the rings of so many processes may be more than a user may lock.
        .env("RINGMAIN__SERVER__REACTOR", "portable")
        .envs(more.iter().copied())
        .status()
        .expect("the binary starts");
    (status.code(), read_log(directory.path()))
}

#[test]
fn second_process_on_an_address_is_refused_whatever_its_admin_listener() {
    let directory = TempDir::new().expect("a directory");
    let path = directory.path().join("socket");
    let unix = format!("unix:{}", path.display());
    let listen = format!("[server]\nlisten = [\"127.0.0.1:0\", \"{unix}\"]\n{OPEN}");
    let first = Start::with_config(&config(&listen))
        .listen("")
        .shards(2)
        .run();
    let tcp = first.listen.to_string();
    std::thread::scope(|scope| {
        for (listen, more) in [
            (&tcp, &[][..]),
            (&tcp, &[("RINGMAIN__ADMIN__LISTEN", "127.0.0.1:0")]),
            (&unix, &[]),
        ] {
            scope.spawn(move || {
                let (status, said) = second(listen, more);
                assert_eq!(status, Some(1), "{listen} {more:?}: {said}");
                let names = said.contains(listen.as_str()) && said.contains("server.listen");
                assert!(names && said.contains("another process"), "{said}");
            });
        }
        let admin = first.admin.to_string();
        scope.spawn(move || {
            let (status, said) = second("127.0.0.1:0", &[("RINGMAIN__ADMIN__LISTEN", &admin)]);
            assert_eq!(status, Some(1), "{said}");
            assert!(
                said.contains(&admin) && said.contains("admin.listen"),
                "{said}"
            );
        });
    });
    for _ in 0..20 {
        let answer = Http::open(first.listen).post("/api/info", &[("X-API-Key", API_KEY)], b"{}");
        assert_eq!(answer.status, 200, "nobody was taken away");
    }
    assert!(UnixStream::connect(&path).is_ok());
}

#[test]
fn processes_that_say_so_share_a_port() {
    let shared = config("[server]\nshared_port = true\n");
    let first = Start::with_config(&shared).run();
    let _second = Start::with_config(&shared)
        .listen(&first.listen.to_string())
        .run();
    let mut nodes = std::collections::BTreeSet::new();
    wait::until("both to answer", || {
        let answer = Http::open(first.listen).post("/api/info", &[("X-API-Key", API_KEY)], b"{}");
        nodes.insert(answer.json()["result"]["nodes"][0]["uid"].to_string());
        (nodes.len() == 2).then_some(())
    });
}

#[test]
fn successor_of_a_killed_process_resets_nobody() {
    let mut server = Start::with_config(&config("[health]\nenabled = true\n"))
        .shards(2)
        .run();
    let listen = server.listen.to_string();
    for round in 0..6 {
        server.signal("KILL");
        server = Start::with_config(&config("[health]\nenabled = true\n"))
            .listen(&listen)
            .shards(2)
            .run();
        for connection in 0..20 {
            let answer = Http::open(server.listen).get("/health", &[]);
            assert_eq!(answer.status, 200, "round {round}, connection {connection}");
        }
    }
}

#[test]
fn of_two_that_start_at_once_one_serves() {
    for _ in 0..4 {
        let directories = [(); 2].map(|()| TempDir::new().expect("a directory"));
        let listen = free_port().to_string();
        let mut both = directories.each_ref().map(|directory| {
            std::fs::write(directory.path().join("ringmain.toml"), config("")).expect("a file");
            let child = binary(directory.path())
                .args(["--listen", &listen, "--shards", "2", "--admin", ""])
                .args(["--reactor", &reactor_under_test()])
                .spawn()
                .expect("the binary starts");
            let guard = guard(child.id());
            (child, guard)
        });
        let loser = wait::until("one to give up", || {
            both.iter_mut()
                .position(|(child, _)| child.try_wait().expect("a status").is_some())
        });
        let (lost, winner) = (&directories[loser], &directories[1 - loser]);
        assert!(
            read_log(lost.path()).contains("another process"),
            "{}",
            read_log(lost.path())
        );
        for _ in 0..10 {
            let answer = Http::open(listen.parse().expect("an address")).post(
                "/api/info",
                &[("X-API-Key", API_KEY)],
                b"{}",
            );
            assert_eq!(answer.status, 200, "{}", read_log(winner.path()));
        }
        for (mut child, mut guard) in both {
            for process in [&mut guard, &mut child] {
                let _ = process.kill();
                let _ = process.wait();
            }
        }
    }
}

#[test]
fn addresses_that_meet_are_found_by_check() {
    for listen in [
        "listen = [\"0.0.0.0:8100\", \"127.0.0.1:8100\"]",
        "listen = [\"[::]:8100\", \"[::1]:8100\"]",
        "listen = [\"127.0.0.1:8100\"]\ninternal_listen = [\"127.0.0.1:8100\"]",
        "listen = [\"127.0.0.1:8100\"]\ninternal_listen = [\"0.0.0.0:8001\"]",
        "listen = [\"unix:/a\"]\ninternal_listen = [\"unix:/a\"]",
    ] {
        let directory = TempDir::new().expect("a directory");
        let text = config(&format!("[server]\n{listen}\n"));
        std::fs::write(directory.path().join("ringmain.toml"), text).expect("a file");
        let status = binary(directory.path())
            .arg("check")
            .status()
            .expect("it starts");
        let said = read_log(directory.path());
        assert_eq!(status.code(), Some(2), "{listen}: {said}");
        assert!(said.contains("repeats"), "{said}");
    }
}

#[test]
fn unix_socket_has_the_mode_that_is_configured() {
    for (more, mode) in [("", 0o660), ("unix_mode = \"0666\"\n", 0o666)] {
        let directory = TempDir::new().expect("a directory");
        let path = directory.path().join("socket");
        let text = format!("[server]\nlisten = [\"unix:{}\"]\n{more}", path.display());
        let _server = Start::with_config(&config(&text)).listen("").run();
        let found = std::fs::metadata(&path)
            .expect("the socket")
            .permissions()
            .mode();
        assert_eq!(found & 0o777, mode);
    }
}
