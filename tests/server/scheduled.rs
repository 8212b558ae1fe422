//! Publications at a later time: nobody sees them before, all of them come once when it has come, whatever is killed.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::client::Client;
use crate::support::process::{Server, Start, binary, config, read_log};
use crate::support::wait::{now, unix_ms, until, until_within};

const ADMIN_KEY: &str = "admin-key-of-the-tests";
/// Where many wait.
const ALL: u64 = 20_000;

fn rules(directory: &Path, durable: &str) -> String {
    config(&format!(
        r#"
[admin]
key = "{ADMIN_KEY}"

[durable]
{durable}

[durable.embedded]
directory = "{}"

[[channel.namespaces]]
name = "orders"
delivery = "durable"
allow_subscribe_for_client = true
allow_publish_for_client = true
allow_history_for_client = true

[[channel.namespaces]]
name = "chat"
"#,
        directory.display()
    ))
}

fn start(directory: &Path) -> Server {
    Start::with_config(&rules(directory, "")).shards(2).run()
}

/// `ringmain …` of a running proxy: its status and everything printed.
fn command(server: &Server, arguments: &[&str]) -> (Option<i32>, String) {
    let own = tempfile::tempdir().expect("a directory");
    let address = server.admin.to_string();
    let mut command = binary(own.path());
    command.args(arguments);
    command.args(["--address", &address, "--key", ADMIN_KEY]);
    let status = command.status().expect("the binary starts");
    (status.code(), read_log(own.path()))
}

fn later(server: &Server, channel: &str, n: u64, delay_ms: u64) -> Value {
    let publish = json!({ "channel": channel, "data": { "n": n }, "delay_ms": delay_ms });
    server.api_result("publish", &publish)
}

/// A server that has taken `ALL` publications before the first of them is due, on a machine however slow: where it has
/// not, another one is given more time. `command` says what the n-th is, from the time at which the first may be due.
fn with_all_waiting(directory: &Path, command: impl Fn(u64, u64) -> Value) -> (Server, PathBuf) {
    for (at, lead_ms) in [2000, 5000, 12_000, 30_000].into_iter().enumerate() {
        let log_at = directory.join(at.to_string());
        let server = start(&log_at);
        let start_at = due(&later(&server, "orders:0", 0, lead_ms));
        let commands: Vec<Value> = (1..=ALL)
            .map(|n| json!({ "publish": command(n, start_at) }))
            .collect();
        for part in commands.chunks(1000) {
            let replies = server.api("batch", &json!({ "commands": part }))["replies"].take();
            let replies = replies.as_array().expect("replies");
            let is_taken = |reply: &Value| reply["publish"]["event_id"].is_string();
            assert!(replies.iter().all(is_taken), "{}", replies[0]);
        }
        // Nothing has come by now.
        if unix_ms() < start_at {
            return (server, log_at);
        }
    }
    panic!("20,000 publications took half a minute");
}

fn due(answer: &Value) -> u64 {
    answer["deliver_at"].as_u64().expect("its time")
}

fn number(one: &Value) -> u64 {
    one["data"]["n"].as_u64().expect("its number")
}

fn listed(server: &Server, channel: &str) -> Vec<u64> {
    let all = server.api_result("scheduled/list", &json!({ "channel": channel }));
    let list = all["scheduled"].as_array().expect("a list");
    list.iter().map(number).collect()
}

fn history(server: &Server, channel: &str) -> Vec<u64> {
    let mut found = Vec::new();
    let mut since = Value::Null;
    loop {
        let asked = json!({ "channel": channel, "limit": 5000, "since": since });
        let page = server.api_result("history", &asked);
        let list = page["publications"].as_array().expect("publications");
        let Some(last) = list.last() else {
            return found;
        };
        since = json!({ "offset": last["offset"], "epoch": page["epoch"] });
        found.extend(list.iter().map(number));
    }
}

