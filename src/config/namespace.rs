//! Channel names and the options of their namespaces (`spec/centrifuge.md` §7).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::Pattern;
use super::apart::Key;
use super::durable::{Kept, Schema, Trigger};
use super::hooks::DEFAULT_NAME;
use crate::limits::{CHANNELS_OWNED_MAX, SERVER_CHANNEL_NAME_BYTES_MAX};
use crate::model::TenantId;

/// Start of the channels on which the dead letters of queue groups are announced: `$dead:<group>`. Wherever there is a durable log
/// they are in it, and nobody else publishes there.
pub const DEAD_PREFIX: &str = "$dead:";
/// Start of the channels that hold what is put into one queue group only: `$queue:<group>`.
pub const QUEUE_PREFIX: &str = "$queue:";

/// Whole name of the channel of what is put into a group only, by the whole name of the group.
#[must_use]
pub fn queue_of(group: &str) -> String {
    let (tenant, group) = TenantId::split(group);
    let channel = format!("{QUEUE_PREFIX}{group}");
    tenant.whole(&channel).into_owned()
}

/// Is the channel with this whole name one of those?
#[must_use]
pub fn is_queue(channel: &str) -> bool {
    TenantId::split(channel).1.starts_with(QUEUE_PREFIX)
}

/// Whole name of the channel on which a group's dead letters are announced, by the whole name of the group.
#[must_use]
pub fn letters_of(group: &str) -> String {
    let (tenant, group) = TenantId::split(group);
    let channel = format!("{DEAD_PREFIX}{group}");
    tenant.whole(&channel).into_owned()
}

/// Is the channel with this whole name, or what this pattern means, one of those?
#[must_use]
pub fn is_of_letters(channel: &str) -> bool {
    TenantId::split(channel).1.starts_with(DEAD_PREFIX)
}

/// The namespace that says who may read them.
const DEAD_NAMESPACE: &str = "dead";
/// In memory of each of them, where that namespace says nothing of it.
const DEAD_WINDOW: (u32, Duration) = (256, Duration::from_mins(5));

/// Does a pattern leave this channel out although it matches it? Both are whole: a pattern means channels of its tenant. Announcements of dead letters are meant by patterns only that
/// begin as they do, lest who takes from everything takes from them too.
#[must_use]
pub fn leaves_out(pattern: &str, channel: &str) -> bool {
    TenantId::of(pattern) != TenantId::of(channel)
        || is_of_letters(channel) && !is_of_letters(pattern)
}

/// What a channel's namespace allows and keeps. Field names are the configuration's keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Namespace {
    /// Empty for `channel.without_namespace`.
    pub name: String,
    /// What is promised of its publications.
    pub delivery: Delivery,
    /// Keep presence.
    pub presence: bool,
    /// Emit join and leave.
    pub join_leave: bool,
    /// Deliver join and leave to every subscriber.
    pub force_push_join_leave: bool,
    /// Joins and leaves of one channel that subscribers are told one by one in a second; 0 tells all. The others are counted, and told
    /// together.
    pub join_leave_rate: u32,
    /// Publications kept for recovery; 0 keeps none.
    pub history_size: u32,
    /// How long they are kept.
    pub history_ttl: Duration,
    /// How long epoch and top offset outlive the last publication; default 720 h.
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
    /// Of the unsent publications of a channel with the same key the latest stays, under `conflate`.
    pub conflate_key: Option<Key>,
    /// Bytes of a channel's unsent publications for one subscriber; 0 leaves only `client.queue_max_size`.
    pub outbox_bytes_max: u32,
    /// How long a publication may wait for a subscriber, to a tenth of a second; 0 is for ever.
    pub outbox_age_max: Duration,
    /// Bytes of one publication; 0 leaves only the transport's limit.
    pub size_max: u32,
    /// Client publishes per second and connection; 0 is off. Over it: error 111.
    pub rate: u32,
    /// How long an idempotency key is remembered; default 5 min.
    pub idempotency_ttl: Duration,
    /// What recovery gives back.
    pub force_recovery_mode: RecoveryMode,
    /// Every subscription starts with the latest publication.
    pub auto_cache_recover: bool,
    /// How payloads may be told as what changed.
    pub allowed_delta_types: Vec<DeltaType>,
    /// Every publication may be told so, not only those whose publisher says it.
    pub delta_publish: bool,
    /// A client may say which publications it wants by their tags.
    pub allow_tags_filter: bool,
    /// Publications carry the time at which they were taken in.
    pub publication_time: bool,
    /// How long a publication may wait on each shard so that it goes to subscribers together with those behind it; 0 is off.
    pub batch_max_delay: Duration,
    /// With so many of a channel nobody waits any longer; 0 leaves only the delay.
    pub batch_max_size: u32,
    /// Of those that waited together, subscribers get the latest only.
    pub batch_flush_latest: bool,
    /// What a channel's name must match behind the namespace; `None`: ASCII.
    pub channel_regex: Option<Pattern>,
    /// A backend decides about subscriptions without a token.
    pub subscribe_proxy_enabled: bool,
    /// Which: `default` is `channel.proxy.subscribe`.
    pub subscribe_proxy_name: String,
    /// A backend decides about client publications.
    pub publish_proxy_enabled: bool,
    /// Which: `default` is `channel.proxy.publish`.
    pub publish_proxy_name: String,
    /// A backend prolongs subscriptions.
    pub sub_refresh_proxy_enabled: bool,
    /// Which: `default` is `channel.proxy.sub_refresh`.
    pub sub_refresh_proxy_name: String,
    /// How long a durable namespace keeps what, where that is less than the whole log.
    pub kept: Kept,
    /// Of publications of a channel with the same key, written as for the turns of a group, the latest stays; empty keeps all.
    pub compact_by: String,
    /// How long one stays that a later one replaces.
    pub compact_after: Duration,
    /// Which payloads a durable namespace takes.
    pub schema: Schema,
    /// What follows from a durable publication.
    pub triggers: Vec<Trigger>,
}

