//! Streams keep the promises of WebSockets: whichever shard accepts a command, however slow or hostile the peer.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::sync::OnceLock;
use std::time::Duration;

use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};

use crate::support::client::Client;
use crate::support::http::{Http, encode};
use crate::support::process::{Server, Start, config};
use crate::support::stream::{Shape, Stream};
use crate::support::token;
use crate::support::wait::{self, DEADLINE, now};

const BOTH: [Shape; 2] = [Shape::Lines, Shape::Events];
const CONFIG: &str = r#"
[client]
allow_anonymous_connect_without_token = true
recovery_max_publication_limit = 2000
user_connection_limit = 2

[http_stream]
enabled = true
[sse]
enabled = true
[uni_websocket]
enabled = true
join_push_messages = true
[uni_sse]
enabled = true
[uni_http_stream]
enabled = true
[poll]
enabled = true

[drain]
window = "500ms"
grace = "2s"

[channel.without_namespace]
history_size = 2000
history_ttl = "60s"
force_recovery = true
presence = true
allow_presence_for_subscriber = true
allow_presence_for_anonymous = true
allow_subscribe_for_client = true
allow_subscribe_for_anonymous = true

[[channel.namespaces]]
name = "live"
allow_subscribe_for_client = true
allow_subscribe_for_anonymous = true

[[channel.namespaces]]
name = "closed"
"#;

fn server() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(|| Start::with_config(&config(CONFIG)).shards(4).run())
}

fn publish(server: &Server, channel: &str, data: &Value) {
    server.api_result("publish", &json!({ "channel": channel, "data": data }));
}

/// A poll's answer.
fn poll(http: &mut Http, query: &str) -> (u16, Value) {
    let response = http.get(&format!("/connection/poll?{query}"), &[]);
    assert_eq!(response.header("cache-control"), Some("no-store"));
    (response.status, response.json())
}

#[test]
fn commands_reach_their_session_whichever_shard_accepts_them() {
    for shape in BOTH {
        let mut streams: Vec<Stream> = (0..6)
            .map(|_| Stream::connect(server(), shape, &json!({})))
            .collect();
        // Each request is a connection of its own: the kernel spreads them over the shards.
        for (index, stream) in streams.iter_mut().enumerate() {
            for n in 0..8 {
                stream.subscribe(&format!("live:{shape:?}-{index}-{n}"));
            }
        }
        for (index, stream) in streams.iter_mut().enumerate() {
            let channel = format!("live:{shape:?}-{index}-7");
            publish(server(), &channel, &json!(index));
            let push = stream.wait_for(|message| message.get("push").is_some());
            assert_eq!(push["push"]["pub"]["data"], index);
        }
    }
}

#[test]
fn commands_of_one_request_are_handled_in_their_order() {
    let mut stream = Stream::connect(server(), Shape::Lines, &json!({}));
    let commands: Vec<String> = (2..102)
        .map(|id| {
            let channel = format!("live:order{}", id / 2);
            json!({ "id": id, "subscribe": { "channel": channel } }).to_string()
        })
        .collect();
    assert_eq!(stream.emulate(&commands.join("\n")).status, 204);
    for id in 2..102 {
        let reply = stream.wait_for(|message| message["id"] == id);
        let code = reply["error"]["code"].as_u64();
        assert_eq!(
            code,
            (id % 2 == 1).then_some(105),
            "the first wins: {reply}"
        );
    }
}

#[test]
fn connection_of_requests_lives_on_and_answers_them_in_order() {
    let mut stream = Stream::connect(server(), Shape::Lines, &json!({}));
    let mut http = Http::open(server().listen);
    let subscribe = |id: u32| {
        json!({ "id": id, "subscribe": { "channel": format!("live:k{id}") } }).to_string()
    };
    let request = |id| encode("POST", "/emulation", &[], &stream.emulation(&subscribe(id)));
    let all: Vec<u8> = (2..22).flat_map(request).collect();
    http.send(&all);
    for _ in 2..22 {
        let response = http.response().expect("an answer to each");
        assert_eq!(response.status, 204);
        assert_eq!(response.header("connection"), Some("keep-alive"));
    }
    let ids: Vec<Value> = (2..22).map(|_| stream.next()["id"].clone()).collect();
    let wanted: Vec<Value> = (2..22).map(|id| json!(id)).collect();
    let sorted = {
        let mut ids = ids.clone();
        ids.sort_by_key(Value::as_u64);
        ids
    };
    assert_eq!(sorted, wanted);
    assert_eq!(http.get("/connection/poll", &[]).status, 400, "and goes on");
}

