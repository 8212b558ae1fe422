//! Queue groups on JetStream: see `support/groups`.

use crate::nats_server::NatsServer;
use crate::support::groups;
use crate::support::process::{Server, Start, config};
use crate::support::tenants;

fn on_one_log(check: impl Fn(&dyn Fn() -> Server)) {
    let nats = NatsServer::start();
    let rules = config(&format!(
        r#"
[durable]
engine = "nats"
nats.servers = ["{}"]

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
{}
"#,
        nats.url(),
        tenants::tables()
    ));
    check(&|| {
        let server = Start::with_config(&rules).shards(2).run();
        // The connection is made behind the start.
        crate::support::wait::until("the log", || {
            let groups = server.api("queue/groups", &serde_json::json!({}));
            groups.get("error").is_none().then_some(())
        });
        server
    });
}

#[test]
fn failures_that_wait_keep_nobody_from_going_on_and_come_back_when_they_are_due() {
    on_one_log(|start| groups::failures_wait_aside(start, 3000));
}

#[test]
fn ordered_channel_that_waits_with_much_behind_it_stops_no_other() {
    on_one_log(|start| groups::ordered_channel_stops_no_other(start, 3000));
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
fn a_group_that_is_behind_holds_back_its_publishers() {
    on_one_log(groups::a_group_that_is_behind_holds_back_its_publishers);
}

#[test]
fn operators_pause_seek_copy_and_purge_groups() {
    on_one_log(groups::operators_move_groups);
}

#[test]
fn groups_letters_and_replays_are_the_tenants_own() {
    on_one_log(tenants::groups_letters_and_replays);
}
