mod joins;
mod letters;
mod rules;
mod turns;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::encode::Given;
use super::grant::covers;
use super::group::{Holder, Output, Taker};
use super::settings::Settings;
use super::*;
use crate::config::Namespace;
use crate::config::durable::Trigger;
use crate::config::namespace::Delivery;
use crate::mesh::durable::Caller;
use crate::model::{AskId, ChannelName, ClientId, ConsumeGrant, Draft, Entry, EventId, Offset};
use crate::time::Now;
use crate::upstream::log::{DeadLetter, Lease, Leased, Settled};
use crate::upstream::memory::{self, MemoryLog};

/// What the desk says, kept.
struct Kept {
    log: Rc<MemoryLog>,
    answers: RefCell<BTreeMap<u32, Result<Value, LogError>>>,
    deliveries: RefCell<Vec<(WorkerId, Value)>>,
    /// What hooks were told.
    hooked: RefCell<Vec<(String, Value)>>,
    /// Calls of hooks that fail from now on.
    hook_fails: Cell<u32>,
    /// The log is down once something is appended to a channel that begins so.
    down_behind: Cell<Option<&'static str>>,
}

impl Kept {
    /// What was announced of dead letters, with the channel.
    fn announced(&self) -> Vec<(String, Value)> {
        let all = self.log.all();
        let its = all.iter().map(|entry| &entry.record);
        let dead = its.filter(|record| record.channel.whole().starts_with("$dead:"));
        dead.map(|record| {
            let data = serde_json::from_slice(&record.data).expect("announcements are JSON");
            (record.channel.whole().to_owned(), data)
        })
        .collect()
    }
}

impl Outlet for Kept {
    fn answer(&self, to: Asker, result: Result<Bytes, LogError>) {
        let result = result.map(|json| serde_json::from_slice(&json).expect("answers are JSON"));
        let before = self.answers.borrow_mut().insert(to.1.0.slot, result);
        assert!(before.is_none(), "a question has one answer");
    }
    fn deliver(&self, to: WorkerId, delivery: Bytes) {
        let delivery = serde_json::from_slice(&delivery).expect("deliveries are JSON");
        self.deliveries.borrow_mut().push((to, delivery));
    }
    async fn hook(&self, name: &str, body: Bytes) -> Result<(), String> {
        if let Some(left) = self.hook_fails.get().checked_sub(1) {
            self.hook_fails.set(left);
            return Err("away".to_owned());
        }
        let body = serde_json::from_slice(&body).expect("bodies are JSON");
        self.hooked.borrow_mut().push((name.to_owned(), body));
        Ok(())
    }
    async fn push(&self, _: &str, _: Bytes) -> Pushed {
        Pushed::Done(Bytes::new())
    }
    async fn append(&self, drafts: Vec<Draft>) -> Vec<Result<Appended, LogError>> {
        let starts = |draft: &Draft, start| draft.record.channel.whole().starts_with(start);
        let start = self.down_behind.get();
        let is_last = start.is_some_and(|start| drafts.iter().any(|draft| starts(draft, start)));
        let results = self.log.append(drafts).await;
        if is_last {
            self.down_behind.set(None);
            self.log.down.set(true);
        }
        results
    }
}

struct Table {
    desk: Desk<MemoryLog, Kept>,
    kept: Rc<Kept>,
    next: Cell<u32>,
}

impl Table {
    fn new(log: &Rc<MemoryLog>, config: &Config) -> Self {
        let kept = Rc::new(Kept {
            log: Rc::clone(log),
            answers: RefCell::default(),
            deliveries: RefCell::default(),
            hooked: RefCell::default(),
            hook_fails: Cell::default(),
            down_behind: Cell::default(),
        });
        Self {
            desk: Desk::new(Rc::clone(log), Rc::clone(&kept), config),
            kept,
            next: Cell::new(0),
        }
    }

    async fn ask(&self, method: LogMethod, caller: Caller, data: Value) -> Result<Value, LogError> {
        let slot = self.next.get() + 1;
        self.next.set(slot);
        let id = RequestId(AskId {
            slot,
            generation: 0,
        });
        let ask = Ask {
            tenant: Box::default(),
            method,
            data: Bytes::from(data.to_string()),
            caller,
        };
        self.desk.ask((ShardId(0), id), ask);
        wait("an answer", || self.kept.answers.borrow_mut().remove(&slot)).await
    }

