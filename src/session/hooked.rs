//! Commands that a backend decides about (`spec/centrifuge.md` §9): what is asked, and what follows from the answer.
//!
//! A call takes with it what its command needs to go on, and comes back with it; a subscribe and a connect leave the rest
//! in the session.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;

use super::admission::recover_of;
use super::calls::{Undecided, What};
use super::liveness::kept_expiry;
use super::order::Together;
use super::subscribe::Grant;
use super::{Connecting, Context, Phase, Rare, ServerSubscription, Session, flag};
use crate::config::hooks::{HookRoute, Target};
use crate::image::image;
use crate::limits::HOOK_HEADERS_BYTES_MAX;
use crate::mesh::hook::{
    Call, ConnectVerdict, HookAnswer, HookEvent, HookHeader, PublishVerdict, RefreshVerdict,
    SubscribeVerdict, Verdict,
};
use crate::mesh::message::PublishFor;
use crate::model::{AskId, ChannelName, ChosenError, Draft, Encoding, HubId, UserId};
use crate::protocol::command::{Connect, Subscribe};
use crate::protocol::disconnect::Disconnect;
use crate::protocol::error::ClientError;
use crate::protocol::push::{ReplyBody, Unsubscribe};
use crate::wire::json::{compact, is_json};

/// What expires while its backend does not answer is prolonged by this, seconds.
const PROLONGED_S: u32 = 60;

/// What a session keeps for hooks.
#[derive(Debug, Default)]
pub struct ForHooks {
    /// Headers of the transport's request that a target wants.
    pub headers: Box<[HookHeader]>,
    /// Emulated headers that a target wants.
    pub emulated: Box<[HookHeader]>,
    /// Subscribes that wait for an answer.
    pub subscribes: Vec<Awaiting>,
    /// The connection has expired and the answer is awaited.
    pub is_refreshing: bool,
}

/// A subscribe that waits for its backend.
#[derive(Debug)]
pub struct Awaiting {
    id: u32,
    asked: Subscribe<'static>,
    /// The server ended the subscription meanwhile.
    is_ended: bool,
}

image!(struct ForHooks { headers, emulated, subscribes, is_refreshing });
image!(struct Awaiting { id, asked, is_ended });

/// What a client gets to hear in place of a result.
enum HookRefusal<'a> {
    Error(&'a ChosenError),
    Disconnect(Disconnect),
    Failed,
}

/// The answer in place of a result; `None` when it is a result.
fn refusal(verdict: &Verdict) -> Option<HookRefusal<'_>> {
    match verdict {
        Verdict::Error(error) => Some(HookRefusal::Error(error)),
        Verdict::Disconnect(code, reason) => {
            // A code that clients do not understand is an answer that was not agreed on.
            Some(
                Disconnect::chosen(*code, reason)
                    .map_or(HookRefusal::Failed, HookRefusal::Disconnect),
            )
        }
        Verdict::Failed => Some(HookRefusal::Failed),
        Verdict::Connect(_)
        | Verdict::Refresh(_)
        | Verdict::Subscribe(_)
        | Verdict::Publish(_)
        | Verdict::Rpc(_) => None,
    }
}

/// The payload as it can be embedded in this client's messages; `None` when it cannot.
fn embedded(context: &Context<'_>, data: &Bytes) -> Option<Bytes> {
    if data.is_empty() || context.format.encoding == Encoding::Protobuf {
        return Some(data.clone());
    }
    is_json(data).then(|| one_line(data))
}

/// JSON without raw line breaks, which separate messages on the wire.
fn one_line(json: &Bytes) -> Bytes {
    match compact(json) {
        Cow::Borrowed(_) => json.clone(),
        Cow::Owned(line) => line.into(),
    }
}

impl Session {
    /// The headers of the transport's request that targets want.
    pub fn keep_headers(&mut self, headers: Vec<HookHeader>) {
        if self.rare.is_some() || !headers.is_empty() {
            self.for_hooks().headers = headers.into_boxed_slice();
        }
    }

    fn keep_meta(&mut self, meta: &Bytes) {
        if !meta.is_empty() {
            self.rare.get_or_insert_default().meta = meta.clone();
        }
    }

