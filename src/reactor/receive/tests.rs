//! Who rests and who goes first, on a real ring, turn by turn.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use crossbeam_queue::ArrayQueue;

use super::*;
use crate::config::{Config, Secret};
use crate::limits::RECEIVE_POOL_BYTES;
use crate::mesh;
use crate::mesh::bell::Doorbell;
use crate::mesh::control::ControlLink;
use crate::mesh::durable::DurableLink;
use crate::mesh::hook::HookLink;
use crate::model::ShardId;
use crate::reactor::doorbell::Sleepers;
use crate::reactor::thread::{hot, ring_config};
use crate::reactor::{Clock, Listener, ShardThread};
use crate::shard::{Door, Mode};
use crate::uring::{Kind, probe, socket};

const KEY: &str = "k";
const CONNECTIONS_MAX: u32 = 256;
/// For what has to come to pass, however busy the machine is.
const DEADLINE: Duration = Duration::from_secs(20);
/// As much as one receive brings.
const WHOLE: usize = RECEIVE_BYTES as usize;

/// One shard's loop, of which the test makes every turn.
struct Loop {
    hot: Hot,
    address: SocketAddr,
    clients: Vec<TcpStream>,
}

impl Loop {
    fn start() -> Self {
        let abilities = probe::probe(&ring_config(CONNECTIONS_MAX), 1).unwrap();
        let mut config = Config::built_in();
        config.server.connections_per_shard_max = CONNECTIONS_MAX;
        config.http_api.key = Secret(KEY.to_owned());
        let listener = socket::listen_tcp("127.0.0.1:0".parse().unwrap(), 256).unwrap();
        let address = listener.local_addr().unwrap().as_socket().unwrap();
        let sleepers = Arc::new(Sleepers::new(1).unwrap());
        let bell: Arc<dyn Doorbell> = Arc::new(sleepers.bell(ShardId(0)).try_clone().unwrap());
        let thread = ShardThread {
            id: ShardId(0),
            config: Arc::new(config),
            mode: Mode::Proxy,
            seed: 7,
            key: [0; 32],
            endpoint: mesh::build(1).remove(0),
            listeners: vec![Listener {
                stays: false,
                is_watched: true,
                socket: listener,
                door: Door::Clients,
            }],
            link: ControlLink {
                inbox: Arc::new(ArrayQueue::new(1)),
                reports: Arc::new(ArrayQueue::new(64)),
                bell: Arc::clone(&bell),
                hooks: HookLink::new(Arc::clone(&bell)),
                durable: DurableLink::new(bell),
            },
            sleepers,
            clock: Clock::start(),
        };
        Self {
            hot: hot(thread, abilities).unwrap(),
            address,
            clients: Vec::new(),
        }
    }

    fn repeat(&mut self, what: &str, step: impl Fn(&mut Hot), done: impl Fn(&mut Hot) -> bool) {
        let begun = self.hot.clock.at();
        while !done(&mut self.hot) {
            assert!(
                self.hot.clock.at().since(begun) < DEADLINE,
                "waited for {what}"
            );
            step(&mut self.hot);
        }
    }

    /// Turns until this is so.
    fn turn_until(&mut self, what: &str, done: impl Fn(&mut Hot) -> bool) {
        let turn = |hot: &mut Hot| {
            hot.turn().unwrap();
        };
        self.repeat(what, turn, done);
    }

    /// Takes completions and hands none of them to the shard, until this is so.
    fn collect_until(&mut self, what: &str, done: impl Fn(&mut Hot) -> bool) {
        let collect = |hot: &mut Hot| {
            hot.ring.enter(0).unwrap();
            let now = hot.clock.now();
            hot.collect(now).unwrap();
        };
        self.repeat(what, collect, done);
    }

    /// A client that has said the first part of a request.
    fn connect(&mut self, head: &str) -> ConnId {
        let open = self.hot.slots.open();
        let mut client = TcpStream::connect(self.address).unwrap();
        client.set_read_timeout(Some(DEADLINE)).unwrap();
        self.turn_until("the accept", |hot| hot.slots.open() == open + 1);
        client.write_all(head.as_bytes()).unwrap();
        self.clients.push(client);
        self.collect_until("its first bytes", |hot| received(hot).next().is_some());
        let (conn, _) = received(&self.hot).next().unwrap();
        self.turn_until("its end", |hot| hot.pending.is_empty());
        conn
    }

    /// A client in the middle of a long body.
    fn sender(&mut self) -> ConnId {
        let head = format!(
            "POST /api/publish HTTP/1.1\r\nHost: localhost\r\nX-API-Key: {KEY}\r\nContent-Length: 4000000\r\n\r\n"
        );
        self.connect(&head)
    }

    /// The client that came as number `at` sends bytes, which nobody takes before the next step.
    fn send(&mut self, at: usize, bytes: &[u8]) {
        self.clients[at].write_all(bytes).unwrap();
    }

