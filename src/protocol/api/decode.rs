//! Bodies into requests.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::error::{ApiDecodeError, ApiError};
use super::fields::{
    BlockUserFields, BroadcastFields, ChannelsFields, DecodedCall, DisconnectFields, Fields,
    HistoryFields, HistoryRemoveFields, InfoFields, InvalidateFields, PresenceFields,
    PresenceStatsFields, PublishFields, RefreshFields, RevokeTokenFields, RpcFields,
    SubscribeFields, UnblockUserFields, UnsubscribeFields,
};
use super::request::{Batch, Request};
use crate::limits::COMMANDS_PER_FRAME_MAX;
use crate::wire::json::{Malformed, Object, Part, Value, expected, fields, value, within};

/// Decodes the body of `/api/<method>`.
///
/// # Errors
/// The outer error is the HTTP request's, the inner one the answer's.
pub fn decode<'a>(
    method: &str,
    body: &'a [u8],
) -> Result<Result<Request<'a>, ApiError>, ApiDecodeError> {
    let method = ApiMethod::named(method).ok_or(ApiDecodeError::UnknownMethod)?;
    let decoded = method
        .request(WholeText(text(body)?))
        .map_err(Malformed::from)?;
    Ok(decoded.unwrap_or(Err(ApiError::BadRequest)))
}

/// Is there a method of this name, as in `/api/<method>`?
#[must_use]
pub fn is_method(name: &str) -> bool {
    ApiMethod::named(name).is_some()
}

/// What the decoder reads of one method.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MethodFields {
    /// The method, as in `/api/<method>`.
    pub name: &'static str,
    /// Names of its fields.
    pub fields: Vec<&'static str>,
}

/// All methods, and the fields that are read of each.
#[must_use]
pub fn methods() -> Vec<MethodFields> {
    ApiMethod::ALL
        .into_iter()
        .map(|(name, method)| {
            let mut fields = Vec::new();
            method.names(&mut fields);
            MethodFields { name, fields }
        })
        .collect()
}

/// One command of the legacy endpoint.
#[derive(Clone, Debug, PartialEq)]
pub struct LegacyCommand<'a> {
    /// Comes back with the answer; `None` if absent or zero.
    pub id: Option<u64>,
    /// What is asked, never a batch.
    pub request: Result<Request<'a>, ApiError>,
}

/// Decodes the body of `/api`: JSON objects one after the other, separated by white space or nothing.
///
/// # Errors
/// What spoils the whole HTTP request.
pub fn decode_legacy(body: &[u8]) -> Result<Vec<LegacyCommand<'_>>, ApiDecodeError> {
    let mut commands = Vec::new();
    for fields in
        serde_json::Deserializer::from_str(text(body)?).into_iter::<Part<LegacyFields<'_>>>()
    {
        let Part(Some(fields)) = fields.map_err(Malformed::from)? else {
            return Err(Malformed::member("null", "expected an object").into());
        };
        if commands.len() == COMMANDS_PER_FRAME_MAX {
            return Err(ApiDecodeError::TooManyCommands);
        }
        commands.push(fields.command()?);
    }
    Ok(commands)
}

fn text(body: &[u8]) -> Result<&str, ApiDecodeError> {
    if body.trim_ascii().is_empty() {
        return Err(ApiDecodeError::EmptyBody);
    }
    simdutf8::basic::from_utf8(body).map_err(|_| Malformed::not_utf8().into())
}

/// A method of this server. The first ones are in the order of the integers which once named them on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd)]
enum ApiMethod {
    Publish,
    Broadcast,
    Unsubscribe,
    Disconnect,
    Presence,
    PresenceStats,
    History,
    HistoryRemove,
    Channels,
    Info,
    Rpc,
    Subscribe,
    Refresh,
    RevokeToken,
    InvalidateUserTokens,
    BlockUser,
    UnblockUser,
    Batch,
}

