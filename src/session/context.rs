//! What a session works with besides itself.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use crate::auth::revocation::Revocations;
use crate::auth::token::{Verifier, key_id};
use crate::broker::Hub;
use crate::broker::owner::owner_of;
use crate::config::keys::{KeySet, KeySource};
use crate::config::{ChannelRules, Config, Tenant, Token};
use crate::limits::MESH_TIMEOUT;
use crate::mem::{Place, Rng, Secrets, Tick, TimerWheel, Turns};
use crate::mesh::{Endpoint, Message};
use crate::metrics::Counters;
use crate::model::{ChannelName, ClientId, ConnId, Encoding, Format, ShardId, TenantId};
use crate::protocol::error::ClientError;
use crate::protocol::push::{Push, Reply, ReplyBody};
use crate::speaker::{self, Compression, Said};
use crate::time::Now;

use super::asked::OpenQuestions;
use super::late::Late;
use super::order::{ReplyMark, Spares, Together};
use super::{Calls, Requests};

/// Verifiers of both kinds of token.
#[derive(Debug)]
pub struct Tokens {
    /// Connection tokens.
    pub connection: Verifier,
    /// Subscription tokens.
    pub subscription: Verifier,
    /// Whose key set subscription tokens use.
    pub subscription_source: KeySource,
    /// Services that publish keys, of connection tokens and of subscription tokens.
    endpoints: [String; 2],
    /// The same for each tenant that has a service of its own: a key of one's set is never looked for in another one's.
    of_tenants: BTreeMap<Box<str>, Tokens>,
}

/// A key that has to be asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyWanted {
    /// From whom.
    pub source: KeySource,
    /// Its id.
    pub id: Box<str>,
}

impl Tokens {
    /// With the keys of a configuration.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        let skip = config.client.insecure_skip_token_signature_verify;
        let depth = config.client.json_depth_max;
        let endpoints = [&config.client.token, &config.client.subscription_token]
            .map(|token| token.jwks_public_endpoint.clone());
        let tenants = config.tenants.list.iter();
        let own = tenants.filter(|tenant| !tenant.token.jwks_public_endpoint.is_empty());
        let of = |tenant: &Arc<Tenant>| {
            let tokens = Self::of_tenant(config, tenant.id());
            (tenant.id.as_str().into(), tokens)
        };
        Self {
            of_tenants: own.map(of).collect(),
            subscription_source: if endpoints[0] == endpoints[1] {
                KeySource::Connection
            } else {
                KeySource::Subscription
            },
            endpoints,
            connection: Verifier::new(&config.client.token, skip).with_depth(depth),
            subscription: Verifier::new(&config.client.subscription_token, skip).with_depth(depth),
        }
    }
}

impl Tokens {
    /// With the keys of a tenant; with none where there is no such tenant.
    fn of_tenant(config: &Config, tenant: TenantId<'_>) -> Self {
        let none = Token::default();
        let own = config.tenants.get(tenant);
        let token = own.map_or(&none, |own| &own.token);
        let skip = config.client.insecure_skip_token_signature_verify && own.is_some();
        let depth = config.client.json_depth_max;
        let verifier = || Verifier::new(token, skip).with_depth(depth);
        Self {
            subscription_source: KeySource::Connection,
            endpoints: [
                token.jwks_public_endpoint.clone(),
                token.jwks_public_endpoint.clone(),
            ],
            of_tenants: BTreeMap::new(),
            connection: verifier(),
            subscription: verifier(),
        }
    }

    /// Verifiers that take their keys from a source.
    fn of(&mut self, source: &KeySource) -> impl Iterator<Item = &mut Verifier> {
        let (connection, subscription) = match source {
            KeySource::Connection => {
                let is_shared = self.subscription_source == KeySource::Connection;
                let subscription = is_shared.then_some(&mut self.subscription);
                (Some(&mut self.connection), subscription)
            }
            KeySource::Subscription => {
                let is_own = self.subscription_source == KeySource::Subscription;
                (None, is_own.then_some(&mut self.subscription))
            }
            KeySource::Tenant(id) => match self.of_tenants.get_mut(id) {
                Some(own) => (Some(&mut own.connection), Some(&mut own.subscription)),
                // It has gone since.
                None => (None, None),
            },
        };
        connection.into_iter().chain(subscription)
    }

