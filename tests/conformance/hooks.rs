//! Checks 49 and 75 – 77: a backend decides about what clients do.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::backend::{Asked, Backend, Reply};
use crate::support::client::{Client, Encoding, PATH};
use crate::support::process::{Server, config};
use crate::support::token::{after, sign, user};
use crate::support::wait;

/// `protocol` and `encoding` of the clients, as a backend is told.
fn protocol() -> (&'static str, &'static str) {
    match Encoding::of_the_crate() {
        Encoding::Json => ("json", "json"),
        Encoding::Protobuf => ("protobuf", "binary"),
    }
}

/// A server whose events all go to the backend, each to a path of its own name. `extra` is the rest of the file.
fn server(backend: &Backend, extra: &str) -> Server {
    let url = |path: &str| backend.url(path);
    Server::start(&config(&format!(
        r#"
[client.proxy.connect]
enabled = true
endpoint = "{}"
http_headers = ["Cookie", "X-Real-Ip"]
emulated_headers = ["Authorization"]
include_connection_meta = true
[client.proxy.connect.http]
static_headers = {{ X-Static = "s", Cookie = "static" }}
[channel.proxy.subscribe]
endpoint = "{}"
http_headers = ["X-Real-Ip"]
emulated_headers = ["Authorization"]
include_connection_meta = true
[channel.proxy.publish]
endpoint = "{}"
[channel.proxy.sub_refresh]
endpoint = "{}"
[rpc.proxy]
endpoint = "{}"
[[rpc.proxy.http.status_to_code_transforms]]
status_code = 404
to_error = {{ code = 1404, message = "no such thing", temporary = true }}
[[rpc.proxy.http.status_to_code_transforms]]
status_code = 403
to_disconnect = {{ code = 4503, reason = "go away" }}
[rpc.without_namespace]
proxy_enabled = true
[rpc.ping]
enabled = true
[[rpc.namespaces]]
name = "off"
[channel.without_namespace]
presence = true
allow_presence_for_client = true
allow_presence_for_anonymous = true
allow_history_for_client = true
history_size = 10
history_ttl = "60s"
subscribe_proxy_enabled = true
publish_proxy_enabled = true
sub_refresh_proxy_enabled = true
[[channel.namespaces]]
name = "open"
allow_subscribe_for_client = true
allow_subscribe_for_anonymous = true
allow_user_limited_channels = true
presence = true
{extra}
"#,
        url("/connect"),
        url("/subscribe"),
        url("/publish"),
        url("/sub_refresh"),
        url("/rpc"),
    )))
}

