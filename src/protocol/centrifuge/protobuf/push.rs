//! Pushes (`spec/centrifuge.md` §3.3).

use super::parts::{CONNECT_OF_PUSH, client_info, connect, publication, refresh};
use super::write::Fields;
use crate::protocol::push::{PayloadShape, Push, SubscribeResult};

/// Bytes of a publication push besides channel, data, info and tags, at most.
const PUSH_BYTES: usize = 48;
/// Most pushes have a length of two bytes.
const USUAL_PUSH_BYTES: usize = 128;

/// Appends one push by itself, as unidirectional transports send it. `channel` is left out when empty.
pub fn encode_bare_push(out: &mut Vec<u8>, channel: &str, push: &Push<'_>) {
    if let Push::Publication(publication) | Push::Shaped(publication, _) = push {
        out.reserve(PUSH_BYTES + channel.len() + publication.data.len());
    }
    let mut fields = Fields::new(out);
    fields.text(2, channel);
    match push {
        Push::Publication(publication) => {
            self::publication(&mut fields, 4, publication, PayloadShape::Plain);
        }
        Push::Shaped(publication, shape) => {
            self::publication(&mut fields, 4, publication, *shape);
        }
        Push::Join(info) => fields.message(5, |join| client_info(join, 1, info)),
        Push::Leave(info) => fields.message(6, |leave| client_info(leave, 1, info)),
        Push::Unsubscribe(why) => fields.message(7, |unsubscribe| {
            let (code, reason) = why.code_reason();
            unsubscribe.number(2, u64::from(code));
            unsubscribe.text(3, reason);
        }),
        Push::Message(data) => fields.message(8, |message| message.bytes(1, data)),
        Push::Subscribe(result) => fields.message(9, |subscribe| subscribed(subscribe, result)),
        Push::Connect(result) => {
            fields.message(10, |fields| connect(fields, &CONNECT_OF_PUSH, result));
        }
        Push::Disconnect(code, reason) => fields.message(11, |disconnect| {
            disconnect.number(1, u64::from(*code));
            disconnect.text(2, reason);
        }),
        Push::Refresh(ttl) => fields.message(12, |fields| refresh(fields, 1, *ttl)),
    }
}

/// Appends one push as the reply that bidirectional transports send.
pub fn encode_push(out: &mut Vec<u8>, channel: &str, push: &Push<'_>) {
    encode_pushed(out, |out| encode_bare_push(out, channel, push));
}

/// Appends the reply around a push that `bare` appends.
pub fn encode_pushed(out: &mut Vec<u8>, bare: impl FnOnce(&mut Vec<u8>)) {
    Fields::new(out).large_message(4, USUAL_PUSH_BYTES, |push| push.appended(bare));
}

/// A Subscribe push has fewer fields than a SubscribeResult, and other numbers.
fn subscribed(fields: &mut Fields<'_>, result: &SubscribeResult<'_>) {
    fields.flag(1, result.recoverable);
    if let Some(position) = result.position {
        fields.text(4, position.epoch.as_str());
        fields.number(5, position.offset.0);
    }
    fields.flag(6, result.positioned);
    fields.bytes(7, result.data);
}
