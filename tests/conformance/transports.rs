//! Checks 64 – 68, check 2 for every endpoint of clients, and the traps of streams: everything beside the WebSocket.

use std::io::{Read as _, Write as _};
use std::sync::OnceLock;

use serde_json::{Value, json};
use tungstenite::Message;

use crate::support::client::{Client, tcp, upgrade_over};
use crate::support::http::{Http, Response, encode};
use crate::support::process::{Server, config};
use crate::support::stream::{Shape, Stream};
use crate::support::token;

const BOTH: [Shape; 2] = [Shape::Lines, Shape::Events];
const TRANSPORTS: &str = r#"
[http_stream]
enabled = true
[sse]
enabled = true
[uni_websocket]
enabled = true
[uni_sse]
enabled = true
[uni_http_stream]
enabled = true
[init]
enabled = true
[poll]
enabled = true

[channel.without_namespace]
allow_subscribe_for_client = true
allow_subscribe_for_anonymous = true
allow_publish_for_client = true
allow_publish_for_anonymous = true

[[channel.namespaces]]
name = "kept"
history_size = 2000
history_ttl = "300s"
force_recovery = true
allow_subscribe_for_client = true
allow_subscribe_for_anonymous = true
"#;

fn server() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(|| {
        Server::start(&config(&format!(
            "[client]\nallowed_origins = [\"https://*.example.com\"]\nallow_anonymous_connect_without_token = true\n{TRANSPORTS}"
        )))
    })
}

fn quick() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(|| {
        Server::start(&config(&format!(
            "[client]\nallow_anonymous_connect_without_token = true\nping_interval = \"1s\"\npong_timeout = \"300ms\"\nstale_close_delay = \"300ms\"\n{TRANSPORTS}"
        )))
    })
}

fn http() -> Http {
    Http::open(server().listen)
}

fn query(text: &str) -> String {
    form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

const GOOD: &str = "https://app.example.com";
const BAD: &str = "https://app.example.org";

fn allows(response: &Response, origin: Option<&str>) {
    assert_eq!(response.header("access-control-allow-origin"), origin);
    let credentials = origin.map(|_| "true");
    assert_eq!(
        response.header("access-control-allow-credentials"),
        credentials
    );
}

/// An endpoint of every transport of clients, and a request that it would take but for its origin.
const DOORS: [(&str, &str); 11] = [
    ("GET", "/connection/websocket"),
    ("GET", "/connection/uni_websocket"),
    ("POST", "/connection/http_stream"),
    ("POST", "/connection/sse"),
    (
        "GET",
        "/connection/sse?cf_connect=%7B%22id%22%3A1%2C%22connect%22%3A%7B%7D%7D",
    ),
    ("POST", "/connection/uni_http_stream"),
    ("POST", "/connection/uni_sse"),
    ("GET", "/connection/uni_sse"),
    ("POST", "/emulation"),
    ("OPTIONS", "/emulation"),
    ("GET", "/connection/poll?channel=c02&timeout=0"),
];

#[test]
fn c02_every_client_transport_refuses_a_bad_origin() {
    let upgrade = [
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    let asks = |method: &str, path: &str, more: &[(&str, &str)]| {
        let headers = match path.ends_with("websocket") {
            true => [&upgrade[..], more].concat(),
            false => more.to_vec(),
        };
        let mut stream = tcp(server().listen);
        stream
            .write_all(&encode(method, path, &headers, b""))
            .expect("the server reads");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).expect("a head");
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).expect("text");
        let status = head[9..12].parse::<u16>().expect("a status");
        let allowed = head
            .lines()
            .find_map(|line| line.strip_prefix("Access-Control-Allow-Origin: "));
        (status, allowed.map(str::to_owned))
    };
    for (method, path) in DOORS {
        let (plain, allowed) = asks(method, path, &[]);
        assert_eq!(allowed, None, "{path}");
        assert_ne!(plain, 403, "{path}");
        let good = asks(method, path, &[("Origin", GOOD)]);
        assert_eq!(good, (plain, Some(GOOD.to_owned())), "{path}");
        for headers in [
            &[("Origin", BAD)][..],
            &[("Origin", "null")],
            &[("Origin", BAD), ("Sec-Fetch-Site", "same-origin")],
            // An image or a link: the browser sends its cookies and no origin.
            &[("Sec-Fetch-Site", "cross-site")],
        ] {
            let refused = asks(method, path, headers);
            assert_eq!(refused, (403, None), "{method} {path} {headers:?}");
        }
        for headers in [
            &[("Sec-Fetch-Site", "same-origin")][..],
            &[("Sec-Fetch-Site", "none")],
        ] {
            assert_eq!(
                asks(method, path, headers),
                (plain, None),
                "{path} {headers:?}"
            );
        }
        let allowed = [("Origin", GOOD), ("Sec-Fetch-Site", "cross-site")];
        assert_eq!(asks(method, path, &allowed).0, plain, "{path}");
    }
}

