//! The bridge between the shards and the durable log: one thread with a runtime of its own.
//!
//! It takes what the shards have asked, appends in batches as large as what waits (so that a single publisher waits for
//! nobody), and gives every shard what comes of it. What was stored goes to the owners of its channels out of the
//! log's tail, never from the append itself. Where a shard does not take what is for it, the bridge keeps it, stops
//! reading the tail and takes no new requests until there is room.

mod appends;
mod breaker;
mod outlet;
mod thread;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tracing::{info, warn};

use super::bell::Bell;
use super::desk::settings::is_own;
use super::desk::{Desk, GroupReport, Pushed};
use super::log::{Census, Copies, Entries, Forgotten, Found, Letters, Log, Status, Values, Wanted};
use super::schema::Schemas;
use super::sources::{SourceReport, Sources};
use crate::config::Config;
use crate::config::namespace::is_of_letters;
use crate::limits::{LOG_ANSWERS_KEPT_MAX, LOG_APPENDS_WAITING_MAX};
use crate::mesh::durable::{
    Appended, Ask, Caller, FromLog, LogError, LogMethod, Page, Read, RequestId, STORED_PER_MESSAGE,
    ToLog,
};
use crate::model::{ChannelName, Draft, Entry, Publication, Record, ShardId};

use appends::{commit, watch_appends};
use breaker::Breaker;
use outlet::Counter;
pub use thread::{StartError, start};

/// Bytes of records in one batch.
const BYTES_PER_BATCH: usize = 8 << 20;
/// Requests taken from one shard at a time.
const REQUESTS_PER_SHARD: usize = 1024;
/// Reads of the log at a time.
const READS_AT_ONCE: usize = 64;
/// What finds a shard's queue full is offered again after this.
const OFFER_INTERVAL: Duration = Duration::from_millis(1);
/// When to come again where another copy is being made.
const COPY_PAUSE: Duration = Duration::from_secs(5);
/// A log that connects in the background is not called down before it has had so long.
const CONNECT_GRACE: Duration = Duration::from_secs(5);
/// A log that could not be asked for values is asked again after this.
const VALUES_AGAIN: Duration = Duration::from_millis(50);
/// How the log does is told this often.
const REPORT_INTERVAL: Duration = Duration::from_millis(500);

/// A shard as the bridge sees it.
pub struct ShardEnd {
    /// Its queues.
    pub link: crate::mesh::durable::DurableLink,
    /// Wakes it.
    pub bell: Arc<dyn crate::mesh::bell::Doorbell>,
}

/// What the bridge is made of.
pub struct Parts {
    /// The configuration in force.
    pub config: Arc<Config>,
    /// The shards, in the order of their ids.
    pub shards: Vec<ShardEnd>,
    /// Rung by the shards after a request.
    pub bell: Arc<Bell>,
    /// The shard that owns a channel.
    pub owner: fn(&ChannelName, u16) -> ShardId,
    /// The configuration after reloads.
    pub configs: watch::Receiver<Arc<Config>>,
    /// Questions of the admin listener.
    pub questions: mpsc::Receiver<Question>,
    /// Copies of the whole log that the admin listener wants.
    pub copies: mpsc::Receiver<CopyWanted>,
    /// What control keeps in the log, or looks up there.
    pub values: mpsc::Receiver<ValueAsk>,
    /// Hooks that are to be called.
    pub hooks: mpsc::Sender<HookCall>,
    /// Deliveries that are to be posted.
    pub pushes: mpsc::Sender<PushCall>,
}

/// Small values that control keeps.
pub enum ValueAsk {
    /// Keep this under a key, or forget it.
    Put {
        /// Its key.
        key: String,
        /// What is kept; `None` forgets.
        value: Option<Vec<u8>>,
        /// Told when it is stored.
        done: oneshot::Sender<Result<(), LogError>>,
    },
    /// All whose keys begin like this. A log that is not there yet is waited for.
    All {
        /// What the keys begin with.
        prefix: String,
        /// So long at most.
        patience: Duration,
        /// Keys and values, by key.
        answer: oneshot::Sender<Result<Found, LogError>>,
    },
}

