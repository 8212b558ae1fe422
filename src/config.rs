//! Configuration: as written (`file`), as checked (`Config`), and the rules of channels (`namespace`).

pub mod access;
pub mod apart;
mod doubts;
pub mod durable;
mod file;
mod fit;
mod glob;
pub mod hooks;
mod host;
pub mod keys;
pub mod namespace;
mod network;
mod pattern;
pub mod sources;
mod tenants;
mod transports;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

pub use access::{AccessKey, Grant, KeyVerdict};
pub use file::{
    AddedTenant, ConfigError, ConfigErrors, FileKey, KeyKind, ReloadRefused, Setting, Source,
    TextFile, ValueOrigin, Written,
};
pub use file::{
    is_fixed_at_start, keys, parse_duration, show_duration, shown_tenants, shown_url,
    unmatched_origin,
};
pub use fit::{Unfit, due_ms};
pub use glob::{Glob, GlobError, glob_match};
pub use keys::{KeySet, PublicKey};
pub use namespace::{ChannelRules, NameError, Namespace, ResolveError};
pub use network::{Network, TrustedProxy};
pub use pattern::Pattern;
pub use tenants::{ChannelSet, Tenant, TenantLimits, TenantRules, Tenants, WhenOverRate, path_of};
pub use transports::{
    DisconnectCode, Downstream, Emulation, HttpAnswer, Init, Poll, Transforms, UniStream,
    UniWebSocket,
};

use crate::limits::CONNECTIONS_MAX;
use crate::model::TenantId;

/// The checked configuration: every value is in range, every reference resolves.
/// Shared by all threads as `Arc<Config>`; a reload replaces it as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Listeners and shards.
    pub server: Server,
    /// The control thread's own listener.
    pub admin: Admin,
    /// Rules of client connections.
    pub client: Client,
    /// The WebSocket endpoint.
    pub websocket: WebSocket,
    /// HTTP streaming.
    pub http_stream: Downstream,
    /// Server-sent events.
    pub sse: Downstream,
    /// What clients of both say.
    pub emulation: Emulation,
    /// The unidirectional WebSocket.
    pub uni_websocket: UniWebSocket,
    /// Unidirectional server-sent events.
    pub uni_sse: UniStream,
    /// Unidirectional HTTP streaming.
    pub uni_http_stream: UniStream,
    /// The endpoint that does nothing.
    pub init: Init,
    /// Long polling.
    pub poll: Poll,
    /// The server API.
    pub http_api: HttpApi,
    /// Health on the clients' listeners.
    pub health: Health,
    /// Namespaces and the grammar of channel names.
    pub channels: ChannelRules,
    /// Namespaces of tenants that have others.
    pub channel_sets: Vec<ChannelSet>,
    /// Isolated customers.
    pub tenants: Tenants,
    /// Who decides about clients' events.
    pub hooks: hooks::Hooks,
    /// The durable log.
    pub durable: durable::Durable,
    /// Groups of workers.
    pub queue: durable::Queue,
    /// Tables and logs of others that become publications.
    pub sources: Vec<sources::OutboxSource>,
    /// Draining.
    pub drain: Drain,
    /// Logging.
    pub log: Log,
}

impl Config {
    /// The defaults, with no file and no environment.
    #[must_use]
    pub fn built_in() -> Self {
        Self::default()
    }

    /// The rules of a tenant's channels; where there is no such tenant any more, those under which nobody may do anything.
    #[must_use]
    pub fn rules_or_none(&self, tenant: TenantId<'_>) -> &ChannelRules {
        self.channels.of(tenant).unwrap_or(&self.tenants.nobodys)
    }

    /// Is there a durable log?
    #[must_use]
    pub fn is_durable(&self) -> bool {
        self.channels.is_durable() || self.channel_sets.iter().any(|set| set.rules.is_durable())
    }

