//! Queue groups: durable pull consumers that workers of NATS may share.
//!
//! A group's consumer has its name and takes from the narrowest subjects that cover its channels; what they match beyond is
//! acknowledged here at once. A lease is a delivery that was not acknowledged yet: the server gives it to others when it was
//! not renewed for `Group::lease`. Failed attempts stand in a bucket of their own, by group and sequence.

mod lines;
mod lost;
mod order;
mod parked;
mod pull;
mod recall;
mod seek;

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, pull::Config};
use async_nats::jetstream::context::ConsumerInfoErrorKind;
use async_nats::{Request, RequestErrorKind};
use bytes::Bytes;
use tokio::time::Instant;

use super::link::{Link, Opened, connects};
use super::reader::Reader;
use super::subject::name;
use super::{Jetstream, values};
use crate::limits::{ENTRY_FAILURES_BYTES_MAX, GROUP_UNSETTLED_MAX};
use crate::mesh::durable::LogError;
use crate::upstream::log::{
    Failure, FromLine, Group, Groups, Lag, Lease, Leased, Line, LineId, Scan, Settled, Undone,
};

use lost::Losses;
use order::PULLERS;
use pull::{Counts, Pull};
use seek::Stored;

/// The server answers the last word of several within this time, if it knows the lease.
const ANSWER_WITHIN: std::time::Duration = Duration::from_secs(2);
/// Bytes and messages that are looked at to say what a group has not done.
const UNDONE_BYTES: usize = 8 << 20;
/// See `UNDONE_BYTES`.
const UNDONE_LOOKED_AT: usize = 20_000;
/// How long JetStream remembers that a history is gone.
const GONE: std::time::Duration = Duration::from_secs(60);

/// The groups of this process, each a consumer of the stream.
pub(super) struct Consumers {
    link: Arc<Link>,
    pulls: RefCell<HashMap<Box<str>, Rc<Pull>>>,
    losses: Rc<RefCell<Losses>>,
    counts: Rc<Counts>,
    /// Groups of which it was looked of late whether a seek had come half way, and none had.
    looked: RefCell<HashMap<Box<str>, Instant>>,
}

impl Groups for Jetstream {
    /// What a lost process had leased comes when the lease has run out; what waits in the server comes when it is due.
    const RETRY_KEPT: Duration = Duration::ZERO;

    /// It keeps them until the stream forgets them: an end of their own would take the last message of a channel, and with it where
    /// the channel ends.
    const FORGETS_ENDED: bool = false;

    async fn open_group(&self, group: &Group) -> Result<(), LogError> {
        self.groups.open(group).await
    }

    async fn groups(&self) -> Result<Vec<Group>, LogError> {
        self.groups.all().await
    }

    async fn delete_group(&self, name: &str) -> Result<bool, LogError> {
        self.groups.delete(name).await
    }

    async fn fetch(&self, group: &str, limit: usize) -> Result<Vec<Leased>, LogError> {
        self.groups.fetch(group, limit).await
    }

    async fn settle(&self, group: &str, settled: &[(Lease, Settled)]) -> Result<(), LogError> {
        self.groups.settle(group, settled).await
    }

    /// The servers have answered the last word of every settlement.
    async fn store_settled(&self, _: &str) -> Result<(), LogError> {
        self.link.opened().map(drop)
    }

    async fn lines(&self, group: &str) -> Result<Vec<Line>, LogError> {
        let opened = self.link.opened()?;
        Ok(self.groups.pull(&opened, group).await?.lines())
    }

    /// The server gives them by itself.
    async fn left_over(&self, _: &str, _: usize) -> Result<Vec<Leased>, LogError> {
        Ok(Vec::new())
    }

    async fn leave_lines(&self, group: &str) -> Result<(), LogError> {
        self.release(group, false).await
    }

    async fn fetch_lines(
        &self,
        group: &str,
        wanted: &[(LineId, usize)],
    ) -> Result<Vec<FromLine>, LogError> {
        let opened = self.link.opened()?;
        let pull = self.groups.pull(&opened, group).await?;
        pull.fetch_lines(&opened, wanted).await
    }

