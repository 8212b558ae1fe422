//! Everything that one shard may say to another.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::durable::Span;
use crate::config::Glob;
use crate::metrics::Counters;
use crate::model::{
    AskId, ChannelName, ClientId, ClientInfo, ConnId, Draft, HubId, Overrides, Publication, Since,
    StreamPosition, TenantId, UserId,
};

/// From one shard to another, in order.
#[derive(Debug)]
pub enum Message {
    /// To the owner: a local subscriber wants the channel. Answered by `Interested`.
    Interest(InterestFor, Box<Interest>),
    /// To the owner: a subscriber is gone. Never lost.
    Leave(Box<Leave>),
    /// To the owner. Answered by `Published`.
    Publish(PublishFor, Box<Draft>),
    /// To the owner. Answered by `Answer`.
    Query(QueryFor, Box<Query>),
    /// To one shard: everything that a server API call asks of it at once, in order. Answered by `Answers`.
    /// Each has the number that its answer carries.
    Commands(CommandsFor, Vec<(u32, Asked)>),
    /// To the shard of a session: commands that came by another connection. Answered by `Emulated`.
    Emulate(EmulateFor, Box<Emulate>),
    /// To the registry shard of a user: one more connection. Answered by `Admitted`.
    Admit(AdmitFor, Box<Admit>),
    /// To the registry shard of a user: this connection is gone. Never lost.
    Release(Box<str>, ConnId),
    /// To a connection's shard: its user has a newer one in its place. Never lost.
    Displace(ConnId),
    /// To the gate: a client connection wants in, from this prefix if limits per prefix hold for it. Answered by `Entered`.
    Enter(EnterFor, Option<Box<Prefix>>),
    /// To the gate: one that was let in, from this prefix, is gone. Never lost.
    Exit(Option<Box<Prefix>>),
    /// To the gate: so many connections are in that it did not let in. Never lost.
    Adopt(u32),
    /// To the subscribers' shards.
    Deliver(ChannelName, Arc<Publication>),
    /// The same for publications that were published together, in order.
    DeliverMany(Vec<(ChannelName, Arc<Publication>)>),
    /// To the subscribers' shards: somebody joined (`true`) or left.
    Presence(ChannelName, Arc<ClientInfo>, bool),
    /// To a subscribers' shard that lost deliveries: where the channel stands. Never lost.
    Behind(ChannelName, StreamPosition),
    /// To a subscribers' shard that lost something of a channel that nothing brings back. Never lost.
    Lost(ChannelName),
    /// Answer to `Interest`.
    Interested(InterestFor, Box<Interested>),
    /// Answer to `Publish`.
    Published(PublishFor, Result<StreamPosition, PublishError>),
    /// Answer to `Query`.
    Answer(QueryFor, Box<AnswerKind>),
    /// Answer to `Commands`.
    Answers(CommandsFor, Answers),
    /// Answer to `Emulate`: the commands are handled.
    /// `false`: there was no room for the commands.
    Emulated(EmulateFor, bool),
    /// Answer to `Admit`.
    Admitted(AdmitFor, bool),
    /// Answer to `Enter`: the prefix under which it is counted.
    Entered(EnterFor, Result<Option<Box<Prefix>>, TurnedAway>),
}

impl Message {
    /// Ends a command that its sender counts as outstanding.
    #[must_use]
    pub const fn is_answer(&self) -> bool {
        matches!(
            self,
            Self::Interested(..)
                | Self::Published(..)
                | Self::Answer(..)
                | Self::Answers(..)
                | Self::Emulated(..)
                | Self::Admitted(..)
                | Self::Entered(..)
        )
    }
}

/// Whose subscription an `Interest` is for: a question of the asking shard. Echoed, like every address here; one that has ended
/// is ignored by the shard that gets it back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InterestFor(pub AskId);

/// Who waits for `Answers`: a call of the server API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommandsFor(pub AskId);

/// Who waits for `Emulated`: the request that brought the commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EmulateFor(pub AskId);

/// Who waits for `Admitted`: a connect command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AdmitFor(pub AskId);

/// Who waits for `Entered`: a client's request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EnterFor(pub AskId);

/// Who published: a command of a client, which waits in its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PublishFor {
    /// Its connection.
    pub conn: ConnId,
    /// Its command.
    pub id: u32,
    /// The command is `ringmain.publish`.
    pub by_rpc: bool,
}

/// Who asks an owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueryFor {
    /// A command of a client, which waits in its session.
    Client {
        /// Its connection.
        conn: ConnId,
        /// Its command.
        id: u32,
    },
    /// An RPC of a client, which waits in its session.
    Rpc {
        /// Its connection.
        conn: ConnId,
        /// Its command.
        id: u32,
    },
    /// A hub channel that catches up after lost deliveries.
    CatchUp(AskId),
}

/// See `Message::Interest`.
#[derive(Debug)]
pub struct Interest {
    /// Channel.
    pub channel: ChannelName,
    /// Hub channel of the asking shard, echoed.
    pub hub: HubId,
    /// Recover after this position.
    pub recover: Option<Recover>,
    /// Who it is, if presence is kept or the join is told.
    pub presence: Option<Arc<ClientInfo>>,
    /// Keep it as presence.
    pub keep: bool,
    /// Tell the other subscribers.
    pub join: bool,
    /// Takes patches.
    pub delta: bool,
}

