//! `ringmain log`: what is backed up comes back, what is damaged is found, and nothing that was acknowledged is missing.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use serde_json::{Value, json};

use crate::support::client::Client;
use crate::support::http::Http;
use crate::support::process::{API_KEY, Server, Start, binary, config, guard, read_log};
use crate::support::wait::until;

const ADMIN_KEY: &str = "admin-key-of-the-tests";

fn rules(directory: &Path) -> String {
    config(&format!(
        r#"
[admin]
key = "{ADMIN_KEY}"

[durable.embedded]
directory = "{}"

[[channel.namespaces]]
name = "orders"
delivery = "durable"
history_size = 8
history_ttl = "60s"
idempotency_ttl = "10m"
allow_subscribe_for_client = true

[[channel.namespaces]]
name = "states"
delivery = "durable"
compact_by = "tag:id"
compact_after = "0s"
history_size = 1
allow_subscribe_for_client = true
"#,
        directory.display()
    ))
}

fn start(directory: &Path) -> Server {
    Start::with_config(&rules(directory)).shards(2).run()
}

/// `ringmain log …` somewhere: its status and everything printed.
fn log(arguments: &[&str]) -> (Option<i32>, String) {
    let own = tempfile::tempdir().expect("a directory");
    let status = binary(own.path())
        .arg("log")
        .args(arguments)
        .status()
        .expect("the binary starts");
    (status.code(), read_log(own.path()))
}

fn log_ok(arguments: &[&str]) -> String {
    let (status, printed) = log(arguments);
    assert_eq!(status, Some(0), "{arguments:?}: {printed}");
    printed
}

/// The same of a running proxy.
fn log_of(server: &Server, arguments: &[&str]) -> (Option<i32>, String) {
    let address = server.admin.to_string();
    let mut all = arguments.to_vec();
    all.extend(["--address", &address, "--key", ADMIN_KEY]);
    log(&all)
}

fn backup(server: &Server, to: &Path) {
    let (status, printed) = log_of(server, &["backup", text(to)]);
    assert_eq!(status, Some(0), "{printed}");
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}

fn publish(server: &Server, channel: &str, n: u64) -> Value {
    let body = json!({ "channel": channel, "data": { "n": n }, "idempotency_key": format!("{channel}/{n}") });
    server.api_result("publish", &body)
}

fn history(server: &Server, channel: &str) -> (Vec<u64>, Value) {
    let all = server.api_result("history", &json!({ "channel": channel, "limit": 1000 }));
    let list = all["publications"].as_array().expect("publications");
    let numbers = list
        .iter()
        .map(|one| one["data"]["n"].as_u64().expect("its number"));
    (numbers.collect(), all["epoch"].clone())
}

fn inspect(directory: &Path) -> Value {
    let printed = log_ok(&["inspect", text(directory), "--json"]);
    serde_json::from_str(&printed).expect("one JSON object")
}

