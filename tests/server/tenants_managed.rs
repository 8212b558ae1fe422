//! Tenants that come, change and go while the proxy runs: from a directory of files, and through the admin listener.

use std::path::Path;
use std::process::Command;

use jsonwebtoken::Algorithm;
use serde_json::{Value, json};

use crate::support::client::{Client, PATH, tcp, upgrade_over};
use crate::support::http::{Http, Response};
use crate::support::process::{API_KEY, Server, Start, config};
use crate::support::token::sign_with;
use crate::support::wait;

const SECRET: &str = "the secret of a tenant that is managed";

/// Channels of everybody, and one set for tenants; the log is where it is said.
fn rules(log: &Path, more: &str) -> String {
    config(&format!(
        r#"
{more}
[durable.embedded]
directory = "{}"

[channel.without_namespace]
allow_subscribe_for_client = true

[[channel.namespaces]]
name = "orders"
delivery = "durable"
allow_subscribe_for_client = true

[[channel_sets]]
name = "rooms"
[[channel_sets.namespaces]]
name = "room"
allow_subscribe_for_client = true
"#,
        log.display()
    ))
}

fn tenants_in(directory: &Path) -> String {
    format!("[server]\ntenants_directory = \"{}\"", directory.display())
}

fn path_of(tenant: &str) -> String {
    format!("/t/{tenant}{PATH}")
}

/// A client of a tenant that has `SECRET`.
fn client_of(server: &Server, tenant: &str) -> Client {
    let token = sign_with(&json!({ "sub": "42" }), Algorithm::HS256, SECRET);
    Client::open_with(server, &path_of(tenant), &[]).connect(&json!({ "token": token }))
}

fn is_there(server: &Server, tenant: &str) -> bool {
    upgrade_over(tcp(server.listen), &path_of(tenant), &[]).is_ok()
}

fn told(server: &Server, text: &str) {
    wait::until(text, || server.log().contains(text).then_some(()));
}

#[test]
fn files_of_a_directory_are_tenants_and_come_and_go_with_reloads() {
    let directory = tempfile::tempdir().expect("a directory");
    let tenants = directory.path().join("tenants.d");
    std::fs::create_dir(&tenants).expect("made");
    let write = |name: &str, text: &str| std::fs::write(tenants.join(name), text).expect("written");
    let one = |id: &str| format!("id = \"{id}\"\ntoken = {{ hmac_secret_key = \"{SECRET}\" }}\n");
    write("acme.toml", &one("acme"));
    write(".bolt.toml", &one("bolt"));
    write("bolt.toml~", &one("bolt"));
    let log = directory.path().join("log");
    let server = Start::with_config(&rules(&log, &tenants_in(&tenants)))
        .shards(2)
        .run();
    let mut acme = client_of(&server, "acme");
    acme.subscribe("chat");
    assert!(!is_there(&server, "bolt"), "what is hidden is not meant");
    // What is wrong is told with its place, and nothing has changed.
    write("bolt.toml", "id = \"bolt\"\nhosts = [\"a b\"]");
    server.signal("HUP");
    told(&server, "bolt.toml:2");
    assert!(!is_there(&server, "bolt"));
    write("bolt.toml", &one("bolt"));
    server.signal("HUP");
    told(&server, "configuration reloaded");
    let mut bolt = client_of(&server, "bolt");
    bolt.subscribe("chat");
    std::fs::remove_file(tenants.join("acme.toml")).expect("removed");
    server.signal("HUP");
    acme.ends_with(3503);
    assert!(!is_there(&server, "acme"));
    bolt.ok("unsubscribe", &json!({ "channel": "chat" }));
}

const ADMIN_KEY: &str = "the-key-of-the-deploys";

/// A log of its own, and a key of the admin listener with a name.
fn start(directory: &Path, more: &str) -> Server {
    let more = format!("[[admin.keys]]\nname = \"deploys\"\nkey = \"{ADMIN_KEY}\"\n{more}");
    Start::with_config(&rules(&directory.join("log"), &more))
        .shards(3)
        .run()
}

