//! What replies and pushes have in common.

use super::write::Fields;
use crate::model::{ClientInfo, Offset, Publication};
use crate::protocol::centrifuge::VERSION;
use crate::protocol::push::{ConnectResult, PayloadShape, SubscribeResult};

/// A publication as clients see it. The first one of a stream tells the epoch.
pub(super) fn publication(
    fields: &mut Fields<'_>,
    tag: u32,
    publication: &Publication,
    shape: PayloadShape,
) {
    let patch = publication
        .patch
        .as_ref()
        .filter(|_| shape == PayloadShape::Patch);
    let data = patch.unwrap_or(&publication.data);
    fields.large_message(tag, data.len(), |fields| {
        fields.bytes(4, data);
        if let Some(info) = &publication.info {
            client_info(fields, 5, info);
        }
        fields.number(6, publication.offset.0);
        for (key, value) in &publication.tags {
            fields.message(7, |entry| {
                entry.text(1, key);
                entry.text(2, value);
            });
        }
        fields.flag(8, patch.is_some());
        if publication.tells_time {
            fields.number(9, publication.unix_ms);
        }
        if publication.offset == Offset(1) {
            fields.text(14, publication.epoch.as_str());
        }
    });
}

/// A ClientInfo.
pub(super) fn client_info(fields: &mut Fields<'_>, tag: u32, info: &ClientInfo) {
    fields.message(tag, |fields| {
        fields.text(1, &info.user);
        fields.bytes(2, &info.client.encode());
        fields.bytes(3, &info.conn_info);
        fields.bytes(4, &info.chan_info);
    });
}

/// `expires`, and `ttl` with the number behind it: both or neither, and `ttl` is never zero (trap T5).
pub(super) fn refresh(fields: &mut Fields<'_>, expires: u32, ttl: Option<u32>) {
    if let Some(ttl) = ttl {
        fields.flag(expires, true);
        fields.number(expires + 1, u64::from(ttl.max(1)));
    }
}

/// Numbers in which ConnectResult and the Connect of a push differ (trap T7).
pub(super) struct ConnectNumbers {
    expires: u32,
    data: u32,
    subs: u32,
}

pub(super) const CONNECT_OF_REPLY: ConnectNumbers = ConnectNumbers {
    expires: 3,
    data: 5,
    subs: 6,
};

pub(super) const CONNECT_OF_PUSH: ConnectNumbers = ConnectNumbers {
    expires: 5,
    data: 3,
    subs: 4,
};

/// A ConnectResult, or the Connect of a push.
pub(super) fn connect(
    fields: &mut Fields<'_>,
    numbers: &ConnectNumbers,
    result: &ConnectResult<'_>,
) {
    fields.bytes(1, &result.client.encode());
    fields.text(2, VERSION);
    // Fields go out in the order of their numbers, as other encoders write them.
    let expires_first = numbers.expires < numbers.data;
    if expires_first {
        refresh(fields, numbers.expires, result.ttl);
    }
    fields.bytes(numbers.data, result.data);
    for (channel, sub) in result.subs {
        fields.message(numbers.subs, |entry| {
            entry.text(1, channel);
            entry.message(2, |fields| subscribe(fields, sub));
        });
    }
    if !expires_first {
        refresh(fields, numbers.expires, result.ttl);
    }
    if let Some(interval) = result.ping {
        fields.number(7, u64::from(interval));
        fields.flag(8, result.pong);
    }
    fields.text(9, result.session);
    fields.text(10, result.node);
    fields.number(11, result.time.unwrap_or(0));
}

/// A SubscribeResult.
pub(super) fn subscribe(fields: &mut Fields<'_>, result: &SubscribeResult<'_>) {
    refresh(fields, 1, result.ttl);
    fields.flag(3, result.recoverable);
    if let Some(position) = result.position {
        fields.text(6, position.epoch.as_str());
    }
    for (at, item) in result.publications.iter().enumerate() {
        publication(fields, 7, item, result.shape(at));
    }
    fields.flag(8, result.recovered);
    fields.number(9, result.position.map_or(0, |position| position.offset.0));
    fields.flag(10, result.positioned);
    fields.bytes(11, result.data);
    fields.flag(12, result.was_recovering);
    fields.flag(13, result.delta);
}
