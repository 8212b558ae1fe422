//! What a client has begun to send, as bytes.

use super::deflate::Agreement;
use super::header::FrameHead;
use super::message::PartialMessage;
use super::{Decoder, Opcode, Partial, Unfinished};
use crate::image::{Image, ImageError, ImageReader, ImageWriter, image};

image!(struct Decoder { partial });
image!(struct FrameHead { payload_len, mask, opcode, fin, is_deflated, header_len });
image!(enum Opcode { 0 => Continuation, 1 => Text, 2 => Binary, 3 => Close, 4 => Ping, 5 => Pong });
image!(enum Unfinished {
    0 => Nothing,
    1 => FrameHead { bytes, len },
    2 => Payload { header, received },
});
image!(struct Agreement {
    server_no_context_takeover, client_no_context_takeover, server_max_window_bits,
    client_max_window_bits
});

impl Image for Partial {
    fn write(&self, out: &mut ImageWriter) {
        let Self {
            frame,
            message,
            control,
        } = self;
        frame.write(out);
        message.write(out);
        out.buffer(control);
    }

    fn read(from: &mut ImageReader<'_>) -> Result<Self, ImageError> {
        let partial = Self {
            frame: Image::read(from)?,
            message: Image::read(from)?,
            control: from.buffer()?,
        };
        let can_be = match &partial.frame {
            Unfinished::Nothing => true,
            Unfinished::FrameHead { bytes, len } => usize::from(*len) <= bytes.len(),
            Unfinished::Payload { header, received } => *received < header.payload_len,
        };
        can_be.then_some(partial).ok_or(ImageError::Wrong {
            what: "an unfinished frame",
        })
    }
}

impl Image for PartialMessage {
    fn write(&self, out: &mut ImageWriter) {
        let (bytes, valid_to, is_text, is_deflated) = self.parts();
        out.buffer(bytes);
        valid_to.write(out);
        is_text.write(out);
        is_deflated.write(out);
    }

    fn read(from: &mut ImageReader<'_>) -> Result<Self, ImageError> {
        let bytes = from.buffer()?;
        let (valid_to, (is_text, is_deflated)) = Image::read(from)?;
        Self::of(bytes, valid_to, is_text, is_deflated).ok_or(ImageError::Wrong {
            what: "an unfinished message",
        })
    }
}
