//! The connections and their bytes: a record for each socket, what goes out to it, what of its input is unfinished, when its time
//! has come. A room of the shard: what a session says and means is not known here.
//!
//! The record of a connection (`shard/connection`) is handed out; what all of them share (rings, queues, counts, the wheel) is not.

mod image;
mod input;
mod leave_out;
mod outbox;
pub(super) mod paces;
mod rings;
mod time;

use std::collections::VecDeque;
use std::sync::Arc;

use super::connection::{Connection, Due, State};
use crate::mem::{Slab, Tick, TimerWheel};
use crate::model::{ConnId, Weights};
use crate::time::Instant;
use crate::wire::websocket::Inflater;
pub(super) use input::Holds;
pub(super) use leave_out::{Left, Shed};
pub(super) use outbox::NextSend;
use outbox::Outbox;
use paces::Paces;
pub(super) use time::Fired;

/// See the module. A slot is the reactor's number for a socket, and is given again only after its connection was removed.
pub(super) struct Connections {
    slab: Slab<Connection>,
    outbox: Outbox,
    wheel: TimerWheel,
    /// Of the wheel: a tick, and the slots that are still to be looked at.
    fired: (Tick, Vec<u32>),
    /// What clients send is inflated by this, where they have none of their own.
    inflater: Inflater,
    /// Bytes of unfinished input that all of them hold.
    input_bytes: usize,
    /// When somebody was told last that they have reached their bound.
    input_told: Option<Instant>,
    /// Those whose answers may all be with the kernel after the next flush, if they are not yet.
    owing: Vec<ConnId>,
    /// Those whose answers are sent and whose next request is to be taken.
    taken: VecDeque<ConnId>,
    /// How fast each sends.
    paces: Paces,
}

impl Connections {
    /// None yet. The rings have so many bytes: of what many get, and of what one gets.
    pub(super) fn new(
        shared_bytes: u32,
        own_bytes: u32,
        inflater: Inflater,
        weights: &Arc<Weights>,
    ) -> Self {
        Self {
            slab: Slab::default(),
            outbox: Outbox::new(shared_bytes, own_bytes, weights),
            wheel: TimerWheel::default(),
            fired: (0, Vec::new()),
            inflater,
            input_bytes: 0,
            input_told: None,
            owing: Vec::new(),
            taken: VecDeque::new(),
            paces: Paces::default(),
        }
    }

    /// A new configuration.
    pub(super) fn reload(&mut self, inflater: Inflater, weights: &Arc<Weights>) {
        self.inflater = inflater;
        self.outbox.dirty.reload(weights);
    }

    pub(super) const fn len(&self) -> usize {
        self.slab.len()
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.slab.is_empty()
    }

    /// All of them with their slots, in slot order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &Connection)> {
        self.slab.iter()
    }

    /// The connection in a slot that has one: whoever is at work on a connection knows that it is there until its socket is gone.
    ///
    /// # Panics
    /// If the slot is empty.
    #[track_caller]
    pub(super) fn of(&self, slot: u32) -> &Connection {
        self.slab.of(slot)
    }

    /// The same, to change it.
    ///
    /// # Panics
    /// If the slot is empty.
    #[track_caller]
    pub(super) fn of_mut(&mut self, slot: u32) -> &mut Connection {
        self.slab.of_mut(slot)
    }

    /// The connection in a slot, if there is one, whichever it is.
    pub(super) fn at(&self, slot: u32) -> Option<&Connection> {
        self.slab.at(slot)
    }

    /// The connection, unless it is gone.
    pub(super) fn current(&self, slot: u32, generation: u32) -> Option<&Connection> {
        self.slab.current(slot, generation)
    }

    /// The connection, unless it is gone.
    pub(super) fn current_mut(&mut self, slot: u32, generation: u32) -> Option<&mut Connection> {
        self.slab.current_mut(slot, generation)
    }

    /// Generation of the connection in a slot.
    pub(super) fn generation(&self, slot: u32) -> u32 {
        self.slab.generation(slot)
    }

    /// The name of the connection in a slot.
    pub(super) fn id(&self, slot: u32) -> ConnId {
        ConnId {
            slot,
            generation: self.slab.generation(slot),
        }
    }

    /// Something is to be done about a connection.
    pub(super) fn mark(&mut self, slot: u32, due: Due) {
        self.slab.of_mut(slot).due.add(due);
    }

    /// A socket was accepted.
    ///
    /// # Panics
    /// If its slot is taken.
    pub(super) fn insert(&mut self, slot: u32, connection: Connection) -> ConnId {
        debug_assert!(
            connection.is_sent() && connection.held.is_none(),
            "it is new"
        );
        let generation = self.slab.insert_at(slot, connection);
        ConnId { slot, generation }
    }

    /// The socket is gone.
    ///
    /// # Panics
    /// If the slot is empty. Its input must have been forgotten.
    pub(super) fn remove(&mut self, slot: u32) -> Connection {
        let Some(connection) = self.slab.remove(slot) else {
            unreachable!("a socket goes once");
        };
        debug_assert_eq!(connection.input_bytes(), 0, "its input was forgotten");
        self.forget_pace(slot);
        connection
    }

    /// Answers of this connection are on their way, and its next request is taken once they are sent.
    pub(super) fn owe(&mut self, slot: u32) {
        let id = self.id(slot);
        debug_assert_eq!(self.of(slot).state, State::Owing);
        self.owing.push(id);
    }

    /// Everything polled so far is with the kernel: the next requests of those who have all their answers are taken.
    pub(super) fn answers_sent(&mut self) {
        let (slab, taken) = (&mut self.slab, &mut self.taken);
        self.owing.retain(|conn| {
            let Some(connection) = slab.current_mut(conn.slot, conn.generation) else {
                return false;
            };
            if connection.state != State::Owing {
                return false;
            }
            if connection.is_sent() {
                taken.push_back(*conn);
                return false;
            }
            // Where the kernel did not take all, the end of what it was given then is awaited (`handle_sent`).
            !connection.is_sending && connection.backlog.is_none()
        });
    }

    /// Somebody's next request is to be taken.
    pub(super) fn has_taken(&self) -> bool {
        !self.taken.is_empty()
    }

    /// The next one whose request is to be taken, if it is still there and still has its answers.
    pub(super) fn next_taken(&mut self) -> Option<Option<u32>> {
        let ConnId { slot, generation } = self.taken.pop_front()?;
        let Some(connection) = self.slab.current_mut(slot, generation) else {
            return Some(None);
        };
        if connection.state != State::Owing || !connection.is_sent() {
            return Some(None);
        }
        connection.state = State::Head;
        Some(Some(slot))
    }
}
