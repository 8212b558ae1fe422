//! Values in numbered slots with generations. Grows and shrinks in chunks: nothing moves, nothing is over-allocated by more
//! than a chunk, and what was needed by many is given back when they are gone.

use crate::image::{Image, ImageError, ImageReader, ImageWriter};

const CHUNK: usize = 128;
/// Generations have 24 bits because a completion's `user_data` carries that many.
const GENERATION_MASK: u32 = (1 << 24) - 1;

/// Values of neighbouring slots.
type Values<T> = Box<[Option<T>]>;

struct Chunk<T> {
    /// They outlive the values: an id from before means nothing afterwards.
    generations: Box<[u32; CHUNK]>,
    /// Nothing is allocated while no slot has one.
    values: Values<T>,
    taken: usize,
}

/// Slots are chosen by the caller (`insert_at`), who has them from the kernel or from a `SlotPool`.
pub struct Slab<T> {
    chunks: Vec<Chunk<T>>,
    /// The last chunk's memory that was not needed any more, so that one slot taken and given again costs no allocation.
    spare: Option<Values<T>>,
    len: usize,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self {
            chunks: Vec::new(),
            spare: None,
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

    /// Puts a value into a free slot and returns the slot's generation.
    ///
    /// # Panics
    /// If the slot is taken: whoever numbers the slots is wrong.
    pub fn insert_at(&mut self, slot: u32, value: T) -> u32 {
        let (at, within) = place(slot);
        while self.chunks.len() <= at {
            self.chunks.push(Chunk {
                generations: Box::new([0; CHUNK]),
                values: Box::default(),
                taken: 0,
            });
        }
        let chunk = &mut self.chunks[at];
        if chunk.values.is_empty() {
            let empty = || std::iter::repeat_with(|| None).take(CHUNK).collect();
            chunk.values = self.spare.take().unwrap_or_else(empty);
        }
        let place = &mut chunk.values[within];
        assert!(place.is_none(), "a slot was given twice");
        *place = Some(value);
        chunk.taken += 1;
        self.len += 1;
        chunk.generations[within]
    }

    /// Takes the value out; the slot's generation moves on.
    pub fn remove(&mut self, slot: u32) -> Option<T> {
        let (at, within) = place(slot);
        let chunk = self.chunks.get_mut(at)?;
        let value = chunk.values.get_mut(within)?.take()?;
        let generation = &mut chunk.generations[within];
        *generation = (*generation + 1) & GENERATION_MASK;
        chunk.taken -= 1;
        if chunk.taken == 0 {
            let values = std::mem::take(&mut chunk.values);
            self.spare.get_or_insert(values);
        }
        self.len -= 1;
        Some(value)
    }

    /// The value in a slot that has one: whoever is at work on it knows that it is there.
    ///
    /// # Panics
    /// If the slot is empty.
    #[must_use]
    #[track_caller]
    pub fn of(&self, slot: u32) -> &T {
        match self.at(slot) {
            Some(value) => value,
            None => unreachable!("slot {slot} is empty"),
        }
    }

    /// The same, to change it.
    ///
    /// # Panics
    /// If the slot is empty.
    #[track_caller]
    pub fn of_mut(&mut self, slot: u32) -> &mut T {
        match self.at_mut(slot) {
            Some(value) => value,
            None => unreachable!("slot {slot} is empty"),
        }
    }

    /// The value in a slot, whatever its generation.
    #[must_use]
    pub fn at(&self, slot: u32) -> Option<&T> {
        let (at, within) = place(slot);
        self.chunks.get(at)?.values.get(within)?.as_ref()
    }

    /// The value in a slot, whatever its generation.
    pub fn at_mut(&mut self, slot: u32) -> Option<&mut T> {
        let (at, within) = place(slot);
        self.chunks.get_mut(at)?.values.get_mut(within)?.as_mut()
    }

    /// Generation of a slot.
    #[must_use]
    pub fn generation(&self, slot: u32) -> u32 {
        let (at, within) = place(slot);
        self.chunks
            .get(at)
            .map_or(0, |chunk| chunk.generations[within])
    }

    /// The value, if the slot still has this generation.
    #[must_use]
    pub fn current(&self, slot: u32, generation: u32) -> Option<&T> {
        let (at, within) = place(slot);
        let chunk = self.chunks.get(at)?;
        if chunk.generations[within] == generation {
            chunk.values.get(within)?.as_ref()
        } else {
            None
        }
    }

    /// The value, if the slot still has this generation.
    pub fn current_mut(&mut self, slot: u32, generation: u32) -> Option<&mut T> {
        let (at, within) = place(slot);
        let chunk = self.chunks.get_mut(at)?;
        if chunk.generations[within] == generation {
            chunk.values.get_mut(within)?.as_mut()
        } else {
            None
        }
    }

    /// All values with their slots, in slot order.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        self.chunks.iter().enumerate().flat_map(|(at, chunk)| {
            let first = (at * CHUNK) as u32;
            let values = chunk.values.iter().enumerate();
            values.filter_map(move |(within, value)| {
                value.as_ref().map(|value| (first + within as u32, value))
            })
        })
    }
}

