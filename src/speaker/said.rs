//! What a session says to its shard, as values, where its speaker has no words for it.

use std::sync::Arc;

use crate::image::image;
use crate::model::{Format, Publication, Speaker, StreamPosition};
use crate::protocol::push::{Push, ReplyBody, SubscribeResult};

/// What a session says to its shard.
#[derive(Debug)]
pub enum Said {
    /// Connect was refused, or the subscription of a poll: code and text.
    Refused(u32, Box<str>),
    /// How a poll goes on.
    Polled(Polled),
}

/// How a poll goes on.
#[derive(Debug)]
pub enum Polled {
    /// The session is connected.
    Connected,
    /// The owner has answered.
    Subscribed(FoundByPoll),
    /// The subscription has ended.
    Ended,
}

/// What was there when a poll began.
#[derive(Debug, Default)]
pub struct FoundByPoll {
    /// Where the client stands once it has the publications. Empty in a channel without history.
    pub position: Option<StreamPosition>,
    /// What it missed, oldest first.
    pub publications: Vec<Arc<Publication>>,
    /// That is everything since the position it named.
    pub recovered: bool,
    /// The position was looked at.
    pub was_recovering: bool,
}

image!(struct FoundByPoll { position, publications, recovered, was_recovering });

impl Said {
    /// Instead of an answer, or beside it.
    pub(super) fn of_reply(format: Format, body: &ReplyBody<'_>) -> Option<Self> {
        if format.speaker.converses() {
            return None;
        }
        let polls = format.speaker == Speaker::Poll;
        match body {
            ReplyBody::Error(error) => Some(Self::Refused(error.code(), error.message().into())),
            ReplyBody::ChosenError(error) => Some(Self::Refused(error.code, error.message.clone())),
            ReplyBody::Connect(_) if polls => Some(Self::Polled(Polled::Connected)),
            ReplyBody::Subscribe(result) if polls => {
                Some(Self::Polled(Polled::Subscribed(FoundByPoll::of(result))))
            }
            _ => None,
        }
    }

    /// Instead of a push.
    pub(super) const fn of_push(format: Format, push: &Push<'_>) -> Option<Self> {
        match (format.speaker, push) {
            (Speaker::Poll, Push::Unsubscribe(_)) => Some(Self::Polled(Polled::Ended)),
            _ => None,
        }
    }
}

impl FoundByPoll {
    fn of(result: &SubscribeResult<'_>) -> Self {
        let mut position = result.position;
        if let (Some(position), Some(last)) = (&mut position, result.publications.last()) {
            position.offset = last.offset;
        }
        Self {
            position,
            publications: result.publications.to_vec(),
            recovered: result.recovered,
            was_recovering: result.was_recovering,
        }
    }

    /// More has come.
    pub fn add(&mut self, run: &[Arc<Publication>]) {
        self.publications.extend(run.iter().cloned());
        // Publications that are not kept may stand behind it.
        let last = run.iter().rev().find(|one| one.offset.0 > 0);
        if let (Some(position), Some(last)) = (&mut self.position, last) {
            position.epoch = last.epoch;
            position.offset = last.offset;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Epoch, Offset};

    #[test]
    fn poll_stands_behind_the_last_publication_that_is_kept() {
        let publication = |offset| {
            Arc::new(Publication {
                offset: Offset(offset),
                epoch: Epoch(*b"abcdefgh"),
                data: bytes::Bytes::from_static(b"1"),
                json: true,
                info: None,
                tags: Box::default(),
                unix_ms: 0,
                tells_time: false,
                patch: None,
                delta: false,
            })
        };
        for (offsets, wanted) in [
            (&[][..], 3),
            (&[4, 5], 5),
            (&[4, 0], 4),
            (&[0, 4, 0, 0], 4),
            (&[0], 3),
        ] {
            let mut found = FoundByPoll {
                position: Some(StreamPosition {
                    offset: Offset(3),
                    ..StreamPosition::default()
                }),
                ..FoundByPoll::default()
            };
            let run: Vec<_> = offsets.iter().copied().map(publication).collect();
            found.add(&run);
            let position = found.position.map(|position| position.offset.0);
            assert_eq!(position, Some(wanted), "{offsets:?}");
            assert_eq!(found.publications.len(), run.len());
        }
    }
}
