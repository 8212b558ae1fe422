//! Listeners, in two steps: an address is first bound, which nobody notices but another process that wants it, and
//! listened on once everything behind it stands. Whoever connects then is served, never reset.

use std::fs::{File, TryLockError};
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::socket;
use crate::config::{FileMode, ListenAddr};
use crate::limits::KERNEL_UNSENT_BYTES;

/// The ring of a process that was killed keeps its listeners for some tens of milliseconds after the process is gone, and
/// resets whom it accepts. Its successor waits until they are gone, this long in steps of this length.
const PATIENCE: Duration = Duration::from_secs(2);
const STEP: Duration = Duration::from_millis(10);
/// Two processes that begin to listen on one address at the same instant can both be refused; then both try again.
const LISTEN_TRIES: u32 = 20;

/// How an address is listened on.
#[derive(Clone, Debug)]
pub struct Terms {
    /// The key that names the address, for errors.
    pub key: &'static str,
    /// Length of the accept queue.
    pub backlog: u32,
    /// Other processes may listen on the same address. Unix sockets are never shared.
    pub shared: bool,
    /// `[::]` is every address of IPv6 alone.
    pub only_v6: bool,
    /// Permissions of a unix socket.
    pub mode: FileMode,
    /// Group of a unix socket, by name or number; empty for the process' own.
    pub group: String,
}

/// Why an address is not listened on.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Somebody else does.
    #[error(
        "{key}: cannot listen on {address}: another process listens there; {}",
        hint(key, address)
    )]
    InUse {
        /// The key that names it.
        key: &'static str,
        /// As configured.
        address: ListenAddr,
    },
    /// A file is in the way that is no socket.
    #[error("{key}: cannot listen on {address}: a file is there that is no socket")]
    NoSocket {
        /// The key that names it.
        key: &'static str,
        /// As configured.
        address: ListenAddr,
    },
    /// Somebody keeps the directory of a unix socket locked.
    #[error("{key}: cannot listen on {address}: another process keeps its directory locked")]
    Locked {
        /// The key that names it.
        key: &'static str,
        /// As configured.
        address: ListenAddr,
    },
    /// There is no such group.
    #[error("{key}: cannot listen on {address}: there is no group {group:?} on this host")]
    NoGroup {
        /// The key that names it.
        key: &'static str,
        /// As configured.
        address: ListenAddr,
        /// As configured.
        group: String,
    },
    /// What else the kernel says.
    #[error("{key}: cannot listen on {address}: {step}: {cause}")]
    Other {
        /// The key that names it.
        key: &'static str,
        /// As configured.
        address: ListenAddr,
        /// What was tried.
        step: &'static str,
        /// Why not.
        #[source]
        cause: io::Error,
    },
}

fn hint(key: &str, address: &ListenAddr) -> &'static str {
    match address {
        ListenAddr::Tcp(_) if key.starts_with("server.") => {
            "end it, choose another address, or let both share clients with server.shared_port = true"
        }
        _ => "end it or choose another address",
    }
}

/// An address with sockets that do not listen yet.
#[derive(Debug)]
pub struct Bound {
    address: ListenAddr,
    terms: Terms,
    /// One for each accepting thread; a unix socket has one that all share.
    sockets: Vec<Socket>,
    group: Option<u32>,
    /// Somebody else listens on them already, and keeps them when this process ends.
    is_inherited: bool,
}

impl Bound {
    /// Takes the address for `count` sockets. On TCP that makes it this process' own unless it is to be shared.
    ///
    /// # Errors
    /// When somebody else listens there and does not stop within `PATIENCE`, or the kernel refuses.
    pub fn new(address: &ListenAddr, count: usize, terms: &Terms) -> Result<Self, ListenError> {
        let mut waited = Duration::ZERO;
        loop {
            match Self::try_new(address, count, terms) {
                Err(ListenError::InUse { .. }) if waited < PATIENCE => {
                    std::thread::sleep(STEP);
                    waited += STEP;
                }
                other => return other,
            }
        }
    }

