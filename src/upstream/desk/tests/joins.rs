//! Joins at the desk, over restarts at every step.

use super::*;
use crate::config::durable::Join;
use crate::model::Record;

const GROUP: &str = "$trigger:a:both";

fn config(count: u32, within: Duration) -> Config {
    let trigger = Trigger {
        name: "both".to_owned(),
        append: "b:{key}".to_owned(),
        join: Join {
            by: "tag:run".to_owned(),
            count,
            expected: String::new(),
            within,
        },
        ..Trigger::default()
    };
    durable("a", vec![trigger])
}

fn pairs() -> Config {
    config(2, Duration::from_mins(1))
}

fn part(number: u128, run: &str) -> Record {
    let tags = match run {
        "" => Box::default(),
        run => Box::from([("run".into(), run.into())]),
    };
    Record {
        tags,
        unix_ms: unix_ms(),
        ..memory::record("a:1", EventId(number), &number.to_string())
    }
}

/// What was joined: the channel, and the payloads of the parts.
fn joined(log: &MemoryLog) -> Vec<(String, Vec<u64>)> {
    let all = log.all();
    let its = all.iter().map(|entry| &entry.record);
    let its = its.filter(|record| record.channel.whole().starts_with("b:"));
    its.map(|record| {
        let value: Value = serde_json::from_slice(&record.data).expect("JSON");
        let parts = value["parts"].as_array().expect("parts").iter();
        let numbers = parts.map(|part| part["data"].as_u64().expect("a number"));
        (record.channel.whole().to_owned(), numbers.collect())
    })
    .collect()
}

fn one(channel: &str, parts: &[u64]) -> (String, Vec<u64>) {
    (channel.to_owned(), parts.to_vec())
}

fn report(table: &Table) -> Option<GroupReport> {
    let reports = table.desk.report().into_iter();
    reports.into_iter().find(|one| &*one.name == GROUP)
}

/// Waits until so many parts wait, of so many joins, and so many are done.
async fn waits_for(table: &Table, open: u64, parts: u64, acked: u64) {
    wait("the joins", || {
        let report = report(table)?;
        let joins = report.joins?;
        let is_so = (joins.open, joins.parts, report.acked) == (open, parts, acked);
        is_so.then_some(())
    })
    .await;
}

/// The process is killed, and another one opens the same log.
async fn again(table: Table, log: &Rc<MemoryLog>, config: &Config) -> Table {
    table.desk.close().await;
    log.restart();
    log.down.set(false);
    log.dones_left.set(None);
    Table::new(log, config)
}

#[test]
fn parts_of_interleaved_runs_become_a_publication_each_over_a_restart() {
    run(async {
        let log = Rc::new(MemoryLog::default());
        log.put_all([part(1, "x"), part(2, "y"), part(3, "z"), part(3, "z")]);
        let table = Table::new(&log, &pairs());
        waits_for(&table, 3, 3, 1).await;
        let table = again(table, &log, &pairs()).await;
        waits_for(&table, 3, 3, 0).await;
        log.put_all([part(4, "y"), part(5, "x")]);
        waits_for(&table, 1, 1, 4).await;
        let mut found = joined(&log);
        found.sort();
        assert_eq!(found, [one("b:x", &[1, 5]), one("b:y", &[2, 4])]);
        let counts = report(&table).and_then(|report| report.joins);
        assert_eq!(
            counts.map(|counts| (counts.completed, counts.expired)),
            Some((2, 0))
        );
    });
}

#[test]
fn killed_behind_the_append_it_appends_nothing_twice_and_mixes_nothing() {
    run(async {
        let log = Rc::new(MemoryLog::default());
        log.put_all([part(1, "x"), part(2, "x")]);
        let table = Table::new(&log, &pairs());
        table.kept.down_behind.set(Some("b:"));
        wait("the append", || (joined(&log).len() == 1).then_some(())).await;
        let table = again(table, &log, &pairs()).await;
        log.put_all([part(3, "x")]);
        waits_for(&table, 1, 1, 2).await;
        log.put_all([part(4, "x")]);
        waits_for(&table, 0, 0, 4).await;
        assert_eq!(joined(&log), [one("b:x", &[1, 2]), one("b:x", &[3, 4])]);
    });
}

