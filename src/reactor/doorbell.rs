//! Who sleeps, and how to wake it.

use std::cell::{Cell, RefCell};
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering, fence};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use crate::mesh::bell::Doorbell as _;
use crate::model::ShardId;
use crate::uring::EventFd;

/// A sleeper wakes at least this often: a bell that a weakly ordered processor lost costs no more than this.
pub(super) const SAFETY_TICK: Duration = Duration::from_millis(100);

/// One shard as the others see it. Alone on its cache lines: neighbours would slow each other down.
#[repr(align(128))]
struct Sleeper {
    asleep: AtomicBool,
    ring: AtomicI32,
    bell: EventFd,
}

/// Every shard of the process. A shard that is awake looks into its queues before it sleeps, so only a sleeper is woken.
pub(super) struct Sleepers(Box<[Sleeper]>);

impl Sleepers {
    pub(super) fn new(shards: u16) -> std::io::Result<Self> {
        (0..shards)
            .map(|_| {
                let bell = EventFd::new(true)?;
                Ok(Sleeper {
                    asleep: AtomicBool::new(false),
                    ring: AtomicI32::new(-1),
                    bell,
                })
            })
            .collect::<std::io::Result<_>>()
            .map(Self)
    }

    fn of(&self, shard: ShardId) -> &Sleeper {
        &self.0[usize::from(shard.0)]
    }

    /// The eventfd on which the shard sleeps.
    pub(super) fn bell(&self, shard: ShardId) -> &EventFd {
        &self.of(shard).bell
    }

    /// Makes the shard's ring known to those who wake it.
    pub(super) fn set_ring(&self, shard: ShardId, ring: RawFd) {
        self.of(shard).ring.store(ring, Ordering::Release);
    }

    /// The shard is about to sleep. Look into every queue after this and before sleeping.
    pub(super) fn lie_down(&self, shard: ShardId) {
        self.of(shard).asleep.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// The shard is awake.
    pub(super) fn rise(&self, shard: ShardId) {
        self.of(shard).asleep.store(false, Ordering::Relaxed);
    }

    /// True for the one caller that has to wake the shard. Call after the queue was filled.
    fn must_wake(&self, shard: ShardId) -> bool {
        fence(Ordering::SeqCst);
        let sleeper = self.of(shard);
        sleeper.asleep.load(Ordering::Relaxed) && sleeper.asleep.swap(false, Ordering::Relaxed)
    }

    /// The ring to which a wake-up has to be sent, if the shard sleeps.
    pub(super) fn ring_to_wake(&self, shard: ShardId) -> Option<RawFd> {
        self.must_wake(shard)
            .then(|| self.of(shard).ring.load(Ordering::Acquire))
    }

    /// Wakes the shard by its eventfd if it sleeps.
    pub(super) fn wake(&self, shard: ShardId) {
        if self.must_wake(shard) {
            self.of(shard).bell.ring();
        }
    }
}

/// Wakes the hot task from the other tasks of its thread.
#[derive(Default)]
pub(super) struct LocalBell {
    rung: Cell<bool>,
    waiting: RefCell<Option<Waker>>,
}

impl LocalBell {
    pub(super) fn ring(&self) {
        self.rung.set(true);
        if let Some(waker) = self.waiting.take() {
            waker.wake();
        }
    }

    /// Ready once for any number of rings.
    pub(super) fn poll(&self, context: &mut Context<'_>) -> Poll<()> {
        if self.rung.take() {
            return Poll::Ready(());
        }
        *self.waiting.borrow_mut() = Some(context.waker().clone());
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_caller_wakes_a_sleeper_and_none_wakes_a_shard_that_is_up() {
        let sleepers = Sleepers::new(2).unwrap();
        let shard = ShardId(1);
        sleepers.set_ring(shard, 9);
        assert_eq!(sleepers.ring_to_wake(shard), None);
        sleepers.lie_down(shard);
        assert_eq!(sleepers.ring_to_wake(shard), Some(9));
        assert_eq!(sleepers.ring_to_wake(shard), None);
        sleepers.lie_down(shard);
        sleepers.rise(shard);
        assert_eq!(sleepers.ring_to_wake(shard), None);
    }

    #[test]
    fn any_number_of_rings_wakes_once() {
        let bell = LocalBell::default();
        let mut context = Context::from_waker(Waker::noop());
        assert!(bell.poll(&mut context).is_pending());
        bell.ring();
        bell.ring();
        assert!(bell.poll(&mut context).is_ready());
        assert!(bell.poll(&mut context).is_pending());
    }
}
