//! Dead letters as they are stored: their bytes, and an index of them in the order in which they died.

use bytes::Bytes;
use fjall::OwnedWriteBatch;

use super::block::{self, Head};
use super::bytes::{Damage, Reader, put_bytes, put_number};
use super::bytes_of;
use super::segments::cursor_of;
use super::store::Store;
use crate::model::{Entry, EventId};
use crate::upstream::log::{Cause, Census, DeadLetter};

const FORMAT: u8 = 1;
/// Start of the rows of the index.
pub const BY_TIME: &[u8] = b"y/";
/// Row that says that all letters are in the index.
const INDEXED: &[u8] = b"m/letters";
/// Letters that are indexed in one step.
const INDEXED_AT_ONCE: usize = 1000;

/// A row of the index: what has to be known of a letter to count it and to forget it in time.
pub struct Row {
    /// Key of the letter.
    key: Vec<u8>,
    /// When it died.
    pub unix_ms: u64,
    /// What of.
    pub cause: Cause,
    /// Its bytes, about.
    pub bytes: u64,
}

impl Row {
    fn of(letter: &DeadLetter) -> Self {
        Self {
            key: key(&letter.group, letter.entry.record.event),
            unix_ms: letter.unix_ms,
            cause: letter.cause(),
            bytes: letter.bytes(),
        }
    }

    /// Out of the index; `None` if it is damaged.
    #[must_use]
    pub fn read(index_key: &[u8], value: &[u8]) -> Option<Self> {
        let rest = index_key.strip_prefix(BY_TIME)?;
        let (bytes, name) = value.split_first_chunk::<8>()?;
        Some(Self {
            key: rest.get(8..)?.to_vec(),
            unix_ms: cursor_of(rest.get(..8)?),
            cause: Cause::parse(str::from_utf8(name).ok()?).unwrap_or(Cause::Failed),
            bytes: u64::from_be_bytes(*bytes),
        })
    }

    /// Whose letter it is.
    #[must_use]
    pub fn group(&self) -> Box<str> {
        let group = self.key.split(|byte| *byte == 0).next();
        String::from_utf8_lossy(group.unwrap_or_default()).into()
    }

    fn index_key(&self) -> Vec<u8> {
        [BY_TIME, &self.unix_ms.to_be_bytes(), &self.key].concat()
    }

    fn add(&self, batch: &mut OwnedWriteBatch, store: &Store) {
        let value = [&self.bytes.to_be_bytes()[..], self.cause.name().as_bytes()].concat();
        batch.insert(&store.state, self.index_key(), value);
    }

    /// Adds to a batch that the letter is forgotten.
    pub fn remove(&self, batch: &mut OwnedWriteBatch, store: &Store) {
        batch.remove(&store.letters, &self.key[..]);
        batch.remove(&store.state, self.index_key());
    }
}

/// What the index says of a letter that is there.
///
/// # Errors
///
/// The library's.
pub fn stored(store: &Store, group: &str, event: EventId) -> fjall::Result<Option<Row>> {
    let key = key(group, event);
    let Some(value) = store.letters.get(&key)? else {
        return Ok(None);
    };
    // What is damaged can be forgotten all the same: its row in the index goes in time.
    let unix_ms = died_at(&bytes_of(value)).unwrap_or(0);
    let mut row = Row {
        key,
        unix_ms,
        cause: Cause::Failed,
        bytes: 0,
    };
    let index_key = row.index_key();
    if let Some(value) = store.state.get(&index_key)?
        && let Some(known) = Row::read(&index_key, &value)
    {
        row = known;
    }
    Ok(Some(row))
}

/// Adds a letter to a batch, in the place of the one that was there before.
pub fn write(
    batch: &mut OwnedWriteBatch,
    store: &Store,
    before: Option<&Row>,
    letter: &DeadLetter,
) {
    let row = Row::of(letter);
    if let Some(before) = before.filter(|before| before.unix_ms != row.unix_ms) {
        batch.remove(&store.state, before.index_key());
    }
    row.add(batch, store);
    batch.insert(&store.letters, row.key, encode(letter));
}

/// Counts a letter that was written.
pub fn count(census: &mut Census, before: Option<&Row>, letter: &DeadLetter) {
    if let Some(before) = before {
        census.take(&letter.group, before.cause, before.bytes);
    }
    census.add(&letter.group, letter.cause(), letter.bytes());
}

/// Counts all letters. What was written before there was an index is indexed first.
///
/// # Errors
///
/// The library's.
pub fn census(store: &Store) -> fjall::Result<Census> {
    if store.state.get(INDEXED)?.is_none() {
        index(store)?;
    }
    let mut census = Census::default();
    for guard in store.state.prefix(BY_TIME) {
        let (key, value) = guard.into_inner()?;
        if let Some(row) = Row::read(&key, &value) {
            census.add(&row.group(), row.cause, row.bytes);
        }
    }
    Ok(census)
}

fn index(store: &Store) -> fjall::Result<()> {
    let failed = |reason: String| fjall::Error::Io(std::io::Error::other(reason));
    let mut batch = store.batch();
    let mut rows = 0;
    for guard in store.letters.iter() {
        let (key, value) = guard.into_inner()?;
        let Ok(letter) = decode(&key, Bytes::from_owner(value)) else {
            continue;
        };
        Row::of(&letter).add(&mut batch, store);
        rows += 1;
        if rows % INDEXED_AT_ONCE == 0 {
            let full = std::mem::replace(&mut batch, store.batch());
            Store::commit(full, false).map_err(failed)?;
        }
    }
    batch.insert(&store.state, INDEXED, [1]);
    Store::commit(batch, true).map_err(failed)
}

/// Key of a letter: names sort as they do as text, since none holds a zero byte.
#[must_use]
pub fn key(group: &str, event: EventId) -> Vec<u8> {
    [group.as_bytes(), &[0], &event.0.to_be_bytes()].concat()
}

/// When a letter died.
fn died_at(value: &Bytes) -> Result<u64, Damage> {
    let mut reader = Reader::new(value, 0);
    match reader.byte()? {
        FORMAT => reader.number(),
        format => Err(Damage::Format(format)),
    }
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
