//! How many a shard takes out of the listeners' queues: at a pace, and as long as not too many handshakes are under way. Whoever finds
//! no room waits in the kernel's queue, where it costs nothing, and is not refused.

use std::time::Duration;

use super::Shard;
use crate::config::Server;
use crate::image::image;
use crate::time::{Instant, Now};

/// The pace allows so much of a second at once.
const BURSTS_PER_SECOND: u32 = 10;
/// What comes within this time is taken at once: room that comes bit by bit is waited for so long at least.
const HELD_AT_ONCE: Duration = Duration::from_millis(1);

/// See the module. A client's handshake is over when its session is connected, or its first request is answered.
#[derive(Debug, Default)]
pub(super) struct Intake {
    /// The pace is kept as the time at which all that it allows at once is there again.
    full_at: Instant,
    /// Client connections whose handshake is not over.
    handshakes: u32,
    /// Nobody else could be taken when that was asked for last.
    is_held: bool,
    /// When somebody can be, if time alone decides.
    next: Option<Instant>,
}

image!(struct Intake { full_at, handshakes, is_held, next });

/// What one costs of the pace.
fn cost(rate: u32) -> Duration {
    Duration::from_secs(1) / rate.max(1)
}

impl Intake {
    /// How many more may be taken.
    fn room(&mut self, now: Instant, server: &Server) -> u32 {
        let mut room = u32::MAX;
        self.next = None;
        if server.handshakes_max > 0 {
            room = server.handshakes_max.saturating_sub(self.handshakes);
        }
        if server.accept_rate > 0 {
            let cost = cost(server.accept_rate);
            let whole = cost * (server.accept_rate / BURSTS_PER_SECOND).max(1);
            let there = whole.saturating_sub(self.full_at.since(now));
            let paced = (there.as_nanos() / cost.as_nanos()) as u32;
            if paced == 0 {
                let at = self
                    .full_at
                    .0
                    .saturating_sub((whole - cost).as_nanos() as u64);
                self.next = Some(Instant(at).max(now + HELD_AT_ONCE));
            }
            room = room.min(paced);
        }
        room
    }

    fn take(&mut self, now: Instant, server: &Server) {
        if server.accept_rate > 0 {
            self.full_at = self.full_at.max(now) + cost(server.accept_rate);
        }
    }

    /// When room has come, if somebody may wait for it.
    pub(super) const fn next_at(&self) -> Option<Instant> {
        self.next
    }

    /// Nobody else could be taken when that was asked for last.
    pub(super) const fn is_held(&self) -> bool {
        self.is_held
    }

    /// Client connections whose handshake is not over.
    pub(super) const fn handshakes(&self) -> u32 {
        self.handshakes
    }
}

impl Shard {
    /// How many client connections the reactor may take out of the listeners' queues now. It asks before it does, and again
    /// when the shard has had its turn.
    pub fn accept_room(&mut self, now: Now) -> u32 {
        // The queues are emptied before they are closed.
        if self.drain.is_some() {
            self.intake.next = None;
            return u32::MAX;
        }
        let room = self.intake.room(now.at, &self.config.server);
        let was_held = std::mem::replace(&mut self.intake.is_held, room == 0);
        self.counters.accept_holds += u64::from(room == 0 && !was_held);
        room
    }

    /// A client's socket was accepted.
    pub(super) fn handshake_begins(&mut self, slot: u32) {
        self.intake.take(self.now.at, &self.config.server);
        self.intake.handshakes += 1;
        self.connections.of_mut(slot).is_arriving = true;
    }

    /// Its handshake is over, in whatever way.
    pub(super) fn handshake_over(&mut self, slot: u32) {
        let is_arriving = &mut self.connections.of_mut(slot).is_arriving;
        self.intake.handshakes -= u32::from(std::mem::take(is_arriving));
    }

    /// Time has passed: whoever waits for room asks again.
    pub(super) fn intake_timeout(&mut self) {
        let now = self.now.at;
        self.intake.next.take_if(|at| *at <= now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Instant {
        Instant(ms * 1_000_000)
    }

    #[test]
    fn the_pace_allows_a_tenth_of_a_second_at_once_and_then_says_when() {
        let server = Server {
            accept_rate: 100,
            ..Server::default()
        };
        let mut intake = Intake::default();
        assert_eq!(intake.room(at(1000), &server), 10);
        for _ in 0..10 {
            intake.take(at(1000), &server);
        }
        assert_eq!(intake.room(at(1000), &server), 0);
        assert_eq!(intake.next_at(), Some(at(1010)));
        assert_eq!(intake.room(at(1010), &server), 1);
        assert_eq!(intake.next_at(), None);
        assert_eq!(intake.room(at(9000), &server), 10, "no more is saved up");
    }

    #[test]
    fn what_was_taken_beyond_the_pace_is_owed() {
        let server = Server {
            accept_rate: 10,
            ..Server::default()
        };
        let mut intake = Intake::default();
        for _ in 0..5 {
            intake.take(at(0), &server);
        }
        assert_eq!(intake.room(at(400), &server), 0);
        assert_eq!(intake.room(at(500), &server), 1);
    }

    #[test]
    fn handshakes_under_way_leave_less_room_and_a_limit_that_is_off_leaves_all() {
        let server = Server {
            handshakes_max: 3,
            ..Server::default()
        };
        let mut intake = Intake {
            handshakes: 2,
            ..Intake::default()
        };
        assert_eq!(intake.room(at(0), &server), 1);
        intake.handshakes = 4;
        assert_eq!(intake.room(at(0), &server), 0);
        assert_eq!(intake.next_at(), None, "no time brings room");
        assert_eq!(intake.room(at(0), &Server::default()), u32::MAX);
    }
}
