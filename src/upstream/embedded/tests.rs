mod ended;
mod faults;
mod given_up;
mod kept;
mod letters;
mod scheduled;
mod spread;

use std::path::Path;

use tempfile::TempDir;

use super::*;
use crate::model::{Draft, EventId, Terms};
use crate::upstream::log::{
    DeadLetter, Failure, Group, Groups as _, Lag, Letters as _, Settled, Values as _,
};

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(async { tokio::time::timeout(Duration::from_secs(60), future).await })
        .expect("done in time")
}

fn config(directory: &Path) -> Durable {
    let mut config = Durable::default();
    config.embedded.directory = directory.to_owned();
    config
}

/// A child that another test starts has every lock of this process until it runs its own program, also one that was given up
/// meanwhile: such a lock is waited for.
fn open(directory: &Path) -> Embedded {
    for _ in 0..5000 {
        match Embedded::open(&config(directory)) {
            Err(OpenError::Locked { .. }) => std::thread::sleep(Duration::from_millis(2)),
            opened => return opened.expect("opens"),
        }
    }
    panic!("the directory stays locked");
}

fn append(channel: &str, data: &str) -> Draft {
    let channel = ChannelName::from_whole(channel);
    let terms = Terms::log(Duration::from_hours(24));
    let mut draft = Draft::new(terms, channel, data.as_bytes().to_vec().into(), true);
    draft.record.event = EventId::new(1, u128::from(data.len() as u64));
    draft.record.unix_ms = 1000;
    draft
}

fn keyed(channel: &str, data: &str, key: &str) -> Draft {
    let mut draft = append(channel, data);
    draft.record.key = key.into();
    draft
}

async fn store(log: &Embedded, batch: Vec<Draft>) -> Vec<Appended> {
    let results = log.append(batch).await;
    results
        .into_iter()
        .collect::<Result<_, _>>()
        .expect("stored")
}

async fn offset(log: &Embedded, draft: Draft) -> (u64, bool) {
    let result = store(log, vec![draft]).await[0];
    (result.position.offset.0, result.is_new)
}

async fn page(log: &Embedded, channel: &str, after: u64, limit: u32) -> Slice {
    let read = Read {
        channel: ChannelName::from_whole(channel),
        after: Some(after),
        limit,
        bytes: 1 << 20,
    };
    log.read(&read).await.expect("read")
}

fn data(entries: &[Arc<Entry>]) -> Vec<String> {
    let text = |entry: &Arc<Entry>| String::from_utf8(entry.record.data.to_vec()).unwrap();
    entries.iter().map(text).collect()
}

fn group(name: &str, channels: &[&str]) -> Group {
    Group {
        name: name.into(),
        channels: channels.iter().map(|&channel| channel.into()).collect(),
        from_beginning: true,
        start_after: None,
        lease: Duration::from_secs(60),
        ordered: false,
    }
}

async fn everything(log: &Embedded) -> Vec<Arc<Entry>> {
    let scan = Scan {
        after: 0,
        channels: Vec::new(),
        limit: usize::MAX,
        bytes: usize::MAX,
        looked_at: usize::MAX,
    };
    log.scan(&scan).await.expect("scanned").entries
}

#[test]
fn offsets_have_no_holes_and_go_on_after_a_restart() {
    let directory = TempDir::new().unwrap();
    run(async {
        let mut epoch = None;
        for life in 0..3u64 {
            let log = open(directory.path());
            assert_eq!(page(&log, "a", 0, 0).await.position.offset.0, life * 700);
            for part in 0..7 {
                let batch = (0..150).map(|n| {
                    let channel = ["a", "b", "a"][n % 3];
                    append(channel, &format!("{life} {part} {n}"))
                });
                store(&log, batch.collect()).await;
            }
            let slice = page(&log, "a", 0, 10_000).await;
            assert!(epoch.is_none_or(|epoch| epoch == slice.position.epoch));
            epoch = Some(slice.position.epoch);
            let expected: Vec<u64> = (1..=(life + 1) * 700).collect();
            let offsets: Vec<u64> = slice.entries.iter().map(|e| e.position.offset.0).collect();
            assert_eq!(offsets, expected);
            assert_eq!(data(&slice.entries[699..700]), ["0 6 149"]);
        }
    });
}

