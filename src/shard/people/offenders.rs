//! Address prefixes whose tokens were invalid of late: a signature costs its reader more than its writer.

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use crate::image::{Image, ImageError, ImageReader, ImageWriter};
use crate::limits::OFFENDERS_MAX;
use crate::mem::{Bucket, Pace};
use crate::time::Instant;

/// For each prefix, a bucket that holds one second's worth: when it is full, all its tokens are forgiven.
pub(super) struct Offenders {
    forgiven: HashMap<u32, Bucket, FixedState>,
}

impl Default for Offenders {
    fn default() -> Self {
        // The keys follow from a secret.
        Self {
            forgiven: HashMap::with_hasher(FixedState::with_seed(0)),
        }
    }
}

impl Offenders {
    /// One more.
    pub(super) fn add(&mut self, now: Instant, from: u32, per_second: u32) {
        if self.forgiven.len() >= OFFENDERS_MAX && !self.forgiven.contains_key(&from) {
            self.forgiven.retain(|_, bucket| !bucket.is_full(now));
            if self.forgiven.len() >= OFFENDERS_MAX {
                return;
            }
        }
        let bucket = self.forgiven.entry(from).or_default();
        bucket.owe(now, 1, Pace::per_second(per_second));
    }

    /// No prefix has any.
    pub(super) fn is_empty(&self) -> bool {
        self.forgiven.is_empty()
    }

    /// There were as many as there may be: one more does not fit into the second.
    pub(super) fn is_barred(&self, now: Instant, from: u32, per_second: u32) -> bool {
        let mut bucket = self.forgiven.get(&from).copied().unwrap_or_default();
        bucket.take(now, 1, Pace::per_second(per_second)).is_err()
    }
}

impl Image for Offenders {
    fn write(&self, out: &mut ImageWriter) {
        let Self { forgiven } = self;
        out.map(forgiven.iter());
    }

    fn read(from: &mut ImageReader<'_>) -> Result<Self, ImageError> {
        let mut offenders = Self::default();
        from.map(|prefix, bucket| offenders.forgiven.insert(prefix, bucket))?;
        Ok(offenders)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn as_many_as_in_a_second_at_once_and_then_one_after_the_other() {
        let mut offenders = Offenders::default();
        let start = Instant::START + Duration::from_secs(5);
        for _ in 0..10 {
            assert!(!offenders.is_barred(start, 7, 10));
            offenders.add(start, 7, 10);
        }
        assert!(offenders.is_barred(start, 7, 10));
        assert!(!offenders.is_barred(start, 8, 10), "another prefix");
        let later = start + Duration::from_millis(100);
        assert!(!offenders.is_barred(later + Duration::from_millis(1), 7, 10));
        offenders.add(later + Duration::from_millis(1), 7, 10);
        assert!(offenders.is_barred(later + Duration::from_millis(1), 7, 10));
    }

    #[test]
    fn prefixes_that_are_forgiven_make_room() {
        let mut offenders = Offenders::default();
        for from in 0..=OFFENDERS_MAX as u32 {
            offenders.add(Instant::START, from, 1000);
        }
        assert_eq!(offenders.forgiven.len(), OFFENDERS_MAX);
        offenders.add(Instant::START + Duration::from_secs(1), 0xabcdef, 1000);
        assert_eq!(offenders.forgiven.len(), 1);
    }
}
