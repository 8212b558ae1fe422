//! Frames of commands, in both encodings. The valid ones are those of the vectors.

use std::borrow::Cow;
use std::sync::LazyLock;

use proptest::prelude::*;
use ringmain::limits::COMMANDS_PER_FRAME_MAX;
use ringmain::model::{Encoding, FilterNode};
use ringmain::protocol::centrifuge;
use ringmain::protocol::command::{Body, Command, Subscribe};
use ringmain::protocol::disconnect::Disconnect;
use serde_json::Value;

use crate::mutation::{config, near};

const CASES: &str = include_str!("../vectors/centrifuge/cases.json");
const VECTORS: &str = include_str!("../vectors/centrifuge/javascript.txt");

/// What the vectors have of this kind, in hex.
pub(crate) fn vectors(kind: &str) -> Vec<Vec<u8>> {
    let lines = VECTORS.lines().filter_map(|line| {
        let (path, hex) = line.split_once(' ')?;
        path.starts_with(kind).then_some(hex)
    });
    let byte = |hex: &str, at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex");
    lines
        .map(|hex| (0..hex.len()).step_by(2).map(|at| byte(hex, at)).collect())
        .collect()
}

/// JSON of the vectors' cases of this kind.
pub(crate) fn cases(kind: &str) -> Vec<Value> {
    let cases: Value = serde_json::from_str(CASES).expect("JSON");
    let cases = cases[kind].as_array().expect("a list").iter();
    cases.map(|case| case["json"].clone()).collect()
}

/// Frames of one command each, and one of all of them.
fn with_all(mut frames: Vec<Vec<u8>>, separator: &[u8]) -> Vec<Vec<u8>> {
    frames.push(frames.join(separator));
    frames
}

static PROTOBUF: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| with_all(vectors("commands/"), b""));
static JSON: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let lines = cases("commands")
        .iter()
        .map(|case| case.to_string().into_bytes())
        .collect();
    with_all(lines, b"\n")
});

fn text(texts: &[&Cow<'_, str>]) -> usize {
    texts.iter().map(|text| text.len()).sum()
}

fn filter_bytes(node: &FilterNode) -> usize {
    let texts = [&node.op, &node.key, &node.cmp, &node.val];
    let own: usize = texts
        .into_iter()
        .chain(&node.vals)
        .map(|text| text.len())
        .sum();
    own + node.nodes.iter().map(filter_bytes).sum::<usize>()
}

fn subscribe_bytes(subscribe: &Subscribe<'_>) -> usize {
    let Subscribe {
        channel,
        token,
        epoch,
        data,
        delta,
        filter,
        ..
    } = subscribe;
    text(&[channel, token, epoch, delta]) + data.len() + filter.as_deref().map_or(0, filter_bytes)
}

/// Bytes of everything that a command holds.
fn bytes(command: &Command<'_>) -> usize {
    match &command.body {
        Body::Connect(connect) => {
            let headers = connect.headers.iter();
            let subs = connect.subs.iter();
            text(&[&connect.token, &connect.name, &connect.version])
                + connect.data.len()
                + headers
                    .map(|(name, value)| text(&[name, value]))
                    .sum::<usize>()
                + subs.map(subscribe_bytes).sum::<usize>()
        }
        Body::Subscribe(subscribe) => subscribe_bytes(subscribe),
        Body::Unsubscribe { channel }
        | Body::Presence { channel }
        | Body::PresenceStats { channel } => channel.len(),
        Body::Publish { channel, data } => channel.len() + data.len(),
        Body::History(history) => {
            let since = history.since.as_ref();
            history.channel.len() + since.map_or(0, |(_, epoch)| epoch.len())
        }
        Body::Rpc { method, data } => method.len() + data.len(),
        Body::Send { data } => data.len(),
        Body::Refresh { token } => token.len(),
        Body::SubRefresh { channel, token } => text(&[channel, token]),
        Body::Pong => 0,
    }
}

/// Decodes a frame and holds the result against every promise.
pub(crate) fn check(encoding: Encoding, frame: &[u8]) {
    let all: Vec<_> = centrifuge::commands(encoding, frame).collect();
    assert!(!all.is_empty() && all.len() <= COMMANDS_PER_FRAME_MAX + 1);
    let again: Vec<_> = centrifuge::commands(encoding, frame).collect();
    assert_eq!(all, again, "the same bytes are the same commands");

    let (last, before) = all.split_last().expect("not empty");
    assert!(
        before.iter().all(Result::is_ok),
        "nothing follows what is refused"
    );
    assert!(matches!(last, Ok(_) | Err(Disconnect::BadRequest)));
    let held: usize = all.iter().flatten().map(bytes).sum();
    assert!(held <= frame.len(), "{held} bytes out of {}", frame.len());

    // Commands that must wait are held as the frame that they would have been.
    let mut commands = centrifuge::commands(encoding, frame);
    let mut left = frame.len();
    for at in 0..all.len().min(20) {
        assert_eq!(commands.next().as_ref(), all.get(at));
        let Some(rest) = commands.rest() else { break };
        assert!(rest.len() < left && frame.ends_with(rest));
        left = rest.len();
        let behind: Vec<_> = centrifuge::commands(encoding, rest).collect();
        assert_eq!(behind, all[at + 1..], "the rest is a frame of its own");
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn protobuf_commands_keep_every_promise(frame in near(&PROTOBUF)) {
        check(Encoding::Protobuf, &frame);
    }

    #[test]
    fn json_commands_keep_every_promise(frame in near(&JSON)) {
        check(Encoding::Json, &frame);
    }

    #[test]
    fn frames_of_the_other_encoding_keep_every_promise(protobuf in near(&PROTOBUF), json in near(&JSON)) {
        check(Encoding::Json, &protobuf);
        check(Encoding::Protobuf, &json);
    }
}

#[test]
fn valid_input_is_valid() {
    for (encoding, corpus) in [(Encoding::Protobuf, &PROTOBUF), (Encoding::Json, &JSON)] {
        for frame in corpus.iter() {
            let refused = centrifuge::commands(encoding, frame).find(Result::is_err);
            assert_eq!(refused, None, "{encoding:?} {frame:02x?}");
        }
    }
}
