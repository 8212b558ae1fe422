//! Replays: parts of the log read again, a page for each question, so that whoever asks sets the pace and goes on after a break.
//!
//! The cursor of a page holds everything that the next one needs: the replay's own number, where it goes on and where it
//! ends. The end is fixed by the first page, so that a channel can be replayed into itself.

use std::cell::{Cell, RefCell};
use std::sync::Arc;

use bytes::Bytes;
use serde::de::{Error as _, MapAccess};
use serde_json::value::RawValue;

use super::dead::{into_queue, once_more};
use super::encode;
use super::settings::is_own;
use super::{Outlet, Scoped, asked, bad_request, not_found, scope};
use crate::config::namespace::{is_of_letters, is_queue};
use crate::limits::{
    REPLAY_CHANNELS_MAX, REPLAY_LOOKED_AT_MAX, REPLAY_PAGE_BYTES_MAX, REPLAY_PAGE_MAX,
    REPLAY_UNJUDGED_TOLD_MAX,
};
use crate::mesh::durable::{Ask, LogError, Read};
use crate::model::{ChannelName, Entry, EventId, TenantId};
use crate::upstream::log::{Entries, Scan, Scanned};
use crate::wire::condition::Condition;
use crate::wire::json::write::{Members, string};
use crate::wire::json::{Value, fields, object, value};

/// Events that are written, or compared with a condition, before others have the thread.
const SLICE: usize = 128;
/// Publications that are stored once more together.
const STORED_AT_ONCE: usize = 1024;
/// A page that is asked for again within this time stores nothing twice.
const KEY_TTL: std::time::Duration = std::time::Duration::from_hours(24);

#[derive(Debug, Default)]
struct Asked {
    channels: Vec<Box<str>>,
    from: Option<At>,
    to: Option<At>,
    condition: Option<Box<str>>,
    into: Option<Into>,
    limit: Option<usize>,
    bytes: Option<usize>,
}
impl Scoped for Asked {
    fn scope(&mut self, tenant: TenantId<'_>) {
        scope(tenant, &mut self.channels);
        scope(
            tenant,
            self.into.iter_mut().map(|into| match into {
                Into::Channel(name) | Into::Group(name) => name,
            }),
        );
    }
}
fields!(@Own Asked {
    "channels" => channels,
    "from" => from,
    "to" => to,
    "where" => condition,
    "into" => into,
    "limit" => limit,
    "bytes" => bytes,
});

#[derive(Debug)]
enum At {
    Word(Box<str>),
    Place(Place),
}

impl<'de> Value<'de> for Option<At> {
    fn read<A: MapAccess<'de>>(map: &mut A) -> Result<Self, A::Error> {
        let Some(raw) = value::<Option<&'de RawValue>, A>(map)? else {
            return Ok(None);
        };
        if let Ok(word) = serde_json::from_str::<Box<str>>(raw.get()) {
            return Ok(Some(At::Word(word)));
        }
        let place = object::<Place>(raw.get().as_bytes());
        let place = place.map_err(|error| A::Error::custom(error.as_part()))?;
        Ok(Some(At::Place(place)))
    }
}

#[derive(Debug, Default)]
struct Place {
    /// Unix milliseconds.
    time: Option<u64>,
    offset: Option<u64>,
    cursor: Option<Box<str>>,
    /// The end moves along: to what is there now.
    follow: Option<bool>,
}
fields!(@Own Place { "time" => time, "offset" => offset, "cursor" => cursor, "follow" => follow });

#[derive(Debug)]
enum Into {
    Channel(Box<str>),
    Group(Box<str>),
}

#[derive(Default)]
struct IntoFields {
    channel: Option<Box<str>>,
    group: Option<Box<str>>,
}
fields!(@Own IntoFields { "channel" => channel, "group" => group });

impl<'de> Value<'de> for Option<Into> {
    fn read<A: MapAccess<'de>>(map: &mut A) -> Result<Self, A::Error> {
        let Some(into) = value::<Option<IntoFields>, A>(map)? else {
            return Ok(None);
        };
        match (into.channel, into.group) {
            (Some(channel), None) => Ok(Some(Into::Channel(channel))),
            (None, Some(group)) => Ok(Some(Into::Group(group))),
            _ => Err(A::Error::custom(
                ": expected either `channel` or `group` in it",
            )),
        }
    }
}

