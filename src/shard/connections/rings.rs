//! The two rings that bytes go out from. What many connections share is kept apart from what only one of them gets:
//! publications of a channel stay contiguous across turns although replies are queued in between.

use crate::image::{Image, ImageError, ImageReader, ImageWriter, image};
use crate::mem::{FanoutRing, RingRange};

/// Bit of `RingRange::start` that names the ring of single connections.
const OWN: u32 = 1 << 31;

/// Positions of the next byte in both rings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Heads {
    shared: u32,
    own: u32,
}

image!(struct Heads { shared, own });

/// A ring of which more than this part is needed holds up what comes next, if that goes on.
const HALF: u32 = 2;

/// See the module.
pub(super) struct Rings {
    shared: FanoutRing,
    own: FanoutRing,
    /// Pieces that are being joined.
    joining: Vec<u8>,
}

const fn tagged(range: RingRange) -> RingRange {
    RingRange {
        start: range.start | OWN,
        len: range.len,
    }
}

impl Rings {
    pub(super) fn new(shared_bytes: u32, own_bytes: u32) -> Self {
        Self {
            shared: FanoutRing::new(shared_bytes),
            own: FanoutRing::new(own_bytes),
            joining: Vec::new(),
        }
    }

    pub(super) const fn heads(&self) -> Heads {
        Heads {
            shared: self.shared.head(),
            own: self.own.head(),
        }
    }

    pub(super) const fn are_at_front(&self) -> bool {
        self.shared.head() == 0 && self.own.head() == 0
    }

    pub(super) const fn used(&self) -> u32 {
        self.shared.used() + self.own.used()
    }

    /// Either ring is nearly full. `waiting`: bytes of publications that are not in the ring yet.
    pub(super) fn is_full(&self, waiting: usize) -> bool {
        let nearly = |ring: &FanoutRing, more: usize| {
            ring.used() as usize + more > ring.capacity() as usize / 4 * 3
        };
        nearly(&self.shared, waiting) || nearly(&self.own, 0)
    }

    /// More than half of either is needed.
    pub(super) fn are_half_full(&self) -> bool {
        [&self.shared, &self.own]
            .iter()
            .any(|ring| ring.used() > ring.capacity() / HALF)
    }

    /// Does more than half of a ring stand behind this?
    pub(super) fn is_far_back(&self, heads: Heads) -> bool {
        let is_far =
            |ring: &FanoutRing, at: u32| ring.head().wrapping_sub(at) > ring.capacity() / HALF;
        is_far(&self.shared, heads.shared) || is_far(&self.own, heads.own)
    }

    /// The earlier of both, in each ring.
    pub(super) fn earlier(&self, a: Heads, b: Heads) -> Heads {
        let of = |ring: &FanoutRing, a: u32, b: u32| {
            let behind = |at: u32| ring.head().wrapping_sub(at);
            if behind(a) >= behind(b) { a } else { b }
        };
        Heads {
            shared: of(&self.shared, a.shared, b.shared),
            own: of(&self.own, a.own, b.own),
        }
    }

    /// For many connections.
    pub(super) fn append_shared(&mut self, bytes: &[u8]) -> Option<RingRange> {
        self.shared.append(&[bytes])
    }

    /// For one connection.
    pub(super) fn append_own(&mut self, pieces: &[&[u8]]) -> Option<RingRange> {
        self.own.append(pieces).map(tagged)
    }

    /// Copies of two ranges, one behind the other, for one connection.
    pub(super) fn append_joined(
        &mut self,
        first: RingRange,
        second: RingRange,
    ) -> Option<RingRange> {
        let mut joining = std::mem::take(&mut self.joining);
        joining.clear();
        joining.extend_from_slice(self.bytes(first));
        joining.extend_from_slice(self.bytes(second));
        let joined = self.append_own(&[&joining]);
        self.joining = joining;
        joined
    }

    pub(super) fn bytes(&self, range: RingRange) -> &[u8] {
        if range.start & OWN == 0 {
            return self.shared.bytes(range);
        }
        self.own.bytes(RingRange {
            start: range.start & !OWN,
            len: range.len,
        })
    }

    /// Frees what nobody needs whose oldest byte is not before these heads.
    pub(super) fn release_to(&mut self, heads: Heads) {
        self.shared.release_to(heads.shared);
        self.own.release_to(heads.own);
    }

    /// Nobody needs anything: the rings start at the front again.
    pub(super) fn rewind(&mut self) {
        self.shared.rewind();
        self.own.rewind();
    }
}

impl Rings {
    pub(super) fn write(&self, out: &mut ImageWriter) {
        let Self {
            shared,
            own,
            // Used while pieces are joined.
            joining: _,
        } = self;
        shared.write(out);
        own.write(out);
    }

    /// Reads what `write` of rings with so many bytes has written.
    pub(super) fn read(
        shared_bytes: u32,
        own_bytes: u32,
        from: &mut ImageReader<'_>,
    ) -> Result<Self, ImageError> {
        Ok(Self {
            shared: FanoutRing::read(shared_bytes, from)?,
            own: FanoutRing::read(own_bytes, from)?,
            joining: Vec::new(),
        })
    }

    /// Reads a range of one of them.
    pub(super) fn read_range(&self, from: &mut ImageReader<'_>) -> Result<RingRange, ImageError> {
        let range = RingRange::read(from)?;
        let (ring, start) = match range.start & OWN {
            0 => (&self.shared, range.start),
            _ => (&self.own, range.start & !OWN),
        };
        let is_there = ring.has(RingRange { start, ..range });
        is_there.then_some(range).ok_or(ImageError::Wrong {
            what: "a range of a ring",
        })
    }
}
