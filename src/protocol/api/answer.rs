//! Answers to a service.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::error::ApiError;
use crate::model::{ChannelName, ClientInfo, Publication, StreamPosition};
use crate::protocol::centrifuge::json::write::Members;
use crate::protocol::centrifuge::json::{client_info, is_json, tags};

/// Result of one request.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// Where it went; `None` in a channel without history.
    Publish(Option<StreamPosition>),
    /// One answer for each channel, in the request's order.
    Broadcast(Vec<Result<Option<StreamPosition>, ApiError>>),
    /// Done.
    Subscribe,
    /// Done.
    Unsubscribe,
    /// Done.
    Disconnect,
    /// Done.
    Refresh,
    /// Who is there.
    Presence(Vec<Arc<ClientInfo>>),
    /// How many are there.
    PresenceStats {
        /// Entries.
        num_clients: u32,
        /// Distinct users.
        num_users: u32,
    },
    /// Publications in the order asked for.
    History {
        /// Entries.
        publications: Vec<Arc<Publication>>,
        /// Top of the stream.
        position: StreamPosition,
    },
    /// Done.
    HistoryRemove,
    /// Active channels and their subscribers.
    Channels(Vec<(ChannelName, u32)>),
    /// Servers.
    Info(Vec<Node>),
    /// One answer for each command, in the request's order.
    Batch(Vec<Result<Answer, ApiError>>),
}

/// One server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Unique id of the process.
    pub uid: String,
    /// Name for people.
    pub name: String,
    /// Connections.
    pub num_clients: u64,
    /// Distinct users.
    pub num_users: u64,
    /// Channels with subscribers.
    pub num_channels: u64,
    /// Subscriptions.
    pub num_subs: u64,
    /// Seconds since the start.
    pub uptime_s: u64,
}

/// Where an answer stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Body of `/api/<method>`: `{"result":…}` or `{"error":…}`; a batch has neither around it.
    Single,
    /// The same in transport error mode: an error stands bare beside its HTTP status.
    Transport,
    /// Item of `replies`: `{"<method>":…}` or `{"error":…}`.
    BatchItem,
    /// Line of the legacy endpoint, with the command's id.
    Legacy(Option<u64>),
}

/// Appends one answer.
pub fn encode_answer(out: &mut Vec<u8>, answer: &Result<Answer, ApiError>, shape: Shape) {
    if let (Err(error), Shape::Transport) = (answer, shape) {
        return self::error(Members::open(out), *error);
    }
    if let (Ok(answer @ Answer::Batch(_)), Shape::Single | Shape::Transport) = (answer, shape) {
        return result(Members::open(out), answer);
    }
    let mut members = Members::open(out);
    if let Shape::Legacy(Some(id)) = shape {
        members.number("id", id);
    }
    match answer {
        Err(error) => self::error(members.object("error"), *error),
        Ok(answer) => {
            let name = if shape == Shape::BatchItem {
                answer.method()
            } else {
                "result"
            };
            result(members.object(name), answer);
        }
    }
}

impl Answer {
    /// Name of the method that is answered.
    #[must_use]
    pub const fn method(&self) -> &'static str {
        match self {
            Self::Publish(_) => "publish",
            Self::Broadcast(_) => "broadcast",
            Self::Subscribe => "subscribe",
            Self::Unsubscribe => "unsubscribe",
            Self::Disconnect => "disconnect",
            Self::Refresh => "refresh",
            Self::Presence(_) => "presence",
            Self::PresenceStats { .. } => "presence_stats",
            Self::History { .. } => "history",
            Self::HistoryRemove => "history_remove",
            Self::Channels(_) => "channels",
            Self::Info(_) => "info",
            Self::Batch(_) => "batch",
        }
    }
}

fn error(mut members: Members<'_>, error: ApiError) {
    members.number("code", error.code());
    members.text("message", error.message());
}

fn result(mut members: Members<'_>, answer: &Answer) {
    match answer {
        Answer::Subscribe
        | Answer::Unsubscribe
        | Answer::Disconnect
        | Answer::Refresh
        | Answer::HistoryRemove => {}
        Answer::Publish(position) => self::position(&mut members, *position),
        Answer::Broadcast(responses) => members.array("responses", responses, |out, response| {
            let mut item = Members::open(out);
            match response {
                Err(error) => self::error(item.object("error"), *error),
                Ok(position) => {
                    let mut result = item.object("result");
                    self::position(&mut result, *position);
                }
            }
        }),
        Answer::Presence(infos) => {
            let mut clients = members.object("presence");
            for info in infos {
                client_info(
                    clients.name(str::from_utf8(&info.client.encode()).unwrap_or("")),
                    info,
                );
            }
        }
        Answer::PresenceStats {
            num_clients,
            num_users,
        } => {
            members.number("num_clients", *num_clients);
            members.number("num_users", *num_users);
        }
        Answer::History {
            publications,
            position,
        } => {
            members.array("publications", publications, |out, item| {
                publication(out, item)
            });
            members.text("epoch", position.epoch.as_str());
            members.number("offset", position.offset.0);
        }
        Answer::Channels(channels) => {
            let mut names = members.object("channels");
            for (channel, num_clients) in channels {
                let mut item = Members::open(names.key(channel.as_str()));
                item.number("num_clients", *num_clients);
            }
        }
        Answer::Info(nodes) => members.array("nodes", nodes, node),
        Answer::Batch(replies) => {
            if !replies.is_empty() {
                members.array("replies", replies, |out, reply| {
                    encode_answer(out, reply, Shape::BatchItem)
                });
            }
        }
    }
}

fn position(members: &mut Members<'_>, position: Option<StreamPosition>) {
    if let Some(position) = position {
        members.number_some("offset", position.offset.0);
        members.text("epoch", position.epoch.as_str());
    }
}

/// A publication as services see it: no epoch, and `b64data` in place of a payload that is not JSON.
fn publication(out: &mut Vec<u8>, publication: &Publication) {
    let mut members = Members::open(out);
    if is_json(&publication.data) {
        members.raw("data", &publication.data);
    } else {
        members.text("b64data", &STANDARD.encode(&publication.data));
    }
    members.number_some("offset", publication.offset.0);
    if let Some(info) = &publication.info {
        client_info(members.name("info"), info);
    }
    tags(&mut members, publication);
}

fn node(out: &mut Vec<u8>, node: &Node) {
    let mut members = Members::open(out);
    members.text("uid", &node.uid);
    members.text("name", &node.name);
    members.text("version", env!("CARGO_PKG_VERSION"));
    members.number("num_clients", node.num_clients);
    members.number("num_users", node.num_users);
    members.number("num_channels", node.num_channels);
    members.number("num_subs", node.num_subs);
    members.number("uptime", node.uptime_s);
}
