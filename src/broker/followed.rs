//! Channels that are followed: their entries are kept elsewhere, by the durable log, and come down from there.
//!
//! Their owner has the channel's end, the newest publications in memory, and parts that were read of late. Whoever needs more
//! waits while it is read; all who need the same wait for one reading.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::image::image;
use crate::limits::LOG_PARTS_PER_ASK_MAX;
use crate::mesh::durable::Span;
use crate::mesh::message::{Interest, InterestFor, Leave, Query, QueryFor};
use crate::model::{AskId, ClientInfo, Publication, ShardId};

/// How often an asker has waited for the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tries {
    /// So often; at most `LOG_PARTS_PER_ASK_MAX`.
    Waited(u8),
    /// Its subscriber is gone: it is answered without counting.
    Gone,
}

impl Tries {
    /// Of one that comes.
    pub const FIRST: Self = Self::Waited(0);

    /// Of one that waits once more.
    pub(super) fn again(self) -> Self {
        match self {
            Self::Waited(times) => Self::Waited((times + 1).min(LOG_PARTS_PER_ASK_MAX)),
            Self::Gone => Self::Gone,
        }
    }

    /// It gets what there is.
    pub(super) const fn is_over(self) -> bool {
        matches!(self, Self::Waited(times) if times >= LOG_PARTS_PER_ASK_MAX)
    }
}

/// Who waits for a part of the log.
#[derive(Debug)]
pub enum PartAsker {
    /// A shard with a subscriber.
    Interest(ShardId, InterestFor, Box<Interest>),
    /// A shard with a question.
    Query(ShardId, QueryFor, Box<Query>),
    /// A part of a server API call: where it waits, which part, the question.
    Api(AskId, u32, Box<Query>),
}

/// See the module.
#[derive(Debug, Default)]
pub struct Followed {
    /// The channel's end is known.
    pub(super) is_open: bool,
    /// What came while it was asked for.
    pub(super) ahead: Vec<Arc<Publication>>,
    /// More came than is kept.
    pub(super) ahead_lost: bool,
    /// Who waits for the log, and how often it has.
    pub(super) parked: Vec<(PartAsker, Tries)>,
    /// Who waited and can be answered now.
    pub(super) woken: VecDeque<(PartAsker, Tries)>,
    pub(super) pages: VecDeque<LogPart>,
    /// The answer about the end that is on its way does not count.
    pub(super) reread: bool,
    /// Parts that are being read: what they come after; `None` for the channel's end.
    pub(super) reading: Vec<Option<u64>>,
    /// What is earlier, the log has forgotten.
    pub(super) first_kept: u64,
}

image!(enum PartAsker {
    0 => Interest(from, asker, interest),
    1 => Query(from, asker, query),
    2 => Api(call, item, query),
});
image!(enum Tries { 0 => Waited(times), 1 => Gone });
image!(struct LogPart { after, span, publications });
image!(struct Span { from, to });
image!(struct Followed {
    is_open, ahead, ahead_lost, parked, woken, pages, reread, reading, first_kept
});

impl Followed {
    /// Everybody who waits looks again. `true` if nobody was about to.
    pub(super) fn wake(&mut self) -> bool {
        let was_empty = self.woken.is_empty();
        self.woken.extend(self.parked.drain(..));
        was_empty && !self.woken.is_empty()
    }

    /// Somebody waits for the log, or the log is being asked, or parts of it are kept for those who come next.
    pub(super) fn is_busy(&self) -> bool {
        let is_idle = self.parked.is_empty()
            && self.woken.is_empty()
            && self.reading.is_empty()
            && self.pages.is_empty();
        !is_idle
    }

    /// A subscriber is gone: if it waits here, it is answered without counting.
    pub(super) fn disown(&mut self, from: ShardId, leave: &Leave) {
        for (asker, tries) in self.parked.iter_mut().chain(&mut self.woken) {
            let PartAsker::Interest(shard, _, interest) = asker else {
                continue;
            };
            if *shard != from {
                continue;
            }
            if leave.last && interest.hub == leave.hub {
                *tries = Tries::Gone;
            }
            let is_its = |info: &Arc<ClientInfo>| {
                leave
                    .info
                    .as_ref()
                    .is_some_and(|gone| gone.client == info.client)
            };
            if interest.presence.as_ref().is_some_and(is_its) {
                interest.presence = None;
                interest.keep = false;
                interest.join = false;
            }
        }
    }
}

/// A part that was read.
#[derive(Debug)]
pub(super) struct LogPart {
    pub(super) after: u64,
    pub(super) span: Span,
    pub(super) publications: Vec<Arc<Publication>>,
}

/// What there is for an asker.
#[derive(Debug, PartialEq, Eq)]
pub enum FoundInLog {
    /// These publications; more follow them before the channel's end.
    Some {
        /// Ascending, all that is kept of the span.
        publications: Vec<Arc<Publication>>,
        /// What of the channel they are.
        span: Span,
        /// They do not reach the channel's end.
        more: bool,
    },
    /// They are gone, or never were.
    Gone,
    /// The log has to be read from here.
    Read(u64),
}

/// See `Channel::stored`.
pub enum Stored {
    /// It is known, or waits.
    Nothing,
    /// It goes to the subscribers.
    Next(Arc<Publication>),
}

/// See `Channel::opened`.
pub struct Opened {
    /// The end is not where it was thought to be.
    pub moved: bool,
    /// What goes to the subscribers.
    pub later: Vec<Arc<Publication>>,
}
