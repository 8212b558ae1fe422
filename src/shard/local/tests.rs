use std::time::Duration;

use super::*;
use crate::broker::hub::{Class, Delta, Opener};
use crate::config::Namespace;
use crate::mem::Place;
use crate::mesh::durable::Span;
use crate::model::{ChannelName, Epoch, Format, Speaker};

/// A channel of this shard, with subscribers on connections 0, 1, 2 … of these speakers that stand at `position`.
fn local(namespace: Namespace, speakers: &[Speaker], position: StreamPosition) -> (Local, HubId) {
    let mut local = Local::new(&Key::new([1; 32]), &Arc::default());
    let id = enter(&mut local, &Arc::new(namespace));
    assert!(!local.confirmed(id, position), "nobody was there");
    for (conn, &speaker) in speakers.iter().enumerate() {
        if conn > 0 {
            enter(&mut local, &Arc::default());
        }
        let class = Class {
            format: Format {
                speaker,
                ..Format::default()
            },
            filter: None,
            delta: Delta::Off,
            count: 0,
        };
        local.hub.activate(id, conn as u32, conn == 0, class);
    }
    (local, id)
}

fn enter(local: &mut Local, namespace: &Arc<Namespace>) -> HubId {
    let name = ChannelName::from_whole("a");
    let entered = local.hub.enter(&name, namespace, Opener::default());
    entered.unwrap()
}

fn life(epoch: u64) -> Epoch {
    Epoch([b'a' + epoch as u8; 8])
}

fn position(epoch: u64, offset: u64) -> StreamPosition {
    StreamPosition {
        epoch: life(epoch),
        offset: Offset(offset),
    }
}

fn publication(epoch: u64, offset: u64) -> Arc<Publication> {
    Arc::new(Publication {
        epoch: life(epoch),
        offset: Offset(offset),
        data: vec![b'1'; 100].into(),
        json: true,
        info: None,
        tags: Box::default(),
        unix_ms: 0,
        tells_time: false,
        patch: None,
        delta: false,
    })
}

const ONE: &[Speaker] = &[Speaker::Centrifuge];

#[test]
fn a_publication_is_next_late_early_or_of_another_life() {
    use Arrival::{Gap, Ignored, Next, Restarted};
    // Where the subscribers stand, whether they catch up, what comes; what that is and where they stand then.
    let rows = [
        (position(1, 5), false, (1, 6), Next, position(1, 6)),
        (position(1, 5), false, (1, 5), Ignored, position(1, 5)),
        (position(1, 5), false, (1, 1), Ignored, position(1, 5)),
        (position(1, 5), false, (1, 7), Gap, position(1, 5)),
        (position(1, 5), true, (1, 6), Ignored, position(1, 5)),
        (position(1, 5), true, (2, 1), Ignored, position(1, 5)),
        (
            position(1, 5),
            false,
            (2, 1),
            Restarted(position(2, 1)),
            position(1, 5),
        ),
        (position(1, 0), false, (1, 1), Next, position(1, 1)),
    ];
    for (row, (at, catches_up, (epoch, offset), wanted, then)) in rows.into_iter().enumerate() {
        let (mut local, id) = local(Namespace::default(), ONE, at);
        if catches_up {
            assert!(local.catch_up(id).is_some());
        }
        let arrival = local.arrived(id, &publication(epoch, offset));
        assert_eq!(arrival, wanted, "row {row}");
        let channel = local.hub().channel(id).unwrap();
        assert_eq!(channel.position, then, "row {row}");
    }
    let (mut nobody, id) = local(Namespace::default(), &[], position(1, 5));
    assert_eq!(nobody.arrived(id, &publication(1, 6)), Ignored);
}

