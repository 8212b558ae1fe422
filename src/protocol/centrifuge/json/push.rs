//! Pushes (`spec/centrifuge.md` §3.3).

use std::sync::Arc;

use super::parts::{client_info, connect, expires, publication};
use crate::model::{ClientInfo, Publication, StreamPosition};
use crate::protocol::push::{PayloadShape, Push, SubscribeResult};
use crate::wire::json::write::Members;

/// Bytes of a publication push besides channel, data, info and tags, at most.
const PUSH_BYTES: usize =
    r#"{"push":{"channel":"","pub":{"data":,"offset":18446744073709551615,"epoch":"12345678"}}}"#
        .len();

/// Appends one push by itself, as unidirectional transports send it. `channel` is left out when empty. The payload of a
/// publication must be JSON (`is_json`); line breaks in it are taken out.
pub fn encode_bare_push(out: &mut Vec<u8>, channel: &str, push: &Push<'_>) {
    if let Push::Publication(publication) | Push::Shaped(publication, _) = push {
        out.reserve(PUSH_BYTES + channel.len() + publication.data.len());
    }
    let mut members = Members::open(out);
    members.text_some("channel", channel);
    match push {
        Push::Publication(publication) => {
            self::publication(members.name("pub"), publication, PayloadShape::Plain);
        }
        Push::Shaped(publication, shape) => {
            self::publication(members.name("pub"), publication, *shape);
        }
        Push::Join(info) => event(members.object("join"), info),
        Push::Leave(info) => event(members.object("leave"), info),
        Push::Unsubscribe(why) => {
            let (code, reason) = why.code_reason();
            let mut unsubscribe = members.object("unsubscribe");
            unsubscribe.number("code", code);
            unsubscribe.text("reason", reason);
        }
        Push::Message(data) => {
            let mut message = members.object("message");
            message.raw("data", data);
        }
        Push::Subscribe(result) => subscribed(members.object("subscribe"), result),
        Push::Refresh(ttl) => {
            let mut refresh = members.object("refresh");
            expires(&mut refresh, *ttl);
        }
        Push::Connect(result) => connect(members.object("connect"), result),
        Push::Disconnect(code, reason) => {
            let mut disconnect = members.object("disconnect");
            disconnect.number("code", *code);
            disconnect.text("reason", reason);
        }
    }
}

/// Appends one push as the reply that bidirectional transports send.
pub fn encode_push(out: &mut Vec<u8>, channel: &str, push: &Push<'_>) {
    encode_pushed(out, |out| encode_bare_push(out, channel, push));
}

/// Appends the reply around a push that `bare` appends.
pub fn encode_pushed(out: &mut Vec<u8>, bare: impl FnOnce(&mut Vec<u8>)) {
    let mut reply = Members::open(out);
    bare(reply.name("push"));
}

/// A Join or Leave.
fn event(mut members: Members<'_>, info: &ClientInfo) {
    client_info(members.name("info"), info);
    members.close();
}

/// Appends the answer to a long poll. The payloads of the publications must be JSON.
pub fn encode_polled(
    out: &mut Vec<u8>,
    position: Option<StreamPosition>,
    publications: &[Arc<Publication>],
    recovered: bool,
) {
    let mut members = Members::open(out);
    let (epoch, offset) = position
        .as_ref()
        .map_or(("", 0), |at| (at.epoch.as_str(), at.offset.0));
    members.text("epoch", epoch);
    members.number("offset", offset);
    members.array("publications", publications, |out, one| {
        publication(out, one, PayloadShape::Plain);
    });
    members.boolean("recovered", recovered);
}

/// Appends an error that is the body of a response.
pub fn encode_error(out: &mut Vec<u8>, code: u32, message: &str) {
    let mut members = Members::open(out);
    let mut error = members.object("error");
    error.number("code", code);
    error.text("message", message);
}

