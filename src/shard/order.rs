//! Frames of commands, in order: those that can be carried out are, the rest waits in the session (`session/order`) and goes on when
//! the replies before it are there.

use std::time::Duration;

use super::connection::{Connection, State};
use super::connections::paces;
use super::{Handled, Shard};
use crate::limits::WAITING_BYTES_SHARD_MAX;
use crate::mem::{Bucket, TimerWheel, Whose};
use crate::model::{ConnId, Encoding};
use crate::protocol::command::{Body, Command};
use crate::protocol::disconnect::Disconnect;
use crate::session::Phase;
use crate::speaker::verbs;

/// Commands of one frame that are carried out before others have their turn: a frame has room for thousands.
pub(super) const COMMANDS_AT_ONCE: usize = 64;
/// Commands that are taken up again in one turn, frames without any and decisions counted as one.
pub(super) const TAKEN_PER_TURN: usize = 128;
/// What a peer that says no more has asked for is carried out within this time.
const ENDED_TIMEOUT: Duration = Duration::from_secs(30);

/// Steps in which address prefixes are counted what waits of theirs: not at every frame.
const COUNTED_STEP: usize = 16 << 10;

const fn counted(bytes: usize) -> usize {
    bytes.next_multiple_of(COUNTED_STEP)
}

/// Where the commands of a frame have come to.
enum Stopped {
    /// All are carried out, or the session is over.
    Over,
    /// The command that begins here has to wait.
    At(usize),
    /// The command that begins here comes when others have had their turn.
    Enough(usize),
}

impl Shard {
    /// The commands of one frame, strictly in order.
    pub(super) fn commands(&mut self, slot: u32, frame: &[u8]) {
        let connection = self.connections.of_mut(slot);
        let session = &connection.session;
        let is_connected = session.phase == Phase::Connected;
        if !session.format.speaker.converses() && session.phase != Phase::Fresh {
            // It has said who it is; the rest is read past.
            return;
        }
        let waits = session.has_frames();
        if (waits || is_connected && !connection.can_answer())
            && is_pong(session.format.encoding, frame)
        {
            let pong = Command {
                id: 0,
                body: Body::Pong,
            };
            self.command(slot, Ok(pong));
            return;
        }
        if waits {
            self.keep_frame(slot, frame);
            return;
        }
        match self.carry_out(slot, frame, COMMANDS_AT_ONCE).0 {
            Stopped::Over => {}
            Stopped::At(at) => self.keep_frame(slot, &frame[at..]),
            Stopped::Enough(at) => {
                self.keep_frame(slot, &frame[at..]);
                self.ready.push_back(self.connections.id(slot));
            }
        }
    }

    /// Keeps a frame behind those that wait.
    pub(super) fn keep_frame(&mut self, slot: u32, frame: &[u8]) {
        let connection = self.connections.of_mut(slot);
        let session = &mut connection.session;
        let before = session.waiting_bytes();
        session.push_frame(&mut self.spares, frame.to_vec());
        let after = session.waiting_bytes();
        self.count_waiting(slot, before, after);
    }

    /// So much waits on this shard, or there of this one's address prefix, that nothing is read behind what waits of this one.
    pub(super) fn waits_enough(&self, slot: u32) -> bool {
        let waits = |one: &Connection| one.session.has_frames();
        // Below this nobody has all of a part that is shared.
        if self.waiting_bytes < WAITING_BYTES_SHARD_MAX / 2 || !waits(self.connections.of(slot)) {
            return false;
        }
        self.waiting_bytes >= WAITING_BYTES_SHARD_MAX
            || self.waiting_shares.is_used_up(&self.who_waits(slot))
    }

