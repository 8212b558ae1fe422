//! What wakes a sleeping thread: an eventfd.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use crate::mesh::bell::Doorbell;

/// A counter in the kernel that wakes whoever reads it.
#[derive(Debug)]
pub struct EventFd(OwnedFd);

impl EventFd {
    /// A counter that starts at zero. `blocking` decides what a read of zero does.
    pub fn new(blocking: bool) -> io::Result<Self> {
        Self::with_count(0, blocking)
    }

    /// A counter that starts at `count`.
    pub fn with_count(count: u32, blocking: bool) -> io::Result<Self> {
        let flags = libc::EFD_CLOEXEC | if blocking { 0 } else { libc::EFD_NONBLOCK };
        // SAFETY: no memory is passed.
        let fd = unsafe { libc::eventfd(count, flags) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the call above made it and nobody else has it.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Another descriptor of the same counter.
    pub fn try_clone(&self) -> io::Result<Self> {
        self.0.try_clone().map(Self)
    }

    /// Waits until the counter is not zero, takes it all. `None` on a non-blocking counter that is zero.
    pub fn take(&self) -> Option<u64> {
        let mut count = 0u64;
        // SAFETY: reads eight bytes into a local of eight bytes.
        let read = unsafe { libc::read(self.0.as_raw_fd(), (&raw mut count).cast(), 8) };
        (read == 8).then_some(count)
    }

    /// The descriptor itself.
    #[must_use]
    pub fn into_fd(self) -> OwnedFd {
        self.0
    }
}

impl AsFd for EventFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Doorbell for EventFd {
    fn ring(&self) {
        let one = 1u64;
        // SAFETY: writes eight bytes from a local. The only failure is a counter near 2^64, which is rung already.
        unsafe { libc::write(self.0.as_raw_fd(), (&raw const one).cast(), 8) };
    }
}
