//! Who has too much to be sent, or something that waits for too long, and what is left out of that as the channels say.

use std::collections::{BTreeMap, BinaryHeap};

use super::{Connection, Connections, Due, State};
use crate::broker::HubChannel;
use crate::config::namespace::SlowConsumer;
use crate::limits::HTTP_BODY_BYTES_MAX;
use crate::mem::{Origin, Tick, TimerWheel};
use crate::model::{TenantId, Weights};
use crate::session::{Session, flag};
use crate::shard::backlog::Backlog;
use crate::shard::loss::Losses;

/// Looks at what waits in the time that it may wait.
const LOOKS: Tick = 8;

/// What became of a connection with too much to be sent.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::shard) enum Shed {
    /// It has not too much.
    Nothing,
    /// It ends anyway and takes more than its end is worth.
    Abort,
    /// Its session has to end.
    Slow(Left),
    /// Its session has to end, and polls the channel in this hub slot instead, from this offset on, or from where the channel stands.
    Degraded(Left, u32, Option<u64>),
    /// It lost something, of channels with these hub slots.
    Dropped(Left, Vec<u32>),
}

/// How many publications were left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::shard) struct Left {
    /// Those that nothing stands for.
    pub(in crate::shard) dropped: u64,
    /// Those in whose place a later one comes.
    pub(in crate::shard) conflated: u64,
}

/// Connections with something unsent: those of the tenant that has most for its weight first, and of these the largest.
pub(in crate::shard) struct Largest {
    tenants: Vec<OfTenant>,
    /// What each has for its weight, and its place in the list.
    order: BinaryHeap<(usize, usize)>,
}

/// What one tenant has.
struct OfTenant {
    weight: usize,
    bytes: usize,
    largest: BinaryHeap<(usize, u32)>,
}

impl OfTenant {
    const fn share(&self) -> usize {
        self.bytes / self.weight
    }
}

impl Largest {
    /// The next one: its bytes, its slot, and what `push` wants to know of it.
    pub(in crate::shard) fn pop(&mut self) -> Option<(usize, u32, usize)> {
        loop {
            let (_, at) = self.order.pop()?;
            let own = &mut self.tenants[at];
            if let Some((bytes, slot)) = own.largest.pop() {
                own.bytes -= bytes;
                self.order.push((own.share(), at));
                return Some((bytes, slot, at));
            }
        }
    }

    /// It has so much still.
    pub(in crate::shard) fn push(&mut self, bytes: usize, slot: u32, at: usize) {
        let own = &mut self.tenants[at];
        own.bytes += bytes;
        own.largest.push((bytes, slot));
        self.order.retain(|&(_, other)| other != at);
        self.order.push((own.share(), at));
    }
}

/// What is left out of the unsent bytes of one connection.
pub(super) struct Leaving<'c, F> {
    backlog: &'c mut Backlog,
    session: &'c Session,
    channel_at: &'c F,
    pub(super) left: Left,
    hubs: Vec<u32>,
}

/// Has something waited for too long since then, as its channel says?
fn is_old(channel: &HubChannel, origin: &Origin, now: Tick) -> bool {
    let most = TimerWheel::ticks(channel.namespace.outbox_age_max);
    most > 0 && origin.since.saturating_add(most) <= now
}

/// Those who rely on their position are not left with a gap.
fn is_positioned(session: &Session, hub: u32) -> bool {
    let at = session.subscription_at(hub);
    at.is_some_and(|at| session.subscriptions[at].has(flag::POSITIONED))
}

impl<'c, 'n, F: Fn(u32) -> Option<&'n HubChannel>> Leaving<'c, F> {
    pub(super) fn out_of(
        backlog: &'c mut Backlog,
        session: &'c Session,
        channel_at: &'c F,
    ) -> Self {
        Self {
            backlog,
            session,
            channel_at,
            left: Left::default(),
            hubs: Vec::new(),
        }
    }

    fn policy(&self, hub: u32) -> Option<SlowConsumer> {
        (self.channel_at)(hub).map(|channel| channel.namespace.slow_consumer)
    }

    /// The subscriber is told, or what else it has of the channel goes as well because it recovers.
    fn book(&mut self, losses: Losses) {
        for (hub, loss) in losses {
            self.left.dropped += loss.publications;
            self.left.conflated += loss.conflated;
            if self.session.subscription_at(hub).is_none() {
                continue;
            }
            if is_positioned(self.session, hub) {
                self.left.dropped += self.backlog.purge(hub).publications;
            } else if let Some(channel) = (self.channel_at)(hub) {
                self.backlog.lose(&channel.name, loss);
            }
            self.hubs.push(hub);
        }
    }

    /// Of each key the latest stays.
    pub(super) fn conflate(&mut self) {
        let (session, channel_at) = (self.session, self.channel_at);
        let losses = self.backlog.conflate(|hub| {
            let channel = channel_at(hub);
            channel.is_some_and(|one| one.namespace.slow_consumer == SlowConsumer::Conflate)
                && !is_positioned(session, hub)
        });
        self.book(losses);
    }

