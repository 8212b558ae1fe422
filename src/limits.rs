//! Every bound of the program. A bound that an operator can set has its default in `config`.

/// Shards of one process. The interest mask of a channel is one `u64`.
pub const SHARDS_MAX: usize = 64;
/// Connections of one shard: slots of its ring's file table and of its connection table.
pub const CONNECTIONS_MAX: u32 = 1 << 20;
/// Bytes of one HTTP request head.
pub const HTTP_HEAD_BYTES_MAX: usize = 16 * 1024;
/// Headers of one HTTP request.
pub const HTTP_HEADERS_MAX: usize = 64;
/// Bytes of one HTTP request body of the server API.
pub const HTTP_BODY_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Bytes of one message on `ringmain echo`.
pub const ECHO_MESSAGE_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Bytes of a channel name as the operator may configure it at most.
pub const CHANNEL_NAME_BYTES_MAX: usize = 1024;
/// Bytes of a user id.
pub const USER_ID_BYTES_MAX: usize = 1024;
/// Commands in one client frame.
pub const COMMANDS_PER_FRAME_MAX: usize = 10_000;
