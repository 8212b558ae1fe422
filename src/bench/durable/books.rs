//! The in-band checker of the durable scenarios: what was acknowledged, against what each reader has received.

use hdrhistogram::Histogram;

use super::super::BenchError;
use super::super::ledger::Counts;
use super::super::payload::Stamp;
use super::super::swarm::histogram;

/// A set of sequences that grows.
#[derive(Clone, Debug, Default)]
struct Bits(Vec<u64>);

impl Bits {
    /// `false` if it was there.
    fn insert(&mut self, sequence: u32) -> bool {
        let (word, bit) = (sequence as usize / 64, 1 << (sequence % 64));
        if self.0.len() <= word {
            self.0.resize(word + 1, 0);
        }
        let is_new = self.0[word] & bit == 0;
        self.0[word] |= bit;
        is_new
    }

    /// Members that are not in `other`.
    fn missing_in(&self, other: &Self) -> u64 {
        let mask = |at| other.0.get(at).copied().unwrap_or(0);
        let missing = self.0.iter().enumerate().map(|(at, word)| word & !mask(at));
        missing.map(|word| u64::from(word.count_ones())).sum()
    }
}

/// What one reader has received from one publisher.
#[derive(Clone, Debug, Default)]
struct Received {
    bits: Bits,
    next: u32,
}

/// Everything that a run counts.
pub(super) struct Books {
    acknowledged: Vec<Bits>,
    readers: Vec<Vec<Received>>,
    counts: Counts,
    /// Since the start.
    pub(super) acknowledged_all: u64,
    /// Temporary errors since the start.
    pub(super) temporary: u64,
    /// In the measured time.
    pub(super) measured: u64,
    /// Deliveries in the measured time.
    pub(super) delivered: u64,
    /// Of acknowledgements in the measured time, nanoseconds.
    pub(super) latency: Histogram<u64>,
    /// From a delivery to the answer to its acknowledgement, nanoseconds.
    pub(super) worked: Histogram<u64>,
    /// When the last of them was answered.
    pub(super) last_delivery_at: Option<u64>,
    /// The measured time is now.
    pub(super) is_measuring: bool,
}

impl Books {
    /// Empty ones.
    pub(super) fn new(publishers: u32, readers: u32) -> Result<Self, BenchError> {
        let of_one = vec![Received::default(); publishers as usize];
        Ok(Self {
            acknowledged: vec![Bits::default(); publishers as usize],
            readers: vec![of_one; readers as usize],
            counts: Counts::default(),
            acknowledged_all: 0,
            temporary: 0,
            measured: 0,
            delivered: 0,
            latency: histogram()?,
            worked: histogram()?,
            last_delivery_at: None,
            is_measuring: false,
        })
    }

    /// A publication was acknowledged.
    pub(super) fn acknowledged(&mut self, publisher: u32, sequence: u32, latency: u64) {
        self.acknowledged[publisher as usize].insert(sequence);
        self.acknowledged_all += 1;
        if self.is_measuring {
            self.measured += 1;
            self.latency.saturating_record(latency);
        }
    }

    /// The acknowledgement of a worker was answered now, so long after the delivery.
    pub(super) fn acknowledged_delivery(&mut self, now: u64, latency: u64) {
        self.worked.saturating_record(latency);
        self.last_delivery_at = Some(now);
    }

    /// Deliveries whose acknowledgement was answered.
    pub(super) fn acknowledged_deliveries(&self) -> u64 {
        self.worked.len()
    }

    /// A reader has received a publication; whether for the first time.
    pub(super) fn received(&mut self, reader: u32, stamp: Stamp) -> bool {
        let Some(received) = self.readers[reader as usize].get_mut(stamp.channel as usize) else {
            return false;
        };
        let is_new = received.bits.insert(stamp.sequence);
        if !is_new {
            self.counts.duplicated += 1;
        } else {
            self.counts.delivered += 1;
            if stamp.sequence < received.next {
                self.counts.reordered += 1;
            }
            received.next = received.next.max(stamp.sequence + 1);
        }
        self.delivered += u64::from(self.is_measuring);
        is_new
    }

    /// Acknowledged and not received by a reader of these publishers.
    pub(super) fn missing(&self, reader: u32, reads: impl Fn(u32) -> bool) -> u64 {
        let received = &self.readers[reader as usize];
        (0..)
            .zip(self.acknowledged.iter().zip(received))
            .filter(|(publisher, _)| reads(*publisher))
            .map(|(_, (acknowledged, received))| acknowledged.missing_in(&received.bits))
            .sum()
    }

    /// Acknowledged and received by nobody, where readers share the work.
    pub(super) fn missing_everywhere(&self) -> u64 {
        let mut missing = 0;
        for (publisher, acknowledged) in self.acknowledged.iter().enumerate() {
            let mut all = Bits::default();
            for reader in &self.readers {
                let words = &reader[publisher].bits.0;
                if all.0.len() < words.len() {
                    all.0.resize(words.len(), 0);
                }
                for (sum, word) in all.0.iter_mut().zip(words) {
                    *sum |= word;
                }
            }
            missing += acknowledged.missing_in(&all);
        }
        missing
    }

    /// Closes the books.
    pub(super) const fn close(&self, lost: u64) -> Counts {
        Counts {
            lost,
            ..self.counts
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(channel: u32, sequence: u32) -> Stamp {
        Stamp {
            channel,
            sequence,
            intended: 0,
        }
    }

    #[test]
    fn lost_repeated_and_overtaken_publications_are_told_apart() {
        let mut books = Books::new(2, 2).unwrap();
        for sequence in 0..100 {
            books.acknowledged(0, sequence, 1);
        }
        books.acknowledged(1, 5, 1);
        for sequence in (0..100).filter(|n| *n != 70) {
            assert!(books.received(0, stamp(0, sequence)));
        }
        assert_eq!(books.missing(0, |publisher| publisher == 0), 1);
        assert_eq!(books.missing(0, |_| true), 2);
        assert_eq!(books.missing_everywhere(), 2);
        assert!(books.received(1, stamp(1, 5)) && books.received(0, stamp(0, 70)));
        assert!(!books.received(0, stamp(0, 3)) && !books.received(0, stamp(9, 0)));
        assert_eq!(books.missing_everywhere(), 0);
        let counts = books.close(0);
        assert_eq!((counts.duplicated, counts.reordered), (1, 1));
    }
}