    /// The same, and they are out of the kernel, or are known to have found no buffer.
    fn send_and_collect(&mut self, at: usize, bytes: &[u8]) {
        let before = self.hot.pending.iter().count();
        self.send(at, bytes);
        self.collect_until("a receive", |hot| hot.pending.iter().count() > before);
    }

    fn slot(&mut self, conn: ConnId) -> &mut Slot {
        self.hot.slots.of(conn.slot, conn.generation).unwrap()
    }

    /// Has rested once.
    fn go_by_turns(&mut self, conn: ConnId) {
        let slot = self.slot(conn);
        slot.rest();
        slot.rested();
    }

    fn resting(&self) -> Vec<ConnId> {
        let conn = |&(slot, generation, _): &_| ConnId { slot, generation };
        self.hot.resting.iter().map(conn).collect()
    }
}

/// What receives wait to be dispatched: whose, and their results.
fn received(hot: &Hot) -> impl Iterator<Item = (ConnId, i32)> {
    let receives = hot.pending.iter();
    let receives = receives.filter(|completion| completion.kind() == Some(Kind::Receive));
    receives.map(|completion| {
        let conn = ConnId {
            slot: completion.slot(),
            generation: completion.generation(),
        };
        (conn, completion.result())
    })
}

#[test]
fn what_the_kernel_cannot_do_just_now_is_no_end_of_a_connection() {
    for (result, of_a_receive, of_a_watch) in [
        (1, Brought::Bytes, Brought::Nothing),
        (0, Brought::End, Brought::Break),
        (libc::POLLHUP.into(), Brought::Bytes, Brought::Break),
        (libc::POLLERR.into(), Brought::Bytes, Brought::Break),
        (-libc::ENOBUFS, Brought::Starved, Brought::Starved),
        (-libc::ECANCELED, Brought::Nothing, Brought::Nothing),
        (-libc::EAGAIN, Brought::Nothing, Brought::Nothing),
        (-libc::EINTR, Brought::Nothing, Brought::Nothing),
        (-libc::ENOMEM, Brought::Nothing, Brought::Nothing),
        (-libc::ECONNRESET, Brought::Break, Brought::Break),
        (-libc::ETIMEDOUT, Brought::Break, Brought::Break),
    ] {
        let found = [false, true].map(|watched| Brought::by(result, watched));
        assert_eq!(found, [of_a_receive, of_a_watch], "{result}");
    }
}

const HEAVY_AND_DENSE: Duration = Duration::from_millis(1);

#[test]
fn who_costs_much_rests_beside_others_and_not_when_it_is_alone() {
    let mut one = Loop::start();
    let (costly, other) = (one.sender(), one.sender());
    let weight = Weight::new(HEAVY_AND_DENSE, WHOLE);
    one.hot.weigh(costly, weight).unwrap();
    assert_eq!(one.resting(), []);
    assert!(!one.slot(costly).is_dense(), "it disturbs nobody");

    one.send_and_collect(1, b"x");
    one.hot
        .weigh(other, Weight::new(Duration::ZERO, 1))
        .unwrap();
    assert_eq!(one.resting(), [], "it costs next to nothing");
    one.hot.weigh(costly, weight).unwrap();
    one.hot.weigh(costly, weight).unwrap();
    assert_eq!(one.resting(), [costly], "and stands there once");
    assert!(one.slot(costly).is_dense());
    one.collect_until("the end of its receive", |hot| {
        received(hot).any(|one| one == (costly, -libc::ECANCELED))
    });

    // It is read again, in small pieces: nothing of what it sends is lost.
    one.send(0, &[b' '; WHOLE]);
    let before = one.hot.shard.counters().bytes_received;
    one.turn_until("its bytes", |hot| {
        hot.shard.counters().bytes_received >= before + 1 + WHOLE as u64
    });
    // It is alone again.
    one.turn_until("that nobody rests", |hot| {
        hot.resting.is_empty() && hot.pending.is_empty()
    });
    one.hot.weigh(costly, weight).unwrap();
    assert!(!one.slot(costly).is_dense() && !one.slot(costly).goes_by_turns());
}

#[test]
fn what_is_little_goes_before_what_another_one_has_brought_much_of() {
    let mut one = Loop::start();
    let (much, little) = (one.sender(), one.sender());
    one.send(0, &[b' '; 4 * WHOLE]);
    one.collect_until("much", |hot| hot.pending.bytes() == 4 * WHOLE);
    one.send_and_collect(1, b"x");
    // What comes behind its much, however little, keeps its place.
    one.send_and_collect(0, b"y");
    let first = one.hot.pending.pop_little().unwrap();
    assert_eq!(first.slot(), little.slot);
    assert!(one.hot.pending.pop_little().is_none());
    let mut sizes = Vec::new();
    while let Some(completion) = one.hot.pending.pop_bulk() {
        assert_eq!(completion.slot(), much.slot);
        sizes.push(completion.bytes());
    }
    assert_eq!(sizes.iter().sum::<usize>(), 4 * WHOLE + 1);
    assert_eq!(sizes.last(), Some(&1));
    assert!(one.slot(much).is_bulky());
    one.hot.debulk();
    assert!(!one.slot(much).is_bulky(), "it has brought all of it");
}

