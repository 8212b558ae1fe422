//! Servers that are killed and connections that are cut: what was acknowledged is there, once and in order.

use std::collections::BTreeMap;
use std::time::Duration;

use ringmain::mesh::durable::LogError;
use ringmain::model::EventId;
use ringmain::upstream::log::Entries as _;
use ringmain::upstream::nats::Jetstream;

use crate::lab::{
    all, append_one, assert_whole, config, follow, keyed, open, publication, run, until,
};
use crate::nats_server::NatsServer;
use crate::proxy::{Line, Proxy};

/// What was acknowledged, by channel and offset.
#[derive(Default)]
struct Ledger {
    acknowledged: BTreeMap<(String, u64), EventId>,
    failed: usize,
}

/// Appends to eight channels until `ends` says so.
async fn load(log: &Jetstream, ends: &tokio::sync::watch::Receiver<bool>) -> Ledger {
    let mut ledger = Ledger::default();
    let mut round = 0;
    while !*ends.borrow() {
        round += 1;
        let batch: Vec<_> = (0..80)
            .map(|n| {
                let channel = format!("load:{}", n % 8);
                if n % 16 == 0 && round % 4 == 0 {
                    keyed(&channel, &format!("{round} {n}"))
                } else {
                    publication(&channel, "x")
                }
            })
            .collect();
        let results = log.append(batch.clone()).await;
        let mut any = false;
        for (append, result) in batch.into_iter().zip(results) {
            match result {
                Ok(appended) => {
                    any = true;
                    let place = (
                        append.record.channel.whole().to_owned(),
                        appended.position.offset.0,
                    );
                    let twice = ledger.acknowledged.insert(place, append.record.event);
                    assert!(twice.is_none(), "an offset was given twice");
                }
                Err(LogError::Unavailable { .. } | LogError::Busy { .. }) => ledger.failed += 1,
                Err(error) => panic!("{error}"),
            }
        }
        if !any {
            tokio::time::interval(Duration::from_millis(50))
                .tick()
                .await;
            tokio::task::yield_now().await;
        }
    }
    ledger
}

async fn assert_kept(log: &Jetstream, ledger: &Ledger) {
    for channel in 0..8 {
        let channel = format!("load:{channel}");
        let (_, entries) = all(log, &channel).await;
        assert_whole(&entries);
        for ((_, offset), event) in ledger
            .acknowledged
            .iter()
            .filter(|((name, _), _)| *name == channel)
        {
            let entry = entries
                .get(*offset as usize - 1)
                .expect("what was acknowledged is kept");
            assert_eq!(entry.record.event, *event, "{channel} {offset}");
        }
    }
}

/// Lets the load run until it has stored more, so that a fault comes into the midst of it.
async fn goes_on(log: &Jetstream, by: u64) {
    let before = log.status().end;
    until("progress", async || {
        (log.status().end > before + by).then_some(())
    })
    .await;
}

#[test]
fn acknowledged_entries_survive_kills_of_the_server() {
    let mut server = NatsServer::start();
    run(async {
        let log = open(&config(&server)).await;
        let (end, ends) = tokio::sync::watch::channel(false);
        let faults = async {
            for _ in 0..3 {
                goes_on(&log, 2000).await;
                server.kill();
                server.restart();
            }
            goes_on(&log, 2000).await;
            end.send(true).expect("a load");
        };
        let (ledger, ()) = tokio::join!(load(&log, &ends), faults);
        assert!(ledger.acknowledged.len() > 4000 && ledger.failed > 0);
        assert_kept(&log, &ledger).await;
        assert_kept(&open(&config(&server)).await, &ledger).await;
        let events: Vec<EventId> = ledger.acknowledged.values().copied().collect();
        for entries in follow(&log, &events).await.values() {
            assert_whole(entries);
        }
    });
}

