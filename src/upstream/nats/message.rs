//! A record as a NATS message, and back: the payload as it is, everything else in headers that people can read.
//!
//! | header | of |
//! |---|---|
//! | `Nats-Msg-Id` | event id |
//! | `Ringmain-Position` | epoch and offset: `AbCdEfGh:17` |
//! | `Ringmain-Time` | when it was taken in, Unix milliseconds; absent where the event id says the same |
//! | `Ringmain-Key`, `-Schema`, `-Trace`, `-Hops`, `-Version` | what the publisher or a trigger set |
//! | `Ringmain-Tag` | a tag, `name=value`; as often as there are tags |
//! | `Ringmain-User`, `-Client`, `-Conn-Info`, `-Chan-Info` | who published; absent for a service. Infos in base64 |
//! | `Ringmain-Payload` | `bytes` where the payload is not one JSON value |
//! | `Ringmain-Ttl` | for how many milliseconds it is kept |
//! | `Ringmain-Delta` | `1` where subscribers may get it as a patch |
//! | `Ringmain-Origin` | of a replay: `AbCdEfGh:17 channel` |
//! | `Ringmain-Trimmed` | `1`: no publication; what was before it is forgotten, its position stays |
//! | `Ringmain-Event`, `-Due`, `-Key-Ttl`, `-Subject` | of what waits for its time: event id, time and life of its key in milliseconds, its channel's subject |
//!
//! In a value a control character, a `%`, and a space at either end stand as `%XX`, and so does a `=` in a tag's name.

use std::sync::Arc;
use std::time::Duration;

use async_nats::header::{HeaderMap, HeaderName, HeaderValue};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;

use super::subject::{Subjects, push_hex, unescape};
use crate::model::{
    ChannelName, ClientId, ClientInfo, Draft, Entry, Epoch, EventId, Offset, Origin, Record,
    StreamPosition, Terms,
};

const EVENT: HeaderName = HeaderName::from_static("Nats-Msg-Id");
/// Not the other name: the server keeps messages apart by that one.
const MARKED: HeaderName = HeaderName::from_static("Ringmain-Event");
const POSITION: HeaderName = HeaderName::from_static("Ringmain-Position");
const TIME: HeaderName = HeaderName::from_static("Ringmain-Time");
const KEY: HeaderName = HeaderName::from_static("Ringmain-Key");
const SCHEMA: HeaderName = HeaderName::from_static("Ringmain-Schema");
const TRACE: HeaderName = HeaderName::from_static("Ringmain-Trace");
const HOPS: HeaderName = HeaderName::from_static("Ringmain-Hops");
const VERSION: HeaderName = HeaderName::from_static("Ringmain-Version");
const TAG: HeaderName = HeaderName::from_static("Ringmain-Tag");
const USER: HeaderName = HeaderName::from_static("Ringmain-User");
const CLIENT: HeaderName = HeaderName::from_static("Ringmain-Client");
const CONN_INFO: HeaderName = HeaderName::from_static("Ringmain-Conn-Info");
const CHAN_INFO: HeaderName = HeaderName::from_static("Ringmain-Chan-Info");
const PAYLOAD: HeaderName = HeaderName::from_static("Ringmain-Payload");
const TTL: HeaderName = HeaderName::from_static("Ringmain-Ttl");
const DELTA: HeaderName = HeaderName::from_static("Ringmain-Delta");
const ORIGIN: HeaderName = HeaderName::from_static("Ringmain-Origin");
const TRIMMED: HeaderName = HeaderName::from_static("Ringmain-Trimmed");
const DUE: HeaderName = HeaderName::from_static("Ringmain-Due");
const KEY_TTL: HeaderName = HeaderName::from_static("Ringmain-Key-Ttl");
const SUBJECT: HeaderName = HeaderName::from_static("Ringmain-Subject");

/// Bytes of a message's headers that do not come from a publisher, at most.
pub(super) const OWN_HEADERS_BYTES: usize = 2048;

/// The last version number of a channel, carried by every message that follows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Version {
    /// 0 for none.
    pub number: u64,
    /// Life of the numbers.
    pub epoch: Box<str>,
}

impl Version {
    /// Does a publication with this version follow the channel's last one?
    pub(super) fn takes(&self, number: u64, epoch: &str) -> bool {
        number == 0 || self.number == 0 || *self.epoch != *epoch || number > self.number
    }
}

/// What stands in a message.
pub(super) enum Content {
    /// A publication.
    Entry(Box<Entry>),
    /// What stands for an emptied channel.
    Trimmed,
}

