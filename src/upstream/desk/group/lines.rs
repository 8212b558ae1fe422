//! Lines: what has the same key and lane, given in turns.
//!
//! A line has some of its entries here, which may be given, and the rest in the log; those that are here are its first, but for what
//! came back from a failure where the group keeps no order. In an ordered group one of a line is under way at a time, and while
//! that waits for its next attempt, the line waits.

use std::collections::{BTreeSet, VecDeque};

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use super::{Group, State};
use crate::limits::{GROUP_HELD_BYTES_MAX, GROUP_HELD_MAX};
use crate::time::{Instant, Now};
use crate::upstream::desk::picks::Picker;
use crate::upstream::desk::settings::Settings;
use crate::upstream::desk::turns::{LANES, Place};
use crate::upstream::log::{FromLine, Leased, Line as LogLine, LineId, Settled};

/// Lines that are read from the log at a time.
const READ_AT_ONCE: usize = 16;

/// One line.
#[derive(Debug)]
pub(super) struct Line {
    lane: usize,
    weight: u32,
    /// Entries that may be given.
    ready: BTreeSet<u64>,
    /// Entries that keep others of the line back: under way, or becoming a dead letter.
    active: usize,
    /// Entries that the log has of it.
    in_log: u64,
    /// Entries that the log gives back when their time has come, as an earlier process said.
    delayed: u64,
    /// The one that this process has given back so.
    head: Option<u64>,
    /// The log is asked for its entries.
    is_loading: bool,
    /// It stands among those that take turns.
    in_turns: bool,
    /// Entries that were given in this turn.
    served: u32,
    /// Nothing of it is given before.
    not_before: Instant,
}

impl Line {
    fn new(place: Place) -> Self {
        Self {
            lane: place.lane,
            weight: place.weight,
            ready: BTreeSet::new(),
            active: 0,
            in_log: 0,
            delayed: 0,
            head: None,
            is_loading: false,
            in_turns: false,
            served: 0,
            not_before: Instant::START,
        }
    }

    fn has_any(&self) -> bool {
        !self.ready.is_empty() || self.in_log > 0 && !self.is_loading
    }

    /// Nothing of it is here.
    fn clear(&mut self) {
        self.ready.clear();
        (self.active, self.served, self.in_turns) = (0, 0, false);
    }

    fn is_over(&self) -> bool {
        self.ready.is_empty()
            && self.active == 0
            && self.in_log == 0
            && self.delayed == 0
            && self.head.is_none()
            && !self.is_loading
            && !self.in_turns
    }
}

/// All lines of a group.
#[derive(Debug, Default)]
pub(super) struct Lines {
    by_id: HashMap<LineId, Line, FixedState>,
    /// Those that have something to give and may, by lane.
    turns: [VecDeque<LineId>; LANES],
    /// How much each lane is behind its share.
    owed: [i64; LANES],
    /// Lines that wait for their rate.
    waiting: BTreeSet<(Instant, LineId)>,
    /// Lines whose entries have to be read from the log.
    hungry: BTreeSet<LineId>,
    /// Lines whose entries are on their way, by lane.
    loading: [usize; LANES],
    /// Entries that are ready here.
    ready: usize,
    /// Entries that are in the log's lines.
    in_log: u64,
    /// Entries that come back to lines when their time has come.
    delayed: u64,
}

impl Lines {
    /// As far as they are in the log, or on their way from there.
    fn in_the_log(mut self) -> Self {
        self.by_id.values_mut().for_each(Line::clear);
        Self {
            by_id: self.by_id,
            hungry: self.hungry,
            loading: self.loading,
            in_log: self.in_log,
            delayed: self.delayed,
            ..Self::default()
        }
    }

    pub(super) fn count(&self) -> usize {
        self.by_id.len()
    }

    pub(super) fn in_log(&self) -> u64 {
        self.in_log
    }

    /// So many entries are in the log's lines, which others than this group take turns at.
    pub(super) fn keep(&mut self, in_log: u64) {
        self.in_log = in_log;
    }

    pub(super) fn delayed(&self) -> u64 {
        self.delayed
    }

    pub(super) fn ready(&self) -> usize {
        self.ready
    }

    /// Lines that could give something now.
    pub(super) fn in_turns(&self) -> usize {
        self.turns.iter().map(VecDeque::len).sum()
    }

    pub(super) fn next_due(&self) -> Option<Instant> {
        self.waiting.first().map(|&(at, _)| at)
    }
}

