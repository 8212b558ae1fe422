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
    /// Several receives share a buffer (Linux 6.12), so small messages are packed.
    pub incremental: bool,
}

impl BufferConfig {
    /// What a shard takes: 2 MiB. Every buffer returns within the turn that filled it.
    pub const SHARD: Self = Self {
        count: 64,
        size: (crate::limits::RECEIVE_POOL_BYTES / 64) as u32,
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

/// The group: an array of descriptors shared with the kernel, and the memory that they point to.
pub(super) struct BufferRing {
    descriptors: Mapping,
    memory: Mapping,
    config: BufferConfig,
    /// Where the kernel writes next in each buffer.
    offsets: Box<[u32]>,
    /// Finished buffers, not yet given back.
    finished: Vec<u16>,
    /// Our copy of the tail; the kernel sees it when published.
    tail: u16,
}

impl BufferRing {
    /// Allocates; the caller registers `address` and then calls `fill`.
    pub(super) fn new(config: BufferConfig) -> io::Result<Self> {
        if !config.count.is_power_of_two() || config.size == 0 {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        let count = usize::from(config.count);
        Ok(Self {
            descriptors: Mapping::new((count * size_of::<BufRingEntry>()).next_multiple_of(4096))?,
            memory: Mapping::new(count * config.size as usize)?,
            config,
            offsets: vec![0; count].into(),
            finished: Vec::with_capacity(count),
            tail: 0,
        })
    }

    /// What `IORING_REGISTER_PBUF_RING` takes.
    pub(super) fn address(&self) -> u64 {
        self.descriptors.start as u64
    }

    /// Gives every buffer to the kernel.
    pub(super) fn fill(&mut self) {
        self.finished.extend(0..self.config.count);
        self.publish();
    }

    /// The bytes of one completion, in the order of completions. Without `more` the buffer is finished and returns
    /// to the kernel at the next `publish`, which cannot be called while the slice lives.
    pub(super) fn take(&mut self, buffer: u16, len: u32, more: bool) -> &mut [u8] {
        let offset = self.offsets[usize::from(buffer)];
        assert!(
            offset + len <= self.config.size,
            "the kernel wrote beyond a buffer"
        );
        if more {
            self.offsets[usize::from(buffer)] += len;
        } else {
            self.offsets[usize::from(buffer)] = 0;
            self.finished.push(buffer);
        }
        let start = usize::from(buffer) * self.config.size as usize + offset as usize;
        // SAFETY: within the mapping (asserted above and by the index into `offsets`). The kernel has finished
        // writing this range: the completion was read with acquire order, and it only writes behind it or, for a
        // finished buffer, after `publish`, which needs `&mut self`.
        unsafe { std::slice::from_raw_parts_mut(self.memory.start.add(start), len as usize) }
    }

    /// Buffers that wait for `publish`.
    pub(super) fn finished(&self) -> usize {
        self.finished.len()
    }

    /// Gives the finished buffers back: descriptors first, then one store of the tail.
    pub(super) fn publish(&mut self) {
        if self.finished.is_empty() {
            return;
        }
        let entries: *mut BufRingEntry = self.descriptors.start.cast();
        let mask = self.config.count - 1;
        for buffer in self.finished.drain(..) {
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
    }
}
