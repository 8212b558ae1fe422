//! Receive buffers that the kernel picks from: one group of a ring.

use std::io;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::types::BufRingEntry;

/// Shape of a ring's receive buffers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BufferConfig {
    /// Buffers, a power of two up to 32 768; 0 makes a ring that receives nothing.
    pub count: u16,
    /// Bytes of one buffer.
    pub size: u32,
    /// Buffers that the kernel has at most, where it need not have all. The ones that were read last go back first: few buffers
    /// that are in the processor's cache take turns, and the rest is there for a rush.
    pub lent: u16,
    /// Several receives share a buffer (Linux 6.12), so small messages are packed.
    pub incremental: bool,
}

impl BufferConfig {
    /// What a shard takes: 2 MiB. Every buffer returns within the turn that filled it.
    pub const SHARD: Self = Self {
        // A message that goes on in the next buffer is put together by a copy: few do where buffers are large.
        count: 16,
        size: (crate::limits::RECEIVE_POOL_BYTES / 16) as u32,
        // What may wait to be dispatched before those who bring much rest, and what one `enter` brings meanwhile.
        lent: 8,
        incremental: true,
    };
}

/// Anonymous memory, page aligned, zeroed and touched so that it does not grow later.
struct Mapping {
    start: *mut u8,
    len: usize,
}

impl Mapping {
    fn new(len: usize) -> io::Result<Self> {
        // SAFETY: a fresh anonymous private mapping; nothing else refers to the address.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                len,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_POPULATE,
                -1,
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Self {
            start: start.cast(),
            len,
        })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped by `new` with this length, unmapped once.
        unsafe { libc::munmap(self.start.cast(), self.len) };
    }
}

/// Bytes of one completion. Neither `Copy` nor `Clone`: they are taken once.
#[derive(Debug)]
pub(super) struct Piece {
    buffer: u16,
    offset: u32,
    len: u32,
}

/// What is known of one buffer.
#[derive(Clone, Copy, Debug, Default)]
struct BufferState {
    /// Where the kernel writes next.
    offset: u32,
    /// Pieces that were located and not taken.
    pieces: u32,
    /// The kernel writes to it no more.
    is_done: bool,
}

/// The group: an array of descriptors shared with the kernel, and the memory that they point to.
pub(super) struct BufferRing {
    descriptors: Mapping,
    memory: Mapping,
    config: BufferConfig,
    states: Box<[BufferState]>,
    /// Buffers that the kernel does not have, the one that was read last at the end.
    free: Vec<u16>,
    /// Buffers that the kernel has.
    lent: u16,
    /// Our copy of the tail; the kernel sees it when published.
    tail: u16,
}

impl BufferRing {
    /// Allocates; the caller registers `address` and then calls `fill`.
    pub(super) fn new(config: BufferConfig) -> io::Result<Self> {
        if !config.count.is_power_of_two() || config.size == 0 || config.lent == 0 {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        let count = usize::from(config.count);
        Ok(Self {
            descriptors: Mapping::new((count * size_of::<BufRingEntry>()).next_multiple_of(4096))?,
            memory: Mapping::new(count * config.size as usize)?,
            config,
            states: vec![BufferState::default(); count].into(),
            free: Vec::with_capacity(count),
            lent: 0,
            tail: 0,
        })
    }

    /// What `IORING_REGISTER_PBUF_RING` takes.
    pub(super) fn address(&self) -> u64 {
        self.descriptors.start as u64
    }

    /// Gives every buffer to the kernel.
    pub(super) fn fill(&mut self) {
        self.free.extend((0..self.config.count).rev());
        self.publish();
    }

    /// Where the bytes of one completion are; asked for every completion, in their order. Without `more` the kernel is done with the
    /// buffer.
    pub(super) fn locate(&mut self, buffer: u16, len: u32, more: bool) -> Piece {
        let state = &mut self.states[usize::from(buffer)];
        let offset = state.offset;
        assert!(
            offset + len <= self.config.size,
            "the kernel wrote beyond a buffer"
        );
        assert!(
            !state.is_done,
            "the kernel wrote to a buffer that it had given back"
        );
        state.offset += len;
        state.is_done = !more;
        state.pieces += 1;
        Piece {
            buffer,
            offset,
            len,
        }
    }

    /// The bytes of a piece, once. When the kernel is done with its buffer and this is the last piece of it, the buffer returns to the
    /// kernel at a later `publish`, which cannot be called while the slice lives.
    pub(super) fn take(&mut self, piece: Piece) -> &mut [u8] {
        let Piece {
            buffer,
            offset,
            len,
        } = piece;
        // It may be the piece of another ring, whose buffers are larger.
        assert!(offset + len <= self.config.size, "a piece of this ring");
        let state = &mut self.states[usize::from(buffer)];
        assert!(state.pieces > 0, "a piece is taken once");
        state.pieces -= 1;
        if state.is_done && state.pieces == 0 {
            *state = BufferState::default();
            self.free.push(buffer);
            self.lent -= 1;
        }
        let start = usize::from(buffer) * self.config.size as usize + offset as usize;
        // SAFETY: within the mapping (asserted above and by the index into `states`). The kernel has finished writing this
        // range: the completion was read with acquire order, and it only writes behind it or, for a finished buffer, after
        // `publish`, which needs `&mut self`. No two pieces overlap, and this one is gone with the slice.
        unsafe { std::slice::from_raw_parts_mut(self.memory.start.add(start), len as usize) }
    }

    /// Gives buffers to the kernel up to the number that it shall have: descriptors first, then one store of the tail. Returns
    /// how many.
    pub(super) fn publish(&mut self) -> usize {
        let wanted = self.config.lent.saturating_sub(self.lent);
        let kept = self.free.len().saturating_sub(usize::from(wanted));
        let given = self.free.len() - kept;
        if given == 0 {
            return 0;
        }
        self.lent += given as u16;
        let entries: *mut BufRingEntry = self.descriptors.start.cast();
        let mask = self.config.count - 1;
        for buffer in self.free.drain(kept..).rev() {
            let address =
                self.memory.start as u64 + u64::from(buffer) * u64::from(self.config.size);
            // SAFETY: the index is masked into the array; the kernel does not read an entry beyond the tail. The
            // fields are written one by one: the first entry's reserved field is the tail itself.
            unsafe {
                let entry = entries.add(usize::from(self.tail & mask));
                (*entry).set_addr(address);
                (*entry).set_len(self.config.size);
                (*entry).set_bid(buffer);
            }
            self.tail = self.tail.wrapping_add(1);
        }
        // SAFETY: the tail lies in the first entry; it is aligned for `u16` and shared with the kernel only.
        unsafe {
            let tail = BufRingEntry::tail(entries).cast::<AtomicU16>();
            (*tail).store(self.tail, Ordering::Release);
        }
        given
    }
}
