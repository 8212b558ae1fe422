//! Dead letters: what became of publications whose attempts were used up, and their second life.

use bytes::Bytes;

use super::encode;
use super::settings::QUEUE_PREFIX;
use super::{Outlet, asked, bad_request, not_found};
use crate::limits::{LETTERS_PAGE_MAX, LETTERS_PER_ASK_MAX};
use crate::mesh::durable::LogError;
use crate::model::{ChannelName, Draft, EventId, Origin, Record, Terms};
use crate::upstream::log::{DeadLetter, Letters};
use crate::wire::json::fields;
use crate::wire::json::write::Members;

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
}
fields!(@Own Asked {
    "group" => group, "event_id" => event_id, "all" => all, "after" => after, "limit" => limit
});

impl Asked {
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

    /// What is meant, for the log of the process.
    fn names(&self) -> (&str, &str) {
        let group = self.group.as_deref().unwrap_or("all");
        (group, self.event_id.as_deref().unwrap_or("all"))
    }

    /// A group without letters is one that there is.
    fn check_group(&self, absent: impl Fn(&str) -> Option<LogError>) -> Result<(), LogError> {
        let absent = self.group.as_deref().and_then(absent);
        absent.map_or(Ok(()), Err)
    }

    /// Where the page begins: behind `group/event`.
    fn after(&self) -> Result<Option<(&str, EventId)>, LogError> {
        let Some(after) = self.after.as_deref().filter(|after| !after.is_empty()) else {
            return Ok(None);
        };
        let wrong = || bad_request("`after` is what `next` was");
        let (group, event) = after.rsplit_once('/').ok_or_else(wrong)?;
        Ok(Some((group, EventId::parse(event).ok_or_else(wrong)?)))
    }
}

/// A page of letters.
pub(super) async fn list<L: Letters>(
    log: &L,
    data: &[u8],
    absent: impl Fn(&str) -> Option<LogError>,
) -> Result<Bytes, LogError> {
    let asked = asked::<Asked>(data)?;
    let limit = asked.limit.unwrap_or(100).clamp(1, LETTERS_PAGE_MAX);
    let letters = log
        .dead_letters(asked.group.as_deref(), asked.after()?, limit)
        .await?;
    if letters.is_empty() && asked.after()?.is_none() {
        asked.check_group(&absent)?;
    }
    let mut out = Vec::new();
    let mut members = Members::open(&mut out);
    members.array("letters", &letters, |out, letter| {
        encode::letter(out, letter, false);
    });
    if let Some(last) = letters.last().filter(|_| letters.len() == limit) {
        let event = last.entry.record.event;
        members.text("next", &format!("{}/{event}", last.group));
    }
    members.close();
    Ok(Bytes::from(out))
}

/// One letter with everything.
pub(super) async fn show<L: Letters>(log: &L, data: &[u8]) -> Result<Bytes, LogError> {
    let asked = asked::<Asked>(data)?;
    let (group, event) = asked.one()?;
    let letter = log.dead_letter(group, event).await?;
    let letter = letter.ok_or_else(|| not_found("there is no such dead letter"))?;
    let mut out = Vec::new();
    encode::letter(&mut out, &letter, true);
    Ok(Bytes::from(out))
}

/// Letters that a question means, some at a time.
async fn some<L: Letters>(log: &L, asked: &Asked) -> Result<Vec<DeadLetter>, LogError> {
    if asked.all {
        return log
            .dead_letters(asked.group.as_deref(), None, TOGETHER)
            .await;
    }
    let (group, event) = asked.one()?;
    let letter = log.dead_letter(group, event).await?;
    Ok(vec![letter.ok_or_else(|| {
        not_found("there is no such dead letter")
    })?])
}

