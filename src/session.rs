//! The rules of one client after its socket is open: connect, subscribe, publish, liveness.
//!
//! A session is a plain record. Its functions take a `Context` and leave frames in it, messages to owners, and the
//! places in the hub; they never touch another session.

mod admission;
pub mod asked;
mod calls;
mod context;
mod durable;
mod hooked;
mod image;
pub mod key;
pub mod late;
mod liveness;
pub mod order;
mod parts;
pub mod poll;
mod publish;
mod query;
pub mod quota;
#[cfg(test)]
mod rig;
mod subscribe;
mod unsubscribe;

use std::sync::Arc;
use std::time::Duration;

use smallvec::SmallVec;

pub use admission::ServerSubscription;
pub use calls::Calls;
pub use context::{Context, KeyWanted, Tokens};
pub use durable::{Requests, TIMEOUT_RETRY, Waiting, appended_json, published_json};
pub use hooked::{Awaiting, ForHooks};
pub use liveness::{PeerState, Pings};
pub use order::Order;

use crate::auth::revocation::Revocations;
use crate::broker::Filter;
use crate::mem::{Bucket, Place, Tick, Whose};
use crate::model::{ChannelName, ClientId, ClientInfo, Format, Overrides, TenantId, UserId};
use crate::protocol::command::{Body, Command};
use crate::protocol::disconnect::Disconnect;
use crate::protocol::error::ClientError;
use crate::time::{Instant, Now};
use crate::wire::websocket::{Deflater, Inflater};
use bytes::Bytes;

/// How far a session has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    /// Nothing but a connect command is expected.
    #[default]
    Fresh,
    /// The connect command waits for owners; later commands wait behind it.
    Connecting,
    /// Connected.
    Connected,
    /// Connect was answered with an error: the client closes.
    Refused,
    /// Ended: nothing more is said.
    Ended,
}

/// Who counts a client. A byte, as everybody has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    bits: u8,
}

impl Counted {
    /// The registry of its user.
    pub const BY_USER: u8 = 1;
    /// The limits of its tenant.
    pub const BY_TENANT: u8 = 1 << 1;

    /// It is counted so.
    #[must_use]
    pub const fn has(self, by: u8) -> bool {
        self.bits & by != 0
    }

    pub(crate) const fn add(&mut self, by: u8) {
        self.bits |= by;
    }

    /// It is counted so no more: was it?
    pub(crate) const fn take(&mut self, by: u8) -> bool {
        let was = self.has(by);
        self.bits &= !by;
        was
    }
}

/// State of one client.
#[derive(Debug, Default)]
pub struct Session {
    /// Unique id, given at connect; all bits 0 before.
    pub client: ClientId,
    /// Whose client it is.
    pub user: UserId,
    /// Connection info: one JSON value or empty.
    pub info: Box<[u8]>,
    /// Subscriptions, in the order they were made.
    pub subscriptions: SmallVec<[Subscription; 1]>,
    /// While `Connecting`.
    pub connecting: Option<Box<Connecting>>,
    /// Commands that wait for their reply or their turn.
    pub order: Option<Box<Order>>,
    /// What few sessions have.
    pub rare: Option<Box<Rare>>,
    /// When the connection expires, in seconds since the start of the process; 0 for never.
    pub expire_at: u32,
    /// `iat` of the connection token in Unix seconds; 0 when absent.
    pub issued_at: u32,
    /// When the next ping goes out, or the connect command must have come; 0 for never.
    pub next: Tick,
    /// When the pong must have come; 0 when none is awaited.
    pub pong_by: Tick,
    /// See `Phase`.
    pub phase: Phase,
    /// How its messages are written.
    pub format: Format,
    /// Came with a token, or expires by a hook's word: the client refreshes with a token unless a hook does.
    pub has_token: bool,
    /// Who counts it.
    pub counted: Counted,
    /// WebSocket ping frames instead of pings of the protocol.
    pub frame_pings: bool,
    /// Pings of the protocol that wait for their pongs.
    pub pings: Pings,
}

