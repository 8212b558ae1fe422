//! A drain as control carries it: who begins it, how long it takes, and the report at its end.

use std::time::Duration;

use tokio::time::{Instant, timeout};
use tracing::{error, info, warn};

use super::admin::Phase;
use super::stage::{Report, Stage, Wanted, Wish};
use super::{Control, Ending, send};
use crate::config;
use crate::mesh::control::{DrainOutcome, ToShard};

/// Beyond the times of the drain a shard that does not report is given up.
const MARGIN: Duration = Duration::from_secs(5);
/// The log's side says how it does far more often than this.
const LOG_WAIT: Duration = Duration::from_millis(500);
/// Whoever waits for the report has so long to take it.
pub(super) const REPORT_WAIT: Duration = Duration::from_secs(2);

/// How long each part of a drain is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Times {
    notice: Duration,
    window: Duration,
    grace: Duration,
}

impl Times {
    /// Where the three would take longer than the deadline, each is shortened in proportion.
    fn of(config: &config::Drain, wish: Wish, is_noticed: bool) -> Self {
        let times = Self {
            notice: match is_noticed {
                true => config.notice,
                false => Duration::ZERO,
            },
            window: wish.window.unwrap_or(config.window),
            grace: config.grace,
        };
        let whole = times.notice + times.window + times.grace;
        let deadline = wish.deadline.unwrap_or(config.deadline);
        if deadline.is_zero() || deadline >= whole {
            return times;
        }
        let share = deadline.as_secs_f64() / whole.as_secs_f64();
        Self {
            notice: times.notice.mul_f64(share),
            window: times.window.mul_f64(share),
            grace: times.grace.mul_f64(share),
        }
    }
}

/// The drain under way.
#[derive(Debug)]
pub(super) struct Begun {
    at: Instant,
    times: Times,
    /// A signal has asked for it: the next one ends the process at once.
    is_signalled: bool,
    /// Deliveries that had been returned before.
    returned: u64,
}

impl Control {
    pub(super) const fn is_ending(&self) -> bool {
        self.begun.is_some()
    }

    /// A signal asks for the end. The first one begins a drain, or joins the one that an operator has begun.
    pub(super) fn end_by(&mut self, signal: &'static str) -> Option<Ending> {
        match &mut self.begun {
            None => {
                self.begin_drain(signal, Wish::default(), self.roster.is_all_ready());
                if let Some(begun) = &mut self.begun {
                    begun.is_signalled = true;
                }
            }
            Some(begun) if !begun.is_signalled => {
                begun.is_signalled = true;
                info!(signal, "draining already");
            }
            Some(_) => {
                warn!(signal, "second signal: ending at once");
                return Some(Ending::Aborted);
            }
        }
        None
    }

    /// An operator asks for it, or for the end of the one that is under way.
    pub(super) fn drain_wanted(&mut self, wanted: Wanted) {
        if self.begun.is_none() {
            let is_noticed = self.roster.is_all_ready();
            self.begin_drain("an operator", wanted.wish, is_noticed);
        }
        // It may have gone.
        let _ = wanted.answer.send(self.stage.subscribe());
    }

    /// Readiness goes off first: while load balancers turn away, everybody who still comes is served. Not `is_noticed`: nobody was told
    /// to come yet, or nobody is served any more.
    pub(super) fn begin_drain(&mut self, by: &'static str, wish: Wish, is_noticed: bool) {
        let times = Times::of(&self.parts.config.drain, wish, is_noticed);
        let Times {
            notice,
            window,
            grace,
        } = times;
        info!(by, ?notice, ?window, ?grace, "draining");
        self.begun = Some(Begun {
            at: Instant::now(),
            times,
            is_signalled: false,
            returned: self.returned(),
        });
        self.stage.send_replace(Stage::Notice);
        self.readiness
            .send_modify(|readiness| readiness.phase = Phase::Draining);
        self.service.stopping();
        if notice.is_zero() {
            self.drain();
        } else {
            self.notice_until = Some(Instant::now() + notice);
        }
    }

