//! The server API (`spec/centrifuge.md` §8): requests of services become messages to owners and to all shards; when the
//! last answer is there the response goes out.

use std::sync::Arc;

use bytes::Bytes;

use super::Shard;
use super::connection::State;
use crate::broker::owner::owner_of;
use crate::limits::{API_CALLS_MAX, API_ITEMS_MAX};
use crate::mem::{Slab, SlotPool, TimerWheel};
use crate::mesh::Message;
use crate::mesh::message::{
    Answer as OwnerAnswer, AnswerKind, Gather, Gathered, Publish, PublishError, Query, QueryKind,
    Recover, ReplyTo, UserAction, UserCommand, UserSubscribe,
};
use crate::model::{ChannelName, ClientId, ConnId, ShardId, StreamPosition};
use crate::protocol::api::{
    Answer, ApiDecodeError, ApiError, Data, Node, PublishOptions, Request, Shape, Subscribe,
    Target, decode, decode_legacy, encode_answer,
};
use crate::protocol::centrifuge::json::is_json;
use crate::session::{check_data, epoch_sent};

const JSON: &str = "application/json";
const TEXT: &str = "text/plain; charset=utf-8";
/// Answers always come; this bounds what a bug in that costs.
const CALL_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(30);

/// Calls under way.
pub(super) struct Calls {
    calls: Slab<Call>,
    slots: SlotPool,
}

impl Default for Calls {
    fn default() -> Self {
        Self {
            calls: Slab::default(),
            slots: SlotPool::new(API_CALLS_MAX),
        }
    }
}

impl Calls {
    pub(super) const fn under_way(&self) -> usize {
        self.calls.len()
    }
}

/// One HTTP request of a service.
struct Call {
    conn: ConnId,
    form: Form,
    plan: Vec<Plan>,
    leaves: Vec<Leaf>,
    /// Leaves without a result.
    left: usize,
    /// Requests that wait until those before them are done.
    rest: Option<Box<Rest>>,
}

/// See `Call::rest`. They are decoded again when their time comes.
struct Rest {
    method: Option<String>,
    body: Vec<u8>,
    /// Requests that have been asked already.
    next: usize,
}

/// How the response is written.
enum Form {
    Single,
    /// `batch`: the requests are its commands.
    Batch,
    Transport,
    Legacy(Vec<Option<u64>>),
}

/// How leaves make up answers.
enum Plan {
    Leaf(usize),
    Broadcast(std::ops::Range<usize>),
}

/// One thing that is asked of one owner or of all shards.
#[derive(Default)]
struct Leaf {
    /// Answers awaited; 0 when the result is there.
    awaited: u32,
    result: Option<Result<Answer, ApiError>>,
    gathered: Vec<Gathered>,
}

impl Shard {
    /// A request with the right key.
    pub(super) fn api_request(
        &mut self,
        slot: u32,
        method: Option<&str>,
        body: &[u8],
        transport_errors: bool,
    ) {
        self.counters.api_requests += 1;
        if let Err(error) = self.start_call(slot, method, body, transport_errors) {
            self.counters.api_errors += 1;
            let text = format!("{error}\n");
            self.respond(slot, error.http_status(), TEXT, text.as_bytes());
        }
    }

