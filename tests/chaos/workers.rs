//! Workers of a world: over connections, over the server API, and as the target of a push rule.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::actors::{Orders, ask};
use super::joins;
use super::ledger::{Fact, Line, Rules, Said};
use super::link::{Gone, Link, temporary};
use super::names::{Id, id_of, is_poisoned, put_off};
use crate::support::backend::{Asked, Reply};
use crate::support::token;
use crate::support::wait::{now, unix_ms};

/// Longest wait of a worker that asks.
const POLL_MS: u64 = 500;
/// Deliveries under way at one worker, and of one answer.
const CREDIT: u64 = 32;
/// A worker that vanishes does so within this time.
const VANISHES: Duration = Duration::from_millis(60);

/// The groups of a world. What comes to them first: everything of all channels, in whatever order.
pub(crate) const GROUPS: [Rules; 7] = [
    rules("free", Line::None, false),
    rules("ordered", Line::Channel, false),
    rules("fetched", Line::None, true),
    rules("keyed", Line::Customer, false),
    rules("lanes", Line::Lane, true),
    rules("sought", Line::None, false),
    rules("pushed", Line::None, false),
];
/// Group whose deliveries are posted to a target.
pub(crate) const PUSHED: &str = "pushed";

const fn rules(name: &'static str, line: Line, is_synced: bool) -> Rules {
    Rules {
        name,
        line,
        is_synced,
    }
}

/// The group of this name.
pub(crate) fn named(name: &str) -> Option<&'static str> {
    let mut names = GROUPS.iter().map(|rules| rules.name);
    names.find(|known| *known == name)
}

/// What workers of a group ask for.
pub(crate) fn consume(orders: &Orders, group: &str) -> Value {
    let options = orders.options();
    let is_ordered = matches!(group, "ordered" | "keyed" | "lanes")
        || (group == "free" && options.is_free_ordered);
    let mut request = json!({
        "group": group,
        "channels": ["orders:*"],
        "ordered": is_ordered,
        "ack_wait_ms": 30_000,
        "max_attempts": options.attempts,
        "backoff": { "base_ms": 5, "factor": 2, "cap_ms": options.cap_ms, "jitter": 0.0 },
        "from": "beginning",
    });
    match group {
        "keyed" => request["key"] = json!("tag:customer"),
        "lanes" if options.has_lanes => request["lanes"] = json!({ "by": "tag:priority" }),
        "fetched" | "sought" if options.key_concurrency > 0 => {
            request["key"] = json!("channel");
            request["key_concurrency"] = json!(options.key_concurrency);
        }
        _ => {}
    }
    if options.is_update {
        request["update"] = json!(true);
    }
    request
}

/// A delivery as the books want it, and its attempt.
fn delivered(group: &'static str, delivery: &Value) -> Option<(Id, u32, Fact)> {
    let id = id_of(&delivery["data"])?;
    let attempt = u32::try_from(delivery["attempt"].as_u64()?).ok()?;
    let fact = Fact::Delivered {
        group,
        id,
        channel: delivery["channel"].as_str()?.to_owned(),
        offset: delivery["offset"].as_u64()?,
        event: delivery["event_id"].as_str()?.to_owned(),
        attempt,
        published_ms: delivery["published_at"].as_u64()?,
        at: now(),
        unix_ms: unix_ms(),
    };
    Some((id, attempt, fact))
}

/// What a worker says about it: poisoned ones fail, and some others are put off at first.
fn verdict(id: Id, attempt: u32) -> Said {
    match put_off(id) {
        _ if is_poisoned(id) => Said::Failed(attempt),
        Some(delay) if attempt == 1 => Said::Later(attempt, now() + delay),
        _ => Said::Done,
    }
}

/// Takes one delivery: what is to be said about it is booked before anybody hears it.
fn take(orders: &Orders, group: &'static str, delivery: &Value) -> Option<(Id, Said)> {
    let Some((id, attempt, fact)) = delivered(group, delivery) else {
        orders.tell(Fact::Broken(format!("{group}: {delivery}")));
        return None;
    };
    orders.tell(fact);
    let said = verdict(id, attempt);
    orders.tell(Fact::Saying { group, id, said });
    Some((id, said))
}

