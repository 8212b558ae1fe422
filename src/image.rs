//! State as bytes: what is written here is read by another process, which has the same shards and slots, and nothing else in common.
//!
//! An image is a head (magic, version, length, checksum) and **sections**, each with a tag, a version and a length. Within a section
//! fields follow each other in the order in which they are named, numbers in little-endian order, texts and lists behind their
//! length. Ids and names are written, never places in memory; what several had in common is written for each, and is apart
//! afterwards. Where a map says nothing about the order of what it holds, that is written in the order of its keys: the same state
//! has the same bytes.
//!
//! Whoever writes a structure names all of its fields: one more does not compile.

mod nouns;
mod parts;

use crate::limits::HELD_BYTES_MAX;

/// What every image begins with.
const MAGIC: [u8; 8] = *b"ringmain";
/// Version of what stands around the sections.
const VERSION: u16 = 1;
/// Magic, version, length, checksum.
const HEAD_BYTES: usize = 8 + 2 + 8 + 4;
/// Tags from here on are of sections that a reader who does not know them may leave out.
const MAY_BE_SKIPPED: u16 = 1 << 15;

/// What is wrong with an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ImageError {
    /// It does not begin as one.
    #[error("this is no image")]
    Magic,
    /// Its head is of another release.
    #[error("the image has version {0}")]
    Version(u16),
    /// It has not the length that it says.
    #[error("the image has {found} bytes behind its head and says that it has {said}")]
    Length {
        /// What its head says.
        said: u64,
        /// What there is.
        found: u64,
    },
    /// Some byte of it is another one than was written.
    #[error("the image is damaged: its checksum is {found:08x}, it says {said:08x}")]
    Checksum {
        /// What its head says.
        said: u32,
        /// What its bytes come to.
        found: u32,
    },
    /// A section is of another release.
    #[error("section {tag} of the image has version {version}")]
    SectionVersion {
        /// Which.
        tag: u16,
        /// Its version.
        version: u16,
    },
    /// The reader does not know a section that must not be left out, or it is there twice.
    #[error("section {0} of the image is not known here, or was read already")]
    Section(u16),
    /// A section that the reader needs is not there.
    #[error("section {0} is missing in the image")]
    Missing(u16),
    /// There is less than what is to be read.
    #[error("the image ends in the middle of {what}")]
    Short {
        /// What.
        what: &'static str,
    },
    /// There is more than what is to be read.
    #[error("{bytes} bytes of the image belong to nothing")]
    Rest {
        /// How many.
        bytes: u64,
    },
    /// It was read, and cannot be.
    #[error("the image has {what} that cannot be")]
    Wrong {
        /// What.
        what: &'static str,
    },
}

/// What of a shard's state is written and read whole.
pub trait Image: Sized {
    /// Writes it.
    fn write(&self, out: &mut ImageWriter);

    /// Reads it.
    ///
    /// # Errors
    /// What is read cannot be this.
    fn read(from: &mut ImageReader<'_>) -> Result<Self, ImageError>;
}

/// An image on its way.
#[derive(Debug)]
pub struct ImageWriter {
    bytes: Vec<u8>,
}

impl Default for ImageWriter {
    fn default() -> Self {
        Self {
            bytes: vec![0; HEAD_BYTES],
        }
    }
}

impl ImageWriter {
    /// One section, which `write` fills.
    pub fn section(&mut self, tag: u16, version: u16, write: impl FnOnce(&mut Self)) {
        tag.write(self);
        version.write(self);
        let at = self.bytes.len();
        0u64.write(self);
        write(self);
        let length = (self.bytes.len() - at - size_of::<u64>()) as u64;
        self.bytes[at..at + size_of::<u64>()].copy_from_slice(&length.to_le_bytes());
    }

    /// Bytes whose number the reader knows.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Bytes behind their number.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.length(bytes.len());
        self.raw(bytes);
    }

    /// Bytes in memory that counts, also where it is not full.
    pub fn buffer(&mut self, buffer: &Vec<u8>) {
        buffer.capacity().write(self);
        self.bytes(buffer);
    }

    /// How many of something follow.
    pub fn length(&mut self, length: usize) {
        (length as u64).write(self);
    }

    /// Many of one kind.
    pub fn list<'a, T: Image + 'a>(&mut self, list: impl ExactSizeIterator<Item = &'a T>) {
        self.length(list.len());
        for one in list {
            one.write(self);
        }
    }

    /// What is not the usual: places of a long row, with what stands there.
    pub fn sparse<T: Image + PartialEq>(&mut self, row: &[T], usual: &T) {
        let others = row.iter().enumerate().filter(|(_, one)| *one != usual);
        let others: Vec<_> = others.collect();
        self.length(others.len());
        for (at, one) in others {
            (at as u32).write(self);
            one.write(self);
        }
    }

