//! How many rows of PostgreSQL become publications in a second, and how long is the way from a commit to a subscriber?
//!
//! `cargo bench --bench sources [-- --rows N]`; tiny under `cargo test --benches`. The database waits for its disk, and so does
//! the embedded log. Everything is on this machine.

#[expect(dead_code, reason = "a bench uses a part of what tests share")]
#[path = "../tests/support/postgres_server.rs"]
mod postgres_server;
#[expect(dead_code, reason = "a bench uses a part of what tests share")]
#[path = "../tests/support/support.rs"]
mod support;

use std::sync::mpsc;
use std::time::{Duration, Instant};

use postgres_server::{PASSWORD, PostgresServer, ROLE};
use serde_json::json;
use support::client::Client;
use support::process::{Server, Start, config};

/// Bytes of a payload, about.
const PAYLOAD: usize = 128;
/// Rows in one transaction of those that are there before the source is.
const CHUNK: usize = 10_000;
/// Channels that they go to.
const CHANNELS: usize = 64;
/// Commits in a second while the way of each is measured.
const RATE: u64 = 200;

const TABLE: &str = "create table outbox (id bigserial primary key, channel text not null, data jsonb not null, \
    xact xid8 not null default pg_current_xact_id()); create index on outbox (xact, id); \
    create function told() returns trigger language plpgsql as $$ begin notify outbox; return null; end $$; \
    create trigger told after insert on outbox for each statement execute function told()";

#[expect(clippy::disallowed_methods, reason = "a bench measures time")]
fn now() -> Instant {
    Instant::now()
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let is_bench = args.iter().any(|arg| arg == "--bench");
    let rows = args.iter().position(|arg| arg == "--rows");
    let rows = rows.and_then(|at| args.get(at + 1)?.parse().ok());
    let rows: usize = rows.unwrap_or(if is_bench { 300_000 } else { 2_000 });
    let commits = if is_bench { 3_000 } else { 50 };
    for delete in [true, false] {
        let database = PostgresServer::start_with(&[]);
        database.open().run(TABLE);
        println!("delete = {delete}");
        throughput(&database, delete, rows);
        latency(&database, delete, commits);
    }
}

fn rules(database: &PostgresServer, delete: bool, directory: &std::path::Path) -> String {
    config(&format!(
        "[durable.embedded]\ndirectory = \"{}\"\n\
         [[channel.namespaces]]\nname = \"orders\"\ndelivery = \"durable\"\nallow_subscribe_for_client = true\n\
         [[sources]]\nname = \"shop\"\n[sources.postgres]\nport = {}\ndatabase = \"postgres\"\nuser = \"{ROLE}\"\n\
         password = \"{PASSWORD}\"\nlisten = \"outbox\"\ndelete = {delete}\n",
        directory.display(),
        database.port()
    ))
}

fn serve(database: &PostgresServer, delete: bool, directory: &std::path::Path) -> Server {
    Start::with_config(&rules(database, delete, directory)).run()
}

/// Rows that wait for the source when it comes.
fn throughput(database: &PostgresServer, delete: bool, rows: usize) {
    let sql = database.open();
    let mut from = 0;
    while from < rows {
        let until = (from + CHUNK).min(rows);
        sql.run(&format!(
            "insert into outbox (channel, data) select 'orders:' || n % {CHANNELS}, \
             jsonb_build_object('n', n, 'x', repeat('x', {PAYLOAD} - 20)) from generate_series({}, {until}) n",
            from + 1
        ));
        from = until;
    }
    sql.run("insert into outbox (channel, data) values ('orders:last', '{}')");
    for statement in ["vacuum analyze outbox", "checkpoint"] {
        sql.run(statement);
    }
    let directory = tempfile::tempdir_in(".").expect("a directory");
    let server = serve(database, delete, directory.path());
    let since = now();
    loop {
        let end = server.api_result("history", &json!({ "channel": "orders:last" }));
        if end["offset"] == 1 {
            break;
        }
        assert!(since.elapsed() < Duration::from_secs(300), "too slow");
        std::thread::park_timeout(Duration::from_millis(20));
    }
    let took = since.elapsed().as_secs_f64();
    println!(
        "  {rows} rows in {took:.2} s: {:.0} rows/s",
        rows as f64 / took
    );
    sql.run("truncate outbox");
}

/// One row after the other, and when each is with a subscriber.
fn latency(database: &PostgresServer, delete: bool, commits: u64) {
    let directory = tempfile::tempdir_in(".").expect("a directory");
    let server = serve(database, delete, directory.path());
    let mut client = Client::user(&server, "42");
    client.subscribe("orders:1");
    let (written, times) = mpsc::channel::<(Instant, Instant)>();
    let port = database.port();
    let writer = std::thread::spawn(move || {
        let sql = postgres_server::Database::try_open(port).expect("a server");
        let begun = now();
        for n in 0..commits {
            let due = begun + Duration::from_micros(n * 1_000_000 / RATE);
            while let Some(rest) = due.checked_duration_since(now()) {
                std::thread::park_timeout(rest);
            }
            sql.run(&format!(
                "begin; insert into outbox (channel, data) values ('orders:1', '{{\"n\": {n}}}')"
            ));
            let sent = now();
            sql.run("commit");
            written.send((sent, now())).expect("somebody who counts");
        }
    });
    let mut arrived = Vec::new();
    for n in 0..commits {
        let publication = client.publication("orders:1");
        assert_eq!(publication["data"]["n"], n);
        arrived.push(now());
    }
    writer.join().expect("a writer");
    let (mut whole, mut after) = (Vec::new(), Vec::new());
    for (at, (sent, done)) in arrived.into_iter().zip(&times) {
        whole.push(at - sent);
        after.push(at.saturating_duration_since(done));
    }
    told("  from the order to commit to the subscriber", whole);
    told("  from the answer to commit to the subscriber", after);
}

fn told(what: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let part = |share: f64| {
        let at = ((times.len() as f64 * share) as usize).min(times.len() - 1);
        times[at].as_secs_f64() * 1e3
    };
    println!(
        "{what}: p50 {:.1} ms, p99 {:.1} ms, most {:.1} ms",
        part(0.5),
        part(0.99),
        part(1.0)
    );
}
