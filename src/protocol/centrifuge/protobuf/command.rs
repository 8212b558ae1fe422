//! Frames of a client into commands (`spec/centrifuge.md` §2.2, §2.5, §3.2).

use std::borrow::Cow;
use std::iter::FusedIterator;

use prost::Message as _;
use prost::encoding::decode_varint;

use super::schema;
use crate::limits::{COMMANDS_PER_FRAME_MAX, FILTER_DEPTH_MAX};
use crate::model::FilterNode;
use crate::protocol::command::{Body, Command, Connect, History, Subscribe};
use crate::protocol::disconnect::Disconnect;

/// The commands of one frame, in order. The first malformed one yields `Disconnect::BadRequest` and ends the frame.
///
/// Commands are decoded as they are asked for, so those before a malformed one are handled.
#[must_use]
pub const fn commands(frame: &[u8]) -> ProtobufCommands<'_> {
    ProtobufCommands {
        rest: Some(frame),
        left: COMMANDS_PER_FRAME_MAX,
    }
}

/// Iterator over the commands of one frame.
#[derive(Clone, Debug)]
pub struct ProtobufCommands<'a> {
    /// What is not decoded yet; `None` after the last message.
    rest: Option<&'a [u8]>,
    /// Commands that this frame may still hold.
    left: usize,
}

impl<'a> ProtobufCommands<'a> {
    /// What is not decoded yet.
    #[must_use]
    pub const fn rest(&self) -> Option<&'a [u8]> {
        self.rest
    }
}

impl Iterator for ProtobufCommands<'_> {
    type Item = Result<Command<'static>, Disconnect>;

    fn next(&mut self) -> Option<Self::Item> {
        let rest = self.rest.take()?;
        if self.left == 0 {
            return Some(Err(Disconnect::BadRequest));
        }
        self.left -= 1;
        let Some((message, behind)) = first_message(rest) else {
            return Some(Err(Disconnect::BadRequest));
        };
        let command = decode(message);
        if command.is_ok() && !behind.is_empty() {
            self.rest = Some(behind);
        }
        Some(command)
    }
}

impl FusedIterator for ProtobufCommands<'_> {}

/// The message behind the length at the front, and what follows it. `None` when it is cut off.
fn first_message(mut frame: &[u8]) -> Option<(&[u8], &[u8])> {
    let len = decode_varint(&mut frame).ok()?;
    frame.split_at_checked(usize::try_from(len).ok()?)
}

fn decode(message: &[u8]) -> Result<Command<'static>, Disconnect> {
    if message.is_empty() {
        return Ok(Command {
            id: 0,
            body: Body::Pong,
        });
    }
    let command = schema::Command::decode(message).map_err(|_| Disconnect::BadRequest)?;
    let id = command.id;
    let body = if id == 0 {
        match command.send {
            Some(send) => Body::Send {
                data: send.data.into(),
            },
            None => Body::Pong,
        }
    } else {
        body(command)?
    };
    Ok(Command { id, body })
}

/// The part that stands first in the order of §2.5.
fn body(command: schema::Command) -> Result<Body<'static>, Disconnect> {
    Ok(if let Some(part) = command.connect {
        Body::Connect(connect(part)?)
    } else if let Some(part) = command.subscribe {
        Body::Subscribe(subscribe(part)?)
    } else if let Some(part) = command.unsubscribe {
        let channel = part.channel.into();
        Body::Unsubscribe { channel }
    } else if let Some(part) = command.publish {
        Body::Publish {
            channel: part.channel.into(),
            data: part.data.into(),
        }
    } else if let Some(part) = command.presence {
        let channel = part.channel.into();
        Body::Presence { channel }
    } else if let Some(part) = command.presence_stats {
        let channel = part.channel.into();
        Body::PresenceStats { channel }
    } else if let Some(part) = command.history {
        Body::History(History {
            channel: part.channel.into(),
            limit: part.limit,
            since: part.since.map(|since| (since.offset, since.epoch.into())),
            reverse: part.reverse,
        })
    } else if let Some(part) = command.rpc {
        Body::Rpc {
            method: part.method.into(),
            data: part.data.into(),
        }
    } else if let Some(part) = command.send {
        let data = part.data.into();
        Body::Send { data }
    } else if let Some(part) = command.refresh {
        let token = part.token.into();
        Body::Refresh { token }
    } else if let Some(part) = command.sub_refresh {
        Body::SubRefresh {
            channel: part.channel.into(),
            token: part.token.into(),
        }
    } else {
        return Err(Disconnect::BadRequest);
    })
}

fn connect(part: schema::ConnectRequest) -> Result<Connect<'static>, Disconnect> {
    let sub = |sub: schema::Sub| {
        let request = sub.request.map(|request| *request).unwrap_or_default();
        Ok(Subscribe {
            channel: Cow::Owned(sub.channel),
            ..subscribe(request)?
        })
    };
    let header = |header: schema::Header| (Cow::Owned(header.name), Cow::Owned(header.value));
    Ok(Connect {
        token: part.token.into(),
        data: part.data.into(),
        subs: part.subs.into_iter().map(sub).collect::<Result<_, _>>()?,
        name: part.name.into(),
        version: part.version.into(),
        headers: part.headers.into_iter().map(header).collect(),
    })
}

fn subscribe(part: schema::SubscribeRequest) -> Result<Subscribe<'static>, Disconnect> {
    let filter = match part.tf {
        Some(node) => Some(Box::new(filter(*node, FILTER_DEPTH_MAX)?)),
        None => None,
    };
    Ok(Subscribe {
        channel: part.channel.into(),
        token: part.token.into(),
        recover: part.recover,
        epoch: part.epoch.into(),
        offset: part.offset,
        data: part.data.into(),
        positioned: part.positioned,
        recoverable: part.recoverable,
        join_leave: part.join_leave,
        delta: part.delta.into(),
        filter,
        flag: part.flag,
        kind: part.kind,
    })
}

/// A node and what is below it, at most `levels` deep.
fn filter(node: schema::FilterNode, levels: usize) -> Result<FilterNode, Disconnect> {
    let levels = levels.checked_sub(1).ok_or(Disconnect::BadRequest)?;
    let below = |node| filter(node, levels);
    Ok(FilterNode {
        op: node.op.into(),
        key: node.key.into(),
        cmp: node.cmp.into(),
        val: node.val.into(),
        vals: node.vals.into_iter().map(Into::into).collect(),
        nodes: node
            .nodes
            .into_iter()
            .map(below)
            .collect::<Result<_, _>>()?,
    })
}

#[cfg(test)]
mod tests;
