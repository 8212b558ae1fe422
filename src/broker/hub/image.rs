//! Who listens, as bytes. Subscribers are named by the slots of their connections, and keep their places.

use super::{Class, Delta, Hub, HubChannel, News, Subscriber};
use crate::broker::image::{read_namespace, write_namespace};
use crate::config::ChannelRules;
use crate::image::{Image, ImageError, ImageReader, ImageWriter, image};
use crate::limits::CHANNELS_OWNED_MAX;
use crate::mem::{Key, Slab, SlotPool};

image!(struct News { is_filed, told, joined, left });
image!(struct Subscriber { conn, class, join_leave });
image!(struct Class { format, filter, delta, count });
image!(enum Delta { 0 => Off, 1 => Whole, 2 => Fresh, 3 => Based });

impl HubChannel {
    fn write(&self, rules: &ChannelRules, out: &mut ImageWriter) {
        let Self {
            name,
            namespace,
            subscribers,
            classes,
            pending,
            confirmed,
            position,
            run,
            run_bytes,
            run_replaced,
            run_is_due,
            window,
            // Counted anew.
            observers: _,
            news,
            catching_up,
            round,
            opener,
        } = self;
        name.write(out);
        write_namespace(name, namespace, rules, out);
        subscribers.write(out);
        classes.write(out);
        pending.write(out);
        confirmed.write(out);
        position.write(out);
        run.write(out);
        run_bytes.write(out);
        run_replaced.write(out);
        run_is_due.write(out);
        window.write(out);
        news.write(out);
        catching_up.write(out);
        round.write(out);
        opener.write(out);
    }

    fn read(rules: &ChannelRules, from: &mut ImageReader<'_>) -> Result<Self, ImageError> {
        let name = Image::read(from)?;
        let mut channel = Self {
            namespace: read_namespace(&name, rules, from)?,
            name,
            subscribers: Image::read(from)?,
            classes: Image::read(from)?,
            pending: Image::read(from)?,
            confirmed: Image::read(from)?,
            position: Image::read(from)?,
            run: Image::read(from)?,
            run_bytes: Image::read(from)?,
            run_replaced: Image::read(from)?,
            run_is_due: Image::read(from)?,
            window: Image::read(from)?,
            observers: 0,
            news: Image::read(from)?,
            catching_up: Image::read(from)?,
            round: Image::read(from)?,
            opener: Image::read(from)?,
        };
        let mut counts: Vec<u32> = channel.classes.iter().map(|class| class.count).collect();
        for subscriber in &channel.subscribers {
            let count = counts.get_mut(usize::from(subscriber.class));
            let left = count.and_then(|count| count.checked_sub(1).map(|left| *count = left));
            left.ok_or(ImageError::Wrong {
                what: "a class of subscribers",
            })?;
        }
        let observers = (channel.subscribers.iter()).filter(|subscriber| subscriber.join_leave);
        channel.observers = observers.count() as u32;
        Ok(channel)
    }
}

impl Hub {
    /// Writes all of it.
    pub fn write(&self, rules: &ChannelRules, out: &mut ImageWriter) {
        let Self {
            channels,
            slots,
            by_name: _,
            names: _,
            opened: _,
            most: _,
            crowded,
        } = self;
        channels.write(out, |channel, out| channel.write(rules, out));
        slots.write(out);
        crowded.write(out);
    }

    /// Reads what `write` has written, with the same key and the same rules. How channels are found, and how many each opened, is made
    /// anew.
    ///
    /// # Errors
    /// It cannot be.
    pub fn read(
        key: &Key,
        rules: &ChannelRules,
        from: &mut ImageReader<'_>,
    ) -> Result<Self, ImageError> {
        const MOST: u32 = CHANNELS_OWNED_MAX as u32;
        let mut hub = Self::new(key);
        hub.channels = Slab::read(from, MOST, |from| HubChannel::read(rules, from))?;
        hub.slots = SlotPool::read(from, MOST, &hub.channels)?;
        hub.crowded = Image::read(from)?;
        let (channels, names) = (&hub.channels, &hub.names);
        let hash = |channel: &HubChannel| names.of(channel.name.whole().as_bytes());
        for (slot, channel) in channels.iter() {
            let is_it = |&other: &u32| {
                let other = channels.at(other);
                other.is_some_and(|other| other.name == channel.name)
            };
            if hub.by_name.find(hash(channel), is_it).is_some() {
                return Err(ImageError::Wrong {
                    what: "a channel twice",
                });
            }
            hub.by_name.insert_unique(hash(channel), slot, |&slot| {
                channels.at(slot).map_or(0, hash)
            });
            for key in channel.opener.into_iter().filter(|&key| key != 0) {
                *hub.opened.entry(key).or_default() += 1;
            }
        }
        Ok(hub)
    }
}
