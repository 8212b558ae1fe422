use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use tempfile::TempDir;

use super::*;
use crate::mesh::durable::RequestId;
use crate::model::Record;
use crate::upstream::log::Failure;

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

fn open(directory: &Path) -> Embedded {
    Embedded::open(&config(directory)).expect("opens")
}

fn append(channel: &str, data: &str) -> Append {
    Append {
        id: RequestId {
            slot: 0,
            generation: 0,
        },
        record: Record {
            tenant: Box::default(),
            channel: ChannelName::new(channel),
            event: EventId::new(1, u128::from(data.len() as u64)),
            key: Box::default(),
            schema: 0,
            tags: Box::default(),
            publisher: None,
            trace: Box::default(),
            unix_ms: 1000,
            data: data.as_bytes().to_vec().into(),
            json: true,
            delta: false,
            hops: 0,
            origin: None,
        },
        key_ttl: Duration::from_hours(24),
        version: 0,
        version_epoch: Box::default(),
    }
}

fn keyed(channel: &str, data: &str, key: &str) -> Append {
    let mut append = append(channel, data);
    append.record.key = key.into();
    append
}

async fn store(log: &Embedded, batch: Vec<Append>) -> Vec<Appended> {
    let results = log.append(batch).await;
    results
        .into_iter()
        .collect::<Result<_, _>>()
        .expect("stored")
}

async fn offset(log: &Embedded, append: Append) -> (u64, bool) {
    let result = store(log, vec![append]).await[0];
    (result.position.offset.0, result.is_new)
}