impl Group {
    /// Whose turn it is has to be decided.
    pub(super) fn has_lines(&self) -> bool {
        self.settings.ordered || self.settings.turns.are_taken()
    }

    /// Nothing of the line may be given now, whatever the time.
    fn is_blocked(&self, line: &Line) -> bool {
        if self.settings.ordered {
            return line.active > 0 || line.delayed > 0 || line.head.is_some();
        }
        let bound = self.settings.turns.concurrency as usize;
        bound > 0 && line.active >= bound
    }

    /// The line stands where it belongs: in turns, in wait for its rate, or nowhere.
    pub(super) fn place_line(&mut self, now: Now, id: LineId) {
        let Some(line) = self.lines.by_id.get(&id) else {
            return;
        };
        if line.in_turns {
            return;
        }
        if line.is_over() && line.not_before <= now.at {
            self.lines.by_id.remove(&id);
            return;
        }
        if line.not_before > now.at {
            self.lines.waiting.insert((line.not_before, id));
            return;
        }
        if !line.has_any() || self.is_blocked(line) {
            return;
        }
        if let Some(line) = self.lines.by_id.get_mut(&id) {
            line.in_turns = true;
            line.served = 0;
            self.lines.turns[line.lane].push_back(id);
        }
    }

    /// Time has passed: lines whose rate allows more take turns again.
    pub(super) fn wake_lines(&mut self, now: Now) {
        while let Some(&(at, id)) = self.lines.waiting.first() {
            if at > now.at {
                break;
            }
            self.lines.waiting.pop_first();
            self.place_line(now, id);
        }
    }

    /// The entry that is next, if there is one here.
    pub(super) fn next_in_lines(&mut self, now: Now) -> Option<u64> {
        if self.is_sorting {
            return None;
        }
        loop {
            let lane = self.next_lane()?;
            // Where it is another lane's turn whose entries are on their way, nobody is given what is less urgent.
            let id = *self.lines.turns[lane].front()?;
            let line = self.lines.by_id.get(&id);
            let may = line.is_some_and(|line| {
                line.has_any() && line.not_before <= now.at && !self.is_blocked(line)
            });
            let first = line.and_then(|line| line.ready.first().copied());
            match first.filter(|_| may) {
                Some(cursor) => return Some(cursor),
                None => {
                    self.lines.turns[lane].pop_front();
                    let Some(line) = self.lines.by_id.get_mut(&id) else {
                        continue;
                    };
                    line.in_turns = false;
                    if may && line.in_log > 0 {
                        line.is_loading = true;
                        self.lines.loading[lane] += 1;
                        self.lines.hungry.insert(id);
                    } else {
                        self.place_line(now, id);
                    }
                }
            }
        }
    }

    /// The lane that is furthest behind its share, of those that have something.
    fn next_lane(&self) -> Option<usize> {
        let lines = &self.lines;
        let has_lanes = self.settings.turns.lanes.is_some();
        let with_some = (0..LANES)
            .filter(|lane| !lines.turns[*lane].is_empty() || has_lanes && lines.loading[*lane] > 0);
        with_some.max_by_key(|lane| (self.lines.owed[*lane], *lane))
    }

    fn lane_served(&mut self, served: usize) {
        let Some(lanes) = &self.settings.turns.lanes else {
            return;
        };
        let mut all = 0;
        for lane in 0..LANES {
            if lane == served || !self.lines.turns[lane].is_empty() {
                self.lines.owed[lane] += i64::from(lanes.weights[lane]);
                all += i64::from(lanes.weights[lane]);
            } else {
                self.lines.owed[lane] = 0;
            }
        }
        self.lines.owed[served] -= all;
    }

    /// The entry that was next is given.
    pub(super) fn leave_line(&mut self, now: Now, id: LineId, cursor: u64) {
        let pause = self.settings.turns.pause();
        let Some(line) = self.lines.by_id.get_mut(&id) else {
            return;
        };
        if line.ready.remove(&cursor) {
            self.lines.ready -= 1;
        }
        line.active += 1;
        line.served += 1;
        if let Some(pause) = pause {
            line.not_before = line.not_before.max(now.at) + pause;
        }
        let (lane, is_over) = (line.lane, line.served >= line.weight);
        if line.in_turns && is_over {
            // It was at the front, or a worker had no room for what was.
            line.served = 0;
            let turns = &mut self.lines.turns[lane];
            if turns.front() == Some(&id) {
                turns.rotate_left(1);
            }
        }
        self.lane_served(lane);
    }

