//! Replies (`spec/centrifuge.md` §3.2).

use super::parts::{CONNECT_OF_REPLY, client_info, connect, publication, refresh, subscribe};
use super::write::Fields;
use crate::protocol::push::{PayloadShape, Reply, ReplyBody};

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
                publication(result, 1, item, PayloadShape::Plain);
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