#[test]
fn what_is_delayed_comes_in_the_order_of_the_times_and_not_before() {
    let directory = tempfile::tempdir().expect("a directory");
    let server = start(directory.path());
    let mut client = Client::user(&server, "42");
    client.subscribe("orders:1");
    let began = now();
    let answer = later(&server, "orders:1", 3, 3000);
    assert!(answer.get("offset").is_none() && answer.get("epoch").is_none());
    assert!(answer["event_id"].is_string(), "{answer}");
    let at = due(&answer) - 500;
    for n in [1, 2] {
        let publish = json!({ "channel": "orders:1", "data": { "n": n }, "deliver_at": at });
        assert_eq!(due(&server.api_result("publish", &publish)), at);
    }
    assert_eq!(
        server.metric("ringmain_durable_scheduled_late_seconds_count"),
        0.0
    );
    let now_ones = json!({ "channel": "orders:1", "data": { "n": 0 }, "deliver_at": at - 3_600_000, "delay_ms": 0 });
    assert_eq!(server.api_result("publish", &now_ones)["offset"], 1);
    assert_eq!(number(&client.publication("orders:1")), 0);
    assert_eq!(history(&server, "orders:1"), [0]);
    for n in 1..=3 {
        let publication = client.publication("orders:1");
        assert_eq!(
            (number(&publication), &publication["offset"]),
            (n, &json!(n + 1))
        );
    }
    assert!(began.elapsed() >= Duration::from_secs(3));
    let all = server.api_result("replay", &json!({ "channels": ["orders:1"] }));
    let last = &all["events"][3];
    assert_eq!(last["event_id"], answer["event_id"]);
    assert!(last["published_at"].as_u64() >= Some(due(&answer)));
    until("the count", || {
        let late = server.metric("ringmain_durable_scheduled_late_seconds_count");
        (late == 3.0 && server.metric("ringmain_durable_scheduled") == 0.0).then_some(())
    });
}

#[test]
fn workers_and_batches_get_it_like_anything_else() {
    let directory = tempfile::tempdir().expect("a directory");
    let server = start(directory.path());
    let group = json!({ "group": "g", "channels": ["orders:*"], "from": "beginning" });
    let commands = json!({ "commands": [
        { "publish": { "channel": "orders:1", "data": { "n": 1 }, "delay_ms": 500 } },
        { "broadcast": { "channels": ["orders:2", "orders:3"], "data": { "n": 2 }, "delay_ms": 300 } },
        { "publish": { "channel": "orders:1", "data": { "n": 0 } } },
    ]});
    let replies = server.api("batch", &commands)["replies"].take();
    assert!(due(&replies[0]["publish"]) > due(&replies[1]["broadcast"]["responses"][1]["result"]));
    assert_eq!(replies[2]["publish"]["offset"], 1);
    let mut taken = Vec::new();
    while taken.len() < 4 {
        let mut fetch = group.clone();
        fetch["limit"] = json!(10);
        fetch["wait_ms"] = json!(5000);
        let fetched = server.api_result("queue/fetch", &fetch);
        let deliveries = fetched["deliveries"].as_array().expect("deliveries");
        taken.extend(deliveries.iter().map(number));
    }
    assert_eq!(taken, [0, 2, 2, 1]);
}

#[test]
fn a_delay_that_cannot_be_kept_is_refused_and_says_why() {
    let directory = tempfile::tempdir().expect("a directory");
    let rules = rules(directory.path(), "scheduled_max = 1");
    let server = Start::with_config(&rules).shards(2).run();
    let refused = |channel: &str, more: Value| {
        let mut publish = json!({ "channel": channel, "data": { "n": 1 } });
        for (name, value) in more.as_object().expect("members") {
            publish[name] = value.clone();
        }
        let error = server.api("publish", &publish)["error"].take();
        let message = error["message"].as_str().unwrap_or_default().to_owned();
        (error["code"].as_u64().unwrap_or(0), message)
    };
    for (channel, more, code, says) in [
        (
            "chat:1",
            json!({ "delay_ms": 5 }),
            107,
            "deliver_at: only publications of durable",
        ),
        (
            "orders:1",
            json!({ "delay_ms": 31_536_000_001_u64 }),
            107,
            "delay_ms: expected at most",
        ),
        (
            "orders:1",
            json!({ "deliver_at": 9_999_999_999_999_u64 }),
            107,
            "within 365 days",
        ),
        (
            "orders:1",
            json!({ "deliver_at": 1_796_064_913 }),
            107,
            "looks like seconds",
        ),
        (
            "orders:1",
            json!({ "deliver_at": 9_796_064_913_000_u64, "delay_ms": 1 }),
            107,
            "exclude each other",
        ),
    ] {
        let (found, message) = refused(channel, more.clone());
        assert!(
            found == code && message.contains(says),
            "{more}: {found} {message}"
        );
    }
    later(&server, "orders:1", 1, 3_600_000);
    let (code, message) = refused("orders:1", json!({ "delay_ms": 3_600_000 }));
    assert!(
        code == 106 && message.contains("durable.scheduled_max"),
        "{code} {message}"
    );
    let now_ones = json!({ "channel": "orders:1", "data": { "n": 1 } });
    assert_eq!(server.api_result("publish", &now_ones)["offset"], 1);
}