    /// A map, in the order of its keys.
    pub fn map<'a, K, V>(&mut self, map: impl Iterator<Item = (&'a K, &'a V)>)
    where
        K: Image + Ord + 'a,
        V: Image + 'a,
    {
        let mut entries: Vec<_> = map.collect();
        entries.sort_unstable_by_key(|(key, _)| *key);
        self.length(entries.len());
        for (key, value) in entries {
            key.write(self);
            value.write(self);
        }
    }

    /// The image.
    #[must_use]
    pub fn finish(mut self) -> Vec<u8> {
        let (head, body) = self.bytes.split_at_mut(HEAD_BYTES);
        let parts = [
            &MAGIC[..],
            &VERSION.to_le_bytes(),
            &(body.len() as u64).to_le_bytes(),
            &crc32fast::hash(body).to_le_bytes(),
        ];
        let mut at = 0;
        for part in parts {
            head[at..at + part.len()].copy_from_slice(part);
            at += part.len();
        }
        self.bytes
    }
}

/// What is left of an image, or of a section of one.
#[derive(Debug)]
pub struct ImageReader<'a> {
    left: &'a [u8],
}

/// A section of an image.
#[derive(Debug)]
pub struct ImageSection<'a> {
    /// Which.
    pub tag: u16,
    /// Its version.
    pub version: u16,
    /// What is in it.
    pub inside: ImageReader<'a>,
}

impl<'a> ImageReader<'a> {
    /// The sections of an image.
    ///
    /// # Errors
    /// It is none, or not one that can be read here, or not as it was written.
    pub fn new(image: &'a [u8]) -> Result<Self, ImageError> {
        let mut head = Self { left: image };
        if head.raw(MAGIC.len(), "its head")? != MAGIC {
            return Err(ImageError::Magic);
        }
        let version = u16::read(&mut head)?;
        if version != VERSION {
            return Err(ImageError::Version(version));
        }
        let said = u64::read(&mut head)?;
        let sum = u32::read(&mut head)?;
        let found = head.left.len() as u64;
        if said != found {
            return Err(ImageError::Length { said, found });
        }
        let found = crc32fast::hash(head.left);
        if sum != found {
            return Err(ImageError::Checksum { said: sum, found });
        }
        Ok(head)
    }

    /// The next section; `None` at the end.
    ///
    /// # Errors
    /// It is not whole.
    pub fn section(&mut self) -> Result<Option<ImageSection<'a>>, ImageError> {
        if self.left.is_empty() {
            return Ok(None);
        }
        let tag = u16::read(self)?;
        let version = u16::read(self)?;
        let length = u64::read(self)?;
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let left = self.raw(length, "a section")?;
        let inside = Self { left };
        Ok(Some(ImageSection {
            tag,
            version,
            inside,
        }))
    }

    /// Bytes whose number is known.
    ///
    /// # Errors
    /// There are not as many.
    pub fn raw(&mut self, count: usize, what: &'static str) -> Result<&'a [u8], ImageError> {
        let (taken, left) = self
            .left
            .split_at_checked(count)
            .ok_or(ImageError::Short { what })?;
        self.left = left;
        Ok(taken)
    }

    /// Bytes behind their number.
    ///
    /// # Errors
    /// There are not as many.
    pub fn bytes(&mut self) -> Result<&'a [u8], ImageError> {
        let length = self.length()?;
        self.raw(length, "bytes")
    }

    /// Bytes in as much memory as they had: twice theirs at most, or twice what a connection may hold.
    ///
    /// # Errors
    /// There are not as many, or they had more.
    pub fn buffer(&mut self) -> Result<Vec<u8>, ImageError> {
        let capacity = usize::read(self)?;
        let bytes = self.bytes()?;
        let most = 2 * bytes.len().max(HELD_BYTES_MAX);
        if capacity > most || bytes.len() > capacity {
            return Err(ImageError::Wrong { what: "a buffer" });
        }
        let mut buffer = Vec::with_capacity(capacity);
        buffer.extend_from_slice(bytes);
        Ok(buffer)
    }

    /// How many of something follow, which has at least one byte.
    ///
    /// # Errors
    /// So many cannot follow.
    pub fn length(&mut self) -> Result<usize, ImageError> {
        let length = u64::read(self)?;
        let fits = usize::try_from(length).ok();
        fits.filter(|&length| length <= self.left.len())
            .ok_or(ImageError::Short { what: "a list" })
    }

    /// Memory for so many of a kind, as far as what is left can be that many.
    fn room<T>(&self, length: usize) -> usize {
        length.min(self.left.len() / size_of::<T>().max(1))
    }

    /// Many of one kind.
    ///
    /// # Errors
    /// One of them cannot be.
    pub fn list<T: Image>(&mut self) -> Result<Vec<T>, ImageError> {
        let length = self.length()?;
        let mut list = Vec::with_capacity(self.room::<T>(length));
        for _ in 0..length {
            list.push(T::read(self)?);
        }
        Ok(list)
    }

    /// What `ImageWriter::sparse` has written, into a row where all is usual.
    ///
    /// # Errors
    /// One of them cannot be, or has no place there.
    pub fn sparse<T: Image>(&mut self, row: &mut [T]) -> Result<(), ImageError> {
        for _ in 0..self.length()? {
            let at = u32::read(self)?;
            let one = T::read(self)?;
            let place = row.get_mut(at as usize);
            *place.ok_or(ImageError::Wrong { what: "a place" })? = one;
        }
        Ok(())
    }

    /// What `ImageWriter::map` has written, each by `insert`, which says what the key had before.
    ///
    /// # Errors
    /// One of them cannot be, or is there twice.
    pub fn map<K: Image, V: Image>(
        &mut self,
        mut insert: impl FnMut(K, V) -> Option<V>,
    ) -> Result<(), ImageError> {
        for _ in 0..self.length()? {
            let (key, value) = Image::read(self)?;
            if insert(key, value).is_some() {
                return Err(ImageError::Wrong {
                    what: "a key twice",
                });
            }
        }
        Ok(())
    }

    /// Nothing is left.
    ///
    /// # Errors
    /// Something is.
    pub fn end(&self) -> Result<(), ImageError> {
        match self.left.len() as u64 {
            0 => Ok(()),
            bytes => Err(ImageError::Rest { bytes }),
        }
    }
}

