//! The in-band checker: what each subscription has received of its channel, compared with what was published.

use std::collections::BTreeMap;
use std::ops::Range;

use serde::Serialize;

/// Books of all subscriptions of a swarm.
#[derive(Debug)]
pub(crate) struct Ledger {
    /// The sequence each subscription must receive next.
    next: Vec<u32>,
    /// Sequences that were skipped and may still come late, by subscription.
    gaps: BTreeMap<u32, Vec<Range<u32>>>,
    counts: Counts,
}

/// What the ledger has found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Counts {
    /// Publications received for the first time.
    pub(crate) delivered: u64,
    /// Published to a subscription and never received.
    pub(crate) lost: u64,
    /// Received more than once.
    pub(crate) duplicated: u64,
    /// Received after a later one.
    pub(crate) reordered: u64,
}

impl Counts {
    /// The contract allows none of these on a connection that stayed open.
    #[must_use]
    pub(crate) const fn is_clean(self) -> bool {
        self.lost == 0 && self.duplicated == 0 && self.reordered == 0
    }
}

/// What one arrival was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// For the first time.
    New,
    /// Again.
    Repeated,
}

impl Ledger {
    /// Books for `subscriptions`, each of which begins with sequence 0.
    #[must_use]
    pub(crate) fn new(subscriptions: usize) -> Self {
        Self {
            next: vec![0; subscriptions],
            gaps: BTreeMap::new(),
            counts: Counts::default(),
        }
    }

    /// Books one arrival.
    #[inline]
    pub(crate) fn arrived(&mut self, subscription: u32, sequence: u32) -> Arrival {
        let next = &mut self.next[subscription as usize];
        if sequence == *next {
            *next += 1;
            self.counts.delivered += 1;
            return Arrival::New;
        }
        self.arrived_out_of_order(subscription, sequence)
    }

    #[cold]
    fn arrived_out_of_order(&mut self, subscription: u32, sequence: u32) -> Arrival {
        let next = &mut self.next[subscription as usize];
        if sequence > *next {
            self.gaps
                .entry(subscription)
                .or_default()
                .push(*next..sequence);
            *next = sequence + 1;
            self.counts.delivered += 1;
            return Arrival::New;
        }
        let gaps = self.gaps.get_mut(&subscription);
        let found = gaps.and_then(|gaps| {
            gaps.iter()
                .position(|gap| gap.contains(&sequence))
                .map(|i| (gaps, i))
        });
        let Some((gaps, i)) = found else {
            self.counts.duplicated += 1;
            return Arrival::Repeated;
        };
        let gap = gaps.swap_remove(i);
        gaps.extend(
            [gap.start..sequence, sequence + 1..gap.end]
                .into_iter()
                .filter(|rest| !rest.is_empty()),
        );
        self.counts.reordered += 1;
        self.counts.delivered += 1;
        Arrival::New
    }

    /// The sequence that the subscription must receive next.
    #[must_use]
    pub(crate) fn next(&self, subscription: u32) -> u32 {
        self.next[subscription as usize]
    }

    /// What the subscription still misses when its channel has published `published` in all.
    #[must_use]
    pub(crate) fn missing(&self, subscription: u32, published: u32) -> u64 {
        let gaps = self
            .gaps
            .get(&subscription)
            .into_iter()
            .flatten()
            .map(|gap| u64::from(gap.end - gap.start));
        u64::from(published.saturating_sub(self.next[subscription as usize])) + gaps.sum::<u64>()
    }

    /// What was found so far; nothing counts as lost yet.
    #[must_use]
    pub(crate) const fn counts(&self) -> Counts {
        self.counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn closed(ledger: &Ledger, published: u32) -> Counts {
        let all = 0..ledger.next.len() as u32;
        Counts {
            lost: all.map(|one| ledger.missing(one, published)).sum(),
            ..ledger.counts()
        }
    }

    #[test]
    fn everything_in_order_is_clean() {
        let mut ledger = Ledger::new(2);
        for sequence in 0..10 {
            assert_eq!(ledger.arrived(0, sequence), Arrival::New);
            assert_eq!(ledger.arrived(1, sequence), Arrival::New);
        }
        let counts = closed(&ledger, 10);
        assert_eq!(
            counts,
            Counts {
                delivered: 20,
                ..Counts::default()
            }
        );
        assert!(counts.is_clean());
    }

    #[test]
    fn hole_and_missing_tail_are_lost() {
        let mut ledger = Ledger::new(1);
        for sequence in [0, 1, 5, 6] {
            ledger.arrived(0, sequence);
        }
        let counts = closed(&ledger, 9);
        assert_eq!(
            counts,
            Counts {
                delivered: 4,
                lost: 3 + 2,
                ..Counts::default()
            }
        );
        assert!(!counts.is_clean());
    }

    #[test]
    fn late_arrival_is_reordered_and_no_longer_lost() {
        let mut ledger = Ledger::new(1);
        for sequence in [0, 4, 2] {
            assert_eq!(ledger.arrived(0, sequence), Arrival::New);
        }
        assert_eq!(
            closed(&ledger, 5),
            Counts {
                delivered: 3,
                lost: 2,
                reordered: 1,
                ..Counts::default()
            }
        );
        for sequence in [1, 3] {
            ledger.arrived(0, sequence);
        }
        assert_eq!(
            closed(&ledger, 5),
            Counts {
                delivered: 5,
                reordered: 3,
                ..Counts::default()
            }
        );
    }

    #[test]
    fn second_arrival_is_duplicated_and_delivered_once() {
        let mut ledger = Ledger::new(1);
        for sequence in [0, 1, 3] {
            ledger.arrived(0, sequence);
        }
        assert_eq!(ledger.arrived(0, 1), Arrival::Repeated);
        assert_eq!(ledger.arrived(0, 3), Arrival::Repeated);
        assert_eq!(ledger.arrived(0, 2), Arrival::New);
        assert_eq!(ledger.arrived(0, 2), Arrival::Repeated);
        let expected = Counts {
            delivered: 4,
            duplicated: 3,
            reordered: 1,
            lost: 0,
        };
        assert_eq!(closed(&ledger, 4), expected);
    }
}
