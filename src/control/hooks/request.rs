//! What a backend is asked: the JSON body (`spec/centrifuge.md` §9.2, §9.3) and the headers.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use http::header::{CONTENT_TYPE, HOST};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::signature;
use crate::mesh::hook::{Call, HookEvent};
use crate::model::{Encoding, Format, Framing, Speaker};
use crate::wire::json::is_json;
use crate::wire::json::write::{Members, string};

/// The body of a call.
pub(super) fn body(call: &Call) -> Vec<u8> {
    let mut out = Vec::new();
    let mut body = Members::open(&mut out);
    let (protocol, encoding) = match call.format.encoding {
        Encoding::Json => ("json", "json"),
        Encoding::Protobuf => ("protobuf", "binary"),
    };
    body.plain("client", &call.client.encode());
    body.text("transport", transport(call.format));
    body.text("protocol", protocol);
    body.text("encoding", encoding);
    // Always there, but in connect, where there is no user yet.
    if !matches!(call.event, HookEvent::Connect { .. }) {
        body.text("user", call.user.name());
    }
    body.text_some("tenant", call.user.tenant().as_str());
    match &call.event {
        HookEvent::Connect {
            data,
            name,
            version,
            channels,
        } => {
            body.text_some("name", name);
            body.text_some("version", version);
            if !channels.is_empty() {
                body.array("channels", channels, |out, channel| string(out, channel));
            }
            payload(&mut body, call, data);
        }
        HookEvent::Refresh => {}
        HookEvent::Subscribe { channel, data, .. } | HookEvent::Publish { channel, data } => {
            body.text("channel", channel.name());
            payload(&mut body, call, data);
        }
        HookEvent::SubRefresh { channel, .. } => body.text("channel", channel.name()),
        HookEvent::Rpc { method, data } => {
            body.text("method", method);
            payload(&mut body, call, data);
        }
    }
    body.raw_if_json("meta", &call.meta);
    body.close();
    out
}

/// What a client sent. Bytes of a Protobuf client need not be JSON; then base64 is the only way to say them.
fn payload(body: &mut Members<'_>, call: &Call, payload: &[u8]) {
    if payload.is_empty() {
        return;
    }
    if !call.target.binary_encoding && is_json(payload) {
        body.raw("data", payload);
    } else {
        body.plain("b64data", BASE64.encode(payload).as_bytes());
    }
}

/// As the reference calls the ways to connect.
const fn transport(format: Format) -> &'static str {
    let (both_ways, one_way) = match format.framing {
        Framing::WebSocket | Framing::Joined | Framing::Deflate => ("websocket", "uni_websocket"),
        Framing::Stream | Framing::PlainStream => ("http_stream", "uni_http_stream"),
        Framing::EventStream | Framing::PlainEventStream => ("sse", "uni_sse"),
    };
    match format.speaker {
        Speaker::Centrifuge => both_ways,
        Speaker::Unidirectional => one_way,
        Speaker::Poll => "poll",
    }
}

/// Headers that say how the message is framed or for whom it is: never a client's to choose.
const OWN: [HeaderName; 5] = [
    CONTENT_TYPE,
    HOST,
    http::header::CONTENT_LENGTH,
    http::header::TRANSFER_ENCODING,
    signature::NAME,
];

/// The headers of a target's own.
pub(in crate::control) fn static_headers(headers: &[(String, crate::config::Secret)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        set(&mut map, name, &value.0);
    }
    map.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    map
}

/// The headers of a call: static ones, over them those that the client emulates, over them those of its transport.
pub(super) fn headers(of_target: &HeaderMap, call: &Call) -> HeaderMap {
    let mut map = of_target.clone();
    for (name, value) in &call.headers {
        set(&mut map, name, value);
    }
    map
}

