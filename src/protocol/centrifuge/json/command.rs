//! Frames of a client into commands (`spec/centrifuge.md` §2.1, §2.5, §3.2).

use std::borrow::Cow;
use std::iter::FusedIterator;

use memchr::memchr;
use serde::de::MapAccess;

use super::PING;
use crate::limits::COMMANDS_PER_FRAME_MAX;
use crate::protocol::command::{Body, Command, Connect, EmulationCommands, History, Subscribe};
use crate::protocol::disconnect::Disconnect;
use crate::wire::json::{Object, Part, Value, fields, first, value};

/// The commands of one frame, in order. The first malformed one yields `Disconnect::BadRequest` and ends the frame.
///
/// Commands are decoded as they are asked for, so those before a malformed one are handled.
#[must_use]
pub const fn commands(frame: &[u8]) -> JsonCommands<'_> {
    JsonCommands {
        rest: Some(frame),
        left: COMMANDS_PER_FRAME_MAX,
    }
}

/// Iterator over the commands of one frame.
#[derive(Clone, Debug)]
pub struct JsonCommands<'a> {
    /// What is not decoded yet; `None` after the last line.
    rest: Option<&'a [u8]>,
    /// Commands that this frame may still hold.
    left: usize,
}

impl<'a> JsonCommands<'a> {
    /// What is not decoded yet.
    #[must_use]
    pub const fn rest(&self) -> Option<&'a [u8]> {
        self.rest
    }
}

impl<'a> Iterator for JsonCommands<'a> {
    type Item = Result<Command<'a>, Disconnect>;

    fn next(&mut self) -> Option<Self::Item> {
        let rest = self.rest.take()?;
        if self.left == 0 {
            return Some(Err(Disconnect::BadRequest));
        }
        self.left -= 1;
        let line = match memchr(b'\n', rest) {
            None => rest,
            Some(end) => {
                // A separator at the very end ends the last line, it does not begin an empty one.
                if end + 1 < rest.len() {
                    self.rest = Some(&rest[end + 1..]);
                }
                &rest[..end]
            }
        };
        let command = decode(line);
        if command.is_err() {
            self.rest = None;
        }
        Some(command)
    }
}

impl FusedIterator for JsonCommands<'_> {}

/// The body of an emulation request (`spec/centrifuge.md` §1.7): one object and nothing behind it.
pub fn decode_emulation(body: &[u8]) -> Result<EmulationCommands<'_>, Disconnect> {
    let text = simdutf8::basic::from_utf8(body).map_err(|_| Disconnect::BadRequest)?;
    let Part(request) = serde_json::from_str::<Part<EmulationText<'_>>>(text)
        .map_err(|_| Disconnect::BadRequest)?;
    let request = request.unwrap_or_default();
    Ok(EmulationCommands {
        node: request.node,
        session: request.session,
        data: match request.data {
            Cow::Borrowed(data) => Cow::Borrowed(data.as_bytes()),
            Cow::Owned(data) => Cow::Owned(data.into_bytes()),
        },
    })
}

fn decode(line: &[u8]) -> Result<Command<'_>, Disconnect> {
    if line == PING {
        return Ok(Command {
            id: 0,
            body: Body::Pong,
        });
    }
    let text = simdutf8::basic::from_utf8(line).map_err(|_| Disconnect::BadRequest)?;
    match first::<Part<Envelope<'_>>>(text) {
        Ok(Part(Some(envelope))) => envelope.command(),
        Ok(Part(None)) | Err(_) => Err(Disconnect::BadRequest),
    }
}

/// Place of `send` in the order of §2.5.
const SEND_PLACE: u8 = 8;

/// A command while it is read.
#[derive(Default)]
struct Envelope<'a> {
    id: u32,
    /// The part that stands first in the order of §2.5, with its place in that order.
    body: Option<(u8, Body<'a>)>,
    /// Kept apart: it decides what a command without an id is.
    send: Option<&'a [u8]>,
}

impl<'a> Envelope<'a> {
    /// Reads one part; `place` is its place in the order of §2.5.
    fn part<T: Object<'a>, A: MapAccess<'a>>(
        &mut self,
        place: u8,
        map: &mut A,
        body: impl FnOnce(T) -> Body<'a>,
    ) -> Result<(), A::Error> {
        let part: Option<T> = value(map)?;
        if let Some(part) = part
            && self.body.as_ref().is_none_or(|(best, _)| place <= *best)
        {
            self.body = Some((place, body(part)));
        }
        Ok(())
    }

