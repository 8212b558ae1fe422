//! Connect: who the client is, and the subscriptions the server makes for it (`spec/centrifuge.md` §4.1, §4.2).

use std::sync::Arc;

use bytes::Bytes;

use super::asked::{Admitting, SubscribedBy};
use super::key::SessionKey;
use super::liveness::ttl;
use super::{
    Connecting, Context, Counted, Extra, Phase, Session, Subscription, flag, forced_flags,
};
use crate::auth::permission;
use crate::auth::token::{ConnectionClaims, TokenError, issuer};
use crate::broker::owner::user_registry;
use crate::config::keys::KeySource;
use crate::config::{Namespace, UserLimitPolicy};
use crate::image::image;
use crate::limits::{MESH_TIMEOUT, USER_ID_BYTES_MAX};
use crate::mem::TimerWheel;
use crate::mesh::Message;
use crate::mesh::message::{Admit, AdmitFor, Interest, InterestFor, Interested, Recover};
use crate::model::{
    AskId, ChannelName, HubId, Overrides, Publication, Since, StreamPosition, TenantId, UserId,
};
use crate::protocol::command::{Connect, Subscribe};
use crate::protocol::disconnect::Disconnect;
use crate::protocol::error::ClientError;
use crate::protocol::push::{ConnectResult, Push, ReplyBody, SubscribeResult};

/// A client whose connect was refused has this long to close before TCP is dropped.
const REFUSED_GRACE: std::time::Duration = std::time::Duration::from_secs(5);

/// A subscription that the server makes.
#[derive(Clone, Debug)]
pub struct ServerSubscription {
    /// Channel.
    pub channel: ChannelName,
    /// Its rules.
    pub namespace: Arc<Namespace>,
    /// Subscription info, JSON or empty.
    pub info: Bytes,
    /// Goes to the client, JSON or empty.
    pub data: Bytes,
    /// When it ends, in seconds since the start of the process; 0 for never.
    pub expire_at: u32,
    /// Options set for this subscription.
    pub overrides: Overrides,
    /// Recover after this position.
    pub recover: Option<Recover>,
    /// Without `recover`: starts with the latest publication.
    pub cache_recover: bool,
    /// `flag::FROM_TOKEN` or 0.
    pub flags: u16,
}

/// What the result of a subscription says.
#[derive(Debug)]
pub struct ConnectedSubscription {
    flags: u16,
    expire_at: u32,
    data: Box<[u8]>,
    position: StreamPosition,
    missed: Vec<Arc<Publication>>,
    recovered: bool,
}

image!(struct ServerSubscription {
    channel, namespace, info, data, expire_at, overrides, recover, cache_recover, flags
});
image!(struct ConnectedSubscription { flags, expire_at, data, position, missed, recovered });

impl ConnectedSubscription {
    pub(super) fn new(subscription: &Subscription, answer: &mut Interested) -> Self {
        // With success the position is where the client left off, not the top (§4.4): it counts what follows from there.
        if answer.recovered {
            answer.position.offset.0 = answer.after;
        }
        if let Some(filter) = subscription.filter() {
            answer
                .missed
                .retain(|publication| filter.passes(&publication.tags));
        }
        Self {
            flags: subscription.flags,
            expire_at: subscription.expire_at,
            data: subscription
                .extra
                .as_ref()
                .map_or_else(Box::default, |extra| extra.data.clone()),
            position: answer.position,
            missed: std::mem::take(&mut answer.missed),
            recovered: answer.recovered,
        }
    }

