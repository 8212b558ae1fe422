//! What replies, pushes and the server API have in common.

use crate::model::{ClientId, ClientInfo, Offset, Publication};
use crate::protocol::centrifuge::VERSION;
use crate::protocol::push::{ConnectResult, PayloadShape, SubscribeResult};
use crate::wire::json::write::{Members, string};

/// A publication as clients see it. The first one of a stream tells the epoch.
pub(super) fn publication(out: &mut Vec<u8>, publication: &Publication, shape: PayloadShape) {
    let mut members = Members::open(out);
    let patch = publication
        .patch
        .as_ref()
        .filter(|_| shape == PayloadShape::Patch);
    match (shape, patch) {
        (PayloadShape::Plain, _) => members.raw("data", &publication.data),
        // Patches of JSON are text, as JSON is: characters are never cut.
        (PayloadShape::Whole | PayloadShape::Patch, _) => {
            let text = patch.unwrap_or(&publication.data);
            members.text("data", str::from_utf8(text).unwrap_or_default());
        }
    }
    if let Some(info) = &publication.info {
        client_info(members.name("info"), info);
    }
    members.number_some("offset", publication.offset.0);
    tags(&mut members, publication);
    members.flag("delta", patch.is_some());
    if publication.tells_time {
        members.number_some("time", publication.unix_ms);
    }
    if publication.offset == Offset(1) {
        members.text("epoch", publication.epoch.as_str());
    }
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
}

/// A ClientInfo: user and client are printed even when empty, infos that a token gave as bytes and that are no JSON are not:
/// what one client is said to be must not cut others off.
pub(in crate::protocol) fn client_info(out: &mut Vec<u8>, info: &ClientInfo) {
    let mut members = Members::open(out);
    members.text("user", &info.user);
    client_id(&mut members, info.client);
    for (name, info) in [
        ("conn_info", &info.conn_info),
        ("chan_info", &info.chan_info),
    ] {
        members.raw_if_json(name, info);
    }
}

/// Member `client`.
pub(super) fn client_id(members: &mut Members<'_>, client: ClientId) {
    members.plain("client", &client.encode());
}

/// Members `expires` and `ttl`: both or neither, and `ttl` is never zero (trap T5).
pub(super) fn expires(members: &mut Members<'_>, ttl: Option<u32>) {
    if let Some(ttl) = ttl {
        members.flag("expires", true);
        members.number("ttl", ttl.max(1));
    }
}

/// A ConnectResult, or the Connect of a push.
pub(super) fn connect(mut members: Members<'_>, result: &ConnectResult<'_>) {
    client_id(&mut members, result.client);
    members.text("version", VERSION);
    expires(&mut members, result.ttl);
    members.raw_if_json("data", result.data);
    if !result.subs.is_empty() {
        let mut subs = members.object("subs");
        for (channel, sub) in result.subs {
            subscribe(Members::open(subs.key(channel)), sub);
        }
    }
    if let Some(interval) = result.ping {
        members.number("ping", interval);
        members.flag("pong", result.pong);
    }
    members.text_some("session", result.session);
    members.text_some("node", result.node);
    members.number_some("time", result.time.unwrap_or(0));
}

/// A SubscribeResult.
pub(super) fn subscribe(mut members: Members<'_>, result: &SubscribeResult<'_>) {
    expires(&mut members, result.ttl);
    members.flag("recoverable", result.recoverable);
    if let Some(position) = result.position {
        members.text("epoch", position.epoch.as_str());
    }
    if !result.publications.is_empty() {
        let publications = result.publications.iter().enumerate();
        members.array("publications", publications, |out, (at, item)| {
            publication(out, item, result.shape(at));
        });
    }
    members.flag("recovered", result.recovered);
    members.number_some(
        "offset",
        result.position.map_or(0, |position| position.offset.0),
    );
    members.flag("positioned", result.positioned);
    members.raw_if_json("data", result.data);
    members.flag("was_recovering", result.was_recovering);
    members.flag("delta", result.delta);
}
