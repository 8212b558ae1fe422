//! What a backend says, read into a verdict (`spec/centrifuge.md` §9.2, §9.3).

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::auth::overrides::RawOverride;
use crate::config::hooks::Transform;
use crate::limits::{HOOK_KEPT_BYTES_MAX, USER_ID_BYTES_MAX};
use crate::mesh::hook::{Connected, Event, Published, Refreshed, Subscribed, Verdict};
use crate::model::ChosenError;
use crate::protocol::centrifuge::json::{compact, is_json};

/// The body is not what was agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed;

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    result: Option<&'a RawValue>,
    error: Option<RawError>,
    disconnect: Option<RawDisconnect>,
}

#[derive(Deserialize)]
struct RawError {
    #[serde(default)]
    code: u32,
    #[serde(default)]
    message: String,
    #[serde(default)]
    temporary: bool,
}

#[derive(Deserialize)]
struct RawDisconnect {
    #[serde(default)]
    code: u32,
    #[serde(default)]
    reason: String,
}

/// A payload, as JSON or as base64.
#[derive(Default, Deserialize)]
struct RawConnected<'a> {
    #[serde(default)]
    user: String,
    #[serde(default)]
    expire_at: i64,
    #[serde(borrow)]
    info: Option<&'a RawValue>,
    b64info: Option<String>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    b64data: Option<String>,
    #[serde(default)]
    channels: Option<Vec<String>>,
    #[serde(borrow, default)]
    subs: Option<BTreeMap<String, RawSubscribed<'a>>>,
    #[serde(borrow)]
    meta: Option<&'a RawValue>,
}

#[derive(Default, Deserialize)]
struct RawSubscribed<'a> {
    #[serde(default)]
    expire_at: i64,
    #[serde(borrow)]
    info: Option<&'a RawValue>,
    b64info: Option<String>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    b64data: Option<String>,
    #[serde(rename = "override")]
    override_: Option<RawOverride>,
    #[serde(default)]
    cache_recover: bool,
}

#[derive(Default, Deserialize)]
struct RawRefreshed<'a> {
    #[serde(default)]
    expired: bool,
    #[serde(default)]
    expire_at: i64,
    #[serde(borrow)]
    info: Option<&'a RawValue>,
    b64info: Option<String>,
    #[serde(borrow)]
    meta: Option<&'a RawValue>,
}

#[derive(Default, Deserialize)]
struct RawPublished<'a> {
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    b64data: Option<String>,
    #[serde(default)]
    skip_history: bool,
    #[serde(default)]
    tags: Option<BTreeMap<String, String>>,
    #[serde(default)]
    idempotency_key: String,
    #[serde(default)]
    delta: bool,
    #[serde(default)]
    version: u64,
    #[serde(default)]
    version_epoch: String,
}

#[derive(Default, Deserialize)]
struct RawCalled<'a> {
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    b64data: Option<String>,
}

/// Reads the body of a response with status 200.
pub(super) fn read(event: &Event, body: &[u8]) -> Result<Verdict, Malformed> {
    let envelope: Envelope<'_> = serde_json::from_slice(body).map_err(|_| Malformed)?;
    // What expires is not asked whether it may: only a result counts.
    let is_refresh = matches!(event, Event::Refresh | Event::SubRefresh { .. });
    if let Some(disconnect) = envelope.disconnect.filter(|_| !is_refresh) {
        return Ok(Verdict::Disconnect(
            disconnect.code,
            disconnect.reason.into(),
        ));
    }
    if let Some(error) = envelope.error.filter(|_| !is_refresh) {
        return Ok(Verdict::Error(ChosenError {
            code: error.code,
            message: error.message.into(),
            temporary: error.temporary,
        }));
    }
    let result = envelope.result;
    Ok(match event {
        Event::Connect { .. } => {
            let connected = result.map(|raw| connected(parse(raw)?)).transpose()?;
            Verdict::Connect(connected.map(Box::new))
        }
        Event::Refresh | Event::SubRefresh { .. } => {
            Verdict::Refresh(result.map(|raw| refreshed(parse(raw)?)).transpose()?)
        }
        Event::Subscribe { .. } => Verdict::Subscribe(subscribed(optional(result)?)?),
        Event::Publish { .. } => Verdict::Publish(Box::new(published(optional(result)?)?)),
        Event::Rpc { .. } => {
            let called: RawCalled<'_> = optional(result)?;
            Verdict::Rpc(payload(called.data, called.b64data)?)
        }
    })
}

