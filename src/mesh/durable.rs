//! Between a shard and the durable log: two bounded queues, and the bells at both ends.
//!
//! A shard has at most `LOG_APPENDS_MAX` appends, `LOG_ASKS_MAX` questions and `LOG_READS_MAX` reads under way, as many as `requests` has
//! places. What it says beside them (a worker has ended, an answer was taken or not) takes places too: whatever finds the queue
//! full waits in the reactor, in order. What comes down is never lost: where `answers` is full, the bridge keeps it and takes no new requests until there is room.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use crossbeam_queue::ArrayQueue;

use super::bell::Doorbell;
use crate::limits::{LOG_ANSWERS_MAX, LOG_APPENDS_MAX, LOG_ASKS_MAX, LOG_READS_MAX};
use crate::model::{
    AskId, ChannelName, ClientId, ConnId, ConsumeGrant, Draft, Epoch, EventId, Publication,
    StreamPosition,
};

/// Publications in one message to a shard.
pub const STORED_PER_MESSAGE: usize = 512;

/// What a shard calls a request of its own; echoed, and stale ones are ignored when they come back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RequestId(pub AskId);

/// From a shard to the log.
#[derive(Debug)]
pub enum ToLog {
    /// Keep this publication. Answered by `FromLog::Appended`.
    Append(RequestId, Box<Draft>),
    /// Answered by `FromLog::Page`.
    Read(RequestId, Read),
    /// Forget what the channel has kept up to its end. Answered by `FromLog::Answered`.
    Trim(RequestId, ChannelName),
    /// Answered by `FromLog::Answered`.
    Ask(RequestId, Box<Ask>),
    /// A worker's connection is gone: what it has not acknowledged goes to others.
    Gone(ConnId),
    /// Nobody waits for the answer to this question any more. A fetch that waits is over; deliveries that were on their way go to
    /// others.
    Abandoned(RequestId),
    /// The answer to a fetch is with its caller, as far as can be known here.
    Taken(RequestId),
    /// The shard drains: whoever waits through it for deliveries is answered with what there is, from now on.
    Hurry,
}

/// What came of an append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// Where it stands; where the first one with this key stands, or the channel's end if `is_new` is false.
    pub position: StreamPosition,
    /// It was stored now.
    pub is_new: bool,
    /// What the publication at `position` is called: the one that was stored now, or the first with its key. `None` where a version
    /// was not greater, so that nothing of this publisher stands there.
    pub event: Option<EventId>,
    /// It stands nowhere yet: it is published then, Unix milliseconds. 0 where it stands at `position`.
    pub due_ms: u64,
}

/// A question about a channel's entries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read {
    /// Channel.
    pub channel: ChannelName,
    /// Entries with a greater offset; `None` asks where the channel ends, and for no entry.
    pub after: Option<u64>,
    /// Entries at most.
    pub limit: u32,
    /// Payload bytes at most; one entry is given whatever its size.
    pub bytes: u32,
}

/// A part of a channel.
#[derive(Clone, Debug)]
pub struct Page {
    /// Channel.
    pub channel: ChannelName,
    /// Its end when it was read: everything later comes as `FromLog::Stored`, behind this.
    pub position: StreamPosition,
    /// As asked.
    pub after: Option<u64>,
    /// What is kept after `after`, ascending. Empty where only the end was asked for.
    pub publications: Vec<Arc<Publication>>,
    /// What of the channel that is.
    pub span: Span,
}

/// A stretch of a channel: of these offsets everything is there that is kept. What is not there has ended before its turn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// The first: behind the one asked for, or later where retention has taken what was before.
    pub from: u64,
    /// The last; less than `from` where there is none.
    pub to: u64,
}

impl Span {
    /// From behind an offset up to another one.
    #[must_use]
    pub const fn behind(after: u64, to: u64) -> Self {
        Self {
            from: after + 1,
            to,
        }
    }

    /// Of publications without holes that were asked for behind an offset; the next ones would follow them.
    #[must_use]
    pub fn of(after: u64, offsets: Option<(u64, u64)>) -> Self {
        offsets.map_or(Self::behind(after, after), |(from, to)| Self { from, to })
    }
}

/// Whoever asks something that only the log's side knows.
#[derive(Clone, Debug)]
pub struct Ask {
    /// What is asked.
    pub method: LogMethod,
    /// Whose groups, channels and letters are meant; empty for `default`.
    pub tenant: Box<str>,
    /// Parameters, JSON.
    pub data: Bytes,
    /// Who asks.
    pub caller: Caller,
}