    /// The emulated headers that a target wants, as far as they fit.
    pub(super) fn keep_emulated(&mut self, context: &Context<'_>, connect: &Connect<'_>) {
        let mut room = HOOK_HEADERS_BYTES_MAX;
        let mut kept: Vec<HookHeader> = Vec::new();
        for (name, value) in &connect.headers {
            let name = name.to_ascii_lowercase();
            let bytes = name.len() + value.len();
            if bytes <= room && context.config.forwards_emulated(&name) {
                room -= bytes;
                kept.push((name.into(), (**value).into()));
            }
        }
        if !kept.is_empty() {
            self.for_hooks().emulated = kept.into_boxed_slice();
        }
    }

    fn for_hooks(&mut self) -> &mut ForHooks {
        &mut self.rare.get_or_insert_default().hooks
    }

    /// Asks a backend.
    fn call(
        &mut self,
        context: &mut Context<'_>,
        target: &Arc<Target>,
        id: u32,
        event: HookEvent,
    ) -> Result<(), ClientError> {
        let target = context.config.target_of(self.tenant(), target);
        let mut headers = Vec::new();
        let mut meta = Bytes::new();
        if let Some(Rare {
            hooks, meta: kept, ..
        }) = self.rare.as_deref()
        {
            let wanted = |headers: &[HookHeader], names: &[String]| -> Vec<HookHeader> {
                let is_wanted = |name: &str| names.iter().any(|one| one == name);
                headers
                    .iter()
                    .filter(|(name, _)| is_wanted(name))
                    .cloned()
                    .collect()
            };
            headers = wanted(&hooks.emulated, &target.emulated_headers);
            headers.extend(wanted(&hooks.headers, &target.http_headers));
            if target.include_connection_meta {
                meta = kept.clone();
            }
        }
        let call = Call {
            ask: AskId::default(),
            target: Arc::clone(target),
            conn: context.conn,
            id,
            client: self.client,
            format: context.format,
            user: self.user.clone(),
            from: context.prefix,
            meta,
            headers,
            event,
        };
        let sent = self.take_call(context).and_then(|()| {
            let pushed = context.hooks.push(context.now, Box::new(call));
            if pushed.is_err() {
                self.give_call(context);
            }
            pushed
        });
        match sent {
            Ok(()) => context.counters.hooks += 1,
            Err(_) => context.counters.refused_hooks += 1,
        }
        sent
    }

    /// A backend has answered.
    pub fn answered(
        &mut self,
        context: &mut Context<'_>,
        answer: HookAnswer,
    ) -> Result<(), Disconnect> {
        if self.client != answer.call.client {
            // A connection may carry one session after the other.
            return Ok(());
        }
        match self.keep_decision(answer) {
            Some(answer) => self.decided(context, answer),
            None => Ok(()),
        }
    }

    /// What follows from a backend's answer.
    pub fn decided(
        &mut self,
        context: &mut Context<'_>,
        answer: HookAnswer,
    ) -> Result<(), Disconnect> {
        let HookAnswer { call, verdict } = answer;
        let wanted = match call.event {
            HookEvent::Connect { .. } => Phase::Connecting,
            _ => Phase::Connected,
        };
        if self.phase != wanted {
            return Ok(());
        }
        let id = call.id;
        match call.event {
            HookEvent::Connect { .. } => return self.connect_answered(context, id, verdict),
            HookEvent::Refresh => return self.refresh_answered(context, verdict),
            HookEvent::SubRefresh { hub, .. } => {
                return self.sub_refresh_answered(context, hub, verdict);
            }
            HookEvent::Subscribe { channel, .. } => {
                return self.subscribe_answered(context, &channel, &verdict);
            }
            HookEvent::Publish { channel, data } => match verdict {
                Verdict::Publish(published) => {
                    self.publish_approved(context, id, channel, data, *published);
                    self.date_reply(id, context.answer_by);
                }
                other => return self.refused_by_hook(context, id, &other),
            },
            HookEvent::Rpc { .. } => match verdict {
                Verdict::Rpc(data) => match embedded(context, &data) {
                    Some(data) => context.reply(id, ReplyBody::Rpc(&data)),
                    None => context.error(id, ClientError::Internal),
                },
                other => return self.refused_by_hook(context, id, &other),
            },
        }
        Ok(())
    }

