//! What is submitted: the meaning of `user_data`, and submissions that refer to no memory of this process.

use std::os::fd::RawFd;
use std::sync::atomic::AtomicU8;

use io_uring::{opcode, squeue, types};

/// `IORING_RECVSEND_POLL_FIRST`: wait for readiness before the first attempt. An idle receive then needs no buffer (§3).
pub(super) const POLL_FIRST: u16 = 1 << 0;
/// `IORING_RECV_MULTISHOT`
const RECEIVE_MULTISHOT: u16 = 1 << 1;
/// Group number of a ring's receive buffers.
pub(super) const BUFFER_GROUP: u16 = 1;
/// Generations wrap at this: 24 bits of `user_data`.
pub const GENERATION_MASK: u32 = (1 << 24) - 1;

/// What an operation was for: the top byte of `user_data`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// One accept; the slot is the index of the accept, not of a socket.
    Accept = 1,
    /// A receive that stays armed.
    Receive = 2,
    /// A send whose success is silent.
    SendNow = 3,
    /// A send whose bytes the ring owns.
    SendOwned = 4,
    /// A cancellation; its success is silent.
    Cancel = 5,
    /// A socket's slot was freed.
    Close = 6,
    /// A connection was reset; its success is silent.
    Abort = 7,
    /// Another ring rang.
    Wake = 8,
    /// Ringing another ring failed; success is silent.
    WakeFailed = 9,
    /// A socket was made in a slot.
    Socket = 10,
    /// A socket is connected.
    Connect = 11,
    /// A socket option was set or an address bound; success is silent.
    Prepare = 12,
    /// A socket was asked whether its connection still lives.
    Probe = 13,
    /// Our side of a connection was closed.
    HalfClose = 14,
    /// The eventfd that the ring listens to was rung.
    Bell = 15,
}

impl Kind {
    const fn from_u8(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Accept,
            2 => Self::Receive,
            3 => Self::SendNow,
            4 => Self::SendOwned,
            5 => Self::Cancel,
            6 => Self::Close,
            7 => Self::Abort,
            8 => Self::Wake,
            9 => Self::WakeFailed,
            10 => Self::Socket,
            11 => Self::Connect,
            12 => Self::Prepare,
            13 => Self::Probe,
            14 => Self::HalfClose,
            15 => Self::Bell,
            _ => return None,
        })
    }
}

/// `kind:8 | generation:24 | slot:32`
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct UserData(pub(super) u64);

impl UserData {
    /// Packs the three; a generation is cut to 24 bits.
    #[must_use]
    pub const fn new(kind: Kind, slot: u32, generation: u32) -> Self {
        Self((kind as u64) << 56 | ((generation & GENERATION_MASK) as u64) << 32 | slot as u64)
    }

    /// What the operation was for. `None` for a value that this program never submits.
    #[must_use]
    pub const fn kind(self) -> Option<Kind> {
        Kind::from_u8((self.0 >> 56) as u8)
    }

    /// Direct descriptor, or index of an accept.
    #[must_use]
    pub const fn slot(self) -> u32 {
        self.0 as u32
    }

    /// Generation of the slot when the operation was submitted; index of the listener for an accept.
    #[must_use]
    pub const fn generation(self) -> u32 {
        (self.0 >> 32) as u32 & GENERATION_MASK
    }
}

impl std::fmt::Debug for UserData {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{:?} of slot {} generation {}",
            self.kind(),
            self.slot(),
            self.generation()
        )
    }
}

/// A submission that refers to no memory of this process, or to static memory only: safe to push at any time.
#[derive(Clone)]
pub struct Sqe(pub(super) squeue::Entry);

/// Address family "unspecified": connecting to it resets a TCP connection at once (§3).
static UNSPECIFIED: libc::sockaddr = libc::sockaddr {
    sa_family: libc::AF_UNSPEC as u16,
    sa_data: [0; 14],
};
/// Where the byte of a probe goes. Nobody reads it.
static PROBED: AtomicU8 = AtomicU8::new(0);
/// The value of a socket option that is switched on.
static ON: libc::c_int = 1;

impl Sqe {
    /// Arms a receive that stays armed until a completion without `more`. `cap` bounds the bytes of one wake-up; 0 is
    /// no bound and the only value before Linux 6.17.
    #[must_use]
    pub fn receive(slot: u32, generation: u32, cap: u32) -> Self {
        Self(
            opcode::Recv::new(types::Fixed(slot), std::ptr::null_mut(), cap)
                .ioprio(RECEIVE_MULTISHOT | POLL_FIRST)
                .buf_group(BUFFER_GROUP)
                .build()
                .flags(squeue::Flags::BUFFER_SELECT)
                .user_data(UserData::new(Kind::Receive, slot, generation).0),
        )
    }

