//! Checks 1 – 20: the connection and its framing.

use std::time::Duration;

use serde_json::{Value, json};
use tungstenite::Message;

use crate::servers::{plain, quick};
use crate::support::client::{Client, PATH, tcp, upgrade_over};
use crate::support::process::{Server, config};
use crate::support::wait::now;

fn subscribe(id: u64, channel: &str) -> Value {
    json!({ "id": id, "subscribe": { "channel": channel } })
}

#[test]
fn c01_insecure_server_connects_without_origin_and_token() {
    let server = Server::start(&config("[client]\ninsecure = true\n"));
    let mut client = Client::open(&server);
    client.send_text(r#"{"id":1,"connect":{}}"#);
    let reply = client.next();
    assert_eq!(reply["id"], 1);
    let id = reply["connect"]["client"].as_str().expect("a client id");
    assert_eq!(id.len(), 36, "{id} is a UUID");
    assert!(
        reply["connect"]["version"]
            .as_str()
            .is_some_and(|version| !version.is_empty()),
        "{reply}"
    );
    assert_eq!(reply["connect"]["ping"], 25);
    assert_eq!(reply["connect"]["pong"], true);
    assert!(reply["connect"].get("expires").is_none(), "{reply}");

    client.subscribe("anything");
    client.publish("anything", &json!(1));
    let publication = client.publication("anything");
    assert_eq!(publication["data"], 1, "insecure allows everything");
}

#[test]
fn c02_origin_is_refused_with_403_unless_a_glob_matches() {
    let no_origins = Server::start(&config("[client]\ninsecure = true\n"));
    let status = |server: &Server, origin: &str| {
        upgrade_over(tcp(server.listen), PATH, &[("Origin", origin)])
            .map(|_| 101)
            .unwrap_or_else(|status| status)
    };
    assert_eq!(
        status(&no_origins, "https://app.example.com"),
        403,
        "an empty list refuses browsers"
    );
    assert_eq!(status(plain(), "https://app.example.com"), 101);
    assert_eq!(
        status(plain(), "https://a.b.example.com"),
        101,
        "a star matches dots"
    );
    assert_eq!(
        status(plain(), "HTTPS://APP.EXAMPLE.COM"),
        101,
        "the origin is compared in lower case"
    );
    assert_eq!(status(plain(), "https://example.com"), 403);
    assert_eq!(status(plain(), "http://app.example.com"), 403);
    assert_eq!(status(plain(), "https://app.example.com.evil.org"), 403);
}

#[test]
fn c06_connect_and_three_subscribes_in_one_frame_answer_in_order() {
    let mut client = Client::open(plain());
    let commands = [
        json!({ "id": 1, "connect": { "name": "js" } }),
        subscribe(2, "c06-a"),
        subscribe(3, "c06-b"),
        subscribe(4, "nowhere:c06"),
    ];
    client.send_text(&commands.map(|command| command.to_string()).join("\n"));
    assert!(
        client.next()["connect"]["client"].is_string(),
        "connect is answered first"
    );
    assert_eq!(client.reply(2)["subscribe"], json!({}));
    assert_eq!(client.reply(3)["subscribe"], json!({}));
    assert_eq!(client.reply(4)["error"]["code"], 102);
}

#[test]
fn c09_command_before_connect_closes_with_3501() {
    for part in [
        "subscribe",
        "unsubscribe",
        "publish",
        "presence",
        "presence_stats",
        "history",
        "rpc",
        "refresh",
        "sub_refresh",
    ] {
        let mut client = Client::open(plain());
        client.send(part, &json!({ "channel": "c09", "data": {}, "token": "x" }));
        let ended = client.ended();
        assert_eq!(ended.code, 3501, "{part}: {ended:?}");
    }
}

#[test]
fn c10_second_connect_closes_with_3501() {
    let mut client = Client::anonymous(plain());
    client.send("connect", &json!({}));
    client.ends_with(3501);
}

#[test]
fn c10_send_closes_with_3508_and_ping_with_id_with_3501() {
    let mut client = Client::anonymous(plain());
    client.send_text(r#"{"send":{"data":{}}}"#);
    client.ends_with(3508);
    let mut client = Client::anonymous(plain());
    client.send_text(r#"{"id":2,"ping":{}}"#);
    client.ends_with(3501);
}

#[test]
fn c10_empty_channel_closes_with_3501() {
    for part in [
        "subscribe",
        "unsubscribe",
        "publish",
        "presence",
        "presence_stats",
        "history",
        "sub_refresh",
    ] {
        for request in [
            json!({ "data": {}, "token": "x" }),
            json!({ "channel": "", "data": {}, "token": "x" }),
        ] {
            let mut client = Client::anonymous(plain());
            client.send(part, &request);
            let ended = client.ended();
            assert_eq!(ended.code, 3501, "{part} {request}: {ended:?}");
        }
    }
}

#[test]
fn c11_silent_connection_closes_with_3502() {
    let mut client = Client::open(quick());
    let opened = now();
    client.ends_with(3502);
    assert!(
        opened.elapsed() > Duration::from_millis(800),
        "not before the stale delay"
    );
}

#[test]
fn c12_limit_counts_the_message_not_the_frame() {
    use tungstenite::protocol::frame::Frame;
    use tungstenite::protocol::frame::coding::{Data, OpCode};
    let mut client = Client::anonymous(plain());
    client.send_frame(Frame::message(
        vec![b' '; 40_000],
        OpCode::Data(Data::Text),
        false,
    ));
    client.send_frame(Frame::message(
        vec![b' '; 40_000],
        OpCode::Data(Data::Continue),
        false,
    ));
    assert_eq!(client.ended().code, 1009);
}

#[test]
fn c14_server_pings_and_a_client_that_answers_stays_connected() {
    let mut client = Client::anonymous(quick());
    assert_eq!(client.connected["ping"], 2);
    assert_eq!(client.connected["pong"], true);
    let connected = now();
    client.ping();
    assert!(
        connected.elapsed() < Duration::from_secs(4),
        "the first ping comes within the interval"
    );
    client.ping();
    client.ping();
    assert_eq!(
        client.pending(),
        Vec::<Value>::new(),
        "still connected after three pings"
    );
}

#[test]
fn c15_client_that_never_answers_closes_with_3012() {
    let mut client = Client::anonymous(quick());
    client.answers_pings = false;
    client.ping();
    client.ends_with(3012);
}

#[test]
fn c15_other_commands_are_no_pong() {
    let mut client = Client::anonymous(quick());
    client.answers_pings = false;
    client.ping();
    client.ok("unsubscribe", &json!({ "channel": "c15" }));
    client.ends_with(3012);
}

#[test]
fn c16_unsolicited_pong_closes_with_3501() {
    let mut client = Client::anonymous(plain());
    client.send_text("{}");
    client.ends_with(3501);
}

#[test]
fn c16_second_pong_for_one_ping_closes_with_3501() {
    let mut client = Client::anonymous(quick());
    client.ping();
    client.send_text("{}");
    client.ends_with(3501);
}

#[test]
fn c17_subscribe_without_id_closes_with_3501() {
    let mut client = Client::anonymous(plain());
    client.send_text(r#"{"subscribe":{"channel":"c17"}}"#);
    client.ends_with(3501);
}

#[test]
fn c18_frame_ping_pong_replaces_application_pings() {
    let path = format!("{PATH}?cf_ws_frame_ping_pong=true");
    let mut client = Client::open_with(quick(), &path, &[]).connect(&json!({}));
    assert!(
        client.connected.get("ping").is_none(),
        "{}",
        client.connected
    );
    assert!(
        client.connected.get("pong").is_none(),
        "{}",
        client.connected
    );
    for _ in 0..2 {
        match client.socket.read() {
            Ok(Message::Ping(_)) => client.socket.flush().expect("the library's pong is sent"),
            other => panic!("a WebSocket ping is due: {other:?}"),
        }
    }
    assert_eq!(client.pending(), Vec::<Value>::new(), "still connected");
}

#[test]
fn c19_every_server_close_carries_a_reason() {
    // `ends_with` refuses an empty reason and one that is JSON, as SDKs need.
    let reason = |text: &str| {
        let mut client = Client::anonymous(plain());
        client.send_text(text);
        client.ended()
    };
    for text in [
        "",
        "{}",
        r#"{"send":{"data":1}}"#,
        r#"{"id":1,"connect":{}}"#,
        r#"{"id":2,"refresh":{}}"#,
    ] {
        let ended = reason(text);
        assert!((3000..5000).contains(&ended.code), "{text:?}: {ended:?}");
        assert!(
            !ended.reason.is_empty() && ended.reason.len() <= 123,
            "{text:?}: {ended:?}"
        );
        assert!(
            serde_json::from_str::<Value>(&ended.reason).is_err(),
            "{text:?}: {ended:?}"
        );
    }
}

#[test]
fn c19_close_of_the_client_is_answered() {
    let mut client = Client::anonymous(plain());
    client.socket.close(None).expect("the close frame is sent");
    loop {
        match client.socket.read() {
            Ok(Message::Close(_)) => {}
            Ok(other) => panic!("nothing but the close: {other:?}"),
            Err(tungstenite::Error::ConnectionClosed) => break,
            Err(other) => panic!("a clean end: {other}"),
        }
    }
}

#[test]
fn c20_raw_newlines_inside_a_payload_reach_the_subscriber_as_one_line() {
    let mut client = Client::anonymous(plain());
    client.subscribe("c20");
    let pretty = "{\n  \"text\": \"a\\nb\",\r\n\t\"list\": [\n1,\r2 ]\n}";
    let body = format!("{{\"channel\":\"c20\",\"data\":{pretty}}}");
    assert_eq!(plain().api_response("publish", &body).status, 200);
    let publication = client.publication("c20");
    assert_eq!(
        publication["data"],
        json!({ "text": "a\nb", "list": [1, 2] })
    );

    client.subscribe("open:c20");
    client.send_text("{\"id\":77,\"publish\":{\"channel\":\"open:c20\",\"data\":{\"a\":\r1}}}");
    assert_eq!(client.publication("open:c20")["data"], json!({ "a": 1 }));
}
