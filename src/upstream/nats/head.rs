//! Where a channel ends: what its next message must follow.

use async_nats::jetstream::stream::{DirectGetErrorKind, RawMessageErrorKind};

use super::link::{Link, Opened};
use super::lives;
use super::message::{self, Version};
use crate::mesh::durable::LogError;
use crate::model::{Epoch, EventId, Offset, StreamPosition};

/// The end of a channel as this process knows it. The server compares `sequence` with its own before it takes a message, so
/// wrong knowledge never does harm.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Head {
    /// Of the last message of its subject; 0 for none.
    pub sequence: u64,
    /// Of the last publication.
    pub position: StreamPosition,
    /// Last version number.
    pub version: Version,
}

/// Last message of a subject.
pub(super) struct Last {
    /// Place in the stream.
    pub sequence: u64,
    /// What it says of its channel; `None` if another program wrote it.
    pub head: Option<Head>,
    /// Which publication it is, if it is one.
    pub event: Option<EventId>,
    /// Of which publication it is the mark, if it is a key's.
    pub marked: Option<EventId>,
}

/// Reads the last message of a subject. Where several servers have the stream, the leader is asked: another one may be behind.
pub(super) async fn last(
    link: &Link,
    opened: &Opened,
    subject: &str,
) -> Result<Option<Last>, LogError> {
    let found = if link.is_replicated() {
        let found = opened.stream.get_last_raw_message_by_subject(subject).await;
        match found {
            Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => None,
            found => Some(found.map_err(|error| link.failed(&error))?),
        }
    } else {
        let found = opened.stream.direct_get_last_for_subject(subject).await;
        match found {
            Err(error) if error.kind() == DirectGetErrorKind::NotFound => None,
            found => Some(found.map_err(|error| link.failed(&error))?),
        }
    };
    Ok(found.map(|found| {
        let head = message::position(&found.headers).map(|position| Head {
            sequence: found.sequence,
            position,
            version: message::version(&found.headers),
        });
        Last {
            sequence: found.sequence,
            head,
            event: message::event(&found.headers),
            marked: message::marked(&found.headers),
        }
    }))
}

/// Where a channel ends, for somebody who is about to append: one without publications begins a life now.
pub(super) async fn for_append(
    link: &Link,
    opened: &Opened,
    subject: &str,
) -> Result<Head, LogError> {
    match last(link, opened, subject).await? {
        Some(Last {
            head: Some(head), ..
        }) => Ok(head),
        other => {
            let epoch = lives::begin(opened, subject).await;
            let epoch = epoch.map_err(|error| link.failed(&error))?;
            Ok(empty(other.map_or(0, |last| last.sequence), epoch))
        }
    }
}

/// Where a channel ends, for somebody who reads.
pub(super) async fn for_read(
    link: &Link,
    opened: &Opened,
    subject: &str,
) -> Result<Head, LogError> {
    match last(link, opened, subject).await? {
        Some(Last {
            head: Some(head), ..
        }) => Ok(head),
        other => {
            let epoch = lives::peek(opened, subject).await;
            let epoch = epoch.map_err(|error| link.failed(&error))?;
            Ok(empty(other.map_or(0, |last| last.sequence), epoch))
        }
    }
}

fn empty(sequence: u64, epoch: Epoch) -> Head {
    Head {
        sequence,
        position: StreamPosition {
            epoch,
            offset: Offset(0),
        },
        version: Version::default(),
    }
}