    /// Receives once, and at most so many bytes; goes by the same `user_data` as `receive`.
    #[must_use]
    pub fn receive_once(slot: u32, generation: u32, most: u32) -> Self {
        Self(
            opcode::Recv::new(types::Fixed(slot), std::ptr::null_mut(), most)
                .ioprio(POLL_FIRST)
                .buf_group(BUFFER_GROUP)
                .build()
                .flags(squeue::Flags::BUFFER_SELECT)
                .user_data(UserData::new(Kind::Receive, slot, generation).0),
        )
    }

    /// Waits for the end of the connection in place of a receive, and goes by the same `user_data`. The result of a
    /// completion is events: `is_end` tells. The kernel also tells, once, of a peer that only closed its side, and nothing
    /// switches that off: so the watch stays armed, and each change is told once.
    #[must_use]
    pub fn watch(slot: u32, generation: u32) -> Self {
        Self(
            opcode::PollAdd::new(
                types::Fixed(slot),
                u32::from((libc::POLLERR | libc::POLLHUP).cast_unsigned()),
            )
            .multi(true)
            .build()
            .user_data(UserData::new(Kind::Receive, slot, generation).0),
        )
    }

    /// The events of a watch say that the connection is broken, or has ended both ways.
    #[must_use]
    pub const fn is_end(events: i32) -> bool {
        events > 0 && events & (libc::POLLERR | libc::POLLHUP) as i32 != 0
    }

    /// Asks whether the connection still lives, at once and without taking anything: `EAGAIN` if nothing has arrived, 1 if
    /// bytes wait, 0 at the end of the stream, else how it broke. A reset that came with the bytes before it wakes the armed
    /// receive only once, for the bytes.
    #[must_use]
    pub fn probe(slot: u32, generation: u32) -> Self {
        Self(
            opcode::Recv::new(types::Fixed(slot), PROBED.as_ptr(), 1)
                .flags(libc::MSG_PEEK | libc::MSG_DONTWAIT)
                .build()
                .user_data(UserData::new(Kind::Probe, slot, generation).0),
        )
    }

    /// Closes our side of a connection; the peer may still send. A thread of the kernel's does it, so the slot must not be
    /// freed before it completes.
    #[must_use]
    pub fn half_close(slot: u32, generation: u32) -> Self {
        Self(
            opcode::Shutdown::new(types::Fixed(slot), libc::SHUT_WR)
                .build()
                .user_data(UserData::new(Kind::HalfClose, slot, generation).0),
        )
    }

    /// Frees the slot. Only after the last completion of its receive: an armed receive keeps the socket alive (§3).
    #[must_use]
    pub fn close(slot: u32, generation: u32) -> Self {
        Self(
            opcode::Close::new(types::Fixed(slot))
                .build()
                .user_data(UserData::new(Kind::Close, slot, generation).0),
        )
    }

    /// Ends the slot's armed receive or watch, which then completes with `ECANCELED`.
    #[must_use]
    pub fn cancel_receive(slot: u32, generation: u32) -> Self {
        Self(
            opcode::AsyncCancel::new(UserData::new(Kind::Receive, slot, generation).0)
                .build()
                .flags(squeue::Flags::SKIP_SUCCESS)
                .user_data(UserData::new(Kind::Cancel, slot, generation).0),
        )
    }

    /// Ends the slot's owned send, which then completes with the bytes taken so far or `ECANCELED`.
    #[must_use]
    pub fn cancel_send(slot: u32, generation: u32) -> Self {
        Self(
            opcode::AsyncCancel::new(UserData::new(Kind::SendOwned, slot, generation).0)
                .build()
                .flags(squeue::Flags::SKIP_SUCCESS)
                .user_data(UserData::new(Kind::Cancel, slot, generation).0),
        )
    }

    /// Ends an armed accept, which then completes with `ECANCELED` unless it has a connection.
    #[must_use]
    pub fn cancel_accept(index: u32, listener: u32) -> Self {
        Self(
            opcode::AsyncCancel::new(UserData::new(Kind::Accept, index, listener).0)
                .build()
                .flags(squeue::Flags::SKIP_SUCCESS)
                .user_data(UserData::new(Kind::Cancel, index, listener).0),
        )
    }

    /// Resets a TCP connection inline: the peer gets RST, armed operations end with `ECONNRESET`. The slot stays taken.
    #[must_use]
    pub fn abort(slot: u32, generation: u32) -> Self {
        Self(
            opcode::Connect::new(
                types::Fixed(slot),
                &raw const UNSPECIFIED,
                size_of::<libc::sockaddr>() as u32,
            )
            .build()
            .flags(squeue::Flags::SKIP_SUCCESS)
            .user_data(UserData::new(Kind::Abort, slot, generation).0),
        )
    }