/// Where a replay stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cursor {
    /// Which replay: what it stores once more is told apart from what another one does.
    id: u64,
    after: u64,
    /// Nothing behind it.
    until: u64,
}

impl Cursor {
    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('-');
        let mut number = || u64::from_str_radix(parts.next()?, 16).ok();
        let cursor = Self {
            id: number()?,
            after: number()?,
            until: number()?,
        };
        parts.next().is_none().then_some(cursor)
    }

    fn text(self) -> String {
        format!("{:x}-{:x}-{:x}", self.id, self.after, self.until)
    }
}

/// What a replay may be put into.
pub(super) struct Targets<G, D, R> {
    /// Why there is no such group, if there is none.
    pub absent: G,
    /// There is such a channel, and its publications are kept.
    pub is_durable: D,
    /// What is read may be there.
    pub reach: R,
}

impl<G, D, R> Targets<G, D, R>
where
    G: Fn(&str) -> Option<LogError>,
    D: Fn(&str) -> bool,
    R: Fn(&[Box<str>]) -> Result<(), LogError>,
{
    fn check(&self, channels: &[Box<str>], into: Option<&Into>) -> Result<(), LogError> {
        let kept: Vec<Box<str>> = channels
            .iter()
            .filter(|channel| !is_queue(channel))
            .cloned()
            .collect();
        (self.reach)(&kept)?;
        match into {
            Some(Into::Group(group)) if let Some(error) = (self.absent)(group) => Err(error),
            Some(Into::Channel(name)) if is_own(name) || !(self.is_durable)(name) => Err(
                bad_request("`into.channel` is a channel of a durable namespace"),
            ),
            Some(Into::Group(_) | Into::Channel(_)) | None => Ok(()),
        }
    }
}

/// One page.
pub(super) async fn page<L: Entries, O: Outlet>(
    log: &L,
    outlet: &O,
    ask: &Ask,
    random: u64,
    targets: Targets<
        impl Fn(&str) -> Option<LogError>,
        impl Fn(&str) -> bool,
        impl Fn(&[Box<str>]) -> Result<(), LogError>,
    >,
) -> Result<Bytes, LogError> {
    let asked: Asked = asked(ask)?;
    if asked.channels.is_empty() || asked.channels.len() > REPLAY_CHANNELS_MAX {
        return Err(bad_request("`channels` is 1 to 64 names or patterns"));
    }
    targets.check(&asked.channels, asked.into.as_ref())?;
    let condition = asked
        .condition
        .as_deref()
        .map(Condition::parse)
        .transpose()
        .map_err(|error| bad_request(&format!("`where`: {error}")))?;
    let cursor = begin(log, &asked, random).await?;
    let scanned = scan(log, &asked, cursor).await?;
    let looked_at = scanned.entries.len();
    let next = Cursor {
        after: scanned.next.min(cursor.until),
        ..cursor
    };
    let done = scanned.at_end || next.after >= cursor.until;
    let mut channels = asked.channels.iter();
    let with_queues = channels.any(|channel| is_queue(channel));
    let mut channels = asked.channels.iter();
    let with_letters = channels.any(|channel| is_of_letters(channel));
    let unjudged = Unjudged::default();
    let is_meant = |entry: &Entry| {
        let channel = entry.record.channel.whole();
        entry.cursor <= cursor.until
            && asked
                .channels
                .iter()
                .any(|wanted| TenantId::of(wanted) == entry.record.channel.tenant())
            && (with_queues || !is_queue(channel))
            && (with_letters || !is_of_letters(channel))
            && condition.as_ref().is_none_or(|condition| {
                let fits = condition.matches(&entry.record.data);
                fits.unwrap_or_else(|_unreadable| unjudged.add(entry))
            })
    };
    let mut out = Vec::new();
    let mut members = Members::open(&mut out);
    match &asked.into {
        None => tell(&mut members, &scanned.entries, is_meant).await,
        Some(into) => {
            let mut events = Vec::new();
            for slice in scanned.entries.chunks(SLICE) {
                events.extend(slice.iter().filter(|entry| is_meant(entry)));
                tokio::task::yield_now().await;
            }
            put(&mut members, outlet, into, cursor, &events).await?;
        }
    }
    members.text("next", &next.text());
    members.boolean("done", done);
    members.number("looked_at", looked_at);
    unjudged.tell(&mut members);
    members.close();
    Ok(Bytes::from(out))
}

