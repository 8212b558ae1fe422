//! What the kernel says of an operation.

use std::net::SocketAddr;

use io_uring::cqueue;

use super::buffer_ring::Piece;
use super::op::{Kind, UserData};

/// Something ended. Neither `Copy` nor `Clone`: its buffer is taken once.
#[derive(Debug)]
pub struct Completion {
    pub(super) user_data: UserData,
    pub(super) result: i32,
    pub(super) flags: u32,
    /// Where the bytes of a receive are.
    pub(super) piece: Option<Piece>,
}

impl Completion {
    /// What the operation was for.
    #[must_use]
    pub fn kind(&self) -> Option<Kind> {
        self.user_data.kind()
    }

    /// Direct descriptor, or index of the accept.
    #[must_use]
    pub fn slot(&self) -> u32 {
        self.user_data.slot()
    }

    /// Generation under which the operation was submitted.
    #[must_use]
    pub fn generation(&self) -> u32 {
        self.user_data.generation()
    }

    /// Bytes, descriptor or zero; a negative errno on failure.
    #[must_use]
    pub fn result(&self) -> i32 {
        self.result
    }

    /// Bytes that a receive has brought.
    #[must_use]
    pub fn bytes(&self) -> usize {
        usize::try_from(self.result).unwrap_or(0)
    }

    /// The operation stays armed.
    #[must_use]
    pub fn more(&self) -> bool {
        cqueue::more(self.flags)
    }

    /// More bytes wait in the socket.
    #[must_use]
    pub fn nonempty(&self) -> bool {
        cqueue::sock_nonempty(self.flags)
    }
}

/// What became of one accept.
#[derive(Debug)]
pub struct Accepted {
    /// Which accept; it is no longer armed.
    pub index: u32,
    /// Which listener.
    pub listener: u32,
    /// The socket's slot, or a positive errno.
    pub slot: Result<u32, i32>,
    /// The peer; `None` for a unix socket.
    pub peer: Option<SocketAddr>,
}
