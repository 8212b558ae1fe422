//! What a backend says, read into a verdict (`spec/centrifuge.md` §9.2, §9.3).

use std::borrow::Cow;
use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use serde_json::value::RawValue;

use crate::auth::overrides::RawOverride;
use crate::config::hooks::Transform;
use crate::limits::{HOOK_KEPT_BYTES_MAX, USER_ID_BYTES_MAX};
use crate::mesh::hook::{
    ConnectVerdict, HookEvent, PublishVerdict, RefreshVerdict, SubscribeVerdict, Verdict,
};
use crate::model::ChosenError;
use crate::wire::json::{Malformed, Object, compact, fields, is_json, is_json_deeper, object};

#[derive(Default)]
struct Envelope<'a> {
    result: Option<&'a RawValue>,
    error: Option<RawError<'a>>,
    disconnect: Option<RawDisconnect<'a>>,
}
fields!(Envelope<'de> { "result" => result, "error" => error, "disconnect" => disconnect });

#[derive(Default)]
struct RawError<'a> {
    code: u32,
    message: Cow<'a, str>,
    temporary: bool,
}
fields!(RawError<'de> { "code" => code, "message" => message, "temporary" => temporary });

#[derive(Default)]
struct RawDisconnect<'a> {
    code: u32,
    reason: Cow<'a, str>,
}
fields!(RawDisconnect<'de> { "code" => code, "reason" => reason });

#[derive(Default)]
struct RawConnected<'a> {
    user: Cow<'a, str>,
    expire_at: i64,
    info: Option<&'a RawValue>,
    b64info: Cow<'a, str>,
    data: Option<&'a RawValue>,
    b64data: Cow<'a, str>,
    channels: Vec<Option<Cow<'a, str>>>,
    subs: Vec<(Cow<'a, str>, Option<RawSubscribed<'a>>)>,
    meta: Option<&'a RawValue>,
}
fields!(RawConnected<'de> {
    "user" => user,
    "expire_at" => expire_at,
    "info" => info,
    "b64info" => b64info,
    "data" => data,
    "b64data" => b64data,
    "channels" => channels,
    "subs" => subs,
    "meta" => meta,
});

#[derive(Default)]
struct RawSubscribed<'a> {
    expire_at: i64,
    info: Option<&'a RawValue>,
    b64info: Cow<'a, str>,
    data: Option<&'a RawValue>,
    b64data: Cow<'a, str>,
    override_: Option<RawOverride>,
    cache_recover: bool,
}
fields!(RawSubscribed<'de> {
    "expire_at" => expire_at,
    "info" => info,
    "b64info" => b64info,
    "data" => data,
    "b64data" => b64data,
    "override" => override_,
    "cache_recover" => cache_recover,
});

#[derive(Default)]
struct RawRefreshed<'a> {
    expired: bool,
    expire_at: i64,
    info: Option<&'a RawValue>,
    b64info: Cow<'a, str>,
    meta: Option<&'a RawValue>,
}
fields!(RawRefreshed<'de> {
    "expired" => expired, "expire_at" => expire_at, "info" => info, "b64info" => b64info, "meta" => meta
});

#[derive(Default)]
struct RawPublished<'a> {
    data: Option<&'a RawValue>,
    b64data: Cow<'a, str>,
    skip_history: bool,
    tags: Vec<(Cow<'a, str>, Cow<'a, str>)>,
    idempotency_key: Cow<'a, str>,
    delta: bool,
    ttl_ms: u64,
    version: u64,
    version_epoch: Cow<'a, str>,
}
fields!(RawPublished<'de> {
    "data" => data,
    "b64data" => b64data,
    "skip_history" => skip_history,
    "tags" => tags,
    "idempotency_key" => idempotency_key,
    "delta" => delta,
    "ttl_ms" => ttl_ms,
    "version" => version,
    "version_epoch" => version_epoch,
});

