//! A channel as its owner keeps it.

mod followed;
mod image;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::followed::Followed;
use super::list::Link;
use super::presence::Presence;
use super::recovery::KeptHistory;
use crate::config::Namespace;
use crate::mem::Quota;
use crate::model::{ChannelName, Epoch, Offset, Publication, StreamPosition};
use crate::time::Instant;
use crate::wire::fossil;

/// A durable channel without subscribers stays in memory for this long.
const DURABLE_KEPT: Duration = Duration::from_secs(60);
/// One that the log has nothing of, or that was not asked for after all.
const DURABLE_EMPTY_KEPT: Duration = Duration::from_secs(1);

/// State of one owned channel.
#[derive(Debug)]
pub struct Channel {
    pub(super) name: ChannelName,
    pub(super) namespace: Arc<Namespace>,
    pub(super) epoch: Epoch,
    pub(super) top: Offset,
    pub(super) history: KeptHistory,
    /// Shards with a subscriber: bit n for shard n.
    pub(super) interest: u64,
    /// Shards with a subscriber that takes patches, among those of `interest`.
    pub(super) patched: u64,
    /// Shards that lost a delivery and have not been told.
    pub(super) behind: u64,
    /// Shards that lost something that is not kept, and have not been told.
    pub(super) lost: u64,
    pub(super) presence: Option<Box<Presence>>,
    /// What one that is followed has in place of everything in memory.
    pub(super) followed: Option<Box<Followed>>,
    /// Highest version published, and the life of the version numbers.
    pub(super) version: Option<Box<(u64, Box<str>)>>,
    /// Last use by a publisher or reader: the position outlives it by `history_meta_ttl`.
    pub(super) used: Instant,
    /// Neighbours among those without subscribers.
    pub(super) idle: Link,
    /// Which client had the first thing kept in it, if one had.
    pub(super) made: Option<Box<Made>>,
    /// What it takes of what its tenant may have; `None` where that is nobody's.
    pub(super) share: Option<Box<ChannelShare>>,
    /// When it is looked at again, in seconds since the start of the process; 0 for never.
    pub(super) filed: u32,
}

/// What a channel takes of its tenant's limits: a place, and the bytes of its history. All of it is given back with the channel.
#[derive(Debug)]
pub(super) struct ChannelShare {
    quota: Arc<Quota>,
    bytes: u64,
}

impl ChannelShare {
    /// A place that was taken.
    pub(super) fn new(quota: &Arc<Quota>) -> Box<Self> {
        Box::new(Self {
            quota: Arc::clone(quota),
            bytes: 0,
        })
    }

    /// A place that it has in any case.
    fn adopt(quota: &Arc<Quota>) -> Box<Self> {
        quota.channels.adopt();
        Self::new(quota)
    }

    /// The history has so many bytes now.
    fn keep(&mut self, bytes: u64) {
        if bytes != self.bytes {
            self.quota.history_bytes.add(bytes);
            self.quota.history_bytes.sub(self.bytes);
            self.bytes = bytes;
        }
    }
}

impl Drop for ChannelShare {
    fn drop(&mut self) {
        self.keep(0);
        self.quota.channels.give_back();
    }
}

/// What a channel that a client made remembers of that.
#[derive(Debug)]
pub(super) struct Made {
    pub(super) user: u64,
    pub(super) prefix: u64,
    pub(super) by_user: Link,
    pub(super) by_prefix: Link,
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
            history: KeptHistory::default(),
            interest: 0,
            patched: 0,
            behind: 0,
            lost: 0,
            presence: None,
            followed: None,
            version: None,
            used: now,
            idle: Link::default(),
            made: None,
            share: None,
            filed: 0,
        }
    }

    /// Counts what its history takes of what its tenant may have.
    pub(super) fn count_history(&mut self) {
        let is_kept_here = !self.namespace.is_durable();
        if let Some(share) = &mut self.share {
            share.keep(if is_kept_here {
                self.history.bytes()
            } else {
                0
            });
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
    pub(super) fn expire(&mut self, now: Instant) {
        self.expire_some(now, usize::MAX);
    }

    /// The same with so many of them at most. Returns how many more it might have been.
    pub(super) fn expire_some(&mut self, now: Instant, most: usize) -> usize {
        let ttl = self.namespace.history_ttl;
        let mut left = most;
        while left > 0
            && self
                .history
                .oldest()
                .is_some_and(|taken| taken + ttl <= now)
        {
            self.history.pop_front();
            left -= 1;
        }
        self.count_history();
        left
    }

    /// Gives the publication its place and keeps it if the channel keeps history.
    pub(super) fn append(
        &mut self,
        now: Instant,
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
            self.history.push(now, Arc::clone(&publication));
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
        // Each publication that has an offset is kept, and what is forgotten is the oldest, or everything.
        debug_assert_eq!(
            before.offset.0 + 1,
            publication.offset.0,
            "the newest that is kept is the one before"
        );
        fossil::create(&before.data, &publication.data).map(Bytes::from)
    }

    /// Nobody knows a position in it beyond that before its first publication, and nothing else is kept of it.
    pub(super) fn is_unwritten(&self) -> bool {
        self.top == Offset(0) && self.version.is_none()
    }

    /// How long its record stays without a subscriber, once it keeps no publication.
    fn kept_for(&self) -> Duration {
        match (self.namespace.is_durable(), self.is_unwritten()) {
            (true, false) => DURABLE_KEPT,
            (true, true) => DURABLE_EMPTY_KEPT,
            (false, true) => Duration::ZERO,
            (false, false) => self.namespace.history_meta_ttl,
        }
    }

    /// No subscriber needs it, and nothing of it is under way: it may make room for another.
    pub(super) fn may_go(&self) -> bool {
        self.interest == 0
            && self
                .presence
                .as_ref()
                .is_none_or(|presence| presence.is_empty())
            && self
                .followed
                .as_ref()
                .is_none_or(|followed| !followed.is_busy())
    }

    /// Nothing is lost when the channel is forgotten.
    pub(super) fn is_forgettable(&self, now: Instant) -> bool {
        // The log knows everything of a durable one; it is only asked again.
        self.may_go()
            && (self.history.is_empty() || self.namespace.is_durable())
            && now.since(self.used) >= self.kept_for()
    }

    /// When something of it ends; `None` while that is up to its subscribers. Publications are looked for later than they
    /// end: whoever asks for them finds out in time.
    pub(super) fn ends_at(&self) -> Option<Instant> {
        let ttl = self.namespace.history_ttl;
        let history = self.history.oldest().map(|taken| taken + ttl + ttl / 8);
        let record = (self.interest == 0).then(|| self.used + self.kept_for());
        match (history, record) {
            (Some(history), Some(record)) if self.namespace.is_durable() => {
                Some(history.min(record))
            }
            (Some(history), _) => Some(history),
            (None, record) => record,
        }
    }
}
