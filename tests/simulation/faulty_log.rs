//! A durable log that keeps its promises and nothing else: it is slow, refuses, answers out of turn, stores what it says it could
//! not, tells twice, and loses its place.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use ringmain::mem::Rng;
use ringmain::mesh::durable::{
    Appended, FromLog, LogError, Page, Read, RequestId, Span, ToLog, epoch_of,
};
use ringmain::model::{ChannelName, Draft, Offset, Publication, ShardId, StreamPosition};
use ringmain::time::{Instant, Now};

use super::truth::Truth;

const LOG_ID: u128 = 0x5eed;

/// One channel.
#[derive(Default)]
struct Stream {
    entries: Vec<Arc<Publication>>,
    /// Entries up to here are forgotten.
    trimmed: u64,
    keys: BTreeMap<String, StreamPosition>,
}

/// What is to be said to a shard, and when.
struct Later {
    at: Instant,
    to: usize,
    message: FromLog,
}

pub struct FaultyLog {
    rng: Rng,
    shards: u16,
    streams: BTreeMap<String, Stream>,
    /// In the order in which they are said: per shard nothing overtakes.
    later: Vec<VecDeque<Later>>,
    /// Nothing is stored until then.
    down_until: Instant,
    /// How unkind it is: of 100.
    faults: u64,
}

fn unavailable() -> LogError {
    LogError::Unavailable {
        reason: "simulated".into(),
        retry_after: Duration::from_millis(10),
    }
}

impl FaultyLog {
    pub fn new(shards: u16, mut rng: Rng) -> Self {
        Self {
            shards,
            streams: BTreeMap::new(),
            later: (0..shards).map(|_| VecDeque::new()).collect(),
            down_until: Instant(0),
            faults: [0, 3, 15][rng.below(3) as usize],
            rng,
        }
    }

    fn say(&mut self, now: Now, to: usize, delay: Duration, message: FromLog) {
        let after = self.later[to].back().map_or(now.at, |last| last.at);
        let at = after.max(now.at + delay);
        self.later[to].push_back(Later { at, to, message });
    }

    /// What a shard is told now.
    pub fn poll(&mut self, now: Now, shard: usize, calm: bool) -> Option<FromLog> {
        let is_due = |first: &Later| calm || first.at <= now.at;
        if !self.later[shard].front().is_some_and(is_due) {
            return None;
        }
        let later = self.later[shard].pop_front()?;
        assert_eq!(later.to, shard);
        Some(later.message)
    }

    pub fn is_due(&self, now: Now, shard: usize, calm: bool) -> bool {
        self.later[shard]
            .front()
            .is_some_and(|first| calm || first.at <= now.at)
    }

    fn delay(&mut self) -> Duration {
        let rng = &mut self.rng;
        match rng.below(100) {
            0..=59 => Duration::from_micros(rng.below(1500)),
            60..=97 => Duration::from_millis(rng.below(60)),
            // Longer than a publisher waits.
            _ => Duration::from_millis(rng.below(8000)),
        }
    }

    fn is_down(&self, now: Now, calm: bool) -> bool {
        !calm && now.at < self.down_until
    }

    /// A request of a shard.
    pub fn ask(&mut self, now: Now, from: ShardId, request: ToLog, truth: &mut Truth, calm: bool) {
        let shard = usize::from(from.0);
        let faults = if calm { 0 } else { self.faults };
        if self.rng.below(400) < faults {
            self.down_until = now.at + Duration::from_millis(self.rng.below(3000));
        }
        if self.rng.below(800) < faults {
            truth.count("log restarted");
            self.restart(now);
        }
        match request {
            ToLog::Append(id, draft) => self.append(now, (shard, id), *draft, truth, calm),
            ToLog::Read(id, read) => {
                let fails = self.is_down(now, calm) || self.rng.below(100) < faults;
                let delay = self.delay();
                // The answer is what stands there when it is read, and comes later.
                let message = if fails {
                    truth.count("log read failed");
                    FromLog::Page(id, Err((read.channel, unavailable())))
                } else {
                    truth.count("log read");
                    FromLog::Page(id, Ok(Box::new(self.read(&read))))
                };
                self.say(now, shard, delay, message);
            }
            ToLog::Trim(id, channel) => {
                let stream = self.streams.entry(channel.whole().to_owned()).or_default();
                stream.trimmed = stream.entries.len() as u64;
                let delay = self.delay();
                let message = FromLog::Answered(id, Ok(bytes::Bytes::from_static(b"{}")));
                self.say(now, shard, delay, message);
            }
            ToLog::Hurry => {}
            ToLog::Ask(..) | ToLog::Gone(_) | ToLog::Abandoned(_) | ToLog::Taken(_) => {
                unreachable!("no client consumes")
            }
        }
    }

