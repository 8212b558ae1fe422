//! The clients of a world: publishers that do not give up, subscribers that recover.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::mpsc::SyncSender;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::ledger::Fact;
use super::link::{Gone, Link, http, temporary};
use super::names::{CHANNELS, Id, PAUSED, channel_of, id_of, parameters};
use crate::support::process::API_KEY;
use crate::support::token;
use crate::support::wait::{now, unix_ms};

/// Publications of one publisher under way.
const WINDOW: usize = 16;
/// Wait before a connection is tried again.
const PAUSE: Duration = Duration::from_millis(20);
/// Events of a subscriber that are told with a broken promise.
const LATELY_MAX: usize = 64;

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
    /// Counts what publications must be told apart by: what began before, and what began afterwards.
    moment: Arc<AtomicU64>,
    /// Of each group that is paused now and then: odd while it is.
    paused: Arc<[AtomicU64; PAUSED.len()]>,
    /// Offset of the last acknowledgement of each channel.
    tops: Arc<[AtomicU64; CHANNELS as usize]>,
    /// See `Options`.
    options: Arc<AtomicU64>,
}

const PUBLISH: u8 = 0;
const RESTS: u8 = 1;
const FINISH: u8 = 2;

/// What workers ask for, all of them alike.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Options {
    /// Attempts before a delivery is dead.
    pub(crate) attempts: u8,
    /// Longest pause between attempts.
    pub(crate) cap_ms: u8,
    /// The free group is ordered.
    pub(crate) is_free_ordered: bool,
    /// The group with lanes has them.
    pub(crate) has_lanes: bool,
    /// Publications of one key under way, in groups that are not ordered.
    pub(crate) key_concurrency: u8,
    /// Other rules than those of the group change it.
    pub(crate) is_update: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            attempts: 3,
            cap_ms: 20,
            is_free_ordered: false,
            has_lanes: true,
            key_concurrency: 0,
            is_update: false,
        }
    }
}

impl Options {
    fn bits(self) -> u64 {
        let flags = [self.is_free_ordered, self.has_lanes, self.is_update].map(u8::from);
        let [ordered, lanes, update] = flags;
        u64::from_le_bytes([
            self.attempts,
            self.cap_ms,
            self.key_concurrency,
            ordered,
            lanes,
            update,
            0,
            0,
        ])
    }

    fn of(bits: u64) -> Self {
        let [
            attempts,
            cap_ms,
            key_concurrency,
            ordered,
            lanes,
            update,
            ..,
        ] = bits.to_le_bytes();
        Self {
            attempts,
            cap_ms,
            is_free_ordered: ordered == 1,
            has_lanes: lanes == 1,
            key_concurrency,
            is_update: update == 1,
        }
    }
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
            moment: Arc::default(),
            paused: Arc::default(),
            tops: Arc::default(),
            options: Arc::new(Options::default().bits().into()),
        }
    }

    /// Publishers begin nothing new until `publish`.
    pub(crate) fn pause(&self) {
        self.publishing.store(RESTS, Ordering::SeqCst);
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

    /// Publishers may begin something.
    pub(crate) fn publishes(&self) -> bool {
        self.publishing.load(Ordering::SeqCst) == PUBLISH
    }

    /// Publishers are to end.
    pub(crate) fn is_finishing(&self) -> bool {
        self.publishing.load(Ordering::SeqCst) == FINISH
    }

    /// Counts somebody who has nothing under way, or has again.
    pub(crate) fn set_idle(&self, was_idle: &mut bool, is_idle: bool) {
        match (*was_idle, is_idle) {
            (false, true) => drop(self.idle.fetch_add(1, Ordering::SeqCst)),
            (true, false) => drop(self.idle.fetch_sub(1, Ordering::SeqCst)),
            _ => {}
        }
        *was_idle = is_idle;
    }

    /// What begins now begins at this moment.
    pub(crate) fn moment(&self) -> u64 {
        self.moment.load(Ordering::SeqCst)
    }

    /// The next moment.
    pub(crate) fn next_moment(&self) -> u64 {
        self.moment.fetch_add(1, Ordering::SeqCst) + 1
    }

    /// How often the group was paused or went on; odd while it is known to be paused.
    pub(crate) fn pauses(&self, group: &str) -> u64 {
        let at = PAUSED.iter().position(|paused| *paused == group);
        at.map_or(0, |at| self.paused[at].load(Ordering::SeqCst))
    }

    /// The group is known to be paused from now on, or not any more.
    pub(crate) fn turn(&self, group: &str) {
        let at = PAUSED.iter().position(|paused| *paused == group);
        self.paused[at.expect("one of them")].fetch_add(1, Ordering::SeqCst);
    }

    /// The last offset of a channel that somebody was told of.
    pub(crate) fn top(&self, channel: u32) -> u64 {
        self.tops[channel as usize].load(Ordering::SeqCst)
    }

    /// What workers ask for from now on.
    pub(crate) fn change(&self, options: Options) {
        self.options.store(options.bits(), Ordering::SeqCst);
    }

    /// What they ask for.
    pub(crate) fn options(&self) -> Options {
        Options::of(self.options.load(Ordering::SeqCst))
    }

    /// Everybody is to end.
    pub(crate) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::SeqCst)
    }

    /// Somebody has seen something.
    pub(crate) fn tell(&self, fact: Fact) {
        if let Fact::Acknowledged {
            channel, offset, ..
        } = &fact
        {
            let number = channel.rsplit(':').next().and_then(|n| n.parse().ok());
            if let Some(top) = number.and_then(|number: usize| self.tops.get(number)) {
                top.fetch_max(*offset, Ordering::SeqCst);
            }
        }
        // The conductor may have ended already.
        let _ = self.facts.send(fact);
    }

    /// Waits a moment before the next try.
    pub(crate) fn pause_a_moment(&self) {
        std::thread::park_timeout(PAUSE);
    }

    /// Readers have no connection now.
    pub(crate) fn are_away(&self) -> bool {
        self.away.load(Ordering::SeqCst)
    }

    /// A reader waits as long as it must be away. `false` when it is to end.
    pub(crate) fn may_connect(&self) -> bool {
        if self.away.load(Ordering::SeqCst) {
            self.gone.fetch_add(1, Ordering::SeqCst);
            while self.away.load(Ordering::SeqCst) && !self.is_stopped() {
                self.pause_a_moment();
            }
            self.gone.fetch_sub(1, Ordering::SeqCst);
        }
        !self.is_stopped()
    }

    /// A reader keeps its connection.
    pub(crate) fn stays(&self) -> bool {
        !self.is_stopped() && !self.away.load(Ordering::SeqCst)
    }
}

