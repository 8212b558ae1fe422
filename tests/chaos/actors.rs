//! The clients of a world: publishers that do not give up, subscribers that recover, workers that acknowledge.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};
use std::sync::mpsc::SyncSender;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::ledger::{Fact, Id};
use super::link::{Gone, Link, http, temporary};
use crate::support::process::API_KEY;
use crate::support::token;
use crate::support::wait::now;

/// Channels of a world.
pub(crate) const CHANNELS: u32 = 4;
/// One publication of so many is poisoned: no worker can work it off.
const POISONED_OF: u32 = 40;
/// Publications of one publisher under way.
const WINDOW: usize = 16;
/// Attempts before a delivery is dead.
pub(crate) const ATTEMPTS: u32 = 3;
/// Wait before a connection is tried again.
const PAUSE: Duration = Duration::from_millis(20);
/// Events of a subscriber that are told with a broken promise.
const LATELY_MAX: usize = 64;
/// Longest wait of a worker that has no connection of its own.
const POLL_MS: u64 = 500;

/// What clients are told.
#[derive(Clone)]
pub(crate) struct Orders {
    /// Where the proxy is.
    pub(crate) address: SocketAddr,
    facts: SyncSender<Fact>,
    publishing: Arc<AtomicU8>,
    /// Readers have no connection.
    away: Arc<AtomicBool>,
    stopped: Arc<AtomicBool>,
    /// Publishers with nothing under way.
    idle: Arc<AtomicU32>,
    /// Readers without a connection.
    gone: Arc<AtomicU32>,
}

const PUBLISH: u8 = 0;
const PAUSED: u8 = 1;
const FINISH: u8 = 2;

/// A publication: whether it is poisoned follows from its name.
pub(crate) fn is_poisoned(id: Id) -> bool {
    let mixed = (u64::from(id.0) << 32 | u64::from(id.1)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    ((mixed >> 40) as u32).is_multiple_of(POISONED_OF)
}

/// The channel that a publication goes to.
pub(crate) fn channel_of(id: Id) -> String {
    format!("orders:{}", (id.0 + id.1) % CHANNELS)
}

/// Parameters of its publish command.
pub(crate) fn parameters(id: Id) -> Value {
    let text = "x".repeat(id.1 as usize * 7 % 200);
    json!({
        "channel": channel_of(id),
        "key": format!("key-{}-{}", id.0, id.1),
        "data": { "p": id.0, "n": id.1, "text": text },
    })
}

fn id_of(data: &Value) -> Option<Id> {
    let part = |name: &str| u32::try_from(data[name].as_u64()?).ok();
    Some((part("p")?, part("n")?))
}

impl Orders {
    pub(crate) fn new(address: SocketAddr, facts: SyncSender<Fact>) -> Self {
        Self {
            address,
            facts,
            publishing: Arc::default(),
            away: Arc::default(),
            stopped: Arc::default(),
            idle: Arc::default(),
            gone: Arc::default(),
        }
    }

    /// Publishers begin nothing new until `publish`.
    pub(crate) fn pause(&self) {
        self.publishing.store(PAUSED, Ordering::SeqCst);
    }

    /// Publishers go on.
    pub(crate) fn publish(&self) {
        self.publishing.store(PUBLISH, Ordering::SeqCst);
    }

    /// Publishers end when everything is acknowledged.
    pub(crate) fn finish(&self) {
        self.publishing.store(FINISH, Ordering::SeqCst);
    }

    /// Readers close their connections, or come back.
    pub(crate) fn set_away(&self, away: bool) {
        self.away.store(away, Ordering::SeqCst);
    }

    /// Everybody ends.
    pub(crate) fn stop(&self) {
        self.stopped.store(true, Ordering::SeqCst);
    }

    /// Publishers with nothing under way.
    pub(crate) fn idle(&self) -> u32 {
        self.idle.load(Ordering::SeqCst)
    }

    /// Readers without a connection because they are told so.
    pub(crate) fn gone(&self) -> u32 {
        self.gone.load(Ordering::SeqCst)
    }

    fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::SeqCst)
    }

    fn tell(&self, fact: Fact) {
        // The conductor may have ended already.
        let _ = self.facts.send(fact);
    }

    /// Waits a moment before the next try.
    fn pause_a_moment(&self) {
        std::thread::park_timeout(PAUSE);
    }

    /// A reader waits as long as it must be away. `false` when it is to end.
    fn may_connect(&self) -> bool {
        if self.away.load(Ordering::SeqCst) {
            self.gone.fetch_add(1, Ordering::SeqCst);
            while self.away.load(Ordering::SeqCst) && !self.is_stopped() {
                self.pause_a_moment();
            }
            self.gone.fetch_sub(1, Ordering::SeqCst);
        }
        !self.is_stopped()
    }

    fn stays(&self) -> bool {
        !self.is_stopped() && !self.away.load(Ordering::SeqCst)
    }
}

