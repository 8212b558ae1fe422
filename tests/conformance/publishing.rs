//! Checks 42 – 50: publish, presence, join and leave, rpc.

use serde_json::{Value, json};

use crate::servers::plain;
use crate::support::client::Client;
use crate::support::token::sign;

#[test]
fn c42_publish_without_permission_is_103() {
    let mut client = Client::anonymous(plain());
    client.subscribe("c42");
    assert_eq!(
        client.error("publish", &json!({ "channel": "c42", "data": {} })),
        103
    );
    assert_eq!(
        client.error("publish", &json!({ "channel": "nowhere:c42", "data": {} })),
        102
    );
    assert_eq!(
        client.error("publish", &json!({ "channel": "joins:c42", "data": {} })),
        103,
        "subscribers only"
    );
    client.subscribe("joins:c42");
    client.publish("joins:c42", &json!({}));
}

#[test]
fn c42_publication_is_echoed_to_the_publisher_with_its_info() {
    let mut client = Client::with_token(
        plain(),
        &sign(&json!({ "sub": "42", "info": { "name": "Ada" } })),
    );
    client.subscribe("open:c42-echo");
    let mut other = Client::anonymous(plain());
    other.subscribe("open:c42-echo");
    client.publish("open:c42-echo", &json!({ "text": "hi" }));
    for publication in [
        client.publication("open:c42-echo"),
        other.publication("open:c42-echo"),
    ] {
        let info = json!({ "user": "42", "client": client.id, "conn_info": { "name": "Ada" } });
        assert_eq!(
            publication,
            json!({ "data": { "text": "hi" }, "info": info })
        );
    }
}

#[test]
fn c43_publication_of_the_api_has_no_info() {
    let mut client = Client::anonymous(plain());
    client.subscribe("c43");
    plain().api_result(
        "publish",
        &json!({ "channel": "c43", "data": { "a": [1, null, "x"] }, "tags": { "k": "v" } }),
    );
    assert_eq!(
        client.publication("c43"),
        json!({ "data": { "a": [1, null, "x"] }, "tags": { "k": "v" } })
    );
}

#[test]
fn c44_empty_data_is_107() {
    let mut client = Client::anonymous(plain());
    assert_eq!(
        client.error("publish", &json!({ "channel": "open:c44" })),
        107
    );
    assert_eq!(
        plain().api_error("publish", &json!({ "channel": "open:c44" })),
        107
    );
}

#[test]
fn c44_any_json_value_is_a_payload() {
    let mut client = Client::anonymous(plain());
    client.subscribe("open:c44-any");
    for data in [
        json!({}),
        json!([]),
        json!("text"),
        json!(1.5),
        json!(true),
        json!({ "deep": { "er": "ü\u{1F600}\"\\\n" } }),
    ] {
        client.publish("open:c44-any", &data);
        assert_eq!(client.publication("open:c44-any")["data"], data);
    }
}

#[test]
fn c44_format_of_the_namespace_is_kept() {
    let mut client = Client::anonymous(plain());
    client.subscribe("objects:c44");
    for data in [json!([]), json!("text"), json!(1)] {
        assert_eq!(
            client.error(
                "publish",
                &json!({ "channel": "objects:c44", "data": data })
            ),
            107,
            "{data}"
        );
        assert_eq!(
            plain().api_error(
                "publish",
                &json!({ "channel": "objects:c44", "data": data })
            ),
            107,
            "{data}"
        );
    }
    client.publish("objects:c44", &json!({ "a": 1 }));
}

#[test]
fn c45_presence_shows_the_subscriber_with_its_infos() {
    let channel = "open:c45";
    let token = sign(&json!({ "sub": "42", "info": { "name": "Ada" } }));
    let mut first = Client::with_token(plain(), &token);
    let mut second = Client::with_token(plain(), &token);
    let mut nobody = Client::anonymous(plain());
    let seat = sign(&json!({ "sub": "42", "channel": channel, "info": { "seat": 3 } }));
    first.ok("subscribe", &json!({ "channel": channel, "token": seat }));
    second.subscribe(channel);
    nobody.subscribe(channel);

    let expected = json!({
        first.id.as_str(): { "user": "42", "client": first.id, "conn_info": { "name": "Ada" }, "chan_info": { "seat": 3 } },
        second.id.as_str(): { "user": "42", "client": second.id, "conn_info": { "name": "Ada" } },
        nobody.id.as_str(): { "user": "", "client": nobody.id },
    });
    assert_eq!(
        nobody.ok("presence", &json!({ "channel": channel })),
        json!({ "presence": expected })
    );
    assert_eq!(
        plain().api_result("presence", &json!({ "channel": channel })),
        json!({ "presence": expected })
    );
    let stats = json!({ "num_clients": 3, "num_users": 2 });
    assert_eq!(
        nobody.ok("presence_stats", &json!({ "channel": channel })),
        stats
    );
    assert_eq!(
        plain().api_result("presence_stats", &json!({ "channel": channel })),
        stats
    );

    second.ok("unsubscribe", &json!({ "channel": channel }));
    let stats = json!({ "num_clients": 2, "num_users": 2 });
    assert_eq!(
        first.ok("presence_stats", &json!({ "channel": channel })),
        stats,
        "gone at once"
    );
}

