//! People: who is here, where from, who is let in and who is shut out. A room of the shard: it knows connections by their slots,
//! asks whose a session is, and never reaches into one.
//!
//! The gate that counts clients and the registry of a user are on one shard each; what is said to them and by them goes through
//! the mesh, which is not this room's (`shard/admission`).

mod forwarded;
mod gate;
mod image;
mod offenders;
mod places;
mod prefixes;
mod users;

use std::net::IpAddr;
use std::sync::Arc;

use crate::auth::revocation::{Revocations, TooManyRevocations};
use crate::config::keys::{KeySet, KeySource};
use crate::config::{Client, Config};
use crate::mem::Key;
use crate::mesh::message::{Prefix, Revocation, TurnedAway, UserCount};
use crate::model::{ConnId, ShardId};
use crate::session::{KeyWanted, Tokens};
use crate::time::{Instant, Now};
use forwarded::forwarded;
use gate::{Gate, prefix_of};
use offenders::Offenders;
use places::Places;
use prefixes::Prefixes;
use users::Users;

/// See the module.
pub(super) struct People {
    users: Users,
    /// Of the node's, where this shard keeps it.
    gate: Gate,
    places: Places,
    prefixes: Prefixes,
    offenders: Offenders,
    revocations: Revocations,
    tokens: Tokens,
}

/// May a client's request be served?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LetIn {
    /// It may.
    Yes,
    /// The gate has to be asked for a place under this prefix, and the request waits.
    Ask(Option<Prefix>),
}

impl People {
    /// Nobody is here. `tables` is this shard's, `process` the same on all.
    pub(super) fn new(tables: &Key, process: &Key, config: &Config) -> Self {
        Self {
            users: Users::new(tables),
            gate: Gate::new(tables),
            places: Places::new(tables),
            prefixes: Prefixes::new(process),
            offenders: Offenders::default(),
            revocations: Revocations::new(tables),
            tokens: Tokens::new(config),
        }
    }

    /// A new configuration. Keys that were fetched are kept where their service is the same.
    pub(super) fn reload(&mut self, config: &Config) {
        let before = std::mem::replace(&mut self.tokens, Tokens::new(config));
        self.tokens.inherit(before);
    }
}

/// Where they come from, and whether they are let in.
impl People {
    /// A socket was accepted: its address is remembered if a limit needs it, or if it may be that of a proxy.
    pub(super) fn came(&mut self, config: &Config, slot: u32, address: Option<IpAddr>) {
        self.prefixes.set(&config.client, slot, address);
        if needs_address(config)
            && let Some(address) = address
        {
            self.places.came(slot, address);
        }
    }

    /// Stands for the address prefix of a connection's client; 0 where it is not known.
    pub(super) fn prefix_at(&self, slot: u32) -> u32 {
        self.prefixes.at(slot)
    }

    /// The address that a client's request comes from: the peer's, or what trusted proxies say of it in the lines of
    /// `X-Forwarded-For`. `None` when no limit of connections needs it, or on a unix socket that is not trusted.
    pub(super) fn client_address<'h>(
        &mut self,
        config: &Config,
        slot: u32,
        lines: impl Iterator<Item = &'h str>,
    ) -> Option<IpAddr> {
        if !needs_address(config) {
            return None;
        }
        let address = forwarded(config, self.places.peer(slot)?, lines);
        self.prefixes.set(&config.client, slot, address);
        address.filter(|_| config.client.limits_prefixes())
    }

    /// May the request of a client at this address be served?
    pub(super) fn let_in(&mut self, client: &Client, slot: u32, address: Option<IpAddr>) -> LetIn {
        if !client.limits_connections() || self.places.is_in(slot) {
            return LetIn::Yes;
        }
        self.places.ask(slot);
        LetIn::Ask(address.map(|address| prefix_of(client, address)))
    }

    /// The connection waits for the gate.
    pub(super) fn is_asked(&self, slot: u32) -> bool {
        self.places.is_asked(slot)
    }

    /// The gate has let it in, under this prefix.
    pub(super) fn entered(&mut self, slot: u32, prefix: Option<Prefix>) {
        self.places.let_in(slot, prefix);
    }

    /// It is gone, or turned away. What it was counted under, if it was in: the gate is to hear of it.
    pub(super) fn left(&mut self, slot: u32) -> Option<Option<Prefix>> {
        self.places.leave(slot)
    }

    /// Those of these clients that nobody has counted and nobody was asked about are in from here on: how many.
    pub(super) fn adopt(&mut self, slots: impl Iterator<Item = u32>) -> u32 {
        let mut count = 0;
        for slot in slots {
            if !self.places.is_in(slot) && !self.places.is_asked(slot) {
                self.places.let_in(slot, None);
                count += 1;
            }
        }
        count
    }

    /// Connections of this shard that are in.
    pub(super) fn here(&self) -> u32 {
        self.places.inside()
    }
}

