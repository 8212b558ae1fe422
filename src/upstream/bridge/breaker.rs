//! Whether it is any use to ask the log to keep something. A log that answers at once, whatever it says, makes nobody wait; one that
//! does not lets every publisher wait as long as it may, for nothing. So while something was asked of the log, and in the time that a
//! publisher waits it has kept nothing, appends are refused at once, until the log answers again.
//!
//! What the log has been given goes on: if it is kept after all, the breaker closes. Where nothing is under way any more, the log is
//! asked a question from time to time, and its answer lets appends through on trial.

use std::time::{Duration, Instant};

/// The first question comes so long after the last append is over, and the next ones each after twice as long.
const PAUSE: Duration = Duration::from_millis(100);
/// As long as that gets.
const PAUSE_LONGEST: Duration = Duration::from_millis(500);

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Closed,
    /// Appends are refused. When the log is to be asked, and how long after the question before.
    Open {
        ask_at: Instant,
        pause: Duration,
    },
    /// The log has answered a question: appends are on trial.
    HalfOpen,
}

/// What has become of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Opened,
    Closed,
}

/// What is to be done, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// A look whether the log has answered.
    Look(Instant),
    /// A question to the log.
    Ask(Instant),
}

#[derive(Debug)]
pub(super) struct Breaker {
    state: State,
    /// Batches that the log has and has not answered.
    under_way: u32,
    /// Since when something is asked of the log, and nothing was kept.
    since: Option<Instant>,
    /// How often it opened.
    pub(super) opened: u64,
    /// Appends that were refused.
    pub(super) refused: u64,
}

impl Default for Breaker {
    fn default() -> Self {
        Self {
            state: State::Closed,
            under_way: 0,
            since: None,
            opened: 0,
            refused: 0,
        }
    }
}

impl Breaker {
    /// How long whoever wants to append is told to wait; `None` where the log is asked.
    pub(super) fn refusal(&self, now: Instant) -> Option<Duration> {
        match self.state {
            State::Closed | State::HalfOpen => None,
            State::Open { ask_at, .. } => Some(ask_at.duration_since(now).max(PAUSE)),
        }
    }

    /// The log gets a batch.
    pub(super) fn begun(&mut self, now: Instant) {
        self.under_way += 1;
        self.since.get_or_insert(now);
    }

    /// The log has answered a batch that it got at `began`: it has kept something of it, or not.
    pub(super) fn ended(
        &mut self,
        now: Instant,
        began: Instant,
        is_kept: bool,
        patience: Duration,
    ) -> Option<Change> {
        self.under_way -= 1;
        if is_kept {
            self.since = (self.under_way > 0).then_some(now);
            let was = std::mem::replace(&mut self.state, State::Closed);
            return (was != State::Closed).then_some(Change::Closed);
        }
        // Whoever hears no at once does not wait.
        if self.under_way == 0 && now.duration_since(began) < patience / 2 {
            self.since = None;
        }
        if let State::Open { ask_at, pause } = &mut self.state
            && self.under_way == 0
        {
            *ask_at = now + *pause;
        }
        self.look(now, patience)
    }

    /// Has the log kept nothing for so long as a publisher waits?
    pub(super) fn look(&mut self, now: Instant, patience: Duration) -> Option<Change> {
        let is_late = |since: Instant| now.duration_since(since) >= patience;
        if matches!(self.state, State::Open { .. }) || !self.since.is_some_and(is_late) {
            return None;
        }
        self.state = State::Open {
            ask_at: now + PAUSE,
            pause: PAUSE,
        };
        self.opened += 1;
        Some(Change::Opened)
    }

    /// What is to be done next; `None` until something changes. What is under way is a question as good as any.
    pub(super) fn due(&self, patience: Duration) -> Option<Due> {
        match self.state {
            State::Open { ask_at, .. } => (self.under_way == 0).then_some(Due::Ask(ask_at)),
            State::Closed | State::HalfOpen => self.since.map(|since| Due::Look(since + patience)),
        }
    }

