//! A double of the reactor: it drives a shard by the contract, and as unkindly as the contract allows.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hasher};

use ringmain::mem::Rng;
use ringmain::mesh::control::{DrainOutcome, FromShard, ToShard};
use ringmain::model::{ConnId, ShardId};
use ringmain::shard::inspect::Wait;
use ringmain::shard::{
    Close, Door, EndCause, Output, Peer, Refused, RingRange, SendBatch, SendFailed, Shard,
};
use ringmain::time::{Instant, Now};

use super::backend::Backend;
use super::faulty_log::FaultyLog;
use super::keys::KeyService;
use super::link::Link;
use super::truth::{Truth, situation};

/// One accepted socket.
struct Socket {
    conn: ConnId,
    link: usize,
    /// A batch of its own that the kernel has.
    owned: Option<Vec<u8>>,
    /// `Output::Close` came: turns until it is carried out.
    closing: Option<(Close, u64)>,
    end_told: bool,
    /// `Output::Pause` came: receives that had been made by then.
    paused: Option<u64>,
}

/// What a turn needs beside the reactor.
pub struct Outside<'a> {
    pub now: Now,
    pub links: &'a mut [Link],
    pub wakes: &'a mut Vec<ShardId>,
    /// Everything that was sent and closed.
    pub hash: &'a mut DefaultHasher,
    /// Nothing is delayed or cut: the run comes to rest.
    pub calm: bool,
    /// When a drain cuts what is left.
    pub drained_by: Option<Instant>,
    pub log: &'a mut FaultyLog,
    pub backend: &'a mut Backend,
    pub keys: &'a mut KeyService,
    pub truth: &'a mut Truth,
}

pub struct Reactor {
    pub shard: Shard,
    sockets: Vec<Option<Socket>>,
    free: Vec<u32>,
    pub bell: bool,
    /// Links that wait to be accepted.
    pub backlog: VecDeque<usize>,
    pub control: VecDeque<ToShard>,
    pub drained: Option<DrainOutcome>,
    /// Connections that had closed when a drain began.
    pub closed_before: u64,
    /// Outputs may be left from the turn before.
    output_left: bool,
    /// Connections that are gone: their completions come late.
    stale: Vec<ConnId>,
    /// Turns that are skipped.
    pub asleep: u64,
    /// The shard has no room for those who wait to be accepted.
    held: bool,
    /// The shard was told that no listener is left.
    unlistened: bool,
    /// Turns in which the time was up and still was afterwards.
    due_turns: u32,
    /// What its sockets do.
    rng: Rng,
}

impl Reactor {
    pub fn new(shard: Shard, rng: Rng) -> Self {
        Self {
            shard,
            sockets: Vec::new(),
            free: Vec::new(),
            bell: false,
            backlog: VecDeque::new(),
            control: VecDeque::new(),
            drained: None,
            closed_before: 0,
            output_left: false,
            stale: Vec::new(),
            asleep: 0,
            held: false,
            unlistened: false,
            due_turns: 0,
            rng,
        }
    }

    /// Sockets that are open.
    pub fn open(&self) -> usize {
        self.sockets.iter().flatten().count()
    }

    fn has_event(socket: &Socket, links: &[Link]) -> bool {
        let link = &links[socket.link];
        socket.closing.is_some()
            || !link.up.is_empty() && socket.paused != Some(0)
            || !socket.end_told && (link.up_fin && socket.paused.is_none() || link.up_reset)
            || socket.owned.is_some() && (link.room() > 0 || link.up_reset)
    }

    /// Something woke the thread.
    pub fn is_awake(&self, now: Now, links: &[Link], told: bool) -> bool {
        self.bell
            || told
            || self.output_left
            || !self.backlog.is_empty() && !self.held
            || !self.control.is_empty()
            || self
                .shard
                .poll_timeout()
                .is_some_and(|deadline| deadline.at <= now.at)
            || self
                .sockets
                .iter()
                .flatten()
                .any(|socket| Self::has_event(socket, links))
    }

