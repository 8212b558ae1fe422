//! Unsent bytes as bytes. What several connections wait for is written once, and theirs in common afterwards as before.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::{Backlog, QueuedPiece};
use crate::image::{Image, ImageError, ImageReader, ImageWriter};
use crate::limits::OWNED_BATCH_BYTES_MAX;
use crate::mem::{HeldBytes, Shared};

/// What any of the connections waits for, by number.
#[derive(Default)]
pub(in crate::shard) struct SharedPieces {
    all: Vec<Arc<Shared>>,
    numbers: HashMap<*const Shared, u32>,
}

impl SharedPieces {
    /// Of these, in their order.
    pub(in crate::shard) fn of<'b>(backlogs: impl Iterator<Item = &'b Backlog>) -> Self {
        let mut pieces = Self::default();
        for piece in backlogs.flat_map(|backlog| &backlog.pieces) {
            let number = pieces.all.len() as u32;
            let known = pieces.numbers.entry(Arc::as_ptr(&piece.of));
            if *known.or_insert(number) == number {
                pieces.all.push(Arc::clone(&piece.of));
            }
        }
        pieces
    }

    fn number(&self, piece: &QueuedPiece) -> u32 {
        match self.numbers.get(&Arc::as_ptr(&piece.of)) {
            Some(&number) => number,
            None => unreachable!("they are those of all connections"),
        }
    }

    pub(in crate::shard) fn write(&self, out: &mut ImageWriter) {
        out.length(self.all.len());
        for piece in &self.all {
            out.bytes(piece.bytes());
            piece.origin().write(out);
        }
    }

    /// They count from here on.
    pub(in crate::shard) fn read(
        held: &HeldBytes,
        from: &mut ImageReader<'_>,
    ) -> Result<Self, ImageError> {
        let mut pieces = Self::default();
        for _ in 0..from.length()? {
            let bytes = from.bytes()?.to_vec();
            let origin = Image::read(from)?;
            pieces.all.push(Shared::of(bytes, origin, held));
        }
        Ok(pieces)
    }
}

impl Backlog {
    pub(in crate::shard) fn write(&self, shared: &SharedPieces, out: &mut ImageWriter) {
        let Self {
            pieces,
            tail,
            // Counted anew.
            queued: _,
            in_flight,
            before,
            answers,
            large,
            before_large,
            before_ping,
            has_taken,
            lost,
            // Counted anew.
            channels: _,
            unconflated,
            conflated,
            age_by,
            held: _,
        } = self;
        out.length(pieces.len());
        for piece in pieces {
            let QueuedPiece { of: _, from, hub } = piece;
            shared.number(piece).write(out);
            from.write(out);
            hub.write(out);
        }
        out.bytes(tail);
        in_flight.write(out);
        before.write(out);
        answers.write(out);
        large.write(out);
        before_large.write(out);
        before_ping.write(out);
        has_taken.write(out);
        lost.write(out);
        unconflated.write(out);
        conflated.write(out);
        age_by.write(out);
    }

    pub(in crate::shard) fn read(
        shared: &SharedPieces,
        held: &HeldBytes,
        from: &mut ImageReader<'_>,
    ) -> Result<Self, ImageError> {
        const WRONG: ImageError = ImageError::Wrong {
            what: "an unsent piece",
        };
        let mut backlog = Self::new(held);
        let mut pieces = VecDeque::new();
        let mut of_channels = Vec::new();
        for _ in 0..from.length()? {
            let number = u32::read(from)?;
            let of = shared.all.get(number as usize).ok_or(WRONG)?;
            let piece = QueuedPiece {
                of: Arc::clone(of),
                from: Image::read(from)?,
                hub: Image::read(from)?,
            };
            let left = of.bytes().len().checked_sub(piece.from as usize);
            let left = left.ok_or(WRONG)?;
            backlog.queued += left;
            of_channels.extend(piece.hub.map(|hub| (hub, left)));
            pieces.push_back(piece);
        }
        let (tail, in_flight) = (from.bytes()?.to_vec(), usize::read(from)?);
        if in_flight > OWNED_BATCH_BYTES_MAX {
            return Err(WRONG);
        }
        backlog.queued += tail.len();
        (backlog.pieces, backlog.tail, backlog.in_flight) = (pieces, tail, in_flight);
        held.add(backlog.own_memory());
        for (hub, bytes) in of_channels {
            backlog.count(hub, bytes);
        }
        backlog.before = Image::read(from)?;
        backlog.answers = Image::read(from)?;
        backlog.large = Image::read(from)?;
        backlog.before_large = Image::read(from)?;
        backlog.before_ping = Image::read(from)?;
        backlog.has_taken = Image::read(from)?;
        backlog.lost = Image::read(from)?;
        backlog.unconflated = Image::read(from)?;
        backlog.conflated = Image::read(from)?;
        backlog.age_by = Image::read(from)?;
        Ok(backlog)
    }
}
