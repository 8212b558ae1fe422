//! Tokens and users that a service shuts out: kept for those who come, closed for those who are here.

use super::Shard;
use super::admission::user_of;
use crate::mesh::message::Revocation;
use crate::protocol::disconnect::Disconnect;
use crate::protocol::push::Unsubscribe;
use crate::session::{Session, flag};

impl Shard {
    /// Keeps it, then ends what it concerns. `false` if there is no room.
    pub(super) fn revoke(&mut self, revocation: &Revocation) -> bool {
        if self.people.revoke(revocation, self.now).is_err() {
            return false;
        }
        match revocation {
            Revocation::Token { id, .. } => {
                let slots: Vec<u32> = self
                    .connections
                    .iter()
                    .filter(|(_, connection)| {
                        let session = &connection.session;
                        let own = session.token_id();
                        !own.is_empty() && *session.tenant().whole(own) == **id
                    })
                    .map(|(slot, _)| slot)
                    .collect();
                for slot in slots {
                    self.end_if_shut_out(slot);
                }
            }
            Revocation::UserTokens { user, channel, .. } if channel.is_empty() => {
                for slot in (self.people).slots_of(user, user_of(&self.connections)) {
                    self.end_if_shut_out(slot);
                }
            }
            Revocation::UserTokens { user, channel, .. } => {
                for slot in (self.people).slots_of(user, user_of(&self.connections)) {
                    self.end_by_token(slot, channel);
                }
            }
            Revocation::Block { user, .. } => {
                for slot in (self.people).slots_of(user, user_of(&self.connections)) {
                    self.end_if_shut_out(slot);
                }
            }
            Revocation::Unblock { .. } => {}
        }
        true
    }

    /// Closes a session whose user or token is shut out.
    pub(super) fn end_if_shut_out(&mut self, slot: u32) {
        if self.people.revocations().is_empty() {
            return;
        }
        let connection = self.connections.of(slot);
        let shut_out = (connection.session).shut_out(self.people.revocations(), self.now.at);
        if let Some(disconnect) = shut_out {
            self.disconnect(slot, &disconnect);
        }
    }

    /// Ends the subscription that a token allowed: the client asks for a new one, which decides.
    fn end_by_token(&mut self, slot: u32, channel: &str) {
        self.with_session(slot, |session, context| {
            let Some(index) = session.find(context, channel) else {
                return;
            };
            let subscription = &session.subscriptions[index];
            if subscription.has(flag::BY_TOKEN) {
                let hub = subscription.hub;
                session.end_subscription(context, hub, Some(Unsubscribe::Expired));
            }
        });
    }
}

impl Shard {
    /// A new configuration has taken tenants away: nobody is their client any more.
    fn end_who_is_gone(&mut self) {
        let rules = &self.config.channels;
        let is_gone = |session: &Session| rules.of(session.tenant()).is_none();
        let slots: Vec<u32> = self
            .connections
            .iter()
            .filter(|(_, connection)| connection.is_session && is_gone(&connection.session))
            .map(|(slot, _)| slot)
            .collect();
        for slot in slots {
            self.disconnect(slot, &Disconnect::ForceDisconnect);
        }
    }

    /// A new configuration has taken a namespace away, or the history that subscriptions rely on: their clients are told, so that
    /// none listens where nothing comes any more. What else it allows less holds for those who come.
    pub(super) fn end_what_is_gone(&mut self) {
        self.end_who_is_gone();
        let mut ends: Vec<(u32, u32, Unsubscribe)> = Vec::new();
        for (slot, connection) in self.connections.iter() {
            for subscription in &connection.session.subscriptions {
                let channel = self.local.hub().of(subscription.hub);
                match self.config.channels.resolve_of(&channel.name) {
                    Err(_unknown) => ends.push((slot, subscription.hub, Unsubscribe::Gone)),
                    Ok(namespace)
                        if namespace.history_size == 0 && subscription.has(flag::POSITIONED) =>
                    {
                        ends.push((slot, subscription.hub, Unsubscribe::Insufficient));
                    }
                    Ok(_) => {}
                }
            }
        }
        for (slot, hub, why) in ends {
            self.give_run(self.local.hub().id_at(hub));
            let is_positioned = why == Unsubscribe::Insufficient;
            if is_positioned
                && let session = &self.connections.of(slot).session
                && let Some(at) = session.subscription_at(hub)
                && !session.subscriptions[at].is_pending()
            {
                self.tell_insufficient(slot, hub);
            } else {
                self.with_session(slot, |session, context| {
                    session.end_subscription(context, hub, Some(why));
                });
            }
        }
    }
}
