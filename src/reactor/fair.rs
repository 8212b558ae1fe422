//! What one connection may take of a turn. A receive brings few bytes, but what is in them may be much work; and the buffers are
//! few, so that many who send much leave none for the others. Whoever costs too much *rests*: nothing is read from it until its
//! neighbours have been served, and those who rest share a part of each turn, one after the other.

use std::time::Duration;

use crate::limits::RECEIVES_BYTES;

/// Work for the bytes of one receive after which their connection rests.
pub(super) const HEAVY: Duration = Duration::from_micros(100);
/// Receives with fewer bytes are not timed: nearly all of them, and what they can cost is little.
pub(super) const WEIGHED_BYTES: usize = 512;
/// Bytes that one receive brings of a connection whose bytes are known to be much work.
pub(super) const HEAVY_RECEIVE: u32 = 2048;
/// Bytes that one wake-up of a receive may bring.
pub(super) const RECEIVE_BYTES: u32 = 32 * 1024;
/// A receive with so many bytes is one of many where `CROWDED_BYTES` wait to be dispatched.
pub(super) const BULK_BYTES: usize = 8 * 1024;
/// See `BULK_BYTES`. Enough buffers are left then for what the kernel brings meanwhile.
pub(super) const CROWDED_BYTES: usize = crate::limits::RECEIVE_POOL_BYTES / 8 * 3;
/// Work for those who rest in one turn, as the receive before tells.
const WORK: Duration = Duration::from_millis(1);
/// Bytes of them in one turn.
const BYTES: usize = 256 * 1024;

/// Time of dispatching after which what has come of it goes out.
pub(super) const DISPATCH_TIME: Duration = Duration::from_micros(500);
/// Bytes whose work tells how much others will be.
const PACE_BYTES: usize = 32 * 1024;

/// How many bytes may wait to be dispatched: as many as are dispatched in the time for that, as the last ones tell. More of them would
/// stand before whatever comes next.
#[derive(Debug)]
pub(super) struct Pace {
    bytes_max: usize,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            bytes_max: RECEIVES_BYTES,
        }
    }
}

impl Pace {
    /// So many bytes tell something.
    pub(super) const fn tells(bytes: usize) -> bool {
        bytes >= PACE_BYTES
    }

    /// The work for so many bytes took so long.
    pub(super) fn dispatched(&mut self, bytes: usize, work: Duration) {
        let work = work.as_micros().max(1);
        let in_time = bytes as u128 * DISPATCH_TIME.as_micros() / work;
        let in_time = usize::try_from(in_time).unwrap_or(usize::MAX);
        self.bytes_max = in_time.clamp(PACE_BYTES, RECEIVES_BYTES);
    }

    /// So many wait that no more shall.
    pub(super) const fn is_enough(&self, bytes: usize) -> bool {
        bytes >= self.bytes_max
    }
}

/// What a receive cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Weight {
    /// Microseconds of work.
    micros: u16,
    /// Bytes.
    bytes: u16,
}

impl Weight {
    /// Of one receive.
    pub(super) fn new(work: Duration, bytes: usize) -> Self {
        Self {
            micros: u16::try_from(work.as_micros()).unwrap_or(u16::MAX),
            bytes: u16::try_from(bytes).unwrap_or(u16::MAX),
        }
    }

    /// Its connection rests.
    pub(super) fn is_heavy(self) -> bool {
        u128::from(self.micros) >= HEAVY.as_micros()
    }

    /// Each byte is much work, so that a whole buffer of them would hold everybody up: about that of the smallest commands.
    pub(super) fn is_dense(self) -> bool {
        self.is_heavy() && u32::from(self.micros) * 400 >= u32::from(self.bytes)
    }

    /// Each byte is little work.
    pub(super) fn is_thin(self) -> bool {
        u32::from(self.micros) * 800 < u32::from(self.bytes)
    }
}

/// What is left of a turn for those who rest.
#[derive(Debug)]
pub(super) struct Share {
    work: Duration,
    bytes: usize,
    is_whole: bool,
}

impl Share {
    /// The share of one turn.
    pub(super) const fn of_turn() -> Self {
        Self {
            work: WORK,
            bytes: BYTES,
            is_whole: true,
        }
    }

    /// May one whose last receive cost this be read again? The first always may.
    pub(super) fn has_room(&mut self, weight: Weight) -> bool {
        let work = Duration::from_micros(weight.micros.into());
        let bytes = usize::from(weight.bytes);
        let fits = self.is_whole || work <= self.work && bytes <= self.bytes;
        if fits {
            self.is_whole = false;
            self.work = self.work.saturating_sub(work);
            self.bytes = self.bytes.saturating_sub(bytes);
        }
        fits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_bytes_wait_than_are_dispatched_in_their_time() {
        let mut pace = Pace::default();
        assert!(!pace.is_enough(RECEIVES_BYTES - 1) && pace.is_enough(RECEIVES_BYTES));
        pace.dispatched(100 * 1024, 2 * DISPATCH_TIME);
        assert!(!pace.is_enough(51_199) && pace.is_enough(51_200));
        pace.dispatched(PACE_BYTES, 100 * DISPATCH_TIME);
        assert!(pace.is_enough(PACE_BYTES), "what tells is always possible");
        assert!(!pace.is_enough(PACE_BYTES - 1));
        pace.dispatched(PACE_BYTES, Duration::ZERO);
        assert!(
            !pace.is_enough(RECEIVES_BYTES - 1),
            "fast work is not slowed"
        );
    }

    const fn micros(micros: u64) -> Duration {
        Duration::from_micros(micros)
    }

    #[test]
    fn work_decides_who_rests_and_density_who_is_read_in_small_pieces() {
        for (work, bytes, heavy, dense, thin) in [
            (20, 600, false, false, false),
            (99, 32_768, false, false, false),
            (100, 32_768, true, true, false),
            (164, 32_768, true, true, false),
            (100, 65_535, true, false, false),
            (20_000, 32_768, true, true, false),
            (2, 2048, false, false, true),
            (1_000_000_000, usize::MAX, true, true, false),
        ] {
            let weight = Weight::new(micros(work), bytes);
            let found = (weight.is_heavy(), weight.is_dense(), weight.is_thin());
            assert_eq!(found, (heavy, dense, thin), "{work} µs for {bytes} bytes");
        }
    }

    #[test]
    fn a_turn_has_room_for_some_who_rest_and_always_for_one() {
        let read = |weight: Weight| {
            let mut share = Share::of_turn();
            (0..1000).take_while(|_| share.has_room(weight)).count()
        };
        assert_eq!(read(Weight::new(micros(250), 2048)), 4);
        assert_eq!(read(Weight::new(micros(20_000), 32_768)), 1);
        assert_eq!(read(Weight::new(micros(30), 32_768)), 8);
    }
}