/// Puts letters into the queues of their groups, then forgets them. Interrupted in between, a letter may live twice for a moment:
/// whoever asks again stores nothing new.
pub(super) async fn retry<L: Letters, O: Outlet>(
    log: &L,
    outlet: &O,
    data: &[u8],
    absent: impl Fn(&str) -> Option<LogError>,
) -> Result<Bytes, LogError> {
    let asked = asked::<Asked>(data)?;
    let mut retried = 0;
    let outcome = retry_some(log, outlet, &asked, absent, &mut retried).await;
    if retried > 0 {
        let (group, event) = asked.names();
        tracing::info!(group, event, retried, "dead letters are given back");
    }
    outcome.map(|()| count("retried", retried))
}

async fn retry_some<L: Letters, O: Outlet>(
    log: &L,
    outlet: &O,
    asked: &Asked,
    absent: impl Fn(&str) -> Option<LogError>,
    retried: &mut usize,
) -> Result<(), LogError> {
    while *retried < LETTERS_PER_ASK_MAX {
        let letters = some(log, asked).await?;
        if letters.is_empty() {
            if *retried == 0 {
                asked.check_group(&absent)?;
            }
            break;
        }
        if let Some(error) = letters.iter().find_map(|letter| absent(&letter.group)) {
            return Err(error);
        }
        let drafts = letters.iter().map(again).collect();
        let results = outlet.append(drafts).await;
        for (letter, result) in letters.iter().zip(results) {
            result?;
            log.exhume(&letter.group, letter.entry.record.event).await?;
            *retried += 1;
        }
        if !asked.all {
            break;
        }
    }
    Ok(())
}

/// Forgets letters.
pub(super) async fn forget<L: Letters>(
    log: &L,
    data: &[u8],
    absent: impl Fn(&str) -> Option<LogError>,
) -> Result<Bytes, LogError> {
    let asked = asked::<Asked>(data)?;
    let mut dropped = 0;
    let outcome = forget_some(log, &asked, absent, &mut dropped).await;
    if dropped > 0 {
        let (group, event) = asked.names();
        tracing::info!(group, event, dropped, "dead letters are dropped");
    }
    outcome.map(|()| count("dropped", dropped))
}

async fn forget_some<L: Letters>(
    log: &L,
    asked: &Asked,
    absent: impl Fn(&str) -> Option<LogError>,
    dropped: &mut usize,
) -> Result<(), LogError> {
    while *dropped < LETTERS_PER_ASK_MAX {
        let letters = some(log, asked).await?;
        if letters.is_empty() {
            if *dropped == 0 {
                asked.check_group(&absent)?;
            }
            break;
        }
        for letter in &letters {
            log.exhume(&letter.group, letter.entry.record.event).await?;
            *dropped += 1;
        }
        if !asked.all {
            break;
        }
    }
    Ok(())
}

fn count(name: &str, count: usize) -> Bytes {
    let mut out = Vec::new();
    Members::open(&mut out).number(name, count);
    Bytes::from(out)
}

/// A letter on its way to its group once more.
fn again(letter: &DeadLetter) -> Draft {
    let record = &letter.entry.record;
    let key = format!("retry/{}/{}", record.event, letter.unix_ms);
    into_queue(&letter.group, &letter.entry, key.into(), KEY_TTL)
}

/// An entry for the queue of one group.
#[must_use]
pub fn into_queue(
    group: &str,
    entry: &crate::model::Entry,
    key: Box<str>,
    key_ttl: std::time::Duration,
) -> Draft {
    let channel = ChannelName::new(&format!("{QUEUE_PREFIX}{group}"));
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
            "group": "g", "event_id": "e", "all": true, "after": "a", "limit": 5,
        });
        null::covers(&sample, &null::names::<Asked>());
        null::same(&sample, &[], |text| {
            format!("{:?}", object::<Asked>(text.as_bytes()))
        });
        let error = asked::<Asked>(br#"{"event":"e"}"#).expect_err("unknown");
        assert!(error.to_string().starts_with("event: unknown"), "{error}");
    }
}
