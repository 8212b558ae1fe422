//! Accepting: a fixed number of one-shot accepts, armed again once each turn, which bounds the rate.

use std::io;
use std::time::Duration;

use super::Listener;
use super::strain::Watch;
use crate::config::Config;
use crate::mesh::control::Strain;
use crate::metrics::Counters;
use crate::shard::{Door, Shard};
use crate::time::{Instant, Now};
use crate::uring::{Accepted, Ring, Sqe, socket};

/// Accepts armed at once, shared by the listeners. Also the most that one turn takes in.
pub(super) const ACCEPTS: u32 = 64;
/// Slots of the file table below which no connection lives: one for each listener.
pub(super) const RESERVED: u32 = 64;

/// What stands in the listeners' queues when accepting ends is served for this long at most.
pub(super) const LAST_ACCEPTS: Duration = Duration::from_secs(1);

/// What has failed for want of something is tried again after this.
const RETRY: Duration = Duration::from_millis(100);

/// The listeners and the accepts waiting on them.
pub(super) struct Accepts {
    listeners: Vec<Listener>,
    /// What each listener is for; kept beyond its end, since accepts may still be on their way.
    doors: Vec<Door>,
    /// Until when queues are emptied; set when accepting ends.
    last: Option<Instant>,
    /// Accepts to arm: (index, listener).
    unarmed: Vec<(u32, u32)>,
    /// Accepts that failed for want of something; armed again after a while, however busy the shard is.
    failed: Vec<(u32, u32)>,
    /// When they are.
    retry_at: Instant,
    watch: Watch,
    /// Accepts that the kernel holds.
    armed: u32,
    /// The same by listener.
    armed_of: Vec<u32>,
    /// Connections at which no further accept is armed: 95 % of the table, so that no accept finds it full, which
    /// would lose the connection.
    open_max: u32,
}

impl Accepts {
    /// Puts the listeners into the ring's reserved slots.
    pub(super) fn new(
        ring: &mut Ring,
        listeners: Vec<Listener>,
        connections_max: u32,
    ) -> io::Result<Self> {
        let count = listeners.len() as u32;
        if count > RESERVED {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        for (slot, listener) in listeners.iter().enumerate() {
            ring.install(slot as u32, &listener.socket)?;
        }
        let table = ring.slots().saturating_sub(RESERVED);
        Ok(Self {
            unarmed: if count == 0 {
                Vec::new()
            } else {
                (0..ACCEPTS).map(|index| (index, index % count)).collect()
            },
            failed: Vec::new(),
            retry_at: Instant::START,
            watch: Watch::default(),
            armed: 0,
            armed_of: vec![0; listeners.len()],
            doors: listeners.iter().map(|listener| listener.door).collect(),
            last: None,
            listeners,
            open_max: (u64::from(table) * 95 / 100).min(u64::from(connections_max)) as u32,
        })
    }

    /// The configuration has changed.
    pub(super) fn follow(&self, config: &Config) {
        for listener in &self.listeners {
            listener.watch_as(config);
        }
    }

    /// What a listener is for.
    pub(super) fn door(&self, listener: u32) -> Door {
        self.doors[listener as usize]
    }

    /// The kernel holds an accept no more: it is armed again, unless the listeners have ended; after a while where it has failed.
    pub(super) fn over(&mut self, now: Instant, accepted: &Accepted, counters: &mut Counters) {
        assert!(self.armed > 0, "an accept that was armed is over once");
        self.armed -= 1;
        self.armed_of[accepted.listener as usize] -= 1;
        if self.listeners.is_empty() {
            return;
        }
        let place = (accepted.index, accepted.listener);
        let failed = accepted.slot.err();
        match failed.filter(|errno| !matches!(*errno, libc::ECONNABORTED | libc::EINTR)) {
            Some(errno) => {
                self.failed.push(place);
                self.retry_at = now + RETRY;
                self.watch.failed(errno, counters);
            }
            None => self.unarmed.push(place),
        }
    }

    /// The kernel holds no listener any more: the address is free for a successor.
    pub(super) fn are_stopped(&self) -> bool {
        self.listeners.is_empty() && self.armed == 0
    }

    /// Accepts for clients that the kernel holds.
    fn armed_for_clients(&self) -> u32 {
        let each = self.armed_of.iter().zip(&self.doors);
        each.filter(|(_, door)| **door == Door::Clients)
            .map(|(armed, _)| armed)
            .sum()
    }

    /// Arms what is due. When the shard stopped accepting, the listeners' queues are emptied and the listeners ended.
    pub(super) fn arm(
        &mut self,
        ring: &mut Ring,
        now: Now,
        open: u32,
        shard: &mut Shard,
    ) -> io::Result<()> {
        if !shard.is_accepting() {
            let last = *self.last.get_or_insert(now.at + LAST_ACCEPTS);
            let somebody_waits =
                |listener: &Listener| !listener.stays && socket::is_readable(&listener.socket);
            if now.at >= last || !self.listeners.iter().any(somebody_waits) {
                return self.stop(ring);
            }
        }
        if !self.failed.is_empty() && now.at >= self.retry_at {
            self.unarmed.append(&mut self.failed);
        }
        let mut places = self.open_max.saturating_sub(open + self.armed);
        let for_clients = shard.accept_room(now);
        for (index, listener) in std::mem::take(&mut self.unarmed) {
            let may_arm = places > 0
                && match self.door(listener) {
                    Door::Internal => true,
                    // Where there is room for anybody, no listener is left without an accept.
                    Door::Clients => {
                        for_clients > self.armed_for_clients()
                            || for_clients > 0 && self.armed_of[listener as usize] == 0
                    }
                };
            if may_arm {
                ring.push_accept(index, listener, listener)?;
                self.armed += 1;
                self.armed_of[listener as usize] += 1;
                places -= 1;
            } else {
                self.unarmed.push((index, listener));
            }
        }
        let is_held = for_clients == 0 && places > 0;
        let is_paused = self.armed == 0 && !is_held && !self.listeners.is_empty();
        self.watch.paused(is_paused, shard.counters_mut());
        Ok(())
    }

    /// What control should know about limits of the system.
    pub(super) fn look(&mut self, now: Instant, open: u32, shard: &mut Shard) -> Option<Strain> {
        if !self.watch.is_due(now) {
            return None;
        }
        let places = (open, self.open_max);
        let listeners = self.listeners.iter();
        self.watch
            .look(now, places, listeners, shard.counters_mut())
    }

    fn stop(&mut self, ring: &mut Ring) -> io::Result<()> {
        if self.listeners.is_empty() {
            return Ok(());
        }
        let count = self.listeners.len() as u32;
        let idle: Vec<u32> = self
            .unarmed
            .drain(..)
            .chain(self.failed.drain(..))
            .map(|(index, _)| index)
            .collect();
        for index in (0..ACCEPTS).filter(|index| !idle.contains(index)) {
            ring.push(&Sqe::cancel_accept(index, index % count))?;
        }
        // Cancelled before the slot is emptied: an armed accept would keep the listener open.
        ring.enter(0)?;
        for slot in 0..count {
            ring.uninstall(slot)?;
        }
        self.listeners.clear();
        Ok(())
    }
}