    /// As it stands on the wire.
    pub(super) fn result(&self, context: &Context<'_>) -> SubscribeResult<'_> {
        let tracked = self.flags & (flag::POSITIONED | flag::RECOVERABLE) != 0;
        SubscribeResult {
            ttl: if self.flags & flag::CLIENT_REFRESH != 0 {
                ttl(context.now, self.expire_at)
            } else {
                None
            },
            recoverable: self.flags & flag::RECOVERABLE != 0,
            positioned: self.flags & flag::POSITIONED != 0,
            position: tracked.then_some(self.position),
            publications: &self.missed,
            recovered: self.recovered,
            was_recovering: self.flags & flag::RECOVERING != 0,
            data: &self.data,
            delta: self.flags & flag::DELTA != 0,
        }
    }

    pub(super) fn missed(&self) -> &[Arc<Publication>] {
        &self.missed
    }

    pub(super) const fn fails(&self) -> bool {
        self.flags & flag::REJECT_UNRECOVERED != 0
            && self.flags & flag::RECOVERING != 0
            && !self.recovered
    }
}

/// Why a client does not get in.
enum ConnectRefusal {
    Error(ClientError),
    Disconnect(Disconnect),
    /// Not decided: the key of the token is asked for.
    KeyWanted,
}

impl From<ClientError> for ConnectRefusal {
    fn from(error: ClientError) -> Self {
        Self::Error(error)
    }
}

impl From<Disconnect> for ConnectRefusal {
    fn from(disconnect: Disconnect) -> Self {
        Self::Disconnect(disconnect)
    }
}

impl Session {
    pub(super) fn connect(
        &mut self,
        context: &mut Context<'_>,
        id: u32,
        connect: &Connect<'_>,
    ) -> Result<(), Disconnect> {
        if self.phase != Phase::Fresh {
            return Err(Disconnect::BadRequest);
        }
        self.keep_emulated(context, connect);
        self.choose_tenant(context, &connect.token);
        if connect.token.is_empty()
            && let Some(target) = context.config.connect_hook(self.tenant())
        {
            self.ask_connect(context, id, connect, target);
            return Ok(());
        }
        let admitted = self.authenticate(context, connect).and_then(|claims| {
            let list = self.server_side(context, connect, claims.as_ref())?;
            Ok((claims, list))
        });
        let (claims, list) = match admitted {
            Ok(admitted) => admitted,
            Err(ConnectRefusal::Error(error)) => {
                self.refuse(context, id, error);
                return Ok(());
            }
            Err(ConnectRefusal::Disconnect(disconnect)) => return Err(disconnect),
            Err(ConnectRefusal::KeyWanted) => {
                context.wait_for_key(self.tenant(), KeySource::Connection, &connect.token);
                return Ok(());
            }
        };
        self.client = context.make_client_id();
        if let Some(claims) = claims {
            self.keep_token(context.now, claims);
        }
        self.connecting = Some(Box::new(Connecting {
            id,
            ..Connecting::default()
        }));
        self.phase = Phase::Connecting;
        self.admit(context, id, list)
    }

    /// Who came under nobody's host and path is the customer of whom its token's issuer names: that tenant's keys decide.
    fn choose_tenant(&mut self, context: &mut Context<'_>, token: &str) {
        let config = context.config;
        if !self.tenant().is_default() || !config.tenants.has_issuers() {
            return;
        }
        let issuer = issuer(token);
        let tenant = issuer.and_then(|issuer| config.tenants.of_issuer(&issuer));
        if let Some(tenant) = tenant {
            self.user = UserId::new(tenant.id(), self.user.name());
            context.rules = config.rules_or_none(tenant.id());
        }
    }

    /// The client is known: the user's registry is asked if that is wanted, then the owners of its channels.
    pub(super) fn admit(
        &mut self,
        context: &mut Context<'_>,
        id: u32,
        list: Vec<ServerSubscription>,
    ) -> Result<(), Disconnect> {
        if list.len() > self.subscriptions_max(context) {
            return Err(Disconnect::ChannelLimit);
        }
        if let Err(error) = self.take_place(context) {
            self.refuse(context, id, error);
            return Ok(());
        }
        if let Some((limit, policy)) = context.config.client.user_limit()
            && !self.user.is_anonymous()
        {
            let admit = Admit {
                conn: context.conn,
                user: self.user.whole().into(),
                limit,
                displaces: policy == UserLimitPolicy::CloseOldest,
            };
            if let Err(error) = self.ask_registry(context, admit) {
                self.refuse(context, id, error);
                return Ok(());
            }
            if let Some(connecting) = &mut self.connecting {
                connecting.waiting = list;
            }
            return Ok(());
        }
        self.make_server_subscriptions(context, list);
        Ok(())
    }