/// See `Session::rare`.
#[derive(Debug, Default)]
pub struct Rare {
    /// What it may publish where a namespace limits the rate.
    pub rate: Bucket,
    /// Secret of its `SessionKey`, where the client is told one.
    pub secret: Option<[u8; 16]>,
    /// The head of the response, while the outcome of the connect decides whether it is sent.
    pub head: Option<Box<[u8]>>,
    /// For the answer to a request that waits.
    pub cors: Option<Box<crate::wire::http::Cors>>,
    /// What a long poll waits for.
    pub poll: Option<Box<poll::PollState>>,
    /// `meta` of the connection token or of the connect hook, JSON or empty: it stays on the server.
    pub meta: Bytes,
    /// What the connection token lets it consume.
    pub grants: Option<Arc<[crate::model::ConsumeGrant]>>,
    /// It consumes: the log's side is told when it is gone.
    pub is_worker: bool,
    /// `jti` of the connection token: it can be revoked.
    pub token_id: Box<str>,
    /// Subscription tokens that were none.
    pub invalid_tokens: u32,
    /// For hooks.
    pub hooks: ForHooks,
    /// Of a connection that keeps a context of its own.
    pub deflate: Option<Box<(Deflater, Inflater)>>,
}

/// One subscription of a session.
#[derive(Debug)]
pub struct Subscription {
    /// Slot of the hub channel, which lives as long as the subscription.
    pub hub: u32,
    /// Place in the hub's list; `None` while the owner has not answered.
    pub place: Option<Place>,
    /// When it expires, in seconds since the start of the process; 0 for never.
    pub expire_at: u32,
    /// See `flag`.
    pub flags: u16,
    /// What few subscriptions have.
    pub extra: Option<Box<Extra>>,
}

/// Bits of `Subscription::flags`.
pub mod flag {
    /// Made by the server.
    pub const SERVER_SIDE: u16 = 1;
    /// Gaps are noticed and told.
    pub const POSITIONED: u16 = 1 << 1;
    /// The client may recover.
    pub const RECOVERABLE: u16 = 1 << 2;
    /// Gets join and leave pushes.
    pub const JOIN_LEAVE: u16 = 1 << 3;
    /// Kept as presence.
    pub const PRESENCE: u16 = 1 << 4;
    /// Its join and leave are told.
    pub const ANNOUNCED: u16 = 1 << 5;
    /// Recovery was asked for.
    pub const RECOVERING: u16 = 1 << 6;
    /// An unrecovered subscribe is an error (112).
    pub const REJECT_UNRECOVERED: u16 = 1 << 7;
    /// Its expiry is the client's to renew.
    pub const CLIENT_REFRESH: u16 = 1 << 8;
    /// Named by the connection token.
    pub const FROM_TOKEN: u16 = 1 << 9;
    /// A subscription token allowed it.
    pub const BY_TOKEN: u16 = 1 << 15;
    /// A hook prolongs it.
    pub const SERVER_REFRESH: u16 = 1 << 14;
    /// It has expired and its hook has not answered yet.
    pub const REFRESHING: u16 = 1 << 13;
    /// Delta is agreed.
    pub const DELTA: u16 = 1 << 10;
    /// It has got a part of what it missed and gets the rest before it joins.
    pub const IN_PARTS: u16 = 1 << 11;
}

/// See `Subscription::extra`.
#[derive(Debug, Default)]
pub struct Extra {
    /// Subscription info: one JSON value or empty.
    pub info: Box<[u8]>,
    /// Goes into the subscribe result: one JSON value or empty.
    pub data: Box<[u8]>,
    /// Which publications it gets.
    pub filter: Option<Arc<Filter>>,
    /// The unsubscribe command that came while the subscription was pending.
    pub unsubscribe: Option<u32>,
    /// From where the next part of what it missed follows.
    pub next: Option<crate::mesh::message::Recover>,
    /// The server ended the subscription while it was pending.
    pub ends: Option<crate::protocol::push::Unsubscribe>,
}

/// What a session keeps while its connect command waits.
#[derive(Debug, Default)]
pub struct Connecting {
    /// Id of the connect command.
    pub id: u32,
    /// Answers awaited.
    pub awaited: u32,
    /// Answers so far: channel and what its result says.
    pub results: Vec<(ChannelName, admission::ConnectedSubscription)>,
    /// Pushes of channels that answered early; they follow the connect reply.
    pub pushes: Vec<u8>,
    /// Server-side subscriptions to make once the user is admitted.
    pub waiting: Vec<ServerSubscription>,
    /// From where the client recovers which channel, while a hook decides about the rest.
    pub recovers: Vec<(Box<str>, crate::mesh::message::Recover)>,
    /// Goes into the connect result: JSON or bytes.
    pub data: Bytes,
}

impl Subscription {
    /// Is the bit set?
    #[must_use]
    pub const fn has(&self, flag: u16) -> bool {
        self.flags & flag != 0
    }

