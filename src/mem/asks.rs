//! Questions that wait for an answer: who asked, until when, how many there are and how large. Whoever is asked may answer
//! late, twice, or never: a question ends once, with its answer or with its deadline, and what comes behind its end is stale.
//!
//! Deadlines are kept in the order of asking: questions of one table wait equally long, so each deadline lies behind that
//! of the question before it. Where a shorter one follows a longer one it is put off to that one's. Everything takes the
//! same time however many questions there are.

mod image;

use super::shares::{Holders, Shares, Whose};
use super::{Slab, SlotPool};
use crate::model::AskId;
use crate::time::Instant;

/// Why a question cannot be asked now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// Too many, or too large ones, are under way.
    Table,
    /// The asker has its share of them.
    Share,
}

struct OpenAsk<T> {
    value: T,
    bytes: usize,
    until: Instant,
    /// Its neighbours in the order of deadlines.
    before: Option<u32>,
    next: Option<u32>,
    /// Its deadline is ahead.
    is_filed: bool,
}

/// See the module. Dropped with its questions: nobody is told.
pub struct Asks<T> {
    asks: Slab<OpenAsk<T>>,
    slots: SlotPool,
    /// Whose deadline comes first, and last.
    first: Option<u32>,
    last: Option<u32>,
    bytes: usize,
    /// Questions and bytes that there is room for.
    most: usize,
    bytes_max: usize,
    stale: u64,
}

impl<T> Asks<T> {
    /// With room for so many questions of so many bytes together.
    #[must_use]
    pub fn new(most: u32, bytes_max: usize) -> Self {
        Self {
            asks: Slab::default(),
            slots: SlotPool::new(most),
            first: None,
            last: None,
            bytes: 0,
            most: most as usize,
            bytes_max,
            stale: 0,
        }
    }

    /// Is there room for one more of so many bytes?
    #[must_use]
    pub const fn has_room(&self, bytes: usize) -> bool {
        self.asks.len() < self.most && bytes <= self.bytes_max - self.bytes
    }

    /// A question is asked. Its number comes back with its answer.
    ///
    /// # Errors
    /// `Full::Table` if there is no room for it.
    pub fn open(&mut self, until: Instant, bytes: usize, value: T) -> Result<AskId, Full> {
        if !self.has_room(bytes) {
            return Err(Full::Table);
        }
        let slot = self.slots.take().ok_or(Full::Table)?;
        let before = self.last.replace(slot);
        let until = match before.map(|before| self.asks.of_mut(before)) {
            Some(before) => {
                debug_assert!(
                    before.is_filed && before.next.is_none(),
                    "it was the last one"
                );
                before.next = Some(slot);
                until.max(before.until)
            }
            None => {
                self.first = Some(slot);
                until
            }
        };
        self.bytes += bytes;
        let ask = OpenAsk {
            value,
            bytes,
            until,
            before,
            next: None,
            is_filed: true,
        };
        let generation = self.asks.insert_at(slot, ask);
        Ok(AskId { slot, generation })
    }

    /// The question has its answer. `None` if it has ended before.
    pub fn close(&mut self, id: AskId) -> Option<T> {
        if self.asks.current(id.slot, id.generation).is_none() {
            self.stale += 1;
            return None;
        }
        Some(self.remove(id.slot))
    }

    /// Takes out a question that has not ended.
    fn remove(&mut self, slot: u32) -> T {
        self.unfile(slot);
        let Some(ask) = self.asks.remove(slot) else {
            unreachable!("a question ends once");
        };
        self.slots.give(slot);
        self.bytes -= ask.bytes;
        ask.value
    }

    /// Takes a question out of the order of deadlines, if it stands there still.
    fn unfile(&mut self, slot: u32) {
        let ask = self.asks.of_mut(slot);
        if !std::mem::replace(&mut ask.is_filed, false) {
            return;
        }
        let (before, next) = (ask.before.take(), ask.next.take());
        match before.map(|before| self.asks.of_mut(before)) {
            Some(ask) => ask.next = next,
            None => self.first = next,
        }
        match next.map(|next| self.asks.of_mut(next)) {
            Some(ask) => ask.before = before,
            None => self.last = before,
        }
    }

    /// A question that is not answered in time: it is over, and its answer will be stale. Call until `None`.
    pub fn next_overdue(&mut self, now: Instant) -> Option<(AskId, T)> {
        let id = self.first_overdue(now)?;
        Some((id, self.remove(id.slot)))
    }

    /// The same where its place is free only once its answer is there, because it takes one at whoever is asked as long.
    /// Each is told once. Call until `None`.
    pub fn next_late(&mut self, now: Instant) -> Option<(AskId, &mut T)> {
        let id = self.first_overdue(now)?;
        self.unfile(id.slot);
        Some((id, &mut self.asks.of_mut(id.slot).value))
    }

    /// The answer is there, but what follows from it comes later: the question keeps its place, and has no deadline any more.
    pub fn hold(&mut self, id: AskId) -> Option<&mut T> {
        self.asks.current(id.slot, id.generation)?;
        self.unfile(id.slot);
        self.kept_mut(id)
    }

