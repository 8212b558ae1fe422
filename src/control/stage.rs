//! How far a drain is, what an operator asks for, and what came of it: as control and the admin listener speak of it.

use std::time::Duration;

use tokio::sync::{oneshot, watch};

use super::Ending;
use crate::mesh::control::DrainOutcome;

/// What an operator asks for beside the configuration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Wish {
    /// In place of `drain.window`.
    pub(super) window: Option<Duration>,
    /// In place of `drain.deadline`.
    pub(super) deadline: Option<Duration>,
}

/// An operator wants a drain, or to see the one that is under way to its end.
pub(super) struct Wanted {
    pub(super) wish: Wish,
    pub(super) answer: oneshot::Sender<watch::Receiver<Stage>>,
}

/// How far the process is on its way out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Stage {
    #[default]
    Serving,
    /// Everybody is served still, and readiness is off.
    Notice,
    /// Clients are told to come back elsewhere.
    Leaving,
    /// It ends.
    Over(Report),
}

/// What came of a drain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Report {
    /// `None`: a shard failed, or did not report in time.
    pub(super) outcome: Option<DrainOutcome>,
    /// Deliveries that workers had and others get now.
    pub(super) returned: u64,
    /// From its beginning.
    pub(super) took: Duration,
}

impl Report {
    /// Exit status of the process.
    pub(super) fn status(self) -> u8 {
        self.outcome
            .map_or(Ending::Failed, Ending::Drained)
            .status()
    }
}

/// What whoever asks is told: an object of one line.
pub(super) fn report_line(report: Report) -> serde_json::Value {
    let Report {
        outcome,
        returned,
        took,
    } = report;
    let took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
    let status = report.status();
    match outcome {
        None => serde_json::json!({ "report": {
            "status": status, "took_ms": took_ms, "failed": "a shard failed, or did not drain in time",
        }}),
        Some(DrainOutcome {
            told,
            left,
            forced,
            unanswered,
            unacked,
        }) => serde_json::json!({ "report": {
            "status": status, "took_ms": took_ms, "told": told, "left": left, "forced": forced,
            "unanswered": unanswered, "unacked": unacked, "returned": returned,
        }}),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_report_of_a_drain_that_left_something_unacknowledged_says_status_1() {
        let report = |unacked| Report {
            outcome: Some(DrainOutcome {
                told: 3,
                unacked,
                ..DrainOutcome::default()
            }),
            returned: 2,
            took: Duration::from_millis(1500),
        };
        for (unacked, status) in [(0, 0), (1, 1)] {
            let line = report_line(report(unacked));
            assert_eq!(line["report"]["status"], status);
            assert_eq!(line["report"]["returned"], 2);
            assert_eq!(line["report"]["took_ms"], 1500);
        }
        let failed = report_line(Report {
            outcome: None,
            ..report(0)
        });
        assert_eq!(failed["report"]["status"], 1);
    }
}