    fn ask_registry(&self, context: &mut Context<'_>, admit: Admit) -> Result<(), ClientError> {
        let admitting = Admitting {
            conn: context.conn,
            client: self.client,
            user: self.user.whole().into(),
        };
        let until = context.now.at + MESH_TIMEOUT;
        let opened = context.asked.admits.open(until, 0, admitting);
        let ask = opened.map_err(|_full| ClientError::Internal)?;
        let registry = user_registry(self.user.whole(), context.mesh.shards());
        let question = Message::Admit(AdmitFor(ask), Box::new(admit));
        let asked = context.command(registry, question);
        if asked.is_err() {
            context.asked.admits.close(ask);
        }
        asked
    }

    /// The user's registry has not answered in time.
    pub fn not_admitted(&mut self, context: &mut Context<'_>) {
        if let Some(connecting) = &self.connecting {
            let id = connecting.id;
            self.refuse(context, id, ClientError::Internal);
        }
    }

    /// The user's registry has answered.
    pub fn admitted(&mut self, context: &mut Context<'_>, granted: bool) -> Result<(), Disconnect> {
        if self.phase != Phase::Connecting {
            return Ok(());
        }
        if !granted {
            return Err(Disconnect::ConnectionLimit);
        }
        self.counted.add(Counted::BY_USER);
        let list = self
            .connecting
            .as_mut()
            .map_or_else(Vec::new, |connecting| {
                std::mem::take(&mut connecting.waiting)
            });
        self.make_server_subscriptions(context, list);
        Ok(())
    }

    pub(super) fn refuse(&mut self, context: &mut Context<'_>, id: u32, error: ClientError) {
        self.refuse_with(context, id, ReplyBody::Error(error));
    }

    /// Answers the connect command with an error, after which the client closes.
    pub(super) fn refuse_with(&mut self, context: &mut Context<'_>, id: u32, error: ReplyBody<'_>) {
        self.end_all(context);
        self.give_place(context);
        context.counters.command_errors += 1;
        context.reply(id, error);
        self.phase = Phase::Refused;
        self.connecting = None;
        self.next = TimerWheel::tick_after(context.now.at, REFUSED_GRACE);
    }

    /// Without a token and without a hook: its transport says who it is, or it may be anonymous.
    pub(super) fn is_known_otherwise(&self, context: &Context<'_>) -> bool {
        let client = &context.config.client;
        !self.user.is_anonymous() || client.allow_anonymous_connect_without_token || client.insecure
    }

    fn authenticate(
        &mut self,
        context: &Context<'_>,
        connect: &Connect<'_>,
    ) -> Result<Option<ConnectionClaims>, ConnectRefusal> {
        let client = &context.config.client;
        if connect.token.is_empty() {
            if self.is_known_otherwise(context) {
                return Ok(None);
            }
            return Err(Disconnect::BadRequest.into());
        }
        let tokens = context.tokens_of(self.tenant());
        let claims = match tokens.connection.connection(&connect.token, context.now) {
            Ok(claims) => claims,
            Err(TokenError::Expired) => return Err(ClientError::TokenExpired.into()),
            Err(TokenError::Invalid) => return Err(Disconnect::InvalidToken.into()),
            Err(TokenError::BadBase64 | TokenError::KeysUnavailable) => {
                return Err(ClientError::Internal.into());
            }
            Err(TokenError::KeyWanted) => return Err(ConnectRefusal::KeyWanted),
        };
        if claims.user.len() > USER_ID_BYTES_MAX {
            return Err(Disconnect::InvalidToken.into());
        }
        let now = context.now.at;
        let user = UserId::new(self.tenant(), &claims.user);
        let revocations = context.revocations;
        if revocations.is_revoked(&user, claims.mark.parts(), "", now) {
            return Err(Disconnect::InvalidToken.into());
        }
        if revocations.is_blocked(&user, now) {
            return Err(Disconnect::ForceDisconnect.into());
        }
        if claims.user.is_empty() && client.disallow_anonymous_connection_tokens {
            return Err(Disconnect::PermissionDenied.into());
        }
        if claims
            .expire_at
            .is_some_and(|at| at <= context.now.unix_s())
        {
            return Err(ClientError::Expired.into());
        }
        self.user = user;
        Ok(Some(claims))
    }

