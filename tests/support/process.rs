//! The real binary, started on a free port of the loopback and ended with the test.

use std::fs::File;
use std::io::Read;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;

use serde_json::Value;
use tempfile::TempDir;

use super::http::{Http, Response};
use super::wait;

/// Key of the server API in every configuration of the tests.
pub(crate) const API_KEY: &str = "api-key-of-the-tests";
/// HMAC secret of the tokens in every configuration of the tests.
pub(crate) const SECRET: &str = "token-secret-of-the-tests-0123456789";

/// A running `ringmain`. Dropping it kills the process.
pub(crate) struct Server {
    child: Child,
    guard: Child,
    directory: TempDir,
    /// Where clients connect. Port 0 for a server that listens on a unix socket only.
    pub(crate) listen: SocketAddr,
    /// The control thread's own listener.
    pub(crate) admin: SocketAddr,
    /// Where services and probes connect. Port 0 for a server without such a listener.
    pub(crate) internal: SocketAddr,
    /// Which reactor the process says it runs.
    pub(crate) reactor: String,
}

/// How to start it.
#[derive(Clone, Debug)]
pub(crate) struct Start {
    config: Option<String>,
    subcommand: &'static str,
    listen: String,
    shards: u32,
    reactor: String,
    deflate: bool,
    environment: Vec<(String, String)>,
    namespace: Option<String>,
    descriptors: Option<u32>,
    launcher: Vec<String>,
    inherited: Vec<(&'static str, Arc<OwnedFd>)>,
}

/// `uring` or `portable`: what `RINGMAIN_TEST_REACTOR` asks for.
pub(crate) fn reactor_under_test() -> String {
    std::env::var("RINGMAIN_TEST_REACTOR").unwrap_or_else(|_| "uring".to_owned())
}

/// The secrets that all configurations share. `extra` continues it and may add tables.
pub(crate) fn config(extra: &str) -> String {
    format!(
        "[http_api]\nkey = \"{API_KEY}\"\n\n[client.token]\nhmac_secret_key = \"{SECRET}\"\n\n{extra}\n"
    )
}

impl Start {
    /// `ringmain serve` with this configuration, one shard, any free port.
    pub(crate) fn with_config(config: &str) -> Self {
        Self {
            config: Some(config.to_owned()),
            subcommand: "serve",
            listen: "127.0.0.1:0".to_owned(),
            shards: 1,
            reactor: reactor_under_test(),
            deflate: false,
            environment: Vec::new(),
            namespace: None,
            descriptors: None,
            launcher: Vec::new(),
            inherited: Vec::new(),
        }
    }

    /// `ringmain echo`.
    pub(crate) fn echo() -> Self {
        Self {
            config: None,
            subcommand: "echo",
            ..Self::with_config("")
        }
    }

    /// With `--deflate`.
    pub(crate) fn deflate(mut self) -> Self {
        self.deflate = true;
        self
    }

    /// In a network namespace that exists.
    pub(crate) fn in_namespace(mut self, name: &str) -> Self {
        self.namespace = Some(name.to_owned());
        self
    }

    /// More shards than one.
    pub(crate) fn shards(mut self, shards: u32) -> Self {
        self.shards = shards;
        self
    }

    /// With a variable in the environment of the process.
    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// With so many descriptors at most.
    pub(crate) fn descriptors(mut self, most: u32) -> Self {
        self.descriptors = Some(most);
        self
    }

    /// Started by a program that becomes the binary, whose path and arguments follow these.
    pub(crate) fn through(mut self, launcher: Vec<String>) -> Self {
        self.launcher = launcher;
        self
    }

    /// With a socket that a service manager would hand over under this name; two at most.
    pub(crate) fn inherit(mut self, name: &'static str, socket: impl Into<OwnedFd>) -> Self {
        self.inherited.push((name, Arc::new(socket.into())));
        self
    }

    /// Another listener than a free port of 127.0.0.1; empty leaves it to the configuration.
    pub(crate) fn listen(mut self, address: &str) -> Self {
        address.clone_into(&mut self.listen);
        self
    }

    /// Another reactor than the one under test.
    pub(crate) fn reactor(mut self, reactor: &str) -> Self {
        reactor.clone_into(&mut self.reactor);
        self
    }

    /// Starts a process that refuses to; its status, and what it said.
    pub(crate) fn refused(self) -> (Option<i32>, String) {
        let directory = TempDir::new().expect("a temporary directory");
        let mut command = self.command(directory.path(), &directory.path().join("ready.json"));
        let status = command.status().expect("the binary starts");
        (status.code(), read_log(directory.path()))
    }

