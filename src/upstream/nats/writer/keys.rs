//! Idempotency keys that were seen lately: who repeats one gets its answer without a batch that the server refuses.

use std::collections::HashMap;

use tokio::time::Instant;

use crate::model::{EventId, StreamPosition};

/// Where the publication with a key stands, and what it is called.
pub(super) type Place = (StreamPosition, Option<EventId>);

/// Keys of one generation; there are two.
const KEYS_PER_GENERATION: usize = 32_768;

/// A bounded memory of keys: where each stands, and until when that is certain.
#[derive(Default)]
pub(super) struct Keys {
    young: HashMap<Box<str>, (Place, Instant)>,
    old: HashMap<Box<str>, (Place, Instant)>,
}

impl Keys {
    pub(super) fn insert(&mut self, key: Box<str>, place: Place, until: Instant) {
        if self.young.len() >= KEYS_PER_GENERATION {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, (place, until));
    }

    pub(super) fn find(&self, key: &str, now: Instant) -> Option<Place> {
        let found = self.young.get(key).or_else(|| self.old.get(key));
        found
            .filter(|(_, until)| now < *until)
            .map(|(place, _)| *place)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn keys_are_forgotten_in_time_and_in_number() {
        let now = Instant::now();
        let mut keys = Keys::default();
        keys.insert(
            "brief".into(),
            (StreamPosition::default(), None),
            now + Duration::from_secs(1),
        );
        assert!(keys.find("brief", now).is_some());
        assert!(keys.find("brief", now + Duration::from_secs(1)).is_none());
        for number in 0..3 * KEYS_PER_GENERATION {
            let until = now + Duration::from_secs(9);
            keys.insert(
                number.to_string().into(),
                (StreamPosition::default(), None),
                until,
            );
        }
        assert!(keys.find("brief", now).is_none() && keys.find("0", now).is_none());
        assert!(keys.young.len() + keys.old.len() <= 2 * KEYS_PER_GENERATION);
    }
}
