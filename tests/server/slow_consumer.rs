//! A subscriber that stops reading costs its own connection, or what its namespace says, and nothing else.

#[path = "slow_consumer/left_out.rs"]
mod left_out;

use std::net::TcpStream;
use std::time::Duration;

use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};

use crate::bystander::Bystander;
use crate::support::client::{Client, Encoding, PATH, upgrade_over};
use crate::support::deflate::Peer;
use crate::support::http::{Http, encode};
use crate::support::process::{Server, config};
use crate::support::stream::{Shape, Stream};
use crate::support::token::sign;
use crate::support::wait::{self, DEADLINE};

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

/// A connection with small kernel buffers.
fn narrow_socket(server: &Server) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket
        .set_recv_buffer_size(32 * 1024)
        .expect("a small buffer");
    socket
        .connect(&server.listen.into())
        .expect("the listener accepts");
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(DEADLINE)).expect("a deadline");
    stream
        .set_write_timeout(Some(DEADLINE))
        .expect("a deadline");
    stream
}

/// A subscriber on such a connection.
fn narrow(server: &Server, channel: &str) -> Client {
    let stream = narrow_socket(server);
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

/// Every kind of subscription, where each policy holds.
fn kinds() -> Server {
    Server::start(&config(
        r#"
[client]
allow_anonymous_connect_without_token = true
queue_max_size = 65536

[http_stream]
enabled = true
[sse]
enabled = true
[uni_sse]
enabled = true
[uni_http_stream]
enabled = true
[uni_websocket]
enabled = true
[websocket]
compression = true
[poll]
enabled = true

[[channel.namespaces]]
name = "lossy"
slow_consumer = "drop_oldest"
history_size = 10
history_ttl = "60s"
allow_subscribe_for_client = true
allow_subscribe_for_anonymous = true
allow_positioning = true
allow_recovery = true
allow_tags_filter = true
allowed_delta_types = ["fossil"]

[[channel.namespaces]]
name = "bare"
slow_consumer = "drop_oldest"
allow_subscribe_for_client = true
allow_subscribe_for_anonymous = true

[[channel.namespaces]]
name = "latest"
slow_consumer = "conflate"
conflate_key = "data:k"
history_size = 10
history_ttl = "60s"
allow_subscribe_for_client = true
allow_subscribe_for_anonymous = true
allow_positioning = true
allow_recovery = true
allow_tags_filter = true
allowed_delta_types = ["fossil"]
delta_publish = true

[[channel.namespaces]]
name = "aging"
slow_consumer = "drop_oldest"
outbox_age_max = "200ms"
history_size = 10
history_ttl = "60s"
allow_subscribe_for_client = true
allow_subscribe_for_anonymous = true

[[channel.namespaces]]
name = "narrow"
slow_consumer = "drop_oldest"
outbox_bytes_max = 10000
allow_subscribe_for_client = true
allow_subscribe_for_anonymous = true

[[channel.namespaces]]
name = "polled"
slow_consumer = "degrade"
history_size = 300
history_ttl = "60s"
allow_recovery = true
allow_subscribe_for_client = true
allow_subscribe_for_anonymous = true

[[channel.namespaces]]
name = "strict"
allow_subscribe_for_client = true
allow_subscribe_for_anonymous = true
"#,
    ))
}

/// Whoever reads one message after the other, and how its transport names what it hears.
enum Reader {
    Socket(Client),
    Deflate(Box<Peer>),
    Stream(Stream),
    /// Whose pushes are its messages.
    UniSocket(Client),
}

impl Reader {
    fn socket(server: &Server, encoding: Encoding, connect: &Value) -> Self {
        let client = Client::open_over(narrow_socket(server), PATH, &[], encoding);
        Self::Socket(client.connect(connect))
    }

    fn deflate(server: &Server, subscribe: &Value) -> Self {
        let http = Http::over(narrow_socket(server));
        let mut peer = Peer::over(http, PATH, "permessage-deflate");
        for command in [
            json!({ "id": 1, "connect": {} }),
            json!({ "id": 2, "subscribe": subscribe }),
        ] {
            peer.send_json(&command);
            assert_eq!(peer.next_json().0["id"], command["id"]);
        }
        Self::Deflate(Box::new(peer))
    }

    fn uni_socket(server: &Server, channel: &str) -> Self {
        let token = sign(&json!({ "sub": "7", "channels": [channel] }));
        let path = "/connection/uni_websocket";
        let mut client = Client::open_over(narrow_socket(server), path, &[], Encoding::Json);
        client.send_text(&json!({ "token": token }).to_string());
        assert!(client.next().get("connect").is_some());
        Self::UniSocket(client)
    }

    fn stream(server: &Server, shape: Shape, subscribe: &Value) -> Self {
        let socket = narrow_socket(server);
        let connect = json!({ "id": 1, "connect": {} });
        let commands = format!("{connect}\n{}", json!({ "id": 2, "subscribe": subscribe }));
        let request = encode("POST", PATHS[shape as usize], &[], commands.as_bytes());
        let mut stream = Stream::over(socket, server, shape, &request);
        assert_eq!(stream.next()["id"], 1);
        assert_eq!(stream.next()["id"], 2);
        Self::Stream(stream)
    }

    /// A unidirectional client with a subscription of its token.
    fn uni(server: &Server, path: &str, shape: Shape, channel: &str) -> Self {
        let token = sign(&json!({ "sub": "7", "channels": [channel] }));
        let request = encode(
            "POST",
            path,
            &[],
            json!({ "token": token }).to_string().as_bytes(),
        );
        let mut stream = Stream::over(narrow_socket(server), server, shape, &request);
        assert!(stream.next().get("connect").is_some());
        Self::Stream(stream)
    }

    /// A subscriber over each transport, in each encoding.
    fn of_every_transport(server: &Server, channel: &str) -> Vec<(&'static str, Self)> {
        let named = json!({ "channel": channel });
        let socket = |encoding| Self::socket(server, encoding, &json!({})).subscribed(&named);
        let uni = |path, shape| Self::uni(server, path, shape, channel);
        vec![
            ("JSON", socket(Encoding::Json)),
            ("Protobuf", socket(Encoding::Protobuf)),
            ("deflate", Self::deflate(server, &named)),
            ("http_stream", Self::stream(server, Shape::Lines, &named)),
            ("sse", Self::stream(server, Shape::Events, &named)),
            ("uni_websocket", Self::uni_socket(server, channel)),
            ("uni_sse", uni("/connection/uni_sse", Shape::Events)),
            (
                "uni_http_stream",
                uni("/connection/uni_http_stream", Shape::Lines),
            ),
        ]
    }

    fn subscribed(mut self, request: &Value) -> Self {
        if let Self::Socket(client) = &mut self {
            client.ok("subscribe", request);
        }
        self
    }

    /// The next push; the code when the server ends it.
    fn push(&mut self) -> Result<Value, u64> {
        match self {
            Self::Socket(client) => loop {
                let unread = client.unread_push();
                if let Some(push) = unread {
                    return Ok(push);
                }
                if let Err(ended) = client.receive() {
                    return Err(u64::from(ended.code));
                }
            },
            Self::Deflate(peer) => loop {
                let frame = peer.next().ok_or(1006u64)?;
                if let Some(code) = frame.close_code() {
                    return Err(u64::from(code));
                }
                let mut message: Value = serde_json::from_slice(&frame.payload).expect("JSON");
                if let Some(push) = message.get_mut("push") {
                    return Ok(push.take());
                }
            },
            Self::UniSocket(client) => loop {
                if let Some(push) = client.unread_first() {
                    match push["disconnect"]["code"].as_u64() {
                        Some(code) => return Err(code),
                        None => return Ok(push),
                    }
                }
                if let Err(ended) = client.receive() {
                    return Err(u64::from(ended.code));
                }
            },
            Self::Stream(stream) => {
                let message = stream.try_next().ok_or(1006u64)?;
                let push = message.get("push").unwrap_or(&message).clone();
                match push["disconnect"]["code"].as_u64() {
                    Some(code) => Err(code),
                    None => Ok(push),
                }
            }
        }
    }
}

/// By `Shape`.
const PATHS: [&str; 2] = ["/connection/http_stream", "/connection/sse"];

/// What a reader that comes back hears of what it could not take.
#[derive(Debug, PartialEq, Eq)]
enum Told {
    /// It got so many, and was told that it did not get so many.
    Lost { got: u64, lost: u64 },
    /// Its subscription ended with this code.
    Unsubscribed(u64),
    /// Its connection ended with this code.
    Ended(u64),
}

fn told(name: &str, reader: &mut Reader, channel: &str) -> Told {
    let (mut got, mut lost, mut is_end) = (0, 0, false);
    loop {
        let push = match reader.push() {
            Ok(push) => push,
            Err(code) => return Told::Ended(code),
        };
        if let Some(publication) = push.get("pub") {
            got += 1;
            is_end |= publication["data"].to_string().contains("the end");
        } else if let Some(unsubscribe) = push.get("unsubscribe") {
            return Told::Unsubscribed(unsubscribe["code"].as_u64().expect("a code"));
        } else {
            let said = &push["message"]["data"]["lost"];
            assert_eq!(said["channel"], channel, "{name}: {push}");
            lost += said["publications"].as_u64().expect("how many");
            lost += said["conflated"].as_u64().unwrap_or(0);
            if !channel.starts_with("bare:") && !channel.starts_with("narrow:") {
                let offset = |name: &str| said[name].as_u64().expect("an offset");
                let range = offset("from")..=offset("to");
                assert!(*range.start() > 0 && !range.is_empty(), "{name}: {said}");
            }
        }
        if is_end && lost > 0 && got + lost >= OF_EACH_KIND {
            return Told::Lost { got, lost };
        }
    }
}

/// More than a socket of the kernel and a queue of 64 KiB take together.
const OF_EACH_KIND: u64 = 110;

/// Text that no compression makes much smaller.
fn noise(len: usize) -> String {
    let mut state = 7_u64;
    let printable = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        char::from(b'#' + (state % 57) as u8)
    };
    (0..len).map(printable).collect()
}

