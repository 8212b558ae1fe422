//! Dead letters: how they become known, which are meant, where they go.

use super::*;

const GROUP: &str = "g";

/// A log with a letter of each of these events of `channel`, offset by offset, with the reason of its last failure.
async fn letters(log: &MemoryLog, group: &str, channel: &str, events: &[(u128, &str)]) {
    for (at, (event, reason)) in events.iter().enumerate() {
        let record = memory::record(channel, EventId(*event), &format!(r#"{{"n":{event}}}"#));
        let letter = DeadLetter {
            group: group.into(),
            entry: memory::entry(1000 + *event as u64, at as u64 + 1, record),
            failures: vec![crate::upstream::log::Failure {
                attempt: 1,
                unix_ms: 1,
                reason: (*reason).into(),
                worker: "w".into(),
                next_unix_ms: 0,
            }],
            unix_ms: 1000 + *event as u64,
        };
        log.bury(&letter).await.expect("kept");
    }
}

async fn make_group(table: &Table, name: &str) {
    let fetch = json!({ "group": name, "channels": ["b:*"], "max_attempts": 1 });
    let made = table.service(LogMethod::Fetch, fetch).await;
    assert!(made.is_ok(), "{made:?}");
}

/// Numbers of the letters in an answer, or of deliveries.
fn numbers(list: &Value, name: &str) -> Vec<u64> {
    let list = list[name].as_array().expect("a list");
    let number = |one: &Value| one["data"]["n"].as_u64().or_else(|| one["offset"].as_u64());
    list.iter().filter_map(number).collect()
}

async fn fetch(table: &Table, group: &str, limit: usize) -> Value {
    let fetch = json!({ "group": group, "limit": limit, "wait_ms": 5000 });
    table
        .service(LogMethod::Fetch, fetch)
        .await
        .expect("deliveries")
}

/// Lets publications of `a:*` die in a group, each at its first attempt.
async fn die(table: &Table, group: &str, channel: &str, count: usize) {
    let fetch = json!({ "group": group, "channels": [channel], "limit": count, "wait_ms": 5000, "max_attempts": 1 });
    let mut left = count;
    while left > 0 {
        let got = table.service(LogMethod::Fetch, fetch.clone()).await;
        let got = got.expect("deliveries");
        for given in got["deliveries"].as_array().expect("a list") {
            let nak = json!({ "delivery": given["delivery"], "reason": "no" });
            let said = table.service(LogMethod::Nak, nak).await;
            assert_eq!(said, Ok(json!({ "naked": 1 })));
            left -= 1;
        }
    }
}

#[test]
fn hook_that_is_away_for_longer_than_five_calls_is_told_of_every_letter_in_order() {
    run(async {
        let log = log_with(3);
        let mut config = durable("a", Vec::new());
        config.queue.dead_letter_hook = "ops".to_owned();
        let table = Table::new(&log, &config);
        table.kept.hook_fails.set(6);
        die(&table, GROUP, "a:*", 3).await;
        let events = |told: &[(String, Value)]| -> Vec<Value> {
            told.iter()
                .map(|(_, body)| body["event_id"].clone())
                .collect()
        };
        wait("all to be announced", || {
            (table.kept.announced().len() == 3).then_some(())
        })
        .await;
        let told = wait("the hook", || {
            let told = table.kept.hooked.borrow();
            (told.len() == 3).then(|| told.clone())
        })
        .await;
        assert_eq!(table.kept.hook_fails.get(), 0);
        assert!(told.iter().all(|(name, _)| name == "ops"));
        assert_eq!(events(&told), events(&table.kept.announced()));
    });
}

#[test]
fn hook_that_is_away_when_the_process_ends_is_told_by_the_next_one() {
    run(async {
        let log = log_with(1);
        let mut config = durable("a", Vec::new());
        config.queue.dead_letter_hook = "ops".to_owned();
        let table = Table::new(&log, &config);
        table.kept.hook_fails.set(u32::MAX);
        die(&table, GROUP, "a:*", 1).await;
        wait("the announcement", || table.kept.announced().pop()).await;
        table.desk.close().await;
        log.restart();
        let table = Table::new(&log, &config);
        let told = wait("the hook", || table.kept.hooked.borrow_mut().pop()).await;
        assert_eq!(told.1["reason"], "no");
        assert_eq!(table.kept.announced().len(), 1, "announced once");
    });
}

#[test]
fn letter_whose_announcement_was_interrupted_is_announced_once() {
    run(async {
        let log = log_with(1);
        let config = durable("a", Vec::new());
        // The process before was killed when letter and announcement were there, and the entry was not settled.
        let first = Table::new(&log, &config);
        die(&first, GROUP, "a:*", 1).await;
        wait("the announcement", || first.kept.announced().pop()).await;
        let letter = wait("the letter", || {
            let letters = log.census().letters;
            (letters == 1).then_some(())
        });
        letter.await;
        first.desk.close().await;
        let all = log.dead_letters(None, None, 1).await.expect("letters");
        let second = Table::new(&log, &config);
        second.desk.0.keep(Lease(9), &all[0]).await.expect("kept");
        assert_eq!(second.kept.announced().len(), 1);
        assert_eq!(log.census().letters, 1);
    });
}

#[test]
fn letters_of_those_who_take_announcements_are_kept_and_not_announced() {
    run(async {
        let log = log_with(1);
        let mut config = durable("a", Vec::new());
        config.queue.dead_letter_hook = "ops".to_owned();
        let table = Table::new(&log, &config);
        die(&table, GROUP, "a:*", 1).await;
        die(&table, "alerts", "$dead:*", 1).await;
        wait("both letters", || (log.census().letters == 2).then_some(())).await;
        wait("the hook", || table.kept.hooked.borrow_mut().pop()).await;
        assert_eq!(table.kept.announced().len(), 1);
        let of = json!({ "group": "alerts" });
        let list = table
            .service(LogMethod::DeadList, of)
            .await
            .expect("a list");
        assert_eq!(list["letters"][0]["channel"], "$dead:g");
    });
}

#[test]
fn announcements_go_to_whoever_names_them_and_to_nobody_who_takes_everything() {
    run(async {
        let log = log_with(1);
        let table = Table::new(&log, &durable("a", Vec::new()));
        die(&table, GROUP, "a:*", 1).await;
        wait("the announcement", || table.kept.announced().pop()).await;
        let all = json!({ "group": "all", "channels": ["*"], "limit": 10 });
        let got = table.service(LogMethod::Fetch, all).await.expect("some");
        assert_eq!(got["deliveries"].as_array().map(Vec::len), Some(1));
        assert_eq!(got["deliveries"][0]["channel"], "a:1");
        let dead = json!({ "group": "alerts", "channels": ["$dead:*"], "wait_ms": 5000 });
        let got = table.service(LogMethod::Fetch, dead).await.expect("some");
        assert_eq!(got["deliveries"][0]["channel"], "$dead:g");
        assert_eq!(got["deliveries"][0]["data"]["class"], "failed");
        for (granted, is_given) in [("*", false), ("$*", false), ("$dead:*", true)] {
            assert_eq!(covers(granted, "$dead:g"), is_given, "{granted}");
            assert_eq!(covers(granted, "$dead:*"), is_given, "{granted}");
        }
        for into in ["$dead:g", "$queue:g"] {
            let replay = json!({ "channels": ["a:1"], "into": { "channel": into } });
            let refused = table.service(LogMethod::Replay, replay).await;
            assert!(
                matches!(refused, Err(LogError::BadRequest(_))),
                "{refused:?}"
            );
        }
    });
}

#[test]
fn letters_of_a_deleted_group_are_listed_moved_and_dropped_and_stop_nothing() {
    run(async {
        let log = log_with(0);
        let table = Table::new(&log, &durable("a", Vec::new()));
        make_group(&table, "here").await;
        letters(&log, "gone", "a:1", &[(1, "x"), (2, "x"), (3, "x")]).await;
        letters(&log, "here", "a:1", &[(4, "x"), (5, "x")]).await;
        let list = table.service(LogMethod::DeadList, json!({ "group": "gone" }));
        assert_eq!(numbers(&list.await.expect("a list"), "letters"), [1, 2, 3]);
        // It stands in nobody's way.
        let retry = json!({ "all": true });
        let retried = table.service(LogMethod::DeadRetry, retry).await;
        let expected = json!({ "retried": 2, "skipped": 3, "absent_groups": ["gone"] });
        assert_eq!(retried, Ok(expected));
        assert_eq!(
            numbers(&fetch(&table, "here", 10).await, "deliveries"),
            [4, 5]
        );
        let own = json!({ "group": "gone", "all": true });
        let refused = table.service(LogMethod::DeadRetry, own).await;
        let Err(LogError::NotFound(why)) = refused else {
            panic!("{refused:?}")
        };
        assert!(why.contains("to_group"), "{why}");
        // Moved to another group, and onto a channel.
        let one =
            json!({ "group": "gone", "event_id": EventId(1).to_string(), "to_group": "here" });
        let moved = table.service(LogMethod::DeadRetry, one).await;
        assert_eq!(moved, Ok(json!({ "retried": 1 })));
        assert_eq!(numbers(&fetch(&table, "here", 10).await, "deliveries"), [1]);
        let one =
            json!({ "group": "gone", "event_id": EventId(2).to_string(), "to_channel": "b:7" });
        let moved = table.service(LogMethod::DeadRetry, one).await;
        assert_eq!(moved, Ok(json!({ "retried": 1 })));
        let stored = log.all();
        let last = stored.last().expect("stored");
        assert_eq!(last.record.channel.whole(), "b:7");
        assert_eq!(last.record.event, EventId(2));
        let dropped = json!({ "group": "gone", "all": true });
        let dropped = table.service(LogMethod::DeadDrop, dropped).await;
        assert_eq!(dropped, Ok(json!({ "dropped": 1 })));
        assert_eq!(log.census().letters, 0);
        for bad in [
            json!({ "group": "gone", "all": true, "to_group": "nope" }),
            json!({ "group": "nope", "all": true }),
        ] {
            let refused = table.service(LogMethod::DeadRetry, bad.clone()).await;
            assert!(
                matches!(refused, Err(LogError::NotFound(_))),
                "{bad}: {refused:?}"
            );
        }
    });
}

#[test]
fn filters_say_which_letters_are_meant_over_all_pages() {
    run(async {
        let log = log_with(0);
        let table = Table::new(&log, &durable("a", Vec::new()));
        make_group(&table, GROUP).await;
        let reasons = ["card declined", "ack_wait", "no price", "card stolen"];
        let events: Vec<(u128, &str)> = (1..=2500).map(|n| (n, reasons[n as usize % 4])).collect();
        letters(&log, GROUP, "a:1", &events).await;
        letters(&log, GROUP, "a:2", &[(2501, "card declined")]).await;
        let listed = async |filter: Value| {
            let mut found = Vec::new();
            let mut request = filter;
            request["limit"] = json!(100);
            loop {
                let page = table.service(LogMethod::DeadList, request.clone()).await;
                let page = page.expect("a page");
                assert!(
                    page["letters"]
                        .as_array()
                        .is_some_and(|all| all.len() <= 100)
                );
                found.extend(
                    page["letters"]
                        .as_array()
                        .expect("letters")
                        .iter()
                        .map(|one| {
                            u128::from_str_radix(
                                &one["event_id"].as_str().expect("an id").replace('-', ""),
                                16,
                            )
                            .expect("a number")
                        }),
                );
                match page["next"].as_str() {
                    Some(next) => request["after"] = json!(next),
                    None => return found,
                }
            }
        };
        let expected = |fits: fn(u128) -> bool| (1..=2501).filter(|n| fits(*n)).collect::<Vec<_>>();
        assert_eq!(listed(json!({})).await, expected(|_| true));
        assert_eq!(
            listed(json!({ "reason": "card" })).await,
            expected(|n| n == 2501 || n % 4 == 0 || n % 4 == 3)
        );
        assert_eq!(
            listed(json!({ "class": "ack_wait" })).await,
            expected(|n| n < 2501 && n % 4 == 1)
        );
        assert_eq!(listed(json!({ "channel": "a:2*" })).await, [2501]);
        assert_eq!(
            listed(json!({ "from": 1500, "to": 1510 })).await,
            expected(|n| (500..510).contains(&n))
        );
        assert_eq!(listed(json!({ "key": "k" })).await, [] as [u128; 0]);
        let dropped = json!({ "group": GROUP, "all": true, "class": "ack_wait", "to": 2000 });
        let dropped = table.service(LogMethod::DeadDrop, dropped).await;
        assert_eq!(dropped, Ok(json!({ "dropped": 250 })));
        let retry = json!({ "group": GROUP, "all": true, "reason": "price" });
        let retried = table.service(LogMethod::DeadRetry, retry).await;
        assert_eq!(retried, Ok(json!({ "retried": 625 })));
        assert_eq!(log.census().letters, 2501 - 250 - 625);
        for bad in [
            json!({ "class": "other" }),
            json!({ "data": 1 }),
            json!({ "to_group": GROUP }),
        ] {
            let refused = table.service(LogMethod::DeadList, bad.clone()).await;
            assert!(
                matches!(refused, Err(LogError::BadRequest(_))),
                "{bad}: {refused:?}"
            );
        }
        let event = EventId(4).to_string();
        for bad in [
            json!({ "group": GROUP, "event_id": event, "reason": "card" }),
            json!({ "group": GROUP, "event_id": event, "all": true }),
            json!({ "group": GROUP, "all": true, "data": 1 }),
            json!({ "group": GROUP, "event_id": event, "data": 1, "b64data": "AA==" }),
            json!({ "group": GROUP, "event_id": event, "to_group": GROUP, "to_channel": "a:1" }),
            json!({ "group": GROUP, "event_id": event, "to_channel": "ephemeral" }),
            json!({ "group": GROUP, "event_id": event, "to_channel": "$dead:g" }),
            json!({ "group": GROUP, "event_id": event, "limit": 1 }),
        ] {
            let refused = table.service(LogMethod::DeadRetry, bad.clone()).await;
            assert!(
                matches!(refused, Err(LogError::BadRequest(_))),
                "{bad}: {refused:?}"
            );
        }
    });
}

#[test]
fn letters_of_a_channel_go_back_in_its_order() {
    run(async {
        let log = log_with(0);
        let table = Table::new(&log, &durable("a", Vec::new()));
        make_group(&table, GROUP).await;
        // Ids of one millisecond are in any order.
        let events: Vec<(u128, &str)> = (1..=600).rev().map(|n| (n, "x")).collect();
        letters(&log, GROUP, "a:1", &events).await;
        let retry = json!({ "group": GROUP, "all": true });
        let retried = table.service(LogMethod::DeadRetry, retry).await;
        assert_eq!(retried, Ok(json!({ "retried": 600 })));
        let given: Vec<u128> = log.all().iter().map(|entry| entry.record.event.0).collect();
        assert_eq!(given, (1..=600).rev().collect::<Vec<_>>());
    });
}

#[test]
fn letter_is_retried_with_another_payload_under_its_own_id() {
    run(async {
        let log = log_with(0);
        let mut config = durable("a", Vec::new());
        let namespace = config.channels.namespaces.iter_mut();
        for namespace in namespace {
            Arc::make_mut(namespace).publication_data_format =
                crate::config::namespace::DataFormat::JsonObject;
        }
        let table = Table::new(&log, &config);
        make_group(&table, GROUP).await;
        letters(&log, GROUP, "a:1", &[(1, "x")]).await;
        let mut edit = json!({ "group": GROUP, "event_id": EventId(1).to_string(), "data": 5 });
        let refused = table.service(LogMethod::DeadRetry, edit.clone()).await;
        assert!(
            matches!(refused, Err(LogError::BadRequest(_))),
            "{refused:?}"
        );
        edit["data"] = json!({ "n": 7, "fixed": true });
        let retried = table.service(LogMethod::DeadRetry, edit).await;
        assert_eq!(retried, Ok(json!({ "retried": 1 })));
        let got = fetch(&table, GROUP, 1).await;
        let again = &got["deliveries"][0];
        assert_eq!(again["data"], json!({ "n": 7, "fixed": true }));
        assert_eq!(again["event_id"], EventId(1).to_string());
        assert_eq!(
            (&again["channel"], &again["attempt"]),
            (&json!("a:1"), &json!(1))
        );
        assert_eq!(log.census().letters, 0);
    });
}

#[test]
fn letters_beyond_what_is_kept_go_the_oldest_first_and_are_counted() {
    run(async {
        let log = log_with(0);
        let mut config = durable("a", Vec::new());
        config.queue.dead_letter_retention = Duration::ZERO;
        config.queue.dead_letters_max = 3;
        letters(
            &log,
            GROUP,
            "a:1",
            &[(5, "x"), (1, "x"), (4, "ack_wait"), (2, "x"), (3, "x")],
        )
        .await;
        let table = Table::new(&log, &config);
        let (census, expired) = wait("two to go", || {
            let (census, expired) = table.desk.letters();
            (expired == 2).then_some((census, expired))
        })
        .await;
        assert_eq!((census.letters, expired), (3, 2));
        let left = log.dead_letters(None, None, 9).await.expect("letters");
        let left: Vec<u128> = left.iter().map(|one| one.entry.record.event.0).collect();
        assert_eq!(left, [3, 4, 5]);
        make_group(&table, GROUP).await;
        let groups = table.service(LogMethod::Groups, json!({})).await;
        assert_eq!(groups.expect("groups")["groups"][0]["letters"], 3);
        let list = table.service(LogMethod::DeadList, json!({})).await;
        let expected = json!([
            { "group": GROUP, "class": "failed", "letters": 2 },
            { "group": GROUP, "class": "ack_wait", "letters": 1 },
        ]);
        assert_eq!(list.expect("a list")["counts"], expected);
        config.queue.dead_letters_max = 0;
        config.queue.dead_letter_retention = Duration::from_secs(1);
        table.desk.reload(&config);
        wait("the rest to go by age", || {
            (table.desk.letters().0.letters == 0).then_some(())
        })
        .await;
    });
}
