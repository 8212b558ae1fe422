//! Refuses calls at once while most of them fail, and tries again after a while.

use std::time::Duration;

use tokio::time::Instant;

use crate::config::hooks::Breaker as Rules;

/// Parts of the window; the oldest goes as a whole.
const PARTS: usize = 10;
/// Calls that go through on trial, and that must all succeed before it closes.
const TRIALS: u32 = 3;

/// See the module.
pub(super) struct Breaker {
    rules: Rules,
    state: State,
    /// Bumped whenever the state changes: a call of an earlier state says nothing about this one.
    round: u32,
    /// When part 0 of the window began.
    began: Instant,
    /// Number of the newest part, counted from `began`.
    newest: u64,
    parts: [Part; PARTS],
}

/// What it does with calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// They go through and are counted.
    Closed,
    /// They are refused until then.
    Open {
        /// The first trial may go.
        until: Instant,
    },
    /// A few go through on trial.
    HalfOpen {
        /// Went through.
        admitted: u32,
        /// Succeeded.
        succeeded: u32,
    },
}

#[derive(Clone, Copy, Default)]
struct Part {
    calls: u32,
    failed: u32,
}

/// A call that went through.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pass {
    round: u32,
}

/// What a finished call changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    None,
    Opened,
    Closed,
}

impl Breaker {
    pub(super) fn new(rules: Rules, now: Instant) -> Self {
        Self {
            rules,
            state: State::Closed,
            round: 0,
            began: now,
            newest: 0,
            parts: [Part::default(); PARTS],
        }
    }

    pub(super) const fn state(&self) -> State {
        self.state
    }

    /// New rules; what was counted stays unless the window has another length.
    pub(super) fn reload(&mut self, rules: Rules, now: Instant) {
        if rules.window != self.rules.window {
            self.forget(now);
        }
        self.rules = rules;
        if rules.error_rate == 0 && self.state != State::Closed {
            self.enter(State::Closed, now);
        }
    }

    /// May a call go through?
    pub(super) fn admit(&mut self, now: Instant) -> Option<Pass> {
        if let State::Open { until } = self.state
            && now >= until
        {
            self.enter(
                State::HalfOpen {
                    admitted: 0,
                    succeeded: 0,
                },
                now,
            );
        }
        match &mut self.state {
            State::Closed => {}
            State::Open { .. } => return None,
            State::HalfOpen { admitted, .. } if *admitted == TRIALS => return None,
            State::HalfOpen { admitted, .. } => *admitted += 1,
        }
        Some(Pass { round: self.round })
    }

    /// A call that went through is over.
    pub(super) fn record(
        &mut self,
        now: Instant,
        pass: Pass,
        succeeded: bool,
        took: Duration,
    ) -> Change {
        if pass.round != self.round {
            return Change::None;
        }
        let is_slow = !self.rules.latency.is_zero() && took > self.rules.latency;
        let failed = !succeeded || is_slow;
        match &mut self.state {
            State::Closed => {
                self.count(now, failed);
                if self.is_over() {
                    return self.open(now);
                }
            }
            State::HalfOpen { .. } if failed => return self.open(now),
            State::HalfOpen { succeeded, .. } => {
                *succeeded += 1;
                if *succeeded == TRIALS {
                    self.enter(State::Closed, now);
                    return Change::Closed;
                }
            }
            State::Open { .. } => {}
        }
        Change::None
    }

    fn open(&mut self, now: Instant) -> Change {
        let until = now + self.rules.open_for;
        self.enter(State::Open { until }, now);
        Change::Opened
    }

    fn enter(&mut self, state: State, now: Instant) {
        self.state = state;
        self.round = self.round.wrapping_add(1);
        self.forget(now);
    }

    fn forget(&mut self, now: Instant) {
        self.began = now;
        self.newest = 0;
        self.parts = [Part::default(); PARTS];
    }

    fn count(&mut self, now: Instant, failed: bool) {
        let width = (self.rules.window / PARTS as u32).max(Duration::from_millis(1));
        let number = (now.duration_since(self.began).as_nanos() / width.as_nanos()) as u64;
        for passed in 0..number.saturating_sub(self.newest).min(PARTS as u64) {
            self.parts[((number - passed) % PARTS as u64) as usize] = Part::default();
        }
        self.newest = self.newest.max(number);
        let part = &mut self.parts[(self.newest % PARTS as u64) as usize];
        part.calls += 1;
        part.failed += u32::from(failed);
    }

