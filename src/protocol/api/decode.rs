//! Bodies into requests.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::error::{ApiDecodeError, ApiError};
use super::fields::{
    BroadcastFields, ChannelsFields, Decoded, DisconnectFields, Fields, HistoryFields,
    HistoryRemoveFields, InfoFields, PresenceFields, PresenceStatsFields, PublishFields,
    RefreshFields, RpcFields, SubscribeFields, UnsubscribeFields,
};
use super::request::{Batch, Request};
use crate::limits::COMMANDS_PER_FRAME_MAX;
use crate::protocol::centrifuge::json::read::{Object, Part, Value, fields, value};

/// Decodes the body of `/api/<method>`.
///
/// # Errors
/// The outer error is the HTTP request's, the inner one the answer's.
pub fn decode<'a>(
    method: &str,
    body: &'a [u8],
) -> Result<Result<Request<'a>, ApiError>, ApiDecodeError> {
    let method = Method::named(method).ok_or(ApiDecodeError::UnknownMethod)?;
    let decoded = method
        .request(Body(text(body)?))
        .map_err(|_| ApiDecodeError::BadJson)?;
    Ok(decoded.unwrap_or(Err(ApiError::BadRequest)))
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
        let Ok(Part(Some(fields))) = fields else {
            return Err(ApiDecodeError::BadJson);
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
    simdutf8::basic::from_utf8(body).map_err(|_| ApiDecodeError::BadJson)
}

/// A method of this server. The order is that of the integers which once named methods on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd)]
enum Method {
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
    Batch,
}

impl Method {
    const ALL: [(&'static str, Self); 14] = [
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
        ("batch", Self::Batch),
    ];

    fn named(name: &str) -> Option<Self> {
        Self::ALL
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, method)| *method)
    }

    /// Reads the fields of a request; `None` for `null`.
    fn request<'de, S: Source<'de>>(self, source: S) -> Result<Option<Decoded<'de>>, S::Error> {
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
            Self::Batch => part::<BatchFields<'de>, S>(source),
        }
    }
}

/// Methods of the reference that this server does not have: `NotFound` where a request names its method inside the body.
const FOREIGN_METHODS: &[&str] = &[
    "batch",
    "block_user",
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
    "invalidate_user_tokens",
    "map_clear",
    "map_publish",
    "map_read_state",
    "map_read_stream",
    "map_remove",
    "map_stats",
    "revoke_token",
    "send_push_notification",
    "shared_poll_publish",
    "unblock_user",
    "update_push_status",
    "update_user_status",
    "user_topic_list",
    "user_topic_update",
];

/// The greatest integer that once named a method.
const METHOD_NUMBER_MAX: u64 = 32;

/// Where the fields of a request stand.
trait Source<'de> {
    type Error;
    fn part<T: Object<'de>>(self) -> Result<Option<T>, Self::Error>;
}

/// The whole text.
struct Body<'de>(&'de str);

impl<'de> Source<'de> for Body<'de> {
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

fn part<'de, F: Fields<'de>, S: Source<'de>>(source: S) -> Result<Option<Decoded<'de>>, S::Error> {
    Ok(source.part::<F>()?.map(F::request))
}

#[derive(Default)]
struct BatchFields<'a> {
    commands: Items<'a>,
    parallel: bool,
}
fields!(BatchFields<'de> { "commands" => commands, "parallel" => parallel });

impl<'de> Fields<'de> for BatchFields<'de> {
    fn request(self) -> Decoded<'de> {
        if self.commands.left_out {
            return Err(ApiError::BadRequest);
        }
        Ok(Request::Batch(Batch {
            commands: self.commands.items,
            parallel: self.parallel,
        }))
    }
}

/// The commands of a batch.
#[derive(Default)]
struct Items<'a> {
    items: Vec<Decoded<'a>>,
    /// There were more than may be.
    left_out: bool,
}

impl<'de> Value<'de> for Items<'de> {
    fn read<A: MapAccess<'de>>(map: &mut A) -> Result<Self, A::Error> {
        Ok(map.next_value::<Option<Self>>()?.unwrap_or_default())
    }
}

impl<'de> Deserialize<'de> for Items<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(ItemsVisitor)
    }
}

struct ItemsVisitor;

impl<'de> Visitor<'de> for ItemsVisitor {
    type Value = Items<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of commands")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut items = Vec::new();
        while items.len() < COMMANDS_PER_FRAME_MAX {
            let Some(Part(item)) = seq.next_element::<Part<Item<'de>>>()? else {
                return Ok(Items {
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
        Ok(Items { items, left_out })
    }
}

/// One command of a batch: of several methods the first in the order of `Method` counts.
#[derive(Default)]
struct Item<'a> {
    first: Option<(Method, Decoded<'a>)>,
}

impl<'a> Item<'a> {
    fn request(self) -> Decoded<'a> {
        self.first
            .map_or(Err(ApiError::NotFound), |(_, decoded)| decoded)
    }
}

impl<'de> Object<'de> for Item<'de> {
    fn read<A: MapAccess<'de>>(&mut self, name: &str, map: &mut A) -> Result<bool, A::Error> {
        let Some(method) = Method::named(name).filter(|method| *method != Method::Batch) else {
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
            LegacyMethod::Known(_) if self.params.is_empty() => Err(ApiError::BadRequest),
            LegacyMethod::Known(method) => {
                let params = str::from_utf8(self.params).map_err(|_| ApiDecodeError::BadJson)?;
                let decoded = method
                    .request(Body(params))
                    .map_err(|_| ApiDecodeError::BadJson)?;
                decoded.unwrap_or(Err(ApiError::BadRequest))
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
    Known(Method),
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
            .and_then(|number| Method::ALL.get(number));
        match method {
            Some((_, method)) if *method != Method::Batch => Self::Known(*method),
            _ if number <= METHOD_NUMBER_MAX => Self::Foreign,
            _ => Self::Unknown,
        }
    }

    fn named(name: &str) -> Self {
        let name = name.to_ascii_lowercase();
        match Method::named(&name) {
            _ if FOREIGN_METHODS.contains(&name.as_str()) => Self::Foreign,
            Some(method) => Self::Known(method),
            None => Self::Unknown,
        }
    }
}

impl<'de> Value<'de> for LegacyMethod {
    fn read<A: MapAccess<'de>>(map: &mut A) -> Result<Self, A::Error> {
        Ok(map.next_value::<Option<Self>>()?.unwrap_or_default())
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