    /// Which key is it, of those that open what the admin listener does not show to everybody? Without keys of its own these are the
    /// keys of the server API that open everything.
    #[must_use]
    pub fn judge_admin_key(&self, given: &[u8], now_unix_s: u64) -> KeyVerdict<'_> {
        if self.admin.has_keys() {
            let (key, keys) = (&self.admin.key, &self.admin.keys);
            return access::judge(key, keys, given, now_unix_s);
        }
        match self.http_api.judge(given, now_unix_s) {
            KeyVerdict::Named(key) if !key.grant().is_whole() => KeyVerdict::Unknown,
            verdict => verdict,
        }
    }

    /// Is there a key that opens what the admin listener does not show to everybody?
    #[must_use]
    pub fn has_admin_key(&self) -> bool {
        let api = &self.http_api;
        let is_whole = |key: &AccessKey| key.grant().is_whole();
        self.admin.has_keys() || !api.key.0.is_empty() || api.keys.iter().any(is_whole)
    }

    /// Such a key, if the configuration has one as it is sent, for the commands of this host.
    #[must_use]
    pub fn own_admin_key(&self, now_unix_s: u64) -> Option<&Secret> {
        match self.admin.has_keys() {
            true => access::own(&self.admin.key, &self.admin.keys, now_unix_s),
            false => self.http_api.own_key(now_unix_s),
        }
    }

    /// Do only programs on this host reach the shards?
    #[must_use]
    pub fn listens_locally(&self) -> bool {
        let server = &self.server;
        let mut all = server.listen.iter().chain(&server.internal_listen);
        all.all(|listen| !matches!(listen, ListenAddr::Tcp(at) if !at.ip().is_loopback()))
    }

    /// Is the server API on the clients' listeners?
    #[must_use]
    pub const fn serves_api_to_clients(&self) -> bool {
        self.http_api.external || self.server.internal_listen.is_empty()
    }

    /// May pages of operators be asked for under this `Host`? A name that a stranger's name server can point here makes a
    /// browser take these pages for the stranger's own; an address and `localhost` cannot be such a name.
    #[must_use]
    pub fn allows_host(&self, host: Option<&str>) -> bool {
        host.is_none_or(|host| host::is_trusted(host, &self.admin.hosts))
    }

    /// May a request with this `Origin` header open a connection (`spec/centrifuge.md` §1.2)?
    /// A request without the header may always; an empty list refuses every other.
    #[must_use]
    pub fn allows_origin(&self, tenant: Option<&Arc<Tenant>>, origin: Option<&str>) -> bool {
        let Some(origin) = origin else { return true };
        let origin = origin.to_lowercase();
        let mut patterns = self.origins(tenant).iter();
        patterns.any(|pattern| pattern.matches(&origin))
    }

    /// Where pages of a tenant's clients may come from; without one, those of everybody.
    fn origins<'c>(&'c self, tenant: Option<&'c Arc<Tenant>>) -> &'c [Glob] {
        let own = tenant.map(|tenant| tenant.allowed_origins.as_slice());
        own.filter(|own| !own.is_empty())
            .unwrap_or(&self.client.allowed_origins)
    }
}

impl Config {
    /// May a request of a browser that does not say its origin come from anywhere? Only where every origin may.
    #[must_use]
    pub fn allows_every_origin(&self, tenant: Option<&Arc<Tenant>>) -> bool {
        let patterns = self.origins(tenant);
        patterns.iter().any(|pattern| pattern.as_str() == "*")
    }
}

