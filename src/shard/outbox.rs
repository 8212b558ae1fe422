//! Bytes on their way out, as far as sessions and channels have to do with it: who has too many, who is told of what was dropped,
//! who goes on because something was taken. The bytes themselves are in `connections`.

use super::connection::Due;
use super::connections::{Left, NextSend, Shed};
use super::{Output, SendBatch, SendFailed, Shard};
use crate::broker::hub::Subscriber;
use crate::broker::{Hub, HubChannel};
use crate::config::apart::Seen;
use crate::config::namespace::SlowConsumer;
use crate::config::path_of;
use crate::limits::{BACKLOG_EVICTED_FROM, BACKLOG_EVICTED_TO, ECHO_MESSAGE_BYTES_MAX};
use crate::mem::{Origin, OriginKey, Place, TimerWheel};
use crate::model::{ConnId, Publication};
use crate::protocol::disconnect::Disconnect;
use crate::speaker::Written;
use crate::time::Now;

/// What is known of a publication that waits.
fn origin(hub: &Hub, channel: &HubChannel, publication: &Publication, now: Now) -> Origin {
    let namespace = &channel.namespace;
    let conflates = namespace.slow_consumer == SlowConsumer::Conflate;
    let key = namespace.conflate_key.as_ref().filter(|_| conflates);
    let key = key.and_then(|key| {
        let bytes = key.of(Seen {
            channel: channel.name.whole(),
            user: publication.info.as_ref().map_or("", |info| &info.user),
            tags: &publication.tags,
            data: &publication.data,
        });
        (!bytes.is_empty()).then(|| OriginKey {
            hash: hub.secret_hash(&bytes),
            bytes: bytes.into(),
        })
    });
    Origin {
        offset: publication.offset.0,
        since: TimerWheel::tick(now.at),
        key,
    }
}

impl Shard {
    /// Queues what a session says. Answers among it that its peer does not take make the next command wait.
    pub(super) fn queue_answer(&mut self, slot: u32, bytes: &[u8], answer_bytes: usize) {
        self.queue(slot, bytes);
        if answer_bytes > 0 {
            self.connections.answered(slot, answer_bytes);
        }
    }

    /// Queues bytes for one connection.
    pub(super) fn queue(&mut self, slot: u32, bytes: &[u8]) {
        self.queue_pieces(slot, &[bytes]);
    }

    /// Queues pieces for one connection, one behind the other.
    pub(super) fn queue_pieces(&mut self, slot: u32, pieces: &[&[u8]]) {
        if self.connections.queue(slot, pieces) {
            self.check_backlog(slot);
        }
    }

    /// Queues what was written for every subscriber of a hub channel that `wanted` picks, each its class's piece: it is one
    /// publication, or what its channel has no say in while it waits. Returns how many publications they got.
    pub(super) fn fan_out(
        &mut self,
        hub: u32,
        written: &mut Written,
        publication: Option<&Publication>,
        wanted: impl Fn(&Subscriber) -> bool,
    ) -> u64 {
        let Some(channel) = self.local.hub().at(hub) else {
            return 0;
        };
        let watched = publication.filter(|_| channel.namespace.watches_outbox());
        let mut special: Vec<(u32, u16)> = Vec::new();
        let publications = (self.connections).fan_out(channel, written, wanted, &mut special);
        if special.is_empty() {
            return publications;
        }
        // Only what waits for somebody is looked at.
        let origin = watched.map_or_else(Origin::default, |publication| {
            origin(self.local.hub(), channel, publication, self.now)
        });
        let most = TimerWheel::ticks(channel.namespace.outbox_age_max);
        let of = watched.map(|_| Place::new(hub));
        for (slot, class) in special {
            self.fan_out_special(slot, of, written, class, &origin);
            if of.is_some() && most > 0 {
                self.connections.expect_age(slot, origin.since, most);
                self.after(slot);
            }
        }
        written.let_go();
        publications
    }

    fn fan_out_special(
        &mut self,
        slot: u32,
        hub: Option<Place>,
        written: &mut Written,
        class: u16,
        origin: &Origin,
    ) {
        let connection = self.connections.of_mut(slot);
        if let Some(connecting) = &mut connection.session.connecting {
            if connecting.pushes.len() > self.config.client.queue_max_size {
                self.disconnect(slot, &Disconnect::Slow);
            } else {
                connecting.pushes.extend_from_slice(written.bytes(class));
            }
            return;
        }
        self.connections.share(slot, written, class, hub, origin);
        self.check_channel(slot, hub.map(Place::get));
    }

