//! Who is in a channel.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use hashbrown::HashMap;

use crate::image::{Image, ImageError, ImageReader, ImageWriter};
use crate::limits::PRESENCE_ENTRIES_MAX;
use crate::model::{ClientId, ClientInfo};

/// Presence of one channel, kept by its owner. Who joins or leaves costs the same however many there are, and so do the counts.
#[derive(Debug, Default)]
pub struct Presence {
    clients: BTreeMap<ClientId, Arc<ClientInfo>>,
    /// Entries of each user.
    users: HashMap<Box<str>, u32, foldhash::fast::FixedState>,
}

impl Presence {
    /// Adds or renews an entry.
    pub fn insert(&mut self, info: Arc<ClientInfo>) {
        match self.users.get_mut(&info.user) {
            Some(entries) => *entries += 1,
            None => {
                self.users.insert(info.user.clone(), 1);
            }
        }
        if let Some(before) = self.clients.insert(info.client, info) {
            self.gone(&before);
        }
    }

    /// Removes an entry; `false` if there was none.
    pub fn remove(&mut self, client: ClientId) -> bool {
        let Some(info) = self.clients.remove(&client) else {
            return false;
        };
        self.gone(&info);
        true
    }

    fn gone(&mut self, info: &ClientInfo) {
        if let Some(entries) = self.users.get_mut(&info.user) {
            *entries -= 1;
            if *entries == 0 {
                self.users.remove(&info.user);
            }
        }
    }

    /// Nobody is there.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.clients.is_empty()
    }

    /// Everybody, by client id.
    #[must_use]
    pub fn list(&self) -> Vec<Arc<ClientInfo>> {
        self.clients.values().cloned().collect()
    }

    /// So many by client id, those behind `after`; and the last of them if there are more. Without a limit all, unless there are more
    /// than one answer may have: `None` then.
    #[must_use]
    pub fn page(&self, limit: u32, after: Option<ClientId>) -> Option<PresencePage> {
        if limit == 0 && self.clients.len() > PRESENCE_ENTRIES_MAX {
            return None;
        }
        let most = match limit as usize {
            0 => PRESENCE_ENTRIES_MAX,
            limit => limit.min(PRESENCE_ENTRIES_MAX),
        };
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut behind = self.clients.range((from, Bound::Unbounded));
        let list: Vec<_> = (behind.by_ref().take(most))
            .map(|(_, info)| Arc::clone(info))
            .collect();
        let last = list.last().map(|info| info.client);
        let next = behind.next().and(last);
        Some((list, next))
    }

    /// Entries and distinct users; the anonymous user counts as one.
    #[must_use]
    pub fn stats(&self) -> (u32, u32) {
        (self.clients.len() as u32, self.users.len() as u32)
    }
}

/// Entries, and behind which client the next page begins if there is one.
pub type PresencePage = (Vec<Arc<ClientInfo>>, Option<ClientId>);

impl Image for Presence {
    fn write(&self, out: &mut ImageWriter) {
        let Self {
            clients: _,
            users: _,
        } = self;
        self.list().write(out);
    }

    fn read(from: &mut ImageReader<'_>) -> Result<Self, ImageError> {
        let mut presence = Self::default();
        for info in Vec::read(from)? {
            presence.insert(info);
        }
        Ok(presence)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(n: u128, user: &str) -> Arc<ClientInfo> {
        Arc::new(ClientInfo {
            user: user.into(),
            client: ClientId::from_random(n << 80),
            conn_info: Default::default(),
            chan_info: Default::default(),
        })
    }

    #[test]
    fn counts_follow_those_who_come_and_go() {
        let mut presence = Presence::default();
        for (n, user) in [(1, "a"), (2, "a"), (3, "b"), (4, ""), (5, "")] {
            presence.insert(member(n, user));
        }
        assert_eq!(presence.stats(), (5, 3));
        presence.insert(member(3, "b"));
        presence.insert(member(2, "c"));
        assert_eq!(presence.stats(), (5, 4), "entries that are renewed");
        for n in 1..=5 {
            let client = member(n, "").client;
            assert!(presence.remove(client) && !presence.remove(client));
        }
        assert_eq!((presence.stats(), presence.is_empty()), ((0, 0), true));
    }

    #[test]
    fn pages_together_are_everybody_once() {
        let mut presence = Presence::default();
        for n in 1..=10 {
            presence.insert(member(n, "a"));
        }
        let (mut seen, mut after) = (Vec::new(), None);
        loop {
            let (page, next) = presence.page(3, after).unwrap();
            seen.extend(page);
            if next.is_none() {
                break;
            }
            after = next;
        }
        assert_eq!(seen, presence.list());
        assert_eq!(presence.page(0, None).unwrap(), (presence.list(), None));
        assert_eq!(presence.page(10, None).unwrap().1, None, "nobody is behind");
        for n in 11..=PRESENCE_ENTRIES_MAX as u128 + 1 {
            presence.insert(member(n, "a"));
        }
        assert_eq!(presence.page(0, None), None, "too many for one answer");
        let (page, next) = presence.page(u32::MAX, None).unwrap();
        assert_eq!(page.len(), PRESENCE_ENTRIES_MAX);
        assert_eq!(presence.page(0, next), None);
        assert_eq!(presence.page(5, next).unwrap().0.len(), 1);
    }
}
