//! Dead letters: entries that a group has given up, with their history.

use std::sync::Arc;

use super::groups::Failure;
use crate::mesh::durable::LogError;
use crate::model::{Entry, EventId};

/// The dead letters of a log. They outlive what retention takes from its entries.
#[allow(async_fn_in_trait, reason = "the bridge runs its log on one thread")]
pub trait Letters: 'static {
    /// Keeps a dead letter, durably. The same letter (group and event) once more replaces the first.
    async fn bury(&self, letter: &DeadLetter) -> Result<(), LogError>;

    /// Dead letters in the order of (group, event), those after `after`.
    async fn dead_letters(
        &self,
        group: Option<&str>,
        after: Option<(&str, EventId)>,
        limit: usize,
    ) -> Result<Vec<DeadLetter>, LogError>;

    /// One dead letter.
    async fn dead_letter(
        &self,
        group: &str,
        event: EventId,
    ) -> Result<Option<DeadLetter>, LogError>;

    /// Forgets a dead letter. `false` if there is none.
    async fn exhume(&self, group: &str, event: EventId) -> Result<bool, LogError>;
}

/// An entry whose attempts are used up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// Group that could not work it off.
    pub group: Box<str>,
    /// What it is.
    pub entry: Arc<Entry>,
    /// Its whole history, oldest first.
    pub failures: Vec<Failure>,
    /// When it died, Unix milliseconds.
    pub unix_ms: u64,
}
