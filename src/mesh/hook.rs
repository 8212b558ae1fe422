//! Hooks between a shard and control: calls go out, answers come back, each through a bounded queue of the shard's own.
//!
//! A shard has at most `CALLS_MAX` calls under way. Each of them is in one place at a time: in the queue of calls, in
//! control's hands, or in the queue of answers. Both queues have that many places, so neither is ever full.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use crossbeam_queue::ArrayQueue;

use super::bell::Doorbell;
use crate::config::hooks::Target;
use crate::limits::CALLS_MAX;
use crate::model::{
    AskId, ChannelName, ChosenError, ClientId, ConnId, Format, HubId, Overrides, UserId,
};

/// A header: name in lower case, and value.
pub type HookHeader = (Box<str>, Box<str>);

/// An event that a backend decides about. It comes back with the answer, so it also holds what goes on with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// What its shard calls it; set when it is sent, and echoed.
    pub ask: AskId,
    /// Where it goes.
    pub target: Arc<Target>,
    /// Whose it is; a stale one is ignored when the answer comes back.
    pub conn: ConnId,
    /// Id of the command that waits; 0 where none does.
    pub id: u32,
    /// The client.
    pub client: ClientId,
    /// How its messages are written.
    pub format: Format,
    /// Whose client it is; the anonymous user before connect.
    pub user: UserId,
    /// Where the client is, as its shard knows it.
    pub from: u32,
    /// Connection's `meta`, JSON or empty; only if the target wants it.
    pub meta: Bytes,
    /// Headers of the client that the target wants: emulated ones first, those of the transport over them.
    pub headers: Vec<HookHeader>,
    /// What happened.
    pub event: HookEvent,
}

/// What a backend decides about (`spec/centrifuge.md` §9.3). Payloads are JSON or bytes as the client sent them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HookEvent {
    /// A client without a token wants to connect.
    Connect {
        /// Payload.
        data: Bytes,
        /// Client name.
        name: Box<str>,
        /// Application version.
        version: Box<str>,
        /// Server-side subscriptions that the client had.
        channels: Vec<Box<str>>,
    },
    /// A connection has expired.
    Refresh,
    /// A client without a token wants to subscribe.
    Subscribe {
        /// Channel.
        channel: ChannelName,
        /// Payload.
        data: Bytes,
    },
    /// A client wants to publish.
    Publish {
        /// Channel.
        channel: ChannelName,
        /// Payload.
        data: Bytes,
    },
    /// A subscription has expired.
    SubRefresh {
        /// Its hub channel.
        hub: HubId,
        /// Channel.
        channel: ChannelName,
    },
    /// A client calls a method.
    Rpc {
        /// Method.
        method: Box<str>,
        /// Payload.
        data: Bytes,
    },
}

/// What came of a call, with the call.
#[derive(Debug)]
pub struct HookAnswer {
    /// As it was sent.
    pub call: Box<Call>,
    /// What the backend says.
    pub verdict: Verdict,
}

/// What a backend says. `None` is an answer without a result. Payloads are empty when absent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// To `HookEvent::Connect`.
    Connect(Option<Box<ConnectVerdict>>),
    /// To `HookEvent::Refresh` and `HookEvent::SubRefresh`.
    Refresh(Option<RefreshVerdict>),
    /// To `HookEvent::Subscribe`.
    Subscribe(SubscribeVerdict),
    /// To `HookEvent::Publish`.
    Publish(Box<PublishVerdict>),
    /// To `HookEvent::Rpc`: JSON or bytes.
    Rpc(Bytes),
    /// The client gets this error.
    Error(ChosenError),
    /// The client is disconnected with this code and reason.
    Disconnect(u32, Box<str>),
    /// Nobody answered, or not as agreed: error 100, temporary.
    Failed,
}

