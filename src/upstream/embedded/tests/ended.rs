//! What ends by itself: its time is over.

use std::collections::BTreeMap;

use super::kept::{kept, lost, pass, with};
use super::*;
use crate::config::durable::{Expired, Kept};
use crate::upstream::embedded::clock::wall_ms;
use crate::upstream::log::Forgotten;

const LONG: u64 = 3_600_000;

/// One whose time is over as soon as it is stored, or in an hour.
fn ending(channel: &str, data: &str, is_over: bool) -> Draft {
    let mut draft = append(channel, data);
    draft.record.ttl_ms = LONG;
    draft.record.unix_ms = wall_ms() - if is_over { LONG } else { 0 };
    draft.record.event = EventId::new(wall_ms(), u128::from(data.len() as u64));
    draft
}

fn letters_in(namespace: &str) -> Config {
    let kept = Kept {
        expired: Expired::DeadLetter,
        ..Kept::default()
    };
    with(&[(namespace, kept)])
}

#[test]
fn what_has_ended_is_gone_at_once_for_every_reader_and_the_others_keep_their_places() {
    let directory = TempDir::new().unwrap();
    run(async {
        let log = open(directory.path());
        store(
            &log,
            vec![
                append("n:a", "1"),
                ending("n:a", "2", true),
                ending("n:a", "3", false),
                ending("n:a", "4", true),
                append("n:a", "5"),
                ending("n:a", "6", true),
                ending("n:b", "7", true),
            ],
        )
        .await;
        let check = async |log: &Embedded| {
            let page = page(log, "n:a", 0, 100).await;
            assert_eq!(data(&page.entries), ["1", "3", "5"]);
            assert_eq!(page.span, Span::behind(0, 6), "nothing is lost");
            let offsets: Vec<u64> = page
                .entries
                .iter()
                .map(|one| one.position.offset.0)
                .collect();
            assert_eq!(offsets, [1, 3, 5]);
            assert_eq!(data(&everything(log).await), ["1", "3", "5"]);
            let cut = super::page(log, "n:a", 1, 1).await;
            assert_eq!(
                (data(&cut.entries), cut.span),
                (vec!["3".to_owned()], Span::behind(1, 4))
            );
            let end = super::page(log, "n:a", 5, 100).await;
            assert_eq!((end.entries.len(), end.span), (0, Span::behind(5, 6)));
            assert_eq!(super::page(log, "n:b", 0, 1).await.span, Span::behind(0, 1));
        };
        check(&log).await;
        pass(&log, 0);
        check(&log).await;
        let told: BTreeMap<_, _> = log.take_forgotten().into_iter().collect();
        let some = |offsets: &[u64]| Some(Forgotten::Some(offsets.into()));
        assert_eq!(
            told.get(&ChannelName::from_whole("n:a")).cloned(),
            some(&[2, 4, 6])
        );
        assert_eq!(
            told.get(&ChannelName::from_whole("n:b")).cloned(),
            some(&[1])
        );
        log.step();
        drop(log);
        let log = open(directory.path());
        check(&log).await;
        assert_eq!(offset(&log, append("n:a", "7")).await, (7, true));
        assert_eq!(offset(&log, append("n:b", "2")).await, (2, true));
        pass(&log, 0);
        assert_eq!(kept(&log, "n:a").await, ["1", "3", "5", "7"]);
    });
}

#[test]
fn disk_gets_back_what_has_ended_took() {
    let directory = TempDir::new().unwrap();
    run(async {
        let log = open(directory.path());
        let large = "x".repeat(10_000);
        let batch = (0..100)
            .map(|n| ending("n:a", &large, n % 10 > 0))
            .collect();
        store(&log, batch).await;
        pass(&log, 0);
        let freed = |log: &Embedded| {
            let mut inner = log.inner.borrow_mut();
            let core = inner.core.as_mut().unwrap();
            (
                core.segments.list()[0].freed,
                core.ends.first_ms().is_some(),
            )
        };
        let (before, has_more) = freed(&log);
        assert!(
            before.0 > 890_000 && before.1 == 90 && has_more,
            "{before:?}"
        );
        drop(log);
        assert_eq!(freed(&open(directory.path())), (before, true));
    });
}

#[test]
fn groups_lose_what_ends_before_they_have_done_it_once_wherever_it_waits() {
    let directory = TempDir::new().unwrap();
    run(async {
        let log = open(directory.path());
        log.reload(&letters_in("n"));
        for (name, channel) in [("idle", "n:*"), ("works", "n:*"), ("other", "m:*")] {
            log.open_group(&group(name, &[channel])).await.unwrap();
        }
        let batch = (0..6).map(|n| ending("n:a", &"1".repeat(n + 1), false));
        store(&log, batch.collect()).await;
        let leased = log.fetch("works", 4).await.unwrap();
        let failure = Failure {
            attempt: 1,
            unix_ms: 5,
            reason: "it said no".into(),
            worker: "w".into(),
            next_unix_ms: 0,
        };
        let until = Settled::Delayed {
            until_unix_ms: u64::MAX / 2,
            line: None,
        };
        let settled = [
            (leased[0].lease, Settled::Done),
            (leased[1].lease, Settled::Returned),
            (leased[2].lease, Settled::Failed(failure)),
            (leased[2].lease, until),
        ];
        log.settle("works", &settled).await.unwrap();
        // Their time comes: it is what the rows of their ends and the records say.
        end_now(&log);
        for _ in 0..2 {
            pass(&log, 2);
            // 0 is done, and somebody has 3.
            for (name, expected) in [("idle", 5), ("works", 4), ("other", 0)] {
                assert_eq!(lost(&log, name).await, expected, "{name}");
            }
        }
        assert_eq!(log.lag("works").await.unwrap().buried, 4);
        let letters = log.dead_letters(Some("works"), None, 100).await.unwrap();
        let reasons: BTreeMap<u64, Vec<&str>> = letters
            .iter()
            .map(|letter| {
                let reasons = letter.failures.iter().map(|one| &*one.reason);
                (letter.entry.position.offset.0, reasons.collect())
            })
            .collect();
        assert_eq!(reasons[&2], ["expired"]);
        assert_eq!(reasons[&3], ["it said no", "expired"]);
        assert_eq!((reasons.len(), log.census().letters), (4, 9));
        drop(log);
        let log = open(directory.path());
        assert_eq!(lost(&log, "idle").await, 5);
    });
}

