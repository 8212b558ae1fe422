//! Nothing that a peer sends is more than its own problem: it gets a defined answer, memory stays within limits,
//! and a bystander on the same shard loses nothing.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::time::Duration;

use serde_json::{Value, json};
use tungstenite::protocol::frame::coding::{Data, OpCode};
use tungstenite::protocol::frame::{Frame, FrameHeader};

use crate::bystander::Bystander;
use crate::support::client::{Client, PATH, tcp, upgrade};
use crate::support::http::{Http, encode};
use crate::support::process::{API_KEY, SECRET, Server, config};
use crate::support::token::{after, sign, sign_with};
use crate::support::wait::{self, now};

/// Growth of the resident set that a test's own connections may cause and leave behind in the allocator.
const GROWTH_MAX: u64 = 96 << 20;

fn hostile() -> Server {
    Server::start(&config(
        r#"
[server]
handshake_timeout = "1s"
http_idle_timeout = "2s"

[client]
allow_anonymous_connect_without_token = true

[[channel.namespaces]]
name = "open"
presence = true
history_size = 10
history_ttl = "60s"
allow_subscribe_for_client = true
allow_subscribe_for_anonymous = true
allow_publish_for_client = true
allow_publish_for_anonymous = true
allow_presence_for_client = true
allow_presence_for_anonymous = true
allow_history_for_client = true
allow_history_for_anonymous = true
"#,
    ))
}

/// Runs an attack beside a bystander; afterwards the server lives and has not grown much.
fn beside(name: &str, attack: impl FnOnce(&Server)) {
    let mut server = hostile();
    let before = server.resident_bytes();
    let bystander = Bystander::start(&server, "open:bystander");
    attack(&server);
    bystander.finish(name);
    assert!(
        server.is_running(),
        "{name} ended the server:\n{}",
        server.log()
    );
    let growth = server.resident_bytes().saturating_sub(before);
    assert!(
        growth < GROWTH_MAX,
        "{name}: resident memory grew by {growth} bytes"
    );
    let left = Client::anonymous(&server).ok("presence_stats", &json!({ "channel": "open:none" }));
    assert_eq!(left["num_clients"], 0);
}

/// Bytes that repeat with the seed.
struct Noise(u64);

