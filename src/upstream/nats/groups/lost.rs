//! What a group loses: retention, or an order, takes messages that it was never given.
//!
//! The server says how many messages wait for a group, not how many of them it has dropped. So the group is remembered as it was
//! at one moment: what waited then and what was appended since is given, waits still, or is lost. It is looked for where
//! the stream begins behind what the group was given. The memory is a value of the state bucket that processes replace only as
//! they have read it: what one has counted no other counts.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::{consumer, kv};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::{Consumers, is_absent, own_channel};
use crate::mesh::durable::LogError;
use crate::model::{ChannelName, Entry};
use crate::upstream::nats::link::Opened;
use crate::upstream::nats::reader::Reader;
use crate::upstream::nats::subject::{self, name};

/// How often what has changed is remembered while nothing is lost.
const REMEMBER: Duration = Duration::from_secs(30);

/// How often what is remembered is changed anew where others do, too.
const CHANGE_TRIES: usize = 20;

/// A group at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Seen {
    /// What it has lost so far.
    lost: u64,
    /// Sequence of the last message that it was given.
    delivered: u64,
    /// Deliveries, as the server counts them.
    deliveries: u64,
    /// Messages that it was not given.
    pending: u64,
    /// Last message of the stream.
    last: u64,
}

/// What is known here of a group.
#[derive(Clone, Copy)]
struct Known {
    seen: Seen,
    /// Of the value in the bucket.
    revision: u64,
    at: Instant,
    /// Lost before this process looked first.
    before: u64,
}

/// All groups.
#[derive(Default)]
pub(super) struct Losses(HashMap<Box<str>, Known>);

impl Consumers {
    /// What the group has lost, and of that what it had when this process looked first.
    pub(super) async fn losses(
        &self,
        opened: &Opened,
        reader: &Reader,
        group: &str,
        info: &consumer::Info,
    ) -> Result<(u64, u64), LogError> {
        let known = match self.known(group) {
            Some(known) => known,
            None => self.recall(opened, group).await?,
        };
        let seen = known.seen;
        let is_behind = info.num_pending > 0 || seen.pending > 0;
        let end = self.link.status.borrow().end;
        let (mut first, mut last) = (0, end.max(info.delivered.stream_sequence));
        if is_behind {
            let stream = opened.stream.get_info().await;
            let state = stream.map_err(|error| self.link.failed(&error))?.state;
            (first, last) = (state.first_sequence, state.last_sequence);
        }
        let mut now = Seen {
            lost: seen.lost,
            delivered: info.delivered.stream_sequence,
            deliveries: info.delivered.consumer_sequence,
            pending: info.num_pending,
            last,
        };
        if known.revision > 0 && first > seen.delivered + 1 {
            let filters = &info.config.filter_subjects;
            let appended = reader.pending(opened, seen.last + 1, filters).await?;
            let accounted = now.pending + now.deliveries.saturating_sub(seen.deliveries);
            now.lost += (seen.pending + appended).saturating_sub(accounted);
        }
        let is_due = known.at.elapsed() >= REMEMBER && now != seen;
        if known.revision == 0 || now.lost > seen.lost || is_due {
            self.remember(opened, group, known, now).await?;
        }
        Ok((now.lost, known.before))
    }

    /// For each group that takes from the channel, how many of its messages up to this one the group was not given.
    pub(in crate::upstream::nats) async fn unread_of(
        &self,
        reader: &Reader,
        channel: &ChannelName,
        upto: u64,
    ) -> Result<Vec<(Box<str>, u64)>, LogError> {
        let opened = self.link.opened()?;
        let subject = self.link.subjects.channel(channel.whole());
        let mut unread = Vec::new();
        for group in self.all().await? {
            let takes = own_channel(&group.name) == channel.whole()
                || subject::matches(&group.channels, channel.whole());
            if !takes {
                continue;
            }
            let info = match opened.stream.consumer_info(name(&group.name)).await {
                Ok(info) => info,
                Err(error) if is_absent(error.kind()) => continue,
                Err(error) => return Err(self.link.failed(&error)),
            };
            let from = info.delivered.stream_sequence + 1;
            if from > upto {
                continue;
            }
            let count = reader.publications(&opened, from, &subject).await?;
            let later = reader.publications(&opened, upto + 1, &subject).await?;
            unread.push((group.name, count.saturating_sub(later)));
        }
        Ok(unread)
    }

