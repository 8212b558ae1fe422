//! The books: what was promised to publishers, against what subscribers, workers and dead letters have shown.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// A publication as its publisher names it: publisher and number.
pub(crate) type Id = (u32, u32);

/// Something that a client has seen, in the order in which it saw it.
#[derive(Clone, Debug)]
pub(crate) enum Fact {
    /// A publisher got its acknowledgement.
    Acknowledged {
        id: Id,
        channel: String,
        epoch: String,
        offset: u64,
    },
    /// A publisher was told to try again.
    Temporary,
    /// A subscriber got a publication.
    Seen {
        subscriber: u32,
        id: Id,
        channel: String,
        epoch: String,
        offset: u64,
    },
    /// A worker got a delivery.
    Delivered {
        group: &'static str,
        id: Id,
        channel: String,
        offset: u64,
        event: String,
    },
    /// The acknowledgement of a worker was answered.
    Settled { group: &'static str, id: Id },
    /// Something that must not happen.
    Broken(String),
}

/// What one group has shown.
#[derive(Debug, Default)]
struct Group {
    is_ordered: bool,
    /// Event id of each publication that was delivered.
    events: BTreeMap<Id, String>,
    /// Offset of the last first delivery, by channel.
    last: BTreeMap<String, u64>,
    settled: BTreeSet<Id>,
    deliveries: u64,
    /// Deliveries of what the group was told is done: at least once allows them, as an acknowledgement may be answered
    /// before it is on the disk.
    after_done: u64,
}

/// The books of one fault.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    /// Where each acknowledged publication stands.
    acknowledged: BTreeMap<Id, (String, u64)>,
    /// What stands there, as anybody has seen it.
    log: BTreeMap<(String, u64), Id>,
    place: BTreeMap<Id, (String, u64)>,
    epochs: BTreeMap<String, String>,
    /// The next offset of each subscriber and channel.
    next: BTreeMap<(u32, String), u64>,
    groups: BTreeMap<&'static str, Group>,
    /// Temporary errors.
    pub(crate) temporary: u64,
    twice: u64,
    disorder: u64,
    broken: Vec<String>,
    /// Set by `close`.
    lost: u64,
    poisoned: usize,
    dead: usize,
}

/// Promises that are described one by one at most.
const BROKEN_MAX: usize = 20;

