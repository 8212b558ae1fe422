//! Replies (`spec/centrifuge.md` §3.2).

use super::parts::{client_info, connect, expires, publication, subscribe};
use crate::model::ChosenError;
use crate::protocol::error::ClientError;
use crate::protocol::push::{PayloadShape, Reply, ReplyBody};
use crate::wire::json::write::Members;

/// Appends one reply. Results that carry nothing are printed as `{}` (trap T4).
pub fn encode_reply(out: &mut Vec<u8>, reply: &Reply<'_>) {
    let mut members = Members::open(out);
    members.number_some("id", u64::from(reply.id));
    match &reply.body {
        ReplyBody::Error(error) => self::error(members.object("error"), *error),
        ReplyBody::ChosenError(error) => chosen_error(members.object("error"), error),
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
        }
        ReplyBody::PresenceStats {
            num_clients,
            num_users,
        } => {
            let mut result = members.object("presence_stats");
            result.number("num_clients", *num_clients);
            result.number("num_users", *num_users);
        }
        ReplyBody::History {
            publications,
            position,
        } => {
            let mut result = members.object("history");
            result.array("publications", *publications, |out, item| {
                publication(out, item, PayloadShape::Plain);
            });
            result.text("epoch", position.epoch.as_str());
            result.number("offset", position.offset.0);
        }
        ReplyBody::Refresh(ttl) => refresh(members.object("refresh"), *ttl),
        ReplyBody::SubRefresh(ttl) => refresh(members.object("sub_refresh"), *ttl),
        ReplyBody::Rpc(data) => members.object("rpc").raw("data", data),
    }
}

fn error(mut members: Members<'_>, error: ClientError) {
    members.number("code", error.code());
    members.text("message", error.message());
    members.flag("temporary", error.temporary());
    if let Some(ms) = error.retry_after_ms() {
        members.number("retry_after_ms", ms);
    }
}

fn chosen_error(mut members: Members<'_>, error: &ChosenError) {
    members.number("code", error.code);
    members.text("message", &error.message);
    members.flag("temporary", error.temporary);
}