/// A copy that the admin listener wants. One is made at a time.
pub struct CopyWanted {
    /// Of what.
    pub wanted: Wanted,
    /// Gets the stream of `upstream::copy`.
    pub out: mpsc::Sender<Bytes>,
    /// Gets how it ended, before `out` ends.
    pub done: oneshot::Sender<Result<(), LogError>>,
}

/// Control's end of the line.
pub struct Bridge {
    /// How the log does.
    pub report: watch::Receiver<Report>,
    /// Ends the bridge: everything that was settled is stored. Dropping it does the same.
    pub stop: oneshot::Sender<()>,
    /// The thread.
    pub thread: std::thread::JoinHandle<()>,
}

/// A question of the admin listener.
pub struct Question {
    /// What is asked.
    pub method: LogMethod,
    /// Whose groups, channels and letters are meant; empty for `default`.
    pub tenant: Box<str>,
    /// Parameters, JSON.
    pub data: Bytes,
    /// Gets the answer.
    pub answer: oneshot::Sender<Result<Bytes, LogError>>,
}

/// A hook that is to be called.
pub struct HookCall {
    /// Its name among the `proxies`.
    pub name: String,
    /// What is posted, JSON.
    pub body: Bytes,
    /// Gets the outcome.
    pub done: oneshot::Sender<Result<(), String>>,
}

/// Deliveries that are to be posted.
pub struct PushCall {
    /// Name of the target among the `proxies`.
    pub name: String,
    /// What is posted, JSON.
    pub body: Bytes,
    /// Gets the outcome.
    pub done: oneshot::Sender<Pushed>,
}

/// How the log and its groups do.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// The log.
    pub status: Status,
    /// The groups.
    pub groups: Vec<GroupReport>,
    /// Dead letters.
    pub letters: Census,
    /// Dead letters that were forgotten because of their age or their number.
    pub letters_expired: u64,
    /// Deliveries whose workers have gone before they were done with them.
    pub returned: u64,
    /// The sources.
    pub sources: Vec<SourceReport>,
    /// Batches appended.
    pub batches: u64,
    /// Appends in them.
    pub appends: u64,
    /// Time of the appends of all batches, nanoseconds.
    pub append_ns: u64,
    /// Publications refused by a schema.
    pub schema_refused: u64,
    /// Whether appends go to the log: `closed`, `half-open` or `open`; empty before the log was looked at.
    pub breaker: &'static str,
    /// How often the breaker opened.
    pub breaker_opened: u64,
    /// Appends that were refused because it was open.
    pub breaker_refused: u64,
}

/// Whose append it is.
enum Whose {
    Shard(ShardId, RequestId),
    /// The desk's own.
    Desk(oneshot::Sender<Result<Appended, LogError>>),
}

/// What waits for a shard beyond its queue.
struct Down {
    end: ShardEnd,
    kept: RefCell<VecDeque<FromLog>>,
    rung: Cell<bool>,
    /// Deliveries that go out with the next flush.
    deliveries: RefCell<Vec<(crate::model::ConnId, Bytes)>>,
}

/// What the bridge's tasks share. They run on one thread and hold nothing across an await.
struct Shared {
    down: Vec<Down>,
    waiting: RefCell<VecDeque<(Whose, Draft)>>,
    /// Something waits to be appended.
    waits: Notify,
    /// Deliveries wait to go out.
    flush_soon: Notify,
    owner: fn(&ChannelName, u16) -> ShardId,
    config: RefCell<Arc<Config>>,
    schemas: RefCell<Schemas>,
    counter: Counter,
    breaker: RefCell<Breaker>,
    /// A batch has gone to the log, or has come back.
    appends_moved: Notify,
    reads: Rc<tokio::sync::Semaphore>,
    questions: RefCell<outlet::Questions>,
    hooks: mpsc::Sender<HookCall>,
    pushes: mpsc::Sender<PushCall>,
}

impl Shared {
    /// Gives a shard a message, behind those that wait.
    fn send(&self, shard: ShardId, message: FromLog) {
        let Some(down) = self.down.get(usize::from(shard.0)) else {
            return;
        };
        let mut kept = down.kept.borrow_mut();
        if !kept.is_empty() {
            kept.push_back(message);
        } else if let Err(message) = down.end.link.answers.push(message) {
            kept.push_back(message);
        }
        down.rung.set(true);
    }

