//! Groups that are deleted, that do not exist, and whose rules are changed.

use super::*;

#[test]
fn worker_and_whoever_waits_are_told_that_their_group_is_deleted() {
    run(async {
        let log = log_with(1);
        let table = Table::new(&log, &durable("a", Vec::new()));
        let consume = json!({ "group": "g", "channels": ["a:*"], "credit": 1 });
        let joined = table.ask(LogMethod::Consume, client(1), consume).await;
        assert!(joined.is_ok());
        let (_, delivery) = table.delivery().await;
        let fetch = json!({ "group": "g", "wait_ms": 20_000 });
        let (deleted, over_http, over_rpc) = tokio::join!(
            async {
                wait("both to wait", || {
                    let report = table.desk.report();
                    (report[0].waiting == 2).then_some(())
                })
                .await;
                table
                    .service(LogMethod::DeleteGroup, json!({ "group": "g" }))
                    .await
            },
            table.service(LogMethod::Fetch, fetch.clone()),
            table.ask(LogMethod::Fetch, client(2), fetch.clone()),
        );
        assert_eq!(deleted, Ok(json!({})));
        for answer in [over_http, over_rpc] {
            let Err(LogError::NotFound(why)) = answer else {
                panic!("{answer:?}");
            };
            assert_eq!(&*why, "the group `g` was deleted");
        }
        let (to, message) = table.delivery().await;
        assert_eq!(to.1.slot, 1);
        assert_eq!(message, json!({ "group": "g", "deleted": true }));
        let ack = json!({ "delivery": delivery["delivery"] });
        let acked = table.ask(LogMethod::Ack, client(1), ack).await;
        let expected =
            json!({ "acked": 0, "unknown": [delivery["delivery"]], "deleted_groups": ["g"] });
        assert_eq!(acked, Ok(expected));
        for (method, caller, ask) in [
            (LogMethod::Fetch, Caller::Service, fetch),
            (LogMethod::Consume, client(1), json!({ "group": "g" })),
            (
                LogMethod::Credit,
                client(1),
                json!({ "group": "g", "credit": 1 }),
            ),
            (LogMethod::Leave, client(1), json!({ "group": "g" })),
            (
                LogMethod::DeleteGroup,
                Caller::Service,
                json!({ "group": "g" }),
            ),
            (
                LogMethod::DeadList,
                Caller::Service,
                json!({ "group": "g" }),
            ),
        ] {
            let refused = table.ask(method, caller, ask).await;
            let Err(LogError::NotFound(why)) = refused else {
                panic!("{method:?} {refused:?}");
            };
            assert_eq!(&*why, "the group `g` was deleted", "{method:?}");
        }
    });
}

#[test]
fn group_that_is_deleted_elsewhere_is_gone_here_too() {
    run(async {
        let log = log_with(0);
        let table = Table::new(&log, &durable("a", Vec::new()));
        let consume = json!({ "group": "g", "channels": ["a:*"] });
        let joined = table.ask(LogMethod::Consume, client(1), consume).await;
        assert!(joined.is_ok());
        assert_eq!(log.delete_group("g").await, Ok(true));
        log.put_all([memory::record("a:1", EventId(1), "1")]);
        let (_, message) = table.delivery().await;
        assert_eq!(message, json!({ "group": "g", "deleted": true }));
        assert!(table.desk.report().is_empty());
    });
}

#[test]
fn what_does_not_exist_is_said_to_be_missing() {
    run(async {
        let log = log_with(3);
        let table = Table::new(&log, &durable("a", Vec::new()));
        let mistyped = json!({ "group": "biling" });
        for method in [
            LogMethod::Fetch,
            LogMethod::DeadList,
            LogMethod::DeleteGroup,
        ] {
            let refused = table.service(method, mistyped.clone()).await;
            let Err(LogError::NotFound(why)) = refused else {
                panic!("{method:?} {refused:?}");
            };
            assert_eq!(&*why, "there is no group `biling`", "{method:?}");
        }
        for method in [LogMethod::DeadRetry, LogMethod::DeadDrop] {
            let all = json!({ "group": "biling", "all": true });
            let refused = table.service(method, all).await;
            assert!(matches!(refused, Err(LogError::NotFound(_))), "{refused:?}");
        }
        for channels in [json!(["lobby"]), json!(["a:*", "c:*"]), json!(["lob*"])] {
            let wish = json!({ "group": "g", "channels": channels });
            let refused = table.service(LogMethod::Fetch, wish).await;
            assert!(
                matches!(refused, Err(LogError::BadRequest(_))),
                "{refused:?}"
            );
            let wish = json!({ "channels": channels });
            let refused = table.service(LogMethod::Replay, wish).await;
            assert!(
                matches!(refused, Err(LogError::BadRequest(_))),
                "{refused:?}"
            );
        }
        assert!(
            table.desk.report().is_empty(),
            "nothing was made by mistake"
        );
        let wish = json!({ "group": "g", "channels": ["*"] });
        assert!(table.service(LogMethod::Fetch, wish).await.is_ok());
        let none = table
            .service(LogMethod::DeadRetry, json!({ "group": "g", "all": true }))
            .await;
        assert_eq!(none, Ok(json!({ "retried": 0 })), "there is such a group");
    });
}

