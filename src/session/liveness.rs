//! Pings, pongs, and everything that ends by time (`spec/centrifuge.md` §2.3, §2.5, §4.9).

use std::time::Duration;

use super::{Context, Phase, Session, Subscription, flag};
use crate::config::Config;
use crate::config::keys::KeySource;
use crate::limits::TTL_TOLD_S_MAX;
use crate::mem::{Tick, TimerWheel};
use crate::model::TenantId;
use crate::protocol::disconnect::Disconnect;
use crate::protocol::error::ClientError;
use crate::protocol::push::{ReplyBody, Unsubscribe};
use crate::speaker;
use crate::time::{Instant, Now};
use crate::wire::websocket::{Opcode, encode_frame_header};

/// What a session's shard knows of its peer when a pong is late.
#[derive(Clone, Copy, Debug)]
pub struct PeerState {
    /// Input came that is not read yet.
    pub is_held: bool,
    /// It is not read for a while, as it sent too much: that has an end, and its pong may stand in its socket.
    pub is_slowed: bool,
    /// It has not been sent the ping, and since the last look it has taken some of what is before it.
    pub comes_to_ping: bool,
}

/// Seconds until something ends that is kept so, as a client is told.
#[must_use]
pub(super) fn ttl(now: Now, expire_at: u32) -> Option<u32> {
    (expire_at != 0).then(|| {
        expire_at
            .saturating_sub(now.at.secs())
            .clamp(1, TTL_TOLD_S_MAX)
    })
}

/// Unix seconds as a session keeps them: seconds since the start of the process, 0 means never.
#[must_use]
pub(super) fn kept_expiry(now: Now, expire_at: Option<u64>) -> u32 {
    expire_at.map_or(0, |at| now.second_of(at))
}

/// Has it ended, as it is kept?
#[must_use]
pub(super) const fn is_past(now: Now, expire_at: u32) -> bool {
    expire_at != 0 && expire_at <= now.at.secs()
}

/// When something that is kept so ends.
const fn end_of(expire_at: u32) -> Instant {
    Instant(expire_at as u64 * 1_000_000_000)
}

/// The tick at which something that expires at `expire_at` has used up its grace.
fn expiry_tick(now: Now, expire_at: u32, grace: Duration) -> Tick {
    TimerWheel::tick_after(now.at, (end_of(expire_at) + grace).since(now.at))
}

/// Time after its expiry in which the client may refresh a connection. A hook is asked at once.
fn grace_of_connection(config: &Config, tenant: TenantId<'_>) -> Duration {
    match config.refresh_hook(tenant) {
        Some(_) => Duration::ZERO,
        None => config.client.expired_close_delay,
    }
}

/// Likewise of a subscription.
fn grace_of(subscription: &Subscription, config: &Config) -> Duration {
    if subscription.has(flag::SERVER_REFRESH) {
        Duration::ZERO
    } else {
        config.client.expired_sub_close_delay
    }
}

/// Pings of the protocol that wait for their pongs: more than one where a peer is not read for a while. A byte, as everybody has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pings {
    /// How many, and `LATE`.
    pub(super) bits: u8,
}

impl Pings {
    /// The answer to the last ping has got more time once.
    const LATE: u8 = 1 << 7;

    fn one_more(&mut self) {
        if self.bits & !Self::LATE < Self::LATE - 1 {
            self.bits += 1;
        }
    }

    /// One is answered: how many are left. `None` if nobody was asked.
    fn answered(&mut self) -> Option<u8> {
        let left = (self.bits & !Self::LATE).checked_sub(1)?;
        self.bits -= 1;
        Some(left)
    }

    /// It gets more time: has it before?
    fn gets_late(&mut self) -> bool {
        let was_late = self.bits & Self::LATE != 0;
        self.bits |= Self::LATE;
        was_late
    }

    fn in_time(&mut self) {
        self.bits &= !Self::LATE;
    }
}

impl Session {
    /// A socket is open: the connect command must come in time.
    pub fn open(&mut self, now: Now, config: &Config) {
        self.next = TimerWheel::tick_after(now.at, config.client.stale_close_delay);
    }

