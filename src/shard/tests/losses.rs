//! What subscribers are told of publications that they do not get.

use super::*;
use crate::config::namespace::SlowConsumer;
use crate::limits::{BACKLOG_BYTES_MAX, BACKLOG_SHARE, MESH_COMMANDS_MAX};
use crate::mesh::{build, build_with};

#[test]
fn what_a_catch_up_could_not_read_again_is_counted_and_the_rest_is_delivered() {
    const COUNT: u32 = 30;
    const KEPT: u32 = 10;
    // Room for one delivery.
    let mut house = House::with(build_with(2, MESH_COMMANDS_MAX + 1), |config| {
        config.channels.namespaces = vec![Arc::new(kept("kept", KEPT))];
    });
    let channel = owned_by(1, 2, "kept:");
    let (reader, publisher) = (house.client(0, 0), house.client(1, 0));
    house.say(reader, &[subscribe(2, &channel)]);
    house.go();
    house.heard(reader);
    let commands: Vec<Value> = (1..=COUNT).map(|n| publish(10 + n, &channel, n)).collect();
    house.say(publisher, &commands);
    house.go();
    let heard = house.heard(reader);
    let first = std::iter::once(1);
    let wanted: Vec<Value> = first
        .chain(COUNT - KEPT + 1..=COUNT)
        .map(Value::from)
        .collect();
    assert_eq!(published(&heard), wanted);
    assert_eq!(lost(&heard), u64::from(COUNT - KEPT - 1), "{heard:?}");
}

#[test]
fn loss_is_told_also_where_nothing_is_left_to_be_sent() {
    const LARGE: usize = 200_000;
    let mut house = House::with(build(1), |config| {
        config.client.queue_max_size = LARGE / 2;
        config.websocket.message_size_limit = 2 * LARGE;
        config.channels.without_namespace = Arc::new(Namespace {
            slow_consumer: SlowConsumer::DropOldest,
            ..Namespace::default()
        });
    });
    let (reader, publisher) = (house.client(0, 0), house.client(0, 1));
    house.say(reader, &[subscribe(2, "a")]);
    house.go();
    house.heard(reader);
    // Both come in one turn, and neither fits.
    let fill = "x".repeat(LARGE);
    house.say(publisher, &[publish(10, "a", fill.as_str())]);
    house.say(publisher, &[publish(11, "a", fill.as_str())]);
    house.go();
    let heard = house.heard(reader);
    assert_eq!((published(&heard).len(), lost(&heard)), (0, 2), "{heard:?}");
    assert_eq!(house.shards[0].backlog_bytes_counted(), (0, 0));
}

#[test]
fn what_was_queued_of_a_subscription_is_not_dropped_when_that_is_over() {
    const LARGE: usize = 20_000;
    let mut house = House::with(build(1), |config| {
        config.client.queue_max_size = 6 * LARGE;
        config.channels.namespaces = vec![Arc::new(Namespace {
            slow_consumer: SlowConsumer::DropOldest,
            force_positioning: true,
            ..kept("kept", 10)
        })];
    });
    let (reader, publisher) = (house.client(0, 0), house.client(0, 1));
    let channels = ["kept:a", "kept:b"];
    for (id, channel) in (2..).zip(channels) {
        house.say(reader, &[subscribe(id, channel)]);
    }
    house.go();
    house.heard(reader);
    house.wire(reader).room = Some(0);
    let fill = "x".repeat(LARGE);
    let fill_with = |house: &mut House, channel: &str, count: u32| {
        for _ in 0..count {
            house.say(publisher, &[publish(10, channel, fill.as_str())]);
            house.go();
        }
    };
    // What is in flight, and more.
    fill_with(&mut house, "kept:a", 5);
    house.say(
        reader,
        &[json!({ "id": 4, "unsubscribe": { "channel": "kept:a" } })],
    );
    house.go();
    fill_with(&mut house, "kept:b", 4);
    house.give_room(reader, None);
    house.go();
    let heard = house.heard(reader);
    let offsets = |channel: &str| -> Vec<u64> {
        let pushes = heard.iter().map(|message| &message["push"]);
        let of = pushes.filter(|push| push["channel"] == channel);
        of.filter_map(|push| push["pub"]["offset"].as_u64())
            .collect()
    };
    assert_eq!(offsets("kept:a"), [1, 2, 3, 4, 5], "all up to its end");
    let others = offsets("kept:b");
    let wanted: Vec<u64> = (1..=others.len() as u64).collect();
    assert!(others == wanted && others.len() < 4, "{others:?}");
}

#[test]
fn the_more_waits_on_a_shard_the_less_may_wait_for_one_and_who_has_little_keeps_it() {
    const LARGE: usize = 250_000;
    const EACH: usize = 64 << 20;
    let mut house = House::with(build(1), |config| {
        config.client.queue_max_size = EACH;
        config.websocket.message_size_limit = 2 * LARGE;
    });
    let publisher = house.client(0, 0);
    let (much, little) = (house.client(0, 1), house.client(0, 2));
    for (reader, channel) in [(much, "much"), (little, "little")] {
        house.say(reader, &[subscribe(2, channel)]);
        house.go();
        house.wire(reader).room = Some(0);
    }
    let fill = "x".repeat(LARGE);
    house.say(publisher, &[publish(9, "little", fill.as_str())]);
    let mut most = 0;
    for n in 0.. {
        house.say(publisher, &[publish(10 + n, "much", fill.as_str())]);
        house.go();
        most = most.max(house.shards[0].backlog_bytes_counted().0);
        if house.shards[0].counters_mut().disconnected_slow > 0 {
            break;
        }
        assert!(most < EACH, "it may have all that its own bound says");
    }
    // It has a part of what it leaves.
    let share = BACKLOG_BYTES_MAX / (BACKLOG_SHARE + 1);
    assert!(most.abs_diff(share) < 4 * LARGE, "{most} of {share}");
    house.wait(Duration::from_secs(10));
    house.wire(little).room = None;
    house.give_room(little, None);
    let heard = house.heard(little);
    assert_eq!(published(&heard).len(), 1, "{} messages", heard.len());
    assert!(house.wire(much).closed.is_some());
}
