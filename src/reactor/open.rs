//! Sockets that were accepted, taken in.

use std::io;

use super::hot::Hot;
use crate::shard::Peer;
use crate::time::Now;
use crate::uring::{Accepted, Completion, Sqe};

impl Hot {
    /// An accept has ended.
    pub(super) fn accepted(&mut self, now: Now, completion: Completion) -> io::Result<()> {
        let accepted = self.ring.take_accepted(completion);
        self.accepts
            .over(now.at, &accepted, self.shard.counters_mut());
        self.open(now, accepted)
    }

    /// Takes an accepted socket in. It waits while its slot's last owner is not quite gone.
    pub(super) fn open(&mut self, now: Now, accepted: Accepted) -> io::Result<()> {
        let Ok(slot) = accepted.slot else {
            return Ok(());
        };
        if self.slots.at(slot).is_open() {
            self.early.push(accepted);
            return Ok(());
        }
        let peer = Peer {
            ip: accepted.peer.map(|address| address.ip()),
            door: self.accepts.door(accepted.listener),
        };
        match self.shard.handle_accepted(now, slot, peer) {
            Ok(conn) => {
                debug_assert_eq!(conn.slot, slot);
                self.slots.insert(conn);
                self.arm(conn.slot, conn.generation)
            }
            Err(_) => self.ring.push(&Sqe::close(slot, 0)),
        }
    }
}
