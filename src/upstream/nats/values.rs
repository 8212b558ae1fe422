//! Small values beside the stream: those of the seam, and how buckets are read.

use async_nats::jetstream::kv;
use async_nats::jetstream::stream::{DirectGetErrorKind, RawMessageErrorKind};
use bytes::Bytes;
use futures_util::future::ready;
use futures_util::{StreamExt, TryStreamExt, stream};

use super::{Jetstream, subject};
use crate::mesh::durable::LogError;
use crate::upstream::log::Values;

/// Values that are asked for at a time.
const READS_AT_ONCE: usize = 64;
/// What JetStream calls what was done to a key.
const OPERATION: &str = "KV-Operation";

impl Values for Jetstream {
    async fn put(&self, key: &str, value: Option<&[u8]>) -> Result<(), LogError> {
        let opened = self.link.opened()?;
        let key = value_key(key);
        match value {
            Some(value) => {
                let put = opened.state.put(key, value.to_vec().into()).await;
                put.map_err(|error| self.link.failed(&error))?;
            }
            None => {
                let deleted = opened.state.delete(key).await;
                deleted.map_err(|error| self.link.failed(&error))?;
            }
        }
        Ok(())
    }

    async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, LogError> {
        let opened = self.link.opened()?;
        let value = newest(&opened.state, &value_key(key)).await;
        let value = value.map_err(|error| self.link.failed(&error))?;
        Ok(value.map(|value| value.to_vec()))
    }

    async fn all(&self, prefix: &str) -> Result<Vec<(String, Vec<u8>)>, LogError> {
        let opened = self.link.opened()?;
        let store = &opened.state;
        let found = keys(store, "value.*").await;
        let found = found.map_err(|error| self.link.failed(&error))?;
        let wanted = found.into_iter().filter_map(|key| {
            let name = subject::unname(key.strip_prefix("value.")?)?;
            name.starts_with(prefix).then_some((key, name))
        });
        let read = stream::iter(wanted).map(async |(key, name)| {
            let value = newest(store, &key).await?;
            Ok(value.map(|value| (name, value.to_vec())))
        });
        let mut values: Vec<(String, Vec<u8>)> = read
            .buffered(READS_AT_ONCE)
            .try_filter_map(|value| ready(Ok(value)))
            .try_collect()
            .await
            .map_err(|error: String| self.link.failed(&error))?;
        values.sort_unstable();
        Ok(values)
    }
}

fn value_key(key: &str) -> String {
    format!("value.{}", subject::name(key))
}

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
    // They are read in parts: a new one that comes between two of them moves another one into the second.
    keys.dedup();
    Ok(keys)
}
