//! What nobody uses costs nothing, and no client fills a table that others need.

use serde_json::{Value, json};

use crate::support::client::Client;
use crate::support::http::Http;
use crate::support::process::{Server, Start, config};
use crate::support::token::sign;
use crate::support::wait::until;

/// `chat:…` is the namespace of the README: history, presence, publications of its subscribers.
const RULES: &str = r#"
[poll]
enabled = true

[client]
allow_anonymous_connect_without_token = true

[[channel.namespaces]]
name = "chat"
presence = true
join_leave = true
history_size = 10
history_ttl = "10m"
force_recovery = true
allow_subscribe_for_client = true
allow_subscribe_for_anonymous = true
allow_publish_for_client = true
allow_publish_for_anonymous = true
allow_history_for_client = true
allow_history_for_anonymous = true
allow_presence_for_client = true
allow_presence_for_anonymous = true

[channel.without_namespace]
allow_publish_for_client = true
allow_publish_for_anonymous = true
"#;

/// Names that a client goes through.
const NAMES: usize = 20_000;
/// Commands in one frame.
const AT_ONCE: usize = 400;

fn server(tables: &str) -> Server {
    let rules = RULES.replacen(
        "[channel.without",
        &format!("[channel]\n{tables}\n\n[channel.without"),
        1,
    );
    Start::with_config(&config(&rules)).shards(2).run()
}

/// Sends commands, many a frame, and reads as many replies. The errors among them, by code.
fn go_through(client: &mut Client, commands: impl Iterator<Item = Value>) -> Vec<u64> {
    let mut errors = Vec::new();
    let mut commands = commands.peekable();
    let mut id = 1_000_000;
    while commands.peek().is_some() {
        let lines: Vec<String> = commands
            .by_ref()
            .take(AT_ONCE)
            .map(|mut command| {
                id += 1;
                command["id"] = json!(id);
                command.to_string()
            })
            .collect();
        client.send_text(&lines.join("\n"));
        let mut left = lines.len();
        while left > 0 {
            let reply = client.next();
            if reply.get("id").is_some() {
                left -= 1;
                errors.extend(reply["error"]["code"].as_u64());
            }
        }
    }
    errors
}

#[test]
fn client_that_goes_through_many_names_leaves_nothing_behind() {
    let server = server("");
    let mut client = Client::user(&server, "42");
    let names = |part: &'static str| (0..NAMES).map(move |n| format!("chat:{part}{n}"));
    let pairs = names("s").flat_map(|channel| {
        [
            json!({ "subscribe": { "channel": channel } }),
            json!({ "unsubscribe": { "channel": channel } }),
        ]
    });
    assert!(go_through(&mut client, pairs).is_empty());
    let questions = names("q").flat_map(|channel| {
        [
            json!({ "history": { "channel": channel, "limit": 1 } }),
            json!({ "presence": { "channel": channel } }),
            json!({ "presence_stats": { "channel": channel } }),
        ]
    });
    assert!(go_through(&mut client, questions.take(NAMES)).is_empty());
    let unkept =
        (0..NAMES / 4).map(|n| json!({ "publish": { "channel": format!("p{n}"), "data": {} } }));
    assert!(go_through(&mut client, unkept).is_empty());
    for n in 0..20 {
        let body = json!({ "channel": format!("chat:api{n}") });
        server.api_result("history", &body);
        server.api_result("presence", &body);
        let publish =
            json!({ "channel": format!("chat:api{n}"), "data": {}, "skip_history": true });
        server.api_result("publish", &publish);
        let path = format!("/connection/poll?channel=chat:poll{n}&timeout=0s");
        assert_eq!(Http::open(server.listen).get(&path, &[]).status, 200);
    }
    until("the tables to be empty", || {
        let left =
            server.metric("ringmain_channels_owned") + server.metric("ringmain_channels_local");
        (left == 0.0).then_some(())
    });
    assert_eq!(server.metric("ringmain_channels_evicted_total"), 0.0);
}