#[test]
fn killed_between_two_acknowledgements_it_takes_the_other_part_for_no_part_of_the_next() {
    run(async {
        let log = Rc::new(MemoryLog::default());
        log.dones_left.set(Some(1));
        log.put_all([part(1, "x"), part(2, "x")]);
        let table = Table::new(&log, &pairs());
        wait("the append", || (joined(&log).len() == 1).then_some(())).await;
        wait("one to be settled", || {
            (log.dones_left.get() == Some(0)).then_some(())
        })
        .await;
        let table = again(table, &log, &pairs()).await;
        log.put_all([part(3, "x")]);
        waits_for(&table, 1, 1, 1).await;
        log.put_all([part(4, "x")]);
        waits_for(&table, 0, 0, 3).await;
        assert_eq!(joined(&log), [one("b:x", &[1, 2]), one("b:x", &[3, 4])]);
    });
}

#[test]
fn what_misses_a_part_is_a_letter_for_each_that_came_and_a_retry_completes_it() {
    run(async {
        let log = Rc::new(MemoryLog::default());
        let rules = config(3, Duration::from_secs(2));
        log.put_all([part(1, "x"), part(2, "x"), part(3, "")]);
        let table = Table::new(&log, &rules);
        let announced = wait("three letters", || {
            let announced = table.kept.announced();
            (announced.len() == 3).then_some(announced)
        })
        .await;
        let mut reasons: Vec<String> = announced
            .iter()
            .map(|(_, said)| format!("{}: {}", said["class"], said["reason"]))
            .collect();
        reasons.sort();
        let missing = r#""join": "join: 1 of 3 parts did not come within 2s; `tag:run` is `x`""#;
        let none = r#""join": "join: the publication has no `tag:run`""#;
        assert_eq!(reasons, [missing, missing, none]);
        log.put_all([part(4, "x")]);
        let all = json!({ "group": GROUP, "all": true, "class": "join", "reason": "join: 1 of 3" });
        let retried = table.service(LogMethod::DeadRetry, all).await;
        assert!(retried.is_ok(), "{retried:?}");
        let found = wait("the join", || {
            let found = joined(&log);
            (!found.is_empty()).then_some(found)
        })
        .await;
        assert_eq!(found, [one("b:x", &[4, 1, 2])]);
    });
}

#[test]
fn killed_between_two_letters_it_makes_the_other_one_and_mixes_it_with_nothing_later() {
    run(async {
        let log = Rc::new(MemoryLog::default());
        let rules = config(3, Duration::from_secs(1));
        log.put_all([part(1, "x"), part(2, "x")]);
        let table = Table::new(&log, &rules);
        table.kept.down_behind.set(Some("$dead:"));
        wait("one letter", || {
            (table.kept.announced().len() == 1 && log.down.get()).then_some(())
        })
        .await;
        let rules = config(3, Duration::from_mins(1));
        let table = again(table, &log, &rules).await;
        log.put_all([part(3, "x"), part(4, "x")]);
        waits_for(&table, 1, 2, 0).await;
        wait("both letters", || {
            (table.kept.announced().len() == 2).then_some(())
        })
        .await;
        log.put_all([part(5, "x")]);
        waits_for(&table, 0, 0, 3).await;
        assert_eq!(joined(&log), [one("b:x", &[3, 4, 5])]);
        let reason = "join: 1 of 3 parts did not come within 1s; `tag:run` is `x`";
        for (_, said) in table.kept.announced() {
            assert_eq!(said["reason"], reason);
        }
    });
}

#[test]
fn another_number_of_parts_counts_for_those_that_wait_and_a_rule_without_a_join_takes_them_one_by_one()
 {
    run(async {
        let log = Rc::new(MemoryLog::default());
        log.put_all([part(1, "x"), part(2, "x"), part(3, "y")]);
        let table = Table::new(&log, &config(3, Duration::from_mins(1)));
        waits_for(&table, 2, 3, 0).await;
        table.desk.reload(&pairs());
        waits_for(&table, 1, 1, 2).await;
        assert_eq!(joined(&log), [one("b:x", &[1, 2])]);
        let plain = Trigger {
            name: "both".to_owned(),
            append: "b:plain".to_owned(),
            ..Trigger::default()
        };
        table.desk.reload(&durable("a", vec![plain]));
        wait("the last one", || {
            let all = log.all();
            let last = &all.last()?.record;
            (last.channel.whole() == "b:plain" && &*last.data == b"3").then_some(())
        })
        .await;
    });
}

