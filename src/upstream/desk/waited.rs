//! Operations on groups, which have their turn one after the other: what nobody waits for any more when its turn comes is not begun.

use std::cell::RefCell;
use std::collections::BTreeMap;

use tokio::sync::MutexGuard;

use super::{Asker, Inner, Outlet, RETRY};
use crate::mesh::durable::{LogError, LogMethod};

/// Who waits for an operation, by shard and number, and whether that one has given it up.
#[derive(Default)]
pub(super) struct Waited(RefCell<BTreeMap<(u16, u32, u32), bool>>);

const fn key((shard, id): Asker) -> (u16, u32, u32) {
    (shard.0, id.0.slot, id.0.generation)
}

impl Waited {
    pub(super) fn begin(&self, asker: Asker, method: LogMethod) {
        if is_operation(method) {
            self.0.borrow_mut().insert(key(asker), false);
        }
    }

    pub(super) fn end(&self, asker: Asker) {
        self.0.borrow_mut().remove(&key(asker));
    }

    pub(super) fn give_up(&self, asker: Asker) {
        if let Some(is_given_up) = self.0.borrow_mut().get_mut(&key(asker)) {
            *is_given_up = true;
        }
    }

    /// Nobody waits for it any more. What the desk does by itself nobody gives up.
    pub(super) fn check(&self, asker: Option<Asker>) -> Result<(), LogError> {
        let asked = self.0.borrow();
        match asker.and_then(|asker| asked.get(&key(asker))) {
            Some(true) => Err(LogError::Unavailable {
                reason: "nobody waits for it any more: it is not begun".into(),
                retry_after: RETRY,
            }),
            Some(false) | None => Ok(()),
        }
    }
}

const fn is_operation(method: LogMethod) -> bool {
    matches!(
        method,
        LogMethod::DeleteGroup
            | LogMethod::PauseGroup
            | LogMethod::ResumeGroup
            | LogMethod::SeekGroup
            | LogMethod::PurgeGroup
            | LogMethod::CopyGroup
    )
}

impl<L, O: Outlet> Inner<L, O> {
    /// Waits until an operation has its turn. An error: it is not to be begun any more.
    pub(super) async fn turn_of(
        &self,
        asker: Option<Asker>,
    ) -> Result<MutexGuard<'_, ()>, LogError> {
        let turn = self.opening.lock().await;
        self.waited.check(asker)?;
        Ok(turn)
    }
}
