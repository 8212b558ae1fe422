//! Shards of one process, driven by hand, with clients at the other ends of their sockets.

mod drain;
mod ends;
mod fair;
mod image;
mod inflating;
mod input;
mod keys;
mod liveness;
mod losses;
mod order;
mod paces;
mod poll;

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::{Close, Door, EndCause, Mode, Output, Peer, SendBatch, Shard};
use crate::broker::owner::owner_of;
use crate::config::hooks::Target;
use crate::config::{Config, Namespace, Secret};
use crate::mesh::Endpoint;
use crate::mesh::control::ToShard;
use crate::mesh::hook::{Call, HookAnswer, Verdict};
use crate::model::{ChannelName, ConnId, ShardId};
use crate::time::Now;

const KEY: &str = "k";
const UPGRADE: &[u8] = b"GET /connection/websocket HTTP/1.1\r\nHost: localhost\r\n\
Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
/// A close frame, masked with nothing.
const CLOSE: &[u8] = &[0x88, 0x80, 0, 0, 0, 0];

/// A connection: the shard that has it, and what it is called there.
type Who = (usize, ConnId);

/// The other end of a socket, and what lies between.
#[derive(Default)]
struct Wire {
    /// What came and was not looked at.
    came: Vec<u8>,
    is_stream: bool,
    /// So many bytes are taken yet; `None` for all.
    room: Option<usize>,
    /// A batch that the kernel has.
    waits: Option<Vec<u8>>,
    is_paused: bool,
    is_half_closed: bool,
    closed: Option<Close>,
}

impl Wire {
    /// As many of these bytes as there is room for go through.
    fn take(&mut self, bytes: &[u8]) -> usize {
        let taken = self.room.map_or(bytes.len(), |room| room.min(bytes.len()));
        self.room = self.room.map(|room| room - taken);
        self.came.extend_from_slice(&bytes[..taken]);
        taken
    }
}

pub(in crate::shard) struct House {
    pub(in crate::shard) shards: Vec<Shard>,
    pub(in crate::shard) now: Now,
    wires: BTreeMap<(usize, u32), Wire>,
    /// What backends were asked.
    calls: VecDeque<Box<Call>>,
}

impl House {
    pub(in crate::shard) fn with(mesh: Vec<Endpoint>, change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::built_in();
        config.http_api.key = Secret(KEY.to_owned());
        config.client.insecure = true;
        change(&mut config);
        let config = Arc::new(config);
        let shard = |endpoint: Endpoint| {
            let (id, config) = (endpoint.shard(), Arc::clone(&config));
            Shard::new(id, Mode::Proxy, config, endpoint, 7)
        };
        Self {
            shards: mesh.into_iter().map(shard).collect(),
            now: Now::default(),
            wires: BTreeMap::new(),
            calls: VecDeque::new(),
        }
    }

    pub(in crate::shard) fn accept(&mut self, shard: usize, slot: u32) -> Who {
        self.accept_from(shard, slot, None)
    }

    fn accept_from(&mut self, shard: usize, slot: u32, ip: Option<IpAddr>) -> Who {
        let peer = Peer {
            ip,
            door: Door::Clients,
        };
        self.wires.insert((shard, slot), Wire::default());
        let conn = self.shards[shard].handle_accepted(self.now, slot, peer);
        (shard, conn.unwrap())
    }

    pub(in crate::shard) fn receive(&mut self, (shard, conn): Who, bytes: &[u8]) {
        self.shards[shard].handle_received(self.now, conn, &mut bytes.to_vec());
    }

    fn end(&mut self, (shard, conn): Who, cause: EndCause) {
        self.shards[shard].handle_ended(self.now, conn, cause);
    }

    /// A client with a session.
    fn client(&mut self, shard: usize, slot: u32) -> Who {
        self.client_from(shard, slot, None)
    }

    fn client_from(&mut self, shard: usize, slot: u32, ip: Option<IpAddr>) -> Who {
        let who = self.accept_from(shard, slot, ip);
        self.receive(who, UPGRADE);
        self.go();
        let head = std::mem::take(&mut self.wire(who).came);
        assert!(head.starts_with(b"HTTP/1.1 101"));
        self.say(who, &[json!({ "id": 1, "connect": {} })]);
        self.go();
        assert_eq!(ids(&self.heard(who)), [1]);
        who
    }

    /// A client whose commands come in requests of their own, and what it was told when it connected.
    fn stream(&mut self, shard: usize, slot: u32) -> (Who, Value) {
        let who = self.accept(shard, slot);
        let connect = json!({ "id": 1, "connect": {} }).to_string();
        self.receive(who, request("connection/http_stream", &connect).as_bytes());
        self.go();
        self.wire(who).is_stream = true;
        let mut heard = self.heard(who);
        assert_eq!(ids(&heard), [1]);
        (who, heard[0]["connect"].take())
    }

