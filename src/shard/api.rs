//! The server API (`spec/centrifuge.md` §8): requests of services become messages to owners and to all shards; when the
//! last answer is there the response goes out.
//!
//! Everything that one HTTP request asks of one shard goes there as one message and comes back as one, however many
//! publications it holds.

mod ask;
mod serve;

use std::collections::VecDeque;

use ask::{AskLog, Plan, Round, plan};
use bytes::Bytes;

use super::Shard;
use super::connection::State;
use crate::config::Grant;
use crate::limits::{API_CALLS_MAX, API_TIMEOUT};
use crate::mem::Asks;
use crate::mesh::Message;
use crate::mesh::durable::{Appended, Ask as LogAsk, Caller, LogError, LogMethod, RequestId};
use crate::mesh::message::{
    AnswerKind, Answered, Answers, Asked, CommandsFor, Gathered, PublishError, UserCount,
};
use crate::metrics::{Counters, DESCRIPTIONS};
use crate::model::{AskId, ChannelName, ConnId, Draft, ShardId, StreamPosition, TenantId};
use crate::protocol::api::{
    ApiAnswer, ApiDecodeError, ApiError, ApiForm, ApiPublished, NodeInfo, Request, decode,
    decode_legacy, encode_answer,
};
use crate::session::Waiting;
use crate::session::late::Held;
use crate::session::quota::{self, FULL_FOR, Wanted};
use crate::time::Instant;

const JSON: &str = "application/json";
const TEXT: &str = "text/plain; charset=utf-8";

/// Calls under way.
pub(super) struct ApiCalls(Asks<ApiCall>);

impl Default for ApiCalls {
    fn default() -> Self {
        Self(Asks::new(API_CALLS_MAX, usize::MAX))
    }
}

impl ApiCalls {
    pub(super) const fn under_way(&self) -> usize {
        self.0.len()
    }

    /// When the next one is given up.
    pub(super) fn next_at(&self) -> Option<Instant> {
        self.0.next_at()
    }

    /// Answers that came to calls that had ended.
    pub(super) const fn stale(&self) -> u64 {
        self.0.stale()
    }
}

/// One HTTP request of a service.
struct ApiCall {
    conn: ConnId,
    form: ResponseForm,
    plan: Vec<Plan>,
    /// What is known of each thing asked: an internal error until its answer comes.
    leaves: Vec<Result<ApiAnswer, ApiError>>,
    /// How many have still to say something to each of them.
    owed: Vec<u8>,
    /// What shards said that were asked what they have, each with its leaf.
    gathered: Vec<(u32, Box<Gathered>)>,
    /// What is still to be asked. Each waits until those before it are answered.
    asks: VecDeque<Round>,
    /// Shards that have not answered.
    left: u32,
}

impl ApiCall {
    /// Leaves out publications that are refused: the refusal is their answer.
    fn retain_drafts(&mut self, mut check: impl FnMut(&Draft) -> Result<(), ApiError>) {
        let Self { leaves, asks, .. } = self;
        let mut is_kept = |leaf: u32, draft: Option<&Draft>| match draft.map(&mut check) {
            Some(Err(error)) => {
                leaves[leaf as usize] = Err(error);
                false
            }
            Some(Ok(())) | None => true,
        };
        for round in asks {
            for items in &mut round.shards {
                items.retain(|(leaf, asked)| match asked {
                    Asked::Publish(draft) => is_kept(*leaf, Some(draft)),
                    _ => is_kept(*leaf, None),
                });
            }
            round.to_log.retain(|(leaf, asked)| match asked {
                AskLog::Append(draft) => is_kept(*leaf, Some(draft)),
                _ => is_kept(*leaf, None),
            });
        }
    }
}

/// How the response is written.
enum ResponseForm {
    Single,
    /// `batch`: the requests are its commands.
    Batch,
    Transport,
    Legacy(Vec<Option<u64>>),
}