#[test]
fn c02_query_carries_one_connect_command_and_nothing_else() {
    let get = |frame: &str| {
        let path = format!("/connection/sse?cf_connect={}", query(frame));
        http().request("GET", &path, &[], b"").status
    };
    let connect = "{\"id\":1,\"connect\":{}}";
    for frame in [
        format!("{connect}\n{{\"id\":2,\"publish\":{{\"channel\":\"c02\",\"data\":1}}}}"),
        format!("{connect}\n{connect}"),
        "{\"id\":1,\"subscribe\":{\"channel\":\"c02\"}}".to_owned(),
        "{}".to_owned(),
        format!("{connect}\n{{"),
        "{".to_owned(),
    ] {
        assert_eq!(get(&frame), 400, "{frame}");
    }
    let path = format!("/connection/sse?cf_connect={}", query(connect));
    let mut stream = Stream::request(server(), Shape::Events, "GET", &path, &[], b"");
    assert_eq!(stream.next()["id"], 1);
}

#[test]
fn c02_allowed_origins_get_the_cors_headers() {
    for (method, path) in [
        ("GET", "/connection/init"),
        ("GET", "/connection/sse"),
        ("GET", "/connection/poll"),
        ("POST", "/emulation"),
        ("POST", "/connection/uni_http_stream"),
        ("DELETE", "/connection/uni_sse"),
        ("GET", "/connection/http_stream"),
    ] {
        let plain = http().request(method, path, &[], b"");
        allows(&plain, None);
        let good = http().request(method, path, &[("Origin", GOOD)], b"");
        allows(&good, Some(GOOD));
        assert_eq!(good.header("vary"), Some("Origin"), "{path}");
        assert_eq!(good.header("access-control-allow-headers"), None);
        assert_eq!(good.status, plain.status, "{path}");
        let asked = [
            ("Origin", "https://APP.example.com"),
            ("Access-Control-Request-Headers", "x-a, X-B"),
        ];
        let asked = http().request(method, path, &asked, b"");
        allows(&asked, Some("https://APP.example.com"));
        assert_eq!(
            asked.header("access-control-allow-headers"),
            Some("x-a, X-B"),
            "echoed as it was sent"
        );
        let bad = http().request(method, path, &[("Origin", BAD)], b"");
        allows(&bad, None);
    }
    let bad = http().get("/connection/init", &[("Origin", BAD)]);
    assert_eq!(
        bad.status, 200,
        "nothing is done there: the browser refuses"
    );
    let connect = json!({ "id": 1, "connect": {} }).to_string();
    let stream = Stream::request(
        server(),
        Shape::Lines,
        "POST",
        "/connection/http_stream",
        &[("Origin", GOOD)],
        connect.as_bytes(),
    );
    assert_eq!(stream.header("access-control-allow-origin"), Some(GOOD));
}

#[test]
fn c02_preflights_are_answered_204_where_there_are_any() {
    for path in [
        "/connection/http_stream",
        "/emulation",
        "/connection/uni_http_stream",
    ] {
        let headers = [
            ("Origin", GOOD),
            ("Access-Control-Request-Headers", "content-type"),
        ];
        let response = http().request("OPTIONS", path, &headers, b"");
        assert_eq!(response.status, 204, "{path}");
        allows(&response, Some(GOOD));
        for (name, value) in [
            ("access-control-allow-headers", "content-type"),
            ("access-control-allow-methods", "POST, OPTIONS"),
            ("access-control-max-age", "300"),
        ] {
            assert_eq!(response.header(name), Some(value), "{path} {name}");
        }
        let bad = http().request("OPTIONS", path, &[("Origin", BAD)], b"");
        assert_eq!(
            (bad.status, bad.header("access-control-max-age")),
            (403, None)
        );
    }
    for path in ["/connection/sse", "/connection/uni_sse"] {
        assert_eq!(http().request("OPTIONS", path, &[], b"").status, 405);
    }
}

