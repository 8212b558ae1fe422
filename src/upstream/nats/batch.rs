//! What goes out together, under conditions, and what the server said about it.
//!
//! A **run** is a part of one channel: each message is stored only directly behind the one before it
//! (`Nats-Expected-Last-Msg-Id`), so whatever comes between or is lost ends it, and when its last message is stored all are.
//! Only the last one asks for an answer, which makes a run cheaper than as many publications.
//!
//! A **batch** is atomic in JetStream (ADR-50): its messages are staged under an id, and the last one commits them. It costs
//! the server twice the work, and is for what must not be there by halves: publications with the marks of their keys.

use std::time::Duration;

use async_nats::Message as Reply;
use async_nats::header::{HeaderMap, HeaderName, HeaderValue};
use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::link::Link;

const EXPECTED: HeaderName = HeaderName::from_static("Nats-Expected-Last-Subject-Sequence");
const EXPECTED_ID: HeaderName = HeaderName::from_static("Nats-Expected-Last-Msg-Id");
const BATCH_ID: HeaderName = HeaderName::from_static("Nats-Batch-Id");
const BATCH_SEQUENCE: HeaderName = HeaderName::from_static("Nats-Batch-Sequence");
const BATCH_COMMIT: HeaderName = HeaderName::from_static("Nats-Batch-Commit");
const TTL: HeaderName = HeaderName::from_static("Nats-TTL");
const ROLLUP: HeaderName = HeaderName::from_static("Nats-Rollup");

/// Messages of one batch: more are refused by the server.
pub(super) const MESSAGES_PER_BATCH: usize = 1000;
/// Bytes of one batch, which the server holds until it is complete.
pub(super) const BYTES_PER_BATCH: usize = 4 << 20;

/// Not the last sequence of its subject, not the last id of the stream, a subject with messages under way, an id that was
/// stored before.
const CONFLICTS: [u64; 4] = [10_070, 10_071, 10_164, 10_201];

/// What goes out.
pub(super) struct Message {
    pub subject: String,
    pub headers: HeaderMap,
    pub payload: Bytes,
}

/// Messages that go out one directly behind the other; the last one asks for an answer.
pub(super) struct Unit {
    pub messages: Vec<Message>,
    /// Where the answer goes.
    pub reply: String,
    /// Nobody waits for it any more from then on.
    pub until: Instant,
}

/// What came of it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// All are stored, the last one at this place of the stream, the others directly before it.
    Stored(u64),
    /// A condition was not met: of a batch nothing is stored, of a run perhaps its beginning.
    Conflict,
    /// Nobody knows.
    Unknown(String),
}

/// The subject's last message must be this one; 0 for none.
pub(super) fn expect(headers: &mut HeaderMap, sequence: u64) {
    headers.insert(EXPECTED, HeaderValue::from(sequence));
}

/// The stream's last message must be this one.
pub(super) fn follow(headers: &mut HeaderMap, id: String) {
    headers.insert(EXPECTED_ID, HeaderValue::from(id));
}

/// The message is forgotten after this time.
pub(super) fn forget_after(headers: &mut HeaderMap, ttl: Duration) {
    headers.insert(TTL, HeaderValue::from(format!("{}s", ttl.as_secs().max(1))));
}

/// The message takes the place of all that are before it in its subject.
pub(super) fn replace_all(headers: &mut HeaderMap) {
    headers.insert(ROLLUP, "sub");
}

/// Makes these messages a batch of this name, at most `MESSAGES_PER_BATCH` of them.
pub(super) fn seal(messages: &mut [Message], name: &str) {
    let count = messages.len();
    if count < 2 {
        return;
    }
    for (index, message) in messages.iter_mut().enumerate() {
        message.headers.insert(BATCH_ID, name);
        message
            .headers
            .insert(BATCH_SEQUENCE, HeaderValue::from(index + 1));
        if index + 1 == count {
            message.headers.insert(BATCH_COMMIT, "1");
        }
    }
}

/// Sends one unit after the other: what lies within one must not be torn by another.
pub(super) async fn send(link: std::sync::Arc<Link>, mut units: mpsc::UnboundedReceiver<Unit>) {
    while let Some(unit) = units.recv().await {
        let timely =
            tokio::time::timeout_at(unit.until, send_one(&link, unit.messages, unit.reply));
        // Without its last message a batch is never committed, and a run is as long as it is.
        match timely.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!("NATS: {}", link.failed(&error)),
            Err(_) => tracing::debug!("NATS takes nothing"),
        }
    }
}

async fn send_one(
    link: &Link,
    mut messages: Vec<Message>,
    reply: String,
) -> Result<(), async_nats::PublishError> {
    let Some(last) = messages.pop() else {
        return Ok(());
    };
    let client = link.client();
    for message in messages {
        let Message {
            subject,
            headers,
            payload,
        } = message;
        client
            .publish_with_headers(subject, headers, payload)
            .await?;
    }
    let sent =
        client.publish_with_reply_and_headers(last.subject, reply, last.headers, last.payload);
    sent.await
}

/// The server's answer to a publication.
#[derive(serde::Deserialize)]
struct Answer {
    #[serde(default)]
    seq: u64,
    #[serde(default)]
    duplicate: bool,
    error: Option<Failure>,
}

#[derive(serde::Deserialize)]
struct Failure {
    #[serde(default)]
    err_code: u64,
    #[serde(default)]
    description: String,
}

/// What an answer says.
pub(super) fn outcome(reply: &Reply) -> Outcome {
    if reply.status == Some(async_nats::StatusCode::NO_RESPONDERS) {
        return Outcome::Unknown("the stream has no leader".to_owned());
    }
    match serde_json::from_slice::<Answer>(&reply.payload) {
        Ok(Answer {
            error: Some(failure),
            ..
        }) => {
            if CONFLICTS.contains(&failure.err_code) {
                Outcome::Conflict
            } else {
                Outcome::Unknown(failure.description)
            }
        }
        Ok(Answer {
            duplicate: true, ..
        }) => Outcome::Conflict,
        Ok(answer) if answer.seq > 0 => Outcome::Stored(answer.seq),
        Ok(_) | Err(_) => Outcome::Unknown("NATS gave an answer that cannot be read".to_owned()),
    }
}
