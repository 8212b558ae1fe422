//! A backend that hangs, breaks or talks nonsense costs only those who wait for it.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::backend::{Backend, Reply};
use crate::support::client::Client;
use crate::support::http::Http;
use crate::support::process::{Server, Start, config};
use crate::support::wait::{self, now};

/// Everything about RPC goes to `/rpc`, subscribes of `hooked:` to `/subscribe`. `target` is a part of both targets.
fn text(backend: SocketAddr, target: &str) -> String {
    let breaker = |target: &str| {
        if target.contains("breaker") {
            ""
        } else {
            "breaker = { error_rate = 0 }"
        }
    };
    config(&format!(
        r#"
[client]
allow_anonymous_connect_without_token = true
[channel.without_namespace]
allow_subscribe_for_client = true
allow_subscribe_for_anonymous = true
allow_publish_for_client = true
allow_publish_for_anonymous = true
[[channel.namespaces]]
name = "hooked"
subscribe_proxy_enabled = true
[channel.proxy.subscribe]
endpoint = "http://{backend}/subscribe"
{target}
{}
[rpc.proxy]
endpoint = "http://{backend}/rpc"
{target}
{}
[rpc.without_namespace]
proxy_enabled = true
"#,
        breaker(target),
        breaker(target),
    ))
}

/// The same where calls of one connection need not follow one another.
fn concurrent(text: &str) -> String {
    text.replace("[client]\n", "[client]\nconcurrency = 1024\n")
}

fn temporary() -> Value {
    json!({ "code": 100, "message": "internal server error", "temporary": true })
}

/// The state of the breaker of `rpc.proxy`, as `/metrics` has it.
fn breaker_of_rpc(server: &Server) -> u8 {
    let page = Http::open(server.admin).get("/metrics", &[]).text();
    let line = "ringmain_hook_breaker_state{target=\"rpc.proxy\"} ";
    let value = page.lines().find_map(|text| text.strip_prefix(line));
    value.and_then(|text| text.parse().ok()).expect("the state")
}

/// Backend whose mood is a number that the test changes.
fn moody(moods: impl Fn(u8) -> Reply + Send + Sync + 'static) -> (Backend, Arc<AtomicU8>) {
    let mood = Arc::new(AtomicU8::new(0));
    let current = Arc::clone(&mood);
    let backend = Backend::start(move |_| moods(current.load(Ordering::Relaxed)));
    (backend, mood)
}

#[test]
fn hook_that_hangs_delays_only_the_commands_that_wait_for_it() {
    let backend = Backend::start(|asked| match asked.path.as_str() {
        "/rpc" => Reply::Late(
            Duration::from_secs(5),
            Box::new(Reply::result(json!({ "data": 1 }))),
        ),
        _ => Reply::Json(json!({})),
    });
    let server = Start::with_config(&text(backend.address, "timeout = \"30s\""))
        .shards(2)
        .run();
    let mut client = Client::anonymous(&server);
    client.subscribe("a");
    let began = now();
    let waits = client.send("rpc", &json!({ "method": "slow" }));
    backend.asked();
    // Everybody else goes on, also with another target, and so do the pushes of the same connection.
    let mut other = Client::anonymous(&server);
    other.subscribe("a");
    other.publish("a", &json!(1));
    other.publication("a");
    client.publication("a");
    other.subscribe("hooked:x");
    assert!(began.elapsed() < Duration::from_secs(5), "nobody waited");
    assert_eq!(client.reply(waits)["rpc"], json!({ "data": 1 }));
    assert!(began.elapsed() >= Duration::from_secs(5));
}

