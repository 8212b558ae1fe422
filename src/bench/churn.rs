//! Connections that come and go, and channels that are used once: does the server keep anything of them? Threads that wait for each
//! answer are enough for that, and hide nothing.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::json;
use socket2::SockRef;

use super::child::{NAMESPACE_ONCE, Server};
use super::ledger::Counts;
use super::process::{self, Facts};
use super::progress::Progress;
use super::report::{Report, Run, Subject, Unit};
use super::swarm::histogram;
use super::token::Signer;
use super::{Args, BenchError, Protocol, frame, wire};

/// Connections in a second, and channels in a second, if nothing is said.
const CONNECTIONS: u32 = 5_000;
const CHANNELS: u32 = 10_000;
/// Threads that connect, and threads that use channels.
const CONNECTING: u32 = 8;
const USING: u32 = 4;
/// Channels of one frame: four commands each, all under way at once.
const CHANNELS_PER_FRAME: u32 = 16;
/// An answer that does not come.
const PATIENCE: Duration = Duration::from_secs(10);
/// After the end: what ends by itself has ended.
const SETTLE: Duration = Duration::from_secs(5);
/// Life of the tokens.
const TOKEN_LIFE: Duration = Duration::from_secs(24 * 3600);

/// What the threads count.
#[derive(Default)]
struct Counted {
    connections: AtomicU64,
    channels: AtomicU64,
    refused: AtomicU64,
    ends: AtomicBool,
}

/// Whom a line speaks to, and as whom.
pub(super) struct Peer {
    pub(super) address: SocketAddr,
    pub(super) host: String,
    pub(super) path: String,
    pub(super) token: String,
}

/// Runs it once.
pub(super) fn run(args: &Args) -> Result<Report, BenchError> {
    if args.protocol != Protocol::Centrifuge || args.address.is_some() || args.with_limit {
        return Err(BenchError::Usage(
            "churn is measured with a server that it starts, and there is no limit of it",
        ));
    }
    let rates = (
        args.connections.unwrap_or(CONNECTIONS),
        args.channels.unwrap_or(CHANNELS),
    );
    if rates.0 > 1_000_000 || rates.1 > 1_000_000 || args.duration < Duration::from_secs(1) {
        return Err(BenchError::Usage(
            "churn takes a second at least, and rates up to 1000000",
        ));
    }
    let facts = Facts::read(args.server_core, args.core);
    let mut runs = Vec::new();
    for number in 1..=args.runs {
        let server = Server::obtain(args)?;
        runs.push(process::on_core(args.core, || {
            once(args, &server, rates, number)
        })?);
    }
    Ok(Report {
        scenario: args.scenario.name(),
        shape: json!({
            "connections": rates.0, "channels": rates.1, "seconds": args.duration.as_secs_f64(),
            "shards": args.shards,
        }),
        facts,
        runs,
    })
}

fn once(args: &Args, server: &Server, rates: (u32, u32), number: u32) -> Result<Run, BenchError> {
    #[expect(clippy::disallowed_methods, reason = "tokens carry an expiry")]
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let signer = Signer::new(&args.token_secret, (now + TOKEN_LIFE).as_secs());
    let peer = Peer {
        address: server.address,
        host: server.host.clone(),
        path: "/connection/websocket".to_owned(),
        token: signer.token("churn", &[])?,
    };
    let counted = Counted::default();
    let seconds = args.duration.as_secs_f64();
    let tenth = args.duration / 10;
    let (mut early, mut late, mut most) = (0, 0, 0);
    let mut took = 0.0;
    std::thread::scope(|scope| {
        let (peer, counted) = (&peer, &counted);
        for thread in 0..CONNECTING {
            let every = CONNECTING;
            let pace = Pace::of(rates.0, every);
            scope.spawn(move || come_and_go(peer, counted, pace, thread));
        }
        for thread in 0..USING {
            let pace = Pace::of(rates.1, USING * CHANNELS_PER_FRAME);
            scope.spawn(move || use_once(peer, counted, pace, thread));
        }
        let progress = Progress::new(&format!("churn server {number}"), seconds as u64);
        #[expect(clippy::disallowed_methods, reason = "the generator measures time")]
        let begun = Instant::now();
        while begun.elapsed() < args.duration {
            std::thread::sleep(Duration::from_millis(100));
            let rss = server.memory().rss;
            most = most.max(rss);
            if early == 0 && begun.elapsed() >= tenth {
                early = rss;
            }
            progress.set(begun.elapsed().as_secs());
        }
        took = begun.elapsed().as_secs_f64();
        counted.ends.store(true, Ordering::Relaxed);
        late = late.max(server.memory().rss);
    });
    std::thread::sleep(SETTLE);
    let after = server.memory().rss;
    let mut run = Run {
        subject: Subject::Server,
        figures: Vec::new(),
        latency: histogram()?,
        ledger: Counts::default(),
        disconnected: 0,
        refused: counted.refused.load(Ordering::Relaxed),
    };
    let rate = |count: &AtomicU64| count.load(Ordering::Relaxed) as f64 / took.max(1e-9);
    run.push(
        "connections that came and went",
        Unit::Rate,
        rate(&counted.connections),
    );
    run.push("channels used once", Unit::Rate, rate(&counted.channels));
    run.push("RSS after the first tenth", Unit::Bytes, early as f64);
    run.push("RSS at the end", Unit::Bytes, late as f64);
    run.push("RSS after the end", Unit::Bytes, after as f64);
    run.push("RSS at most", Unit::Bytes, most as f64);
    run.push(
        "RSS after the end ÷ after the first tenth",
        Unit::Share,
        after as f64 / (early as f64).max(1.0),
    );
    Ok(run)
}