#[test]
fn stream_may_follow_other_requests_on_its_connection_and_ends_it() {
    let mut http = Http::open(server().listen);
    assert_eq!(http.get("/", &[]).status, 200);
    let body = json!({ "id": 1, "connect": { "token": token::user("follows") } }).to_string();
    let request = encode("POST", "/connection/http_stream", &[], body.as_bytes());
    let mut stream = Stream::over(http.into_stream(), server(), Shape::Lines, &request);
    assert!(stream.next().get("connect").is_some());
    server().api_result("disconnect", &json!({ "user": "follows" }));
    assert_eq!(stream.ends_with().0, 3503);
}

#[test]
fn second_request_on_a_stream_ends_it_and_empty_lines_do_not() {
    for shape in BOTH {
        let mut stream = Stream::connect(server(), shape, &json!({}));
        stream.socket.write_all(b"\r\n\r\n").expect("read past");
        stream.subscribe("live:after-lines");
        stream
            .socket
            .write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            .expect("the server reads");
        assert_eq!(stream.ends_with(), (3501, "bad request".into()));
    }
}

#[test]
fn half_closed_stream_is_over() {
    let user = json!({ "token": token::user("half") });
    let mut stream = Stream::connect(server(), Shape::Lines, &user);
    stream.subscribe("half");
    let clients = || {
        let stats = server().api_result("presence_stats", &json!({ "channel": "half" }));
        stats["num_clients"].as_u64()
    };
    assert_eq!(clients(), Some(1));
    stream
        .socket
        .shutdown(Shutdown::Write)
        .expect("half closed");
    wait::until("the subscriber to be gone", || {
        (clients() == Some(0)).then_some(())
    });
    let mut rest = Vec::new();
    stream.socket.read_to_end(&mut rest).expect("the end");
}

#[test]
fn stream_over_http_1_0_is_a_body_that_ends_with_the_connection() {
    for shape in BOTH {
        // What a proxy sends that was not told otherwise.
        let mut stream = Stream::connect_as(server(), shape, &json!({}), "HTTP/1.0");
        let channel = format!("live:plain{shape:?}");
        stream.subscribe(&channel);
        let mut beside = Stream::connect(server(), shape, &json!({}));
        beside.subscribe(&channel);
        for n in 0..20 {
            publish(server(), &channel, &json!(n));
        }
        for reader in [&mut stream, &mut beside] {
            for n in 0..20 {
                let push = reader.wait_for(|message| message.get("push").is_some());
                assert_eq!(push["push"]["pub"]["data"], n);
            }
        }
        assert_eq!(stream.emulate("{}").status, 204);
        assert_eq!(stream.ends_with(), (3501, "bad request".into()));
    }
    for (shape, path) in [
        (Shape::Events, "/connection/uni_sse"),
        (Shape::Lines, "/connection/uni_http_stream"),
    ] {
        let request = format!("POST {path} HTTP/1.0\r\nContent-Length: 2\r\n\r\n{{}}");
        let socket = std::net::TcpStream::connect(server().listen).expect("accepted");
        socket.set_read_timeout(Some(DEADLINE)).expect("a deadline");
        let mut uni = Stream::over(socket, server(), shape, request.as_bytes());
        assert!(uni.next().get("connect").is_some());
    }
    let mut http = Http::open(server().listen);
    http.send(b"POST /emulation HTTP/1.0\r\nContent-Length: 2\r\n\r\n{}");
    assert_eq!(
        http.response().expect("an answer").status,
        404,
        "an empty object names no node"
    );
}

#[test]
fn body_that_is_too_large_or_badly_chunked_is_refused() {
    let refused = |bytes: &[u8]| {
        let mut http = Http::open(server().listen);
        http.send(bytes);
        let status = http.response().expect("an answer").status;
        http.rest();
        status
    };
    for path in ["/connection/http_stream", "/connection/sse", "/emulation"] {
        let head = format!("POST {path} HTTP/1.1\r\nHost: a\r\n");
        let with = |rest: &str| format!("{head}{rest}").into_bytes();
        assert_eq!(refused(&with("Content-Length: 65537\r\n\r\n")), 413);
        assert_eq!(
            refused(&with("Transfer-Encoding: chunked\r\n\r\nzz\r\n")),
            400
        );
        assert_eq!(
            refused(&with("Transfer-Encoding: chunked\r\n\r\n10001\r\n")),
            413,
            "a chunk alone is larger than a body may be, and it need not arrive for that"
        );
        let chunk = "8000\r\n".to_owned() + &"x".repeat(0x8000) + "\r\n";
        let many = format!("Transfer-Encoding: chunked\r\n\r\n{}", chunk.repeat(3));
        assert_eq!(refused(&with(&many)), 413);
    }
}

