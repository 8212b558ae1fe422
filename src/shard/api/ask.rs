//! What a request asks, of whom, and in which order: pure planning, nothing is sent here.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::ops::Range;

use bytes::Bytes;

use crate::broker::owner::owner_of;
use crate::config::access::CHANNEL_METHODS;
use crate::config::namespace::ServerNameError;
use crate::config::{ChannelRules, Config, Glob, Grant, Namespace, Unfit, due_ms};
use crate::limits::{API_ITEMS_MAX, SERVER_CHANNEL_NAME_BYTES_MAX};
use crate::mesh::durable::LogMethod;
use crate::mesh::message::{
    Asked, Gather, Query, QueryKind, Recover, Revocation, UserAction, UserCommand, UserSubscribe,
};
use crate::model::{ChannelName, ClientId, Draft, Since, TenantId, UserId, Way};
use crate::protocol::api::{
    ApiAnswer, ApiError, Closed, Data, PublishOptions, Request, SubscribeCall, Whom,
};
use crate::wire::json::{is_json, is_json_deeper};

/// How leaves make up answers.
pub(super) enum Plan {
    Leaf(usize),
    Broadcast(Range<usize>),
}

/// What may be asked at the same time: for each shard what it does in this order.
pub(super) struct Round {
    pub(super) shards: Vec<Vec<(u32, Asked)>>,
    /// What is asked of the log, in this order.
    pub(super) to_log: Vec<(u32, AskLog)>,
    /// It concerns a user's connections, not what owners have.
    concerns_users: bool,
}

/// What a request asks of the log.
pub(super) enum AskLog {
    /// Keep a publication.
    Append(Box<Draft>),
    /// Forget what a channel has kept.
    Trim(ChannelName),
    /// A question with parameters in JSON.
    Round(LogMethod, Box<str>, Bytes),
}

/// All that a request asks.
pub(super) struct Planned {
    pub(super) plan: Vec<Plan>,
    pub(super) leaves: Vec<Result<ApiAnswer, ApiError>>,
    pub(super) asks: VecDeque<Round>,
}

/// Plans requests of whoever has this grant; without one they are of somebody who may everything. A shard keeps the order of what it is asked; so what concerns a user's connections waits for
/// the owners' answers to everything before it, and is done before owners are asked for anything behind it. Nothing waits if
/// `parallel`.
pub(super) fn plan<'r>(
    (config, now_ms): (&Config, u64),
    shards: u16,
    (tenant, grant): (TenantId<'_>, Option<&Grant>),
    requests: Vec<Result<Request<'r>, ApiError>>,
    parallel: bool,
) -> Planned {
    let mut planner = Planner {
        config,
        now_ms,
        shards,
        tenant,
        rules: config.rules_or_none(tenant),
        grant,
        parallel,
        leaves: Vec::with_capacity(requests.len()),
        asks: VecDeque::new(),
    };
    let plan = requests
        .into_iter()
        .map(|request| planner.request(request))
        .collect();
    Planned {
        plan,
        leaves: planner.leaves,
        asks: planner.asks,
    }
}

struct Planner<'a> {
    config: &'a Config,
    /// Unix milliseconds.
    now_ms: u64,
    shards: u16,
    /// For whom everything is.
    tenant: TenantId<'a>,
    /// The rules of its channels.
    rules: &'a ChannelRules,
    grant: Option<&'a Grant>,
    parallel: bool,
    leaves: Vec<Result<ApiAnswer, ApiError>>,
    asks: VecDeque<Round>,
}