#[test]
fn every_kind_of_bad_answer_is_a_temporary_error() {
    let (backend, mood) = moody(|mood| match mood {
        0 => Reply::Reset,
        1 => Reply::Body(b"<html>not JSON</html>".to_vec()),
        2 => Reply::Endless(10 << 20),
        3 => Reply::Body(vec![b'['; 10 << 20]),
        4 => Reply::Status(502),
        5 => Reply::Body(Vec::new()),
        _ => Reply::Late(Duration::from_secs(5), Box::new(Reply::Json(json!({})))),
    });
    let server = Server::start(&text(backend.address, "timeout = \"500ms\""));
    let mut client = Client::anonymous(&server);
    let before = server.resident_bytes();
    for kind in 0..=6 {
        mood.store(kind, Ordering::Relaxed);
        for _ in 0..5 {
            let reply = client.call("rpc", &json!({ "method": "x" }));
            assert_eq!(reply["error"], temporary(), "kind {kind}");
        }
        let reply = client.call("subscribe", &json!({ "channel": "hooked:x" }));
        assert_eq!(reply["error"], temporary(), "kind {kind}");
    }
    // A large answer is read up to its bound and no further.
    let grown = server.resident_bytes().saturating_sub(before);
    assert!(grown < 32 << 20, "{grown} bytes more than before");
    assert!(server.metric("ringmain_hook_failures_total") >= 42.0);
    assert!(server.metric("ringmain_hook_timeouts_total") >= 6.0);
}

#[test]
fn refused_connection_is_a_temporary_error_at_once() {
    let unused = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = unused.local_addr().expect("an address");
    drop(unused);
    let server = Server::start(&text(address, "timeout = \"20s\""));
    let mut client = Client::anonymous(&server);
    let began = now();
    let reply = client.call("rpc", &json!({ "method": "x" }));
    assert_eq!(reply["error"], temporary());
    assert!(began.elapsed() < Duration::from_secs(10));
}

#[test]
fn endpoint_that_does_not_speak_tls_is_a_temporary_error() {
    let backend = Backend::start(|_| Reply::Json(json!({})));
    let plain = text(backend.address, "timeout = \"5s\"");
    let server = Server::start(&plain.replace("http://", "https://"));
    let mut client = Client::anonymous(&server);
    let reply = client.call("rpc", &json!({ "method": "x" }));
    assert_eq!(reply["error"], temporary());
    assert!(backend.unread().is_empty());
}

#[test]
fn breaker_opens_within_a_second_and_closes_again() {
    let (backend, mood) = moody(|mood| match mood {
        0 => Reply::Status(500),
        1 => Reply::Late(Duration::from_secs(2), Box::new(Reply::Json(json!({})))),
        _ => Reply::Json(json!({})),
    });
    let breaker = "timeout = \"300ms\"\nbreaker = { calls_min = 10, open_for = \"500ms\" }";
    let server = Server::start(&text(backend.address, breaker));
    let mut client = Client::anonymous(&server);
    for bad in [0, 1] {
        mood.store(bad, Ordering::Relaxed);
        assert_eq!(breaker_of_rpc(&server), 0);
        let waits: Vec<u64> = (0..10)
            .map(|_| client.send("rpc", &json!({ "method": "x" })))
            .collect();
        for id in waits {
            assert_eq!(client.reply(id)["error"], temporary());
        }
        let threshold = now();
        wait::until("the breaker to open", || {
            (breaker_of_rpc(&server) > 0).then_some(())
        });
        assert!(threshold.elapsed() < Duration::from_secs(5));
        let ready = Http::open(server.admin).get("/ready", &[]);
        assert_eq!(ready.status, 200, "what needs no hook is served");
        assert_ne!(ready.json()["hooks"]["rpc.proxy"]["breaker"], "closed");
        assert_eq!(
            ready.json()["hooks"]["channel.proxy.subscribe"]["breaker"],
            "closed",
            "another target is another matter"
        );
        mood.store(2, Ordering::Relaxed);
        wait::until("the breaker to close", || {
            let reply = client.call("rpc", &json!({ "method": "x" }));
            assert!(reply.get("rpc").is_some() || reply["error"] == temporary());
            (breaker_of_rpc(&server) == 0).then_some(())
        });
        let reply = client.call("rpc", &json!({ "method": "x" }));
        assert_eq!(reply["rpc"], json!({}));
    }
    assert!(server.metric("ringmain_hook_breaker_opened_total") >= 2.0);
    assert!(server.metric("ringmain_hook_refused_open_total") >= 1.0);
}

#[test]
fn open_breaker_asks_nobody() {
    let backend = Backend::start(|_| Reply::Status(500));
    let breaker = "breaker = { calls_min = 5, open_for = \"1h\" }";
    let server = Server::start(&text(backend.address, breaker));
    let mut client = Client::anonymous(&server);
    for _ in 0..50 {
        let reply = client.call("rpc", &json!({ "method": "x" }));
        assert_eq!(reply["error"], temporary());
    }
    assert_eq!(breaker_of_rpc(&server), 2);
    assert_eq!(backend.unread().len(), 5);
}

