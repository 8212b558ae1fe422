//! Publications that wait for their time, as they are stored. Nothing is in memory for each of them.
//!
//! One keyspace, by a letter: `d` time and number → the publication; and ways to that row: `c` channel, time and number (in the
//! order of the times); `e` channel and event; `k` channel and key; `x`, `z` and `l` are another one's (`ends`). Channels and keys stand there as 16 bytes of their SHA-256. The
//! number is the log's own and keeps the order in which those of one time were taken in.

use std::time::Duration;

use bytes::Bytes;
use fjall::{Keyspace, OwnedWriteBatch};
use sha2::{Digest as _, Sha256};

use super::block::{self, Head};
use super::bytes::{Damage, Reader, put_bytes, put_number};
use super::ends::{LATEST, REPLACED, TTL};
use super::store::Store;
use crate::model::{ChannelName, Draft, Epoch, EventId, Terms};

const FORMAT: u8 = 1;
/// Row of the log's state: the next number, and how many wait.
const SCHEDULE: &[u8] = b"m/schedule";
/// Row of a publication begins so; the next letter ends them.
const DUE: u8 = b'd';
const CHANNEL: u8 = b'c';
const EVENT: u8 = b'e';
const KEY: u8 = b'k';

/// Publications that become entries at once, and their bytes: whoever publishes meanwhile waits for no more than these.
const DUE_AT_ONCE: usize = 1024;
const DUE_BYTES_AT_ONCE: usize = 4 << 20;

/// A place in the order of times.
pub type Spot = (u64, u64);

/// What is known of those that wait.
#[derive(Clone, Debug, Default)]
pub struct Later {
    next: u64,
    /// How many.
    count: u64,
    /// Where the first one is. What was before it was removed, and whoever looks there passes over it one by one.
    first: Option<Spot>,
}

/// One that waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Where.
    pub spot: Spot,
    /// What; its time is that of the spot.
    pub draft: Draft,
}

/// Those that are due.
#[derive(Debug, Default)]
pub struct Due {
    /// In their order.
    pub rows: Vec<Row>,
    /// Rows that cannot be read.
    pub damaged: Vec<Spot>,
    /// Where the one behind them is.
    pub next: Option<Spot>,
}

impl Later {
    /// What is stored.
    ///
    /// # Errors
    ///
    /// The library's.
    pub fn open(store: &Store) -> fjall::Result<Self> {
        let value = store.state.get(SCHEDULE)?;
        let number = |at: usize| {
            let part = value.as_ref()?.get(at..at + 8)?;
            Some(u64::from_be_bytes(part.try_into().ok()?))
        };
        Ok(Self {
            next: number(0).unwrap_or(0),
            count: number(8).unwrap_or(0),
            first: first(store, (0, 0))?,
        })
    }

    /// How many wait.
    #[must_use]
    pub const fn count(&self) -> u64 {
        self.count
    }

    /// Where the first one is.
    #[must_use]
    pub const fn first(&self) -> Option<Spot> {
        self.first
    }

    /// When the first one is due.
    #[must_use]
    pub fn first_ms(&self) -> Option<u64> {
        self.first.map(|(due, _)| due)
    }

    /// A number for one that is added.
    pub fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// Those that are due now, some at a time.
    ///
    /// # Errors
    ///
    /// The library's.
    pub fn due(&self, store: &Store, now_ms: u64) -> fjall::Result<Due> {
        let mut due = Due::default();
        let Some(first) = self.first.filter(|(due, _)| *due <= now_ms) else {
            return Ok(due);
        };
        let mut bytes = 0;
        for guard in store.scheduled.range(row_key(first)..due_end()) {
            let (key, value) = guard.into_inner()?;
            let spot = spot_of(&key);
            let is_full = due.rows.len() + due.damaged.len() >= DUE_AT_ONCE;
            if spot.0 > now_ms || is_full || bytes >= DUE_BYTES_AT_ONCE {
                due.next = Some(spot);
                break;
            }
            match decode(spot, Bytes::from_owner(value)) {
                Ok(row) => {
                    bytes += row.draft.record.bytes();
                    due.rows.push(row);
                }
                Err(_) => due.damaged.push(spot),
            }
        }
        Ok(due)
    }

    /// Says in a batch that so many are added and removed.
    pub fn note(&self, batch: &mut OwnedWriteBatch, store: &Store, added: u64, removed: u64) {
        let count = (self.count + added).saturating_sub(removed);
        let value = [self.next.to_be_bytes(), count.to_be_bytes()].concat();
        batch.insert(&store.state, SCHEDULE, value);
    }

    /// These were added.
    pub fn added(&mut self, spots: impl Iterator<Item = Spot>) {
        for spot in spots {
            self.count += 1;
            self.first = Some(self.first.map_or(spot, |first| first.min(spot)));
        }
    }

