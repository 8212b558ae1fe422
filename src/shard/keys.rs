//! Commands whose token names a key that is not known yet: they wait until control has asked the service that publishes
//! the keys, and are handled again then.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::Shard;
use super::connection::Due;
use crate::config::keys::{KeySet, KeySource};
use crate::limits::{KEY_WAITS_BYTES_MAX, KEY_WAITS_MAX};
use crate::mesh::control::FromShard;
use crate::model::ConnId;
use crate::protocol::command::Command;
use crate::session::KeyWanted;
use crate::session::shares::{Holders, Shares};
use crate::time::Instant;

/// Control answers much earlier, unless it is stuck: then the keys count as unavailable.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Commands handled again in one turn: each verifies a signature.
const RESUMED_PER_TURN: usize = 32;

/// See the module.
pub(super) struct KeyWaits {
    /// By source.
    sources: [Waiting; KeySource::ALL.len()],
    /// Answered; what waits is handled again.
    answered: VecDeque<Parked>,
    /// Nobody may be all of those who wait.
    shares: Shares,
    /// Of all commands that wait.
    pub(super) bytes: usize,
}

impl Default for KeyWaits {
    fn default() -> Self {
        Self {
            sources: Default::default(),
            answered: VecDeque::new(),
            shares: Shares::new(KEY_WAITS_MAX, KEY_WAITS_BYTES_MAX),
            bytes: 0,
        }
    }
}

/// A connection and the command that waits.
struct Parked {
    conn: ConnId,
    command: Box<Command<'static>>,
    /// What was asked for; `None` once nothing follows from its absence.
    wanted: Option<KeyWanted>,
    /// Of the command, and who has a share in it.
    bytes: usize,
    holders: Holders,
}

#[derive(Default)]
struct Waiting {
    /// One entry for each connection that waits.
    connections: Vec<Parked>,
    /// Control was asked; when it is given up.
    until: Option<Instant>,
}

impl KeyWaits {
    /// When control is given up.
    pub(super) fn next(&self) -> Option<Instant> {
        self.sources.iter().filter_map(|source| source.until).min()
    }

    pub(super) fn has_answers(&self) -> bool {
        !self.answered.is_empty()
    }

    /// Can one more wait whose command has so many bytes?
    fn has_room(&self, bytes: usize) -> bool {
        self.len() < KEY_WAITS_MAX && self.bytes + bytes <= KEY_WAITS_BYTES_MAX
    }

    /// Bytes of the commands that wait.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Connections that wait.
    pub(super) fn len(&self) -> usize {
        let waiting = self.sources.iter().map(|source| source.connections.len());
        waiting.sum::<usize>() + self.answered.len()
    }
}

impl Shard {
    /// A connection's command waits for a key. Control is asked once for everybody who waits.
    pub(super) fn wait_for_key(&mut self, slot: u32, wanted: KeyWanted, command: Command<'_>) {
        let generation = self.connections.generation(slot);
        let prefix = self.people.prefix_at(slot);
        let Some(connection) = self.connections.at_mut(slot) else {
            return;
        };
        let conn = ConnId { slot, generation };
        let bytes = command.weight();
        let whose = connection.session.whose(conn, prefix);
        let has_room = self.key_waits.has_room(bytes);
        let shares = &mut self.key_waits.shares;
        let holders = has_room.then(|| shares.take_kept(&whose, bytes));
        let Some(holders) = holders.flatten() else {
            self.with_session(slot, |session, context| {
                session.cannot_be_decided(context, &command);
            });
            return;
        };
        let Some(connection) = self.connections.at_mut(slot) else {
            return;
        };
        connection.is_parked = true;
        self.key_waits.bytes += bytes;
        self.counters.commands = self.counters.commands.saturating_sub(1);
        self.counters.key_waits += 1;
        let source = wanted.source;
        let waiting = &mut self.key_waits.sources[source as usize];
        waiting.connections.push(Parked {
            conn,
            command: Box::new(command.into_owned()),
            wanted: Some(wanted),
            bytes,
            holders,
        });
        if waiting.until.is_none() {
            waiting.until = Some(self.now.at + ANSWER_TIMEOUT);
            self.reports
                .push_back(FromShard::KeysWanted(self.id, source));
        }
    }

    /// Control has fetched keys, or could not.
    pub(super) fn keys_answered(&mut self, source: KeySource, set: Option<&Arc<KeySet>>) {
        self.people.keys_answered(source, set, self.now);
        let is_fetched = set.is_some();
        if is_fetched {
            self.counters.key_sets += 1;
        } else {
            self.counters.key_set_failures += 1;
        }
        let waiting = &mut self.key_waits.sources[source as usize];
        waiting.until = None;
        let answered = std::mem::take(&mut waiting.connections);
        self.wait_no_more(answered, is_fetched);
    }

    fn wait_no_more(&mut self, parked: Vec<Parked>, is_fetched: bool) {
        self.key_waits
            .answered
            .extend(parked.into_iter().map(|parked| Parked {
                wanted: parked.wanted.filter(|_| is_fetched),
                ..parked
            }));
    }

    /// Other keys, or another service: everybody who waits is handled again.
    pub(super) fn keys_replaced(&mut self) {
        for source in KeySource::ALL {
            let waiting = &mut self.key_waits.sources[source as usize];
            waiting.until = None;
            let parked = std::mem::take(&mut waiting.connections);
            self.wait_no_more(parked, false);
        }
    }

    /// Control is given up where it has not answered in time.
    pub(super) fn keys_overdue(&mut self) {
        for source in KeySource::ALL {
            let until = self.key_waits.sources[source as usize].until;
            if until.is_some_and(|until| until <= self.now.at) {
                self.keys_answered(source, None);
            }
        }
    }

    /// Handles some of what waited again.
    pub(super) fn resume_parked(&mut self) {
        for _ in 0..RESUMED_PER_TURN {
            if self.is_full() {
                return;
            }
            let Some(parked) = self.key_waits.answered.pop_front() else {
                return;
            };
            if let Some(wanted) = &parked.wanted {
                self.people.refuse_if_unknown(wanted, self.now);
            }
            let ConnId { slot, generation } = parked.conn;
            let connection = self.connections.current(slot, generation);
            let is_parked = connection.is_some_and(|connection| connection.is_parked);
            let waits = is_parked.then(|| {
                self.with_session(slot, |session, context| {
                    session.must_wait(context, &parked.command)
                })
            });
            if waits.flatten() == Some(true) {
                self.key_waits.answered.push_back(parked);
                continue;
            }
            let waits = &mut self.key_waits;
            waits.shares.give_kept(&parked.holders, parked.bytes);
            waits.bytes -= parked.bytes;
            if !is_parked {
                continue;
            }
            if let Some(connection) = self.connections.at_mut(slot) {
                connection.is_parked = false;
                connection.due.add(Due::TIME.and(Due::TURN));
            }
            self.command(slot, Ok(*parked.command));
            self.after(slot);
            self.settle();
        }
    }
}