#[test]
fn a_backup_that_was_added_to_restores_entries_keys_groups_and_dead_letters() {
    let place = tempfile::tempdir().expect("a directory");
    let (kept, copy, new) = (
        place.path().join("log"),
        place.path().join("copy"),
        place.path().join("new"),
    );
    let mut server = start(&kept);
    for n in 1..=50 {
        publish(&server, "orders:1", n);
    }
    let fetch = json!({ "group": "billing", "channels": ["orders:*"], "from": "beginning", "limit": 2, "max_attempts": 1, "wait_ms": 5000 });
    let first = server.api_result("queue/fetch", &fetch);
    let given = |n: usize| first["deliveries"][n]["delivery"].clone();
    server.api_result("queue/ack", &json!({ "delivery": given(0) }));
    let nak = json!({ "delivery": given(1), "reason": "no such customer" });
    assert_eq!(server.api_result("queue/nak", &nak)["naked"], 1, "{first}");
    until("the dead letter", || {
        let dead = server.api_result("dlq/list", &json!({ "group": "billing" }));
        dead["letters"]
            .as_array()
            .filter(|letters| letters.len() == 1)
            .map(|_| ())
    });
    backup(&server, &copy);
    let files = || fs::read_dir(&copy).expect("the backup").count();
    let before = files();
    for n in 51..=60 {
        publish(&server, "orders:1", n);
        publish(&server, "orders:2", n);
    }
    backup(&server, &copy);
    assert_eq!(
        files(),
        before + 1,
        "one more file of entries, one state for another"
    );
    let (_, epoch) = history(&server, "orders:1");
    server.signal("KILL");
    server.exit_status();

    log_ok(&["verify", text(&copy)]);
    let found = inspect(&copy);
    assert_eq!(
        (&found["entries"], &found["problems"]),
        (&json!(71), &json!(0)),
        "with what was announced of the letter"
    );
    assert_eq!(found["dead_letters"], json!({ "billing": 1 }));
    log_ok(&["restore", text(&copy), "--to", text(&new)]);
    log_ok(&["verify", text(&new)]);
    log_ok(&["compact", text(&new)]);

    let server = start(&new);
    let (numbers, new_epoch) = history(&server, "orders:1");
    assert_eq!(numbers, (1..=60).collect::<Vec<_>>());
    assert_ne!(
        new_epoch, epoch,
        "clients learn that it is not the log that they knew"
    );
    assert_eq!(
        publish(&server, "orders:1", 7)["offset"],
        7,
        "keys are remembered"
    );
    assert_eq!(publish(&server, "orders:1", 61)["offset"], 61);
    let dead = server.api_result(
        "dlq/show",
        &json!({ "group": "billing", "event_id": first["deliveries"][1]["event_id"] }),
    );
    assert_eq!(dead["data"], json!({ "n": 2 }));
    let again = json!({ "group": "billing", "limit": 100, "wait_ms": 5000 });
    let mut rest: Vec<u64> = Vec::new();
    while rest.len() < 69 {
        let fetched = server.api_result("queue/fetch", &again);
        let deliveries = fetched["deliveries"].as_array().expect("deliveries");
        for one in deliveries {
            rest.push(one["data"]["n"].as_u64().expect("its number"));
            server.api_result("queue/ack", &json!({ "delivery": one["delivery"] }));
        }
    }
    rest.sort_unstable();
    let mut expected: Vec<u64> = (3..=60).chain(51..=60).chain(61..=61).collect();
    expected.sort_unstable();
    assert_eq!(rest, expected, "what was done or dead is not given again");
}

#[test]
fn a_client_that_knew_the_lost_end_of_a_log_does_not_recover_into_another_one() {
    let place = tempfile::tempdir().expect("a directory");
    let (kept, copy) = (place.path().join("log"), place.path().join("copy"));
    let mut server = start(&kept);
    for n in 1..=5 {
        publish(&server, "orders:1", n);
    }
    backup(&server, &copy);
    publish(&server, "orders:1", 6);
    let (_, epoch) = history(&server, "orders:1");
    server.signal("KILL");
    server.exit_status();
    for (name, more, recovers) in [("new", &[][..], false), ("same", &["--same-epochs"], true)] {
        let new = place.path().join(name);
        let mut arguments = vec!["restore", text(&copy), "--to", text(&new)];
        arguments.extend(more);
        log_ok(&arguments);
        let server = start(&new);
        publish(&server, "orders:1", 7);
        let mut client = Client::user(&server, "42");
        let subscribe =
            json!({ "channel": "orders:1", "recover": true, "epoch": epoch, "offset": 6 });
        let result = client.ok("subscribe", &subscribe);
        assert_eq!(result["recovered"] == true, recovers, "{name}: {result}");
    }
}

