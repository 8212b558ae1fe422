use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};
use tungstenite::protocol::frame::{Frame, FrameHeader};

use super::super::{Decoder, Event};
use super::*;

const LIMIT: usize = 1 << 20;
const TEXT: OpCode = OpCode::Data(Data::Text);
const BINARY: OpCode = OpCode::Data(Data::Binary);
const CONTINUATION: OpCode = OpCode::Data(Data::Continue);
/// "Hello" of RFC 7692 §7.2.3.1.
const HELLO: &[u8] = &[0xF2, 0x48, 0xCD, 0xC9, 0xC9, 0x07, 0x00];

/// Both directions alike, so that one end understands the other of its kind.
fn agreement(bits: u8, no_takeover: bool) -> Agreement {
    Agreement {
        server_no_context_takeover: no_takeover,
        client_no_context_takeover: no_takeover,
        server_max_window_bits: Some(bits),
        client_max_window_bits: Some(bits),
    }
}

fn deflated(message: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    Deflater::shared(6).deflate(message, &mut out);
    out
}

fn inflate(payload: &[u8]) -> Result<Vec<u8>, WebSocketError> {
    Inflater::shared(LIMIT).inflate(payload)
}

/// A client's frame, written by the peer.
fn frame(opcode: OpCode, fin: bool, rsv1: bool, payload: &[u8]) -> Vec<u8> {
    let header = FrameHeader {
        is_final: fin,
        rsv1,
        opcode,
        mask: Some([1, 2, 3, 4]),
        ..FrameHeader::default()
    };
    let mut bytes = Vec::new();
    Frame::from_payload(header, payload.to_vec().into())
        .format(&mut bytes)
        .unwrap();
    bytes
}

/// What the decoder hands out; the bytes come in pieces of `step`.
fn decode_by(
    bytes: &[u8],
    step: usize,
    inflater: &mut Inflater,
) -> (Vec<Vec<u8>>, Option<WebSocketError>) {
    let mut decoder = Decoder::default();
    let mut messages = Vec::new();
    for piece in bytes.chunks(step) {
        let mut piece = piece.to_vec();
        let mut input = &mut piece[..];
        loop {
            match decoder.next_inflated(&mut input, LIMIT, inflater) {
                Ok(Some(Event::Text(payload) | Event::Binary(payload))) => {
                    messages.push(payload.to_vec());
                }
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(error) => return (messages, Some(error)),
            }
        }
    }
    (messages, None)
}

fn decode(bytes: &[u8]) -> (Vec<Vec<u8>>, Option<WebSocketError>) {
    let whole = decode_by(bytes, bytes.len().max(1), &mut Inflater::shared(LIMIT));
    let bytewise = decode_by(bytes, 1, &mut Inflater::shared(LIMIT));
    assert_eq!(whole, bytewise);
    whole
}

#[test]
fn messages_of_the_rfc_inflate() {
    for payload in [
        HELLO,
        &[
            0x00, 0x05, 0x00, 0xFA, 0xFF, 0x48, 0x65, 0x6C, 0x6C, 0x6F, 0x00,
        ],
        &[0xF3, 0x48, 0xCD, 0xC9, 0xC9, 0x07, 0x00, 0x00],
        &[0xF3, 0x48, 0xCD, 0xC9, 0xC9, 0x07, 0x00],
        &[
            0xF2, 0x48, 0x05, 0x00, 0x00, 0x00, 0xFF, 0xFF, 0xCA, 0xC9, 0xC9, 0x07, 0x00,
        ],
    ] {
        assert_eq!(inflate(payload).unwrap(), b"Hello", "{payload:02x?}");
        let mut keeps = Inflater::agreed(&agreement(15, false), LIMIT);
        for _ in 0..2 {
            assert_eq!(keeps.inflate(payload).unwrap(), b"Hello", "{payload:02x?}");
        }
    }
}

#[test]
fn context_is_taken_over_only_where_it_was_agreed() {
    let again = [0xF2, 0x00, 0x11, 0x00, 0x00];
    let mut keeps = Inflater::agreed(&agreement(15, false), LIMIT);
    assert_eq!(keeps.inflate(HELLO).unwrap(), b"Hello");
    assert_eq!(keeps.inflate(&again).unwrap(), b"Hello");
    let mut forgets = Inflater::agreed(&agreement(15, true), LIMIT);
    assert_eq!(forgets.inflate(HELLO).unwrap(), b"Hello");
    assert_eq!(forgets.inflate(&again), Err(WebSocketError::CorruptDeflate));
    assert_eq!(forgets.inflate(HELLO).unwrap(), b"Hello");

    let lengths = |no_takeover| {
        let mut deflater = Deflater::agreed(&agreement(15, no_takeover), 6);
        [0; 3].map(|_| {
            let mut out = Vec::new();
            deflater.deflate(b"a message that is not like any other", &mut out);
            out.len()
        })
    };
    let [first, second, third] = lengths(false);
    assert!(second < first / 2 && third <= second);
    let [first, second, third] = lengths(true);
    assert_eq!((first, first), (second, third));
}

