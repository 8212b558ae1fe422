//! Every bound of the program that a peer can reach, whoever that is: a client, a service, a backend, a log server. A bound that an operator can set
//! has its default in `config`. Sizes of steps, and of what is kept only to be fast, stand where they are used and are not called `_MAX`.

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
/// Members of a channel in one answer: who asks for more gets them page by page.
pub const PRESENCE_ENTRIES_MAX: usize = 10_000;
/// Subscriptions of one shard that wait for the owners of their channels; beyond it they get a temporary error.
pub const INTERESTS_MAX: u32 = CONNECTIONS_MAX;
/// Connect commands of one shard that wait for the registries of their users; likewise.
pub const ADMITS_MAX: u32 = CONNECTIONS_MAX;
/// Clients of one shard that wait for the gate, and requests that wait for their commands to be taken; likewise.
pub const ENTERS_MAX: u32 = CONNECTIONS_MAX;
/// How long the owner of a channel waits for a part of the log.
pub const LOG_READ_TIMEOUT: Duration = Duration::from_secs(8);
/// How long clients and services wait for what they ask the log's side: longer than a fetch may wait for deliveries.
pub const LOG_ASK_TIMEOUT: Duration = Duration::from_secs(28);
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
        && SERVE_TIMEOUT.as_millis() < API_TIMEOUT.as_millis()
        && LOG_ASK_TIMEOUT.as_millis() < API_TIMEOUT.as_millis(),
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
/// How long publications of a channel may wait for each other as the operator may configure it at most.
pub const BATCH_DELAY_MAX: Duration = Duration::from_secs(10);
/// Publications of a channel that wait for each other, as the operator may configure it at most.
pub const BATCH_PUBLICATIONS_MAX: u32 = 10_000;
/// Bytes of publications that wait for others on one shard, as they will be written: beyond it nothing waits.
pub const BATCH_BYTES_MAX: usize = 64 << 20;
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
/// Bytes that one turn receives, about, before what comes of them goes out: with the answers they fit into a processor's cache.
pub const RECEIVES_BYTES: usize = 128 << 10;
/// Bytes of publications that wait for a rate of their tenant on one shard.
pub const LATE_BYTES_MAX: usize = 64 << 20;
/// Unsent bytes of all connections of one shard.
pub const BACKLOG_BYTES_MAX: usize = 192 << 20;
/// From this many on, the largest is dealt with first, as its channels say. What one event brings beyond it stays below the bound.
pub const BACKLOG_EVICTED_FROM: usize = BACKLOG_BYTES_MAX / 8 * 7;
/// Until so many are left, so that the next look at all of them is far away.
pub const BACKLOG_EVICTED_TO: usize = BACKLOG_BYTES_MAX / 8 * 6;
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
/// Keys of the server API that have a name, and as many of the admin listener.
pub const ACCESS_KEYS_MAX: usize = 64;
/// Tenants of a node.
pub const TENANTS_MAX: usize = 100_000;
/// Bytes of a tenant that the API adds, JSON: all of it is one value of the durable log.
pub const TENANT_BYTES_MAX: usize = 64 * 1024;
/// Bytes of the name that a request gives itself (`X-Request-Id`); a longer one gets another name.
pub const REQUEST_ID_BYTES_MAX: usize = 128;
/// Bytes of a tenant's id: it stands in each of its names.
pub const TENANT_ID_BYTES_MAX: usize = 32;
/// What a tenant may have for each of those who have least, of that which all of them share.
pub const TENANT_WEIGHT_MAX: u32 = 1000;
/// Names of namespaces that tenants may have in place of the common ones.
pub const CHANNEL_SETS_MAX: usize = 1024;
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
/// Commands of one shard under way at another, and places that its queue keeps for their answers; a command beyond it gets a temporary
/// error.
pub const MESH_COMMANDS_MAX: usize = 1024;
/// Messages that control may have under way to one shard; it offers others again.
pub const CONTROL_TO_SHARD_MAX: usize = 64;
/// Reports that all shards together may have under way to control; a shard keeps what finds no place, and offers it again.
pub const SHARDS_TO_CONTROL_MAX: usize = 1024;
/// Calls to backends of one shard under way; commands beyond it get a temporary error.
pub const CALLS_MAX: usize = 4096;
/// Bytes of their payloads; likewise.
pub const CALL_BYTES_MAX: usize = 64 << 20;
/// Appends of one shard to the durable log under way; a publish beyond it gets a temporary error.
pub const LOG_APPENDS_MAX: usize = 16_384;
/// Bytes of the records of one shard's appends under way; likewise.
pub const LOG_APPEND_BYTES_MAX: usize = 64 << 20;
/// Questions of one shard under way that clients and services ask the log's side; likewise.
pub const LOG_ASKS_MAX: usize = 4096;
/// Reads of one shard under way, for the channels that it owns; whoever needs another gets a temporary error.
pub const LOG_READS_MAX: usize = 4096;
/// Messages of the log's side that may wait for one shard; the bridge keeps what comes beyond.
pub const LOG_ANSWERS_MAX: usize = 8192;
/// Messages for one shard that the bridge keeps, after which it takes nothing new.
pub const LOG_ANSWERS_KEPT_MAX: usize = 1024;
/// Appends of all shards and of the desk that wait for the log, after which the bridge takes no more.
pub const LOG_APPENDS_WAITING_MAX: usize = 65_536;
/// Questions of the admin listener to the log's side at a time; one beyond it gets a temporary error.
pub const ADMIN_ASKS_MAX: usize = 256;
/// Publications of a durable channel that its owner keeps while it asks where the channel ends; what comes beyond is read from the log.
pub const LOG_AHEAD_MAX: usize = 1024;
/// Parts of the log that one question waits for, one after the other; then it is answered with what there is.
pub const LOG_PARTS_PER_ASK_MAX: u8 = 100;
/// Unsent bytes of a connection beyond which it gets the next part of what it has missed later.
pub const PART_BACKLOG_BYTES_MAX: usize = 64 * 1024;
/// Scrapes that may wait for control at a time, for counters and for how backends do: one beyond it is refused with 503, or lacks the latter.
pub const SCRAPES_MAX: usize = 64;
/// Connections of the admin listener at a time; whoever comes beyond it takes the place of the one that has been idle for longest.
pub const ADMIN_CONNECTIONS_MAX: usize = 64;
/// Bytes of the head of a request to it, and of what is read ahead of its body.
pub const ADMIN_HEAD_BYTES_MAX: usize = 64 * 1024;
/// Bytes of the body of a request to it; a larger one gets 413.
pub const ADMIN_BODY_BYTES_MAX: usize = 1 << 20;
/// Bytes of the head of a response that a backend or a key service gives; a larger one is an error.
pub const RESPONSE_HEAD_BYTES_MAX: usize = 64 * 1024;
/// Longest time to live that a client is told, seconds: 365 days; what ends later is told as this.
pub const TTL_TOLD_S_MAX: u32 = 365 * 24 * 3600;
/// Bytes of one request body that are size lines, chunk extensions and trailers, which bounds the number of chunks; a body with more is
/// refused.
pub const CHUNK_FRAMING_BYTES_MAX: usize = 64 * 1024;
/// Bytes of the public exponent of an RSA key (65537 has three); a key with a longer one is refused.
pub const RSA_EXPONENT_BYTES_MAX: usize = 4;
/// Bytes that a compiled pattern for origins or channel names may take; a larger one is refused.
pub const GLOB_COMPILED_BYTES_MAX: usize = 1 << 20;
/// Bytes that a compiled regular expression of the configuration may take; likewise.
pub const REGEX_COMPILED_BYTES_MAX: usize = 1 << 20;
/// Publications in one answer to a client as the operator may allow them at most.
pub const PUBLICATION_LIMIT_MAX: u64 = 100_000;
/// Events in a second as the operator may limit them at most.
pub const RATE_LIMIT_MAX: u64 = 1_000_000;
/// Bytes in a second as the operator may limit them at most.
pub const INPUT_RATE_MAX: u64 = 1 << 30;
/// Bytes of a condition; a longer one is refused.
pub const CONDITION_BYTES_MAX: usize = 1024;
/// Parts of a condition, joined by `and`.
pub const CONDITION_PARTS_MAX: usize = 16;
/// Steps of a path in a condition.
pub const CONDITION_STEPS_MAX: usize = 32;
/// Bytes of a group's name.
pub const GROUP_NAME_BYTES_MAX: usize = 128;
/// Channels, names or globs, of one group.
pub const GROUP_CHANNELS_MAX: usize = 64;
/// Bytes of each.
pub const GROUP_CHANNEL_BYTES_MAX: usize = 255;
/// Longest ack wait, extension and delay.
pub const ACK_WAIT_MAX: Duration = Duration::from_hours(12);
/// Shortest ack wait.
pub const ACK_WAIT_MIN: Duration = Duration::from_secs(1);
/// Attempts that a group may give an entry.
pub const GROUP_ATTEMPTS_MAX: u32 = 100;
/// Groups that the desk has at a time; one beyond it is refused.
pub const GROUPS_AT_DESK_MAX: usize = 1 << 14;
/// Groups that the embedded log keeps; one beyond it is refused.
pub const GROUPS_STORED_MAX: usize = 12_000;
/// Workers and waiting fetches of one group; one beyond it gets a temporary error.
pub const GROUP_MEMBERS_MAX: usize = 10_000;
/// Entries that one group holds at a time; of more it takes in, the rest waits in the log.
pub const GROUP_HELD_MAX: usize = 16_384;
/// Lines in which entries of one group wait; beyond it nothing new is taken in until one is empty.
pub const GROUP_LINES_MAX: usize = 1 << 18;
/// Entries of a group that wait in lines of the log; beyond it no more are taken in than workers can have.
pub const GROUP_LINED_MAX: u64 = 1 << 20;
/// Keys of a group with a weight of their own.
pub const KEY_WEIGHTS_MAX: usize = 1000;
/// Turns in a row of one key, or of one lane against the others.
pub const KEY_WEIGHT_MAX: u32 = 100;
/// Tags by which a group takes entries.
pub const PICKED_TAGS_MAX: usize = 16;
/// Bytes of them, as far as entries are about as large as those before.
pub const GROUP_HELD_BYTES_MAX: usize = 64 << 20;
/// Bytes that all groups together hold.
pub const GROUPS_HELD_BYTES_MAX: usize = 512 << 20;
/// Deliveries of a JetStream consumer that nobody has acknowledged: it gives no more beyond it.
pub const GROUP_UNSETTLED_MAX: i64 = 1_000_000;
/// Entries that an ordered group collects behind a hole before it asks JetStream for no more.
pub const GROUP_COLLECTED_MAX: usize = 65_536;
/// Deliveries that a worker may have under way.
pub const GROUP_CREDIT_MAX: u32 = 10_000;
/// Groups that one connection consumes.
pub const GROUPS_PER_WORKER_MAX: usize = 16;
/// Entries of one answer to a look at what a group has not done.
pub const PEEKED_MAX: usize = 1000;
/// Last publications with which a group may start.
pub const START_LAST_MAX: u64 = 100_000;
/// Deliveries in the answer to one fetch.
pub const FETCH_DELIVERIES_MAX: u32 = 1000;
/// Longest wait of a fetch, milliseconds.
pub const FETCH_WAIT_MS_MAX: u64 = 20_000;
/// Shortest wait of a fetch, milliseconds: the time that the log has to say what there is.
pub const FETCH_WAIT_MS_MIN: u64 = 50;
/// Deliveries settled by one question.
pub const SETTLED_PER_ASK_MAX: usize = 10_000;
/// Bytes of the reason of a failure that are kept; a longer one is cut.
pub const FAILURE_REASON_BYTES_MAX: usize = 512;
/// Failures of one entry that the embedded log keeps; of more, the oldest are forgotten.
pub const ENTRY_FAILURES_MAX: usize = 64;
/// Bytes of the failures of one entry that are kept in JetStream; the oldest go first.
pub const ENTRY_FAILURES_BYTES_MAX: usize = 256 << 10;
/// Dead letters in one page.
pub const LETTERS_PAGE_MAX: usize = 1000;
/// Dead letters that are looked at for one page, where not all of them are meant.
pub const LETTERS_LOOKED_AT_MAX: usize = 20_000;
/// Dead letters that are retried or dropped by one question.
pub const LETTERS_PER_ASK_MAX: usize = 100_000;
/// Pages of replays that are made at a time; others wait.
pub const REPLAYS_MAX: usize = 1;
/// Channels of one replay.
pub const REPLAY_CHANNELS_MAX: usize = 64;
/// Events in one page of a replay.
pub const REPLAY_PAGE_MAX: usize = 10_000;
/// Bytes of records in it.
pub const REPLAY_PAGE_BYTES_MAX: usize = 8 << 20;
/// Entries looked at for it.
pub const REPLAY_LOOKED_AT_MAX: usize = 100_000;
/// Events that it names of those that its condition could not read.
pub const REPLAY_UNJUDGED_TOLD_MAX: usize = 16;
/// Bytes of a reply to a request; a larger one is refused.
pub const REPLY_BYTES_MAX: usize = 256 << 10;
/// Rules of `[[queue.push]]`.
pub const PUSHES_MAX: usize = 256;
/// Deliveries in one call of a push rule.
pub const PUSH_BATCH_MAX: u32 = 100;
/// Calls of one push rule under way.
pub const PUSH_CALLS_MAX: u32 = 256;
/// Bytes of the deliveries that one push rule has under way; one larger than that goes alone.
pub const PUSH_BYTES_MAX: usize = 4 << 20;
/// Bytes of the answer to one of its calls that are read.
pub const PUSH_ANSWER_BYTES_MAX: usize = 64 << 10;
/// The longest time that a client which comes too fast is told to stay away, but for what chance adds.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(60);
/// The longest time that a target's `Retry-After` may ask a push rule for.
pub const PUSH_RETRY_AFTER_MAX: Duration = Duration::from_hours(1);
/// Triggers that lead from one to the next; what would go on beyond it is a dead letter.
pub const TRIGGER_HOPS_MAX: u8 = 8;
/// Parts of one join of a trigger.
pub const JOIN_PARTS_MAX: u32 = 1000;
/// Bytes of the parts of one join; a larger one is given up, and its parts are dead letters.
pub const JOIN_BYTES_MAX: usize = 4 << 20;
/// Parts that wait in the joins of one trigger; beyond it the join that has waited longest is given up.
pub const JOINS_PARTS_MAX: usize = 1 << 16;
/// The longest time that a join waits for its parts.
pub const JOIN_WITHIN_MAX: Duration = Duration::from_hours(24 * 30);
/// Bytes of a name in a key of the embedded log; an append or a question with a longer one is refused.
pub const LOG_NAME_BYTES_MAX: usize = 1024;
/// Bytes of one record in it, whose library takes 4 GiB.
pub const LOG_RECORD_BYTES_MAX: usize = 256 << 20;
/// Bytes of one frame of a copy of the log: the largest record, and what is around it.
pub const COPY_FRAME_BYTES_MAX: usize = 257 << 20;
const _: () = assert!(COPY_FRAME_BYTES_MAX > LOG_RECORD_BYTES_MAX);
/// Bytes of a message's headers in JetStream, which keeps their length in sixteen bits; a publication with more is refused.
pub const NATS_HEADERS_BYTES_MAX: usize = 60_000;
/// How long the embedded log remembers an idempotency key; a longer time to live is cut.
pub const LOG_KEY_TTL_MAX: Duration = Duration::from_hours(24 * 366);
/// How much later a publication may be published than it is taken in.
pub const PUBLISH_DELAY_MAX: Duration = Duration::from_hours(24 * 365);
/// How long a publication may be kept that ends by itself.
pub const PUBLISH_TTL_MAX: Duration = Duration::from_hours(24 * 365);
/// Publications that may wait for their time, as the operator may allow them at most (`durable.scheduled_max`).
pub const LOG_SCHEDULED_MAX: u64 = 1_000_000_000;
/// Waiting publications in one page of their list.
pub const SCHEDULED_PAGE_MAX: usize = 1000;
/// Emptied channels whose entries may still be there; of more, scans and groups see the entries until they expire.
pub const LOG_TRIMS_MAX: usize = 100_000;
/// Least `retention_bytes` of a namespace: what one step of forgetting takes is little of it.
pub const NAMESPACE_BYTES_MIN: u64 = 1 << 20;
/// Bytes of blocks that are in no file, beside those that are being written into one; appends wait beyond it.
pub const LOG_UNFLUSHED_BYTES_MAX: u64 = 128 << 20;
/// Memtables that wait to be written; likewise, for at one more the library stops.
pub const LOG_UNFLUSHED_MAX: usize = 3;
/// Sources of one process.
pub const SOURCES_MAX: usize = 64;
/// Rows or records that a source publishes together.
pub const SOURCE_BATCH_MAX: usize = 10_000;
/// Bytes of payloads beyond which a source reads no further before it has published what it has.
pub const SOURCE_BATCH_BYTES_MAX: usize = 8 << 20;
/// Bytes of a row or record with everything that goes along; a larger one is refused, like the body of a request.
pub const SOURCE_RECORD_BYTES_MAX: usize = HTTP_BODY_BYTES_MAX;
/// Rows of one source that could not be published and are passed over; with more of them it stands still.
pub const SOURCE_SKIPPED_MAX: usize = 10_000;
/// Rows that are counted to tell how far a source is behind.
pub const SOURCE_LAG_MAX: usize = 100_000;
/// Partitions of one source.
pub const SOURCE_PARTITIONS_MAX: usize = 4096;
/// Bytes of one answer of a Kafka server.
pub const KAFKA_ANSWER_BYTES_MAX: usize = 64 << 20;
/// Bytes of one version's text.
pub const SCHEMA_BYTES_MAX: usize = 256 * 1024;
/// Bytes that one compiled pattern of a schema may take.
pub const SCHEMA_PATTERN_BYTES_MAX: usize = 1 << 20;
/// Comparisons of subschemas for one change: branches are tried against branches. A change that needs more is not compatible.
pub const SCHEMA_COMPARISONS_MAX: u32 = 20_000;
/// Bytes of the text that says why a payload is refused; a longer one is cut.
pub const REFUSAL_BYTES_MAX: usize = 512;
/// Bytes of one part of it: a name, a path, what the validator says.
pub const REFUSAL_PART_BYTES_MAX: usize = 96;
/// Bytes of a payload's value in it.
pub const REFUSAL_VALUE_BYTES_MAX: usize = 48;
