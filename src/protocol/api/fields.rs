//! The fields of each method: what the body says, then what it means.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::MapAccess;

use super::error::ApiError;
use super::request::{
    Broadcast, ConnectionRefresh, Data, HistoryCall, PublishOptions, Request, SubscribeCall, Whom,
};
use crate::limits::{CHANNEL_NAME_BYTES_MAX, TOKEN_ID_BYTES_MAX, USER_ID_BYTES_MAX};
use crate::mesh::message::Revocation;
use crate::model::ClientId;
use crate::protocol::centrifuge::json::Position;
use crate::protocol::disconnect::Disconnect;
use crate::wire::json::{Object, compact, fields};

/// What decoding gives when the HTTP request itself is sound.
pub(super) type DecodedCall<'a> = Result<Request<'a>, ApiError>;

/// Fields of one method as they stand in the body.
pub(super) trait Fields<'de>: Object<'de> {
    /// Checks them.
    fn request(self) -> DecodedCall<'de>;
}

/// Text that must not be empty.
fn required<'a>(member: &str, text: Cow<'a, str>) -> Result<Cow<'a, str>, ApiError> {
    if text.is_empty() {
        Err(ApiError::missing(member))
    } else {
        Ok(text)
    }
}

/// A time in Unix seconds; zero is none.
const fn moment(unix_s: i64) -> Option<i64> {
    if unix_s == 0 { None } else { Some(unix_s) }
}

/// `data` and `b64data`, or another pair: the latter wins unless it is empty. `None` if neither was sent.
fn payload<'a>(
    member: &str,
    raw: &'a [u8],
    b64: Option<Cow<'a, str>>,
) -> Result<Option<Data<'a>>, ApiError> {
    match b64 {
        Some(text) if !text.is_empty() => {
            let bytes = STANDARD.decode(text.as_bytes()).map_err(|_| {
                ApiError::wrong(&format!("b64{member}"), "expected standard base64")
            })?;
            Ok(Some(Cow::Owned(bytes)))
        }
        _ if !raw.is_empty() => Ok(Some(compact(raw))),
        Some(_) => Ok(Some(Cow::Borrowed(b""))),
        None => Ok(None),
    }
}

/// `info` and `b64info`, or the `data` of a Subscribe push: one JSON value or, for Protobuf clients, bytes; empty when absent
/// or `null`.
fn payload_some<'a>(
    member: &str,
    raw: &'a [u8],
    b64: Option<Cow<'a, str>>,
) -> Result<Data<'a>, ApiError> {
    let raw = if raw == b"null" { b"" } else { raw };
    Ok(payload(member, raw, b64)?.unwrap_or_default())
}

fields!(PublishOptions<'de> {
    "skip_history" => skip_history,
    "tags" => tags,
    "idempotency_key" => idempotency_key,
    "delta" => delta,
    "version" => version,
    "version_epoch" => version_epoch,
    "schema" => schema,
    "trace" => trace,
    "deliver_at" => deliver_at,
    "delay_ms" => delay_ms,
    "ttl_ms" => ttl_ms,
});

fields!(Whom<'de> { "user" => user, "client" => client, "session" => session });

#[derive(Default)]
pub(super) struct PublishFields<'a> {
    channel: Cow<'a, str>,
    data: &'a [u8],
    b64data: Option<Cow<'a, str>>,
    options: PublishOptions<'a>,
    unknown: Option<Box<str>>,
}
fields!(PublishFields<'de> {
    "channel" => channel, "data" => data, "b64data" => b64data, .. options, else unknown
});

impl<'de> Fields<'de> for PublishFields<'de> {
    fn request(self) -> DecodedCall<'de> {
        let data = payload("data", self.data, self.b64data)?;
        let data = data.ok_or_else(|| ApiError::missing("data"))?;
        Ok(Request::Publish {
            channel: required("channel", self.channel)?,
            data,
            options: PublishOptions {
                unknown: self.unknown,
                ..self.options
            },
        })
    }
}

