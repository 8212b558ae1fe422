//! A service shuts out tokens and users: those who are here are closed, on every shard, and those who come are refused.

use serde_json::{Value, json};

use crate::support::client::Client;
use crate::support::process::{Server, Start, config};
use crate::support::token::{after, sign};

const RULES: &str = r#"
[channel.without_namespace]
allow_subscribe_for_client = true
"#;

fn server() -> Server {
    Start::with_config(&config(RULES)).shards(3).run()
}

fn refused_with(server: &Server, token: &str) -> u16 {
    let mut client = Client::open(server);
    client.send("connect", &json!({ "token": token }));
    client.ended().code
}

/// Connections spread over the shards.
fn connected(server: &Server, claims: &Value) -> Vec<Client> {
    (0..6)
        .map(|_| Client::with_token(server, &sign(claims)))
        .collect()
}

fn all_end_with(clients: Vec<Client>, code: u16) {
    for mut client in clients {
        client.ends_with(code);
    }
}

#[test]
fn revoked_token_closes_its_connections_and_opens_none() {
    let server = server();
    let claims = json!({ "sub": "42", "jti": "one", "exp": after(600) });
    let clients = connected(&server, &claims);
    let mut other = Client::with_token(&server, &sign(&json!({ "sub": "42", "jti": "two" })));
    server.api_result(
        "revoke_token",
        &json!({ "uid": "one", "expire_at": after(600) }),
    );
    all_end_with(clients, 3500);
    assert_eq!(refused_with(&server, &sign(&claims)), 3500);
    other.subscribe("still here");
    other.send("refresh", &json!({ "token": sign(&claims) }));
    other.ends_with(3500);
    assert_eq!(server.api_error("revoke_token", &json!({})), 107);
}

#[test]
fn token_of_a_refresh_is_the_one_that_can_be_revoked() {
    let server = server();
    let token = |id: &str| sign(&json!({ "sub": "42", "jti": id, "exp": after(600) }));
    let mut client = Client::with_token(&server, &token("old"));
    client.ok("refresh", &json!({ "token": token("new") }));
    server.api_result("revoke_token", &json!({ "uid": "old" }));
    client.subscribe("still here");
    server.api_result("revoke_token", &json!({ "uid": "new" }));
    client.ends_with(3500);
}

#[test]
fn tokens_that_are_older_than_a_moment_are_invalid() {
    let server = server();
    let old = json!({ "sub": "42", "iat": after(-100) });
    let new = json!({ "sub": "42", "iat": after(-10) });
    let undated = json!({ "sub": "42" });
    let mut clients = connected(&server, &old);
    clients.extend(connected(&server, &undated));
    let mut young = Client::with_token(&server, &sign(&new));
    let mut other = Client::with_token(&server, &sign(&json!({ "sub": "43" })));
    server.api_result(
        "invalidate_user_tokens",
        &json!({ "user": "42", "issued_before": after(-50), "expire_at": after(600) }),
    );
    all_end_with(clients, 3500);
    young.subscribe("still here");
    other.subscribe("still here");
    for claims in [&old, &undated] {
        assert_eq!(refused_with(&server, &sign(claims)), 3500);
    }
    assert!(!Client::with_token(&server, &sign(&new)).id.is_empty());
    // Without a moment, everything that was issued before now.
    server.api_result("invalidate_user_tokens", &json!({ "user": "42" }));
    young.ends_with(3500);
    assert!(
        !Client::with_token(&server, &sign(&json!({ "sub": "42", "iat": after(5) })))
            .id
            .is_empty()
    );
    assert_eq!(server.api_error("invalidate_user_tokens", &json!({})), 107);
}

#[test]
fn subscription_tokens_of_a_channel_are_invalidated_alone() {
    let server = server();
    let mut client = Client::with_token(&server, &sign(&json!({ "sub": "42" })));
    let token = |channel: &str, issued_at: i64| {
        sign(&json!({ "sub": "42", "channel": channel, "iat": issued_at }))
    };
    let ask = |channel: &str, issued_at| json!({ "channel": channel, "token": token(channel, issued_at) });
    client.ok("subscribe", &ask("$a", after(-100)));
    client.ok("subscribe", &ask("$b", after(-100)));
    server.api_result(
        "invalidate_user_tokens",
        &json!({ "user": "42", "channel": "$a", "issued_before": after(-50) }),
    );
    let push = client.push();
    assert_eq!(push["channel"], "$a", "{push}");
    assert_eq!(push["unsubscribe"]["code"], 2501, "{push}");
    assert_eq!(client.error("subscribe", &ask("$a", after(-100))), 103);
    client.ok("subscribe", &ask("$a", after(0)));
    client.ok("sub_refresh", &ask("$b", after(-100)));
    client.send("sub_refresh", &ask("$a", after(-100)));
    client.ends_with(3500);
}

#[test]
fn blocked_user_is_closed_and_kept_out_until_unblocked() {
    let server = server();
    let claims = json!({ "sub": "42" });
    let clients = connected(&server, &claims);
    let mut other = Client::with_token(&server, &sign(&json!({ "sub": "43" })));
    let block = json!({ "user": "42", "expire_at": after(600) });
    server.api_result("block_user", &block);
    all_end_with(clients, 3503);
    assert_eq!(refused_with(&server, &sign(&claims)), 3503);
    other.subscribe("still here");
    server.api_result("unblock_user", &json!({ "user": "42" }));
    assert!(!Client::with_token(&server, &sign(&claims)).id.is_empty());
    // An end that has passed shuts nobody out.
    server.api_result(
        "block_user",
        &json!({ "user": "42", "expire_at": after(-1) }),
    );
    assert!(!Client::with_token(&server, &sign(&claims)).id.is_empty());
    for method in ["block_user", "unblock_user"] {
        assert_eq!(server.api_error(method, &json!({ "user": "" })), 107);
    }
}