    /// Drops the oldest of all channels that may lose something, until `keep` bytes are left.
    fn drop_oldest(&mut self, keep: usize, limit: usize) {
        let channel_at = self.channel_at;
        let may = |hub| channel_at(hub).is_some_and(|channel| channel.namespace.may_lose());
        let losses = self.backlog.drop_oldest(keep, limit, may);
        self.book(losses);
    }

    /// A channel may have too much waiting. False if the connection has to end for it.
    fn look_at_channel(&mut self, hub: u32) -> bool {
        let Some(channel) = (self.channel_at)(hub) else {
            return true;
        };
        let most = channel.namespace.outbox_bytes_max as usize;
        if most == 0 || !self.backlog.has_too_much(hub, most) {
            return true;
        }
        if !channel.namespace.may_lose() {
            return false;
        }
        self.conflate();
        if self.backlog.has_too_much(hub, most) {
            let losses = self.backlog.drop_oldest_of(hub, most / 2);
            self.book(losses);
        }
        true
    }

    /// The connection has to end: for this channel, or for any of those that wait.
    fn end(self, hub: Option<u32>) -> Shed {
        let degrades = |hub: &u32| self.policy(*hub) == Some(SlowConsumer::Degrade);
        let hub = match hub {
            Some(hub) => Some(hub).filter(degrades),
            None => self.backlog.hubs().find(degrades),
        };
        let Some(hub) = hub else {
            return Shed::Slow(self.left);
        };
        let lost = self.backlog.cut();
        let of = lost.into_iter().find(|(of, _)| *of == hub);
        let from = of.map(|(_, loss)| loss.from().saturating_sub(1));
        Shed::Degraded(self.left, hub, from)
    }

    fn done(self) -> Shed {
        if self.left == Left::default() {
            return Shed::Nothing;
        }
        Shed::Dropped(self.left, self.hubs)
    }
}

impl Connection {
    /// Its session may be told what it has lost, and be ended.
    fn is_open(&self) -> bool {
        let is_over = matches!(
            self.state,
            State::Finishing | State::Refused | State::Lingering | State::Gone
        );
        self.is_session && !is_over
    }
}

