//! Publications that wait for their time: each is the only message of its subject in a stream beside the log's, with a schedule that
//! the server keeps (ADR-51). Nothing of them is in the memory of this process.
//!
//! Two with one key never wait in a channel: the server stores one only where none with its key is there, or was given out and is
//! not published yet. One that is published at once with the key of one that waits is published, and the other one is not when its
//! time comes.

use std::collections::BTreeMap;

use async_nats::header::{HeaderName, HeaderValue};
use async_nats::jetstream::context::PublishErrorKind;
use async_nats::jetstream::message::StreamMessage;
use async_nats::jetstream::stream::RawMessageErrorKind;
use futures_util::StreamExt;
use futures_util::future::join_all;
use sha2::{Digest, Sha256};

use super::link::{Link, Opened};
use super::writer::key_hash;
use super::{Jetstream, head, message};
use crate::mesh::durable::{Appended, LogError};
use crate::model::{ChannelName, Draft, EventId, StreamPosition};
use crate::time::rfc3339;
use crate::upstream::log::{Name, Page, Pending, Place, Scheduled, Which};

const SCHEDULE: HeaderName = HeaderName::from_static("Nats-Schedule");
const TARGET: HeaderName = HeaderName::from_static("Nats-Schedule-Target");
const EXPECTED: HeaderName = HeaderName::from_static("Nats-Expected-Last-Subject-Sequence");
const EXPECTED_SUBJECT: HeaderName =
    HeaderName::from_static("Nats-Expected-Last-Subject-Sequence-Subject");

/// The server looks at its schedules a few times a second. It gives each out so much earlier, and whoever gets it waits for the rest.
const EARLY_MS: u64 = 1000;
/// Messages read at the same time.
const AT_ONCE: usize = 64;
/// What stands where there is no key.
const NO_KEY: &str = "-";

/// Stores what is published later; one result for each, in order.
pub(super) async fn schedule(link: &Link, drafts: Vec<Draft>) -> Vec<Result<Appended, LogError>> {
    let count = drafts.len() as u64;
    if count == 0 {
        return Vec::new();
    }
    let room = link.config.scheduled_max;
    let pending = link.status.borrow().schedule.pending;
    if pending.saturating_add(count) > room {
        let says = format!(
            "{pending} publications wait for their time, and durable.scheduled_max allows {room}"
        );
        return drafts
            .iter()
            .map(|_| Err(LogError::Full(says.as_str().into())))
            .collect();
    }
    let results = join_all(drafts.into_iter().map(|draft| one(link, draft))).await;
    let is_new = |result: &&Result<Appended, LogError>| {
        result.as_ref().is_ok_and(|appended| appended.is_new)
    };
    let new = results.iter().filter(is_new).count() as u64;
    link.status.send_if_modified(|status| {
        status.schedule.pending += new;
        false
    });
    results
}

async fn one(link: &Link, draft: Draft) -> Result<Appended, LogError> {
    let opened = link.opened()?;
    let record = &draft.record;
    if let Some(published) = published(link, &opened, &draft).await? {
        return Ok(published);
    }
    let keyed = (!record.key.is_empty()).then(|| {
        let channel = subject_of(link, &record.channel);
        let key = key_of(&channel, &record.key);
        link.subjects.keyed(&hash(&channel), &key)
    });
    let (event, due_ms) = (record.event, draft.due_ms);
    if let Some(sequence) = put(link, &draft, keyed.as_deref().map(|keyed| (keyed, 0))).await? {
        // The one before may have been published between the two.
        let before = published(link, &opened, &draft).await?;
        if let Some(before) = before.filter(|before| before.event != Some(event)) {
            delete(link, sequence).await?;
            return Ok(before);
        }
        return Ok(waits(due_ms, event, true));
    }
    let found = match &keyed {
        Some(keyed) => last(link, &opened, keyed).await?,
        None => None,
    };
    match found.and_then(|found| waiting(link, found)) {
        Some(pending) => {
            let event = pending.draft.record.event;
            Ok(waits(pending.place.due_ms, event, false))
        }
        None => Err(link.failed(&"it is published by another at the same time")),
    }
}

