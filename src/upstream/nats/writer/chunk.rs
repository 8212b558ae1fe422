//! The part of a batch that belongs to one channel.

use std::collections::{BTreeSet, VecDeque};

use bytes::Bytes;
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use crate::limits::NATS_HEADERS_BYTES_MAX;
use crate::mesh::durable::{Appended, LogError};
use crate::model::{Draft, EventId, Offset, Record, StreamPosition};
use crate::upstream::nats::batch::{self, Message};
use crate::upstream::nats::head::{self, Head, Last};
use crate::upstream::nats::link::{Link, Opened};
use crate::upstream::nats::message::{self, OWN_HEADERS_BYTES, Version};
use crate::upstream::nats::subject::{Subjects, push_hex};

/// Something that waits for its place in a channel.
#[derive(Clone)]
pub(super) struct Item {
    pub call: u64,
    pub index: usize,
    pub what: What,
    pub attempts: u8,
    pub since: Instant,
}

/// What is to be done.
#[derive(Clone)]
pub(super) enum What {
    Append {
        draft: Box<Draft>,
        /// Of channel and key; `None` without a key.
        key: Option<Box<str>>,
    },
    Trim {
        /// Sequence of the channel's last message: where another one is, nothing is done.
        last: u64,
    },
}

impl What {
    pub(super) fn append(subject: &str, draft: Draft) -> Self {
        let record = &draft.record;
        let key = match &*record.key {
            // It has waited for its time, and may be given twice: its event is remembered like a key.
            "" if draft.due_ms > 0 => Some(key_hash(subject, &format!("\0{}", record.event))),
            "" => None,
            key => Some(key_hash(subject, key)),
        };
        Self::Append {
            draft: Box::new(draft),
            key,
        }
    }

    pub(super) fn key(&self) -> Option<&str> {
        match self {
            Self::Append { key, .. } => key.as_deref(),
            Self::Trim { .. } => None,
        }
    }

    /// Does the server take it? `room` is the longest message it takes.
    pub(super) fn check(&self, room: usize) -> Result<(), LogError> {
        let Self::Append { draft, .. } = self else {
            return Ok(());
        };
        let record = &draft.record;
        let headers = headers_bytes(record, &draft.version_epoch);
        if headers > NATS_HEADERS_BYTES_MAX {
            return Err(LogError::Refused(
                "tags, key and publisher are too long for a NATS message".into(),
            ));
        }
        if record.data.len() + headers > room {
            return Err(LogError::Refused(
                format!("the NATS server takes messages of {room} bytes at most").into(),
            ));
        }
        Ok(())
    }
}

/// Bytes of a record's headers, at most.
fn headers_bytes(record: &Record, version_epoch: &str) -> usize {
    let quick = 3 * (record.bytes() - record.data.len() + version_epoch.len());
    let lines = 16 * record.tags.len();
    let origin = record
        .origin
        .as_ref()
        .map_or(0, |origin| 3 * origin.channel.whole().len());
    OWN_HEADERS_BYTES + quick + lines + origin
}

/// Stands for a key of a channel.
pub(in crate::upstream::nats) fn key_hash(subject: &str, key: &str) -> Box<str> {
    let mut hash = Sha256::new();
    hash.update(subject.as_bytes());
    hash.update([0]);
    hash.update(key.as_bytes());
    let mut out = String::with_capacity(64);
    for byte in hash.finalize().iter().take(16) {
        push_hex(&mut out, '.', *byte);
    }
    out.retain(|c| c != '.');
    out.into()
}

/// Where a chunk goes.
pub(super) struct Place<'a> {
    pub subjects: &'a Subjects,
    pub subject: &'a str,
    pub before: Head,
    pub log: u128,
    pub is_run: bool,
}

/// Does a run of the queue's first items need no batch?
pub(super) fn begins_without_keys(queue: &VecDeque<Item>) -> bool {
    queue.front().is_none_or(|item| match &item.what {
        What::Append { key, .. } => key.is_none(),
        What::Trim { .. } => true,
    })
}

