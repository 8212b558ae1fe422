//! Several shards behave as one server.

use std::collections::BTreeSet;
use std::sync::OnceLock;

use serde_json::{Value, json};

use crate::support::client::Client;
use crate::support::http::Http;
use crate::support::process::{API_KEY, Server, Start, config};
use crate::support::scenario;
use crate::support::token::sign;
use crate::support::wait;

/// More shards than this machine may have cores.
fn server() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(|| {
        Start::with_config(&config(
            r#"
[client]
allow_anonymous_connect_without_token = true
recovery_max_publication_limit = 2000
user_connection_limit = 20

[[channel.namespaces]]
name = "all"
history_size = 2000
history_ttl = "60s"
force_recovery = true
presence = true
join_leave = true
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
        .shards(4)
        .run()
    })
}

/// Enough connections that the kernel puts some on every shard.
fn crowd(count: usize) -> Vec<Client> {
    (0..count).map(|_| Client::anonymous(server())).collect()
}

#[test]
fn every_subscriber_on_every_shard_sees_the_owners_order() {
    const EACH: usize = 5;
    let mut crowd = crowd(24);
    for client in &mut crowd {
        client.subscribe("all:order");
    }
    let mut ids = Vec::new();
    for round in 0..EACH {
        for (at, client) in crowd.iter_mut().enumerate() {
            ids.push(client.send(
                "publish",
                &json!({ "channel": "all:order", "data": { "by": at, "round": round } }),
            ));
        }
    }
    let total = crowd.len() * EACH;
    let mut first: Option<Vec<Value>> = None;
    for client in &mut crowd {
        let seen: Vec<Value> = (0..total)
            .map(|_| client.publication("all:order"))
            .collect();
        let offsets: Vec<_> = seen
            .iter()
            .map(|publication| publication["offset"].as_u64())
            .collect();
        assert_eq!(offsets, (1..=total as u64).map(Some).collect::<Vec<_>>());
        assert_eq!(
            first.get_or_insert_with(|| seen.clone()),
            &seen,
            "the same order for all"
        );
    }
    let seen = first.expect("a crowd");
    for by in 0..crowd.len() {
        let rounds: Vec<_> = seen
            .iter()
            .filter(|one| one["data"]["by"] == by)
            .map(|one| one["data"]["round"].as_u64())
            .collect();
        assert_eq!(
            rounds,
            (0..EACH as u64).map(Some).collect::<Vec<_>>(),
            "a publisher's own order is kept"
        );
    }
}

#[test]
fn presence_and_stats_cover_all_shards() {
    let mut crowd = crowd(24);
    for client in &mut crowd {
        client.subscribe("all:presence");
    }
    let ids: BTreeSet<String> = crowd.iter().map(|client| client.id.clone()).collect();
    for client in &mut crowd {
        let presence = client.ok("presence", &json!({ "channel": "all:presence" }));
        let seen: BTreeSet<String> = presence["presence"]
            .as_object()
            .expect("presence")
            .keys()
            .cloned()
            .collect();
        assert_eq!(seen, ids, "every shard sees the same");
    }
    let stats = server().api_result("presence_stats", &json!({ "channel": "all:presence" }));
    assert_eq!(stats, json!({ "num_clients": 24, "num_users": 1 }));
    let channels = server().api_result("channels", &json!({ "pattern": "all:presence" }));
    assert_eq!(channels["channels"]["all:presence"]["num_clients"], 24);
    crowd.truncate(10);
    wait::until("the others to be gone", || {
        let stats = server().api_result("presence_stats", &json!({ "channel": "all:presence" }));
        (stats["num_clients"] == 10).then_some(())
    });
}

#[test]
fn joins_and_leaves_cross_shards() {
    let mut watcher = Client::anonymous(server());
    watcher.ok(
        "subscribe",
        &json!({ "channel": "all:joins", "join_leave": true }),
    );
    assert_eq!(
        watcher.push()["join"]["info"]["client"],
        watcher.id.as_str()
    );
    for _ in 0..16 {
        let mut client = Client::anonymous(server());
        client.subscribe("all:joins");
        assert_eq!(watcher.push()["join"]["info"]["client"], client.id.as_str());
        client.ok("unsubscribe", &json!({ "channel": "all:joins" }));
        assert_eq!(
            watcher.push()["leave"]["info"]["client"],
            client.id.as_str()
        );
    }
}

#[test]
fn api_reaches_a_users_connections_on_every_shard() {
    let token = sign(&json!({ "sub": "everywhere" }));
    let mut all: Vec<Client> = (0..16)
        .map(|_| Client::with_token(server(), &token))
        .collect();
    server().api_result(
        "subscribe",
        &json!({ "user": "everywhere", "channel": "all:mine" }),
    );
    for client in &mut all {
        assert_eq!(client.push()["channel"], "all:mine");
    }
    server().api_result("publish", &json!({ "channel": "all:mine", "data": 1 }));
    for client in &mut all {
        assert_eq!(client.publication("all:mine")["data"], 1);
    }
    server().api_result(
        "unsubscribe",
        &json!({ "user": "everywhere", "channel": "all:mine" }),
    );
    for client in &mut all {
        assert_eq!(client.push()["unsubscribe"]["code"], 2000);
    }
    server().api_result(
        "disconnect",
        &json!({ "user": "everywhere", "disconnect": { "code": 4444, "reason": "all of you" } }),
    );
    for client in &mut all {
        assert_eq!(client.ends_with(4444), "all of you");
    }
}

#[test]
fn limit_of_a_users_connections_counts_all_shards() {
    let token = sign(&json!({ "sub": "limited" }));
    let all: Vec<Client> = (0..20)
        .map(|_| Client::with_token(server(), &token))
        .collect();
    let mut over = Client::open(server());
    over.send("connect", &json!({ "token": token }));
    over.ends_with(3504);
    drop(all);
    wait::until("a place to be free again", || {
        let mut client = Client::open(server());
        let id = client.send("connect", &json!({ "token": token }));
        (client.receive().is_ok() && client.unread()[0]["id"] == id).then_some(())
    });
}

#[test]
fn broadcast_over_channels_of_every_shard_is_answered_in_order() {
    let names: Vec<String> = (0..64).map(|n| format!("all:broadcast-{n}")).collect();
    let mut client = Client::anonymous(server());
    for name in &names {
        client.subscribe(name);
    }
    for round in 1..=5 {
        let mut channels = names.clone();
        channels.insert(7, "nowhere:x".to_owned());
        let result =
            server().api_result("broadcast", &json!({ "channels": channels, "data": round }));
        let responses = result["responses"].as_array().expect("responses");
        assert_eq!(responses.len(), 65);
        for (at, response) in responses.iter().enumerate() {
            if at == 7 {
                assert_eq!(response["error"]["code"], 102);
            } else {
                assert_eq!(response["result"]["offset"], round);
            }
        }
        let got: BTreeSet<String> = (0..64)
            .map(|_| client.push()["channel"].as_str().unwrap_or("").to_owned())
            .collect();
        assert_eq!(got.len(), 64);
    }
    let commands: Vec<Value> = names
        .iter()
        .map(|name| json!({ "history": { "channel": name, "limit": -1 } }))
        .collect();
    let replies = server().api("batch", &json!({ "commands": commands }));
    for reply in replies["replies"].as_array().expect("replies") {
        assert_eq!(
            reply["history"]["publications"].as_array().map(Vec::len),
            Some(5),
            "{reply}"
        );
    }
}

#[test]
fn resubscribing_across_shards_loses_and_repeats_nothing() {
    scenario::resubscribe_while_publishing(server(), "all:c55");
}

#[test]
fn idempotency_is_the_channels_whichever_shard_is_asked() {
    let mut client = Client::anonymous(server());
    client.subscribe("all:once");
    let body = json!({ "channel": "all:once", "data": 1, "idempotency_key": "k" }).to_string();
    let mut first = None;
    for _ in 0..16 {
        let response = Http::open(server().listen).post(
            "/api/publish",
            &[("X-API-Key", API_KEY)],
            body.as_bytes(),
        );
        let result = response.json();
        assert_eq!(first.get_or_insert_with(|| result.clone()), &result);
    }
    assert_eq!(client.publication("all:once")["offset"], 1);
    server().api_result("publish", &json!({ "channel": "all:once", "data": "end" }));
    assert_eq!(client.publication("all:once")["data"], "end");
}

#[test]
fn info_counts_all_shards() {
    let crowd = crowd(24);
    wait::until("the counts", || {
        let info = server().api_result("info", &json!({}));
        let clients = info["nodes"][0]["num_clients"].as_u64().expect("a number");
        (clients >= crowd.len() as u64).then_some(())
    });
}

#[test]
fn a_batch_asks_about_a_subscription_while_it_lasts() {
    for round in 0..20 {
        let user = format!("batch-{round}");
        let channel = format!("all:batch-{round}");
        let mut crowd: Vec<Client> = (0..4).map(|_| Client::user(server(), &user)).collect();
        let commands = json!([
            { "subscribe": { "user": user, "channel": channel } },
            { "presence_stats": { "channel": channel } },
            { "unsubscribe": { "user": user, "channel": channel } },
        ]);
        let answer = server().api("batch", &json!({ "commands": commands }));
        let stats = &answer["replies"][1]["presence_stats"];
        assert_eq!(stats["num_clients"], crowd.len(), "round {round}: {answer}");
        for client in &mut crowd {
            let push = client.push();
            assert!(push.get("subscribe").is_some(), "{push}");
        }
    }
}

#[test]
fn a_channel_left_and_joined_again_in_one_frame_is_joined_whoever_owns_it() {
    let mut client = Client::anonymous(server());
    let mut lines = Vec::new();
    for n in 0..16 {
        let channel = json!({ "channel": format!("all:again-{n}") });
        for (step, part) in [
            "subscribe",
            "unsubscribe",
            "subscribe",
            "unsubscribe",
            "subscribe",
        ]
        .into_iter()
        .enumerate()
        {
            lines.push(json!({ "id": 1000 + 5 * n + step, part: channel }).to_string());
        }
    }
    client.send_text(&lines.join("\n"));
    for id in 1000..1080 {
        let reply = client.reply(id);
        assert!(reply.get("error").is_none(), "{reply}");
    }
    for n in 0..16 {
        let channel = format!("all:again-{n}");
        let stats = server().api_result("presence_stats", &json!({ "channel": channel }));
        assert_eq!(stats["num_clients"], 1, "{channel}");
    }
}

#[test]
fn user_on_several_shards_is_one_user_of_the_node() {
    let server = Start::with_config(&config(
        "[client]\nallow_anonymous_connect_without_token = true\n",
    ))
    .shards(4)
    .run();
    let mut held: Vec<Client> = (0..16).map(|_| Client::user(&server, "same")).collect();
    held.extend((0..3).map(|n| Client::user(&server, &format!("other-{n}"))));
    let info = server.api_result("info", &json!({}));
    let node = &info["nodes"][0];
    assert_eq!(
        (&node["num_clients"], &node["num_users"]),
        (&json!(19), &json!(4)),
        "{info}"
    );
    held.truncate(16);
    wait::until("those who left are not counted", || {
        let info = server.api_result("info", &json!({}));
        (info["nodes"][0]["num_users"] == 1).then_some(())
    });
}

#[test]
fn broadcast_to_many_channels_reaches_subscribers_on_every_shard() {
    const EACH: usize = 100;
    let mut crowd = crowd(10);
    let channels: Vec<String> = (0..crowd.len() * EACH)
        .map(|n| format!("all:many-{n}"))
        .collect();
    for (client, channels) in crowd.iter_mut().zip(channels.chunks(EACH)) {
        for channel in channels {
            client.subscribe(channel);
        }
    }
    let body = json!({ "channels": channels, "data": { "n": 1 } });
    for offset in 1..=2 {
        let result = server().api_result("broadcast", &body);
        let responses = result["responses"].as_array().expect("responses");
        assert!(
            responses
                .iter()
                .all(|response| response["result"]["offset"] == offset)
        );
        for (client, channels) in crowd.iter_mut().zip(channels.chunks(EACH)) {
            let mut wanted: BTreeSet<&str> = channels.iter().map(String::as_str).collect();
            while !wanted.is_empty() {
                let push = client.push();
                if push.get("pub").is_none() {
                    continue;
                }
                assert_eq!(push["pub"]["offset"], offset);
                assert!(wanted.remove(push["channel"].as_str().expect("a channel")));
            }
        }
    }
}
