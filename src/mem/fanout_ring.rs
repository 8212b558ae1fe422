//! The fan-out ring: bytes that are about to be sent, encoded once and shared by everybody they go to.
//!
//! Frames are appended at the head and freed in the same order. A range never wraps: what does not fit before the end
//! starts again at the front. Positions count appended bytes (padding included) and wrap around at 2^32.

use crate::image::{Image, ImageError, ImageReader, ImageWriter, image};

/// A contiguous piece of the ring.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RingRange {
    /// Index of the first byte in the ring's memory.
    pub start: u32,
    /// Bytes.
    pub len: u32,
}

image!(struct RingRange { start, len });

impl RingRange {
    /// Index behind the last byte.
    #[must_use]
    pub const fn end(self) -> u32 {
        self.start + self.len
    }

    /// Without its first `bytes`.
    #[must_use]
    pub const fn skip(self, bytes: u32) -> Self {
        Self {
            start: self.start + bytes,
            len: self.len - bytes,
        }
    }
}

/// See the module.
pub struct FanoutRing {
    memory: Box<[u8]>,
    /// Position of the next byte. `head - tail <= memory.len()`.
    head: u32,
    /// Position of the oldest byte still needed.
    tail: u32,
}

impl FanoutRing {
    /// A ring of `bytes`, a power of two between 4 KiB and 1 GiB. Memory is touched as it is used.
    ///
    /// # Panics
    /// If `bytes` is not such a number.
    #[must_use]
    pub fn new(bytes: u32) -> Self {
        assert!(
            bytes.is_power_of_two() && (4096..=1 << 30).contains(&bytes),
            "size of a fan-out ring"
        );
        Self {
            memory: vec![0; bytes as usize].into_boxed_slice(),
            head: 0,
            tail: 0,
        }
    }

    /// Size in bytes.
    #[must_use]
    pub fn capacity(&self) -> u32 {
        self.memory.len() as u32
    }

    /// Position of the next byte.
    #[must_use]
    pub const fn head(&self) -> u32 {
        self.head
    }

    /// Bytes held, padding included.
    #[must_use]
    pub const fn used(&self) -> u32 {
        self.head.wrapping_sub(self.tail)
    }

    /// Where a piece of `len` bytes would go, and the padding before it.
    fn place(&self, len: u32) -> (u32, u32) {
        let at = self.head & (self.capacity() - 1);
        if at + len <= self.capacity() {
            (at, 0)
        } else {
            (0, self.capacity() - at)
        }
    }

    /// Appends the pieces as one range; `None` when there is no room.
    pub fn append(&mut self, pieces: &[&[u8]]) -> Option<RingRange> {
        let len: usize = pieces.iter().map(|piece| piece.len()).sum();
        let len = u32::try_from(len)
            .ok()
            .filter(|&len| len <= self.capacity())?;
        let (start, padding) = self.place(len);
        if padding + len > self.capacity() - self.used() {
            return None;
        }
        let mut at = start as usize;
        for piece in pieces {
            self.memory[at..at + piece.len()].copy_from_slice(piece);
            at += piece.len();
        }
        self.head = self.head.wrapping_add(padding + len);
        Some(RingRange { start, len })
    }

    /// Appends a copy of `range`, which must still be held, followed by `more`, as one range.
    pub fn append_joined(&mut self, range: RingRange, more: RingRange) -> Option<RingRange> {
        let len = range.len + more.len;
        let (start, padding) = self.place(len);
        if len > self.capacity() || padding + len > self.capacity() - self.used() {
            return None;
        }
        self.memory
            .copy_within(range.start as usize..range.end() as usize, start as usize);
        self.memory.copy_within(
            more.start as usize..more.end() as usize,
            (start + range.len) as usize,
        );
        self.head = self.head.wrapping_add(padding + len);
        Some(RingRange { start, len })
    }

    /// The bytes of a range that is still held.
    #[must_use]
    pub fn bytes(&self, range: RingRange) -> &[u8] {
        &self.memory[range.start as usize..range.end() as usize]
    }

