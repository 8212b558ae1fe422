//! What owners hold of what the mesh and the log are asked, and of namespaces.

use std::sync::Arc;

use crate::config::apart::Key;
use crate::config::durable::{Expired, Join, Kept, Schema, SchemaVersion, Trigger};
use crate::config::namespace::{DataFormat, Delivery, DeltaType, RecoveryMode, SlowConsumer};
use crate::config::{ChannelRules, Namespace, Pattern};
use crate::image::{Image, ImageError, ImageReader, ImageWriter, image};
use crate::mesh::durable::Read;
use crate::mesh::message::{Interest, InterestFor, Query, QueryFor, QueryKind, Recover};
use crate::model::ChannelName;

image!(tuple InterestFor(ask));
image!(enum QueryFor { 0 => Client { conn, id }, 1 => CatchUp(ask), 2 => Rpc { conn, id } });
image!(struct Interest { channel, hub, recover, presence, keep, join, delta });
image!(struct Recover { epoch, offset, limit, cache });
image!(struct Query { channel, what });
image!(enum QueryKind {
    0 => Presence { limit, after },
    1 => PresenceStats,
    2 => History { limit, since, reverse },
    3 => HistoryRemove,
});
image!(struct Read { channel, after, limit, bytes });

image!(enum Delivery { 0 => Ephemeral, 1 => Durable });
image!(enum RecoveryMode { 0 => Stream, 1 => Cache });
image!(enum DeltaType { 0 => Fossil });
image!(enum SlowConsumer { 0 => Disconnect, 1 => DropOldest, 2 => Conflate, 3 => Degrade });
image!(enum DataFormat { 0 => NotEmpty, 1 => Json, 2 => JsonObject, 3 => Binary });

image!(struct SchemaVersion { version, json_schema });
image!(struct Schema { accepted, required });
image!(enum Expired { 0 => Drop, 1 => DeadLetter });
image!(struct Kept { age, bytes, count, expired });
image!(struct Join { by, count, expected, within });
image!(struct Trigger { name, channels, condition, append, hook, delay, ttl, join });
image!(struct Namespace { name, delivery, presence, join_leave, force_push_join_leave, join_leave_rate, history_size, history_ttl, history_meta_ttl, force_positioning, allow_positioning, force_recovery, allow_recovery, allow_subscribe_for_client, allow_subscribe_for_anonymous, allow_publish_for_client, allow_publish_for_subscriber, allow_publish_for_anonymous, allow_history_for_client, allow_history_for_subscriber, allow_history_for_anonymous, allow_presence_for_client, allow_presence_for_subscriber, allow_presence_for_anonymous, allow_user_limited_channels, publication_data_format, slow_consumer, conflate_key, outbox_bytes_max, outbox_age_max, size_max, rate, idempotency_ttl, force_recovery_mode, auto_cache_recover, allowed_delta_types, delta_publish, allow_tags_filter, publication_time, batch_max_delay, batch_max_size, batch_flush_latest, channel_regex, subscribe_proxy_enabled, subscribe_proxy_name, publish_proxy_enabled, publish_proxy_name, sub_refresh_proxy_enabled, sub_refresh_proxy_name, kept, compact_by, compact_after, schema, triggers });

impl Image for Key {
    fn write(&self, out: &mut ImageWriter) {
        self.to_string().write(out);
    }

    fn read(from: &mut ImageReader<'_>) -> Result<Self, ImageError> {
        let text = String::read(from)?;
        Self::parse(&text).map_err(|_| ImageError::Wrong { what: "a key" })
    }
}

impl Image for Pattern {
    fn write(&self, out: &mut ImageWriter) {
        out.bytes(self.as_str().as_bytes());
    }

    fn read(from: &mut ImageReader<'_>) -> Result<Self, ImageError> {
        let text = String::read(from)?;
        Self::parse(&text).ok_or(ImageError::Wrong { what: "a pattern" })
    }
}

/// Writes the namespace of a channel: nothing where the configuration has it, all of it where it is gone from there.
pub(super) fn write_namespace(
    name: &ChannelName,
    namespace: &Arc<Namespace>,
    rules: &ChannelRules,
    out: &mut ImageWriter,
) {
    let known = rules.resolve_of(name).ok();
    let gone = (!known.is_some_and(|known| Arc::ptr_eq(known, namespace))).then_some(namespace);
    gone.cloned().write(out);
}

/// Reads it, with the same configuration.
pub(super) fn read_namespace(
    name: &ChannelName,
    rules: &ChannelRules,
    from: &mut ImageReader<'_>,
) -> Result<Arc<Namespace>, ImageError> {
    match Option::read(from)? {
        Some(gone) => Ok(gone),
        None => rules
            .resolve_of(name)
            .cloned()
            .map_err(|_gone| ImageError::Wrong {
                what: "a channel without a namespace",
            }),
    }
}
