//! Where each shard is in its life.

use crate::mesh::control::DrainOutcome;
use crate::model::ShardId;

/// One entry for each shard, indexed by its id.
pub(super) struct Roster(Vec<Life>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    Starting,
    Ready,
    /// `None`: failed.
    Ended(Option<DrainOutcome>),
}

impl Roster {
    pub(super) fn new(shards: usize) -> Self {
        Self(vec![Life::Starting; shards])
    }

    pub(super) fn ready(&mut self, shard: ShardId) {
        let life = &mut self.0[usize::from(shard.0)];
        assert!(matches!(life, Life::Starting), "a shard becomes ready once");
        *life = Life::Ready;
    }

    /// A shard that failed stays failed, whatever it says later.
    pub(super) fn ended(&mut self, shard: ShardId, outcome: Option<DrainOutcome>) {
        let life = &mut self.0[usize::from(shard.0)];
        if !matches!(life, Life::Ended(None)) {
            *life = Life::Ended(outcome);
        }
    }

    pub(super) fn ready_count(&self) -> usize {
        self.0
            .iter()
            .filter(|life| matches!(life, Life::Ready))
            .count()
    }

    pub(super) fn is_all_ready(&self) -> bool {
        self.ready_count() == self.0.len()
    }

    pub(super) fn has_ended(&self, shard: ShardId) -> bool {
        matches!(self.0[usize::from(shard.0)], Life::Ended(_))
    }

    pub(super) fn is_all_ended(&self) -> bool {
        self.0.iter().all(|life| matches!(life, Life::Ended(_)))
    }

    /// Shards that have not ended.
    pub(super) fn silent(&self) -> Vec<usize> {
        self.0
            .iter()
            .enumerate()
            .filter(|(_, life)| !matches!(life, Life::Ended(_)))
            .map(|(at, _)| at)
            .collect()
    }

    /// The sum over all shards; `None` when one failed or has not ended.
    pub(super) fn outcome(&self) -> Option<DrainOutcome> {
        let mut sum = DrainOutcome::default();
        for life in &self.0 {
            let Life::Ended(Some(outcome)) = life else {
                return None;
            };
            let DrainOutcome {
                told,
                left,
                forced,
                unanswered,
                unacked,
            } = outcome;
            sum.told += told;
            sum.left += left;
            sum.forced += forced;
            sum.unanswered += unanswered;
            sum.unacked += unacked;
        }
        Some(sum)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_outcome_is_the_sum_once_every_shard_has_drained() {
        let mut roster = Roster::new(2);
        roster.ready(ShardId(0));
        roster.ready(ShardId(1));
        assert!(roster.is_all_ready());
        roster.ended(
            ShardId(0),
            Some(DrainOutcome {
                told: 3,
                forced: 1,
                unanswered: 1,
                ..DrainOutcome::default()
            }),
        );
        assert_eq!(roster.outcome(), None);
        assert_eq!(roster.silent(), [1]);
        roster.ended(
            ShardId(1),
            Some(DrainOutcome {
                told: 2,
                left: 7,
                unacked: 4,
                ..DrainOutcome::default()
            }),
        );
        assert!(roster.is_all_ended());
        assert_eq!(
            roster.outcome(),
            Some(DrainOutcome {
                told: 5,
                left: 7,
                forced: 1,
                unanswered: 1,
                unacked: 4
            })
        );
    }

    #[test]
    fn a_failed_shard_leaves_no_outcome() {
        let mut roster = Roster::new(1);
        roster.ended(ShardId(0), None);
        roster.ended(ShardId(0), Some(DrainOutcome::default()));
        assert!(roster.is_all_ended());
        assert_eq!(roster.outcome(), None);
    }
}