impl Noise {
    /// Seeded from `RINGMAIN_SEED`, or 1.
    fn new() -> Self {
        let seed = std::env::var("RINGMAIN_SEED")
            .ok()
            .and_then(|text| text.parse().ok())
            .unwrap_or(1);
        println!("RINGMAIN_SEED={seed}");
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        // Marsaglia's xorshift64*.
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn bytes(&mut self, most: usize) -> Vec<u8> {
        let length = self.next() as usize % most + 1;
        (0..length).map(|_| (self.next() >> 56) as u8).collect()
    }
}

/// Writes what the server will take, then reads to the end: a reset is an answer too.
fn send_and_drain(mut stream: std::net::TcpStream, bytes: &[u8]) -> Vec<u8> {
    let mut answer = Vec::new();
    if stream.write_all(bytes).is_ok() && stream.shutdown(Shutdown::Write).is_ok() {
        let mut chunk = [0; 4096];
        while let Ok(length) = stream.read(&mut chunk) {
            if length == 0 {
                break;
            }
            answer.extend_from_slice(&chunk[..length]);
        }
    }
    answer
}

#[test]
fn random_bytes_instead_of_a_request_are_answered_400_or_closed() {
    beside("random bytes", |server| {
        let mut noise = Noise::new();
        for _ in 0..200 {
            let answer = send_and_drain(tcp(server.listen), &noise.bytes(4000));
            let text = String::from_utf8_lossy(&answer);
            assert!(text.is_empty() || text.starts_with("HTTP/1.1 4"), "{text}");
        }
    });
}

#[test]
fn random_bytes_after_the_upgrade_are_a_protocol_error() {
    beside("random frames", |server| {
        let mut noise = Noise::new();
        for _ in 0..200 {
            let socket = upgrade(server.listen, PATH, &[]);
            let stream = socket.get_ref().try_clone().expect("the socket");
            send_and_drain(stream, &noise.bytes(4000));
        }
    });
}

#[test]
fn random_text_after_connect_closes_with_3501() {
    beside("random text", |server| {
        let mut noise = Noise::new();
        for _ in 0..100 {
            let mut client = Client::anonymous(server);
            let text = String::from_utf8_lossy(&noise.bytes(2000)).into_owned();
            client.send_text(&text);
            client.ends_with(3501);
        }
    });
}

#[test]
fn damaged_commands_never_do_more_than_close_their_connection() {
    beside("damaged commands", |server| {
        let mut noise = Noise::new();
        let good = json!({ "id": 2, "publish": { "channel": "open:damaged", "data": { "a": [1, 2, { "b": "c\u{fc}" }] } } }).to_string();
        for _ in 0..300 {
            let mut bytes = good.clone().into_bytes();
            let at = noise.next() as usize % bytes.len();
            match noise.next() % 3 {
                0 => bytes[at] = (noise.next() % 128) as u8,
                1 => bytes.truncate(at),
                _ => bytes.insert(at, b"{}[]\",:\\0-e"[noise.next() as usize % 11]),
            }
            let mut client = Client::anonymous(server);
            let text = String::from_utf8_lossy(&bytes).into_owned();
            client.send_text(&text);
            // Either the command is still one that can be answered, or the connection ends with a reason.
            if client.receive().is_err() {
                continue;
            }
            for object in client.unread() {
                assert!(object["id"].is_u64(), "{text}: {object}");
            }
        }
    });
}

#[test]
fn half_requests_are_dropped() {
    beside("half requests", |server| {
        let whole = encode(
            "POST",
            "/api/publish",
            &[("X-API-Key", API_KEY)],
            &[b'x'; 100],
        );
        for length in (1..whole.len()).step_by(7) {
            let answer = send_and_drain(tcp(server.listen), &whole[..length]);
            assert!(
                answer.is_empty() || answer.starts_with(b"HTTP/1.1 4"),
                "{length}: {}",
                String::from_utf8_lossy(&answer)
            );
        }
    });
}

/// Sends a byte whenever the server has stayed silent for a while; returns what it said before it closed.
fn trickle(server: &Server, bytes: &[u8]) -> (Vec<u8>, Duration) {
    let mut stream = tcp(server.listen);
    stream
        .set_read_timeout(Some(Duration::from_millis(200)))
        .expect("a deadline");
    let started = now();
    let mut answer = Vec::new();
    for byte in bytes {
        if stream.write_all(&[*byte]).is_err() {
            break;
        }
        let mut chunk = [0; 1024];
        match stream.read(&mut chunk) {
            Ok(0) => break,
            Ok(length) => answer.extend_from_slice(&chunk[..length]),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => break,
        }
        assert!(
            started.elapsed() < wait::DEADLINE,
            "a slow request is not waited for for ever"
        );
    }
    (answer, started.elapsed())
}

#[test]
fn slow_request_head_is_closed_after_the_handshake_timeout() {
    beside("slow request heads", |server| {
        let head = encode("GET", PATH, &[("X-Long", &"x".repeat(400))], b"");
        let (answer, took) = trickle(server, &head);
        assert!(
            answer.is_empty() || answer.starts_with(b"HTTP/1.1 408"),
            "{}",
            String::from_utf8_lossy(&answer)
        );
        assert!(
            (Duration::from_millis(900)..Duration::from_secs(5)).contains(&took),
            "{took:?}"
        );
    });
}

#[test]
fn slow_request_body_is_closed_too() {
    beside("slow request bodies", |server| {
        let request = encode("POST", "/api/info", &[("X-API-Key", API_KEY)], &[b' '; 400]);
        let head = request.len() - 400;
        let mut stream = tcp(server.listen);
        stream
            .write_all(&request[..head])
            .expect("the head is taken");
        let started = now();
        stream
            .set_read_timeout(Some(Duration::from_millis(200)))
            .expect("a deadline");
        let mut chunk = [0; 1024];
        loop {
            if stream.write_all(b" ").is_err() {
                break;
            }
            match stream.read(&mut chunk) {
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Ok(length) if length > 0 => {
                    assert!(chunk.starts_with(b"HTTP/1.1 408"), "a refusal or nothing")
                }
                _ => break,
            }
            assert!(
                started.elapsed() < wait::DEADLINE,
                "a slow body is not waited for for ever"
            );
        }
    });
}

#[test]
fn huge_request_heads_are_refused() {
    beside("huge heads", |server| {
        let status = |bytes: &[u8]| {
            let answer = send_and_drain(tcp(server.listen), bytes);
            String::from_utf8_lossy(&answer)
                .get(9..12)
                .unwrap_or_default()
                .to_owned()
        };
        let one = encode("GET", PATH, &[("X-Huge", &"x".repeat(20_000))], b"");
        let names: Vec<String> = (0..100).map(|n| format!("X-{n}")).collect();
        let headers: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "1")).collect();
        let many = encode("GET", PATH, &headers, b"");
        let path = encode("GET", &format!("/{}", "x".repeat(20_000)), &[], b"");
        let endless = [b'A'; 60_000];
        for (name, bytes) in [
            ("one header", &one[..]),
            ("100 headers", &many),
            ("the path", &path),
            ("no line end", &endless),
        ] {
            let status = status(bytes);
            assert!(
                ["", "400", "414", "431"].contains(&status.as_str()),
                "{name}: {status}"
            );
        }
    });
}

