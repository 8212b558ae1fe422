//! A service: uses the server API over keep-alive HTTP connections, pipelined at times.

use std::collections::{BTreeSet, VecDeque};

use serde_json::Value;

use super::client::Scene;
use super::link::Link;
use super::setup::{API_KEY, CHANNELS, SERVER_CHANNELS, is_durable};

/// A request without response.
enum Asked {
    Publish {
        channels: Vec<String>,
        n: u64,
        keeps: bool,
    },
    Broadcast {
        channels: Vec<String>,
        n: u64,
    },
    /// A user is shut out, or let in again.
    Block(String),
    Unblock(String),
    /// A token is shut out.
    Revoke(String),
    Other(&'static str),
}

#[derive(Default)]
pub struct Service {
    pub link: Option<usize>,
    asked: VecDeque<Asked>,
    bytes: Vec<u8>,
    /// Only one service shuts users out, so that their order is known. Of these it is not any more.
    shuts_out: bool,
    unsure: BTreeSet<String>,
    /// The last publish with an idempotency key, said again at times.
    repeat: Option<(String, String, u64)>,
}

impl Service {
    pub fn new(shuts_out: bool) -> Self {
        Self {
            shuts_out,
            ..Self::default()
        }
    }

    pub fn check_quiet(&self) {
        assert!(
            self.link.is_none() || self.asked.is_empty(),
            "{} requests have no response",
            self.asked.len()
        );
    }

    fn gone(&mut self, scene: &mut Scene<'_>) {
        self.link = None;
        self.bytes.clear();
        self.gone_unanswered(scene);
    }

    fn gone_unanswered(&mut self, scene: &mut Scene<'_>) {
        for asked in std::mem::take(&mut self.asked) {
            // It may be carried out, or not, also behind what is asked next.
            if let Asked::Block(user) | Asked::Unblock(user) = asked {
                scene.truth.blocked.remove(&user);
                self.unsure.insert(user);
            }
        }
    }

