//! One ring: set up as §2.1 says, entered by one thread, drained by value.

use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::ptr::NonNull;
use std::time::Duration;

use io_uring::{
    CompletionQueue, EnterFlags, IoUring, SubmissionQueue, Submitter, cqueue, opcode, squeue, types,
};
use socket2::SockAddr;

use super::bell::EventFd;
use super::buffer_ring::{BufferConfig, BufferRing};
use super::completion::{Accepted, Completion};
use super::in_flight::{Batches, PeerAddresses};
use super::op::{self, BUFFER_GROUP, Kind, Sqe, UserData};
use super::setup::{RingConfig, SetupError, Step};

/// While it lives, queued submissions point to bytes borrowed for one call.
struct Lent<'a>(&'a mut Ring);

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        if !self.0.submission.is_empty() {
            self.0.broken.get_or_insert(libc::EIO);
        }
    }
}

/// Frees the crate's ring after everything that borrows it.
struct Memory(NonNull<IoUring>);

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: made by `Box::into_raw` in `Ring::new`. Fields drop in order of declaration and this is the last
        // but the buffers, so no borrow of it is left.
        drop(unsafe { Box::from_raw(self.0.as_ptr()) });
    }
}

/// A ring, its file table, its buffers and the memory lent to the kernel.
///
/// It belongs to the thread that made it: the kernel answers any other with `EEXIST`, so the compiler refuses first.
///
/// ```compile_fail
/// fn sent<T: Send>() {}
/// sent::<ringmain::uring::Ring>();
/// ```
// Field order is drop order: queues and submitter before the ring they borrow, the ring before the buffers that the
// kernel may fill as long as the ring is open.
pub struct Ring {
    submission: SubmissionQueue<'static>,
    completion: CompletionQueue<'static>,
    submitter: Submitter<'static>,
    memory: Memory,
    buffers: Option<BufferRing>,
    batches: Batches,
    peers: PeerAddresses,
    /// Addresses that queued submissions point to; the kernel copies them when it takes the submission.
    #[expect(
        clippy::vec_box,
        reason = "the kernel reads them where they are while the vector grows"
    )]
    addresses: Vec<Box<SockAddr>>,
    slots: u32,
    fd_registered: bool,
    /// The kernel refused to be entered: nothing may be submitted any more, queued submissions may dangle.
    broken: Option<i32>,
}

impl Ring {
    /// Makes the ring in the calling thread.
    pub fn new(config: &RingConfig) -> Result<Self, SetupError> {
        let at = |step| move |cause| SetupError { step, cause };
        let ring = IoUring::builder()
            .dontfork()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            .setup_submit_all()
            .setup_no_sqarray()
            .setup_cqsize(config.completions)
            .build(config.submissions)
            .map_err(at(Step::Setup))?;
        let memory = Memory(NonNull::from(Box::leak(Box::new(ring))));
        // SAFETY: the ring lives on the heap until `memory` drops, which is after the three borrows made here; it is
        // borrowed this one time only.
        let (submitter, submission, completion) = unsafe { (*memory.0.as_ptr()).split() };
        let mut this = Self {
            submission,
            completion,
            submitter,
            memory,
            buffers: None,
            batches: Batches::new(),
            peers: PeerAddresses::new(config.accepts),
            addresses: Vec::new(),
            slots: 0,
            fd_registered: false,
            broken: None,
        };
        // A thread may register sixteen rings; the ones beyond it pay a descriptor look-up for each entry.
        this.fd_registered = this.submitter.register_ring_fd().is_ok();
        // Nothing here should need a worker thread. The default would allow thousands.
        let _ = this.submitter.register_iowq_max_workers(&mut [1, 1]);
        this.register_files(config)?;
        if config.buffers.count > 0 {
            this.register_buffers(config.buffers)
                .map_err(at(Step::Buffers))?;
        }
        Ok(this)
    }

