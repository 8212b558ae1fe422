//! The books: what was promised to publishers, workers and operators, against what everybody has shown.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Range;
use std::time::{Duration, Instant};

use super::joins;
use super::names::{Id, Nature};

/// What a worker says about a delivery.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Said {
    /// It is done.
    Done,
    /// This attempt has failed.
    Failed(u32),
    /// This attempt has failed, and the next one is not before that.
    Later(u32, Instant),
}

/// What must come of a group that was sought.
#[derive(Clone, Debug)]
pub(crate) enum Sought {
    /// Everything.
    All,
    /// What is stored after the answer.
    New,
    /// That, and of this channel what stands there or behind it.
    From(String, u64),
}

/// Something that a client has seen or said, in the order in which it was.
#[derive(Clone, Debug)]
pub(crate) enum Fact {
    /// A publisher got its acknowledgement. `begun` is the moment at which it published first.
    Acknowledged {
        id: Id,
        begun: u64,
        channel: String,
        epoch: String,
        offset: u64,
    },
    /// A publisher was told that its publication is kept until then, in Unix milliseconds.
    Accepted { id: Id, begun: u64, due_ms: u64 },
    /// A publisher was told to try again.
    Temporary,
    /// A subscriber got a publication.
    Seen {
        subscriber: u32,
        id: Id,
        channel: String,
        epoch: String,
        offset: u64,
        unix_ms: u64,
    },
    /// A worker got a delivery.
    Delivered {
        group: &'static str,
        id: Id,
        channel: String,
        offset: u64,
        event: String,
        attempt: u32,
        published_ms: u64,
        at: Instant,
        unix_ms: u64,
    },
    /// A worker is about to say this.
    Saying {
        group: &'static str,
        id: Id,
        said: Said,
    },
    /// What it said was answered: the delivery is done, or put off.
    Settled {
        group: &'static str,
        id: Id,
        is_done: bool,
        at: Instant,
    },
    /// An operator is about to let a group begin anew elsewhere.
    Seeking { group: &'static str },
    /// That was answered, and this moment has begun.
    Sought {
        group: &'static str,
        to: Sought,
        moment: u64,
    },
    /// The hook for dead letters has taken one.
    Told { group: &'static str, event: String },
    /// Of runs that a trigger joins.
    Joins(joins::Fact),
    /// Something that is worth a number.
    Counted(&'static str),
    /// Something that must not happen.
    Broken(String),
}

/// What stands in one line of an ordered group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Line {
    /// It has no lines.
    #[default]
    None,
    /// A channel.
    Channel,
    /// A customer.
    Customer,
    /// A lane of a channel.
    Lane,
}

/// What is known of a group before it begins.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Rules {
    pub(crate) name: &'static str,
    pub(crate) line: Line,
    /// Its workers acknowledge with `sync`.
    pub(crate) is_synced: bool,
}

/// What one group has shown.
#[derive(Debug, Default)]
struct Group {
    rules: Rules,
    /// Event id of each publication that was delivered.
    events: BTreeMap<Id, String>,
    /// What must be delivered and was not.
    open: BTreeSet<Id>,
    /// Offset of the last first delivery, by line and channel.
    last: BTreeMap<(String, String), u64>,
    /// The last first delivery of each line.
    front: BTreeMap<String, Id>,
    /// A worker has said the last word about them.
    finished: BTreeSet<Id>,
    settled: BTreeMap<Id, Instant>,
    /// Put off with that attempt until then; whether the answer has promised that it is kept.
    put_off: BTreeMap<Id, (u32, Instant, bool)>,
    /// Deliveries after the first attempt of what was never refused.
    tried: BTreeSet<Id>,
    deliveries: u64,
    /// Deliveries of what the group was told is done: at least once allows them, as an acknowledgement may be answered
    /// before it is on the disk.
    after_done: u64,
    /// Delivered since somebody has asked for another beginning.
    since: BTreeSet<Id>,
    sought: Option<(Sought, u64)>,
    /// Somebody has asked for another beginning: whether it has begun anew nobody knows before the answer.
    is_seeking: bool,
    /// Dead letters whose hook has taken them, the first time.
    told: Vec<String>,
    is_told: BTreeSet<String>,
}

/// A publication that counts.
#[derive(Debug)]
struct Promise {
    begun: u64,
    /// Before that, in Unix milliseconds, nobody may see it.
    due_ms: Option<u64>,
}

/// The earliest that anybody has seen of a publication.
#[derive(Debug)]
struct Come {
    unix_ms: u64,
    published_ms: Option<u64>,
}

/// The books of one fault.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    nature: Option<Nature>,
    promised: BTreeMap<Id, Promise>,
    /// Publications of other books.
    before: usize,
    /// Where each acknowledged publication stands.
    acknowledged: BTreeMap<Id, (String, u64)>,
    /// What stands there, as anybody has seen it.
    log: BTreeMap<(String, u64), Id>,
    place: BTreeMap<Id, (String, u64)>,
    epochs: BTreeMap<String, String>,
    /// The next offset of each subscriber and channel.
    next: BTreeMap<(u32, String), u64>,
    groups: BTreeMap<&'static str, Group>,
    /// When delayed publications were seen first.
    come: BTreeMap<Id, Come>,
    /// Runs that a trigger joins.
    pub(crate) joins: joins::Books,
    /// Clocks of the proxy and of its clients are not the same.
    pub(crate) is_clock_false: bool,
    /// Attempts after which a poisoned publication may be dead.
    pub(crate) attempts_min: u32,
    /// What was published first at this moment or later must not be acknowledged.
    pub(crate) closed: Option<u64>,
    /// Moments whose publications nobody may have needed a second attempt for.
    pub(crate) untried: Vec<Range<u64>>,
    /// Temporary errors.
    pub(crate) temporary: u64,
    counted: BTreeMap<&'static str, u64>,
    twice: u64,
    disorder: u64,
    early: u64,
    broken: Vec<String>,
    /// Set by `close`.
    lost: u64,
    poisoned: usize,
    dead: usize,
}