/// `delivery`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Delivery {
    /// At most once, in memory.
    #[default]
    Ephemeral,
    /// At least once, in order, out of the durable log.
    Durable,
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

/// `force_recovery_mode`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RecoveryMode {
    /// `stream`: everything that was missed.
    #[default]
    Stream,
    /// `cache`: the latest publication.
    Cache,
}

/// One of `allowed_delta_types`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeltaType {
    /// `fossil`
    Fossil,
}

/// `slow_consumer`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SlowConsumer {
    /// Disconnect with 3008.
    #[default]
    Disconnect,
    /// The oldest unsent publications of the channel go; the subscriber is told.
    DropOldest,
    /// Of its unsent publications with the same key the latest stays; then the oldest go. The subscriber is told.
    Conflate,
    /// Disconnect with 4510, whose reason says where to poll from.
    Degrade,
}

impl Default for Namespace {
    fn default() -> Self {
        Self {
            name: String::new(),
            delivery: Delivery::Ephemeral,
            presence: false,
            join_leave: false,
            force_push_join_leave: false,
            join_leave_rate: 0,
            history_size: 0,
            history_ttl: Duration::ZERO,
            history_meta_ttl: Duration::from_hours(720),
            force_positioning: false,
            allow_positioning: false,
            force_recovery: false,
            allow_recovery: false,
            allow_subscribe_for_client: false,
            allow_subscribe_for_anonymous: false,
            allow_publish_for_client: false,
            allow_publish_for_subscriber: false,
            allow_publish_for_anonymous: false,
            allow_history_for_client: false,
            allow_history_for_subscriber: false,
            allow_history_for_anonymous: false,
            allow_presence_for_client: false,
            allow_presence_for_subscriber: false,
            allow_presence_for_anonymous: false,
            allow_user_limited_channels: false,
            publication_data_format: DataFormat::NotEmpty,
            slow_consumer: SlowConsumer::Disconnect,
            conflate_key: None,
            outbox_bytes_max: 0,
            outbox_age_max: Duration::ZERO,
            size_max: 0,
            rate: 0,
            idempotency_ttl: Duration::from_mins(5),
            force_recovery_mode: RecoveryMode::Stream,
            auto_cache_recover: false,
            allowed_delta_types: Vec::new(),
            delta_publish: false,
            allow_tags_filter: false,
            publication_time: false,
            batch_max_delay: Duration::ZERO,
            batch_max_size: 0,
            batch_flush_latest: false,
            channel_regex: None,
            subscribe_proxy_enabled: false,
            subscribe_proxy_name: DEFAULT_NAME.to_owned(),
            publish_proxy_enabled: false,
            publish_proxy_name: DEFAULT_NAME.to_owned(),
            sub_refresh_proxy_enabled: false,
            sub_refresh_proxy_name: DEFAULT_NAME.to_owned(),
            kept: Kept::default(),
            compact_by: String::new(),
            compact_after: Duration::from_mins(1),
            schema: Schema::default(),
            triggers: Vec::new(),
        }
    }
}

