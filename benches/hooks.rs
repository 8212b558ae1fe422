//! What do clients that call no hook notice of a hook target in trouble? The target answers after 5 s, resets, sends garbage, or 10 MB; fifty clients call it all the
//! time, and beside them a channel of 200 subscribers gets 200 publications a second. Runs in trouble take turns with calm ones; the figure is the ratio of their p99.
//!
//! The server runs on core 0, everything else on core 1. Without `--bench` it runs one short round of each, to see that it runs.

use std::error::Error;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use serde_json::{Value, json};
use socket2::SockRef;
use tungstenite::Message;

type Failure = Box<dyn Error + Send + Sync>;

/// Clients that call the hook, each with one call under way.
const CALLERS: usize = 50;
/// What the target sends in its trouble with size.
const HUGE_BYTES: usize = 10 << 20;

/// What is wrong with the target.
#[derive(Clone, Copy)]
enum Trouble {
    Late,
    Resets,
    Garbage,
    Huge,
}

impl Trouble {
    const ALL: [(Self, &str); 4] = [
        (Self::Late, "answers after 5 s"),
        (Self::Resets, "resets"),
        (Self::Garbage, "sends garbage"),
        (Self::Huge, "sends 10 MB"),
    ];
}

fn main() -> Result<(), Failure> {
    let is_test = !std::env::args().any(|argument| argument == "--bench");
    let (runs, seconds) = if is_test { (1, "200ms") } else { (5, "3s") };
    println!(
        "{:<20} {:>12} {:>12} {:>8} {:>12} {:>12}   (median of {runs})",
        "target", "p99 calm", "p99 trouble", "ratio", "calls/s", "RSS"
    );
    for (trouble, name) in Trouble::ALL {
        let backend = backend(trouble)?;
        let mut server = Server::start(backend)?;
        let (mut calm, mut troubled, mut ratios, mut rates) = (vec![], vec![], vec![], vec![]);
        for _ in 0..runs {
            let quiet = server.bystanders(seconds)?;
            let callers = Callers::start(server.address);
            let busy = server.bystanders(seconds)?;
            rates.push(callers.stop()?);
            ratios.push(busy / quiet);
            calm.push(quiet);
            troubled.push(busy);
        }
        let rss = server.rss()? / 1024;
        println!(
            "{name:<20} {:>9.2} ms {:>9.2} ms {:>8.2} {:>12.0} {:>8} KiB",
            median(&mut calm),
            median(&mut troubled),
            median(&mut ratios),
            median(&mut rates),
            rss
        );
    }
    Ok(())
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn pin(core: usize) {
    if let Some(id) = core_affinity::get_core_ids().and_then(|ids| ids.get(core).copied()) {
        core_affinity::set_for_current(id);
    }
}

/// A hook target in trouble; it lives as long as the process.
fn backend(trouble: Trouble) -> Result<SocketAddr, Failure> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    thread::spawn(move || {
        pin(1);
        for stream in listener.incoming().flatten() {
            thread::spawn(move || {
                // A peer that goes away is what some of these troubles bring about.
                let _ = misbehave(&stream, trouble);
            });
        }
    });
    Ok(address)
}

fn misbehave(stream: &TcpStream, trouble: Trouble) -> Result<(), Failure> {
    let mut reader = BufReader::new(stream);
    loop {
        let mut length = 0;
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
            let line = line.trim_end().to_ascii_lowercase();
            if let Some(value) = line.strip_prefix("content-length:") {
                length = value.trim().parse()?;
            }
            if line.is_empty() {
                break;
            }
        }
        reader.read_exact(&mut vec![0; length])?;
        let mut out = stream;
        match trouble {
            Trouble::Late => {
                thread::sleep(Duration::from_secs(5));
                out.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\n{\"result\":{}}")?;
            }
            Trouble::Resets => {
                SockRef::from(stream).set_linger(Some(Duration::ZERO))?;
                return Ok(());
            }
            Trouble::Garbage => {
                out.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n\xff\0garbage")?;
            }
            Trouble::Huge => {
                write!(
                    out,
                    "HTTP/1.1 200 OK\r\nContent-Length: {HUGE_BYTES}\r\n\r\n"
                )?;
                let part = [b'x'; 64 * 1024];
                for _ in 0..HUGE_BYTES / part.len() {
                    out.write_all(&part)?;
                }
            }
        }
    }
}

