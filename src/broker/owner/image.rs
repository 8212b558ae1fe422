//! All channels owned by one shard as bytes.

use super::Owner;
use crate::broker::idempotency::Idempotency;
use crate::broker::table::ChannelTable;
use crate::config::ChannelRules;
use crate::image::{Image, ImageError, ImageReader, ImageWriter};
use crate::limits::IDEMPOTENCY_KEYS_MAX;
use crate::mem::Key;

impl Owner {
    /// Writes everything.
    pub fn write_image(&self, rules: &ChannelRules, out: &mut ImageWriter) {
        let Self {
            table,
            keys,
            behind,
            active: _,
            reads,
            woken,
            parts,
            part_bytes,
            unopened,
            unopened_tried,
            parts_swept,
            parts_old,
            refused_full,
            refused_rate,
        } = self;
        table.write(rules, out);
        keys.write(out);
        behind.write(out);
        reads.write(out);
        woken.write(out);
        parts.write(out);
        part_bytes.write(out);
        unopened.write(out);
        unopened_tried.write(out);
        parts_swept.write(out);
        parts_old.write(out);
        refused_full.write(out);
        refused_rate.write(out);
    }

    /// Reads what `write_image` has written, with the same key and the same rules.
    ///
    /// # Errors
    /// It cannot be.
    pub fn read_image(
        key: &Key,
        rules: &ChannelRules,
        from: &mut ImageReader<'_>,
    ) -> Result<Self, ImageError> {
        let table = ChannelTable::read(key, rules, from)?;
        let used = table.iter().filter(|channel| channel.interest != 0);
        Ok(Self {
            active: used.count() as u32,
            keys: Idempotency::read(key, IDEMPOTENCY_KEYS_MAX, from)?,
            table,
            behind: Image::read(from)?,
            reads: Image::read(from)?,
            woken: Image::read(from)?,
            parts: Image::read(from)?,
            part_bytes: Image::read(from)?,
            unopened: Image::read(from)?,
            unopened_tried: Image::read(from)?,
            parts_swept: Image::read(from)?,
            parts_old: Image::read(from)?,
            refused_full: Image::read(from)?,
            refused_rate: Image::read(from)?,
        })
    }
}