#[test]
fn body_over_the_limit_is_413_before_it_is_read() {
    beside("huge bodies", |server| {
        let mut http = Http::open(server.listen);
        http.send(format!("POST /api/publish HTTP/1.1\r\nHost: a\r\nX-API-Key: {API_KEY}\r\nContent-Length: 1000000000\r\n\r\n").as_bytes());
        assert_eq!(http.response().expect("a response").status, 413);
        for length in ["-1", "x", "18446744073709551616", "1, 2"] {
            let mut http = Http::open(server.listen);
            http.send(
                format!(
                    "POST /api/publish HTTP/1.1\r\nHost: a\r\nX-API-Key: {API_KEY}\r\nContent-Length: {length}\r\n\r\n"
                )
                .as_bytes(),
            );
            let status = http.response().map_or(400, |response| response.status);
            assert!(matches!(status, 400 | 413), "{length}: {status}");
        }
    });
}

#[test]
fn declared_frame_over_the_limit_closes_with_1009_before_its_bytes_come() {
    beside("oversized frames", |server| {
        for length in [65_537_u64, 1 << 32, (1 << 63) - 1] {
            let mut client = Client::anonymous(server);
            let header = FrameHeader {
                opcode: OpCode::Data(Data::Text),
                mask: Some([1, 2, 3, 4]),
                ..FrameHeader::default()
            };
            let mut head = Vec::new();
            header.format(length, &mut head).expect("a header");
            client
                .socket
                .get_mut()
                .write_all(&head)
                .expect("the header is sent");
            assert_eq!(client.ended().code, 1009, "{length}");
        }
    });
}

#[test]
fn endless_fragments_close_with_1009() {
    beside("endless fragments", |server| {
        let mut client = Client::anonymous(server);
        client.send_frame(Frame::message(Vec::new(), OpCode::Data(Data::Text), false));
        let mut sent = 0;
        while client
            .socket
            .send(tungstenite::Message::Frame(Frame::message(
                vec![b' '; 1000],
                OpCode::Data(Data::Continue),
                false,
            )))
            .is_ok()
        {
            sent += 1000;
            if sent > 66_000 {
                break;
            }
        }
        assert_eq!(client.ended().code, 1009);
        let mut client = Client::anonymous(server);
        client.send_frame(Frame::message(vec![b'{'], OpCode::Data(Data::Text), false));
        for _ in 0..20_000 {
            client.send_frame(Frame::message(
                Vec::new(),
                OpCode::Data(Data::Continue),
                false,
            ));
        }
        client.send_frame(Frame::message(
            vec![b'}'],
            OpCode::Data(Data::Continue),
            true,
        ));
        client.ends_with(3501);
    });
}

#[test]
fn json_bombs_are_answered() {
    beside("JSON bombs", |server| {
        let deep = format!("{}{}", "[".repeat(30_000), "]".repeat(30_000));
        let open = "[".repeat(60_000);
        let keys = format!("{{{}\"z\":1}}", "\"a\":1,".repeat(9_000));
        let number = "9".repeat(60_000);
        for (name, data) in [
            ("deep", &deep),
            ("never closed", &open),
            ("many keys", &keys),
            ("long number", &number),
        ] {
            let mut client = Client::anonymous(server);
            client.send_text(&format!(
                "{{\"id\":2,\"publish\":{{\"channel\":\"open:bomb\",\"data\":{data}}}}}"
            ));
            match client.receive() {
                Ok(()) => assert_eq!(client.unread()[0]["id"], 2, "{name}"),
                Err(ended) => assert_eq!(ended.code, 3501, "{name}: {ended:?}"),
            }
            client = Client::anonymous(server);
            assert!(client.try_send_text(data), "{name}");
            client.ends_with(3501);
        }
        let deeper = format!("{}{}", "[".repeat(1_000_000), "]".repeat(1_000_000));
        let response = server.api_response(
            "publish",
            &format!("{{\"channel\":\"open:bomb\",\"data\":{deeper}}}"),
        );
        assert!(matches!(response.status, 200 | 400), "{}", response.status);
        let response = server.api_response("publish", &deeper);
        assert_eq!(response.status, 400);
        let response = server.api_response(
            "batch",
            &format!(
                "{{\"commands\":[{}{{\"info\":{{}}}}]}}",
                "{},".repeat(100_000)
            ),
        );
        assert!(
            matches!(response.status, 200 | 400 | 413),
            "{}",
            response.status
        );
    });
}

