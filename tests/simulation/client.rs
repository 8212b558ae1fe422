//! A client: says what chance tells it to, believes nothing.

mod losses;
mod says;
pub mod wire;

use std::collections::BTreeMap;

use ringmain::mem::Rng;
use ringmain::time::Now;
use ringmain::wire::fossil;
use serde_json::Value;
use tungstenite::protocol::frame::Frame;

use super::frames::send;
use super::keys::Keys;
use super::link::Link;
use super::setup::is_latest;
use super::truth::{Truth, situation};
use crate::transcode;
use losses::Losses;
use wire::{Event, Wire};

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
    /// What the answer has to name.
    Rpc(u64),
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
    /// With delta: the last publication.
    chain: Option<Vec<u8>>,
}

impl Sub {
    /// A publication as it was published.
    fn whole(&mut self, publication: &Value, is_binary: bool, scene: &mut Scene<'_>) -> Value {
        let Some(chain) = &mut self.chain else {
            assert!(publication.get("delta").is_none(), "{publication}");
            return publication.clone();
        };
        let data = &publication["data"];
        let bytes = match (is_binary, data["$bytes"].as_str()) {
            (true, Some(hex)) => transcode::unhex(hex),
            (true, None) => data.to_string().into_bytes(),
            (false, _) => data.as_str().expect("with delta, a string").into(),
        };
        *chain = if publication["delta"] == true {
            scene.truth.count("patch");
            let target = fossil::apply(chain, &bytes, 1 << 20);
            target.unwrap_or_else(|why| panic!("{why}: {publication}"))
        } else {
            bytes
        };
        let mut whole = publication.clone();
        whole["data"] = serde_json::from_slice(chain).expect("a payload is JSON");
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
    /// An end was heard or said.
    Closing,
}

/// A request with commands on a connection of its own.
pub struct Post {
    link: usize,
    response: Vec<u8>,
}

pub struct Client {
    pub user: String,
    /// `jti` of its last token.
    pub token_id: String,
    tokens: u64,
    pub link: Option<usize>,
    pub stage: Stage,
    pub id: Option<String>,
    next_command: u32,
    asked: BTreeMap<u32, Asked>,
    pub subs: BTreeMap<String, Sub>,
    /// Where it left off.
    memory: BTreeMap<String, (String, u64)>,
    wire: Wire,
    /// Name and node of its session, where commands go in requests of their own.
    session: Option<(String, String)>,
    /// Commands that wait for the next such request.
    outgoing: Vec<String>,
    /// A request in the name of a session that it only guesses.
    forged: Option<Vec<u8>>,
    /// The request that is under way.
    post: Option<Post>,
    /// Steps for which it reads nothing.
    pub stalled: u64,
    ignores_pings: bool,
    heard_close: bool,
    /// Its connect command had others behind it in its frame.
    is_followed: bool,
    /// What it missed of channels without being positioned, and was told of it.
    losses: BTreeMap<String, Losses>,
}

/// What a client acts with.
pub struct Scene<'a> {
    pub now: Now,
    pub rng: &'a mut Rng,
    pub truth: &'a mut Truth,
    pub keys: &'a Keys,
    pub large: u64,
    pub stalls: u64,
}

impl Client {
    pub fn new(user: String) -> Self {
        Self {
            user,
            token_id: String::new(),
            tokens: 0,
            link: None,
            stage: Stage::Offline,
            id: None,
            next_command: 1,
            asked: BTreeMap::new(),
            subs: BTreeMap::new(),
            memory: BTreeMap::new(),
            wire: Wire::default(),
            session: None,
            outgoing: Vec::new(),
            forged: None,
            post: None,
            stalled: 0,
            ignores_pings: false,
            heard_close: false,
            is_followed: false,
            losses: BTreeMap::new(),
        }
    }

    pub fn is_connected(&self) -> bool {
        self.stage == Stage::Open && self.id.is_some()
    }

    /// Every command of a connection that goes on has its reply.
    pub fn check_quiet(&self) {
        if self.stage == Stage::Open {
            assert!(self.asked.is_empty(), "no reply to {:?}", self.asked);
            assert!(self.post.is_none(), "no answer to a request with commands");
            for (channel, losses) in &self.losses {
                losses.check(channel, None, None, None);
            }
        }
        assert_ne!(self.stage, Stage::Upgrading, "no answer to the request");
    }

