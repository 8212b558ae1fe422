//! Requests of a service, borrowed from the body.

use std::borrow::Cow;

use super::error::ApiError;
use crate::mesh::durable::LogMethod;
use crate::mesh::message::Revocation;
use crate::model::{ClientId, Overrides};
use crate::protocol::disconnect::Disconnect;

/// A payload: one JSON value without raw line breaks, borrowed if it was sent so, or the bytes of `b64data`.
pub type Data<'a> = Cow<'a, [u8]>;

/// One request. Channels are not empty; whether they exist is for the caller to find out.
#[derive(Clone, Debug, PartialEq)]
pub enum Request<'a> {
    /// Publish into one channel.
    Publish {
        /// Channel.
        channel: Cow<'a, str>,
        /// Empty only if `b64data` was sent empty: the namespace decides whether that is a payload.
        data: Data<'a>,
        /// The rest.
        options: PublishOptions<'a>,
    },
    /// Publish the same into many channels.
    Broadcast(Broadcast<'a>),
    /// Subscribe connections of a user.
    Subscribe(Box<SubscribeCall<'a>>),
    /// Unsubscribe connections of a user.
    Unsubscribe {
        /// Whose.
        target: Whom<'a>,
        /// Channel.
        channel: Cow<'a, str>,
    },
    /// Disconnect a user.
    Disconnect {
        /// Whom.
        target: Whom<'a>,
        /// Client ids that stay.
        whitelist: Vec<Cow<'a, str>>,
        /// How; `ForceDisconnect` unless the service chose.
        disconnect: Disconnect,
    },
    /// Change the expiry of connections of a user.
    Refresh(ConnectionRefresh<'a>),
    /// Shut tokens or a user out, or let a user in again. Ids and users are not empty.
    Revoke(Revocation),
    /// Who is in a channel.
    Presence {
        /// Channel.
        channel: Cow<'a, str>,
        /// So many at most; 0: all of them, if one answer has room for all.
        limit: u32,
        /// Those behind this one, by client id.
        after: Option<ClientId>,
    },
    /// How many are in a channel.
    PresenceStats {
        /// Channel.
        channel: Cow<'a, str>,
    },
    /// Publications kept.
    History(HistoryCall<'a>),
    /// Forget them; epoch and top offset stay.
    HistoryRemove {
        /// Channel.
        channel: Cow<'a, str>,
    },
    /// Active channels.
    Channels {
        /// Glob with `*`; empty means all.
        pattern: Cow<'a, str>,
    },
    /// This server.
    Info,
    /// Something that the log's side answers: parameters in JSON.
    Log(LogMethod, &'a [u8]),
    /// Several requests, none of them a batch.
    Batch(Batch<'a>),
}

impl Request<'_> {
    /// The method, as in `/api/<method>`.
    #[must_use]
    pub fn method(&self) -> &'static str {
        match self {
            Self::Publish { .. } => "publish",
            Self::Broadcast(_) => "broadcast",
            Self::Subscribe(_) => "subscribe",
            Self::Unsubscribe { .. } => "unsubscribe",
            Self::Disconnect { .. } => "disconnect",
            Self::Refresh(_) => "refresh",
            Self::Revoke(Revocation::Token { .. }) => "revoke_token",
            Self::Revoke(Revocation::UserTokens { .. }) => "invalidate_user_tokens",
            Self::Revoke(Revocation::Block { .. }) => "block_user",
            Self::Revoke(Revocation::Unblock { .. }) => "unblock_user",
            Self::Presence { .. } => "presence",
            Self::PresenceStats { .. } => "presence_stats",
            Self::History(_) => "history",
            Self::HistoryRemove { .. } => "history_remove",
            Self::Channels { .. } => "channels",
            Self::Info => "info",
            Self::Log(method, _) => {
                let mut known = LogMethod::API.iter();
                let found = known.find(|(_, one)| one == method);
                found.map_or("", |(name, _)| name)
            }
            Self::Batch(_) => "batch",
        }
    }
}

/// How to publish.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PublishOptions<'a> {
    /// Do not store, give no offset.
    pub skip_history: bool,
    /// In the sender's order; a name may come twice.
    pub tags: Vec<(Cow<'a, str>, Cow<'a, str>)>,
    /// A repeat within the namespace's `idempotency_ttl` answers the first result; empty is off.
    pub idempotency_key: Cow<'a, str>,
    /// May be sent as a patch of the publication before.
    pub delta: bool,
    /// Nothing is published unless it is greater than the channel's last; 0 is off.
    pub version: u64,
    /// Versions of different epochs do not compare.
    pub version_epoch: Cow<'a, str>,
    /// Version of the payload's schema, in durable channels; 0 for none.
    pub schema: u64,
    /// Trace id that goes with a durable publication; empty for none.
    pub trace: Cow<'a, str>,
    /// When a durable publication is published, Unix milliseconds; 0 for now.
    pub deliver_at: u64,
    /// After how many milliseconds it is published; 0 for at once.
    pub delay_ms: u64,
    /// For how many milliseconds a durable publication is kept; 0 for as long as its channel keeps others.
    pub ttl_ms: u64,
    /// What is wrong with the first member that nobody knows. The reference ignores it; a durable publication is refused, lest it
    /// is kept without what its publisher asked for.
    pub unknown: Option<Box<str>>,
}

/// Publish the same into many channels; each answers on its own.
#[derive(Clone, Debug, PartialEq)]
pub struct Broadcast<'a> {
    /// At least one. A name may be empty: that channel answers `BadRequest`.
    pub channels: Vec<Cow<'a, str>>,
    /// Empty if absent: each channel answers what its namespace makes of that.
    pub data: Data<'a>,
    /// The rest, for each channel on its own.
    pub options: PublishOptions<'a>,
}

/// Which connections: all of a user, narrowed by `client` and `session`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Whom<'a> {
    /// User id; the empty one selects anonymous connections.
    pub user: Cow<'a, str>,
    /// Client id; empty means any.
    pub client: Cow<'a, str>,
    /// Session id; empty means any.
    pub session: Cow<'a, str>,
}

