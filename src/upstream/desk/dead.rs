//! Dead letters: what became of publications whose attempts were used up, and their second life.

mod filter;

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::de::MapAccess;
use serde_json::value::RawValue;

use super::encode;
use super::settings::is_own;
use super::{Inner, Outlet, Scoped, asked, bad_request, not_found, own, scope};
use crate::config::namespace::queue_of;
use crate::limits::{LETTERS_LOOKED_AT_MAX, LETTERS_PAGE_MAX, LETTERS_PER_ASK_MAX};
use crate::mesh::durable::{Ask, LogError};
use crate::model::{ChannelName, Draft, EventId, Origin, Record, TenantId, Terms};
use crate::upstream::log::{DeadLetter, Letters};
use crate::wire::json::write::{Members, string};
use crate::wire::json::{Value, fields, value};

use filter::Filter;

/// Letters that are retried together.
const TOGETHER: usize = 256;
/// A retry that was interrupted and is asked for again within this time stores nothing twice.
const KEY_TTL: std::time::Duration = std::time::Duration::from_hours(1);

#[derive(Debug, Default)]
struct Asked {
    group: Option<Box<str>>,
    event_id: Option<Box<str>>,
    all: bool,
    after: Option<Box<str>>,
    limit: Option<usize>,
    reason: Option<Box<str>>,
    class: Option<Box<str>>,
    channel: Option<Box<str>>,
    key: Option<Box<str>>,
    from: Option<u64>,
    to: Option<u64>,
    data: Option<Payload>,
    b64data: Option<Box<str>>,
    to_channel: Option<Box<str>>,
    to_group: Option<Box<str>>,
    /// Whose letters are meant.
    tenant: Box<str>,
}
impl Scoped for Asked {
    fn scope(&mut self, tenant: TenantId<'_>) {
        let groups = [&mut self.group, &mut self.to_group];
        scope(tenant, groups.into_iter().flatten());
        let channels = [&mut self.channel, &mut self.to_channel];
        scope(tenant, channels.into_iter().flatten());
        // It begins with a group.
        scope(
            tenant,
            self.after.iter_mut().filter(|after| !after.is_empty()),
        );
        self.tenant = tenant.as_str().into();
    }
}
fields!(@Own Asked {
    "group" => group, "event_id" => event_id, "all" => all, "after" => after, "limit" => limit,
    "reason" => reason, "class" => class, "channel" => channel, "key" => key, "from" => from, "to" => to,
    "data" => data, "b64data" => b64data, "to_channel" => to_channel, "to_group" => to_group
});

/// JSON as it was written.
#[derive(Debug)]
struct Payload(Bytes);

impl<'de> Value<'de> for Option<Payload> {
    fn read<A: MapAccess<'de>>(map: &mut A) -> Result<Self, A::Error> {
        let raw = value::<Option<&'de RawValue>, A>(map)?;
        Ok(raw.map(|raw| Payload(Bytes::copy_from_slice(raw.get().as_bytes()))))
    }
}

/// Parameters that say which letters are meant.
const FILTERS: [&str; 6] = ["reason", "class", "channel", "key", "from", "to"];

