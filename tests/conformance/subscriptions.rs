//! Checks 33 – 41: subscribing, subscription tokens, unsubscribing.

use serde_json::{Value, json};

use crate::servers::{plain, quick};
use crate::support::client::Client;
use crate::support::process::SECRET;
use crate::support::token::{after, sign, sign_with, subscription};

#[test]
fn c33_refused_subscriptions_have_their_codes() {
    let mut client = Client::anonymous(plain());
    assert_eq!(
        client.error("subscribe", &json!({ "channel": "nowhere:c33" })),
        102
    );
    assert_eq!(
        client.error("subscribe", &json!({ "channel": "closed:c33" })),
        103
    );
    assert_eq!(
        client.error("subscribe", &json!({ "channel": "x".repeat(256) })),
        107
    );
    assert_eq!(
        client.error("subscribe", &json!({ "channel": "open:grün" })),
        107,
        "ASCII only"
    );
    assert_eq!(
        client.error("subscribe", &json!({ "channel": "$open:c33" })),
        103,
        "a private channel needs a token"
    );
    client.subscribe(&"x".repeat(255));
    client.subscribe("open:c33");
    assert_eq!(
        client.error("subscribe", &json!({ "channel": "open:c33" })),
        105
    );
    assert_eq!(
        client.pending(),
        Vec::<Value>::new(),
        "a refused subscribe leaves nothing behind"
    );
}

#[test]
fn c33_second_subscribe_in_the_same_frame_is_105() {
    let mut client = Client::anonymous(plain());
    let subscribe =
        |id: u32| json!({ "id": id, "subscribe": { "channel": "three:c33-twice" } }).to_string();
    client.send_text(&format!("{}\n{}", subscribe(11), subscribe(12)));
    assert_eq!(client.reply(11)["subscribe"]["recoverable"], true);
    assert_eq!(client.reply(12)["error"]["code"], 105);
}

#[test]
fn c33_subscriptions_over_the_limit_are_106() {
    let mut client = Client::anonymous(plain());
    for n in 0..128 {
        client.subscribe(&format!("c33-{n}"));
    }
    assert_eq!(
        client.error("subscribe", &json!({ "channel": "c33-128" })),
        106
    );
    client.ok("unsubscribe", &json!({ "channel": "c33-5" }));
    client.subscribe("c33-128");
}

#[test]
fn c33_unknown_delta_and_types_are_refused() {
    let mut client = Client::anonymous(plain());
    assert_eq!(
        client.error(
            "subscribe",
            &json!({ "channel": "open:c33-map", "type": 1 })
        ),
        103
    );
    assert_eq!(
        client.error(
            "subscribe",
            &json!({ "channel": "open:c33-poll", "type": 4 })
        ),
        108
    );
    let result = client.ok(
        "subscribe",
        &json!({ "channel": "open:c33-delta", "delta": "fossil" }),
    );
    assert!(
        result.get("delta").is_none(),
        "what is not granted is not reflected: {result}"
    );
    client.send(
        "subscribe",
        &json!({ "channel": "open:c33-odd", "delta": "xdelta" }),
    );
    client.ends_with(3501);
}

#[test]
fn c33_refused_subscribe_may_be_repeated_with_a_token() {
    let mut client = Client::user(plain(), "42");
    assert_eq!(
        client.error("subscribe", &json!({ "channel": "closed:c33-retry" })),
        103
    );
    let token = subscription("42", "closed:c33-retry");
    client.ok(
        "subscribe",
        &json!({ "channel": "closed:c33-retry", "token": token }),
    );
}

#[test]
fn c34_subscribe_reply_precedes_own_join_and_publications() {
    let channel = "joins:c34";
    let mut publisher = Client::anonymous(plain());
    publisher.subscribe(channel);
    for round in 0..20 {
        let mut client = Client::anonymous(plain());
        for n in 0..10 {
            publisher.send("publish", &json!({ "channel": channel, "data": n }));
        }
        let id = client.send("subscribe", &json!({ "channel": channel }));
        for n in 10..20 {
            publisher.send("publish", &json!({ "channel": channel, "data": n }));
        }
        let first = client.next();
        assert_eq!(
            first["id"], id,
            "round {round}: the reply is first: {first}"
        );
        // The subscribe may have been read after all of them; this one it cannot miss.
        publisher.send("publish", &json!({ "channel": channel, "data": 20 }));
        let mut joined = false;
        let mut last = None;
        while !joined || last != Some(20) {
            let push = client.push();
            assert_eq!(push["channel"], channel);
            joined |= push["join"]["info"]["client"] == client.id.as_str();
            if let Some(n) = push["pub"]["data"].as_i64() {
                assert!(
                    last.is_none_or(|last| n == last + 1),
                    "round {round}: {last:?} then {n}"
                );
                last = Some(n);
            }
        }
    }
}

