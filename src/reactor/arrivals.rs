//! Completions that wait to be dispatched. Little ones go first: what one connection has brought much of holds nobody else up.

use std::collections::VecDeque;

use crate::uring::{Completion, Kind};

/// See the module. Completions of one connection's receive stay in their order as long as whoever pushes says of all of them, until
/// `pop_bulk` has emptied its queue, that they belong to much.
#[derive(Default)]
pub(super) struct Arrivals {
    little: VecDeque<Completion>,
    bulk: VecDeque<Completion>,
    bytes: usize,
}

impl Arrivals {
    /// Takes one in, behind the others of its kind.
    pub(super) fn push(&mut self, completion: Completion, is_bulk: bool) {
        if completion.kind() == Some(Kind::Receive) {
            self.bytes += completion.bytes();
        }
        if is_bulk {
            self.bulk.push_back(completion);
        } else {
            self.little.push_back(completion);
        }
    }

    fn left(&mut self, completion: Completion) -> Completion {
        if completion.kind() == Some(Kind::Receive) {
            self.bytes -= completion.bytes();
        }
        completion
    }

    /// The next one that is little.
    pub(super) fn pop_little(&mut self) -> Option<Completion> {
        let completion = self.little.pop_front()?;
        Some(self.left(completion))
    }

    /// The next one of a connection of which much has come.
    pub(super) fn pop_bulk(&mut self) -> Option<Completion> {
        let completion = self.bulk.pop_front()?;
        Some(self.left(completion))
    }

    /// Nothing waits of those of which much has come.
    pub(super) fn has_no_bulk(&self) -> bool {
        self.bulk.is_empty()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.little.is_empty() && self.bulk.is_empty()
    }

    /// Bytes that the receives among them have brought.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    #[cfg(test)]
    pub(super) fn iter(&self) -> impl Iterator<Item = &Completion> {
        self.little.iter().chain(&self.bulk)
    }

    /// Gives up room that was only needed in a rush.
    pub(super) fn shrink_to(&mut self, places: usize) {
        self.little.shrink_to(places);
        self.bulk.shrink_to(places);
    }
}
