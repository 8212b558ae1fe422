//! Real NATS servers of a test: alone or three together, each with a directory and a port of its own.

use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

/// One server, killed when it is dropped.
pub(crate) struct NatsServer {
    directory: TempDir,
    port: u16,
    arguments: Vec<String>,
    process: Option<Child>,
    guard: Option<Child>,
}

impl NatsServer {
    /// A server with JetStream.
    pub(crate) fn start() -> Self {
        let mut server = Self::stopped(Vec::new());
        server.restart();
        server
    }

    /// A server that is not started yet.
    pub(crate) fn stopped(arguments: Vec<String>) -> Self {
        Self {
            directory: tempfile::tempdir().expect("a directory"),
            port: free_port(),
            arguments,
            process: None,
            guard: None,
        }
    }

    /// Three servers that hold a stream together.
    pub(crate) fn cluster() -> Vec<Self> {
        let routes: Vec<u16> = (0..3).map(|_| free_port()).collect();
        let all: Vec<String> = routes
            .iter()
            .map(|port| format!("nats://127.0.0.1:{port}"))
            .collect();
        let server = |(index, own): (usize, &String)| {
            Self::stopped(vec![
                format!("--name=n{index}"),
                "--cluster_name=c".to_owned(),
                format!("--cluster={own}"),
                format!("--routes={}", all.join(",")),
            ])
        };
        let mut servers: Vec<Self> = all.iter().enumerate().map(server).collect();
        for server in &mut servers {
            server.spawn();
        }
        for server in &servers {
            server.wait();
        }
        servers
    }

    /// Starts it, on the same port and with what it has stored, and waits until it greets.
    pub(crate) fn restart(&mut self) {
        self.spawn();
        self.wait();
    }

    fn spawn(&mut self) {
        let log = std::fs::File::create(self.directory.path().join("log")).expect("a log");
        let child = Command::new(binary())
            .arg("--jetstream")
            .arg(format!("--store_dir={}", self.directory.path().display()))
            .arg("--addr=127.0.0.1")
            .arg(format!("--port={}", self.port))
            .args(&self.arguments)
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("nats-server on the PATH, or where `go install` puts it");
        self.guard = Some(guard(child.id()));
        self.process = Some(child);
    }

    fn wait(&self) {
        for _ in 0..2000 {
            if let Ok(mut stream) = TcpStream::connect(("127.0.0.1", self.port)) {
                let mut greeting = [0; 5];
                if stream.read_exact(&mut greeting).is_ok() && &greeting == b"INFO " {
                    return;
                }
            }
            std::thread::park_timeout(Duration::from_millis(10));
        }
        let log = std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default();
        panic!("nats-server does not greet:\n{log}");
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self) {
        // The guard first: afterwards the number may be another process's.
        for mut process in self.guard.take().into_iter().chain(self.process.take()) {
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    /// Where it stores what it has.
    pub(crate) fn store(&self) -> PathBuf {
        self.directory.path().to_owned()
    }

    /// Its process, while it runs.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Child::id)
    }

    /// Where clients connect.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Where clients connect.
    pub(crate) fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }
}

impl Drop for NatsServer {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Kills the server when this test process is gone, however it ends: the guard's standard input closes with it.
fn guard(pid: u32) -> Child {
    Command::new("sh")
        .args(["-c", &format!("read _; kill -9 {pid} 2>/dev/null")])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("a shell")
}

/// A port that nobody has now.
pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    listener.local_addr().expect("its address").port()
}

/// `NATS_SERVER`, or the one on the PATH, or the one that `go install` has built.
pub(crate) fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("NATS_SERVER") {
        return path.into();
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path).map(|directory| directory.join("nats-server"));
    let built = std::env::var_os("GOPATH")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join("go")))
        .map(|directory| directory.join("bin/nats-server"));
    on_path
        .chain(built)
        .find(|path| path.is_file())
        .unwrap_or_else(|| "nats-server".into())
}
