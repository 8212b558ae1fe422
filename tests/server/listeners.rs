//! Where clients may connect: IPv4, IPv6, unix sockets, several at once.

use std::os::unix::net::UnixStream;

use serde_json::json;
use tempfile::TempDir;

use crate::support::client::{Client, PATH, upgrade_over};
use crate::support::http::Http;
use crate::support::process::{API_KEY, Start, config};
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
fn address_in_use_is_named_and_the_status_is_not_0() {
    let server = Start::with_config(&config(OPEN)).run();
    let directory = TempDir::new().expect("a directory");
    let mut command = crate::support::process::binary(directory.path());
    let listen = server.listen.to_string();
    // Shards share a port with SO_REUSEPORT; another process must not slip in between them.
    let status = command
        .args(["--listen", &listen, "--shards", "1"])
        .env("RINGMAIN__ADMIN__LISTEN", server.admin.to_string())
        .status()
        .expect("the binary starts");
    assert_eq!(status.code(), Some(1));
    let log = crate::support::process::read_log(directory.path());
    assert!(
        log.contains(&server.admin.to_string()) || log.contains(&listen),
        "{log}"
    );
}