/// The gate, where this shard keeps it.
impl People {
    /// Somebody wants in: under which prefix it is counted.
    pub(super) fn enter(
        &mut self,
        now: Instant,
        client: &Client,
        prefix: Option<Prefix>,
    ) -> Result<Option<Prefix>, TurnedAway> {
        self.gate.enter(now, client, prefix)
    }

    /// Somebody has left who was counted under this prefix.
    pub(super) fn exit(&mut self, now: Instant, prefix: Option<Prefix>) {
        self.gate.leave(now, prefix);
    }

    /// A shard has clients that nobody counted.
    pub(super) const fn adopt_all(&mut self, count: u32) {
        self.gate.adopt(count);
    }

    /// Clients that it has let in.
    pub(super) const fn inside(&self) -> u32 {
        self.gate.inside()
    }

    /// Address prefixes that it counts.
    pub(super) fn prefixes_counted(&self) -> usize {
        self.gate.prefixes()
    }
}

/// Users. Whose the session in a slot is says `user_of`, empty for the anonymous user and for a slot without session.
impl People {
    /// The session in a slot is connected.
    pub(super) fn connected<'u>(&mut self, slot: u32, user_of: impl Fn(u32) -> &'u str) {
        self.users.insert(slot, user_of);
    }

    /// The session in a slot ends, which was connected.
    ///
    /// # Panics
    /// If it was not, or has another user by now.
    pub(super) fn disconnected<'u>(&mut self, slot: u32, user_of: impl Fn(u32) -> &'u str) {
        self.users.remove(slot, user_of);
    }

    /// Slots of a user's sessions.
    pub(super) fn slots_of<'u>(&self, user: &str, user_of: impl Fn(u32) -> &'u str) -> Vec<u32> {
        self.users.of(user, user_of)
    }

    /// Sessions past their connect command.
    pub(super) fn sessions(&self) -> u64 {
        self.users.sessions()
    }

    /// Distinct users, for a count over all shards.
    pub(super) fn count_users(&self) -> UserCount {
        self.users.count()
    }

    /// As the registry of a user: one connection more, of at most `limit`. `None` if it is refused, else those that go for it. A
    /// newcomer `displaces` the oldest where the limit is reached.
    pub(super) fn admit(
        &mut self,
        user: &str,
        place: (ShardId, ConnId),
        limit: u32,
        displaces: bool,
    ) -> Option<Vec<(ShardId, ConnId)>> {
        self.users.admit(user, place, limit, displaces)
    }

    /// As the registry of a user: a connection is gone. One that was displaced is gone from here already.
    pub(super) fn release(&mut self, user: &str, from: ShardId, conn: ConnId) {
        self.users.release(user, from, conn);
    }

    /// Users registered here, and how many connections each has.
    pub(super) fn registered(&self) -> Vec<(Box<str>, u32)> {
        self.users.registered()
    }
}

/// Tokens, and who is shut out.
impl People {
    /// What verifies tokens.
    pub(super) const fn tokens(&self) -> &Tokens {
        &self.tokens
    }

    /// A service with keys has answered, or does not (`None`).
    pub(super) fn keys_answered(
        &mut self,
        source: &KeySource,
        set: Option<&Arc<KeySet>>,
        now: Now,
    ) {
        self.tokens.answered(source, set, now);
    }

    /// A key was asked for and the answer came: unless it is there now, it is not asked for again for a while.
    pub(super) fn refuse_if_unknown(&mut self, wanted: &KeyWanted, now: Now) {
        self.tokens.refuse_if_unknown(wanted, now);
    }

    /// Who and what is shut out.
    pub(super) const fn revocations(&self) -> &Revocations {
        &self.revocations
    }

    /// Shuts somebody or something out.
    ///
    /// # Errors
    /// `TooManyRevocations`, when nothing of the kind has ended either.
    pub(super) fn revoke(
        &mut self,
        revocation: &Revocation,
        now: Now,
    ) -> Result<(), TooManyRevocations> {
        self.revocations.add(revocation, now)
    }

    /// The token of a client was invalid.
    pub(super) fn add_offender(&mut self, client: &Client, slot: u32, now: Instant) {
        let per_second = client.invalid_token_rate_per_prefix;
        let from = self.prefix_at(slot);
        if per_second > 0 && from != 0 {
            self.offenders.add(now, from, per_second);
        }
    }

    /// So many of its prefix were invalid of late that no token of this client is looked at.
    pub(super) fn is_offender(&self, client: &Client, slot: u32, now: Instant) -> bool {
        if self.offenders.is_empty() {
            return false;
        }
        let per_second = client.invalid_token_rate_per_prefix;
        let from = self.prefix_at(slot);
        per_second > 0 && self.offenders.is_barred(now, from, per_second)
    }
}

/// Does a limit depend on where a client is, or is that said by proxies?
fn needs_address(config: &Config) -> bool {
    config.client.limits_prefixes() || !config.server.trusted_proxies.is_empty()
}

#[cfg(test)]
mod tests;
