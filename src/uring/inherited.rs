//! Sockets that whoever started this process has bound and listens on already (`sd_listen_fds(3)`).
//!
//! One that is inherited stays when this process ends: who connects meanwhile waits for the next one.

use std::io;
use std::os::fd::{FromRawFd as _, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use socket2::{Domain, Socket, Type};

use super::listen::{Bound, ListenError, Terms};
use crate::config::ListenAddr;

/// Names under which a unit may hand sockets over, with the keys whose listeners they are.
const NAMES: [(&str, &str); 3] = [
    ("clients", "server.listen"),
    ("internal", "server.internal_listen"),
    ("admin", "admin.listen"),
];

/// Descriptors are taken once: they have one owner.
static TAKEN: AtomicBool = AtomicBool::new(false);

/// Why sockets that were handed over are not used.
#[derive(Debug, thiserror::Error)]
pub enum InheritError {
    /// `LISTEN_FDS` and what belongs to it.
    #[error("LISTEN_PID, LISTEN_FDS: {0}")]
    Environment(io::Error),
    /// One of them is something else.
    #[error(
        "descriptor {number} ({name}) of LISTEN_FDS is {found}: hand over listening stream sockets, by ListenStream= and without Accept="
    )]
    Kind {
        /// Its number.
        number: i32,
        /// What the unit calls it.
        name: String,
        /// What it is.
        found: String,
    },
    /// No listener of the configuration is this one.
    #[error(
        "the socket at {address} that was handed over as {name:?} is no listener of the configuration: add its address to server.listen, server.internal_listen or admin.listen, or name it with FileDescriptorName=clients, internal or admin"
    )]
    Unknown {
        /// Where it listens.
        address: ListenAddr,
        /// What the unit calls it.
        name: String,
    },
    /// The kernel refuses.
    #[error("the socket at {address} that was handed over: {cause}")]
    Other {
        /// Where it listens.
        address: ListenAddr,
        /// Why.
        #[source]
        cause: io::Error,
    },
}

#[derive(Debug)]
struct One {
    name: String,
    address: ListenAddr,
    socket: Socket,
}

/// What was handed over and is not used yet.
#[derive(Debug, Default)]
pub struct Inherited(Vec<One>);

impl Inherited {
    /// Everything that was handed to this process. A second call gets nothing.
    ///
    /// # Errors
    /// When something else than listening sockets was handed over.
    pub fn take() -> Result<Self, InheritError> {
        if TAKEN.swap(true, Ordering::Relaxed) {
            return Ok(Self::default());
        }
        let listed = sd_notify::listen_fds_with_names().map_err(InheritError::Environment)?;
        let mut all = Vec::new();
        for (number, name) in listed {
            // SAFETY: the descriptor is open, which the list has checked by marking it, and `TAKEN` makes this its one owner.
            let socket = Socket::from(unsafe { OwnedFd::from_raw_fd(number) });
            let address = address(&socket).map_err(|found| InheritError::Kind {
                number,
                name: name.clone(),
                found,
            })?;
            // Each reactor sets what it needs, and a ring needs one that waits.
            if let Err(cause) = socket.set_nonblocking(false) {
                return Err(InheritError::Other { address, cause });
            }
            all.push(One {
                name,
                address,
                socket,
            });
        }
        Ok(Self(all))
    }

    /// The listeners that a key names: sockets that bear its name in place of all its addresses, else for each address
    /// the sockets that are bound to it, else a socket of our own.
    ///
    /// # Errors
    /// When an address that nobody handed over is not to be had.
    pub fn bind(
        &mut self,
        addresses: &[ListenAddr],
        count: usize,
        terms: &Terms,
    ) -> Result<Vec<Bound>, ListenError> {
        let name = name_of(terms.key);
        let named = self.take_if(|one| Some(one.name.as_str()) == name);
        if !named.is_empty() {
            let mut bound: Vec<Bound> = Vec::new();
            for One {
                address, socket, ..
            } in named
            {
                match bound.iter_mut().find(|bound| *bound.address() == address) {
                    Some(bound) => bound.join(socket),
                    None => bound.push(Bound::inherited(address, socket, terms)),
                }
            }
            return Ok(bound);
        }
        let mut bound = Vec::new();
        for address in addresses {
            let is_other = |one: &One| NAMES.iter().any(|(name, _)| *name == one.name);
            let mut its = self
                .take_if(|one| one.address == *address && !is_other(one))
                .into_iter();
            bound.push(match its.next() {
                Some(first) => {
                    let mut bound = Bound::inherited(address.clone(), first.socket, terms);
                    its.for_each(|one| bound.join(one.socket));
                    bound
                }
                None => Bound::new(address, count, terms)?,
            });
        }
        Ok(bound)
    }

