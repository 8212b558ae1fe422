//! Where a group starts, or begins anew.

use serde::de::{Error as _, MapAccess};
use serde_json::value::RawValue;

use super::{Inner, Outlet, bad_request, not_found};
use crate::limits::START_LAST_MAX;
use crate::mesh::durable::{LogError, Read};
use crate::model::ChannelName;
use crate::upstream::log::{Entries, Scan};
use crate::wire::json::{Value, fields, object, value};

/// Entries that are looked at for one page of a search backwards.
const LOOKED_AT: usize = 1 << 16;
/// Bytes of one page of that search.
const PAGE_BYTES: usize = 8 << 20;

/// Where to start, as it is said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Start {
    /// With what the log has kept.
    #[default]
    Beginning,
    /// With what comes next.
    New,
    /// With what was taken in at this time or later, Unix milliseconds.
    Time(u64),
    /// With the last so many.
    Last(u64),
    /// With this publication of a channel.
    Offset(Box<str>, u64),
}

/// Where to start, as the log knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    /// With what it has kept.
    Beginning,
    /// With what comes next.
    New,
    /// Behind this cursor.
    After(u64),
}

impl From {
    /// The cursor, where there is one.
    #[must_use]
    pub const fn after(self) -> Option<u64> {
        match self {
            Self::After(cursor) => Some(cursor),
            Self::Beginning | Self::New => None,
        }
    }
}

#[derive(Debug, Default)]
struct StartFields {
    time: Option<u64>,
    last: Option<u64>,
    channel: Option<Box<str>>,
    offset: Option<u64>,
}
fields!(@Own StartFields { "time" => time, "last" => last, "channel" => channel, "offset" => offset });

impl Start {
    /// The channel that it names.
    pub(super) fn channel(&mut self) -> Option<&mut Box<str>> {
        match self {
            Self::Offset(channel, _) => Some(channel),
            Self::Beginning | Self::New | Self::Time(_) | Self::Last(_) => None,
        }
    }
}

impl<'de> Value<'de> for Option<Start> {
    fn read<A: MapAccess<'de>>(map: &mut A) -> Result<Self, A::Error> {
        let wrong = || A::Error::custom(": expected \"beginning\", \"new\" or an object");
        let Some(raw) = value::<Option<&'de RawValue>, A>(map)? else {
            return Ok(None);
        };
        if !raw.get().starts_with('{') {
            let word = serde_json::from_str::<Box<str>>(raw.get()).map_err(|_| wrong())?;
            return match &*word {
                "beginning" => Ok(Some(Start::Beginning)),
                "new" | "end" => Ok(Some(Start::New)),
                _ => Err(wrong()),
            };
        }
        let fields = object::<StartFields>(raw.get().as_bytes());
        let fields = fields.map_err(|error| A::Error::custom(error.as_part()))?;
        match (fields.time, fields.last, fields.channel, fields.offset) {
            (Some(time), None, None, None) => Ok(Some(Start::Time(time))),
            (None, Some(last), None, None) => Ok(Some(Start::Last(last))),
            (None, None, Some(channel), Some(offset)) => Ok(Some(Start::Offset(channel, offset))),
            _ => Err(A::Error::custom(
                ": expected `time`, `last`, or `channel` with `offset` in it",
            )),
        }
    }
}

impl<L: Entries, O: Outlet> Inner<L, O> {
    /// Where in the log that is.
    pub(super) async fn resolve(
        &self,
        start: &Start,
        channels: &[Box<str>],
    ) -> Result<From, LogError> {
        match start {
            Start::Beginning => Ok(From::Beginning),
            Start::New => Ok(From::New),
            Start::Time(unix_ms) => {
                let first = self.log.seek(*unix_ms).await?;
                Ok(From::After(first.saturating_sub(1)))
            }
            Start::Last(count) => self.last(*count, channels).await,
            Start::Offset(channel, offset) => {
                let read = Read {
                    channel: ChannelName::from_whole(channel),
                    after: Some(offset.saturating_sub(1)),
                    limit: 1,
                    bytes: 1,
                };
                let slice = self.log.read(&read).await?;
                let first = slice.entries.first();
                let first = first.filter(|entry| entry.position.offset.0 == *offset);
                match first {
                    Some(entry) => Ok(From::After(entry.cursor - 1)),
                    None => Err(not_found("the channel has no publication with this offset")),
                }
            }
        }
    }

    /// Looks back from the end, further each time, until there are enough.
    async fn last(&self, count: u64, channels: &[Box<str>]) -> Result<From, LogError> {
        if count > START_LAST_MAX {
            return Err(bad_request("`last` is at most 100000"));
        }
        let end = self.log.status().end;
        let mut back = count;
        loop {
            let begin = end.saturating_sub(back);
            let mut cursors = std::collections::VecDeque::new();
            let mut after = begin;
            loop {
                let scan = Scan {
                    after,
                    channels: channels.to_vec(),
                    limit: LOOKED_AT,
                    bytes: PAGE_BYTES,
                    looked_at: LOOKED_AT,
                };
                let scanned = self.log.scan(&scan).await?;
                for entry in scanned.entries {
                    cursors.push_back(entry.cursor);
                    if cursors.len() as u64 > count {
                        cursors.pop_front();
                    }
                }
                if scanned.at_end || scanned.next <= after || scanned.next >= end {
                    break;
                }
                after = scanned.next;
            }
            if cursors.len() as u64 >= count || begin == 0 {
                let first = cursors.front().copied();
                return Ok(From::After(first.map_or(end, |first| first - 1)));
            }
            back = back.saturating_mul(4).max(1024);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Default)]
    struct Asked {
        from: Option<Start>,
    }
    fields!(@Own Asked { "from" => from });

    #[test]
    fn start_is_a_word_a_time_a_count_or_a_place_in_a_channel() {
        for (text, wanted) in [
            (r#""beginning""#, Start::Beginning),
            (r#""new""#, Start::New),
            (r#""end""#, Start::New),
            (r#"{"time":5}"#, Start::Time(5)),
            (r#"{"last":7}"#, Start::Last(7)),
            (
                r#"{"channel":"a:1","offset":3}"#,
                Start::Offset("a:1".into(), 3),
            ),
        ] {
            let asked = object::<Asked>(format!(r#"{{"from":{text}}}"#).as_bytes());
            assert_eq!(asked.expect(text).from, Some(wanted));
        }
        for text in [
            r#""middle""#,
            "5",
            r#"{"time":1,"last":2}"#,
            r#"{"offset":3}"#,
            r#"{"at":3}"#,
        ] {
            let asked = object::<Asked>(format!(r#"{{"from":{text}}}"#).as_bytes());
            assert!(asked.is_err(), "{text}");
        }
    }
}