    /// One turn, if something woke the thread. Returns whether it did.
    pub fn turn(&mut self, outside: &mut Outside<'_>) -> bool {
        if self.asleep > 0 && !outside.calm {
            self.asleep -= 1;
            return true;
        }
        let shard = usize::from(self.shard.id().0);
        let told = outside.log.is_due(outside.now, shard, outside.calm)
            || outside.backend.is_due(outside.now, shard, outside.calm);
        if !self.is_awake(outside.now, outside.links, told) {
            return false;
        }
        let time_is_up = self
            .shard
            .poll_timeout()
            .is_some_and(|deadline| deadline.at <= outside.now.at);
        self.accept(outside);
        let mut slots: Vec<u32> = (0..self.sockets.len() as u32)
            .filter(|&slot| {
                self.sockets[slot as usize]
                    .as_ref()
                    .is_some_and(|socket| Self::has_event(socket, outside.links))
            })
            .collect();
        for at in (1..slots.len()).rev() {
            slots.swap(at, self.rng.below(at as u64 + 1) as usize);
        }
        for slot in slots {
            self.complete(slot, outside);
        }
        if let Some(&conn) = self.stale.last()
            && self.rng.below(4) == 0
        {
            self.shard
                .handle_received(outside.now, conn, &mut [0x81, 0x80, 0, 0, 0, 0]);
            self.shard.handle_ended(outside.now, conn, EndCause::Reset);
        }
        while let Some(message) = self.control.pop_front() {
            if matches!(message, ToShard::Drain { .. }) {
                self.closed_before = self.shard.counters().closed;
            }
            self.shard.handle_control(outside.now, message);
        }
        self.bell = false;
        while !self.shard.is_full()
            && let Some(message) = outside.log.poll(outside.now, shard, outside.calm)
        {
            self.shard.handle_log(outside.now, message);
        }
        while !self.shard.is_full()
            && let Some(answer) =
                outside
                    .backend
                    .poll(outside.now, shard, outside.calm, outside.truth)
        {
            self.shard.handle_answer(outside.now, answer);
        }
        if !self.shard.is_full() {
            self.shard.handle_mesh(outside.now);
        }
        if self.shard.catch_ups_put_off() > 0 {
            outside.truth.count(situation::CATCH_UP_PUT_OFF);
        }
        if self.shard.ending_while_pending() > 0 {
            outside.truth.count(situation::ENDS_WHILE_PENDING);
        }
        if time_is_up {
            self.shard.handle_timeout(outside.now);
            self.check_timeout(outside.now);
        }
        self.output_left = self.flush(outside);
        self.held = self.shard.accept_room(outside.now) == 0;
        if self.held && !self.backlog.is_empty() {
            outside.truth.count("left in the queue");
        }
        true
    }

    /// What was due is done: a shard that wants to be called again at once, and again, never parks.
    fn check_timeout(&mut self, now: Now) {
        const TURNS_MAX: u32 = 50;
        let next = self.shard.poll_timeout();
        let is_due = next.is_some_and(|deadline| deadline.at <= now.at);
        self.due_turns = if is_due { self.due_turns + 1 } else { 0 };
        assert!(self.due_turns < TURNS_MAX, "a shard spins");
    }

    fn accept(&mut self, outside: &mut Outside<'_>) {
        let ends = !self.shard.is_accepting();
        if self.unlistened {
            for link in self.backlog.drain(..) {
                outside.links[link].down_reset = true;
            }
        }
        while self.shard.accept_room(outside.now) > 0
            && let Some(link) = self.backlog.pop_front()
        {
            let slot = self.free.pop().unwrap_or(self.sockets.len() as u32);
            let peer = Peer {
                ip: None,
                door: Door::Clients,
            };
            match self.shard.handle_accepted(outside.now, slot, peer) {
                Ok(conn) => {
                    if slot as usize == self.sockets.len() {
                        self.sockets.push(None);
                    }
                    assert_eq!(conn.slot, slot, "the reactor numbers the slots");
                    self.sockets[slot as usize] = Some(Socket {
                        conn,
                        link,
                        owned: None,
                        closing: None,
                        end_told: false,
                        paused: None,
                    });
                }
                Err(refused) => {
                    assert!(
                        refused == Refused::Full || ends,
                        "a shard that accepts refused"
                    );
                    if (slot as usize) < self.sockets.len() {
                        self.free.push(slot);
                    }
                    outside.links[link].down_reset = true;
                }
            }
        }
        if ends && !std::mem::replace(&mut self.unlistened, true) {
            self.shard.handle_unlistened(outside.now);
            self.bell = true;
        }
    }

    /// Completions of one socket, in the order that chance gives.
    fn complete(&mut self, slot: u32, outside: &mut Outside<'_>) {
        if self.rng.below(2) == 0 {
            self.receive(slot, outside);
            self.complete_owned(slot, outside);
        } else {
            self.complete_owned(slot, outside);
            self.receive(slot, outside);
        }
        let Some(socket) = &mut self.sockets[slot as usize] else {
            return;
        };
        let Some((how, turns)) = &mut socket.closing else {
            return;
        };
        if socket.owned.is_some() {
            return;
        }
        if *turns > 0 {
            *turns -= 1;
            return;
        }
        let link = &mut outside.links[socket.link];
        match how {
            Close::Finish => link.down_fin = true,
            Close::Abort => link.down_reset = true,
        }
        link.up.clear();
        let conn = socket.conn;
        outside.hash.write_u32(conn.slot);
        self.shard.handle_closed(outside.now, conn);
        self.sockets[slot as usize] = None;
        self.free.push(slot);
        self.stale.push(conn);
    }