#[test]
fn everything_acknowledged_before_the_end_of_a_backup_is_in_it() {
    const PUBLISHERS: u64 = 4;
    let place = tempfile::tempdir().expect("a directory");
    let (kept, copy, new) = (
        place.path().join("log"),
        place.path().join("copy"),
        place.path().join("new"),
    );
    let mut server = start(&kept);
    let (listen, stop) = (server.listen, Arc::new(AtomicBool::new(false)));
    let publishers: Vec<_> = (0..PUBLISHERS)
        .map(|who| {
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || {
                let mut acknowledged = Vec::new();
                let mut http = Http::open(listen);
                for part in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let one = |n: u64| json!({ "publish": { "channel": format!("orders:{who}"), "data": { "n": part * 100 + n } } });
                    let batch = json!({ "commands": (0..100).map(one).collect::<Vec<_>>() });
                    let answer = http.post("/api/batch", &[("X-API-Key", API_KEY)], batch.to_string().as_bytes());
                    let replies = answer.json()["replies"].as_array().map_or(0, Vec::len);
                    assert_eq!(replies, 100, "{}", answer.text());
                    acknowledged.push((unix_ms(), part * 100 + 99));
                }
                acknowledged
            })
        })
        .collect();
    until("a log worth a backup", || {
        (server.metric("ringmain_durable_entries") > 5000.0).then_some(())
    });
    for _ in 0..3 {
        backup(&server, &copy);
    }
    let manifest: Value =
        serde_json::from_slice(&fs::read(copy.join("backup.json")).expect("a manifest"))
            .expect("JSON");
    stop.store(true, Ordering::Relaxed);
    let acknowledged: Vec<_> = publishers
        .into_iter()
        .map(|one| one.join().expect("a publisher"))
        .collect();
    server.signal("KILL");
    server.exit_status();
    log_ok(&["restore", text(&copy), "--to", text(&new)]);
    let exported = log_ok(&["export", text(&new)]);
    let mut found: BTreeMap<String, u64> = BTreeMap::new();
    for line in exported.lines() {
        let line: Value = serde_json::from_str(line).expect("one JSON object a line");
        let channel = line["channel"].as_str().expect("a channel").to_owned();
        let n = line["data"]["n"].as_u64().expect("a number");
        let before = found.insert(channel, n);
        assert_eq!(
            before.map_or(0, |before| before + 1),
            n,
            "in order, without a hole"
        );
    }
    let until = manifest["unix_ms"].as_u64().expect("a time");
    for (who, acknowledged) in acknowledged.iter().enumerate() {
        let before = acknowledged
            .iter()
            .rfind(|(at, _)| *at < until)
            .expect("some");
        assert!(
            found[&format!("orders:{who}")] >= before.1,
            "{who}: {} before {until}, {found:?}",
            before.1
        );
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a backup says of a moment of the wall clock what is in it"
)]
fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.expect("after 1970").as_millis() as u64
}

#[test]
fn interrupted_backups_and_restores_go_on_and_a_log_that_is_half_restored_is_not_opened() {
    let place = tempfile::tempdir().expect("a directory");
    let (kept, copy, new) = (
        place.path().join("log"),
        place.path().join("copy"),
        place.path().join("new"),
    );
    let server = start(&kept);
    let large = "x".repeat(100_000);
    for n in 0..400 {
        let body = json!({ "channel": "orders:1", "data": { "n": n, "fill": large } });
        server.api_result("publish", &body);
    }
    // Slow enough to be there when it is killed.
    let mut child = Command::new(env!("CARGO_BIN_EXE_ringmain"))
        .args([
            "log",
            "backup",
            text(&copy),
            "--rate",
            "1",
            "--address",
            &server.admin.to_string(),
            "--key",
            ADMIN_KEY,
        ])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the binary starts");
    let mut guard = guard(child.id());
    until("a part of the backup", || {
        copy.join("part.partial").exists().then_some(())
    });
    child.kill().expect("a killed child");
    child.wait().expect("its end");
    guard.kill().expect("a killed guard");
    guard.wait().expect("its end");
    let (status, printed) = log(&["restore", text(&copy), "--to", text(&new)]);
    assert_eq!(status, Some(2), "{printed}");
    assert!(printed.contains("no complete backup"), "{printed}");
    let (status, printed) = log_of(&server, &["backup", text(&copy), "--rate", "0"]);
    assert_eq!(status, Some(0), "{printed}");

    fs::create_dir(&new).expect("a directory");
    fs::write(new.join("restoring"), "something else\n").expect("a mark");
    let (status, printed) = log(&["restore", text(&copy), "--to", text(&new)]);
    assert_eq!(status, Some(1), "{printed}");
    assert!(printed.contains("another restore"), "{printed}");
    let (status, printed) = log(&["verify", text(&new)]);
    assert_ne!(status, Some(0), "{printed}");
    let own = tempfile::tempdir().expect("a directory");
    fs::write(own.path().join("ringmain.toml"), rules(&new)).expect("the file");
    let status = binary(own.path())
        .args(["serve", "--listen", "127.0.0.1:0"])
        .status();
    let printed = read_log(own.path());
    assert_eq!(
        status.expect("the binary starts").code(),
        Some(65),
        "{printed}"
    );
    assert!(printed.contains("a restore into"), "{printed}");
    fs::remove_dir_all(&new).expect("it is removed");
    log_ok(&["restore", text(&copy), "--to", text(&new)]);
    assert_eq!(inspect(&new)["entries"], 400);
}

