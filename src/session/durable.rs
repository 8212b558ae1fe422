//! Publications that must not be lost, and what else is asked of the log: what is under way, and who waits for it.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;

use super::order::Group;
use super::publish::check_name;
use super::shares::{Holders, Shares, Whose};
use super::{Context, Session, refused};
use crate::auth::permission;
use crate::config::Unfit;
use crate::limits::IDEMPOTENCY_KEY_BYTES_MAX;
use crate::mem::{Rng, Slab, SlotPool};
use crate::mesh::durable::{
    APPEND_BYTES_MAX, APPENDS_MAX, ASKS_MAX, Appended, Ask, Caller, LogError, Method, Read,
    RequestId, ToLog,
};
use crate::mesh::message::{CallId, PublishFor};
use crate::model::{
    ChannelName, ChosenError, ConnId, ConsumeGrant, Draft, EventId, StreamPosition,
};
use crate::protocol::centrifuge::json;
use crate::protocol::error::ClientError;
use crate::protocol::push::ReplyBody;
use crate::time::{Instant, Now};
use crate::wire::json::{fields, object};

/// What a publisher is told to wait when too much is under way.
pub const BUSY_RETRY: Duration = Duration::from_millis(200);
/// What it is told when the log did not answer in time.
pub const TIMEOUT_RETRY: Duration = Duration::from_secs(1);

/// Who waits for an answer of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// A client's publish command.
    Publish {
        /// Its connection.
        conn: ConnId,
        /// Its command.
        id: u32,
    },
    /// `ringmain.publish`
    RpcPublish {
        /// Its connection.
        conn: ConnId,
        /// Its command.
        id: u32,
    },
    /// Another RPC that the log's side answers.
    Rpc {
        /// Its connection.
        conn: ConnId,
        /// Its command.
        id: u32,
    },
    /// `ringmain.fetch`
    RpcFetch {
        /// Its connection.
        conn: ConnId,
        /// Its command.
        id: u32,
    },
    /// A part of a server API call.
    Api {
        /// The call.
        call: CallId,
        /// Which part.
        leaf: u32,
    },
    /// The owner of a channel reads.
    Owner,
}

struct Request {
    waiting: Waiting,
    /// Of the record.
    bytes: usize,
    /// Who has a share in it.
    holders: Holders,
    is_append: bool,
    /// Whoever waited was told that it took too long.
    is_overdue: bool,
}

/// Requests of one shard.
pub struct Requests {
    requests: Slab<Request>,
    slots: SlotPool,
    outgoing: VecDeque<ToLog>,
    appends: usize,
    asks: usize,
    bytes: usize,
    /// One client must not use up what the shard has: appends, and questions.
    shares: [Shares; 2],
    /// Appends in the order in which they become overdue.
    overdue: VecDeque<(Instant, RequestId)>,
}

impl Default for Requests {
    fn default() -> Self {
        Self {
            requests: Slab::default(),
            slots: SlotPool::new((APPENDS_MAX + ASKS_MAX) as u32),
            outgoing: VecDeque::new(),
            appends: 0,
            asks: 0,
            bytes: 0,
            shares: [
                Shares::new(ASKS_MAX, usize::MAX),
                Shares::new(APPENDS_MAX, APPEND_BYTES_MAX),
            ],
            overdue: VecDeque::new(),
        }
    }
}