    /// So many were removed, and then this one is the first.
    pub const fn removed(&mut self, count: u64, first: Option<Spot>) {
        self.count = self.count.saturating_sub(count);
        self.first = first;
    }
}

/// Where the first one from this place on is.
///
/// # Errors
///
/// The library's.
pub fn first(store: &Store, from: Spot) -> fjall::Result<Option<Spot>> {
    let mut rows = store.scheduled.range(row_key(from)..due_end());
    let key = rows.next().map(fjall::Guard::key).transpose()?;
    Ok(key.map(|key| spot_of(&key)))
}

/// Puts one into a batch.
pub fn put(batch: &mut OwnedWriteBatch, keyspace: &Keyspace, row: &Row) {
    let record = &row.draft.record;
    let channel = hash_of(record.channel.whole());
    let spot = spot_bytes(row.spot);
    batch.insert(keyspace, row_key(row.spot), encode(&row.draft));
    batch.insert(keyspace, channel_key(&channel, row.spot), Vec::new());
    batch.insert(keyspace, event_key(&channel, record.event), spot);
    if !record.key.is_empty() {
        batch.insert(keyspace, key_key(&channel, &record.key), spot);
    }
}

/// Takes one out, in a batch.
pub fn remove(batch: &mut OwnedWriteBatch, keyspace: &Keyspace, row: &Row) {
    let record = &row.draft.record;
    let channel = hash_of(record.channel.whole());
    remove_place(batch, keyspace, row);
    batch.remove(keyspace, event_key(&channel, record.event));
    if !record.key.is_empty() {
        batch.remove(keyspace, key_key(&channel, &record.key));
    }
}

/// Takes one out of its place, in a batch that puts it into another.
pub fn remove_place(batch: &mut OwnedWriteBatch, keyspace: &Keyspace, row: &Row) {
    let channel = hash_of(row.draft.record.channel.whole());
    remove_damaged(batch, keyspace, row.spot);
    batch.remove(keyspace, channel_key(&channel, row.spot));
}

/// Takes a row out that cannot be read, in a batch. What leads to it leads nowhere then.
pub fn remove_damaged(batch: &mut OwnedWriteBatch, keyspace: &Keyspace, spot: Spot) {
    batch.remove(keyspace, row_key(spot));
}

/// The one with this key in its channel.
///
/// # Errors
///
/// The library's.
pub fn with_key(store: &Store, channel: &ChannelName, key: &str) -> fjall::Result<Option<Row>> {
    named(store, &key_key(&hash_of(channel.whole()), key))
}

/// The one with this event in its channel.
///
/// # Errors
///
/// The library's.
pub fn with_event(
    store: &Store,
    channel: &ChannelName,
    event: EventId,
) -> fjall::Result<Option<Row>> {
    named(store, &event_key(&hash_of(channel.whole()), event))
}

fn named(store: &Store, name: &[u8]) -> fjall::Result<Option<Row>> {
    let Some(spot) = store.scheduled.get(name)? else {
        return Ok(None);
    };
    at(store, spot_of_tail(&spot))
}

/// The one in this place; one that cannot be read is none.
fn at(store: &Store, spot: Spot) -> fjall::Result<Option<Row>> {
    let value = store.scheduled.get(row_key(spot))?;
    Ok(value.and_then(|value| decode(spot, Bytes::from_owner(value)).ok()))
}

/// Those from a place on, in order: of a channel, or all. Ends where `more` says so of the one before.
///
/// # Errors
///
/// The library's.
pub fn list(
    store: &Store,
    channel: Option<&ChannelName>,
    from: Spot,
    mut more: impl FnMut(Row) -> bool,
) -> fjall::Result<()> {
    let Some(channel) = channel else {
        for guard in store.scheduled.range(row_key(from)..due_end()) {
            let (key, value) = guard.into_inner()?;
            if let Ok(row) = decode(spot_of(&key), Bytes::from_owner(value))
                && !more(row)
            {
                break;
            }
        }
        return Ok(());
    };
    let hash = hash_of(channel.whole());
    let (first, last) = (
        channel_key(&hash, from),
        channel_key(&hash, (u64::MAX, u64::MAX)),
    );
    for guard in store.scheduled.range(first..=last) {
        if let Some(row) = at(store, spot_of_tail(&guard.key()?))?
            && !more(row)
        {
            break;
        }
    }
    Ok(())
}

/// What a row of the keyspace holds, for whoever reads a copy; `None` for those that lead to another.
///
/// # Errors
///
/// It is damaged.
pub fn stored(key: &[u8], value: &Bytes) -> Result<Option<Row>, Damage> {
    match key.first() {
        Some(&DUE) => decode(spot_of(key), value.clone()).map(Some),
        Some(&(CHANNEL | EVENT | KEY | TTL | REPLACED | LATEST)) => Ok(None),
        _ => Err(Damage::Value),
    }
}

