//! Messages that are stored together or not at all, and what the server said about them.
//!
//! Several messages are an atomic batch of JetStream (ADR-50): they are staged under an id, and the last one commits them.
//! Only the last one asks for an answer. Conditions stand in the first message of each subject.

use std::time::Duration;

use async_nats::client::RequestErrorKind;
use async_nats::header::{HeaderMap, HeaderName, HeaderValue};
use async_nats::{Message as Reply, Request};
use bytes::Bytes;

use super::link::Link;

const EXPECTED: HeaderName = HeaderName::from_static("Nats-Expected-Last-Subject-Sequence");
const BATCH_ID: HeaderName = HeaderName::from_static("Nats-Batch-Id");
const BATCH_SEQUENCE: HeaderName = HeaderName::from_static("Nats-Batch-Sequence");
const BATCH_COMMIT: HeaderName = HeaderName::from_static("Nats-Batch-Commit");
const TTL: HeaderName = HeaderName::from_static("Nats-TTL");
const ROLLUP: HeaderName = HeaderName::from_static("Nats-Rollup");

/// Messages of one batch: more are refused by the server.
pub(super) const MESSAGES_MAX: usize = 1000;
/// Bytes of one batch, which the server holds until it is complete.
pub(super) const BYTES_MAX: usize = 4 << 20;

/// The condition was not met; the condition of a subject with messages under way.
const WRONG_SEQUENCE: [u64; 2] = [10_071, 10_164];
/// The batch holds an id that was stored before.
const DUPLICATE: u64 = 10_201;

/// What goes out.
pub(super) struct Message {
    pub subject: String,
    pub headers: HeaderMap,
    pub payload: Bytes,
}

/// What came of it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// All are stored, the last one at this place of the stream, the others directly before it.
    Stored(u64),
    /// Nothing is stored: a subject does not end where it was said to end.
    Conflict,
    /// Nothing is stored, for another reason.
    Refused(String),
    /// Nobody knows.
    Unknown(String),
}

/// The subject's last message must be this one; 0 for none.
pub(super) fn expect(headers: &mut HeaderMap, sequence: u64) {
    headers.insert(EXPECTED, HeaderValue::from(sequence));
}

/// The message is forgotten after this time.
pub(super) fn forget_after(headers: &mut HeaderMap, ttl: Duration) {
    headers.insert(TTL, HeaderValue::from(format!("{}s", ttl.as_secs().max(1))));
}

/// The message takes the place of all that are before it in its subject.
pub(super) fn replace_all(headers: &mut HeaderMap) {
    headers.insert(ROLLUP, "sub");
}

/// Stores these messages; at most `MESSAGES_MAX`.
pub(super) async fn store(link: &Link, number: u64, messages: Vec<Message>) -> Outcome {
    let timeout = link.config.append_timeout;
    match tokio::time::timeout(timeout, send(link, number, messages)).await {
        Ok(outcome) => outcome,
        Err(_) => Outcome::Unknown("NATS did not answer in time".to_owned()),
    }
}

async fn send(link: &Link, number: u64, mut messages: Vec<Message>) -> Outcome {
    let Some(mut last) = messages.pop() else {
        return Outcome::Refused("an empty batch".to_owned());
    };
    if !messages.is_empty() {
        let id = HeaderValue::from(format!("{}{number:x}", link.process));
        last.headers
            .insert(BATCH_SEQUENCE, HeaderValue::from(messages.len() + 1));
        last.headers.insert(BATCH_COMMIT, "1");
        last.headers.insert(BATCH_ID, id.clone());
        for (index, mut message) in messages.into_iter().enumerate() {
            message.headers.insert(BATCH_ID, id.clone());
            message
                .headers
                .insert(BATCH_SEQUENCE, HeaderValue::from(index + 1));
            let sent = link
                .client
                .publish_with_headers(message.subject, message.headers, message.payload)
                .await;
            if let Err(error) = sent {
                // Without its last message a batch is never committed.
                return Outcome::Refused(error.to_string());
            }
        }
    }
    let request = Request::new()
        .headers(last.headers)
        .payload(last.payload)
        .timeout(Some(link.config.append_timeout));
    match link.client.send_request(last.subject, request).await {
        Ok(reply) => outcome(&reply),
        Err(error) => match error.kind() {
            RequestErrorKind::NoResponders => {
                Outcome::Refused("the stream has no leader".to_owned())
            }
            RequestErrorKind::InvalidSubject | RequestErrorKind::MaxPayloadExceeded => {
                Outcome::Refused(error.to_string())
            }
            RequestErrorKind::TimedOut | RequestErrorKind::Other => {
                Outcome::Unknown(error.to_string())
            }
        },
    }
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

fn outcome(reply: &Reply) -> Outcome {
    match serde_json::from_slice::<Answer>(&reply.payload) {
        Ok(Answer {
            error: Some(failure),
            ..
        }) => {
            if failure.err_code == DUPLICATE || WRONG_SEQUENCE.contains(&failure.err_code) {
                Outcome::Conflict
            } else {
                Outcome::Refused(failure.description)
            }
        }
        Ok(Answer {
            duplicate: true, ..
        }) => Outcome::Conflict,
        Ok(answer) if answer.seq > 0 => Outcome::Stored(answer.seq),
        Ok(_) | Err(_) => Outcome::Unknown("NATS gave an answer that cannot be read".to_owned()),
    }
}