#[test]
fn what_was_read_again_says_what_lacks() {
    // Where they stand, what was read, where it ends; where it begins if something lacks.
    let rows = [
        (5, Span::behind(5, 5), 5, None),
        (5, Span::behind(5, 8), 8, None),
        (5, Span::behind(8, 8), 8, Some(8)),
        (5, Span { from: 8, to: 9 }, 9, Some(7)),
        (0, Span::behind(0, 1), 1, None),
        (5, Span::behind(4, 8), 8, None),
    ];
    for (row, (at, read, end, lacks)) in rows.into_iter().enumerate() {
        let found = gap(position(1, at), read, position(1, end));
        assert_eq!(found, lacks.map(|at| position(1, at)), "row {row}");
    }
}

#[test]
fn as_much_is_said_to_be_missed_as_is_known() {
    let rows = [
        (position(1, 5), position(1, 9), Some(4)),
        (position(1, 5), position(1, 5), Some(0)),
        (position(1, 5), position(2, 1), None),
        (position(1, 0), position(2, 3), None),
        (position(1, 0), position(2, 0), Some(0)),
    ];
    for (row, (before, after, wanted)) in rows.into_iter().enumerate() {
        assert_eq!(missed(before, after), wanted, "row {row}");
    }
}

#[test]
fn only_the_answer_to_the_last_question_counts_and_once() {
    let (mut local, id) = local(Namespace::default(), ONE, position(1, 5));
    assert_eq!(local.caught_up(id, 0), None, "nothing was asked");
    let round = |question: Option<(u32, Query)>| question.unwrap().0;
    let first = round(local.catch_up(id));
    local.could_not_ask(id, first);
    let second = round(local.catch_up(id));
    assert!(!local.is_behind(id, position(1, 9)), "it is read already");
    assert_eq!(local.caught_up(id, first), None);
    assert_eq!(local.unasked(), 1);
    assert_eq!(local.take_unasked(), [], "the first question is old");
    local.could_not_ask(id, second);
    assert_eq!(local.take_unasked(), [id]);
    assert_eq!(local.caught_up(id, second), Some(position(1, 5)));
    assert_eq!(local.caught_up(id, second), None, "it came");
    assert!(local.is_behind(id, position(1, 9)));
    assert!(!local.is_behind(id, position(1, 5)));
    local.move_to(id, Offset(7));
    local.move_to(id, Offset(6));
    assert!(local.is_before(id, Offset(8)) && !local.is_before(id, Offset(7)));
}

#[test]
fn who_comes_later_finds_out_that_the_others_missed_something() {
    let (mut local, id) = local(Namespace::default(), ONE, position(1, 5));
    assert!(!local.confirmed(id, position(1, 5)));
    assert!(local.confirmed(id, position(1, 6)));
    assert!(local.confirmed(id, position(2, 5)));
    assert_eq!(local.restart(id, position(2, 5)), Some(position(1, 5)));
    assert!(!local.confirmed(id, position(2, 5)));
}

#[test]
fn bytes_of_runs_are_counted_until_they_are_given_or_their_channel_is_gone() {
    let (mut local, id) = local(Namespace::default(), ONE, position(1, 0));
    let mut compression = Compression::new(&crate::config::Config::built_in().websocket);
    let now = Instant(7);
    for offset in 1..=3 {
        assert!(
            !local.take_in(id, &publication(1, offset), Instant(0), true),
            "it fits"
        );
    }
    assert!(local.has_runs() && local.run_bytes() > 300);
    let runs = take_runs(&mut local, now);
    assert_eq!(runs, [id], "one run for all");
    let given = local.begin_run(id, &mut compression).unwrap();
    assert_eq!(given.run.len(), 3);
    assert_eq!(given.written.pieces()[0].publications, 3);
    local.put_back(given.written);
    local.end_run(id, given.run);
    local.runs_given();
    assert_eq!((local.run_bytes(), local.has_runs()), (0, false));
    assert!(local.begin_run(id, &mut compression).is_none());
    assert_eq!(local.encoded(), [3, 0]);
    assert_eq!(local.take_fan_out_since(), Some(now));
    assert_eq!(local.take_fan_out_since(), None);
    // The last subscriber goes before its run is given.
    local.take_in(id, &publication(1, 4), Instant(0), true);
    local.hub.exit(id, Some(Place::new(0)));
    take_runs(&mut local, now);
    assert!(local.begin_run(id, &mut compression).is_none());
    local.runs_given();
    assert_eq!(local.run_bytes(), 0);
}