    fn try_new(address: &ListenAddr, count: usize, terms: &Terms) -> Result<Self, ListenError> {
        let failed = |step, cause: io::Error| refused(terms, address, step, cause);
        let mut bound = Self {
            address: address.clone(),
            terms: terms.clone(),
            sockets: Vec::with_capacity(count),
            group: None,
            is_inherited: false,
        };
        match address {
            ListenAddr::Tcp(at) => {
                let mut at = *at;
                for index in 0..count {
                    let is_alone = index == 0 && !terms.shared;
                    let socket = bind_tcp(at, is_alone, terms.only_v6)
                        .map_err(|cause| failed("bind", cause))?;
                    let own = socket.local_addr().map_err(|cause| failed("bind", cause))?;
                    at = own.as_socket().unwrap_or(at);
                    bound.sockets.push(socket);
                }
                bound.address = ListenAddr::Tcp(at);
            }
            ListenAddr::Unix(path) => {
                if !terms.group.is_empty() {
                    let group = socket::group_id(&terms.group);
                    bound.group = Some(group.ok_or_else(|| ListenError::NoGroup {
                        key: terms.key,
                        address: address.clone(),
                        group: terms.group.clone(),
                    })?);
                }
                let name = SockAddr::unix(path).map_err(|cause| failed("the path", cause))?;
                look_at(terms, address, path, &name)?;
                let socket = Socket::new(Domain::UNIX, Type::STREAM, None);
                let socket = socket.map_err(|cause| failed("socket", cause))?;
                bound.sockets.push(socket);
            }
        }
        Ok(bound)
    }

    /// With the port that the kernel chose.
    #[must_use]
    pub const fn address(&self) -> &ListenAddr {
        &self.address
    }

    /// A socket that somebody else bound.
    pub(super) fn inherited(address: ListenAddr, socket: Socket, terms: &Terms) -> Self {
        Self {
            address,
            terms: terms.clone(),
            sockets: vec![socket],
            group: None,
            is_inherited: true,
        }
    }

    /// Another one that somebody else bound to the same address.
    pub(super) fn join(&mut self, socket: Socket) {
        self.sockets.push(socket);
    }

    /// Who waits in its queue when this process ends is served by the next one.
    #[must_use]
    pub const fn is_inherited(&self) -> bool {
        self.is_inherited
    }

    /// Which sockets one of so many threads accepts on. Each thread has one at least, and each socket a thread: where
    /// there are fewer sockets, threads share one queue.
    #[must_use]
    pub fn share(&self, thread: usize, threads: usize) -> Vec<usize> {
        let sockets = self.sockets.len();
        if threads >= sockets {
            return vec![thread % sockets];
        }
        (thread..sockets).step_by(threads.max(1)).collect()
    }

    /// The same socket for a thread that will accept on it.
    ///
    /// # Errors
    /// When the process has no descriptor left.
    pub fn socket(&self, index: usize) -> io::Result<Socket> {
        self.sockets[index].try_clone()
    }

    /// From now on connections are accepted.
    ///
    /// # Errors
    /// When somebody else was faster, or the kernel refuses.
    pub fn listen(&self) -> Result<(), ListenError> {
        if self.is_inherited {
            return self.adopt();
        }
        match &self.address {
            ListenAddr::Tcp(_) => self.listen_tcp(),
            ListenAddr::Unix(path) => self.listen_unix(path),
        }
    }

    fn backlog(&self) -> i32 {
        i32::try_from(self.terms.backlog).unwrap_or(i32::MAX)
    }

    /// Whoever connected before waits in the queue, whose length is from now on the configured one.
    fn adopt(&self) -> Result<(), ListenError> {
        let failed = |cause| {
            let step = "taking over the socket that was handed over";
            refused(&self.terms, &self.address, step, cause)
        };
        for socket in &self.sockets {
            if matches!(self.address, ListenAddr::Tcp(_)) {
                socket.set_tcp_nodelay(true).map_err(failed)?;
                socket
                    .set_tcp_notsent_lowat(KERNEL_UNSENT_BYTES)
                    .map_err(failed)?;
            }
            socket.listen(self.backlog()).map_err(failed)?;
        }
        Ok(())
    }

