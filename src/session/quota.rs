//! What a client's tenant may still have: see `config::TenantLimits`. What is over a rate may wait for its turn (`late`).

use std::time::Duration;

use super::late::{Held, Late};
use super::{Context, Counted, Session};
use crate::config::{TenantLimits, WhenOverRate};
use crate::limits::MESH_TIMEOUT;
use crate::mem::{Pace, Quota, QuotaLimit, TimerWheel};
use crate::mesh::message::PublishFor;
use crate::model::{Draft, Way};
use crate::protocol::error::ClientError;
use crate::time::Instant;

/// Who finds no place is told to come again after this: nobody knows when one is free.
pub const FULL_FOR: Duration = Duration::from_secs(5);

/// What publications take of the rates of their tenant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// How many they are.
    pub publications: u64,
    /// Bytes of their payloads.
    pub bytes: u64,
    /// How many of them the log keeps.
    pub appends: u64,
}

impl Wanted {
    /// One more.
    pub fn add(&mut self, draft: &Draft) {
        self.publications += 1;
        self.bytes += draft.record.data.len() as u64;
        self.appends += u64::from(draft.way() == Way::Log);
    }
}

/// Why a tenant does not get something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OverQuota {
    /// Which limit says so.
    pub limit: QuotaLimit,
    /// When there is room again, where a rate says so.
    pub retry_after: Option<Duration>,
}

impl From<OverQuota> for ClientError {
    fn from(over: OverQuota) -> Self {
        over.retry_after.map_or(Self::LimitExceeded, Self::too_fast)
    }
}

/// Is the payload of a publication larger than its tenant's may be? It is counted then.
///
/// # Errors
/// It is.
pub fn check_size(limits: &TenantLimits, quota: &Quota, draft: &Draft) -> Result<(), OverQuota> {
    let most = limits.message_size_max as usize;
    if most == 0 || draft.record.data.len() <= most {
        return Ok(());
    }
    let limit = QuotaLimit::MessageSize;
    quota.refuse(limit);
    Err(OverQuota {
        limit,
        retry_after: None,
    })
}

/// Takes what publications need of the rates. After how long they may be published: at once, unless what is over a rate may wait.
///
/// # Errors
/// A rate has no room, or what waits for one has none on this shard, and nothing is taken.
pub fn take(
    now: Instant,
    limits: &TenantLimits,
    quota: &Quota,
    wanted: Wanted,
    late: &Late,
) -> Result<Duration, OverQuota> {
    let l = limits;
    if limits.when_over_rate == WhenOverRate::Queue && late.is_full() {
        let limit = QuotaLimit::PublishRate;
        quota.refuse(limit);
        let retry_after = Some(limits.over_rate_wait_max);
        return Err(OverQuota { limit, retry_after });
    }
    let rates = [
        (
            &quota.publishes,
            wanted.publications,
            Pace::configured(l.publish_rate, l.publish_burst),
            QuotaLimit::PublishRate,
        ),
        (
            &quota.publish_bytes,
            wanted.bytes,
            Pace::configured(l.publish_bytes_rate, l.publish_bytes_burst),
            QuotaLimit::PublishBytesRate,
        ),
        (
            &quota.appends,
            wanted.appends,
            Pace::configured(l.append_rate, l.append_burst),
            QuotaLimit::AppendRate,
        ),
        // What was given to subscribers is owed already: nothing is published until that is paid.
        (
            &quota.delivers,
            0,
            Pace::configured(l.deliver_rate, l.deliver_burst),
            QuotaLimit::DeliverRate,
        ),
    ];
    let may_wait = match limits.when_over_rate {
        WhenOverRate::Reject => None,
        WhenOverRate::Queue => Some(limits.over_rate_wait_max),
    };
    let mut wait = Duration::ZERO;
    for (at, &(meter, tokens, pace, limit)) in rates.iter().enumerate() {
        let Some(pace) = pace else {
            continue;
        };
        let (owed, taken) = match may_wait {
            None => match meter.take(now, tokens, pace) {
                Ok(()) => (Duration::ZERO, at + 1),
                Err(owed) => (owed, at),
            },
            Some(_) => (meter.owe(now, tokens, pace), at + 1),
        };
        let most = may_wait.unwrap_or_default();
        if owed > most {
            for &(meter, tokens, pace, _) in &rates[..taken] {
                if let Some(pace) = pace {
                    meter.give(tokens, pace);
                }
            }
            quota.refuse(limit);
            return Err(OverQuota {
                limit,
                retry_after: Some(owed - most),
            });
        }
        wait = wait.max(owed);
    }
    quota.publications.add(wanted.publications);
    quota.publication_bytes.add(wanted.bytes);
    if !wait.is_zero() {
        quota.late.add(wanted.publications);
    }
    Ok(wait)
}

