//! How dead letters become known, and how long they are kept: each is announced on a channel of the log, the hook is told from
//! there, and what is too old or too much is forgotten.

use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;

use super::encode::{self, Given};
use super::triggers::follower;
use super::{Inner, Outlet, Place, RETRY, clock};
use crate::config::namespace::{is_of_letters, letters_of};
use crate::mesh::durable::LogError;
use crate::model::{ChannelName, Draft, Record, Terms};
use crate::upstream::log::{Bounds, DeadLetter, Lease, Letters};

/// A letter that was announced and whose entry comes again within this time is not announced twice.
const KEY_TTL: Duration = Duration::from_hours(7 * 24);
/// The hook is called again after this time, which doubles with each call that fails.
const HOOK_PAUSE: Duration = Duration::from_millis(100);
/// … up to this.
const HOOK_PAUSE_LONGEST: Duration = Duration::from_secs(15);
/// How often it is looked for letters that are kept no longer.
const EXPIRY_INTERVAL: Duration = Duration::from_secs(1);
/// That letters went is told at most this often.
const EXPIRED_INTERVAL: Duration = Duration::from_mins(1);

/// What is appended when a letter is kept; `None` where that would be about an announcement, which would go on for ever.
pub(super) fn announcement(letter: &DeadLetter) -> Option<Draft> {
    let entry = &letter.entry;
    if is_of_letters(entry.shown_at().0.whole()) {
        return None;
    }
    let channel = letters_of(&letter.group);
    // Not its time: what was interrupted and is done again has another one.
    let key = format!("dead/{}/{}", entry.record.event, entry.cursor);
    let mut data = Vec::new();
    encode::obituary(&mut data, letter);
    let record = Record {
        event: follower(entry.record.event, &format!("{channel}/{}", entry.cursor)),
        channel: ChannelName::from_whole(&channel),
        key: key.into(),
        schema: 0,
        tags: Box::default(),
        publisher: None,
        trace: entry.record.trace.clone(),
        unix_ms: letter.unix_ms,
        ttl_ms: 0,
        data: Bytes::from(data),
        json: true,
        delta: false,
        hops: 0,
        origin: None,
    };
    Some(Draft::of(Terms::log(KEY_TTL), record))
}

impl<L: Letters, O: Outlet> Inner<L, O> {
    /// Keeps a letter and announces it. Where that cannot be one stroke, the letter comes first, lest something is announced that
    /// is not there, and the lease is settled by the caller behind both.
    pub(super) async fn keep(&self, lease: Lease, letter: &DeadLetter) -> Result<(), LogError> {
        let left = self
            .log
            .give_up(lease, letter, announcement(letter))
            .await?;
        let Some(draft) = left else {
            return Ok(());
        };
        match self.outlet.append(vec![draft]).await.pop() {
            Some(Ok(_)) => Ok(()),
            Some(Err(error)) if error.retry_after().is_none() => {
                tracing::warn!(%error, group = &*letter.group, "a dead letter cannot be announced");
                Ok(())
            }
            Some(Err(error)) => Err(error),
            None => Err(LogError::Busy { retry_after: RETRY }),
        }
    }

    /// Forgets letters that are too old, or beyond what is kept.
    pub(super) async fn watch_letters(self: Rc<Self>) {
        let (mut untold, mut told) = (0, None::<std::time::Instant>);
        while !self.is_closed.get() {
            let bounds = {
                let config = self.config.borrow();
                Bounds {
                    age: config.queue.dead_letter_retention,
                    letters: config.queue.dead_letters_max,
                    bytes: config.queue.dead_letters_bytes_max,
                }
            };
            // A log that is down is asked again later.
            let gone = self.log.expire_letters(bounds).await.unwrap_or_default();
            untold += gone.len();
            let expired = self.expired_letters.get() + gone.len() as u64;
            self.expired_letters.set(expired);
            if untold > 0 && told.is_none_or(|at| at.elapsed() >= EXPIRED_INTERVAL) {
                tracing::warn!(
                    expired = untold,
                    in_all = expired,
                    "dead letters were forgotten: too old, or more than are kept"
                );
                (untold, told) = (0, Some(clock()));
            }
            if gone.is_empty() {
                tokio::time::sleep(EXPIRY_INTERVAL).await;
            } else {
                tokio::task::yield_now().await;
            }
        }
    }
}

impl<L, O: Outlet> Inner<L, O> {
    /// Tells the hook of a letter, for as long as it takes. `false`: the group is gone before.
    pub(super) async fn tell_hook(&self, place: &Place, given: &Given) -> bool {
        let mut pause = HOOK_PAUSE;
        while !place.is_gone.get() {
            let hook = self.config.borrow().queue.dead_letter_hook.clone();
            let data = given.entry.record.data.clone();
            let Err(error) = self.outlet.hook(&hook, data).await else {
                return true;
            };
            let event = given.entry.record.event;
            tracing::warn!(error, hook, %event, "a dead letter could not be told yet");
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(HOOK_PAUSE_LONGEST);
        }
        false
    }
}