/// The server under test.
struct Server {
    child: Child,
    address: SocketAddr,
    directory: tempfile::TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself; either way it is reaped.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    fn start(backend: SocketAddr) -> Result<Self, Failure> {
        let directory = tempfile::tempdir()?;
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let config = format!(
            r#"
[server]
listen = ["{address}"]
shards = 1
[admin]
listen = ""
[log]
level = "error"
[client]
allow_anonymous_connect_without_token = true
[client.token]
hmac_secret_key = "bench-secret"
[rpc.proxy]
endpoint = "http://{backend}/rpc"
[rpc.without_namespace]
proxy_enabled = true
[[channel.namespaces]]
name = "bench"
allow_subscribe_for_client = true
allow_publish_for_client = true
"#
        );
        let file = directory.path().join("ringmain.toml");
        std::fs::write(&file, config)?;
        pin(0);
        let child = Command::new(env!("CARGO_BIN_EXE_ringmain"))
            .arg("--config")
            .arg(&file)
            .stdout(Stdio::null())
            .spawn()?;
        pin(1);
        for _ in 0..1000 {
            if TcpStream::connect(address).is_ok() {
                break;
            }
            thread::sleep(Duration::from_millis(10));
        }
        Ok(Self {
            child,
            address,
            directory,
        })
    }

    /// p99 of subscribers that have nothing to do with the hook, milliseconds.
    fn bystanders(&mut self, duration: &str) -> Result<f64, Failure> {
        let file = self.directory.path().join("report.json");
        let output = Command::new(env!("CARGO_BIN_EXE_ringmain"))
            .args([
                "bench",
                "fanout",
                "--connections",
                "200",
                "--rate",
                "200",
                "--core",
                "1",
            ])
            .args(["--warm-up", "500ms", "--duration", duration, "--address"])
            .arg(self.address.to_string())
            .arg("--json")
            .arg(&file)
            .output()?;
        let table = String::from_utf8_lossy(&output.stdout);
        let row = table
            .lines()
            .find(|line| line.trim_start().starts_with("p99 "))
            .ok_or_else(|| {
                format!(
                    "no p99 in:\n{table}\n{}",
                    String::from_utf8_lossy(&output.stderr)
                )
            })?;
        milliseconds(row).ok_or_else(|| format!("not a time: {row}").into())
    }

    fn rss(&self) -> Result<u64, Failure> {
        let statm = std::fs::read_to_string(format!("/proc/{}/statm", self.child.id()))?;
        let pages: u64 = statm.split_whitespace().nth(1).unwrap_or("0").parse()?;
        Ok(pages * 4096)
    }
}

/// The first time in a row of the table.
fn milliseconds(row: &str) -> Option<f64> {
    let words: Vec<&str> = row.split_whitespace().collect();
    words.windows(2).find_map(|pair| {
        let value: f64 = pair[0].parse().ok()?;
        match pair[1] {
            "ns" => Some(value / 1e6),
            "µs" => Some(value / 1e3),
            "ms" => Some(value),
            "s" => Some(value * 1e3),
            _ => None,
        }
    })
}

/// Clients that call the hook again and again.
struct Callers {
    stop: Arc<AtomicBool>,
    calls: Arc<AtomicU64>,
    begun: std::time::Instant,
    threads: Vec<JoinHandle<Result<(), Failure>>>,
}

impl Callers {
    fn start(address: SocketAddr) -> Self {
        let (stop, calls) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicU64::new(0)),
        );
        let threads = (0..CALLERS)
            .map(|_| {
                let (stop, calls) = (Arc::clone(&stop), Arc::clone(&calls));
                thread::spawn(move || {
                    pin(1);
                    call(address, &stop, &calls)
                })
            })
            .collect();
        #[expect(clippy::disallowed_methods, reason = "a bench reads the clock")]
        let begun = std::time::Instant::now();
        Self {
            stop,
            calls,
            begun,
            threads,
        }
    }

    /// Calls a second.
    fn stop(self) -> Result<f64, Failure> {
        let rate = self.calls.load(Ordering::Relaxed) as f64 / self.begun.elapsed().as_secs_f64();
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().map_err(|_| "a caller panicked")??;
        }
        Ok(rate)
    }
}

fn call(address: SocketAddr, stop: &AtomicBool, calls: &AtomicU64) -> Result<(), Failure> {
    let stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_millis(100)))?;
    let url = format!("ws://{address}/connection/websocket");
    let (mut socket, _) = tungstenite::client(url, stream).map_err(|error| error.to_string())?;
    socket.send(Message::text(json!({"id": 1, "connect": {}}).to_string()))?;
    let mut id = 1;
    while !stop.load(Ordering::Relaxed) {
        let message = match socket.read() {
            Ok(message) => message,
            Err(tungstenite::Error::Io(error))
                if matches!(
                    error.kind(),
                    std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut
                ) =>
            {
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        let Message::Text(text) = message else {
            continue;
        };
        if text.as_str() == "{}" {
            socket.send(Message::text("{}"))?;
            continue;
        }
        let reply: Value = serde_json::from_str(text.lines().next().unwrap_or("{}"))?;
        if reply["id"] == id {
            calls.fetch_add(1, Ordering::Relaxed);
            id += 1;
            socket.send(Message::text(
                json!({"id": id, "rpc": {"method": "x", "data": {}}}).to_string(),
            ))?;
            // A client that is told to come back later does not come back at once.
            thread::sleep(Duration::from_millis(20));
        }
    }
    Ok(())
}
