//! Long polling: a session with one subscription whose client is answered once, by the shard.

use std::time::Duration;

use crate::image::image;
use crate::protocol::command::Subscribe;
use crate::speaker::FoundByPoll;

/// What a poll waits for.
#[derive(Debug, Default)]
pub struct PollState {
    /// The subscription to make once the session is connected.
    pub asked: Option<Subscribe<'static>>,
    /// How long to wait for a publication.
    pub timeout: Duration,
    /// What the owner has said; with it the wait begins.
    pub found: Option<FoundByPoll>,
}

image!(struct PollState { asked, timeout, found });
