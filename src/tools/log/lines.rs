//! An entry as a line of JSON, and back: nothing of it is lost.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::model::{
    ChannelName, ClientId, ClientInfo, Draft, Entry, Epoch, EventId, Offset, Origin, Record,
    StreamPosition, TenantId, Terms,
};

/// A line. Everything but the channel and the payload may be missing.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Line<'a> {
    /// Place in the log that wrote it, as text: JSON loses large numbers.
    #[serde(default, skip_serializing_if = "Option::is_none", borrow)]
    cursor: Option<Cow<'a, str>>,
    #[serde(borrow)]
    channel: Cow<'a, str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    offset: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none", borrow)]
    epoch: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none", borrow)]
    event_id: Option<Cow<'a, str>>,
    /// Unix milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    published_at: Option<u64>,
    /// It waits until then, Unix milliseconds, and stands nowhere yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    deliver_at: Option<u64>,
    /// For how long it is kept from then on, milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ttl_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none", borrow)]
    key: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "is_zero")]
    schema: u32,
    /// Pairs: their order is the publisher's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    tags: Vec<(Box<str>, Box<str>)>,
    #[serde(default, skip_serializing_if = "Option::is_none", borrow)]
    publisher: Option<Publisher<'a>>,
    #[serde(default, skip_serializing_if = "Option::is_none", borrow)]
    trace: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none", borrow)]
    tenant: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    delta: bool,
    #[serde(default, skip_serializing_if = "is_zero")]
    hops: u32,
    #[serde(default, skip_serializing_if = "Option::is_none", borrow)]
    origin: Option<First<'a>>,
    /// One JSON value.
    #[serde(default, skip_serializing_if = "Option::is_none", borrow)]
    data: Option<&'a RawValue>,
    /// Or any bytes, base64.
    #[serde(default, skip_serializing_if = "Option::is_none", borrow)]
    b64data: Option<Cow<'a, str>>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Publisher<'a> {
    #[serde(borrow)]
    user: Cow<'a, str>,
    #[serde(borrow)]
    client: Cow<'a, str>,
    #[serde(default, skip_serializing_if = "Option::is_none", borrow)]
    b64conn_info: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none", borrow)]
    b64chan_info: Option<Cow<'a, str>>,
}

/// Where a publication that was published once more stood first.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct First<'a> {
    #[serde(borrow)]
    channel: Cow<'a, str>,
    #[serde(borrow)]
    epoch: Cow<'a, str>,
    offset: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

fn some(text: &str) -> Option<Cow<'_, str>> {
    (!text.is_empty()).then_some(Cow::Borrowed(text))
}

fn base64(bytes: &[u8]) -> Option<Cow<'static, str>> {
    (!bytes.is_empty()).then(|| STANDARD.encode(bytes).into())
}

/// Appends an entry with a line break.
pub(super) fn write(out: &mut Vec<u8>, entry: &Entry) {
    let line = Line {
        cursor: Some(entry.cursor.to_string().into()),
        offset: Some(entry.position.offset.0),
        epoch: some(entry.position.epoch.as_str()),
        ..line(&entry.record)
    };
    put(out, &line);
}

/// Appends a publication that waits for its time.
pub(super) fn write_scheduled(out: &mut Vec<u8>, draft: &Draft) {
    let line = Line {
        deliver_at: Some(draft.due_ms),
        ..line(&draft.record)
    };
    put(out, &line);
}

fn put(out: &mut Vec<u8>, line: &Line<'_>) {
    // A value whose parts are texts and numbers can always be written.
    if serde_json::to_writer(&mut *out, line).is_ok() {
        out.push(b'\n');
    }
}

