//! What subscribers are told of publications that they do not get.

use super::*;
use crate::config::apart::Key;
use crate::config::namespace::SlowConsumer;
use crate::limits::{BACKLOG_BYTES_MAX, BACKLOG_EVICTED_FROM, MESH_COMMANDS_MAX};
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

/// Bytes that wait on the only shard.
fn held(house: &House) -> usize {
    house.shards[0].backlog_bytes_counted().0
}

#[test]
fn where_all_have_used_up_their_memory_the_largest_go_first_and_nobody_else() {
    const LARGE: usize = 250_000;
    const EACH: usize = 140 << 20;
    let mut house = House::with(build(1), |config| {
        config.client.queue_max_size = EACH;
        config.websocket.message_size_limit = 2 * LARGE;
        config.channels.namespaces = vec![Arc::new(Namespace {
            slow_consumer: SlowConsumer::DropOldest,
            ..kept("lossy", 10)
        })];
    });
    let publisher = house.client(0, 0);
    let channels = ["lossy:much", "much", "most", "little"];
    let readers = [1, 2, 3, 4].map(|slot| house.client(0, slot));
    for (reader, channel) in readers.into_iter().zip(channels) {
        house.say(reader, &[subscribe(2, channel)]);
        house.go();
        house.heard(reader);
        house.wire(reader).room = Some(0);
    }
    let fill = "x".repeat(LARGE);
    let publish_to = |house: &mut House, channel: &str, count: usize| {
        for _ in 0..count {
            house.say(publisher, &[publish(10, channel, fill.as_str())]);
            house.go();
            assert!(held(house) < BACKLOG_BYTES_MAX, "{}", held(house));
        }
    };
    let few = BACKLOG_EVICTED_FROM / LARGE / 4;
    publish_to(&mut house, "little", 1);
    publish_to(&mut house, "much", few);
    publish_to(&mut house, "most", few + 20);
    publish_to(&mut house, "lossy:much", few + 10);
    assert_eq!(house.shards[0].counters_mut().evicted, 0);
    publish_to(&mut house, "lossy:much", few);
    let counters = house.shards[0].counters_mut();
    assert!(counters.evicted > 0 && counters.dropped_slow > 0);
    assert_eq!(
        counters.disconnected_slow, 0,
        "the largest may lose something"
    );
    // Now those are the largest that may not.
    publish_to(&mut house, "much", 2 * few);
    let counters = house.shards[0].counters_mut();
    assert_eq!(counters.disconnected_slow, 1);
    for reader in readers {
        house.give_room(reader, None);
    }
    let count = |house: &mut House, at: usize| published(&house.heard(readers[at])).len();
    assert_eq!(count(&mut house, 3), 1, "who has little keeps it");
    assert_eq!(count(&mut house, 2), few + 20, "who has less, too");
    assert!(count(&mut house, 1) <= 1, "what was evicted ends at once");
    let heard = house.heard(readers[0]);
    let got = published(&heard).len() as u64;
    assert_eq!(got + lost(&heard), (2 * few + 10) as u64);
    assert_eq!(house.shards[0].backlog_bytes_counted(), (0, 0));
}

/// A reader of a channel that takes nothing, and a publisher.
fn stalled(channel: &str, room: usize, change: impl Fn(&mut Config)) -> (House, Who, Who) {
    let mut house = House::with(build(1), change);
    let (reader, publisher) = (house.client(0, 0), house.client(0, 1));
    house.say(reader, &[subscribe(2, channel)]);
    house.go();
    house.heard(reader);
    house.wire(reader).room = Some(room);
    (house, reader, publisher)
}

fn lossy(policy: SlowConsumer, change: impl FnOnce(&mut Namespace)) -> Vec<Arc<Namespace>> {
    let mut namespace = Namespace {
        slow_consumer: policy,
        ..kept("lossy", 100)
    };
    change(&mut namespace);
    vec![Arc::new(namespace)]
}

