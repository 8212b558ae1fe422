//! Publications that a rate of their tenant has no room for yet, and that may wait for it (`when_over_rate`).

use std::collections::BTreeMap;

use crate::limits::LATE_BYTES_MAX;
use crate::mesh::message::PublishFor;
use crate::model::{AskId, Draft};
use crate::time::Instant;

/// What waits.
#[derive(Debug)]
pub enum Held {
    /// What a client has published.
    Publication {
        /// Who is answered.
        publisher: PublishFor,
        /// It.
        draft: Box<Draft>,
    },
    /// A call of the server API.
    Call {
        /// Which one.
        call: AskId,
        /// Bytes of what it publishes.
        bytes: usize,
    },
}

impl Held {
    fn bytes(&self) -> usize {
        match self {
            Self::Publication { draft, .. } => size_of::<Draft>() + draft.record.bytes(),
            Self::Call { bytes, .. } => *bytes,
        }
    }
}

/// Those of one shard, by when they may go; what may go at the same time goes as it came.
#[derive(Debug, Default)]
pub struct Late {
    by: BTreeMap<(Instant, u64), Held>,
    came: u64,
    bytes: usize,
}

impl Late {
    /// So much waits that nothing else may: to be asked before anything is taken for it.
    #[must_use]
    pub const fn is_full(&self) -> bool {
        self.bytes >= LATE_BYTES_MAX
    }

    /// Keeps it until then.
    pub fn push(&mut self, at: Instant, held: Held) {
        self.bytes += held.bytes();
        self.came += 1;
        self.by.insert((at, self.came), held);
    }

    /// What may go now, once.
    pub fn pop(&mut self, now: Instant) -> Option<Held> {
        let first = self.by.first_entry()?;
        let (at, _) = first.key();
        if *at > now {
            return None;
        }
        let held = first.remove();
        self.bytes -= held.bytes();
        Some(held)
    }

    /// When the next one may go.
    #[must_use]
    pub fn next_at(&self) -> Option<Instant> {
        self.by.keys().next().map(|&(at, _)| at)
    }

    /// Nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by.is_empty()
    }

    /// How many wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(slot: u32, bytes: usize) -> Held {
        let mut asks = crate::mem::Asks::new(100, usize::MAX);
        for _ in 0..slot {
            asks.open(Instant(1), 0, ()).unwrap();
        }
        let call = asks.open(Instant(1), 0, ()).unwrap();
        Held::Call { call, bytes }
    }

    fn bytes(held: Option<Held>) -> Option<usize> {
        held.map(|held| held.bytes())
    }

    #[test]
    fn what_waits_goes_in_its_time_and_then_in_its_order_and_has_a_bound() {
        let mut late = Late::default();
        late.push(Instant(20), call(0, 1));
        late.push(Instant(10), call(1, 2));
        late.push(Instant(10), call(2, 3));
        assert_eq!(late.next_at(), Some(Instant(10)));
        assert_eq!(bytes(late.pop(Instant(9))), None);
        assert_eq!(bytes(late.pop(Instant(30))), Some(2));
        assert_eq!(bytes(late.pop(Instant(30))), Some(3));
        let rest = LATE_BYTES_MAX - 1;
        assert!(!late.is_full());
        late.push(Instant(1), call(4, rest));
        assert!(late.is_full());
        assert_eq!(bytes(late.pop(Instant(30))), Some(rest));
        assert_eq!(bytes(late.pop(Instant(30))), Some(1));
        assert!(late.is_empty());
    }
}
