//! Checks 69 – 74: the server HTTP API.

use serde_json::{Value, json};

use crate::history::fill;
use crate::servers::plain;
use crate::support::client::Client;
use crate::support::http::Http;
use crate::support::process::{API_KEY, Server};
use crate::support::token::{after, sign};

fn post(path: &str, headers: &[(&str, &str)], body: &str) -> crate::support::http::Response {
    Http::open(plain().listen).post(path, headers, body.as_bytes())
}

#[test]
fn c69_key_is_needed_in_one_of_three_places() {
    let body = json!({ "channel": "c69", "data": 1 }).to_string();
    assert_eq!(post("/api/publish", &[], &body).status, 401);
    assert_eq!(
        post("/api/publish", &[("X-API-Key", "wrong")], &body).status,
        401
    );
    assert_eq!(
        post("/api/publish", &[("X-API-Key", "")], &body).status,
        401
    );
    assert_eq!(
        post("/api/publish", &[("Authorization", "apikey wrong")], &body).status,
        401
    );
    assert_eq!(
        post(
            "/api/publish",
            &[("Authorization", &format!("Bearer {API_KEY}"))],
            &body
        )
        .status,
        401
    );
    assert_eq!(post("/api/publish?api_key=wrong", &[], &body).status, 401);

    assert_eq!(
        post("/api/publish", &[("X-API-Key", API_KEY)], &body).status,
        200
    );
    assert_eq!(
        post("/api/publish", &[("x-api-key", API_KEY)], &body).status,
        200
    );
    assert_eq!(
        post(
            "/api/publish",
            &[("Authorization", &format!("apikey {API_KEY}"))],
            &body
        )
        .status,
        200
    );
    assert_eq!(
        post(
            "/api/publish",
            &[("Authorization", &format!("APIKEY {API_KEY}"))],
            &body
        )
        .status,
        200
    );
    assert_eq!(
        post(&format!("/api/publish?api_key={API_KEY}"), &[], &body).status,
        200
    );
    let both = [
        ("X-API-Key", "wrong"),
        ("Authorization", &format!("apikey {API_KEY}")),
    ];
    assert_eq!(
        post("/api/publish", &both, &body).status,
        401,
        "Authorization counts only without X-API-Key"
    );
}

#[test]
fn c69_without_a_configured_key_everything_is_401() {
    let server = Server::start("[client]\ninsecure = true\n");
    for key in ["", "x"] {
        let response = Http::open(server.listen).post("/api/info", &[("X-API-Key", key)], b"{}");
        assert_eq!(response.status, 401);
    }
    let server = Server::start("[http_api]\ninsecure = true\n");
    assert_eq!(
        Http::open(server.listen)
            .post("/api/info", &[], b"{}")
            .status,
        200
    );
}

#[test]
fn c69_method_body_and_path_are_checked() {
    let key = [("X-API-Key", API_KEY)];
    for path in ["/api/publish", "/api"] {
        assert_eq!(
            Http::open(plain().listen).get(path, &[]).status,
            405,
            "checked before the key"
        );
        assert_eq!(Http::open(plain().listen).get(path, &key).status, 405);
        for body in ["", "x", "{\"channel\":", "{\"channel\":\"a\"}}"] {
            let response = post(path, &key, body);
            assert_eq!(response.status, 400, "{path} {body:?}: {}", response.text());
        }
    }
    for body in ["[]", "1", "\"text\"", r#"{"channel":1,"data":{}}"#] {
        assert_eq!(post("/api/publish", &key, body).status, 400, "{body:?}");
    }
    assert_eq!(post("/api/never", &key, "{}").status, 404);
    assert_eq!(post("/api/connections", &key, "{}").status, 404);
    assert_eq!(post("/never", &key, "{}").status, 404);
}

