//! Turns: of keys, of lanes, of lines in the log.

use super::*;
use crate::limits::GROUP_HELD_MAX;

/// Almost everything waits in the log.
pub(super) const TIGHT: Bounds = Bounds {
    line_kept: 1,
    retry_kept: Duration::from_millis(300),
    retries_kept: 1,
};

/// Rules of all kinds.
pub(super) fn kinds() -> Vec<Settings> {
    let by = |turns: Turns, ordered: bool| Settings {
        turns,
        ..settings(ordered)
    };
    let lanes = Lanes {
        by: Key::Data("n".into(), vec![]),
        weights: LANE_WEIGHTS,
    };
    let key = Some(Key::Channel);
    vec![
        settings(false),
        settings(true),
        by(
            Turns {
                key: key.clone(),
                concurrency: 1,
                ..Turns::default()
            },
            false,
        ),
        by(
            Turns {
                key: key.clone(),
                rate: 5.0,
                weights: [("a:1".into(), 3)].into(),
                ..Turns::default()
            },
            false,
        ),
        by(
            Turns {
                key: key.clone(),
                lanes: Some(lanes),
                ..Turns::default()
            },
            false,
        ),
        by(
            Turns {
                key,
                ..Turns::default()
            },
            true,
        ),
    ]
}

fn by_channel(turns: Turns) -> World {
    World::of(Settings {
        turns: Turns {
            key: Some(Key::Channel),
            ..turns
        },
        ..settings(false)
    })
}

fn channels(world: &World) -> Vec<&str> {
    let of = |out: &Out| world.entries[&out.cursor].record.channel.whole();
    world.out.iter().map(of).collect()
}

fn put(world: &mut World, cursors: std::ops::RangeInclusive<u64>, channel: &str, tag: &str) {
    for cursor in cursors {
        let record = crate::model::Record {
            tags: Box::new([("p".into(), tag.into())]),
            ..memory::record(channel, EventId(cursor.into()), "1")
        };
        world
            .entries
            .insert(cursor, memory::entry(cursor, cursor, record));
        world.log.insert(cursor, Kept::default());
    }
}

#[test]
fn backlog_of_one_key_stands_in_front_of_nobody() {
    let mut world = by_channel(Turns::default());
    put(&mut world, 1..=5000, "a:1", "");
    put(&mut world, 5001..=5003, "b:1", "");
    world.do_(&Step::Join(0, 4));
    world.turn();
    for _ in 0..6 {
        world.ack(0);
        world.turn();
    }
    let is_given = |cursor: &u64| {
        world.acked.contains(cursor) || world.out.iter().any(|out| out.cursor == *cursor)
    };
    assert_eq!((5001..=5003).filter(is_given).count(), 3);
    assert!(world.group.held() < 200, "{}", world.group.held());
}

#[test]
fn a_group_looks_ahead_between_fetches_that_find_enough_in_its_hand() {
    let mut world = by_channel(Turns::default());
    put(&mut world, 1..=5000, "a:1", "");
    put(&mut world, 5001..=5003, "b:1", "");
    let mut given = BTreeSet::new();
    for fetches in 1.. {
        world.do_(&Step::Fetch(2));
        while !world.out.is_empty() {
            given.insert(channels(&world)[0].to_owned());
            world.ack(0);
        }
        world.turn();
        if given.len() == 2 {
            break;
        }
        assert!(fetches < 20, "the backlog of one key stands in front");
    }
    world.advance(Duration::from_secs(3));
    assert_eq!(world.group.held(), 0, "nobody has come again");
}

#[test]
fn keys_take_turns_by_their_weight_and_no_more_of_one_is_under_way_than_may_be() {
    let mut world = by_channel(Turns {
        weights: [("a:1".into(), 3)].into(),
        ..Turns::default()
    });
    put(&mut world, 1..=100, "a:1", "");
    put(&mut world, 101..=200, "b:1", "");
    world.do_(&Step::Join(0, 40));
    world.turn();
    let of_a = channels(&world)
        .iter()
        .filter(|channel| **channel == "a:1")
        .count();
    assert_eq!(of_a, 30, "three of four");

    let mut world = by_channel(Turns {
        concurrency: 2,
        ..Turns::default()
    });
    put(&mut world, 1..=100, "a:1", "");
    put(&mut world, 101..=200, "b:1", "");
    world.do_(&Step::Join(0, 40));
    world.turn();
    assert_eq!(world.out.len(), 4);
}

#[test]
fn key_with_a_rate_gets_no_more_than_that_and_the_others_do_not_wait() {
    let mut world = by_channel(Turns {
        rate: 10.0,
        ..Turns::default()
    });
    put(&mut world, 1..=100, "a:1", "");
    put(&mut world, 101..=101, "b:1", "");
    world.do_(&Step::Join(0, 100));
    world.turn();
    assert_eq!(channels(&world), ["a:1", "b:1"]);
    for _ in 0..10 {
        world.advance(Duration::from_millis(100));
    }
    assert_eq!(world.out.len(), 12);
}

