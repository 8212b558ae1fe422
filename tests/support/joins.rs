//! What triggers promise that wait for several publications, whichever engine keeps the log. Each check is given how that log is
//! configured.

use serde_json::{Value, json};

use super::process::{Server, Start, config};
use super::wait::until;

/// A proxy with the durable namespaces `steps` and `runs`, of which the first one has this trigger.
fn rules(log: &str, join: &str) -> String {
    config(&format!(
        "{log}\n[[channel.namespaces]]\nname = \"steps\"\ndelivery = \"durable\"\n\
         [[channel.namespaces.triggers]]\nname = \"all\"\nappend = \"runs:{{key}}\"\njoin = {{ by = \"run\", {join} }}\n\
         [[channel.namespaces]]\nname = \"runs\"\ndelivery = \"durable\"\n"
    ))
}

/// A proxy whose log is there.
fn start(log: &str, join: &str) -> Server {
    let server = Start::with_config(&rules(log, join)).shards(2).run();
    until("the trigger", || {
        let groups = server.api("queue/groups", &json!({}));
        let groups = groups["result"]["groups"].as_array()?;
        let is_it = |group: &Value| group["group"] == "$trigger:steps:all";
        groups.iter().any(is_it).then_some(())
    });
    server
}

fn kill(mut server: Server) {
    server.signal("KILL");
    server.exit_status();
}

fn publish(server: &Server, channel: &str, run: &str, number: u64) {
    let tags = match run {
        "" => json!({}),
        run => json!({ "run": run, "step": number.to_string() }),
    };
    let publish = json!({ "channel": channel, "data": { "n": number }, "tags": tags });
    server.api_result("publish", &publish);
}

/// What was joined of a run: the numbers of the parts of each.
fn joined(server: &Server, run: &str) -> Vec<Vec<u64>> {
    let ask = json!({ "channel": format!("runs:{run}"), "limit": 100 });
    // A log that is opened again says so for a moment.
    let history = server.api("history", &ask)["result"]["publications"].take();
    let all = history.as_array().cloned().unwrap_or_default();
    let numbers = |one: &Value| {
        let parts = one["data"]["parts"].as_array().expect("parts").iter();
        parts
            .map(|part| part["data"]["n"].as_u64().expect("its number"))
            .collect()
    };
    all.iter().map(numbers).collect()
}

fn is_joined(server: &Server, run: &str, wanted: &[&[u64]]) {
    until(&format!("{run} to be joined as {wanted:?}"), || {
        (joined(server, run) == wanted).then_some(())
    });
}

fn letters(server: &Server) -> Vec<Value> {
    match server.api_result("dlq/list", &json!({}))["letters"].take() {
        Value::Array(letters) => letters,
        other => panic!("{other}"),
    }
}

/// So many parts wait.
fn wait_for_others(server: &Server, parts: u64) {
    until("parts that wait", || {
        let waiting = server.metric("ringmain_trigger_join_parts");
        (waiting == parts as f64).then_some(())
    });
}

/// Two runs whose parts come in turns, from several channels, over a kill: one publication each, in the order of the log.
pub(crate) fn interleaved_runs_are_joined_over_a_kill(log: &str) {
    let join = "count = 3, within = \"10m\"";
    let server = start(log, join);
    publish(&server, "steps:1", "a", 1);
    publish(&server, "steps:2", "b", 2);
    publish(&server, "steps:2", "a", 3);
    wait_for_others(&server, 3);
    let groups = server.api_result("queue/groups", &json!({}));
    let joins = &groups["groups"][0]["joins"];
    assert_eq!((&joins["open"], &joins["parts"]), (&json!(2), &json!(3)));
    publish(&server, "steps:3", "b", 4);
    kill(server);
    let server = start(log, join);
    publish(&server, "steps:1", "b", 5);
    publish(&server, "steps:1", "a", 6);
    is_joined(&server, "b", &[&[2, 4, 5]]);
    is_joined(&server, "a", &[&[1, 3, 6]]);
    let ask = json!({ "channel": "runs:a", "limit": 1 });
    let history = server.api_result("history", &ask);
    let one = &history["publications"][0];
    assert_eq!(
        (&one["data"]["key"], &one["data"]["count"]),
        (&json!("a"), &json!(3))
    );
    assert_eq!(one["tags"], json!({ "run": "a" }));
    let part = &one["data"]["parts"][1];
    assert_eq!(
        (&part["channel"], &part["offset"]),
        (&json!("steps:2"), &json!(2))
    );
    assert_eq!(part["tags"], json!({ "run": "a", "step": "3" }));
    wait_for_others(&server, 0);
    kill(server);
}

/// Killed as soon as the joined publication is seen, whatever was settled by then: it is there once, and no part of one join is in the
/// next one of the same key.
pub(crate) fn kills_double_and_mix_nothing(log: &str, times: u64) {
    let join = "expected = \"data:of\", within = \"10m\"";
    let mut server = start(log, join);
    let mut wanted = Vec::new();
    for time in 0..times {
        let first = 10 * time;
        for number in first..first + 3 {
            let mut data = json!({ "n": number });
            if number == first + 1 {
                data["of"] = 3.into();
            }
            let publish = json!({ "channel": "steps:1", "data": data, "tags": { "run": "r" } });
            server.api_result("publish", &publish);
        }
        wanted.push(vec![first, first + 1, first + 2]);
        until("the next one", || {
            let found = joined(&server, "r");
            (found.len() == wanted.len()).then_some(())
        });
        kill(server);
        server = start(log, join);
    }
    publish(&server, "steps:1", "r", 1000);
    // Whatever comes again has come when this one waits.
    wait_for_others(&server, 1);
    assert_eq!(joined(&server, "r"), wanted);
    assert_eq!(letters(&server), [Value::Null; 0]);
    kill(server);
}