    /// A connection with too many unsent bytes is dealt with as its channels say.
    fn check_backlog(&mut self, slot: u32) {
        self.check_channel(slot, None);
    }

    /// The same, when a publication of the channel in this hub slot has come.
    fn check_channel(&mut self, slot: u32, hub: Option<u32>) {
        let limit = match self.mode {
            super::Mode::Proxy => self.config.client.queue_max_size,
            super::Mode::Echo => ECHO_MESSAGE_BYTES_MAX * 2,
        };
        let channel_at = |hub| self.local.hub().at(hub);
        let shed = self.connections.shed(slot, hub, limit, channel_at);
        self.left_out(slot, shed);
    }

    /// Something may have waited for too long for a connection.
    pub(super) fn check_age(&mut self, slot: u32) {
        let now = TimerWheel::tick(self.now.at);
        let channel_at = |hub| self.local.hub().at(hub);
        let shed = self.connections.age(slot, now, channel_at);
        self.counters.aged += u64::from(shed != Shed::Nothing);
        self.left_out(slot, shed);
    }

    /// All connections together have too many unsent bytes: of the tenant that has most of them for its weight the largest is dealt with
    /// as its channels say, and so on until they have not.
    pub(super) fn evict_largest(&mut self) {
        if self.connections.backlog_bytes() <= BACKLOG_EVICTED_FROM {
            return;
        }
        let mut largest = self.connections.largest(&self.config.tenants.weights);
        while self.connections.backlog_bytes() > BACKLOG_EVICTED_TO
            && let Some((before, slot, of)) = largest.pop()
        {
            let channel_at = |hub| self.local.hub().at(hub);
            let shed = self.connections.evict(slot, channel_at);
            self.counters.evicted += u64::from(shed != Shed::Nothing);
            self.left_out(slot, shed);
            // It may be the largest still; one that has ended goes without a word where that is not enough.
            let ends = self.connections.of(slot).close.is_some();
            let left = self.connections.of(slot).backlog_bytes();
            if left > 0 && (left < before || ends) {
                largest.push(left, slot, of);
            }
        }
    }

    /// Something of a connection was left out: its peer is told, or its session ends.
    fn left_out(&mut self, slot: u32, shed: Shed) {
        let mut count = |left: Left| {
            self.counters.dropped_slow += left.dropped;
            self.counters.conflated += left.conflated;
        };
        match shed {
            Shed::Nothing => {}
            Shed::Abort => self.abort(slot),
            Shed::Slow(left) => {
                count(left);
                self.disconnect(slot, &Disconnect::Slow);
            }
            Shed::Degraded(left, hub, from) => {
                count(left);
                let channel = self.local.hub().of(hub);
                let stands = channel.position;
                let prefix = path_of(channel.name.tenant());
                let disconnect = Disconnect::degraded(
                    &format!("{prefix}{}", self.config.poll.handler_prefix),
                    channel.name.name(),
                    stands.epoch.as_str(),
                    from.unwrap_or(stands.offset.0),
                );
                self.disconnect(slot, &disconnect);
            }
            Shed::Dropped(left, hubs) => {
                count(left);
                for hub in hubs {
                    self.tell_insufficient(slot, hub);
                }
                self.after(slot);
            }
        }
    }

    pub(super) fn poll_transmit(&mut self) -> Option<Output> {
        loop {
            let channel_at = |hub| self.local.hub().at(hub);
            let next =
                (self.connections).poll(&mut self.compression, &mut self.counters, channel_at);
            match next {
                NextSend::Do(output) => return Some(output),
                NextSend::Grown(slot) => self.check_backlog(slot),
                NextSend::Nothing => return None,
            }
        }
    }

