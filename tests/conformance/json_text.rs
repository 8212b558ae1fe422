//! Checks 5 – 12 where they are about JSON text: lines, names, values. `protobuf_bytes` has the like for Protobuf.

use serde_json::{Value, json};

use crate::servers::plain;
use crate::support::client::{Client, PATH, tcp, upgrade_over};
use crate::support::http::Http;

fn subscribe(id: u64, channel: &str) -> Value {
    json!({ "id": id, "subscribe": { "channel": channel } })
}

#[test]
fn c05_unknown_subprotocol_gets_json_and_no_protocol_header() {
    let mut http = Http::open(plain().listen);
    let response = http.get(
        PATH,
        &[
            ("Connection", "Upgrade"),
            ("Upgrade", "websocket"),
            ("Sec-WebSocket-Version", "13"),
            ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
            ("Sec-WebSocket-Protocol", "chat.v7, mqtt"),
        ],
    );
    assert_eq!(response.status, 101);
    assert_eq!(
        response.header("Sec-WebSocket-Accept"),
        Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")
    );
    assert_eq!(response.header("Sec-WebSocket-Protocol"), None);
    let client = Client::from_http(http).connect(&json!({}));
    assert!(!client.id.is_empty());
}

#[test]
fn c05_offered_json_subprotocol_is_echoed() {
    let socket = upgrade_over(
        tcp(plain().listen),
        PATH,
        &[("Sec-WebSocket-Protocol", "centrifuge-json")],
    );
    let client = Client::over(socket.expect("the library checks the echo")).connect(&json!({}));
    assert!(!client.id.is_empty());
}

#[test]
fn c07_trailing_newline_is_accepted() {
    let mut client = Client::open(plain());
    client.send_text("{\"id\":1,\"connect\":{}}\n");
    assert!(client.reply(1)["connect"]["client"].is_string());
    client.send_text(" {\"id\":2,\"unsubscribe\":{\"channel\":\"c07\"}} \r\n{\"id\":3,\"unsubscribe\":{\"channel\":\"c07\"}}\r\n");
    assert_eq!(client.reply(2)["unsubscribe"], json!({}));
    assert_eq!(
        client.reply(3)["unsubscribe"],
        json!({}),
        "CRLF and surrounding spaces are accepted"
    );
    assert_eq!(client.pending(), Vec::<Value>::new());
}

#[test]
fn c07_blank_line_inside_a_frame_closes_with_3501() {
    let mut client = Client::anonymous(plain());
    client.send_text(&format!(
        "{}\n\n{}",
        subscribe(2, "c07-a"),
        subscribe(3, "c07-b")
    ));
    client.ends_with(3501);
}

#[test]
fn c07_two_trailing_newlines_answer_the_commands_then_close_with_3501() {
    let mut client = Client::anonymous(plain());
    client.send_text(&format!("{}\n\n", subscribe(2, "c07-c")));
    client.ends_with(3501);
    assert_eq!(client.unread(), [json!({ "id": 2, "subscribe": {} })]);
}

#[test]
fn c08_empty_and_undecodable_frames_close_with_3501() {
    for text in [
        "",
        "\n",
        "x",
        "{",
        "[]",
        "1",
        "null",
        "\"text\"",
        r#"{"id":-1,"connect":{}}"#,
        r#"{"id":"7","connect":{}}"#,
        r#"{"id":4294967296,"connect":{}}"#,
    ] {
        let mut client = Client::open(plain());
        client.send_text(text);
        let ended = client.ended();
        assert_eq!(ended.code, 3501, "{text:?}: {ended:?}");
    }
}

#[test]
fn c08_wrong_type_inside_a_command_closes_with_3501() {
    for text in [
        r#"{"id":2,"subscribe":[]}"#,
        r#"{"id":2,"subscribe":{"channel":7}}"#,
        r#"{"id":2,"publish":{"channel":"a","data":{]}}"#,
        r#"{"id":2}"#,
    ] {
        let mut client = Client::anonymous(plain());
        client.send_text(text);
        let ended = client.ended();
        assert_eq!(ended.code, 3501, "{text:?}: {ended:?}");
    }
}

#[test]
fn c10_unknown_fields_and_null_parts_are_ignored() {
    let mut client = Client::open(plain());
    client.send_text(r#"{"id":1,"flavour":{"deep":[1,{"a":"}"}]},"connect":{"name":"js","flag":1,"headers":{"a":"b"},"later":null},"subscribe":null}"#);
    assert!(client.reply(1)["connect"]["client"].is_string());
    client.send_text(
        r#"{"ID":2,"Subscribe":{"Channel":"c10","flag":1,"positioned":false,"later":[]}}"#,
    );
    assert_eq!(
        client.reply(2)["subscribe"],
        json!({}),
        "field names match in any case"
    );
}

#[test]
fn c12_message_above_the_limit_closes_with_1009() {
    let mut client = Client::anonymous(plain());
    let fill = "x".repeat(
        65_536
            - json!({ "id": 2, "publish": { "channel": "open:c12", "data": "" } })
                .to_string()
                .len(),
    );
    client.publish("open:c12", &json!(fill));
    client.send(
        "publish",
        &json!({ "channel": "open:c12", "data": format!("{fill}x") }),
    );
    assert_eq!(client.ended().code, 1009);
}