/// Consecutive items of one channel, on their way.
pub(super) struct Chunk {
    pub subject: Box<str>,
    /// Stream in which `before` is true.
    pub log: u128,
    /// The channel's end that the server was told to expect.
    pub before: Head,
    /// Each with its place once it is stored.
    pub items: Vec<(Item, Placed)>,
    /// Messages of the chunk.
    pub messages: usize,
    /// Each message follows the one before it; else they are to be stored together.
    is_run: bool,
    /// Of its messages, the last one in the channel's subject.
    last: Option<usize>,
    /// The publication that is to be directly before the next one.
    previous: Option<EventId>,
    version: Version,
    position: StreamPosition,
}

/// Where an item stands once the chunk is stored.
#[derive(Clone, Copy)]
pub(super) struct Placed {
    pub position: StreamPosition,
    pub is_new: bool,
    /// What is called so there.
    pub event: Option<EventId>,
    /// Which of the chunk's messages it is; `None` if it is none.
    pub at: Option<usize>,
}

/// What was found after a conflict.
pub(super) struct Verdict {
    /// The channel's end; `None` where it has to be read again.
    pub head: Option<Head>,
    /// Another process has written the channel.
    pub is_fenced: bool,
    /// Items that are stored nevertheless, from the first on.
    pub stored: usize,
    /// For each of the others, where the first publication with its key stands.
    pub first: Vec<Option<(StreamPosition, Option<EventId>)>>,
}

impl Chunk {
    /// Takes what fits into `room` (messages, bytes) from the queue; `None` if nothing does. The first item goes whatever its
    /// size where `is_first`. A run holds no keys.
    pub(super) fn take(
        place: Place<'_>,
        queue: &mut VecDeque<Item>,
        room: (usize, usize),
        is_first: bool,
    ) -> Option<(Self, Vec<Message>)> {
        let mut chunk = Self {
            subject: place.subject.into(),
            log: place.log,
            items: Vec::new(),
            messages: 0,
            is_run: place.is_run,
            last: None,
            previous: None,
            version: place.before.version.clone(),
            position: place.before.position,
            before: place.before,
        };
        let mut messages = Vec::new();
        let mut keys = BTreeSet::new();
        let mut bytes = 0;
        while let Some(item) = queue.front() {
            let placed = match &item.what {
                What::Trim { last } => {
                    if !chunk.items.is_empty() {
                        break;
                    }
                    chunk.push_trim(*last, &mut messages)
                }
                What::Append { draft, key } => {
                    let size = draft.record.data.len();
                    let needed = 1 + usize::from(key.is_some());
                    let fits = messages.len() + needed <= room.0 && bytes + size <= room.1;
                    let may = fits || is_first && messages.is_empty();
                    let repeats = key.as_ref().is_some_and(|key| !keys.insert(key.clone()));
                    if !may || repeats || key.is_some() && place.is_run {
                        break;
                    }
                    bytes += size;
                    chunk.push(place.subjects, draft, key.as_deref(), &mut messages)
                }
            };
            let is_trim = matches!(item.what, What::Trim { .. });
            if let Some(item) = queue.pop_front() {
                chunk.items.push((item, placed));
            }
            if is_trim {
                break;
            }
        }
        if chunk.items.is_empty() {
            return None;
        }
        chunk.messages = messages.len();
        Some((chunk, messages))
    }

