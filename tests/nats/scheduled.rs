//! Publications at a later time: in the server's schedules, published once by one of those who share them.

use std::collections::BTreeMap;

use ringmain::mesh::durable::LogError;
use ringmain::model::{ChannelName, Draft, EventId};
use ringmain::upstream::log::{Entries as _, Log as _, Name, Page, Scheduled as _, Which};

use crate::lab::{all, append_one, assert_whole, config, keyed, open, publication, run, until};
use crate::nats_server::NatsServer;

#[expect(
    clippy::disallowed_methods,
    reason = "times are those of the wall clock"
)]
fn unix_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    u64::try_from(since.expect("after 1970").as_millis()).expect("some years")
}

fn later(mut draft: Draft, due_ms: u64) -> Draft {
    draft.due_ms = due_ms;
    draft
}

fn which(channel: &str, name: Name) -> Which {
    let channel = ChannelName::from_whole(channel);
    Which { channel, name }
}

async fn waiting(log: &impl ringmain::upstream::log::Scheduled, limit: usize) -> Vec<EventId> {
    let mut wanted = Page {
        limit,
        bytes: usize::MAX,
        ..Page::default()
    };
    let mut found = Vec::new();
    loop {
        let page = log.scheduled(&wanted).await.expect("read");
        let Some(last) = page.last() else {
            return found;
        };
        wanted.after = Some(last.place);
        found.extend(page.iter().map(|one| one.draft.record.event));
    }
}

#[test]
fn what_is_delayed_comes_at_its_time_and_in_order() {
    let server = NatsServer::start();
    run(async {
        let log = open(&config(&server)).await;
        let at = unix_ms() + 5000;
        let drafts = vec![
            later(publication("orders:1", "third"), at + 200),
            later(publication("orders:1", "first"), at),
            later(publication("orders:1", "second"), at + 100),
            publication("orders:1", "now"),
        ];
        let events: Vec<EventId> = drafts.iter().map(|draft| draft.record.event).collect();
        let results = log.append(drafts).await;
        let told = |at: usize| {
            results[at]
                .as_ref()
                .map(|one| (one.is_new, one.due_ms, one.event))
        };
        assert_eq!(told(1), Ok((true, at, Some(events[1]))));
        assert_eq!(told(3), Ok((true, 0, Some(events[3]))));
        let order = [events[1], events[2], events[0]];
        assert_eq!(waiting(&log, 2).await, order);
        let mut came = Vec::new();
        while came.len() < 4 {
            for entry in log.tail().await.expect("followed") {
                if entry.record.event != events[3] {
                    assert!(unix_ms() >= at, "not before");
                }
                came.push(entry.record.event);
            }
        }
        assert_eq!(came[1..], order);
        let (_, entries) = all(&log, "orders:1").await;
        assert_whole(&entries);
        assert_eq!(log.status().schedule.late.count(), 3);
        until("nothing to wait", async || {
            (log.status().schedule.pending == 0).then_some(())
        })
        .await;
        log.close().await;
    });
}

#[test]
fn keys_names_and_times_are_kept_by_the_server() {
    let server = NatsServer::start();
    run(async {
        let log = open(&config(&server)).await;
        let far = unix_ms() + 3_600_000;
        let first = later(keyed("orders:1", "k"), far);
        let event = first.record.event;
        let told = append_one(&log, first).await.expect("stored");
        assert_eq!((told.is_new, told.due_ms), (true, far));
        let again = append_one(&log, later(keyed("orders:1", "k"), far + 9)).await;
        let again = again.expect("answered");
        assert_eq!(
            (again.is_new, again.due_ms, again.event),
            (false, far, Some(event))
        );
        append_one(&log, keyed("orders:1", "stands"))
            .await
            .expect("stored");
        let stands = append_one(&log, later(keyed("orders:1", "stands"), far)).await;
        let stands = stands.expect("answered");
        assert_eq!(
            (stands.is_new, stands.due_ms, stands.position.offset.0),
            (false, 0, 1)
        );

        let by_key = which("orders:1", Name::Key("k".into()));
        let found = log.pending(&by_key).await.expect("read").expect("it waits");
        assert_eq!(found.draft.record.event, event);
        let elsewhere = which("orders:2", Name::Event(event));
        assert_eq!(log.pending(&elsewhere).await, Ok(None));
        let changed = log.change(&by_key, far + 60_000).await.expect("done");
        assert_eq!(changed.map(|one| one.place.due_ms), Some(far + 60_000));
        assert_eq!(waiting(&log, 10).await, [event]);
        let by_event = which("orders:1", Name::Event(event));
        let cancelled = log
            .cancel(&by_event)
            .await
            .expect("done")
            .expect("it waits");
        assert_eq!(cancelled.place.due_ms, far + 60_000);
        assert_eq!(log.cancel(&by_event).await, Ok(None));
        assert_eq!(waiting(&log, 10).await, []);
        let free = append_one(&log, later(keyed("orders:1", "k"), far)).await;
        assert!(free.expect("stored").is_new);
        log.close().await;

        let mut small = config(&server);
        small.scheduled_max = 1;
        let log = open(&small).await;
        until("the count", async || {
            (log.status().schedule.pending == 1).then_some(())
        })
        .await;
        let refused = append_one(&log, later(publication("orders:1", "x"), far)).await;
        assert!(matches!(refused, Err(LogError::Full(_))), "{refused:?}");
        log.close().await;
    });
}

