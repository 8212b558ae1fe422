//! Credentials that change while the log is written: nothing is refused, and nothing is lost.

use std::cell::Cell;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::rc::Rc;

use ringmain::config::Config;
use ringmain::config::durable::Durable;
use ringmain::upstream::log::{Entries as _, Log as _};
use ringmain::upstream::nats::Jetstream;
use serde_json::Value;
use tempfile::TempDir;
use tokio::task::LocalSet;

use crate::lab::{all, append_one, assert_whole, config, open, publication, run, until};
use crate::nats_server::{NatsServer, free_port};

/// Users of a server, each with the password `of-<name>`, in a file that the server reads again when it is told to.
fn write_users(path: &Path, users: &[&str]) {
    let one = |user: &&str| format!("{{ user: {user}, password: of-{user} }}");
    let users: Vec<String> = users.iter().map(one).collect();
    let text = format!("authorization {{ users: [ {} ] }}\n", users.join(", "));
    std::fs::write(path, text).expect("written");
}

/// A server with these users, the file that it has them from, and the port of its pages.
fn with_users(directory: &Path, users: &[&str]) -> (NatsServer, PathBuf, u16) {
    let path = directory.join("nats.conf");
    write_users(&path, users);
    let page = free_port();
    let mut server = NatsServer::stopped(vec![
        format!("--config={}", path.display()),
        format!("--http_port={page}"),
    ]);
    server.restart();
    (server, path, page)
}

/// Lets the server read its users again: whoever is none of them any more is cut off.
fn reread(server: &NatsServer) {
    let pid = server.pid().expect("it runs").to_string();
    let status = Command::new("kill").args(["-HUP", &pid]).status();
    assert!(status.expect("kill").success());
}

/// A whole configuration with this log.
fn reloaded(durable: Durable) -> Config {
    let mut config = Config::built_in();
    config.durable = durable;
    config
}

fn as_user(mut config: Durable, user: &str) -> Durable {
    config.nats.user = user.to_owned();
    config.nats.password.0 = format!("of-{user}");
    config
}

/// May this user come in now?
async fn is_let_in(server: &NatsServer, user: &str) -> bool {
    let options =
        async_nats::ConnectOptions::with_user_and_password(user.into(), format!("of-{user}"));
    options.connect(server.url()).await.is_ok()
}

/// Appends one after the other until it is told to end; how many, of which none was refused.
async fn write(log: Rc<Jetstream>, channel: String, written: Rc<Cell<u64>>, ends: Rc<Cell<bool>>) {
    while !ends.get() {
        let number = written.get() + 1;
        let stored = append_one(&log, publication(&channel, &number.to_string())).await;
        let stored = stored.unwrap_or_else(|error| panic!("{channel} {number}: {error}"));
        assert_eq!(stored.position.offset.0, number);
        written.set(number);
    }
}

/// Writes into some channels for as long as `meanwhile` takes, and looks at what is there afterwards.
async fn while_written<T>(
    log: Jetstream,
    meanwhile: impl AsyncFnOnce(&Jetstream, &dyn Fn() -> u64) -> T,
) -> T {
    let log = Rc::new(log);
    let ends = Rc::new(Cell::new(false));
    let written: Vec<Rc<Cell<u64>>> = (0..8).map(|_| Rc::default()).collect();
    let local = LocalSet::new();
    let writers: Vec<_> = written
        .iter()
        .enumerate()
        .map(|(at, count)| {
            let (log, count, ends) = (Rc::clone(&log), Rc::clone(count), Rc::clone(&ends));
            local.spawn_local(write(log, format!("orders:{at}"), count, ends))
        })
        .collect();
    let counts = || written.iter().map(|count| count.get()).sum();
    let result = local
        .run_until(async {
            let result = meanwhile(&log, &counts).await;
            ends.set(true);
            for writer in writers {
                writer.await.expect("nothing was refused");
            }
            result
        })
        .await;
    for (at, count) in written.iter().enumerate() {
        let (position, entries) = all(&log, &format!("orders:{at}")).await;
        assert_eq!(position.offset.0, count.get());
        assert_eq!(entries.len() as u64, count.get());
        assert_whole(&entries);
    }
    result
}

/// Waits until so many more are stored.
async fn more(counts: &dyn Fn() -> u64, count: u64) {
    let before = counts();
    until("more publications", async || {
        (counts() >= before + count).then_some(())
    })
    .await;
}

#[test]
fn new_user_takes_over_while_publications_are_stored_and_none_is_refused() {
    let directory = TempDir::new().expect("a directory");
    let (server, users, page) = with_users(directory.path(), &["ann", "ben"]);
    run(async {
        let ann = as_user(config(&server), "ann");
        let log = open(&ann).await;
        while_written(log, async |log, counts| {
            more(counts, 200).await;
            for (old, new) in [("ann", "ben"), ("ben", "ann")] {
                log.reload(&reloaded(as_user(ann.clone(), new)));
                more(counts, 200).await;
                until("publications of the new user", async || {
                    publishes_as(page, new).then_some(())
                })
                .await;
                more(counts, 200).await;
                // The old user goes, with all of its connections.
                write_users(&users, &[new]);
                reread(&server);
                until("the old user's end", async || {
                    (!is_let_in(&server, old).await).then_some(())
                })
                .await;
                more(counts, 500).await;
                write_users(&users, &["ann", "ben"]);
                reread(&server);
                until("the old user again", async || {
                    is_let_in(&server, old).await.then_some(())
                })
                .await;
            }
        })
        .await;
    });
}

/// Does the log publish as this user? The server's page about its connections says so: to be let in takes fewer messages.
fn publishes_as(page: u16, user: &str) -> bool {
    let mut stream = TcpStream::connect(("127.0.0.1", page)).expect("the server's pages");
    let ask = b"GET /connz?auth=true HTTP/1.0\r\n\r\n";
    stream.write_all(ask).expect("asked");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("an answer");
    let (_, body) = text.split_once("\r\n\r\n").expect("a body");
    let body: Value = serde_json::from_str(body).expect("JSON");
    let all = body["connections"].as_array().expect("connections");
    let is_ours = |one: &Value| {
        let is_used = one["in_msgs"].as_u64().is_some_and(|count| count > 100);
        one["name"] == "ringmain" && one["authorized_user"] == user && is_used
    };
    all.iter().any(is_ours)
}

#[test]
fn credentials_that_the_server_does_not_take_change_nothing() {
    let directory = TempDir::new().expect("a directory");
    let (server, ..) = with_users(directory.path(), &["ann"]);
    run(async {
        let ann = as_user(config(&server), "ann");
        let log = open(&ann).await;
        while_written(log, async |log, counts| {
            more(counts, 100).await;
            log.reload(&reloaded(as_user(ann.clone(), "eve")));
            more(counts, 1000).await;
            assert_eq!(log.status().down, None);
        })
        .await;
    });
}

#[test]
fn credentials_that_come_while_nobody_is_let_in_open_the_log_by_themselves() {
    let directory = TempDir::new().expect("a directory");
    let (server, ..) = with_users(directory.path(), &["ben"]);
    run(async {
        let ann = as_user(config(&server), "ann");
        let log = Jetstream::connect(&ann).await.expect("settings");
        until("the refusal", async || {
            let down = log.status().down;
            down.filter(|reason| reason.to_lowercase().contains("authorization"))
        })
        .await;
        log.reload(&reloaded(as_user(ann.clone(), "ben")));
        until("the log to open", async || {
            log.status().down.is_none().then_some(())
        })
        .await;
        append_one(&log, publication("orders:1", "x"))
            .await
            .expect("stored");
    });
}