fn managed(server: &Server, method: &str, path: &str, body: &str) -> Response {
    let headers = [
        ("X-API-Key", ADMIN_KEY),
        ("X-Request-Id", "deploy-7"),
        ("Content-Type", "application/json"),
    ];
    let path = format!("/admin/tenants{path}");
    Http::open(server.admin).request(method, &path, &headers, body.as_bytes())
}

fn put(server: &Server, tenant: &Value) -> Value {
    let response = managed(server, "POST", "", &tenant.to_string());
    assert_eq!(response.status, 200, "{}", response.text());
    response.json()
}

fn listed(server: &Server) -> Value {
    let response = managed(server, "GET", "", "");
    assert_eq!(response.status, 200, "{}", response.text());
    response.json()
}

fn ids(list: &Value) -> Vec<&str> {
    fn id(tenant: &Value) -> &str {
        tenant["id"].as_str().expect("an id")
    }
    let tenants = list["tenants"].as_array().expect("a list");
    tenants.iter().map(id).collect()
}

fn tenant(id: &str) -> Value {
    json!({ "id": id, "token": { "hmac_secret_key": SECRET } })
}

#[test]
fn a_tenant_of_the_api_works_when_it_is_answered_and_survives_a_restart() {
    let directory = tempfile::tempdir().expect("a directory");
    let server = start(
        directory.path(),
        "[[tenants]]\nid = \"filed\"\ntoken = { hmac_secret_key = \"the secret of a tenant that is managed\" }",
    );
    let mut filed = client_of(&server, "filed");
    filed.subscribe("chat");
    for round in 0..20 {
        let id = format!("t{round}");
        let done = put(&server, &tenant(&id));
        assert_eq!(
            (&done["tenant"], &done["change"], &done["request_id"]),
            (&json!(id), &json!("added"), &json!("deploy-7"))
        );
        // Every shard, and the log, know it now.
        for _ in 0..4 {
            client_of(&server, &id).subscribe("orders:1");
        }
        let path = format!("/t/{id}/api/publish");
        let body = json!({ "channel": "orders:1", "data": 1 }).to_string();
        let headers = [("X-API-Key", API_KEY)];
        let answer = Http::open(server.listen).post(&path, &headers, body.as_bytes());
        assert_eq!(answer.json()["result"]["offset"], 1, "{}", answer.text());
    }
    let mut more = tenant("t3");
    more["channel_set"] = json!("rooms");
    more["hosts"] = json!(["t3.test"]);
    let done = put(&server, &more);
    assert_eq!(
        (&done["change"], &done["keys"]),
        (&json!("changed"), &json!(["channel_set", "hosts"]))
    );
    let mut t3 = client_of(&server, "t3");
    assert_eq!(
        t3.error("subscribe", &json!({ "channel": "orders:1" })),
        102
    );
    t3.subscribe("room:1");
    let mut t4 = client_of(&server, "t4");
    t4.subscribe("chat");
    let gone = managed(&server, "DELETE", "/t4", "").json();
    assert_eq!(
        (&gone["change"], &gone["tenant"]),
        (&json!("removed"), &json!("t4"))
    );
    t4.ends_with(3503);
    assert!(!is_there(&server, "t4"));
    t3.ok("unsubscribe", &json!({ "channel": "room:1" }));
    filed.ok("unsubscribe", &json!({ "channel": "chat" }));
    drop((filed, t3, t4, server));
    let server = start(directory.path(), "");
    let list = listed(&server);
    assert_eq!(ids(&list).len(), 19);
    assert!(!ids(&list).contains(&"t4") && !is_there(&server, "t4"));
    client_of(&server, "t3").subscribe("room:1");
    client_of(&server, "t19").subscribe("orders:1");
}

