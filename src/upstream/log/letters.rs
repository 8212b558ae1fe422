//! Dead letters: entries that a group has given up, with their history.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::groups::{Failure, Lease};
use crate::mesh::durable::LogError;
use crate::model::{Draft, Entry, EventId};

/// The dead letters of a log. They outlive what retention takes from its entries.
#[allow(async_fn_in_trait, reason = "the bridge runs its log on one thread")]
pub trait Letters: 'static {
    /// Keeps a dead letter, durably. The same letter (group and event) once more replaces the first.
    async fn bury(&self, letter: &DeadLetter) -> Result<(), LogError>;

    /// What comes of a leased entry that its group gives up: the letter is kept, the obituary is appended and the lease is done, all
    /// with one stroke, so whoever opens the log finds all of it or nothing. Repeated, it adds nothing.
    ///
    /// A log that cannot do all of that keeps the entry's history, then the letter, and gives the obituary back. Whoever asked
    /// appends that, and settles the lease last: interrupted anywhere before, the entry comes again with a history that is
    /// over, and the same is done again.
    async fn give_up(
        &self,
        lease: Lease,
        letter: &DeadLetter,
        obituary: Option<Draft>,
    ) -> Result<Option<Draft>, LogError>;

    /// Dead letters in the order of (group, event), those after `after`.
    async fn dead_letters(
        &self,
        group: Option<&str>,
        after: Option<(&str, EventId)>,
        limit: usize,
    ) -> Result<Vec<DeadLetter>, LogError>;

    /// One dead letter.
    async fn dead_letter(
        &self,
        group: &str,
        event: EventId,
    ) -> Result<Option<DeadLetter>, LogError>;

    /// Forgets a dead letter. `false` if there is none.
    async fn exhume(&self, group: &str, event: EventId) -> Result<bool, LogError>;

    /// Forgets some of the letters that are beyond the bounds, the oldest first, and gives whose they were. Nothing is left to do
    /// where that is empty.
    async fn expire_letters(&self, bounds: Bounds) -> Result<Vec<Box<str>>, LogError>;

    /// From now on whatever letters the log makes by itself, of what expires, are announced by these drafts, with the same stroke.
    fn announce_by(&self, _announce: Announce) {}

    /// What letters there are. Cheap. Those of a log that was just opened may be counted later.
    fn census(&self) -> Census;
}

/// What announces a dead letter; `None` for those that are not announced.
pub type Announce = fn(&DeadLetter) -> Option<Draft>;

/// An entry whose attempts are used up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// Group that could not work it off.
    pub group: Box<str>,
    /// What it is.
    pub entry: Arc<Entry>,
    /// Its whole history, oldest first.
    pub failures: Vec<Failure>,
    /// When it died, Unix milliseconds.
    pub unix_ms: u64,
}

impl DeadLetter {
    /// What its last attempt ended with.
    #[must_use]
    pub fn reason(&self) -> &str {
        self.failures.last().map_or("", |last| &last.reason)
    }

    /// The class of that.
    #[must_use]
    pub fn cause(&self) -> Cause {
        Cause::of(self.reason())
    }

    /// About how many bytes it takes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let failures = self.failures.iter();
        let said: usize = failures
            .map(|failure| failure.reason.len() + failure.worker.len() + size_of::<Failure>())
            .sum();
        (self.entry.record.bytes() + said) as u64
    }
}

/// Reason of a letter that nobody has failed with: it was forgotten before it was done.
pub const EXPIRED: &str = "expired";

/// What letters die of, in a few classes: what workers say has any number of forms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cause {
    /// A worker, a hook or the target of a trigger said so, in its own words.
    Failed,
    /// The worker said nothing in time.
    AckWait,
    /// Connections of workers ended with it.
    ConnectionLost,
    /// A trigger's condition could not read the payload.
    Condition,
    /// Triggers led to triggers too often.
    Loop,
    /// Not all parts of a join came, or they do not belong together.
    Join,
    /// The log has forgotten it before it was done.
    Expired,
}

impl Cause {
    /// All of them, with what each is called, and how reasons of its kind begin.
    const ALL: [(Self, &'static str, &'static str); 7] = [
        (Self::AckWait, "ack_wait", "ack_wait"),
        (Self::ConnectionLost, "connection_lost", "connection_lost"),
        (Self::Condition, "condition", "condition: "),
        (Self::Loop, "loop", "loop: "),
        (Self::Join, "join", "join: "),
        (Self::Expired, "expired", EXPIRED),
        (Self::Failed, "failed", ""),
    ];

