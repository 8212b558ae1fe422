//! Check 21: payloads that are no JSON, where JSON and Protobuf clients meet.

use serde_json::{Value, json};

use crate::servers::plain;
use crate::support::client::{Client, Encoding};
use crate::support::token::sign;

/// Bytes that are no JSON, as the server API and tokens take them and as the JSON view of the tests shows them.
const BASE64: &str = "AAH/eyI=";

fn bytes() -> Value {
    json!({ "$bytes": "0001ff7b22" })
}

fn json_client() -> Client {
    Client::open_as(plain(), Encoding::Json).connect(&json!({}))
}

fn publish_bytes(channel: &str) {
    plain().api_result("publish", &json!({ "channel": channel, "b64data": BASE64 }));
}

fn publish(channel: &str, data: &Value) {
    plain().api_result("publish", &json!({ "channel": channel, "data": data }));
}

#[test]
fn c21_binary_publication_drops_json_subscribers_and_reaches_protobuf_ones_intact() {
    let mut text = json_client();
    let mut binary = Client::anonymous(plain());
    let mut bystander = json_client();
    text.subscribe("c21");
    binary.subscribe("c21");
    bystander.subscribe("c21-other");
    publish("c21", &json!({ "n": 1 }));
    publish_bytes("c21");
    publish("c21", &json!({ "n": 2 }));

    text.ends_with(3506);
    let before: Vec<Value> = text.unread();
    assert_eq!(before.len(), 1, "what came before it: {before:?}");
    assert_eq!(before[0]["push"]["pub"]["data"], json!({ "n": 1 }));

    for data in [json!({ "n": 1 }), bytes(), json!({ "n": 2 })] {
        assert_eq!(binary.publication("c21")["data"], data);
    }
    assert_eq!(bystander.pending(), Vec::<Value>::new());
}

#[test]
fn c21_protobuf_client_publishes_any_bytes() {
    let mut text = json_client();
    let mut binary = Client::anonymous(plain());
    text.subscribe("open:c21");
    binary.subscribe("open:c21");
    binary.publish("open:c21", &json!({ "is": ["json"] }));
    assert_eq!(
        text.publication("open:c21")["data"],
        json!({ "is": ["json"] }),
        "JSON of a Protobuf client is JSON"
    );
    binary.publish("open:c21", &bytes());
    text.ends_with(3506);
    assert_eq!(
        binary.publication("open:c21")["data"],
        json!({ "is": ["json"] })
    );
    assert_eq!(binary.publication("open:c21")["data"], bytes());
}

#[test]
fn c21_publication_of_a_json_client_reaches_protobuf_subscribers() {
    let mut text = json_client();
    let mut binary = Client::anonymous(plain());
    binary.subscribe("open:c21-text");
    text.publish("open:c21-text", &json!({ "a": [1, null, "é"] }));
    let publication = binary.publication("open:c21-text");
    assert_eq!(publication["data"], json!({ "a": [1, null, "é"] }));
    assert_eq!(publication["info"]["client"], text.id);
}

#[test]
fn c21_history_with_binary_payloads_drops_a_json_client_and_reaches_a_protobuf_one() {
    let channel = "kept:c21-history";
    publish(channel, &json!(1));
    publish_bytes(channel);
    let request = json!({ "channel": channel, "limit": 10 });
    let mut text = json_client();
    assert_eq!(
        text.ok("history", &json!({ "channel": channel, "limit": 1 }))["publications"][0]["data"],
        1,
        "a page that is JSON is answered"
    );
    text.send("history", &request);
    text.ends_with(3506);
    let page = Client::anonymous(plain()).ok("history", &request);
    assert_eq!(page["publications"][1]["data"], bytes(), "{page}");
}

#[test]
fn c21_recovered_binary_payloads_drop_a_json_client_and_reach_a_protobuf_one() {
    let channel = "kept:c21-recovery";
    publish(channel, &json!(1));
    let epoch = plain().api_result("history", &json!({ "channel": channel }))["epoch"].clone();
    publish_bytes(channel);
    let request = json!({
        "channel": channel, "recoverable": true, "recover": true, "epoch": epoch, "offset": 1,
    });
    let mut text = json_client();
    text.send("subscribe", &request);
    text.ends_with(3506);
    let result = Client::anonymous(plain()).ok("subscribe", &request);
    assert_eq!(result["recovered"], true, "{result}");
    assert_eq!(result["publications"][0]["data"], bytes(), "{result}");
}

#[test]
fn c21_binary_info_is_seen_by_protobuf_clients_and_left_out_for_json_ones() {
    let channel = "joins:c21-info";
    let mut text = json_client();
    let mut binary = Client::anonymous(plain());
    text.subscribe(channel);
    binary.subscribe(channel);
    let token = sign(&json!({ "sub": "21", "b64info": BASE64 }));
    let mut client = Client::with_token(plain(), &token);
    client.subscribe(channel);

    let joined = |other: &mut Client, id: &str| loop {
        let info = other.push()["join"]["info"].take();
        if info["client"] == *id {
            return info;
        }
    };
    let info = joined(&mut binary, &client.id);
    assert_eq!(info["conn_info"], bytes(), "{info}");
    let info = joined(&mut text, &client.id);
    assert_eq!(info["user"], "21");
    assert_eq!(info.get("conn_info"), None, "{info}");
    let presence = text.ok("presence", &json!({ "channel": channel }));
    assert_eq!(
        presence["presence"][&client.id],
        json!({ "user": "21", "client": client.id })
    );
}

#[test]
fn c21_binary_data_of_a_subscription_goes_to_protobuf_clients_only() {
    let subs = json!({ "c21-data": { "b64data": BASE64 } });
    let token = sign(&json!({ "sub": "21", "subs": subs }));
    let client = Client::with_token(plain(), &token);
    assert_eq!(
        client.connected["subs"]["c21-data"]["data"],
        bytes(),
        "{}",
        client.connected
    );
    let mut text = Client::open_as(plain(), Encoding::Json);
    text.send("connect", &json!({ "token": token }));
    text.ends_with(3506);
}