#[test]
fn c45_presence_ends_with_the_connection() {
    let mut client = Client::anonymous(plain());
    client.subscribe("joins:c45-left");
    let mut watcher = Client::anonymous(plain());
    watcher.subscribe("joins:c45-left");
    let id = client.id.clone();
    drop(client);
    loop {
        let push = watcher.push();
        if push["leave"]["info"]["client"] == id.as_str() {
            break;
        }
    }
    let presence = watcher.ok("presence", &json!({ "channel": "joins:c45-left" }));
    assert!(presence["presence"].get(&id).is_none(), "{presence}");
}

#[test]
fn c45_presence_that_is_off_is_108_and_not_permitted_103() {
    let mut client = Client::anonymous(plain());
    for part in ["presence", "presence_stats"] {
        assert_eq!(client.error(part, &json!({ "channel": "c45" })), 108);
        assert_eq!(plain().api_error(part, &json!({ "channel": "c45" })), 108);
        assert_eq!(client.error(part, &json!({ "channel": "closed:c45" })), 103);
        assert_eq!(
            client.error(part, &json!({ "channel": "members:c45" })),
            103,
            "subscribers only"
        );
        assert_eq!(
            client.error(part, &json!({ "channel": "nowhere:c45" })),
            102
        );
    }
    client.subscribe("members:c45");
    assert_eq!(
        client.ok("presence_stats", &json!({ "channel": "members:c45" })),
        json!({ "num_clients": 1, "num_users": 1 })
    );
}

#[test]
fn c46_join_and_leave_reach_other_subscribers() {
    let channel = "joins:c46";
    let mut watcher = Client::anonymous(plain());
    watcher.subscribe(channel);
    assert_eq!(
        watcher.push()["join"]["info"]["client"],
        watcher.id.as_str(),
        "the own join follows the reply"
    );
    let mut client = Client::with_token(plain(), &sign(&json!({ "sub": "42", "info": 7 })));
    client.subscribe(channel);
    let info = json!({ "user": "42", "client": client.id, "conn_info": 7 });
    assert_eq!(
        watcher.push(),
        json!({ "channel": channel, "join": { "info": info } })
    );
    assert_eq!(
        client.push(),
        json!({ "channel": channel, "join": { "info": info } })
    );
    client.ok("unsubscribe", &json!({ "channel": channel }));
    assert_eq!(
        watcher.push(),
        json!({ "channel": channel, "leave": { "info": info } })
    );
    assert_eq!(
        client.pending(),
        Vec::<Value>::new(),
        "the leaving client does not get its own leave"
    );

    client.subscribe(channel);
    assert_eq!(watcher.push()["join"]["info"]["client"], client.id.as_str());
    drop(client);
    assert_eq!(
        watcher.push()["leave"]["info"]["user"],
        "42",
        "a lost connection leaves"
    );
}

#[test]
fn c46_join_and_leave_are_delivered_on_request_only() {
    let channel = "open:c46";
    let mut asking = Client::anonymous(plain());
    asking.ok(
        "subscribe",
        &json!({ "channel": channel, "join_leave": true }),
    );
    assert_eq!(asking.push()["join"]["info"]["client"], asking.id.as_str());
    let mut silent = Client::anonymous(plain());
    silent.subscribe(channel);
    assert_eq!(asking.push()["join"]["info"]["client"], silent.id.as_str());
    silent.publish(channel, &json!(1));
    assert_eq!(
        silent.publication(channel)["data"],
        1,
        "nothing but publications"
    );
}

#[test]
fn c49_rpc_without_a_backend_is_108() {
    let mut client = Client::anonymous(plain());
    assert_eq!(
        client.error("rpc", &json!({ "method": "x", "data": null })),
        108
    );
    assert_eq!(client.error("rpc", &json!({ "data": { "a": 1 } })), 108);
}

#[test]
fn c50_empty_results_are_printed() {
    let mut client = Client::anonymous(plain());
    for (part, request) in [
        ("subscribe", json!({ "channel": "open:c50" })),
        ("publish", json!({ "channel": "open:c50", "data": 1 })),
        ("unsubscribe", json!({ "channel": "open:c50" })),
    ] {
        let id = client.send(part, &request);
        assert_eq!(client.reply(id), json!({ "id": id, part: {} }));
    }
    let id = client.send("presence", &json!({ "channel": "open:c50" }));
    assert_eq!(
        client.reply(id),
        json!({ "id": id, "presence": { "presence": {} } })
    );
    let id = client.send("presence_stats", &json!({ "channel": "open:c50" }));
    assert_eq!(
        client.reply(id),
        json!({ "id": id, "presence_stats": { "num_clients": 0, "num_users": 0 } })
    );
    let id = client.send("history", &json!({ "channel": "kept:c50", "limit": 1 }));
    let history = client.reply(id);
    assert_eq!(history["history"]["publications"], json!([]), "{history}");
    assert_eq!(history["history"]["offset"], 0, "{history}");
    assert!(history["history"]["epoch"].is_string(), "{history}");
}