    /// A request with commands for such a client; its status.
    fn emulate(&mut self, slot: u32, connected: &Value, commands: &[Value]) -> String {
        let (session, node) = (&connected["session"], &connected["node"]);
        let body = json!({ "session": session, "node": node, "data": lines(commands) });
        let who = self.accept(0, slot);
        self.receive(who, request("emulation", &body.to_string()).as_bytes());
        self.go();
        let came = std::mem::take(&mut self.wire(who).came);
        String::from_utf8_lossy(&came)
            .chars()
            .skip(9)
            .take(3)
            .collect()
    }

    /// One frame with these commands.
    fn say(&mut self, who: Who, commands: &[Value]) {
        let frame = frame(&lines(commands));
        self.receive(who, &frame);
    }

    fn wire(&mut self, (shard, conn): Who) -> &mut Wire {
        self.wires.get_mut(&(shard, conn.slot)).unwrap()
    }

    /// All messages that came since the last look.
    fn heard(&mut self, who: Who) -> Vec<Value> {
        let wire = self.wire(who);
        let came = std::mem::take(&mut wire.came);
        let text = if wire.is_stream {
            String::from_utf8_lossy(&came).into_owned()
        } else {
            texts(&came)
        };
        let json = |line: &str| serde_json::from_str(line).ok();
        text.lines()
            .filter_map(json)
            .filter(Value::is_object)
            .collect()
    }

    /// The peer takes so many bytes more; `None`: all that come.
    fn give_room(&mut self, who: Who, room: Option<usize>) {
        let wire = self.wire(who);
        wire.room = room;
        if let Some(bytes) = wire.waits.take() {
            let taken = wire.take(&bytes);
            let (shard, conn) = who;
            let batch = SendBatch::Owned(bytes);
            self.shards[shard].handle_sent(self.now, conn, batch, Ok(taken));
        }
        self.go();
    }

    /// Turns of all shards until nothing moves.
    fn go(&mut self) {
        for _ in 0..10_000 {
            let moved = (0..self.shards.len())
                .filter(|&at| self.turn_of(at))
                .count();
            if moved == 0 {
                return;
            }
        }
        panic!("it comes to no end");
    }

    /// Time passes.
    fn wait(&mut self, time: Duration) {
        const STEP: Duration = Duration::from_millis(100);
        for _ in 0..time.as_millis() / STEP.as_millis() {
            self.now.at = self.now.at + STEP;
            self.now.unix_ms += 100;
            self.go();
        }
    }

    /// One turn of one shard. Did anything move?
    fn turn_of(&mut self, at: usize) -> bool {
        let (now, shard) = (self.now, &mut self.shards[at]);
        let mut moves = shard.has_work();
        shard.handle_mesh(now);
        if shard.poll_timeout().is_some_and(|due| due.at <= now.at) {
            shard.handle_timeout(now);
            moves = true;
        }
        moves | self.take_outputs(at)
    }

    /// Everything that a shard wants to have done. Was there anything?
    fn take_outputs(&mut self, at: usize) -> bool {
        let mut moves = self.take_slice(at);
        // What was flushed may bring more.
        while self.take_slice(at) {
            moves = true;
        }
        moves
    }

    fn take_slice(&mut self, at: usize) -> bool {
        self.take_part(at, usize::MAX)
    }

    /// The same, with so many sends at most.
    fn take_part(&mut self, at: usize, sends: usize) -> bool {
        let mut left = sends;
        let (now, shard) = (self.now, &mut self.shards[at]);
        let (mut moves, mut short, mut closed) = (false, Vec::new(), Vec::new());
        while left > 0
            && let Some(output) = shard.poll_output()
        {
            moves = true;
            left -= usize::from(matches!(output, Output::Transmit { .. }));
            let conn = match &output {
                Output::Transmit { conn, .. }
                | Output::Close { conn, .. }
                | Output::Pause(conn)
                | Output::Resume(conn)
                | Output::HalfClose(conn) => *conn,
                _ => {
                    if let Output::Call(call) = output {
                        self.calls.push_back(call);
                    }
                    continue;
                }
            };
            let wire = self.wires.get_mut(&(at, conn.slot)).unwrap();
            match output {
                Output::Transmit {
                    batch: SendBatch::Ring(range),
                    ..
                } => {
                    let taken = wire.take(shard.ring_bytes(range));
                    if taken < range.len as usize {
                        short.push((conn, SendBatch::Ring(range), taken));
                    }
                }
                Output::Transmit {
                    batch: SendBatch::Owned(bytes),
                    ..
                } if wire.room == Some(0) => wire.waits = Some(bytes),
                Output::Transmit { batch, .. } => {
                    if let SendBatch::Owned(bytes) = &batch {
                        let taken = wire.take(bytes);
                        shard.handle_sent(now, conn, batch, Ok(taken));
                    }
                }
                Output::Pause(_) => wire.is_paused = true,
                Output::Resume(_) => wire.is_paused = false,
                Output::HalfClose(_) => wire.is_half_closed = true,
                Output::Close { how, .. } => {
                    wire.closed = Some(how);
                    closed.push(conn);
                }
                _ => {}
            }
        }
        for (conn, batch, taken) in short {
            shard.handle_sent(now, conn, batch, Ok(taken));
        }
        shard.handle_flushed(now);
        for conn in closed {
            shard.handle_closed(now, conn);
        }
        moves
    }