/// When one thread does the next thing. Who is late does not wait, and catches up.
struct Pace {
    every: Duration,
    next: Instant,
}

impl Pace {
    /// The share of a thread that does one of so many things of this rate.
    fn of(rate: u32, share: u32) -> Self {
        #[expect(clippy::disallowed_methods, reason = "the generator measures time")]
        let next = Instant::now();
        Self {
            every: Duration::from_secs(share.into()) / rate.max(1),
            next,
        }
    }

    fn wait(&mut self) {
        #[expect(clippy::disallowed_methods, reason = "the generator measures time")]
        let now = Instant::now();
        std::thread::sleep(self.next.saturating_duration_since(now));
        self.next += self.every;
        if now.saturating_duration_since(self.next) > Duration::from_secs(1) {
            // The machine does not bear this rate: what it does bear is in the figures.
            self.next = now;
        }
    }
}

fn come_and_go(peer: &Peer, counted: &Counted, mut pace: Pace, thread: u32) {
    let mut mask = thread;
    while !counted.ends.load(Ordering::Relaxed) {
        pace.wait();
        mask = mask.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        match Line::open(peer, mask) {
            Ok(_) => counted.connections.fetch_add(1, Ordering::Relaxed),
            Err(_) => counted.refused.fetch_add(1, Ordering::Relaxed),
        };
    }
}

fn use_once(peer: &Peer, counted: &Counted, mut pace: Pace, thread: u32) {
    let Ok(mut line) = Line::open(peer, thread) else {
        counted.refused.fetch_add(1, Ordering::Relaxed);
        return;
    };
    let (mut round, mut id) = (0_u64, 1_u32);
    while !counted.ends.load(Ordering::Relaxed) {
        pace.wait();
        let mut text = String::new();
        let first = id;
        for channel in 0..CHANNELS_PER_FRAME {
            let name = format!("{NAMESPACE_ONCE}:{thread}-{round}-{channel}");
            for command in [
                json!({ "id": id + 1, "subscribe": { "channel": name } }),
                json!({ "id": id + 2, "publish": { "channel": name, "data": { "round": round } } }),
                json!({ "id": id + 3, "history": { "channel": name, "limit": 1 } }),
                json!({ "id": id + 4, "unsubscribe": { "channel": name } }),
            ] {
                text.push_str(&command.to_string());
                text.push('\n');
            }
            id += 4;
        }
        round += 1;
        match line.ask(text.trim_end(), id - first) {
            Ok(0) => {}
            Ok(errors) => {
                counted.refused.fetch_add(errors, Ordering::Relaxed);
            }
            Err(_) => {
                counted.refused.fetch_add(1, Ordering::Relaxed);
                return;
            }
        }
        counted
            .channels
            .fetch_add(CHANNELS_PER_FRAME.into(), Ordering::Relaxed);
    }
}

/// A client that waits for its answers. Its end is a reset, which leaves no lingering port.
pub(super) struct Line {
    stream: TcpStream,
    mask: u32,
    unread: Vec<u8>,
}