#[test]
fn nobody_is_given_what_has_ended() {
    let directory = TempDir::new().unwrap();
    run(async {
        let log = open(directory.path());
        log.open_group(&group("g", &["n:*"])).await.unwrap();
        let batch = (1..=6).map(|n| ending("n:a", &n.to_string(), n % 2 == 0));
        store(&log, batch.collect()).await;
        let leased = log.fetch("g", 10).await.unwrap();
        let given: Vec<_> = leased.iter().map(|one| Arc::clone(&one.entry)).collect();
        assert_eq!(data(&given), ["1", "3", "5"]);
        let waiting = tokio::time::timeout(Duration::from_millis(50), log.fetch("g", 10));
        assert!(waiting.await.is_err(), "there is no more");
        pass(&log, 0);
        assert_eq!(lost(&log, "g").await, 3);
        let lag = log.lag("g").await.unwrap();
        assert_eq!((lag.entries, lag.leased), (0, 3));
    });
}

/// Everything that ends in an hour does so now.
fn end_now(log: &Embedded) {
    log.step();
    log.inner.borrow_mut().sweep_as_of(wall_ms() + LONG + 1);
}

fn compacting(after: Duration) -> Config {
    let mut config = with(&[("n", Kept::default()), ("m", Kept::default())]);
    let namespace = Arc::make_mut(&mut config.channels.namespaces[0]);
    (namespace.compact_by, namespace.compact_after) = ("tag:id".to_owned(), after);
    config
}

fn tagged(channel: &str, data: &str, id: &str) -> Draft {
    let mut draft = append(channel, data);
    draft.record.tags = [("id".into(), id.into())].into();
    draft
}

#[test]
fn of_each_key_the_latest_stays_and_nobody_loses_his_place() {
    let directory = TempDir::new().unwrap();
    run(async {
        let log = open(directory.path());
        log.reload(&compacting(Duration::ZERO));
        log.open_group(&group("g", &["n:*"])).await.unwrap();
        let batch = [
            tagged("n:a", "1", "x"),
            tagged("n:a", "2", "y"),
            tagged("n:a", "3", "x"),
            append("n:a", "no key"),
            tagged("n:b", "other channel", "x"),
            tagged("m:a", "other namespace", "x"),
            tagged("m:a", "all of it", "x"),
        ];
        store(&log, batch.into()).await;
        store(&log, vec![tagged("n:a", "4", "x"), append("n:a", "none")]).await;
        pass(&log, 0);
        let check = async |log: &Embedded| {
            let page = page(log, "n:a", 0, 100).await;
            assert_eq!(data(&page.entries), ["2", "no key", "4", "none"]);
            assert_eq!(page.span, Span::behind(0, 6));
            assert_eq!(kept(log, "n:b").await.len(), 1);
            assert_eq!(kept(log, "m:a").await.len(), 2);
        };
        check(&log).await;
        drop(log);
        let log = open(directory.path());
        check(&log).await;
        log.reload(&compacting(Duration::ZERO));
        let given: Vec<_> = log.fetch("g", 10).await.unwrap();
        assert_eq!(given.len(), 5, "the rest");
        assert_eq!(lost(&log, "g").await, 0, "it wants the latest");
        store(&log, vec![tagged("n:a", "5", "y")]).await;
        pass(&log, 0);
        // Somebody has 2.
        let entries = kept(&log, "n:a").await;
        assert_eq!(entries, ["2", "no key", "4", "none", "5"]);
        let done: Vec<_> = given.iter().map(|one| (one.lease, Settled::Done)).collect();
        log.settle("g", &done).await.unwrap();
        log.inner.borrow_mut().sweep_as_of(wall_ms() + 2000);
        assert_eq!(kept(&log, "n:a").await, ["no key", "4", "none", "5"]);
    });
}

#[test]
fn what_is_replaced_stays_for_a_while() {
    let directory = TempDir::new().unwrap();
    run(async {
        let log = open(directory.path());
        log.reload(&compacting(Duration::from_secs(60)));
        store(
            &log,
            (0..3).map(|n| tagged("n:a", &n.to_string(), "x")).collect(),
        )
        .await;
        pass(&log, 0);
        assert_eq!(kept(&log, "n:a").await.len(), 3);
        log.inner.borrow_mut().sweep_as_of(wall_ms() + 61_000);
        assert_eq!(kept(&log, "n:a").await, ["2"]);
    });
}
