//! Runs of parts that a trigger joins: their publisher, and the books about what became of each part.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::actors::{Orders, ask};
use super::ledger;
use super::link::temporary;
use super::names::CHANNELS;
use crate::support::wait::now;

/// Group of the trigger.
pub(crate) const GROUP: &str = "$trigger:steps:all";
/// Where it appends.
pub(crate) const JOINED: &str = "runs:all";
/// How long the first part of a run waits for the others.
pub(crate) const WITHIN: Duration = Duration::from_secs(8);
/// Parts that are published so much sooner than they have to be are joined, whatever fails meanwhile.
const SLACK: Duration = Duration::from_secs(3);
/// Runs whose parts come between each other's.
const AT_A_TIME: usize = 8;
/// One run of so many misses a part.
const MISSING_OF: u64 = 12;
/// One part of so many is delayed.
const DELAYED_OF: u64 = 16;
/// One part of so many is published again.
const AGAIN_OF: u64 = 8;

/// The namespaces, and the trigger.
pub(crate) fn configuration(idempotency_hours: u32) -> String {
    format!(
        r#"
[[channel.namespaces]]
name = "steps"
delivery = "durable"
idempotency_ttl = "{idempotency_hours}h"

[[channel.namespaces.triggers]]
name = "all"
append = "{JOINED}"
join = {{ by = "run", expected = "data:of", within = "{}s" }}

[[channel.namespaces]]
name = "runs"
delivery = "durable"
"#,
        WITHIN.as_secs()
    )
}

fn mixed(run: u32, part: u32) -> u64 {
    (u64::from(run) << 8 | u64::from(part)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 24
}

/// How many parts belong to a run.
fn parts_of(run: u32) -> u32 {
    2 + (mixed(run, 0) % 4) as u32
}

/// The part of a run that never comes.
fn missing(run: u32) -> Option<u32> {
    let mixed = mixed(run, 1);
    let misses = mixed.is_multiple_of(MISSING_OF);
    misses.then(|| (mixed >> 8) as u32 % parts_of(run))
}

fn delay_ms(run: u32, part: u32) -> Option<u64> {
    let mixed = mixed(run, 2 + part);
    (mixed % DELAYED_OF == 1).then_some(20 + mixed % 600)
}

fn parameters(run: u32, part: u32, key: &str) -> Value {
    let mut data = json!({ "r": run, "n": part });
    // One of them says it for all, or each of them does.
    if run.is_multiple_of(2) || part == run % parts_of(run) {
        data["of"] = json!(parts_of(run));
    }
    let mut parameters = json!({
        "channel": format!("steps:{}", (run + part) % CHANNELS),
        "idempotency_key": format!("part-{run}-{part}"),
        "data": data,
        "tags": { "run": key, "part": part.to_string() },
    });
    if let Some(delay_ms) = delay_ms(run, part) {
        parameters["delay_ms"] = json!(delay_ms);
    }
    parameters
}

/// What must become of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Must {
    /// One publication with all its parts.
    Join,
    /// A letter of each of its parts.
    Letters,
    /// One of the two: a fault has held some part for so long that it may be too late.
    Either,
}

/// A run all of whose parts were acknowledged that ever come.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    pub(crate) run: u32,
    pub(crate) key: String,
    pub(crate) of: u32,
    /// Event ids of its parts.
    pub(crate) events: Vec<String>,
    pub(crate) must: Must,
}

/// Something that was seen of runs.
#[derive(Clone, Debug)]
pub(crate) enum Fact {
    /// A part was acknowledged that was published first at this moment.
    Part { begun: u64 },
    /// A run is published.
    Run(Run),
    /// The hook for dead letters has taken a letter.
    Told(String),
    /// No run comes any more, and none is open.
    Over,
}

/// A run on its way.
struct Open {
    run: u32,
    key: String,
    /// Parts that are to come, the next one last.
    left: Vec<u32>,
    since: Instant,
    events: Vec<String>,
    is_delayed: bool,
}

impl Open {
    fn new(run: u32, key: String) -> Self {
        let parts = parts_of(run);
        let in_turn = (0..parts).map(|part| (part + run) % parts);
        Self {
            run,
            key,
            left: in_turn.filter(|part| missing(run) != Some(*part)).collect(),
            since: now(),
            events: Vec::new(),
            is_delayed: false,
        }
    }

