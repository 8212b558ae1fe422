//! Subscribe and unsubscribe (`spec/centrifuge.md` §4.3, §4.4, §4.11).

use std::sync::Arc;

use bytes::Bytes;

use super::admission::{ConnectedSubscription, recover_of};
use super::asked::SubscribedBy;
use super::liveness::{is_past, kept_expiry, ttl};
use super::order::{Together, is_hooked};
use super::unsubscribe::reply_unsubscribed;
use super::{Context, Extra, Session, Subscription, flag, forced_flags, refused};
use crate::auth::permission;
use crate::auth::token::{SubscriptionClaims, TokenError};
use crate::broker::hub::{Class, Delta, Opener};
use crate::broker::{Filter, HubChannel};
use crate::config::Namespace;
use crate::config::namespace::NameError;
use crate::mesh::Message;
use crate::mesh::message::{Interested, Leave, Recover};
use crate::model::{ChannelName, HubId, Overrides, StreamPosition, TenantId};
use crate::protocol::command::Subscribe;
use crate::protocol::disconnect::Disconnect;
use crate::protocol::error::ClientError;
use crate::protocol::push::{Push, ReplyBody, Unsubscribe};
use crate::time::Now;

/// Why a subscribe fails.
enum SubscribeRefusal {
    Error(ClientError),
    Disconnect(Disconnect),
    /// Not decided: the key of the token is asked for.
    KeyWanted,
}

impl From<ClientError> for SubscribeRefusal {
    fn from(error: ClientError) -> Self {
        Self::Error(error)
    }
}

impl From<Disconnect> for SubscribeRefusal {
    fn from(disconnect: Disconnect) -> Self {
        Self::Disconnect(disconnect)
    }
}

/// What a token or a hook says about a subscription that it allows.
#[derive(Default)]
pub(super) struct Grant {
    /// When the subscription ends, in seconds since the start of the process; 0 for never.
    pub(super) expire_at: u32,
    /// Subscription info, JSON or empty.
    pub(super) info: Bytes,
    /// Goes into the subscribe result.
    pub(super) data: Bytes,
    /// Over the namespace's options.
    pub(super) overrides: Overrides,
    /// A token said it.
    pub(super) by_token: bool,
}

impl Grant {
    fn of(now: Now, claims: SubscriptionClaims) -> Self {
        Self {
            expire_at: kept_expiry(now, claims.expire_at),
            info: claims.info,
            data: claims.data,
            overrides: claims.overrides,
            by_token: true,
        }
    }
}

impl Session {
    /// Index of the subscription to a channel.
    #[must_use]
    pub fn find(&self, context: &Context<'_>, channel: &str) -> Option<usize> {
        self.subscriptions.iter().position(|subscription| {
            context
                .hub
                .at(subscription.hub)
                .is_some_and(|hub| hub.name.name() == channel)
        })
    }

    pub(super) fn subscribe(
        &mut self,
        context: &mut Context<'_>,
        id: u32,
        asked: &Subscribe<'_>,
    ) -> Result<(), Disconnect> {
        match self.try_subscribe(context, id, asked) {
            Ok(()) => Ok(()),
            Err(SubscribeRefusal::Error(error)) => {
                context.error(id, error);
                Ok(())
            }
            Err(SubscribeRefusal::Disconnect(disconnect)) => Err(disconnect),
            Err(SubscribeRefusal::KeyWanted) => {
                context.wait_for_key(
                    self.tenant(),
                    context.tokens.subscription_source.clone(),
                    &asked.token,
                );
                Ok(())
            }
        }
    }

