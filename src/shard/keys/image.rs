//! Commands that wait for a key, as bytes. Who goes on with them waits as long as before, and control may be asked again.

use super::{KeyWaits, Parked};
use crate::config::keys::KeySource;
use crate::image::{Image, ImageError, ImageReader, ImageWriter, image};
use crate::limits::{KEY_WAITS_BYTES_MAX, KEY_WAITS_MAX};
use crate::mem::SharedAsks;
use crate::session::KeyWanted;

image!(struct Parked { conn, command, source, wanted });
image!(struct KeyWanted { source, id });
image!(enum KeySource { 0 => Connection, 1 => Subscription, 2 => Tenant(id) });

impl Image for KeyWaits {
    fn write(&self, out: &mut ImageWriter) {
        let Self {
            parked,
            waiting,
            answered,
        } = self;
        parked.write(out);
        waiting.write(out);
        answered.write(out);
    }

    fn read(from: &mut ImageReader<'_>) -> Result<Self, ImageError> {
        let waits = Self {
            parked: SharedAsks::read(KEY_WAITS_MAX as u32, KEY_WAITS_BYTES_MAX, from)?,
            waiting: Image::read(from)?,
            answered: Image::read(from)?,
        };
        let waiting = waits.waiting.iter().flat_map(|(_, waiting)| waiting);
        let mut all = waiting.chain(&waits.answered);
        let is_parked = all.all(|id| waits.parked.kept(*id).is_some_and(Option::is_some));
        is_parked.then_some(waits).ok_or(ImageError::Wrong {
            what: "a command that waits for a key",
        })
    }
}
