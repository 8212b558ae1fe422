//! What an owner asks of the durable log, and what comes of the answers.

use std::sync::Arc;

use super::{Owner, PlacedPublication};
use crate::broker::channel::Channel;
use crate::broker::followed::{FoundInLog, PartAsker, Stored, Tries};
use crate::config::ChannelRules;
use crate::limits::LOG_PAGES_BYTES_MAX;
use crate::mesh::durable::{Page, Read, Span};
use crate::mesh::message::{AnswerKind, Query, QueryKind, Recover};
use crate::model::{ChannelName, Publication};
use crate::time::Now;

impl Owner {
    /// A question about a durable channel that may have to ask the log. `None`: the asker is among those of `take_woken` later.
    pub fn query_durable(
        &mut self,
        now: Now,
        query: Box<Query>,
        asker: impl FnOnce(Box<Query>) -> PartAsker,
        tries: Tries,
        rules: &ChannelRules,
    ) -> Option<AnswerKind> {
        let QueryKind::History { limit, .. } = query.what else {
            return Some(self.query(now, &query, rules));
        };
        let Ok(slot) = self.open(now, &query.channel, rules) else {
            return Some(AnswerKind::Overloaded);
        };
        let channel = self.table.of_mut(slot);
        channel.expire(now.at);
        let read = if !channel.is_open() {
            channel.open_read()
        } else if limit == 0 {
            let position = channel.position();
            return Some(AnswerKind::History(Vec::new(), position, Span::default()));
        } else {
            match channel.page(query.what, tries) {
                FoundInLog::Some {
                    publications, span, ..
                } => {
                    let position = channel.position();
                    return Some(AnswerKind::History(publications, position, span));
                }
                FoundInLog::Gone => return Some(AnswerKind::Unrecoverable),
                FoundInLog::Read(after) => channel.part_read(after),
            }
        };
        self.park(now, slot, (asker(query), tries), read);
        None
    }

    /// Whoever asks, as often as it has by now, waits at a channel for what is read from the log.
    pub(super) fn park(
        &mut self,
        now: Now,
        slot: u32,
        (asker, tries): (PartAsker, Tries),
        read: Option<Read>,
    ) {
        let followed = self.table.of_mut(slot).followed_mut();
        followed.parked.push((asker, tries.again()));
        self.reads.extend(read);
        self.table.settle(now.at, slot);
    }

    /// What the log is to be asked, once each.
    pub fn take_reads(&mut self) -> Vec<Read> {
        std::mem::take(&mut self.reads)
    }

    /// Somebody waits whose answer can be given, or whose question has to be asked anew.
    #[must_use]
    pub fn has_woken(&self) -> bool {
        !self.woken.is_empty()
    }

    /// Channels with subscribers whose end has to be asked for again.
    #[must_use]
    pub const fn unopened(&self) -> usize {
        self.unopened.len()
    }

    /// One of those who waited, and how often it has.
    pub fn take_woken(&mut self) -> Option<(PartAsker, Tries)> {
        loop {
            let slot = *self.woken.front()?;
            let followed = self
                .table
                .at_mut(slot)
                .and_then(|channel| channel.followed.as_mut());
            if let Some(asker) = followed.and_then(|followed| followed.woken.pop_front()) {
                return Some(asker);
            }
            self.woken.pop_front();
        }
    }

    /// A publication out of the log, for a channel that this shard owns: what goes to whom.
    pub fn stored(
        &mut self,
        now: Now,
        name: ChannelName,
        publication: Arc<Publication>,
    ) -> Option<PlacedPublication> {
        let (_, channel) = self.table.find_mut(&name)?;
        if !channel.namespace.is_durable() {
            return None;
        }
        let was_open = channel.is_open();
        match channel.stored(now.at, publication) {
            Stored::Next(publication) => Some(PlacedPublication {
                channel: name,
                publication,
                shards: channel.interest,
            }),
            Stored::Nothing => {
                if was_open && !channel.is_open() {
                    self.reads.extend(channel.open_read());
                }
                None
            }
        }
    }