/// What the proxy says at the end.
#[derive(Debug, Default)]
pub(crate) struct Letters {
    /// Event ids of each group's dead letters.
    pub(crate) kept: BTreeMap<&'static str, BTreeSet<String>>,
    /// The same as they were announced, in order.
    pub(crate) announced: BTreeMap<&'static str, Vec<String>>,
    pub(crate) joins: joins::Found,
}

/// Promises that are described one by one at most.
const BROKEN_MAX: usize = 20;
/// Clocks count whole milliseconds.
const MILLISECOND: Duration = Duration::from_millis(2);

impl Ledger {
    /// Empty books of these groups.
    pub(crate) fn new(groups: &[Rules], nature: Nature, attempts_min: u32) -> Self {
        let group = |rules| Group {
            rules,
            ..Group::default()
        };
        Self {
            nature: Some(nature),
            groups: groups
                .iter()
                .map(|rules| (rules.name, group(*rules)))
                .collect(),
            attempts_min,
            ..Self::default()
        }
    }

    fn nature(&self) -> Nature {
        self.nature.expect("books of a world")
    }

    /// Publications that a publisher was given a promise about.
    pub(crate) fn acknowledged(&self) -> usize {
        self.promised.len()
    }

    /// How many of them no worker can work off.
    pub(crate) fn poisoned(&self) -> usize {
        let nature = self.nature();
        let ids = self.promised.keys();
        ids.filter(|id| (nature.is_poisoned)(**id)).count()
    }

    /// Deliveries of all groups.
    pub(crate) fn deliveries(&self) -> u64 {
        self.groups.values().map(|group| group.deliveries).sum()
    }

    /// Letters that the hook has taken.
    pub(crate) fn told(&self) -> usize {
        self.groups.values().map(|group| group.told.len()).sum()
    }

    /// Counts something.
    pub(crate) fn count(&mut self, what: &'static str, by: u64) {
        *self.counted.entry(what).or_default() += by;
    }

