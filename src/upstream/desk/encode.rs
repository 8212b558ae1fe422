//! Entries as JSON, written by hand: payloads are copied, never parsed.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{BufMut, BytesMut};

use super::group::Given;
use crate::model::{ChannelName, Entry, StreamPosition};
use crate::upstream::log::{DeadLetter, Failure};

/// Bytes of an entry's JSON besides what its publisher chose.
const FRAME_BYTES: usize = 320;

/// Where an entry is shown to stand: a replayed one where it stood first.
#[must_use]
pub fn place(entry: &Entry) -> (&ChannelName, StreamPosition) {
    match &entry.record.origin {
        Some(origin) => (&origin.channel, origin.position),
        None => (&entry.record.channel, entry.position),
    }
}

/// A delivery to a worker: one JSON object.
pub fn delivery(out: &mut BytesMut, group: &str, given: &Given) {
    out.reserve(FRAME_BYTES + given.entry.record.bytes());
    out.put_slice(br#"{"delivery":"#);
    number(out, given.delivery);
    out.put_slice(br#","group":"#);
    string(out, group);
    out.put_slice(br#","attempt":"#);
    number(out, u64::from(given.attempt));
    out.put_u8(b',');
    entry(out, &given.entry, true);
    out.put_u8(b'}');
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
        + text_bytes(place(entry).0.as_str())
        + text_bytes(&record.key)
        + text_bytes(&record.trace)
        + tags
        + user
        + data
}

/// Bytes of a string with its quotes.
fn text_bytes(text: &str) -> usize {
    let of = |byte: u8| match byte {
        b'"' | b'\\' | b'\n' | b'\r' | b'\t' => 2,
        0..0x20 => 6,
        _ => 1,
    };
    text.bytes().map(of).sum::<usize>() + 2
}

/// An entry's members, without braces.
pub fn entry(out: &mut BytesMut, entry: &Entry, with_data: bool) {
    let record = &entry.record;
    let (channel, position) = place(entry);
    out.reserve(FRAME_BYTES + record.bytes());
    out.put_slice(br#""event_id":""#);
    out.put_slice(&record.event.encode());
    out.put_slice(br#"","channel":"#);
    string(out, channel.as_str());
    out.put_slice(br#","epoch":"#);
    string(out, position.epoch.as_str());
    out.put_slice(br#","offset":"#);
    number(out, position.offset.0);
    if !record.key.is_empty() {
        out.put_slice(br#","key":"#);
        string(out, &record.key);
    }
    if record.schema != 0 {
        out.put_slice(br#","schema":"#);
        number(out, u64::from(record.schema));
    }
    if !record.tags.is_empty() {
        tags(out, &record.tags);
    }
    if let Some(info) = &record.publisher {
        out.put_slice(br#","publisher":{"user":"#);
        string(out, &info.user);
        out.put_slice(br#","client":""#);
        out.put_slice(&info.client.encode());
        out.put_slice(br#""}"#);
    }
    if !record.trace.is_empty() {
        out.put_slice(br#","trace":"#);
        string(out, &record.trace);
    }
    out.put_slice(br#","published_at":"#);
    number(out, record.unix_ms);
    if with_data {
        data(out, &record.data, record.json);
    }
}

fn tags(out: &mut BytesMut, tags: &[(Box<str>, Box<str>)]) {
    out.put_slice(br#","tags":{"#);
    for (at, (name, value)) in tags.iter().enumerate() {
        if at > 0 {
            out.put_u8(b',');
        }
        string(out, name);
        out.put_u8(b':');
        string(out, value);
    }
    out.put_u8(b'}');
}

fn data(out: &mut BytesMut, data: &[u8], json: bool) {
    if json {
        out.put_slice(br#","data":"#);
        out.put_slice(data);
    } else {
        out.put_slice(br#","b64data":""#);
        out.put_slice(STANDARD.encode(data).as_bytes());
        out.put_u8(b'"');
    }
}

/// A dead letter: one JSON object.
pub fn letter(out: &mut BytesMut, letter: &DeadLetter, with_data: bool) {
    out.put_slice(br#"{"group":"#);
    string(out, &letter.group);
    out.put_slice(br#","died_at":"#);
    number(out, letter.unix_ms);
    out.put_slice(br#","attempts":"#);
    number(out, letter.failures.len() as u64);
    out.put_slice(br#","reason":"#);
    string(out, letter.failures.last().map_or("", |last| &last.reason));
    out.put_slice(br#","failures":["#);
    for (at, one) in letter.failures.iter().enumerate() {
        if at > 0 {
            out.put_u8(b',');
        }
        failure(out, one);
    }
    out.put_slice(b"],");
    entry(out, &letter.entry, with_data);
    out.put_u8(b'}');
}

fn failure(out: &mut BytesMut, failure: &Failure) {
    out.put_slice(br#"{"attempt":"#);
    number(out, u64::from(failure.attempt));
    out.put_slice(br#","at":"#);
    number(out, failure.unix_ms);
    out.put_slice(br#","reason":"#);
    string(out, &failure.reason);
    out.put_slice(br#","worker":"#);
    string(out, &failure.worker);
    out.put_u8(b'}');
}

/// What is announced of a dead letter: one JSON object without the payload.
pub fn obituary(out: &mut BytesMut, letter: &DeadLetter) {
    let (channel, position) = place(&letter.entry);
    out.put_slice(br#"{"group":"#);
    string(out, &letter.group);
    out.put_slice(br#","event_id":""#);
    out.put_slice(&letter.entry.record.event.encode());
    out.put_slice(br#"","channel":"#);
    string(out, channel.as_str());
    out.put_slice(br#","epoch":"#);
    string(out, position.epoch.as_str());
    out.put_slice(br#","offset":"#);
    number(out, position.offset.0);
    out.put_slice(br#","attempts":"#);
    number(out, letter.failures.len() as u64);
    out.put_slice(br#","reason":"#);
    string(out, letter.failures.last().map_or("", |last| &last.reason));
    out.put_slice(br#","died_at":"#);
    number(out, letter.unix_ms);
    out.put_u8(b'}');
}

/// An unsigned number.
pub fn number(out: &mut BytesMut, number: u64) {
    out.put_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// A string with its quotes.
pub fn string(out: &mut BytesMut, text: &str) {
    out.put_u8(b'"');
    let bytes = text.as_bytes();
    let mut from = 0;
    for (at, &byte) in bytes.iter().enumerate() {
        let escape: &[u8] = match byte {
            b'"' => br#"\""#,
            b'\\' => br"\\",
            b'\n' => br"\n",
            b'\r' => br"\r",
            b'\t' => br"\t",
            0..0x20 => {
                out.put_slice(&bytes[from..at]);
                out.put_slice(format!("\\u{byte:04x}").as_bytes());
                from = at + 1;
                continue;
            }
            _ => continue,
        };
        out.put_slice(&bytes[from..at]);
        out.put_slice(escape);
        from = at + 1;
    }
    out.put_slice(&bytes[from..]);
    out.put_u8(b'"');
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::model::{EventId, Offset, Origin, Record};
    use crate::upstream::memory;

    #[test]
    fn delivery_says_what_it_is_and_leaves_out_what_is_empty() {
        let record = memory::record("orders:1", EventId(7), r#"{"a":1}"#);
        let given = Given {
            delivery: 42,
            attempt: 2,
            entry: memory::entry(9, 3, record),
        };
        let mut out = BytesMut::new();
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
            channel: ChannelName::new("$queue:billing"),
            origin: Some(Box::new(Origin {
                channel: origin.record.channel.clone(),
                position: origin.position,
            })),
            ..origin.record.clone()
        };
        let mut out = BytesMut::from(&b"{"[..]);
        entry(&mut out, &memory::entry(9, 1, record), true);
        out.put_u8(b'}');
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
            let mut out = BytesMut::new();
            delivery(&mut out, &key, &given);
            let (size, most) = (out.len(), delivery_bytes(&key, &given.entry));
            prop_assert!(size <= most && most <= size + 2 * FRAME_BYTES, "{} {}", size, most);
            let mut out = BytesMut::from(&b"{"[..]);
            entry(&mut out, &placed, true);
            out.put_u8(b'}');
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