    fn first_overdue(&self, now: Instant) -> Option<AskId> {
        let slot = self.first?;
        let is_over = self.asks.of(slot).until <= now;
        let generation = self.asks.generation(slot);
        is_over.then_some(AskId { slot, generation })
    }

    /// When the next question is overdue.
    #[must_use]
    pub fn next_at(&self) -> Option<Instant> {
        Some(self.asks.of(self.first?).until)
    }

    /// What was kept of a question that has not ended.
    #[must_use]
    pub fn kept(&self, id: AskId) -> Option<&T> {
        let ask = self.asks.current(id.slot, id.generation);
        ask.map(|ask| &ask.value)
    }

    /// The same.
    pub fn kept_mut(&mut self, id: AskId) -> Option<&mut T> {
        let ask = self.asks.current_mut(id.slot, id.generation);
        ask.map(|ask| &mut ask.value)
    }

    /// What was kept of a question of which it is known that it has not ended.
    ///
    /// # Panics
    /// If it has.
    #[track_caller]
    pub fn of_mut(&mut self, id: AskId) -> &mut T {
        match self.kept_mut(id) {
            Some(value) => value,
            None => unreachable!("the question has ended"),
        }
    }

    /// The question that this is kept of, looked for among all.
    pub fn find(&self, mut is_it: impl FnMut(&T) -> bool) -> Option<AskId> {
        let (slot, _) = self.asks.iter().find(|(_, ask)| is_it(&ask.value))?;
        let generation = self.asks.generation(slot);
        Some(AskId { slot, generation })
    }

    /// What was kept of all questions that have not ended.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.asks.iter().map(|(_, ask)| &ask.value)
    }

    /// Questions that have not ended.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.asks.len()
    }

    /// There are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.asks.is_empty()
    }

    /// Their bytes.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Answers that came to questions that had ended.
    #[must_use]
    pub const fn stale(&self) -> u64 {
        self.stale
    }
}

/// Questions of clients, who have shares in the table: none of them has all of it.
pub struct SharedAsks<T> {
    asks: Asks<SharedAsk<T>>,
    shares: Shares,
}

struct SharedAsk<T> {
    value: T,
    bytes: usize,
    holders: Holders,
}

impl<T> SharedAsks<T> {
    /// With room for so many questions of so many bytes together.
    #[must_use]
    pub fn new(most: u32, bytes_max: usize) -> Self {
        Self {
            asks: Asks::new(most, bytes_max),
            shares: Shares::new(most as usize, bytes_max),
        }
    }

    /// A question is asked, by somebody who has a share or by nobody in particular.
    ///
    /// # Errors
    /// If there is no room for it.
    pub fn open(
        &mut self,
        until: Instant,
        whose: Option<&Whose<'_>>,
        bytes: usize,
        value: T,
    ) -> Result<AskId, Full> {
        if !self.asks.has_room(bytes) {
            return Err(Full::Table);
        }
        let holders = match whose {
            Some(whose) => self.shares.take(whose, bytes).ok_or(Full::Share)?,
            None => Holders::new(),
        };
        let shared = SharedAsk {
            value,
            bytes,
            holders,
        };
        self.asks.open(until, bytes, shared)
    }

    fn give(&mut self, shared: SharedAsk<T>) -> T {
        self.shares.give(&shared.holders, shared.bytes);
        shared.value
    }

    /// See `Asks::close`.
    pub fn close(&mut self, id: AskId) -> Option<T> {
        let shared = self.asks.close(id)?;
        Some(self.give(shared))
    }

    /// See `Asks::next_overdue`.
    pub fn next_overdue(&mut self, now: Instant) -> Option<(AskId, T)> {
        let (id, shared) = self.asks.next_overdue(now)?;
        Some((id, self.give(shared)))
    }

    /// See `Asks::next_late`.
    pub fn next_late(&mut self, now: Instant) -> Option<(AskId, &mut T)> {
        let (id, shared) = self.asks.next_late(now)?;
        Some((id, &mut shared.value))
    }

    /// See `Asks::hold`.
    pub fn hold(&mut self, id: AskId) -> Option<&mut T> {
        self.asks.hold(id).map(|shared| &mut shared.value)
    }

    /// See `Asks::next_at`.
    #[must_use]
    pub fn next_at(&self) -> Option<Instant> {
        self.asks.next_at()
    }

    /// See `Asks::kept`.
    #[must_use]
    pub fn kept(&self, id: AskId) -> Option<&T> {
        self.asks.kept(id).map(|shared| &shared.value)
    }

    /// See `Asks::kept_mut`.
    pub fn kept_mut(&mut self, id: AskId) -> Option<&mut T> {
        self.asks.kept_mut(id).map(|shared| &mut shared.value)
    }

    /// See `Asks::iter`.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.asks.iter().map(|shared| &shared.value)
    }

    /// See `Asks::len`.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.asks.len()
    }

    /// See `Asks::is_empty`.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.asks.is_empty()
    }

    /// See `Asks::bytes`.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.asks.bytes()
    }
}

#[cfg(test)]
mod tests;
