//! What the ring promises, against the running kernel (`spec/io_uring.md` §12).
#![cfg(feature = "server")]
#![expect(clippy::unwrap_used, reason = "a test ends where its set-up fails")]

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use ringmain::mesh::bell::Doorbell;
use ringmain::uring::{
    BufferConfig, Completion, EventFd, Kind, Ring, RingConfig, Sqe, probe, socket,
};
use socket2::SockAddr;

const SMALL: RingConfig = RingConfig {
    submissions: 256,
    completions: 1024,
    slots: 256,
    reserved: 2,
    accepts: 8,
    buffers: BufferConfig {
        count: 8,
        size: 4096,
        lent: 8,
        incremental: true,
    },
};
const LISTENER_SLOT: u32 = 0;

/// A ring that does all that a shard asks for.
fn ring(config: &RingConfig) -> Ring {
    probe::probe(&SMALL, 1).unwrap();
    Ring::new(config).unwrap()
}

/// A ring with a listener in its reserved slot.
struct Server {
    ring: Ring,
    address: SocketAddr,
    _listener: socket2::Socket,
}

impl Server {
    fn start(config: &RingConfig) -> Self {
        let mut ring = ring(config);
        let listener = socket::listen_tcp("127.0.0.1:0".parse().unwrap(), 1024).unwrap();
        ring.install(LISTENER_SLOT, &listener).unwrap();
        let address = listener.local_addr().unwrap().as_socket().unwrap();
        Self {
            ring,
            address,
            _listener: listener,
        }
    }

    /// One connection: our end, and the slot of the ring's end.
    fn accept(&mut self) -> (TcpStream, u32) {
        let client = TcpStream::connect(self.address).unwrap();
        client
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        self.ring.push_accept(0, 3, LISTENER_SLOT).unwrap();
        let completion = self.next(Kind::Accept);
        let accepted = self.ring.take_accepted(completion);
        assert_eq!((accepted.index, accepted.listener), (0, 3));
        assert_eq!(accepted.peer, Some(client.local_addr().unwrap()));
        (client, accepted.slot.unwrap())
    }

    fn next(&mut self, kind: Kind) -> Completion {
        next_of(&mut self.ring, kind)
    }
}

/// The next completion, which is of this kind.
fn next_of(ring: &mut Ring, kind: Kind) -> Completion {
    let completion = next(ring).unwrap_or_else(|| panic!("no {kind:?} came"));
    assert_eq!(completion.kind(), Some(kind), "{completion:?}");
    completion
}

fn next(ring: &mut Ring) -> Option<Completion> {
    for _ in 0..100 {
        if let Some(completion) = ring.pop() {
            return Some(completion);
        }
        ring.enter_timeout(1, Duration::from_millis(100)).unwrap();
    }
    None
}

#[test]
fn cancel_then_close_ends_the_receive_before_the_slot_is_free_and_the_peer_sees_the_end() {
    let mut server = Server::start(&SMALL);
    let (mut client, slot) = server.accept();
    server.ring.push(&Sqe::receive(slot, 7, 0)).unwrap();
    server
        .ring
        .push_chain(Sqe::cancel_receive(slot, 7), &Sqe::close(slot, 7))
        .unwrap();
    let ended = server.next(Kind::Receive);
    assert!(ended.result() == -libc::ECANCELED && !ended.more());
    assert_eq!(server.next(Kind::Close).result(), 0);
    assert_eq!(client.read(&mut [0; 8]).unwrap(), 0);
}

