//! Credentials of the log's NATS server change with a reload, while services publish what must not be lost.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use serde_json::json;
use tempfile::TempDir;

use crate::nats_server::NatsServer;
use crate::support::http::Http;
use crate::support::process::{API_KEY, Start, config};
use crate::support::wait;

fn users(names: &[&str]) -> String {
    let one = |name: &&str| format!("{{ user: {name}, password: of-{name} }}");
    let users: Vec<String> = names.iter().map(one).collect();
    format!("authorization {{ users: [ {} ] }}\n", users.join(", "))
}

#[test]
fn reload_with_another_user_of_nats_refuses_and_loses_no_publication() {
    let directory = TempDir::new().expect("a directory");
    let path = directory.path().join("nats.conf");
    std::fs::write(&path, users(&["ann", "ben"])).expect("written");
    let mut nats = NatsServer::stopped(vec![format!("--config={}", path.display())]);
    nats.restart();
    let text = |user: &str| {
        config(&format!(
            "[durable]\nengine = \"nats\"\n[durable.nats]\nservers = [\"{}\"]\nuser = \"{user}\"\npassword = \"of-{user}\"\n\
             [[channel.namespaces]]\nname = \"orders\"\ndelivery = \"durable\"\n",
            nats.url()
        ))
    };
    let server = Start::with_config(&text("ann")).shards(2).run();
    let publish = |address, number: u64| {
        let body = json!({ "channel": "orders:1", "data": number }).to_string();
        let key = [("X-API-Key", API_KEY)];
        let answer = Http::open(address).post("/api/publish", &key, body.as_bytes());
        answer.json()
    };
    let listen = server.listen;
    wait::until("the log", || publish(listen, 0).get("result").cloned());
    let (ends, stored) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicU64::new(0)),
    );
    let publisher = {
        let (ends, stored) = (Arc::clone(&ends), Arc::clone(&stored));
        std::thread::spawn(move || {
            while !ends.load(Ordering::SeqCst) {
                let number = stored.load(Ordering::SeqCst) + 1;
                let answer = publish(listen, number);
                let offset = answer["result"]["offset"].as_u64();
                assert_eq!(offset, Some(number + 1), "{answer}");
                stored.store(number, Ordering::SeqCst);
            }
        })
    };
    let more = |count: u64| {
        let before = stored.load(Ordering::SeqCst);
        wait::until("more publications", || {
            assert!(!publisher.is_finished(), "one was refused");
            (stored.load(Ordering::SeqCst) >= before + count).then_some(())
        });
    };
    more(50);
    // Whom the server does not know changes nothing.
    server.write_config(&text("eve"));
    server.signal("HUP");
    wait::until("the warning", || {
        server
            .log()
            .contains("the new credentials are not used")
            .then_some(())
    });
    more(50);
    server.write_config(&text("ben"));
    server.signal("HUP");
    wait::until("the other user", || {
        server
            .log()
            .contains("the new credentials are in use")
            .then_some(())
    });
    more(50);
    std::fs::write(&path, users(&["ben"])).expect("written");
    let pid = nats.pid().expect("it runs").to_string();
    let told = Command::new("kill").args(["-HUP", &pid]).status();
    assert!(told.expect("kill").success());
    more(200);
    ends.store(true, Ordering::SeqCst);
    publisher.join().expect("none was refused");
    let log = server.log();
    assert!(
        !log.contains("of-ann") && !log.contains("of-ben") && !log.contains("of-eve"),
        "{log}"
    );
    let (_, since) = log.split_once("the new credentials").expect("the warning");
    assert!(!since.contains("the durable log is down"), "{since}");
}