    /// Starts the process and waits until it says that it is ready.
    pub(crate) fn run(self) -> Server {
        let directory = TempDir::new().expect("a temporary directory");
        let ready_file = directory.path().join("ready.json");
        let mut command = self.command(directory.path(), &ready_file);
        let mut child = command.spawn().expect("the binary starts");
        let guard = guard(child.id());
        let ready = wait::until("the ready file", || {
            let ready = std::fs::read_to_string(&ready_file)
                .ok()
                .and_then(|text| serde_json::from_str::<Value>(&text).ok());
            if ready.is_none()
                && let Some(status) = child.try_wait().expect("the process can be asked")
            {
                panic!(
                    "ringmain ended with {status} before it was ready:\n{}",
                    read_log(directory.path())
                );
            }
            ready
        });
        let address = |value: &Value| value.as_str().and_then(|text| text.parse().ok());
        let first = |key: &str| ready[key].as_array()?.iter().find_map(address);
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        Server {
            listen: first("listen").unwrap_or(nowhere),
            internal: first("internal").unwrap_or(nowhere),
            admin: address(&ready["admin"]).unwrap_or(nowhere),
            reactor: ready["reactor"].as_str().unwrap_or_default().to_owned(),
            child,
            guard,
            directory,
        }
    }

    fn command(&self, directory: &Path, ready_file: &Path) -> Command {
        let mut command = match &self.namespace {
            None if !self.inherited.is_empty() => {
                // The two that a shell can be given, moved to where they are looked for.
                let mut command = Command::new("sh");
                let moved = "exec 3<&0 4<&1 0</dev/null 1>&2; export LISTEN_PID=$$; exec \"$@\"";
                command.args(["-c", moved, "sh", env!("CARGO_BIN_EXE_ringmain")]);
                prepare(&mut command, directory);
                let names: Vec<&str> = self.inherited.iter().map(|(name, _)| *name).collect();
                command.env("LISTEN_FDS", names.len().to_string());
                command.env("LISTEN_FDNAMES", names.join(":"));
                let socket = |at: usize| {
                    let (_, socket) = self.inherited.get(at)?;
                    Some(Stdio::from(socket.try_clone().expect("a descriptor")))
                };
                socket(0).map(|socket| command.stdin(socket));
                socket(1).map(|socket| command.stdout(socket));
                command
            }
            None if self.descriptors.is_some() => {
                let most = self.descriptors.unwrap_or_default();
                let mut command = Command::new("sh");
                let limited = format!("ulimit -n {most} && exec \"$@\"");
                command.args(["-c", &limited, "sh", env!("CARGO_BIN_EXE_ringmain")]);
                prepare(&mut command, directory);
                command
            }
            None if !self.launcher.is_empty() => {
                let mut command = Command::new(&self.launcher[0]);
                command.args(&self.launcher[1..]);
                command.arg(env!("CARGO_BIN_EXE_ringmain"));
                prepare(&mut command, directory);
                command
            }
            None => binary(directory),
            Some(name) => {
                let mut command = Command::new("ip");
                command.args(["netns", "exec", name, env!("CARGO_BIN_EXE_ringmain")]);
                prepare(&mut command, directory);
                command
            }
        };
        if let Some(config) = &self.config {
            let path = directory.join("ringmain.toml");
            std::fs::write(&path, config).expect("the configuration can be written");
            command.arg("--config").arg(path);
        }
        command.arg(self.subcommand);
        if self.deflate {
            command.arg("--deflate");
        }
        if !self.listen.is_empty() {
            command.args(["--listen", &self.listen]);
        }
        command
            .args(["--reactor", &self.reactor])
            .args(["--shards", &self.shards.to_string()])
            .arg("--ready-file")
            .arg(ready_file)
            .env("RINGMAIN__ADMIN__LISTEN", "127.0.0.1:0")
            .envs(quick_drain(self.config.as_deref()))
            .env("RINGMAIN__LOG__LEVEL", "info")
            .env("RINGMAIN__LOG__FORMAT", "json")
            .envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }
}

/// Without the notice of a drain, unless the configuration says one: no test waits for balancers.
fn quick_drain(config: Option<&str>) -> Option<(&'static str, &'static str)> {
    let says = config.is_some_and(|config| config.contains("notice = "));
    (!says).then_some(("RINGMAIN__DRAIN__NOTICE", "0s"))
}

/// The binary with a clean environment, its output in `log` of `directory`.
pub(crate) fn binary(directory: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringmain"));
    prepare(&mut command, directory);
    command
}

fn prepare(command: &mut Command, directory: &Path) {
    let log = File::create(directory.join("log")).expect("the log can be created");
    let errors = log.try_clone().expect("the log can be shared");
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("RINGMAIN_")) {
        command.env_remove(name);
    }
    command
        .current_dir(directory)
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(errors);
}

/// An address of the loopback that nobody has now.
pub(crate) fn free_port() -> SocketAddr {
    let socket = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    socket.local_addr().expect("its address")
}

/// Kills `pid` when this test process is gone, however it ends: the guard's standard input closes with it.
pub(crate) fn guard(pid: u32) -> Child {
    Command::new("sh")
        .args(["-c", &format!("read _; kill -9 {pid} 2>/dev/null")])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("a shell")
}

