//! Commands of one connection are carried out and answered in order, on any number of shards, each with the rights of its place.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::backend::{Backend, Reply};
use crate::support::client::{Client, Encoding};
use crate::support::process::{Server, Start, config};
use crate::support::stream::{Shape, Stream};
use crate::support::wait::now;

fn server(shards: u32, client: &str) -> Server {
    let text = config(&format!(
        r#"
[client]
allow_anonymous_connect_without_token = true
channel_limit = 1000
{client}

[[channel.namespaces]]
name = "own"
presence = true
join_leave = true
force_push_join_leave = true
history_size = 400
history_ttl = "60s"
allow_subscribe_for_client = true
allow_subscribe_for_anonymous = true
allow_publish_for_subscriber = true
allow_publish_for_anonymous = true
allow_presence_for_subscriber = true
allow_presence_for_anonymous = true
allow_history_for_subscriber = true
allow_history_for_anonymous = true

[[channel.namespaces]]
name = "open"
allow_subscribe_for_client = true
allow_subscribe_for_anonymous = true
allow_publish_for_client = true
allow_publish_for_anonymous = true

[http_stream]
enabled = true
"#
    ));
    Start::with_config(&text).shards(shards).run()
}

const COUNTS_OF_SHARDS: [u32; 3] = [1, 2, 8];

/// The commands of one life in a channel, with ids from 2.
fn life(channel: &str) -> Vec<Value> {
    let named = json!({ "channel": channel });
    [
        ("subscribe", named.clone()),
        ("publish", json!({ "channel": channel, "data": 7 })),
        ("presence", named.clone()),
        ("history", json!({ "channel": channel, "limit": 10 })),
        ("presence_stats", named.clone()),
        ("unsubscribe", named.clone()),
        ("presence", named),
    ]
    .into_iter()
    .zip(2..)
    .map(|((part, request), id)| json!({ "id": id, part: request }))
    .collect()
}

fn lines(commands: &[Value]) -> String {
    let lines: Vec<String> = commands.iter().map(Value::to_string).collect();
    lines.join("\n")
}

/// What has to come for them, in this order.
fn check_life(channel: &str, client: &str, said: &[Value]) {
    let what: Vec<String> = said
        .iter()
        .map(|one| match one.get("push") {
            Some(push) if push.get("join").is_some() => "join".to_owned(),
            Some(push) if push.get("pub").is_some() => "pub".to_owned(),
            Some(push) => push.to_string(),
            None => one["id"].to_string(),
        })
        .collect();
    let wanted = ["2", "join", "pub", "3", "4", "5", "6", "7", "8"];
    assert_eq!(what, wanted, "{channel}: {said:?}");
    assert_eq!(said[1]["push"]["join"]["info"]["client"], client);
    assert_eq!(said[2]["push"]["pub"]["data"], 7);
    assert!(
        said[4]["presence"]["presence"].get(client).is_some(),
        "{said:?}"
    );
    let kept = said[5]["history"]["publications"].as_array().map(Vec::len);
    assert_eq!(kept, Some(1), "{said:?}");
    assert_eq!(said[6]["presence_stats"]["num_clients"], 1, "{said:?}");
    assert_eq!(said[8]["error"]["code"], 103, "{said:?}");
}

#[test]
fn frame_is_carried_out_and_answered_in_order_with_the_rights_of_each_place() {
    for shards in COUNTS_OF_SHARDS {
        let server = server(shards, "");
        for round in 0..40 {
            let channel = format!("own:{round}");
            let mut client = Client::open(&server);
            let mut commands = vec![json!({ "id": 1, "connect": {} })];
            commands.extend(life(&channel));
            client.send_text(&lines(&commands));
            let connected = client.next();
            let id = connected["connect"]["client"].as_str().expect("an id");
            let said: Vec<Value> = (0..9).map(|_| client.next()).collect();
            check_life(&channel, id, &said);
        }
    }
}

#[test]
fn frames_that_follow_one_another_are_in_order_too() {
    for shards in COUNTS_OF_SHARDS {
        let server = server(shards, "");
        let mut client = Client::anonymous(&server);
        let id = client.id.clone();
        for round in 0..40 {
            let channel = format!("own:{round}");
            for command in life(&channel) {
                client.send_text(&command.to_string());
            }
            let said: Vec<Value> = (0..9).map(|_| client.next()).collect();
            check_life(&channel, &id, &said);
        }
    }
}

