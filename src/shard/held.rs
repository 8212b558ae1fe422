//! What a connection holds of its input: half of a request, what was sent behind one that waits, commands behind one that waits.

use super::route::JudgedRequest;
use crate::image::{Image, ImageError, ImageReader, ImageWriter};
use crate::wire::http::{BodyReader, HttpError};

/// What a connection holds.
#[derive(Default)]
pub(super) struct Held {
    bytes: Vec<u8>,
    /// The front of `bytes` that was handled.
    handled: usize,
    /// The request whose body is arriving: what is in `bytes` goes on with it.
    pub(super) arriving: Option<Arriving>,
    /// What the shard has counted for it.
    counted: usize,
}

/// A request whose head was judged and whose body is not whole.
pub(super) struct Arriving {
    reader: BodyReader,
    /// What it is; `None` if it is answered already, and its body is only read past.
    pub(super) asked: Option<JudgedRequest>,
    /// What has come of the body, if somebody wants it.
    pub(super) body: Vec<u8>,
}

impl Arriving {
    pub(super) const fn new(reader: BodyReader, asked: Option<JudgedRequest>) -> Self {
        Self {
            reader,
            asked,
            body: Vec::new(),
        }
    }

    /// Takes what is of the body from the front of `input`: how many bytes that was.
    pub(super) fn read(&mut self, input: &[u8]) -> Result<usize, HttpError> {
        let body = &mut self.body;
        if !self
            .asked
            .as_ref()
            .is_some_and(|asked| asked.route.wants_body())
        {
            return self.reader.read(input, |_| {});
        }
        let left = self.reader.left().unwrap_or(u64::MAX);
        let left = usize::try_from(left).unwrap_or(usize::MAX);
        self.reader.read(input, |bytes| {
            // Memory is taken for what has come, for twice as much at most, and for no more than is to come.
            if body.capacity() - body.len() < bytes.len() {
                let wanted = left.min(body.len() + bytes.len()).max(bytes.len());
                body.reserve_exact(wanted);
            }
            body.extend_from_slice(bytes);
        })
    }

    pub(super) const fn is_whole(&self) -> bool {
        self.reader.is_done()
    }
}

impl std::fmt::Debug for Held {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // What it holds are secrets of clients.
        f.debug_struct("Held")
            .field("len", &self.len())
            .field("counted", &self.counted)
            .finish_non_exhaustive()
    }
}

impl Held {
    pub(super) fn of(arriving: Arriving) -> Self {
        Self {
            arriving: Some(arriving),
            ..Self::default()
        }
    }

    /// Takes what was not handled.
    pub(super) fn take_bytes(&mut self) -> Vec<u8> {
        let mut bytes = std::mem::take(&mut self.bytes);
        bytes.drain(..std::mem::take(&mut self.handled));
        bytes
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len() - self.handled
    }

    /// What was not handled.
    pub(super) fn rest(&mut self) -> &mut [u8] {
        &mut self.bytes[self.handled..]
    }

    /// So much of the rest was handled.
    pub(super) fn skip(&mut self, bytes: usize) {
        self.handled += bytes;
        // What is moved is never more than what went before it.
        if self.handled > self.bytes.len() / 2 {
            self.bytes.drain(..self.handled);
            self.handled = 0;
        }
    }

    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0 && self.arriving.is_none()
    }

    /// Bytes that count from here on.
    pub(super) fn count(&mut self) -> usize {
        debug_assert_eq!(self.counted, 0, "it counts already");
        self.counted = self.size();
        self.counted
    }

    /// Bytes that count.
    pub(super) const fn counted(&self) -> usize {
        self.counted
    }

    /// Bytes that count no more.
    pub(super) const fn uncount(&mut self) -> usize {
        std::mem::replace(&mut self.counted, 0)
    }

    /// Bytes of memory.
    fn size(&self) -> usize {
        let arriving = self.arriving.as_ref();
        self.bytes.capacity()
            + arriving.map_or(0, |arriving| {
                arriving.body.capacity() + arriving.reader.held_bytes()
            })
    }
}

impl Image for Held {
    fn write(&self, out: &mut ImageWriter) {
        let Self {
            bytes,
            handled,
            arriving,
            // Counted where it is read.
            counted: _,
        } = self;
        out.buffer(bytes);
        handled.write(out);
        arriving.write(out);
    }

    fn read(from: &mut ImageReader<'_>) -> Result<Self, ImageError> {
        let mut held = Self {
            bytes: from.buffer()?,
            handled: Image::read(from)?,
            arriving: Image::read(from)?,
            counted: 0,
        };
        if held.handled > held.bytes.len() || held.is_empty() {
            return Err(ImageError::Wrong {
                what: "input that waits",
            });
        }
        held.count();
        Ok(held)
    }
}

impl Image for Arriving {
    fn write(&self, out: &mut ImageWriter) {
        let Self {
            reader,
            asked,
            body,
        } = self;
        reader.write(out);
        asked.write(out);
        out.buffer(body);
    }

    fn read(from: &mut ImageReader<'_>) -> Result<Self, ImageError> {
        Ok(Self {
            reader: Image::read(from)?,
            asked: Image::read(from)?,
            body: from.buffer()?,
        })
    }
}
