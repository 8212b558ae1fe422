//! What a source offers: checked like any publication, and published in the order in which it was read.

use std::fmt::Display;
use std::hash::{BuildHasher as _, Hasher as _};
use std::time::Duration;

use bytes::Bytes;

use super::{Context, Sink};
use crate::config::Config;
use crate::config::namespace::ServerNameError;
use crate::config::sources::OnError;
use crate::limits::{SERVER_CHANNEL_NAME_BYTES_MAX, SOURCE_RECORD_BYTES_MAX};
use crate::mesh::durable::LogError;
use crate::model::{ChannelName, Draft, EventId, Record, TenantId, Terms};
use crate::upstream::desk::unix_ms;
use crate::wire::json::{compact, is_json, tree};

/// What was published and is read again within this time is stored once, whatever its namespace says.
const KEY_TTL: Duration = Duration::from_hours(24);

/// Offers that are looked at before others have the thread.
const SLICE: usize = 128;

/// Why a source cannot go on.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    /// The other side is away.
    #[error("{0}")]
    Away(String),
    /// What is configured and what is there do not fit.
    #[error("{0}")]
    Unfit(String),
    /// Something cannot be published, and the source is to stop there.
    #[error("{what} cannot be published: {why}")]
    Refused {
        /// Its name.
        what: String,
        /// Why.
        why: String,
    },
    /// The log cannot store now.
    #[error(transparent)]
    Log(#[from] LogError),
}

/// A row or record: what it is called, and what is published; or why it is nothing that can be.
pub(super) struct Offer<N> {
    pub(super) name: N,
    pub(super) record: Result<Record, String>,
}

/// What came of offers.
#[derive(Default)]
pub(super) struct Outcome {
    /// So many of the first are done with: published, or left out.
    pub(super) reach: usize,
    /// Those of them that were left out, ascending.
    pub(super) skipped: Vec<usize>,
    /// Why the rest is not.
    pub(super) fault: Option<Fault>,
}

/// A record with nothing but a payload.
pub(super) fn record(channel: &str, payload: &[u8]) -> Record {
    let json = is_json(payload);
    let data = match json {
        true => Bytes::copy_from_slice(&compact(payload)),
        false => Bytes::copy_from_slice(payload),
    };
    let terms = Terms::log(KEY_TTL);
    // What a row says is a name of nobody's tenant.
    let channel = ChannelName::of(TenantId::NONE, channel);
    Draft::new(terms, channel, data, json).record
}

/// Names and values.
pub(super) type Tags = Box<[(Box<str>, Box<str>)]>;

/// Tags from an object of texts, numbers and flags.
pub(super) fn tags(object: &[u8]) -> Result<Tags, String> {
    use serde_json::Value;
    const EXPECTED: &str = "expected an object of strings";
    let value = tree(object).map_err(|error| error.to_string())?;
    let members = match value {
        Value::Null => return Ok(Box::default()),
        Value::Object(members) => members,
        _ => return Err(EXPECTED.to_owned()),
    };
    let text = |value: Value| match value {
        Value::String(text) => Ok(text),
        Value::Number(number) => Ok(number.to_string()),
        Value::Bool(flag) => Ok(flag.to_string()),
        Value::Null => Ok(String::new()),
        Value::Array(_) | Value::Object(_) => Err(EXPECTED.to_owned()),
    };
    let members = members.into_iter();
    members
        .map(|(name, value)| Ok((name.into(), text(value)?.into())))
        .collect()
}