#[test]
fn a_key_counts_while_its_publication_waits_and_afterwards() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut server = start(directory.path());
    let publish = |server: &Server, delay_ms: u64| {
        let body = json!({ "channel": "orders:1", "data": { "n": 1 }, "idempotency_key": "k", "delay_ms": delay_ms });
        server.api_result("publish", &body)
    };
    let first = publish(&server, 3000);
    assert_eq!(publish(&server, 99_000), first);
    assert_eq!(publish(&server, 0), first, "one without a delay, too");
    server.signal("KILL");
    server.exit_status();
    let server = start(directory.path());
    let again = until("its time", || {
        let again = publish(&server, 5000);
        again["offset"].is_u64().then_some(again)
    });
    assert_eq!(again["event_id"], first["event_id"]);
    assert_eq!(
        (&again["offset"], again.get("deliver_at")),
        (&json!(1), None)
    );
    assert_eq!(history(&server, "orders:1"), [1]);
}

#[test]
fn what_waits_is_listed_cancelled_and_changed() {
    let directory = tempfile::tempdir().expect("a directory");
    let server = start(directory.path());
    let mut events = Vec::new();
    for n in 1..=5u64 {
        let publish = json!({
            "channel": "orders:1", "data": { "n": n }, "delay_ms": 3_600_000 - n * 1000,
            "idempotency_key": format!("k{n}"), "tags": { "shop": "north" },
        });
        events.push(server.api_result("publish", &publish)["event_id"].clone());
    }
    later(&server, "orders:2", 9, 1_000_000);
    assert_eq!(listed(&server, "orders:1"), [5, 4, 3, 2, 1]);
    assert_eq!(listed(&server, "orders:3"), [0; 0]);
    let mut pages = Vec::new();
    let mut asked = json!({ "limit": 2 });
    loop {
        let page = server.api_result("scheduled/list", &asked);
        let list = page["scheduled"].as_array().expect("a list");
        pages.push(list.iter().map(number).collect::<Vec<_>>());
        let Some(next) = page["next"].as_str() else {
            break;
        };
        asked["after"] = json!(next);
    }
    assert_eq!(pages.concat(), [9, 5, 4, 3, 2, 1], "{pages:?}");
    let first = server.api_result(
        "scheduled/list",
        &json!({ "channel": "orders:1", "limit": 1 }),
    );
    let first = &first["scheduled"][0];
    assert_eq!(
        (&first["key"], &first["tags"]["shop"]),
        (&json!("k5"), &json!("north"))
    );
    assert_eq!(first["event_id"], events[4]);

    let by_key = json!({ "channel": "orders:1", "key": "k5" });
    let told = server.api_result("scheduled/cancel", &by_key);
    assert_eq!(told["event_id"], events[4]);
    assert_eq!(server.api_error("scheduled/cancel", &by_key), 104);
    let elsewhere = json!({ "channel": "orders:2", "event_id": events[3] });
    assert_eq!(server.api_error("scheduled/cancel", &elsewhere), 104);
    server.api_result(
        "scheduled/cancel",
        &json!({ "channel": "orders:1", "event_id": events[3] }),
    );
    let change = json!({ "channel": "orders:1", "key": "k1", "delay_ms": 60_000 });
    let told = server.api_result("scheduled/change", &change);
    assert_eq!(told["event_id"], events[0]);
    assert_eq!(listed(&server, "orders:1"), [1, 3, 2]);
    for wrong in [
        json!({ "channel": "orders:1", "key": "k1" }),
        json!({ "channel": "orders:1", "delay_ms": 5 }),
        json!({ "channel": "orders:1", "key": "k1", "deliver_at": 5 }),
        json!({ "channel": "orders:1", "key": "k1", "delay": 5 }),
    ] {
        assert_eq!(server.api_error("scheduled/change", &wrong), 107, "{wrong}");
    }
    // The key of what was cancelled is free, and a time in the past is now.
    let again = json!({ "channel": "orders:1", "data": { "n": 6 }, "idempotency_key": "k5" });
    assert_eq!(server.api_result("publish", &again)["offset"], 1);
    let past = json!({ "channel": "orders:1", "event_id": events[1], "deliver_at": 1_700_000_000_000_u64 });
    server.api_result("scheduled/change", &past);
    until("what was changed to be published", || {
        (history(&server, "orders:1") == [6, 2]).then_some(())
    });
    assert_eq!(listed(&server, "orders:1"), [1, 3]);
}