fn flood_and_end(server: &Server, channel: &str) {
    let fill = noise(60_000);
    for n in 1..OF_EACH_KIND {
        let data = json!({ "n": n, "k": n % 2, "fill": fill });
        server.api_result("publish", &json!({ "channel": channel, "data": data }));
    }
    server.api_result("publish", &json!({ "channel": channel, "data": "the end" }));
}

#[test]
fn every_kind_of_subscription_is_told_what_a_lossy_namespace_dropped() {
    let server = kinds();
    for channel in ["lossy:news", "bare:news", "latest:news"] {
        let named = json!({ "channel": channel });
        let with = |part: &str, value: Value| {
            let mut request = named.clone();
            request[part] = value;
            request
        };
        let json = || Reader::socket(&server, Encoding::Json, &json!({}));
        let mut plain = Reader::of_every_transport(&server, channel);
        plain.push((
            "server-side",
            Reader::socket(
                &server,
                Encoding::Json,
                &json!({ "token": sign(&json!({ "sub": "7", "channels": [channel] })) }),
            ),
        ));
        let mut tracked = Vec::new();
        if channel != "bare:news" {
            plain.push(("delta", json().subscribed(&with("delta", json!("fossil")))));
            let filter = json!({ "key": "none", "cmp": "nex" });
            plain.push(("filtered", json().subscribed(&with("tf", filter))));
            for (name, option) in [("positioned", "positioned"), ("recoverable", "recoverable")] {
                let reader = json().subscribed(&with(option, json!(true)));
                tracked.push((name, reader, Told::Unsubscribed(2500)));
            }
            let over = json!({ "override": { "force_positioning": { "value": true } } });
            let token = sign(&json!({ "sub": "7", "subs": { channel: over } }));
            tracked.push((
                "positioned, server-side",
                Reader::socket(&server, Encoding::Json, &json!({ "token": token })),
                Told::Ended(3010),
            ));
        }
        flood_and_end(&server, channel);
        for (name, reader) in &mut plain {
            match told(name, reader, channel) {
                Told::Lost { got, lost } => {
                    assert_eq!(
                        got + lost,
                        OF_EACH_KIND,
                        "{channel}, {name}: {got} and {lost}"
                    );
                }
                other => panic!("{channel}, {name}: {other:?}"),
            }
        }
        for (name, reader, wanted) in &mut tracked {
            assert_eq!(told(name, reader, channel), *wanted, "{channel}, {name}");
        }
    }
}

