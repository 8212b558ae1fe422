//! Tokens that are none cost their sender.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};

use serde_json::json;
use socket2::{Domain, Socket, Type};

use crate::support::client::{Client, Encoding, PATH};
use crate::support::process::{Server, config};
use crate::support::token::{after, sign};
use crate::support::wait::{self, DEADLINE};

fn server(client: &str) -> Server {
    Server::start(&config(&format!(
        "[client]\nallow_anonymous_connect_without_token = true\n{client}\n"
    )))
}

#[test]
fn invalid_subscription_tokens_end_their_connection_in_the_end() {
    for (extra, limit) in [("", 10), ("invalid_token_limit = 3", 3)] {
        let server = server(extra);
        let mut client = Client::anonymous(&server);
        let mut other = Client::anonymous(&server);
        for n in 1..limit {
            let request = json!({ "channel": format!("$a:{n}"), "token": "x.y.z" });
            assert_eq!(
                client.error("subscribe", &request),
                102,
                "no such namespace"
            );
            let request = json!({ "channel": format!("$a{n}"), "token": "x.y.z" });
            assert_eq!(client.error("subscribe", &request), 103, "{n}");
        }
        client.send("subscribe", &json!({ "channel": "$a", "token": "x.y.z" }));
        assert_eq!(client.ends_with(3500), "invalid token");
        // Nobody else is concerned, and whoever comes back begins anew.
        let request = json!({ "channel": "$a", "token": "x.y.z" });
        assert_eq!(other.error("subscribe", &request), 103);
        assert_eq!(Client::anonymous(&server).error("subscribe", &request), 103);
    }
}

#[test]
fn tokens_that_have_expired_are_no_offence() {
    let server = server("invalid_token_limit = 3");
    let mut client = Client::user(&server, "7");
    for n in 0..20 {
        let channel = format!("$a{n}");
        let token = sign(&json!({ "sub": "7", "channel": channel, "exp": 1 }));
        let request = json!({ "channel": channel, "token": token });
        assert_eq!(client.error("subscribe", &request), 109);
    }
    let token = sign(&json!({ "sub": "7", "channel": "$a", "exp": after(60) }));
    client.ok("subscribe", &json!({ "channel": "$a", "token": token }));
}

/// A connection from this address of the loopback.
fn from(server: &Server, address: Ipv4Addr) -> Client {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket
        .bind(&SocketAddr::from((address, 0)).into())
        .expect("an address of the loopback");
    socket
        .connect(&server.listen.into())
        .expect("the listener accepts");
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(DEADLINE)).expect("a deadline");
    Client::open_over(stream, PATH, &[], Encoding::Json)
}

#[test]
fn who_comes_back_with_invalid_tokens_is_not_looked_at_for_a_while() {
    let server = server("invalid_token_rate_per_prefix = 1");
    let here = Ipv4Addr::new(127, 0, 0, 2);
    let good = sign(&json!({ "sub": "7" }));
    let end = |token: &str| {
        let mut client = from(&server, here);
        client.send("connect", &json!({ "token": token }));
        match client.receive() {
            Ok(()) => 0,
            Err(ended) => ended.code,
        }
    };
    assert_eq!(end("x.y.z"), 3500);
    assert_eq!(end("x.y.z"), 3013, "not looked at");
    assert_eq!(end(&good), 3013, "nor is any other from there");
    // Other addresses are not concerned, nor is who brings no token.
    from(&server, Ipv4Addr::new(127, 0, 0, 3)).connect(&json!({ "token": good }));
    from(&server, here).connect(&json!({}));
    assert!(server.metric("ringmain_tokens_not_looked_at_total") >= 2.0);
    wait::until("it to be forgiven", || (end(&good) == 0).then_some(()));
}
