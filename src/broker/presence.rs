//! Who is in a channel.

use std::sync::Arc;

use hashbrown::HashMap;

use crate::image::{Image, ImageError, ImageReader, ImageWriter};
use crate::model::{ClientId, ClientInfo};

/// Presence of one channel, kept by its owner.
#[derive(Debug, Default)]
pub struct Presence {
    clients: HashMap<ClientId, Arc<ClientInfo>, foldhash::fast::FixedState>,
}

impl Presence {
    /// Adds or renews an entry.
    pub fn insert(&mut self, info: Arc<ClientInfo>) {
        self.clients.insert(info.client, info);
    }

    /// Removes an entry; `false` if there was none.
    pub fn remove(&mut self, client: ClientId) -> bool {
        self.clients.remove(&client).is_some()
    }

    /// Nobody is there.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.clients.is_empty()
    }

    /// Everybody, by client id.
    #[must_use]
    pub fn list(&self) -> Vec<Arc<ClientInfo>> {
        let mut list: Vec<_> = self.clients.values().cloned().collect();
        list.sort_unstable_by_key(|info| info.client);
        list
    }

    /// Entries and distinct users; the anonymous user counts as one.
    #[must_use]
    pub fn stats(&self) -> (u32, u32) {
        let mut users: Vec<&str> = self.clients.values().map(|info| &*info.user).collect();
        users.sort_unstable();
        users.dedup();
        (self.clients.len() as u32, users.len() as u32)
    }
}

impl Image for Presence {
    fn write(&self, out: &mut ImageWriter) {
        let Self { clients: _ } = self;
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
