//! What is due: the server gives it out a little early, this process holds it until its time and appends it like any other. It is
//! acknowledged once it is stored. What is given twice, here or to another process, is stored once: its key, or else its event, is
//! marked with it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::consumer::{AckPolicy, pull};
use async_nats::jetstream::{AckKind, Message};
use futures_util::{FutureExt, StreamExt};
use tokio::time::Instant;

use super::link::{Link, Opened};
use super::message;
use super::writer::Writer;
use crate::mesh::durable::LogError;
use crate::model::Draft;
use crate::upstream::desk::unix_ms;

/// Name of the consumer that all processes share.
const CONSUMER: &str = "due";
/// What a process holds that has ended is given to others after this: it is so much late at most.
const ACK_WAIT: Duration = Duration::from_secs(5);
/// What is held longer, as the log does not take it, is spoken of this often.
const KEEP: Duration = Duration::from_secs(2);
/// Publications that are held here until their time.
const HELD: usize = 2048;
/// Of them, those that are appended at once.
const AT_ONCE: usize = 256;
/// Publications asked for at once, and for how long the server holds the question.
const ASKED_AT_ONCE: usize = 512;
const EXPIRES: Duration = Duration::from_secs(20);
const HEARTBEAT: Duration = Duration::from_secs(5);
/// What could not be stored or asked is tried again after this.
const RETRY: Duration = Duration::from_millis(250);
/// Without anything to do, the connection is looked at after this.
const IDLE: Duration = Duration::from_secs(2);
/// How long an event without a key is remembered, so that it is not published twice.
const EVENT_TTL: Duration = Duration::from_hours(24);
/// A key is remembered for so long in any case.
const KEY_REMEMBERED: Duration = Duration::from_mins(10);

/// One that was given out: by its time and its place in the stream.
type Held = BTreeMap<(u64, u64), (Draft, Message)>;

/// Publishes what is due, for ever.
pub(super) async fn publish(link: Arc<Link>, writer: Writer) {
    let mut changes = link.opened.subscribe();
    loop {
        let current = changes.borrow_and_update().clone();
        let Some(opened) = current else {
            if changes.changed().await.is_err() {
                return;
            }
            continue;
        };
        if let Err(error) = follow(&link, &opened, &writer).await {
            tracing::debug!(%error, "what is due is asked for again");
            tokio::time::sleep(RETRY).await;
        }
    }
}

/// Until the stream is another one, or is spoken to over another connection.
async fn follow(link: &Link, opened: &Arc<Opened>, writer: &Writer) -> Result<(), LogError> {
    let config = pull::Config {
        durable_name: Some(CONSUMER.to_owned()),
        description: Some("Publications whose time has come".to_owned()),
        filter_subjects: link.subjects.due().into(),
        ack_policy: AckPolicy::Explicit,
        ack_wait: ACK_WAIT,
        max_ack_pending: 4 * HELD as i64,
        ..pull::Config::default()
    };
    let consumer = opened
        .scheduled
        .create_consumer(config)
        .await
        .map_err(|error| link.failed(&error))?;
    let messages = consumer
        .stream()
        .max_messages_per_batch(ASKED_AT_ONCE)
        .expires(EXPIRES)
        .heartbeat(HEARTBEAT)
        .messages();
    let mut messages = messages.await.map_err(|error| link.failed(&error))?;
    let mut held = Held::new();
    let mut not_before = Instant::now();
    let mut kept = Instant::now();
    loop {
        if kept.elapsed() >= KEEP {
            keep(&held).await;
            kept = Instant::now();
        }
        while held.len() < HELD
            && let Some(message) = messages.next().now_or_never()
        {
            let message = message.ok_or_else(|| link.failed(&"the consumer has ended"))?;
            hold(
                link,
                &mut held,
                message.map_err(|error| link.failed(&error))?,
            )
            .await;
        }
        let is_current = matches!(&*link.opened.borrow(), Some(now) if Arc::ptr_eq(now, opened));
        if !is_current {
            return Ok(());
        }
        let now_ms = unix_ms();
        let next = held.first_key_value().map(|((due, _), _)| *due);
        if next.is_some_and(|due| due <= now_ms) && Instant::now() >= not_before {
            if !append(link, writer, &mut held, now_ms).await {
                not_before = Instant::now() + RETRY;
            }
            continue;
        }
        let wait = next.map_or(IDLE, |due| {
            Duration::from_millis(due.saturating_sub(now_ms))
        });
        let until = (Instant::now() + wait.min(IDLE)).max(not_before);
        let until = if held.is_empty() {
            until
        } else {
            until.min(kept + KEEP)
        };
        tokio::select! {
            message = messages.next(), if held.len() < HELD => {
                let message = message.ok_or_else(|| link.failed(&"the consumer has ended"))?;
                hold(link, &mut held, message.map_err(|error| link.failed(&error))?).await;
            }
            () = tokio::time::sleep_until(until) => {}
        }
    }
}