    async fn release(&self, group: &str, _: bool) -> Result<(), LogError> {
        let opened = self.link.opened()?;
        self.groups.pull(&opened, group).await?.release().await
    }

    async fn seek_group(&self, group: &str, after: u64) -> Result<(), LogError> {
        self.groups.seek(group, after).await
    }

    async fn undone(&self, group: &str, after: u64, limit: usize) -> Result<Vec<Undone>, LogError> {
        self.groups.undone(&self.reader, group, after, limit).await
    }

    async fn lag(&self, group: &str) -> Result<Lag, LogError> {
        self.groups.lag(&self.reader, group).await
    }
}

impl Consumers {
    pub(super) fn new(link: Arc<Link>) -> Self {
        Self {
            link,
            pulls: RefCell::default(),
            losses: Rc::default(),
            counts: Rc::default(),
            looked: RefCell::default(),
        }
    }

    /// Leases that nobody here knew any more, so that what they are of was given again.
    pub(super) fn orphaned_leases(&self) -> u64 {
        self.counts.orphaned.get()
    }

    /// Another one that leases nothing and knows the same losses.
    pub(super) fn beside(&self) -> Self {
        Self {
            losses: Rc::clone(&self.losses),
            counts: Rc::clone(&self.counts),
            ..Self::new(self.link.clone())
        }
    }

    /// See `Groups::open_group`.
    pub(super) async fn open(&self, group: &Group) -> Result<(), LogError> {
        let opened = self.link.opened()?;
        let failed = |error: &dyn std::fmt::Display| self.link.failed(error);
        let mut group = group.clone();
        let mut seek = None;
        if let Some(known) = stored(&self.link, &opened, &group.name).await? {
            group.from_beginning = known.group.from_beginning;
            group.start_after = known.group.start_after;
            seek = known.seek;
        }
        let consumer = name(&group.name);
        let start = match opened.stream.consumer_info(&consumer).await {
            Ok(info) if seek.is_none() || seek::is_finished(&info.config, seek.as_deref()) => {
                info.config.deliver_policy
            }
            // It has not come to its end.
            Ok(_) => {
                let known = Stored {
                    group: group.clone(),
                    seek,
                };
                self.begin_anew(&opened, known).await?;
                start_of(&group)
            }
            Err(error) if is_absent(error.kind()) => start_of(&group),
            Err(error) => return Err(failed(&error)),
        };
        let config = self.consumer(&group, consumer, start);
        let made = opened.stream.create_consumer(config).await;
        made.map_err(|error| failed(&error))?;
        let stored = Stored { group, seek: None };
        stored.put(&self.link, &opened).await?;
        let group = stored.group;
        if let Some(pull) = self.pulls.borrow().get(&group.name) {
            pull.changed(group);
        }
        Ok(())
    }

    pub(super) fn consumer(&self, group: &Group, name: String, start: DeliverPolicy) -> Config {
        let own = own_channel(&group.name);
        let globs = group.channels.iter().map(|glob| &**glob);
        let mut config = Config {
            durable_name: Some(name.clone()),
            name: Some(name),
            description: Some("queue group of ringmain".to_owned()),
            deliver_policy: start,
            ack_policy: AckPolicy::Explicit,
            ack_wait: group.lease,
            max_deliver: -1,
            max_ack_pending: GROUP_UNSETTLED_MAX,
            filter_subjects: self.link.subjects.filters(globs.chain([own.as_str()])),
            ..Config::default()
        };
        if group.ordered {
            order::pin(&mut config);
        }
        config
    }

    /// See `Groups::groups`.
    pub(super) async fn all(&self) -> Result<Vec<Group>, LogError> {
        let opened = self.link.opened()?;
        let keys = values::keys(&opened.state, "group.>").await;
        let mut groups = Vec::new();
        for key in keys.map_err(|error| self.link.failed(&error))? {
            let value = values::newest(&opened.state, &key).await;
            let value = value.map_err(|error| self.link.failed(&error))?;
            if let Some(value) = value {
                let group = serde_json::from_slice(&value);
                groups.push(group.map_err(|error| self.link.failed(&error))?);
            }
        }
        Ok(groups)
    }

