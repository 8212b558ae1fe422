//! Dead letters in JetStream: in which order they are kept, what is known of them, and their end.

use std::time::Duration;

use ringmain::upstream::log::{
    Bounds, Cause, DeadLetter, Failure, Group, Groups as _, Letters as _, Settled,
};
use ringmain::upstream::nats::Jetstream;

use crate::lab::{append_one, config, open, publication, run, until};
use crate::nats_server::NatsServer;

const NO_BOUNDS: Bounds = Bounds {
    age: Duration::ZERO,
    letters: 0,
    bytes: 0,
};

fn failure(attempt: u32, reason: &str) -> Failure {
    Failure {
        attempt,
        unix_ms: 1_700_000_000_000 + u64::from(attempt),
        reason: reason.into(),
        worker: "w".into(),
        next_unix_ms: 0,
    }
}

async fn group(log: &Jetstream, name: &str, channels: &[&str]) {
    let group = Group {
        name: name.into(),
        channels: channels.iter().map(|&channel| channel.into()).collect(),
        from_beginning: true,
        start_after: None,
        lease: Duration::from_secs(2),
        ordered: false,
    };
    log.open_group(&group).await.expect("made");
}

#[test]
fn entry_whose_giving_up_was_interrupted_comes_again_with_its_whole_history() {
    let server = NatsServer::start();
    run(async {
        let log = open(&config(&server)).await;
        group(&log, "g", &["jobs:*"]).await;
        append_one(&log, publication("jobs:1", "a"))
            .await
            .expect("stored");
        let leased = log.fetch("g", 1).await.expect("leased").remove(0);
        let first = failure(1, "no");
        let settled = [(leased.lease, Settled::Failed(first.clone()))];
        log.settle("g", &settled).await.expect("settled");
        let letter = DeadLetter {
            group: "g".into(),
            entry: leased.entry.clone(),
            failures: vec![first, failure(2, "no again")],
            unix_ms: 9,
        };
        let said = publication("$dead:g", "said");
        let left = log.give_up(leased.lease, &letter, Some(said.clone())).await;
        assert_eq!(
            left.expect("kept"),
            Some(said.clone()),
            "the caller appends it"
        );
        // The process ends before it has announced and settled.
        drop(log);
        let log = open(&config(&server)).await;
        let again = log.fetch("g", 1).await.expect("leased").remove(0);
        assert_eq!(again.failures, letter.failures, "no attempt is left");
        let event = letter.entry.record.event;
        let kept = log.dead_letter("g", event).await.expect("asked");
        assert_eq!(kept, Some(letter.clone()));
        // Announcements go to who names them.
        append_one(&log, said).await.expect("stored");
        group(&log, "all", &["*"]).await;
        group(&log, "alerts", &["$dead:*"]).await;
        let channels = async |name: &str| {
            let leased = log.fetch(name, 9).await.expect("leased");
            let names = leased.iter().map(|one| one.entry.record.channel.whole());
            names.map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(channels("all").await, ["jobs:1"]);
        assert_eq!(channels("alerts").await, ["$dead:g"]);
    });
}

#[test]
fn letters_are_counted_once_and_kept_count_of_and_the_oldest_go_first() {
    let server = NatsServer::start();
    run(async {
        let log = open(&config(&server)).await;
        for n in 0..5 {
            append_one(&log, publication("jobs:1", &n.to_string()))
                .await
                .expect("stored");
        }
        let (_, entries) = crate::lab::all(&log, "jobs:1").await;
        let letter = |at: usize, reason: &str| DeadLetter {
            group: if at == 4 { "h" } else { "g" }.into(),
            entry: entries[at].clone(),
            failures: vec![failure(1, reason)],
            unix_ms: 10_000 - at as u64,
        };
        for (at, reason) in [
            (0, "no"),
            (1, "ack_wait"),
            (2, "no"),
            (4, "no"),
            (2, "loop: x"),
        ] {
            log.bury(&letter(at, reason)).await.expect("kept");
        }
        // Another process counts them at its start.
        let other = open(&config(&server)).await;
        assert_eq!(other.expire_letters(NO_BOUNDS).await.expect("counted"), []);
        let count = |log: &Jetstream, group: &str, cause| {
            let counts = log.census().counts;
            counts.get(&(group.into(), cause)).copied().unwrap_or(0)
        };
        for log in [&other, &log] {
            assert_eq!(count(log, "g", Cause::Failed), 1);
            assert_eq!(count(log, "g", Cause::AckWait), 1);
            assert_eq!(count(log, "g", Cause::Loop), 1);
            assert_eq!(count(log, "h", Cause::Failed), 1);
        }
        assert_eq!(other.census(), log.census());
        other.bury(&letter(3, "no")).await.expect("kept");
        assert!(
            other
                .exhume("g", entries[0].record.event)
                .await
                .expect("asked")
        );
        assert_eq!(other.census().letters, 4);
        let three = Bounds {
            letters: 3,
            ..NO_BOUNDS
        };
        let gone = other.expire_letters(three).await.expect("expired");
        assert_eq!(gone, ["h".into()], "the one that died first");
        assert_eq!(other.expire_letters(three).await.expect("expired"), []);
        let left = until("three letters", async || {
            let left = other.dead_letters(None, None, 9).await.expect("letters");
            (left.len() == 3).then_some(left)
        });
        let bytes = left.await.iter().map(DeadLetter::bytes).sum::<u64>();
        assert_eq!((other.census().letters, other.census().bytes), (3, bytes));
        let old = Bounds {
            age: Duration::from_secs(1),
            ..NO_BOUNDS
        };
        assert_eq!(other.expire_letters(old).await.expect("expired").len(), 3);
        assert_eq!(other.census().letters, 0);
    });
}