#[test]
fn a_client_takes_back_what_its_user_has_said_and_nothing_else() {
    let directory = tempfile::tempdir().expect("a directory");
    let server = start(directory.path());
    let mut alice = Client::user(&server, "alice");
    let mut bob = Client::user(&server, "bob");
    let rpc = |client: &mut Client, method: &str, data: Value| {
        client.call("rpc", &json!({ "method": method, "data": data }))
    };
    let publish =
        json!({ "channel": "orders:1", "data": { "n": 1 }, "key": "k", "delay_ms": 3_600_000 });
    let told = rpc(&mut alice, "ringmain.publish", publish);
    let told = &told["rpc"]["data"];
    assert!(
        told["event_id"].is_string() && told["deliver_at"].is_u64(),
        "{told}"
    );
    assert!(told.get("offset").is_none());
    later(&server, "orders:1", 2, 3_500_000);
    let of_service = server.api_result("scheduled/list", &json!({ "channel": "orders:1" }));
    let of_service = &of_service["scheduled"][0]["event_id"];
    let by_key = json!({ "channel": "orders:1", "key": "k" });
    assert_eq!(
        rpc(&mut bob, "ringmain.cancel", by_key.clone())["error"]["code"],
        108,
        "the keys of another user are others"
    );
    let of_alice = json!({ "channel": "orders:1", "event_id": told["event_id"] });
    assert_eq!(
        rpc(&mut bob, "ringmain.cancel", of_alice)["error"]["code"],
        103
    );
    let by_event = json!({ "channel": "orders:1", "event_id": of_service });
    assert_eq!(
        rpc(&mut alice, "ringmain.cancel", by_event)["error"]["code"],
        103
    );
    let no_channel = json!({ "channel": "chat:1", "key": "k" });
    assert_eq!(
        rpc(&mut alice, "ringmain.cancel", no_channel)["error"]["code"],
        108
    );
    let cancelled = rpc(&mut alice, "ringmain.cancel", by_key.clone());
    assert_eq!(
        cancelled["rpc"]["data"]["event_id"], told["event_id"],
        "{cancelled}"
    );
    assert_eq!(
        rpc(&mut alice, "ringmain.cancel", by_key)["error"]["code"],
        108
    );
    assert_eq!(listed(&server, "orders:1"), [2]);
}