impl Namespace {
    /// Are its publications kept in the durable log?
    #[must_use]
    pub const fn is_durable(&self) -> bool {
        matches!(self.delivery, Delivery::Durable)
    }

    /// Does a channel of this namespace keep publications?
    #[must_use]
    pub const fn keeps_history(&self) -> bool {
        self.history_size > 0 && !self.history_ttl.is_zero()
    }

    /// Are its unsent publications looked at one by one, not only all bytes of a connection together?
    #[must_use]
    pub const fn watches_outbox(&self) -> bool {
        !matches!(self.slow_consumer, SlowConsumer::Disconnect)
            || self.outbox_bytes_max > 0
            || !self.outbox_age_max.is_zero()
    }

    /// May its unsent publications be left out?
    #[must_use]
    pub const fn may_lose(&self) -> bool {
        matches!(
            self.slow_consumer,
            SlowConsumer::DropOldest | SlowConsumer::Conflate
        )
    }

    /// May subscribers get patches?
    #[must_use]
    pub fn fossil(&self) -> bool {
        self.allowed_delta_types.contains(&DeltaType::Fossil)
    }

    /// The rules of `DEAD_PREFIX`: as here, as far as they say who may read and who is there.
    fn for_letters(self) -> Self {
        let is_kept = self.keeps_history();
        Self {
            name: DEAD_NAMESPACE.to_owned(),
            delivery: Delivery::Durable,
            history_size: if is_kept {
                self.history_size
            } else {
                DEAD_WINDOW.0
            },
            history_ttl: if is_kept {
                self.history_ttl
            } else {
                DEAD_WINDOW.1
            },
            allow_publish_for_client: false,
            allow_publish_for_subscriber: false,
            allow_publish_for_anonymous: false,
            publish_proxy_enabled: false,
            publication_data_format: DataFormat::NotEmpty,
            size_max: 0,
            force_recovery_mode: RecoveryMode::Stream,
            auto_cache_recover: false,
            schema: Schema::default(),
            triggers: Vec::new(),
            ..self
        }
    }

    /// Does a subscription recover that did not ask for it?
    #[must_use]
    pub fn recovers_by_itself(&self) -> bool {
        self.auto_cache_recover && self.force_recovery_mode == RecoveryMode::Cache
    }
}

/// The grammar of channel names and all namespaces.
#[derive(Clone, Debug, PartialEq, Eq)]
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
    /// `channel.namespaces`, sorted by name.
    pub namespaces: Vec<Arc<Namespace>>,
    /// Of the channels with `DEAD_PREFIX`, where there is a durable log.
    pub letters: Arc<Namespace>,
    /// The rules of each tenant's channels, by its id. Empty in those.
    pub tenants: Arc<BTreeMap<Box<str>, super::TenantRules>>,
    /// `channel.owned_limit`: channels that one shard keeps a record of. Over it, the one without subscribers that was used
    /// longest ago is forgotten.
    pub owned_limit: u32,
    /// `channel.new_rate_limit`: channels and idempotency keys that one connection may make in a second on each shard, those
    /// of ten seconds at once; 0 is off. Over it: error 111. Only what outlives its publication counts.
    pub new_rate_limit: u32,
    /// `channel.new_rate_limit_per_user`
    pub new_rate_limit_per_user: u32,
    /// `channel.new_rate_limit_per_prefix`
    pub new_rate_limit_per_prefix: u32,
    /// `channel.kept_limit_per_user`: channels that one user made and one shard still keeps; 0 is off. Over it, the user's own
    /// oldest without subscribers is forgotten.
    pub kept_limit_per_user: u32,
    /// `channel.kept_limit_per_prefix`
    pub kept_limit_per_prefix: u32,
}

/// Why a name has no rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// The name's namespace is not configured.
    #[error("unknown namespace")]
    Unknown,
}

/// Why a channel that a service names has no rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ServerNameError {
    /// No name, or one over `limits::SERVER_CHANNEL_NAME_BYTES_MAX` bytes.
    #[error("the length of a channel name")]
    Length,
    /// The name's namespace is not configured.
    #[error("unknown namespace")]
    Unknown,
}

/// Why a client may not use a name at all (`spec/centrifuge.md` §4.3, checks 1 and 2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// No name.
    #[error("empty channel name")]
    Empty,
    /// Over `channel.max_length` bytes.
    #[error("channel name too long")]
    TooLong,
}