#[test]
fn every_transport_says_that_a_slow_subscriber_was_disconnected() {
    let server = kinds();
    let channel = "strict:news";
    let mut readers = Reader::of_every_transport(&server, channel);
    let count = readers.len() as f64;
    let fill = noise(60_000);
    let publish = || {
        let data = json!({ "fill": fill });
        server.api_result("publish", &json!({ "channel": channel, "data": data }));
    };
    wait::until("all of them to be slow", || {
        publish();
        (server.metric("ringmain_disconnected_slow_total") >= count).then_some(())
    });
    for (name, reader) in &mut readers {
        let code = loop {
            if let Err(code) = reader.push() {
                break code;
            }
        };
        assert_eq!(code, 3008, "{name}");
    }
}

/// A long poll from this position.
fn poll(server: &Server, from: &str) -> Http {
    let mut http = Http::over(narrow_socket(server));
    let path = format!("/connection/poll?channel=lossy:news&timeout=0{from}");
    http.send(&encode("GET", &path, &[], b""));
    http
}

#[test]
fn long_poll_is_told_whether_it_gets_everything_since_its_last_one() {
    let server = kinds();
    let answer = |mut http: Http| http.response().expect("an answer").json();
    let begin = answer(poll(&server, ""));
    let epoch = begin["epoch"].as_str().expect("an epoch").to_owned();
    let since = |offset: u64| poll(&server, &format!("&epoch={epoch}&offset={offset}"));
    let fill = noise(60_000);
    let publish = |n: u64| {
        let data = json!({ "n": n, "fill": fill });
        server.api_result("publish", &json!({ "channel": "lossy:news", "data": data }));
    };
    // More than its queue may hold comes in one answer, whenever its peer takes it; the next poll goes on from there.
    let mut at = 0;
    for round in [1, 2] {
        (10 * round - 9..=10 * round).for_each(publish);
        let slow = since(at);
        let quick = answer(since(at));
        let mut next = answer(slow);
        assert_eq!(next, quick, "whenever it is taken");
        while at < 10 * round {
            assert_eq!(next["recovered"], true);
            for publication in next["publications"].as_array().expect("publications") {
                at += 1;
                assert_eq!(publication["data"]["n"], at);
            }
            assert_eq!(next["offset"], at);
            next = answer(since(at));
        }
    }
    publish(21);
    let late = answer(since(10));
    assert_eq!(late["recovered"], false, "number 11 is gone: {late}");
    assert_eq!(late["offset"], 21);
}