#[test]
fn twenty_thousand_that_wait_come_once_each_and_in_order_whatever_is_killed() {
    let directory = tempfile::tempdir().expect("a directory");
    // The last ones are due first, over two seconds.
    let (mut server, log_at) = with_all_waiting(directory.path(), |n, start_at| {
        let at = start_at + (ALL - n) / 10;
        json!({ "channel": "orders:1", "data": { "n": n }, "deliver_at": at })
    });
    // Killed while they wait, and three times while they come.
    for _ in 0..4 {
        server.signal("KILL");
        server.exit_status();
        server = start(&log_at);
        until_within(Duration::from_secs(60), "some to come", || {
            let page = server.api_result("history", &json!({ "channel": "orders:1" }));
            page["offset"].as_u64().filter(|&top| top > 0)
        });
    }
    until("all to come", || {
        let top = server.api_result("history", &json!({ "channel": "orders:1" }));
        (top["offset"] == ALL).then_some(())
    });
    let came = history(&server, "orders:1");
    let tens = |n: &u64| (ALL - n) / 10;
    assert!(came.is_sorted_by_key(tens), "in the order of the times");
    let mut sorted = came;
    sorted.sort_unstable();
    assert_eq!(sorted, (1..=ALL).collect::<Vec<_>>());
    until("nothing to wait", || {
        (server.metric("ringmain_durable_scheduled") == 0.0).then_some(())
    });
    let rest = server.api_result("scheduled/list", &json!({}));
    assert_eq!(rest["scheduled"], json!([]));
}

#[test]
fn many_that_are_due_at_one_instant_hold_nobody_up() {
    let directory = tempfile::tempdir().expect("a directory");
    let (server, _) = with_all_waiting(
        directory.path(),
        |n, at| json!({ "channel": format!("orders:{}", n % 50), "data": { "n": n }, "deliver_at": at }),
    );
    // Who publishes meanwhile waits for a part of them only, and so several stand among them in the log.
    let end = now() + Duration::from_secs(60);
    let mut is_waiting = true;
    while is_waiting {
        assert!(now() < end, "some never came");
        let publish = json!({ "channel": "orders:now", "data": { "n": 1 } });
        let answer = server.api("publish", &publish);
        // On a machine that has much else to do, the log may be too slow to answer in time.
        let is_answered = answer["result"]["offset"].is_u64();
        assert!(
            is_answered || answer["error"]["retry_after_ms"].is_u64(),
            "{answer}"
        );
        // Asked of the log itself: the metric is refreshed ten times a second, and may not know of them yet.
        let left = server.api_result("scheduled/list", &json!({ "limit": 1 }));
        is_waiting = left["scheduled"][0].is_object();
    }
    let export = directory.path().join("export.ndjson");
    let export = export.to_str().expect("UTF-8");
    let (status, printed) = command(&server, &["log", "export", "--output", export]);
    assert_eq!(status, Some(0), "{printed}");
    let lines = std::fs::read_to_string(export).expect("the export");
    let is_among: Vec<bool> = lines
        .lines()
        .filter(|line| line.contains("\"channel\":\"orders:"))
        .map(|line| line.contains("\"channel\":\"orders:now\""))
        .skip_while(|&is_now| is_now)
        .collect();
    let last = is_among.iter().rposition(|is_now| !is_now);
    let until_last = &is_among[..last.expect("some that waited")];
    let answered = until_last.iter().filter(|&&is_now| is_now).count();
    assert!(answered > 1, "{answered} of {}", until_last.len());
}