/// Publishes over RPC with a key each, and publishes again with the same key until it is acknowledged.
pub(crate) struct Publisher {
    orders: Orders,
    number: u32,
    next: u32,
    /// Not acknowledged yet, with the moment of the first try, and when to send it again.
    open: BTreeMap<u32, (u64, Option<Instant>)>,
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
        self.orders.set_idle(&mut self.is_idle, true);
    }

    fn is_done(&self) -> bool {
        self.orders.is_finishing() && self.open.is_empty()
    }

    fn publish(&mut self, mut link: Link) -> Result<(), Gone> {
        let mut sent: BTreeMap<u64, u32> = BTreeMap::new();
        for (_, again) in self.open.values_mut() {
            *again = Some(now());
        }
        while !self.orders.is_stopped() && !self.is_done() {
            let publishes = self.orders.publishes();
            while publishes && self.open.len() < WINDOW {
                self.open
                    .insert(self.next, (self.orders.moment(), Some(now())));
                self.next += 1;
            }
            let is_idle = self.open.is_empty();
            self.orders.set_idle(&mut self.is_idle, is_idle);
            let (moment, number) = (now(), self.number);
            for (n, (_, again)) in &mut self.open {
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
        let begun = self.open.get(&n).map_or(0, |(begun, _)| *begun);
        if let Some(fact) = acknowledged(id, begun, &reply["rpc"]["data"]) {
            self.open.remove(&n);
            self.orders.tell(fact);
        } else if let Some(delay) = temporary(&reply["error"]) {
            self.open.insert(n, (begun, Some(now() + delay)));
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
pub(crate) fn acknowledged(id: Id, begun: u64, result: &Value) -> Option<Fact> {
    if let Some(due_ms) = result["deliver_at"].as_u64() {
        return Some(Fact::Accepted { id, begun, due_ms });
    }
    Some(Fact::Acknowledged {
        id,
        begun,
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
        if orders.is_stopped() || orders.is_finishing() {
            break;
        }
        orders.set_idle(&mut idle, !orders.publishes());
        if idle {
            orders.pause_a_moment();
            continue;
        }
        let (id, begun) = ((number, n), orders.moment());
        let mut request = parameters(id);
        request["idempotency_key"] = request["key"].take();
        request.as_object_mut().expect("an object").remove("key");
        while !orders.is_stopped() {
            let answer = ask(orders.address, "publish", &request).unwrap_or_default();
            if let Some(fact) = acknowledged(id, begun, &answer["result"]) {
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
    orders.set_idle(&mut idle, true);
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
        unix_ms: unix_ms(),
    });
}
