//! What is stored, as it is stored: a consumer of this process alone, made anew from the next sequence whenever it falters.

use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, pull};
use futures_util::{FutureExt, StreamExt};
use tokio::sync::{Mutex, mpsc};

use super::link::{Link, Opened, unavailable};
use super::message::{self, Content};
use crate::mesh::durable::LogError;
use crate::model::Entry;

/// Entries given at once, at most.
const ENTRIES_MAX: usize = 512;
/// Bytes of records given at once; one entry is given whatever its size.
const BYTES_MAX: usize = 1 << 20;
/// Parts that wait for whoever reads the tail.
const WAITING_MAX: usize = 8;
/// Messages asked for at once.
const PULL: usize = 2000;
/// The server says that often that nothing is there.
const HEARTBEAT: Duration = Duration::from_millis(500);
/// Pause before a consumer is made again.
const AGAIN: Duration = Duration::from_millis(100);

type Part = Result<Vec<Arc<Entry>>, LogError>;

/// The tail of the log.
pub(super) struct Tail {
    parts: Mutex<mpsc::Receiver<Part>>,
}

impl Tail {
    /// Starts following; it ends when the `Tail` is gone.
    pub(super) fn spawn(link: Arc<Link>) -> Self {
        let (sender, parts) = mpsc::channel(WAITING_MAX);
        tokio::spawn(follow(link, sender));
        Self {
            parts: Mutex::new(parts),
        }
    }

    /// The next entries.
    pub(super) async fn next(&self) -> Part {
        match self.parts.lock().await.recv().await {
            Some(part) => part,
            None => std::future::pending().await,
        }
    }
}

async fn follow(link: Arc<Link>, parts: mpsc::Sender<Part>) {
    let mut changes = link.opened.subscribe();
    let mut known: Option<(u128, u64)> = None;
    while !parts.is_closed() {
        let Some(opened) = changes.borrow_and_update().clone() else {
            tokio::select! {
                changed = changes.changed() => if changed.is_err() { return },
                () = parts.closed() => return,
            }
            continue;
        };
        let next = match known {
            Some((log, next)) if log == opened.log => next,
            lost => {
                known = Some((opened.log, opened.end + 1));
                if lost.is_some()
                    && parts
                        .send(Err(unavailable("the stream was made anew")))
                        .await
                        .is_err()
                {
                    return;
                }
                continue;
            }
        };
        let mut next = next;
        tokio::select! {
            end = consume(&link, &opened, &mut next, &parts) => {
                if let Err(error) = end {
                    tracing::debug!("the tail of the durable log is made anew: {}", link.failed(&error));
                }
                known = Some((opened.log, next));
                tokio::time::sleep(AGAIN).await;
            }
            changed = changes.changed() => {
                known = Some((opened.log, next));
                if changed.is_err() { return }
            }
            () = parts.closed() => return,
        }
    }
}

/// Follows until something is wrong; `next` is the sequence after the last entry that was given.
async fn consume(
    link: &Link,
    opened: &Opened,
    next: &mut u64,
    parts: &mpsc::Sender<Part>,
) -> Result<(), async_nats::Error> {
    let consumer = opened
        .stream
        .create_consumer(pull::Config {
            description: Some("tail of a ringmain process".to_owned()),
            deliver_policy: DeliverPolicy::ByStartSequence {
                start_sequence: *next,
            },
            ack_policy: AckPolicy::None,
            filter_subject: link.subjects.publications(),
            inactive_threshold: Duration::from_secs(30),
            memory_storage: true,
            num_replicas: 1,
            ..pull::Config::default()
        })
        .await?;
    let mut messages = consumer
        .stream()
        .max_messages_per_batch(PULL)
        .heartbeat(HEARTBEAT)
        .expires(Duration::from_secs(5))
        .messages()
        .await?;
    let mut consumed = 0;
    while let Some(message) = messages.next().await {
        let mut part = Vec::new();
        let mut bytes = 0;
        let mut message = message?;
        let mut reached = *next;
        loop {
            let info = message.info()?;
            let (sequence, number) = (info.stream_sequence, info.consumer_sequence);
            if number != consumed + 1 {
                return Err("messages were lost on the way".into());
            }
            consumed = number;
            if sequence >= reached {
                reached = sequence + 1;
                let headers = message.headers.clone().unwrap_or_default();
                let content = message::decode(
                    &link.subjects,
                    &message.subject,
                    sequence,
                    &headers,
                    message.payload.clone(),
                );
                if let Some(Content::Entry(entry)) = content {
                    bytes += entry.record.bytes();
                    part.push(Arc::from(entry));
                }
            }
            if part.len() >= ENTRIES_MAX || bytes >= BYTES_MAX {
                break;
            }
            match messages.next().now_or_never() {
                Some(Some(Ok(another))) => message = another,
                Some(Some(Err(error))) => return Err(error.into()),
                Some(None) | None => break,
            }
        }
        if !part.is_empty() {
            // A place in the queue first: from then on nothing is lost if this ends here.
            let place = parts.reserve().await?;
            place.send(Ok(part));
        }
        *next = reached;
        link.status.send_if_modified(|status| {
            status.end = status.end.max(reached - 1);
            false
        });
    }
    Ok(())
}