#[test]
fn what_breaks_a_rule_is_refused_with_the_reason_and_leaves_no_trace() {
    let directory = tempfile::tempdir().expect("a directory");
    let server = start(
        directory.path(),
        "[[tenants]]\nid = \"filed\"\nhosts = [\"filed.test\"]\ntoken = { issuer = \"id.filed\" }",
    );
    put(&server, &tenant("own"));
    for (method, path, body, status, reason, says) in [
        (
            "POST",
            "",
            r#"{"id":"filed"}"#,
            409,
            "in_file",
            "ringmain.toml:",
        ),
        ("DELETE", "/filed", "", 409, "in_file", "ringmain.toml:"),
        ("DELETE", "/never", "", 404, "unknown", "no such tenant"),
        ("DELETE", "/A%20B", "", 404, "unknown", "no such tenant"),
        (
            "POST",
            "",
            r#"{"id":"x","hosts":["filed.test"]}"#,
            422,
            "refused",
            "repeats what stands at",
        ),
        (
            "POST",
            "",
            r#"{"id":"x","token":{"issuer":"id.filed"}}"#,
            422,
            "refused",
            "token.issuer",
        ),
        (
            "POST",
            "",
            r#"{"id":"x","channel_set":"none"}"#,
            422,
            "refused",
            "`channel_sets` with this name",
        ),
        (
            "POST",
            "",
            r#"{"id":"own","channel_set":"none"}"#,
            422,
            "refused",
            "`channel_sets` with this name",
        ),
        (
            "POST",
            "",
            r#"{"id":"x","host":["h"]}"#,
            422,
            "refused",
            "did you mean",
        ),
        (
            "POST",
            "",
            r#"{"id":"default"}"#,
            422,
            "refused",
            "\"default\"",
        ),
        (
            "POST",
            "",
            r#"{"id":"X"}"#,
            400,
            "bad_request",
            "lower-case",
        ),
        ("POST", "", r#"{"id":"x""#, 400, "bad_request", "not JSON"),
    ] {
        let response = managed(&server, method, path, body);
        let answer = response.json();
        assert_eq!(response.status, status, "{body}: {answer}");
        assert_eq!(answer["error"]["reason"], reason, "{body}: {answer}");
        assert_eq!(answer["request_id"], "deploy-7");
        let text = answer["error"]["message"].as_str().expect("a text");
        assert!(text.contains(says), "{body}: {text}");
    }
    assert_eq!(ids(&listed(&server)), ["filed", "own"]);
    client_of(&server, "own").subscribe("orders:1");
    for key in ["", "another", API_KEY] {
        let headers = [("X-API-Key", key), ("Content-Type", "application/json")];
        let mut http = Http::open(server.admin);
        let body = tenant("x").to_string();
        assert_eq!(
            http.post("/admin/tenants", &headers, body.as_bytes())
                .status,
            401
        );
        assert_eq!(http.get("/admin/tenants", &headers).status, 401);
        assert_eq!(
            http.request("DELETE", "/admin/tenants/own", &headers, b"")
                .status,
            401
        );
    }
}

#[test]
fn each_change_is_logged_with_who_and_what_and_no_secret_is_shown() {
    let directory = tempfile::tempdir().expect("a directory");
    let server = start(directory.path(), "");
    let mut own = tenant("own");
    own["keys"] = json!([{ "name": "service", "key": "a key that nobody sees" }]);
    put(&server, &own);
    let log = server.log();
    let line = log.lines().find(|line| line.contains("tenant added"));
    let line = line.expect("a line");
    for part in [
        "\"own\"",
        "deploys",
        "deploy-7",
        "token.hmac_secret_key",
        "keys",
    ] {
        assert!(line.contains(part), "{part}: {line}");
    }
    let list = listed(&server);
    let one = &list["tenants"][0];
    assert_eq!(one["token"], json!({ "hmac_secret_key": "***" }));
    assert_eq!(one["keys"], json!([{ "name": "service", "key": "***" }]));
    assert_eq!(
        (&one["kept"], &one["changed_by"], &one["request_id"]),
        (&json!(true), &json!("deploys"), &json!("deploy-7"))
    );
    for text in [&log, &list.to_string()] {
        assert!(!text.contains(SECRET) && !text.contains("nobody sees"));
    }
}

#[test]
fn a_file_that_takes_what_a_kept_tenant_has_is_refused_and_at_a_start_only_that_one_is_left_out() {
    let directory = tempfile::tempdir().expect("a directory");
    let server = start(directory.path(), "");
    let mut own = tenant("own");
    own["hosts"] = json!(["own.test"]);
    put(&server, &own);
    put(&server, &tenant("other"));
    let taken = "[[tenants]]\nid = \"filed\"\nhosts = [\"own.test\"]\n";
    let more = format!("[[admin.keys]]\nname = \"deploys\"\nkey = \"{ADMIN_KEY}\"\n{taken}");
    server.write_config(&rules(&directory.path().join("log"), &more));
    server.signal("HUP");
    told(&server, "tenant `own`, added at /admin/tenants: `tenants");
    assert_eq!(ids(&listed(&server)), ["other", "own"]);
    drop(server);
    let server = start(directory.path(), taken);
    let list = listed(&server);
    assert_eq!(ids(&list), ["filed", "other"]);
    assert_eq!(list["left_out"][0]["id"], "own");
    client_of(&server, "other").subscribe("chat");
    assert!(!is_there(&server, "own"));
    // What is amiss with it can be mended, or it can go.
    put(&server, &tenant("own"));
    client_of(&server, "own").subscribe("chat");
    assert_eq!(listed(&server)["left_out"], json!([]));
    assert_eq!(managed(&server, "DELETE", "/own", "").status, 200);
}

#[test]
fn without_a_durable_log_it_is_said_what_to_configure() {
    let server = Server::start(&config("[[tenants]]\nid = \"filed\"\n"));
    let headers = [("X-API-Key", API_KEY), ("Content-Type", "application/json")];
    let mut http = Http::open(server.admin);
    let response = http.post("/admin/tenants", &headers, br#"{"id":"x"}"#);
    let answer = response.json();
    assert_eq!(
        (response.status, &answer["error"]["reason"]),
        (501, &json!("no_log"))
    );
    let text = answer["error"]["message"].as_str().expect("a text");
    assert!(
        text.contains("delivery = \"durable\"") && text.contains("tenants_directory"),
        "{text}"
    );
    assert_eq!(ids(&http.get("/admin/tenants", &headers).json()), ["filed"]);
}

#[test]
fn tenants_are_added_listed_and_removed_on_the_command_line() {
    let directory = tempfile::tempdir().expect("a directory");
    let server = start(directory.path(), "[[tenants]]\nid = \"filed\"");
    let run = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ringmain"));
        let address = server.admin.to_string();
        let target = ["--address", &address, "--key", ADMIN_KEY];
        let output = command.arg("tenants").args(arguments).args(target).output();
        let output = output.expect("the binary starts");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        (
            output.status.code(),
            text + &String::from_utf8_lossy(&output.stderr),
        )
    };
    let file = directory.path().join("acme.toml");
    let path = file.to_str().expect("a path");
    std::fs::write(
        &file,
        format!(
            "id = \"acme\"\nhosts = [\"acme.test\"]\n[token]\nhmac_secret_key = \"{SECRET}\"\n"
        ),
    )
    .expect("written");
    let (status, text) = run(&["add", path]);
    assert_eq!(status, Some(0), "{text}");
    assert!(text.contains("tenant acme is added (request "), "{text}");
    client_of(&server, "acme").subscribe("chat");
    let (_, text) = run(&["list"]);
    assert!(
        text.contains("acme.test") && text.contains("deploys") && text.contains("a file"),
        "{text}"
    );
    let (_, text) = run(&["list", "--json"]);
    assert!(
        text.contains("\"hmac_secret_key\":\"***\"") && !text.contains(SECRET),
        "{text}"
    );
    let (status, text) = run(&["remove", "filed"]);
    assert!(
        status == Some(1) && text.contains("409") && text.contains("ringmain.toml"),
        "{text}"
    );
    let (status, text) = run(&["remove", "acme"]);
    assert!(
        status == Some(0) && text.contains("acme is removed"),
        "{text}"
    );
    assert!(!is_there(&server, "acme"));
    std::fs::write(&file, "id = \"acme").expect("written");
    assert_eq!(run(&["add", path]).0, Some(2));
}