impl Line {
    /// Connected, with its session.
    pub(super) fn open(peer: &Peer, mask: u32) -> Result<Self, BenchError> {
        let stream = TcpStream::connect(peer.address)?;
        let socket = SockRef::from(&stream);
        socket.set_linger(Some(Duration::ZERO))?;
        socket.set_tcp_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut line = Self {
            stream,
            mask,
            unread: Vec::new(),
        };
        let request = frame::upgrade_request(&peer.host, &peer.path, "");
        line.stream.write_all(&request)?;
        loop {
            match frame::upgrade_answer(&line.unread) {
                frame::Upgrade::Accepted(head) => {
                    line.unread.drain(..head);
                    break;
                }
                frame::Upgrade::Incomplete => line.read()?,
                frame::Upgrade::Refused => return Err(BenchError::Refused("the upgrade".into())),
            }
        }
        match line.ask(&wire::connect_json(&peer.token), 1)? {
            0 => Ok(line),
            _ => Err(BenchError::Refused("the connect command".into())),
        }
    }

    fn read(&mut self) -> Result<(), BenchError> {
        let mut bytes = [0; 16 * 1024];
        let len = self.stream.read(&mut bytes)?;
        if len == 0 {
            return Err(BenchError::Refused("more answers".into()));
        }
        self.unread.extend_from_slice(&bytes[..len]);
        Ok(())
    }

    fn send(&mut self, opcode: u8, payload: &[u8]) -> Result<(), BenchError> {
        let mut out = Vec::new();
        self.mask = self.mask.wrapping_add(0x9E37_79B9);
        frame::write_masked(opcode, payload, self.mask, &mut out);
        Ok(self.stream.write_all(&out)?)
    }

    /// Sends commands and waits for so many replies. How many were errors.
    pub(super) fn ask(&mut self, text: &str, replies: u32) -> Result<u64, BenchError> {
        self.send(frame::TEXT, text.as_bytes())?;
        let (mut left, mut errors) = (replies, 0);
        while left > 0 {
            let (opcode, payload, used) = match frame::scan(&self.unread) {
                frame::Scan::Frame {
                    opcode,
                    payload,
                    used,
                } => (opcode, payload.to_vec(), used),
                frame::Scan::Incomplete => {
                    self.read()?;
                    continue;
                }
                frame::Scan::Invalid => return Err(BenchError::Refused("a frame".into())),
            };
            self.unread.drain(..used);
            match opcode {
                frame::TEXT => {
                    for line in payload.split(|byte| *byte == b'\n') {
                        if line == b"{}" {
                            self.send(frame::TEXT, b"{}")?;
                        } else if memchr::memmem::find(line, b"\"id\":").is_some() {
                            left = left.saturating_sub(1);
                            let is_error = memchr::memmem::find(line, b"\"error\":").is_some();
                            errors += u64::from(is_error);
                        }
                    }
                }
                frame::PING => self.send(frame::PONG, &payload)?,
                frame::CLOSE => return Err(BenchError::Refused("the connection".into())),
                _ => {}
            }
        }
        Ok(errors)
    }

    /// How many publications have come, without waiting for one.
    pub(super) fn published(&mut self) -> Result<u64, BenchError> {
        self.stream.set_nonblocking(true)?;
        let mut bytes = [0; 64 * 1024];
        loop {
            match self.stream.read(&mut bytes) {
                Ok(0) => return Err(BenchError::Refused("the connection".into())),
                Ok(len) => self.unread.extend_from_slice(&bytes[..len]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error.into()),
            }
        }
        self.stream.set_nonblocking(false)?;
        let (mut used_all, mut count, mut pings) = (0, 0, 0);
        while let frame::Scan::Frame {
            opcode,
            payload,
            used,
        } = frame::scan(&self.unread[used_all..])
        {
            used_all += used;
            if opcode == frame::CLOSE {
                return Err(BenchError::Refused("the connection".into()));
            }
            for line in payload.split(|byte| *byte == b'\n') {
                count += u64::from(line.starts_with(b"{\"push\":"));
                pings += u32::from(line == b"{}");
            }
        }
        self.unread.drain(..used_all);
        for _ in 0..pings {
            self.send(frame::TEXT, b"{}")?;
        }
        Ok(count)
    }
}
