//! Dead letters: one stroke, their counts, and their end.

use super::*;
use crate::upstream::log::{Bounds, Cause, Lease};

fn failures(reason: &str) -> Vec<Failure> {
    vec![Failure {
        attempt: 1,
        unix_ms: 7,
        reason: reason.into(),
        worker: "w".into(),
        next_unix_ms: 0,
    }]
}

fn letter(group: &str, entry: &Arc<Entry>, reason: &str, unix_ms: u64) -> DeadLetter {
    DeadLetter {
        group: group.into(),
        entry: Arc::clone(entry),
        failures: failures(reason),
        unix_ms,
    }
}

const NO_BOUNDS: Bounds = Bounds {
    age: Duration::ZERO,
    letters: 0,
    bytes: 0,
};

#[test]
fn letter_and_announcement_and_end_of_the_lease_are_one_stroke() {
    let directory = TempDir::new().unwrap();
    run(async {
        let log = open(directory.path());
        log.open_group(&group("g", &["a"])).await.unwrap();
        store(&log, vec![append("a", "1"), append("a", "22")]).await;
        let leased = log.fetch("g", 1).await.unwrap();
        let dead = letter("g", &leased[0].entry, "no", 9);
        let said = keyed("$dead:g", "said", "k");
        let left = log
            .give_up(leased[0].lease, &dead, Some(said.clone()))
            .await;
        assert_eq!(left, Ok(None));
        // It is killed: nothing else is written.
        drop(log);
        let log = open(directory.path());
        assert_eq!(
            log.dead_letters(None, None, 9).await,
            Ok(vec![dead.clone()])
        );
        assert_eq!(data(&page(&log, "$dead:g", 0, 9).await.entries), ["said"]);
        let rest = log.fetch("g", 9).await.unwrap();
        assert_eq!(rest.len(), 1, "the entry of the letter does not come again");
        assert_eq!(rest[0].entry.cursor, 2);
        // Once more changes nothing.
        let left = log.give_up(leased[0].lease, &dead, Some(said)).await;
        assert_eq!(left, Ok(None));
        assert_eq!(log.census().letters, 1);
        assert_eq!(page(&log, "$dead:g", 0, 9).await.entries.len(), 1);
        // Nobody takes an announcement who does not name it.
        log.open_group(&group("all", &["*"])).await.unwrap();
        log.open_group(&group("alerts", &["$dead:*"]))
            .await
            .unwrap();
        let cursors = async |name: &str| {
            let leased = log.fetch(name, 9).await.unwrap();
            leased
                .iter()
                .map(|one| one.entry.cursor)
                .collect::<Vec<_>>()
        };
        assert_eq!(cursors("all").await, [1, 2]);
        assert_eq!(cursors("alerts").await, [3]);
    });
}

#[test]
fn entry_whose_letter_cannot_be_kept_on_a_full_disk_stays_leased_and_dies_later() {
    // Where the test may not mount, there is no small disk to fill.
    let Some(small) = faults::Small::mount(24 << 20) else {
        return;
    };
    let path = small.0.path();
    let directory = path.join("log");
    std::fs::write(path.join("ballast"), vec![1; 12 << 20]).unwrap();
    run(async {
        let log = open(&directory);
        log.open_group(&group("g", &["a"])).await.unwrap();
        let text = "x".repeat(50_000);
        store(&log, (0..40).map(|_| append("a", &text)).collect()).await;
        let leased = log.fetch("g", 40).await.unwrap();
        let dead = |at: usize| {
            let mut entry = (*leased[at % 40].entry).clone();
            entry.record.event = EventId::new(2, at as u128);
            letter("g", &Arc::new(entry), "no", 9)
        };
        let said = |at: usize| Some(keyed("$dead:g", "said", &at.to_string()));
        let held = |log: &Embedded| log.inner.borrow().groups["g"].lag(0, None).leased;
        // The first letters end a lease each, those after them fill the disk.
        let mut kept = 0;
        let lease = |at: usize| {
            if at < 10 {
                leased[at].lease
            } else {
                Lease(9999)
            }
        };
        while log
            .give_up(lease(kept), &dead(kept), said(kept))
            .await
            .is_ok()
        {
            kept += 1;
        }
        assert!(kept > 10 && log.status().down.is_some());
        assert_eq!(held(&log), 30);
        let refused = log.give_up(leased[39].lease, &dead(kept), said(kept)).await;
        assert!(matches!(refused, Err(LogError::Unavailable { .. })));
        std::fs::remove_file(path.join("ballast")).unwrap();
        while log.status().down.is_some() {
            let _ = tokio::time::timeout(GROUPS_PAUSE, log.tail()).await;
        }
        assert_eq!(held(&log), 30);
        let again = log.give_up(leased[39].lease, &dead(kept), said(kept)).await;
        assert_eq!(again, Ok(None));
        let census = log.census();
        // It is killed.
        drop(log);
        let log = open(&directory);
        assert_eq!(log.census(), census);
        assert_eq!(census.letters, kept as u64 + 1);
        let announced = page(&log, "$dead:g", 0, 10_000).await.entries.len();
        assert_eq!(announced, kept + 1);
        let mut rest = Vec::new();
        while rest.len() < 29 {
            let more = log.fetch("g", 40).await.unwrap();
            rest.extend(more.iter().map(|leased| leased.entry.cursor));
        }
        assert_eq!(rest, (11..40).collect::<Vec<u64>>());
    });
}