    /// An entry keeps nothing of its line back any more.
    pub(super) fn free_line(&mut self, now: Now, id: LineId) {
        if let Some(line) = self.lines.by_id.get_mut(&id) {
            line.active = line.active.saturating_sub(1);
        }
        self.place_line(now, id);
    }

    /// An entry of the line may be given.
    pub(super) fn ready_in_line(&mut self, now: Now, place: Place, cursor: u64) {
        let line = self.line(place);
        if line.ready.insert(cursor) {
            self.lines.ready += 1;
        }
        self.place_line(now, place.line);
    }

    /// An entry keeps others of its line back.
    pub(super) fn occupy_line(&mut self, place: Place) {
        self.line(place).active += 1;
    }

    /// An entry of the line waits in the log for its time.
    pub(super) fn delayed_in_line(&mut self, place: Place, cursor: u64) {
        self.has_parked = true;
        self.line(place).head = Some(cursor);
        self.lines.delayed += 1;
    }

    /// An entry of the line comes from the log, which says whether it was delayed. A log that has lost its leases does not know. Gives
    /// whether it was.
    pub(super) fn woken_in_line(&mut self, place: Place, cursor: u64, was_delayed: bool) -> bool {
        let line = self.line(place);
        if line.head == Some(cursor) {
            line.head = None;
        } else if was_delayed {
            line.delayed = line.delayed.saturating_sub(1);
        } else {
            return false;
        }
        self.lines.delayed = self.lines.delayed.saturating_sub(1);
        true
    }

    fn line(&mut self, place: Place) -> &mut Line {
        let lines = &mut self.lines.by_id;
        lines.entry(place.line).or_insert_with(|| Line::new(place))
    }

    /// Is there room for one more of a line here, behind nothing that the log has of it?
    pub(super) fn has_line_room(&self, id: LineId) -> bool {
        let is_tight =
            self.held.len() >= GROUP_HELD_MAX / 2 || self.held_bytes >= GROUP_HELD_BYTES_MAX / 2;
        let kept = if is_tight { 1 } else { self.bounds.line_kept };
        let is_full = self.held.len() >= GROUP_HELD_MAX || self.held_bytes >= GROUP_HELD_BYTES_MAX;
        match self.lines.by_id.get(&id) {
            None => !is_full,
            Some(line) => {
                line.in_log == 0 && !line.is_loading && line.ready.len() < kept && !is_full
            }
        }
    }

    /// An entry goes to the line in the log.
    pub(super) fn line_in_log(&mut self, now: Now, place: Place, cursor: u64) {
        let Some(held) = self.held.remove(&cursor) else {
            return;
        };
        self.held_bytes -= held.bytes;
        self.has_parked = true;
        self.settled.push((held.lease, Settled::Lined(place.line)));
        self.line(place).in_log += 1;
        self.lines.in_log += 1;
        self.place_line(now, place.line);
    }

    /// Lines whose entries the log is to give, and how many of each.
    pub fn take_hungry(&mut self) -> Vec<(LineId, usize)> {
        let held = self.held.len();
        let is_tight = held >= GROUP_HELD_MAX / 2;
        let limit = if is_tight { 1 } else { self.bounds.line_kept };
        let mut wanted = Vec::new();
        while wanted.len() < READ_AT_ONCE
            && let Some(id) = self.lines.hungry.pop_first()
        {
            wanted.push((id, limit));
        }
        wanted
    }

    /// There are lines that the log is to be asked for.
    #[must_use]
    pub fn is_hungry(&self) -> bool {
        !self.lines.hungry.is_empty()
    }

    /// The log gave these of its lines.
    pub fn handle_lines(&mut self, now: Now, given: Vec<FromLine>) {
        for given in given {
            if let Some(line) = self.lines.by_id.get_mut(&given.id) {
                if std::mem::take(&mut line.is_loading) {
                    let loading = &mut self.lines.loading[line.lane];
                    *loading = loading.saturating_sub(1);
                }
                self.lines.in_log -= line
                    .in_log
                    .saturating_sub(given.left)
                    .min(self.lines.in_log);
                line.in_log = given.left;
            }
            for leased in given.leased {
                self.admit_from_line(now, leased);
            }
            self.place_line(now, given.id);
        }
    }