    /// Of the reason of a last attempt.
    #[must_use]
    pub fn of(reason: &str) -> Self {
        let fits = |start: &str| match start.ends_with(' ') {
            true => reason.starts_with(start),
            false => reason == start,
        };
        let known = Self::ALL.iter().find(|(_, _, start)| fits(start));
        known.map_or(Self::Failed, |&(cause, _, _)| cause)
    }

    /// What it is called.
    #[must_use]
    pub fn name(self) -> &'static str {
        let known = Self::ALL.iter().find(|(cause, _, _)| *cause == self);
        known.map_or("failed", |&(_, name, _)| name)
    }

    /// The one that is called so.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        let known = Self::ALL.iter().find(|(_, known, _)| *known == name);
        known.map(|&(cause, _, _)| cause)
    }

    /// What all of them are called.
    pub fn names() -> impl Iterator<Item = &'static str> {
        Self::ALL.iter().map(|&(_, name, _)| name)
    }
}

/// How many letters there are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// Letters by group and what they died of.
    pub counts: BTreeMap<(Box<str>, Cause), u64>,
    /// All of them.
    pub letters: u64,
    /// Their bytes, about.
    pub bytes: u64,
}

impl Census {
    /// One more.
    pub fn add(&mut self, group: &str, cause: Cause, bytes: u64) {
        *self.counts.entry((group.into(), cause)).or_default() += 1;
        self.letters += 1;
        self.bytes = self.bytes.saturating_add(bytes);
    }

    /// One less.
    pub fn take(&mut self, group: &str, cause: Cause, bytes: u64) {
        let key = (Box::from(group), cause);
        if let Some(count) = self.counts.get_mut(&key) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.counts.remove(&key);
            }
        }
        self.letters = self.letters.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(bytes);
    }

    /// Those of each group that has some.
    #[must_use]
    pub fn of_groups(&self) -> BTreeMap<&str, u64> {
        let mut groups = BTreeMap::new();
        for ((group, _), count) in &self.counts {
            *groups.entry(&**group).or_default() += count;
        }
        groups
    }
}

/// What letters are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// For how long; zero is for ever.
    pub age: Duration,
    /// How many; 0 is any number.
    pub letters: u64,
    /// How many bytes of them; 0 is any number.
    pub bytes: u64,
}

impl Bounds {
    /// Does one have to go that died then, where there are so many?
    #[must_use]
    pub fn are_passed(&self, died_ms: u64, now_ms: u64, letters: u64, bytes: u64) -> bool {
        let age_ms = u64::try_from(self.age.as_millis()).unwrap_or(u64::MAX);
        let is_old = age_ms > 0 && died_ms.saturating_add(age_ms) <= now_ms;
        let is_over = |most: u64, has: u64| most > 0 && has > most;
        is_old || is_over(self.letters, letters) || is_over(self.bytes, bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_workers_say_is_one_class_and_what_the_program_says_has_its_own() {
        for (reason, name) in [
            ("ack_wait", "ack_wait"),
            ("ack_wait is too short", "failed"),
            ("connection_lost", "connection_lost"),
            ("connection: refused", "failed"),
            ("condition: n is no number", "condition"),
            ("expired", "expired"),
            ("expired card", "failed"),
            ("loop: triggers have led to triggers too often", "loop"),
            ("join: 1 of 3 parts did not come within 10s", "join"),
            ("", "failed"),
            ("card declined", "failed"),
        ] {
            let cause = Cause::of(reason);
            assert_eq!(cause.name(), name, "{reason}");
            assert_eq!(Cause::parse(name), Some(cause));
        }
        assert_eq!(Cause::parse("other"), None);
    }

    #[test]
    fn census_forgets_what_is_gone() {
        let mut census = Census::default();
        census.add("g", Cause::Failed, 10);
        census.add("g", Cause::AckWait, 20);
        census.add("h", Cause::Failed, 30);
        assert_eq!(
            (census.letters, census.bytes, census.of_groups()["g"]),
            (3, 60, 2)
        );
        census.take("g", Cause::Failed, 10);
        assert_eq!(
            (census.letters, census.bytes, census.of_groups()["g"]),
            (2, 50, 1)
        );
        assert_eq!(census.counts.len(), 2);
    }

    #[test]
    fn letters_go_where_they_are_too_old_or_too_many() {
        let bounds = Bounds {
            age: Duration::from_millis(100),
            letters: 2,
            bytes: 50,
        };
        assert!(!bounds.are_passed(1000, 1099, 2, 50));
        assert!(bounds.are_passed(1000, 1100, 1, 1));
        assert!(bounds.are_passed(1000, 1000, 3, 1));
        assert!(bounds.are_passed(1000, 1000, 1, 51));
        let none = Bounds {
            age: Duration::ZERO,
            letters: 0,
            bytes: 0,
        };
        assert!(!none.are_passed(0, u64::MAX, u64::MAX, u64::MAX));
    }
}
