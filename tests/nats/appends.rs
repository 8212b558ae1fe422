//! Appends: places, fencing, keys, versions.

use std::collections::BTreeSet;

use ringmain::mesh::durable::LogError;
use ringmain::model::EventId;
use ringmain::upstream::log::{Entries as _, Log as _};

use crate::lab::{
    all, append_at_last, append_one, assert_whole, config, follow, keyed, open, publication, read,
    run,
};
use crate::nats_server::NatsServer;

#[test]
fn channel_goes_on_where_it_was_for_the_next_process() {
    let server = NatsServer::start();
    run(async {
        let mut before = Vec::new();
        let mut epoch = None;
        for process in 0..3 {
            let log = open(&config(&server)).await;
            let at_first = read(&log, "orders:1", 0, 0).await.position;
            assert_eq!(at_first.offset.0, process * 1500);
            assert_eq!(*epoch.get_or_insert(at_first.epoch), at_first.epoch);
            let batches: Vec<Vec<_>> = (0..3)
                .map(|_| {
                    let text = |n: i32| publication(["orders:1", "jobs"][n as usize % 2], "x");
                    (0..1000).map(text).collect()
                })
                .collect();
            let events: Vec<EventId> = batches.iter().flatten().map(|a| a.record.event).collect();
            let results =
                futures_util::future::join_all(batches.into_iter().map(|batch| log.append(batch)));
            for result in results.await.into_iter().flatten() {
                assert!(result.expect("stored").is_new);
            }
            let tail = follow(&log, &events).await;
            let of_channel = |channel: usize| events.iter().skip(channel).step_by(2);
            let tail_of = |channel: &str| tail[channel].iter().map(|entry| &entry.record.event);
            assert!(
                tail_of("orders:1").eq(of_channel(0)),
                "in the order of the appends"
            );
            assert!(tail_of("jobs").eq(of_channel(1)));
            before.extend(of_channel(0).copied());
            let (position, entries) = all(&log, "orders:1").await;
            assert_whole(&entries);
            assert_eq!(position, entries.last().expect("entries").position);
            assert!(
                entries
                    .iter()
                    .map(|entry| entry.record.event)
                    .eq(before.iter().copied())
            );
            log.close().await;
        }
    });
}

#[test]
fn of_two_processes_that_write_one_channel_one_is_fenced() {
    let server = NatsServer::start();
    run(async {
        let config = config(&server);
        let logs = [open(&config).await, open(&config).await];
        let (mut stored, mut fenced) = (BTreeSet::new(), 0);
        for _ in 0..60 {
            let batch = || (0..5).map(|_| publication("race", "x")).collect::<Vec<_>>();
            let batches = [batch(), batch()];
            let events = batches.clone();
            let [a, b] = batches;
            let (a, b) = tokio::join!(logs[0].append(a), logs[1].append(b));
            for (append, result) in events.iter().flatten().zip(a.into_iter().chain(b)) {
                match result {
                    Ok(appended) => {
                        assert!(stored.insert((appended.position.offset.0, append.record.event)));
                    }
                    Err(LogError::Unavailable { .. }) => fenced += 1,
                    Err(error) => panic!("{error}"),
                }
            }
        }
        let (_, entries) = all(&logs[0], "race").await;
        assert_whole(&entries);
        let kept: BTreeSet<_> = entries
            .iter()
            .map(|entry| (entry.position.offset.0, entry.record.event))
            .collect();
        assert!(stored.is_subset(&kept), "what was acknowledged is there");
        assert!(fenced > 0, "both believed that they own the channel");
    });
}

#[test]
fn another_process_does_not_disturb_other_channels() {
    let server = NatsServer::start();
    run(async {
        let config = config(&server);
        let logs = [open(&config).await, open(&config).await];
        let rounds = (0..40).map(|_| async {
            let batch = |channel: &str| (0..100).map(|_| publication(channel, "x")).collect();
            tokio::join!(logs[0].append(batch("a")), logs[1].append(batch("b")))
        });
        for round in rounds {
            let (a, b) = round.await;
            for result in a.into_iter().chain(b) {
                result.expect("stored");
            }
        }
        assert_whole(&all(&logs[1], "a").await.1);
        assert_eq!(all(&logs[0], "b").await.1.len(), 4000);
    });
}

