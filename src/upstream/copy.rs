//! A copy of an embedded log as a stream of bytes: what a backup is made of, and what `ringmain log` reads of a running proxy.
//!
//! A line that names the format, then frames: length (four bytes) · CRC-32 of what follows · kind · content. Integers have their
//! full width, lowest byte first. A copy that was made whole ends with `End`.

use bytes::{Buf as _, Bytes, BytesMut};

use crate::limits::COPY_FRAME_BYTES_MAX;

/// What every stream and every file of frames begins with.
pub const MAGIC: &[u8] = b"ringmain log copy 1\n";
/// Length and checksum.
const HEAD_BYTES: usize = 8;

const START: u8 = 1;
const ROWS: u8 = 2;
const END: u8 = 3;

/// A part of a copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// What follows, before anything else.
    Start(Start),
    /// Rows of one keyspace, as they are stored.
    Rows(Rows),
    /// Everything was given.
    End(End),
}

/// What is copied.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Start {
    /// Version of the program that copies.
    pub version: String,
    /// The line of the log: a log that was restored begins a new one, so that copies of two pasts are never joined.
    pub line: String,
    /// Entries with a greater cursor are given; of a block in which there are some, all.
    pub after: u64,
}

/// How far a copy goes.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct End {
    /// Cursor of the oldest entry that the log kept.
    pub first: u64,
    /// Cursor of the last one.
    pub end: u64,
    /// Everything that was acknowledged up to here is in it, Unix milliseconds.
    pub unix_ms: u64,
    /// Blocks that could not be read and are not in it.
    pub damaged: u64,
}

/// Rows of one keyspace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rows {
    /// Its name.
    pub keyspace: Box<str>,
    /// Key and value.
    pub rows: Vec<(Bytes, Bytes)>,
}

/// Why bytes are no copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CopyError {
    /// It begins differently.
    #[error("it is no copy of a log that this version knows")]
    Unknown,
    /// A frame does not have its checksum, or is none.
    #[error("it is damaged at byte {0}")]
    Damaged(u64),
    /// It stops within a frame.
    #[error("it is cut off at byte {0}")]
    Short(u64),
}

impl Frame {
    /// As bytes.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = vec![0; HEAD_BYTES];
        match self {
            Self::Start(start) => {
                out.push(START);
                out.extend_from_slice(&serde_json::to_vec(start).unwrap_or_default());
            }
            Self::Rows(rows) => {
                out.push(ROWS);
                put(&mut out, rows.keyspace.as_bytes());
                for (key, value) in &rows.rows {
                    put(&mut out, key);
                    put(&mut out, value);
                }
            }
            Self::End(end) => {
                out.push(END);
                out.extend_from_slice(&serde_json::to_vec(end).unwrap_or_default());
            }
        }
        let length = u32::try_from(out.len() - HEAD_BYTES).unwrap_or(u32::MAX);
        let checksum = crc32fast::hash(&out[HEAD_BYTES..]);
        out[..4].copy_from_slice(&length.to_le_bytes());
        out[4..HEAD_BYTES].copy_from_slice(&checksum.to_le_bytes());
        out.into()
    }

    fn decode(mut content: Bytes) -> Option<Self> {
        let kind = content.first().copied()?;
        content.advance(1);
        Some(match kind {
            START => Self::Start(serde_json::from_slice(&content).ok()?),
            ROWS => {
                let keyspace = take(&mut content)?;
                let mut rows = Vec::new();
                while !content.is_empty() {
                    rows.push((take(&mut content)?, take(&mut content)?));
                }
                let keyspace = str::from_utf8(&keyspace).ok()?.into();
                Self::Rows(Rows { keyspace, rows })
            }
            END => Self::End(serde_json::from_slice(&content).ok()?),
            _ => return None,
        })
    }
}

fn put(out: &mut Vec<u8>, bytes: &[u8]) {
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(bytes);
}

fn take(content: &mut Bytes) -> Option<Bytes> {
    let length = u32::from_le_bytes(content.get(..4)?.try_into().ok()?);
    let length = usize::try_from(length).ok()?;
    content.advance(4);
    (content.len() >= length).then(|| content.split_to(length))
}

/// Takes bytes as they come, and gives frames.
#[derive(Debug, Default)]
pub struct Frames {
    buffer: BytesMut,
    /// Bytes that were taken out of the buffer.
    at: u64,
    is_known: bool,
}

