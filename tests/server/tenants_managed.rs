//! Tenants that come, change and go while the proxy runs: from a directory of files, and through the admin listener.

use std::path::Path;

use jsonwebtoken::Algorithm;
use serde_json::json;

use crate::support::client::{Client, PATH, tcp, upgrade_over};
use crate::support::process::{Server, Start, config};
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
