//! Drafts into a log, none twice.

use std::collections::HashSet;

use super::ToolError;
use super::engine;
use crate::mesh::durable::LogError;
use crate::model::{Draft, EventId};
use crate::upstream::log::{Log, Scan};

/// Entries at the end of a log that are remembered: more than any batch.
const LOOKED_BACK: u64 = 16_384;
/// Of them, those that are read at once, and their bytes.
const ENTRIES_AT_ONCE: usize = 1024;
const BYTES_AT_ONCE: usize = 4 << 20;

/// Stores a batch. What is not stored while the log is not available is tried again.
pub(super) async fn append(log: &impl Log, batch: Vec<Draft>) -> Result<(), ToolError> {
    let mut left = batch;
    while !left.is_empty() {
        left = engine::retried(async || {
            let mut again = Vec::new();
            let mut last = None;
            let results = log.append(left.clone()).await;
            let count = results.len();
            for (draft, result) in left.iter().zip(results) {
                match result {
                    Ok(_) => {}
                    Err(error @ (LogError::Unavailable { .. } | LogError::Busy { .. })) => {
                        again.push(draft.clone());
                        last = Some(error);
                    }
                    Err(error) => return Err(error),
                }
            }
            // Nothing was stored: a moment later, perhaps.
            match last {
                Some(error) if again.len() == count => Err(error),
                _ => Ok(again),
            }
        })
        .await?;
    }
    Ok(())
}

/// Events at the end of the log.
pub(super) async fn last_events(log: &impl Log) -> Result<HashSet<EventId>, ToolError> {
    // The end is known once something was asked.
    let end = engine::retried(async || log.seek(u64::MAX).await).await?;
    let mut after = end.saturating_sub(LOOKED_BACK + 1);
    let mut events = HashSet::new();
    loop {
        let scan = Scan {
            after,
            channels: Vec::new(),
            limit: ENTRIES_AT_ONCE,
            bytes: BYTES_AT_ONCE,
            looked_at: ENTRIES_AT_ONCE,
        };
        let scanned = engine::retried(async || log.scan(&scan).await).await?;
        events.extend(scanned.entries.iter().map(|entry| entry.record.event));
        if scanned.at_end {
            return Ok(events);
        }
        after = scanned.next;
    }
}