    async fn service(&self, method: LogMethod, data: Value) -> Result<Value, LogError> {
        self.ask(method, Caller::Service, data).await
    }

    async fn delivery(&self) -> (WorkerId, Value) {
        wait("a delivery", || {
            let mut deliveries = self.kept.deliveries.borrow_mut();
            (!deliveries.is_empty()).then(|| deliveries.remove(0))
        })
        .await
    }
}

async fn wait<T>(what: &str, mut poll: impl FnMut() -> Option<T>) -> T {
    let until = clock() + Duration::from_secs(20);
    loop {
        if let Some(value) = poll() {
            return value;
        }
        assert!(clock() < until, "no {what}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

fn client(slot: u32) -> Caller {
    Caller::Client {
        conn: ConnId {
            slot,
            generation: 0,
        },
        client: ClientId(u128::from(slot)),
        user: "w".into(),
        grants: Arc::from([ConsumeGrant {
            groups: "g*".into(),
            channels: Box::new(["a:*".into()]),
        }]),
    }
}

/// With durable namespaces `a` and `b`, of which one has triggers.
fn durable(name: &str, triggers: Vec<Trigger>) -> Config {
    let mut config = Config::built_in();
    // What tests store is of another time.
    config.queue.dead_letter_retention = Duration::ZERO;
    config.channels.namespaces = ["a", "b"]
        .map(|other| {
            Arc::new(Namespace {
                name: other.to_owned(),
                delivery: Delivery::Durable,
                triggers: if other == name {
                    triggers.clone()
                } else {
                    Vec::new()
                },
                ..Namespace::default()
            })
        })
        .into();
    config
}

fn log_with(count: u64) -> Rc<MemoryLog> {
    let log = MemoryLog::default();
    log.put_all((1..=count).map(|n| {
        memory::record(
            &format!("a:{}", n % 3),
            EventId(u128::from(n)),
            &n.to_string(),
        )
    }));
    Rc::new(log)
}

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    tokio::task::LocalSet::new().block_on(&runtime, test);
}

#[test]
fn credit_bounds_what_is_under_way_and_going_gives_it_back() {
    run(async {
        let log = log_with(10);
        let table = Table::new(&log, &durable("a", Vec::new()));
        let consume = json!({ "group": "g", "channels": ["a:*"], "credit": 3 });
        let result = table
            .ask(LogMethod::Consume, client(1), consume.clone())
            .await;
        assert_eq!(result, Ok(json!({ "group": "g", "credit": 3 })));
        let mut first = Vec::new();
        for _ in 0..3 {
            first.push(table.delivery().await.1["data"].as_u64().expect("a number"));
        }
        assert_eq!(first, [1, 2, 3]);
        let (worker, _) = (
            (
                ShardId(0),
                ConnId {
                    slot: 1,
                    generation: 0,
                },
            ),
            (),
        );
        table.desk.gone(worker);
        let result = table.ask(LogMethod::Consume, client(2), consume).await;
        assert!(result.is_ok());
        let mut again = BTreeSet::new();
        for _ in 0..10 {
            let (to, delivery) = table.delivery().await;
            assert_eq!(to.1.slot, 2);
            assert_eq!(delivery["attempt"], 1, "going is no attempt");
            assert!(again.insert(delivery["data"].as_u64().expect("a number")));
            let ack = json!({ "delivery": delivery["delivery"] });
            let result = table.ask(LogMethod::Ack, client(2), ack.clone()).await;
            assert_eq!(result, Ok(json!({ "acked": 1 })));
            let foreign = table
                .ask(LogMethod::Ack, client(3), ack)
                .await
                .expect("an answer");
            assert_eq!(foreign["acked"], 0);
        }
        table.desk.close().await;
        assert_eq!(log.leased("g"), 0);
        assert!(
            table.service(LogMethod::Groups, json!({})).await.is_err(),
            "closed"
        );
    });
}

#[test]
fn everything_is_done_or_dead_once_over_restarts_of_the_process() {
    run(async {
        const COUNT: u64 = 60;
        let log = log_with(COUNT);
        let mut done = BTreeSet::new();
        let mut rng = Rng::new(11);
        for life in 0..4 {
            let table = Table::new(&log, &durable("a", Vec::new()));
            let fetch = json!({ "group": "g", "channels": ["a:*"], "limit": 7, "wait_ms": 200, "max_attempts": 2,
                "backoff": { "base_ms": 0 } });
            for _ in 0..if life == 3 { 1000 } else { 6 } {
                let result = table
                    .service(LogMethod::Fetch, fetch.clone())
                    .await
                    .expect("deliveries");
                let deliveries = result["deliveries"].as_array().expect("a list").clone();
                let dead = table
                    .service(LogMethod::DeadList, json!({}))
                    .await
                    .expect("letters");
                let dead = dead["letters"].as_array().expect("a list").len() as u64;
                if deliveries.is_empty() && done.len() as u64 + dead == COUNT {
                    break;
                }
                for delivery in deliveries {
                    let n = delivery["data"].as_u64().expect("a number");
                    let settle = json!({ "delivery": delivery["delivery"], "reason": "poisoned" });
                    if n % 10 == 0 {
                        table
                            .service(LogMethod::Nak, settle)
                            .await
                            .expect("settled");
                    } else if rng.below(4) > 0 {
                        table
                            .service(LogMethod::Ack, settle)
                            .await
                            .expect("settled");
                        assert!(done.insert(n), "{n} was done already");
                    }
                    // Or the process ends before it says anything.
                }
            }
            table.desk.close().await;
            log.restart();
        }
        let table = Table::new(&log, &durable("a", Vec::new()));
        let dead = table
            .service(LogMethod::DeadList, json!({}))
            .await
            .expect("letters");
        let dead: BTreeSet<u64> = dead["letters"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|letter| {
                u64::from_str_radix(
                    &letter["event_id"].as_str().expect("an id").replace('-', ""),
                    16,
                )
                .expect("hex")
            })
            .collect();
        assert_eq!(dead, (1..=COUNT).filter(|n| n % 10 == 0).collect());
        assert_eq!(done.len() + dead.len(), COUNT as usize);
    });
}

#[test]
fn what_a_connection_fetched_is_its_own_until_it_goes() {
    run(async {
        let log = log_with(3);
        let table = Table::new(&log, &durable("a", Vec::new()));
        let fetch = json!({ "group": "g", "channels": ["a:*"], "limit": 3, "wait_ms": 5000 });
        let got = table
            .ask(LogMethod::Fetch, client(1), fetch.clone())
            .await
            .expect("deliveries");
        let first = got["deliveries"][0].clone();
        let ack = json!({ "delivery": first["delivery"] });
        for stranger in [client(2), Caller::Service] {
            let acked = table.ask(LogMethod::Ack, stranger, ack.clone()).await;
            assert_eq!(acked.expect("an answer")["acked"], 0);
        }
        let acked = table.ask(LogMethod::Ack, client(1), ack).await;
        assert_eq!(acked, Ok(json!({ "acked": 1 })));
        let conn = ConnId {
            slot: 1,
            generation: 0,
        };
        table.desk.gone((ShardId(0), conn));
        let again = table
            .ask(LogMethod::Fetch, client(2), fetch)
            .await
            .expect("deliveries");
        let again = again["deliveries"].as_array().expect("a list");
        let seen: Vec<_> = again
            .iter()
            .map(|one| (&one["data"], &one["attempt"]))
            .collect();
        assert_eq!(seen, [(&json!(2), &json!(1)), (&json!(3), &json!(1))]);
        let other = json!({ "group": "other", "channels": ["a:*"] });
        let refused = table.ask(LogMethod::Fetch, client(2), other).await;
        assert!(matches!(refused, Err(LogError::Forbidden(_))));
    });
}

#[test]
fn replay_goes_page_by_page_and_stores_nothing_twice_where_a_page_is_asked_again() {
    run(async {
        let log = log_with(25);
        log.put_all([memory::record("$queue:other", EventId(99), "99")]);
        let table = Table::new(&log, &durable("b", Vec::new()));
        let mut from = json!("beginning");
        let mut seen = Vec::new();
        loop {
            let ask = json!({ "channels": ["*"], "from": from, "to": "now", "limit": 7, "where": "0 != \"x\"" });
            let page = table.service(LogMethod::Replay, ask).await.expect("a page");
            for event in page["events"].as_array().expect("events") {
                seen.push(event["data"].as_u64().expect("a number"));
            }
            if page["done"] == true {
                break;
            }
            from = json!({ "cursor": page["next"] });
        }
        assert_eq!(seen, (1..=25).collect::<Vec<_>>());
        let first = json!({ "channels": ["a:1"], "limit": 3, "into": { "channel": "b:1" } });
        let page = table
            .service(LogMethod::Replay, first)
            .await
            .expect("a page");
        assert_eq!((&page["matched"], &page["stored"]), (&json!(3), &json!(3)));
        let next = json!({ "channels": ["a:1"], "limit": 3, "into": { "channel": "b:1" }, "from": { "cursor": page["next"] } });
        let page = table
            .service(LogMethod::Replay, next.clone())
            .await
            .expect("a page");
        assert_eq!(page["stored"], 3);
        let again = table
            .service(LogMethod::Replay, next)
            .await
            .expect("a page");
        assert_eq!(
            (&again["matched"], &again["stored"]),
            (&json!(3), &json!(0))
        );
        let replayed = log
            .all()
            .into_iter()
            .filter(|entry| entry.record.channel.whole() == "b:1");
        assert!(replayed.clone().all(|entry| entry.record.origin.is_some()));
        assert_eq!(replayed.count(), 6);
        for bad in [
            json!({ "channels": [] }),
            json!({ "channels": ["a:1"], "from": "yesterday" }),
            json!({ "channels": ["a:*"], "from": { "offset": 1 } }),
            json!({ "channels": ["a:1"], "from": { "cursor": "x" } }),
            json!({ "channels": ["a:1"], "where": "=" }),
            json!({ "channels": ["a:1"], "unknown": 1 }),
            json!({ "channels": ["a:1"], "into": { "channel": "ephemeral" } }),
        ] {
            let result = table.service(LogMethod::Replay, bad.clone()).await;
            assert!(
                matches!(result, Err(LogError::BadRequest(_))),
                "{bad}: {result:?}"
            );
        }
        let nowhere = json!({ "channels": ["a:1"], "into": { "group": "none" } });
        let result = table.service(LogMethod::Replay, nowhere).await;
        assert!(matches!(result, Err(LogError::NotFound(_))), "{result:?}");
    });
}

#[test]
fn dead_letter_is_announced_and_comes_back_when_it_is_tried_again() {
    run(async {
        let log = log_with(1);
        let mut config = durable("a", Vec::new());
        config.queue.dead_letter_hook = "ops".to_owned();
        let table = Table::new(&log, &config);
        let fetch =
            json!({ "group": "g", "channels": ["a:*"], "wait_ms": 5000, "max_attempts": 1 });
        let got = table
            .service(LogMethod::Fetch, fetch.clone())
            .await
            .expect("deliveries");
        let delivery = got["deliveries"][0]["delivery"].clone();
        table
            .service(
                LogMethod::Nak,
                json!({ "delivery": delivery, "reason": "no" }),
            )
            .await
            .expect("settled");
        let announced = wait("an announcement", || table.kept.announced().pop()).await;
        assert_eq!(announced.0, "$dead:g");
        assert_eq!(announced.1["reason"], "no");
        wait("the hook", || table.kept.hooked.borrow_mut().pop()).await;
        let retried = table
            .service(LogMethod::DeadRetry, json!({ "group": "g", "all": true }))
            .await;
        assert_eq!(retried, Ok(json!({ "retried": 1 })));
        let got = table
            .service(LogMethod::Fetch, fetch)
            .await
            .expect("deliveries");
        let again = &got["deliveries"][0];
        assert_eq!(
            (&again["channel"], &again["attempt"]),
            (&json!("a:1"), &json!(1))
        );
        let none = table
            .service(
                LogMethod::DeadDrop,
                json!({ "group": "g", "event_id": again["event_id"] }),
            )
            .await;
        assert!(matches!(none, Err(LogError::NotFound(_))));
        let gone = table
            .service(LogMethod::DeleteGroup, json!({ "group": "g" }))
            .await;
        assert_eq!(gone, Ok(json!({})));
        let groups = table
            .service(LogMethod::Groups, json!({}))
            .await
            .expect("groups");
        let names: Vec<&Value> = groups["groups"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|group| &group["group"])
            .collect();
        assert_eq!(names, ["$trigger:dead_letter_hook"]);
    });
}

#[test]
fn grant_covers_what_lies_within_it() {
    for (granted, wanted, expected) in [
        ("a:*", "a:1", true),
        ("a:*", "a:*", true),
        ("a:*", "a:b*", true),
        ("a:*", "*", false),
        ("a:*", "b:*", false),
        ("*", "x*y", true),
        ("a*b", "a*", false),
        ("a*b", "a1b", true),
        ("a:1", "a:1", true),
    ] {
        assert_eq!(covers(granted, wanted), expected, "{granted} {wanted}");
    }
}

fn leased(cursor: u64, channel: &str) -> Leased {
    Leased {
        lease: Lease(cursor),
        entry: Arc::new(Entry {
            cursor,
            ..Arc::unwrap_or_clone(memory::entry(
                cursor,
                cursor,
                memory::record(channel, EventId(u128::from(cursor)), "1"),
            ))
        }),
        failures: Vec::new(),
        was_delayed: false,
    }
}

#[test]
fn ordered_group_has_one_of_each_channel_under_way_and_keeps_their_order() {
    let mut now = Now::default();
    for seed in 0..200 {
        let mut rng = Rng::new(seed);
        let settings = Settings {
            ordered: true,
            max_attempts: 3,
            ..Settings::default()
        };
        let mut group = Group::new("g", 0, settings, seed);
        let taker = Taker::Trigger;
        let window = group::Window::new(usize::MAX);
        assert!(group.handle_joined(taker, 1 + rng.below(6) as usize, &window, "w"));
        let entries = 40;
        let all = (1..=entries).map(|cursor| leased(cursor, &format!("c{}", cursor % 4)));
        group.handle_leased(now, all.collect());
        let mut under_way: Vec<Given> = Vec::new();
        let mut last = BTreeMap::<String, Offset>::new();
        let (mut settled, mut dead) = (BTreeSet::new(), 0);
        for _ in 0..5000 {
            now.at = now.at + Duration::from_millis(rng.below(3000));
            group.handle_timeout(now);
            while let Some(output) = group.poll_output() {
                match output {
                    Output::Triggered(given) => {
                        let channel = given.entry.record.channel.whole().to_owned();
                        let is_alone = under_way
                            .iter()
                            .all(|other| other.entry.record.channel.whole() != channel);
                        assert!(is_alone, "two of {channel} under way, seed {seed}");
                        let offset = given.entry.position.offset;
                        let before = last.insert(channel, offset);
                        assert!(before.is_none_or(|before| before <= offset), "seed {seed}");
                        under_way.push(given);
                    }
                    Output::Bury(letter) => {
                        assert_eq!(letter.failures.len(), 3);
                        dead += 1;
                        group.handle_buried(now, letter.entry.cursor, true);
                    }
                    other => panic!("{other:?}"),
                }
            }
            for (lease, what) in group.take_settled() {
                if what == Settled::Done {
                    assert!(settled.insert(lease), "settled twice, seed {seed}");
                }
            }
            if under_way.is_empty() {
                if group.held() == 0 {
                    break;
                }
                continue;
            }
            let at = rng.below(under_way.len() as u64) as usize;
            let given = under_way.swap_remove(at);
            let known = if rng.below(3) == 0 {
                group.handle_failed(now, Holder::Trigger, given.delivery, "no", None)
            } else {
                group.handle_acked(now, Holder::Trigger, given.delivery)
            };
            assert!(known);
        }
        for (lease, what) in group.take_settled() {
            if what == Settled::Done {
                settled.insert(lease);
            }
        }
        assert_eq!(
            (group.held(), settled.len() as u64),
            (0, entries),
            "seed {seed}"
        );
        assert_eq!(group.counters().dead, dead);
        assert_eq!(group.counters().acked + dead, entries);
    }
}

#[test]
fn trigger_stores_what_matches_once_and_a_loop_ends_as_a_dead_letter() {
    run(async {
        let trigger = Trigger {
            name: "again".to_owned(),
            condition: "n >= 2".to_owned(),
            append: "a:{rest}".to_owned(),
            ..Trigger::default()
        };
        let config = durable("a", vec![trigger]);
        let log = Rc::new(MemoryLog::default());
        log.put_all([1, 2].map(|n| memory::record("a:1", EventId(n), &format!(r#"{{"n":{n}}}"#))));
        let table = Table::new(&log, &config);
        let group = "$trigger:a:again";
        let died = wait("an announcement", || table.kept.announced().pop()).await;
        assert_eq!(died.0, format!("$dead:{group}"));
        assert!(
            died.1["reason"]
                .as_str()
                .is_some_and(|why| why.starts_with("loop"))
        );
        let of_trigger = || {
            let all = log.all().into_iter();
            let its = all.filter(|entry| entry.record.channel.whole() == "a:1");
            its.collect::<Vec<_>>()
        };
        let hops: Vec<u8> = of_trigger().iter().map(|entry| entry.record.hops).collect();
        assert_eq!(hops, [0, 0, 1, 2, 3, 4, 5, 6, 7, 8]);
        table.desk.close().await;
        log.restart();
        let table = Table::new(&log, &config);
        let rest = wait("what was settled", || {
            let report = table
                .desk
                .report()
                .into_iter()
                .find(|one| &*one.name == group)?;
            (report.lag == 0 && report.held == 0).then_some(of_trigger().len())
        });
        assert_eq!(rest.await, 10);
        table.desk.reload(&Config::built_in());
        wait("the group to be forgotten", || {
            table.desk.report().is_empty().then_some(())
        })
        .await;
    });
}

#[test]
fn connection_changes_its_credit_in_the_last_group_that_it_may_have() {
    run(async {
        let table = Table::new(&log_with(0), &durable("a", Vec::new()));
        for number in 0..16 {
            let ask = json!({ "group": format!("g{number}"), "channels": ["a:*"] });
            let joined = table.ask(LogMethod::Consume, client(1), ask).await;
            assert!(joined.is_ok(), "{joined:?}");
        }
        let again = json!({ "group": "g7", "credit": 3 });
        let joined = table.ask(LogMethod::Consume, client(1), again).await;
        assert_eq!(joined, Ok(json!({ "group": "g7", "credit": 3 })));
        let more = json!({ "group": "g16", "channels": ["a:*"] });
        let refused = table.ask(LogMethod::Consume, client(1), more).await;
        assert!(
            matches!(refused, Err(LogError::BadRequest(_))),
            "{refused:?}"
        );
    });
}

#[test]
fn group_that_is_asked_for_while_it_is_forgotten_is_a_new_one() {
    run(async {
        let log = log_with(1);
        let table = Table::new(&log, &durable("a", Vec::new()));
        let wish = json!({ "group": "g", "channels": ["a:*"], "limit": 1, "wait_ms": 5000 });
        let service = |method, data: &Value| table.service(method, data.clone());
        service(LogMethod::Fetch, &wish).await.expect("deliveries");
        let (deleted, fetched) = tokio::join!(
            service(LogMethod::DeleteGroup, &json!({ "group": "g" })),
            service(LogMethod::Fetch, &wish),
        );
        assert_eq!(deleted, Ok(json!({})));
        let deliveries = fetched.expect("an answer")["deliveries"].clone();
        assert_eq!(deliveries.as_array().map(Vec::len), Some(1));
    });
}

#[test]
fn letter_of_a_group_that_is_forgotten_stays_where_it_is() {
    run(async {
        let log = log_with(0);
        let letter = DeadLetter {
            group: "gone".into(),
            entry: memory::entry(1, 1, memory::record("a:1", EventId(1), "1")),
            failures: Vec::new(),
            unix_ms: 1,
        };
        log.bury(&letter).await.expect("kept");
        let table = Table::new(&log, &durable("a", Vec::new()));
        let all = json!({ "group": "gone", "all": true });
        let retried = table.service(LogMethod::DeadRetry, all).await;
        assert!(matches!(retried, Err(LogError::NotFound(_))), "{retried:?}");
        let kept = log.dead_letter("gone", EventId(1)).await;
        assert_eq!(kept, Ok(Some(letter)));
    });
}

#[test]
fn what_a_group_loses_is_told_where_operators_look() {
    run(async {
        let log = log_with(9);
        let table = Table::new(&log, &durable("a", Vec::new()));
        let wish = json!({ "group": "g", "channels": ["a:*"], "limit": 1 });
        let got = table.service(LogMethod::Fetch, wish).await;
        assert!(got.is_ok());
        wait("the rest to be given back", || {
            (log.leased("g") == 1).then_some(())
        })
        .await;
        log.trim(&ChannelName::from_whole("a:2"))
            .await
            .expect("forgotten");
        let lost = wait("the loss", || {
            let report = table.desk.report();
            (report[0].lost > 0).then(|| report[0].lost)
        });
        assert_eq!(lost.await, 3);
        let warnings = table.desk.warnings();
        assert!(
            warnings[0].starts_with("queue group g has lost up to 3 "),
            "{warnings:?}"
        );
        let groups = table.service(LogMethod::Groups, json!({})).await;
        assert_eq!(groups.expect("groups")["groups"][0]["lost"], 3);
    });
}
