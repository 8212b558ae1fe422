//! Channel names and the options of their namespaces (`spec/centrifuge.md` §7).

use std::sync::Arc;
use std::time::Duration;

/// What a channel's namespace allows and keeps. Field names are the configuration's keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Namespace {
    /// Empty for `channel.without_namespace`.
    pub name: String,
    /// Keep presence.
    pub presence: bool,
    /// Emit join and leave.
    pub join_leave: bool,
    /// Deliver join and leave to every subscriber.
    pub force_push_join_leave: bool,
    /// Publications kept for recovery; 0 keeps none.
    pub history_size: u32,
    /// How long they are kept.
    pub history_ttl: Duration,
    /// How long epoch and top offset outlive the last publication.
    pub history_meta_ttl: Duration,
    /// Every subscription is positioned.
    pub force_positioning: bool,
    /// A client may ask for positioning.
    pub allow_positioning: bool,
    /// Every subscription is recoverable.
    pub force_recovery: bool,
    /// A client may ask for recovery.
    pub allow_recovery: bool,
    /// Subscribe without a token.
    pub allow_subscribe_for_client: bool,
    /// … also when anonymous.
    pub allow_subscribe_for_anonymous: bool,
    /// Publish by any client.
    pub allow_publish_for_client: bool,
    /// Publish by subscribers.
    pub allow_publish_for_subscriber: bool,
    /// … also when anonymous.
    pub allow_publish_for_anonymous: bool,
    /// History by any client.
    pub allow_history_for_client: bool,
    /// History by subscribers.
    pub allow_history_for_subscriber: bool,
    /// … also when anonymous.
    pub allow_history_for_anonymous: bool,
    /// Presence by any client.
    pub allow_presence_for_client: bool,
    /// Presence by subscribers.
    pub allow_presence_for_subscriber: bool,
    /// … also when anonymous.
    pub allow_presence_for_anonymous: bool,
    /// `dialog#42,43`
    pub allow_user_limited_channels: bool,
    /// What a payload must be.
    pub publication_data_format: DataFormat,
    /// What happens to a subscriber whose outbox is full.
    pub slow_consumer: SlowConsumer,
    /// Bytes of one publication; 0 leaves only the transport's limit.
    pub size_max: u32,
    /// Client publishes per second and connection; 0 is off. Over it: error 111.
    pub rate: u32,
    /// How long an idempotency key is remembered; default 5 min.
    pub idempotency_ttl: Duration,
}

/// `publication_data_format`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DataFormat {
    /// `""`: anything but empty.
    #[default]
    NotEmpty,
    /// `json`
    Json,
    /// `json_object`
    JsonObject,
    /// `binary`: anything, empty included.
    Binary,
}

/// `slow_consumer`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SlowConsumer {
    /// Disconnect with 3008.
    #[default]
    Disconnect,
    /// The oldest unsent publications of the channel go; the subscriber is told.
    DropOldest,
}

/// The grammar of channel names and all namespaces.
#[derive(Clone, Debug)]
pub struct ChannelRules {
    /// `channel.max_length`, default 255 bytes.
    pub max_length: usize,
    /// `channel.private_prefix`, default `$`; empty turns private channels off.
    pub private_prefix: String,
    /// `channel.namespace_boundary`, default `:`.
    pub namespace_boundary: String,
    /// `channel.user_boundary`, default `#`.
    pub user_boundary: String,
    /// `channel.user_separator`, default `,`.
    pub user_separator: String,
    /// `channel.without_namespace`
    pub without_namespace: Arc<Namespace>,
    /// `channel.namespaces`, by name.
    pub namespaces: Vec<Arc<Namespace>>,
}