/// What was published with its key.
async fn published(
    link: &Link,
    opened: &Opened,
    draft: &Draft,
) -> Result<Option<Appended>, LogError> {
    let record = &draft.record;
    if record.key.is_empty() {
        return Ok(None);
    }
    let subject = subject_of(link, &record.channel);
    let mark = link.subjects.key(&key_hash(&subject, &record.key));
    let published = head::last(link, opened, &mark).await?;
    Ok(published.and_then(|last| {
        Some(Appended {
            position: last.head?.position,
            is_new: false,
            event: last.marked,
            due_ms: 0,
        })
    }))
}

fn waits(due_ms: u64, event: EventId, is_new: bool) -> Appended {
    Appended {
        position: StreamPosition::default(),
        is_new,
        event: Some(event),
        due_ms,
    }
}

/// Stores one that waits, if the last message of these subjects is this one, 0 for none. `None` if it is another.
async fn put(
    link: &Link,
    draft: &Draft,
    expected: Option<(&str, u64)>,
) -> Result<Option<u64>, LogError> {
    let channel = subject_of(link, &draft.record.channel);
    let mut headers = message::waiting(draft, &channel);
    let at = rfc3339(draft.due_ms.saturating_sub(EARLY_MS));
    headers.insert(SCHEDULE, format!("@at {at}"));
    let (of_channel, key) = (hash(&channel), key_of(&channel, &draft.record.key));
    let due = format!("{:016}", draft.due_ms);
    let event = draft.record.event.to_string();
    let given_out = link.subjects.given_out(&of_channel, &key, &due, &event);
    headers.insert(TARGET, given_out);
    if let Some((subjects, sequence)) = expected {
        headers.insert(EXPECTED, HeaderValue::from(sequence));
        headers.insert(EXPECTED_SUBJECT, subjects);
    }
    let subject = link.subjects.waiting(&of_channel, &key, &due, &event);
    let js = link.js();
    let sent = js.publish_with_headers(subject, headers, draft.record.data.clone());
    let stored = match sent.await {
        Ok(stored) => stored.await,
        Err(error) => Err(error),
    };
    match stored {
        Ok(stored) => Ok(Some(stored.sequence)),
        Err(error) if error.kind() == PublishErrorKind::WrongLastSequence => Ok(None),
        Err(error) if error.kind() == PublishErrorKind::MaxPayloadExceeded => Err(
            LogError::Refused("the NATS server takes no message so large".into()),
        ),
        Err(error) => Err(link.failed(&error)),
    }
}

fn subject_of(link: &Link, channel: &ChannelName) -> String {
    link.subjects.channel(channel.whole())
}

/// Subjects of those that wait with a key; `None` without one.
fn named(link: &Link, channel: &ChannelName, key: &str) -> Option<String> {
    let channel = subject_of(link, channel);
    let key = (!key.is_empty()).then(|| key_of(&channel, key))?;
    Some(link.subjects.waiting(&hash(&channel), &key, "*", "*"))
}

fn key_of(channel: &str, key: &str) -> String {
    match key {
        "" => NO_KEY.to_owned(),
        key => key_hash(channel, key).into(),
    }
}

