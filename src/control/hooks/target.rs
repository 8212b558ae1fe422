//! One target at run time: calls under way, calls that wait, the breaker, and what is counted.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tracing::{info, warn};

use super::breaker::{Breaker, Change, Pass, State};
use super::exchange::{Done, Failure, Prepared};
use crate::config::hooks;
use crate::mesh::hook::Call;
use crate::metrics::Histogram;
use crate::upstream::bridge::PushCall;

/// Failures of one target are told at most this often; the others are counted, and their number comes with the next line.
const TELL_EVERY: Duration = Duration::from_secs(10);
/// The pace allows so much of a second at once.
const BURSTS_PER_SECOND: u32 = 10;

/// A call, and who waits for it.
pub(super) enum Pending {
    /// A shard's.
    Call { shard: usize, call: Box<Call> },
    /// The log's.
    Push(PushCall),
}

impl Pending {
    /// Whose it is, and the name of its target. What is pushed is of everybody.
    pub(super) fn target(&self) -> (&str, &str) {
        match self {
            Self::Call { call, .. } => (call.user.tenant().as_str(), &call.target.name),
            Self::Push(push) => ("", &push.name),
        }
    }
}

struct Waiting {
    pending: Pending,
    until: Instant,
}

/// See the module.
pub(super) struct Target {
    /// Whose calls it makes; empty for `default`.
    tenant: Box<str>,
    pub(super) prepared: Arc<Prepared>,
    breaker: Breaker,
    in_flight: u32,
    /// The pace is kept as the time at which all that it allows at once is there again.
    full_at: Instant,
    waiting: VecDeque<Waiting>,
    counts: Counts,
    /// When a failure was told last, and how many have not been told since.
    told: Option<(Instant, u64)>,
}

/// What is counted of a target.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Requests made.
    pub calls: u64,
    /// Those that brought no answer as agreed, timeouts among them.
    pub failures: u64,
    /// Those that brought no answer in time, calls that waited too long for their turn among them.
    pub timeouts: u64,
    /// Calls refused because too many waited.
    pub refused_full: u64,
    /// Calls refused because the breaker was open.
    pub refused_open: u64,
    /// How often the breaker opened.
    pub opened: u64,
    /// Time that requests took.
    pub latency: Histogram,
}

/// What an operator sees of a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Whose calls are meant; empty for `default`.
    pub tenant: Box<str>,
    /// Its name in the configuration.
    pub name: String,
    /// `closed`, `half-open` or `open`.
    pub breaker: &'static str,
    /// Requests under way.
    pub in_flight: u32,
    /// Calls that wait for their turn.
    pub waiting: u32,
    /// See there.
    pub counts: Counts,
}

/// What becomes of a call that arrives.
pub(super) enum Admission {
    /// It goes out now.
    Go(Pending, Pass),
    /// It waits for its turn.
    Waits,
    /// Nobody will be asked.
    Refused(Pending),
}

impl Target {
    pub(super) fn new(
        tenant: &str,
        config: &Arc<hooks::Target>,
        of_all: &hooks::Signing,
        now: Instant,
    ) -> Self {
        Self {
            tenant: tenant.into(),
            prepared: Arc::new(Prepared::new(config, of_all)),
            breaker: Breaker::new(config.breaker, now),
            in_flight: 0,
            full_at: now,
            waiting: VecDeque::new(),
            counts: Counts::default(),
            told: None,
        }
    }

    pub(super) fn tenant(&self) -> &str {
        &self.tenant
    }

    /// Do calls wait?
    pub(super) fn is_waited_for(&self) -> bool {
        !self.waiting.is_empty()
    }

    pub(super) fn name(&self) -> &str {
        &self.prepared.config.name
    }

    /// Calls under way end by the rules they began with.
    pub(super) fn reload(
        &mut self,
        config: &Arc<hooks::Target>,
        of_all: &hooks::Signing,
        now: Instant,
    ) {
        if self.prepared.config != *config {
            self.breaker.reload(config.breaker, now);
        } else if self.prepared.signing == *config.signing.or(of_all) {
            return;
        }
        self.prepared = Arc::new(Prepared::new(config, of_all));
    }

    pub(super) fn admit(&mut self, now: Instant, pending: Pending) -> Admission {
        let config = &self.prepared.config;
        let is_full = self.in_flight >= config.concurrency_max || self.paced_until(now) > now;
        if is_full && self.waiting.len() >= config.queue_max as usize {
            self.counts.refused_full += 1;
            return Admission::Refused(pending);
        }
        if is_full || !self.waiting.is_empty() {
            if let State::Open { until } = self.breaker.state()
                && now < until
            {
                self.counts.refused_open += 1;
                return Admission::Refused(pending);
            }
            let until = now + config.timeout;
            self.waiting.push_back(Waiting { pending, until });
            return Admission::Waits;
        }
        match self.breaker.admit(now) {
            Some(pass) => {
                self.goes(now);
                Admission::Go(pending, pass)
            }
            None => {
                self.counts.refused_open += 1;
                Admission::Refused(pending)
            }
        }
    }

