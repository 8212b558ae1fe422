//! The JSON encoding (`spec/centrifuge.md` §2.1): commands in, replies and pushes out, one JSON object per line.

use std::borrow::Cow;

use memchr::memchr2;
use serde::de::IgnoredAny;

pub(in crate::protocol) mod read;
pub(in crate::protocol) mod write;

mod command;
mod push;
mod reply;

pub(in crate::protocol) use command::Position;
pub use command::{Commands, commands};
pub use push::encode_push;
pub(in crate::protocol) use push::{client_info, tags};
pub use reply::encode_reply;

/// A ping: the empty reply. The client's pong is the same bytes.
pub const PING: &[u8] = b"{}";

/// `raw`, one JSON value, on one line: without line feeds and carriage returns. Both can only stand between tokens,
/// since a string has them escaped. Copies only if there is something to remove.
#[must_use]
pub fn compact(raw: &[u8]) -> Cow<'_, [u8]> {
    let Some(first) = memchr2(b'\n', b'\r', raw) else {
        return Cow::Borrowed(raw);
    };
    let mut line = Vec::with_capacity(raw.len() - 1);
    line.extend_from_slice(&raw[..first]);
    line.extend(
        raw[first + 1..]
            .iter()
            .filter(|byte| !matches!(byte, b'\n' | b'\r')),
    );
    Cow::Owned(line)
}

/// True for exactly one JSON value in UTF-8, of any depth.
#[must_use]
pub fn is_json(bytes: &[u8]) -> bool {
    simdutf8::basic::from_utf8(bytes)
        .is_ok_and(|text| serde_json::from_str::<IgnoredAny>(text).is_ok())
}

/// True for exactly one JSON object in UTF-8.
#[must_use]
pub fn is_json_object(bytes: &[u8]) -> bool {
    bytes.trim_ascii_start().first() == Some(&b'{') && is_json(bytes)
}

#[cfg(test)]
mod tests;
