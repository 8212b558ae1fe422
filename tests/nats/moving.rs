//! `ringmain log move` between an embedded log and JetStream, both ways, while services publish and a worker works: what was
//! acknowledged is there once, and what was published is worked off.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use serde_json::{Value, json};

use crate::nats_server::NatsServer;
use crate::support::process::{API_KEY, Server, Start, binary, config, free_port, read_log};
use crate::support::wait::until;

const ADMIN_KEY: &str = "admin-key-of-the-tests";
const PUBLISHERS: u64 = 3;
/// An answer that does not come is asked for again.
const PATIENCE: Duration = Duration::from_secs(10);

fn rules(durable: &str) -> String {
    config(&format!(
        r#"
[admin]
key = "{ADMIN_KEY}"

[durable]
{durable}

[[channel.namespaces]]
name = "orders"
delivery = "durable"
history_size = 8
history_ttl = "60s"
idempotency_ttl = "1h"
"#
    ))
}

fn embedded(directory: &Path) -> String {
    rules(&format!("embedded.directory = \"{}\"", directory.display()))
}

/// Asks the server API; nothing where nobody answers as asked.
fn ask(server: SocketAddr, method: &str, body: &Value) -> Option<Value> {
    let mut stream = TcpStream::connect(server).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    let body = body.to_string();
    write!(
        stream,
        "POST /api/{method} HTTP/1.1\r\nHost: localhost\r\nX-API-Key: {API_KEY}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (_, body) = answer.split_once("\r\n\r\n")?;
    let answer: Value = serde_json::from_str(body).ok()?;
    answer.get("result").cloned()
}

/// Publishes one number after the other, each until it is acknowledged; gives how many were.
fn publish(who: u64, server: SocketAddr, stop: &AtomicBool, all: &AtomicU64) -> u64 {
    let mut n = 0;
    while !stop.load(Ordering::Relaxed) {
        let body = json!({ "channel": format!("orders:{who}"), "data": { "n": n }, "idempotency_key": format!("{who}/{n}") });
        if ask(server, "publish", &body).is_some() {
            n += 1;
            all.fetch_add(1, Ordering::Relaxed);
        } else {
            std::thread::yield_now();
        }
    }
    n
}

/// Works until it is told to stop, and tells what it has done.
fn work(server: SocketAddr, stop: &AtomicBool, done: &mpsc::Sender<(String, u64)>) {
    let fetch = json!({ "group": "billing", "channels": ["orders:*"], "from": "beginning", "limit": 50, "wait_ms": 200, "ack_wait_ms": 2000 });
    while !stop.load(Ordering::Relaxed) {
        let Some(given) = ask(server, "queue/fetch", &fetch) else {
            std::thread::yield_now();
            continue;
        };
        for one in given["deliveries"].as_array().into_iter().flatten() {
            let ack = json!({ "delivery": one["delivery"] });
            // An answer that is lost may be that of an acknowledgement which counts.
            let answer = ask(server, "queue/ack", &ack);
            if answer.is_none_or(|answer| answer["acked"] == 1) {
                let channel = one["channel"].as_str().expect("a channel").to_owned();
                let n = one["data"]["n"].as_u64().expect("a number");
                done.send((channel, n)).expect("somebody counts");
            }
        }
    }
}

/// Runs `ringmain log …`; what it printed.
fn log(config: &Path, arguments: &[&str]) -> String {
    let own = tempfile::tempdir().expect("a directory");
    let status = binary(own.path())
        .arg("--config")
        .arg(config)
        .arg("log")
        .args(arguments)
        .status();
    let printed = read_log(own.path());
    assert!(
        status.expect("the binary starts").success(),
        "{arguments:?}: {printed}"
    );
    printed
}

/// Numbers of each channel, in order, as they are exported.
fn exported(text: &str) -> BTreeMap<String, Vec<u64>> {
    let mut found: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for line in text.lines().filter(|line| line.starts_with('{')) {
        let line: Value = serde_json::from_str(line).expect("one JSON object a line");
        let channel = line["channel"].as_str().expect("a channel").to_owned();
        found
            .entry(channel)
            .or_default()
            .push(line["data"]["n"].as_u64().expect("a number"));
    }
    found
}

#[test]
fn nothing_acknowledged_is_lost_on_the_way_to_jetstream_and_back() {
    let nats = NatsServer::start();
    let place = tempfile::tempdir().expect("a directory");
    let at = |name: &str| place.path().join(name);
    let jetstream = format!("engine = \"nats\"\nnats.servers = [\"{}\"]", nats.url());
    let configs = [
        embedded(&at("first")),
        rules(&jetstream),
        embedded(&at("last")),
    ];
    let files: Vec<_> = ["first.toml", "nats.toml", "last.toml"].map(at).into();
    for (file, text) in files.iter().zip(&configs) {
        fs::write(file, text).expect("written");
    }
    let listen = free_port();
    let start =
        |text: &str| -> Server { Start::with_config(text).listen(&listen.to_string()).run() };
    let (stop, all) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicU64::new(0)),
    );
    let publishers: Vec<_> = (0..PUBLISHERS)
        .map(|who| {
            let (stop, all) = (Arc::clone(&stop), Arc::clone(&all));
            std::thread::spawn(move || publish(who, listen, &stop, &all))
        })
        .collect();
    let (done, worked) = mpsc::channel();
    let is_over = Arc::new(AtomicBool::new(false));
    let worker = {
        let is_over = Arc::clone(&is_over);
        std::thread::spawn(move || work(listen, &is_over, &done))
    };
    let more = |count: u64| {
        let target = all.load(Ordering::Relaxed) + count;
        until("publications", || {
            (all.load(Ordering::Relaxed) >= target).then_some(())
        });
    };
    let mut server = start(&configs[0]);
    // What waits for its time goes along, with its name and its key.
    let later = |server: &Server, n: u64| {
        let body = json!({ "channel": "orders:later", "data": { "n": n }, "idempotency_key": n.to_string(), "delay_ms": 3_600_000 });
        server.api_result("publish", &body)
    };
    let waiting: Vec<Value> = (0..3).map(|n| later(&server, n)).collect();
    for step in [1, 2] {
        more(300);
        let to = files[step].to_str().expect("UTF-8");
        let admin = server.admin.to_string();
        // JetStream is read by the command itself.
        let of_proxy = ["move", "--to", to, "--address", &admin, "--key", ADMIN_KEY];
        let arguments = if step == 1 {
            &of_proxy[..]
        } else {
            &of_proxy[..3]
        };
        log(&files[step - 1], arguments);
        more(100);
        server.signal("TERM");
        server.exit_status();
        log(&files[step - 1], &["move", "--to", to, "--finish"]);
        server = start(&configs[step]);
        // The log is there once others have published.
        more(10);
        let again: Vec<Value> = (0..3).map(|n| later(&server, n)).collect();
        assert_eq!(again, waiting, "each waits there");
        let all = server.api_result("scheduled/list", &json!({}));
        assert_eq!(all["scheduled"].as_array().map(Vec::len), Some(3), "{all}");
    }
    more(100);
    stop.store(true, Ordering::Relaxed);
    let counts: Vec<u64> = publishers
        .into_iter()
        .map(|one| one.join().expect("a publisher"))
        .collect();
    let mut missing: BTreeSet<(String, u64)> = (0..PUBLISHERS)
        .zip(&counts)
        .flat_map(|(who, count)| (0..*count).map(move |n| (format!("orders:{who}"), n)))
        .collect();
    until("everything is worked off", || {
        for one in worked.try_iter() {
            missing.remove(&one);
        }
        missing.is_empty().then_some(())
    });
    is_over.store(true, Ordering::Relaxed);
    worker.join().expect("the worker");
    server.signal("TERM");
    server.exit_status();
    let found = exported(&log(
        &files[2],
        &["export", at("last").to_str().expect("UTF-8")],
    ));
    for (who, count) in (0..PUBLISHERS).zip(counts) {
        let numbers = &found[&format!("orders:{who}")];
        assert!(
            numbers.iter().copied().eq(0..numbers.len() as u64),
            "each once, in order: {numbers:?}"
        );
        // One that was stored while its answer was lost may be there, too.
        assert!(
            numbers.len() as u64 == count || numbers.len() as u64 == count + 1,
            "{} of {count}",
            numbers.len()
        );
    }
}

