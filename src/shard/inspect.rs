//! What the simulator's checkers look at. Nothing else calls it, and it changes nothing.

use super::Shard;
use super::connection::{Connection, Due, Leaving};
pub use crate::broker::owner::ChannelOwned;
use crate::model::{ChannelName, ClientId, ConnId, StreamPosition};
use crate::session::{Counted, flag};

/// A channel as a shard with subscribers sees it.
#[derive(Debug)]
pub struct ChannelHere {
    /// Name.
    pub name: ChannelName,
    /// Subscribers that get publications.
    pub active: usize,
    /// Subscribers that wait for the owner.
    pub pending: usize,
    /// Lost deliveries are being read again.
    pub catching_up: bool,
    /// Where the subscribers stand.
    pub position: StreamPosition,
}

/// A subscription as its session sees it.
#[derive(Debug)]
pub struct Subscribed {
    /// Whose.
    pub client: ClientId,
    /// To what.
    pub channel: ChannelName,
    /// The owner has answered.
    pub active: bool,
    /// Kept as presence.
    pub present: bool,
    /// Gaps are told.
    pub positioned: bool,
}

/// A connection of a shard that drains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leaver {
    /// Which.
    pub conn: ConnId,
    /// When it came, in ticks.
    pub since: u32,
    /// It was told to come back elsewhere.
    pub is_told: bool,
    /// It was there still when the time was up.
    pub is_cut: bool,
    /// It waits for its turn, and for nothing else.
    pub waits: bool,
}

/// Amounts that are zero when nothing is under way.
#[derive(Debug, PartialEq, Eq)]
pub struct UnderWay {
    /// Bytes of the fan-out ring that are held.
    pub ring_bytes: u32,
    /// Unsent bytes of all connections, as counted along the way.
    pub backlog_bytes: usize,
    /// The same, counted anew.
    pub backlog_bytes_counted: usize,
    /// Bytes of unfinished input of all connections, as counted along the way.
    pub input_bytes: usize,
    /// The same, counted anew.
    pub input_bytes_counted: usize,
    /// Messages to other shards that wait for room.
    pub mesh_held: usize,
    /// Messages from other shards that are not read.
    pub mesh_queued: usize,
    /// Messages of the shard to itself that are not read.
    pub mesh_own: usize,
    /// Server API calls without answer.
    pub api_calls: usize,
    /// Other questions to shards and to control without answer.
    pub questions: usize,
    /// Calls whose answers wait here for others.
    pub waits: usize,
    /// Requests that the log has not answered.
    pub log_requests: usize,
    /// Sessions with commands that wait for a reply or for their turn.
    pub waiting: usize,
    /// Subscribers that get more of what they missed.
    pub parts: usize,
    /// Somebody waited for the log and has not been answered.
    pub woken: bool,
    /// Durable channels in use whose end could not be asked for: that is tried again.
    pub unopened: usize,
    /// Connections of which something is due that nobody has done: none, whenever a handler is over.
    pub due: usize,
    /// Bytes of publications that are not given to their subscribers.
    pub run_bytes: usize,
    /// Who stands in a listener's queue is taken as time goes on, or as handshakes end.
    pub is_paced: bool,
    /// Calls that backends have not answered.
    pub hook_calls: usize,
    /// Connections whose command waits for a key, also those that are gone.
    pub parked: usize,
    /// Bytes of the commands that wait for a key.
    pub parked_bytes: usize,
    /// Commands carried out without reply, of the session that has the most.
    pub commands_most: usize,
    /// Bytes of commands that wait for their turn, as counted along the way.
    pub waiting_bytes: usize,
    /// The same, counted anew.
    pub waiting_bytes_counted: usize,
    /// Of the session of which most wait, among those whose commands come by their own connection.
    pub waiting_bytes_most: usize,
}

/// What a connection waits for before its client is connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// It does not, or is not there.
    Nothing,
    /// The gate has been asked whether it is let in.
    Gate,
    /// The registry of its user has been asked whether it may have one more connection.
    Registry,
    /// A backend decides whether its client may connect.
    Backend,
    /// The key of its token is not known yet.
    Key,
    /// The owners of its channels.
    Owners,
}

impl Shard {
    /// What a connection waits for.
    #[must_use]
    pub fn wait_of(&self, conn: ConnId) -> Wait {
        let ConnId { slot, generation } = conn;
        let Some(connection) = self.connections.current(slot, generation) else {
            return Wait::Nothing;
        };
        if self.people.is_asked(slot) {
            return Wait::Gate;
        }
        if connection.is_parked {
            return Wait::Key;
        }
        let session = &connection.session;
        let is_limited = self.config.client.user_limit().is_some();
        match &session.connecting {
            None => Wait::Nothing,
            Some(connecting) if connecting.awaited > 0 => Wait::Owners,
            Some(_)
                if is_limited
                    && !session.user.is_anonymous()
                    && !session.counted.has(Counted::BY_USER) =>
            {
                Wait::Registry
            }
            Some(_) => Wait::Backend,
        }
    }

    /// Nothing is in the rings that bytes go out from, and some connection remembers where in them it stood.
    #[must_use]
    pub fn remembers_empty_rings(&self) -> bool {
        self.connections.remembers_empty_rings()
    }

    /// Catch-ups of channels that found the queue to the owner full.
    #[must_use]
    pub const fn catch_ups_put_off(&self) -> usize {
        self.local.unasked()
    }