#[test]
fn bytes_of_an_old_connection_carry_the_old_generation_after_the_slot_is_taken_again() {
    let mut server = Server::start(&SMALL);
    let (mut old, slot) = server.accept();
    server.ring.push(&Sqe::receive(slot, 7, 0)).unwrap();
    // A close without a cancel leaves the receive armed: the mistake that generations guard against.
    server.ring.push(&Sqe::close(slot, 7)).unwrap();
    server.next(Kind::Close);
    let (mut new, again) = server.accept();
    assert_eq!(again, slot, "the kernel reuses the slot at once");
    server.ring.push(&Sqe::receive(slot, 8, 0)).unwrap();
    old.write_all(b"from the dead").unwrap();
    new.write_all(b"hello").unwrap();
    let mut by_generation: HashMap<u32, Vec<u8>> = HashMap::new();
    while by_generation.values().map(Vec::len).sum::<usize>() < 18 {
        let completion = server.next(Kind::Receive);
        let generation = completion.generation();
        by_generation
            .entry(generation)
            .or_default()
            .extend_from_slice(server.ring.take_bytes(completion));
        server.ring.publish_buffers();
    }
    assert_eq!(by_generation[&8], b"hello");
    assert_eq!(by_generation[&7], b"from the dead");
}

#[test]
fn an_aborted_connection_is_reset_at_once() {
    let mut server = Server::start(&SMALL);
    let (mut client, slot) = server.accept();
    server.ring.push(&Sqe::receive(slot, 7, 0)).unwrap();
    server
        .ring
        .push_chain(Sqe::abort(slot, 7), &Sqe::close(slot, 7))
        .unwrap();
    let mut kinds = Vec::new();
    for _ in 0..2 {
        let completion = next(&mut server.ring).unwrap();
        kinds.push((completion.kind().unwrap(), completion.result()));
    }
    kinds.sort_by_key(|&(kind, _)| kind as u8);
    assert_eq!(
        kinds,
        [(Kind::Receive, -libc::ECONNRESET), (Kind::Close, 0)]
    );
    assert_eq!(
        client.read(&mut [0; 8]).unwrap_err().kind(),
        std::io::ErrorKind::ConnectionReset
    );
}

#[test]
#[should_panic(expected = "a piece of this ring")]
fn bytes_of_one_ring_are_not_taken_from_another() {
    let buffers = BufferConfig {
        size: 64 * 1024,
        ..SMALL.buffers
    };
    let mut server = Server::start(&RingConfig { buffers, ..SMALL });
    let (mut client, slot) = server.accept();
    server.ring.push(&Sqe::receive(slot, 1, 0)).unwrap();
    client.write_all(&[1; 8192]).unwrap();
    let completion = server.next(Kind::Receive);
    assert!(completion.bytes() > 4096);
    ring(&SMALL).take_bytes(completion);
}

#[test]
fn starved_receives_lose_nothing_and_end_as_starved() {
    let buffers = BufferConfig {
        count: 4,
        size: 64,
        lent: 4,
        incremental: false,
    };
    let mut server = Server::start(&RingConfig { buffers, ..SMALL });
    let mut clients: Vec<(TcpStream, u32)> = (0..100).map(|_| server.accept()).collect();
    for &(_, slot) in &clients {
        server.ring.push(&Sqe::receive(slot, 1, 0)).unwrap();
    }
    server.ring.enter(0).unwrap();
    for (at, (client, _)) in clients.iter_mut().enumerate() {
        client.write_all(&[at as u8; 300]).unwrap();
    }
    let mut received: HashMap<u32, Vec<u8>> = HashMap::new();
    let mut starved = 0u32;
    while received.values().map(Vec::len).sum::<usize>() < 100 * 300 {
        server
            .ring
            .enter_timeout(1, Duration::from_secs(10))
            .unwrap();
        let mut again = Vec::new();
        while let Some(completion) = server.ring.pop() {
            assert_eq!(completion.kind(), Some(Kind::Receive));
            let slot = completion.slot();
            if !completion.more() {
                again.push(slot);
                starved += u32::from(completion.result() == -libc::ENOBUFS);
            }
            received
                .entry(slot)
                .or_default()
                .extend_from_slice(server.ring.take_bytes(completion));
        }
        server.ring.publish_buffers();
        for slot in again {
            server.ring.push(&Sqe::receive(slot, 1, 0)).unwrap();
        }
        assert!(starved < 10_000, "re-arming spins");
    }
    assert!(
        starved > 0,
        "four buffers of 64 bytes did not starve a hundred sockets"
    );
    for (at, (_, slot)) in clients.iter().enumerate() {
        assert_eq!(received[slot], [at as u8; 300]);
    }
}

