//! Tenants: what two of them call alike are two things, and nothing of one reaches another, whichever way it tries.

use std::path::Path;
use std::process::Command;

use jsonwebtoken::Algorithm;
use serde_json::{Value, json};

use crate::support::client::{Client, PATH, tcp, upgrade_over};
use crate::support::http::Http;
use crate::support::process::{API_KEY, Server, Start, config, reactor_under_test};
use crate::support::tenants::{
    ACME_KEY, ACME_SECRET, BOLT_KEY, Who, asked, groups_letters_and_replays, tables,
};
use crate::support::token::{self, sign_with};

/// Both share the namespaces of everybody, and bolt's tokens say that they are.
fn rules(directory: &Path, more: &str) -> String {
    config(&format!(
        r#"
[durable.embedded]
directory = "{}"

[channel.without_namespace]
allow_subscribe_for_client = true
allow_publish_for_client = true
presence = true
join_leave = true
history_size = 10
history_ttl = "60s"
allow_history_for_client = true
allow_presence_for_client = true

[[channel.namespaces]]
name = "orders"
delivery = "durable"
history_size = 8
history_ttl = "60s"
allow_subscribe_for_client = true
allow_publish_for_client = true
allow_history_for_client = true

{tenants}
{more}
"#,
        directory.display(),
        tenants = tables(),
    ))
}

fn start(directory: &Path) -> Server {
    Start::with_config(&rules(directory, "")).shards(3).run()
}

fn names_of(presence: &Value) -> Vec<String> {
    let clients = presence["presence"].as_object().expect("clients");
    let user = |info: &Value| info["user"].as_str().expect("a user").to_owned();
    clients.values().map(user).collect()
}

#[test]
fn what_tenants_call_alike_are_different_channels_with_members_of_their_own() {
    let directory = tempfile::tempdir().expect("a directory");
    let server = start(directory.path());
    let mut clients = Who::ALL.map(|who| who.user(&server, "42"));
    for channel in ["chat", "orders:1"] {
        for client in &mut clients {
            client.subscribe(channel);
        }
        for (at, who) in Who::ALL.into_iter().enumerate() {
            let body = json!({ "channel": channel, "data": { "to": at } });
            let place = who.result(&server, "publish", &body);
            assert_eq!(
                place["offset"], 1,
                "{channel}: it is the first of its channel"
            );
            clients[at].publish(channel, &json!({ "from": at }));
        }
        for (at, who) in Who::ALL.into_iter().enumerate() {
            let first = clients[at].publication(channel);
            assert_eq!(first["data"], json!({ "to": at }));
            let second = clients[at].publication(channel);
            assert_eq!(second["data"], json!({ "from": at }));
            let history = who.result(
                &server,
                "history",
                &json!({ "channel": channel, "limit": 10 }),
            );
            let kept: Vec<&Value> = history["publications"]
                .as_array()
                .expect("a list")
                .iter()
                .map(|one| &one["data"])
                .collect();
            assert_eq!(kept, [&json!({ "to": at }), &json!({ "from": at })]);
        }
    }
    for who in Who::ALL {
        let presence = who.result(&server, "presence", &json!({ "channel": "chat" }));
        assert_eq!(names_of(&presence), ["42"]);
        let stats = who.result(&server, "presence_stats", &json!({ "channel": "chat" }));
        assert_eq!(stats["num_clients"], 1);
        let channels = who.result(&server, "channels", &json!({}));
        assert_eq!(
            channels["channels"],
            json!({ "chat": { "num_clients": 1 }, "orders:1": { "num_clients": 1 } })
        );
    }
    for who in [Who::Acme, Who::Bolt] {
        let info = who.result(&server, "info", &json!({}));
        let node = &info["nodes"][0];
        assert_eq!(
            (&node["num_clients"], &node["num_users"]),
            (&json!(1), &json!(1))
        );
        assert_eq!(
            (&node["num_channels"], &node["num_subs"]),
            (&json!(2), &json!(2))
        );
    }
    for client in &mut clients {
        client.ok("unsubscribe", &json!({ "channel": "chat" }));
        let rest: Vec<Value> = std::iter::from_fn(|| client.unread_push()).collect();
        assert!(rest.is_empty(), "nothing of another one came: {rest:?}");
    }
}

