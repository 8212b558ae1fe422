//! SIGTERM ends the process in order: notice first, then no new connections, what waits is answered, clients are told to
//! reconnect elsewhere, everything is flushed, and it ends as soon as nobody is left.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::gone::{fetch, half_body, poll, start, wish};
use crate::support::client::{Client, tcp};
use crate::support::http::{Http, encode};
use crate::support::process::{API_KEY, Server, Start, config};
use crate::support::token::{after, sign};
use crate::support::wait::{self, now};

fn drained_over(window: &str) -> Start {
    Start::with_config(&config(&format!(
        r#"
[client]
allow_anonymous_connect_without_token = true

[channel.without_namespace]
history_size = 2000
history_ttl = "60s"
allow_subscribe_for_client = true
allow_subscribe_for_anonymous = true

[drain]
window = "{window}"
grace = "2s"
"#
    )))
}

fn refuses_connections(server: &Server) {
    wait::until("the listener to be closed", || {
        TcpStream::connect(server.listen).is_err().then_some(())
    });
}

/// Reads every client to its end; when each ended, in the order of the clients.
fn ends(clients: Vec<Client>) -> Vec<Instant> {
    let threads: Vec<_> = clients
        .into_iter()
        .map(|mut client| {
            std::thread::spawn(move || {
                assert_eq!(client.ends_with(3001), "shutdown");
                now()
            })
        })
        .collect();
    threads
        .into_iter()
        .map(|thread| thread.join().expect("closed with 3001"))
        .collect()
}

#[test]
fn clients_are_told_to_reconnect_spread_over_the_window_and_the_status_is_0() {
    for shards in [1, 3] {
        let mut server = drained_over("2s").shards(shards).run();
        let clients: Vec<Client> = (0..40).map(|_| Client::anonymous(&server)).collect();
        let started = now();
        server.signal("TERM");
        let ends = ends(clients);
        let first = ends.iter().min().expect("clients").duration_since(started);
        let last = ends.iter().max().expect("clients").duration_since(started);
        assert!(
            last - first > Duration::from_millis(700),
            "{shards} shards: spread, not at once: {first:?} … {last:?}"
        );
        assert!(
            last < Duration::from_secs(4),
            "{shards} shards: within the window and its grace: {last:?}"
        );
        assert_eq!(server.exit_status().code(), Some(0), "{}", server.log());
    }
}

