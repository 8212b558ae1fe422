//! What all clients together know: who published what, and what stands where in each channel.

use std::collections::{BTreeMap, BTreeSet};

use ringmain::time::Instant;
use serde_json::Value;

/// What was once handled wrongly: how often a run comes into it is counted.
pub mod situation {
    /// A connection waits to send while the rings hold nothing, and remembers where they stood.
    pub const REMEMBERS_EMPTY_RINGS: &str = "situation: positions of empty rings remembered";
    /// A client goes while the gate is asked whether it is let in.
    pub const ENDS_BEFORE_GATE: &str = "situation: client gone before the gate answered";
    /// A client goes while its user's registry is asked for a place.
    pub const ENDS_BEFORE_REGISTRY: &str = "situation: client gone before its registry answered";
    /// Commands stand in one frame behind a connect whose reply waits for owners.
    pub const BEHIND_CONNECT: &str = "situation: commands behind a connect that waits";
    /// The server ends a subscription that waits for its owner.
    pub const ENDS_WHILE_PENDING: &str = "situation: subscription ended while pending";
    /// A backend prolongs to a time that is past.
    pub const STALE_REFRESH: &str = "situation: refreshed to a time that is past";
    /// A shard keeps commands of a client up to the bound, and reads it no further.
    pub const READ_NO_FURTHER: &str = "situation: so many commands wait that no more is read";
    /// As many commands of one client are under way as may be.
    pub const NO_MORE_UNDER_WAY: &str = "situation: no more commands of a client go beside others";
    /// A client goes while its backend is asked.
    pub const ENDS_BEFORE_BACKEND: &str = "situation: client gone before its backend answered";
    /// A connection waits for the key of its token.
    pub const WAITS_FOR_KEY: &str = "situation: connection waits for a key";
    /// A shard goes on as what its image says and with nothing else than its queues.
    pub const MOVED_WHOLE: &str = "situation: nothing of a shard was left behind by its image";
    /// What a shard has lost cannot be asked for: the queue is full.
    pub const CATCH_UP_PUT_OFF: &str = "situation: catch-up found a full queue";
}

/// What tells a publication apart where they are conflated; some have nothing of the kind.
pub fn key_of(n: u64) -> Option<u64> {
    (!n.is_multiple_of(5)).then_some(n % 3)
}

/// See the module.
#[derive(Default)]
pub struct Truth {
    /// Channels of publication `n`.
    sent: Vec<Vec<String>>,
    /// Publication at (channel, epoch, offset).
    streams: BTreeMap<(String, String), BTreeMap<u64, u64>>,
    /// Pairs of publications that some subscriber got one directly after the other.
    followed: BTreeMap<String, BTreeSet<(u64, u64)>>,
    /// Publications that the durable log has.
    stored: BTreeSet<u64>,
    /// Users that no connection may have, and ids of tokens. Those of which nobody knows are in neither.
    pub blocked: BTreeSet<String>,
    pub revoked: BTreeSet<String>,
    /// Ids of clients of which a backend said that they may not connect, or not stay.
    pub turned_away: BTreeSet<String>,
    pub ended: BTreeSet<String>,
    /// Publications that somebody tried to send in another's name.
    pub forged: BTreeSet<u64>,
    /// When the wall clock was set last.
    pub clock_set: Option<Instant>,
    /// How often what happened, so that a run can be seen to reach what it is meant to reach.
    pub counts: BTreeMap<String, u64>,
}

impl Truth {
    pub fn count(&mut self, what: &str) {
        match self.counts.get_mut(what) {
            Some(count) => *count += 1,
            None => {
                self.counts.insert(what.to_owned(), 1);
            }
        }
    }