/// Publishes over RPC with a key each, and publishes again with the same key until it is acknowledged.
pub(crate) struct Publisher {
    orders: Orders,
    number: u32,
    next: u32,
    /// Not acknowledged yet, with when to send it again.
    open: BTreeMap<u32, Option<Instant>>,
    is_idle: bool,
}

impl Publisher {
    pub(crate) fn new(orders: Orders, number: u32) -> Self {
        Self {
            orders,
            number,
            next: 0,
            open: BTreeMap::new(),
            is_idle: false,
        }
    }

    pub(crate) fn run(mut self) {
        let token = token::user(&format!("publisher-{}", self.number));
        while !self.orders.is_stopped() && !self.is_done() {
            match Link::open(self.orders.address, &token) {
                Some(link) => {
                    // The end of the connection is what the harness is about.
                    let _ = self.publish(link);
                }
                None => self.orders.pause_a_moment(),
            }
        }
        self.set_idle(true);
    }

    fn is_done(&self) -> bool {
        self.orders.publishing.load(Ordering::SeqCst) == FINISH && self.open.is_empty()
    }

    fn set_idle(&mut self, is_idle: bool) {
        if is_idle && !self.is_idle {
            self.orders.idle.fetch_add(1, Ordering::SeqCst);
        } else if !is_idle && self.is_idle {
            self.orders.idle.fetch_sub(1, Ordering::SeqCst);
        }
        self.is_idle = is_idle;
    }

    fn publish(&mut self, mut link: Link) -> Result<(), Gone> {
        let mut sent: BTreeMap<u64, u32> = BTreeMap::new();
        for again in self.open.values_mut() {
            *again = Some(now());
        }
        while !self.orders.is_stopped() && !self.is_done() {
            let publishes = self.orders.publishing.load(Ordering::SeqCst) == PUBLISH;
            while publishes && self.open.len() < WINDOW {
                self.open.insert(self.next, Some(now()));
                self.next += 1;
            }
            self.set_idle(self.open.is_empty());
            let (moment, number) = (now(), self.number);
            for (n, again) in &mut self.open {
                if again.is_some_and(|at| at <= moment) {
                    *again = None;
                    sent.insert(link.rpc("ringmain.publish", &parameters((number, *n)))?, *n);
                }
            }
            for reply in link.receive()? {
                let Some(n) = reply["id"].as_u64().and_then(|id| sent.remove(&id)) else {
                    continue;
                };
                self.answered(n, &reply);
            }
        }
        Ok(())
    }

    fn answered(&mut self, n: u32, reply: &Value) {
        let id = (self.number, n);
        if let Some(fact) = acknowledged(id, &reply["rpc"]["data"]) {
            self.open.remove(&n);
            self.orders.tell(fact);
        } else if let Some(delay) = temporary(&reply["error"]) {
            self.open.insert(n, Some(now() + delay));
            self.orders.tell(Fact::Temporary);
        } else {
            self.open.remove(&n);
            self.orders.tell(Fact::Broken(format!(
                "{id:?} was refused for good: {reply}"
            )));
        }
    }
}

/// The acknowledgement in a result.
pub(crate) fn acknowledged(id: Id, result: &Value) -> Option<Fact> {
    Some(Fact::Acknowledged {
        id,
        channel: channel_of(id),
        epoch: result["epoch"].as_str()?.to_owned(),
        offset: result["offset"].as_u64()?,
    })
}

