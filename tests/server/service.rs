//! What a service manager is told, the sockets that it hands over, and the units that say so.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};

use serde_json::json;
use tempfile::TempDir;

use crate::support::client::Client;
use crate::support::http::Http;
use crate::support::process::{API_KEY, Server, Start, config};
use crate::support::wait::{self, DEADLINE};

const OPEN: &str = "[client]\ninsecure = true\n";
/// Within it half a second passes between two words.
const WATCHDOG_US: &str = "2000000";

/// The socket of a service manager that listens to everything.
struct Told {
    words: Receiver<String>,
    _directory: TempDir,
}

impl Told {
    /// A start that it will be told about.
    fn about(start: Start) -> (Self, Start) {
        let directory = TempDir::new().expect("a directory");
        let path = directory.path().join("notify");
        let socket = UnixDatagram::bind(&path).expect("a socket");
        let (sender, words) = channel();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(length) = socket.recv(&mut buffer) {
                let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
                if sender.send(text).is_err() {
                    return;
                }
            }
        });
        let start = start
            .env("NOTIFY_SOCKET", &path.display().to_string())
            .env("WATCHDOG_USEC", WATCHDOG_US);
        let told = Self {
            words,
            _directory: directory,
        };
        (told, start)
    }

    fn next(&self) -> Vec<String> {
        let text = self.words.recv_timeout(DEADLINE).expect("a word");
        text.lines().map(str::to_owned).collect()
    }

    /// Waits for a message with such a line; the message.
    fn until(&self, wanted: impl Fn(&str) -> bool) -> Vec<String> {
        let end = wait::now() + DEADLINE;
        let mut heard = Vec::new();
        while wait::now() < end {
            let message = self.next();
            if message.iter().any(|line| wanted(line)) {
                return message;
            }
            heard.push(message);
        }
        panic!("not told: {heard:#?}");
    }
}

fn has(message: &[String], line: &str) -> bool {
    message.iter().any(|told| told == line)
}

fn number(message: &[String], name: &str) -> u64 {
    let value = message.iter().find_map(|line| line.strip_prefix(name));
    let value = value.unwrap_or_else(|| panic!("no {name} in {message:?}"));
    value.parse().expect("a number")
}

#[test]
fn service_manager_is_told_when_everything_listens_and_how_it_does() {
    let (told, start) = Told::about(Start::with_config(&config(OPEN)).shards(2));
    let server = start.run();
    told.until(|line| line == "READY=1");
    let client = Client::anonymous(&server);
    let status = format!(
        "STATUS=serving 1 connection on 2 shards ({})",
        server.reactor
    );
    told.until(|line| line == status);
    drop(client);
    told.until(|line| line.starts_with("STATUS=serving 0 connections"));
}

#[test]
fn reload_is_told_from_its_begin_to_its_end() {
    let (told, start) = Told::about(Start::with_config(&config(OPEN)));
    let server = start.run();
    told.until(|line| line == "READY=1");
    let uptime = || {
        let text = std::fs::read_to_string("/proc/uptime").expect("the uptime");
        let seconds = text.split(' ').next().expect("a number");
        seconds.parse::<f64>().expect("a number")
    };
    let before = uptime();
    server.signal("HUP");
    let begin = told.until(|line| line == "RELOADING=1");
    let at = number(&begin, "MONOTONIC_USEC=") as f64 / 1e6;
    assert!((before - 1.0..uptime() + 1.0).contains(&at), "{at}");
    told.until(|line| line == "READY=1");
    assert_eq!(server.metric("ringmain_config_last_reload_successful"), 1.0);
}