    /// Channels of the token, the personal channel, and what the client may add by itself.
    fn server_side(
        &self,
        context: &Context<'_>,
        connect: &Connect<'_>,
        claims: Option<&ConnectionClaims>,
    ) -> Result<Vec<ServerSubscription>, ConnectRefusal> {
        let client = &context.config.client;
        let rules = context.rules;
        let mut list: Vec<ServerSubscription> = Vec::new();
        if !context.format.speaker.writes() {
            // It is for the one channel that it asks for.
            return Ok(list);
        }
        for (channel, options) in claims.map_or(&[][..], |claims| &claims.subs) {
            // A list of channels that was split from an empty text has one without a name.
            if channel.is_empty() {
                continue;
            }
            let namespace = rules
                .resolve_named_by_server(channel)
                .map_err(|_unknown| ClientError::UnknownChannel)?;
            list.push(ServerSubscription {
                info: options.info.clone(),
                data: options.data.clone(),
                overrides: options.overrides,
                flags: flag::FROM_TOKEN,
                ..ServerSubscription::plain(self.tenant(), channel, namespace)
            });
        }
        if let Some(personal) = self.personal_channel(context)? {
            list.push(personal);
        }
        for asked in &connect.subs {
            if list.len() > client.channel_limit {
                // They are refused together.
                break;
            }
            if !list
                .iter()
                .any(|subscription| subscription.channel.name() == asked.channel)
            {
                let namespace = rules
                    .resolve(&asked.channel)
                    .map_err(|_unknown| Disconnect::BadRequest)?;
                let allowed = rules.check_client_name(&asked.channel).is_ok()
                    && rules.fits(namespace, &asked.channel)
                    && permission::may_subscribe(
                        rules,
                        namespace,
                        &asked.channel,
                        &self.asker(context, false),
                    )
                    .is_ok();
                if allowed {
                    list.push(ServerSubscription::plain(
                        self.tenant(),
                        &asked.channel,
                        namespace,
                    ));
                }
            }
            if let Some(subscription) = list
                .iter_mut()
                .find(|subscription| subscription.channel.name() == asked.channel && asked.recover)
            {
                let limit = client.recovery_max_publication_limit;
                subscription.recover = Some(recover_of(asked, limit));
            }
        }
        let mut seen = std::collections::BTreeSet::new();
        list.retain(|subscription| seen.insert(subscription.channel.clone()));
        Ok(list)
    }

    /// The channel that every known user has, if that is configured.
    pub(super) fn personal_channel(
        &self,
        context: &Context<'_>,
    ) -> Result<Option<ServerSubscription>, ClientError> {
        let rules = context.rules;
        let Some(prefix) = &context.config.client.user_personal_channel else {
            return Ok(None);
        };
        if self.user.is_anonymous() {
            return Ok(None);
        }
        let boundary = &rules.user_boundary;
        let channel = if prefix.is_empty() {
            format!("{boundary}{}", self.user.name())
        } else {
            format!(
                "{prefix}{}{boundary}{}",
                rules.namespace_boundary,
                self.user.name()
            )
        };
        let namespace = rules
            .resolve(&channel)
            .map_err(|_unknown| ClientError::UnknownChannel)?;
        Ok(Some(ServerSubscription::plain(
            self.tenant(),
            &channel,
            namespace,
        )))
    }

    fn make_server_subscriptions(
        &mut self,
        context: &mut Context<'_>,
        list: Vec<ServerSubscription>,
    ) {
        let mut awaited = 0;
        let by = SubscribedBy::Connect;
        for subscription in list {
            if let Err(error) = self.make_server_subscription(context, &subscription, by) {
                let id = self
                    .connecting
                    .as_ref()
                    .map_or(0, |connecting| connecting.id);
                self.refuse(context, id, error);
                return;
            }
            awaited += 1;
        }
        if let Some(connecting) = &mut self.connecting {
            connecting.awaited = awaited;
        }
        if awaited == 0 {
            self.connected(context);
        }
    }

