//! What the trigger of a join reads of a part, and what it makes of all of them.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::join::{Arrival, Part};
use super::turns::{Key, key_of};
use super::{encode, unix_ms};
use crate::config::durable::Join;
use crate::limits::JOIN_PARTS_MAX;
use crate::model::{Entry, Record};
use crate::wire::json::lookup::Document;
use crate::wire::json::write::Members;

/// `join` of a trigger, ready to run.
#[derive(Clone, Debug)]
pub struct Joining {
    by: Key,
    count: Option<u32>,
    expected: Option<Key>,
    /// How long the first part waits for the others.
    pub within: Duration,
}

impl Joining {
    /// `None` where nothing is joined.
    #[must_use]
    pub fn new(join: &Join) -> Option<Self> {
        let by = Key::parse(&join.by).ok()?;
        Some(Self {
            by,
            count: (join.count > 0).then_some(join.count),
            expected: Key::parse(&join.expected).ok(),
            within: join.within,
        })
    }

    /// What a publication is in its join.
    ///
    /// # Errors
    /// Nobody can tell, and why.
    pub fn arrival<'a>(&self, entry: &'a Entry, now_ms: u64) -> Result<Arrival<'a>, String> {
        let key = self.key_of(entry)?;
        let expected = match &self.expected {
            None => self.count,
            Some(at) => match read(at, entry).map_err(|why| format!("join: {why}"))? {
                None => None,
                Some(text) => Some(number(&text).ok_or_else(|| {
                    format!("join: `{at}` is no number from 1 to {JOIN_PARTS_MAX}")
                })?),
            },
        };
        Ok(Arrival {
            part: Part::of(entry, now_ms),
            key,
            expected,
        })
    }

    /// What a publication has in common with the other parts.
    ///
    /// # Errors
    /// It has nothing of the kind.
    pub fn key_of<'a>(&self, entry: &'a Entry) -> Result<Cow<'a, [u8]>, String> {
        let found = read(&self.by, entry).map_err(|why| format!("join: {why}"))?;
        found.ok_or_else(|| format!("join: the publication has no `{}`", self.by))
    }

    /// A reason that says of which join.
    #[must_use]
    pub fn say(&self, reason: &str, entry: &Entry) -> String {
        let key = self.key_of(entry).unwrap_or_default();
        let shown: String = String::from_utf8_lossy(&key).chars().take(64).collect();
        format!("{reason}; `{}` is `{shown}`", self.by)
    }
}

/// What stands there; nothing where it is empty, or `null`.
fn read<'a>(key: &Key, entry: &'a Entry) -> Result<Option<Cow<'a, [u8]>>, String> {
    let Key::Data(_, path) = key else {
        let found = key_of(key, entry);
        return Ok((!found.is_empty()).then_some(found));
    };
    let document = Document::new(&entry.record.data).map_err(|error| error.to_string())?;
    let found = document.at(path).map_err(|error| error.to_string())?;
    let Some(value) = found.filter(|value| value.text() != "null") else {
        return Ok(None);
    };
    let text = value.string();
    let text = text.unwrap_or_else(|| value.text().as_bytes().into());
    Ok((!text.is_empty()).then_some(text))
}

fn number(text: &[u8]) -> Option<u32> {
    let number = str::from_utf8(text).ok()?.parse::<u32>().ok()?;
    (1..=JOIN_PARTS_MAX).contains(&number).then_some(number)
}

/// All parts as one record, in the order of the log. Its channel, its name and its key are the caller's business.
#[must_use]
pub fn joined(key: &[u8], parts: &[Arc<Entry>]) -> Option<Record> {
    let first = &parts.first()?.record;
    let mut data = Vec::new();
    let mut members = Members::open(&mut data);
    members.text("key", &String::from_utf8_lossy(key));
    members.number("count", parts.len());
    members.array("parts", parts, |out, part| {
        encode::entry(&mut Members::open(out), part, true);
    });
    members.close();
    let in_all =
        |tag: &&(Box<str>, Box<str>)| parts.iter().all(|part| part.record.tags.contains(tag));
    Some(Record {
        schema: 0,
        tags: first.tags.iter().filter(in_all).cloned().collect(),
        publisher: None,
        unix_ms: unix_ms(),
        data: Bytes::from(data),
        json: true,
        delta: false,
        hops: parts.iter().map(|part| part.record.hops).max()?,
        origin: None,
        ..first.clone()
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::model::EventId;
    use crate::upstream::memory;

    fn entry(cursor: u64, data: &str, tags: &[(&str, &str)]) -> Arc<Entry> {
        let tags = tags.iter();
        let record = Record {
            tags: tags
                .map(|(name, value)| ((*name).into(), (*value).into()))
                .collect(),
            ..memory::record("steps:1", EventId(u128::from(cursor)), data)
        };
        memory::entry(cursor, cursor, record)
    }

    fn joining(by: &str, count: u32, expected: &str) -> Joining {
        Joining::new(&Join {
            by: by.to_owned(),
            count,
            expected: expected.to_owned(),
            within: Duration::from_secs(1),
        })
        .expect("a join")
    }

    #[test]
    fn part_says_its_key_and_how_many_there_are_or_why_nobody_can_tell() {
        let join = joining("data:run", 0, "tag:parts");
        let of = |data: &str, tags: &[(&str, &str)]| {
            let entry = entry(1, data, tags);
            let arrival = join.arrival(&entry, 0)?;
            let key = String::from_utf8_lossy(&arrival.key).into_owned();
            Ok((key, arrival.expected))
        };
        assert_eq!(of(r#"{"run":"r1"}"#, &[]), Ok(("r1".to_owned(), None)));
        let tags = [("parts", "3")];
        assert_eq!(of(r#"{"run":7}"#, &tags), Ok(("7".to_owned(), Some(3))));
        for (data, tags, reason) in [
            ("no json", [("x", "")], "join: the payload is not JSON"),
            ("{}", [("x", "")], "join: the publication has no `data:run`"),
            (
                r#"{"run":null}"#,
                [("x", "")],
                "join: the publication has no `data:run`",
            ),
            (
                r#"{"run":1}"#,
                [("parts", "0")],
                "join: `tag:parts` is no number from 1 to 1000",
            ),
            (
                r#"{"run":1}"#,
                [("parts", "x")],
                "join: `tag:parts` is no number from 1 to 1000",
            ),
        ] {
            assert_eq!(
                of(data, &tags),
                Err::<(String, Option<u32>), _>(reason.to_owned()),
                "{data}"
            );
        }
    }

    #[test]
    fn joined_publication_has_all_parts_in_order_and_the_tags_that_all_have() {
        let parts = [
            entry(1, r#"{"n":1}"#, &[("run", "r"), ("step", "a")]),
            entry(2, r#"{"n":2}"#, &[("step", "b"), ("run", "r")]),
        ];
        let record = joined(b"r", &parts).expect("parts");
        assert_eq!(*record.tags, [("run".into(), "r".into())]);
        let value: Value = serde_json::from_slice(&record.data).expect("JSON");
        assert_eq!((&value["key"], &value["count"]), (&json!("r"), &json!(2)));
        assert_eq!(value["parts"][1]["data"], json!({ "n": 2 }));
        assert_eq!(value["parts"][0]["offset"], 1);
        assert_eq!(
            value["parts"][0]["tags"],
            json!({ "run": "r", "step": "a" })
        );
    }

    #[test]
    fn reason_names_the_key() {
        let join = joining("tag:run", 2, "");
        let said = join.say("join: late", &entry(1, "1", &[("run", "r9")]));
        assert_eq!(said, "join: late; `tag:run` is `r9`");
    }
}