#[test]
fn pages_join_without_hole_or_repeat() {
    let directory = TempDir::new().unwrap();
    run(async {
        let log = open(directory.path());
        for n in 0..40 {
            let batch = (0..25).map(|m| append("c", &format!("{n} {m}"))).collect();
            store(&log, batch).await;
        }
        let mut after = 0;
        while after < 1000 {
            let entries = page(&log, "c", after, 37).await.entries;
            assert_eq!(entries[0].position.offset.0, after + 1);
            after += entries.len() as u64;
        }
        assert!(page(&log, "c", 1000, 10).await.entries.is_empty());
        let read = Read {
            channel: ChannelName::from_whole("c"),
            after: Some(5),
            limit: 100,
            bytes: 1,
        };
        assert_eq!(
            log.read(&read).await.unwrap().entries.len(),
            1,
            "one whatever its size"
        );
    });
}

#[test]
fn channel_without_entries_has_the_same_epoch_before_and_after_its_first() {
    let directory = TempDir::new().unwrap();
    run(async {
        let log = open(directory.path());
        let before = page(&log, "c", 0, 10).await.position;
        drop(log);
        let log = open(directory.path());
        let stored = store(&log, vec![append("c", "1")]).await[0];
        assert_eq!(stored.position.epoch, before.epoch);
        assert_ne!(page(&log, "d", 0, 10).await.position.epoch, before.epoch);
    });
}

#[test]
fn repeated_key_gives_the_first_position_also_within_a_batch_and_after_a_crash() {
    let directory = TempDir::new().unwrap();
    run(async {
        let log = open(directory.path());
        let batch = vec![
            keyed("c", "1", "k"),
            keyed("c", "2", "k"),
            keyed("c", "3", "l"),
            keyed("d", "4", "k"),
        ];
        let results = store(&log, batch).await;
        let expected = [(1, true), (1, false), (2, true), (1, true)];
        let found: Vec<_> = results
            .iter()
            .map(|r| (r.position.offset.0, r.is_new))
            .collect();
        assert_eq!(found, expected);
        drop(log);
        let log = open(directory.path());
        assert_eq!(offset(&log, keyed("c", "5", "l")).await, (2, false));
        assert_eq!(offset(&log, keyed("c", "6", "m")).await, (3, true));
        let mut brief = keyed("c", "7", "n");
        brief.terms.key_ttl = Duration::from_millis(1);
        assert_eq!(offset(&log, brief.clone()).await, (4, true));
        let start = monotonic();
        while start.elapsed() < Duration::from_millis(5) {
            tokio::task::yield_now().await;
        }
        assert_eq!(offset(&log, brief).await, (5, true), "the key has expired");
    });
}

#[test]
fn version_that_is_not_greater_stores_nothing() {
    let directory = TempDir::new().unwrap();
    run(async {
        let versioned = |version, epoch: &str| {
            let mut draft = append("c", "v");
            draft.version = version;
            draft.version_epoch = epoch.into();
            draft
        };
        let log = open(directory.path());
        let batch = vec![versioned(5, "a"), versioned(5, "a"), versioned(6, "a")];
        let results = store(&log, batch).await;
        let found: Vec<_> = results
            .iter()
            .map(|r| (r.position.offset.0, r.is_new))
            .collect();
        assert_eq!(found, [(1, true), (1, false), (2, true)]);
        drop(log);
        let log = open(directory.path());
        assert_eq!(offset(&log, versioned(6, "a")).await, (2, false));
        assert_eq!(offset(&log, versioned(1, "b")).await, (3, true));
    });
}

#[test]
fn tail_gives_every_entry_once_in_the_order_of_its_channel() {
    let directory = TempDir::new().unwrap();
    run(async {
        let log = open(directory.path());
        store(
            &log,
            vec![append("a", "1"), append("b", "2"), append("a", "3")],
        )
        .await;
        let first = log.tail().await.unwrap();
        assert_eq!(data(&first), ["1", "3", "2"]);
        let waiting = async { data(&log.tail().await.unwrap()) };
        let storing = store(&log, vec![append("a", "4")]);
        assert_eq!(tokio::join!(waiting, storing).0, ["4"]);
    });
}

#[test]
fn tail_that_is_far_behind_reads_from_the_disk() {
    let directory = TempDir::new().unwrap();
    run(async {
        let log = open(directory.path());
        let text = "x".repeat(20_000);
        for _ in 0..20 {
            store(&log, (0..250).map(|_| append("a", &text)).collect()).await;
        }
        assert!(
            log.inner.borrow().tail.next_is_on_disk(),
            "100 MB do not wait in memory"
        );
        let mut seen = 0;
        while seen < 5000 {
            for entry in log.tail().await.unwrap() {
                seen += 1;
                assert_eq!(entry.position.offset.0, seen);
            }
        }
    });
}

