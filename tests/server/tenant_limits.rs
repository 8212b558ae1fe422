//! Limits of a tenant: each holds for the node, says which it is, and is felt by nobody else.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::backend::{Backend, Reply};
use crate::support::client::Client;
use crate::support::http::Http;
use crate::support::process::{Server, Start, config};
use crate::support::tenants::{ACME_SECRET, BOLT_SECRET, Who};
use crate::support::wait::{now, until};

const CLIENTS: usize = 9;

fn rules(directory: &Path, limits: &str, more: &str) -> String {
    config(&format!(
        r#"
[durable.embedded]
directory = "{}"

[channel.without_namespace]
allow_subscribe_for_client = true
allow_publish_for_client = true

[[channel.namespaces]]
name = "kept"
history_size = 10
history_ttl = "60s"
allow_subscribe_for_client = true
allow_publish_for_client = true

[[channel.namespaces]]
name = "orders"
delivery = "durable"
allow_subscribe_for_client = true
allow_publish_for_client = true
{more}

[[tenants]]
id = "acme"
hosts = ["acme.test", "*.acme.test"]
[tenants.token]
hmac_secret_key = "{ACME_SECRET}"
[[tenants.keys]]
name = "services"
key = "acme-services"
[tenants.limits]
{limits}

[[tenants]]
id = "bolt"
[tenants.token]
hmac_secret_key = "{BOLT_SECRET}"
issuer = "https://bolt.test"
[[tenants.keys]]
name = "services"
key = "bolt-services"
"#,
        directory.display(),
    ))
}

fn start(directory: &Path, limits: &str) -> Server {
    Start::with_config(&rules(directory, limits, ""))
        .shards(3)
        .run()
}

fn refused(server: &Server, limit: &str) -> u64 {
    let page = Http::open(server.admin).get("/metrics", &[]).text();
    let start = format!("ringmain_tenant_refused_total{{tenant=\"acme\",limit=\"{limit}\"}} ");
    let found = page.lines().find_map(|line| line.strip_prefix(&start));
    found.map_or(0, |count| count.parse().expect("a number"))
}

fn number(server: &Server, name: &str) -> u64 {
    let page = Http::open(server.admin).get("/metrics", &[]).text();
    let start = format!("ringmain_tenant_{name}{{tenant=\"acme\"}} ");
    let found = page.lines().find_map(|line| line.strip_prefix(&start));
    found.map_or(0, |count| count.parse().expect("a number"))
}

/// What comes of a connect command.
fn connected(server: &Server, who: Who, user: &str) -> (Client, Value) {
    let mut client = who.open(server);
    let token = who.token(json!({ "sub": user }));
    let id = client.send("connect", &json!({ "token": token }));
    let reply = client.reply(id);
    (client, reply)
}

fn crowd(server: &Server, who: Who) -> Vec<Client> {
    (0..CLIENTS)
        .map(|n| who.user(server, &n.to_string()))
        .collect()
}

#[test]
fn clients_of_a_tenant_are_counted_over_all_shards_and_one_that_leaves_makes_room() {
    let directory = tempfile::tempdir().expect("a directory");
    let server = start(directory.path(), "connections_max = 5");
    let mut inside = Vec::new();
    for n in 0..CLIENTS {
        let (client, reply) = connected(&server, Who::Acme, &n.to_string());
        if n < 5 {
            assert!(reply["connect"]["client"].is_string(), "{n}: {reply}");
            inside.push(client);
        } else {
            let error = &reply["error"];
            assert_eq!(
                (&error["code"], &error["temporary"]),
                (&json!(106), &json!(true))
            );
            assert!(error["retry_after_ms"].as_u64() > Some(0), "{reply}");
        }
    }
    assert_eq!(refused(&server, "connections_max"), 4);
    assert_eq!(number(&server, "connections"), 5);
    let others = crowd(&server, Who::Bolt);
    drop(inside.pop());
    until("a place", || {
        let (client, reply) = connected(&server, Who::Acme, "late");
        reply.get("connect").map(|_| client)
    });
    assert_eq!(others.len(), CLIENTS);

    // A limit that is lowered closes nobody, and one that is lifted lets in.
    let reloads = server.metric("ringmain_reloads_total");
    server.write_config(&rules(directory.path(), "connections_max = 2", ""));
    server.signal("HUP");
    until("the reload", || {
        (server.metric("ringmain_reloads_total") >= reloads + 3.0).then_some(())
    });
    inside[0].publish("a", &json!(1));
    let (_, reply) = connected(&server, Who::Acme, "more");
    assert_eq!(reply["error"]["code"], 106);
    server.write_config(&rules(directory.path(), "", ""));
    server.signal("HUP");
    until("everybody", || {
        let (client, reply) = connected(&server, Who::Acme, "more");
        reply.get("connect").map(|_| client)
    });
}

