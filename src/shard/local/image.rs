//! Local subscribers, and what waits to be given to them, as bytes.

use std::sync::Arc;

use super::parts::Parts;
use super::{Local, RUN_TURN};
use crate::broker::{Hub, HubChannel};
use crate::config::ChannelRules;
use crate::image::{Image, ImageError, ImageReader, ImageWriter};
use crate::mem::{Key, Turns};
use crate::model::Weights;

impl Local {
    pub(in crate::shard) fn write_image(&self, rules: &ChannelRules, out: &mut ImageWriter) {
        let Self {
            hub,
            runs,
            windows,
            run_bytes,
            written,
            unasked,
            parts,
            news,
            fan_out_since,
        } = self;
        hub.write(rules, out);
        runs.write(out);
        windows.write(out);
        run_bytes.write(out);
        written.write(out);
        unasked.write(out);
        parts.write(out);
        news.write(out);
        fan_out_since.write(out);
    }

    /// Reads what `write_image` has written, with the same key and configuration.
    pub(in crate::shard) fn read_image(
        key: &Key,
        rules: &ChannelRules,
        weights: &Arc<Weights>,
        from: &mut ImageReader<'_>,
    ) -> Result<Self, ImageError> {
        let local = Self {
            hub: Hub::read(key, rules, from)?,
            runs: Turns::read(RUN_TURN, weights, from)?,
            windows: Image::read(from)?,
            run_bytes: Image::read(from)?,
            written: Image::read(from)?,
            unasked: Image::read(from)?,
            parts: Parts::read(weights, from)?,
            news: Image::read(from)?,
            fan_out_since: Image::read(from)?,
        };
        let is_listed =
            |channel: &HubChannel| channel.window.is_none_or(|at| local.windows.has(at));
        if !local.hub.iter().all(is_listed) {
            return Err(ImageError::Wrong {
                what: "a window of publications that wait",
            });
        }
        Ok(local)
    }
}