#[test]
fn a_run_is_given_at_once_where_it_is_large_or_may_be_dropped() {
    let lossy = Namespace {
        slow_consumer: crate::config::namespace::SlowConsumer::DropOldest,
        ..Namespace::default()
    };
    let mixed = [Speaker::Centrifuge, Speaker::Unidirectional];
    let fits = |most: usize, classes: usize| most.div_ceil((100 + 1 + 96) * classes);
    // How many publications of 100 bytes make a run that is given.
    let rows = [
        (lossy, ONE, 1),
        (Namespace::default(), ONE, fits(RUN_BYTES, 1)),
        (Namespace::default(), &mixed[..], fits(MIXED_RUN_BYTES, 2)),
    ];
    for (row, (namespace, speakers, wanted)) in rows.into_iter().enumerate() {
        let (mut local, id) = local(namespace, speakers, position(1, 0));
        let one = publication(1, 1);
        let taken = (1..).find(|_| local.take_in(id, &one, Instant(0), true));
        assert_eq!(taken, Some(wanted), "row {row}");
    }
}

#[test]
fn what_came_in_while_a_run_was_given_is_not_lost_with_it() {
    let (mut local, id) = local(Namespace::default(), ONE, position(1, 0));
    let mut compression = Compression::new(&crate::config::Config::built_in().websocket);
    local.take_in(id, &publication(1, 1), Instant(0), true);
    let given = local.begin_run(id, &mut compression).unwrap();
    local.take_in(id, &publication(1, 2), Instant(0), true);
    local.put_back(given.written);
    local.end_run(id, given.run);
    let next = local.begin_run(id, &mut compression).unwrap();
    assert_eq!(next.run[0].offset, Offset(2));
}

#[test]
fn subscribers_are_picked_by_what_they_get() {
    let speakers = [Speaker::Centrifuge, Speaker::Poll, Speaker::Centrifuge];
    let (local, id) = local(Namespace::default(), &speakers, position(1, 0));
    let polls = |class: &Class| class.format.speaker == Speaker::Poll;
    assert_eq!(local.slots(id, polls), [1]);
    assert_eq!(local.slots(id, |_| true), [0, 1, 2]);
    assert!(
        local.has_polls(id)
            && local.has_json(id)
            && local.hub().channel(id).unwrap().observers == 1
    );
}

#[test]
fn parts_wait_for_their_connection_and_go_with_it() {
    let mut local = Local::new(&Key::new([1; 32]), &Arc::default());
    let hub = enter(&mut local, &Arc::default());
    let conn = |slot| ConnId {
        slot,
        generation: 0,
    };
    for slot in [1, 2, 2, 3] {
        local.part_again(conn(slot), hub);
    }
    assert_eq!((local.parts(), local.parts_ready()), (4, 4));
    while let Some((conn, hub)) = local.next_part() {
        local.stall_part(conn, hub);
    }
    assert!(local.has_stalled() && !local.has_parts());
    local.wake_parts(2);
    assert_eq!((local.parts(), local.parts_ready()), (4, 2));
    local.forget_parts(3);
    local.wake_parts(3);
    assert_eq!(local.next_part(), Some((conn(2), hub)));
    assert_eq!((local.parts(), local.parts_ready()), (2, 1));
}

/// The channels with a run, in the order in which they are given.
fn take_runs(local: &mut Local, now: Instant) -> Vec<HubId> {
    std::iter::from_fn(|| local.next_run(now))
        .map(|(id, _)| id)
        .collect()
}

