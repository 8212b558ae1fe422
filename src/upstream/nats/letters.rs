//! Dead letters: a bucket of its own, without an end of age, by group and event.

use std::sync::Arc;
use std::time::Duration;

use async_nats::header::{HeaderMap, HeaderName};
use bytes::Bytes;
use futures_util::future::join_all;
use serde::{Deserialize, Serialize};

use super::link::{Link, Opened};
use super::message::{self, Content, Version};
use super::subject::{name, unname};
use super::{Jetstream, values};
use crate::mesh::durable::LogError;
use crate::model::EventId;
use crate::upstream::log::{DeadLetter, Failure, Letters};

/// How long JetStream remembers that a letter is gone.
const GONE: Duration = Duration::from_secs(60);
/// Letters read at the same time.
const AT_ONCE: usize = 64;

/// The first line of a letter; the payload follows it as it is.
#[derive(Serialize, Deserialize)]
struct Head {
    unix_ms: u64,
    failures: Vec<Failure>,
    subject: String,
    cursor: u64,
    headers: Vec<(String, String)>,
}

impl Letters for Jetstream {
    async fn bury(&self, letter: &DeadLetter) -> Result<(), LogError> {
        bury(&self.link, letter).await
    }

    async fn dead_letters(
        &self,
        group: Option<&str>,
        after: Option<(&str, EventId)>,
        limit: usize,
    ) -> Result<Vec<DeadLetter>, LogError> {
        list(&self.link, group, after, limit).await
    }

    async fn dead_letter(
        &self,
        group: &str,
        event: EventId,
    ) -> Result<Option<DeadLetter>, LogError> {
        let opened = self.link.opened()?;
        one(&self.link, &opened, group, event).await
    }

    async fn exhume(&self, group: &str, event: EventId) -> Result<bool, LogError> {
        exhume(&self.link, group, event).await
    }
}

/// See `Letters::bury`.
pub(super) async fn bury(link: &Link, letter: &DeadLetter) -> Result<(), LogError> {
    let opened = link.opened()?;
    let record = &letter.entry.record;
    let headers = message::headers(record, letter.entry.position, &Version::default());
    let lines = headers.iter().flat_map(|(name, values)| {
        let line =
            move |value: &async_nats::HeaderValue| (name.to_string(), value.as_str().to_owned());
        values.iter().map(line)
    });
    let mut head = Head {
        unix_ms: letter.unix_ms,
        failures: letter.failures.clone(),
        subject: link
            .subjects
            .channel(&record.tenant, record.channel.as_str()),
        cursor: letter.entry.cursor,
        headers: lines.collect(),
    };
    let room = link
        .client()
        .max_payload()
        .saturating_sub(message::OWN_HEADERS_BYTES);
    let value = loop {
        let mut value = serde_json::to_vec(&head).map_err(|error| link.failed(&error))?;
        value.push(b'\n');
        value.extend_from_slice(&record.data);
        // The last failures say most where not all of them have room.
        if value.len() <= room || head.failures.len() <= 1 {
            break value;
        }
        head.failures.remove(0);
    };
    let put = opened
        .dead
        .put(key(&letter.group, record.event), value.into())
        .await;
    put.map_err(|error| link.failed(&error))?;
    Ok(())
}

/// See `Letters::dead_letters`.
pub(super) async fn list(
    link: &Link,
    group: Option<&str>,
    after: Option<(&str, EventId)>,
    limit: usize,
) -> Result<Vec<DeadLetter>, LogError> {
    let opened = link.opened()?;
    let filter = group.map_or_else(|| ">".to_owned(), |group| format!("{}.*", name(group)));
    let keys = values::keys(&opened.dead, &filter).await;
    let keys = keys.map_err(|error| link.failed(&error))?;
    let mut places: Vec<(String, EventId)> = keys.iter().filter_map(|key| place(key)).collect();
    places.sort_unstable();
    if let Some((group, event)) = after {
        places.retain(|(g, e)| (g.as_str(), *e) > (group, event));
    }
    let mut letters = Vec::new();
    for places in places.chunks(AT_ONCE) {
        let read = |(group, event): &(String, EventId)| {
            let (group, event, opened) = (group.clone(), *event, opened.clone());
            async move { one(link, &opened, &group, event).await }
        };
        for letter in join_all(places.iter().map(read)).await {
            letters.extend(letter?);
        }
        if letters.len() >= limit {
            break;
        }
    }
    letters.truncate(limit);
    Ok(letters)
}

/// See `Letters::dead_letter`.
pub(super) async fn one(
    link: &Link,
    opened: &Opened,
    group: &str,
    event: EventId,
) -> Result<Option<DeadLetter>, LogError> {
    let value = values::newest(&opened.dead, &key(group, event)).await;
    let value = value.map_err(|error| link.failed(&error))?;
    let Some(value) = value else {
        return Ok(None);
    };
    match decode(link, group, &value) {
        Some(letter) => Ok(Some(letter)),
        None => Err(link.failed(&"a dead letter is not what this program writes")),
    }
}

/// See `Letters::exhume`.
pub(super) async fn exhume(link: &Link, group: &str, event: EventId) -> Result<bool, LogError> {
    let opened = link.opened()?;
    let key = key(group, event);
    let value = values::newest(&opened.dead, &key).await;
    if value.map_err(|error| link.failed(&error))?.is_none() {
        return Ok(false);
    }
    let purged = opened.dead.purge_with_ttl(key, GONE).await;
    purged.map_err(|error| link.failed(&error))?;
    Ok(true)
}

fn decode(link: &Link, group: &str, value: &Bytes) -> Option<DeadLetter> {
    let end = memchr::memchr(b'\n', value)?;
    let head: Head = serde_json::from_slice(value.get(..end)?).ok()?;
    let mut headers = HeaderMap::new();
    for (name, text) in &head.headers {
        let name: HeaderName = name.parse().ok()?;
        let text: async_nats::HeaderValue = text.parse().ok()?;
        headers.append(name, text);
    }
    let data = value.slice(end + 1..);
    let content = message::decode(&link.subjects, &head.subject, head.cursor, &headers, data);
    let Some(Content::Entry(entry)) = content else {
        return None;
    };
    Some(DeadLetter {
        group: group.into(),
        entry: Arc::from(entry),
        failures: head.failures,
        unix_ms: head.unix_ms,
    })
}

fn key(group: &str, event: EventId) -> String {
    format!("{}.{event}", name(group))
}

fn place(key: &str) -> Option<(String, EventId)> {
    let (group, event) = key.rsplit_once('.')?;
    Some((unname(group)?, EventId::parse(event)?))
}
