//! A place that may be none without taking more room.

use std::num::NonZeroU32;

use crate::image::{Image, ImageError, ImageReader, ImageWriter};

/// A place in a table, below `u32::MAX`. An `Option` of it takes four bytes, too.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Place(NonZeroU32);

impl Place {
    /// The place with this number.
    ///
    /// # Panics
    /// If it is `u32::MAX`: no table has so many.
    #[must_use]
    pub const fn new(number: u32) -> Self {
        match NonZeroU32::new(!number) {
            Some(inverted) => Self(inverted),
            None => panic!("no table has so many places"),
        }
    }

    /// Its number.
    #[must_use]
    pub const fn get(self) -> u32 {
        !self.0.get()
    }
}

impl std::fmt::Debug for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.get())
    }
}

impl PartialOrd for Place {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Place {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.get().cmp(&other.get())
    }
}

impl Image for Place {
    fn write(&self, out: &mut ImageWriter) {
        self.get().write(out);
    }

    fn read(from: &mut ImageReader<'_>) -> Result<Self, ImageError> {
        match u32::read(from)? {
            u32::MAX => Err(ImageError::Wrong { what: "a place" }),
            number => Ok(Self::new(number)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn none_takes_no_more_room_and_places_are_in_order() {
        assert_eq!(size_of::<Option<Place>>(), 4);
        for number in [0, 1, 7, u32::MAX - 1] {
            assert_eq!(Place::new(number).get(), number);
        }
        assert!(Place::new(0) < Place::new(1));
    }

    #[test]
    #[should_panic(expected = "so many places")]
    fn the_last_number_is_no_place() {
        let _ = Place::new(u32::MAX);
    }

    #[test]
    fn a_number_that_is_no_place_is_no_image_of_one() {
        let mut out = ImageWriter::default();
        out.section(1, 1, |out| u32::MAX.write(out));
        let image = out.finish();
        let section = ImageReader::new(&image).unwrap().section().unwrap();
        let read = Place::read(&mut section.unwrap().inside);
        assert!(matches!(read, Err(ImageError::Wrong { what: "a place" })));
    }
}
