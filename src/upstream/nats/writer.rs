//! Appends: what is queued for many channels goes out in runs and batches, and no channel is in two of them at once.
//!
//! One task owns all that is known about the channels' ends. What is next in a channel goes out with the condition that its
//! subject still ends where this process knows it to end, and each message behind it only directly behind the one before
//! (`batch`): so no offset is given twice or left out, whoever else writes, and a channel has many appends under way.
//! After a conflict the end is read again: appends of a channel that has moved are refused (fenced), the others go again.
//! After an unknown outcome the end is read again before the channel's next append.

mod answers;
mod chunk;
mod keys;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::batch::{self, BYTES_PER_BATCH, MESSAGES_PER_BATCH, Message, Outcome, Unit};
use super::head::{self, Head};
use super::link::{Link, Opened, unavailable};
use super::tail::Own;
use crate::mesh::durable::{Appended, LogError};
use crate::model::{Draft, Entry};

use futures_util::FutureExt;

use answers::Answers;
use chunk::{Chunk, Item, Place, Verdict, What, begins_without_keys};
use keys::Keys;

pub(super) use chunk::key_hash;

/// Batches under way.
const BATCHES_AT_ONCE: usize = 4;
/// Messages of one run.
const MESSAGES_PER_RUN: usize = 512;
/// Messages under way; a server that has 10,000 waiting refuses more.
const MESSAGES_AT_ONCE: usize = 8192;
/// How long the mark of a key that was found is believed to be there.
const KEY_BELIEVED: Duration = Duration::from_secs(5);
/// Channels whose end is being read.
const LOADS_AT_ONCE: usize = 256;
/// Channels whose end is remembered; those that are not in use are forgotten.
const CHANNELS_KEPT: usize = 200_000;
/// Rounds for which the end of a channel is remembered at least.
const ROUNDS_KEPT: u64 = 64;
/// How often an append is tried while others interfere.
const TRIES: u8 = 3;
/// How often appends that wait are looked at.
const SWEEP_EVERY: Duration = Duration::from_millis(250);
/// Calls that may wait to be taken in.
const COMMANDS_QUEUED: usize = 64;

type Results = Vec<Result<Appended, LogError>>;

enum Command {
    Append(Vec<Draft>, oneshot::Sender<Results>),
    Trim(String, u64, oneshot::Sender<Results>),
}

/// To the task.
#[derive(Clone)]
pub(super) struct Writer {
    commands: mpsc::Sender<Command>,
}

impl Writer {
    /// Starts the task; it ends when the last `Writer` is gone. What it stores it says there.
    pub(super) fn spawn(link: Arc<Link>, own: mpsc::Sender<Own>) -> Self {
        let (commands, receiver) = mpsc::channel(COMMANDS_QUEUED);
        tokio::spawn(Writing::new(link, own).run(receiver));
        Self { commands }
    }

    /// Appends in this order: the batch is queued before this returns, unless very many are.
    pub(super) fn append(&self, batch: Vec<Draft>) -> impl Future<Output = Results> + use<> {
        let count = batch.len();
        let (sender, receiver) = oneshot::channel();
        let refused = self
            .commands
            .try_send(Command::Append(batch, sender))
            .is_err();
        async move {
            let busy = || LogError::Busy {
                retry_after: super::link::RETRY_AFTER,
            };
            if refused {
                return vec![Err(busy()); count];
            }
            match receiver.await {
                Ok(results) => results,
                Err(_) => vec![Err(unavailable("the log is closed")); count],
            }
        }
    }

    /// Empties a channel whose last message is this one; its position stays. `false` if more has come: then the channel is as it was.
    pub(super) async fn trim(&self, subject: String, last: u64) -> Result<bool, LogError> {
        let (sender, receiver) = oneshot::channel();
        let closed = || unavailable("the log is closed");
        let command = Command::Trim(subject, last, sender);
        self.commands.send(command).await.map_err(|_| closed())?;
        let results = receiver.await.map_err(|_| closed())?;
        let mut is_empty = false;
        for result in results {
            is_empty |= result?.is_new;
        }
        Ok(is_empty)
    }
}