#[test]
fn c70_every_method_answers_a_result() {
    let mut client = Client::user(plain(), "c70");
    client.subscribe("members:c70");
    let calls = [
        ("publish", json!({ "channel": "members:c70", "data": {} })),
        (
            "broadcast",
            json!({ "channels": ["members:c70"], "data": {} }),
        ),
        ("subscribe", json!({ "user": "c70", "channel": "open:c70" })),
        (
            "unsubscribe",
            json!({ "user": "c70", "channel": "open:c70" }),
        ),
        (
            "refresh",
            json!({ "user": "c70", "expire_at": after(3600) }),
        ),
        ("presence", json!({ "channel": "members:c70" })),
        ("presence_stats", json!({ "channel": "members:c70" })),
        ("history", json!({ "channel": "members:c70", "limit": 10 })),
        ("history_remove", json!({ "channel": "members:c70" })),
        ("channels", json!({ "pattern": "members:c7*" })),
        ("info", json!({})),
        ("disconnect", json!({ "user": "c70" })),
    ];
    for (method, body) in calls {
        let response = plain().api_response(method, &body.to_string());
        assert_eq!(response.status, 200, "{method}");
        assert!(
            response
                .header("content-type")
                .is_some_and(|kind| kind.starts_with("application/json")),
            "{method}"
        );
        let answer = response.json();
        assert!(
            answer["result"].is_object() && answer.get("error").is_none(),
            "{method}: {answer}"
        );
    }
    assert_eq!(
        plain().api_error("rpc", &json!({ "method": "x", "params": {} })),
        104
    );
    client.ends_with(3503);
}

#[test]
fn c70_errors_are_200_with_error_and_a_status_in_transport_mode() {
    let cases = [
        (
            "publish",
            json!({ "channel": "nowhere:c70", "data": {} }),
            102,
            404,
        ),
        ("publish", json!({ "data": {} }), 107, 400),
        ("publish", json!({ "channel": "c70" }), 107, 400),
        ("broadcast", json!({ "channels": [], "data": {} }), 107, 400),
        ("presence", json!({ "channel": "c70" }), 108, 400),
        ("history", json!({ "channel": "open:c70" }), 108, 400),
        (
            "history",
            json!({ "channel": "kept:c70", "since": { "offset": 1, "epoch": "wrong" }, "limit": 1 }),
            112,
            416,
        ),
        ("rpc", json!({ "method": "x" }), 104, 404),
        ("subscribe", json!({ "user": "c70" }), 107, 400),
    ];
    for (method, body, code, status) in cases {
        assert_eq!(plain().api_error(method, &body), code, "{method} {body}");
        let headers = [
            ("X-API-Key", API_KEY),
            ("X-Centrifugo-Error-Mode", "transport"),
        ];
        let response = post(&format!("/api/{method}"), &headers, &body.to_string());
        assert_eq!(response.status, status, "{method} {body}");
        assert_eq!(response.json()["code"], code, "{method} {body}");
        assert!(response.json()["message"].is_string(), "{method} {body}");
    }
    let headers = [
        ("X-API-Key", API_KEY),
        ("X-Centrifugo-Error-Mode", "transport"),
    ];
    let good = post(
        "/api/publish",
        &headers,
        &json!({ "channel": "c70", "data": 1 }).to_string(),
    );
    assert_eq!((good.status, good.json()), (200, json!({ "result": {} })));
}

#[test]
fn c70_binary_payload_may_come_as_base64() {
    let mut client = Client::anonymous(plain());
    client.subscribe("c70-b64");
    let result = plain().api(
        "publish",
        &json!({ "channel": "c70-b64", "b64data": "eyJhIjoxfQ==", "data": { "not": "this" } }),
    );
    assert_eq!(result, json!({ "result": {} }));
    assert_eq!(
        client.publication("c70-b64")["data"],
        json!({ "a": 1 }),
        "b64data wins"
    );
    assert_eq!(
        plain().api_error(
            "publish",
            &json!({ "channel": "c70-b64", "b64data": "%%%" })
        ),
        107
    );
}

