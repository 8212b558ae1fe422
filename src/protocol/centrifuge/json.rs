//! The JSON encoding (`spec/centrifuge.md` §2.1): commands in, replies and pushes out, one JSON object per line.

mod body;
mod command;
mod filter;
mod parts;
mod push;
mod reply;

pub use body::decode_connect;
pub(in crate::protocol) use command::Position;
pub use command::{JsonCommands, commands, decode_emulation};
pub(in crate::protocol) use parts::{client_info, tags};
pub use push::{encode_bare_push, encode_error, encode_polled, encode_push, encode_pushed};
pub use reply::encode_reply;

/// A ping: the empty reply. The client's pong is the same bytes.
pub const PING: &[u8] = b"{}";
