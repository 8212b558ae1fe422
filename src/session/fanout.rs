//! WebSocket frames around encoded messages: encoded once, header included, shared by every subscriber of the encoding.

use crate::protocol::centrifuge::json;
use crate::protocol::push::Push;
use crate::wire::websocket::{Opcode, ServerHeader};

/// Appends one text frame whose payload `encode` appends.
pub fn frame(out: &mut Vec<u8>, encode: impl FnOnce(&mut Vec<u8>)) {
    // Most payloads are between 126 bytes and 64 KiB: their header has four bytes and nothing has to move.
    const USUAL: usize = 4;
    let start = out.len();
    out.extend_from_slice(&[0; USUAL]);
    encode(out);
    let header = ServerHeader::new(Opcode::Text, out.len() - start - USUAL);
    let header: &[u8] = &header;
    if header.len() != USUAL {
        let payload = start + USUAL;
        let end = out.len();
        if header.len() < USUAL {
            out.copy_within(payload.., start + header.len());
            out.truncate(end - (USUAL - header.len()));
        } else {
            out.resize(end + header.len() - USUAL, 0);
            out.copy_within(payload..end, start + header.len());
        }
    }
    out[start..start + header.len()].copy_from_slice(header);
}

/// Appends the frame of a push.
pub fn push_frame(out: &mut Vec<u8>, channel: &str, push: &Push<'_>) {
    frame(out, |out| json::encode_push(out, channel, push));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_size_of_header_stands_before_its_payload() {
        for len in [0, 5, 125, 126, 65_535, 65_536, 100_000] {
            let mut out = b"before".to_vec();
            frame(&mut out, |out| out.resize(out.len() + len, b'x'));
            let header = ServerHeader::new(Opcode::Text, len);
            assert_eq!(out.len(), 6 + header.len() + len);
            assert_eq!(&out[6..6 + header.len()], &header[..]);
            assert!(out[6 + header.len()..].iter().all(|&byte| byte == b'x'));
        }
    }
}