#[test]
fn commands_of_an_emulated_client_are_in_order_too() {
    for shards in COUNTS_OF_SHARDS {
        let server = server(shards, "");
        for round in 0..10 {
            let channel = format!("own:{round}");
            let mut stream = Stream::connect(&server, Shape::Lines, &json!({}));
            let id = stream.connected["client"]
                .as_str()
                .expect("an id")
                .to_owned();
            stream.emulate(&lines(&life(&channel)));
            let said: Vec<Value> = (0..9).map(|_| stream.next()).collect();
            check_life(&channel, &id, &said);
        }
    }
}

#[test]
fn many_changes_of_mind_in_one_frame_end_as_the_last_one_says() {
    for shards in [1, 3, 8] {
        let server = server(shards, "");
        let mut client = Client::anonymous(&server);
        for round in 0..3 {
            let mut commands = Vec::new();
            for part in ["subscribe", "unsubscribe", "subscribe"] {
                for n in 0..300 {
                    let request = json!({ "channel": format!("own:{round}-{n}") });
                    commands.push(json!({ "id": 10_000 + commands.len(), part: request }));
                }
            }
            client.send_text(&lines(&commands));
            for id in 10_000..10_900 {
                let reply = loop {
                    let one = client.next();
                    if one.get("push").is_none() {
                        break one;
                    }
                };
                assert_eq!(reply["id"], id, "{shards} shards: {reply}");
                assert!(reply.get("error").is_none(), "{reply}");
            }
            for n in 0..300 {
                client.send(
                    "unsubscribe",
                    &json!({ "channel": format!("own:{round}-{n}") }),
                );
            }
            assert_eq!(client.error("rpc", &json!({ "method": "barrier" })), 108);
            client.unread();
        }
    }
}

#[test]
fn publications_to_many_owners_are_answered_in_order() {
    let server = server(8, "");
    let mut client = Client::anonymous(&server);
    for n in 0..16 {
        client.subscribe(&format!("own:{n}"));
    }
    let commands: Vec<Value> = (0..2000)
        .map(|n| {
            // Every tenth is refused on the spot.
            let channel = if n % 10 == 9 {
                "nowhere:x".to_owned()
            } else {
                format!("own:{}", n % 16)
            };
            json!({ "id": 10_000 + n, "publish": { "channel": channel, "data": n } })
        })
        .collect();
    for some in commands.chunks(500) {
        client.send_text(&lines(some));
    }
    let mut heard = std::collections::BTreeSet::new();
    let mut next = 0;
    while next < 2000 {
        let one = client.next();
        if let Some(publication) = one["push"].get("pub") {
            heard.insert(publication["data"].as_u64().expect("a number"));
            continue;
        }
        if one.get("push").is_some() {
            continue;
        }
        assert_eq!(one["id"], 10_000 + next, "{one}");
        if next % 10 == 9 {
            assert_eq!(one["error"]["code"], 102, "{one}");
        } else {
            assert!(
                heard.contains(&next),
                "the publication before its reply: {one}"
            );
        }
        next += 1;
    }
}

/// A backend whose first answer takes its time.
fn late_first(path: &'static str) -> Backend {
    Backend::start(move |asked| {
        let data = asked.body["data"].clone();
        if asked.path == path && data["n"] == 0 {
            let answer = Reply::result(json!({ "data": data }));
            return Reply::Late(Duration::from_millis(700), Box::new(answer));
        }
        Reply::result(json!({ "data": data }))
    })
}

fn hooked(backend: &Backend, concurrency: u32) -> Server {
    let address = backend.address;
    Server::start(&config(&format!(
        r#"
[client]
allow_anonymous_connect_without_token = true
concurrency = {concurrency}
[channel.without_namespace]
allow_subscribe_for_client = true
allow_subscribe_for_anonymous = true
[[channel.namespaces]]
name = "hooked"
subscribe_proxy_enabled = true
publish_proxy_enabled = true
[channel.proxy.subscribe]
endpoint = "http://{address}/subscribe"
[channel.proxy.publish]
endpoint = "http://{address}/publish"
[rpc.proxy]
endpoint = "http://{address}/rpc"
timeout = "10s"
[rpc.without_namespace]
proxy_enabled = true
"#
    )))
}