    /// A backend has not answered in time: as if it could not be asked.
    pub fn undecided(
        &mut self,
        context: &mut Context<'_>,
        undecided: &Undecided,
    ) -> Result<(), Disconnect> {
        let wanted = match undecided.what {
            What::Connect => Phase::Connecting,
            _ => Phase::Connected,
        };
        if self.client != undecided.client || self.phase != wanted {
            return Ok(());
        }
        let id = undecided.id;
        match &undecided.what {
            What::Connect => self.connect_answered(context, id, Verdict::Failed),
            What::Refresh => self.refresh_answered(context, Verdict::Failed),
            What::SubRefresh(hub) => self.sub_refresh_answered(context, *hub, Verdict::Failed),
            What::Subscribe(channel) => self.subscribe_answered(context, channel, &Verdict::Failed),
            What::Command => self.refused_by_hook(context, id, &Verdict::Failed),
        }
    }

    /// Answers a command that got no result.
    fn refused_by_hook(
        &self,
        context: &mut Context<'_>,
        id: u32,
        verdict: &Verdict,
    ) -> Result<(), Disconnect> {
        match refusal(verdict) {
            Some(HookRefusal::Disconnect(disconnect)) => return Err(disconnect),
            Some(HookRefusal::Error(error)) => {
                context.counters.command_errors += 1;
                context.reply(id, ReplyBody::ChosenError(error));
            }
            Some(HookRefusal::Failed) | None => context.error(id, ClientError::Internal),
        }
        Ok(())
    }
}

// Connect.

impl Session {
    /// Asks who the client is. The session is `Connecting` meanwhile.
    pub(super) fn ask_connect(
        &mut self,
        context: &mut Context<'_>,
        id: u32,
        connect: &Connect<'_>,
        target: &Arc<Target>,
    ) {
        self.client = context.make_client_id();
        self.phase = Phase::Connecting;
        let limit = context.config.client.recovery_max_publication_limit;
        let recovers = connect.subs.iter().filter(|asked| asked.recover);
        self.connecting = Some(Box::new(Connecting {
            id,
            recovers: recovers
                .map(|asked| ((*asked.channel).into(), recover_of(asked, limit)))
                .collect(),
            ..Connecting::default()
        }));
        let event = HookEvent::Connect {
            data: Bytes::copy_from_slice(&connect.data),
            name: (*connect.name).into(),
            version: (*connect.version).into(),
            channels: connect
                .subs
                .iter()
                .map(|asked| (*asked.channel).into())
                .collect(),
        };
        if let Err(error) = self.call(context, target, id, event) {
            self.refuse(context, id, error);
        }
    }

    fn connect_answered(
        &mut self,
        context: &mut Context<'_>,
        id: u32,
        verdict: Verdict,
    ) -> Result<(), Disconnect> {
        match refusal(&verdict) {
            Some(HookRefusal::Disconnect(disconnect)) => return Err(disconnect),
            Some(HookRefusal::Error(error)) => {
                self.refuse_with(context, id, ReplyBody::ChosenError(error));
                return Ok(());
            }
            Some(HookRefusal::Failed) => {
                self.refuse(context, id, ClientError::Internal);
                return Ok(());
            }
            None => {}
        }
        let connected = match verdict {
            Verdict::Connect(Some(connected)) => {
                self.user = UserId::new(self.tenant(), &connected.user);
                *connected
            }
            // Nobody knows the client: it is who its transport says, or anonymous.
            _ if self.is_known_otherwise(context) => ConnectVerdict::default(),
            _ => return Err(Disconnect::BadRequest),
        };
        let Some(data) = embedded(context, &connected.data) else {
            self.refuse(context, id, ClientError::Internal);
            return Ok(());
        };
        match self.subscriptions_by_hook(context, &connected) {
            Ok(list) => {
                self.expire_at = expiry(context, connected.expire_at);
                // Without a refresh hook the client comes with a token once the connection expires.
                self.has_token = self.expire_at != 0;
                self.info = connected.info.to_vec().into_boxed_slice();
                self.keep_meta(&connected.meta);
                if let Some(connecting) = &mut self.connecting {
                    connecting.data = data;
                }
                self.admit(context, id, list)
            }
            Err(error) => {
                self.refuse(context, id, error);
                Ok(())
            }
        }
    }