    /// Wakes another ring of this process: it gets a completion of kind `Wake`.
    #[must_use]
    pub fn wake(ring: RawFd) -> Self {
        Self(
            opcode::MsgRingData::new(types::Fd(ring), 0, UserData::new(Kind::Wake, 0, 0).0, None)
                .build()
                .flags(squeue::Flags::SKIP_SUCCESS)
                .user_data(UserData::new(Kind::WakeFailed, 0, 0).0),
        )
    }

    /// Listens to an eventfd until a completion without `more`: each ring of it is a completion, or one with others. Nobody
    /// has to take its count (a poll that stays armed looks for the next write, not at the count; Linux 5.13).
    #[must_use]
    pub(super) fn listen(eventfd: RawFd) -> Self {
        Self(
            opcode::PollAdd::new(types::Fd(eventfd), libc::POLLIN as u32)
                .multi(true)
                .build()
                .user_data(UserData::new(Kind::Bell, 0, 0).0),
        )
    }

    /// Makes a stream socket in the given slot of the file table. `domain` is `AF_INET`, `AF_INET6` or `AF_UNIX`.
    /// The slot must be below the size of the table.
    #[must_use]
    pub fn socket(slot: u32, generation: u32, domain: i32) -> Self {
        Self(
            opcode::Socket::new(domain, libc::SOCK_STREAM, 0)
                .file_index(types::DestinationSlot::try_from_slot_target(slot).ok())
                .build()
                .user_data(UserData::new(Kind::Socket, slot, generation).0),
        )
    }

    /// Sets `TCP_NODELAY`.
    #[must_use]
    pub fn nodelay(slot: u32, generation: u32) -> Self {
        Self(
            opcode::SetSockOpt::new(
                types::Fixed(slot),
                libc::IPPROTO_TCP as u32,
                libc::TCP_NODELAY as u32,
                (&raw const ON).cast(),
                size_of::<libc::c_int>() as u32,
            )
            .build()
            .flags(squeue::Flags::SKIP_SUCCESS)
            .user_data(UserData::new(Kind::Prepare, slot, generation).0),
        )
    }

    /// See `socket::set_unacknowledged_max`. `milliseconds` lives as long as the process.
    #[must_use]
    pub fn unacknowledged_max(
        slot: u32,
        generation: u32,
        milliseconds: &'static libc::c_uint,
    ) -> Self {
        Self(
            opcode::SetSockOpt::new(
                types::Fixed(slot),
                libc::IPPROTO_TCP as u32,
                libc::TCP_USER_TIMEOUT as u32,
                (&raw const *milliseconds).cast(),
                size_of::<libc::c_uint>() as u32,
            )
            .build()
            .flags(squeue::Flags::SKIP_SUCCESS)
            .user_data(UserData::new(Kind::Prepare, slot, generation).0),
        )
    }

    /// Starts the next submission only when this one has ended, whatever its result.
    #[must_use]
    pub(super) fn then(self) -> Self {
        Self(self.0.flags(squeue::Flags::IO_HARDLINK))
    }
}

/// A send that never waits: all, or a completion with the bytes taken. The kernel is done with `bytes` when the
/// submitting call returns (§4, fast mode).
pub(super) fn send_now(slot: u32, generation: u32, bytes: &[u8]) -> squeue::Entry {
    debug_assert!(
        bytes.len() <= i32::MAX as usize,
        "a send's result is an i32"
    );
    opcode::Send::new(types::Fixed(slot), bytes.as_ptr(), bytes.len() as u32)
        .flags(libc::MSG_DONTWAIT | libc::MSG_WAITALL | libc::MSG_NOSIGNAL)
        .build()
        .flags(squeue::Flags::SKIP_SUCCESS)
        .user_data(UserData::new(Kind::SendNow, slot, generation).0)
}

/// A send that waits in the kernel until all is taken (§4, queued mode).
pub(super) fn send_owned(slot: u32, generation: u32, bytes: &[u8]) -> squeue::Entry {
    debug_assert!(
        bytes.len() <= i32::MAX as usize,
        "a send's result is an i32"
    );
    opcode::Send::new(types::Fixed(slot), bytes.as_ptr(), bytes.len() as u32)
        .flags(libc::MSG_WAITALL | libc::MSG_NOSIGNAL)
        .build()
        .user_data(UserData::new(Kind::SendOwned, slot, generation).0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_data_gives_back_what_was_packed() {
        for byte in 1..=15 {
            let kind = Kind::from_u8(byte).unwrap();
            let packed = UserData::new(kind, u32::MAX - 7, GENERATION_MASK + 3);
            assert_eq!(
                (packed.kind(), packed.slot(), packed.generation()),
                (Some(kind), u32::MAX - 7, 2)
            );
        }
        assert_eq!(UserData(0).kind(), None);
    }
}
