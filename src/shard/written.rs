//! What every class of a channel's subscribers gets, one piece for each class, written once.

use std::sync::Arc;

use crate::broker::HubChannel;
use crate::mem::RingRange;
use crate::model::{Encoding, Framing, Publication};
use crate::protocol::push::Push;
use crate::session::fanout;

/// Memory for pieces is kept for the next turn up to this size.
const BYTES_KEPT: usize = 64 * 1024;

/// Bytes for one class.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Piece {
    from: usize,
    to: usize,
    /// Publications in it.
    pub(super) publications: u32,
    /// Where it is in the fan-out ring; `None` if it found no room there.
    pub(super) range: Option<RingRange>,
}

/// See the module.
#[derive(Default)]
pub(super) struct Written {
    bytes: Vec<u8>,
    pieces: Vec<Piece>,
    /// Bare pushes of one encoding, while several classes share it, and where each ends.
    bodies: Vec<u8>,
    ends: Vec<usize>,
    /// Publications encoded so far, in JSON and in Protobuf.
    pub(super) encoded: [u64; 2],
}

impl Piece {
    pub(super) const fn is_empty(&self) -> bool {
        self.from == self.to
    }
}

impl Written {
    /// Writes publications.
    pub(super) fn run(&mut self, channel: &HubChannel, run: &[Arc<Publication>]) {
        self.clear();
        self.pieces.resize(channel.classes.len(), Piece::default());
        let name = channel.name.as_str();
        for (nth, encoding) in [Encoding::Json, Encoding::Protobuf].into_iter().enumerate() {
            let in_use = || {
                let classes = channel.classes.iter().enumerate();
                classes.filter(|(_, class)| {
                    class.count > 0
                        && class.format.encoding == encoding
                        && class.format.framing != Framing::Poll
                })
            };
            let shared = in_use().nth(1).is_some();
            if in_use().next().is_some() {
                self.encoded[nth] += run.len() as u64;
            }
            if shared {
                self.encode(name, encoding, run);
            }
            for (at, class) in in_use() {
                let from = self.bytes.len();
                let mut start = 0;
                if class.format.framing == Framing::Joined {
                    fanout::joined(&mut self.bytes, class.format, name, run);
                }
                let each = match class.format.framing {
                    Framing::Joined => &[],
                    _ => run,
                };
                for (publication, body) in each.iter().enumerate() {
                    if shared {
                        let body = &self.bodies[start..self.ends[publication]];
                        fanout::pushed(&mut self.bytes, class.format, |out| {
                            out.extend_from_slice(body);
                        });
                        start = self.ends[publication];
                    } else {
                        let push = Push::Publication(body);
                        fanout::push(&mut self.bytes, class.format, name, &push);
                    }
                }
                self.pieces[at] = Piece {
                    from,
                    to: self.bytes.len(),
                    publications: run.len() as u32,
                    range: None,
                };
            }
        }
    }

    fn encode(&mut self, name: &str, encoding: Encoding, run: &[Arc<Publication>]) {
        self.bodies.clear();
        self.ends.clear();
        for publication in run {
            let push = Push::Publication(publication);
            fanout::bare_push(&mut self.bodies, encoding, name, &push);
            self.ends.push(self.bodies.len());
        }
    }

    /// Writes one push that is no publication.
    pub(super) fn push(&mut self, channel: &HubChannel, push: &Push<'_>) {
        self.clear();
        for class in &channel.classes {
            let from = self.bytes.len();
            if class.count > 0 && class.format.framing != Framing::Poll {
                fanout::push(&mut self.bytes, class.format, channel.name.as_str(), push);
            }
            self.pieces.push(Piece {
                from,
                to: self.bytes.len(),
                publications: 0,
                range: None,
            });
        }
    }

    /// Finds a place in the ring for every piece.
    pub(super) fn place(&mut self, mut place: impl FnMut(&[u8]) -> Option<RingRange>) {
        for piece in &mut self.pieces {
            if !piece.is_empty() {
                piece.range = place(&self.bytes[piece.from..piece.to]);
            }
        }
    }

    pub(super) fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    pub(super) fn bytes(&self, class: u16) -> &[u8] {
        let piece = self.pieces[usize::from(class)];
        &self.bytes[piece.from..piece.to]
    }

    fn clear(&mut self) {
        self.pieces.clear();
        self.bytes.clear();
        self.bytes.shrink_to(BYTES_KEPT);
        self.bodies.clear();
        self.bodies.shrink_to(BYTES_KEPT);
    }
}
