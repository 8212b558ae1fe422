//! Faults of the log in NATS: servers killed or stopped, their leader killed, the network cut and slow, the stream gone.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::time::Duration;

use async_nats::jetstream;

use super::embedded::{expect, nothing_is_acknowledged};
use super::ledger::Ledger;
use super::link::http;
use super::world::{Engine, World};
use crate::nats_server::{NatsServer, free_port};
use crate::support::process::signal;
use crate::support::wait::now;

/// Stream whose leader is looked for.
const STREAM: &str = "RINGMAIN";
/// A leader that is not found within this time is no leader.
const ELECTION: Duration = Duration::from_secs(60);
/// How long a slow network holds each piece of bytes.
const DELAY: Duration = Duration::from_millis(40);
/// Bytes of one piece.
const PIECE: usize = 4096;

/// `kill -9` of the only server.
pub(crate) fn server(rounds: u32, seed: u64) -> Ledger {
    let mut nats = NatsServer::start();
    let mut world = World::start(&Engine::Nats(vec![nats.url()], 1), &[], seed);
    for _ in 0..rounds {
        let acknowledgements = world.random.between(50, 500);
        world.go_on(acknowledgements);
        nats.kill();
        nats.restart();
    }
    world.go_on(200);
    world.finish()
}

/// `kill -9` of the proxy, with the log in NATS.
pub(crate) fn proxy(rounds: u32, seed: u64) -> Ledger {
    let nats = NatsServer::start();
    super::embedded::kill(&Engine::Nats(vec![nats.url()], 1), rounds, seed)
}

/// A server and how a log in it is configured: for faults of whatever is around the log.
pub(crate) fn alone() -> (NatsServer, Engine) {
    let nats = NatsServer::start();
    let engine = Engine::Nats(vec![nats.url()], 1);
    (nats, engine)
}

/// The server stands still until publishers notice, for a while, and goes on.
pub(crate) fn stopped(rounds: u32, seed: u64) -> Ledger {
    let (nats, engine) = alone();
    let mut world = World::start(&engine, &[], seed);
    for _ in 0..rounds {
        let acknowledgements = world.random.between(50, 400);
        world.go_on(acknowledgements);
        let server = nats.pid().expect("it runs");
        signal(server, "STOP");
        let errors = world.ledger.temporary;
        expect(&mut world, "publishers are told", |world| {
            world.ledger.temporary > errors
        });
        if let Err(text) = world.fast_path_works() {
            panic!("while the server stands still: {text}");
        }
        let end = now() + Duration::from_millis(world.random.below(6000));
        while now() < end {
            world.book(Duration::from_millis(20));
        }
        signal(server, "CONT");
        world.go_on(50);
    }
    world.go_on(100);
    world.finish()
}

/// The stream is deleted under the process, and another one is made in its place. Nothing is acknowledged afterwards.
pub(crate) fn vanish(rounds: u32, seed: u64) -> Ledger {
    let mut all = Ledger::default();
    for round in 0..rounds {
        let (nats, engine) = alone();
        let mut world = World::start(&engine, &[], seed + u64::from(round));
        let acknowledgements = world.random.between(50, 400);
        world.go_on(acknowledgements);
        let config = run(&nats, async |js| {
            let mut stream = js.get_stream(STREAM).await.expect("it");
            let config = stream.info().await.expect("its state").config.clone();
            js.delete_stream(STREAM).await.expect("deleted");
            config
        });
        nothing_is_acknowledged(&mut world, "has vanished");
        run(&nats, async |js| {
            js.create_stream(config).await.expect("another one");
        });
        nothing_is_acknowledged(&mut world, "another one is in its place");
        all = world.abandon().and(all);
    }
    all
}

fn run<T>(server: &NatsServer, task: impl AsyncFnOnce(jetstream::Context) -> T) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let client = async_nats::connect(server.url()).await.expect("connected");
        task(jetstream::new(client)).await
    })
}

/// Three servers, and the port at which each tells about itself.
struct Cluster(Vec<(NatsServer, u16)>);

impl Cluster {
    fn start() -> Self {
        let routes: Vec<String> = (0..3)
            .map(|_| format!("nats://127.0.0.1:{}", free_port()))
            .collect();
        let server = |(index, own): (usize, &String)| {
            let monitor = free_port();
            let server = NatsServer::stopped(vec![
                format!("--name=n{index}"),
                "--cluster_name=chaos".to_owned(),
                format!("--cluster={own}"),
                format!("--routes={}", routes.join(",")),
                format!("--http_port={monitor}"),
            ]);
            (server, monitor)
        };
        let mut servers: Vec<(NatsServer, u16)> = routes.iter().enumerate().map(server).collect();
        for (server, _) in &mut servers {
            server.restart();
        }
        Self(servers)
    }

