//! Half of a request, as bytes.

use super::body::{BodyPlace, BodyReader, Chunks, Reading};
use super::{Allow, HttpError};
use crate::image::{Image, ImageError, ImageReader, ImageWriter, image};

image!(struct BodyReader { room, state });
image!(enum Reading { 0 => Length(left), 1 => Chunks(chunks), 2 => Nothing });
image!(enum BodyPlace { 0 => Size, 1 => Data(left), 2 => DataEnd(come), 3 => Trailers });
image!(enum Allow {
    0 => Get,
    1 => GetHead,
    2 => GetOptions,
    3 => GetPost,
    4 => Post,
    5 => PostOptions,
    6 => Any,
});
image!(enum HttpError {
    0 => BadRequest,
    1 => Unauthorized,
    2 => Forbidden,
    3 => NotFound,
    4 => MethodNotAllowed(allow),
    5 => Timeout,
    6 => BodyTooLarge,
    7 => UriTooLong,
    8 => ExpectationFailed,
    9 => UpgradeRequired,
    10 => HeadTooLarge,
    11 => TooManyHeaders,
    12 => Overloaded,
    13 => ShuttingDown,
    14 => MethodUnknown,
    15 => TransferEncodingUnsupported,
    16 => VersionUnsupported,
    17 => KeyExpired,
});

impl Image for Chunks {
    fn write(&self, out: &mut ImageWriter) {
        let Self { at, line, framing } = self;
        at.write(out);
        out.buffer(line);
        framing.write(out);
    }

    fn read(from: &mut ImageReader<'_>) -> Result<Self, ImageError> {
        Ok(Self {
            at: Image::read(from)?,
            line: from.buffer()?,
            framing: Image::read(from)?,
        })
    }
}