    /// Starts pinging at a random point of the second half of the interval, so that a storm of connects is no storm of pings.
    pub(super) fn start_pings(&mut self, context: &mut Context<'_>) {
        self.next = 0;
        if !self.format.speaker.writes() {
            return;
        }
        if let Some(interval) = context.config.client.ping_interval {
            let half = interval / 2;
            let jitter = Duration::from_millis(context.rng.below(half.as_millis() as u64 + 1));
            self.next = TimerWheel::tick_after(context.now.at, half + jitter);
        }
    }

    /// The nearest deadline; 0 when there is none.
    #[must_use]
    pub fn deadline(&self, now: Now, config: &Config) -> Tick {
        let mut nearest = Tick::MAX;
        if self.next != 0 {
            nearest = self.next;
        }
        if self.pong_by != 0 {
            nearest = nearest.min(self.pong_by);
        }
        match self.reply_by() {
            0 => {}
            by => nearest = nearest.min(by),
        }
        if self.expire_at != 0 && self.phase == Phase::Connected && !self.is_refreshing() {
            let grace = grace_of_connection(config, self.tenant());
            nearest = nearest.min(expiry_tick(now, self.expire_at, grace));
        }
        for subscription in &self.subscriptions {
            if subscription.expire_at != 0 && !subscription.has(flag::REFRESHING) {
                let grace = grace_of(subscription, config);
                nearest = nearest.min(expiry_tick(now, subscription.expire_at, grace));
            }
        }
        if nearest == Tick::MAX { 0 } else { nearest }
    }

    /// Does what is due.
    pub fn timeout(
        &mut self,
        context: &mut Context<'_>,
        peer: PeerState,
    ) -> Result<(), Disconnect> {
        let tick = TimerWheel::tick(context.now.at);
        match self.phase {
            Phase::Ended => return Ok(()),
            Phase::Refused if self.next != 0 && self.next <= tick => {
                return Err(Disconnect::ConnectionClosed);
            }
            Phase::Refused => return Ok(()),
            Phase::Fresh | Phase::Connecting if self.next != 0 && self.next <= tick => {
                return Err(Disconnect::Stale);
            }
            Phase::Fresh | Phase::Connecting => return Ok(()),
            Phase::Connected => {}
        }
        while let Some(id) = self.next_overdue(tick) {
            context.counters.asks_overdue += 1;
            context.error(id, ClientError::Internal);
        }
        if self.pong_by != 0 && self.pong_by <= tick {
            // The pong may stand among what waits for its turn. A peer that is dead sends none there either.
            let may_be_there = peer.is_held || self.has_frames();
            if !peer.comes_to_ping && !peer.is_slowed && (!may_be_there || self.pings.gets_late()) {
                return Err(Disconnect::NoPong);
            }
            self.await_pong(context.now, context.config);
        }
        let config = context.config;
        let now = context.now.at;
        let over = |at: u32, grace: Duration| at != 0 && end_of(at) + grace <= now;
        if over(self.expire_at, grace_of_connection(config, self.tenant())) && !self.is_refreshing()
        {
            let Some(target) = config.refresh_hook(self.tenant()) else {
                return Err(Disconnect::Expired);
            };
            self.ask_refresh(context, target);
        }
        let mut expired: smallvec::SmallVec<[u32; 4]> = smallvec::SmallVec::new();
        for index in 0..self.subscriptions.len() {
            let subscription = &self.subscriptions[index];
            if subscription.has(flag::REFRESHING) {
                continue;
            }
            if over(subscription.expire_at, grace_of(subscription, config)) {
                if subscription.has(flag::SERVER_REFRESH) {
                    self.ask_sub_refresh(context, index);
                    continue;
                }
                if subscription.has(flag::SERVER_SIDE) {
                    return Err(Disconnect::SubscriptionExpired);
                }
                expired.push(subscription.hub);
            }
        }
        for hub in expired {
            self.end_subscription(context, hub, Some(Unsubscribe::Expired));
        }
        if self.next != 0 && self.next <= tick {
            self.ping(context);
        }
        Ok(())
    }