#[test]
fn new_clients_come_at_the_rate_and_are_told_when_to_come_again() {
    let directory = tempfile::tempdir().expect("a directory");
    let server = start(directory.path(), "connect_rate = 1\nconnect_burst = 4");
    let began = now();
    let mut kept = Vec::new();
    let mut turned_away = 0;
    for n in 0..12 {
        let (client, reply) = connected(&server, Who::Acme, &n.to_string());
        match reply.get("error") {
            None => kept.push(client),
            Some(error) => {
                assert_eq!(
                    (&error["code"], &error["temporary"]),
                    (&json!(111), &json!(true))
                );
                let wait = error["retry_after_ms"].as_u64().expect("a time");
                assert!((1..=1000).contains(&wait), "{reply}");
                turned_away += 1;
            }
        }
    }
    let most = 4 + began.elapsed().as_secs() + 1;
    assert!((4..=most).contains(&(kept.len() as u64)), "{}", kept.len());
    assert_eq!(refused(&server, "connect_rate"), turned_away);
    assert_eq!(crowd(&server, Who::Default).len(), CLIENTS);
}

#[test]
fn publications_of_clients_and_services_share_one_rate_and_nobody_else_has_it() {
    let directory = tempfile::tempdir().expect("a directory");
    let server = start(directory.path(), "publish_rate = 1\npublish_burst = 12");
    let mut clients = crowd(&server, Who::Acme);
    let mut others = crowd(&server, Who::Bolt);
    let began = now();
    let (mut passed, mut told) = (0, 0);
    for round in 0..4 {
        for (n, client) in clients.iter_mut().enumerate() {
            // Both ways, and every shard.
            let channel = if round % 2 == 0 {
                format!("c{n}")
            } else {
                format!("orders:{n}")
            };
            let reply = client.call("publish", &json!({ "channel": channel, "data": n }));
            match reply.get("error") {
                None => passed += 1,
                Some(error) => {
                    assert_eq!(
                        (&error["code"], &error["temporary"]),
                        (&json!(111), &json!(true))
                    );
                    assert!(error["retry_after_ms"].as_u64() > Some(0), "{reply}");
                    told += 1;
                }
            }
        }
        let body = json!({ "channels": ["a", "b", "c"], "data": 1 });
        let answer = Who::Acme.api(&server, "broadcast", &body);
        for response in answer["result"]["responses"].as_array().expect("three") {
            match response.get("error") {
                None => passed += 1,
                Some(error) => {
                    assert_eq!(error["code"], 111, "{answer}");
                    assert!(error["retry_after_ms"].as_u64() > Some(0), "{answer}");
                }
            }
        }
        for client in &mut others {
            client.publish("a", &json!(1));
        }
        Who::Default.result(&server, "publish", &json!({ "channel": "a", "data": 1 }));
    }
    let most = 12 + began.elapsed().as_secs() + 1;
    assert!((12..=most).contains(&passed), "{passed} of {most}");
    assert_eq!(number(&server, "publications_total"), passed);
    assert!(told > 0 && refused(&server, "publish_rate") >= told);
}

#[test]
fn bytes_have_a_rate_of_their_own_and_one_message_has_a_size() {
    let directory = tempfile::tempdir().expect("a directory");
    let limits = "publish_bytes_rate = 1000\npublish_bytes_burst = 4000\nmessage_size_max = 2000";
    let server = start(directory.path(), limits);
    let mut client = Who::Acme.user(&server, "42");
    let data = "x".repeat(1500);
    let publish = json!({ "channel": "a", "data": data });
    assert!(client.call("publish", &publish).get("error").is_none());
    assert!(client.call("publish", &publish).get("error").is_none());
    let reply = client.call("publish", &publish);
    assert_eq!(reply["error"]["code"], 111, "{reply}");
    assert!(refused(&server, "publish_bytes_rate") > 0);
    let large = json!({ "channel": "a", "data": "x".repeat(3000) });
    assert_eq!(client.error("publish", &large), 106);
    let batch = json!({ "commands": [
        { "publish": { "channel": "b", "data": "x".repeat(3000) } },
        { "publish": { "channel": "b", "data": 1 } },
    ] });
    let answer = Who::Acme.api(&server, "batch", &batch);
    let replies = answer["replies"].as_array().expect("two");
    assert_eq!(replies[0]["error"]["code"], 106, "{answer}");
    assert!(
        replies[1].get("error").is_none(),
        "what fits is published: {answer}"
    );
    assert_eq!(refused(&server, "message_size_max"), 2);
    Who::Bolt
        .user(&server, "42")
        .publish("a", &json!("x".repeat(3000)));
}