    /// The first socket listens alone: the kernel refuses that while anybody else listens, and then everybody else. The
    /// others join it.
    fn listen_tcp(&self) -> Result<(), ListenError> {
        let failed = |cause| refused(&self.terms, &self.address, "listen", cause);
        let mut tries = 0;
        for (index, socket) in self.sockets.iter().enumerate() {
            while let Err(cause) = socket.listen(self.backlog()) {
                tries += 1;
                if cause.kind() != io::ErrorKind::AddrInUse || tries >= LISTEN_TRIES {
                    return Err(failed(cause));
                }
                // Two that wait equally long would meet again.
                std::thread::sleep(STEP * (std::process::id() % 7) / 2);
            }
            if index == 0 {
                socket.set_reuse_port(true).map_err(failed)?;
            }
        }
        Ok(())
    }

    /// Holds whoever else starts on a path in the same directory off, for as long as the file is open.
    fn lock(&self, directory: &File) -> Result<(), ListenError> {
        let mut waited = Duration::ZERO;
        loop {
            match directory.try_lock() {
                Ok(()) => return Ok(()),
                Err(TryLockError::WouldBlock) if waited < PATIENCE => {
                    std::thread::sleep(STEP);
                    waited += STEP;
                }
                Err(TryLockError::WouldBlock) => {
                    return Err(ListenError::Locked {
                        key: self.terms.key,
                        address: self.address.clone(),
                    });
                }
                Err(TryLockError::Error(cause)) => {
                    let step = "the lock of its directory";
                    return Err(refused(&self.terms, &self.address, step, cause));
                }
            }
        }
    }

    /// Nobody can connect before mode and group are as they should be. Whoever else starts on the same path waits for the
    /// lock of its directory, and then finds somebody who listens.
    fn listen_unix(&self, path: &Path) -> Result<(), ListenError> {
        let failed =
            |step| move |cause: io::Error| refused(&self.terms, &self.address, step, cause);
        let name = SockAddr::unix(path).map_err(failed("the path"))?;
        let directory = path
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty());
        let directory = directory.map_or_else(|| PathBuf::from("."), Path::to_owned);
        let directory = File::open(directory).map_err(failed("its directory"))?;
        self.lock(&directory)?;
        if look_at(&self.terms, &self.address, path, &name)? == Found::Stale {
            std::fs::remove_file(path)
                .map_err(failed("removing the socket of a process that is gone"))?;
        }
        let socket = &self.sockets[0];
        socket.bind(&name).map_err(failed("bind"))?;
        if self.group.is_some() {
            std::os::unix::fs::chown(path, None, self.group).map_err(failed(
                "giving the socket to server.unix_group or admin.unix_group",
            ))?;
        }
        let mode = std::os::unix::fs::PermissionsExt::from_mode(self.terms.mode.0);
        std::fs::set_permissions(path, mode).map_err(failed("the mode of the socket"))?;
        socket.listen(self.backlog()).map_err(failed("listen"))
    }
}

/// What is at the path of a unix socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    Nothing,
    /// A socket that nobody listens on.
    Stale,
}

fn look_at(
    terms: &Terms,
    address: &ListenAddr,
    path: &Path,
    name: &SockAddr,
) -> Result<Found, ListenError> {
    let metadata = match std::fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(Found::Nothing),
        Err(cause) => return Err(refused(terms, address, "the path", cause)),
    };
    if !metadata.file_type().is_socket() {
        return Err(ListenError::NoSocket {
            key: terms.key,
            address: address.clone(),
        });
    }
    let probe = Socket::new(Domain::UNIX, Type::STREAM, None);
    let probe = probe.map_err(|cause| refused(terms, address, "socket", cause))?;
    probe
        .set_nonblocking(true)
        .map_err(|cause| refused(terms, address, "socket", cause))?;
    match probe.connect(name) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(Found::Stale),
        // Also a full accept queue, and a socket that this user may not connect to, is somebody's.
        _ => Err(ListenError::InUse {
            key: terms.key,
            address: address.clone(),
        }),
    }
}