    /// Offers again what found a queue full, and wakes whoever got something.
    fn flush(&self) {
        for (shard, down) in self.down.iter().enumerate() {
            let deliveries = down.deliveries.take();
            if !deliveries.is_empty() {
                self.send(ShardId(shard as u16), FromLog::Deliver(deliveries));
            }
            let mut kept = down.kept.borrow_mut();
            while let Some(message) = kept.pop_front() {
                if let Err(message) = down.end.link.answers.push(message) {
                    kept.push_front(message);
                    break;
                }
            }
            if down.rung.take() {
                down.end.bell.ring();
            }
        }
    }

    fn keeps(&self) -> bool {
        self.down
            .iter()
            .any(|down| !down.kept.borrow().is_empty() || !down.deliveries.borrow().is_empty())
    }

    fn is_full(&self) -> bool {
        self.down
            .iter()
            .any(|down| down.kept.borrow().len() >= LOG_ANSWERS_KEPT_MAX)
            || self.waiting.borrow().len() >= LOG_APPENDS_WAITING_MAX
    }

    /// Gives a worker a delivery, together with those that come in the same step.
    fn deliver(&self, to: super::desk::WorkerId, delivery: Bytes) {
        let (shard, conn) = to;
        let Some(down) = self.down.get(usize::from(shard.0)) else {
            return;
        };
        down.deliveries.borrow_mut().push((conn, delivery));
    }

    /// Why a publication does not fit the schema of its namespace; `None` if it does.
    fn refused(&self, record: &Record) -> Option<LogError> {
        let error = self.schemas.borrow().check(record).err()?;
        let refused = &self.counter.schema_refused;
        refused.set(refused.get() + 1);
        Some(error)
    }

    /// Why a publication of anybody else is not taken in.
    fn refused_of_others(&self, record: &Record) -> Option<LogError> {
        if is_of_letters(record.channel.whole()) {
            let says = "only dead letters are announced on this channel";
            return Some(LogError::Refused(says.into()));
        }
        self.refused(record)
    }

    /// Why a publication of the desk is not taken in. It was made for another channel, or under other rules: its payload must fit
    /// the namespace that it goes to like anything else. What goes to the queue of a group is in no namespace.
    fn refused_of_desk(&self, record: &Record) -> Option<LogError> {
        let config = self.config.borrow();
        let name = record.channel.whole();
        if !is_own(name)
            && let Ok(namespace) = config.channels.resolve_of(&record.channel)
            && let Err(unfit) = config.check_payload(namespace, &record.data, record.json)
        {
            let says = format!("namespace `{}`: data: {unfit}", namespace.name);
            return Some(LogError::Refused(says.into()));
        }
        self.refused(record)
    }

    /// The next batch: what waits, at most `most`.
    fn batch(&self, most: usize) -> (Vec<Whose>, Vec<Draft>) {
        let mut waiting = self.waiting.borrow_mut();
        let about = waiting.len().min(most);
        let mut whose = Vec::with_capacity(about);
        let mut batch = Vec::with_capacity(about);
        let mut bytes = 0;
        while batch.len() < most && bytes < BYTES_PER_BATCH {
            let Some((one, draft)) = waiting.pop_front() else {
                break;
            };
            bytes += draft.record.bytes();
            whose.push(one);
            batch.push(draft);
        }
        (whose, batch)
    }

    /// Tells everybody what came of a batch.
    fn tell(&self, whose: Vec<Whose>, results: Vec<Result<Appended, LogError>>) {
        let mut of_shard: Vec<Vec<(RequestId, Result<Appended, LogError>)>> =
            self.down.iter().map(|_| Vec::new()).collect();
        for (whose, result) in whose.into_iter().zip(results) {
            match whose {
                Whose::Shard(shard, id) => of_shard[usize::from(shard.0)].push((id, result)),
                // The desk may have stopped waiting.
                Whose::Desk(sender) => drop(sender.send(result)),
            }
        }
        for (shard, results) in of_shard.into_iter().enumerate() {
            if !results.is_empty() {
                self.send(ShardId(shard as u16), FromLog::Appended(results));
            }
        }
    }

