//! Dead letters in the embedded log: what is asked of them, and their bytes.

use bytes::Bytes;

use super::block::{self, Head};
use super::bytes::{Damage, Reader, put_bytes, put_number};
use super::core::Broken;
use super::store::Store;
use super::{Embedded, bytes_of, check_name, unreadable};
use crate::mesh::durable::LogError;
use crate::model::{Entry, EventId};
use crate::upstream::log::{DeadLetter, Letters};

const FORMAT: u8 = 1;

impl Letters for Embedded {
    async fn bury(&self, letter: &DeadLetter) -> Result<(), LogError> {
        check_name(&letter.group)?;
        self.with(|core| {
            let mut batch = core.store.batch();
            let key = key(&letter.group, letter.entry.record.event);
            batch.insert(&core.store.letters, key, encode(letter));
            Store::commit(batch, true).map_err(Broken)
        })
    }

    async fn dead_letters(
        &self,
        group: Option<&str>,
        after: Option<(&str, EventId)>,
        limit: usize,
    ) -> Result<Vec<DeadLetter>, LogError> {
        let group = group.map(str::to_owned);
        let after = after.map(|(group, event)| (group.to_owned(), event));
        let (letters, damaged) = self
            .reading(move |_, store| {
                let after = after
                    .as_ref()
                    .map(|(group, event)| (group.as_str(), *event));
                list(store, group.as_deref(), after, limit)
            })
            .await?;
        self.inner.borrow_mut().damaged += damaged;
        Ok(letters)
    }

    async fn dead_letter(
        &self,
        group: &str,
        event: EventId,
    ) -> Result<Option<DeadLetter>, LogError> {
        let key = key(group, event);
        let letter = self
            .reading(move |_, store| {
                let value = store.letters.get(&key)?;
                Ok(value.map(|value| decode(&key, bytes_of(value))))
            })
            .await?;
        letter
            .transpose()
            .map_err(|damage| unreadable(&damage.to_string()))
    }

    async fn exhume(&self, group: &str, event: EventId) -> Result<bool, LogError> {
        self.with(|core| {
            let key = key(group, event);
            if !core.store.letters.contains_key(&key)? {
                return Ok(false);
            }
            let mut batch = core.store.batch();
            batch.remove(&core.store.letters, key);
            Store::commit(batch, true).map_err(Broken)?;
            Ok(true)
        })
    }
}

/// Key of a letter: names sort as they do as text, since none holds a zero byte.
#[must_use]
pub fn key(group: &str, event: EventId) -> Vec<u8> {
    [group.as_bytes(), &[0], &event.0.to_be_bytes()].concat()
}

/// A letter as it is stored.
#[must_use]
pub fn encode(letter: &DeadLetter) -> Vec<u8> {
    let entry: &Entry = &letter.entry;
    let head = Head {
        channel_id: 0,
        epoch: entry.position.epoch,
        first_offset: entry.position.offset.0,
        log_ms: 0,
        mark_ms: 0,
        bytes_before: 0,
        count: 1,
        channel: entry.record.channel.clone(),
    };
    let mut out = vec![FORMAT];
    put_number(&mut out, letter.unix_ms);
    put_number(&mut out, entry.cursor);
    let failures = serde_json::to_vec(&letter.failures).unwrap_or_default();
    put_bytes(&mut out, &failures);
    put_bytes(
        &mut out,
        &block::encode(&head, std::iter::once(&entry.record)),
    );
    out
}

/// A letter out of what is stored.
///
/// # Errors
///
/// It is damaged.
pub fn decode(key: &[u8], value: Bytes) -> Result<DeadLetter, Damage> {
    let group = key.split(|byte| *byte == 0).next().unwrap_or_default();
    let mut reader = Reader::new(&value, 0);
    let format = reader.byte()?;
    if format != FORMAT {
        return Err(Damage::Format(format));
    }
    let unix_ms = reader.number()?;
    let cursor = reader.number()?;
    let failures = serde_json::from_slice(&reader.shared()?).map_err(|_| Damage::Value)?;
    let entry = block::decode(cursor, &reader.shared()?)?.pop();
    Ok(DeadLetter {
        group: str::from_utf8(group).map_err(|_| Damage::Value)?.into(),
        entry: entry.ok_or(Damage::Short)?,
        failures,
        unix_ms,
    })
}

/// Letters in order, and how many are damaged.
///
/// # Errors
///
/// The library's.
pub fn list(
    store: &Store,
    group: Option<&str>,
    after: Option<(&str, EventId)>,
    limit: usize,
) -> fjall::Result<(Vec<DeadLetter>, u64)> {
    let first = group.map_or(Vec::new(), |group| key(group, EventId(0)));
    let from = match after {
        Some((group, event)) => {
            let mut next = key(group, event);
            next.push(0);
            next.max(first)
        }
        None => first,
    };
    let mut letters = Vec::new();
    let mut damaged = 0;
    for guard in store.letters.range(from..) {
        if letters.len() >= limit {
            break;
        }
        let (key, value) = guard.into_inner()?;
        let is_of = |group: &str| {
            key.strip_prefix(group.as_bytes())
                .is_some_and(|rest| rest.first() == Some(&0))
        };
        if group.is_some_and(|group| !is_of(group)) {
            break;
        }
        match decode(&key, Bytes::from_owner(value)) {
            Ok(letter) => letters.push(letter),
            Err(_) => damaged += 1,
        }
    }
    Ok((letters, damaged))
}
