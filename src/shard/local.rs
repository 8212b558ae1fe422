//! Local subscribers, and what is given to them: which channels have some here and where these stand, what of this turn waits to be
//! given, what was lost on its way here. A room of the shard: it knows subscribers by the slots of their connections, and neither
//! sends nor ends anything.

mod image;
mod parts;
mod windows;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use crate::broker::hub::News;
use crate::broker::{Hub, HubChannel};
use crate::config::ChannelRules;
use crate::limits::{CHANNELS_OWNED_MAX, FANOUT_PIECE_BYTES_MAX};
use crate::mem::{Key, Turns};
use crate::mesh::durable::Span;
use crate::mesh::message::{Query, QueryKind};
use crate::model::{ConnId, HubId, Offset, Publication, Since, StreamPosition, TenantId, Weights};
use crate::protocol::push::Push;
use crate::speaker::{Compression, Written};
use crate::time::Instant;
use parts::Parts;
use windows::Windows;

/// Bytes of one run.
const RUN_BYTES: usize = FANOUT_PIECE_BYTES_MAX as usize / 4;
/// Bytes of one run for all classes of a mixed audience. A second run of the turn would not stand behind the first in the ring
/// and every subscriber would have to copy: it is put off as long as a class's piece still fits.
const MIXED_RUN_BYTES: usize = FANOUT_PIECE_BYTES_MAX as usize;
/// Subscribers that a tenant with weight 1 is given runs for in its turn.
const RUN_TURN: u32 = 256;
/// Joins and leaves are counted for so long.
const NEWS_INTERVAL: Duration = Duration::from_secs(1);
/// A run's memory is kept for the next turn up to this many publications.
const RUN_PUBLICATIONS_KEPT: usize = 256;

/// See the module.
pub(super) struct Local {
    hub: Hub,
    /// Channels with publications that are to be given in this turn.
    runs: Turns<HubId>,
    /// Those whose publications wait for others.
    windows: Windows,
    /// Bytes of the fan-out ring that they will take, about.
    run_bytes: usize,
    /// What is given to the subscribers of one channel; kept for its capacity.
    written: Written,
    /// Questions for lost deliveries that found a queue full: hub channel and round.
    unasked: Vec<(HubId, u32)>,
    parts: Parts,
    /// Channels that count their joins and leaves, and when their second is over.
    news: VecDeque<(Instant, HubId)>,
    /// When the oldest publication that is not with the kernel yet was taken in.
    fan_out_since: Option<Instant>,
}

/// What a publication from an owner is to the subscribers of its channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arrival {
    /// The next one: their position is behind it by now.
    Next,
    /// Of another life of the channel: those who rely on their position have lost it, and then it is the next one.
    Restarted(StreamPosition),
    /// Others before it are missing: it is read again with them.
    Gap,
    /// They have it, or get it with what is being read again, or nobody is there yet.
    Ignored,
}

/// A run that is being given: its publications, and what each class gets of them.
pub(super) struct Giving {
    pub(super) run: Vec<Arc<Publication>>,
    pub(super) written: Written,
    /// Publications that a later one of them has replaced: subscribers get the latest only.
    pub(super) replaced: usize,
}

impl Local {
    /// Nobody listens yet. Where names are filed follows from `key`.
    pub(super) fn new(key: &Key, weights: &Arc<Weights>) -> Self {
        Self {
            hub: Hub::new(key),
            runs: Turns::new(RUN_TURN, weights),
            windows: Windows::default(),
            run_bytes: 0,
            written: Written::default(),
            unasked: Vec::new(),
            parts: Parts::new(weights),
            news: VecDeque::new(),
            fan_out_since: None,
        }
    }

    /// A new configuration: channels whose namespace still exists follow it.
    pub(super) fn reload(&mut self, rules: &ChannelRules, weights: &Arc<Weights>) {
        self.hub.reload(rules);
        self.runs.reload(weights);
        self.parts.queue().reload(weights);
    }

    /// Who listens.
    pub(super) const fn hub(&self) -> &Hub {
        &self.hub
    }

