//! Memory that was freed goes back to the system.

// Its allocator is linked with the program; this makes it so for whoever uses the library.
use mimalloc as _;

unsafe extern "C" {
    fn mi_collect(force: bool);
}

/// Gives back what this thread has freed, and what all have freed some time ago. The allocator by itself only does so when it
/// is asked for much again.
pub fn give_back() {
    // SAFETY: the function takes no memory from its caller and may be called by any thread at any time.
    unsafe { mi_collect(false) };
}