/// Numbers that a channel still has.
fn numbers(server: &Server, channel: &str) -> Vec<u64> {
    let wanted = json!({ "channel": channel, "limit": 100 });
    let all = server.api_result("history", &wanted);
    let list = all["publications"].as_array().expect("publications");
    list.iter()
        .map(|one| one["data"]["n"].as_u64().expect("a number"))
        .collect()
}

#[test]
fn failed_attempts_times_to_live_and_what_is_not_kept_any_more_are_the_same_in_each_log() {
    let nats = NatsServer::start();
    let place = tempfile::tempdir().expect("a directory");
    let at = |name: &str| place.path().join(name);
    let jetstream = format!("engine = \"nats\"\nnats.servers = [\"{}\"]", nats.url());
    let compacted = "\n[[channel.namespaces]]\nname = \"states\"\ndelivery = \"durable\"\n";
    // JetStream compacts nothing.
    let by = "compact_by = \"tag:id\"\ncompact_after = \"0s\"\n";
    let configs = [
        format!("{}{compacted}{by}", embedded(&at("first"))),
        format!("{}{compacted}", rules(&jetstream)),
        format!("{}{compacted}{by}", embedded(&at("last"))),
    ];
    let files: Vec<_> = ["first.toml", "nats.toml", "last.toml"].map(at).into();
    for (file, text) in files.iter().zip(&configs) {
        fs::write(file, text).expect("written");
    }
    let mut server = Start::with_config(&configs[0]).run();
    let publish = |server: &Server, channel: &str, n: u64, ttl_ms: u64, id: &str| {
        let body = json!({ "channel": channel, "data": { "n": n }, "ttl_ms": ttl_ms, "tags": { "id": id } });
        server.api_result("publish", &body);
    };
    const HOUR: u64 = 3_600_000;
    for (n, ttl_ms) in [(0, HOUR), (1, 0), (2, 200), (3, 0)] {
        publish(&server, "orders:1", n, ttl_ms, "x");
    }
    for (n, id) in [(1, "a"), (2, "b"), (3, "a"), (4, "a")] {
        publish(&server, "states:1", n, 0, id);
    }
    until("what ends by itself", || {
        let left = (numbers(&server, "orders:1"), numbers(&server, "states:1"));
        (left == (vec![0, 1, 3], vec![2, 4])).then_some(())
    });
    // Of those that the group has not done, one has failed, and the time of another one is over before anybody asks for it.
    let fetch = json!({ "group": "billing", "channels": ["orders:*"], "from": "beginning", "limit": 3, "wait_ms": 10_000, "ack_wait_ms": 2000, "max_attempts": 9, "backoff": { "base_ms": 1, "cap_ms": 1 } });
    let fail = |server: &Server, reason: &str, attempt: u64| {
        let given = until("the first one", || {
            let fetched = server.api_result("queue/fetch", &fetch);
            let given = fetched["deliveries"].as_array().cloned();
            let first = given
                .into_iter()
                .flatten()
                .find(|one| one["data"]["n"] == 0);
            first.filter(|one| one["attempt"] == attempt)
        });
        let nak = json!({ "delivery": given["delivery"], "reason": reason });
        assert_eq!(server.api_result("queue/nak", &nak)["naked"], 1, "{given}");
    };
    fail(&server, "no paper", 1);
    publish(&server, "orders:1", 4, 200, "x");
    until("the end of its time", || {
        (numbers(&server, "orders:1") == [0, 1, 3]).then_some(())
    });
    for step in [1, 2] {
        server.signal("TERM");
        server.exit_status();
        let to = files[step].to_str().expect("UTF-8");
        let printed = log(&files[step - 1], &["move", "--to", to, "--finish"]);
        assert!(printed.contains("5 entries copied"), "{printed}");
        // A command that is given again changes nothing. JetStream would keep what the first one has had until its leases run out.
        if step == 1 {
            let printed = log(&files[step - 1], &["move", "--to", to, "--finish"]);
            assert!(printed.contains("0 entries copied"), "{printed}");
        }
        server = Start::with_config(&configs[step]).run();
        until("the log", || {
            let asked = json!({ "channel": "orders:1", "limit": 1 });
            server.api("history", &asked).get("result").cloned()
        });
        assert_eq!(numbers(&server, "orders:1"), [0, 1, 3]);
        assert_eq!(numbers(&server, "states:1"), [2, 4]);
        fail(&server, "no ink", step as u64 + 1);
    }
    server.signal("TERM");
    server.exit_status();
    for pattern in ["orders:1", "$queue:billing"] {
        let lines = log(
            &files[2],
            &[
                "export",
                at("last").to_str().expect("UTF-8"),
                "--channel",
                pattern,
            ],
        );
        let lines: Vec<Value> = lines
            .lines()
            .filter(|line| line.starts_with('{'))
            .map(|line| serde_json::from_str(line).expect("one JSON object a line"))
            .collect();
        let first = lines.iter().find(|line| line["data"]["n"] == 0);
        let first = first.unwrap_or_else(|| panic!("{pattern}: {lines:?}"));
        assert_eq!(first["ttl_ms"], HOUR, "its time goes on: {first}");
    }
}