impl Asked {
    /// Names of the parameters that are there.
    fn given(&self) -> impl Iterator<Item = &'static str> {
        [
            ("group", self.group.is_some()),
            ("event_id", self.event_id.is_some()),
            ("all", self.all),
            ("after", self.after.is_some()),
            ("limit", self.limit.is_some()),
            ("reason", self.reason.is_some()),
            ("class", self.class.is_some()),
            ("channel", self.channel.is_some()),
            ("key", self.key.is_some()),
            ("from", self.from.is_some()),
            ("to", self.to.is_some()),
            ("data", self.data.is_some()),
            ("b64data", self.b64data.is_some()),
            ("to_channel", self.to_channel.is_some()),
            ("to_group", self.to_group.is_some()),
        ]
        .into_iter()
        .filter_map(|(name, is_given)| is_given.then_some(name))
    }

    /// Only these, and the filters, mean something here.
    fn only(&self, known: &[&str]) -> Result<(), LogError> {
        let mut given = self.given();
        match given.find(|name| !known.contains(name) && !FILTERS.contains(name)) {
            Some(name) => Err(bad_request(&format!("`{name}` means nothing here"))),
            None => Ok(()),
        }
    }

    fn filter(&self) -> Result<Filter, LogError> {
        Ok(Filter {
            tenant: self.tenant.clone(),
            reason: self.reason.clone(),
            class: self.class.as_deref().map(filter::class).transpose()?,
            channel: self.channel.clone(),
            key: self.key.clone(),
            from: self.from,
            to: self.to,
        })
    }

    /// The one letter that is meant.
    fn one(&self) -> Result<(&str, EventId), LogError> {
        let group = self
            .group
            .as_deref()
            .ok_or_else(|| bad_request("`group` is missing"))?;
        let event = self
            .event_id
            .as_deref()
            .ok_or_else(|| bad_request("`event_id` is missing; `all: true` means every one"))?;
        let event =
            EventId::parse(event).ok_or_else(|| bad_request("`event_id` is not an event id"))?;
        Ok((group, event))
    }

    /// Either one letter is meant, or all that fit.
    fn check_meant(&self) -> Result<(), LogError> {
        if self.all && self.event_id.is_some() {
            return Err(bad_request("either `event_id` or `all` says what is meant"));
        }
        let mut filters = self.given().filter(|name| FILTERS.contains(name));
        match filters.next() {
            Some(name) if !self.all => Err(bad_request(&format!("`{name}` goes with `all: true`"))),
            Some(_) | None => Ok(()),
        }
    }

    /// What is meant, for the log of the process.
    fn names(&self) -> (&str, &str) {
        let group = self.group.as_deref().unwrap_or("all");
        (group, self.event_id.as_deref().unwrap_or("all"))
    }

    /// Where the page begins: behind `group/event`.
    fn after(&self) -> Result<Option<Place>, LogError> {
        let Some(after) = self.after.as_deref().filter(|after| !after.is_empty()) else {
            return Ok(None);
        };
        let wrong = || bad_request("`after` is what `next` was");
        let (group, event) = after.rsplit_once('/').ok_or_else(wrong)?;
        let event = EventId::parse(event).ok_or_else(wrong)?;
        Ok(Some((group.into(), event)))
    }

    /// The payload that the letter gets.
    fn edit(&self) -> Result<Option<(Bytes, bool)>, LogError> {
        let edit = match (&self.data, &self.b64data) {
            (None, None) => return Ok(None),
            (Some(_), Some(_)) => {
                return Err(bad_request("either `data` or `b64data` is the new payload"));
            }
            (Some(data), None) => (data.0.clone(), true),
            (None, Some(text)) => {
                let data = STANDARD.decode(&**text);
                let data = data.map_err(|_| bad_request("`b64data` is not Base64"))?;
                (data.into(), false)
            }
        };
        match self.all {
            true => Err(bad_request(
                "a new payload is for one letter: name its `event_id`",
            )),
            false => Ok(Some(edit)),
        }
    }
}

/// Where a letter stands among all of them.
type Place = (Box<str>, EventId);

/// Where letters go that are tried again.
enum Target<'a> {
    /// The queue of their own group.
    Own,
    /// The queue of another one.
    Group(&'a str),
    /// A channel.
    Channel(&'a str),
}

/// What is known of a letter before it is read again: enough for the order in which letters go.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Meant {
    group: Box<str>,
    channel: ChannelName,
    offset: u64,
    event: EventId,
}

/// What came of a retry.
#[derive(Default)]
struct Retried {
    retried: usize,
    /// Letters whose group is not there.
    skipped: usize,
    absent: BTreeSet<Box<str>>,
    /// Letters that the target does not take, and why the first one is not.
    refused: usize,
    reason: Option<LogError>,
}

impl Retried {
    fn json(&self) -> Bytes {
        let mut out = Vec::new();
        let mut members = Members::open(&mut out);
        members.number("retried", self.retried);
        if self.skipped > 0 {
            members.number("skipped", self.skipped);
            members.array("absent_groups", &self.absent, |out, group| {
                string(out, own(group));
            });
        }
        if let Some(reason) = &self.reason {
            members.number("refused", self.refused);
            members.text("reason", &reason.to_string());
        }
        members.close();
        out.into()
    }
}

