//! Topics of Kafka: what becomes of records, also of those in transactions, and whoever is killed.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use kafka_protocol::records::Compression;
use serde_json::json;

use crate::kafka_server::{KafkaServer, PASSWORD, Producer, USER, Written};
use crate::lab::{numbers, publications, rules, until_count, until_metric, until_warned};
use crate::support::process::Server;
use crate::support::wait::until;

fn source(address: &str, own: &str, more: &str) -> String {
    format!(
        r#"
[[sources]]
name = "events"
kind = "kafka"
poll_interval = "50ms"
{own}
[sources.kafka]
brokers = ["127.0.0.1:1", "{address}"]
topics = ["shop.orders"]
{more}
"#
    )
}

fn value(n: i64) -> String {
    json!({ "n": n }).to_string()
}

fn write(producer: &mut Producer, partition: i32, n: i64) {
    let value = value(n);
    let records = [(None, Some(value.as_str()), &[][..])];
    write_all(producer, partition, &records, Compression::None);
}

/// A server that has just made the topic may not know yet that it leads it.
fn write_all(
    producer: &mut Producer,
    partition: i32,
    records: &[Written<'_>],
    compression: Compression,
) {
    until("written records", || {
        let code = producer.write("shop.orders", partition, records, compression, None);
        (code == Some(0)).then_some(())
    });
}

#[test]
fn records_become_publications_with_key_and_headers_from_every_partition_and_compression() {
    let kafka = KafkaServer::start();
    kafka.make("shop.orders", 3);
    let mut producer = kafka.open();
    let compressions = [
        Compression::None,
        Compression::Gzip,
        Compression::Snappy,
        Compression::Lz4,
        Compression::Zstd,
    ];
    let mut n = 0;
    for compression in compressions {
        for partition in 0..3 {
            let values: Vec<String> = (0..10)
                .map(|_| {
                    n += 1;
                    value(n)
                })
                .collect();
            let records: Vec<_> = values
                .iter()
                .map(|value| {
                    (
                        Some("7"),
                        Some(value.as_str()),
                        &[("kind", "new"), ("traceparent", "span")][..],
                    )
                })
                .collect();
            write_all(&mut producer, partition, &records, compression);
        }
    }
    let directory = tempfile::tempdir().expect("a directory");
    let more = format!("user = \"{USER}\"\npassword = \"{PASSWORD}\"");
    let own = "channel = \"orders:{topic}/{partition}/{key}\"";
    let one = source(&kafka.login_address(), own, &more);
    let mut server = Server::start(&rules(directory.path(), &one));
    for partition in 0..3 {
        let channel = format!("orders:shop.orders/{partition}/7");
        until_count(&server, &channel, 50);
        let all = publications(&server, &channel);
        assert_eq!(all.len(), 50);
        for one in &all {
            assert_eq!(one["tags"], json!({ "kind": "new", "kafka.key": "7" }));
        }
        let found = numbers(&server, &channel);
        assert!(found.is_sorted(), "{found:?}");
    }
    until_metric(&server, "published_total", 150.0);
    // One says how long it is kept.
    let brief = [(Some("8"), Some("{\"n\":0}"), &[("ringmain-ttl", "300")][..])];
    write_all(&mut producer, 0, &brief, Compression::None);
    let channel = "orders:shop.orders/0/8";
    until_count(&server, channel, 1);
    until("its end", || {
        publications(&server, channel).is_empty().then_some(())
    });
    until_metric(&server, "lag", 0.0);
    server.signal("TERM");
    server.exit_status();
    // A wrong password is told; nothing comes twice afterwards.
    let server = Server::start(&rules(directory.path(), &one.replace(PASSWORD, "wrong")));
    until_warned(&server, "logging in as ringmain");
    server.write_config(&rules(directory.path(), &one));
    server.signal("HUP");
    write(&mut producer, 0, 0);
    until_warned(&server, "the channel needs its key");
    until_metric(&server, "repeated_total", 0.0);
}

#[test]
fn records_of_transactions_come_when_they_are_committed_and_never_when_they_are_aborted() {
    let kafka = KafkaServer::start();
    kafka.make("shop.orders", 1);
    let directory = tempfile::tempdir().expect("a directory");
    let one = source(&kafka.address(), "channel = \"orders:1\"", "");
    let server = Server::start(&rules(directory.path(), &one));
    let mut producer = kafka.open();
    for (round, is_committed) in [true, false, true, false, false, true]
        .into_iter()
        .enumerate()
    {
        let n = i64::try_from(round).expect("small") * 10;
        let mut transaction = producer.begin("till", "shop.orders", 0);
        for step in 0..3 {
            let value = value(n + step);
            let records = [(None, Some(value.as_str()), &[][..])];
            let code = producer.write(
                "shop.orders",
                0,
                &records,
                Compression::None,
                Some(&mut transaction),
            );
            assert_eq!(code, Some(0));
        }
        producer.end(transaction, is_committed);
        write(&mut producer, 0, n + 9);
    }
    until_count(&server, "orders:1", 15);
    assert_eq!(
        numbers(&server, "orders:1"),
        [0, 1, 2, 9, 19, 20, 21, 22, 29, 39, 49, 50, 51, 52, 59]
    );
    until_metric(&server, "lag", 0.0);
}

#[test]
fn a_source_that_begins_at_the_end_misses_nothing_from_then_on() {
    let kafka = KafkaServer::start();
    kafka.make("shop.orders", 1);
    let mut producer = kafka.open();
    write(&mut producer, 0, 1);
    let directory = tempfile::tempdir().expect("a directory");
    let one = source(
        &kafka.address(),
        "channel = \"orders:1\"",
        "start = \"end\"",
    );
    let mut server = Server::start(&rules(directory.path(), &one));
    until_metric(&server, "up", 1.0);
    server.signal("KILL");
    server.exit_status();
    write(&mut producer, 0, 2);
    let server = Server::start(&rules(directory.path(), &one));
    until_count(&server, "orders:1", 1);
    assert_eq!(numbers(&server, "orders:1"), [2]);
    // Made anew: everything in it is new, though it has the same offsets.
    producer.delete("shop.orders");
    kafka.make("shop.orders", 2);
    write(&mut producer, 1, 4);
    write(&mut producer, 0, 3);
    until_count(&server, "orders:1", 3);
    let all: BTreeSet<i64> = numbers(&server, "orders:1").into_iter().collect();
    assert_eq!(all, BTreeSet::from([2, 3, 4]));
}

#[test]
fn a_topic_that_is_not_there_and_a_record_that_cannot_be_published_are_told() {
    let kafka = KafkaServer::start();
    let directory = tempfile::tempdir().expect("a directory");
    let one = source(&kafka.address(), "channel = \"orders:1\"", "");
    let server = Server::start(&rules(directory.path(), &one));
    until_warned(&server, "Kafka has no topic shop.orders");
    kafka.make("shop.orders", 1);
    let mut producer = kafka.open();
    write(&mut producer, 0, 1);
    write_all(
        &mut producer,
        0,
        &[(Some("k"), None, &[])],
        Compression::None,
    );
    write(&mut producer, 0, 3);
    until_warned(
        &server,
        "record shop.orders/0/1 cannot be published: data: expected a payload",
    );
    assert_eq!(numbers(&server, "orders:1"), [1]);
    server.write_config(&rules(
        directory.path(),
        &source(
            &kafka.address(),
            "channel = \"orders:1\"\non_error = \"skip\"",
            "",
        ),
    ));
    server.signal("HUP");
    until_count(&server, "orders:1", 2);
    assert_eq!(numbers(&server, "orders:1"), [1, 3]);
    until_metric(&server, "skipped_total", 1.0);
}

#[test]
fn records_that_are_gone_before_they_were_read_are_told_and_passed_over_where_that_is_wanted() {
    let kafka = KafkaServer::start();
    kafka.make("shop.orders", 1);
    let mut producer = kafka.open();
    write(&mut producer, 0, 1);
    let directory = tempfile::tempdir().expect("a directory");
    let one = source(&kafka.address(), "channel = \"orders:1\"", "");
    let mut server = Server::start(&rules(directory.path(), &one));
    until_count(&server, "orders:1", 1);
    server.signal("TERM");
    server.exit_status();
    for n in 2..=5 {
        write(&mut producer, 0, n);
    }
    producer.forget("shop.orders", 0, 3);
    let server = Server::start(&rules(directory.path(), &one));
    until_warned(&server, "its records 1 to 2 are gone");
    assert_eq!(numbers(&server, "orders:1"), [1]);
    server.write_config(&rules(
        directory.path(),
        &one.replace("kind =", "on_error = \"skip\"\nkind ="),
    ));
    server.signal("HUP");
    until_count(&server, "orders:1", 3);
    assert_eq!(numbers(&server, "orders:1"), [1, 4, 5]);
    assert!(server.log().contains("the source goes on elsewhere"));
}

#[test]
fn kills_of_both_sides_lose_no_record_and_publish_none_twice() {
    const ROUNDS: usize = 6;
    let mut kafka = KafkaServer::start();
    kafka.make("shop.orders", 3);
    let (next, stop) = (
        Arc::new(AtomicI64::new(0)),
        Arc::new(AtomicBool::new(false)),
    );
    let port = kafka.port();
    let writer = {
        let (next, stop) = (Arc::clone(&next), Arc::clone(&stop));
        std::thread::spawn(move || write_until(port, &next, &stop))
    };
    let directory = tempfile::tempdir().expect("a directory");
    let start = |directory: &Path| {
        let one = source(
            &format!("127.0.0.1:{port}"),
            "channel = \"orders:{partition}\"\nbatch = 20",
            "",
        );
        Server::start(&rules(directory, &one))
    };
    let mut server = start(directory.path());
    for round in 0..ROUNDS {
        let before = server.metric("ringmain_source_published_total");
        until("publications in this round", || {
            let now = server.metric("ringmain_source_published_total");
            (now > before + 50.0).then_some(())
        });
        if round % 2 == 0 {
            server.signal("KILL");
            server.exit_status();
            server = start(directory.path());
        } else {
            kafka.kill();
            kafka.restart();
        }
    }
    stop.store(true, Ordering::Relaxed);
    let sure = writer.join().expect("a writer");
    assert!(sure.len() > ROUNDS * 50, "{}", sure.len());
    until("everything that was written", || {
        let once: BTreeSet<i64> = all(&server).into_iter().collect();
        sure.is_subset(&once).then_some(())
    });
    let offsets: Vec<i64> = all(&server);
    let once: BTreeSet<i64> = offsets.iter().copied().collect();
    // A record that was written again because its answer was lost is another record; this writer never does that.
    assert_eq!(once.len(), offsets.len(), "none twice");
}

/// All numbers of all partitions.
fn all(server: &Server) -> Vec<i64> {
    let channels = (0..3).map(|partition| format!("orders:{partition}"));
    channels
        .flat_map(|channel| numbers(server, &channel))
        .collect()
}

/// Writes records, and returns those whose answer has come.
fn write_until(port: u16, next: &AtomicI64, stop: &AtomicBool) -> BTreeSet<i64> {
    let mut sure = BTreeSet::new();
    while !stop.load(Ordering::Relaxed) {
        let Some(mut producer) = Producer::try_open(port) else {
            std::thread::park_timeout(Duration::from_millis(20));
            continue;
        };
        while !stop.load(Ordering::Relaxed) {
            let numbers: Vec<i64> = (0..5)
                .map(|_| next.fetch_add(1, Ordering::Relaxed))
                .collect();
            let values: Vec<String> = numbers.iter().map(|n| value(*n)).collect();
            let records: Vec<_> = values
                .iter()
                .map(|value| (None, Some(value.as_str()), &[][..]))
                .collect();
            let partition = i32::try_from(numbers[0] % 3).expect("small");
            match producer.write("shop.orders", partition, &records, Compression::None, None) {
                Some(0) => sure.extend(numbers),
                Some(_) => std::thread::park_timeout(Duration::from_millis(20)),
                None => break,
            }
            std::thread::park_timeout(Duration::from_millis(5));
        }
    }
    sure
}