    fn gone(&mut self, links: &mut [Link]) {
        if let Some(post) = self.post.take() {
            links[post.link].up_reset = true;
            links[post.link].down.clear();
        }
        for (channel, sub) in std::mem::take(&mut self.subs) {
            self.remember(channel, sub);
        }
        self.link = None;
        self.stage = Stage::Offline;
        self.id = None;
        self.asked.clear();
        self.losses.clear();
        self.wire = Wire::default();
        self.session = None;
        self.outgoing.clear();
        self.forged = None;
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
        self.link = Some(link);
        self.stage = Stage::Upgrading;
        self.ignores_pings = scene.rng.below(20) == 0;
        // Ids of different connections are far apart, so that another's reply is noticed.
        self.next_command = 1 + scene.rng.below(1 << 30) as u32;
        self.wire = Wire::random(scene.rng);
        scene.truth.count(&format!(
            "{:?}{}",
            self.wire.transport,
            if self.wire.is_binary { " Protobuf" } else { "" }
        ));
        let (connect, recover) = self.connect_request(scene);
        let mut lines = Vec::new();
        if self.wire.transport.is_unidirectional() {
            self.asked.insert(0, Asked::Connect(recover));
        } else {
            let is_silent = self.wire.transport.is_websocket() && scene.rng.below(20) == 0;
            if !is_silent {
                let body = format!(r#""connect":{connect}"#);
                lines.push(self.ask(Asked::Connect(recover), &body));
            }
            while !lines.is_empty() && scene.rng.below(3) == 0 {
                lines.push(self.command(scene));
            }
        }
        let (up, first) = self.wire.open(scene.rng, &connect, &lines);
        self.is_followed = first > 1;
        links[link].up = up;
    }

    /// Does something, or nothing.
    pub fn act(&mut self, links: &mut [Link], scene: &mut Scene<'_>) {
        let Some(link) = self.link else { return };
        let is_websocket = self.wire.transport.is_websocket();
        let mut up = Vec::new();
        match scene.rng.below(1000) {
            0..=3 => return self.give_up(links),
            4..=6 => links[link].up_fin = true,
            7..=11 if self.stage == Stage::Open && is_websocket => {
                self.wire.close(&mut up, scene.rng);
                self.stage = Stage::Closing;
            }
            12 if is_websocket => up.extend_from_slice(b"\xff\xff not a frame \xff"),
            13 if is_websocket => {
                let nonsense = [r#"{"id":0,"nonsense":[]}"#.to_owned()];
                self.wire.say(&mut up, &nonsense, scene.rng);
            }
            14..=20 if is_websocket => {
                send(&mut up, scene.rng, Frame::ping(b"are you there".to_vec()));
            }
            at if (21..21 + scene.stalls).contains(&at) => self.stalled = scene.rng.below(200),
            980..=985 if self.session.is_some() => self.forge(scene),
            990..=991 if self.is_connected() && !self.wire.transport.is_unidirectional() => {
                self.flood(&mut up, scene);
            }
            _ if self.is_connected() && !self.wire.transport.is_unidirectional() => {
                let mut lines = vec![self.command(scene)];
                while scene.rng.below(3) == 0 {
                    lines.push(self.command(scene));
                }
                if self.wire.transport.is_emulated() {
                    self.outgoing.extend(lines);
                } else {
                    self.wire.say(&mut up, &lines, scene.rng);
                }
            }
            _ => {}
        }
        if !links[link].up_fin {
            links[link].up.extend_from_slice(&up);
        }
    }

    /// It is gone without a word.
    fn give_up(&mut self, links: &mut [Link]) {
        if let Some(link) = self.link {
            links[link].up_reset = true;
            links[link].down.clear();
        }
        self.gone(links);
    }

    /// The next request with commands, if there is one to send.
    pub fn next_post(&mut self) -> Option<Vec<u8>> {
        /// A request takes no more.
        const BYTES_MAX: usize = 60_000;
        if self.post.is_some() || self.stage != Stage::Open {
            return None;
        }
        if self.forged.is_some() {
            return self.forged.take();
        }
        if self.outgoing.is_empty() {
            return None;
        }
        let (session, node) = self.session.as_ref()?;
        let mut bytes = 0;
        let fits = |line: &&String| {
            bytes += line.len();
            bytes < BYTES_MAX
        };
        let many = self.outgoing.iter().take_while(fits).count().max(1);
        let lines: Vec<String> = self.outgoing.drain(..many).collect();
        let body = self.wire.emulation(session, node, &lines);
        Some(wire::post("/emulation", self.wire.is_binary, &body))
    }

    /// It was sent over a link.
    pub fn posted(&mut self, link: usize) {
        self.post = Some(Post {
            link,
            response: Vec::new(),
        });
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
            return self.give_up(links);
        }
        self.read_post(links, scene);
        let Some(at) = self.link else { return };
        if !links[at].down.is_empty() {
            let bytes = std::mem::take(&mut links[at].down);
            let mut answers = Vec::new();
            for event in self.wire.heard(&bytes) {
                self.heard(event, &mut answers, scene);
            }
            if !links[at].up_fin {
                links[at].up.extend_from_slice(&answers);
            }
        } else if links[at].down_fin {
            // Whoever says that it says no more is told nothing more either.
            if !links[at].up_fin {
                self.wire.ended();
            }
            scene.truth.count("fin");
            self.gone(links);
        }
    }

    /// What became of the request with commands. Whoever cannot tell whether they arrived comes again.
    fn read_post(&mut self, links: &mut [Link], scene: &mut Scene<'_>) {
        let Some(post) = &mut self.post else { return };
        let link = &mut links[post.link];
        post.response.extend(std::mem::take(&mut link.down));
        let is_whole = post.response.windows(4).any(|four| four == b"\r\n\r\n");
        if !is_whole && !link.down_reset && !link.down_fin {
            return;
        }
        if is_whole && post.response.starts_with(b"HTTP/1.1 204 ") {
            scene.truth.count("emulated");
            link.up_fin = true;
            self.post = None;
            return;
        }
        let head = String::from_utf8_lossy(&post.response).into_owned();
        let may_be = ["HTTP/1.1 500", "HTTP/1.1 503", "HTTP/1.1 408"];
        assert!(
            head.is_empty() || may_be.iter().any(|start| head.starts_with(start)),
            "commands in a request were answered with {head}"
        );
        scene.truth.count("commands in a request lost");
        self.give_up(links);
    }

    fn heard(&mut self, event: Event, answers: &mut Vec<u8>, scene: &mut Scene<'_>) {
        match event {
            Event::Opened => self.stage = Stage::Open,
            Event::Refused(status) => {
                scene.truth.count(&format!("refused {status}"));
                self.stage = Stage::Closing;
                self.heard_close = true;
            }
            Event::Message(value) => self.message(&value, answers, scene),
            Event::Ping(payload) if !self.ignores_pings => {
                send(answers, scene.rng, Frame::pong(payload));
            }
            Event::Ping(_) => {}
            Event::Close(code) => {
                if !self.wire.transport.is_unidirectional() {
                    scene.truth.count(&format!("close {}", code.unwrap_or(0)));
                }
                if code == Some(3001) {
                    self.told_to_go(scene);
                }
                self.heard_close = true;
                if self.stage != Stage::Closing && scene.rng.below(4) > 0 {
                    send(answers, scene.rng, Frame::close(None));
                }
                self.stage = Stage::Closing;
            }
        }
    }

    fn message(&mut self, value: &Value, answers: &mut Vec<u8>, scene: &mut Scene<'_>) {
        assert!(!self.heard_close, "a message after the last one: {value}");
        if value.as_object().is_some_and(serde_json::Map::is_empty) {
            scene.truth.count("ping");
            assert!(self.id.is_some(), "a ping before the connect reply");
            return self.pong(answers, scene);
        }
        if self.wire.transport.is_unidirectional() {
            return self.told(value, scene);
        }
        if let Some(push) = value.get("push") {
            if let Some(disconnect) = push.get("disconnect") {
                return self.disconnected(disconnect, scene);
            }
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
        self.replied(asked, value, scene);
    }

    /// The server shuts down: what it has stored for this client it has said.
    fn told_to_go(&self, scene: &Scene<'_>) {
        for asked in self.asked.values() {
            if let Asked::Publish(Some(n)) = asked {
                scene.truth.not_answered(*n);
            }
        }
    }

    fn pong(&mut self, answers: &mut Vec<u8>, scene: &mut Scene<'_>) {
        if self.ignores_pings || self.wire.transport.is_unidirectional() {
            return;
        }
        if self.wire.transport.is_emulated() {
            self.outgoing.push("{}".to_owned());
        } else {
            self.wire.say(answers, &["{}".to_owned()], scene.rng);
        }
    }

    /// A unidirectional client hears nothing but pushes, and what became of its connect first.
    fn told(&mut self, push: &Value, scene: &mut Scene<'_>) {
        if let Some(disconnect) = push.get("disconnect") {
            self.asked.clear();
            return self.disconnected(disconnect, scene);
        }
        match self.asked.remove(&0) {
            Some(asked) => self.replied(asked, push, scene),
            None => self.pushed(push, scene),
        }
    }

    /// Nothing more comes.
    fn disconnected(&mut self, disconnect: &Value, scene: &mut Scene<'_>) {
        assert_ne!(
            self.wire.transport,
            wire::Transport::WebSocket,
            "a close frame says it there"
        );
        scene.truth.count(&format!("close {}", disconnect["code"]));
        if disconnect["code"] == 3001 {
            self.told_to_go(scene);
        }
        self.heard_close = true;
        self.stage = Stage::Closing;
    }

    fn replied(&mut self, asked: Asked, value: &Value, scene: &mut Scene<'_>) {
        match asked {
            Asked::Connect(recover) => {
                let result = &value["connect"];
                let id = result["client"]
                    .as_str()
                    .expect("a connect result names the client");
                assert!(self.id.replace(id.to_owned()).is_none(), "connected twice");
                let is_turned_away = scene.truth.turned_away.contains(id);
                assert!(!is_turned_away, "its backend does not let it in");
                scene.truth.count("connected");
                if self.wire.transport.is_emulated() {
                    let text = |name: &str| result[name].as_str().expect("its key").to_owned();
                    self.session = Some((text("session"), text("node")));
                }
                if let Some(subs) = result["subs"].as_object() {
                    if self.is_followed {
                        scene.truth.count(situation::BEHIND_CONNECT);
                    }
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
            Asked::Rpc(ask) => {
                scene.truth.count("rpc answered");
                let answer = &value["rpc"]["data"]["answer"];
                assert_eq!(answer.as_u64(), Some(ask), "another's answer: {value}");
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
            chain: (result["delta"] == true).then(Vec::new),
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
            let publication = sub.whole(publication, self.wire.is_binary, scene);
            let (offset, n) = scene.truth.seen(channel, epoch, &publication);
            assert_eq!(offset, next, "recovery of {channel} has a hole: {result}");
            next += 1;
            sub.last_offset = offset;
            sub.last_n = Some(n);
        }
        sub.next = tracked.then_some(next);
        if !tracked {
            let losses = self.losses.entry(channel.to_owned()).or_default();
            losses.subscriptions += 1;
        }
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
            if message["data"]["join_leave"].is_object() {
                return scene.truth.count("joins and leaves counted");
            }
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
            assert!(
                channel != "server:3" || unsubscribe["code"] != 2501,
                "what a server made ends with its connection where it expires"
            );
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
        if channel.starts_with("plain:") || channel.starts_with("pres:") {
            scene.truth.count("told of a loss that nothing kept");
        }
        let losses = self.losses.entry(channel.to_owned()).or_default();
        match lost["publications"].as_u64() {
            Some(publications) => losses.told += publications,
            None => losses.is_vague = true,
        }
        if let Some(conflated) = lost["conflated"].as_u64() {
            scene.truth.count("told of conflation");
            losses.told += conflated;
            losses.conflated += conflated;
        }
        if let (Some(from), Some(to)) = (lost["from"].as_u64(), lost["to"].as_u64()) {
            losses.ranges.push((from, to));
        }
    }

    fn published(&mut self, channel: &str, publication: &Value, scene: &mut Scene<'_>) {
        let Some(sub) = self.subs.get_mut(channel) else {
            panic!(
                "a publication of {channel}, which this client is not subscribed to: {publication}"
            )
        };
        let publication = sub.whole(publication, self.wire.is_binary, scene);
        let (offset, n) = scene
            .truth
            .seen(channel, sub.epoch.as_deref(), &publication);
        scene.truth.count("delivered");
        if offset == 0 {
            if sub.next.is_none() {
                self.losses
                    .entry(channel.to_owned())
                    .or_default()
                    .bare
                    .push(n);
            }
            if let Some(last) = sub.last_n.replace(n) {
                scene.truth.followed(channel, last, n);
            }
            return;
        }
        if let Some(next) = &mut sub.next {
            if is_latest(channel) && offset > *next {
                scene.truth.count("left out for a later one");
                *next = offset;
            }
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
        if sub.next.is_none() {
            let losses = self.losses.entry(channel.to_owned()).or_default();
            if sub.last_offset > 0 && !is_latest(channel) {
                losses.missed.extend(sub.last_offset + 1..offset);
            }
            losses.got.push((offset, n));
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
