//! Whatever one encoding says, the other says too.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use ringmain::model::{ChosenError, ClientId, ClientInfo, Publication, StreamPosition};
use ringmain::protocol::centrifuge::{json, protobuf};
use ringmain::protocol::command::{Body, Command};
use ringmain::protocol::push::{
    ConnectResult, Push, Reply, ReplyBody, SubscribeResult, Unsubscribe,
};
use serde_json::{Map, Value};

use crate::replies::{Said, at, publication};
use crate::transcode::{decode, delimit, encode};

/// A payload: any JSON value.
fn payload() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::from),
            btree_map(any::<String>(), inner, 0..4)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

fn payload_bytes() -> impl Strategy<Value = Vec<u8>> {
    payload().prop_map(|value| value.to_string().into_bytes())
}

type Field = BoxedStrategy<Option<Value>>;

/// A field that may be absent.
fn may<T: Into<Value> + std::fmt::Debug + 'static>(
    value: impl Strategy<Value = T> + 'static,
) -> Field {
    option::of(value.prop_map(Into::into)).boxed()
}

/// An object with some of these fields.
fn object(fields: Vec<(&'static str, Field)>) -> BoxedStrategy<Value> {
    let (names, values): (Vec<_>, Vec<_>) = fields.into_iter().unzip();
    values
        .prop_map(move |values| {
            let fields = names.iter().zip(values);
            let set = fields.filter_map(|(name, value)| Some(((*name).to_owned(), value?)));
            Value::Object(set.collect::<Map<_, _>>())
        })
        .boxed()
}

fn text() -> Field {
    may(any::<String>())
}

fn filter() -> BoxedStrategy<Value> {
    let texts = || vec(any::<String>().prop_map(Value::from), 0..3).prop_map(Value::from);
    let fields = move |nodes: Field| {
        object(vec![
            ("op", text()),
            ("key", text()),
            ("cmp", text()),
            ("val", text()),
            ("vals", may(texts())),
            ("nodes", nodes),
        ])
    };
    fields(Just(None).boxed())
        .prop_recursive(4, 12, 3, move |inner| {
            fields(may(vec(inner, 0..3).prop_map(Value::from)))
        })
        .boxed()
}

fn subscribe() -> BoxedStrategy<Value> {
    object(vec![
        ("channel", text()),
        ("token", text()),
        ("recover", may(any::<bool>())),
        ("epoch", text()),
        ("offset", may(any::<u64>())),
        ("data", may(payload())),
        ("positioned", may(any::<bool>())),
        ("recoverable", may(any::<bool>())),
        ("join_leave", may(any::<bool>())),
        ("delta", text()),
        ("tf", may(filter())),
        ("flag", may(any::<i64>())),
        ("type", may(any::<i32>())),
        ("phase", may(any::<i32>())),
        ("cursor", text()),
        ("limit", may(any::<i32>())),
        ("asc", may(any::<bool>())),
    ])
}

fn connect() -> BoxedStrategy<Value> {
    let map = |values: BoxedStrategy<Value>| {
        may(btree_map(any::<String>(), values, 0..3)
            .prop_map(|fields| Value::Object(fields.into_iter().collect())))
    };
    object(vec![
        ("token", text()),
        ("data", may(payload())),
        ("subs", map(subscribe())),
        ("name", text()),
        ("version", text()),
        (
            "headers",
            map(any::<String>().prop_map(Value::from).boxed()),
        ),
        ("flag", may(any::<i64>())),
        ("dict", text()),
        ("profile", text()),
    ])
}

/// Any command. Several parts may be set.
fn command() -> impl Strategy<Value = Value> {
    let in_channel = || object(vec![("channel", text())]);
    let since = object(vec![("offset", may(any::<u64>())), ("epoch", text())]);
    let history = object(vec![
        ("channel", text()),
        ("limit", may(any::<i32>())),
        ("since", may(since)),
        ("reverse", may(any::<bool>())),
    ]);
    let publish = object(vec![("channel", text()), ("data", may(payload()))]);
    let rpc = object(vec![("method", text()), ("data", may(payload()))]);
    let sub_refresh = object(vec![("channel", text()), ("token", text())]);
    let parts: Vec<(&'static str, BoxedStrategy<Value>)> = vec![
        ("connect", connect()),
        ("subscribe", subscribe()),
        ("unsubscribe", in_channel()),
        ("publish", publish),
        ("presence", in_channel()),
        ("presence_stats", in_channel()),
        ("history", history),
        ("ping", object(Vec::new())),
        ("send", object(vec![("data", may(payload()))])),
        ("rpc", rpc),
        ("refresh", object(vec![("token", text())])),
        ("sub_refresh", sub_refresh),
    ];
    let part = proptest::strategy::Union::new(parts.into_iter().map(|(name, value)| {
        value
            .prop_map(move |value| (name.to_owned(), value))
            .boxed()
    }));
    (option::weighted(0.9, 1u32..), vec(part, 0..3)).prop_map(|(id, parts)| {
        let id = id.map(|id| ("id".to_owned(), Value::from(id)));
        Value::Object(parts.into_iter().chain(id).collect())
    })
}

/// A map has no order: its entries are compared by their keys.
fn sorted(mut command: Command<'_>) -> Command<'_> {
    if let Body::Connect(connect) = &mut command.body {
        connect.subs.sort_by(|a, b| a.channel.cmp(&b.channel));
        connect.headers.sort();
    }
    command
}

fn client_info() -> impl Strategy<Value = ClientInfo> {
    let info = || prop_oneof![Just(Vec::new()), payload_bytes()];
    (any::<String>(), any::<u128>(), info(), info()).prop_map(|(user, client, conn, chan)| {
        ClientInfo {
            user: user.into(),
            client: ClientId::from_random(client),
            conn_info: conn.into(),
            chan_info: chan.into(),
        }
    })
}

fn any_publication() -> impl Strategy<Value = Publication> {
    let tags = btree_map(any::<String>(), any::<String>(), 0..3);
    let info = option::of(client_info().prop_map(Arc::new));
    (0u64.., payload_bytes(), info, tags).prop_map(|(offset, data, info, tags)| Publication {
        info,
        tags: tags
            .into_iter()
            .map(|(key, value)| (key.into(), value.into()))
            .collect(),
        ..publication(offset, &data)
    })
}

/// Parts of results, owned.
#[derive(Clone, Debug)]
struct Subscribed {
    ttl: Option<u32>,
    flags: [bool; 4],
    position: Option<StreamPosition>,
    publications: Vec<Arc<Publication>>,
    data: Vec<u8>,
}

impl Subscribed {
    fn result(&self) -> SubscribeResult<'_> {
        let [recoverable, positioned, recovered, was_recovering] = self.flags;
        SubscribeResult {
            ttl: self.ttl,
            recoverable,
            positioned,
            position: self.position,
            publications: &self.publications,
            recovered,
            was_recovering,
            data: &self.data,
            delta: false,
        }
    }
}

fn position() -> impl Strategy<Value = StreamPosition> {
    any::<u64>().prop_map(at)
}

fn some_bytes() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![Just(Vec::new()), payload_bytes()]
}

