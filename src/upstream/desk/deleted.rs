//! Groups that are deleted: whoever takes from one is told, and so is who speaks of it later.

use std::collections::VecDeque;
use std::rc::Rc;

use bytes::Bytes;

use super::gather::kept_at;
use super::triggers::TRIGGER_PREFIX;
use super::{Inner, Outlet, Place, no_group, own};
use crate::mesh::durable::LogError;
use crate::upstream::log::{Groups, Values};
use crate::wire::json::write::Members;

/// Groups that are remembered.
const REMEMBERED: usize = 64;

/// Index and name of the groups that were deleted of late, the oldest first. While one is remembered, its index is not given to
/// another one.
#[derive(Debug, Default)]
pub(super) struct Deleted(VecDeque<(usize, Box<str>)>);

impl Deleted {
    fn add(&mut self, index: usize, name: &str) {
        if self.0.len() >= REMEMBERED {
            self.0.pop_front();
        }
        self.0.push_back((index, name.into()));
    }

    /// Nothing is known of it any more.
    pub(super) fn forget_index(&mut self, index: usize) {
        self.0.retain(|(at, _)| *at != index);
    }

    /// The group that had this index.
    pub(super) fn at(&self, index: usize) -> Option<&str> {
        let found = self.0.iter().find(|(at, _)| *at == index)?;
        Some(&found.1)
    }

    fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(_, known)| **known == *name)
    }
}

impl<L, O: Outlet> Inner<L, O> {
    /// There is no such group, and why.
    pub(super) fn absent(&self, name: &str) -> LogError {
        if self.deleted.borrow().has(name) {
            deleted(name)
        } else {
            no_group(name)
        }
    }

    /// Nobody finds the group any more.
    fn take_off(&self, place: &Place) {
        let mut by_name = self.by_name.borrow_mut();
        if by_name.get(&place.name) == Some(&place.index) {
            by_name.remove(&place.name);
        }
        self.groups.borrow_mut()[place.index] = None;
        self.deleted.borrow_mut().add(place.index, &place.name);
        for worker in self.workers.borrow_mut().values_mut() {
            worker.groups.remove(&place.index);
        }
        tracing::info!(group = &*place.name, "a queue group is deleted");
    }
}

impl<L: Groups + Values, O: Outlet> Inner<L, O> {
    /// Deletes a group. `false` if there is none.
    pub(super) async fn forget(&self, name: &str) -> Result<bool, LogError> {
        if let Some(place) = self.place(name) {
            place.is_deleted.set(true);
            place.is_gone.set(true);
            place.wake.notify_one();
            while !place.ended.get() {
                tokio::time::sleep(std::time::Duration::from_millis(1)).await;
            }
            self.take_off(&place);
        }
        self.log.put(&format!("group/{name}"), None).await?;
        if name.starts_with(TRIGGER_PREFIX) {
            self.log.put(&kept_at(name), None).await?;
        }
        self.log.delete_group(name).await
    }

    /// The log says that there is no such group: another process, or a program of others, may have deleted it.
    pub(super) async fn look_whether_deleted(&self, place: &Rc<Place>) {
        let Ok(groups) = self.log.groups().await else {
            return;
        };
        if groups.iter().all(|group| group.name != place.name) && !place.is_gone.get() {
            place.is_deleted.set(true);
            place.is_gone.set(true);
            self.take_off(place);
        }
    }
}

/// What a connection is told when a group that it takes from is deleted.
pub(super) fn message(group: &str) -> Bytes {
    let mut out = Vec::new();
    let mut members = Members::open(&mut out);
    members.text("group", own(group));
    members.boolean("deleted", true);
    members.close();
    Bytes::from(out)
}

/// Why a fetch has no deliveries.
pub(super) fn deleted(group: &str) -> LogError {
    LogError::NotFound(format!("the group `{}` was deleted", own(group)).into())
}
