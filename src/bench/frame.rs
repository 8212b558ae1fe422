//! WebSocket frames in the client's role: masked on the way out, scanned (never copied) on the way in.

use tungstenite::handshake::derive_accept_key;

/// A frame from a server, as far as it has arrived.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Scan<'a> {
    /// A whole frame; `used` bytes of the input, header included.
    Frame {
        /// Opcode of RFC 6455 §5.2.
        opcode: u8,
        /// Unmasked, because servers do not mask.
        payload: &'a [u8],
        /// Bytes to drop from the input.
        used: usize,
    },
    /// More bytes are needed.
    Incomplete,
    /// Reserved bits or a masked frame: no server may send that.
    Invalid,
}

/// Bit beside the opcode of a compressed message (RFC 7692 §6).
pub(crate) const COMPRESSED: u8 = 0x40;
/// Continuation of a fragmented message.
pub(crate) const CONTINUATION: u8 = 0;
/// Text message.
pub(crate) const TEXT: u8 = 1;
/// Binary message.
pub(crate) const BINARY: u8 = 2;
/// Close.
pub(crate) const CLOSE: u8 = 8;
/// Ping.
pub(crate) const PING: u8 = 9;
/// Pong.
pub(crate) const PONG: u8 = 10;

/// Bytes of a header of an unmasked frame with a payload of `len` bytes.
pub(crate) const fn header_len(len: usize) -> usize {
    match len {
        0..=125 => 2,
        126..=0xFFFF => 4,
        _ => 10,
    }
}

/// Looks at the frame at the head of `bytes`.
#[inline]
pub(crate) fn scan(bytes: &[u8]) -> Scan<'_> {
    let [first, second, ..] = bytes else {
        return Scan::Incomplete;
    };
    if first & 0x30 != 0 || second & 0x80 != 0 {
        return Scan::Invalid;
    }
    let Some((header, len)) = lengths(bytes) else {
        return Scan::Incomplete;
    };
    match header
        .checked_add(len)
        .and_then(|end| bytes.get(header..end))
    {
        Some(payload) => Scan::Frame {
            opcode: first & (0x0F | COMPRESSED),
            payload,
            used: header + len,
        },
        None if len > usize::MAX / 2 => Scan::Invalid,
        None => Scan::Incomplete,
    }
}

/// Lengths of header (without mask) and payload. `None` while the header is incomplete.
#[inline]
pub(crate) fn lengths(bytes: &[u8]) -> Option<(usize, usize)> {
    let [_, second, rest @ ..] = bytes else {
        return None;
    };
    match second & 0x7F {
        126 => Some((4, usize::from(u16::from_be_bytes(*rest.first_chunk()?)))),
        127 => Some((10, u64::from_be_bytes(*rest.first_chunk()?) as usize)),
        len => Some((2, usize::from(len))),
    }
}

/// Appends a masked frame. `mask` should differ from frame to frame.
pub(crate) fn write_masked(opcode: u8, payload: &[u8], mask: u32, out: &mut Vec<u8>) {
    let mask = mask.to_ne_bytes();
    write_header(opcode, payload.len(), 0x80, out);
    out.extend_from_slice(&mask);
    let start = out.len();
    out.extend_from_slice(payload);
    for (i, byte) in out[start..].iter_mut().enumerate() {
        *byte ^= mask[i & 3];
    }
}

/// Appends an unmasked frame, as a server sends it.
pub(crate) fn write_unmasked(opcode: u8, payload: &[u8], out: &mut Vec<u8>) {
    write_header(opcode, payload.len(), 0, out);
    out.extend_from_slice(payload);
}