impl Connections {
    /// Looks whether more than `limit` bytes wait for a connection, or more of the channel in the hub slot `pushed` than that lets;
    /// what may be left out of them is.
    pub(in crate::shard) fn shed<'n>(
        &mut self,
        slot: u32,
        pushed: Option<u32>,
        limit: usize,
        channel_at: impl Fn(u32) -> Option<&'n HubChannel>,
    ) -> Shed {
        let Some(connection) = self.slab.at_mut(slot) else {
            return Shed::Nothing;
        };
        let is_open = connection.is_open();
        let Some(backlog) = &mut connection.backlog else {
            return Shed::Nothing;
        };
        if !is_open {
            // A session that ends adds nothing but its close frame, which its peer may still read in time. An HTTP answer
            // may be larger than a client's queue; the peer asked for it.
            let most = limit.max(HTTP_BODY_BYTES_MAX) * 16;
            return if !connection.is_session && backlog.unsent() > most {
                Shed::Abort
            } else {
                Shed::Nothing
            };
        }
        let mut leaving = Leaving::out_of(backlog, &connection.session, &channel_at);
        if let Some(hub) = pushed
            && !leaving.look_at_channel(hub)
        {
            return leaving.end(Some(hub));
        }
        let is_over = |backlog: &Backlog| backlog.waiting() > limit;
        if leaving.backlog.has_much_unconflated() || is_over(leaving.backlog) {
            leaving.conflate();
        }
        if is_over(leaving.backlog) {
            let keep = limit.saturating_sub(leaving.backlog.in_flight()) / 2;
            leaving.drop_oldest(keep, limit);
        }
        if is_over(leaving.backlog) {
            return leaving.end(None);
        }
        let shed = leaving.done();
        if shed != Shed::Nothing {
            connection.due.add(Due::ROOM);
        }
        shed
    }

    /// When it is to be looked whether something has waited for too long that came at the tick `since` for a connection and may wait
    /// for so many ticks.
    pub(in crate::shard) fn expect_age(&mut self, slot: u32, since: Tick, most: Tick) {
        if let Some(connection) = self.slab.at_mut(slot)
            && let Some(backlog) = &mut connection.backlog
        {
            let by = since.saturating_add(most);
            if backlog.age_by == 0 || by < backlog.age_by {
                backlog.age_by = by;
                connection.due.add(Due::TIME);
            }
        }
    }

    /// What has waited for too long for a connection is dealt with as its channel says.
    pub(in crate::shard) fn age<'n>(
        &mut self,
        slot: u32,
        now: Tick,
        channel_at: impl Fn(u32) -> Option<&'n HubChannel>,
    ) -> Shed {
        let Some(connection) = self.slab.at_mut(slot) else {
            return Shed::Nothing;
        };
        let is_open = connection.is_open();
        let Some(backlog) = &mut connection.backlog else {
            return Shed::Nothing;
        };
        if backlog.age_by == 0 || backlog.age_by > now {
            return Shed::Nothing;
        }
        backlog.age_by = 0;
        if !is_open {
            return Shed::Nothing;
        }
        let session = &connection.session;
        let mut leaving = Leaving::out_of(backlog, session, &channel_at);
        leaving.conflate();
        // The latest of each key stays, however old it is.
        let stays = |channel: &HubChannel, hub: u32, origin: &Origin| {
            channel.namespace.slow_consumer == SlowConsumer::Conflate
                && origin.key.is_some()
                && !is_positioned(session, hub)
        };
        let goes = |hub: u32, origin: &Origin| {
            channel_at(hub).is_some_and(|channel| {
                channel.namespace.may_lose()
                    && is_old(channel, origin, now)
                    && !stays(channel, hub, origin)
            })
        };
        let losses = leaving.backlog.drop_if(goes);
        leaving.book(losses);
        let mut by: Tick = 0;
        let mut ends = None;
        for (hub, origin) in leaving.backlog.publications() {
            let Some(channel) = channel_at(hub) else {
                continue;
            };
            let most = TimerWheel::ticks(channel.namespace.outbox_age_max);
            if most == 0 || stays(channel, hub, origin) {
                continue;
            }
            if is_old(channel, origin, now) {
                ends = Some(hub);
                break;
            }
            let next = (origin.since + most).max(now + most / LOOKS + 1);
            if by == 0 || next < by {
                by = next;
            }
        }
        leaving.backlog.age_by = by;
        let shed = match ends {
            Some(hub) => leaving.end(Some(hub)),
            None => leaving.done(),
        };
        connection.due.add(Due::ROOM);
        connection.due.add(Due::TIME);
        shed
    }

    /// Connections with something unsent.
    pub(in crate::shard) fn largest(&self, weights: &Weights) -> Largest {
        let mut by_tenant: BTreeMap<TenantId<'_>, BinaryHeap<(usize, u32)>> = BTreeMap::new();
        for (slot, one) in self.slab.iter().filter(|(_, one)| one.backlog_bytes() > 0) {
            let own = by_tenant.entry(one.session.tenant()).or_default();
            own.push((one.backlog_bytes(), slot));
        }
        let of = |(tenant, largest): (TenantId<'_>, BinaryHeap<(usize, u32)>)| OfTenant {
            weight: weights.of(tenant) as usize,
            bytes: largest.iter().map(|&(bytes, _)| bytes).sum(),
            largest,
        };
        let tenants: Vec<OfTenant> = by_tenant.into_iter().map(of).collect();
        let order = tenants.iter().enumerate();
        let order = order.map(|(at, one)| (one.share(), at)).collect();
        Largest { tenants, order }
    }

    /// The shard holds too much, and this connection the most of it: half of that goes, or the connection.
    pub(in crate::shard) fn evict<'n>(
        &mut self,
        slot: u32,
        channel_at: impl Fn(u32) -> Option<&'n HubChannel>,
    ) -> Shed {
        let Some(connection) = self.slab.at_mut(slot) else {
            return Shed::Nothing;
        };
        let is_open = connection.is_open();
        let Some(backlog) = &mut connection.backlog else {
            return Shed::Nothing;
        };
        if !is_open {
            connection.backlog = None;
            return Shed::Abort;
        }
        connection.due.add(Due::ROOM);
        let before = backlog.unsent();
        let mut leaving = Leaving::out_of(backlog, &connection.session, &channel_at);
        leaving.conflate();
        leaving.drop_oldest(before / 2, 0);
        if leaving.backlog.unsent() > before / 4 * 3 {
            let shed = leaving.end(None);
            backlog.cut();
            return shed;
        }
        leaving.done()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn largest(tenants: &[(usize, &[usize])]) -> Largest {
        let slots = &mut (0..);
        let of = |&(weight, bytes): &(usize, &[usize])| OfTenant {
            weight,
            bytes: bytes.iter().sum(),
            largest: bytes.iter().copied().zip(&mut *slots).collect(),
        };
        let tenants: Vec<OfTenant> = tenants.iter().map(of).collect();
        let order = tenants.iter().enumerate();
        let order = order.map(|(at, one)| (one.share(), at)).collect();
        Largest { tenants, order }
    }

    fn order(mut largest: Largest) -> Vec<usize> {
        std::iter::from_fn(|| largest.pop())
            .map(|(bytes, ..)| bytes)
            .collect()
    }

    #[test]
    fn the_largest_of_whoever_has_most_for_its_weight_goes_first() {
        assert_eq!(order(largest(&[(1, &[3, 9, 5])])), [9, 5, 3]);
        // One with many small ones has more than one with a large one.
        let rows = largest(&[(1, &[50]), (1, &[30, 31, 32, 33])]);
        assert_eq!(order(rows), [33, 32, 31, 50, 30]);
        let rows = largest(&[(1, &[50]), (4, &[30, 31, 32, 33])]);
        assert_eq!(order(rows)[0], 50);
        let mut rows = largest(&[(1, &[10]), (1, &[40, 8])]);
        let (_, slot, of) = rows.pop().unwrap();
        rows.push(20, slot, of);
        assert_eq!(order(rows), [20, 10, 8]);
    }
}