/// Headers of a record in its place.
pub(super) fn headers(record: &Record, position: StreamPosition, version: &Version) -> HeaderMap {
    let mut headers = HeaderMap::new();
    set(&mut headers, EVENT, record.event.to_string());
    set(&mut headers, POSITION, position_text(position));
    if record.unix_ms != event_ms(record.event) {
        set(&mut headers, TIME, record.unix_ms.to_string());
    }
    set_text(&mut headers, KEY, &record.key);
    if record.schema != 0 {
        set(&mut headers, SCHEMA, record.schema.to_string());
    }
    set_text(&mut headers, TRACE, &record.trace);
    if record.hops != 0 {
        set(&mut headers, HOPS, record.hops.to_string());
    }
    set_version(&mut headers, version);
    for (name, value) in &record.tags {
        let mut tag = escape(name, true);
        tag.push('=');
        tag.push_str(&escape(value, false));
        headers.append(TAG, HeaderValue::from(tag));
    }
    if let Some(info) = &record.publisher {
        set_text(&mut headers, USER, &info.user);
        set(&mut headers, CLIENT, info.client.to_string());
        set_bytes(&mut headers, CONN_INFO, &info.conn_info);
        set_bytes(&mut headers, CHAN_INFO, &info.chan_info);
    }
    if !record.json {
        set(&mut headers, PAYLOAD, "bytes".to_owned());
    }
    if record.ttl_ms > 0 {
        set(&mut headers, TTL, record.ttl_ms.to_string());
    }
    if record.delta {
        set(&mut headers, DELTA, "1".to_owned());
    }
    if let Some(origin) = &record.origin {
        let mut text = position_text(origin.position);
        text.push(' ');
        text.push_str(&escape(origin.channel.whole(), false));
        set(&mut headers, ORIGIN, text);
    }
    headers
}

/// Headers of what waits for its time. The server strips the event's usual name when the time has come.
pub(super) fn waiting(draft: &Draft, subject: &str) -> HeaderMap {
    let nowhere = StreamPosition {
        epoch: Epoch::from_random(0),
        offset: Offset(0),
    };
    let version = Version {
        number: draft.version,
        epoch: draft.version_epoch.clone(),
    };
    let all = headers(&draft.record, nowhere, &version);
    let mut headers = HeaderMap::new();
    for (name, values) in all.iter().filter(|(name, _)| **name != EVENT) {
        for value in values {
            headers.append(name.clone(), value.clone());
        }
    }
    set(&mut headers, MARKED, draft.record.event.to_string());
    set(&mut headers, DUE, draft.due_ms.to_string());
    let ttl = draft.terms.key_ttl.as_millis();
    set(&mut headers, KEY_TTL, ttl.to_string());
    set(&mut headers, SUBJECT, subject.to_owned());
    headers
}

/// What has waited, or waits still; `None` if this program did not write it.
pub(super) fn waited(subjects: &Subjects, headers: &HeaderMap, payload: Bytes) -> Option<Draft> {
    let mut all = headers.clone();
    all.insert(EVENT, headers.get(MARKED)?.clone());
    let subject = headers.get(SUBJECT)?.as_str();
    let Some(Content::Entry(entry)) = decode(subjects, subject, 0, &all, payload) else {
        return None;
    };
    let ttl = Duration::from_millis(number(headers, KEY_TTL)??);
    let version = version(headers);
    let mut draft = Draft::of(Terms::log(ttl), entry.record);
    draft.due_ms = number(headers, DUE)??;
    draft.version = version.number;
    draft.version_epoch = version.epoch;
    Some(draft)
}

/// Headers of what stands for an emptied channel.
pub(super) fn trimmed(position: StreamPosition, version: &Version) -> HeaderMap {
    let mut headers = HeaderMap::new();
    set(&mut headers, POSITION, position_text(position));
    set(&mut headers, TRIMMED, "1".to_owned());
    set_version(&mut headers, version);
    headers
}

/// Headers of the mark of an idempotency key: where its publication stands.
pub(super) fn key_mark(position: StreamPosition, event: EventId) -> HeaderMap {
    let mut headers = HeaderMap::new();
    set(&mut headers, POSITION, position_text(position));
    set(&mut headers, MARKED, event.to_string());
    headers
}

/// Which publication the mark of an idempotency key is of. Marks without it were written before it was.
pub(super) fn marked(headers: &HeaderMap) -> Option<EventId> {
    EventId::parse(headers.get(MARKED)?.as_str())
}

