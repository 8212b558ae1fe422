//! Who is in a channel, however many: counts, pages, and joins and leaves of a crowd that cost a subscriber little.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::support::client::{Client, Encoding};
use crate::support::process::{Server, Start, config};

const RULES: &str = r#"
[client]
allow_anonymous_connect_without_token = true

[[channel.namespaces]]
name = "hall"
presence = true
join_leave = true
join_leave_rate = 5
allow_subscribe_for_client = true
allow_subscribe_for_anonymous = true
allow_presence_for_subscriber = true
allow_presence_for_anonymous = true
"#;

fn server() -> Server {
    Start::with_config(&config(RULES)).shards(2).run()
}

/// Clients of `users` users in a channel.
fn crowd(server: &Server, channel: &str, count: usize, users: usize) -> Vec<Client> {
    let member = |n: usize| {
        let mut client = Client::user(server, &format!("user {}", n % users));
        client.subscribe(channel);
        client
    };
    (0..count).map(member).collect()
}

/// The members of all pages of ten, and how many each has.
fn pages(mut page: impl FnMut(&Value) -> Value) -> (BTreeSet<String>, Vec<usize>) {
    let mut asked = json!({ "channel": "hall:a", "limit": 10 });
    let (mut seen, mut sizes) = (BTreeSet::new(), Vec::new());
    loop {
        let page = page(&asked);
        let members = page["presence"].as_object().expect("members");
        sizes.push(members.len());
        seen.extend(members.keys().cloned());
        match page.get("cursor") {
            Some(cursor) => asked["cursor"] = cursor.clone(),
            None => return (seen, sizes),
        }
    }
}

#[test]
fn pages_over_the_api_and_over_rpc_are_everybody_once() {
    let server = server();
    let mut members = crowd(&server, "hall:a", 25, 10);
    let stats = server.api_result("presence_stats", &json!({ "channel": "hall:a" }));
    assert_eq!(stats, json!({ "num_clients": 25, "num_users": 10 }));
    let all = server.api_result("presence", &json!({ "channel": "hall:a" }));
    assert_eq!(all.get("cursor"), None, "that is all");
    let all: BTreeSet<String> = (all["presence"].as_object().expect("members"))
        .keys()
        .cloned()
        .collect();
    let wanted = (all, vec![10, 10, 5]);
    assert_eq!(pages(|asked| server.api_result("presence", asked)), wanted);
    let mut asker = members.pop().expect("a member");
    let by_rpc = pages(|asked| {
        let call = json!({ "method": "ringmain.presence", "data": asked });
        asker.ok("rpc", &call)["data"].take()
    });
    assert_eq!(by_rpc, wanted);
    // Who may not ask, and what makes no sense.
    let mut stranger = Client::user(&server, "stranger");
    let rpc = |data: Value| json!({ "method": "ringmain.presence", "data": data });
    for (data, code) in [
        (json!({ "channel": "hall:a" }), 103),
        (json!({ "channel": "nowhere:a" }), 102),
        (json!({}), 107),
    ] {
        assert_eq!(stranger.error("rpc", &rpc(data.clone())), code, "{data}");
    }
    let strange = json!({ "channel": "hall:a", "cursor": "7" });
    assert_eq!(asker.error("rpc", &rpc(strange.clone())), 107);
    assert_eq!(server.api_error("presence", &strange), 107);
}

#[test]
fn every_join_and_leave_of_a_crowd_is_told_or_counted() {
    const CROWD: usize = 60;
    let server = server();
    for encoding in [Encoding::Json, Encoding::Protobuf] {
        let mut observer = Client::open_as(&server, encoding).connect(&json!({}));
        let wanted = json!({ "channel": "hall:a", "join_leave": true });
        observer.ok("subscribe", &wanted);
        drop(crowd(&server, "hall:a", CROWD, CROWD));
        // [joins, leaves]: told one by one, and counted.
        let (mut told, mut counted) = ([0, 0], [0, 0]);
        while (0..2).any(|at| told[at] + counted[at] < CROWD as u64 + u64::from(at == 0)) {
            let push = observer.push();
            let news = &push["message"]["data"]["join_leave"];
            if news.is_object() {
                assert_eq!(news["channel"], "hall:a");
                counted[0] += news["joined"].as_u64().expect("a number");
                counted[1] += news["left"].as_u64().expect("a number");
            } else {
                told[0] += u64::from(push["join"].is_object());
                told[1] += u64::from(push["leave"].is_object());
            }
        }
        let all = [told[0] + counted[0], told[1] + counted[1]];
        assert_eq!(
            all,
            [CROWD as u64 + 1, CROWD as u64],
            "its own join as well"
        );
        assert!(counted[0] + counted[1] > 0, "told {told:?}");
        let left_out = server.metric("ringmain_joins_left_out_total") as u64;
        assert!(left_out >= counted[0] + counted[1]);
    }
}