#[derive(Default)]
pub(super) struct BroadcastFields<'a> {
    channels: Vec<Cow<'a, str>>,
    data: &'a [u8],
    b64data: Option<Cow<'a, str>>,
    options: PublishOptions<'a>,
    unknown: Option<Box<str>>,
}
fields!(BroadcastFields<'de> {
    "channels" => channels, "data" => data, "b64data" => b64data, .. options, else unknown
});

impl<'de> Fields<'de> for BroadcastFields<'de> {
    fn request(self) -> DecodedCall<'de> {
        if self.channels.is_empty() {
            return Err(ApiError::missing("channels"));
        }
        let data = payload("data", self.data, self.b64data)?.unwrap_or_default();
        Ok(Request::Broadcast(Broadcast {
            channels: self.channels,
            data,
            options: PublishOptions {
                unknown: self.unknown,
                ..self.options
            },
        }))
    }
}

#[derive(Default)]
pub(super) struct UnsubscribeFields<'a> {
    channel: Cow<'a, str>,
    target: Whom<'a>,
}
fields!(UnsubscribeFields<'de> { "channel" => channel, .. target });

impl<'de> Fields<'de> for UnsubscribeFields<'de> {
    fn request(self) -> DecodedCall<'de> {
        Ok(Request::Unsubscribe {
            channel: required("channel", self.channel)?,
            target: self.target,
        })
    }
}

#[derive(Default)]
pub(super) struct DisconnectFields<'a> {
    target: Whom<'a>,
    whitelist: Vec<Cow<'a, str>>,
    disconnect: Option<ChosenFields<'a>>,
}
fields!(DisconnectFields<'de> { "whitelist" => whitelist, "disconnect" => disconnect, .. target });

#[derive(Default)]
struct ChosenFields<'a> {
    code: u32,
    reason: Cow<'a, str>,
}
fields!(ChosenFields<'de> { "code" => code, "reason" => reason });

impl<'de> Fields<'de> for DisconnectFields<'de> {
    fn request(self) -> DecodedCall<'de> {
        let disconnect = match self.disconnect {
            Some(chosen) if chosen.code != 0 || !chosen.reason.is_empty() => {
                let disconnect = Disconnect::chosen(chosen.code, &chosen.reason);
                disconnect.ok_or_else(|| {
                    ApiError::wrong(
                        "disconnect",
                        "expected a code from 3000 to 4999 and a short plain reason",
                    )
                })?
            }
            Some(_) | None => Disconnect::ForceDisconnect,
        };
        Ok(Request::Disconnect {
            target: self.target,
            whitelist: self.whitelist,
            disconnect,
        })
    }
}

/// A request about one channel and nothing else.
macro_rules! about_channel {
    ($($fields:ident => $request:ident),+ $(,)?) => {
        $(
            #[derive(Default)]
            pub(super) struct $fields<'a> {
                channel: Cow<'a, str>,
            }
            fields!($fields<'de> { "channel" => channel });

            impl<'de> Fields<'de> for $fields<'de> {
                fn request(self) -> DecodedCall<'de> {
                    Ok(Request::$request { channel: required("channel", self.channel)? })
                }
            }
        )+
    };
}
about_channel!(
    PresenceStatsFields => PresenceStats,
    HistoryRemoveFields => HistoryRemove,
);

#[derive(Default)]
pub(super) struct PresenceFields<'a> {
    channel: Cow<'a, str>,
    limit: u64,
    cursor: Cow<'a, str>,
}
fields!(PresenceFields<'de> { "channel" => channel, "limit" => limit, "cursor" => cursor });

impl<'de> Fields<'de> for PresenceFields<'de> {
    fn request(self) -> DecodedCall<'de> {
        let after = match &*self.cursor {
            "" => None,
            cursor => Some(
                ClientId::parse(cursor)
                    .ok_or_else(|| ApiError::wrong("cursor", "expected that of the page before"))?,
            ),
        };
        Ok(Request::Presence {
            channel: required("channel", self.channel)?,
            limit: u32::try_from(self.limit).unwrap_or(u32::MAX),
            after,
        })
    }
}

