//! What every class of a channel's subscribers gets, one piece for each class, written once.

use std::ops::Range;
use std::sync::Arc;

use super::frame::Compression;
use super::say::{bare_push, joined, message, pushed};
use crate::broker::HubChannel;
use crate::broker::hub::{Class, Delta};
use crate::image::{Image, ImageError, ImageReader, ImageWriter};
use crate::mem::{HeldBytes, Origin, RingRange, Shared};
use crate::model::{Encoding, Framing, Publication};
use crate::protocol::push::{PayloadShape, Push};

/// Memory for pieces is kept for the next turn up to this size.
const BYTES_KEPT: usize = 64 * 1024;

/// `PayloadShape::Plain`, `Whole` and `Patch`.
const SHAPES: usize = 3;
/// Classes with filters among which one that gets the same bytes is looked for.
const DISTINCT_LOOKED_AT: usize = 32;

/// Bytes for one class.
#[derive(Clone, Copy, Debug, Default)]
pub struct Piece {
    from: usize,
    to: usize,
    /// Publications in it.
    pub publications: u32,
    /// Where it is in the fan-out ring; `None` if it found no room there.
    pub range: Option<RingRange>,
    /// A class before this one whose bytes these are.
    same: Option<u16>,
}

/// See the module.
#[derive(Default)]
pub struct Written {
    bytes: Vec<u8>,
    pieces: Vec<Piece>,
    /// Bare pushes of one encoding, while several classes share it, and where each stands, by publication and shape.
    bodies: Vec<u8>,
    spans: Vec<[Range<usize>; SHAPES]>,
    /// What each distinct class gets of each publication.
    selections: Vec<Option<PayloadShape>>,
    /// Classes with bytes of their own, and where their selection begins.
    distinct: Vec<(u16, usize)>,
    /// Pieces of classes with subscribers that do not keep up, for the queues of these.
    shared: Vec<(u16, Arc<Shared>)>,
    /// Publications encoded so far, in JSON and in Protobuf.
    pub encoded: [u64; 2],
}

/// What is written is there while it is given: the counts are all that stays.
impl Image for Written {
    fn write(&self, out: &mut ImageWriter) {
        let Self {
            bytes: _,
            pieces: _,
            bodies: _,
            spans: _,
            selections: _,
            distinct: _,
            shared: _,
            encoded,
        } = self;
        encoded.write(out);
    }

    fn read(from: &mut ImageReader<'_>) -> Result<Self, ImageError> {
        Ok(Self {
            encoded: Image::read(from)?,
            ..Self::default()
        })
    }
}

impl Piece {
    /// The class gets nothing.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.from == self.to
    }
}

impl Written {
    /// Writes publications. Where subscribers get the latest only, each class gets the latest of those that it gets any of;
    /// `replaced`: there were others before these.
    pub fn run(
        &mut self,
        channel: &HubChannel,
        run: &[Arc<Publication>],
        replaced: bool,
        compression: &mut Compression,
    ) {
        let latest = channel.gives_latest();
        self.clear();
        self.pieces.resize(channel.classes.len(), Piece::default());
        for encoding in [Encoding::Json, Encoding::Protobuf] {
            let in_use = || {
                let classes = channel.classes.iter().enumerate();
                classes.filter(|(_, class)| {
                    class.count > 0
                        && class.format.encoding == encoding
                        && class.format.speaker.writes()
                })
            };
            let shared = in_use().nth(1).is_some();
            if shared {
                self.bodies.clear();
                self.spans.clear();
                self.spans.resize(run.len(), Default::default());
            }
            self.distinct.clear();
            self.selections.clear();
            for (at, class) in in_use() {
                let start = self.select(class, run);
                if latest {
                    self.leave_latest(start, replaced);
                }
                match self.alike(channel, at, start) {
                    Some(same) => {
                        self.selections.truncate(start);
                        self.pieces[at] = self.pieces[usize::from(same)];
                        self.pieces[at].same = Some(same);
                    }
                    None => {
                        if class.filter.is_some() {
                            self.distinct.push((at as u16, start));
                        }
                        self.pieces[at] =
                            self.write(channel, class, run, start, shared, compression);
                    }
                }
            }
        }
    }

    /// Adds which publications a class gets, each in which shape. Returns where they begin.
    fn select(&mut self, class: &Class, run: &[Arc<Publication>]) -> usize {
        let start = self.selections.len();
        let mut based = class.delta == Delta::Based;
        for publication in run {
            let shape = match class.delta {
                Delta::Off => PayloadShape::Plain,
                Delta::Fresh | Delta::Based if based && publication.patch.is_some() => {
                    PayloadShape::Patch
                }
                Delta::Fresh | Delta::Based | Delta::Whole => PayloadShape::Whole,
            };
            based = publication.offset.0 > 0;
            let filter = class.filter.as_ref();
            let passes = filter.is_none_or(|filter| filter.passes(&publication.tags));
            self.selections.push(passes.then_some(shape));
        }
        start
    }

    /// Of what was selected for a class, leaves the last. A client that does not get the one before cannot patch it.
    fn leave_latest(&mut self, start: usize, replaced: bool) {
        let mut selected = self.selections[start..].iter_mut().rev();
        let Some(last) = selected.find_map(Option::as_mut) else {
            return;
        };
        let mut is_first = !replaced;
        for before in selected {
            is_first = false;
            *before = None;
        }
        if !is_first && *last == PayloadShape::Patch {
            *last = PayloadShape::Whole;
        }
    }

