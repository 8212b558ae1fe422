//! What does the durable log in JetStream cost beside a program that only publishes? 64 publishers with 32 publications outstanding each, 256 bytes, 64 channels:
//! by `Jetstream::append` in batches as the bridge makes them, and by bare async-nats with an acknowledgement for each, with ids and without; in turns, against one server with file
//! storage. Beside each figure: processor time of client + server for one publication.
//!
//! Without `--bench` it runs one short round of each, to see that it runs.

#[path = "../tests/support/nats_server.rs"]
#[allow(dead_code, reason = "a cluster is for tests")]
mod nats_server;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use ringmain::config::durable::{Durable, Engine};
use ringmain::model::{ChannelName, Draft, EventId, Terms};
use ringmain::upstream::log::Entries as _;
use ringmain::upstream::nats::Jetstream;

use nats_server::NatsServer;

const PUBLISHERS: usize = 64;
const OUTSTANDING: usize = 32;
const PAYLOAD: [u8; 256] = [b'1'; 256];
/// Who publishes: the log, a client that sends payloads, and one that gives each an id as the log does.
const NAMES: [&str; 3] = ["log", "bare", "bare with ids"];

#[expect(clippy::disallowed_methods, reason = "a bench measures real time")]
fn now() -> Instant {
    Instant::now()
}

fn main() {
    let is_test = !std::env::args().any(|argument| argument == "--bench");
    let (rounds, time) = if is_test {
        (1, Duration::from_millis(200))
    } else {
        (7, Duration::from_secs(3))
    };
    let server = NatsServer::start();
    let mut figures: [Vec<f64>; 3] = Default::default();
    for round in 0..rounds {
        let mut line = format!("round {round}:");
        for turn in 0..3 {
            let who = (round + turn) % 3;
            let (figure, cpu) = match who {
                0 => measured(&server, || by_log(&server, time)),
                1 => measured(&server, || by_bare_client(&server, time, false)),
                _ => measured(&server, || by_bare_client(&server, time, true)),
            };
            figures[who].push(figure);
            line.push_str(&format!("   {} {figure:>7.0}/s ({cpu})", NAMES[who]));
        }
        println!("{line}");
    }
    for (who, other) in [(1, figures[1].clone()), (2, figures[2].clone())] {
        let ratios = figures[0]
            .iter()
            .zip(&other)
            .map(|(own, other)| own / other);
        println!(
            "median of {rounds}: log {:.0}/s, {} {:.0}/s, ratio {:.2}",
            median(&mut figures[0].clone()),
            NAMES[who],
            median(&mut other.clone()),
            median(&mut ratios.collect::<Vec<f64>>())
        );
    }
}

/// A figure a second, and the processor time of client and server for each.
fn measured(server: &NatsServer, run: impl FnOnce() -> (u64, Duration)) -> (f64, String) {
    let cpu = || {
        (
            cpu_us("self"),
            server.pid().map_or(0.0, |pid| cpu_us(&pid.to_string())),
        )
    };
    let before = cpu();
    let (count, time) = run();
    let after = cpu();
    let each = |before: f64, after: f64| (after - before) / count as f64;
    let text = format!(
        "{:.1} + {:.1} µs",
        each(before.0, after.0),
        each(before.1, after.1)
    );
    (count as f64 / time.as_secs_f64(), text)
}

/// Processor time of a process, in ticks of 10 ms.
fn cpu_us(pid: &str) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields = stat.rsplit(") ").next().unwrap_or_default();
    let ticks = fields
        .split(' ')
        .skip(11)
        .take(2)
        .filter_map(|field| field.parse::<f64>().ok());
    ticks.sum::<f64>() * 10_000.0
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