#[test]
fn a_changed_byte_of_a_backup_is_found_wherever_it_is() {
    let place = tempfile::tempdir().expect("a directory");
    let (kept, copy) = (place.path().join("log"), place.path().join("copy"));
    let server = start(&kept);
    for n in 1..=20 {
        publish(&server, "orders:1", n);
    }
    backup(&server, &copy);
    let files: Vec<_> = fs::read_dir(&copy)
        .expect("the backup")
        .map(|entry| entry.expect("a file").path())
        .filter(|path| path.extension().is_some_and(|kind| kind == "copy"))
        .collect();
    assert_eq!(files.len(), 2);
    for file in files {
        let whole = fs::read(&file).expect("a file");
        for at in [0, whole.len() / 3, whole.len() - 1] {
            let mut changed = whole.clone();
            changed[at] ^= 1;
            fs::write(&file, &changed).expect("written");
            for arguments in [&["verify", text(&copy)][..], &["export", text(&copy)]] {
                let (status, printed) = log(arguments);
                assert_eq!(status, Some(1), "{arguments:?} {at}: {printed}");
                assert!(
                    printed.contains("damaged") || printed.contains("no copy"),
                    "{printed}"
                );
            }
        }
        fs::write(&file, &whole[..whole.len() - 1]).expect("written");
        let (status, printed) = log(&["verify", text(&copy)]);
        assert_eq!(status, Some(1), "{printed}");
        assert!(printed.contains("cut off"), "{printed}");
        fs::write(&file, &whole).expect("written");
    }
    log_ok(&["verify", text(&copy)]);
}