/// Answers connect with user 42, and all else by `answer`.
fn backend(answer: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Backend {
    Backend::start(move |asked| match asked.path.as_str() {
        "/connect" => Reply::result(json!({ "user": "42" })),
        _ => answer(asked),
    })
}

#[test]
fn c49_rpc_goes_to_its_backend_or_nowhere() {
    let backend = backend(|asked| match asked.body["method"].as_str() {
        Some("null") => Reply::result(json!({ "data": null })),
        Some("nothing") => Reply::Json(json!({})),
        _ => Reply::result(json!({ "data": { "got": asked.body["data"] } })),
    });
    let server = server(&backend, "");
    let mut client = Client::anonymous(&server);
    backend.asked();
    let reply = client.call("rpc", &json!({ "method": "sum", "data": [1, 2] }));
    assert_eq!(reply["rpc"], json!({ "data": { "got": [1, 2] } }));
    let asked = backend.asked();
    let wanted = json!({
        "client": client.id, "transport": "websocket", "protocol": protocol().0, "encoding": protocol().1,
        "user": "42", "method": "sum", "data": [1, 2],
    });
    assert_eq!(asked.body, wanted);
    for method in ["null", "nothing"] {
        let reply = client.call("rpc", &json!({ "method": method }));
        assert_eq!(reply["rpc"], json!({}), "{reply}");
    }
    assert_eq!(client.ok("rpc", &json!({ "method": "ping" })), json!({}));
    assert_eq!(client.error("rpc", &json!({ "method": "off:x" })), 108);
    assert_eq!(client.error("rpc", &json!({ "method": "nowhere:x" })), 104);
}

#[test]
fn c75_connect_proxy_gets_listed_headers_only() {
    let backend = backend(|_| Reply::Json(json!({})));
    let server = server(&backend, "");
    let headers = [
        ("Cookie", "transport"),
        ("X-Real-IP", "10.0.0.1"),
        ("X-Secret", "not listed"),
        ("Authorization", "of the transport: not listed there"),
    ];
    let mut client = Client::open_with(&server, PATH, &headers).connect(&json!({
        "name": "js", "version": "7", "data": { "d": 1 },
        "headers": { "authorization": "emulated", "X-Other": "not listed", "cookie": "not listed there" },
        "subs": { "was": { "recover": true } },
    }));
    let asked = backend.asked();
    assert_eq!(asked.header("cookie"), Some("transport"));
    assert_eq!(asked.header("x-real-ip"), Some("10.0.0.1"));
    assert_eq!(asked.header("authorization"), Some("emulated"));
    assert_eq!(asked.header("x-static"), Some("s"));
    assert_eq!(asked.header("content-type"), Some("application/json"));
    let mut names = asked.header_names();
    names.sort_unstable();
    let wanted = [
        "authorization",
        "content-length",
        "content-type",
        "cookie",
        "host",
        "x-real-ip",
        "x-static",
    ];
    assert_eq!(names, wanted);
    let wanted = json!({
        "client": client.id, "transport": "websocket", "protocol": protocol().0, "encoding": protocol().1,
        "name": "js", "version": "7", "data": { "d": 1 }, "channels": ["was"],
    });
    assert_eq!(asked.body, wanted);
    // Later events carry what their own target lists.
    client.subscribe("x");
    let asked = backend.asked();
    assert_eq!(asked.header("authorization"), Some("emulated"));
    assert_eq!(asked.header("x-real-ip"), Some("10.0.0.1"));
    assert_eq!(asked.header("cookie"), None);
}

#[test]
fn c75_connect_result_sets_user_data_info_meta_and_subs() {
    let backend = Backend::start(|asked| match asked.path.as_str() {
        "/connect" => Reply::result(json!({
            "user": "56", "data": { "hello": 1 }, "info": { "name": "Ada" }, "meta": { "secret": 1 },
            "channels": ["open:a"],
            "subs": { "open:b": { "data": { "b": 1 }, "info": { "sub": 1 } } },
        })),
        _ => Reply::Json(json!({})),
    });
    let server = server(&backend, "");
    let mut client = Client::open(&server).connect(&json!({ "subs": { "open:c": {} } }));
    assert_eq!(client.connected["data"], json!({ "hello": 1 }));
    assert_eq!(
        client.connected["subs"],
        json!({ "open:a": {}, "open:b": { "data": { "b": 1 } } }),
        "channels that the client names are only told to the backend"
    );
    assert!(client.connected.get("expires").is_none());
    let presence = server.api_result("presence", &json!({ "channel": "open:b" }));
    let wanted = json!({
        "client": client.id, "user": "56", "conn_info": { "name": "Ada" }, "chan_info": { "sub": 1 },
    });
    assert_eq!(presence["presence"][&client.id], wanted);
    backend.asked();
    client.subscribe("x");
    assert_eq!(backend.asked().body["meta"], json!({ "secret": 1 }));
}

#[test]
fn c75_connect_error_and_disconnect_reach_the_client_unchanged() {
    let backend = Backend::start(|asked| match asked.body["data"].as_str() {
        Some("error") => Reply::Json(
            json!({ "error": { "code": 1999, "message": "not today", "temporary": true } }),
        ),
        Some("disconnect") => {
            Reply::Json(json!({ "disconnect": { "code": 4987, "reason": "not here" } }))
        }
        Some("both") => Reply::Json(json!({
            "error": { "code": 1000, "message": "x" }, "disconnect": { "code": 4001, "reason": "x" },
        })),
        Some("unknown channel") => Reply::result(json!({ "channels": ["nowhere:x"] })),
        Some("expired") => Reply::result(json!({ "user": "1", "expire_at": 1 })),
        Some("expired sub") => Reply::result(json!({ "subs": { "open:x": { "expire_at": 1 } } })),
        Some("anonymous") => Reply::result(json!({ "user": "" })),
        _ => Reply::Json(json!({})),
    });
    let server = server(&backend, "");
    let connect = |data: &str| {
        let mut client = Client::open(&server);
        let id = client.send("connect", &json!({ "data": data }));
        (client, id)
    };
    let (mut client, id) = connect("error");
    assert_eq!(
        client.reply(id)["error"],
        json!({ "code": 1999, "message": "not today", "temporary": true })
    );
    assert_eq!(connect("disconnect").0.ends_with(4987), "not here");
    connect("both").0.ends_with(4001);
    for (data, code) in [
        ("unknown channel", 102),
        ("expired", 110),
        ("expired sub", 110),
    ] {
        let (mut client, id) = connect(data);
        assert_eq!(client.reply(id)["error"]["code"], code, "{data}");
    }
    let (mut client, id) = connect("anonymous");
    assert!(client.reply(id)["connect"]["client"].is_string());
    // Nobody knows the client, and it may not be anonymous.
    connect("nobody").0.ends_with(3501);
}

#[test]
fn c75_connection_with_a_token_asks_nobody() {
    let backend = backend(|_| Reply::Json(json!({})));
    let server = server(&backend, "");
    let mut client = Client::user(&server, "7");
    client.ok("rpc", &json!({ "method": "x" }));
    let asked = backend.asked();
    assert_eq!(
        (asked.path.as_str(), &asked.body["user"]),
        ("/rpc", &json!("7"))
    );
}

#[test]
fn c75_without_an_answer_about_it_the_connection_may_be_anonymous_or_of_its_header() {
    let backend = Backend::start(|_| Reply::Json(json!({})));
    let text = |client: &str| {
        config(&format!(
            "[client]\n{client}\n[client.proxy.connect]\nenabled = true\nendpoint = \"{}\"\n",
            backend.url("/connect")
        ))
    };
    let server = Server::start(&text("allow_anonymous_connect_without_token = true"));
    assert!(!Client::anonymous(&server).id.is_empty());
    let server = Server::start(&text("user_id_http_header = \"X-User\""));
    Client::open_with(&server, PATH, &[("x-user", "77")]).connect(&json!({}));
    let known = server.api_result("disconnect", &json!({ "user": "77" }));
    assert_eq!(known, json!({}));
    let mut client = Client::open(&server);
    client.send("connect", &json!({}));
    client.ends_with(3501);
}

#[test]
fn c76_proxy_that_is_down_is_a_temporary_error() {
    let mut backend = Some(backend(|_| Reply::Json(json!({}))));
    let server = server(backend.as_ref().unwrap(), "");
    let mut client = Client::anonymous(&server);
    drop(backend.take());
    let temporary = json!({ "code": 100, "message": "internal server error", "temporary": true });
    // What is pooled may answer once more.
    wait::until("the backend to be gone", || {
        let reply = client.call("rpc", &json!({ "method": "x" }));
        (reply["error"] == temporary).then_some(())
    });
    let reply = client.call("subscribe", &json!({ "channel": "x" }));
    assert_eq!(reply["error"], temporary);
    let reply = client.call("publish", &json!({ "channel": "x", "data": 1 }));
    assert_eq!(reply["error"], temporary);
    let mut other = Client::open(&server);
    let reply = other.call("connect", &json!({}));
    assert_eq!(reply["error"], temporary);
}

#[test]
fn c76_status_is_an_error_of_its_own_where_the_configuration_says_so() {
    let backend =
        backend(|asked| Reply::Status(asked.body["data"].as_u64().expect("a status") as u16));
    let server = server(&backend, "");
    let mut client = Client::anonymous(&server);
    let error = |client: &mut Client, status: u16| {
        client.call("rpc", &json!({ "method": "x", "data": status }))["error"].take()
    };
    assert_eq!(
        error(&mut client, 404),
        json!({ "code": 1404, "message": "no such thing", "temporary": true })
    );
    let internal = json!({ "code": 100, "message": "internal server error", "temporary": true });
    for status in [500, 401, 201, 302] {
        assert_eq!(error(&mut client, status), internal, "{status}");
    }
    client.send("rpc", &json!({ "method": "x", "data": 403 }));
    assert_eq!(client.ends_with(4503), "go away");
}

#[test]
fn c77_subscribe_proxy_accepts_rejects_and_modifies() {
    let backend = backend(|asked| match asked.body["channel"].as_str() {
        Some("forced") => Reply::result(json!({
            "info": { "i": 1 }, "b64data": "eyJiIjoxfQ==",
            "override": { "force_recovery": { "value": true }, "presence": { "value": true } },
        })),
        Some("quiet") => Reply::result(json!({ "override": { "presence": { "value": false } } })),
        Some("no") => Reply::Json(json!({ "error": { "code": 403, "message": "no" } })),
        Some("past") => Reply::result(json!({ "expire_at": 1 })),
        Some("out") => Reply::Json(json!({ "disconnect": { "code": 4600, "reason": "out" } })),
        Some("empty") => Reply::Json(json!({})),
        _ => Reply::result(json!({})),
    });
    let server = server(&backend, "");
    let mut client = Client::anonymous(&server);
    backend.asked();
    let all = json!({
        "channel": "plain", "positioned": true, "recoverable": true, "join_leave": true, "data": { "d": 1 },
    });
    assert_eq!(
        client.ok("subscribe", &all),
        json!({}),
        "what the client asks for does not count here"
    );
    let wanted = json!({
        "client": client.id, "transport": "websocket", "protocol": protocol().0, "encoding": protocol().1,
        "user": "42", "channel": "plain", "data": { "d": 1 },
    });
    assert_eq!(backend.asked().body, wanted);
    assert_eq!(client.subscribe("empty"), json!({}));
    let forced = client.subscribe("forced");
    assert_eq!(
        (&forced["recoverable"], &forced["data"]),
        (&json!(true), &json!({ "b": 1 }))
    );
    let presence = client.ok("presence", &json!({ "channel": "forced" }));
    assert_eq!(
        presence["presence"][&client.id]["chan_info"],
        json!({ "i": 1 })
    );
    client.subscribe("quiet");
    let presence = client.ok("presence", &json!({ "channel": "quiet" }));
    assert_eq!(presence["presence"], json!({}));
    let refused = client.call("subscribe", &json!({ "channel": "no" }));
    assert_eq!(refused["error"], json!({ "code": 403, "message": "no" }));
    assert_eq!(
        client.error("subscribe", &json!({ "channel": "past" })),
        110
    );
    assert_eq!(
        client.error("subscribe", &json!({ "channel": "$private" })),
        103,
        "a private channel needs a token"
    );
    client.subscribe("open:x#42");
    client.send("subscribe", &json!({ "channel": "out" }));
    assert_eq!(client.ends_with(4600), "out");
    assert!(
        backend.unread().iter().all(
            |asked| asked.body["channel"] != "$private" && asked.body["channel"] != "open:x#42"
        )
    );
}

#[test]
fn c77_publish_proxy_accepts_rejects_and_modifies() {
    let backend = backend(
        |asked| match (asked.path.as_str(), asked.body["data"].as_str()) {
            ("/publish", Some("replace")) => Reply::result(json!({
                "data": { "new": 1 }, "b64data": "aGk=", "tags": { "k": "v" },
            })),
            ("/publish", Some("no history")) => Reply::result(json!({ "skip_history": true })),
            ("/publish", Some("no")) => {
                Reply::Json(json!({ "error": { "code": 1000, "message": "no" } }))
            }
            ("/publish", Some("out")) => {
                Reply::Json(json!({ "disconnect": { "code": 4601, "reason": "out" } }))
            }
            ("/publish", Some("once")) => Reply::result(json!({ "idempotency_key": "k" })),
            _ => Reply::Json(json!({})),
        },
    );
    let server = server(&backend, "");
    let mut client = Client::anonymous(&server);
    client.subscribe("p");
    backend.asked();
    backend.asked();
    let publish = |client: &mut Client, data: &str| {
        client.call("publish", &json!({ "channel": "p", "data": data }))
    };
    assert_eq!(publish(&mut client, "as it is")["publish"], json!({}));
    let publication = client.publication("p");
    assert_eq!(
        (&publication["data"], &publication["offset"]),
        (&json!("as it is"), &json!(1))
    );
    assert_eq!(publication["info"]["user"], "42");
    let wanted = json!({
        "client": client.id, "transport": "websocket", "protocol": protocol().0, "encoding": protocol().1,
        "user": "42", "channel": "p", "data": "as it is",
    });
    assert_eq!(backend.asked().body, wanted);
    publish(&mut client, "replace");
    let publication = client.publication("p");
    assert_eq!(publication["data"], json!({ "new": 1 }), "raw data wins");
    assert_eq!(publication["tags"], json!({ "k": "v" }));
    publish(&mut client, "no history");
    assert!(client.publication("p").get("offset").is_none());
    for _ in 0..2 {
        assert_eq!(publish(&mut client, "once")["publish"], json!({}));
    }
    assert_eq!(client.publication("p")["offset"], 3);
    assert_eq!(
        publish(&mut client, "no")["error"],
        json!({ "code": 1000, "message": "no" })
    );
    assert_eq!(
        client.error("publish", &json!({ "channel": "open:x", "data": 1 })),
        103,
        "without the hook the namespace decides"
    );
    let history = server.api_result("history", &json!({ "channel": "p", "limit": 0 }));
    assert_eq!(history["offset"], 3, "nothing refused was published");
    client.send("publish", &json!({ "channel": "p", "data": "out" }));
    client.ends_with(4601);
}

#[test]
fn c77_refresh_proxy_prolongs_changes_and_ends_connections() {
    let backend = Backend::start(|asked| match asked.path.as_str() {
        "/connect" => Reply::result(json!({ "user": asked.body["data"], "expire_at": after(1) })),
        "/refresh" => match asked.body["user"].as_str() {
            Some("goes on") => {
                Reply::result(json!({ "expire_at": after(3600), "info": { "n": 2 } }))
            }
            Some("expired") => Reply::result(json!({ "expired": true })),
            Some("nothing") => Reply::Json(json!({})),
            Some("error") => Reply::Json(json!({ "error": { "code": 1, "message": "x" } })),
            _ => Reply::Status(500),
        },
        _ => Reply::Json(json!({})),
    });
    let refresh = format!(
        "[client.proxy.refresh]\nenabled = true\nendpoint = \"{}\"\n",
        backend.url("/refresh")
    );
    let server = server(&backend, &refresh);
    let connect = |user: &str| Client::open(&server).connect(&json!({ "data": user }));
    let mut stays: Vec<Client> = ["goes on", "down"].map(connect).into();
    for client in &stays {
        assert!(
            client.connected.get("expires").is_none(),
            "the server refreshes"
        );
    }
    let mut ends: Vec<Client> = ["expired", "nothing", "error"].map(connect).into();
    for client in &mut ends {
        client.ends_with(3005);
    }
    let mut users: Vec<String> = Vec::new();
    wait::until("five refreshes", || {
        let asked = backend.unread();
        let refreshes = asked.iter().filter(|asked| asked.path == "/refresh");
        users.extend(refreshes.filter_map(|asked| asked.body["user"].as_str().map(str::to_owned)));
        (users.len() >= 5).then_some(())
    });
    users.sort_unstable();
    assert_eq!(users, ["down", "error", "expired", "goes on", "nothing"]);
    for client in &mut stays {
        client.ok("rpc", &json!({ "method": "x" }));
    }
    // The client has no say in it.
    stays[0].send("refresh", &json!({ "token": user("goes on") }));
    stays[0].ends_with(3501);
}

#[test]
fn c77_connection_of_a_hook_without_refresh_hook_is_refreshed_by_token() {
    let backend =
        Backend::start(|_| Reply::result(json!({ "user": "42", "expire_at": after(100) })));
    let server = server(&backend, "");
    let mut client = Client::anonymous(&server);
    assert_eq!(client.connected["expires"], true);
    let ttl = client.connected["ttl"].as_u64().expect("a ttl");
    assert!((1..=100).contains(&ttl), "{ttl}");
    let token = sign(&json!({ "sub": "42", "exp": after(1000) }));
    let refreshed = client.ok("refresh", &json!({ "token": token }));
    assert_eq!(refreshed["expires"], true);
}

#[test]
fn c77_sub_refresh_proxy_prolongs_and_ends_subscriptions() {
    let backend = Backend::start(|asked| match asked.path.as_str() {
        "/connect" => Reply::result(json!({
            "user": "42", "subs": if asked.body["data"] == "server side" { json!({ "ends": { "expire_at": after(1) } }) } else { json!({}) },
        })),
        "/subscribe" => Reply::result(json!({ "expire_at": after(1) })),
        "/sub_refresh" => match asked.body["channel"].as_str() {
            Some("goes on") => Reply::result(json!({ "expire_at": after(3600) })),
            Some("ends") => Reply::result(json!({ "expired": true })),
            Some("nothing") => Reply::Json(json!({})),
            _ => Reply::Status(500),
        },
        _ => Reply::Json(json!({})),
    });
    let server = server(&backend, "");
    let mut client = Client::anonymous(&server);
    for channel in ["goes on", "down", "ends", "nothing"] {
        assert_eq!(client.subscribe(channel), json!({}), "the server refreshes");
    }
    let mut server_side = Client::open(&server).connect(&json!({ "data": "server side" }));
    let mut ended: Vec<Value> = (0..2)
        .map(|_| {
            let push = client.push();
            assert_eq!(push["unsubscribe"]["code"], 2501, "{push}");
            push["channel"].clone()
        })
        .collect();
    ended.sort_by_key(Value::to_string);
    assert_eq!(ended, ["ends", "nothing"]);
    server_side.ends_with(3006);
    for channel in ["goes on", "down"] {
        let still = client.error("subscribe", &json!({ "channel": channel }));
        assert_eq!(still, 105, "{channel} goes on");
    }
    // The client has no say in it.
    client.send(
        "sub_refresh",
        &json!({ "channel": "down", "token": user("42") }),
    );
    client.ends_with(3501);
}

#[test]
fn c77_payload_in_base64_reaches_the_client_as_one_line() {
    // `{"a":` and a line break and `1}`
    let backend = backend(|_| Reply::result(json!({ "b64data": "eyJhIjoKMX0=" })));
    let server = server(&backend, "");
    let mut client = Client::anonymous(&server);
    let reply = client.call("rpc", &json!({ "method": "x" }));
    assert_eq!(reply["rpc"]["data"], json!({ "a": 1 }), "{reply}");
    assert_eq!(client.subscribe("x")["data"], json!({ "a": 1 }));
    client.publish("x", &json!(0));
    assert_eq!(client.publication("x")["data"], json!({ "a": 1 }));
}

#[test]
fn c77_server_unsubscribe_while_the_subscribe_waits_ends_it() {
    let backend = backend(|asked| match asked.path.as_str() {
        "/subscribe" => Reply::Late(Duration::from_millis(500), Box::new(Reply::Json(json!({})))),
        _ => Reply::Json(json!({})),
    });
    let server = server(&backend, "");
    let mut client = Client::anonymous(&server);
    backend.asked();
    let id = client.send("subscribe", &json!({ "channel": "x" }));
    backend.asked();
    server.api_result("unsubscribe", &json!({ "user": "42", "channel": "x" }));
    assert_eq!(client.reply(id)["subscribe"], json!({}));
    assert_eq!(client.push()["unsubscribe"]["code"], 2000);
    let channels = server.api_result("channels", &json!({}));
    assert_eq!(channels["channels"], json!({}));
}
