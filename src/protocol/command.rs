//! Commands of a client, borrowed from its frame (`spec/centrifuge.md` §3.2).

mod image;

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

impl Command<'_> {
    /// The same, without the frame it came in.
    #[must_use]
    pub fn into_owned(self) -> Command<'static> {
        Command {
            id: self.id,
            body: self.body.into_owned(),
        }
    }
}

impl Command<'_> {
    /// Bytes of memory that the command takes by itself, about.
    #[must_use]
    pub fn weight(&self) -> usize {
        let body = match &self.body {
            Body::Connect(connect) => connect.weight(),
            Body::Subscribe(asked) => asked.weight(),
            Body::Publish { channel, data } => channel.len() + data.len(),
            Body::Rpc { method, data } => method.len() + data.len(),
            Body::SubRefresh { channel, token } => channel.len() + token.len(),
            Body::Refresh { token } => token.len(),
            Body::Send { data } => data.len(),
            Body::History(History { channel, .. })
            | Body::Unsubscribe { channel }
            | Body::Presence { channel }
            | Body::PresenceStats { channel } => channel.len(),
            Body::Pong => 0,
        };
        size_of::<Self>() + body
    }
}

impl Connect<'_> {
    fn weight(&self) -> usize {
        let subs = self.subs.iter().map(Subscribe::weight).sum::<usize>();
        let headers = self.headers.iter();
        let header = |(name, value): &(Cow<'_, str>, Cow<'_, str>)| name.len() + value.len();
        let texts = self.token.len() + self.data.len() + self.name.len() + self.version.len();
        subs + size_of_val(&*self.subs)
            + headers.map(header).sum::<usize>()
            + size_of_val(&*self.headers)
            + texts
    }
}

impl Subscribe<'_> {
    fn weight(&self) -> usize {
        let texts = self.channel.len() + self.token.len() + self.epoch.len() + self.delta.len();
        let filter = self.filter.as_ref().map_or(0, |filter| filter.weight());
        texts + self.data.len() + filter
    }
}

fn text(text: Cow<'_, str>) -> Cow<'static, str> {
    Cow::Owned(text.into_owned())
}

fn bytes(bytes: Cow<'_, [u8]>) -> Cow<'static, [u8]> {
    Cow::Owned(bytes.into_owned())
}

impl Body<'_> {
    fn into_owned(self) -> Body<'static> {
        match self {
            Self::Connect(connect) => Body::Connect(connect.into_owned()),
            Self::Subscribe(subscribe) => Body::Subscribe(subscribe.into_owned()),
            Self::Unsubscribe { channel } => Body::Unsubscribe {
                channel: text(channel),
            },
            Self::Publish { channel, data } => Body::Publish {
                channel: text(channel),
                data: bytes(data),
            },
            Self::Presence { channel } => Body::Presence {
                channel: text(channel),
            },
            Self::PresenceStats { channel } => Body::PresenceStats {
                channel: text(channel),
            },
            Self::History(history) => Body::History(History {
                channel: text(history.channel),
                limit: history.limit,
                since: history.since.map(|(offset, epoch)| (offset, text(epoch))),
                reverse: history.reverse,
            }),
            Self::Rpc { method, data } => Body::Rpc {
                method: text(method),
                data: bytes(data),
            },
            Self::Send { data } => Body::Send { data: bytes(data) },
            Self::Refresh { token } => Body::Refresh { token: text(token) },
            Self::SubRefresh { channel, token } => Body::SubRefresh {
                channel: text(channel),
                token: text(token),
            },
            Self::Pong => Body::Pong,
        }
    }
}

impl Connect<'_> {
    fn into_owned(self) -> Connect<'static> {
        let headers = self.headers.into_iter();
        Connect {
            token: text(self.token),
            data: bytes(self.data),
            subs: self.subs.into_iter().map(Subscribe::into_owned).collect(),
            name: text(self.name),
            version: text(self.version),
            headers: headers
                .map(|(name, value)| (text(name), text(value)))
                .collect(),
        }
    }
}

impl Subscribe<'_> {
    fn into_owned(self) -> Subscribe<'static> {
        Subscribe {
            channel: text(self.channel),
            token: text(self.token),
            recover: self.recover,
            epoch: text(self.epoch),
            offset: self.offset,
            data: bytes(self.data),
            positioned: self.positioned,
            recoverable: self.recoverable,
            join_leave: self.join_leave,
            delta: text(self.delta),
            filter: self.filter,
            flag: self.flag,
            kind: self.kind,
        }
    }
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
pub struct EmulationCommands<'a> {
    /// Which process holds the connection.
    pub node: Cow<'a, str>,
    /// Secret of the connection.
    pub session: Cow<'a, str>,
    /// A frame of commands.
    pub data: Cow<'a, [u8]>,
}
