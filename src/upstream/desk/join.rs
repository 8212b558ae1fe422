//! Joins: which publications belong together, when there are all of them, and when it is too late. Knows no clock and no log: it is told
//! which parts there are, in the order of the log, and says which joins are over.
//!
//! A part waits in a line of the log, one for each key; of it only its place and its time are here. A join is a function of the parts
//! that are not done, in the order of the log, and of their times, so whoever reads them again after a kill comes to the same joins.
//! What of the last ones was appended or given up, and perhaps not settled yet, is remembered by part (`Fates`).

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_128_with_seed;

use super::encode::Given;
use crate::limits::{JOIN_BYTES_MAX, JOIN_PARTS_MAX, JOINS_PARTS_MAX};
use crate::model::{Entry, EventId};
use crate::upstream::log::LineId;

/// What was published so much later than a join could wait shows that everything before has come: clocks differ a little.
const SEEN_BEYOND_MS: u64 = 1000;
/// Parts of the joins that are closed with one write.
const CLOSED_AT_ONCE: usize = 256;
/// A letter is as much work as so many parts of a publication.
const LETTER_WEIGHS: usize = 4;
/// Bytes of them.
const CLOSED_BYTES: usize = 2 * JOIN_BYTES_MAX;
/// Parts of earlier joins that are remembered beside those that were closed last.
const FATES_KEPT: usize = 64;

/// A part that has come, as its trigger reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrival<'a> {
    /// What it is.
    pub part: Part,
    /// What it has in common with the others.
    pub key: Cow<'a, [u8]>,
    /// How many there are, where it says so or the configuration does.
    pub expected: Option<u32>,
}

impl Arrival<'_> {
    /// Without the publication.
    #[must_use]
    pub fn into_owned(self) -> Arrival<'static> {
        Arrival {
            part: self.part,
            key: self.key.into_owned().into(),
            expected: self.expected,
        }
    }
}

/// A part that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Its place in the log.
    pub cursor: u64,
    /// What it is called. The same one twice counts once.
    pub event: EventId,
    /// When it was published, Unix milliseconds.
    pub came_ms: u64,
    /// Bytes of its record.
    pub bytes: usize,
}

impl Part {
    /// Of an entry. One that is tried again counts from now on.
    #[must_use]
    pub fn of(entry: &Entry, now_ms: u64) -> Self {
        let record = &entry.record;
        Self {
            cursor: entry.cursor,
            event: record.event,
            came_ms: match record.origin {
                Some(_) => now_ms,
                None => record.unix_ms,
            },
            bytes: record.bytes(),
        }
    }
}

/// A join that is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Closing {
    /// Where its parts wait.
    pub line: LineId,
    /// In the order of the log.
    pub parts: Vec<Part>,
    /// What becomes of them.
    pub end: End,
}

/// What becomes of the parts of a join.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// All are there: they become one publication.
    Joined,
    /// They are dead letters, for this reason.
    GivenUp(Box<str>),
    /// That was done before, or the part is there twice: nothing more comes of it.
    Done,
}

/// What has happened since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct JoinCounts {
    /// Joins that wait for parts.
    pub open: u64,
    /// Their parts.
    pub parts: u64,
    /// Joins that became a publication.
    pub completed: u64,
    /// Joins that were given up.
    pub expired: u64,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Joins {
    /// Given to the trigger, and not looked at yet.
    pub incoming: VecDeque<Given>,
    /// What is closed is stored with the next word of the log only.
    pub is_unstored: bool,
    seed: u64,
    open: HashMap<u128, Open, FixedState>,
    /// The open ones by when they are over.
    due: BTreeSet<(u64, u128)>,
    /// Parts of the open ones.
    parts: usize,
    closing: VecDeque<Closing>,
    /// Places of their parts.
    closing_parts: BTreeSet<u64>,
    /// Everything that was published before has come.
    seen_ms: u64,
    fates: Fates,
    completed: u64,
    expired: u64,
}

#[derive(Debug)]
struct Open {
    parts: Vec<Part>,
    bytes: usize,
    due_ms: u64,
    expected: Option<u32>,
}

