//! A session as bytes, and what it keeps of what clients and backends said.

use super::{Connecting, Counted, Extra, Phase, Pings, Rare, Session, Subscription};
use crate::config::Secret;
use crate::config::hooks::{Breaker, Signing, Target, Transform};
use crate::image::{Image, ImageError, ImageReader, ImageWriter, image};
use crate::mesh::hook::{
    Call, ConnectVerdict, HookAnswer, HookEvent, PublishVerdict, RefreshVerdict, SubscribeVerdict,
    Verdict,
};
use crate::protocol::push::Unsubscribe;

image!(struct Session {
    client, user, info, subscriptions, connecting, order, rare, expire_at, issued_at, next, pong_by,
    phase, format, has_token, counted, frame_pings, pings
});
image!(struct Pings { bits });
image!(struct Counted { bits });
image!(enum Phase { 0 => Fresh, 1 => Connecting, 2 => Connected, 3 => Refused, 4 => Ended });
image!(struct Subscription { hub, place, expire_at, flags, extra });
image!(struct Extra { info, data, filter, unsubscribe, next, ends });
image!(struct Connecting { id, awaited, results, pushes, waiting, recovers, data });
image!(enum Unsubscribe { 0 => Server, 1 => Gone, 2 => Insufficient, 3 => Expired });

image!(struct HookAnswer { call, verdict });
image!(struct Call { ask, target, conn, id, client, format, user, from, meta, headers, event });
image!(enum HookEvent {
    0 => Connect { data, name, version, channels },
    1 => Refresh,
    2 => Subscribe { channel, data },
    3 => Publish { channel, data },
    4 => SubRefresh { hub, channel },
    5 => Rpc { method, data },
});
image!(enum Verdict {
    0 => Connect(result),
    1 => Refresh(result),
    2 => Subscribe(result),
    3 => Publish(result),
    4 => Rpc(data),
    5 => Error(error),
    6 => Disconnect(code, reason),
    7 => Failed,
});
image!(struct ConnectVerdict { user, expire_at, info, data, subs, meta });
image!(struct SubscribeVerdict { expire_at, info, data, overrides, cache_recover });
image!(struct RefreshVerdict { expired, expire_at, info, meta });
image!(struct PublishVerdict { data, skip_history, tags, idempotency_key, delta, ttl_ms, version, version_epoch });
image!(struct Target {
    name, endpoint, timeout, http_headers, emulated_headers, binary_encoding,
    include_connection_meta, static_headers, signing, transforms, concurrency_max, queue_max, rate, breaker
});
image!(struct Signing { secret, previous });
image!(struct Breaker { error_rate, latency, calls_min, window, open_for });
image!(struct Transform {
    status_code, error_code, error_message, error_temporary, disconnect_code, disconnect_reason
});
image!(tuple Secret(text));

impl Image for Rare {
    fn write(&self, out: &mut ImageWriter) {
        let Self {
            rate,
            secret,
            head,
            cors,
            poll,
            meta,
            grants,
            is_worker,
            token_id,
            invalid_tokens,
            hooks,
            deflate,
        } = self;
        assert!(deflate.is_none(), "a window of compression moves to nobody");
        rate.write(out);
        secret.write(out);
        head.write(out);
        cors.write(out);
        poll.write(out);
        meta.write(out);
        grants.is_some().write(out);
        if let Some(grants) = grants {
            out.list(grants.iter());
        }
        is_worker.write(out);
        token_id.write(out);
        invalid_tokens.write(out);
        hooks.write(out);
    }

    fn read(from: &mut ImageReader<'_>) -> Result<Self, ImageError> {
        Ok(Self {
            rate: Image::read(from)?,
            secret: Image::read(from)?,
            head: Image::read(from)?,
            cors: Image::read(from)?,
            poll: Image::read(from)?,
            meta: Image::read(from)?,
            grants: Option::<Vec<_>>::read(from)?.map(Into::into),
            is_worker: Image::read(from)?,
            token_id: Image::read(from)?,
            invalid_tokens: Image::read(from)?,
            hooks: Image::read(from)?,
            deflate: None,
        })
    }
}
