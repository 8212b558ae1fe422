//! What stands around a message: frames, chunks, events, lengths, line ends, compression.

use crate::config::WebSocket;
use crate::model::{Encoding, Format, Framing};
use crate::wire::websocket::{Deflater, Opcode, ServerHeader};

/// What a shard compresses messages with. Every message stands by itself: what one connection gets, all connections of the format can get.
#[derive(Debug)]
pub struct Compression {
    deflater: Deflater,
    /// Messages of fewer bytes go out as they are.
    bytes_min: usize,
    /// The frame that is being compressed, and its payload once it is; kept for their capacity.
    plain: Vec<u8>,
    deflated: Vec<u8>,
}

impl Compression {
    /// As configured.
    #[must_use]
    pub const fn new(config: &WebSocket) -> Self {
        Self {
            deflater: Deflater::shared(config.compression_level),
            bytes_min: config.compression_min_size,
            plain: Vec::new(),
            deflated: Vec::new(),
        }
    }

    /// Appends the frame in `plain` with its payload compressed, or as it is if that is not longer.
    #[cold]
    fn compress(&mut self, out: &mut Vec<u8>, opcode: Opcode) {
        let payload = &self.plain[ServerHeader::len_of(&self.plain)..];
        // An empty message cannot become shorter.
        if payload.len() >= self.bytes_min.max(1) {
            self.deflated.clear();
            self.deflater.deflate(payload, &mut self.deflated);
            if self.deflated.len() < payload.len() {
                out.extend_from_slice(&ServerHeader::deflated(opcode, self.deflated.len()));
                out.extend_from_slice(&self.deflated);
                self.trim();
                return;
            }
        }
        out.extend_from_slice(&self.plain);
        self.trim();
    }

    fn trim(&mut self) {
        for kept in [&mut self.plain, &mut self.deflated] {
            kept.clear();
            kept.shrink_to(BYTES_KEPT);
        }
    }
}

/// Memory for a message is kept for the next one up to this size.
const BYTES_KEPT: usize = 64 * 1024;

/// Bytes of the longest head: eight digits of a chunk, its line end, `data: `, five bytes of length.
const LONGEST_HEAD_BYTES: usize = 24;

/// What stands before a message.
struct Head {
    bytes: [u8; LONGEST_HEAD_BYTES],
    len: usize,
}

impl Head {
    fn new(format: Format, message_len: usize) -> Self {
        let mut head = Self {
            bytes: [0; LONGEST_HEAD_BYTES],
            len: 0,
        };
        let (mut delimiter, mut delimiter_len) = ([0; 5], 0);
        if format.encoding == Encoding::Protobuf {
            let mut left = message_len as u32;
            while left >= 0x80 {
                delimiter[delimiter_len] = left as u8 | 0x80;
                delimiter_len += 1;
                left >>= 7;
            }
            delimiter[delimiter_len] = left as u8;
            delimiter_len += 1;
        }
        let payload_len = delimiter_len + message_len;
        match format.framing {
            Framing::WebSocket | Framing::Joined | Framing::Deflate => {
                head.add(&ServerHeader::new(opcode(format.encoding), payload_len));
            }
            Framing::PlainStream => {}
            Framing::PlainEventStream => head.add(EVENT),
            Framing::Stream => head.chunk(payload_len + tail(format).len() - CHUNK_END.len()),
            Framing::EventStream => {
                let around = EVENT.len() + tail(format).len() - CHUNK_END.len();
                head.chunk(payload_len + around);
                head.add(EVENT);
            }
        }
        head.add(&delimiter[..delimiter_len]);
        head
    }

    fn add(&mut self, bytes: &[u8]) {
        self.bytes[self.len..self.len + bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len();
    }

    /// Size of a chunk (RFC 9112 §7.1).
    fn chunk(&mut self, len: usize) {
        const HEX: &[u8; 16] = b"0123456789abcdef";
        let digits = (usize::BITS - len.leading_zeros()).div_ceil(4).clamp(1, 8);
        for digit in (0..digits).rev() {
            self.add(&[HEX[len >> (4 * digit) & 0xf]]);
        }
        self.add(b"\r\n");
    }
}

const EVENT: &[u8] = b"data: ";
const CHUNK_END: &[u8] = b"\r\n";

/// What stands behind a message.
const fn tail(format: Format) -> &'static [u8] {
    match (format.framing, format.encoding) {
        (Framing::WebSocket | Framing::Joined | Framing::Deflate, _)
        | (Framing::PlainStream, Encoding::Protobuf) => b"",
        (Framing::PlainStream, Encoding::Json) => b"\n",
        (Framing::PlainEventStream, _) => b"\n\n",
        (Framing::Stream, Encoding::Json) => b"\n\r\n",
        (Framing::Stream, Encoding::Protobuf) => CHUNK_END,
        (Framing::EventStream, _) => b"\n\n\r\n",
    }
}

const fn opcode(encoding: Encoding) -> Opcode {
    match encoding {
        Encoding::Json => Opcode::Text,
        Encoding::Protobuf => Opcode::Binary,
    }
}

/// Appends one message that `encode` appends, with what stands around it.
pub(super) fn framed(
    out: &mut Vec<u8>,
    format: Format,
    compression: &mut Compression,
    encode: impl FnOnce(&mut Vec<u8>),
) {
    if format.framing == Framing::Deflate {
        compression.plain.clear();
        plain(&mut compression.plain, format, encode);
        compression.compress(out, opcode(format.encoding));
    } else {
        plain(out, format, encode);
    }
}