#[test]
fn what_is_done_with_a_user_concerns_the_one_of_that_tenant() {
    let directory = tempfile::tempdir().expect("a directory");
    let server = start(directory.path());
    let later = token::after(900);
    for (method, code) in [
        ("disconnect", 3503),
        ("invalidate_user_tokens", 3500),
        ("revoke_token", 3500),
        ("block_user", 3503),
    ] {
        for who in Who::ALL {
            let user = format!("{method}-{}", who.key());
            let claims = json!({ "sub": user, "jti": user, "iat": token::after(0) });
            let mut clients = Who::ALL.map(|one| {
                let token = one.token(claims.clone());
                one.open(&server).connect(&json!({ "token": token }))
            });
            let body = match method {
                "revoke_token" => json!({ "uid": user, "expire_at": later }),
                "invalidate_user_tokens" => {
                    json!({ "user": user, "issued_before": token::after(600), "expire_at": later })
                }
                _ => json!({ "user": user }),
            };
            who.result(&server, method, &body);
            for (one, client) in Who::ALL.into_iter().zip(&mut clients) {
                if one == who {
                    client.ends_with(code);
                } else {
                    client.subscribe("still here");
                }
            }
        }
    }
    // Subscriptions that a service makes and ends.
    let mut clients = Who::ALL.map(|who| who.user(&server, "7"));
    Who::Bolt.result(
        &server,
        "subscribe",
        &json!({ "user": "7", "channel": "news" }),
    );
    assert_eq!(clients[2].push()["channel"], "news");
    for who in [Who::Default, Who::Acme] {
        who.result(
            &server,
            "unsubscribe",
            &json!({ "user": "7", "channel": "news" }),
        );
    }
    Who::Bolt.result(&server, "publish", &json!({ "channel": "news", "data": 1 }));
    assert_eq!(clients[2].publication("news")["data"], 1);
}

#[test]
fn a_key_opens_its_tenant_and_no_path_or_host_makes_it_open_another() {
    let directory = tempfile::tempdir().expect("a directory");
    let server = start(directory.path());
    let body = json!({ "channel": "chat", "data": 1 });
    let status = |path: &str, key: &str| asked(&server, path, key, "publish", &body).status;
    assert_eq!(status("/t/acme/api", ACME_KEY), 200);
    assert_eq!(
        status("/t/acme/api", API_KEY),
        200,
        "the operator's key acts for whom the path names"
    );
    assert_eq!(status("/t/acme/api", BOLT_KEY), 401);
    assert_eq!(status("/t/bolt/api", ACME_KEY), 401);
    assert_eq!(status("/t/default/api", API_KEY), 200);
    assert_eq!(status("/t/nobody/api", API_KEY), 404);
    assert_eq!(status("/t/acme", API_KEY), 404);
    assert_eq!(status("/api", "nobody"), 401);
    let count = |who: Who| {
        let history = who.result(
            &server,
            "history",
            &json!({ "channel": "chat", "limit": -1 }),
        );
        history["publications"].as_array().expect("a list").len()
    };
    assert_eq!(Who::ALL.map(count), [1, 2, 0]);
    let at_host = |key: &str| {
        let headers = [("X-API-Key", key), ("Host", "acme.test")];
        let mut http = Http::open(server.listen);
        let body = body.to_string();
        http.post("/t/bolt/api/publish", &headers, body.as_bytes())
            .status
    };
    assert_eq!(at_host(API_KEY), 404, "the host is acme's");
}

#[test]
fn a_token_of_one_tenant_is_none_for_another() {
    let directory = tempfile::tempdir().expect("a directory");
    let server = start(directory.path());
    let refused = |mut client: Client, token: &str| {
        client.send("connect", &json!({ "token": token }));
        client.ended().code
    };
    let claims = || json!({ "sub": "42" });
    assert_eq!(
        refused(Who::Acme.open(&server), &Who::Default.token(claims())),
        3500
    );
    assert_eq!(
        refused(Who::Acme.open(&server), &Who::Bolt.token(claims())),
        3500
    );
    assert_eq!(
        refused(Who::Default.open(&server), &Who::Acme.token(claims())),
        3500
    );
    // It says that it is bolt's, and is signed by acme.
    let forged = sign_with(
        &json!({ "sub": "42", "iss": "https://bolt.test" }),
        Algorithm::HS256,
        ACME_SECRET,
    );
    assert_eq!(refused(Who::Default.open(&server), &forged), 3500);
    let path = format!("/t/bolt{PATH}");
    let bolt = Client::open_with(&server, &path, &[]);
    bolt.connect(&json!({ "token": Who::Bolt.token(claims()) }));
    let nobody = upgrade_over(tcp(server.listen), &format!("/t/nobody{PATH}"), &[]);
    assert_eq!(nobody.err(), Some(404));
    // A subscription token, and one that prolongs.
    let mut acme = Who::Acme.user(&server, "42");
    let of = |who: Who| who.token(json!({ "sub": "42", "channel": "$private" }));
    let with = |who: Who| json!({ "channel": "$private", "token": of(who) });
    assert_eq!(acme.error("subscribe", &with(Who::Bolt)), 103);
    acme.ok("subscribe", &with(Who::Acme));
    acme.send("refresh", &json!({ "token": Who::Default.token(claims()) }));
    acme.ends_with(3500);
}