impl ApiMethod {
    const ALL: [(&'static str, Self); 18] = [
        ("publish", Self::Publish),
        ("broadcast", Self::Broadcast),
        ("unsubscribe", Self::Unsubscribe),
        ("disconnect", Self::Disconnect),
        ("presence", Self::Presence),
        ("presence_stats", Self::PresenceStats),
        ("history", Self::History),
        ("history_remove", Self::HistoryRemove),
        ("channels", Self::Channels),
        ("info", Self::Info),
        ("rpc", Self::Rpc),
        ("subscribe", Self::Subscribe),
        ("refresh", Self::Refresh),
        ("revoke_token", Self::RevokeToken),
        ("invalidate_user_tokens", Self::InvalidateUserTokens),
        ("block_user", Self::BlockUser),
        ("unblock_user", Self::UnblockUser),
        ("batch", Self::Batch),
    ];

    fn named(name: &str) -> Option<Self> {
        Self::ALL
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, method)| *method)
    }

    /// Names of the fields of a request.
    fn names(self, out: &mut Vec<&'static str>) {
        match self {
            Self::Publish => PublishFields::names(out),
            Self::Broadcast => BroadcastFields::names(out),
            Self::Unsubscribe => UnsubscribeFields::names(out),
            Self::Disconnect => DisconnectFields::names(out),
            Self::Presence => PresenceFields::names(out),
            Self::PresenceStats => PresenceStatsFields::names(out),
            Self::History => HistoryFields::names(out),
            Self::HistoryRemove => HistoryRemoveFields::names(out),
            Self::Channels => ChannelsFields::names(out),
            Self::Info => InfoFields::names(out),
            Self::Rpc => RpcFields::names(out),
            Self::Subscribe => SubscribeFields::names(out),
            Self::Refresh => RefreshFields::names(out),
            Self::RevokeToken => RevokeTokenFields::names(out),
            Self::InvalidateUserTokens => InvalidateFields::names(out),
            Self::BlockUser => BlockUserFields::names(out),
            Self::UnblockUser => UnblockUserFields::names(out),
            Self::Batch => BatchFields::names(out),
        }
    }

    /// Reads the fields of a request; `None` for `null`.
    fn request<'de, S: Source<'de>>(self, source: S) -> Result<Option<DecodedCall<'de>>, S::Error> {
        match self {
            Self::Publish => part::<PublishFields<'de>, S>(source),
            Self::Broadcast => part::<BroadcastFields<'de>, S>(source),
            Self::Unsubscribe => part::<UnsubscribeFields<'de>, S>(source),
            Self::Disconnect => part::<DisconnectFields<'de>, S>(source),
            Self::Presence => part::<PresenceFields<'de>, S>(source),
            Self::PresenceStats => part::<PresenceStatsFields<'de>, S>(source),
            Self::History => part::<HistoryFields<'de>, S>(source),
            Self::HistoryRemove => part::<HistoryRemoveFields<'de>, S>(source),
            Self::Channels => part::<ChannelsFields<'de>, S>(source),
            Self::Info => part::<InfoFields, S>(source),
            Self::Rpc => part::<RpcFields<'de>, S>(source),
            Self::Subscribe => part::<SubscribeFields<'de>, S>(source),
            Self::Refresh => part::<RefreshFields<'de>, S>(source),
            Self::RevokeToken => part::<RevokeTokenFields<'de>, S>(source),
            Self::InvalidateUserTokens => part::<InvalidateFields<'de>, S>(source),
            Self::BlockUser => part::<BlockUserFields<'de>, S>(source),
            Self::UnblockUser => part::<UnblockUserFields<'de>, S>(source),
            Self::Batch => part::<BatchFields<'de>, S>(source),
        }
    }
}

/// Methods of the reference that this server does not have: `NotFound` where a request names its method inside the body.
const FOREIGN_METHODS: &[&str] = &[
    "batch",
    "cancel_push",
    "connections",
    "delete_user_status",
    "device_list",
    "device_register",
    "device_remove",
    "device_topic_list",
    "device_topic_update",
    "device_update",
    "get_user_status",
    "map_clear",
    "map_publish",
    "map_read_state",
    "map_read_stream",
    "map_remove",
    "map_stats",
    "send_push_notification",
    "shared_poll_publish",
    "update_push_status",
    "update_user_status",
    "user_topic_list",
    "user_topic_update",
];

/// Methods at the head of `ApiMethod::ALL` that an integer once named.
const METHODS_NUMBERED: usize = 13;
/// The greatest integer that once named a method.
const METHOD_NUMBER_LAST: u64 = 32;

/// Where the fields of a request stand.
trait Source<'de> {
    type Error;
    fn part<T: Object<'de>>(self) -> Result<Option<T>, Self::Error>;
}

/// The whole text.
struct WholeText<'de>(&'de str);

impl<'de> Source<'de> for WholeText<'de> {
    type Error = serde_json::Error;
    fn part<T: Object<'de>>(self) -> Result<Option<T>, Self::Error> {
        serde_json::from_str::<Part<T>>(self.0).map(|part| part.0)
    }
}

/// The next value of a map.
struct Field<'m, A>(&'m mut A);

impl<'de, A: MapAccess<'de>> Source<'de> for Field<'_, A> {
    type Error = A::Error;
    fn part<T: Object<'de>>(self) -> Result<Option<T>, Self::Error> {
        value(self.0)
    }
}

fn part<'de, F: Fields<'de>, S: Source<'de>>(
    source: S,
) -> Result<Option<DecodedCall<'de>>, S::Error> {
    Ok(source.part::<F>()?.map(F::request))
}

#[derive(Default)]
struct BatchFields<'a> {
    commands: BatchItems<'a>,
    parallel: bool,
}
fields!(BatchFields<'de> { "commands" => commands, "parallel" => parallel });

impl<'de> Fields<'de> for BatchFields<'de> {
    fn request(self) -> DecodedCall<'de> {
        if self.commands.left_out {
            let what = format!("expected at most {COMMANDS_PER_FRAME_MAX}");
            return Err(ApiError::wrong("commands", &what));
        }
        Ok(Request::Batch(Batch {
            commands: self.commands.items,
            parallel: self.parallel,
        }))
    }
}

/// The commands of a batch.
#[derive(Default)]
struct BatchItems<'a> {
    items: Vec<DecodedCall<'a>>,
    /// There were more than may be.
    left_out: bool,
}

impl<'de> Value<'de> for BatchItems<'de> {
    fn read<A: MapAccess<'de>>(map: &mut A) -> Result<Self, A::Error> {
        let items = map.next_value::<Option<Self>>();
        let items = items.map_err(|error| expected("a list of commands", error))?;
        Ok(items.unwrap_or_default())
    }
}

impl<'de> Deserialize<'de> for BatchItems<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(ItemsVisitor)
    }
}

struct ItemsVisitor;

impl<'de> Visitor<'de> for ItemsVisitor {
    type Value = BatchItems<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of commands")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut items = Vec::new();
        while items.len() < COMMANDS_PER_FRAME_MAX {
            let item = seq.next_element::<Part<Item<'de>>>();
            let item = item.map_err(|error| within(&format!("[{}]", items.len()), &error))?;
            let Some(Part(item)) = item else {
                return Ok(BatchItems {
                    items,
                    left_out: false,
                });
            };
            items.push(item.map_or(Err(ApiError::BadRequest), Item::request));
        }
        let mut left_out = false;
        while seq.next_element::<IgnoredAny>()?.is_some() {
            left_out = true;
        }
        Ok(BatchItems { items, left_out })
    }
}

