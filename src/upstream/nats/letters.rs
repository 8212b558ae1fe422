//! Dead letters: a bucket of its own, without an end of age, by group and event.

use std::collections::{BTreeMap, BTreeSet};
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
use crate::model::{Draft, EventId};
use crate::upstream::log::{Bounds, Cause, Census, DeadLetter, Failure, Lease, Letters};

/// How long JetStream remembers that a letter is gone.
const GONE: Duration = Duration::from_secs(60);
/// Letters read at the same time.
const AT_ONCE: usize = 64;
/// Letters that are forgotten in one step.
const EXPIRED_AT_ONCE: usize = 256;

/// The first line of a letter; the payload follows it as it is.
#[derive(Serialize, Deserialize)]
struct Head {
    unix_ms: u64,
    failures: Vec<Failure>,
    subject: String,
    cursor: u64,
    headers: Vec<(String, String)>,
}

/// Where a letter is found.
type Place = (Box<str>, EventId);

/// The letters of one stream as this process knows them: what it has counted once, and what has come and gone here since.
#[derive(Default)]
pub(super) struct Known {
    /// Stream that was counted; 0 while none was.
    log: u128,
    letters: BTreeMap<Place, (u64, Cause, u64)>,
    by_time: BTreeSet<(u64, Place)>,
    census: Census,
    /// What goes while it is counted is not to be counted.
    gone: Option<BTreeSet<Place>>,
}

impl Known {
    fn add(&mut self, letter: &DeadLetter) {
        let place = (letter.group.clone(), letter.entry.record.event);
        self.remove(&place);
        let (cause, bytes) = (letter.cause(), letter.bytes());
        self.census.add(&letter.group, cause, bytes);
        self.by_time.insert((letter.unix_ms, place.clone()));
        self.letters.insert(place, (letter.unix_ms, cause, bytes));
    }

    fn remove(&mut self, place: &Place) {
        if let Some((unix_ms, cause, bytes)) = self.letters.remove(place) {
            self.census.take(&place.0, cause, bytes);
            self.by_time.remove(&(unix_ms, place.clone()));
        }
    }

    fn exhumed(&mut self, place: Place) {
        self.remove(&place);
        if let Some(gone) = &mut self.gone {
            gone.insert(place);
        }
    }

    /// The oldest letter if it is beyond the bounds.
    fn passed(&self, bounds: Bounds, now_ms: u64) -> Option<Place> {
        let (unix_ms, place) = self.by_time.first()?;
        let Census { letters, bytes, .. } = self.census;
        let is_passed = bounds.are_passed(*unix_ms, now_ms, letters, bytes);
        is_passed.then(|| place.clone())
    }
}

impl Letters for Jetstream {
    async fn bury(&self, letter: &DeadLetter) -> Result<(), LogError> {
        bury(&self.link, letter).await?;
        self.letters.borrow_mut().add(letter);
        Ok(())
    }

    /// A bucket and a stream are not written together: see the seam for the order.
    async fn give_up(
        &self,
        lease: Lease,
        letter: &DeadLetter,
        obituary: Option<Draft>,
    ) -> Result<Option<Draft>, LogError> {
        let failures = &letter.failures;
        self.groups
            .keep_history(&letter.group, lease, failures)
            .await?;
        self.bury(letter).await?;
        Ok(obituary)
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
        let is_gone = exhume(&self.link, group, event).await?;
        self.letters.borrow_mut().exhumed((group.into(), event));
        Ok(is_gone)
    }

    async fn expire_letters(&self, bounds: Bounds) -> Result<Vec<Box<str>>, LogError> {
        let opened = self.link.opened()?;
        if self.letters.borrow().log != opened.log {
            self.count(&opened).await?;
        }
        let mut gone = Vec::new();
        while gone.len() < EXPIRED_AT_ONCE {
            let now_ms = crate::upstream::desk::unix_ms();
            let Some((group, event)) = self.letters.borrow().passed(bounds, now_ms) else {
                break;
            };
            if self.exhume(&group, event).await? {
                gone.push(group);
            }
        }
        Ok(gone)
    }

    fn census(&self) -> Census {
        self.letters.borrow().census.clone()
    }
}

impl Jetstream {
    /// Reads all letters once.
    async fn count(&self, opened: &Opened) -> Result<(), LogError> {
        self.letters.replace(Known {
            gone: Some(BTreeSet::new()),
            ..Known::default()
        });
        let keys = values::keys(&opened.dead, ">").await;
        let keys = keys.map_err(|error| self.link.failed(&error))?;
        let places: Vec<(String, EventId)> = keys.iter().filter_map(|key| place(key)).collect();
        for places in places.chunks(AT_ONCE) {
            let read = |(group, event): &(String, EventId)| {
                let (group, event) = (group.clone(), *event);
                async move {
                    let value = values::newest(&opened.dead, &key(&group, event)).await;
                    let value = value.map_err(|error| self.link.failed(&error))?;
                    // What is damaged is told where it is asked for.
                    Ok::<_, LogError>(value.and_then(|value| decode(&self.link, &group, &value)))
                }
            };
            for letter in join_all(places.iter().map(read)).await {
                let Some(letter) = letter? else { continue };
                let mut known = self.letters.borrow_mut();
                let place = (letter.group.clone(), letter.entry.record.event);
                let is_gone = known
                    .gone
                    .as_ref()
                    .is_some_and(|gone| gone.contains(&place));
                if !is_gone && !known.letters.contains_key(&place) {
                    known.add(&letter);
                }
            }
        }
        let mut known = self.letters.borrow_mut();
        known.gone = None;
        known.log = opened.log;
        Ok(())
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
        subject: link.subjects.channel(record.channel.whole()),
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