/// `[server]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Where clients and services connect. Default `127.0.0.1:8000`.
    pub listen: Vec<ListenAddr>,
    /// Where services and probes connect: the server API, health, readiness, metrics, and nothing for clients.
    pub internal_listen: Vec<ListenAddr>,
    /// Shards; 0 means one for each core this process may use. May exceed the cores. At most 64.
    pub shards: u16,
    /// Several processes may listen on the same addresses, and the kernel spreads clients over them. Otherwise the second
    /// one does not start.
    pub shared_port: bool,
    /// Who may connect to the unix sockets, as for files: connecting needs to write.
    pub unix_mode: FileMode,
    /// Group of the unix sockets, by name or number; empty is the process' own.
    pub unix_group: String,
    /// Which reactor drives the shards.
    pub reactor: ReactorChoice,
    /// Cores to pin shards to, in order, wrapping around; empty means every allowed core.
    pub cores: Vec<usize>,
    /// Accept queue of one listener (`listen(2)`), default 8192.
    pub backlog: u32,
    /// Connections of one shard, default 1 048 576, cut to what the descriptor limit allows.
    pub connections_per_shard_max: u32,
    /// Client connections that a shard takes out of its listeners' queues in a second, a tenth of them at once; 0 is off. Others wait there.
    pub accept_rate: u32,
    /// Client connections of a shard whose session is not connected and whose first request is not answered; 0 is off. Beyond it nobody is
    /// taken out of the listeners' queues.
    pub handshakes_max: u32,
    /// Time for a request head to arrive whole, and then for its body, default 10 s.
    pub handshake_timeout: Duration,
    /// An idle keep-alive HTTP connection is closed after this, default 60 s.
    pub http_idle_timeout: Duration,
    /// Bytes of unfinished input that all connections of one shard hold together; those with the most are ended when it is
    /// passed. Default 256 MiB.
    pub input_max_size: usize,
    /// Proxies whose `X-Forwarded-For` says where a client is: limits per prefix are for the last address in it that
    /// is not one of them. Networks such as `10.0.0.0/8`, and `unix` for whoever connects to a unix socket.
    pub trusted_proxies: Vec<TrustedProxy>,
    /// Its `*.toml` are tenants, one each: the keys of one of `[[tenants]]`. Empty is none.
    pub tenants_directory: PathBuf,
}

/// Address of a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenAddr {
    /// IPv4 or IPv6.
    Tcp(SocketAddr),
    /// `unix:PATH`
    Unix(PathBuf),
}

impl std::fmt::Display for ListenAddr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Permissions of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileMode(pub u32);

/// `server.reactor`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReactorChoice {
    /// io_uring where the kernel allows it, else the portable reactor with one warning.
    Auto,
    /// io_uring or refuse to start.
    Uring,
    /// monoio's epoll driver.
    Portable,
}

/// `[admin]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admin {
    /// `/health`, `/ready`, `/metrics`; default `127.0.0.1:8001`. `None` turns it off (`listen = ""`).
    pub listen: Option<ListenAddr>,
    /// Opens what changes something, and what shows payloads: queue groups, dead letters, replays. Empty is `http_api.key`.
    /// On a unix socket none is asked for: its mode says who may connect.
    pub key: Secret,
    /// More keys for the same, each with a name.
    pub keys: Vec<AccessKey>,
    /// Who may connect to the listener if it is a unix socket.
    pub unix_mode: FileMode,
    /// Group of the unix socket, by name or number; empty is the process' own.
    pub unix_group: String,
    /// Names under which the pages of operators may be asked for, beside `localhost` and addresses: exact, or `*.example`.
    pub hosts: Vec<String>,
}

impl Admin {
    /// Has the listener keys of its own?
    #[must_use]
    pub const fn has_keys(&self) -> bool {
        !self.key.0.is_empty() || !self.keys.is_empty()
    }
}

