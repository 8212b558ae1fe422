//! SIGHUP re-reads the configuration: what can change live does, the rest is refused as a whole.

use std::net::{SocketAddr, TcpStream};

use serde_json::json;

use crate::support::client::{Client, tcp};
use crate::support::http::Http;
use crate::support::process::{Server, config};
use crate::support::token::sign;
use crate::support::wait;

const BEFORE: &str = r#"
[client]
allow_anonymous_connect_without_token = true

[[channel.namespaces]]
name = "before"
allow_subscribe_for_client = true
allow_subscribe_for_anonymous = true
"#;

fn subscribe_code(server: &Server, channel: &str) -> u64 {
    let reply = Client::anonymous(server).call("subscribe", &json!({ "channel": channel }));
    reply["error"]["code"].as_u64().unwrap_or(0)
}

#[test]
fn sighup_applies_namespaces_and_keys_to_old_and_new_connections() {
    let server = Server::start(&config(BEFORE));
    let mut old = Client::anonymous(&server);
    old.subscribe("before:a");
    assert_eq!(subscribe_code(&server, "after:a"), 102);
    server.write_config(
        &config(&BEFORE.replace("\"before\"", "\"after\""))
            .replace("api-key-of-the-tests", "new-key"),
    );
    server.signal("HUP");
    wait::until("the new namespace", || {
        (subscribe_code(&server, "after:a") == 0).then_some(())
    });
    assert_eq!(subscribe_code(&server, "before:b"), 102);
    old.subscribe("after:b");
    let status = |key| {
        Http::open(server.listen)
            .post("/api/info", &[("X-API-Key", key)], b"{}")
            .status
    };
    assert_eq!(status("new-key"), 200);
    assert_eq!(status("api-key-of-the-tests"), 401);
}

#[test]
fn subscribers_of_a_namespace_that_a_reload_removes_are_told() {
    let server = Server::start(&config(BEFORE));
    let mut client = Client::anonymous(&server);
    client.subscribe("before:a");
    let token = sign(&json!({ "sub": "7", "channels": ["before:b"] }));
    let mut by_server = Client::with_token(&server, &token);
    server.write_config(&config(&BEFORE.replace("\"before\"", "\"after\"")));
    server.signal("HUP");
    for (client, channel) in [(&mut client, "before:a"), (&mut by_server, "before:b")] {
        let push = client.push();
        assert_eq!(push["channel"], channel, "{push}");
        // A code below 2500: nobody tries again.
        assert_eq!(
            push["unsubscribe"],
            json!({ "code": 2000, "reason": "namespace removed" })
        );
    }
    assert_eq!(
        client.error("subscribe", &json!({ "channel": "before:a" })),
        102
    );
    client.subscribe("after:a");
}

#[test]
fn subscribers_that_rely_on_a_history_that_a_reload_takes_away_subscribe_anew() {
    let kept = format!("{BEFORE}history_size = 5\nhistory_ttl = \"60s\"\nforce_recovery = true\n");
    let server = Server::start(&config(&kept));
    let mut client = Client::anonymous(&server);
    assert_eq!(client.subscribe("before:a")["recoverable"], true);
    server.write_config(&config(BEFORE));
    server.signal("HUP");
    assert_eq!(client.push()["unsubscribe"]["code"], 2500);
    assert!(client.subscribe("before:a").get("recoverable").is_none());
}

/// The reload is refused with a warning that contains `reason`; nothing has changed.
fn is_refused(replacement: &str, reason: &str) {
    let mut server = Server::start(&config(BEFORE));
    let logged = server.log().len();
    server.write_config(replacement);
    server.signal("HUP");
    let line = wait::until("the refusal in the log", || {
        let log = server.log();
        let found = log[logged..]
            .lines()
            .find(|line| line.contains("\"WARN\"") || line.contains("\"ERROR\""));
        found.map(str::to_owned)
    });
    assert!(line.contains(reason), "{line}");
    assert!(
        !line.contains("token-secret-of-the-tests"),
        "secrets stay out of the log: {line}"
    );
    assert_eq!(subscribe_code(&server, "before:a"), 0);
    assert_eq!(
        subscribe_code(&server, "after:a"),
        102,
        "nothing of a refused configuration is applied"
    );
    assert!(server.is_running());
}

#[test]
fn sighup_refuses_as_a_whole_what_is_fixed_at_start() {
    let new = config(&BEFORE.replace("\"before\"", "\"after\"")) + "\n[server]\nbacklog = 77\n";
    is_refused(&new, "backlog");
}

#[test]
fn sighup_refuses_a_configuration_with_an_error() {
    is_refused(&config("[client]\nchanel_limit = 3\n"), "channel_limit");
    is_refused("this is not = = TOML", "ringmain.toml");
}

/// Seconds after which the kernel asks the peer of the server's end of this connection whether it is there.
fn asked_after(client: &TcpStream) -> Option<u64> {
    let port = |address: std::io::Result<SocketAddr>| address.expect("an address").port();
    let (server, own) = (port(client.peer_addr()), port(client.local_addr()));
    let table = std::fs::read_to_string("/proc/net/tcp").expect("the kernel's table");
    let row = table.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let is_its = fields.get(1)?.ends_with(&format!(":{server:04X}"))
            && fields.get(2)?.ends_with(&format!(":{own:04X}"));
        // Timer 2 asks peers that are silent.
        let hundredths = fields.get(5)?.strip_prefix("02:")?;
        is_its.then(|| u64::from_str_radix(hundredths, 16).expect("hundredths of a second"))
    });
    row.map(|hundredths| hundredths.div_ceil(100))
}

#[test]
fn sighup_changes_how_long_the_kernel_waits_for_peers_that_say_nothing() {
    let server = Server::start(&config(BEFORE));
    let before = tcp(server.listen);
    let asked = wait::until("the connection to be taken in", || asked_after(&before));
    assert!((10..=25).contains(&asked), "ping_interval: {asked}");
    let slower = BEFORE.replace("[client]", "[client]\nping_interval = \"100s\"");
    server.write_config(&config(&slower));
    server.signal("HUP");
    let asked = wait::until("the new interval", || {
        let after = tcp(server.listen);
        let asked = wait::until("the connection to be taken in", || asked_after(&after));
        (asked > 25).then_some(asked)
    });
    assert!((80..=100).contains(&asked), "ping_interval: {asked}");
}