/// One command of a batch: of several methods the first in the order of `ApiMethod` counts.
#[derive(Default)]
struct Item<'a> {
    first: Option<(ApiMethod, DecodedCall<'a>)>,
}

impl<'a> Item<'a> {
    fn request(self) -> DecodedCall<'a> {
        self.first
            .map_or(Err(ApiError::NotFound), |(_, decoded)| decoded)
    }
}

impl<'de> Object<'de> for Item<'de> {
    fn read<A: MapAccess<'de>>(&mut self, name: &str, map: &mut A) -> Result<bool, A::Error> {
        let Some(method) = ApiMethod::named(name).filter(|method| *method != ApiMethod::Batch)
        else {
            return Ok(false);
        };
        let Some(decoded) = method.request(Field(map))? else {
            return Ok(true);
        };
        if self
            .first
            .as_ref()
            .is_none_or(|(first, _)| method <= *first)
        {
            self.first = Some((method, decoded));
        }
        Ok(true)
    }
}

#[derive(Default)]
struct LegacyFields<'a> {
    id: u64,
    method: LegacyMethod,
    params: &'a [u8],
}
fields!(LegacyFields<'de> { "id" => id, "method" => method, "params" => params });

impl<'a> LegacyFields<'a> {
    fn command(self) -> Result<LegacyCommand<'a>, ApiDecodeError> {
        let request = match self.method {
            LegacyMethod::Unknown => return Err(ApiDecodeError::UnknownLegacyMethod),
            LegacyMethod::Foreign => Err(ApiError::NotFound),
            LegacyMethod::Known(_) if self.params.is_empty() => Err(ApiError::missing("params")),
            LegacyMethod::Known(method) => {
                let params = str::from_utf8(self.params).map_err(|_| Malformed::not_utf8())?;
                let decoded = method
                    .request(WholeText(params))
                    .map_err(|error| Malformed::from(error).within("params"))?;
                decoded.unwrap_or_else(|| Err(ApiError::missing("params")))
            }
        };
        Ok(LegacyCommand {
            id: (self.id != 0).then_some(self.id),
            request,
        })
    }
}

/// Method of a legacy command: a name, or an integer that is 0 when absent.
enum LegacyMethod {
    Known(ApiMethod),
    /// Known to the reference, absent here.
    Foreign,
    Unknown,
}

impl Default for LegacyMethod {
    fn default() -> Self {
        Self::numbered(0)
    }
}

impl LegacyMethod {
    fn numbered(number: u64) -> Self {
        let method = usize::try_from(number)
            .ok()
            .filter(|number| *number < METHODS_NUMBERED)
            .and_then(|number| ApiMethod::ALL.get(number));
        match method {
            Some((_, method)) if *method != ApiMethod::Batch => Self::Known(*method),
            _ if number <= METHOD_NUMBER_LAST => Self::Foreign,
            _ => Self::Unknown,
        }
    }

    fn named(name: &str) -> Self {
        let name = name.to_ascii_lowercase();
        match ApiMethod::named(&name) {
            _ if FOREIGN_METHODS.contains(&name.as_str()) => Self::Foreign,
            Some(method) => Self::Known(method),
            None => Self::Unknown,
        }
    }
}

impl<'de> Value<'de> for LegacyMethod {
    fn read<A: MapAccess<'de>>(map: &mut A) -> Result<Self, A::Error> {
        let method = map.next_value::<Option<Self>>();
        let method = method.map_err(|error| expected("the name of a method", error))?;
        Ok(method.unwrap_or_default())
    }
}

impl<'de> Deserialize<'de> for LegacyMethod {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(LegacyMethodVisitor)
    }
}

struct LegacyMethodVisitor;