#[test]
fn what_has_waited_too_long_goes_without_anything_new() {
    let (mut house, reader, publisher) = stalled("lossy:a", 0, |config| {
        config.channels.namespaces = lossy(SlowConsumer::DropOldest, |one| {
            one.outbox_age_max = Duration::from_secs(2);
        });
    });
    // What the socket was given at once is on its way.
    for n in 1..=5 {
        house.say(publisher, &[publish(10, "lossy:a", n)]);
        house.go();
    }
    house.wait(Duration::from_secs(1));
    house.say(publisher, &[publish(11, "lossy:a", 6)]);
    house.go();
    assert_eq!(house.shards[0].counters_mut().aged, 0);
    house.wait(Duration::from_millis(1500));
    house.give_room(reader, None);
    let heard = house.heard(reader);
    let got: Vec<u64> = published(&heard).iter().filter_map(Value::as_u64).collect();
    assert_eq!(got.last(), Some(&6), "{heard:?}");
    assert_eq!(got.len() as u64 + lost(&heard), 6, "{heard:?}");
    let said = heard
        .iter()
        .find(|one| one["push"].get("message").is_some());
    let said = &said.expect("a loss is told")["push"]["message"]["data"]["lost"];
    assert_eq!(said["to"], 5, "{said}");
    assert_eq!(said["from"], 6 - lost(&heard), "{said}");
    assert!(house.shards[0].counters_mut().aged > 0);
}

#[test]
fn who_has_kept_something_waiting_for_too_long_is_slow() {
    let (mut house, reader, publisher) = stalled("lossy:a", 0, |config| {
        config.channels.namespaces = lossy(SlowConsumer::Disconnect, |one| {
            one.outbox_age_max = Duration::from_secs(2);
        });
    });
    for n in 1..=5 {
        house.say(publisher, &[publish(10, "lossy:a", n)]);
        house.go();
    }
    house.wait(Duration::from_secs(1));
    assert_eq!(house.shards[0].counters_mut().disconnected_slow, 0);
    house.wait(Duration::from_millis(1500));
    assert_eq!(house.shards[0].counters_mut().disconnected_slow, 1);
    house.give_room(reader, None);
    assert_eq!(
        published(&house.heard(reader)).len(),
        5,
        "in order, up to its end"
    );
}

#[test]
fn slow_reader_gets_the_latest_of_each_key_and_hears_of_the_others() {
    let (mut house, reader, publisher) = stalled("lossy:a", 0, |config| {
        config.channels.namespaces = lossy(SlowConsumer::Conflate, |one| {
            one.conflate_key = Key::parse("data:k").ok();
        });
    });
    for n in 1..=60 {
        let data = match n % 10 {
            0 => json!({ "n": n }),
            _ => json!({ "k": n % 3, "n": n }),
        };
        house.say(publisher, &[publish(10, "lossy:a", data)]);
        house.go();
    }
    house.give_room(reader, None);
    let heard = house.heard(reader);
    let got: Vec<u64> = (published(&heard).iter())
        .filter_map(|data| data["n"].as_u64())
        .collect();
    // The first was on its way.
    assert_eq!(got[0], 1);
    assert_eq!(got[1..], [10, 20, 30, 40, 50, 57, 58, 59, 60]);
    let said = heard
        .iter()
        .find(|one| one["push"].get("message").is_some());
    let said = &said.expect("it is told")["push"]["message"]["data"]["lost"];
    let wanted =
        json!({ "channel": "lossy:a", "publications": 0, "conflated": 50, "from": 2, "to": 56 });
    assert_eq!(*said, wanted);
    assert_eq!(house.shards[0].counters_mut().conflated, 50);
}

#[test]
fn degraded_reader_is_told_where_to_poll_from() {
    let (mut house, reader, publisher) = stalled("lossy:a", 0, |config| {
        config.client.queue_max_size = 1000;
        config.poll.enabled = true;
        config.channels.namespaces = lossy(SlowConsumer::Degrade, |_| {});
    });
    let mut n = 0;
    while house.shards[0].counters_mut().disconnected_degraded == 0 {
        n += 1;
        house.say(publisher, &[publish(10, "lossy:a", "x".repeat(100))]);
        house.go();
        assert!(n < 100);
    }
    house.give_room(reader, None);
    let came = house.wire(reader).came.clone();
    let got = published(&house.heard(reader)).len();
    let reason = b"poll /connection/poll?epoch=";
    let at = came.windows(reason.len()).position(|part| part == reason);
    let at = at.expect("a reason");
    assert_eq!(came[at - 2..at], 4510_u16.to_be_bytes());
    let text = String::from_utf8_lossy(&came[at..]);
    let wanted = format!("&offset={got}&channel=lossy%3Aa");
    assert!(text.contains(&wanted) && got < n, "{text} {wanted}");
}
