//! What is asked of publications that wait for their time, and how they become entries.

use std::sync::Arc;

use fjall::OwnedWriteBatch;

use super::Embedded;
use super::core::{Broken, Core};
use super::later::{self, Row, Spot};
use super::store::Store;
use crate::mesh::durable::LogError;
use crate::model::{Draft, Entry};
use crate::upstream::log::{Name, Page, Pending, Place, Scheduled, Which};

/// What was published because its time had come.
#[derive(Default)]
pub struct Published {
    /// The new entries.
    pub entries: Vec<Arc<Entry>>,
    /// When each of those that waited was due.
    pub due_ms: Vec<u64>,
    /// Of them, those that could not be read: they are gone.
    pub damaged: u64,
}

impl Core {
    /// Makes entries of those that are due, some at a time, and stores whatever `with` adds. That they are entries and wait no
    /// more is stored at once, so each becomes one once.
    ///
    /// # Errors
    ///
    /// It is not known whether it was done.
    pub fn publish_due(
        &mut self,
        now_ms: u64,
        with: impl FnOnce(&mut OwnedWriteBatch, &Store),
    ) -> Result<Published, Broken> {
        let due = self.later.due(&self.store, now_ms)?;
        let count = (due.rows.len() + due.damaged.len()) as u64;
        if count == 0 {
            // What was said to be the first one is not there.
            self.later.removed(0, due.next);
            return Ok(Published::default());
        }
        let drafts = due.rows.iter().map(|row| {
            let mut draft = row.draft.clone();
            // It is taken in now, as far as anybody who works it off can know.
            draft.record.unix_ms = now_ms;
            draft
        });
        let later = self.later.clone();
        let (_, entries) = self.append_due(drafts.collect(), |batch, store| {
            with(batch, store);
            for row in &due.rows {
                later::remove(batch, &store.scheduled, row);
            }
            for spot in &due.damaged {
                later::remove_damaged(batch, &store.scheduled, *spot);
            }
            later.note(batch, store, 0, count);
        })?;
        self.later.removed(count, due.next);
        Ok(Published {
            entries,
            due_ms: due.rows.iter().map(|row| row.spot.0).collect(),
            damaged: due.damaged.len() as u64,
        })
    }

    fn waiting_as(&self, which: &Which) -> Result<Option<Row>, Broken> {
        Ok(match &which.name {
            Name::Key(key) => later::with_key(&self.store, &which.channel, key)?,
            Name::Event(event) => later::with_event(&self.store, &which.channel, *event)?,
        })
    }

    fn cancel(&mut self, which: &Which) -> Result<Option<Row>, Broken> {
        let Some(row) = self.waiting_as(which)? else {
            return Ok(None);
        };
        let mut batch = self.store.batch();
        later::remove(&mut batch, &self.store.scheduled, &row);
        self.later.note(&mut batch, &self.store, 0, 1);
        Store::commit(batch, true).map_err(Broken)?;
        let first = self.first_without(&row)?;
        self.later.removed(1, first);
        Ok(Some(row))
    }

    fn change(&mut self, which: &Which, due_ms: u64) -> Result<Option<Row>, Broken> {
        let Some(row) = self.waiting_as(which)? else {
            return Ok(None);
        };
        let changed = Row {
            spot: (due_ms, self.later.number()),
            draft: Draft {
                due_ms,
                ..row.draft.clone()
            },
        };
        let mut batch = self.store.batch();
        later::remove_place(&mut batch, &self.store.scheduled, &row);
        later::put(&mut batch, &self.store.scheduled, &changed);
        self.later.note(&mut batch, &self.store, 1, 1);
        Store::commit(batch, true).map_err(Broken)?;
        let first = self.first_without(&row)?;
        self.later.removed(1, first);
        self.later.added(std::iter::once(changed.spot));
        Ok(Some(changed))
    }

    /// Where the first one is, now that this one is gone.
    fn first_without(&self, row: &Row) -> Result<Option<Spot>, Broken> {
        match self.later.first() {
            Some(first) if first < row.spot => Ok(Some(first)),
            _ => Ok(later::first(&self.store, row.spot)?),
        }
    }
}

impl Scheduled for Embedded {
    async fn scheduled(&self, wanted: &Page) -> Result<Vec<Pending>, LogError> {
        let wanted = wanted.clone();
        let Some(first) = self.with(|core| Ok(core.later.first()))? else {
            return Ok(Vec::new());
        };
        self.reading(move |_, store| {
            let behind = |place: Place| {
                let number = u64::try_from(place.number).unwrap_or(u64::MAX);
                (place.due_ms, number.saturating_add(1))
            };
            let from = wanted.after.map_or(first, behind).max(first);
            let mut found = Vec::new();
            let mut bytes = 0;
            later::list(store, wanted.channel.as_ref(), from, |row| {
                bytes += row.draft.record.bytes();
                found.push(pending(row));
                found.len() < wanted.limit && bytes < wanted.bytes
            })?;
            Ok(found)
        })
        .await
    }

    async fn pending(&self, which: &Which) -> Result<Option<Pending>, LogError> {
        let row = self.with(|core| core.waiting_as(which))?;
        Ok(row.map(pending))
    }

    async fn cancel(&self, which: &Which) -> Result<Option<Pending>, LogError> {
        let row = self.with(|core| core.cancel(which))?;
        Ok(row.map(pending))
    }

    async fn change(&self, which: &Which, due_ms: u64) -> Result<Option<Pending>, LogError> {
        let row = self.with(|core| core.change(which, due_ms))?;
        self.changed.notify_waiters();
        Ok(row.map(pending))
    }
}

fn pending(row: Row) -> Pending {
    Pending {
        place: Place {
            due_ms: row.spot.0,
            number: u128::from(row.spot.1),
        },
        draft: row.draft,
    }
}