impl Ledger {
    /// Empty books; groups with whether they are ordered.
    pub(crate) fn new(groups: &[(&'static str, bool)]) -> Self {
        let group = |is_ordered| Group {
            is_ordered,
            ..Group::default()
        };
        Self {
            groups: groups
                .iter()
                .map(|(name, ordered)| (*name, group(*ordered)))
                .collect(),
            ..Self::default()
        }
    }

    /// Publications that were acknowledged.
    pub(crate) fn acknowledged(&self) -> usize {
        self.acknowledged.len()
    }

    /// Their names.
    pub(crate) fn ids(&self) -> impl Iterator<Item = Id> {
        self.acknowledged.keys().copied()
    }

    /// Deliveries of all groups.
    pub(crate) fn deliveries(&self) -> u64 {
        self.groups.values().map(|group| group.deliveries).sum()
    }

    /// Books a fact.
    pub(crate) fn book(&mut self, fact: Fact) {
        match fact {
            Fact::Acknowledged {
                id,
                channel,
                epoch,
                offset,
            } => {
                self.at(id, &channel, &epoch, offset);
                if let Some(first) = self.acknowledged.insert(id, (channel.clone(), offset))
                    && first != (channel, offset)
                {
                    self.broke(format!("{id:?} was acknowledged at two places"));
                }
            }
            Fact::Temporary => self.temporary += 1,
            Fact::Seen {
                subscriber,
                id,
                channel,
                epoch,
                offset,
            } => {
                self.at(id, &channel, &epoch, offset);
                self.seen(subscriber, &channel, offset);
            }
            Fact::Delivered {
                group,
                id,
                channel,
                offset,
                event,
            } => {
                self.delivered(group, id, &channel, offset, event);
            }
            Fact::Settled { group, id } => {
                self.groups.entry(group).or_default().settled.insert(id);
            }
            Fact::Broken(text) => self.broke(text),
        }
    }

    fn broke(&mut self, text: String) {
        if self.broken.len() < BROKEN_MAX {
            self.broken.push(text);
        }
    }

    /// Everybody sees the same publication at a place, and no publication at two.
    fn at(&mut self, id: Id, channel: &str, epoch: &str, offset: u64) {
        let known = self
            .epochs
            .entry(channel.to_owned())
            .or_insert_with(|| epoch.to_owned());
        if known != epoch {
            let text = format!("{channel} has begun a new life: {known}, then {epoch}");
            self.broke(text);
        }
        let there = *self.log.entry((channel.to_owned(), offset)).or_insert(id);
        if there != id {
            self.broke(format!("{channel} {offset} is {there:?} and {id:?}"));
        }
        let place = self
            .place
            .entry(id)
            .or_insert_with(|| (channel.to_owned(), offset));
        if *place != (channel.to_owned(), offset) {
            self.twice += 1;
            let text = format!("{id:?} stands at {place:?} and at {channel} {offset}");
            self.broke(text);
        }
    }

    fn seen(&mut self, subscriber: u32, channel: &str, offset: u64) {
        let next = self
            .next
            .entry((subscriber, channel.to_owned()))
            .or_insert(1);
        let expected = *next;
        *next = expected.max(offset + 1);
        if offset < expected {
            self.twice += 1;
            self.broke(format!(
                "subscriber {subscriber}: {channel} {offset} came again"
            ));
        } else if offset > expected {
            self.disorder += 1;
            self.broke(format!(
                "subscriber {subscriber}: {channel} {offset} came where {expected} was next"
            ));
        }
    }

    fn delivered(&mut self, name: &'static str, id: Id, channel: &str, offset: u64, event: String) {
        let group = self.groups.entry(name).or_default();
        group.deliveries += 1;
        group.after_done += u64::from(group.settled.contains(&id));
        let mut broken = None;
        match group.events.get(&id) {
            Some(first) if *first == event => {}
            Some(first) => {
                self.twice += 1;
                broken = Some(format!("{name}: {id:?} came as {first} and as {event}"));
            }
            None => {
                group.events.insert(id, event);
                let last = group.last.entry(channel.to_owned()).or_insert(0);
                if group.is_ordered && offset <= *last {
                    self.disorder += 1;
                    broken = Some(format!(
                        "{name}: {channel} {offset} came first after {last}"
                    ));
                }
                *last = (*last).max(offset);
            }
        }
        if let Some(text) = broken {
            self.broke(text);
        }
    }

    /// What still has to come before the books can be closed; `None` if nothing has.
    pub(crate) fn missing(&self, subscribers: u32) -> Option<String> {
        let mut tops: BTreeMap<&str, u64> = BTreeMap::new();
        for (channel, offset) in self.acknowledged.values() {
            let top = tops.entry(channel).or_default();
            *top = (*top).max(*offset);
        }
        for subscriber in 0..subscribers {
            for (channel, top) in &tops {
                let next = self
                    .next
                    .get(&(subscriber, (*channel).to_owned()))
                    .copied()
                    .unwrap_or(1);
                if next <= *top {
                    return Some(format!(
                        "subscriber {subscriber} waits for {channel} {next} of {top}"
                    ));
                }
            }
        }
        for (name, group) in &self.groups {
            let mut open = self
                .acknowledged
                .keys()
                .filter(|id| !group.events.contains_key(id));
            if let Some(first) = open.next() {
                let count = 1 + open.count();
                return Some(format!(
                    "{name} waits for {count} deliveries, among them {first:?}"
                ));
            }
        }
        None
    }

    /// Closes the books: `letters` are the event ids of each group's dead letters.
    pub(crate) fn close(
        &mut self,
        subscribers: u32,
        is_poisoned: impl Fn(Id) -> bool,
        letters: &BTreeMap<&'static str, BTreeSet<String>>,
    ) {
        for subscriber in 0..subscribers {
            let has = |channel: &String, offset: u64| {
                self.next
                    .get(&(subscriber, channel.clone()))
                    .is_some_and(|next| offset < *next)
            };
            let lost = self
                .acknowledged
                .values()
                .filter(|(channel, offset)| !has(channel, *offset))
                .count();
            self.lost += lost as u64;
        }
        let poisoned: Vec<Id> = self
            .acknowledged
            .keys()
            .copied()
            .filter(|id| is_poisoned(*id))
            .collect();
        let mut broken = Vec::new();
        for (name, group) in &self.groups {
            let lost = self
                .acknowledged
                .keys()
                .filter(|id| !group.events.contains_key(id))
                .count();
            self.lost += lost as u64;
            let wanted: BTreeSet<&String> = poisoned
                .iter()
                .filter_map(|id| group.events.get(id))
                .collect();
            let empty = BTreeSet::new();
            let dead: BTreeSet<&String> = letters.get(name).unwrap_or(&empty).iter().collect();
            self.poisoned += poisoned.len();
            self.dead += dead.len();
            if wanted != dead {
                let healthy = dead.difference(&wanted).count();
                let missing = wanted.difference(&dead).count();
                broken.push(format!("{name}: {healthy} dead letters were not poisoned, {missing} poisoned are not dead"));
            }
        }
        if self.lost > 0 {
            broken.push(format!("{} acknowledged and lost", self.lost));
        }
        self.broken.extend(broken);
    }

    /// Every promise was kept.
    pub(crate) fn is_kept(&self) -> bool {
        self.broken.is_empty() && self.lost == 0 && self.twice == 0 && self.disorder == 0
    }

    /// The first broken promises.
    pub(crate) fn broken(&self) -> &[String] {
        &self.broken
    }
}

impl fmt::Display for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let after_done: u64 = self.groups.values().map(|group| group.after_done).sum();
        let firsts: usize = self.groups.values().map(|group| group.events.len()).sum();
        write!(
            f,
            "{} acknowledged, {} lost, {} twice, {} out of order, {} poisoned, {} dead letters; {} deliveries, {} of them again, {after_done} after they were done; {} temporary errors",
            self.acknowledged.len(),
            self.lost,
            self.twice,
            self.disorder,
            self.poisoned,
            self.dead,
            self.deliveries(),
            self.deliveries() - firsts as u64,
            self.temporary,
        )
    }
}

