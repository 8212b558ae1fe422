//! Request and reply. A request is a durable publication with a tag that says so; whoever does its work replies to the delivery.
//!
//! A reply is an entry of the log as well, the only one of a channel that is named after the request. So it outlives every process,
//! reaches an asker at another node, is written once however often the work is done, is found at once by whoever asks again with
//! the same key, and goes with the retention like everything else.

use std::borrow::Cow;
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use foldhash::fast::FixedState;
use hashbrown::HashMap;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use super::group::{Holder, index_of};
use super::settings::{is_group_name, within};
use super::{
    Asker, Inner, Outlet, Scoped, asked, bad_request, encode, not_found, scope, unix_ms, wrong,
};
use crate::config::namespace::queue_of;
use crate::limits::{
    FETCH_WAIT_MS_MAX, IDEMPOTENCY_KEY_BYTES_MAX, PUBLISH_TTL_MAX, REPLY_BYTES_MAX,
};
use crate::mesh::durable::{Ask, Caller, LogError, Read};
use crate::model::{
    ChannelName, ClientInfo, Draft, Entry, EventId, Record, TenantId, Terms, key_of_client,
};
use crate::upstream::log::{Entries, Groups, Letters, Values};
use crate::wire::json::write::Members;
use crate::wire::json::{compact, fields, is_json};

/// Start of the channels that have one reply each. No group takes from them, as no group has such a name.
const REPLY_PREFIX: &str = "$queue:reply/";
/// The tag of a request.
const REQUEST_TAG: &str = "ringmain-request";
/// How long an asker waits unless it says so.
const TIMEOUT_MS: u64 = 5000;
/// A key of a request counts for this long, or as long as the log keeps anything.
const KEY_TTL: Duration = Duration::from_hours(24);
/// The log is asked again at least this often, whatever its tail says.
const LOOK: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
struct Request<'a> {
    channel: Option<Box<str>>,
    group: Option<Box<str>>,
    data: &'a [u8],
    b64data: Option<Cow<'a, str>>,
    key: Box<str>,
    schema: u32,
    trace: Box<str>,
    ttl_ms: u64,
    timeout_ms: Option<u64>,
}
impl Scoped for Request<'_> {
    fn scope(&mut self, tenant: TenantId<'_>) {
        let names = [&mut self.channel, &mut self.group];
        scope(tenant, names.into_iter().flatten());
    }
}
fields!(@Own Request<'de> {
    "channel" => channel, "group" => group, "data" => data, "b64data" => b64data, "key" => key,
    "schema" => schema, "trace" => trace, "ttl_ms" => ttl_ms, "timeout_ms" => timeout_ms,
});

#[derive(Debug, Default)]
struct Reply<'a> {
    delivery: Option<u64>,
    data: &'a [u8],
    b64data: Option<Cow<'a, str>>,
}
impl Scoped for Reply<'_> {
    /// A number is looked for among the deliveries of the tenant's groups.
    fn scope(&mut self, _: TenantId<'_>) {}
}
fields!(@Own Reply<'de> { "delivery" => delivery, "data" => data, "b64data" => b64data });

/// Whoever waits for replies, by the request.
#[derive(Default)]
pub(super) struct Replies(RefCell<HashMap<u128, Rc<Notify>, FixedState>>);

/// One that waits.
struct Waiting<'r> {
    replies: &'r Replies,
    event: EventId,
    notify: Rc<Notify>,
}

impl Replies {
    fn wait(&self, event: EventId) -> Waiting<'_> {
        let mut waiting = self.0.borrow_mut();
        let notify = Rc::clone(waiting.entry(event.0).or_default());
        Waiting {
            replies: self,
            event,
            notify,
        }
    }

    /// Entries are stored: are there replies that somebody waits for?
    pub(super) fn look(&self, entries: &[Arc<Entry>]) {
        let waiting = self.0.borrow();
        if waiting.is_empty() {
            return;
        }
        for entry in entries {
            let event = entry.record.channel.whole().strip_prefix(REPLY_PREFIX);
            if let Some(notify) = event
                .and_then(EventId::parse)
                .and_then(|event| waiting.get(&event.0))
            {
                notify.notify_waiters();
            }
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        // The table's and this one.
        if Rc::strong_count(&self.notify) == 2 {
            self.replies.0.borrow_mut().remove(&self.event.0);
        }
    }
}