#[test]
fn exported_lines_are_imported_with_all_that_belongs_to_them_and_none_twice() {
    let place = tempfile::tempdir().expect("a directory");
    let (kept, new) = (place.path().join("log"), place.path().join("new"));
    let (lines, again) = (place.path().join("lines"), place.path().join("again"));
    let mut server = start(&kept);
    let tagged = json!({ "channel": "orders:1", "data": { "n": 1 }, "tags": { "kind": "new" }, "idempotency_key": "a" });
    server.api_result("publish", &tagged);
    let binary_data = json!({ "channel": "orders:2", "b64data": "AAEC/w==" });
    server.api_result("publish", &binary_data);
    for n in 3..=30 {
        publish(&server, "orders:1", n);
    }
    server.api_result("history_remove", &json!({ "channel": "orders:2" }));
    server.api_result("publish", &binary_data);
    let (status, printed) = log_of(&server, &["export", "--output", text(&lines)]);
    assert_eq!(status, Some(0), "{printed}");
    server.signal("TERM");
    server.exit_status();
    let exported = fs::read_to_string(&lines).expect("lines");
    assert_eq!(
        exported.lines().count(),
        30,
        "what was removed by order stays out"
    );
    assert!(
        exported.contains(r#""tags":[["kind","new"]]"#) && exported.contains("AAEC/w=="),
        "{exported}"
    );
    log_ok(&["import", text(&lines), "--to", text(&new)]);
    let printed = log_ok(&["import", text(&lines), "--to", text(&new), "--resume"]);
    assert!(
        printed.contains("0 lines appended, 30 were there already"),
        "{printed}"
    );
    log_ok(&["export", text(&new), "--output", text(&again)]);
    let without_place = |text: &str| -> Vec<Value> {
        text.lines()
            .map(|line| {
                let mut line: Value = serde_json::from_str(line).expect("JSON");
                for member in ["cursor", "offset", "epoch"] {
                    line.as_object_mut().expect("an object").remove(member);
                }
                line
            })
            .collect()
    };
    let reexported = fs::read_to_string(&again).expect("lines");
    assert_eq!(without_place(&reexported), without_place(&exported));
    // A file that was cut off goes on.
    fs::write(&again, &reexported[..reexported.len() / 2]).expect("written");
    log_ok(&["export", text(&new), "--output", text(&again), "--resume"]);
    assert_eq!(fs::read_to_string(&again).expect("lines"), reexported);
    // One event may stand in two channels, and a key may be used twice: none of them is another one's repeat.
    let event = r#""event_id":"019abf2e-7c1d-7a40-9f6e-1f0c2d3e4a5b""#;
    for (line, count) in [
        (format!(r#"{{"channel":"a","data":1,{event}}}"#), 1),
        (format!(r#"{{"channel":"b","data":1,{event}}}"#), 1),
        (format!(r#"{{"channel":"b","data":1,{event}}}"#), 0),
        (
            format!(r#"{{"channel":"b","data":1,"key":"replay",{event}}}"#),
            1,
        ),
        (r#"{"channel":"$a","data":1}"#.to_owned(), 1),
    ] {
        fs::write(&lines, &line).expect("written");
        let printed = log_ok(&["import", text(&lines), "--to", text(&new)]);
        assert!(
            printed.contains(&format!("{count} lines appended")),
            "{line}: {printed}"
        );
    }
    let printed = log_ok(&["export", text(&new)]);
    assert!(
        printed.contains(r#""channel":"$a""#),
        "a private channel is its users': {printed}"
    );
    for (line, says) in [
        (
            r#"{"channel":"orders:1"}"#,
            "exactly one of data and b64data",
        ),
        (r#"{"channel":"","data":1}"#, "channel: empty"),
        (r#"{"channel":"a","data":1,"event_id":"7"}"#, "event_id"),
        (r#"{"channel":"a","data":1,"colour":1}"#, "colour"),
        ("nothing", "line 1"),
    ] {
        fs::write(&lines, line).expect("written");
        let (status, printed) = log(&["import", text(&lines), "--to", text(&new)]);
        assert_eq!(status, Some(2), "{printed}");
        assert!(printed.contains(says), "{line}: {printed}");
    }
}

#[test]
fn a_log_that_is_moved_keeps_entries_keys_work_and_dead_letters() {
    let place = tempfile::tempdir().expect("a directory");
    let (kept, new) = (place.path().join("log"), place.path().join("new"));
    let (from, to) = (place.path().join("from.toml"), place.path().join("to.toml"));
    fs::write(&from, rules(&kept)).expect("written");
    fs::write(&to, rules(&new)).expect("written");
    let mut server = start(&kept);
    for n in 1..=20 {
        publish(&server, "orders:1", n);
    }
    let fetch = json!({ "group": "billing", "channels": ["orders:*"], "from": "beginning", "limit": 3, "max_attempts": 1, "wait_ms": 5000 });
    let first = server.api_result("queue/fetch", &fetch);
    let given = |n: usize| first["deliveries"][n]["delivery"].clone();
    server.api_result("queue/ack", &json!({ "delivery": given(0) }));
    let nak = json!({ "delivery": given(1) });
    assert_eq!(server.api_result("queue/nak", &nak)["naked"], 1, "{first}");
    until("the dead letter", || {
        let dead = server.api_result("dlq/list", &json!({ "group": "billing" }));
        dead["letters"]
            .as_array()
            .filter(|letters| letters.len() == 1)
            .map(|_| ())
    });
    let moving = ["--config", text(&from), "log", "move", "--to", text(&to)];
    let run = |more: &[&str]| {
        let own = tempfile::tempdir().expect("a directory");
        let status = binary(own.path()).args(moving).args(more).status();
        (
            status.expect("the binary starts").code(),
            read_log(own.path()),
        )
    };
    let address = server.admin.to_string();
    let (status, printed) = run(&["--address", &address, "--key", ADMIN_KEY]);
    assert_eq!(status, Some(0), "{printed}");
    assert!(printed.contains("21 entries copied"), "{printed}");
    for n in 21..=25 {
        publish(&server, "orders:1", n);
    }
    // The same event once more, in another channel, and after what was copied.
    let replay = json!({ "channels": ["orders:1"], "from": "beginning", "to": "now", "limit": 1, "into": { "channel": "orders:again" } });
    server.api_result("replay", &replay);
    let (status, printed) = run(&["--finish"]);
    assert_eq!(status, Some(1), "the proxy still has it: {printed}");
    server.signal("TERM");
    server.exit_status();
    for count in [6, 0] {
        let (status, printed) = run(&["--finish"]);
        assert_eq!(status, Some(0), "{printed}");
        assert!(
            printed.contains(&format!("{count} entries copied")),
            "{printed}"
        );
        assert!(
            printed.contains("1 queue groups with 24 entries"),
            "{printed}"
        );
    }
    let server = start(&new);
    let (numbers, _) = history(&server, "orders:1");
    assert_eq!(numbers, (1..=25).collect::<Vec<_>>());
    assert_eq!(history(&server, "orders:again").0, [1]);
    assert_eq!(
        publish(&server, "orders:1", 7)["offset"],
        7,
        "keys are remembered"
    );
    let dead = server.api_result("dlq/list", &json!({ "group": "billing" }));
    assert_eq!(dead["letters"].as_array().map(Vec::len), Some(1));
    let again = json!({ "group": "billing", "limit": 100, "wait_ms": 5000 });
    let mut rest: Vec<u64> = Vec::new();
    while rest.len() < 24 {
        let fetched = server.api_result("queue/fetch", &again);
        for one in fetched["deliveries"].as_array().expect("deliveries") {
            assert_eq!(one["channel"], "orders:1", "as it stood first");
            rest.push(one["data"]["n"].as_u64().expect("its number"));
            server.api_result("queue/ack", &json!({ "delivery": one["delivery"] }));
        }
    }
    rest.sort_unstable();
    let expected: Vec<u64> = std::iter::once(1).chain(3..=25).collect();
    assert_eq!(rest, expected);
}

#[test]
fn a_key_that_its_publisher_has_used_twice_is_two_publications_in_the_log_that_is_moved_to() {
    let place = tempfile::tempdir().expect("a directory");
    let (kept, new) = (place.path().join("log"), place.path().join("new"));
    let (from, to) = (place.path().join("from.toml"), place.path().join("to.toml"));
    let short = rules(&kept).replace("idempotency_ttl = \"10m\"", "idempotency_ttl = \"1s\"");
    fs::write(&from, &short).expect("written");
    fs::write(&to, rules(&new)).expect("written");
    let mut server = Start::with_config(&short).shards(2).run();
    let body =
        |n: u64| json!({ "channel": "orders:1", "data": { "n": n }, "idempotency_key": "same" });
    let first = server.api_result("publish", &body(1));
    assert_eq!(first["offset"], 1);
    // Once the time of the key is over it means another publication.
    until("the end of the key", || {
        let answer = server.api_result("publish", &body(2));
        (answer["offset"] == 2).then_some(())
    });
    server.signal("TERM");
    server.exit_status();
    let own = tempfile::tempdir().expect("a directory");
    let moving = ["--config", text(&from), "log", "move", "--to", text(&to)];
    let status = binary(own.path()).args(moving).arg("--finish").status();
    let printed = read_log(own.path());
    assert!(status.expect("the binary starts").success(), "{printed}");
    assert!(printed.contains("2 entries copied"), "{printed}");
    // Here the key counts for ten minutes: the copy of the second publication meets that of the first.
    let server = start(&new);
    assert_eq!(history(&server, "orders:1").0, [1, 2]);
    let again = server.api_result("publish", &body(3));
    assert_eq!(again["offset"], 1, "the key is remembered");
}

#[test]
fn the_copy_of_a_log_needs_the_admin_key_and_a_log() {
    let place = tempfile::tempdir().expect("a directory");
    let server = start(&place.path().join("log"));
    let ask = |headers: &[(&str, &str)], body: &str| {
        let mut all = vec![("Content-Type", "application/json")];
        all.extend(headers);
        Http::open(server.admin).post("/api/log/copy", &all, body.as_bytes())
    };
    assert_eq!(ask(&[], "{}").status, 401);
    assert_eq!(ask(&[("X-API-Key", API_KEY)], "{}").status, 401);
    let key = [("X-API-Key", ADMIN_KEY)];
    assert_eq!(ask(&key, r#"{"after":"x"}"#).json()["error"]["code"], 107);
    assert_eq!(ask(&key, r#"{"colour":1}"#).json()["error"]["code"], 107);
    let without = Server::start(&config(&format!("[admin]\nkey = \"{ADMIN_KEY}\"\n")));
    let (status, printed) = log_of(&without, &["verify"]);
    assert_eq!(status, Some(1), "{printed}");
    assert!(printed.contains("not available"), "{printed}");
}

#[test]
fn a_log_of_an_earlier_version_is_read_and_gone_on_with() {
    // Written by the program as it was before backups: 50 publications, 9 done, 1 dead.
    let place = tempfile::tempdir().expect("a directory");
    let kept = place.path().join("log");
    fs::create_dir(&kept).expect("a directory");
    let archive = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/vectors/log-format-1.tar.gz"
    );
    let status = Command::new("tar")
        .arg("-C")
        .arg(&kept)
        .args(["-xzf", archive])
        .status();
    assert!(status.expect("tar").success());
    let found = inspect(&kept);
    assert_eq!(
        (&found["entries"], &found["problems"]),
        (&json!(50), &json!(0))
    );
    assert_eq!(found["dead_letters"], json!({ "billing": 1 }));
    // The archive is older than any retention.
    let text = rules(&kept).replace(
        "[durable.embedded]",
        "[queue]\ndead_letter_retention = \"0s\"\n[durable]\nretention_age = \"87600h\"\n[durable.embedded]",
    );
    let server = Start::with_config(&text).shards(2).run();
    let (numbers, _) = history(&server, "orders:1");
    assert_eq!(numbers, (1..=50).collect::<Vec<_>>());
    assert_eq!(publish(&server, "orders:1", 51)["offset"], 51);
    let fetch = json!({ "group": "billing", "limit": 100, "wait_ms": 5000 });
    let mut given = Vec::new();
    while given.len() < 41 {
        let fetched = server.api_result("queue/fetch", &fetch);
        let deliveries = fetched["deliveries"].as_array().expect("deliveries");
        given.extend(
            deliveries
                .iter()
                .map(|one| one["data"]["n"].as_u64().expect("a number")),
        );
    }
    given.sort_unstable();
    assert_eq!(given, (11..=51).collect::<Vec<_>>());
}

/// Numbers of what a channel keeps, and their offsets.
fn places(server: &Server, channel: &str) -> Vec<(u64, u64)> {
    let all = server.api_result("history", &json!({ "channel": channel, "limit": 1000 }));
    let list = all["publications"].as_array().expect("publications");
    let number = |value: &Value| value.as_u64().expect("a number");
    list.iter()
        .map(|one| (number(&one["offset"]), number(&one["data"]["n"])))
        .collect()
}

#[test]
fn what_ended_before_its_turn_makes_no_subscriber_lose_his_place_and_stays_out_of_backups() {
    let place = tempfile::tempdir().expect("a directory");
    let (kept, copy, new) = (
        place.path().join("log"),
        place.path().join("copy"),
        place.path().join("new"),
    );
    let mut server = start(&kept);
    for n in 1..=100 {
        let id = format!("{}", n % 3);
        let state = json!({ "channel": "states:1", "data": { "n": n }, "tags": { "id": id } });
        server.api_result("publish", &state);
    }
    let brief = json!({ "channel": "states:1", "data": { "n": 101 }, "ttl_ms": 100 });
    let last = server.api_result("publish", &brief);
    let expected: Vec<(u64, u64)> = (98..=100).map(|n| (n, n)).collect();
    until("the latest", || {
        (places(&server, "states:1") == expected).then_some(())
    });
    let recovers = |server: &Server, epoch: &Value| {
        for (offset, missed) in [(0, 3), (50, 3), (98, 2), (100, 0), (101, 0)] {
            let mut client = Client::user(server, "42");
            let subscribe =
                json!({ "channel": "states:1", "recover": true, "epoch": epoch, "offset": offset });
            let result = client.ok("subscribe", &subscribe);
            assert_eq!(result["recovered"], true, "{offset}: {result}");
            let publications = result["publications"].as_array().map_or(0, Vec::len);
            assert_eq!(publications, missed, "{offset}: {result}");
        }
    };
    recovers(&server, &last["epoch"]);
    backup(&server, &copy);
    server.signal("KILL");
    server.exit_status();
    log_ok(&["verify", text(&copy)]);
    log_ok(&["restore", text(&copy), "--to", text(&new)]);
    log_ok(&["verify", text(&new)]);
    assert_eq!(log_ok(&["export", text(&new)]).lines().count(), 3);
    for directory in [&kept, &new] {
        let mut server = start(directory);
        assert_eq!(places(&server, "states:1"), expected);
        let next = json!({ "channel": "states:1", "data": { "n": 102 }, "tags": { "id": "0" } });
        let next = server.api_result("publish", &next);
        assert_eq!(next["offset"], 102);
        until("the latest", || {
            (places(&server, "states:1").len() == 3).then_some(())
        });
        server.signal("KILL");
        server.exit_status();
    }
}