/// When what may be published after `wait` is handed on; `None` for at once. What waits is never overtaken.
#[must_use]
pub fn due(now: Instant, limits: &TenantLimits, late: &Late, wait: Duration) -> Option<Instant> {
    let is_behind = limits.when_over_rate == WhenOverRate::Queue && !late.is_empty();
    (!wait.is_zero() || is_behind).then(|| now + wait)
}

impl Session {
    /// One more client of its tenant.
    ///
    /// # Errors
    /// The tenant has as many as it may, or they come too fast.
    pub(super) fn take_place(&mut self, context: &Context<'_>) -> Result<(), ClientError> {
        let tenant = self.user.tenant();
        let Some((limits, quota)) = context.config.channels.limits_of(tenant) else {
            return Ok(());
        };
        if let Some(pace) = Pace::configured(limits.connect_rate, limits.connect_burst)
            && let Err(wait) = quota.connects.take(context.now.at, 1, pace)
        {
            quota.refuse(QuotaLimit::ConnectRate);
            return Err(ClientError::too_fast(wait));
        }
        let most = match limits.connections_max {
            0 => u64::MAX,
            most => u64::from(most),
        };
        if !quota.connections.take(most) {
            quota.refuse(QuotaLimit::Connections);
            return Err(ClientError::full(FULL_FOR));
        }
        self.counted.add(Counted::BY_TENANT);
        Ok(())
    }

    /// It is its tenant's client no more.
    pub(super) fn give_place(&mut self, context: &Context<'_>) {
        if self.counted.take(Counted::BY_TENANT) {
            let counted = context.config.channels.limits_of(self.user.tenant());
            if let Some((_, quota)) = counted {
                quota.connections.give_back();
            }
        }
    }

    /// One more call of its tenant to a backend.
    ///
    /// # Errors
    /// As many as may be are under way.
    pub(super) fn take_call(&self, context: &Context<'_>) -> Result<(), ClientError> {
        let tenant = self.user.tenant();
        let Some((limits, quota)) = context.config.channels.limits_of(tenant) else {
            return Ok(());
        };
        let most = match limits.calls_max {
            0 => u64::MAX,
            most => u64::from(most),
        };
        if quota.calls.take(most) {
            return Ok(());
        }
        quota.refuse(QuotaLimit::Calls);
        Err(ClientError::TooManyRequests)
    }

    /// The call was not made.
    pub(super) fn give_call(&self, context: &Context<'_>) {
        let counted = context.config.channels.limits_of(self.user.tenant());
        if let Some((_, quota)) = counted {
            quota.calls.give_back();
        }
    }

    /// Subscriptions that the client may have.
    pub(super) fn subscriptions_max(&self, context: &Context<'_>) -> usize {
        let all = context.config.client.channel_limit;
        let own = context.config.channels.limits_of(self.user.tenant());
        match own.map_or(0, |(own, _)| own.subscriptions_max as usize) {
            0 => all,
            own => all.min(own),
        }
    }

    /// It has as many already. Counted where its tenant's limit says so.
    pub(super) fn is_full(&self, context: &Context<'_>, has: usize) -> bool {
        let is_full = has >= self.subscriptions_max(context);
        let config = context.config;
        if is_full
            && has < config.client.channel_limit
            && let Some((_, quota)) = config.channels.limits_of(self.user.tenant())
        {
            quota.refuse(QuotaLimit::Subscriptions);
        }
        is_full
    }
}