/// A worker whose token lets it take from these channels.
fn granted(slot: u32, channels: &[&str]) -> Caller {
    let Caller::Client {
        conn, client, user, ..
    } = client(slot)
    else {
        unreachable!("a client");
    };
    Caller::Client {
        conn,
        client,
        user,
        grants: Arc::from([ConsumeGrant {
            groups: "*".into(),
            channels: channels.iter().map(|channel| (*channel).into()).collect(),
        }]),
    }
}

#[test]
fn group_is_changed_by_whoever_says_so_and_may_take_from_all_of_it() {
    run(async {
        let table = Table::new(&log_with(0), &durable("a", Vec::new()));
        let make = json!({ "group": "g", "channels": ["a:*", "b:*"], "max_attempts": 2 });
        let all = || granted(1, &["*"]);
        assert!(
            table
                .ask(LogMethod::Consume, all(), make.clone())
                .await
                .is_ok()
        );
        let part = || granted(2, &["a:*"]);
        let differs = |answer: Result<Value, LogError>| {
            let Err(LogError::BadRequest(why)) = answer else {
                panic!("{answer:?}");
            };
            assert!(why.starts_with("rules differ"), "{why}");
        };
        let forbidden = |answer: Result<Value, LogError>| {
            assert!(matches!(answer, Err(LogError::Forbidden(_))), "{answer:?}");
        };
        for caller in [part(), all(), Caller::Service] {
            let ask = |wish: Value| table.ask(LogMethod::Fetch, caller.clone(), wish);
            differs(ask(json!({ "group": "g", "channels": ["a:1*"] })).await);
            differs(ask(json!({ "group": "g", "max_attempts": 3 })).await);
            differs(ask(json!({ "group": "g", "ack_wait_ms": 1000 })).await);
            differs(ask(json!({ "group": "g", "ordered": true })).await);
            differs(ask(json!({ "group": "g", "backoff": { "base_ms": 1 } })).await);
        }
        let update = |wish: Value| {
            let mut wish = wish;
            wish["update"] = json!(true);
            wish
        };
        for narrow in [
            json!({ "group": "g", "channels": ["a:*"] }),
            json!({ "group": "g", "max_attempts": 3 }),
            json!({ "group": "g" }),
        ] {
            forbidden(table.ask(LogMethod::Fetch, part(), update(narrow)).await);
        }
        // The same channels in another order are the same rules.
        let same = json!({ "group": "g", "channels": ["b:*", "a:*"], "max_attempts": 2 });
        assert!(
            table
                .ask(LogMethod::Consume, granted(3, &["*"]), same)
                .await
                .is_ok()
        );
        let narrowed = update(json!({ "group": "g", "channels": ["a:*"] }));
        assert!(table.ask(LogMethod::Consume, all(), narrowed).await.is_ok());
        let widened = update(json!({ "group": "g", "channels": ["*"] }));
        forbidden(table.ask(LogMethod::Fetch, part(), widened).await);
        differs(table.ask(LogMethod::Consume, all(), make).await);
        let groups = table.service(LogMethod::Groups, json!({})).await;
        assert_eq!(
            groups.expect("groups")["groups"][0]["channels"],
            json!(["a:*"])
        );
    });
}

#[test]
fn rules_that_another_process_has_given_a_group_count_here_too() {
    run(async {
        let log = log_with(0);
        let (here, there) = (
            Table::new(&log, &durable("a", Vec::new())),
            Table::new(&log, &durable("a", Vec::new())),
        );
        let first = json!({ "group": "g", "channels": ["a:*"], "max_attempts": 7 });
        assert!(here.service(LogMethod::Fetch, first.clone()).await.is_ok());
        let other = json!({ "group": "g", "channels": ["a:*"], "max_attempts": 3 });
        let refused = there.service(LogMethod::Fetch, other.clone()).await;
        assert!(
            matches!(refused, Err(LogError::BadRequest(_))),
            "{refused:?}"
        );
        assert!(there.service(LogMethod::Fetch, first.clone()).await.is_ok());
        let mut update = other.clone();
        update["update"] = json!(true);
        assert!(there.service(LogMethod::Fetch, update).await.is_ok());
        assert!(here.service(LogMethod::Fetch, other).await.is_ok());
        let refused = here.service(LogMethod::Fetch, first).await;
        assert!(
            matches!(refused, Err(LogError::BadRequest(_))),
            "{refused:?}"
        );
    });
}

