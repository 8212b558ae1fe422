//! What sessions ask of other shards and wait for, beside publications and questions to owners: these wait in the session's
//! `Order`.

use super::Context;
use crate::image::{ImageError, ImageReader, ImageWriter, image};
use crate::limits::{ADMITS_MAX, INTERESTS_MAX, MESH_TIMEOUT};
use crate::mem::Asks;
use crate::model::{AskId, ClientId, ConnId, HubId};
use crate::protocol::error::ClientError;

/// Questions of one shard's sessions.
pub struct OpenQuestions {
    /// To owners of channels: subscribers.
    pub interests: Asks<Subscribing>,
    /// To registries of users: connect commands.
    pub admits: Asks<Admitting>,
}

impl Default for OpenQuestions {
    fn default() -> Self {
        Self {
            interests: Asks::new(INTERESTS_MAX, usize::MAX),
            admits: Asks::new(ADMITS_MAX, usize::MAX),
        }
    }
}

/// A subscription that waits for the owner of its channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subscribing {
    /// The subscriber's connection.
    pub conn: ConnId,
    /// Its session: a connection may carry one after the other.
    pub client: ClientId,
    /// Hub channel.
    pub hub: HubId,
    /// What makes the subscription.
    pub by: SubscribedBy,
}

/// What makes a subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SubscribedBy {
    /// A client's command, by its id.
    Command(u32),
    /// Its connect command.
    Connect,
    /// A service, while the client is connected: what waits for it.
    Service(Option<AskId>),
    /// It is made, and gets the next part of what it missed.
    Part,
}

/// A connect command that waits for its user's registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admitting {
    /// Its connection.
    pub conn: ConnId,
    /// Its session.
    pub client: ClientId,
    /// Its user.
    pub user: Box<str>,
}

image!(struct Subscribing { conn, client, hub, by });
image!(enum SubscribedBy { 0 => Command(id), 1 => Connect, 2 => Service(wait), 3 => Part });
image!(struct Admitting { conn, client, user });

impl OpenQuestions {
    /// Writes all of them.
    pub fn write(&self, out: &mut ImageWriter) {
        let Self { interests, admits } = self;
        interests.write(out);
        admits.write(out);
    }

    /// Reads what `write` has written.
    ///
    /// # Errors
    /// It cannot be.
    pub fn read(from: &mut ImageReader<'_>) -> Result<Self, ImageError> {
        Ok(Self {
            interests: Asks::read(INTERESTS_MAX, usize::MAX, from)?,
            admits: Asks::read(ADMITS_MAX, usize::MAX, from)?,
        })
    }
}

impl Context<'_> {
    /// A subscription begins to wait for the owner of its channel.
    pub(super) fn open_interest(
        &mut self,
        client: ClientId,
        hub: HubId,
        by: SubscribedBy,
    ) -> Result<AskId, ClientError> {
        let subscribing = Subscribing {
            conn: self.conn,
            client,
            hub,
            by,
        };
        let until = self.now.at + MESH_TIMEOUT;
        let opened = self.asked.interests.open(until, 0, subscribing);
        opened.map_err(|_full| ClientError::Internal)
    }
}