fn refused(
    terms: &Terms,
    address: &ListenAddr,
    step: &'static str,
    cause: io::Error,
) -> ListenError {
    let (key, address) = (terms.key, address.clone());
    if cause.kind() == io::ErrorKind::AddrInUse {
        return ListenError::InUse { key, address };
    }
    ListenError::Other {
        key,
        address,
        step,
        cause,
    }
}

/// A socket at the address. Alone, it finds the address in use while anybody listens there, also where they would share.
fn bind_tcp(address: SocketAddr, is_alone: bool, only_v6: bool) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    if address.is_ipv6() {
        socket.set_only_v6(only_v6)?;
    }
    // A port that the kernel chooses is nobody's; with the option set it could be one that is bound and not listened on.
    let chooses = address.port() == 0;
    socket.set_reuse_address(!chooses)?;
    socket.set_reuse_port(!is_alone)?;
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_notsent_lowat(KERNEL_UNSENT_BYTES)?;
    socket.bind(&address.into())?;
    socket.set_reuse_address(true)?;
    Ok(socket)
}

/// Connections that wait to be accepted, and how many may, of a listener.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Queue {
    /// Waiting.
    pub length: u32,
    /// At most.
    pub length_max: u32,
    /// Refused by the kernel because the queue was full, since the listener exists.
    pub dropped: u32,
}

impl Queue {
    /// What the kernel says of a TCP listener; nothing of a unix socket.
    #[must_use]
    pub fn of(listener: &impl AsRawFd) -> Option<Self> {
        let (length, length_max) = socket::accept_queue(listener)?;
        Some(Self {
            length,
            length_max,
            dropped: socket::drops(listener).unwrap_or(0),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    use std::os::unix::net::UnixStream;

    fn terms() -> Terms {
        Terms {
            key: "server.listen",
            backlog: 8,
            only_v6: true,
            shared: false,
            mode: FileMode(0o660),
            group: String::new(),
        }
    }

    fn unix(path: &Path) -> ListenAddr {
        ListenAddr::Unix(path.to_owned())
    }

    fn any_port() -> ListenAddr {
        ListenAddr::Tcp("127.0.0.1:0".parse().unwrap())
    }

    #[test]
    fn a_stale_unix_socket_is_replaced_and_a_live_one_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let first = Bound::new(&unix(&path), 1, &terms()).unwrap();
        first.listen().unwrap();
        let second = Bound::try_new(&unix(&path), 1, &terms());
        assert!(matches!(second, Err(ListenError::InUse { .. })));
        drop(first);
        let second = Bound::try_new(&unix(&path), 1, &terms()).unwrap();
        second.listen().unwrap();
        UnixStream::connect(&path).unwrap();
    }

    #[test]
    fn a_directory_that_stays_locked_is_given_up() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let bound = Bound::new(&unix(&path), 1, &terms()).unwrap();
        let other = File::open(directory.path()).unwrap();
        other.lock().unwrap();
        assert!(matches!(bound.listen(), Err(ListenError::Locked { .. })));
        other.unlock().unwrap();
        bound.listen().unwrap();
    }

    #[test]
    fn a_file_that_is_no_socket_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        std::fs::write(&path, "precious").unwrap();
        let refused = Bound::new(&unix(&path), 1, &terms());
        assert!(matches!(refused, Err(ListenError::NoSocket { .. })));
        assert_eq!(std::fs::read(&path).unwrap(), b"precious");
    }