impl Default for ChannelRules {
    fn default() -> Self {
        Self {
            max_length: 255,
            private_prefix: "$".to_owned(),
            namespace_boundary: ":".to_owned(),
            user_boundary: "#".to_owned(),
            user_separator: ",".to_owned(),
            without_namespace: Arc::new(Namespace::default()),
            namespaces: Vec::new(),
            letters: Arc::new(Namespace::default().for_letters()),
            tenants: Arc::default(),
            owned_limit: CHANNELS_OWNED_MAX as u32,
            new_rate_limit: 200,
            new_rate_limit_per_user: 500,
            new_rate_limit_per_prefix: 2000,
            kept_limit_per_user: 1 << 14,
            kept_limit_per_prefix: 1 << 18,
        }
    }
}

impl ChannelRules {
    /// The namespace of a channel (`spec/centrifuge.md` §7.1): what stands before the first boundary,
    /// after one private prefix is taken off. A name without boundary has the rules of `without_namespace`.
    ///
    /// # Errors
    /// The namespace is not configured.
    pub fn resolve(&self, name: &str) -> Result<&Arc<Namespace>, ResolveError> {
        if self.is_of_letters(name) {
            return Ok(&self.letters);
        }
        let Some((namespace, _)) = self.bare(name).split_once(self.namespace_boundary.as_str())
        else {
            return Ok(&self.without_namespace);
        };
        self.namespace(namespace).ok_or(ResolveError::Unknown)
    }

    /// The namespace of a channel that a service, a token or a hook names. Clients need not be able to subscribe to it by
    /// themselves, so only its length has a bound.
    ///
    /// # Errors
    /// The name is empty or too long, or its namespace is not configured.
    pub fn resolve_named_by_server(&self, name: &str) -> Result<&Arc<Namespace>, ServerNameError> {
        if name.is_empty() || name.len() > SERVER_CHANNEL_NAME_BYTES_MAX {
            return Err(ServerNameError::Length);
        }
        self.resolve(name)
            .map_err(|_unknown| ServerNameError::Unknown)
    }

    /// May this name, or pattern (`*`), mean a channel of a durable namespace?
    #[must_use]
    pub fn reaches_durable(&self, pattern: &str) -> bool {
        if self.is_of_letters(pattern) {
            return true;
        }
        let Some((start, _)) = pattern.split_once('*') else {
            return self.resolve(pattern).is_ok_and(|known| known.is_durable());
        };
        let boundary = self.namespace_boundary.as_str();
        let start = self.bare(start);
        if let Some((name, _)) = start.split_once(boundary) {
            return self.namespace(name).is_some_and(|known| known.is_durable());
        }
        let begins_so =
            |known: &Arc<Namespace>| known.is_durable() && known.name.starts_with(start);
        self.namespaces.iter().any(begins_so)
            || self.without_namespace.is_durable() && !pattern.contains(boundary)
    }