impl Joins {
    /// Nothing waits; lines have other names than before. What was done stays known.
    pub fn restart(&mut self, seed: u64) {
        self.seed = seed;
        self.open.clear();
        self.due.clear();
        self.closing.clear();
        self.closing_parts.clear();
        (self.parts, self.seen_ms) = (0, 0);
    }

    /// The group begins anew: nothing that was done counts.
    pub fn forget(&mut self) {
        self.restart(self.seed);
        self.incoming.clear();
        self.fates = Fates::default();
    }

    /// How it does.
    #[must_use]
    pub fn counts(&self) -> JoinCounts {
        JoinCounts {
            open: self.open.len() as u64,
            parts: self.waiting() as u64,
            completed: self.completed,
            expired: self.expired,
        }
    }

    /// Parts that wait in lines.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.parts + self.closing_parts.len()
    }

    /// Where the parts of a key wait.
    #[must_use]
    pub fn line_of(&self, key: &[u8]) -> LineId {
        line(xxh3_128_with_seed(key, self.seed))
    }

    /// A part has come, or comes once more. It waits in the line of its key in any case.
    pub fn add(&mut self, within: Duration, arrival: &Arrival<'_>) {
        let part = arrival.part;
        let key = xxh3_128_with_seed(&arrival.key, self.seed);
        self.seen_ms = self.seen_ms.max(part.came_ms);
        let is_it = |known: &Part| known.cursor == part.cursor;
        if self.closing_parts.contains(&part.cursor) {
            return;
        }
        if let Some(end) = self.fates.of(&part) {
            self.close(key, vec![part], end);
            return;
        }
        if let Some(open) = self.open.get(&key) {
            if open.parts.iter().any(is_it) {
                return;
            }
            if open.parts.iter().any(|known| known.event == part.event) {
                self.close(key, vec![part], End::Done);
                return;
            }
            if part.came_ms > open.due_ms {
                self.give_up(key, within);
            }
        }
        let within_ms = u64::try_from(within.as_millis()).unwrap_or(u64::MAX);
        let due_ms = part.came_ms.saturating_add(within_ms);
        let open = self.open.entry(key).or_insert_with(|| Open {
            parts: Vec::new(),
            bytes: 0,
            due_ms,
            expected: None,
        });
        let before = open.parts.len();
        if let Some(says) = arrival.expected
            && let Some(reason) = contradiction(says, open.expected, before)
        {
            self.close(key, vec![part], End::GivenUp(reason.into()));
            return;
        }
        if before == 0 {
            self.due.insert((open.due_ms, key));
        }
        open.expected = open.expected.or(arrival.expected);
        open.bytes += part.bytes;
        let at = open.parts.partition_point(|one| one.cursor < part.cursor);
        open.parts.insert(at, part);
        self.parts += 1;
        let has = open.parts.len();
        let is_too_large = open.bytes > JOIN_BYTES_MAX;
        let is_full = has >= JOIN_PARTS_MAX as usize;
        if is_too_large {
            self.end(
                key,
                End::GivenUp(
                    format!("join: its parts have more than {JOIN_BYTES_MAX} bytes").into(),
                ),
            );
        } else if open
            .expected
            .is_some_and(|expected| expected as usize == has)
        {
            self.end(key, End::Joined);
        } else if is_full {
            self.end(
                key,
                End::GivenUp(
                    format!("join: {has} parts are there, and none says how many belong together")
                        .into(),
                ),
            );
        }
        while self.parts > JOINS_PARTS_MAX
            && let Some(&(_, first)) = self.due.first()
        {
            let reason = format!("join: more than {JOINS_PARTS_MAX} parts wait");
            self.end(first, End::GivenUp(reason.into()));
        }
    }

    /// Some wait for parts that are to have come by now.
    #[must_use]
    pub fn are_overdue(&self, now_ms: u64) -> bool {
        self.next_due().is_some_and(|due| due <= now_ms)
    }

    /// When the next one is over, Unix milliseconds.
    #[must_use]
    pub fn next_due(&self) -> Option<u64> {
        self.due.first().map(|&(due, _)| due)
    }

    /// Gives up what waits too long, once everything that could have belonged to it has come. Whether all that the log has `is_seen`, or
    /// what has come shows it. `true`: of some it is not known.
    pub fn expire(&mut self, now_ms: u64, within: Duration, is_seen: bool) -> bool {
        while let Some(&(due, key)) = self.due.first()
            && due <= now_ms
        {
            if !is_seen && self.seen_ms < due.saturating_add(SEEN_BEYOND_MS) {
                return true;
            }
            self.give_up(key, within);
        }
        false
    }

    /// Some are over.
    #[must_use]
    pub fn are_closing(&self) -> bool {
        !self.closing.is_empty()
    }

    /// Those that are closed next, together.
    pub fn take_closing(&mut self) -> Vec<Closing> {
        let mut taken = Vec::new();
        let (mut parts, mut bytes) = (0, 0);
        while parts < CLOSED_AT_ONCE
            && bytes < CLOSED_BYTES
            && let Some(closing) = self.closing.pop_front()
        {
            let weighs = match closing.end {
                End::GivenUp(_) => LETTER_WEIGHS,
                End::Joined | End::Done => 1,
            };
            parts += closing.parts.len() * weighs;
            for part in &closing.parts {
                self.closing_parts.remove(&part.cursor);
            }
            bytes += closing.parts.iter().map(|part| part.bytes).sum::<usize>();
            taken.push(closing);
        }
        taken
    }

    /// They could not be closed yet.
    pub fn put_back(&mut self, closings: Vec<Closing>) {
        for closing in closings.into_iter().rev() {
            let cursors = closing.parts.iter().map(|part| part.cursor);
            self.closing_parts.extend(cursors);
            self.closing.push_front(closing);
        }
    }

    /// They are appended, or about to be given up: what is to be kept before any of their parts is settled.
    pub fn remember(&mut self, closings: &[Closing]) -> Vec<u8> {
        self.fates.add(closings);
        serde_json::to_vec(&self.fates.closed).unwrap_or_default()
    }

    /// The last so many were not kept after all.
    pub fn take_back(&mut self, closings: usize) {
        self.fates.take_back(closings);
    }

    /// What an earlier process has kept.
    pub fn recall(&mut self, kept: &[u8]) {
        self.fates = Fates::read(kept);
    }

    /// One became a publication.
    pub fn count_completed(&mut self) {
        self.completed += 1;
    }

    /// One was given up.
    pub fn count_expired(&mut self) {
        self.expired += 1;
    }

    fn give_up(&mut self, key: u128, within: Duration) {
        let Some(open) = self.open.get(&key) else {
            return;
        };
        let has = open.parts.len();
        let reason = match open.expected {
            Some(expected) => {
                let missing = (expected as usize).saturating_sub(has);
                format!("join: {missing} of {expected} parts did not come within {within:?}")
            }
            None => format!(
                "join: {has} came within {within:?}, and none says how many belong together"
            ),
        };
        self.end(key, End::GivenUp(reason.into()));
    }

    fn end(&mut self, key: u128, end: End) {
        if let Some(open) = self.open.remove(&key) {
            self.expired += u64::from(end != End::Joined);
            self.due.remove(&(open.due_ms, key));
            self.parts -= open.parts.len();
            self.close(key, open.parts, end);
        }
    }

    /// Letters are made a part of them at a time: together they may be large.
    fn close(&mut self, key: u128, parts: Vec<Part>, end: End) {
        let line = line(key);
        let cursors = parts.iter().map(|part| part.cursor);
        self.closing_parts.extend(cursors);
        if end == End::Joined {
            self.closing.push_back(Closing { line, parts, end });
            return;
        }
        let (mut some, mut bytes) = (Vec::new(), 0);
        let most = CLOSED_AT_ONCE / LETTER_WEIGHS;
        for part in parts {
            if !some.is_empty() && (bytes + part.bytes > JOIN_BYTES_MAX || some.len() >= most) {
                let parts = std::mem::take(&mut some);
                let end = end.clone();
                self.closing.push_back(Closing { line, parts, end });
                bytes = 0;
            }
            bytes += part.bytes;
            some.push(part);
        }
        self.closing.push_back(Closing {
            line,
            parts: some,
            end,
        });
    }
}

