//! Values in numbered slots with generations. Grows in chunks: nothing moves, nothing is over-allocated by more than a chunk.

const CHUNK: usize = 128;
/// Generations have 24 bits because a completion's `user_data` carries that many.
const GENERATION_MASK: u32 = (1 << 24) - 1;

struct Entry<T> {
    generation: u32,
    value: Option<T>,
}

/// Slots are chosen by the caller (`insert_at`), who has them from the kernel or from a `SlotPool`.
pub struct Slab<T> {
    chunks: Vec<Box<[Entry<T>]>>,
    len: usize,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self {
            chunks: Vec::new(),
            len: 0,
        }
    }
}

impl<T> Slab<T> {
    /// Number of values.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// No value.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Slots that were ever reachable: every value's slot is below.
    #[must_use]
    pub fn slots(&self) -> u32 {
        (self.chunks.len() * CHUNK) as u32
    }

    fn entry(&self, slot: u32) -> Option<&Entry<T>> {
        self.chunks
            .get(slot as usize / CHUNK)
            .map(|chunk| &chunk[slot as usize % CHUNK])
    }

    fn entry_mut(&mut self, slot: u32) -> Option<&mut Entry<T>> {
        self.chunks
            .get_mut(slot as usize / CHUNK)
            .map(|chunk| &mut chunk[slot as usize % CHUNK])
    }

    /// Puts a value into a free slot and returns the slot's generation.
    ///
    /// # Panics
    /// If the slot is taken: whoever numbers the slots is wrong.
    pub fn insert_at(&mut self, slot: u32, value: T) -> u32 {
        while self.chunks.len() <= slot as usize / CHUNK {
            self.chunks.push(
                (0..CHUNK)
                    .map(|_| Entry {
                        generation: 0,
                        value: None,
                    })
                    .collect(),
            );
        }
        let entry = &mut self.chunks[slot as usize / CHUNK][slot as usize % CHUNK];
        assert!(entry.value.is_none(), "a slot was given twice");
        entry.value = Some(value);
        self.len += 1;
        entry.generation
    }

    /// Takes the value out; the slot's generation moves on.
    pub fn remove(&mut self, slot: u32) -> Option<T> {
        let entry = self.entry_mut(slot)?;
        let value = entry.value.take()?;
        entry.generation = (entry.generation + 1) & GENERATION_MASK;
        self.len -= 1;
        Some(value)
    }

    /// The value in a slot, whatever its generation.
    #[must_use]
    pub fn at(&self, slot: u32) -> Option<&T> {
        self.entry(slot)?.value.as_ref()
    }

    /// The value in a slot, whatever its generation.
    pub fn at_mut(&mut self, slot: u32) -> Option<&mut T> {
        self.entry_mut(slot)?.value.as_mut()
    }

    /// Generation of a slot.
    #[must_use]
    pub fn generation(&self, slot: u32) -> u32 {
        self.entry(slot).map_or(0, |entry| entry.generation)
    }

    /// The value, if the slot still has this generation.
    #[must_use]
    pub fn current(&self, slot: u32, generation: u32) -> Option<&T> {
        let entry = self.entry(slot)?;
        if entry.generation == generation {
            entry.value.as_ref()
        } else {
            None
        }
    }

    /// The value, if the slot still has this generation.
    pub fn current_mut(&mut self, slot: u32, generation: u32) -> Option<&mut T> {
        let entry = self.entry_mut(slot)?;
        if entry.generation == generation {
            entry.value.as_mut()
        } else {
            None
        }
    }

    /// All values with their slots, in slot order.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        self.chunks
            .iter()
            .flat_map(|chunk| chunk.iter())
            .enumerate()
            .filter_map(|(slot, entry)| entry.value.as_ref().map(|value| (slot as u32, value)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_generation_finds_nothing() {
        let mut slab = Slab::default();
        let first = slab.insert_at(300, "a");
        assert_eq!(slab.remove(300), Some("a"));
        let second = slab.insert_at(300, "b");
        assert_ne!(first, second);
        assert_eq!(slab.current(300, first), None);
        assert_eq!(slab.current(300, second), Some(&"b"));
        assert_eq!(slab.iter().collect::<Vec<_>>(), [(300, &"b")]);
    }
}