    /// What stands where a namespace stands in a name, whether there is one of that name or not; empty for none.
    #[must_use]
    pub fn named<'a>(&self, channel: &'a str) -> &'a str {
        let parts = self
            .bare(channel)
            .split_once(self.namespace_boundary.as_str());
        parts.map_or("", |(namespace, _)| namespace)
    }

    /// A name without private prefix.
    fn bare<'a>(&self, name: &'a str) -> &'a str {
        if self.private_prefix.is_empty() {
            return name;
        }
        name.strip_prefix(self.private_prefix.as_str())
            .unwrap_or(name)
    }

    /// Keys that would change what is promised of channels that may be in use, or that need a log where there is none.
    pub(super) fn deliveries_changed(&self, new: &Self, has_log: bool) -> Vec<String> {
        let of = |rules: &Self, name: &str| {
            let mut all = rules.namespaces.iter();
            let namespace = match name {
                "" => Some(&rules.without_namespace),
                name => all.find(|one| one.name == name),
            };
            namespace.map(|namespace| namespace.delivery)
        };
        let changed = |namespace: &&Arc<Namespace>| match of(self, &namespace.name) {
            Some(before) => before != namespace.delivery,
            None => namespace.is_durable() && !has_log,
        };
        std::iter::once(&new.without_namespace)
            .chain(&new.namespaces)
            .filter(changed)
            .map(|namespace| match namespace.name.as_str() {
                "" => "without_namespace.delivery".to_owned(),
                name => format!("namespaces ({name}).delivery"),
            })
            .collect()
    }

    /// Is any channel durable?
    #[must_use]
    pub fn is_durable(&self) -> bool {
        self.without_namespace.is_durable()
            || self
                .namespaces
                .iter()
                .any(|namespace| namespace.is_durable())
    }

    /// The namespace of this name.
    #[must_use]
    pub fn namespace(&self, name: &str) -> Option<&Arc<Namespace>> {
        let at = self
            .namespaces
            .binary_search_by(|namespace| namespace.name.as_str().cmp(name))
            .ok()?;
        self.namespaces.get(at)
    }

    /// Does a subscription to this channel need a token?
    #[must_use]
    pub fn is_private(&self, name: &str) -> bool {
        !self.private_prefix.is_empty() && name.starts_with(self.private_prefix.as_str())
            || self.is_of_letters(name)
    }

    /// Is this one of the channels, or a pattern over some of them, on which dead letters are announced?
    fn is_of_letters(&self, name: &str) -> bool {
        name.starts_with(DEAD_PREFIX) && self.is_durable()
    }

    /// These namespaces, with the marks and the limits of others.
    pub(super) fn under(&self, common: &Self) -> Self {
        let mut rules = Self {
            without_namespace: Arc::clone(&self.without_namespace),
            namespaces: self.namespaces.clone(),
            ..common.clone()
        };
        rules.namespaces.sort_by(|a, b| a.name.cmp(&b.name));
        rules.seal();
        rules
    }

    /// Makes what follows from the namespaces. They may be in any order.
    pub(super) fn seal(&mut self) {
        let mut namespaces = self.namespaces.iter();
        let dead = namespaces.find(|namespace| namespace.name == DEAD_NAMESPACE);
        let dead = dead.map_or_else(Namespace::default, |dead| (**dead).clone());
        self.letters = Arc::new(dead.for_letters());
    }

    /// What every channel name from a client must be.
    ///
    /// # Errors
    /// The name is empty or too long; looked at in this order.
    pub const fn check_client_name(&self, name: &str) -> Result<(), NameError> {
        if name.is_empty() {
            return Err(NameError::Empty);
        }
        if name.len() > self.max_length {
            return Err(NameError::TooLong);
        }
        Ok(())
    }

    /// Is the name one that its namespace has (check 7)? A pattern looks at what stands behind the namespace and is the only
    /// judge; without one, names are ASCII.
    #[must_use]
    pub fn fits(&self, namespace: &Namespace, name: &str) -> bool {
        let Some(pattern) = &namespace.channel_regex else {
            return name.is_ascii();
        };
        let bare = self.bare(name);
        let boundary = bare.split_once(self.namespace_boundary.as_str());
        pattern.matches(boundary.map_or(bare, |(_, rest)| rest))
    }

    /// The users that a name admits: the text after its last user boundary. `None` for a name without one.
    /// Whether it counts is the namespace's `allow_user_limited_channels`.
    #[must_use]
    pub fn user_limited<'a>(&'a self, name: &'a str) -> Option<impl Iterator<Item = &'a str>> {
        let (_, users) = name.rsplit_once(self.user_boundary.as_str())?;
        Some(users.split(self.user_separator.as_str()))
    }

    /// Is the user one of those that the name admits? The anonymous user never is, also where the list has an
    /// empty entry.
    #[must_use]
    pub fn allows_user(&self, name: &str, user: &str) -> bool {
        !user.is_empty()
            && self
                .user_limited(name)
                .is_some_and(|mut users| users.any(|one| one == user))
    }
}