    /// Subscriptions that wait for their owner and are to end as soon as it has answered.
    #[must_use]
    pub fn ending_while_pending(&self) -> usize {
        let sessions = self.connections.iter().map(|(_, one)| &one.session);
        let ends = |extra: &crate::session::Extra| extra.ends.is_some();
        sessions
            .flat_map(|session| &session.subscriptions)
            .filter(|one| one.is_pending() && one.extra.as_deref().is_some_and(ends))
            .count()
    }

    /// Channels with a subscriber here.
    #[must_use]
    pub fn channels_here(&self) -> Vec<ChannelHere> {
        let of = |channel: &crate::broker::hub::HubChannel| ChannelHere {
            name: channel.name.clone(),
            active: channel.subscribers.len(),
            pending: channel.pending as usize,
            catching_up: channel.catching_up,
            position: channel.position,
        };
        self.local.hub().iter().map(of).collect()
    }

    /// Channels owned by this shard.
    #[must_use]
    pub fn channels_owned(&self) -> Vec<ChannelOwned> {
        self.owned.inspect()
    }

    /// Subscriptions of all sessions.
    ///
    /// # Panics
    /// If a session's place in a hub list is not its own.
    #[must_use]
    pub fn subscriptions(&self) -> Vec<Subscribed> {
        let mut out = Vec::new();
        for (slot, connection) in self.connections.iter() {
            for subscription in &connection.session.subscriptions {
                let channel = self
                    .local
                    .hub()
                    .at(subscription.hub)
                    .expect("a subscription's channel lives as long as it");
                if let Some(place) = subscription.place {
                    let there = channel
                        .subscribers
                        .get(place.get() as usize)
                        .map(|there| there.conn);
                    assert_eq!(
                        there,
                        Some(slot),
                        "the place of a subscriber of {:?}",
                        channel.name
                    );
                }
                out.push(Subscribed {
                    client: connection.session.client,
                    channel: channel.name.clone(),
                    active: !subscription.is_pending(),
                    present: subscription.has(flag::PRESENCE),
                    positioned: subscription.has(flag::POSITIONED),
                });
            }
        }
        out
    }

    /// User of every session that its user's registry counts.
    #[must_use]
    pub fn admitted_users(&self) -> Vec<Box<str>> {
        let sessions = self
            .connections
            .iter()
            .map(|(_, connection)| &connection.session);
        sessions
            .filter(|session| session.counted.has(Counted::BY_USER))
            .map(|session| session.user.whole().into())
            .collect()
    }

    /// Connections by user, as counted by the registry on this shard.
    #[must_use]
    pub fn registered(&self) -> Vec<(Box<str>, u32)> {
        self.people.registered()
    }

    /// Client connections that the gate on this shard has let in, and those of this shard that are in.
    #[must_use]
    pub fn let_in(&self) -> (u32, u32) {
        (self.people.inside(), self.people.here())
    }

    /// Who is there while the shard drains; nobody before.
    #[must_use]
    pub fn leavers(&self) -> Vec<Leaver> {
        let Some(drain) = &self.drain else {
            return Vec::new();
        };
        let of = |(slot, one): (u32, &Connection)| {
            let conn = self.connections.id(slot);
            Leaver {
                conn,
                since: one.since,
                is_told: one.leaving == Leaving::Told,
                is_cut: one.leaving == Leaving::Cut,
                waits: drain.waits_for_its_turn(conn),
            }
        };
        self.connections.iter().map(of).collect()
    }

    /// Amounts that are zero when nothing is under way.
    #[must_use]
    pub fn under_way(&self) -> UnderWay {
        let (backlog_bytes, backlog_bytes_counted) = self.backlog_bytes_counted();
        let (input_bytes, input_bytes_counted) = self.input_bytes_counted();
        let waiting = |one: &Connection| one.session.waiting_bytes();
        let connections = || self.connections.iter().map(|(_, one)| one);
        let by_own = connections().filter(|one| !one.is_stream());
        UnderWay {
            ring_bytes: self.connections.ring_used(),
            backlog_bytes,
            backlog_bytes_counted,
            input_bytes,
            input_bytes_counted,
            mesh_held: self.mesh.held(),
            mesh_queued: self.mesh.queued(),
            mesh_own: self.mesh.own(),
            api_calls: self.calls.under_way(),
            questions: self.questions.len(),
            waits: self.waits.len(),
            log_requests: self.log.appends() + self.log.asks(),
            waiting: (self.connections.iter())
                .filter(|(_, connection)| connection.session.order.is_some())
                .count(),
            parts: self.local.parts(),
            woken: self.owned.has_woken(),
            unopened: self.owned.unopened(),
            due: (self.connections.iter())
                .filter(|(_, connection)| connection.due != Due::NOTHING)
                .count(),
            run_bytes: self.local.run_bytes() + self.local.waiting_bytes(),
            is_paced: self.intake.is_held(),
            hook_calls: self.hooks.under_way(),
            parked: self.key_waits.len(),
            parked_bytes: self.key_waits.bytes(),
            commands_most: connections()
                .map(|one| one.session.commands_under_way())
                .max()
                .unwrap_or(0),
            waiting_bytes: self.waiting_bytes,
            waiting_bytes_counted: connections().map(waiting).sum(),
            waiting_bytes_most: by_own.map(waiting).max().unwrap_or(0),
        }
    }
}