/// A payload, and whether it is JSON.
fn payload(data: &[u8], b64data: Option<&str>) -> Result<(Bytes, bool), LogError> {
    match (data.is_empty(), b64data) {
        (false, None) => Ok((compact(data).into_owned().into(), true)),
        (true, Some(text)) => {
            let data = STANDARD
                .decode(text)
                .map_err(|_malformed| bad_request("b64data: expected standard base64"))?;
            let json = is_json(&data);
            Ok((data.into(), json))
        }
        (false, Some(_)) => Err(bad_request("`data` and `b64data` exclude each other")),
        (true, None) => Err(bad_request("`data` is missing")),
    }
}

fn reply_channel(event: EventId) -> ChannelName {
    ChannelName::from_whole(&format!("{REPLY_PREFIX}{event}"))
}

impl<L: Entries + Groups + Letters + Values, O: Outlet> Inner<L, O> {
    /// Publishes a request, or finds the one with the same key, and waits for its reply.
    pub(super) async fn request(&self, ask: &Ask) -> Result<Bytes, LogError> {
        let asked: Request<'_> = asked(ask)?;
        let time = asked.timeout_ms.unwrap_or(TIMEOUT_MS);
        let time = within(time, 1, FETCH_WAIT_MS_MAX, "timeout_ms", "1 to 20000").map_err(wrong)?;
        let until = Instant::now() + Duration::from_millis(time);
        let (channel, key_ttl) = self.to_whom(&asked, &ask.caller)?;
        if asked.key.len() > IDEMPOTENCY_KEY_BYTES_MAX {
            return Err(bad_request("key: expected at most 512 bytes"));
        }
        let key = match &ask.caller {
            Caller::Client { user, .. } => key_of_client(user, &asked.key),
            Caller::Service => asked.key,
        };
        let longest = u64::try_from(PUBLISH_TTL_MAX.as_millis()).unwrap_or(u64::MAX);
        let ttl_ms =
            within(asked.ttl_ms, 0, longest, "ttl_ms", "0 to 31536000000").map_err(wrong)?;
        let (data, json) = payload(asked.data, asked.b64data.as_deref())?;
        let mut draft = Draft::new(Terms::log(key_ttl), channel, data, json);
        draft.record = Record {
            event: self.new_event(),
            key,
            schema: asked.schema,
            trace: asked.trace,
            ttl_ms,
            tags: Box::new([(REQUEST_TAG.into(), "1".into())]),
            unix_ms: unix_ms(),
            publisher: publisher(&ask.caller),
            ..draft.record
        };
        let made = draft.record.event;
        let answered = async {
            let appended = self.outlet.append(vec![draft]).await.pop();
            let appended = appended.ok_or_else(|| bad_request("nothing was stored"))??;
            self.reply_to(appended.event.unwrap_or(made)).await
        };
        timeout_at(until, answered)
            .await
            .unwrap_or(Err(LogError::NoReply))
    }

    /// Where a request goes, and how long its key counts.
    fn to_whom(
        &self,
        asked: &Request<'_>,
        caller: &Caller,
    ) -> Result<(ChannelName, Duration), LogError> {
        let config = self.config.borrow();
        let kept = config.durable.retention_age;
        match (asked.channel.as_deref(), asked.group.as_deref()) {
            (Some(channel), None) => {
                let namespace = config.channels.resolve_whole(channel).ok();
                let namespace = namespace.filter(|namespace| namespace.is_durable());
                let Some(namespace) = namespace.filter(|_| !channel.is_empty()) else {
                    return Err(bad_request(
                        "`channel` is no channel of a durable namespace: a request has to be kept",
                    ));
                };
                let ttl = namespace.idempotency_ttl.min(kept);
                Ok((ChannelName::from_whole(channel), ttl))
            }
            (None, Some(_)) if !matches!(caller, Caller::Service) => Err(LogError::Forbidden(
                "only services ask a group: ask in a channel that you may publish in".into(),
            )),
            (None, Some(group)) => {
                if !is_group_name(group) || self.place(group).is_none() {
                    return Err(self.absent(group));
                }
                let channel = ChannelName::from_whole(&queue_of(group));
                Ok((channel, KEY_TTL.min(kept)))
            }
            _ => Err(bad_request(
                "exactly one of `channel` and `group` is needed",
            )),
        }
    }

