//! One target at run time: calls under way, calls that wait, the breaker, and what is counted. Tenants take turns at what it has room
//! for, and at the places of its queue.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tracing::{info, warn};

use super::breaker::{Breaker, Change, Pass, State};
use super::exchange::{Done, Failure, Prepared};
use crate::config::hooks;
use crate::mem::Turns;
use crate::mesh::hook::Call;
use crate::metrics::Histogram;
use crate::model::{TenantId, Weights};
use crate::upstream::bridge::PushCall;

/// Failures of one target are told at most this often; the others are counted, and their number comes with the next line.
const TELL_EVERY: Duration = Duration::from_secs(10);
/// Calls of a tenant with weight 1 that go out in its turn.
const TURN_CALLS: u32 = 1;
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
    /// Name of its target.
    pub(super) fn target_name(&self) -> &str {
        match self {
            Self::Call { call, .. } => &call.target.name,
            Self::Push(push) => &push.name,
        }
    }

    /// Whose turn it takes. Push rules are the operator's.
    fn tenant(&self) -> TenantId<'_> {
        match self {
            Self::Call { call, .. } => call.user.tenant(),
            Self::Push(_) => TenantId::NONE,
        }
    }
}

struct Waiting {
    pending: Pending,
    until: Instant,
}

/// See the module.
pub(super) struct Target {
    pub(super) prepared: Arc<Prepared>,
    breaker: Breaker,
    in_flight: u32,
    /// The pace is kept as the time at which all that it allows at once is there again.
    full_at: Instant,
    waiting: Turns<Waiting>,
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
        config: &Arc<hooks::Target>,
        of_all: &hooks::Signing,
        weights: &Arc<Weights>,
        now: Instant,
    ) -> Self {
        Self {
            prepared: Arc::new(Prepared::new(config, of_all)),
            breaker: Breaker::new(config.breaker, now),
            in_flight: 0,
            full_at: now,
            waiting: Turns::new(TURN_CALLS, weights),
            counts: Counts::default(),
            told: None,
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.prepared.config.name
    }

    /// Calls under way end by the rules they began with.
    pub(super) fn reload(
        &mut self,
        config: &Arc<hooks::Target>,
        of_all: &hooks::Signing,
        weights: &Arc<Weights>,
        now: Instant,
    ) {
        self.waiting.reload(weights);
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
            return Admission::Refused(self.displace(now, pending));
        }
        if is_full || !self.waiting.is_empty() {
            if let State::Open { until } = self.breaker.state()
                && now < until
            {
                self.counts.refused_open += 1;
                return Admission::Refused(pending);
            }
            self.wait(now, pending);
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

    fn wait(&mut self, now: Instant, pending: Pending) {
        let until = now + self.prepared.config.timeout;
        let lane = self.waiting.lane(pending.tenant());
        self.waiting.push_to(lane, Waiting { pending, until });
    }

    /// The queue is full: whose call does not wait? The last one of the tenant that has most places for its weight, where that is not
    /// this one's.
    fn displace(&mut self, now: Instant, pending: Pending) -> Pending {
        let own = self.waiting.lane(pending.tenant());
        let longest = self.waiting.longest();
        match longest.filter(|&longest| self.waiting.is_shorter(own, longest)) {
            None => pending,
            Some(longest) => {
                let Some(last) = self.waiting.pop_back_of(longest) else {
                    unreachable!("more than one waits there");
                };
                self.wait(now, pending);
                last.pending
            }
        }
    }

    /// The next call that waited, if there is room for it. `Err`: it is refused.
    pub(super) fn next(&mut self, now: Instant) -> Option<Result<(Pending, Pass), Pending>> {
        if self.in_flight >= self.prepared.config.concurrency_max || self.paced_until(now) > now {
            return None;
        }
        let Waiting { pending, until } = self.waiting.pop()?;
        self.waiting.charge(1);
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
        let fronts = self.waiting.fronts();
        let until = fronts.map(|(_, waiting)| waiting.until).min()?;
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
        let mut fronts = self.waiting.fronts();
        let (lane, _) = fronts.find(|(_, waiting)| waiting.until <= now)?;
        drop(fronts);
        self.counts.timeouts += 1;
        self.waiting.pop_of(lane).map(|waiting| waiting.pending)
    }

    /// Everything that waits: the target is gone.
    pub(super) fn give_up(&mut self) -> impl Iterator<Item = Pending> + '_ {
        std::iter::from_fn(|| self.waiting.pop().map(|waiting| waiting.pending))
    }

    /// Gives up what only a rush needed.
    pub(super) fn shrink(&mut self) {
        /// Places that a queue keeps.
        const KEPT: usize = 64;
        if self.waiting.is_empty() {
            self.waiting.shrink_to(KEPT);
        }
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
                    target_name = self.name(),
                    ?open_for,
                    "too many hooks fail or are slow: calls are refused"
                );
            }
            Change::Closed => info!(target_name = self.name(), "hooks are answered again"),
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
        warn!(target_name = self.name(), %failure, untold, "a hook failed");
    }

    pub(super) fn report(&self, now: Instant) -> Report {
        Report {
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

#[cfg(test)]
mod tests {
    use super::super::request::tests::call;
    use super::*;
    use crate::mesh::hook::HookEvent;
    use crate::model::UserId;

    /// A target with room for one call, and for so many that wait. Of the tenants, `b` has a weight of 2.
    fn target(queue_max: u32) -> (Target, Instant) {
        let now = Instant::now();
        let config = Arc::new(hooks::Target {
            concurrency_max: 1,
            queue_max,
            ..hooks::Target::named("t")
        });
        let weights = Arc::new([("b".into(), 2)].into_iter().collect());
        let of_all = hooks::Signing::default();
        (Target::new(&config, &of_all, &weights, now), now)
    }

    fn pending(target: &Target, tenant: &str) -> Pending {
        let mut call = call(&target.prepared.config, HookEvent::Refresh);
        call.user = UserId::new(TenantId::new(tenant), "u");
        Pending::Call {
            shard: 0,
            call: Box::new(call),
        }
    }

    /// What becomes of a call of each of these tenants: `!` and whose it is where one is refused.
    fn admit(target: &mut Target, now: Instant, tenants: &str) -> String {
        let mut refused = String::new();
        for tenant in tenants.chars() {
            let one = pending(target, &tenant.to_string());
            match target.admit(now, one) {
                Admission::Refused(refused_one) => {
                    refused.push('!');
                    refused.push_str(refused_one.tenant().as_str());
                }
                Admission::Go(..) => refused.push('>'),
                Admission::Waits => refused.push('.'),
            }
        }
        refused
    }

    /// Whose calls go out one after the other.
    fn order(target: &mut Target, now: Instant) -> String {
        let mut order = String::new();
        loop {
            target.in_flight = 0;
            match target.next(now) {
                Some(Ok((pending, _))) => order.push_str(pending.tenant().as_str()),
                Some(Err(_)) => unreachable!("nothing is refused"),
                None => return order,
            }
        }
    }

    #[test]
    fn tenants_take_turns_at_a_target() {
        let (mut target, now) = target(100);
        assert_eq!(admit(&mut target, now, "aaaaaaaabbbc"), ">...........");
        assert_eq!(order(&mut target, now), "abbcabaaaaa");
    }

    #[test]
    fn a_full_queue_is_shared_and_whoever_has_most_of_it_loses_its_last() {
        let (mut target, now) = target(4);
        assert_eq!(admit(&mut target, now, "aaaaaa"), ">....!a");
        assert_eq!(admit(&mut target, now, "bcb"), "!a!a!a");
        // One of a, two of b, one of c: nobody has more than its part.
        assert_eq!(admit(&mut target, now, "abc"), "!a!b!c");
        assert_eq!(order(&mut target, now), "abbc");
        assert_eq!(target.counts.refused_full, 7);
    }

    #[test]
    fn whoever_has_waited_too_long_is_found_in_every_lane() {
        let (mut target, now) = target(10);
        admit(&mut target, now, "aa");
        let later = now + Duration::from_millis(10);
        admit(&mut target, later, "ba");
        let until = now + target.prepared.config.timeout;
        assert_eq!(target.next_expiry(now), Some(until));
        assert!(target.expired(until).is_some() && target.expired(until).is_none());
        let until = later + target.prepared.config.timeout;
        assert_eq!(target.next_expiry(now), Some(until));
        assert!(target.expired(until).is_some() && target.expired(until).is_some());
        assert_eq!(target.next_expiry(now), None);
        assert_eq!(target.counts.timeouts, 3);
    }
}
