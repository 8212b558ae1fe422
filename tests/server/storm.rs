//! Everybody comes back at once: nobody is refused for it, nothing durable is missed, and a backend is asked at its pace.

use std::path::Path;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::backend::{Backend, Reply};
use crate::support::client::Client;
use crate::support::http::Http;
use crate::support::process::{Server, Start, config};
use crate::support::wait::{self, now};

const THREADS: u32 = 20;
const CLIENTS_PER_THREAD: u32 = 12;
/// Calls of the connect hook in a second.
const RATE: usize = 100;
const UPGRADE: &[(&str, &str)] = &[
    ("Connection", "Upgrade"),
    ("Upgrade", "websocket"),
    ("Sec-WebSocket-Version", "13"),
    ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
];

fn start(directory: &Path, backend: &Backend) -> Server {
    let text = config(&format!(
        r#"
[server]
accept_rate = 2000
handshakes_max = 500
[durable.embedded]
directory = "{}"
[client.proxy.connect]
enabled = true
endpoint = "{}"
timeout = "10s"
rate = {RATE}
[[channel.namespaces]]
name = "orders"
delivery = "durable"
allow_subscribe_for_client = true
[[channel.namespaces]]
name = "news"
history_size = 10
history_ttl = "60s"
force_recovery = true
allow_subscribe_for_client = true
"#,
        directory.display(),
        backend.url("/connect"),
    ));
    Start::with_config(&text).shards(2).run()
}

fn subscribe(channel: &str, position: Option<&Value>) -> Value {
    match position {
        None => json!({ "channel": channel, "recoverable": true }),
        Some(top) => json!({
            "channel": channel, "recoverable": true, "recover": true,
            "epoch": top["epoch"], "offset": top["offset"],
        }),
    }
}

/// Everybody connects at once and does the same.
fn crowd<R: Send>(run: impl Fn(u32) -> R + Sync) -> Vec<R> {
    std::thread::scope(|scope| {
        let run = &run;
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                let all = move || {
                    let each = 0..CLIENTS_PER_THREAD;
                    each.map(|at| run(thread * CLIENTS_PER_THREAD + at))
                        .collect::<Vec<R>>()
                };
                scope.spawn(all)
            })
            .collect();
        let ended = threads
            .into_iter()
            .map(|thread| thread.join().expect("all back"));
        ended.flatten().collect()
    })
}

/// No second saw many more of these than the pace allows.
fn are_paced(calls: &mut [Instant]) {
    calls.sort_unstable();
    for (at, first) in calls.iter().enumerate() {
        let second = calls[at..]
            .iter()
            .take_while(|call| call.duration_since(*first) < Duration::from_secs(1));
        // A tenth of a second's calls may go at once, and a call takes longer to arrive at one time than at another.
        assert!(
            second.count() <= RATE + RATE / 10 + RATE / 4,
            "too many calls in a second"
        );
    }
}

#[test]
fn after_a_restart_under_hundreds_of_clients_nothing_durable_is_missed_and_the_hook_is_called_at_its_pace()
 {
    let directory = tempfile::tempdir().expect("a directory");
    let (call, called) = mpsc::channel();
    let backend = Backend::start(move |_| {
        call.send(now()).expect("counted");
        Reply::result(json!({ "user": "somebody" }))
    });
    let mut server = start(directory.path(), &backend);
    let news = server.api_result("publish", &json!({ "channel": "news:1", "data": 0 }));
    let orders = server.api_result("publish", &json!({ "channel": "orders:1", "data": 0 }));
    let clients = crowd(|_| {
        let mut client = Client::open(&server).connect(&json!({}));
        client.ok("subscribe", &subscribe("orders:1", None));
        client.ok("subscribe", &subscribe("news:1", None));
        client
    });
    let all = (THREADS * CLIENTS_PER_THREAD) as usize;
    assert_eq!(clients.len(), all);
    let mut calls: Vec<Instant> = called.try_iter().collect();
    are_paced(&mut calls);
    server.signal("KILL");
    server.exit_status();
    for mut client in clients {
        client.ended();
    }
    let server = start(directory.path(), &backend);
    for n in 1..=3 {
        server.api_result("publish", &json!({ "channel": "orders:1", "data": n }));
    }
    crowd(|at| {
        let mut client = Client::open(&server).connect(&json!({}));
        let result = client.ok("subscribe", &subscribe("orders:1", Some(&orders)));
        assert_eq!(result["recovered"], true, "client {at}: {result}");
        let publications = result["publications"].as_array().expect("publications");
        let offsets: Vec<u64> = publications
            .iter()
            .map(|one| one["offset"].as_u64().expect("an offset"))
            .collect();
        assert_eq!(offsets, [2, 3, 4], "client {at}: {result}");
        let result = client.ok("subscribe", &subscribe("news:1", Some(&news)));
        assert_ne!(result["recovered"], true, "client {at}: {result}");
        assert_ne!(result["epoch"], news["epoch"], "client {at}: {result}");
    });
    let mut calls: Vec<Instant> = called.try_iter().collect();
    assert_eq!(calls.len(), all, "one call for each");
    are_paced(&mut calls);
}