impl<'a> Planner<'a> {
    fn request(&mut self, request: Result<Request<'_>, ApiError>) -> Plan {
        let request = match request {
            Ok(request) if self.leaves.len() < API_ITEMS_MAX => request,
            Ok(_) => return self.done(Err(ApiError::LimitExceeded)),
            Err(error) => return self.done(Err(error)),
        };
        if let Err(closed) = self.check_method(&request) {
            return self.done(Err(ApiError::PermissionDenied(closed)));
        }
        match request {
            Request::Publish {
                channel,
                data,
                options,
            } => {
                let payload = SharedPayload::new(data);
                Plan::Leaf(self.publish(&channel, payload, &options))
            }
            Request::Broadcast(broadcast) => {
                let start = self.leaves.len();
                if broadcast.channels.len() > API_ITEMS_MAX - start {
                    return self.done(Err(ApiError::LimitExceeded));
                }
                let payload = SharedPayload::new(broadcast.data);
                for channel in &broadcast.channels {
                    self.publish(channel, payload.clone(), &broadcast.options);
                }
                Plan::Broadcast(start..self.leaves.len())
            }
            Request::Subscribe(subscribe) => self.subscribe(&subscribe),
            Request::Unsubscribe { target, channel } => {
                if let Err(error) = self.named(&channel) {
                    return self.done(Err(error));
                }
                let action = UserAction::Unsubscribe(self.channel(&channel));
                self.user(&target, &action, ApiAnswer::Unsubscribe)
            }
            Request::Disconnect {
                target,
                whitelist,
                disconnect,
            } => {
                let action = UserAction::Disconnect {
                    code: disconnect.code(),
                    reason: disconnect.reason().into(),
                    whitelist: whitelist
                        .iter()
                        .filter_map(|client| ClientId::parse(client))
                        .collect(),
                };
                self.user(&target, &action, ApiAnswer::Disconnect)
            }
            Request::Refresh(refresh) => {
                if let Err(error) = self.check_depth("info", &refresh.info) {
                    return self.done(Err(error));
                }
                let expire_at = refresh.expire_at.map(|at| u64::try_from(at).unwrap_or(0));
                let action = UserAction::Refresh {
                    expired: refresh.expired,
                    expire_at,
                    info: Bytes::copy_from_slice(&refresh.info),
                };
                self.user(&refresh.target, &action, ApiAnswer::Refresh)
            }
            Request::Revoke(revocation) => {
                let answer = match revocation {
                    Revocation::Token { .. } => ApiAnswer::RevokeToken,
                    Revocation::UserTokens { .. } => ApiAnswer::InvalidateUserTokens,
                    Revocation::Block { .. } => ApiAnswer::BlockUser,
                    Revocation::Unblock { .. } => ApiAnswer::UnblockUser,
                };
                let revocation = revocation.scoped(self.tenant);
                self.ask_all(true, answer, || Asked::Revoke(revocation.clone()))
            }
            Request::Presence {
                channel,
                limit,
                after,
            } => self.query(&channel, QueryKind::Presence { limit, after }),
            Request::PresenceStats { channel } => self.query(&channel, QueryKind::PresenceStats),
            Request::History(history) => {
                let since = history
                    .since
                    .as_ref()
                    .map(|(offset, epoch)| (*offset, Since::parse(epoch)));
                let what = QueryKind::History {
                    limit: u32::try_from(history.limit).unwrap_or(u32::MAX),
                    since,
                    reverse: history.reverse,
                };
                self.query(&history.channel, what)
            }
            Request::HistoryRemove { channel } => self.query(&channel, QueryKind::HistoryRemove),
            Request::Channels { pattern } => {
                let glob = match &*pattern {
                    "" => Ok(Glob::any()),
                    pattern => Glob::parse(pattern),
                };
                match glob {
                    Ok(glob) => self.gather(Some(&glob), ApiAnswer::Channels(Vec::new())),
                    Err(_) => self.done(Err(ApiError::BadRequest)),
                }
            }
            Request::Log(method, body) => {
                let data = Bytes::copy_from_slice(body);
                Plan::Leaf(self.ask_log(AskLog::Round(method, self.tenant.as_str().into(), data)))
            }
            Request::Info => self.gather(None, ApiAnswer::Info(Vec::new())),
            // A batch holds no batch, and its own commands are planned one by one.
            Request::Batch(_) => self.done(Err(ApiError::NotFound)),
        }
    }

