//! One client of the swarm.

/// How far a client has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// No socket.
    Idle,
    /// The TCP handshake.
    Connecting,
    /// Waiting for the answer to the upgrade request.
    Upgrading,
    /// Waiting for this many acknowledgements.
    Joining(u16),
    /// A scripted opening: bytes still to come in the step.
    Scripted {
        /// Which step.
        step: u8,
        /// Bytes that its answer still owes.
        owed: u32,
    },
    /// Joined.
    Ready,
    /// A publisher that speaks HTTP.
    Http,
    /// The socket is being taken down.
    Closing,
}

/// State of one client; its number is its place in the swarm.
pub(super) struct Client {
    pub(super) phase: Phase,
    /// Distinguishes the sockets that have used the slot.
    pub(super) generation: u32,
    /// An owned send is out.
    pub(super) sending: bool,
    /// A receive is armed.
    pub(super) receiving: bool,
    /// It reads nothing.
    pub(super) stalled: bool,
    /// In the list of clients with something to send.
    pub(super) dirty: bool,
    /// The swarm itself ends this connection.
    pub(super) leaving: bool,
    /// Identifiers of commands after the join.
    pub(super) command: u32,
    /// Bytes to send.
    pub(super) out: Vec<u8>,
    /// An unfinished frame.
    pub(super) carry: Vec<u8>,
}

impl Client {
    pub(super) const fn new() -> Self {
        Self {
            phase: Phase::Idle,
            generation: 0,
            sending: false,
            receiving: false,
            stalled: false,
            dirty: false,
            leaving: false,
            command: 1000,
            out: Vec::new(),
            carry: Vec::new(),
        }
    }

    /// Ready for another socket.
    pub(super) fn reset(&mut self) {
        let generation = self.generation.wrapping_add(1);
        let command = self.command;
        *self = Self {
            generation,
            command,
            dirty: self.dirty,
            ..Self::new()
        };
    }

    /// Joined, whatever it speaks.
    pub(super) const fn is_ready(&self) -> bool {
        matches!(self.phase, Phase::Ready | Phase::Http)
    }
}