    /// How many of these each group was not given.
    pub(in crate::upstream::nats) async fn unread_among(
        &self,
        gone: &[Arc<Entry>],
    ) -> Result<Vec<(Box<str>, u64)>, LogError> {
        let opened = self.link.opened()?;
        let mut unread = Vec::new();
        for group in self.all().await? {
            let takes = |channel: &str| {
                own_channel(&group.name) == channel || subject::matches(&group.channels, channel)
            };
            let its = gone
                .iter()
                .filter(|entry| takes(entry.record.channel.whole()));
            let its: Vec<u64> = its.map(|entry| entry.cursor).collect();
            if its.is_empty() {
                continue;
            }
            let info = match opened.stream.consumer_info(name(&group.name)).await {
                Ok(info) => info,
                Err(error) if is_absent(error.kind()) => continue,
                Err(error) => return Err(self.link.failed(&error)),
            };
            let given = info.delivered.stream_sequence;
            let count = its.iter().filter(|cursor| **cursor > given).count() as u64;
            unread.push((group.name, count));
        }
        Ok(unread)
    }

    /// They were taken from the groups.
    pub(in crate::upstream::nats) async fn lose(
        &self,
        losses: Vec<(Box<str>, u64)>,
    ) -> Result<(), LogError> {
        let opened = self.link.opened()?;
        for (group, count) in losses.into_iter().filter(|(_, count)| *count > 0) {
            let change = |seen: &mut Seen| {
                seen.lost += count;
                seen.pending = seen.pending.saturating_sub(count);
            };
            self.change(&opened, &group, change).await?;
        }
        Ok(())
    }

    /// Changes what is remembered, whoever else does at the same time.
    async fn change(
        &self,
        opened: &Opened,
        group: &str,
        change: impl Fn(&mut Seen),
    ) -> Result<(), LogError> {
        for _ in 0..CHANGE_TRIES {
            let known = self.recall(opened, group).await?;
            let mut seen = known.seen;
            change(&mut seen);
            if self.remember(opened, group, known, seen).await? {
                return Ok(());
            }
        }
        Err(self.link.failed(&"others count what a group loses, too"))
    }

    /// They were given to the group, and nobody had done them when their time was over.
    pub(super) async fn lose_given(
        &self,
        opened: &Opened,
        group: &str,
        count: u64,
    ) -> Result<(), LogError> {
        self.change(opened, group, |seen| seen.lost += count).await
    }

    /// The group is deleted.
    pub(super) async fn forget_losses(&self, opened: &Opened, group: &str) -> Result<(), LogError> {
        self.losses.borrow_mut().0.remove(group);
        let deleted = opened.state.delete(key(group)).await;
        deleted.map_err(|error| self.link.failed(&error))
    }

    fn known(&self, group: &str) -> Option<Known> {
        self.losses.borrow().0.get(group).copied()
    }

    /// Reads what is remembered of a group.
    async fn recall(&self, opened: &Opened, group: &str) -> Result<Known, LogError> {
        let entry = opened.state.entry(key(group)).await;
        let entry = entry.map_err(|error| self.link.failed(&error))?;
        let (seen, revision) = match entry {
            Some(entry) if entry.operation == kv::Operation::Put => {
                let seen = serde_json::from_slice(&entry.value);
                (seen.unwrap_or_default(), entry.revision)
            }
            // A group that was deleted before: what is remembered of it now replaces that.
            Some(_) | None => (Seen::default(), 0),
        };
        let before = self.known(group).map_or(seen.lost, |known| known.before);
        let known = Known {
            seen,
            revision,
            at: Instant::now(),
            before,
        };
        self.losses.borrow_mut().0.insert(group.into(), known);
        Ok(known)
    }

    /// `false`: another process was first, and what it has counted counts.
    async fn remember(
        &self,
        opened: &Opened,
        group: &str,
        known: Known,
        seen: Seen,
    ) -> Result<bool, LogError> {
        let value = serde_json::to_vec(&seen).map_err(|error| self.link.failed(&error))?;
        let stored = match known.revision {
            0 => {
                let created = opened.state.create(key(group), value.into()).await;
                created.map_err(|error| {
                    (
                        error.kind() == kv::CreateErrorKind::AlreadyExists,
                        error.to_string(),
                    )
                })
            }
            revision => {
                let updated = opened
                    .state
                    .update(key(group), value.into(), revision)
                    .await;
                updated.map_err(|error| {
                    (
                        error.kind() == kv::UpdateErrorKind::WrongLastRevision,
                        error.to_string(),
                    )
                })
            }
        };
        match stored {
            Ok(revision) => {
                let known = Known {
                    seen,
                    revision,
                    at: Instant::now(),
                    ..known
                };
                self.losses.borrow_mut().0.insert(group.into(), known);
                Ok(true)
            }
            Err((true, _)) => self.recall(opened, group).await.map(|_| false),
            Err((false, reason)) => Err(self.link.failed(&reason)),
        }
    }
}

fn key(group: &str) -> String {
    format!("lost.{}", name(group))
}
