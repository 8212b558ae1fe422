//! What namespaces keep less of than the whole log.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::config::durable::{Expired, Kept};
use crate::config::namespace::Delivery;
use crate::config::{Config, Namespace};

/// A configuration with these namespaces.
pub(super) fn with(namespaces: &[(&str, Kept)]) -> Config {
    let mut config = Config::built_in();
    let of = |(name, kept): &(&str, Kept)| {
        Arc::new(Namespace {
            name: (*name).to_owned(),
            delivery: Delivery::Durable,
            kept: *kept,
            ..Namespace::default()
        })
    };
    config.channels.namespaces = namespaces.iter().map(of).collect();
    config
}

fn age(seconds: u64) -> Kept {
    Kept {
        age: Duration::from_secs(seconds),
        ..Kept::default()
    }
}

fn bytes(bytes: u64) -> Kept {
    Kept {
        bytes,
        ..Kept::default()
    }
}

fn count(count: u64) -> Kept {
    Kept {
        count,
        ..Kept::default()
    }
}

/// Lets time pass, and forgets what is not kept then.
pub(super) fn pass(log: &Embedded, seconds: u64) {
    let mut inner = log.inner.borrow_mut();
    let core = inner.core.as_mut().unwrap();
    core.clock.skip(Duration::from_secs(seconds));
    inner.sweep_now();
}

pub(super) async fn kept(log: &Embedded, channel: &str) -> Vec<String> {
    data(&page(log, channel, 0, 10_000).await.entries)
}

pub(super) async fn lost(log: &Embedded, group: &str) -> u64 {
    log.lag(group).await.unwrap().lost
}

#[test]
fn namespace_forgets_by_its_own_age_and_others_keep_theirs() {
    let directory = TempDir::new().unwrap();
    let config = with(&[("long", Kept::default()), ("short", age(10))]);
    run(async {
        let log = open(directory.path());
        log.reload(&config);
        store(&log, vec![append("short:a", "1"), append("long:a", "1")]).await;
        pass(&log, 6);
        store(&log, vec![append("short:a", "2"), append("$short:b", "x")]).await;
        pass(&log, 6);
        let check = async |log: &Embedded| {
            assert_eq!(kept(log, "short:a").await, ["2"]);
            assert_eq!(kept(log, "$short:b").await, ["x"]);
            assert_eq!(kept(log, "long:a").await, ["1"]);
            assert_eq!(everything(log).await.len(), 3);
        };
        check(&log).await;
        drop(log);
        let log = open(directory.path());
        check(&log).await;
        log.reload(&config);
        pass(&log, 20);
        assert_eq!(
            data(&everything(&log).await),
            ["1"],
            "of the other namespace"
        );
        let position = page(&log, "short:a", 0, 10).await.position;
        assert_eq!(position.offset.0, 2, "it stays");
        assert_eq!(offset(&log, append("short:a", "3")).await, (3, true));
        assert_eq!(kept(&log, "short:a").await, ["3"]);
        let expiries = log.status().expiries;
        assert_eq!((&*expiries[0].namespace, expiries[0].entries), ("short", 2));
    });
}

#[test]
fn what_a_reload_lets_expire_goes_and_does_not_come_back() {
    let directory = TempDir::new().unwrap();
    run(async {
        let log = open(directory.path());
        log.reload(&with(&[("n", Kept::default())]));
        store(
            &log,
            (0..5).map(|n| append("n:a", &n.to_string())).collect(),
        )
        .await;
        pass(&log, 100);
        assert_eq!(kept(&log, "n:a").await.len(), 5);
        log.reload(&with(&[("n", count(2))]));
        pass(&log, 0);
        assert_eq!(kept(&log, "n:a").await, ["3", "4"]);
        assert_eq!(data(&everything(&log).await), ["3", "4"]);
        log.reload(&with(&[("n", age(10))]));
        pass(&log, 0);
        assert_eq!(kept(&log, "n:a").await.len(), 0);
        log.reload(&with(&[]));
        drop(log);
        let log = open(directory.path());
        assert_eq!(everything(&log).await.len(), 0);
        assert_eq!(offset(&log, append("n:a", "5")).await, (6, true));
    });
}