fn spot_bytes((due, number): Spot) -> [u8; 16] {
    (u128::from(due) << 64 | u128::from(number)).to_be_bytes()
}

/// The place in a row's key.
fn spot_of(key: &[u8]) -> Spot {
    spot_of_tail(key.get(1..).unwrap_or_default())
}

/// The place in the last 16 bytes.
fn spot_of_tail(bytes: &[u8]) -> Spot {
    let spot = bytes.last_chunk().copied().map_or(0, u128::from_be_bytes);
    ((spot >> 64) as u64, spot as u64)
}

fn hash_of(text: &str) -> [u8; 16] {
    let digest = Sha256::digest(text.as_bytes());
    digest.first_chunk().copied().unwrap_or_default()
}

fn row_key(spot: Spot) -> Vec<u8> {
    [&[DUE][..], &spot_bytes(spot)].concat()
}

/// Behind all of them.
fn due_end() -> Vec<u8> {
    vec![DUE + 1]
}

fn channel_key(channel: &[u8; 16], spot: Spot) -> Vec<u8> {
    [&[CHANNEL][..], channel, &spot_bytes(spot)].concat()
}

fn event_key(channel: &[u8; 16], event: EventId) -> Vec<u8> {
    [&[EVENT][..], channel, &event.0.to_be_bytes()].concat()
}

fn key_key(channel: &[u8; 16], key: &str) -> Vec<u8> {
    [&[KEY][..], channel, &hash_of(key)].concat()
}

fn encode(draft: &Draft) -> Vec<u8> {
    let head = Head {
        channel_id: 0,
        epoch: Epoch::default(),
        first_offset: 0,
        log_ms: 0,
        mark_ms: 0,
        bytes_before: 0,
        count: 1,
        channel: draft.record.channel.clone(),
    };
    let mut out = vec![FORMAT];
    let ttl = draft.terms.key_ttl.as_millis();
    put_number(&mut out, u64::try_from(ttl).unwrap_or(u64::MAX));
    put_number(&mut out, draft.version);
    put_bytes(&mut out, draft.version_epoch.as_bytes());
    let record = block::encode(&head, std::iter::once(&draft.record));
    put_bytes(&mut out, &record);
    out
}

fn decode(spot: Spot, value: Bytes) -> Result<Row, Damage> {
    let mut reader = Reader::new(&value, 0);
    let format = reader.byte()?;
    if format != FORMAT {
        return Err(Damage::Format(format));
    }
    let ttl = Duration::from_millis(reader.number()?);
    let version = reader.number()?;
    let version_epoch = reader.text()?.into();
    let entry = block::decode(0, &reader.shared()?)?.pop();
    let entry = entry.ok_or(Damage::Short)?;
    let record = std::sync::Arc::try_unwrap(entry)
        .map_or_else(|entry| entry.record.clone(), |entry| entry.record);
    let mut draft = Draft::of(Terms::log(ttl), record);
    draft.version = version;
    draft.version_epoch = version_epoch;
    draft.due_ms = spot.0;
    Ok(Row { spot, draft })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::upstream::memory::record;

    #[test]
    fn a_waiting_publication_comes_back_as_it_was_and_a_changed_byte_is_found() {
        let mut record = record("orders:1", EventId(7), r#"{"n":1}"#);
        record.key = "k".into();
        let mut draft = Draft::of(Terms::log(Duration::from_secs(9)), record);
        (draft.version, draft.version_epoch, draft.due_ms) = (4, "e".into(), 99);
        let row = Row {
            spot: (99, 3),
            draft,
        };
        let value = encode(&row.draft);
        assert_eq!(decode((99, 3), value.clone().into()), Ok(row));
        for length in 0..value.len() {
            assert!(decode((99, 3), value[..length].to_vec().into()).is_err());
        }
        let mut changed = value;
        let last = changed.len() - 1;
        changed[last] ^= 1;
        assert!(decode((99, 3), changed.into()).is_err());
    }

    proptest! {
        #[test]
        fn arbitrary_rows_are_refused_without_a_panic(key: Vec<u8>, mut value: Vec<u8>, whole: bool) {
            if let Some(format) = value.first_mut().filter(|_| whole) {
                *format = FORMAT;
            }
            let mut due = key.clone();
            due.insert(0, DUE);
            prop_assert!(stored(&due, &value.clone().into()).is_err());
            let _ = stored(&key, &value.into());
        }
    }

    #[test]
    fn keys_sort_by_time_and_then_by_the_order_of_taking_in() {
        let spots = [(1, 9), (2, 1), (2, 2), (256, 0), (u64::MAX, u64::MAX)];
        let keys = spots.map(row_key);
        assert!(keys.is_sorted());
        assert_eq!(keys.map(|key| spot_of(&key)), spots);
        assert!(row_key((u64::MAX, u64::MAX)) < due_end());
    }
}