#[test]
fn nobody_speaks_for_a_session_whose_secret_they_do_not_know() {
    let mut victim = Stream::connect(server(), Shape::Lines, &json!({}));
    let attacker = Stream::connect(server(), Shape::Lines, &json!({}));
    let session = victim.connected["session"]
        .as_str()
        .expect("text")
        .to_owned();
    let other = attacker.connected["session"].as_str().expect("text");
    assert!(session.len() >= 22, "128 bits at least");
    assert_ne!(session, other);
    // Where it is, with another's secret; every single character changed; its client id.
    let mut guesses = vec![format!("{}{}", &session[..14], &other[14..])];
    for at in 0..session.len() {
        let mut guess = session.clone();
        let letter = if &session[at..=at] == "A" { "E" } else { "A" };
        guess.replace_range(at..=at, letter);
        guesses.push(guess);
    }
    guesses.push(
        victim.connected["client"]
            .as_str()
            .expect("an id")
            .to_owned(),
    );
    let mut http = Http::open(server().listen);
    for guess in guesses {
        let body = json!({
            "session": guess,
            "node": victim.connected["node"],
            "data": "{\"id\":2,\"connect\":{}}",
        });
        let response = http.post("/emulation", &[], body.to_string().as_bytes());
        assert_eq!((response.status, response.body.len()), (204, 0), "{guess}");
    }
    victim.subscribe("live:untouched");
}

#[test]
fn unidirectional_session_takes_no_commands() {
    let mut stream = Stream::request(
        server(),
        Shape::Lines,
        "POST",
        "/connection/uni_http_stream",
        &[],
        b"{\"subs\":{\"live:uni\":{}}}",
    );
    let connect = stream.next()["connect"].clone();
    let node = Stream::connect(server(), Shape::Lines, &json!({})).connected["node"].clone();
    let body = json!({
        "session": connect["session"],
        "node": node,
        "data": "{\"id\":2,\"unsubscribe\":{\"channel\":\"live:uni\"}}",
    });
    let response = Http::open(server().listen).post("/emulation", &[], body.to_string().as_bytes());
    assert_eq!(response.status, 204);
    publish(server(), "live:uni", &json!("still here"));
    assert_eq!(stream.next()["pub"]["data"], "still here");
}

#[test]
fn publications_that_go_out_together_share_a_frame_if_wanted() {
    let mut client = Client::open_with(server(), "/connection/uni_websocket", &[]);
    client.send_text("{\"subs\":{\"live:joined\":{}}}");
    assert!(client.next().get("connect").is_some());
    let commands: Vec<Value> = (0..300)
        .map(|n| json!({ "publish": { "channel": "live:joined", "data": n } }))
        .collect();
    server().api("batch", &json!({ "commands": commands, "parallel": true }));
    let (mut frames, mut pushes) = (0, 0);
    while pushes < 300 {
        let message = client.socket.read().expect("a frame");
        let text = message.into_text().expect("text");
        frames += 1;
        for line in text.lines() {
            let push: Value = serde_json::from_str(line).expect("one push a line");
            if push != json!({}) {
                assert_eq!(push["pub"]["data"], pushes);
                pushes += 1;
            }
        }
    }
    assert!(frames < 100, "{frames} frames for 300 publications");
}