fn limited(lines: &str) -> Server {
    let text =
        format!("[server]\n{lines}\n[client]\nallow_anonymous_connect_without_token = true\n");
    Start::with_config(&config(&text)).run()
}

/// Asks for a WebSocket, and does not wait for the answer.
fn knock(server: &Server) -> Http {
    let mut http = Http::open(server.listen);
    let request = crate::support::http::encode("GET", "/connection/websocket", UPGRADE, b"");
    http.send(&request);
    http
}

#[test]
fn those_beyond_the_pace_of_accepting_wait_in_the_queue_and_come_in_later() {
    let server = limited("accept_rate = 20");
    let started = now();
    let mut all: Vec<Http> = (0..30).map(|_| knock(&server)).collect();
    for http in &mut all {
        assert_eq!(http.response().expect("an answer").status, 101);
    }
    // Two come at once, and one with each twentieth of a second after them.
    assert!(
        started.elapsed() > Duration::from_millis(1200),
        "{:?}",
        started.elapsed()
    );
    assert!(server.metric("ringmain_accept_holds_total") >= 1.0);
    assert!(
        server.metric("ringmain_accepting_paused") < 0.5,
        "nothing is short"
    );
}

#[test]
fn handshakes_under_way_are_bounded_and_the_next_one_comes_in_when_one_is_over() {
    let server = limited("handshakes_max = 2\nhandshake_timeout = \"60s\"");
    let first = Http::open(server.listen);
    let second = Http::open(server.listen);
    wait::until("two handshakes", || {
        (server.metric("ringmain_handshakes") >= 2.0).then_some(())
    });
    let mut third = knock(&server);
    wait::until("nobody else to be taken", || {
        (server.metric("ringmain_accept_holds_total") >= 1.0).then_some(())
    });
    assert_eq!(server.metric("ringmain_handshakes") as u64, 2);
    drop(first);
    assert_eq!(third.response().expect("an answer").status, 101);
    drop(second);
    // A connection whose session is connected is no handshake any more.
    let clients: Vec<Client> = (0..6)
        .map(|_| {
            drop(knock(&server));
            Client::anonymous(&server)
        })
        .collect();
    assert_eq!(clients.len(), 6);
}

#[test]
fn those_who_are_refused_together_are_told_to_come_back_one_after_the_other() {
    let text =
        "[client]\nallow_anonymous_connect_without_token = true\nconnection_rate_limit = 2\n";
    let server = Start::with_config(&config(text)).run();
    let mut after: Vec<u64> = Vec::new();
    for _ in 0..22 {
        let answer = knock(&server).response().expect("an answer");
        if answer.status == 503 {
            let seconds = answer.header("retry-after").expect("when").to_owned();
            after.push(seconds.parse().expect("a number"));
        }
    }
    assert!(after.len() >= 12, "{after:?}");
    assert!(after.iter().all(|&seconds| seconds >= 1), "{after:?}");
    let (first, last) = (after[0], after[after.len() - 1]);
    assert!(last >= first + 2, "spread as places come: {after:?}");
}