    /// For a session, which enters and leaves channels by itself: who listens, and subscribers that get the next part of what they
    /// missed once their connection takes it.
    pub(super) const fn lend(&mut self) -> (&mut Hub, &mut parts::PartsQueue) {
        (&mut self.hub, self.parts.queue())
    }

    /// Gives up the memory that only a rush needed: queues keep so many places.
    pub(super) fn shrink(&mut self, kept: usize) {
        self.parts.shrink(kept);
        self.runs.shrink_to(kept);
    }

    /// Publications encoded so far, in JSON and in Protobuf.
    pub(super) const fn encoded(&self) -> [u64; 2] {
        self.written.encoded
    }
}

/// Where the subscribers of a channel stand.
impl Local {
    /// What a publication with an offset is to the subscribers of a channel.
    pub(super) fn arrived(&mut self, id: HubId, publication: &Publication) -> Arrival {
        debug_assert!(publication.offset.0 > 0, "one of a stream");
        let Some(channel) = self.hub.channel_mut(id) else {
            return Arrival::Ignored;
        };
        if channel.subscribers.is_empty() || channel.catching_up {
            return Arrival::Ignored;
        }
        if channel.position.epoch != publication.epoch {
            return Arrival::Restarted(StreamPosition {
                epoch: publication.epoch,
                offset: publication.offset,
            });
        }
        let next = channel.position.offset.0 + 1;
        match publication.offset.0.cmp(&next) {
            std::cmp::Ordering::Less => Arrival::Ignored,
            std::cmp::Ordering::Greater => Arrival::Gap,
            std::cmp::Ordering::Equal => {
                channel.position.offset = publication.offset;
                Arrival::Next
            }
        }
    }

    /// The owner has confirmed a subscriber, and said where the channel stands. True if those who were there stand elsewhere, so that
    /// they have missed something.
    pub(super) fn confirmed(&mut self, id: HubId, position: StreamPosition) -> bool {
        let Some(channel) = self.hub.channel_mut(id) else {
            return false;
        };
        channel.confirmed = true;
        if channel.subscribers.is_empty() {
            channel.position = position;
            channel.catching_up = false;
            return false;
        }
        channel.position != position
    }

    /// The owner says where a channel stands. True if the subscribers stand elsewhere and nothing is read again yet.
    pub(super) fn is_behind(&self, id: HubId, position: StreamPosition) -> bool {
        self.hub.channel(id).is_some_and(|channel| {
            !channel.subscribers.is_empty() && !channel.catching_up && channel.position != position
        })
    }

    /// What was lost is to be read again from the owner; deliveries until then come with it. Returns the question, and which of
    /// the channel's it is.
    pub(super) fn catch_up(&mut self, id: HubId) -> Option<(u32, Query)> {
        let channel = self.hub.channel_mut(id)?;
        channel.catching_up = true;
        channel.round = channel.round.wrapping_add(1);
        let since = Since::Epoch(channel.position.epoch);
        let query = Query {
            channel: channel.name.clone(),
            what: QueryKind::History {
                limit: channel.namespace.history_size,
                since: Some((channel.position.offset.0, since)),
                reverse: false,
            },
        };
        Some((channel.round, query))
    }

    /// A question about a channel found no room, or no answer.
    pub(super) fn could_not_ask(&mut self, id: HubId, round: u32) {
        self.unasked.push((id, round));
    }

    /// Questions that are to be asked again.
    pub(super) const fn unasked(&self) -> usize {
        self.unasked.len()
    }

    /// Channels whose questions found a queue full and are still wanted.
    pub(super) fn take_unasked(&mut self) -> Vec<HubId> {
        let unasked = std::mem::take(&mut self.unasked).into_iter();
        let is_wanted = |&(id, round): &(HubId, u32)| {
            let channel = self.hub.channel(id);
            channel.is_some_and(|channel| channel.catching_up && channel.round == round)
        };
        unasked.filter(is_wanted).map(|(id, _)| id).collect()
    }

    /// The answer to a question for lost deliveries: where the subscribers stand. `None` for one that is no more wanted: it would be
    /// given to subscribers that stand elsewhere by now.
    pub(super) fn caught_up(&mut self, id: HubId, round: u32) -> Option<StreamPosition> {
        let channel = self.hub.channel_mut(id)?;
        let is_wanted = channel.round == round && std::mem::take(&mut channel.catching_up);
        is_wanted.then_some(channel.position)
    }

