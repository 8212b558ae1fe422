//! Reading: by offset, the whole log, by time; what is forgotten.

use std::collections::BTreeSet;
use std::future::poll_fn;
use std::task::Poll;

use ringmain::model::ChannelName;
use ringmain::upstream::log::{Entries as _, Scan};

use crate::lab::{
    all, append_one, assert_whole, config, follow, open, publication, read, run, until,
};
use crate::nats_server::NatsServer;

#[test]
fn every_offset_is_found_among_other_channels() {
    let server = NatsServer::start();
    run(async {
        let log = open(&config(&server)).await;
        for part in 0..6 {
            // The channels come unevenly, so that offsets and sequences do not grow in step.
            let channel = |n: usize| match part {
                0 | 3 => "rare",
                _ if n.is_multiple_of(97) => "rare",
                _ => "busy",
            };
            let count = if part % 3 == 0 { 60 } else { 1500 };
            let batch = (0..count).map(|n| publication(channel(n), "x")).collect();
            for result in log.append(batch).await {
                result.expect("stored");
            }
        }
        let (position, entries) = all(&log, "rare").await;
        assert_whole(&entries);
        for after in 0..=position.offset.0 + 1 {
            let slice = read(&log, "rare", after, 3).await;
            let offsets: Vec<u64> = slice
                .entries
                .iter()
                .map(|entry| entry.position.offset.0)
                .collect();
            let expected: Vec<u64> = (after + 1..=position.offset.0).take(3).collect();
            assert_eq!(offsets, expected, "after {after}");
            assert_eq!(slice.position, position);
        }
        let fresh = open(&config(&server)).await;
        for after in [3, position.offset.0 / 2, position.offset.0 - 1] {
            let slice = read(&fresh, "rare", after, 1).await;
            assert_eq!(slice.entries[0].position.offset.0, after + 1);
        }
    });
}

#[test]
fn scan_gives_each_entry_once_and_seek_finds_a_time() {
    let server = NatsServer::start();
    run(async {
        let log = open(&config(&server)).await;
        let batch: Vec<_> = (0..2500)
            .map(|n| publication(["a:1", "b", "a:2"][n % 3], "x"))
            .collect();
        let events: BTreeSet<_> = batch
            .iter()
            .filter(|append| append.record.channel.whole().starts_with("a:"))
            .map(|append| append.record.event)
            .collect();
        let middle = batch[1200].record.clone();
        for result in log.append(batch).await {
            result.expect("stored");
        }
        let mut scan = Scan {
            after: 0,
            channels: vec!["a:*".into()],
            limit: 700,
            bytes: 1 << 20,
            looked_at: 10_000,
        };
        let mut seen = BTreeSet::new();
        loop {
            let scanned = log.scan(&scan).await.expect("scanned");
            assert!(scanned.entries.len() <= 700);
            for entry in &scanned.entries {
                assert!(seen.insert(entry.record.event), "once");
            }
            scan.after = scanned.next;
            if scanned.at_end {
                break;
            }
        }
        assert_eq!(seen, events);
        let found = log.seek(middle.unix_ms).await.expect("found");
        scan.after = found - 1;
        scan.channels.clear();
        scan.limit = 1;
        let scanned = log.scan(&scan).await.expect("scanned");
        assert_eq!(scanned.entries[0].record.event, middle.event);
        let end = log.seek(4_000_000_000_000).await.expect("the end");
        assert!(end > log.status().end);
    });
}