/// Publications of the channel wait for others.
fn batched(size: u32, latest: bool) -> Namespace {
    Namespace {
        batch_max_delay: Duration::from_nanos(100),
        batch_max_size: size,
        batch_flush_latest: latest,
        ..Namespace::default()
    }
}

/// What subscribers are given now: offsets, and how many were replaced.
fn give(local: &mut Local, id: HubId) -> (Vec<u64>, usize, u32) {
    let mut compression = Compression::new(&crate::config::Config::built_in().websocket);
    let given = local.begin_run(id, &mut compression).unwrap();
    let offsets = given.run.iter().map(|one| one.offset.0).collect();
    let written = given.written.pieces()[0].publications;
    local.put_back(given.written);
    local.end_run(id, given.run);
    (offsets, given.replaced, written)
}

#[test]
fn publications_wait_for_each_other_until_their_time_or_number_is_reached() {
    let (mut local, id) = local(batched(3, false), ONE, position(1, 0));
    for (at, offset) in [(7, 1), (90, 2)] {
        assert!(!local.take_in(id, &publication(1, offset), Instant(at), true));
    }
    assert_eq!(
        (local.has_runs(), local.run_bytes()),
        (false, 0),
        "no ring space"
    );
    assert!(local.waiting_bytes() > 200);
    assert_eq!(local.next_waited_at(), Some(Instant(107)));
    assert!(!local.take_waited(Instant(106)));
    assert!(local.take_waited(Instant(107)) && !local.take_waited(Instant(107)));
    assert!(local.has_runs() && local.run_bytes() > 200);
    assert_eq!((local.waiting_bytes(), local.has_waiting()), (0, false));
    take_runs(&mut local, Instant(107));
    assert_eq!(give(&mut local, id), (vec![1, 2], 0, 2));
    local.runs_given();
    assert_eq!(local.run_bytes(), 0);
    // With the third there are as many as may wait.
    for offset in 3..=5 {
        local.take_in(id, &publication(1, offset), Instant(200), true);
    }
    take_runs(&mut local, Instant(200));
    assert_eq!(give(&mut local, id), (vec![3, 4, 5], 0, 3));
    local.runs_given();
    // It is listed still, and what comes now goes with the others of the window that it is listed in.
    local.take_in(id, &publication(1, 6), Instant(290), true);
    assert_eq!(local.next_waited_at(), Some(Instant(300)));
    // Somebody subscribes: what waits is given before.
    assert_eq!(give(&mut local, id).0, [6]);
    assert_eq!(local.waiting_bytes(), 0);
    assert!(local.take_waited(Instant(300)));
    assert!(!local.has_runs() && !local.has_waiting());
}

#[test]
fn nothing_waits_where_subscribers_are_told_to_go_or_too_much_does() {
    let (mut local, id) = local(batched(0, false), ONE, position(1, 0));
    local.take_in(id, &publication(1, 1), Instant(0), true);
    local.hurry(Instant(1));
    assert!(local.take_waited(Instant(1)) && local.has_runs());
    local.take_in(id, &publication(1, 2), Instant(1), false);
    take_runs(&mut local, Instant(1));
    assert_eq!(give(&mut local, id).0, [1, 2]);
    local.runs_given();
    // A run that is as large as may be goes at once.
    let mut taken =
        (1..).map(|offset| local.take_in(id, &publication(1, offset), Instant(1), true));
    assert_eq!(
        taken.position(|goes| goes),
        Some(RUN_BYTES.div_ceil(197) - 1)
    );
    // A channel that goes takes its bytes with it.
    let bytes = local.run_bytes();
    assert!(give(&mut local, id).0.len() > 100 && bytes > 0);
    local.take_in(id, &publication(1, 9), Instant(1), true);
    local.hub.exit(id, Some(Place::new(0)));
    assert!(local.take_waited(Instant(200)) && !local.has_waiting());
    assert_eq!((local.run_bytes(), local.waiting_bytes()), (0, 0));
}