/// `[client]`: names and defaults of `spec/centrifuge.md` §1.2, §2.6, §4.1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    /// Connection tokens (`[client.token]`).
    pub token: Token,
    /// `[client.subscription_token]` if `enabled`, else a copy of `token`.
    pub subscription_token: Token,
    /// Patterns, lower case. Empty refuses every request that has an Origin.
    pub allowed_origins: Vec<Glob>,
    /// `None` when disabled (`ping_interval = "0s"`).
    pub ping_interval: Option<Duration>,
    /// Must be smaller than the interval.
    pub pong_timeout: Duration,
    /// Time to the connect command.
    pub stale_close_delay: Duration,
    /// Grace after connection expiry.
    pub expired_close_delay: Duration,
    /// Grace after subscription expiry.
    pub expired_sub_close_delay: Duration,
    /// Unsent bytes of one connection.
    pub queue_max_size: usize,
    /// Subscription tokens that are invalid, on one connection: with the last one it is closed (3500); 0 is off.
    pub invalid_token_limit: u32,
    /// Connections of one address prefix that may end for an invalid token in a second, as many at once, on each shard: beyond it,
    /// tokens from there are not looked at (3013); 0 is off.
    pub invalid_token_rate_per_prefix: u32,
    /// Subscriptions of one connection.
    pub channel_limit: usize,
    /// Calls to backends (RPC) of one connection under way at the same time. Commands behind them wait, and replies keep their order.
    pub concurrency: u32,
    /// Commands of one connection in a second; 0 is off.
    pub command_rate: u32,
    /// So many of them at once; 0 for those of a second.
    pub command_burst: u32,
    /// Bytes that are read from one connection of a client in a second; 0 is off.
    pub input_rate: u32,
    /// So many of them at once; 0 for those of a second.
    pub input_burst: u32,
    /// Client connections of this node, those that have not sent their connect command included; 0 is off.
    pub connection_limit: u32,
    /// New client connections of this node in a second, as many at once; 0 is off.
    pub connection_rate_limit: u32,
    /// Client connections from one address prefix; 0 is off.
    pub connection_limit_per_prefix: u32,
    /// New client connections from one address prefix in a second, as many at once; 0 is off.
    pub connection_rate_limit_per_prefix: u32,
    /// Leading bits of an IPv4 address that make its prefix, default 32.
    pub ipv4_prefix: u8,
    /// Leading bits of an IPv6 address that make its prefix, default 64.
    pub ipv6_prefix: u8,
    /// Connections of one user on this node; 0 is off.
    pub user_connection_limit: u32,
    /// Who goes when a user has too many connections.
    pub user_connection_limit_policy: UserLimitPolicy,
    /// Cap of the history command.
    pub history_max_publication_limit: u32,
    /// Cap of recovery.
    pub recovery_max_publication_limit: u32,
    /// Levels of nesting of JSON that goes to clients, default 64: what is deeper some client's parser does not read, and it would lose its
    /// connection each time it comes back.
    pub json_depth_max: u32,
    /// Header of the upgrade request whose value is the user id of a connection without a token, set by a trusted proxy
    /// in front; empty is off. In lower case.
    pub user_id_http_header: String,
    /// Anonymous connections without a token.
    pub allow_anonymous_connect_without_token: bool,
    /// Refuse tokens with an empty `sub` (3507).
    pub disallow_anonymous_connection_tokens: bool,
    /// `time` in the connect result.
    pub connect_include_server_time: bool,
    /// No authentication, everything allowed. Development only.
    pub insecure: bool,
    /// Any signature of a token counts. Development only.
    pub insecure_skip_token_signature_verify: bool,
    /// Personal channel (`spec/centrifuge.md` §4.2): `Some(namespace)`; an empty namespace gives `#user`.
    /// `[client.subscribe_to_user_personal_channel]` with `enabled` and `personal_channel_namespace`.
    pub user_personal_channel: Option<String>,
    /// `single_connection` of the personal channel: a user's new connection closes the older ones (3504).
    pub single_connection: bool,
    /// Unidirectional clients cannot be answered with an error: codes of errors become these disconnects.
    pub connect_code_to_unidirectional_disconnect: Transforms<DisconnectCode>,
}

/// `client.user_connection_limit_policy`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UserLimitPolicy {
    /// The new connection is closed (3504).
    #[default]
    Refuse,
    /// The user's oldest connection is closed (3504) for the new one.
    CloseOldest,
}

impl Client {
    /// Is any client connection counted before its handshake is answered?
    #[must_use]
    pub const fn limits_connections(&self) -> bool {
        self.connection_limit > 0 || self.connection_rate_limit > 0 || self.limits_prefixes()
    }

    /// Does a limit depend on where a client is?
    #[must_use]
    pub const fn limits_prefixes(&self) -> bool {
        self.connection_limit_per_prefix > 0 || self.connection_rate_limit_per_prefix > 0
    }

