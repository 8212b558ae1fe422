//! Dead letters in the embedded log: what is asked of them.

use super::buried::{self, Row};
use super::core::Broken;
use super::store::Store;
use super::{Embedded, bytes_of, check_name, unreadable};
use crate::mesh::durable::LogError;
use crate::model::{Draft, EventId};
use crate::upstream::log::{Announce, Bounds, Census, DeadLetter, Lease, Letters};

/// Letters that are forgotten in one step.
const EXPIRED_AT_ONCE: usize = 1000;

impl Letters for Embedded {
    async fn bury(&self, letter: &DeadLetter) -> Result<(), LogError> {
        check_name(&letter.group)?;
        self.with(|core| {
            let before = buried::stored(&core.store, &letter.group, letter.entry.record.event)?;
            let mut batch = core.store.batch();
            buried::write(&mut batch, &core.store, before.as_ref(), letter);
            Store::commit(batch, true).map_err(Broken)?;
            buried::count(&mut core.letters, before.as_ref(), letter);
            Ok(())
        })
    }

    async fn give_up(
        &self,
        lease: Lease,
        letter: &DeadLetter,
        obituary: Option<Draft>,
    ) -> Result<Option<Draft>, LogError> {
        check_name(&letter.group)?;
        self.step();
        let mut inner = self.inner.borrow_mut();
        if inner.core.is_none() {
            return Err(inner.unavailable());
        }
        // Nobody names a group so long that its letters could not be announced.
        let obituary = obituary.filter(|draft| super::refusal(draft).is_none());
        match inner.give_up(lease, letter, obituary) {
            Ok(()) => {
                drop(inner);
                self.changed.notify_waiters();
                Ok(None)
            }
            Err(broken) => {
                inner.fail(&broken);
                Err(inner.unavailable())
            }
        }
    }

    async fn dead_letters(
        &self,
        group: Option<&str>,
        after: Option<(&str, EventId)>,
        limit: usize,
    ) -> Result<Vec<DeadLetter>, LogError> {
        let group = group.map(str::to_owned);
        let after = after.map(|(group, event)| (group.to_owned(), event));
        let (letters, damaged) = self
            .reading(move |_, store| {
                let after = after
                    .as_ref()
                    .map(|(group, event)| (group.as_str(), *event));
                buried::list(store, group.as_deref(), after, limit)
            })
            .await?;
        self.inner.borrow_mut().damaged += damaged;
        Ok(letters)
    }

    async fn dead_letter(
        &self,
        group: &str,
        event: EventId,
    ) -> Result<Option<DeadLetter>, LogError> {
        let key = buried::key(group, event);
        let letter = self
            .reading(move |_, store| {
                let value = store.letters.get(&key)?;
                Ok(value.map(|value| buried::decode(&key, bytes_of(value))))
            })
            .await?;
        letter
            .transpose()
            .map_err(|damage| unreadable(&damage.to_string()))
    }

    async fn exhume(&self, group: &str, event: EventId) -> Result<bool, LogError> {
        self.with(|core| {
            let Some(row) = buried::stored(&core.store, group, event)? else {
                return Ok(false);
            };
            let mut batch = core.store.batch();
            row.remove(&mut batch, &core.store);
            Store::commit(batch, true).map_err(Broken)?;
            core.letters.take(group, row.cause, row.bytes);
            Ok(true)
        })
    }

    async fn expire_letters(&self, bounds: Bounds) -> Result<Vec<Box<str>>, LogError> {
        self.with(|core| {
            let now_ms = core.clock.now_ms();
            let (mut letters, mut bytes) = (core.letters.letters, core.letters.bytes);
            let mut rows = Vec::new();
            for guard in core
                .store
                .state
                .prefix(buried::BY_TIME)
                .take(EXPIRED_AT_ONCE)
            {
                let (key, value) = guard.into_inner()?;
                let row = match Row::read(&key, &value) {
                    Some(row) if !bounds.are_passed(row.unix_ms, now_ms, letters, bytes) => break,
                    Some(row) => row,
                    None => continue,
                };
                letters = letters.saturating_sub(1);
                bytes = bytes.saturating_sub(row.bytes);
                rows.push(row);
            }
            if rows.is_empty() {
                return Ok(Vec::new());
            }
            let mut batch = core.store.batch();
            for row in &rows {
                row.remove(&mut batch, &core.store);
            }
            Store::commit(batch, true).map_err(Broken)?;
            let mut gone = Vec::with_capacity(rows.len());
            for row in rows {
                let group = row.group();
                core.letters.take(&group, row.cause, row.bytes);
                gone.push(group);
            }
            Ok(gone)
        })
    }

    fn announce_by(&self, announce: Announce) {
        self.inner.borrow_mut().announce = Some(announce);
    }

    fn census(&self) -> Census {
        let inner = self.inner.borrow();
        let core = inner.core.as_ref();
        core.map_or_else(|| inner.letters.clone(), |core| core.letters.clone())
    }
}
