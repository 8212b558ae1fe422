//! Commands of a client, borrowed from its frame (`spec/centrifuge.md` §3.2).

use std::borrow::Cow;

use crate::model::FilterNode;

/// One command.
#[derive(Clone, Debug, PartialEq)]
pub struct Command<'a> {
    /// Increasing per connection; 0 only for `Send` and `Pong`.
    pub id: u32,
    /// What is asked.
    pub body: Body<'a>,
}

/// The part of a command that is set, first in the order of §2.5 if several are.
#[derive(Clone, Debug, PartialEq)]
pub enum Body<'a> {
    /// Open the session.
    Connect(Connect<'a>),
    /// Join a channel.
    Subscribe(Subscribe<'a>),
    /// Leave a channel.
    Unsubscribe {
        /// Channel.
        channel: Cow<'a, str>,
    },
    /// Publish into a channel.
    Publish {
        /// Channel.
        channel: Cow<'a, str>,
        /// Raw JSON as sent (JSON encoding), or bytes; empty when absent.
        data: Cow<'a, [u8]>,
    },
    /// Who is there.
    Presence {
        /// Channel.
        channel: Cow<'a, str>,
    },
    /// How many are there.
    PresenceStats {
        /// Channel.
        channel: Cow<'a, str>,
    },
    /// Publications kept.
    History(History<'a>),
    /// Call the backend.
    Rpc {
        /// Method.
        method: Cow<'a, str>,
        /// Raw JSON or bytes.
        data: Cow<'a, [u8]>,
    },
    /// One-way message.
    Send {
        /// Raw JSON or bytes.
        data: Cow<'a, [u8]>,
    },
    /// New connection token.
    Refresh {
        /// Token.
        token: Cow<'a, str>,
    },
    /// New subscription token.
    SubRefresh {
        /// Channel.
        channel: Cow<'a, str>,
        /// Token.
        token: Cow<'a, str>,
    },
    /// Id 0 and no `send`: answer to a ping.
    Pong,
}

/// ConnectRequest
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Connect<'a> {
    /// Connection token; empty when absent.
    pub token: Cow<'a, str>,
    /// Raw JSON or bytes.
    pub data: Cow<'a, [u8]>,
    /// Server-side subscriptions to recover: only `recover`, `epoch`, `offset` count. A channel may come twice.
    pub subs: Vec<Subscribe<'a>>,
    /// Client name.
    pub name: Cow<'a, str>,
    /// Application version.
    pub version: Cow<'a, str>,
    /// Headers that a browser cannot send, for hooks (`spec/centrifuge.md` §9.2).
    pub headers: Vec<(Cow<'a, str>, Cow<'a, str>)>,
}

/// SubscribeRequest
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Subscribe<'a> {
    /// Channel.
    pub channel: Cow<'a, str>,
    /// Subscription token; empty when absent.
    pub token: Cow<'a, str>,
    /// Recover from (epoch, offset).
    pub recover: bool,
    /// Epoch as sent.
    pub epoch: Cow<'a, str>,
    /// Offset as sent.
    pub offset: u64,
    /// Raw JSON or bytes.
    pub data: Cow<'a, [u8]>,
    /// Asks for positioning.
    pub positioned: bool,
    /// Asks for recovery.
    pub recoverable: bool,
    /// Asks for join and leave pushes.
    pub join_leave: bool,
    /// Delta type: empty or `fossil`; anything else is DISCONNECT 3501.
    pub delta: Cow<'a, str>,
    /// Tags filter, as sent.
    pub filter: Option<Box<FilterNode>>,
    /// Bit 1: compaction supported; bit 2: reject unrecovered (ERROR 112).
    pub flag: i64,
    /// 0 stream, 1 map, 2 map_clients, 3 map_users, 4 shared_poll.
    pub kind: i32,
}

/// HistoryRequest
#[derive(Clone, Debug, Default, PartialEq)]
pub struct History<'a> {
    /// Channel.
    pub channel: Cow<'a, str>,
    /// 0: position only; negative: as many as allowed.
    pub limit: i32,
    /// Exclusive start: (offset, epoch as sent).
    pub since: Option<(u64, Cow<'a, str>)>,
    /// Newest first.
    pub reverse: bool,
}

/// EmulationRequest: commands of a client whose connection only brings replies (`spec/centrifuge.md` §1.7).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Emulation<'a> {
    /// Which process holds the connection.
    pub node: Cow<'a, str>,
    /// Secret of the connection.
    pub session: Cow<'a, str>,
    /// A frame of commands.
    pub data: Cow<'a, [u8]>,
}
