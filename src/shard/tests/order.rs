//! Commands of one client, one after the other, within every bound.

use super::*;
use crate::limits::{COMMANDS_UNDER_WAY_BYTES_MAX, KEY_WAITS_BYTES_MAX, WAITING_BYTES_SHARD_MAX};
use crate::mesh::build;
use crate::shard::inbox::MESSAGES_PER_STEP;
use crate::shard::order::{COMMANDS_AT_ONCE, TAKEN_PER_TURN};

#[test]
fn bytes_of_commands_under_way_stop_reading_and_nothing_is_lost() {
    const COUNT: u32 = 60;
    const EACH: usize = 60_000;
    let mut house = House::with(build(2), |_| {});
    let client = house.client(0, 0);
    let channel = owned_by(1, 2, "a");
    let fill = "x".repeat(EACH);
    let mut said = 0;
    let mut most = 0;
    while said < COUNT {
        while said < COUNT && !house.wire(client).is_paused {
            house.say(client, &[publish(100 + said, &channel, fill.as_str())]);
            house.take_outputs(0);
            said += 1;
        }
        let under_way = house.shards[1].under_way().mesh_queued;
        most = most.max(under_way);
        if said < COUNT {
            assert!(under_way > 0, "something is under way");
        }
        house.go();
    }
    house.go();
    assert!(
        most * EACH <= COMMANDS_UNDER_WAY_BYTES_MAX,
        "{most} at once"
    );
    assert!(
        (most + 1) * (EACH + 1000) > COMMANDS_UNDER_WAY_BYTES_MAX,
        "{most} at once"
    );
    assert!(house.shards[0].counters().receives_paused > 0);
    let wanted: Vec<u64> = (100..100 + u64::from(COUNT)).collect();
    let heard = house.heard(client);
    assert_eq!(ids(&heard), wanted);
    assert!(heard.iter().all(|reply| reply.get("error").is_none()));
}

#[test]
fn frames_that_waited_are_taken_up_some_in_each_turn() {
    let count = 2 * TAKEN_PER_TURN as u32 + 88;
    let mut house = House::with(build(1), with_backend);
    let client = house.client(0, 0);
    house.say(client, &[rpc(2)]);
    for id in 0..count {
        house.say(
            client,
            &[json!({ "id": 10 + id, "presence_stats": { "channel": "a" } })],
        );
    }
    house.go();
    assert!(house.heard(client).is_empty(), "all of them wait");
    let carried_out = |house: &House| house.shards[0].counters().commands;
    let before = carried_out(&house);
    house.answer_call(0);
    let at_once = carried_out(&house) - before;
    assert!((1..=TAKEN_PER_TURN as u64).contains(&at_once), "{at_once}");
    assert!(house.shards[0].has_work(), "it says that it goes on");
    house.go();
    let wanted: Vec<u64> = std::iter::once(2)
        .chain(10..10 + u64::from(count))
        .collect();
    assert_eq!(ids(&house.heard(client)), wanted);
}

#[test]
fn one_frame_of_many_commands_is_carried_out_some_in_each_turn_and_in_order() {
    let count = COMMANDS_AT_ONCE as u64 + 3 * TAKEN_PER_TURN as u64;
    let mut house = House::with(build(1), |_| {});
    let (busy, other) = (house.client(0, 0), house.client(0, 1));
    let commands: Vec<Value> = (0..count)
        .map(|id| json!({ "id": 10 + id, "presence_stats": { "channel": "a" } }))
        .collect();
    let before = house.shards[0].counters().commands;
    house.say(busy, &commands);
    let at_once = house.shards[0].counters().commands - before;
    let most = (COMMANDS_AT_ONCE + TAKEN_PER_TURN) as u64;
    assert!((1..=most).contains(&at_once), "{at_once}");
    let next = house.shards[0].poll_timeout().map(|deadline| deadline.at);
    assert_eq!(next, Some(house.now.at), "it goes on at once");
    house.say(
        other,
        &[json!({ "id": 9, "presence_stats": { "channel": "a" } })],
    );
    let meanwhile = house.shards[0].counters().commands - before;
    assert_eq!(meanwhile, at_once + 1, "the other one does not wait");
    house.go();
    let wanted: Vec<u64> = (10..10 + count).collect();
    assert_eq!(ids(&house.heard(busy)), wanted);
    assert_eq!(ids(&house.heard(other)), [9]);
    assert_eq!(house.shards[0].waiting_bytes, 0);
}

