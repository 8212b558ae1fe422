//! Lives of channels: a channel of which nothing is kept any more begins a new epoch, also after a restart.
//!
//! Retention leaves no trace of a channel, so it is remembered beside the stream which channels have ever begun, in bounded
//! space: channels are spread over `SHELVES` values of the state bucket, each with a number of lives and the channels that
//! have begun under this number. A channel without messages begins under the shelf's number if it is not among them; else,
//! or where there is no room, the number grows and the list begins anew. So no channel begins twice under one number, and
//! the epoch of a channel that was never used stays what it is until `REMEMBERED` others of its shelf have begun.

use async_nats::jetstream::kv;
use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::link::Opened;
use crate::mesh::durable::epoch_of;
use crate::model::Epoch;

/// Values of the bucket.
const SHELVES: u64 = 4096;
/// Channels on one shelf.
const REMEMBERED: usize = 256;
/// Other processes may change a shelf at the same time.
const ATTEMPTS: usize = 16;

/// What stands on a shelf.
#[derive(Debug, Default, PartialEq, Eq)]
struct Shelf {
    lives: u64,
    begun: Vec<u64>,
}

impl Shelf {
    /// The number under which the channel begins if it has no messages now.
    fn number(&self, channel: u64) -> u64 {
        if self.begun.contains(&channel) {
            self.lives + 1
        } else {
            self.lives
        }
    }

    /// Notes that it begins.
    fn begin(&mut self, channel: u64) -> u64 {
        if self.begun.contains(&channel) || self.begun.len() >= REMEMBERED {
            self.lives += 1;
            self.begun.clear();
        }
        self.begun.push(channel);
        self.lives
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let (numbers, rest) = bytes.as_chunks::<8>();
        let mut numbers = numbers.iter().map(|bytes| u64::from_be_bytes(*bytes));
        let lives = numbers.next()?;
        rest.is_empty().then(|| Self {
            lives,
            begun: numbers.collect(),
        })
    }

    fn write(&self) -> Bytes {
        let numbers = std::iter::once(&self.lives).chain(&self.begun);
        numbers.flat_map(|number| number.to_be_bytes()).collect()
    }
}

/// The epoch in which a channel without messages would begin.
pub(super) async fn peek(opened: &Opened, subject: &str) -> Result<Epoch, String> {
    let (key, channel) = place(subject);
    let (shelf, _) = read(&opened.state, &key).await?;
    Ok(epoch_of(opened.log, shelf.number(channel), subject))
}

/// Begins a life of a channel without messages.
pub(super) async fn begin(opened: &Opened, subject: &str) -> Result<Epoch, String> {
    let (key, channel) = place(subject);
    for _ in 0..ATTEMPTS {
        let (mut shelf, revision) = read(&opened.state, &key).await?;
        let lives = shelf.begin(channel);
        match opened.state.update(&key, shelf.write(), revision).await {
            Ok(_) => return Ok(epoch_of(opened.log, lives, subject)),
            Err(error) if error.kind() == kv::UpdateErrorKind::WrongLastRevision => {}
            Err(error) => return Err(error.to_string()),
        }
    }
    Err("many channels begin at the same time".to_owned())
}

async fn read(state: &kv::Store, key: &str) -> Result<(Shelf, u64), String> {
    let entry = state.entry(key).await.map_err(|error| error.to_string())?;
    Ok(match entry {
        Some(entry) => {
            let shelf = Shelf::read(&entry.value);
            let shelf = shelf.ok_or_else(|| format!("{key} is not what this program writes"))?;
            (shelf, entry.revision)
        }
        None => (Shelf::default(), 0),
    })
}

/// Key of the channel's shelf, and what it is called there.
fn place(subject: &str) -> (String, u64) {
    let hash = Sha256::digest(subject.as_bytes());
    let (numbers, _) = hash.as_chunks::<8>();
    let [shelf, channel] = [0, 1].map(|at| {
        numbers
            .get(at)
            .map_or(0, |bytes| u64::from_be_bytes(*bytes))
    });
    (format!("lives.{}", shelf % SHELVES), channel)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_channel_begins_twice_under_one_number() {
        let mut shelf = Shelf::default();
        let mut seen = std::collections::BTreeSet::new();
        for round in 0..3000u64 {
            let channel = round * 7919 % 501;
            let expected = shelf.number(channel);
            let lives = shelf.begin(channel);
            assert!(lives >= expected);
            assert!(
                seen.insert((channel, lives)),
                "{channel} twice under {lives}"
            );
            assert!(shelf.begun.len() <= REMEMBERED);
            assert_eq!(Shelf::read(&shelf.write()).as_ref(), Some(&shelf));
        }
        assert_eq!(Shelf::read(b"short"), None);
    }
}
