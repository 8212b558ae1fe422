//! A channel as its owner keeps it.

use std::sync::Arc;

use bytes::Bytes;

use super::durable::Durable;
use super::idempotency::Idempotency;
use super::presence::Presence;
use super::recovery::History;
use crate::config::Namespace;
use crate::model::{ChannelName, Epoch, Offset, Publication, StreamPosition};
use crate::time::{Instant, Now};
use crate::wire::fossil;

/// A durable channel without subscribers stays in memory for this long.
const DURABLE_KEPT: std::time::Duration = std::time::Duration::from_secs(60);

/// State of one owned channel.
#[derive(Debug)]
pub struct Channel {
    pub(super) name: ChannelName,
    pub(super) namespace: Arc<Namespace>,
    pub(super) epoch: Epoch,
    pub(super) top: Offset,
    pub(super) history: History,
    /// Shards with a subscriber: bit n for shard n.
    pub(super) interest: u64,
    /// Shards with a subscriber that takes patches, among those of `interest`.
    pub(super) patched: u64,
    /// Shards that lost a delivery and have not been told.
    pub(super) behind: u64,
    /// Shards that lost something that is not kept, and have not been told.
    pub(super) lost: u64,
    pub(super) presence: Option<Box<Presence>>,
    pub(super) idempotency: Option<Box<Idempotency>>,
    /// What a durable channel has in place of everything in memory.
    pub(super) durable: Option<Box<Durable>>,
    /// Highest version published, and the life of the version numbers.
    pub(super) version: Option<Box<(u64, Box<str>)>>,
    /// Last use by a publisher or reader: the position outlives it by `history_meta_ttl`.
    pub(super) used: Instant,
}

impl Channel {
    pub(super) fn new(
        name: ChannelName,
        namespace: Arc<Namespace>,
        epoch: Epoch,
        now: Instant,
    ) -> Self {
        Self {
            name,
            namespace,
            epoch,
            top: Offset(0),
            history: History::new(),
            interest: 0,
            patched: 0,
            behind: 0,
            lost: 0,
            presence: None,
            idempotency: None,
            durable: None,
            version: None,
            used: now,
        }
    }

    /// Some shard has to be told that it lost something.
    pub(super) const fn is_behind(&self) -> bool {
        self.behind | self.lost != 0
    }

    pub(super) const fn position(&self) -> StreamPosition {
        StreamPosition {
            epoch: self.epoch,
            offset: self.top,
        }
    }

    /// Forgets publications older than the time-to-live.
    pub(super) fn expire(&mut self, now: Now) {
        let ttl_ms = self.namespace.history_ttl.as_millis() as u64;
        while self
            .history
            .front()
            .is_some_and(|oldest| oldest.unix_ms + ttl_ms <= now.unix_ms)
        {
            self.history.pop_front();
        }
        if self
            .idempotency
            .as_mut()
            .is_some_and(|keys| keys.expire(now.at))
        {
            self.idempotency = None;
        }
    }

    /// Gives the publication its place and keeps it if the channel keeps history.
    pub(super) fn append(
        &mut self,
        mut publication: Publication,
        skip_history: bool,
    ) -> Arc<Publication> {
        if self.namespace.history_size > 0 && !skip_history {
            self.top.0 += 1;
            publication.offset = self.top;
            publication.epoch = self.epoch;
            publication.patch = self.patch(&publication);
            let publication = Arc::new(publication);
            // A reload may have made the history smaller.
            while self.history.len() >= self.namespace.history_size as usize {
                self.history.pop_front();
            }
            self.history.push_back(Arc::clone(&publication));
            return publication;
        }
        Arc::new(publication)
    }

    /// What makes the publication out of the one before it, if somebody takes patches of this channel.
    pub(super) fn patch(&self, publication: &Publication) -> Option<Bytes> {
        let wanted = self.patched & self.interest != 0
            && self.namespace.fossil()
            && (publication.delta || self.namespace.delta_publish);
        let before = self.history.back().filter(|_| wanted)?;
        if before.offset.0 + 1 != publication.offset.0 {
            return None;
        }
        fossil::create(&before.data, &publication.data).map(Bytes::from)
    }

    /// Nothing is lost when the channel is forgotten.
    pub(super) fn is_forgettable(&self, now: Instant) -> bool {
        if self.namespace.is_durable() {
            // The log knows everything; it is only asked again.
            return self.interest == 0
                && now.since(self.used) >= DURABLE_KEPT
                && self
                    .durable
                    .as_ref()
                    .is_none_or(|durable| durable.parked.is_empty() && durable.woken.is_empty())
                && self
                    .presence
                    .as_ref()
                    .is_none_or(|presence| presence.is_empty());
        }
        self.interest == 0
            && self.history.is_empty()
            && self.idempotency.is_none()
            && self
                .presence
                .as_ref()
                .is_none_or(|presence| presence.is_empty())
            && (self.top == Offset(0) && self.version.is_none() && self.namespace.history_size == 0
                || now.since(self.used) >= self.namespace.history_meta_ttl)
    }
}