/// How it is said; whether the answer is a promise.
fn settlement(group: &str, delivery: &Value, id: Id, said: Said) -> (&'static str, Value, bool) {
    let is_synced = match said {
        Said::Done => GROUPS
            .iter()
            .any(|rules| rules.name == group && rules.is_synced),
        Said::Failed(_) => false,
        Said::Later(..) => id.1.is_multiple_of(2),
    };
    let mut request = json!({ "delivery": delivery });
    if is_synced {
        request["sync"] = json!(true);
    }
    let method = match said {
        Said::Done => "ack",
        Said::Failed(_) => {
            request["reason"] = json!("poisoned");
            "nak"
        }
        Said::Later(..) => {
            let delay = put_off(id).unwrap_or_default();
            request["delay_ms"] = json!(u64::try_from(delay.as_millis()).unwrap_or(0));
            "nak"
        }
    };
    (method, request, is_synced)
}

/// What was said is known, or stored where that was asked for.
fn settled(
    group: &'static str,
    id: Id,
    said: Said,
    is_synced: bool,
    result: &Value,
) -> Option<Fact> {
    match said {
        Said::Done if result["acked"] == 1 => Some(Fact::Settled {
            group,
            id,
            is_done: true,
            at: now(),
        }),
        Said::Later(..) if is_synced && result["naked"] == 1 => Some(Fact::Settled {
            group,
            id,
            is_done: false,
            at: now(),
        }),
        _ => None,
    }
}

/// How a worker with a connection gets its deliveries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// They come as messages.
    Consume,
    /// It asks for them.
    Fetch,
}

impl Way {
    fn join(self, orders: &Orders, group: &str, link: &mut Link) -> Result<u64, Gone> {
        let mut request = consume(orders, group);
        match self {
            Self::Consume => {
                request["credit"] = json!(CREDIT);
                link.rpc("ringmain.consume", &request)
            }
            Self::Fetch => {
                request["limit"] = json!(CREDIT);
                request["wait_ms"] = json!(POLL_MS);
                link.rpc("ringmain.fetch", &request)
            }
        }
    }
}

fn token_of(group: &str) -> String {
    token::sign(&json!({ "sub": format!("worker-{group}"), "consume": { "*": ["*"] } }))
}

/// Takes deliveries over a connection.
pub(crate) fn worker(orders: &Orders, group: &'static str, way: Way) {
    let token = token_of(group);
    while orders.may_connect() {
        match Link::open(orders.address, &token) {
            Some(mut link) => {
                let _ = works(orders, group, way, &mut link);
            }
            None => orders.pause_a_moment(),
        }
    }
}

struct Open {
    delivery: Value,
    id: Id,
    said: Said,
    is_synced: bool,
}

impl Open {
    fn send(self, group: &str, link: &mut Link) -> Result<(u64, Self), Gone> {
        let (method, request, is_synced) = settlement(group, &self.delivery, self.id, self.said);
        let reply = link.rpc(&format!("ringmain.{method}"), &request)?;
        Ok((reply, Self { is_synced, ..self }))
    }
}

