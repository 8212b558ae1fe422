//! A shard's thread on io_uring: the hot loop, which also sleeps in its ring, so that a message costs two system calls, the
//! one that sends the answer and the one that waits for the next.

use std::collections::VecDeque;
use std::io;

use super::ShardThread;
use super::accept::{ACCEPTS, Accepts, RESERVED};
use super::arrivals::Arrivals;
use super::fair::Pace;
use super::hot::{Hot, Next};
use super::reports::Reports;
use super::send::SLICE;
use super::slots::Slots;
use crate::shard::Shard;
use crate::uring::{Abilities, Ring, RingConfig};

/// The shape of a shard's ring.
pub(super) fn ring_config(connections_max: u32) -> RingConfig {
    RingConfig {
        slots: connections_max
            .saturating_add(connections_max / 16 + 1)
            .saturating_add(RESERVED),
        reserved: RESERVED,
        accepts: ACCEPTS,
        ..RingConfig::shard(connections_max)
    }
}

/// Runs the shard until it has drained. `started` is called when it serves.
pub(super) fn run(
    thread: ShardThread,
    abilities: Abilities,
    started: impl FnOnce(io::Result<()>),
) -> io::Result<()> {
    let mut hot = match hot(thread, abilities) {
        Ok(hot) => hot,
        Err(error) => {
            started(Err(io::Error::new(error.kind(), error.to_string())));
            return Err(error);
        }
    };
    hot.sleepers.rise(hot.id);
    started(Ok(()));
    loop {
        match hot.turn()? {
            Next::Turn => {}
            Next::Sleep => hot.sleep()?,
            Next::End => return Ok(()),
        }
    }
}

pub(super) fn hot(thread: ShardThread, abilities: Abilities) -> io::Result<Hot> {
    let connections_max = thread.config.server.connections_per_shard_max;
    let mut ring = Ring::new(&ring_config(connections_max)).map_err(io::Error::other)?;
    ring.listen_to(thread.sleepers.bell(thread.id))?;
    thread.sleepers.set_ring(thread.id, ring.fd());
    let accepts = Accepts::new(&mut ring, thread.listeners, connections_max)?;
    Ok(Hot {
        id: thread.id,
        shard: Shard::new(
            thread.id,
            thread.mode,
            thread.config,
            thread.endpoint,
            thread.seed,
        )
        .with_key(&thread.key),
        ring,
        slots: Slots::default(),
        accepts,
        pending: Arrivals::default(),
        bulky: Vec::new(),
        pace: Pace::default(),
        resting: VecDeque::new(),
        dispatched: crate::time::Instant::START,
        early: Vec::new(),
        unarmed: Vec::new(),
        unwatched: Vec::new(),
        heard: VecDeque::new(),
        probed: crate::time::Instant::START,
        shrunk: crate::time::Instant::START,
        unlistened: false,
        unacknowledged_max: &0,
        slice: Vec::with_capacity(SLICE),
        closes: Vec::new(),
        reports: Reports::new(thread.link),
        sleepers: thread.sleepers,
        clock: thread.clock,
        receive_cap: if abilities.receive_cap {
            super::fair::RECEIVE_BYTES
        } else {
            0
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_room_for_every_connection_that_is_configured() {
        for connections_max in (1..5000).chain([100_000, 1 << 20]) {
            let table = ring_config(connections_max).slots - RESERVED;
            assert!(u64::from(table) * 95 / 100 >= u64::from(connections_max));
        }
    }
}
