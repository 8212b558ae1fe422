//! Where a source is in each partition, as the log keeps it.

use std::collections::BTreeMap;

use serde_json::Value;

use super::cluster::Partition;
use crate::wire::json::tree;
use crate::wire::json::write::Members;

/// Places by the name of the log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Places(BTreeMap<String, LogPlaces>);

/// … in one log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct LogPlaces {
    id: String,
    /// The offset that comes next, by partition.
    next: BTreeMap<i32, i64>,
}

/// What is known of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Known {
    /// This offset comes next.
    At(i64),
    /// No log of this name was read.
    Never,
    /// The log was read and had no such partition, or another log has its name now.
    New,
}

impl Places {
    pub(super) fn parse(text: &str) -> Option<Self> {
        let value = tree(text.as_bytes()).ok()?;
        let mut places = Self::default();
        for (name, log) in value.get("kafka")?.as_object()? {
            let mut found = LogPlaces {
                id: log.get("id")?.as_str()?.to_owned(),
                next: BTreeMap::new(),
            };
            for (partition, next) in log.get("next").and_then(Value::as_object)? {
                found.next.insert(partition.parse().ok()?, next.as_i64()?);
            }
            places.0.insert(name.clone(), found);
        }
        Some(places)
    }

    pub(super) fn text(&self) -> String {
        let mut out = Vec::new();
        {
            let mut whole = Members::open(&mut out);
            let mut logs = whole.object("kafka");
            for (name, log) in &self.0 {
                let mut members = Members::open(logs.key(name));
                members.text("id", &log.id);
                let mut next = members.object("next");
                for (partition, offset) in &log.next {
                    crate::wire::json::write::number(next.key(&partition.to_string()), *offset);
                }
            }
        }
        String::from_utf8(out).unwrap_or_default()
    }

    pub(super) fn of(&self, partition: &Partition) -> Known {
        let Some(log) = self.0.get(&*partition.log) else {
            return Known::Never;
        };
        if log.id != *partition.id {
            return Known::New;
        }
        let next = log.next.get(&partition.number);
        next.map_or(Known::New, |next| Known::At(*next))
    }

    pub(super) fn set(&mut self, partition: &Partition, next: i64) {
        let log = self.0.entry(partition.log.to_string()).or_default();
        if log.id != *partition.id {
            log.next.clear();
            (*partition.id).clone_into(&mut log.id);
        }
        log.next.insert(partition.number, next);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn partition(log: &str, id: &str, number: i32) -> Partition {
        Partition {
            log: log.into(),
            id: id.into(),
            number,
        }
    }

    #[test]
    fn places_come_back_as_they_were() {
        let mut places = Places::default();
        assert_eq!(Places::parse(&places.text()), Some(places.clone()));
        places.set(&partition("a.\"b", "i", 0), 17);
        places.set(&partition("a.\"b", "i", 11), i64::MAX);
        places.set(&partition("c", "", 0), 0);
        let text = places.text();
        assert_eq!(Places::parse(&text), Some(places), "{text}");
        for wrong in ["", "5", "{}", "postgres/1/2", r#"{"kafka":{"a":{}}}"#] {
            assert_eq!(Places::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_log_that_was_made_anew_begins_anew() {
        let mut places = Places::default();
        let (old, new) = (partition("a", "1", 0), partition("a", "2", 0));
        assert_eq!(places.of(&old), Known::Never);
        places.set(&old, 5);
        assert_eq!(places.of(&old), Known::At(5));
        assert_eq!(places.of(&partition("a", "1", 1)), Known::New);
        assert_eq!(places.of(&partition("b", "1", 0)), Known::Never);
        assert_eq!(places.of(&new), Known::New);
        places.set(&new, 0);
        assert_eq!(places.of(&new), Known::At(0));
        assert_eq!(places.of(&old), Known::New);
    }
}