async fn page(log: &Embedded, channel: &str, after: u64, limit: u32) -> Slice {
    let read = Read {
        channel: ChannelName::new(channel),
        after,
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
        lease: Duration::from_secs(60),
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
            channel: ChannelName::new("c"),
            after: 5,
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
        brief.key_ttl = Duration::from_millis(1);
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
            let mut append = append("c", "v");
            append.version = version;
            append.version_epoch = epoch.into();
            append
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
        let text = "x".repeat(10_000);
        for _ in 0..20 {
            store(&log, (0..100).map(|_| append("a", &text)).collect()).await;
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
        assert_eq!(slice.position.offset.0, 2000);
        assert_eq!(slice.entries[0].position.offset.0, first);
        assert_eq!(everything(&log).await.len() as u64, 2001 - first);
        let leased = log.fetch("g", 1).await.unwrap();
        assert_eq!(
            leased[0].entry.position.offset.0, first,
            "the group goes on"
        );
        assert!(log.status().warnings[0].contains("queue group g has lost"));
        drop(log);
        let log = Embedded::open(&config).unwrap();
        assert_eq!(everything(&log).await.len() as u64, 2001 - first);
        assert_eq!(offset(&log, append("a", "y")).await, (2001, true));
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

#[test]
fn trimmed_entries_are_gone_for_everybody_and_the_position_stays() {
    let directory = TempDir::new().unwrap();
    run(async {
        let log = open(directory.path());
        store(&log, vec![append("a", "1"), append("b", "2")]).await;
        log.open_group(&group("g", &["*"])).await.unwrap();
        log.trim(&ChannelName::new("a")).await.unwrap();
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
                let mut append = append("a", "");
                append.record.unix_ms = time * 10;
                append
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

#[test]
fn second_opener_is_refused_and_told_who_has_it() {
    let directory = TempDir::new().unwrap();
    let log = open(directory.path());
    let Err(error) = Embedded::open(&config(directory.path())) else {
        panic!("two have it");
    };
    assert!(matches!(error, OpenError::Locked { .. }));
    let words = error.to_string();
    assert!(
        words.contains(&format!("process {}", std::process::id())),
        "{words}"
    );
    drop(log);
    open(directory.path());
}

#[test]
fn newer_format_is_refused_and_left_alone() {
    let directory = TempDir::new().unwrap();
    drop(open(directory.path()));
    std::fs::write(directory.path().join("format"), "ringmain log 2\n").unwrap();
    let error = Embedded::open(&config(directory.path())).err().unwrap();
    assert!(
        matches!(&error, OpenError::Newer { found, .. } if found == "2"),
        "{error}"
    );
    std::fs::write(directory.path().join("format"), "something\n").unwrap();
    let error = Embedded::open(&config(directory.path())).err().unwrap();
    assert!(matches!(&error, OpenError::Corrupt { .. }), "{error}");
}

#[test]
fn directory_that_cannot_be_used_is_named() {
    let directory = TempDir::new().unwrap();
    std::fs::write(directory.path().join("file"), "").unwrap();
    let error = Embedded::open(&config(&directory.path().join("file/log")))
        .err()
        .unwrap();
    assert!(error.to_string().contains("file/log"), "{error}");
    let closed = directory.path().join("closed");
    std::fs::create_dir(&closed).unwrap();
    std::fs::set_permissions(&closed, std::fs::Permissions::from_mode(0o500)).unwrap();
    // Root may do everything.
    if std::fs::write(closed.join("try"), "").is_err() {
        let error = Embedded::open(&config(&closed)).err().unwrap();
        assert!(matches!(error, OpenError::Permission { .. }), "{error}");
    }
}

fn newest_journal(directory: &Path) -> std::path::PathBuf {
    let files = std::fs::read_dir(directory.join("data")).unwrap();
    let mut journals: Vec<_> = files
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "jnl"))
        .collect();
    journals.sort();
    journals.pop().unwrap()
}

/// Bytes of the journal that were written.
fn used(journal: &[u8]) -> usize {
    journal.iter().rposition(|byte| *byte != 0).unwrap() + 1
}

#[test]
fn torn_tail_of_the_journal_loses_the_last_commit_and_no_other() {
    for torn in 0..4 {
        let directory = TempDir::new().unwrap();
        run(async {
            let log = open(directory.path());
            for n in 0..10 {
                store(
                    &log,
                    vec![append("a", &format!("{n} {}", "x".repeat(9000)))],
                )
                .await;
            }
            drop(log);
            let path = newest_journal(directory.path());
            let mut journal = std::fs::read(&path).unwrap();
            let used = used(&journal);
            match torn {
                // A file that was cut.
                0 => journal.truncate(used - 100),
                // The rest was never written.
                1 => journal[used - 5000..].fill(0),
                // A page in the midst was not.
                2 => journal[used - 8192..used - 4096].fill(0),
                // Something else is behind.
                _ => {
                    journal.truncate(used - 5000);
                    journal.extend_from_slice(&[0xa5; 777]);
                }
            }
            std::fs::write(&path, &journal).unwrap();
            let log = open(directory.path());
            let slice = page(&log, "a", 0, 100).await;
            assert_eq!(slice.entries.len(), 9, "torn as {torn}");
            assert_eq!(slice.position.offset.0, 9);
            assert_eq!(offset(&log, append("a", "next")).await, (10, true));
            drop(log);
            assert_eq!(
                page(&open(directory.path()), "a", 0, 100)
                    .await
                    .entries
                    .len(),
                10
            );
        });
    }
}

#[test]
fn damage_in_the_midst_of_the_journal_is_refused_and_changes_nothing() {
    let directory = TempDir::new().unwrap();
    run(async {
        let log = open(directory.path());
        for n in 0..40 {
            store(
                &log,
                vec![append("a", &format!("{n} {}", "x".repeat(9000)))],
            )
            .await;
        }
    });
    let path = newest_journal(directory.path());
    let whole = std::fs::read(&path).unwrap();
    // A header, and content.
    for at in [used(&whole) / 4, used(&whole) / 4 + 4000] {
        let mut journal = whole.clone();
        journal[at..at + 100].fill(0xff);
        std::fs::write(&path, &journal).unwrap();
        let error = Embedded::open(&config(directory.path())).err().unwrap();
        assert!(matches!(error, OpenError::Corrupt { .. }), "{error}");
        assert!(
            std::fs::read(&path).unwrap() == journal,
            "it is left as it is"
        );
    }
    std::fs::write(&path, &whole).unwrap();
    run(async {
        assert_eq!(
            page(&open(directory.path()), "a", 0, 100)
                .await
                .entries
                .len(),
            40
        );
    });
}

#[test]
fn damaged_block_is_passed_over_and_reported() {
    let directory = TempDir::new().unwrap();
    run(async {
        let log = open(directory.path());
        for n in 0..3 {
            store(&log, vec![append("a", &n.to_string())]).await;
        }
        {
            let mut inner = log.inner.borrow_mut();
            let core = inner.core.as_mut().unwrap();
            let blocks = core.segments.active().blocks.clone();
            let key = 2u64.to_be_bytes();
            let mut value = blocks.get(key).unwrap().unwrap().to_vec();
            *value.last_mut().unwrap() ^= 1;
            blocks.insert(key, value).unwrap();
        }
        assert_eq!(data(&everything(&log).await), ["0", "2"]);
        assert!(log.status().warnings[0].contains("damaged"));
        let first = page(&log, "a", 0, 10).await.entries;
        assert_eq!(data(&first), ["0"]);
        assert_eq!(data(&page(&log, "a", 1, 10).await.entries), ["2"]);
    });
}

#[test]
fn log_that_failed_refuses_and_is_opened_again_in_place() {
    let directory = TempDir::new().unwrap();
    run(async {
        let log = open(directory.path());
        log.open_group(&group("g", &["a"])).await.unwrap();
        store(&log, (0..3).map(|n| append("a", &n.to_string())).collect()).await;
        let leased = log.fetch("g", 2).await.unwrap();
        log.inner.borrow_mut().fail(&Broken("a test".into()));
        log.settle("g", &[(leased[0].lease, Settled::Done)])
            .await
            .unwrap();
        let result = log.append(vec![append("a", "x")]).await;
        let Err(LogError::Unavailable {
            reason,
            retry_after,
        }) = &result[0]
        else {
            panic!("stored while it is down");
        };
        assert_eq!((&**reason, *retry_after), ("a test", REOPEN_PAUSE));
        assert_eq!(log.status().down.as_deref(), Some("a test"));
        assert_eq!(
            log.tail().await.unwrap().len(),
            3,
            "nothing is lost and nothing comes twice"
        );
        while log.status().down.is_some() {
            assert!(
                tokio::time::timeout(GROUPS_PAUSE, log.tail())
                    .await
                    .is_err()
            );
        }
        assert_eq!(offset(&log, append("a", "y")).await, (4, true));
        assert_eq!(data(&log.tail().await.unwrap()), ["y"]);
        drop(log);
        let log = open(directory.path());
        let again = log.fetch("g", 9).await.unwrap();
        assert_eq!(again[0].lease, leased[1].lease, "the first one is done");
    });
}

/// Mounts a file system of this size; `None` where that is not allowed.
struct Small(TempDir);

impl Small {
    fn mount(bytes: usize) -> Option<Self> {
        let directory = TempDir::new().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={bytes}"), "tmpfs"])
            .arg(directory.path())
            .stderr(Stdio::null())
            .status();
        mounted
            .is_ok_and(|status| status.success())
            .then_some(Self(directory))
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[test]
fn full_disk_is_a_temporary_error_and_ends_when_there_is_room() {
    // Where the test may not mount, `scripts/chaos` fills a disk.
    let Some(small) = Small::mount(24 << 20) else {
        return;
    };
    let path = small.0.path();
    let directory = path.join("log");
    std::fs::write(path.join("ballast"), vec![1; 12 << 20]).unwrap();
    run(async {
        let log = open(&directory);
        let text = "x".repeat(10_000);
        let mut stored = 0u64;
        let error = loop {
            let batch = (0..20).map(|_| append("a", &text)).collect();
            match log.append(batch).await.pop().unwrap() {
                Ok(appended) => stored = appended.position.offset.0,
                Err(error) => break error,
            }
        };
        assert!(
            error.to_string().to_lowercase().contains("no space"),
            "{error}"
        );
        assert!(stored > 100);
        assert!(log.status().down.is_some());
        std::fs::remove_file(path.join("ballast")).unwrap();
        let mut seen = 0;
        while log.status().down.is_some() {
            let tail = tokio::time::timeout(GROUPS_PAUSE, log.tail()).await;
            for entry in tail.into_iter().flat_map(Result::unwrap) {
                seen += 1;
                assert_eq!(entry.position.offset.0, seen);
            }
        }
        let (next, _) = offset(&log, append("a", "y")).await;
        assert!(next > stored, "what was acknowledged is there");
        while seen < next {
            for entry in log.tail().await.unwrap() {
                seen += 1;
                assert_eq!(entry.position.offset.0, seen, "the tail has no hole");
            }
        }
        drop(log);
        let slice = page(&open(&directory), "a", stored - 1, 1).await;
        assert_eq!(slice.entries[0].position.offset.0, stored);
    });
}

const CHILD: &str = "RINGMAIN_TEST_LOG";

/// Not a test of its own: appends until it is killed, and says what was acknowledged.
#[test]
fn child_that_is_killed() {
    let Ok(directory) = std::env::var(CHILD) else {
        return;
    };
    run(async {
        let log = open(Path::new(&directory));
        log.open_group(&group("g", &["*"])).await.unwrap();
        for n in 0u64.. {
            let batch = (0..20).map(|m| {
                let channel = format!("c{}", m % 5);
                keyed(
                    &channel,
                    &"x".repeat(1000),
                    &format!("{}-{n}-{m}", std::process::id()),
                )
            });
            let results = store(&log, batch.collect()).await;
            for appended in results.chunks(5) {
                for (channel, appended) in appended.iter().enumerate() {
                    println!("ack c{channel} {}", appended.position.offset.0);
                }
            }
            for leased in log.fetch("g", 20).await.unwrap() {
                log.settle("g", &[(leased.lease, Settled::Done)])
                    .await
                    .unwrap();
            }
        }
    });
}

#[test]
fn acknowledged_entry_survives_kill() {
    let directory = TempDir::new().unwrap();
    let mut acknowledged = BTreeMap::new();
    for life in 0..5u64 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "upstream::embedded::tests::child_that_is_killed",
                "--nocapture",
            ])
            .env(CHILD, directory.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut count = 0;
        while let Some(Ok(line)) = lines.next() {
            let mut words = line.split(' ');
            let (Some("ack"), Some(channel), Some(offset)) =
                (words.next(), words.next(), words.next())
            else {
                continue;
            };
            let offset: u64 = offset.parse().unwrap();
            let last = acknowledged.insert(channel.to_owned(), offset).unwrap_or(0);
            assert!(offset > last, "{channel} went back");
            count += 1;
            if count == 2000 * (life + 1) {
                child.kill().unwrap();
            }
        }
        child.wait().unwrap();
        run(async {
            let log = open(directory.path());
            for (channel, last) in &acknowledged {
                let mut after = 0;
                loop {
                    let slice = page(&log, channel, after, 1000).await;
                    for entry in &slice.entries {
                        after += 1;
                        assert_eq!(entry.position.offset.0, after, "{channel} has a hole");
                    }
                    if slice.entries.is_empty() {
                        assert_eq!(slice.position.offset.0, after);
                        break;
                    }
                }
                assert!(
                    after >= *last,
                    "{channel}: {last} was acknowledged, {after} are there"
                );
            }
        });
    }
}
