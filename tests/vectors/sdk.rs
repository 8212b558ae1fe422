//! The vectors that the SDKs' own codecs made, in both directions.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use ringmain::protocol::centrifuge::{json, protobuf};
use ringmain::protocol::command::{Body, Command};
use serde_json::Value;

use crate::replies;
use crate::transcode::{decode, payload, split, unhex};

const CASES: &str = include_str!("centrifuge/cases.json");
const SDKS: [(&str, &str); 2] = [
    ("javascript", include_str!("centrifuge/javascript.txt")),
    ("python", include_str!("centrifuge/python.txt")),
];

/// The JSON view of every case of a kind, by name.
fn cases(kind: &str) -> BTreeMap<String, Value> {
    let mut cases: Value = serde_json::from_str(CASES).expect("JSON");
    let cases = cases[kind].take();
    let cases = cases.as_array().expect("a list").iter();
    cases
        .map(|case| {
            (
                case["name"].as_str().expect("a name").to_owned(),
                case["json"].clone(),
            )
        })
        .collect()
}

/// Names of the cases that JSON has no form for.
fn protobuf_only() -> BTreeSet<String> {
    let cases: Value = serde_json::from_str(CASES).expect("JSON");
    let cases = cases["replies"].as_array().expect("a list").iter();
    cases
        .filter(|case| case["protobuf_only"] == true)
        .map(|case| case["name"].as_str().expect("a name").to_owned())
        .collect()
}

/// Every vector of a kind: SDK, name, bytes.
fn vectors(kind: &str) -> Vec<(&'static str, &'static str, Vec<u8>)> {
    let mut vectors = Vec::new();
    for (sdk, text) in SDKS {
        for line in text.lines() {
            let (path, hex) = line.split_once(' ').expect("name and hex");
            if let Some((of, name)) = path.split_once('/')
                && of == kind
            {
                vectors.push((sdk, name, unhex(hex)));
            }
        }
    }
    assert!(!vectors.is_empty(), "{kind}");
    vectors
}

fn message(frame: &[u8]) -> &[u8] {
    let messages = split(frame);
    assert_eq!(messages.len(), 1, "{frame:02x?}");
    messages[0]
}

/// A map has no order: its entries are compared by their keys.
fn sorted(mut command: Command<'_>) -> Command<'_> {
    if let Body::Connect(connect) = &mut command.body {
        connect.subs.sort_by(|a, b| a.channel.cmp(&b.channel));
        connect.headers.sort();
    }
    command
}

/// The case's command as the JSON decoder reads it. Bytes have no JSON form: they are put in.
fn expected(case: &Value) -> Command<'static> {
    let mut case = case.clone();
    let mut bytes = None;
    for part in ["connect", "publish"] {
        if let Some(data) = case.pointer_mut(&format!("/{part}/data"))
            && let Some(hex) = data["$bytes"].as_str()
        {
            bytes = Some(unhex(hex));
            *data = Value::Null;
        }
    }
    let text: &'static str = case.to_string().leak();
    let mut commands: Vec<_> = json::commands(text.as_bytes()).collect();
    assert_eq!(commands.len(), 1, "{text}");
    let mut command = commands.remove(0).expect("a command");
    if let Some(bytes) = bytes {
        match &mut command.body {
            Body::Connect(connect) => connect.data = Cow::Owned(bytes),
            Body::Publish { data, .. } => *data = Cow::Owned(bytes),
            other => panic!("bytes in {other:?}"),
        }
    }
    sorted(command)
}

#[test]
fn commands_of_the_sdks_are_read_as_their_json() {
    let cases = cases("commands");
    for (sdk, name, frame) in vectors("commands") {
        let commands: Vec<_> = protobuf::commands(&frame).collect();
        let commands: Vec<_> = commands.into_iter().map(|one| one.map(sorted)).collect();
        assert_eq!(commands, [Ok(expected(&cases[name]))], "{sdk} {name}");
    }
}

#[test]
fn schema_of_the_tests_is_that_of_the_sdks() {
    for (kind, of) in [("commands", "Command"), ("replies", "Reply")] {
        let cases = cases(kind);
        for (sdk, name, frame) in vectors(kind) {
            assert_eq!(decode(of, message(&frame)), cases[name], "{sdk} {name}");
        }
    }
}

#[test]
fn replies_are_byte_for_byte_what_the_codecs_of_the_sdks_write() {
    let mut ours = BTreeMap::new();
    replies::each(|name, said| {
        assert_eq!(
            ours.insert(name.to_owned(), said.protobuf()),
            None,
            "{name}"
        );
    });
    for (sdk, name, frame) in vectors("replies") {
        let ours = &ours[name];
        let theirs = message(&frame);
        if has_version(&frame) {
            let mut view = decode("Reply", ours);
            put_version(&mut view);
            assert_eq!(view, decode("Reply", theirs), "{sdk} {name}");
        } else {
            assert_eq!(ours, theirs, "{sdk} {name}");
        }
    }
}

/// Connect results tell the version of this program, which is not that of the vectors.
fn has_version(frame: &[u8]) -> bool {
    let view = decode("Reply", message(frame));
    view.get("connect").is_some() || view["push"].get("connect").is_some()
}

fn put_version(view: &mut Value) {
    for connect in ["/connect/version", "/push/connect/version"] {
        if let Some(version) = view.pointer_mut(connect) {
            *version = "v".into();
        }
    }
}

#[test]
fn bare_pushes_are_byte_for_byte_what_the_codec_of_the_sdk_writes() {
    let mut ours = BTreeMap::new();
    replies::each(|name, said| {
        if let Some(bytes) = said.bare_push() {
            ours.insert(name.to_owned(), bytes);
        }
    });
    for (sdk, name, theirs) in vectors("pushes") {
        let mut view = decode("Push", &ours[name]);
        if let Some(version) = view.pointer_mut("/connect/version") {
            *version = "v".into();
            assert_eq!(view, decode("Push", &theirs), "{sdk} {name}");
        } else {
            assert_eq!(ours[name], theirs, "{sdk} {name}");
        }
    }
}

#[test]
fn json_of_every_reply_is_that_of_its_case() {
    let cases = cases("replies");
    let protobuf_only = protobuf_only();
    let mut seen = BTreeSet::new();
    replies::each(|name, said| {
        seen.insert(name.to_owned());
        if !protobuf_only.contains(name) {
            let mut json = said.json();
            put_version(&mut json);
            assert_eq!(json, cases[name], "{name}");
        }
    });
    let names: BTreeSet<String> = cases.into_keys().collect();
    assert_eq!(
        seen, names,
        "every case is said, and everything said is a case"
    );
}

#[test]
fn emulation_requests_of_the_sdks_are_read() {
    let cases = cases("emulations");
    for (sdk, name, body) in vectors("emulations") {
        let case = &cases[name];
        let emulation = protobuf::decode_emulation(&body).expect("an emulation request");
        let text = |field: &str| case[field].as_str().unwrap_or_default().to_owned();
        assert_eq!(emulation.node, text("node"), "{sdk} {name}");
        assert_eq!(emulation.session, text("session"), "{sdk} {name}");
        let data = case.get("data").map(|_| payload(&emulation.data));
        assert_eq!(data.as_ref(), case.get("data"), "{sdk} {name}");
        assert_eq!(emulation.data.is_empty(), data.is_none(), "{sdk} {name}");
    }
}