    fn try_subscribe(
        &mut self,
        context: &mut Context<'_>,
        id: u32,
        asked: &Subscribe<'_>,
    ) -> Result<(), SubscribeRefusal> {
        let config = context.config;
        let channel = &*asked.channel;
        match context.rules.check_client_name(channel) {
            Err(NameError::Empty) => return Err(Disconnect::BadRequest.into()),
            Err(NameError::TooLong) => return Err(ClientError::BadRequest.into()),
            Ok(()) => {}
        }
        if self.find(context, channel).is_some() || self.awaiting(channel).is_some() {
            return Err(ClientError::AlreadySubscribed.into());
        }
        if self.is_full(context, self.subscriptions.len() + self.awaiting_count()) {
            return Err(ClientError::LimitExceeded.into());
        }
        if !asked.delta.is_empty() && asked.delta != "fossil" {
            return Err(Disconnect::BadRequest.into());
        }
        let rules = context.rules;
        let namespace = rules
            .resolve(channel)
            .map_err(|_unknown| ClientError::UnknownChannel)?;
        if !context.rules.fits(namespace, channel) {
            return Err(ClientError::BadRequest.into());
        }
        match asked.kind {
            0 => {}
            4 => return Err(ClientError::NotAvailable.into()),
            _ => return Err(ClientError::PermissionDenied.into()),
        }
        if is_hooked(context.rules, namespace, asked) {
            let target = config.hooks.of_subscribe(&namespace.subscribe_proxy_name);
            let target = target.ok_or(ClientError::NotAvailable)?;
            self.ask_subscribe(context, id, asked, target)?;
            return Ok(());
        }
        let claims = match self.check_subscribe(context, asked) {
            Err(SubscribeRefusal::Error(ClientError::PermissionDenied))
                if !asked.token.is_empty() =>
            {
                return Err(self.invalid_token(context));
            }
            checked => checked?,
        };
        let grant = claims.map(|claims| Grant::of(context.now, claims));
        self.become_subscriber(context, id, asked, grant.unwrap_or_default())
    }

    /// A token that is none costs its sender: so many, and the connection ends.
    fn invalid_token(&mut self, context: &mut Context<'_>) -> SubscribeRefusal {
        context.counters.invalid_subscription_tokens += 1;
        let limit = context.config.client.invalid_token_limit;
        let count = &mut self.rare.get_or_insert_default().invalid_tokens;
        *count += 1;
        if limit > 0 && *count >= limit {
            return Disconnect::InvalidToken.into();
        }
        ClientError::PermissionDenied.into()
    }

    /// A hook has allowed what `asked` is left of.
    pub(super) fn subscribe_granted(
        &mut self,
        context: &mut Context<'_>,
        id: u32,
        asked: &Subscribe<'_>,
        grant: Grant,
    ) -> Result<(), Disconnect> {
        // The server may have made the subscription meanwhile.
        let result = if self.find(context, &asked.channel).is_some() {
            Err(ClientError::AlreadySubscribed.into())
        } else {
            self.become_subscriber(context, id, asked, grant)
        };
        match result {
            Ok(()) => Ok(()),
            Err(SubscribeRefusal::Error(error)) => {
                context.error(id, error);
                Ok(())
            }
            Err(SubscribeRefusal::Disconnect(disconnect)) => Err(disconnect),
            Err(SubscribeRefusal::KeyWanted) => {
                unreachable!("a hook is asked where there is no token")
            }
        }
    }

    /// The client may subscribe: checks 17 and 18, then the owner is asked if that is needed.
    fn become_subscriber(
        &mut self,
        context: &mut Context<'_>,
        id: u32,
        asked: &Subscribe<'_>,
        grant: Grant,
    ) -> Result<(), SubscribeRefusal> {
        let channel = &*asked.channel;
        let rules = context.rules;
        let namespace = rules
            .resolve(channel)
            .map_err(|_unknown| ClientError::UnknownChannel)?;
        let filter = checked_filter(context, self.tenant(), namespace, asked)?;
        let expire_at = grant.expire_at;
        if is_past(context.now, expire_at) {
            return Err(ClientError::Expired.into());
        }
        let mut flags = self.granted(context, namespace, asked, grant.overrides);
        if grant.by_token {
            flags |= flag::BY_TOKEN;
        }
        if namespace.sub_refresh_proxy_enabled {
            flags |= flag::SERVER_REFRESH;
        } else if expire_at != 0 {
            flags |= flag::CLIENT_REFRESH;
        }
        let hub = context
            .hub
            .enter(
                &self.channel(channel),
                namespace,
                self.opener(context.prefix),
            )
            .ok_or(ClientError::Internal)?;
        self.subscriptions.push(Subscription {
            hub: hub.slot,
            place: None,
            expire_at,
            flags,
            extra: extra_of(&grant),
        });
        if let Some(filter) = filter
            && let Some(subscription) = self.subscriptions.last_mut()
        {
            subscription.extra.get_or_insert_default().filter = Some(filter);
        }
        self.enter(context, id, hub, asked)?;
        Ok(())
    }