    /// # Errors
    /// When a socket is left: who connects there would wait for ever.
    pub fn finish(self) -> Result<(), InheritError> {
        match self.0.into_iter().next() {
            None => Ok(()),
            Some(One { name, address, .. }) => Err(InheritError::Unknown { address, name }),
        }
    }

    fn take_if(&mut self, mut wanted: impl FnMut(&One) -> bool) -> Vec<One> {
        let (taken, left) = std::mem::take(&mut self.0)
            .into_iter()
            .partition(|one| wanted(one));
        self.0 = left;
        taken
    }
}

fn name_of(key: &str) -> Option<&'static str> {
    let its = NAMES.iter().find(|(_, of)| *of == key);
    its.map(|(name, _)| *name)
}

/// Where a socket listens; what it is instead, for people.
fn address(socket: &Socket) -> Result<ListenAddr, String> {
    let failed = |cause: io::Error| match cause.raw_os_error() {
        Some(libc::ENOTSOCK) => "no socket".to_owned(),
        _ => cause.to_string(),
    };
    let is_listener = socket.is_listener().map_err(failed)?;
    if socket.r#type().map_err(failed)? != Type::STREAM || !is_listener {
        return Err("no stream socket that listens".to_owned());
    }
    let at = socket.local_addr().map_err(failed)?;
    if let Some(at) = at.as_socket() {
        return Ok(ListenAddr::Tcp(at));
    }
    let path = (at.domain() == Domain::UNIX).then(|| at.as_pathname());
    match path.flatten() {
        Some(path) => Ok(ListenAddr::Unix(path.to_owned())),
        None => Err("neither of TCP nor at a path".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::FileMode;
    use crate::uring::socket::listen_tcp;

    fn terms(key: &'static str) -> Terms {
        Terms {
            key,
            backlog: 8,
            shared: false,
            only_v6: true,
            mode: FileMode(0o660),
            group: String::new(),
        }
    }

    fn one(name: &str) -> One {
        let socket = listen_tcp("127.0.0.1:0".parse().unwrap(), 8).unwrap();
        let address = address(&socket).unwrap();
        One {
            name: name.to_owned(),
            address,
            socket,
        }
    }

    #[test]
    fn a_name_goes_over_the_addresses_of_its_key_and_an_address_finds_its_socket() {
        let (named, unnamed) = (one("clients"), one("edge.socket"));
        let (at, of_admin) = (named.address.clone(), unnamed.address.clone());
        let mut inherited = Inherited(vec![named, unnamed]);
        let configured = [ListenAddr::Tcp("127.0.0.1:9".parse().unwrap())];
        let bound = inherited
            .bind(&configured, 2, &terms("server.listen"))
            .unwrap();
        assert_eq!(bound.len(), 1);
        assert_eq!(*bound[0].address(), at);
        let bound = inherited
            .bind(std::slice::from_ref(&of_admin), 1, &terms("admin.listen"))
            .unwrap();
        assert_eq!(*bound[0].address(), of_admin);
        inherited.finish().unwrap();
    }

    #[test]
    fn a_socket_that_nobody_wants_is_refused_with_what_to_do() {
        let mut inherited = Inherited(vec![one("internal"), one("else")]);
        let own = [ListenAddr::Tcp("127.0.0.1:0".parse().unwrap())];
        let bound = inherited.bind(&own, 1, &terms("server.listen")).unwrap();
        assert_eq!(bound.len(), 1);
        let error = inherited.finish().err().unwrap().to_string();
        assert!(error.contains("FileDescriptorName="), "{error}");
    }

    #[test]
    fn every_socket_of_a_group_is_accepted_on_by_some_shard_and_every_shard_accepts() {
        let first = one("clients");
        let address = first.address.clone();
        let again = |of: &One| One {
            name: "clients".to_owned(),
            address: of.address.clone(),
            socket: of.socket.try_clone().unwrap(),
        };
        for (sockets, shards) in [(1, 1), (1, 3), (2, 3), (3, 3), (5, 2)] {
            let all = (0..sockets).map(|_| again(&first)).collect();
            let bound = Inherited(all)
                .bind(&[], shards, &terms("server.listen"))
                .unwrap();
            assert_eq!(*bound[0].address(), address);
            let of = |shard| bound[0].share(shard, shards);
            let mut used: Vec<usize> = (0..shards).flat_map(of).collect();
            assert!((0..shards).all(|shard| !of(shard).is_empty()));
            used.sort_unstable();
            used.dedup();
            assert_eq!(used.len(), sockets, "{sockets} sockets, {shards} shards");
        }
    }

    #[test]
    fn what_is_no_listener_is_named() {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        assert!(address(&socket).is_err_and(|found| found.contains("listens")));
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, None).unwrap();
        assert!(address(&socket).is_err());
        let file = std::fs::File::open("/dev/null").unwrap();
        let found = address(&Socket::from(OwnedFd::from(file)));
        assert_eq!(found, Err("no socket".to_owned()));
    }
}