#[test]
fn durable_channels_that_the_log_has_nothing_of_are_forgotten_as_well() {
    let directory = tempfile::tempdir().expect("a directory");
    let rules = format!(
        r#"
[durable.embedded]
directory = "{}"

[[channel.namespaces]]
name = "orders"
delivery = "durable"
allow_subscribe_for_client = true
allow_history_for_client = true
"#,
        directory.path().display()
    );
    let server = Start::with_config(&config(&rules)).shards(2).run();
    let mut client = Client::user(&server, "42");
    let commands = (0..500).flat_map(|n| {
        [
            json!({ "subscribe": { "channel": format!("orders:s{n}") } }),
            json!({ "unsubscribe": { "channel": format!("orders:s{n}") } }),
            json!({ "history": { "channel": format!("orders:q{n}"), "limit": 1 } }),
        ]
    });
    assert!(go_through(&mut client, commands).is_empty());
    until("the table to be empty", || {
        (server.metric("ringmain_channels_owned") == 0.0).then_some(())
    });
}

#[test]
fn position_of_a_channel_that_nobody_published_to_is_recovered_from_later() {
    let server = server("");
    let mut client = Client::user(&server, "42");
    let first = client.subscribe("chat:new");
    let asked = server.api_result("history", &json!({ "channel": "chat:new" }));
    assert_eq!(first["epoch"], asked["epoch"]);
    client.ok("unsubscribe", &json!({ "channel": "chat:new" }));
    until("the channel to be forgotten", || {
        (server.metric("ringmain_channels_owned") == 0.0).then_some(())
    });
    server.api_result(
        "publish",
        &json!({ "channel": "chat:new", "data": { "n": 1 } }),
    );
    let request = json!({ "channel": "chat:new", "recover": true, "epoch": first["epoch"] });
    let back = client.ok("subscribe", &request);
    assert_eq!(back["recovered"], true, "{back}");
    assert_eq!(back["publications"][0]["data"]["n"], 1, "{back}");
}

#[test]
fn full_table_takes_newcomers_and_says_so_before() {
    let server = server(
        "owned_limit = 200\nnew_rate_limit = 0\nnew_rate_limit_per_user = 0\nnew_rate_limit_per_prefix = 0",
    );
    let mut listener = Client::user(&server, "43");
    listener.subscribe("chat:used");
    server.api_result("publish", &json!({ "channel": "chat:old", "data": {} }));
    let mut client = Client::user(&server, "42");
    let publish = |n| json!({ "publish": { "channel": format!("chat:{n}"), "data": {} } });
    assert!(go_through(&mut client, (0..2000).map(publish)).is_empty());
    assert!(server.metric("ringmain_channels_owned") <= 400.0);
    assert!(server.metric("ringmain_channels_evicted_total") >= 1600.0);
    assert_eq!(server.metric("ringmain_channels_owned_limit"), 400.0);
    let old = server.api_result("history", &json!({ "channel": "chat:old", "limit": 1 }));
    assert_eq!(
        old["publications"],
        json!([]),
        "it was not used for the longest time"
    );
    server.api_result(
        "publish",
        &json!({ "channel": "chat:used", "data": { "n": 7 } }),
    );
    assert_eq!(listener.publication("chat:used")["data"]["n"], 7);
    listener.subscribe("chat:newcomer");
    let ready = || Http::open(server.admin).get("/ready", &[]).json();
    until("the word in /ready", || {
        (ready()["filling"] == json!(["channels_owned"])).then_some(())
    });
    let lines = server.log();
    let warnings = lines
        .lines()
        .filter(|line| line.contains("a table is four fifths full"));
    assert_eq!(warnings.count(), 2, "one for each shard: {lines}");
}

#[test]
fn client_that_subscribes_before_it_publishes_keeps_no_more_than_others() {
    let server = server(
        "kept_limit_per_user = 100\nnew_rate_limit = 0\nnew_rate_limit_per_user = 0\nnew_rate_limit_per_prefix = 0",
    );
    let mut client = Client::user(&server, "42");
    let triples = (0..2000).flat_map(|n| {
        let channel = format!("chat:{n}");
        [
            json!({ "subscribe": { "channel": channel } }),
            json!({ "publish": { "channel": channel, "data": {} } }),
            json!({ "unsubscribe": { "channel": channel } }),
        ]
    });
    assert!(go_through(&mut client, triples).is_empty());
    until("no more to be there than it may keep", || {
        (server.metric("ringmain_channels_owned") <= 200.0).then_some(())
    });
    assert!(server.metric("ringmain_channels_evicted_total") >= 1800.0);
}