#[test]
fn urgent_lanes_go_first_and_none_waits_for_ever() {
    let mut world = World::of(Settings {
        turns: Turns {
            lanes: Some(Lanes {
                by: Key::Tag("p".into()),
                weights: [1, 2, 4, 8],
            }),
            ..Turns::default()
        },
        ..settings(false)
    });
    put(&mut world, 1..=1000, "a:1", "0");
    put(&mut world, 1001..=2000, "a:1", "3");
    world.do_(&Step::Join(0, 90));
    world.turn();
    // What was seen first was given before anything urgent was known.
    for _ in 0..90 {
        world.ack(0);
    }
    world.turn();
    let urgent = world.out.iter().filter(|out| out.cursor > 1000).count();
    assert_eq!(urgent, 80, "eight of nine");
}

#[test]
fn ordered_channel_that_waits_with_much_behind_it_stops_no_other() {
    let mut world = World::new(true);
    let much = GROUP_HELD_MAX as u64 + 5000;
    put(&mut world, 1..=much, "a:1", "");
    put(&mut world, much + 1..=much + 2, "b:1", "");
    world.do_(&Step::Join(0, 10));
    world.turn();
    assert_eq!(channels(&world), ["a:1", "b:1"]);
    assert!(world.group.held() < 200, "{}", world.group.held());
    // It fails for an hour: the line waits with it, over a restart as well.
    let at = world.out.iter().position(|out| out.cursor == 1);
    world.do_(&Step::Nak(at.expect("it is under way"), Some(3_600_000)));
    world.restart();
    world.do_(&Step::Join(0, 10));
    world.turn();
    assert_eq!(channels(&world), ["b:1"], "one of the other channel");
    world.advance(Duration::from_secs(3601));
    let first = world.out.iter().find(|out| out.cursor <= much);
    assert_eq!(first.map(|out| out.cursor), Some(1));
}

#[test]
fn failures_that_wait_are_not_held_and_keep_nobody_from_going_on() {
    let mut world = World::new(false);
    let many = GROUP_HELD_MAX as u64 + 100;
    put(&mut world, 1..=many, "a:1", "");
    world.do_(&Step::Join(0, 1000));
    world.turn();
    while let Some((delivery, holder, cursor)) = world.pick(0) {
        world.out.retain(|out| out.cursor != cursor);
        let later = Some(Duration::from_secs(3600));
        assert!(
            world
                .group
                .handle_failed(world.now, holder, delivery, "later", later)
        );
        if world.out.is_empty() {
            world.turn();
        }
    }
    assert_eq!(world.group.held(), 0);
    put(&mut world, many + 1..=many + 1, "a:1", "");
    world.turn();
    assert_eq!(world.out.len(), 1, "new work goes on");
    world.advance(Duration::from_secs(3601));
    assert_eq!(world.out.len(), 1000, "and what waited comes back");
    assert_eq!(
        world
            .log
            .values()
            .filter(|kept| kept.failures.len() == 1)
            .count() as u64,
        many
    );
}

#[test]
fn other_keys_begin_anew_with_what_waits_in_the_log() {
    let mut world = by_channel(Turns::default());
    world.bounds = TIGHT;
    world.group.bounds = TIGHT;
    put(&mut world, 1..=50, "a:1", "x");
    world.do_(&Step::Join(0, 2));
    world.turn();
    assert!(world.group.lines.in_log() > 40);
    let settings = Settings {
        turns: Turns {
            key: Some(Key::Tag("p".into())),
            ..Turns::default()
        },
        ..settings(false)
    };
    world.settings = settings.clone();
    world.group.handle_settings(world.now, settings);
    world.turn();
    world.finish();
}

#[test]
fn other_bounds_of_the_same_keys_leave_nothing_behind_in_the_log() {
    let mut world = by_channel(Turns::default());
    world.bounds = TIGHT;
    world.group.bounds = TIGHT;
    put(&mut world, 1..=50, "a:1", "x");
    world.do_(&Step::Join(0, 2));
    world.turn();
    assert!(world.group.lines.in_log() > 40);
    let settings = Settings {
        turns: Turns {
            key: Some(Key::Channel),
            concurrency: 1,
            ..Turns::default()
        },
        ..settings(false)
    };
    world.settings = settings.clone();
    world.group.handle_settings(world.now, settings);
    assert!(!world.group.is_releasing());
    assert!(world.group.lines.in_log() > 40);
    world.turn();
    world.finish();
}

#[test]
fn paused_group_gives_nothing_and_says_so() {
    let mut world = World::new(false);
    world.do_(&Step::Join(0, 2));
    let paused = Settings {
        paused: true,
        ..settings(false)
    };
    world.group.handle_settings(world.now, paused);
    let told = world.group.poll_output();
    assert_eq!(told, Some(Output::Paused(worker(0), true)));
    world.publish(0);
    assert!(world.out.is_empty());
    world.group.handle_settings(world.now, settings(false));
    world.turn();
    assert_eq!(world.out.len(), 1);
}