/// Reads a message at this place in the stream; `None` if this program did not write it.
pub(super) fn decode(
    subjects: &Subjects,
    subject: &str,
    cursor: u64,
    headers: &HeaderMap,
    payload: Bytes,
) -> Option<Content> {
    let position = position(headers)?;
    if headers.get(TRIMMED).is_some() {
        return Some(Content::Trimmed);
    }
    let channel = subjects.parse(subject)?;
    let event = event(headers)?;
    let record = Record {
        channel,
        event,
        key: text(headers, KEY)?,
        schema: number(headers, SCHEMA)?.unwrap_or(0),
        tags: tags(headers)?,
        publisher: publisher(headers)?,
        trace: text(headers, TRACE)?,
        unix_ms: number(headers, TIME)?.unwrap_or(event_ms(event)),
        ttl_ms: number(headers, TTL)?.unwrap_or(0),
        data: payload,
        json: headers.get(PAYLOAD).is_none(),
        delta: headers.get(DELTA).is_some(),
        hops: number(headers, HOPS)?.unwrap_or(0),
        origin: origin(headers)?,
    };
    Some(Content::Entry(Box::new(Entry {
        cursor,
        position,
        record,
    })))
}

/// Where the message stands in its channel.
pub(super) fn position(headers: &HeaderMap) -> Option<StreamPosition> {
    parse_position(headers.get(POSITION)?.as_str())
}

/// Which publication the message is.
pub(super) fn event(headers: &HeaderMap) -> Option<EventId> {
    EventId::parse(headers.get(EVENT)?.as_str())
}

/// The channel's last version as of this message.
pub(super) fn version(headers: &HeaderMap) -> Version {
    let parsed = headers.get(VERSION).and_then(|value| {
        let (number, epoch) = value.as_str().split_once(':')?;
        Some(Version {
            number: number.parse().ok()?,
            epoch: unescape(epoch, b'%')?.into(),
        })
    });
    parsed.unwrap_or_default()
}

const fn event_ms(event: EventId) -> u64 {
    (event.0 >> 80) as u64
}

pub(super) fn position_text(position: StreamPosition) -> String {
    format!("{}:{}", position.epoch.as_str(), position.offset.0)
}

pub(super) fn parse_position(text: &str) -> Option<StreamPosition> {
    let (epoch, offset) = text.split_once(':')?;
    Some(StreamPosition {
        epoch: Epoch::parse(epoch)?,
        offset: Offset(offset.parse().ok()?),
    })
}

fn set(headers: &mut HeaderMap, name: HeaderName, value: String) {
    headers.insert(name, HeaderValue::from(value));
}

fn set_text(headers: &mut HeaderMap, name: HeaderName, text: &str) {
    if !text.is_empty() {
        set(headers, name, escape(text, false));
    }
}

fn set_bytes(headers: &mut HeaderMap, name: HeaderName, bytes: &Bytes) {
    if !bytes.is_empty() {
        set(headers, name, BASE64.encode(bytes));
    }
}

fn set_version(headers: &mut HeaderMap, version: &Version) {
    if version.number != 0 {
        let text = format!("{}:{}", version.number, escape(&version.epoch, false));
        set(headers, VERSION, text);
    }
}

/// A header's text; empty if it is absent, `None` if it is not what this program writes.
fn text(headers: &HeaderMap, name: HeaderName) -> Option<Box<str>> {
    match headers.get(name) {
        Some(value) => unescape(value.as_str(), b'%').map(Into::into),
        None => Some(Box::default()),
    }
}

fn number<T: std::str::FromStr>(headers: &HeaderMap, name: HeaderName) -> Option<Option<T>> {
    match headers.get(name) {
        Some(value) => value.as_str().parse().ok().map(Some),
        None => Some(None),
    }
}

fn bytes(headers: &HeaderMap, name: HeaderName) -> Option<Bytes> {
    match headers.get(name) {
        Some(value) => BASE64.decode(value.as_str()).ok().map(Bytes::from),
        None => Some(Bytes::new()),
    }
}

/// Names and values.
type Tags = Box<[(Box<str>, Box<str>)]>;

fn tags(headers: &HeaderMap) -> Option<Tags> {
    if headers.get(TAG).is_none() {
        return Some(Box::default());
    }
    let tag = |value: &HeaderValue| {
        let (name, value) = value.as_str().split_once('=')?;
        Some((unescape(name, b'%')?.into(), unescape(value, b'%')?.into()))
    };
    headers.get_all(TAG).map(tag).collect()
}

fn publisher(headers: &HeaderMap) -> Option<Option<Arc<ClientInfo>>> {
    let Some(client) = headers.get(CLIENT) else {
        return Some(None);
    };
    Some(Some(Arc::new(ClientInfo {
        user: text(headers, USER)?,
        client: ClientId::parse(client.as_str())?,
        conn_info: bytes(headers, CONN_INFO)?,
        chan_info: bytes(headers, CHAN_INFO)?,
    })))
}

