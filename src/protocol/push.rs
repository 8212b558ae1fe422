//! Replies and pushes to a client, borrowed from the session's state.

use std::sync::Arc;

use super::error::ClientError;
use crate::model::{ChosenError, ClientInfo, Publication, StreamPosition};
use crate::wire::json::is_json;

/// Answer to one command.
#[derive(Clone, Debug)]
pub struct Reply<'a> {
    /// The command's id.
    pub id: u32,
    /// Error or result.
    pub body: ReplyBody<'a>,
}

/// Exactly one of them.
#[derive(Clone, Debug)]
pub enum ReplyBody<'a> {
    /// `error`
    Error(ClientError),
    /// `error`, as a backend chose it
    ChosenError(&'a ChosenError),
    /// `connect`
    Connect(ConnectResult<'a>),
    /// `subscribe`
    Subscribe(SubscribeResult<'a>),
    /// `unsubscribe: {}`
    Unsubscribe,
    /// `publish: {}`
    Publish,
    /// `presence`
    Presence(&'a [Arc<ClientInfo>]),
    /// `presence_stats`
    PresenceStats {
        /// Entries.
        num_clients: u32,
        /// Distinct users.
        num_users: u32,
    },
    /// `history`
    History {
        /// In the order asked for.
        publications: &'a [Arc<Publication>],
        /// Top of the stream.
        position: StreamPosition,
    },
    /// `refresh`: seconds to live, `None` when the token never expires.
    Refresh(Option<u32>),
    /// `sub_refresh`: likewise.
    SubRefresh(Option<u32>),
    /// `rpc`: raw JSON or bytes; empty leaves `data` out.
    Rpc(&'a [u8]),
}

impl ReplyBody<'_> {
    /// Every payload in it is JSON; otherwise no JSON client can be told (DISCONNECT 3506).
    #[must_use]
    pub fn fits_json(&self) -> bool {
        match self {
            Self::Connect(result) => result.fits_json(),
            Self::Subscribe(result) => result.fits_json(),
            Self::History { publications, .. } => publications.iter().all(|one| one.json),
            Self::Rpc(data) => is_json_or_empty(data),
            Self::Error(_)
            | Self::ChosenError(_)
            | Self::Unsubscribe
            | Self::Publish
            | Self::Presence(_)
            | Self::PresenceStats { .. }
            | Self::Refresh(_)
            | Self::SubRefresh(_) => true,
        }
    }
}

impl ConnectResult<'_> {
    fn fits_json(&self) -> bool {
        is_json_or_empty(self.data) && self.subs.iter().all(|(_, sub)| sub.fits_json())
    }
}

impl SubscribeResult<'_> {
    fn fits_json(&self) -> bool {
        is_json_or_empty(self.data) && self.publications.iter().all(|one| one.json)
    }
}

impl Push<'_> {
    /// Likewise.
    #[must_use]
    pub fn fits_json(&self) -> bool {
        match self {
            Self::Publication(publication) | Self::Shaped(publication, _) => publication.json,
            Self::Message(data) => is_json_or_empty(data),
            Self::Subscribe(result) => result.fits_json(),
            Self::Connect(result) => result.fits_json(),
            Self::Join(_)
            | Self::Leave(_)
            | Self::Unsubscribe(_)
            | Self::Refresh(_)
            | Self::Disconnect(..) => true,
        }
    }
}

fn is_json_or_empty(data: &[u8]) -> bool {
    data.is_empty() || is_json(data)
}

