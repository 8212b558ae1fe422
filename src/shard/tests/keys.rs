//! Commands that wait for the key of their token.

use super::order::{with_key_service, with_unknown_key};
use super::*;
use crate::config::keys::KeySource;
use crate::limits::{CONTROL_TIMEOUT, KEY_WAITS_BYTES_MAX};
use crate::mesh::build;
use crate::mesh::control::FromShard;
use crate::shard::keys::RESUMED_PER_TURN;

#[test]
fn bytes_of_all_commands_that_wait_for_keys_have_one_bound() {
    let mut house = House::with(build(1), with_key_service);
    let clients: Vec<Who> = (0..3).map(|slot| house.client(0, slot)).collect();
    // Others hold what leaves room for one more.
    house.say(clients[0], &[with_unknown_key(2, "a")]);
    let each = house.shards[0].key_waits.bytes();
    assert!(each > 0);
    house.shards[0]
        .key_waits
        .fill(KEY_WAITS_BYTES_MAX - 2 * each);
    for client in &clients[1..] {
        house.say(*client, &[with_unknown_key(2, "a")]);
    }
    house.go();
    assert!(
        house.heard(clients[1]).is_empty(),
        "the bound is not passed"
    );
    let refused = house.heard(clients[2]);
    assert_eq!(
        (ids(&refused), &refused[0]["error"]["code"]),
        (vec![2], &json!(100))
    );
    house.shards[0].keys_answered(&KeySource::Subscription, None);
    house.go();
    for client in &clients[..2] {
        let heard = house.heard(*client);
        assert_eq!(ids(&heard), [2], "{heard:?}");
    }
    let left = house.shards[0].key_waits.bytes();
    assert_eq!(left, KEY_WAITS_BYTES_MAX - 2 * each, "they gave it back");
}

#[test]
fn control_is_asked_once_for_everybody_and_given_up_when_it_does_not_answer() {
    let mut house = House::with(build(1), with_key_service);
    let clients: Vec<Who> = (0..3).map(|slot| house.client(0, slot)).collect();
    let commands = house.shards[0].counters().commands;
    for client in &clients {
        house.say(*client, &[with_unknown_key(2, "a")]);
        house.say(*client, &[publish(3, "a", 1)]);
    }
    let reports = house.shards[0].reports.iter();
    let is_asked = |report: &&FromShard| matches!(report, FromShard::KeysWanted(..));
    assert_eq!(reports.filter(is_asked).count(), 1);
    house.wait(CONTROL_TIMEOUT - Duration::from_millis(200));
    for client in &clients {
        assert_eq!(ids(&house.heard(*client)), [0; 0]);
    }
    house.wait(Duration::from_millis(400));
    for client in &clients {
        let heard = house.heard(*client);
        assert_eq!(ids(&heard), [2, 3], "what stood behind goes on: {heard:?}");
    }
    let counters = house.shards[0].counters();
    assert_eq!(counters.asks_overdue, 1);
    assert_eq!(counters.commands - commands, 6, "each is counted once");
}

#[test]
fn commands_that_waited_for_a_key_are_handled_again_some_in_each_turn() {
    const COUNT: u32 = 2 * RESUMED_PER_TURN as u32 + 3;
    let mut house = House::with(build(1), with_key_service);
    let clients: Vec<Who> = (0..COUNT).map(|slot| house.client(0, slot)).collect();
    for client in &clients {
        house.say(*client, &[with_unknown_key(2, "a")]);
    }
    house.go();
    house.shards[0].keys_answered(&KeySource::Subscription, None);
    for wanted in [RESUMED_PER_TURN, RESUMED_PER_TURN, 3] {
        assert!(house.shards[0].has_work(), "it says that it goes on");
        house.turn_of(0);
        let clients = clients.iter();
        let told: usize = clients.map(|one| ids(&house.heard(*one)).len()).sum();
        assert_eq!(told, wanted);
    }
}
