//! What differs between the protocols that the swarm speaks: the request, the join, the answers, a publish.

use std::fmt::Write as _;

use memchr::memmem;
use serde_json::Value;

use super::BenchError;
use super::frame;
use super::token::Signer;
use super::wire::{self, Field, Kind, Wire};

/// How the swarm talks to a server.
pub(crate) enum Driver {
    /// Centrifuge protocol v2, JSON over WebSocket.
    Centrifuge {
        /// Path of the endpoint.
        path: String,
        /// Connection tokens.
        signer: Signer,
        /// Namespace of the channels.
        namespace: &'static str,
        /// Subscribe with `recover` when a position is known.
        recover: bool,
        /// What subscribers take turns in.
        wires: Vec<Wire>,
        /// Whose the channels are; without it the tenant's that the path leads to.
        tenants: Option<Spread>,
    },
    /// Pusher Channels v7. Publications are client events on private channels.
    Pusher {
        /// App key.
        key: String,
        /// Signs with the app's secret.
        signer: Signer,
    },
    /// A plain WebSocket server that passes what the publisher sends to everybody else, or back to its sender (`echo`).
    Raw {
        /// Path for subscribers.
        path: String,
        /// Path for the publisher.
        publish_path: String,
        /// Sent after the upgrade for each channel, with `{channel}` replaced; empty sends nothing.
        subscribe: String,
        /// Sent to publish, with `{channel}` and `{data}` replaced; empty sends the payload itself.
        publish: String,
    },
    /// No protocol: these many bytes out and in, then frames. The counterpart is `limit`.
    Script {
        /// The exchange before a connection counts as joined.
        steps: Vec<Step>,
    },
}

/// One exchange of a scripted opening.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    /// Bytes that the client sends.
    pub(crate) write: u32,
    /// Bytes that the server answers once it has received all of them.
    pub(crate) read: u32,
}

/// Channels of several tenants, who call theirs alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Spread {
    /// Number of the tenant that has the first ones.
    pub(crate) first: u32,
    /// Channels of each.
    pub(crate) channels: u32,
}

impl Spread {
    /// The id of a tenant.
    pub(crate) fn id(tenant: u32) -> String {
        format!("t{tenant}")
    }

    /// Stands before the path of an endpoint, for a client of the channel's tenant.
    fn path(self, channel: u32) -> String {
        format!("/t/{}", Self::id(self.first + channel / self.channels))
    }
}

/// Where a subscription stands, for recovery.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Position {
    /// Which life of the channel.
    pub(crate) epoch: String,
    /// Last offset seen.
    pub(crate) offset: u64,
}

/// A client as far as a driver needs to know it.
pub(crate) struct Member {
    /// Number within the swarm; names its user.
    pub(crate) index: u32,
    /// Channels to subscribe to, each with the position to recover from.
    pub(crate) channels: Vec<(u32, Option<Position>)>,
}

/// What an answer of the server means.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Nothing to do.
    Nothing,
    /// Send this text.
    Reply(String),
    /// One expected acknowledgement has come.
    Acknowledged,
    /// One acknowledgement has come, and each of these texts will bring another.
    Continue(Vec<String>),
    /// An error or a refusal.
    Refused,
}

impl Driver {
    /// The scripted opening; empty for real protocols.
    pub(crate) fn steps(&self) -> &[Step] {
        match self {
            Self::Script { steps } => steps,
            Self::Centrifuge { .. } | Self::Pusher { .. } | Self::Raw { .. } => &[],
        }
    }

    /// How a client is connected. The publisher speaks JSON over WebSocket.
    pub(crate) fn wire(&self, index: u32, is_publisher: bool) -> Wire {
        match self {
            Self::Centrifuge { wires, .. } if !is_publisher => wires[index as usize % wires.len()],
            Self::Centrifuge { .. }
            | Self::Pusher { .. }
            | Self::Raw { .. }
            | Self::Script { .. } => Wire::PLAIN,
        }
    }