impl<T> Slab<T> {
    /// Writes generations, and values by `write`.
    pub fn write(&self, out: &mut ImageWriter, write: impl Fn(&T, &mut ImageWriter)) {
        out.length(self.chunks.len());
        for chunk in &self.chunks {
            for generation in &*chunk.generations {
                generation.write(out);
            }
        }
        out.length(self.len);
        for (slot, value) in self.iter() {
            slot.write(out);
            write(value, out);
        }
    }

    /// Reads what `write` has written, values by `read`. There may be so many slots.
    ///
    /// # Errors
    /// A value cannot be, or stands in a place that cannot be.
    pub fn read(
        from: &mut ImageReader<'_>,
        slots_max: u32,
        mut read: impl FnMut(&mut ImageReader<'_>) -> Result<T, ImageError>,
    ) -> Result<Self, ImageError> {
        const WRONG: ImageError = ImageError::Wrong { what: "a slot" };
        let mut slab = Self::default();
        for _ in 0..from.length()? {
            let mut generations = Box::new([0; CHUNK]);
            for generation in &mut *generations {
                *generation = u32::read(from)? & GENERATION_MASK;
            }
            slab.chunks.push(Chunk {
                generations,
                values: Box::default(),
                taken: 0,
            });
        }
        for _ in 0..from.length()? {
            let slot = u32::read(from)?;
            if slot >= slab.slots().min(slots_max) || slab.at(slot).is_some() {
                return Err(WRONG);
            }
            let value = read(from)?;
            slab.insert_at(slot, value);
        }
        Ok(slab)
    }
}

/// Which chunk, and which place in it.
const fn place(slot: u32) -> (usize, usize) {
    (slot as usize / CHUNK, slot as usize % CHUNK)
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

    #[test]
    fn memory_that_many_needed_is_given_back_and_their_ids_stay_stale() {
        let mut slab = Slab::default();
        let slots = 10 * CHUNK as u32;
        let before: Vec<u32> = (0..slots).map(|slot| slab.insert_at(slot, slot)).collect();
        for slot in 0..slots {
            assert_eq!(slab.remove(slot), Some(slot));
        }
        assert!(slab.chunks.iter().all(|chunk| chunk.values.is_empty()));
        assert!(slab.spare.is_some(), "the next one costs no allocation");
        for slot in 0..slots {
            assert_ne!(slab.insert_at(slot, slot), before[slot as usize]);
            assert_eq!(slab.current(slot, before[slot as usize]), None);
        }
        assert_eq!(
            (slab.len(), slab.iter().count() as u32),
            (10 * CHUNK, slots)
        );
    }
}