#[test]
fn c70_channels_lists_active_channels_by_pattern() {
    let mut first = Client::anonymous(plain());
    let mut second = Client::anonymous(plain());
    first.subscribe("open:c70-list-a");
    second.subscribe("open:c70-list-a");
    second.subscribe("open:c70-list-b");
    let listed = plain().api_result("channels", &json!({ "pattern": "open:c70-list-*" }));
    let expected =
        json!({ "open:c70-list-a": { "num_clients": 2 }, "open:c70-list-b": { "num_clients": 1 } });
    assert_eq!(listed, json!({ "channels": expected }));
    assert_eq!(
        plain().api_result("channels", &json!({ "pattern": "open:c70-none*" })),
        json!({ "channels": {} })
    );
    for pattern in [
        "open:c70-list-[ab]",
        "open:c70-list-?",
        "{open,closed}:c70-list-*",
        "open:c70-list-[!x-z]",
    ] {
        let listed = plain().api_result("channels", &json!({ "pattern": pattern }));
        assert_eq!(listed, json!({ "channels": expected }), "{pattern}");
    }
    for broken in ["open:[a-", "{open", "open\\", &"x".repeat(1025)] {
        let answer = plain().api("channels", &json!({ "pattern": broken }));
        assert_eq!(answer["error"]["code"], 107, "{broken}: {answer}");
    }
    let all = plain().api_result("channels", &json!({}));
    assert_eq!(
        all["channels"]["open:c70-list-a"],
        json!({ "num_clients": 2 })
    );
}

#[test]
fn c70_info_describes_the_node() {
    let client = Client::anonymous(plain());
    let info = plain().api_result("info", &json!({}));
    let node = &info["nodes"][0];
    for field in ["uid", "name", "version"] {
        assert!(
            node[field].as_str().is_some_and(|text| !text.is_empty()),
            "{field}: {info}"
        );
    }
    for field in [
        "num_clients",
        "num_users",
        "num_channels",
        "num_subs",
        "uptime",
    ] {
        assert!(node[field].is_u64(), "{field}: {info}");
    }
    if let Some(metrics) = node.get("metrics") {
        assert!(
            metrics["items"].is_object(),
            "the SDK insists on items: {info}"
        );
    }
    assert!(!client.id.is_empty());
}

#[test]
fn c71_repeated_idempotency_key_answers_the_first_offset_and_delivers_once() {
    let mut client = Client::anonymous(plain());
    client.subscribe("kept:c71");
    let once = json!({ "channel": "kept:c71", "data": { "n": 1 }, "idempotency_key": "k1" });
    let first = plain().api_result("publish", &once);
    assert_eq!(first["offset"], 1);
    assert_eq!(plain().api_result("publish", &once), first);
    let broadcast = json!({ "channels": ["kept:c71", "kept:c71-b"], "data": { "n": 9 }, "idempotency_key": "k1" });
    let result = plain().api_result("broadcast", &broadcast);
    assert_eq!(
        result["responses"][0]["result"], first,
        "the key is the channel's own"
    );
    assert_eq!(result["responses"][1]["result"]["offset"], 1);
    let second = json!({ "channel": "kept:c71", "data": { "n": 2 }, "idempotency_key": "k2" });
    assert_eq!(plain().api_result("publish", &second)["offset"], 2);
    assert_eq!(client.publication("kept:c71")["data"], json!({ "n": 1 }));
    assert_eq!(client.publication("kept:c71")["data"], json!({ "n": 2 }));
}

#[test]
fn c71_idempotency_holds_without_history() {
    let mut client = Client::anonymous(plain());
    client.subscribe("c71-bare");
    for n in 0..3 {
        plain().api_result(
            "publish",
            &json!({ "channel": "c71-bare", "data": n, "idempotency_key": "k" }),
        );
    }
    plain().api_result("publish", &json!({ "channel": "c71-bare", "data": "end" }));
    assert_eq!(client.publication("c71-bare")["data"], 0);
    assert_eq!(client.publication("c71-bare")["data"], "end");
}

#[test]
fn c71_skip_history_delivers_without_an_offset() {
    let mut client = Client::anonymous(plain());
    client.subscribe("kept:c71-skip");
    fill("kept:c71-skip", 1);
    plain().api_result(
        "publish",
        &json!({ "channel": "kept:c71-skip", "data": "skipped", "skip_history": true }),
    );
    assert_eq!(client.publication("kept:c71-skip")["offset"], 1);
    let skipped = client.publication("kept:c71-skip");
    assert_eq!(skipped["data"], "skipped");
    assert!(skipped.get("offset").is_none(), "{skipped}");
    assert_eq!(
        plain().api_result("history", &json!({ "channel": "kept:c71-skip" }))["offset"],
        1
    );
}