    fn receive(&mut self, slot: u32, outside: &mut Outside<'_>) {
        if self.shard.is_full() {
            // What the reactor must do before it feeds more.
            while self.flush(outside) {}
        }
        let Some(socket) = &mut self.sockets[slot as usize] else {
            return;
        };
        let link = &mut outside.links[socket.link];
        if link.up_reset {
            link.up.clear();
            if !std::mem::replace(&mut socket.end_told, true) {
                let conn = socket.conn;
                self.end(conn, EndCause::Reset, outside);
            }
            return;
        }
        match &mut socket.paused {
            Some(0) => return,
            Some(late) => *late -= 1,
            None => {}
        }
        if !link.up.is_empty() {
            let most = match self.rng.below(8) {
                0 if !outside.calm => 1 + self.rng.below(8) as usize,
                1 if !outside.calm => 1 + self.rng.below(200) as usize,
                _ => 16 * 1024,
            };
            let rest = link.up.split_off(most.min(link.up.len()));
            let mut bytes = std::mem::replace(&mut link.up, rest);
            self.shard
                .handle_received(outside.now, socket.conn, &mut bytes);
        } else if link.up_fin && !std::mem::replace(&mut socket.end_told, true) {
            let conn = socket.conn;
            self.end(conn, EndCause::Eof, outside);
        }
    }

    /// A peer sends nothing more.
    fn end(&mut self, conn: ConnId, cause: EndCause, outside: &mut Outside<'_>) {
        match self.shard.wait_of(conn) {
            Wait::Gate => outside.truth.count(situation::ENDS_BEFORE_GATE),
            Wait::Registry => outside.truth.count(situation::ENDS_BEFORE_REGISTRY),
            Wait::Backend => outside.truth.count(situation::ENDS_BEFORE_BACKEND),
            Wait::Nothing | Wait::Key | Wait::Owners => {}
        }
        self.shard.handle_ended(outside.now, conn, cause);
    }

    /// The kernel takes some of a batch that a connection owns, or gives it up.
    fn complete_owned(&mut self, slot: u32, outside: &mut Outside<'_>) {
        let Some(socket) = &mut self.sockets[slot as usize] else {
            return;
        };
        let Some(bytes) = &socket.owned else { return };
        let link = &mut outside.links[socket.link];
        let aborted = socket.closing.is_some();
        let result = if link.up_reset || aborted && self.rng.below(2) == 0 {
            Err(SendFailed)
        } else if aborted {
            Ok(self.rng.below(bytes.len() as u64 + 1) as usize)
        } else if link.room() > 0 && (outside.calm || self.rng.below(3) > 0) {
            let most = link.room().min(bytes.len());
            let cut = !outside.calm && self.rng.below(3) == 0;
            Ok(if cut {
                1 + self.rng.below(most as u64) as usize
            } else {
                most
            })
        } else {
            return;
        };
        let bytes = socket.owned.take().expect("it is there");
        if let Ok(taken) = result {
            outside.hash.write(&bytes[..taken]);
            link.down.extend_from_slice(&bytes[..taken]);
        }
        self.shard
            .handle_sent(outside.now, socket.conn, SendBatch::Owned(bytes), result);
    }

    /// Takes outputs slice by slice. Returns whether some may be left.
    fn flush(&mut self, outside: &mut Outside<'_>) -> bool {
        let mut first = true;
        loop {
            let most = [1, 4, 64][self.rng.below(3) as usize];
            let slice = 1 + self.rng.below(most) as usize;
            let mut ring = Vec::new();
            let mut polled = 0;
            while polled < slice
                && let Some(output) = self.shard.poll_output()
            {
                polled += 1;
                self.take(output, &mut ring, outside);
            }
            // `handle_flushed` may bring outputs: the loop ends when a flush has brought none.
            if polled == 0 && !first {
                return false;
            }
            first = false;
            for (conn, range) in ring {
                self.send_ring(conn, range, outside);
            }
            self.shard.handle_flushed(outside.now);
            if self.shard.remembers_empty_rings() {
                outside.truth.count(situation::REMEMBERS_EMPTY_RINGS);
            }
            if !outside.calm && self.rng.below(8) == 0 {
                return true;
            }
        }
    }

