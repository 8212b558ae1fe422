//! Entries as JSON: payloads are copied, never parsed.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use std::sync::Arc;

use bytes::Bytes;

use super::own;
use crate::model::{Entry, Record};
use crate::upstream::log::{DeadLetter, Failure};
use crate::wire::json::write::{Members, string};

/// Bytes of an entry's JSON besides what its publisher chose.
const FRAME_BYTES: usize = 320;

/// A delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Given {
    /// To settle it. At most 53 bits.
    pub delivery: u64,
    /// From 1.
    pub attempt: u32,
    /// What it is.
    pub entry: Arc<Entry>,
}

/// A delivery to a worker: one JSON object.
pub fn delivery(out: &mut Vec<u8>, group: &str, given: &Given) {
    let record = &given.entry.record;
    // Once for all of it: a second growth would copy what is there.
    out.reserve(FRAME_BYTES + group.len() + record.bytes());
    let mut members = Members::open(out);
    members.number("delivery", given.delivery);
    members.text("group", own(group));
    members.number("attempt", given.attempt);
    place_of(&mut members, &given.entry);
    self::record(&mut members, record, true);
}

/// What a connection is told when a group that it takes from is paused, or goes on.
#[must_use]
pub fn paused(group: &str, paused: bool) -> Bytes {
    let mut out = Vec::new();
    let mut members = Members::open(&mut out);
    members.text("group", own(group));
    members.boolean("paused", paused);
    members.close();
    Bytes::from(out)
}

/// Bytes of a delivery, at most a few hundred more than it has.
#[must_use]
pub fn delivery_bytes(group: &str, entry: &Entry) -> usize {
    let record = &entry.record;
    let tags = record.tags.iter();
    let tags: usize = tags
        .map(|(name, value)| text_bytes(name) + text_bytes(value) + 2)
        .sum();
    let user = record
        .publisher
        .as_ref()
        .map_or(0, |info| text_bytes(&info.user));
    let data = if record.json {
        record.data.len()
    } else {
        record.data.len().div_ceil(3) * 4
    };
    FRAME_BYTES
        + text_bytes(group)
        + text_bytes(entry.shown_at().0.whole())
        + text_bytes(&record.key)
        + text_bytes(&record.trace)
        + tags
        + user
        + data
}

/// Bytes of a string with its quotes.
fn text_bytes(text: &str) -> usize {
    let of = |byte: u8| match byte {
        b'"' | b'\\' | b'\n' | b'\r' | b'\t' | 0x08 | 0x0c => 2,
        0..0x20 => 6,
        _ => 1,
    };
    text.bytes().map(of).sum::<usize>() + 2
}

/// The members of an entry.
pub fn entry(members: &mut Members<'_>, entry: &Entry, with_data: bool) {
    let record = &entry.record;
    members.reserve(FRAME_BYTES + record.bytes());
    place_of(members, entry);
    self::record(members, record, with_data);
}

/// The members of a record beside what it is called and where it stands.
pub fn record(members: &mut Members<'_>, record: &Record, with_data: bool) {
    members.text_some("key", &record.key);
    members.number_some("schema", u64::from(record.schema));
    if !record.tags.is_empty() {
        let mut tags = members.object("tags");
        for (name, value) in &record.tags {
            string(tags.key(name), value);
        }
    }
    if let Some(info) = &record.publisher {
        let mut publisher = members.object("publisher");
        publisher.text("user", &info.user);
        publisher.plain("client", &info.client.encode());
    }
    members.text_some("trace", &record.trace);
    members.number("published_at", record.unix_ms);
    if with_data {
        data(members, &record.data, record.json);
    }
}

/// Which entry it is, and where it is shown to stand.
pub(super) fn place_of(members: &mut Members<'_>, entry: &Entry) {
    let (channel, position) = entry.shown_at();
    members.plain("event_id", &entry.record.event.encode());
    members.text("channel", channel.name());
    members.text("epoch", position.epoch.as_str());
    members.number("offset", position.offset.0);
}

pub(super) fn data(members: &mut Members<'_>, data: &[u8], json: bool) {
    if json {
        members.name("data").extend_from_slice(data);
    } else {
        members.plain("b64data", STANDARD.encode(data).as_bytes());
    }
}

