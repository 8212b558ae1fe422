//! What the log knows of each channel: a row on disk, and the rows of late in memory.

use std::hash::RandomState;

use bytes::Bytes;
use hashbrown::HashMap;

use super::bytes::{Damage, Reader, put_bytes, put_number};
use crate::model::{ChannelName, Epoch, Offset, StreamPosition};

/// Rows in memory: twice this at most.
const ROWS_KEPT: usize = 50_000;
const FORMAT: u8 = 1;

/// What is kept of a channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Its number: another one in each of its lives.
    pub id: u64,
    /// Its epoch.
    pub epoch: Epoch,
    /// Offset of its last entry.
    pub top: u64,
    /// Cursor of its last entry.
    pub cursor: u64,
    /// Entries up to this offset are forgotten by order.
    pub trimmed: u64,
    /// Version of the last entry that had one; 0 for none.
    pub version: u64,
    /// See `Append::version_epoch`.
    pub version_epoch: Box<str>,
    /// Log time of the last append, Unix milliseconds.
    pub used_ms: u64,
}

impl Row {
    /// Its end.
    #[must_use]
    pub fn position(&self) -> StreamPosition {
        StreamPosition {
            epoch: self.epoch,
            offset: Offset(self.top),
        }
    }

    /// As it is stored.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(48 + self.version_epoch.len());
        out.push(FORMAT);
        out.extend_from_slice(&self.epoch.0);
        for number in [
            self.id,
            self.top,
            self.cursor,
            self.trimmed,
            self.version,
            self.used_ms,
        ] {
            put_number(&mut out, number);
        }
        put_bytes(&mut out, self.version_epoch.as_bytes());
        out
    }

    /// From what is stored.
    ///
    /// # Errors
    ///
    /// It is damaged.
    pub fn decode(value: &[u8]) -> Result<Self, Damage> {
        let value = Bytes::copy_from_slice(value);
        let mut reader = Reader::new(&value, 0);
        let format = reader.byte()?;
        if format != FORMAT {
            return Err(Damage::Format(format));
        }
        Ok(Self {
            epoch: Epoch(reader.array()?),
            id: reader.number()?,
            top: reader.number()?,
            cursor: reader.number()?,
            trimmed: reader.number()?,
            version: reader.number()?,
            used_ms: reader.number()?,
            version_epoch: reader.text()?.into(),
        })
    }
}

/// Rows of the channels that were used last.
#[derive(Debug, Default)]
pub struct Rows {
    /// Used since the two were exchanged. Publishers choose the names: the hash has a seed of its own.
    young: HashMap<ChannelName, Row, RandomState>,
    /// Used before; dropped when `young` is full.
    old: HashMap<ChannelName, Row, RandomState>,
}

impl Rows {
    /// A row, if it is in memory.
    pub fn find(&mut self, channel: &ChannelName) -> Option<Row> {
        if let Some(row) = self.young.get(channel) {
            return Some(row.clone());
        }
        let row = self.old.remove(channel)?;
        self.put(channel.clone(), row.clone());
        Some(row)
    }

    /// Remembers a row.
    pub fn put(&mut self, channel: ChannelName, row: Row) {
        if self.young.len() >= ROWS_KEPT && !self.young.contains_key(&channel) {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(channel, row);
    }

    /// Forgets a row.
    pub fn forget(&mut self, channel: &ChannelName) {
        self.young.remove(channel);
        self.old.remove(channel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(id: u64) -> Row {
        Row {
            id,
            epoch: Epoch(*b"abcdefgh"),
            top: 300,
            cursor: u64::MAX,
            trimmed: 2,
            version: 4,
            version_epoch: "x".into(),
            used_ms: 1_700_000_000_000,
        }
    }

    #[test]
    fn row_comes_back() {
        let encoded = row(9).encode();
        assert_eq!(Row::decode(&encoded), Ok(row(9)));
        for length in 0..encoded.len() {
            assert!(Row::decode(&encoded[..length]).is_err());
        }
    }

    #[test]
    fn memory_keeps_what_is_used_and_has_a_bound() {
        let name = |n: usize| ChannelName::from_whole(&n.to_string());
        let mut rows = Rows::default();
        for n in 0..ROWS_KEPT * 5 {
            rows.put(name(n), row(n as u64));
            assert_eq!(rows.find(&name(0)).map(|row| row.id), Some(0));
        }
        assert!(rows.young.len() + rows.old.len() <= 2 * ROWS_KEPT);
        assert_eq!(rows.find(&name(1)), None);
    }
}