    /// The next call that waited, if there is room for it. `Err`: it is refused.
    pub(super) fn next(&mut self, now: Instant) -> Option<Result<(Pending, Pass), Pending>> {
        if self.in_flight >= self.prepared.config.concurrency_max || self.paced_until(now) > now {
            return None;
        }
        let Waiting { pending, until } = self.waiting.pop_front()?;
        if now >= until {
            self.counts.timeouts += 1;
            return Some(Err(pending));
        }
        match self.breaker.admit(now) {
            Some(pass) => {
                self.goes(now);
                Some(Ok((pending, pass)))
            }
            None => {
                self.counts.refused_open += 1;
                Some(Err(pending))
            }
        }
    }

    /// A call goes out.
    fn goes(&mut self, now: Instant) {
        self.in_flight += 1;
        let rate = self.prepared.config.rate;
        if rate > 0 {
            self.full_at = self.full_at.max(now) + Duration::from_secs(1) / rate;
        }
    }

    /// When the pace lets the next call out.
    fn paced_until(&self, now: Instant) -> Instant {
        let rate = self.prepared.config.rate;
        if rate == 0 {
            return now;
        }
        let spare = (rate / BURSTS_PER_SECOND).max(1) - 1;
        let earlier = Duration::from_secs(1) / rate * spare;
        self.full_at.checked_sub(earlier).unwrap_or(now)
    }

    /// When something is to be done about a call that waits: it has waited too long, or it is its turn.
    pub(super) fn next_expiry(&self, now: Instant) -> Option<Instant> {
        let until = self.waiting.front()?.until;
        let paced = self.paced_until(now);
        // One that waits for a place goes when another one is over.
        let has_place = self.in_flight < self.prepared.config.concurrency_max;
        Some(match has_place {
            true => until.min(paced),
            false => until,
        })
    }

    /// A call that has waited too long.
    pub(super) fn expired(&mut self, now: Instant) -> Option<Pending> {
        if self.waiting.front()?.until > now {
            return None;
        }
        self.counts.timeouts += 1;
        self.waiting.pop_front().map(|waiting| waiting.pending)
    }

    /// Everything that waits: the target is gone.
    pub(super) fn give_up(&mut self) -> impl Iterator<Item = Pending> + '_ {
        self.waiting.drain(..).map(|waiting| waiting.pending)
    }

    /// A request is over.
    pub(super) fn done(&mut self, now: Instant, pass: Pass, done: &Done) {
        self.in_flight -= 1;
        self.counts.calls += 1;
        let nanoseconds = u64::try_from(done.took.as_nanos()).unwrap_or(u64::MAX);
        self.counts.latency.record(nanoseconds);
        if let Err(failure) = &done.result {
            self.counts.failures += 1;
            self.counts.timeouts += u64::from(*failure == Failure::Timeout);
            self.tell(now, failure);
        }
        match self
            .breaker
            .record(now, pass, done.result.is_ok(), done.took)
        {
            Change::Opened => {
                self.counts.opened += 1;
                let open_for: Duration = self.prepared.config.breaker.open_for;
                warn!(
                    tenant = self.tenant(),
                    target_name = self.name(),
                    ?open_for,
                    "too many hooks fail or are slow: calls are refused"
                );
            }
            Change::Closed => info!(
                tenant = self.tenant(),
                target_name = self.name(),
                "hooks are answered again"
            ),
            Change::None => {}
        }
    }

    /// A failure in the log: at most one in a while, whatever comes between.
    fn tell(&mut self, now: Instant, failure: &Failure) {
        let untold = match &mut self.told {
            Some((at, untold)) if now < *at + TELL_EVERY => {
                *untold += 1;
                return;
            }
            Some((_, untold)) => *untold,
            None => 0,
        };
        self.told = Some((now, 0));
        warn!(tenant = self.tenant(), target_name = self.name(), %failure, untold, "a hook failed");
    }

    pub(super) fn report(&self, now: Instant) -> Report {
        Report {
            tenant: self.tenant.clone(),
            name: self.name().to_owned(),
            breaker: match self.breaker.state() {
                State::Closed => "closed",
                State::Open { until } if now < until => "open",
                State::Open { .. } | State::HalfOpen { .. } => "half-open",
            },
            in_flight: self.in_flight,
            waiting: u32::try_from(self.waiting.len()).unwrap_or(u32::MAX),
            counts: self.counts.clone(),
        }
    }
}