    /// What opens the connection.
    pub(crate) fn request(
        &self,
        host: &str,
        member: &Member,
        is_publisher: bool,
    ) -> Result<Vec<u8>, BenchError> {
        match self {
            Self::Centrifuge {
                path,
                signer,
                tenants,
                ..
            } => {
                let first = member.channels.first().map_or(0, |&(channel, _)| channel);
                let prefix = tenants.map(|of| of.path(first)).unwrap_or_default();
                let path = &format!("{prefix}{path}");
                let channels: Vec<String> = member
                    .channels
                    .iter()
                    .map(|(channel, _)| self.channel_name(*channel))
                    .collect();
                let user = format!("u{}", member.index);
                self.wire(member.index, is_publisher)
                    .request(host, path, signer, &user, &channels)
            }
            Self::Pusher { key, .. } => {
                let target = format!("/app/{key}?protocol=7&client=ringmain-bench&version=1");
                Ok(frame::upgrade_request(host, &target, ""))
            }
            Self::Raw {
                path, publish_path, ..
            } => {
                let target = if is_publisher { publish_path } else { path };
                Ok(frame::upgrade_request(host, target, ""))
            }
            Self::Script { .. } => Ok(Vec::new()),
        }
    }

    /// The name of a channel on the wire.
    pub(crate) fn channel_name(&self, channel: u32) -> String {
        match self {
            Self::Centrifuge {
                namespace, tenants, ..
            } => {
                let own = tenants.map_or(channel, |of| channel % of.channels);
                format!("{namespace}:{own}")
            }
            Self::Pusher { .. } => format!("private-bench-{channel}"),
            Self::Raw { .. } | Self::Script { .. } => channel.to_string(),
        }
    }

    /// Texts to send right after the upgrade, and how many acknowledgements they will bring.
    pub(crate) fn join(
        &self,
        member: &Member,
        is_publisher: bool,
    ) -> Result<(Vec<Vec<u8>>, u16), BenchError> {
        match self {
            Self::Centrifuge {
                signer, recover, ..
            } => {
                let wire = self.wire(member.index, is_publisher);
                if wire.is_stream() {
                    // The request has said everything; the connect result comes once all subscriptions are made.
                    return Ok((Vec::new(), 1));
                }
                let token = signer.token(&format!("u{}", member.index), &[])?;
                let acknowledgements = 1 + member.channels.len() as u16;
                if wire.encoding == Kind::Protobuf {
                    let mut frame = wire::connect_protobuf(&token);
                    for (i, (channel, position)) in member.channels.iter().enumerate() {
                        let name = self.channel_name(*channel);
                        let position = position.as_ref().filter(|_| *recover);
                        let recover = position.map(|at| (at.epoch.as_str(), at.offset));
                        let id = i as u32 + 2;
                        frame.extend(wire::subscribe_protobuf(id, &name, recover, wire.delta));
                    }
                    return Ok((vec![frame], acknowledgements));
                }
                let mut text = wire::connect_json(&token);
                for (i, (channel, position)) in member.channels.iter().enumerate() {
                    let name = self.channel_name(*channel);
                    let _ = write!(text, "\n{{\"subscribe\":{{\"channel\":\"{name}\"");
                    if let Some(position) = position.as_ref().filter(|_| *recover) {
                        let Position { epoch, offset } = position;
                        let _ = write!(
                            text,
                            ",\"recover\":true,\"epoch\":\"{epoch}\",\"offset\":{offset}"
                        );
                    }
                    if wire.delta {
                        text.push_str(",\"delta\":\"fossil\"");
                    }
                    let _ = write!(text, "}},\"id\":{}}}", i + 2);
                }
                Ok((vec![text.into_bytes()], acknowledgements))
            }
            // The server speaks first.
            Self::Pusher { .. } => Ok((Vec::new(), 1)),
            Self::Raw { subscribe, .. } => {
                let wanted = member.channels.iter().filter(|_| !subscribe.is_empty());
                Ok((
                    wanted
                        .map(|(channel, _)| {
                            subscribe
                                .replace("{channel}", &channel.to_string())
                                .into_bytes()
                        })
                        .collect(),
                    0,
                ))
            }
            Self::Script { .. } => Ok((Vec::new(), 0)),
        }
    }

    /// A line that is no delivery and no Centrifuge ping.
    pub(crate) fn answer(&self, line: &[u8], member: &Member) -> Result<Answer, BenchError> {
        match self {
            Self::Centrifuge { .. } => Ok(centrifuge_answer(line)),
            Self::Pusher { key, signer } => self.pusher_answer(line, member, key, signer),
            Self::Raw { .. } | Self::Script { .. } => Ok(Answer::Nothing),
        }
    }