#[test]
fn namespace_keeps_its_newest_bytes_and_the_disk_gets_smaller() {
    let directory = TempDir::new().unwrap();
    run(async {
        let log = open(directory.path());
        log.reload(&with(&[("n", bytes(2 << 20)), ("other", Kept::default())]));
        // Nothing that a compression makes small.
        let mut state = 7u64;
        let mut text = || -> String {
            let letters = (0..10_000).map(|_| {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                char::from(b'a' + ((state >> 40) % 26) as u8)
            });
            letters.collect()
        };
        store(&log, vec![append("other:a", "stays")]).await;
        for _ in 0..20 {
            store(&log, (0..50).map(|_| append("n:a", &text())).collect()).await;
            pass(&log, 0);
        }
        let count = async |log: &Embedded| everything(log).await.len() - 1;
        let found = count(&log).await;
        assert!((150..=215).contains(&found), "{found} of 10 KB each");
        assert_eq!(kept(&log, "other:a").await, ["stays"]);
        let status = log.status();
        assert_eq!(status.expiries[0].entries, 1000 - found as u64);
        let size = || {
            let inner = log.inner.borrow();
            inner.core.as_ref().unwrap().segments.list()[0]
                .blocks
                .disk_space()
        };
        // Files are written anew beside.
        while !(1..5 << 20).contains(&size()) {
            log.step();
            tokio::task::yield_now().await;
        }
        drop(log);
        let log = open(directory.path());
        assert_eq!(count(&log).await, found);
        log.reload(&with(&[("n", bytes(2 << 20))]));
        pass(&log, 0);
        assert_eq!(count(&log).await, found, "it is counted on");
    });
}

#[test]
fn channel_keeps_its_newest_entries_at_once() {
    let directory = TempDir::new().unwrap();
    run(async {
        let log = open(directory.path());
        log.reload(&with(&[("n", count(3))]));
        for n in 0..10 {
            store(
                &log,
                vec![append("n:a", &n.to_string()), append("n:b", "b")],
            )
            .await;
            let expected: Vec<String> = (n.max(2) - 2..=n).map(|n| n.to_string()).collect();
            assert_eq!(
                kept(&log, "n:a").await,
                expected[expected.len() - (n + 1).min(3)..]
            );
        }
        drop(log);
        let log = open(directory.path());
        assert_eq!(kept(&log, "n:a").await, ["7", "8", "9"]);
        log.reload(&with(&[("n", count(3))]));
        pass(&log, 0);
        assert_eq!(everything(&log).await.len(), 6);
        assert_eq!(kept(&log, "n:a").await, ["7", "8", "9"]);
    });
}

#[test]
fn what_a_group_has_not_done_is_lost_once_and_what_a_worker_has_stays() {
    let directory = TempDir::new().unwrap();
    let config = with(&[("n", age(10)), ("other", Kept::default())]);
    run(async {
        let log = open(directory.path());
        log.reload(&config);
        for (name, channel) in [
            ("idle", "n:*"),
            ("works", "n:*"),
            ("all", "*"),
            ("other", "other:*"),
        ] {
            log.open_group(&group(name, &[channel])).await.unwrap();
        }
        store(
            &log,
            (0..6).map(|n| append("n:a", &n.to_string())).collect(),
        )
        .await;
        store(&log, vec![append("other:a", "o")]).await;
        let leased = log.fetch("works", 4).await.unwrap();
        let until = |ms| Settled::Delayed {
            until_unix_ms: ms,
            line: None,
        };
        let settled = [
            (leased[0].lease, Settled::Done),
            (leased[1].lease, Settled::Returned),
            (leased[2].lease, until(u64::MAX / 2)),
        ];
        log.settle("works", &settled).await.unwrap();
        for _ in 0..2 {
            pass(&log, 11);
            // 0 is done, and somebody has 3.
            for (name, expected) in [("idle", 6), ("works", 4), ("all", 6), ("other", 0)] {
                assert_eq!(lost(&log, name).await, expected, "{name}");
            }
        }
        log.settle("works", &[(leased[3].lease, Settled::Done)])
            .await
            .unwrap();
        assert_eq!(
            log.fetch("all", 10).await.unwrap().len(),
            1,
            "the other namespace's"
        );
        log.close().await;
        drop(log);
        let log = open(directory.path());
        log.reload(&config);
        pass(&log, 1);
        for (name, expected) in [("idle", 6), ("works", 4), ("all", 6), ("other", 0)] {
            assert_eq!(lost(&log, name).await, expected, "{name}");
        }
        store(&log, vec![append("n:a", "new")]).await;
        assert_eq!(log.fetch("idle", 10).await.unwrap().len(), 1);
        assert_eq!(log.fetch("works", 10).await.unwrap().len(), 1);
        assert_eq!(lost(&log, "works").await, 4);
    });
}