#[test]
fn work_for_the_bytes_of_a_receive_is_what_their_connection_cost() {
    let mut one = Loop::start();
    let publish = format!(
        r#"{{"publish":{{"channel":"a","data":"{}"}}}}"#,
        "x".repeat(20)
    );
    let body = vec![publish; 500].join("\n");
    let head = format!(
        "POST /api HTTP/1.1\r\nHost: localhost\r\nX-API-Key: {KEY}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let costly = one.connect(&head);
    one.sender();
    assert!(body.len() < WHOLE);
    one.send_and_collect(0, body.as_bytes());
    one.send_and_collect(1, &[b' '; BULK_BYTES]);
    one.turn_until("both", |hot| hot.pending.is_empty());
    assert!(one.slot(costly).goes_by_turns(), "it has rested");
    let mut answer = [0; 12];
    one.clients[0].read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200");
}

#[test]
fn the_crowd_rests_before_the_buffers_are_used_up_and_who_used_none_goes_first() {
    const CROWD: usize = RECEIVE_POOL_BYTES / WHOLE + 8;
    const FEW: usize = 8;
    let mut one = Loop::start();
    let crowd: Vec<ConnId> = (0..CROWD).map(|_| one.sender()).collect();
    let quiet = one.connect("GET / HTTP/1.1\r\n");
    let by_turns = one.sender();
    one.go_by_turns(by_turns);
    let sent: usize = (CROWD + 1) * WHOLE;
    let before = one.hot.shard.counters().bytes_received;

    for at in 0..FEW {
        one.send(at, &[b' '; WHOLE]);
    }
    one.collect_until("a few", |hot| hot.pending.bytes() == FEW * WHOLE);
    assert_eq!(one.resting(), [], "there is room for everybody");
    for at in FEW..CROWD {
        one.send(at, &[b' '; WHOLE]);
    }
    one.collect_until("the crowd", |hot| {
        let senders: BTreeSet<u32> = received(hot).map(|(conn, _)| conn.slot).collect();
        senders.len() == CROWD
    });
    let starved = |hot: &Hot, of: ConnId| {
        received(hot).any(|(conn, result)| conn == of && result == -libc::ENOBUFS)
    };
    assert!(crowd.iter().any(|&conn| starved(&one.hot, conn)));
    assert!(one.hot.pending.bytes() > CROWDED_BYTES);
    for &conn in &crowd[..FEW] {
        assert!(!one.slot(conn).is_resting(), "it came before the crowd");
    }
    for &conn in &crowd[FEW + CROWDED_BYTES / WHOLE..] {
        assert!(one.slot(conn).is_resting());
    }

    one.send_and_collect(CROWD, b"Host: localhost\r\n\r\n");
    one.send_and_collect(CROWD + 1, &[b' '; WHOLE]);
    assert!(starved(&one.hot, quiet) && starved(&one.hot, by_turns));
    let order = one.resting();
    assert_eq!(order.first(), Some(&quiet));
    assert_eq!(order.last(), Some(&by_turns), "it has had its turns");
    one.hot.wake_resting().unwrap();
    assert_eq!(one.resting(), order, "no buffer is free yet");

    let woken = |hot: &mut Hot| -> Vec<ConnId> {
        let is_woken = |conn: &&ConnId| {
            let slot = hot.slots.of(conn.slot, conn.generation);
            slot.is_some_and(|slot| !slot.is_resting())
        };
        order.iter().filter(is_woken).copied().collect()
    };
    one.turn_until("somebody to be read again", |hot| !woken(hot).is_empty());
    // As many as their share of a turn has room for.
    assert_eq!(woken(&mut one.hot), order[..8]);

    one.turn_until("all bytes", |hot| {
        hot.shard.counters().bytes_received >= before + sent as u64
    });
    assert!(!one.slot(quiet).goes_by_turns(), "it brings little");
    let mut answer = [0; 12];
    one.clients[CROWD].read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200");
    one.turn_until("that nobody rests", |hot| hot.resting.is_empty());
}

#[test]
fn who_went_by_turns_goes_freely_when_nobody_else_rests() {
    let mut one = Loop::start();
    let senders = [one.sender(), one.sender()];
    one.go_by_turns(senders[0]);
    one.send_and_collect(0, &[b' '; WHOLE]);
    assert!(!one.slot(senders[0]).goes_by_turns() && one.resting().is_empty());
    // Beside another one who rests it stays with those who go by turns.
    one.go_by_turns(senders[0]);
    let weight = Weight::new(HEAVY_AND_DENSE, WHOLE);
    one.hot.rest(senders[1], weight, false, false).unwrap();
    one.send_and_collect(0, &[b' '; WHOLE]);
    assert_eq!(one.resting(), [senders[1], senders[0]]);
}
