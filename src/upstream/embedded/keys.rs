//! Idempotency keys: in keyspaces by the time when they expire, which are dropped as a whole.

use std::time::Duration;

use fjall::{Database, Keyspace};
use sha2::{Digest as _, Sha256};

use super::store;
use crate::limits::LOG_KEY_TTL_MAX;
use crate::model::EventId;

const HOUR_MS: u64 = 3_600_000;
const PREFIX: &str = "keys-";

/// A key of a channel, as it is stored: two keys with the same 128 bits of SHA-256 do not happen.
#[must_use]
pub fn row_key(channel_id: u64, key: &str) -> [u8; 24] {
    let mut out = [0; 24];
    out[..8].copy_from_slice(&channel_id.to_be_bytes());
    out[8..].copy_from_slice(&Sha256::digest(key.as_bytes())[..16]);
    out
}

struct Bucket {
    /// Hours.
    width: u64,
    /// All its keys have expired then, Unix milliseconds.
    end_ms: u64,
    keyspace: Keyspace,
}

impl Bucket {
    fn name(&self) -> String {
        format!("{PREFIX}{}-{}", self.width, self.end_ms / HOUR_MS)
    }
}

/// All buckets that are alive: about six for each time-to-live in use.
#[derive(Default)]
pub struct Keys {
    buckets: Vec<Bucket>,
}

impl Keys {
    /// Those of the store.
    ///
    /// # Errors
    ///
    /// The library's.
    pub fn open(db: &Database) -> fjall::Result<Self> {
        let mut buckets = Vec::new();
        for name in db.list_keyspace_names() {
            let Some((width, end)) = name
                .strip_prefix(PREFIX)
                .and_then(|rest| rest.split_once('-'))
            else {
                continue;
            };
            if let (Ok(width), Ok(end)) = (width.parse::<u64>(), end.parse::<u64>()) {
                buckets.push(Bucket {
                    width,
                    end_ms: end.saturating_mul(HOUR_MS),
                    keyspace: db.keyspace(&name, store::rows)?,
                });
            }
        }
        Ok(Self { buckets })
    }

    /// The offset that was stored with this key and what stands there, unless it has expired. Rows without an event were written
    /// before events were.
    ///
    /// # Errors
    ///
    /// The library's.
    pub fn find(
        &self,
        row_key: &[u8; 24],
        now_ms: u64,
    ) -> fjall::Result<Option<(u64, Option<EventId>)>> {
        for bucket in self.buckets.iter().filter(|bucket| bucket.end_ms > now_ms) {
            let Some(value) = bucket.keyspace.get(row_key)? else {
                continue;
            };
            let number = |at: usize| -> Option<u64> {
                Some(u64::from_be_bytes(value.get(at..at + 8)?.try_into().ok()?))
            };
            if let (Some(offset), Some(expires_ms)) = (number(0), number(8))
                && expires_ms > now_ms
            {
                let event = value.get(16..32).and_then(|event| event.try_into().ok());
                let event = event.map(|event| EventId(u128::from_be_bytes(event)));
                return Ok(Some((offset, event)));
            }
        }
        Ok(None)
    }

    /// Where a key belongs that expires after `ttl`, and what is stored there.
    ///
    /// # Errors
    ///
    /// The library's.
    pub fn place(
        &mut self,
        db: &Database,
        (offset, event): (u64, EventId),
        ttl: Duration,
        now_ms: u64,
    ) -> fjall::Result<(Keyspace, [u8; 32])> {
        let ttl_ms = u64::try_from(ttl.min(LOG_KEY_TTL_MAX).as_millis()).unwrap_or(u64::MAX);
        let expires_ms = now_ms.saturating_add(ttl_ms);
        let mut value = [0; 32];
        value[..8].copy_from_slice(&offset.to_be_bytes());
        value[8..16].copy_from_slice(&expires_ms.to_be_bytes());
        value[16..].copy_from_slice(&event.0.to_be_bytes());
        // Powers of two, lest each time-to-live has buckets of its own.
        let width = (ttl_ms / 4 / HOUR_MS).max(1).next_power_of_two();
        let end_ms = (expires_ms / (width * HOUR_MS) + 1) * width * HOUR_MS;
        let found = |bucket: &&Bucket| bucket.width == width && bucket.end_ms == end_ms;
        if let Some(bucket) = self.buckets.iter().find(found) {
            return Ok((bucket.keyspace.clone(), value));
        }
        let name = format!("{PREFIX}{width}-{}", end_ms / HOUR_MS);
        let keyspace = db.keyspace(&name, store::rows)?;
        self.buckets.push(Bucket {
            width,
            end_ms,
            keyspace: keyspace.clone(),
        });
        Ok((keyspace, value))
    }

    /// All buckets, with the names of their keyspaces.
    pub fn keyspaces(&self) -> impl Iterator<Item = (Box<str>, Keyspace)> {
        let named = |bucket: &Bucket| (bucket.name().into(), bucket.keyspace.clone());
        self.buckets.iter().map(named)
    }

    /// Takes out the buckets whose keys have all expired.
    pub fn expired(&mut self, now_ms: u64) -> Vec<Keyspace> {
        self.buckets
            .extract_if(.., |bucket| bucket.end_ms <= now_ms)
            .map(|bucket| bucket.keyspace)
            .collect()
    }
}
