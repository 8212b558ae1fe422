//! Both sides are killed in turns while others write: every row that was committed is published, and none twice.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use crate::lab::{KEPT_TABLE, TABLE, publications, rules, source};
use crate::postgres_server::{Database, PostgresServer};
use crate::support::process::{Server, Start};
use crate::support::wait::until;

const ROUNDS: usize = 10;
/// Another number of them.
const ROUNDS_VARIABLE: &str = "RINGMAIN_SOURCE_KILLS";
const WRITERS: usize = 3;
const CHANNELS: i64 = 4;

/// What the writers know of their rows.
#[derive(Default)]
struct Book {
    /// Committed.
    sure: BTreeSet<i64>,
    /// The server went away while it was asked to commit them.
    unsure: BTreeSet<i64>,
}

/// Writes rows in transactions that overlap and commit in another order than they began, until told to stop.
fn write(port: u16, next: &AtomicI64, stop: &AtomicBool) -> Book {
    let mut book = Book::default();
    while !stop.load(Ordering::Relaxed) {
        let pause = || std::thread::park_timeout(Duration::from_millis(5));
        let (Some(first), Some(second)) = (Database::try_open(port), Database::try_open(port))
        else {
            pause();
            continue;
        };
        while !stop.load(Ordering::Relaxed) {
            let insert = |database: &Database| {
                let rows: Vec<i64> = (0..3)
                    .map(|_| next.fetch_add(1, Ordering::Relaxed))
                    .collect();
                let values: Vec<String> = rows
                    .iter()
                    .map(|n| format!("('orders:{}', '{{\"n\": {n}}}')", n % CHANNELS))
                    .collect();
                let statement = format!(
                    "begin; insert into outbox (channel, data) values {}",
                    values.join(", ")
                );
                database.try_run(&statement).map(|()| rows)
            };
            let (Ok(early), Ok(late)) = (insert(&first), insert(&second)) else {
                break;
            };
            let mut is_away = false;
            for (database, rows) in [(&second, late), (&first, early)] {
                pause();
                match database.try_run("commit; notify outbox") {
                    Ok(()) => book.sure.extend(rows),
                    Err(_) => {
                        book.unsure.extend(rows);
                        is_away = true;
                    }
                }
            }
            if is_away {
                break;
            }
        }
    }
    book
}

fn rounds() -> usize {
    let said = std::env::var(ROUNDS_VARIABLE).ok();
    said.and_then(|text| text.parse().ok()).unwrap_or(ROUNDS)
}

fn go_through(table: &str, more: &str, start: impl Fn(&str) -> Server, rounds: usize) {
    let mut database = PostgresServer::start();
    database.open().run(table);
    let one = source(
        &database,
        "poll_interval = \"50ms\"\nbatch = 50",
        &format!("listen = \"outbox\"\n{more}"),
    );
    let (next, stop) = (
        Arc::new(AtomicI64::new(0)),
        Arc::new(AtomicBool::new(false)),
    );
    let port = database.port();
    let writers: Vec<_> = (0..WRITERS)
        .map(|_| {
            let (next, stop) = (Arc::clone(&next), Arc::clone(&stop));
            std::thread::spawn(move || write(port, &next, &stop))
        })
        .collect();
    let mut server = start(&one);
    for round in 0..rounds {
        let before = server.metric("ringmain_source_published_total");
        until("publications in this round", || {
            let now = server.metric("ringmain_source_published_total");
            (now > before + 20.0).then_some(())
        });
        if round % 2 == 0 {
            server.signal("KILL");
            server.exit_status();
            server = start(&one);
        } else {
            database.kill();
            database.restart();
        }
    }
    stop.store(true, Ordering::Relaxed);
    let mut book = Book::default();
    for writer in writers {
        let one = writer.join().expect("a writer");
        book.sure.extend(one.sure);
        book.unsure.extend(one.unsure);
    }
    assert!(book.sure.len() > rounds * 20, "{}", book.sure.len());
    let seen = |server: &Server| {
        let mut seen = Vec::new();
        for channel in 0..CHANNELS {
            let all = publications(server, &format!("orders:{channel}"));
            seen.extend(all.iter().map(|one| one["data"]["n"].as_i64().expect("n")));
        }
        seen
    };
    let all = until("everything that was committed", || {
        let all = seen(&server);
        let once: BTreeSet<i64> = all.iter().copied().collect();
        book.sure.is_subset(&once).then_some(all)
    });
    let once: BTreeSet<i64> = all.iter().copied().collect();
    assert_eq!(once.len(), all.len(), "none twice");
    let strange: Vec<&i64> = once
        .iter()
        .filter(|n| !book.sure.contains(n) && !book.unsure.contains(n))
        .collect();
    assert!(strange.is_empty(), "never committed: {strange:?}");
}

#[test]
fn kills_of_both_sides_lose_no_row_and_publish_none_twice_where_rows_are_deleted() {
    let directory = tempfile::tempdir().expect("a directory");
    let start = |one: &str| Server::start(&rules(directory.path(), one));
    go_through(TABLE, "", start, rounds());
}

#[test]
fn kills_of_both_sides_lose_no_row_and_publish_none_twice_where_rows_stay() {
    let directory = tempfile::tempdir().expect("a directory");
    let start = |one: &str| Server::start(&rules(directory.path(), one));
    go_through(KEPT_TABLE, "delete = false", start, rounds());
}

#[cfg(feature = "nats")]
#[test]
fn kills_of_both_sides_lose_no_row_and_publish_none_twice_with_the_log_in_jetstream() {
    let nats = crate::nats_server::NatsServer::start();
    let directory = tempfile::tempdir().expect("a directory");
    let start = |one: &str| {
        let rules = rules(directory.path(), one).replace(
            "[durable.embedded]",
            &format!(
                "[durable]\nengine = \"nats\"\n[durable.nats]\nservers = [\"{}\"]\n[durable.embedded]",
                nats.url()
            ),
        );
        Start::with_config(&rules).run()
    };
    go_through(TABLE, "", start, 4);
}