    fn new_event(&self) -> EventId {
        EventId::new(unix_ms(), self.rng.borrow_mut().wide_bits())
    }

    /// The reply to a request, once it is there.
    async fn reply_to(&self, event: EventId) -> Result<Bytes, LogError> {
        let waiting = self.replies.wait(event);
        let read = Read {
            channel: reply_channel(event),
            after: Some(0),
            limit: 1,
            bytes: 1,
        };
        loop {
            let mut notified = std::pin::pin!(waiting.notify.notified());
            notified.as_mut().enable();
            if let Some(reply) = self.log.read(&read).await?.entries.first() {
                let mut out = Vec::new();
                let mut members = Members::open(&mut out);
                members.plain("event_id", &event.encode());
                encode::data(&mut members, &reply.record.data, reply.record.json);
                members.close();
                return Ok(Bytes::from(out));
            }
            // Its end is the time for another look.
            let _ = tokio::time::timeout(LOOK, notified).await;
        }
    }

    /// Stores the reply to a request, unless there is one, and acknowledges the delivery.
    pub(super) async fn reply(&self, asker: Asker, ask: &Ask) -> Result<Bytes, LogError> {
        let asked: Reply<'_> = asked(ask)?;
        let delivery = asked
            .delivery
            .ok_or_else(|| bad_request("`delivery` is missing"))?;
        let (data, json) = payload(asked.data, asked.b64data.as_deref())?;
        if data.len() > REPLY_BYTES_MAX {
            return Err(bad_request("a reply has at most 262144 bytes"));
        }
        let holder = match ask.caller {
            Caller::Service => Holder::Service,
            Caller::Client { conn, .. } => Holder::Connection((asker.0, conn)),
        };
        let place = self.groups.borrow().get(index_of(delivery)).cloned();
        let tenant = TenantId::new(&ask.tenant);
        let place = place.flatten();
        let place = place.filter(|place| TenantId::of(&place.name) == tenant);
        let entry = place
            .as_ref()
            .and_then(|place| place.group.borrow().entry_of(holder, delivery));
        let (Some(place), Some(entry)) = (place, entry) else {
            return Err(not_found(
                "there is no such delivery here: it has run out, is settled, or is somebody else's",
            ));
        };
        let mut tags = entry.record.tags.iter();
        if !tags.any(|(name, _)| &**name == REQUEST_TAG) {
            return Err(bad_request(
                "the delivery is no request, and nobody waits for a reply: acknowledge it",
            ));
        }
        let channel = reply_channel(entry.record.event);
        let mut draft = Draft::new(Terms::log(KEY_TTL), channel, data, json);
        draft.record.event = self.new_event();
        draft.record.key = "reply".into();
        draft.record.unix_ms = unix_ms();
        draft.record.publisher = publisher(&ask.caller);
        let appended = self.outlet.append(vec![draft]).await.pop();
        let appended = appended.ok_or_else(|| bad_request("nothing was stored"))??;
        let now = self.now();
        let acked = place.group.borrow_mut().handle_acked(now, holder, delivery);
        place.wake.notify_one();
        let mut out = Vec::new();
        let mut members = Members::open(&mut out);
        members.boolean("replied", appended.is_new);
        members.boolean("acked", acked);
        members.close();
        Ok(Bytes::from(out))
    }
}

/// A client that asks or replies.
fn publisher(caller: &Caller) -> Option<Arc<ClientInfo>> {
    let Caller::Client { client, user, .. } = caller else {
        return None;
    };
    Some(Arc::new(ClientInfo {
        user: user.clone(),
        client: *client,
        conn_info: Bytes::new(),
        chan_info: Bytes::new(),
    }))
}