/// The same without compression.
fn plain(out: &mut Vec<u8>, format: Format, encode: impl FnOnce(&mut Vec<u8>)) {
    // Most payloads are between 126 bytes and 64 KiB: a WebSocket header has four bytes then and nothing has to move.
    let usual = match format.encoding {
        Encoding::Json => 4,
        Encoding::Protobuf => 6,
    };
    let start = out.len();
    out.extend_from_slice(&[0; 6][..usual]);
    encode(out);
    let head = Head::new(format, out.len() - start - usual);
    if head.len != usual {
        let message = start + usual;
        let end = out.len();
        if head.len < usual {
            out.copy_within(message.., start + head.len);
            out.truncate(end - (usual - head.len));
        } else {
            out.resize(end + head.len - usual, 0);
            out.copy_within(message..end, start + head.len);
        }
    }
    out[start..start + head.len].copy_from_slice(&head.bytes[..head.len]);
    out.extend_from_slice(tail(format));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Speaker;
    use crate::speaker::ping;

    const fn format(encoding: Encoding, framing: Framing) -> Format {
        Format {
            encoding,
            framing,
            speaker: Speaker::Centrifuge,
        }
    }

    fn written(format: Format, len: usize) -> Vec<u8> {
        let mut out = b"before".to_vec();
        plain(&mut out, format, |out| out.resize(out.len() + len, b'x'));
        assert_eq!(&out[..6], b"before");
        out.split_off(6)
    }

    #[test]
    fn every_size_of_header_stands_before_its_payload() {
        for len in [0, 5, 125, 126, 65_535, 65_536, 100_000] {
            let out = written(Format::default(), len);
            let header = ServerHeader::new(Opcode::Text, len);
            assert_eq!(out.len(), header.len() + len);
            assert_eq!(&out[..header.len()], &header[..]);
            assert!(out[header.len()..].iter().all(|&byte| byte == b'x'));
        }
    }

    #[test]
    fn protobuf_messages_carry_their_length_inside_the_frame() {
        for (len, delimiter) in [
            (0, &[0][..]),
            (5, &[5]),
            (127, &[127]),
            (128, &[0x80, 1]),
            (70_000, &[0xf0, 0xa2, 4]),
        ] {
            let out = written(format(Encoding::Protobuf, Framing::WebSocket), len);
            let header = ServerHeader::new(Opcode::Binary, delimiter.len() + len);
            assert_eq!(out[..header.len()], header[..]);
            assert_eq!(
                &out[header.len()..header.len() + delimiter.len()],
                delimiter
            );
            assert_eq!(out.len(), header.len() + delimiter.len() + len);
        }
    }

    #[test]
    fn a_message_of_a_stream_is_one_chunk() {
        let stream = |encoding| written(format(encoding, Framing::Stream), 3);
        assert_eq!(stream(Encoding::Json), b"4\r\nxxx\n\r\n");
        assert_eq!(stream(Encoding::Protobuf), b"4\r\n\x03xxx\r\n");
        let event = written(format(Encoding::Json, Framing::EventStream), 300);
        assert!(event.starts_with(b"134\r\ndata: xxx") && event.ends_with(b"x\n\n\r\n"));
        assert_eq!(event.len(), 5 + 0x134 + 2);
    }

    #[test]
    fn a_message_of_a_stream_without_chunks_is_what_a_chunk_would_hold() {
        let plain = |encoding, framing| written(format(encoding, framing), 3);
        assert_eq!(plain(Encoding::Json, Framing::PlainStream), b"xxx\n");
        assert_eq!(plain(Encoding::Protobuf, Framing::PlainStream), b"\x03xxx");
        assert_eq!(
            plain(Encoding::Json, Framing::PlainEventStream),
            b"data: xxx\n\n"
        );
    }

    #[test]
    fn what_shrinks_is_compressed_and_the_rest_goes_out_as_it_is() {
        let config = WebSocket {
            compression_min_size: 100,
            ..WebSocket::default()
        };
        for encoding in [Encoding::Json, Encoding::Protobuf] {
            let mut compression = Compression::new(&config);
            let mut written_as = |framing, message: &[u8]| {
                let mut out = b"before".to_vec();
                framed(
                    &mut out,
                    format(encoding, framing),
                    &mut compression,
                    |out| {
                        out.extend_from_slice(message);
                    },
                );
                out.split_off(6)
            };
            let noise: Vec<u8> = (0..200_u32)
                .map(|i| (i.wrapping_pow(3) >> 3) as u8 ^ (i * 37) as u8)
                .collect();
            for message in [&b""[..], &[b'x'; 90], &noise] {
                let plain = written_as(Framing::WebSocket, message);
                assert_eq!(written_as(Framing::Deflate, message), plain);
            }
            for len in [110, 70_000] {
                let message = vec![b'x'; len];
                let frame = written_as(Framing::Deflate, &message);
                assert_eq!(frame[0], 0xC0 | opcode(encoding) as u8);
                assert!(frame.len() < len / 2);
                assert_eq!(frame, written_as(Framing::Deflate, &message), "no context");
            }
        }
    }

    #[test]
    fn pings_are_empty_messages() {
        let written = |encoding, framing| {
            let mut out = Vec::new();
            ping(
                &mut out,
                format(encoding, framing),
                &mut Compression::new(&WebSocket::default()),
            );
            out
        };
        assert_eq!(written(Encoding::Json, Framing::WebSocket), b"\x81\x02{}");
        assert_eq!(
            written(Encoding::Protobuf, Framing::WebSocket),
            b"\x82\x01\0"
        );
        assert_eq!(written(Encoding::Protobuf, Framing::Stream), b"1\r\n\0\r\n");
        assert_eq!(
            written(Encoding::Json, Framing::EventStream),
            b"a\r\ndata: {}\n\n\r\n"
        );
    }
}