impl Requests {
    /// Asks the log to keep a publication, for a client or for a service. It is taken in now, and gets its event id.
    ///
    /// # Errors
    /// `LogError::Busy` when too much is under way.
    pub fn append(
        &mut self,
        (now, rng): (Now, &mut Rng),
        timeout: Duration,
        (waiting, whose): (Waiting, Option<Whose<'_>>),
        mut draft: Box<Draft>,
    ) -> Result<(), LogError> {
        draft.record.event = EventId::new(now.unix_ms, rng.wide_bits());
        draft.record.unix_ms = now.unix_ms;
        let bytes = draft.record.bytes();
        let busy = LogError::Busy {
            retry_after: BUSY_RETRY,
        };
        if self.appends >= APPENDS_MAX || self.bytes + bytes > APPEND_BYTES_MAX {
            return Err(busy);
        }
        let id = self.begin(waiting, whose, bytes, true).ok_or(busy)?;
        self.appends += 1;
        self.bytes += bytes;
        self.overdue.push_back((now.at + timeout, id));
        self.outgoing.push_back(ToLog::Append(id, draft));
        Ok(())
    }

    fn begin(
        &mut self,
        waiting: Waiting,
        whose: Option<Whose<'_>>,
        bytes: usize,
        is_append: bool,
    ) -> Option<RequestId> {
        let shares = &mut self.shares[usize::from(is_append)];
        let holders = match whose {
            Some(whose) => shares.take_kept(&whose, bytes)?,
            None => Holders::new(),
        };
        let Some(slot) = self.slots.take() else {
            shares.give_kept(&holders, bytes);
            return None;
        };
        let generation = self.requests.insert_at(
            slot,
            Request {
                waiting,
                bytes,
                holders,
                is_append,
                is_overdue: false,
            },
        );
        Some(RequestId { slot, generation })
    }

    fn ask_with(
        &mut self,
        waiting: Waiting,
        whose: Option<Whose<'_>>,
        request: impl FnOnce(RequestId) -> ToLog,
    ) -> Result<RequestId, LogError> {
        let busy = LogError::Busy {
            retry_after: BUSY_RETRY,
        };
        if self.asks >= ASKS_MAX {
            return Err(busy);
        }
        let id = self.begin(waiting, whose, 0, false).ok_or(busy)?;
        self.asks += 1;
        self.outgoing.push_back(request(id));
        Ok(id)
    }

    /// Asks something that the log's side answers in JSON, for a client or for a service.
    ///
    /// # Errors
    /// `LogError::Busy` when too much is under way.
    pub fn ask(
        &mut self,
        waiting: Waiting,
        whose: Option<Whose<'_>>,
        ask: Ask,
    ) -> Result<RequestId, LogError> {
        self.ask_with(waiting, whose, |id| ToLog::Ask(id, Box::new(ask)))
    }

    /// Asks the log to forget what a channel has kept.
    ///
    /// # Errors
    /// `LogError::Busy` when too much is under way.
    pub fn trim(&mut self, waiting: Waiting, channel: ChannelName) -> Result<(), LogError> {
        self.ask_with(waiting, None, |id| ToLog::Trim(id, channel))
            .map(|_| ())
    }

    /// Reads for the owner of a channel.
    ///
    /// # Errors
    /// `LogError::Busy` when too much is under way.
    pub fn read(&mut self, read: Read) -> Result<(), LogError> {
        self.ask_with(Waiting::Owner, None, |id| ToLog::Read(id, read))
            .map(|_| ())
    }

    /// A worker's connection is gone.
    pub fn gone(&mut self, conn: ConnId) {
        self.outgoing.push_back(ToLog::Gone(conn));
    }

    /// Nobody waits for the answer to a question any more, or it did not get there.
    pub fn abandoned(&mut self, id: RequestId) {
        self.outgoing.push_back(ToLog::Abandoned(id));
    }

    /// The answer to a fetch is with its caller.
    pub fn taken(&mut self, id: RequestId) {
        self.outgoing.push_back(ToLog::Taken(id));
    }

    /// Nobody on this shard can wait any longer.
    pub fn hurry(&mut self) {
        self.outgoing.push_back(ToLog::Hurry);
    }

    /// The next request to hand over.
    pub fn pop(&mut self) -> Option<ToLog> {
        self.outgoing.pop_front()
    }

    /// An answer came. Who waits for it; `None` if nobody does any more.
    pub fn answered(&mut self, id: RequestId) -> Option<Waiting> {
        self.requests.current(id.slot, id.generation)?;
        let request = self.requests.remove(id.slot)?;
        self.slots.give(id.slot);
        self.shares[usize::from(request.is_append)].give_kept(&request.holders, request.bytes);
        if request.is_append {
            self.appends -= 1;
            self.bytes -= request.bytes;
        } else {
            self.asks -= 1;
        }
        (!request.is_overdue).then_some(request.waiting)
    }

    /// An append that has taken too long: whoever waits is told so, once. Its place is free when the log has answered.
    pub fn next_overdue(&mut self, now: Instant) -> Option<Waiting> {
        while let Some(&(at, id)) = self.overdue.front() {
            let Some(request) = self.requests.current_mut(id.slot, id.generation) else {
                self.overdue.pop_front();
                continue;
            };
            if at > now {
                return None;
            }
            self.overdue.pop_front();
            request.is_overdue = true;
            return Some(request.waiting.clone());
        }
        None
    }

    /// When the next append may become overdue.
    #[must_use]
    pub fn next_at(&self) -> Option<Instant> {
        self.overdue.front().map(|&(at, _)| at)
    }

    /// Appends under way, answered to whoever waited or not.
    #[must_use]
    pub const fn appends(&self) -> usize {
        self.appends
    }

    /// Appends whose publishers still wait.
    #[must_use]
    pub fn unanswered(&self) -> usize {
        self.requests
            .iter()
            .filter(|(_, request)| request.is_append && !request.is_overdue)
            .count()
    }

    /// Clients whose question or publication is not answered.
    #[must_use]
    pub fn clients(&self) -> BTreeSet<ConnId> {
        let waiting = self.requests.iter().filter(|(_, one)| !one.is_overdue);
        waiting
            .filter_map(|(_, request)| match request.waiting {
                Waiting::Publish { conn, .. }
                | Waiting::RpcPublish { conn, .. }
                | Waiting::Rpc { conn, .. }
                | Waiting::RpcFetch { conn, .. } => Some(conn),
                Waiting::Api { .. } | Waiting::Owner => None,
            })
            .collect()
    }

    /// Reads and questions under way.
    #[must_use]
    pub const fn asks(&self) -> usize {
        self.asks
    }
}

/// Parameters of `ringmain.publish`.
#[derive(Default)]
struct RpcPublish<'a> {
    channel: Cow<'a, str>,
    data: &'a [u8],
    b64data: Option<Cow<'a, str>>,
    key: Box<str>,
    schema: u32,
    tags: Vec<(Cow<'a, str>, Cow<'a, str>)>,
    trace: Box<str>,
    delta: bool,
}
fields!(@Own RpcPublish<'de> {
    "channel" => channel,
    "data" => data,
    "b64data" => b64data,
    "key" => key,
    "schema" => schema,
    "tags" => tags,
    "trace" => trace,
    "delta" => delta,
});

