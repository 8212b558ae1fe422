//! How far each connection of this shard is with the gate, which may be another shard's.

use std::net::IpAddr;

use hashbrown::HashMap;

use crate::image::{ImageError, ImageReader, ImageWriter, image};
use crate::mem::Key;
use crate::mesh::message::Prefix;

/// See the module, by slot. Empty while nothing is limited.
pub(super) struct Places {
    places: HashMap<u32, GatePlace, foldhash::fast::FixedState>,
}

/// How far a connection has come. A slot without one: nothing needs to be known of it.
enum GatePlace {
    /// It was accepted from this address.
    Came(IpAddr),
    /// The gate has been asked.
    Asked,
    /// It is let in, until it closes.
    In(Option<Prefix>),
}

image!(enum GatePlace { 0 => Came(address), 1 => Asked, 2 => In(prefix) });

impl Places {
    pub(super) fn new(key: &Key) -> Self {
        Self {
            places: HashMap::with_hasher(foldhash::fast::FixedState::with_seed(key.seed())),
        }
    }

    /// A socket was accepted from this address.
    pub(super) fn came(&mut self, slot: u32, address: IpAddr) {
        let before = self.places.insert(slot, GatePlace::Came(address));
        debug_assert!(before.is_none(), "the slot's last one has left its place");
    }

    /// The address that it was accepted from, while nobody was asked about it. `None`: its request is read again.
    pub(super) fn peer(&self, slot: u32) -> Option<Option<IpAddr>> {
        match self.places.get(&slot) {
            Some(GatePlace::Came(address)) => Some(Some(address.to_canonical())),
            None => Some(None),
            Some(GatePlace::Asked | GatePlace::In(_)) => None,
        }
    }

    pub(super) fn is_in(&self, slot: u32) -> bool {
        matches!(self.places.get(&slot), Some(GatePlace::In(_)))
    }

    pub(super) fn is_asked(&self, slot: u32) -> bool {
        matches!(self.places.get(&slot), Some(GatePlace::Asked))
    }

    pub(super) fn ask(&mut self, slot: u32) {
        debug_assert!(!self.is_in(slot), "who is in needs not ask");
        self.places.insert(slot, GatePlace::Asked);
    }

    pub(super) fn let_in(&mut self, slot: u32, prefix: Option<Prefix>) {
        self.places.insert(slot, GatePlace::In(prefix));
    }

    /// It is known no more. What it was counted under, if it was in.
    pub(super) fn leave(&mut self, slot: u32) -> Option<Option<Prefix>> {
        match self.places.remove(&slot) {
            Some(GatePlace::In(prefix)) => Some(prefix),
            Some(GatePlace::Came(_) | GatePlace::Asked) | None => None,
        }
    }

    /// How many are in.
    pub(super) fn inside(&self) -> u32 {
        let is_in = |place: &&GatePlace| matches!(place, GatePlace::In(_));
        self.places.values().filter(is_in).count() as u32
    }

    pub(super) fn write(&self, out: &mut ImageWriter) {
        let Self { places } = self;
        out.map(places.iter());
    }

    pub(super) fn read(key: &Key, from: &mut ImageReader<'_>) -> Result<Self, ImageError> {
        let mut all = Self::new(key);
        from.map(|slot, place| all.places.insert(slot, place))?;
        Ok(all)
    }
}
