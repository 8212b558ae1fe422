//! One wheel per shard. Entries are slots; nothing is ever cancelled: when an entry fires, its owner looks at the real
//! deadline and files again if that has moved.

use std::time::Duration;

use crate::image::{Image, ImageError, ImageReader, ImageWriter};
use crate::time::Instant;

/// Coarse time: 100 ms since the process started. 0 means "no deadline" where a field holds one.
pub type Tick = u32;

const TICK: Duration = Duration::from_millis(100);
const BUCKETS: usize = 512;

/// A hashed wheel with 512 buckets of 100 ms. Deadlines beyond its 51 s are filed at its far end and filed again from there.
pub struct TimerWheel {
    buckets: Box<[Vec<u32>]>,
    occupied: [u64; BUCKETS / 64],
    /// The next tick to fire.
    next: Tick,
}

impl Default for TimerWheel {
    fn default() -> Self {
        Self {
            buckets: (0..BUCKETS).map(|_| Vec::new()).collect(),
            occupied: [0; BUCKETS / 64],
            next: 1,
        }
    }
}

impl TimerWheel {
    /// The tick that `now` lies in.
    #[must_use]
    pub const fn tick(now: Instant) -> Tick {
        (now.0 / TICK.as_nanos() as u64) as u32
    }

    /// The first tick that is not before `now + delay`, at least one ahead.
    #[must_use]
    pub fn tick_after(now: Instant, delay: Duration) -> Tick {
        let at = (now + delay).0.div_ceil(TICK.as_nanos() as u64);
        (at as u32).max(Self::tick(now) + 1)
    }

    /// So many ticks are a time, at least one unless it is none.
    #[must_use]
    pub const fn ticks(time: Duration) -> Tick {
        time.as_nanos().div_ceil(TICK.as_nanos()) as Tick
    }

    /// Files a slot and returns the tick at which it will fire (at most 51 s ahead).
    pub fn file(&mut self, slot: u32, at: Tick) -> Tick {
        let at = at.clamp(self.next, self.next + BUCKETS as u32 - 1);
        let bucket = at as usize % BUCKETS;
        self.buckets[bucket].push(slot);
        self.occupied[bucket / 64] |= 1 << (bucket % 64);
        at
    }

    /// Takes one fired bucket: its tick and slots. Call until `None`.
    pub fn fire(&mut self, now: Instant) -> Option<(Tick, Vec<u32>)> {
        let current = Self::tick(now);
        while self.next <= current {
            if self.occupied == [0; BUCKETS / 64] {
                self.next = current + 1;
                return None;
            }
            let tick = self.next;
            self.next += 1;
            let bucket = tick as usize % BUCKETS;
            if self.occupied[bucket / 64] & 1 << (bucket % 64) != 0 {
                self.occupied[bucket / 64] &= !(1 << (bucket % 64));
                return Some((tick, std::mem::take(&mut self.buckets[bucket])));
            }
        }
        None
    }

    /// When the next non-empty bucket fires.
    #[must_use]
    pub fn next_at(&self) -> Option<Instant> {
        (self.next..self.next + BUCKETS as u32)
            .find(|&tick| {
                let bucket = tick as usize % BUCKETS;
                self.occupied[bucket / 64] & 1 << (bucket % 64) != 0
            })
            .map(|tick| Instant(u64::from(tick) * TICK.as_nanos() as u64))
    }
}

impl Image for TimerWheel {
    fn write(&self, out: &mut ImageWriter) {
        let Self {
            buckets,
            // Those that are not empty.
            occupied: _,
            next,
        } = self;
        next.write(out);
        out.sparse(buckets, &Vec::new());
    }

    fn read(from: &mut ImageReader<'_>) -> Result<Self, ImageError> {
        let mut wheel = Self {
            next: Image::read(from)?,
            ..Self::default()
        };
        from.sparse(&mut wheel.buckets)?;
        for (bucket, slots) in wheel.buckets.iter().enumerate() {
            if !slots.is_empty() {
                wheel.occupied[bucket / 64] |= 1 << (bucket % 64);
            }
        }
        Ok(wheel)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(ms: u64) -> Instant {
        Instant(ms * 1_000_000)
    }

    #[test]
    fn an_entry_fires_once_and_not_before_its_time() {
        let mut wheel = TimerWheel::default();
        let tick = TimerWheel::tick_after(at(0), Duration::from_millis(950));
        wheel.file(7, tick);
        assert!(wheel.fire(at(900)).is_none());
        assert_eq!(wheel.next_at(), Some(at(1000)));
        assert_eq!(wheel.fire(at(1000)), Some((10, vec![7])));
        assert!(wheel.fire(at(90_000)).is_none());
    }

    #[test]
    fn a_far_deadline_is_filed_at_the_far_end() {
        let mut wheel = TimerWheel::default();
        assert_eq!(wheel.file(1, 10_000), 512);
        let mut fired = None;
        while let Some((tick, slots)) = wheel.fire(at(60_000)) {
            assert!(fired.is_none());
            fired = Some((tick, slots));
        }
        assert_eq!(fired, Some((512, vec![1])));
    }
}