    /// A user is not counted: what waits may stand behind the connect command that says who it is.
    pub(super) fn who_waits(&self, slot: u32) -> Whose<'static> {
        Whose {
            conn: self.connections.id(slot),
            user: "",
            from: self.people.prefix_at(slot),
        }
    }

    /// What waits of a session was so much, and is so much now.
    fn count_waiting(&mut self, slot: u32, before: usize, after: usize) {
        self.waiting_bytes = self.waiting_bytes + after - before;
        let (before, after) = (counted(before), counted(after));
        if before != after {
            let whose = self.who_waits(slot);
            self.waiting_shares.change(&whose, before, after);
        }
    }

    /// A session ends with what waits of it.
    pub(super) fn forget_waiting(&mut self, slot: u32) {
        let waiting = self.connections.of(slot).session.waiting_bytes();
        self.count_waiting(slot, waiting, 0);
    }

    /// Carries out the commands of a frame until one has to wait, or so many are. Says how many that were.
    fn carry_out(&mut self, slot: u32, frame: &[u8], most: usize) -> (Stopped, usize) {
        let connection = self.connections.of(slot);
        let mut commands = verbs(connection.session.format, frame);
        let mut done = 0;
        while let Some(rest) = commands.rest() {
            let at = frame.len() - rest.len();
            let connection = self.connections.of(slot);
            if !connection.can_answer() {
                let stopped = match connection.state {
                    State::Open | State::Waiting => Stopped::At(at),
                    _ => Stopped::Over,
                };
                return (stopped, done);
            }
            if done == most {
                return (Stopped::Enough(at), done);
            }
            let Some(command) = commands.next() else {
                return (Stopped::Over, done);
            };
            match self.command(slot, command) {
                Handled::Done => done += 1,
                Handled::Waits => return (Stopped::At(at), done),
                Handled::Ended => return (Stopped::Over, done),
            }
        }
        (Stopped::Over, done)
    }

    /// Handles one command.
    pub(super) fn command(
        &mut self,
        slot: u32,
        command: Result<Command<'_>, Disconnect>,
    ) -> Handled {
        let result = match command {
            Ok(command) if self.is_barred(slot, &command) => {
                self.counters.tokens_not_looked_at += 1;
                Err(Disconnect::TooManyRequests)
            }
            Ok(command) => {
                let paced = self.take_command(slot, &command);
                let result = self.with_session(slot, |session, context| {
                    if session.must_wait(context, &command) {
                        return None;
                    }
                    if let Err(wait) = paced {
                        session.too_fast(context, &command, wait);
                        return Some(Ok(()));
                    }
                    Some(session.command(context, &command))
                });
                // It is looked at again, and counts then.
                let comes_again = result.is_none() || self.key_wanted.is_some();
                if let (Ok(Some(before)), true) = (paced, comes_again) {
                    self.connections.put_command(slot, before);
                }
                if let Some(wanted) = self.key_wanted.take() {
                    self.wait_for_key(slot, wanted, command);
                    return Handled::Done;
                }
                match result {
                    None => return Handled::Waits,
                    Some(result) => result,
                }
            }
            Err(disconnect) => Err(disconnect),
        };
        if let Err(disconnect) = result {
            self.disconnect(slot, &disconnect);
            return Handled::Ended;
        }
        self.answer_own();
        Handled::Done
    }

    /// Counts a command against `client.command_rate`. A pong answers what the server asked and counts for none, nor does the second
    /// half of a long poll. Says what there was before; `None` without a limit.
    fn take_command(
        &mut self,
        slot: u32,
        command: &Command<'_>,
    ) -> Result<Option<Bucket>, Duration> {
        let Some(pace) = paces::of_commands(&self.config.client) else {
            return Ok(None);
        };
        let connection = self.connections.of(slot);
        let is_free = matches!(command.body, Body::Pong | Body::Send { .. })
            || connection.is_poll() && connection.session.phase != Phase::Fresh;
        if is_free {
            return Ok(None);
        }
        (self.connections.take_command(slot, self.now.at, pace)).map(Some)
    }

    /// The token of this command is not looked at.
    fn is_barred(&self, slot: u32, command: &Command<'_>) -> bool {
        let brings_token = match &command.body {
            Body::Connect(connect) => !connect.token.is_empty(),
            _ => false,
        };
        brings_token && (self.people).is_offender(&self.config.client, slot, self.now.at)
    }

    /// Sessions whose turn has come go on, as far as this turn's share reaches.
    pub(super) fn take_up_ready(&mut self) {
        while self.taken < TAKEN_PER_TURN
            && !self.is_full()
            && let Some(conn) = self.ready.pop_front()
        {
            let most = COMMANDS_AT_ONCE.min(TAKEN_PER_TURN - self.taken);
            self.taken += self.take_up(conn, most).max(1);
        }
    }

    /// This turn's share did not reach for all who may go on: the next turn comes at once.
    pub(super) fn has_more_ready(&self) -> bool {
        self.taken >= TAKEN_PER_TURN && !self.ready.is_empty()
    }

    /// The peer says no more: what it has asked for is still carried out, and then the connection ends. Pings have no answer.
    pub(super) fn end_later(&mut self, slot: u32) {
        let connection = self.connections.of_mut(slot);
        if std::mem::replace(&mut connection.has_ended, true) {
            return;
        }
        connection.session.next = 0;
        connection.session.pong_by = 0;
        let by = TimerWheel::tick_after(self.now.at, ENDED_TIMEOUT);
        self.connections.set_deadline(slot, by);
    }

    /// The peer is gone. True if something is left to be carried out: it had said that no more comes, or its commands came in
    /// requests of their own, which were answered.
    pub(super) fn goes_on_alone(&mut self, slot: u32) -> bool {
        let connection = self.connections.of(slot);
        let goes_on = (connection.has_ended || connection.is_stream())
            && connection.is_session
            && matches!(connection.state, State::Open | State::Waiting)
            && connection.is_unfinished();
        if goes_on {
            self.end_later(slot);
        }
        goes_on
    }

    /// A session whose peer says no more ends when nothing is left to be carried out.
    pub(super) fn end_of_commands(&mut self, slot: u32) {
        let is_over = |connection: &Connection| {
            connection.has_ended
                && connection.is_session
                && connection.state == State::Open
                && !connection.is_unfinished()
        };
        if is_over(self.connections.of(slot)) {
            self.finish(slot);
        }
    }

    /// One session goes on: with the decision about its oldest command, else with its oldest frame, else with input that was not read.
    /// Where it has ended since its turn was marked, nothing does. Says how many commands of a frame were carried out, which are
    /// not more than `most`.
    pub(super) fn take_up(&mut self, conn: ConnId, most: usize) -> usize {
        let slot = conn.slot;
        let Some(connection) = self.connections.current_mut(slot, conn.generation) else {
            return 0;
        };
        if !connection.is_session || !connection.can_answer() {
            return 0;
        }
        let session = &mut connection.session;
        if let Some(answer) = session.take_decision() {
            self.decided(conn, answer);
            return 0;
        }
        let before = session.waiting_bytes();
        let Some(mut frame) = session.pop_frame() else {
            session.forget_order(&mut self.spares);
            self.resume(slot);
            return 0;
        };
        let after = session.waiting_bytes();
        self.count_waiting(slot, before, after);
        let (stopped, done) = self.carry_out(slot, &frame.bytes[frame.at..], most);
        let connection = self.connections.of_mut(slot);
        match stopped {
            Stopped::At(at) | Stopped::Enough(at) => {
                frame.at += at;
                let session = &mut connection.session;
                let before = session.waiting_bytes();
                session.put_back(&mut self.spares, frame);
                let after = session.waiting_bytes();
                self.count_waiting(slot, before, after);
                if matches!(stopped, Stopped::Enough(_)) {
                    self.ready.push_back(conn);
                }
            }
            // The next frame, or what was not read, in the same way.
            Stopped::Over
                if connection.session.has_frames()
                    || connection.held.is_some()
                    || connection.has_ended =>
            {
                self.ready.push_back(conn);
            }
            Stopped::Over => connection.session.forget_order(&mut self.spares),
        }
        done
    }
}

/// A pong waits for nothing, also where it comes behind commands that do.
fn is_pong(encoding: Encoding, frame: &[u8]) -> bool {
    match encoding {
        Encoding::Json => frame.trim_ascii() == b"{}",
        Encoding::Protobuf => frame == [0],
    }
}