/// A call and what of its answer is there.
struct Call {
    reply: oneshot::Sender<Results>,
    results: Vec<Option<Result<Appended, LogError>>>,
    left: usize,
}

#[derive(Default)]
struct Channel {
    /// `None` until it was read.
    head: Option<Head>,
    queue: VecDeque<Item>,
    /// In a batch, or being read.
    busy: bool,
    /// Stands in `ready` or in `unread`.
    listed: bool,
    /// Round in which it was last used.
    used: u64,
}

/// What waits for an answer.
struct Flight {
    chunks: Vec<Chunk>,
    messages: usize,
    is_batch: bool,
    until: Instant,
    /// A place of the stream that was taken before it went out.
    after: u64,
}

/// What a task of the writer has done.
enum Done {
    Loaded(Box<str>, Result<Head, LogError>),
    Looked(Vec<(Chunk, Result<Verdict, LogError>)>),
}

/// A batch that is being filled.
#[derive(Default)]
struct Batch {
    chunks: Vec<Chunk>,
    messages: Vec<Message>,
    bytes: usize,
}

impl Batch {
    fn room(&self) -> (usize, usize) {
        let messages = MESSAGES_PER_BATCH - self.messages.len();
        (messages, BYTES_PER_BATCH.saturating_sub(self.bytes))
    }
}

struct Writing {
    link: Arc<Link>,
    opened: Option<Arc<Opened>>,
    calls: HashMap<u64, Call>,
    next_call: u64,
    channels: HashMap<Box<str>, Channel>,
    /// Keys that were seen lately.
    keys: Keys,
    /// Channels with a known end and something queued.
    ready: VecDeque<Box<str>>,
    /// Channels whose end must be read.
    unread: VecDeque<Box<str>>,
    tasks: JoinSet<Done>,
    /// Who follows the log learns there what was stored.
    own: mpsc::Sender<Own>,
    units: mpsc::UnboundedSender<Unit>,
    /// Where answers come.
    inbox: String,
    flights: BTreeMap<u64, Flight>,
    next_flight: u64,
    /// Of the flights.
    messages: usize,
    batches: usize,
    loads: usize,
    round: u64,
}

impl Writing {
    fn new(link: Arc<Link>, own: mpsc::Sender<Own>) -> Self {
        // As long as `MESSAGES_AT_ONCE` lets it grow.
        let (units, waiting) = mpsc::unbounded_channel();
        tokio::spawn(batch::send(link.clone(), waiting));
        Self {
            own,
            units,
            inbox: link.client().new_inbox(),
            flights: BTreeMap::new(),
            next_flight: 0,
            messages: 0,
            link,
            opened: None,
            calls: HashMap::new(),
            next_call: 0,
            channels: HashMap::new(),
            keys: Keys::default(),
            ready: VecDeque::new(),
            unread: VecDeque::new(),
            tasks: JoinSet::new(),
            batches: 0,
            loads: 0,
            round: 0,
        }
    }