fn refresh(mut members: Members<'_>, ttl: Option<u32>) {
    expires(&mut members, ttl);
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;

    use super::*;
    use crate::model::{ClientId, ClientInfo, Epoch, Offset, Publication, StreamPosition};
    use crate::protocol::push::{ConnectResult, SubscribeResult};

    const CLIENT: ClientId = ClientId::from_random(7);

    fn encoded(body: ReplyBody<'_>) -> String {
        let mut out = Vec::new();
        encode_reply(&mut out, &Reply { id: 3, body });
        String::from_utf8(out).unwrap()
    }

    fn at(offset: u64) -> StreamPosition {
        StreamPosition {
            epoch: Epoch(*b"abcdEFGH"),
            offset: Offset(offset),
        }
    }

    fn published(offset: u64) -> Arc<Publication> {
        Arc::new(Publication {
            offset: Offset(offset),
            epoch: Epoch(*b"abcdEFGH"),
            data: Bytes::from_static(b"{}"),
            json: true,
            info: None,
            tags: Box::default(),
            unix_ms: 0,
            tells_time: false,
            patch: None,
            delta: false,
        })
    }

    #[test]
    fn errors_always_carry_code_and_message() {
        assert_eq!(
            encoded(ReplyBody::Error(ClientError::MethodNotFound)),
            r#"{"id":3,"error":{"code":104,"message":"method not found"}}"#
        );
        assert_eq!(
            encoded(ReplyBody::Error(ClientError::TooManyRequests)),
            r#"{"id":3,"error":{"code":111,"message":"too many requests","temporary":true}}"#
        );
    }

    #[test]
    fn empty_results_are_printed() {
        assert_eq!(encoded(ReplyBody::Publish), r#"{"id":3,"publish":{}}"#);
        assert_eq!(
            encoded(ReplyBody::Unsubscribe),
            r#"{"id":3,"unsubscribe":{}}"#
        );
        assert_eq!(
            encoded(ReplyBody::Refresh(None)),
            r#"{"id":3,"refresh":{}}"#
        );
        assert_eq!(
            encoded(ReplyBody::SubRefresh(None)),
            r#"{"id":3,"sub_refresh":{}}"#
        );
        assert_eq!(
            encoded(ReplyBody::Subscribe(SubscribeResult::default())),
            r#"{"id":3,"subscribe":{}}"#
        );
        assert_eq!(
            encoded(ReplyBody::Presence(&[])),
            r#"{"id":3,"presence":{"presence":{}}}"#
        );
        assert_eq!(
            encoded(ReplyBody::PresenceStats {
                num_clients: 0,
                num_users: 0
            }),
            r#"{"id":3,"presence_stats":{"num_clients":0,"num_users":0}}"#
        );
        assert_eq!(
            encoded(ReplyBody::History {
                publications: &[],
                position: at(0)
            }),
            r#"{"id":3,"history":{"publications":[],"epoch":"abcdEFGH","offset":0}}"#
        );
    }

    #[test]
    fn expiry_is_never_told_without_a_positive_ttl() {
        assert_eq!(
            encoded(ReplyBody::Refresh(Some(60))),
            r#"{"id":3,"refresh":{"expires":true,"ttl":60}}"#
        );
        assert_eq!(
            encoded(ReplyBody::SubRefresh(Some(0))),
            r#"{"id":3,"sub_refresh":{"expires":true,"ttl":1}}"#
        );
    }

    #[test]
    fn connect_result_tells_client_and_version_and_what_is_set() {
        let version = env!("CARGO_PKG_VERSION");
        let mut result = ConnectResult {
            client: CLIENT,
            ttl: None,
            subs: &[],
            ping: None,
            pong: true,
            time: None,
            data: b"",
            session: "",
            node: "",
        };
        assert_eq!(
            encoded(ReplyBody::Connect(result.clone())),
            format!(
                r#"{{"id":3,"connect":{{"client":"{CLIENT}","version":"ringmain {version}"}}}}"#
            )
        );
        let subs = [(
            "a\"b",
            SubscribeResult {
                positioned: true,
                position: Some(at(4)),
                ..Default::default()
            },
        )];
        result.ttl = Some(60);
        result.ping = Some(25);
        result.time = Some(1_700_000_000_123);
        result.subs = &subs;
        assert_eq!(
            encoded(ReplyBody::Connect(result)),
            format!(
                r#"{{"id":3,"connect":{{"client":"{CLIENT}","version":"ringmain {version}","expires":true,"ttl":60,"subs":{{"a\"b":{{"epoch":"abcdEFGH","offset":4,"positioned":true}}}},"ping":25,"pong":true,"time":1700000000123}}}}"#
            )
        );
    }

    #[test]
    fn recovered_subscription_is_printed_with_position_and_publications() {
        let publications = [published(6), published(7)];
        let result = SubscribeResult {
            ttl: Some(10),
            recoverable: true,
            positioned: true,
            position: Some(at(5)),
            publications: &publications,
            recovered: true,
            was_recovering: true,
            data: b"[\n1]",
            delta: false,
        };
        assert_eq!(
            encoded(ReplyBody::Subscribe(result)),
            r#"{"id":3,"subscribe":{"expires":true,"ttl":10,"recoverable":true,"epoch":"abcdEFGH","publications":[{"data":{},"offset":6},{"data":{},"offset":7}],"recovered":true,"offset":5,"positioned":true,"data":[1],"was_recovering":true}}"#
        );
    }

    #[test]
    fn recovered_publications_of_a_subscription_with_delta_are_a_chain() {
        let patched = |offset| {
            let patch = Some(Bytes::from_static(b"2\n2@0,1;"));
            Arc::new(Publication {
                patch,
                ..(*published(offset)).clone()
            })
        };
        let publications = [patched(6), patched(7), published(8), patched(10)];
        let result = SubscribeResult {
            publications: &publications,
            recovered: true,
            delta: true,
            ..SubscribeResult::default()
        };
        assert_eq!(
            encoded(ReplyBody::Subscribe(result)),
            r#"{"id":3,"subscribe":{"publications":[{"data":"{}","offset":6},{"data":"2\n2@0,1;","offset":7,"delta":true},{"data":"{}","offset":8},{"data":"{}","offset":10}],"recovered":true,"delta":true}}"#
        );
    }

    #[test]
    fn position_before_the_first_publication_prints_the_epoch_only() {
        let result = SubscribeResult {
            recoverable: true,
            position: Some(at(0)),
            ..Default::default()
        };
        assert_eq!(
            encoded(ReplyBody::Subscribe(result)),
            r#"{"id":3,"subscribe":{"recoverable":true,"epoch":"abcdEFGH"}}"#
        );
    }

    #[test]
    fn presence_is_keyed_by_client() {
        let info = ClientInfo {
            user: "u".into(),
            client: CLIENT,
            conn_info: Bytes::from_static(b"{}"),
            chan_info: Bytes::new(),
        };
        assert_eq!(
            encoded(ReplyBody::Presence(&[Arc::new(info)])),
            format!(
                r#"{{"id":3,"presence":{{"presence":{{"{CLIENT}":{{"user":"u","client":"{CLIENT}","conn_info":{{}}}}}}}}}}"#
            )
        );
    }

    #[test]
    fn history_prints_publications_and_top() {
        assert_eq!(
            encoded(ReplyBody::History {
                publications: &[published(1)],
                position: at(9)
            }),
            r#"{"id":3,"history":{"publications":[{"data":{},"offset":1,"epoch":"abcdEFGH"}],"epoch":"abcdEFGH","offset":9}}"#
        );
    }
}