#[test]
fn what_a_group_has_not_done_becomes_a_letter_where_the_namespace_says_so() {
    let directory = TempDir::new().unwrap();
    run(async {
        let log = open(directory.path());
        let letters = Kept {
            expired: Expired::DeadLetter,
            ..count(2)
        };
        log.reload(&with(&[("n", letters)]));
        log.open_group(&group("g", &["n:*"])).await.unwrap();
        store(
            &log,
            (0..6)
                .map(|n| append("n:a", &n.to_string().repeat(n + 1)))
                .collect(),
        )
        .await;
        let leased = log.fetch("g", 2).await.unwrap();
        let failure = Failure {
            attempt: 1,
            unix_ms: 5,
            reason: "it said no".into(),
            worker: "w".into(),
            next_unix_ms: 0,
        };
        let settled = [
            (leased[0].lease, Settled::Failed(failure)),
            (
                leased[0].lease,
                Settled::Delayed {
                    until_unix_ms: u64::MAX / 2,
                    line: None,
                },
            ),
            (leased[1].lease, Settled::Done),
        ];
        log.settle("g", &settled).await.unwrap();
        pass(&log, 0);
        drop(log);
        let log = open(directory.path());
        let letters = log.dead_letters(Some("g"), None, 100).await.unwrap();
        let found: BTreeMap<_, Vec<_>> = letters
            .iter()
            .map(|letter| {
                let reasons = letter
                    .failures
                    .iter()
                    .map(|one| (one.attempt, &*one.reason));
                (letter.entry.position.offset.0, reasons.collect())
            })
            .collect();
        let expected = [
            (1, vec![(1, "it said no"), (2, "expired")]),
            (3, vec![(1, "expired")]),
            (4, vec![(1, "expired")]),
        ];
        assert_eq!(found, BTreeMap::from(expected));
        assert_eq!(lost(&log, "g").await, 3);
    });
}

/// What the model counts time in: more than a run takes.
const UNIT: Duration = Duration::from_secs(100);

/// What happens to a log.
#[derive(Clone, Debug)]
enum Step {
    Append(u8, u8, u16),
    Pass(u64),
    Trim(u8),
    Reload(u8, u8),
    Restart,
    Take(u8),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..4u8, 1..20u8, 0..3000u16).prop_map(|(c, n, size)| Step::Append(c, n, size)),
        3 => (0..8u64).prop_map(Step::Pass),
        1 => (0..4u8).prop_map(Step::Trim),
        1 => (0..2u8, 0..4u8).prop_map(|(ns, rule)| Step::Reload(ns, rule)),
        1 => Just(Step::Restart),
        2 => (1..30u8).prop_map(Step::Take),
    ]
}

const CHANNELS: [&str; 4] = ["n:a", "n:b", "m:a", "free:a"];
const RULES: [(u64, u64); 4] = [(0, 0), (10, 0), (0, 5), (5, 12)];

fn rule(number: u8) -> Kept {
    let (age, count) = RULES[usize::from(number)];
    Kept {
        age: UNIT * u32::try_from(age).unwrap(),
        count,
        ..Kept::default()
    }
}

