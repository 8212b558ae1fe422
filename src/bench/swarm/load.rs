//! When the next publication is due, and what is still on its way.

use std::collections::VecDeque;

/// Who publishes how fast.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Load {
    /// Nobody.
    None,
    /// Open loop: publications a second over all channels. Lateness counts as latency.
    Rate(f64),
    /// Closed loop: publications that may be on their way to the slowest subscriber.
    Window(u32),
    /// Each client publishes to its own channel and waits for its publication to come back.
    Echo,
}

/// The schedule of an open loop.
#[derive(Clone, Copy, Debug)]
pub(super) struct Schedule {
    start: u64,
    interval: f64,
    sent: u64,
}

impl Schedule {
    pub(super) fn new(start: u64, per_second: f64) -> Self {
        Self {
            start,
            interval: 1e9 / per_second,
            sent: 0,
        }
    }

    /// Nanoseconds at which the next publication ought to be sent.
    pub(super) fn due(&self) -> u64 {
        self.start + (self.sent as f64 * self.interval) as u64
    }

    pub(super) fn advance(&mut self) {
        self.sent += 1;
    }
}

/// A channel as its publisher sees it.
#[derive(Default)]
pub(super) struct Channel {
    /// Publications so far: the next sequence.
    pub(super) published: u32,
    /// Clients subscribed.
    pub(super) subscribers: u32,
    /// Life of the channel at the server, once known.
    pub(super) epoch: String,
    /// The server's offset minus our sequence of the next publication.
    pub(super) offset_base: u64,
    /// Deliveries still owed, by publication, the oldest first. Kept in a closed loop only.
    owed: VecDeque<u32>,
}

impl Channel {
    /// A publication leaves in a closed loop.
    pub(super) fn owe(&mut self) {
        self.owed.push_back(self.subscribers);
    }

    /// A delivery of `sequence`; the publications that all have now.
    pub(super) fn settle(&mut self, sequence: u32) -> u32 {
        let oldest = self.published - self.owed.len() as u32;
        let Some(owed) = sequence
            .checked_sub(oldest)
            .and_then(|at| self.owed.get_mut(at as usize))
        else {
            return 0;
        };
        *owed = owed.saturating_sub(1);
        let mut settled = 0;
        while self.owed.front() == Some(&0) {
            self.owed.pop_front();
            settled += 1;
        }
        settled
    }

    /// Forgets what is owed: the closed loop has ended.
    pub(super) fn forgive(&mut self) {
        self.owed.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_loop_keeps_its_schedule_however_late_it_is_asked() {
        let mut schedule = Schedule::new(1_000, 1e6);
        for expected in [1_000, 2_000, 3_000] {
            assert_eq!(schedule.due(), expected);
            schedule.advance();
        }
    }

    #[test]
    fn window_opens_with_the_slowest_subscriber() {
        let mut channel = Channel {
            subscribers: 2,
            ..Channel::default()
        };
        for _ in 0..3 {
            channel.owe();
            channel.published += 1;
        }
        assert_eq!(channel.settle(0), 0);
        assert_eq!(channel.settle(1), 0);
        assert_eq!(channel.settle(1), 0);
        assert_eq!(channel.settle(0), 2);
        assert_eq!(channel.settle(2) + channel.settle(2), 1);
        assert_eq!(channel.settle(7), 0);
    }
}