    fn register_files(&mut self, config: &RingConfig) -> Result<(), SetupError> {
        self.slots = config
            .slots
            .min(u32::try_from(super::socket::descriptors_max()).unwrap_or(u32::MAX));
        if self.slots == 0 {
            return Ok(());
        }
        let step = Step::FileTable(self.slots);
        self.submitter
            .register_files_sparse(self.slots)
            .map_err(|cause| SetupError { step, cause })?;
        if config.reserved == 0 {
            return Ok(());
        }
        /// `struct io_uring_file_index_range`
        #[repr(C)]
        struct Range {
            offset: u32,
            len: u32,
            reserved: u64,
        }
        const REGISTER_FILE_ALLOC_RANGE: libc::c_long = 25;
        let reserved = config.reserved.min(self.slots);
        let range = Range {
            offset: reserved,
            len: self.slots - reserved,
            reserved: 0,
        };
        // SAFETY: passes a live local of the layout that the operation reads; io_uring_register keeps no pointer to it.
        let result = unsafe {
            libc::syscall(
                libc::SYS_io_uring_register,
                self.fd(),
                REGISTER_FILE_ALLOC_RANGE,
                &raw const range,
                0,
            )
        };
        if result < 0 {
            return Err(SetupError {
                step: Step::AllocationRange,
                cause: io::Error::last_os_error(),
            });
        }
        Ok(())
    }

    fn register_buffers(&mut self, config: BufferConfig) -> io::Result<()> {
        let mut buffers = BufferRing::new(config)?;
        let flags = if config.incremental {
            types::IOU_PBUF_RING_INC as u16
        } else {
            0
        };
        // SAFETY: the mapping is as long as `count` entries and outlives the ring (field order of `Ring`).
        unsafe {
            self.submitter.register_buf_ring_with_flags(
                buffers.address(),
                config.count,
                BUFFER_GROUP,
                flags,
            )?;
        }
        buffers.fill();
        self.buffers = Some(buffers);
        Ok(())
    }

    /// Asks the kernel which operations it knows.
    pub(super) fn read_probe(&self, probe: &mut io_uring::Probe) -> io::Result<()> {
        self.submitter.register_probe(probe)
    }

    /// Slots of the file table, reserved ones included.
    #[must_use]
    pub fn slots(&self) -> u32 {
        self.slots
    }

    /// The ring's descriptor: the target of `Sqe::wake` in another ring of this process.
    #[must_use]
    pub fn fd(&self) -> RawFd {
        // SAFETY: the ring is alive as long as `memory`; only its descriptor is read.
        unsafe { self.memory.0.as_ref() }.as_raw_fd()
    }

    /// Puts a descriptor into a reserved slot. The table holds its own reference: the caller may close `socket`.
    pub fn install(&mut self, slot: u32, socket: &impl AsFd) -> io::Result<()> {
        self.submitter
            .register_files_update(slot, &[socket.as_fd().as_raw_fd()])
            .map(drop)
    }

    /// Empties a reserved slot.
    pub fn uninstall(&mut self, slot: u32) -> io::Result<()> {
        self.submitter.register_files_update(slot, &[-1]).map(drop)
    }

    /// From now on a ring of the bell is a completion of kind `Bell`; again after one without `more`.
    pub fn listen_to(&mut self, bell: &EventFd) -> io::Result<()> {
        self.push(&Sqe::listen(bell.as_fd().as_raw_fd()))
    }

    /// Submissions queued.
    #[must_use]
    pub fn queued(&self) -> usize {
        self.submission.len()
    }

    /// Batches that the kernel still reads.
    #[must_use]
    pub fn batches_out(&self) -> usize {
        self.batches.len()
    }

    /// The kernel has work that only `enter` does: deferred completions, or ones that found the queue full.
    #[must_use]
    pub fn needs_enter(&self) -> bool {
        self.submission.taskrun() || self.submission.cq_overflow()
    }

    /// Completions found the queue full since the last look; armed receives may have ended.
    #[must_use]
    pub fn overflowed(&self) -> bool {
        self.submission.cq_overflow()
    }

    /// A completion is there or would be after `enter`.
    pub fn has_pending(&mut self) -> bool {
        self.completion.sync();
        !self.completion.is_empty() || self.needs_enter()
    }

    /// Queues a submission; enters first when the queue is full.
    pub fn push(&mut self, sqe: &Sqe) -> io::Result<()> {
        self.reserve(1)?;
        self.push_entry(&sqe.0);
        Ok(())
    }

    /// Queues two submissions of which the second starts when the first has ended, whatever its result.
    pub fn push_chain(&mut self, first: Sqe, second: &Sqe) -> io::Result<()> {
        // A chain ends where a submitting call ends: both must go in the same one.
        self.reserve(2)?;
        self.push_entry(&first.then().0);
        self.push_entry(&second.0);
        Ok(())
    }