    /// How many connections a user may have, and who goes when there are more; `None` without a limit.
    #[must_use]
    pub const fn user_limit(&self) -> Option<(u32, UserLimitPolicy)> {
        if self.single_connection && self.user_personal_channel.is_some() {
            return Some((1, UserLimitPolicy::CloseOldest));
        }
        match self.user_connection_limit {
            0 => None,
            limit => Some((limit, self.user_connection_limit_policy)),
        }
    }
}

/// Keys and expectations for one kind of token.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Token {
    /// HS256, HS384, HS512; empty means no HMAC token is accepted.
    pub hmac_secret_key: Secret,
    /// Rotation: the key before.
    pub hmac_previous_secret_key: Secret,
    /// Unix seconds until which the previous key counts; 0 means always.
    pub hmac_previous_secret_key_valid_until: u64,
    /// RS256 to RS512 and PS256 to PS512.
    pub rsa_public_key: Option<PublicKey>,
    /// Rotation: the key before.
    pub rsa_previous_public_key: Option<PublicKey>,
    /// Unix seconds until which the previous key counts; 0 means always.
    pub rsa_previous_public_key_valid_until: u64,
    /// ES256 or ES384, by its curve.
    pub ecdsa_public_key: Option<PublicKey>,
    /// Rotation: the key before, perhaps on the other curve.
    pub ecdsa_previous_public_key: Option<PublicKey>,
    /// Unix seconds until which the previous key counts; 0 means always.
    pub ecdsa_previous_public_key_valid_until: u64,
    /// URL of a key set, which replaces all keys above; empty is off.
    pub jwks_public_endpoint: String,
    /// Expected `aud`; empty accepts any.
    pub audience: String,
    /// Expected form of `aud`, instead of `audience`.
    pub audience_regex: Option<Pattern>,
    /// Expected `iss`; empty accepts any.
    pub issuer: String,
    /// Expected form of `iss`, instead of `issuer`.
    pub issuer_regex: Option<Pattern>,
    /// Claim that holds the user id; empty means `sub`.
    pub user_id_claim: String,
}

/// Text that never reaches a log, an error or a metric: `Debug` and `Display` print `***`.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(pub String);

impl Secret {
    /// Is it this text? Compares in time that depends on the lengths only. An empty secret is none.
    #[must_use]
    pub fn is(&self, given: &[u8]) -> bool {
        let own = self.0.as_bytes();
        !own.is_empty()
            && given.len() == own.len()
            && std::hint::black_box(
                given
                    .iter()
                    .zip(own)
                    .fold(0, |differ, (a, b)| differ | (a ^ b)),
            ) == 0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

impl std::fmt::Display for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

/// `[websocket]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebSocket {
    /// No client may use it.
    pub disabled: bool,
    /// Path, without a trailing slash; default `/connection/websocket`.
    pub handler_prefix: String,
    /// Bytes of one message from a client as it is sent, default 65 536; longer closes with 1009.
    pub message_size_limit: usize,
    /// Agree to `permessage-deflate` with clients that offer it, without context takeover.
    pub compression: bool,
    /// 1 is fast, 9 is small; default 1.
    pub compression_level: u32,
    /// Messages of fewer bytes go out as they are.
    pub compression_min_size: usize,
    /// Bytes of one message from a client once it is inflated; longer closes with 1009. 0 is ten times `message_size_limit`.
    pub decompressed_message_size_limit: usize,
}

impl WebSocket {
    /// Bytes of one message from a client once it is inflated.
    #[must_use]
    pub const fn inflated_bytes_max(&self) -> usize {
        match self.decompressed_message_size_limit {
            0 => self.message_size_limit * 10,
            limit => limit,
        }
    }
}

/// `[http_api]`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HttpApi {
    /// Key of the server API; without any key every request is refused.
    pub key: Secret,
    /// More keys, each with a name, perhaps for a part of the server API only, or for a time.
    pub keys: Vec<AccessKey>,
    /// No key needed. Development only.
    pub insecure: bool,
    /// `error_mode = "transport"`: errors become HTTP statuses.
    pub transport_errors: bool,
    /// On the clients' listeners too where there are internal ones.
    pub external: bool,
}

