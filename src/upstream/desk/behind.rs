//! Groups that are too far behind for more (`lag_max`): who publishes for them is told to come again later.

use std::rc::Rc;
use std::time::Duration;

use super::{Inner, Outlet, Place};
use crate::config::glob_match;
use crate::config::namespace::leaves_out;
use crate::mesh::durable::LogError;
use crate::model::Record;
use crate::upstream::log::Groups;

/// How often it is looked how far they are behind. What came since counts as not done.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// A publisher is told to come again after this.
const RETRY_AFTER: Duration = Duration::from_secs(1);

impl<L, O: Outlet> Inner<L, O> {
    /// Why something is not published: a group that would get it is as far behind as it may be. What is not refused counts for all
    /// groups that get it.
    pub(super) fn hold_back(&self, record: &Record) -> Option<LogError> {
        if self.limited.get() == 0 {
            return None;
        }
        let groups = self.groups.borrow();
        let wanting = || groups.iter().flatten().filter(|place| place.wants(record));
        let full = wanting().find(|place| place.is_behind());
        if let Some(place) = full {
            place.refused.set(place.refused.get() + 1);
            return Some(LogError::Behind {
                retry_after: RETRY_AFTER,
            });
        }
        for place in wanting() {
            place.came.set(place.came.get() + 1);
        }
        None
    }

    /// How many groups have a bound may have changed.
    pub(super) fn count_limited(&self) {
        let groups = self.groups.borrow();
        let limited = groups.iter().flatten().filter(|place| place.lag_max() > 0);
        self.limited.set(limited.count());
    }
}

impl<L: Groups, O: Outlet> Inner<L, O> {
    /// Looks how far behind those groups are that have a bound.
    pub(super) async fn watch_limited(self: Rc<Self>) {
        while !self.is_closed.get() {
            let places: Vec<_> = self.groups.borrow().iter().flatten().cloned().collect();
            for place in places.iter().filter(|place| place.lag_max() > 0) {
                let came = place.came.get();
                if let Ok(lag) = self.log.lag(&place.name).await {
                    place.lag.set(lag);
                    // What comes while the log counts may be counted twice. What was let through and is not stored yet when it
                    // counts is not counted until the next look: a group may get a little more than its bound.
                    place.came.set(place.came.get() - came);
                }
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

impl Place {
    fn lag_max(&self) -> u64 {
        self.group.borrow().settings().lag_max
    }

    /// It has as much to do as it may have.
    fn is_behind(&self) -> bool {
        self.undone() + self.came.get() >= self.lag_max()
    }

    /// It has a bound, and gets this.
    fn wants(&self, record: &Record) -> bool {
        let group = self.group.borrow();
        let settings = group.settings();
        let channel = record.channel.whole();
        let matches = |one: &str| glob_match(one, channel) && !leaves_out(one, channel);
        settings.lag_max > 0
            && settings.channels.iter().any(|one| matches(one))
            && group.takes(record)
    }
}