#[test]
fn c72_broadcast_keeps_errors_of_channels_in_its_responses() {
    let mut client = Client::anonymous(plain());
    client.subscribe("kept:c72");
    client.subscribe("c72");
    let channels = ["kept:c72", "nowhere:c72", "c72", ""];
    let responses = plain().api_result(
        "broadcast",
        &json!({ "channels": channels, "data": { "b": 1 } }),
    )["responses"]
        .take();
    assert_eq!(responses.as_array().map(Vec::len), Some(4), "{responses}");
    assert_eq!(responses[0]["result"]["offset"], 1, "{responses}");
    assert_eq!(responses[1]["error"]["code"], 102);
    assert_eq!(responses[2], json!({ "result": {} }));
    assert_eq!(responses[3]["error"]["code"], 107);
    assert_eq!(client.push()["pub"]["data"], json!({ "b": 1 }));
    assert_eq!(client.push()["pub"]["data"], json!({ "b": 1 }));
    let empty = plain().api_result("broadcast", &json!({ "channels": ["c72"] }));
    assert_eq!(empty["responses"][0]["error"]["code"], 107, "{empty}");
}

#[test]
fn c72_batch_answers_replies_in_order_with_the_methods_keys() {
    let commands = json!([
        { "publish": { "channel": "kept:c72-batch", "data": 1 } },
        { "unsubscribe": { "user": "nobody", "channel": "open:c72" } },
        { "presence": { "channel": "c72" } },
        { "broadcast": { "channels": ["kept:c72-batch", "nowhere:c72"], "data": 2 } },
        null,
        {},
        { "never": {} },
        { "presence_stats": { "channel": "open:c72" } },
        { "history": { "channel": "kept:c72-batch", "limit": 10 } },
        { "info": {} },
    ]);
    for parallel in [false, true] {
        let answer = plain().api(
            "batch",
            &json!({ "commands": commands, "parallel": parallel }),
        );
        assert!(
            answer.get("result").is_none(),
            "batch has no result around it: {answer}"
        );
        let replies = answer["replies"].as_array().expect("replies");
        assert_eq!(replies.len(), 10, "{answer}");
        assert!(replies[0]["publish"]["offset"].is_u64(), "{answer}");
        assert_eq!(replies[1], json!({ "unsubscribe": {} }));
        assert_eq!(replies[2]["error"]["code"], 108);
        assert!(
            replies[3]["broadcast"]["responses"][0]["result"]["offset"].is_u64(),
            "{answer}"
        );
        assert_eq!(
            replies[3]["broadcast"]["responses"][1]["error"]["code"],
            102
        );
        assert_eq!(replies[4]["error"]["code"], 107);
        assert_eq!(replies[5]["error"]["code"], 104);
        assert_eq!(replies[6]["error"]["code"], 104);
        assert_eq!(
            replies[7],
            json!({ "presence_stats": { "num_clients": 0, "num_users": 0 } })
        );
        assert!(replies[8]["history"]["publications"].is_array(), "{answer}");
        assert!(replies[9]["info"]["nodes"].is_array(), "{answer}");
    }
    assert_eq!(plain().api("batch", &json!({ "commands": [] })), json!({}));
}

