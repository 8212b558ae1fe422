//! What one group has parked here, kept, and taken up again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::parked::{due_at, later};
use super::pull::Pull;
use crate::mesh::durable::LogError;
use crate::model::Entry;
use crate::upstream::desk::unix_ms;
use crate::upstream::log::{FromLine, Lease, Leased, Line, LineId};
use crate::upstream::nats::link::Opened;
use crate::upstream::nats::reader;

impl Pull {
    /// It waits in a line.
    pub(super) fn park_in_line(&self, lease: Lease, line: LineId) {
        if let Some(held) = self.held(lease) {
            self.hand_over(lease, false);
            let mut parked = self.parked.borrow_mut();
            parked.lined.insert((line, held.sequence), lease);
        }
    }

    /// It waits for its time, and its line with it.
    pub(super) fn park_until(&self, lease: Lease, due: u64, line: LineId) {
        if let Some(held) = self.held(lease) {
            self.hand_over(lease, false);
            let due = due_at(unix_ms(), due);
            let mut parked = self.parked.borrow_mut();
            parked.delayed.insert((due, held.sequence), (lease, line));
        }
    }

    /// What has to be spoken of, lest it is given to others.
    pub(super) async fn keep_parked(&self) -> Result<(), LogError> {
        let age = self.lease_time() / 4;
        let leases = self.parked.borrow().leases();
        for lease in leases {
            if let Some(held) = self.held(lease).filter(|held| held.age() > age) {
                self.say(held.reply, b"+WPI").await?;
                self.kept(lease);
            }
        }
        Ok(())
    }

    /// What is due, at most so much of it.
    pub(super) async fn take_due(
        &self,
        opened: &Opened,
        limit: usize,
    ) -> Result<Vec<Leased>, LogError> {
        let now = Instant::now();
        let keys: Vec<(Instant, u64)> = {
            let parked = self.parked.borrow();
            let due = parked.delayed.keys().take_while(|(due, _)| *due <= now);
            due.take(limit).copied().collect()
        };
        // Dropped in the midst, it has taken nothing.
        let mut entries = Vec::with_capacity(keys.len());
        for (_, sequence) in &keys {
            entries.push(reader::entry(self.link(), opened, *sequence).await?);
        }
        let mut due = Vec::with_capacity(keys.len());
        for (key, entry) in keys.iter().zip(entries) {
            let taken = self.parked.borrow_mut().delayed.remove(key);
            if let Some((lease, _)) = taken {
                due.extend(self.leased_again(lease, entry, true));
            }
        }
        Ok(due)
    }

    fn leased_again(
        &self,
        lease: Lease,
        entry: Option<Arc<Entry>>,
        was_delayed: bool,
    ) -> Option<Leased> {
        let Some(entry) = entry else {
            self.forget(lease);
            return None;
        };
        let failures = self.held(lease)?.failures;
        self.hand_over(lease, true);
        Some(Leased {
            lease,
            entry,
            failures,
            was_delayed,
        })
    }

    /// See `Groups::lines`.
    pub(super) fn lines(&self) -> Vec<Line> {
        let parked = self.parked.borrow();
        let mut lines: BTreeMap<LineId, (u64, u64)> = BTreeMap::new();
        for (line, _) in parked.lined.keys() {
            lines.entry(*line).or_default().0 += 1;
        }
        for (_, line) in parked.delayed.values() {
            lines.entry(*line).or_default().1 += 1;
        }
        let line = |(id, (entries, delayed))| Line {
            id,
            entries,
            delayed,
        };
        lines.into_iter().map(line).collect()
    }

    /// See `Groups::fetch_lines`. All of them are read before anything is taken: what is read of one stays in it when another one cannot
    /// be read.
    pub(super) async fn fetch_lines(
        &self,
        opened: &Opened,
        wanted: &[(LineId, usize)],
    ) -> Result<Vec<FromLine>, LogError> {
        let mut read = Vec::with_capacity(wanted.len());
        for &(id, limit) in wanted {
            read.push((id, self.read_line(opened, id, limit).await?));
        }
        let mut given = Vec::with_capacity(read.len());
        for (id, entries) in read {
            let mut leased = Vec::with_capacity(entries.len());
            for (sequence, entry) in entries {
                let taken = self.parked.borrow_mut().lined.remove(&(id, sequence));
                if let Some(lease) = taken {
                    leased.extend(self.leased_again(lease, entry, false));
                }
            }
            let left = self.sequences_of(id, usize::MAX).len() as u64;
            given.push(FromLine { id, leased, left });
        }
        Ok(given)
    }

    /// The first entries of a line, and their sequences; at least one, if it has any.
    async fn read_line(
        &self,
        opened: &Opened,
        id: LineId,
        limit: usize,
    ) -> Result<Vec<(u64, Option<Arc<Entry>>)>, LogError> {
        let mut entries = Vec::new();
        for sequence in self.sequences_of(id, limit) {
            match reader::entry(self.link(), opened, sequence).await {
                Ok(entry) => entries.push((sequence, entry)),
                // Those before it are given.
                Err(_) if !entries.is_empty() => break,
                Err(error) => return Err(error),
            }
        }
        Ok(entries)
    }

    /// What stands first in a line.
    fn sequences_of(&self, id: LineId, limit: usize) -> Vec<u64> {
        let parked = self.parked.borrow();
        let all = parked.lined.range((id, 0)..=(id, u64::MAX));
        all.take(limit)
            .map(|((_, sequence), _)| *sequence)
            .collect()
    }

    /// See `Groups::release`. Where order is kept, what was given meanwhile waits for what is given back.
    pub(super) async fn release(&self) -> Result<(), LogError> {
        let mut has_given = false;
        let released = self.give_back_parked(&mut has_given).await;
        if has_given {
            self.await_released().await;
        }
        released
    }

    /// Where order is kept, all of it is given again at once: what waits for its time keeps its place before those behind it, and its
    /// history says to whoever gets it next when it is due.
    async fn give_back_parked(&self, has_given: &mut bool) -> Result<(), LogError> {
        loop {
            let next = {
                let parked = self.parked.borrow();
                let lined = parked.lined.first_key_value();
                let delayed = parked.delayed.first_key_value();
                let lined = lined.map(|(key, lease)| (*lease, Duration::ZERO, Some(*key), None));
                lined.or_else(|| {
                    delayed.map(|(key, (lease, _))| {
                        let wait = key.0.saturating_duration_since(Instant::now());
                        (*lease, wait, None, Some(*key))
                    })
                })
            };
            let Some((lease, wait, lined, delayed)) = next else {
                return Ok(());
            };
            if let Some(held) = self.held(lease) {
                // Said in part, it may have been heard.
                *has_given = true;
                let until = u64::try_from(wait.as_millis()).map_or(0, |wait| unix_ms() + wait);
                let is_at_once = wait.is_zero() || self.is_ordered();
                let until = if is_at_once { 0 } else { until };
                self.say_bytes(held.reply, later(until)).await?;
            }
            self.forget(lease);
            let mut parked = self.parked.borrow_mut();
            if let Some(key) = lined {
                parked.lined.remove(&key);
            }
            if let Some(key) = delayed {
                parked.delayed.remove(&key);
            }
        }
    }
}