    /// A publication that was read again is the next one.
    pub(super) fn move_to(&mut self, id: HubId, offset: Offset) {
        if let Some(channel) = self.hub.channel_mut(id) {
            channel.position.offset = channel.position.offset.max(offset);
        }
    }

    /// The subscribers have not come as far as this.
    pub(super) fn is_before(&self, id: HubId, offset: Offset) -> bool {
        let channel = self.hub.channel(id);
        channel.is_some_and(|channel| channel.position.offset < offset)
    }

    /// The subscribers stand here from now on, whatever they have missed. Returns where they stood.
    pub(super) fn restart(
        &mut self,
        id: HubId,
        position: StreamPosition,
    ) -> Option<StreamPosition> {
        let channel = self.hub.channel_mut(id)?;
        channel.catching_up = false;
        Some(std::mem::replace(&mut channel.position, position))
    }
}

/// What is given to them.
impl Local {
    /// Takes a publication in, behind the channel's others: all of them are given to the subscribers at once, written once for each
    /// class as one contiguous piece of the fan-out ring. They wait for others where the namespace says so and `may_wait` allows it.
    /// True if they are to be given now.
    pub(super) fn take_in(
        &mut self,
        id: HubId,
        publication: &Arc<Publication>,
        now: Instant,
        may_wait: bool,
    ) -> bool {
        let Some(channel) = self.hub.channel_mut(id) else {
            return false;
        };
        let before = channel.run_bytes;
        channel.add_to_run(publication);
        let (after, delay) = (channel.run_bytes, channel.namespace.batch_max_delay);
        let most = if channel.classes.len() > 1 {
            MIXED_RUN_BYTES
        } else {
            RUN_BYTES
        };
        if channel.run_is_due {
            self.run_bytes = self.run_bytes - before + after;
        } else if may_wait
            && !delay.is_zero()
            && !channel.run_is_full()
            && after < most
            && self.windows.wait(id, channel, before, now)
        {
            return false;
        } else {
            self.windows.take_out(channel, before);
            channel.run_is_due = true;
            self.runs.push(channel.name.tenant(), id);
            self.run_bytes += after;
        }
        // What may be dropped is given one by one, and at once.
        channel.namespace.watches_outbox() || after >= most
    }

    /// Of the runs that have waited long enough, one more is to be given in this turn. False if there is none.
    pub(super) fn take_waited(&mut self, now: Instant) -> bool {
        let Some(id) = self.windows.next_waited(now) else {
            return false;
        };
        if let Some(channel) = self.hub.channel_mut(id) {
            let waits = !channel.run.is_empty() && !channel.run_is_due;
            if waits {
                self.windows.take_out(channel, channel.run_bytes);
            }
            channel.window = None;
            if waits {
                channel.run_is_due = true;
                self.runs.push(channel.name.tenant(), id);
                self.run_bytes += channel.run_bytes;
            }
        }
        true
    }

    /// Nothing waits any longer than until now.
    pub(super) fn hurry(&mut self, now: Instant) {
        self.windows.hurry(now);
    }

    /// When the next runs have waited long enough.
    pub(super) fn next_waited_at(&self) -> Option<Instant> {
        self.windows.next_at()
    }

    /// Publications of some channel may wait for others.
    pub(super) fn has_waiting(&self) -> bool {
        self.windows.next_at().is_some()
    }

    /// Bytes of publications that wait for others, as they will be written, and of channels that took them with them.
    pub(super) fn waiting_bytes(&self) -> usize {
        self.windows.bytes()
    }

    /// Publications of this turn wait to be given.
    pub(super) const fn has_runs(&self) -> bool {
        !self.runs.is_empty()
    }

    /// Bytes of the fan-out ring that they will take, about.
    pub(super) const fn run_bytes(&self) -> usize {
        self.run_bytes
    }

    /// How many channels have a run that is to be given.
    pub(super) const fn runs(&self) -> usize {
        self.runs.len()
    }

    /// Publications of this turn wait to be given to this tenant's subscribers.
    pub(super) fn has_runs_of(&mut self, tenant: TenantId<'_>) -> bool {
        let lane = self.runs.lane(tenant);
        self.runs.queue_mut(lane).next().is_some()
    }

