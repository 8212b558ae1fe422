//! What of its channels a group takes: by tags and by what the payload says.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::limits::PICKED_TAGS_MAX;
use crate::model::Record;
use crate::wire::condition::Condition;

/// Rules about what is taken. Whatever does not fit is done as soon as the group sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Picks {
    /// Tags that an entry must have, all of them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: BTreeMap<Box<str>, Box<str>>,
    /// What its payload must say, see `wire::condition`; empty for anything.
    #[serde(default, skip_serializing_if = "str::is_empty")]
    pub condition: Box<str>,
}

/// Whether an entry is taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pick {
    /// It is.
    Taken,
    /// It is not.
    Passed,
    /// Nobody can tell, and why: it becomes a dead letter.
    Unreadable(String),
}

/// Rules, ready to be compared with entries.
#[derive(Debug, Default)]
pub struct Picker {
    tags: Vec<(Box<str>, Box<str>)>,
    condition: Option<Condition>,
}

impl Picks {
    /// Everything is taken.
    #[must_use]
    pub fn are_all(&self) -> bool {
        self.tags.is_empty() && self.condition.is_empty()
    }

    /// Whether these can be.
    ///
    /// # Errors
    /// What is wrong, in words.
    pub fn check(&self) -> Result<(), Box<str>> {
        if self.tags.len() > PICKED_TAGS_MAX || self.tags.keys().any(|name| name.is_empty()) {
            return Err("`tags` is at most 16 names, none of them empty, with a value each".into());
        }
        if self.condition.is_empty() {
            return Ok(());
        }
        let parsed = Condition::parse(&self.condition);
        parsed
            .map(drop)
            .map_err(|error| format!("`where`: {error}").into())
    }
}

impl Picker {
    /// Rules that `check` has found right; a condition that cannot be read after all takes everything.
    #[must_use]
    pub fn new(picks: &Picks) -> Self {
        let tags = picks.tags.iter();
        Self {
            tags: tags
                .map(|(name, value)| (name.clone(), value.clone()))
                .collect(),
            condition: Condition::parse(&picks.condition).ok(),
        }
    }

    /// Is it taken?
    #[must_use]
    pub fn pick(&self, record: &Record) -> Pick {
        let has = |wanted: &(Box<str>, Box<str>)| record.tags.contains(wanted);
        if !self.tags.iter().all(has) {
            return Pick::Passed;
        }
        match &self.condition {
            None => Pick::Taken,
            Some(condition) => match condition.matches(&record.data) {
                Ok(true) => Pick::Taken,
                Ok(false) => Pick::Passed,
                Err(unreadable) => Pick::Unreadable(format!("where: {unreadable}")),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::EventId;
    use crate::upstream::memory;

    #[test]
    fn entry_is_taken_by_its_tags_and_by_what_it_says_and_one_that_nobody_can_read_is_told_apart() {
        let picks = Picks {
            tags: [("shop".into(), "north".into())].into(),
            condition: "n > 1".into(),
        };
        assert_eq!(picks.check(), Ok(()));
        let picker = Picker::new(&picks);
        let record = |tag: &str, data: &str| Record {
            tags: Box::new([("shop".into(), tag.into())]),
            ..memory::record("a", EventId(1), data)
        };
        assert_eq!(picker.pick(&record("north", r#"{"n":2}"#)), Pick::Taken);
        assert_eq!(picker.pick(&record("north", r#"{"n":1}"#)), Pick::Passed);
        assert_eq!(picker.pick(&record("south", r#"{"n":2}"#)), Pick::Passed);
        let unreadable = picker.pick(&record("north", "no json"));
        assert!(matches!(unreadable, Pick::Unreadable(_)), "{unreadable:?}");
    }

    #[test]
    fn what_cannot_be_is_refused_in_words() {
        let wrong = Picks {
            condition: "n >".into(),
            ..Picks::default()
        };
        assert!(wrong.check().is_err_and(|why| why.starts_with("`where`: ")));
    }
}