    /// The backend answers the oldest call, which a client of this shard has made.
    fn answer_call(&mut self, shard: usize) {
        let call = self.calls.pop_front().unwrap();
        let verdict = Verdict::Rpc(bytes::Bytes::from_static(b"1"));
        self.shards[shard].handle_answer(self.now, HookAnswer { call, verdict });
    }
}

pub(in crate::shard) fn request(path: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "POST /{path} HTTP/1.1\r\nHost: localhost\r\nX-API-Key: {KEY}\r\nContent-Length: {length}\r\n\r\n{body}"
    )
}

/// A namespace that keeps so many publications for a minute.
pub(in crate::shard) fn kept(name: &str, size: u32) -> Namespace {
    Namespace {
        name: name.to_owned(),
        history_size: size,
        history_ttl: Duration::from_secs(60),
        ..Namespace::default()
    }
}

/// A backend takes all calls to methods.
fn with_backend(config: &mut Config) {
    config.hooks.rpc = Arc::new(Target {
        endpoint: "http://localhost/rpc".to_owned(),
        ..Target::named("rpc.proxy")
    });
    config.hooks.methods.without_namespace.proxy_enabled = true;
}

fn rpc(id: u32) -> Value {
    json!({ "id": id, "rpc": { "method": "x", "data": 1 } })
}

fn publish(id: u32, channel: &str, data: impl Into<Value>) -> Value {
    json!({ "id": id, "publish": { "channel": channel, "data": data.into() } })
}

fn subscribe(id: u32, channel: &str) -> Value {
    json!({ "id": id, "subscribe": { "channel": channel } })
}

fn lines(commands: &[Value]) -> String {
    let lines: Vec<String> = commands.iter().map(Value::to_string).collect();
    lines.join("\n")
}

/// A text frame, masked with nothing.
fn frame(text: &str) -> Vec<u8> {
    let mut frame = vec![0x81];
    match text.len() {
        len @ 0..126 => frame.push(0x80 | len as u8),
        len @ 126..0x1_0000 => {
            frame.push(0xfe);
            frame.extend_from_slice(&(len as u16).to_be_bytes());
        }
        len => {
            frame.push(0xff);
            frame.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(&[0; 4]);
    frame.extend_from_slice(text.as_bytes());
    frame
}

/// What the text frames of a server say, in lines. What is not whole stays out.
fn texts(mut bytes: &[u8]) -> String {
    let mut texts = String::new();
    while let [kind, short, rest @ ..] = bytes {
        let (len, rest) = match (short, rest) {
            (126, [a, b, rest @ ..]) => (usize::from(u16::from_be_bytes([*a, *b])), rest),
            (127, rest) if rest.len() >= 8 => {
                let (len, rest) = rest.split_at(8);
                (u64::from_be_bytes(len.try_into().unwrap()) as usize, rest)
            }
            (126 | 127, _) => break,
            (len, rest) => (usize::from(*len), rest),
        };
        let Some((payload, behind)) = rest.split_at_checked(len) else {
            break;
        };
        if *kind == 0x81 {
            texts.push_str(std::str::from_utf8(payload).unwrap());
            texts.push('\n');
        }
        bytes = behind;
    }
    texts
}

/// Ids of the replies.
fn ids(messages: &[Value]) -> Vec<u64> {
    let id = |message: &Value| message["id"].as_u64();
    messages.iter().filter_map(id).collect()
}

/// Payloads of the publications.
fn published(messages: &[Value]) -> Vec<Value> {
    let data = |message: &Value| message["push"].get("pub").map(|one| one["data"].clone());
    messages.iter().filter_map(data).collect()
}

/// How many publications the messages say that were lost.
fn lost(messages: &[Value]) -> u64 {
    let lost =
        |message: &Value| message["push"]["message"]["data"]["lost"]["publications"].as_u64();
    messages.iter().filter_map(lost).sum()
}

/// A channel that this shard owns.
fn owned_by(owner: u16, shards: u16, namespace: &str) -> String {
    let mut names = (0..).map(|n| format!("{namespace}{n}"));
    let is_owned =
        |name: &String| owner_of(&ChannelName::from_whole(name), shards) == ShardId(owner);
    names.find(is_owned).unwrap()
}