/// Stands for a channel.
fn hash(subject: &str) -> String {
    let digest = Sha256::digest(subject.as_bytes());
    digest[..16]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// The last message of subjects, as the stream's leader knows it.
async fn last(
    link: &Link,
    opened: &Opened,
    subjects: &str,
) -> Result<Option<StreamMessage>, LogError> {
    let found = opened.scheduled.get_last_raw_message_by_subject(subjects);
    match found.await {
        Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => Ok(None),
        found => Ok(Some(found.map_err(|error| link.failed(&error))?)),
    }
}

/// What a message is; `None` if this program did not write it.
fn waiting(link: &Link, found: StreamMessage) -> Option<Pending> {
    let draft = message::waited(&link.subjects, &found.headers, found.payload)?;
    Some(Pending {
        place: Place {
            due_ms: draft.due_ms,
            number: draft.record.event.0,
        },
        draft,
    })
}

/// Where a subject says that its message stands.
fn place(subject: &str) -> Option<Place> {
    let mut parts = subject.rsplit('.');
    let event = EventId::parse(parts.next()?)?;
    Some(Place {
        due_ms: parts.next()?.parse().ok()?,
        number: event.0,
    })
}

async fn find(link: &Link, which: &Which) -> Result<Option<(u64, Pending)>, LogError> {
    let opened = link.opened()?;
    let subjects = match &which.name {
        Name::Key(key) => named(link, &which.channel, key),
        Name::Event(event) => {
            let channel = hash(&subject_of(link, &which.channel));
            Some(
                link.subjects
                    .waiting(&channel, "*", "*", &event.to_string()),
            )
        }
    };
    let Some(subjects) = subjects else {
        return Ok(None);
    };
    let found = last(link, &opened, &subjects).await?;
    Ok(found.and_then(|found| Some((found.sequence, waiting(link, found)?))))
}

/// `false` if the message is gone: its time has come, or somebody else was faster.
async fn delete(link: &Link, sequence: u64) -> Result<bool, LogError> {
    let opened = link.opened()?;
    match opened.scheduled.delete_message(sequence).await {
        Ok(is_deleted) => Ok(is_deleted),
        Err(error) => match opened.scheduled.get_raw_message(sequence).await {
            Err(gone) if gone.kind() == RawMessageErrorKind::NoMessageFound => Ok(false),
            _ => Err(link.failed(&error)),
        },
    }
}

impl Scheduled for Jetstream {
    async fn scheduled(&self, wanted: &Page) -> Result<Vec<Pending>, LogError> {
        let link = &*self.link;
        let opened = link.opened()?;
        let channel = match &wanted.channel {
            Some(channel) => hash(&subject_of(link, channel)),
            None => "*".to_owned(),
        };
        let subjects = link.subjects.waiting(&channel, "*", "*", "*");
        let failed = |error: &dyn std::fmt::Display| link.failed(error);
        let all = opened.scheduled.info_builder().subjects(subjects);
        let mut all = all.fetch().await.map_err(|error| failed(&error))?;
        // The server knows no order of times: the first ones behind the place are kept.
        let mut first = BTreeMap::new();
        while let Some(subject) = all.next().await {
            let (subject, _) = subject.map_err(|error| failed(&error))?;
            let Some(place) = place(&subject).filter(|place| Some(*place) > wanted.after) else {
                continue;
            };
            first.insert(place, subject);
            if first.len() > wanted.limit {
                first.pop_last();
            }
        }
        let subjects: Vec<String> = first.into_values().collect();
        let (mut found, mut bytes) = (Vec::new(), 0);
        for part in subjects.chunks(AT_ONCE) {
            let read = part.iter().map(|subject| last(link, &opened, subject));
            for message in join_all(read).await {
                if bytes >= wanted.bytes {
                    return Ok(found);
                }
                // What has become due meanwhile is left out.
                if let Some(pending) = message?.and_then(|message| waiting(link, message)) {
                    bytes += pending.draft.record.bytes();
                    found.push(pending);
                }
            }
        }
        Ok(found)
    }

    async fn pending(&self, which: &Which) -> Result<Option<Pending>, LogError> {
        let found = find(&self.link, which).await?;
        Ok(found.map(|(_, pending)| pending))
    }

    async fn cancel(&self, which: &Which) -> Result<Option<Pending>, LogError> {
        let Some((sequence, pending)) = find(&self.link, which).await? else {
            return Ok(None);
        };
        let is_deleted = delete(&self.link, sequence).await?;
        Ok(is_deleted.then_some(pending))
    }

    async fn change(&self, which: &Which, due_ms: u64) -> Result<Option<Pending>, LogError> {
        let link = &*self.link;
        let Some((sequence, mut pending)) = find(link, which).await? else {
            return Ok(None);
        };
        if pending.place.due_ms == due_ms {
            return Ok(Some(pending));
        }
        pending.place.due_ms = due_ms;
        pending.draft.due_ms = due_ms;
        let record = &pending.draft.record;
        let named = named(link, &record.channel, &record.key);
        let expected = named.as_deref().map(|named| (named, sequence));
        // The new one first: whoever dies in between leaves two, of which one is published.
        if put(link, &pending.draft, expected).await?.is_none() {
            return Ok(None);
        }
        if delete(link, sequence).await? {
            return Ok(Some(pending));
        }
        // The time of the old one has come, so the new one is not needed.
        let event = Name::Event(record.event);
        let again = Which {
            channel: which.channel.clone(),
            name: event,
        };
        if let Some((sequence, _)) = find(link, &again).await? {
            delete(link, sequence).await?;
        }
        Ok(None)
    }
}