#[test]
fn c73_subscribe_sends_a_push_and_publications_follow() {
    let mut first = Client::user(plain(), "c73");
    let mut second = Client::user(plain(), "c73");
    assert_eq!(
        plain().api_result(
            "subscribe",
            &json!({ "user": "c73", "channel": "three:c73", "data": { "d": 1 } })
        ),
        json!({})
    );
    for client in [&mut first, &mut second] {
        let push = client.push();
        assert_eq!(push["channel"], "three:c73");
        assert_eq!(push["subscribe"]["recoverable"], true, "{push}");
        assert_eq!(push["subscribe"]["data"], json!({ "d": 1 }));
        assert!(push["subscribe"]["epoch"].is_string(), "{push}");
    }
    plain().api_result("publish", &json!({ "channel": "three:c73", "data": 1 }));
    assert_eq!(first.publication("three:c73")["data"], 1);
    assert_eq!(second.publication("three:c73")["data"], 1);

    let only = json!({ "user": "c73", "channel": "three:c73", "client": first.id });
    assert_eq!(plain().api_result("unsubscribe", &only), json!({}));
    let push = first.push();
    assert_eq!(push["unsubscribe"]["code"], 2000);
    assert!(
        push["unsubscribe"]["reason"]
            .as_str()
            .is_some_and(|reason| !reason.is_empty()),
        "{push}"
    );
    plain().api_result("publish", &json!({ "channel": "three:c73", "data": 2 }));
    assert_eq!(
        second.publication("three:c73")["data"],
        2,
        "the other connection stays subscribed"
    );
    assert_eq!(first.pending(), Vec::<Value>::new());
    assert_eq!(
        plain().api_result(
            "subscribe",
            &json!({ "user": "nobody-c73", "channel": "three:c73" })
        ),
        json!({})
    );
}

#[test]
fn c73_unsubscribe_ends_a_client_side_subscription() {
    let mut client = Client::user(plain(), "c73-client-side");
    client.subscribe("open:c73");
    plain().api_result(
        "unsubscribe",
        &json!({ "user": "c73-client-side", "channel": "open:c73" }),
    );
    let push = client.push();
    assert_eq!(
        (&push["channel"], &push["unsubscribe"]["code"]),
        (&json!("open:c73"), &json!(2000))
    );
    client.subscribe("open:c73");
}

#[test]
fn c73_disconnect_closes_with_3503_or_the_given_code() {
    let mut first = Client::user(plain(), "c73-end");
    assert_eq!(
        plain().api_result("disconnect", &json!({ "user": "c73-end" })),
        json!({})
    );
    first.ends_with(3503);
    let mut kept = Client::user(plain(), "c73-end");
    let mut ended = Client::user(plain(), "c73-end");
    let request = json!({
        "user": "c73-end", "whitelist": [kept.id], "disconnect": { "code": 4321, "reason": "enough for today" },
    });
    plain().api_result("disconnect", &request);
    assert_eq!(ended.ends_with(4321), "enough for today");
    assert_eq!(kept.pending(), Vec::<Value>::new(), "whitelisted");
    plain().api_result(
        "disconnect",
        &json!({ "user": "c73-end", "client": "00000000-0000-4000-8000-000000000000" }),
    );
    assert_eq!(kept.pending(), Vec::<Value>::new(), "another client id");
    plain().api_result(
        "disconnect",
        &json!({ "user": "c73-end", "client": kept.id }),
    );
    kept.ends_with(3503);
    assert_eq!(
        plain().api_result("disconnect", &json!({ "user": "nobody-c73" })),
        json!({})
    );
}

#[test]
fn c73_refresh_changes_the_expiry() {
    let token = sign(&json!({ "sub": "c73-refresh", "exp": after(3600) }));
    let mut client = Client::with_token(plain(), &token);
    plain().api_result(
        "refresh",
        &json!({ "user": "c73-refresh", "expire_at": after(600) }),
    );
    let push = client.push();
    assert_eq!(push["refresh"]["expires"], true, "{push}");
    assert!(
        (500..=600).contains(&push["refresh"]["ttl"].as_u64().expect("a ttl")),
        "{push}"
    );
    plain().api_result("refresh", &json!({ "user": "c73-refresh" }));
    assert_eq!(client.push(), json!({ "refresh": {} }));
    plain().api_result(
        "refresh",
        &json!({ "user": "c73-refresh", "expired": true }),
    );
    client.ends_with(3005);
    let mut client = Client::with_token(plain(), &token);
    plain().api_result(
        "refresh",
        &json!({ "user": "c73-refresh", "expire_at": after(-10) }),
    );
    client.ends_with(3005);
}

