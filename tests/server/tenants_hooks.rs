//! Hooks of tenants: each has its own targets where it says so, and its own bounds and breakers everywhere.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::backend::{Backend, Reply};
use crate::support::client::{Client, PATH};
use crate::support::http::Http;
use crate::support::process::{Server, Start, config};

/// Everybody's calls go to one backend; tenants `a` and `b`, and what stands in the first one.
fn start(common: &Backend, target: &str, of_a: &str) -> Server {
    let text = config(&format!(
        r#"
[client]
allow_anonymous_connect_without_token = true
concurrency = 16

[rpc.proxy]
endpoint = "{}"
{target}

[rpc.without_namespace]
proxy_enabled = true

[[tenants]]
id = "a"
{of_a}

[[tenants]]
id = "b"
"#,
        common.url("/rpc"),
    ));
    Start::with_config(&text).shards(2).run()
}

/// An anonymous client of a tenant.
fn client(server: &Server, tenant: &str) -> Client {
    let path = match tenant {
        "" => PATH.to_owned(),
        id => format!("/t/{id}{PATH}"),
    };
    Client::open_with(server, &path, &[]).connect(&json!({}))
}

fn rpc(client: &mut Client) -> Value {
    client.call("rpc", &json!({ "method": "x" }))
}

fn breaker(server: &Server, label: &str) -> Option<String> {
    let text = Http::open(server.admin).get("/metrics", &[]).text();
    let start = format!("ringmain_hook_breaker_state{{{label}}} ");
    let mut lines = text.lines();
    lines.find_map(|line| line.strip_prefix(&start).map(str::to_owned))
}

#[test]
fn a_tenant_asks_its_own_targets_in_place_of_everybodys() {
    let says = |who: &'static str| {
        Backend::start(move |asked| match asked.path.as_str() {
            "/connect" => Reply::result(json!({ "user": who })),
            _ => Reply::result(json!({ "data": { "by": who } })),
        })
    };
    let (common, own) = (says("everybody"), says("a"));
    let of_a = format!(
        r#"
[[tenants.proxies]]
name = "rpc.proxy"
endpoint = "{}"
http_headers = ["X-Of-A"]

[[tenants.proxies]]
name = "client.proxy.connect"
endpoint = "{}"
"#,
        own.url("/rpc"),
        own.url("/connect"),
    );
    let server = start(&common, "", &of_a);
    for (tenant, expected) in [("", "everybody"), ("a", "a"), ("b", "everybody")] {
        let path = match tenant {
            "" => PATH.to_owned(),
            id => format!("/t/{id}{PATH}"),
        };
        let headers = [("X-Of-A", "sent")];
        let mut client = Client::open_with(&server, &path, &headers).connect(&json!({}));
        assert_eq!(rpc(&mut client)["rpc"]["data"], json!({ "by": expected }));
        let asked = match tenant {
            "a" => {
                let connect = own.asked();
                assert_eq!(
                    (&*connect.path, &connect.body["tenant"]),
                    ("/connect", &json!("a"))
                );
                own.asked()
            }
            _ => common.asked(),
        };
        let (of, user) = match tenant {
            "a" => (json!("a"), "a"),
            "b" => (json!("b"), ""),
            _ => (Value::Null, ""),
        };
        assert_eq!(
            (&asked.body["tenant"], &asked.body["user"]),
            (&of, &json!(user))
        );
        let header = asked.header("X-Of-A");
        assert_eq!(header, (tenant == "a").then_some("sent"), "{tenant}");
    }
    assert!(own.unread().is_empty() && common.unread().is_empty());
}

#[test]
fn a_backend_that_fails_for_one_tenant_opens_the_breaker_of_that_one() {
    let common = Backend::start(|asked| match asked.body["tenant"].as_str() {
        Some("a") => Reply::Status(500),
        _ => Reply::result(json!({ "data": {} })),
    });
    let server = start(
        &common,
        "breaker = { calls_min = 5, open_for = \"1h\" }",
        "",
    );
    let mut clients = ["", "a", "b"].map(|tenant| client(&server, tenant));
    for _ in 0..20 {
        for (at, client) in clients.iter_mut().enumerate() {
            let reply = rpc(client);
            assert_eq!(reply.get("error").is_some(), at == 1, "{reply}");
        }
    }
    let asked = common.unread();
    let of = |tenant: Option<&str>| {
        let asked = asked.iter();
        asked
            .filter(|one| one.body["tenant"].as_str() == tenant)
            .count()
    };
    assert_eq!((of(None), of(Some("a")), of(Some("b"))), (20, 5, 20));
    assert_eq!(
        breaker(&server, "target=\"rpc.proxy\"").as_deref(),
        Some("0")
    );
    let label = |tenant: &str| format!("tenant=\"{tenant}\",target=\"rpc.proxy\"");
    assert_eq!(breaker(&server, &label("b")).as_deref(), Some("0"));
    assert!(breaker(&server, &label("a")).is_some_and(|state| state != "0"));
    let ready = Http::open(server.admin).get("/ready", &[]).json();
    assert_eq!(ready["hooks"]["a/rpc.proxy"]["breaker"], "open");
    assert_eq!(ready["hooks"]["rpc.proxy"]["breaker"], "closed");
}

#[test]
fn a_backend_that_is_slow_for_one_tenant_takes_no_place_of_another() {
    let common = Backend::start(|asked| match asked.body["tenant"].as_str() {
        Some("a") => Reply::Late(Duration::from_secs(3600), Box::new(Reply::Reset)),
        _ => Reply::result(json!({ "data": {} })),
    });
    let server = start(
        &common,
        "timeout = \"1h\"\nconcurrency_max = 1\nqueue_max = 1\nbreaker = { error_rate = 0 }",
        "",
    );
    let mut slow = client(&server, "a");
    for _ in 0..2 {
        slow.send("rpc", &json!({ "method": "x" }));
    }
    assert_eq!(common.asked().body["tenant"], "a");
    // Its place is taken, and so is the one where a call waits.
    let refused = rpc(&mut client(&server, "a"));
    assert_eq!(refused["error"]["code"], 100);
    for tenant in ["b", "", "b"] {
        let reply = rpc(&mut client(&server, tenant));
        assert!(reply.get("rpc").is_some(), "{tenant}: {reply}");
    }
}