    fn ping(&mut self, context: &mut Context<'_>) {
        let Some(interval) = context.config.client.ping_interval else {
            self.next = 0;
            return;
        };
        if self.frame_pings {
            encode_frame_header(context.out, Opcode::Ping, 0);
        }
        let converses = context.format.speaker.converses();
        if !self.frame_pings || !converses {
            speaker::ping(context.out, context.format, context.compression);
        }
        self.next = TimerWheel::tick_after(context.now.at, interval);
        if !converses && !self.frame_pings {
            // Nobody there could answer.
            return;
        }
        if !self.frame_pings {
            self.pings.one_more();
        }
        // Who has not answered the one before has no more time because of this one.
        if self.pong_by == 0 {
            self.await_pong(context.now, context.config);
            self.pings.in_time();
        }
    }

    fn await_pong(&mut self, now: Now, config: &Config) {
        self.pong_by = TimerWheel::tick_after(now.at, config.client.pong_timeout);
    }

    /// The ping that waited behind what the peer took slowly is with the kernel: only now can it be answered.
    pub fn ping_went_out(&mut self, now: Now, config: &Config) {
        if self.pong_by != 0 {
            self.await_pong(now, config);
        }
    }

    /// Its peer is read again that was not for a while: its pong may come only now.
    pub fn heard_again(&mut self, now: Now, config: &Config) {
        if self.pong_by != 0 {
            self.await_pong(now, config);
        }
    }

    /// A ping is among what was queued in this turn.
    #[must_use]
    pub fn was_pinged(&self, now: Now, config: &Config) -> bool {
        self.pong_by != 0
            && self.pong_by + 1 >= TimerWheel::tick_after(now.at, config.client.pong_timeout)
    }

    /// A pong of the protocol; it must have been asked for.
    pub(super) fn pong(&mut self, context: &Context<'_>) -> Result<(), Disconnect> {
        match self.pings.answered() {
            None => return Err(Disconnect::BadRequest),
            Some(0) => self.pong_by = 0,
            // Who was not read for a while has got several.
            Some(_) => self.await_pong(context.now, context.config),
        }
        Ok(())
    }

    /// A WebSocket pong frame. Unasked ones are allowed (RFC 6455 §5.5.3).
    pub const fn frame_pong(&mut self) {
        if self.frame_pings {
            self.pong_by = 0;
        }
    }

    pub(super) fn refresh(
        &mut self,
        context: &mut Context<'_>,
        id: u32,
        token: &str,
    ) -> Result<(), Disconnect> {
        use crate::auth::token::TokenError;
        if token.is_empty() || context.config.refresh_hook(self.tenant()).is_some() {
            return Err(Disconnect::BadRequest);
        }
        let tokens = context.tokens_of(self.tenant());
        let claims = match tokens.connection.connection(token, context.now) {
            Ok(claims) => claims,
            Err(TokenError::Expired) => return Err(Disconnect::Expired),
            Err(TokenError::Invalid | TokenError::BadBase64) => {
                return Err(Disconnect::InvalidToken);
            }
            Err(TokenError::KeysUnavailable) => {
                context.error(id, ClientError::Internal);
                return Ok(());
            }
            Err(TokenError::KeyWanted) => {
                context.wait_for_key(self.tenant(), KeySource::Connection, token);
                return Ok(());
            }
        };
        let (revocations, now) = (context.revocations, context.now.at);
        let is_revoked = revocations.is_revoked(&self.user, claims.mark.parts(), "", now);
        if claims.user != self.user.name() || is_revoked {
            return Err(Disconnect::InvalidToken);
        }
        let expire_at = kept_expiry(context.now, claims.expire_at);
        if is_past(context.now, expire_at) {
            context.error(id, ClientError::Expired);
            return Ok(());
        }
        if self.server_side_changed(context, &claims) {
            return Err(Disconnect::InsufficientState);
        }
        self.keep_token(context.now, claims);
        context.reply(id, ReplyBody::Refresh(ttl(context.now, expire_at)));
        Ok(())
    }

    /// The server API gives the connection a new expiry; `None` is never.
    pub fn refreshed(&mut self, context: &mut Context<'_>, expire_at: Option<u64>, info: &[u8]) {
        self.expire_at = kept_expiry(context.now, expire_at);
        if !info.is_empty() {
            self.info = info.into();
        }
        context.push(
            "",
            &crate::protocol::push::Push::Refresh(ttl(context.now, self.expire_at)),
        );
    }
}

#[cfg(test)]
mod tests;