    fn take(
        &mut self,
        output: Output,
        ring: &mut Vec<(ConnId, RingRange)>,
        outside: &mut Outside<'_>,
    ) {
        match output {
            Output::Transmit { conn, batch } => {
                let socket = self.sockets[conn.slot as usize]
                    .as_mut()
                    .expect("a transmit names an open socket");
                assert_eq!(
                    socket.conn, conn,
                    "a transmit names a connection that is there"
                );
                assert!(
                    socket.owned.is_none(),
                    "one owned batch at a time, and nothing beside it"
                );
                assert!(socket.closing.is_none(), "nothing is sent after close");
                assert!(
                    ring.iter().all(|&(other, _)| other != conn),
                    "one send for a connection in one slice"
                );
                match batch {
                    SendBatch::Ring(range) => {
                        assert!(range.len > 0, "an empty send");
                        ring.push((conn, range));
                    }
                    SendBatch::Owned(bytes) => {
                        assert!(!bytes.is_empty(), "an empty send");
                        socket.owned = Some(bytes);
                    }
                }
            }
            Output::Close { conn, how } => {
                let socket = self.sockets[conn.slot as usize]
                    .as_mut()
                    .expect("a close names an open socket");
                assert_eq!(
                    socket.conn, conn,
                    "a close names a connection that is there"
                );
                assert!(socket.closing.is_none(), "closed twice");
                assert!(
                    how == Close::Abort || socket.owned.is_none(),
                    "finished before everything was sent"
                );
                assert!(
                    how == Close::Abort || ring.iter().all(|&(other, _)| other != conn),
                    "finished before everything was sent"
                );
                socket.closing = Some((how, self.rng.below(4)));
            }
            Output::HalfClose(conn) => {
                let socket = self.sockets[conn.slot as usize].as_ref();
                let socket = socket.expect("a half close names an open socket");
                assert!(socket.owned.is_none(), "closed before everything was sent");
                assert!(ring.iter().all(|&(other, _)| other != conn));
                outside.links[socket.link].down_fin = true;
            }
            Output::Pause(conn) => {
                let late = self.rng.below(3);
                let paused = self.paused(conn).replace(late);
                assert!(paused.is_none(), "paused twice");
            }
            Output::Resume(conn) => {
                assert!(self.paused(conn).take().is_some(), "not paused");
            }
            Output::Wake(shard) => outside.wakes.push(shard),
            Output::Patience(conn, _) => {
                self.paused(conn);
            }
            Output::Report(FromShard::Drained(_, outcome)) => {
                assert!(self.drained.replace(outcome).is_none(), "drained twice");
                assert!(
                    outcome.unacked == 0 || Some(outside.now.at) >= outside.drained_by,
                    "{} publications are given up before their time",
                    outcome.unacked
                );
            }
            Output::Report(FromShard::KeysWanted(_, source)) => {
                let shard = usize::from(self.shard.id().0);
                outside.keys.ask(outside.now, shard, source, outside.truth);
            }
            Output::Report(_) => {}
            Output::Call(call) => {
                let shard = usize::from(self.shard.id().0);
                outside.backend.ask(outside.now, shard, call, outside.truth);
            }
            Output::Log(request) => outside.log.ask(
                outside.now,
                self.shard.id(),
                request,
                outside.truth,
                outside.calm,
            ),
        }
    }

    fn paused(&mut self, conn: ConnId) -> &mut Option<u64> {
        let socket = self.sockets[conn.slot as usize]
            .as_mut()
            .expect("a pause names an open socket");
        assert_eq!(
            socket.conn, conn,
            "a pause names a connection that is there"
        );
        assert!(socket.closing.is_none(), "nothing is paused after close");
        &mut socket.paused
    }

    /// The kernel takes a batch out of the ring: all, some, or none.
    fn send_ring(&mut self, conn: ConnId, range: RingRange, outside: &mut Outside<'_>) {
        let socket = self.sockets[conn.slot as usize]
            .as_mut()
            .expect("a socket lives until its operations are done");
        let link = &mut outside.links[socket.link];
        if link.up_reset && self.rng.below(2) == 0 {
            self.shard
                .handle_sent(outside.now, conn, SendBatch::Ring(range), Err(SendFailed));
            return;
        }
        let mut taken = link.room().min(range.len as usize);
        if !outside.calm && self.rng.below(16) == 0 {
            taken = self.rng.below(taken as u64 + 1) as usize;
        }
        let bytes = &self.shard.ring_bytes(range)[..taken];
        outside.hash.write(bytes);
        link.down.extend_from_slice(bytes);
        if taken < range.len as usize {
            self.shard
                .handle_sent(outside.now, conn, SendBatch::Ring(range), Ok(taken));
        }
    }
}
