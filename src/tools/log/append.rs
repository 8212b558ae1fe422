//! Drafts into a log, none twice.

use std::collections::HashSet;
use std::time::Duration;

use super::ToolError;
use super::engine;
use crate::mesh::durable::LogError;
use crate::model::{ChannelName, Draft, EventId, Record, Terms};
use crate::upstream::log::{Log, Scan};

/// Entries at the end of a log that are remembered: more than any batch.
const LOOKED_BACK: u64 = 16_384;
/// Of them, those that are read at once, and their bytes.
const ENTRIES_AT_ONCE: usize = 1024;
const BYTES_AT_ONCE: usize = 4 << 20;

/// What tells an entry from all others: an event that was published once more, into another channel or by another replay, is the
/// same event.
pub(super) type Identity = (ChannelName, EventId, Box<str>);

/// The identity of a record.
pub(super) fn identity(record: &Record) -> Identity {
    (record.channel.clone(), record.event, record.key.clone())
}

/// What a key that the log remembers says of a draft.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KeyInUse {
    /// An attempt before this one has stored it.
    Stored,
    /// Its publisher has used the key twice, the second time after its time was over: it is another publication.
    Another,
}

/// Stores a batch. What is not stored while the log is not available is tried again; what was stored without anybody having said
/// so is not.
pub(super) async fn append(
    log: &impl Log,
    batch: Vec<Draft>,
    key_in_use: KeyInUse,
) -> Result<(), ToolError> {
    let began = engine::now();
    let mut left = batch;
    while !left.is_empty() {
        let results = log.append(left.clone()).await;
        let (mut again, mut failed) = (Vec::new(), None);
        for (mut draft, result) in left.into_iter().zip(results) {
            match result {
                Ok(appended) if appended.is_new || key_in_use == KeyInUse::Stored => {}
                // It waits there already.
                Ok(_) if draft.due_ms > 0 => {}
                Ok(_) => {
                    draft.terms = Terms::log(Duration::ZERO);
                    again.push(draft);
                }
                Err(error @ (LogError::Unavailable { .. } | LogError::Busy { .. })) => {
                    again.push(draft);
                    failed = Some(error);
                }
                Err(error) => return Err(engine::failed(error)),
            }
        }
        left = again;
        if let Some(error) = failed {
            if began.elapsed() > engine::PATIENCE {
                return Err(engine::failed(error));
            }
            tokio::time::sleep(engine::PAUSE).await;
            let known = last_entries(log).await?;
            left.retain(|draft| !known.contains(&identity(&draft.record)));
        }
    }
    Ok(())
}

/// What stands at the end of the log.
pub(super) async fn last_entries(log: &impl Log) -> Result<HashSet<Identity>, ToolError> {
    // The end is known once something was asked.
    let end = engine::retried(async || log.seek(u64::MAX).await).await?;
    let mut after = end.saturating_sub(LOOKED_BACK + 1);
    let mut known = HashSet::new();
    loop {
        let scan = Scan {
            after,
            channels: Vec::new(),
            limit: ENTRIES_AT_ONCE,
            bytes: BYTES_AT_ONCE,
            looked_at: ENTRIES_AT_ONCE,
        };
        let scanned = engine::retried(async || log.scan(&scan).await).await?;
        known.extend(scanned.entries.iter().map(|entry| identity(&entry.record)));
        if scanned.at_end {
            return Ok(known);
        }
        after = scanned.next;
    }
}