impl Context<'_> {
    /// Takes a publication of what its tenant may publish. If it has to wait, it is kept until then and comes back as nothing.
    ///
    /// # Errors
    /// It may not be published now.
    pub(super) fn pass(
        &mut self,
        publisher: PublishFor,
        draft: Box<Draft>,
    ) -> Result<Option<Box<Draft>>, ClientError> {
        let tenant = draft.record.channel.tenant();
        let Some((limits, quota)) = self.config.channels.limits_of(tenant) else {
            return Ok(Some(draft));
        };
        check_size(limits, quota, &draft)?;
        let mut wanted = Wanted::default();
        wanted.add(&draft);
        let wait = take(self.now.at, limits, quota, wanted, self.late)?;
        let Some(at) = due(self.now.at, limits, self.late, wait) else {
            return Ok(Some(draft));
        };
        let is_for_owner = draft.way() == Way::Owner;
        let held = Held::Publication { publisher, draft };
        self.late.push(at, held);
        if is_for_owner {
            self.answer_by = TimerWheel::tick_after(self.now.at, wait + MESH_TIMEOUT);
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(ms: u64) -> Instant {
        Instant(ms * 1_000_000)
    }

    fn of(publications: u64, bytes: u64) -> Wanted {
        Wanted {
            publications,
            bytes,
            appends: 0,
        }
    }

    #[test]
    fn what_one_rate_refuses_takes_nothing_of_the_others() {
        for when_over_rate in [WhenOverRate::Reject, WhenOverRate::Queue] {
            let limits = TenantLimits {
                publish_rate: 10,
                publish_bytes_rate: 100,
                when_over_rate,
                over_rate_wait_max: Duration::from_millis(500),
                ..TenantLimits::default()
            };
            let quota = Quota::default();
            assert_eq!(
                take(at(0), &limits, &quota, of(1, 100), &Late::default()),
                Ok(Duration::ZERO)
            );
            for _ in 0..5 {
                let over = take(at(0), &limits, &quota, of(1, 60), &Late::default()).unwrap_err();
                assert_eq!(over.limit, QuotaLimit::PublishBytesRate);
                let wait = match when_over_rate {
                    WhenOverRate::Reject => 600,
                    WhenOverRate::Queue => 100,
                };
                let told = over.retry_after.unwrap().as_millis();
                assert!((wait - 1..=wait).contains(&told), "{told}");
            }
            for _ in 0..9 {
                assert_eq!(
                    take(at(0), &limits, &quota, of(1, 0), &Late::default()),
                    Ok(Duration::ZERO)
                );
            }
            assert_eq!(quota.refused(QuotaLimit::PublishBytesRate), 5);
            assert_eq!(quota.publications.get(), 10);
        }
    }

    #[test]
    fn what_may_wait_goes_at_the_rate_and_in_its_order() {
        let limits = TenantLimits {
            publish_rate: 10,
            when_over_rate: WhenOverRate::Queue,
            over_rate_wait_max: Duration::from_secs(1),
            ..TenantLimits::default()
        };
        let quota = Quota::default();
        let mut goes = Vec::new();
        while let Ok(wait) = take(at(0), &limits, &quota, of(1, 0), &Late::default()) {
            goes.push(wait.as_millis());
        }
        let (at_once, late) = goes.split_at(10);
        assert!(at_once.iter().all(|&wait| wait == 0), "{goes:?}");
        assert_eq!(late.len(), 10, "{goes:?}");
        for (n, &wait) in late.iter().enumerate() {
            let due = 100 * (n as u128 + 1);
            assert!((due - 1..=due).contains(&wait), "{goes:?}");
        }
        assert_eq!(quota.late.get(), 10);
    }

    #[test]
    fn nothing_is_published_while_what_was_given_to_subscribers_is_owed() {
        let limits = TenantLimits {
            deliver_rate: 1000,
            ..TenantLimits::default()
        };
        let quota = Quota::default();
        assert_eq!(
            take(at(0), &limits, &quota, of(1, 0), &Late::default()),
            Ok(Duration::ZERO)
        );
        let pace = Pace::configured(limits.deliver_rate, limits.deliver_burst).unwrap();
        quota.delivers.owe(at(0), 5000, pace);
        let over = take(at(0), &limits, &quota, of(1, 0), &Late::default()).unwrap_err();
        assert_eq!(over.limit, QuotaLimit::DeliverRate);
        assert!(take(at(3999), &limits, &quota, of(1, 0), &Late::default()).is_err());
        assert_eq!(
            take(at(4001), &limits, &quota, of(1, 0), &Late::default()),
            Ok(Duration::ZERO)
        );
    }

    #[test]
    fn what_finds_no_room_to_wait_in_takes_nothing() {
        let limits = TenantLimits {
            publish_rate: 1,
            when_over_rate: WhenOverRate::Queue,
            ..TenantLimits::default()
        };
        let (quota, mut late) = (Quota::default(), Late::default());
        let call = crate::model::AskId::default();
        let bytes = crate::limits::LATE_BYTES_MAX;
        late.push(at(9), Held::Call { call, bytes });
        for _ in 0..5 {
            let over = take(at(0), &limits, &quota, of(1, 0), &late).unwrap_err();
            assert_eq!(over.retry_after, Some(limits.over_rate_wait_max));
        }
        assert_eq!(quota.publications.get(), 0);
        late.pop(at(9));
        let taken = take(at(0), &limits, &quota, of(1, 0), &late);
        assert_eq!(taken, Ok(Duration::ZERO));
    }
}