#[test]
fn refused_reload_ends_too_and_says_why() {
    let (told, start) = Told::about(Start::with_config(&config(OPEN)));
    let server = start.run();
    told.until(|line| line == "READY=1");
    let taken = server.metric("ringmain_config_last_reload_success_timestamp_seconds");
    let started = server.metric("process_start_time_seconds");
    assert!((taken - started).abs() < 60.0, "{taken} {started}");
    server.write_config(&config("[client]\nchanel_limit = 3\n"));
    server.signal("HUP");
    told.until(|line| line == "RELOADING=1");
    let end = told.until(|line| line == "READY=1");
    let says = |message: &[String]| {
        let status = message.iter().find(|line| line.starts_with("STATUS="));
        status.is_some_and(|line| line.contains("reload refused") && line.contains("channel_limit"))
    };
    assert!(says(&end), "{end:?}");
    assert!(says(&told.until(|line| line.contains("serving"))));
    assert_eq!(server.metric("ringmain_config_last_reload_successful"), 0.0);
    server.write_config(&config(OPEN));
    server.signal("HUP");
    told.until(|line| line == "READY=1");
    told.until(|line| line.starts_with("STATUS=serving") && !line.contains("refused"));
    assert_eq!(server.metric("ringmain_config_last_reload_successful"), 1.0);
}

#[test]
fn drain_is_told_and_asks_for_time_as_long_as_it_lasts() {
    let drain = "[drain]\nnotice = \"3s\"\nwindow = \"0s\"\ngrace = \"0s\"\n";
    let (told, start) = Told::about(Start::with_config(&config(&format!("{OPEN}{drain}"))));
    let mut server = start.run();
    told.until(|line| line == "READY=1");
    server.signal("TERM");
    let begin = told.until(|line| line == "STOPPING=1");
    assert!(number(&begin, "EXTEND_TIMEOUT_USEC=") >= 5_000_000);
    server.signal("HUP");
    told.until(|line| line == "STATUS=reload refused: draining");
    for _ in 0..3 {
        let message = told.until(|line| line.starts_with("STATUS=draining: "));
        assert!(number(&message, "EXTEND_TIMEOUT_USEC=") >= 5_000_000);
    }
    let end = told.until(|line| line.starts_with("STATUS=closing"));
    assert!(number(&end, "EXTEND_TIMEOUT_USEC=") >= 5_000_000);
    assert_eq!(server.exit_status().code(), Some(0), "{}", server.log());
}

/// One thread of the process, held by a tracer until it is dropped.
struct Held(Child);