    fn position(channel: &str, stream: &Stream) -> StreamPosition {
        StreamPosition {
            epoch: epoch_of(LOG_ID, 0, channel),
            offset: Offset(stream.entries.len() as u64),
        }
    }

    fn read(&mut self, read: &Read) -> Page {
        let name = read.channel.whole().to_owned();
        let stream = self.streams.entry(name.clone()).or_default();
        let position = Self::position(&name, stream);
        let end = position.offset.0;
        let from = read
            .after
            .map_or(end, |after| after.max(stream.trimmed).min(end)) as usize;
        let limit = (read.limit as usize).min(7);
        let publications: Vec<_> = stream.entries[from..].iter().take(limit).cloned().collect();
        Page {
            channel: read.channel.clone(),
            position,
            after: read.after,
            span: Span::behind(from as u64, from as u64 + publications.len() as u64),
            publications,
        }
    }

    fn append(
        &mut self,
        now: Now,
        (shard, id): (usize, RequestId),
        draft: Draft,
        truth: &mut Truth,
        calm: bool,
    ) {
        let faults = if calm { 0 } else { self.faults };
        let delay = self.delay();
        if self.is_down(now, calm) || self.rng.below(100) < faults {
            truth.count("log append refused");
            return self.answer(now, shard, delay, id, Err(unavailable()));
        }
        let name = draft.record.channel.whole().to_owned();
        let stream = self.streams.entry(name.clone()).or_default();
        if let Some(&position) = stream.keys.get(&*draft.record.key) {
            truth.count("log append repeated");
            let repeated = Appended {
                position,
                is_new: false,
                event: None,
                due_ms: 0,
            };
            return self.answer(now, shard, delay, id, Ok(repeated));
        }
        let mut position = Self::position(&name, stream);
        position.offset.0 += 1;
        let record = draft.record;
        let publication = Arc::new(Publication {
            offset: position.offset,
            epoch: position.epoch,
            data: record.data.clone(),
            json: record.json,
            info: record.publisher.clone(),
            tags: record.tags.clone(),
            unix_ms: record.unix_ms,
            tells_time: false,
            patch: None,
            delta: record.delta,
        });
        stream.entries.push(Arc::clone(&publication));
        if !record.key.is_empty() {
            stream.keys.insert(record.key.to_string(), position);
        }
        let value: serde_json::Value =
            serde_json::from_slice(&record.data).expect("payloads of a run are JSON");
        let n = value["n"].as_u64().expect("its number");
        truth.stands(&name, position.epoch.as_str(), position.offset.0, n);
        truth.stored(n);
        // Nobody knows whether it was stored: it was.
        let result = if self.rng.below(100) < faults {
            truth.count("log append unknown");
            Err(unavailable())
        } else {
            Ok(Appended {
                position,
                is_new: true,
                event: Some(record.event),
                due_ms: 0,
            })
        };
        let told_first = self.rng.below(2) == 0;
        if told_first {
            self.answer(now, shard, delay, id, result.clone());
        }
        let owner = ringmain::broker::owner::owner_of(&record.channel, self.shards);
        let stored = |publication| FromLog::Stored(vec![(record.channel.clone(), publication)]);
        let owner = usize::from(owner.0);
        self.say(now, owner, delay, stored(Arc::clone(&publication)));
        if self.rng.below(100) < faults {
            truth.count("log told twice");
            self.say(now, owner, delay, stored(publication));
        }
        if !told_first {
            self.answer(now, shard, delay, id, result);
        }
    }

    fn answer(
        &mut self,
        now: Now,
        shard: usize,
        delay: Duration,
        id: RequestId,
        result: Result<Appended, LogError>,
    ) {
        self.say(now, shard, delay, FromLog::Appended(vec![(id, result)]));
    }

    /// It loses its place: what it has not told of stored publications it never tells.
    fn restart(&mut self, now: Now) {
        for shard in 0..self.later.len() {
            self.later[shard].retain(|later| !matches!(later.message, FromLog::Stored(_)));
            let delay = self.delay();
            self.say(now, shard, delay, FromLog::Restarted);
        }
    }

    /// Where a channel ends.
    pub fn end(&self, channel: &ChannelName) -> Option<StreamPosition> {
        let stream = self.streams.get(channel.whole())?;
        Some(Self::position(channel.whole(), stream))
    }
}