    /// Frees everything before `position`.
    pub fn release_to(&mut self, position: u32) {
        debug_assert!(
            position.wrapping_sub(self.tail) <= self.used(),
            "the tail never passes the head"
        );
        self.tail = position;
    }

    /// An empty ring starts at the front again, so that a quiet shard touches little memory. Positions taken before mean
    /// nothing afterwards.
    pub const fn rewind(&mut self) {
        if self.tail == self.head {
            self.tail = 0;
            self.head = 0;
        }
    }
}

impl FanoutRing {
    /// What is held, as it lies in memory: the first piece, and what goes on at the front.
    fn held(&self) -> (std::ops::Range<usize>, usize) {
        let capacity = self.capacity() as usize;
        let at = self.tail as usize & (capacity - 1);
        let end = at + self.used() as usize;
        (at..end.min(capacity), end.saturating_sub(capacity))
    }

    /// Writes what is held, and where.
    pub fn write(&self, out: &mut ImageWriter) {
        let Self { memory, head, tail } = self;
        head.write(out);
        tail.write(out);
        let (first, rest) = self.held();
        out.raw(&memory[first]);
        out.raw(&memory[..rest]);
    }

    /// Reads what `write` of a ring of `bytes` has written.
    ///
    /// # Errors
    /// It cannot be.
    pub fn read(bytes: u32, from: &mut ImageReader<'_>) -> Result<Self, ImageError> {
        let mut ring = Self::new(bytes);
        ring.head = Image::read(from)?;
        ring.tail = Image::read(from)?;
        if ring.used() > ring.capacity() {
            return Err(ImageError::Wrong { what: "a ring" });
        }
        let (first, rest) = ring.held();
        let held = from.raw(first.len(), "a ring")?;
        ring.memory[first].copy_from_slice(held);
        ring.memory[..rest].copy_from_slice(from.raw(rest, "a ring")?);
        Ok(ring)
    }

    /// Is this a range that can be?
    #[must_use]
    pub fn has(&self, range: RingRange) -> bool {
        let end = u64::from(range.start) + u64::from(range.len);
        end <= u64::from(self.capacity())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_never_wraps_and_a_full_ring_refuses() {
        let mut ring = FanoutRing::new(4096);
        let first = ring.append(&[&[1; 3000]]).unwrap();
        let mark = ring.head();
        let second = ring.append(&[&[2; 1000]]).unwrap();
        assert!(ring.append(&[&[3; 200]]).is_none(), "96 bytes are left");
        assert_eq!(ring.bytes(first), &[1; 3000][..]);
        ring.release_to(mark);
        let third = ring.append(&[&[3; 100], &[4; 100]]).unwrap();
        assert_eq!(third, RingRange { start: 0, len: 200 });
        assert_eq!(ring.bytes(second), &[2; 1000][..]);
        assert_eq!(ring.bytes(third)[99..101], [3, 4]);
    }

    #[test]
    fn positions_survive_their_wrap_around() {
        let mut ring = FanoutRing::new(4096);
        ring.head = u32::MAX - 4095;
        ring.tail = ring.head;
        for round in 0..10 {
            let range = ring.append(&[&[round; 1500]]).unwrap();
            assert_eq!(ring.bytes(range), &[round; 1500][..]);
            let joined = ring
                .append_joined(
                    range,
                    RingRange {
                        start: range.start,
                        len: 1,
                    },
                )
                .unwrap();
            assert_eq!(joined.len, 1501);
            ring.tail = ring.head;
        }
    }

    #[test]
    fn an_emptied_ring_starts_at_the_front() {
        let mut ring = FanoutRing::new(4096);
        ring.append(&[&[0; 10]]).unwrap();
        ring.release_to(ring.head());
        ring.rewind();
        assert_eq!(ring.append(&[&[0; 10]]).unwrap().start, 0);
    }
}
