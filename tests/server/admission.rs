//! How many clients come in, how fast, from where, and how many of one user.

use std::net::{Ipv4Addr, SocketAddr};

use serde_json::json;

use crate::support::client::Client;
use crate::support::http::{Http, Response};
use crate::support::process::{Server, Start, config};
use crate::support::token::sign;
use crate::support::wait;

const UPGRADE: &[(&str, &str)] = &[
    ("Connection", "Upgrade"),
    ("Upgrade", "websocket"),
    ("Sec-WebSocket-Version", "13"),
    ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
];

fn server(shards: u32, lines: &str) -> Server {
    let client = format!("[client]\nallow_anonymous_connect_without_token = true\n{lines}\n");
    Start::with_config(&config(&client)).shards(shards).run()
}

/// A connection from 127.0.0.`host`.
fn from(server: &Server, host: u8) -> Http {
    let socket =
        socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    let own = SocketAddr::from((Ipv4Addr::new(127, 0, 0, host), 0));
    socket
        .bind(&own.into())
        .expect("an address of the loopback");
    socket.connect(&server.listen.into()).expect("connected");
    let stream: std::net::TcpStream = socket.into();
    stream
        .set_read_timeout(Some(wait::DEADLINE))
        .expect("a deadline");
    Http::over(stream)
}

/// Asks for a WebSocket; the connection stays open as long as it is held.
fn upgrade(http: &mut Http, more: &[(&str, &str)]) -> Response {
    http.get("/connection/websocket", &[UPGRADE, more].concat())
}

fn knock(server: &Server, host: u8, more: &[(&str, &str)]) -> (u16, Http) {
    let mut http = from(server, host);
    let status = upgrade(&mut http, more).status;
    (status, http)
}

#[test]
fn connections_are_never_more_than_the_limit_on_any_number_of_shards() {
    for shards in [1, 4] {
        let server = server(shards, "connection_limit = 5");
        let mut held: Vec<Http> = Vec::new();
        let mut refused = 0;
        for _ in 0..12 {
            match knock(&server, 1, &[]) {
                (101, http) => held.push(http),
                (503, _) => refused += 1,
                (status, _) => panic!("status {status}"),
            }
        }
        assert_eq!((held.len(), refused), (5, 7), "{shards} shards");
        assert!((server.metric("ringmain_turned_away_limit_total") - 7.0).abs() < 0.1);
        assert_eq!(
            Http::open(server.listen).get("/", &[]).status,
            200,
            "what is no client is not counted"
        );
        held.pop();
        let http = wait::until("a place that is free again", || {
            let (status, http) = knock(&server, 1, &[]);
            (status == 101).then_some(http)
        });
        held.push(http);
        assert_eq!(knock(&server, 1, &[]).0, 503, "{shards} shards");
    }
}

#[test]
fn client_that_is_turned_away_may_send_its_body_and_gets_the_answer() {
    let server = server(1, "connection_limit = 1\n[http_stream]\nenabled = true");
    let (status, _held) = knock(&server, 1, &[]);
    assert_eq!(status, 101);
    let mut late = from(&server, 1);
    late.send(b"POST /connection/http_stream HTTP/1.1\r\nHost: a\r\nContent-Length: 2000\r\n\r\n");
    wait::until("it to be turned away", || {
        (server.metric("ringmain_turned_away_limit_total") >= 1.0).then_some(())
    });
    // A reset would let the second part fail.
    for _ in 0..2 {
        late.send(&[b'x'; 1000]);
    }
    assert_eq!(late.response().expect("an answer").status, 503);
}

#[test]
fn what_a_client_sends_behind_its_handshake_waits_for_admission() {
    let server = server(4, "connection_limit = 100");
    for _ in 0..16 {
        let mut client = Client::anonymous(&server);
        assert!(client.pending().is_empty());
    }
}

#[test]
fn rate_of_new_connections_is_limited_and_says_when_to_come_again() {
    for shards in [1, 4] {
        let server = server(shards, "connection_rate_limit = 3");
        let mut refused = None;
        let mut let_in = Vec::new();
        for _ in 0..30 {
            let mut http = from(&server, 1);
            let response = upgrade(&mut http, &[]);
            match response.status {
                101 => let_in.push(http),
                503 => {
                    refused = Some(response);
                    break;
                }
                status => panic!("status {status}"),
            }
        }
        let refused = refused.expect("thirty at once are more than three a second");
        assert!(let_in.len() >= 3, "{} were let in", let_in.len());
        let after = refused.header("retry-after").expect("when");
        assert!(["1", "2"].contains(&after), "{after}");
        wait::until("another token", || {
            (knock(&server, 1, &[]).0 == 101).then_some(())
        });
    }
}

