//! Gathers the counters of all shards for whoever asks at the time.

use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::metrics::Counters;
use crate::model::ShardId;

/// Where an answer goes.
pub(super) type Question = oneshot::Sender<Observation>;
/// Counters by shard; `None` for a shard that did not answer in time.
pub(super) type Observation = Vec<Option<Box<Counters>>>;

/// One round of counters under way.
pub(super) struct Gather {
    /// Everybody who asked since the round began.
    pub(super) waiting: Vec<Question>,
    /// Then the round is closed with what has come.
    pub(super) until: Instant,
    slots: Vec<Slot>,
}

enum Slot {
    Asked,
    Answered(Box<Counters>),
    Silent,
}

impl Gather {
    pub(super) fn new(shards: usize, until: Instant) -> Self {
        Self {
            waiting: Vec::new(),
            until,
            slots: (0..shards).map(|_| Slot::Asked).collect(),
        }
    }

    pub(super) fn observed(&mut self, shard: ShardId, counters: Box<Counters>) {
        self.slots[usize::from(shard.0)] = Slot::Answered(counters);
    }

    /// The shard will not answer.
    pub(super) fn give_up(&mut self, shard: ShardId) {
        let slot = &mut self.slots[usize::from(shard.0)];
        if matches!(slot, Slot::Asked) {
            *slot = Slot::Silent;
        }
    }

    pub(super) fn is_complete(&self) -> bool {
        !self.slots.iter().any(|slot| matches!(slot, Slot::Asked))
    }

    /// Answers everybody. Somebody who has gone is no concern.
    pub(super) fn answer(self) {
        let observation: Observation = self
            .slots
            .into_iter()
            .map(|slot| match slot {
                Slot::Answered(counters) => Some(counters),
                Slot::Asked | Slot::Silent => None,
            })
            .collect();
        for question in self.waiting {
            drop(question.send(observation.clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_silent_shard_is_reported_and_the_others_are_not_lost() {
        let mut gather = Gather::new(2, Instant::now());
        let (question, answer) = oneshot::channel();
        gather.waiting.push(question);
        gather.observed(
            ShardId(1),
            Box::new(Counters {
                accepted: 7,
                ..Counters::default()
            }),
        );
        assert!(!gather.is_complete());
        gather.give_up(ShardId(0));
        gather.give_up(ShardId(1));
        assert!(gather.is_complete());
        gather.answer();
        let observation = answer.await.expect("an answer");
        assert!(observation[0].is_none());
        assert_eq!(
            observation[1].as_ref().map(|counters| counters.accepted),
            Some(7)
        );
    }
}