    fn pusher_answer(
        &self,
        line: &[u8],
        member: &Member,
        key: &str,
        signer: &Signer,
    ) -> Result<Answer, BenchError> {
        let Ok(event) = serde_json::from_slice::<Value>(line) else {
            return Ok(Answer::Refused);
        };
        match event["event"].as_str().unwrap_or_default() {
            "pusher:connection_established" => {
                let data: Value = event["data"]
                    .as_str()
                    .and_then(|data| serde_json::from_str(data).ok())
                    .unwrap_or_default();
                let socket = data["socket_id"].as_str().unwrap_or_default();
                let mut texts = Vec::new();
                // A client event is accepted only from a member of the channel.
                for (channel, _) in &member.channels {
                    let name = self.channel_name(*channel);
                    let signature = signer.hmac_hex(&format!("{socket}:{name}"))?;
                    texts.push(format!(
                        "{{\"event\":\"pusher:subscribe\",\"data\":{{\"auth\":\"{key}:{signature}\",\"channel\":\"{name}\"}}}}"
                    ));
                }
                Ok(Answer::Continue(texts))
            }
            "pusher_internal:subscription_succeeded" => Ok(Answer::Acknowledged),
            "pusher:ping" => Ok(Answer::Reply(
                "{\"event\":\"pusher:pong\",\"data\":{}}".to_owned(),
            )),
            "pusher:error" | "pusher:subscription_error" => Ok(Answer::Refused),
            _ => Ok(Answer::Nothing),
        }
    }

    /// The text of a publish with `payload`; `id` numbers the publishes of a connection.
    pub(crate) fn publish(&self, channel: u32, id: u32, payload: &[u8], out: &mut Vec<u8>) {
        let name = || self.channel_name(channel);
        match self {
            Self::Centrifuge { .. } => {
                let head = format!("{{\"publish\":{{\"channel\":\"{}\",\"data\":", name());
                out.extend_from_slice(head.as_bytes());
                out.extend_from_slice(payload);
                out.extend_from_slice(format!("}},\"id\":{id}}}").as_bytes());
            }
            Self::Pusher { .. } => {
                let head = format!(
                    "{{\"event\":\"client-bench\",\"channel\":\"{}\",\"data\":",
                    name()
                );
                out.extend_from_slice(head.as_bytes());
                out.extend_from_slice(payload);
                out.push(b'}');
            }
            Self::Raw { publish, .. } if !publish.is_empty() => {
                let text = publish.replace("{channel}", &name());
                let text = text.replace("{data}", &String::from_utf8_lossy(payload));
                out.extend_from_slice(text.as_bytes());
            }
            Self::Raw { .. } | Self::Script { .. } => out.extend_from_slice(payload),
        }
    }

    /// Bytes around the payload in the frame that a subscriber receives, by estimate; a run against a server
    /// measures it.
    pub(crate) fn push_overhead(&self) -> usize {
        match self {
            // With the publisher's info, as publications of clients have it.
            Self::Centrifuge { .. } => {
                "{\"push\":{\"channel\":\"bench:0\",\"pub\":{\"data\":,\"info\":{\"user\":\"u1000\",\"client\":\"\"}}}}".len() + 36
            }
            Self::Pusher { .. } => "{\"event\":\"client-bench\",\"channel\":\"private-bench-0\",\"data\":}".len(),
            Self::Raw { .. } | Self::Script { .. } => 0,
        }
    }
}

fn centrifuge_answer(line: &[u8]) -> Answer {
    // The members of a reply come in any order; a push has one member only.
    if line.starts_with(b"{\"push\":") || memmem::find(line, b"\"id\":").is_none() {
        return Answer::Nothing;
    }
    // No payload of the bench contains this key.
    if memmem::find(line, b"\"error\":").is_some() {
        Answer::Refused
    } else {
        Answer::Acknowledged
    }
}

/// The same for a message in Protobuf (`Reply`: id 1, error 2, push 4).
pub(crate) fn protobuf_answer(message: &[u8]) -> Answer {
    let has = |wanted| wire::fields(message).any(|(number, _)| number == wanted);
    match (has(1), has(2)) {
        (false, _) => Answer::Nothing,
        (true, true) => Answer::Refused,
        (true, false) => Answer::Acknowledged,
    }
}

/// The position in a subscribe reply in Protobuf (`SubscribeResult`: epoch 6, offset 9).
pub(crate) fn subscribe_reply_protobuf(message: &[u8]) -> Option<(u32, Position)> {
    let id = wire::fields(message).find_map(|(number, field)| match field {
        Field::Number(id) if number == 1 => u32::try_from(id).ok(),
        Field::Number(_) | Field::Bytes(_) => None,
    })?;
    let result = wire::field(message, 6)?;
    let epoch = wire::field(result, 6).unwrap_or_default();
    let offset = wire::fields(result).find_map(|(number, field)| match field {
        Field::Number(offset) if number == 9 => Some(offset),
        Field::Number(_) | Field::Bytes(_) => None,
    });
    Some((
        id,
        Position {
            epoch: String::from_utf8_lossy(epoch).into_owned(),
            offset: offset.unwrap_or(0),
        },
    ))
}