    fn start_call(
        &mut self,
        slot: u32,
        method: Option<&str>,
        body: &[u8],
        transport_errors: bool,
    ) -> Result<(), ApiDecodeError> {
        let conn = ConnId {
            slot,
            generation: self.connections.generation(slot),
        };
        let (form, parallel, requests) = requests(method, body, transport_errors)?;
        let Some(call_slot) = self.calls.slots.take() else {
            let error: Result<Answer, ApiError> = Err(ApiError::TooManyRequests);
            let mut out = Vec::new();
            encode_answer(&mut out, &error, Shape::Single);
            self.respond(slot, 200, JSON, &out);
            return Ok(());
        };
        let mut call = Call {
            conn,
            form,
            plan: Vec::new(),
            leaves: Vec::new(),
            left: 0,
            rest: None,
        };
        let planned = self.plan_from(call_slot, &mut call, requests, parallel);
        if let Some(next) = planned {
            let method = method.map(str::to_owned);
            call.rest = Some(Box::new(Rest {
                method,
                body: body.to_vec(),
                next,
            }));
        }
        self.calls.calls.insert_at(call_slot, call);
        if let Some(connection) = self.connections.at_mut(slot) {
            connection.state = State::Waiting;
        }
        self.set_deadline(slot, TimerWheel::tick_after(self.now.at, CALL_TIMEOUT));
        self.finish_call(call_slot);
        Ok(())
    }

