//! What a subscriber did not get, and how it is told.

use crate::image::image;
use crate::mem::Origin;
use crate::model::ChannelName;
use crate::wire::json::write::Members;

/// Publications of one channel that a subscriber did not get.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Loss {
    /// Those that nothing stands for.
    pub(super) publications: u64,
    /// Those in whose place a later one with their key comes.
    pub(super) conflated: u64,
    /// Offsets of the first and the last of both; 0 where they have none.
    from: u64,
    to: u64,
}

image!(struct Loss { publications, conflated, from, to });

/// By hub slot.
pub(super) type Losses = Vec<(u32, Loss)>;

/// Adds what a channel lost.
pub(super) fn add(losses: &mut Losses, hub: u32, loss: Loss) {
    match losses.iter_mut().find(|(other, _)| *other == hub) {
        Some((_, lost)) => lost.add(loss),
        None => losses.push((hub, loss)),
    }
}

impl Loss {
    /// One publication that was dropped.
    pub(super) const fn of(origin: &Origin) -> Self {
        Self {
            publications: 1,
            conflated: 0,
            from: origin.offset,
            to: origin.offset,
        }
    }

    /// One that a later one replaces.
    pub(super) const fn conflated(origin: &Origin) -> Self {
        Self {
            publications: 0,
            conflated: 1,
            from: origin.offset,
            to: origin.offset,
        }
    }

    /// All behind this offset, up to that.
    pub(super) const fn between(before: u64, to: u64) -> Self {
        Self {
            publications: to.saturating_sub(before),
            conflated: 0,
            from: before + 1,
            to,
        }
    }

    /// Offset of the first; 0 where it has none.
    pub(super) const fn from(self) -> u64 {
        self.from
    }

    pub(super) fn add(&mut self, other: Self) {
        self.publications += other.publications;
        self.conflated += other.conflated;
        self.from = match (self.from, other.from) {
            (0, from) | (from, 0) => from,
            (one, other) => one.min(other),
        };
        self.to = self.to.max(other.to);
    }
}

/// What a subscriber is told who has missed publications that nothing brings back; how many, where that is known.
pub(super) fn lost(channel: &ChannelName, loss: Option<Loss>) -> Vec<u8> {
    let mut out = Vec::new();
    let mut message = Members::open(&mut out);
    let mut lost = message.object("lost");
    lost.text("channel", channel.name());
    if let Some(loss) = loss {
        lost.number("publications", loss.publications);
        if loss.conflated > 0 {
            lost.number("conflated", loss.conflated);
        }
        if loss.from > 0 {
            lost.number("from", loss.from);
            lost.number("to", loss.to);
        }
    }
    lost.close();
    message.close();
    out
}
