//! Triggers that wait for several publications, on JetStream: see `support/joins`.

use crate::nats_server::NatsServer;
use crate::support::joins;

fn on_one_log(check: impl Fn(&str)) {
    let nats = NatsServer::start();
    check(&format!(
        "[durable]\nengine = \"nats\"\nnats.servers = [\"{}\"]",
        nats.url()
    ));
}

#[test]
fn runs_whose_parts_come_in_turns_are_one_publication_each_over_a_kill() {
    on_one_log(joins::interleaved_runs_are_joined_over_a_kill);
}

#[test]
fn kill_behind_the_append_doubles_nothing_and_mixes_nothing() {
    on_one_log(|log| joins::kills_double_and_mix_nothing(log, 2));
}

#[test]
fn part_that_misses_makes_letters_of_the_others_and_a_retry_joins_them() {
    on_one_log(joins::missing_part_is_a_letter);
}

#[test]
fn reload_with_another_number_of_parts_counts_for_those_that_wait() {
    on_one_log(joins::reload_counts_for_what_waits);
}

#[test]
fn two_processes_at_one_log_do_not_share_out_the_parts_of_a_join() {
    on_one_log(joins::processes_share_a_log);
}
