//! Publications that must not be lost, and what else is asked of the log: what is under way, and who waits for it.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;

use super::order::Together;
use super::publish::check_name;
use super::{Context, Session, refused};
use crate::auth::permission;
use crate::config::{Namespace, Unfit, due_ms};
use crate::limits::{
    IDEMPOTENCY_KEY_BYTES_MAX, LOG_APPEND_BYTES_MAX, LOG_APPENDS_MAX, LOG_ASK_TIMEOUT,
    LOG_ASKS_MAX, LOG_READ_TIMEOUT, LOG_READS_MAX,
};
use crate::mem::{Asks, Full, Rng, SharedAsks, Whose};
use crate::mesh::durable::{Appended, Ask, Caller, LogError, LogMethod, Read, RequestId, ToLog};
use crate::mesh::message::PublishFor;
use crate::model::{
    AskId, ChannelName, ChosenError, ClientId, ConnId, ConsumeGrant, Draft, EventId,
    StreamPosition, key_of_client,
};
use crate::protocol::error::ClientError;
use crate::protocol::push::ReplyBody;
use crate::time::{Instant, Now};
use crate::wire::json::write::Members;
use crate::wire::json::{compact, fields, is_json, object};

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
        call: AskId,
        /// Which part.
        leaf: u32,
    },
}

/// Requests of one shard. Each has its place until the log has answered, also when whoever waited was told that it takes too
/// long: it may stand in the log's queue as long.
pub struct Requests {
    appends: SharedAsks<Option<Waiting>>,
    asks: SharedAsks<Option<Waiting>>,
    /// For the channels that are read.
    reads: Asks<Option<ChannelName>>,
    outgoing: VecDeque<ToLog>,
}

impl Default for Requests {
    fn default() -> Self {
        Self {
            appends: SharedAsks::new(LOG_APPENDS_MAX as u32, LOG_APPEND_BYTES_MAX),
            asks: SharedAsks::new(LOG_ASKS_MAX as u32, usize::MAX),
            reads: Asks::new(LOG_READS_MAX as u32, usize::MAX),
            outgoing: VecDeque::new(),
        }
    }
}

const fn busy(_full: Full) -> LogError {
    LogError::Busy {
        retry_after: BUSY_RETRY,
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
        let until = now.at + timeout;
        let opened = (self.appends).open(until, whose.as_ref(), bytes, Some(waiting));
        let id = opened.map(RequestId).map_err(busy)?;
        self.outgoing.push_back(ToLog::Append(id, draft));
        Ok(())
    }

    fn ask_with(
        &mut self,
        now: Now,
        waiting: Waiting,
        whose: Option<Whose<'_>>,
        request: impl FnOnce(RequestId) -> ToLog,
    ) -> Result<RequestId, LogError> {
        let until = now.at + LOG_ASK_TIMEOUT;
        let opened = self.asks.open(until, whose.as_ref(), 0, Some(waiting));
        let id = opened.map(RequestId).map_err(busy)?;
        self.outgoing.push_back(request(id));
        Ok(id)
    }

    /// Asks something that the log's side answers in JSON, for a client or for a service.
    ///
    /// # Errors
    /// `LogError::Busy` when too much is under way.
    pub fn ask(
        &mut self,
        now: Now,
        waiting: Waiting,
        whose: Option<Whose<'_>>,
        ask: Ask,
    ) -> Result<RequestId, LogError> {
        self.ask_with(now, waiting, whose, |id| ToLog::Ask(id, Box::new(ask)))
    }

    /// Asks the log to forget what a channel has kept.
    ///
    /// # Errors
    /// `LogError::Busy` when too much is under way.
    pub fn trim(
        &mut self,
        now: Now,
        waiting: Waiting,
        channel: ChannelName,
    ) -> Result<(), LogError> {
        self.ask_with(now, waiting, None, |id| ToLog::Trim(id, channel))
            .map(|_| ())
    }

    /// Reads for the owner of a channel.
    ///
    /// # Errors
    /// `LogError::Busy` when too much is under way.
    pub fn read(&mut self, now: Now, read: Read) -> Result<(), LogError> {
        let until = now.at + LOG_READ_TIMEOUT;
        let opened = self.reads.open(until, 0, Some(read.channel.clone()));
        let id = opened.map(RequestId).map_err(busy)?;
        self.outgoing.push_back(ToLog::Read(id, read));
        Ok(())
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

    /// An append is answered. Who waits for that; `None` if nobody does any more.
    pub fn appended(&mut self, id: RequestId) -> Option<Waiting> {
        self.appends.close(id.0)?
    }

    /// A question is answered. Likewise.
    pub fn answered(&mut self, id: RequestId) -> Option<Waiting> {
        self.asks.close(id.0)?
    }

    /// A reading is over. `false` if its owner has given it up.
    pub fn was_read(&mut self, id: RequestId) -> bool {
        self.reads.close(id.0).flatten().is_some()
    }

    /// An append that takes too long: whoever waits is told so, once.
    pub fn next_late_append(&mut self, now: Instant) -> Option<Waiting> {
        self.appends.next_late(now)?.1.take()
    }

    /// A question that takes too long. Likewise; the log's side is told.
    pub fn next_late_ask(&mut self, now: Instant) -> Option<(RequestId, Waiting)> {
        let (id, waiting) = self.asks.next_late(now)?;
        let late = (RequestId(id), waiting.take()?);
        self.abandoned(late.0);
        Some(late)
    }

    /// A channel of which a reading takes too long.
    pub fn next_late_read(&mut self, now: Instant) -> Option<ChannelName> {
        self.reads.next_late(now)?.1.take()
    }

    /// When the next one takes too long.
    #[must_use]
    pub fn next_at(&self) -> Option<Instant> {
        let all = [
            self.appends.next_at(),
            self.asks.next_at(),
            self.reads.next_at(),
        ];
        all.into_iter().flatten().min()
    }

    /// Appends under way, answered to whoever waited or not.
    #[must_use]
    pub const fn appends(&self) -> usize {
        self.appends.len()
    }

    /// Appends whose publishers still wait.
    #[must_use]
    pub fn unanswered(&self) -> usize {
        self.appends.iter().flatten().count()
    }

    /// Clients whose question or publication is not answered.
    #[must_use]
    pub fn clients(&self) -> BTreeSet<ConnId> {
        let waiting = self.appends.iter().chain(self.asks.iter()).flatten();
        waiting
            .filter_map(|waiting| match *waiting {
                Waiting::Publish { conn, .. }
                | Waiting::RpcPublish { conn, .. }
                | Waiting::Rpc { conn, .. }
                | Waiting::RpcFetch { conn, .. } => Some(conn),
                Waiting::Api { .. } => None,
            })
            .collect()
    }

    /// Reads and questions under way.
    #[must_use]
    pub const fn asks(&self) -> usize {
        self.asks.len() + self.reads.len()
    }
}

/// Nothing of it has an image: see `shard/image`.
impl Requests {
    /// Nothing is asked.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        let Self {
            appends,
            asks,
            reads,
            outgoing,
        } = self;
        appends.is_empty() && asks.is_empty() && reads.is_empty() && outgoing.is_empty()
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
    deliver_at: u64,
    delay_ms: u64,
    ttl_ms: u64,
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
    "deliver_at" => deliver_at,
    "delay_ms" => delay_ms,
    "ttl_ms" => ttl_ms,
});