    #[test]
    fn a_unix_socket_has_the_mode_and_the_group_that_it_was_given() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let group = std::fs::metadata(directory.path()).unwrap().gid();
        for mode in [0o600, 0o660, 0o666] {
            let terms = Terms {
                mode: FileMode(mode),
                group: group.to_string(),
                ..terms()
            };
            Bound::new(&unix(&path), 1, &terms)
                .unwrap()
                .listen()
                .unwrap();
            let metadata = std::fs::metadata(&path).unwrap();
            assert_eq!(metadata.permissions().mode() & 0o777, mode);
            assert_eq!(metadata.gid(), group);
        }
        let terms = Terms {
            group: "no-such-group".to_owned(),
            ..terms()
        };
        let refused = Bound::new(&unix(&path), 1, &terms);
        assert!(matches!(refused, Err(ListenError::NoGroup { .. })));
    }

    #[test]
    fn of_two_that_start_on_one_unix_path_one_wins() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let first = Bound::new(&unix(&path), 1, &terms()).unwrap();
        let second = Bound::new(&unix(&path), 1, &terms()).unwrap();
        second.listen().unwrap();
        assert!(matches!(first.listen(), Err(ListenError::InUse { .. })));
        UnixStream::connect(&path).expect("the winner is still reached by its path");
    }

    #[test]
    fn a_tcp_address_is_its_processes_own_unless_it_is_shared() {
        let first = Bound::new(&any_port(), 3, &terms()).unwrap();
        first.listen().unwrap();
        let again = first.address().clone();
        for shared in [false, true] {
            let second = Bound::try_new(&again, 2, &Terms { shared, ..terms() });
            assert_eq!(second.is_ok(), shared, "the newcomer says so: {second:?}");
        }
        drop(first);
        let shared = Terms {
            shared: true,
            ..terms()
        };
        let first = Bound::new(&again, 1, &shared).unwrap();
        first.listen().unwrap();
        let alone = Bound::try_new(&again, 1, &terms());
        assert!(matches!(alone, Err(ListenError::InUse { .. })));
        Bound::new(&again, 2, &shared).unwrap().listen().unwrap();
    }

    #[test]
    fn of_two_that_start_on_one_port_one_wins() {
        let first = Bound::new(&any_port(), 2, &terms()).unwrap();
        let second = Bound::new(first.address(), 2, &terms()).unwrap();
        second.listen().unwrap();
        assert!(matches!(first.listen(), Err(ListenError::InUse { .. })));
    }

    #[test]
    fn all_sockets_of_a_port_get_connections() {
        let bound = Bound::new(&any_port(), 2, &terms()).unwrap();
        let sockets = [bound.socket(0).unwrap(), bound.socket(1).unwrap()];
        bound.listen().unwrap();
        let ListenAddr::Tcp(at) = *bound.address() else {
            panic!("TCP");
        };
        let mut clients = Vec::new();
        let mut accepted = [0, 0];
        for socket in &sockets {
            socket.set_nonblocking(true).unwrap();
        }
        while accepted.contains(&0) {
            clients.push(std::net::TcpStream::connect(at).unwrap());
            assert!(clients.len() < 200, "one of them gets none: {accepted:?}");
            for (socket, count) in sockets.iter().zip(&mut accepted) {
                while socket.accept().is_ok() {
                    *count += 1;
                }
            }
        }
    }

    #[test]
    fn accepted_sockets_inherit_what_is_set_and_waiting_ones_are_counted() {
        let bound = Bound::new(&any_port(), 1, &terms()).unwrap();
        bound.listen().unwrap();
        let listener = bound.socket(0).unwrap();
        let client = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        client.connect(&listener.local_addr().unwrap()).unwrap();
        let queue = Queue::of(&listener).unwrap();
        assert_eq!((queue.length, queue.length_max), (1, 8));
        let accepted = listener.accept().unwrap().0;
        assert!(accepted.tcp_nodelay().unwrap());
        assert_eq!(accepted.tcp_notsent_lowat().unwrap(), KERNEL_UNSENT_BYTES);
        assert_eq!(Queue::of(&listener).unwrap().length, 0);
    }
}
