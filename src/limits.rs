//! Every bound of the program. A bound that an operator can set has its default in `config`.

use std::time::Duration;

/// Shards of one process. The interest mask of a channel is one `u64`.
pub const SHARDS_MAX: usize = 64;
/// Connections of one shard: slots of its ring's file table and of its connection table.
pub const CONNECTIONS_MAX: u32 = 1 << 20;
/// Silence after which a peer that is sent no pings is taken for dead.
pub const SILENCE_MAX: Duration = Duration::from_secs(60);
/// Bytes of one HTTP request head.
pub const HTTP_HEAD_BYTES_MAX: usize = 16 * 1024;
/// Headers of one HTTP request.
pub const HTTP_HEADERS_MAX: usize = 64;
/// Bytes of one HTTP request body of the server API.
pub const HTTP_BODY_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Bytes of the body of a request that nobody asked for one: it is read past.
pub const BODY_UNUSED_BYTES_MAX: usize = 64 * 1024;
/// Bytes that are read past once a request was refused; a peer that sends more is reset.
pub const LINGER_BYTES_MAX: u32 = 64 << 20;
/// Unsent bytes of answers on one connection beyond which its next request or command is not taken.
pub const ANSWERS_BYTES_MAX: usize = 64 * 1024;
/// Bytes of one message on `ringmain echo`.
pub const ECHO_MESSAGE_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Bytes of a channel name as the operator may configure it at most.
pub const CHANNEL_NAME_BYTES_MAX: usize = 1024;
/// Bytes of a pattern for origins or channel names.
pub const GLOB_BYTES_MAX: usize = 1024;
/// Braces within each other in such a pattern.
pub const GLOB_DEPTH_MAX: usize = 8;
/// Bytes of a user id.
pub const USER_ID_BYTES_MAX: usize = 1024;
/// Bytes of a channel name that a service, a token or a hook says: that of the personal channel of a user has a user id in it.
pub const SERVER_CHANNEL_NAME_BYTES_MAX: usize = CHANNEL_NAME_BYTES_MAX + USER_ID_BYTES_MAX;
/// Bytes of a token; a longer one is invalid.
pub const TOKEN_BYTES_MAX: usize = 16 * 1024;
/// Commands in one client frame.
pub const COMMANDS_PER_FRAME_MAX: usize = 10_000;
/// Levels of a JSON payload as the operator may allow them at most: whoever reads one into a tree here stops at 128.
pub const JSON_DEPTH_MAX: u64 = 100;
/// Connections of one shard that wait for the key of a token; beyond it they get a temporary error.
pub const KEY_WAITS_MAX: usize = 16_384;
/// Bytes of their commands.
pub const KEY_WAITS_BYTES_MAX: usize = 128 << 20;
/// Address prefixes with invalid tokens that one shard remembers.
pub const OFFENDERS_MAX: usize = 65_536;
/// Commands of one connection that are under way; what comes behind them waits.
pub const COMMANDS_UNDER_WAY_MAX: usize = 128;
/// The same while much is under way between shards: nobody is refused because somebody else has much.
pub const COMMANDS_UNDER_PRESSURE_MAX: usize = 4;
/// Bytes of one connection's commands that are under way, a larger one alone aside: less than its part of any table that they go through.
pub const COMMANDS_UNDER_WAY_BYTES_MAX: usize = 2 << 20;
/// Commands of one connection that backends decide about at the same time.
pub const DECISIONS_UNDER_WAY_MAX: usize = 64;
/// Bytes of one connection's commands that wait for their turn: what comes behind them is not read.
pub const WAITING_BYTES_MAX: usize = 256 << 10;
/// The same of all connections of one shard: beyond it, and beyond half of it for one address prefix, nothing is read behind
/// commands that wait.
pub const WAITING_BYTES_SHARD_MAX: usize = 256 << 20;
/// How long a shard waits for the answer of another one: longer than that one waits for the log, and than its turns ever take.
pub const MESH_TIMEOUT: Duration = Duration::from_secs(10);
/// Subscriptions of one shard that wait for the owners of their channels; beyond it they get a temporary error.
pub const INTERESTS_MAX: u32 = CONNECTIONS_MAX;
/// Connect commands of one shard that wait for the registries of their users; likewise.
pub const ADMITS_MAX: u32 = CONNECTIONS_MAX;
/// Clients of one shard that wait for the gate, and requests that wait for their commands to be taken; likewise.
pub const ENTERS_MAX: u32 = CONNECTIONS_MAX;
/// How long the owner of a channel waits for a part of the log.
pub const LOG_READ_TIMEOUT: Duration = Duration::from_secs(8);
/// How long clients and services wait for what they ask the log's side: longer than a fetch may wait for deliveries.
pub const LOG_ASK_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a shard waits with its answers to a call for what others have to say to that.
pub const SERVE_TIMEOUT: Duration = Duration::from_secs(15);
/// How long services wait for the answer to a request.
pub const API_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a shard waits for control: for keys, and for pages.
pub const CONTROL_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a shard waits for the verdict of a backend beyond the time that control gives it: control is stuck then.
pub const HOOK_GRACE: Duration = Duration::from_secs(60);
const _: () = assert!(
    LOG_READ_TIMEOUT.as_millis() < MESH_TIMEOUT.as_millis()
        && MESH_TIMEOUT.as_millis() < SERVE_TIMEOUT.as_millis()
        && SERVE_TIMEOUT.as_millis() < API_TIMEOUT.as_millis(),
    "whoever waits for others waits longer than they do"
);
/// Levels of a tags filter.
pub const FILTER_DEPTH_MAX: usize = 32;
/// Nodes of a tags filter.
pub const FILTER_NODES_MAX: usize = 256;
/// Bytes of the keys and operands of a tags filter.
pub const FILTER_BYTES_MAX: usize = 16 * 1024;
/// Classes of one channel's subscribers on one shard: filters and formats that differ.
pub const CLASSES_PER_CHANNEL_MAX: usize = 4096;
/// Idempotency keys remembered by one shard for all of its channels that are not durable; who ends first goes first, those of
/// clients before those of services.
pub const IDEMPOTENCY_KEYS_MAX: usize = 1 << 19;
/// Bytes of an idempotency key.
pub const IDEMPOTENCY_KEY_BYTES_MAX: usize = 512;
/// Bytes of a trace id.
pub const TRACE_BYTES_MAX: usize = 256;
/// Entries that the owner of a durable channel reads from the log at a time.
pub const LOG_PAGE_ENTRIES: u32 = 256;
/// Payload bytes of them.
pub const LOG_PAGE_BYTES: u32 = 256 * 1024;
/// Bytes of what one shard has read from the log and keeps for whoever needs the same.
pub const LOG_PAGES_BYTES_MAX: usize = 64 << 20;
/// Publications in one page of history of a durable channel.
pub const HISTORY_ENTRIES_MAX: u64 = 10_000;
/// Bytes of them.
pub const HISTORY_BYTES_MAX: usize = 4 << 20;
/// Channels owned by one shard, and channels with subscribers on it, as the operator may configure it at most.
pub const CHANNELS_OWNED_MAX: usize = 1 << 20;
/// Bytes of one shard's fan-out ring, a power of two.
pub const FANOUT_RING_BYTES: u32 = 1 << 20;
/// Largest piece that goes through the fan-out ring; larger ones go to each connection's backlog.
pub const FANOUT_PIECE_BYTES_MAX: u32 = FANOUT_RING_BYTES / 8;
/// Bytes of one shard's ring for what only one connection gets, a power of two.
pub const OWN_RING_BYTES: u32 = 512 << 10;
/// Largest piece that goes through that ring; larger ones go to the connection's backlog.
pub const OWN_PIECE_BYTES_MAX: u32 = OWN_RING_BYTES / 8;
/// Pending bytes of a connection that are moved within the ring to stay contiguous; beyond it they go to its backlog.
pub const PENDING_JOIN_BYTES_MAX: u32 = 4096;
/// Bytes that one connection is sent at a time of what waits for it.
pub const OWNED_BATCH_BYTES_MAX: usize = 64 << 10;
/// Bytes that the kernel takes for one connection beyond what is on its way to the peer, about (`TCP_NOTSENT_LOWAT`): without it, a peer
/// that does not read costs up to `net.ipv4.tcp_wmem` (4 MiB) of the kernel's memory, and the time to copy that.
pub const KERNEL_UNSENT_BYTES: u32 = 128 << 10;
/// Bytes that one slice of sends hands to the kernel, about: it copies them while nothing is received.
pub const SLICE_BYTES: usize = 1 << 20;
/// Bytes that one turn receives, about, before what comes of them goes out.
pub const RECEIVES_BYTES: usize = 512 << 10;
/// Unsent bytes of all connections of one shard.
pub const BACKLOG_BYTES_MAX: usize = 192 << 20;
/// One client may have this part of what is left of them, or what `client.queue_max_size` says if that is less.
pub const BACKLOG_SHARE: usize = 8;
/// And this much in any case.
pub const BACKLOG_SHARE_MIN: usize = 64 << 10;
/// Bytes sent ahead, behind a request or command that waits, after which the connection is read no further until that is
/// answered.
pub const HELD_PAUSE_BYTES: usize = 64 << 10;
/// Receive buffers of one shard on io_uring: what may still come of one connection after it was paused.
pub const RECEIVE_POOL_BYTES: usize = 2 << 20;
/// Bytes that a connection may hold in all; what comes beyond ends it.
pub const HELD_BYTES_MAX: usize = 4 << 20;
const _: () = assert!(
    HELD_PAUSE_BYTES + RECEIVE_POOL_BYTES <= HELD_BYTES_MAX,
    "a paused connection is not ended for what was on its way"
);
/// Items of one server API call (broadcast channels, batch commands).
pub const API_ITEMS_MAX: usize = 10_000;
/// Pages that one shard awaits of control for whoever asks at its internal listeners; beyond it they get 503.
pub const PAGES_MAX: u32 = 16;
/// Server API calls under way on one shard.
pub const API_CALLS_MAX: u32 = 65_536;
/// Largest payload that a patch is made of or for; larger ones are sent whole.
pub const FOSSIL_BYTES_MAX: usize = 1 << 20;
/// Bytes of a key set that a service publishes.
pub const JWKS_BYTES_MAX: usize = 256 * 1024;
/// Keys of a set that can verify tokens; a set with more is refused.
pub const JWKS_KEYS_MAX: usize = 64;
/// Bytes of a key id; a token with a longer one is invalid.
pub const KEY_ID_BYTES_MAX: usize = 256;
/// Revoked tokens, users with invalidated tokens, and blocked users, of each kind on one shard.
pub const REVOCATIONS_MAX: usize = 100_000;
/// Bytes of the id of a token (`jti`) that can be revoked.
pub const TOKEN_ID_BYTES_MAX: usize = 256;
/// Key ids that are known not to exist, for one kind of token on one shard; the oldest goes first.
pub const KEY_IDS_REFUSED_MAX: usize = 1024;
/// Bytes of one response of a hook's backend.
pub const HOOK_RESPONSE_BYTES_MAX: usize = 1 << 20;
/// Bytes of one payload from a hook that stays with a connection or a subscription.
pub const HOOK_KEPT_BYTES_MAX: usize = 64 << 10;
/// Bytes of the headers of one client that are kept for hooks, those of its transport and emulated ones each.
pub const HOOK_HEADERS_BYTES_MAX: usize = 16 << 10;
const _: () = assert!(
    FANOUT_RING_BYTES.is_power_of_two(),
    "positions of the ring are masked"
);
const _: () = assert!(
    PENDING_JOIN_BYTES_MAX < FANOUT_PIECE_BYTES_MAX,
    "a joined piece fits the ring"
);
/// Address prefixes whose clients are counted at the same time.
pub const PREFIXES_MAX: usize = 1 << 17;
/// Publications of one server API call in one message to a shard with subscribers.
pub const DELIVER_MANY_MAX: usize = 128;
/// Payload bytes after which such a message goes out: between two of them the shard looks whether its fan-out ring is full.
pub const DELIVER_MANY_BYTES_MAX: usize = 64 * 1024;
