//! Listeners, descriptor limits, and sends and receives that never block.

use std::ffi::CString;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};

/// A listener for TCP. Several may listen on one address: the kernel spreads connections over them.
/// `TCP_NODELAY` is set here and inherited by every accepted socket.
pub fn listen_tcp(address: SocketAddr, backlog: u32) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_tcp_nodelay(true)?;
    socket.bind(&address.into())?;
    socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))?;
    Ok(socket)
}

/// The number of a group: its name is looked up where this host keeps names.
#[must_use]
pub fn group_id(name: &str) -> Option<u32> {
    if let Ok(id) = name.parse() {
        return Some(id);
    }
    let name = CString::new(name).ok()?;
    let mut buffer = vec![0u8; 64 * 1024];
    // SAFETY: all zero is a valid `group`: its pointers are null and its numbers 0.
    let mut group: libc::group = unsafe { std::mem::zeroed() };
    let mut found = std::ptr::null_mut();
    // SAFETY: passes live locals, the buffer with its length; what it points to is not looked at afterwards.
    let status = unsafe {
        libc::getgrnam_r(
            name.as_ptr(),
            &raw mut group,
            buffer.as_mut_ptr().cast(),
            buffer.len(),
            &raw mut found,
        )
    };
    (status == 0 && !found.is_null()).then_some(group.gr_gid)
}

/// Numbers that an option of a socket consists of; `None` where the kernel says fewer.
fn numbers<const N: usize>(
    socket: &impl AsRawFd,
    level: libc::c_int,
    option: libc::c_int,
) -> Option<[u32; N]> {
    let mut numbers = [0; N];
    let mut len = size_of_val(&numbers) as libc::socklen_t;
    // SAFETY: the kernel writes into a live local, at most `len` bytes.
    let status = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            level,
            option,
            numbers.as_mut_ptr().cast(),
            &raw mut len,
        )
    };
    (status == 0 && len as usize == size_of_val(&numbers)).then_some(numbers)
}

/// Connections that wait on a TCP listener to be accepted, and how many may: `tcp_info` says it in two fields that mean
/// something else for connections (`tcpi_unacked`, `tcpi_sacked`).
#[must_use]
pub fn accept_queue(listener: &impl AsRawFd) -> Option<(u32, u32)> {
    let info: [u32; 8] = numbers(listener, libc::IPPROTO_TCP, libc::TCP_INFO)?;
    Some((info[6], info[7]))
}

/// Connections that the kernel refused on a listener because its queue was full.
#[must_use]
pub fn drops(listener: &impl AsRawFd) -> Option<u32> {
    /// `SO_MEMINFO` of `asm-generic/socket.h`, and `SK_MEMINFO_DROPS`.
    const SO_MEMINFO: libc::c_int = 55;
    let info: [u32; 9] = numbers(listener, libc::SOL_SOCKET, SO_MEMINFO)?;
    Some(info[8])
}

/// How long a peer may be silent until the kernel takes it for dead. A peer whose network is gone says nothing at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// Silence after which it is asked.
    pub idle: Duration,
    /// Time between questions.
    pub interval: Duration,
    /// Silence after a question, and age of what it has not acknowledged, that ends the connection.
    pub total: Duration,
}

/// Sets it on a listener: accepted sockets inherit it.
pub fn set_patience(listener: &Socket, patience: Patience) -> io::Result<()> {
    const SECOND: Duration = Duration::from_secs(1);
    let questions = patience.total.as_secs() / patience.interval.as_secs().max(1) + 1;
    let keepalive = TcpKeepalive::new()
        .with_time(patience.idle.max(SECOND))
        .with_interval(patience.interval.max(SECOND))
        .with_retries(u32::try_from(questions).unwrap_or(u32::MAX).clamp(1, 100));
    listener.set_tcp_keepalive(&keepalive)?;
    set_unacknowledged_max(listener, patience.total)
}

/// Ends the connection when its peer has not acknowledged something, or has taken nothing, for this long.
pub fn set_unacknowledged_max(socket: &impl AsRawFd, time: Duration) -> io::Result<()> {
    let milliseconds = libc::c_uint::try_from(time.as_millis()).unwrap_or(libc::c_uint::MAX);
    // SAFETY: the kernel reads a live local of the given length within the call.
    let set = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_USER_TIMEOUT,
            (&raw const milliseconds).cast(),
            size_of::<libc::c_uint>() as libc::socklen_t,
        )
    };
    if set < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// The kernel could not do it just now, for want of room, memory or time: nothing is wrong with the socket, and it is tried again.
#[must_use]
pub const fn is_passing(errno: i32) -> bool {
    matches!(
        errno,
        libc::EAGAIN | libc::EINTR | libc::ENOBUFS | libc::ENOMEM
    )
}

/// Sends without waiting; the bytes taken.
pub fn send(socket: &impl AsRawFd, bytes: &[u8]) -> io::Result<usize> {
    // SAFETY: the kernel reads `bytes` within the call.
    let sent = unsafe {
        libc::send(
            socket.as_raw_fd(),
            bytes.as_ptr().cast(),
            bytes.len(),
            libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL,
        )
    };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}