#[test]
fn retention_by_bytes_drops_the_oldest_segments_and_nothing_else() {
    let directory = TempDir::new().unwrap();
    run(async {
        let mut config = config(directory.path());
        config.retention_bytes = 8 << 20;
        let log = Embedded::open(&config).unwrap();
        log.open_group(&group("g", &["a"])).await.unwrap();
        log.open_group(&group("all", &["*"])).await.unwrap();
        log.open_group(&group("b", &["b"])).await.unwrap();
        let text = "x".repeat(10_000);
        for _ in 0..20 {
            let batch = (0..100).map(|n| append(if n == 50 { "b" } else { "a" }, &text));
            store(&log, batch.collect()).await;
            log.inner.borrow_mut().tend().unwrap();
        }
        let segments: Vec<_> = {
            let inner = log.inner.borrow();
            let list = inner.core.as_ref().unwrap().segments.list();
            list.iter().map(|segment| segment.first).collect()
        };
        let first = segments[0];
        assert!(first > 500, "the beginning is gone");
        let slice = page(&log, "a", 0, 10_000).await;
        assert_eq!(slice.position.offset.0, 1980);
        let lost_of_a = slice.entries[0].position.offset.0 - 1;
        assert_eq!(everything(&log).await.len() as u64, 2001 - first);
        let leased = log.fetch("g", 1).await.unwrap();
        assert_eq!(
            leased[0].entry.position, slice.entries[0].position,
            "the group goes on"
        );
        let kept_of_b = page(&log, "b", 0, 100).await.entries;
        let lost_of_b = kept_of_b[0].position.offset.0 - 1;
        let expected = [("g", lost_of_a), ("all", first - 1), ("b", lost_of_b)];
        for (group, lost) in expected {
            assert_eq!(log.lag(group).await.unwrap().lost, lost, "{group}");
        }
        log.close().await;
        drop(log);
        let log = Embedded::open(&config).unwrap();
        for (group, lost) in expected {
            let lag = log.lag(group).await.unwrap();
            assert_eq!((lag.lost, lag.lost_before), (lost, lost), "{group}");
        }
        assert_eq!(everything(&log).await.len() as u64, 2001 - first);
        assert_eq!(offset(&log, append("a", "y")).await, (1981, true));
    });
}

#[test]
fn what_an_order_takes_from_a_group_is_counted_once() {
    let directory = TempDir::new().unwrap();
    run(async {
        let log = open(directory.path());
        for name in ["idle", "done", "other"] {
            let channel = if name == "other" { "b" } else { "a" };
            log.open_group(&group(name, &[channel])).await.unwrap();
        }
        store(&log, (0..15).map(|n| append("a", &n.to_string())).collect()).await;
        store(&log, vec![append("b", "1")]).await;
        let leased = log.fetch("done", 100).await.unwrap();
        let done: Vec<_> = leased
            .iter()
            .map(|one| (one.lease, Settled::Done))
            .collect();
        log.settle("done", &done).await.unwrap();
        for _ in 0..2 {
            log.trim(&ChannelName::from_whole("a")).await.unwrap();
            for (name, lost) in [("idle", 15), ("done", 0), ("other", 0)] {
                assert_eq!(log.lag(name).await.unwrap().lost, lost, "{name}");
            }
        }
        store(&log, vec![append("a", "more")]).await;
        log.trim(&ChannelName::from_whole("a")).await.unwrap();
        assert_eq!(log.lag("idle").await.unwrap().lost, 16);
        assert_eq!(log.fetch("other", 9).await.unwrap().len(), 1);
        assert!(log.delete_group("idle").await.unwrap());
        log.open_group(&group("idle", &["a"])).await.unwrap();
        assert_eq!(log.lag("idle").await.unwrap().lost, 0, "another group");
    });
}