#[test]
fn c64_http_stream_brings_replies_line_by_line_to_commands_of_other_requests() {
    let mut stream = Stream::connect(server(), Shape::Lines, &json!({}));
    for (name, value) in [
        ("x-accel-buffering", "no"),
        (
            "cache-control",
            "private, no-cache, no-store, must-revalidate, max-age=0",
        ),
        ("pragma", "no-cache"),
        ("expire", "0"),
        ("connection", "close"),
    ] {
        assert_eq!(stream.header(name), Some(value), "{name}");
    }
    assert_eq!(stream.connected["ping"], 25);
    assert_eq!(stream.connected["pong"], true);
    stream.subscribe("c64");
    let data = json!({ "text": "\u{e4}\u{1f600}" });
    server().api_result("publish", &json!({ "channel": "c64", "data": data }));
    let push = stream.wait_for(|message| message.get("push").is_some());
    assert_eq!(push["push"]["pub"]["data"], data);

    let response = stream.emulate(
        "{\"id\":7,\"publish\":{\"channel\":\"c64\",\"data\":1}}\n{\"id\":8,\"unsubscribe\":{\"channel\":\"c64\"}}\n{\"id\":9,\"unsubscribe\":{\"channel\":\"c64\"}}",
    );
    assert_eq!((response.status, response.body.len()), (204, 0));
    for id in 7..=9 {
        stream.wait_for(|message| message["id"] == id);
    }
}

#[test]
fn c64_commands_behind_connect_in_the_first_request_are_handled_in_order() {
    for path in ["/connection/http_stream", "/connection/sse"] {
        let shape = if path.ends_with("sse") {
            Shape::Events
        } else {
            Shape::Lines
        };
        let body = "{\"id\":1,\"connect\":{}}\n{\"id\":2,\"subscribe\":{\"channel\":\"a\"}}\n{\"id\":3,\"subscribe\":{\"channel\":\"b\"}}\n";
        let mut stream = Stream::request(server(), shape, "POST", path, &[], body.as_bytes());
        for (id, result) in [(1, "connect"), (2, "subscribe"), (3, "subscribe")] {
            let reply = stream.next();
            assert_eq!(reply["id"], id);
            assert!(reply.get(result).is_some(), "{reply}");
        }
    }
}

#[test]
fn c65_emulation_answers_each_mistake_with_its_status() {
    let stream = Stream::connect(server(), Shape::Lines, &json!({}));
    let post = |body: &[u8]| http().post("/emulation", &[], body).status;
    let with = |name: &str, value: &str| {
        let mut body: Value = serde_json::from_slice(&stream.emulation("{}")).expect("JSON");
        body[name] = json!(value);
        post(body.to_string().as_bytes())
    };
    assert_eq!(with("node", "another"), 404);
    assert_eq!(with("session", "unknown"), 204, "a guess learns nothing");
    assert_eq!(with("session", &"A".repeat(35)), 204);
    for body in [&b""[..], b"{", b"[]", b"{\"data\":{}}"] {
        assert_eq!(post(body), 400, "{body:?}");
    }
    assert_eq!(post(&vec![b' '; 65_537]), 413);
    let protobuf = [("Content-Type", "application/octet-stream")];
    let response = http().post("/emulation", &protobuf, b"{}");
    assert_eq!(response.status, 400, "JSON is no Protobuf");
    for method in ["GET", "PUT", "DELETE", "HEAD"] {
        assert_eq!(http().request(method, "/emulation", &[], b"").status, 405);
    }
    assert_eq!(
        http().request("OPTIONS", "/emulation", &[], b"").status,
        204
    );
}

#[test]
fn c65_emulation_is_there_only_with_a_stream() {
    let off = Server::start(&config("[client]\ninsecure = true\n"));
    for path in [
        "/emulation",
        "/connection/http_stream",
        "/connection/sse",
        "/connection/uni_sse",
        "/connection/uni_http_stream",
        "/connection/init",
        "/connection/poll",
        "/connection/uni_websocket",
    ] {
        let response = Http::open(off.listen).post(path, &[], b"{}");
        assert_eq!(response.status, 404, "{path} is off unless enabled");
    }
}

