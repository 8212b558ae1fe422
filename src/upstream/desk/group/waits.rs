//! How long entries wait for their first delivery: a histogram.

/// Upper bounds of the buckets, milliseconds; what is longer is in one more.
pub const BOUNDS_MS: [u64; 13] = [
    1, 5, 10, 50, 100, 500, 1_000, 5_000, 10_000, 60_000, 300_000, 1_800_000, 3_600_000,
];

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Waits {
    counts: [u64; BOUNDS_MS.len() + 1],
    sum_ms: u64,
}

impl Waits {
    /// One more.
    pub fn add(&mut self, ms: u64) {
        let bucket = BOUNDS_MS.partition_point(|bound| *bound < ms);
        self.counts[bucket] += 1;
        self.sum_ms = self.sum_ms.saturating_add(ms);
    }

    /// Of each bucket its bound, `None` for the last one, and how many were no longer.
    pub fn cumulative(&self) -> impl Iterator<Item = (Option<u64>, u64)> {
        let bounds = BOUNDS_MS.iter().copied().map(Some).chain([None]);
        let sums = self.counts.iter().scan(0, |sum, count| {
            *sum += count;
            Some(*sum)
        });
        bounds.zip(sums)
    }

    /// All together, milliseconds.
    #[must_use]
    pub const fn sum_ms(&self) -> u64 {
        self.sum_ms
    }

    /// The bound that this share of them did not exceed, milliseconds; `None` while there are none, or where it lies beyond all.
    #[must_use]
    pub fn quantile(&self, share: f64) -> Option<u64> {
        let all: u64 = self.counts.iter().sum();
        let wanted = (all as f64 * share).ceil() as u64;
        let mut buckets = self.cumulative();
        let found = buckets.find(|(_, count)| all > 0 && *count >= wanted.max(1))?;
        found.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_fall_into_the_first_bucket_that_is_long_enough() {
        let mut waits = Waits::default();
        for ms in [0, 1, 2, 5, 50, 4_000_000] {
            waits.add(ms);
        }
        let counts: Vec<u64> = waits.cumulative().map(|(_, count)| count).collect();
        assert_eq!(counts[..4], [2, 4, 4, 5]);
        assert_eq!(counts.last(), Some(&6));
        assert_eq!((waits.quantile(0.5), waits.quantile(1.0)), (Some(5), None));
        assert_eq!(Waits::default().quantile(0.5), None);
    }
}