#[test]
fn one_large_publication_or_answer_costs_no_reader_that_keeps_up() {
    let server = Server::start(&config(
        r#"
[client]
allow_anonymous_connect_without_token = true
queue_max_size = 65536

[channel.without_namespace]
history_size = 20
history_ttl = "60s"
force_recovery = true
allow_subscribe_for_client = true
allow_subscribe_for_anonymous = true
allow_history_for_client = true
allow_history_for_anonymous = true
"#,
    ));
    let mut client = Client::anonymous(&server);
    let begin = client.subscribe("large");
    for n in 0..5 {
        let data = json!({ "n": n, "fill": "x".repeat(1_500_000) });
        server.api_result("publish", &json!({ "channel": "large", "data": data }));
        assert_eq!(client.publication("large")["data"]["n"], n);
    }
    // Its history comes in pages that are bounded by bytes, several of them asked for in one frame.
    let ids: Vec<u64> = (0..4)
        .map(|_| client.send("history", &json!({ "channel": "large", "limit": -1 })))
        .collect();
    for id in ids {
        let reply = client.next();
        assert_eq!(reply["id"], id);
        let kept = reply["history"]["publications"].as_array().map(Vec::len);
        assert_eq!(kept, Some(2), "4 MiB");
    }
    let mut seen = Vec::new();
    while seen.len() < 5 {
        let since = json!({ "offset": seen.len(), "epoch": begin["epoch"] });
        let page = client.ok(
            "history",
            &json!({ "channel": "large", "limit": -1, "since": since }),
        );
        for publication in page["publications"].as_array().expect("publications") {
            seen.push(publication["offset"].as_u64().expect("an offset"));
        }
    }
    assert_eq!(seen, [1, 2, 3, 4, 5]);
    // What it missed comes in parts: the first in the reply, the rest as publications.
    let mut again = Client::anonymous(&server);
    let since =
        json!({ "channel": "large", "recover": true, "offset": 0, "epoch": begin["epoch"] });
    let reply = again.ok("subscribe", &since);
    assert_eq!(reply["recovered"], true);
    let mut offsets: Vec<Value> = (reply["publications"].as_array().into_iter().flatten())
        .map(|publication| publication["offset"].clone())
        .collect();
    assert_eq!(offsets, [1]);
    while offsets.len() < 5 {
        offsets.push(again.publication("large")["offset"].take());
    }
    assert_eq!(offsets, [1, 2, 3, 4, 5]);
    server.api_result("publish", &json!({ "channel": "large", "data": "live" }));
    assert_eq!(again.publication("large")["offset"], 6);
    assert_eq!(client.publication("large")["offset"], 6);
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
        if push.get("message").is_some() {
            continue;
        }
        assert!(
            push["pub"].is_object(),
            "not positioned, so the gap is visible in the offsets: {push}"
        );
        let offset = push["pub"]["offset"].as_u64().expect("an offset");
        assert!(offset > last, "{offset} after {last}");
        last = offset;
    }
    assert!(
        slow.pending()
            .iter()
            .all(|one| one["push"].get("message").is_some()),
        "still connected, and told of the last gap"
    );
}

