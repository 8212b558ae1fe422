//! Check 13, and what else `permessage-deflate` promises.

use serde_json::{Value, json};
use tungstenite::protocol::frame::coding::Data;

use crate::support::client::{Client, PATH};
use crate::support::deflate::{Peer, handshake};
use crate::support::process::{Server, Start, config};

const OFFER: &str = "permessage-deflate; client_max_window_bits";
const AGREED: &str = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";
const INSECURE: &str = "[client]\ninsecure = true\n";

fn server(websocket: &str) -> Server {
    Server::start(&config(&format!(
        "{INSECURE}[websocket]\ncompression = true\n{websocket}\n"
    )))
}

fn connected(server: &Server) -> Peer {
    let mut peer = Peer::open(server.listen, PATH, OFFER);
    assert_eq!(peer.extensions.as_deref(), Some(AGREED));
    peer.send_json(&json!({ "id": 1, "connect": {} }));
    assert_eq!(peer.next_json().0["id"], 1);
    peer
}

fn subscribed(server: &Server, channel: &str) -> Peer {
    let mut peer = connected(server);
    peer.send_json(&json!({ "id": 2, "subscribe": { "channel": channel } }));
    assert_eq!(peer.next_json().0["id"], 2);
    peer
}

/// A connect command of this many bytes.
fn padded(len: usize) -> Vec<u8> {
    let command = r#"{"id":1,"connect":{}}"#;
    let mut bytes = command.as_bytes().to_vec();
    bytes.resize(len, b' ');
    bytes
}

#[test]
fn c13_small_compressed_frame_that_inflates_over_ten_times_the_limit_closes_with_1009() {
    let server = server("message_size_limit = 1000");
    for path in [PATH.to_owned(), format!("{PATH}?cf_protocol=protobuf")] {
        let mut peer = Peer::open(server.listen, &path, OFFER);
        let bomb = peer.deflated(&padded(10_001));
        assert!(bomb.len() < 100);
        peer.send(Data::Binary, true, true, &bomb);
        assert_eq!(peer.closed_with(), Some(1009), "{path}");
    }

    let mut peer = Peer::open(server.listen, PATH, OFFER);
    peer.send_deflated(Data::Text, &padded(10_000));
    assert_eq!(peer.next_json().0["id"], 1, "ten times the limit is in it");

    let mut peer = Peer::open(server.listen, PATH, OFFER);
    let bomb = peer.deflated(&vec![b' '; 64 << 20]);
    for (at, piece) in bomb.chunks(900).take(2).enumerate() {
        let opcode = if at == 0 { Data::Text } else { Data::Continue };
        peer.send(opcode, false, at == 0, piece);
    }
    assert_eq!(
        peer.closed_with(),
        Some(1009),
        "what is sent has its own limit, in all fragments together"
    );
}

#[test]
fn limit_of_inflated_messages_can_be_set() {
    let server = server("message_size_limit = 1000\ndecompressed_message_size_limit = 2000");
    let mut peer = Peer::open(server.listen, PATH, OFFER);
    peer.send_deflated(Data::Text, &padded(2001));
    assert_eq!(peer.closed_with(), Some(1009));
    let mut peer = Peer::open(server.listen, PATH, OFFER);
    peer.send_deflated(Data::Text, &padded(2000));
    assert_eq!(peer.next_json().0["id"], 1);
}

#[test]
fn commands_behind_a_connect_that_waits_may_be_longer_than_a_message_on_the_wire() {
    let config = config(&format!(
        "{INSECURE}[client.subscribe_to_user_personal_channel]\nenabled = true\n[websocket]\ncompression = true\nmessage_size_limit = 1000\n"
    ));
    let server = Start::with_config(&config).shards(2).run();
    let mut peer = Peer::open(server.listen, PATH, OFFER);
    let publish = json!({ "id": 2, "publish": { "channel": "c", "data": "x".repeat(5000) } });
    let commands = format!("{}\n{publish}", json!({ "id": 1, "connect": {} }));
    peer.send_deflated(Data::Text, commands.as_bytes());
    let mut ids = Vec::new();
    while ids.len() < 2 {
        let frame = peer.next().expect("replies");
        assert!(frame.close_code().is_none(), "{frame:?}");
        for line in frame.payload.split(|&byte| byte == b'\n') {
            let reply: Value = serde_json::from_slice(line).expect("JSON");
            ids.extend(reply["id"].as_u64());
        }
    }
    assert_eq!(ids, [1, 2]);
}

#[test]
fn deflate_is_off_unless_it_is_configured() {
    let server = Server::start(&config(INSECURE));
    let (_, status, extensions) = handshake(server.listen, PATH, &[OFFER]);
    assert_eq!((status, extensions), (101, None));
    let mut peer = Peer::open(server.listen, PATH, OFFER);
    peer.send_deflated(Data::Text, &padded(100));
    assert_eq!(peer.closed_with(), Some(1002), "nothing was agreed on");
}