/// Receives without waiting; 0 is the end of the stream.
pub fn receive(socket: &impl AsRawFd, into: &mut [u8]) -> io::Result<usize> {
    // SAFETY: the kernel writes into `into` within the call, at most its length.
    let received = unsafe {
        libc::recv(
            socket.as_raw_fd(),
            into.as_mut_ptr().cast(),
            into.len(),
            libc::MSG_DONTWAIT,
        )
    };
    usize::try_from(received).map_err(|_| io::Error::last_os_error())
}

/// The events of these that hold for the socket now, and the two that the kernel adds.
fn poll(socket: &impl AsRawFd, events: libc::c_short) -> libc::c_short {
    let mut poll = libc::pollfd {
        fd: socket.as_raw_fd(),
        events,
        revents: 0,
    };
    // SAFETY: the kernel writes one live `pollfd` within the call, which does not wait.
    let ready = unsafe { libc::poll(&raw mut poll, 1, 0) };
    if ready > 0 { poll.revents } else { 0 }
}

/// Whether the connection was reset, or has ended both ways. A peer that only closed its side does not count.
pub fn is_broken(socket: &impl AsRawFd) -> bool {
    poll(socket, 0) & (libc::POLLERR | libc::POLLHUP) != 0
}

/// Whether somebody waits to be accepted, or bytes to be read.
pub fn is_readable(socket: &impl AsRawFd) -> bool {
    poll(socket, libc::POLLIN) & libc::POLLIN != 0
}

/// Resets a connection at once: the peer gets RST, waiting operations end. A unix socket, which knows no reset, is shut
/// down both ways.
pub fn abort(socket: &impl AsRawFd) {
    let unspecified = libc::sockaddr {
        sa_family: libc::AF_UNSPEC as u16,
        sa_data: [0; 14],
    };
    let len = size_of::<libc::sockaddr>() as libc::socklen_t;
    // SAFETY: the kernel reads a live local of the given length within the call.
    let reset = unsafe { libc::connect(socket.as_raw_fd(), &raw const unspecified, len) };
    if reset < 0 {
        // SAFETY: no memory is passed. A socket that is not connected any more refuses, which is as good.
        unsafe { libc::shutdown(socket.as_raw_fd(), libc::SHUT_RDWR) };
    }
}

/// Closes our side of a connection: the peer reads its end. One that is broken already has no side to close.
pub fn half_close(socket: &impl AsRawFd) {
    // SAFETY: no memory is passed.
    unsafe { libc::shutdown(socket.as_raw_fd(), libc::SHUT_WR) };
}

/// Descriptors that this process may have, and slots that a file table may have.
#[must_use]
pub fn descriptors_max() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// Bytes that this user may lock; rings are charged to it unless the process has `CAP_IPC_LOCK` (§2.2).
#[must_use]
pub fn locked_bytes_max() -> u64 {
    getrlimit(Resource::Memlock).current.unwrap_or(u64::MAX)
}

/// Raises the descriptor limit to the hard limit; the limit then in force.
pub fn raise_descriptors_max() -> u64 {
    let maximum = getrlimit(Resource::Nofile).maximum;
    let raised = Rlimit {
        current: maximum,
        maximum,
    };
    // On failure the limit stays, and is what is said.
    let _ = setrlimit(Resource::Nofile, raised);
    descriptors_max()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_found_by_name_and_by_number() {
        assert_eq!(group_id("root"), Some(0));
        assert_eq!(group_id("4711"), Some(4711));
        assert_eq!(group_id("no-such-group"), None);
        assert_eq!(group_id("a\0b"), None);
    }

    #[test]
    fn a_full_accept_queue_is_seen_with_what_it_dropped() {
        let listener = listen_tcp("127.0.0.1:0".parse().unwrap(), 1).unwrap();
        assert_eq!(accept_queue(&listener), Some((0, 1)));
        let at = listener.local_addr().unwrap();
        let clients: Vec<Socket> = (0..4)
            .map(|_| {
                let client = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
                client.set_nonblocking(true).unwrap();
                let _ = client.connect(&at);
                client
            })
            .collect();
        // The queue takes one more than its length.
        assert_eq!(accept_queue(&listener), Some((2, 1)));
        assert!(drops(&listener).is_some_and(|dropped| dropped > 0));
        drop(clients);
    }

    #[test]
    fn accepted_sockets_inherit_nodelay_and_patience() {
        let listener = listen_tcp("127.0.0.1:0".parse().unwrap(), 8).unwrap();
        let patience = Patience {
            idle: Duration::from_secs(25),
            interval: Duration::from_secs(2),
            total: Duration::from_secs(33),
        };
        set_patience(&listener, patience).unwrap();
        let client = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        client.connect(&listener.local_addr().unwrap()).unwrap();
        let accepted = listener.accept().unwrap().0;
        assert!(accepted.tcp_nodelay().unwrap());
        assert!(accepted.keepalive().unwrap());
        assert_eq!(accepted.tcp_keepalive_time().unwrap(), patience.idle);
        assert_eq!(accepted.tcp_user_timeout().unwrap(), Some(patience.total));
        let shorter = Duration::from_millis(1500);
        set_unacknowledged_max(&accepted, shorter).unwrap();
        assert_eq!(accepted.tcp_user_timeout().unwrap(), Some(shorter));
    }
}