/// Where a subscriber left off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recover {
    /// Of this life.
    pub epoch: Since,
    /// Last offset seen.
    pub offset: u64,
    /// Missed publications that may be returned at most.
    pub limit: u32,
    /// Only the latest publication matters, whatever the namespace says.
    pub cache: bool,
}

impl Recover {
    /// The latest publication, to somebody who has none.
    #[must_use]
    pub const fn cached() -> Self {
        Self {
            epoch: Since::Any,
            offset: 0,
            limit: 1,
            cache: true,
        }
    }
}

/// See `Message::Leave`.
#[derive(Debug)]
pub struct Leave {
    /// Channel.
    pub channel: ChannelName,
    /// Hub channel that was left.
    pub hub: HubId,
    /// Who left, if presence or leave pushes are wanted.
    pub info: Option<Arc<ClientInfo>>,
    /// Tell the other subscribers.
    pub leave: bool,
    /// The shard has no subscriber left.
    pub last: bool,
}

/// Why an owner refused a publication, or a subscriber.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PublishError {
    /// The namespace is gone.
    UnknownChannel,
    /// A queue was full or the owner holds as many channels as it may: try again.
    Overloaded,
    /// The client has made many channels or keys of late: try again.
    TooManyNew,
    /// The tenant has made many channels of late: try again after so many milliseconds.
    TooFast(u32),
    /// The tenant has as many channels, or as many bytes of history, as it may.
    TenantFull,
}

/// See `Message::Query`.
#[derive(Debug)]
pub struct Query {
    /// Channel.
    pub channel: ChannelName,
    /// What is asked.
    pub what: QueryKind,
}

/// What can be asked of an owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueryKind {
    /// Who is there.
    Presence {
        /// So many at most; 0: all of them, if one answer has room for all.
        limit: u32,
        /// Those behind this one, by client id.
        after: Option<ClientId>,
    },
    /// How many are there.
    PresenceStats,
    /// Publications kept.
    History {
        /// 0: position only.
        limit: u32,
        /// Exclusive start: an offset, and of which life.
        since: Option<(u64, Since)>,
        /// Newest first.
        reverse: bool,
    },
    /// Forget the publications, keep the position.
    HistoryRemove,
}

impl QueryKind {
    /// Who is there, all of them.
    pub const EVERYBODY: Self = Self::Presence {
        limit: 0,
        after: None,
    };
}

/// Answers to `QueryKind`.
#[derive(Debug)]
pub enum AnswerKind {
    /// Who is there, and behind whom the next page begins if there is one.
    Presence(Vec<Arc<ClientInfo>>, Option<ClientId>),
    /// More are there than one answer has room for, and no page was asked for.
    PresenceTooLarge,
    /// How many are there.
    PresenceStats {
        /// Entries.
        clients: u32,
        /// Distinct users.
        users: u32,
    },
    /// Publications in the order asked for, the top, and what of the channel they are, as far as that is asked for forwards.
    History(Vec<Arc<Publication>>, StreamPosition, Span),
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
    pub hub: HubId,
    /// Top of the channel: every later publication follows on the same queue.
    pub position: StreamPosition,
    /// Missed publications, oldest first.
    pub missed: Vec<Arc<Publication>>,
    /// `missed` is everything.
    pub recovered: bool,
    /// The offset after which the subscriber recovers; 0 if it does not.
    pub after: u64,
    /// The owner does not take the subscriber, which gets an error.
    pub refused: Option<PublishError>,
    /// `missed` is the first part of what was missed: the subscriber comes again for the next.
    pub more: bool,
    /// Its join is told on the shard that asked.
    pub joined: Option<Arc<ClientInfo>>,
}

/// What a server API call asks of a shard.
#[derive(Debug)]
pub enum Asked {
    /// As owner of the channel: publish.
    Publish(Box<Draft>),
    /// As owner of the channel.
    Query(Query),
    /// Do something with a user's connections.
    User(UserCommand),
    /// Shut tokens or a user out, the present connections first.
    Revoke(Revocation),
    /// What do you have?
    Gather(Gather),
}

/// What a service shuts out. Ends are Unix seconds; `None` is never.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Revocation {
    /// One token, by its `jti`.
    Token {
        /// `jti`, whole: so are the users below.
        id: Box<str>,
        /// When this is forgotten.
        until: Option<u64>,
    },
    /// A user's tokens that are older than a moment.
    UserTokens {
        /// User id.
        user: Box<str>,
        /// Tokens with an earlier `iat`, or none, are invalid; `None` is now.
        issued_before: Option<u64>,
        /// Only subscription tokens for this channel; empty for every token.
        channel: Box<str>,
        /// When this is forgotten.
        until: Option<u64>,
    },
    /// Every connection of a user.
    Block {
        /// User id.
        user: Box<str>,
        /// When this is forgotten.
        until: Option<u64>,
    },
    /// No longer.
    Unblock {
        /// User id.
        user: Box<str>,
    },
}