#[test]
fn drain_refuses_new_connections_and_readiness_while_old_ones_are_served() {
    let mut server = drained_over("3s").run();
    let mut kept: Vec<Client> = (0..20).map(|_| Client::anonymous(&server)).collect();
    assert_eq!(Http::open(server.admin).get("/ready", &[]).status, 200);
    server.signal("TERM");
    refuses_connections(&server);
    let mut admin = Http::open(server.admin);
    assert_eq!(admin.get("/ready", &[]).status, 503);
    assert_eq!(admin.get("/health", &[]).status, 200);
    let mut answered = 0;
    for client in &mut kept {
        if client.try_send_text(r#"{"id":2,"unsubscribe":{"channel":"a"}}"#)
            && client.receive().is_ok()
        {
            answered += 1;
        }
    }
    assert!(answered > 0, "clients that were not told yet are served");
    drop(kept);
    assert_eq!(
        server.exit_status().code(),
        Some(0),
        "nobody is left, so the drain ends: {}",
        server.log()
    );
}

#[test]
fn drain_flushes_what_was_published_before() {
    let mut server = drained_over("100ms").run();
    let mut client = Client::anonymous(&server);
    client.subscribe("news");
    for n in 1..=500 {
        server.api_result(
            "publish",
            &json!({ "channel": "news", "data": { "n": n, "fill": "x".repeat(1000) } }),
        );
    }
    server.signal("TERM");
    client.ends_with(3001);
    let offsets: Vec<_> = client
        .unread()
        .iter()
        .map(|object| object["push"]["pub"]["offset"].as_u64())
        .collect();
    assert_eq!(offsets, (1..=500).map(Some).collect::<Vec<_>>());
    assert_eq!(server.exit_status().code(), Some(0));
}

#[test]
fn clients_that_do_not_answer_are_cut_after_the_grace() {
    let mut server = drained_over("100ms").run();
    let silent = Client::anonymous(&server);
    let half = Http::open(server.listen);
    let started = now();
    server.signal("TERM");
    let status = server.exit_status();
    assert!(
        started.elapsed() < Duration::from_secs(10),
        "{:?}",
        started.elapsed()
    );
    assert_eq!(
        status.code(),
        Some(0),
        "nothing durable was lost: {}",
        server.log()
    );
    drop((silent, half));
}

#[test]
fn idle_process_drains_at_once() {
    let mut server = drained_over("20s").run();
    let started = now();
    server.signal("TERM");
    assert_eq!(server.exit_status().code(), Some(0));
    assert!(
        started.elapsed() < Duration::from_secs(5),
        "nobody to wait for: {:?}",
        started.elapsed()
    );
}

#[test]
fn second_sigterm_ends_at_once() {
    let mut server = drained_over("60s").run();
    let clients: Vec<Client> = (0..10).map(|_| Client::anonymous(&server)).collect();
    server.signal("TERM");
    refuses_connections(&server);
    assert!(server.is_running(), "the window is long");
    let started = now();
    server.signal("TERM");
    server.exit_status();
    assert!(
        started.elapsed() < Duration::from_secs(5),
        "{:?}",
        started.elapsed()
    );
    drop(clients);
}

#[test]
fn sigint_drains_as_well() {
    let mut server = drained_over("100ms").run();
    let mut client = Client::anonymous(&server);
    server.signal("INT");
    client.ends_with(3001);
    assert_eq!(server.exit_status().code(), Some(0));
}

#[test]
fn pipelined_requests_are_answered_before_the_end() {
    let mut server = drained_over("100ms").run();
    let mut stream = Http::over(tcp(server.listen));
    let key = [("X-API-Key", crate::support::process::API_KEY)];
    let body = json!({ "channel": "news", "data": 1 }).to_string();
    let one = crate::support::http::encode("POST", "/api/publish", &key, body.as_bytes());
    stream.send(&one.repeat(50));
    assert_eq!(stream.response().expect("a response").status, 200);
    server.signal("TERM");
    for n in 2..=50 {
        let response = stream.response().unwrap_or_else(|| panic!("response {n}"));
        assert_eq!(response.json()["result"]["offset"], n);
    }
    assert_eq!(server.exit_status().code(), Some(0));
}

#[test]
fn everything_is_served_during_the_notice_while_readiness_says_503() {
    for shards in [1, 3] {
        let text = config(
            r#"
[client]
allow_anonymous_connect_without_token = true

[channel.without_namespace]
allow_subscribe_for_client = true
allow_subscribe_for_anonymous = true

[drain]
notice = "3s"
window = "100ms"
grace = "2s"
"#,
        );
        let mut server = Start::with_config(&text).shards(shards).run();
        let mut old = Client::anonymous(&server);
        old.subscribe("news");
        let mut admin = Http::open(server.admin);
        let started = now();
        server.signal("TERM");
        wait::until("readiness to say no", || {
            (admin.get("/ready", &[]).status == 503).then_some(())
        });
        let mut new = Client::anonymous(&server);
        new.subscribe("news");
        server.api_result("publish", &json!({ "channel": "news", "data": 1 }));
        assert_eq!(old.publication("news")["data"], 1);
        assert_eq!(new.publication("news")["data"], 1);
        ends(vec![old, new]);
        assert!(
            started.elapsed() >= Duration::from_secs(3),
            "nobody is told before the notice is over"
        );
        assert_eq!(server.exit_status().code(), Some(0), "{}", server.log());
    }
}

#[test]
fn second_signal_ends_the_notice_and_everything_else_at_once() {
    let text = config("[drain]\nnotice = \"60s\"\n");
    let mut server = Start::with_config(&text).run();
    let mut admin = Http::open(server.admin);
    server.signal("TERM");
    wait::until("readiness to say no", || {
        (admin.get("/ready", &[]).status == 503).then_some(())
    });
    let started = now();
    server.signal("TERM");
    server.exit_status();
    assert!(started.elapsed() < Duration::from_secs(5));
}

#[test]
fn those_who_stand_in_the_queue_of_a_listener_are_served_before_it_closes() {
    const WAITING: usize = 300;
    let mut server = drained_over("100ms").run();
    let body = json!({ "channel": "news", "data": 1 }).to_string();
    let request = encode(
        "POST",
        "/api/publish",
        &[("X-API-Key", API_KEY)],
        body.as_bytes(),
    );
    // A process that stands still takes nobody in: the kernel does, into the queue.
    server.signal("STOP");
    let mut waiting: Vec<Http> = (0..WAITING)
        .map(|_| {
            let mut http = Http::open(server.listen);
            http.send(&request);
            http
        })
        .collect();
    server.signal("TERM");
    server.signal("CONT");
    for (at, http) in waiting.iter_mut().enumerate() {
        let response = http.response().unwrap_or_else(|| panic!("answer {at}"));
        assert_eq!(response.status, 200, "{at}");
    }
    assert_eq!(server.exit_status().code(), Some(0), "{}", server.log());
}

#[test]
fn what_waits_is_answered_and_the_end_does_not_wait_for_the_grace() {
    let directory = tempfile::tempdir().expect("a directory");
    let more = r#"
[drain]
window = "200ms"
grace = "60s"
[client]
allow_anonymous_connect_without_token = true
"#;
    let mut server = start(more, directory.path()).shards(2).run();
    let send = |bytes: &[u8]| {
        let mut http = Http::open(server.listen);
        http.send(bytes);
        http
    };
    let mut fetches: Vec<Http> = (0..8).map(|_| send(&fetch())).collect();
    let mut poll = send(&poll());
    let mut half_head = send(b"POST /api/publish HTTP/1.1\r\nHost:");
    let mut half_body = send(&half_body());
    let idle = {
        let mut http = Http::open(server.listen);
        assert_eq!(http.get("/nothing", &[]).status, 404);
        http
    };
    let claims = json!({ "sub": "w", "exp": after(600), "consume": { "g*": ["orders:*"] } });
    let mut worker = Client::with_token(&server, &sign(&claims));
    let asked = worker.send(
        "rpc",
        &json!({ "method": "ringmain.fetch", "data": wish() }),
    );
    wait::until("everybody to wait", || {
        (server.metric("ringmain_log_asks") >= 9.0).then_some(())
    });
    let started = now();
    server.signal("TERM");
    for fetch in &mut fetches {
        let response = fetch.response().expect("the fetch is answered");
        assert_eq!(response.status, 200);
        assert_eq!(response.json()["result"]["deliveries"], json!([]));
        assert_eq!(response.header("connection"), Some("close"));
    }
    let reply = worker.reply(asked);
    assert_eq!(reply["rpc"]["data"]["deliveries"], json!([]), "{reply}");
    worker.ends_with(3001);
    let response = poll.response().expect("the poll is answered");
    assert_eq!(response.status, 200);
    assert_eq!(response.header("connection"), Some("close"));
    for (half, what) in [(&mut half_head, "head"), (&mut half_body, "body")] {
        let response = half.response().unwrap_or_else(|| panic!("half a {what}"));
        assert_eq!(response.status, 503, "{what}");
        assert_eq!(response.header("connection"), Some("close"));
        assert!(response.header("retry-after").is_some());
    }
    assert_eq!(server.exit_status().code(), Some(0), "{}", server.log());
    assert!(
        started.elapsed() < Duration::from_secs(10),
        "everybody is gone: {:?}",
        started.elapsed()
    );
    drop(idle);
}

/// `ringmain drain` about this server.
fn drain(server: &Server, more: &[&str]) -> std::process::Command {
    let mut command = crate::support::process::binary(&server.directory());
    command.args(["drain", "--address", &server.admin.to_string()]);
    command.args(["--key", API_KEY]).args(more);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn shown(output: &std::process::Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    text(&output.stdout) + &text(&output.stderr)
}

#[test]
fn ringmain_drain_waits_for_the_end_and_prints_what_came_of_it() {
    for (shards, json) in [(1, false), (3, true)] {
        let mut server = drained_over("60s").shards(shards).run();
        let clients: Vec<Client> = (0..20).map(|_| Client::anonymous(&server)).collect();
        let more: &[&str] = if json { &["--json"] } else { &[] };
        let child = drain(&server, more)
            .args(["--window", "500ms"])
            .spawn()
            .expect("started");
        ends(clients);
        let output = child.wait_with_output().expect("its end");
        let text = shown(&output);
        assert_eq!(output.status.code(), Some(0), "{text}");
        if json {
            let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
            assert_eq!(report["told"], 20, "{report}");
            assert_eq!(report["forced"], 0, "{report}");
            assert_eq!(report["status"], 0, "{report}");
        } else {
            assert!(text.contains("      20  told to come back"), "{text}");
        }
        assert_eq!(server.exit_status().code(), Some(0), "{}", server.log());
        let log = server.log();
        let line = log
            .lines()
            .find(|line| line.contains("drained") && line.contains("told"));
        assert!(line.is_some_and(|line| line.contains("20")), "{log}");
    }
}

#[test]
fn a_drain_that_cuts_somebody_says_so_by_its_status_and_its_deadline_bounds_all_of_it() {
    let text = config(
        "[client]\nallow_anonymous_connect_without_token = true\nqueue_max_size = 67108864\n\
         [channel.without_namespace]\nallow_subscribe_for_client = true\nallow_subscribe_for_anonymous = true\n\
         [drain]\nnotice = \"0s\"\nwindow = \"60s\"\n",
    );
    let mut server = Start::with_config(&text).run();
    let mut silent = Client::anonymous(&server);
    silent.subscribe("news");
    // More than the kernel takes for somebody who does not read.
    for _ in 0..20 {
        let data = json!({ "channel": "news", "data": "x".repeat(1_000_000) });
        server.api_result("publish", &data);
    }
    let started = now();
    let output = drain(&server, &["--deadline", "1s"]).output().expect("run");
    let text = shown(&output);
    assert!(
        started.elapsed() < Duration::from_secs(20),
        "{:?}",
        started.elapsed()
    );
    assert_eq!(output.status.code(), Some(3), "{text}");
    assert!(text.contains("       1  cut at the deadline"), "{text}");
    assert_eq!(server.exit_status().code(), Some(0), "nothing is lost");
    drop(silent);
}

#[test]
fn whoever_joins_a_drain_gets_the_report_and_a_signal_after_it_joins_as_well() {
    let mut server = drained_over("60s").run();
    let clients: Vec<Client> = (0..4).map(|_| Client::anonymous(&server)).collect();
    let start = |more: &[&str]| {
        let mut command = drain(&server, more);
        command.stderr(Stdio::null());
        command.spawn().expect("started")
    };
    let first = start(&["--json", "--window", "3s"]);
    refuses_connections(&server);
    let second = start(&["--json"]);
    server.signal("TERM");
    assert!(
        server.is_running(),
        "the first signal ends no drain of an operator"
    );
    ends(clients);
    for child in [first, second] {
        let output = child.wait_with_output().expect("its end");
        assert_eq!(output.status.code(), Some(0));
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
        assert_eq!(report["told"], 4, "{report}");
    }
    assert_eq!(server.exit_status().code(), Some(0), "{}", server.log());
}

#[test]
fn the_endpoint_of_a_drain_wants_the_key_and_times_that_it_understands() {
    let mut server = drained_over("100ms").run();
    let mut admin = Http::open(server.admin);
    let kind = ("Content-Type", "application/json");
    let key = ("X-API-Key", API_KEY);
    let ask = |admin: &mut Http, headers: &[(&str, &str)], body: &str| {
        admin.send(&encode("POST", "/admin/drain", headers, body.as_bytes()));
        admin.response().expect("an answer")
    };
    assert_eq!(ask(&mut admin, &[kind], "{}").status, 401);
    let refused = ask(&mut admin, &[kind, key], r#"{"window":"soon"}"#);
    assert_eq!(refused.status, 400);
    assert!(refused.text().contains("window"), "{}", refused.text());
    assert_eq!(Http::open(server.admin).get("/ready", &[]).status, 200);
    let mut stream = tcp(server.admin);
    stream
        .write_all(&encode("POST", "/admin/drain", &[kind, key], b""))
        .expect("sent");
    let mut lines = String::new();
    stream.read_to_string(&mut lines).expect("to its end");
    let last = lines.lines().find(|line| line.starts_with("{\"report\""));
    let last: serde_json::Value = serde_json::from_str(last.expect("a report")).expect("JSON");
    assert_eq!(last["report"]["status"], 0, "{lines}");
    assert_eq!(server.exit_status().code(), Some(0));
}

#[test]
fn those_who_came_last_are_told_last() {
    let mut server = drained_over("1s").run();
    let mut clients: Vec<Client> = Vec::new();
    for _ in 0..2 {
        clients.extend((0..10).map(|_| Client::anonymous(&server)));
        let started = now();
        // The age of a connection is known to a tenth of a second.
        wait::until("time to pass", || {
            (started.elapsed() > Duration::from_millis(250)).then_some(())
        });
    }
    server.signal("TERM");
    let ends = ends(clients);
    let (old, new) = ends.split_at(10);
    assert!(old.iter().max() < new.iter().min(), "{ends:?}");
    assert_eq!(server.exit_status().code(), Some(0), "{}", server.log());
}

#[test]
fn deliveries_of_workers_are_returned_and_counted() {
    let directory = tempfile::tempdir().expect("a directory");
    let more = "[drain]\nnotice = \"0s\"\nwindow = \"200ms\"\ngrace = \"5s\"\n";
    let mut server = start(more, directory.path()).run();
    let claims = json!({ "sub": "w", "exp": after(600), "consume": { "g*": ["orders:*"] } });
    let mut worker = Client::with_token(&server, &sign(&claims));
    let wish = json!({ "group": "g1", "channels": ["orders:*"], "credit": 5 });
    worker.ok(
        "rpc",
        &json!({ "method": "ringmain.consume", "data": wish }),
    );
    for n in 0..3 {
        server.api_result("publish", &json!({ "channel": "orders:1", "data": n }));
    }
    for _ in 0..3 {
        assert!(worker.push()["message"]["data"]["delivery"].is_u64());
    }
    let child = drain(&server, &["--json"]).spawn().expect("started");
    worker.ends_with(3001);
    let output = child.wait_with_output().expect("its end");
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(report["returned"], 3, "{report}");
    assert_eq!(report["unacked"], 0, "{report}");
    assert_eq!(server.exit_status().code(), Some(0), "{}", server.log());
}

#[test]
fn a_configured_deadline_bounds_a_drain_by_a_signal() {
    let text = config(
        "[drain]\nnotice = \"20s\"\nwindow = \"20s\"\ngrace = \"20s\"\n[client]\nallow_anonymous_connect_without_token = true\n",
    );
    let mut server = Start::with_config(&text)
        .env("RINGMAIN__DRAIN__DEADLINE", "1500ms")
        .run();
    let mut client = Client::anonymous(&server);
    let started = now();
    server.signal("TERM");
    client.ends_with(3001);
    assert_eq!(server.exit_status().code(), Some(0), "{}", server.log());
    assert!(
        started.elapsed() < Duration::from_secs(15),
        "{:?}",
        started.elapsed()
    );
}