#[test]
fn empty_message_is_one_byte() {
    assert_eq!(deflated(b""), [0]);
    assert_eq!(inflate(&[0]).unwrap(), b"");
    assert_eq!(
        inflate(&[]).unwrap(),
        b"",
        "nothing but the tail is fine too"
    );
    assert_eq!(inflate(&[3, 0]).unwrap(), b"");
}

#[test]
fn message_beyond_the_limit_is_refused_and_never_held() {
    let bomb = deflated(&vec![b'0'; LIMIT * 16]);
    assert!(bomb.len() < LIMIT / 32);
    for max in [0, 1, 64, 4096, LIMIT] {
        let mut inflater = Inflater::shared(max);
        assert_eq!(inflater.inflate(&bomb), Err(WebSocketError::TooLarge));
        for (len, fits) in [(max, true), (max + 1, false)] {
            let result = inflater.inflate(&deflated(&vec![b'1'; len]));
            match result {
                Ok(message) => {
                    assert!(
                        fits && message.len() == len && message.capacity() <= max,
                        "{max}"
                    );
                }
                Err(error) => assert!(!fits && error == WebSocketError::TooLarge, "{max}"),
            }
        }
    }
    let bytes = frame(BINARY, true, true, &deflated(&vec![0; LIMIT + 1]));
    assert_eq!(decode(&bytes), (vec![], Some(WebSocketError::TooLarge)));
}

#[test]
fn damaged_message_is_corrupt_and_the_next_one_is_read() {
    let message: Vec<u8> = (0..2000_u32)
        .flat_map(|i| i.wrapping_pow(3).to_le_bytes())
        .collect();
    let whole = deflated(&message);
    let mut inflater = Inflater::shared(LIMIT);
    for cut in [1, 2, 10, whole.len() / 2, whole.len() - 3] {
        let result = inflater.inflate(&whole[..cut]);
        assert_eq!(result, Err(WebSocketError::CorruptDeflate), "{cut}");
    }
    // A block of the type that does not exist, and a distance before the message's beginning.
    for payload in [&[0x07_u8][..], &[0xF2, 0x00, 0x11, 0x00, 0x00]] {
        let result = inflater.inflate(payload);
        assert_eq!(result, Err(WebSocketError::CorruptDeflate));
    }
    assert_eq!(inflater.inflate(&whole).unwrap(), message);
    assert_eq!(WebSocketError::CorruptDeflate.close_code(), 1007);
}

#[test]
fn text_is_judged_when_it_is_inflated() {
    let bytes = frame(TEXT, true, true, &deflated("grüße".as_bytes()));
    assert_eq!(decode(&bytes), (vec!["grüße".into()], None));
    for bad in [&b"\xff"[..], "grü".as_bytes().split_at(3).0] {
        let bytes = frame(TEXT, true, true, &deflated(bad));
        assert_eq!(decode(&bytes), (vec![], Some(WebSocketError::InvalidUtf8)));
        let bytes = frame(BINARY, true, true, &deflated(bad));
        assert_eq!(decode(&bytes), (vec![bad.to_vec()], None));
    }
}

#[test]
fn rsv1_stands_on_the_first_frame_of_a_message_and_nowhere_else() {
    let (front, back) = HELLO.split_at(3);
    let ping = frame(OpCode::Control(Control::Ping), true, false, b"?");
    let fragments = [
        frame(TEXT, false, true, front),
        ping,
        frame(CONTINUATION, false, false, &[]),
        frame(CONTINUATION, true, false, back),
        frame(TEXT, true, false, b"plain"),
    ]
    .concat();
    let messages = vec![b"Hello".to_vec(), b"plain".to_vec()];
    assert_eq!(decode(&fragments), (messages, None));

    let refused = (vec![], Some(WebSocketError::Protocol));
    for opcode in [Control::Ping, Control::Pong, Control::Close] {
        let bytes = frame(OpCode::Control(opcode), true, true, &[]);
        assert_eq!(decode(&bytes), refused, "{opcode:?}");
    }
    let continued = [
        frame(TEXT, false, true, front),
        frame(CONTINUATION, true, true, back),
    ]
    .concat();
    assert_eq!(decode(&continued), refused);
    for reserved in [0x20, 0x10, 0x60, 0x50, 0x70] {
        let mut bytes = frame(TEXT, true, false, HELLO);
        bytes[0] |= reserved;
        assert_eq!(decode(&bytes), refused, "{reserved:x}");
    }
    let mut bytes = frame(TEXT, true, true, HELLO);
    let result = Decoder::default().next(&mut &mut bytes[..], LIMIT);
    assert_eq!(
        result,
        Err(WebSocketError::Protocol),
        "nothing was agreed on"
    );
}

