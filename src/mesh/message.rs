//! Everything that one shard may say to another.

use std::sync::Arc;

use bytes::Bytes;

use crate::model::{
    ChannelName, ClientId, ClientInfo, ConnId, Epoch, Overrides, Publication, ShardId,
    StreamPosition,
};

/// From one shard to another, in order.
#[derive(Debug)]
pub enum Message {
    /// To the owner: a local subscriber wants the channel. Answered by `Interested`.
    Interest(Box<Interest>),
    /// To the owner: a subscriber is gone. Never lost.
    Leave(Box<Leave>),
    /// To the owner. Answered by `Published` if it has a `reply_to`.
    Publish(Box<Publish>),
    /// To the owner. Answered by `Answer`.
    Query(Box<Query>),
    /// To every shard: do something with a user's connections. Answered by `UserDone`.
    User(Box<UserCommand>),
    /// To every shard: what do you have? Answered by `Gathered`.
    Gather(Box<Gather>),
    /// To the registry shard of a user: one more connection. Answered by `Admitted`.
    Admit(Box<Admit>),
    /// To the registry shard of a user: one connection fewer. Never lost.
    Release(Box<str>),
    /// To the subscribers' shards.
    Deliver(ChannelName, Arc<Publication>),
    /// To the subscribers' shards: somebody joined (`true`) or left.
    Presence(ChannelName, Arc<ClientInfo>, bool),
    /// To a subscribers' shard that lost deliveries: where the channel stands. Never lost.
    Behind(ChannelName, StreamPosition),
    /// Answer to `Interest`.
    Interested(Box<Interested>),
    /// Answer to `Publish`.
    Published(ReplyTo, Result<StreamPosition, PublishError>),
    /// Answer to `Query`.
    Answer(Box<Answer>),
    /// Answer to `User`.
    UserDone(ReplyTo),
    /// Answer to `Gather`.
    Gathered(Box<Gathered>),
    /// Answer to `Admit`, which comes back with it.
    Admitted(Box<Admit>, bool),
}

impl Message {
    /// Ends a command that its sender counts as outstanding.
    #[must_use]
    pub const fn is_answer(&self) -> bool {
        matches!(
            self,
            Self::Interested(_)
                | Self::Published(..)
                | Self::Answer(_)
                | Self::UserDone(_)
                | Self::Gathered(_)
                | Self::Admitted(..)
        )
    }
}

/// Who gets the answer. Echoed untouched; stale ids are ignored by the one who gets them back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplyTo {
    /// Nobody listens.
    Nobody,
    /// Command `id` of a client.
    Client {
        /// Its connection.
        conn: ConnId,
        /// Its command.
        id: u32,
    },
    /// A server-side subscription made during connect.
    Connect {
        /// Its connection.
        conn: ConnId,
    },
    /// A server-side subscription added while connected.
    Added {
        /// Its connection.
        conn: ConnId,
        /// Slot of the command that waits for it.
        wait: u32,
    },
    /// Item `item` of a server API call.
    Api {
        /// Slot of the call.
        call: u32,
        /// Generation of the slot.
        generation: u32,
        /// Index within the call.
        item: u32,
    },
    /// A hub channel that catches up after lost deliveries.
    CatchUp {
        /// Slot of the hub channel.
        hub: u32,
        /// Generation of the slot.
        generation: u32,
        /// Which question of this hub channel it was.
        round: u32,
    },
}

/// See `Message::Interest`.
#[derive(Debug)]
pub struct Interest {
    /// Channel.
    pub channel: ChannelName,
    /// Hub channel of the asking shard: (slot, generation), echoed.
    pub hub: (u32, u32),
    /// Echoed.
    pub reply_to: ReplyTo,
    /// Recover after this position.
    pub recover: Option<Recover>,
    /// Who it is, if presence is kept or the join is told.
    pub presence: Option<Arc<ClientInfo>>,
    /// Keep it as presence.
    pub keep: bool,
    /// Tell the other subscribers.
    pub join: bool,
}

/// Where a subscriber left off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recover {
    /// `None`: the client sent none, any epoch fits. `Some(None)`: text that is no epoch of ours.
    pub epoch: Option<Option<Epoch>>,
    /// Last offset seen.
    pub offset: u64,
    /// Missed publications that may be returned at most.
    pub limit: u32,
}

/// See `Message::Leave`.
#[derive(Debug)]
pub struct Leave {
    /// Channel.
    pub channel: ChannelName,
    /// Who left, if presence or leave pushes are wanted.
    pub info: Option<Arc<ClientInfo>>,
    /// Tell the other subscribers.
    pub leave: bool,
    /// The shard has no subscriber left.
    pub last: bool,
}

/// See `Message::Publish`.
#[derive(Debug)]
pub struct Publish {
    /// Channel.
    pub channel: ChannelName,
    /// Who gets the position.
    pub reply_to: ReplyTo,
    /// Payload.
    pub data: Bytes,
    /// `data` is one JSON value.
    pub json: bool,
    /// Set only when a client published.
    pub info: Option<Box<ClientInfo>>,
    /// Tags.
    pub tags: Box<[(Box<str>, Box<str>)]>,
    /// Do not keep it.
    pub skip_history: bool,
    /// See `Publication::delta`.
    pub delta: bool,
    /// Idempotency key; empty for none.
    pub idempotency_key: Box<str>,
    /// 0 for none: a version that is not greater than the last one of this channel is not published.
    pub version: u64,
    /// Life of the version numbers.
    pub version_epoch: Box<str>,
}