/// A name or value that is none is left out: a client may have sent it.
fn set(map: &mut HeaderMap, name: &str, value: &str) {
    if let (Ok(name), Ok(value)) = (
        HeaderName::from_bytes(name.as_bytes()),
        HeaderValue::from_str(value),
    ) && !OWN.contains(&name)
    {
        map.insert(name, value);
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::config::Secret;
    use crate::config::hooks::Target;
    use crate::model::{AskId, ChannelName, ClientId, ConnId, TenantId, UserId};
    use bytes::Bytes;
    use std::sync::Arc;

    /// A call with this event.
    pub(in crate::control::hooks) fn call(target: &Arc<Target>, event: HookEvent) -> Call {
        Call {
            ask: AskId::default(),
            target: Arc::clone(target),
            conn: ConnId {
                slot: 0,
                generation: 0,
            },
            id: 1,
            client: ClientId::from_random(1),
            format: Format::default(),
            user: UserId::new(TenantId::NONE, "56"),
            from: 0,
            meta: Bytes::new(),
            headers: Vec::new(),
            event,
        }
    }

    fn json(call: &Call) -> serde_json::Value {
        serde_json::from_slice(&body(call)).expect("JSON")
    }

    #[test]
    fn bodies_are_as_in_the_table() {
        let target = Arc::new(Target::named("t"));
        let client = ClientId::from_random(1).to_string();
        let publish = call(
            &target,
            HookEvent::Publish {
                channel: ChannelName::from_whole("chat:1"),
                data: Bytes::from_static(b"{\"a\":1}"),
            },
        );
        assert_eq!(
            json(&publish),
            serde_json::json!({
                "client": client, "transport": "websocket", "protocol": "json", "encoding": "json",
                "user": "56", "channel": "chat:1", "data": {"a": 1},
            })
        );
        let mut connect = call(
            &target,
            HookEvent::Connect {
                data: Bytes::new(),
                name: "js".into(),
                version: "1".into(),
                channels: vec!["a".into()],
            },
        );
        connect.format.encoding = Encoding::Protobuf;
        connect.format.framing = Framing::Stream;
        assert_eq!(
            json(&connect),
            serde_json::json!({
                "client": client, "transport": "http_stream", "protocol": "protobuf", "encoding": "binary",
                "name": "js", "version": "1", "channels": ["a"],
            })
        );
        let mut refresh = call(&target, HookEvent::Refresh);
        refresh.user = UserId::new(TenantId::new("acme"), "");
        refresh.meta = Bytes::from_static(b"{\"m\":1}");
        assert_eq!(json(&refresh)["user"], "", "the user is always there");
        assert_eq!(json(&refresh)["tenant"], "acme");
        assert_eq!(json(&refresh)["meta"]["m"], 1);
    }

    #[test]
    fn payload_goes_as_base64_when_asked_for_and_when_it_is_no_json() {
        let rpc = |target: &Arc<Target>, data: &'static [u8]| {
            json(&call(
                target,
                HookEvent::Rpc {
                    method: "m".into(),
                    data: Bytes::from_static(data),
                },
            ))
        };
        let plain = Arc::new(Target::named("t"));
        let binary = Arc::new(Target {
            binary_encoding: true,
            ..Target::named("t")
        });
        assert_eq!(rpc(&plain, b"{}")["data"], serde_json::json!({}));
        assert_eq!(rpc(&binary, b"{}")["b64data"], "e30=");
        assert!(rpc(&binary, b"{}").get("data").is_none());
        assert_eq!(rpc(&plain, b"\xff")["b64data"], "/w==");
    }

    #[test]
    fn transport_headers_win_over_emulated_over_static_and_content_type_over_all() {
        let of_target = static_headers(&[
            ("x-a".to_owned(), Secret("static".to_owned())),
            ("x-b".to_owned(), Secret("static".to_owned())),
            ("content-type".to_owned(), Secret("text/html".to_owned())),
        ]);
        let target = Arc::new(Target::named("t"));
        let mut call = call(&target, HookEvent::Refresh);
        call.headers = vec![
            ("x-b".into(), "emulated".into()),
            ("x-c".into(), "emulated".into()),
            ("content-length".into(), "0".into()),
            ("x-d".into(), "line\nbreak".into()),
            ("x-c".into(), "transport".into()),
        ];
        let map = headers(&of_target, &call);
        let text = |name: &str| map.get(name).and_then(|value| value.to_str().ok());
        assert_eq!(text("x-a"), Some("static"));
        assert_eq!(text("x-b"), Some("emulated"));
        assert_eq!(text("x-c"), Some("transport"));
        assert_eq!(text("content-type"), Some("application/json"));
        assert_eq!((text("content-length"), text("x-d")), (None, None));
    }
}
