//! Commands that wait, as bytes.

use super::{Body, Command, Connect, History, Subscribe};
use crate::image::image;

image!(struct Command<'static> { id, body });
image!(enum Body<'static> {
    0 => Connect(connect),
    1 => Subscribe(subscribe),
    2 => Unsubscribe { channel },
    3 => Publish { channel, data },
    4 => Presence { channel },
    5 => PresenceStats { channel },
    6 => History(history),
    7 => Rpc { method, data },
    8 => Send { data },
    9 => Refresh { token },
    10 => SubRefresh { channel, token },
    11 => Pong,
});
image!(struct Connect<'static> { token, data, subs, name, version, headers });
image!(struct History<'static> { channel, limit, since, reverse });
image!(struct Subscribe<'static> {
    channel, token, recover, epoch, offset, data, positioned, recoverable, join_leave, delta, filter,
    flag, kind
});