/// Who asks.
#[derive(Clone, Debug)]
pub enum Caller {
    /// A service with the key of the server API: it may do everything.
    Service,
    /// A client's connection.
    Client {
        /// It gets deliveries.
        conn: ConnId,
        /// For people.
        client: ClientId,
        /// For people.
        user: Box<str>,
        /// What its token lets it consume.
        grants: Arc<[ConsumeGrant]>,
    },
}

/// Questions with parameters and results in JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LogMethod {
    /// `ringmain.consume`: deliveries of a group come to this connection.
    Consume,
    /// `ringmain.ack`, `/api/queue/ack`
    Ack,
    /// `ringmain.nak`, `/api/queue/nak`
    Nak,
    /// `ringmain.extend`, `/api/queue/extend`
    Extend,
    /// `ringmain.request`, `/api/queue/request`: publish, and wait for what a worker replies.
    Request,
    /// `ringmain.reply`, `/api/queue/reply`: what somebody waits for; acknowledges.
    Reply,
    /// `ringmain.credit`
    Credit,
    /// `ringmain.leave`
    Leave,
    /// `ringmain.fetch`, `/api/queue/fetch`: deliveries come as the answer.
    Fetch,
    /// `/api/queue/groups`: all groups and how they do.
    Groups,
    /// `/api/queue/delete`: forget a group.
    DeleteGroup,
    /// `/api/queue/pause`: a group gives nothing.
    PauseGroup,
    /// `/api/queue/resume`: it goes on.
    ResumeGroup,
    /// `/api/queue/seek`: it begins anew elsewhere.
    SeekGroup,
    /// `/api/queue/purge`: it forgets what it has not done.
    PurgeGroup,
    /// `/api/queue/peek`: what it has not done.
    PeekGroup,
    /// `/api/queue/copy`: another group with the same rules, and with what this one has not done.
    CopyGroup,
    /// `/api/queue/workers`: who takes from a group, and what each has.
    Workers,
    /// `/api/dlq/list`
    DeadList,
    /// `/api/dlq/show`
    DeadShow,
    /// `/api/dlq/retry`
    DeadRetry,
    /// `/api/dlq/drop`
    DeadDrop,
    /// `/api/replay`: one page of a replay.
    Replay,
    /// `/api/scheduled/list`: publications that are not due yet.
    ScheduledList,
    /// `ringmain.cancel`, `/api/scheduled/cancel`
    ScheduledCancel,
    /// `/api/scheduled/change`: another time for one of them.
    ScheduledChange,
}

impl LogMethod {
    /// Is it answered on the admin listener?
    #[must_use]
    pub const fn is_for_admin(self) -> bool {
        matches!(
            self,
            Self::Groups
                | Self::DeleteGroup
                | Self::PauseGroup
                | Self::ResumeGroup
                | Self::SeekGroup
                | Self::PurgeGroup
                | Self::PeekGroup
                | Self::CopyGroup
                | Self::Workers
                | Self::DeadList
                | Self::DeadShow
                | Self::DeadRetry
                | Self::DeadDrop
                | Self::Replay
                | Self::ScheduledList
                | Self::ScheduledCancel
                | Self::ScheduledChange
        )
    }

    /// The method that an RPC of a client names.
    #[must_use]
    pub fn of_rpc(name: &str) -> Option<Self> {
        Some(match name {
            "ringmain.consume" => Self::Consume,
            "ringmain.fetch" => Self::Fetch,
            "ringmain.ack" => Self::Ack,
            "ringmain.nak" => Self::Nak,
            "ringmain.extend" => Self::Extend,
            "ringmain.request" => Self::Request,
            "ringmain.reply" => Self::Reply,
            "ringmain.credit" => Self::Credit,
            "ringmain.leave" => Self::Leave,
            "ringmain.cancel" => Self::ScheduledCancel,
            _ => return None,
        })
    }