    /// Asks the owner for a server-side subscription.
    pub(super) fn make_server_subscription(
        &mut self,
        context: &mut Context<'_>,
        wanted: &ServerSubscription,
        by: SubscribedBy,
    ) -> Result<(), ClientError> {
        let mut flags =
            forced_flags(&wanted.namespace, wanted.overrides) | flag::SERVER_SIDE | wanted.flags;
        let mut recover = wanted.recover;
        if recover.is_none() && (wanted.cache_recover || wanted.namespace.recovers_by_itself()) {
            recover = Some(Recover::cached());
        }
        if recover.is_some() {
            flags |= flag::RECOVERING;
        }
        if wanted.namespace.sub_refresh_proxy_enabled {
            flags |= flag::SERVER_REFRESH;
        }
        let hub = context
            .hub
            .enter(
                &wanted.channel,
                &wanted.namespace,
                self.opener(context.prefix),
            )
            .ok_or(ClientError::Internal)?;
        let has_extra = !wanted.info.is_empty() || !wanted.data.is_empty();
        self.subscriptions.push(Subscription {
            hub: hub.slot,
            place: None,
            expire_at: wanted.expire_at,
            flags,
            extra: has_extra.then(|| {
                Box::new(Extra {
                    info: wanted.info.to_vec().into_boxed_slice(),
                    data: wanted.data.to_vec().into_boxed_slice(),
                    ..Extra::default()
                })
            }),
        });
        let recover = recover.filter(|_| flags & flag::RECOVERABLE != 0);
        self.ask_owner(context, hub, &wanted.channel, by, recover)
    }

    /// Sends `Interest` for the subscription made last; undoes it if the queue is full.
    pub(super) fn ask_owner(
        &mut self,
        context: &mut Context<'_>,
        hub: HubId,
        channel: &ChannelName,
        by: SubscribedBy,
        recover: Option<Recover>,
    ) -> Result<(), ClientError> {
        let Some(subscription) = self.subscriptions.last() else {
            return Ok(());
        };
        let presence = (subscription.has(flag::PRESENCE) || subscription.has(flag::ANNOUNCED))
            .then(|| Arc::new(self.client_info(subscription.info())));
        let interest = Interest {
            channel: channel.clone(),
            hub,
            recover,
            keep: subscription.has(flag::PRESENCE),
            join: subscription.has(flag::ANNOUNCED),
            delta: subscription.has(flag::DELTA) && subscription.has(flag::POSITIONED),
            presence,
        };
        let owner = context.owner(channel);
        let asked = context.open_interest(self.client, hub, by).and_then(|ask| {
            let question = Message::Interest(InterestFor(ask), Box::new(interest));
            let sent = context.command(owner, question);
            if sent.is_err() {
                context.asked.interests.close(ask);
            }
            sent
        });
        if asked.is_err() {
            self.subscriptions.pop();
            context.hub.exit(hub, None);
        }
        asked
    }