    /// Books a fact.
    pub(crate) fn book(&mut self, fact: Fact) {
        match fact {
            Fact::Acknowledged {
                id,
                begun,
                channel,
                epoch,
                offset,
            } => {
                self.at(id, &channel, &epoch, offset);
                let place = (channel, offset);
                let first = self.acknowledged.entry(id).or_insert_with(|| place.clone());
                if *first != place {
                    self.broke(format!("{id:?} was acknowledged at two places"));
                }
                self.promise(id, begun, None);
            }
            Fact::Accepted { id, begun, due_ms } => self.promise(id, begun, Some(due_ms)),
            Fact::Temporary => self.temporary += 1,
            Fact::Seen {
                subscriber,
                id,
                channel,
                epoch,
                offset,
                unix_ms,
            } => {
                self.at(id, &channel, &epoch, offset);
                self.come(id, unix_ms, None);
                self.seen(subscriber, &channel, offset);
            }
            Fact::Delivered { .. } => self.delivered(fact),
            Fact::Saying { group, id, said } => self.saying(group, id, said),
            Fact::Settled {
                group,
                id,
                is_done,
                at,
            } => {
                let group = self.groups.entry(group).or_default();
                if is_done {
                    group.settled.insert(id, at);
                } else if let Some((_, _, is_kept)) = group.put_off.get_mut(&id) {
                    *is_kept = true;
                }
            }
            Fact::Seeking { group } => {
                let group = self.groups.entry(group).or_default();
                group.is_seeking = true;
                group.since.clear();
                group.settled.clear();
                group.put_off.clear();
            }
            Fact::Sought { group, to, moment } => self.sought(group, to, moment),
            Fact::Told { group, event } => {
                let group = self.groups.entry(group).or_default();
                if group.is_told.insert(event.clone()) {
                    group.told.push(event);
                } else {
                    self.count("told again", 1);
                }
            }
            Fact::Joins(fact) => {
                if let joins::Fact::Part { begun } = fact
                    && self.closed.is_some_and(|closed| begun >= closed)
                {
                    self.broke("a part was acknowledged when the log had vanished".to_owned());
                }
                self.joins.book(fact);
            }
            Fact::Counted(what) => self.count(what, 1),
            Fact::Broken(text) => self.broke(text),
        }
    }

    fn broke(&mut self, text: String) {
        if self.broken.len() < BROKEN_MAX {
            self.broken.push(text);
        }
    }

    /// From now on the publication counts.
    fn promise(&mut self, id: Id, begun: u64, due_ms: Option<u64>) {
        if self.closed.is_some_and(|closed| begun >= closed) {
            self.broke(format!("{id:?} was acknowledged when the log had vanished"));
        }
        if self.promised.contains_key(&id) {
            return;
        }
        self.promised.insert(id, Promise { begun, due_ms });
        for group in self.groups.values_mut() {
            let is_wanted = match &group.sought {
                None => !group.events.contains_key(&id),
                Some((to, moment)) => {
                    let is_new = begun >= *moment;
                    let place = self.place.get(&id);
                    (is_new || is_behind(to, place)) && !group.since.contains(&id)
                }
            };
            if is_wanted {
                group.open.insert(id);
            }
        }
    }

    fn come(&mut self, id: Id, unix_ms: u64, published_ms: Option<u64>) {
        let come = self.come.entry(id).or_insert(Come {
            unix_ms,
            published_ms,
        });
        come.unix_ms = come.unix_ms.min(unix_ms);
        come.published_ms = come.published_ms.or(published_ms);
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
        self.stands(id, channel, offset);
    }