    /// See `Groups::delete_group`.
    pub(super) async fn delete(&self, group: &str) -> Result<bool, LogError> {
        let opened = self.link.opened()?;
        let failed = |error: &dyn std::fmt::Display| self.link.failed(error);
        let existed = spec(&self.link, &opened, group).await?.is_some();
        match opened.stream.delete_consumer(&name(group)).await {
            Ok(_) => {}
            Err(error) => {
                let gone = opened.stream.consumer_info(name(group)).await;
                if !gone.is_err_and(|gone| is_absent(gone.kind())) {
                    return Err(failed(&error));
                }
            }
        }
        self.pulls.borrow_mut().remove(group);
        if existed {
            let deleted = opened.state.delete(group_key(group)).await;
            deleted.map_err(|error| failed(&error))?;
            self.forget_losses(&opened, group).await?;
            let histories = format!("{}{}.>", opened.failures.prefix, name(group));
            let purged = opened.failures.stream.purge().filter(histories).await;
            purged.map_err(|error| failed(&error))?;
        }
        Ok(existed)
    }

    /// See `Groups::undone`: what the consumer has not given yet. What is leased, the server names to nobody.
    pub(super) async fn undone(
        &self,
        reader: &Reader,
        group: &str,
        after: u64,
        limit: usize,
    ) -> Result<Vec<Undone>, LogError> {
        let opened = self.link.opened()?;
        let Some(spec) = spec(&self.link, &opened, group).await? else {
            return Err(LogError::NotFound(format!("no group {group}").into()));
        };
        let info = opened.stream.consumer_info(name(group)).await;
        let info = info.map_err(|error| self.link.failed(&error))?;
        let mut channels = spec.channels.clone();
        channels.push(own_channel(group).into());
        let scan = Scan {
            after: after.max(info.delivered.stream_sequence),
            channels,
            limit,
            bytes: UNDONE_BYTES,
            looked_at: UNDONE_LOOKED_AT,
        };
        let found = reader.scan(&scan).await?.entries;
        let undone = found.into_iter().map(|entry| Undone {
            entry,
            failures: Vec::new(),
            is_leased: false,
        });
        Ok(undone.collect())
    }

    /// See `Groups::fetch`.
    pub(super) async fn fetch(&self, group: &str, limit: usize) -> Result<Vec<Leased>, LogError> {
        let opened = self.link.opened()?;
        let pull = self.pull(&opened, group).await?;
        pull.fetch(&opened, limit.max(1)).await
    }

    async fn pull(&self, opened: &Arc<Opened>, group: &str) -> Result<Rc<Pull>, LogError> {
        let known = self.pulls.borrow().get(group).cloned();
        if let Some(pull) = known.filter(|pull| pull.log == opened.log) {
            return Ok(pull);
        }
        let spec = spec(&self.link, opened, group).await?;
        let Some(spec) = spec else {
            return Err(LogError::NotFound(format!("no group {group}").into()));
        };
        if spec.ordered {
            // A process that was killed is pinned for a while; whoever lives and is pinned asks again. What fails here runs out.
            let consumer = name(&spec.name);
            let _ = opened.stream.unpin_consumer(&consumer, PULLERS).await;
        }
        let counts = Rc::clone(&self.counts);
        let pull = Rc::new(Pull::new(self.link.clone(), counts, opened.log, spec));
        let mut pulls = self.pulls.borrow_mut();
        Ok(match pulls.get(group) {
            Some(other) if other.log == opened.log => other.clone(),
            Some(_) | None => {
                pulls.insert(group.into(), pull.clone());
                pull
            }
        })
    }

