//! Tables: what becomes of rows, in which order, and what of those that cannot be published.

use serde_json::json;

use crate::lab::{
    KEPT_TABLE, TABLE, numbers, publications, rules, source, until_count, until_metric,
    until_warned, warnings,
};
use crate::postgres_server::{PostgresServer, ROLE};
use crate::support::client::Client;
use crate::support::process::{Server, Start};
use crate::support::wait::until;

fn insert(n: i64) -> String {
    format!(r#"insert into outbox (channel, data) values ('orders:1', '{{"n": {n}}}')"#)
}

#[test]
fn rows_become_publications_with_everything_that_stands_in_them_and_are_deleted() {
    let database = PostgresServer::start();
    let sql = database.open();
    sql.run(
        "create schema shop; create table shop.\"out box\" (no int primary key, target varchar(80), \
         body json, idem text, labels jsonb, span text, version smallint, life int)",
    );
    sql.run(
        "insert into shop.\"out box\" values \
         (2, 'orders:1', '{\n\"n\": 2}', 'k2', '{\"kind\": \"new\", \"size\": 5}', 'span-2', null, null), \
         (1, 'orders:1', '{\"n\": 1}', null, null, null, null, null), \
         (3, 'orders:1', '{\"n\": 3}', 'k2', null, null, null, null), \
         (4, 'orders:brief', '{\"n\": 4}', null, null, null, null, 300)",
    );
    let more = format!(
        "password_file = \"{}\"\ntable = \"shop.out box\"\nid_column = \"no\"\nchannel_column = \"target\"\n\
         data_column = \"body\"\nkey_column = \"idem\"\ntags_column = \"labels\"\ntrace_column = \"span\"\nschema_column = \"version\"\nttl_column = \"life\"",
        database.password_file().display()
    );
    let one = source(&database, "", &more).replace("password = ", "# ");
    let directory = tempfile::tempdir().expect("a directory");
    let server = Server::start(&rules(directory.path(), &one));
    until_count(&server, "orders:1", 2);
    until("an empty table", || {
        (sql.number("select count(*) from shop.\"out box\"") == 0).then_some(())
    });
    // The third has the key of the second.
    assert_eq!(numbers(&server, "orders:1"), [1, 2]);
    until_count(&server, "orders:brief", 1);
    until("the end of the fourth", || {
        publications(&server, "orders:brief")
            .is_empty()
            .then_some(())
    });
    let second = &publications(&server, "orders:1")[1];
    assert_eq!(second["tags"], json!({ "kind": "new", "size": "5" }));
    for (name, value) in [
        ("published_total", 3.0),
        ("repeated_total", 1.0),
        ("lag", 0.0),
        ("up", 1.0),
    ] {
        until_metric(&server, name, value);
    }
    assert!(server.metric("ringmain_source_last_success_unix_seconds") > 1e9);
    assert!(
        !warnings(&server).contains("source"),
        "{}",
        warnings(&server)
    );
}

#[test]
fn a_notification_wakes_the_source_long_before_it_would_look() {
    let database = PostgresServer::start();
    let sql = database.open();
    sql.run(TABLE);
    let one = source(&database, "poll_interval = \"1h\"", "listen = \"outbox\"");
    let directory = tempfile::tempdir().expect("a directory");
    let server = Server::start(&rules(directory.path(), &one));
    until_metric(&server, "up", 1.0);
    let mut client = Client::user(&server, "42");
    client.subscribe("orders:1");
    for n in 1..=5 {
        sql.run(&format!("begin; {}; notify outbox; commit", insert(n)));
        let publication = client.publication("orders:1");
        assert_eq!(publication["data"]["n"], n);
    }
}

#[test]
fn a_row_that_commits_late_is_published_late_where_rows_are_deleted() {
    let database = PostgresServer::start();
    let (early, late) = (database.open(), database.open());
    early.run(TABLE);
    let one = source(&database, "poll_interval = \"20ms\"", "");
    let directory = tempfile::tempdir().expect("a directory");
    let server = Server::start(&rules(directory.path(), &one));
    late.run(&format!("begin; {}", insert(1)));
    early.run(&insert(2));
    until_count(&server, "orders:1", 1);
    early.run(&insert(3));
    until_count(&server, "orders:1", 2);
    late.run("commit");
    until_count(&server, "orders:1", 3);
    assert_eq!(numbers(&server, "orders:1"), [2, 3, 1]);
}

#[test]
fn a_row_that_commits_late_is_waited_for_where_rows_stay() {
    let database = PostgresServer::start();
    let (early, late) = (database.open(), database.open());
    early.run(KEPT_TABLE);
    let one = source(&database, "poll_interval = \"20ms\"", "delete = false");
    let directory = tempfile::tempdir().expect("a directory");
    let mut server = Server::start(&rules(directory.path(), &one));
    early.run(&insert(1));
    until_count(&server, "orders:1", 1);
    // It has its number before the others, and its transaction after the one that it waits for.
    let drawn = early.number("select nextval('outbox_id_seq')");
    late.run(&format!("begin; {}", insert(2)));
    early.run(&insert(3));
    early.run(&format!(
        r#"insert into outbox (id, channel, data) values ({drawn}, 'orders:1', '{{"n": 4}}')"#
    ));
    let looked = server.metric("ringmain_source_last_success_unix_seconds");
    until("another look", || {
        (server.metric("ringmain_source_last_success_unix_seconds") > looked).then_some(())
    });
    assert_eq!(
        numbers(&server, "orders:1"),
        [1],
        "what comes before them may still commit"
    );
    late.run("commit");
    until_count(&server, "orders:1", 4);
    assert_eq!(numbers(&server, "orders:1"), [1, 2, 3, 4]);
    server.signal("TERM");
    server.exit_status();
    early.run(&insert(5));
    let server = Server::start(&rules(directory.path(), &one));
    until_count(&server, "orders:1", 5);
    assert_eq!(numbers(&server, "orders:1"), [1, 2, 3, 4, 5]);
    // The place was kept.
    until_metric(&server, "published_total", 1.0);
    until_metric(&server, "repeated_total", 0.0);
    assert_eq!(early.number("select count(*) from outbox"), 5);
}

#[test]
fn transactions_are_in_the_order_of_their_numbers_however_many_digits_these_have() {
    let database = PostgresServer::start();
    let sql = database.open();
    sql.run(KEPT_TABLE);
    for (n, xact) in [(4, 100), (2, 10), (1, 9), (3, 99)] {
        sql.run(&format!(
            r#"insert into outbox (channel, data, xact) values ('orders:1', '{{"n": {n}}}', '{xact}')"#
        ));
    }
    let one = source(&database, "batch = 1", "delete = false");
    let directory = tempfile::tempdir().expect("a directory");
    let server = Server::start(&rules(directory.path(), &one));
    until_count(&server, "orders:1", 4);
    assert_eq!(numbers(&server, "orders:1"), [1, 2, 3, 4]);
}

#[test]
fn a_row_that_cannot_be_published_stops_the_source_until_it_can_and_everybody_is_told() {
    let database = PostgresServer::start();
    let sql = database.open();
    sql.run(TABLE);
    let one = source(&database, "", "");
    let directory = tempfile::tempdir().expect("a directory");
    let server = Server::start(&rules(directory.path(), &one));
    let wrong = [
        ("channel = 'nowhere:1'", "not configured"),
        ("channel = 'chat:1'", "delivery"),
        ("channel = null", "its channel is NULL"),
        ("data = null", "its data is NULL"),
        (
            "data = jsonb_build_object('n', 2, 'x', repeat('x', 2000))",
            "expected at most 1000 bytes",
        ),
    ];
    sql.run(&insert(1));
    until_count(&server, "orders:1", 1);
    for (at, (change, why)) in wrong.into_iter().enumerate() {
        let n = i64::try_from(at).expect("small") * 2 + 2;
        sql.run(&format!(
            "begin; {}; update outbox set {change} where id = (select max(id) from outbox); {}; commit",
            insert(n),
            insert(n + 1)
        ));
        until_warned(&server, why);
        let warnings = warnings(&server);
        assert!(
            warnings.contains("source shop does not go on: row"),
            "{warnings}"
        );
        until_metric(&server, "up", 0.0);
        sql.run(&format!(
            r#"update outbox set channel = 'orders:1', data = '{{"n": {n}}}' where id = (select min(id) from outbox)"#
        ));
        until_count(&server, "orders:1", n.unsigned_abs() + 1);
    }
    let expected: Vec<i64> = (1..=11).collect();
    assert_eq!(numbers(&server, "orders:1"), expected);
    until("an end of the warnings", || {
        (!warnings(&server).contains("source shop")).then_some(())
    });
    assert!(server.log().contains("the source goes on"));
    assert!(server.metric("ringmain_source_failures_total") >= 5.0);
}

#[test]
fn a_row_that_cannot_be_published_is_passed_over_named_and_left_where_that_is_wanted() {
    let database = PostgresServer::start();
    let sql = database.open();
    sql.run(TABLE);
    let one = source(
        &database,
        "on_error = \"skip\"\npoll_interval = \"20ms\"",
        "",
    );
    let directory = tempfile::tempdir().expect("a directory");
    let server = Server::start(&rules(directory.path(), &one));
    sql.run(&insert(1));
    sql.run("insert into outbox (channel, data) values ('nowhere:1', '{\"n\": 2}')");
    sql.run(&insert(3));
    until_count(&server, "orders:1", 2);
    assert_eq!(numbers(&server, "orders:1"), [1, 3]);
    until_warned(
        &server,
        "source shop has left out 1 since the start, the last one row 2",
    );
    until("nothing but the row that was left", || {
        (sql.number("select count(*) from outbox") == 1).then_some(())
    });
    assert_eq!(sql.number("select id from outbox"), 2);
    assert!(server.log().contains("left out, as it cannot be published"));
    until_metric(&server, "skipped_total", 1.0);
    // A configuration that takes it.
    let takes =
        format!("[[channel.namespaces]]\nname = \"nowhere\"\ndelivery = \"durable\"\n{one}");
    server.write_config(&rules(directory.path(), &takes));
    server.signal("HUP");
    until_count(&server, "nowhere:1", 1);
    until("an end of the warning", || {
        (!warnings(&server).contains("source shop")).then_some(())
    });
}

#[test]
fn a_reload_adds_changes_and_removes_sources() {
    let database = PostgresServer::start();
    let sql = database.open();
    sql.run(TABLE);
    sql.run(&insert(1));
    let directory = tempfile::tempdir().expect("a directory");
    let server = Server::start(&rules(directory.path(), ""));
    let one = source(&database, "poll_interval = \"20ms\"", "");
    server.write_config(&rules(directory.path(), &one));
    server.signal("HUP");
    until_count(&server, "orders:1", 1);
    server.write_config(&rules(
        directory.path(),
        &one.replace("kind =", "channel = \"orders:2\"\nkind ="),
    ));
    server.signal("HUP");
    until("the reload", || {
        server.log().contains("reloaded").then_some(())
    });
    sql.run("insert into outbox (data) values ('{\"n\": 2}')");
    until_count(&server, "orders:2", 1);
    // It counts on.
    until_metric(&server, "published_total", 2.0);
    until_metric(&server, "failures_total", 0.0);
    server.write_config(&rules(directory.path(), ""));
    server.signal("HUP");
    until("no source", || {
        let log = server.log();
        log.contains("the source is gone from the configuration")
            .then_some(())
    });
    sql.run(&insert(3));
    // Whoever reads the table would have the lock.
    until("a table that nobody reads", || {
        let locks = "select count(*) from pg_locks where locktype = 'advisory'";
        (sql.number(locks) == 0).then_some(())
    });
    assert_eq!(sql.number("select count(*) from outbox"), 1);
}

#[test]
fn what_does_not_fit_the_table_is_told_with_what_would() {
    let database = PostgresServer::start();
    let sql = database.open();
    let one = source(&database, "", "");
    let directory = tempfile::tempdir().expect("a directory");
    let server = Server::start(&rules(directory.path(), &one));
    until_warned(&server, "there is no table outbox in database postgres");
    sql.run("create table outbox (id uuid primary key, channel text, data jsonb)");
    until_warned(&server, "column id of outbox is of type uuid");
    sql.run(
        "drop table outbox; create table outbox (id bigint not null, channel text, data jsonb)",
    );
    until_warned(&server, "has no unique index");
    sql.run("alter table outbox add primary key (id)");
    sql.run("insert into outbox values (1, 'orders:1', '{\"n\": 1}')");
    until_count(&server, "orders:1", 1);
    // Another process at the same table.
    let other = tempfile::tempdir().expect("a directory");
    let second = Server::start(&rules(other.path(), &one));
    until_warned(&second, "another process reads this table");
    drop(server);
    sql.run("insert into outbox values (2, 'orders:1', '{\"n\": 2}')");
    until_count(&second, "orders:1", 1);
}

#[test]
fn numbers_that_begin_anew_are_other_rows() {
    let database = PostgresServer::start();
    let sql = database.open();
    sql.run(TABLE);
    let one = source(&database, "poll_interval = \"20ms\"", "");
    let directory = tempfile::tempdir().expect("a directory");
    let server = Server::start(&rules(directory.path(), &one));
    for n in 1..=3 {
        sql.run(&format!("truncate outbox restart identity; {}", insert(n)));
        until_count(&server, "orders:1", n.unsigned_abs());
    }
    assert_eq!(numbers(&server, "orders:1"), [1, 2, 3]);
}

#[test]
fn large_rows_are_read_in_pieces_and_many_small_ones_in_order() {
    const LARGE: i64 = 40;
    const SMALL: i64 = 5000;
    let database = PostgresServer::start();
    let sql = database.open();
    sql.run(TABLE);
    sql.run(&format!(
        "insert into outbox (channel, data) select 'large:1', \
         jsonb_build_object('n', n, 'x', repeat('x', 1000000)) from generate_series(1, {LARGE}) n; \
         insert into outbox (channel, data) select 'orders:' || n % 3, \
         jsonb_build_object('n', n) from generate_series(1, {SMALL}) n"
    ));
    let one = source(&database, "", "");
    let large = format!("[[channel.namespaces]]\nname = \"large\"\ndelivery = \"durable\"\n{one}");
    let directory = tempfile::tempdir().expect("a directory");
    let server = Start::with_config(&rules(directory.path(), &large))
        .shards(2)
        .run();
    until_count(&server, "large:1", LARGE.unsigned_abs());
    until_metric(&server, "published_total", (LARGE + SMALL) as f64);
    for channel in 0..3 {
        let expected: Vec<i64> = (1..=SMALL).filter(|n| n % 3 == channel).collect();
        assert_eq!(numbers(&server, &format!("orders:{channel}")), expected);
    }
    assert_eq!(server.metric("ringmain_source_repeated_total"), 0.0);
    let role = format!(
        "select count(*) from pg_stat_activity where usename = '{ROLE}' and application_name = 'ringmain'"
    );
    assert_eq!(sql.number(&role), 1);
}