/// One entry, as the model has it.
#[derive(Clone, Debug)]
struct Known {
    channel: usize,
    offset: u64,
    text: String,
    at: u64,
    is_gone: bool,
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn every_reader_sees_what_the_rules_keep_over_restarts(steps in prop::collection::vec(step(), 1..40)) {
        let directory = TempDir::new().unwrap();
        run(async {
            let mut rules = [0u8; 2];
            let config = |rules: &[u8; 2]| with(&[("free", Kept::default()), ("m", rule(rules[1])), ("n", rule(rules[0]))]);
            let mut log = open(directory.path());
            log.reload(&config(&rules));
            log.open_group(&group("g", &["*"])).await.unwrap();
            let (mut model, mut now): (Vec<Known>, u64) = (Vec::new(), 0);
            let (mut taken, mut number) = (0u64, 0);
            for step in steps {
                match step {
                    Step::Append(channel, many, size) => {
                        let channel = usize::from(channel);
                        let mut batch = Vec::new();
                        for _ in 0..many {
                            number += 1;
                            let of = model.iter().filter(|one| one.channel == channel);
                            let offset = of.count() as u64 + 1;
                            let text = format!("{number} {}", "x".repeat(usize::from(size)));
                            batch.push(append(CHANNELS[channel], &text));
                            model.push(Known { channel, offset, text, at: now, is_gone: false });
                        }
                        store(&log, batch).await;
                    }
                    Step::Pass(seconds) => {
                        log.inner.borrow_mut().core.as_mut().unwrap().clock.skip(UNIT * u32::try_from(seconds).unwrap());
                        now += seconds;
                    }
                    Step::Trim(channel) => {
                        log.trim(&ChannelName::from_whole(CHANNELS[usize::from(channel)])).await.unwrap();
                        model.iter_mut().filter(|one| one.channel == usize::from(channel)).for_each(|one| one.is_gone = true);
                    }
                    Step::Reload(namespace, rule) => {
                        rules[usize::from(namespace)] = rule;
                        log.reload(&config(&rules));
                    }
                    Step::Restart => {
                        // Nothing is closed: what was not written is lost, as by a kill.
                        log.inner.borrow_mut().write_groups(true).unwrap();
                        let clock = log.inner.borrow().core.as_ref().unwrap().clock.clone();
                        drop(log);
                        log = open(directory.path());
                        log.inner.borrow_mut().core.as_mut().unwrap().clock = clock;
                        log.reload(&config(&rules));
                    }
                    Step::Take(limit) => {
                        let waiting = tokio::time::timeout(Duration::from_millis(1), log.fetch("g", usize::from(limit)));
                        if let Ok(leased) = waiting.await {
                            let leased = leased.unwrap();
                            let done: Vec<_> = leased.iter().map(|one| (one.lease, Settled::Done)).collect();
                            taken += done.len() as u64;
                            log.settle("g", &done).await.unwrap();
                        }
                    }
                }
                log.inner.borrow_mut().sweep_now();
                for (channel, name) in CHANNELS.iter().enumerate() {
                    let (age, count) = match channel {
                        0 | 1 => RULES[usize::from(rules[0])],
                        2 => RULES[usize::from(rules[1])],
                        _ => (0, 0),
                    };
                    let top = model.iter().filter(|one| one.channel == channel).count() as u64;
                    for one in model.iter_mut().filter(|one| one.channel == channel) {
                        one.is_gone |= age > 0 && one.at + age <= now;
                        one.is_gone |= count > 0 && one.offset + count <= top;
                    }
                    let expected: Vec<_> = model.iter().filter(|one| one.channel == channel && !one.is_gone).map(|one| one.text.clone()).collect();
                    assert_eq!(kept(&log, name).await, expected, "{}", name);
                }
                let mut all = data(&everything(&log).await);
                let mut expected: Vec<_> = model.iter().filter(|one| !one.is_gone).map(|one| one.text.clone()).collect();
                all.sort();
                expected.sort();
                assert_eq!(all, expected);
                // A group has done, has lost, or will get, each entry once.
                let lost = lost(&log, "g").await;
                assert!(taken + lost <= model.len() as u64, "{taken} {lost} {}", model.len());
            }
            loop {
                let waiting = tokio::time::timeout(Duration::from_millis(20), log.fetch("g", 100));
                let Ok(leased) = waiting.await else { break };
                let leased = leased.unwrap();
                let done: Vec<_> = leased.iter().map(|one| (one.lease, Settled::Done)).collect();
                taken += done.len() as u64;
                log.settle("g", &done).await.unwrap();
            }
            assert_eq!(taken + lost(&log, "g").await, model.len() as u64);
        });
    }
}