pub(crate) fn read_log(directory: &Path) -> String {
    let mut text = Vec::new();
    if let Ok(mut file) = File::open(directory.join("log")) {
        file.read_to_end(&mut text).expect("the log can be read");
    }
    String::from_utf8_lossy(&text).into_owned()
}

/// Sends a signal by its name (`TERM`, `HUP`, `STOP`).
pub(crate) fn signal(pid: u32, name: &str) {
    let status = Command::new("sh")
        .args(["-c", &format!("kill -{name} {pid}")])
        .status()
        .expect("a shell");
    assert!(status.success(), "kill -{name} {pid}");
}

impl Server {
    /// Starts `ringmain serve` with this configuration.
    pub(crate) fn start(config: &str) -> Self {
        Start::with_config(config).run()
    }

    /// Process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Everything the process has logged so far.
    pub(crate) fn log(&self) -> String {
        read_log(self.directory.path())
    }

    /// The directory it was started in.
    pub(crate) fn directory(&self) -> PathBuf {
        self.directory.path().to_owned()
    }

    /// Replaces the configuration file.
    pub(crate) fn write_config(&self, config: &str) {
        std::fs::write(self.directory.path().join("ringmain.toml"), config)
            .expect("the configuration can be written");
    }

    /// Sends a signal to the process.
    pub(crate) fn signal(&self, name: &str) {
        signal(self.pid(), name);
    }

    /// Waits for the end of the process.
    pub(crate) fn exit_status(&mut self) -> ExitStatus {
        wait::until("the end of the process", || {
            self.child.try_wait().expect("the process can be asked")
        })
    }

    /// True while the process has not ended.
    pub(crate) fn is_running(&mut self) -> bool {
        self.child
            .try_wait()
            .expect("the process can be asked")
            .is_none()
    }

    /// Calls a method of the server API and returns the whole answer.
    pub(crate) fn api(&self, method: &str, body: &Value) -> Value {
        let response = self.api_response(method, &body.to_string());
        assert_eq!(response.status, 200, "{method} {body}: {}", response.text());
        response.json()
    }

    /// Calls a method at the listener of services, which must answer 200.
    pub(crate) fn api_internal(&self, method: &str, body: &Value) -> Value {
        let response = Http::open(self.internal).post(
            &format!("/api/{method}"),
            &[("X-API-Key", API_KEY)],
            body.to_string().as_bytes(),
        );
        assert_eq!(response.status, 200, "{method} {body}: {}", response.text());
        response.json()
    }

    /// Calls a method of the server API that must succeed and returns its `result`.
    pub(crate) fn api_result(&self, method: &str, body: &Value) -> Value {
        let mut answer = self.api(method, body);
        assert!(answer.get("error").is_none(), "{method} {body}: {answer}");
        answer["result"].take()
    }

    /// Calls a method that must be refused and returns the error code.
    pub(crate) fn api_error(&self, method: &str, body: &Value) -> u64 {
        let answer = self.api(method, body);
        assert!(
            answer["error"]["message"]
                .as_str()
                .is_some_and(|text| !text.is_empty()),
            "{method}: {answer}"
        );
        answer["error"]["code"].as_u64().expect("an error code")
    }

    /// Posts any text to a method of the server API.
    pub(crate) fn api_response(&self, method: &str, body: &str) -> Response {
        Http::open(self.listen).post(
            &format!("/api/{method}"),
            &[("X-API-Key", API_KEY)],
            body.as_bytes(),
        )
    }

    /// A counter of `/metrics`, summed over all label sets.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        let page = Http::open(self.admin).get("/metrics", &[]).text();
        let is_sample = |line: &&str| {
            let rest = line.strip_prefix(name);
            rest.is_some_and(|rest| rest.starts_with(' ') || rest.starts_with('{'))
        };
        let value = |line: &str| {
            line.rsplit(' ')
                .next()
                .and_then(|text| text.parse::<f64>().ok())
        };
        page.lines().filter(is_sample).filter_map(value).sum()
    }

    /// Resident bytes of the process.
    pub(crate) fn resident_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid()))
            .expect("the process lives");
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .expect("VmRSS");
        let kilobytes = line
            .trim()
            .trim_end_matches(" kB")
            .parse::<u64>()
            .expect("a number");
        kilobytes * 1024
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Ok(Some(status)) = self.child.try_wait()
            && std::thread::panicking()
        {
            eprintln!("the server had ended: {status}");
        }
        for child in [&mut self.guard, &mut self.child] {
            if child.kill().is_ok() {
                let ended = child.wait();
                debug_assert!(ended.is_ok(), "a killed child can be awaited");
            }
        }
        if std::thread::panicking() {
            eprintln!("--- log of the server ---\n{}", self.log());
        }
    }
}