#[test]
fn receives_that_an_overflow_ended_are_known_and_can_be_armed_again() {
    let buffers = BufferConfig {
        count: 256,
        size: 1024,
        lent: 256,
        incremental: false,
    };
    let config = RingConfig {
        submissions: 64,
        completions: 64,
        buffers,
        ..SMALL
    };
    let mut server = Server::start(&config);
    let mut clients: Vec<(TcpStream, u32)> = (0..100).map(|_| server.accept()).collect();
    for &(_, slot) in &clients {
        server.ring.push(&Sqe::receive(slot, 1, 0)).unwrap();
    }
    server.ring.enter(0).unwrap();
    for (client, _) in &mut clients {
        client.write_all(b"burst").unwrap();
    }
    // Asks for more completions than the queue holds, so the kernel has to keep some aside.
    for _ in 0..20 {
        server.ring.enter(0).unwrap();
    }
    assert!(server.ring.overflowed());
    for round in 1..=3 {
        let mut received: HashMap<u32, usize> = HashMap::new();
        while received.values().sum::<usize>() < 100 * 5 {
            let completion = server.next(Kind::Receive);
            let (slot, more) = (completion.slot(), completion.more());
            *received.entry(slot).or_default() += server.ring.take_bytes(completion).len();
            server.ring.publish_buffers();
            if !more {
                server.ring.push(&Sqe::receive(slot, 1, 0)).unwrap();
            }
        }
        assert!(
            clients.iter().all(|(_, slot)| received[slot] == 5),
            "round {round}"
        );
        for (client, _) in &mut clients {
            client.write_all(b"again").unwrap();
        }
    }
}

#[test]
fn a_send_that_falls_short_says_how_far_it_came_and_an_owned_send_does_the_rest() {
    let mut server = Server::start(&SMALL);
    let (mut client, slot) = server.accept();
    let bytes: Vec<u8> = (0..20_000_000u32).map(|at| (at / 7) as u8).collect();
    server
        .ring
        .send_now([(slot, 1, &bytes[..])].into_iter())
        .unwrap();
    let short = server
        .ring
        .pop()
        .expect("a short send completes before the call returns");
    assert_eq!(short.kind(), Some(Kind::SendNow));
    let taken = usize::try_from(short.result()).unwrap();
    assert!(taken > 0 && taken < bytes.len());
    // The socket is full now: the next silent send is refused and takes nothing.
    server
        .ring
        .send_now([(slot, 1, &bytes[taken..])].into_iter())
        .unwrap();
    let refused = server.ring.pop().unwrap();
    assert!(refused.result() == -libc::EAGAIN, "{refused:?}");
    server
        .ring
        .push_send(slot, 1, bytes[taken..].to_vec())
        .unwrap();
    let reader = std::thread::spawn(move || {
        let mut read = Vec::new();
        let mut piece = vec![0; 10_000];
        while read.len() < 20_000_000 {
            let n = client.read(&mut piece).unwrap();
            read.extend_from_slice(&piece[..n]);
        }
        read
    });
    let done = server.next(Kind::SendOwned);
    assert_eq!(usize::try_from(done.result()).unwrap(), bytes.len() - taken);
    assert_eq!(server.ring.take_batch(done), &bytes[taken..]);
    assert_eq!(server.ring.batches_out(), 0);
    assert!(reader.join().unwrap() == bytes, "the stream differs");
}

#[test]
fn a_cancelled_owned_send_gives_its_batch_back() {
    let mut server = Server::start(&SMALL);
    let (_client, slot) = server.accept();
    server.ring.push_send(slot, 1, vec![1; 20_000_000]).unwrap();
    server.ring.enter(0).unwrap();
    server.ring.push(&Sqe::cancel_send(slot, 1)).unwrap();
    let done = server.next(Kind::SendOwned);
    assert!(done.result() > 0, "part of it had gone out: {done:?}");
    assert_eq!(server.ring.take_batch(done).len(), 20_000_000);
}