/// The position in a subscribe reply of the Centrifuge protocol: which command it answers, and where the stream stood.
pub(crate) fn subscribe_reply(line: &[u8]) -> Option<(u32, Position)> {
    let reply: Value = serde_json::from_slice(line).ok()?;
    let result = reply.get("subscribe")?;
    let id = u32::try_from(reply["id"].as_u64()?).ok()?;
    let epoch = result["epoch"].as_str().unwrap_or_default().to_owned();
    Some((
        id,
        Position {
            epoch,
            offset: result["offset"].as_u64().unwrap_or(0),
        },
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn centrifuge() -> Driver {
        let signer = Signer::new("secret", 4_000_000_000);
        Driver::Centrifuge {
            path: "/c".to_owned(),
            signer,
            namespace: "recover",
            recover: true,
            wires: vec![Wire::PLAIN],
            tenants: None,
        }
    }

    #[test]
    fn centrifuge_member_connects_subscribes_and_recovers_in_one_frame() {
        let position = Position {
            epoch: "abCD".to_owned(),
            offset: 5,
        };
        let member = Member {
            index: 3,
            channels: vec![(0, Some(position)), (9, None)],
        };
        let (texts, acknowledgements) = centrifuge().join(&member, false).unwrap();
        let text = String::from_utf8(texts[0].clone()).unwrap();
        let commands: Vec<Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!((commands.len(), acknowledgements), (3, 3));
        assert_eq!(commands[1]["subscribe"]["epoch"], "abCD");
        assert_eq!(commands[1]["subscribe"]["offset"], 5);
        assert_eq!(commands[2]["subscribe"]["channel"], "recover:9");
        assert_eq!(commands[2]["subscribe"].get("recover"), None);
    }

    #[test]
    fn publishes_are_valid_json_in_every_protocol() {
        let raw = Driver::Raw {
            path: "/".to_owned(),
            publish_path: "/".to_owned(),
            subscribe: String::new(),
            publish: "{\"to\":\"{channel}\",\"m\":{data}}".to_owned(),
        };
        let pusher = Driver::Pusher {
            key: "k".to_owned(),
            signer: Signer::new("s", 0),
        };
        for driver in [centrifuge(), raw, pusher] {
            let mut out = Vec::new();
            driver.publish(4, 17, b"{\"b\":1}", &mut out);
            assert!(serde_json::from_slice::<Value>(&out).is_ok());
        }
    }

    #[test]
    fn replies_of_centrifuge_are_told_apart() {
        assert_eq!(
            centrifuge_answer(b"{\"id\":2,\"publish\":{}}"),
            Answer::Acknowledged
        );
        let error = b"{\"id\":2,\"error\":{\"code\":103,\"message\":\"permission denied\"}}";
        assert_eq!(centrifuge_answer(error), Answer::Refused);
        assert_eq!(
            centrifuge_answer(b"{\"push\":{\"channel\":\"a\",\"join\":{}}}"),
            Answer::Nothing
        );
        let reply =
            b"{\"id\":2,\"subscribe\":{\"recoverable\":true,\"epoch\":\"xY\",\"offset\":3}}";
        assert_eq!(
            subscribe_reply(reply),
            Some((
                2,
                Position {
                    epoch: "xY".to_owned(),
                    offset: 3
                }
            ))
        );
    }

    #[test]
    fn pusher_member_authorises_its_channels_once_it_has_a_socket_id() {
        let driver = Driver::Pusher {
            key: "k".to_owned(),
            signer: Signer::new("s", 0),
        };
        let member = Member {
            index: 0,
            channels: vec![(0, None), (1, None)],
        };
        let hello = br#"{"event":"pusher:connection_established","data":"{\"socket_id\":\"1.2\",\"activity_timeout\":120}"}"#;
        let Answer::Continue(texts) = driver.answer(hello, &member).unwrap() else {
            panic!("subscribes follow")
        };
        assert_eq!(texts.len(), 2);
        assert!(texts[1].contains("private-bench-1"));
        let done = br#"{"event":"pusher_internal:subscription_succeeded","channel":"private-bench-0","data":"{}"}"#;
        assert_eq!(driver.answer(done, &member).unwrap(), Answer::Acknowledged);
    }
}