    /// A service with keys has answered, or does not (`None`).
    pub fn answered(&mut self, source: &KeySource, set: Option<&Arc<KeySet>>, now: Now) {
        for verifier in self.of(source) {
            match set {
                Some(set) => verifier.fetched(set, now),
                None => verifier.fetch_failed(now),
            }
        }
    }

    /// A key was asked for and the answer came: unless it is there now, it is not asked for again for a while.
    pub fn refuse_if_unknown(&mut self, wanted: &KeyWanted, now: Now) {
        for verifier in self.of(&wanted.source) {
            verifier.refuse_if_unknown(&wanted.id, now);
        }
    }

    /// Keeps what is known of the keys of services that are the same as before.
    pub fn inherit(&mut self, before: Self) {
        if self.endpoints[0] == before.endpoints[0] {
            self.connection.inherit(before.connection);
        }
        if self.endpoints[1] == before.endpoints[1] {
            self.subscription.inherit(before.subscription);
        }
        for (id, own) in before.of_tenants {
            if let Some(now) = self.of_tenants.get_mut(&id) {
                now.inherit(own);
            }
        }
    }

    /// Fetched keys in use.
    #[must_use]
    pub fn fetched_keys(&self) -> usize {
        let own = match self.subscription_source {
            KeySource::Subscription => self.subscription.fetched_keys(),
            KeySource::Connection | KeySource::Tenant(_) => 0,
        };
        let tenants = self.of_tenants.values().map(Self::fetched_keys);
        self.connection.fetched_keys() + own + tenants.sum::<usize>()
    }
}

/// See the module.
pub struct Context<'a> {
    /// Both clocks.
    pub now: Now,
    /// Stands for the address prefix of the client; 0 where it is not known.
    pub prefix: u32,
    /// The session's connection.
    pub conn: ConnId,
    /// How its messages are written.
    pub format: Format,
    /// Rules.
    pub config: &'a Config,
    /// The rules of the channels of the client's tenant.
    pub rules: &'a ChannelRules,
    /// Keys, where no tenant has its own.
    pub tokens: &'a Tokens,
    /// Whom a service has shut out.
    pub revocations: &'a Revocations,
    /// Who listens here.
    pub hub: &'a mut Hub,
    /// Way to the owners.
    pub mesh: &'a mut Endpoint,
    /// Counters of the shard.
    pub counters: &'a mut Counters,
    /// Way to the backends.
    pub hooks: &'a mut Calls,
    /// What is asked of the log.
    pub log: &'a mut Requests,
    /// Publications that wait for a rate.
    pub late: &'a mut Late,
    /// What is asked of other shards.
    pub asked: &'a mut OpenQuestions,
    /// Subscriptions that get the next part of what they missed once their connection takes it.
    pub parts: &'a mut Turns<(ConnId, crate::model::HubId)>,
    /// Random numbers.
    pub rng: &'a mut Rng,
    /// What nobody can guess.
    pub secrets: &'a mut Secrets,
    /// Frames for this session's connection.
    pub out: &'a mut Vec<u8>,
    /// Something was to be said that is no JSON, to a client that reads nothing else: the shard disconnects it (3506).
    pub inappropriate: bool,
    /// What they are compressed with.
    pub compression: &'a mut Compression,
    /// Which process this is, as clients name it.
    pub node: &'a str,
    /// What the session says to its shard, as its transport has no words for it.
    pub said: &'a mut VecDeque<(ConnId, Said)>,
    /// Hub slots of subscriptions that ended. What was queued of them is not dropped any more: nobody could be told.
    pub ended: &'a mut Vec<u32>,
    /// Who moved in the hub's lists: (connection slot, hub slot, new place). Applied by the shard.
    pub moved: &'a mut Vec<(u32, u32, Place)>,
    /// The command changed nothing: it waits for this key, and is read again.
    pub key_wanted: &'a mut Option<KeyWanted>,
    /// A command is carried out.
    pub is_command: bool,
    /// The expiry of a subscription is another.
    pub is_timed: bool,
    /// Its reply comes later; what may be under way beside it.
    pub awaits: Option<Together>,
    /// By when, if it is another shard's; 0 where somebody else sees to it.
    pub answer_by: Tick,
    /// Bytes of replies in `out`.
    pub answer_bytes: usize,
    /// Replies have an order to keep.
    pub is_ordered: bool,
    /// Where in `out` they are, if so.
    pub marks: &'a mut Vec<ReplyMark>,
    /// For sessions whose commands have to wait.
    pub spares: &'a mut Spares,
}