/// One call of the server API; `None` when there was no answer.
pub(crate) fn ask(address: SocketAddr, method: &str, request: &Value) -> Option<Value> {
    let headers = format!("X-API-Key: {API_KEY}\r\n");
    http(
        address,
        "POST",
        &format!("/api/{method}"),
        &headers,
        &request.to_string(),
    )
}

/// Publishes over the server API, one after the other.
pub(crate) fn service(orders: &Orders, number: u32) {
    let mut idle = false;
    let mut n = 0;
    loop {
        let state = orders.publishing.load(Ordering::SeqCst);
        if orders.is_stopped() || state == FINISH {
            break;
        }
        if (state == PAUSED) != idle {
            idle = state == PAUSED;
            let change = if idle { 1 } else { u32::MAX };
            orders.idle.fetch_add(change, Ordering::SeqCst);
        }
        if idle {
            orders.pause_a_moment();
            continue;
        }
        let id = (number, n);
        let mut request = parameters(id);
        request["idempotency_key"] = request["key"].take();
        request.as_object_mut().expect("an object").remove("key");
        while !orders.is_stopped() {
            let answer = ask(orders.address, "publish", &request).unwrap_or_default();
            if let Some(fact) = acknowledged(id, &answer["result"]) {
                orders.tell(fact);
                break;
            }
            if answer.get("error").is_some() {
                match temporary(&answer["error"]) {
                    Some(_) => orders.tell(Fact::Temporary),
                    None => orders.tell(Fact::Broken(format!(
                        "{id:?} was refused for good: {answer}"
                    ))),
                }
            }
            orders.pause_a_moment();
        }
        n += 1;
    }
    if !idle {
        orders.idle.fetch_add(1, Ordering::SeqCst);
    }
}

/// Subscribes to all channels and recovers from where it was.
pub(crate) fn subscriber(orders: &Orders, number: u32) {
    let token = token::user(&format!("subscriber-{number}"));
    let mut positions: BTreeMap<String, Place> = BTreeMap::new();
    while orders.may_connect() {
        match Link::open(orders.address, &token) {
            Some(mut link) => {
                for place in positions.values_mut() {
                    place.note("connected");
                }
                let _ = subscribed(orders, number, &mut link, &mut positions);
            }
            None => orders.pause_a_moment(),
        }
    }
}

fn subscribed(
    orders: &Orders,
    number: u32,
    link: &mut Link,
    positions: &mut BTreeMap<String, Place>,
) -> Result<(), Gone> {
    let mut asked: BTreeMap<u64, (String, Instant)> = BTreeMap::new();
    let mut again: Vec<(String, Instant)> = (0..CHANNELS)
        .map(|n| (format!("orders:{n}"), now()))
        .collect();
    while orders.stays() {
        for (channel, _) in again.extract_if(.., |(_, at)| *at <= now()) {
            let mut request =
                json!({ "channel": channel, "recoverable": true, "positioned": true });
            if let Some(place) = positions.get(&channel) {
                request["recover"] = json!(true);
                request["epoch"] = json!(place.epoch);
                request["offset"] = json!(place.offset);
            }
            asked.insert(link.send("subscribe", &request)?, (channel, now()));
        }
        for object in link.receive()? {
            if let Some((channel, _)) = object["id"].as_u64().and_then(|id| asked.remove(&id)) {
                match temporary(&object["error"]) {
                    Some(delay) => again.push((channel, now() + delay)),
                    None => joined(orders, number, &channel, &object, positions),
                }
            } else if object["push"]["pub"].is_object() {
                let channel = object["push"]["channel"]
                    .as_str()
                    .unwrap_or_default()
                    .to_owned();
                seen(orders, number, &channel, &object["push"]["pub"], positions);
            } else if object["push"]["unsubscribe"].is_object() {
                // The server has lost its place in the channel: SDKs subscribe again from theirs.
                let channel = object["push"]["channel"]
                    .as_str()
                    .unwrap_or_default()
                    .to_owned();
                again.push((channel, now()));
            }
        }
    }
    Ok(())
}

