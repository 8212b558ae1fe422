//! `ringmain echo --deflate`: whatever a client may ask for by RFC 7692.

use std::sync::OnceLock;

use tungstenite::protocol::frame::coding::Data;

use crate::support::deflate::{Peer, handshake};
use crate::support::process::{Server, Start};

fn server() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(|| Start::echo().deflate().run())
}

/// Repeats with the length, never twice the same in a row.
fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at * 31 + at / 251) as u8).collect()
}

#[test]
fn messages_come_back_with_every_window_and_takeover() {
    for takeover in 0..4 {
        for bits in 7..=15_u8 {
            let mut offer = "permessage-deflate".to_owned();
            if takeover & 1 != 0 {
                offer += "; server_no_context_takeover";
            }
            if takeover & 2 != 0 {
                offer += "; client_no_context_takeover";
            }
            if bits > 7 {
                // A compressor of 256 bytes is not to be had for the client either: its own limit is the next one.
                let own = bits.max(9);
                offer += &format!("; server_max_window_bits={bits}; client_max_window_bits={own}");
            }
            let mut peer = Peer::open(server().listen, "/", &offer);
            assert_eq!(peer.extensions.as_deref(), Some(&*offer));
            for length in [0, 1, 100, 0, 1000, 70_000] {
                for _ in 0..2 {
                    let message = pattern(length);
                    peer.send_deflated(Data::Binary, &message);
                    let frame = peer.next().expect("an echo");
                    assert!(frame.payload == message && frame.rsv1, "{offer}: {length}");
                }
            }
        }
    }
}

#[test]
fn context_that_is_taken_over_makes_repeated_messages_tiny() {
    let message: Vec<u8> = (0..400_u32)
        .flat_map(|i| i.wrapping_pow(3).to_le_bytes())
        .collect();
    for (offer, is_tiny) in [
        ("permessage-deflate", true),
        ("permessage-deflate; server_no_context_takeover", false),
    ] {
        let mut peer = Peer::open(server().listen, "/", offer);
        let lengths = [0, 1].map(|_| {
            peer.send_deflated(Data::Binary, &message);
            peer.next().expect("an echo").wire_len
        });
        assert_eq!(
            lengths[1] * 10 < lengths[0],
            is_tiny,
            "{offer}: {lengths:?}"
        );
    }
}

#[test]
fn fragments_come_back_as_one_message() {
    let mut peer = Peer::open(server().listen, "/", "permessage-deflate");
    let text = "grüße ".repeat(5000);
    for size in [1, 7, 1000, 100_000] {
        let payload = peer.deflated(text.as_bytes());
        let count = payload.len().div_ceil(size);
        for (at, piece) in payload.chunks(size).enumerate() {
            let opcode = if at == 0 { Data::Text } else { Data::Continue };
            peer.send(opcode, at + 1 == count, at == 0, piece);
        }
        assert!(peer.next().expect("an echo").payload == text.as_bytes());
    }
}

#[test]
fn plain_peer_is_served_plainly() {
    let (_, status, extensions) = handshake(server().listen, "/", &[]);
    assert_eq!((status, extensions), (101, None));
    let mut peer = Peer::open(server().listen, "/", "permessage-deflate; unheard_of");
    assert_eq!(peer.extensions, None);
    peer.send(Data::Text, true, false, b"plain");
    let frame = peer.next().expect("an echo");
    assert!(!frame.rsv1 && frame.payload == b"plain");
    peer.send(Data::Text, true, true, b"x");
    assert_eq!(peer.closed_with(), Some(1002));
}

#[test]
fn bomb_and_garbage_end_the_connection() {
    let mut peer = Peer::open(server().listen, "/", "permessage-deflate");
    let bomb = peer.deflated(&vec![0; (16 << 20) + 1]);
    peer.send(Data::Binary, true, true, &bomb);
    assert_eq!(peer.closed_with(), Some(1009));
    let mut peer = Peer::open(server().listen, "/", "permessage-deflate");
    peer.send(Data::Binary, true, true, &[0x07]);
    assert_eq!(peer.closed_with(), Some(1007));
}