#[test]
fn a_send_to_a_dead_peer_completes_with_its_error() {
    let mut server = Server::start(&SMALL);
    let (client, slot) = server.accept();
    socket2::SockRef::from(&client)
        .set_linger(Some(Duration::ZERO))
        .unwrap();
    drop(client);
    server
        .ring
        .send_now([(slot, 1, &b"x"[..])].into_iter())
        .unwrap();
    let failed = server.next(Kind::SendNow);
    assert!(
        [-libc::ECONNRESET, -libc::EPIPE].contains(&failed.result()),
        "{failed:?}"
    );
}

#[test]
fn a_sleeper_is_woken_by_every_ring_of_another_ring() {
    let mut sleeper = ring(&SMALL);
    let target = sleeper.fd();
    let rings = 20_000u32;
    let producer = std::thread::spawn(move || {
        let mut ring = Ring::new(&SMALL).unwrap();
        let mut gap = 1u32;
        for _ in 0..rings {
            ring.push(&Sqe::wake(target)).unwrap();
            ring.enter(0).unwrap();
            gap = gap.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            for _ in 0..gap % 4000 {
                std::hint::spin_loop();
            }
        }
    });
    let mut heard = 0;
    while heard < rings {
        sleeper.enter_timeout(1, Duration::from_secs(60)).unwrap();
        let before = heard;
        while let Some(completion) = sleeper.pop() {
            assert_eq!(completion.kind(), Some(Kind::Wake));
            heard += 1;
        }
        assert!(heard > before, "a ring was missed after {before}");
    }
    producer.join().unwrap();
}

#[test]
fn a_sleeper_is_woken_by_every_ring_of_its_bell_though_nobody_takes_the_count() {
    let mut sleeper = ring(&SMALL);
    let bell = EventFd::new(true).unwrap();
    sleeper.listen_to(&bell).unwrap();
    sleeper.enter(0).unwrap();
    let (heard, hears) = std::sync::mpsc::channel::<()>();
    let ringer = bell.try_clone().unwrap();
    let producer = std::thread::spawn(move || {
        while hears.recv().is_ok() {
            ringer.ring();
        }
    });
    for round in 0..20_000 {
        heard.send(()).unwrap();
        sleeper.enter_timeout(1, Duration::from_secs(60)).unwrap();
        let completion = sleeper.pop();
        let completion = completion.unwrap_or_else(|| panic!("ring {round} was missed"));
        assert_eq!(completion.kind(), Some(Kind::Bell));
        if !completion.more() {
            sleeper.listen_to(&bell).unwrap();
        }
        assert!(sleeper.pop().is_none(), "one ring is one completion");
    }
    drop(heard);
    producer.join().unwrap();
}

#[test]
fn rings_of_one_process_hold_more_sockets_than_descriptors() {
    let limit = u32::try_from(socket::descriptors_max()).unwrap();
    let config = RingConfig {
        slots: limit,
        ..SMALL
    };
    drop(ring(&config));
    let mut rings: Vec<Ring> = (0..8).map(|_| Ring::new(&config).unwrap()).collect();
    assert!(rings.iter().all(|ring| ring.slots() == limit));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = SockAddr::from(listener.local_addr().unwrap());
    for (at, ring) in rings.iter_mut().enumerate() {
        let slot = limit - 1;
        ring.push(&Sqe::socket(slot, 5, libc::AF_INET)).unwrap();
        assert_eq!(next_of(ring, Kind::Socket).result(), 0);
        ring.push(&Sqe::nodelay(slot, 5)).unwrap();
        ring.push_connect(slot, 5, &to).unwrap();
        assert_eq!(next_of(ring, Kind::Connect).result(), 0);
        let mut peer = listener.accept().unwrap().0;
        ring.send_now([(slot, 5, &[at as u8][..])].into_iter())
            .unwrap();
        let mut byte = [0xff];
        peer.read_exact(&mut byte).unwrap();
        assert_eq!(byte, [at as u8]);
    }
}