const fn line(key: u128) -> LineId {
    LineId(key as u64)
}

/// Why a part that says so does not belong to others.
fn contradiction(says: u32, expected: Option<u32>, has: usize) -> Option<String> {
    match expected {
        Some(expected) if expected != says => Some(format!(
            "join: the part says that {says} belong together, others say {expected}"
        )),
        None if (says as usize) <= has => Some(format!(
            "join: the part says that {says} belong together, and {has} came before it"
        )),
        Some(_) | None => None,
    }
}

/// What became of the joins that were closed last, by part: some of their parts may come again.
#[derive(Debug, Default)]
struct Fates {
    closed: VecDeque<Closed>,
    /// By place; the number of the join is that of the last one that had it.
    by_cursor: BTreeMap<u64, Fate>,
    /// Number of the next join.
    next: u64,
}

#[derive(Debug)]
struct Fate {
    event: EventId,
    end: End,
    number: u64,
}

/// As it is kept.
#[derive(Debug, Serialize, Deserialize)]
struct Closed {
    /// Place and name of each part.
    parts: Vec<(u64, Box<str>)>,
    /// Why it was given up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reason: Option<Box<str>>,
}

impl Fates {
    fn read(kept: &[u8]) -> Self {
        let closed = serde_json::from_slice::<VecDeque<Closed>>(kept).unwrap_or_default();
        let mut fates = Self::default();
        for closed in closed {
            fates.push(closed);
        }
        fates
    }

