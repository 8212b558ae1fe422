//! What subscribers undo before they see a payload: compression, and patches.

use std::collections::{HashMap, VecDeque};

use flate2::{Decompress, FlushDecompress, Status};
use serde_json::Value;

use super::super::payload::{self, Stamp};
use super::super::wire::{self, Field};
use crate::wire::fossil;

/// Bytes of one message after inflation, at most.
const INFLATED_BYTES_MAX: usize = 16 << 20;
/// Texts of delta subscribers that are remembered: those that are under way to somebody.
const RECENT_MAX: usize = 256;

/// Inflates messages that are compressed by themselves (RFC 7692 with `server_no_context_takeover`).
pub(super) struct Inflater(Decompress);

impl Default for Inflater {
    fn default() -> Self {
        Self(Decompress::new(false))
    }
}

impl Inflater {
    /// `None` for what is no compressed message.
    pub(super) fn inflate(&mut self, payload: &[u8], out: &mut Vec<u8>) -> Option<()> {
        const TAIL: &[u8] = &[0, 0, 0xff, 0xff];
        self.0.reset(false);
        out.clear();
        for part in [payload, TAIL] {
            let start = self.0.total_in();
            loop {
                let used = (self.0.total_in() - start) as usize;
                if out.len() == out.capacity() {
                    out.reserve(4096.max(out.len()));
                }
                if out.len() > INFLATED_BYTES_MAX {
                    return None;
                }
                let status = self
                    .0
                    .decompress_vec(&part[used..], out, FlushDecompress::Sync)
                    .ok()?;
                let done = (self.0.total_in() - start) as usize == part.len();
                if status == Status::StreamEnd || done && out.len() < out.capacity() {
                    break;
                }
            }
        }
        Some(())
    }
}

/// Publications as delta subscribers get them. All subscribers of a channel get the same bytes, so a patch is applied
/// by the first that it reaches, and the others compare.
pub(super) struct Patched {
    /// Last payload of each channel.
    bases: HashMap<Vec<u8>, Vec<u8>, foldhash::fast::FixedState>,
    recent: VecDeque<(Vec<u8>, Stamp)>,
    bytes_max: usize,
}

impl Patched {
    pub(super) fn new(size: usize) -> Self {
        Self {
            bases: HashMap::default(),
            recent: VecDeque::new(),
            bytes_max: size.max(payload::SIZE_MIN),
        }
    }

    /// The stamp of the publication in a frame; `None` if there is none or a patch does not apply.
    pub(super) fn stamp(&mut self, text: &[u8]) -> Option<Stamp> {
        if let Some((_, stamp)) = self.recent.iter().rev().find(|(seen, _)| seen == text) {
            return Some(*stamp);
        }
        let (channel, data, is_patch) = if text.first() == Some(&b'{') {
            json_publication(text)?
        } else {
            protobuf_publication(text)?
        };
        let payload = if is_patch {
            fossil::apply(self.bases.get(&channel)?, &data, self.bytes_max).ok()?
        } else {
            data
        };
        let stamp = payload::find(&payload)?;
        self.bases.insert(channel, payload);
        if self.recent.len() == RECENT_MAX {
            self.recent.pop_front();
        }
        self.recent.push_back((text.to_vec(), stamp));
        Some(stamp)
    }
}

/// Channel, data, and whether it is a patch.
type Published = (Vec<u8>, Vec<u8>, bool);

fn json_publication(text: &[u8]) -> Option<Published> {
    let reply: Value = serde_json::from_slice(text).ok()?;
    let push = reply.get("push")?;
    let publication = push.get("pub")?;
    Some((
        push["channel"].as_str()?.as_bytes().to_vec(),
        publication["data"].as_str()?.as_bytes().to_vec(),
        publication["delta"] == true,
    ))
}

fn protobuf_publication(frame: &[u8]) -> Option<Published> {
    let push = wire::field(wire::messages(frame).next()?, 4)?;
    let publication = wire::field(push, 4)?;
    Some((
        wire::field(push, 2)?.to_vec(),
        wire::field(publication, 4)?.to_vec(),
        wire::fields(publication).any(|field| field == (8, Field::Number(1))),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compressed_messages_inflate_one_by_one() {
        let mut inflater = Inflater::default();
        let mut out = Vec::new();
        for text in [&b"hello hello hello"[..], b"", &[b'x'; 100_000]] {
            let mut compress = flate2::Compress::new(flate2::Compression::fast(), false);
            let mut bytes = Vec::with_capacity(text.len() + 64);
            compress
                .compress_vec(text, &mut bytes, flate2::FlushCompress::Sync)
                .unwrap();
            let payload = bytes.strip_suffix(&[0, 0, 0xff, 0xff]).unwrap();
            assert_eq!(inflater.inflate(payload, &mut out), Some(()));
            assert_eq!(out, text);
        }
        assert_eq!(inflater.inflate(&[0xff; 9], &mut out), None);
    }

    #[test]
    fn patches_are_applied_in_the_order_of_their_channel() {
        let payload = |sequence| {
            let mut out = Vec::new();
            let stamp = Stamp {
                channel: 0,
                sequence,
                intended: 5,
            };
            payload::write(stamp, 128, &mut out);
            String::from_utf8(out).unwrap()
        };
        let push = |data: &str, delta| {
            serde_json::json!({ "push": { "channel": "a", "pub": { "data": data, "delta": delta } } })
                .to_string()
        };
        let mut patched = Patched::new(128);
        assert_eq!(
            patched.stamp(push("9", true).as_bytes()),
            None,
            "nothing to patch"
        );
        let first = push(&payload(1), false);
        assert_eq!(
            patched.stamp(first.as_bytes()).map(|stamp| stamp.sequence),
            Some(1)
        );
        let patch = fossil::create(payload(1).as_bytes(), payload(2).as_bytes()).unwrap();
        let second = push(&String::from_utf8(patch).unwrap(), true);
        for text in [&second, &first, &second] {
            assert!(patched.stamp(text.as_bytes()).is_some());
        }
    }
}
