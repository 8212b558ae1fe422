//! HTTP/1.1 of the API: keep-alive, pipelining, and what ends a connection.

use std::sync::OnceLock;

use serde_json::json;

use crate::support::http::{Http, encode};
use crate::support::process::{API_KEY, Server, config};

const KEY: [(&str, &str); 1] = [("X-API-Key", API_KEY)];

fn server() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(|| {
        Server::start(&config(
            "[server]\nhttp_idle_timeout = \"1s\"\n\n[channel.without_namespace]\nhistory_size = 1000\nhistory_ttl = \"60s\"\n",
        ))
    })
}

fn publish(channel: &str, n: usize) -> Vec<u8> {
    encode(
        "POST",
        "/api/publish",
        &KEY,
        json!({ "channel": channel, "data": n })
            .to_string()
            .as_bytes(),
    )
}

#[test]
fn connection_is_kept_for_many_requests() {
    let mut http = Http::open(server().listen);
    for n in 1..=100 {
        http.send(&publish("kept", n));
        assert_eq!(
            http.response().expect("a response").json()["result"]["offset"],
            n
        );
    }
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let mut http = Http::open(server().listen);
    let mut bytes = Vec::new();
    for n in 1..=200 {
        bytes.extend(publish(
            if n % 2 == 0 {
                "piped-even"
            } else {
                "piped-odd"
            },
            n,
        ));
        if n % 10 == 0 {
            bytes.extend(encode("POST", "/api/never", &KEY, b"{}"));
        }
    }
    http.send(&bytes);
    for n in 1..=200_usize {
        assert_eq!(
            http.response().expect("a response").json()["result"]["offset"],
            n.div_ceil(2),
            "request {n}"
        );
        if n % 10 == 0 {
            assert_eq!(http.response().expect("a response").status, 404);
        }
    }
}

#[test]
fn request_may_arrive_a_byte_at_a_time() {
    let mut http = Http::open(server().listen);
    for byte in publish("bytewise", 1) {
        http.send(&[byte]);
    }
    assert_eq!(
        http.response().expect("a response").json()["result"]["offset"],
        1
    );
}

#[test]
fn chunked_bodies_are_read_or_refused() {
    let mut http = Http::open(server().listen);
    let body = json!({ "channel": "chunked", "data": 1 }).to_string();
    let (first, second) = body.split_at(9);
    http.send(format!(
        "POST /api/publish HTTP/1.1\r\nHost: a\r\nX-API-Key: {API_KEY}\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{first}\r\n{:X}\r\n{second}\r\n0\r\n\r\n",
        first.len(), second.len()
    ).as_bytes());
    let response = http.response().expect("a response");
    assert!(
        matches!(response.status, 200 | 411 | 501),
        "{}",
        response.status
    );
}

#[test]
fn length_and_chunks_together_are_refused() {
    let mut http = Http::open(server().listen);
    http.send(b"POST /api/info HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{}0\r\n\r\n");
    let response = http.response();
    assert_eq!(
        response.map_or(400, |response| response.status),
        400,
        "a smuggled request is not guessed at"
    );
    let mut http = Http::open(server().listen);
    http.send(
        b"POST /api/info HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}x",
    );
    assert_eq!(http.response().map_or(400, |response| response.status), 400);
}

#[test]
fn expect_100_continue_is_served() {
    let mut http = Http::open(server().listen);
    let body = json!({ "channel": "expected", "data": 1 }).to_string();
    http.send(format!("POST /api/publish HTTP/1.1\r\nHost: a\r\nX-API-Key: {API_KEY}\r\nExpect: 100-continue\r\nContent-Length: {}\r\n\r\n", body.len()).as_bytes());
    http.send(body.as_bytes());
    assert_eq!(
        http.response().expect("a response").status,
        200,
        "with or without an interim answer"
    );
}

#[test]
fn connection_close_and_http_1_0_end_after_the_response() {
    let mut http = Http::open(server().listen);
    let response = http.post("/api/info", &[KEY[0], ("Connection", "close")], b"{}");
    assert_eq!(response.status, 200);
    assert!(http.rest().is_empty());
    let mut http = Http::open(server().listen);
    http.send(
        format!("POST /api/info HTTP/1.0\r\nX-API-Key: {API_KEY}\r\nContent-Length: 2\r\n\r\n{{}}")
            .as_bytes(),
    );
    assert_eq!(http.response().expect("a response").status, 200);
    assert!(http.rest().is_empty());
}

#[test]
fn idle_connection_is_closed() {
    let mut http = Http::open(server().listen);
    assert_eq!(http.post("/api/info", &KEY, b"{}").status, 200);
    assert!(http.rest().is_empty(), "closed without a word");
}

#[test]
fn half_closed_connection_still_gets_its_answers() {
    let mut http = Http::open(server().listen);
    http.send(&[publish("half", 1), publish("half", 2)].concat());
    http.finish();
    assert_eq!(
        http.response().expect("a response").json()["result"]["offset"],
        1
    );
    assert_eq!(
        http.response().expect("a response").json()["result"]["offset"],
        2
    );
    assert!(http.response().is_none());
}

#[test]
fn unknown_paths_are_404_and_the_connection_goes_on() {
    let mut http = Http::open(server().listen);
    for path in [
        "/never",
        "/connection",
        "/connection/websocket/more",
        "/%00",
    ] {
        http.send(&encode("GET", path, &[], b""));
        let response = http
            .response()
            .unwrap_or_else(|| panic!("{path} is answered"));
        assert_eq!(response.status, 404, "{path}");
    }
    assert_eq!(http.post("/api/info", &KEY, b"{}").status, 200);
}

#[test]
fn large_body_within_the_limit_is_taken() {
    let mut http = Http::open(server().listen);
    let body = json!({ "channel": "large", "data": "x".repeat(3 << 20) }).to_string();
    let response = http.post("/api/publish", &KEY, body.as_bytes());
    assert_eq!(response.status, 200, "{}", response.text());
}