#[test]
fn rules_of_a_group_are_told_to_nobody_who_may_not_take_from_it() {
    run(async {
        let table = Table::new(&log_with(0), &durable("a", Vec::new()));
        for group in ["g", "other"] {
            let make = json!({ "group": group, "channels": ["a:*", "b:*"], "max_attempts": 2 });
            assert!(table.service(LogMethod::Fetch, make).await.is_ok());
        }
        for wish in [
            json!({ "group": "other" }),
            json!({ "group": "other", "max_attempts": 3 }),
            json!({ "group": "other", "channels": ["a:*"] }),
            json!({ "group": "other", "max_attempts": 1000 }),
            json!({ "group": "missing" }),
            json!({ "group": "g", "channels": ["b:*"] }),
            json!({ "group": "gone", "channels": ["b:*"] }),
        ] {
            for method in [LogMethod::Fetch, LogMethod::Consume] {
                let refused = table.ask(method, client(1), wish.clone()).await;
                assert!(
                    matches!(refused, Err(LogError::Forbidden(_))),
                    "{wish} {refused:?}"
                );
            }
        }
    });
}

#[test]
fn operation_that_nobody_waits_for_any_more_when_its_turn_comes_is_not_begun() {
    run(async {
        let log = log_with(9);
        let table = Table::new(&log, &durable("a", Vec::new()));
        let wish = json!({ "group": "g", "channels": ["a:*"], "limit": 3 });
        table.service(LogMethod::Fetch, wish).await.expect("made");
        for method in [
            LogMethod::PauseGroup,
            LogMethod::SeekGroup,
            LogMethod::PurgeGroup,
            LogMethod::CopyGroup,
            LogMethod::DeleteGroup,
        ] {
            let turn = table.desk.0.opening.lock().await;
            let mut data = json!({ "group": "g" });
            if matches!(method, LogMethod::SeekGroup | LogMethod::CopyGroup) {
                data["to"] = "end".into();
            }
            let asked = table.service(method, data);
            let mut asked = std::pin::pin!(asked);
            tokio::select! {
                biased;
                answer = &mut asked => panic!("{method:?}: {answer:?}"),
                () = tokio::task::yield_now() => {}
            }
            let id = RequestId(AskId {
                slot: table.next.get(),
                generation: 0,
            });
            table.desk.abandoned((ShardId(0), id));
            drop(turn);
            let answer = asked.await;
            assert!(
                matches!(answer, Err(LogError::Unavailable { .. })),
                "{method:?}: {answer:?}"
            );
        }
        let report = &table.desk.report()[..];
        assert_eq!(report.len(), 1, "neither copied nor deleted");
        assert_eq!((report[0].is_paused, report[0].in_flight), (false, 3));
    });
}

#[test]
fn operation_that_is_asked_for_again_answers_the_same() {
    run(async {
        let log = log_with(9);
        let table = Table::new(&log, &durable("a", Vec::new()));
        let wish = json!({ "group": "g", "channels": ["a:*"], "limit": 3 });
        table.service(LogMethod::Fetch, wish).await.expect("made");
        let copy = json!({ "group": "g", "to": "h" });
        for (method, data) in [
            (LogMethod::PauseGroup, json!({ "group": "g" })),
            (LogMethod::ResumeGroup, json!({ "group": "g" })),
            (
                LogMethod::SeekGroup,
                json!({ "group": "g", "to": "beginning" }),
            ),
            (LogMethod::CopyGroup, copy.clone()),
        ] {
            let first = table.service(method, data.clone()).await.expect("done");
            let again = table.service(method, data).await.expect("done before");
            assert_eq!(first, again, "{method:?}");
        }
        // Somebody works with the copy: another one would not be the same.
        let fetched = table
            .service(LogMethod::Fetch, json!({ "group": "h" }))
            .await;
        assert!(fetched.is_ok(), "{fetched:?}");
        let again = table.service(LogMethod::CopyGroup, copy).await;
        assert!(matches!(again, Err(LogError::BadRequest(_))), "{again:?}");
        let delete = json!({ "group": "h" });
        table
            .service(LogMethod::DeleteGroup, delete.clone())
            .await
            .expect("deleted");
        let again = table.service(LogMethod::DeleteGroup, delete).await;
        let error = again.expect_err("it is gone").to_string();
        assert!(error.contains("was deleted"), "{error}");
    });
}