#[test]
fn emulated_commands_for_which_the_shard_has_no_room_are_refused_with_503() {
    let mut house = House::with(build(1), |config| {
        with_backend(config);
        config.http_stream.enabled = true;
    });
    let ((waiting, told), (idle, told_idle)) = (house.stream(0, 0), house.stream(0, 1));
    assert_eq!(
        house.emulate(10, &told, &[rpc(2), publish(3, "a", 1)]),
        "204"
    );
    house.shards[0].waiting_bytes += WAITING_BYTES_SHARD_MAX;
    assert_eq!(house.emulate(11, &told, &[publish(4, "a", 2)]), "503");
    // Whose commands do not wait needs no room.
    assert_eq!(house.emulate(12, &told_idle, &[publish(2, "a", 3)]), "204");
    assert_eq!(ids(&house.heard(idle)), [2]);
    house.shards[0].waiting_bytes -= WAITING_BYTES_SHARD_MAX;
    assert_eq!(house.emulate(13, &told, &[publish(5, "a", 4)]), "204");
    house.answer_call(0);
    house.go();
    assert_eq!(
        ids(&house.heard(waiting)),
        [2, 3, 5],
        "what was refused is not carried out"
    );
    assert_eq!(house.shards[0].waiting_bytes, 0);
}

#[test]
fn one_address_prefix_has_half_of_what_may_wait_on_a_shard() {
    const HALF: usize = WAITING_BYTES_SHARD_MAX / 2;
    let mut house = House::with(build(1), with_backend);
    let addresses = ["203.0.113.1", "203.0.113.1", "198.51.100.1"];
    let at = |slot: usize| addresses[slot].parse().unwrap();
    let clients: Vec<Who> = (0..3)
        .map(|slot| house.client_from(0, slot as u32, Some(at(slot))))
        .collect();
    // The first one stands for a crowd.
    let shard = &mut house.shards[0];
    let crowd = shard.who_waits(0);
    assert_ne!(crowd.from, 0);
    shard.waiting_shares.change(&crowd, 0, HALF);
    shard.waiting_bytes += HALF;
    for client in &clients[1..] {
        house.say(*client, &[rpc(2)]);
        house.say(*client, &[publish(3, "a", 1)]);
        house.say(*client, &[publish(4, "a", 2)]);
    }
    let is_held = |house: &House, slot| house.shards[0].connections.of(slot).held.is_some();
    assert!(is_held(&house, 1), "its prefix has all that it may have");
    assert!(!is_held(&house, 2), "another one has not");
    house.go();
    house.answer_call(0);
    house.answer_call(0);
    house.go();
    for client in &clients[1..] {
        assert_eq!(ids(&house.heard(*client)), [2, 3, 4], "nothing is lost");
    }
    let shard = &mut house.shards[0];
    shard.waiting_shares.change(&crowd, HALF, 0);
    shard.waiting_bytes -= HALF;
    assert_eq!(shard.waiting_bytes, 0);
}

#[test]
fn rest_of_a_frame_goes_on_before_the_next_frame() {
    let mut house = House::with(build(1), with_backend);
    let client = house.client(0, 0);
    let stats = |id| json!({ "id": id, "presence_stats": { "channel": "a" } });
    house.say(client, &[rpc(2)]);
    house.say(client, &[stats(3), rpc(4), stats(5)]);
    house.say(client, &[stats(6)]);
    house.go();
    for _ in 0..2 {
        house.answer_call(0);
        house.go();
    }
    assert_eq!(ids(&house.heard(client)), [2, 3, 4, 5, 6]);
}

#[test]
fn subscribe_that_depends_on_one_under_way_waits_for_it() {
    let mut house = House::with(build(2), |config| config.client.channel_limit = 2);
    let client = house.client(0, 0);
    let [a, b, c] = ["a", "b", "c"].map(|name| owned_by(1, 2, name));
    house.say(client, &[subscribe(2, &a), subscribe(3, &a)]);
    house.say(client, &[subscribe(4, &b), subscribe(5, &c)]);
    house.go();
    let heard = house.heard(client);
    assert_eq!(ids(&heard), [2, 3, 4, 5]);
    let code = |at: usize| heard[at]["error"]["code"].as_u64();
    let codes = [code(0), code(1), code(2), code(3)];
    assert_eq!(codes, [None, Some(105), None, Some(106)]);
}

