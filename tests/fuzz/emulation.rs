//! Bodies of emulation requests, in both encodings.

use std::sync::LazyLock;

use proptest::prelude::*;
use ringmain::model::Encoding;
use ringmain::protocol::centrifuge;
use ringmain::protocol::disconnect::Disconnect;
use serde_json::json;

use crate::commands;
use crate::mutation::{config, near};

static PROTOBUF: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| commands::vectors("emulations/"));
static JSON: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let lines = commands::cases("commands");
    let frames = lines.chunks(3).map(|lines| {
        let lines: Vec<_> = lines.iter().map(ToString::to_string).collect();
        lines.join("\n")
    });
    frames
        .map(|data| json!({ "session": "secret", "node": "node-1", "data": data }))
        .map(|body| body.to_string().into_bytes())
        .collect()
});

fn check(encoding: Encoding, body: &[u8]) {
    let request = centrifuge::decode_emulation(encoding, body);
    assert_eq!(request, centrifuge::decode_emulation(encoding, body));
    match request {
        Ok(request) => {
            let held = request.node.len() + request.session.len() + request.data.len();
            assert!(held <= body.len(), "{held} bytes out of {}", body.len());
            commands::check(encoding, &request.data);
        }
        Err(refused) => assert_eq!(refused, Disconnect::BadRequest),
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn protobuf_bodies_keep_every_promise(body in near(&PROTOBUF)) {
        check(Encoding::Protobuf, &body);
    }

    #[test]
    fn json_bodies_keep_every_promise(body in near(&JSON)) {
        check(Encoding::Json, &body);
    }
}

#[test]
fn valid_input_is_valid() {
    for (encoding, corpus) in [(Encoding::Protobuf, &PROTOBUF), (Encoding::Json, &JSON)] {
        for body in corpus.iter() {
            assert!(centrifuge::decode_emulation(encoding, body).is_ok());
        }
    }
}