    /// A log may have been replaced by another one, so the name has to be the same, too.
    fn of(&self, part: &Part) -> Option<End> {
        let fate = self.by_cursor.get(&part.cursor)?;
        (fate.event == part.event).then(|| fate.end.clone())
    }

    fn add(&mut self, closings: &[Closing]) {
        let mut kept: usize = self.closed.iter().map(|closed| closed.parts.len()).sum();
        while kept > FATES_KEPT
            && let Some(oldest) = self.closed.pop_front()
        {
            kept -= oldest.parts.len();
            let number = self.next - self.closed.len() as u64 - 1;
            self.remove(&oldest, number);
        }
        for closing in closings {
            let parts = closing.parts.iter();
            self.push(Closed {
                parts: parts
                    .map(|part| (part.cursor, part.event.to_string().into()))
                    .collect(),
                reason: match &closing.end {
                    End::GivenUp(reason) => Some(reason.clone()),
                    End::Joined | End::Done => None,
                },
            });
        }
    }

    fn push(&mut self, closed: Closed) {
        let end = match &closed.reason {
            Some(reason) => End::GivenUp(reason.clone()),
            None => End::Done,
        };
        for (cursor, event) in &closed.parts {
            let fate = Fate {
                event: EventId::parse(event).unwrap_or_default(),
                end: end.clone(),
                number: self.next,
            };
            self.by_cursor.insert(*cursor, fate);
        }
        self.closed.push_back(closed);
        self.next += 1;
    }

    fn take_back(&mut self, closings: usize) {
        for _ in 0..closings {
            if let Some(last) = self.closed.pop_back() {
                self.next -= 1;
                self.remove(&last, self.next);
            }
        }
    }

