//! A log under test, and what every test asks of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use ringmain::config::durable::{Durable, Engine};
use ringmain::mesh::durable::{Appended, LogError, Read};
use ringmain::model::{ChannelName, Draft, Entry, EventId, StreamPosition, Terms};
use ringmain::upstream::log::{Entries as _, Slice};
use ringmain::upstream::nats::Jetstream;

use crate::nats_server::NatsServer;

/// No event takes longer on a loaded machine with two cores.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// Runs a test on a thread's runtime, as the bridge runs its log.
pub(crate) fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(test)
}

/// Asks again until there is an answer.
pub(crate) async fn until<T>(what: &str, mut poll: impl AsyncFnMut() -> Option<T>) -> T {
    let asked = async {
        let mut ticks = tokio::time::interval(Duration::from_millis(20));
        loop {
            ticks.tick().await;
            if let Some(found) = poll().await {
                return found;
            }
        }
    };
    match tokio::time::timeout(DEADLINE, asked).await {
        Ok(found) => found,
        Err(_) => panic!("waited {DEADLINE:?} for {what}"),
    }
}

pub(crate) fn config(server: &NatsServer) -> Durable {
    let mut config = Durable {
        engine: Engine::Nats,
        append_timeout: Duration::from_secs(3),
        ..Durable::default()
    };
    config.nats.servers = vec![server.url()];
    config
}

/// A log that can be written.
pub(crate) async fn open(config: &Durable) -> Jetstream {
    let log = Jetstream::connect(config).await.expect("settings");
    let opened = until("the log to open", async || match log.status().down {
        None => Some(Ok(())),
        Some(reason) if reason.contains("oldest") => Some(Err(reason)),
        Some(_) => None,
    });
    opened.await.expect("a server that is new enough");
    log
}

/// A publication unlike all others.
pub(crate) fn publication(channel: &str, text: &str) -> Draft {
    static NUMBER: AtomicU64 = AtomicU64::new(1);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let channel = ChannelName::from_whole(channel);
    let terms = Terms::log(Duration::from_hours(24));
    let data = Bytes::from(format!("\"{text}\""));
    let mut draft = Draft::new(terms, channel, data, true);
    draft.record.event = EventId::new(1_700_000_000_000 + number, u128::from(number));
    draft.record.tags = [("n".into(), number.to_string().into())].into();
    draft.record.unix_ms = 1_700_000_000_000 + number;
    draft
}

pub(crate) fn keyed(channel: &str, key: &str) -> Draft {
    let mut draft = publication(channel, key);
    draft.record.key = key.into();
    draft
}

pub(crate) async fn append_one(log: &Jetstream, draft: Draft) -> Result<Appended, LogError> {
    let results = log.append(vec![draft]).await;
    results.into_iter().next().expect("one result")
}

/// Appends again until it is stored, as a publisher with a key does.
pub(crate) async fn append_at_last(log: &Jetstream, draft: &Draft) -> Appended {
    until("an append", async || {
        append_one(log, draft.clone()).await.ok()
    })
    .await
}

pub(crate) async fn read(log: &Jetstream, channel: &str, after: u64, limit: u32) -> Slice {
    let read = Read {
        channel: ChannelName::from_whole(channel),
        after: Some(after),
        limit,
        bytes: 1 << 20,
    };
    log.read(&read).await.expect("read")
}

/// All that is kept of a channel, in pages.
pub(crate) async fn all(log: &Jetstream, channel: &str) -> (StreamPosition, Vec<Arc<Entry>>) {
    let mut entries: Vec<Arc<Entry>> = Vec::new();
    loop {
        let after = entries.last().map_or(0, |last| last.position.offset.0);
        let slice = read(log, channel, after, 700).await;
        if slice.entries.is_empty() {
            return (slice.position, entries);
        }
        entries.extend(slice.entries);
    }
}

/// Offsets are 1, 2, 3 … in one epoch, and no event is there twice.
pub(crate) fn assert_whole(entries: &[Arc<Entry>]) {
    let mut events = std::collections::BTreeSet::new();
    for (index, entry) in entries.iter().enumerate() {
        assert_eq!(entry.position.offset.0, index as u64 + 1, "no hole");
        assert_eq!(entry.position.epoch, entries[0].position.epoch, "one epoch");
        assert!(
            events.insert(entry.record.event),
            "{} twice",
            entry.record.event
        );
    }
}

/// What the tail gives, by channel, until all these events have come.
pub(crate) async fn follow(
    log: &Jetstream,
    events: &[EventId],
) -> BTreeMap<String, Vec<Arc<Entry>>> {
    let mut missing: std::collections::BTreeSet<EventId> = events.iter().copied().collect();
    let mut seen: BTreeMap<String, Vec<Arc<Entry>>> = BTreeMap::new();
    let mut last = 0;
    let following = async {
        while !missing.is_empty() {
            for entry in log.tail().await.expect("the tail keeps its place") {
                assert!(entry.cursor > last, "in the order of the log, once");
                last = entry.cursor;
                missing.remove(&entry.record.event);
                let channel = entry.record.channel.whole().to_owned();
                seen.entry(channel).or_default().push(entry);
            }
        }
    };
    let followed = tokio::time::timeout(DEADLINE, following).await;
    assert!(followed.is_ok(), "the tail lacks {} entries", missing.len());
    seen
}