impl<'a> ImageSection<'a> {
    /// May a reader who does not know it leave it out?
    #[must_use]
    pub const fn may_be_skipped(&self) -> bool {
        self.tag >= MAY_BE_SKIPPED
    }

    /// What is in it, if it is of this version.
    ///
    /// # Errors
    /// It is of another one.
    pub const fn of_version(self, version: u16) -> Result<ImageReader<'a>, ImageError> {
        if self.version == version {
            Ok(self.inside)
        } else {
            Err(ImageError::SectionVersion {
                tag: self.tag,
                version: self.version,
            })
        }
    }
}

/// Writes and reads a structure or the kinds of an enumeration, field by field in the order given. All fields and all kinds are
/// named; a kind has its number for as long as a section has its version.
macro_rules! image {
    (struct $name:ident $(<$life:lifetime>)? { $($field:ident),* $(,)? }) => {
        impl $crate::image::Image for $name $(<$life>)? {
            fn write(&self, out: &mut $crate::image::ImageWriter) {
                let Self { $($field),* } = self;
                $($crate::image::Image::write($field, out);)*
            }

            fn read(
                from: &mut $crate::image::ImageReader<'_>,
            ) -> Result<Self, $crate::image::ImageError> {
                $(let $field = $crate::image::Image::read(from)?;)*
                Ok(Self { $($field),* })
            }
        }
    };
    (tuple $name:ident $(<$life:lifetime>)? ( $($field:ident),* )) => {
        impl $crate::image::Image for $name $(<$life>)? {
            fn write(&self, out: &mut $crate::image::ImageWriter) {
                let Self($($field),*) = self;
                $($crate::image::Image::write($field, out);)*
            }

            fn read(
                from: &mut $crate::image::ImageReader<'_>,
            ) -> Result<Self, $crate::image::ImageError> {
                $(let $field = $crate::image::Image::read(from)?;)*
                Ok(Self($($field),*))
            }
        }
    };
    (enum $name:ident $(<$life:lifetime>)? {
        $($number:literal => $kind:ident $(( $($place:ident),* ))? $({ $($field:ident),* })?),* $(,)?
    }) => {
        impl $crate::image::Image for $name $(<$life>)? {
            fn write(&self, out: &mut $crate::image::ImageWriter) {
                match self {
                    $(Self::$kind $(( $($place),* ))? $({ $($field),* })? => {
                        let number: u8 = $number;
                        $crate::image::Image::write(&number, out);
                        $($($crate::image::Image::write($place, out);)*)?
                        $($($crate::image::Image::write($field, out);)*)?
                    })*
                }
            }

            fn read(
                from: &mut $crate::image::ImageReader<'_>,
            ) -> Result<Self, $crate::image::ImageError> {
                let number: u8 = $crate::image::Image::read(from)?;
                match number {
                    $($number => {
                        $($(let $place = $crate::image::Image::read(from)?;)*)?
                        $($(let $field = $crate::image::Image::read(from)?;)*)?
                        Ok(Self::$kind $(( $($place),* ))? $({ $($field),* })?)
                    })*
                    _ => Err($crate::image::ImageError::Wrong {
                        what: concat!("a kind of ", stringify!($name)),
                    }),
                }
            }
        }
    };
}
pub(crate) use image;

#[cfg(test)]
mod tests;