#[test]
fn c35_subscription_token_opens_its_channel() {
    let mut client = Client::user(plain(), "42");
    let token = sign(
        &json!({ "sub": "42", "channel": "closed:c35", "info": { "seat": 1 }, "data": { "greeting": "hi" } }),
    );
    let result = client.ok(
        "subscribe",
        &json!({ "channel": "closed:c35", "token": token }),
    );
    assert_eq!(result["data"], json!({ "greeting": "hi" }));
    assert!(result.get("expires").is_none(), "{result}");
    let presence = plain().api_result("presence", &json!({ "channel": "closed:c35" }));
    assert_eq!(
        presence["presence"][&client.id]["chan_info"],
        json!({ "seat": 1 })
    );

    let private = subscription("42", "$closed:c35");
    client.ok(
        "subscribe",
        &json!({ "channel": "$closed:c35", "token": private }),
    );
}

#[test]
fn c35_token_override_turns_options_on() {
    let mut client = Client::user(plain(), "42");
    let token = sign(&json!({
        "sub": "42", "channel": "kept:c35",
        "override": { "force_recovery": { "value": true }, "force_positioning": { "value": true } },
    }));
    let result = client.ok(
        "subscribe",
        &json!({ "channel": "kept:c35", "token": token }),
    );
    assert_eq!(result["recoverable"], true);
    assert_eq!(result["positioned"], true);
}

#[test]
fn c35_token_for_another_channel_or_user_closes_with_3500() {
    let wrong = [
        subscription("42", "closed:c35-other"),
        subscription("43", "closed:c35-mine"),
        sign(&json!({ "channel": "closed:c35-mine" })),
        sign(&json!({ "sub": "42", "channel": "closed:c35-mine", "client": "another" })),
    ];
    for token in wrong {
        let mut client = Client::user(plain(), "42");
        client.send(
            "subscribe",
            &json!({ "channel": "closed:c35-mine", "token": token }),
        );
        let ended = client.ended();
        assert_eq!(ended.code, 3500, "{token}: {ended:?}");
    }
}

#[test]
fn c35_invalid_token_is_103_and_expired_token_109() {
    let mut client = Client::user(plain(), "42");
    let mut code = |token: &str| {
        client.error(
            "subscribe",
            &json!({ "channel": "closed:c35-bad", "token": token }),
        )
    };
    assert_eq!(code("nonsense"), 103);
    let claims = json!({ "sub": "42", "channel": "closed:c35-bad" });
    assert_eq!(
        code(&sign_with(
            &claims,
            jsonwebtoken::Algorithm::HS256,
            &SECRET.to_uppercase()
        )),
        103
    );
    let expired =
        |seconds| json!({ "sub": "42", "channel": "closed:c35-bad", "exp": after(seconds) });
    assert_eq!(code(&sign(&expired(-1))), 109);
    let past = json!({ "sub": "42", "channel": "closed:c35-bad", "expire_at": after(-5) });
    assert_eq!(code(&sign(&past)), 110);
}

#[test]
fn c36_user_limited_channel_is_for_its_users_only() {
    let channel = "dialog:c36#42,43";
    for user in ["42", "43"] {
        Client::user(plain(), user).subscribe(channel);
    }
    for user in ["4", "44", "42,43"] {
        assert_eq!(
            Client::user(plain(), user).error("subscribe", &json!({ "channel": channel })),
            103,
            "{user}"
        );
    }
    assert_eq!(
        Client::anonymous(plain()).error("subscribe", &json!({ "channel": channel })),
        103
    );
    assert_eq!(
        Client::anonymous(plain()).error("subscribe", &json!({ "channel": "dialog:c36#" })),
        103
    );
}

#[test]
fn c37_unsubscribe_answers_for_any_channel() {
    let mut client = Client::anonymous(plain());
    for channel in ["open:c37", "never", "nowhere:c37"] {
        let id = client.send("unsubscribe", &json!({ "channel": channel }));
        assert_eq!(
            client.next(),
            json!({ "id": id, "unsubscribe": {} }),
            "{channel}"
        );
    }
}

#[test]
fn c38_publications_stop_after_the_unsubscribe_reply() {
    let mut client = Client::anonymous(plain());
    client.subscribe("c38-other");
    for n in 0..10 {
        client.subscribe("c38");
        plain().api_result("publish", &json!({ "channel": "c38", "data": n }));
        assert_eq!(client.publication("c38")["data"], n);
        client.ok("unsubscribe", &json!({ "channel": "c38" }));
        plain().api_result("publish", &json!({ "channel": "c38", "data": "late" }));
        plain().api_result("publish", &json!({ "channel": "c38-other", "data": n }));
        assert_eq!(
            client.publication("c38-other")["data"],
            n,
            "nothing of the channel that was left"
        );
    }
}

#[test]
fn c39_subscribing_a_hundred_times_leaves_no_presence() {
    let mut client = Client::anonymous(plain());
    for _ in 0..100 {
        client.subscribe("open:c39");
        client.ok("unsubscribe", &json!({ "channel": "open:c39" }));
    }
    let presence = plain().api_result("presence", &json!({ "channel": "open:c39" }));
    assert_eq!(presence, json!({ "presence": {} }));
    let stats = plain().api_result("presence_stats", &json!({ "channel": "open:c39" }));
    assert_eq!(stats, json!({ "num_clients": 0, "num_users": 0 }));
}

