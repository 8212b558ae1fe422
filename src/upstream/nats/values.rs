//! Small values beside the stream.

use async_nats::jetstream::kv;
use async_nats::jetstream::stream::{DirectGetErrorKind, RawMessageErrorKind};
use bytes::Bytes;
use futures_util::StreamExt;

/// What JetStream calls what was done to a key.
const OPERATION: &str = "KV-Operation";

/// A value as the leader of its bucket knows it: another server may be behind.
pub(super) async fn newest(store: &kv::Store, key: &str) -> Result<Option<Bytes>, String> {
    let subject = format!("{}{key}", store.prefix);
    let (headers, payload) = if store.stream.cached_info().config.num_replicas > 1 {
        match store.stream.get_last_raw_message_by_subject(&subject).await {
            Ok(found) => (found.headers, found.payload),
            Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => return Ok(None),
            Err(error) => return Err(error.to_string()),
        }
    } else {
        match store.stream.direct_get_last_for_subject(subject).await {
            Ok(found) => (found.headers, found.payload),
            Err(error) if error.kind() == DirectGetErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.to_string()),
        }
    };
    let is_gone = headers
        .get(OPERATION)
        .is_some_and(|operation| matches!(operation.as_str(), "DEL" | "PURGE"));
    Ok((!is_gone).then_some(payload))
}

/// Keys that begin like this, in order; some of them may be gone already.
pub(super) async fn keys(store: &kv::Store, filter: &str) -> Result<Vec<String>, String> {
    let subjects = format!("{}{filter}", store.prefix);
    let found = store.stream.info_builder().subjects(subjects).fetch().await;
    let mut found = found.map_err(|error| error.to_string())?;
    let mut keys = Vec::new();
    while let Some(subject) = found.next().await {
        let (subject, _) = subject.map_err(|error| error.to_string())?;
        if let Some(key) = subject.strip_prefix(&store.prefix) {
            keys.push(key.to_owned());
        }
    }
    keys.sort_unstable();
    Ok(keys)
}