#[test]
fn key_counts_once_on_every_process_and_after_a_kill() {
    let mut server = NatsServer::start();
    run(async {
        let config = config(&server);
        let log = open(&config).await;
        let mixed = vec![
            publication("pay", "first"),
            keyed("pay", "a"),
            keyed("pay", "b"),
            keyed("pay", "a"),
            publication("pay", "last"),
        ];
        let results = log.append(mixed).await;
        let places: Vec<(u64, bool)> = results
            .into_iter()
            .map(|result| result.expect("stored"))
            .map(|appended| (appended.position.offset.0, appended.is_new))
            .collect();
        assert_eq!(
            places,
            [(1, true), (2, true), (3, true), (2, false), (4, true)]
        );
        let other = open(&config).await;
        for log in [&log, &other] {
            let again = append_one(log, keyed("pay", "b")).await.expect("known");
            assert_eq!((again.position.offset.0, again.is_new), (3, false));
            let elsewhere = append_one(log, keyed("else", "b")).await.expect("stored");
            assert_eq!(elsewhere.position.offset.0, 1, "a key is its channel's");
        }
        server.kill();
        server.restart();
        let again = append_at_last(&other, &keyed("pay", "a")).await;
        assert_eq!((again.position.offset.0, again.is_new), (2, false));
        let fresh = open(&config).await;
        let again = append_one(&fresh, keyed("pay", "b")).await.expect("known");
        assert_eq!((again.position.offset.0, again.is_new), (3, false));
        assert_eq!(all(&fresh, "pay").await.1.len(), 4);
    });
}

#[test]
fn one_duplicate_key_in_a_large_batch_costs_nobody_else_anything() {
    let server = NatsServer::start();
    run(async {
        let log = open(&config(&server)).await;
        append_one(&log, keyed("c0", "k")).await.expect("stored");
        let other = open(&config(&server)).await;
        let mut batch: Vec<_> = (0..1500)
            .map(|n| keyed(&format!("c{}", n % 30), &format!("key {n}")))
            .collect();
        batch.insert(700, keyed("c0", "k"));
        let results = other.append(batch).await;
        for (index, result) in results.into_iter().enumerate() {
            let appended = result.expect("stored");
            assert_eq!(appended.is_new, index != 700);
        }
        for channel in 0..30 {
            assert_whole(&all(&log, &format!("c{channel}")).await.1);
        }
    });
}

#[test]
fn key_is_forgotten_after_its_time() {
    let server = NatsServer::start();
    run(async {
        let log = open(&config(&server)).await;
        let brief = || {
            let mut append = keyed("pay", "brief");
            append.terms.key_ttl = std::time::Duration::from_secs(1);
            append
        };
        assert!(append_one(&log, brief()).await.expect("stored").is_new);
        assert!(!append_one(&log, brief()).await.expect("known").is_new);
        crate::lab::until("the key to be forgotten", async || {
            append_one(&log, brief())
                .await
                .ok()
                .filter(|appended| appended.is_new)
        })
        .await;
    });
}

#[test]
fn version_that_is_not_greater_stores_nothing() {
    let server = NatsServer::start();
    run(async {
        let versioned = |version: u64, life: &str| {
            let mut append = publication("state", "x");
            append.version = version;
            append.version_epoch = life.into();
            append
        };
        let log = open(&config(&server)).await;
        let batch = vec![
            versioned(5, "a"),
            versioned(5, "a"),
            publication("state", "without"),
            versioned(4, "a"),
        ];
        let results: Vec<_> = log
            .append(batch)
            .await
            .into_iter()
            .map(Result::unwrap)
            .collect();
        let places: Vec<_> = results
            .iter()
            .map(|r| (r.position.offset.0, r.is_new))
            .collect();
        assert_eq!(places, [(1, true), (1, false), (2, true), (2, false)]);
        let other = open(&config(&server)).await;
        let old = append_one(&other, versioned(5, "a")).await.expect("known");
        assert!(!old.is_new, "the number survives");
        assert!(
            append_one(&other, versioned(1, "b"))
                .await
                .expect("stored")
                .is_new
        );
    });
}

#[test]
fn publication_that_no_server_takes_is_refused_and_nothing_else() {
    let server = NatsServer::start();
    run(async {
        let log = open(&config(&server)).await;
        let mut huge = publication("a", "x");
        huge.record.data = vec![b'1'; 2 << 20].into();
        let results = log
            .append(vec![publication("a", "x"), huge, publication("a", "y")])
            .await;
        assert!(
            matches!(results[1], Err(LogError::Refused(_))),
            "{:?}",
            results[1]
        );
        assert_eq!(results[2].as_ref().expect("stored").position.offset.0, 2);
    });
}
