//! Checks 22 – 32: tokens and expiry.

use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::{Value, json};

use crate::servers::{plain, quick, strict, with_namespaces};
use crate::support::client::{Client, Ended};
use crate::support::process::{SECRET, Server};
use crate::support::token::{after, sign, sign_by, sign_with, user};

/// A token that `strict()` accepts, with more claims.
fn housed(claims: &Value) -> String {
    let mut all = json!({ "sub": "42", "aud": "clients", "iss": "the-house" });
    for (name, value) in claims.as_object().expect("claims") {
        all[name] = value.clone();
    }
    sign(&all)
}

fn ended_with(server: &Server, token: &str) -> Ended {
    let mut client = Client::open(server);
    client.send("connect", &json!({ "token": token }));
    client.ended()
}

fn connect_error(server: &Server, token: &str) -> u64 {
    Client::open(server).error("connect", &json!({ "token": token }))
}

/// Base64 without padding, as tokens have it.
fn part(text: &str) -> String {
    use base64::Engine;
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(text)
}

#[test]
fn c22_hs256_token_sets_the_user_and_its_info() {
    let token = sign(&json!({ "sub": "42", "info": { "name": "Ada" } }));
    let mut client = Client::with_token(plain(), &token);
    client.subscribe("open:c22");
    let presence = client.ok("presence", &json!({ "channel": "open:c22" }));
    let entry = &presence["presence"][&client.id];
    assert_eq!(entry["user"], "42");
    assert_eq!(entry["client"], client.id.as_str());
    assert_eq!(entry["conn_info"], json!({ "name": "Ada" }));
}

#[test]
fn c22_longer_hmac_algorithms_are_accepted() {
    for algorithm in [Algorithm::HS384, Algorithm::HS512] {
        let token = sign_with(&json!({ "sub": "42" }), algorithm, SECRET);
        let client = Client::with_token(plain(), &token);
        assert!(!client.id.is_empty(), "{algorithm:?}");
    }
}

#[test]
fn c22_tokens_of_public_keys_set_the_user() {
    const RSA: &[u8] = include_bytes!("../vectors/keys/rsa.pem");
    const P256: &[u8] = include_bytes!("../vectors/keys/p256.pem");
    let server = Server::start(&with_namespaces(concat!(
        "rsa_public_key = \"\"\"",
        include_str!("../vectors/keys/rsa.pub.pem"),
        "\"\"\"\necdsa_public_key = \"\"\"",
        include_str!("../vectors/keys/p256.pub.pem"),
        "\"\"\"\n",
    )));
    let rsa = EncodingKey::from_rsa_pem(RSA).expect("a key");
    let p256 = EncodingKey::from_ec_pem(P256).expect("a key");
    for (algorithm, key) in [
        (Algorithm::RS256, &rsa),
        (Algorithm::PS512, &rsa),
        (Algorithm::ES256, &p256),
    ] {
        let token = sign_by(&json!({ "sub": "42" }), algorithm, key);
        let mut client = Client::with_token(&server, &token);
        client.subscribe("open:c22-public");
        let presence = client.ok("presence", &json!({ "channel": "open:c22-public" }));
        assert_eq!(
            presence["presence"][&client.id]["user"], "42",
            "{algorithm:?}"
        );
        let forged = format!("{token}x");
        assert_eq!(ended_with(&server, &forged).code, 3500, "{algorithm:?}");
    }
}

#[test]
fn c22_previous_key_is_accepted_while_it_counts() {
    let server = Server::start(&with_namespaces(
        "hmac_previous_secret_key = \"the-key-before\"\n",
    ));
    let token = sign_with(&json!({ "sub": "42" }), Algorithm::HS256, "the-key-before");
    assert!(!Client::with_token(&server, &token).id.is_empty());
    let server = Server::start(&with_namespaces(
        "hmac_previous_secret_key = \"the-key-before\"\nhmac_previous_secret_key_valid_until = 1700000000\n",
    ));
    assert_eq!(ended_with(&server, &token).code, 3500);
}