fn write_header(opcode: u8, len: usize, mask_bit: u8, out: &mut Vec<u8>) {
    out.push(0x80 | opcode);
    match len {
        0..=125 => out.push(mask_bit | len as u8),
        126..=0xFFFF => {
            out.push(mask_bit | 126);
            out.extend_from_slice(&(len as u16).to_be_bytes());
        }
        _ => {
            out.push(mask_bit | 127);
            out.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
}

/// The key of every upgrade request of the swarm: servers compute the answer, the swarm compares it.
const UPGRADE_KEY: &str = "cmluZ21haW4gYmVuY2ggIQ==";

/// A WebSocket upgrade request; `headers` are further ones, each with its line end.
pub(crate) fn upgrade_request(host: &str, target: &str, headers: &str) -> Vec<u8> {
    format!(
        "GET {target} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: {UPGRADE_KEY}\r\nSec-WebSocket-Version: 13\r\n{headers}\r\n"
    )
    .into_bytes()
}

/// What a server has answered to the upgrade request.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Upgrade {
    /// Switched; this many bytes of the input belong to the head.
    Accepted(usize),
    /// The head is not complete yet.
    Incomplete,
    /// Another status, or a wrong key.
    Refused,
}

/// Checks the head of the answer to a request whose response body goes on and on.
pub(crate) fn stream_answer(bytes: &[u8]) -> Upgrade {
    match memchr::memmem::find(bytes, b"\r\n\r\n") {
        None => Upgrade::Incomplete,
        Some(end) if bytes.starts_with(b"HTTP/1.1 200") => Upgrade::Accepted(end + 4),
        Some(_) => Upgrade::Refused,
    }
}

/// Checks the head of the answer to [`upgrade_request`].
pub(crate) fn upgrade_answer(bytes: &[u8]) -> Upgrade {
    let Some(end) = memchr::memmem::find(bytes, b"\r\n\r\n") else {
        return Upgrade::Incomplete;
    };
    let head = &bytes[..end];
    let accept = derive_accept_key(UPGRADE_KEY.as_bytes());
    let switched = head.starts_with(b"HTTP/1.1 101")
        && memchr::memmem::find(head, accept.as_bytes()).is_some();
    if switched {
        Upgrade::Accepted(end + 4)
    } else {
        Upgrade::Refused
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_of_every_length_form_are_scanned_whole() {
        for len in [0, 1, 125, 126, 65_535, 65_536] {
            let payload = vec![b'p'; len];
            let mut bytes = Vec::new();
            write_unmasked(TEXT, &payload, &mut bytes);
            assert_eq!(bytes.len(), header_len(len) + len);
            for cut in [0, 1, bytes.len() - 1] {
                assert_eq!(scan(&bytes[..cut]), Scan::Incomplete);
            }
            bytes.extend_from_slice(b"next");
            let Scan::Frame {
                opcode,
                payload: seen,
                used,
            } = scan(&bytes)
            else {
                panic!("a whole frame")
            };
            assert_eq!(
                (opcode, seen, used),
                (TEXT, payload.as_slice(), header_len(len) + len)
            );
        }
    }

    #[test]
    fn what_no_server_may_send_is_invalid() {
        let mut masked = Vec::new();
        write_masked(TEXT, b"hello", 0x1234_5678, &mut masked);
        assert_eq!(scan(&masked), Scan::Invalid);
        assert_eq!(scan(&[0xA1, 0x00]), Scan::Invalid);
        assert_eq!(
            scan(&[0x81, 127, 255, 255, 255, 255, 255, 255, 255, 255]),
            Scan::Invalid
        );
    }

    #[test]
    fn masked_frames_are_understood_by_an_independent_peer() {
        use tungstenite::protocol::{Role, WebSocket};
        let mut bytes = Vec::new();
        write_masked(TEXT, b"first", 0xA1B2_C3D4, &mut bytes);
        write_masked(TEXT, &[b'x'; 70_000], 0x0102_0304, &mut bytes);
        let mut server =
            WebSocket::from_raw_socket(std::io::Cursor::new(bytes), Role::Server, None);
        assert_eq!(server.read().unwrap().to_text().unwrap(), "first");
        assert_eq!(server.read().unwrap().len(), 70_000);
    }

    #[test]
    fn upgrade_counts_only_with_the_right_key() {
        let accept = derive_accept_key(UPGRADE_KEY.as_bytes());
        let answer =
            format!("HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: {accept}\r\n\r\n");
        assert_eq!(
            upgrade_answer(format!("{answer}rest").as_bytes()),
            Upgrade::Accepted(answer.len())
        );
        assert_eq!(
            upgrade_answer(&answer.as_bytes()[..answer.len() - 1]),
            Upgrade::Incomplete
        );
        let wrong = answer.replace(&accept, "AAAA");
        assert_eq!(upgrade_answer(wrong.as_bytes()), Upgrade::Refused);
        assert_eq!(
            upgrade_answer(b"HTTP/1.1 503 Service Unavailable\r\n\r\n"),
            Upgrade::Refused
        );
    }
}