    /// A batch came back: a ring batch that the kernel did not take whole, or an owned one.
    pub fn handle_sent(
        &mut self,
        now: Now,
        conn: ConnId,
        batch: SendBatch,
        result: Result<usize, SendFailed>,
    ) {
        self.now = now;
        let slot = conn.slot;
        if !self.is_here(conn) {
            return;
        }
        match (batch, result) {
            (_, Err(SendFailed)) => self.send_failed(slot),
            (SendBatch::Ring(range), Ok(taken)) => {
                debug_assert!(taken < range.len as usize, "whole ones are silent");
                let session = &self.connections.of(slot).session;
                let pinged = session.was_pinged(now, &self.config);
                (self.connections).ring_batch_back(slot, range, taken, pinged);
                self.counters.sends_short += 1;
                self.check_backlog(slot);
            }
            (SendBatch::Owned(bytes), Ok(taken)) => {
                debug_assert!(taken <= bytes.len(), "no more was sent than there was");
                self.owned_sent(slot, &bytes, taken);
            }
        }
        self.after(slot);
        self.settle();
    }

    /// An owned batch came back: so much of it is with the kernel.
    fn owned_sent(&mut self, slot: u32, bytes: &[u8], taken: usize) {
        self.counters.bytes_sent += taken as u64;
        let compression = &mut self.compression;
        let back = (self.connections).owned_batch_back(slot, bytes, taken, compression);
        if back.is_pinged {
            let session = &mut self.connections.of_mut(slot).session;
            session.ping_went_out(self.now, &self.config);
        }
        self.batch_taken(slot);
        let connection = self.connections.of(slot);
        if back.is_sent && connection.close.is_some() && connection.pending.len == 0 {
            let linger_until = self.linger_until();
            self.connections.close_if_sent(slot, linger_until);
        }
    }

    /// The peer is gone. What it had asked for before it said no more is still carried out.
    fn send_failed(&mut self, slot: u32) {
        self.connections.batch_failed(slot);
        if self.goes_on_alone(slot) {
            self.connections.drop_backlog(slot);
            self.connections.mark(slot, Due::TURN);
        } else {
            self.abort(slot);
        }
    }

    /// Every ring batch polled so far is with the kernel, and its failures were reported.
    pub fn handle_flushed(&mut self, now: Now) {
        self.now = now;
        if self.connections.flushed() {
            self.outgoing.see_all();
        }
        if self.has_tenants() {
            for slot in self.connections.make_room() {
                self.counters.sends_copied += 1;
                self.check_backlog(slot);
            }
        }
        if self.connections.is_clean()
            && let Some(since) = self.local.take_fan_out_since()
        {
            self.counters
                .fan_out
                .record(u64::try_from(now.at.since(since).as_nanos()).unwrap_or(u64::MAX));
        }
        self.feed_workers();
        self.look_at_fetches();
        let linger_until = self.linger_until();
        self.connections.close_sent(linger_until);
        self.connections.answers_sent();
        self.settle();
    }

    /// Reads no further from a connection.
    pub(super) fn stop_reading(&mut self, slot: u32) {
        self.counters.receives_paused += u64::from(self.connections.stop_reading(slot));
    }

    /// Pings of a connection whose client sends nothing are answered by the kernel's acknowledgements alone.
    pub(super) fn expect_acknowledgements(&mut self, slot: u32) {
        let client = &self.config.client;
        if client.ping_interval.is_some() {
            self.connections
                .expect_acknowledgements(slot, client.pong_timeout);
        }
    }

    /// Gives up the memory that only a rush needed.
    pub fn shrink(&mut self) {
        /// Places that a queue keeps.
        const KEPT: usize = 1024;
        self.connections.shrink(self.now.at, KEPT);
        self.said.shrink_to(KEPT);
        self.local.shrink(KEPT);
        self.scratch.shrink_to(64 << 10);
    }

    /// Sends what is queued, then closes with FIN.
    pub(super) fn finish(&mut self, slot: u32) {
        self.end_session(slot);
        self.forget_input(slot);
        let by = TimerWheel::tick_after(self.now.at, super::websocket::CLOSE_TIMEOUT);
        self.connections.finish(slot, by);
    }

    /// Closes with RST; what is queued is lost.
    pub(super) fn abort(&mut self, slot: u32) {
        self.end_session(slot);
        self.connections.abort(slot);
        // What was lost on its way was not taken.
        self.fetch_is_over(slot);
    }

    /// For the simulator's checkers: bytes that all connections hold, as counted along the way and counted anew.
    #[must_use]
    pub fn backlog_bytes_counted(&self) -> (usize, usize) {
        let connections = &self.connections;
        (
            connections.backlog_bytes(),
            connections.backlog_bytes_counted(),
        )
    }
}