/// What a record says of itself.
fn line(record: &Record) -> Line<'_> {
    let raw = record.json.then_some(&record.data[..]);
    let raw = raw.and_then(|data| serde_json::from_slice::<&RawValue>(data).ok());
    Line {
        cursor: None,
        channel: record.channel.name().into(),
        offset: None,
        epoch: None,
        deliver_at: None,
        event_id: Some(record.event.to_string().into()),
        published_at: Some(record.unix_ms),
        ttl_ms: (record.ttl_ms > 0).then_some(record.ttl_ms),
        key: some(&record.key),
        schema: record.schema,
        tags: record.tags.to_vec(),
        publisher: record.publisher.as_ref().map(|info| Publisher {
            user: (&*info.user).into(),
            client: info.client.to_string().into(),
            b64conn_info: base64(&info.conn_info),
            b64chan_info: base64(&info.chan_info),
        }),
        trace: some(&record.trace),
        tenant: some(record.channel.tenant().as_str()),
        delta: record.delta,
        hops: u32::from(record.hops),
        origin: record.origin.as_ref().map(|origin| First {
            channel: origin.channel.name().into(),
            epoch: origin.position.epoch.as_str().into(),
            offset: origin.position.offset.0,
        }),
        b64data: raw.is_none().then(|| STANDARD.encode(&record.data).into()),
        data: raw,
    }
}

/// The line is one of those that wait for their time, which stand behind all entries.
pub(super) fn is_scheduled(text: &str) -> bool {
    serde_json::from_str::<Line<'_>>(text).is_ok_and(|line| line.deliver_at.is_some())
}

/// The cursor of a line that `write` has written.
pub(super) fn cursor(text: &str) -> Option<u64> {
    let line: Line<'_> = serde_json::from_str(text).ok()?;
    line.cursor?.parse().ok()
}

/// A publication out of a line; `now_ms` and `random` are for those that do not say when, or which one, they are.
pub(super) fn read(text: &str, now_ms: u64, random: u128) -> Result<Draft, String> {
    let line: Line<'_> = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let (data, json) = match (line.data, &line.b64data) {
        (Some(raw), None) => (
            crate::wire::json::compact(raw.get().as_bytes()).into_owned(),
            true,
        ),
        (None, Some(text)) => (bytes("b64data", text)?, false),
        _ => return Err("exactly one of data and b64data is expected".to_owned()),
    };
    let unix_ms = line.published_at.unwrap_or(now_ms);
    let event = match &line.event_id {
        Some(text) => EventId::parse(text).ok_or("event_id: a UUID is expected")?,
        None => EventId::new(unix_ms, random),
    };
    let publisher = line.publisher.as_ref().map(publisher).transpose()?;
    let tenant = TenantId::new(line.tenant.as_deref().unwrap_or_default());
    let origin = |line: &First<'_>| origin(tenant, line);
    let origin = line.origin.as_ref().map(origin).transpose()?;
    let hops = u8::try_from(line.hops).map_err(|_| "hops: up to 255")?;
    let text = |text: &Option<Cow<'_, str>>| text.as_deref().unwrap_or_default().into();
    let record = Record {
        channel: ChannelName::of(tenant, &line.channel),
        event,
        key: text(&line.key),
        schema: line.schema,
        publisher,
        trace: text(&line.trace),
        unix_ms,
        ttl_ms: line.ttl_ms.unwrap_or(0),
        data: data.into(),
        json,
        delta: line.delta,
        hops,
        origin,
        tags: line.tags.into(),
    };
    let mut draft = Draft::of(Terms::log(Duration::ZERO), record);
    draft.due_ms = line.deliver_at.unwrap_or(0);
    Ok(draft)
}

fn bytes(name: &str, text: &str) -> Result<Vec<u8>, String> {
    STANDARD
        .decode(text)
        .map_err(|error| format!("{name}: {error}"))
}

fn publisher(line: &Publisher<'_>) -> Result<Arc<ClientInfo>, String> {
    let client = ClientId::parse(&line.client).ok_or("publisher.client: a UUID is expected")?;
    let info = |name: &str, text: &Option<Cow<'_, str>>| match text {
        Some(text) => bytes(name, text),
        None => Ok(Vec::new()),
    };
    Ok(Arc::new(ClientInfo {
        user: (&*line.user).into(),
        client,
        conn_info: info("publisher.b64conn_info", &line.b64conn_info)?.into(),
        chan_info: info("publisher.b64chan_info", &line.b64chan_info)?.into(),
    }))
}

fn origin(tenant: TenantId<'_>, line: &First<'_>) -> Result<Box<Origin>, String> {
    let epoch = <[u8; 8]>::try_from(line.epoch.as_bytes());
    Ok(Box::new(Origin {
        channel: ChannelName::of(tenant, &line.channel),
        position: StreamPosition {
            epoch: Epoch(epoch.map_err(|_| "origin.epoch: eight characters are expected")?),
            offset: Offset(line.offset),
        },
    }))
}
