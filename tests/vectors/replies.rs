//! What the server says, in both encodings.

use ringmain::model::{
    ChosenError, ClientId, ClientInfo, Epoch, Offset, Publication, StreamPosition,
};
use ringmain::protocol::centrifuge::{json, protobuf};
use ringmain::protocol::error::ClientError;
use ringmain::protocol::push::{
    ConnectResult, Push, Reply, ReplyBody, SubscribeResult, Unsubscribe,
};
use ringmain::wire::json::is_json;
use serde_json::Value;
use std::sync::Arc;

/// One thing that the server says.
#[derive(Clone, Debug)]
pub(crate) enum Said<'a> {
    Ping,
    Reply(Reply<'a>),
    Push(&'a str, Push<'a>),
}

impl Said<'_> {
    /// The JSON text.
    pub(crate) fn json(&self) -> Value {
        let mut out = Vec::new();
        match self {
            Self::Ping => out.extend_from_slice(json::PING),
            Self::Reply(reply) => json::encode_reply(&mut out, reply),
            Self::Push(channel, push) => json::encode_push(&mut out, channel, push),
        }
        serde_json::from_slice(&out)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&out)))
    }

    /// The bytes of the Protobuf message.
    pub(crate) fn protobuf(&self) -> Vec<u8> {
        let mut out = Vec::new();
        match self {
            Self::Ping => out.extend_from_slice(protobuf::PING),
            Self::Reply(reply) => protobuf::encode_reply(&mut out, reply),
            Self::Push(channel, push) => protobuf::encode_push(&mut out, channel, push),
        }
        out
    }

    /// The bytes of a push by itself.
    pub(crate) fn bare_push(&self) -> Option<Vec<u8>> {
        let Self::Push(channel, push) = self else {
            return None;
        };
        let mut out = Vec::new();
        protobuf::encode_bare_push(&mut out, channel, push);
        Some(out)
    }
}

pub(crate) const CLIENT: ClientId = ClientId::from_random(7);
const CHANNEL: &str = "chat:1";

pub(crate) fn at(offset: u64) -> StreamPosition {
    StreamPosition {
        epoch: Epoch(*b"abcdEFGH"),
        offset: Offset(offset),
    }
}

/// A publication without info and tags.
pub(crate) fn publication(offset: u64, data: &[u8]) -> Publication {
    Publication {
        offset: Offset(offset),
        epoch: Epoch(*b"abcdEFGH"),
        data: data.to_vec().into(),
        json: is_json(data),
        info: None,
        tags: Box::default(),
        unix_ms: 1,
        tells_time: false,
        patch: None,
        delta: false,
    }
}

fn tagged(publication: Publication) -> Publication {
    Publication {
        tags: Box::new([("kind".into(), "goal".into())]),
        ..publication
    }
}

fn somebody(conn_info: &'static [u8], chan_info: &'static [u8]) -> ClientInfo {
    ClientInfo {
        user: "42".into(),
        client: CLIENT,
        conn_info: conn_info.into(),
        chan_info: chan_info.into(),
    }
}