    /// The owner has not answered yet.
    #[must_use]
    pub const fn is_pending(&self) -> bool {
        self.place.is_none()
    }

    fn filter(&self) -> Option<&Arc<Filter>> {
        self.extra.as_ref().and_then(|extra| extra.filter.as_ref())
    }

    fn info(&self) -> &[u8] {
        self.extra.as_ref().map_or(&[], |extra| &extra.info)
    }
}

impl Session {
    /// Handles one command. `Err` closes the connection.
    pub fn command(
        &mut self,
        context: &mut Context<'_>,
        command: &Command<'_>,
    ) -> Result<(), Disconnect> {
        match self.phase {
            Phase::Refused | Phase::Ended => return Ok(()),
            Phase::Fresh if !matches!(command.body, Body::Connect(_)) => {
                return Err(Disconnect::BadRequest);
            }
            Phase::Fresh | Phase::Connecting | Phase::Connected => {}
        }
        context.counters.commands += 1;
        context.is_command = true;
        let result = self.carry_out(context, command);
        if result.is_ok() {
            self.await_reply(context, command);
        }
        result
    }

    fn carry_out(
        &mut self,
        context: &mut Context<'_>,
        command: &Command<'_>,
    ) -> Result<(), Disconnect> {
        match &command.body {
            Body::Connect(connect) => self.connect(context, command.id, connect),
            Body::Subscribe(subscribe) => self.subscribe(context, command.id, subscribe),
            Body::Unsubscribe { channel } => self.unsubscribe(context, command.id, channel),
            Body::Publish { channel, data } => self.publish(context, command.id, channel, data),
            Body::Presence { channel } => self.presence(context, command.id, channel, false),
            Body::PresenceStats { channel } => self.presence(context, command.id, channel, true),
            Body::History(history) => self.history(context, command.id, history),
            Body::Rpc { method, data } => {
                self.rpc(context, command.id, method, data);
                Ok(())
            }
            Body::Send { .. } => Err(Disconnect::NotAvailable),
            Body::Refresh { token } => self.refresh(context, command.id, token),
            Body::SubRefresh { channel, token } => {
                self.sub_refresh(context, command.id, channel, token)
            }
            Body::Pong => self.pong(context),
        }
    }

    /// Whose customer the client is.
    #[must_use]
    pub fn tenant(&self) -> TenantId<'_> {
        self.user.tenant()
    }

    /// The channel that the client calls so.
    #[must_use]
    pub fn channel(&self, name: &str) -> ChannelName {
        ChannelName::of(self.tenant(), name)
    }

    /// Who this client is, in a channel with this subscription info.
    #[must_use]
    pub fn client_info(&self, chan_info: &[u8]) -> ClientInfo {
        ClientInfo {
            user: self.user.name().into(),
            client: self.client,
            conn_info: Bytes::copy_from_slice(&self.info),
            chan_info: Bytes::copy_from_slice(chan_info),
        }
    }

    /// A command is not looked at: it gets a temporary error.
    pub fn turn_away(
        &mut self,
        context: &mut Context<'_>,
        (id, connects): (u32, bool),
        error: ClientError,
    ) {
        // The reply has its place behind those to earlier commands.
        context.is_command = true;
        if connects {
            self.refuse(context, id, error);
        } else {
            context.error(id, error);
        }
    }

    /// More commands came than may: this one is not carried out.
    pub fn too_fast(&mut self, context: &mut Context<'_>, command: &Command<'_>, wait: Duration) {
        context.counters.commands_too_fast += 1;
        if matches!(self.phase, Phase::Refused | Phase::Ended) {
            return;
        }
        let connects = self.phase == Phase::Fresh;
        self.turn_away(context, (command.id, connects), ClientError::too_fast(wait));
    }

    /// Who it is to tables that clients share.
    #[must_use]
    pub fn whose(&self, conn: crate::model::ConnId, from: u32) -> Whose<'_> {
        let user = self.user.whole();
        Whose { conn, user, from }
    }

    /// Is this the text of the session's key? Whoever has it may speak for the session.
    #[must_use]
    pub fn is_named(&self, session: &str) -> bool {
        let secret = self.rare.as_ref().and_then(|rare| rare.secret.as_ref());
        let named = key::SessionKey::parse(session);
        named.is_some_and(|key| secret.is_some_and(|secret| key.is(secret)))
    }

    /// `jti` of the connection token; empty when there is none.
    #[must_use]
    pub fn token_id(&self) -> &str {
        self.rare.as_ref().map_or("", |rare| &rare.token_id)
    }

    /// Keeps what a connection token is known by, and what it says to the server alone.
    fn keep_token(&mut self, now: Now, claims: crate::auth::token::ConnectionClaims) {
        self.has_token = true;
        self.expire_at = liveness::kept_expiry(now, claims.expire_at);
        self.issued_at = u32::try_from(claims.mark.issued_at).unwrap_or(u32::MAX);
        if !claims.info.is_empty() {
            self.info = claims.info.to_vec().into_boxed_slice();
        }
        let grants = claims.consume;
        if self.rare.is_some()
            || !claims.meta.is_empty()
            || !claims.mark.id.is_empty()
            || !grants.is_empty()
        {
            let rare = self.rare.get_or_insert_default();
            rare.grants = (!grants.is_empty()).then(|| grants.into());
            rare.token_id = claims.mark.id.into_boxed_str();
            if !claims.meta.is_empty() {
                rare.meta = claims.meta;
            }
        }
    }

    /// Has a service shut out the user or the token of this session? How it ends.
    #[must_use]
    pub fn shut_out(&self, revocations: &Revocations, now: Instant) -> Option<Disconnect> {
        if revocations.is_blocked(&self.user, now) {
            return Some(Disconnect::ForceDisconnect);
        }
        let mark = (self.token_id(), u64::from(self.issued_at));
        let is_revoked = self.has_token && revocations.is_revoked(&self.user, mark, "", now);
        is_revoked.then_some(Disconnect::InvalidToken)
    }

    /// Index of the subscription to the hub channel in `hub`.
    #[must_use]
    pub fn subscription_at(&self, hub: u32) -> Option<usize> {
        self.subscriptions
            .iter()
            .position(|subscription| subscription.hub == hub)
    }
}