fn origin(headers: &HeaderMap) -> Option<Option<Box<Origin>>> {
    let Some(value) = headers.get(ORIGIN) else {
        return Some(None);
    };
    let (position, channel) = value.as_str().split_once(' ')?;
    Some(Some(Box::new(Origin {
        channel: ChannelName::from_whole(&unescape(channel, b'%')?),
        position: parse_position(position)?,
    })))
}

fn escape(text: &str, is_name: bool) -> String {
    let mut out = String::with_capacity(text.len());
    let last = text.len().saturating_sub(1);
    for (at, c) in text.char_indices() {
        let at_an_end = at == 0 || at == last;
        let is_plain = match c {
            '%' => false,
            '=' => !is_name,
            ' ' => !at_an_end,
            c => !c.is_control() && !c.is_whitespace(),
        };
        if is_plain {
            out.push(c);
        } else {
            let mut buffer = [0; 4];
            for byte in c.encode_utf8(&mut buffer).bytes() {
                push_hex(&mut out, '%', byte);
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn there_and_back(record: &Record, version: &Version) -> (Option<Entry>, Version) {
        let subjects = Subjects::new("ringmain");
        let subject = subjects.channel(record.channel.whole());
        let position = StreamPosition {
            epoch: Epoch(*b"AbCdEfGh"),
            offset: Offset(17),
        };
        let headers = headers(record, position, version);
        let content = decode(&subjects, &subject, 9, &headers, record.data.clone());
        let entry = match content {
            Some(Content::Entry(entry)) => Some(*entry),
            Some(Content::Trimmed) | None => None,
        };
        (entry, super::version(&headers))
    }

    prop_compose! {
        fn records()(
            channel in ".{1,20}", key in ".{0,20}", tag in (".{0,10}", ".{0,10}"), user in ".{0,10}", trace in ".{0,10}",
            client in any::<u128>(), info in any::<Vec<u8>>(), numbers in any::<(u32, u64, u8, bool, bool, bool)>(),
        ) -> Record {
            let (schema, time, hops, json, delta, more) = numbers;
            Record {
                channel: ChannelName::from_whole(&channel),
                event: EventId::new(time, client),
                key: key.into(),
                schema,
                tags: [(tag.0.into(), tag.1.into()), ("a".into(), "1".into())].into(),
                publisher: more.then(|| Arc::new(ClientInfo {
                    user: user.into(),
                    client: ClientId(client),
                    conn_info: Bytes::from(info),
                    chan_info: Bytes::new(),
                })),
                trace: trace.into(),
                unix_ms: if more { time & ((1 << 48) - 1) } else { time },
                ttl_ms: u64::from(schema) * 3,
                data: Bytes::from_static(b"{}"),
                json,
                delta,
                hops,
                origin: more.then(|| Box::new(Origin {
                    channel: ChannelName::from_whole(&channel),
                    position: StreamPosition { epoch: Epoch(*b"zyxwvuts"), offset: Offset(time) },
                })),
            }
        }
    }

    proptest! {
        #[test]
        fn every_record_comes_back_from_its_message(record in records()) {
            let version = Version { number: 7, epoch: record.key.clone() };
            let (entry, _) = there_and_back(&record, &version);
            prop_assert_eq!(entry.map(|entry| entry.record), Some(record));
        }

        #[test]
        fn what_waits_comes_back_from_its_message(record in records(), due_ms in 1u64.., ttl in 0u64..1 << 40) {
            let subjects = Subjects::new("ringmain");
            let subject = subjects.channel(record.channel.whole());
            let mut draft = Draft::of(Terms::log(Duration::from_millis(ttl)), record);
            (draft.due_ms, draft.version, draft.version_epoch) = (due_ms, 3, "e".into());
            let headers = waiting(&draft, &subject);
            prop_assert!(headers.get(EVENT).is_none());
            let waited = waited(&subjects, &headers, draft.record.data.clone());
            prop_assert_eq!(waited, Some(draft));
        }

        #[test]
        fn headers_of_others_are_refused_without_a_panic(name in "Ringmain-(Position|Tag|Origin|Client|Time)", value in "[ -~]{0,30}") {
            let mut headers = HeaderMap::new();
            headers.insert(EVENT, "x");
            headers.insert(name.as_str(), value.as_str());
            let _ = decode(&Subjects::new("r"), "r.default.a", 1, &headers, Bytes::new());
        }
    }

    #[test]
    fn version_follows_the_channel() {
        let version = Version {
            number: 7,
            epoch: "life 1".into(),
        };
        assert!(version.takes(8, "life 1") && version.takes(1, "life 2") && version.takes(0, ""));
        assert!(!version.takes(7, "life 1"));
        let mut headers = HeaderMap::new();
        set_version(&mut headers, &version);
        assert_eq!(super::version(&headers), version);
    }
}