    /// Asks for as many requests as may be under way at once. Owners keep the order of what they are asked; what concerns
    /// a user's connections waits for everything before it and is done before anything behind it is asked. Returns how many
    /// have been asked by then.
    fn plan_from<'r>(
        &mut self,
        call_slot: u32,
        call: &mut Call,
        requests: impl IntoIterator<Item = Result<Request<'r>, ApiError>>,
        parallel: bool,
    ) -> Option<usize> {
        let generation = self.calls.calls.generation(call_slot);
        let mut requests = requests.into_iter().peekable();
        let mut asker = Asker {
            shard: self,
            call,
            reply: (call_slot, generation),
        };
        let mut stopped = None;
        while let Some(request) = requests.next() {
            let stops = !parallel
                && matches!(
                    request,
                    Ok(Request::Subscribe(_)
                        | Request::Unsubscribe { .. }
                        | Request::Disconnect { .. }
                        | Request::Refresh(_))
                );
            if stops && asker.call.leaves.iter().any(|leaf| leaf.awaited > 0) {
                stopped = Some(asker.call.plan.len());
                break;
            }
            let plan = asker.plan(request);
            asker.call.plan.push(plan);
            if stops && requests.peek().is_some() {
                stopped = Some(asker.call.plan.len());
                break;
            }
        }
        call.left = call.leaves.iter().filter(|leaf| leaf.awaited > 0).count();
        stopped
    }

    /// Goes on with the requests that had to wait. Returns whether there were any.
    fn go_on(&mut self, call_slot: u32) -> bool {
        let Some(rest) = self
            .calls
            .calls
            .at_mut(call_slot)
            .and_then(|call| call.rest.take())
        else {
            return false;
        };
        // The body was understood before.
        let Ok((_, parallel, requests)) = requests(rest.method.as_deref(), &rest.body, false)
        else {
            return false;
        };
        let requests = requests.into_iter().skip(rest.next);
        let Some(call) = self.calls.calls.at_mut(call_slot) else {
            return false;
        };
        let placeholder = Call {
            conn: call.conn,
            form: Form::Single,
            plan: vec![],
            leaves: vec![],
            left: 0,
            rest: None,
        };
        let mut call = std::mem::replace(call, placeholder);
        let planned = self.plan_from(call_slot, &mut call, requests, parallel);
        if let Some(next) = planned {
            call.rest = Some(Box::new(Rest {
                next,
                method: rest.method.clone(),
                body: rest.body.clone(),
            }));
        }
        if let Some(place) = self.calls.calls.at_mut(call_slot) {
            *place = call;
        }
        true
    }

    /// Writes the response if every leaf has its result.
    fn finish_call(&mut self, call_slot: u32) {
        loop {
            if self
                .calls
                .calls
                .at(call_slot)
                .is_none_or(|call| call.left > 0)
            {
                return;
            }
            if !self.go_on(call_slot) {
                break;
            }
        }
        let Some(mut call) = self.calls.calls.remove(call_slot) else {
            return;
        };
        self.calls.slots.give(call_slot);
        let slot = call.conn.slot;
        let waits = |connection: &super::Connection| {
            connection.state == State::Waiting && !connection.is_session
        };
        if !self
            .connections
            .current(slot, call.conn.generation)
            .is_some_and(waits)
        {
            return;
        }
        let mut answers: Vec<_> = std::mem::take(&mut call.plan)
            .into_iter()
            .map(|plan| call.answer(plan))
            .collect();
        if matches!(call.form, Form::Batch) {
            answers = vec![Ok(Answer::Batch(answers))];
        }
        self.counters.api_errors += answers.iter().filter(|answer| answer.is_err()).count() as u64;
        let mut out = Vec::new();
        let mut status = 200;
        for (index, answer) in answers.iter().enumerate() {
            let shape = match &call.form {
                Form::Single | Form::Batch => Shape::Single,
                Form::Transport => {
                    status = answer
                        .as_ref()
                        .err()
                        .map_or(200, |error| error.http_status());
                    Shape::Transport
                }
                Form::Legacy(ids) => Shape::Legacy(ids[index]),
            };
            if index > 0 {
                out.push(b'\n');
            }
            encode_answer(&mut out, answer, shape);
        }
        self.respond(slot, status, JSON, &out);
        self.resume(slot);
    }

    fn leaf(&mut self, reply_to: ReplyTo) -> Option<(u32, &mut Leaf, &mut usize)> {
        let ReplyTo::Api {
            call: slot,
            generation,
            item,
        } = reply_to
        else {
            return None;
        };
        let call = self.calls.calls.current_mut(slot, generation)?;
        Some((slot, call.leaves.get_mut(item as usize)?, &mut call.left))
    }

    fn leaf_done(&mut self, reply_to: ReplyTo, result: Result<Answer, ApiError>) {
        if let Some((slot, leaf, left)) = self.leaf(reply_to) {
            leaf.result = Some(result);
            if std::mem::take(&mut leaf.awaited) > 0 {
                *left -= 1;
            }
            self.finish_call(slot);
        }
    }

    pub(super) fn api_published(
        &mut self,
        reply_to: ReplyTo,
        result: Result<StreamPosition, PublishError>,
    ) {
        let result = match result {
            Ok(position) => Ok(Answer::Publish((position.offset.0 > 0).then_some(position))),
            Err(PublishError::UnknownChannel) => Err(ApiError::UnknownChannel),
            Err(PublishError::Overloaded) => Err(ApiError::Internal),
        };
        self.leaf_done(reply_to, result);
    }

    pub(super) fn api_answered(&mut self, answer: OwnerAnswer) {
        let result = match answer.what {
            AnswerKind::Presence(list) => Ok(Answer::Presence(list)),
            AnswerKind::PresenceStats { clients, users } => Ok(Answer::PresenceStats {
                num_clients: clients,
                num_users: users,
            }),
            AnswerKind::History(publications, position) => Ok(Answer::History {
                publications,
                position,
            }),
            AnswerKind::Unrecoverable => Err(ApiError::UnrecoverablePosition),
            AnswerKind::Removed => Ok(Answer::HistoryRemove),
            AnswerKind::Overloaded => Err(ApiError::Internal),
        };
        self.leaf_done(answer.reply_to, result);
    }

    /// One shard has done what was asked of a user's connections.
    pub(super) fn api_done(&mut self, reply_to: ReplyTo) {
        self.count_down(reply_to, |_| ());
    }

    /// One shard has said what it has.
    pub(super) fn api_gathered(&mut self, gathered: Gathered) {
        self.count_down(gathered.reply_to, |leaf| leaf.gathered.push(gathered));
    }

    fn count_down(&mut self, reply_to: ReplyTo, add: impl FnOnce(&mut Leaf)) {
        let uptime_s = u64::from(self.now.at.secs());
        let uid = self.uid.clone();
        if let Some((slot, leaf, left)) = self.leaf(reply_to) {
            if leaf.awaited == 0 {
                return;
            }
            add(leaf);
            leaf.awaited -= 1;
            if leaf.awaited == 0 {
                if let Some(Ok(answer)) = &mut leaf.result {
                    complete(answer, &leaf.gathered, uptime_s, &uid);
                }
                *left -= 1;
                self.finish_call(slot);
            }
        }
    }
}