    fn push(
        &mut self,
        subjects: &Subjects,
        draft: &Draft,
        key: Option<&str>,
        messages: &mut Vec<Message>,
    ) -> Placed {
        if !self.version.takes(draft.version, &draft.version_epoch) {
            return Placed {
                position: self.position,
                is_new: false,
                event: None,
                at: None,
            };
        }
        if draft.version > 0 {
            self.version = Version {
                number: draft.version,
                epoch: draft.version_epoch.clone(),
            };
        }
        self.position.offset = Offset(self.position.offset.0 + 1);
        let mut headers = message::headers(&draft.record, self.position, &self.version);
        match self.previous {
            None => batch::expect(&mut headers, self.before.sequence),
            Some(previous) if self.is_run => batch::follow(&mut headers, previous.to_string()),
            Some(_) => {}
        }
        self.previous = Some(draft.record.event);
        self.last = Some(messages.len());
        let placed = Placed {
            position: self.position,
            is_new: true,
            event: Some(draft.record.event),
            at: Some(messages.len()),
        };
        messages.push(Message {
            subject: self.subject.to_string(),
            headers,
            payload: draft.record.data.clone(),
        });
        if let Some(key) = key {
            let mut headers = message::key_mark(self.position, draft.record.event);
            batch::expect(&mut headers, 0);
            batch::forget_after(&mut headers, draft.terms.key_ttl);
            messages.push(Message {
                subject: subjects.key(key),
                headers,
                payload: Bytes::new(),
            });
        }
        placed
    }

    fn push_trim(&mut self, last: u64, messages: &mut Vec<Message>) -> Placed {
        let is_last = self.before.sequence == last;
        let placed = Placed {
            position: self.position,
            is_new: is_last,
            event: None,
            at: None,
        };
        if is_last {
            let mut headers = message::trimmed(self.position, &self.version);
            batch::expect(&mut headers, self.before.sequence);
            batch::replace_all(&mut headers);
            self.last = Some(0);
            messages.push(Message {
                subject: self.subject.to_string(),
                headers,
                payload: Bytes::new(),
            });
        }
        placed
    }

    /// The channel's end, now that the chunk's first message is stored there.
    pub(super) fn head(&self, first: u64) -> Head {
        Head {
            sequence: match self.last {
                Some(last) => first + last as u64,
                None => self.before.sequence,
            },
            position: self.position,
            version: self.version.clone(),
        }
    }

    /// After a conflict: reads what is in the way.
    pub(super) async fn look(&self, link: &Link, opened: &Opened) -> Result<Verdict, LogError> {
        let last = head::last(link, opened, &self.subject).await?;
        let sequence = last.as_ref().map_or(0, |last| last.sequence);
        let is_same = sequence == self.before.sequence;
        let stored = last.as_ref().map_or(0, |last| self.stored(last));
        // Where retention has taken the channel's last message, nobody has written it.
        let is_fenced = !is_same && sequence > 0 && stored == 0;
        let head = if is_same {
            Some(self.before.clone())
        } else {
            last.and_then(|last| last.head)
        };
        let mut first = Vec::with_capacity(self.items.len());
        for (item, _) in self.items.iter().skip(stored) {
            first.push(match &item.what {
                What::Append { key: Some(key), .. } => {
                    let mark = head::last(link, opened, &link.subjects.key(key)).await?;
                    mark.and_then(|mark| Some((mark.head?.position, mark.marked)))
                }
                What::Append { key: None, .. } | What::Trim { .. } => None,
            });
        }
        Ok(Verdict {
            head,
            is_fenced,
            stored,
            first,
        })
    }

    /// How many items are stored if this is the channel's last message.
    fn stored(&self, last: &Last) -> usize {
        let is_last = |(item, placed): &(Item, Placed)| match &item.what {
            What::Append { draft, .. } => {
                let position = last.head.as_ref().map(|head| head.position);
                placed.is_new
                    && last.event == Some(draft.record.event)
                    && position == Some(placed.position)
            }
            What::Trim { .. } => false,
        };
        self.items.iter().position(is_last).map_or(0, |at| at + 1)
    }
}

impl Placed {
    pub(super) const fn appended(self) -> Appended {
        Appended {
            position: self.position,
            is_new: self.is_new,
            event: self.event,
            due_ms: 0,
        }
    }
}
