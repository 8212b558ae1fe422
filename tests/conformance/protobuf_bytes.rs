//! Checks 3 – 12 where they are about the bytes of Protobuf frames. `json_text` has the like for JSON.

use serde_json::{Value, json};

use crate::servers::{plain, quick};
use crate::support::client::{Client, Encoding, PATH};
use crate::support::http::Http;
use crate::support::token::sign;
use crate::support::transcode::{delimit, encode};

/// `{"id":1,"connect":{}}`, as the specification has it.
const CONNECT: &[u8] = b"\x04\x08\x01\x22\x00";

fn command(command: &Value) -> Vec<u8> {
    let mut frame = Vec::new();
    delimit(&mut frame, &encode("Command", command));
    frame
}

fn unsubscribe(id: u64) -> Vec<u8> {
    command(&json!({ "id": id, "unsubscribe": { "channel": "a" } }))
}

/// Echoed subprotocol, and the connection that it opens.
fn offer(path: &str, offered: &str) -> (Option<String>, Http) {
    let mut http = Http::open(plain().listen);
    let mut headers = vec![
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    if !offered.is_empty() {
        headers.push(("Sec-WebSocket-Protocol", offered));
    }
    let response = http.get(path, &headers);
    assert_eq!(response.status, 101, "{path} {offered}");
    let echoed = response.header("Sec-WebSocket-Protocol");
    (echoed.map(str::to_owned), http)
}

fn connects(encoding: Encoding, http: Http) {
    let mut client = Client::from_http_as(encoding, http);
    match encoding {
        Encoding::Json => client.send_text(r#"{"id":1,"connect":{}}"#),
        Encoding::Protobuf => client.send_bytes(CONNECT),
    }
    let reply = client.reply(1);
    assert!(reply["connect"]["client"].is_string(), "{reply}");
}

#[test]
fn c03_protobuf_subprotocol_is_echoed_and_switches_to_binary_frames() {
    let (echoed, http) = offer(PATH, "centrifuge-protobuf");
    assert_eq!(echoed.as_deref(), Some("centrifuge-protobuf"));
    connects(Encoding::Protobuf, http);
}

#[test]
fn c03_first_known_subprotocol_of_the_client_is_taken() {
    for (offered, echoed, encoding) in [
        (
            "centrifuge-protobuf, centrifuge-json",
            "centrifuge-protobuf",
            Encoding::Protobuf,
        ),
        (
            "mqtt ,\tcentrifuge-json, centrifuge-protobuf",
            "centrifuge-json",
            Encoding::Json,
        ),
        (
            "centrifuge,centrifuge-protobuf",
            "centrifuge-protobuf",
            Encoding::Protobuf,
        ),
    ] {
        let (answer, http) = offer(PATH, offered);
        assert_eq!(answer.as_deref(), Some(echoed), "{offered}");
        connects(encoding, http);
    }
}

#[test]
fn c04_query_asks_for_protobuf_without_a_subprotocol() {
    for query in [
        "cf_protocol=protobuf",
        "format=protobuf",
        "a=b&format=protobuf",
    ] {
        let (echoed, http) = offer(&format!("{PATH}?{query}"), "");
        assert_eq!(echoed, None, "{query}");
        connects(Encoding::Protobuf, http);
    }
    for query in ["cf_protocol=json", "format=json", "cf_protocol="] {
        let (_, http) = offer(&format!("{PATH}?{query}"), "");
        connects(Encoding::Json, http);
    }
}

#[test]
fn c04_query_asks_for_protobuf_beside_any_subprotocol() {
    for (offered, wanted) in [
        ("centrifuge-json", Some("centrifuge-json")),
        ("chat.v7", None),
    ] {
        let (echoed, http) = offer(&format!("{PATH}?cf_protocol=protobuf"), offered);
        assert_eq!(echoed.as_deref(), wanted);
        connects(Encoding::Protobuf, http);
    }
}

#[test]
fn c04_type_of_an_incoming_frame_does_not_matter() {
    let (_, http) = offer(PATH, "centrifuge-protobuf");
    let mut client = Client::from_http_as(Encoding::Protobuf, http);
    let text = str::from_utf8(CONNECT).expect("these bytes are text as well");
    client
        .socket
        .send(tungstenite::Message::text(text))
        .expect("the server reads");
    assert!(client.reply(1)["connect"]["client"].is_string());
}

#[test]
fn c06_commands_behind_a_connect_that_waits_for_owners_are_answered_after_it() {
    let channels: Vec<String> = (0..16).map(|n| format!("c06-server-{n}")).collect();
    let token = sign(&json!({ "sub": "6", "channels": channels }));
    let mut frame = command(&json!({ "id": 1, "connect": { "token": token } }));
    for id in 2..50 {
        let channel = format!("c06-client-{id}");
        frame.extend(command(
            &json!({ "id": id, "subscribe": { "channel": channel } }),
        ));
    }
    let mut client = Client::open(plain());
    client.send_bytes(&frame);
    let connected = client.next();
    assert_eq!(
        connected["connect"]["subs"]
            .as_object()
            .map(serde_json::Map::len),
        Some(16),
        "{connected}"
    );
    for id in 2..50 {
        assert_eq!(client.reply(id)["subscribe"], json!({}));
    }
    assert_eq!(client.pending(), Vec::<Value>::new());
}

#[test]
fn c07_frame_that_is_cut_off_answers_what_is_whole_then_closes_with_3501() {
    let whole = unsubscribe(2);
    for cut in 1..whole.len() {
        let mut client = Client::anonymous(plain());
        client.send_bytes(&[&whole, &whole[..cut]].concat());
        client.ends_with(3501);
        assert_eq!(client.unread(), [json!({ "id": 2, "unsubscribe": {} })]);
    }
}

#[test]
fn c08_empty_and_undecodable_frames_close_with_3501() {
    let frames: [&[u8]; 8] = [
        b"",
        b"\x05\x08\x01\x22\x00", // shorter than its length says
        b"\x80",                 // a length without an end
        b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", // a length of eleven bytes
        b"\x04\x08\x01\x20\x00", // connect as a number
        b"\x07\x08\x01\x22\x03\x0a\x01\xff", // a token that is no text
        b"\x02\x08\x01",         // no part
        b"{\"id\":1,\"connect\":{}}", // JSON
    ];
    for frame in frames {
        let mut client = Client::open(plain());
        client.send_bytes(frame);
        let ended = client.ended();
        assert_eq!(ended.code, 3501, "{frame:02x?}: {ended:?}");
    }
}

#[test]
fn c08_too_deep_a_filter_closes_with_3501() {
    let mut filter = json!({ "key": "k", "cmp": "ex" });
    for _ in 0..40 {
        filter = json!({ "op": "not", "nodes": [filter] });
    }
    let mut client = Client::anonymous(plain());
    client.send("subscribe", &json!({ "channel": "c08", "tf": filter }));
    client.ends_with(3501);
}

#[test]
fn c10_unknown_fields_are_skipped_and_newest_ones_accepted() {
    let mut client = Client::open(plain());
    let newest = json!({
        "id": 1, "connect": { "name": "js", "flag": 1, "dict": "d", "profile": "p", "headers": { "a": "b" } }
    });
    let mut message = encode("Command", &newest);
    message.extend(b"\xa0\x06\x01\xa3\x06\x08\x01\xa4\x06\xaa\x06\x03xyz");
    let mut frame = Vec::new();
    delimit(&mut frame, &message);
    client.send_bytes(&frame);
    assert!(client.reply(1)["connect"]["client"].is_string());
    let request =
        json!({ "channel": "c10", "flag": 1, "phase": 2, "cursor": "c", "limit": 5, "asc": true });
    client.send_text(&json!({ "id": 2, "subscribe": request }).to_string());
    assert_eq!(client.reply(2)["subscribe"], json!({}));
}

#[test]
fn c12_message_above_the_limit_closes_with_1009() {
    let publish = |fill: usize| {
        let data = "x".repeat(fill);
        command(&json!({ "id": 2, "publish": { "channel": "open:c12", "data": data } }))
    };
    let around = publish(60_000).len() - 60_000;
    let mut client = Client::anonymous(plain());
    client.send_bytes(&publish(65_536 - around));
    assert_eq!(client.reply(2)["publish"], json!({}));
    client.send_bytes(&publish(65_537 - around));
    assert_eq!(client.ended().code, 1009);
}

#[test]
fn c16_pong_is_one_zero_byte() {
    let mut client = Client::anonymous(quick());
    client.answers_pings = false;
    client.ping();
    client.send_bytes(b"\0");
    client.answers_pings = true;
    client.ping();
    assert_eq!(client.pending(), Vec::<Value>::new(), "still connected");
    let mut client = Client::anonymous(plain());
    client.send_bytes(b"\0");
    client.ends_with(3501);
}
