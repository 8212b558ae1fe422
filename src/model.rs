//! The nouns that every layer shares.

mod draft;
mod record;
pub mod tenant;

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

pub use draft::{Draft, Terms, Way};
pub use record::{ConsumeGrant, Entry, EventId, Origin, Record, key_of_client};
pub use tenant::{TenantId, UserId, Weights};

/// One shard of the process: 0 .. `SHARDS_MAX`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardId(pub u16);

/// One connection of one shard. A stale generation names a connection that is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId {
    /// Index of the socket in the reactor and of the connection in the shard.
    pub slot: u32,
    /// Bumped whenever the slot is freed; 24 bits are used.
    pub generation: u32,
}

/// One channel of a shard's hub. A stale generation names a channel that lost its last subscriber there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HubId {
    /// Slot.
    pub slot: u32,
    /// Generation of the slot.
    pub generation: u32,
}

/// One question of a shard that waits for its answer. A stale generation names one that has ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AskId {
    /// Slot in the table of questions of its kind.
    pub slot: u32,
    /// Generation of the slot.
    pub generation: u32,
}

/// Position within one epoch of a channel: 1, 2, 3 … without holes. 0 means "before the first".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Offset(pub u64);

/// Which life of a channel: eight ASCII letters (`spec/centrifuge.md` §4.4).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Epoch(pub [u8; 8]);

impl Epoch {
    /// Letters out of 64 random bits.
    #[must_use]
    pub fn from_random(mut bits: u64) -> Self {
        const LETTERS: &[u8; 52] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
        let mut out = [0; 8];
        for letter in &mut out {
            *letter = LETTERS[(bits % 52) as usize];
            bits /= 52;
        }
        Self(out)
    }

    /// The epoch as it stands on the wire.
    #[must_use]
    pub fn as_str(&self) -> &str {
        str::from_utf8(&self.0).unwrap_or("")
    }

    /// Reads what a client sent. `None` for text that no epoch of this program can be.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        text.as_bytes().try_into().ok().map(Self)
    }
}

impl fmt::Debug for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Which life of a channel somebody speaks of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Since {
    /// Whatever life it has.
    #[default]
    Any,
    /// None that a channel of this program ever had.
    Nothing,
    /// This one.
    Epoch(Epoch),
}

impl Since {
    /// The epoch as somebody sent it: empty text stands for any.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        match Epoch::parse(text) {
            _ if text.is_empty() => Self::Any,
            Some(epoch) => Self::Epoch(epoch),
            None => Self::Nothing,
        }
    }

    /// Does a channel in this life have what is spoken of?
    #[must_use]
    pub fn fits(self, epoch: Epoch) -> bool {
        self == Self::Any || self.is(epoch)
    }

    /// Is it exactly this life?
    #[must_use]
    pub fn is(self, epoch: Epoch) -> bool {
        self == Self::Epoch(epoch)
    }
}

/// (epoch, offset) of a channel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StreamPosition {
    /// Life of the channel.
    pub epoch: Epoch,
    /// Position within it.
    pub offset: Offset,
}

/// Name of a channel, with the tenant whose it is. Checked by `config::Config::channel` before it is made; cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChannelName(Arc<str>);

impl ChannelName {
    /// A channel of a tenant. The caller has resolved the name's namespace.
    #[must_use]
    pub fn of(tenant: TenantId<'_>, name: &str) -> Self {
        Self(tenant.whole(name).into())
    }

    /// The one with this whole name, as it is stored.
    #[must_use]
    pub fn from_whole(whole: &str) -> Self {
        Self(whole.into())
    }

    /// What it is filed under.
    #[must_use]
    pub fn whole(&self) -> &str {
        &self.0
    }

    /// Its name within the tenant, with prefix and namespace: what clients and services see.
    #[must_use]
    pub fn name(&self) -> &str {
        TenantId::split(&self.0).1
    }