#[test]
fn many_joins_of_many_parts_are_complete_whatever_is_down_meanwhile() {
    run(async {
        let log = Rc::new(MemoryLog::default());
        let (runs, parts) = (200, 7);
        let table = Table::new(&log, &config(parts, Duration::from_mins(1)));
        for step in 0..parts {
            let numbers = (0..runs).map(|run| u128::from(step * runs + run + 1));
            log.put_all(
                numbers.map(|number| part(number, &((number - 1) % u128::from(runs)).to_string())),
            );
            log.down.set(true);
            tokio::task::yield_now().await;
            log.down.set(false);
        }
        waits_for(&table, 0, 0, u64::from(runs * parts)).await;
        let found = joined(&log);
        assert_eq!(found.len(), runs as usize);
        for (channel, numbers) in found {
            let run: u64 = channel["b:".len()..].parse().expect("a number");
            let wanted: Vec<u64> = (0..u64::from(parts))
                .map(|step| step * u64::from(runs) + run + 1)
                .collect();
            assert_eq!(numbers, wanted);
        }
        assert!(table.kept.announced().is_empty());
    });
}

/// Whatever is killed whenever, each part is in one publication, with those before and behind it of its key.
#[test]
fn kills_at_any_step_change_nothing_of_what_is_joined() {
    run(async {
        for seed in 0..25 {
            let mut rng = crate::mem::Rng::new(seed);
            let log = Rc::new(MemoryLog::default());
            let mut table = Table::new(&log, &pairs());
            let keys = ["x", "y", "z"];
            let mut wanted: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
            let mut number = 0;
            for _ in 0..12 {
                for _ in 0..=rng.below(4) {
                    number += 1;
                    let key = keys[rng.below(3) as usize];
                    wanted.entry(key).or_default().push(number);
                    log.put_all([part(u128::from(number), key)]);
                    if rng.below(2) == 0 {
                        tokio::time::sleep(Duration::from_millis(rng.below(3))).await;
                    }
                }
                match rng.below(4) {
                    0 => table.kept.down_behind.set(Some("b:")),
                    1 => log.dones_left.set(Some(rng.below(3) as usize)),
                    _ => {}
                }
                tokio::time::sleep(Duration::from_millis(rng.below(6))).await;
                if rng.below(2) == 0 {
                    table = again(table, &log, &pairs()).await;
                }
            }
            for (at, key) in keys.into_iter().enumerate() {
                let numbers = wanted.entry(key).or_default();
                if numbers.len() % 2 == 1 {
                    let last = 1000 + at as u64;
                    numbers.push(last);
                    log.put_all([part(u128::from(last), key)]);
                }
            }
            let table = again(table, &log, &pairs()).await;
            let all: usize = wanted.values().map(|numbers| numbers.len() / 2).sum();
            wait("all joins", || (joined(&log).len() >= all).then_some(())).await;
            wait("nothing to be left", || {
                let report = report(&table)?;
                let joins = report.joins?;
                (joins.parts == 0 && report.held == 0 && log.leased(GROUP) == 0).then_some(())
            })
            .await;
            let mut found: BTreeMap<String, Vec<u64>> = BTreeMap::new();
            for (channel, numbers) in joined(&log) {
                found.entry(channel).or_default().extend(numbers);
            }
            let wanted = wanted
                .into_iter()
                .filter(|(_, numbers)| !numbers.is_empty());
            let wanted: BTreeMap<String, Vec<u64>> = wanted
                .map(|(key, numbers)| (format!("b:{key}"), numbers))
                .collect();
            assert_eq!(found, wanted, "seed {seed}");
            assert!(table.kept.announced().is_empty(), "seed {seed}");
            table.desk.close().await;
        }
    });
}