#[test]
fn c66_sse_needs_a_connect_command_and_begins_with_an_empty_line() {
    for path in ["/connection/sse", "/connection/sse?cf_connect="] {
        assert_eq!(http().get(path, &[]).status, 400);
    }
    let mut stream = Stream::connect(server(), Shape::Events, &json!({}));
    assert_eq!(
        stream.header("content-type"),
        Some("text/event-stream; charset=utf-8")
    );
    stream.subscribe("c66");
    server().api_result(
        "publish",
        &json!({ "channel": "c66", "data": "line\nline\r" }),
    );
    let push = stream.wait_for(|message| message.get("push").is_some());
    assert_eq!(push["push"]["pub"]["data"], "line\nline\r");
    let body = vec![b' '; 65_537];
    assert_eq!(http().post("/connection/sse", &[], &body).status, 413);
}

#[test]
fn c67_disconnect_is_a_push_and_then_the_stream_ends() {
    for shape in BOTH {
        let user = format!("c67-{shape:?}");
        let request = json!({ "token": token::user(&user) });
        let mut stream = Stream::connect(server(), shape, &request);
        server().api_result("disconnect", &json!({ "user": user }));
        let last = stream.next();
        assert_eq!(
            last,
            json!({ "push": { "disconnect": { "code": 3503, "reason": "force disconnect" } } })
        );
        assert_eq!(stream.try_next(), None);
        assert_eq!(stream.emulate("{}").status, 204, "nobody is there any more");
    }
}

#[test]
fn c67_every_rule_that_closes_a_websocket_ends_a_stream() {
    for shape in BOTH {
        let mut second = Stream::connect(server(), shape, &json!({}));
        assert_eq!(second.emulate("{\"id\":2,\"connect\":{}}").status, 204);
        assert_eq!(second.ends_with(), (3501, "bad request".into()));
        let mut pong = Stream::connect(server(), shape, &json!({}));
        pong.emulate("{}");
        assert_eq!(pong.ends_with().0, 3501, "a pong that nobody asked for");
        let mut blank = Stream::connect(server(), shape, &json!({}));
        blank.emulate("");
        assert_eq!(blank.ends_with().0, 3501);
    }
    let mut empty = Stream::request(
        server(),
        Shape::Lines,
        "POST",
        "/connection/http_stream",
        &[],
        b"",
    );
    assert_eq!(empty.ends_with(), (3501, "bad request".into()));
}

#[test]
fn c14_c15_streams_are_pinged_and_those_that_do_not_answer_end() {
    for shape in BOTH {
        let mut silent = Stream::connect(quick(), shape, &json!({}));
        assert_eq!(silent.ends_with(), (3012, "no pong".into()));
        assert!(silent.pings > 0);

        let mut lively = Stream::connect(quick(), shape, &json!({}));
        for _ in 0..2 {
            let pings = lively.pings;
            while lively.pings == pings {
                let chunk = lively.chunk().expect("the stream goes on");
                assert!(chunk.windows(2).any(|two| two == b"{}"), "{chunk:?}");
                lively.pings += 1;
            }
            assert_eq!(lively.emulate("{}").status, 204);
        }
        lively.subscribe("lively");
    }
}

#[test]
fn refused_connect_on_a_stream_is_a_reply_first() {
    for shape in BOTH {
        let token = token::sign(&json!({ "sub": "late", "exp": token::after(-10) }));
        let command = json!({ "id": 1, "connect": { "token": token } }).to_string();
        let path = if shape == Shape::Lines {
            "/connection/http_stream"
        } else {
            "/connection/sse"
        };
        let mut stream = Stream::request(server(), shape, "POST", path, &[], command.as_bytes());
        assert_eq!(stream.next()["error"]["code"], 109);
    }
}