    /// Does the key open this method?
    fn check_method(&self, request: &Request<'_>) -> Result<(), Closed> {
        let Some(grant) = self.grant else {
            return Ok(());
        };
        let method = request.method();
        if !grant.has_method(method) {
            return Err(Closed::Method);
        }
        if grant.is_for_channels_only() && !CHANNEL_METHODS.contains(&method) {
            return Err(Closed::BeyondChannels);
        }
        Ok(())
    }

    /// The namespace of a channel that a service names, if its key opens it. Whoever may not have a namespace is not told whether it
    /// is there.
    fn named(&self, channel: &str) -> Result<&'a Namespace, ApiError> {
        let found = named(self.rules, channel);
        let closed = Err(ApiError::PermissionDenied(Closed::Namespace));
        match (&found, self.grant) {
            (Ok(namespace), Some(grant)) if !grant.has_namespace(&namespace.name) => closed,
            (Err(ApiError::UnknownChannel), Some(grant)) if grant.is_for_channels_only() => closed,
            _ => found,
        }
    }

    /// The channel that the caller calls so.
    fn channel(&self, name: &str) -> ChannelName {
        ChannelName::of(self.tenant, name)
    }

    /// What goes to clients, every client can read.
    fn check_depth(&self, member: &str, payload: &[u8]) -> Result<(), ApiError> {
        let levels = self.config.client.json_depth_max;
        if is_json_deeper(payload, levels as usize) {
            let unfit = Unfit::TooDeep(levels).to_string();
            return Err(ApiError::wrong(member, &unfit));
        }
        Ok(())
    }

    /// A leaf that nobody is asked about, or whose answer is known unless a shard cannot be asked.
    fn leaf(&mut self, result: Result<ApiAnswer, ApiError>) -> usize {
        self.leaves.push(result);
        self.leaves.len() - 1
    }

    fn done(&mut self, result: Result<ApiAnswer, ApiError>) -> Plan {
        Plan::Leaf(self.leaf(result))
    }

    /// Where the next thing is asked.
    fn ask(&mut self, concerns_users: bool) -> &mut Vec<Vec<(u32, Asked)>> {
        &mut self.step(concerns_users).shards
    }

    fn ask_log(&mut self, ask: AskLog) -> usize {
        if !self.config.is_durable() {
            return self.leaf(Err(ApiError::NotAvailable));
        }
        let leaf = self.leaf(Err(ApiError::Internal));
        self.step(false).to_log.push((leaf as u32, ask));
        leaf
    }

    fn step(&mut self, concerns_users: bool) -> &mut Round {
        let together = self
            .asks
            .back()
            .is_some_and(|ask| self.parallel || ask.concerns_users == concerns_users);
        if !together {
            let shards = std::iter::repeat_with(Vec::new).take(usize::from(self.shards));
            self.asks.push_back(Round {
                shards: shards.collect(),
                to_log: Vec::new(),
                concerns_users,
            });
        }
        let last = self.asks.len() - 1;
        &mut self.asks[last]
    }

    fn ask_owner(&mut self, channel: &ChannelName, asked: Asked) -> usize {
        let owner = usize::from(owner_of(channel, self.shards).0);
        let leaf = self.leaf(Err(ApiError::Internal));
        self.ask(false)[owner].push((leaf as u32, asked));
        leaf
    }

    fn ask_all(
        &mut self,
        concerns_users: bool,
        answer: ApiAnswer,
        asked: impl Fn() -> Asked,
    ) -> Plan {
        let leaf = self.leaf(Ok(answer));
        for shard in self.ask(concerns_users) {
            shard.push((leaf as u32, asked()));
        }
        Plan::Leaf(leaf)
    }

    fn publish(
        &mut self,
        channel: &str,
        payload: SharedPayload,
        options: &PublishOptions<'_>,
    ) -> usize {
        let drafted = self.named(channel).and_then(|namespace| {
            let rules = (self.config, namespace, self.now_ms);
            drafted(rules, self.channel(channel), payload, options)
        });
        let draft = match drafted {
            Ok(draft) => draft,
            Err(error) => return self.leaf(Err(error)),
        };
        match draft.way() {
            Way::Owner => {
                let channel = draft.record.channel.clone();
                self.ask_owner(&channel, Asked::Publish(draft))
            }
            Way::Log => self.ask_log(AskLog::Append(draft)),
        }
    }

    fn query(&mut self, channel: &str, what: QueryKind) -> Plan {
        let found = self.named(channel);
        let is_durable = found.as_ref().is_ok_and(|namespace| namespace.is_durable());
        let available = found.map(|namespace| match what {
            QueryKind::Presence { .. } | QueryKind::PresenceStats => namespace.presence,
            QueryKind::History { .. } | QueryKind::HistoryRemove => namespace.history_size > 0,
        });
        match available {
            Err(error) => return self.done(Err(error)),
            Ok(false) => return self.done(Err(ApiError::NotAvailable)),
            Ok(true) => {}
        }
        let channel = self.channel(channel);
        let query = Query {
            channel: channel.clone(),
            what,
        };
        let leaf = self.ask_owner(&channel, Asked::Query(query));
        if is_durable && what == QueryKind::HistoryRemove {
            let trim = AskLog::Trim(channel);
            self.step(false).to_log.push((leaf as u32, trim));
        }
        Plan::Leaf(leaf)
    }

    fn subscribe(&mut self, subscribe: &SubscribeCall<'_>) -> Plan {
        if let Err(error) = self.named(&subscribe.channel) {
            return self.done(Err(error));
        }
        let checked = self.check_depth("info", &subscribe.info);
        if let Err(error) = checked.and_then(|()| self.check_depth("data", &subscribe.data)) {
            return self.done(Err(error));
        }
        let limit = self.config.client.recovery_max_publication_limit;
        let action = UserAction::Subscribe(Box::new(UserSubscribe {
            channel: self.channel(&subscribe.channel),
            expire_at: subscribe
                .expire_at
                .map_or(0, |at| u64::try_from(at).unwrap_or(0)),
            info: Bytes::copy_from_slice(&subscribe.info),
            data: Bytes::copy_from_slice(&subscribe.data),
            recover: subscribe
                .recover_since
                .as_ref()
                .map(|(offset, epoch)| Recover {
                    cache: false,
                    epoch: Since::parse(epoch),
                    offset: *offset,
                    limit,
                }),
            overrides: subscribe.overrides,
        }));
        self.user(&subscribe.target, &action, ApiAnswer::Subscribe)
    }

    /// A command to every shard.
    fn user(&mut self, target: &Whom<'_>, action: &UserAction, answer: ApiAnswer) -> Plan {
        let client = if target.client.is_empty() {
            None
        } else {
            ClientId::parse(&target.client)
        };
        // A client id that is none selects no connection, like one that nobody has.
        if client.is_none() && !target.client.is_empty() {
            return self.done(Ok(answer));
        }
        let session: Box<str> = (*target.session).into();
        let user = UserId::new(self.tenant, &target.user);
        self.ask_all(true, answer, || {
            Asked::User(UserCommand {
                user: user.clone(),
                client,
                session: session.clone(),
                action: action.clone(),
            })
        })
    }

    fn gather(&mut self, channels: Option<&Glob>, answer: ApiAnswer) -> Plan {
        let tenant: Box<str> = self.tenant.as_str().into();
        self.ask_all(false, answer, || {
            Asked::Gather(Gather {
                tenant: tenant.clone(),
                channels: channels.map(|glob| Box::new(glob.clone())),
            })
        })
    }
}

