//! What waits for its time.

use super::*;
use crate::upstream::log::{Name, Page, Scheduled as _, Which};

fn later(channel: &str, data: &str, due_ms: u64) -> Draft {
    use std::sync::atomic::{AtomicU64, Ordering};
    static EVENTS: AtomicU64 = AtomicU64::new(1);
    let mut draft = append(channel, data);
    let event = EVENTS.fetch_add(1, Ordering::Relaxed);
    draft.record.event = EventId::new(1, u128::from(event));
    draft.due_ms = due_ms;
    draft
}

fn named(mut draft: Draft, key: &str) -> Draft {
    draft.record.key = key.into();
    draft
}

fn which(channel: &str, key: &str) -> Which {
    Which {
        channel: ChannelName::from_whole(channel),
        name: Name::Key(key.into()),
    }
}

async fn waiting(log: &Embedded, channel: Option<&str>) -> Vec<String> {
    let mut wanted = Page {
        channel: channel.map(ChannelName::from_whole),
        limit: 3,
        bytes: usize::MAX,
        ..Page::default()
    };
    let mut found = Vec::new();
    loop {
        let page = log.scheduled(&wanted).await.expect("read");
        let Some(last) = page.last() else {
            return found;
        };
        wanted.after = Some(last.place);
        let text = |data: &[u8]| String::from_utf8(data.to_vec()).unwrap();
        found.extend(page.iter().map(|one| text(&one.draft.record.data)));
    }
}

async fn next(log: &Embedded) -> Vec<String> {
    data(&log.tail().await.expect("followed"))
}

#[test]
fn what_is_due_comes_in_the_order_of_the_times_also_after_a_restart() {
    let directory = TempDir::new().unwrap();
    run(async {
        let log = open(directory.path());
        let soon = wall_ms() + 300;
        let batch = vec![
            later("a", "late", soon + 3_600_000),
            later("a", "second", soon + 1),
            later("b", "first", soon),
            later("a", "third", soon + 1),
            append("a", "now"),
        ];
        let stored = store(&log, batch).await;
        let told: Vec<_> = stored
            .iter()
            .map(|one| (one.position.offset.0, one.due_ms))
            .collect();
        assert_eq!(told[3..], [(0, soon + 1), (1, 0)]);
        assert_eq!(
            waiting(&log, None).await,
            ["first", "second", "third", "late"]
        );
        assert_eq!(waiting(&log, Some("a")).await, ["second", "third", "late"]);
        log.close().await;
        drop(log);
        let log = open(directory.path());
        assert_eq!(log.status().schedule.pending, 4);
        assert_eq!(log.status().schedule.next_ms, Some(soon));
        let mut came = Vec::new();
        while came.len() < 3 {
            came.extend(next(&log).await);
        }
        assert!(wall_ms() > soon);
        assert_eq!(came, ["first", "second", "third"]);
        let slice = page(&log, "a", 0, 10).await;
        assert_eq!(data(&slice.entries), ["now", "second", "third"]);
        assert_eq!(waiting(&log, None).await, ["late"]);
        let late = &log.status().schedule.late;
        assert_eq!(late.count(), 3);
        log.close().await;
        drop(log);
        // None comes again.
        let log = open(directory.path());
        assert_eq!(log.status().schedule.pending, 1);
        assert_eq!(everything(&log).await.len(), 4);
    });
}

#[test]
fn more_than_one_step_takes_come_all_and_publishers_go_on_in_between() {
    let directory = TempDir::new().unwrap();
    run(async {
        let log = open(directory.path());
        let soon = wall_ms() + 400;
        for part in 0..5 {
            let batch = (0..1000).map(|n| later("a", &format!("{part} {n}"), soon));
            store(&log, batch.collect()).await;
        }
        let first = next(&log).await;
        assert!(first.len() < 5000);
        store(&log, vec![append("b", "between")]).await;
        let mut came = first;
        while came.len() < 5001 {
            came.extend(next(&log).await);
        }
        let at = came.iter().position(|data| data == "between");
        assert!(at.is_some_and(|at| at < 5000), "{at:?}");
        came.retain(|data| data != "between");
        let expected: Vec<String> = (0..5)
            .flat_map(|part| (0..1000).map(move |n| format!("{part} {n}")))
            .collect();
        assert!(came == expected, "in the order of taking in");
        assert_eq!(log.status().schedule.pending, 0);
    });
}