#[test]
fn ten_thousand_commands_in_one_frame_are_answered() {
    beside("10,000 commands", |server| {
        let mut client = Client::anonymous(server);
        client.send_text(
            &r#"{"id":7,"rpc":{}}"#.split('\n').cycle().take(3_000).collect::<Vec<_>>().join("\n"),
        );
        for _ in 0..3_000 {
            assert_eq!(client.next()["error"]["code"], 108);
        }
        client.send_text(&"\n".repeat(60_000));
        client.ends_with(3501);
    });
}

#[test]
fn ten_thousand_subscriptions_stop_at_the_limit() {
    beside("10,000 subscriptions", |server| {
        let mut client = Client::anonymous(server);
        let mut refused = 0;
        for frame in 0..20 {
            let command = |n: u32| {
                json!({ "id": n + 2, "subscribe": { "channel": format!("open:many-{n}") } })
                    .to_string()
            };
            let lines: Vec<String> = (frame * 500..frame * 500 + 500).map(command).collect();
            client.send_text(&lines.join("\n"));
            for n in frame * 500..frame * 500 + 500 {
                let reply = client.reply(u64::from(n) + 2);
                refused += u32::from(reply["error"]["code"] == 106);
            }
        }
        assert_eq!(refused, 10_000 - 128);
    });
}

#[test]
fn ten_thousand_subscriptions_are_held_and_released_where_they_are_allowed() {
    let server = Server::start(&config(
        "[client]\nallow_anonymous_connect_without_token = true\nchannel_limit = 10000\nqueue_max_size = 8388608\n\n[channel.without_namespace]\nallow_subscribe_for_client = true\nallow_subscribe_for_anonymous = true\npresence = true\n",
    ));
    let mut client = Client::anonymous(&server);
    for frame in 0..20 {
        let command = |n: u32| {
            json!({ "id": n + 2, "subscribe": { "channel": format!("many-{n}") } }).to_string()
        };
        let lines: Vec<String> = (frame * 500..frame * 500 + 500).map(command).collect();
        client.send_text(&lines.join("\n"));
        for n in frame * 500..frame * 500 + 500 {
            assert_eq!(client.reply(u64::from(n) + 2)["subscribe"], json!({}));
        }
    }
    let count = |pattern: &str| {
        let channels =
            server.api_result("channels", &json!({ "pattern": pattern }))["channels"].take();
        channels.as_object().map_or(0, serde_json::Map::len)
    };
    assert_eq!(count("many-99*"), 111, "99, 990 - 999, 9900 - 9999");
    server.api_result("publish", &json!({ "channel": "many-9999", "data": 1 }));
    assert_eq!(client.publication("many-9999")["data"], 1);
    drop(client);
    wait::until("all subscriptions to end", || {
        (count("many-*") == 0).then_some(())
    });
}

#[test]
fn names_over_the_limit_are_107() {
    beside("long names", |server| {
        let mut client = Client::anonymous(server);
        for length in [256, 1024, 1025, 60_000] {
            let channel = format!("open:{}", "x".repeat(length - 5));
            assert_eq!(
                client.error("subscribe", &json!({ "channel": channel })),
                107,
                "{length}"
            );
        }
        assert_eq!(
            client.error("subscribe", &json!({ "channel": "open:\u{0}\u{7f}\u{e9}" })),
            107
        );
        assert_eq!(
            client.error(
                "subscribe",
                &json!({ "channel": format!("{}:x", "n".repeat(200)) })
            ),
            102
        );
    });
}

#[test]
fn bad_tokens_end_as_the_protocol_says() {
    beside("bad tokens", |server| {
        let claims = json!({ "sub": "42", "exp": after(60) });
        let good = sign(&claims);
        let mut parts = good.split('.');
        let (head, body) = (parts.next().expect("a head"), parts.next().expect("a body"));
        let none = {
            use base64::Engine;
            base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#)
        };
        let forged = sign_with(&claims, jsonwebtoken::Algorithm::HS256, &SECRET[1..]);
        let long = "x".repeat(60_000);
        for token in [
            forged.as_str(),
            &format!("{none}.{body}."),
            &format!("{none}.{body}"),
            &format!("{head}.{body}."),
            &long,
            ".",
            "..",
        ] {
            let mut client = Client::open(server);
            client.send("connect", &json!({ "token": token }));
            client.ends_with(3500);
        }
        let mut client = Client::open(server);
        assert_eq!(
            client.error(
                "connect",
                &json!({ "token": sign(&json!({ "sub": "42", "exp": 1 })) })
            ),
            109
        );
    });
}

