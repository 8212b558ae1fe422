//! What does one message cost in the JSON encoding: a publish command in, a publication push of 128 B out?
//!
//! `cargo bench --bench protocol`; tiny under `cargo test --benches`.

use std::hint::black_box;

use bytes::Bytes;
use ringmain::model::{Epoch, Offset, Publication};
use ringmain::protocol::api;
use ringmain::protocol::centrifuge::json::{PING, commands, encode_push};
use ringmain::protocol::command::Body;
use ringmain::protocol::push::Push;

/// Bytes of the payload, a JSON object.
const PAYLOAD_BYTES: usize = 128;
/// Samples of which the median and the extremes are reported.
const SAMPLES: usize = 21;

fn main() {
    let rounds = if std::env::args().any(|arg| arg == "--bench") {
        100_000
    } else {
        10
    };
    let payload = format!(
        r#"{{"text":"{}"}}"#,
        "x".repeat(PAYLOAD_BYTES - r#"{"text":""}"#.len())
    );

    let frame = format!(r#"{{"publish":{{"channel":"chat:general","data":{payload}}},"id":17}}"#);
    report("decode publish command", rounds, || {
        for command in commands(black_box(frame.as_bytes())) {
            assert!(matches!(command.expect("sound").body, Body::Publish { .. }));
        }
    });

    let frame = r#"{"subscribe":{"channel":"chat:general","recover":true,"epoch":"abcdEFGH","offset":5,"flag":1},"id":2}"#;
    report("decode subscribe command", rounds, || {
        for command in commands(black_box(frame.as_bytes())) {
            assert!(matches!(command.expect("sound").body, Body::Subscribe(_)));
        }
    });

    report("decode pong", rounds, || {
        for command in commands(black_box(PING)) {
            assert_eq!(command.expect("sound").body, Body::Pong);
        }
    });

    let body = format!(r#"{{"channel":"chat:general","data":{payload}}}"#);
    report("decode API publish", rounds, || {
        let request = api::decode("publish", black_box(body.as_bytes()));
        assert!(matches!(request, Ok(Ok(api::Request::Publish { .. }))));
    });

    let publication = Publication {
        offset: Offset(123_456),
        epoch: Epoch(*b"abcdEFGH"),
        data: Bytes::from(payload),
        json: true,
        info: None,
        tags: Box::default(),
        unix_ms: 0,
        tells_time: false,
        patch: None,
        delta: false,
    };
    let mut out = Vec::with_capacity(4096);
    report("encode publication push", rounds, || {
        out.clear();
        encode_push(
            &mut out,
            black_box("chat:general"),
            &Push::Publication(black_box(&publication)),
        );
        black_box(&out);
    });
}

#[expect(clippy::disallowed_methods, reason = "a bench measures time")]
fn report(what: &str, rounds: u32, mut run: impl FnMut()) {
    let mut samples: Vec<f64> = (0..SAMPLES)
        .map(|_| {
            let start = std::time::Instant::now();
            for _ in 0..rounds {
                run();
            }
            start.elapsed().as_nanos() as f64 / f64::from(rounds)
        })
        .collect();
    samples.sort_by(f64::total_cmp);
    let [fastest, median, slowest] = [samples[0], samples[SAMPLES / 2], samples[SAMPLES - 1]];
    println!("{what:26} {median:8.1} ns median, {fastest:.1} to {slowest:.1}");
}
