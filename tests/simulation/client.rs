//! A client: says what chance tells it to, believes nothing.

use std::collections::BTreeMap;

use ringmain::auth::token::mint;
use ringmain::config::Secret;
use ringmain::mem::Rng;
use ringmain::time::Now;
use ringmain::wire::fossil;
use serde_json::Value;
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::protocol::frame::{CloseFrame, Frame};

use super::frames::{FrameReader, Heard, send, send_text};
use super::link::Link;
use super::setup::{CHANNELS, SECRET, SERVER_CHANNELS};
use super::truth::Truth;

/// A command without reply.
#[derive(Debug)]
enum Asked {
    Connect(BTreeMap<String, (String, u64)>),
    Subscribe {
        channel: String,
        recover: Option<(String, u64)>,
    },
    Unsubscribe(String),
    History {
        channel: String,
        reverse: bool,
    },
    /// The number of a durable publication.
    Publish(Option<u64>),
    Other(&'static str),
}

/// A subscription as the client knows it.
#[derive(Debug, Default)]
pub struct Sub {
    epoch: Option<String>,
    /// The offset that must come next, if gaps are told.
    next: Option<u64>,
    last_offset: u64,
    last_n: Option<u64>,
    /// With delta: the text of the last publication.
    chain: Option<String>,
}

impl Sub {
    /// A publication as it was published.
    fn whole(&mut self, publication: &Value, scene: &mut Scene<'_>) -> Value {
        let Some(chain) = &mut self.chain else {
            assert!(publication.get("delta").is_none(), "{publication}");
            return publication.clone();
        };
        let text = publication["data"].as_str().expect("with delta, a string");
        *chain = if publication["delta"] == true {
            scene.truth.count("patch");
            let target = fossil::apply(chain.as_bytes(), text.as_bytes(), 1 << 20);
            let target = target.unwrap_or_else(|why| panic!("{why}: {publication}"));
            String::from_utf8(target).expect("patches of text make text")
        } else {
            text.to_owned()
        };
        let mut whole = publication.clone();
        whole["data"] = serde_json::from_str(chain).expect("a payload is JSON");
        whole
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    Offline,
    Upgrading,
    Open,
    /// Connect was answered with an error.
    Refused,
    /// A close frame was heard or said.
    Closing,
}

pub struct Client {
    user: String,
    pub link: Option<usize>,
    pub stage: Stage,
    pub id: Option<String>,
    next_command: u32,
    asked: BTreeMap<u32, Asked>,
    pub subs: BTreeMap<String, Sub>,
    /// Where it left off.
    memory: BTreeMap<String, (String, u64)>,
    reader: FrameReader,
    head: Vec<u8>,
    accept: String,
    /// Steps for which it reads nothing.
    pub stalled: u64,
    ignores_pings: bool,
    heard_close: bool,
    /// Publications that it missed without being positioned, and of how many it was told, by channel.
    missed: BTreeMap<String, u64>,
    lost: BTreeMap<String, u64>,
}

/// What a client acts with.
pub struct Scene<'a> {
    pub now: Now,
    pub rng: &'a mut Rng,
    pub truth: &'a mut Truth,
    pub large: u64,
    pub stalls: u64,
}

fn pick<'a>(rng: &mut Rng, list: &[&'a str]) -> &'a str {
    list[rng.below(list.len() as u64) as usize]
}

fn token(claims: &str) -> String {
    mint(&Secret(SECRET.to_owned()), claims).expect("claims of this run")
}

impl Client {
    pub fn new(user: String) -> Self {
        Self {
            user,
            link: None,
            stage: Stage::Offline,
            id: None,
            next_command: 1,
            asked: BTreeMap::new(),
            subs: BTreeMap::new(),
            memory: BTreeMap::new(),
            reader: FrameReader::default(),
            head: Vec::new(),
            accept: String::new(),
            stalled: 0,
            ignores_pings: false,
            heard_close: false,
            missed: BTreeMap::new(),
            lost: BTreeMap::new(),
        }
    }

    pub fn is_connected(&self) -> bool {
        self.stage == Stage::Open && self.id.is_some()
    }

    /// Every command of a connection that goes on has its reply.
    pub fn check_quiet(&self) {
        if self.stage == Stage::Open {
            assert!(self.asked.is_empty(), "no reply to {:?}", self.asked);
            for (channel, missed) in &self.missed {
                let told = self.lost.get(channel).copied().unwrap_or(0);
                assert!(
                    told >= *missed,
                    "{missed} publications of {channel} are missing, and it was told of {told}"
                );
            }
        }
        assert_ne!(self.stage, Stage::Upgrading, "no answer to the upgrade");
    }