#[test]
fn append_whose_answer_is_lost_is_in_the_tail_and_takes_its_offset() {
    let server = NatsServer::start();
    run(async {
        let proxy = Proxy::before(server.port()).await;
        let mut config = config(&server);
        config.nats.servers = vec![format!("nats://127.0.0.1:{}", proxy.port)];
        config.append_timeout = Duration::from_secs(1);
        let log = open(&config).await;
        append_one(&log, publication("a", "1"))
            .await
            .expect("stored");
        append_one(&log, publication("b", "1"))
            .await
            .expect("stored");
        proxy.line.send(Line::Mute).expect("a line");
        let (lost, with_key) = (publication("a", "2"), keyed("b", "k"));
        let results = log.append(vec![lost.clone(), with_key.clone()]).await;
        for result in &results {
            assert!(
                matches!(result, Err(LogError::Unavailable { .. })),
                "{result:?}"
            );
        }
        proxy.line.send(Line::Cut).expect("a line");
        until("the loss to be seen", async || log.status().down).await;
        proxy.line.send(Line::Passes).expect("a line");
        let next = publication("a", "3");
        let appended = until("an append", async || {
            append_one(&log, next.clone()).await.ok()
        })
        .await;
        assert_eq!(appended.position.offset.0, 3, "the lost one has its offset");
        let again = until("an append", async || {
            append_one(&log, keyed("b", "k")).await.ok()
        })
        .await;
        assert_eq!((again.position.offset.0, again.is_new), (2, false));
        let tail = follow(
            &log,
            &[lost.record.event, next.record.event, with_key.record.event],
        )
        .await;
        assert_whole(&tail["a"]);
        assert_eq!(tail["b"].len(), 2);
    });
}

#[test]
fn connection_that_is_cut_again_and_again_loses_and_repeats_nothing() {
    let server = NatsServer::start();
    run(async {
        let proxy = Proxy::before(server.port()).await;
        let mut config = config(&server);
        config.nats.servers = vec![format!("nats://127.0.0.1:{}", proxy.port)];
        config.append_timeout = Duration::from_secs(1);
        let log = open(&config).await;
        let (end, ends) = tokio::sync::watch::channel(false);
        let faults = async {
            for _ in 0..5 {
                goes_on(&log, 1000).await;
                proxy.line.send(Line::Cut).expect("a line");
                until("the loss to be seen", async || log.status().down).await;
                proxy.line.send(Line::Passes).expect("a line");
            }
            goes_on(&log, 1000).await;
            end.send(true).expect("a load");
        };
        let (ledger, ()) = tokio::join!(load(&log, &ends), faults);
        assert_kept(&log, &ledger).await;
        let events: Vec<EventId> = ledger.acknowledged.values().copied().collect();
        for entries in follow(&log, &events).await.values() {
            assert_whole(entries);
        }
    });
}

#[test]
fn cluster_that_loses_its_leader_keeps_what_it_acknowledged() {
    let mut servers = NatsServer::cluster();
    run(async {
        let mut config = config(&servers[0]);
        config.nats.servers = servers.iter().map(NatsServer::url).collect();
        config.nats.replicas = 3;
        let log = open(&config).await;
        assert!(
            log.status().warnings.is_empty(),
            "{:?}",
            log.status().warnings
        );
        let (end, ends) = tokio::sync::watch::channel(false);
        let faults = async {
            for _ in 0..2 {
                goes_on(&log, 2000).await;
                let leader = leader(&config.nats.servers).await;
                servers[leader].kill();
                goes_on(&log, 2000).await;
                servers[leader].restart();
            }
            goes_on(&log, 2000).await;
            end.send(true).expect("a load");
        };
        let (ledger, ()) = tokio::join!(load(&log, &ends), faults);
        assert!(ledger.acknowledged.len() > 4000);
        assert_kept(&log, &ledger).await;
        let events: Vec<EventId> = ledger.acknowledged.values().copied().collect();
        for entries in follow(&log, &events).await.values() {
            assert_whole(entries);
        }
    });
}

/// Which of the servers leads the stream.
async fn leader(servers: &[String]) -> usize {
    let addresses: Vec<async_nats::ServerAddr> = servers
        .iter()
        .map(|server| server.parse().expect("an address"))
        .collect();
    let client = async_nats::connect(addresses).await.expect("connected");
    let js = async_nats::jetstream::new(client);
    let name = until("a leader", async || {
        let stream = js.get_stream("RINGMAIN").await.ok()?;
        stream.cached_info().cluster.clone()?.leader
    })
    .await;
    name.trim_start_matches('n').parse().expect("a number")
}
