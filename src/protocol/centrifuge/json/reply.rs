//! Replies (`spec/centrifuge.md` §3.2).

use super::push::{client_id, client_info, expires, publication};
use super::write::Members;
use crate::protocol::error::ClientError;
use crate::protocol::push::{ConnectResult, Reply, ReplyBody, SubscribeResult};

/// `version` of a connect result.
const VERSION: &str = concat!("ringmain ", env!("CARGO_PKG_VERSION"));

/// Appends one reply. Results that carry nothing are printed as `{}` (trap T4).
pub fn encode_reply(out: &mut Vec<u8>, reply: &Reply<'_>) {
    let mut members = Members::open(out);
    members.number_some("id", u64::from(reply.id));
    match &reply.body {
        ReplyBody::Error(error) => self::error(members.object("error"), *error),
        ReplyBody::Connect(result) => connect(members.object("connect"), result),
        ReplyBody::Subscribe(result) => subscribe(members.object("subscribe"), result),
        ReplyBody::Unsubscribe => members.object("unsubscribe").close(),
        ReplyBody::Publish => members.object("publish").close(),
        ReplyBody::Presence(infos) => {
            let mut result = members.object("presence");
            let mut clients = result.object("presence");
            for info in *infos {
                client_info(
                    clients.name(str::from_utf8(&info.client.encode()).unwrap_or("")),
                    info,
                );
            }
            clients.close();
            result.close();
        }
        ReplyBody::PresenceStats {
            num_clients,
            num_users,
        } => {
            let mut result = members.object("presence_stats");
            result.number("num_clients", *num_clients);
            result.number("num_users", *num_users);
            result.close();
        }
        ReplyBody::History {
            publications,
            position,
        } => {
            let mut result = members.object("history");
            result.array("publications", *publications, |out, item| {
                publication(out, item)
            });
            result.text("epoch", position.epoch.as_str());
            result.number("offset", position.offset.0);
            result.close();
        }
        ReplyBody::Refresh(ttl) => refresh(members.object("refresh"), *ttl),
        ReplyBody::SubRefresh(ttl) => refresh(members.object("sub_refresh"), *ttl),
    }
    members.close();
}

fn error(mut members: Members<'_>, error: ClientError) {
    members.number("code", error.code());
    members.text("message", error.message());
    members.flag("temporary", error.temporary());
    members.close();
}

fn refresh(mut members: Members<'_>, ttl: Option<u32>) {
    expires(&mut members, ttl);
    members.close();
}

fn connect(mut members: Members<'_>, result: &ConnectResult<'_>) {
    client_id(&mut members, result.client);
    members.text("version", VERSION);
    expires(&mut members, result.ttl);
    if !result.subs.is_empty() {
        let mut subs = members.object("subs");
        for (channel, sub) in result.subs {
            subscribe(Members::open(subs.key(channel)), sub);
        }
        subs.close();
    }
    if let Some(interval) = result.ping {
        members.number("ping", interval);
        members.flag("pong", true);
    }
    members.number_some("time", result.time.unwrap_or(0));
    members.close();
}

fn subscribe(mut members: Members<'_>, result: &SubscribeResult<'_>) {
    expires(&mut members, result.ttl);
    members.flag("recoverable", result.recoverable);
    if let Some(position) = result.position {
        members.text("epoch", position.epoch.as_str());
    }
    if !result.publications.is_empty() {
        members.array("publications", result.publications, |out, item| {
            publication(out, item)
        });
    }
    members.flag("recovered", result.recovered);
    members.number_some(
        "offset",
        result.position.map_or(0, |position| position.offset.0),
    );
    members.flag("positioned", result.positioned);
    members.raw("data", result.data);
    members.flag("was_recovering", result.was_recovering);
    members.close();
}