/// What a status other than 200 means, if it was given a meaning.
pub(super) fn transformed(transforms: &[Transform], event: &Event, status: u16) -> Option<Verdict> {
    let transform = transforms
        .iter()
        .find(|transform| transform.status_code == status)?;
    if matches!(event, Event::Refresh | Event::SubRefresh { .. }) {
        // As though the backend had answered so: no result.
        return Some(Verdict::Refresh(None));
    }
    Some(if transform.error_code > 0 {
        Verdict::Error(ChosenError {
            code: transform.error_code,
            message: transform.error_message.as_str().into(),
            temporary: transform.error_temporary,
        })
    } else {
        Verdict::Disconnect(
            u32::from(transform.disconnect_code),
            transform.disconnect_reason.as_str().into(),
        )
    })
}

fn parse<'a, T: Deserialize<'a>>(raw: &'a RawValue) -> Result<T, Malformed> {
    serde_json::from_str(raw.get()).map_err(|_| Malformed)
}

fn optional<'a, T: Deserialize<'a> + Default>(raw: Option<&'a RawValue>) -> Result<T, Malformed> {
    raw.map_or_else(|| Ok(T::default()), parse)
}

fn connected(raw: RawConnected<'_>) -> Result<Connected, Malformed> {
    if raw.user.len() > USER_ID_BYTES_MAX {
        return Err(Malformed);
    }
    let mut subs = Vec::new();
    let mut with_options = raw.subs.unwrap_or_default();
    for channel in raw.channels.unwrap_or_default() {
        // Options win over the bare name.
        with_options.entry(channel).or_default();
    }
    for (channel, options) in with_options {
        subs.push((channel.into(), subscribed(options)?));
    }
    Ok(Connected {
        user: raw.user.into(),
        expire_at: seconds(raw.expire_at)?,
        info: kept(raw.info, raw.b64info)?,
        data: payload(raw.data, raw.b64data)?,
        subs,
        meta: kept(raw.meta, None)?,
    })
}

fn subscribed(raw: RawSubscribed<'_>) -> Result<Subscribed, Malformed> {
    Ok(Subscribed {
        expire_at: seconds(raw.expire_at)?,
        info: kept(raw.info, raw.b64info)?,
        data: payload(raw.data, raw.b64data)?,
        overrides: raw.override_.unwrap_or_default().lower(),
        cache_recover: raw.cache_recover,
    })
}

fn refreshed(raw: RawRefreshed<'_>) -> Result<Refreshed, Malformed> {
    Ok(Refreshed {
        expired: raw.expired,
        expire_at: seconds(raw.expire_at)?,
        info: kept(raw.info, raw.b64info)?,
        meta: kept(raw.meta, None)?,
    })
}

fn published(raw: RawPublished<'_>) -> Result<Published, Malformed> {
    // The raw form wins here, and only here.
    let data = match (raw.data, raw.b64data.filter(|text| !text.is_empty())) {
        (Some(_), _) => Some(payload(raw.data, None)?),
        (None, Some(base64)) => Some(payload(None, Some(base64))?),
        (None, None) => None,
    };
    let tags = raw.tags.unwrap_or_default().into_iter();
    Ok(Published {
        data,
        skip_history: raw.skip_history,
        tags: tags
            .map(|(key, value)| (key.into(), value.into()))
            .collect(),
        idempotency_key: raw.idempotency_key.into(),
        delta: raw.delta,
        version: raw.version,
        version_epoch: raw.version_epoch.into(),
    })
}

