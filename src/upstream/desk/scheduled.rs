//! Publications that are not due yet: what of them is listed, cancelled, and given another time.

use bytes::Bytes;

use super::{Scoped, asked, bad_request, encode, not_found, own, scope, unix_ms};
use crate::config::due_ms;
use crate::limits::{HISTORY_BYTES_MAX, SCHEDULED_PAGE_MAX};
use crate::mesh::durable::{Ask, Caller, LogError};
use crate::model::{ChannelName, ClientInfo, EventId, TenantId, key_of_client};
use crate::upstream::log::{Name, Page, Pending, Place, Scheduled, Which};
use crate::wire::json::fields;
use crate::wire::json::write::Members;

#[derive(Debug, Default)]
struct Listed {
    channel: Option<Box<str>>,
    after: Option<Box<str>>,
    limit: Option<usize>,
}
impl Scoped for Listed {
    fn scope(&mut self, tenant: TenantId<'_>) {
        scope(tenant, &mut self.channel);
    }
}
fields!(@Own Listed { "channel" => channel, "after" => after, "limit" => limit });

#[derive(Debug, Default)]
struct Named {
    channel: Box<str>,
    key: Option<Box<str>>,
    event_id: Option<Box<str>>,
}
impl Scoped for Named {
    fn scope(&mut self, tenant: TenantId<'_>) {
        scope(tenant, [&mut self.channel]);
    }
}
fields!(@Own Named { "channel" => channel, "key" => key, "event_id" => event_id });

#[derive(Debug, Default)]
struct Changed {
    channel: Box<str>,
    key: Option<Box<str>>,
    event_id: Option<Box<str>>,
    deliver_at: u64,
    delay_ms: u64,
}
impl Scoped for Changed {
    fn scope(&mut self, tenant: TenantId<'_>) {
        scope(tenant, [&mut self.channel]);
    }
}
fields!(@Own Changed {
    "channel" => channel, "key" => key, "event_id" => event_id, "deliver_at" => deliver_at, "delay_ms" => delay_ms
});

impl Named {
    /// The one that is meant.
    fn which(self) -> Result<Which, LogError> {
        let channel = &*self.channel;
        if own(channel).is_empty() {
            return Err(bad_request("`channel` is missing"));
        }
        let name = match (self.key.filter(|key| !key.is_empty()), self.event_id) {
            (Some(_), Some(_)) => {
                return Err(bad_request("`key` and `event_id` exclude each other"));
            }
            (Some(key), None) => Name::Key(key),
            (None, Some(event)) => Name::Event(
                EventId::parse(&event)
                    .ok_or_else(|| bad_request("`event_id` is not an event id"))?,
            ),
            (None, None) => {
                return Err(bad_request("`key` or `event_id` is missing"));
            }
        };
        let channel = ChannelName::from_whole(channel);
        Ok(Which { channel, name })
    }
}

/// A page of them, in the order of their times.
pub(super) async fn list<L: Scheduled>(log: &L, ask: &Ask) -> Result<Bytes, LogError> {
    let tenant = TenantId::new(&ask.tenant);
    let asked = match ask.data.is_empty() {
        true => Listed::default(),
        false => asked::<Listed>(ask)?,
    };
    let after = asked.after.filter(|after| !after.is_empty());
    let after = match &after {
        Some(after) => Some(place(after).ok_or_else(|| bad_request("`after` is what `next` was"))?),
        None => None,
    };
    let limit = asked.limit.unwrap_or(100).clamp(1, SCHEDULED_PAGE_MAX);
    let wanted = Page {
        channel: asked.channel.as_deref().map(ChannelName::from_whole),
        after,
        limit,
        bytes: HISTORY_BYTES_MAX,
    };
    let found = log.scheduled(&wanted).await?;
    let bytes: usize = found.iter().map(|one| one.draft.record.bytes()).sum();
    let mut out = Vec::new();
    let mut members = Members::open(&mut out);
    let of_tenant = |one: &&Pending| one.draft.record.channel.tenant() == tenant;
    members.array("scheduled", found.iter().filter(of_tenant), one);
    let is_full = found.len() >= limit || bytes >= HISTORY_BYTES_MAX;
    if let Some(last) = found.last().filter(|_| is_full) {
        let Place { due_ms, number } = last.place;
        members.text("next", &format!("{due_ms}/{number}"));
    }
    members.close();
    Ok(Bytes::from(out))
}