/// Says of all that is held that it is: nobody else gets it meanwhile.
async fn keep(held: &Held) {
    for (_, message) in held.values() {
        settle(message, AckKind::Progress).await;
    }
}

/// Takes in what the server has given out.
async fn hold(link: &Link, held: &mut Held, message: Message) {
    let sequence = message.info().map(|info| info.stream_sequence).unwrap_or(0);
    let headers = message.headers.clone().unwrap_or_default();
    match message::waited(&link.subjects, &headers, message.payload.clone()) {
        Some(draft) => {
            held.insert((draft.due_ms, sequence), (draft, message));
        }
        None => {
            tracing::warn!(sequence, "what was due cannot be read and is dropped");
            settle(&message, AckKind::Term).await;
        }
    }
}

/// Appends what is due, some at a time. `false` if some of it has to be tried again.
async fn append(link: &Link, writer: &Writer, held: &mut Held, now_ms: u64) -> bool {
    let behind = held.split_off(&(now_ms + 1, 0));
    let mut due = std::mem::replace(held, behind);
    let mut rest = match due.keys().nth(AT_ONCE).copied() {
        Some(first) => due.split_off(&first),
        None => Held::new(),
    };
    held.append(&mut rest);
    let drafts = due.values().map(|(draft, _)| {
        let mut draft = draft.clone();
        // It is taken in now, as far as anybody who works it off can know.
        draft.record.unix_ms = now_ms;
        let ttl = match &*draft.record.key {
            "" => EVENT_TTL,
            _ => draft.terms.key_ttl.max(KEY_REMEMBERED),
        };
        draft.terms.key_ttl = ttl;
        draft
    });
    let results = writer.append(drafts.collect()).await;
    let stored_ms = unix_ms();
    let mut is_done = true;
    for ((place, (draft, message)), result) in due.into_iter().zip(results) {
        match result {
            Ok(appended) => {
                settle(&message, AckKind::Ack).await;
                if appended.is_new {
                    late(link, stored_ms.saturating_sub(place.0));
                }
            }
            Err(error) if error.retry_after().is_some() => {
                is_done = false;
                held.insert(place, (draft, message));
            }
            Err(error) => {
                let (channel, event) = (draft.record.channel.whole(), draft.record.event);
                tracing::warn!(%error, channel, %event, "what was due cannot be published and is dropped");
                settle(&message, AckKind::Term).await;
            }
        }
    }
    is_done
}

fn late(link: &Link, ms: u64) {
    link.status.send_if_modified(|status| {
        status.schedule.late.record(ms.saturating_mul(1_000_000));
        status.schedule.pending = status.schedule.pending.saturating_sub(1);
        false
    });
}

/// What is not heard is given out again.
async fn settle(message: &Message, kind: AckKind) {
    if let Err(error) = message.ack_with(kind).await {
        tracing::debug!(%error, "an acknowledgement to NATS");
    }
}