impl RpcPublish<'_> {
    /// The payload, and whether it is JSON. `null` is a payload where there is no other.
    fn payload(&self) -> Result<(Vec<u8>, bool), RpcRefusal> {
        let raw = (!self.data.is_empty()).then_some(self.data);
        match (raw, &self.b64data) {
            (Some(data), None) => Ok((json::compact(data).into_owned(), true)),
            (None | Some(b"null"), Some(text)) => {
                use base64::Engine as _;
                let data = base64::engine::general_purpose::STANDARD
                    .decode(text.as_bytes())
                    .map_err(|_malformed| {
                        RpcRefusal::Said("b64data: expected standard base64".into())
                    })?;
                let json = json::is_json(&data);
                Ok((data, json))
            }
            (Some(_), Some(_)) => Err(RpcRefusal::Said(
                "`data` and `b64data` exclude each other".into(),
            )),
            (None, None) => Err(RpcRefusal::Said("`data` is missing".into())),
        }
    }
}

impl RpcPublish<'_> {
    fn check(&self) -> Result<(), RpcRefusal> {
        // A client does not make a shard hash keys of any length.
        if self.channel.is_empty() {
            Err(RpcRefusal::Said("`channel` is missing".into()))
        } else if self.key.len() > IDEMPOTENCY_KEY_BYTES_MAX {
            let says = format!("key: expected at most {IDEMPOTENCY_KEY_BYTES_MAX} bytes");
            Err(RpcRefusal::Said(says.into()))
        } else {
            Ok(())
        }
    }
}

/// Why a method of this program's own is not carried out.
enum RpcRefusal {
    /// As every command.
    Plain(ClientError),
    /// Parameters are not as they must be: 107, with what is wrong.
    Said(Box<str>),
}

impl From<Unfit> for RpcRefusal {
    fn from(unfit: Unfit) -> Self {
        match ClientError::from(unfit) {
            ClientError::BadRequest => Self::Said(format!("{}: {unfit}", unfit.member()).into()),
            error => Self::Plain(error),
        }
    }
}

impl From<ClientError> for RpcRefusal {
    fn from(error: ClientError) -> Self {
        Self::Plain(error)
    }
}

/// What a client is told of a publication that it made by RPC.
#[must_use]
pub fn published_json(position: StreamPosition, event: Option<EventId>) -> Vec<u8> {
    let mut out = Vec::with_capacity(112);
    out.push(b'{');
    if position.offset.0 > 0 {
        out.extend_from_slice(b"\"offset\":");
        out.extend_from_slice(itoa::Buffer::new().format(position.offset.0).as_bytes());
        out.extend_from_slice(b",\"epoch\":\"");
        out.extend_from_slice(position.epoch.as_str().as_bytes());
        out.push(b'"');
    }
    if let Some(event) = event {
        if out.len() > 1 {
            out.push(b',');
        }
        out.extend_from_slice(b"\"event_id\":\"");
        out.extend_from_slice(event.to_string().as_bytes());
        out.push(b'"');
    }
    out.push(b'}');
    out
}

/// The same for a result of the log.
#[must_use]
pub fn appended_json(appended: Appended) -> Vec<u8> {
    published_json(appended.position, appended.event)
}