    fn gone(&mut self) {
        for (channel, sub) in std::mem::take(&mut self.subs) {
            self.remember(channel, sub);
        }
        self.link = None;
        self.stage = Stage::Offline;
        self.id = None;
        self.asked.clear();
        self.missed.clear();
        self.lost.clear();
        self.reader = FrameReader::default();
        self.head.clear();
        self.stalled = 0;
        self.heard_close = false;
    }

    fn remember(&mut self, channel: String, sub: Sub) {
        if let (Some(epoch), Some(next)) = (sub.epoch, sub.next) {
            self.memory.insert(channel, (epoch, next - 1));
        }
    }

    fn ask(&mut self, asked: Asked, body: &str) -> String {
        let id = self.next_command;
        self.next_command += 1;
        self.asked.insert(id, asked);
        format!(r#"{{"id":{id},{body}}}"#)
    }

    /// Opens a connection; what it says goes up at once.
    pub fn connect(&mut self, link: usize, links: &mut [Link], scene: &mut Scene<'_>) {
        let rng = &mut *scene.rng;
        self.link = Some(link);
        self.stage = Stage::Upgrading;
        self.ignores_pings = rng.below(20) == 0;
        // Ids of different connections are far apart, so that another's reply is noticed.
        self.next_command = 1 + rng.below(1 << 30) as u32;
        let key = base64::Engine::encode(
            &base64::prelude::BASE64_STANDARD,
            rng.wide_bits().to_be_bytes(),
        );
        self.accept = tungstenite::handshake::derive_accept_key(key.as_bytes());
        let query = if rng.below(5) == 0 {
            "?cf_ws_frame_ping_pong=true"
        } else {
            ""
        };
        let request = format!(
            "GET /connection/websocket{query} HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n"
        );
        let mut up = request.into_bytes();
        let mut lines = vec![self.connect_command(scene)];
        if scene.rng.below(20) == 0 {
            // It opens a socket and says nothing.
            lines.clear();
            self.asked.clear();
        }
        while !lines.is_empty() && scene.rng.below(3) == 0 {
            lines.push(self.command(scene));
        }
        self.say(&mut up, &lines, scene.rng);
        links[link].up = up;
    }

    fn say(&self, up: &mut Vec<u8>, lines: &[String], rng: &mut Rng) {
        let mut at = 0;
        while at < lines.len() {
            let many = 1 + rng.below((lines.len() - at) as u64) as usize;
            send_text(up, rng, lines[at..at + many].join("\n").as_bytes());
            at += many;
        }
    }

    fn connect_command(&mut self, scene: &mut Scene<'_>) -> String {
        let rng = &mut *scene.rng;
        let mut parts = Vec::new();
        if !self.user.is_empty() {
            let now = scene.now.unix_s();
            let exp = match rng.below(20) {
                0 => now.saturating_sub(5),
                1 => now + 2,
                _ => now + 100_000,
            };
            let mut claims = format!(
                r#"{{"sub":"{}","exp":{exp},"info":{{"of":"{}"}}"#,
                self.user, self.user
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
            let mut token = token(&claims);
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
        self.ask(
            Asked::Connect(recover),
            &format!(r#""connect":{{{}}}"#, parts.join(",")),
        )
    }

    /// A command of a connected client.
    fn command(&mut self, scene: &mut Scene<'_>) -> String {
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
                let data = scene.truth.payload(&[channel], padding);
                let body = format!(r#""publish":{{"channel":"{channel}","data":{data}}}"#);
                let n: Value = serde_json::from_str(&data).expect("a payload");
                let n = n["n"].as_u64().expect("its number");
                let durable = channel.starts_with("safe:").then_some(n);
                self.ask(Asked::Publish(durable), &body)
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
            _ if rng.below(2) == 0 => self.ask(Asked::Other("rpc"), r#""rpc":{"method":"m"}"#),
            _ => {
                let exp = scene.now.unix_s() + rng.below(3) * 500;
                let token = token(&format!(
                    r#"{{"sub":"{}","channel":"{channel}","exp":{exp}}}"#,
                    self.user
                ));
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
            let token = token(&format!(
                r#"{{"sub":"{}","channel":"{channel}","exp":{exp}}}"#,
                self.user
            ));
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

    /// Does something, or nothing.
    pub fn act(&mut self, links: &mut [Link], scene: &mut Scene<'_>) {
        let Some(link) = self.link else { return };
        let mut up = Vec::new();
        match scene.rng.below(1000) {
            0..=3 => {
                links[link].up_reset = true;
                links[link].down.clear();
                self.gone();
                return;
            }
            4..=6 => links[link].up_fin = true,
            7..=11 if self.stage == Stage::Open => {
                let frame = CloseFrame {
                    code: CloseCode::Normal,
                    reason: "bye".into(),
                };
                send(&mut up, scene.rng, Frame::close(Some(frame)));
                self.stage = Stage::Closing;
            }
            12 => up.extend_from_slice(b"\xff\xff not a frame \xff"),
            13 => send_text(&mut up, scene.rng, br#"{"id":0,"nonsense":[]}"#),
            14..=20 => send(&mut up, scene.rng, Frame::ping(b"are you there".to_vec())),
            at if (21..21 + scene.stalls).contains(&at) => self.stalled = scene.rng.below(200),
            _ if self.is_connected() => {
                let mut lines = vec![self.command(scene)];
                while scene.rng.below(3) == 0 {
                    lines.push(self.command(scene));
                }
                self.say(&mut up, &lines, scene.rng);
            }
            _ => {}
        }
        if !links[link].up_fin {
            links[link].up.extend_from_slice(&up);
        }
    }

    /// Reads what arrived, as far as it reads at all.
    pub fn read(&mut self, links: &mut [Link], scene: &mut Scene<'_>) {
        if self.stalled > 0 {
            self.stalled -= 1;
            return;
        }
        let Some(at) = self.link else { return };
        if links[at].down_reset {
            links[at].down.clear();
            scene.truth.count("reset");
            return self.gone();
        }
        if !links[at].down.is_empty() {
            let bytes = std::mem::take(&mut links[at].down);
            let mut answers = Vec::new();
            self.heard(&bytes, &mut answers, scene);
            if !links[at].up_fin {
                links[at].up.extend_from_slice(&answers);
            }
        } else if links[at].down_fin {
            assert!(self.reader.is_empty(), "the server ended within a frame");
            scene.truth.count("fin");
            self.gone();
        }
    }

    fn heard(&mut self, bytes: &[u8], answers: &mut Vec<u8>, scene: &mut Scene<'_>) {
        if self.stage == Stage::Upgrading {
            self.head.extend_from_slice(bytes);
            let Some(end) = self
                .head
                .windows(4)
                .position(|window| window == b"\r\n\r\n")
            else {
                return;
            };
            let head = String::from_utf8(self.head[..end].to_vec()).expect("a head is text");
            if !head.starts_with("HTTP/1.1 101 ") {
                assert!(
                    head.starts_with("HTTP/1.1 4") || head.starts_with("HTTP/1.1 503 "),
                    "an upgrade was answered with {head}"
                );
                self.stage = Stage::Closing;
                self.heard_close = true;
                return;
            }
            assert!(
                head.contains(&self.accept),
                "another's upgrade was answered"
            );
            let rest = self.head.split_off(end + 4);
            self.head.clear();
            self.stage = Stage::Open;
            self.reader.push(&rest);
        } else if self.head.is_empty() {
            self.reader.push(bytes);
        }
        while let Some(frame) = self.reader.next() {
            assert!(!self.heard_close, "a frame after the close frame");
            match frame {
                Heard::Text(text) => {
                    for line in text.split(|&byte| byte == b'\n') {
                        self.line(line, answers, scene);
                    }
                }
                Heard::Ping(payload) if !self.ignores_pings => {
                    send(answers, scene.rng, Frame::pong(payload))
                }
                Heard::Ping(_) | Heard::Pong => {}
                Heard::Close(code) => {
                    scene.truth.count(&format!("close {}", code.unwrap_or(0)));
                    self.heard_close = true;
                    if self.stage != Stage::Closing && scene.rng.below(4) > 0 {
                        send(answers, scene.rng, Frame::close(None));
                    }
                    self.stage = Stage::Closing;
                }
            }
        }
    }

    fn line(&mut self, line: &[u8], answers: &mut Vec<u8>, scene: &mut Scene<'_>) {
        if line == b"{}" {
            scene.truth.count("ping");
            assert!(self.id.is_some(), "a ping before the connect reply");
            if !self.ignores_pings {
                send_text(answers, scene.rng, b"{}");
            }
            return;
        }
        let value: Value = serde_json::from_slice(line)
            .unwrap_or_else(|error| panic!("{error} in {}", String::from_utf8_lossy(line)));
        if let Some(push) = value.get("push") {
            assert!(
                self.id.is_some(),
                "a push before the connect reply: {value}"
            );
            return self.pushed(push, scene);
        }
        let id = value["id"].as_u64().expect("a reply has an id") as u32;
        let first = self.asked.keys().next();
        assert_eq!(
            first,
            Some(&id),
            "a reply before that to an earlier command: {value}"
        );
        let Some(asked) = self.asked.remove(&id) else {
            panic!("a reply that nobody asked for: {value}")
        };
        if let Some(error) = value.get("error") {
            let code = error["code"].as_u64().expect("an error has a code");
            scene.truth.count(&format!("error {code}"));
            if matches!(asked, Asked::Connect(_)) {
                self.asked.clear();
                self.stage = Stage::Refused;
            }
            return;
        }
        assert!(
            self.stage != Stage::Refused,
            "a reply after a refused connect"
        );
        self.replied(asked, &value, scene);
    }

    fn replied(&mut self, asked: Asked, value: &Value, scene: &mut Scene<'_>) {
        match asked {
            Asked::Connect(recover) => {
                let result = &value["connect"];
                let id = result["client"]
                    .as_str()
                    .expect("a connect result names the client");
                assert!(self.id.replace(id.to_owned()).is_none(), "connected twice");
                scene.truth.count("connected");
                if let Some(subs) = result["subs"].as_object() {
                    for (channel, result) in subs {
                        self.subscribed(channel, recover.get(channel), result, scene);
                    }
                }
            }
            Asked::Subscribe { channel, recover } => {
                let result = value
                    .get("subscribe")
                    .unwrap_or_else(|| panic!("not a subscribe result: {value}"));
                self.subscribed(&channel, recover.as_ref(), result, scene);
            }
            Asked::Unsubscribe(channel) => {
                assert!(
                    value.get("unsubscribe").is_some(),
                    "not an unsubscribe result: {value}"
                );
                if let Some(sub) = self.subs.remove(&channel) {
                    self.remember(channel, sub);
                }
            }
            Asked::History { channel, reverse } => self.history(&channel, reverse, value, scene),
            Asked::Publish(durable) => {
                assert!(
                    value.get("publish").is_some(),
                    "not a publish result: {value}"
                );
                if let Some(n) = durable {
                    scene.truth.acknowledged(n);
                }
            }
            Asked::Other(name) => {
                assert!(value.get(name).is_some(), "not a {name} result: {value}")
            }
        }
    }

    fn history(&self, channel: &str, reverse: bool, value: &Value, scene: &mut Scene<'_>) {
        let result = value
            .get("history")
            .unwrap_or_else(|| panic!("not a history result: {value}"));
        let epoch = result["epoch"].as_str().expect("history has an epoch");
        let top = result["offset"].as_u64().expect("history has an offset");
        let mut last = None;
        for publication in result["publications"].as_array().into_iter().flatten() {
            let (offset, _) = scene.truth.seen(channel, Some(epoch), publication);
            assert!(
                offset >= 1 && offset <= top,
                "history beyond its top: {value}"
            );
            if let Some(last) = last {
                assert_eq!(
                    offset,
                    if reverse { last - 1 } else { last + 1 },
                    "history has a hole: {value}"
                );
            }
            last = Some(offset);
        }
    }

    /// A subscription begins: what was missed is exactly what is told.
    fn subscribed(
        &mut self,
        channel: &str,
        asked: Option<&(String, u64)>,
        result: &Value,
        scene: &mut Scene<'_>,
    ) {
        let epoch = result["epoch"].as_str();
        let tracked = result["positioned"] == true || result["recoverable"] == true;
        let offset = result["offset"].as_u64().unwrap_or(0);
        let mut sub = Sub {
            epoch: epoch.map(str::to_owned),
            last_offset: offset,
            chain: (result["delta"] == true).then(String::new),
            ..Sub::default()
        };
        let mut next = offset + 1;
        let missed = result["publications"]
            .as_array()
            .map_or(&[][..], |list| list);
        if result["recovered"] == true {
            scene.truth.count("recovered");
            let (wanted_epoch, wanted) = asked.expect("recovered, but nobody asked");
            assert_eq!(
                epoch,
                Some(wanted_epoch.as_str()),
                "recovered into another life of {channel}"
            );
            assert_eq!(
                offset, *wanted,
                "recovered from another offset of {channel}: {result}"
            );
            if !missed.is_empty() {
                scene.truth.count("recovered something");
            }
        } else {
            assert!(missed.is_empty(), "publications without recovery: {result}");
            if asked.is_some() {
                scene.truth.count("unrecovered");
            }
        }
        for publication in missed {
            let publication = sub.whole(publication, scene);
            let (offset, n) = scene.truth.seen(channel, epoch, &publication);
            assert_eq!(offset, next, "recovery of {channel} has a hole: {result}");
            next += 1;
            sub.last_offset = offset;
            sub.last_n = Some(n);
        }
        sub.next = tracked.then_some(next);
        assert!(
            self.subs.insert(channel.to_owned(), sub).is_none(),
            "subscribed twice to {channel}"
        );
    }

    fn pushed(&mut self, push: &Value, scene: &mut Scene<'_>) {
        if push.get("refresh").is_some() {
            return;
        }
        if let Some(message) = push.get("message") {
            return self.lost(&message["data"]["lost"], scene);
        }
        let channel = push["channel"].as_str().expect("a push names its channel");
        if let Some(publication) = push.get("pub") {
            return self.published(channel, publication, scene);
        }
        if let Some(unsubscribe) = push.get("unsubscribe") {
            scene
                .truth
                .count(&format!("unsubscribe {}", unsubscribe["code"]));
            if let Some(sub) = self.subs.remove(channel) {
                self.remember(channel.to_owned(), sub);
            } else {
                assert_eq!(
                    unsubscribe["code"], 2000,
                    "unsubscribed from {channel} without being subscribed"
                );
            }
            return;
        }
        if let Some(result) = push.get("subscribe") {
            scene.truth.count("subscribe push");
            if !self.subs.contains_key(channel) {
                self.subscribed(channel, None, result, scene);
            }
            return;
        }
        for what in ["join", "leave"] {
            if let Some(event) = push.get(what) {
                scene.truth.count(what);
                assert!(
                    self.subs.contains_key(channel),
                    "{what} of a channel without subscription: {push}"
                );
                assert_eq!(
                    event["info"]["client"].as_str().map(str::len),
                    Some(36),
                    "{push}"
                );
                return;
            }
        }
        panic!("an unknown push: {push}");
    }

    /// It is told what it will not get: it has to have missed it, and be told of all that it has.
    fn lost(&mut self, lost: &Value, scene: &mut Scene<'_>) {
        scene.truth.count("told of a loss");
        let channel = lost["channel"].as_str().expect("a loss names its channel");
        let told = self.lost.entry(channel.to_owned()).or_default();
        *told = match lost["publications"].as_u64() {
            Some(publications) => told.saturating_add(publications),
            None => u64::MAX,
        };
    }

    fn published(&mut self, channel: &str, publication: &Value, scene: &mut Scene<'_>) {
        let Some(sub) = self.subs.get_mut(channel) else {
            panic!(
                "a publication of {channel}, which this client is not subscribed to: {publication}"
            )
        };
        let publication = sub.whole(publication, scene);
        let (offset, n) = scene
            .truth
            .seen(channel, sub.epoch.as_deref(), &publication);
        scene.truth.count("delivered");
        if offset == 0 {
            if let Some(last) = sub.last_n.replace(n) {
                scene.truth.followed(channel, last, n);
            }
            return;
        }
        if let Some(next) = &mut sub.next {
            assert_eq!(
                offset, *next,
                "{channel} has a gap or a repeat for a positioned subscriber"
            );
            *next += 1;
        }
        assert!(
            offset > sub.last_offset,
            "{channel}: {offset} after {}",
            sub.last_offset
        );
        if sub.next.is_none() && sub.last_offset > 0 {
            let missed = offset - sub.last_offset - 1;
            *self.missed.entry(channel.to_owned()).or_default() += missed;
        }
        sub.last_offset = offset;
    }

    /// The offset up to which a tracked subscription has everything.
    pub fn position(&self, channel: &str) -> Option<u64> {
        self.subs
            .get(channel)
            .and_then(|sub| sub.next)
            .map(|next| next - 1)
    }
}