#[test]
fn a_key_belongs_to_the_first_whether_it_waits_or_stands() {
    let directory = TempDir::new().unwrap();
    run(async {
        let log = open(directory.path());
        let far = wall_ms() + 3_600_000;
        let one = named(later("a", "1", far), "k");
        let event = one.record.event;
        let batch = vec![
            one,
            named(later("a", "2", far + 5), "k"),
            keyed("a", "3", "k"),
            named(later("b", "4", far), "k"),
        ];
        let stored = store(&log, batch).await;
        let told = |one: &Appended| (one.is_new, one.due_ms, one.event);
        assert_eq!(told(&stored[0]), (true, far, Some(event)));
        assert_eq!(told(&stored[1]), (false, far, Some(event)));
        assert_eq!(told(&stored[2]), (false, far, Some(event)));
        assert!(stored[3].is_new, "another channel");
        let again = store(&log, vec![keyed("a", "5", "k")]).await;
        assert_eq!(told(&again[0]), (false, far, Some(event)));
        // The other way round.
        store(&log, vec![keyed("a", "6", "other")]).await;
        let later_one = store(&log, vec![named(later("a", "7", far), "other")]).await;
        assert_eq!(
            (later_one[0].is_new, later_one[0].position.offset.0),
            (false, 1)
        );
        assert_eq!(waiting(&log, None).await, ["1", "4"]);
        let cancelled = log.cancel(&which("a", "k")).await.expect("done");
        assert_eq!(cancelled.map(|one| one.draft.record.event), Some(event));
        assert_eq!(log.cancel(&which("a", "k")).await, Ok(None));
        assert_eq!(
            offset(&log, keyed("a", "8", "k")).await,
            (2, true),
            "it is free"
        );
    });
}

#[test]
fn a_changed_time_counts_and_what_is_not_first_any_more_does_not_come() {
    let directory = TempDir::new().unwrap();
    run(async {
        let log = open(directory.path());
        let now = wall_ms();
        let batch = vec![
            named(later("a", "1", now + 200), "1"),
            named(later("a", "2", now + 3_600_000), "2"),
            named(later("a", "3", now + 3_600_001), "3"),
        ];
        store(&log, batch).await;
        let changed = log.change(&which("a", "1"), now + 3_600_002).await;
        assert_eq!(
            changed.expect("done").expect("it waits").place.due_ms,
            now + 3_600_002
        );
        assert_eq!(log.status().schedule.next_ms, Some(now + 3_600_000));
        assert_eq!(waiting(&log, Some("a")).await, ["2", "3", "1"]);
        log.change(&which("a", "3"), now + 1).await.expect("done");
        assert_eq!(next(&log).await, ["3"]);
        assert_eq!(log.change(&which("a", "3"), now).await, Ok(None));
        assert_eq!(waiting(&log, None).await, ["2", "1"]);
        assert_eq!(log.status().schedule.pending, 2);
    });
}

#[test]
fn more_than_may_wait_are_refused_and_others_are_stored() {
    let directory = TempDir::new().unwrap();
    run(async {
        let mut config = config(directory.path());
        config.scheduled_max = 2;
        let log = Embedded::open(&config).expect("opens");
        let far = wall_ms() + 3_600_000;
        let batch = vec![
            later("a", "1", far),
            append("a", "now"),
            later("a", "2", far),
            later("a", "3", far),
        ];
        let results = log.append(batch).await;
        assert!(results[..3].iter().all(Result::is_ok));
        assert!(matches!(results[3], Err(LogError::Full(_))));
        assert_eq!(waiting(&log, None).await, ["1", "2"]);
    });
}

#[test]
fn times_are_those_of_the_machine_whichever_way_its_clock_is_set() {
    let directory = TempDir::new().unwrap();
    run(async {
        let log = open(directory.path());
        let now = wall_ms();
        let far = now + 3_600_000;
        store(&log, vec![later("a", "1", far), later("a", "2", far + 1)]).await;
        let publish_at = |ms: u64| log.inner.borrow_mut().publish_due(ms).expect("stored");
        assert!(!publish_at(now - 86_400_000), "set back: nothing comes");
        assert!(!publish_at(far - 1));
        assert!(publish_at(far), "set forward: what it says is due");
        assert_eq!(next(&log).await, ["1"]);
        assert!(!publish_at(now), "and back again: once is enough");
        assert!(publish_at(far + 1));
        assert_eq!(next(&log).await, ["2"]);
        let slice = page(&log, "a", 0, 10).await;
        let taken: Vec<u64> = slice.entries.iter().map(|e| e.record.unix_ms).collect();
        assert_eq!(taken, [far, far + 1], "taken in when they were published");
    });
}
