//! Queue groups on the embedded log: see `support/groups`.

use std::path::Path;

use serde_json::{Value, json};

use crate::support::client::Client;
use crate::support::groups;
use crate::support::process::{Server, Start, config};
use crate::support::token::{after, sign};

fn rules(directory: &Path) -> String {
    config(&format!(
        r#"
[durable.embedded]
directory = "{}"

[[channel.namespaces]]
name = "orders"
delivery = "durable"

[[channel.namespaces]]
name = "brief"
delivery = "durable"
expired = "dead_letter"

[[channel.namespaces]]
name = "few"
delivery = "durable"
retention_count = 3

[[channel.namespaces]]
name = "short"
delivery = "durable"
retention_age = "2s"
"#,
        directory.display()
    ))
}

fn on_one_log(check: impl Fn(&dyn Fn() -> Server)) {
    let directory = tempfile::tempdir().expect("a directory");
    let rules = rules(directory.path());
    check(&|| Start::with_config(&rules).shards(2).run());
}

#[test]
fn failures_that_wait_keep_nobody_from_going_on_and_come_back_when_they_are_due() {
    on_one_log(|start| groups::failures_wait_aside(start, 20_000));
}

#[test]
fn ordered_channel_that_waits_with_twenty_thousand_behind_it_stops_no_other() {
    on_one_log(|start| groups::ordered_channel_stops_no_other(start, 20_000));
}

#[test]
fn ordered_channel_keeps_its_order_while_nobody_takes() {
    on_one_log(groups::ordered_channel_keeps_its_order_while_nobody_takes);
}

#[test]
fn nobody_is_warned_at_a_clean_start_and_a_clean_stop() {
    on_one_log(groups::clean_start_and_stop_warn_nobody);
}

#[test]
fn what_was_acknowledged_with_sync_is_done_whatever_is_killed() {
    on_one_log(groups::synced_acknowledgements_are_stored);
}

#[test]
fn backlog_of_one_key_stands_in_front_of_nobody() {
    on_one_log(groups::keys_take_turns);
}

#[test]
fn group_takes_what_its_tags_and_its_condition_say() {
    on_one_log(groups::group_takes_a_part);
}

#[test]
fn what_has_a_time_to_live_is_gone_when_that_is_over_and_groups_say_so() {
    on_one_log(groups::publications_end_by_themselves);
}

#[test]
fn namespaces_keep_less_than_the_log_and_groups_say_what_they_lose_by_it() {
    on_one_log(groups::namespaces_keep_less);
}

#[test]
fn operators_pause_seek_copy_and_purge_groups() {
    on_one_log(groups::operators_move_groups);
}

#[test]
fn a_group_that_is_behind_holds_back_its_publishers() {
    on_one_log(groups::a_group_that_is_behind_holds_back_its_publishers);
}

#[test]
fn worker_hears_that_its_group_is_paused_and_that_it_goes_on() {
    let directory = tempfile::tempdir().expect("a directory");
    let server = Start::with_config(&rules(directory.path())).run();
    let token = sign(&json!({ "sub": "w", "exp": after(600), "consume": { "*": ["orders:*"] } }));
    let mut worker = Client::with_token(&server, &token);
    let consume =
        json!({ "method": "ringmain.consume", "data": { "group": "g", "channels": ["orders:*"] } });
    worker.ok("rpc", &consume);
    server.api_result("queue/pause", &json!({ "group": "g" }));
    let told = |worker: &mut Client| -> Value { worker.push()["message"]["data"].clone() };
    assert_eq!(told(&mut worker), json!({ "group": "g", "paused": true }));
    groups::publish(&server, "orders:1", 0..1);
    server.api_result("queue/resume", &json!({ "group": "g" }));
    assert_eq!(told(&mut worker), json!({ "group": "g", "paused": false }));
    assert_eq!(told(&mut worker)["data"]["n"], 0);
}