    /// The next channel with a run that is to be given, of the tenant whose turn it is, and how many subscribers it has.
    pub(super) fn next_run(&mut self, now: Instant) -> Option<(HubId, usize)> {
        self.fan_out_since.get_or_insert(now);
        let id = self.runs.pop()?;
        let channel = self.hub.channel(id);
        let subscribers = channel.map_or(0, |channel| channel.subscribers.len());
        self.runs.charge(subscribers as u32 + 1);
        Some((id, subscribers))
    }

    /// Some are given. Bytes of runs that a channel which lost its subscribers took with it are not counted for ever.
    pub(super) fn runs_given(&mut self) {
        let runs = self.runs.iter().filter_map(|&id| self.hub.channel(id));
        self.run_bytes = runs.map(|channel| channel.run_bytes).sum();
    }

    /// Everything that was given is with the kernel: since when the oldest of it was here.
    pub(super) const fn take_fan_out_since(&mut self) -> Option<Instant> {
        self.fan_out_since.take()
    }

    /// Takes a channel's run to give it: written for every class. `None` if there is none.
    pub(super) fn begin_run(&mut self, id: HubId, compression: &mut Compression) -> Option<Giving> {
        let channel = self.hub.channel_mut(id)?;
        if channel.run.is_empty() {
            return None;
        }
        let bytes = std::mem::take(&mut channel.run_bytes);
        if std::mem::take(&mut channel.run_is_due) {
            self.run_bytes -= bytes;
        } else {
            self.windows.take_out(channel, bytes);
        }
        let mut run = std::mem::take(&mut channel.run);
        if !channel.gives_latest() && channel.namespace.watches_outbox() {
            // What may be dropped is dropped one by one.
            channel.run = run.split_off(1);
        }
        let mut replaced = std::mem::take(&mut channel.run_replaced);
        let mut written = std::mem::take(&mut self.written);
        written.run(channel, &run, replaced > 0, compression);
        if channel.gives_latest() {
            replaced += run.len() - 1;
        }
        Some(Giving {
            run,
            written,
            replaced,
        })
    }

    /// What was written is with the connections, or copied.
    pub(super) fn put_back(&mut self, written: Written) {
        self.written = written;
    }

    /// A run was given.
    pub(super) fn end_run(&mut self, id: HubId, mut run: Vec<Arc<Publication>>) {
        let is_of_stream = run.last().is_some_and(|last| last.offset.0 > 0);
        if let Some(channel) = self.hub.channel_mut(id) {
            channel.move_chains(is_of_stream);
            // Giving it may have let somebody go on whose publication came in.
            if channel.run.is_empty() && run.capacity() <= RUN_PUBLICATIONS_KEPT {
                run.clear();
                channel.run = run;
            }
        }
    }

    /// Writes one push that is no publication for every class of a channel, about the channel `name` or, without one, the connection.
    pub(super) fn write(
        &mut self,
        id: HubId,
        name: &str,
        push: &Push<'_>,
        compression: &mut Compression,
    ) -> Option<Written> {
        let channel = self.hub.channel(id)?;
        let mut written = std::mem::take(&mut self.written);
        written.push(channel, name, push, compression);
        Some(written)
    }
}

/// Subscribers that get what they missed in parts, one part after the other, as their connection takes them.
impl Local {
    /// Subscribers that wait for their next part.
    pub(super) fn parts(&self) -> usize {
        self.parts.len()
    }

    /// Some of them can be asked for now.
    pub(super) fn has_parts(&self) -> bool {
        self.parts.ready() > 0
    }

    /// How many of them.
    pub(super) fn parts_ready(&self) -> usize {
        self.parts.ready()
    }

    /// The next one to be asked for.
    pub(super) fn next_part(&mut self) -> Option<(ConnId, HubId)> {
        let queue = self.parts.queue();
        let next = queue.pop();
        queue.charge(1);
        next
    }

    /// It could not be asked for now.
    pub(super) fn part_again(&mut self, conn: ConnId, hub: HubId) {
        self.parts.again(&self.hub, conn, hub);
    }