    fn must(&self) -> Must {
        match missing(self.run) {
            Some(_) => Must::Letters,
            None if self.is_delayed || self.since.elapsed() + SLACK > WITHIN => Must::Either,
            None => Must::Join,
        }
    }
}

/// Publishes parts over the server API, of some runs at a time.
pub(crate) fn publisher(orders: &Orders) {
    let mut is_idle = false;
    let mut next = 0;
    let mut open: [Option<Open>; AT_A_TIME] = [const { None }; AT_A_TIME];
    // A key is used again where nothing of it can be left.
    let mut generations = [0; AT_A_TIME];
    let mut again = Vec::new();
    while !orders.is_stopped() {
        let is_finishing = orders.is_finishing();
        orders.set_idle(&mut is_idle, !orders.publishes() && !is_finishing);
        if is_idle {
            orders.pause_a_moment();
            continue;
        }
        if is_finishing && open.iter().all(Option::is_none) {
            orders.tell(ledger::Fact::Joins(Fact::Over));
            break;
        }
        for (slot, place) in open.iter_mut().enumerate() {
            if place.is_none() && !is_finishing {
                *place = Some(Open::new(next, format!("{slot}-{}", generations[slot])));
                next += 1;
            }
        }
        if publish(orders, &mut open, &mut again) < open.iter().flatten().count() {
            orders.pause_a_moment();
        }
        for (slot, place) in open.iter_mut().enumerate() {
            let Some(run) = place.take_if(|run| run.left.is_empty()) else {
                continue;
            };
            let must = run.must();
            generations[slot] += u32::from(must != Must::Join);
            orders.tell(ledger::Fact::Joins(Fact::Run(Run {
                run: run.run,
                of: parts_of(run.run),
                key: run.key,
                events: run.events,
                must,
            })));
        }
    }
    orders.set_idle(&mut is_idle, true);
}

/// Publishes the next part of each run, and once more some that were acknowledged before. Gives how many were acknowledged now: the
/// others are tried again.
fn publish(orders: &Orders, open: &mut [Option<Open>], again: &mut Vec<(Value, String)>) -> usize {
    let begun = orders.moment();
    let runs = open.iter_mut().flatten();
    let asked: Vec<(&mut Open, u32)> = runs
        .filter_map(|run| run.left.last().copied().map(|part| (run, part)))
        .collect();
    let first = asked
        .iter()
        .map(|(run, part)| parameters(run.run, *part, &run.key));
    let first: Vec<Value> = first.collect();
    let repeated = std::mem::take(again);
    let all = first
        .iter()
        .chain(repeated.iter().map(|(request, _)| request));
    let commands: Vec<Value> = all.map(|request| json!({ "publish": request })).collect();
    let request = json!({ "commands": commands, "parallel": true });
    let mut answer = ask(orders.address, "batch", &request).unwrap_or_default();
    let replies = match answer["replies"].take() {
        Value::Array(replies) => replies,
        _ => Vec::new(),
    };
    let mut replies = replies.into_iter();
    let mut event = |request: &Value| {
        let reply = replies.next()?;
        let event = reply["publish"]["event_id"].as_str();
        if event.is_none() {
            orders.tell(match temporary(&reply["error"]) {
                Some(_) => ledger::Fact::Temporary,
                None => ledger::Fact::Broken(format!("{request} was refused for good: {reply}")),
            });
        }
        event.map(str::to_owned)
    };
    let mut acknowledged = 0;
    for ((run, part), request) in asked.into_iter().zip(first) {
        let Some(event) = event(&request) else {
            continue;
        };
        acknowledged += 1;
        orders.tell(ledger::Fact::Joins(Fact::Part { begun }));
        run.left.pop();
        run.is_delayed |= delay_ms(run.run, part).is_some();
        run.events.push(event.clone());
        if mixed(run.run, 64 + part).is_multiple_of(AGAIN_OF) {
            again.push((request, event));
        }
    }
    for (request, before) in repeated {
        if let Some(event) = event(&request)
            && event != before
        {
            let text = format!("{request} is {before} and {event}");
            orders.tell(ledger::Fact::Broken(text));
        }
    }
    acknowledged
}