/// Events of which nobody can say whether they fit the condition: they are left out, and the page says so.
#[derive(Default)]
struct Unjudged {
    count: Cell<u64>,
    first: RefCell<Vec<EventId>>,
}

impl Unjudged {
    /// One more. It does not count as fitting.
    fn add(&self, entry: &Entry) -> bool {
        self.count.set(self.count.get() + 1);
        let mut first = self.first.borrow_mut();
        if first.len() < REPLAY_UNJUDGED_TOLD_MAX {
            first.push(entry.record.event);
        }
        false
    }

    fn tell(&self, members: &mut Members<'_>) {
        if self.count.get() == 0 {
            return;
        }
        members.number("unreadable", self.count.get());
        let mut events = members.items("unreadable_events");
        for event in self.first.borrow().iter() {
            string(events.item(), &event.to_string());
        }
    }
}

/// The entries of a page, those that are not meant included.
async fn scan<L: Entries>(log: &L, asked: &Asked, cursor: Cursor) -> Result<Scanned, LogError> {
    let is_over = cursor.after >= cursor.until;
    // Of no events: where the replay begins, so that its first page can be asked for twice, too.
    if is_over || asked.limit == Some(0) {
        return Ok(Scanned {
            entries: Vec::new(),
            next: cursor.after,
            at_end: is_over,
        });
    }
    let scan = Scan {
        after: cursor.after,
        channels: asked.channels.clone(),
        limit: asked
            .limit
            .unwrap_or(REPLAY_PAGE_MAX)
            .clamp(1, REPLAY_PAGE_MAX),
        bytes: asked
            .bytes
            .unwrap_or(REPLAY_PAGE_BYTES_MAX / 2)
            .clamp(1, REPLAY_PAGE_BYTES_MAX),
        looked_at: REPLAY_LOOKED_AT_MAX,
    };
    log.scan(&scan).await
}

/// Writes events; others have the thread in between.
async fn tell(
    members: &mut Members<'_>,
    entries: &[Arc<Entry>],
    is_meant: impl Fn(&Entry) -> bool,
) {
    let mut events = members.items("events");
    for slice in entries.chunks(SLICE) {
        for entry in slice.iter().filter(|entry| is_meant(entry)) {
            encode::entry(&mut Members::open(events.item()), entry, true);
        }
        tokio::task::yield_now().await;
    }
}

/// Stores events once more. What the target refuses is counted, and does not hold up what follows.
async fn put<O: Outlet>(
    members: &mut Members<'_>,
    outlet: &O,
    into: &Into,
    cursor: Cursor,
    events: &[&Arc<Entry>],
) -> Result<(), LogError> {
    let (mut stored, mut refused, mut reason) = (0u64, 0u64, None);
    for events in events.chunks(STORED_AT_ONCE) {
        let drafts = events.iter().map(|entry| {
            let key = format!("replay/{:x}/{}", cursor.id, entry.record.event).into();
            match into {
                Into::Channel(name) => {
                    once_more(entry, ChannelName::from_whole(name), key, KEY_TTL)
                }
                Into::Group(group) => into_queue(group, entry, key, KEY_TTL),
            }
        });
        for result in outlet.append(drafts.collect()).await {
            match result {
                Ok(appended) => stored += u64::from(appended.is_new),
                Err(error) if error.retry_after().is_none() => {
                    refused += 1;
                    reason.get_or_insert(error);
                }
                Err(error) => return Err(error),
            }
        }
    }
    members.number("matched", events.len());
    members.number("stored", stored);
    if let Some(reason) = reason {
        members.number("refused", refused);
        members.text("reason", &reason.to_string());
    }
    Ok(())
}