    /// The log keeps nothing of a channel before this offset.
    pub fn begins(&mut self, name: &ChannelName, first: u64) {
        if let Some((_, channel)) = self.table.find_mut(name)
            && channel.namespace.is_durable()
        {
            channel.begins(first);
        }
    }

    /// Of a channel some entries have ended before their turn.
    pub fn ended(&mut self, name: &ChannelName, offsets: &[u64]) {
        if let Some((_, channel)) = self.table.find_mut(name)
            && channel.namespace.is_durable()
        {
            channel.ended(offsets);
        }
    }

    /// The log's side lost its place: what is in use is asked for anew, the rest is forgotten.
    pub fn restarted(&mut self) {
        for slot in 0..self.table.slots() {
            if let Some(channel) = self.table.at_mut(slot)
                && channel.namespace.is_durable()
            {
                channel.reopen();
                if channel.interest != 0 {
                    self.reads.extend(channel.open_read());
                }
            }
        }
    }

    /// A part of the log came. What goes to whom because of it.
    pub fn read(&mut self, now: Now, page: Page) -> Vec<PlacedPublication> {
        let Some((slot, channel)) = self.table.find_mut(&page.channel) else {
            return Vec::new();
        };
        let mut out = Vec::new();
        if page.after.is_none() {
            if channel.asks_again() {
                self.reads.extend(channel.open_read());
                return out;
            }
            let opened = channel.opened(now.at, page.position);
            let interest = channel.interest;
            if opened.moved && interest != 0 {
                // Subscribers stand where the channel ended before; what lies between is read by their shards.
                if !channel.is_behind() {
                    self.behind.push(slot);
                }
                channel.behind |= interest;
            }
            out.extend(
                opened
                    .later
                    .into_iter()
                    .map(|publication| PlacedPublication {
                        channel: channel.name.clone(),
                        publication,
                        shards: interest,
                    }),
            );
            if !channel.is_open() {
                self.reads.extend(channel.open_read());
            }
        } else {
            let bytes = channel.part_came(page);
            if bytes > 0 {
                self.parts.push_back((slot, bytes));
                self.part_bytes += bytes;
            }
        }
        if channel.followed_mut().wake() {
            self.woken.push_back(slot);
        }
        while self.part_bytes > LOG_PAGES_BYTES_MAX && self.parts.len() > 1 {
            self.drop_part();
        }
        out
    }

    pub(super) fn drop_part(&mut self) {
        if let Some((slot, bytes)) = self.parts.pop_front() {
            // The channel may have given its parts up before.
            self.part_bytes = self.part_bytes.saturating_sub(bytes);
            if let Some(channel) = self.table.at_mut(slot) {
                channel.drop_part();
            }
        }
    }

    /// A part of the log could not be read: whoever waited for the channel gets an error.
    pub fn read_failed(&mut self, name: &ChannelName) -> Vec<PartAsker> {
        let Some((slot, channel)) = self.table.find_mut(name) else {
            return Vec::new();
        };
        channel.read_failed();
        if !channel.is_open() && channel.interest != 0 {
            self.unopened.push(slot);
        }
        let parked = std::mem::take(&mut channel.followed_mut().parked);
        parked.into_iter().map(|(asker, _)| asker).collect()
    }
}

/// What a subscriber of a durable channel missed, whether that is what it asked for, and whether more follows. `Err` if the
/// log has to be asked (what for, unless that is under way).
#[allow(clippy::type_complexity, reason = "named where it is used")]
pub(super) fn durable_missed(
    channel: &mut Channel,
    recover: Option<&Recover>,
    tries: Tries,
) -> Result<(Vec<Arc<Publication>>, bool, bool), Option<Read>> {
    if !channel.is_open() {
        return Err(channel.open_read());
    }
    let Some(recover) = recover else {
        return Ok((Vec::new(), false, false));
    };
    let found = if recover.cache {
        channel.latest(recover)
    } else {
        channel.missed(recover)
    };
    match found {
        FoundInLog::Some {
            publications, more, ..
        } => Ok((publications, true, more)),
        FoundInLog::Gone => Ok((Vec::new(), false, false)),
        FoundInLog::Read(_) if tries.is_over() => Ok((Vec::new(), false, false)),
        FoundInLog::Read(after) => Err(channel.part_read(after)),
    }
}