fn joined(
    orders: &Orders,
    number: u32,
    channel: &str,
    reply: &Value,
    positions: &mut BTreeMap<String, Place>,
) {
    let result = &reply["subscribe"];
    if !result.is_object() {
        orders.tell(Fact::Broken(format!(
            "subscriber {number}: {channel}: {reply}"
        )));
        return;
    }
    let epoch = result["epoch"].as_str().unwrap_or_default().to_owned();
    if positions.contains_key(channel) && result["recovered"] != true {
        orders.tell(Fact::Broken(format!(
            "subscriber {number}: {channel} was not recovered: {result}"
        )));
    }
    // A new subscriber begins where the channel is; in a world it comes before the first publication.
    let offset = result["offset"].as_u64().unwrap_or(0);
    let place = positions
        .entry(channel.to_owned())
        .or_insert_with(|| Place::new(epoch, offset));
    let publications = result["publications"].as_array();
    let count = publications.map_or(0, Vec::len);
    place.note(&format!("subscribed at {offset}, {count} recovered"));
    for publication in publications.into_iter().flatten() {
        seen(orders, number, channel, publication, positions);
    }
    if let Some(place) = positions.get_mut(channel) {
        place.note("pushes");
    }
}

/// Where a subscriber is in a channel.
struct Place {
    epoch: String,
    offset: u64,
    /// What has happened lately, for whoever reads of a broken promise.
    lately: VecDeque<String>,
}

impl Place {
    fn new(epoch: String, offset: u64) -> Self {
        Self {
            epoch,
            offset,
            lately: VecDeque::new(),
        }
    }

    fn note(&mut self, what: &str) {
        if self.lately.len() == LATELY_MAX {
            self.lately.pop_front();
        }
        self.lately.push_back(what.to_owned());
    }
}

fn seen(
    orders: &Orders,
    number: u32,
    channel: &str,
    publication: &Value,
    positions: &mut BTreeMap<String, Place>,
) {
    let (Some(id), Some(offset)) = (id_of(&publication["data"]), publication["offset"].as_u64())
    else {
        orders.tell(Fact::Broken(format!(
            "subscriber {number}: {channel}: {publication}"
        )));
        return;
    };
    let Some(place) = positions.get_mut(channel) else {
        return;
    };
    place.note(&format!("{offset}"));
    if offset != place.offset + 1 {
        let text = format!(
            "subscriber {number}: {channel}: {offset} after {}: {:?}",
            place.offset, place.lately
        );
        orders.tell(Fact::Broken(text));
    }
    place.offset = place.offset.max(offset);
    orders.tell(Fact::Seen {
        subscriber: number,
        id,
        channel: channel.to_owned(),
        epoch: place.epoch.clone(),
        offset,
    });
}

/// What workers of a group ask for.
fn consume(group: &str, is_ordered: bool) -> Value {
    json!({
        "group": group,
        "channels": ["orders:*"],
        "credit": 32,
        "ordered": is_ordered,
        "ack_wait_ms": 60_000,
        "max_attempts": ATTEMPTS,
        "backoff": { "base_ms": 5, "factor": 2, "cap_ms": 20, "jitter": 0.0 },
        "from": "beginning",
    })
}

/// A delivery as the ledger wants it.
fn delivered(group: &'static str, delivery: &Value) -> Option<(Id, Fact)> {
    let id = id_of(&delivery["data"])?;
    let fact = Fact::Delivered {
        group,
        id,
        channel: delivery["channel"].as_str()?.to_owned(),
        offset: delivery["offset"].as_u64()?,
        event: delivery["event_id"].as_str()?.to_owned(),
    };
    Some((id, fact))
}

/// Takes deliveries over a connection: acknowledges them, or refuses the poisoned ones.
pub(crate) fn worker(orders: &Orders, group: &'static str, is_ordered: bool) {
    let token =
        token::sign(&json!({ "sub": format!("worker-{group}"), "consume": { "*": ["*"] } }));
    while orders.may_connect() {
        match Link::open(orders.address, &token) {
            Some(mut link) => {
                let _ = works(orders, group, is_ordered, &mut link);
            }
            None => orders.pause_a_moment(),
        }
    }
}