fn place(text: &str) -> Option<Place> {
    let (due_ms, number) = text.split_once('/')?;
    Some(Place {
        due_ms: due_ms.parse().ok()?,
        number: number.parse().ok()?,
    })
}

fn one(out: &mut Vec<u8>, pending: &Pending) {
    let mut members = Members::open(out);
    members.plain("event_id", &pending.draft.record.event.encode());
    members.text("channel", pending.draft.record.channel.name());
    members.number("deliver_at", pending.place.due_ms);
    encode::record(&mut members, &pending.draft.record, true);
}

/// Forgets one. A client does so with what its user has published.
pub(super) async fn cancel<L: Scheduled>(log: &L, ask: &Ask) -> Result<Bytes, LogError> {
    let mut named = asked::<Named>(ask)?;
    if let Caller::Client { user, .. } = &ask.caller {
        named.key = named.key.map(|key| key_of_client(user, &key));
    }
    let which = named.which()?;
    if let Caller::Client { client, user, .. } = &ask.caller {
        let pending = log.pending(&which).await?.ok_or_else(absent)?;
        let is_own = |publisher: &ClientInfo| match user.is_empty() {
            true => publisher.client == *client,
            false => publisher.user == *user,
        };
        let publisher = pending.draft.record.publisher.as_deref();
        if !publisher.is_some_and(is_own) {
            return Err(LogError::Forbidden(
                "another user has published it, or a service".into(),
            ));
        }
    }
    let cancelled = log.cancel(&which).await?.ok_or_else(absent)?;
    Ok(told(&cancelled))
}

/// Gives one another time.
pub(super) async fn change<L: Scheduled>(log: &L, ask: &Ask) -> Result<Bytes, LogError> {
    let asked = asked::<Changed>(ask)?;
    if asked.deliver_at == 0 && asked.delay_ms == 0 {
        return Err(bad_request(
            "`deliver_at` or `delay_ms` is missing: a time in the past publishes it at once",
        ));
    }
    let now_ms = unix_ms();
    let due = due_ms(now_ms, asked.deliver_at, asked.delay_ms)
        .map_err(|unfit| bad_request(&format!("{}: {unfit}", unfit.member())))?;
    let due = if due == 0 { now_ms } else { due };
    let named = Named {
        channel: asked.channel,
        key: asked.key,
        event_id: asked.event_id,
    };
    let changed = log.change(&named.which()?, due).await?;
    Ok(told(&changed.ok_or_else(absent)?))
}

fn absent() -> LogError {
    not_found("no publication waits there under this name: it is published, or it was cancelled")
}

fn told(pending: &Pending) -> Bytes {
    let mut out = Vec::new();
    let mut members = Members::open(&mut out);
    members.plain("event_id", &pending.draft.record.event.encode());
    members.number("deliver_at", pending.place.due_ms);
    members.close();
    Bytes::from(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::json::{null, object};

    #[test]
    fn null_parameters_are_absent_ones_and_unknown_ones_are_named() {
        let sample = serde_json::json!({
            "channel": "c", "key": "k", "event_id": "e", "deliver_at": 1, "delay_ms": 2,
        });
        null::covers(&sample, &null::names::<Changed>());
        null::same(&sample, &[], |text| {
            format!("{:?}", object::<Changed>(text.as_bytes()))
        });
        let error = super::super::parameters::<Named>(br#"{"event":"e"}"#).expect_err("unknown");
        assert!(error.to_string().starts_with("event: unknown"), "{error}");
    }

    #[test]
    fn one_of_them_is_meant_by_its_channel_and_one_name() {
        let which =
            |text: &str| super::super::parameters::<Named>(text.as_bytes()).and_then(Named::which);
        assert!(which(r#"{"channel":"c","key":"k"}"#).is_ok());
        let event = EventId(7);
        assert!(which(&format!(r#"{{"channel":"c","event_id":"{event}"}}"#)).is_ok());
        for wrong in [
            r#"{"key":"k"}"#,
            r#"{"channel":"c"}"#,
            r#"{"channel":"c","key":""}"#,
            r#"{"channel":"c","event_id":"7"}"#,
            r#"{"channel":"c","key":"k","event_id":"7"}"#,
        ] {
            assert!(
                matches!(which(wrong), Err(LogError::BadRequest(_))),
                "{wrong}"
            );
        }
    }
}