    /// For people who may see every tenant's: `acme/chat`, and the name alone of what is nobody's.
    #[must_use]
    pub fn shown(&self) -> Cow<'_, str> {
        tenant::shown(&self.0)
    }

    /// Whose channel it is.
    #[must_use]
    pub fn tenant(&self) -> TenantId<'_> {
        TenantId::of(&self.0)
    }
}

impl fmt::Debug for ChannelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

/// Unique id of a client connection, a version 4 UUID. Aligned to eight bytes: sixteen would cost a session sixteen more.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(Rust, packed(8))]
pub struct ClientId(pub u128);

impl ClientId {
    /// Sets version and variant bits (RFC 9562 §5.4) in 128 random bits.
    #[must_use]
    pub const fn from_random(bits: u128) -> Self {
        let bits = bits & !(0xf << 76) | (0x4 << 76);
        Self(bits & !(0x3 << 62) | (0x2 << 62))
    }

    /// The canonical 36 characters.
    #[must_use]
    pub fn encode(self) -> [u8; 36] {
        uuid_text(self.0)
    }

    /// Reads the canonical form; `None` for anything else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        parse_uuid(text).map(Self)
    }
}

/// The canonical 36 characters of a UUID.
fn uuid_text(bits: u128) -> [u8; 36] {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let mut out = [b'-'; 36];
    let mut at = 0;
    for nibble in 0..32 {
        if matches!(nibble, 8 | 12 | 16 | 20) {
            at += 1;
        }
        out[at] = HEX[(bits >> (124 - 4 * nibble)) as usize & 0xf];
        at += 1;
    }
    out
}

/// Reads the canonical form of a UUID; `None` for anything else.
fn parse_uuid(text: &str) -> Option<u128> {
    let bytes = text.as_bytes();
    if bytes.len() != 36 {
        return None;
    }
    let mut value = 0u128;
    for (at, &byte) in bytes.iter().enumerate() {
        if matches!(at, 8 | 13 | 18 | 23) {
            if byte != b'-' {
                return None;
            }
        } else {
            value = value << 4 | u128::from(char::from(byte).to_digit(16)?);
        }
    }
    Some(value)
}

impl fmt::Display for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(str::from_utf8(&self.encode()).unwrap_or(""))
    }
}

impl fmt::Debug for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Who published, joined, left or is present (`spec/centrifuge.md` §3.3 ClientInfo).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientInfo {
    /// User id; empty for the anonymous user.
    pub user: Box<str>,
    /// Connection id.
    pub client: ClientId,
    /// Connection info: one JSON value or bytes, empty when absent.
    pub conn_info: Bytes,
    /// Subscription info: one JSON value or bytes, empty when absent.
    pub chan_info: Bytes,
}

/// One publication of a channel, immutable once its owner has made it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publication {
    /// 0 when the channel keeps no history.
    pub offset: Offset,
    /// Epoch of the channel; meaningless when `offset` is 0.
    pub epoch: Epoch,
    /// Payload: one JSON value without raw line breaks, or arbitrary bytes.
    pub data: Bytes,
    /// `data` is one JSON value; otherwise JSON subscribers cannot get it (DISCONNECT 3506).
    pub json: bool,
    /// Set only when a client published.
    pub info: Option<Arc<ClientInfo>>,
    /// Tags, in the publisher's order.
    pub tags: Box<[(Box<str>, Box<str>)]>,
    /// When the owner accepted it, Unix milliseconds.
    pub unix_ms: u64,
    /// Clients are told `unix_ms`.
    pub tells_time: bool,
    /// What makes `data` out of the data of the publication before it in the stream; `None` where there is none.
    pub patch: Option<Bytes>,
    /// Its publisher allows it to reach subscribers as a patch of the publication before.
    pub delta: bool,
}