    fn stands(&mut self, id: Id, channel: &str, offset: u64) {
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

    fn delivered(&mut self, fact: Fact) {
        let Fact::Delivered {
            group: name,
            id,
            channel,
            offset,
            event,
            attempt,
            published_ms,
            at,
            unix_ms,
        } = fact
        else {
            return;
        };
        self.stands(id, &channel, offset);
        self.come(id, unix_ms, Some(published_ms));
        let (nature, attempts_min) = (self.nature(), self.attempts_min);
        let is_clock_false = self.is_clock_false;
        let group = self.groups.entry(name).or_default();
        group.deliveries += 1;
        group.since.insert(id);
        group.open.remove(&id);
        let mut broken = Vec::new();
        if let Some(done) = group.settled.get(&id).filter(|_| !group.is_seeking) {
            group.after_done += 1;
            if group.rules.is_synced {
                self.twice += 1;
                let ago = at.saturating_duration_since(*done);
                broken.push(format!(
                    "{name}: {id:?} came again, as attempt {attempt}, {ago:?} after it was done with sync"
                ));
            }
        }
        if let Some((before, until, is_kept)) = group.put_off.remove(&id) {
            if group.is_seeking {
                // It may be of the time before.
            } else if attempt <= before && is_kept {
                broken.push(format!(
                    "{name}: {id:?} came as attempt {attempt}, after attempt {before} was refused with sync"
                ));
            } else if attempt > before && at + MILLISECOND < until && !is_clock_false {
                self.early += 1;
                let early = until - at;
                broken.push(format!(
                    "{name}: {id:?} was put off and came {early:?} before its time"
                ));
            }
        }
        if attempt > 1 && !(nature.is_poisoned)(id) && !(nature.is_hesitant)(id) {
            group.tried.insert(id);
        }
        match group.events.get(&id) {
            Some(first) if *first == event => {}
            Some(first) => {
                self.twice += 1;
                broken.push(format!("{name}: {id:?} came as {first} and as {event}"));
            }
            None => {
                group.events.insert(id, event);
                let line = match group.rules.line {
                    Line::None => None,
                    Line::Channel => Some(channel.clone()),
                    Line::Customer => Some(format!("customer {}", (nature.customer)(id))),
                    Line::Lane => Some(format!("{channel} lane {}", (nature.lane)(id))),
                };
                if let Some(line) = line {
                    let key = (line.clone(), channel.clone());
                    let last = group.last.entry(key).or_insert(0);
                    if offset <= *last {
                        self.disorder += 1;
                        broken.push(format!(
                            "{name}: {channel} {offset} of {line} came first after {last}"
                        ));
                    }
                    *last = (*last).max(offset);
                    if let Some(before) = group.front.insert(line.clone(), id)
                        && !group.finished.contains(&before)
                    {
                        self.disorder += 1;
                        broken.push(format!(
                            "{name}: {id:?} of {line} came before {before:?} was done, which may take {attempts_min} attempts"
                        ));
                    }
                }
            }
        }
        broken.into_iter().for_each(|text| self.broke(text));
    }

    fn saying(&mut self, group: &'static str, id: Id, said: Said) {
        let attempts_min = self.attempts_min;
        let group = self.groups.entry(group).or_default();
        match said {
            Said::Done => {
                group.finished.insert(id);
            }
            Said::Failed(attempt) => {
                if attempt >= attempts_min {
                    group.finished.insert(id);
                }
            }
            Said::Later(attempt, until) => {
                group.put_off.insert(id, (attempt, until, false));
                self.count("put off", 1);
            }
        }
    }

    /// The group has begun anew: what it takes back must come again, and what it has passed over need not come.
    fn sought(&mut self, name: &'static str, to: Sought, moment: u64) {
        let group = self.groups.entry(name).or_default();
        group.is_seeking = false;
        // Said before the group began anew, or nobody knows whether it was.
        group.settled.clear();
        group.put_off.clear();
        let is_wanted = |(id, promise): (&Id, &Promise)| {
            let wanted = promise.begun >= moment || is_behind(&to, self.place.get(id));
            (wanted && !group.since.contains(id)).then_some(*id)
        };
        let open: BTreeSet<Id> = self.promised.iter().filter_map(is_wanted).collect();
        let skipped = group.open.difference(&open).count() as u64;
        let again = open.difference(&group.open).count() as u64;
        group.open = open;
        group.sought = Some((to, moment));
        self.count("sought", 1);
        self.count("taken back", again);
        self.count("skipped", skipped);
    }

    /// What still has to come before the books can be closed; `None` if nothing has.
    pub(crate) fn missing(&self, subscribers: u32) -> Option<String> {
        let mut tops: BTreeMap<&str, u64> = BTreeMap::new();
        for id in self.promised.keys() {
            let place = self.acknowledged.get(id).or_else(|| self.place.get(id));
            let Some((channel, offset)) = place else {
                return Some(format!("{id:?} was delayed and has not come"));
            };
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
            if let Some(first) = group.open.first() {
                let count = group.open.len();
                return Some(format!(
                    "{name} waits for {count} deliveries, among them {first:?}"
                ));
            }
        }
        None
    }

    /// Closes the books.
    pub(crate) fn close(&mut self, subscribers: u32, letters: &Letters) {
        let nature = self.nature();
        for subscriber in 0..subscribers {
            let has = |(channel, offset): &(String, u64)| {
                self.next
                    .get(&(subscriber, channel.clone()))
                    .is_some_and(|next| offset < next)
            };
            let is_lost = |id: &&Id| !self.place.get(*id).is_some_and(has);
            self.lost += self.promised.keys().filter(is_lost).count() as u64;
        }
        let poisoned: Vec<Id> = self
            .promised
            .keys()
            .copied()
            .filter(|id| (nature.is_poisoned)(*id))
            .collect();
        let mut broken = Vec::new();
        for (id, promise) in &self.promised {
            let (Some(due_ms), Some(come)) = (promise.due_ms, self.come.get(id)) else {
                continue;
            };
            let is_early = come.published_ms.is_some_and(|at| at < due_ms)
                || (!self.is_clock_false && come.unix_ms + 2 < due_ms);
            *self.counted.entry("delayed").or_default() += 1;
            if is_early {
                self.early += 1;
                broken.push(format!("{id:?} was due at {due_ms}: {come:?}"));
            }
        }
        let empty = (BTreeSet::new(), Vec::new());
        for (name, group) in &self.groups {
            self.lost += group.open.len() as u64;
            let wanted: BTreeSet<&String> = poisoned
                .iter()
                .filter_map(|id| group.events.get(id))
                .collect();
            let dead: BTreeSet<&String> =
                letters.kept.get(name).unwrap_or(&empty.0).iter().collect();
            self.poisoned += poisoned.len();
            self.dead += dead.len();
            if wanted != dead {
                let healthy: Vec<_> = dead.difference(&wanted).collect();
                let missing: Vec<_> = wanted.difference(&dead).collect();
                broken.push(format!("{name}: {} dead letters were not poisoned, {} poisoned are not dead: {:?}, {:?}", healthy.len(), missing.len(), healthy.first(), missing.first()));
            }
            let mut known = BTreeSet::new();
            let announced = letters.announced.get(name).unwrap_or(&empty.1).iter();
            let announced: Vec<&String> = announced.filter(|event| known.insert(*event)).collect();
            let told: Vec<&String> = group.told.iter().collect();
            if announced != told {
                let at = announced.iter().zip(&told).take_while(|(a, b)| a == b);
                broken.push(format!(
                    "{name}: {} letters were announced and {} told, the same in the same order up to {}",
                    announced.len(),
                    told.len(),
                    at.count(),
                ));
            }
            if told.iter().copied().collect::<BTreeSet<_>>() != dead {
                broken.push(format!("{name}: what was told is not what is dead"));
            }
            for id in &group.tried {
                let begun = self.promised.get(id).map(|promise| promise.begun);
                let is_of = |range: &Range<u64>| begun.is_some_and(|at| range.contains(&at));
                if self.untried.iter().any(is_of) {
                    broken.push(format!(
                        "{name}: {id:?} needed a second attempt, and nobody had the first"
                    ));
                }
            }
        }
        let (of_joins, joined, given_up) = self.joins.close(&letters.joins, self.is_clock_false);
        broken.extend(of_joins);
        self.count("runs joined", joined);
        self.count("runs given up", given_up);
        if self.lost > 0 {
            broken.push(format!("{} acknowledged and lost", self.lost));
        }
        broken.truncate(BROKEN_MAX);
        self.broken.extend(broken);
    }

    /// The books of a log that is not there any more: what was promised is void, what was broken stays.
    pub(crate) fn void(&mut self) {
        self.count("void with their log", self.promised.len() as u64);
    }

    /// Both books together.
    pub(crate) fn and(mut self, other: Self) -> Self {
        self.before += other.promised.len() + other.before;
        for (name, group) in other.groups {
            let own = self.groups.entry(name).or_default();
            own.deliveries += group.deliveries;
            own.after_done += group.after_done;
        }
        for (what, count) in other.counted {
            *self.counted.entry(what).or_default() += count;
        }
        self.temporary += other.temporary;
        self.twice += other.twice;
        self.disorder += other.disorder;
        self.early += other.early;
        self.lost += other.lost;
        self.poisoned += other.poisoned;
        self.dead += other.dead;
        self.broken.extend(other.broken);
        self
    }

    /// Every promise was kept.
    pub(crate) fn is_kept(&self) -> bool {
        self.broken.is_empty() && self.lost + self.twice + self.disorder + self.early == 0
    }

    /// The first broken promises.
    pub(crate) fn broken(&self) -> &[String] {
        &self.broken
    }
}

fn is_behind(to: &Sought, place: Option<&(String, u64)>) -> bool {
    match to {
        Sought::All => true,
        Sought::New => false,
        Sought::From(channel, first) => {
            place.is_some_and(|(at, offset)| at == channel && offset >= first)
        }
    }
}

impl fmt::Display for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let after_done: u64 = self.groups.values().map(|group| group.after_done).sum();
        write!(
            f,
            "{} acknowledged, {} lost, {} twice, {} out of order, {} too early, {} poisoned, {} dead letters; {} deliveries, {after_done} of them after they were done; {} temporary errors",
            self.promised.len() + self.before,
            self.lost,
            self.twice,
            self.disorder,
            self.early,
            self.poisoned,
            self.dead,
            self.deliveries(),
            self.temporary,
        )?;
        let mut counted = self.counted.iter();
        counted.try_for_each(|(what, count)| write!(f, ", {count} {what}"))
    }
}