/// A name that is written as the whole name of another tenant's is only a strange name.
#[test]
fn no_name_is_that_of_another_tenant() {
    let directory = tempfile::tempdir().expect("a directory");
    let server = start(directory.path());
    let mut acme = Who::Acme.user(&server, "42");
    acme.subscribe("chat");
    acme.subscribe("orders:1");
    let strange = |name: &str| format!("\u{1f}acme\u{1f}{name}");
    for who in [Who::Default, Who::Bolt] {
        let mut client = who.user(&server, &strange("42"));
        for name in ["chat", "orders:1"] {
            let name = strange(name);
            client.send("subscribe", &json!({ "channel": name }));
            client.send("publish", &json!({ "channel": name, "data": 1 }));
            client.send("history", &json!({ "channel": name, "limit": 10 }));
            who.api(&server, "publish", &json!({ "channel": name, "data": 1 }));
            who.api(&server, "history_remove", &json!({ "channel": name }));
        }
        who.api(&server, "disconnect", &json!({ "user": strange("42") }));
        who.api(&server, "block_user", &json!({ "user": strange("42") }));
        let fetch = json!({ "group": strange("g"), "channels": ["*"] });
        assert_eq!(
            who.api(&server, "queue/fetch", &fetch)["error"]["code"],
            107
        );
    }
    for name in ["chat", "orders:1"] {
        acme.publish(name, &json!({ "own": true }));
        assert_eq!(acme.publication(name)["data"], json!({ "own": true }));
    }
    assert!(acme.unread_push().is_none());
}

#[test]
fn groups_letters_and_replays_are_the_tenants_own() {
    let directory = tempfile::tempdir().expect("a directory");
    groups_letters_and_replays(&|| start(directory.path()));
}

#[test]
fn a_worker_over_a_connection_takes_from_its_tenants_groups() {
    let directory = tempfile::tempdir().expect("a directory");
    let server = start(directory.path());
    for (at, who) in Who::ALL.into_iter().enumerate() {
        who.result(
            &server,
            "publish",
            &json!({ "channel": "orders:1", "data": { "of": at } }),
        );
    }
    for (at, who) in Who::ALL.into_iter().enumerate() {
        let token = who.token(json!({ "sub": "w", "consume": { "*": ["*"] } }));
        let mut worker = who.open(&server).connect(&json!({ "token": token }));
        let consume = json!({ "group": "w", "channels": ["orders:*"] });
        let joined = worker.ok(
            "rpc",
            &json!({ "method": "ringmain.consume", "data": consume }),
        );
        assert_eq!(joined["data"]["group"], "w");
        let given = worker.push();
        let delivery = &given["message"]["data"]["delivery"];
        assert_eq!(
            given["message"]["data"]["data"],
            json!({ "of": at }),
            "{given}"
        );
        worker.ok(
            "rpc",
            &json!({ "method": "ringmain.ack", "data": { "delivery": delivery } }),
        );
        who.result(&server, "queue/delete", &json!({ "group": "w" }));
        let told = worker.push();
        let deleted = json!({ "group": "w", "deleted": true });
        assert_eq!(told["message"]["data"], deleted);
        let fetch = who.api(&server, "queue/fetch", &json!({ "group": "w" }));
        let text = fetch["error"]["message"].as_str().expect("a text");
        assert!(!text.contains('\u{1f}'), "{text}");
    }
}