/// A Subscribe push has fewer fields than a SubscribeResult.
fn subscribed(mut members: Members<'_>, result: &SubscribeResult<'_>) {
    members.flag("recoverable", result.recoverable);
    if let Some(position) = result.position {
        members.text("epoch", position.epoch.as_str());
        members.number_some("offset", position.offset.0);
    }
    members.flag("positioned", result.positioned);
    members.raw_if_json("data", result.data);
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::model::{ClientId, Epoch, Offset, StreamPosition};
    use crate::protocol::push::Unsubscribe;

    const CLIENT: ClientId = ClientId::from_random(7);

    fn encoded(channel: &str, push: &Push<'_>) -> String {
        let mut out = Vec::new();
        encode_push(&mut out, channel, push);
        String::from_utf8(out).unwrap()
    }

    fn published(offset: u64, data: &str) -> Publication {
        Publication {
            offset: Offset(offset),
            epoch: Epoch(*b"abcdEFGH"),
            data: Bytes::copy_from_slice(data.as_bytes()),
            json: true,
            info: None,
            tags: Box::default(),
            unix_ms: 5,
            tells_time: false,
            patch: None,
            delta: false,
        }
    }

    fn somebody() -> ClientInfo {
        ClientInfo {
            user: "42".into(),
            client: CLIENT,
            conn_info: Bytes::new(),
            chan_info: Bytes::new(),
        }
    }

    #[test]
    fn publication_is_printed_as_clients_read_it() {
        let push = published(7, r#"{"n":7}"#);
        assert_eq!(
            encoded("chat:1", &Push::Publication(&push)),
            r#"{"push":{"channel":"chat:1","pub":{"data":{"n":7},"offset":7}}}"#
        );
    }

    #[test]
    fn publication_without_history_has_neither_offset_nor_epoch() {
        let push = published(0, "null");
        assert_eq!(
            encoded("a", &Push::Publication(&push)),
            r#"{"push":{"channel":"a","pub":{"data":null}}}"#
        );
    }

    #[test]
    fn first_publication_of_a_stream_tells_the_epoch() {
        let push = published(1, "1");
        assert_eq!(
            encoded("a", &Push::Publication(&push)),
            r#"{"push":{"channel":"a","pub":{"data":1,"offset":1,"epoch":"abcdEFGH"}}}"#
        );
    }

    #[test]
    fn publication_of_a_subscription_with_delta_is_a_string() {
        let push = Publication {
            patch: Some(Bytes::from_static(b"9\n8@0,1:72aB;")),
            ..published(7, r#"{"n":"é\n7"}"#)
        };
        assert_eq!(
            encoded("a", &Push::Shaped(&push, PayloadShape::Whole)),
            r#"{"push":{"channel":"a","pub":{"data":"{\"n\":\"é\\n7\"}","offset":7}}}"#
        );
        assert_eq!(
            encoded("a", &Push::Shaped(&push, PayloadShape::Patch)),
            r#"{"push":{"channel":"a","pub":{"data":"9\n8@0,1:72aB;","offset":7,"delta":true}}}"#
        );
    }

    #[test]
    fn publication_tells_its_time_where_that_is_wanted() {
        let push = Publication {
            tells_time: true,
            ..published(7, "1")
        };
        assert_eq!(
            encoded("a", &Push::Publication(&push)),
            r#"{"push":{"channel":"a","pub":{"data":1,"offset":7,"time":5}}}"#
        );
    }

    #[test]
    fn payload_with_line_breaks_stands_on_one_line() {
        let push = published(0, "{\r\n\"n\":\n7}\n");
        assert_eq!(
            encoded("a", &Push::Publication(&push)),
            r#"{"push":{"channel":"a","pub":{"data":{"n":7}}}}"#
        );
    }

    #[test]
    fn publication_of_a_client_carries_its_info_and_tags() {
        let info = ClientInfo {
            conn_info: Bytes::from_static(b"{\"a\":1}"),
            chan_info: Bytes::from_static(b"[2]"),
            ..somebody()
        };
        let push = Publication {
            info: Some(Arc::new(info)),
            tags: Box::new([("k\"".into(), "v".into()), ("l".into(), "".into())]),
            ..published(3, "\"x\"")
        };
        assert_eq!(
            encoded("a", &Push::Publication(&push)),
            format!(
                r#"{{"push":{{"channel":"a","pub":{{"data":"x","info":{{"user":"42","client":"{CLIENT}","conn_info":{{"a":1}},"chan_info":[2]}},"offset":3,"tags":{{"k\"":"v","l":""}}}}}}}}"#
            )
        );
    }

    #[test]
    fn join_and_leave_always_print_user_and_client() {
        let nobody = ClientInfo {
            user: "".into(),
            ..somebody()
        };
        let info = format!(r#"{{"info":{{"user":"","client":"{CLIENT}"}}}}"#);
        assert_eq!(
            encoded("a", &Push::Join(&nobody)),
            format!(r#"{{"push":{{"channel":"a","join":{info}}}}}"#)
        );
        assert_eq!(
            encoded("a", &Push::Leave(&nobody)),
            format!(r#"{{"push":{{"channel":"a","leave":{info}}}}}"#)
        );
    }

    #[test]
    fn unsubscribe_always_prints_code_and_reason() {
        assert_eq!(
            encoded("a", &Push::Unsubscribe(Unsubscribe::Insufficient)),
            r#"{"push":{"channel":"a","unsubscribe":{"code":2500,"reason":"insufficient state"}}}"#
        );
    }

    #[test]
    fn pushes_about_the_connection_name_no_channel() {
        assert_eq!(
            encoded("", &Push::Message(b"[1]")),
            r#"{"push":{"message":{"data":[1]}}}"#
        );
        assert_eq!(
            encoded("", &Push::Refresh(None)),
            r#"{"push":{"refresh":{}}}"#
        );
        assert_eq!(
            encoded("", &Push::Refresh(Some(9))),
            r#"{"push":{"refresh":{"expires":true,"ttl":9}}}"#
        );
        assert_eq!(
            encoded("", &Push::Refresh(Some(0))),
            r#"{"push":{"refresh":{"expires":true,"ttl":1}}}"#
        );
    }

    #[test]
    fn subscribe_push_prints_position_and_options() {
        let plain = SubscribeResult::default();
        assert_eq!(
            encoded("a", &Push::Subscribe(plain)),
            r#"{"push":{"channel":"a","subscribe":{}}}"#
        );
        let result = SubscribeResult {
            recoverable: true,
            positioned: true,
            position: Some(StreamPosition {
                epoch: Epoch(*b"abcdEFGH"),
                offset: Offset(5),
            }),
            data: b"{}",
            recovered: true,
            was_recovering: true,
            ..Default::default()
        };
        assert_eq!(
            encoded("a", &Push::Subscribe(result)),
            r#"{"push":{"channel":"a","subscribe":{"recoverable":true,"epoch":"abcdEFGH","offset":5,"positioned":true,"data":{}}}}"#
        );
    }

    proptest! {
        #[test]
        fn publications_read_back_as_written(
            channel in ".{1,20}", text: String, offset: u64, tag: String, user: String, spaced: bool,
        ) {
            let value = json!({"text": text, "list": [1, null, true]});
            let data = if spaced { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) };
            let info = ClientInfo { user: user.as_str().into(), ..somebody() };
            let push = Publication {
                info: Some(Arc::new(info)),
                tags: Box::new([(tag.as_str().into(), text.as_str().into())]),
                ..published(offset, &data.unwrap())
            };
            let line = encoded(&channel, &Push::Publication(&push));
            prop_assert!(!line.contains(['\n', '\r']));
            let mut wanted = json!({"data": value, "info": {"user": user, "client": CLIENT.to_string()}, "tags": {tag: text}});
            if offset > 0 {
                wanted["offset"] = offset.into();
            }
            if offset == 1 {
                wanted["epoch"] = "abcdEFGH".into();
            }
            let read: serde_json::Value = serde_json::from_str(&line).unwrap();
            prop_assert_eq!(read, json!({"push": {"channel": channel, "pub": wanted}}));
        }
    }
}
