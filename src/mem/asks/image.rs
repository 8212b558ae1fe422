//! Questions that wait, as bytes: they keep their numbers, so that whoever is asked may answer somebody who goes on in another process.

use super::{Asks, OpenAsk, SharedAsk, SharedAsks, Shares, Slab, SlotPool};
use crate::image::{Image, ImageError, ImageReader, ImageWriter};

impl<T: Image> SharedAsks<T> {
    /// Writes all of them, the order of their deadlines, and who has what of the table.
    pub fn write(&self, out: &mut ImageWriter) {
        let Self { asks, shares } = self;
        asks.write(out);
        shares.write(out);
    }

    /// Reads what `write` has written, with room for as many.
    ///
    /// # Errors
    /// It cannot be.
    pub fn read(
        most: u32,
        bytes_max: usize,
        from: &mut ImageReader<'_>,
    ) -> Result<Self, ImageError> {
        Ok(Self {
            asks: Asks::read(most, bytes_max, from)?,
            shares: Shares::read(most as usize, bytes_max, from)?,
        })
    }
}

impl<T: Image> Image for SharedAsk<T> {
    fn write(&self, out: &mut ImageWriter) {
        let Self {
            value,
            bytes,
            holders,
        } = self;
        value.write(out);
        bytes.write(out);
        holders.write(out);
    }

    fn read(from: &mut ImageReader<'_>) -> Result<Self, ImageError> {
        Ok(Self {
            value: Image::read(from)?,
            bytes: Image::read(from)?,
            holders: Image::read(from)?,
        })
    }
}

impl<T: Image> Asks<T> {
    /// Writes all of them, and the order of their deadlines.
    pub fn write(&self, out: &mut ImageWriter) {
        let Self {
            asks,
            slots,
            first,
            last: _,
            bytes: _,
            most: _,
            bytes_max: _,
            stale,
        } = self;
        asks.write(out, |ask, out| {
            let OpenAsk {
                value,
                bytes,
                until,
                before: _,
                next: _,
                is_filed,
            } = ask;
            value.write(out);
            bytes.write(out);
            until.write(out);
            is_filed.write(out);
        });
        slots.write(out);
        let order = || {
            let next = |slot: &u32| asks.at(*slot).and_then(|ask| ask.next);
            std::iter::successors(*first, next)
        };
        out.length(order().count());
        for slot in order() {
            slot.write(out);
        }
        stale.write(out);
    }

    /// Reads what `write` has written, with room for as many.
    ///
    /// # Errors
    /// It cannot be.
    pub fn read(
        most: u32,
        bytes_max: usize,
        from: &mut ImageReader<'_>,
    ) -> Result<Self, ImageError> {
        const WRONG: ImageError = ImageError::Wrong {
            what: "an order of deadlines",
        };
        let mut all = Self::new(most, bytes_max);
        all.asks = Slab::read(from, most, |from| {
            Ok(OpenAsk {
                value: Image::read(from)?,
                bytes: Image::read(from)?,
                until: Image::read(from)?,
                before: None,
                next: None,
                is_filed: Image::read(from)?,
            })
        })?;
        all.slots = SlotPool::read(from, most, &all.asks)?;
        let mut asks = all.asks.iter();
        let sum = asks.try_fold(0usize, |sum, (_, ask)| sum.checked_add(ask.bytes));
        drop(asks);
        all.bytes = sum.filter(|&sum| sum <= bytes_max).ok_or(WRONG)?;
        let filed = all.asks.iter().filter(|(_, ask)| ask.is_filed).count();
        let order: Vec<u32> = from.list()?;
        if order.len() != filed {
            return Err(WRONG);
        }
        for slot in order {
            let before = all.last.replace(slot);
            match before.and_then(|before| all.asks.at_mut(before)) {
                Some(before) => before.next = Some(slot),
                None => all.first = Some(slot),
            }
            let ask = all.asks.at_mut(slot).filter(|ask| ask.is_filed);
            let ask = ask.ok_or(WRONG)?;
            // Who stands in the order twice has a neighbour already.
            if ask.before.is_some() || before == Some(slot) || ask.next.is_some() {
                return Err(WRONG);
            }
            ask.before = before;
        }
        all.stale = Image::read(from)?;
        Ok(all)
    }
}
