//! Whose turn it is inside a group: entries with the same key and of the same lane stand in one line, and lines take turns.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::Xxh3;

pub use crate::config::apart::Key;
use crate::config::apart::Seen;
use crate::limits::{KEY_WEIGHT_MAX, KEY_WEIGHTS_MAX};
use crate::model::Entry;
use crate::upstream::log::LineId;

/// Lanes of a group.
pub const LANES: usize = 4;
/// Turns of the lanes, the least urgent first, where nobody says others.
pub const LANE_WEIGHTS: [u32; LANES] = [1, 2, 4, 8];

/// The key of an entry; empty where it has none.
#[must_use]
pub fn key_of<'a>(key: &Key, entry: &'a Entry) -> Cow<'a, [u8]> {
    let publisher = entry.record.publisher.as_ref();
    key.of(Seen {
        channel: entry.shown_at().0.whole(),
        user: publisher.map_or("", |info| &*info.user),
        tags: &entry.record.tags,
        data: &entry.record.data,
    })
}

/// How urgent an entry is: its lane, 0 to 3.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lanes {
    /// Where the number of its lane stands. What is no such number is 0, and what is more than 3 is 3.
    pub by: Key,
    /// Turns of the lanes against each other, each at least 1: no lane waits for ever.
    pub weights: [u32; LANES],
}

/// Rules about turns. Without any, the oldest entry is given first.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Turns {
    /// Keys take turns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<Key>,
    /// Entries of one key under way at a time; 0 for no bound.
    #[serde(default)]
    pub concurrency: u32,
    /// Entries of one key that are given in a second at most; 0 for no bound.
    #[serde(default)]
    pub rate: f64,
    /// Turns of keys against each other; 1 for those that are not named.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub weights: BTreeMap<Box<str>, u32>,
    /// Urgent ones go first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lanes: Option<Lanes>,
}

/// The line of an entry, and how its turns are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Which line.
    pub line: LineId,
    /// Its lane, below `LANES`.
    pub lane: usize,
    /// Its turns in a row.
    pub weight: u32,
}

impl Turns {
    /// Whose turn it is has to be decided at all.
    #[must_use]
    pub const fn are_taken(&self) -> bool {
        self.key.is_some() || self.lanes.is_some()
    }

    /// Entries of the same line are the same before and after.
    #[must_use]
    pub fn have_same_lines(&self, other: &Self) -> bool {
        let by = |turns: &Self| turns.lanes.as_ref().map(|lanes| lanes.by.clone());
        self.key == other.key && by(self) == by(other)
    }

    /// Time between two entries of one key.
    #[must_use]
    pub fn pause(&self) -> Option<Duration> {
        (self.rate > 0.0).then(|| Duration::from_secs_f64(1.0 / self.rate))
    }

    /// Where an entry stands; by its channel where `ordered` asks for lines and no key is given.
    #[must_use]
    pub fn place(&self, entry: &Entry, ordered: bool) -> Place {
        let lane = self.lanes.as_ref().map_or(0, |lanes| {
            let text = key_of(&lanes.by, entry);
            let number = str::from_utf8(&text)
                .ok()
                .and_then(|text| text.parse().ok());
            number.map_or(0, |number: u64| number.min(LANES as u64 - 1)) as usize
        });
        let key = match &self.key {
            Some(key) => key_of(key, entry),
            None if ordered => key_of(&Key::Channel, entry),
            None => Cow::Borrowed(&b""[..]),
        };
        let weight = if self.weights.is_empty() {
            1
        } else {
            let name = str::from_utf8(&key).ok();
            let known = name.and_then(|name| self.weights.get(name));
            known.copied().unwrap_or(1)
        };
        // The name outlives the process.
        let mut hash = Xxh3::with_seed(lane as u64);
        hash.update(&key);
        Place {
            line: LineId(hash.digest()),
            lane,
            weight,
        }
    }

    /// Whether these can be.
    ///
    /// # Errors
    /// What is wrong, in words.
    pub fn check(&self) -> Result<(), &'static str> {
        if self.key.is_none()
            && (self.concurrency > 0 || self.rate > 0.0 || !self.weights.is_empty())
        {
            return Err("`key_concurrency`, `key_rate` and `key_weights` need a `key`");
        }
        if !(self.rate == 0.0 || (0.001..=1_000_000.0).contains(&self.rate)) {
            return Err("`key_rate` is 0.001 to 1000000 a second, or 0 for no bound");
        }
        let fits = |weight: &u32| (1..=KEY_WEIGHT_MAX).contains(weight);
        if self.weights.len() > KEY_WEIGHTS_MAX || !self.weights.values().all(fits) {
            return Err("`key_weights` has at most 1000 keys, each with a weight of 1 to 100");
        }
        if let Some(lanes) = &self.lanes
            && !lanes.weights.iter().all(fits)
        {
            return Err("`lanes.weights` is four weights of 1 to 100, the least urgent lane first");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{EventId, Record};
    use crate::upstream::memory;

    fn entry(data: &str, tags: &[(&str, &str)]) -> std::sync::Arc<Entry> {
        let tags = tags
            .iter()
            .map(|(name, value)| ((*name).into(), (*value).into()));
        let record = Record {
            tags: tags.collect(),
            ..memory::record("orders:1", EventId(1), data)
        };
        memory::entry(1, 1, record)
    }

    #[test]
    fn key_of_an_entry_is_its_channel_a_tag_or_a_value_of_its_payload() {
        let entry = entry(r#"{"a":{"b":"x\u0041"},"n":7}"#, &[("shop", "north")]);
        for (key, wanted) in [
            ("channel", "orders:1"),
            ("user", ""),
            ("tag:shop", "north"),
            ("tag:none", ""),
            ("data:a.b", "xA"),
            ("data:n", "7"),
            ("data:none", ""),
        ] {
            let parsed = Key::parse(key).expect(key);
            assert_eq!(key_of(&parsed, &entry), wanted.as_bytes(), "{key}");
            assert_eq!(parsed.to_string(), key);
        }
        for key in ["", "Channel", "tag:", "data:", "data:a b", "other:x"] {
            assert!(Key::parse(key).is_err(), "{key}");
        }
    }

    #[test]
    fn lane_is_a_number_from_0_to_3_and_lines_of_two_lanes_are_two() {
        let turns = Turns {
            lanes: Some(Lanes {
                by: Key::Tag("priority".into()),
                weights: LANE_WEIGHTS,
            }),
            ..Turns::default()
        };
        let lane = |text: &str| turns.place(&entry("1", &[("priority", text)]), false);
        for (text, wanted) in [
            ("0", 0),
            ("3", 3),
            ("9", 3),
            ("", 0),
            ("-1", 0),
            ("high", 0),
        ] {
            assert_eq!(lane(text).lane, wanted, "{text}");
        }
        assert_ne!(lane("0").line, lane("1").line);
        assert_eq!(lane("2").line, lane("2").line);
    }

    #[test]
    fn name_of_a_line_is_the_same_in_every_process() {
        let turns = Turns {
            key: Some(Key::Channel),
            ..Turns::default()
        };
        let place = turns.place(&entry("1", &[]), false);
        assert_eq!(place.line, LineId(xxhash_rust::xxh3::xxh3_64(b"orders:1")));
    }
}