    /// All owners have answered: the client is told, and what came meanwhile follows.
    pub(super) fn connected(&mut self, context: &mut Context<'_>) {
        let Some(connecting) = self.connecting.take() else {
            unreachable!("a session connects once");
        };
        self.phase = Phase::Connected;
        self.start_pings(context);
        let client = &context.config.client;
        let subs: Vec<(&str, SubscribeResult<'_>)> = connecting
            .results
            .iter()
            .map(|(channel, subscription)| (channel.name(), subscription.result(context)))
            .collect();
        let converses = context.format.speaker.converses();
        let ping = client
            .ping_interval
            .filter(|_| !self.frame_pings || !converses)
            .map(|every| every.as_secs_f32().ceil() as u32);
        let (session, head) = match &mut self.rare {
            None => (String::new(), None),
            Some(rare) => {
                let key = |secret| SessionKey::new(context.mesh.shard(), context.conn, secret);
                let session = rare.secret.map(|secret| key(secret).encode());
                (session.unwrap_or_default(), rare.head.take())
            }
        };
        let result = ConnectResult {
            client: self.client,
            ttl: if self.has_token && context.config.refresh_hook(self.tenant()).is_none() {
                ttl(context.now, self.expire_at)
            } else {
                None
            },
            subs: &subs,
            ping,
            pong: converses,
            data: &connecting.data,
            session: &session,
            node: if session.is_empty() || !converses {
                ""
            } else {
                context.node
            },
            time: client
                .connect_include_server_time
                .then_some(context.now.unix_ms),
        };
        context.out.extend_from_slice(&head.unwrap_or_default());
        context.reply(connecting.id, ReplyBody::Connect(result));
        context.out.extend_from_slice(&connecting.pushes);
    }

    /// The server API adds a subscription while the client is connected.
    ///
    /// `wait` comes back with the owner's answer; `true` if there will be one.
    pub fn add(
        &mut self,
        context: &mut Context<'_>,
        wanted: &ServerSubscription,
        wait: Option<AskId>,
    ) -> Result<bool, Disconnect> {
        if self.phase != Phase::Connected {
            return Ok(false);
        }
        if let Some(index) = self.find(context, wanted.channel.name()) {
            self.tell_subscribed(context, index, wanted);
            return Ok(false);
        }
        if self.is_full(context, self.subscriptions.len()) {
            return Err(Disconnect::ChannelLimit);
        }
        let by = SubscribedBy::Service(wait);
        // A full queue leaves the client as it was; the caller's answer does not depend on it (§8.2).
        Ok(self.make_server_subscription(context, wanted, by).is_ok())
    }

    /// The subscription that was to be added is there: the client hears of it as it stands, so that what it remembers
    /// of it stays true (§8.2). One that waits for its owner tells of itself when it is there.
    fn tell_subscribed(
        &self,
        context: &mut Context<'_>,
        index: usize,
        wanted: &ServerSubscription,
    ) {
        let subscription = &self.subscriptions[index];
        let channel = context.hub.of(subscription.hub);
        if subscription.is_pending() {
            return;
        }
        let tracked = subscription.has(flag::POSITIONED) || subscription.has(flag::RECOVERABLE);
        let result = SubscribeResult {
            recoverable: subscription.has(flag::RECOVERABLE),
            positioned: subscription.has(flag::POSITIONED),
            position: tracked.then_some(channel.position),
            data: &wanted.data,
            ..SubscribeResult::default()
        };
        context.push(wanted.channel.name(), &Push::Subscribe(result));
    }

    pub(super) fn server_side_changed(
        &self,
        context: &Context<'_>,
        claims: &ConnectionClaims,
    ) -> bool {
        let mut current: Vec<&str> = self
            .subscriptions
            .iter()
            .filter(|subscription| subscription.has(flag::FROM_TOKEN))
            .filter_map(|subscription| {
                context
                    .hub
                    .at(subscription.hub)
                    .map(|channel| channel.name.name())
            })
            .collect();
        let mut named: Vec<&str> = claims
            .subs
            .iter()
            .map(|(channel, _)| channel.as_str())
            .collect();
        current.sort_unstable();
        named.sort_unstable();
        named.dedup();
        current != named
    }

    /// What permissions depend on.
    pub(super) fn asker(&self, context: &Context<'_>, subscribed: bool) -> permission::Asker<'_> {
        permission::Asker {
            user: self.user.name(),
            subscribed,
            insecure: context.config.client.insecure,
        }
    }
}

/// Where a client asks to recover from.
pub(super) fn recover_of(asked: &Subscribe<'_>, limit: u32) -> Recover {
    Recover {
        cache: false,
        epoch: Since::parse(&asked.epoch),
        offset: asked.offset,
        limit,
    }
}

impl ServerSubscription {
    /// Without any option.
    #[must_use]
    pub fn plain(tenant: TenantId<'_>, channel: &str, namespace: &Arc<Namespace>) -> Self {
        Self {
            channel: ChannelName::of(tenant, channel),
            namespace: Arc::clone(namespace),
            info: Bytes::new(),
            data: Bytes::new(),
            expire_at: 0,
            overrides: Overrides::default(),
            recover: None,
            cache_recover: false,
            flags: 0,
        }
    }
}

#[cfg(test)]
mod tests;