    /// Nobody new, and everybody is told.
    fn drain(&mut self) {
        self.notice_until = None;
        let Some(Begun { times, .. }) = &self.begun else {
            return;
        };
        let Times { window, grace, .. } = *times;
        self.drain_until = Some(Instant::now() + window + grace + MARGIN);
        self.stage.send_replace(Stage::Leaving);
        for link in &self.parts.links {
            let sent = send(link, ToShard::Drain { window, grace }, 0);
            assert!(sent, "the reserve keeps a place for Drain");
        }
    }

    /// What the time asks for while the process leaves.
    pub(super) fn drain_expired(&mut self, now: Instant) -> Option<Ending> {
        if self.notice_until.is_some_and(|at| at <= now) {
            info!("closing the listeners");
            self.drain();
        }
        let until = self.drain_until?;
        if self.roster.is_all_ended() {
            let outcome = self.roster.outcome();
            return Some(outcome.map_or(Ending::Failed, Ending::Drained));
        }
        if now >= until {
            error!(shards = ?self.roster.silent(), "shards did not drain in time");
            return Some(Ending::Failed);
        }
        None
    }

    /// Deliveries that others got because their workers were gone, as the log's side has told last.
    fn returned(&self) -> u64 {
        let log = self
            .pages
            .as_ref()
            .and_then(|pages| pages.admin.log.as_ref());
        log.map_or(0, |log| log.report.borrow().returned)
    }

    /// The shards have ended: the report goes to the log, and to whoever waits for it.
    pub(super) async fn report_drain(&mut self, ending: Ending) {
        let outcome = match ending {
            Ending::Drained(outcome) => Some(outcome),
            Ending::Failed => None,
            Ending::Aborted => return,
        };
        let log = self
            .pages
            .as_ref()
            .and_then(|pages| pages.admin.log.as_ref());
        if let Some(mut log) = log.map(|log| log.report.clone()) {
            // The first one may have been under way when the last connection went.
            let twice = async {
                for _ in 0..2 {
                    log.mark_unchanged();
                    log.changed().await.ok()?;
                }
                Some(())
            };
            let _ = timeout(LOG_WAIT, twice).await;
        }
        let (began, before) = self
            .begun
            .as_ref()
            .map_or((Instant::now(), 0), |begun| (begun.at, begun.returned));
        let report = Report {
            outcome,
            returned: self.returned().saturating_sub(before),
            took: began.elapsed(),
        };
        if let Some(outcome) = outcome {
            let DrainOutcome {
                told,
                left,
                forced,
                unanswered,
                unacked,
            } = outcome;
            let returned = report.returned;
            let took_ms = u64::try_from(report.took.as_millis()).unwrap_or(u64::MAX);
            info!(
                told,
                left, forced, unanswered, unacked, returned, took_ms, "drained"
            );
        }
        self.stage.send_replace(Stage::Over(report));
    }

    /// Who asks for the end of a drain, and for pages, has its answer.
    pub(super) async fn close_admin(&mut self, admin: Option<tokio::task::JoinHandle<()>>) {
        self.closing.send_replace(true);
        if let Some(admin) = admin {
            let _ = timeout(REPORT_WAIT, admin).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_shortens_each_time_in_proportion_and_lengthens_none() {
        let seconds = Duration::from_secs;
        let mut config = config::Drain {
            notice: seconds(5),
            window: seconds(10),
            grace: seconds(5),
            deadline: seconds(10),
        };
        let times = Times::of(&config, Wish::default(), true);
        let of = |times: Times| (times.notice, times.window, times.grace);
        assert_eq!(
            of(times),
            (
                seconds(2) + Duration::from_millis(500),
                seconds(5),
                seconds(2) + Duration::from_millis(500)
            )
        );
        config.deadline = seconds(60);
        assert_eq!(
            of(Times::of(&config, Wish::default(), true)),
            (seconds(5), seconds(10), seconds(5))
        );
        let wish = Wish {
            window: Some(seconds(20)),
            deadline: Some(Duration::ZERO),
        };
        assert_eq!(
            of(Times::of(&config, wish, false)),
            (Duration::ZERO, seconds(20), seconds(5))
        );
    }
}
