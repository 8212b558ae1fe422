//! Publications that wait for others of their channel, so that subscribers get them in one write.

use std::time::Duration;

use crate::broker::HubChannel;
use crate::image::image;
use crate::limits::{BATCH_BYTES_MAX, CHANNELS_OWNED_MAX};
use crate::model::HubId;
use crate::time::Instant;

/// Channels whose publications may wait equally long. It opens with the first publication and is over when that has waited: so nobody
/// waits longer, and who is subscribed to several of the channels gets all of it in one write.
#[derive(Debug, Default)]
struct Window {
    delay: Duration,
    /// When it is over. Meaningless while no channel is listed.
    due: Instant,
    /// Each once; one that was given its run before stays until the window is over.
    channels: Vec<HubId>,
    /// Bytes of their runs, as they will be written. A channel that is gone takes its bytes with it when the window is over.
    bytes: usize,
}

image!(struct Window { delay, due, channels, bytes });

/// See the module. There are few: one for each delay of the configuration.
#[derive(Debug, Default)]
pub(super) struct Windows {
    all: Vec<Window>,
}

image!(struct Windows { all });

impl Windows {
    /// A publication was added to the run of a channel, which had so many bytes before. It waits with its others, unless too much
    /// does already: false then.
    pub(super) fn wait(
        &mut self,
        id: HubId,
        channel: &mut HubChannel,
        before: usize,
        now: Instant,
    ) -> bool {
        if self.bytes() + channel.run_bytes > BATCH_BYTES_MAX + before {
            return false;
        }
        if let Some(at) = channel.window {
            let window = &mut self.all[at as usize];
            window.bytes = window.bytes - before + channel.run_bytes;
            return true;
        }
        debug_assert_eq!(before, 0, "what waits is listed");
        let delay = channel.namespace.batch_max_delay;
        let at = self.of(delay);
        let window = &mut self.all[at];
        if window.channels.len() >= CHANNELS_OWNED_MAX {
            return false;
        }
        if window.channels.is_empty() {
            window.due = now + delay;
            window.bytes = 0;
        }
        window.channels.push(id);
        window.bytes += channel.run_bytes;
        channel.window = Some(at as u32);
        true
    }

    /// The window of a delay; one in which no channel is listed may become it.
    fn of(&mut self, delay: Duration) -> usize {
        let found = self.all.iter().position(|window| window.delay == delay);
        let free = || (self.all.iter()).position(|window| window.channels.is_empty());
        let Some(at) = found.or_else(free) else {
            self.all.push(Window {
                delay,
                ..Window::default()
            });
            return self.all.len() - 1;
        };
        self.all[at].delay = delay;
        at
    }

    /// The run of a channel, of so many bytes, waits no longer. The channel stays listed.
    pub(super) fn take_out(&mut self, channel: &HubChannel, bytes: usize) {
        if let Some(at) = channel.window {
            self.all[at as usize].bytes -= bytes;
        }
    }

    /// One of the channels whose window is over. It is listed no more.
    pub(super) fn next_waited(&mut self, now: Instant) -> Option<HubId> {
        let is_over = |window: &&mut Window| !window.channels.is_empty() && window.due <= now;
        let window = self.all.iter_mut().find(is_over)?;
        window.channels.pop()
    }

    /// All windows are over.
    pub(super) fn hurry(&mut self, now: Instant) {
        for window in &mut self.all {
            window.due = window.due.min(now);
        }
    }

    /// When the next one is over.
    pub(super) fn next_at(&self) -> Option<Instant> {
        self.open().map(|window| window.due).min()
    }

    /// Bytes that wait.
    pub(super) fn bytes(&self) -> usize {
        self.open().map(|window| window.bytes).sum()
    }

    /// Is there a window of this number?
    pub(super) fn has(&self, at: u32) -> bool {
        (at as usize) < self.all.len()
    }

    fn open(&self) -> impl Iterator<Item = &Window> {
        self.all.iter().filter(|window| !window.channels.is_empty())
    }
}
