//! The record of one connection: a socket with framing, and the session behind it.

use super::backlog::Backlog;
use super::held::Held;
use crate::mem::{RingRange, Tick};
use crate::session::{Session, Stamp};
use crate::shard::{Close, Door};
use crate::wire::websocket::Decoder;

/// How far a connection has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum State {
    /// A request head, or its body, is awaited.
    #[default]
    Head,
    /// A request or a connect command waits for owners; what arrives is held.
    Waiting,
    /// WebSocket.
    Open,
    /// Answers to earlier requests are on their way: the next request is taken once they are sent; what arrives is held.
    Owing,
    /// Everything queued is sent, then the socket is closed.
    Finishing,
    /// As `Finishing`, but the peer may be sending still: `Lingering` follows.
    Refused,
    /// Our side is closed; what the peer sends is read past for a while.
    Lingering,
    /// `Output::Close` is out.
    Gone,
}

/// What a drain has to do with the end of a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Leaving {
    /// Nothing: it is here, or has left by itself.
    #[default]
    Not,
    /// It was told to come back elsewhere.
    Told,
    /// It was there still when the time was up.
    Cut,
}

/// What is to be done since a connection has moved: see `shard/after`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Due(u8);

impl Due {
    pub(super) const NOTHING: Self = Self(0);
    pub(super) const PHASE: Self = Self(1);
    pub(super) const TIME: Self = Self(1 << 1);
    pub(super) const ROOM: Self = Self(1 << 2);
    pub(super) const OWED: Self = Self(1 << 3);
    pub(super) const TURN: Self = Self(1 << 4);
    pub(super) const INPUT: Self = Self(1 << 5);

    /// Both.
    #[must_use]
    pub(super) const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Any of these.
    pub(super) const fn has(self, any: Self) -> bool {
        self.0 & any.0 != 0
    }

    pub(super) const fn add(&mut self, more: Self) {
        self.0 |= more.0;
    }

    /// What a step of a session has made due, by what it was before and is now.
    pub(super) fn of(before: Stamp, now: Stamp) -> Self {
        let mut due = Self::NOTHING;
        if before != now {
            if before.phase != now.phase {
                due.add(Self::PHASE);
            }
            if now.may_be_sooner(before) {
                due.add(Self::TIME);
            }
        }
        due
    }
}

/// State of one connection.
#[derive(Debug, Default)]
pub(super) struct Connection {
    /// Bytes in the fan-out ring that go out with the next send.
    pub(super) pending: RingRange,
    /// Bytes that the connection owns because the kernel did not take them at once.
    pub(super) backlog: Option<Box<Backlog>>,
    /// Unfinished WebSocket input.
    pub(super) decoder: Decoder,
    /// Unfinished HTTP input, or input behind a command that waits.
    pub(super) held: Option<Box<Held>>,
    /// Deadline of the state, beside the session's own; 0 for none.
    pub(super) by: Tick,
    /// Tick under which the slot is filed in the wheel; 0 for none.
    pub(super) filed: Tick,
    /// When it came.
    pub(super) since: Tick,
    pub(super) state: State,
    pub(super) leaving: Leaving,
    /// What is to be done about it.
    pub(super) due: Due,
    /// Where it came in.
    pub(super) door: Door,
    /// The WebSocket carries a session (else it is an echo).
    pub(super) is_session: bool,
    /// The session is connected and filed among the users.
    pub(super) is_known: bool,
    /// A client whose handshake is not over.
    pub(super) is_arriving: bool,
    /// A command waits for the key of its token; what arrives behind it is held, and time does not count.
    pub(super) is_parked: bool,
    /// An entry in the outbox's list of dirty connections.
    pub(super) is_dirty: bool,
    /// `Output::Pause` is out: nothing more is read.
    pub(super) is_paused: bool,
    /// An owned batch is in flight.
    pub(super) is_sending: bool,
    /// The HTTP connection outlives its request.
    pub(super) keep_alive: bool,
    /// Its last request was one of a service.
    pub(super) is_service: bool,
    /// The answer to the request has no body.
    pub(super) is_head: bool,
    /// The peer has closed its side; what it has asked for is still answered.
    pub(super) has_ended: bool,
    /// Bytes that were read past since the connection was refused.
    pub(super) read_past: u32,
    /// How it will be closed, once everything is sent.
    pub(super) close: Option<Close>,
    pub(super) session: Session,
}

/// A connection's record with its session and first subscription. The aim is a few hundred bytes for everything in user space.
const _: () = assert!(size_of::<Connection>() <= 200, "bytes per idle connection");

impl Connection {
    /// Nothing waits to be sent.
    pub(super) fn is_sent(&self) -> bool {
        self.pending.len == 0
            && !self.is_sending
            && self
                .backlog
                .as_ref()
                .is_none_or(|backlog| backlog.is_empty())
    }

    /// Input is kept and not read yet.
    pub(super) fn is_held_up(&self) -> bool {
        matches!(self.state, State::Waiting | State::Owing)
            || self.is_parked
            || self.session.has_enough()
    }

    /// What it sends is looked at.
    pub(super) const fn is_served(&self) -> bool {
        match self.state {
            State::Head | State::Waiting | State::Open | State::Owing => true,
            State::Finishing | State::Refused | State::Lingering | State::Gone => false,
        }
    }

    /// What its peer has asked for is not all under way: it is lost if the connection ends now.
    pub(super) fn is_unfinished(&self) -> bool {
        self.session.is_unfinished() || self.held.is_some()
    }

    /// Pushes must wait for the connect reply.
    pub(super) fn is_corked(&self) -> bool {
        self.session.connecting.is_some()
    }
}

impl Connection {
    /// Its session may carry out a command.
    pub(super) fn can_answer(&self) -> bool {
        self.state == State::Open && !self.is_parked && !self.owes_answers()
    }

    /// Answers that the peer asked for and has not taken: it gets no more before they are out.
    pub(super) fn owes_answers(&self) -> bool {
        self.backlog
            .as_ref()
            .is_some_and(|backlog| backlog.owes_answers())
    }

    /// Nothing more is read of its input: what came is not carried out yet.
    pub(super) fn must_hold(&self) -> bool {
        self.is_held_up() || self.held.is_some()
    }

    /// Bytes that wait because the peer does not take them.
    pub(super) fn backlog_bytes(&self) -> usize {
        self.backlog.as_ref().map_or(0, |backlog| backlog.unsent())
    }

    /// Bytes that the kernel has not taken.
    pub(super) fn unsent_bytes(&self) -> usize {
        self.pending.len as usize + self.backlog_bytes()
    }
}