    /// The log could not give these: they are asked for again.
    pub fn handle_lines_failed(&mut self, lines: &[(LineId, usize)]) {
        self.lines.hungry.extend(lines.iter().map(|(id, _)| *id));
    }

    /// The lines that the log has: at the start, and when some of what waited in them may be lost. Not to be called while the log
    /// has not heard all that was settled. `false`: it has not, so they have to be looked at again.
    pub fn handle_log_lines(&mut self, of_log: &[LogLine]) -> bool {
        if !self.has_lines() {
            self.is_releasing |= !of_log.is_empty();
            return true;
        }
        if !self.settled.is_empty() {
            return false;
        }
        for line in self.lines.by_id.values_mut() {
            (line.in_log, line.delayed, line.head) = (0, 0, None);
        }
        (self.lines.in_log, self.lines.delayed) = (0, 0);
        for of_log in of_log {
            let line = self.line(Place {
                line: of_log.id,
                // What it is really is known with its first entry.
                lane: 0,
                weight: 1,
            });
            line.in_log = of_log.entries;
            line.delayed = of_log.delayed;
            self.lines.in_log += of_log.entries;
            self.lines.delayed += of_log.delayed;
        }
        self.is_sorting = true;
        true
    }

    /// What an earlier process had is asked for, before anything of a line is given.
    #[must_use]
    pub const fn is_sorting(&self) -> bool {
        self.is_sorting
    }

    /// An earlier process had these; when there are none any more, lines take their turns.
    pub fn handle_left_over(&mut self, now: Now, left_over: Vec<Leased>) {
        if !left_over.is_empty() && self.settings.ordered {
            self.handle_leased(now, left_over);
            return;
        }
        self.is_sorting = false;
        self.handle_leased(now, left_over);
        let ids: Vec<LineId> = self.lines.by_id.keys().copied().collect();
        for id in ids {
            self.place_line(now, id);
        }
    }

    /// Nobody takes from the group any more, and it has told the log all that it had.
    pub fn take_idle(&mut self) -> bool {
        std::mem::take(&mut self.has_gone_idle)
    }

    /// What its first entry says of a line that was known by its name only.
    pub(super) fn learn_line(&mut self, place: Place) {
        if let Some(line) = self.lines.by_id.get_mut(&place.line)
            && !line.in_turns
        {
            (line.lane, line.weight) = (place.lane, place.weight);
        }
    }

    /// Other rules count. What is under way keeps its deadline.
    pub fn handle_settings(&mut self, now: Now, settings: Settings) {
        let before = std::mem::replace(&mut self.settings, settings);
        self.picker = Picker::new(&self.settings.picks);
        let is_same = before.ordered == self.settings.ordered
            && before.turns.have_same_lines(&self.settings.turns);
        if !is_same {
            self.is_releasing |= before.ordered || before.turns.are_taken();
        }
        if !is_same || before.turns != self.settings.turns {
            let before = std::mem::take(&mut self.lines);
            if is_same {
                self.lines = before.in_the_log();
            }
            self.rebuild_lines(now);
        }
        if before.paused != self.settings.paused {
            self.tell_paused();
        }
    }

    /// Other rules: lines begin anew with what is here. What the log has in other lines, it has to release.
    fn rebuild_lines(&mut self, now: Now) {
        self.ready.clear();
        for cursor in self.cursors() {
            let place = self.place_of(cursor);
            let Some(held) = self.held.get_mut(&cursor) else {
                continue;
            };
            held.place = place;
            held.occupies = false;
            let is_ready = matches!(held.state, State::Ready);
            let is_retry = matches!(held.state, State::Retry);
            match place {
                None if is_ready => {
                    self.ready.insert(cursor);
                }
                None => {}
                Some(place) if is_ready => self.ready_in_line(now, place, cursor),
                Some(_) if is_retry && !self.settings.ordered => {}
                Some(place) => {
                    held.occupies = true;
                    self.occupy_line(place);
                }
            }
        }
        let ids: Vec<LineId> = self.lines.by_id.keys().copied().collect();
        for id in ids {
            // What came to be occupied after it stood in turns is told apart when its turn comes.
            self.place_line(now, id);
        }
    }

    /// Takes what is ready out of all lines, for `give_back_idle`.
    pub(super) fn take_ready_of_lines(&mut self) -> BTreeSet<u64> {
        let mut cursors = BTreeSet::new();
        for line in self.lines.by_id.values_mut() {
            cursors.append(&mut line.ready);
        }
        self.lines.ready = 0;
        cursors
    }
}