    /// Its connection takes nothing now: nobody looks at it before `wake_parts`.
    pub(super) fn stall_part(&mut self, conn: ConnId, hub: HubId) {
        self.parts.stall(conn, hub);
    }

    /// Nobody's connection takes nothing.
    pub(super) fn has_stalled(&self) -> bool {
        self.parts.has_stalled()
    }

    /// The connection in a slot takes parts again, or is gone.
    pub(super) fn wake_parts(&mut self, slot: u32) {
        self.parts.wake(&self.hub, slot);
    }

    /// The connection in a slot is gone.
    pub(super) fn forget_parts(&mut self, slot: u32) {
        self.parts.forget(slot);
    }
}

/// The channel, as far as its subscribers of one encoding or another are concerned.
impl Local {
    /// Somebody joined or left, and is to be told by itself: somebody gets joins and leaves, and there were not too many of late.
    pub(super) fn is_told(&mut self, id: HubId, joined: bool, now: Instant) -> bool {
        let Some(channel) = self.hub.channel_mut(id) else {
            return false;
        };
        let rate = channel.namespace.join_leave_rate;
        if channel.observers == 0 || rate == 0 {
            return channel.observers > 0;
        }
        let news = &mut channel.news;
        if !news.is_filed {
            if self.news.len() >= CHANNELS_OWNED_MAX {
                return true;
            }
            *news = News {
                is_filed: true,
                ..News::default()
            };
            self.news.push_back((now + NEWS_INTERVAL, id));
        }
        if news.told < rate {
            news.told += 1;
            return true;
        }
        if joined {
            news.joined += 1;
        } else {
            news.left += 1;
        }
        false
    }

    /// When the next second of joins and leaves is over.
    pub(super) fn next_news_at(&self) -> Option<Instant> {
        self.news.front().map(|&(at, _)| at)
    }

    /// The next one that is, and what was counted in it.
    pub(super) fn next_news(&mut self, now: Instant) -> Option<(HubId, News)> {
        let (_, id) = self.news.pop_front_if(|&mut (at, _)| at <= now)?;
        let channel = self.hub.channel_mut(id);
        let news = channel.map(|channel| std::mem::take(&mut channel.news));
        Some((id, news.unwrap_or_default()))
    }

    /// Slots of the subscribers that `wanted` picks by their class.
    pub(super) fn slots(
        &self,
        id: HubId,
        wanted: impl Fn(&crate::broker::hub::Class) -> bool,
    ) -> Vec<u32> {
        let Some(channel) = self.hub.channel(id) else {
            return Vec::new();
        };
        let subscribers = channel.subscribers.iter();
        subscribers
            .filter(|subscriber| wanted(&channel.classes[usize::from(subscriber.class)]))
            .map(|subscriber| subscriber.conn)
            .collect()
    }

    /// Has a subscriber that can only get JSON.
    pub(super) fn has_json(&self, id: HubId) -> bool {
        self.hub.channel(id).is_some_and(HubChannel::has_json)
    }

    /// Has a subscriber that is a long poll.
    pub(super) fn has_polls(&self, id: HubId) -> bool {
        self.hub.channel(id).is_some_and(HubChannel::has_polls)
    }
}

/// What was missed was read again, this span of the channel, for those who stand at `at` in the same life of it. `None` if nothing of
/// it lacks; else where what is there begins.
pub(super) fn gap(
    at: StreamPosition,
    span: Span,
    position: StreamPosition,
) -> Option<StreamPosition> {
    debug_assert_eq!(at.epoch, position.epoch, "one life of the channel");
    (span.from > at.offset.0 + 1).then(|| StreamPosition {
        offset: Offset(span.from - 1),
        ..position
    })
}

/// How many publications those have missed who stood at `before` and stand at `after` now. `None` if nobody knows.
pub(super) fn missed(before: StreamPosition, after: StreamPosition) -> Option<u64> {
    match before.epoch == after.epoch {
        true => Some(after.offset.0.saturating_sub(before.offset.0)),
        false if before.offset.0 > 0 || after.offset.0 > 0 => None,
        // Nothing was ever kept.
        false => Some(0),
    }
}

#[cfg(test)]
mod tests;