impl HttpApi {
    /// Which key is it?
    #[must_use]
    pub fn judge(&self, given: &[u8], now_unix_s: u64) -> KeyVerdict<'_> {
        access::judge(&self.key, &self.keys, given, now_unix_s)
    }

    /// Is there a key of this name? The empty one is that of `key`.
    #[must_use]
    pub fn has_key(&self, name: &str) -> bool {
        name.is_empty() || self.keys.iter().any(|key| key.name == name)
    }

    /// A key that opens everything, if the configuration has one as it is sent, for the commands of this host.
    #[must_use]
    pub fn own_key(&self, now_unix_s: u64) -> Option<&Secret> {
        access::own(&self.key, &self.keys, now_unix_s)
    }
}

/// `[health]`: answers `{}` on the clients' listeners as long as the process runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// Default false.
    pub enabled: bool,
    /// Path, without a trailing slash.
    pub handler_prefix: String,
}

/// `[drain]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drain {
    /// Time between `/ready` turning 503 and the end of accepting, default 5 s: everything is served as before in it.
    pub notice: Duration,
    /// Disconnects are spread over this time, default 5 s.
    pub window: Duration,
    /// Connections left after window + grace are cut, default 5 s.
    pub grace: Duration,
    /// The three together take no longer than this, default 0 s: they take what they take.
    pub deadline: Duration,
}

/// `[log]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// `error`, `warn`, `info`, `debug`.
    pub level: String,
    /// `auto` (human on a terminal, JSON otherwise), `human`, `json`.
    pub format: LogFormat,
}

/// `log.format`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Human on a terminal, JSON otherwise.
    Auto,
    /// One readable line.
    Human,
    /// One JSON object a line.
    Json,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            server: Server::default(),
            admin: Admin::default(),
            client: Client::default(),
            websocket: WebSocket::default(),
            http_stream: Downstream::at("/connection/http_stream"),
            sse: Downstream::at("/connection/sse"),
            emulation: Emulation::default(),
            uni_websocket: UniWebSocket::default(),
            uni_sse: UniStream::at("/connection/uni_sse"),
            uni_http_stream: UniStream::at("/connection/uni_http_stream"),
            init: Init::default(),
            poll: Poll::default(),
            http_api: HttpApi::default(),
            health: Health::default(),
            channels: ChannelRules::default(),
            channel_sets: Vec::new(),
            tenants: Tenants::default(),
            hooks: hooks::Hooks::default(),
            durable: durable::Durable::default(),
            queue: durable::Queue::default(),
            sources: Vec::new(),
            drain: Drain::default(),
            log: Log::default(),
        }
    }
}

impl Default for Server {
    fn default() -> Self {
        Self {
            listen: vec![ListenAddr::Tcp(SocketAddr::from((
                Ipv4Addr::LOCALHOST,
                8000,
            )))],
            internal_listen: Vec::new(),
            shared_port: false,
            unix_mode: FileMode(0o660),
            unix_group: String::new(),
            shards: 0,
            reactor: ReactorChoice::Auto,
            cores: Vec::new(),
            backlog: 8192,
            connections_per_shard_max: CONNECTIONS_MAX,
            accept_rate: 0,
            handshakes_max: 0,
            handshake_timeout: Duration::from_secs(10),
            http_idle_timeout: Duration::from_secs(60),
            input_max_size: 256 << 20,
            trusted_proxies: Vec::new(),
            tenants_directory: PathBuf::new(),
        }
    }
}

impl Default for Admin {
    fn default() -> Self {
        Self {
            listen: Some(ListenAddr::Tcp(SocketAddr::from((
                Ipv4Addr::LOCALHOST,
                8001,
            )))),
            key: Secret::default(),
            keys: Vec::new(),
            unix_mode: FileMode(0o600),
            unix_group: String::new(),
            hosts: Vec::new(),
        }
    }
}