impl Revocation {
    /// What a tenant calls so.
    #[must_use]
    pub fn scoped(self, tenant: TenantId<'_>) -> Self {
        let whole = |name: Box<str>| -> Box<str> { tenant.whole(&name).into() };
        match self {
            Self::Token { id, until } => Self::Token {
                id: whole(id),
                until,
            },
            Self::UserTokens {
                user,
                issued_before,
                channel,
                until,
            } => Self::UserTokens {
                user: whole(user),
                issued_before,
                channel,
                until,
            },
            Self::Block { user, until } => Self::Block {
                user: whole(user),
                until,
            },
            Self::Unblock { user } => Self::Unblock { user: whole(user) },
        }
    }
}

/// See `Message::Answers`: one for each item, with its number.
pub type Answers = Vec<(u32, Answered)>;

/// Answers to `Asked`.
#[derive(Debug)]
pub enum Answered {
    /// Where it went.
    Published(Result<StreamPosition, PublishError>),
    /// What the owner knows.
    Query(AnswerKind),
    /// It is done.
    User,
    /// `false`: the table is full, and nothing was done.
    Revoked(bool),
    /// What the shard has.
    Gathered(Box<Gathered>),
}

/// See `Asked::User`.
#[derive(Debug)]
pub struct UserCommand {
    /// Whose connections; the anonymous user's are those of nobody in particular.
    pub user: UserId,
    /// Only this connection.
    pub client: Option<ClientId>,
    /// Only the connection with this session id; empty for any.
    pub session: Box<str>,
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

/// See `Asked::Gather`.
#[derive(Debug)]
pub struct Gather {
    /// Whose channels; empty for `default`. Its numbers are those of the whole node.
    pub tenant: Box<str>,
    /// `Some`: channels with local subscribers whose names match. `None`: numbers.
    pub channels: Option<Box<Glob>>,
}

/// See `Answered::Gathered`.
#[derive(Debug, Default)]
pub struct Gathered {
    /// Local subscribers of each channel.
    pub channels: Vec<(ChannelName, u32)>,
    /// Connected sessions.
    pub clients: u32,
    /// Distinct users of them.
    pub users: UserCount,
    /// Subscriptions.
    pub subscriptions: u32,
    /// Channels owned that have subscribers anywhere.
    pub channels_active: u32,
    /// Everything the shard counts.
    pub counters: Counters,
}

/// Distinct users of one shard, so that those of several shards can be counted without counting anybody twice.
#[derive(Clone, Debug, Default)]
pub struct UserCount {
    /// How many there are here.
    pub distinct: u32,
    /// Hashes of those whose hash is at most `below`, the same function on every shard.
    pub sample: Vec<u64>,
    /// `u64::MAX`: the sample is everybody.
    pub below: u64,
}

impl UserCount {
    /// Distinct users of all shards: exact while every sample is everybody, else an estimate from the share of the
    /// hashes that all samples cover.
    #[must_use]
    pub fn union<'a>(counts: impl Iterator<Item = &'a Self> + Clone) -> u64 {
        let below = counts.clone().map(|count| count.below).min();
        let most = counts.clone().map(|count| u64::from(count.distinct)).sum();
        let least = counts.clone().map(|count| u64::from(count.distinct)).max();
        let below = below.unwrap_or(u64::MAX);
        let mut sample: Vec<u64> = counts
            .flat_map(|count| count.sample.iter().copied())
            .filter(|&hash| hash <= below)
            .collect();
        sample.sort_unstable();
        sample.dedup();
        let share = (u128::from(below) + 1).max(1);
        let estimate = ((sample.len() as u128) << 64) / share;
        u64::try_from(estimate)
            .unwrap_or(u64::MAX)
            .clamp(least.unwrap_or(0), most)
    }
}

/// See `Message::Emulate`.
#[derive(Debug)]
pub struct Emulate {
    /// Connection of the session.
    pub conn: ConnId,
    /// The key that names it and proves that one has been told.
    pub session: Box<str>,
    /// Commands, in the encoding of the session.
    pub frame: Vec<u8>,
}

/// See `Message::Admit`.
#[derive(Debug)]
pub struct Admit {
    /// The connection that connects: the registry names it so.
    pub conn: ConnId,
    /// User id, not empty.
    pub user: Box<str>,
    /// Connections that the user may have.
    pub limit: u32,
    /// The oldest ones go for the new one, which is refused otherwise.
    pub displaces: bool,
}

/// Leading bits of an address; the others are 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix {
    /// The address, an IPv4 one in the low 32 bits.
    pub bits: u128,
    /// It is an IPv4 one.
    pub is_v4: bool,
}

/// Why a client connection is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TurnedAway {
    /// `client.connection_limit`
    Full,
    /// `client.connection_rate_limit`; when to come again.
    TooFast(Duration),
    /// `client.connection_limit_per_prefix`
    PrefixFull,
    /// `client.connection_rate_limit_per_prefix`; when to come again.
    PrefixTooFast(Duration),
    /// The gate has no room for the question.
    Busy,
}