#[test]
fn stream_that_is_not_read_is_slow_and_costs_only_itself() {
    let server = Start::with_config(&config(CONFIG)).shards(2).run();
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket
        .set_recv_buffer_size(32 * 1024)
        .expect("a small buffer");
    socket.connect(&server.listen.into()).expect("accepted");
    let socket = std::net::TcpStream::from(socket);
    socket.set_read_timeout(Some(DEADLINE)).expect("a deadline");
    let body = "{\"id\":1,\"connect\":{}}\n{\"id\":2,\"subscribe\":{\"channel\":\"slow\"}}";
    let request = encode("POST", "/connection/http_stream", &[], body.as_bytes());
    let mut slow = Stream::over(socket, &server, Shape::Lines, &request);
    assert!(slow.next().get("connect").is_some());
    assert!(slow.next().get("subscribe").is_some());
    let mut other = Stream::connect(&server, Shape::Events, &json!({}));
    other.subscribe("slow");
    let reader = std::thread::spawn(move || {
        for n in 0..300 {
            let push = other.wait_for(|message| message.get("push").is_some());
            assert_eq!(push["push"]["pub"]["data"]["n"], n);
        }
    });
    let fill = "x".repeat(60_000);
    for n in 0..300 {
        publish(&server, "slow", &json!({ "n": n, "fill": fill }));
    }
    reader.join().expect("the other has everything");
    wait::until("the slow one to be told", || {
        (server.metric("ringmain_disconnected_slow_total") >= 1.0).then_some(())
    });
    assert_eq!(slow.ends_with(), (3008, "slow".into()));
}

#[test]
fn drain_tells_streams_and_polls_like_everybody() {
    for shape in BOTH {
        let mut server = Start::with_config(&config(CONFIG)).shards(2).run();
        let mut streams: Vec<Stream> = (0..10)
            .map(|_| Stream::connect(&server, shape, &json!({})))
            .collect();
        let mut uni = Stream::request(
            &server,
            Shape::Events,
            "GET",
            "/connection/uni_sse",
            &[],
            b"",
        );
        assert!(uni.next().get("connect").is_some());
        let mut waiting = Http::open(server.listen);
        waiting.send(&encode("GET", "/connection/poll?channel=drained", &[], b""));
        wait::until("the poll to wait", || {
            let stats = server.api_result("presence_stats", &json!({ "channel": "drained" }));
            (stats["num_clients"] == 1).then_some(())
        });
        server.signal("TERM");
        for stream in &mut streams {
            assert_eq!(stream.ends_with(), (3001, "shutdown".into()));
        }
        assert_eq!(uni.ends_with().0, 3001);
        let answer = waiting.response().expect("an early answer");
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("connection"), Some("close"));
        assert_eq!(answer.json()["publications"], json!([]));
        assert!(server.exit_status().success());
    }
}

#[test]
fn poll_waits_for_the_first_publication_and_goes_on_from_its_position() {
    let mut http = Http::open(server().listen);
    http.send(&encode("GET", "/connection/poll?channel=poll", &[], b""));
    wait::until("the poll to wait", || {
        let stats = server().api_result("presence_stats", &json!({ "channel": "poll" }));
        (stats["num_clients"] == 1).then_some(())
    });
    publish(server(), "poll", &json!({ "n": 1 }));
    let first = http.response().expect("an answer");
    assert_eq!(first.status, 200);
    assert_eq!(first.header("content-type"), Some("application/json"));
    let first = first.json();
    assert_eq!(first["publications"][0]["data"], json!({ "n": 1 }));
    assert_eq!(
        (&first["offset"], &first["recovered"]),
        (&json!(1), &json!(false))
    );
    let epoch = first["epoch"].as_str().expect("an epoch").to_owned();

    publish(server(), "poll", &json!({ "n": 2 }));
    publish(server(), "poll", &json!({ "n": 3 }));
    let (status, second) = poll(&mut http, &format!("channel=poll&epoch={epoch}&offset=1"));
    assert_eq!((status, &second["offset"]), (200, &json!(3)));
    assert_eq!(second["recovered"], true);
    let offsets: Vec<_> = second["publications"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|one| one["offset"].as_u64())
        .collect();
    assert_eq!(offsets, [Some(2), Some(3)]);

    let started = now();
    let (status, none) = poll(
        &mut http,
        &format!("channel=poll&epoch={epoch}&offset=3&timeout=1"),
    );
    assert!(started.elapsed() >= Duration::from_millis(900));
    assert_eq!(
        (status, none),
        (
            200,
            json!({ "epoch": epoch, "offset": 3, "publications": [], "recovered": true })
        )
    );
    let (status, lost) = poll(&mut http, "channel=poll&epoch=AAAAAAAA&offset=3");
    assert_eq!(status, 200, "answered at once");
    assert_eq!(
        lost,
        json!({ "epoch": epoch, "offset": 3, "publications": [], "recovered": false })
    );
}

