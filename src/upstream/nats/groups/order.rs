//! Order in a group whose channels keep theirs.
//!
//! JetStream gives a lost delivery again when its lease has run out, and what is later meanwhile. So what comes is passed on
//! only while it is *known* that the server has leased nothing that is not here: it numbers its deliveries without holes.
//! After a hole (a server or a connection was lost), at the start, and when another process had the group, what comes is
//! collected until the server has leased as much as is held here; then it goes on in the order of the stream. One process at a
//! time gets deliveries: the server pins it. What the one before still works on is waited for in the same way.

use std::collections::BTreeMap;
use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::jetstream::consumer::{Info, PriorityPolicy, pull::Config};
use serde::Serialize;
use tokio::time::Instant;

use crate::limits::GROUP_COLLECTED_MAX;
use crate::upstream::log::Leased;

/// Name of the only group of pullers that a consumer has.
pub(super) const PULLERS: &str = "ordered";
/// A process that has not asked for so long loses its pin: longer than the server holds one request.
const PIN: Duration = Duration::from_secs(10);
/// How much later than it should the server notices that a lease has run out.
const LEASE_GRACE: Duration = Duration::from_secs(1);
/// Between two looks at the server's account: at first, and at most.
const LOOK_PAUSE: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(500));

/// What a request to a pinning consumer says beside its size.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Puller {
    group: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
}

/// The server's account of a group beside that of this process.
#[derive(Clone, Copy)]
pub(super) struct Account {
    /// Leases.
    leased: usize,
    /// Of what is held here, that which the server can have leased.
    held: usize,
    /// Number of the last delivery.
    delivered: u64,
}

impl Account {
    /// `held` are the sequences of what is held here.
    pub(super) fn new(info: &Info, held: impl Iterator<Item = u64>) -> Self {
        // A server that came to lead may not know of the last deliveries: it makes them again.
        let last = info.delivered.stream_sequence;
        Self {
            leased: info.num_ack_pending,
            held: held.filter(|sequence| *sequence <= last).count(),
            delivered: info.delivered.consumer_sequence,
        }
    }
}

/// See the module.
pub(super) struct Order {
    /// Number of the next delivery, if all that the server has leased is here.
    next: Option<u64>,
    /// What waits until that is known, by sequence.
    pub collected: BTreeMap<u64, Leased>,
    /// The server calls this process so.
    pin: Option<String>,
    /// Nothing is asked for earlier: what has run out until then is given before anything later.
    ask_at: Instant,
    look_at: Instant,
    pause: Duration,
}

impl Order {
    /// Nothing is known yet. `lease` is how long leases last.
    pub(super) fn new(lease: Duration) -> Self {
        let now = Instant::now();
        Self {
            next: None,
            collected: BTreeMap::new(),
            pin: None,
            ask_at: now + lease + LEASE_GRACE,
            look_at: now,
            pause: LOOK_PAUSE.0,
        }
    }

    /// Whether what comes may be passed on.
    pub(super) const fn is_known(&self) -> bool {
        self.next.is_some()
    }

    /// Something that the server has leased may be lost: it is given again after this time.
    pub(super) fn lose(&mut self, lease: Duration) {
        let now = Instant::now();
        self.next = None;
        self.ask_at = now + lease + LEASE_GRACE;
        (self.look_at, self.pause) = (now, LOOK_PAUSE.0);
    }

    /// A delivery came: its number, and how often its entry was given.
    pub(super) fn came(&mut self, number: u64, times: i64, lease: Duration) {
        match self.next {
            Some(next) if next == number => self.next = Some(number + 1),
            Some(_) => self.lose(lease),
            None => self.look_at = Instant::now(),
        }
        if self.next.is_none() && times > 1 {
            // What has run out comes at last, and more of it may be behind.
            self.ask_at = Instant::now();
        }
    }

    /// When the next look at the account is due.
    pub(super) const fn look_at(&self) -> Instant {
        self.look_at
    }

