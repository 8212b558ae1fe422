//! The storage library's journals, looked at before the library opens them.
//!
//! After a loss of power the last batches, which nobody was told of, may be there in part. The library cuts a journal where
//! it cannot read on, whatever is behind, and gives up where a batch has the wrong content. Here both are told apart: a
//! torn end is cut off, and damage with much behind it is not passed over in silence. Layout (library 3.x): `1 count:u32
//! seqno:u64`, items `2 type:u8 compression:u8 keyspace:u64 key:u16 value:u32 stored:u32 …`, or `4 keyspace:u64`, then
//! `3 checksum:u64 magic:4`.

use std::fs::{self, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use memchr::memmem;
use xxhash_rust::xxh3::Xxh3;

const MAGIC: [u8; 4] = *b"FJL\x03";
const START_BYTES: usize = 13;
const END_BYTES: usize = 13;
const CLEAR_BYTES: usize = 9;
const ITEM_BYTES: usize = 21;
/// Batches at most that may wait for a sync: groups are written every 50 ms and synced after 200 ms, and one append.
const BATCHES_UNSYNCED: usize = 8;

/// What is wrong with a journal.
#[derive(Debug, PartialEq, Eq)]
pub struct Damaged {
    /// File name.
    pub journal: String,
    /// Where.
    pub at: usize,
    /// Whole batches behind it.
    pub behind: usize,
}

/// Looks at all journals, and cuts off the torn end of the newest one.
///
/// # Errors
///
/// The system's words.
pub fn inspect(data: &Path) -> io::Result<Result<(), Damaged>> {
    let journals = journals(data)?;
    for (index, path) in journals.iter().enumerate() {
        let bytes = fs::read(path)?;
        let valid = valid_bytes(&bytes);
        let rest = &bytes[valid..];
        if rest.iter().all(|byte| *byte == 0) {
            continue;
        }
        let behind = whole_batches(rest);
        if index + 1 < journals.len() || behind > BATCHES_UNSYNCED {
            let name = path.file_name().unwrap_or_default();
            return Ok(Err(Damaged {
                journal: name.to_string_lossy().into_owned(),
                at: valid,
                behind,
            }));
        }
        let file = OpenOptions::new().write(true).open(path)?;
        file.set_len(valid as u64)?;
        file.sync_all()?;
        if behind > 0 {
            tracing::warn!(
                journal = %path.display(),
                at = valid,
                behind,
                "the end of the durable log's journal was damaged and is cut off"
            );
        }
    }
    Ok(Ok(()))
}

/// Oldest first.
fn journals(data: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let files = match fs::read_dir(data) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        files => files?,
    };
    for entry in files {
        let path = entry?.path();
        let number = path
            .file_stem()
            .and_then(|stem| stem.to_str()?.parse().ok());
        if path.extension().is_some_and(|extension| extension == "jnl")
            && let Some(number) = number
        {
            found.push((number, path));
        }
    }
    found.sort_unstable_by_key(|(number, _): &(u64, _)| *number);
    Ok(found.into_iter().map(|(_, path)| path).collect())
}

/// Up to where all batches are whole.
fn valid_bytes(bytes: &[u8]) -> usize {
    let mut at = 0;
    while let Some(length) = bytes.get(at..).and_then(batch_bytes) {
        at += length;
    }
    at
}

/// Length of the batch that begins here; `None` if it is not whole.
fn batch_bytes(bytes: &[u8]) -> Option<usize> {
    if *bytes.first()? != 1 {
        return None;
    }
    let count = number(bytes, 1)?;
    let mut at = START_BYTES;
    let mut hash = Xxh3::new();
    for _ in 0..count {
        let rest = bytes.get(at..)?;
        let length = match *rest.first()? {
            // This log writes its journal without compression.
            2 if *rest.get(2)? == 0 => {
                let key = u16::from_le_bytes(rest.get(11..13)?.try_into().ok()?);
                ITEM_BYTES + usize::from(key) + number(rest, 17)?
            }
            4 => CLEAR_BYTES,
            _ => return None,
        };
        hash.update(rest.get(..length)?);
        at += length;
    }
    let end = bytes.get(at..at + END_BYTES)?;
    let checksum = u64::from_le_bytes(end.get(1..9)?.try_into().ok()?);
    let is_whole = end[0] == 3 && end[9..] == MAGIC && checksum == hash.digest();
    is_whole.then_some(at + END_BYTES)
}

fn number(bytes: &[u8], at: usize) -> Option<usize> {
    let word: [u8; 4] = bytes.get(at..at + 4)?.try_into().ok()?;
    usize::try_from(u32::from_le_bytes(word)).ok()
}

/// Whole batches in bytes that may begin anywhere.
fn whole_batches(bytes: &[u8]) -> usize {
    let mut count = 0;
    let mut at = 0;
    for end in memmem::find_iter(bytes, &MAGIC) {
        let next = end + MAGIC.len();
        // What follows the end of a batch is the start of one.
        if next > at
            && let Some(length) = bytes.get(next..).and_then(batch_bytes)
        {
            count += 1;
            at = next + length - MAGIC.len();
        }
    }
    count
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn arbitrary_bytes_are_no_batch_and_no_panic(bytes: Vec<u8>) {
            prop_assert_eq!(valid_bytes(&bytes), 0);
            prop_assert_eq!(whole_batches(&bytes), 0);
        }
    }
}