#[test]
fn polling_while_a_thousand_publications_are_made_loses_and_repeats_nothing() {
    const COUNT: u64 = 1000;
    let publisher = std::thread::spawn(|| {
        for n in 1..=COUNT {
            publish(server(), "thousand", &json!(n));
        }
    });
    // One connection after another: each may be on another shard.
    let mut seen = Vec::new();
    let mut position = String::from("&offset=0&epoch=");
    while seen.len() < COUNT as usize {
        let mut http = Http::open(server().listen);
        let (status, answer) = poll(&mut http, &format!("channel=thousand{position}"));
        assert_eq!(
            (status, &answer["recovered"]),
            (200, &json!(true)),
            "{answer}"
        );
        for one in answer["publications"].as_array().expect("a list") {
            seen.push(one["data"].as_u64().expect("a number"));
        }
        position = format!(
            "&offset={}&epoch={}",
            answer["offset"],
            answer["epoch"].as_str().expect("an epoch")
        );
    }
    publisher.join().expect("all are published");
    assert_eq!(seen, (1..=COUNT).collect::<Vec<_>>());
}

#[test]
fn poll_is_refused_as_a_subscribe_would_be() {
    let mut http = Http::open(server().listen);
    let late = token::sign(&json!({ "sub": "p", "exp": token::after(-10) }));
    for (query, status, code) in [
        ("".to_owned(), 400, 107),
        ("channel=closed:x".to_owned(), 403, 103),
        ("channel=nowhere:x".to_owned(), 404, 102),
        (format!("channel=live:x&token={late}"), 401, 109),
        ("channel=live:x&token=x.y.z".to_owned(), 401, 3500),
        (
            format!(
                "channel=closed:x&token={}&subscription_token={}",
                token::user("ada"),
                token::subscription("bob", "closed:x")
            ),
            401,
            3500,
        ),
    ] {
        let (got, body) = poll(&mut http, &query);
        assert_eq!(
            (got, &body["error"]["code"]),
            (status, &json!(code)),
            "{query}"
        );
        assert!(body["error"]["message"].is_string());
    }
    for query in ["channel=live:x&offset=-1", "channel=live:x&timeout=soon"] {
        let response = Http::open(server().listen).get(&format!("/connection/poll?{query}"), &[]);
        assert_eq!(response.status, 400, "{query}");
    }
    let path = format!(
        "/connection/poll?channel=closed:x&timeout=0&subscription_token={}",
        token::subscription("ada", "closed:x")
    );
    let bearer = format!("Bearer {}", token::user("ada"));
    let response = http.get(&path, &[("Authorization", &bearer)]);
    assert_eq!(response.status, 200, "{}", response.text());
    assert_eq!(response.json()["publications"], json!([]));
}

#[test]
fn polls_count_as_connections_of_their_user_and_give_their_place_back() {
    let token = token::user("counted");
    let path = format!("/connection/poll?channel=counted&token={token}");
    let mut waiting: Vec<Http> = (0..2).map(|_| Http::open(server().listen)).collect();
    for http in &mut waiting {
        http.send(&encode("GET", &path, &[], b""));
    }
    wait::until("both to wait", || {
        let stats = server().api_result("presence_stats", &json!({ "channel": "counted" }));
        (stats["num_clients"] == 2).then_some(())
    });
    let (status, body) = poll(
        &mut Http::open(server().listen),
        &format!("channel=counted&token={token}"),
    );
    assert_eq!((status, &body["error"]["code"]), (429, &json!(3504)));
    publish(server(), "counted", &json!(1));
    for http in &mut waiting {
        assert_eq!(http.response().expect("an answer").status, 200);
        let (status, _) = poll(http, &format!("channel=counted&token={token}&timeout=0"));
        assert_eq!(status, 200, "the same connection polls again");
    }
}

#[test]
fn poll_hears_of_no_channel_but_its_own() {
    let token = token::sign(&json!({ "sub": "only", "channels": ["live:other"] }));
    let mut http = Http::open(server().listen);
    let path = format!("/connection/poll?channel=live:only&token={token}");
    http.send(&encode("GET", &path, &[], b""));
    wait::until("the poll to wait", || {
        let info = server().api_result("channels", &json!({ "pattern": "live:only" }));
        (info["channels"]["live:only"]["num_clients"] == 1).then_some(())
    });
    let wanted = json!({ "user": "only", "channel": "live:added" });
    server().api_result("subscribe", &wanted);
    publish(server(), "live:other", &json!("of the token"));
    publish(server(), "live:added", &json!("of a service"));
    publish(server(), "live:only", &json!("asked for"));
    let answer = http.response().expect("an answer").json();
    assert_eq!(answer["publications"][0]["data"], "asked for", "{answer}");
}