/// Acknowledged publications a second. Each publisher has its channel; what is asked for while batches are under way is the next batch.
fn by_log(server: &NatsServer, time: Duration) -> (u64, Duration) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let mut config = Durable {
            engine: Engine::Nats,
            ..Durable::default()
        };
        config.nats.servers = vec![server.url()];
        let log = Jetstream::connect(&config).await.expect("settings");
        while let Some(reason) = log.status().down {
            assert!(!reason.contains("older"), "{reason}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let mut queued: VecDeque<usize> = (0..PUBLISHERS * OUTSTANDING)
            .map(|n| n % PUBLISHERS)
            .collect();
        let mut flying = FuturesUnordered::new();
        let mut number = 0u64;
        let mut acknowledged = 0u64;
        let start = now();
        loop {
            while flying.len() < Jetstream::APPENDS_AT_ONCE && !queued.is_empty() {
                let publishers: Vec<usize> = queued
                    .drain(..queued.len().min(Jetstream::APPENDS_PER_BATCH))
                    .collect();
                let batch = publishers.iter().map(|publisher| {
                    number += 1;
                    append(*publisher, number)
                });
                let stored = log.append(batch.collect());
                flying.push(async move { (publishers, stored.await) });
            }
            let Some((publishers, results)) = flying.next().await else {
                break;
            };
            for result in results {
                result.expect("stored");
                acknowledged += 1;
            }
            if start.elapsed() < time {
                queued.extend(publishers);
            }
        }
        (acknowledged, start.elapsed())
    })
}

fn append(publisher: usize, number: u64) -> Draft {
    let channel = ChannelName::from_whole(&format!("bench:{publisher}"));
    let terms = Terms::log(Duration::ZERO);
    let mut draft = Draft::new(terms, channel, Bytes::from_static(&PAYLOAD), true);
    draft.record.event = EventId::new(1_700_000_000_000, rand(number));
    draft.record.unix_ms = 1_700_000_000_000;
    draft
}

/// Ids that no other round has.
fn rand(number: u64) -> u128 {
    static ROUND: AtomicU64 = AtomicU64::new(0);
    let round = if number == 1 {
        ROUND.fetch_add(1, Ordering::Relaxed)
    } else {
        ROUND.load(Ordering::Relaxed) - 1
    };
    u128::from(round) << 56 | u128::from(number)
}

/// The same by async-nats alone, on one thread as well.
fn by_bare_client(server: &NatsServer, time: Duration, with_ids: bool) -> (u64, Duration) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let client = async_nats::connect(server.url()).await.expect("connected");
        let mut js = async_nats::jetstream::new(client);
        js.set_timeout(Duration::from_secs(10));
        js.get_or_create_stream(async_nats::jetstream::stream::Config {
            name: "BARE".to_owned(),
            subjects: vec!["bare.>".to_owned()],
            max_age: Duration::from_hours(72),
            duplicate_window: Durable::default().nats.duplicate_window,
            ..Default::default()
        })
        .await
        .expect("a stream");
        let ends = Arc::new(AtomicBool::new(false));
        let start = now();
        let publishers: Vec<_> = (0..PUBLISHERS)
            .map(|publisher| tokio::spawn(publish(js.clone(), publisher, ends.clone(), with_ids)))
            .collect();
        tokio::time::sleep(time).await;
        ends.store(true, Ordering::Relaxed);
        let mut acknowledged = 0;
        for publisher in publishers {
            acknowledged += publisher.await.expect("a publisher");
        }
        (acknowledged, start.elapsed())
    })
}

async fn publish(
    js: async_nats::jetstream::Context,
    publisher: usize,
    ends: Arc<AtomicBool>,
    with_ids: bool,
) -> u64 {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let subject = format!("bare.bench.{publisher}");
    let mut flying = FuturesUnordered::new();
    let mut acknowledged = 0;
    loop {
        while flying.len() < OUTSTANDING && !ends.load(Ordering::Relaxed) {
            let payload = Bytes::from_static(&PAYLOAD);
            let ack = if with_ids {
                let number = NUMBER.fetch_add(1, Ordering::Relaxed);
                let id = EventId::new(1_800_000_000_000, number.into());
                let mut headers = async_nats::HeaderMap::new();
                headers.insert("Nats-Msg-Id", id.to_string());
                js.publish_with_headers(subject.clone(), headers, payload)
                    .await
            } else {
                js.publish(subject.clone(), payload).await
            };
            flying.push(ack.expect("published").into_future());
        }
        let Some(ack) = flying.next().await else {
            return acknowledged;
        };
        ack.expect("acknowledged");
        acknowledged += 1;
    }
}