impl Held {
    fn thread(server: &Server, name: &str) -> Self {
        const TRACER: &str = "
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = [ctypes.c_long] * 4
thread = int(sys.argv[1])
SEIZE, INTERRUPT, WALL = 0x4206, 0x4207, 0x40000000
if libc.ptrace(SEIZE, thread, 0, 0) or libc.ptrace(INTERRUPT, thread, 0, 0):
    sys.exit(os.strerror(ctypes.get_errno()))
os.waitpid(thread, WALL)
print('held', flush=True)
sys.stdin.read()
";
        let tasks = format!("/proc/{}/task", server.pid());
        let tasks = std::fs::read_dir(tasks).expect("its threads");
        let thread = tasks
            .map(|task| task.expect("a thread").path())
            .find(|path| {
                let comm = std::fs::read_to_string(path.join("comm"));
                comm.is_ok_and(|comm| comm.trim() == name)
            })
            .unwrap_or_else(|| panic!("no thread {name}"));
        let thread = thread.file_name().expect("a number").to_owned();
        let mut tracer = Command::new("python3")
            .args(["-c", TRACER])
            .arg(thread)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3");
        let mut word = [0; 4];
        let out = tracer.stdout.as_mut().expect("its output");
        out.read_exact(&mut word).expect("the thread can be held");
        assert_eq!(&word, b"held");
        Self(tracer)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

#[test]
fn watchdog_hears_nothing_while_a_shard_or_the_thread_of_the_log_stands_still() {
    let durable = "[durable.embedded]\ndirectory = \"events\"\n[[channel.namespaces]]\nname = \"orders\"\ndelivery = \"durable\"\n";
    let (told, start) =
        Told::about(Start::with_config(&config(&format!("{OPEN}{durable}"))).shards(2));
    let server = start.run();
    for (thread, says) in [
        ("shard-1", "shard 1 does not answer"),
        ("durable", "the thread of the durable log does not answer"),
        ("shard-0", "shard 0 does not answer"),
    ] {
        told.until(|line| line == "WATCHDOG=1");
        let held = Held::thread(&server, thread);
        told.until(|line| line.contains(says));
        for _ in 0..3 {
            let message = told.until(|line| line.contains(says));
            assert!(!has(&message, "WATCHDOG=1"), "{message:?}");
        }
        drop(held);
    }
    told.until(|line| line == "WATCHDOG=1");
}

#[test]
fn without_a_service_manager_nothing_is_needed() {
    let server = Start::with_config(&config(OPEN))
        .env("NOTIFY_SOCKET", "/nowhere/at/all")
        .env("WATCHDOG_USEC", WATCHDOG_US)
        .run();
    assert_eq!(Http::open(server.admin).get("/ready", &[]).status, 200);
}

fn listener() -> (TcpListener, SocketAddr) {
    listener_of("127.0.0.1:0")
}

fn listener_of(address: &str) -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind(address).expect("a listener");
    let at = listener.local_addr().expect("its address");
    (listener, at)
}

fn is_served(at: SocketAddr) {
    let answer = Http::open(at).post("/api/info", &[("X-API-Key", API_KEY)], b"{}");
    assert_eq!(answer.status, 200);
}

#[test]
fn sockets_that_are_handed_over_by_name_take_the_place_of_the_configured_addresses() {
    let ((clients, at), (admin, admin_at)) = (listener(), listener());
    let server = Start::with_config(&config(OPEN))
        .shards(3)
        .inherit("clients", clients)
        .inherit("admin", admin)
        .run();
    assert_eq!((server.listen, server.admin), (at, admin_at));
    assert_eq!(Http::open(admin_at).get("/ready", &[]).status, 200);
    let mut crowd: Vec<Client> = (0..12).map(|_| Client::anonymous(&server)).collect();
    for client in &mut crowd {
        client.subscribe("news");
    }
    server.api_result("publish", &json!({ "channel": "news", "data": 1 }));
    for client in &mut crowd {
        assert_eq!(client.publication("news")["data"], 1);
    }
}

#[test]
fn sockets_that_are_handed_over_are_found_by_their_address() {
    let directory = TempDir::new().expect("a directory");
    let path = directory.path().join("socket");
    let (clients, at) = listener();
    let internal = UnixListener::bind(&path).expect("a listener");
    let listen = format!(
        "[server]\nlisten = [\"{at}\"]\ninternal_listen = [\"unix:{}\"]\n",
        path.display()
    );
    let server = Start::with_config(&config(&format!("{listen}{OPEN}")))
        .listen("")
        .shards(2)
        .inherit("ringmain.socket", clients)
        .inherit("unknown", internal)
        .run();
    assert_eq!(server.listen, at);
    let inside = UnixStream::connect(&path).expect("it listens");
    inside.set_read_timeout(Some(DEADLINE)).expect("a deadline");
    let answer = Http::over(inside).post("/api/info", &[("X-API-Key", API_KEY)], b"{}");
    assert_eq!(answer.status, 200);
    drop(Client::anonymous(&server));
}

#[test]
fn whoever_connects_between_two_processes_is_served_by_the_second() {
    let (clients, at) = listener();
    let start = |socket: &TcpListener| {
        Start::with_config(&config(OPEN))
            .shards(2)
            .inherit("clients", socket.try_clone().expect("a descriptor"))
    };
    // Before there is any.
    let ask = |stream: &mut TcpStream| {
        stream.set_read_timeout(Some(DEADLINE)).expect("a deadline");
        let head = format!("POST /api/info HTTP/1.1\r\nHost: x\r\nX-API-Key: {API_KEY}\r\n");
        write!(
            stream,
            "{head}Content-Length: 2\r\nConnection: close\r\n\r\n{{}}"
        )
        .expect("sent");
    };
    let answered = |mut stream: TcpStream| {
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    };
    let early = || {
        let mut stream = TcpStream::connect(at).expect("the queue has room");
        ask(&mut stream);
        stream
    };
    let mut waiting: Vec<TcpStream> = (0..4).map(|_| early()).collect();
    for _ in 0..2 {
        let mut server = start(&clients).run();
        waiting.drain(..).for_each(answered);
        is_served(at);
        server.signal("TERM");
        assert_eq!(server.exit_status().code(), Some(0), "{}", server.log());
        waiting.extend((0..4).map(|_| early()));
    }
    let _last = start(&clients).run();
    waiting.drain(..).for_each(answered);
}

#[test]
fn socket_that_no_listener_of_the_configuration_is_ends_the_start_with_what_to_do() {
    // Of an address at which nobody else listens meanwhile.
    let (socket, at) = listener_of("127.0.0.35:0");
    let (status, said) = Start::with_config(&config(OPEN))
        .inherit("edge.socket", socket)
        .refused();
    assert_eq!(status, Some(2), "{said}");
    assert!(
        said.contains(&at.to_string()) && said.contains("FileDescriptorName="),
        "{said}"
    );
    let connected = TcpStream::connect(at);
    assert!(connected.is_err(), "nobody keeps it");
    let file = std::fs::File::open("/dev/null").expect("a file");
    let (status, said) = Start::with_config(&config(OPEN))
        .inherit("clients", file)
        .refused();
    assert_eq!(status, Some(2), "{said}");
    assert!(
        said.contains("descriptor 3") && said.contains("no socket"),
        "{said}"
    );
}

#[test]
fn damaged_log_has_a_status_of_its_own_which_the_unit_does_not_restart() {
    let directory = TempDir::new().expect("a directory");
    let durable = format!(
        "[durable.embedded]\ndirectory = \"{}\"\n[[channel.namespaces]]\nname = \"orders\"\ndelivery = \"durable\"\n",
        directory.path().display()
    );
    let mut server = Start::with_config(&config(&durable)).run();
    server.signal("TERM");
    assert_eq!(server.exit_status().code(), Some(0), "{}", server.log());
    std::fs::write(directory.path().join("format"), "999\n").expect("a file");
    let (status, said) = Start::with_config(&config(&durable)).refused();
    assert_eq!(status, Some(65), "{said}");
    let unit = std::fs::read_to_string(tuning("ringmain.service")).expect("the unit");
    assert!(unit.contains("\nRestartPreventExitStatus=2 65\n"));
}

fn tuning(name: &str) -> String {
    format!("{}/tuning/{name}", env!("CARGO_MANIFEST_DIR"))
}

fn analyze(arguments: &[&str]) -> (bool, String) {
    let output = Command::new("systemd-analyze")
        .args(arguments)
        .output()
        .expect("systemd-analyze; the package is systemd");
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8(text).expect("text");
    (output.status.success(), text)
}

/// The units with the program of the tests, and those that they name.
fn units(directory: &Path) -> [String; 2] {
    ["ringmain.service", "ringmain.socket"].map(|name| {
        let text = std::fs::read_to_string(tuning(name)).expect("the unit");
        let path = directory.join(name);
        let text = text.replace("/usr/bin/ringmain", env!("CARGO_BIN_EXE_ringmain"));
        std::fs::write(&path, text).expect("a file");
        path.display().to_string()
    })
}

#[test]
fn units_are_accepted_and_rated_as_safe() {
    let directory = TempDir::new().expect("a directory");
    let [service, socket] = units(directory.path());
    let (_, version) = analyze(&["--version"]);
    let version = version.split_whitespace().nth(1).expect("a version");
    let version: u32 = version
        .split(['.', '-', '~'])
        .next()
        .expect("a number")
        .parse()
        .expect("a number");
    let (_, said) = analyze(&["verify", "--man=no", &service, &socket]);
    // What it says of a type that it is too old to know is what the unit says, too.
    let is_known = |line: &&str| version < 253 && line.contains("ignoring: notify-reload");
    let complaints: Vec<&str> = said
        .lines()
        .filter(|line| line.contains("ringmain") && !is_known(line))
        .collect();
    assert!(complaints.is_empty(), "{complaints:#?}");
    let (is_safe, said) = analyze(&[
        "security",
        "--offline=true",
        "--threshold=25",
        "--no-pager",
        &service,
    ]);
    assert!(is_safe, "{said}");
    assert!(said.contains(" OK "), "{said}");
}
