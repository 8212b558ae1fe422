//! Bytes under way at one worker, beside the number of its deliveries: what it has been given fits what may wait for its
//! connection.

use std::cell::Cell;
use std::rc::Rc;

/// See the module. The groups that a connection takes from share one.
#[derive(Debug)]
pub struct Window {
    most: usize,
    used: Cell<usize>,
    /// Somebody did not get an entry because there was no room for it.
    is_short: Cell<bool>,
}

impl Window {
    /// Nothing is under way; `most` bytes may be.
    #[must_use]
    pub fn new(most: usize) -> Rc<Self> {
        Rc::new(Self {
            most,
            used: Cell::new(0),
            is_short: Cell::new(false),
        })
    }

    /// Is there room? What is larger than the whole window goes alone.
    #[must_use]
    pub fn fits(&self, bytes: usize) -> bool {
        let used = self.used.get();
        used == 0 || used.saturating_add(bytes) <= self.most
    }

    /// Is there room for the only delivery of a group? Beside what others have there is always some, unless one of them has
    /// more than the window; and what is small goes up to three times of it.
    #[must_use]
    pub fn fits_beside(&self, bytes: usize) -> bool {
        let used = self.used.get();
        used <= self.most || used.saturating_add(bytes) <= self.most.saturating_mul(3)
    }

    /// Notes that an entry waits for room.
    pub fn miss(&self) {
        self.is_short.set(true);
    }

    /// Bytes are under way.
    pub fn take(&self, bytes: usize) {
        self.used.set(self.used.get().saturating_add(bytes));
    }

    /// They are not any more. `true` if somebody waits for room.
    pub fn give(&self, bytes: usize) -> bool {
        self.used.set(self.used.get().saturating_sub(bytes));
        bytes > 0 && self.is_short.take()
    }

    /// Entries of about this size that it has room for.
    #[must_use]
    pub fn room(&self, entry_bytes: usize) -> usize {
        let used = self.used.get();
        let room = self.most.saturating_sub(used) / entry_bytes.max(1);
        room.max(usize::from(used == 0))
    }

    /// Bytes under way.
    #[must_use]
    pub fn used(&self) -> usize {
        self.used.get()
    }
}