    /// A new publication: its payload.
    pub fn payload(&mut self, channels: &[&str], padding: usize) -> String {
        let n = self.sent.len();
        self.sent
            .push(channels.iter().map(|&channel| channel.to_owned()).collect());
        let key = key_of(n as u64).map_or_else(String::new, |key| format!(r#""k":{key},"#));
        // In the order in which a reader writes it again.
        format!(r#"{{{key}"n":{n},"p":"{}"}}"#, "x".repeat(padding))
    }

    /// Which publication stands somewhere, if anybody has seen it.
    pub fn at(&self, channel: &str, epoch: &str, offset: u64) -> Option<u64> {
        let stream = self.streams.get(&(channel.to_owned(), epoch.to_owned()));
        stream.and_then(|stream| stream.get(&offset).copied())
    }

    /// Checks one publication that somebody sees in a channel. Returns its offset and number.
    pub fn seen(&mut self, channel: &str, epoch: Option<&str>, publication: &Value) -> (u64, u64) {
        let n = publication["data"]["n"]
            .as_u64()
            .expect("a payload of this run");
        assert!(!self.forged.contains(&n), "{n} was sent in another's name");
        assert!(
            self.sent[n as usize].iter().any(|name| name == channel),
            "publication {n} of {:?} was seen in {channel}",
            self.sent[n as usize]
        );
        let offset = publication["offset"].as_u64().unwrap_or(0);
        if let Some(epoch) = publication["epoch"].as_str().or(epoch)
            && offset > 0
        {
            self.stands(channel, epoch, offset, n);
        }
        (offset, n)
    }

    /// How many that were sent to a channel nobody has seen at an offset: those that have none, and those that were refused.
    pub fn without_offset(&self, channel: &str) -> u64 {
        let streams = self.streams.iter().filter(|((of, _), _)| of == channel);
        let placed: BTreeSet<u64> = streams
            .flat_map(|(_, stream)| stream.values().copied())
            .collect();
        let sent = (0u64..).zip(&self.sent);
        sent.filter(|(n, to)| to.iter().any(|name| name == channel) && !placed.contains(n))
            .count() as u64
    }

    /// A publication stands at one place, and a place has one publication.
    pub fn stands(&mut self, channel: &str, epoch: &str, offset: u64, n: u64) {
        let stream = self
            .streams
            .entry((channel.to_owned(), epoch.to_owned()))
            .or_default();
        let there = *stream.entry(offset).or_insert(n);
        assert_eq!(there, n, "two publications at offset {offset} of {channel}");
    }

    /// The durable log has a publication, once.
    pub fn stored(&mut self, n: u64) {
        assert!(self.stored.insert(n), "publication {n} was stored twice");
    }

    /// Nobody is told to go whose publication is on its way to its answer.
    pub fn not_answered(&self, n: u64) {
        assert!(
            !self.stored.contains(&n),
            "the publisher of {n} was told to go before it was told that it is stored"
        );
    }

    /// A publisher was told that its publication is stored.
    pub fn acknowledged(&self, n: u64) {
        assert!(
            self.stored.contains(&n),
            "publication {n} was acknowledged and is not in the log"
        );
    }

    /// A subscriber got `after` directly after `before`.
    pub fn followed(&mut self, channel: &str, before: u64, after: u64) {
        if let Some(pairs) = self.followed.get_mut(channel) {
            pairs.insert((before, after));
        } else {
            self.followed
                .insert(channel.to_owned(), BTreeSet::from([(before, after)]));
        }
    }

    /// All subscribers of a channel saw one order: what followed what has no circle.
    pub fn check_orders(&self) {
        for (channel, pairs) in &self.followed {
            let mut before: BTreeMap<u64, u64> = BTreeMap::new();
            for &(a, b) in pairs {
                before.entry(a).or_default();
                *before.entry(b).or_default() += 1;
            }
            let total = before.len();
            let mut free: Vec<u64> = before
                .iter()
                .filter(|(_, count)| **count == 0)
                .map(|(&n, _)| n)
                .collect();
            let mut done = 0;
            while let Some(n) = free.pop() {
                done += 1;
                for &(_, next) in pairs.range((n, 0)..=(n, u64::MAX)) {
                    let count = before.get_mut(&next).expect("every end of a pair is there");
                    *count -= 1;
                    if *count == 0 {
                        free.push(next);
                    }
                }
            }
            assert_eq!(
                done, total,
                "subscribers of {channel} saw different orders, or something twice"
            );
        }
    }

    /// Offsets are given without holes: every offset below the top was somebody's. `top` comes from the owner.
    pub fn check_top(&self, channel: &str, epoch: &str, top: u64) {
        if let Some((&last, _)) = self
            .streams
            .get(&(channel.to_owned(), epoch.to_owned()))
            .and_then(|stream| stream.last_key_value())
        {
            assert!(
                last <= top,
                "offset {last} of {channel} was seen, but its owner stands at {top}"
            );
        }
    }
}