    fn command(self) -> Result<Command<'a>, Disconnect> {
        let body = match (self.id, self.send, self.body) {
            (0, None, _) => Body::Pong,
            (0, Some(data), _) => Body::Send { data: data.into() },
            (_, Some(data), body) => match body {
                Some((place, body)) if place < SEND_PLACE => body,
                Some(_) | None => Body::Send { data: data.into() },
            },
            (_, None, Some((_, body))) => body,
            (_, None, None) => return Err(Disconnect::BadRequest),
        };
        Ok(Command { id: self.id, body })
    }
}

impl<'de> Object<'de> for Envelope<'de> {
    fn read<A: MapAccess<'de>>(&mut self, name: &str, map: &mut A) -> Result<bool, A::Error> {
        match name {
            "id" => self.id = value(map)?,
            "connect" => self.part(0, map, Body::Connect)?,
            "subscribe" => self.part(1, map, Body::Subscribe)?,
            "unsubscribe" => self.part(2, map, |part: ChannelText<'de>| Body::Unsubscribe {
                channel: part.channel,
            })?,
            "publish" => self.part(3, map, |part: Publish<'de>| Body::Publish {
                channel: part.channel,
                data: Cow::Borrowed(part.data),
            })?,
            "presence" => self.part(4, map, |part: ChannelText<'de>| Body::Presence {
                channel: part.channel,
            })?,
            "presence_stats" => {
                self.part(5, map, |part: ChannelText<'de>| Body::PresenceStats {
                    channel: part.channel,
                })?;
            }
            "history" => self.part(6, map, Body::History)?,
            "rpc" => self.part(7, map, |part: Rpc<'de>| Body::Rpc {
                method: part.method,
                data: Cow::Borrowed(part.data),
            })?,
            "send" => {
                let part: Option<Send<'de>> = value(map)?;
                self.send = part.map(|part| part.data).or(self.send);
            }
            "refresh" => self.part(9, map, |part: Refresh<'de>| Body::Refresh {
                token: part.token,
            })?,
            "sub_refresh" => self.part(10, map, |part: SubRefresh<'de>| Body::SubRefresh {
                channel: part.channel,
                token: part.token,
            })?,
            _ => return Ok(false),
        }
        Ok(true)
    }
}

fields!(Connect<'de> {
    "token" => token,
    "data" => data,
    "name" => name,
    "version" => version,
    "headers" => headers,
    "subs" => subs,
});

/// By channel: one with `null` is asked for without options.
impl<'de> Value<'de> for Vec<Subscribe<'de>> {
    fn read<A: MapAccess<'de>>(map: &mut A) -> Result<Self, A::Error> {
        let subs: Vec<(Cow<'de, str>, Option<Subscribe<'de>>)> = value(map)?;
        let named = |(channel, sub): (_, Option<_>)| Subscribe {
            channel,
            ..sub.unwrap_or_default()
        };
        Ok(subs.into_iter().map(named).collect())
    }
}

fields!(Subscribe<'de> {
    "channel" => channel,
    "token" => token,
    "recover" => recover,
    "epoch" => epoch,
    "offset" => offset,
    "data" => data,
    "positioned" => positioned,
    "recoverable" => recoverable,
    "join_leave" => join_leave,
    "delta" => delta,
    "tf" => filter,
    "flag" => flag,
    "type" => kind,
});

fields!(History<'de> { "channel" => channel, "limit" => limit, "since" => since, "reverse" => reverse });

impl<'de> Value<'de> for Option<(u64, Cow<'de, str>)> {
    fn read<A: MapAccess<'de>>(map: &mut A) -> Result<Self, A::Error> {
        let since: Option<Position<'de>> = value(map)?;
        Ok(since.map(|since| (since.offset, since.epoch)))
    }
}

