//! Small values by key, for what is remembered beside the entries: texts of schemas, rules of groups.

use crate::mesh::durable::LogError;

/// Keys and values, by key.
pub type Found = Vec<(String, Vec<u8>)>;

/// The small values of a log.
#[allow(async_fn_in_trait, reason = "the bridge runs its log on one thread")]
pub trait Values: 'static {
    /// Keeps a value durably under a key; `None` forgets it.
    async fn put(&self, key: &str, value: Option<&[u8]>) -> Result<(), LogError>;

    /// What was put last; `None` if nothing was, or if it was forgotten.
    async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, LogError>;

    /// All values whose keys begin like this, by key.
    async fn all(&self, prefix: &str) -> Result<Found, LogError>;
}
