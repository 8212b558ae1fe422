//! What the durable log keeps of a publication.

use std::fmt::{self, Write as _};
use std::sync::Arc;

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use super::{ChannelName, ClientInfo, StreamPosition, parse_uuid, uuid_text};

/// Unique id of a durable publication, a version 7 UUID (RFC 9562 §5.7): it stays the same wherever the publication is
/// delivered again, so whoever must not do a thing twice remembers it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct EventId(pub u128);

impl EventId {
    /// The time in the first 48 bits, version and variant over the rest of 128 random bits.
    #[must_use]
    pub const fn new(unix_ms: u64, random: u128) -> Self {
        let random = random & ((1 << 80) - 1) & !(0xf << 76) | (0x7 << 76);
        let random = random & !(0x3 << 62) | (0x2 << 62);
        Self((unix_ms as u128 & ((1 << 48) - 1)) << 80 | random)
    }

    /// Reads the canonical form; `None` for anything else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        parse_uuid(text).map(Self)
    }

    /// The canonical 36 characters.
    #[must_use]
    pub fn encode(self) -> [u8; 36] {
        uuid_text(self.0)
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(str::from_utf8(&uuid_text(self.0)).unwrap_or(""))
    }
}

impl fmt::Debug for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// An idempotency key as a client names it, as it is kept: it belongs to the client's user, and nobody else's repeats it. Anonymous
/// clients have one user together, since nothing tells which of them comes again. Services name keys as they are kept, so theirs
/// are apart from those of clients. Empty stays empty.
#[must_use]
pub fn key_of_client(user: &str, key: &str) -> Box<str> {
    if key.is_empty() {
        return Box::default();
    }
    // A user may be called anything, at any length.
    let hash = Sha256::digest(user.as_bytes());
    let mut out = String::with_capacity(KEY_OF_CLIENT_PREFIX + key.len());
    out.push_str("$user:");
    for byte in hash.iter().take(16) {
        // Writing to a text does not fail.
        let _ = write!(out, "{byte:02x}");
    }
    out.push('/');
    out.push_str(key);
    out.into()
}

/// Bytes before the key: mark, 32 digits, a slash.
const KEY_OF_CLIENT_PREFIX: usize = 6 + 32 + 1;

/// A durable publication before it has its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Channel.
    pub channel: ChannelName,
    /// See `EventId`.
    pub event: EventId,
    /// Idempotency key; empty for none. See `key_of_client`.
    pub key: Box<str>,
    /// Version of the payload's schema; 0 for none.
    pub schema: u32,
    /// Tags, in the publisher's order.
    pub tags: Box<[(Box<str>, Box<str>)]>,
    /// Who published; `None` for a service.
    pub publisher: Option<Arc<ClientInfo>>,
    /// The publisher's trace id, as it was given; empty for none.
    pub trace: Box<str>,
    /// When the publication was taken in, Unix milliseconds.
    pub unix_ms: u64,
    /// For how many milliseconds from then on it is kept; 0 for as long as its channel keeps others.
    pub ttl_ms: u64,
    /// Payload: one JSON value without raw line breaks, or arbitrary bytes.
    pub data: Bytes,
    /// `data` is one JSON value.
    pub json: bool,
    /// See `Publication::delta`.
    pub delta: bool,
    /// Triggers that led to it, one after the other: a chain has an end.
    pub hops: u8,
    /// Set where a publication is published once more (replay, a retried dead letter): what it was first.
    pub origin: Option<Box<Origin>>,
}

impl Record {
    /// When it is gone, Unix milliseconds; `None` for never.
    #[must_use]
    pub const fn ends_ms(&self) -> Option<u64> {
        match self.ttl_ms {
            0 => None,
            ttl => Some(self.unix_ms.saturating_add(ttl)),
        }
    }

    /// Its time is over.
    #[must_use]
    pub fn is_over(&self, now_ms: u64) -> bool {
        self.ends_ms().is_some_and(|ends| ends <= now_ms)
    }
}

/// Where a replayed publication stood first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Its channel.
    pub channel: ChannelName,
    /// Its position there.
    pub position: StreamPosition,
}

/// A durable publication in its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Place in the whole log: later entries have greater ones, with holes. The place of the next one is unknown.
    pub cursor: u64,
    /// Place in its channel.
    pub position: StreamPosition,
    /// The publication.
    pub record: Record,
}

impl Entry {
    /// Where it is shown to stand: a replayed one where it stood first.
    #[must_use]
    pub const fn shown_at(&self) -> (&ChannelName, StreamPosition) {
        match &self.record.origin {
            Some(origin) => (&origin.channel, origin.position),
            None => (&self.record.channel, self.position),
        }
    }
}

/// What a token lets its client consume: `consume` = {group pattern: [channel patterns]}.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsumeGrant {
    /// Groups, a glob.
    pub groups: Box<str>,
    /// Channels that these groups may take from, globs.
    pub channels: Box<[Box<str>]>,
}

impl Record {
    /// Bytes that a publisher chose and that memory or disk holds.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let tags: usize = self
            .tags
            .iter()
            .map(|(name, value)| name.len() + value.len())
            .sum();
        let publisher = self.publisher.as_ref().map_or(0, |info| {
            info.user.len() + info.conn_info.len() + info.chan_info.len()
        });
        self.data.len()
            + tags
            + publisher
            + self.key.len()
            + self.trace.len()
            + self.channel.whole().len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_of_a_client_is_that_of_its_user_alone() {
        let key = key_of_client("alice", "1");
        assert_eq!(key, key_of_client("alice", "1"));
        assert_eq!(key.len(), KEY_OF_CLIENT_PREFIX + 1);
        for (user, other) in [
            ("bob", "1"),
            ("alice", "2"),
            ("", "1"),
            ("alice/1", "1"),
            ("alic", "e1"),
        ] {
            assert_ne!(key, key_of_client(user, other), "{user} {other}");
        }
        assert!(key_of_client("alice", "").is_empty());
    }

    #[test]
    fn event_ids_sort_by_time_and_say_their_version() {
        let early = EventId::new(1_700_000_000_000, u128::MAX);
        let late = EventId::new(1_700_000_000_001, 0);
        assert!(early < late);
        let text = late.to_string();
        assert_eq!(&text[14..15], "7");
        assert!(matches!(&text[19..20], "8" | "9" | "a" | "b"));
        assert_eq!(EventId::parse(&text), Some(late));
    }
}