/// A dead letter: one JSON object.
pub fn letter(out: &mut Vec<u8>, letter: &DeadLetter, with_data: bool) {
    let mut members = Members::open(out);
    members.text("group", own(&letter.group));
    members.number("died_at", letter.unix_ms);
    members.number("attempts", letter.failures.len());
    members.text("reason", letter.reason());
    members.text("class", letter.cause().name());
    members.array("failures", &letter.failures, failure);
    entry(&mut members, &letter.entry, with_data);
}

fn failure(out: &mut Vec<u8>, failure: &Failure) {
    let mut members = Members::open(out);
    members.number("attempt", failure.attempt);
    members.number("at", failure.unix_ms);
    members.text("reason", &failure.reason);
    members.text("worker", &failure.worker);
}

/// What is announced of a dead letter: one JSON object without the payload.
pub fn obituary(out: &mut Vec<u8>, letter: &DeadLetter) {
    let mut members = Members::open(out);
    members.text("group", own(&letter.group));
    place_of(&mut members, &letter.entry);
    members.number("attempts", letter.failures.len());
    members.text("reason", letter.reason());
    members.text("class", letter.cause().name());
    members.number("died_at", letter.unix_ms);
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::model::{ChannelName, EventId, Offset, Origin};
    use crate::upstream::memory;

    #[test]
    fn delivery_says_what_it_is_and_leaves_out_what_is_empty() {
        let record = memory::record("orders:1", EventId(7), r#"{"a":1}"#);
        let given = Given {
            delivery: 42,
            attempt: 2,
            entry: memory::entry(9, 3, record),
        };
        let mut out = Vec::new();
        delivery(&mut out, "billing", &given);
        let value: Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(
            value,
            json!({
                "delivery": 42, "group": "billing", "attempt": 2,
                "event_id": EventId(7).to_string(), "channel": "orders:1",
                "epoch": given.entry.position.epoch.as_str(), "offset": 3,
                "published_at": given.entry.record.unix_ms, "data": {"a": 1},
            })
        );
    }

    #[test]
    fn replayed_entry_stands_where_it_stood_first() {
        let origin = memory::entry(1, 5, memory::record("orders:1", EventId(7), "1"));
        let record = Record {
            channel: ChannelName::from_whole("$queue:billing"),
            origin: Some(Box::new(Origin {
                channel: origin.record.channel.clone(),
                position: origin.position,
            })),
            ..origin.record.clone()
        };
        let mut out = Vec::new();
        entry(
            &mut Members::open(&mut out),
            &memory::entry(9, 1, record),
            true,
        );
        let value: Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(value["channel"], "orders:1");
        assert_eq!(value["offset"], 5);
    }

    proptest! {
        #[test]
        fn every_text_and_payload_is_valid_json(
            key in ".*", tag in ".*", trace in ".*", data in prop::collection::vec(any::<u8>(), 0..40), offset in any::<u64>(),
        ) {
            let record = Record {
                key: key.as_str().into(),
                tags: Box::new([(tag.as_str().into(), trace.as_str().into())]),
                trace: trace.as_str().into(),
                data: Bytes::from(data.clone()),
                json: false,
                schema: 3,
                ..memory::record("a", EventId(1), "1")
            };
            let mut placed = Arc::unwrap_or_clone(memory::entry(1, 1, record));
            placed.position.offset = Offset(offset);
            let given = Given { delivery: (1 << 53) - 1, attempt: u32::MAX, entry: Arc::new(placed.clone()) };
            let mut out = Vec::new();
            delivery(&mut out, &key, &given);
            let (size, most) = (out.len(), delivery_bytes(&key, &given.entry));
            prop_assert!(size <= most && most <= size + 2 * FRAME_BYTES, "{} {}", size, most);
            let mut out = Vec::new();
            entry(&mut Members::open(&mut out), &placed, true);
            let value: Value = serde_json::from_slice(&out).unwrap();
            prop_assert_eq!(value["tags"][&tag].as_str(), Some(trace.as_str()));
            prop_assert_eq!(value["offset"].as_u64(), Some(offset));
            prop_assert_eq!(STANDARD.decode(value["b64data"].as_str().unwrap()).unwrap(), data);
            if !key.is_empty() {
                prop_assert_eq!(value["key"].as_str(), Some(key.as_str()));
            }
        }
    }
}