#[test]
fn call_to_a_backend_is_answered_before_what_follows_it() {
    let backend = late_first("/rpc");
    let server = hooked(&backend, 1);
    let mut client = Client::anonymous(&server);
    let mut other = Client::anonymous(&server);
    let ids = [
        client.send("rpc", &json!({ "method": "x", "data": { "n": 0 } })),
        client.send("rpc", &json!({ "method": "x", "data": { "n": 1 } })),
        client.send("subscribe", &json!({ "channel": "a" })),
        client.send("unsubscribe", &json!({ "channel": "a" })),
    ];
    assert_eq!(backend.asked().body["data"]["n"], 0);
    // Whoever does not wait for it is not held up.
    other.subscribe("a");
    assert!(backend.unread().is_empty(), "one call at a time");
    for id in ids {
        assert_eq!(client.next()["id"], id);
    }
}

#[test]
fn calls_of_a_concurrent_client_go_together_and_are_answered_in_order() {
    // No room is made before every call that goes at first is known.
    let backend = Backend::start(|asked| {
        let answer = Reply::result(json!({ "data": asked.body["data"] }));
        Reply::Late(Duration::from_millis(500), Box::new(answer))
    });
    let server = hooked(&backend, 3);
    let mut client = Client::anonymous(&server);
    let began = now();
    let ids: Vec<u64> = (0..6)
        .map(|n| client.send("rpc", &json!({ "method": "x", "data": { "n": n } })))
        .collect();
    let mut first: Vec<Value> = (0..3)
        .map(|_| backend.asked().body["data"]["n"].take())
        .collect();
    first.sort_by_key(Value::as_u64);
    assert_eq!(first, [0, 1, 2], "three at a time");
    for (n, id) in ids.into_iter().enumerate() {
        let reply = client.next();
        assert_eq!(
            (&reply["id"], &reply["rpc"]["data"]["n"]),
            (&json!(id), &json!(n))
        );
    }
    assert!(
        began.elapsed() >= Duration::from_millis(1000),
        "the last three went when the first three were over"
    );
}

#[test]
fn what_backends_decide_is_asked_together_and_carried_out_in_order() {
    let backend = late_first("/subscribe");
    let server = hooked(&backend, 1);
    let mut client = Client::anonymous(&server);
    let mut ids = Vec::new();
    for n in 0..3 {
        let request = json!({ "channel": format!("hooked:{n}"), "data": { "n": n } });
        ids.push(client.send("subscribe", &request));
    }
    for n in 0..3 {
        let request = json!({ "channel": format!("hooked:{n}"), "data": { "n": n } });
        ids.push(client.send("publish", &request));
    }
    for n in 0..3 {
        ids.push(client.send("unsubscribe", &json!({ "channel": format!("hooked:{n}") })));
    }
    for _ in 0..6 {
        backend.asked();
    }
    let mut published = 0;
    for id in ids {
        let reply = loop {
            let one = client.next();
            if one.get("push").is_none() {
                break one;
            }
            published += 1;
        };
        assert_eq!(reply["id"], id, "{reply}");
        assert!(reply.get("error").is_none(), "{reply}");
    }
    assert_eq!(published, 3, "its own publications, before it left");
}

#[test]
fn pong_counts_also_behind_commands_that_wait() {
    let backend = Backend::start(|_| {
        Reply::Late(
            Duration::from_secs(2),
            Box::new(Reply::result(json!({ "data": 1 }))),
        )
    });
    let server = Server::start(&config(&format!(
        r#"
[client]
allow_anonymous_connect_without_token = true
ping_interval = "1s"
pong_timeout = "300ms"
[rpc.proxy]
endpoint = "http://{}/rpc"
timeout = "10s"
[rpc.without_namespace]
proxy_enabled = true
"#,
        backend.address
    )));
    let mut client = Client::anonymous(&server);
    let first = client.send("rpc", &json!({ "method": "x" }));
    let second = client.send("rpc", &json!({ "method": "x" }));
    client.reply(first);
    client.reply(second);
    assert!(client.pings > 2, "{} pings", client.pings);
}

/// How a client that has said everything leaves.
#[derive(Clone, Copy, Debug)]
enum Leaves {
    WithCloseFrame,
    WithCloseFrameAndDeaf,
    HalfClosed,
}

