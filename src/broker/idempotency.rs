//! Keys of publications that were already made, within the owner's memory.

use std::collections::VecDeque;
use std::time::Duration;

use hashbrown::HashMap;

use crate::limits::IDEMPOTENCY_KEYS_PER_CHANNEL_MAX;
use crate::model::StreamPosition;
use crate::time::Instant;

/// First positions by key, oldest first out.
#[derive(Debug, Default)]
pub struct Idempotency {
    positions: HashMap<Box<str>, StreamPosition, foldhash::fast::FixedState>,
    expiry: VecDeque<(Instant, Box<str>)>,
}

impl Idempotency {
    /// Where the publication with this key went.
    pub fn find(&mut self, now: Instant, key: &str) -> Option<StreamPosition> {
        self.expire(now);
        self.positions.get(key).copied()
    }

    /// Remembers a key for `ttl`.
    pub fn remember(
        &mut self,
        now: Instant,
        key: Box<str>,
        position: StreamPosition,
        ttl: Duration,
    ) {
        if self.expiry.len() == IDEMPOTENCY_KEYS_PER_CHANNEL_MAX
            && let Some((_, oldest)) = self.expiry.pop_front()
        {
            self.positions.remove(&oldest);
        }
        self.expiry.push_back((now + ttl, key.clone()));
        self.positions.insert(key, position);
    }

    /// Forgets what is too old; `true` if nothing is left.
    pub fn expire(&mut self, now: Instant) -> bool {
        while let Some((at, key)) = self.expiry.front() {
            if *at > now {
                break;
            }
            self.positions.remove(key);
            self.expiry.pop_front();
        }
        self.expiry.is_empty()
    }
}