fn works(orders: &Orders, group: &'static str, way: Way, link: &mut Link) -> Result<(), Gone> {
    // What comes before the next change while this is odd was given after the group was paused.
    let mut joined = orders.pauses(group);
    let mut is_told = false;
    let mut joining = Some(way.join(orders, group, link)?);
    let mut again: Option<Instant> = None;
    // What was said and is not answered, and what is to be said again.
    let mut sent: BTreeMap<u64, Open> = BTreeMap::new();
    let mut waiting: VecDeque<(Instant, Open)> = VecDeque::new();
    while orders.stays() {
        if again.is_some_and(|at| at <= now()) {
            again = None;
            joined = orders.pauses(group);
            joining = Some(way.join(orders, group, link)?);
        }
        while waiting.front().is_some_and(|(at, _)| *at <= now()) {
            let Some((_, open)) = waiting.pop_front() else {
                break;
            };
            let (reply, open) = open.send(group, link)?;
            sent.insert(reply, open);
        }
        for object in link.receive()? {
            let reply = object["id"].as_u64();
            let mut given = Vec::new();
            if reply.is_some() && reply == joining {
                joining = None;
                match temporary(&object["error"]) {
                    Some(delay) => again = Some(now() + delay),
                    None if object.get("error").is_some() => {
                        orders.tell(Fact::Broken(format!("{group}: {way:?}: {object}")));
                    }
                    None if way == Way::Fetch => {
                        let answer = &object["rpc"]["data"]["deliveries"];
                        given.extend(answer.as_array().into_iter().flatten().cloned());
                        again = Some(now());
                    }
                    None => {}
                }
            } else if let Some(open) = reply.and_then(|reply| sent.remove(&reply)) {
                if let Some(delay) = temporary(&object["error"]) {
                    waiting.push_back((now() + delay, open));
                } else if let Some(fact) = settled(
                    group,
                    open.id,
                    open.said,
                    open.is_synced,
                    &object["rpc"]["data"],
                ) {
                    orders.tell(fact);
                }
            } else if object["push"]["message"].is_object() {
                let data = &object["push"]["message"]["data"];
                match data["paused"].as_bool() {
                    Some(paused) => is_told = paused,
                    None => given.push(data.clone()),
                }
            }
            let pauses = orders.pauses(group);
            let is_paused = is_told || (pauses == joined && joined % 2 == 1);
            if is_paused && let Some(first) = given.first() {
                let text = format!("{group}: given while the group is paused: {first}");
                orders.tell(Fact::Broken(text));
            }
            for data in given {
                let Some((id, said)) = take(orders, group, &data) else {
                    continue;
                };
                let open = Open {
                    delivery: data["delivery"].clone(),
                    id,
                    said,
                    is_synced: false,
                };
                let (reply, open) = open.send(group, link)?;
                sent.insert(reply, open);
            }
        }
    }
    Ok(())
}