/// What a service publishes in a channel.
fn drafted(
    (config, namespace, now_ms): (&Config, &Namespace, u64),
    name: ChannelName,
    payload: SharedPayload,
    options: &PublishOptions<'_>,
) -> Result<Box<Draft>, ApiError> {
    let draft = Draft::new(namespace.terms(), name, payload.data, payload.json);
    let mut draft = Box::new(draft);
    draft.record.key = (*options.idempotency_key).into();
    draft.record.schema = u32::try_from(options.schema)
        .map_err(|_large| ApiError::wrong("schema", "expected a version up to 4294967295"))?;
    draft.record.trace = (*options.trace).into();
    draft.record.delta = options.delta;
    draft.record.ttl_ms = options.ttl_ms;
    draft.record.tags = options
        .tags
        .iter()
        .map(|(name, value)| ((**name).into(), (**value).into()))
        .collect();
    draft.skip_history = options.skip_history;
    draft.version = options.version;
    draft.version_epoch = (*options.version_epoch).into();
    let wrong = |unfit: Unfit| ApiError::wrong(unfit.member(), &unfit.to_string());
    draft.due_ms = due_ms(now_ms, options.deliver_at, options.delay_ms).map_err(wrong)?;
    config.check_draft(namespace, &draft).map_err(wrong)?;
    match &options.unknown {
        Some(what) if draft.way() == Way::Log => Err(ApiError::Member(what.clone())),
        Some(_) | None => Ok(draft),
    }
}