impl<L: Letters, O: Outlet> Inner<L, O> {
    /// Is a group there whose letters are asked for, if one is named? One without letters is a group that there is.
    fn check_group(&self, asked: &Asked) -> Result<(), LogError> {
        match asked.group.as_deref() {
            Some(group) if !self.has_group(group) => Err(self.absent(group)),
            Some(_) | None => Ok(()),
        }
    }

    fn has_group(&self, name: &str) -> bool {
        self.by_name.borrow().contains_key(name)
    }

    /// The next letters that are meant, at most `limit`, and where to go on; `None` behind the last one.
    async fn next_letters(
        &self,
        group: Option<&str>,
        filter: &Filter,
        mut place: Option<Place>,
        limit: usize,
    ) -> Result<(Vec<DeadLetter>, Option<Place>), LogError> {
        let mut found = Vec::new();
        let mut looked_at = 0;
        while looked_at < LETTERS_LOOKED_AT_MAX {
            let part = match filter.is_empty() {
                true => limit - found.len(),
                false => LETTERS_PAGE_MAX,
            };
            let after = place.as_ref().map(|(group, event)| (&**group, *event));
            let letters = self.log.dead_letters(group, after, part).await?;
            let is_last = letters.len() < part;
            for letter in letters {
                looked_at += 1;
                place = Some((letter.group.clone(), letter.entry.record.event));
                if filter.fits(&letter) {
                    found.push(letter);
                    if found.len() == limit {
                        return Ok((found, place));
                    }
                }
            }
            if is_last {
                return Ok((found, None));
            }
            tokio::task::yield_now().await;
        }
        Ok((found, place))
    }

    /// A page of letters.
    pub(super) async fn list_letters(&self, ask: &Ask) -> Result<Bytes, LogError> {
        let asked = asked::<Asked>(ask)?;
        asked.only(&["group", "after", "limit"])?;
        let limit = asked.limit.unwrap_or(100).clamp(1, LETTERS_PAGE_MAX);
        let (filter, after) = (asked.filter()?, asked.after()?);
        let is_first = after.is_none();
        let group = asked.group.as_deref();
        let (letters, next) = self.next_letters(group, &filter, after, limit).await?;
        if letters.is_empty() && is_first && next.is_none() && filter.is_empty() {
            self.check_group(&asked)?;
        }
        let mut out = Vec::new();
        let mut members = Members::open(&mut out);
        members.array("letters", &letters, |out, letter| {
            encode::letter(out, letter, false);
        });
        if let Some((group, event)) = next {
            members.text("next", &format!("{}/{event}", own(&group)));
        }
        if is_first {
            let census = self.log.census();
            let tenant = TenantId::new(&asked.tenant);
            let of = |name: &str| match group {
                Some(group) => *group == *name,
                None => TenantId::of(name) == tenant,
            };
            let counts = census.counts.iter().filter(|((name, _), _)| of(name));
            members.array("counts", counts, |out, ((group, cause), letters)| {
                let mut members = Members::open(out);
                members.text("group", own(group));
                members.text("class", cause.name());
                members.number("letters", *letters);
                members.close();
            });
        }
        members.close();
        Ok(Bytes::from(out))
    }

    /// One letter with everything.
    pub(super) async fn show_letter(&self, ask: &Ask) -> Result<Bytes, LogError> {
        let asked = asked::<Asked>(ask)?;
        asked.only(&["group", "event_id"])?;
        asked.check_meant()?;
        let (group, event) = asked.one()?;
        let letter = self.log.dead_letter(group, event).await?;
        let letter = letter.ok_or_else(|| not_found("there is no such dead letter"))?;
        let mut out = Vec::new();
        encode::letter(&mut out, &letter, true);
        Ok(Bytes::from(out))
    }

    /// Puts letters into the queues of their groups, or elsewhere, then forgets them. Interrupted in between, a letter may live twice
    /// for a moment: whoever asks again stores nothing new.
    pub(super) async fn retry_letters(&self, ask: &Ask) -> Result<Bytes, LogError> {
        let asked = asked::<Asked>(ask)?;
        asked.only(&[
            "group",
            "event_id",
            "all",
            "data",
            "b64data",
            "to_channel",
            "to_group",
        ])?;
        asked.check_meant()?;
        let mut done = Retried::default();
        let outcome = self.retry_meant(&asked, &mut done).await;
        if done.retried > 0 {
            let (group, event) = asked.names();
            let (to_group, to_channel) = (asked.to_group.as_deref(), asked.to_channel.as_deref());
            tracing::info!(
                group,
                event,
                retried = done.retried,
                to_group,
                to_channel,
                "dead letters are given back"
            );
        }
        outcome.map(|()| done.json())
    }

