//! Listeners, descriptor limits, and sends and receives that never block.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

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

/// A listener on a unix socket. The file of a socket that nobody listens on is removed first; a live one is
/// `AddrInUse`, and so is a file that is no socket. Shards share it by `Socket::try_clone`.
pub fn listen_unix(path: &Path, backlog: u32) -> io::Result<Socket> {
    let address = SockAddr::unix(path)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    if let Ok(metadata) = std::fs::symlink_metadata(path) {
        let probe = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        let stale = metadata.file_type().is_socket()
            && probe
                .connect(&address)
                .is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused);
        if !stale {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        std::fs::remove_file(path)?;
    }
    socket.bind(&address)?;
    socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))?;
    Ok(socket)
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

/// Whether the connection was reset, or has ended both ways. A peer that only closed its side does not count.
pub fn is_broken(socket: &impl AsRawFd) -> bool {
    let mut poll = libc::pollfd {
        fd: socket.as_raw_fd(),
        events: 0,
        revents: 0,
    };
    // SAFETY: the kernel writes one live `pollfd` within the call, which does not wait.
    let ready = unsafe { libc::poll(&raw mut poll, 1, 0) };
    ready > 0 && poll.revents & (libc::POLLERR | libc::POLLHUP) != 0
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

fn limit(resource: libc::__rlimit_resource_t) -> libc::rlimit {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: writes a local of the right type. On failure the limit stays zero.
    unsafe { libc::getrlimit(resource, &raw mut limit) };
    limit
}

/// Descriptors that this process may have, and slots that a file table may have.
#[must_use]
pub fn descriptors_max() -> u64 {
    limit(libc::RLIMIT_NOFILE).rlim_cur
}

/// Bytes that this user may lock; rings are charged to it unless the process has `CAP_IPC_LOCK` (§2.2).
#[must_use]
pub fn locked_bytes_max() -> u64 {
    limit(libc::RLIMIT_MEMLOCK).rlim_cur
}

/// Raises the descriptor limit to the hard limit; the limit then in force.
pub fn raise_descriptors_max() -> u64 {
    let mut raised = limit(libc::RLIMIT_NOFILE);
    raised.rlim_cur = raised.rlim_max;
    // SAFETY: passes a live local. A refusal leaves the limit as it was, which is then reported.
    unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const raised) };
    descriptors_max()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_unix_socket_is_replaced_and_a_live_one_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let first = listen_unix(&path, 8).unwrap();
        assert_eq!(
            listen_unix(&path, 8).unwrap_err().kind(),
            io::ErrorKind::AddrInUse
        );
        drop(first);
        listen_unix(&path, 8).unwrap();
    }

    #[test]
    fn a_file_that_is_no_socket_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        std::fs::write(&path, "precious").unwrap();
        assert_eq!(
            listen_unix(&path, 8).unwrap_err().kind(),
            io::ErrorKind::AddrInUse
        );
        assert_eq!(std::fs::read(&path).unwrap(), b"precious");
    }

    #[test]
    fn accepted_sockets_inherit_nodelay() {
        let listener = listen_tcp("127.0.0.1:0".parse().unwrap(), 8).unwrap();
        let client = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        client.connect(&listener.local_addr().unwrap()).unwrap();
        assert!(listener.accept().unwrap().0.tcp_nodelay().unwrap());
    }
}