#[test]
fn slow_answers_open_the_breaker_where_latency_is_bounded() {
    let backend = Backend::start(|_| {
        Reply::Late(Duration::from_millis(60), Box::new(Reply::Json(json!({}))))
    });
    let breaker = "breaker = { calls_min = 5, latency = \"30ms\", open_for = \"1h\" }";
    let server = Server::start(&text(backend.address, breaker));
    let mut client = Client::anonymous(&server);
    wait::until("the breaker to open", || {
        client.call("rpc", &json!({ "method": "x" }));
        (breaker_of_rpc(&server) == 2).then_some(())
    });
}

#[test]
fn calls_beyond_the_queue_are_refused_and_nothing_is_lost() {
    let backend = Backend::start(|_| {
        Reply::Late(Duration::from_millis(200), Box::new(Reply::Json(json!({}))))
    });
    let bounds = "timeout = \"10s\"\nconcurrency_max = 2\nqueue_max = 3";
    let server = Server::start(&concurrent(&text(backend.address, bounds)));
    let mut client = Client::anonymous(&server);
    let calls: Vec<u64> = (0..20)
        .map(|_| client.send("rpc", &json!({ "method": "x" })))
        .collect();
    let replies: Vec<Value> = calls.into_iter().map(|id| client.reply(id)).collect();
    let served = replies.iter().filter(|reply| reply.get("rpc").is_some());
    assert_eq!(served.count(), 5, "two at once and three that waited");
    let refused = replies.iter().filter(|reply| reply["error"] == temporary());
    assert_eq!(refused.count(), 15);
    assert!(
        backend.connections() <= 2,
        "connections are kept and used again"
    );
    assert_eq!(server.metric("ringmain_hook_refused_full_total"), 15.0);
}

#[test]
fn call_that_waits_too_long_for_its_turn_is_answered() {
    let backend =
        Backend::start(|_| Reply::Late(Duration::from_secs(10), Box::new(Reply::Json(json!({})))));
    let bounds = "timeout = \"300ms\"\nconcurrency_max = 1\nqueue_max = 100";
    let server = Server::start(&concurrent(&text(backend.address, bounds)));
    let mut client = Client::anonymous(&server);
    let began = now();
    let calls: Vec<u64> = (0..50)
        .map(|_| client.send("rpc", &json!({ "method": "x" })))
        .collect();
    for id in calls {
        assert_eq!(client.reply(id)["error"], temporary());
    }
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "they do not queue up behind one another"
    );
}

#[test]
fn one_client_cannot_use_up_the_calls_of_all() {
    let backend = Backend::start(|asked| {
        if asked.body["method"] == "hang" {
            Reply::Late(Duration::from_secs(10), Box::new(Reply::Json(json!({}))))
        } else {
            Reply::Json(json!({}))
        }
    });
    let bounds = "timeout = \"5s\"\nconcurrency_max = 5000\nqueue_max = 5000";
    let server = Server::start(&concurrent(&text(backend.address, bounds)));
    let mut greedy = Client::anonymous(&server);
    let calls: Vec<String> = (1..=1100)
        .map(|id| json!({ "id": 1000 + id, "rpc": { "method": "off:x" } }).to_string())
        .collect();
    // Methods of an unknown namespace ask nobody; those that do are bounded for each connection.
    greedy.send_text(&calls.join("\n"));
    assert_eq!(greedy.reply(2100)["error"]["code"], 104);
    let calls: Vec<String> = (1..=1100)
        .map(|id| json!({ "id": 5000 + id, "rpc": { "method": "hang" } }).to_string())
        .collect();
    greedy.send_text(&calls.join("\n"));
    backend.asked();
    let mut other = Client::anonymous(&server);
    assert_eq!(other.ok("rpc", &json!({ "method": "x" })), json!({}));
}

