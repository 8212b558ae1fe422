//! One socket of the portable reactor, and the table of all.

use std::cell::Cell;
use std::future::{Future as _, poll_fn};
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;

use super::Source;
use crate::model::ConnId;
use crate::reactor::doorbell::LocalBell;
use crate::reactor::fair::Weight;
use crate::shard::{Close, SendFailed};
use crate::uring::socket;

/// A socket and the tasks that use it.
pub(super) struct Connection {
    pub(super) conn: ConnId,
    /// Any stream socket: monoio only waits on it.
    pub(super) source: Source,
    closing: Cell<Option<Close>>,
    /// Nothing is read.
    paused: Cell<bool>,
    /// What it sends is much work.
    dense: Cell<bool>,
    /// The peer has nothing more to say.
    ended: Cell<bool>,
    /// Rung for the reader when it has to look whether it goes on.
    changed: LocalBell,
    /// The core looks after its end.
    pub(super) watched: Cell<bool>,
    /// A reader, and a writer while a batch is out.
    tasks: Cell<u8>,
}

impl Connection {
    /// A connection with its reader.
    pub(super) fn new(conn: ConnId, source: Source) -> Self {
        Self {
            conn,
            source,
            closing: Cell::new(None),
            paused: Cell::new(false),
            dense: Cell::new(false),
            ended: Cell::new(false),
            changed: LocalBell::default(),
            watched: Cell::new(false),
            tasks: Cell::new(1),
        }
    }

    pub(super) fn begin_task(&self) {
        assert!(
            self.tasks.get() < 2,
            "a connection has at most one send in flight"
        );
        self.tasks.set(self.tasks.get() + 1);
    }

    pub(super) fn end_task(&self) {
        self.tasks.set(self.tasks.get() - 1);
    }

    /// From now on the socket is being closed. A finish lets the writer end; an abort ends it.
    pub(super) fn close(&self, how: Close) {
        if how == Close::Abort {
            socket::abort(&self.source);
        }
        self.closing.set(Some(how));
        self.changed.ring();
    }

    /// Nothing is read for now, or again.
    pub(super) fn pause(&self, paused: bool) {
        self.paused.set(paused);
        self.changed.ring();
    }

    pub(super) fn is_paused(&self) -> bool {
        self.paused.get()
    }

    /// Remembers whether each of its bytes is much work. True if it rests after a receive of this weight, as one of several that
    /// want to be read.
    pub(super) fn weigh(&self, weight: Weight, is_alone: bool) -> bool {
        if is_alone {
            self.dense.set(false);
            return false;
        }
        if weight.is_dense() {
            self.dense.set(true);
        } else if weight.is_thin() {
            self.dense.set(false);
        }
        weight.is_heavy() || self.dense.get()
    }

    pub(super) fn is_dense(&self) -> bool {
        self.dense.get()
    }

    pub(super) fn set_ended(&self) {
        self.ended.set(true);
    }

    pub(super) fn has_ended(&self) -> bool {
        self.ended.get()
    }

    pub(super) fn is_closing(&self) -> bool {
        self.closing.get().is_some()
    }

    /// Closing, and no task is left.
    pub(super) fn is_done(&self) -> bool {
        self.is_closing() && self.tasks.get() == 0
    }

    /// Waits for bytes or the end of the stream, and for the end of a pause; `false` when the connection is being closed.
    pub(super) async fn readable(&self) -> bool {
        let mut readable = pin!(self.source.readable(false));
        poll_fn(|context| {
            while self.changed.poll(context).is_ready() {}
            if self.is_closing() {
                return Poll::Ready(false);
            }
            if self.is_paused() {
                return Poll::Pending;
            }
            // What is wrong with the socket the receive will tell.
            readable.as_mut().poll(context).map(|_| true)
        })
        .await
    }
}

/// Connections by slot.
#[derive(Default)]
pub(super) struct Connections {
    slots: Vec<Option<Rc<Connection>>>,
    free: Vec<u32>,
    open: u32,
}

impl Connections {
    pub(super) fn open(&self) -> u32 {
        self.open
    }

    /// A slot that nobody has, the one used last first.
    pub(super) fn reserve(&mut self) -> u32 {
        self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            (self.slots.len() - 1) as u32
        })
    }

    /// The shard refused.
    pub(super) fn give_back(&mut self, slot: u32) {
        self.free.push(slot);
    }

    pub(super) fn insert(&mut self, connection: Rc<Connection>) {
        self.open += 1;
        let slot = connection.conn.slot as usize;
        self.slots[slot] = Some(connection);
    }

    /// `None` if that connection is gone.
    pub(super) fn of(&self, conn: ConnId) -> Option<&Rc<Connection>> {
        self.slots
            .get(conn.slot as usize)?
            .as_ref()
            .filter(|connection| connection.conn == conn)
    }

    pub(super) fn remove(&mut self, slot: u32) {
        if self.slots[slot as usize].take().is_some() {
            self.open -= 1;
            self.free.push(slot);
        }
    }
}

/// Bytes taken, or the peer is gone. A socket that is full for now took nothing.
pub(super) fn outcome(result: io::Result<usize>) -> Result<usize, SendFailed> {
    match result {
        Ok(taken) => Ok(taken),
        Err(error) => match error.raw_os_error() {
            Some(errno) if socket::is_passing(errno) => Ok(0),
            _ => Err(SendFailed),
        },
    }
}
