//! What one group has fetched here.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::Message;
use async_nats::{Subject, Subscriber};
use bytes::Bytes;
use futures_util::future::join_all;
use futures_util::{FutureExt, StreamExt};
use serde::Serialize;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::order::{Account, Order, Puller};
use super::parked::Parked;
use super::recall::Recall;
use super::{history_key, is_absent, own_channel, spec};
use crate::mesh::durable::LogError;
use crate::model::Entry;
use crate::upstream::log::{Failure, Group, Lease, Leased};
use crate::upstream::nats::link::{Connection, Link, Opened};
use crate::upstream::nats::message::{self, Content};
use crate::upstream::nats::subject::{self, name};

/// Deliveries asked for at once.
const PULLED_AT_ONCE: usize = 512;
/// Bytes of deliveries asked for at once, or twice the longest message.
const PULL_BYTES: usize = 8 << 20;
/// How long the server holds a request when there is nothing.
const EXPIRES: Duration = Duration::from_secs(5);
/// How much later its end is believed to be lost.
const GRACE: Duration = Duration::from_secs(1);
/// Deliveries looked at at the same time.
const AT_ONCE: usize = 64;
/// Leases that are remembered; beyond it those that have run out are forgotten.
const LEASES_KEPT: usize = 100_000;

/// A request for deliveries.
#[derive(Serialize)]
struct Request {
    batch: usize,
    max_bytes: usize,
    /// Nanoseconds.
    expires: u128,
    #[serde(flatten)]
    puller: Option<Puller>,
}

/// A delivery that is not settled.
#[derive(Clone)]
pub(super) struct Held {
    pub sequence: u64,
    /// Where the server waits for a word about it.
    pub reply: Subject,
    pub failures: Vec<Failure>,
    /// When it was given or last kept.
    since: Instant,
    /// Whoever fetches has it, and has to speak of it within the time of a lease; else it waits here.
    is_out: bool,
    /// When whoever has it got it, or last spoke of it.
    spoken: Instant,
    /// It had run out, and nobody had spoken of it.
    is_suspect: bool,
    /// It was given up, and nobody knows whether the server has heard that.
    is_in_doubt: bool,
}

impl Held {
    /// How long it was not spoken of.
    pub fn age(&self) -> Duration {
        self.since.elapsed()
    }
}

/// What all groups of this process count together.
#[derive(Default)]
pub(super) struct Counts {
    /// Leases that were made: no two have one number, whatever became of their group meanwhile.
    leases: Cell<u64>,
    /// Leases that nobody knew any more.
    pub orphaned: Cell<u64>,
}

#[derive(Default)]
struct Leases {
    held: HashMap<Lease, Held>,
    by_sequence: HashMap<u64, Lease>,
}

/// The request under way and what has come of it.
struct Intake {
    replies: Option<Subscriber>,
    /// Over which connection they come.
    line: u64,
    /// The one over which `order` was last known.
    connection: Connection,
    inbox: String,
    /// Deliveries that may still come, and until when.
    expected: usize,
    until: Instant,
    /// What has come and was not looked at.
    raw: VecDeque<async_nats::Message>,
    /// What is leased and nobody has taken.
    waiting: VecDeque<(Leased, Instant)>,
    /// Read in ordered groups only.
    order: Order,
}

/// What a delivery turned out to be.
enum Delivery {
    /// None of the group's, or somebody here works on it: what had to be said is said.
    Settled,
    Entry(Arc<Entry>, Held),
}

/// Counts a settlement as over when it is dropped.
pub(super) struct Settling<'a>(&'a Cell<(u64, u64)>);

impl Drop for Settling<'_> {
    fn drop(&mut self) {
        let (begun, ended) = self.0.get();
        self.0.set((begun, ended + 1));
    }
}

/// One group in this process.
pub(super) struct Pull {
    /// Stream in which it is.
    pub log: u128,
    link: Arc<Link>,
    group: RefCell<Group>,
    counts: Rc<Counts>,
    leases: RefCell<Leases>,
    recall: RefCell<Recall>,
    pub(super) parked: RefCell<Parked>,
    intake: Mutex<Intake>,
    /// Settlements that have begun, and that are over.
    settlements: Cell<(u64, u64)>,
}

