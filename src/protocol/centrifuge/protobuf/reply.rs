//! Replies (`spec/centrifuge.md` §3.2).

use super::push::{client_info, publication};
use super::write::Fields;
use crate::protocol::centrifuge::VERSION;
use crate::protocol::push::{ConnectResult, Reply, ReplyBody, Shape, SubscribeResult};

/// Appends one reply. Results that carry nothing are there all the same (trap T4).
pub fn encode_reply(out: &mut Vec<u8>, reply: &Reply<'_>) {
    let mut fields = Fields::new(out);
    fields.number(1, u64::from(reply.id));
    match &reply.body {
        ReplyBody::Error(chosen) => {
            error(
                &mut fields,
                chosen.code(),
                chosen.message(),
                chosen.temporary(),
                chosen.retry_after_ms(),
            );
        }
        ReplyBody::ChosenError(chosen) => {
            error(
                &mut fields,
                chosen.code,
                &chosen.message,
                chosen.temporary,
                None,
            );
        }
        ReplyBody::Connect(result) => {
            fields.message(5, |fields| connect(fields, &CONNECT_OF_REPLY, result));
        }
        ReplyBody::Subscribe(result) => fields.message(6, |fields| subscribe(fields, result)),
        ReplyBody::Unsubscribe => fields.message(7, |_| {}),
        ReplyBody::Publish => fields.message(8, |_| {}),
        ReplyBody::Presence(infos) => fields.message(9, |result| {
            for info in *infos {
                result.message(1, |entry| {
                    entry.bytes(1, &info.client.encode());
                    client_info(entry, 2, info);
                });
            }
        }),
        ReplyBody::PresenceStats {
            num_clients,
            num_users,
        } => fields.message(10, |result| {
            result.number(1, u64::from(*num_clients));
            result.number(2, u64::from(*num_users));
        }),
        ReplyBody::History {
            publications,
            position,
        } => fields.message(11, |result| {
            for item in *publications {
                publication(result, 1, item, Shape::Plain);
            }
            result.text(2, position.epoch.as_str());
            result.number(3, position.offset.0);
        }),
        ReplyBody::Rpc(data) => {
            fields.large_message(13, data.len(), |result| result.bytes(1, data));
        }
        ReplyBody::Refresh(ttl) => fields.message(14, |result| refresh(result, 3, *ttl)),
        ReplyBody::SubRefresh(ttl) => fields.message(15, |result| refresh(result, 1, *ttl)),
    }
}

/// Number of the field of an error that says when to try again: far from those that the protocol may come to use.
const RETRY_AFTER_MS: u32 = 1000;

fn error(
    fields: &mut Fields<'_>,
    code: u32,
    message: &str,
    temporary: bool,
    retry_after_ms: Option<u32>,
) {
    fields.message(2, |error| {
        error.number(1, u64::from(code));
        error.text(2, message);
        error.flag(3, temporary);
        if let Some(ms) = retry_after_ms {
            error.number(RETRY_AFTER_MS, u64::from(ms));
        }
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

const CONNECT_OF_REPLY: ConnectNumbers = ConnectNumbers {
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

fn subscribe(fields: &mut Fields<'_>, result: &SubscribeResult<'_>) {
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
