//! When the time of a connection has come.

use super::{Connections, Due, State};
use crate::mem::{Tick, TimerWheel};
use crate::time::Instant;

/// An entry of the wheel fired.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::shard) enum Fired {
    /// Nothing is due: the entry was not the connection's last one, or it is gone.
    Stale,
    /// The session in this slot may have something to do.
    Due(u32),
    /// The deadline of its state has passed, too.
    Overdue(u32, State),
}

impl Connections {
    /// The deadline of a connection's state; 0 for none. It is filed if it is nearer than what is filed.
    pub(in crate::shard) fn set_deadline(&mut self, slot: u32, at: Tick) {
        self.slab.of_mut(slot).by = at;
        self.file(slot, at);
    }

    /// Files a time at which a connection wants to be looked at, 0 for none, unless a nearer one is filed already.
    pub(in crate::shard) fn file(&mut self, slot: u32, at: Tick) {
        let connection = self.slab.of_mut(slot);
        if at != 0 && (connection.filed == 0 || at < connection.filed) {
            connection.filed = self.wheel.file(slot, at);
        }
    }

    /// The next entry of the wheel whose time has come.
    pub(in crate::shard) fn fire(&mut self, now: Instant) -> Option<Fired> {
        while self.fired.1.is_empty() {
            self.fired = self.wheel.fire(now)?;
        }
        let tick = self.fired.0;
        let slot = self.fired.1.pop()?;
        Some(match self.slab.at_mut(slot) {
            Some(connection) if connection.filed == tick => {
                connection.filed = 0;
                connection.due.add(Due::TIME);
                if connection.by != 0 && connection.by <= TimerWheel::tick(now) {
                    connection.by = 0;
                    Fired::Overdue(slot, connection.state)
                } else {
                    Fired::Due(slot)
                }
            }
            _ => Fired::Stale,
        })
    }

    /// When `fire` has something, as of `now`.
    pub(in crate::shard) fn next_at(&self, now: Instant) -> Option<Instant> {
        let fired = (!self.fired.1.is_empty()).then_some(now);
        fired.or_else(|| self.wheel.next_at())
    }
}