/// Every option of a namespace: key, type, default as written in the file, meaning. In the order of the struct.
#[rustfmt::skip]
pub const OPTIONS: &[(&str, &str, &str, &str)] = &[
    ("delivery", "enum", "\"ephemeral\"", "`ephemeral` (in memory, at most once) or `durable` (in the log, at least once, acknowledged when stored). Durable channels recover always; their `history_size` (256) and `history_ttl` (5 min) say what stays in memory, their `idempotency_ttl` is 24 h."),
    ("presence", "bool", "false", "Keep who is subscribed; enables `presence` and `presence_stats`."),
    ("join_leave", "bool", "false", "Emit join and leave events."),
    ("force_push_join_leave", "bool", "false", "Deliver join and leave to every subscriber, not only to those that ask."),
    ("join_leave_rate", "int", "0", "Joins and leaves of one channel that subscribers of a shard are told one by one in a second; the others are counted and told together. 0 tells all one by one."),
    ("history_size", "int", "0", "Publications kept in memory for history and recovery; set together with `history_ttl`."),
    ("history_ttl", "duration", "\"0s\"", "How long a publication is kept, whole seconds."),
    ("history_meta_ttl", "duration", "\"720h\"", "How long epoch and top offset outlive the last publication, whole seconds."),
    ("force_positioning", "bool", "false", "Every subscription is told when it missed a publication."),
    ("allow_positioning", "bool", "false", "A client may ask for positioning."),
    ("force_recovery", "bool", "false", "Every subscription recovers what it missed; needs history."),
    ("allow_recovery", "bool", "false", "A client may ask for recovery."),
    ("allow_subscribe_for_client", "bool", "false", "Any authenticated client may subscribe without a token."),
    ("allow_subscribe_for_anonymous", "bool", "false", "Extends `allow_subscribe_for_client` to anonymous clients."),
    ("allow_publish_for_client", "bool", "false", "Any authenticated client may publish."),
    ("allow_publish_for_subscriber", "bool", "false", "Authenticated subscribers of the channel may publish."),
    ("allow_publish_for_anonymous", "bool", "false", "Extends the other two to anonymous clients."),
    ("allow_history_for_client", "bool", "false", "Any authenticated client may read history."),
    ("allow_history_for_subscriber", "bool", "false", "Authenticated subscribers of the channel may read history."),
    ("allow_history_for_anonymous", "bool", "false", "Extends the other two to anonymous clients."),
    ("allow_presence_for_client", "bool", "false", "Any authenticated client may read presence."),
    ("allow_presence_for_subscriber", "bool", "false", "Authenticated subscribers of the channel may read presence."),
    ("allow_presence_for_anonymous", "bool", "false", "Extends the other two to anonymous clients."),
    ("allow_user_limited_channels", "bool", "false", "`dialog#42,43` admits the users 42 and 43, and nobody else."),
    ("publication_data_format", "enum", "\"\"", "What a payload must be: `\"\"` (not empty), `json`, `json_object`, `binary` (anything)."),
    ("slow_consumer", "enum", "\"disconnect\"", "A subscriber whose queue is full: `disconnect` (3008), `drop_oldest`, `conflate` (of each `conflate_key` the latest stays) or `degrade` (4510, and it polls)."),
    ("conflate_key", "string", "\"\"", "What tells unsent publications of a channel apart under `slow_consumer = \"conflate\"`: `channel`, `user`, `tag:NAME` or `data:PATH`. One without the key is replaced by none."),
    ("outbox_bytes_max", "int", "0", "Bytes of a channel's unsent publications for one subscriber, beyond which `slow_consumer` holds; 0 leaves `client.queue_max_size`."),
    ("outbox_age_max", "duration", "\"0s\"", "How long a publication may wait for one subscriber before `slow_consumer` holds, to a tenth of a second; 0 is for ever."),
    ("size_max", "int", "0", "Bytes of one publication; 0 leaves the limit of the transport."),
    ("rate", "int", "0", "Publications per second and connection; 0 is off."),
    ("idempotency_ttl", "duration", "\"5m\"", "How long an idempotency key of the server API is remembered."),
    ("force_recovery_mode", "enum", "\"stream\"", "What recovery gives back: `stream` (everything missed) or `cache` (the latest publication)."),
    ("auto_cache_recover", "bool", "false", "Every subscription starts with the latest publication; needs `force_recovery` and `force_recovery_mode = \"cache\"`."),
    ("allowed_delta_types", "list", "[]", "`[\"fossil\"]`: a subscription may ask for publications as patches of the one before."),
    ("delta_publish", "bool", "false", "Every publication may be told as a patch, not only those published with `delta`."),
    ("allow_tags_filter", "bool", "false", "A subscription may say by tags which publications it wants."),
    ("publication_time", "bool", "false", "Publications carry `time`, Unix milliseconds."),
    ("batch_max_delay", "duration", "\"0s\"", "How long a publication waits at most for others of its channel, up to 10 s, so that they go to each subscriber as one write; 0 is off."),
    ("batch_max_size", "int", "0", "With so many publications they go at once; 0 leaves only the delay. Needs `batch_max_delay`."),
    ("batch_flush_latest", "bool", "false", "Of what waited together, subscribers get the latest only. Needs `batch_max_delay`."),
    ("channel_regex", "string", "\"\"", "What a channel's name must match behind the namespace, in any script; `\"\"`: any name in ASCII."),
    ("subscribe_proxy_enabled", "bool", "false", "A hook decides about subscriptions without a token."),
    ("subscribe_proxy_name", "string", "\"default\"", "Which: `default` is `channel.proxy.subscribe`, else the name of one of `proxies`."),
    ("publish_proxy_enabled", "bool", "false", "A hook decides about publications of clients."),
    ("publish_proxy_name", "string", "\"default\"", "Which: `default` is `channel.proxy.publish`, else the name of one of `proxies`."),
    ("sub_refresh_proxy_enabled", "bool", "false", "A hook prolongs subscriptions that expire."),
    ("sub_refresh_proxy_name", "string", "\"default\"", "Which: `default` is `channel.proxy.sub_refresh`, else the name of one of `proxies`."),
    ("retention_age", "duration", "\"0s\"", "How long a durable publication is kept, whole seconds, where that is shorter than `durable.retention_age`; 0 leaves that."),
    ("retention_bytes", "int", "0", "Bytes of the log that a durable namespace takes at most, from 1 MiB; its oldest publications go first. 0 leaves `durable.retention_bytes`."),
    ("retention_count", "int", "0", "Publications that are kept of each durable channel, the newest ones; 0 keeps all."),
    ("compact_by", "string", "\"\"", "Of the publications of a durable channel with the same key only the latest stays: `channel`, `user`, `tag:NAME` or `data:PATH`; `\"\"` keeps all. One without the key stays."),
    ("compact_after", "duration", "\"1m\"", "How long a publication stays that a later one with its key replaces."),
    ("expired", "enum", "\"drop\"", "What becomes of a publication that a queue group has not done when one of these three takes it: `drop` (it is counted) or `dead_letter` (it is counted, and a dead letter of the group keeps it)."),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(names: &[&str]) -> ChannelRules {
        let named = |name: &&str| {
            Arc::new(Namespace {
                name: (*name).to_owned(),
                ..Namespace::default()
            })
        };
        ChannelRules {
            namespaces: names.iter().map(named).collect(),
            ..ChannelRules::default()
        }
    }

    #[test]
    fn namespace_is_the_text_before_the_first_boundary() {
        let rules = rules(&["chat", "news"]);
        let name = |channel| {
            rules
                .resolve(channel)
                .map(|namespace| namespace.name.as_str())
        };
        assert_eq!(name("chat:1"), Ok("chat"));
        assert_eq!(name("chat:1:2"), Ok("chat"));
        assert_eq!(name("chat:"), Ok("chat"));
        assert_eq!(name("news:x#42"), Ok("news"));
        assert_eq!(name("chat"), Ok(""));
        assert_eq!(name("chat#42"), Ok(""));
        assert_eq!(name(""), Ok(""));
        assert_eq!(name("other:1"), Err(ResolveError::Unknown));
        assert_eq!(name("chat2:1"), Err(ResolveError::Unknown));
        assert_eq!(name(":1"), Err(ResolveError::Unknown));
    }

    #[test]
    fn one_private_prefix_is_taken_off() {
        let mut rules = rules(&["chat"]);
        assert!(
            rules.is_private("$chat:1") && rules.is_private("$x") && !rules.is_private("chat:$1")
        );
        assert_eq!(
            rules
                .resolve("$chat:1")
                .map(|namespace| namespace.name.as_str()),
            Ok("chat")
        );
        assert_eq!(rules.resolve("$$chat:1"), Err(ResolveError::Unknown));
        rules.private_prefix.clear();
        assert!(!rules.is_private("$chat:1") && !rules.is_private(""));
        assert_eq!(rules.resolve("$chat:1"), Err(ResolveError::Unknown));
    }

    #[test]
    fn announcements_of_dead_letters_are_durable_and_private_wherever_there_is_a_log() {
        let of = |name: &str, delivery| {
            Arc::new(Namespace {
                name: name.to_owned(),
                delivery,
                allow_publish_for_client: true,
                allow_history_for_client: true,
                ..Namespace::default()
            })
        };
        let mut rules = ChannelRules {
            namespaces: vec![of("dead", Delivery::Ephemeral)],
            private_prefix: String::new(),
            ..ChannelRules::default()
        };
        rules.seal();
        assert_eq!(
            rules.resolve("$dead:g"),
            Err(ResolveError::Unknown),
            "there is no log"
        );
        assert!(!rules.is_private("$dead:g") && !rules.reaches_durable("$dead:*"));
        rules.namespaces.push(of("orders", Delivery::Durable));
        let found = rules.resolve("$dead:g").expect("known");
        assert!(found.is_durable() && found.keeps_history());
        assert!(found.allow_history_for_client && !found.allow_publish_for_client);
        assert!(rules.is_private("$dead:g"));
        assert!(rules.reaches_durable("$dead:*") && rules.reaches_durable("$dead:g"));
        assert!(
            !rules.resolve("dead:g").expect("known").is_durable(),
            "its own channels stay"
        );
        rules.namespaces.remove(0);
        rules.seal();
        let found = rules.resolve("$dead:g").expect("known without one");
        assert!(found.is_durable() && !found.allow_history_for_client);
    }

    #[test]
    fn patterns_mean_announcements_of_dead_letters_only_by_their_name() {
        assert!(leaves_out("*", "$dead:g") && leaves_out("$*", "$dead:g"));
        assert!(!leaves_out("$dead:*", "$dead:g") && !leaves_out("$dead:g", "$dead:g"));
        assert!(!leaves_out("*", "orders:1") && !leaves_out("*", "$orders:1"));
    }

    #[test]
    fn names_are_bounded_and_ascii() {
        let rules = rules(&[]);
        assert_eq!(rules.check_client_name(""), Err(NameError::Empty));
        assert_eq!(rules.check_client_name(&"a".repeat(255)), Ok(()));
        assert_eq!(
            rules.check_client_name(&"a".repeat(256)),
            Err(NameError::TooLong)
        );
        assert!(!rules.fits(&rules.without_namespace, "grüße"));
        assert!(rules.fits(&rules.without_namespace, "a:b#c"));
    }

    #[test]
    fn pattern_judges_what_stands_behind_the_namespace_and_nothing_else_does() {
        let rules = rules(&["chat"]);
        let namespace = Namespace {
            channel_regex: Pattern::parse("^[a-zü:]+$"),
            ..Namespace::default()
        };
        for (name, fits) in [
            ("chat:tür", true),
            ("$chat:tür", true),
            ("chat:a:b", true),
            ("chat:A", false),
            ("chat:", false),
            ("chat:é", false),
            ("tür", true),
            ("Tür", false),
        ] {
            assert_eq!(rules.fits(&namespace, name), fits, "{name}");
        }
    }

    #[test]
    fn users_stand_after_the_last_boundary() {
        let rules = rules(&[]);
        assert!(rules.allows_user("dialog#42,43", "42") && rules.allows_user("dialog#42,43", "43"));
        assert!(
            !rules.allows_user("dialog#42,43", "4") && !rules.allows_user("dialog#42,43", "42,43")
        );
        assert!(!rules.allows_user("a#42#43", "42") && rules.allows_user("a#42#43", "43"));
        assert!(!rules.allows_user("dialog", "42") && rules.user_limited("dialog").is_none());
    }

    #[test]
    fn anonymous_user_is_never_admitted() {
        let rules = rules(&[]);
        assert!(
            !rules.allows_user("d#", "")
                && !rules.allows_user("d#42,", "")
                && !rules.allows_user("d", "")
        );
    }

    #[test]
    fn pattern_reaches_what_some_channel_of_a_durable_namespace_matches() {
        let durable = |name: &str| {
            Arc::new(Namespace {
                name: name.to_owned(),
                delivery: Delivery::Durable,
                ..Namespace::default()
            })
        };
        let ephemeral = Arc::new(Namespace {
            name: "chat".to_owned(),
            ..Namespace::default()
        });
        let mut rules = ChannelRules {
            namespaces: vec![ephemeral, durable("orders")],
            ..ChannelRules::default()
        };
        for (pattern, expected) in [
            ("orders:1", true),
            ("$orders:1", true),
            ("orders:*", true),
            ("ord*", true),
            ("*", true),
            ("*:1", true),
            ("chat:*", false),
            ("cha*", false),
            ("lobby", false),
            ("lob*", false),
            ("order:*", false),
            ("orders", false),
            ("ordersx*", false),
        ] {
            assert_eq!(rules.reaches_durable(pattern), expected, "{pattern}");
        }
        rules.without_namespace = durable("");
        assert!(rules.reaches_durable("lobby") && rules.reaches_durable("lob*"));
        assert!(!rules.reaches_durable("lob*:x"));
    }
}