/// ConnectResult
#[derive(Clone, Debug)]
pub struct ConnectResult<'a> {
    /// Connection id.
    pub client: crate::model::ClientId,
    /// `Some(seconds)` when the client must refresh.
    pub ttl: Option<u32>,
    /// Server-side subscriptions by channel.
    pub subs: &'a [(&'a str, SubscribeResult<'a>)],
    /// Seconds between server pings; `None` leaves `ping` and `pong` out.
    pub ping: Option<u32>,
    /// The client must answer pings; not on unidirectional transports.
    pub pong: bool,
    /// Unix milliseconds, if configured.
    pub time: Option<u64>,
    /// From a hook: raw JSON or bytes; empty leaves it out.
    pub data: &'a [u8],
    /// Secret of an emulated or unidirectional connection; empty leaves it out.
    pub session: &'a str,
    /// Which process holds an emulated connection; empty leaves it out.
    pub node: &'a str,
}

/// SubscribeResult
#[derive(Clone, Debug, Default)]
pub struct SubscribeResult<'a> {
    /// `Some(seconds)`: `expires: true` and `ttl`.
    pub ttl: Option<u32>,
    /// Granted.
    pub recoverable: bool,
    /// Granted.
    pub positioned: bool,
    /// Present when recoverable or positioned.
    pub position: Option<StreamPosition>,
    /// Missed publications, oldest first.
    pub publications: &'a [Arc<Publication>],
    /// All missed publications are here.
    pub recovered: bool,
    /// `recover` was asked.
    pub was_recovering: bool,
    /// Raw JSON or bytes; empty leaves it out.
    pub data: &'a [u8],
    /// Delta is agreed: `publications` are a chain of patches.
    pub delta: bool,
}

impl SubscribeResult<'_> {
    /// The shape of each of `publications`: the first one is whole, each later one a patch of the one before where there is one.
    #[must_use]
    pub fn shape(&self, at: usize) -> PayloadShape {
        let chained =
            at > 0 && self.publications[at].offset.0 == self.publications[at - 1].offset.0 + 1;
        match (self.delta, chained && self.publications[at].patch.is_some()) {
            (false, _) => PayloadShape::Plain,
            (true, false) => PayloadShape::Whole,
            (true, true) => PayloadShape::Patch,
        }
    }
}

/// How a publication's payload is told (`spec/centrifuge.md` §4.8).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum PayloadShape {
    /// As it is: to a subscription without delta.
    #[default]
    Plain,
    /// Whole, to a subscription with delta: in JSON as a string.
    Whole,
    /// What makes it out of the publication before. In JSON likewise a string.
    Patch,
}

/// What the server says unasked. `channel` is empty where the schema has none.
#[derive(Clone, Debug)]
pub enum Push<'a> {
    /// A publication.
    Publication(&'a Publication),
    /// A publication to a subscription with delta.
    Shaped(&'a Publication, PayloadShape),
    /// Somebody joined.
    Join(&'a ClientInfo),
    /// Somebody left.
    Leave(&'a ClientInfo),
    /// The subscription ended.
    Unsubscribe(Unsubscribe),
    /// Message to this connection only: raw JSON or bytes.
    Message(&'a [u8]),
    /// Server-side subscription added while connected.
    Subscribe(SubscribeResult<'a>),
    /// Connection refreshed by the server: seconds to live.
    Refresh(Option<u32>),
    /// A unidirectional connection is open. Its Protobuf field numbers differ from those of the reply (trap T7).
    Connect(ConnectResult<'a>),
    /// The connection ends, where no close frame can say so: code and reason.
    Disconnect(u16, &'a str),
}

/// Why a subscription ended (`spec/centrifuge.md` §5.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unsubscribe {
    /// 2000
    Server,
    /// 2000, as the namespace is gone: nobody could subscribe again.
    Gone,
    /// 2500
    Insufficient,
    /// 2501
    Expired,
}

impl Unsubscribe {
    /// Code and reason on the wire.
    #[must_use]
    pub const fn code_reason(self) -> (u32, &'static str) {
        match self {
            Self::Server => (2000, "server unsubscribe"),
            Self::Gone => (2000, "namespace removed"),
            Self::Insufficient => (2500, "insufficient state"),
            Self::Expired => (2501, "subscription expired"),
        }
    }
}