    /// See `Groups::settle`. The last word is answered by the server, which takes them in order.
    pub(super) async fn settle(
        &self,
        group: &str,
        settled: &[(Lease, Settled)],
    ) -> Result<(), LogError> {
        let known = self.pulls.borrow().get(group).cloned();
        if let Some(pull) = &known {
            pull.spoken_of(settled.iter().map(|(lease, _)| *lease));
        }
        let opened = self.link.opened()?;
        let failed = |error: &dyn std::fmt::Display| self.link.failed(error);
        let Some(pull) = known else {
            return Ok(());
        };
        let _settling = pull.settling();
        pull.keep_parked().await?;
        // Of what is done. They go last: an entry that comes again, because this process ended before, brings its history along.
        let mut histories = Vec::new();
        let mut words: Vec<(async_nats::Subject, Bytes)> = Vec::new();
        // Leases that end with it.
        let mut over = Vec::new();
        for (lease, what) in settled {
            let Some(held) = pull.held(*lease) else {
                continue;
            };
            let key = history_key(group, held.sequence);
            let word = match what {
                Settled::Done | Settled::Lost => {
                    if !held.failures.is_empty() {
                        histories.push(key);
                    }
                    over.push(*lease);
                    Bytes::from_static(b"+ACK")
                }
                Settled::Failed(failure) => {
                    let mut failures = held.failures;
                    // What could not be said is said again.
                    if failures.last() != Some(failure) {
                        failures.push(failure.clone());
                    }
                    let value = history(&mut failures).map_err(|error| failed(&error))?;
                    let put = opened.failures.put(key, value).await;
                    put.map_err(|error| failed(&error))?;
                    pull.has_failed(*lease, failures);
                    Bytes::from_static(b"+WPI")
                }
                Settled::Kept | Settled::Lined(_) => Bytes::from_static(b"+WPI"),
                Settled::Returned => {
                    over.push(*lease);
                    Bytes::from_static(b"-NAK")
                }
                Settled::Delayed { line: Some(_), .. } => Bytes::from_static(b"+WPI"),
                Settled::Delayed {
                    until_unix_ms,
                    line: None,
                } => {
                    over.push(*lease);
                    parked::later(*until_unix_ms)
                }
            };
            words.push((held.reply, word));
        }
        let Some((last, word)) = words.pop() else {
            return Ok(());
        };
        // All over one connection: the last word is answered behind the others.
        for lease in over {
            pull.doubt(lease);
        }
        let client = self.link.client();
        let before = connects(&client);
        for (reply, word) in words {
            let sent = client.publish(reply, word).await;
            sent.map_err(|error| failed(&error))?;
        }
        let request = Request::new().payload(word).timeout(Some(ANSWER_WITHIN));
        match client.send_request(last, request).await {
            Ok(_) => {}
            // A server that was killed may have forgotten the lease, and says nothing to it; if it is there, it has heard the words.
            Err(error) if error.kind() == RequestErrorKind::TimedOut => {
                let consumer = opened.stream.consumer_info(name(group));
                let answer = tokio::time::timeout(ANSWER_WITHIN, consumer).await;
                let info = answer.map_err(|_elapsed| failed(&error))?;
                info.map_err(|error| failed(&error))?;
            }
            Err(error) => return Err(failed(&error)),
        }
        if connects(&client) != before {
            return Err(failed(&"the connection was lost meanwhile"));
        }
        for key in histories {
            let purged = opened.failures.purge_with_ttl(key, GONE).await;
            purged.map_err(|error| failed(&error))?;
        }
        let lost = settled.iter().filter(|(_, what)| *what == Settled::Lost);
        let lost = lost.count() as u64;
        if lost > 0 {
            self.lose_given(&opened, group, lost).await?;
        }
        for (lease, what) in settled {
            match what {
                Settled::Done | Settled::Lost => pull.finish(*lease),
                Settled::Returned | Settled::Delayed { line: None, .. } => pull.forget(*lease),
                Settled::Failed(_) | Settled::Kept => pull.kept(*lease),
                Settled::Lined(line) => {
                    pull.kept(*lease);
                    pull.park_in_line(*lease, *line);
                }
                Settled::Delayed {
                    until_unix_ms,
                    line: Some(line),
                } => {
                    pull.kept(*lease);
                    pull.park_until(*lease, *until_unix_ms, *line);
                }
            }
        }
        Ok(())
    }