/// The books find what they are there to find: run before any fault, since a checker that sees nothing proves nothing.
pub(crate) fn examine() {
    let seen = |subscriber, id, offset| Fact::Seen {
        subscriber,
        id,
        channel: "c".to_owned(),
        epoch: "e".to_owned(),
        offset,
    };
    let acknowledged = |id, offset| Fact::Acknowledged {
        id,
        channel: "c".to_owned(),
        epoch: "e".to_owned(),
        offset,
    };
    let delivered = |id, offset, event: &str| Fact::Delivered {
        group: "g",
        id,
        channel: "c".to_owned(),
        offset,
        event: event.to_owned(),
    };
    let close = |facts: Vec<Fact>, dead: &[&str]| {
        let mut ledger = Ledger::new(&[("g", true)]);
        facts.into_iter().for_each(|fact| ledger.book(fact));
        let letters = dead.iter().map(|event| (*event).to_owned()).collect();
        ledger.close(1, |id| id.1 == 9, &BTreeMap::from([("g", letters)]));
        ledger
    };
    let right = vec![
        acknowledged((0, 1), 1),
        acknowledged((0, 9), 2),
        seen(0, (0, 1), 1),
        seen(0, (0, 9), 2),
        delivered((0, 1), 1, "a"),
        delivered((0, 9), 2, "b"),
        delivered((0, 9), 2, "b"),
    ];
    let with = |more: Vec<Fact>| right.iter().cloned().chain(more).collect::<Vec<_>>();
    let kept = close(right.clone(), &["b"]);
    assert!(kept.is_kept(), "{:?}", kept.broken());
    let wrong = [
        (close(with(vec![acknowledged((0, 3), 3)]), &["b"]), "lost"),
        (close(with(vec![seen(0, (0, 1), 1)]), &["b"]), "repeated"),
        (close(with(vec![seen(0, (0, 4), 4)]), &["b"]), "a hole"),
        (
            close(
                with(vec![seen(0, (0, 1), 3), delivered((0, 4), 3, "c")]),
                &["b"],
            ),
            "stored twice",
        ),
        (
            close(with(vec![delivered((0, 1), 3, "c")]), &["b"]),
            "delivered as another event",
        ),
        (
            close(with(vec![delivered((0, 4), 1, "c")]), &["b"]),
            "out of order",
        ),
        (close(right.clone(), &[]), "poisoned and not dead"),
        (close(right.clone(), &["a", "b"]), "healthy and dead"),
        (
            close(with(vec![Fact::Broken("x".to_owned())]), &["b"]),
            "told by a client",
        ),
    ];
    for (ledger, what) in wrong {
        assert!(!ledger.is_kept(), "the books do not find: {what}");
    }
}
