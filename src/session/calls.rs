//! What backends are asked on behalf of sessions, and who waits for their verdicts.

use std::collections::VecDeque;

use crate::limits::{CALL_BYTES_MAX, CALLS_MAX, HOOK_GRACE};
use crate::mem::{Full, SharedAsks, Whose};
use crate::mesh::hook::{Call, HookEvent};
use crate::model::{ChannelName, ClientId, ConnId, HubId};
use crate::protocol::error::ClientError;
use crate::time::{Instant, Now};

/// The calls of one shard. Each has its place until it is back from control, also when whoever waited was told that it takes
/// too long.
pub struct Calls {
    /// Not handed over yet.
    outgoing: VecDeque<Box<Call>>,
    asks: SharedAsks<Option<Undecided>>,
}

impl Default for Calls {
    fn default() -> Self {
        Self {
            outgoing: VecDeque::new(),
            asks: SharedAsks::new(CALLS_MAX as u32, CALL_BYTES_MAX),
        }
    }
}

/// What waits for the verdict of a backend.
#[derive(Debug)]
pub struct Undecided {
    /// Whose it is.
    pub conn: ConnId,
    /// The session: a connection may carry one after the other.
    pub(super) client: ClientId,
    /// Id of the command; 0 where none waits.
    pub(super) id: u32,
    pub(super) what: What,
}

/// What is decided about.
#[derive(Debug)]
pub(super) enum What {
    Connect,
    Refresh,
    SubRefresh(HubId),
    Subscribe(ChannelName),
    /// Nothing but the command depends on it.
    Command,
}

impl Undecided {
    fn of(call: &Call) -> Self {
        let what = match &call.event {
            HookEvent::Connect { .. } => What::Connect,
            HookEvent::Refresh => What::Refresh,
            HookEvent::SubRefresh { hub, .. } => What::SubRefresh(*hub),
            HookEvent::Subscribe { channel, .. } => What::Subscribe(channel.clone()),
            HookEvent::Publish { .. } | HookEvent::Rpc { .. } => What::Command,
        };
        Self {
            conn: call.conn,
            client: call.client,
            id: call.id,
            what,
        }
    }
}

impl Calls {
    /// Sends a call unless too many, or too large ones, are under way.
    pub(super) fn push(&mut self, now: Now, mut call: Box<Call>) -> Result<(), ClientError> {
        let whose = Whose {
            conn: call.conn,
            user: call.user.whole(),
            from: call.from,
        };
        // It may wait for its turn as long as for its answer.
        let until = now.at + call.target.timeout * 2 + HOOK_GRACE;
        let undecided = Some(Undecided::of(&call));
        let opened = self.asks.open(until, Some(&whose), call.bytes(), undecided);
        call.ask = opened.map_err(|full| match full {
            Full::Table => ClientError::Internal,
            Full::Share => ClientError::TooManyRequests,
        })?;
        self.outgoing.push_back(call);
        Ok(())
    }

    /// The next call to hand over.
    pub fn pop(&mut self) -> Option<Box<Call>> {
        self.outgoing.pop_front()
    }

    /// A call came back. `false`: whoever waited has been told that nobody decides.
    ///
    /// # Panics
    /// If it was never sent.
    pub fn returned(&mut self, call: &Call) -> bool {
        let undecided = self.asks.close(call.ask);
        assert!(undecided.is_some(), "an answer to a call never made");
        undecided.flatten().is_some()
    }

    /// What waits for a verdict that takes too long, once each.
    pub fn next_late(&mut self, now: Instant) -> Option<Undecided> {
        self.asks.next_late(now)?.1.take()
    }

    /// When the next one takes too long.
    #[must_use]
    pub fn next_at(&self) -> Option<Instant> {
        self.asks.next_at()
    }

    /// Calls under way.
    #[must_use]
    pub const fn under_way(&self) -> usize {
        self.asks.len()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;

    use super::*;
    use crate::config::hooks::Target;
    use crate::model::{AskId, Format};

    fn call(slot: u32, payload: usize) -> Box<Call> {
        Box::new(Call {
            ask: AskId::default(),
            target: Arc::new(Target::named("rpc.proxy")),
            conn: ConnId {
                slot,
                generation: 0,
            },
            id: 1,
            client: ClientId(u128::from(slot)),
            format: Format::default(),
            user: crate::model::UserId::default(),
            from: 0,
            meta: Bytes::new(),
            headers: Vec::new(),
            event: HookEvent::Rpc {
                method: "m".into(),
                data: vec![b'1'; payload].into(),
            },
        })
    }

    #[test]
    fn calls_under_way_are_bounded_by_number_and_by_bytes_and_given_back() {
        for (payload, most) in [(0, CALLS_MAX), (CALL_BYTES_MAX / 8, 7)] {
            let mut calls = Calls::default();
            // Twice: what came back leaves nothing behind.
            for round in 0..2 {
                let mut taken = 0;
                let mut slot = 0;
                let refused = loop {
                    slot += 1;
                    match calls.push(Now::default(), call(slot, payload)) {
                        Ok(()) => taken += 1,
                        Err(refused) => break refused,
                    }
                };
                assert_eq!(refused, ClientError::Internal);
                assert_eq!((taken, calls.under_way()), (most, most), "round {round}");
                while let Some(call) = calls.pop() {
                    assert!(calls.returned(&call));
                }
                assert_eq!(calls.under_way(), 0);
            }
        }
    }
}