impl Session {
    /// A method of this program's own, over RPC.
    pub(super) fn rpc_own(
        &mut self,
        context: &mut Context<'_>,
        id: u32,
        method: &str,
        data: &[u8],
    ) {
        match self.try_rpc_own(context, id, method, data) {
            // A fetch waits for deliveries: nothing behind it waits for it.
            Ok(()) if method == "ringmain.fetch" => {}
            Ok(()) => context.awaits = Some(Group::Apart),
            Err(RpcRefusal::Plain(error)) => context.error(id, error),
            Err(RpcRefusal::Said(what)) => {
                context.counters.command_errors += 1;
                let chosen = ChosenError {
                    code: ClientError::BadRequest.code(),
                    message: format!("{}: {what}", ClientError::BadRequest.message()).into(),
                    temporary: false,
                };
                context.reply(id, ReplyBody::ChosenError(&chosen));
            }
        }
    }

    fn try_rpc_own(
        &mut self,
        context: &mut Context<'_>,
        id: u32,
        method: &str,
        data: &[u8],
    ) -> Result<(), RpcRefusal> {
        if method == "ringmain.publish" {
            return self.rpc_publish(context, id, data);
        }
        let method = Method::of_rpc(method).ok_or(ClientError::MethodNotFound)?;
        if !context.config.is_durable() {
            return Err(ClientError::NotAvailable.into());
        }
        let takes = matches!(method, Method::Consume | Method::Fetch);
        if takes && self.grants().is_empty() && !context.config.client.insecure {
            return Err(ClientError::PermissionDenied.into());
        }
        let grants = if context.config.client.insecure {
            std::sync::Arc::from([ConsumeGrant {
                groups: "*".into(),
                channels: Box::new(["*".into()]),
            }])
        } else {
            self.grants()
        };
        let ask = Ask {
            method,
            data: Bytes::copy_from_slice(data),
            caller: Caller::Client {
                conn: context.conn,
                client: self.client,
                user: self.user.clone(),
                grants,
            },
        };
        let conn = context.conn;
        let waiting = if method == Method::Fetch {
            Waiting::RpcFetch { conn, id }
        } else {
            Waiting::Rpc { conn, id }
        };
        context
            .log
            .ask(waiting, Some(self.whose(context.conn, context.prefix)), ask)
            .map_err(|error| ClientError::of_log(&error))?;
        self.rare.get_or_insert_default().is_worker |= takes;
        Ok(())
    }

    fn grants(&self) -> std::sync::Arc<[ConsumeGrant]> {
        let grants = self.rare.as_ref().and_then(|rare| rare.grants.clone());
        grants.unwrap_or_default()
    }

    /// Publishes with a key, a schema version, tags.
    fn rpc_publish(
        &mut self,
        context: &mut Context<'_>,
        id: u32,
        data: &[u8],
    ) -> Result<(), RpcRefusal> {
        let asked: RpcPublish<'_> =
            object(data).map_err(|error| RpcRefusal::Said(error.to_string().into()))?;
        let (payload, json) = asked.payload()?;
        asked.check()?;
        let at = self.find(context, &asked.channel);
        check_name(context, &asked.channel, at.is_some())?;
        let namespace = context
            .config
            .channels
            .resolve(&asked.channel)
            .map_err(|_unknown| ClientError::UnknownChannel)?;
        if namespace.publish_proxy_enabled {
            // The backend decides about publish commands; another way in would go around it.
            return Err(ClientError::NotAvailable.into());
        }
        let asker = self.asker(context, at.is_some());
        permission::may_publish(namespace, &asker).map_err(refused)?;
        let channel = self.name_of(context, &asked.channel, at);
        let draft = Draft::new(namespace.terms(), channel, payload.into(), json);
        let mut draft = Box::new(draft);
        draft.record.key = asked.key;
        draft.record.schema = asked.schema;
        draft.record.trace = asked.trace;
        draft.record.delta = asked.delta;
        // Of a name that stands twice the last counts.
        let tags: BTreeMap<_, _> = asked.tags.into_iter().collect();
        draft.record.tags = tags
            .into_iter()
            .map(|(name, value)| (name.into(), value.into()))
            .collect();
        context.config.check_draft(namespace, &draft)?;
        if namespace.rate > 0 && !self.take_rate(context.now.at.secs(), namespace.rate) {
            return Err(ClientError::TooManyRequests.into());
        }
        let conn = context.conn;
        let by_rpc = true;
        self.send(context, PublishFor { conn, id, by_rpc }, at, draft)?;
        Ok(())
    }
}