    /// The server that leads the stream, once it is agreed on.
    fn leader(&self, world: &mut World) -> usize {
        let end = now() + ELECTION;
        loop {
            let found = self.0.iter().find_map(|(_, monitor)| leader_at(*monitor));
            if let Some(index) = found {
                return index;
            }
            assert!(now() < end, "the cluster has no leader");
            world.book(Duration::from_millis(50));
        }
    }
}

fn leader_at(monitor: u16) -> Option<usize> {
    let address = SocketAddr::from(([127, 0, 0, 1], monitor));
    // A server that has just been killed does not answer.
    let answer = http(address, "GET", "/jsz?streams=true", "", "")?;
    let accounts = answer["account_details"].as_array()?;
    let streams = accounts
        .iter()
        .filter_map(|account| account["stream_detail"].as_array())
        .flatten();
    let mut streams = streams.filter(|stream| stream["name"] == STREAM);
    let leader = streams.find_map(|stream| stream["cluster"]["leader"].as_str())?;
    leader.strip_prefix('n')?.parse().ok()
}

/// `kill -9` of whoever leads the stream, in a cluster of three.
pub(crate) fn leader(rounds: u32, seed: u64) -> Ledger {
    let mut cluster = Cluster::start();
    let urls = cluster.0.iter().map(|(server, _)| server.url()).collect();
    let mut world = World::start(&Engine::Nats(urls, 3), &[], seed);
    for _ in 0..rounds {
        let acknowledgements = world.random.between(50, 300);
        world.go_on(acknowledgements);
        let leader = cluster.leader(&mut world);
        cluster.0[leader].0.kill();
        // The other two go on without it.
        world.go_on(50);
        cluster.0[leader].0.restart();
    }
    world.go_on(100);
    world.finish()
}

const PASSES: u8 = 0;
const CUT: u8 = 1;
const SLOW: u8 = 2;

/// A way to a server that can be cut, or slow.
struct Way {
    port: u16,
    state: Arc<AtomicU8>,
    ended: Arc<AtomicBool>,
}

impl Way {
    fn to(server: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
        let port = listener.local_addr().expect("its address").port();
        let (state, ended) = (
            Arc::new(AtomicU8::new(PASSES)),
            Arc::new(AtomicBool::new(false)),
        );
        let (seen, over) = (Arc::clone(&state), Arc::clone(&ended));
        std::thread::spawn(move || {
            for client in listener.incoming() {
                if over.load(Ordering::SeqCst) {
                    return;
                }
                let (Ok(client), false) = (client, seen.load(Ordering::SeqCst) == CUT) else {
                    continue;
                };
                let Ok(server) = TcpStream::connect(("127.0.0.1", server)) else {
                    continue;
                };
                let (Ok(back), Ok(forth)) = (server.try_clone(), client.try_clone()) else {
                    continue;
                };
                for (from, to) in [(client, server), (back, forth)] {
                    let (state, over) = (Arc::clone(&seen), Arc::clone(&over));
                    std::thread::spawn(move || carry(from, to, &state, &over));
                }
            }
        });
        Self { port, state, ended }
    }

    fn set(&self, state: u8) {
        self.state.store(state, Ordering::SeqCst);
    }
}

impl Drop for Way {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
        // Wakes the accepting thread.
        drop(TcpStream::connect(("127.0.0.1", self.port)));
    }
}

fn carry(mut from: TcpStream, mut to: TcpStream, state: &AtomicU8, ended: &AtomicBool) {
    let mut bytes = [0; PIECE];
    let step = Some(Duration::from_millis(20));
    if from.set_read_timeout(step).is_err() || to.set_nodelay(true).is_err() {
        return;
    }
    loop {
        let state = state.load(Ordering::SeqCst);
        if state == CUT || ended.load(Ordering::SeqCst) {
            break;
        }
        match from.read(&mut bytes) {
            Ok(0) => break,
            Ok(len) => {
                if state == SLOW {
                    std::thread::park_timeout(DELAY);
                }
                if to.write_all(&bytes[..len]).is_err() {
                    break;
                }
            }
            Err(error)
                if matches!(
                    error.kind(),
                    std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut
                ) => {}
            Err(_) => break,
        }
    }
    // The other direction ends with it.
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}

/// The network between proxy and NATS is cut until publishers notice, or slow for a while.
pub(crate) fn network(rounds: u32, seed: u64) -> Ledger {
    let nats = NatsServer::start();
    let way = Way::to(nats.port());
    let url = format!("nats://127.0.0.1:{}", way.port);
    let mut world = World::start(&Engine::Nats(vec![url], 1), &[], seed);
    for round in 0..rounds {
        let acknowledgements = world.random.between(50, 400);
        world.go_on(acknowledgements);
        if round % 2 == 0 {
            let errors = world.ledger.temporary;
            way.set(CUT);
            expect(&mut world, "publishers are told", |world| {
                world.ledger.temporary > errors
            });
            if let Err(text) = world.fast_path_works() {
                panic!("while the network is cut: {text}");
            }
        } else {
            way.set(SLOW);
            world.go_on(30);
        }
        way.set(PASSES);
    }
    world.go_on(100);
    world.finish()
}