/// The namespace of a channel that a service names.
fn named<'c>(rules: &'c ChannelRules, channel: &str) -> Result<&'c Namespace, ApiError> {
    match rules.resolve_named_by_server(channel) {
        Ok(namespace) => Ok(namespace),
        Err(ServerNameError::Length) => Err(ApiError::wrong(
            "channel",
            &format!("expected 1 to {SERVER_CHANNEL_NAME_BYTES_MAX} bytes"),
        )),
        Err(ServerNameError::Unknown) => Err(ApiError::UnknownChannel),
    }
}

/// What is published: copied once, shared by all channels that get it.
#[derive(Clone)]
struct SharedPayload {
    data: Bytes,
    json: bool,
}

impl SharedPayload {
    fn new(data: Data<'_>) -> Self {
        match data {
            Cow::Borrowed(data) => Self {
                json: !data.is_empty() || is_json(data),
                data: Bytes::copy_from_slice(data),
            },
            Cow::Owned(data) => Self {
                json: is_json(&data),
                data: data.into(),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Source;
    use crate::protocol::api::decode;

    const CONFIG: &str = "[[channel.namespaces]]\nname = \"orders\"\npresence = true\nhistory_size = 1\nhistory_ttl = \"1m\"\n\
                          [[channel.namespaces]]\nname = \"chat\"\npresence = true\nhistory_size = 1\nhistory_ttl = \"1m\"\n";

    /// What each leaf of a request is refused with; `None` where it is asked.
    fn refusals(grant: &Grant, method: &str, body: &str) -> Vec<Option<ApiError>> {
        let (name, text) = ("ringmain.toml", CONFIG);
        let config = Config::load(&[Source { name, text }], &[]).expect("a configuration");
        let decoded = match LogMethod::of_api(method) {
            Some(method) => Ok(Request::Log(method, body.as_bytes())),
            None => decode(method, body.as_bytes()).expect("a body"),
        };
        let requests = match decoded {
            Ok(Request::Batch(batch)) => batch.commands,
            one => vec![one],
        };
        let planned = plan(
            (&config, 0),
            2,
            (TenantId::NONE, Some(grant)),
            requests,
            false,
        );
        let asked: Vec<u32> = planned
            .asks
            .iter()
            .flat_map(|round| round.shards.iter().flatten().map(|(leaf, _)| *leaf))
            .collect();
        let leaves = planned.leaves.into_iter().enumerate();
        leaves
            .map(|(at, leaf)| match leaf {
                Err(error) if !asked.contains(&(at as u32)) => Some(error),
                _ => None,
            })
            .collect()
    }

    fn grant(methods: &[&str], namespaces: &[&str]) -> Grant {
        let owned = |texts: &[&str]| {
            texts
                .iter()
                .map(|&text| text.to_owned())
                .collect::<Vec<_>>()
        };
        Grant::new("k", &owned(methods), &owned(namespaces))
    }

    const NAMESPACE: Option<ApiError> = Some(ApiError::PermissionDenied(Closed::Namespace));
    const METHOD: Option<ApiError> = Some(ApiError::PermissionDenied(Closed::Method));
    const BEYOND: Option<ApiError> = Some(ApiError::PermissionDenied(Closed::BeyondChannels));

    #[test]
    fn every_method_with_a_channel_asks_whether_the_key_opens_its_namespace() {
        let scoped = grant(&[], &["orders"]);
        for (method, body) in [
            ("publish", r#"{"channel":"NAME","data":1}"#),
            ("broadcast", r#"{"channels":["NAME"],"data":1}"#),
            ("subscribe", r#"{"user":"1","channel":"NAME"}"#),
            ("unsubscribe", r#"{"user":"1","channel":"NAME"}"#),
            ("presence", r#"{"channel":"NAME"}"#),
            ("presence_stats", r#"{"channel":"NAME"}"#),
            ("history", r#"{"channel":"NAME"}"#),
            ("history_remove", r#"{"channel":"NAME"}"#),
        ] {
            let of = |name: &str| refusals(&scoped, method, &body.replace("NAME", name));
            assert_eq!(of("orders:1"), [None], "{method}");
            for closed in ["chat:1", "plain", "unknown:1", "$chat:1", "#42"] {
                assert_eq!(of(closed), [NAMESPACE], "{method} {closed}");
            }
        }
        let without = grant(&[], &[""]);
        let of = |name: &str| refusals(&without, "presence", &format!(r#"{{"channel":"{name}"}}"#));
        assert_eq!(of("plain"), [Some(ApiError::NotAvailable)]);
        assert_eq!(of("orders:1"), [NAMESPACE]);
    }

    #[test]
    fn a_key_for_namespaces_opens_nothing_beyond_their_channels() {
        let scoped = grant(&[], &["orders"]);
        for (method, body) in [
            ("info", "{}"),
            ("channels", "{}"),
            ("disconnect", r#"{"user":"1"}"#),
            ("refresh", r#"{"user":"1"}"#),
            ("revoke_token", r#"{"uid":"1"}"#),
            ("invalidate_user_tokens", r#"{"user":"1"}"#),
            ("block_user", r#"{"user":"1"}"#),
            ("unblock_user", r#"{"user":"1"}"#),
            ("queue/fetch", "{}"),
            ("queue/ack", "{}"),
            ("dlq/list", "{}"),
            ("replay", "{}"),
        ] {
            assert_eq!(refusals(&scoped, method, body), [BEYOND], "{method}");
        }
    }

    #[test]
    fn each_command_of_a_batch_and_each_channel_of_a_broadcast_is_asked_for_by_itself() {
        let scoped = grant(&["publish", "broadcast", "info"], &["orders"]);
        let batch = r#"{"commands":[
            {"publish":{"channel":"orders:1","data":1}},
            {"publish":{"channel":"chat:1","data":1}},
            {"presence":{"channel":"orders:1"}},
            {"info":{}},
            {"broadcast":{"channels":["orders:1","chat:1","orders:2"],"data":1}}
        ]}"#;
        assert_eq!(
            refusals(&scoped, "batch", batch),
            [None, NAMESPACE, METHOD, BEYOND, None, NAMESPACE, None]
        );
    }

    #[test]
    fn a_key_for_methods_opens_them_in_every_channel() {
        let queue = grant(&["queue/*", "info"], &[]);
        assert_eq!(refusals(&queue, "info", "{}"), [None]);
        assert_eq!(
            refusals(&queue, "queue/ack", "{}"),
            [Some(ApiError::NotAvailable)]
        );
        assert_eq!(refusals(&queue, "dlq/list", "{}"), [METHOD]);
        let body = r#"{"channel":"unknown:1","data":1}"#;
        assert_eq!(refusals(&queue, "publish", body), [METHOD]);
        let publish = grant(&["publish"], &[]);
        assert_eq!(
            refusals(&publish, "publish", body),
            [Some(ApiError::UnknownChannel)]
        );
    }
}