    /// Server-side subscriptions of a connect result, and the personal channel.
    fn subscriptions_by_hook(
        &self,
        context: &Context<'_>,
        connected: &ConnectVerdict,
    ) -> Result<Vec<ServerSubscription>, ClientError> {
        let is_past = |at: u64| at != 0 && at <= context.now.unix_s();
        if is_past(connected.expire_at) {
            return Err(ClientError::Expired);
        }
        let rules = context.rules;
        let mut list = Vec::with_capacity(connected.subs.len());
        for (channel, options) in &connected.subs {
            if channel.is_empty() {
                continue;
            }
            let namespace = rules
                .resolve_named_by_server(channel)
                .map_err(|_unknown| ClientError::UnknownChannel)?;
            if is_past(options.expire_at) {
                return Err(ClientError::Expired);
            }
            list.push(ServerSubscription {
                info: options.info.clone(),
                data: embedded(context, &options.data).ok_or(ClientError::Internal)?,
                expire_at: expiry(context, options.expire_at),
                overrides: options.overrides,
                cache_recover: options.cache_recover,
                ..ServerSubscription::plain(self.tenant(), channel, namespace)
            });
        }
        if let Some(personal) = self.personal_channel(context)? {
            list.push(personal);
        }
        let mut seen = std::collections::BTreeSet::new();
        list.retain(|subscription| seen.insert(subscription.channel.clone()));
        for (channel, recover) in self.connecting.iter().flat_map(|waits| &waits.recovers) {
            if let Some(subscription) = list
                .iter_mut()
                .find(|subscription| subscription.channel.name() == &**channel)
            {
                subscription.recover = Some(*recover);
            }
        }
        Ok(list)
    }
}

// Refresh.

impl Session {
    /// Asks whether the connection goes on. A call that cannot be made is one that failed.
    pub(super) fn ask_refresh(&mut self, context: &mut Context<'_>, target: &Arc<Target>) {
        self.for_hooks().is_refreshing = true;
        if self.call(context, target, 0, HookEvent::Refresh).is_err() {
            self.prolong(context);
        }
    }

    fn prolong(&mut self, context: &Context<'_>) {
        self.for_hooks().is_refreshing = false;
        self.expire_at = context.now.at.secs() + PROLONGED_S;
    }

    fn refresh_answered(
        &mut self,
        context: &mut Context<'_>,
        verdict: Verdict,
    ) -> Result<(), Disconnect> {
        self.for_hooks().is_refreshing = false;
        match verdict {
            Verdict::Refresh(Some(refreshed)) if is_valid(context, &refreshed) => {
                self.expire_at = expiry(context, refreshed.expire_at);
                if !refreshed.info.is_empty() {
                    self.info = refreshed.info.to_vec().into_boxed_slice();
                }
                self.keep_meta(&refreshed.meta);
            }
            Verdict::Refresh(_) => return Err(Disconnect::Expired),
            _ => self.prolong(context),
        }
        Ok(())
    }

    /// The connection has expired and its backend has not answered yet.
    pub(super) fn is_refreshing(&self) -> bool {
        self.rare
            .as_deref()
            .is_some_and(|rare| rare.hooks.is_refreshing)
    }

    /// Asks whether a subscription goes on.
    pub(super) fn ask_sub_refresh(&mut self, context: &mut Context<'_>, index: usize) {
        let subscription = &mut self.subscriptions[index];
        let hub = context.hub.id_at(subscription.hub);
        let channel = context.hub.of(subscription.hub);
        let hooks = &context.config.hooks;
        let target = hooks.of_sub_refresh(&channel.namespace.sub_refresh_proxy_name);
        let event = HookEvent::SubRefresh {
            hub,
            channel: channel.name.clone(),
        };
        subscription.flags |= flag::REFRESHING;
        let sent = match target.cloned() {
            Some(target) => self.call(context, &target, 0, event),
            None => Err(ClientError::NotAvailable),
        };
        if sent.is_err() {
            self.prolong_subscription(context, index);
        }
    }

    fn prolong_subscription(&mut self, context: &mut Context<'_>, index: usize) {
        context.is_timed = true;
        let subscription = &mut self.subscriptions[index];
        subscription.flags &= !flag::REFRESHING;
        subscription.expire_at = context.now.at.secs() + PROLONGED_S;
    }