#[test]
fn c68_uni_streams_begin_with_a_connect_push_and_bring_bare_pushes() {
    let connect = json!({ "subs": { "kept:c68": {} } }).to_string();
    let get = format!("/connection/uni_sse?cf_connect={}", query(&connect));
    for (shape, method, path, body) in [
        (Shape::Events, "GET", get.as_str(), ""),
        (
            Shape::Events,
            "POST",
            "/connection/uni_sse",
            connect.as_str(),
        ),
        (
            Shape::Lines,
            "POST",
            "/connection/uni_http_stream",
            connect.as_str(),
        ),
    ] {
        let mut stream = Stream::request(server(), shape, method, path, &[], body.as_bytes());
        let first = stream.next();
        let connect = &first["connect"];
        assert_eq!(connect["ping"], 25, "{first}");
        assert!(connect.get("pong").is_none(), "{first}");
        assert!(connect["subs"].get("kept:c68").is_some(), "{first}");
        server().api_result("publish", &json!({ "channel": "kept:c68", "data": path }));
        let push = stream.next();
        assert_eq!(
            (&push["channel"], &push["pub"]["data"]),
            (&json!("kept:c68"), &json!(path))
        );
        let client = connect["client"].clone();
        server().api_result("disconnect", &json!({ "user": "", "client": client }));
        assert_eq!(
            stream.next(),
            json!({ "disconnect": { "code": 3503, "reason": "force disconnect" } })
        );
        assert_eq!(stream.try_next(), None);
    }
}

#[test]
fn c68_disconnect_with_3000_drops_the_connection_without_a_word() {
    let end = |user: &str| {
        let disconnect = json!({ "code": 3000, "reason": "not told" });
        let request = json!({ "user": user, "disconnect": disconnect });
        server().api_result("disconnect", &request);
    };
    let mut client = Client::user(server(), "c68-3000");
    end("c68-3000");
    assert_eq!(client.ended().code, 1006, "no close frame");
    for shape in [Shape::Lines, Shape::Events] {
        let signed = token::sign(&json!({ "sub": "c68-3000" }));
        let mut stream = Stream::connect(server(), shape, &json!({ "token": signed }));
        end("c68-3000");
        assert_eq!(stream.try_next(), None, "no push");
    }
    let signed = token::sign(&json!({ "sub": "c68-3000" }));
    let path = "/connection/uni_websocket";
    let mut client = Client::open_with(server(), path, &[]);
    client.send_text(&json!({ "token": signed }).to_string());
    client.receive().expect("the connect push");
    client.unread();
    end("c68-3000");
    assert_eq!(client.ended().code, 1006, "no close frame");
    assert!(client.unread().is_empty(), "and no push");
}