/// Why an owner refused a publication.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PublishError {
    /// The namespace is gone.
    UnknownChannel,
    /// A queue was full or the owner holds as many channels as it may: try again.
    Overloaded,
}

/// See `Message::Query`.
#[derive(Debug)]
pub struct Query {
    /// Channel.
    pub channel: ChannelName,
    /// Echoed.
    pub reply_to: ReplyTo,
    /// What is asked.
    pub what: QueryKind,
}

/// What can be asked of an owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueryKind {
    /// Who is there.
    Presence,
    /// How many are there.
    PresenceStats,
    /// Publications kept.
    History {
        /// 0: position only.
        limit: u32,
        /// Exclusive start: (offset, epoch as in `Recover`).
        since: Option<(u64, Option<Option<Epoch>>)>,
        /// Newest first.
        reverse: bool,
    },
    /// Forget the publications, keep the position.
    HistoryRemove,
}

/// See `Message::Answer`.
#[derive(Debug)]
pub struct Answer {
    /// Echoed.
    pub reply_to: ReplyTo,
    /// The answer.
    pub what: AnswerKind,
}

/// Answers to `QueryKind`.
#[derive(Debug)]
pub enum AnswerKind {
    /// Who is there.
    Presence(Vec<Arc<ClientInfo>>),
    /// How many are there.
    PresenceStats {
        /// Entries.
        clients: u32,
        /// Distinct users.
        users: u32,
    },
    /// Publications in the order asked for, and the top.
    History(Vec<Arc<Publication>>, StreamPosition),
    /// `since.epoch` is not the current epoch.
    Unrecoverable,
    /// Done.
    Removed,
    /// The owner holds as many channels as it may: try again.
    Overloaded,
}

/// See `Message::Interested`.
#[derive(Debug)]
pub struct Interested {
    /// Channel.
    pub channel: ChannelName,
    /// As asked.
    pub hub: (u32, u32),
    /// As asked.
    pub reply_to: ReplyTo,
    /// Top of the channel: every later publication follows on the same queue.
    pub position: StreamPosition,
    /// Missed publications, oldest first.
    pub missed: Vec<Arc<Publication>>,
    /// `missed` is everything.
    pub recovered: bool,
    /// The owner holds as many channels as it may: the subscriber gets a temporary error.
    pub overloaded: bool,
}

/// See `Message::User`.
#[derive(Debug)]
pub struct UserCommand {
    /// Echoed.
    pub reply_to: ReplyTo,
    /// User id; empty selects anonymous connections.
    pub user: Box<str>,
    /// Only this connection.
    pub client: Option<ClientId>,
    /// What to do.
    pub action: UserAction,
}

/// What the server API does with a user's connections.
#[derive(Clone, Debug)]
pub enum UserAction {
    /// Add a server-side subscription.
    Subscribe(Box<UserSubscribe>),
    /// End a subscription with 2000.
    Unsubscribe(ChannelName),
    /// Close with a code, but not these clients.
    Disconnect {
        /// Code and reason.
        code: u16,
        /// Reason.
        reason: Box<str>,
        /// Clients that stay.
        whitelist: Box<[ClientId]>,
    },
    /// New expiry: Unix seconds, `None` for never.
    Refresh {
        /// Close with 3005.
        expired: bool,
        /// Unix seconds.
        expire_at: Option<u64>,
        /// New connection info, JSON; empty leaves it.
        info: Bytes,
    },
}

/// Options of the server API's subscribe.
#[derive(Clone, Debug)]
pub struct UserSubscribe {
    /// Channel.
    pub channel: ChannelName,
    /// Unix seconds; 0 for never.
    pub expire_at: u64,
    /// Subscription info, JSON.
    pub info: Bytes,
    /// Goes to the client, JSON.
    pub data: Bytes,
    /// Recover after this position.
    pub recover: Option<Recover>,
    /// `override` of the namespace's options.
    pub overrides: Overrides,
}

/// See `Message::Gather`.
#[derive(Debug)]
pub struct Gather {
    /// Echoed.
    pub reply_to: ReplyTo,
    /// `Some(glob)`: channels with local subscribers; empty matches all. `None`: numbers.
    pub channels: Option<Box<str>>,
}

/// See `Message::Gathered`.
#[derive(Debug)]
pub struct Gathered {
    /// Echoed.
    pub reply_to: ReplyTo,
    /// Who answers.
    pub shard: ShardId,
    /// Local subscribers of each channel.
    pub channels: Vec<(ChannelName, u32)>,
    /// Connected sessions.
    pub clients: u32,
    /// Distinct users of them.
    pub users: u32,
    /// Subscriptions.
    pub subscriptions: u32,
    /// Channels owned that have subscribers anywhere.
    pub channels_active: u32,
}

/// See `Message::Admit`.
#[derive(Debug)]
pub struct Admit {
    /// Echoed.
    pub reply_to: ReplyTo,
    /// User id, not empty.
    pub user: Box<str>,
    /// Connections that the user may have.
    pub limit: u32,
}
