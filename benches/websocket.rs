//! What does reading a frame cost: header, unmasking in place, and UTF-8 for texts? Asked for a small publication (128 B) and a large message (64 KiB).
//!
//! One iteration decodes a buffer of frames as one receive would leave it. Unmasking writes over the frames, and XOR is its own inverse, so the plain payload decodes again
//! as another payload; texts therefore carry the mask 0, which costs the decoder the same. Without `--bench`, which `cargo bench` gives and `cargo test --benches` does not,
//! and with `--test`, it runs one short round, to see that it runs.

use std::hint::black_box;
use std::time::{Duration, Instant};

use ringmain::wire::websocket::{Decoder, Event};
use tungstenite::protocol::frame::Frame;
use tungstenite::protocol::frame::coding::{Data, OpCode};

/// Bytes of one receive buffer's worth of frames, at least.
const BUFFER_BYTES: usize = 64 * 1024;

fn main() {
    let has = |flag: &str| std::env::args().any(|argument| argument == flag);
    let is_test = has("--test") || !has("--bench");
    let (rounds, round) = if is_test {
        (1, Duration::from_millis(1))
    } else {
        (5, Duration::from_millis(300))
    };
    println!(
        "{:<24} {:>12} {:>10}   (median of {rounds})",
        "", "ns/frame", "GB/s"
    );
    for payload_bytes in [16, 128, 64 * 1024] {
        measure(
            "binary",
            Data::Binary,
            "a",
            [0x37, 0xFA, 0x21, 0x3D],
            payload_bytes,
            rounds,
            round,
        );
        measure(
            "text, ASCII",
            Data::Text,
            "a",
            [0; 4],
            payload_bytes,
            rounds,
            round,
        );
        measure(
            "text, two bytes a letter",
            Data::Text,
            "é",
            [0; 4],
            payload_bytes,
            rounds,
            round,
        );
    }
}

fn measure(
    name: &str,
    opcode: Data,
    letter: &str,
    mask: [u8; 4],
    payload_bytes: usize,
    rounds: usize,
    round: Duration,
) {
    let payload = letter.repeat(payload_bytes / letter.len()).into_bytes();
    let frames = BUFFER_BYTES.div_ceil(payload_bytes);
    let mut buffer = Vec::new();
    for _ in 0..frames {
        let mut frame = Frame::message(payload.clone(), OpCode::Data(opcode), true);
        frame.header_mut().mask = Some(mask);
        frame
            .format(&mut buffer)
            .expect("a vector takes every frame");
    }
    let mut nanoseconds: Vec<f64> = (0..rounds)
        .map(|_| time_round(&mut buffer, frames, payload_bytes, round))
        .collect();
    nanoseconds.sort_by(f64::total_cmp);
    let median = nanoseconds[rounds / 2];
    println!(
        "{:<24} {median:>12.1} {:>10.2}   {payload_bytes} B",
        name,
        payload_bytes as f64 / median
    );
}

/// Nanoseconds per frame over one round.
#[expect(clippy::disallowed_methods, reason = "a bench reads the clock")]
fn time_round(buffer: &mut [u8], frames: usize, payload_bytes: usize, round: Duration) -> f64 {
    let mut decoder = Decoder::default();
    let mut decoded = 0_u64;
    let begun = Instant::now();
    while begun.elapsed() < round {
        let mut input = black_box(&mut *buffer);
        let before = decoded;
        while let Some(event) = decoder
            .next(&mut input, payload_bytes)
            .expect("the frames are legal")
        {
            match black_box(event) {
                Event::Text(payload) | Event::Binary(payload) => {
                    assert!(payload.len() == payload_bytes, "a frame was misread")
                }
                other => panic!("no such frame was sent: {other:?}"),
            }
            decoded += 1;
        }
        assert!(decoded - before == frames as u64, "a frame was lost");
    }
    begun.elapsed().as_nanos() as f64 / decoded as f64
}
