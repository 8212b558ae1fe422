//! Lists of channels through the channels themselves: whoever is in one is taken out without a search. What a channel is, is not
//! known here.

use crate::image::{Image, ImageError, ImageReader, ImageWriter};
use crate::mem::{Place, Slab};

/// A channel's neighbours in a list.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Link {
    before: Option<Place>,
    next: Option<Place>,
}

/// A list of slots, the first one first.
#[derive(Debug)]
pub(super) struct List<C> {
    first: Option<Place>,
    last: Option<Place>,
    len: u32,
    /// Which of its links a channel has for this list.
    of: fn(&mut C) -> Option<&mut Link>,
}

impl<C> List<C> {
    pub(super) const fn new(of: fn(&mut C) -> Option<&mut Link>) -> Self {
        Self {
            first: None,
            last: None,
            len: 0,
            of,
        }
    }

    /// Who is first.
    pub(super) fn first(&self) -> Option<u32> {
        self.first.map(Place::get)
    }

    pub(super) const fn len(&self) -> u32 {
        self.len
    }

    /// The link of a channel that is in the list, or is to be.
    ///
    /// # Panics
    /// If the channel has no link for this list.
    fn link<'c>(&self, channels: &'c mut Slab<C>, at: Place) -> &'c mut Link {
        let link = (self.of)(channels.of_mut(at.get()));
        link.expect("only who has a link is in a list")
    }

    /// Puts a channel that is not in the list at its end.
    pub(super) fn push(&mut self, channels: &mut Slab<C>, slot: u32) {
        let (last, at) = (self.last, Place::new(slot));
        let link = self.link(channels, at);
        debug_assert!(
            link.before.is_none() && link.next.is_none() && last != Some(at),
            "it is not in the list"
        );
        link.before = last;
        match last {
            Some(last) => self.link(channels, last).next = Some(at),
            None => self.first = Some(at),
        }
        self.last = Some(at);
        self.len += 1;
    }

    /// Takes a channel that is in the list out of it.
    pub(super) fn remove(&mut self, channels: &mut Slab<C>, slot: u32) {
        assert!(self.len > 0, "it is in the list");
        let at = Place::new(slot);
        let Link { before, next } = std::mem::take(self.link(channels, at));
        debug_assert_eq!(
            before.is_none(),
            self.first == Some(at),
            "the first has none before it"
        );
        debug_assert_eq!(
            next.is_none(),
            self.last == Some(at),
            "the last has none behind it"
        );
        match before {
            Some(before) => self.link(channels, before).next = next,
            None => self.first = next,
        }
        match next {
            Some(next) => self.link(channels, next).before = before,
            None => self.last = before,
        }
        self.len -= 1;
    }

    /// Puts a channel that is in the list at its end.
    pub(super) fn touch(&mut self, channels: &mut Slab<C>, slot: u32) {
        if self.last != Some(Place::new(slot)) {
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
        let mut next = *first;
        while let Some(at) = next {
            at.write(out);
            next = channels
                .at(at.get())
                .and_then(&link_of)
                .and_then(|link| link.next);
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
            let at = Place::read(from)?;
            let slot = at.get();
            let is_in = Some(at) == list.last
                || channels
                    .at_mut(slot)
                    .and_then(of)
                    .is_none_or(|link| link.next.is_some());
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