    /// Compares accounts that are `steady`. `true` if nothing is elsewhere: what was collected may go on.
    pub(super) fn look(&mut self, account: &Account, is_steady: bool) -> bool {
        if is_steady && account.leased == account.held {
            self.next = Some(account.delivered + 1);
            return true;
        }
        self.look_at = Instant::now() + self.pause;
        self.pause = (self.pause * 2).min(LOOK_PAUSE.1);
        false
    }

    /// How many deliveries may be asked for while it is not known.
    pub(super) fn wanted(&self, account: &Account) -> usize {
        if Instant::now() < self.ask_at || self.collected.len() >= GROUP_COLLECTED_MAX {
            return 0;
        }
        account.leased.saturating_sub(account.held)
    }

    /// Deliveries were asked for.
    pub(super) fn asked(&mut self, lease: Duration) {
        if self.next.is_none() {
            self.ask_at = Instant::now() + lease + LEASE_GRACE;
        }
    }

    /// Who asks.
    pub(super) fn puller(&self) -> Puller {
        Puller {
            group: PULLERS,
            id: self.pin.clone(),
        }
    }

    /// Remembers how the server calls this process.
    pub(super) fn pinned(&mut self, headers: &HeaderMap) {
        // The server's word is the last one; a publisher may have said something before.
        if let Some(id) = headers.get_last("Nats-Pin-Id")
            && self.pin.as_deref() != Some(id.as_str())
        {
            self.pin = Some(id.as_str().to_owned());
        }
    }

    /// The server calls nobody or somebody else so. Gives what was collected: it is not for this process any more.
    pub(super) fn unpinned(&mut self) -> BTreeMap<u64, Leased> {
        self.pin = None;
        std::mem::take(&mut self.collected)
    }
}

/// Makes the consumer of an ordered group one that gives to one process at a time.
pub(super) fn pin(config: &mut Config) {
    config.priority_policy = PriorityPolicy::PinnedClient;
    config.priority_groups = vec![PULLERS.to_owned()];
    config.priority_timeout = PIN;
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_secs(10);

    fn account(leased: usize, held: usize) -> Account {
        Account {
            leased,
            held,
            delivered: 7,
        }
    }

    fn known() -> Order {
        let mut order = Order::new(LEASE);
        assert!(!order.is_known(), "an earlier process may have leases");
        assert!(order.look(&account(3, 3), true));
        order
    }

    #[test]
    fn deliveries_without_a_hole_go_on_and_one_that_is_missing_stops_them() {
        let mut order = known();
        order.came(8, 1, LEASE);
        order.came(9, 2, LEASE);
        assert!(order.is_known());
        order.came(11, 1, LEASE);
        assert!(!order.is_known());
        order.came(12, 1, LEASE);
        assert!(!order.is_known());
    }

    #[test]
    fn number_that_was_there_already_is_a_hole_too() {
        let mut order = known();
        order.came(7, 1, LEASE);
        assert!(!order.is_known());
    }

    #[test]
    fn account_that_differs_or_moves_proves_nothing() {
        let mut order = known();
        order.lose(LEASE);
        assert!(!order.look(&account(3, 2), true));
        assert!(!order.look(&account(2, 3), true));
        assert!(!order.look(&account(3, 3), false));
        assert!(order.look(&account(0, 0), true));
    }

    #[test]
    fn server_is_believed_who_is_pinned_and_no_publisher() {
        let mut order = known();
        let mut headers = HeaderMap::new();
        headers.append("Nats-Pin-Id", "of a publisher");
        headers.append("Nats-Pin-Id", "of the server");
        order.pinned(&headers);
        assert_eq!(order.puller().id.as_deref(), Some("of the server"));
        order.unpinned();
        assert_eq!(order.puller().id, None);
    }

    #[test]
    fn what_is_missing_is_asked_for_when_it_has_run_out_and_more_of_it_at_once() {
        let mut order = known();
        order.lose(LEASE);
        assert_eq!(order.wanted(&account(5, 2)), 0, "it is leased still");
        order.came(20, 1, LEASE);
        assert_eq!(order.wanted(&account(5, 2)), 0, "that was never given");
        order.came(21, 2, LEASE);
        assert_eq!(order.wanted(&account(5, 2)), 3);
        order.asked(LEASE);
        assert_eq!(order.wanted(&account(5, 2)), 0);
    }
}