/// What the proxy says of the runs at the end.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// Publications of `JOINED`.
    pub(crate) joined: Vec<Value>,
    /// Dead letters of the group.
    pub(crate) letters: Vec<Value>,
    /// Event ids of the letters that were announced.
    pub(crate) announced: Vec<String>,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Books {
    runs: BTreeMap<u32, Run>,
    parts: usize,
    told: BTreeSet<String>,
    is_over: bool,
}

impl Books {
    pub(crate) fn book(&mut self, fact: Fact) {
        match fact {
            Fact::Part { .. } => self.parts += 1,
            Fact::Run(run) => drop(self.runs.insert(run.run, run)),
            Fact::Told(event) => drop(self.told.insert(event)),
            Fact::Over => self.is_over = true,
        }
    }

    /// Parts that were acknowledged.
    pub(crate) fn parts(&self) -> usize {
        self.parts
    }

    /// No run comes any more.
    pub(crate) fn is_over(&self) -> bool {
        self.is_over
    }

    /// Everything that there is of the letters has come.
    pub(crate) fn are_told(&self, found: &Found) -> bool {
        let letters = found.letters.len();
        self.told.len() >= letters && found.announced.len() >= letters
    }

    /// Something has become of every part that was acknowledged. One that was to come later may be with a process that is gone, and
    /// comes when the log gives it to another one.
    pub(crate) fn are_settled(&self, found: &Found) -> bool {
        let parts = found
            .joined
            .iter()
            .filter_map(|one| one["data"]["parts"].as_array());
        let joined = parts.flatten().chain(&found.letters);
        let settled: BTreeSet<&str> = joined.filter_map(|one| one["event_id"].as_str()).collect();
        let mut events = self.runs.values().flat_map(|run| &run.events);
        events.all(|event| settled.contains(event.as_str()))
    }

    /// Closes the books: what is broken, and how many runs were joined and given up.
    pub(crate) fn close(&self, found: &Found, is_clock_false: bool) -> (Vec<String>, u64, u64) {
        let mut broken = Vec::new();
        let events = self.runs.values().flat_map(|run| {
            let events = run.events.iter();
            events.map(|event| (event.as_str(), run.run))
        });
        let runs: BTreeMap<&str, u32> = events.collect();
        // How often each part is in a joined publication.
        let mut joined: BTreeMap<&str, u32> = BTreeMap::new();
        for one in &found.joined {
            let data = &one["data"];
            let parts = data["parts"].as_array().map_or(&[][..], Vec::as_slice);
            let events: Vec<&str> = parts
                .iter()
                .filter_map(|p| p["event_id"].as_str())
                .collect();
            let of: BTreeSet<Option<u32>> = events
                .iter()
                .map(|event| runs.get(event).copied())
                .collect();
            for event in &events {
                *joined.entry(event).or_default() += 1;
            }
            if is_clock_false {
                continue;
            }
            let run = match of.first() {
                Some(Some(run)) if of.len() == 1 => &self.runs[run],
                _ => {
                    broken.push(format!("joined of {of:?}: {data}"));
                    continue;
                }
            };
            if data["key"] != *run.key
                || data["count"] != events.len()
                || events.len() != run.of as usize
            {
                broken.push(format!("{run:?} was joined as {data}"));
            }
            let mut last: BTreeMap<&str, u64> = BTreeMap::new();
            for part in parts {
                let channel = part["channel"].as_str().unwrap_or_default();
                let offset = part["offset"].as_u64().unwrap_or(0);
                if last
                    .insert(channel, offset)
                    .is_some_and(|last| last >= offset)
                {
                    broken.push(format!("{run:?} was joined in another order: {data}"));
                }
            }
        }
        let mut letters = BTreeSet::new();
        for letter in &found.letters {
            let event = letter["event_id"].as_str().unwrap_or_default();
            if letter["class"] != "join" || !runs.contains_key(event) || !letters.insert(event) {
                broken.push(format!("a letter of no missing part: {letter}"));
            }
        }
        let (mut completed, mut given_up) = (0, 0);
        for run in self.runs.values() {
            let events = || run.events.iter().map(String::as_str);
            let times: BTreeSet<u32> = events()
                .map(|event| joined.get(event).copied().unwrap_or(0))
                .collect();
            let dead = events().filter(|event| letters.contains(event)).count();
            let is_joined = times == BTreeSet::from([1]) && dead == 0;
            let is_dead = times == BTreeSet::from([0]) && dead == run.events.len();
            completed += u64::from(is_joined);
            given_up += u64::from(is_dead);
            let is_right = match run.must {
                _ if is_clock_false => events().all(|event| {
                    joined.get(event).copied().unwrap_or(0) + u32::from(letters.contains(event))
                        == 1
                }),
                Must::Join => is_joined,
                Must::Letters => is_dead,
                Must::Either => is_joined || is_dead,
            };
            if !is_right {
                broken.push(format!(
                    "its parts are joined {times:?} times and {dead} are letters: {run:?}"
                ));
            }
        }
        let announced: BTreeSet<&str> = found.announced.iter().map(String::as_str).collect();
        let told: BTreeSet<&str> = self.told.iter().map(String::as_str).collect();
        if announced != letters || told != letters {
            broken.push(format!(
                "{GROUP}: {} letters, of which {} were announced and {} told",
                letters.len(),
                announced.len(),
                told.len()
            ));
        }
        (broken, completed, given_up)
    }
}