#[test]
fn of_what_waited_the_latest_is_given_and_the_others_are_let_go() {
    let (mut local, id) = local(batched(3, true), ONE, position(1, 0));
    local.take_in(id, &publication(1, 1), Instant(0), true);
    let one = local.waiting_bytes();
    local.take_in(id, &publication(1, 2), Instant(0), true);
    assert_eq!(local.waiting_bytes(), one, "one is held");
    local.take_in(id, &publication(1, 3), Instant(0), true);
    assert!(local.has_runs(), "three came");
    assert_eq!(give(&mut local, id), (vec![3], 2, 1));
    // With filters each gets the latest that passes, so all are held.
    let leaf = crate::model::FilterNode {
        key: "kind".into(),
        cmp: "nex".into(),
        ..crate::model::FilterNode::default()
    };
    let class = Class {
        format: Format::default(),
        filter: Some(Arc::new(crate::broker::filter::Filter::new(&leaf).unwrap())),
        delta: Delta::Off,
        count: 0,
    };
    enter(&mut local, &Arc::default());
    local.hub.activate(id, 1, false, class);
    local.take_in(id, &publication(1, 4), Instant(0), true);
    local.take_in(id, &publication(1, 5), Instant(0), true);
    assert_eq!(give(&mut local, id), (vec![4, 5], 1, 1));
}

#[test]
fn a_patch_of_what_was_left_out_is_told_whole() {
    use crate::protocol::push::PayloadShape;
    let patched = |offset| {
        let mut one = Arc::unwrap_or_clone(publication(1, offset));
        one.patch = Some(vec![b'p'; 3].into());
        Arc::new(one)
    };
    let (mut local, id) = local(batched(0, true), &[], position(1, 0));
    let class = Class {
        format: Format::default(),
        filter: None,
        delta: Delta::Based,
        count: 0,
    };
    local.hub.activate(id, 0, false, class);
    let mut compression = Compression::new(&crate::config::Config::built_in().websocket);
    let mut told = |local: &mut Local| {
        let given = local.begin_run(id, &mut compression).unwrap();
        let text = String::from_utf8_lossy(given.written.bytes(0)).into_owned();
        local.put_back(given.written);
        local.end_run(id, given.run);
        match text.contains("ppp") {
            true => PayloadShape::Patch,
            false => PayloadShape::Whole,
        }
    };
    local.take_in(id, &patched(1), Instant(0), true);
    assert_eq!(told(&mut local), PayloadShape::Patch);
    for offset in [2, 3] {
        local.take_in(id, &patched(offset), Instant(0), true);
    }
    assert_eq!(told(&mut local), PayloadShape::Whole);
    local.take_in(id, &patched(4), Instant(0), true);
    assert_eq!(
        told(&mut local),
        PayloadShape::Patch,
        "it has the one before"
    );
}

#[test]
fn joins_and_leaves_beyond_the_rate_are_counted_for_a_second() {
    let namespace = Namespace {
        join_leave_rate: 2,
        ..Namespace::default()
    };
    let (mut local, id) = local(namespace, ONE, position(1, 0));
    let told: Vec<bool> = [true, true, true, false, true]
        .map(|joined| local.is_told(id, joined, Instant(5)))
        .into();
    assert_eq!(told, [true, true, false, false, false]);
    let end = Instant(5) + NEWS_INTERVAL;
    assert_eq!(local.next_news_at(), Some(end));
    assert_eq!(local.next_news(Instant(5)), None);
    let (of, news) = local.next_news(end).unwrap();
    assert_eq!((of, news.joined, news.left, news.told), (id, 2, 1, 2));
    assert!(local.is_told(id, true, end), "another second");
    // Nobody is told, so nothing is counted.
    local.hub.exit(id, Some(Place::new(0)));
    assert!(!local.is_told(id, true, end));
    assert_eq!(
        local.next_news(end + NEWS_INTERVAL),
        Some((id, News::default()))
    );
    assert_eq!((local.next_news_at(), local.next_news(end)), (None, None));
}