    /// Arms one accept. `index` is below `RingConfig::accepts` and not armed; `listener` tells listeners apart.
    pub fn push_accept(&mut self, index: u32, listener: u32, listener_slot: u32) -> io::Result<()> {
        self.reserve(1)?;
        let (address, len) = self.peers.arm(index);
        let entry = opcode::Accept::new(types::Fixed(listener_slot), address, len)
            .file_index(Some(types::DestinationSlot::auto_target()))
            .build()
            .user_data(UserData::new(Kind::Accept, index, listener).0);
        self.push_entry(&entry);
        Ok(())
    }

    /// Queues a send of bytes that the ring owns until its completion, which gives them back through `take_batch`.
    /// At most one for each slot.
    pub fn push_send(&mut self, slot: u32, generation: u32, batch: Vec<u8>) -> io::Result<()> {
        self.reserve(1)?;
        let entry = op::send_owned(slot, generation, self.batches.insert(slot, batch));
        self.push_entry(&entry);
        Ok(())
    }

    /// Queues a connect.
    pub fn push_connect(&mut self, slot: u32, generation: u32, to: &SockAddr) -> io::Result<()> {
        self.reserve(1)?;
        let to = self.hold(to);
        let entry = opcode::Connect::new(types::Fixed(slot), to.0, to.1)
            .build()
            .user_data(UserData::new(Kind::Connect, slot, generation).0);
        self.push_entry(&entry);
        Ok(())
    }

    /// Queues a bind to a local address. Its success is silent.
    pub fn push_bind(&mut self, slot: u32, generation: u32, to: &SockAddr) -> io::Result<()> {
        self.reserve(1)?;
        let to = self.hold(to);
        let entry = opcode::Bind::new(types::Fixed(slot), to.0, to.1)
            .build()
            .flags(squeue::Flags::SKIP_SUCCESS)
            .user_data(UserData::new(Kind::Prepare, slot, generation).0);
        self.push_entry(&entry);
        Ok(())
    }

    /// Keeps an address until the queue has been submitted.
    fn hold(&mut self, address: &SockAddr) -> (*const libc::sockaddr, libc::socklen_t) {
        self.addresses.push(Box::new(address.clone()));
        let held = &self.addresses[self.addresses.len() - 1];
        (held.as_ptr().cast(), held.len())
    }

    /// Sends each `(slot, generation, bytes)` now or not at all: the kernel is done with all bytes on return. Success
    /// is silent; a completion of kind `SendNow` says how many bytes were taken of one that fell short, or why it
    /// failed, and is in the queue on return. Also submits what was queued, and runs a few deferred completions.
    /// At most one send for each slot in a call, and none while an owned one is out.
    pub fn send_now<'b>(
        &mut self,
        sends: impl Iterator<Item = (u32, u32, &'b [u8])>,
    ) -> io::Result<()> {
        // The bytes are borrowed for this call only, so no submission may stay behind, also if `sends` panics: a ring
        // that is broken is never entered again.
        let lent = Lent(self);
        for (slot, generation, bytes) in sends {
            lent.0.reserve(1)?;
            lent.0.push_entry(&op::send_now(slot, generation, bytes));
        }
        lent.0.submit_all()
    }

    /// Submits what is queued, runs up to `max(20, want)` deferred completions (§2.3), waits for `want`.
    pub fn enter(&mut self, want: u32) -> io::Result<()> {
        let queued = self.submission.len() as u32;
        self.enter_with(queued, |submitter, to_submit| {
            // SAFETY: no argument is passed; every queued submission refers to memory that this ring owns or borrows.
            unsafe {
                submitter.enter::<libc::sigset_t>(
                    to_submit,
                    want,
                    EnterFlags::GETEVENTS.bits(),
                    None,
                )
            }
        })
    }

    /// `enter` that waits at most `timeout`.
    pub fn enter_timeout(&mut self, want: u32, timeout: Duration) -> io::Result<()> {
        let time = types::Timespec::from(timeout);
        let arguments = types::SubmitArgs::new().timespec(&time);
        let flags = EnterFlags::GETEVENTS | EnterFlags::EXT_ARG;
        let queued = self.submission.len() as u32;
        self.enter_with(queued, |submitter, to_submit| {
            // SAFETY: the arguments live until the call returns; submissions as in `enter`.
            unsafe { submitter.enter(to_submit, want, flags.bits(), Some(&arguments)) }
        })
    }

