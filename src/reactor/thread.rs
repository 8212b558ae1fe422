//! A shard's thread on io_uring: the hot loop is the one long-running task of a monoio runtime, which brings timers and
//! everything that is no client socket (`spec/io_uring.md` §7, option B).

use std::collections::VecDeque;
use std::future::{Future as _, poll_fn};
use std::io;
use std::os::unix::net::UnixStream;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use monoio::{IoUringDriver, RuntimeBuilder};

use super::ShardThread;
use super::accept::{ACCEPTS, Accepts, RESERVED};
use super::doorbell::LocalBell;
use super::hot::{Hot, Next};
use super::reports::Reports;
use super::send::SLICE;
use super::slots::Slots;
use crate::shard::Shard;
use crate::uring::{Abilities, EventFd, Ring, RingConfig};

/// A sleeper wakes at least this often: a bell that a weakly ordered processor lost costs no more than this.
pub(super) const SAFETY_TICK: Duration = Duration::from_millis(100);
/// Turns in a row after which the other tasks of the thread get theirs.
const TURNS_BETWEEN_TASKS: u32 = 16;
/// The same as time.
const TIME_BETWEEN_TASKS: Duration = Duration::from_millis(1);

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
    let prepare = || -> io::Result<_> {
        let mut inner = io_uring06::IoUring::builder();
        inner.setup_coop_taskrun().setup_single_issuer();
        let runtime = RuntimeBuilder::<IoUringDriver>::new()
            .with_entries(256)
            .uring_builder(inner)
            .enable_timer()
            .build()?;
        Ok((runtime, hot(thread, abilities)?))
    };
    let (mut runtime, hot) = match prepare() {
        Ok(ready) => ready,
        Err(error) => {
            started(Err(io::Error::new(error.kind(), error.to_string())));
            return Err(error);
        }
    };
    runtime.block_on(serve(hot, started))
}

pub(super) fn hot(thread: ShardThread, abilities: Abilities) -> io::Result<Hot> {
    let connections_max = thread.config.server.connections_per_shard_max;
    let mut ring = Ring::new(&ring_config(connections_max)).map_err(io::Error::other)?;
    ring.attach_bell(thread.sleepers.bell(thread.id))?;
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
        pending: VecDeque::new(),
        pending_bytes: 0,
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

async fn serve(mut hot: Hot, started: impl FnOnce(io::Result<()>)) -> io::Result<()> {
    let bell = Rc::new(LocalBell::default());
    let eventfd = hot.sleepers.bell(hot.id).try_clone()?;
    monoio::spawn(listen_to(eventfd, Rc::clone(&bell)));
    // Always readable: waiting for it takes monoio once through its own ring, which is the only fair way to yield.
    let always = UnixStream::from(EventFd::with_count(1, true)?.into_fd());
    let always = monoio::net::UnixStream::from_std(always)?;
    let mut sleep = pin!(monoio::time::sleep(SAFETY_TICK));
    let mut alarm = hot.clock.now().at + SAFETY_TICK;
    let mut tasks_at = hot.clock.now().at;
    let mut turns = 0;
    hot.ring.bell_off();
    hot.sleepers.rise(hot.id);
    started(Ok(()));
    loop {
        let next = hot.turn()?;
        let due = match next {
            Next::End => return Ok(()),
            Next::Sleep(due) if hot.lie_down()? => due,
            Next::Sleep(_) | Next::Turn => {
                hot.rise();
                turns += 1;
                let now = hot.clock.now().at;
                if turns >= TURNS_BETWEEN_TASKS || now.since(tasks_at) >= TIME_BETWEEN_TASKS {
                    always.readable(true).await?;
                    (turns, tasks_at) = (0, now);
                }
                continue;
            }
        };
        let now = hot.clock.now().at;
        let latest = now + SAFETY_TICK;
        let wanted = due.map_or(latest, |due| due.min(latest));
        // An alarm that is early only costs a turn: it is moved when it has passed or would be late.
        if alarm <= now || alarm > wanted {
            alarm = wanted;
            sleep.as_mut().reset(hot.clock.to_std(alarm).into());
        }
        poll_fn(|context| {
            if bell.poll(context).is_ready() {
                return Poll::Ready(());
            }
            sleep.as_mut().poll(context)
        })
        .await;
        hot.rise();
        (turns, tasks_at) = (0, hot.clock.now().at);
    }
}

/// Turns signals of the eventfd into rings of the bell.
async fn listen_to(eventfd: EventFd, bell: Rc<LocalBell>) {
    let Ok(file) = monoio::fs::File::from_std(std::fs::File::from(eventfd.into_fd())) else {
        return;
    };
    let mut buffer = vec![0u8; 8];
    loop {
        let (result, back) = file.read_at(buffer, 0).await;
        buffer = back;
        if result.is_err() {
            return;
        }
        bell.ring();
    }
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
