//! Queue groups, also with workers that know only NATS, and dead letters.

use std::collections::BTreeSet;
use std::time::Duration;

use async_nats::jetstream::{self, consumer::PullConsumer};
use futures_util::StreamExt;
use ringmain::mesh::durable::LogError;
use ringmain::model::EventId;
use ringmain::upstream::log::{
    DeadLetter, Entries as _, Failure, Group, Groups as _, Leased, Letters as _, LineId, Settled,
    Values as _,
};
use ringmain::upstream::nats::Jetstream;

use crate::lab::{DEADLINE, append_one, config, open, publication, run, until};
use crate::nats_server::NatsServer;
use crate::proxy::{Line, Proxy};
use crate::support::process::signal;
use crate::support::wait::unix_ms;

pub(crate) fn group(channels: &[&str]) -> Group {
    Group {
        name: "mail/1".into(),
        channels: channels.iter().map(|channel| (*channel).into()).collect(),
        from_beginning: true,
        start_after: None,
        lease: Duration::from_secs(2),
        ordered: false,
    }
}

fn failure(attempt: u32) -> Failure {
    Failure {
        attempt,
        unix_ms: 7,
        reason: "no paper".into(),
        worker: "ann".into(),
        next_unix_ms: 0,
    }
}

pub(crate) async fn store(log: &Jetstream, channel: &str, count: usize) -> Vec<EventId> {
    let batch: Vec<_> = (0..count).map(|_| publication(channel, "x")).collect();
    let events = batch.iter().map(|append| append.record.event).collect();
    for result in log.append(batch).await {
        result.expect("stored");
    }
    events
}

pub(crate) async fn fetch(log: &Jetstream, limit: usize) -> Vec<Leased> {
    let fetched = tokio::time::timeout(DEADLINE, log.fetch("mail/1", limit)).await;
    fetched.expect("in time").expect("fetched")
}

/// As many as that: one fetch may bring fewer.
pub(crate) async fn fetch_all(log: &Jetstream, count: usize) -> Vec<Leased> {
    let mut all = Vec::new();
    while all.len() < count {
        all.extend(fetch(log, count - all.len()).await);
    }
    all
}

#[test]
fn each_entry_of_the_groups_channels_is_worked_off_once() {
    let server = NatsServer::start();
    run(async {
        let log = open(&config(&server)).await;
        log.open_group(&group(&["orders:e*", "jobs"]))
            .await
            .expect("made");
        let mut expected: BTreeSet<EventId> = BTreeSet::new();
        expected.extend(store(&log, "orders:eu", 300).await);
        store(&log, "orders:us", 300).await;
        expected.extend(store(&log, "jobs", 300).await);
        expected.extend(store(&log, "$queue:mail/1", 3).await);
        store(&log, "$queue:other", 3).await;
        assert_eq!(log.groups().await.expect("groups").len(), 1);
        assert!(
            log.lag("mail/1")
                .await
                .expect("lag")
                .oldest_unix_ms
                .is_some()
        );
        let mut seen = BTreeSet::new();
        let mut round = 0;
        while seen.len() < expected.len() {
            // Every second fetch is given up, perhaps in the midst of it; nothing gets lost by it.
            round += 1;
            let fetched = tokio::select! {
                biased;
                fetched = fetch(&log, 100) => fetched,
                () = tokio::task::yield_now(), if round % 2 == 0 => continue,
            };
            let done: Vec<_> = fetched
                .iter()
                .map(|leased| (leased.lease, Settled::Done))
                .collect();
            log.settle("mail/1", &done).await.expect("settled");
            for leased in fetched {
                assert!(seen.insert(leased.entry.record.event), "once");
            }
        }
        assert_eq!(seen, expected);
        until("no lag", async || {
            let lag = log.lag("mail/1").await.expect("lag");
            (lag.entries == 0 && lag.oldest_unix_ms.is_none()).then_some(())
        })
        .await;
    });
}

