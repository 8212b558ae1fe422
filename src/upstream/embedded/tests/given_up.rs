//! What groups lose with the whole log, and by order, where that becomes letters.

use super::kept::{lost, with};
use super::*;
use crate::config::Config;
use crate::config::durable::{Expired, Kept};

/// Namespace `n` makes letters, `other` does not.
fn rules() -> Config {
    let letters = Kept {
        expired: Expired::DeadLetter,
        ..Kept::default()
    };
    with(&[("n", letters), ("other", Kept::default())])
}

/// Lets time pass, and drops what the log does not keep then, as far as it may go.
fn tend(log: &Embedded, hours: u64) -> u64 {
    let mut inner = log.inner.borrow_mut();
    let core = inner.core.as_mut().unwrap();
    core.clock.skip(Duration::from_hours(hours));
    inner.tend().unwrap();
    let core = inner.core.as_ref().unwrap();
    core.segments.first(core.end)
}

fn sweep(log: &Embedded) {
    log.inner.borrow_mut().sweep_now();
}

async fn letters(log: &Embedded, group: &str) -> Vec<(u64, String)> {
    let letters = log.dead_letters(Some(group), None, 10_000).await.unwrap();
    let mut found: Vec<_> = letters
        .iter()
        .map(|letter| {
            let reason = letter.failures.last().map(|last| last.reason.to_string());
            (letter.entry.position.offset.0, reason.unwrap_or_default())
        })
        .collect();
    found.sort_unstable();
    found
}

fn expired(offsets: impl IntoIterator<Item = u64>) -> Vec<(u64, String)> {
    let expired = offsets.into_iter();
    expired
        .map(|offset| (offset, "expired".to_owned()))
        .collect()
}

/// Numbered ones, each with an id of its own.
fn numbered(channel: &str, count: usize) -> Vec<Draft> {
    (1..=count)
        .map(|n| append(channel, &"1".repeat(n)))
        .collect()
}

#[test]
fn what_goes_with_the_age_of_the_whole_log_becomes_letters_before_it_goes() {
    let directory = TempDir::new().unwrap();
    run(async {
        let log = open(directory.path());
        log.reload(&rules());
        log.open_group(&group("g", &["n:*", "other:*"]))
            .await
            .unwrap();
        log.open_group(&group("idle", &["n:*"])).await.unwrap();
        store(&log, numbered("n:a", 5)).await;
        store(&log, numbered("other:a", 3)).await;
        let leased = log.fetch("g", 8).await.unwrap();
        let mut settled: Vec<_> = leased
            .iter()
            .map(|one| (one.lease, Settled::Returned))
            .collect();
        settled[0].1 = Settled::Done;
        // Somebody is at work on the second one.
        settled.remove(1);
        log.settle("g", &settled).await.unwrap();
        // The segment is complete, and the next one begins.
        tend(&log, 4);
        store(&log, vec![append("n:b", "stays")]).await;
        assert_eq!(
            tend(&log, 70),
            1,
            "it waits until it is known what is lost with it"
        );
        assert_eq!(letters(&log, "g").await, []);
        sweep(&log);
        assert_eq!(tend(&log, 0), 9);
        for _ in 0..2 {
            assert_eq!(letters(&log, "g").await, expired(3..=5));
            assert_eq!(letters(&log, "idle").await, expired(1..=5));
            // Those of the other namespace are in memory, and still to be had.
            assert_eq!(lost(&log, "g").await, 3);
            assert_eq!(lost(&log, "idle").await, 5);
            sweep(&log);
            tend(&log, 0);
        }
        assert_eq!(data(&everything(&log).await), ["stays"]);
        log.settle("g", &[(leased[1].lease, Settled::Done)])
            .await
            .unwrap();
        drop(log);
        let log = open(directory.path());
        log.reload(&rules());
        sweep(&log);
        assert_eq!(letters(&log, "g").await, expired(3..=5));
        assert_eq!(log.fetch("idle", 9).await.unwrap().len(), 1);
    });
}