#[derive(Default)]
pub(super) struct HistoryFields<'a> {
    channel: Cow<'a, str>,
    limit: i32,
    since: Option<Position<'a>>,
    reverse: bool,
}
fields!(HistoryFields<'de> { "channel" => channel, "limit" => limit, "since" => since, "reverse" => reverse });

impl<'de> Fields<'de> for HistoryFields<'de> {
    fn request(self) -> DecodedCall<'de> {
        let Self {
            channel,
            limit,
            since,
            reverse,
        } = self;
        // Nothing lies before the first publication (§4.5).
        if reverse && since.as_ref().is_some_and(|since| since.offset == 0) {
            return Err(ApiError::wrong(
                "since.offset",
                "expected a number from 1 where `reverse` is set",
            ));
        }
        let since = since.map(|since| (since.offset, since.epoch));
        Ok(Request::History(HistoryCall {
            channel: required("channel", channel)?,
            limit,
            since,
            reverse,
        }))
    }
}

#[derive(Default)]
pub(super) struct ChannelsFields<'a> {
    pattern: Cow<'a, str>,
}
fields!(ChannelsFields<'de> { "pattern" => pattern });

impl<'de> Fields<'de> for ChannelsFields<'de> {
    fn request(self) -> DecodedCall<'de> {
        Ok(Request::Channels {
            pattern: self.pattern,
        })
    }
}

#[derive(Default)]
pub(super) struct InfoFields;

impl<'de> Object<'de> for InfoFields {
    fn read<A: MapAccess<'de>>(&mut self, _: &str, _: &mut A) -> Result<bool, A::Error> {
        Ok(false)
    }
}

impl<'de> Fields<'de> for InfoFields {
    fn request(self) -> DecodedCall<'de> {
        Ok(Request::Info)
    }
}

#[derive(Default)]
pub(super) struct RpcFields<'a> {
    method: Cow<'a, str>,
}
fields!(RpcFields<'de> { "method" => method });

impl<'de> Fields<'de> for RpcFields<'de> {
    /// No method can be registered, so none is found.
    fn request(self) -> DecodedCall<'de> {
        required("method", self.method)?;
        Err(ApiError::NotFound)
    }
}

#[derive(Default)]
pub(super) struct SubscribeFields<'a> {
    target: Whom<'a>,
    channel: Cow<'a, str>,
    expire_at: i64,
    info: &'a [u8],
    b64info: Option<Cow<'a, str>>,
    data: &'a [u8],
    b64data: Option<Cow<'a, str>>,
    recover_since: Option<Position<'a>>,
    overrides: Option<OverrideFields>,
}
fields!(SubscribeFields<'de> {
    "channel" => channel,
    "expire_at" => expire_at,
    "info" => info,
    "b64info" => b64info,
    "data" => data,
    "b64data" => b64data,
    "recover_since" => recover_since,
    "override" => overrides,
    .. target
});

#[derive(Default)]
struct OverrideFields {
    presence: Option<FlagFields>,
    join_leave: Option<FlagFields>,
    force_recovery: Option<FlagFields>,
    force_positioning: Option<FlagFields>,
    force_push_join_leave: Option<FlagFields>,
}
fields!(OverrideFields {
    "presence" => presence,
    "join_leave" => join_leave,
    "force_recovery" => force_recovery,
    "force_positioning" => force_positioning,
    "force_push_join_leave" => force_push_join_leave,
});

#[derive(Default)]
struct FlagFields {
    value: bool,
}
fields!(FlagFields { "value" => value });

impl<'de> Fields<'de> for SubscribeFields<'de> {
    fn request(self) -> DecodedCall<'de> {
        let flag = |fields: Option<FlagFields>| fields.map(|fields| fields.value);
        let overrides = self.overrides.unwrap_or_default();
        Ok(Request::Subscribe(Box::new(SubscribeCall {
            target: self.target,
            channel: required("channel", self.channel)?,
            expire_at: moment(self.expire_at),
            info: payload_some("info", self.info, self.b64info)?,
            data: payload_some("data", self.data, self.b64data)?,
            recover_since: self.recover_since.map(|since| (since.offset, since.epoch)),
            overrides: crate::model::Overrides {
                presence: flag(overrides.presence),
                join_leave: flag(overrides.join_leave),
                force_recovery: flag(overrides.force_recovery),
                force_positioning: flag(overrides.force_positioning),
                force_push_join_leave: flag(overrides.force_push_join_leave),
            },
        })))
    }
}