#[test]
fn what_is_stored_while_losses_are_counted_stays() {
    let directory = TempDir::new().unwrap();
    run(async {
        let log = open(directory.path());
        log.open_group(&group("g", &["*"])).await.unwrap();
        store(&log, (0..9).map(|n| append("a", &n.to_string())).collect()).await;
        store(&log, vec![append("b", "other")]).await;
        let name = ChannelName::from_whole("a");
        let mut trim = std::pin::pin!(log.trim(&name));
        let begun = std::future::poll_fn(|context| {
            std::task::Poll::Ready(trim.as_mut().poll(context).is_pending())
        });
        assert!(begun.await, "it counts elsewhere");
        store(&log, vec![append("a", "new")]).await;
        trim.await.unwrap();
        assert_eq!(data(&page(&log, "a", 0, 100).await.entries), ["new"]);
        assert_eq!(log.lag("g").await.unwrap().lost, 9);
        let leased = log.fetch("g", 10).await.unwrap();
        let entries: Vec<_> = leased.into_iter().map(|one| one.entry).collect();
        assert_eq!(data(&entries), ["other", "new"]);
    });
}

#[test]
fn retention_by_age_empties_the_log_and_keeps_the_positions() {
    let directory = TempDir::new().unwrap();
    run(async {
        let mut config = config(directory.path());
        config.retention_age = Duration::from_millis(64);
        let log = Embedded::open(&config).unwrap();
        store(&log, vec![append("a", "1"), append("a", "2")]).await;
        while !everything(&log).await.is_empty() {
            log.inner.borrow_mut().tend().unwrap();
        }
        assert_eq!(page(&log, "a", 0, 10).await.position.offset.0, 2);
        assert_eq!(offset(&log, append("a", "3")).await, (3, true));
        drop(log);
        let log = open(directory.path());
        assert_eq!(data(&everything(&log).await), ["3"]);
    });
}

/// Lets time pass, and does what is due then.
async fn later(log: &Embedded, time: Duration) {
    let mut inner = log.inner.borrow_mut();
    inner.core.as_mut().unwrap().clock.skip(time);
    inner.tend().unwrap();
    drop(inner);
}

#[test]
fn key_counts_for_its_time_and_its_memory_goes_after_it() {
    let directory = TempDir::new().unwrap();
    run(async {
        let log = open(directory.path());
        let keyspaces = || {
            let inner = log.inner.borrow();
            let names = inner.core.as_ref().unwrap().store.db.list_keyspace_names();
            names
                .iter()
                .filter(|name| name.starts_with("keys-"))
                .count()
        };
        assert_eq!(offset(&log, keyed("a", "1", "k")).await, (1, true));
        for _ in 0..23 {
            later(&log, Duration::from_hours(1)).await;
            assert_eq!(offset(&log, keyed("a", "again", "k")).await, (1, false));
        }
        later(&log, Duration::from_hours(1)).await;
        assert_eq!(offset(&log, keyed("a", "2", "k")).await, (2, true));
        for hour in 0..100 {
            later(&log, Duration::from_hours(1)).await;
            store(&log, vec![keyed("a", "x", &hour.to_string())]).await;
            // They are dropped beside.
            while keyspaces() > 8 {
                tokio::task::yield_now().await;
            }
        }
    });
}

#[test]
fn channel_that_nobody_uses_is_forgotten_and_begins_anew() {
    let directory = TempDir::new().unwrap();
    run(async {
        let log = open(directory.path());
        let day = Duration::from_hours(24);
        let idle = store(&log, vec![append("idle", "1"), append("idle", "2")]).await[1];
        let used = store(&log, vec![append("used", "1")]).await[0];
        for n in 0..29u64 {
            later(&log, day).await;
            assert_eq!(offset(&log, append("used", "x")).await, (n + 2, true));
        }
        // Its entries went with their time; its position stays for longer.
        let slice = page(&log, "idle", 0, 10).await;
        assert_eq!((slice.position, slice.entries.len()), (idle.position, 0));
        later(&log, 4 * day).await;
        let anew = page(&log, "idle", 0, 10).await.position;
        assert_eq!(anew.offset.0, 0);
        assert_ne!(anew.epoch, idle.position.epoch);
        drop(log);
        let log = open(directory.path());
        let first = store(&log, vec![append("idle", "3")]).await[0];
        assert_eq!(
            (first.position.offset.0, first.position.epoch),
            (1, anew.epoch)
        );
        let slice = page(&log, "used", 0, 10).await;
        assert_eq!(slice.position.epoch, used.position.epoch);
        assert_eq!(slice.position.offset.0, 30);
    });
}

