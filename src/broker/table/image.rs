//! The channels that a shard owns as bytes. How they are found by name and by what is due is made anew.

use super::{ChannelTable, rehash};
use crate::broker::channel::Channel;
use crate::broker::epochs::Epochs;
use crate::broker::list::List;
use crate::broker::makers::Makers;
use crate::config::ChannelRules;
use crate::image::{Image, ImageError, ImageReader, ImageWriter};
use crate::limits::CHANNELS_OWNED_MAX;
use crate::mem::{Key, Slab, SlotPool};

impl ChannelTable {
    pub(in crate::broker) fn write(&self, rules: &ChannelRules, out: &mut ImageWriter) {
        let Self {
            channels,
            slots,
            by_name: _,
            names: _,
            epochs,
            idle,
            makers,
            due: _,
            refile,
            evicted,
        } = self;
        channels.write(out, |channel, out| channel.write(rules, out));
        slots.write(out);
        epochs.write(out);
        idle.write(channels, |channel| Some(&channel.idle), out);
        makers.write(channels, out);
        refile.write(out);
        evicted.write(out);
    }

    /// With the same key.
    pub(in crate::broker) fn read(
        key: &Key,
        rules: &ChannelRules,
        from: &mut ImageReader<'_>,
    ) -> Result<Self, ImageError> {
        const MOST: u32 = CHANNELS_OWNED_MAX as u32;
        let mut channels = Slab::read(from, MOST, |from| Channel::read(rules, from))?;
        let slots = SlotPool::read(from, MOST, &channels)?;
        let epochs = Epochs::read(&key.derive("epochs"), from)?;
        let is_idle = |channel: &Channel| channel.interest == 0;
        let idle = List::read(
            |channel| Some(&mut channel.idle),
            &mut channels,
            from,
            is_idle,
        )?;
        let makers = Makers::read(key, &mut channels, from)?;
        let Self {
            by_name,
            names,
            due,
            ..
        } = Self::new(key);
        let mut table = Self {
            channels,
            slots,
            by_name,
            names,
            epochs,
            idle,
            makers,
            due,
            refile: Image::read(from)?,
            evicted: Image::read(from)?,
        };
        let all_idle = table.iter().filter(|channel| is_idle(channel)).count();
        if all_idle != table.idle.len() as usize {
            return Err(ImageError::Wrong {
                what: "channels without subscribers",
            });
        }
        table.find_all()?;
        Ok(table)
    }

    /// Files all channels by name and by what is due.
    fn find_all(&mut self) -> Result<(), ImageError> {
        for (slot, channel) in self.channels.iter() {
            let hash = self.hash(&channel.name);
            if self.find(hash, &channel.name).is_some() {
                return Err(ImageError::Wrong {
                    what: "a channel twice",
                });
            }
            let (channels, names) = (&self.channels, &self.names);
            let rehash = |&slot: &u32| rehash(channels, names, slot);
            self.by_name.insert_unique(hash, slot, rehash);
            if channel.filed != 0 {
                self.due.insert((channel.filed, slot));
            }
        }
        Ok(())
    }
}
