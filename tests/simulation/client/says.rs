//! What clients ask for.

use std::collections::BTreeMap;

use ringmain::limits::COMMANDS_UNDER_WAY_MAX;
use ringmain::mem::Rng;
use serde_json::Value;

use super::super::setup::{CHANNELS, SERVER_CHANNELS, is_durable};
use super::{Asked, Client, Scene, wire};

fn pick<'a>(rng: &mut Rng, list: &[&'a str]) -> &'a str {
    list[rng.below(list.len() as u64) as usize]
}

impl Client {
    /// A connect request, and from where it recovers.
    pub(super) fn connect_request(
        &mut self,
        scene: &mut Scene<'_>,
    ) -> (String, BTreeMap<String, (String, u64)>) {
        let rng = &mut *scene.rng;
        let mut parts = Vec::new();
        self.token_id.clear();
        if !self.user.is_empty() {
            let now = scene.now.unix_s();
            let exp = match rng.below(20) {
                0 => now.saturating_sub(5),
                1 => now + 2,
                _ => now + 100_000,
            };
            self.tokens += 1;
            self.token_id = format!("{}.{}", self.user, self.tokens);
            let (user, token_id) = (&self.user, &self.token_id);
            let mut claims = format!(
                r#"{{"sub":"{user}","jti":"{token_id}","exp":{exp},"info":{{"of":"{user}"}}"#
            );
            if rng.below(2) == 0 {
                let channels: Vec<String> = SERVER_CHANNELS
                    .iter()
                    .filter(|_| rng.below(2) == 0)
                    .map(|name| format!(r#""{name}":{{}}"#))
                    .collect();
                claims.push_str(&format!(r#","subs":{{{}}}"#, channels.join(",")));
            }
            claims.push('}');
            let mut token = scene.keys.connection_token(rng, &claims);
            if rng.below(50) == 0 {
                token.push('x');
            }
            parts.push(format!(r#""token":"{token}""#));
        }
        let mut recover = BTreeMap::new();
        if rng.below(2) == 0 {
            for name in SERVER_CHANNELS {
                if let Some((epoch, offset)) = self.memory.get(*name) {
                    recover.insert((*name).to_owned(), (epoch.clone(), *offset));
                }
            }
            let subs: Vec<String> = recover
                .iter()
                .map(|(name, (epoch, offset))| {
                    format!(r#""{name}":{{"recover":true,"epoch":"{epoch}","offset":{offset}}}"#)
                })
                .collect();
            parts.push(format!(r#""subs":{{{}}}"#, subs.join(",")));
        }
        (format!("{{{}}}", parts.join(",")), recover)
    }

    /// A publication.
    pub(super) fn publish(
        &mut self,
        channel: &str,
        padding: usize,
        scene: &mut Scene<'_>,
    ) -> String {
        let data = scene.truth.payload(&[channel], padding);
        let body = format!(r#""publish":{{"channel":"{channel}","data":{data}}}"#);
        let n: Value = serde_json::from_str(&data).expect("a payload");
        let n = n["n"].as_u64().expect("its number");
        self.ask(Asked::Publish(is_durable(channel).then_some(n)), &body)
    }

    /// What a backend answers, if there is one.
    pub(super) fn call(&mut self, scene: &mut Scene<'_>) -> String {
        let ask = scene.rng.below(1 << 40);
        let body = format!(r#""rpc":{{"method":"m","data":{{"ask":{ask}}}}}"#);
        self.ask(Asked::Rpc(ask), &body)
    }

    /// A command of a connected client.
    pub(super) fn command(&mut self, scene: &mut Scene<'_>) -> String {
        let rng = &mut *scene.rng;
        let channel = if rng.below(100) == 0 {
            "unknown:1"
        } else {
            pick(rng, CHANNELS)
        };
        match rng.below(20) {
            0..=6 => self.subscribe(channel, scene),
            7..=8 => self.ask(
                Asked::Unsubscribe(channel.to_owned()),
                &format!(r#""unsubscribe":{{"channel":"{channel}"}}"#),
            ),
            9..=14 => {
                let padding = scene.rng.below(scene.large.min(30_000)) as usize;
                self.publish(channel, padding, scene)
            }
            15 => self.ask(
                Asked::Other("presence"),
                &format!(r#""presence":{{"channel":"{channel}"}}"#),
            ),
            16 => self.ask(
                Asked::Other("presence_stats"),
                &format!(r#""presence_stats":{{"channel":"{channel}"}}"#),
            ),
            17..=18 => {
                let reverse = rng.below(2) == 0;
                let limit = rng.below(12) as i64 - 1;
                let since = match self.memory.get(channel) {
                    Some((epoch, offset)) if *offset > 0 && rng.below(2) == 0 => {
                        format!(r#","since":{{"offset":{offset},"epoch":"{epoch}"}}"#)
                    }
                    _ => String::new(),
                };
                let body = format!(
                    r#""history":{{"channel":"{channel}","limit":{limit},"reverse":{reverse}{since}}}"#
                );
                self.ask(
                    Asked::History {
                        channel: channel.to_owned(),
                        reverse,
                    },
                    &body,
                )
            }
            _ if rng.below(2) == 0 => self.call(scene),
            _ => {
                let exp = scene.now.unix_s() + rng.below(3) * 500;
                let claims = format!(
                    r#"{{"sub":"{}","channel":"{channel}","exp":{exp}}}"#,
                    self.user
                );
                let token = scene.keys.subscription_token(scene.rng, &claims);
                let body = format!(r#""sub_refresh":{{"channel":"{channel}","token":"{token}"}}"#);
                self.ask(Asked::Other("sub_refresh"), &body)
            }
        }
    }

    fn subscribe(&mut self, channel: &str, scene: &mut Scene<'_>) -> String {
        let rng = &mut *scene.rng;
        let mut parts = vec![format!(r#""channel":"{channel}""#)];
        for (one_in, name) in [(2, "positioned"), (2, "recoverable"), (3, "join_leave")] {
            if rng.below(one_in) == 0 {
                parts.push(format!(r#""{name}":true"#));
            }
        }
        match rng.below(6) {
            0..=2 => parts.push(r#""delta":"fossil""#.to_owned()),
            // Lets everything through, and is a class of its own.
            3 => {
                let key = ["never", "nowhere"][rng.below(2) as usize];
                parts.push(format!(r#""tf":{{"key":"{key}","cmp":"nex"}}"#));
            }
            _ => {}
        }
        if channel.starts_with('$') || rng.below(20) == 0 {
            let exp = scene.now.unix_s() + [1, 20, 1000][rng.below(3) as usize];
            let claims = format!(
                r#"{{"sub":"{}","channel":"{channel}","exp":{exp}}}"#,
                self.user
            );
            let token = scene.keys.subscription_token(rng, &claims);
            parts.push(format!(r#""token":"{token}""#));
        }
        let mut recover = None;
        if let Some((epoch, offset)) = self.memory.get(channel)
            && rng.below(4) > 0
        {
            parts.push(format!(
                r#""recoverable":true,"recover":true,"epoch":"{epoch}","offset":{offset}"#
            ));
            parts.retain(|part| part != r#""recoverable":true"#);
            if rng.below(4) == 0 {
                parts.push(r#""flag":2"#.to_owned());
            }
            recover = Some((epoch.clone(), *offset));
        }
        let asked = Asked::Subscribe {
            channel: channel.to_owned(),
            recover,
        };
        self.ask(asked, &format!(r#""subscribe":{{{}}}"#, parts.join(",")))
    }

    /// Much more than is kept for anybody, behind what has to be waited for.
    pub(super) fn flood(&mut self, up: &mut Vec<u8>, scene: &mut Scene<'_>) {
        let mut lines = vec![self.call(scene)];
        if scene.rng.below(2) == 0 {
            lines.extend((0..30).map(|_| self.publish("plain:1", 20_000, scene)));
        } else {
            lines
                .extend((0..COMMANDS_UNDER_WAY_MAX + 20).map(|_| self.publish("safe:1", 0, scene)));
        }
        lines.push(self.call(scene));
        if self.wire.transport.is_emulated() {
            self.outgoing.extend(lines);
            return;
        }
        for line in lines {
            self.wire.say(up, &[line], scene.rng);
        }
    }

    /// Speaks for its own session, but for one bit of what proves that it may.
    pub(super) fn forge(&mut self, scene: &mut Scene<'_>) {
        let Some((session, node)) = &self.session else {
            return;
        };
        // What comes before says only where the session is.
        let at = 20 + scene.rng.below(10) as usize;
        let mut guess = session.clone().into_bytes();
        guess[at] = if guess[at] == b'A' { b'B' } else { b'A' };
        let guess = String::from_utf8(guess).expect("it is text");
        let data = scene.truth.payload(&["plain:1"], 0);
        let payload: Value = serde_json::from_str(&data).expect("a payload");
        scene.truth.forged.extend(payload["n"].as_u64());
        let line = format!(r#"{{"id":1,"publish":{{"channel":"plain:1","data":{data}}}}}"#);
        let body = self.wire.emulation(&guess, node, &[line]);
        scene.truth.count("emulation forged");
        self.forged = Some(wire::post("/emulation", self.wire.is_binary, &body));
    }
}