    /// The log was asked a question: it has answered, or not.
    pub(super) fn answered(&mut self, now: Instant, is_answered: bool) {
        let State::Open { ask_at, pause } = &mut self.state else {
            return;
        };
        if is_answered {
            self.since = (self.under_way > 0).then_some(now);
            self.state = State::HalfOpen;
        } else {
            *pause = (*pause * 2).min(PAUSE_LONGEST);
            *ask_at = now + *pause;
        }
    }

    /// As it is shown.
    pub(super) const fn name(&self) -> &'static str {
        match self.state {
            State::Closed => "closed",
            State::Open { .. } => "open",
            State::HalfOpen => "half-open",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::bridge::outlet::clock;

    const PATIENCE: Duration = Duration::from_secs(5);
    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn log_that_keeps_nothing_for_as_long_as_a_publisher_waits_is_asked_no_more() {
        let start = clock();
        let mut breaker = Breaker::default();
        assert_eq!(breaker.due(PATIENCE), None);
        breaker.begun(start);
        breaker.begun(start + SECOND);
        assert_eq!(breaker.due(PATIENCE), Some(Due::Look(start + PATIENCE)));
        assert_eq!(breaker.look(start + 4 * SECOND, PATIENCE), None);
        assert_eq!(breaker.refusal(start + 4 * SECOND), None);
        let open = start + PATIENCE;
        assert_eq!(breaker.look(open, PATIENCE), Some(Change::Opened));
        assert_eq!((breaker.name(), breaker.opened), ("open", 1));
        assert!(breaker.refusal(open).is_some_and(|wait| wait >= PAUSE));
        assert_eq!(
            breaker.due(PATIENCE),
            None,
            "what is under way is the question"
        );
        // It is kept after all.
        let kept = breaker.ended(open + SECOND, start, true, PATIENCE);
        assert_eq!(
            (kept, breaker.refusal(open + SECOND)),
            (Some(Change::Closed), None)
        );
        let next = open + SECOND + PATIENCE;
        assert_eq!(
            breaker.due(PATIENCE),
            Some(Due::Look(next)),
            "the other one"
        );
    }

    #[test]
    fn question_that_is_answered_lets_appends_through_on_trial() {
        let start = clock();
        let mut breaker = Breaker::default();
        breaker.begun(start);
        let open = start + PATIENCE;
        assert_eq!(
            breaker.ended(open, start, false, PATIENCE),
            Some(Change::Opened)
        );
        assert_eq!(breaker.due(PATIENCE), Some(Due::Ask(open + PAUSE)));
        let mut now = open + PAUSE;
        for pause in [200, 400, 500, 500].map(Duration::from_millis) {
            breaker.answered(now, false);
            assert_eq!(breaker.due(PATIENCE), Some(Due::Ask(now + pause)));
            assert_eq!(breaker.refusal(now), Some(pause));
            now += pause;
        }
        breaker.answered(now, true);
        assert_eq!((breaker.name(), breaker.refusal(now)), ("half-open", None));
        breaker.begun(now);
        assert_eq!(breaker.look(now + SECOND, PATIENCE), None);
        assert_eq!(breaker.look(now + PATIENCE, PATIENCE), Some(Change::Opened));
        assert_eq!(breaker.ended(now + PATIENCE, now, false, PATIENCE), None);
        breaker.answered(now + 2 * PATIENCE, true);
        breaker.begun(now + 2 * PATIENCE);
        let closed = breaker.ended(now + 2 * PATIENCE, now + 2 * PATIENCE, true, PATIENCE);
        assert_eq!((closed, breaker.name()), (Some(Change::Closed), "closed"));
    }

    #[test]
    fn log_that_says_no_at_once_and_one_that_keeps_a_part_are_asked_on() {
        let start = clock();
        let mut breaker = Breaker::default();
        let mut now = start;
        for _ in 0..100 {
            breaker.begun(now);
            assert_eq!(breaker.ended(now + SECOND, now, false, PATIENCE), None);
            now += SECOND;
        }
        breaker.begun(now);
        for _ in 0..10 {
            breaker.begun(now);
            now += 4 * SECOND;
            assert_eq!(breaker.look(now, PATIENCE), None);
            assert_eq!(breaker.ended(now, now, true, PATIENCE), None);
        }
        assert_eq!(breaker.opened, 0);
    }
}
