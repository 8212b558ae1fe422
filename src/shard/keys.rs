//! Commands whose token names a key that is not known yet: they wait until control has asked the service that publishes
//! the keys, and are handled again then.

mod image;

use std::collections::VecDeque;
use std::sync::Arc;

use super::Shard;
use super::connection::Due;
use crate::config::keys::{KeySet, KeySource};
use crate::limits::{CONTROL_TIMEOUT, KEY_WAITS_BYTES_MAX, KEY_WAITS_MAX};
use crate::mem::SharedAsks;
use crate::mesh::control::FromShard;
use crate::model::{AskId, ConnId};
use crate::protocol::command::{Body, Command};
use crate::protocol::error::ClientError;
use crate::session::KeyWanted;
use crate::time::Instant;

/// Commands handled again in one turn: each verifies a signature.
pub(super) const RESUMED_PER_TURN: usize = 32;

/// See the module.
pub(super) struct KeyWaits {
    /// Empty only while one is looked at.
    parked: SharedAsks<Option<Parked>>,
    /// Those that wait for control, by source: it was asked when the first one came.
    waiting: Vec<(KeySource, Vec<AskId>)>,
    /// Those that control has answered: they are handled again.
    answered: VecDeque<AskId>,
}

impl Default for KeyWaits {
    fn default() -> Self {
        Self {
            parked: SharedAsks::new(KEY_WAITS_MAX as u32, KEY_WAITS_BYTES_MAX),
            waiting: Vec::new(),
            answered: VecDeque::new(),
        }
    }
}

/// A connection and the command that waits.
struct Parked {
    conn: ConnId,
    command: Box<Command<'static>>,
    source: KeySource,
    /// What was asked for; `None` once nothing follows from its absence.
    wanted: Option<KeyWanted>,
}

impl KeyWaits {
    /// When control is given up.
    pub(super) fn next_at(&self) -> Option<Instant> {
        self.parked.next_at()
    }

    pub(super) fn has_answers(&self) -> bool {
        !self.answered.is_empty()
    }

    /// Connections that wait.
    pub(super) const fn len(&self) -> usize {
        self.parked.len()
    }

    /// Bytes of all commands that wait.
    pub(super) const fn bytes(&self) -> usize {
        self.parked.bytes()
    }

    /// Others hold so many bytes.
    #[cfg(test)]
    pub(super) fn fill(&mut self, bytes: usize) {
        let never = Instant(u64::MAX);
        (self.parked.open(never, None, bytes, None)).expect("there is room");
    }

    /// Whoever waits for a source does so no more.
    fn answered(&mut self, source: &KeySource, is_fetched: bool) {
        let Some(at) = self.waiting.iter().position(|(of, _)| of == source) else {
            return;
        };
        for id in self.waiting.swap_remove(at).1 {
            let Some(Some(parked)) = self.parked.hold(id) else {
                unreachable!("who waits is parked until it is handled again");
            };
            parked.wanted.take_if(|_| !is_fetched);
            self.answered.push_back(id);
        }
    }

    /// One that was answered, to look at it; its place stays.
    fn take(&mut self, id: AskId) -> Parked {
        let parked = self.parked.kept_mut(id).and_then(Option::take);
        let Some(parked) = parked else {
            unreachable!("who is answered is parked until it is handled again");
        };
        parked
    }

    /// It cannot be handled yet.
    fn put_back(&mut self, id: AskId, parked: Parked) {
        let Some(place) = self.parked.kept_mut(id) else {
            unreachable!("its place stayed");
        };
        assert!(place.is_none(), "it was taken");
        *place = Some(parked);
        self.answered.push_back(id);
    }
}

impl Shard {
    /// A connection's command waits for a key. Control is asked once for everybody who waits.
    pub(super) fn wait_for_key(&mut self, slot: u32, wanted: KeyWanted, command: Command<'_>) {
        let generation = self.connections.generation(slot);
        let prefix = self.people.prefix_at(slot);
        let connection = self.connections.of_mut(slot);
        let conn = ConnId { slot, generation };
        let (id, connects) = (command.id, matches!(command.body, Body::Connect(_)));
        let bytes = command.weight();
        let whose = connection.session.whose(conn, prefix);
        let source = wanted.source.clone();
        let parked = Some(Parked {
            conn,
            command: Box::new(command.into_owned()),
            source: source.clone(),
            wanted: Some(wanted),
        });
        let until = self.now.at + CONTROL_TIMEOUT;
        let parked = (self.key_waits.parked).open(until, Some(&whose), bytes, parked);
        let Ok(parked) = parked else {
            self.with_session(slot, |session, context| {
                session.turn_away(context, (id, connects), ClientError::Internal);
            });
            return;
        };
        connection.is_parked = true;
        self.counters.commands = self.counters.commands.saturating_sub(1);
        self.counters.key_waits += 1;
        let waiting = &mut self.key_waits.waiting;
        match waiting.iter_mut().find(|(of, _)| *of == source) {
            Some((_, waiting)) => waiting.push(parked),
            None => {
                waiting.push((source.clone(), vec![parked]));
                self.reports
                    .push_back(FromShard::KeysWanted(self.id, source));
            }
        }
    }

    /// Control has fetched keys, or could not.
    pub(super) fn keys_answered(&mut self, source: &KeySource, set: Option<&Arc<KeySet>>) {
        self.people.keys_answered(source, set, self.now);
        if set.is_some() {
            self.counters.key_sets += 1;
        } else {
            self.counters.key_set_failures += 1;
        }
        self.key_waits.answered(source, set.is_some());
    }

    /// Other keys, or another service: everybody who waits is handled again.
    pub(super) fn keys_replaced(&mut self) {
        while let Some((source, _)) = self.key_waits.waiting.first() {
            let source = source.clone();
            self.key_waits.answered(&source, false);
        }
    }

    /// Control is given up where it has not answered in time.
    pub(super) fn keys_overdue(&mut self) {
        while let Some((_, parked)) = self.key_waits.parked.next_late(self.now.at) {
            let Some(parked) = parked else {
                unreachable!("nobody is looked at now");
            };
            let source = parked.source.clone();
            self.counters.asks_overdue += 1;
            self.keys_answered(&source, None);
        }
    }

    /// Handles some of what waited again.
    pub(super) fn resume_parked(&mut self) {
        for _ in 0..RESUMED_PER_TURN {
            if self.is_full() {
                return;
            }
            let Some(id) = self.key_waits.answered.pop_front() else {
                return;
            };
            let parked = self.key_waits.take(id);
            if let Some(wanted) = &parked.wanted {
                self.people.refuse_if_unknown(wanted, self.now);
            }
            let ConnId { slot, generation } = parked.conn;
            let connection = self.connections.current(slot, generation);
            let is_parked = connection.is_some_and(|connection| connection.is_parked);
            let waits = is_parked
                && self.with_session(slot, |session, context| {
                    session.must_wait(context, &parked.command)
                });
            if waits {
                self.key_waits.put_back(id, parked);
                continue;
            }
            self.key_waits.parked.close(id);
            if !is_parked {
                continue;
            }
            let connection = self.connections.of_mut(slot);
            connection.is_parked = false;
            connection.due.add(Due::TIME.and(Due::TURN));
            self.command(slot, Ok(*parked.command));
            self.after(slot);
            self.settle();
        }
    }
}