impl Pull {
    pub(super) fn new(link: Arc<Link>, counts: Rc<Counts>, log: u128, group: Group) -> Self {
        Self {
            log,
            counts,
            settlements: Cell::default(),
            leases: RefCell::default(),
            recall: RefCell::default(),
            parked: RefCell::default(),
            intake: Mutex::new(Intake {
                replies: None,
                line: 0,
                connection: link.connection(),
                inbox: link.client().new_inbox(),
                expected: 0,
                until: Instant::now(),
                raw: VecDeque::new(),
                waiting: VecDeque::new(),
                order: Order::new(group.lease),
            }),
            group: RefCell::new(group),
            link,
        }
    }

    /// The group was opened with other channels.
    pub(super) fn changed(&self, group: Group) {
        *self.group.borrow_mut() = group;
    }

    /// To be kept while leases are settled.
    pub(super) fn settling(&self) -> Settling<'_> {
        let (begun, ended) = self.settlements.get();
        self.settlements.set((begun + 1, ended));
        Settling(&self.settlements)
    }

    pub(super) fn held(&self, lease: Lease) -> Option<Held> {
        self.leases.borrow().held.get(&lease).cloned()
    }

    pub(super) fn has_failed(&self, lease: Lease, failures: Vec<Failure>) {
        if let Some(held) = self.leases.borrow_mut().held.get_mut(&lease) {
            held.failures = failures;
        }
    }

    pub(super) fn kept(&self, lease: Lease) {
        if let Some(held) = self.leases.borrow_mut().held.get_mut(&lease) {
            held.since = Instant::now();
        }
    }

    /// Whoever has these speaks of them: they are known, whether the server hears it or not.
    pub(super) fn spoken_of(&self, leases: impl Iterator<Item = Lease>) {
        let now = Instant::now();
        let mut known = self.leases.borrow_mut();
        for lease in leases {
            if let Some(held) = known.held.get_mut(&lease) {
                held.spoken = now;
                held.is_suspect = false;
            }
        }
    }

    /// Somebody has it from now on, or else it waits here.
    pub(super) fn hand_over(&self, lease: Lease, is_out: bool) {
        if let Some(held) = self.leases.borrow_mut().held.get_mut(&lease) {
            held.is_out = is_out;
            held.spoken = Instant::now();
            held.is_suspect = false;
        }
    }

    /// The server is told that it is over: until it has answered, it may be leased there or not.
    pub(super) fn doubt(&self, lease: Lease) {
        if let Some(held) = self.leases.borrow_mut().held.get_mut(&lease) {
            held.is_in_doubt = true;
        }
    }

    pub(super) fn forget(&self, lease: Lease) {
        let mut leases = self.leases.borrow_mut();
        if let Some(held) = leases.held.remove(&lease) {
            leases.by_sequence.remove(&held.sequence);
        }
    }

    /// It is done: it is not given again, even if the server forgets that.
    pub(super) fn finish(&self, lease: Lease) {
        if let Some(held) = self.held(lease) {
            self.recall.borrow_mut().finish(held.sequence);
        }
        self.forget(lease);
    }

    /// See `Groups::fetch`. What has come is kept where it is found by the next call if this one is dropped.
    pub(super) async fn fetch(
        &self,
        opened: &Opened,
        limit: usize,
    ) -> Result<Vec<Leased>, LogError> {
        let mut intake = self.intake.lock().await;
        loop {
            self.look_at_connection(&mut intake);
            let due = self.take_due(opened, limit).await?;
            if !due.is_empty() {
                return Ok(due);
            }
            let leased = self.take(&mut intake, limit);
            if !leased.is_empty() {
                return Ok(leased);
            }
            if !intake.raw.is_empty() {
                self.lease(opened, &mut intake).await?;
                continue;
            }
            let until = if !self.is_ordered() || intake.order.is_known() {
                self.ask(opened, &mut intake, limit).await?;
                intake.until
            } else {
                if self.look_at_account(opened, &mut intake).await? {
                    continue;
                }
                intake.order.look_at()
            };
            let message = {
                let replies = self.replies(&mut intake).await?;
                match tokio::time::timeout_at(self.not_after_due(until), replies.next()).await {
                    Ok(Some(message)) => message,
                    Ok(None) => {
                        intake.replies = None;
                        intake.expected = 0;
                        continue;
                    }
                    Err(_) => {
                        if Instant::now() >= intake.until {
                            // The answer was lost with a connection, or the server is gone.
                            intake.expected = 0;
                            self.link.opened()?;
                        }
                        continue;
                    }
                }
            };
            self.receive(opened, &mut intake, message).await?;
        }
    }

    /// What was under way over a connection that is lost is lost with it: before anything new the accounts are compared.
    fn look_at_connection(&self, intake: &mut Intake) {
        let connection = self.link.connection();
        if std::mem::replace(&mut intake.connection, connection) != connection {
            intake.order.lose(self.lease_time());
        }
    }

    pub(super) fn is_ordered(&self) -> bool {
        self.group.borrow().ordered
    }

    /// This time, or when something is due before.
    fn not_after_due(&self, until: Instant) -> Instant {
        let first = self.parked.borrow().first_due();
        first.map_or(until, |due| until.min(due))
    }

    pub(super) fn link(&self) -> &Link {
        &self.link
    }

    pub(super) fn lease_time(&self) -> Duration {
        self.group.borrow().lease
    }

    /// Compares what the server has leased with what is here. `true` if it is the same, and what was collected goes on; else
    /// what is missing is asked for when it is time.
    async fn look_at_account(
        &self,
        opened: &Opened,
        intake: &mut Intake,
    ) -> Result<bool, LogError> {
        if Instant::now() < intake.order.look_at() {
            return Ok(false);
        }
        self.renew_collected(intake).await?;
        let before = self.settlements.get();
        let consumer = name(&self.group.borrow().name);
        let info = match opened.stream.consumer_info(&consumer).await {
            Ok(info) => info,
            Err(error) if is_absent(error.kind()) => {
                return Err(LogError::NotFound("the group is gone".into()));
            }
            Err(error) => return Err(self.link.failed(&error)),
        };
        let after = self.settlements.get();
        let (account, has_doubts) = {
            // What has run out is elsewhere until it has come again.
            let (leases, lease) = (self.leases.borrow(), self.lease_time());
            let held = leases.held.values();
            let alive = held.filter(|held| held.since.elapsed() < lease);
            let has_doubts = alive.clone().any(|held| held.is_in_doubt);
            let account = Account::new(&info, alive.map(|held| held.sequence));
            (account, has_doubts)
        };
        // What is being settled is on one side only, and so may be what the server was told and has not answered.
        let is_steady = before == after && before.0 == before.1 && !has_doubts;
        if intake.order.look(&account, is_steady) {
            self.pass_on_collected(intake);
            return Ok(true);
        }
        let wanted = intake.order.wanted(&account);
        if wanted > 0 {
            self.ask(opened, intake, wanted).await?;
        }
        Ok(false)
    }

    /// Some was given back and is given again: what was given meanwhile is collected until then.
    pub(super) async fn await_released(&self) {
        if !self.is_ordered() {
            return;
        }
        let mut intake = self.intake.lock().await;
        let intake = &mut *intake;
        for (leased, _) in intake.waiting.drain(..) {
            let sequence = leased.entry.cursor;
            intake.order.collected.insert(sequence, leased);
        }
        intake.order.lose(Duration::ZERO);
    }

    fn pass_on_collected(&self, intake: &mut Intake) {
        for leased in std::mem::take(&mut intake.order.collected).into_values() {
            if let Some(held) = self.held(leased.lease) {
                intake.waiting.push_back((leased, held.since));
            }
        }
    }

    /// What was collected must not run out while it waits.
    async fn renew_collected(&self, intake: &Intake) -> Result<(), LogError> {
        let age = self.lease_time() / 4;
        for leased in intake.order.collected.values() {
            if let Some(held) = self.held(leased.lease)
                && held.since.elapsed() > age
            {
                self.say(held.reply, b"+WPI").await?;
                self.kept(leased.lease);
            }
        }
        Ok(())
    }

    /// Somebody else gets deliveries: what was collected is theirs.
    async fn give_up_collected(&self, intake: &mut Intake) -> Result<(), LogError> {
        intake.order.lose(self.lease_time());
        let mut replies = Vec::new();
        // All are forgotten before anything is waited for: what is not said runs out.
        for leased in intake.order.unpinned().into_values() {
            replies.extend(self.held(leased.lease).map(|held| held.reply));
            self.forget(leased.lease);
        }
        for reply in replies {
            self.say(reply, b"-NAK").await?;
        }
        Ok(())
    }

    pub(super) async fn say(&self, reply: Subject, word: &'static [u8]) -> Result<(), LogError> {
        self.say_bytes(reply, Bytes::from_static(word)).await
    }

    pub(super) async fn say_bytes(&self, reply: Subject, word: Bytes) -> Result<(), LogError> {
        let client = self.link.client();
        let sent = client.publish(reply, word);
        sent.await.map_err(|error| self.link.failed(&error))
    }

    /// Leases that are there and have not run out meanwhile.
    fn take(&self, intake: &mut Intake, limit: usize) -> Vec<Leased> {
        let lease = self.lease_time();
        let mut leased = Vec::new();
        while leased.len() < limit
            && let Some((entry, since)) = intake.waiting.pop_front()
        {
            if since.elapsed() < lease / 2 {
                self.hand_over(entry.lease, true);
                leased.push(entry);
                continue;
            }
            self.forget(entry.lease);
            if self.is_ordered() {
                // It comes again; what is behind it must not come first.
                for (entry, _) in intake.waiting.drain(..) {
                    self.forget(entry.lease);
                }
                intake.order.lose(lease);
            }
        }
        leased
    }

    async fn replies<'a>(&self, intake: &'a mut Intake) -> Result<&'a mut Subscriber, LogError> {
        let replies = match intake.replies.take() {
            Some(replies) => replies,
            None => {
                intake.line = self.link.newest();
                let replies = self.link.client().subscribe(intake.inbox.clone()).await;
                replies.map_err(|error| self.link.failed(&error))?
            }
        };
        Ok(intake.replies.insert(replies))
    }

    async fn ask(
        &self,
        opened: &Opened,
        intake: &mut Intake,
        limit: usize,
    ) -> Result<(), LogError> {
        let failed = |error: &dyn std::fmt::Display| self.link.failed(error);
        let now = Instant::now();
        if intake.expected > 0 && now < intake.until && intake.replies.is_some() {
            return Ok(());
        }
        if intake.line != self.link.newest() {
            // Nothing is awaited over the connection before.
            intake.replies = None;
        }
        self.replies(intake).await?;
        let client = self.link.client();
        let is_ordered = self.is_ordered();
        let request = Request {
            batch: limit.min(PULLED_AT_ONCE),
            max_bytes: PULL_BYTES.max(2 * client.max_payload()),
            expires: EXPIRES.as_nanos(),
            puller: is_ordered.then(|| intake.order.puller()),
        };
        let consumer = name(&self.group.borrow().name);
        let subject = format!("$JS.API.CONSUMER.MSG.NEXT.{}.{consumer}", opened.name);
        let payload = serde_json::to_vec(&request).map_err(|error| failed(&error))?;
        let sent = client.publish_with_reply(subject, intake.inbox.clone(), payload.into());
        sent.await.map_err(|error| failed(&error))?;
        intake.expected = request.batch;
        intake.until = now + EXPIRES + GRACE;
        intake.order.asked(self.lease_time());
        Ok(())
    }

    /// Takes in a message and those that have come with it.
    async fn receive(
        &self,
        opened: &Opened,
        intake: &mut Intake,
        message: async_nats::Message,
    ) -> Result<(), LogError> {
        let mut messages = vec![message];
        if let Some(replies) = &mut intake.replies {
            while messages.len() < PULLED_AT_ONCE
                && let Some(Some(another)) = replies.next().now_or_never()
            {
                messages.push(another);
            }
        }
        // Deliveries are kept before anything is waited for.
        let (statuses, deliveries): (Vec<_>, Vec<_>) = messages
            .into_iter()
            .partition(|message| message.status.is_some());
        intake.expected = intake.expected.saturating_sub(deliveries.len());
        for headers in deliveries.iter().filter_map(|found| found.headers.as_ref()) {
            intake.order.pinned(headers);
        }
        intake.raw.extend(deliveries);
        for message in statuses {
            let Some(status) = message.status else {
                continue;
            };
            match status.as_u16() {
                100 | 200 => {}
                // The request has ended, in whatever way; a group that is gone says so when it is asked again.
                404 | 408 => intake.expected = 0,
                423 => {
                    intake.expected = 0;
                    self.give_up_collected(intake).await?;
                }
                503 => {
                    intake.expected = 0;
                    let group = self.group.borrow().name.clone();
                    if spec(&self.link, opened, &group).await?.is_none() {
                        return Err(LogError::NotFound("the group is gone".into()));
                    }
                    return Err(self.link.failed(&"the group's consumer has no leader"));
                }
                code => {
                    intake.expected = 0;
                    let text = message.description.unwrap_or_default();
                    if text.contains("Deleted") {
                        return Err(LogError::NotFound("the group is gone".into()));
                    }
                    tracing::debug!("a request of a queue group ended: {code} {text}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
        Ok(())
    }

    /// Leases deliveries that have come. Dropped in the midst, it begins anew with the same ones.
    async fn lease(&self, opened: &Opened, intake: &mut Intake) -> Result<(), LogError> {
        let raw = intake.raw.iter().take(AT_ONCE);
        let looked = join_all(raw.map(|message| self.look(opened, message))).await;
        let (is_ordered, lease_time) = (self.is_ordered(), self.lease_time());
        if !is_ordered {
            intake.order.lose(lease_time);
            self.pass_on_collected(intake);
        }
        for looked in looked {
            let (number, delivery) = looked?;
            intake.raw.pop_front();
            if let Some((number, times)) = number
                && is_ordered
            {
                intake.order.came(number, times, lease_time);
            }
            let Delivery::Entry(entry, held) = delivery else {
                continue;
            };
            // The same entry may have come twice before it was looked at, and have been settled meanwhile.
            if self.renew(held.sequence, &held.reply) {
                continue;
            }
            if self.recall.borrow().is_done(held.sequence) {
                self.say(held.reply, b"+ACK").await?;
                continue;
            }
            let (failures, since, sequence) = (held.failures.clone(), held.since, held.sequence);
            let leased = Leased {
                lease: self.hold(held),
                entry,
                failures,
                was_delayed: false,
            };
            if is_ordered && !intake.order.is_known() {
                intake.order.collected.insert(sequence, leased);
            } else {
                intake.waiting.push_back((leased, since));
            }
        }
        Ok(())
    }

    /// What a delivery is, its number and how often its entry was given.
    async fn look(
        &self,
        opened: &Opened,
        message: &async_nats::Message,
    ) -> Result<(Option<(u64, i64)>, Delivery), LogError> {
        let message = Message {
            message: message.clone(),
            context: self.link.js(),
        };
        // What has no place in the stream is no delivery.
        let (Some(reply), Ok(info)) = (message.reply.clone(), message.info()) else {
            return Ok((None, Delivery::Settled));
        };
        let (sequence, times) = (info.stream_sequence, info.delivered);
        let number = Some((info.consumer_sequence, times));
        let headers = message.headers.clone().unwrap_or_default();
        let payload = message.payload.clone();
        let subjects = &self.link.subjects;
        let content = message::decode(subjects, &message.subject, sequence, &headers, payload);
        let word: &'static [u8] = match content {
            Some(Content::Entry(entry))
                if self.takes(opened, entry.record.channel.whole()).await? =>
            {
                let is_repeated = self.recall.borrow_mut().is_repeated(sequence, times);
                if self.recall.borrow().is_done(sequence) {
                    b"+ACK"
                } else if self.renew(sequence, &reply) {
                    b"+WPI"
                } else {
                    let failures = if is_repeated {
                        self.history(opened, sequence).await?
                    } else {
                        Vec::new()
                    };
                    let held = Held {
                        sequence,
                        reply,
                        failures,
                        since: Instant::now(),
                        is_out: false,
                        spoken: Instant::now(),
                        is_suspect: false,
                        is_in_doubt: false,
                    };
                    return Ok((number, Delivery::Entry(Arc::from(entry), held)));
                }
            }
            _ => b"+ACK",
        };
        self.say(reply, word).await?;
        Ok((number, Delivery::Settled))
    }

    /// Does the group take from this channel? Another process may have changed it.
    async fn takes(&self, opened: &Opened, channel: &str) -> Result<bool, LogError> {
        let matches = |group: &Group| {
            channel == own_channel(&group.name) || subject::matches(&group.channels, channel)
        };
        if matches(&self.group.borrow()) {
            return Ok(true);
        }
        let group = self.group.borrow().name.clone();
        let Some(newest) = spec(&self.link, opened, &group).await? else {
            return Err(LogError::NotFound("the group is gone".into()));
        };
        let takes = matches(&newest);
        *self.group.borrow_mut() = newest;
        Ok(takes)
    }

    async fn history(&self, opened: &Opened, sequence: u64) -> Result<Vec<Failure>, LogError> {
        let key = history_key(&self.group.borrow().name, sequence);
        let value = opened.failures.get(key).await;
        match value.map_err(|error| self.link.failed(&error))? {
            Some(value) => serde_json::from_slice(&value).map_err(|error| self.link.failed(&error)),
            None => Ok(Vec::new()),
        }
    }

    /// A delivery of what is leased here already: its lease goes on under the new one. `false`: it is not, or nobody knows of it.
    fn renew(&self, sequence: u64, reply: &Subject) -> bool {
        let lease_time = self.lease_time();
        let mut leases = self.leases.borrow_mut();
        let leases = &mut *leases;
        let Some(&lease) = leases.by_sequence.get(&sequence) else {
            return false;
        };
        let Some(held) = leases.held.get_mut(&lease) else {
            return false;
        };
        let has_run_out = held.since.elapsed() >= lease_time / 2;
        if held.is_out && has_run_out && held.spoken.elapsed() >= lease_time {
            // Once it may be that this process stood still, and the word is on its way.
            if std::mem::replace(&mut held.is_suspect, true) {
                leases.held.remove(&lease);
                leases.by_sequence.remove(&sequence);
                self.counts.orphaned.set(self.counts.orphaned.get() + 1);
                let group = self.group.borrow();
                tracing::warn!(
                    group = &*group.name,
                    sequence,
                    "nobody knows of a lease of a queue group: its entry is given again"
                );
                return false;
            }
        }
        held.reply = reply.clone();
        held.since = Instant::now();
        true
    }

    fn hold(&self, held: Held) -> Lease {
        let lease_time = self.group.borrow().lease;
        let mut leases = self.leases.borrow_mut();
        let leases = &mut *leases;
        if leases.held.len() >= LEASES_KEPT {
            leases
                .held
                .retain(|_, held| held.since.elapsed() < lease_time);
            let held = &leases.held;
            leases
                .by_sequence
                .retain(|_, lease| held.contains_key(lease));
        }
        let number = self.counts.leases.get() + 1;
        self.counts.leases.set(number);
        let lease = Lease(number);
        leases.by_sequence.insert(held.sequence, lease);
        leases.held.insert(lease, held);
        lease
    }
}
