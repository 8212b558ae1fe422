//! `ringmain publish`, `subscribe`, `tail` and `import`: publications go in and out of a running proxy as lines of JSON.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::client::Client;
use crate::support::process::{API_KEY, Server, Start, binary, config, free_port, guard, read_log};
use crate::support::token::{after, sign};

const RULES: &str = r#"
[client]
allow_anonymous_connect_without_token = true

[[channel.namespaces]]
name = "orders"
delivery = "durable"
allow_subscribe_for_anonymous = true
allow_subscribe_for_client = true
allow_publish_for_client = true

[[channel.namespaces]]
name = "sandbox"
delivery = "durable"
"#;

/// How a command reaches the server, and what it is asked.
struct Tool {
    directory: TempDir,
    command: Command,
}

impl Tool {
    fn new(arguments: &[&str]) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let mut command = binary(directory.path());
        command.args(arguments);
        Self { directory, command }
    }

    /// One that asks the server API.
    fn of_api(server: &Server, arguments: &[&str]) -> Self {
        let mut tool = Self::new(arguments);
        let address = server.listen.to_string();
        tool.command
            .args(["--address", &address, "--api-key", API_KEY]);
        tool
    }

    /// One that asks the client listener.
    fn of_client(address: SocketAddr, arguments: &[&str]) -> Self {
        let mut tool = Self::new(arguments);
        tool.command.args(["--address", &address.to_string()]);
        tool
    }

    /// Its status, and everything printed.
    fn run(mut self, input: &str) -> (Option<i32>, String) {
        self.command.stdin(Stdio::piped());
        let mut child = self.command.spawn().expect("the binary starts");
        let mut stdin = child.stdin.take().expect("piped");
        // One that does not read has ended.
        let _ = stdin.write_all(input.as_bytes());
        drop(stdin);
        let status = child.wait().expect("it ends");
        (status.code(), read_log(self.directory.path()))
    }

    fn ok(self, input: &str) -> Vec<Value> {
        let (status, printed) = self.run(input);
        assert_eq!(status, Some(0), "{printed}");
        lines(&printed)
    }

    /// Runs beside the test, which reads what it prints.
    fn follow(mut self) -> Followed {
        self.command.stdout(Stdio::piped());
        let mut child = self.command.spawn().expect("the binary starts");
        let guard = guard(child.id());
        let out = BufReader::new(child.stdout.take().expect("piped"));
        Followed {
            out,
            child,
            guard,
            directory: self.directory,
        }
    }
}

struct Followed {
    out: BufReader<ChildStdout>,
    child: Child,
    guard: Child,
    directory: TempDir,
}

impl Followed {
    fn line(&mut self) -> Value {
        let mut line = String::new();
        self.out.read_line(&mut line).expect("a line");
        serde_json::from_str(&line)
            .unwrap_or_else(|_| panic!("{line:?}: {}", read_log(self.directory.path())))
    }

    fn status(mut self) -> Option<i32> {
        self.child.wait().expect("it ends").code()
    }
}

