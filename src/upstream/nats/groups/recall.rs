//! What this process remembers beside the server.
//!
//! A server that is killed forgets what it was told within the last tenth of a second or so, though it has answered: it gives
//! what was done again, and what was failed as if for the first time. Whoever was told here that it is stored must not see it.

use std::collections::{HashSet, VecDeque};

/// Entries that are remembered as done: more than a process settles in the time that a server forgets.
const DONE_KEPT: usize = 16_384;

/// See the module. Entries are named by their sequences.
#[derive(Default)]
pub(super) struct Recall {
    done: HashSet<u64>,
    /// The same, the oldest first.
    oldest: VecDeque<u64>,
    /// The last that was given.
    last: u64,
}

impl Recall {
    /// The server has confirmed that it is done.
    pub(super) fn finish(&mut self, sequence: u64) {
        if !self.done.insert(sequence) {
            return;
        }
        self.oldest.push_back(sequence);
        if self.oldest.len() > DONE_KEPT
            && let Some(oldest) = self.oldest.pop_front()
        {
            self.done.remove(&oldest);
        }
    }

    /// It is done, whatever the server says.
    pub(super) fn is_done(&self, sequence: u64) -> bool {
        self.done.contains(&sequence)
    }

    /// It is given. `true` if it was given before, as far as anybody can tell: the server gives entries in their order, and
    /// counts how often each was, `times`, until it forgets that.
    pub(super) fn is_repeated(&mut self, sequence: u64, times: i64) -> bool {
        let is_new = sequence > self.last;
        self.last = self.last.max(sequence);
        times > 1 || !is_new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_done_is_remembered_within_a_bound() {
        let mut recall = Recall::default();
        let most = DONE_KEPT as u64;
        for sequence in (0..=most).chain([most]) {
            recall.finish(sequence);
        }
        assert!(!recall.is_done(0));
        assert!((1..=most).all(|sequence| recall.is_done(sequence)));
        assert!(!recall.is_done(most + 1));
    }

    #[test]
    fn repetition_is_known_by_its_place_where_the_server_has_forgotten_it() {
        let mut recall = Recall::default();
        assert!(!recall.is_repeated(1, 1));
        assert!(!recall.is_repeated(7, 1));
        assert!(recall.is_repeated(1, 1));
        assert!(recall.is_repeated(7, 1));
        assert!(recall.is_repeated(8, 2));
        assert!(!recall.is_repeated(9, 1));
    }
}