    /// Gives the owners what was stored, in order.
    fn spread(&self, entries: &[Arc<Entry>]) {
        let shards = self.down.len() as u16;
        let mut of_shard: Vec<Vec<(ChannelName, Arc<Publication>)>> =
            self.down.iter().map(|_| Vec::new()).collect();
        for entry in entries {
            let channel = &entry.record.channel;
            let owner = (self.owner)(channel, shards);
            let list = &mut of_shard[usize::from(owner.0)];
            list.push((channel.clone(), Arc::new(publication(entry))));
            if list.len() == STORED_PER_MESSAGE {
                self.send(owner, FromLog::Stored(std::mem::take(list)));
            }
        }
        for (shard, list) in of_shard.into_iter().enumerate() {
            if !list.is_empty() {
                self.send(ShardId(shard as u16), FromLog::Stored(list));
            }
        }
    }
}

impl Shared {
    /// Tells the owners which publications are not kept any more.
    fn spread_forgotten(&self, forgotten: Vec<(ChannelName, Forgotten)>) {
        let shards = self.down.len() as u16;
        for (channel, what) in forgotten {
            let owner = (self.owner)(&channel, shards);
            let told = match what {
                Forgotten::Before(first) => FromLog::Begins(channel, first),
                Forgotten::Some(offsets) => FromLog::Ended(channel, offsets),
            };
            self.send(owner, told);
        }
    }
}

/// A stored publication as subscribers get it. What its namespace says of it, its owner adds.
fn publication(entry: &Entry) -> Publication {
    let record = &entry.record;
    Publication {
        offset: entry.position.offset,
        epoch: entry.position.epoch,
        data: record.data.clone(),
        json: record.json,
        info: record.publisher.clone(),
        tags: record.tags.clone(),
        unix_ms: record.unix_ms,
        tells_time: false,
        patch: None,
        delta: record.delta,
    }
}

/// Runs until it is told to stop.
async fn run<L: Log>(
    log: L,
    parts: Parts,
    report: watch::Sender<Report>,
    stop: oneshot::Receiver<()>,
) {
    let Parts {
        config,
        shards,
        bell,
        owner,
        mut configs,
        mut questions,
        mut copies,
        mut values,
        hooks,
        pushes,
    } = parts;
    log.reload(&config);
    let log = Rc::new(log);
    let schemas = compiled(&*log, &config).await;
    let down = shards.into_iter().map(|end| Down {
        end,
        kept: RefCell::default(),
        rung: Cell::new(false),
        deliveries: RefCell::default(),
    });
    let shared = Rc::new(Shared {
        down: down.collect(),
        waiting: RefCell::default(),
        waits: Notify::new(),
        flush_soon: Notify::new(),
        owner,
        config: RefCell::new(Arc::clone(&config)),
        schemas: RefCell::new(schemas),
        counter: Counter::default(),
        breaker: RefCell::default(),
        appends_moved: Notify::new(),
        reads: Rc::new(tokio::sync::Semaphore::new(READS_AT_ONCE)),
        questions: RefCell::default(),
        hooks,
        pushes,
    });
    let outlet = Rc::new(outlet::Line(Rc::clone(&shared)));
    let desk = Rc::new(Desk::new(Rc::clone(&log), Rc::clone(&outlet), &config));
    let sources = Rc::new(Sources::new(Rc::clone(&log), outlet, &config));
    for _ in 0..L::APPENDS_AT_ONCE {
        tokio::task::spawn_local(commit(Rc::clone(&log), Rc::clone(&shared)));
    }
    tokio::task::spawn_local(follow(
        Rc::clone(&log),
        Rc::clone(&shared),
        Rc::clone(&desk),
    ));
    tokio::task::spawn_local(watch_appends(Rc::clone(&log), Rc::clone(&shared)));
    let observing = tokio::task::spawn_local(observe(
        Rc::clone(&log),
        Rc::clone(&desk),
        Rc::clone(&sources),
        Rc::clone(&shared),
        report,
    ));
    let copying = Rc::new(Cell::new(false));
    let mut stop = std::pin::pin!(stop);
    loop {
        // Whoever knows of a reload and asks then is answered by its rules.
        if configs.has_changed().unwrap_or(false) {
            let config = Arc::clone(&configs.borrow_and_update());
            let schemas = compiled(&*log, &config).await;
            shared.schemas.replace(schemas);
            shared.config.replace(Arc::clone(&config));
            desk.reload(&config);
            sources.reload(&config);
            log.reload(&config);
        }
        if !shared.is_full() && take(&log, &desk, &shared) {
            // There may be more; the others get their turn first.
            bell_again(&bell);
        }
        shared.flush();
        tokio::select! {
            biased;
            _ = &mut stop => break,
            () = bell.rung() => {}
            () = shared.flush_soon.notified() => {}
            Some(question) = questions.recv() => {
                let asker = shared.questions.borrow_mut().add(question.answer);
                if let Some(asker) = asker {
                    let Question { method, tenant, data, .. } = question;
                    let ask = Ask { method, tenant, data, caller: Caller::Service };
                    desk.ask(asker, ask);
                }
            }
            Some(asked) = copies.recv() => {
                if copying.get() {
                    drop(asked.done.send(Err(LogError::Busy { retry_after: COPY_PAUSE })));
                } else {
                    tokio::task::spawn_local(copy(Rc::clone(&log), asked, Rc::clone(&copying)));
                }
            }
            Some(asked) = values.recv() => {
                tokio::task::spawn_local(keep(Rc::clone(&log), asked));
            }
            Ok(()) = configs.changed() => configs.mark_changed(),
            () = tokio::time::sleep(OFFER_INTERVAL), if shared.keeps() || shared.is_full() => {}
        }
        // Tasks that were woken by what came run before the next look.
        tokio::task::yield_now().await;
    }
    sources.close().await;
    // A log that is closed is not down.
    observing.abort();
    desk.close().await;
    log.close().await;
    info!("the durable log is closed");
}