#[test]
fn trimmed_entries_are_gone_for_everybody_and_the_position_stays() {
    let directory = TempDir::new().unwrap();
    run(async {
        let log = open(directory.path());
        store(&log, vec![append("a", "1"), append("b", "2")]).await;
        log.open_group(&group("g", &["*"])).await.unwrap();
        log.trim(&ChannelName::from_whole("a")).await.unwrap();
        store(&log, vec![append("a", "3")]).await;
        let check = async |log: &Embedded| {
            let slice = page(log, "a", 0, 10).await;
            assert_eq!(
                (data(&slice.entries), slice.position.offset.0),
                (vec!["3".into()], 2)
            );
            assert_eq!(data(&everything(log).await), ["2", "3"]);
        };
        check(&log).await;
        drop(log);
        let log = open(directory.path());
        check(&log).await;
        let leased = log.fetch("g", 10).await.unwrap();
        assert_eq!(leased.len(), 2);
    });
}

#[test]
fn scan_filters_pages_and_says_when_it_is_at_the_end() {
    let directory = TempDir::new().unwrap();
    run(async {
        let log = open(directory.path());
        for n in 0..10 {
            store(&log, vec![append("x:1", &n.to_string()), append("y", "")]).await;
        }
        let mut scan = Scan {
            after: 0,
            channels: vec!["x:*".into()],
            limit: 3,
            bytes: 1 << 20,
            looked_at: 1000,
        };
        let mut found = Vec::new();
        loop {
            let scanned = log.scan(&scan).await.unwrap();
            found.extend(data(&scanned.entries));
            scan.after = scanned.next;
            if scanned.at_end {
                break;
            }
        }
        assert_eq!(found, (0..10).map(|n| n.to_string()).collect::<Vec<_>>());
        assert_eq!(scan.after, log.status().end);
    });
}

#[test]
fn seek_finds_the_first_entry_of_a_time() {
    let directory = TempDir::new().unwrap();
    run(async {
        let log = open(directory.path());
        assert_eq!(log.seek(0).await, Ok(1), "the next one");
        for time in 1..=100u64 {
            let batch = (0..3).map(|_| {
                let mut draft = append("a", "");
                draft.record.unix_ms = time * 10;
                draft
            });
            store(&log, batch.collect()).await;
        }
        assert_eq!(log.seek(0).await, Ok(1));
        assert_eq!(log.seek(11).await, Ok(4));
        assert_eq!(log.seek(500).await, Ok(148));
        assert_eq!(log.seek(1001).await, Ok(301));
    });
}

#[test]
fn group_gives_each_entry_once_until_it_is_returned() {
    let directory = TempDir::new().unwrap();
    run(async {
        let log = open(directory.path());
        log.open_group(&group("g", &["a"])).await.unwrap();
        let batch = vec![
            append("a", "1"),
            append("b", "2"),
            append("a", "3"),
            append("$queue:g", "4"),
            append("$queue:h", "5"),
        ];
        store(&log, batch).await;
        assert_eq!(log.lag("g").await.unwrap().entries, 3);
        let first = log.fetch("g", 2).await.unwrap();
        assert_eq!(first.len(), 2);
        let second = log.fetch("g", 2).await.unwrap();
        assert_eq!(data(&[Arc::clone(&second[0].entry)]), ["4"]);
        log.settle(
            "g",
            &[
                (first[0].lease, Settled::Returned),
                (first[1].lease, Settled::Done),
            ],
        )
        .await
        .unwrap();
        let lag = log.lag("g").await.unwrap();
        assert_eq!((lag.entries, lag.oldest_unix_ms), (1, Some(1000)));
        let again = log.fetch("g", 2).await.unwrap();
        assert_eq!((again.len(), again[0].lease), (1, first[0].lease));
        log.settle(
            "g",
            &[
                (again[0].lease, Settled::Done),
                (second[0].lease, Settled::Done),
            ],
        )
        .await
        .unwrap();
        assert_eq!(log.lag("g").await.unwrap(), Lag::default());
        let waiting = async { log.fetch("g", 9).await.unwrap().len() };
        let storing = store(&log, vec![append("a", "6")]);
        assert_eq!(tokio::join!(waiting, storing).0, 1);
        assert!(log.delete_group("g").await.unwrap());
        assert!(matches!(
            log.fetch("g", 1).await,
            Err(LogError::NotFound(_))
        ));
    });
}