#[test]
fn operators_see_what_a_tenant_has_by_its_name_and_with_their_key() {
    let directory = tempfile::tempdir().expect("a directory");
    let server = start(directory.path());
    let fetch = json!({ "group": "g", "channels": ["orders:*"] });
    Who::Acme.result(&server, "queue/fetch", &fetch);
    let status = |path: &str, key: &str| {
        let headers = [("X-API-Key", key), ("Content-Type", "application/json")];
        Http::open(server.admin).post(path, &headers, b"{}").status
    };
    assert_eq!(status("/t/acme/api/queue/groups", API_KEY), 200);
    assert_eq!(status("/t/nobody/api/queue/groups", API_KEY), 404);
    for key in [ACME_KEY, ""] {
        assert_eq!(
            status("/t/acme/api/queue/groups", key),
            401,
            "{key}: a tenant's key is none here"
        );
    }
    let groups = |tenant: &[&str]| {
        let address = server.admin.to_string();
        let output = Command::new(env!("CARGO_BIN_EXE_ringmain"))
            .args([
                "queue",
                "groups",
                "--json",
                "--key",
                API_KEY,
                "--address",
                &address,
            ])
            .args(tenant)
            .output()
            .expect("the binary starts");
        String::from_utf8_lossy(&output.stdout).into_owned()
            + &String::from_utf8_lossy(&output.stderr)
    };
    let of_acme = groups(&["--tenant", "acme"]);
    assert!(
        of_acme.contains("\"g\"") && of_acme.contains("\"orders:*\""),
        "{of_acme}"
    );
    assert!(!groups(&[]).contains("\"g\""));
    assert!(groups(&["--tenant", "A C"]).contains("--tenant"));
}

#[test]
fn a_tenant_that_a_reload_takes_away_takes_its_clients_along_and_nobody_else() {
    let directory = tempfile::tempdir().expect("a directory");
    let more = r#"
[[tenants]]
id = "gone"
channel_set = "own"
[tenants.token]
hmac_secret_key = "the secret of gone, thirty-two bytes"

[[channel_sets]]
name = "own"
[[channel_sets.namespaces]]
name = "room"
allow_subscribe_for_client = true
"#;
    let server = Start::with_config(&rules(directory.path(), more))
        .shards(2)
        .run();
    let token = sign_with(
        &json!({ "sub": "1" }),
        Algorithm::HS256,
        "the secret of gone, thirty-two bytes",
    );
    let path = format!("/t/gone{PATH}");
    let mut gone = Client::open_with(&server, &path, &[]).connect(&json!({ "token": token }));
    gone.subscribe("room:1");
    assert_eq!(
        gone.error("subscribe", &json!({ "channel": "orders:1" })),
        102,
        "it has other namespaces"
    );
    let mut acme = Who::Acme.user(&server, "42");
    assert_eq!(
        acme.error("subscribe", &json!({ "channel": "room:1" })),
        102
    );
    acme.subscribe("chat");
    server.write_config(&rules(directory.path(), ""));
    server.signal("HUP");
    gone.ends_with(3503);
    Who::Acme.result(&server, "publish", &json!({ "channel": "chat", "data": 1 }));
    assert_eq!(acme.publication("chat")["data"], 1);
    let refused = upgrade_over(tcp(server.listen), &path, &[]);
    assert_eq!(refused.err(), Some(404));
}

#[test]
fn a_crowd_of_one_tenant_gets_everything_in_order_and_nobody_else_waits_for_it() {
    const CROWD: usize = 300;
    const ROUNDS: u64 = 5;
    let channels = ["c0", "c1", "c2", "c3"];
    for reactor in [reactor_under_test().as_str(), "portable"] {
        let directory = tempfile::tempdir().expect("a directory");
        let start = Start::with_config(&rules(directory.path(), "")).shards(2);
        let server = start.reactor(reactor).run();
        let mut crowd: Vec<Client> = (0..CROWD)
            .map(|at| Who::Acme.user(&server, &at.to_string()))
            .collect();
        for client in &mut crowd {
            for channel in channels {
                client.subscribe(channel);
            }
        }
        let mut quiet = Who::Bolt.user(&server, "42");
        quiet.subscribe("c0");
        for round in 0..ROUNDS {
            // More than is given at once.
            let body = json!({ "channels": channels, "data": round });
            Who::Acme.result(&server, "broadcast", &body);
            quiet.publish("c0", &json!(round));
            let own = quiet.push();
            assert!(own.get("pub").is_some(), "{own}");
            assert_eq!(own["pub"]["data"], round, "{reactor}");
        }
        for client in &mut crowd {
            let mut next = [0; 4];
            while next != [ROUNDS; 4] {
                let push = client.push();
                let Some(data) = push["pub"]["data"].as_u64() else {
                    continue;
                };
                let of = channels.iter().position(|one| push["channel"] == **one);
                let next = &mut next[of.expect("a channel of its own")];
                assert_eq!(data, *next, "{reactor}: {push}");
                *next += 1;
            }
        }
    }
}
