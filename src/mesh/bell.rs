//! Bells: how a thread that put something into a queue wakes the one that waits for it.

/// Wakes a thread that waits. Ringing is cheap, idempotent and safe from every thread.
pub trait Doorbell: Send + Sync {
    /// Makes the owner look at its queues.
    fn ring(&self);
}