    /// A class before this one that gets the same bytes because its filter lets the same publications through.
    fn alike(&self, channel: &HubChannel, at: usize, start: usize) -> Option<u16> {
        let class = &channel.classes[at];
        class.filter.as_ref()?;
        let own = &self.selections[start..];
        let same = |&&(other, from): &&(u16, usize)| {
            channel.classes[usize::from(other)].format == class.format
                && self.selections[from..from + own.len()] == *own
        };
        let latest = self.distinct.iter().rev().take(DISTINCT_LOOKED_AT);
        latest.clone().find(same).map(|&(other, _)| other)
    }

    fn write(
        &mut self,
        channel: &HubChannel,
        class: &Class,
        run: &[Arc<Publication>],
        start: usize,
        shared: bool,
        compression: &mut Compression,
    ) -> Piece {
        let name = channel.name.name();
        let from = self.bytes.len();
        let encoded = &mut self.encoded[class.format.encoding as usize];
        if class.format.framing == Framing::Joined {
            // Made by the server: neither filter nor delta.
            let run = if channel.gives_latest() {
                &run[run.len().saturating_sub(1)..]
            } else {
                run
            };
            *encoded += run.len() as u64;
            joined(&mut self.bytes, class.format, compression, name, run);
            return Piece {
                from,
                to: self.bytes.len(),
                publications: run.len() as u32,
                ..Piece::default()
            };
        }
        let mut publications = 0;
        for (nth, publication) in run.iter().enumerate() {
            let Some(shape) = self.selections[start + nth] else {
                continue;
            };
            publications += 1;
            let push = match shape {
                PayloadShape::Plain => Push::Publication(publication),
                PayloadShape::Whole | PayloadShape::Patch => Push::Shaped(publication, shape),
            };
            if !shared {
                *encoded += 1;
                message(&mut self.bytes, class.format, compression, name, &push);
                continue;
            }
            let span = &mut self.spans[nth][shape as usize];
            if span.end == 0 {
                *encoded += 1;
                let begin = self.bodies.len();
                bare_push(&mut self.bodies, class.format.encoding, name, &push);
                *span = begin..self.bodies.len();
            }
            let body = &self.bodies[span.clone()];
            pushed(&mut self.bytes, class.format, compression, |out| {
                out.extend_from_slice(body);
            });
        }
        Piece {
            from,
            to: self.bytes.len(),
            publications,
            ..Piece::default()
        }
    }

    /// Writes one push that is no publication, about the channel `name` or, without one, the connection.
    pub fn push(
        &mut self,
        channel: &HubChannel,
        name: &str,
        push: &Push<'_>,
        compression: &mut Compression,
    ) {
        self.clear();
        self.distinct.clear();
        for (at, class) in channel.classes.iter().enumerate() {
            let same = self
                .distinct
                .iter()
                .find(|&&(other, _)| channel.classes[usize::from(other)].format == class.format);
            if let Some(&(same, _)) = same {
                self.pieces.push(self.pieces[usize::from(same)]);
                self.pieces[at].same = Some(same);
                continue;
            }
            let from = self.bytes.len();
            if class.count > 0 && class.format.speaker.writes() {
                message(&mut self.bytes, class.format, compression, name, push);
                self.distinct.push((at as u16, 0));
            }
            self.pieces.push(Piece {
                from,
                to: self.bytes.len(),
                ..Piece::default()
            });
        }
    }

    /// Finds a place in the ring for every piece.
    pub fn place(&mut self, mut place: impl FnMut(&[u8]) -> Option<RingRange>) {
        for at in 0..self.pieces.len() {
            let piece = self.pieces[at];
            if piece.is_empty() {
                continue;
            }
            self.pieces[at].range = match piece.same {
                Some(same) => self.pieces[usize::from(same)].range,
                None => place(&self.bytes[piece.from..piece.to]),
            };
        }
    }

    /// One piece for each class, in their order.
    #[must_use]
    pub fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    /// What a class gets.
    #[must_use]
    pub fn bytes(&self, class: u16) -> &[u8] {
        let piece = self.pieces[usize::from(class)];
        &self.bytes[piece.from..piece.to]
    }

    /// The piece of a class, to be shared by those who cannot be given it now. All ask with the same `origin`.
    pub fn shared(&mut self, class: u16, origin: &Origin, held: &HeldBytes) -> &Arc<Shared> {
        let class = self.pieces[usize::from(class)].same.unwrap_or(class);
        let found = self.shared.iter().position(|&(of, _)| of == class);
        let at = found.unwrap_or_else(|| {
            let piece = Shared::of(self.bytes(class).to_vec(), origin.clone(), held);
            self.shared.push((class, piece));
            self.shared.len() - 1
        });
        &self.shared[at].1
    }

    /// Everybody has it who shares it.
    pub fn let_go(&mut self) {
        self.shared.clear();
    }

    fn clear(&mut self) {
        debug_assert!(self.shared.is_empty(), "let go of when it was given");
        self.pieces.clear();
        self.bytes.clear();
        self.bytes.shrink_to(BYTES_KEPT);
        self.bodies.clear();
        self.bodies.shrink_to(BYTES_KEPT);
    }
}
