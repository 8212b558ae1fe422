//! What the rows of a log are, for whoever reads a copy of it.

use std::sync::Arc;

use bytes::Bytes;

use super::block::{self, Head};
use super::buried;
use super::bytes::Damage;
use super::channels::Row;
use super::groups::stored_group;
use super::later;
use super::segments::{BLOCKS, INDEX, cursor_of};
use super::store::SCHEDULED;
use crate::model::{ChannelName, Draft, Entry};
use crate::upstream::log::{DeadLetter, Group};

/// Rows of the trims, in a keyspace that no log has: whoever reads entries wants to know them first.
pub const TRIMS: &str = "trims";

/// What a row is.
#[derive(Clone, Debug)]
pub enum Stored {
    /// Entries of one channel, one after the other.
    Entries(Vec<Arc<Entry>>),
    /// What is known of a channel: its last offset.
    Channel(u64),
    /// A dead letter.
    Letter(Box<DeadLetter>),
    /// A queue group.
    Group(Box<Group>),
    /// A publication that is not due yet.
    Scheduled(Box<Draft>),
    /// An idempotency key.
    Key,
    /// Something else that is small.
    Other,
}

/// Looks at a row of a copy, checksum included.
///
/// # Errors
///
/// It is damaged.
pub fn look(keyspace: &str, key: &Bytes, value: &Bytes) -> Result<Stored, Damage> {
    if is_blocks(keyspace) {
        return Ok(Stored::Entries(block::decode(cursor_of(key), value)?));
    }
    Ok(match keyspace {
        "channels" => Stored::Channel(Row::decode(value)?.top),
        "letters" => Stored::Letter(Box::new(buried::decode(key, value.clone())?)),
        "state" if key.starts_with(b"g/") => {
            Stored::Group(Box::new(stored_group(value).ok_or(Damage::Value)?))
        }
        SCHEDULED => match later::stored(key, value)? {
            Some(row) => Stored::Scheduled(Box::new(row.draft)),
            None => Stored::Other,
        },
        _ if keyspace.starts_with("keys-") => Stored::Key,
        _ => Stored::Other,
    })
}

/// Entries of it are in blocks.
#[must_use]
pub fn is_blocks(keyspace: &str) -> bool {
    index_of(keyspace).is_some()
}

/// Number of the channel of a block.
#[must_use]
pub fn channel_of(block: &[u8]) -> Option<u64> {
    Head::place(block).map(|(id, _)| id)
}

/// A row of the trims: number of the channel, and the offset up to which its entries were forgotten by order.
#[must_use]
pub fn trim_of((id, offset): &(Bytes, Bytes)) -> Option<(u64, u64)> {
    let number = |bytes: &[u8]| Some(u64::from_be_bytes(bytes.try_into().ok()?));
    Some((number(id)?, number(offset)?))
}

/// Number of a channel, and the offset up to which its entries are forgotten, where a row says that.
#[must_use]
pub fn forgotten(keyspace: &str, key: &Bytes, value: &Bytes) -> Option<(u64, u64)> {
    let row = match keyspace {
        TRIMS => (key.clone(), value.clone()),
        "state" if key.starts_with(b"t/") && value.len() >= 8 => (key.slice(2..), value.slice(..8)),
        _ => return None,
    };
    trim_of(&row)
}

/// Cursors of the first and the last entry of a block.
#[must_use]
pub fn cursors_of(key: &[u8], block: &[u8]) -> Option<(u64, u64)> {
    let first = u64::from_be_bytes(key.try_into().ok()?);
    let (_, count) = Head::peek(block).ok()?;
    Some((first, first.checked_add(u64::from(count).checked_sub(1)?)?))
}

/// Offsets of the first and the last entry of a block.
#[must_use]
pub fn offsets_of(block: &[u8]) -> Option<(u64, u64)> {
    let head = Head::read(block).ok()?;
    let last = head
        .first_offset
        .checked_add(u64::from(head.count).checked_sub(1)?)?;
    Some((head.first_offset, last))
}

/// The channel of a block.
#[must_use]
pub fn name_of(block: &[u8]) -> Option<ChannelName> {
    Head::read(block).ok().map(|head| head.channel)
}

/// Name of the keyspace of the index of blocks.
#[must_use]
pub(super) fn index_of(blocks: &str) -> Option<String> {
    let number: u64 = blocks.strip_prefix(BLOCKS)?.parse().ok()?;
    Some(format!("{INDEX}{number}"))
}

/// A keyspace that a log may have.
#[must_use]
pub(super) fn is_keyspace(name: &str) -> bool {
    let is_keys = || {
        let (width, end) = name.strip_prefix("keys-")?.split_once('-')?;
        Some(width.parse::<u64>().is_ok() && end.parse::<u64>().is_ok())
    };
    ["channels", "state", "letters", SCHEDULED].contains(&name)
        || index_of(name).is_some()
        || is_keys() == Some(true)
}