#[test]
fn c68_uni_websocket_begins_with_a_connect_push_and_ends_with_push_and_close_frame() {
    let by_query = format!(
        "/connection/uni_websocket?cf_connect={}",
        query(&json!({ "subs": { "c68w": {} } }).to_string())
    );
    for (path, first) in [
        (by_query.as_str(), None),
        ("/connection/uni_websocket", Some(r#"{"subs":{"c68w":{}}}"#)),
    ] {
        let mut client = Client::open_with(server(), path, &[]);
        if let Some(first) = first {
            client.send_text(first);
        }
        let first = client.next();
        assert!(first["connect"]["subs"].get("c68w").is_some(), "{first}");
        client.send_text(r#"{"id":2,"subscribe":{"channel":"x"}}"#);
        server().api_result("publish", &json!({ "channel": "c68w", "data": 1 }));
        let push = client.next();
        assert_eq!(
            push,
            json!({ "channel": "c68w", "pub": { "data": 1 } }),
            "what it sends is read past"
        );
        let id = first["connect"]["client"].clone();
        server().api_result("disconnect", &json!({ "user": "", "client": id }));
        assert_eq!(client.next()["disconnect"]["code"], 3503);
        assert_eq!(client.ends_with(3503), "force disconnect");
    }
    let mut null = Client::open_with(server(), "/connection/uni_websocket", &[]);
    null.send_text("null");
    assert!(null.next().get("connect").is_some());
}

#[test]
fn malformed_connect_of_a_unidirectional_client_is_400_or_3501() {
    let bad = |path: &str| format!("{path}?cf_connect={}", query("{\"token\":1}"));
    assert_eq!(http().get(&bad("/connection/uni_sse"), &[]).status, 400);
    for path in ["/connection/uni_sse", "/connection/uni_http_stream"] {
        assert_eq!(http().post(path, &[], b"{").status, 400);
        assert_eq!(http().post(path, &[], &vec![b' '; 65_537]).status, 413);
    }
    let status = upgrade_over(tcp(server().listen), &bad("/connection/uni_websocket"), &[]);
    assert_eq!(status.map(drop), Err(400));
    let mut client = Client::open_with(server(), "/connection/uni_websocket", &[]);
    client.send_text("{\"token\":1}");
    assert_eq!(client.next()["disconnect"]["code"], 3501);
    assert_eq!(client.ends_with(3501), "bad request");
}

#[test]
fn refused_connect_of_a_unidirectional_client_is_a_disconnect() {
    let late = token::sign(&json!({ "sub": "late", "exp": token::after(-10) }));
    let unknown = token::sign(&json!({ "sub": "u", "channels": ["nowhere:x"] }));
    for (token, code) in [(late, 3005), (unknown, 3004), ("x.y.z".to_owned(), 3500)] {
        let connect = json!({ "token": token }).to_string();
        let path = "/connection/uni_http_stream";
        let mut stream = Stream::request(
            server(),
            Shape::Lines,
            "POST",
            path,
            &[],
            connect.as_bytes(),
        );
        assert_eq!(stream.ends_with().0, code);
    }
}

#[test]
fn codes_of_refused_connects_become_what_is_configured() {
    let server = Server::start(&config(
        &format!(
            r#"
[client]
allow_anonymous_connect_without_token = true
[client.connect_code_to_unidirectional_disconnect]
enabled = true
transforms = [{{ code = 109, to = {{ code = 4009, reason = "renew" }} }}]
[uni_sse.connect_code_to_http_response]
enabled = true
transforms = [
    {{ code = 109, to = {{ status_code = 401, body = "{{\"renew\":true}}" }} }},
    {{ code = 3500, to = {{ status_code = 403 }} }},
]
{TRANSPORTS}"#
        )
        .replace("[uni_sse]\nenabled = true\n", "")
        .replace(
            "[uni_sse.connect",
            "[uni_sse]\nenabled = true\n[uni_sse.connect",
        ),
    ));
    let late = token::sign(&json!({ "sub": "late", "exp": token::after(-10) }));
    let unknown = token::sign(&json!({ "sub": "u", "channels": ["nowhere:x"] }));
    let body = json!({ "token": late }).to_string();
    let mut stream = Stream::request(
        &server,
        Shape::Lines,
        "POST",
        "/connection/uni_http_stream",
        &[],
        body.as_bytes(),
    );
    assert_eq!(stream.ends_with(), (4009, "renew".into()));
    for (token, status, text) in [
        (late.as_str(), 401, "{\"renew\":true}"),
        ("x.y.z", 403, "invalid token"),
        (unknown.as_str(), 500, "Internal Server Error"),
    ] {
        let body = json!({ "token": token }).to_string();
        let response = Http::open(server.listen).post("/connection/uni_sse", &[], body.as_bytes());
        assert_eq!((response.status, response.text().as_str()), (status, text));
    }
    let mut good = Stream::request(
        &server,
        Shape::Events,
        "GET",
        "/connection/uni_sse",
        &[],
        b"",
    );
    assert!(good.next().get("connect").is_some());
}

#[test]
fn uni_websocket_says_its_end_as_configured() {
    let with = |lines: &str| {
        Server::start(&config(&format!(
            "[client]\nallow_anonymous_connect_without_token = true\n[uni_websocket]\nenabled = true\n{lines}"
        )))
    };
    let end = |server: &Server| {
        let mut client = Client::open_with(server, "/connection/uni_websocket", &[]);
        client.send_text("{}");
        let id = client.next()["connect"]["client"].clone();
        server.api_result("disconnect", &json!({ "user": "", "client": id }));
        client
    };
    let mut client = end(&with("disable_disconnect_push = true\n"));
    assert_eq!(client.ends_with(3503), "force disconnect");
    let mut client = end(&with("disable_closing_handshake = true\n"));
    assert_eq!(client.next()["disconnect"]["code"], 3503);
    assert_eq!(client.ended().code, 1006, "no close frame");
}

#[test]
fn t09_t10_each_reply_is_one_chunk_and_there_is_nothing_between() {
    // `Stream` fails for a chunk that is not exactly one message with what belongs around it.
    for shape in BOTH {
        let mut stream = Stream::connect(server(), shape, &json!({}));
        let channel = format!("kept:t9{shape:?}");
        stream.subscribe(&channel);
        for n in 0..50 {
            let fill = "\u{20ac}".repeat(n * 40);
            server().api_result("publish", &json!({ "channel": channel, "data": [n, fill] }));
        }
        for n in 0..50 {
            let push = stream.wait_for(|message| message.get("push").is_some());
            assert_eq!(push["push"]["pub"]["data"][0], n);
        }
    }
}

#[test]
fn init_answers_an_empty_object() {
    let response = http().get("/connection/init", &[("Origin", GOOD)]);
    assert_eq!((response.status, response.text().as_str()), (200, "{}"));
}

#[test]
fn c14_unidirectional_clients_are_pinged_and_need_not_answer() {
    for (shape, path, ping) in [
        (Shape::Events, "/connection/uni_sse", &b"data: {}\n\n"[..]),
        (Shape::Lines, "/connection/uni_http_stream", b"{}\n"),
    ] {
        let mut stream = Stream::request(quick(), shape, "POST", path, &[], b"{}");
        assert!(stream.next().get("connect").is_some());
        for _ in 0..3 {
            assert_eq!(stream.chunk().as_deref(), Some(ping));
        }
    }
    let mut client = Client::open_with(quick(), "/connection/uni_websocket", &[]);
    client.send_text("{}");
    let (mut frames, mut pushes) = (0, 0);
    while frames < 3 || pushes < 3 {
        match client.socket.read().expect("the connection goes on") {
            Message::Ping(_) => frames += 1,
            Message::Text(text) => pushes += u32::from(text.as_str() == "{}"),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn c11_uni_websocket_without_a_connect_request_is_stale() {
    let mut client = Client::open_with(quick(), "/connection/uni_websocket", &[]);
    assert_eq!(client.next()["disconnect"]["code"], 3502);
    assert_eq!(client.ends_with(3502), "stale");
}

#[test]
fn c64_protobuf_replies_and_commands_carry_their_lengths() {
    let protobuf = [("Content-Type", "application/octet-stream")];
    // { id: 1, connect: {} } behind its length (§2.2).
    let connect = b"\x04\x08\x01\x22\x00";
    let path = "/connection/http_stream";
    let mut stream = Stream::request(server(), Shape::Lines, "POST", path, &protobuf, connect);
    assert_eq!(
        stream.header("content-type"),
        Some("application/octet-stream")
    );
    let reply = stream.chunk().expect("a reply");
    let (length, message) = varint(&reply);
    assert_eq!(length, message.len(), "one reply is one chunk");
    assert_eq!(message[..3], [0x08, 1, 0x2a], "id 1, then a connect result");
    let (_, result) = varint(&message[3..]);
    let (session, node) = (field(result, 9), field(result, 10));
    assert!(!session.is_empty() && !node.is_empty());

    // EmulationRequest { node, session, data }, whose data is { id: 2, subscribe: { channel: "p" } }.
    let command = b"\x07\x08\x02\x2a\x03\x0a\x01p";
    let mut body = Vec::new();
    for (tag, bytes) in [(0x0a, node), (0x12, session), (0x1a, &command[..])] {
        body.push(tag);
        body.push(u8::try_from(bytes.len()).expect("a short field"));
        body.extend_from_slice(bytes);
    }
    let response = http().post("/emulation", &protobuf, &body);
    assert_eq!((response.status, response.body.len()), (204, 0));
    let reply = stream.chunk().expect("a reply");
    assert_eq!(
        reply[1..4],
        [0x08, 2, 0x32],
        "id 2, then a subscribe result"
    );
}

/// A length in base 128, and what follows it.
fn varint(bytes: &[u8]) -> (usize, &[u8]) {
    let end = bytes
        .iter()
        .position(|byte| byte & 0x80 == 0)
        .expect("an end");
    let value = bytes[..=end]
        .iter()
        .rev()
        .fold(0, |value, byte| value << 7 | usize::from(byte & 0x7f));
    (value, &bytes[end + 1..])
}

/// The bytes of a length-delimited field of a message.
fn field(mut message: &[u8], number: usize) -> &[u8] {
    while !message.is_empty() {
        let (tag, rest) = varint(message);
        let (value, rest) = varint(rest);
        if tag & 7 != 2 {
            message = rest;
            continue;
        }
        if tag >> 3 == number {
            return &rest[..value];
        }
        message = &rest[value..];
    }
    &[]
}
