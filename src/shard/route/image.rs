//! What a request asks for, as bytes, where its body is on its way.

use super::{ClientRoute, JudgedRequest, PollRoute, Route, Subprotocol, Transport};
use crate::image::image;
use crate::mesh::control::PageKind;
use crate::shard::kept::Kept;

image!(struct JudgedRequest { route, cors, body_bytes_max });
image!(enum Route {
    0 => Client(client),
    1 => Echo { key, deflate },
    2 => Emulation(encoding),
    3 => Poll(poll),
    4 => Init,
    5 => Health,
    6 => Control(page),
    7 => OpenApi,
    8 => Preflight(allow),
    9 => Api { method, transport_errors, grant, tenant },
    10 => Page,
    11 => Options(allow),
    12 => Refused(error),
});
image!(struct ClientRoute { transport, format, kept });
image!(enum Transport {
    0 => WebSocket { key, protocol, frame_pings, deflate },
    1 => UniWebSocket { key, connect },
    2 => Stream { connect },
});
image!(enum Subprotocol { 0 => Json, 1 => Protobuf });
image!(struct PollRoute { token, channel, subscription_token, since, timeout, kept });
image!(struct Kept { headers, user });
image!(enum PageKind { 0 => Ready, 1 => Metrics });
