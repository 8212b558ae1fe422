//! Lists of channels through the channels themselves: whoever is in one is taken out without a search. What a channel is, is not
//! known here.

use crate::image::{Image, ImageError, ImageReader, ImageWriter};
use crate::mem::Slab;

/// No channel.
pub(super) const NONE: u32 = u32::MAX;

/// A channel's neighbours in a list.
#[derive(Clone, Copy, Debug)]
pub(super) struct Link {
    before: u32,
    next: u32,
}

impl Default for Link {
    fn default() -> Self {
        Self {
            before: NONE,
            next: NONE,
        }
    }
}

/// A list of slots, the first one first.
#[derive(Debug)]
pub(super) struct List<C> {
    first: u32,
    last: u32,
    len: u32,
    /// Which of its links a channel has for this list.
    of: fn(&mut C) -> Option<&mut Link>,
}

impl<C> List<C> {
    pub(super) const fn new(of: fn(&mut C) -> Option<&mut Link>) -> Self {
        Self {
            first: NONE,
            last: NONE,
            len: 0,
            of,
        }
    }

    /// Who is first; `NONE` in an empty list.
    pub(super) const fn first(&self) -> u32 {
        self.first
    }

    pub(super) const fn len(&self) -> u32 {
        self.len
    }

    /// The link of a channel that is in the list, or is to be. `None` for `NONE`.
    ///
    /// # Panics
    /// If the channel has no link for this list.
    fn link<'c>(&self, channels: &'c mut Slab<C>, slot: u32) -> Option<&'c mut Link> {
        if slot == NONE {
            return None;
        }
        let link = (self.of)(channels.of_mut(slot));
        assert!(link.is_some(), "only who has a link is in a list");
        link
    }

    /// Puts a channel that is not in the list at its end.
    pub(super) fn push(&mut self, channels: &mut Slab<C>, slot: u32) {
        let last = self.last;
        if let Some(link) = self.link(channels, slot) {
            debug_assert!(
                link.before == NONE && link.next == NONE && last != slot,
                "it is not in the list"
            );
            link.before = last;
        }
        match self.link(channels, last) {
            Some(link) => link.next = slot,
            None => self.first = slot,
        }
        self.last = slot;
        self.len += 1;
    }

    /// Takes a channel that is in the list out of it.
    pub(super) fn remove(&mut self, channels: &mut Slab<C>, slot: u32) {
        assert!(self.len > 0, "it is in the list");
        let link = self.link(channels, slot).map(std::mem::take);
        let Link { before, next } = link.unwrap_or_default();
        debug_assert_eq!(
            before == NONE,
            self.first == slot,
            "the first has none before it"
        );
        debug_assert_eq!(
            next == NONE,
            self.last == slot,
            "the last has none behind it"
        );
        match self.link(channels, before) {
            Some(link) => link.next = next,
            None => self.first = next,
        }
        match self.link(channels, next) {
            Some(link) => link.before = before,
            None => self.last = before,
        }
        self.len -= 1;
    }

    /// Puts a channel that is in the list at its end.
    pub(super) fn touch(&mut self, channels: &mut Slab<C>, slot: u32) {
        if self.last != slot {
            self.remove(channels, slot);
            self.push(channels, slot);
        }
    }

    /// Writes the slots, the first one first.
    pub(super) fn write(
        &self,
        channels: &Slab<C>,
        link_of: impl Fn(&C) -> Option<&Link>,
        out: &mut ImageWriter,
    ) {
        let Self {
            first,
            last: _,
            len,
            of: _,
        } = self;
        len.write(out);
        let mut slot = *first;
        while slot != NONE {
            slot.write(out);
            slot = channels
                .at(slot)
                .and_then(&link_of)
                .map_or(NONE, |link| link.next);
        }
    }

    /// Reads what `write` has written: channels that `is_its`, each once.
    pub(super) fn read(
        of: fn(&mut C) -> Option<&mut Link>,
        channels: &mut Slab<C>,
        from: &mut ImageReader<'_>,
        is_its: impl Fn(&C) -> bool,
    ) -> Result<Self, ImageError> {
        let mut list = Self::new(of);
        for _ in 0..u32::read(from)? {
            let slot = u32::read(from)?;
            let is_in = slot == list.last
                || channels
                    .at_mut(slot)
                    .and_then(of)
                    .is_none_or(|link| link.next != NONE);
            if is_in || !channels.at(slot).is_some_and(&is_its) {
                return Err(ImageError::Wrong {
                    what: "a list of channels",
                });
            }
            list.push(channels, slot);
        }
        Ok(list)
    }
}
