//! Fetches from the question until their answer is known to be with its caller: what finds nobody goes to others.

use bytes::Bytes;

use super::encode::Given;
use super::group::Holder;
use super::{Asker, Consumer, Inner, Outlet, Place, WorkerId, encode};
use crate::wire::json::write::Members;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Fetch {
    /// The connection that asked; `None` for a service.
    worker: Option<WorkerId>,
    /// Whoever asked does not wait any more.
    is_abandoned: bool,
    /// Index of the group where it waits, or that it was given from.
    group: Option<usize>,
    /// Deliveries of its answer.
    given: Vec<u64>,
    /// Their bytes.
    bytes: usize,
}

impl<L, O: Outlet> Inner<L, O> {
    pub(super) fn begins_to_fetch(&self, asker: Asker, worker: Option<WorkerId>) {
        let fetch = Fetch {
            worker,
            ..Fetch::default()
        };
        self.fetches.borrow_mut().insert(asker, fetch);
    }

    /// A group answers it from now on. `false`: nobody waits for that.
    pub(super) fn waits_in(&self, asker: Asker, place: &Place) -> bool {
        let mut fetches = self.fetches.borrow_mut();
        let Some(fetch) = fetches.get_mut(&asker) else {
            return false;
        };
        fetch.group = Some(place.index);
        !fetch.is_abandoned
    }

    /// It is answered without deliveries.
    pub(super) fn ends_to_fetch(&self, asker: Asker) {
        self.fetches.borrow_mut().remove(&asker);
    }

    /// Gives a fetch its deliveries. They stay its own until the answer is known to be taken.
    pub(super) fn answer_fetch(&self, place: &Place, asker: Asker, givens: &[Given], bytes: usize) {
        if givens.is_empty() {
            self.ends_to_fetch(asker);
        } else if let Some(fetch) = self.fetches.borrow_mut().get_mut(&asker) {
            fetch.given = givens.iter().map(|given| given.delivery).collect();
            fetch.bytes = bytes;
            if let Some(worker) = fetch.worker
                && let Some(worker) = self.workers.borrow_mut().get_mut(&worker)
            {
                worker.answers.push(asker);
            }
        }
        let mut out = Vec::new();
        Members::open(&mut out).array("deliveries", givens, |out, given| {
            encode::delivery(out, &place.name, given);
        });
        self.outlet.answer(asker, Ok(Bytes::from(out)));
    }

    /// See `Desk::taken`.
    pub(super) fn take_answer(&self, asker: Asker) {
        let Some(fetch) = self.fetches.borrow_mut().remove(&asker) else {
            return;
        };
        let Some(name) = fetch.worker else { return };
        let is_awaited = self
            .workers
            .borrow_mut()
            .get_mut(&name)
            .is_some_and(|worker| {
                worker.answers.retain(|answer| *answer != asker);
                worker.answered.give(fetch.bytes)
            });
        if is_awaited {
            self.wake_groups_of(name, fetch.group.unwrap_or_default());
        }
    }

    /// See `Desk::abandoned`.
    pub(super) fn abandon(&self, asker: Asker) {
        let (index, given) = {
            let mut fetches = self.fetches.borrow_mut();
            let Some(fetch) = fetches.get_mut(&asker) else {
                return;
            };
            fetch.is_abandoned = true;
            let found = (fetch.group, std::mem::take(&mut fetch.given));
            if !found.1.is_empty() {
                fetches.remove(&asker);
            }
            found
        };
        let place = index.and_then(|index| self.groups.borrow().get(index).cloned().flatten());
        let Some(place) = place else { return };
        let mut group = place.group.borrow_mut();
        if given.is_empty() {
            group.handle_abandoned(self.now(), asker);
        }
        let now = self.now();
        let mut returned = 0;
        for delivery in given {
            returned += usize::from(group.handle_returned(now, Holder::Service, delivery));
        }
        self.count_returned(returned);
        place.wake.notify_one();
    }

    /// So many deliveries go to others, as whoever had them is gone.
    pub(super) fn count_returned(&self, deliveries: usize) {
        self.returned.set(self.returned.get() + deliveries as u64);
    }

    /// Its connection is gone, and so are its answers.
    pub(super) fn forget_answers(&self, worker: &Consumer) {
        let mut fetches = self.fetches.borrow_mut();
        for answer in &worker.answers {
            fetches.remove(answer);
        }
    }

    /// A connection has room for bytes again. Its groups look in turn: those behind `last`, which had the room, then the
    /// others, `last` at the end. Gives whether there are others.
    pub(super) fn wake_groups_of(&self, worker: WorkerId, last: usize) -> bool {
        let workers = self.workers.borrow();
        let groups = self.groups.borrow();
        let Some(worker) = workers.get(&worker) else {
            return false;
        };
        let behind = worker.groups.range(last + 1..);
        for index in behind.chain(worker.groups.range(..=last)) {
            if let Some(Some(place)) = groups.get(*index) {
                place.wake.notify_one();
            }
        }
        worker.groups.iter().any(|index| *index != last)
    }
}
