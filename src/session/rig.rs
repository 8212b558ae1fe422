//! A session by itself, for tests of its rules: everything that its context borrows, without a shard.

use std::collections::VecDeque;

use super::asked::OpenQuestions;
use super::late::Late;
use super::order::{ReplyMark, Spares};
use super::{Calls, Context, KeyWanted, Phase, Requests, Session, Tokens};
use crate::auth::revocation::Revocations;
use crate::broker::Hub;
use crate::config::Config;
use crate::mem::{Key, Place, Rng, Secrets, Turns};
use crate::mesh::{Endpoint, Message, build};
use crate::metrics::Counters;
use crate::model::{ConnId, Format, HubId, ShardId};
use crate::protocol::centrifuge;
use crate::protocol::disconnect::Disconnect;
use crate::speaker::{Compression, Said};
use crate::time::{Instant, Now};

/// The connection of the session.
pub(super) const CONN: ConnId = ConnId {
    slot: 1,
    generation: 0,
};

/// See the module. The session is on shard 0 of a node with one shard, which owns every channel.
pub(super) struct Rig {
    pub(super) session: Session,
    pub(super) config: Config,
    pub(super) now: Now,
    pub(super) format: Format,
    pub(super) hub: Hub,
    pub(super) revocations: Revocations,
    pub(super) counters: Counters,
    pub(super) hooks: Calls,
    pub(super) log: Requests,
    pub(super) asked: OpenQuestions,
    pub(super) said: VecDeque<(ConnId, Said)>,
    pub(super) key_wanted: Option<KeyWanted>,
    late: Late,
    tokens: Tokens,
    mesh: Vec<Endpoint>,
    parts: Turns<(ConnId, HubId)>,
    rng: Rng,
    secrets: Secrets,
    compression: Compression,
    ended: Vec<u32>,
    moved: Vec<(u32, u32, Place)>,
    marks: Vec<ReplyMark>,
    spares: Spares,
}

impl Rig {
    /// A fresh session, 1000 s after the start of the process.
    pub(super) fn new(config: Config) -> Self {
        let key = Key::new([1; 32]);
        Self {
            session: Session::default(),
            now: Now {
                at: Instant(1_000_000_000_000),
                unix_ms: 1_700_000_000_000,
            },
            format: Format::default(),
            hub: Hub::new(&key),
            revocations: Revocations::new(&key),
            counters: Counters::default(),
            hooks: Calls::default(),
            log: Requests::default(),
            asked: OpenQuestions::default(),
            said: VecDeque::new(),
            key_wanted: None,
            late: Late::default(),
            tokens: Tokens::new(&config),
            mesh: build(1),
            parts: Turns::new(1, &std::sync::Arc::default()),
            rng: Rng::new(7),
            secrets: Secrets::new(&[7; 32], 0),
            compression: Compression::new(&config.websocket),
            ended: Vec::new(),
            moved: Vec::new(),
            marks: Vec::new(),
            spares: Spares::new(),
            config,
        }
    }

    /// The session is in this phase from here on.
    pub(super) fn in_phase(mut self, phase: Phase) -> Self {
        self.session.phase = phase;
        self
    }

    /// A step of the session: what comes of it, and the frames that it says.
    pub(super) fn step<R>(
        &mut self,
        run: impl FnOnce(&mut Session, &mut Context<'_>) -> R,
    ) -> (R, String) {
        let mut out = Vec::new();
        let mut context = Context {
            now: self.now,
            prefix: 0,
            conn: CONN,
            format: self.format,
            config: &self.config,
            rules: &self.config.channels,
            tokens: &self.tokens,
            revocations: &self.revocations,
            hub: &mut self.hub,
            mesh: &mut self.mesh[0],
            counters: &mut self.counters,
            hooks: &mut self.hooks,
            log: &mut self.log,
            late: &mut self.late,
            asked: &mut self.asked,
            parts: &mut self.parts,
            rng: &mut self.rng,
            secrets: &mut self.secrets,
            out: &mut out,
            inappropriate: false,
            compression: &mut self.compression,
            node: "node",
            said: &mut self.said,
            ended: &mut self.ended,
            moved: &mut self.moved,
            key_wanted: &mut self.key_wanted,
            is_command: false,
            is_timed: false,
            awaits: None,
            answer_by: 0,
            answer_bytes: 0,
            is_ordered: false,
            marks: &mut self.marks,
            spares: &mut self.spares,
        };
        let result = run(&mut self.session, &mut context);
        (result, payloads(&out))
    }

    /// A command, as JSON.
    pub(super) fn command(&mut self, text: &str) -> (Result<(), Disconnect>, String) {
        let encoding = self.format.encoding;
        let mut commands = centrifuge::commands(encoding, text.as_bytes());
        let command = commands.next().expect("a command");
        match command {
            Ok(command) => self.step(|session, context| session.command(context, &command)),
            Err(disconnect) => (Err(disconnect), String::new()),
        }
    }

    /// What it has told its shard, which owns all channels.
    pub(super) fn told(&mut self) -> Vec<Message> {
        std::iter::from_fn(|| self.mesh[0].receive(ShardId(0))).collect()
    }
}

/// What stands in short WebSocket frames of the server, one a line.
fn payloads(mut frames: &[u8]) -> String {
    let mut lines = Vec::new();
    while let [opcode, len, rest @ ..] = frames {
        let (len, rest) = match len {
            126 => (
                usize::from(u16::from_be_bytes([rest[0], rest[1]])),
                &rest[2..],
            ),
            len => (usize::from(*len), rest),
        };
        lines.push(match opcode & 0xf {
            9 => "ping frame".to_owned(),
            _ => String::from_utf8_lossy(&rest[..len]).trim_end().to_owned(),
        });
        frames = &rest[len..];
    }
    lines.join("\n")
}