/// What verifies the tokens of a client.
pub enum TenantTokens<'a> {
    /// Those of the whole node, or of a tenant with a service for its keys: with what was fetched.
    Kept(&'a Tokens),
    /// Those of another tenant. They are made where they are needed: that takes less than what they verify, and there may be many tenants.
    Own(Box<Tokens>),
}

impl std::ops::Deref for TenantTokens<'_> {
    type Target = Tokens;

    fn deref(&self) -> &Tokens {
        match self {
            Self::Kept(tokens) => tokens,
            Self::Own(tokens) => tokens,
        }
    }
}

impl<'a> Context<'a> {
    /// What verifies the tokens of a tenant's clients.
    #[must_use]
    pub fn tokens_of(&self, tenant: TenantId<'_>) -> TenantTokens<'a> {
        if tenant.is_default() {
            return TenantTokens::Kept(self.tokens);
        }
        match self.tokens.of_tenants.get(tenant.as_str()) {
            Some(own) => TenantTokens::Kept(own),
            None => TenantTokens::Own(Box::new(Tokens::of_tenant(self.config, tenant))),
        }
    }
}

impl Context<'_> {
    /// The command that runs must wait for the key of its token, and has changed nothing. All tokens of a tenant have one source.
    pub fn wait_for_key(&mut self, tenant: TenantId<'_>, source: KeySource, token: &str) {
        let source = match tenant.is_default() {
            true => source,
            false => KeySource::Tenant(tenant.as_str().into()),
        };
        let id = key_id(token).unwrap_or_default();
        *self.key_wanted = Some(KeyWanted { source, id });
    }

    /// An id for a client. It cannot be guessed from others: tokens may name one, and so may services.
    pub fn make_client_id(&mut self) -> ClientId {
        ClientId::from_random(u128::from_le_bytes(self.secrets.make()))
    }

    /// Answers a command.
    pub fn reply(&mut self, id: u32, body: ReplyBody<'_>) {
        if !self.fits(|| body.fits_json()) {
            return;
        }
        let from = self.out.len();
        let reply = Reply { id, body };
        let said = speaker::reply(self.out, self.format, self.compression, &reply);
        self.said.extend(said.map(|said| (self.conn, said)));
        self.answer_bytes += self.out.len() - from;
        if self.is_ordered {
            self.marks.push((id, from, self.out.len()));
        }
    }

    /// Answers a command with an error.
    pub fn error(&mut self, id: u32, error: ClientError) {
        self.counters.command_errors += 1;
        self.reply(id, ReplyBody::Error(error));
    }

    /// Says something unasked.
    pub fn push(&mut self, channel: &str, push: &Push<'_>) {
        if self.format.speaker.writes() && !self.fits(|| push.fits_json()) {
            return;
        }
        let said = speaker::push(self.out, self.format, self.compression, channel, push);
        self.said.extend(said.map(|said| (self.conn, said)));
    }

    /// Can the client read it?
    fn fits(&mut self, is_json: impl FnOnce() -> bool) -> bool {
        if self.format.encoding == Encoding::Json && !is_json() {
            self.inappropriate = true;
        }
        !self.inappropriate
    }

    /// The shard that owns a channel.
    #[must_use]
    pub fn owner(&self, channel: &ChannelName) -> ShardId {
        owner_of(channel, self.mesh.shards())
    }

    /// The reply to the command that runs is another shard's answer: it is an error if that does not come in time.
    pub fn await_mesh(&mut self) {
        self.answer_by = TimerWheel::tick_after(self.now.at, MESH_TIMEOUT);
    }

    /// Sends a command to an owner; a full queue is a temporary error.
    pub fn command(&mut self, to: ShardId, message: Message) -> Result<(), ClientError> {
        self.mesh.command(to, message).map_err(|_refused| {
            self.counters.refused_mesh += 1;
            ClientError::Internal
        })
    }
}