#[test]
fn offers_are_answered_as_the_rfc_says() {
    let server = server("");
    let answer = |offers: &[&str]| {
        let (_, status, extensions) = handshake(server.listen, PATH, offers);
        (status, extensions)
    };
    let agreed = || (101, Some(AGREED.to_owned()));
    assert_eq!(answer(&[]), (101, None));
    assert_eq!(answer(&["permessage-deflate"]), agreed());
    assert_eq!(answer(&["x-other", "permessage-deflate"]), agreed());
    assert_eq!(
        answer(&["permessage-deflate; server_max_window_bits=10"]),
        (101, None)
    );
    assert_eq!(
        answer(&["permessage-deflate; server_max_window_bits=10, permessage-deflate"]),
        agreed()
    );
    assert_eq!(answer(&["permessage-deflate; x"]), (101, None));
    assert_eq!(answer(&["permessage-deflate; ="]), (400, None));
}

#[test]
fn mixed_audience_gets_the_same_and_compressed_frames_are_smaller() {
    let server = server("");
    let mut deflated = [subscribed(&server, "mixed"), subscribed(&server, "mixed")];
    let mut plain = Client::anonymous(&server);
    plain.subscribe("mixed");
    for number in 0..50 {
        let data =
            json!({ "number": number, "text": "the same words again and again ".repeat(20) });
        server.api_result("publish", &json!({ "channel": "mixed", "data": data }));
    }
    for number in 0..50 {
        let wanted = plain.publication("mixed");
        assert_eq!(wanted["data"]["number"], number);
        for peer in &mut deflated {
            let (push, frame) = peer.next_json();
            assert_eq!(push["push"]["pub"], wanted);
            assert!(frame.rsv1 && frame.wire_len * 3 < frame.payload.len());
        }
    }
}

#[test]
fn protobuf_is_compressed_as_well() {
    let server = server("");
    let path = format!("{PATH}?cf_protocol=protobuf");
    let mut peer = Peer::open(server.listen, &path, OFFER);
    // Command { id: 1, connect: {} }, Command { id: 2, subscribe: { channel: "p" } }.
    peer.send_deflated(Data::Binary, &[4, 8, 1, 34, 0, 7, 8, 2, 42, 3, 10, 1, b'p']);
    let mut plain = Client::anonymous(&server);
    plain.subscribe("p");
    let data = json!("again ".repeat(50));
    let is_subscribed = |frame: &crate::support::deflate::Received| {
        // Reply { id: 2, … } stands in one of the first frames.
        frame.payload.windows(2).any(|bytes| bytes == [8, 2])
    };
    while !is_subscribed(&peer.next().expect("replies")) {}
    server.api_result("publish", &json!({ "channel": "p", "data": data }));
    plain.publication("p");
    let frame = peer.next().expect("a publication");
    assert!(frame.rsv1 && frame.wire_len < 100);
    let data = data.to_string();
    let holds = |bytes: &[u8]| {
        bytes
            .windows(data.len())
            .any(|part| part == data.as_bytes())
    };
    assert!(holds(&frame.payload), "{frame:?}");
}

#[test]
fn messages_below_the_minimum_and_those_that_do_not_shrink_go_out_as_they_are() {
    let server = server("compression_min_size = 400");
    let mut peer = subscribed(&server, "small");
    for (text, rsv1) in [("a".repeat(200), false), ("a".repeat(500), true)] {
        server.api_result("publish", &json!({ "channel": "small", "data": text }));
        let (push, frame) = peer.next_json();
        assert_eq!(
            (&push["push"]["pub"]["data"], frame.rsv1),
            (&json!(text), rsv1)
        );
    }
}

#[test]
fn compressed_commands_come_in_fragments_between_pings() {
    let server = server("");
    let mut peer = connected(&server);
    let publish = json!({ "id": 5, "publish": { "channel": "f", "data": "fragments" } });
    let payload = peer.deflated(publish.to_string().as_bytes());
    let (front, rest) = payload.split_at(3);
    peer.send(Data::Text, false, true, front);
    peer.send(Data::Continue, false, false, &[]);
    peer.send(Data::Continue, true, false, rest);
    assert_eq!(peer.next_json().0["id"], 5);
    // A message that is not compressed is as good.
    let plain = json!({ "id": 6, "publish": { "channel": "f", "data": 1 } });
    peer.send(Data::Text, true, false, plain.to_string().as_bytes());
    assert_eq!(peer.next_json().0["id"], 6);
}

#[test]
fn corrupt_message_closes_with_1007_and_disturbs_nobody() {
    let server = server("");
    let mut bystander = connected(&server);
    let mut peer = connected(&server);
    peer.send(Data::Text, true, true, &[0x07]);
    assert_eq!(peer.closed_with(), Some(1007));
    bystander.send_json(&json!({ "id": 2, "subscribe": { "channel": "c" } }));
    assert_eq!(bystander.next_json().0["id"], 2);
}

#[test]
fn rsv1_on_a_continuation_closes_with_1002() {
    let server = server("");
    let mut peer = connected(&server);
    peer.send(Data::Text, false, true, &[0xF2]);
    peer.send(Data::Continue, true, true, &[0x48]);
    assert_eq!(peer.closed_with(), Some(1002));
}