#[derive(Default)]
struct RawCalled<'a> {
    data: Option<&'a RawValue>,
    b64data: Cow<'a, str>,
}
fields!(RawCalled<'de> { "data" => data, "b64data" => b64data });

/// Reads the body of a response with status 200. Members that are `null` are absent, unknown ones are ignored; what goes to clients
/// is nested at most `levels` deep.
pub(super) fn read(event: &HookEvent, body: &[u8], levels: usize) -> Result<Verdict, Malformed> {
    if !body.trim_ascii_start().starts_with(b"{") {
        return Err(Malformed::member("the answer", "expected an object"));
    }
    let envelope: Envelope<'_> = object(body)?;
    // What expires is not asked whether it may: only a result counts.
    let is_refresh = matches!(event, HookEvent::Refresh | HookEvent::SubRefresh { .. });
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
    let verdict = verdict(event, envelope.result);
    let verdict = verdict.map_err(|malformed| malformed.within("result"))?;
    match too_deep(&verdict, levels) {
        Some(member) => {
            let what = format!("expected JSON of at most {levels} levels");
            Err(Malformed::member(member, &what))
        }
        None => Ok(verdict),
    }
}

/// The member that some client could not read.
fn too_deep(verdict: &Verdict, levels: usize) -> Option<&'static str> {
    let deep = |payload: &Bytes| is_json_deeper(payload, levels);
    let of_sub = |sub: &SubscribeVerdict| deep(&sub.info) || deep(&sub.data);
    match verdict {
        Verdict::Connect(Some(connected)) if deep(&connected.info) => Some("result.info"),
        Verdict::Connect(Some(connected)) if deep(&connected.data) => Some("result.data"),
        Verdict::Connect(Some(connected)) => {
            let mut subs = connected.subs.iter();
            subs.any(|(_, sub)| of_sub(sub)).then_some("result.subs")
        }
        Verdict::Subscribe(sub) if deep(&sub.info) => Some("result.info"),
        Verdict::Subscribe(sub) if deep(&sub.data) => Some("result.data"),
        Verdict::Refresh(Some(refreshed)) => deep(&refreshed.info).then_some("result.info"),
        Verdict::Publish(published) => {
            let data = published.data.as_ref();
            data.is_some_and(deep).then_some("result.data")
        }
        Verdict::Rpc(data) => deep(data).then_some("result.data"),
        _ => None,
    }
}

/// What a result says of an event.
fn verdict(event: &HookEvent, result: Option<&RawValue>) -> Result<Verdict, Malformed> {
    Ok(match event {
        HookEvent::Connect { .. } => {
            let connected = result.map(|raw| connected(parse(raw)?)).transpose()?;
            Verdict::Connect(connected.map(Box::new))
        }
        HookEvent::Refresh | HookEvent::SubRefresh { .. } => {
            Verdict::Refresh(result.map(|raw| refreshed(parse(raw)?)).transpose()?)
        }
        HookEvent::Subscribe { .. } => Verdict::Subscribe(subscribed(optional(result)?)?),
        HookEvent::Publish { .. } => Verdict::Publish(Box::new(published(optional(result)?)?)),
        HookEvent::Rpc { .. } => {
            let called: RawCalled<'_> = optional(result)?;
            Verdict::Rpc(payload("data", called.data, &called.b64data)?)
        }
    })
}