/// Makes one answer of what all shards said.
fn complete(answer: &mut Answer, gathered: &[Gathered], uptime_s: u64, uid: &str) {
    match answer {
        Answer::Channels(channels) => {
            let mut counts = std::collections::BTreeMap::<ChannelName, u32>::new();
            for (name, count) in gathered.iter().flat_map(|gathered| &gathered.channels) {
                *counts.entry(name.clone()).or_default() += count;
            }
            *channels = counts.into_iter().collect();
        }
        Answer::Info(nodes) => {
            let sum = |field: fn(&Gathered) -> u32| {
                gathered
                    .iter()
                    .map(|gathered| u64::from(field(gathered)))
                    .sum()
            };
            *nodes = vec![Node {
                uid: uid.to_owned(),
                name: "ringmain".to_owned(),
                num_clients: sum(|gathered| gathered.clients),
                num_users: sum(|gathered| gathered.users),
                num_channels: sum(|gathered| gathered.channels_active),
                num_subs: sum(|gathered| gathered.subscriptions),
                uptime_s,
            }];
        }
        _ => {}
    }
}

impl Call {
    fn answer(&mut self, plan: Plan) -> Result<Answer, ApiError> {
        match plan {
            Plan::Leaf(index) => self.leaves[index]
                .result
                .take()
                .unwrap_or(Err(ApiError::Internal)),
            Plan::Broadcast(range) => Ok(Answer::Broadcast(
                range
                    .map(|index| match self.leaves[index].result.take() {
                        Some(Ok(Answer::Publish(position))) => Ok(position),
                        Some(Err(error)) => Err(error),
                        Some(Ok(_)) | None => Err(ApiError::Internal),
                    })
                    .collect(),
            )),
        }
    }
}

/// The requests of a body in order, and whether the order matters.
type Requests<'a> = (Form, bool, Vec<Result<Request<'a>, ApiError>>);

fn requests<'a>(
    method: Option<&str>,
    body: &'a [u8],
    transport_errors: bool,
) -> Result<Requests<'a>, ApiDecodeError> {
    let Some(method) = method else {
        let commands = decode_legacy(body)?;
        let ids = commands.iter().map(|command| command.id).collect();
        return Ok((
            Form::Legacy(ids),
            false,
            commands
                .into_iter()
                .map(|command| command.request)
                .collect(),
        ));
    };
    Ok(match decode(method, body)? {
        Ok(Request::Batch(batch)) => (Form::Batch, batch.parallel, batch.commands),
        request => (
            if transport_errors {
                Form::Transport
            } else {
                Form::Single
            },
            false,
            vec![request],
        ),
    })
}

/// Turns requests into messages and leaves.
struct Asker<'a> {
    shard: &'a mut Shard,
    call: &'a mut Call,
    /// Slot and generation of the call.
    reply: (u32, u32),
}