/// The books find what they are there to find.
pub(crate) fn examine() {
    let run = |run: u32, must, events: &[&str]| {
        Fact::Run(Run {
            run,
            key: "k".to_owned(),
            of: 2,
            events: events.iter().map(|event| (*event).to_owned()).collect(),
            must,
        })
    };
    let joined = |events: &[&str]| {
        let part = |(at, event): (usize, &&str)| json!({ "event_id": event, "channel": "c", "offset": at });
        let parts: Vec<Value> = events.iter().enumerate().map(part).collect();
        json!({ "data": { "key": "k", "count": events.len(), "parts": parts } })
    };
    let letter = |event: &str| json!({ "event_id": event, "class": "join" });
    let close = |joined: &[Value], letters: &[&str], told: &[&str]| {
        let mut books = Books::default();
        books.book(run(1, Must::Join, &["a", "b"]));
        books.book(run(2, Must::Letters, &["c"]));
        books.book(run(3, Must::Either, &["d", "e"]));
        told.iter()
            .for_each(|event| books.book(Fact::Told((*event).to_owned())));
        let found = Found {
            joined: joined.to_vec(),
            letters: letters.iter().map(|event| letter(event)).collect(),
            announced: letters.iter().map(|event| (*event).to_owned()).collect(),
        };
        books.close(&found, false).0
    };
    let (ab, de) = (joined(&["a", "b"]), joined(&["d", "e"]));
    let right = [ab.clone(), de.clone()];
    assert_eq!(close(&right, &["c"], &["c"]), [""; 0]);
    assert_eq!(
        close(&right[..1], &["c", "d", "e"], &["c", "d", "e"]),
        [""; 0]
    );
    let twice = [ab.clone(), de.clone(), ab.clone()];
    let mixed = [joined(&["a", "e"]), joined(&["d", "b"])];
    let wrong = [
        ("joined twice", close(&twice, &["c"], &["c"])),
        ("mixed", close(&mixed, &["c"], &["c"])),
        (
            "a part is missing",
            close(&[joined(&["a"]), de.clone()], &["c"], &["c"]),
        ),
        (
            "another order",
            close(&[joined(&["b", "a"]), joined(&["e", "x"])], &["c"], &["c"]),
        ),
        ("no letter", close(&right, &[], &[])),
        (
            "joined and a letter",
            close(&right, &["a", "c"], &["a", "c"]),
        ),
        ("half of it", close(&right[..1], &["c", "d"], &["c", "d"])),
        (
            "not joined",
            close(&right[1..], &["a", "b", "c"], &["a", "b", "c"]),
        ),
        ("not told", close(&right, &["c"], &[])),
        (
            "a letter of nobody",
            close(&right, &["c", "x"], &["c", "x"]),
        ),
    ];
    for (what, broken) in wrong {
        assert!(!broken.is_empty(), "{what} was not found");
    }
}
