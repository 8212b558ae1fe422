//! A subscriber that stops reading costs its own connection, or what its namespace says, and nothing else.

use std::time::Duration;

use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};

use crate::bystander::Bystander;
use crate::support::client::{Client, PATH, upgrade_over};
use crate::support::process::{Server, config};
use crate::support::wait::DEADLINE;

const PUBLICATIONS: u64 = 300;

fn server() -> Server {
    Server::start(&config(
        r#"
[client]
allow_anonymous_connect_without_token = true

[channel.without_namespace]
history_size = 10
history_ttl = "60s"
allow_subscribe_for_client = true
allow_subscribe_for_anonymous = true

[[channel.namespaces]]
name = "lossy"
slow_consumer = "drop_oldest"
history_size = 10
history_ttl = "60s"
allow_subscribe_for_client = true
allow_subscribe_for_anonymous = true
"#,
    ))
}

/// A subscriber with small kernel buffers.
fn narrow(server: &Server, channel: &str) -> Client {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket
        .set_recv_buffer_size(32 * 1024)
        .expect("a small buffer");
    socket
        .connect(&server.listen.into())
        .expect("the listener accepts");
    let stream = std::net::TcpStream::from(socket);
    stream.set_read_timeout(Some(DEADLINE)).expect("a deadline");
    stream
        .set_write_timeout(Some(DEADLINE))
        .expect("a deadline");
    let mut client =
        Client::over(upgrade_over(stream, PATH, &[]).expect("the upgrade is accepted"))
            .connect(&json!({}));
    client.subscribe(channel);
    client
}

/// A subscriber on its own thread that reads everything; it returns what it saw.
fn reader(server: &Server, channel: &'static str) -> std::thread::JoinHandle<Vec<u64>> {
    let mut client = Client::anonymous(server);
    client.subscribe(channel);
    client.set_read_deadline(Duration::from_secs(60));
    std::thread::spawn(move || {
        let offset = |publication: Value| publication["offset"].as_u64().expect("an offset");
        (0..PUBLICATIONS)
            .map(|_| offset(client.publication(channel)))
            .collect()
    })
}

fn flood(server: &Server, channel: &str) {
    let fill = "x".repeat(60_000);
    for n in 1..=PUBLICATIONS {
        let result = server.api_result(
            "publish",
            &json!({ "channel": channel, "data": { "n": n, "fill": fill } }),
        );
        assert_eq!(result["offset"], n);
    }
}

#[test]
fn subscriber_that_stops_reading_is_disconnected_as_slow() {
    let server = server();
    let before = server.resident_bytes();
    let mut slow = narrow(&server, "news");
    let reader = reader(&server, "news");
    let bystander = Bystander::start(&server, "bystander");
    flood(&server, "news");
    assert_eq!(
        reader.join().expect("the other subscriber goes on"),
        (1..=PUBLICATIONS).collect::<Vec<_>>()
    );
    bystander.finish("a subscriber that stopped reading");
    let growth = server.resident_bytes().saturating_sub(before);
    assert!(
        growth < 64 << 20,
        "18 MB were published, 1 MiB may wait: {growth}"
    );
    let ended = slow.ended();
    assert!(matches!(ended.code, 3008 | 1006), "{ended:?}");
    for (at, push) in slow.unread().iter().enumerate() {
        assert_eq!(
            push["push"]["pub"]["offset"],
            at + 1,
            "what it got has no hole"
        );
    }
    let stats = server.api_result("channels", &json!({ "pattern": "news" }));
    assert_ne!(
        stats["channels"]["news"]["num_clients"], 2,
        "the slow one is gone: {stats}"
    );
}

#[test]
fn many_slow_subscribers_stay_within_memory_limits() {
    let server = server();
    let before = server.resident_bytes();
    let mut slow: Vec<Client> = (0..30).map(|_| narrow(&server, "news")).collect();
    let bystander = Bystander::start(&server, "bystander");
    flood(&server, "news");
    bystander.finish("thirty subscribers that stopped reading");
    let growth = server.resident_bytes().saturating_sub(before);
    assert!(
        growth < 128 << 20,
        "thirty outboxes of 1 MiB and what the allocator keeps: {growth}"
    );
    for client in &mut slow {
        let ended = client.ended();
        assert!(matches!(ended.code, 3008 | 1006), "{ended:?}");
    }
}

#[test]
fn subscriber_of_a_lossy_namespace_keeps_its_connection_and_the_newest() {
    let server = server();
    let mut slow = narrow(&server, "lossy:news");
    slow.set_read_deadline(Duration::from_secs(30));
    flood(&server, "lossy:news");
    server.api_result(
        "publish",
        &json!({ "channel": "lossy:news", "data": { "n": "end" } }),
    );
    let mut last = 0;
    while last <= PUBLICATIONS {
        let push = slow.push();
        assert!(
            push["pub"].is_object(),
            "not positioned, so the gap is visible in the offsets: {push}"
        );
        let offset = push["pub"]["offset"].as_u64().expect("an offset");
        assert!(offset > last, "{offset} after {last}");
        last = offset;
    }
    assert_eq!(slow.pending(), Vec::<Value>::new(), "still connected");
}