/// Namespace options that a token or the server API sets for one subscription.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// `presence`
    pub presence: Option<bool>,
    /// `join_leave`
    pub join_leave: Option<bool>,
    /// `force_push_join_leave`
    pub force_push_join_leave: Option<bool>,
    /// `force_recovery`
    pub force_recovery: Option<bool>,
    /// `force_positioning`
    pub force_positioning: Option<bool>,
}

/// How a client speaks, and how what it is told is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Format {
    /// What is said.
    pub speaker: Speaker,
    /// Of each message.
    pub encoding: Encoding,
    /// Around it.
    pub framing: Framing,
}

/// Who turns what a client sends into verbs, and their outcomes into what it is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Speaker {
    /// Commands come in, replies and pushes go out (`spec/centrifuge.md` §2).
    #[default]
    Centrifuge,
    /// A connect request comes in, bare pushes go out (`spec/centrifuge.md` §1.8).
    Unidirectional,
    /// A long poll: a request comes in, and one response goes out, which the shard writes. Encoding and framing say nothing.
    Poll,
}

/// Encoding of messages (`spec/centrifuge.md` §2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// One JSON object a message.
    #[default]
    Json,
    /// A length-delimited Protobuf message.
    Protobuf,
}

/// What stands around each message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Framing {
    /// A WebSocket frame.
    #[default]
    WebSocket,
    /// A WebSocket frame that holds what goes out at the same time, a line each.
    Joined,
    /// A WebSocket frame with a compressed payload (RFC 7692).
    Deflate,
    /// A chunk of an HTTP response body (`spec/centrifuge.md` §1.5).
    Stream,
    /// A server-sent event in a chunk of an HTTP response body (`spec/centrifuge.md` §1.6).
    EventStream,
    /// As `Stream` without chunks: the body of a response to HTTP/1.0, which ends with the connection.
    PlainStream,
    /// As `EventStream` without chunks.
    PlainEventStream,
}

impl Framing {
    /// Messages are the body of an HTTP response without a known end.
    #[must_use]
    pub const fn is_stream(self) -> bool {
        match self {
            Self::Stream | Self::EventStream | Self::PlainStream | Self::PlainEventStream => true,
            Self::WebSocket | Self::Joined | Self::Deflate => false,
        }
    }

    /// Messages are server-sent events.
    #[must_use]
    pub const fn is_events(self) -> bool {
        matches!(self, Self::EventStream | Self::PlainEventStream)
    }

    /// Messages are chunks of an HTTP response body, which needs a last one.
    #[must_use]
    pub const fn is_chunked(self) -> bool {
        matches!(self, Self::Stream | Self::EventStream)
    }
}

/// An error that a backend chose for a client (`spec/centrifuge.md` §9.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChosenError {
    /// Code on the wire.
    pub code: u32,
    /// Message on the wire.
    pub message: Box<str>,
    /// The client may try again.
    pub temporary: bool,
}

/// A node of a tags filter, as sent: not checked (`spec/centrifuge.md` §3.3, §4.10).
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct FilterNode {
    /// `and`, `or`, `not`, or empty for a leaf.
    pub op: Box<str>,
    /// Tag that a leaf compares.
    pub key: Box<str>,
    /// Comparison of a leaf.
    pub cmp: Box<str>,
    /// Operand.
    pub val: Box<str>,
    /// Operands.
    pub vals: Vec<Box<str>>,
    /// Children.
    pub nodes: Vec<FilterNode>,
}

impl FilterNode {
    /// Bytes of memory that it takes with everything below it, about.
    #[must_use]
    pub fn weight(&self) -> usize {
        let texts = [&self.op, &self.key, &self.cmp, &self.val].map(|text| text.len());
        let vals = self.vals.iter().map(|val| val.len()).sum::<usize>();
        let nodes = self.nodes.iter().map(Self::weight).sum::<usize>();
        size_of::<Self>() + texts.iter().sum::<usize>() + vals + size_of_val(&*self.vals) + nodes
    }
}