#[test]
fn each_address_has_its_own_limit() {
    let server = server(4, "connection_limit_per_prefix = 2");
    let mut held = Vec::new();
    for host in [1, 2, 3] {
        for _ in 0..2 {
            let (status, http) = knock(&server, host, &[]);
            assert_eq!(status, 101, "127.0.0.{host}");
            held.push(http);
        }
        assert_eq!(knock(&server, host, &[]).0, 503, "127.0.0.{host}");
    }
    assert!((server.metric("ringmain_turned_away_prefix_limit_total") - 3.0).abs() < 0.1);
    let forged = [("X-Forwarded-For", "1.2.3.4")];
    assert_eq!(knock(&server, 1, &forged).0, 503, "nobody is trusted");
}

#[test]
fn a_prefix_may_be_a_network() {
    let server = server(2, "connection_rate_limit_per_prefix = 1\nipv4_prefix = 24");
    let let_in = (1..20).filter(|&host| knock(&server, host, &[]).0 == 101);
    assert!(let_in.count() < 19, "all of 127.0.0.0/24 are one");
}

#[test]
fn trusted_proxy_says_where_a_client_is() {
    let config = config(
        "[server]\ntrusted_proxies = [\"127.0.0.1\", \"10.0.0.0/8\"]\n[client]\nallow_anonymous_connect_without_token = true\nconnection_limit_per_prefix = 1\n",
    );
    let server = Start::with_config(&config).shards(2).run();
    let via = |hops: &str| knock(&server, 1, &[("X-Forwarded-For", hops)]);
    let (first, _first) = via("9.9.9.9, 1.1.1.1, 10.0.0.7");
    let (second, _second) = via("1.1.1.2");
    assert_eq!((first, second), (101, 101));
    assert_eq!(via("1.1.1.1").0, 503);
    assert_eq!(
        via("8.8.8.8, 1.1.1.2").0,
        503,
        "what stands before is hearsay"
    );
    let (direct, _direct) = knock(&server, 2, &[("X-Forwarded-For", "7.7.7.7")]);
    let (again, _again) = knock(&server, 2, &[("X-Forwarded-For", "7.7.7.8")]);
    assert_eq!((direct, again), (101, 503), "127.0.0.2 is no proxy");
}

#[test]
fn user_over_the_limit_is_refused_or_loses_the_oldest_connection() {
    let token = sign(&json!({ "sub": "u" }));
    let refusing = server(4, "user_connection_limit = 2");
    let _held = [
        Client::with_token(&refusing, &token),
        Client::with_token(&refusing, &token),
    ];
    let mut third = Client::open(&refusing);
    third.send("connect", &json!({ "token": token }));
    third.ends_with(3504);
    assert!((refusing.metric("ringmain_users_refused_total") - 1.0).abs() < 0.1);

    let closing = server(
        4,
        "user_connection_limit = 2\nuser_connection_limit_policy = \"close_oldest\"",
    );
    let mut clients: Vec<Client> = (0..2)
        .map(|_| Client::with_token(&closing, &token))
        .collect();
    let _other = Client::with_token(&closing, &sign(&json!({ "sub": "other" })));
    for _ in 0..6 {
        clients.push(Client::with_token(&closing, &token));
        clients.remove(0).ends_with(3504);
    }
    for client in &mut clients {
        assert!(client.pending().is_empty(), "the newest two stay");
    }
    assert!((closing.metric("ringmain_users_displaced_total") - 6.0).abs() < 0.1);
}

#[test]
fn personal_channel_may_allow_a_single_connection() {
    let server = server(
        4,
        "[client.subscribe_to_user_personal_channel]\nenabled = true\nsingle_connection = true",
    );
    let token = sign(&json!({ "sub": "u" }));
    let mut clients: Vec<Client> = Vec::new();
    for _ in 0..5 {
        let client = Client::with_token(&server, &token);
        if let Some(mut older) = clients.pop() {
            older.ends_with(3504);
        }
        clients.push(client);
    }
    server.api_result("publish", &json!({ "channel": "#u", "data": 1 }));
    assert_eq!(clients[0].publication("#u")["data"], 1);
    let _anonymous = [Client::anonymous(&server), Client::anonymous(&server)];
}

#[test]
fn limit_that_comes_with_a_reload_counts_who_is_there() {
    let server = server(2, "");
    let _held: Vec<Client> = (0..3).map(|_| Client::anonymous(&server)).collect();
    server.write_config(&config(
        "[client]\nallow_anonymous_connect_without_token = true\nconnection_limit = 3\n",
    ));
    server.signal("HUP");
    wait::until("the limit", || {
        (knock(&server, 1, &[]).0 == 503).then_some(())
    });
}