impl Shard {
    /// A request with the right key.
    pub(super) fn api_request(
        &mut self,
        slot: u32,
        method: Option<&str>,
        body: &[u8],
        transport_errors: bool,
        caller: (TenantId<'_>, Option<&Grant>),
    ) {
        self.counters.api_requests += 1;
        let (_, grant) = caller;
        if grant.is_none_or(Grant::is_operators) {
            self.counters
                .key_used(grant.map_or("", |grant| &grant.name));
        }
        if let Err(error) = self.start_call(slot, method, body, transport_errors, caller) {
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
        (tenant, grant): (TenantId<'_>, Option<&Grant>),
    ) -> Result<(), ApiDecodeError> {
        let conn = ConnId {
            slot,
            generation: self.connections.generation(slot),
        };
        let (form, parallel, requests) = requests(method, body, transport_errors)?;
        if !self.calls.0.has_room(0) {
            let error: Result<ApiAnswer, ApiError> = Err(ApiError::TooManyRequests);
            let mut out = Vec::new();
            encode_answer(&mut out, &error, ApiForm::Single);
            self.respond(slot, 200, JSON, &out);
            return Ok(());
        }
        let planned = plan(
            (&self.config, self.now.unix_ms),
            self.mesh.shards(),
            (tenant, grant),
            requests,
            parallel,
        );
        let call = ApiCall {
            conn,
            form,
            plan: planned.plan,
            owed: vec![0; planned.leaves.len()],
            leaves: planned.leaves,
            gathered: Vec::new(),
            asks: planned.asks,
            left: 0,
        };
        let Ok(id) = self.calls.0.open(self.now.at + API_TIMEOUT, 0, call) else {
            unreachable!("there is room");
        };
        let is_held = self.hold_call(id, tenant);
        let connection = self.connections.of_mut(slot);
        connection.state = State::Waiting;
        self.connections.set_deadline(slot, 0);
        if !is_held {
            self.go_on(id);
        }
        Ok(())
    }

    /// Takes what a call publishes of what its tenant may publish: what does not fit is answered at once. `true`: the rest waits for
    /// its rate, and goes in time (`call_goes`).
    fn hold_call(&mut self, id: AskId, tenant: TenantId<'_>) -> bool {
        let Some((limits, quota)) = self.config.channels.limits_of(tenant) else {
            return false;
        };
        let call = self.calls.0.of_mut(id);
        let mut wanted = Wanted::default();
        call.retain_drafts(|draft| {
            quota::check_size(limits, quota, draft).map_err(|_over| ApiError::LimitExceeded)?;
            wanted.add(draft);
            Ok(())
        });
        if wanted.publications == 0 {
            return false;
        }
        let wait = match quota::take(self.now.at, limits, quota, wanted, &self.late) {
            Ok(wait) => {
                let due = quota::due(self.now.at, limits, &self.late, wait);
                if let Some(at) = due {
                    let bytes = usize::try_from(wanted.bytes).unwrap_or(usize::MAX);
                    self.late.push(at, Held::Call { call: id, bytes });
                }
                return due.is_some();
            }
            Err(over) => over.retry_after.unwrap_or(FULL_FOR),
        };
        let ms = u32::try_from(wait.as_nanos().div_ceil(1_000_000)).unwrap_or(u32::MAX);
        call.retain_drafts(|_| Err(ApiError::TooFast(ms)));
        false
    }

    /// A call that waited for a rate goes, unless it was answered meanwhile.
    pub(super) fn call_goes(&mut self, id: AskId) {
        if self.calls.0.kept(id).is_some() {
            self.go_on(id);
        }
    }

    /// Asks what comes next while nothing is awaited; writes the response when nothing is left.
    fn go_on(&mut self, id: AskId) {
        loop {
            let call = self.calls.0.of_mut(id);
            if call.left > 0 {
                return;
            }
            let Some(ask) = call.asks.pop_front() else {
                break;
            };
            let mut fetch = None;
            for (leaf, to_log) in ask.to_log {
                let waiting = Waiting::Api { call: id, leaf };
                let timeout = self.config.durable.append_timeout;
                let asked = match to_log {
                    AskLog::Append(draft) => {
                        let clock = (self.now, &mut self.rng);
                        self.log.append(clock, timeout, (waiting, None), draft)
                    }
                    AskLog::Trim(channel) => self.log.trim(self.now, waiting, channel),
                    AskLog::Round(method, tenant, data) => {
                        let caller = Caller::Service;
                        let ask = LogAsk {
                            method,
                            tenant,
                            data,
                            caller,
                        };
                        let asked = self.log.ask(self.now, waiting, None, ask);
                        if let (Ok(request), LogMethod::Fetch) = (&asked, method) {
                            fetch = Some((call.conn, *request));
                        }
                        asked.map(|_| ())
                    }
                };
                match asked {
                    Ok(()) => {
                        call.left += 1;
                        call.owed[leaf as usize] += 1;
                    }
                    Err(error) => call.leaves[leaf as usize] = Err(ApiError::Log(error)),
                }
            }
            if let Some((conn, request)) = fetch {
                self.fetch_begins(conn, request);
            }
            let call = self.calls.0.of_mut(id);
            for (shard, items) in ask.shards.into_iter().enumerate() {
                if items.is_empty() {
                    continue;
                }
                for (leaf, _) in &items {
                    call.owed[*leaf as usize] += 1;
                }
                let commands = Message::Commands(CommandsFor(id), items);
                match self.mesh.command(ShardId(shard as u16), commands) {
                    Ok(()) => call.left += 1,
                    Err(refused) => {
                        self.counters.refused_mesh += 1;
                        if let Message::Commands(_, items) = refused {
                            for (leaf, _) in items {
                                call.owed[leaf as usize] -= 1;
                                call.leaves[leaf as usize] = Err(ApiError::Internal);
                            }
                        }
                    }
                }
            }
        }
        let Some(call) = self.calls.0.close(id) else {
            unreachable!("it was there just now");
        };
        self.answer_call(call);
    }

    /// Calls that others have not answered in time: the response says so where it lacks something.
    pub(super) fn calls_overdue(&mut self) {
        self.waits_overdue();
        while let Some((_, mut call)) = self.calls.0.next_overdue(self.now.at) {
            self.counters.asks_overdue += 1;
            for (leaf, _) in call.owed.iter().enumerate().filter(|&(_, &owed)| owed > 0) {
                call.leaves[leaf] = Err(ApiError::Internal);
            }
            for ask in std::mem::take(&mut call.asks) {
                let to_log = ask.to_log.iter().map(|&(leaf, _)| leaf);
                let to_shards = ask.shards.iter().flatten().map(|&(leaf, _)| leaf);
                for leaf in to_log.chain(to_shards) {
                    call.leaves[leaf as usize] = Err(ApiError::Internal);
                }
            }
            self.abandon_fetch(call.conn.slot);
            self.answer_call(call);
        }
    }

    /// A shard has answered everything it was asked.
    pub(super) fn api_answered(&mut self, ask: CommandsFor, answers: Answers) {
        let CommandsFor(id) = ask;
        let Some(call) = self.calls.0.kept_mut(id) else {
            self.counters.stale_answers += 1;
            return;
        };
        for (item, answered) in answers {
            let leaf = &mut call.leaves[item as usize];
            call.owed[item as usize] -= 1;
            match answered {
                Answered::Published(result) => *leaf = published(result),
                Answered::Query(answer) => *leaf = queried(answer),
                // The answer stands there already, or that a shard could not be asked.
                Answered::User | Answered::Revoked(true) => {}
                Answered::Revoked(false) => *leaf = Err(ApiError::LimitExceeded),
                Answered::Gathered(gathered) => call.gathered.push((item, gathered)),
            }
        }
        call.left -= 1;
        self.go_on(id);
    }

    /// The log has answered a publication of a call.
    pub(super) fn api_appended(
        &mut self,
        id: AskId,
        leaf: u32,
        result: Result<Appended, LogError>,
    ) {
        let published = |appended: Appended| {
            ApiAnswer::Publish(Some(ApiPublished {
                position: appended.position,
                event: appended.event,
                due_ms: appended.due_ms,
            }))
        };
        let answer = result.map(published).map_err(ApiError::Log);
        self.api_leaf(id, leaf, answer);
    }

    /// The log's side has answered a question of a call.
    pub(super) fn api_log_answered(
        &mut self,
        request: RequestId,
        id: AskId,
        leaf: u32,
        result: Result<Bytes, LogError>,
    ) {
        let conn = self.calls.0.kept(id).map(|call| call.conn);
        let result = match (conn, result) {
            (Some(conn), Ok(json)) => Ok(self.fetch_answered(conn, request, json)),
            (Some(conn), Err(error)) => {
                self.fetch_failed(conn, request);
                Err(error)
            }
            (None, result) => result,
        };
        let answer = result.map(ApiAnswer::Log).map_err(ApiError::Log);
        self.api_leaf(id, leaf, answer);
    }

    fn api_leaf(&mut self, id: AskId, leaf: u32, answer: Result<ApiAnswer, ApiError>) {
        let Some(call) = self.calls.0.kept_mut(id) else {
            self.counters.stale_answers += 1;
            return;
        };
        call.owed[leaf as usize] -= 1;
        let place = &mut call.leaves[leaf as usize];
        // What was removed from memory says so already; the log only confirms it.
        let keeps = matches!(place, Ok(ApiAnswer::HistoryRemove)) && answer.is_ok();
        if !keeps {
            *place = answer;
        }
        call.left -= 1;
        self.go_on(id);
    }

    fn answer_call(&mut self, mut call: ApiCall) {
        // Whoever asked may have gone meanwhile.
        if !self.awaits_answer(call.conn) {
            return;
        }
        let slot = call.conn.slot;
        call.complete(u64::from(self.now.at.secs()), &self.uid);
        let mut answers: Vec<_> = std::mem::take(&mut call.plan)
            .into_iter()
            .map(|plan| call.answer(plan))
            .collect();
        self.counters.api_errors += answers.iter().filter(|answer| answer.is_err()).count() as u64;
        if matches!(call.form, ResponseForm::Batch) {
            answers = vec![Ok(ApiAnswer::Batch(answers))];
        }
        let mut out = Vec::new();
        let mut status = 200;
        for (index, answer) in answers.iter().enumerate() {
            let shape = match &call.form {
                ResponseForm::Single | ResponseForm::Batch => ApiForm::Single,
                ResponseForm::Transport => {
                    status = answer
                        .as_ref()
                        .err()
                        .map_or(200, |error| error.http_status());
                    ApiForm::Transport
                }
                ResponseForm::Legacy(ids) => ApiForm::Legacy(ids[index]),
            };
            if index > 0 {
                out.push(b'\n');
            }
            encode_answer(&mut out, answer, shape);
        }
        self.respond(slot, status, JSON, &out);
    }
}

fn published(result: Result<StreamPosition, PublishError>) -> Result<ApiAnswer, ApiError> {
    match result {
        Ok(position) => Ok(ApiAnswer::Publish((position.offset.0 > 0).then_some(
            ApiPublished {
                position,
                event: None,
                due_ms: 0,
            },
        ))),
        Err(PublishError::UnknownChannel) => Err(ApiError::UnknownChannel),
        // A service is not held back.
        Err(PublishError::Overloaded | PublishError::TooManyNew) => Err(ApiError::Internal),
        Err(PublishError::TooFast(ms)) => Err(ApiError::TooFast(ms)),
        Err(PublishError::TenantFull) => Err(ApiError::LimitExceeded),
    }
}

fn queried(answer: AnswerKind) -> Result<ApiAnswer, ApiError> {
    match answer {
        AnswerKind::Presence(list, next) => Ok(ApiAnswer::Presence(list, next)),
        AnswerKind::PresenceTooLarge => Err(ApiError::LimitExceeded),
        AnswerKind::PresenceStats { clients, users } => Ok(ApiAnswer::PresenceStats {
            num_clients: clients,
            num_users: users,
        }),
        AnswerKind::History(publications, position, _) => Ok(ApiAnswer::History {
            publications,
            position,
        }),
        AnswerKind::Unrecoverable => Err(ApiError::UnrecoverablePosition),
        AnswerKind::Removed => Ok(ApiAnswer::HistoryRemove),
        AnswerKind::Overloaded => Err(ApiError::Internal),
    }
}

impl ApiCall {
    /// Makes one answer of what all shards said, for each leaf that asked them.
    fn complete(&mut self, uptime_s: u64, uid: &str) {
        // What one leaf asked stands together, and every leaf is looked at once.
        self.gathered.sort_by_key(|(leaf, _)| *leaf);
        for group in self.gathered.chunk_by(|(a, _), (b, _)| a == b) {
            match &mut self.leaves[group[0].0 as usize] {
                Ok(ApiAnswer::Channels(channels)) => *channels = listed(group),
                Ok(ApiAnswer::Info(nodes)) => *nodes = vec![node(group, uptime_s, uid)],
                Ok(_) | Err(_) => {}
            }
        }
    }

    fn answer(&mut self, plan: Plan) -> Result<ApiAnswer, ApiError> {
        let mut take =
            |index: usize| std::mem::replace(&mut self.leaves[index], Err(ApiError::Internal));
        match plan {
            Plan::Leaf(index) => take(index),
            Plan::Broadcast(range) => Ok(ApiAnswer::Broadcast(
                range
                    .map(|index| match take(index) {
                        Ok(ApiAnswer::Publish(position)) => Ok(position),
                        Err(error) => Err(error),
                        Ok(_) => Err(ApiError::Internal),
                    })
                    .collect(),
            )),
        }
    }
}

fn listed(group: &[(u32, Box<Gathered>)]) -> Vec<(ChannelName, u32)> {
    let mut counts = std::collections::BTreeMap::<&ChannelName, u32>::new();
    for (name, count) in group.iter().flat_map(|(_, gathered)| &gathered.channels) {
        *counts.entry(name).or_default() += count;
    }
    counts
        .into_iter()
        .map(|(name, count)| (name.clone(), count))
        .collect()
}

fn node(group: &[(u32, Box<Gathered>)], uptime_s: u64, uid: &str) -> NodeInfo {
    let sum = |field: fn(&Gathered) -> u32| {
        group
            .iter()
            .map(|(_, gathered)| u64::from(field(gathered)))
            .sum()
    };
    let mut metrics = vec![0u64; DESCRIPTIONS.len()];
    for (_, gathered) in group {
        for (sum, value) in metrics.iter_mut().zip(Counters::values(&gathered.counters)) {
            *sum = sum.saturating_add(value);
        }
    }
    NodeInfo {
        uid: uid.to_owned(),
        name: "ringmain".to_owned(),
        num_clients: sum(|gathered| gathered.clients),
        num_users: UserCount::union(group.iter().map(|(_, gathered)| &gathered.users)),
        num_channels: sum(|gathered| gathered.channels_active),
        num_subs: sum(|gathered| gathered.subscriptions),
        uptime_s,
        metrics: DESCRIPTIONS
            .iter()
            .map(|(_, name, _)| *name)
            .zip(metrics)
            .collect(),
    }
}

/// The requests of a body in order, and whether the order matters.
type RequestList<'a> = (ResponseForm, bool, Vec<Result<Request<'a>, ApiError>>);

fn requests<'a>(
    method: Option<&str>,
    body: &'a [u8],
    transport_errors: bool,
) -> Result<RequestList<'a>, ApiDecodeError> {
    let Some(method) = method else {
        let commands = decode_legacy(body)?;
        let ids = commands.iter().map(|command| command.id).collect();
        return Ok((
            ResponseForm::Legacy(ids),
            false,
            commands
                .into_iter()
                .map(|command| command.request)
                .collect(),
        ));
    };
    if let Some(method) = LogMethod::of_api(method) {
        if body.is_empty() {
            return Err(ApiDecodeError::EmptyBody);
        }
        let form = if transport_errors {
            ResponseForm::Transport
        } else {
            ResponseForm::Single
        };
        return Ok((form, false, vec![Ok(Request::Log(method, body))]));
    }
    Ok(match decode(method, body)? {
        Ok(Request::Batch(batch)) => (ResponseForm::Batch, batch.parallel, batch.commands),
        request => (
            if transport_errors {
                ResponseForm::Transport
            } else {
                ResponseForm::Single
            },
            false,
            vec![request],
        ),
    })
}

#[cfg(test)]
mod tests;