impl RpcPublish<'_> {
    /// The payload, and whether it is JSON. `null` is a payload where there is no other.
    fn payload(&self) -> Result<(Vec<u8>, bool), RpcRefusal> {
        let raw = (!self.data.is_empty()).then_some(self.data);
        match (raw, &self.b64data) {
            (Some(data), None) => Ok((compact(data).into_owned(), true)),
            (None | Some(b"null"), Some(text)) => {
                use base64::Engine as _;
                let data = base64::engine::general_purpose::STANDARD
                    .decode(text.as_bytes())
                    .map_err(|_malformed| {
                        RpcRefusal::Said("b64data: expected standard base64".into())
                    })?;
                let json = is_json(&data);
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
        if self.key.len() > IDEMPOTENCY_KEY_BYTES_MAX {
            let says = format!("key: expected at most {IDEMPOTENCY_KEY_BYTES_MAX} bytes");
            Err(RpcRefusal::Said(says.into()))
        } else {
            Ok(())
        }
    }
}

/// What a permission depends on. The desk reads all of it, strictly.
#[derive(Default)]
struct RpcIn<'a> {
    channel: Cow<'a, str>,
}
fields!(RpcIn<'de> { "channel" => channel });

/// `ringmain.presence`
#[derive(Default)]
struct RpcPresence<'a> {
    channel: Cow<'a, str>,
    limit: u64,
    cursor: Cow<'a, str>,
}
fields!(RpcPresence<'de> { "channel" => channel, "limit" => limit, "cursor" => cursor });

impl<'a> RpcIn<'a> {
    fn read(data: &'a [u8]) -> Result<Self, RpcRefusal> {
        object(data).map_err(|error| RpcRefusal::Said(error.to_string().into()))
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
    let mut members = Members::open(&mut out);
    if position.offset.0 > 0 {
        members.number("offset", position.offset.0);
        members.text("epoch", position.epoch.as_str());
    }
    if let Some(event) = event {
        members.plain("event_id", &event.encode());
    }
    members.close();
    out
}

/// The same for a result of the log. What is published later has no place yet.
#[must_use]
pub fn appended_json(appended: Appended) -> Vec<u8> {
    let Some(event) = appended.event.filter(|_| appended.due_ms > 0) else {
        return published_json(appended.position, appended.event);
    };
    let mut out = Vec::with_capacity(96);
    let mut members = Members::open(&mut out);
    members.plain("event_id", &event.encode());
    members.number("deliver_at", appended.due_ms);
    members.close();
    out
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
            // It waits for what others do: nothing behind it waits for it.
            Ok(()) if matches!(method, "ringmain.fetch" | "ringmain.request") => {}
            Ok(()) => context.awaits = Some(Together::Apart),
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
        if method == "ringmain.presence" {
            return self.rpc_presence(context, id, data);
        }
        let method = LogMethod::of_rpc(method).ok_or(ClientError::MethodNotFound)?;
        if !context.config.is_durable() {
            return Err(ClientError::NotAvailable.into());
        }
        if method == LogMethod::ScheduledCancel {
            self.check_cancel(context, data)?;
        }
        if method == LogMethod::Request {
            self.may_request(context, data)?;
        }
        let takes = matches!(method, LogMethod::Consume | LogMethod::Fetch);
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
            tenant: self.tenant().as_str().into(),
            data: Bytes::copy_from_slice(data),
            caller: Caller::Client {
                conn: context.conn,
                client: self.client,
                user: self.user.name().into(),
                grants,
            },
        };
        let conn = context.conn;
        let waiting = if method == LogMethod::Fetch {
            Waiting::RpcFetch { conn, id }
        } else {
            Waiting::Rpc { conn, id }
        };
        context
            .log
            .ask(
                context.now,
                waiting,
                Some(self.whose(context.conn, context.prefix)),
                ask,
            )
            .map_err(|error| ClientError::of_log(&error))?;
        self.rare.get_or_insert_default().is_worker |= takes;
        Ok(())
    }

    /// Who is in a channel, page by page.
    fn rpc_presence(
        &self,
        context: &mut Context<'_>,
        id: u32,
        data: &[u8],
    ) -> Result<(), RpcRefusal> {
        let asked: RpcPresence<'_> =
            object(data).map_err(|error| RpcRefusal::Said(error.to_string().into()))?;
        if asked.channel.is_empty() {
            return Err(RpcRefusal::Said("`channel` is missing".into()));
        }
        let after = match &*asked.cursor {
            "" => None,
            cursor => Some(ClientId::parse(cursor).ok_or_else(|| {
                RpcRefusal::Said("cursor: expected that of the page before".into())
            })?),
        };
        let limit = u32::try_from(asked.limit).unwrap_or(u32::MAX);
        Ok(self.presence_page(context, id, &asked.channel, (limit, after))?)
    }

    /// Whoever may publish in a channel may take back what its user has published there and is not due yet. Whose it is, is
    /// looked at where it is kept.
    fn check_cancel(&self, context: &Context<'_>, data: &[u8]) -> Result<(), RpcRefusal> {
        let asked = RpcIn::read(data)?;
        self.may_publish_in(context, &asked.channel, Namespace::is_durable)?;
        Ok(())
    }

    /// Whoever asks in a channel may publish there.
    fn may_request(&mut self, context: &mut Context<'_>, data: &[u8]) -> Result<(), RpcRefusal> {
        let asked = RpcIn::read(data)?;
        let (namespace, _) = self.may_publish_in(context, &asked.channel, |_| true)?;
        self.take_publication(context, namespace)?;
        Ok(())
    }

    /// The namespace of a channel in which this client may publish by RPC, and where its subscription stands. What is asked for is
    /// available where the namespace is as it has to be.
    fn may_publish_in<'a>(
        &self,
        context: &Context<'a>,
        channel: &str,
        is_available: impl FnOnce(&Namespace) -> bool,
    ) -> Result<(&'a Namespace, Option<usize>), RpcRefusal> {
        if channel.is_empty() {
            return Err(RpcRefusal::Said("`channel` is missing".into()));
        }
        let at = self.find(context, channel);
        check_name(context, channel, at.is_some())?;
        let rules = context.rules;
        let namespace = rules
            .resolve(channel)
            .map_err(|_unknown| ClientError::UnknownChannel)?;
        // The backend decides about publish commands; another way in would go around it.
        if namespace.publish_proxy_enabled || !is_available(namespace) {
            return Err(ClientError::NotAvailable.into());
        }
        let asker = self.asker(context, at.is_some());
        permission::may_publish(namespace, &asker).map_err(refused)?;
        Ok((namespace, at))
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
        let (namespace, at) = self.may_publish_in(context, &asked.channel, |_| true)?;
        let channel = self.name_of(context, &asked.channel, at);
        let draft = Draft::new(namespace.terms(), channel, payload.into(), json);
        let mut draft = Box::new(draft);
        draft.record.key = asked.key;
        draft.record.schema = asked.schema;
        draft.record.trace = asked.trace;
        draft.record.delta = asked.delta;
        draft.record.ttl_ms = asked.ttl_ms;
        draft.due_ms = due_ms(context.now.unix_ms, asked.deliver_at, asked.delay_ms)?;
        // Of a name that stands twice the last counts.
        let tags: BTreeMap<_, _> = asked.tags.into_iter().collect();
        draft.record.tags = tags
            .into_iter()
            .map(|(name, value)| (name.into(), value.into()))
            .collect();
        context.config.check_draft(namespace, &draft)?;
        draft.record.key = key_of_client(self.user.name(), &draft.record.key);
        self.take_publication(context, namespace)?;
        let conn = context.conn;
        let by_rpc = true;
        self.send(context, PublishFor { conn, id, by_rpc }, at, draft)?;
        Ok(())
    }
}