#[test]
fn many_that_stop_reading_delay_nobody_and_their_memory_goes_back() {
    const SLOW: usize = 60;
    let server = server();
    let before = server.resident_bytes();
    let mut slow: Vec<Client> = (0..SLOW).map(|_| narrow(&server, "news")).collect();
    let bystander = Bystander::start(&server, "bystander");
    let fill = "x".repeat(30_000);
    let mut n = 0;
    crate::support::wait::until("all of them to be disconnected as slow", || {
        n += 1;
        server.api_result(
            "publish",
            &json!({ "channel": "news", "data": { "n": n, "fill": fill } }),
        );
        (server.metric("ringmain_disconnected_slow_total") >= SLOW as f64).then_some(())
    });
    bystander.finish("sixty subscribers that stopped reading");
    let peak = server.resident_bytes();
    for client in &mut slow {
        let ended = client.ended();
        assert!(matches!(ended.code, 3008 | 1006), "{ended:?}");
    }
    drop(slow);
    // While publications go on.
    let left = crate::support::wait::until("the memory to go back", || {
        server.api_result("publish", &json!({ "channel": "news", "data": n }));
        let left = server.resident_bytes().saturating_sub(before);
        (left < 24 << 20).then_some(left)
    });
    println!(
        "resident: {} KiB more at the peak, {} KiB more at the end",
        peak.saturating_sub(before) >> 10,
        left >> 10
    );
}