#[test]
fn trimmed_channel_keeps_its_position() {
    let server = NatsServer::start();
    run(async {
        let log = open(&config(&server)).await;
        let batch = (0..10).map(|_| publication("a", "x")).collect();
        for result in log.append(batch).await {
            result.expect("stored");
        }
        let before = read(&log, "a", 0, 0).await.position;
        log.trim(&ChannelName::from_whole("a"))
            .await
            .expect("trimmed");
        log.trim(&ChannelName::from_whole("never used"))
            .await
            .expect("trimmed");
        for log in [&log, &open(&config(&server)).await] {
            let slice = read(log, "a", 0, 100).await;
            assert_eq!((slice.position, slice.entries.len()), (before, 0));
        }
        let append = publication("a", "next");
        let event = append.record.event;
        let next = append_one(&log, append).await.expect("stored").position;
        assert_eq!((next.epoch, next.offset.0), (before.epoch, 11));
        let slice = read(&log, "a", 3, 100).await;
        assert_eq!(slice.entries.len(), 1);
        let tail = follow(&log, &[event]).await;
        assert_eq!(tail["a"].len(), 11, "a mark is no entry");
    });
}

#[test]
fn what_is_appended_while_a_channel_is_emptied_stays() {
    let server = NatsServer::start();
    run(async {
        let log = open(&config(&server)).await;
        for _ in 0..5 {
            append_one(&log, publication("a", "before"))
                .await
                .expect("stored");
        }
        let channel = ChannelName::from_whole("a");
        let order = log.trim(&channel);
        let mut order = std::pin::pin!(order);
        // It has asked the server where the channel ends, and has the answer when that to a later question has come.
        let polled = poll_fn(|context| Poll::Ready(order.as_mut().poll(context).is_pending()));
        assert!(polled.await, "it asks");
        read(&log, "a", 0, 1).await;
        let append = publication("a", "after");
        let stored = append_one(&log, append).await.expect("stored").position;
        order.await.expect("emptied");
        let slice = read(&log, "a", 0, 100).await;
        let offsets: Vec<u64> = slice
            .entries
            .iter()
            .map(|one| one.position.offset.0)
            .collect();
        assert_eq!((slice.position, offsets), (stored, vec![6]));
    });
}

#[test]
fn channel_that_retention_has_emptied_begins_a_new_epoch() {
    let server = NatsServer::start();
    run(async {
        let log = open(&config(&server)).await;
        let first = read(&log, "a", 0, 0).await.position;
        let stored = append_one(&log, publication("a", "x"))
            .await
            .expect("stored")
            .position;
        assert_eq!(stored.epoch, first.epoch, "it began as it was announced");
        let mut epochs = BTreeSet::from([stored.epoch.0]);
        let client = async_nats::connect(server.url()).await.expect("connected");
        let js = async_nats::jetstream::new(client);
        for round in 0..3 {
            let stream = js.get_stream("RINGMAIN").await.expect("the stream");
            stream.purge().await.expect("emptied");
            let other = open(&config(&server)).await;
            let log = if round == 1 { &log } else { &other };
            let empty = read(log, "a", 0, 10).await;
            assert!(empty.entries.is_empty() && empty.position.offset.0 == 0);
            let next = until("the new life", async || {
                append_one(log, publication("a", "x")).await.ok()
            })
            .await;
            assert_eq!(next.position.offset.0, 1);
            assert_eq!(next.position.epoch, empty.position.epoch);
            assert!(epochs.insert(next.position.epoch.0), "an epoch of its own");
        }
    });
}

#[test]
fn what_others_publish_below_the_prefix_is_no_publication() {
    let server = NatsServer::start();
    run(async {
        let log = open(&config(&server)).await;
        append_one(&log, publication("a", "x"))
            .await
            .expect("stored");
        let client = async_nats::connect(server.url()).await.expect("connected");
        let js = async_nats::jetstream::new(client);
        let foreign = js
            .publish("ringmain.default.a", "junk".into())
            .await
            .expect("sent");
        foreign.await.expect("stored by the server");
        let append = publication("a", "y");
        let event = append.record.event;
        until("an append", async || {
            append_one(&log, append.clone()).await.ok()
        })
        .await;
        let (_, entries) = all(&log, "a").await;
        assert_eq!(entries.last().expect("an entry").record.event, event);
        assert_whole(&entries);
        assert!(follow(&log, &[event]).await["a"].len() >= 2);
    });
}