#[derive(Default)]
pub(super) struct RevokeTokenFields<'a> {
    uid: Cow<'a, str>,
    expire_at: i64,
}
fields!(RevokeTokenFields<'de> { "uid" => uid, "expire_at" => expire_at });

impl<'de> Fields<'de> for RevokeTokenFields<'de> {
    fn request(self) -> DecodedCall<'de> {
        if self.uid.len() > TOKEN_ID_BYTES_MAX {
            return Err(too_long("uid", TOKEN_ID_BYTES_MAX));
        }
        Ok(Request::Revoke(Revocation::Token {
            id: (*required("uid", self.uid)?).into(),
            until: end(self.expire_at),
        }))
    }
}

#[derive(Default)]
pub(super) struct InvalidateFields<'a> {
    user: Cow<'a, str>,
    issued_before: i64,
    expire_at: i64,
    channel: Cow<'a, str>,
}
fields!(InvalidateFields<'de> {
    "user" => user, "issued_before" => issued_before, "expire_at" => expire_at, "channel" => channel
});

impl<'de> Fields<'de> for InvalidateFields<'de> {
    fn request(self) -> DecodedCall<'de> {
        if self.channel.len() > CHANNEL_NAME_BYTES_MAX {
            return Err(too_long("channel", CHANNEL_NAME_BYTES_MAX));
        }
        Ok(Request::Revoke(Revocation::UserTokens {
            user: user_id(&self.user)?,
            issued_before: end(self.issued_before),
            channel: (*self.channel).into(),
            until: end(self.expire_at),
        }))
    }
}

#[derive(Default)]
pub(super) struct BlockUserFields<'a> {
    user: Cow<'a, str>,
    expire_at: i64,
}
fields!(BlockUserFields<'de> { "user" => user, "expire_at" => expire_at });

impl<'de> Fields<'de> for BlockUserFields<'de> {
    fn request(self) -> DecodedCall<'de> {
        Ok(Request::Revoke(Revocation::Block {
            user: user_id(&self.user)?,
            until: end(self.expire_at),
        }))
    }
}

#[derive(Default)]
pub(super) struct UnblockUserFields<'a> {
    user: Cow<'a, str>,
}
fields!(UnblockUserFields<'de> { "user" => user });

impl<'de> Fields<'de> for UnblockUserFields<'de> {
    fn request(self) -> DecodedCall<'de> {
        Ok(Request::Revoke(Revocation::Unblock {
            user: user_id(&self.user)?,
        }))
    }
}

fn too_long(member: &str, max: usize) -> ApiError {
    ApiError::wrong(member, &format!("expected at most {max} bytes"))
}

/// A user who is meant by name: the anonymous one cannot be shut out.
fn user_id(user: &str) -> Result<Box<str>, ApiError> {
    if user.is_empty() {
        return Err(ApiError::missing("user"));
    }
    if user.len() > USER_ID_BYTES_MAX {
        return Err(too_long("user", USER_ID_BYTES_MAX));
    }
    Ok(user.into())
}

/// A moment as the tables keep it; what lies before 1970 is long over.
fn end(unix_s: i64) -> Option<u64> {
    moment(unix_s).map(|at| u64::try_from(at).unwrap_or(0))
}

#[derive(Default)]
pub(super) struct RefreshFields<'a> {
    target: Whom<'a>,
    expired: bool,
    expire_at: i64,
    info: &'a [u8],
}
fields!(RefreshFields<'de> { "expired" => expired, "expire_at" => expire_at, "info" => info, .. target });

impl<'de> Fields<'de> for RefreshFields<'de> {
    fn request(self) -> DecodedCall<'de> {
        Ok(Request::Refresh(ConnectionRefresh {
            target: self.target,
            expired: self.expired,
            expire_at: moment(self.expire_at),
            info: payload_some("info", self.info, None)?,
        }))
    }
}
