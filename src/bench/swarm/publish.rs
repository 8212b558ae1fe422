//! The publishing side of the swarm.

use super::super::payload::{self, Stamp};
use super::api;
use super::load::{Load, Schedule};
use super::state::State;

/// Bytes that the publisher may have unsent before it waits for its socket.
const UNSENT_MAX: usize = 1 << 20;
/// Publications in one turn, so that receives are served in between.
const PUBLICATIONS_PER_TURN: u32 = 1024;

impl State {
    pub(super) fn set_load(&mut self, load: Load) {
        self.load = load;
        self.outstanding = 0;
        for channel in &mut self.channels {
            channel.forgive();
        }
        match load {
            Load::Rate(per_second) => self.schedule = Schedule::new(self.now, per_second),
            Load::Echo => {
                for index in 0..self.plan.connections {
                    self.publish(index, index % self.plan.channels, self.now);
                }
            }
            Load::None | Load::Window(_) => {}
        }
    }

    /// Queues what is due; nanoseconds at which the next is, if that is known.
    pub(super) fn publish_due(&mut self) -> Option<u64> {
        for _ in 0..PUBLICATIONS_PER_TURN {
            let publisher = self.publisher_of(self.next_channel);
            if self.clients[publisher as usize].out.len() > UNSENT_MAX {
                return None;
            }
            let intended = match self.load {
                Load::None | Load::Echo => return None,
                Load::Rate(_) if self.schedule.due() > self.now => {
                    return Some(self.schedule.due());
                }
                Load::Rate(_) => self.schedule.due(),
                Load::Window(size) if self.outstanding >= size => return None,
                Load::Window(_) => self.now,
            };
            let channel = self.next_channel;
            self.next_channel = (channel + 1) % self.plan.channels;
            if let Load::Window(_) = self.load {
                self.channels[channel as usize].owe();
                self.outstanding += 1;
            }
            self.schedule.advance();
            self.publish(publisher, channel, intended);
        }
        Some(self.now)
    }

    /// Who publishes to a channel: the one who does nothing else, or a subscriber of it.
    const fn publisher_of(&self, channel: u32) -> u32 {
        match self.plan.has_publisher {
            true => self.publisher(),
            false => channel / self.plan.subscriptions,
        }
    }

    /// Publishes `count` to every channel at once, outside any load.
    pub(super) fn publish_now(&mut self, count: u32) {
        for channel in 0..self.plan.channels {
            for _ in 0..count {
                self.publish(self.publisher(), channel, self.now);
            }
        }
    }

    pub(super) fn publish(&mut self, index: u32, channel: u32, intended: u64) {
        let known = &mut self.channels[channel as usize];
        let stamp = Stamp {
            channel,
            sequence: known.published,
            intended,
        };
        known.published += 1;
        self.stats.publications += 1;
        let mut payload = std::mem::take(&mut self.scratch);
        payload.clear();
        payload::write(stamp, self.plan.size, &mut payload);
        if index == self.publisher()
            && let Some(key) = &self.plan.api_key
        {
            let name = self.plan.driver.channel_name(channel);
            api::publish(
                &self.plan.host,
                key,
                &name,
                &payload,
                &mut self.clients[index as usize].out,
            );
            self.mark(index);
        } else {
            let mut text = std::mem::take(&mut self.text);
            text.clear();
            let client = &mut self.clients[index as usize];
            client.command = client.command.wrapping_add(1).max(1000);
            self.plan
                .driver
                .publish(channel, client.command, &payload, &mut text);
            text.resize(text.len().max(self.plan.publish_bytes_min), b' ');
            self.queue_text(index, &text);
            self.text = text;
        }
        self.scratch = payload;
    }
}