/// What of a session others have to follow: it is taken before and after each step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// See `Session::phase`.
    pub phase: Phase,
    next: Tick,
    pong_by: Tick,
    expire_at: u32,
    subscriptions: usize,
}

impl Session {
    /// How it is now.
    #[must_use]
    pub fn stamp(&self) -> Stamp {
        Stamp {
            phase: self.phase,
            next: self.next,
            pong_by: self.pong_by,
            expire_at: self.expire_at,
            subscriptions: self.subscriptions.len(),
        }
    }
}

impl Stamp {
    /// May the nearest deadline be nearer than it was? That of a subscription whose expiry has moved does not show here
    /// (`Context::is_timed`).
    #[must_use]
    pub const fn may_be_sooner(self, before: Self) -> bool {
        self.next != 0 && self.next != before.next
            || self.pong_by != 0 && self.pong_by != before.pong_by
            || self.expire_at != before.expire_at
            || self.subscriptions > before.subscriptions
            || self.phase as u8 != before.phase as u8
    }
}

/// Does an option hold, given an override?
const fn overridden(option: bool, by: Option<bool>) -> bool {
    match by {
        Some(by) => by,
        None => option,
    }
}

/// Flags that the namespace and the overrides force on a subscription.
fn forced_flags(namespace: &crate::config::Namespace, overrides: Overrides) -> u16 {
    let mut flags = 0;
    let history = namespace.history_size > 0;
    for (set, flag) in [
        (
            overridden(namespace.force_positioning, overrides.force_positioning) && history,
            flag::POSITIONED,
        ),
        (
            overridden(namespace.force_recovery, overrides.force_recovery) && history,
            flag::RECOVERABLE | flag::POSITIONED,
        ),
        (
            overridden(
                namespace.force_push_join_leave,
                overrides.force_push_join_leave,
            ),
            flag::JOIN_LEAVE,
        ),
        (
            overridden(namespace.presence, overrides.presence),
            flag::PRESENCE,
        ),
        (
            overridden(namespace.join_leave, overrides.join_leave),
            flag::ANNOUNCED,
        ),
    ] {
        if set {
            flags |= flag;
        }
    }
    flags
}

/// A refused permission as the client hears of it.
const fn refused(denied: crate::auth::permission::Denied) -> crate::protocol::error::ClientError {
    use crate::auth::permission::Denied;
    use crate::protocol::error::ClientError;
    match denied {
        Denied::Forbidden => ClientError::PermissionDenied,
        Denied::NotAvailable => ClientError::NotAvailable,
    }
}
