//! Compressed messages and what is offered for them.

use std::sync::LazyLock;

use proptest::prelude::*;
use ringmain::wire::websocket::deflate::{Agreement, DeflateTerms, Deflater, Inflater, negotiate};
use ringmain::wire::websocket::{Decoder, Event, WebSocketError};
use tungstenite::protocol::frame::coding::{Data, OpCode};
use tungstenite::protocol::frame::{Frame, FrameHeader};

use crate::commands;
use crate::mutation::{config, near};

const MESSAGE_BYTES_MAX: usize = 8 * 1024;
const INFLATED_BYTES_MAX: usize = 10 * MESSAGE_BYTES_MAX;

fn messages() -> impl Iterator<Item = Vec<u8>> {
    let lines = commands::cases("commands");
    let lines = lines.into_iter().map(|line| line.to_string().into_bytes());
    lines.chain([vec![], vec![b'x'; 70_000], (0..=255).collect()])
}

fn deflated(message: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    Deflater::shared(6).deflate(message, &mut out);
    out
}

/// Payloads of compressed messages.
static PAYLOADS: LazyLock<Vec<Vec<u8>>> =
    LazyLock::new(|| messages().map(|message| deflated(&message)).collect());

fn frame(payload: &[u8]) -> Vec<u8> {
    let header = FrameHeader {
        rsv1: true,
        opcode: OpCode::Data(Data::Binary),
        mask: Some([0; 4]),
        ..FrameHeader::default()
    };
    let mut bytes = Vec::new();
    Frame::from_payload(header, payload.to_vec().into())
        .format(&mut bytes)
        .expect("memory");
    bytes
}

/// Frames of a client that compresses: each corpus entry is a whole message.
static FRAMES: LazyLock<Vec<Vec<u8>>> =
    LazyLock::new(|| PAYLOADS.iter().map(|payload| frame(payload)).collect());

static OFFERS: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    [
        "permessage-deflate",
        "permessage-deflate; client_max_window_bits",
        "permessage-deflate; server_max_window_bits=12; client_max_window_bits=12",
        "permessage-deflate; server_no_context_takeover; client_no_context_takeover",
        "x-other; a=\"b\", permessage-deflate; server_max_window_bits=\"1\\0\", permessage-deflate",
    ]
    .map(|offer| offer.as_bytes().to_vec())
    .to_vec()
});

/// Messages and verdict; every message is within the bounds.
fn decode(
    bytes: &[u8],
    step: usize,
    inflater: &mut Inflater,
) -> (Vec<Vec<u8>>, Option<WebSocketError>) {
    let mut decoder = Decoder::default();
    let mut seen = Vec::new();
    for piece in bytes.chunks(step) {
        let mut piece = piece.to_vec();
        let mut input = &mut piece[..];
        loop {
            match decoder.next_inflated(&mut input, MESSAGE_BYTES_MAX, inflater) {
                Ok(Some(Event::Text(payload) | Event::Binary(payload))) => {
                    assert!(payload.len() <= INFLATED_BYTES_MAX);
                    seen.push(payload.to_vec());
                }
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(error) => return (seen, Some(error)),
            }
        }
    }
    (seen, None)
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn payloads_keep_every_promise(payload in near(&PAYLOADS), keeps_context: bool, bits in 8_u8..=15) {
        let agreement = Agreement {
            client_no_context_takeover: !keeps_context,
            client_max_window_bits: Some(bits),
            ..Agreement::default()
        };
        let bytes = frame(&payload);
        let mut whole = Inflater::agreed(&agreement, INFLATED_BYTES_MAX);
        let mut pieces = Inflater::agreed(&agreement, INFLATED_BYTES_MAX);
        let first = decode(&bytes, bytes.len(), &mut whole);
        prop_assert_eq!(&first, &decode(&bytes, 7, &mut pieces));
        if !keeps_context {
            // Nothing of a message is left for the next one, whatever became of it.
            prop_assert_eq!(&first, &decode(&bytes, bytes.len(), &mut whole));
            let (seen, error) = decode(&frame(&deflated(b"next")), 100, &mut whole);
            prop_assert_eq!((seen, error), (vec![b"next".to_vec()], None));
        }
    }

    #[test]
    fn frames_keep_every_promise(bytes in near(&FRAMES), step in 1_usize..100) {
        let mut inflater = Inflater::shared(INFLATED_BYTES_MAX);
        let whole = decode(&bytes, bytes.len().max(1), &mut inflater);
        prop_assert_eq!(whole, decode(&bytes, step, &mut inflater));
    }

    #[test]
    fn offers_keep_every_promise(header in near(&OFFERS)) {
        for terms in [DeflateTerms::AsOffered, DeflateTerms::Stateless] {
            let agreed = negotiate([&header[..]], terms);
            prop_assert_eq!(&agreed, &negotiate([&header[..]], terms));
            if let Ok(Some(agreement)) = agreed {
                let answer = agreement.to_string();
                prop_assert_eq!(negotiate([answer.as_bytes()], terms), Ok(Some(agreement)));
            }
        }
    }
}

#[test]
fn valid_input_is_valid() {
    for (message, payload) in messages().zip(PAYLOADS.iter()) {
        let mut inflater = Inflater::shared(INFLATED_BYTES_MAX);
        let (seen, error) = decode(&frame(payload), 1000, &mut inflater);
        assert_eq!(error, None);
        assert!(seen == [message]);
    }
    for offer in OFFERS.iter() {
        assert!(matches!(
            negotiate([&offer[..]], DeflateTerms::AsOffered),
            Ok(Some(_))
        ));
    }
}