fn works(
    orders: &Orders,
    group: &'static str,
    is_ordered: bool,
    link: &mut Link,
) -> Result<(), Gone> {
    let mut joining = Some(link.rpc("ringmain.consume", &consume(group, is_ordered))?);
    let mut again: Option<Instant> = None;
    // Acknowledgements under way, and those that are to be sent again.
    let mut sent: BTreeMap<u64, (Value, Id)> = BTreeMap::new();
    let mut waiting: VecDeque<(Instant, Value, Id)> = VecDeque::new();
    while orders.stays() {
        if again.is_some_and(|at| at <= now()) {
            again = None;
            joining = Some(link.rpc("ringmain.consume", &consume(group, is_ordered))?);
        }
        while waiting.front().is_some_and(|(at, ..)| *at <= now()) {
            let Some((_, delivery, id)) = waiting.pop_front() else {
                break;
            };
            sent.insert(settle(link, &delivery, id)?, (delivery, id));
        }
        for object in link.receive()? {
            let reply = object["id"].as_u64();
            if reply.is_some() && reply == joining {
                joining = None;
                match temporary(&object["error"]) {
                    Some(delay) => again = Some(now() + delay),
                    None if object.get("error").is_some() => {
                        orders.tell(Fact::Broken(format!("{group}: consume: {object}")));
                    }
                    None => {}
                }
            } else if let Some((delivery, id)) = reply.and_then(|reply| sent.remove(&reply)) {
                if let Some(delay) = temporary(&object["error"]) {
                    waiting.push_back((now() + delay, delivery, id));
                } else if object.get("error").is_none() && !is_poisoned(id) {
                    orders.tell(Fact::Settled { group, id });
                }
            } else if object["push"]["message"].is_object() {
                let data = &object["push"]["message"]["data"];
                let Some((id, fact)) = delivered(group, data) else {
                    orders.tell(Fact::Broken(format!("{group}: {data}")));
                    continue;
                };
                orders.tell(fact);
                sent.insert(
                    settle(link, &data["delivery"], id)?,
                    (data["delivery"].clone(), id),
                );
            }
        }
    }
    Ok(())
}

fn settle(link: &mut Link, delivery: &Value, id: Id) -> Result<u64, Gone> {
    if is_poisoned(id) {
        link.rpc(
            "ringmain.nak",
            &json!({ "delivery": delivery, "reason": "poisoned" }),
        )
    } else {
        link.rpc("ringmain.ack", &json!({ "delivery": delivery }))
    }
}

/// Takes deliveries over the server API, without a connection of its own.
pub(crate) fn fetcher(orders: &Orders, group: &'static str) {
    let mut request = consume(group, false);
    request.as_object_mut().expect("an object").remove("credit");
    request["limit"] = json!(32);
    request["wait_ms"] = json!(POLL_MS);
    while orders.may_connect() {
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
        let (mut done, mut ids) = (Vec::new(), BTreeSet::new());
        for delivery in &deliveries {
            let Some((id, fact)) = delivered(group, delivery) else {
                orders.tell(Fact::Broken(format!("{group}: {delivery}")));
                continue;
            };
            orders.tell(fact);
            if is_poisoned(id) {
                let nak = json!({ "delivery": delivery["delivery"], "reason": "poisoned" });
                let _ = persist(orders, "queue/nak", &nak);
            } else {
                done.push(delivery["delivery"].clone());
                ids.insert(id);
            }
        }
        if !done.is_empty() && persist(orders, "queue/ack", &json!({ "deliveries": done })) {
            for id in ids {
                orders.tell(Fact::Settled { group, id });
            }
        }
    }
}

/// Asks until the answer is no temporary error; whether it is a result.
fn persist(orders: &Orders, method: &str, request: &Value) -> bool {
    while !orders.is_stopped() {
        let Some(answer) = ask(orders.address, method, request) else {
            return false;
        };
        if temporary(&answer["error"]).is_none() {
            if answer.get("error").is_some() {
                orders.tell(Fact::Broken(format!("{method} {request}: {answer}")));
            }
            return answer.get("result").is_some();
        }
        orders.pause_a_moment();
    }
    false
}