#[test]
fn what_goes_with_the_bytes_of_the_whole_log_becomes_letters_and_nothing_waits_without_end() {
    let directory = TempDir::new().unwrap();
    run(async {
        let mut config = config(directory.path());
        config.retention_bytes = 8 << 20;
        let log = Embedded::open(&config).unwrap();
        log.reload(&rules());
        log.open_group(&group("g", &["n:*"])).await.unwrap();
        let text = "x".repeat(10_000);
        let mut count = 0u64;
        let mut fill = async |batches: usize, sweeps: bool| {
            for _ in 0..batches {
                let batch = (0..100u64).map(|n| {
                    let mut draft = append("n:a", &text);
                    draft.record.event = EventId::new(1, u128::from(count + n));
                    draft
                });
                store(&log, batch.collect()).await;
                count += 100;
                if sweeps {
                    sweep(&log);
                }
                tend(&log, 0);
            }
        };
        fill(20, true).await;
        let first = page(&log, "n:a", 0, 1).await.entries[0].position.offset.0;
        assert!(first > 500, "the beginning is gone: {first}");
        assert_eq!(letters(&log, "g").await, expired(1..first));
        assert_eq!(lost(&log, "g").await, first - 1);
        // Where nobody looks in time, the disk counts more than the letters: they are counted.
        while !log.inner.borrow_mut().sweeper.hold() {
            tokio::task::yield_now().await;
            log.step();
        }
        let known = letters(&log, "g").await;
        fill(10, false).await;
        let later = page(&log, "n:a", 0, 1).await.entries[0].position.offset.0;
        assert!(later > known.len() as u64 + 300, "{later}");
        assert_eq!(letters(&log, "g").await, known);
        assert_eq!(lost(&log, "g").await, later - 1);
    });
}

#[test]
fn what_an_order_takes_becomes_letters_of_those_who_have_not_done_it() {
    let directory = TempDir::new().unwrap();
    run(async {
        let log = open(directory.path());
        log.reload(&rules());
        for name in ["works", "idle"] {
            log.open_group(&group(name, &["n:*", "other:*"]))
                .await
                .unwrap();
        }
        store(&log, numbered("n:a", 5)).await;
        store(&log, numbered("n:b", 1)).await;
        store(&log, numbered("other:a", 2)).await;
        let leased = log.fetch("works", 3).await.unwrap();
        let settled = [
            (leased[0].lease, Settled::Done),
            (leased[1].lease, Settled::Returned),
        ];
        log.settle("works", &settled).await.unwrap();
        for _ in 0..2 {
            log.trim(&ChannelName::from_whole("n:a")).await.unwrap();
            // 1 is done, and somebody has 3.
            assert_eq!(letters(&log, "works").await, expired([2, 4, 5]));
            assert_eq!(letters(&log, "idle").await, expired(1..=5));
            assert_eq!(lost(&log, "works").await, 3);
            assert_eq!(lost(&log, "idle").await, 5);
            assert_eq!(page(&log, "n:a", 0, 10).await.entries.len(), 0);
        }
        assert_eq!(log.status().expiries.len(), 0, "nothing has expired");
        log.trim(&ChannelName::from_whole("other:a")).await.unwrap();
        assert_eq!(letters(&log, "idle").await.len(), 5);
        assert_eq!(lost(&log, "idle").await, 7);
        let left = log.fetch("idle", 9).await.unwrap();
        assert_eq!(left.len(), 1);
        assert_eq!(left[0].entry.record.channel.whole(), "n:b");
        assert_eq!(offset(&log, append("n:a", "new")).await, (6, true));
        drop(log);
        let log = open(directory.path());
        log.reload(&rules());
        assert_eq!(letters(&log, "works").await, expired([2, 4, 5]));
        assert_eq!(data(&page(&log, "n:a", 0, 10).await.entries), ["new"]);
    });
}
