//! What does the durable log in JetStream cost beside a program that only publishes? 64 publishers with 32 publications outstanding each, 256 bytes, 64 channels:
//! by `Jetstream::append` in batches as the bridge makes them, and by bare async-nats with an acknowledgement for each; in turns, against one server with file storage.
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
use ringmain::mesh::durable::{Append, RequestId};
use ringmain::model::{ChannelName, EventId, Record};
use ringmain::upstream::Log;
use ringmain::upstream::nats::Jetstream;

use nats_server::NatsServer;

const PUBLISHERS: usize = 64;
const OUTSTANDING: usize = 32;
const BATCH_MAX: usize = 2048;
const PAYLOAD: [u8; 256] = [b'1'; 256];

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
    let (mut ours, mut bare, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..rounds {
        let ((own, own_cpu), (other, other_cpu)) = if round % 2 == 0 {
            let own = measured(&server, || by_log(&server, time));
            (own, measured(&server, || by_bare_client(&server, time)))
        } else {
            let other = measured(&server, || by_bare_client(&server, time));
            (measured(&server, || by_log(&server, time)), other)
        };
        println!(
            "round {round}: log {own:>9.0}/s ({own_cpu})   bare {other:>9.0}/s ({other_cpu})   {:.2}",
            own / other
        );
        ours.push(own);
        bare.push(other);
        ratios.push(own / other);
    }
    println!(
        "median of {rounds}: log {:.0}/s, bare {:.0}/s, ratio {:.2}",
        median(&mut ours),
        median(&mut bare),
        median(&mut ratios)
    );
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
                let publishers: Vec<usize> = queued.drain(..queued.len().min(BATCH_MAX)).collect();
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

fn append(publisher: usize, number: u64) -> Append {
    Append {
        id: RequestId {
            slot: 0,
            generation: 0,
        },
        record: Record {
            tenant: Box::default(),
            channel: ChannelName::new(&format!("bench:{publisher}")),
            event: EventId::new(1_700_000_000_000, rand(number)),
            key: Box::default(),
            schema: 0,
            tags: Box::default(),
            publisher: None,
            trace: Box::default(),
            unix_ms: 1_700_000_000_000,
            data: Bytes::from_static(&PAYLOAD),
            json: true,
            delta: false,
            hops: 0,
            origin: None,
        },
        key_ttl: Duration::ZERO,
        version: 0,
        version_epoch: Box::default(),
    }
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
fn by_bare_client(server: &NatsServer, time: Duration) -> (u64, Duration) {
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
            ..Default::default()
        })
        .await
        .expect("a stream");
        let ends = Arc::new(AtomicBool::new(false));
        let start = now();
        let publishers: Vec<_> = (0..PUBLISHERS)
            .map(|publisher| tokio::spawn(publish(js.clone(), publisher, ends.clone())))
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
) -> u64 {
    let subject = format!("bare.bench.{publisher}");
    let mut flying = FuturesUnordered::new();
    let mut acknowledged = 0;
    loop {
        while flying.len() < OUTSTANDING && !ends.load(Ordering::Relaxed) {
            let ack = js
                .publish(subject.clone(), Bytes::from_static(&PAYLOAD))
                .await;
            flying.push(ack.expect("published").into_future());
        }
        let Some(ack) = flying.next().await else {
            return acknowledged;
        };
        ack.expect("acknowledged");
        acknowledged += 1;
    }
}