#[test]
fn c74_legacy_commands_answer_a_line_each() {
    let commands = [
        json!({ "id": 7, "method": "publish", "params": { "channel": "kept:c74", "data": { "n": 1 } } }),
        json!({ "method": "presence", "params": { "channel": "c74" } }),
    ];
    let body = commands.map(|command| command.to_string()).join("\n");
    let response = post("/api", &[("X-API-Key", API_KEY)], &body);
    assert_eq!(response.status, 200);
    let text = response.text();
    assert!(
        !text.ends_with('\n'),
        "cent.js parses what follows a newline"
    );
    let lines: Vec<Value> = text
        .split('\n')
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    assert_eq!(lines.len(), 2, "{text}");
    assert_eq!(
        (&lines[0]["id"], &lines[0]["result"]["offset"]),
        (&json!(7), &json!(1))
    );
    assert_eq!(lines[1]["error"]["code"], 108);
    assert!(lines[1].get("id").is_none(), "{text}");
}

#[test]
fn c74_legacy_commands_may_be_concatenated_and_be_unknown() {
    let key = [("X-API-Key", API_KEY)];
    let one = json!({ "method": "info", "params": {} }).to_string();
    let response = post("/api", &key, &format!("{one}{one}\n"));
    assert_eq!(response.text().lines().count(), 2, "{}", response.text());
    assert_eq!(
        post(
            "/api",
            &key,
            &json!({ "method": "never", "params": {} }).to_string()
        )
        .status,
        400
    );
    let pro = post(
        "/api",
        &key,
        &json!({ "method": "connections", "params": {} }).to_string(),
    );
    assert_eq!(pro.json()["error"]["code"], 104);
    let bare = post("/api", &key, &json!({ "method": "publish" }).to_string());
    assert_eq!(bare.json()["error"]["code"], 107);
    assert_eq!(post("/api", &[], &one).status, 401);
}

#[test]
fn c73_recover_since_brings_what_was_missed_behind_the_subscribe_push() {
    fill("three:c73-since", 3);
    let epoch =
        plain().api_result("history", &json!({ "channel": "three:c73-since" }))["epoch"].clone();
    let mut client = Client::user(plain(), "c73-since");
    let since = |offset: u64, epoch: &Value| json!({ "user": "c73-since", "channel": "three:c73-since", "recover_since": { "offset": offset, "epoch": epoch } });
    plain().api_result("subscribe", &since(1, &epoch));
    let push = client.push();
    assert_eq!(push["subscribe"]["offset"], 1, "{push}");
    assert_eq!(push["subscribe"]["epoch"], epoch);
    assert_eq!(client.publication("three:c73-since")["offset"], 2);
    assert_eq!(client.publication("three:c73-since")["offset"], 3);
    let end = json!({ "user": "c73-since", "channel": "three:c73-since" });
    plain().api_result("unsubscribe", &end);
    assert_eq!(client.push()["unsubscribe"]["code"], 2000);
    plain().api_result("subscribe", &since(1, &json!("another")));
    let push = client.push();
    assert_eq!(push["subscribe"]["offset"], 3, "{push}");
    assert_eq!(
        client.pending(),
        Vec::<Value>::new(),
        "nothing was recovered"
    );
}

#[test]
fn c73_subscribing_again_tells_the_subscription_as_it_stands() {
    let mut client = Client::user(plain(), "c73-again");
    let body = json!({ "user": "c73-again", "channel": "three:c73-again" });
    plain().api_result("subscribe", &body);
    let first = client.push();
    plain().api_result("subscribe", &body);
    assert_eq!(client.push(), first, "also where it stands");
    plain().api_result(
        "publish",
        &json!({ "channel": "three:c73-again", "data": 1 }),
    );
    assert_eq!(client.publication("three:c73-again")["offset"], 1);
    assert_eq!(client.pending(), Vec::<Value>::new(), "delivered once");
}

#[test]
fn c73_session_that_nobody_has_selects_nobody() {
    let mut client = Client::user(plain(), "c73-session");
    let target = json!({ "user": "c73-session", "session": "no such session" });
    assert_eq!(plain().api_result("disconnect", &target), json!({}));
    assert_eq!(client.pending(), Vec::<Value>::new());
}
