//! Limits of the system are seen before they are reached: places for connections, accept queues, descriptors.

use std::time::Duration;

use super::Listener;
use crate::mesh::control::Strain;
use crate::metrics::Counters;
use crate::time::Instant;
use crate::uring::listen::Queue;

/// A shard looks this often.
pub(super) const INTERVAL: Duration = Duration::from_secs(1);

/// What was seen last, and what control was told.
#[derive(Default)]
pub(super) struct Watch {
    next: Instant,
    told: Level,
    /// Paused at some time since the last look.
    was_paused: bool,
    is_paused: bool,
    /// What accepting failed with since the last look.
    failed: i32,
    /// Refused connections of all listeners as of the last look.
    dropped: u32,
}

/// What matters of a strain. A limit counts as near from nine tenths on, and until it is well below.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Level {
    is_near: bool,
    is_paused: bool,
    has_failed: bool,
    is_crowded: bool,
    drops: bool,
}

impl Watch {
    /// Nobody can be accepted at the moment, or somebody can.
    pub(super) fn paused(&mut self, is_paused: bool, counters: &mut Counters) {
        if is_paused != self.is_paused {
            self.is_paused = is_paused;
            self.was_paused |= is_paused;
            counters.accept_pauses += u64::from(is_paused);
            counters.accepting_paused = u64::from(is_paused);
        }
    }

    /// An accept failed for want of something.
    pub(super) fn failed(&mut self, errno: i32, counters: &mut Counters) {
        self.failed = errno;
        counters.accept_failures += 1;
    }

    /// Is it time to look?
    pub(super) fn is_due(&self, now: Instant) -> bool {
        now >= self.next
    }

    /// Looks, and says what control should know.
    pub(super) fn look<'l>(
        &mut self,
        now: Instant,
        (open, open_max): (u32, u32),
        listeners: impl Iterator<Item = &'l Listener>,
        counters: &mut Counters,
    ) -> Option<Strain> {
        self.next = now + INTERVAL;
        let queues = listeners.filter(|listener| listener.is_watched);
        let queues = queues.filter_map(|listener| Queue::of(&listener.socket));
        let queues: Vec<Queue> = queues.collect();
        let fullest = queues.iter().copied().max_by_key(fullness);
        let fullest = fullest.unwrap_or_default();
        let dropped = queues.iter().map(|queue| queue.dropped).sum::<u32>();
        let mut strain = Strain {
            open,
            open_max,
            is_near: false,
            is_crowded: false,
            is_paused: self.is_paused || std::mem::take(&mut self.was_paused),
            failed: std::mem::take(&mut self.failed),
            queued: fullest.length,
            queued_max: fullest.length_max,
            dropped: dropped.saturating_sub(self.dropped),
        };
        self.dropped = dropped;
        counters.connections_max = u64::from(open_max);
        counters.accept_queue = queues.iter().map(|queue| u64::from(queue.length)).sum();
        counters.accept_queue_max = u64::from(fullest.length_max);
        counters.accept_queue_dropped += u64::from(strain.dropped);
        let level = self.told.after(&strain);
        (strain.is_near, strain.is_crowded) = (level.is_near, level.is_crowded);
        let changed = level != self.told;
        self.told = level;
        changed.then_some(strain)
    }
}

/// In thousandths.
fn fullness(queue: &Queue) -> u64 {
    u64::from(queue.length) * 1000 / u64::from(queue.length_max.max(1))
}

impl Level {
    fn after(self, strain: &Strain) -> Self {
        let is_near = |was: bool, value: u32, most: u32| {
            let tenths = if was { 8 } else { 9 };
            most > 0 && u64::from(value) * 10 >= u64::from(most) * tenths
        };
        Self {
            is_near: is_near(self.is_near, strain.open, strain.open_max),
            is_paused: strain.is_paused,
            has_failed: strain.failed != 0,
            is_crowded: is_near(self.is_crowded, strain.queued, strain.queued_max),
            drops: strain.dropped > 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(watch: &mut Watch, open: u32) -> Option<Strain> {
        let counters = &mut Counters::default();
        watch.look(Instant::START, (open, 100), std::iter::empty(), counters)
    }

    #[test]
    fn a_limit_is_told_once_when_it_is_near_and_once_when_it_is_far() {
        let mut watch = Watch::default();
        assert_eq!(look(&mut watch, 89), None);
        assert_eq!(look(&mut watch, 90).map(|strain| strain.open), Some(90));
        assert_eq!(look(&mut watch, 99), None);
        assert_eq!(look(&mut watch, 85), None, "it would come back at once");
        assert!(look(&mut watch, 79).is_some());
        assert_eq!(look(&mut watch, 0), None);
    }

    #[test]
    fn a_pause_between_two_looks_is_told() {
        let mut watch = Watch::default();
        let mut counters = Counters::default();
        for is_paused in [true, true, false] {
            watch.paused(is_paused, &mut counters);
        }
        assert_eq!((counters.accept_pauses, counters.accepting_paused), (1, 0));
        assert_eq!(
            look(&mut watch, 1).map(|strain| strain.is_paused),
            Some(true)
        );
        assert_eq!(
            look(&mut watch, 1).map(|strain| strain.is_paused),
            Some(false)
        );
        assert_eq!(look(&mut watch, 1), None);
    }

    #[test]
    fn failures_are_counted_and_told_with_their_cause() {
        let mut watch = Watch::default();
        let mut counters = Counters::default();
        watch.failed(libc::EMFILE, &mut counters);
        assert_eq!(counters.accept_failures, 1);
        assert_eq!(
            look(&mut watch, 1).map(|strain| strain.failed),
            Some(libc::EMFILE)
        );
        assert_eq!(look(&mut watch, 1).map(|strain| strain.failed), Some(0));
    }
}