/// A short burst is late, and nothing of it is lost or out of order, whichever way it goes.
#[test]
fn what_may_wait_for_its_rate_comes_late_and_whole() {
    let directory = tempfile::tempdir().expect("a directory");
    let limits = r#"
publish_rate = 100
publish_burst = 5
when_over_rate = "queue"
over_rate_wait_max = "5s"
"#;
    let server = start(directory.path(), limits);
    let mut subscriber = Who::Acme.user(&server, "s");
    let mut publisher = Who::Acme.user(&server, "p");
    for channel in ["a", "orders:1"] {
        subscriber.subscribe(channel);
        let began = now();
        let ids: Vec<u64> = (0..60)
            .map(|n| publisher.send("publish", &json!({ "channel": channel, "data": n })))
            .collect();
        let body = json!({ "channel": channel, "data": 60 });
        let service = std::thread::scope(|scope| {
            let service = scope.spawn(|| {
                until("the burst to be in", || {
                    (number(&server, "publications_total") >= 60).then_some(())
                });
                Who::Acme.api(&server, "publish", &body)
            });
            for n in 0..60 {
                let publication = subscriber.publication(channel);
                assert_eq!(publication["data"], n, "{channel}");
            }
            service.join().expect("an answer")
        });
        assert!(service.get("error").is_none(), "{service}");
        assert_eq!(subscriber.publication(channel)["data"], 60, "{channel}");
        for id in ids {
            let reply = publisher.reply(id);
            assert!(reply.get("error").is_none(), "{channel}: {reply}");
        }
        let took = began.elapsed();
        assert!(took >= Duration::from_millis(400), "{channel}: {took:?}");
        // All tokens are there again.
        until("a quiet second", || {
            (began.elapsed() > took + Duration::from_secs(1)).then_some(())
        });
    }
    assert!(number(&server, "late_total") >= 100);

    // A burst that would be later than it may is refused in part, and told when.
    let mut clients = crowd(&server, Who::Acme);
    let ids: Vec<Vec<u64>> = clients
        .iter_mut()
        .map(|client| {
            (0..200)
                .map(|n| client.send("publish", &json!({ "channel": "b", "data": n })))
                .collect()
        })
        .collect();
    let mut refused = 0;
    for (client, ids) in clients.iter_mut().zip(ids) {
        for id in ids {
            if let Some(error) = client.reply(id).get("error") {
                assert_eq!(error["code"], 111);
                assert!(error["retry_after_ms"].as_u64() > Some(0), "{error}");
                refused += 1;
            }
        }
    }
    assert!((1..1800 - 500).contains(&refused), "{refused}");
}

#[test]
fn what_subscribers_are_given_holds_back_publishers_and_is_never_left_out() {
    let directory = tempfile::tempdir().expect("a directory");
    let server = start(directory.path(), "deliver_rate = 1\ndeliver_burst = 20");
    let mut crowd = crowd(&server, Who::Acme);
    for client in &mut crowd {
        client.subscribe("a");
    }
    let mut publisher = Who::Acme.user(&server, "p");
    let mut published = Vec::new();
    for n in 0..10 {
        let reply = publisher.call("publish", &json!({ "channel": "a", "data": n }));
        match reply.get("error") {
            None => published.push(n),
            Some(error) => assert_eq!(error["code"], 111),
        }
        // What is given is counted before the next is judged.
        for client in crowd.iter_mut().filter(|_| published.last() == Some(&n)) {
            assert_eq!(client.publication("a")["data"], n);
        }
    }
    assert!((3..5).contains(&published.len()), "{published:?}");
    assert!(refused(&server, "deliver_rate") > 0);
    assert_eq!(
        number(&server, "deliveries_total"),
        (published.len() * CLIENTS) as u64
    );
    let mut other = Who::Bolt.user(&server, "p");
    (0..10).for_each(|n| other.publish("a", &json!(n)));
}