/// Copies the log for whoever asked.
async fn copy(log: Rc<impl Copies>, asked: CopyWanted, copying: Rc<Cell<bool>>) {
    copying.set(true);
    let CopyWanted { wanted, out, done } = asked;
    let is_over = out.clone();
    let outcome = log.copy(wanted, out).await;
    copying.set(false);
    // Whoever reads to the end of the stream finds out how it ended.
    let _ = done.send(outcome);
    drop(is_over);
}

/// Keeps a value, or looks values up.
async fn keep(log: Rc<impl Values>, asked: ValueAsk) {
    match asked {
        ValueAsk::Put { key, value, done } => {
            // Whoever asked may have gone.
            drop(done.send(log.put(&key, value.as_deref()).await));
        }
        ValueAsk::All {
            prefix,
            patience,
            answer,
        } => {
            let began = outlet::clock();
            let found = loop {
                match log.all(&prefix).await {
                    Err(_) if began.elapsed() < patience => {
                        tokio::time::sleep(VALUES_AGAIN).await;
                    }
                    found => break found,
                }
            };
            drop(answer.send(found));
        }
    }
}

fn bell_again(bell: &Bell) {
    use crate::mesh::bell::Doorbell as _;
    bell.ring();
}

/// The schemas in force. What cannot be read or does not fit the past is told, and the namespace refuses publications.
async fn compiled(log: &impl Values, config: &Config) -> Schemas {
    let (schemas, errors) = Schemas::load(log, config).await;
    for error in errors {
        warn!(%error, "the namespace refuses publications");
    }
    schemas
}