/// Repeats itself after `period` bytes and not before.
fn periodic(period: usize, len: usize) -> Vec<u8> {
    let mut rng = 1_u32;
    let noise: Vec<u8> = (0..period)
        .map(|_| {
            rng = rng.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (rng >> 24) as u8
        })
        .collect();
    noise.into_iter().cycle().take(len).collect()
}

#[test]
fn window_of_every_size_is_kept_to_by_every_level() {
    // Noise that repeats itself beyond the window can only be written out again.
    let is_written_out = |bits, level, period: usize| {
        let message = periodic(period, period * 3);
        let mut out = Vec::new();
        Deflater::agreed(&agreement(bits, true), level).deflate(&message, &mut out);
        assert!(inflate(&out) == Ok(message), "{bits} bits, level {level}");
        out.len() > period * 28 / 10
    };
    for bits in 8..=15 {
        let window = 1_usize << bits;
        for level in 1..=9 {
            for period in [window + 1, window + 6, window * 3 / 2] {
                assert!(
                    is_written_out(bits, level, period),
                    "{bits} bits, level {level}, period {period}"
                );
            }
        }
        assert!(
            !is_written_out(bits, 6, window.max(512) - 270),
            "the window is used: {bits} bits"
        );
        if bits < 15 {
            assert!(
                !is_written_out((bits + 2).min(15), 6, window + 6),
                "a larger window is seen: {bits} bits"
            );
        }
    }
}

fn compressible() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        vec(any::<u8>(), 0..300),
        "[a-d]{0,400}".prop_map(String::into_bytes),
        (1_usize..40_000, 0_usize..80_000).prop_map(|(period, len)| periodic(period, len)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn messages_come_back_through_every_window(
        messages in vec(compressible(), 1..5),
        bits in 8_u8..=15,
        level in 1_u32..=9,
        no_takeover: bool,
    ) {
        let agreement = agreement(bits, no_takeover);
        let mut deflater = Deflater::agreed(&agreement, level);
        let mut inflater = Inflater::agreed(&agreement, LIMIT);
        for message in messages {
            let mut out = b"before".to_vec();
            deflater.deflate(&message, &mut out);
            prop_assert_eq!(&out[..6], b"before");
            let result = inflater.inflate(&out[6..]);
            prop_assert!(result == Ok(message));
        }
    }

    #[test]
    fn fragments_may_be_cut_anywhere(
        messages in vec((compressible(), vec(any::<Index>(), 0..4), any::<bool>()), 1..4),
        no_takeover: bool,
        step in 1_usize..5000,
    ) {
        let agreement = agreement(15, no_takeover);
        let mut deflater = Deflater::agreed(&agreement, 1);
        let mut bytes = Vec::new();
        for (message, cuts, plain) in &messages {
            let mut payload = Vec::new();
            if *plain {
                payload.extend_from_slice(message);
            } else {
                deflater.deflate(message, &mut payload);
            }
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(payload.len() + 1)).collect();
            cuts.sort_unstable();
            cuts.push(payload.len());
            let mut from = 0;
            for (at, &to) in cuts.iter().enumerate() {
                let opcode = if at == 0 { BINARY } else { CONTINUATION };
                let fin = at + 1 == cuts.len();
                bytes.extend(frame(opcode, fin, at == 0 && !plain, &payload[from..to]));
                from = to;
            }
        }
        let mut inflater = Inflater::agreed(&agreement, LIMIT);
        let (seen, error) = decode_by(&bytes, step, &mut inflater);
        prop_assert_eq!(error, None);
        let sent: Vec<Vec<u8>> = messages.into_iter().map(|(message, ..)| message).collect();
        prop_assert!(seen == sent);
    }

    #[test]
    fn arbitrary_payloads_stay_within_the_limit(
        payloads in vec(vec(any::<u8>(), 0..200), 1..4),
        bits in 8_u8..=15,
        no_takeover: bool,
        max in 0_usize..600,
    ) {
        let mut inflater = Inflater::agreed(&agreement(bits, no_takeover), max);
        for payload in payloads {
            match inflater.inflate(&payload) {
                Ok(message) => prop_assert!(message.capacity() <= max),
                Err(error) => {
                    prop_assert!(matches!(error, WebSocketError::TooLarge | WebSocketError::CorruptDeflate));
                    break;
                }
            }
        }
    }
}