#[test]
fn repetition_gets_the_first_answer_in_the_last_second_too() {
    let server = NatsServer::start();
    run(async {
        let log = open(&config(&server)).await;
        let (due, far) = (unix_ms() + 2500, unix_ms() + 3_600_000);
        let first = later(keyed("orders:1", "k"), due);
        let event = first.record.event;
        append_one(&log, first).await.expect("stored");
        until("the server has given it out", async || {
            waiting(&log, 1).await.is_empty().then_some(())
        })
        .await;
        let repeated = async || {
            let again = append_one(&log, later(keyed("orders:1", "k"), far)).await;
            let again = again.expect("answered");
            (again.is_new, again.event, again.due_ms)
        };
        assert_eq!(repeated().await, (false, Some(event), due));
        // It is published by whoever follows the log.
        assert_eq!(log.tail().await.expect("followed")[0].record.event, event);
        assert_eq!(repeated().await, (false, Some(event), 0));
        assert_eq!(waiting(&log, 1).await, []);
        let (_, entries) = all(&log, "orders:1").await;
        assert_eq!(entries.len(), 1);
        log.close().await;
    });
}

#[test]
fn of_many_that_are_due_each_comes_once_whoever_shares_them_and_is_gone() {
    const ALL: usize = 2000;
    let mut server = NatsServer::start();
    run(async {
        let rules = config(&server);
        let log = open(&rules).await;
        let at = unix_ms() + 4000;
        let mut expected = BTreeMap::new();
        for part in 0..4 {
            let drafts: Vec<Draft> = (0..ALL / 4)
                .map(|n| later(publication(&format!("orders:{}", n % 7), "x"), at + part))
                .collect();
            expected.extend(drafts.iter().map(|draft| (draft.record.event, 0)));
            for result in log.append(drafts).await {
                assert!(result.expect("stored").is_new);
            }
        }
        server.kill();
        server.restart();
        // Three processes share them; one goes away in the middle.
        let mut logs = vec![open(&rules).await, open(&rules).await];
        for log in &logs {
            until("it to follow", async || {
                let tail = tokio::time::timeout(std::time::Duration::from_millis(20), log.tail());
                let _ = tail.await;
                Some(())
            })
            .await;
        }
        until("half of them", async || {
            let mut count = 0;
            for n in 0..7 {
                count += all(&log, &format!("orders:{n}")).await.1.len();
            }
            (count > ALL / 3).then_some(())
        })
        .await;
        drop(logs.pop());
        until("all of them", async || {
            let mut count = 0;
            for n in 0..7 {
                count += all(&log, &format!("orders:{n}")).await.1.len();
            }
            (count >= ALL).then_some(())
        })
        .await;
        for n in 0..7 {
            let (_, entries) = all(&log, &format!("orders:{n}")).await;
            assert_whole(&entries);
            for entry in entries {
                *expected.get_mut(&entry.record.event).expect("one of ours") += 1;
            }
        }
        assert!(expected.values().all(|&count| count == 1), "each once");
        until("nothing to wait", async || {
            (log.status().schedule.pending == 0).then_some(())
        })
        .await;
        log.close().await;
    });
}

#[test]
fn a_stream_that_somebody_deletes_is_made_again() {
    let server = NatsServer::start();
    run(async {
        let log = open(&config(&server)).await;
        let far = unix_ms() + 3_600_000;
        let before = append_one(&log, later(publication("orders:1", "x"), far)).await;
        before.expect("stored");
        let client = async_nats::connect(server.url()).await.expect("connects");
        let js = async_nats::jetstream::new(client);
        let deleted = js.delete_stream("RINGMAIN_SCHEDULED").await;
        assert!(deleted.expect("deleted").success);
        let again = later(publication("orders:1", "y"), far);
        until("a place for what waits", async || {
            append_one(&log, again.clone()).await.ok()
        })
        .await;
        assert_eq!(waiting(&log, 10).await, [again.record.event]);
        let now = append_one(&log, publication("orders:1", "z")).await;
        assert_eq!(now.expect("stored").position.offset.0, 1);
        log.close().await;
    });
}
