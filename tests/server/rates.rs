//! How fast one connection may send: commands beyond the rate get an error that says when to come again, bytes beyond the rate wait.

use serde_json::{Value, json};

use crate::support::client::Client;
use crate::support::http::Http;
use crate::support::process::{Server, Start, config};
use crate::support::stream::{Shape, Stream};
use crate::support::wait;

fn text(client: &str) -> String {
    config(&format!(
        r#"
[client]
insecure = true
{client}

[http_stream]
enabled = true

[sse]
enabled = true

[poll]
enabled = true
"#
    ))
}

fn server(client: &str) -> Server {
    Start::with_config(&text(client)).shards(2).run()
}

/// What a reply is refused with: code and when to come again.
fn refusal(reply: &Value) -> Option<(u64, u64)> {
    let error = reply.get("error")?;
    Some((error["code"].as_u64()?, error["retry_after_ms"].as_u64()?))
}

fn is_in_a_second(refusal: Option<(u64, u64)>) -> bool {
    matches!(refusal, Some((111, 1..=1000)))
}

#[test]
fn commands_beyond_the_rate_are_told_when_to_come_again_whatever_carries_them() {
    let server = server("command_rate = 1\ncommand_burst = 3");
    let publish = json!({ "channel": "news", "data": 1 });
    let mut client = Client::anonymous(&server);
    let ids: Vec<u64> = (0..4).map(|_| client.send("publish", &publish)).collect();
    let replies: Vec<Value> = ids.into_iter().map(|id| client.reply(id)).collect();
    assert!(
        replies[..2]
            .iter()
            .all(|reply| reply.get("error").is_none())
    );
    assert!(is_in_a_second(refusal(&replies[3])), "{}", replies[3]);
    for shape in [Shape::Lines, Shape::Events] {
        let mut stream = Stream::connect(&server, shape, &json!({}));
        let replies: Vec<Value> = (0..4).map(|_| stream.call("publish", &publish)).collect();
        assert!(replies[0].get("error").is_none(), "{}", replies[0]);
        let refused = replies.iter().map(refusal).find(Option::is_some).flatten();
        assert!(is_in_a_second(refused), "{replies:?}");
    }
    // Each poll is one, for the connection that brings it.
    let mut http = Http::open(server.listen);
    let mut poll = || http.get("/connection/poll?channel=news&timeout=0s", &[]);
    let statuses: Vec<u16> = (0..8).map(|_| poll().status).collect();
    assert_eq!(statuses[..3], [200; 3]);
    assert!(statuses.contains(&429), "{statuses:?}");
    assert!(server.metric("ringmain_commands_too_fast_total") >= 4.0);
    // Another one has all of its own, and a reload counts at once.
    let mut other = Client::anonymous(&server);
    other.publish("news", &json!(1));
    server.write_config(&text("command_rate = 0"));
    server.signal("HUP");
    wait::until("the reload", || {
        let reply = client.call("publish", &publish);
        reply.get("error").is_none().then_some(())
    });
    let ids: Vec<u64> = (0..50).map(|_| client.send("publish", &publish)).collect();
    for id in ids {
        assert!(client.reply(id).get("error").is_none());
    }
}

#[test]
fn bytes_beyond_the_rate_wait_in_the_socket_and_nothing_is_lost() {
    let server = server(
        "input_rate = 400000\ninput_burst = 100000\nping_interval = \"1s\"\npong_timeout = \"500ms\"",
    );
    let mut bystander = Client::anonymous(&server);
    let mut client = Client::anonymous(&server);
    let publish = json!({ "channel": "news", "data": "x".repeat(10_000) });
    let began = wait::now();
    let ids: Vec<u64> = (0..80).map(|_| client.send("publish", &publish)).collect();
    bystander.publish("news", &json!(1));
    for id in ids {
        let reply = client.reply(id);
        assert!(reply.get("error").is_none(), "{reply}");
    }
    // What came before is paid for before what comes next is read.
    let last = client.call("publish", &publish);
    assert!(last.get("error").is_none(), "{last}");
    assert!(began.elapsed().as_millis() >= 1700, "{:?}", began.elapsed());
    assert!(server.metric("ringmain_input_slowed_total") >= 1.0);
    // Services are not slowed down.
    let began = server.metric("ringmain_input_slowed_total");
    let large = json!({ "channel": "news", "data": "x".repeat(50_000) });
    for _ in 0..10 {
        server.api_result("publish", &large);
    }
    assert!(server.metric("ringmain_input_slowed_total") <= began);
}