    fn enter_with(
        &mut self,
        to_submit: u32,
        enter: impl FnOnce(&Submitter<'static>, u32) -> io::Result<usize>,
    ) -> io::Result<()> {
        if let Some(errno) = self.broken {
            return Err(io::Error::from_raw_os_error(errno));
        }
        self.submission.sync();
        self.completion.sync();
        let result = enter(&self.submitter, to_submit);
        self.submission.sync();
        if self.submission.is_empty() {
            self.addresses.clear();
        }
        match result {
            Ok(_) => Ok(()),
            // Interrupted, timed out, out of request memory for now, or completions wait for room: enter again.
            Err(error)
                if matches!(
                    error.raw_os_error(),
                    Some(libc::EINTR | libc::ETIME | libc::EAGAIN | libc::EBUSY)
                ) =>
            {
                Ok(())
            }
            Err(error) => {
                self.broken = Some(error.raw_os_error().unwrap_or(libc::EIO));
                Err(error)
            }
        }
    }

    fn submit_all(&mut self) -> io::Result<()> {
        loop {
            self.enter(0)?;
            if self.submission.is_empty() {
                return Ok(());
            }
        }
    }

    fn reserve(&mut self, places: usize) -> io::Result<()> {
        while self.submission.capacity() - self.submission.len() < places {
            self.enter(0)?;
        }
        match self.broken {
            None => Ok(()),
            Some(errno) => Err(io::Error::from_raw_os_error(errno)),
        }
    }

    fn push_entry(&mut self, entry: &squeue::Entry) {
        // SAFETY: what the entry points to is owned by this ring until its completion, is static, or is borrowed by
        // `send_now`, which returns only after the kernel has taken and finished it.
        let pushed = unsafe { self.submission.push(entry) };
        assert!(pushed.is_ok(), "a place was reserved");
    }

    /// The next completion, oldest first. Does not enter.
    pub fn pop(&mut self) -> Option<Completion> {
        let entry = match self.completion.next() {
            Some(entry) => entry,
            None => {
                self.completion.sync();
                self.completion.next()?
            }
        };
        let (result, flags) = (entry.result(), entry.flags());
        // Several receives share a buffer: where the bytes of one begin follows from those before it, in the order of completions.
        let piece =
            cqueue::buffer_select(flags)
                .zip(self.buffers.as_mut())
                .map(|(buffer, buffers)| {
                    let len = u32::try_from(result).unwrap_or(0);
                    buffers.locate(buffer, len, cqueue::buffer_more(flags))
                });
        Some(Completion {
            user_data: UserData(entry.user_data()),
            result,
            flags,
            piece,
        })
    }

    /// The bytes that a receive brought; empty when it brought none. Every completion of kind `Receive` comes here, in any order
    /// and whatever its generation: it may hold a buffer.
    pub fn take_bytes(&mut self, completion: Completion) -> &mut [u8] {
        debug_assert_eq!(completion.kind(), Some(Kind::Receive));
        match (completion.piece, &mut self.buffers) {
            (Some(piece), Some(buffers)) => buffers.take(piece),
            _ => &mut [],
        }
    }

    /// Gives buffers back to the kernel; returns how many. Receives that starved are re-armed after this.
    pub fn publish_buffers(&mut self) -> usize {
        self.buffers.as_mut().map_or(0, BufferRing::publish)
    }

    /// The batch of a completion of kind `SendOwned`: the kernel has finished with it.
    pub fn take_batch(&mut self, completion: Completion) -> Vec<u8> {
        assert_eq!(
            completion.kind(),
            Some(Kind::SendOwned),
            "only an owned send has a batch"
        );
        self.batches.remove(completion.slot())
    }

    /// What became of an accept: for a completion of kind `Accept`.
    pub fn take_accepted(&mut self, completion: Completion) -> Accepted {
        assert_eq!(
            completion.kind(),
            Some(Kind::Accept),
            "only an accept has a peer"
        );
        let index = completion.slot();
        let peer = self.peers.disarm(index);
        let slot = u32::try_from(completion.result).map_err(|_| -completion.result);
        Accepted {
            index,
            listener: completion.generation(),
            peer: if slot.is_ok() { peer } else { None },
            slot,
        }
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        if self.fd_registered {
            let _ = self.submitter.unregister_ring_fd();
        }
        // Closing a ring is asynchronous: what the kernel reads or writes now, it may touch for a while.
        self.batches.leak();
        std::mem::forget(std::mem::replace(&mut self.peers, PeerAddresses::new(0)));
    }
}