#[test]
fn c22_user_may_come_from_another_claim() {
    let server = Server::start(&with_namespaces("user_id_claim = \"uid\"\n"));
    let mut client = Client::with_token(&server, &sign(&json!({ "sub": "wrong", "uid": "42" })));
    client.subscribe("open:c22-claim");
    let presence = client.ok("presence", &json!({ "channel": "open:c22-claim" }));
    assert_eq!(presence["presence"][&client.id]["user"], "42");
}

#[test]
fn c23_expired_token_is_error_109() {
    assert_eq!(
        connect_error(plain(), &sign(&json!({ "sub": "42", "exp": after(-1) }))),
        109
    );
    assert_eq!(
        connect_error(plain(), &sign(&json!({ "sub": "42", "nbf": after(3600) }))),
        109
    );
}

#[test]
fn c24_forged_tokens_close_with_3500() {
    let good = user("42");
    let payload = good.split('.').nth(1).expect("three parts").to_owned();
    let none = format!("{}.{payload}.", part(r#"{"alg":"none","typ":"JWT"}"#));
    let none_upper = format!("{}.{payload}.", part(r#"{"alg":"NONE","typ":"JWT"}"#));
    let unsigned = format!(
        "{}.{payload}.",
        good.split('.').next().expect("three parts")
    );
    let other_user = format!(
        "{}.{}.{}",
        good.split('.').next().expect("three parts"),
        part(r#"{"sub":"1"}"#),
        good.split('.').nth(2).expect("three parts")
    );
    let wrong_key = sign_with(&json!({ "sub": "42" }), Algorithm::HS256, "another secret");
    let no_key = format!("{}.{payload}.AAAA", part(r#"{"alg":"RS256","typ":"JWT"}"#));
    let expired_and_forged = sign_with(
        &json!({ "sub": "42", "exp": 1 }),
        Algorithm::HS256,
        "another secret",
    );
    let forged = [
        none,
        none_upper,
        unsigned,
        other_user,
        wrong_key,
        no_key,
        expired_and_forged,
    ];
    for token in forged
        .iter()
        .map(String::as_str)
        .chain(["x", "a.b.c", "...", "ey.ey.ey"])
    {
        let ended = ended_with(plain(), token);
        assert_eq!(ended.code, 3500, "{token}: {ended:?}");
        assert!(!ended.reason.is_empty());
    }
}

#[test]
fn c25_subscription_token_does_not_open_a_connection() {
    assert_eq!(
        ended_with(plain(), &sign(&json!({ "sub": "42", "channel": "c25" }))).code,
        3500
    );
}

#[test]
fn c26_expiry_is_announced_in_seconds() {
    let client = Client::with_token(plain(), &sign(&json!({ "sub": "42", "exp": after(60) })));
    assert_eq!(client.connected["expires"], true);
    let ttl = client.connected["ttl"].as_u64().expect("a ttl");
    assert!((1..=60).contains(&ttl), "{ttl}");

    let forever = Client::with_token(
        plain(),
        &sign(&json!({ "sub": "42", "exp": after(60), "expire_at": 0 })),
    );
    assert!(
        forever.connected.get("expires").is_none(),
        "{}",
        forever.connected
    );
    assert!(
        forever.connected.get("ttl").is_none(),
        "{}",
        forever.connected
    );

    let longer = Client::with_token(
        plain(),
        &sign(&json!({ "sub": "42", "exp": after(60), "expire_at": after(600) })),
    );
    let ttl = longer.connected["ttl"].as_u64().expect("a ttl");
    assert!((500..=600).contains(&ttl), "expire_at overrides exp: {ttl}");

    assert_eq!(
        connect_error(
            plain(),
            &sign(&json!({ "sub": "42", "expire_at": after(-10) }))
        ),
        110
    );
}

#[test]
fn c27_no_credentials_close_with_3501() {
    let mut client = Client::open(strict());
    client.send("connect", &json!({}));
    client.ends_with(3501);
}

#[test]
fn c27_anonymous_token_closes_with_3507_where_it_is_disallowed() {
    assert_eq!(
        ended_with(strict(), &housed(&json!({ "sub": "" }))).code,
        3507
    );
    let client = Client::with_token(plain(), &sign(&json!({})));
    assert!(
        !client.id.is_empty(),
        "elsewhere an empty user is the anonymous one"
    );
}

#[test]
fn c28_refresh_extends_the_connection() {
    let short = || sign(&json!({ "sub": "42", "exp": after(30) }));
    let mut client = Client::with_token(plain(), &short());
    let result = client.ok(
        "refresh",
        &json!({ "token": sign(&json!({ "sub": "42", "exp": after(300) })) }),
    );
    assert_eq!(result["expires"], true);
    let ttl = result["ttl"].as_u64().expect("a ttl");
    assert!((200..=300).contains(&ttl), "{ttl}");
    let result = client.ok("refresh", &json!({ "token": user("42") }));
    assert_eq!(result, json!({}), "a token that never expires");
}

#[test]
fn c28_refresh_refuses_other_users_and_expired_tokens() {
    let refresh = |token: &str| {
        let mut client =
            Client::with_token(plain(), &sign(&json!({ "sub": "42", "exp": after(30) })));
        client.send("refresh", &json!({ "token": token }));
        client.ended().code
    };
    assert_eq!(refresh(&user("43")), 3500);
    assert_eq!(refresh("not.a.token"), 3500);
    assert_eq!(
        refresh(&sign(&json!({ "sub": "42", "exp": after(-5) }))),
        3005
    );
    assert_eq!(refresh(""), 3501);
    let mut client = Client::with_token(plain(), &sign(&json!({ "sub": "42", "exp": after(30) })));
    let past = sign(&json!({ "sub": "42", "exp": after(60), "expire_at": after(-5) }));
    assert_eq!(client.error("refresh", &json!({ "token": past })), 110);
}

#[test]
fn c28_refresh_of_an_anonymous_connection() {
    let mut client = Client::anonymous(plain());
    let result = client.ok(
        "refresh",
        &json!({ "token": sign(&json!({ "exp": after(60) })) }),
    );
    assert_eq!(result["expires"], true);
    let mut client = Client::anonymous(plain());
    client.send("refresh", &json!({ "token": user("42") }));
    client.ends_with(3500);
}

#[test]
fn c28_refresh_with_other_server_side_channels_closes_with_3010() {
    let token =
        |channels: &Value| sign(&json!({ "sub": "42", "exp": after(60), "channels": channels }));
    let mut client = Client::with_token(plain(), &token(&json!(["closed:c28"])));
    client.ok(
        "refresh",
        &json!({ "token": token(&json!(["closed:c28"])) }),
    );
    client.send(
        "refresh",
        &json!({ "token": token(&json!(["closed:c28-other"])) }),
    );
    client.ends_with(3010);
}

#[test]
fn c29_connection_not_refreshed_closes_with_3005() {
    let mut client = Client::with_token(quick(), &sign(&json!({ "sub": "42", "exp": after(2) })));
    assert_eq!(client.connected["expires"], true);
    client.ends_with(3005);
}

#[test]
fn c30_channels_and_subs_of_the_token_are_in_the_connect_result() {
    let token = sign(&json!({
        "sub": "42",
        "channels": ["closed:c30-ignored"],
        "subs": {
            "closed:c30": { "data": { "hello": 1 }, "info": { "seat": 7 }, "override": { "presence": { "value": true } } },
            "three:c30": {},
        },
    }));
    let mut client = Client::with_token(plain(), &token);
    let subs = client.connected["subs"].as_object().expect("subs").clone();
    assert_eq!(subs.len(), 2, "subs wins over channels: {subs:?}");
    assert_eq!(subs["closed:c30"]["data"], json!({ "hello": 1 }));
    assert_eq!(subs["three:c30"]["recoverable"], true);
    assert!(
        subs["three:c30"]["epoch"]
            .as_str()
            .is_some_and(|epoch| !epoch.is_empty())
    );

    let presence = plain().api_result("presence", &json!({ "channel": "closed:c30" }));
    assert_eq!(
        presence["presence"][&client.id]["chan_info"],
        json!({ "seat": 7 })
    );
    plain().api_result(
        "publish",
        &json!({ "channel": "closed:c30", "data": { "n": 1 } }),
    );
    assert_eq!(client.publication("closed:c30")["data"], json!({ "n": 1 }));

    let client = Client::with_token(
        plain(),
        &sign(&json!({ "sub": "42", "channels": ["closed:c30-a", "closed:c30-b"] })),
    );
    assert_eq!(
        client.connected["subs"],
        json!({ "closed:c30-a": {}, "closed:c30-b": {} })
    );
}

#[test]
fn c30_unknown_namespace_in_the_token_is_error_102() {
    assert_eq!(
        connect_error(
            plain(),
            &sign(&json!({ "sub": "42", "channels": ["nowhere:c30"] }))
        ),
        102
    );
    assert_eq!(
        connect_error(
            plain(),
            &sign(&json!({ "sub": "42", "subs": { "nowhere:c30": {} } }))
        ),
        102
    );
}

#[test]
fn c30_more_channels_than_the_limit_close_with_3505() {
    let channels: Vec<_> = (0..5).map(|n| format!("closed:c30-{n}")).collect();
    assert_eq!(
        ended_with(
            strict(),
            &housed(&json!({ "sub": "limit", "channels": channels }))
        )
        .code,
        3505
    );
}

#[test]
fn c30_server_side_channels_asked_for_at_connect_need_permission() {
    let mut client = Client::open(plain());
    let reply = client.call(
        "connect",
        &json!({ "subs": { "open:c30": {}, "closed:c30-asked": {} } }),
    );
    let subs = reply["connect"]["subs"].as_object().expect("subs");
    assert!(subs.contains_key("open:c30"), "{reply}");
    assert!(!subs.contains_key("closed:c30-asked"), "{reply}");
    let mut client = Client::open(plain());
    client.send("connect", &json!({ "subs": { "nowhere:c30": {} } }));
    client.ends_with(3501);
}

#[test]
fn c31_audience_and_issuer_mismatches_close_with_3500() {
    let wrong = [
        json!({ "aud": "others" }),
        json!({ "iss": "elsewhere" }),
        json!({ "aud": null }),
        json!({ "iss": null }),
        json!({ "aud": [] }),
    ];
    for claims in wrong {
        assert_eq!(
            ended_with(strict(), &housed(&claims)).code,
            3500,
            "{claims}"
        );
    }
    let several = housed(&json!({ "sub": "several", "aud": ["others", "clients"] }));
    assert!(
        !Client::with_token(strict(), &several).id.is_empty(),
        "any member may match"
    );
}

#[test]
fn c32_connection_over_the_users_limit_closes_with_3504() {
    let token = housed(&json!({ "sub": "c32" }));
    let first = Client::with_token(strict(), &token);
    let second = Client::with_token(strict(), &token);
    assert_eq!(ended_with(strict(), &token).code, 3504);
    assert_ne!(first.id, second.id);
    assert!(
        !Client::with_token(strict(), &housed(&json!({ "sub": "c32-other" })))
            .id
            .is_empty()
    );
}

#[test]
fn c32_connect_error_finishes_the_connection() {
    let mut client = Client::open(quick());
    assert_eq!(
        client.error(
            "connect",
            &json!({ "token": sign(&json!({ "sub": "42", "exp": 1 })) })
        ),
        109
    );
    client.send("connect", &json!({}));
    client.send("subscribe", &json!({ "channel": "c32" }));
    let ended = client.ended();
    assert!(
        matches!(ended.code, 1006 | 3502),
        "no later command counts: {ended:?}"
    );
    assert_eq!(
        client.unread(),
        Vec::<Value>::new(),
        "later commands are ignored"
    );
}