/// Unix seconds; what is negative is none.
fn seconds(at: i64) -> Result<u64, Malformed> {
    u64::try_from(at).map_err(|_| Malformed)
}

/// A payload; base64 wins.
fn payload(json: Option<&RawValue>, base64: Option<String>) -> Result<Bytes, Malformed> {
    match base64.filter(|text| !text.is_empty()) {
        Some(text) => BASE64.decode(text).map(Bytes::from).map_err(|_| Malformed),
        None => Ok(json.map_or_else(Bytes::new, |json| {
            Bytes::copy_from_slice(&compact(json.get().as_bytes()))
        })),
    }
}

/// A payload that stays with the connection, or goes to every encoding: JSON of a bounded size.
fn kept(json: Option<&RawValue>, base64: Option<String>) -> Result<Bytes, Malformed> {
    let is_base64 = base64.as_ref().is_some_and(|text| !text.is_empty());
    let bytes = payload(json, base64)?;
    if bytes.len() > HOOK_KEPT_BYTES_MAX || is_base64 && !is_json(&bytes) {
        return Err(Malformed);
    }
    Ok(if is_base64 {
        Bytes::copy_from_slice(&compact(&bytes))
    } else {
        bytes
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ChannelName;

    fn event(name: &str) -> Event {
        let channel = ChannelName::new("chat:1");
        let (hub, data) = ((0, 0), Bytes::new());
        match name {
            "connect" => Event::Connect {
                data,
                name: "".into(),
                version: "".into(),
                channels: Vec::new(),
            },
            "refresh" => Event::Refresh,
            "subscribe" => Event::Subscribe { channel, data },
            "publish" => Event::Publish { channel, data },
            "sub_refresh" => Event::SubRefresh { hub, channel },
            _ => Event::Rpc {
                method: "m".into(),
                data,
            },
        }
    }

    fn verdict(name: &str, body: &str) -> Result<Verdict, Malformed> {
        read(&event(name), body.as_bytes())
    }

    const ALL: [&str; 6] = [
        "connect",
        "refresh",
        "subscribe",
        "publish",
        "sub_refresh",
        "rpc",
    ];

    #[test]
    fn disconnect_wins_over_error_over_result() {
        let all = r#"{"result":{},"error":{"code":1000,"message":"no","temporary":true},"disconnect":{"code":4500,"reason":"bye"}}"#;
        let error = r#"{"result":{},"error":{"code":1000,"message":"no","temporary":true}}"#;
        for name in ["connect", "subscribe", "publish", "rpc"] {
            assert_eq!(
                verdict(name, all),
                Ok(Verdict::Disconnect(4500, "bye".into()))
            );
            let chosen = ChosenError {
                code: 1000,
                message: "no".into(),
                temporary: true,
            };
            assert_eq!(verdict(name, error), Ok(Verdict::Error(chosen)));
        }
        for name in ["refresh", "sub_refresh"] {
            assert!(matches!(verdict(name, all), Ok(Verdict::Refresh(Some(_)))));
        }
    }

    #[test]
    fn an_empty_answer_allows_what_is_asked_and_knows_nobody() {
        for body in ["{}", r#"{"result":null}"#] {
            assert_eq!(verdict("connect", body), Ok(Verdict::Connect(None)));
            assert_eq!(verdict("refresh", body), Ok(Verdict::Refresh(None)));
            assert_eq!(verdict("sub_refresh", body), Ok(Verdict::Refresh(None)));
            assert_eq!(
                verdict("subscribe", body),
                Ok(Verdict::Subscribe(Subscribed::default()))
            );
            assert_eq!(
                verdict("publish", body),
                Ok(Verdict::Publish(Box::default()))
            );
            assert_eq!(verdict("rpc", body), Ok(Verdict::Rpc(Bytes::new())));
        }
    }

    #[test]
    fn garbage_is_refused() {
        for name in ALL {
            for body in [
                "",
                "null",
                "[]",
                "{",
                "<html>",
                "\u{0}\u{1}",
                r#"{"result":[]}"#,
                r#"{"result":"x"}"#,
                r#"{"result":{}} x"#,
            ] {
                assert_eq!(verdict(name, body), Err(Malformed), "{name} {body}");
            }
        }
        for body in [
            r#"{"result":{"user":5}}"#,
            r#"{"result":{"expire_at":-1}}"#,
            r#"{"result":{"b64info":"%"}}"#,
            r#"{"result":{"b64info":"/w=="}}"#,
            r#"{"result":{"subs":{"a":5}}}"#,
        ] {
            assert_eq!(verdict("connect", body), Err(Malformed), "{body}");
        }
        let long = format!(r#"{{"result":{{"user":"{}"}}}}"#, "u".repeat(2000));
        assert_eq!(verdict("connect", &long), Err(Malformed));
        let long = format!(r#"{{"result":{{"info":"{}"}}}}"#, "u".repeat(70_000));
        assert_eq!(verdict("connect", &long), Err(Malformed));
    }

    #[test]
    fn every_member_of_a_connect_result_is_read() {
        let body = r#"{"result":{"user":"42","expire_at":77,"info":{"i":
1},"b64data":"aGk=","channels":["a","b"],"subs":{"b":{"info":5,"data":6,"expire_at":9,"override":{"presence":{"value":true}},"cache_recover":true}},"meta":{"m":1},"caps":[]}}"#;
        let Ok(Verdict::Connect(Some(connected))) = verdict("connect", body) else {
            panic!("no result");
        };
        assert_eq!((&*connected.user, connected.expire_at), ("42", 77));
        assert_eq!(&connected.info[..], br#"{"i":1}"#);
        assert_eq!(&connected.data[..], b"hi");
        assert_eq!(&connected.meta[..], br#"{"m":1}"#);
        assert_eq!(&*connected.subs[0].0, "a");
        let (name, options) = &connected.subs[1];
        assert_eq!((&**name, options.expire_at), ("b", 9));
        assert_eq!(
            (&options.info[..], &options.data[..]),
            (&b"5"[..], &b"6"[..])
        );
        assert_eq!(options.overrides.presence, Some(true));
        assert!(options.cache_recover);
    }

    #[test]
    fn replacement_of_a_publication_is_raw_before_base64() {
        let data = |body: &str| match verdict("publish", body) {
            Ok(Verdict::Publish(published)) => published.data,
            other => panic!("{other:?}"),
        };
        assert_eq!(data(r#"{"result":{}}"#), None);
        assert_eq!(
            data(r#"{"result":{"data":{"a":1},"b64data":"aGk="}}"#).as_deref(),
            Some(&br#"{"a":1}"#[..])
        );
        assert_eq!(
            data(r#"{"result":{"b64data":"aGk="}}"#).as_deref(),
            Some(&b"hi"[..])
        );
    }

    #[test]
    fn a_status_means_what_the_first_transform_says() {
        let transforms = [
            Transform {
                status_code: 404,
                error_code: 404,
                error_message: "not found".to_owned(),
                ..Transform::default()
            },
            Transform {
                status_code: 404,
                error_code: 405,
                ..Transform::default()
            },
            Transform {
                status_code: 403,
                disconnect_code: 4500,
                disconnect_reason: "no".to_owned(),
                ..Transform::default()
            },
        ];
        let of = |name, status| transformed(&transforms, &event(name), status);
        assert!(matches!(of("rpc", 404), Some(Verdict::Error(error)) if error.code == 404));
        assert_eq!(of("rpc", 403), Some(Verdict::Disconnect(4500, "no".into())));
        assert_eq!(of("rpc", 500), None);
        assert_eq!(of("refresh", 404), Some(Verdict::Refresh(None)));
    }

    proptest::proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(body: Vec<u8>, at in 0usize..6) {
            let _ = read(&event(ALL[at]), &body);
        }
    }
}