#[test]
fn bytes_of_commands_that_are_answered_are_under_way_no_more() {
    const EACH: usize = 60_000;
    let mut house = House::with(build(2), |_| {});
    let client = house.client(0, 0);
    let channel = owned_by(1, 2, "a");
    let fill = "x".repeat(EACH);
    for id in 0..2 * (COMMANDS_UNDER_WAY_BYTES_MAX / EACH) as u32 {
        house.say(client, &[publish(10 + id, &channel, fill.as_str())]);
        house.go();
    }
    house.say(client, &[publish(2, &channel, 1), publish(3, &channel, 2)]);
    let under_way = house.shards[1].under_way().mesh_queued;
    assert_eq!(under_way, 2, "neither waits for the other");
}

/// A subscribe whose token names a key that nobody has seen.
pub(super) fn with_unknown_key(id: u32, channel: &str) -> Value {
    let token = "eyJhbGciOiJSUzI1NiIsImtpZCI6InVua25vd24ifQ.e30.AAAA";
    json!({ "id": id, "subscribe": { "channel": channel, "token": token } })
}

/// A service publishes the keys of subscription tokens.
pub(super) fn with_key_service(config: &mut Config) {
    config.client.subscription_token.jwks_public_endpoint = "http://localhost/keys".to_owned();
}

#[test]
fn command_whose_key_cannot_be_waited_for_is_answered_in_its_turn() {
    let mut house = House::with(build(2), with_key_service);
    let client = house.client(0, 0);
    let channel = owned_by(1, 2, "a");
    house.shards[0].key_waits.fill(KEY_WAITS_BYTES_MAX);
    let of_same_owner = owned_by(1, 2, "b");
    house.say(client, &[subscribe(2, &channel)]);
    house.say(client, &[with_unknown_key(3, &of_same_owner)]);
    house.take_outputs(0);
    assert_eq!(
        ids(&house.heard(client)),
        [0; 0],
        "the first one is not answered"
    );
    house.go();
    let heard = house.heard(client);
    assert_eq!(ids(&heard), [2, 3]);
    assert!(heard[0].get("subscribe").is_some(), "{heard:?}");
    assert_eq!(heard[1]["error"]["code"], 100, "{heard:?}");
}

#[test]
fn messages_of_other_shards_are_taken_in_steps_between_which_the_reactor_looks_at_the_clock() {
    const COUNT: usize = 100;
    let mut house = House::with(build(2), |_| {});
    let publisher = house.client(1, 0);
    let channel = owned_by(0, 2, "a");
    for id in 0..COUNT as u32 {
        house.say(publisher, &[publish(10 + id, &channel, 1)]);
    }
    let (now, shard) = (house.now, &mut house.shards[0]);
    let queued = |shard: &Shard| shard.under_way().mesh_queued;
    assert_eq!(queued(shard), COUNT);
    shard.handle_mesh(now);
    assert_eq!(queued(shard), COUNT - MESSAGES_PER_STEP);
    let due = shard.poll_timeout().map(|due| due.at);
    assert!(shard.has_messages() && due.is_some_and(|at| at <= now.at));
    while shard.has_messages() {
        let before = queued(shard);
        shard.handle_messages(now);
        assert!(before - queued(shard) <= MESSAGES_PER_STEP);
    }
    assert_eq!(queued(shard), 0);
    house.go();
    assert_eq!(ids(&house.heard(publisher)).len(), COUNT);
}

#[test]
fn a_call_that_is_answered_makes_room_for_the_next_whatever_the_others_do() {
    let mut house = House::with(build(1), |config| {
        with_backend(config);
        config.client.concurrency = 2;
    });
    let client = house.client(0, 0);
    let calls: Vec<Value> = (2..8).map(rpc).collect();
    house.say(client, &calls);
    house.go();
    assert_eq!(house.calls.len(), 2);
    let slow = house.calls.pop_front().unwrap();
    for answered in 1..=3 {
        house.answer_call(0);
        house.go();
        assert_eq!(house.calls.len(), 1, "after {answered} answers");
        assert!(house.heard(client).is_empty(), "the first is not answered");
    }
    house.calls.push_front(slow);
    while !house.calls.is_empty() {
        house.answer_call(0);
        house.go();
        assert!(house.calls.len() <= 2);
    }
    assert_eq!(ids(&house.heard(client)), [2, 3, 4, 5, 6, 7]);
}
