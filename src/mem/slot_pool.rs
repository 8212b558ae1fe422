//! Hands out slot numbers, lowest first while none was returned.

/// Free slot numbers of a table that cannot choose them itself.
#[derive(Clone, Debug)]
pub struct SlotPool {
    free: Vec<u32>,
    next: u32,
    slots_max: u32,
}

impl SlotPool {
    /// Slots `0..slots_max`.
    #[must_use]
    pub const fn new(slots_max: u32) -> Self {
        Self {
            free: Vec::new(),
            next: 0,
            slots_max,
        }
    }

    /// A slot that nobody holds; `None` when all are taken.
    pub fn take(&mut self) -> Option<u32> {
        if let Some(slot) = self.free.pop() {
            return Some(slot);
        }
        if self.next == self.slots_max {
            return None;
        }
        self.next += 1;
        Some(self.next - 1)
    }

    /// Gives a slot back.
    pub fn give(&mut self, slot: u32) {
        debug_assert!(
            slot < self.next && self.free.len() < self.next as usize,
            "a slot was returned that nobody held"
        );
        self.free.push(slot);
        if self.free.len() == self.next as usize {
            // All are back: the lowest come first again, and nothing remembers how many there were.
            *self = Self::new(self.slots_max);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_pool_gives_nothing_until_a_slot_returns() {
        let mut pool = SlotPool::new(2);
        assert_eq!(
            (pool.take(), pool.take(), pool.take()),
            (Some(0), Some(1), None)
        );
        pool.give(0);
        assert_eq!(pool.take(), Some(0));
    }
}