#[derive(Default)]
struct EmulationText<'a> {
    session: Cow<'a, str>,
    node: Cow<'a, str>,
    data: Cow<'a, str>,
}
fields!(EmulationText<'de> { "session" => session, "node" => node, "data" => data });

/// A stream position as a peer writes it.
#[derive(Default)]
pub(in crate::protocol) struct Position<'a> {
    /// 0 when absent.
    pub(in crate::protocol) offset: u64,
    /// Empty when absent.
    pub(in crate::protocol) epoch: Cow<'a, str>,
}
fields!(Position<'de> { "offset" => offset, "epoch" => epoch });

#[derive(Default)]
struct ChannelText<'a> {
    channel: Cow<'a, str>,
}
fields!(ChannelText<'de> { "channel" => channel });

#[derive(Default)]
struct Publish<'a> {
    channel: Cow<'a, str>,
    data: &'a [u8],
}
fields!(Publish<'de> { "channel" => channel, "data" => data });

#[derive(Default)]
struct Rpc<'a> {
    method: Cow<'a, str>,
    data: &'a [u8],
}
fields!(Rpc<'de> { "method" => method, "data" => data });

#[derive(Default)]
struct Send<'a> {
    data: &'a [u8],
}
fields!(Send<'de> { "data" => data });

#[derive(Default)]
struct Refresh<'a> {
    token: Cow<'a, str>,
}
fields!(Refresh<'de> { "token" => token });

#[derive(Default)]
struct SubRefresh<'a> {
    channel: Cow<'a, str>,
    token: Cow<'a, str>,
}
fields!(SubRefresh<'de> { "channel" => channel, "token" => token });

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::limits::FILTER_DEPTH_MAX;
    use crate::model::FilterNode;

    fn all(frame: &[u8]) -> Vec<Result<Command<'_>, Disconnect>> {
        commands(frame).collect()
    }

    fn one(frame: &str) -> Command<'_> {
        let [Ok(command)] = &all(frame.as_bytes())[..] else {
            panic!("not one command: {frame}")
        };
        command.clone()
    }

    fn is_refused(frame: &[u8]) -> bool {
        all(frame) == [Err(Disconnect::BadRequest)]
    }

    const PONG: Command<'_> = Command {
        id: 0,
        body: Body::Pong,
    };

    fn presence(id: u32) -> Command<'static> {
        Command {
            id,
            body: Body::Presence {
                channel: "a".into(),
            },
        }
    }

    #[test]
    fn frame_holds_commands_separated_by_newlines() {
        let lines = [
            r#"{"id":1,"presence":{"channel":"a"}}"#,
            r#"{"id":2,"presence":{"channel":"a"}}"#,
            "{}",
        ];
        let wanted = vec![Ok(presence(1)), Ok(presence(2)), Ok(PONG)];
        assert_eq!(all(lines.join("\n").as_bytes()), wanted);
        assert_eq!(all(lines.join("\r\n").as_bytes()), wanted);
        assert_eq!(all(lines.join("  \n\t ").as_bytes()), wanted);
    }

    #[test]
    fn trailing_newline_is_fine() {
        assert_eq!(all(b"{}\n"), [Ok(PONG)]);
        assert_eq!(all(b"{}\r\n"), [Ok(PONG)]);
    }

    #[test]
    fn second_trailing_newline_is_refused_after_the_commands() {
        assert_eq!(all(b"{}\n\n"), [Ok(PONG), Err(Disconnect::BadRequest)]);
    }

    #[test]
    fn blank_line_is_refused_and_nothing_after_it_is_read() {
        assert_eq!(all(b"{}\n\n{}"), [Ok(PONG), Err(Disconnect::BadRequest)]);
        assert_eq!(all(b"{}\n \r\n{}"), [Ok(PONG), Err(Disconnect::BadRequest)]);
    }

    #[test]
    fn empty_frame_is_refused() {
        for frame in [&b""[..], b"\n", b" ", b"\r\n"] {
            assert!(is_refused(frame), "{frame:?}");
        }
    }

    #[test]
    fn anything_but_an_object_of_the_command_shape_is_refused() {
        for frame in [
            "null",
            "[]",
            "1",
            "\"{}\"",
            "{",
            "}",
            "{\"id\":1",
            "{'id':1}",
            r#"{"id":1,"presence":[]}"#,
            r#"{"id":1,"presence":"a"}"#,
            r#"{"id":1,"presence":{"channel":1}}"#,
            r#"{"id":1,"subscribe":{"channel":"a","recover":1}}"#,
            r#"{"id":1,"subscribe":{"channel":"a","offset":-1}}"#,
            r#"{"id":1,"publish":{"channel":"a","data":}}"#,
            r#"{"id":1,"publish":{"channel":"a","data":nul}}"#,
            "{\"id\":1,\"presence\":{\"channel\":\"a\u{1}\"}}",
        ] {
            assert!(is_refused(frame.as_bytes()), "{frame}");
        }
        assert!(is_refused(
            b"{\"id\":1,\"presence\":{\"channel\":\"\xff\"}}"
        ));
    }

    #[test]
    fn of_two_objects_on_one_line_the_first_is_handled() {
        assert_eq!(
            all(br#"{"id":1,"presence":{"channel":"a"}}{"id":2,"presence":{"channel":"a"}}"#),
            [Ok(presence(1))]
        );
    }

    #[test]
    fn null_counts_as_absent() {
        assert_eq!(
            one(r#"{"id":1,"connect":null,"presence":{"channel":"a"}}"#),
            presence(1)
        );
        assert_eq!(one(r#"{"id":null,"connect":null}"#), PONG);
        assert!(is_refused(br#"{"id":1,"presence":null}"#));
        let Body::Subscribe(subscribe) = one(
            r#"{"id":1,"subscribe":{"channel":null,"recover":null,"offset":null,"epoch":null,"tf":null,"flag":null}}"#,
        )
        .body
        else {
            panic!("not a subscribe")
        };
        assert_eq!(subscribe, Subscribe::default());
    }

    #[test]
    fn null_is_a_payload() {
        let body = one(r#"{"id":1,"rpc":{"method":"x","data":null}}"#).body;
        assert_eq!(
            body,
            Body::Rpc {
                method: "x".into(),
                data: Cow::Borrowed(b"null")
            }
        );
    }

    #[test]
    fn field_names_match_without_regard_to_case() {
        assert_eq!(one(r#"{"ID":1,"Presence":{"CHANNEL":"a"}}"#), presence(1));
        assert_eq!(
            one(r#"{"\u0049d":1,"presence":{"channel":"a"}}"#),
            presence(1)
        );
    }

    #[test]
    fn unknown_fields_are_ignored_whatever_they_hold() {
        assert_eq!(
            one(r#"{"x":{"y":[1,{}]},"id":1,"presence":{"z":"\n","channel":"a","data":1}}"#),
            presence(1)
        );
    }

    #[test]
    fn id_is_a_uint32_or_the_frame_is_refused() {
        assert_eq!(
            one(r#"{"id":4294967295,"presence":{"channel":"a"}}"#).id,
            u32::MAX
        );
        for id in [
            "-1",
            "\"1\"",
            "4294967296",
            "1.5",
            "1e3",
            "true",
            "[]",
            "99999999999999999999999",
        ] {
            assert!(
                is_refused(format!(r#"{{"id":{id},"presence":{{"channel":"a"}}}}"#).as_bytes()),
                "{id}"
            );
        }
    }

    #[test]
    fn command_without_id_is_a_pong_unless_it_sends() {
        for frame in [
            "{}",
            " {} ",
            r#"{"id":0}"#,
            r#"{"subscribe":{"channel":"a"}}"#,
            r#"{"x":1}"#,
        ] {
            assert_eq!(one(frame), PONG, "{frame}");
        }
        assert_eq!(
            one(r#"{"send":{"data":[1]}}"#),
            Command {
                id: 0,
                body: Body::Send {
                    data: Cow::Borrowed(b"[1]")
                }
            }
        );
    }

    #[test]
    fn command_with_id_and_no_known_part_is_refused() {
        for frame in [r#"{"id":1}"#, r#"{"id":1,"ping":{}}"#, r#"{"id":1,"x":{}}"#] {
            assert!(is_refused(frame.as_bytes()), "{frame}");
        }
    }

    #[test]
    fn of_several_parts_the_first_in_the_order_of_the_specification_counts() {
        let parts = [
            "connect",
            "subscribe",
            "unsubscribe",
            "publish",
            "presence",
            "presence_stats",
            "history",
            "rpc",
            "send",
            "refresh",
            "sub_refresh",
        ];
        let body = |part: &str| {
            one(&format!(r#"{{"id":1,"{part}":{{}}}}"#))
                .body
                .clone()
                .name()
        };
        for (at, first) in parts.iter().enumerate() {
            for second in &parts[at + 1..] {
                for frame in [
                    format!(r#"{{"id":1,"{first}":{{}},"{second}":{{}}}}"#),
                    format!(r#"{{"id":1,"{second}":{{}},"{first}":{{}}}}"#),
                ] {
                    assert_eq!(one(&frame).body.name(), body(first), "{frame}");
                }
            }
        }
    }

    impl Body<'_> {
        fn name(&self) -> String {
            format!("{self:?}")
                .chars()
                .take_while(char::is_ascii_alphanumeric)
                .collect()
        }
    }

    #[test]
    fn connect_and_subscribe_carry_their_fields() {
        let body = |frame| one(frame).body;
        assert_eq!(
            body(
                r#"{"id":1,"connect":{"token":"t","data":{"a":1},"subs":{"s":{"recover":true,"epoch":"e","offset":5},"n":null},"name":"js","version":"1","headers":{"h":"v"},"flag":1}}"#
            ),
            Body::Connect(Connect {
                token: "t".into(),
                data: Cow::Borrowed(br#"{"a":1}"#),
                subs: vec![
                    Subscribe {
                        channel: "s".into(),
                        recover: true,
                        epoch: "e".into(),
                        offset: 5,
                        ..Default::default()
                    },
                    Subscribe {
                        channel: "n".into(),
                        ..Default::default()
                    },
                ],
                name: "js".into(),
                version: "1".into(),
                headers: vec![("h".into(), "v".into())],
            })
        );
        assert_eq!(
            body(
                r#"{"id":1,"subscribe":{"channel":"c","token":"t","recover":true,"epoch":"e","offset":18446744073709551615,"data":1,"positioned":true,"recoverable":true,"join_leave":true,"delta":"fossil","tf":{"op":"and"},"flag":3,"type":1}}"#
            ),
            Body::Subscribe(Subscribe {
                channel: "c".into(),
                token: "t".into(),
                recover: true,
                epoch: "e".into(),
                offset: u64::MAX,
                data: Cow::Borrowed(b"1"),
                positioned: true,
                recoverable: true,
                join_leave: true,
                delta: "fossil".into(),
                filter: Some(Box::new(FilterNode {
                    op: "and".into(),
                    ..Default::default()
                })),
                flag: 3,
                kind: 1,
            })
        );
    }

    #[test]
    fn every_command_of_a_session_carries_its_fields() {
        let body = |frame| one(frame).body;
        assert_eq!(
            body(r#"{"id":1,"unsubscribe":{"channel":"c"}}"#),
            Body::Unsubscribe {
                channel: "c".into()
            }
        );
        assert_eq!(
            body(r#"{"id":1,"publish":{"channel":"c","data": {"a" : 1} }}"#),
            Body::Publish {
                channel: "c".into(),
                data: Cow::Borrowed(br#"{"a" : 1}"#)
            }
        );
        assert_eq!(
            body(r#"{"id":1,"publish":{"channel":"c"}}"#),
            Body::Publish {
                channel: "c".into(),
                data: Cow::Borrowed(b"")
            }
        );
        assert_eq!(
            body(r#"{"id":1,"presence_stats":{"channel":"c"}}"#),
            Body::PresenceStats {
                channel: "c".into()
            }
        );
        assert_eq!(
            body(
                r#"{"id":1,"history":{"channel":"c","limit":-1,"since":{"offset":7,"epoch":"e"},"reverse":true}}"#
            ),
            Body::History(History {
                channel: "c".into(),
                limit: -1,
                since: Some((7, "e".into())),
                reverse: true
            })
        );
        assert_eq!(
            body(r#"{"id":1,"rpc":{"method":"m","data":"x"}}"#),
            Body::Rpc {
                method: "m".into(),
                data: Cow::Borrowed(b"\"x\"")
            }
        );
        assert_eq!(
            body(r#"{"id":1,"refresh":{"token":"t"}}"#),
            Body::Refresh { token: "t".into() }
        );
        assert_eq!(
            body(r#"{"id":1,"sub_refresh":{"channel":"c","token":"t"}}"#),
            Body::SubRefresh {
                channel: "c".into(),
                token: "t".into()
            }
        );
    }

    #[test]
    fn filter_comes_as_it_was_sent() {
        let Body::Subscribe(subscribe) = one(
            r#"{"id":1,"subscribe":{"tf":{"OP":"and","x":[],"nodes":[{"key":"k","cmp":"in","val":"v","vals":["a",""]},null,{"nodes":null}]}}}"#,
        )
        .body
        else {
            panic!("not a subscribe")
        };
        let leaf = FilterNode {
            key: "k".into(),
            cmp: "in".into(),
            val: "v".into(),
            vals: vec!["a".into(), "".into()],
            ..Default::default()
        };
        let root = FilterNode {
            op: "and".into(),
            nodes: vec![leaf, FilterNode::default(), FilterNode::default()],
            ..Default::default()
        };
        assert_eq!(subscribe.filter, Some(Box::new(root)));
    }

    #[test]
    fn filter_is_refused_beyond_its_depth_and_where_it_has_another_shape() {
        let nested = |levels: usize| {
            let open = r#"{"op":"not","nodes":["#.repeat(levels - 1);
            let close = "]}".repeat(levels - 1);
            format!(r#"{{"id":1,"subscribe":{{"tf":{open}{{}}{close}}}}}"#)
        };
        assert_eq!(one(&nested(FILTER_DEPTH_MAX)).id, 1);
        for levels in [FILTER_DEPTH_MAX + 1, 100, 100_000] {
            assert!(is_refused(nested(levels).as_bytes()), "{levels}");
        }
        for tf in [
            "[]",
            "1",
            r#"{"op":1}"#,
            r#"{"vals":"a"}"#,
            r#"{"nodes":{}}"#,
        ] {
            let frame = format!(r#"{{"id":1,"subscribe":{{"tf":{tf}}}}}"#);
            assert!(is_refused(frame.as_bytes()), "{tf}");
        }
    }

    #[test]
    fn null_members_of_every_command_are_absent_ones() {
        use crate::wire::json::null;
        let leaf = serde_json::json!({ "op": "and", "key": "k", "cmp": "in", "val": "v", "vals": ["a"], "nodes": [{}] });
        let subscribe = serde_json::json!({
            "channel": "c", "token": "t", "recover": true, "epoch": "e", "offset": 5, "data": 1, "positioned": true,
            "recoverable": true, "join_leave": true, "delta": "fossil", "tf": leaf, "flag": 3, "type": 1,
        });
        null::covers(&subscribe, &null::names::<Subscribe<'_>>());
        let connect = serde_json::json!({
            "token": "t", "data": 1, "name": "n", "version": "v", "headers": { "h": "v" }, "subs": { "s": subscribe },
        });
        null::covers(&connect, &null::names::<Connect<'_>>());
        let history = serde_json::json!({
            "channel": "c", "limit": 1, "since": { "offset": 1, "epoch": "e" }, "reverse": true,
        });
        null::covers(&history, &null::names::<History<'_>>());
        for (part, body) in [
            ("connect", connect),
            ("subscribe", subscribe),
            ("history", history),
            ("unsubscribe", serde_json::json!({ "channel": "c" })),
            ("presence", serde_json::json!({ "channel": "c" })),
            ("presence_stats", serde_json::json!({ "channel": "c" })),
            ("publish", serde_json::json!({ "channel": "c" })),
            ("rpc", serde_json::json!({ "method": "m" })),
            ("refresh", serde_json::json!({ "token": "t" })),
            (
                "sub_refresh",
                serde_json::json!({ "channel": "c", "token": "t" }),
            ),
        ] {
            let command = serde_json::json!({ "id": 1, part: body });
            for case in null::cases(&command, &["headers"]) {
                // Channels are data, and `null` is a payload like any other.
                if case.path.ends_with("/data") || case.path.ends_with("subs/s") {
                    continue;
                }
                let read = |frame: &str| format!("{:?}", all(frame.as_bytes()));
                assert_eq!(
                    read(&case.with_null),
                    read(&case.without),
                    "{part}{}",
                    case.path
                );
            }
        }
        for (frame, payload) in [
            (
                r#"{"id":1,"publish":{"channel":"c","data":null}}"#,
                &b"null"[..],
            ),
            (r#"{"id":1,"publish":{"channel":"c"}}"#, b""),
        ] {
            let Body::Publish { data, .. } = one(frame).body else {
                panic!("no publication")
            };
            assert_eq!(&*data, payload);
        }
    }

    #[test]
    fn null_members_of_an_emulation_request_are_absent_ones() {
        use crate::wire::json::null;
        let sample = serde_json::json!({ "session": "s", "node": "n", "data": "{}" });
        null::covers(&sample, &null::names::<EmulationText<'_>>());
        null::same(&sample, &[], |text| {
            format!("{:?}", decode_emulation(text.as_bytes()))
        });
    }

    #[test]
    fn emulation_carries_node_session_and_a_frame_as_text() {
        let body = br#" {"session":"s","node":"n","data":"{\"id\":1}\n{}","x":[1]} "#;
        let emulation = decode_emulation(body).unwrap();
        assert_eq!((&*emulation.node, &*emulation.session), ("n", "s"));
        assert_eq!(&*emulation.data, b"{\"id\":1}\n{}");
        assert_eq!(decode_emulation(b"null"), Ok(EmulationCommands::default()));
        for body in [
            "",
            "{",
            "[]",
            "1",
            "{}{}",
            r#"{"data":{}}"#,
            r#"{"data":1}"#,
        ] {
            assert_eq!(
                decode_emulation(body.as_bytes()),
                Err(Disconnect::BadRequest),
                "{body}"
            );
        }
        assert_eq!(decode_emulation(b"\xff"), Err(Disconnect::BadRequest));
    }

    #[test]
    fn strings_are_borrowed_unless_they_have_escapes() {
        let Body::Presence { channel } = one(r#"{"id":1,"presence":{"channel":"é"}}"#).body else {
            panic!()
        };
        assert!(matches!(channel, Cow::Borrowed("é")));
        let Body::Presence { channel } =
            one(r#"{"id":1,"presence":{"channel":"\u00e9\n\ud83d\ude00"}}"#).body
        else {
            panic!()
        };
        assert!(matches!(&channel, Cow::Owned(owned) if owned == "é\n😀"));
    }

    #[test]
    fn deep_nesting_is_scanned_without_recursion() {
        let deep = "[".repeat(1_000_000) + &"]".repeat(1_000_000);
        let frame = format!(r#"{{"id":1,"x":{deep},"publish":{{"channel":"c","data":{deep}}}}}"#);
        assert_eq!(
            one(&frame).body,
            Body::Publish {
                channel: "c".into(),
                data: Cow::Borrowed(deep.as_bytes())
            }
        );
        assert!(is_refused(
            format!(r#"{{"id":1,"presence":{deep}}}"#).as_bytes()
        ));
        assert!(is_refused("{\"connect\":".repeat(100_000).as_bytes()));
    }

    #[test]
    fn frame_with_more_commands_than_the_limit_is_refused_at_the_limit() {
        let frame = "{}\n".repeat(COMMANDS_PER_FRAME_MAX);
        assert!(commands(frame.as_bytes()).all(|command| command == Ok(PONG)));
        let frame = "{}\n".repeat(COMMANDS_PER_FRAME_MAX + 2);
        assert_eq!(
            commands(frame.as_bytes()).count(),
            COMMANDS_PER_FRAME_MAX + 1
        );
        assert_eq!(
            commands(frame.as_bytes()).last(),
            Some(Err(Disconnect::BadRequest))
        );
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            for _ in commands(&bytes) {}
        }

        #[test]
        fn text_near_json_never_panics(text in r#"(\{|\}|"|:|,|\[|\]|\n|id|publish|data|channel|1|null|true|\\| ){0,60}"#) {
            for _ in commands(text.as_bytes()) {}
        }

        #[test]
        fn commands_survive_white_space_and_the_case_of_names(
            id in 1u32..,
            channel in "[^\"\\\\\\x00-\\x1f]{0,20}",
            space in proptest::collection::vec("[ \t\r]{0,3}", 14),
            upper in proptest::collection::vec(any::<bool>(), 20),
        ) {
            let mut upper = upper.iter().cycle();
            let mut name = |name: &str| -> String {
                let turn = |c: char| if *upper.next().unwrap() { c.to_ascii_uppercase() } else { c };
                name.chars().map(turn).collect()
            };
            let tokens = [
                "{".into(), format!("\"{}\"", name("id")), ":".into(), id.to_string(), ",".into(),
                format!("\"{}\"", name("publish")), ":".into(), "{".into(),
                format!("\"{}\"", name("channel")), format!(":\"{channel}\""), ",".into(),
                format!("\"{}\"", name("data")), ":[1]".into(), "}}".into(),
            ];
            let frame: String = tokens.iter().zip(&space).flat_map(|(token, space)| [space.as_str(), token]).collect();
            let body = Body::Publish { channel: channel.as_str().into(), data: Cow::Borrowed(b"[1]") };
            prop_assert_eq!(all(frame.as_bytes()), vec![Ok(Command { id, body })]);
        }
    }
}
