//! Pushes (`spec/centrifuge.md` §3.3), and the parts they share with replies and with the server API.

use super::write::{Members, string};
use crate::model::{ClientId, ClientInfo, Offset, Publication};
use crate::protocol::push::{Push, SubscribeResult};

/// Bytes of a publication push besides channel, data, info and tags, at most.
const PUSH_BYTES: usize =
    r#"{"push":{"channel":"","pub":{"data":,"offset":18446744073709551615,"epoch":"12345678"}}}"#
        .len();

/// Appends one push. `channel` is left out when empty. The payload of a publication must be JSON (`is_json`); line
/// breaks in it are taken out.
pub fn encode_push(out: &mut Vec<u8>, channel: &str, push: &Push<'_>) {
    if let Push::Publication(publication) = push {
        out.reserve(PUSH_BYTES + channel.len() + publication.data.len());
    }
    let mut reply = Members::open(out);
    let mut members = reply.object("push");
    if !channel.is_empty() {
        members.text("channel", channel);
    }
    match push {
        Push::Publication(publication) => self::publication(members.name("pub"), publication),
        Push::Join(info) => event(members.object("join"), info),
        Push::Leave(info) => event(members.object("leave"), info),
        Push::Unsubscribe(why) => {
            let (code, reason) = why.code_reason();
            let mut unsubscribe = members.object("unsubscribe");
            unsubscribe.number("code", code);
            unsubscribe.text("reason", reason);
            unsubscribe.close();
        }
        Push::Message(data) => {
            let mut message = members.object("message");
            message.raw("data", data);
            message.close();
        }
        Push::Subscribe(result) => subscribed(members.object("subscribe"), result),
        Push::Refresh(ttl) => {
            let mut refresh = members.object("refresh");
            expires(&mut refresh, *ttl);
            refresh.close();
        }
    }
    members.close();
    reply.close();
}

/// A Join or Leave.
fn event(mut members: Members<'_>, info: &ClientInfo) {
    client_info(members.name("info"), info);
    members.close();
}

/// A publication as clients see it. The first one of a stream tells the epoch.
pub(super) fn publication(out: &mut Vec<u8>, publication: &Publication) {
    let mut members = Members::open(out);
    members.raw("data", &publication.data);
    if let Some(info) = &publication.info {
        client_info(members.name("info"), info);
    }
    members.number_some("offset", publication.offset.0);
    tags(&mut members, publication);
    if publication.offset == Offset(1) {
        members.text("epoch", publication.epoch.as_str());
    }
    members.close();
}

/// Member `tags`, left out when there are none.
pub(in crate::protocol) fn tags(members: &mut Members<'_>, publication: &Publication) {
    if publication.tags.is_empty() {
        return;
    }
    let mut tags = members.object("tags");
    for (key, value) in &publication.tags {
        string(tags.key(key), value);
    }
    tags.close();
}

/// A ClientInfo: user and client are printed even when empty.
pub(in crate::protocol) fn client_info(out: &mut Vec<u8>, info: &ClientInfo) {
    let mut members = Members::open(out);
    members.text("user", &info.user);
    client_id(&mut members, info.client);
    members.raw("conn_info", &info.conn_info);
    members.raw("chan_info", &info.chan_info);
    members.close();
}

/// Member `client`.
pub(super) fn client_id(members: &mut Members<'_>, client: ClientId) {
    let out = members.name("client");
    out.push(b'"');
    out.extend_from_slice(&client.encode());
    out.push(b'"');
}

/// Members `expires` and `ttl`: both or neither, and `ttl` is never zero (trap T5).
pub(super) fn expires(members: &mut Members<'_>, ttl: Option<u32>) {
    if let Some(ttl) = ttl {
        members.flag("expires", true);
        members.number("ttl", ttl.max(1));
    }
}

/// A Subscribe push has fewer fields than a SubscribeResult.
fn subscribed(mut members: Members<'_>, result: &SubscribeResult<'_>) {
    members.flag("recoverable", result.recoverable);
    if let Some(position) = result.position {
        members.text("epoch", position.epoch.as_str());
        members.number_some("offset", position.offset.0);
    }
    members.flag("positioned", result.positioned);
    members.raw("data", result.data);
    members.close();
}
