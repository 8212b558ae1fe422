//! Hands out slot numbers, lowest first while none was returned.

use super::Slab;
use crate::image::{Image, ImageError, ImageReader, ImageWriter};

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

    /// Writes which are free.
    pub fn write(&self, out: &mut ImageWriter) {
        let Self {
            free,
            next,
            slots_max: _,
        } = self;
        next.write(out);
        free.write(out);
    }

    /// Reads what `write` has written: of the slots in use, up to `slots_max`, those are free that hold nothing in `slab`.
    ///
    /// # Errors
    /// They are not.
    pub fn read<T>(
        from: &mut ImageReader<'_>,
        slots_max: u32,
        slab: &Slab<T>,
    ) -> Result<Self, ImageError> {
        let next = u32::read(from)?;
        let free: Vec<u32> = from.list()?;
        let holds = |slot: u32| slab.at(slot).is_some();
        let mut is_free = vec![false; next.min(slots_max) as usize];
        let each_once = free.iter().all(|&slot| {
            let first = is_free.get_mut(slot as usize).filter(|is_free| !**is_free);
            first.map(|is_free| *is_free = true).is_some()
        });
        let are_held = (0..next.min(slots_max)).filter(|&slot| holds(slot)).count();
        let all = free.len() + slab.len() == next as usize && are_held == slab.len();
        if !each_once || !all || next > slots_max || free.iter().any(|&slot| holds(slot)) {
            return Err(ImageError::Wrong { what: "free slots" });
        }
        Ok(Self {
            free,
            next,
            slots_max,
        })
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