    /// Keeps the whole history of a leased entry, so that whoever gets it after this process knows that it is over.
    pub(super) async fn keep_history(
        &self,
        group: &str,
        lease: Lease,
        failures: &[Failure],
    ) -> Result<(), LogError> {
        let opened = self.link.opened()?;
        let pull = self.pulls.borrow().get(group).cloned();
        let Some(held) = pull.and_then(|pull| pull.held(lease)) else {
            return Ok(());
        };
        let failed = |error: &dyn std::fmt::Display| self.link.failed(error);
        let value = history(&mut failures.to_vec()).map_err(|error| failed(&error))?;
        let put = opened
            .failures
            .put(history_key(group, held.sequence), value);
        put.await.map_err(|error| failed(&error))?;
        Ok(())
    }

    /// See `Groups::lag`.
    pub(super) async fn lag(&self, reader: &Reader, group: &str) -> Result<Lag, LogError> {
        let opened = self.link.opened()?;
        let info = match opened.stream.consumer_info(name(group)).await {
            Ok(info) => info,
            Err(error) if is_absent(error.kind()) => {
                let seeking = self.sought(&opened, group, None).await?;
                return match seeking {
                    Some(_) => Ok(Lag {
                        seeking,
                        ..Lag::default()
                    }),
                    None => Err(LogError::NotFound(format!("no group {group}").into())),
                };
            }
            Err(error) => return Err(self.link.failed(&error)),
        };
        let seeking = self.sought(&opened, group, Some(&info.config)).await?;
        let oldest_unix_ms = if info.num_pending == 0 && info.num_ack_pending == 0 {
            None
        } else {
            let from = info.ack_floor.stream_sequence + 1;
            reader
                .oldest(&opened, from, &info.config.filter_subjects)
                .await?
        };
        let (lost, lost_before) = self.losses(&opened, reader, group, &info).await?;
        Ok(Lag {
            entries: info.num_pending,
            delayed: 0,
            due_unix_ms: None,
            leased: info.num_ack_pending as u64,
            oldest_unix_ms,
            lost,
            lost_before,
            buried: 0,
            seeking,
        })
    }
}

/// Where a new consumer begins.
fn start_of(group: &Group) -> DeliverPolicy {
    match group.start_after {
        Some(after) => DeliverPolicy::ByStartSequence {
            start_sequence: after + 1,
        },
        None if group.from_beginning => DeliverPolicy::All,
        None => DeliverPolicy::New,
    }
}

/// The group as it was last opened, by any process.
async fn spec(link: &Link, opened: &Opened, group: &str) -> Result<Option<Group>, LogError> {
    let stored = stored(link, opened, group).await?;
    Ok(stored.map(|stored| stored.group))
}

/// The same with a seek that is under way.
async fn stored(link: &Link, opened: &Opened, group: &str) -> Result<Option<Stored>, LogError> {
    let value = values::newest(&opened.state, &group_key(group)).await;
    let value = value.map_err(|error| link.failed(&error))?;
    let parse = |value: Bytes| serde_json::from_slice(&value);
    let group = value.map(parse).transpose();
    group.map_err(|error| link.failed(&error))
}

fn is_absent(kind: ConsumerInfoErrorKind) -> bool {
    match kind {
        ConsumerInfoErrorKind::NotFound => true,
        ConsumerInfoErrorKind::JetStream(error) => {
            error.error_code() == ErrorCode::CONSUMER_NOT_FOUND
        }
        _ => false,
    }
}

/// The channel of replays into a group.
fn own_channel(group: &str) -> String {
    crate::config::namespace::queue_of(group)
}

fn group_key(group: &str) -> String {
    format!("group.{}", name(group))
}

fn history_key(group: &str, sequence: u64) -> String {
    format!("{}.{sequence}", name(group))
}

/// An entry's history as it is kept.
fn history(failures: &mut Vec<Failure>) -> Result<Bytes, serde_json::Error> {
    loop {
        let value = serde_json::to_vec(failures)?;
        if value.len() <= ENTRY_FAILURES_BYTES_MAX || failures.len() <= 1 {
            return Ok(value.into());
        }
        failures.remove(0);
    }
}