    async fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        let mut sweep = tokio::time::interval(SWEEP_EVERY);
        sweep.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let Some(mut answers) = Answers::begin(&self.link, &self.inbox).await else {
            tracing::error!("durable log: the NATS client has ended");
            return;
        };
        let mut is_open = true;
        while is_open || !self.calls.is_empty() {
            answers.follow(&self.link, &self.inbox).await;
            tokio::select! {
                command = commands.recv(), if is_open => match command {
                    Some(command) => self.take(command),
                    None => is_open = false,
                },
                reply = answers.next() => self.answered(&reply),
                Some(done) = self.tasks.join_next() => {
                    // A task of the writer neither panics nor is it stopped.
                    if let Ok(done) = done {
                        self.done(done);
                    }
                }
                _ = sweep.tick() => self.sweep(),
            }
            self.take_more(&mut commands, &mut answers);
            self.launch();
        }
    }

    /// What has come meanwhile goes out together.
    fn take_more(&mut self, commands: &mut mpsc::Receiver<Command>, answers: &mut Answers) {
        while let Ok(command) = commands.try_recv() {
            self.take(command);
        }
        while let Some(reply) = answers.next().now_or_never() {
            self.answered(&reply);
        }
        while let Some(Ok(done)) = self.tasks.try_join_next() {
            self.done(done);
        }
    }

    /// The stream, if it can be written; another one than before has other channels.
    fn opened(&mut self) -> Result<Arc<Opened>, LogError> {
        let opened = self.link.opened()?;
        let is_known = |known: &Arc<Opened>| known.log == opened.log;
        if !self.opened.as_ref().is_some_and(is_known) {
            for channel in self.channels.values_mut() {
                channel.head = None;
            }
            self.keys = Keys::default();
        }
        self.opened = Some(opened.clone());
        Ok(opened)
    }

    fn take(&mut self, command: Command) {
        let call = self.next_call;
        self.next_call += 1;
        let (items, reply): (Vec<(String, What)>, _) = match command {
            Command::Append(batch, reply) => {
                let subject = |draft: &Draft| {
                    let record = &draft.record;
                    self.link.subjects.channel(record.channel.whole())
                };
                let item = |draft: Draft| {
                    let subject = subject(&draft);
                    let what = What::append(&subject, draft);
                    (subject, what)
                };
                (batch.into_iter().map(item).collect(), reply)
            }
            Command::Trim(subject, last, reply) => (vec![(subject, What::Trim { last })], reply),
        };
        if items.is_empty() {
            let _ = reply.send(Vec::new());
            return;
        }
        self.calls.insert(
            call,
            Call {
                reply,
                results: vec![None; items.len()],
                left: items.len(),
            },
        );
        let opened = self.opened().map(|_| ());
        let room = self.link.client().max_payload();
        let now = Instant::now();
        for (index, (subject, what)) in items.into_iter().enumerate() {
            let checked = opened.clone().and_then(|()| what.check(room));
            let item = Item {
                call,
                index,
                what,
                attempts: 0,
                since: now,
            };
            if let Err(error) = checked {
                self.answer(&item, Err(error));
                continue;
            }
            if let Some((position, event)) =
                item.what.key().and_then(|key| self.keys.find(key, now))
            {
                let appended = Appended {
                    position,
                    is_new: false,
                    event,
                    due_ms: 0,
                };
                self.answer(&item, Ok(appended));
                continue;
            }
            let subject = subject.into_boxed_str();
            let channel = self.channels.entry(subject.clone()).or_default();
            channel.queue.push_back(item);
            self.list(&subject);
        }
    }

    /// Puts a channel with something queued where `launch` finds it.
    fn list(&mut self, subject: &str) {
        let Some(channel) = self.channels.get_mut(subject) else {
            return;
        };
        if channel.busy || channel.listed || channel.queue.is_empty() {
            return;
        }
        channel.listed = true;
        if channel.head.is_some() {
            self.ready.push_back(subject.into());
        } else {
            self.unread.push_back(subject.into());
        }
    }

    fn answer(&mut self, item: &Item, result: Result<Appended, LogError>) {
        let Some(call) = self.calls.get_mut(&item.call) else {
            return;
        };
        if let Some(slot) = call.results.get_mut(item.index)
            && slot.is_none()
        {
            *slot = Some(result);
            call.left -= 1;
        }
        if call.left == 0
            && let Some(call) = self.calls.remove(&item.call)
        {
            let results = call.results.into_iter();
            let lost = || Err(unavailable("the append was lost"));
            let _ = call
                .reply
                .send(results.map(|result| result.unwrap_or_else(lost)).collect());
        }
    }

    fn launch(&mut self) {
        if self.ready.is_empty() && self.unread.is_empty() {
            return;
        }
        let Ok(opened) = self.opened() else {
            return;
        };
        while self.loads < LOADS_AT_ONCE
            && let Some(subject) = self.unread.pop_front()
        {
            self.load(&opened, subject);
        }
        let mut batch = Batch::default();
        let mut later = Vec::new();
        self.round += 1;
        while self.messages + batch.messages.len() < MESSAGES_AT_ONCE
            && let Some(subject) = self.ready.pop_front()
        {
            if !self.launch_one(&opened, &subject, &mut batch) {
                later.push(subject);
            }
        }
        self.send_batch(batch);
        self.ready.extend(later);
    }

    fn load(&mut self, opened: &Arc<Opened>, subject: Box<str>) {
        let Some(channel) = self.channels.get_mut(&subject) else {
            return;
        };
        channel.listed = false;
        channel.busy = true;
        self.loads += 1;
        let (link, opened) = (self.link.clone(), opened.clone());
        self.tasks.spawn(async move {
            let head = head::for_append(&link, &opened, &subject).await;
            Done::Loaded(subject, head)
        });
    }

    /// Sends what is next in a channel, or adds it to the batch; `false` if it must wait until a batch is over.
    fn launch_one(&mut self, opened: &Opened, subject: &str, batch: &mut Batch) -> bool {
        let Some(channel) = self.channels.get_mut(subject) else {
            return true;
        };
        channel.used = self.round;
        let is_run = begins_without_keys(&channel.queue);
        if !is_run && self.batches >= BATCHES_AT_ONCE {
            return false;
        }
        channel.listed = false;
        let Some(before) = channel.head.clone() else {
            self.list(subject);
            return true;
        };
        let room = if is_run {
            (MESSAGES_PER_RUN, BYTES_PER_BATCH)
        } else {
            batch.room()
        };
        let place = Place {
            subjects: &self.link.subjects,
            subject,
            before,
            log: opened.log,
            is_run,
        };
        let is_first = is_run || batch.messages.is_empty();
        let Some((chunk, messages)) = Chunk::take(place, &mut channel.queue, room, is_first) else {
            // It does not fit any more: the batch goes, and this is the first of the next one.
            let full = std::mem::take(batch);
            self.send_batch(full);
            self.list(subject);
            return true;
        };
        if messages.is_empty() {
            // All of it was settled without a message.
            self.settle(chunk, 0);
            return true;
        }
        channel.busy = true;
        if is_run {
            self.send(vec![chunk], messages, false);
        } else {
            batch.bytes += messages
                .iter()
                .map(|message| message.payload.len())
                .sum::<usize>();
            batch.messages.extend(messages);
            batch.chunks.push(chunk);
        }
        true
    }

    fn send_batch(&mut self, mut batch: Batch) {
        if !batch.messages.is_empty() {
            let name = format!("{}{:x}", self.link.process, self.next_flight);
            batch::seal(&mut batch.messages, &name);
            self.batches += 1;
            self.send(batch.chunks, batch.messages, true);
        }
    }

    fn send(&mut self, chunks: Vec<Chunk>, messages: Vec<Message>, is_batch: bool) {
        let number = self.next_flight;
        self.next_flight += 1;
        self.messages += messages.len();
        let until = Instant::now() + self.link.config.append_timeout;
        let flight = Flight {
            chunks,
            messages: messages.len(),
            is_batch,
            until,
            after: self.link.status.borrow().end,
        };
        self.flights.insert(number, flight);
        let reply = format!("{}.{number}", self.inbox);
        // The task that sends ends after this one.
        let _ = self.units.send(Unit {
            messages,
            reply,
            until,
        });
    }

    fn answered(&mut self, reply: &async_nats::Message) {
        let number = reply
            .subject
            .rsplit('.')
            .next()
            .and_then(|number| number.parse().ok());
        let Some(number) = number else {
            return;
        };
        let Some(flight) = self.flights.remove(&number) else {
            return;
        };
        self.landed(flight, batch::outcome(reply));
    }

    fn landed(&mut self, flight: Flight, outcome: Outcome) {
        self.messages -= flight.messages;
        if flight.is_batch {
            self.batches -= 1;
        }
        let first = |last: u64| (last + 1).saturating_sub(flight.messages as u64);
        let outcome = match outcome {
            // A stream that counts from the start again is not the one that was opened.
            Outcome::Stored(last) if first(last) <= flight.after => {
                self.link.suspect();
                Outcome::Unknown("the stream is not the one that was opened".to_owned())
            }
            outcome => outcome,
        };
        self.stored(flight.chunks, flight.messages, outcome);
    }

    fn done(&mut self, done: Done) {
        match done {
            Done::Loaded(subject, head) => {
                self.loads -= 1;
                self.loaded(&subject, head);
            }
            Done::Looked(chunks) => {
                for (chunk, verdict) in chunks {
                    self.looked(chunk, verdict);
                }
            }
        }
        if self.channels.len() > CHANNELS_KEPT {
            let old = self.round.saturating_sub(ROUNDS_KEPT);
            self.channels.retain(|_, channel| {
                channel.busy || channel.listed || !channel.queue.is_empty() || channel.used > old
            });
        }
    }

    fn loaded(&mut self, subject: &str, head: Result<Head, LogError>) {
        let Some(channel) = self.channels.get_mut(subject) else {
            return;
        };
        channel.busy = false;
        match head {
            Ok(head) => {
                channel.head = Some(head);
                channel.used = self.round;
                self.list(subject);
            }
            Err(error) => {
                let waiting = std::mem::take(&mut channel.queue);
                for item in waiting {
                    self.answer(&item, Err(error.clone()));
                }
            }
        }
    }

    fn stored(&mut self, chunks: Vec<Chunk>, count: usize, outcome: Outcome) {
        match outcome {
            Outcome::Stored(last) => {
                self.link.status.send_if_modified(|status| {
                    status.end = status.end.max(last);
                    false
                });
                let mut first = last + 1 - (count as u64).min(last);
                for chunk in chunks {
                    let next = first + chunk.messages as u64;
                    self.settle(chunk, first);
                    first = next;
                }
            }
            Outcome::Conflict => {
                let Some(opened) = self.opened.clone() else {
                    return self.give_up(chunks, "the stream is not open");
                };
                let link = self.link.clone();
                self.tasks.spawn(async move {
                    let mut looked = Vec::with_capacity(chunks.len());
                    for chunk in chunks {
                        let verdict = chunk.look(&link, &opened).await;
                        looked.push((chunk, verdict));
                    }
                    Done::Looked(looked)
                });
            }
            Outcome::Unknown(reason) => {
                let error = self.link.failed(&reason);
                let LogError::Unavailable { reason, .. } = error else {
                    return;
                };
                self.give_up(chunks, &reason);
            }
        }
    }

    /// A chunk is stored; its first message has this place.
    fn settle(&mut self, chunk: Chunk, first: u64) {
        let head = chunk.head(first);
        if let Some(channel) = self.channels.get_mut(&chunk.subject) {
            channel.busy = false;
            let is_current = self
                .opened
                .as_ref()
                .is_some_and(|opened| opened.log == chunk.log);
            channel.head = is_current.then_some(head);
        }
        let now = Instant::now();
        let mut entries = Vec::with_capacity(chunk.items.len());
        for (item, placed) in chunk.items {
            self.answer(&item, Ok(placed.appended()));
            let What::Append { draft, key } = item.what else {
                continue;
            };
            if let Some(key) = key
                && placed.is_new
            {
                let place = (placed.position, placed.event);
                self.keys.insert(key, place, now + draft.terms.key_ttl);
            }
            if let Some(at) = placed.at {
                entries.push(Arc::new(Entry {
                    cursor: first + at as u64,
                    position: placed.position,
                    record: draft.record,
                }));
            }
        }
        if chunk.messages > 0 {
            // Nobody follows any more where this fails.
            // What is too much is read from the stream.
            let _ = self.own.try_send(Own {
                log: chunk.log,
                first,
                last: first + chunk.messages as u64 - 1,
                entries,
            });
        }
        self.list(&chunk.subject);
    }

    fn give_up(&mut self, chunks: Vec<Chunk>, reason: &str) {
        for chunk in chunks {
            self.forget(&chunk.subject);
            for (item, _) in &chunk.items {
                self.answer(item, Err(unavailable(reason)));
            }
            self.list(&chunk.subject);
        }
    }

    /// The channel's end must be read again.
    fn forget(&mut self, subject: &str) {
        if let Some(channel) = self.channels.get_mut(subject) {
            channel.busy = false;
            channel.head = None;
        }
    }

    /// After a conflict.
    fn looked(&mut self, chunk: Chunk, verdict: Result<Verdict, LogError>) {
        self.forget(&chunk.subject);
        let again: Vec<Item> = match verdict {
            Err(error) => {
                for (item, _) in &chunk.items {
                    self.answer(item, Err(error.clone()));
                }
                Vec::new()
            }
            Ok(verdict) => self.judge(&chunk, verdict),
        };
        if let Some(channel) = self.channels.get_mut(&chunk.subject) {
            for item in again.into_iter().rev() {
                channel.queue.push_front(item);
            }
        }
        self.list(&chunk.subject);
    }

    /// Answers what can be answered and gives back what is to be tried again.
    fn judge(&mut self, chunk: &Chunk, verdict: Verdict) -> Vec<Item> {
        if let Some(channel) = self.channels.get_mut(&chunk.subject) {
            channel.head = verdict.head;
        }
        for (item, placed) in chunk.items.iter().take(verdict.stored) {
            self.answer(item, Ok(placed.appended()));
        }
        let mut again = Vec::new();
        let others = chunk.items.iter().skip(verdict.stored);
        for ((item, _), first) in others.zip(verdict.first) {
            // A beginning that was stored is progress.
            let attempts = if verdict.stored > 0 {
                0
            } else {
                item.attempts + 1
            };
            if let Some((position, event)) = first {
                if let Some(key) = item.what.key() {
                    self.keys
                        .insert(key.into(), (position, event), Instant::now() + KEY_BELIEVED);
                }
                let appended = Appended {
                    position,
                    is_new: false,
                    event,
                    due_ms: 0,
                };
                self.answer(item, Ok(appended));
            } else if verdict.is_fenced {
                self.answer(
                    item,
                    Err(unavailable("another process has written this channel")),
                );
            } else if attempts >= TRIES {
                self.answer(item, Err(unavailable("others write at the same time")));
            } else {
                again.push(Item {
                    attempts,
                    ..item.clone()
                });
            }
        }
        again
    }

    /// What has waited for too long, or waits for a log that is down, gets an error.
    fn sweep(&mut self) {
        if self.calls.is_empty() {
            return;
        }
        let now = Instant::now();
        while let Some(first) = self.flights.first_entry()
            && first.get().until <= now
        {
            let flight = first.remove();
            self.landed(
                flight,
                Outcome::Unknown("NATS did not answer in time".to_owned()),
            );
        }
        let down = self.opened().err();
        let late = self.link.config.append_timeout;
        let mut answers: Vec<(Item, LogError)> = Vec::new();
        for channel in self.channels.values_mut() {
            while let Some(item) = channel.queue.front() {
                let error = match &down {
                    Some(error) => error.clone(),
                    None if item.since.elapsed() > late => unavailable("NATS is too slow"),
                    None => break,
                };
                if let Some(item) = channel.queue.pop_front() {
                    answers.push((item, error));
                }
            }
        }
        for (item, error) in answers {
            self.answer(&item, Err(error));
        }
    }
}