fn subscribed() -> impl Strategy<Value = Subscribed> {
    let publications = vec(any_publication().prop_map(Arc::new), 0..3);
    (
        option::of(any::<u32>()),
        any::<[bool; 4]>(),
        option::of(position()),
        publications,
        some_bytes(),
    )
        .prop_map(|(ttl, flags, position, publications, data)| Subscribed {
            ttl,
            flags,
            position,
            publications,
            data,
        })
}

fn same(said: &Said<'_>) {
    let protobuf = decode("Reply", &said.protobuf());
    assert_eq!(said.json(), protobuf, "{said:?}");
}

fn reply(id: u32, body: ReplyBody<'_>) -> Said<'_> {
    Said::Reply(Reply { id, body })
}

proptest! {
    #[test]
    fn every_command_is_the_same_in_both_encodings(command in command()) {
        let text = command.to_string();
        let mut frame = Vec::new();
        delimit(&mut frame, &encode("Command", &command));
        let of_json: Vec<_> = json::commands(text.as_bytes()).map(|one| one.map(sorted)).collect();
        let of_protobuf: Vec<_> = protobuf::commands(&frame).map(|one| one.map(sorted)).collect();
        prop_assert_eq!(of_json, of_protobuf, "{}", text);
    }

    #[test]
    fn every_publication_is_the_same_in_both_encodings(channel in ".{1,20}", publication in any_publication()) {
        same(&Said::Push(&channel, Push::Publication(&publication)));
    }

    #[test]
    fn every_subscribe_result_is_the_same_in_both_encodings(id in 1u32.., of in subscribed()) {
        same(&reply(id, ReplyBody::Subscribe(of.result())));
        same(&Said::Push("c", Push::Subscribe(of.result())));
    }

    #[test]
    fn every_connect_result_is_the_same_in_both_encodings(
        client: u128,
        ttl in option::of(any::<u32>()),
        subs in btree_map(any::<String>(), subscribed(), 0..3),
        ping in option::of(1u32..),
        pong: bool,
        time in option::of(0..=i64::MAX as u64),
        data in some_bytes(),
        session: String,
        node: String,
    ) {
        let subs: Vec<_> = subs.iter().map(|(channel, sub)| (channel.as_str(), sub.result())).collect();
        let result = ConnectResult {
            client: ClientId::from_random(client), ttl, subs: &subs, ping, pong, time, data: &data,
            session: &session, node: &node,
        };
        same(&reply(1, ReplyBody::Connect(result.clone())));
        same(&Said::Push("", Push::Connect(result)));
    }

    #[test]
    fn every_other_reply_is_the_same_in_both_encodings(
        id in 1u32..,
        publications in vec(any_publication().prop_map(Arc::new), 0..3),
        position in position(),
        infos in vec(client_info().prop_map(Arc::new), 0..3),
        counts: (u32, u32),
        ttl in option::of(any::<u32>()),
        data in some_bytes(),
        error in (1u32.., ".{1,20}", any::<bool>()),
    ) {
        let present: BTreeMap<_, _> = infos.into_iter().map(|info| (info.client, info)).collect();
        let present: Vec<_> = present.into_values().collect();
        let (num_clients, num_users) = counts;
        let (code, message, temporary) = error;
        let chosen = ChosenError { code, message: message.into(), temporary };
        for body in [
            ReplyBody::ChosenError(&chosen),
            ReplyBody::Presence(&present),
            ReplyBody::PresenceStats { num_clients, num_users },
            ReplyBody::History { publications: &publications, position },
            ReplyBody::Refresh(ttl),
            ReplyBody::SubRefresh(ttl),
            ReplyBody::Rpc(&data),
            ReplyBody::Publish,
            ReplyBody::Unsubscribe,
        ] {
            same(&reply(id, body));
        }
    }

    #[test]
    fn every_other_push_is_the_same_in_both_encodings(
        channel in ".{1,20}",
        info in client_info(),
        ttl in option::of(any::<u32>()),
        data in some_bytes(),
        code in 1u16..,
        reason in ".{1,20}",
    ) {
        for push in [
            Push::Join(&info),
            Push::Leave(&info),
            Push::Unsubscribe(Unsubscribe::Server),
            Push::Unsubscribe(Unsubscribe::Expired),
            Push::Message(&data),
            Push::Refresh(ttl),
            Push::Disconnect(code, &reason),
        ] {
            same(&Said::Push(&channel, push.clone()));
            same(&Said::Push("", push));
        }
    }
}
