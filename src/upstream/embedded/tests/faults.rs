use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};

use super::*;
use crate::upstream::embedded::inner::{GROUPS_PAUSE, REOPEN_PAUSE};

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
pub(super) struct Small(pub TempDir);

impl Small {
    pub fn mount(bytes: usize) -> Option<Self> {
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
    // Where the test may not mount, there is no small disk to fill.
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
                "upstream::embedded::tests::faults::child_that_is_killed",
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
