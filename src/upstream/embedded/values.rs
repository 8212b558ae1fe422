//! The small values of the embedded log.

use super::Embedded;
use super::core::Broken;
use super::store::Store;
use crate::limits::LOG_NAME_BYTES_MAX;
use crate::mesh::durable::LogError;
use crate::upstream::log::Values;

impl Values for Embedded {
    async fn put(&self, key: &str, value: Option<&[u8]>) -> Result<(), LogError> {
        if key.len() > LOG_NAME_BYTES_MAX {
            return Err(LogError::BadRequest("the key is too long".into()));
        }
        self.with(|core| {
            let mut batch = core.store.batch();
            match value {
                Some(value) => batch.insert(&core.store.state, value_key(key), value),
                None => batch.remove(&core.store.state, value_key(key)),
            }
            Store::commit(batch, true).map_err(Broken)
        })
    }

    async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, LogError> {
        let key = value_key(key);
        self.reading(move |_, store| Ok(store.state.get(key)?.map(|value| value.to_vec())))
            .await
    }

    async fn all(&self, prefix: &str) -> Result<Vec<(String, Vec<u8>)>, LogError> {
        let prefix = value_key(prefix);
        self.reading(move |_, store| {
            let mut found = Vec::new();
            for guard in store.state.prefix(prefix) {
                let (key, value) = guard.into_inner()?;
                let key = String::from_utf8_lossy(&key[VALUES.len()..]).into_owned();
                found.push((key, value.to_vec()));
            }
            Ok(found)
        })
        .await
    }
}

/// What stands before the keys.
const VALUES: &[u8] = b"v/";

fn value_key(key: &str) -> Vec<u8> {
    [VALUES, key.as_bytes()].concat()
}