    fn sub_refresh_answered(
        &mut self,
        context: &mut Context<'_>,
        hub: HubId,
        verdict: Verdict,
    ) -> Result<(), Disconnect> {
        let index = self
            .subscription_at(hub.slot)
            .filter(|&index| self.subscriptions[index].has(flag::REFRESHING));
        let Some(index) = index.filter(|_| context.hub.channel(hub).is_some()) else {
            // The client has left the channel meanwhile.
            return Ok(());
        };
        let subscription = &mut self.subscriptions[index];
        subscription.flags &= !flag::REFRESHING;
        context.is_timed = true;
        match verdict {
            Verdict::Refresh(Some(refreshed)) if is_valid(context, &refreshed) => {
                subscription.expire_at = expiry(context, refreshed.expire_at);
                if !refreshed.info.is_empty() {
                    subscription.extra.get_or_insert_default().info =
                        refreshed.info.to_vec().into_boxed_slice();
                }
            }
            Verdict::Refresh(_) if subscription.has(flag::SERVER_SIDE) => {
                return Err(Disconnect::SubscriptionExpired);
            }
            Verdict::Refresh(_) => {
                self.end_subscription(context, hub.slot, Some(Unsubscribe::Expired));
            }
            _ => self.prolong_subscription(context, index),
        }
        Ok(())
    }
}

/// Unix seconds of an answer as a session keeps them; 0 for never in both.
fn expiry(context: &Context<'_>, unix_s: u64) -> u32 {
    kept_expiry(context.now, Some(unix_s).filter(|&at| at > 0))
}

/// Neither ended by its backend nor by the clock.
fn is_valid(context: &Context<'_>, refreshed: &RefreshVerdict) -> bool {
    let at = refreshed.expire_at;
    !refreshed.expired && (at == 0 || at > context.now.unix_s())
}

// Subscribe.

impl Session {
    /// A subscribe to this channel waits for its backend.
    pub(super) fn awaiting(&mut self, channel: &str) -> Option<&mut Awaiting> {
        let subscribes = &mut self.rare.as_deref_mut()?.hooks.subscribes;
        subscribes
            .iter_mut()
            .find(|awaiting| awaiting.asked.channel == channel)
    }

    /// Subscribes that wait for a backend.
    pub(super) fn awaiting_count(&self) -> usize {
        self.rare
            .as_deref()
            .map_or(0, |rare| rare.hooks.subscribes.len())
    }

    /// The server ends the subscription to a channel whose subscribe waits for its backend: once it is answered.
    pub fn end_awaiting(&mut self, channel: &str) -> bool {
        let Some(awaiting) = self.awaiting(channel) else {
            return false;
        };
        awaiting.is_ended = true;
        true
    }

    /// Asks whether the client may subscribe.
    pub(super) fn ask_subscribe(
        &mut self,
        context: &mut Context<'_>,
        id: u32,
        asked: &Subscribe<'_>,
        target: &Arc<Target>,
    ) -> Result<(), ClientError> {
        let event = HookEvent::Subscribe {
            channel: self.channel(&asked.channel),
            data: Bytes::copy_from_slice(&asked.data),
        };
        self.call(context, target, id, event)?;
        self.for_hooks().subscribes.push(Awaiting {
            id,
            asked: for_later(asked),
            is_ended: false,
        });
        context.awaits = Some(Together::Decisions);
        Ok(())
    }

    fn subscribe_answered(
        &mut self,
        context: &mut Context<'_>,
        channel: &ChannelName,
        verdict: &Verdict,
    ) -> Result<(), Disconnect> {
        let subscribes = &mut self.for_hooks().subscribes;
        let Some(at) = subscribes
            .iter()
            .position(|awaiting| awaiting.asked.channel == channel.name())
        else {
            return Ok(());
        };
        let Awaiting {
            id,
            asked,
            is_ended,
        } = subscribes.swap_remove(at);
        match verdict {
            Verdict::Subscribe(subscribed) => match embedded(context, &subscribed.data) {
                Some(data) => {
                    let grant = grant(context, subscribed, data);
                    self.subscribe_granted(context, id, &asked, grant)?;
                }
                None => context.error(id, ClientError::Internal),
            },
            other => self.refused_by_hook(context, id, other)?,
        }
        if is_ended && let Some(index) = self.find(context, channel.name()) {
            let hub = self.subscriptions[index].hub;
            self.end_subscription(context, hub, Some(Unsubscribe::Server));
        }
        Ok(())
    }
}