#[test]
fn unknown_commands_close_with_3501() {
    beside("unknown commands", |server| {
        for text in [
            r#"{"id":2,"never":{}}"#,
            r#"{"id":2}"#,
            r#"{"id":2,"method":1,"params":{}}"#,
            r#"{"id":2,"presence":{"channel":null}}"#,
        ] {
            let mut client = Client::anonymous(server);
            client.send_text(text);
            client.ends_with(3501);
        }
    });
}

#[test]
fn peers_that_do_not_read_their_replies_get_no_more_until_they_do() {
    beside("peers that never read", |server| {
        let fill = "x".repeat(50_000);
        for n in 0..10 {
            server.api_result(
                "publish",
                &json!({ "channel": "open:big", "data": { "n": n, "fill": fill } }),
            );
        }
        let before = server.resident_bytes();
        let mut peers: Vec<Client> = (0..10).map(|_| Client::anonymous(server)).collect();
        let asked: Vec<Vec<u64>> = (peers.iter_mut())
            .map(|client| {
                // Half a megabyte for each of these: 100 megabytes, were they all kept.
                let ask = json!({ "channel": "open:big", "limit": -1 });
                (0..200).map(|_| client.send("history", &ask)).collect()
            })
            .collect();
        let grown = server.resident_bytes().saturating_sub(before);
        assert!(grown < 40 << 20, "one answer for each waits: {grown}");
        for id in &asked[0] {
            assert_eq!(peers[0].next()["id"], *id, "who reads gets them all");
        }
    });
}

#[test]
fn connections_that_say_nothing_are_ended() {
    beside("silent connections", |server| {
        let mut silent: Vec<Http> = (0..50).map(|_| Http::open(server.listen)).collect();
        for http in &mut silent {
            let rest = http.rest();
            assert!(
                rest.is_empty() || rest.starts_with(b"HTTP/1.1 408"),
                "{}",
                String::from_utf8_lossy(&rest)
            );
        }
    });
}

#[test]
fn wrong_handshakes_are_refused() {
    beside("wrong handshakes", |server| {
        let good = [
            ("Connection", "Upgrade"),
            ("Upgrade", "websocket"),
            ("Sec-WebSocket-Version", "13"),
            ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ];
        for missing in 0..good.len() {
            let headers: Vec<_> = good
                .iter()
                .enumerate()
                .filter(|(at, _)| *at != missing)
                .map(|(_, header)| *header)
                .collect();
            let status = Http::open(server.listen).get(PATH, &headers).status;
            assert!(
                matches!(status, 400 | 426),
                "without {}: {status}",
                good[missing].0
            );
        }
        let mut old = good;
        old[2].1 = "8";
        let response = Http::open(server.listen).get(PATH, &old);
        assert!(matches!(response.status, 400 | 426), "{}", response.status);
        assert_eq!(
            response.header("Sec-WebSocket-Version"),
            Some("13"),
            "the version that is spoken"
        );
        let mut short = good;
        short[3].1 = "c2hvcnQ=";
        assert_eq!(
            Http::open(server.listen).get(PATH, &short).status,
            400,
            "a key is 16 bytes"
        );
        let status = Http::open(server.listen).post(PATH, &good, b"").status;
        assert!(matches!(status, 400 | 405), "{status}");
        let mut listed = good;
        listed[0].1 = "keep-alive, Upgrade";
        listed[1].1 = "WebSocket";
        assert_eq!(
            Http::open(server.listen).get(PATH, &listed).status,
            101,
            "tokens in lists, any case"
        );
    });
}

#[test]
fn replies_do_not_reach_others_when_a_connection_is_replaced() {
    beside("connections that come and go", |server| {
        for n in 0..200_u64 {
            let mut gone = Client::anonymous(server);
            gone.send(
                "history",
                &json!({ "channel": "open:bystander", "limit": 5 }),
            );
            drop(gone);
            let mut next = Client::open(server);
            let first = {
                next.send_text(&json!({ "id": 5000 + n, "connect": {} }).to_string());
                next.next()
            };
            assert_eq!(first["id"], 5000 + n, "{first}");
            assert!(first["connect"].is_object(), "{first}");
            assert_eq!(next.pending(), Vec::<Value>::new());
        }
    });
}