    /// Who subscribes, for the table of channels.
    pub(super) fn opener(&self, prefix: u32) -> Opener<'_> {
        let user = self.user.whole();
        Opener { user, prefix }
    }

    /// Checks 9 to 16: token, user-limited channel, permission.
    fn check_subscribe(
        &self,
        context: &Context<'_>,
        asked: &Subscribe<'_>,
    ) -> Result<Option<SubscriptionClaims>, SubscribeRefusal> {
        let channel = &*asked.channel;
        if asked.token.is_empty() {
            let rules = context.rules;
            let namespace = rules
                .resolve(channel)
                .map_err(|_unknown| ClientError::UnknownChannel)?;
            permission::may_subscribe(rules, namespace, channel, &self.asker(context, false))
                .map_err(refused)?;
            return Ok(None);
        }
        let tokens = context.tokens_of(self.tenant());
        let claims = match tokens.subscription.subscription(&asked.token, context.now) {
            Ok(claims) => claims,
            Err(TokenError::Expired) => return Err(ClientError::TokenExpired.into()),
            Err(TokenError::Invalid | TokenError::BadBase64) => {
                return Err(ClientError::PermissionDenied.into());
            }
            Err(TokenError::KeysUnavailable) => return Err(ClientError::Internal.into()),
            Err(TokenError::KeyWanted) => return Err(SubscribeRefusal::KeyWanted),
        };
        self.check_claims(&claims, channel)?;
        if self.is_revoked(context, &claims) {
            return Err(ClientError::PermissionDenied.into());
        }
        Ok(Some(claims))
    }

    /// A subscription token must name this channel, this user and, if it names one, this client.
    fn check_claims(&self, claims: &SubscriptionClaims, channel: &str) -> Result<(), Disconnect> {
        let client_fits = claims
            .client
            .as_deref()
            .is_none_or(|client| self.client.encode() == *client.as_bytes());
        if claims.channel != channel || claims.user != self.user.name() || !client_fits {
            return Err(Disconnect::InvalidToken);
        }
        Ok(())
    }

    /// What the client gets of what it asked for, and what is forced on it.
    fn granted(
        &self,
        context: &Context<'_>,
        namespace: &crate::config::Namespace,
        asked: &Subscribe<'_>,
        overrides: Overrides,
    ) -> u16 {
        // The client will be a subscriber: what subscribers may, it may.
        let asker = self.asker(context, true);
        let history = namespace.history_size > 0;
        let may_history = permission::may_history(namespace, &asker).is_ok();
        let mut flags = forced_flags(namespace, overrides);
        if asked.positioned && history && (namespace.allow_positioning || may_history) {
            flags |= flag::POSITIONED;
        }
        if asked.recoverable && history && (namespace.allow_recovery || may_history) {
            flags |= flag::POSITIONED | flag::RECOVERABLE;
        }
        if asked.join_leave
            && flags & flag::ANNOUNCED != 0
            && permission::may_presence(namespace, &asker).is_ok()
        {
            flags |= flag::JOIN_LEAVE;
        }
        if (asked.recover || namespace.recovers_by_itself()) && flags & flag::RECOVERABLE != 0 {
            flags |= flag::RECOVERING;
            if asked.recover && asked.flag & 2 != 0 {
                flags |= flag::REJECT_UNRECOVERED;
            }
        }
        // A patch is of the publication before, which a filter may keep back.
        if !asked.delta.is_empty() && asked.filter.is_none() && namespace.fossil() {
            flags |= flag::DELTA;
        }
        flags
    }

    /// Becomes a subscriber at once if nothing needs the owner, else asks it.
    fn enter(
        &mut self,
        context: &mut Context<'_>,
        id: u32,
        hub: HubId,
        asked: &Subscribe<'_>,
    ) -> Result<(), SubscribeRefusal> {
        const NEEDS_OWNER: u16 =
            flag::POSITIONED | flag::RECOVERABLE | flag::PRESENCE | flag::ANNOUNCED;
        let Some(channel) = context.hub.channel(hub) else {
            return Err(ClientError::Internal.into());
        };
        let name = channel.name.clone();
        let is_durable = channel.namespace.is_durable();
        let flags = self
            .subscriptions
            .last()
            .map_or(0, |subscription| subscription.flags);
        // Its reply must not have to wait for others once it gets publications: the owner answers in order.
        let is_next = !self.awaits_replies();
        if channel.confirmed && channel.run.is_empty() && flags & NEEDS_OWNER == 0 && is_next {
            let mut answer = Interested {
                channel: name,
                hub,
                position: StreamPosition::default(),
                missed: Vec::new(),
                recovered: false,
                after: 0,
                refused: None,
                more: false,
                joined: None,
            };
            let index = self.subscriptions.len() - 1;
            self.answer_subscribe(context, id, index, &mut answer);
            return Ok(());
        }
        let limit = context.config.client.recovery_max_publication_limit;
        let recover = match asked.recover {
            _ if flags & flag::RECOVERING == 0 => None,
            true => Some(recover_of(asked, limit)),
            false => Some(Recover::cached()),
        };
        self.ask_owner(context, hub, &name, SubscribedBy::Command(id), recover)?;
        // What waits for the log is not answered in order.
        context.awaits = Some(if is_durable {
            Together::Alone
        } else {
            Together::Subscribes(context.owner(&name))
        });
        Ok(())
    }

    /// The owner has answered: the subscriber gets its result and, from here on, every publication. How the connection ends, if
    /// it has to.
    pub fn interested(
        &mut self,
        context: &mut Context<'_>,
        by: SubscribedBy,
        mut answer: Interested,
    ) -> Option<Disconnect> {
        let hub = answer.hub;
        let index = self.subscription_at(hub.slot).filter(|&index| {
            self.subscriptions[index].is_pending() && context.hub.channel(hub).is_some()
        })?;
        if let Some(why) = answer.refused
            && by != SubscribedBy::Part
        {
            self.refused_by_owner(context, by, index, &answer, why.into());
            return None;
        }
        match by {
            SubscribedBy::Part => return self.part_came(context, hub, index, &answer),
            SubscribedBy::Command(id) => self.answer_subscribe(context, id, index, &mut answer),
            SubscribedBy::Connect => {
                self.join(context, index, &answer);
                let result = ConnectedSubscription::new(&self.subscriptions[index], &mut answer);
                if let Some(connecting) = &mut self.connecting {
                    connecting.results.push((answer.channel, result));
                    connecting.awaited -= 1;
                    if connecting.awaited == 0 {
                        self.connected(context);
                    }
                }
            }
            SubscribedBy::Service(_) => {
                self.join(context, index, &answer);
                let result = ConnectedSubscription::new(&self.subscriptions[index], &mut answer);
                let channel = answer.channel.name();
                fn told<'a>(result: &'a ConnectedSubscription, context: &Context<'_>) -> Push<'a> {
                    Push::Subscribe(result.result(context))
                }
                let push = told(&result, context);
                context.push(channel, &push);
                for publication in result.missed() {
                    context.push(channel, &Push::Publication(publication));
                }
                if !self.subscriptions[index].is_pending() {
                    self.run_unsubscribes(context, hub);
                }
            }
        }
        None
    }

    pub(super) fn activate(
        &mut self,
        context: &mut Context<'_>,
        index: usize,
        answer: &Interested,
    ) {
        let subscription = &mut self.subscriptions[index];
        let delta = match (
            subscription.has(flag::DELTA),
            subscription.has(flag::POSITIONED),
        ) {
            (false, _) => Delta::Off,
            (true, false) => Delta::Whole,
            // What the client recovers ends at the channel's position.
            (true, true) if answer.recovered && !answer.missed.is_empty() => Delta::Based,
            (true, true) => Delta::Fresh,
        };
        let class = Class {
            format: self.format,
            filter: subscription.filter().cloned(),
            delta,
            count: 0,
        };
        let join_leave = subscription.has(flag::JOIN_LEAVE);
        let place = (context.hub).activate(answer.hub, context.conn.slot, join_leave, class);
        subscription.place = Some(place);
    }

    fn answer_subscribe(
        &mut self,
        context: &mut Context<'_>,
        id: u32,
        index: usize,
        answer: &mut Interested,
    ) {
        let hub = answer.hub;
        self.join(context, index, answer);
        let result = ConnectedSubscription::new(&self.subscriptions[index], answer);
        if result.fails() {
            let unsubscribe = self.take_unsubscribe(index);
            self.end_subscription(context, hub.slot, None);
            context.error(id, ClientError::UnrecoverablePosition);
            reply_unsubscribed(context, unsubscribe);
            return;
        }
        let body = ReplyBody::Subscribe(result.result(context));
        context.reply(id, body);
        if !self.subscriptions[index].is_pending() {
            self.run_unsubscribes(context, hub);
        }
    }

    fn refused_by_owner(
        &mut self,
        context: &mut Context<'_>,
        by: SubscribedBy,
        index: usize,
        answer: &Interested,
        error: ClientError,
    ) {
        let unsubscribe = self.take_unsubscribe(index);
        self.subscriptions.remove(index);
        let (_, last) = context.hub.exit(answer.hub, None);
        if last {
            // The owner may know this shard from subscribers that have left meanwhile.
            let leave = Leave {
                hub: answer.hub,
                info: None,
                leave: false,
                channel: answer.channel.clone(),
                last,
            };
            let owner = context.owner(&answer.channel);
            context.mesh.keep(owner, Message::Leave(Box::new(leave)));
        }
        self.tell_not_subscribed(context, by, error);
        reply_unsubscribed(context, unsubscribe);
    }

    fn tell_not_subscribed(
        &mut self,
        context: &mut Context<'_>,
        by: SubscribedBy,
        error: ClientError,
    ) {
        match by {
            SubscribedBy::Command(id) => context.error(id, error),
            SubscribedBy::Connect => {
                let id = self
                    .connecting
                    .as_ref()
                    .map_or(0, |connecting| connecting.id);
                self.refuse(context, id, error);
            }
            // Nobody here waits for it; the next part of what was missed has its own way.
            SubscribedBy::Service(_) | SubscribedBy::Part => {}
        }
    }

    /// The owner has not answered in time. It may know of the subscriber, or come to know of it: it is told that it has left.
    pub fn not_subscribed(
        &mut self,
        context: &mut Context<'_>,
        hub: HubId,
        by: SubscribedBy,
    ) -> Option<Disconnect> {
        let index = self.subscription_at(hub.slot).filter(|&index| {
            self.subscriptions[index].is_pending() && context.hub.channel(hub).is_some()
        })?;
        let had_part = by == SubscribedBy::Part;
        if had_part && self.subscriptions[index].has(flag::SERVER_SIDE) {
            return Some(Disconnect::InsufficientState);
        }
        let name = context.hub.channel(hub)?.name.clone();
        let unsubscribe = self.take_unsubscribe(index);
        self.end_subscription(context, hub.slot, None);
        if had_part {
            // It was told that it is subscribed: it recovers.
            let push = Push::Unsubscribe(Unsubscribe::Insufficient);
            context.push(name.name(), &push);
        }
        self.tell_not_subscribed(context, by, ClientError::Internal);
        reply_unsubscribed(context, unsubscribe);
        None
    }

    pub(super) fn sub_refresh(
        &mut self,
        context: &mut Context<'_>,
        id: u32,
        channel: &str,
        token: &str,
    ) -> Result<(), Disconnect> {
        if channel.is_empty() {
            return Err(Disconnect::BadRequest);
        }
        let Some(index) = self.find(context, channel) else {
            context.error(id, ClientError::PermissionDenied);
            return Ok(());
        };
        if self.subscriptions[index].has(flag::SERVER_REFRESH) {
            return Err(Disconnect::BadRequest);
        }
        if token.is_empty() {
            context.error(id, ClientError::BadRequest);
            return Ok(());
        }
        let tokens = context.tokens_of(self.tenant());
        let claims = match tokens.subscription.subscription(token, context.now) {
            Ok(claims) => claims,
            Err(TokenError::Expired) => {
                let hub = self.subscriptions[index].hub;
                self.end_subscription(context, hub, Some(Unsubscribe::Expired));
                context.reply(id, ReplyBody::SubRefresh(None));
                return Ok(());
            }
            Err(TokenError::Invalid | TokenError::BadBase64) => {
                return Err(Disconnect::InvalidToken);
            }
            Err(TokenError::KeysUnavailable) => {
                context.error(id, ClientError::Internal);
                return Ok(());
            }
            Err(TokenError::KeyWanted) => {
                context.wait_for_key(
                    self.tenant(),
                    context.tokens.subscription_source.clone(),
                    token,
                );
                return Ok(());
            }
        };
        self.check_claims(&claims, channel)?;
        if self.is_revoked(context, &claims) {
            return Err(Disconnect::InvalidToken);
        }
        let expire_at = kept_expiry(context.now, claims.expire_at);
        if is_past(context.now, expire_at) {
            context.error(id, ClientError::Expired);
            return Ok(());
        }
        self.subscriptions[index].expire_at = expire_at;
        context.is_timed = true;
        context.reply(id, ReplyBody::SubRefresh(ttl(context.now, expire_at)));
        Ok(())
    }
}