    fn is_over(&self) -> bool {
        let calls: u64 = self.parts.iter().map(|part| u64::from(part.calls)).sum();
        let failed: u64 = self.parts.iter().map(|part| u64::from(part.failed)).sum();
        self.rules.error_rate > 0
            && calls >= u64::from(self.rules.calls_min)
            && failed * 100 >= calls * u64::from(self.rules.error_rate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: Rules = Rules {
        error_rate: 50,
        latency: Duration::from_millis(100),
        calls_min: 4,
        window: Duration::from_secs(1),
        open_for: Duration::from_secs(5),
    };
    const FAST: Duration = Duration::from_millis(1);

    fn call(breaker: &mut Breaker, now: Instant, succeeded: bool, took: Duration) -> Change {
        let pass = breaker.admit(now).expect("it goes through");
        breaker.record(now, pass, succeeded, took)
    }

    #[tokio::test]
    async fn opens_at_the_rate_and_not_before_enough_calls() {
        let now = Instant::now();
        let mut breaker = Breaker::new(RULES, now);
        for _ in 0..3 {
            assert_eq!(call(&mut breaker, now, false, FAST), Change::None);
        }
        assert_eq!(call(&mut breaker, now, true, FAST), Change::Opened);
        assert!(breaker.admit(now).is_none());
        let mut breaker = Breaker::new(RULES, now);
        for at in 0..100 {
            assert_eq!(call(&mut breaker, now, at % 5 != 4, FAST), Change::None);
        }
    }

    #[tokio::test]
    async fn a_slow_call_counts_as_failed() {
        let now = Instant::now();
        let mut breaker = Breaker::new(RULES, now);
        let slow = Duration::from_millis(101);
        for _ in 0..3 {
            call(&mut breaker, now, true, slow);
        }
        assert_eq!(call(&mut breaker, now, true, slow), Change::Opened);
    }

    #[tokio::test]
    async fn what_lies_before_the_window_is_forgotten() {
        let now = Instant::now();
        let mut breaker = Breaker::new(RULES, now);
        for _ in 0..3 {
            call(&mut breaker, now, false, FAST);
        }
        let later = now + Duration::from_millis(1050);
        for at in 0..20 {
            let change = call(&mut breaker, later, at % 3 != 1, FAST);
            assert_eq!(change, Change::None, "call {at}");
        }
        // Half a window later all of them still count.
        let half = later + Duration::from_millis(500);
        let opened = (0..20).any(|_| call(&mut breaker, half, false, FAST) == Change::Opened);
        assert!(opened);
    }

    #[tokio::test]
    async fn closes_after_trials_that_all_succeed_and_opens_again_otherwise() {
        let now = Instant::now();
        let mut breaker = Breaker::new(RULES, now);
        let early = breaker.admit(now).expect("closed");
        while call(&mut breaker, now, false, FAST) != Change::Opened {}
        let then = now + RULES.open_for;
        assert!(breaker.admit(then - FAST).is_none());
        let passes: Vec<Pass> = (0..TRIALS)
            .map(|_| breaker.admit(then).expect("a trial"))
            .collect();
        assert!(breaker.admit(then).is_none(), "no more than the trials");
        assert_eq!(
            breaker.record(then, early, false, FAST),
            Change::None,
            "a call of before says nothing"
        );
        assert_eq!(breaker.record(then, passes[0], true, FAST), Change::None);
        assert_eq!(breaker.record(then, passes[1], false, FAST), Change::Opened);
        assert_eq!(breaker.record(then, passes[2], true, FAST), Change::None);
        let again = then + RULES.open_for;
        for _ in 0..TRIALS - 1 {
            assert_eq!(call(&mut breaker, again, true, FAST), Change::None);
        }
        assert_eq!(call(&mut breaker, again, true, FAST), Change::Closed);
        assert_eq!(breaker.state(), State::Closed);
    }

    #[tokio::test]
    async fn a_rate_of_zero_never_opens() {
        let now = Instant::now();
        let rules = Rules {
            error_rate: 0,
            ..RULES
        };
        let mut breaker = Breaker::new(rules, now);
        for _ in 0..100 {
            assert_eq!(call(&mut breaker, now, false, FAST), Change::None);
        }
    }
}