/// Server-side subscription of connected clients.
#[derive(Clone, Debug, PartialEq)]
pub struct SubscribeCall<'a> {
    /// Whose connections.
    pub target: Whom<'a>,
    /// Channel.
    pub channel: Cow<'a, str>,
    /// When it ends, Unix seconds.
    pub expire_at: Option<i64>,
    /// Becomes `chan_info`: one JSON value, empty when absent.
    pub info: Data<'a>,
    /// Goes with the Subscribe push: one JSON value, empty when absent.
    pub data: Data<'a>,
    /// Recover from (offset, epoch as sent).
    pub recover_since: Option<(u64, Cow<'a, str>)>,
    /// Options in place of the namespace's.
    pub overrides: Overrides,
}

/// New expiry of connections.
#[derive(Clone, Debug, PartialEq)]
pub struct ConnectionRefresh<'a> {
    /// Whose.
    pub target: Whom<'a>,
    /// They expired now.
    pub expired: bool,
    /// Unix seconds; `None`: they no longer expire.
    pub expire_at: Option<i64>,
    /// New `conn_info`: one JSON value, empty when absent.
    pub info: Data<'a>,
}

/// Publications kept in a channel.
#[derive(Clone, Debug, PartialEq)]
pub struct HistoryCall<'a> {
    /// Channel.
    pub channel: Cow<'a, str>,
    /// 0: position only; negative: all.
    pub limit: i32,
    /// Exclusive start: (offset, epoch as sent). The offset is not 0 if `reverse`.
    pub since: Option<(u64, Cow<'a, str>)>,
    /// Newest first.
    pub reverse: bool,
}

/// Several requests at once.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch<'a> {
    /// In the order of their answers.
    pub commands: Vec<Result<Request<'a>, ApiError>>,
    /// They may be carried out in any order.
    pub parallel: bool,
}

#[cfg(test)]
mod tests {
    use super::super::methods;
    use crate::config::access::{API_METHODS, CHANNEL_METHODS};
    use crate::mesh::durable::LogMethod;

    #[test]
    fn a_key_can_be_limited_to_every_method_of_the_server_api() {
        let known = methods().into_iter().map(|method| method.name);
        let of_log = LogMethod::API.iter().map(|(name, _)| *name);
        let all: Vec<&str> = known
            .filter(|name| *name != "batch")
            .chain(of_log)
            .collect();
        assert_eq!(API_METHODS.as_slice(), all);
        assert!(CHANNEL_METHODS.iter().all(|name| all.contains(name)));
    }
}