    async fn retry_meant(&self, asked: &Asked, done: &mut Retried) -> Result<(), LogError> {
        let target = self.target(asked)?;
        let edit = asked.edit()?;
        let mut meant = self.meant(asked).await?;
        if let Target::Own = target {
            if let (Some(group), false) = (asked.group.as_deref(), meant.is_empty())
                && !self.has_group(group)
            {
                let text = format!(
                    "{}; its letters may go elsewhere with `to_group` or `to_channel`",
                    self.absent(group)
                );
                return Err(not_found(&text));
            }
            meant.retain(|one| {
                let is_there = self.has_group(&one.group);
                if !is_there {
                    done.skipped += 1;
                    done.absent.insert(one.group.clone());
                }
                is_there
            });
        }
        // An ordered group gets what it had of a channel in the order of that channel.
        meant.sort_unstable();
        for part in meant.chunks(TOGETHER) {
            let mut letters = Vec::with_capacity(part.len());
            for one in part {
                letters.extend(self.log.dead_letter(&one.group, one.event).await?);
            }
            let mut drafts = Vec::with_capacity(letters.len());
            for letter in &letters {
                drafts.push(self.again(letter, &target, edit.as_ref())?);
            }
            let results = self.outlet.append(drafts).await;
            for (letter, result) in letters.iter().zip(results) {
                match result {
                    Ok(_) => {
                        let event = letter.entry.record.event;
                        self.log.exhume(&letter.group, event).await?;
                        done.retried += 1;
                    }
                    // The others are not concerned.
                    Err(error) if error.retry_after().is_none() && asked.all => {
                        done.refused += 1;
                        done.reason.get_or_insert(error);
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }

    /// The letters that a question means.
    async fn meant(&self, asked: &Asked) -> Result<Vec<Meant>, LogError> {
        let of = |letter: &DeadLetter| {
            let (channel, position) = letter.entry.shown_at();
            Meant {
                group: letter.group.clone(),
                channel: channel.clone(),
                offset: position.offset.0,
                event: letter.entry.record.event,
            }
        };
        if !asked.all {
            let (group, event) = asked.one()?;
            let letter = self.log.dead_letter(group, event).await?;
            let letter = letter.ok_or_else(|| not_found("there is no such dead letter"))?;
            return Ok(vec![of(&letter)]);
        }
        let (group, filter) = (asked.group.as_deref(), asked.filter()?);
        let (mut meant, mut place) = (Vec::new(), None);
        while meant.len() < LETTERS_PER_ASK_MAX {
            let (letters, next) = self
                .next_letters(group, &filter, place, LETTERS_PAGE_MAX)
                .await?;
            meant.extend(letters.iter().map(of));
            place = next;
            if place.is_none() {
                break;
            }
        }
        if meant.is_empty() && filter.is_empty() {
            self.check_group(asked)?;
        }
        Ok(meant)
    }

    /// Where letters are to go.
    fn target<'a>(&self, asked: &'a Asked) -> Result<Target<'a>, LogError> {
        match (asked.to_group.as_deref(), asked.to_channel.as_deref()) {
            (None, None) => Ok(Target::Own),
            (Some(_), Some(_)) => Err(bad_request(
                "either `to_group` or `to_channel` says where letters go",
            )),
            (Some(group), None) if self.has_group(group) => Ok(Target::Group(group)),
            (Some(group), None) => Err(self.absent(group)),
            (None, Some(channel)) => {
                let config = self.config.borrow();
                let namespace = config.channels.resolve_whole_named_by_server(channel);
                let is_durable = namespace.is_ok_and(|namespace| namespace.is_durable());
                match is_durable && !is_own(channel) {
                    true => Ok(Target::Channel(channel)),
                    false => Err(bad_request(
                        "`to_channel` is a channel of a durable namespace",
                    )),
                }
            }
        }
    }

    /// A letter on its way once more.
    fn again(
        &self,
        letter: &DeadLetter,
        target: &Target<'_>,
        edit: Option<&(Bytes, bool)>,
    ) -> Result<Draft, LogError> {
        let mut entry = (*letter.entry).clone();
        let mut key = format!("retry/{}/{}", entry.record.event, letter.unix_ms);
        if let Some((data, json)) = edit {
            let config = self.config.borrow();
            let channel = entry.shown_at().0.whole();
            if let Ok(namespace) = config.channels.resolve_whole(channel)
                && let Err(unfit) = config.check_payload(namespace, data, *json)
            {
                return Err(bad_request(&format!("data: {unfit}")));
            }
            // Another payload is another publication: an interrupted retry without it does not stand in its way.
            key.push_str(&format!("/{:08x}", crc32fast::hash(data)));
            (entry.record.data, entry.record.json) = (data.clone(), *json);
        }
        let key: Box<str> = key.into();
        Ok(match target {
            Target::Own => into_queue(&letter.group, &entry, key, KEY_TTL),
            Target::Group(group) => into_queue(group, &entry, key, KEY_TTL),
            Target::Channel(name) => once_more(&entry, ChannelName::from_whole(name), key, KEY_TTL),
        })
    }

    /// Forgets letters.
    pub(super) async fn drop_letters(&self, ask: &Ask) -> Result<Bytes, LogError> {
        let asked = asked::<Asked>(ask)?;
        asked.only(&["group", "event_id", "all"])?;
        asked.check_meant()?;
        let mut dropped = 0;
        let outcome = self.drop_meant(&asked, &mut dropped).await;
        if dropped > 0 {
            let (group, event) = asked.names();
            tracing::info!(group, event, dropped, "dead letters are dropped");
        }
        outcome.map(|()| {
            let mut out = Vec::new();
            Members::open(&mut out).number("dropped", dropped);
            out.into()
        })
    }

    async fn drop_meant(&self, asked: &Asked, dropped: &mut usize) -> Result<(), LogError> {
        for one in self.meant(asked).await? {
            *dropped += usize::from(self.log.exhume(&one.group, one.event).await?);
        }
        Ok(())
    }
}

/// An entry for the queue of one group.
#[must_use]
pub fn into_queue(
    group: &str,
    entry: &crate::model::Entry,
    key: Box<str>,
    key_ttl: std::time::Duration,
) -> Draft {
    let channel = ChannelName::from_whole(&queue_of(group));
    once_more(entry, channel, key, key_ttl)
}

/// An entry for another channel: it stays the same event, and says where it stood first.
pub(super) fn once_more(
    entry: &crate::model::Entry,
    channel: ChannelName,
    key: Box<str>,
    key_ttl: std::time::Duration,
) -> Draft {
    let origin = entry.record.origin.clone().unwrap_or_else(|| {
        Box::new(Origin {
            channel: entry.record.channel.clone(),
            position: entry.position,
        })
    });
    let record = Record {
        channel,
        key,
        origin: Some(origin),
        // Whoever wants it once more wants it now.
        ttl_ms: 0,
        ..entry.record.clone()
    };
    Draft::of(Terms::log(key_ttl), record)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::json::{null, object};

    #[test]
    fn null_parameters_are_absent_ones_and_unknown_ones_are_named() {
        let sample = serde_json::json!({
            "group": "g", "event_id": "e", "all": true, "after": "a", "limit": 5, "reason": "r", "class": "failed",
            "channel": "c", "key": "k", "from": 1, "to": 2, "data": { "n": 1 }, "b64data": "AA==", "to_channel": "c",
            "to_group": "h",
        });
        null::covers(&sample, &null::names::<Asked>());
        null::same(&sample, &["data"], |text| {
            format!("{:?}", object::<Asked>(text.as_bytes()))
        });
        let error = super::super::parameters::<Asked>(br#"{"event":"e"}"#).expect_err("unknown");
        assert!(error.to_string().starts_with("event: unknown"), "{error}");
        let all = object::<Asked>(sample.to_string().as_bytes()).expect("a question");
        assert_eq!(all.given().count(), null::names::<Asked>().len());
    }
}