    fn remove(&mut self, closed: &Closed, number: u64) {
        for (cursor, _) in &closed.parts {
            if self
                .by_cursor
                .get(cursor)
                .is_some_and(|fate| fate.number == number)
            {
                self.by_cursor.remove(cursor);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WITHIN: Duration = Duration::from_secs(10);

    fn part(cursor: u64, came_ms: u64) -> Part {
        Part {
            cursor,
            event: EventId(u128::from(cursor)),
            came_ms,
            bytes: 100,
        }
    }

    fn add(joins: &mut Joins, key: &str, part: Part, expected: Option<u32>) {
        let arrival = Arrival {
            part,
            key: key.as_bytes().into(),
            expected,
        };
        joins.add(WITHIN, &arrival);
    }

    /// What is over: places of the parts, and what becomes of them.
    fn closed(joins: &mut Joins) -> Vec<(Vec<u64>, String)> {
        let said = |closing: Closing| {
            let places = closing.parts.iter().map(|part| part.cursor).collect();
            let end = match closing.end {
                End::Joined => "joined".to_owned(),
                End::Done => "done".to_owned(),
                End::GivenUp(reason) => reason.into_string(),
            };
            (places, end)
        };
        joins.take_closing().into_iter().map(said).collect()
    }

    fn is(cursors: &[u64], end: &str) -> (Vec<u64>, String) {
        (cursors.to_vec(), end.to_owned())
    }

    #[test]
    fn parts_of_one_key_are_joined_when_all_are_there_whatever_comes_between() {
        let mut joins = Joins::default();
        for (key, cursor) in [("a", 1), ("b", 2), ("b", 3), ("a", 4), ("b", 5), ("a", 6)] {
            add(&mut joins, key, part(cursor, 0), Some(3));
        }
        assert_eq!(
            closed(&mut joins),
            [is(&[2, 3, 5], "joined"), is(&[1, 4, 6], "joined")]
        );
        assert_eq!(joins.counts().open, 0);
        assert_ne!(joins.line_of(b"a"), joins.line_of(b"b"));
    }

    #[test]
    fn next_parts_of_a_key_are_another_join() {
        let mut joins = Joins::default();
        for cursor in 1..=5 {
            add(&mut joins, "a", part(cursor, 0), Some(2));
        }
        assert_eq!(
            closed(&mut joins),
            [is(&[1, 2], "joined"), is(&[3, 4], "joined")]
        );
        assert_eq!(joins.counts().parts, 1);
    }

    #[test]
    fn one_part_may_say_for_all_how_many_there_are_and_who_says_otherwise_is_out() {
        let mut joins = Joins::default();
        add(&mut joins, "a", part(1, 0), None);
        add(&mut joins, "a", part(2, 0), Some(3));
        add(&mut joins, "a", part(3, 0), Some(4));
        add(&mut joins, "a", part(4, 0), None);
        let says = "join: the part says that 4 belong together, others say 3";
        assert_eq!(
            closed(&mut joins),
            [is(&[3], says), is(&[1, 2, 4], "joined")]
        );
        add(&mut joins, "a", part(5, 0), None);
        add(&mut joins, "a", part(6, 0), None);
        add(&mut joins, "a", part(7, 0), Some(2));
        let says = "join: the part says that 2 belong together, and 2 came before it";
        assert_eq!(closed(&mut joins), [is(&[7], says)]);
    }

    #[test]
    fn same_event_counts_once_and_the_same_place_again_changes_nothing() {
        let mut joins = Joins::default();
        add(&mut joins, "a", part(1, 0), Some(2));
        add(&mut joins, "a", part(1, 0), Some(2));
        assert!(!joins.are_closing());
        let twice = Part {
            cursor: 9,
            ..part(1, 0)
        };
        add(&mut joins, "a", twice, Some(2));
        assert_eq!(closed(&mut joins), [is(&[9], "done")]);
        add(&mut joins, "a", part(10, 0), Some(2));
        add(&mut joins, "a", part(10, 0), Some(2));
        assert_eq!(closed(&mut joins), [is(&[1, 10], "joined")]);
    }

    #[test]
    fn what_is_late_is_given_up_once_it_is_known_that_nothing_more_is_behind() {
        let mut joins = Joins::default();
        add(&mut joins, "a", part(1, 1000), Some(3));
        add(&mut joins, "a", part(2, 2000), Some(3));
        assert_eq!(joins.next_due(), Some(11_000));
        assert!(!joins.expire(10_999, WITHIN, true));
        assert!(!joins.are_closing());
        assert!(joins.expire(20_000, WITHIN, false), "more may be behind");
        add(&mut joins, "b", part(3, 11_999), Some(3));
        assert!(joins.expire(20_000, WITHIN, false), "clocks differ");
        add(&mut joins, "b", part(4, 12_000), Some(3));
        assert!(!joins.expire(20_000, WITHIN, false));
        let reason = "join: 1 of 3 parts did not come within 10s";
        assert_eq!(closed(&mut joins), [is(&[1, 2], reason)]);
        assert!(!joins.expire(22_000, WITHIN, true));
        let reason = "join: 1 of 3 parts did not come within 10s";
        assert_eq!(closed(&mut joins), [is(&[3, 4], reason)]);
    }

    #[test]
    fn part_that_comes_too_late_for_one_begins_the_next() {
        let mut joins = Joins::default();
        add(&mut joins, "a", part(1, 0), Some(2));
        add(&mut joins, "a", part(2, 10_001), Some(2));
        add(&mut joins, "a", part(3, 10_002), Some(2));
        let reason = "join: 1 of 2 parts did not come within 10s";
        assert_eq!(
            closed(&mut joins),
            [is(&[1], reason), is(&[2, 3], "joined")]
        );
    }

    #[test]
    fn what_was_done_is_done_for_whoever_reads_what_was_kept_and_is_no_part_of_the_next() {
        let mut joins = Joins::default();
        add(&mut joins, "a", part(1, 0), Some(2));
        add(&mut joins, "a", part(2, 0), Some(2));
        add(&mut joins, "b", part(3, 0), Some(2));
        joins.expire(20_000, WITHIN, true);
        let closings = joins.take_closing();
        let kept = joins.remember(&closings);
        let mut joins = Joins::default();
        joins.recall(&kept);
        // The first part was settled before the kill, the second one comes again, and then the next join of the key.
        for cursor in [2, 4, 5] {
            add(&mut joins, "a", part(cursor, 0), Some(2));
        }
        add(&mut joins, "b", part(3, 0), Some(2));
        let reason = "join: 1 of 2 parts did not come within 10s";
        assert_eq!(
            closed(&mut joins),
            [is(&[2], "done"), is(&[4, 5], "joined"), is(&[3], reason)]
        );
        // Another log has another publication there.
        let other = Part {
            event: EventId(77),
            ..part(1, 0)
        };
        add(&mut joins, "c", other, Some(2));
        assert!(!joins.are_closing());
    }

    #[test]
    fn what_is_remembered_is_bounded_and_goes_by_whole_joins() {
        let mut joins = Joins::default();
        for join in 0..200 {
            add(&mut joins, "a", part(2 * join + 1, 0), Some(2));
            add(&mut joins, "a", part(2 * join + 2, 0), Some(2));
            let closings = joins.take_closing();
            joins.remember(&closings);
        }
        assert!(joins.fates.by_cursor.len() <= FATES_KEPT + 2);
        assert_eq!(joins.fates.by_cursor.len() % 2, 0);
    }

    #[test]
    fn parts_that_are_too_large_together_are_letters_a_part_at_a_time() {
        let mut joins = Joins::default();
        let large = |cursor| Part {
            bytes: JOIN_BYTES_MAX / 2,
            ..part(cursor, 0)
        };
        for cursor in 1..=3 {
            add(&mut joins, "a", large(cursor), Some(9));
        }
        let reason = format!("join: its parts have more than {JOIN_BYTES_MAX} bytes");
        assert_eq!(
            closed(&mut joins),
            [is(&[1, 2], &reason), is(&[3], &reason)]
        );
    }

    #[test]
    fn who_waits_longest_makes_room_where_too_much_waits() {
        let mut joins = Joins::default();
        let many = JOINS_PARTS_MAX as u64;
        for n in 1..=many + 1 {
            add(&mut joins, &n.to_string(), part(n, n), Some(2));
        }
        let reason = format!("join: more than {many} parts wait");
        assert_eq!(closed(&mut joins), [is(&[1], &reason)]);
        assert_eq!(joins.waiting(), JOINS_PARTS_MAX);
    }

    #[test]
    fn what_could_not_be_closed_comes_first_again() {
        let mut joins = Joins::default();
        for cursor in 1..=4 {
            add(&mut joins, "a", part(cursor, 0), Some(2));
        }
        let taken = joins.take_closing();
        joins.put_back(taken.clone());
        assert_eq!(joins.take_closing(), taken);
    }
}
