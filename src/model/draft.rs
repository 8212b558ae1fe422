//! A publication on its way: from the door it came in by to the owner of its channel, or to the log.
//!
//! Each door makes it once, under the rules of the channel's namespace (`Namespace::terms`), has it checked (`Config::check_draft`) and
//! hands it on. It is moved from there on, and taken apart only where it has arrived: the owner makes a `Publication` of it, the log
//! an `Entry`. The doors, each one function:
//!
//! | who publishes | door |
//! |---|---|
//! | a client's publish command | `session/publish`: `try_publish` |
//! | `ringmain.publish` of a client | `session/durable`: `rpc_publish` |
//! | a client whose backend decided | `session/hooked`: `publish_approved` |
//! | the server API: publish, broadcast | `shard/api/ask`: `publish` |
//! | a queue group, of a dead letter | `upstream/desk/told`: `announcement` |
//! | a trigger | `upstream/desk/triggers`: `append`, and `draft` of what is joined |
//! | a row or record of a source | `upstream/sources/offer`: `draft` |
//! | a replay, a dead letter that is tried again | `upstream/desk/dead`: `once_more` |

use std::time::Duration;

use bytes::Bytes;

use super::{ChannelName, EventId, Record};

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Draft {
    /// What is published, and what a log keeps of it. Its event id and time are set where it is handed to the log; an owner looks at
    /// neither.
    pub record: Record,
    /// What its door knew of the namespace.
    pub terms: Terms,
    /// Do not keep it in the history of an ephemeral channel.
    pub skip_history: bool,
    /// 0 for none: a version that is not greater than the last one of this channel is not published.
    pub version: u64,
    /// Life of the version numbers: those of different lives do not compare.
    pub version_epoch: Box<str>,
    /// When the log publishes it, Unix milliseconds; 0 for at once. Until then it is none of its channel's publications.
    pub due_ms: u64,
    /// Stands for the address prefix of the client that publishes; 0 where it is not known.
    pub prefix: u32,
}

/// What of a namespace goes along with a publication.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Where it goes.
    pub way: Way,
    /// Its channel keeps publications.
    pub keeps: bool,
    /// How long its idempotency key is remembered.
    pub key_ttl: Duration,
}

/// Who gives a publication its place in the channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// The shard that owns the channel, in memory.
    Owner,
    /// The durable log.
    Log,
}

impl Terms {
    /// Of a publication for the log that is not of a namespace's making.
    #[must_use]
    pub const fn log(key_ttl: Duration) -> Self {
        Self {
            way: Way::Log,
            keeps: true,
            key_ttl,
        }
    }
}

impl Draft {
    /// A payload for a channel, without any option. `json`: it is one JSON value without raw line breaks.
    #[must_use]
    pub fn new(terms: Terms, channel: ChannelName, data: Bytes, json: bool) -> Self {
        Self::of(
            terms,
            Record {
                channel,
                event: EventId::default(),
                key: Box::default(),
                schema: 0,
                tags: Box::default(),
                publisher: None,
                trace: Box::default(),
                unix_ms: 0,
                ttl_ms: 0,
                data,
                json,
                delta: false,
                hops: 0,
                origin: None,
            },
        )
    }

    /// What was published before, to be published again.
    #[must_use]
    pub fn of(terms: Terms, record: Record) -> Self {
        Self {
            record,
            terms,
            skip_history: false,
            version: 0,
            version_epoch: Box::default(),
            due_ms: 0,
            prefix: 0,
        }
    }

    /// Where it goes.
    #[must_use]
    pub const fn way(&self) -> Way {
        self.terms.way
    }
}