impl Drop for Followed {
    fn drop(&mut self) {
        for child in [&mut self.guard, &mut self.child] {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn lines(text: &str) -> Vec<Value> {
    text.lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect()
}

fn path(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

fn numbers(server: &Server, channel: &str) -> Vec<Value> {
    let all = server.api_result("history", &json!({ "channel": channel, "limit": 1000 }));
    let list = all["publications"].as_array().expect("publications");
    list.iter().map(|one| one["data"].clone()).collect()
}

#[test]
fn published_arguments_and_lines_are_answered_in_order_with_their_event_ids() {
    let server = Server::start(&config(RULES));
    let keyed = [
        "publish",
        "orders:1",
        "{\"n\":1.10}",
        "--key",
        "a",
        "--tag",
        "shop=north",
    ];
    let first = Tool::of_api(&server, &keyed).ok("");
    assert_eq!(first[0]["offset"], 1);
    assert_eq!(first[0]["event_id"].as_str().map(str::len), Some(36));
    let again = Tool::of_api(&server, &keyed).ok("");
    assert_eq!(first, again, "a repeated key has the first answer");

    let input: String = (0..600)
        .map(|n| format!("{{\"data\":{n},\"key\":\"k{n}\"}}\n"))
        .collect();
    let answers = Tool::of_api(&server, &["publish", "orders:2"]).ok(&input);
    let offsets: Vec<u64> = answers
        .iter()
        .map(|one| one["offset"].as_u64().expect("an offset"))
        .collect();
    assert_eq!(offsets, (1..=600).collect::<Vec<_>>());
    assert_eq!(
        numbers(&server, "orders:2"),
        (0..600).map(|n| json!(n)).collect::<Vec<_>>()
    );

    let token = sign(&json!({ "sub": "u", "exp": after(600) }));
    let mut client = Client::with_token(&server, &token);
    let rpc = json!({ "method": "ringmain.publish", "data": { "channel": "orders:3", "data": 1, "key": "r" } });
    let (one, two) = (client.ok("rpc", &rpc), client.ok("rpc", &rpc));
    assert_eq!(
        one["data"]["event_id"].as_str().map(str::len),
        Some(36),
        "{one}"
    );
    assert_eq!(one["data"]["event_id"], two["data"]["event_id"]);
}

#[test]
fn what_cannot_be_published_is_named_with_its_line_and_the_status_says_so() {
    let server = Server::start(&config(RULES));
    let publish = |arguments: &[&str], input: &str| {
        let mut all = vec!["publish"];
        all.extend(arguments);
        Tool::of_api(&server, &all).run(input)
    };
    for (arguments, input, status, words) in [
        (&["orders:1", "not json"][..], "", 2, "one JSON value"),
        (
            &["orders:1"],
            "{\"data\":1}\n{\"dat\":2}\n{\"data\":3}\n",
            2,
            "line 2",
        ),
        (&["orders:1", "--key", "k"], "", 2, "--key"),
        (&["nowhere:1", "1"], "", 1, "unknown channel"),
        (&["orders:1"], "", 1, "no lines"),
        (&["orders:1", "1", "--schema", "3"], "", 1, "schema"),
    ] {
        let (got, printed) = publish(arguments, input);
        assert_eq!(got, Some(status), "{arguments:?}: {printed}");
        assert!(printed.contains(words), "{arguments:?}: {printed}");
    }
    assert_eq!(
        numbers(&server, "orders:1"),
        [json!(1)],
        "what stands before a bad line"
    );
    let nobody = free_port().to_string();
    let (status, printed) =
        Tool::new(&["publish", "a", "1", "--address", &nobody, "--api-key", "k"]).run("");
    assert_eq!(status, Some(1), "{printed}");
    assert!(printed.contains("cannot reach"), "{printed}");
}

#[test]
fn subscriber_prints_what_comes_and_recovers_what_it_missed_while_the_server_was_killed() {
    let place = tempfile::tempdir().expect("a directory");
    let listen = free_port();
    let rules = config(&format!(
        "{RULES}\n[durable.embedded]\ndirectory = \"{}\"\n",
        path(&place.path().join("log"))
    ));
    let start = || Start::with_config(&rules).listen(&listen.to_string()).run();
    let mut server = start();
    server.api_result("publish", &json!({ "channel": "orders:1", "data": 0 }));
    let tool = Tool::of_client(
        listen,
        &["subscribe", "orders:1", "orders:2", "--count", "6"],
    );
    let mut subscriber = tool.follow();
    crate::support::wait::until("the subscriber, which says so", || {
        let said = read_log(subscriber.directory.path());
        let is_there = |channel: &str| said.contains(&format!("subscribed to {channel}"));
        (is_there("orders:1") && is_there("orders:2")).then_some(())
    });
    let large = "12345678901234567890123";
    let (_, printed) = Tool::of_api(&server, &["publish", "orders:1", large]).run("");
    assert!(printed.contains("offset"), "{printed}");
    let mut line = String::new();
    subscriber.out.read_line(&mut line).expect("a line");
    assert!(
        line.contains(large) && line.contains("\"channel\":\"orders:1\""),
        "{line}"
    );
    server.api_result("publish", &json!({ "channel": "orders:1", "data": 2 }));
    assert_eq!(subscriber.line()["data"], 2);
    server.signal("KILL");
    server.exit_status();
    let server = start();
    for n in 3..=6 {
        server.api_result("publish", &json!({ "channel": "orders:1", "data": n }));
    }
    for n in 3..=6 {
        let line = subscriber.line();
        assert_eq!((&line["data"], &line["offset"]), (&json!(n), &json!(n + 1)));
    }
    assert_eq!(subscriber.status(), Some(0), "--count is reached");

    let (status, printed) = Tool::of_client(listen, &["subscribe", "nowhere:1"]).run("");
    assert_eq!(status, Some(1));
    assert!(
        printed.contains("nowhere:1") && printed.contains("unknown channel"),
        "{printed}"
    );
    let (status, printed) =
        Tool::of_client(listen, &["subscribe", "orders:1", "--token", "x"]).run("");
    assert_eq!(status, Some(1), "{printed}");
    let (status, printed) = Tool::of_client(free_port(), &["subscribe", "orders:1"]).run("");
    assert_eq!(status, Some(1));
    assert!(printed.contains("cannot reach"), "{printed}");
}

#[test]
fn tail_follows_channels_groups_and_letters_and_filters_them() {
    let server = Server::start(&config(RULES));
    let publish =
        |data: Value| server.api_result("publish", &json!({ "channel": "orders:1", "data": data }));
    publish(json!({ "total": 5 }));
    publish(json!({ "total": 50 }));
    let tail = |arguments: &[&str]| {
        let mut all = vec!["tail"];
        all.extend(arguments);
        Tool::of_api(&server, &all)
    };
    assert_eq!(tail(&["orders:*"]).ok("").len(), 2);
    let mut large = tail(&["orders:*", "--where", "total > 10", "--follow"]).follow();
    assert_eq!(large.line()["data"]["total"], 50);
    publish(json!({ "total": 7 }));
    publish(json!({ "total": 70 }));
    assert_eq!(large.line()["data"]["total"], 70);

    let fetch = json!({ "group": "billing", "channels": ["orders:*"], "from": "beginning", "max_attempts": 1, "limit": 1, "wait_ms": 5000 });
    let given = server.api_result("queue/fetch", &fetch);
    let mut work = tail(&["--group", "billing", "--follow"]).follow();
    let totals: Vec<Value> = (0..4)
        .map(|_| work.line()["data"]["total"].clone())
        .collect();
    assert_eq!(totals, [5, 50, 7, 70]);
    publish(json!({ "total": 8 }));
    assert_eq!(work.line()["data"]["total"], 8, "nothing is told twice");

    let (status, printed) = tail(&["--letters"]).run("");
    assert_eq!(
        (status, printed.contains("there is none")),
        (Some(1), true),
        "{printed}"
    );
    let mut letters = tail(&["--letters", "--group", "billing", "--follow"]).follow();
    let nak = json!({ "delivery": given["deliveries"][0]["delivery"], "reason": "no price" });
    server.api_result("queue/nak", &nak);
    let letter = letters.line();
    assert_eq!(
        (&letter["group"], &letter["reason"]),
        (&json!("billing"), &json!("no price"))
    );

    for (arguments, status, words) in [
        (
            &["orders:*", "--where", "total = 6"][..],
            1,
            "nothing is kept",
        ),
        (&["orders:*", "--where", "total >"], 2, "--where"),
        (&["nowhere:*"], 1, "nowhere:*"),
        (&["--group", "nope"], 1, "no group `nope`"),
        (&[], 2, "PATTERN"),
    ] {
        let (got, printed) = tail(arguments).run("");
        assert_eq!(got, Some(status), "{arguments:?}: {printed}");
        assert!(printed.contains(words), "{arguments:?}: {printed}");
    }
}

#[test]
fn what_a_replay_has_written_is_imported_once_where_it_was_and_into_a_sandbox() {
    let mut server = Server::start(&config(RULES));
    for n in 0..20 {
        let channel = format!("orders:{}", n % 2);
        let one = json!({ "channel": channel, "data": { "n": n }, "idempotency_key": format!("k{n}"), "tags": { "n": n.to_string() } });
        server.api_result("publish", &one);
    }
    let place = tempfile::tempdir().expect("a directory");
    let file = place.path().join("events.ndjson");
    let (status, printed) = Tool::of_api(
        &server,
        &["replay", "--channel", "orders:*", "--output", path(&file)],
    )
    .run("");
    assert_eq!(status, Some(0), "{printed}");
    let (status, printed) = Tool::of_api(&server, &["replay", "--channel", "sandbox:*"]).run("");
    assert_eq!(status, Some(1), "a replay of nothing: {printed}");
    assert!(printed.contains("nothing is kept there"), "{printed}");

    let import = |server: &Server, more: &[&str]| {
        let mut all = vec!["import", path(&file)];
        all.extend(more);
        let (status, printed) = Tool::of_api(server, &all).run("");
        assert_eq!(status, Some(0), "{printed}");
        assert!(printed.contains("20 lines published"), "{printed}");
    };
    let all = |channel: &str, server: &Server| numbers(server, channel).len();
    import(&server, &[]);
    assert_eq!(
        (all("orders:0", &server), all("orders:1", &server)),
        (10, 10),
        "their keys are known"
    );
    for _ in 0..2 {
        import(&server, &["--channel", "sandbox:1"]);
    }
    let in_order: Vec<Value> = (0..20).map(|n| json!({ "n": n })).collect();
    assert_eq!(
        numbers(&server, "sandbox:1"),
        in_order,
        "once, and in order"
    );
    server.signal("TERM");
    server.exit_status();

    let server = Server::start(&config(RULES));
    import(&server, &[]);
    let kept = server.api_result("history", &json!({ "channel": "orders:1", "limit": 1 }));
    assert_eq!(kept["publications"][0]["tags"], json!({ "n": "1" }));
    assert_eq!(
        (all("orders:0", &server), all("orders:1", &server)),
        (10, 10)
    );

    // A sandbox's group gets all of it, and no group of other channels does.
    import(&server, &["--channel", "sandbox:2", "--group", "try"]);
    import(&server, &["--channel", "sandbox:2", "--group", "try"]);
    let wish = json!({ "group": "try", "limit": 1000, "wait_ms": 5000 });
    let mut given = Vec::new();
    while given.len() < in_order.len() {
        let fetched = server.api_result("queue/fetch", &wish)["deliveries"].take();
        let fetched = fetched.as_array().expect("deliveries");
        assert!(!fetched.is_empty(), "{given:?}");
        given.extend(fetched.iter().map(|one| one["data"].clone()));
    }
    assert_eq!(given, in_order);
    for (more, status, says) in [
        (
            &["--channel", "orders:9", "--group", "try"][..],
            1,
            "takes nothing from `orders:9`",
        ),
        (&["--group", "try"][..], 2, "--channel"),
        (
            &["--channel", "sandbox:2", "--group", "no such"][..],
            1,
            "`group` is 1 to 128",
        ),
        (
            &["--channel", "chat:2", "--group", "other"][..],
            1,
            "durable namespace",
        ),
    ] {
        let mut all = vec!["import", path(&file)];
        all.extend(more);
        let (ended, printed) = Tool::of_api(&server, &all).run("");
        assert_eq!(ended, Some(status), "{printed}");
        assert!(printed.contains(says), "{printed}");
    }

    std::fs::write(&file, "{\"channel\":\"orders:1\",\"data\":1}\nnonsense\n").expect("written");
    let (status, printed) = Tool::of_api(&server, &["import", path(&file)]).run("");
    assert_eq!(status, Some(2), "{printed}");
    assert!(printed.contains("line 2"), "{printed}");
    let (status, printed) = Tool::of_api(&server, &["import", "/nowhere/at/all"]).run("");
    assert_eq!(status, Some(1), "{printed}");
}