/// What is not complete in time becomes a letter for each part that came, over a kill, and a retry joins them with what has come at
/// last. What belongs to no run is a letter at once.
pub(crate) fn missing_part_is_a_letter(log: &str) {
    let join = "count = 3, within = \"2s\"";
    let server = start(log, join);
    publish(&server, "steps:1", "a", 1);
    publish(&server, "steps:1", "a", 2);
    publish(&server, "steps:1", "", 3);
    kill(server);
    let server = start(log, join);
    let found = until("the letters", || {
        let found = letters(&server);
        (found.len() == 3).then_some(found)
    });
    let mut said: Vec<&str> = found
        .iter()
        .filter_map(|letter| letter["reason"].as_str())
        .collect();
    said.sort_unstable();
    let missing = "join: 1 of 3 parts did not come within 2s; `tag:run` is `a`";
    let none = "join: the publication has no `tag:run`";
    assert_eq!(said, [missing, missing, none]);
    assert!(
        found.iter().all(|letter| letter["class"] == "join"),
        "{found:?}"
    );
    wait_for_others(&server, 0);
    let retry = json!({ "group": "$trigger:steps:all", "all": true, "reason": "join: 1 of 3" });
    server.api_result("dlq/retry", &retry);
    publish(&server, "steps:1", "a", 4);
    is_joined(&server, "a", &[&[1, 2, 4]]);
    assert_eq!(letters(&server).len(), 1);
    until("it to be counted", || {
        let completed = server.metric("ringmain_trigger_joins_completed_total");
        (completed == 1.0).then_some(())
    });
    assert!(server.metric("ringmain_trigger_joins_expired_total") <= 1.0);
    kill(server);
}

/// Other rules count for what waits already.
pub(crate) fn reload_counts_for_what_waits(log: &str) {
    let server = start(log, "count = 3, within = \"10m\"");
    publish(&server, "steps:1", "a", 1);
    publish(&server, "steps:1", "b", 2);
    publish(&server, "steps:1", "a", 3);
    wait_for_others(&server, 3);
    server.write_config(&rules(log, "count = 2, within = \"10m\""));
    server.signal("HUP");
    is_joined(&server, "a", &[&[1, 3]]);
    publish(&server, "steps:1", "b", 4);
    is_joined(&server, "b", &[&[2, 4]]);
    publish(&server, "steps:1", "c", 5);
    wait_for_others(&server, 1);
    // Without a join they are taken one by one, and with one again they wait.
    let plain = rules(log, "").replace(
        "append = \"runs:{key}\"\njoin = { by = \"run\",  }",
        "append = \"runs:plain\"",
    );
    server.write_config(&plain);
    server.signal("HUP");
    let ask = json!({ "channel": "runs:plain", "limit": 100 });
    until("it to be taken alone", || {
        let history = server.api_result("history", &ask);
        (history["publications"][0]["data"]["n"] == 5).then_some(())
    });
    server.write_config(&rules(log, "count = 2, within = \"10m\""));
    server.signal("HUP");
    until("the join to be back", || {
        let groups = server.api_result("queue/groups", &json!({}));
        groups["groups"][0]["joins"].is_object().then_some(())
    });
    publish(&server, "steps:1", "d", 6);
    publish(&server, "steps:1", "d", 7);
    is_joined(&server, "d", &[&[6, 7]]);
    assert_eq!(letters(&server), [Value::Null; 0]);
    kill(server);
}

/// Two processes at the same log: a join is in one of them, and when that is killed in the other one.
pub(crate) fn processes_share_a_log(log: &str) {
    let join = "count = 2, within = \"10m\"";
    let (first, second) = (start(log, join), start(log, join));
    for run in 0..20 {
        publish(&first, "steps:1", &format!("r{run}"), run);
    }
    let waiting = |server: &Server| server.metric("ringmain_trigger_join_parts");
    until("all to wait in one of them", || {
        let (one, other) = (waiting(&first), waiting(&second));
        (one + other == 20.0).then(|| assert!(one == 0.0 || other == 0.0, "{one} {other}"))
    });
    let (server, other) = match waiting(&first) {
        20.0 => (first, second),
        _ => (second, first),
    };
    for run in 0..10 {
        // A channel is written by one process at a time.
        let (one, channel) = match run % 2 {
            0 => (&server, "steps:2"),
            _ => (&other, "steps:3"),
        };
        publish(one, channel, &format!("r{run}"), 100 + run);
    }
    for run in 0..10 {
        is_joined(&other, &format!("r{run}"), &[&[run, 100 + run]]);
    }
    kill(server);
    for run in 10..20 {
        publish(&other, "steps:3", &format!("r{run}"), 100 + run);
    }
    until("the other one to have the rest", || {
        (waiting(&other) > 0.0 || !joined(&other, "r19").is_empty()).then_some(())
    });
    for run in 0..20 {
        is_joined(&other, &format!("r{run}"), &[&[run, 100 + run]]);
    }
    assert_eq!(letters(&other), [Value::Null; 0]);
    kill(other);
}