/// Takes deliveries of an ordered group as another process would, and says no word about them.
async fn lost_deliveries(server: &NatsServer, count: usize) {
    let client = async_nats::connect(server.url()).await.expect("connected");
    let inbox = client.new_inbox();
    let mut replies = client.subscribe(inbox.clone()).await.expect("subscribed");
    let request = format!(r#"{{"batch":{count},"expires":5000000000,"group":"ordered"}}"#);
    let subject = "$JS.API.CONSUMER.MSG.NEXT.RINGMAIN.mail=2F1";
    let sent = client.publish_with_reply(subject, inbox, request.into());
    sent.await.expect("asked");
    for _ in 0..count {
        let reply = tokio::time::timeout(DEADLINE, replies.next()).await;
        let reply = reply.expect("in time").expect("a delivery");
        assert_eq!(reply.status, None, "{:?}", reply.description);
    }
    unpin(server).await;
}

async fn unpin(server: &NatsServer) {
    let stream = log_stream(server).await;
    let unpinned = stream.unpin_consumer("mail=2F1", "ordered").await;
    unpinned.expect("unpinned");
}

pub(crate) async fn settle(log: &Jetstream, leased: &Leased, settled: Settled) {
    let settled = log.settle("mail/1", &[(leased.lease, settled)]).await;
    settled.expect("settled");
}

fn ordered(channels: &[&str]) -> Group {
    Group {
        ordered: true,
        ..group(channels)
    }
}

#[test]
fn what_was_lost_on_its_way_comes_first_in_an_ordered_group() {
    let server = NatsServer::start();
    run(async {
        let log = open(&config(&server)).await;
        log.open_group(&ordered(&["orders:*"])).await.expect("made");
        let events = store(&log, "orders:eu", 40).await;
        let mut seen = Vec::new();
        while seen.len() < events.len() {
            if seen.len() % 10 == 0 && seen.len() < 30 {
                lost_deliveries(&server, 3).await;
            }
            for leased in fetch(&log, 5).await {
                seen.push(leased.entry.record.event);
                settle(&log, &leased, Settled::Done).await;
            }
        }
        assert_eq!(seen, events);
    });
}

#[test]
fn second_process_goes_on_when_the_first_has_done_its_part_of_an_ordered_group() {
    let server = NatsServer::start();
    run(async {
        let first = open(&config(&server)).await;
        let second = open(&config(&server)).await;
        let group = ordered(&["orders:*"]);
        first.open_group(&group).await.expect("made");
        second.open_group(&group).await.expect("made");
        let stored = store(&first, "orders:eu", 6).await;
        let held = fetch_all(&first, 2).await;
        assert_eq!(events(&held), stored[..2]);
        // The first one asks for no more; it works longer than a lease lasts.
        unpin(&server).await;
        let mut rest = std::pin::pin!(fetch(&second, 10));
        for _ in 0..6 {
            let early = tokio::time::timeout(group.lease / 2, &mut rest).await;
            assert!(early.is_err(), "the first one is not done");
            for leased in &held {
                settle(&first, leased, Settled::Kept).await;
            }
        }
        for leased in &held {
            settle(&first, leased, Settled::Done).await;
        }
        let mut rest = rest.await;
        while rest.len() < 4 {
            rest.extend(fetch(&second, 10).await);
        }
        assert_eq!(events(&rest), stored[2..]);
    });
}

pub(crate) fn events(leased: &[Leased]) -> Vec<EventId> {
    leased.iter().map(|one| one.entry.record.event).collect()
}

/// A log behind a proxy.
async fn open_behind(server: &NatsServer) -> (Proxy, Jetstream) {
    let proxy = Proxy::before(server.port()).await;
    let mut config = config(server);
    config.nats.servers = vec![format!("nats://127.0.0.1:{}", proxy.port)];
    let log = open(&config).await;
    (proxy, log)
}

#[test]
fn lines_stay_whole_when_the_server_falls_silent_while_they_are_read() {
    let server = NatsServer::start();
    run(async {
        let (proxy, log) = open_behind(&server).await;
        let mut rules = ordered(&["orders:*"]);
        rules.lease = Duration::from_secs(60);
        log.open_group(&rules).await.expect("made");
        let mut stored = store(&log, "orders:eu", 3).await;
        stored.extend(store(&log, "orders:us", 3).await);
        let fetched = fetch_all(&log, 6).await;
        assert_eq!(events(&fetched), stored);
        let lined: Vec<_> = fetched
            .iter()
            .enumerate()
            .map(|(at, leased)| (leased.lease, Settled::Lined(LineId(at as u64 / 3))))
            .collect();
        log.settle("mail/1", &lined).await.expect("settled");
        let wanted = [(LineId(0), 3), (LineId(1), 3)];
        // All of the first line is read, and nothing of the second.
        proxy.line.send(Line::Few(3)).expect("a line");
        let failed = log.fetch_lines("mail/1", &wanted).await;
        assert!(
            matches!(failed, Err(LogError::Unavailable { .. })),
            "{failed:?}"
        );
        proxy.line.send(Line::Passes).expect("a line");
        let given = until("the lines", async || {
            log.fetch_lines("mail/1", &wanted).await.ok()
        })
        .await;
        for (given, stored) in given.iter().zip(stored.chunks(3)) {
            assert_eq!(events(&given.leased), stored);
            assert_eq!(given.left, 0);
        }
    });
}

#[test]
fn nothing_later_is_given_while_nobody_knows_what_the_server_has_heard() {
    let server = NatsServer::start();
    run(async {
        let (proxy, log) = open_behind(&server).await;
        let mut rules = ordered(&["orders:*"]);
        rules.lease = Duration::from_secs(10);
        log.open_group(&rules).await.expect("made");
        let stored = store(&log, "orders:eu", 9).await;
        let first = fetch_all(&log, 3).await;
        assert_eq!(events(&first), stored[..3]);
        let done: Vec<_> = first.iter().map(|one| (one.lease, Settled::Done)).collect();
        // The server hears it, and its answer is lost with the connection.
        proxy.line.send(Line::Mute).expect("a line");
        let cut = async {
            until("the server hears it", async || {
                let info = log_stream(&server).await.consumer_info("mail=2F1").await;
                (info.ok()?.num_ack_pending == 0).then_some(())
            })
            .await;
            proxy.line.send(Line::Cut).expect("a line");
        };
        let (settled, ()) = tokio::join!(log.settle("mail/1", &done), cut);
        assert!(
            matches!(settled, Err(LogError::Unavailable { .. })),
            "{settled:?}"
        );
        // As many are lost as nobody knows of.
        unpin(&server).await;
        lost_deliveries(&server, 3).await;
        proxy.line.send(Line::Passes).expect("a line");
        let mut rest = Vec::new();
        until("the rest", async || {
            if let Ok(leased) = log.fetch("mail/1", 9).await {
                rest.extend(events(&leased));
            }
            (rest.len() >= 6).then_some(())
        })
        .await;
        assert_eq!(rest, stored[3..]);
        log.settle("mail/1", &done).await.expect("said again");
    });
}

#[test]
fn what_leaves_its_lines_comes_before_what_was_given_meanwhile() {
    let server = NatsServer::start();
    run(async {
        let log = open(&config(&server)).await;
        let mut rules = ordered(&["orders:*"]);
        rules.lease = Duration::from_secs(10);
        log.open_group(&rules).await.expect("made");
        let mut stored = store(&log, "orders:eu", 4).await;
        let mut lined = Vec::new();
        while lined.len() < 4 {
            // There is room for more than there is.
            lined.extend(fetch(&log, 20).await);
        }
        let lined: Vec<_> = lined
            .iter()
            .map(|one| (one.lease, Settled::Lined(LineId(7))))
            .collect();
        log.settle("mail/1", &lined).await.expect("settled");
        stored.extend(store(&log, "orders:eu", 4).await);
        until("these are on their way", async || {
            let info = log_stream(&server).await.consumer_info("mail=2F1").await;
            (info.ok()?.num_ack_pending == 8).then_some(())
        })
        .await;
        log.leave_lines("mail/1").await.expect("left");
        assert_eq!(events(&fetch_all(&log, 8).await), stored);
    });
}

/// What comes of an ordered group whose first waits so long, with its line, and whose others wait in lines, when it has left them.
async fn given_back(log: &Jetstream, wait: Duration) -> (Vec<EventId>, Vec<EventId>) {
    let mut rules = ordered(&["orders:*"]);
    rules.lease = Duration::from_secs(10);
    log.open_group(&rules).await.expect("made");
    let mut stored = store(log, "orders:eu", 4).await;
    let fetched = fetch_all(log, 4).await;
    let wait = u64::try_from(wait.as_millis()).expect("not for ever");
    let mut settled: Vec<_> = fetched
        .iter()
        .map(|one| (one.lease, Settled::Lined(LineId(7))))
        .collect();
    settled[0].1 = Settled::Delayed {
        until_unix_ms: unix_ms() + wait,
        line: Some(LineId(7)),
    };
    log.settle("mail/1", &settled).await.expect("settled");
    log.leave_lines("mail/1").await.expect("left");
    stored.extend(store(log, "orders:eu", 1).await);
    (stored, events(&fetch_all(log, 4).await))
}

#[test]
fn what_waits_for_its_time_comes_first_when_its_line_is_left() {
    for wait in [Duration::from_secs(2), Duration::from_hours(1)] {
        let server = NatsServer::start();
        run(async {
            let log = open(&config(&server)).await;
            let (stored, mut given) = given_back(&log, wait).await;
            given.extend(events(&fetch_all(&log, 1).await));
            assert_eq!(given, stored, "{wait:?}");
        });
    }
}

#[test]
fn server_that_stands_still_has_not_heard_what_is_settled() {
    let server = NatsServer::start();
    let signal = |name| signal(server.pid().expect("it runs"), name);
    run(async {
        let log = open(&config(&server)).await;
        log.open_group(&group(&["jobs"])).await.expect("made");
        store(&log, "jobs", 1).await;
        let done = [(fetch(&log, 1).await[0].lease, Settled::Done)];
        signal("STOP");
        let settled = log.settle("mail/1", &done).await;
        signal("CONT");
        assert!(
            matches!(settled, Err(LogError::Unavailable { .. })),
            "{settled:?}"
        );
        until("it is heard", async || {
            log.settle("mail/1", &done).await.ok()
        })
        .await;
        let lag = log.lag("mail/1").await.expect("lag");
        assert_eq!(lag.entries + lag.leased, 0);
    });
}

#[test]
fn nothing_is_settled_in_a_group_whose_seek_came_half_way() {
    let server = NatsServer::start();
    run(async {
        let log = open(&config(&server)).await;
        log.open_group(&group(&["jobs"])).await.expect("made");
        let stored = store(&log, "jobs", 4).await;
        let fetched = fetch_all(&log, 4).await;
        let js = jetstream::new(async_nats::connect(server.url()).await.expect("connected"));
        let histories = js.delete_stream("KV_RINGMAIN_FAILURES").await;
        histories.expect("gone");
        let behind = fetched[1].entry.cursor;
        let sought = log.seek_group("mail/1", behind).await;
        assert!(
            matches!(sought, Err(LogError::Unavailable { .. })),
            "{sought:?}"
        );
        let done = [(fetched[3].lease, Settled::Done)];
        let settled = log.settle("mail/1", &done).await;
        assert!(
            matches!(settled, Err(LogError::Unavailable { .. })),
            "{settled:?}"
        );
        // Another process has what is gone made again, and makes the group where it was sought.
        let other = open(&config(&server)).await;
        other.open_group(&group(&["jobs"])).await.expect("made");
        assert_eq!(events(&fetch_all(&other, 2).await), stored[2..]);
        log.seek_group("mail/1", behind).await.expect("sought");
        assert_eq!(events(&fetch_all(&log, 2).await), stored[2..]);
    });
}

#[test]
fn worker_of_nats_shares_a_group() {
    let server = NatsServer::start();
    run(async {
        let log = open(&config(&server)).await;
        log.open_group(&group(&["orders:*"])).await.expect("made");
        let expected: BTreeSet<EventId> = store(&log, "orders:eu", 400).await.into_iter().collect();
        let client = async_nats::connect(server.url()).await.expect("connected");
        let js = jetstream::new(client);
        let worker: PullConsumer = js
            .get_consumer_from_stream("mail=2F1", "RINGMAIN")
            .await
            .expect("the group's consumer");
        let mut seen = BTreeSet::new();
        let mut theirs = 0;
        while seen.len() < expected.len() {
            let mut messages = worker
                .fetch()
                .max_messages(20)
                .messages()
                .await
                .expect("fetched");
            while let Some(message) = messages.next().await {
                let message = message.expect("a message");
                let headers = message.headers.as_ref().expect("headers");
                let id = headers.get("Nats-Msg-Id").expect("an event id").as_str();
                assert_eq!(&message.payload[..], b"\"x\"");
                assert!(seen.insert(EventId::parse(id).expect("a UUID")), "once");
                message.ack().await.expect("acknowledged");
                theirs += 1;
            }
            if seen.len() == expected.len() {
                break;
            }
            let fetched = fetch(&log, 20).await;
            let done: Vec<_> = fetched
                .iter()
                .map(|leased| (leased.lease, Settled::Done))
                .collect();
            log.settle("mail/1", &done).await.expect("settled");
            for leased in fetched {
                assert!(seen.insert(leased.entry.record.event), "once");
            }
        }
        assert_eq!(seen, expected);
        assert!(theirs > 0 && theirs < expected.len());
    });
}

#[test]
fn failures_outlive_the_process_that_saw_them() {
    let server = NatsServer::start();
    run(async {
        let first = open(&config(&server)).await;
        first.open_group(&group(&["jobs"])).await.expect("made");
        store(&first, "jobs", 2).await;
        let fetched = fetch(&first, 1).await;
        let lease = fetched[0].lease;
        for attempt in 1..=2 {
            let failed = [(lease, Settled::Failed(failure(attempt)))];
            first.settle("mail/1", &failed).await.expect("settled");
        }
        drop(first);
        let other = open(&config(&server)).await;
        let mut seen = BTreeSet::new();
        while seen.len() < 2 {
            for leased in fetch(&other, 10).await {
                let is_it = leased.entry.record.event == fetched[0].entry.record.event;
                let expected = if is_it {
                    vec![failure(1), failure(2)]
                } else {
                    vec![]
                };
                assert_eq!(leased.failures, expected);
                seen.insert(leased.entry.record.event);
                other
                    .settle("mail/1", &[(leased.lease, Settled::Done)])
                    .await
                    .expect("settled");
            }
        }
    });
}

/// A server that was killed may have lost what it was told of late: here all that it knew of the group's leases.
fn forget_leases(server: &mut NatsServer) {
    server.kill();
    let mut open = vec![server.store()];
    let mut forgotten = 0;
    while let Some(directory) = open.pop() {
        let entries = std::fs::read_dir(&directory).expect("a directory");
        for path in entries.map(|entry| entry.expect("an entry").path()) {
            if path.ends_with("obs/mail=2F1/o.dat") {
                std::fs::remove_file(&path).expect("removed");
                forgotten += 1;
            } else if path.is_dir() {
                open.push(path);
            }
        }
    }
    assert_eq!(forgotten, 1, "the state of the group's consumer");
    server.restart();
}

#[test]
fn what_was_said_counts_when_the_server_has_forgotten_it() {
    let mut server = NatsServer::start();
    run(async {
        let log = open(&config(&server)).await;
        let mut rules = group(&["jobs"]);
        rules.lease = Duration::from_secs(60);
        log.open_group(&rules).await.expect("made");
        store(&log, "jobs", 20).await;
        let fetched = fetch_all(&log, 20).await;
        let done: Vec<_> = fetched[..10]
            .iter()
            .map(|leased| (leased.lease, Settled::Done))
            .collect();
        log.settle("mail/1", &done).await.expect("settled");
        let (failed, held) = (&fetched[10], &fetched[11..]);
        let later = Settled::Delayed {
            until_unix_ms: u64::MAX / 2_000_000,
            line: None,
        };
        for settled in [Settled::Failed(failure(1)), later] {
            settle(&log, failed, settled).await;
        }
        until("the state of the consumer is written", async || {
            let stream = log_stream(&server).await;
            let info = stream.consumer_info("mail=2F1").await.ok()?;
            (info.num_ack_pending == 10).then_some(())
        })
        .await;
        forget_leases(&mut server);
        until("the connection", async || {
            log.status().down.is_none().then_some(())
        })
        .await;
        let last = until("one more", async || {
            let draft = publication("jobs", "last");
            let event = draft.record.event;
            append_one(&log, draft).await.ok().map(|_| event)
        })
        .await;
        // The server gives everything again, in the order of the stream.
        let mut again = Vec::new();
        while again
            .last()
            .is_none_or(|leased: &Leased| leased.entry.record.event != last)
        {
            if let Ok(leased) = log.fetch("mail/1", 30).await {
                again.extend(leased);
            }
        }
        let events: Vec<_> = again.iter().map(|one| one.entry.record.event).collect();
        assert_eq!(events, [failed.entry.record.event, last]);
        assert_eq!(again[0].failures, [failure(1)]);
        let rest = held.iter().chain(&again);
        let done: Vec<_> = rest.map(|leased| (leased.lease, Settled::Done)).collect();
        log.settle("mail/1", &done).await.expect("settled");
        until("nothing is left", async || {
            let lag = log.lag("mail/1").await.ok()?;
            (lag.entries + lag.leased + lag.delayed == 0).then_some(())
        })
        .await;
    });
}

async fn log_stream(server: &NatsServer) -> jetstream::stream::Stream {
    let client = async_nats::connect(server.url()).await.expect("connected");
    let stream = jetstream::new(client).get_stream("RINGMAIN").await;
    stream.expect("the stream")
}

#[test]
fn lease_that_is_kept_stays_and_one_that_is_returned_comes_again() {
    let server = NatsServer::start();
    run(async {
        let log = open(&config(&server)).await;
        log.open_group(&group(&["jobs"])).await.expect("made");
        store(&log, "jobs", 2).await;
        let fetched = fetch_all(&log, 2).await;
        let (kept, returned) = (fetched[0].lease, fetched[1].lease);
        log.settle("mail/1", &[(returned, Settled::Returned)])
            .await
            .expect("settled");
        let again = fetch(&log, 2).await;
        assert_eq!(again.len(), 1);
        assert_eq!(again[0].entry, fetched[1].entry);
        assert!(again[0].failures.is_empty(), "giving back is no failure");
        log.settle("mail/1", &[(again[0].lease, Settled::Done)])
            .await
            .expect("settled");
        // Twice the time of a lease, during which it is kept.
        let nobody = async {
            let mut ticks = tokio::time::interval(Duration::from_millis(500));
            for _ in 0..8 {
                ticks.tick().await;
                log.settle("mail/1", &[(kept, Settled::Kept)])
                    .await
                    .expect("settled");
            }
        };
        tokio::select! {
            fetched = fetch(&log, 1) => panic!("{fetched:?} was leased"),
            () = nobody => {}
        }
        let unknown = (returned, Settled::Done);
        log.settle("mail/1", &[unknown, (kept, Settled::Done)])
            .await
            .expect("settled");
        until("no lag", async || {
            log.lag("mail/1")
                .await
                .expect("lag")
                .oldest_unix_ms
                .is_none()
                .then_some(())
        })
        .await;
    });
}

#[test]
fn group_is_changed_and_forgotten() {
    let server = NatsServer::start();
    run(async {
        let log = open(&config(&server)).await;
        let mut changed = group(&["a"]);
        changed.from_beginning = false;
        store(&log, "a", 1).await;
        log.open_group(&changed).await.expect("made");
        changed.channels = vec!["a".into(), "b:*".into()];
        changed.from_beginning = true;
        log.open_group(&changed).await.expect("changed");
        assert!(
            !log.groups().await.expect("groups")[0].from_beginning,
            "as it was first said"
        );
        let expected: BTreeSet<EventId> = store(&log, "b:1", 1).await.into_iter().collect();
        let fetched: BTreeSet<EventId> = fetch(&log, 9)
            .await
            .iter()
            .map(|leased| leased.entry.record.event)
            .collect();
        assert_eq!(fetched, expected, "the beginning was before the group");
        assert!(log.delete_group("mail/1").await.expect("deleted"));
        assert!(!log.delete_group("mail/1").await.expect("nothing to delete"));
        let gone = log.fetch("mail/1", 1).await;
        assert!(matches!(gone, Err(LogError::NotFound(_))), "{gone:?}");
        assert!(matches!(
            log.lag("mail/1").await,
            Err(LogError::NotFound(_))
        ));
    });
}

#[test]
fn dead_letters_are_kept_in_order_and_small_values_too() {
    let server = NatsServer::start();
    run(async {
        let log = open(&config(&server)).await;
        store(&log, "jobs", 5).await;
        let (_, entries) = crate::lab::all(&log, "jobs").await;
        let letter = |group: &str, at: usize| DeadLetter {
            group: group.into(),
            entry: entries[at].clone(),
            failures: vec![failure(1), failure(2)],
            unix_ms: 9,
        };
        for (group, at) in [("b c", 1), ("a", 4), ("a", 0), ("b c", 0), ("a", 0)] {
            log.bury(&letter(group, at)).await.expect("buried");
        }
        let all = log.dead_letters(None, None, 10).await.expect("letters");
        let expected = [
            letter("a", 0),
            letter("a", 4),
            letter("b c", 0),
            letter("b c", 1),
        ];
        assert_eq!(all, expected);
        let after = Some(("a", entries[4].record.event));
        let rest = log.dead_letters(None, after, 1).await.expect("letters");
        assert_eq!(rest, expected[2..3]);
        let of_group = log
            .dead_letters(Some("b c"), None, 10)
            .await
            .expect("letters");
        assert_eq!(of_group, expected[2..]);
        let event = entries[0].record.event;
        assert!(log.exhume("a", event).await.expect("gone"));
        assert!(!log.exhume("a", event).await.expect("gone before"));
        assert_eq!(log.dead_letter("a", event).await.expect("asked"), None);
        let other = open(&config(&server)).await;
        assert_eq!(
            other.dead_letter("b c", event).await.expect("asked"),
            Some(letter("b c", 0))
        );
        log.put("schema:a b", Some(b"{}")).await.expect("put");
        assert_eq!(
            other.get("schema:a b").await.expect("asked"),
            Some(b"{}".to_vec())
        );
        log.put("schema:a b", None).await.expect("forgotten");
        assert_eq!(other.get("schema:a b").await.expect("asked"), None);
    });
}

#[test]
fn what_is_taken_from_a_group_before_it_was_given_is_counted_over_restarts() {
    let server = NatsServer::start();
    run(async {
        let log = open(&config(&server)).await;
        let spec = group(&["orders:e*"]);
        log.open_group(&spec).await.expect("made");
        store(&log, "orders:eu", 10).await;
        store(&log, "orders:us", 5).await;
        let lost = async |log: &Jetstream| {
            let lag = log.lag("mail/1").await.expect("lag");
            (lag.lost, lag.lost_before)
        };
        assert_eq!(lost(&log).await, (0, 0));
        let first = fetch_all(&log, 2).await;
        let done: Vec<_> = first.iter().map(|one| (one.lease, Settled::Done)).collect();
        log.settle("mail/1", &done).await.expect("settled");
        let client = async_nats::connect(server.url()).await.expect("connected");
        let stream = jetstream::new(client).get_stream("RINGMAIN").await;
        let stream = stream.expect("the stream");
        // As retention does it: what is before the sixth message is gone.
        stream.purge().sequence(6).await.expect("gone");
        assert_eq!(lost(&log).await, (10 - 2 - 5, 0));
        assert_eq!(lost(&log).await, (3, 0), "once");
        let left = store(&log, "orders:es", 4).await;
        let channel = ringmain::model::ChannelName::from_whole("orders:eu");
        for _ in 0..2 {
            log.trim(&channel).await.expect("forgotten");
            assert_eq!(lost(&log).await, (8, 0));
        }
        let other = open(&config(&server)).await;
        assert_eq!(lost(&other).await, (8, 8));
        let rest = fetch_all(&other, left.len()).await;
        let rest: Vec<EventId> = rest.iter().map(|one| one.entry.record.event).collect();
        assert_eq!(rest, left);
        assert!(log.delete_group("mail/1").await.expect("deleted"));
        log.open_group(&spec).await.expect("made anew");
        assert_eq!(lost(&log).await, (0, 0), "another group");
    });
}

#[test]
fn repeated_key_gives_the_first_event_to_every_process() {
    let server = NatsServer::start();
    run(async {
        let log = open(&config(&server)).await;
        let first = crate::lab::keyed("a", "k");
        let event = Some(first.record.event);
        let stored = crate::lab::append_one(&log, first).await.expect("stored");
        assert_eq!((stored.event, stored.is_new), (event, true));
        let other = open(&config(&server)).await;
        for log in [&log, &other, &other] {
            let again = crate::lab::append_one(log, crate::lab::keyed("a", "k")).await;
            let again = again.expect("answered");
            assert_eq!((again.event, again.is_new), (event, false));
            assert_eq!(again.position, stored.position);
        }
    });
}