fn ada() -> ClientInfo {
    somebody(br#"{"name":"Ada"}"#, b"[1]")
}

/// Every case of `tests/vectors/centrifuge/cases.json` as the server has it, by name.
pub(crate) fn each(mut say: impl FnMut(&str, Said<'_>)) {
    say("ping", Said::Ping);
    errors(&mut say);
    connects(&mut say);
    subscribes(&mut say);
    let reply = |id, body| Said::Reply(Reply { id, body });
    say("unsubscribe", reply(3, ReplyBody::Unsubscribe));
    say("publish", reply(4, ReplyBody::Publish));
    let present = [Arc::new(ada())];
    say("presence", reply(5, ReplyBody::Presence(&present)));
    let stats = ReplyBody::PresenceStats {
        num_clients: 300,
        num_users: 2,
    };
    say("presence_stats", reply(6, stats));
    let page = [publication(2, b"1"), publication(3, b"\x00\xff")].map(Arc::new);
    let history = ReplyBody::History {
        publications: &page,
        position: at(3),
    };
    say("history", reply(7, history));
    say("rpc_empty", reply(8, ReplyBody::Rpc(b"")));
    say("rpc", reply(8, ReplyBody::Rpc(br#"{"year":2026}"#)));
    say("refresh_empty", reply(9, ReplyBody::Refresh(None)));
    say("refresh", reply(9, ReplyBody::Refresh(Some(60))));
    say("sub_refresh", reply(10, ReplyBody::SubRefresh(Some(60))));
    publications(&mut say);
    pushes(&mut say);
}

fn errors(say: &mut impl FnMut(&str, Said<'_>)) {
    let reply = |id, body| Said::Reply(Reply { id, body });
    say(
        "error",
        reply(1, ReplyBody::Error(ClientError::MethodNotFound)),
    );
    say(
        "error_temporary",
        reply(1, ReplyBody::Error(ClientError::Internal)),
    );
    let chosen = ChosenError {
        code: 1000,
        message: "chosen by a backend".into(),
        temporary: true,
    };
    say(
        "error_chosen",
        reply(u32::MAX, ReplyBody::ChosenError(&chosen)),
    );
}

const LEAST: ConnectResult<'_> = ConnectResult {
    client: CLIENT,
    ttl: None,
    subs: &[],
    ping: None,
    pong: false,
    time: None,
    data: b"",
    session: "",
    node: "",
};

fn connects(say: &mut impl FnMut(&str, Said<'_>)) {
    let reply = |body| Said::Reply(Reply { id: 1, body });
    say("connect_least", reply(ReplyBody::Connect(LEAST)));
    let news = SubscribeResult {
        recoverable: true,
        position: Some(at(5)),
        recovered: true,
        positioned: true,
        was_recovering: true,
        ..Default::default()
    };
    let most = ConnectResult {
        ttl: Some(3600),
        subs: &[("news", news)],
        ping: Some(25),
        pong: true,
        time: Some(1_750_000_000_000),
        data: br#"{"welcome":true}"#,
        session: "s",
        node: "n",
        ..LEAST
    };
    say("connect", reply(ReplyBody::Connect(most.clone())));
    let connected = ConnectResult {
        subs: &[("news", SubscribeResult::default())],
        pong: false,
        ..most
    };
    say("connected", Said::Push("", Push::Connect(connected)));
}

fn subscribes(say: &mut impl FnMut(&str, Said<'_>)) {
    let reply = |body| Said::Reply(Reply { id: 2, body });
    let empty = SubscribeResult::default();
    say("subscribe_empty", reply(ReplyBody::Subscribe(empty)));
    let missed = [
        publication(6, br#"{"n":6}"#),
        tagged(publication(7, br#"{"n":7}"#)),
    ]
    .map(Arc::new);
    let full = SubscribeResult {
        ttl: Some(60),
        recoverable: true,
        positioned: true,
        position: Some(at(5)),
        publications: &missed,
        recovered: true,
        was_recovering: true,
        data: br#"{"custom":[]}"#,
        delta: false,
    };
    say("subscribe", reply(ReplyBody::Subscribe(full)));
}

fn publications(say: &mut impl FnMut(&str, Said<'_>)) {
    let mut publish = |name: &str, publication: Publication| {
        say(name, Said::Push(CHANNEL, Push::Publication(&publication)));
    };
    publish("publication", publication(7, br#"{"n":7}"#));
    publish("publication_without_history", publication(0, b"null"));
    publish("publication_first", publication(1, "\"é\"".as_bytes()));
    let bytes = publication(9_007_199_254_740_991, b"\x00\x01\x7f\xff\x80");
    publish("publication_bytes", bytes);
    let text = "a payload that is long enough for a message whose length takes two bytes: 0123456789 0123456789 0123456789";
    let published = Publication {
        info: Some(Arc::new(ada())),
        ..publication(300, format!("{{\"text\":\"{text}\"}}").as_bytes())
    };
    publish("publication_of_a_client", tagged(published));
}

fn pushes(say: &mut impl FnMut(&str, Said<'_>)) {
    let info = somebody(b"", b"");
    say("join", Said::Push(CHANNEL, Push::Join(&info)));
    say("leave", Said::Push(CHANNEL, Push::Leave(&info)));
    let ended = Push::Unsubscribe(Unsubscribe::Insufficient);
    say("unsubscribed", Said::Push(CHANNEL, ended));
    say("message", Said::Push("", Push::Message(br#"{"to":"you"}"#)));
    let subscribed = SubscribeResult {
        recoverable: true,
        positioned: true,
        position: Some(at(9)),
        data: br#"{"custom":1}"#,
        ..Default::default()
    };
    say(
        "subscribed",
        Said::Push(CHANNEL, Push::Subscribe(subscribed)),
    );
    say(
        "disconnected",
        Said::Push("", Push::Disconnect(3001, "shutdown")),
    );
    say("refreshed", Said::Push("", Push::Refresh(Some(60))));
}