/// Result of connect.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConnectVerdict {
    /// User id; empty for the anonymous user.
    pub user: Box<str>,
    /// Unix seconds; 0 for never.
    pub expire_at: u64,
    /// Connection info, JSON.
    pub info: Bytes,
    /// Goes into the connect result: JSON or bytes.
    pub data: Bytes,
    /// Server-side subscriptions, each channel once.
    pub subs: Vec<(Box<str>, SubscribeVerdict)>,
    /// Stays on the server, JSON.
    pub meta: Bytes,
}

/// Result of subscribe, and one member of `subs`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SubscribeVerdict {
    /// Unix seconds; 0 for never.
    pub expire_at: u64,
    /// Subscription info, JSON.
    pub info: Bytes,
    /// Goes into the subscribe result: JSON or bytes.
    pub data: Bytes,
    /// Over the namespace's options.
    pub overrides: Overrides,
    /// `cache_recover`: recover the newest publication without being asked (server-side subscriptions only).
    pub cache_recover: bool,
}

/// Result of refresh and sub_refresh.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RefreshVerdict {
    /// It ends now.
    pub expired: bool,
    /// Unix seconds; 0 for never.
    pub expire_at: u64,
    /// New info, JSON; empty leaves it.
    pub info: Bytes,
    /// New `meta`, JSON; empty leaves it. Not for subscriptions.
    pub meta: Bytes,
}

/// Result of publish.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PublishVerdict {
    /// Payload in place of the client's; `None` leaves it.
    pub data: Option<Bytes>,
    /// Not kept in history.
    pub skip_history: bool,
    /// Tags.
    pub tags: Vec<HookHeader>,
    /// Idempotency key; empty for none.
    pub idempotency_key: Box<str>,
    /// May be sent as a patch.
    pub delta: bool,
    /// For how many milliseconds it is kept; 0 for as long as others.
    pub ttl_ms: u64,
    /// 0 for none.
    pub version: u64,
    /// Life of the version numbers.
    pub version_epoch: Box<str>,
}

impl HookEvent {
    /// As it is called in the configuration.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Connect { .. } => "connect",
            Self::Refresh => "refresh",
            Self::Subscribe { .. } => "subscribe",
            Self::Publish { .. } => "publish",
            Self::SubRefresh { .. } => "sub_refresh",
            Self::Rpc { .. } => "rpc",
        }
    }
}

impl Call {
    /// Bytes that it holds and that a client or a backend chose.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let headers: usize = self
            .headers
            .iter()
            .map(|(name, value)| name.len() + value.len())
            .sum();
        let event = match &self.event {
            HookEvent::Connect {
                data,
                name,
                version,
                channels,
            } => {
                let channels: usize = channels.iter().map(|channel| channel.len()).sum();
                data.len() + name.len() + version.len() + channels
            }
            HookEvent::Refresh | HookEvent::SubRefresh { .. } => 0,
            HookEvent::Subscribe { data, .. } | HookEvent::Publish { data, .. } => data.len(),
            HookEvent::Rpc { method, data } => method.len() + data.len(),
        };
        headers + event + self.meta.len() + self.user.whole().len()
    }
}

/// The two queues of one shard, and the bells at both ends.
#[derive(Clone)]
pub struct HookLink {
    /// To control.
    pub calls: Arc<ArrayQueue<Box<Call>>>,
    /// To the shard.
    pub answers: Arc<ArrayQueue<HookAnswer>>,
    /// Wakes whoever makes the calls.
    pub bell: Arc<dyn Doorbell>,
}

impl HookLink {
    /// Empty queues with room for everything a shard may have under way.
    #[must_use]
    pub fn new(bell: Arc<dyn Doorbell>) -> Self {
        Self {
            calls: Arc::new(ArrayQueue::new(CALLS_MAX)),
            answers: Arc::new(ArrayQueue::new(CALLS_MAX)),
            bell,
        }
    }
}

impl fmt::Debug for HookLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HookLink")
            .field("calls", &self.calls.len())
            .field("answers", &self.answers.len())
            .finish_non_exhaustive()
    }
}