/// Takes what the shards have asked. `true` if some queue may hold more.
fn take<L: Log>(log: &Rc<L>, desk: &Rc<Desk<L, outlet::Line>>, shared: &Rc<Shared>) -> bool {
    let mut more = false;
    let mut any = false;
    for (shard, down) in shared.down.iter().enumerate() {
        let shard = ShardId(shard as u16);
        for count in 0..=REQUESTS_PER_SHARD {
            if count == REQUESTS_PER_SHARD {
                more = true;
                break;
            }
            let Some(request) = down.end.link.requests.pop() else {
                break;
            };
            match request {
                ToLog::Append(id, draft) => {
                    let refused = shared.refused_of_others(&draft.record);
                    let held_back = || desk.hold_back(&draft.record);
                    let refused = refused.or_else(|| shared.refused_for_now(1));
                    if let Some(error) = refused.or_else(held_back) {
                        shared.send(shard, FromLog::Appended(vec![(id, Err(error))]));
                        continue;
                    }
                    any = true;
                    let whose = Whose::Shard(shard, id);
                    shared.waiting.borrow_mut().push_back((whose, *draft));
                }
                ToLog::Read(id, read) => {
                    tokio::task::spawn_local(read_for(
                        Rc::clone(log),
                        Rc::clone(shared),
                        shard,
                        id,
                        read,
                    ));
                }
                ToLog::Trim(id, channel) => {
                    let (log, shared) = (Rc::clone(log), Rc::clone(shared));
                    tokio::task::spawn_local(async move {
                        let result = log.trim(&channel).await;
                        let result = result.map(|()| Bytes::from_static(b"{}"));
                        shared.send(shard, FromLog::Answered(id, result));
                        shared.flush();
                    });
                }
                ToLog::Ask(id, ask) => desk.ask((shard, id), *ask),
                ToLog::Gone(conn) => desk.gone((shard, conn)),
                ToLog::Abandoned(id) => desk.abandoned((shard, id)),
                ToLog::Taken(id) => desk.taken((shard, id)),
                ToLog::Hurry => desk.hurry(shard),
            }
        }
    }
    if any {
        shared.waits.notify_one();
    }
    more
}

/// Gives the owners of channels what is stored.
async fn follow<L: Entries>(log: Rc<L>, shared: Rc<Shared>, desk: Rc<Desk<L, outlet::Line>>) {
    loop {
        match log.tail().await {
            Ok(entries) => {
                shared.spread(&entries);
                desk.stored(&entries);
                shared.spread_forgotten(log.take_forgotten());
            }
            Err(error) => {
                warn!(%error, "the durable log lost its place: channels in use are read again");
                for shard in 0..shared.down.len() as u16 {
                    shared.send(ShardId(shard), FromLog::Restarted);
                }
            }
        }
        shared.flush();
        while shared.is_full() {
            tokio::time::sleep(OFFER_INTERVAL).await;
            shared.flush();
        }
        tokio::task::yield_now().await;
    }
}

async fn read_for<L: Entries>(
    log: Rc<L>,
    shared: Rc<Shared>,
    shard: ShardId,
    id: RequestId,
    read: Read,
) {
    let reads = Rc::clone(&shared.reads);
    let permit = reads.acquire().await;
    let result = log.read(&read).await;
    drop(permit);
    let message = match result {
        Ok(slice) => {
            let page = Page {
                channel: read.channel,
                position: slice.position,
                after: read.after,
                span: slice.span,
                publications: slice
                    .entries
                    .iter()
                    .map(|entry| Arc::new(publication(entry)))
                    .collect(),
            };
            Ok(Box::new(page))
        }
        Err(error) => Err((read.channel, error)),
    };
    shared.send(shard, FromLog::Page(id, message));
    shared.flush();
}

/// Tells control how the log does.
async fn observe<L: Entries + Letters>(
    log: Rc<L>,
    desk: Rc<Desk<L, outlet::Line>>,
    sources: Rc<Sources<L, outlet::Line>>,
    shared: Rc<Shared>,
    report: watch::Sender<Report>,
) {
    let mut was_down: Option<Box<str>> = None;
    let began = outlet::clock();
    let mut was_up = false;
    loop {
        let status = log.status();
        was_up |= status.down.is_none();
        let is_told = was_up || began.elapsed() >= CONNECT_GRACE;
        if status.down != was_down && is_told {
            match &status.down {
                Some(reason) => {
                    warn!(%reason, "the durable log is down: durable publications are refused")
                }
                None => info!("the durable log is up again"),
            }
            was_down.clone_from(&status.down);
        }
        let mut status = status;
        status.warnings.extend(desk.warnings());
        let (letters, letters_expired) = desk.letters();
        status.warnings.extend(sources.warnings());
        report.send_replace(Report {
            status,
            groups: desk.report(),
            letters,
            letters_expired,
            returned: desk.returned(),
            sources: sources.report(),
            ..shared.counter.report(&shared.breaker.borrow())
        });
        tokio::time::sleep(REPORT_INTERVAL).await;
    }
}

#[cfg(test)]
mod tests;