#[test]
fn c39_hundred_pairs_in_one_frame_leave_no_presence() {
    let mut client = Client::anonymous(plain());
    let mut lines = Vec::new();
    for n in 0..100 {
        lines.push(
            json!({ "id": 1000 + 2 * n, "subscribe": { "channel": "joins:c39" } }).to_string(),
        );
        lines.push(
            json!({ "id": 1001 + 2 * n, "unsubscribe": { "channel": "joins:c39" } }).to_string(),
        );
    }
    client.send_text(&lines.join("\n"));
    for n in 0..200 {
        let reply = client.reply(1000 + n);
        assert!(reply.get("error").is_none(), "{reply}");
    }
    let presence = plain().api_result("presence", &json!({ "channel": "joins:c39" }));
    assert_eq!(presence, json!({ "presence": {} }));
}

#[test]
fn c40_expired_subscription_ends_with_push_2501() {
    let mut client = Client::user(quick(), "42");
    let token = sign(&json!({ "sub": "42", "channel": "closed:c40", "exp": after(2) }));
    let result = client.ok(
        "subscribe",
        &json!({ "channel": "closed:c40", "token": token }),
    );
    assert_eq!(result["expires"], true);
    assert!(
        (1..=2).contains(&result["ttl"].as_u64().expect("a ttl")),
        "{result}"
    );
    let push = client.push();
    assert_eq!(push["channel"], "closed:c40");
    assert_eq!(push["unsubscribe"]["code"], 2501);
    assert!(
        push["unsubscribe"]["reason"]
            .as_str()
            .is_some_and(|reason| !reason.is_empty()),
        "{push}"
    );
    let presence = quick().api_result("presence", &json!({ "channel": "closed:c40" }));
    assert_eq!(presence, json!({ "presence": {} }));
    client.ok("unsubscribe", &json!({ "channel": "closed:c40" }));
}

#[test]
fn c40_refreshed_subscription_goes_on() {
    let mut client = Client::user(quick(), "42");
    let token =
        |seconds| sign(&json!({ "sub": "42", "channel": "closed:c40-on", "exp": after(seconds) }));
    client.ok(
        "subscribe",
        &json!({ "channel": "closed:c40-on", "token": token(2) }),
    );
    let result = client.ok(
        "sub_refresh",
        &json!({ "channel": "closed:c40-on", "token": token(300) }),
    );
    assert_eq!(result["expires"], true);
    assert!(
        (200..=300).contains(&result["ttl"].as_u64().expect("a ttl")),
        "{result}"
    );
    // Two pings are at least three seconds: the first expiry and its grace are over.
    client.ping();
    client.ping();
    client.ping();
    quick().api_result("publish", &json!({ "channel": "closed:c40-on", "data": 1 }));
    assert_eq!(client.publication("closed:c40-on")["data"], 1);
}

#[test]
fn c40_sub_refresh_refusals() {
    let mut client = Client::user(plain(), "42");
    let mine =
        |seconds| sign(&json!({ "sub": "42", "channel": "closed:c40-no", "exp": after(seconds) }));
    assert_eq!(
        client.error(
            "sub_refresh",
            &json!({ "channel": "closed:c40-no", "token": mine(60) })
        ),
        103
    );
    client.ok(
        "subscribe",
        &json!({ "channel": "closed:c40-no", "token": mine(60) }),
    );
    assert_eq!(
        client.error(
            "sub_refresh",
            &json!({ "channel": "closed:c40-no", "token": "" })
        ),
        107
    );
    client.send(
        "sub_refresh",
        &json!({ "channel": "closed:c40-no", "token": mine(-1) }),
    );
    let push = client.push();
    assert_eq!(
        push["unsubscribe"]["code"], 2501,
        "an expired token ends the subscription: {push}"
    );

    client.ok(
        "subscribe",
        &json!({ "channel": "closed:c40-no", "token": mine(60) }),
    );
    client.send(
        "sub_refresh",
        &json!({ "channel": "closed:c40-no", "token": subscription("42", "closed:else") }),
    );
    client.ends_with(3500);
}

#[test]
fn c41_many_channels_of_one_connection_get_their_own_publications() {
    let mut client = Client::anonymous(plain());
    let names: Vec<String> = (0..128).map(|n| format!("c41-{n}")).collect();
    for name in &names {
        client.subscribe(name);
    }
    for (n, name) in names.iter().enumerate() {
        plain().api_result("publish", &json!({ "channel": name, "data": n }));
    }
    for _ in &names {
        let push = client.push();
        let n = push["pub"]["data"].as_u64().expect("a number");
        assert_eq!(push["channel"], format!("c41-{n}"));
    }
    assert_eq!(client.pending(), Vec::<Value>::new());
}