fn grant(context: &Context<'_>, subscribed: &SubscribeVerdict, data: Bytes) -> Grant {
    Grant {
        expire_at: expiry(context, subscribed.expire_at),
        info: subscribed.info.clone(),
        data,
        overrides: subscribed.overrides,
        by_token: false,
    }
}

/// What is left of a subscribe once its backend has decided: options that the client asked for do not count (§9.3).
fn for_later(asked: &Subscribe<'_>) -> Subscribe<'static> {
    Subscribe {
        channel: asked.channel.clone().into_owned().into(),
        token: "".into(),
        recover: asked.recover,
        epoch: asked.epoch.clone().into_owned().into(),
        offset: asked.offset,
        data: (&b""[..]).into(),
        positioned: false,
        recoverable: false,
        join_leave: false,
        delta: asked.delta.clone().into_owned().into(),
        filter: asked.filter.clone(),
        flag: asked.flag,
        kind: asked.kind,
    }
}

// Publish and RPC.

impl Session {
    fn publish_approved(
        &mut self,
        context: &mut Context<'_>,
        id: u32,
        channel: ChannelName,
        data: Bytes,
        published: PublishVerdict,
    ) {
        let (data, is_json) = match &published.data {
            Some(data) if is_json(data) => (one_line(data), true),
            Some(data) => (data.clone(), false),
            None => {
                let is_json = context.format.encoding == Encoding::Json || is_json(&data);
                (data, is_json)
            }
        };
        let result = Self::draft_approved(context, channel, (data, is_json), published);
        let publisher = PublishFor {
            conn: context.conn,
            id,
            by_rpc: false,
        };
        let sent = result.and_then(|draft| {
            let at = self.find(context, draft.record.channel.name());
            self.send(context, publisher, at, draft)
        });
        if let Err(error) = sent {
            context.error(id, error);
        }
    }

    /// What a backend lets its client publish, with what it says about it.
    fn draft_approved(
        context: &Context<'_>,
        channel: ChannelName,
        (data, is_json): (Bytes, bool),
        published: PublishVerdict,
    ) -> Result<Box<Draft>, ClientError> {
        let rules = context.rules;
        let namespace = rules
            .resolve(channel.name())
            .map_err(|_unknown| ClientError::UnknownChannel)?;
        let mut draft = Box::new(Draft::new(namespace.terms(), channel, data, is_json));
        draft.record.tags = published.tags.into_boxed_slice();
        draft.record.key = published.idempotency_key;
        draft.record.delta = published.delta;
        draft.record.ttl_ms = published.ttl_ms;
        draft.skip_history = published.skip_history;
        draft.version = published.version;
        draft.version_epoch = published.version_epoch;
        context.config.check_draft(namespace, &draft)?;
        Ok(draft)
    }

    /// Asks whether the client may publish.
    pub(super) fn ask_publish(
        &mut self,
        context: &mut Context<'_>,
        id: u32,
        draft: Box<Draft>,
        target: &Arc<Target>,
    ) -> Result<(), ClientError> {
        let event = HookEvent::Publish {
            channel: draft.record.channel,
            data: draft.record.data,
        };
        self.call(context, target, id, event)
    }

    pub(super) fn rpc(&mut self, context: &mut Context<'_>, id: u32, method: &str, data: &[u8]) {
        if method.starts_with("ringmain.") {
            return self.rpc_own(context, id, method, data);
        }
        let result = match context.config.hooks.route(method) {
            HookRoute::Ping => {
                context.reply(id, ReplyBody::Rpc(b""));
                Ok(())
            }
            HookRoute::Target(target) => {
                let event = HookEvent::Rpc {
                    method: method.into(),
                    data: Bytes::copy_from_slice(data),
                };
                let called = self.call(context, &Arc::clone(target), id, event);
                context.awaits = called.is_ok().then_some(Together::Calls);
                called
            }
            HookRoute::Unknown => Err(ClientError::MethodNotFound),
            HookRoute::NotAvailable => Err(ClientError::NotAvailable),
        };
        if let Err(error) = result {
            context.error(id, error);
        }
    }
}