#[test]
fn channels_and_what_they_keep_are_counted_and_come_free_again() {
    let directory = tempfile::tempdir().expect("a directory");
    let limits = "channels_max = 4\nhistory_bytes_max = 3000\nsubscriptions_max = 3";
    let server = start(directory.path(), limits);
    let mut client = Who::Acme.user(&server, "42");
    for n in 0..3 {
        client.subscribe(&format!("c{n}"));
    }
    assert_eq!(client.error("subscribe", &json!({ "channel": "c3" })), 106);
    assert_eq!(refused(&server, "subscriptions_max"), 1);
    client.publish("kept:1", &json!("x".repeat(1000)));
    let mut second = Who::Acme.user(&server, "43");
    assert_eq!(second.error("subscribe", &json!({ "channel": "c4" })), 106);
    assert_eq!(
        second.error("publish", &json!({ "channel": "kept:2", "data": 1 })),
        106
    );
    let answer = Who::Acme.api(
        &server,
        "publish",
        &json!({ "channel": "kept:2", "data": 1 }),
    );
    assert_eq!(answer["error"]["code"], 106, "{answer}");
    assert_eq!(
        (
            refused(&server, "channels_max"),
            number(&server, "channels")
        ),
        (3, 4)
    );
    client.ok("unsubscribe", &json!({ "channel": "c0" }));
    until("a place", || {
        let reply = second.call("subscribe", &json!({ "channel": "c4" }));
        reply.get("error").is_none().then_some(())
    });

    client.publish("kept:1", &json!("x".repeat(1000)));
    client.publish("kept:1", &json!("x".repeat(1000)));
    assert_eq!(
        client.error("publish", &json!({ "channel": "kept:1", "data": 1 })),
        106
    );
    assert_eq!(refused(&server, "history_bytes_max"), 1);
    assert!(number(&server, "history_bytes") >= 3000);
    Who::Acme.result(&server, "history_remove", &json!({ "channel": "kept:1" }));
    assert_eq!(number(&server, "history_bytes"), 0);
    client.publish("kept:1", &json!(1));
    let mut other = Who::Bolt.user(&server, "42");
    (0..9).for_each(|n| {
        other.subscribe(&format!("c{n}"));
    });
}

#[test]
fn calls_to_backends_and_queue_groups_have_their_limits() {
    let is_open = Arc::new(AtomicBool::new(false));
    let waits_for = Arc::clone(&is_open);
    let backend = Backend::start(move |asked| {
        if asked.path == "/rpc" && asked.body["tenant"] == "acme" {
            until("the test", || {
                waits_for.load(Ordering::Relaxed).then_some(())
            });
        }
        Reply::result(json!({ "data": 1 }))
    });
    let directory = tempfile::tempdir().expect("a directory");
    let rpc = format!(
        "[rpc.proxy]\nendpoint = \"{}\"\ntimeout = \"30s\"\n[rpc.without_namespace]\nproxy_enabled = true",
        backend.url("/rpc")
    );
    let limits = "calls_max = 2\nqueue_groups_max = 2";
    let server = Start::with_config(&rules(directory.path(), limits, &rpc))
        .shards(3)
        .run();
    let mut clients = crowd(&server, Who::Acme);
    let call = json!({ "method": "m", "data": 1 });
    let waiting: Vec<u64> = clients[..2]
        .iter_mut()
        .map(|client| client.send("rpc", &call))
        .collect();
    until("both", || (number(&server, "calls") == 2).then_some(()));
    for client in &mut clients[2..] {
        assert_eq!(client.error("rpc", &call), 111);
    }
    assert_eq!(refused(&server, "calls_max"), CLIENTS as u64 - 2);
    Who::Bolt.user(&server, "42").ok("rpc", &call);
    is_open.store(true, Ordering::Relaxed);
    for (client, id) in clients.iter_mut().zip(waiting) {
        assert!(client.reply(id).get("error").is_none());
    }
    assert_eq!(number(&server, "calls"), 0);
    clients[5].ok("rpc", &call);

    let fetch = |group: &str| json!({ "group": group, "channels": ["orders:*"] });
    Who::Acme.result(&server, "queue/fetch", &fetch("one"));
    Who::Acme.result(&server, "queue/fetch", &fetch("two"));
    let answer = Who::Acme.api(&server, "queue/fetch", &fetch("three"));
    assert_eq!(answer["error"]["code"], 106, "{answer}");
    Who::Acme.result(&server, "queue/fetch", &fetch("two"));
    Who::Bolt.result(&server, "queue/fetch", &fetch("three"));
    Who::Acme.result(&server, "queue/delete", &json!({ "group": "one" }));
    Who::Acme.result(&server, "queue/fetch", &fetch("three"));
}

#[test]
fn a_rate_has_a_status_of_its_own_where_statuses_are_asked_for() {
    let directory = tempfile::tempdir().expect("a directory");
    let server = start(directory.path(), "publish_rate = 1\npublish_burst = 1");
    let headers = [
        ("X-API-Key", Who::Acme.key()),
        ("X-Centrifugo-Error-Mode", "transport"),
    ];
    let body = json!({ "channel": "a", "data": 1 }).to_string();
    let ask = || Http::open(server.listen).post("/api/publish", &headers, body.as_bytes());
    let refused = until("the rate", || {
        Some(ask()).filter(|answer| answer.status != 200)
    });
    assert_eq!(refused.status, 429);
    assert!(refused.json()["retry_after_ms"].as_u64() > Some(0));
}
