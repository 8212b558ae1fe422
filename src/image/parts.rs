//! What structures are made of.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use smallvec::{Array, SmallVec};

use super::{Image, ImageError, ImageReader, ImageWriter, image};

macro_rules! number {
    ($($kind:ident),*) => {$(
        impl Image for $kind {
            fn write(&self, out: &mut ImageWriter) {
                out.raw(&self.to_le_bytes());
            }

            fn read(from: &mut ImageReader<'_>) -> Result<Self, ImageError> {
                let bytes = from.raw(size_of::<Self>(), "a number")?;
                let bytes = bytes.try_into().map_err(|_| ImageError::Short { what: "a number" })?;
                Ok(Self::from_le_bytes(bytes))
            }
        }
    )*};
}
number!(u8, u16, u32, u64, u128, i32, i64);

impl Image for bool {
    fn write(&self, out: &mut ImageWriter) {
        u8::from(*self).write(out);
    }

    fn read(from: &mut ImageReader<'_>) -> Result<Self, ImageError> {
        match u8::read(from)? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(ImageError::Wrong { what: "a bool" }),
        }
    }
}

impl Image for usize {
    fn write(&self, out: &mut ImageWriter) {
        (*self as u64).write(out);
    }

    fn read(from: &mut ImageReader<'_>) -> Result<Self, ImageError> {
        Self::try_from(u64::read(from)?).map_err(|_| ImageError::Wrong { what: "a size" })
    }
}

image!(enum Ordering { 0 => Less, 1 => Equal, 2 => Greater });

impl Image for Duration {
    fn write(&self, out: &mut ImageWriter) {
        self.as_secs().write(out);
        self.subsec_nanos().write(out);
    }

    fn read(from: &mut ImageReader<'_>) -> Result<Self, ImageError> {
        const SECOND_NS: u32 = 1_000_000_000;
        let (secs, nanos) = (u64::read(from)?, u32::read(from)?);
        if nanos >= SECOND_NS {
            return Err(ImageError::Wrong { what: "a duration" });
        }
        Ok(Self::new(secs, nanos))
    }
}

impl Image for Box<str> {
    fn write(&self, out: &mut ImageWriter) {
        out.bytes(self.as_bytes());
    }

    fn read(from: &mut ImageReader<'_>) -> Result<Self, ImageError> {
        text(from).map(Self::from)
    }
}

impl Image for String {
    fn write(&self, out: &mut ImageWriter) {
        out.bytes(self.as_bytes());
    }

    fn read(from: &mut ImageReader<'_>) -> Result<Self, ImageError> {
        text(from).map(Self::from)
    }
}

impl Image for Cow<'static, str> {
    fn write(&self, out: &mut ImageWriter) {
        out.bytes(self.as_bytes());
    }

    fn read(from: &mut ImageReader<'_>) -> Result<Self, ImageError> {
        String::read(from).map(Self::Owned)
    }
}

impl Image for Cow<'static, [u8]> {
    fn write(&self, out: &mut ImageWriter) {
        out.bytes(self);
    }

    fn read(from: &mut ImageReader<'_>) -> Result<Self, ImageError> {
        from.bytes().map(|bytes| Self::Owned(bytes.to_vec()))
    }
}

/// A text behind its length.
pub(super) fn text<'a>(from: &mut ImageReader<'a>) -> Result<&'a str, ImageError> {
    str::from_utf8(from.bytes()?).map_err(|_| ImageError::Wrong { what: "a text" })
}

impl Image for Bytes {
    fn write(&self, out: &mut ImageWriter) {
        out.bytes(self);
    }

    fn read(from: &mut ImageReader<'_>) -> Result<Self, ImageError> {
        from.bytes().map(Self::copy_from_slice)
    }
}

impl<T: Image> Image for Option<T> {
    fn write(&self, out: &mut ImageWriter) {
        self.is_some().write(out);
        if let Some(value) = self {
            value.write(out);
        }
    }

    fn read(from: &mut ImageReader<'_>) -> Result<Self, ImageError> {
        bool::read(from)?.then(|| T::read(from)).transpose()
    }
}

impl<T: Image, E: Image> Image for Result<T, E> {
    fn write(&self, out: &mut ImageWriter) {
        self.is_ok().write(out);
        match self {
            Ok(value) => value.write(out),
            Err(error) => error.write(out),
        }
    }

    fn read(from: &mut ImageReader<'_>) -> Result<Self, ImageError> {
        Ok(if bool::read(from)? {
            Ok(T::read(from)?)
        } else {
            Err(E::read(from)?)
        })
    }
}

impl<T: Image> Image for Box<T> {
    fn write(&self, out: &mut ImageWriter) {
        T::write(self, out);
    }

    fn read(from: &mut ImageReader<'_>) -> Result<Self, ImageError> {
        T::read(from).map(Self::new)
    }
}

impl<T: Image> Image for Arc<T> {
    fn write(&self, out: &mut ImageWriter) {
        T::write(self, out);
    }

    fn read(from: &mut ImageReader<'_>) -> Result<Self, ImageError> {
        T::read(from).map(Self::new)
    }
}

impl<T: Image> Image for Vec<T> {
    fn write(&self, out: &mut ImageWriter) {
        out.list(self.iter());
    }

    fn read(from: &mut ImageReader<'_>) -> Result<Self, ImageError> {
        from.list()
    }
}

impl<T: Image> Image for VecDeque<T> {
    fn write(&self, out: &mut ImageWriter) {
        out.list(self.iter());
    }

    fn read(from: &mut ImageReader<'_>) -> Result<Self, ImageError> {
        from.list().map(Self::from)
    }
}

impl<T: Image> Image for Box<[T]> {
    fn write(&self, out: &mut ImageWriter) {
        out.list(self.iter());
    }

    fn read(from: &mut ImageReader<'_>) -> Result<Self, ImageError> {
        from.list().map(Self::from)
    }
}

impl<T: Image, const N: usize> Image for [T; N] {
    fn write(&self, out: &mut ImageWriter) {
        for one in self {
            one.write(out);
        }
    }

    fn read(from: &mut ImageReader<'_>) -> Result<Self, ImageError> {
        let list: Vec<T> = (0..N).map(|_| T::read(from)).collect::<Result<_, _>>()?;
        let row = list.try_into();
        row.map_err(|_| ImageError::Short { what: "a row" })
    }
}

impl<A: Image, B: Image> Image for (A, B) {
    fn write(&self, out: &mut ImageWriter) {
        self.0.write(out);
        self.1.write(out);
    }

    fn read(from: &mut ImageReader<'_>) -> Result<Self, ImageError> {
        Ok((A::read(from)?, B::read(from)?))
    }
}

impl<A: Array<Item: Image>> Image for SmallVec<A> {
    fn write(&self, out: &mut ImageWriter) {
        out.list(self.iter());
    }

    fn read(from: &mut ImageReader<'_>) -> Result<Self, ImageError> {
        from.list().map(Self::from_vec)
    }
}

impl Image for IpAddr {
    fn write(&self, out: &mut ImageWriter) {
        self.is_ipv4().write(out);
        match self {
            Self::V4(address) => address.to_bits().write(out),
            Self::V6(address) => address.to_bits().write(out),
        }
    }

    fn read(from: &mut ImageReader<'_>) -> Result<Self, ImageError> {
        Ok(if bool::read(from)? {
            Self::V4(u32::read(from)?.into())
        } else {
            Self::V6(u128::read(from)?.into())
        })
    }
}
