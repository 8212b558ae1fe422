//! Frames of a client into commands (`spec/centrifuge.md` §2.1, §2.5, §3.2).

use std::borrow::Cow;
use std::iter::FusedIterator;

use memchr::memchr;
use serde::de::MapAccess;

use super::PING;
use super::read::{Object, Part, fields, first, value};
use crate::limits::COMMANDS_PER_FRAME_MAX;
use crate::protocol::command::{Body, Command, Connect, History, Subscribe};
use crate::protocol::disconnect::Disconnect;

/// The commands of one frame, in order. The first malformed one yields `Disconnect::BadRequest` and ends the frame.
///
/// Commands are decoded as they are asked for, so those before a malformed one are handled.
#[must_use]
pub const fn commands(frame: &[u8]) -> Commands<'_> {
    Commands {
        rest: Some(frame),
        left: COMMANDS_PER_FRAME_MAX,
    }
}

/// Iterator over the commands of one frame.
#[derive(Clone, Debug)]
pub struct Commands<'a> {
    /// What is not decoded yet; `None` after the last line.
    rest: Option<&'a [u8]>,
    /// Commands that this frame may still hold.
    left: usize,
}

impl<'a> Commands<'a> {
    /// What is not decoded yet.
    #[must_use]
    pub const fn rest(&self) -> Option<&'a [u8]> {
        self.rest
    }
}

impl<'a> Iterator for Commands<'a> {
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

impl FusedIterator for Commands<'_> {}

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
    fn offer(&mut self, place: u8, body: Option<Body<'a>>) {
        let Some(body) = body else { return };
        if self.body.as_ref().is_none_or(|(best, _)| place <= *best) {
            self.body = Some((place, body));
        }
    }

    fn command(self) -> Result<Command<'a>, Disconnect> {
        let body = match (self.id, self.send, self.body) {
            (0, None, _) => Body::Pong,
            (0, Some(data), _) => Body::Send { data },
            (_, _, Some((_, body))) => body,
            (_, _, None) => return Err(Disconnect::BadRequest),
        };
        Ok(Command { id: self.id, body })
    }
}

impl<'de> Object<'de> for Envelope<'de> {
    fn read<A: MapAccess<'de>>(&mut self, name: &str, map: &mut A) -> Result<bool, A::Error> {
        match name {
            "id" => self.id = value(map)?,
            "connect" => {
                let part: Option<Connect<'de>> = value(map)?;
                self.offer(0, part.map(Body::Connect));
            }
            "subscribe" => {
                let part: Option<Subscribe<'de>> = value(map)?;
                self.offer(1, part.map(Body::Subscribe));
            }
            "unsubscribe" => {
                let part: Option<InChannel<'de>> = value(map)?;
                self.offer(
                    2,
                    part.map(|part| Body::Unsubscribe {
                        channel: part.channel,
                    }),
                );
            }
            "publish" => {
                let part: Option<Publish<'de>> = value(map)?;
                self.offer(
                    3,
                    part.map(|part| Body::Publish {
                        channel: part.channel,
                        data: part.data,
                    }),
                );
            }
            "presence" => {
                let part: Option<InChannel<'de>> = value(map)?;
                self.offer(
                    4,
                    part.map(|part| Body::Presence {
                        channel: part.channel,
                    }),
                );
            }
            "presence_stats" => {
                let part: Option<InChannel<'de>> = value(map)?;
                self.offer(
                    5,
                    part.map(|part| Body::PresenceStats {
                        channel: part.channel,
                    }),
                );
            }
            "history" => {
                let part: Option<History<'de>> = value(map)?;
                self.offer(6, part.map(Body::History));
            }
            "rpc" => {
                let part: Option<Rpc<'de>> = value(map)?;
                self.offer(
                    7,
                    part.map(|part| Body::Rpc {
                        method: part.method,
                        data: part.data,
                    }),
                );
            }
            "send" => {
                let part: Option<Send<'de>> = value(map)?;
                if let Some(part) = part {
                    self.send = Some(part.data);
                    self.offer(8, Some(Body::Send { data: part.data }));
                }
            }
            "refresh" => {
                let part: Option<Refresh<'de>> = value(map)?;
                self.offer(9, part.map(|part| Body::Refresh { token: part.token }));
            }
            "sub_refresh" => {
                let part: Option<SubRefresh<'de>> = value(map)?;
                self.offer(
                    10,
                    part.map(|part| Body::SubRefresh {
                        channel: part.channel,
                        token: part.token,
                    }),
                );
            }
            _ => return Ok(false),
        }
        Ok(true)
    }
}

impl<'de> Object<'de> for Connect<'de> {
    fn read<A: MapAccess<'de>>(&mut self, name: &str, map: &mut A) -> Result<bool, A::Error> {
        match name {
            "token" => self.token = value(map)?,
            "data" => self.data = value(map)?,
            "name" => self.name = value(map)?,
            "version" => self.version = value(map)?,
            "subs" => {
                let subs: Vec<(Cow<'de, str>, Option<Subscribe<'de>>)> = value(map)?;
                let named = |(channel, sub): (_, Option<_>)| Subscribe {
                    channel,
                    ..sub.unwrap_or_default()
                };
                self.subs = subs.into_iter().map(named).collect();
            }
            _ => return Ok(false),
        }
        Ok(true)
    }
}

impl<'de> Object<'de> for Subscribe<'de> {
    fn read<A: MapAccess<'de>>(&mut self, name: &str, map: &mut A) -> Result<bool, A::Error> {
        match name {
            "channel" => self.channel = value(map)?,
            "token" => self.token = value(map)?,
            "recover" => self.recover = value(map)?,
            "epoch" => self.epoch = value(map)?,
            "offset" => self.offset = value(map)?,
            "data" => self.data = value(map)?,
            "positioned" => self.positioned = value(map)?,
            "recoverable" => self.recoverable = value(map)?,
            "join_leave" => self.join_leave = value(map)?,
            "delta" => self.delta = value(map)?,
            "tf" => self.has_filter = value::<&[u8], _>(map)? != b"null",
            "flag" => self.flag = value(map)?,
            "type" => self.kind = value(map)?,
            _ => return Ok(false),
        }
        Ok(true)
    }
}

impl<'de> Object<'de> for History<'de> {
    fn read<A: MapAccess<'de>>(&mut self, name: &str, map: &mut A) -> Result<bool, A::Error> {
        match name {
            "channel" => self.channel = value(map)?,
            "limit" => self.limit = value(map)?,
            "since" => {
                let since: Option<Position<'de>> = value(map)?;
                self.since = since.map(|since| (since.offset, since.epoch));
            }
            "reverse" => self.reverse = value(map)?,
            _ => return Ok(false),
        }
        Ok(true)
    }
}

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
struct InChannel<'a> {
    channel: Cow<'a, str>,
}
fields!(InChannel<'de> { "channel" => channel });

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