    /// The methods of the server API, by their paths behind `/api/`.
    pub const API: [(&'static str, Self); 23] = [
        ("queue/fetch", Self::Fetch),
        ("queue/ack", Self::Ack),
        ("queue/nak", Self::Nak),
        ("queue/extend", Self::Extend),
        ("queue/request", Self::Request),
        ("queue/reply", Self::Reply),
        ("queue/groups", Self::Groups),
        ("queue/delete", Self::DeleteGroup),
        ("queue/pause", Self::PauseGroup),
        ("queue/resume", Self::ResumeGroup),
        ("queue/seek", Self::SeekGroup),
        ("queue/purge", Self::PurgeGroup),
        ("queue/peek", Self::PeekGroup),
        ("queue/copy", Self::CopyGroup),
        ("queue/workers", Self::Workers),
        ("dlq/list", Self::DeadList),
        ("dlq/show", Self::DeadShow),
        ("dlq/retry", Self::DeadRetry),
        ("dlq/drop", Self::DeadDrop),
        ("replay", Self::Replay),
        ("scheduled/list", Self::ScheduledList),
        ("scheduled/cancel", Self::ScheduledCancel),
        ("scheduled/change", Self::ScheduledChange),
    ];

    /// The method of the server API with this path, behind `/api/`.
    #[must_use]
    pub fn of_api(path: &str) -> Option<Self> {
        let found = Self::API.iter().find(|(known, _)| *known == path);
        found.map(|&(_, method)| method)
    }
}

/// Why the log's side did not do what was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LogError {
    /// The log is down, read-only, full or fenced: try again.
    #[error("the durable log is not available: {reason}")]
    Unavailable {
        /// For people.
        reason: Box<str>,
        /// When to try again.
        retry_after: Duration,
    },
    /// Too much is under way: try again.
    #[error("the durable log is busy")]
    Busy {
        /// When to try again.
        retry_after: Duration,
    },
    /// A queue group of the channel has as much to do as it may have: try again.
    #[error("a queue group of this channel is too far behind")]
    Behind {
        /// When to try again.
        retry_after: Duration,
    },
    /// The publication breaks a rule of its namespace.
    #[error("refused: {0}")]
    Refused(Box<str>),
    /// Parameters are not as they must be.
    #[error("{0}")]
    BadRequest(Box<str>),
    /// The caller may not do this.
    #[error("permission denied: {0}")]
    Forbidden(Box<str>),
    /// There is no such group, delivery or dead letter.
    #[error("{0}")]
    NotFound(Box<str>),
    /// A bound that the operator sets is reached.
    #[error("limit exceeded: {0}")]
    Full(Box<str>),
    /// Nobody has replied to a request yet: the same may be asked again.
    #[error("no reply in time")]
    NoReply,
}

impl LogError {
    /// When the same may be tried again; `None` where that changes nothing.
    #[must_use]
    pub const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Unavailable { retry_after, .. }
            | Self::Busy { retry_after }
            | Self::Behind { retry_after } => Some(*retry_after),
            Self::Refused(_)
            | Self::BadRequest(_)
            | Self::Forbidden(_)
            | Self::NotFound(_)
            | Self::Full(_)
            | Self::NoReply => None,
        }
    }
}

/// From the log to a shard, in order.
#[derive(Debug)]
pub enum FromLog {
    /// To the shards that appended.
    Appended(Vec<(RequestId, Result<Appended, LogError>)>),
    /// To the owner of these channels: new publications, in the order of the log.
    Stored(Vec<(ChannelName, Arc<Publication>)>),
    /// Answer to `Read`.
    Page(RequestId, Result<Box<Page>, (ChannelName, LogError)>),
    /// Answer to `Trim` and `Ask`: JSON.
    Answered(RequestId, Result<Bytes, LogError>),
    /// To a worker's connection: a delivery, JSON.
    Deliver(Vec<(ConnId, Bytes)>),
    /// To the owner of a channel: nothing before this offset is kept any more.
    Begins(ChannelName, u64),
    /// To the owner of a channel: these, ascending, have ended before their turn.
    Ended(ChannelName, Box<[u64]>),
    /// The log's side lost its place: every durable channel is read again before anything later is believed.
    Restarted,
}

/// The two queues of one shard, and the bell at the log's end.
#[derive(Clone)]
pub struct DurableLink {
    /// To the log.
    pub requests: Arc<ArrayQueue<ToLog>>,
    /// To the shard.
    pub answers: Arc<ArrayQueue<FromLog>>,
    /// Wakes the bridge.
    pub bell: Arc<dyn Doorbell>,
}

impl DurableLink {
    /// Empty queues.
    #[must_use]
    pub fn new(bell: Arc<dyn Doorbell>) -> Self {
        Self {
            requests: Arc::new(ArrayQueue::new(
                LOG_APPENDS_MAX + LOG_ASKS_MAX + LOG_READS_MAX,
            )),
            answers: Arc::new(ArrayQueue::new(LOG_ANSWERS_MAX)),
            bell,
        }
    }
}

impl fmt::Debug for DurableLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DurableLink")
            .field("requests", &self.requests.len())
            .field("answers", &self.answers.len())
            .finish_non_exhaustive()
    }
}

/// The epoch of a channel that had nothing kept when it began to be used: the same on every node and after every
/// restart, as long as the log is the same and has forgotten no channel.
#[must_use]
pub fn epoch_of(log: u128, lives: u64, channel: &str) -> Epoch {
    use std::hash::{BuildHasher, Hasher};
    let mut hasher = foldhash::quality::FixedState::with_seed(log as u64 ^ lives).build_hasher();
    hasher.write_u64((log >> 64) as u64);
    hasher.write(channel.as_bytes());
    Epoch::from_random(hasher.finish())
}