/// Publishes offers.
pub(super) async fn publish<L, O: Sink, N: Display>(
    context: &Context<L, O>,
    offers: Vec<Offer<N>>,
) -> Outcome {
    let config = context.sink.config();
    let is_strict = context.spec.on_error == OnError::Stop;
    let refused = |name: &N, why: String| Fault::Refused {
        what: name.to_string(),
        why,
    };
    let mut outcome = Outcome::default();
    let (mut names, mut drafts, mut left) = (Vec::new(), Vec::new(), Vec::new());
    outcome.reach = offers.len();
    for (at, Offer { name, record }) in offers.into_iter().enumerate() {
        match record.and_then(|record| draft(&*context.sink, &config, record)) {
            Ok(draft) => {
                names.push((at, name));
                drafts.push(draft);
            }
            Err(why) if is_strict => {
                outcome.reach = at;
                outcome.fault = Some(refused(&name, why));
                break;
            }
            Err(why) => left.push((at, name, why)),
        }
        if at % SLICE == SLICE - 1 {
            tokio::task::yield_now().await;
        }
    }
    let (mut new, mut repeated) = (0, 0);
    let results = match drafts.is_empty() {
        true => Vec::new(),
        false => context.sink.append(drafts).await,
    };
    for ((at, name), result) in names.into_iter().zip(results) {
        let fault = match result {
            Ok(appended) => {
                new += u64::from(appended.is_new);
                repeated += u64::from(!appended.is_new);
                continue;
            }
            Err(error) if error.retry_after().is_some() => Fault::Log(error),
            Err(error) if is_strict => refused(&name, error.to_string()),
            Err(error) => {
                left.push((at, name, error.to_string()));
                continue;
            }
        };
        // The first that failed counts; what was stored behind it is stored once.
        if at < outcome.reach {
            outcome.reach = at;
            outcome.fault = Some(fault);
        }
    }
    context.ledger.published(new, repeated);
    left.retain(|(at, _, _)| *at < outcome.reach);
    left.sort_unstable_by_key(|(at, _, _)| *at);
    outcome.skipped = left.iter().map(|(at, _, _)| *at).collect();
    let left: Vec<(N, String)> = left.into_iter().map(|(_, name, why)| (name, why)).collect();
    context.ledger.skipped(&left);
    outcome
}

/// The publication, if its namespace takes it.
fn draft<O: Sink>(sink: &O, config: &Config, mut record: Record) -> Result<Draft, String> {
    let name = record.channel.whole();
    let namespace = config.channels.resolve_named_by_server(name);
    let namespace = namespace.map_err(|error| match error {
        ServerNameError::Length => {
            format!("channel: expected 1 to {SERVER_CHANNEL_NAME_BYTES_MAX} bytes")
        }
        ServerNameError::Unknown => format!("channel: the namespace of {name:?} is not configured"),
    })?;
    if !namespace.is_durable() {
        return Err(format!(
            "channel: the namespace of {name:?} has no `delivery = \"durable\"`"
        ));
    }
    let size = record.bytes();
    if size > SOURCE_RECORD_BYTES_MAX {
        return Err(format!(
            "{size} bytes, expected at most {SOURCE_RECORD_BYTES_MAX}"
        ));
    }
    record.unix_ms = unix_ms();
    record.event = event(&record);
    let mut terms = namespace.terms();
    terms.key_ttl = terms.key_ttl.max(KEY_TTL);
    let draft = Draft::of(terms, record);
    let checked = config.check_draft(namespace, &draft);
    checked.map_err(|unfit| format!("{}: {unfit}", unfit.member()))?;
    let checked = sink.check_schema(&draft.record);
    checked.map_err(|error| error.to_string())?;
    Ok(draft)
}

/// An id that nothing else has: the key of a row or record is its own, in its channel.
fn event(record: &Record) -> EventId {
    let mut random = 0u128;
    for seed in [1, 2] {
        let mut hasher = foldhash::quality::FixedState::with_seed(seed).build_hasher();
        hasher.write(record.channel.whole().as_bytes());
        hasher.write(record.key.as_bytes());
        random = random << 64 | u128::from(hasher.finish());
    }
    EventId::new(record.unix_ms, random)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_an_object_of_texts() {
        let read = |text: &str| tags(text.as_bytes());
        let found = read(r#"{"kind":"new","n":5,"on":true}"#).expect("tags");
        let found: Vec<(&str, &str)> = found.iter().map(|(n, v)| (&**n, &**v)).collect();
        assert_eq!(found, [("kind", "new"), ("n", "5"), ("on", "true")]);
        assert!(read("null").expect("none").is_empty());
        for wrong in ["[]", "5", r#"{"a":{}}"#, "{"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn payload_is_json_where_it_reads_as_such_and_bytes_otherwise() {
        let json = record("c", b"{\n\"a\": 1}");
        assert!(json.json);
        assert_eq!(&json.data[..], b"{\"a\": 1}");
        let bytes = record("c", b"\xff\n");
        assert!(!bytes.json);
        assert_eq!(&bytes.data[..], b"\xff\n");
    }
}
