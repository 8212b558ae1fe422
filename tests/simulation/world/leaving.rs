//! What a drain promises, looked at after each turn of a shard that drains: everybody is told once, those who came first are told first,
//! the pace is even, and everybody is in the report.

use std::collections::BTreeMap;
use std::time::Duration;

use ringmain::mem::{Tick, TimerWheel};
use ringmain::mesh::control::DrainOutcome;
use ringmain::model::ConnId;
use ringmain::shard::Shard;
use ringmain::time::Instant;

use super::Truth;

/// What is counted of the pace.
const BIN: Duration = Duration::from_millis(100);
/// What chance and the steps of the clock may add to a bin.
const SLACK: u64 = 3;

/// One shard on its way out.
#[derive(Debug, Default)]
pub struct Leaving {
    /// When the drain began, and how long its window is; none before.
    began: Option<(Instant, Duration)>,
    /// Those who are there: when they came, and whether they have been told.
    seen: BTreeMap<(u32, u32), (Tick, bool)>,
    /// Those who waited for their turn when the shard was looked at last.
    waited: Vec<(u32, u32)>,
    /// Those who were there when it began and were told in their turn, by bins.
    told: BTreeMap<u64, u64>,
}

impl Leaving {
    pub fn begin(&mut self, now: Instant, window: Duration) {
        self.began = Some((now, window));
    }

    /// After a turn.
    pub fn look(&mut self, now: Instant, shard: &Shard, truth: &mut Truth) {
        let Some((began, _)) = self.began else { return };
        let leavers = shard.leavers();
        let name = |conn: ConnId| (conn.slot, conn.generation);
        // Those who were taken in since are in the order in which their requests came.
        let was_there = |since: Tick| since <= TimerWheel::tick(began);
        for leaver in &leavers {
            let before = self.seen.get(&name(leaver.conn)).copied();
            assert!(
                leaver.is_told || leaver.is_cut || before.is_none_or(|(_, was_told)| !was_told),
                "{leaver:?} was told before"
            );
            if !leaver.is_told || before.is_none_or(|(_, was_told)| was_told) {
                continue;
            }
            truth.count("told by a drain");
            if !self.waited.contains(&name(leaver.conn)) {
                truth.count("told behind an answer");
                continue;
            }
            for other in &leavers {
                if !other.waits || !was_there(other.since) {
                    continue;
                }
                assert!(
                    other.since >= leaver.since,
                    "{leaver:?} is told before {other:?}, which came first"
                );
                if other.since > leaver.since {
                    truth.count("told before a younger one");
                }
            }
            if was_there(leaver.since) {
                let bin = now.since(began).as_millis() / BIN.as_millis();
                *self.told.entry(bin as u64).or_default() += 1;
            }
        }
        self.seen = leavers
            .iter()
            .map(|leaver| (name(leaver.conn), (leaver.since, leaver.is_told)))
            .collect();
        let waits = leavers.iter().filter(|leaver| leaver.waits);
        self.waited = waits.map(|leaver| name(leaver.conn)).collect();
    }

    /// The end. So many connections have closed since the drain began.
    pub fn check(&self, outcome: DrainOutcome, closed: u64) {
        let DrainOutcome {
            told,
            left,
            forced,
            unanswered,
            unacked: _,
        } = outcome;
        assert_eq!(told + left + forced, closed, "everybody is in {outcome:?}");
        assert!(unanswered <= forced, "{outcome:?}");
        let Some((_, window)) = self.began else {
            return;
        };
        let bins = (window.as_millis() / BIN.as_millis()).max(1) as u64;
        let all: u64 = self.told.values().sum();
        let most = self.told.values().copied().max().unwrap_or(0);
        assert!(
            most <= 2 * all / bins + SLACK,
            "{most} of {all} were told in one of {bins} bins: {:?}",
            self.told
        );
    }
}