#[test]
fn one_user_with_many_connections_cannot_use_up_the_calls_of_all() {
    let backend = Backend::start(|asked| {
        if asked.body["method"] == "hang" {
            Reply::Late(Duration::from_secs(10), Box::new(Reply::Json(json!({}))))
        } else {
            Reply::Json(json!({}))
        }
    });
    let bounds = "timeout = \"5s\"\nconcurrency_max = 5000\nqueue_max = 5000";
    let server = Server::start(&concurrent(&text(backend.address, bounds)));
    let mut greedy: Vec<Client> = (0..100).map(|_| Client::user(&server, "greedy")).collect();
    let calls: Vec<String> = (1..=60)
        .map(|id| json!({ "id": 1000 + id, "rpc": { "method": "hang" } }).to_string())
        .collect();
    for client in &mut greedy {
        client.send_text(&calls.join("\n"));
    }
    // A quarter of the shard's places is theirs.
    wait::until("the others to be refused", || {
        (server.metric("ringmain_refused_hooks_total") >= 6000.0 - 1024.0).then_some(())
    });
    let mut other = Client::user(&server, "modest");
    assert_eq!(other.ok("rpc", &json!({ "method": "x" })), json!({}));
}

#[test]
fn second_subscribe_while_the_first_waits_is_105_and_unsubscribe_follows_it() {
    let (backend, mood) =
        moody(|_| Reply::Late(Duration::from_millis(300), Box::new(Reply::Json(json!({})))));
    mood.store(1, Ordering::Relaxed);
    let server = Server::start(&text(backend.address, "timeout = \"10s\""));
    let mut client = Client::anonymous(&server);
    let first = client.send("subscribe", &json!({ "channel": "hooked:x" }));
    assert_eq!(
        client.error("subscribe", &json!({ "channel": "hooked:x" })),
        105
    );
    let left = client.send("unsubscribe", &json!({ "channel": "hooked:x" }));
    let reply = client.next();
    assert_eq!(
        (&reply["id"], &reply["subscribe"]),
        (&json!(first), &json!({}))
    );
    assert_eq!(client.reply(left)["unsubscribe"], json!({}));
    // Nothing of it is left.
    assert_eq!(client.subscribe("hooked:x"), json!({}));
    wait::until("one subscription", || {
        (server.metric("ringmain_subscriptions") == 1.0).then_some(())
    });
}

#[test]
fn disconnect_while_hooks_wait_leaves_nothing_behind() {
    let backend = Backend::start(|_| {
        Reply::Late(Duration::from_millis(400), Box::new(Reply::Json(json!({}))))
    });
    let server = Start::with_config(&text(backend.address, "timeout = \"10s\""))
        .shards(2)
        .run();
    for _ in 0..10 {
        for (part, request) in [
            ("subscribe", json!({ "channel": "hooked:x" })),
            ("rpc", json!({ "method": "x" })),
        ] {
            let mut client = Client::anonymous(&server);
            client.send(part, &request);
            drop(client);
        }
    }
    for _ in 0..20 {
        backend.asked();
    }
    wait::until("the calls to be over", || {
        (server.metric("ringmain_hook_calls_total") == 20.0).then_some(())
    });
    let mut client = Client::anonymous(&server);
    assert_eq!(client.subscribe("hooked:x"), json!({}));
    wait::until("nothing but this client", || {
        let left = [
            "ringmain_subscriptions",
            "ringmain_connections",
            "ringmain_hook_in_flight",
        ]
        .map(|name| server.metric(name));
        (left == [1.0, 1.0, 0.0]).then_some(())
    });
    let presence = server.api_result("channels", &json!({}));
    assert_eq!(presence["channels"]["hooked:x"]["num_clients"], 1);
}

#[test]
fn reload_changes_a_target_without_losing_calls() {
    let late = Backend::start(|_| {
        Reply::Late(
            Duration::from_millis(500),
            Box::new(Reply::result(json!({ "data": "old" }))),
        )
    });
    let other = Backend::start(|_| Reply::result(json!({ "data": "new" })));
    let server = Server::start(&concurrent(&text(late.address, "timeout = \"10s\"")));
    let mut client = Client::anonymous(&server);
    let waits = client.send("rpc", &json!({ "method": "x" }));
    late.asked();
    server.write_config(&concurrent(&text(other.address, "timeout = \"10s\"")));
    server.signal("HUP");
    wait::until("the reload", || {
        let reply = client.call("rpc", &json!({ "method": "x" }));
        (reply["rpc"]["data"] == "new").then_some(())
    });
    assert_eq!(client.reply(waits)["rpc"]["data"], "old");
}