impl Frames {
    /// More bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next frame with its bytes; `None` while it is not whole.
    ///
    /// # Errors
    ///
    /// It is no copy, or a damaged one.
    pub fn take(&mut self) -> Result<Option<(Frame, Bytes)>, CopyError> {
        if !self.is_known {
            let have = self.buffer.len().min(MAGIC.len());
            if self.buffer[..have] != MAGIC[..have] {
                return Err(CopyError::Unknown);
            }
            if have < MAGIC.len() {
                return Ok(None);
            }
            self.is_known = true;
            self.skip(MAGIC.len());
        }
        let Some(head) = self.buffer.get(..HEAD_BYTES) else {
            return Ok(None);
        };
        let word = |at: usize| u32::from_le_bytes(head[at..at + 4].try_into().unwrap_or_default());
        let (length, checksum) = (word(0) as usize, word(4));
        if length > COPY_FRAME_BYTES_MAX {
            return Err(CopyError::Damaged(self.at));
        }
        if self.buffer.len() < HEAD_BYTES + length {
            return Ok(None);
        }
        let raw = self.buffer.split_to(HEAD_BYTES + length).freeze();
        let content = raw.slice(HEAD_BYTES..);
        let frame = (crc32fast::hash(&content) == checksum)
            .then(|| Frame::decode(content))
            .flatten();
        let frame = frame.ok_or(CopyError::Damaged(self.at))?;
        self.at += raw.len() as u64;
        Ok(Some((frame, raw)))
    }

    /// Bytes of whole frames that were given.
    #[must_use]
    pub const fn at(&self) -> u64 {
        self.at
    }

    /// No more bytes come.
    ///
    /// # Errors
    ///
    /// They end within a frame.
    pub fn finish(&self) -> Result<(), CopyError> {
        if self.is_known && self.buffer.is_empty() {
            Ok(())
        } else {
            Err(CopyError::Short(self.at))
        }
    }

    fn skip(&mut self, count: usize) {
        self.buffer.advance(count);
        self.at += count as u64;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame() -> impl Strategy<Value = Frame> {
        let bytes = || proptest::collection::vec(any::<u8>(), 0..40).prop_map(Bytes::from);
        prop_oneof![
            (".{0,5}", ".{0,5}", any::<u64>()).prop_map(|(version, line, after)| {
                Frame::Start(Start {
                    version,
                    line,
                    after,
                })
            }),
            (
                ".{0,9}",
                proptest::collection::vec((bytes(), bytes()), 0..4)
            )
                .prop_map(|(keyspace, rows)| Frame::Rows(Rows {
                    keyspace: keyspace.into(),
                    rows
                })),
            any::<[u64; 4]>().prop_map(|[first, end, unix_ms, damaged]| {
                Frame::End(End {
                    first,
                    end,
                    unix_ms,
                    damaged,
                })
            }),
        ]
    }

    fn stream(frames: &[Frame]) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        for frame in frames {
            out.extend_from_slice(&frame.encode());
        }
        out
    }

    fn read(bytes: &[u8], step: usize) -> Result<Vec<Frame>, CopyError> {
        let mut frames = Frames::default();
        let mut found = Vec::new();
        for part in bytes.chunks(step) {
            frames.push(part);
            while let Some((frame, _)) = frames.take()? {
                found.push(frame);
            }
        }
        frames.finish()?;
        Ok(found)
    }

    proptest! {
        #[test]
        fn frames_come_back_however_the_bytes_are_cut(frames in proptest::collection::vec(frame(), 0..5), step in 1usize..50) {
            prop_assert_eq!(read(&stream(&frames), step), Ok(frames));
        }

        #[test]
        fn a_changed_or_missing_byte_is_found(frames in proptest::collection::vec(frame(), 1..4), at: prop::sample::Index, bits in 1u8..) {
            let whole = stream(&frames);
            let mut changed = whole.clone();
            let at = at.index(whole.len());
            changed[at] ^= bits;
            prop_assert!(read(&changed, 64).is_err());
            let is_between = read(&whole[..at], 64).is_ok_and(|some| some.len() < frames.len());
            prop_assert!(is_between || read(&whole[..at], 64).is_err());
        }

        #[test]
        fn arbitrary_bytes_are_refused_without_a_panic(bytes: Vec<u8>) {
            let mut stream = MAGIC.to_vec();
            stream.extend_from_slice(&bytes);
            let _ = read(&stream, 7);
            let _ = Frame::decode(bytes.into());
        }
    }
}