impl Session {
    fn is_revoked(&self, context: &Context<'_>, claims: &SubscriptionClaims) -> bool {
        // It is this user's: that was checked before.
        let (revocations, now) = (context.revocations, context.now.at);
        revocations.is_revoked(&self.user, claims.mark.parts(), &claims.channel, now)
    }
}

/// Check 17 of §4.3: the filter that was sent, if it may be and makes sense.
fn checked_filter(
    context: &Context<'_>,
    tenant: TenantId<'_>,
    namespace: &Namespace,
    asked: &Subscribe<'_>,
) -> Result<Option<Arc<Filter>>, ClientError> {
    let Some(sent) = &asked.filter else {
        return Ok(None);
    };
    if !namespace.allow_tags_filter {
        return Err(ClientError::BadRequest);
    }
    let filter = Filter::new(sent).map_err(|_refused| ClientError::BadRequest)?;
    let has_room = context
        .hub
        .find(&ChannelName::of(tenant, &asked.channel))
        .and_then(|hub| context.hub.channel(hub))
        .is_none_or(HubChannel::has_room_for_class);
    if !has_room {
        return Err(ClientError::LimitExceeded);
    }
    Ok(Some(Arc::new(filter)))
}

fn extra_of(grant: &Grant) -> Option<Box<Extra>> {
    (!grant.info.is_empty() || !grant.data.is_empty()).then(|| {
        Box::new(Extra {
            info: grant.info.to_vec().into_boxed_slice(),
            data: grant.data.to_vec().into_boxed_slice(),
            ..Extra::default()
        })
    })
}

#[cfg(test)]
mod tests;