#[test]
fn lease_that_was_not_ended_after_all_is_as_before() {
    let directory = TempDir::new().unwrap();
    run(async {
        let log = open(directory.path());
        log.open_group(&group("g", &["a"])).await.unwrap();
        store(&log, vec![append("a", "1")]).await;
        let leased = log.fetch("g", 1).await.unwrap();
        let held = |log: &Embedded| log.inner.borrow().groups["g"].lag(0, None).leased;
        {
            let mut inner = log.inner.borrow_mut();
            let state = inner.groups.get_mut("g").unwrap();
            let open = state.take_out(leased[0].lease).expect("leased");
            assert!(state.take_out(leased[0].lease).is_none());
            state.put_back(leased[0].lease, open);
        }
        assert_eq!(held(&log), 1);
        let dead = letter("g", &leased[0].entry, "no", 9);
        assert_eq!(log.give_up(leased[0].lease, &dead, None).await, Ok(None));
        assert_eq!((held(&log), log.census().letters), (0, 1));
    });
}

#[test]
fn letters_are_counted_without_a_look_at_them_also_after_a_crash_and_in_an_older_log() {
    let directory = TempDir::new().unwrap();
    run(async {
        let log = open(directory.path());
        store(
            &log,
            (0..4).map(|n| append("a", &"1".repeat(n + 1))).collect(),
        )
        .await;
        let entries = log.tail().await.unwrap();
        for (group, at, reason) in [
            ("g", 0, "no"),
            ("g", 1, "ack_wait"),
            ("h", 2, "no"),
            // It replaces the first.
            ("g", 0, "loop: again"),
            ("g", 3, "no"),
        ] {
            let dead = letter(group, &entries[at], reason, 9 + at as u64);
            log.bury(&dead).await.unwrap();
        }
        log.exhume("g", entries[3].record.event).await.unwrap();
        let census = log.census();
        let count = |group: &str, cause| census.counts.get(&(group.into(), cause)).copied();
        assert_eq!(count("g", Cause::Loop), Some(1));
        assert_eq!(count("g", Cause::AckWait), Some(1));
        assert_eq!(count("g", Cause::Failed), None);
        assert_eq!(count("h", Cause::Failed), Some(1));
        assert_eq!(census.letters, 3);
        drop(log);
        let log = open(directory.path());
        assert_eq!(log.census(), census);
        // As a version without an index left it.
        log.with(|core| {
            let mut batch = core.store.batch();
            for guard in core.store.state.prefix(b"y/") {
                batch.remove(&core.store.state, guard.key()?);
            }
            batch.remove(&core.store.state, b"m/letters");
            Store::commit(batch, true).map_err(Broken)
        })
        .unwrap();
        drop(log);
        assert_eq!(open(directory.path()).census(), census);
    });
}

#[test]
fn letters_beyond_the_bounds_go_the_oldest_first() {
    let directory = TempDir::new().unwrap();
    run(async {
        let log = open(directory.path());
        store(
            &log,
            (0..5).map(|n| append("a", &"1".repeat(n + 1))).collect(),
        )
        .await;
        let entries = log.tail().await.unwrap();
        let now_ms = log.with(|core| Ok(core.clock.now_ms())).unwrap();
        for (at, age) in [(0, 1000), (1, 5000), (2, 10), (3, 4000), (4, 3000)] {
            let dead = letter("g", &entries[at], "no", now_ms - age);
            log.bury(&dead).await.unwrap();
        }
        assert_eq!(log.expire_letters(NO_BOUNDS).await, Ok(Vec::new()));
        let four = Bounds {
            letters: 4,
            ..NO_BOUNDS
        };
        assert_eq!(log.expire_letters(four).await, Ok(vec!["g".into()]));
        assert_eq!(log.expire_letters(four).await, Ok(Vec::new()));
        let brief = Bounds {
            age: Duration::from_millis(2500),
            ..NO_BOUNDS
        };
        let gone = log.expire_letters(brief).await.unwrap();
        assert_eq!(gone, ["g".into(), "g".into()]);
        drop(log);
        let log = open(directory.path());
        let left = log.dead_letters(None, None, 9).await.unwrap();
        assert_eq!(left.len(), 2);
        let bytes = left.iter().map(DeadLetter::bytes).sum::<u64>();
        assert_eq!((log.census().letters, log.census().bytes), (2, bytes));
        let small = Bounds {
            bytes: bytes - 1,
            ..NO_BOUNDS
        };
        assert_eq!(
            log.expire_letters(small).await.map(|gone| gone.len()),
            Ok(1)
        );
        let left = log.dead_letters(None, None, 9).await.unwrap();
        assert_eq!(left[0].entry.cursor, 3, "the newest stays");
    });
}