/// Where this page starts and where the replay ends.
async fn begin<L: Entries>(log: &L, asked: &Asked, random: u64) -> Result<Cursor, LogError> {
    let end = log.status().end;
    let after = match &asked.from {
        None => 0,
        Some(At::Word(word)) if &**word == "beginning" => 0,
        Some(At::Word(_)) => {
            return Err(bad_request(
                "`from` is \"beginning\" or has `time` (Unix milliseconds), `offset` or `cursor`",
            ));
        }
        Some(At::Place(Place {
            cursor: Some(text),
            follow,
            ..
        })) => {
            let mut cursor =
                Cursor::parse(text).ok_or_else(|| bad_request("`cursor` is what `next` was"))?;
            if *follow == Some(true) {
                cursor.until = cursor.until.max(end);
            }
            return Ok(cursor);
        }
        Some(At::Place(place)) => before(log, asked, place, false).await?,
    };
    let until = match &asked.to {
        None => end,
        Some(At::Word(word)) if &**word == "now" => end,
        Some(At::Word(_)) => {
            return Err(bad_request(
                "`to` is \"now\" or has `time` (Unix milliseconds) or `offset`",
            ));
        }
        Some(At::Place(place)) => before(log, asked, place, true).await?.min(end),
    };
    Ok(Cursor {
        id: random,
        after,
        until,
    })
}

/// The cursor before a place; with an offset, up to and with it where the place is an end.
async fn before<L: Entries>(
    log: &L,
    asked: &Asked,
    place: &Place,
    is_end: bool,
) -> Result<u64, LogError> {
    if let Some(time) = place.time {
        return Ok(log.seek(time).await?.saturating_sub(1));
    }
    let offset = place
        .offset
        .ok_or_else(|| bad_request("a place has `time` (Unix milliseconds) or `offset`"))?;
    let [channel] = &asked.channels[..] else {
        return Err(bad_request("an offset needs exactly one channel"));
    };
    if channel.contains('*') {
        return Err(bad_request(
            "an offset needs the name of a channel, not a pattern",
        ));
    }
    let read = Read {
        channel: ChannelName::from_whole(channel),
        after: Some(offset.saturating_sub(1)),
        limit: 1,
        bytes: 1,
    };
    let slice = log.read(&read).await?;
    match slice.entries.first() {
        Some(entry) if is_end && entry.position.offset.0 == offset => Ok(entry.cursor),
        Some(entry) => Ok(entry.cursor.saturating_sub(1)),
        None if is_end => Ok(log.status().end),
        None => Err(not_found("the channel has nothing at this offset or later")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn null_parameters_are_absent_ones_and_unknown_ones_are_named() {
        use crate::wire::json::null;
        let sample = serde_json::json!({
            "channels": ["a"], "from": { "time": 1, "offset": 2, "cursor": "c", "follow": true }, "to": { "time": 1, "offset": 2, "cursor": "c" },
            "where": "n = 1", "into": { "channel": "c", "group": "g" }, "limit": 1, "bytes": 2,
        });
        null::covers(&sample, &null::names::<Asked>());
        null::covers(&sample["from"], &null::names::<Place>());
        null::covers(&sample["into"], &null::names::<IntoFields>());
        let mut one = sample;
        for into in ["channel", "group"] {
            null::same(&one, &[], |text| {
                format!("{:?}", object::<Asked>(text.as_bytes()))
            });
            one["into"] = serde_json::json!({ into: "x" });
        }
        for (text, wanted) in [
            (
                r#"{"cursor":"x"}"#,
                "cursor: unknown, known are channels, from, to, where, into, limit, bytes",
            ),
            (
                r#"{"from":{"cursos":"x"}}"#,
                "from.cursos: unknown, did you mean `cursor`?",
            ),
            (r#"{"from":5}"#, "from: expected an object"),
            (
                r#"{"from":{"time":"x"}}"#,
                "from.time: expected a whole number from 0",
            ),
            (
                r#"{"into":{}}"#,
                "into: expected either `channel` or `group` in it",
            ),
            (
                r#"{"into":{"queue":"x"}}"#,
                "into.queue: unknown, known are channel, group",
            ),
        ] {
            let error = object::<Asked>(text.as_bytes()).expect_err(text);
            assert_eq!(error.to_string(), wanted, "{text}");
        }
    }

    #[test]
    fn cursor_comes_back_as_it_was() {
        let cursor = Cursor {
            id: u64::MAX,
            after: 0,
            until: 77,
        };
        assert_eq!(Cursor::parse(&cursor.text()), Some(cursor));
        for text in ["", "1", "1-2", "1-2-3-4", "x-1-2", "1--2"] {
            assert_eq!(Cursor::parse(text), None, "{text}");
        }
    }
}
