//! Memory that belongs to the kernel for now: batches being sent, addresses being filled in.

use std::cell::UnsafeCell;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use foldhash::fast::FixedState;

/// Batches that the kernel reads, at most one for each slot.
pub(super) struct Batches {
    by_slot: HashMap<u32, Vec<u8>, FixedState>,
}

impl Batches {
    pub(super) fn new() -> Self {
        // Slot numbers are the kernel's, no peer chooses them: a fixed seed is enough.
        Self { by_slot: HashMap::with_hasher(FixedState::with_seed(0)) }
    }

    /// Takes the batch and lends its bytes for the submission.
    pub(super) fn insert(&mut self, slot: u32, batch: Vec<u8>) -> &[u8] {
        let before = self.by_slot.insert(slot, batch);
        assert!(before.is_none(), "a slot has at most one send in flight");
        &self.by_slot[&slot]
    }

    /// Gives the batch back. Call on its completion only.
    pub(super) fn remove(&mut self, slot: u32) -> Vec<u8> {
        let Some(batch) = self.by_slot.remove(&slot) else {
            unreachable!("a send completed that was never submitted")
        };
        batch
    }

    /// Batches out.
    pub(super) fn len(&self) -> usize {
        self.by_slot.len()
    }

    /// The kernel may still read them: their memory is never freed.
    pub(super) fn leak(&mut self) {
        for (_, batch) in self.by_slot.drain() {
            std::mem::forget(batch);
        }
    }
}

/// Where the kernel writes the addresses of accepted peers, one place for each accept.
pub(super) struct PeerAddresses {
    places: Box<[UnsafeCell<Place>]>,
    armed: Box<[bool]>,
}

struct Place {
    storage: libc::sockaddr_storage,
    len: libc::socklen_t,
}

impl PeerAddresses {
    pub(super) fn new(count: u32) -> Self {
        let place = || {
            // SAFETY: all zero is a valid `sockaddr_storage` (plain integers).
            let storage = unsafe { std::mem::zeroed() };
            UnsafeCell::new(Place { storage, len: 0 })
        };
        Self { places: (0..count).map(|_| place()).collect(), armed: vec![false; count as usize].into() }
    }

    /// Hands a place to the kernel.
    pub(super) fn arm(&mut self, index: u32) -> (*mut libc::sockaddr, *mut libc::socklen_t) {
        let index = index as usize;
        assert!(!self.armed[index], "an accept is armed once");
        self.armed[index] = true;
        let place = self.places[index].get();
        // SAFETY: the place is not armed, so the kernel does not touch it; it lives as long as the ring.
        unsafe {
            (*place).len = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
            ((&raw mut (*place).storage).cast(), &raw mut (*place).len)
        }
    }

    /// Takes a place back on its completion and reads the address; `None` for a unix socket.
    pub(super) fn disarm(&mut self, index: u32) -> Option<SocketAddr> {
        let index = index as usize;
        assert!(self.armed[index], "an accept completed that was never armed");
        self.armed[index] = false;
        let place = self.places[index].get_mut();
        address_of(&place.storage, place.len)
    }
}

/// Reads an IPv4 or IPv6 address.
pub(super) fn address_of(storage: &libc::sockaddr_storage, len: libc::socklen_t) -> Option<SocketAddr> {
    match i32::from(storage.ss_family) {
        libc::AF_INET if len as usize >= size_of::<libc::sockaddr_in>() => {
            // SAFETY: the family says that the storage holds a `sockaddr_in`, and storage is large and aligned enough.
            let v4 = unsafe { &*(&raw const *storage).cast::<libc::sockaddr_in>() };
            let ip = Ipv4Addr::from(u32::from_be(v4.sin_addr.s_addr));
            Some(SocketAddr::new(IpAddr::V4(ip), u16::from_be(v4.sin_port)))
        }
        libc::AF_INET6 if len as usize >= size_of::<libc::sockaddr_in6>() => {
            // SAFETY: as above, with `sockaddr_in6`.
            let v6 = unsafe { &*(&raw const *storage).cast::<libc::sockaddr_in6>() };
            let ip = Ipv6Addr::from(v6.sin6_addr.s6_addr);
            Some(SocketAddr::new(IpAddr::V6(ip), u16::from_be(v6.sin6_port)))
        }
        _ => None,
    }
}