#[test]
fn group_goes_on_after_a_restart_with_what_is_not_done_and_its_failures() {
    let directory = TempDir::new().unwrap();
    run(async {
        let failure = Failure {
            attempt: 1,
            unix_ms: 7,
            reason: "no".into(),
            worker: "w".into(),
            next_unix_ms: 0,
        };
        let log = open(directory.path());
        log.open_group(&group("g", &["a*"])).await.unwrap();
        store(
            &log,
            (0..10_000).map(|n| append("ab", &n.to_string())).collect(),
        )
        .await;
        let mut leased = Vec::new();
        while leased.len() < 9000 {
            leased.extend(log.fetch("g", 9000 - leased.len()).await.unwrap());
        }
        let done = leased.iter().filter(|leased| leased.lease.0 % 1000 != 0);
        let settled: Vec<_> = done.map(|leased| (leased.lease, Settled::Done)).collect();
        log.settle("g", &settled).await.unwrap();
        log.settle(
            "g",
            &[(leased[999].lease, Settled::Failed(failure.clone()))],
        )
        .await
        .unwrap();
        // An append takes along what was settled.
        store(&log, vec![append("b", "")]).await;
        drop(log);

        let log = open(directory.path());
        let open = log.fetch("g", 10_000).await.unwrap();
        let cursors: Vec<u64> = open.iter().map(|leased| leased.entry.cursor).collect();
        assert_eq!(cursors, (1..=9).map(|n| n * 1000).collect::<Vec<_>>());
        assert_eq!(open[0].failures, [failure]);
        assert!(open[1].failures.is_empty());
        let next = log.fetch("g", 1).await.unwrap();
        assert_eq!(next[0].entry.cursor, 9001);
        log.close().await;
        drop(log);
        assert_eq!(open_groups(directory.path()).await, ["g"]);
    });
}

async fn open_groups(directory: &Path) -> Vec<String> {
    let groups = open(directory).groups().await.unwrap();
    groups.iter().map(|group| group.name.to_string()).collect()
}

#[test]
fn what_was_settled_is_written_soon_without_an_append() {
    let directory = TempDir::new().unwrap();
    run(async {
        let log = open(directory.path());
        log.open_group(&group("g", &["a"])).await.unwrap();
        store(&log, vec![append("a", "1"), append("a", "2")]).await;
        log.tail().await.unwrap();
        let leased = log.fetch("g", 1).await.unwrap();
        log.settle("g", &[(leased[0].lease, Settled::Done)])
            .await
            .unwrap();
        let written = async {
            while log.inner.borrow().dirty.is_some() || log.inner.borrow().unsynced.is_some() {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            _ = log.tail() => panic!("nothing is stored"),
            () = written => {}
        }
        drop(log);
        let log = open(directory.path());
        assert_eq!(log.fetch("g", 9).await.unwrap()[0].entry.cursor, 2);
    });
}

#[test]
fn dead_letters_and_values_survive() {
    let directory = TempDir::new().unwrap();
    run(async {
        let log = open(directory.path());
        store(
            &log,
            vec![append("a", "1"), append("a", "22"), append("a", "333")],
        )
        .await;
        let entries = log.tail().await.unwrap();
        let letter = |group: &str, n: usize| DeadLetter {
            group: group.into(),
            entry: Arc::clone(&entries[n]),
            failures: Vec::new(),
            unix_ms: 9,
        };
        for (group, n) in [("g", 0), ("g", 1), ("g", 1), ("ga", 2), ("h", 0)] {
            log.bury(&letter(group, n)).await.unwrap();
        }
        log.put("schema", Some(b"x")).await.unwrap();
        drop(log);
        let log = open(directory.path());
        let of_g = log.dead_letters(Some("g"), None, 10).await.unwrap();
        assert_eq!(of_g, [letter("g", 0), letter("g", 1)]);
        let event = of_g[1].entry.record.event;
        let after = log.dead_letters(None, Some(("g", event)), 1).await.unwrap();
        assert_eq!(after, [letter("ga", 2)]);
        assert!(log.exhume("g", event).await.unwrap());
        assert!(!log.exhume("g", event).await.unwrap());
        assert_eq!(log.dead_letter("g", event).await, Ok(None));
        assert_eq!(log.get("schema").await, Ok(Some(b"x".to_vec())));
        log.put("schema", None).await.unwrap();
        assert_eq!(log.get("schema").await, Ok(None));
    });
}