#[test]
fn backups_restores_and_exports_carry_what_waits() {
    let directory = tempfile::tempdir().expect("a directory");
    let log_at = directory.path().join("log");
    let server = start(&log_at);
    server.api_result(
        "publish",
        &json!({ "channel": "orders:1", "data": { "n": 1 } }),
    );
    for n in 2..=4 {
        later(&server, "orders:1", n, 3_600_000 + n);
    }
    let backup = directory.path().join("backup");
    let export = directory.path().join("export.ndjson");
    let text = |path: &Path| path.to_str().expect("UTF-8").to_owned();
    for arguments in [
        vec!["log".to_owned(), "backup".to_owned(), text(&backup)],
        vec![
            "log".to_owned(),
            "export".to_owned(),
            "--output".to_owned(),
            text(&export),
        ],
        vec![
            "log".to_owned(),
            "export".to_owned(),
            "--output".to_owned(),
            text(&export),
            "--resume".to_owned(),
        ],
    ] {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let (status, printed) = command(&server, &arguments);
        assert_eq!(status, Some(0), "{arguments:?} {printed}");
    }
    drop(server);
    let own = tempfile::tempdir().expect("a directory");
    let run = |arguments: &[&str]| {
        let status = binary(own.path()).args(arguments).status();
        assert_eq!(
            status.expect("starts").code(),
            Some(0),
            "{}",
            read_log(own.path())
        );
        read_log(own.path())
    };
    let printed = run(&["log", "verify", &text(&backup)]);
    assert!(printed.contains(" 3 scheduled,"), "{printed}");
    let restored = directory.path().join("restored");
    run(&["log", "restore", &text(&backup), "--to", &text(&restored)]);
    let server = start(&restored);
    assert_eq!(listed(&server, "orders:1"), [2, 3, 4]);
    drop(server);

    let lines = std::fs::read_to_string(&export).expect("the export");
    let scheduled = lines
        .lines()
        .filter(|line| line.contains("\"deliver_at\":"));
    assert_eq!(
        (lines.lines().count(), scheduled.count()),
        (4, 3),
        "{lines}"
    );
    let imported = directory.path().join("imported");
    let rules_at = directory.path().join("imported.toml");
    std::fs::write(&rules_at, rules(&imported, "")).expect("written");
    for _ in 0..2 {
        run(&[
            "--config",
            &text(&rules_at),
            "log",
            "import",
            &text(&export),
        ]);
    }
    let server = start(&imported);
    assert_eq!(listed(&server, "orders:1"), [2, 3, 4], "and none twice");
    assert_eq!(history(&server, "orders:1"), [1]);
}

#[test]
fn a_trigger_appends_later_and_once() {
    let directory = tempfile::tempdir().expect("a directory");
    let more = r#"
[[channel.namespaces]]
name = "jobs"
delivery = "durable"

[[channel.namespaces.triggers]]
name = "remind"
append = "orders:{rest}"
delay = "2s"
"#;
    let rules = rules(directory.path(), "") + more;
    let mut server = Start::with_config(&rules).shards(2).run();
    let publish = json!({ "channel": "jobs:1", "data": { "n": 5 } });
    server.api_result("publish", &publish);
    until("it to wait", || {
        (listed(&server, "orders:1") == [5]).then_some(())
    });
    assert_eq!(history(&server, "orders:1"), [0; 0]);
    server.signal("KILL");
    server.exit_status();
    let server = Start::with_config(&rules).shards(2).run();
    until("it to be published", || {
        (history(&server, "orders:1") == [5]).then_some(())
    });
    assert_eq!(listed(&server, "orders:1"), [0; 0]);
    let groups = server.api_result("queue/groups", &json!({}));
    assert_eq!(groups["groups"][0]["dead"], 0, "{groups}");
}

#[test]
fn the_command_line_lists_changes_and_cancels() {
    let directory = tempfile::tempdir().expect("a directory");
    let server = start(directory.path());
    let publish = json!({ "channel": "orders:1", "data": { "n": 1 }, "idempotency_key": "k", "delay_ms": 3_600_000 });
    let first = server.api_result("publish", &publish)["event_id"].clone();
    let first = first.as_str().expect("an id");
    let second = later(&server, "orders:1", 2, 3_600_000)["event_id"].clone();
    let second = second.as_str().expect("an id");
    let (status, printed) = command(&server, &["scheduled", "list", "--channel", "orders:1"]);
    assert!(
        status == Some(0) && printed.contains(first) && printed.contains("DUE"),
        "{printed}"
    );
    let change = [
        "scheduled",
        "change",
        "--channel",
        "orders:1",
        second,
        "--to",
        "+10m",
    ];
    let (status, printed) = command(&server, &change);
    assert!(status == Some(0) && printed.contains(second), "{printed}");
    assert_eq!(listed(&server, "orders:1"), [2, 1]);
    let cancel = [
        "scheduled",
        "cancel",
        "--channel",
        "orders:1",
        "--idempotency-key",
        "k",
    ];
    assert_eq!(command(&server, &cancel).0, Some(0));
    let (status, printed) = command(&server, &cancel);
    assert!(status == Some(1) && printed.contains("104"), "{printed}");
    assert_eq!(listed(&server, "orders:1"), [2]);
}
