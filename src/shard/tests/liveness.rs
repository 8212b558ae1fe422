//! Who is dead, and who is only slow.

use super::*;
use crate::limits::WAITING_BYTES_MAX;
use crate::mesh::build;

const INTERVAL: Duration = Duration::from_secs(20);
const PONG: Duration = Duration::from_secs(5);

fn house() -> House {
    House::with(build(1), |config| {
        with_backend(config);
        config.client.ping_interval = Some(INTERVAL);
        config.client.pong_timeout = PONG;
        config.client.queue_max_size = 4 << 20;
    })
}

/// Waits for the next ping; a client whose socket takes nothing has it in front of it.
fn wait_for_ping(house: &mut House, who: Who) {
    for _ in 0..2 * INTERVAL.as_secs() * 10 {
        if pong_by(house, who) != 0 {
            return;
        }
        house.wait(Duration::from_millis(100));
    }
    panic!("no ping");
}

fn pong_by(house: &House, (shard, conn): Who) -> u32 {
    let connection = house.shards[shard]
        .connections
        .current(conn.slot, conn.generation);
    connection.map_or(0, |connection| connection.session.pong_by)
}

fn dead(house: &House) -> u64 {
    house.shards[0].counters().disconnected_no_pong
}

fn pong(house: &mut House, who: Who) {
    house.say(who, &[json!({})]);
}

#[test]
fn peer_that_sends_no_pong_is_dead_after_the_timeout_and_one_that_does_is_not() {
    let mut house = house();
    let client = house.client(0, 0);
    for _ in 0..3 {
        wait_for_ping(&mut house, client);
        house.wait(PONG - Duration::from_millis(200));
        pong(&mut house, client);
        assert_eq!(pong_by(&house, client), 0);
    }
    wait_for_ping(&mut house, client);
    house.wait(PONG - Duration::from_millis(200));
    assert_eq!((dead(&house), house.wire(client).closed), (0, None));
    house.wait(Duration::from_millis(400));
    assert!(dead(&house) == 1 && house.wire(client).is_half_closed);
}

#[test]
fn pong_behind_input_that_is_not_read_yet_counts_and_silence_there_does_not() {
    for answers in [true, false] {
        let mut house = house();
        let client = house.client(0, 0);
        house.say(client, &[rpc(2)]);
        let fill = "x".repeat(60_000);
        for id in 0..=WAITING_BYTES_MAX as u32 / 60_000 {
            house.say(client, &[publish(10 + id, "a", fill.as_str())]);
        }
        // Nothing is read any more: not this, and not the pong behind it.
        house.say(client, &[publish(20, "a", 1)]);
        wait_for_ping(&mut house, client);
        if answers {
            pong(&mut house, client);
        }
        assert_ne!(pong_by(&house, client), 0, "it is not read");
        house.wait(PONG + Duration::from_millis(200));
        assert_eq!(dead(&house), 0, "answers: {answers}");
        if answers {
            house.answer_call(0);
            house.go();
            assert_eq!(pong_by(&house, client), 0);
            house.wait(INTERVAL / 2);
        } else {
            house.wait(PONG + Duration::from_millis(200));
        }
        assert_eq!(dead(&house), u64::from(!answers), "answers: {answers}");
    }
}

#[test]
fn pong_beside_a_call_that_is_under_way_waits_for_nothing() {
    let mut house = house();
    let client = house.client(0, 0);
    wait_for_ping(&mut house, client);
    house.say(client, &[rpc(2)]);
    pong(&mut house, client);
    assert_eq!(pong_by(&house, client), 0);
}

/// A client that takes nothing, with this much before it.
fn slow(house: &mut House, bytes: usize) -> Who {
    let (client, publisher) = (house.client(0, 0), house.client(0, 1));
    house.say(client, &[subscribe(2, "a")]);
    house.go();
    house.give_room(client, Some(0));
    for id in 0..bytes / 50_000 {
        house.say(
            publisher,
            &[publish(10 + id as u32, "a", "x".repeat(50_000))],
        );
        house.go();
    }
    house.receive(publisher, CLOSE);
    house.go();
    client
}

#[test]
fn client_that_takes_what_is_before_its_ping_is_slow_and_not_dead() {
    let mut house = house();
    let client = slow(&mut house, 2_000_000);
    wait_for_ping(&mut house, client);
    for _ in 0..6 {
        house.wait(PONG / 2);
        house.give_room(client, Some(100_000));
    }
    assert_eq!(dead(&house), 0, "three times the timeout");
    // The whole of it has come, the ping last: there is a timeout to answer it in.
    house.give_room(client, None);
    house.wait(PONG - Duration::from_millis(200));
    assert_eq!(dead(&house), 0);
    pong(&mut house, client);
    assert_eq!(
        (pong_by(&house, client), house.wire(client).closed),
        (0, None)
    );
    assert!(texts(&house.wire(client).came).ends_with("{}\n"), "a ping");
}

#[test]
fn client_that_takes_everything_and_answers_no_ping_is_dead() {
    let mut house = house();
    let client = slow(&mut house, 200_000);
    wait_for_ping(&mut house, client);
    house.wait(PONG / 2);
    house.give_room(client, None);
    house.wait(PONG - Duration::from_millis(200));
    assert_eq!(dead(&house), 0);
    house.wait(Duration::from_millis(400));
    assert_eq!(dead(&house), 1);
}

#[test]
fn client_that_takes_nothing_of_what_is_before_its_ping_is_dead() {
    let mut house = house();
    let client = slow(&mut house, 200_000);
    wait_for_ping(&mut house, client);
    house.wait(PONG - Duration::from_millis(200));
    assert_eq!(dead(&house), 0);
    house.wait(Duration::from_millis(400));
    assert_eq!(dead(&house), 1);
}

#[test]
fn ping_with_which_a_socket_became_full_waits_too() {
    let mut house = house();
    let client = house.client(0, 0);
    house.give_room(client, Some(0));
    wait_for_ping(&mut house, client);
    house.wait(PONG - Duration::from_millis(200));
    house.give_room(client, None);
    house.wait(PONG - Duration::from_millis(200));
    assert_eq!(dead(&house), 0, "it has the ping since then");
    house.wait(Duration::from_millis(400));
    assert_eq!(dead(&house), 1);
}