impl Visitor<'_> for LegacyMethodVisitor {
    type Value = LegacyMethod;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a method")
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Self::Value, E> {
        Ok(LegacyMethod::numbered(number))
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<Self::Value, E> {
        Ok(LegacyMethod::named(name))
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use proptest::prelude::*;

    use super::super::request::{
        Broadcast, ConnectionRefresh, HistoryCall, PublishOptions, SubscribeCall, Whom,
    };
    use super::*;
    use crate::protocol::disconnect::Disconnect;

    fn request<'a>(method: &str, body: &'a str) -> DecodedCall<'a> {
        decode(method, body.as_bytes()).unwrap_or_else(|error| panic!("{method} {body}: {error}"))
    }

    /// Without what is remembered of unknown members.
    fn known<'a>(method: &str, body: &'a str) -> DecodedCall<'a> {
        let mut decoded = request(method, body);
        if let Ok(Request::Publish { options, .. }) = &mut decoded {
            options.unknown = None;
        }
        decoded
    }

    fn publish<'a>(channel: &'a str, data: &'a [u8]) -> Request<'a> {
        Request::Publish {
            channel: channel.into(),
            data: data.into(),
            options: PublishOptions::default(),
        }
    }

    fn batch(body: &str) -> Vec<DecodedCall<'_>> {
        match request("batch", body) {
            Ok(Request::Batch(batch)) => batch.commands,
            other => panic!("not a batch: {other:?}"),
        }
    }

    fn alice<'a>() -> Whom<'a> {
        Whom {
            user: "alice".into(),
            client: "c".into(),
            session: "s".into(),
        }
    }

    const ALICE: &str = r#""user":"alice","client":"c","session":"s""#;

    #[test]
    fn unknown_method_is_404_before_the_body_is_looked_at() {
        for method in [
            "",
            "x",
            "Publish",
            "connections",
            "device_list",
            "map_publish",
            "shared_poll_publish",
        ] {
            let error = decode(method, b"").unwrap_err();
            assert_eq!(
                (error.clone(), error.http_status()),
                (ApiDecodeError::UnknownMethod, 404),
                "{method}"
            );
        }
    }

    #[test]
    fn empty_body_is_400() {
        for body in ["", " \n"] {
            let error = decode("info", body.as_bytes()).unwrap_err();
            assert_eq!(
                (error.clone(), error.http_status()),
                (ApiDecodeError::EmptyBody, 400)
            );
            assert_eq!(
                decode_legacy(body.as_bytes()),
                Err(ApiDecodeError::EmptyBody)
            );
        }
    }

    #[test]
    fn body_that_is_not_an_object_of_the_method_is_400() {
        for body in [
            "{",
            "[]",
            "1",
            "x",
            "{}{}",
            "{} x",
            r#"{"channel":1}"#,
            r#"{"channel":"a","data":}"#,
        ] {
            let error = decode("publish", body.as_bytes()).unwrap_err();
            assert!(matches!(error, ApiDecodeError::Malformed(_)), "{body}");
            assert_eq!(error.http_status(), 400, "{body}");
        }
        for (method, body) in [
            ("publish", &b"{\"channel\":\"\xff\"}"[..]),
            ("broadcast", br#"{"channels":"a"}"#),
            ("batch", br#"{"commands":[1]}"#),
        ] {
            let error = decode(method, body).expect_err(method);
            assert!(matches!(error, ApiDecodeError::Malformed(_)), "{method}");
        }
    }

    #[test]
    fn fields_of_other_methods_are_ignored_whatever_they_hold() {
        assert_eq!(
            known("publish", r#"{"channel":"a","data":1,"user":5,"x":{}}"#),
            Ok(publish("a", b"1"))
        );
        assert_eq!(request("info", r#"{"channel":5}"#), Ok(Request::Info));
    }

    #[test]
    fn missing_channel_or_data_is_answered_107() {
        for (method, body) in [
            ("publish", r#"{"data":1}"#),
            ("publish", r#"{"channel":"","data":1}"#),
            ("publish", r#"{"channel":"a"}"#),
            ("publish", "null"),
            ("broadcast", r#"{"data":1}"#),
            ("broadcast", r#"{"channels":[],"data":1}"#),
            ("subscribe", r#"{"user":"a"}"#),
            ("unsubscribe", r#"{"user":"a"}"#),
            ("presence", "{}"),
            ("presence_stats", "{}"),
            ("history", "{}"),
            ("history_remove", "{}"),
            ("rpc", "{}"),
        ] {
            let error = request(method, body).expect_err(body);
            assert_eq!(error.code(), 107, "{method} {body}");
        }
    }

    #[test]
    fn error_names_the_member_that_is_missing_or_wrong() {
        let b64 = "b64data: expected standard base64";
        for (method, body, wanted) in [
            ("publish", r#"{"channel":"a"}"#, "`data` is missing"),
            ("publish", r#"{"data":1}"#, "`channel` is missing"),
            (
                "publish",
                r#"{"channel":null,"data":1}"#,
                "`channel` is missing",
            ),
            ("publish", r#"{"channel":"a","b64data":"_w"}"#, b64),
            ("broadcast", r#"{"channels":["a"],"b64data":"_w"}"#, b64),
            ("broadcast", r#"{"data":1}"#, "`channels` is missing"),
            (
                "subscribe",
                r#"{"channel":"a","b64info":"%"}"#,
                "b64info: expected standard base64",
            ),
            ("history", "{}", "`channel` is missing"),
            (
                "history",
                r#"{"channel":"a","reverse":true,"since":{}}"#,
                "since.offset: expected a number from 1 where `reverse` is set",
            ),
            ("rpc", "{}", "`method` is missing"),
            ("revoke_token", "{}", "`uid` is missing"),
            ("block_user", "{}", "`user` is missing"),
            (
                "disconnect",
                r#"{"disconnect":{"code":7}}"#,
                "disconnect: expected a code from 3000 to 4999 and a short plain reason",
            ),
        ] {
            let error = request(method, body).expect_err(body);
            assert_eq!(error.code(), 107, "{body}");
            assert_eq!(error.message(), format!("bad request: {wanted}"), "{body}");
        }
        for (method, body, wanted) in [
            ("publish", r#"{"channel":5}"#, "channel: expected a string"),
            (
                "publish",
                r#"{"tags":{"a":{}}}"#,
                "tags.a: expected a string",
            ),
            (
                "publish",
                r#"{"version":-1}"#,
                "version: expected a whole number from 0",
            ),
            (
                "history",
                r#"{"since":{"offset":"1"}}"#,
                "since.offset: expected a whole number from 0",
            ),
            (
                "subscribe",
                r#"{"override":{"presence":true}}"#,
                "override.presence: expected an object",
            ),
            (
                "broadcast",
                r#"{"channels":"a"}"#,
                "channels: expected a list of strings",
            ),
            (
                "batch",
                r#"{"commands":[{},{"publish":{"channel":5}}]}"#,
                "commands[1].publish.channel: expected a string",
            ),
            (
                "batch",
                r#"{"commands":[1]}"#,
                "commands[0]: expected an object",
            ),
            (
                "batch",
                r#"{"commands":{}}"#,
                "commands: expected a list of commands",
            ),
            ("info", "[]", "expected an object"),
            (
                "info",
                "{",
                "not JSON: EOF while parsing an object at line 1 column 1",
            ),
        ] {
            let error = decode(method, body.as_bytes()).expect_err(body);
            assert_eq!(error.http_status(), 400, "{body}");
            assert_eq!(
                error.to_string(),
                format!("malformed body: {wanted}"),
                "{body}"
            );
        }
    }

    /// A request with every member of a method.
    fn full(method: &str) -> serde_json::Value {
        use serde_json::json;
        let mut publish = json!({
            "data": { "n": 1 }, "b64data": "Mg==", "skip_history": true, "tags": { "k": "v" }, "idempotency_key": "i",
            "delta": true, "version": 7, "version_epoch": "e", "schema": 2, "trace": "t", "deliver_at": 1, "delay_ms": 2,
            "ttl_ms": 3,
        });
        let flag = || json!({ "value": true });
        match method {
            "publish" => {
                publish["channel"] = json!("a");
                publish
            }
            "broadcast" => {
                publish["channels"] = json!(["a", "b"]);
                publish
            }
            "unsubscribe" => json!({ "user": "u", "client": "c", "session": "s", "channel": "a" }),
            "disconnect" => json!({
                "user": "u", "client": "c", "session": "s", "whitelist": ["w"], "disconnect": { "code": 4001, "reason": "bye" },
            }),
            "presence" => json!({ "channel": "a", "limit": 1, "cursor": "" }),
            "presence_stats" | "history_remove" => json!({ "channel": "a" }),
            "history" => json!({
                "channel": "a", "limit": 1, "since": { "offset": 3, "epoch": "e" }, "reverse": true,
            }),
            "channels" => json!({ "pattern": "a*" }),
            "rpc" => json!({ "method": "m" }),
            "subscribe" => json!({
                "user": "u", "client": "c", "session": "s", "channel": "a", "expire_at": 9, "info": 1, "b64info": "Mg==",
                "data": 2, "b64data": "Mg==", "recover_since": { "offset": 5, "epoch": "e" },
                "override": {
                    "presence": flag(), "join_leave": flag(), "force_recovery": flag(), "force_positioning": flag(),
                    "force_push_join_leave": flag(),
                },
            }),
            "refresh" => json!({
                "user": "u", "client": "c", "session": "s", "expired": true, "expire_at": 5, "info": 1,
            }),
            "revoke_token" => json!({ "uid": "t", "expire_at": 5 }),
            "invalidate_user_tokens" => json!({
                "user": "u", "issued_before": 5, "expire_at": 6, "channel": "a",
            }),
            "block_user" => json!({ "user": "u", "expire_at": 5 }),
            "unblock_user" => json!({ "user": "u" }),
            "batch" => {
                json!({ "commands": [{ "publish": { "channel": "a", "data": 1 } }], "parallel": true })
            }
            _ => json!({}),
        }
    }

    #[test]
    fn null_members_of_every_method_are_absent_ones() {
        use crate::wire::json::null;
        for method in methods() {
            let sample = full(method.name);
            null::covers(&sample, &method.fields);
            // Names of tags are data; `null` as payload of a publication is a payload.
            for case in null::cases(&sample, &["tags", "data"]) {
                if case.path.ends_with("publish/data") {
                    continue;
                }
                let payload_alone =
                    case.path == "/data" && matches!(method.name, "publish" | "broadcast");
                let with = request(method.name, &case.with_null);
                let without = request(method.name, &case.without);
                assert_eq!(with, without, "{} {}", method.name, case.path);
                assert!(!payload_alone || with.is_ok(), "b64data is the payload");
                let legacy = |params: &str| {
                    let body = format!(
                        r#"{{"id":null,"method":"{}","params":{params}}}"#,
                        method.name
                    );
                    format!("{:?}", decode_legacy(body.as_bytes()))
                };
                assert_eq!(
                    legacy(&case.with_null),
                    legacy(&case.without),
                    "{}",
                    method.name
                );
            }
        }
        assert_eq!(
            request("publish", r#"{"channel":"a","data":null}"#),
            Ok(publish("a", b"null"))
        );
    }

    #[test]
    fn unknown_members_are_passed_over_and_the_first_of_a_publication_is_remembered() {
        let body = r#"{"channel":"a","data":1,"delay_ms":5,"ttl":{"x":1}}"#;
        for method in ["publish", "broadcast"] {
            let body = body.replace(r#""channel":"a""#, r#""channel":"a","channels":["a"]"#);
            let options = match request(method, &body) {
                Ok(Request::Publish { options, .. }) => options,
                Ok(Request::Broadcast(broadcast)) => broadcast.options,
                other => panic!("{other:?}"),
            };
            let unknown = options.unknown.expect("remembered");
            assert!(unknown.contains(": unknown, "), "{unknown}");
        }
        let Ok(Request::Publish { options, .. }) =
            request("publish", r#"{"channel":"a","data":1,"tag":{}}"#)
        else {
            panic!("no publication");
        };
        assert_eq!(
            options.unknown.as_deref(),
            Some("tag: unknown, did you mean `tags`?")
        );
    }

    #[test]
    fn publish_carries_every_field() {
        let body = r#"{"channel":"a","data":{"n":1},"skip_history":true,"tags":{"k":"v","l":null},
            "idempotency_key":"i","delta":true,"version":7,"version_epoch":"e","schema":2,"trace":"t","deliver_at":8,"delay_ms":9,"ttl_ms":10}"#;
        let options = PublishOptions {
            skip_history: true,
            tags: vec![("k".into(), "v".into()), ("l".into(), "".into())],
            idempotency_key: "i".into(),
            delta: true,
            version: 7,
            version_epoch: "e".into(),
            schema: 2,
            trace: "t".into(),
            deliver_at: 8,
            delay_ms: 9,
            ttl_ms: 10,
            unknown: None,
        };
        let data: Cow<'_, [u8]> = Cow::Borrowed(br#"{"n":1}"#);
        assert_eq!(
            request("publish", body),
            Ok(Request::Publish {
                channel: "a".into(),
                data,
                options
            })
        );
    }

    #[test]
    fn pretty_printed_payload_becomes_one_line() {
        assert_eq!(
            request("publish", "{\"channel\":\"a\",\"data\":{\r\n\"n\":\n1}}"),
            Ok(publish("a", b"{\"n\":1}"))
        );
    }

    #[test]
    fn payload_that_is_one_line_is_not_copied() {
        let Ok(Request::Publish { data, .. }) = request("publish", r#"{"channel":"a","data":[1]}"#)
        else {
            panic!()
        };
        assert!(matches!(data, Cow::Borrowed(b"[1]")));
    }

    #[test]
    fn b64data_wins_over_data_unless_it_is_empty() {
        assert_eq!(
            request("publish", r#"{"channel":"a","data":1,"b64data":"AP8="}"#),
            Ok(publish("a", b"\x00\xff"))
        );
        assert_eq!(
            request("publish", r#"{"channel":"a","data":1,"b64data":""}"#),
            Ok(publish("a", b"1"))
        );
        assert_eq!(
            request("publish", r#"{"channel":"a","data":1,"b64data":null}"#),
            Ok(publish("a", b"1"))
        );
    }

    #[test]
    fn empty_b64data_alone_is_an_empty_payload_for_the_namespace_to_judge() {
        assert_eq!(
            request("publish", r#"{"channel":"a","b64data":""}"#),
            Ok(publish("a", b""))
        );
    }

    #[test]
    fn bad_base64_is_answered_107() {
        for b64 in ["A", "AP8", "AP8=\\n", "_w==", "*"] {
            let body = format!(r#"{{"channel":"a","channels":["a"],"data":1,"b64data":"{b64}"}}"#);
            assert_eq!(
                request("publish", &body).map_err(|error| error.code()),
                Err(107),
                "{b64}"
            );
            assert_eq!(
                request("broadcast", &body).map_err(|error| error.code()),
                Err(107),
                "{b64}"
            );
            assert_eq!(
                request("subscribe", &body).map_err(|error| error.code()),
                Err(107),
                "{b64}"
            );
        }
    }

    #[test]
    fn broadcast_without_data_is_left_to_each_channel() {
        let broadcast = Broadcast {
            channels: vec!["a".into(), "".into()],
            data: Cow::Borrowed(b""),
            options: PublishOptions {
                version: 1,
                ..Default::default()
            },
        };
        assert_eq!(
            request("broadcast", r#"{"channels":["a",null],"version":1}"#),
            Ok(Request::Broadcast(broadcast))
        );
    }

    #[test]
    fn subscribe_carries_every_field() {
        let body = format!(
            r#"{{{ALICE},"channel":"a","expire_at":9,"info":{{}},"b64info":"WzFd","data":[2],"recover_since":{{"offset":5,"epoch":"e"}},
            "override":{{"presence":{{"value":true}},"join_leave":{{}},"force_recovery":null,"force_positioning":{{"value":false}},"force_push_join_leave":{{"value":true}}}}}}"#
        );
        let subscribe = SubscribeCall {
            target: alice(),
            channel: "a".into(),
            expire_at: Some(9),
            info: Cow::Borrowed(b"[1]"),
            data: Cow::Borrowed(b"[2]"),
            recover_since: Some((5, "e".into())),
            overrides: crate::model::Overrides {
                presence: Some(true),
                join_leave: Some(false),
                force_recovery: None,
                force_positioning: Some(false),
                force_push_join_leave: Some(true),
            },
        };
        assert_eq!(
            request("subscribe", &body),
            Ok(Request::Subscribe(Box::new(subscribe)))
        );
    }

    #[test]
    fn info_is_json_or_bytes() {
        let Ok(Request::Subscribe(subscribe)) =
            request("subscribe", r#"{"channel":"a","b64info":"AP8="}"#)
        else {
            panic!()
        };
        assert_eq!(subscribe.info, Cow::Borrowed(&b"\0\xff"[..]));
        let Ok(Request::Subscribe(subscribe)) =
            request("subscribe", r#"{"channel":"a","info":null}"#)
        else {
            panic!()
        };
        assert_eq!(subscribe.info, Cow::Borrowed(b""));
        let Ok(Request::Subscribe(subscribe)) =
            request("subscribe", r#"{"channel":"a","b64info":"WwoxXQ=="}"#)
        else {
            panic!()
        };
        assert_eq!(subscribe.info, Cow::Borrowed(b"[\n1]"));
    }

    #[test]
    fn missing_user_is_the_anonymous_one() {
        let target = Whom::default();
        assert_eq!(
            request("unsubscribe", r#"{"channel":"a"}"#),
            Ok(Request::Unsubscribe {
                target,
                channel: "a".into()
            })
        );
    }

    #[test]
    fn disconnect_forces_unless_the_service_chooses() {
        let wanted = |disconnect| {
            let whitelist = vec!["w".into()];
            Ok(Request::Disconnect {
                target: alice(),
                whitelist,
                disconnect,
            })
        };
        for chosen in ["", r#","disconnect":null"#, r#","disconnect":{}"#] {
            let body = format!(r#"{{{ALICE},"whitelist":["w"]{chosen}}}"#);
            assert_eq!(
                request("disconnect", &body),
                wanted(Disconnect::ForceDisconnect)
            );
        }
        let body =
            format!(r#"{{{ALICE},"whitelist":["w"],"disconnect":{{"code":4001,"reason":"bye"}}}}"#);
        assert_eq!(
            request("disconnect", &body),
            wanted(Disconnect::Custom(4001, "bye".into()))
        );
        for chosen in [
            r#"{"code":7}"#,
            r#"{"reason":"x"}"#,
            r#"{"code":4001,"reason":"{}"}"#,
        ] {
            let body = format!(r#"{{"disconnect":{chosen}}}"#);
            let error = request("disconnect", &body).expect_err(chosen);
            assert_eq!(error.code(), 107, "{chosen}");
        }
    }

    #[test]
    fn refresh_without_expire_at_no_longer_expires() {
        let refresh = |expired, expire_at| {
            let info = Cow::Borrowed(&b"{}"[..]);
            Ok(Request::Refresh(ConnectionRefresh {
                target: alice(),
                expired,
                expire_at,
                info,
            }))
        };
        assert_eq!(
            request("refresh", &format!(r#"{{{ALICE},"info":{{}}}}"#)),
            refresh(false, None)
        );
        assert_eq!(
            request(
                "refresh",
                &format!(r#"{{{ALICE},"info":{{}},"expired":true,"expire_at":-5}}"#)
            ),
            refresh(true, Some(-5))
        );
    }

    #[test]
    fn history_carries_its_filter_and_nothing_lies_before_the_first() {
        let history = |limit, since, reverse| {
            Ok(Request::History(HistoryCall {
                channel: "a".into(),
                limit,
                since,
                reverse,
            }))
        };
        assert_eq!(
            request("history", r#"{"channel":"a"}"#),
            history(0, None, false)
        );
        assert_eq!(
            request(
                "history",
                r#"{"channel":"a","limit":-1,"since":{"offset":3,"epoch":"e"},"reverse":true}"#
            ),
            history(-1, Some((3, "e".into())), true)
        );
        let body = r#"{"channel":"a","limit":1,"since":{"epoch":"e"},"reverse":true}"#;
        assert_eq!(
            request("history", body).map_err(|error| error.code()),
            Err(107)
        );
    }

    #[test]
    fn requests_about_one_channel_name_it() {
        let channel = || Cow::Borrowed("a");
        let body = r#"{"channel":"a"}"#;
        assert_eq!(
            request("presence", body),
            Ok(Request::Presence {
                channel: channel(),
                limit: 0,
                after: None
            })
        );
        assert_eq!(
            request("presence_stats", body),
            Ok(Request::PresenceStats { channel: channel() })
        );
        assert_eq!(
            request("history_remove", body),
            Ok(Request::HistoryRemove { channel: channel() })
        );
        assert_eq!(
            request("channels", r#"{"pattern":"a*"}"#),
            Ok(Request::Channels {
                pattern: "a*".into()
            })
        );
        assert_eq!(
            request("channels", "{}"),
            Ok(Request::Channels { pattern: "".into() })
        );
    }

    #[test]
    fn rpc_finds_no_method() {
        assert_eq!(
            request("rpc", r#"{"method":"m","params":{}}"#),
            Err(ApiError::NotFound)
        );
    }

    #[test]
    fn batch_keeps_order_and_answers_bad_items_in_their_place() {
        let body = r#"{"commands":[{"publish":{"channel":"a","data":1}},null,{},{"x":{}},{"publish":{}},
            {"map_publish":{}},{"batch":{"commands":[]}},{"publish":null},{"info":{}}]}"#;
        let not_found = Err(ApiError::NotFound);
        let bad = Err(ApiError::BadRequest);
        assert_eq!(
            batch(body),
            [
                Ok(publish("a", b"1")),
                bad,
                not_found.clone(),
                not_found.clone(),
                Err(ApiError::missing("data")),
                not_found.clone(),
                not_found.clone(),
                not_found,
                Ok(Request::Info),
            ]
        );
    }

    #[test]
    fn batch_item_with_several_methods_is_the_first_of_them() {
        assert_eq!(
            batch(r#"{"commands":[{"info":{},"publish":{"channel":"a","data":1}}]}"#),
            [Ok(publish("a", b"1"))]
        );
    }

    #[test]
    fn batch_without_commands_is_a_batch() {
        for body in ["{}", r#"{"commands":null}"#, r#"{"commands":[]}"#] {
            assert_eq!(batch(body), []);
        }
        let parallel = Batch {
            commands: Vec::new(),
            parallel: true,
        };
        assert_eq!(
            request("batch", r#"{"parallel":true}"#),
            Ok(Request::Batch(parallel))
        );
    }

    #[test]
    fn batch_over_the_limit_is_answered_107() {
        let commands = |count| {
            format!(
                r#"{{"commands":[{}]}}"#,
                vec![r#"{"info":{}}"#; count].join(",")
            )
        };
        assert_eq!(
            batch(&commands(COMMANDS_PER_FRAME_MAX)).len(),
            COMMANDS_PER_FRAME_MAX
        );
        let error = request("batch", &commands(COMMANDS_PER_FRAME_MAX + 1)).expect_err("too many");
        assert_eq!(error.code(), 107);
    }

    #[test]
    fn legacy_commands_stand_on_lines_or_side_by_side() {
        let lines = "{\"id\":1,\"method\":\"publish\",\"params\":{\"channel\":\"a\",\"data\":{\"n\":\n1}}}\n\
            {\"method\":\"info\",\"params\":{}}{\"id\":0,\"params\":{\"channel\":\"b\",\"data\":2},\"method\":0}\n";
        let wanted = [
            LegacyCommand {
                id: Some(1),
                request: Ok(publish("a", b"{\"n\":1}")),
            },
            LegacyCommand {
                id: None,
                request: Ok(Request::Info),
            },
            LegacyCommand {
                id: None,
                request: Ok(publish("b", b"2")),
            },
        ];
        assert_eq!(decode_legacy(lines.as_bytes()).unwrap(), wanted);
    }

    #[test]
    fn legacy_methods_have_names_and_numbers() {
        for (number, (name, _)) in ApiMethod::ALL.iter().enumerate().take(13) {
            let params = r#"{"channel":"a","channels":["a"],"data":1,"method":"m"}"#;
            let named = format!(
                r#"{{"method":"{}","params":{params}}}"#,
                name.to_uppercase()
            );
            let numbered = format!(r#"{{"method":{number},"params":{params}}}"#);
            let direct = request(name, params);
            for body in [named, numbered] {
                assert_eq!(
                    decode_legacy(body.as_bytes()).unwrap()[0].request,
                    direct,
                    "{body}"
                );
            }
        }
    }

    #[test]
    fn legacy_command_without_params_is_answered_107() {
        for body in [
            r#"{"method":"info"}"#,
            r#"{"method":"info","params":null}"#,
            "{}",
        ] {
            let wanted = LegacyCommand {
                id: None,
                request: Err(ApiError::missing("params")),
            };
            assert_eq!(decode_legacy(body.as_bytes()).unwrap(), [wanted], "{body}");
        }
    }

    #[test]
    fn legacy_method_of_the_reference_only_is_answered_104() {
        for method in ["\"device_list\"", "\"map_stats\"", "\"batch\"", "13", "32"] {
            let body = format!(r#"{{"id":4,"method":{method}}}"#);
            let wanted = LegacyCommand {
                id: Some(4),
                request: Err(ApiError::NotFound),
            };
            assert_eq!(
                decode_legacy(body.as_bytes()).unwrap(),
                [wanted],
                "{method}"
            );
        }
    }

    #[test]
    fn legacy_method_nobody_knows_is_400_for_the_whole_request() {
        for method in ["\"x\"", "33", "\"\""] {
            let body = format!(
                "{{\"method\":\"info\",\"params\":{{}}}}\n{{\"method\":{method},\"params\":{{}}}}"
            );
            let error = decode_legacy(body.as_bytes()).unwrap_err();
            assert_eq!(
                (error.clone(), error.http_status()),
                (ApiDecodeError::UnknownLegacyMethod, 400),
                "{method}"
            );
        }
    }

    #[test]
    fn legacy_body_that_is_not_json_objects_is_400() {
        for body in [
            "null",
            "[]",
            "{} x",
            "{",
            r#"{"id":"1"}"#,
            r#"{"method":{}}"#,
            r#"{"params":[]}"#,
        ] {
            let error = decode_legacy(body.as_bytes()).expect_err(body);
            assert!(matches!(error, ApiDecodeError::Malformed(_)), "{body}");
        }
    }

    #[test]
    fn legacy_body_over_the_limit_is_400() {
        let body = |count| r#"{"method":9,"params":{}}"#.repeat(count);
        assert_eq!(
            decode_legacy(body(COMMANDS_PER_FRAME_MAX).as_bytes())
                .unwrap()
                .len(),
            COMMANDS_PER_FRAME_MAX
        );
        let error = decode_legacy(body(COMMANDS_PER_FRAME_MAX + 1).as_bytes()).unwrap_err();
        assert_eq!(
            (error.clone(), error.http_status()),
            (ApiDecodeError::TooManyCommands, 400)
        );
    }

    #[test]
    fn deep_nesting_is_scanned_without_recursion() {
        let deep = "[".repeat(500_000) + &"]".repeat(500_000);
        let body = format!(r#"{{"x":{deep},"channel":"a","data":{deep}}}"#);
        assert_eq!(known("publish", &body), Ok(publish("a", deep.as_bytes())));
        let endless = "{\"commands\":[{\"batch\":".repeat(100_000);
        assert!(decode("batch", endless.as_bytes()).is_err());
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>, method in 0usize..14) {
            let _ = decode(ApiMethod::ALL[method].0, &bytes);
            let _ = decode_legacy(&bytes);
        }

        #[test]
        fn text_near_json_never_panics(
            text in r#"(\{|\}|"|:|,|\[|\]|\n|"channel":"a"|"data":|"commands":|"publish":|"method":|"params":|1|null){0,40}"#,
            method in 0usize..14,
        ) {
            let _ = decode(ApiMethod::ALL[method].0, text.as_bytes());
            let _ = decode_legacy(text.as_bytes());
        }

        #[test]
        fn published_fields_arrive(channel in ".{1,20}", text: String, key: String, bytes: Vec<u8>) {
            let body = serde_json::json!({"Channel": channel, "data": text, "TAGS": {"t": key}, "b64data": STANDARD.encode(&bytes)});
            let body = serde_json::to_string_pretty(&body).unwrap();
            let Ok(Request::Publish { channel: read, data, options }) = request("publish", &body) else { panic!() };
            prop_assert_eq!(&*read, channel.as_str());
            prop_assert_eq!(&*options.tags[0].1, key.as_str());
            let json = serde_json::to_vec(&text).unwrap();
            prop_assert_eq!(&*data, if bytes.is_empty() { &json } else { &bytes });
        }
    }
}