impl Default for Health {
    fn default() -> Self {
        Self {
            enabled: false,
            handler_prefix: "/health".to_owned(),
        }
    }
}

impl Default for Client {
    fn default() -> Self {
        Self {
            token: Token::default(),
            subscription_token: Token::default(),
            allowed_origins: Vec::new(),
            ping_interval: Some(Duration::from_secs(25)),
            pong_timeout: Duration::from_secs(8),
            stale_close_delay: Duration::from_secs(10),
            expired_close_delay: Duration::from_secs(25),
            expired_sub_close_delay: Duration::from_secs(25),
            queue_max_size: 1_048_576,
            invalid_token_limit: 10,
            invalid_token_rate_per_prefix: 0,
            channel_limit: 128,
            concurrency: 1,
            command_rate: 0,
            command_burst: 0,
            input_rate: 0,
            input_burst: 0,
            connection_limit: 0,
            connection_rate_limit: 0,
            connection_limit_per_prefix: 0,
            connection_rate_limit_per_prefix: 0,
            ipv4_prefix: 32,
            ipv6_prefix: 64,
            user_connection_limit: 0,
            user_connection_limit_policy: UserLimitPolicy::Refuse,
            history_max_publication_limit: 300,
            recovery_max_publication_limit: 300,
            json_depth_max: 64,
            user_id_http_header: String::new(),
            allow_anonymous_connect_without_token: false,
            disallow_anonymous_connection_tokens: false,
            connect_include_server_time: false,
            insecure: false,
            insecure_skip_token_signature_verify: false,
            user_personal_channel: None,
            single_connection: false,
            connect_code_to_unidirectional_disconnect: Transforms::default(),
        }
    }
}

impl Default for WebSocket {
    fn default() -> Self {
        Self {
            disabled: false,
            handler_prefix: "/connection/websocket".to_owned(),
            message_size_limit: 65_536,
            compression: false,
            compression_level: 1,
            compression_min_size: 0,
            decompressed_message_size_limit: 0,
        }
    }
}

impl Default for Drain {
    fn default() -> Self {
        Self {
            notice: Duration::from_secs(5),
            window: Duration::from_secs(5),
            grace: Duration::from_secs(5),
            deadline: Duration::ZERO,
        }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self {
            level: "info".to_owned(),
            format: LogFormat::Auto,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_origins(patterns: &[&str]) -> Config {
        let mut config = Config::built_in();
        config.client.allowed_origins = patterns.iter().map(|p| Glob::parse(p).unwrap()).collect();
        config
    }

    #[test]
    fn request_without_origin_is_always_allowed() {
        assert!(with_origins(&[]).allows_origin(None, None));
        assert!(with_origins(&["https://example.com"]).allows_origin(None, None));
    }

    #[test]
    fn empty_list_refuses_every_origin() {
        assert!(!with_origins(&[]).allows_origin(None, Some("https://example.com")));
    }

    #[test]
    fn star_alone_allows_every_origin() {
        assert!(with_origins(&["*"]).allows_origin(None, Some("null")));
    }

    #[test]
    fn origin_is_compared_in_lower_case() {
        let config = with_origins(&["https://*.example.com"]);
        assert!(config.allows_origin(None, Some("HTTPS://App.Example.COM")));
        assert!(config.allows_origin(None, Some("https://a.b.example.com")));
        assert!(!config.allows_origin(None, Some("https://example.com")));
        assert!(!config.allows_origin(None, Some("https://a.example.com.evil.org")));
    }

    #[test]
    fn secrets_do_not_show() {
        let secret = Secret("hunter2".to_owned());
        assert_eq!(format!("{secret:?} {secret}"), "*** ***");
        let mut config = Config::built_in();
        config.client.token.hmac_secret_key = secret.clone();
        config.http_api.key = secret;
        assert!(!format!("{config:?}").contains("hunter2"));
    }
}