#[test]
fn client_that_makes_channels_too_fast_gets_a_temporary_error_and_others_do_not() {
    let server =
        server("new_rate_limit = 10\nnew_rate_limit_per_user = 10\nnew_rate_limit_per_prefix = 40");
    let publish = |who: &str, n: usize| {
        let channel = format!("chat:{who}{n}");
        json!({ "publish": { "channel": channel, "data": {} } })
    };
    let mut client = Client::user(&server, "42");
    let errors = go_through(&mut client, (0..1000).map(|n| publish("a", n)));
    assert!(errors.iter().all(|code| *code == 111), "{errors:?}");
    // Two shards let ten seconds of ten a second through, and what comes meanwhile.
    assert!((400..=800).contains(&errors.len()), "{}", errors.len());
    let mut same = Client::user(&server, "42");
    let errors = go_through(&mut same, (0..80).map(|n| publish("b", n)));
    assert!(
        errors.len() > 20,
        "the user has another connection: {errors:?}"
    );
    same.ok("publish", &json!({ "channel": "chat:a0", "data": {} }));
    same.ok("publish", &json!({ "channel": "unkept", "data": {} }));
    let mut other = Client::user(&server, "43");
    other.ok("publish", &json!({ "channel": "chat:c0", "data": {} }));
    server.api_result("publish", &json!({ "channel": "chat:d0", "data": {} }));
    for user in 100..120 {
        let mut crowd = Client::user(&server, &user.to_string());
        let from = 1000 + user * 100;
        go_through(&mut crowd, (from..from + 80).map(|n| publish("e", n)));
    }
    let mut late = Client::user(&server, "44");
    let errors = go_through(&mut late, (0..80).map(|n| publish("f", n)));
    assert!(
        errors.len() > 20,
        "their address prefix has made too many: {errors:?}"
    );
    assert!(server.metric("ringmain_new_channels_refused_total") > 400.0);
}

#[test]
fn names_that_no_client_may_have_are_refused_at_every_door() {
    let server = server("");
    let long = "chat:".to_owned() + &"x".repeat(5000);
    for channel in ["", &long] {
        for method in [
            "publish",
            "history",
            "presence",
            "presence_stats",
            "history_remove",
        ] {
            let body = json!({ "channel": channel, "data": {} });
            assert_eq!(server.api_error(method, &body), 107, "{method}");
        }
        for method in ["subscribe", "unsubscribe"] {
            let body = json!({ "channel": channel, "user": "42" });
            assert_eq!(server.api_error(method, &body), 107, "{method}");
        }
        let many = server.api_result(
            "broadcast",
            &json!({ "channels": ["chat:a", channel], "data": {} }),
        );
        assert_eq!(many["responses"][1]["error"]["code"], 107, "{many}");
    }
    let mut client = Client::user(&server, "42");
    let long = "chat:".to_owned() + &"x".repeat(300);
    for part in [
        "publish",
        "history",
        "presence",
        "presence_stats",
        "subscribe",
    ] {
        let body = json!({ "channel": long, "data": {} });
        assert_eq!(client.error(part, &body), 107, "{part}");
    }
    let publish = json!({ "channel": long, "data": {} });
    let rpc = json!({ "method": "ringmain.publish", "data": publish });
    assert_eq!(client.error("rpc", &rpc), 107);
}

#[test]
fn channel_without_a_name_in_a_token_is_no_channel() {
    let server = server("");
    for claims in [
        json!({ "sub": "42", "channels": ["", "chat:a"] }),
        json!({ "sub": "42", "subs": { "": {}, "chat:a": {} } }),
    ] {
        let client = Client::with_token(&server, &sign(&claims));
        let subs = client.connected["subs"].as_object().expect("subscriptions");
        assert_eq!(subs.keys().collect::<Vec<_>>(), ["chat:a"]);
    }
    let nothing = json!({ "sub": "42", "channels": [""] });
    let client = Client::with_token(&server, &sign(&nothing));
    assert!(
        client.connected.get("subs").is_none(),
        "{}",
        client.connected
    );
}