    /// Sends requests, or goes.
    pub fn act(
        &mut self,
        links: &mut [Link],
        scene: &mut Scene<'_>,
        users: u64,
        clients: &[String],
        tokens: &[String],
    ) {
        let Some(link) = self.link else { return };
        match scene.rng.below(400) {
            0 => {
                links[link].up_reset = true;
                links[link].down.clear();
                return self.gone(scene);
            }
            1 => links[link].up_fin = true,
            _ => {}
        }
        if links[link].up_fin || self.asked.len() > 4 {
            return;
        }
        let (path, body) = match self.shut_out(scene, users, tokens) {
            Some(request) => request,
            None => self.request(scene, users, clients),
        };
        let head = format!(
            "POST /api/{path} HTTP/1.1\r\nHost: h\r\nX-API-Key: {API_KEY}\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        links[link].up.extend_from_slice(head.as_bytes());
        links[link].up.extend_from_slice(body.as_bytes());
    }

    /// Seldom: shuts somebody out, or lets somebody in again.
    fn shut_out(
        &mut self,
        scene: &mut Scene<'_>,
        users: u64,
        tokens: &[String],
    ) -> Option<(&'static str, String)> {
        if !self.shuts_out || scene.rng.below(60) > 0 {
            return None;
        }
        let user = format!("u{}", scene.rng.below(users));
        let token = tokens.get(scene.rng.below(tokens.len() as u64 + 1) as usize);
        Some(match (scene.rng.below(4), token) {
            (0 | 1, Some(token)) => {
                self.asked.push_back(Asked::Revoke(token.clone()));
                ("revoke_token", format!(r#"{{"uid":"{token}"}}"#))
            }
            (0, None) | (2, _) => {
                let body = format!(r#"{{"user":"{user}"}}"#);
                self.asked.push_back(Asked::Block(user));
                ("block_user", body)
            }
            _ => {
                let user = match scene.truth.blocked.first() {
                    Some(blocked) => blocked.clone(),
                    None => user,
                };
                scene.truth.blocked.remove(&user);
                let body = format!(r#"{{"user":"{user}"}}"#);
                self.asked.push_back(Asked::Unblock(user));
                ("unblock_user", body)
            }
        })
    }

    fn request(
        &mut self,
        scene: &mut Scene<'_>,
        users: u64,
        clients: &[String],
    ) -> (&'static str, String) {
        let rng = &mut *scene.rng;
        let channel = CHANNELS[rng.below(CHANNELS.len() as u64) as usize];
        let server = SERVER_CHANNELS[rng.below(SERVER_CHANNELS.len() as u64) as usize];
        let user = rng.below(users + 1);
        let user = if user == users {
            String::new()
        } else {
            format!("u{user}")
        };
        let at = rng.below(100);
        if at < 70 {
            return self.publish(if at < 30 { server } else { channel }, scene);
        }
        let narrowed = match clients.get(rng.below(clients.len() as u64 * 3 + 1) as usize) {
            Some(client) => format!(r#","client":"{client}""#),
            None => String::new(),
        };
        let padding = rng.below(scene.large) as usize;
        if at < 80 {
            let mut channels = vec![channel, server, "plain:1"];
            channels.sort_unstable();
            channels.dedup();
            let n_payload = scene.truth.payload(&channels, padding);
            let n = number(&n_payload);
            self.asked.push_back(Asked::Broadcast {
                channels: channels.iter().map(|&name| name.to_owned()).collect(),
                n,
            });
            return (
                "broadcast",
                format!(r#"{{"channels":{channels:?},"data":{n_payload}}}"#),
            );
        }
        let mixed = if rng.below(2) == 0 { server } else { channel };
        let (method, body) = match at {
            80..=84 => (
                "subscribe",
                format!(r#"{{"user":"{user}","channel":"{mixed}"{narrowed}}}"#),
            ),
            85..=88 => (
                "unsubscribe",
                format!(r#"{{"user":"{user}","channel":"{mixed}"{narrowed}}}"#),
            ),
            89 => ("disconnect", format!(r#"{{"user":"{user}"{narrowed}}}"#)),
            90 => (
                "refresh",
                format!(
                    r#"{{"user":"{user}","expire_at":{}{narrowed}}}"#,
                    scene.now.unix_s() + 50
                ),
            ),
            91..=92 => ("presence", format!(r#"{{"channel":"{channel}"}}"#)),
            93 => ("presence_stats", format!(r#"{{"channel":"{channel}"}}"#)),
            94..=95 => ("history", format!(r#"{{"channel":"{channel}","limit":5}}"#)),
            96 if rng.below(3) == 0 => ("history_remove", format!(r#"{{"channel":"{channel}"}}"#)),
            96..=97 => ("channels", "{}".to_owned()),
            98 => ("info", "{}".to_owned()),
            _ => (
                "batch",
                format!(
                    r#"{{"commands":[{{"info":{{}}}},{{"presence":{{"channel":"{channel}"}}}},{{"channels":{{}}}}]}}"#
                ),
            ),
        };
        self.asked.push_back(Asked::Other(method));
        (method, body)
    }

    fn publish(&mut self, channel: &str, scene: &mut Scene<'_>) -> (&'static str, String) {
        if let Some((channel, body, n)) = &self.repeat
            && scene.rng.below(10) == 0
        {
            self.asked.push_back(Asked::Publish {
                channels: vec![channel.clone()],
                n: *n,
                keeps: true,
            });
            return ("publish", body.clone());
        }
        let padding = scene.rng.below(scene.large) as usize;
        let payload = scene.truth.payload(&[channel], padding);
        let n = number(&payload);
        let keyed = scene.rng.below(10) == 0;
        let skips = !keyed && scene.rng.below(20) == 0;
        let option = if keyed {
            format!(r#","idempotency_key":"k{n}""#)
        } else if skips {
            r#","skip_history":true"#.to_owned()
        } else {
            String::new()
        };
        let body = format!(r#"{{"channel":"{channel}","data":{payload}{option}}}"#);
        if keyed {
            self.repeat = Some((channel.to_owned(), body.clone(), n));
        }
        self.asked.push_back(Asked::Publish {
            channels: vec![channel.to_owned()],
            n,
            keeps: !skips,
        });
        ("publish", body)
    }

    pub fn read(&mut self, links: &mut [Link], scene: &mut Scene<'_>) {
        let Some(link) = self.link else { return };
        if links[link].down_reset {
            links[link].down.clear();
            return self.gone(scene);
        }
        let bytes = std::mem::take(&mut links[link].down);
        self.bytes.extend_from_slice(&bytes);
        while let Some(end) = self
            .bytes
            .windows(4)
            .position(|window| window == b"\r\n\r\n")
        {
            let head = String::from_utf8(self.bytes[..end].to_vec())
                .expect("a head is text")
                .to_ascii_lowercase();
            if head.starts_with("http/1.1 408 ") {
                // Time went faster than the request.
                scene.truth.count("request timeout");
                self.gone_unanswered(scene);
            } else {
                assert!(
                    head.starts_with("http/1.1 200 "),
                    "a right request was answered with {head}"
                );
            }
            let (_, len) = head
                .split_once("content-length: ")
                .expect("a response has a length");
            let len: usize = len
                .lines()
                .next()
                .and_then(|len| len.trim().parse().ok())
                .expect("a number");
            if self.bytes.len() < end + 4 + len {
                break;
            }
            let body: Vec<u8> = self.bytes.drain(..end + 4 + len).skip(end + 4).collect();
            if !head.starts_with("http/1.1 408 ") {
                self.answered(
                    &serde_json::from_slice(&body).expect("a response is JSON"),
                    scene,
                );
            }
        }
        if links[link].down_fin {
            assert!(self.bytes.is_empty(), "the server ended within a response");
            self.gone(scene);
        }
    }

    fn answered(&mut self, value: &Value, scene: &mut Scene<'_>) {
        let asked = self
            .asked
            .pop_front()
            .expect("a response that nobody asked for");
        if let Some(error) = value.get("error") {
            let method = match asked {
                Asked::Other(method) => method,
                Asked::Block(_) | Asked::Unblock(_) | Asked::Revoke(_) => "revocations",
                Asked::Publish { .. } | Asked::Broadcast { .. } => "publish",
            };
            scene
                .truth
                .count(&format!("api error {} to {method}", error["code"]));
            return;
        }
        match asked {
            Asked::Publish { channels, n, keeps } => {
                if let (Some(offset), true) = (value["result"]["offset"].as_u64(), keeps) {
                    let epoch = value["result"]["epoch"]
                        .as_str()
                        .expect("an offset comes with its epoch");
                    scene.truth.stands(&channels[0], epoch, offset, n);
                    if is_durable(&channels[0]) {
                        scene.truth.acknowledged(n);
                    }
                }
            }
            Asked::Broadcast { channels, n } => {
                let responses = value["result"]["responses"]
                    .as_array()
                    .expect("a broadcast has responses");
                assert_eq!(responses.len(), channels.len());
                for (channel, response) in channels.iter().zip(responses) {
                    if let Some(offset) = response["result"]["offset"].as_u64() {
                        let epoch = response["result"]["epoch"]
                            .as_str()
                            .expect("an offset comes with its epoch");
                        scene.truth.stands(channel, epoch, offset, n);
                    }
                }
            }
            Asked::Block(user) => {
                let is_let_in_again = self
                    .asked
                    .iter()
                    .any(|later| matches!(later, Asked::Unblock(other) if *other == user));
                if !is_let_in_again && !self.unsure.contains(&user) {
                    scene.truth.blocked.insert(user);
                }
            }
            Asked::Revoke(token) => {
                scene.truth.revoked.insert(token);
            }
            Asked::Unblock(_) => {}
            Asked::Other(_) => assert!(
                value.get("result").is_some() || value.get("replies").is_some(),
                "{value}"
            ),
        }
        scene.truth.count("api answer");
    }
}

fn number(payload: &str) -> u64 {
    serde_json::from_str::<Value>(payload).expect("a payload")["n"]
        .as_u64()
        .expect("its number")
}