/// Each of these texts as a message of its own, all of them in one write, and then the end.
fn say_and_leave(mut client: Client, texts: &[String], leaves: Leaves) -> Option<Client> {
    use Leaves::{HalfClosed, WithCloseFrame, WithCloseFrameAndDeaf};
    for text in texts {
        let message = tungstenite::Message::text(text.as_str());
        client.socket.write(message).expect("it is buffered");
    }
    match leaves {
        WithCloseFrame | WithCloseFrameAndDeaf => client.socket.close(None),
        HalfClosed => client.socket.flush(),
    }
    .expect("the server reads");
    if matches!(leaves, HalfClosed) {
        let stream = client.socket.get_ref();
        stream
            .shutdown(std::net::Shutdown::Write)
            .expect("it is open");
    }
    matches!(leaves, HalfClosed | WithCloseFrame).then_some(client)
}

/// The publications 0 to 299 come, in this order.
fn all_come(reader: &mut Client, channel: &str) {
    for n in 0..300 {
        assert_eq!(reader.publication(channel)["data"], n, "{channel}");
    }
}

#[test]
fn what_a_client_said_before_it_left_is_carried_out() {
    for shards in [1, 2] {
        let server = server(shards, "");
        let mut reader = Client::open_as(&server, Encoding::Json).connect(&json!({}));
        for leaves in [
            Leaves::WithCloseFrame,
            Leaves::WithCloseFrameAndDeaf,
            Leaves::HalfClosed,
        ] {
            let channel = format!("open:{leaves:?}");
            reader.subscribe(&channel);
            let client = Client::open_as(&server, Encoding::Json).connect(&json!({}));
            let texts: Vec<String> = (0..300)
                .map(|n| json!({ "id": 10 + n, "publish": { "channel": channel, "data": n } }))
                .map(|command| command.to_string())
                .collect();
            let left = say_and_leave(client, &texts, leaves);
            all_come(&mut reader, &channel);
            if let Some(mut left) = left {
                left.ended();
            }
        }
        let stream = Stream::connect(&server, Shape::Lines, &json!({}));
        reader.subscribe("open:stream");
        let commands: Vec<Value> = (0..300)
            .map(|n| json!({ "id": 10 + n, "publish": { "channel": "open:stream", "data": n } }))
            .collect();
        stream.emulate(&lines(&commands));
        drop(stream);
        all_come(&mut reader, "open:stream");
    }
}

#[test]
fn publication_that_a_backend_decides_about_outlives_its_publisher() {
    let backend = late_first("/publish");
    let server = hooked(&backend, 1);
    let mut reader = Client::open_as(&server, Encoding::Json).connect(&json!({}));
    reader.subscribe("hooked:a");
    for leaves in [Leaves::WithCloseFrame, Leaves::WithCloseFrameAndDeaf] {
        let client = Client::open_as(&server, Encoding::Json).connect(&json!({}));
        let publish = json!({ "channel": "hooked:a", "data": { "n": 0 } });
        let text = json!({ "id": 10, "publish": publish }).to_string();
        let left = say_and_leave(client, &[text], leaves);
        assert_eq!(reader.publication("hooked:a")["data"]["n"], 0);
        if let Some(mut left) = left {
            left.ended();
        }
    }
}

#[test]
fn crowd_that_publishes_at_once_is_refused_nothing() {
    let server = server(2, "");
    let mut crowd: Vec<Client> = (0..60).map(|_| Client::anonymous(&server)).collect();
    for (at, client) in crowd.iter_mut().enumerate() {
        client.subscribe(&format!("own:{at}"));
    }
    let before = server.metric("ringmain_refused_mesh_total");
    for (at, client) in crowd.iter_mut().enumerate() {
        let request = json!({ "channel": format!("own:{at}"), "data": 1 });
        let commands: Vec<Value> = (0..250)
            .map(|n| json!({ "id": 1000 + n, "publish": request }))
            .collect();
        client.send_text(&lines(&commands));
    }
    for client in &mut crowd {
        for id in 1000..1250 {
            let reply = client.reply(id);
            assert!(reply.get("error").is_none(), "{reply}");
        }
    }
    assert_eq!(server.metric("ringmain_refused_mesh_total"), before);
}