/// Takes deliveries over the server API, without a connection of its own.
pub(crate) fn fetcher(orders: &Orders, group: &'static str) {
    while orders.may_connect() {
        let mut request = consume(orders, group);
        request["limit"] = json!(CREDIT);
        request["wait_ms"] = json!(POLL_MS);
        let pauses = orders.pauses(group);
        let Some(answer) = ask(orders.address, "queue/fetch", &request) else {
            orders.pause_a_moment();
            continue;
        };
        if answer.get("error").is_some() {
            if temporary(&answer["error"]).is_none() {
                orders.tell(Fact::Broken(format!("{group}: fetch: {answer}")));
            }
            orders.pause_a_moment();
            continue;
        }
        let deliveries = answer["result"]["deliveries"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        if pauses % 2 == 1 && pauses == orders.pauses(group) && !deliveries.is_empty() {
            let text = format!("{group}: fetched while the group is paused: {answer}");
            orders.tell(Fact::Broken(text));
        }
        let (mut done, mut ids) = (Vec::new(), Vec::new());
        for delivery in &deliveries {
            let Some((id, said)) = take(orders, group, delivery) else {
                continue;
            };
            let name = &delivery["delivery"];
            if matches!(said, Said::Done) {
                done.push(name.clone());
                ids.push(id);
                continue;
            }
            let (_, request, is_synced) = settlement(group, name, id, said);
            let result = persist(orders, "queue/nak", &request).unwrap_or_default();
            if let Some(fact) = settled(group, id, said, is_synced, &result) {
                orders.tell(fact);
            }
        }
        if done.is_empty() {
            continue;
        }
        let request = json!({ "deliveries": done, "sync": true });
        let result = persist(orders, "queue/ack", &request).unwrap_or_default();
        if result["acked"] == done.len() {
            for id in ids {
                orders.tell(Fact::Settled {
                    group,
                    id,
                    is_done: true,
                    at: now(),
                });
            }
        }
    }
}

/// Asks until the answer is no temporary error; the result, if there is one.
fn persist(orders: &Orders, method: &str, request: &Value) -> Option<Value> {
    while !orders.is_stopped() {
        let mut answer = ask(orders.address, method, request)?;
        if temporary(&answer["error"]).is_none() {
            if answer.get("error").is_some() {
                orders.tell(Fact::Broken(format!("{method} {request}: {answer}")));
            }
            return answer.get_mut("result").map(Value::take);
        }
        orders.pause_a_moment();
    }
    None
}

/// The target of the push rule: it says in its answer what workers say.
pub(crate) fn target(orders: &Orders, asked: &Asked) -> Reply {
    if orders.are_away() {
        // What comes now is told to nobody: it costs no attempt, and comes again.
        return Reply::Status(429);
    }
    let one = std::slice::from_ref(&asked.body);
    let deliveries = asked.body["deliveries"].as_array();
    let mut failed = Vec::new();
    for delivery in deliveries.map_or(one, Vec::as_slice) {
        let event = &delivery["event_id"];
        match take(orders, PUSHED, delivery) {
            Some((_, Said::Failed(_))) => {
                failed.push(json!({ "event_id": event, "reason": "poisoned" }));
            }
            Some((id, Said::Later(..))) => {
                let delay = put_off(id).unwrap_or_default();
                let delay_ms = u64::try_from(delay.as_millis()).unwrap_or(0);
                let one = json!({ "event_id": event, "reason": "not now", "delay_ms": delay_ms });
                failed.push(one);
            }
            Some((_, Said::Done)) | None => {}
        }
    }
    Reply::Json(json!({ "failed": failed }))
}

/// The hook for dead letters. `mood`: 0 takes them, 1 breaks the connection, 2 refuses, 3 is too slow.
pub(crate) fn obituaries(orders: &Orders, mood: u8, asked: &Asked) -> Reply {
    match mood {
        1 => return Reply::Reset,
        2 => return Reply::Status(503),
        3 => return Reply::Late(Duration::from_secs(3), Box::new(Reply::Reset)),
        _ => {}
    }
    let group = asked.body["group"].as_str();
    let is_of_joins = group == Some(joins::GROUP);
    match (group.and_then(named), asked.body["event_id"].as_str()) {
        (None, Some(event)) if is_of_joins => {
            orders.tell(Fact::Joins(joins::Fact::Told(event.to_owned())));
        }
        (Some(group), Some(event)) => orders.tell(Fact::Told {
            group,
            event: event.to_owned(),
        }),
        _ => orders.tell(Fact::Broken(format!("a letter of nobody: {}", asked.body))),
    }
    Reply::Status(200)
}

/// A worker of the free group that vanishes: with what it was given, or while it waits.
pub(crate) fn vanish(orders: &Orders, kind: u64) {
    let group = GROUPS[0].name;
    let vanished = match kind {
        0 => super::link::request_and_vanish(
            orders.address,
            "/api/queue/fetch",
            &fetch(orders, group, 4, POLL_MS),
            VANISHES,
        ),
        _ => Link::open(orders.address, &token_of(group)).and_then(|mut link| {
            let way = if kind == 1 { Way::Consume } else { Way::Fetch };
            way.join(orders, group, &mut link).ok()?;
            let end = now() + VANISHES;
            while now() < end && link.receive().ok()?.len() < 2 {}
            Some(())
        }),
    };
    if vanished.is_some() {
        orders.tell(Fact::Counted("vanished workers"));
    }
}

fn fetch(orders: &Orders, group: &str, limit: u64, wait_ms: u64) -> Value {
    let mut request = consume(orders, group);
    request["limit"] = json!(limit);
    request["wait_ms"] = json!(wait_ms);
    request
}

/// Waits for deliveries where there are none, is seen to wait, and vanishes.
pub(crate) fn wait_and_vanish(orders: &Orders, group: &'static str, is_http: bool) {
    const LONG_MS: u64 = 20_000;
    let workers = |wanted: usize| {
        let request = json!({ "group": group });
        crate::support::wait::until("who waits, and who does not", || {
            let answer = ask(orders.address, "queue/workers", &request)?;
            let workers = answer["result"]["workers"].as_array()?.len();
            (workers == wanted).then_some(())
        });
    };
    workers(0);
    if is_http {
        let request = fetch(orders, group, CREDIT, LONG_MS);
        super::link::request_until(orders.address, "/api/queue/fetch", &request, || workers(1));
    } else {
        let mut link = Link::to_with(orders.address, &token_of(group));
        let request = fetch(orders, group, CREDIT, LONG_MS);
        link.rpc("ringmain.fetch", &request)
            .unwrap_or_else(|_| panic!("a connection"));
        workers(1);
    }
    workers(0);
    orders.tell(Fact::Counted("vanished workers"));
}
