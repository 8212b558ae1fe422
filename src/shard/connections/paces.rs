//! How fast connections send: what `client.command_rate` and `client.input_rate` leave each of them. Only those that sent something of
//! late stand here, so that an idle connection costs nothing for it.

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use super::{Connections, State};
use crate::config::Client;
use crate::image::{Image, ImageError, ImageReader, ImageWriter, image};
use crate::mem::{Bucket, Pace, Tick, TimerWheel};
use crate::time::Instant;

/// Those of one connection.
#[derive(Clone, Copy, Debug, Default)]
struct Paced {
    commands: Bucket,
    input: Bucket,
    /// It is not read before this; 0 for at once.
    slowed: Tick,
}

image!(struct Paced { commands, input, slowed });

impl Paced {
    /// Nobody has to know it any more.
    fn is_over(&self, now: Instant) -> bool {
        self.slowed == 0 && self.commands.is_full(now) && self.input.is_full(now)
    }
}

/// How fast the commands of one connection may come; `None` without a limit.
pub(in crate::shard) fn of_commands(client: &Client) -> Option<Pace> {
    Pace::configured(client.command_rate, client.command_burst)
}

/// How fast bytes are read from one connection of a client; `None` without a limit.
pub(in crate::shard) fn of_input(client: &Client) -> Option<Pace> {
    Pace::configured(client.input_rate, client.input_burst)
}

/// By slot. The slots are the reactor's numbers, which no peer chooses.
pub(super) struct Paces {
    by: HashMap<u32, Paced, FixedState>,
}

impl Default for Paces {
    fn default() -> Self {
        Self {
            by: HashMap::with_hasher(FixedState::with_seed(0)),
        }
    }
}

impl Image for Paces {
    fn write(&self, out: &mut ImageWriter) {
        let Self { by } = self;
        out.map(by.iter());
    }

    fn read(from: &mut ImageReader<'_>) -> Result<Self, ImageError> {
        let mut paces = Self::default();
        from.map(|slot, paced| paces.by.insert(slot, paced))?;
        Ok(paces)
    }
}

impl Connections {
    /// Takes one command of what a connection may say. What it had before, for `put_command`.
    ///
    /// # Errors
    /// It has none left: when it will.
    pub(in crate::shard) fn take_command(
        &mut self,
        slot: u32,
        now: Instant,
        pace: Pace,
    ) -> Result<Bucket, std::time::Duration> {
        let commands = &mut self.paces.by.entry(slot).or_default().commands;
        let before = *commands;
        commands.take(now, 1, pace)?;
        Ok(before)
    }

    /// The command was not carried out and comes again.
    pub(in crate::shard) fn put_command(&mut self, slot: u32, before: Bucket) {
        if let Some(paced) = self.paces.by.get_mut(&slot) {
            paced.commands = before;
        }
    }

    /// So much came of a connection. If that was more than it may send, it is not read until it may again: true where it was read
    /// until now.
    pub(in crate::shard) fn take_input(
        &mut self,
        slot: u32,
        now: Instant,
        bytes: usize,
        pace: Pace,
    ) -> bool {
        let paced = self.paces.by.entry(slot).or_default();
        let wait = paced.input.owe(now, bytes as u64, pace);
        if wait.is_zero() {
            return false;
        }
        let was_read = paced.slowed == 0;
        let until = TimerWheel::tick_after(now, wait);
        paced.slowed = until;
        // The rest of a request has as much longer.
        let connection = self.slab.of_mut(slot);
        if connection.state == State::Head && connection.by != 0 {
            connection.by += until - TimerWheel::tick(now);
        }
        self.stop_reading(slot);
        self.file(slot, until);
        was_read
    }

    /// When a connection that sent too much is read again; 0 if it is read.
    pub(in crate::shard) fn slowed_until(&self, slot: u32) -> Tick {
        if self.paces.by.is_empty() {
            return 0;
        }
        self.paces.by.get(&slot).map_or(0, |paced| paced.slowed)
    }

    /// Reads one again that was slowed down, if its time has come: true if so.
    pub(in crate::shard) fn read_slowed(&mut self, slot: u32, now: Instant) -> bool {
        let until = self.slowed_until(slot);
        if until == 0 || until > TimerWheel::tick(now) {
            return false;
        }
        if let Some(paced) = self.paces.by.get_mut(&slot) {
            paced.slowed = 0;
        }
        self.read_on(slot);
        true
    }

    /// Other rates hold: those that were slowed down by the ones before are read again. Their slots.
    pub(in crate::shard) fn pace_anew(&mut self) -> Vec<u32> {
        let slowed = |(slot, paced): (&u32, &mut Paced)| {
            (std::mem::take(&mut paced.slowed) != 0).then_some(*slot)
        };
        let mut slots: Vec<u32> = self.paces.by.iter_mut().filter_map(slowed).collect();
        slots.sort_unstable();
        for &slot in &slots {
            self.read_on(slot);
        }
        slots
    }

    /// Connections that sent something of late.
    #[cfg(test)]
    pub(in crate::shard) fn paced(&self) -> usize {
        self.paces.by.len()
    }

    /// Forgets those that have all again.
    pub(super) fn shrink_paces(&mut self, now: Instant) {
        let by = &mut self.paces.by;
        by.retain(|_, paced| !paced.is_over(now));
        if by.capacity() > 64 && by.len() < by.capacity() / 8 {
            by.shrink_to(by.len() * 2);
        }
    }

    /// The connection is gone.
    pub(super) fn forget_pace(&mut self, slot: u32) {
        if !self.paces.by.is_empty() {
            self.paces.by.remove(&slot);
        }
    }
}
