//! Long polling: a session with one subscription whose client is answered once, by the shard. What the session has to say
//! goes to the shard as values.

use std::sync::Arc;
use std::time::Duration;

use crate::mem::image;
use crate::model::{Publication, StreamPosition};
use crate::protocol::command::Subscribe;
use crate::protocol::push::{ReplyBody, SubscribeResult};

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
    Subscribed(Found),
    /// The subscription has ended.
    Ended,
}

/// What was there when a poll began.
#[derive(Debug, Default)]
pub struct Found {
    /// Where the client stands once it has the publications. Empty in a channel without history.
    pub position: Option<StreamPosition>,
    /// What it missed, oldest first.
    pub publications: Vec<Arc<Publication>>,
    /// That is everything since the position it named.
    pub recovered: bool,
    /// The position was looked at.
    pub was_recovering: bool,
}

/// What a poll waits for.
#[derive(Debug, Default)]
pub struct Poll {
    /// The subscription to make once the session is connected.
    pub asked: Option<Subscribe<'static>>,
    /// How long to wait for a publication.
    pub timeout: Duration,
    /// What the owner has said; with it the wait begins.
    pub found: Option<Found>,
}

image!(struct Poll { asked, timeout, found });
image!(struct Found { position, publications, recovered, was_recovering });

impl Said {
    pub(super) fn of(body: &ReplyBody<'_>, polls: bool) -> Option<Self> {
        match body {
            ReplyBody::Error(error) => Some(Self::Refused(error.code(), error.message().into())),
            ReplyBody::ChosenError(error) => Some(Self::Refused(error.code, error.message.clone())),
            ReplyBody::Connect(_) if polls => Some(Self::Polled(Polled::Connected)),
            ReplyBody::Subscribe(result) if polls => {
                Some(Self::Polled(Polled::Subscribed(Found::of(result))))
            }
            _ => None,
        }
    }
}

impl Found {
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
}
