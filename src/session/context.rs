//! What a session works with besides itself.

use std::collections::VecDeque;

use crate::auth::token::Verifier;
use crate::broker::Hub;
use crate::broker::owner::owner_of;
use crate::config::Config;
use crate::mem::Rng;
use crate::mesh::{Endpoint, Message};
use crate::metrics::Counters;
use crate::model::{ChannelName, ConnId, Encoding, Format, Framing, ShardId};
use crate::protocol::error::ClientError;
use crate::protocol::push::{Push, Reply, ReplyBody};
use crate::time::Now;

use super::fanout;
use super::poll::{Polled, Said};

/// Verifiers of both kinds of token.
#[derive(Debug)]
pub struct Tokens {
    /// Connection tokens.
    pub connection: Verifier,
    /// Subscription tokens.
    pub subscription: Verifier,
}

impl Tokens {
    /// With the keys of a configuration.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        Self {
            connection: Verifier::new(&config.client.token),
            subscription: Verifier::new(&config.client.subscription_token),
        }
    }
}

/// See the module.
pub struct Context<'a> {
    /// Both clocks.
    pub now: Now,
    /// The session's connection.
    pub conn: ConnId,
    /// How its messages are written.
    pub format: Format,
    /// Rules.
    pub config: &'a Config,
    /// Keys.
    pub tokens: &'a Tokens,
    /// Who listens here.
    pub hub: &'a mut Hub,
    /// Way to the owners.
    pub mesh: &'a mut Endpoint,
    /// Counters of the shard.
    pub counters: &'a mut Counters,
    /// Random numbers.
    pub rng: &'a mut Rng,
    /// Frames for this session's connection.
    pub out: &'a mut Vec<u8>,
    /// Something was to be said that is no JSON, to a client that reads nothing else: the shard disconnects it (3506).
    pub inappropriate: bool,
    /// Which process this is, as clients name it.
    pub node: &'a str,
    /// What the session says to its shard, as its transport has no words for it.
    pub said: &'a mut VecDeque<(ConnId, Said)>,
    /// Who moved in the hub's lists: (connection slot, hub slot, new place). Applied by the shard.
    pub moved: &'a mut Vec<(u32, u32, u32)>,
}

impl Context<'_> {
    /// Answers a command.
    pub fn reply(&mut self, id: u32, body: ReplyBody<'_>) {
        if !self.fits(|| body.fits_json()) {
            return;
        }
        let polls = self.format.framing == Framing::Poll;
        if polls || self.format.unidirectional {
            self.said
                .extend(Said::of(&body, polls).map(|said| (self.conn, said)));
        }
        if !polls {
            fanout::reply(self.out, self.format, &Reply { id, body });
        }
    }

    /// Answers a command with an error.
    pub fn error(&mut self, id: u32, error: ClientError) {
        self.counters.command_errors += 1;
        self.reply(id, ReplyBody::Error(error));
    }

    /// Says something unasked.
    pub fn push(&mut self, channel: &str, push: &Push<'_>) {
        if self.format.framing == Framing::Poll {
            if matches!(push, Push::Unsubscribe(_)) {
                self.said
                    .push_back((self.conn, Said::Polled(Polled::Ended)));
            }
            return;
        }
        if self.fits(|| push.fits_json()) {
            fanout::push(self.out, self.format, channel, push);
        }
    }

    /// Can the client read it?
    fn fits(&mut self, is_json: impl FnOnce() -> bool) -> bool {
        if self.format.encoding == Encoding::Json && !is_json() {
            self.inappropriate = true;
        }
        !self.inappropriate
    }

    /// The shard that owns a channel.
    #[must_use]
    pub fn owner(&self, channel: &ChannelName) -> ShardId {
        owner_of(channel, self.mesh.shards())
    }

    /// Sends a command to an owner; a full queue is a temporary error.
    pub fn command(&mut self, to: ShardId, message: Message) -> Result<(), ClientError> {
        self.mesh.command(to, message).map_err(|_refused| {
            self.counters.refused_mesh += 1;
            ClientError::Internal
        })
    }
}