/// What a status other than 200 means, if it was given a meaning.
pub(super) fn transformed(
    transforms: &[Transform],
    event: &HookEvent,
    status: u16,
) -> Option<Verdict> {
    let transform = transforms
        .iter()
        .find(|transform| transform.status_code == status)?;
    if matches!(event, HookEvent::Refresh | HookEvent::SubRefresh { .. }) {
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

fn parse<'a, T: Object<'a>>(raw: &'a RawValue) -> Result<T, Malformed> {
    object(raw.get().as_bytes())
}

fn optional<'a, T: Object<'a>>(raw: Option<&'a RawValue>) -> Result<T, Malformed> {
    raw.map_or_else(|| Ok(T::default()), parse)
}

fn connected(raw: RawConnected<'_>) -> Result<ConnectVerdict, Malformed> {
    if raw.user.len() > USER_ID_BYTES_MAX {
        let what = format!("expected at most {USER_ID_BYTES_MAX} bytes");
        return Err(Malformed::member("user", &what));
    }
    let mut subs = BTreeMap::new();
    for (channel, options) in raw.subs {
        let options = subscribed(options.unwrap_or_default());
        let options = options.map_err(|malformed| malformed.of("subs", &channel))?;
        subs.insert(channel, options);
    }
    for channel in raw.channels.into_iter().flatten() {
        // Options win over the bare name.
        subs.entry(channel).or_default();
    }
    Ok(ConnectVerdict {
        user: raw.user.into(),
        expire_at: seconds(raw.expire_at)?,
        info: kept("info", raw.info, &raw.b64info)?,
        data: payload("data", raw.data, &raw.b64data)?,
        subs: subs
            .into_iter()
            .map(|(channel, options)| (channel.into(), options))
            .collect(),
        meta: kept("meta", raw.meta, "")?,
    })
}

fn subscribed(raw: RawSubscribed<'_>) -> Result<SubscribeVerdict, Malformed> {
    Ok(SubscribeVerdict {
        expire_at: seconds(raw.expire_at)?,
        info: kept("info", raw.info, &raw.b64info)?,
        data: payload("data", raw.data, &raw.b64data)?,
        overrides: raw.override_.unwrap_or_default().lower(),
        cache_recover: raw.cache_recover,
    })
}

fn refreshed(raw: RawRefreshed<'_>) -> Result<RefreshVerdict, Malformed> {
    Ok(RefreshVerdict {
        expired: raw.expired,
        expire_at: seconds(raw.expire_at)?,
        info: kept("info", raw.info, &raw.b64info)?,
        meta: kept("meta", raw.meta, "")?,
    })
}

fn published(raw: RawPublished<'_>) -> Result<PublishVerdict, Malformed> {
    // The raw form wins here, and only here.
    let data = match raw.data {
        None if raw.b64data.is_empty() => None,
        None => Some(payload("data", None, &raw.b64data)?),
        Some(data) => Some(payload("data", Some(data), "")?),
    };
    // Of a name that stands twice the last counts.
    let tags: BTreeMap<_, _> = raw.tags.into_iter().collect();
    Ok(PublishVerdict {
        data,
        skip_history: raw.skip_history,
        tags: tags
            .into_iter()
            .map(|(key, value)| (key.into(), value.into()))
            .collect(),
        idempotency_key: raw.idempotency_key.into(),
        delta: raw.delta,
        ttl_ms: raw.ttl_ms,
        version: raw.version,
        version_epoch: raw.version_epoch.into(),
    })
}

/// Unix seconds.
fn seconds(at: i64) -> Result<u64, Malformed> {
    let wrong = |_| Malformed::member("expire_at", "expected a number from 0");
    u64::try_from(at).map_err(wrong)
}

/// A payload; base64 wins. `member` is its name without `b64`.
fn payload(member: &str, json: Option<&RawValue>, base64: &str) -> Result<Bytes, Malformed> {
    if base64.is_empty() {
        return Ok(json.map_or_else(Bytes::new, |json| {
            Bytes::copy_from_slice(&compact(json.get().as_bytes()))
        }));
    }
    let wrong = |_| Malformed::member(&format!("b64{member}"), "expected standard base64");
    BASE64.decode(base64).map(Bytes::from).map_err(wrong)
}

/// A payload that stays with the connection, or goes to every encoding: JSON of a bounded size.
fn kept(member: &str, json: Option<&RawValue>, base64: &str) -> Result<Bytes, Malformed> {
    let bytes = payload(member, json, base64)?;
    if bytes.len() > HOOK_KEPT_BYTES_MAX {
        let what = format!("expected at most {HOOK_KEPT_BYTES_MAX} bytes");
        return Err(Malformed::member(member, &what));
    }
    if base64.is_empty() {
        return Ok(bytes);
    }
    if !is_json(&bytes) {
        let member = format!("b64{member}");
        return Err(Malformed::member(&member, "expected JSON in base64"));
    }
    Ok(Bytes::copy_from_slice(&compact(&bytes)))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::model::{ChannelName, HubId};
    use crate::wire::json::null;

    fn event(name: &str) -> HookEvent {
        let channel = ChannelName::from_whole("chat:1");
        let hub = HubId {
            slot: 0,
            generation: 0,
        };
        let data = Bytes::new();
        match name {
            "connect" => HookEvent::Connect {
                data,
                name: "".into(),
                version: "".into(),
                channels: Vec::new(),
            },
            "refresh" => HookEvent::Refresh,
            "subscribe" => HookEvent::Subscribe { channel, data },
            "publish" => HookEvent::Publish { channel, data },
            "sub_refresh" => HookEvent::SubRefresh { hub, channel },
            _ => HookEvent::Rpc {
                method: "m".into(),
                data,
            },
        }
    }

    fn answered(name: &str, body: &str) -> Result<Verdict, Malformed> {
        read(&event(name), body.as_bytes(), 64)
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
                answered(name, all),
                Ok(Verdict::Disconnect(4500, "bye".into()))
            );
            let chosen = ChosenError {
                code: 1000,
                message: "no".into(),
                temporary: true,
            };
            assert_eq!(answered(name, error), Ok(Verdict::Error(chosen)));
        }
        for name in ["refresh", "sub_refresh"] {
            assert!(matches!(answered(name, all), Ok(Verdict::Refresh(Some(_)))));
        }
    }

    #[test]
    fn an_empty_answer_allows_what_is_asked_and_knows_nobody() {
        for body in ["{}", r#"{"result":null}"#] {
            assert_eq!(answered("connect", body), Ok(Verdict::Connect(None)));
            assert_eq!(answered("refresh", body), Ok(Verdict::Refresh(None)));
            assert_eq!(answered("sub_refresh", body), Ok(Verdict::Refresh(None)));
            assert_eq!(
                answered("subscribe", body),
                Ok(Verdict::Subscribe(SubscribeVerdict::default()))
            );
            assert_eq!(
                answered("publish", body),
                Ok(Verdict::Publish(Box::default()))
            );
            assert_eq!(answered("rpc", body), Ok(Verdict::Rpc(Bytes::new())));
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
                assert!(answered(name, body).is_err(), "{name} {body}");
            }
        }
        let long = format!(r#"{{"result":{{"user":"{}"}}}}"#, "u".repeat(2000));
        assert!(answered("connect", &long).is_err());
        let long = format!(r#"{{"result":{{"info":"{}"}}}}"#, "u".repeat(70_000));
        assert!(answered("connect", &long).is_err());
    }

    #[test]
    fn refused_answer_says_which_member_and_no_value() {
        for (name, body, wanted) in [
            ("connect", "SECRET", "the answer: expected an object"),
            (
                "connect",
                "{",
                "not JSON: EOF while parsing an object at line 1 column 1",
            ),
            (
                "connect",
                r#"{"result":"SECRET"}"#,
                "result: expected an object",
            ),
            (
                "rpc",
                r#"{"error":{"code":"SECRET"}}"#,
                "error.code: expected a whole number from 0 to 4294967295",
            ),
            (
                "rpc",
                r#"{"disconnect":{"reason":9090}}"#,
                "disconnect.reason: expected a string",
            ),
            (
                "connect",
                r#"{"result":{"user":9090}}"#,
                "result.user: expected a string",
            ),
            (
                "connect",
                r#"{"result":{"expire_at":-9090}}"#,
                "result.expire_at: expected a number from 0",
            ),
            (
                "connect",
                r#"{"result":{"expire_at":"SECRET"}}"#,
                "result.expire_at: expected a whole number",
            ),
            (
                "connect",
                r#"{"result":{"b64info":"SECRET%"}}"#,
                "result.b64info: expected standard base64",
            ),
            (
                "connect",
                r#"{"result":{"b64info":"/w=="}}"#,
                "result.b64info: expected JSON in base64",
            ),
            (
                "connect",
                r#"{"result":{"channels":["SECRET",5]}}"#,
                "result.channels: expected a list of strings",
            ),
            (
                "connect",
                r#"{"result":{"subs":{"a":9090}}}"#,
                r#"result.subs.a: expected an object"#,
            ),
            (
                "connect",
                r#"{"result":{"subs":{"chat:1":{"expire_at":"SECRET"}}}}"#,
                r#"result.subs["chat:1"].expire_at: expected a whole number"#,
            ),
            (
                "connect",
                r#"{"result":{"subs":{"chat:1":{"expire_at":-1}}}}"#,
                r#"result.subs["chat:1"].expire_at: expected a number from 0"#,
            ),
            (
                "subscribe",
                r#"{"result":{"override":{"presence":{"value":"SECRET"}}}}"#,
                "result.override.presence.value: expected true or false",
            ),
            (
                "publish",
                r#"{"result":{"tags":{"a":9090}}}"#,
                "result.tags.a: expected a string",
            ),
            (
                "publish",
                r#"{"result":{"version":-9090}}"#,
                "result.version: expected a whole number from 0",
            ),
            (
                "refresh",
                r#"{"result":{"expired":"SECRET"}}"#,
                "result.expired: expected true or false",
            ),
        ] {
            let error = answered(name, body).expect_err(body).to_string();
            assert_eq!(error, wanted, "{body}");
        }
    }

    #[test]
    fn payloads_that_some_client_could_not_read_are_refused() {
        let nested = |levels: usize| "[".repeat(levels) + &"]".repeat(levels);
        for (name, member) in [
            ("connect", "info"),
            ("connect", "data"),
            ("subscribe", "info"),
            ("subscribe", "data"),
            ("refresh", "info"),
            ("sub_refresh", "info"),
            ("publish", "data"),
            ("rpc", "data"),
        ] {
            let body = |levels| format!(r#"{{"result":{{"{member}":{}}}}}"#, nested(levels));
            assert!(answered(name, &body(64)).is_ok(), "{name} {member}");
            let error = answered(name, &body(65)).expect_err(name).to_string();
            let wanted = format!("result.{member}: expected JSON of at most 64 levels");
            assert_eq!(error, wanted, "{name}");
            let base64 = BASE64.encode(nested(65));
            let body = format!(r#"{{"result":{{"b64{member}":"{base64}"}}}}"#);
            assert!(answered(name, &body).is_err(), "{name} b64{member}");
        }
        let sub = format!(
            r#"{{"result":{{"subs":{{"a":{{"info":{}}}}}}}}}"#,
            nested(65)
        );
        assert!(answered("connect", &sub).is_err());
        let kept = format!(r#"{{"result":{{"meta":{}}}}}"#, nested(65));
        assert!(answered("connect", &kept).is_ok(), "it goes to no client");
    }

    /// A result with every member of an event.
    fn full(name: &str) -> Value {
        let subscribed = json!({
            "expire_at": 9, "info": 1, "b64info": "Mg==", "data": 2, "b64data": "Mg==", "cache_recover": true,
            "override": {
                "presence": { "value": true }, "join_leave": { "value": true }, "force_push_join_leave": { "value": true },
                "force_recovery": { "value": true }, "force_positioning": { "value": true },
            },
        });
        match name {
            "connect" => json!({
                "user": "42", "expire_at": 77, "info": 1, "b64info": "Mg==", "data": 2, "b64data": "Mg==",
                "channels": ["a"], "subs": { "b": subscribed }, "meta": { "m": 1 },
            }),
            "subscribe" => subscribed,
            "publish" => json!({
                "data": 1, "b64data": "Mg==", "skip_history": true, "tags": { "k": "v" }, "idempotency_key": "i",
                "delta": true, "ttl_ms": 5, "version": 7, "version_epoch": "e",
            }),
            "rpc" => json!({ "data": 1, "b64data": "Mg==" }),
            _ => {
                json!({ "expired": true, "expire_at": 5, "info": 1, "b64info": "Mg==", "meta": 1 })
            }
        }
    }

    #[test]
    fn null_members_of_every_answer_are_absent_ones() {
        let known = |name: &str| match name {
            "connect" => null::names::<RawConnected<'_>>(),
            "subscribe" => null::names::<RawSubscribed<'_>>(),
            "publish" => null::names::<RawPublished<'_>>(),
            "rpc" => null::names::<RawCalled<'_>>(),
            _ => null::names::<RawRefreshed<'_>>(),
        };
        for name in ALL {
            let result = full(name);
            null::covers(&result, &known(name));
            if name == "connect" {
                null::covers(&result["subs"]["b"], &null::names::<RawSubscribed<'_>>());
                null::covers(
                    &result["subs"]["b"]["override"],
                    &null::names::<RawOverride>(),
                );
            }
            let whole = json!({
                "result": result,
                "error": { "code": 1000, "message": "no", "temporary": true },
                "disconnect": { "code": 4500, "reason": "bye" },
            });
            let only_result = json!({ "result": result });
            let only_error = json!({ "error": whole["error"] });
            for body in [whole, only_result, only_error] {
                // A name of a channel is data: its options are what may be absent.
                null::same(&body, &["subs", "tags", "meta"], |text| {
                    format!("{name}: {:?}", answered(name, text).expect("an answer"))
                });
            }
        }
    }

    #[test]
    fn names_of_data_count_with_their_options_or_values_left_out() {
        let body = r#"{"result":{"channels":["c",null],"subs":{"b":null}}}"#;
        let Ok(Verdict::Connect(Some(connected))) = answered("connect", body) else {
            panic!("no result");
        };
        let subs: Vec<&str> = connected.subs.iter().map(|(name, _)| &**name).collect();
        assert_eq!(subs, ["b", "c"]);
        let Ok(Verdict::Publish(published)) =
            answered("publish", r#"{"result":{"tags":{"k":null}}}"#)
        else {
            panic!("no result");
        };
        assert_eq!(published.tags, [("k".into(), "".into())]);
    }

    #[test]
    fn unknown_members_are_ignored_and_the_case_of_names_does_not_count() {
        let body = r#"{"Result":{"User":"5","future":{"a":[1]},"EXPIRE_AT":7},"trace":"x"}"#;
        let Ok(Verdict::Connect(Some(connected))) = answered("connect", body) else {
            panic!("no result");
        };
        assert_eq!((&*connected.user, connected.expire_at), ("5", 7));
    }

    #[test]
    fn every_member_of_a_connect_result_is_read() {
        let body = r#"{"result":{"user":"42","expire_at":77,"info":{"i":
1},"b64data":"aGk=","channels":["a","b"],"subs":{"b":{"info":5,"data":6,"expire_at":9,"override":{"presence":{"value":true}},"cache_recover":true}},"meta":{"m":1},"caps":[]}}"#;
        let Ok(Verdict::Connect(Some(connected))) = answered("connect", body) else {
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
        let data = |body: &str| match answered("publish", body) {
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
            let _ = read(&event(ALL[at]), &body, 64);
        }
    }
}