impl Asker<'_> {
    fn plan(&mut self, request: Result<Request<'_>, ApiError>) -> Plan {
        let request = match request {
            Ok(request) if self.call.leaves.len() < API_ITEMS_MAX => request,
            Ok(_) => return self.done(Err(ApiError::TooManyRequests)),
            Err(error) => return self.done(Err(error)),
        };
        match request {
            Request::Publish {
                channel,
                data,
                options,
            } => self.publish(&channel, &data, &options),
            Request::Broadcast(broadcast) => {
                let start = self.call.leaves.len();
                for channel in &broadcast.channels {
                    self.publish(channel, &broadcast.data, &broadcast.options);
                }
                Plan::Broadcast(start..self.call.leaves.len())
            }
            Request::Subscribe(subscribe) => self.subscribe(&subscribe),
            Request::Unsubscribe { target, channel } => {
                if self.shard.config.channels.resolve(&channel).is_err() {
                    return self.done(Err(ApiError::UnknownChannel));
                }
                let action = UserAction::Unsubscribe(ChannelName::new(&channel));
                self.user(&target, &action, Answer::Unsubscribe)
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
                self.user(&target, &action, Answer::Disconnect)
            }
            Request::Refresh(refresh) => {
                let expire_at = refresh.expire_at.map(|at| u64::try_from(at).unwrap_or(0));
                let action = UserAction::Refresh {
                    expired: refresh.expired,
                    expire_at,
                    info: Bytes::copy_from_slice(&refresh.info),
                };
                self.user(&refresh.target, &action, Answer::Refresh)
            }
            Request::Presence { channel } => self.query(&channel, QueryKind::Presence),
            Request::PresenceStats { channel } => self.query(&channel, QueryKind::PresenceStats),
            Request::History(history) => {
                let since = history
                    .since
                    .as_ref()
                    .map(|(offset, epoch)| (*offset, epoch_sent(epoch)));
                let limit = u32::try_from(history.limit).unwrap_or(u32::MAX);
                self.query(
                    &history.channel,
                    QueryKind::History {
                        limit,
                        since,
                        reverse: history.reverse,
                    },
                )
            }
            Request::HistoryRemove { channel } => self.query(&channel, QueryKind::HistoryRemove),
            Request::Channels { pattern } => {
                self.gather(Some((*pattern).into()), Answer::Channels(Vec::new()))
            }
            Request::Info => self.gather(None, Answer::Info(Vec::new())),
            // A batch holds no batch, and its own commands are planned one by one.
            Request::Batch(_) => self.done(Err(ApiError::NotFound)),
        }
    }

    fn done(&mut self, result: Result<Answer, ApiError>) -> Plan {
        self.call.leaves.push(Leaf {
            result: Some(result),
            ..Leaf::default()
        });
        Plan::Leaf(self.call.leaves.len() - 1)
    }

    fn reply_to(&self) -> ReplyTo {
        ReplyTo::Api {
            call: self.reply.0,
            generation: self.reply.1,
            item: self.call.leaves.len() as u32,
        }
    }

    /// One message to an owner, one leaf.
    fn ask(&mut self, owner: ShardId, message: Message) -> Plan {
        if self.shard.mesh.command(owner, message).is_err() {
            self.shard.counters.refused_mesh += 1;
            return self.done(Err(ApiError::Internal));
        }
        self.call.leaves.push(Leaf {
            awaited: 1,
            ..Leaf::default()
        });
        Plan::Leaf(self.call.leaves.len() - 1)
    }

    fn publish(&mut self, channel: &str, data: &Data<'_>, options: &PublishOptions<'_>) -> Plan {
        if channel.is_empty() {
            return self.done(Err(ApiError::BadRequest));
        }
        let json = matches!(data, Data::Borrowed(_)) && !data.is_empty() || is_json(data);
        let checked = match self.shard.config.channels.resolve(channel) {
            Err(_) => Err(ApiError::UnknownChannel),
            Ok(namespace) => {
                check_data(namespace, data, json).map_err(|_refused| ApiError::BadRequest)
            }
        };
        if let Err(error) = checked {
            return self.done(Err(error));
        }
        let channel = ChannelName::new(channel);
        let owner = owner_of(&channel, self.shard.mesh.shards());
        let publish = Publish {
            channel,
            reply_to: self.reply_to(),
            data: Bytes::copy_from_slice(data),
            json,
            info: None,
            tags: options
                .tags
                .iter()
                .map(|(name, value)| ((**name).into(), (**value).into()))
                .collect(),
            skip_history: options.skip_history,
            delta: options.delta,
            idempotency_key: (*options.idempotency_key).into(),
            version: options.version,
            version_epoch: (*options.version_epoch).into(),
        };
        self.ask(owner, Message::Publish(Box::new(publish)))
    }

    fn query(&mut self, channel: &str, what: QueryKind) -> Plan {
        let available = self
            .shard
            .config
            .channels
            .resolve(channel)
            .map(|namespace| match what {
                QueryKind::Presence | QueryKind::PresenceStats => namespace.presence,
                QueryKind::History { .. } | QueryKind::HistoryRemove => namespace.history_size > 0,
            });
        match available {
            Err(_) => return self.done(Err(ApiError::UnknownChannel)),
            Ok(false) => return self.done(Err(ApiError::NotAvailable)),
            Ok(true) => {}
        }
        let channel = ChannelName::new(channel);
        let owner = owner_of(&channel, self.shard.mesh.shards());
        let query = Query {
            channel,
            reply_to: self.reply_to(),
            what,
        };
        self.ask(owner, Message::Query(Box::new(query)))
    }

    fn subscribe(&mut self, subscribe: &Subscribe<'_>) -> Plan {
        let config = Arc::clone(&self.shard.config);
        if config.channels.resolve(&subscribe.channel).is_err() {
            return self.done(Err(ApiError::UnknownChannel));
        }
        let action = UserAction::Subscribe(Box::new(UserSubscribe {
            channel: ChannelName::new(&subscribe.channel),
            expire_at: subscribe
                .expire_at
                .map_or(0, |at| u64::try_from(at).unwrap_or(0)),
            info: Bytes::copy_from_slice(&subscribe.info),
            data: Bytes::copy_from_slice(&subscribe.data),
            recover: subscribe
                .recover_since
                .as_ref()
                .map(|(offset, epoch)| Recover {
                    epoch: epoch_sent(epoch),
                    offset: *offset,
                    limit: config.client.recovery_max_publication_limit,
                }),
            overrides: subscribe.overrides,
        }));
        self.user(&subscribe.target, &action, Answer::Subscribe)
    }

    /// A command to every shard, one leaf.
    fn user(&mut self, target: &Target<'_>, action: &UserAction, answer: Answer) -> Plan {
        let client = if target.client.is_empty() {
            None
        } else {
            ClientId::parse(&target.client)
        };
        // A WebSocket connection has no session id, so a session id selects none, like a client id that is none.
        if !target.session.is_empty() || (client.is_none() && !target.client.is_empty()) {
            return self.done(Ok(answer));
        }
        let reply_to = self.reply_to();
        let user: Box<str> = (*target.user).into();
        self.everywhere(answer, |_| {
            Message::User(Box::new(UserCommand {
                reply_to,
                user: user.clone(),
                client,
                action: action.clone(),
            }))
        })
    }

    fn gather(&mut self, channels: Option<Box<str>>, answer: Answer) -> Plan {
        let reply_to = self.reply_to();
        self.everywhere(answer, |_| {
            Message::Gather(Box::new(Gather {
                reply_to,
                channels: channels.clone(),
            }))
        })
    }

    fn everywhere(&mut self, answer: Answer, message: impl Fn(ShardId) -> Message) -> Plan {
        let mut awaited = 0;
        let mut refused = false;
        for shard in (0..self.shard.mesh.shards()).map(ShardId) {
            match self.shard.mesh.command(shard, message(shard)) {
                Ok(()) => awaited += 1,
                Err(_full) => refused = true,
            }
        }
        if refused {
            self.shard.counters.refused_mesh += 1;
            // What the other shards answer finds a leaf that is done.
            return self.done(Err(ApiError::Internal));
        }
        self.call.leaves.push(Leaf {
            awaited,
            result: Some(Ok(answer)),
            gathered: Vec::new(),
        });
        Plan::Leaf(self.call.leaves.len() - 1)
    }
}
