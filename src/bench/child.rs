//! The server under test: started here as a child process, or somebody else's.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::driver::Spread;
use super::process::{self, CpuSource, Memory};
use super::{Args, BenchError, Protocol, Scenario, Transport};

/// Time a server may take until it accepts connections.
const START_TIMEOUT: Duration = Duration::from_secs(20);

/// Namespace without history, for publications that are only fanned out.
pub(crate) const NAMESPACE: &str = "bench";
/// Namespace whose publications may be patches.
pub(crate) const NAMESPACE_DELTA: &str = "delta";
/// Namespace whose publications are kept in the log.
pub(crate) const NAMESPACE_DURABLE: &str = "durable";
/// Namespace whose slow subscribers lose publications.
pub(crate) const NAMESPACE_STALLED: &str = "stalled";
/// `client.queue_max_size` where subscribers stall.
pub(crate) const QUEUE_BYTES_MAX: usize = 1 << 20;
/// Namespace of channels that are used once.
pub(crate) const NAMESPACE_ONCE: &str = "once";
/// Namespace with history and recovery.
pub(crate) const NAMESPACE_RECOVER: &str = "recover";

/// A server to measure.
pub(crate) struct Server {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    /// `Host` header.
    pub(crate) host: String,
    /// Path of the WebSocket endpoint as given with the address, if any.
    pub(crate) path: Option<String>,
    pid: Option<u32>,
    child: Option<OwnChild>,
}

/// Killed and cleaned up when dropped.
struct OwnChild {
    process: Child,
    directory: PathBuf,
    /// What it is started with.
    arguments: Vec<String>,
    core: Option<usize>,
}

impl OwnChild {
    /// The process; it does not listen yet.
    fn spawn(
        directory: &Path,
        arguments: &[String],
        core: Option<usize>,
    ) -> Result<Child, BenchError> {
        let log = directory.join("server.log");
        let mut command = Command::new(std::env::current_exe()?);
        command.args(arguments).current_dir(directory);
        command.stdin(Stdio::null()).stdout(File::create(&log)?);
        command.stderr(File::options().append(true).open(&log)?);
        // The child inherits the core, whatever it does itself.
        Ok(process::on_core(core, || command.spawn())?)
    }

    /// Until it listens.
    fn await_start(&mut self, address: SocketAddr) -> Result<(), BenchError> {
        #[expect(clippy::disallowed_methods, reason = "waits for a process")]
        let begun = Instant::now();
        while TcpStream::connect(address).is_err() {
            if begun.elapsed() > START_TIMEOUT || self.process.try_wait()?.is_some() {
                let log = self.directory.join("server.log");
                return Err(BenchError::ServerStart(
                    fs::read_to_string(&log).unwrap_or_default(),
                ));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }
}

impl Drop for OwnChild {
    fn drop(&mut self) {
        // It may have ended by itself; either way it is reaped.
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = fs::remove_dir_all(&self.directory);
    }
}

impl Server {
    /// The server named by `--address`, or a fresh child process.
    pub(crate) fn obtain(args: &Args) -> Result<Self, BenchError> {
        match &args.address {
            Some(address) => Self::foreign(address, args.server_pid),
            None => Self::start(args),
        }
    }

    fn foreign(address: &str, pid: Option<u32>) -> Result<Self, BenchError> {
        let bad = || BenchError::Address(address.to_owned());
        if address.starts_with("wss://") || address.starts_with("https://") {
            return Err(BenchError::Tls);
        }
        let rest = address
            .strip_prefix("ws://")
            .or_else(|| address.strip_prefix("http://"))
            .unwrap_or(address);
        let (host, path) = match rest.find('/') {
            Some(at) => (&rest[..at], Some(rest[at..].to_owned())),
            None => (rest, None),
        };
        let address = host
            .to_socket_addrs()
            .map_err(|_| bad())?
            .next()
            .ok_or_else(bad)?;
        Ok(Self {
            address,
            host: host.to_owned(),
            path,
            pid,
            child: None,
        })
    }

    fn start(args: &Args) -> Result<Self, BenchError> {
        // The port is free now; that another program takes it before the child does is reported as a failed start.
        let address =
            TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr())?;
        let parent = args.durable.directory.clone();
        let directory = parent.unwrap_or_else(std::env::temp_dir).join(format!(
            "ringmain-bench-{}-{}",
            std::process::id(),
            address.port()
        ));
        fs::create_dir_all(&directory)?;
        let file = directory.join("ringmain.toml");
        fs::write(&file, configuration(args, address))?;
        let listen = address.to_string();
        let is_echo = args.protocol == Protocol::Raw;
        let subcommand = if is_echo {
            vec!["echo", "--listen", &listen]
        } else {
            vec!["serve"]
        };
        let mut arguments = vec!["--config".to_owned(), file.display().to_string()];
        arguments.extend(subcommand.into_iter().map(str::to_owned));
        let process = OwnChild::spawn(&directory, &arguments, args.server_core)?;
        let pid = Some(process.id());
        let mut child = OwnChild {
            process,
            directory,
            arguments,
            core: args.server_core,
        };
        child.await_start(address)?;
        Ok(Self {
            address,
            host: address.to_string(),
            path: None,
            pid,
            child: Some(child),
        })
    }

    /// Kills the server that was started here.
    pub(crate) fn kill(&mut self) -> Result<(), BenchError> {
        if let Some(child) = &mut self.child {
            child.process.kill()?;
            child.process.wait()?;
        }
        Ok(())
    }

    /// Starts it again, where it was and with what it has stored. Until it listens.
    pub(crate) fn start_again(&mut self) -> Result<(), BenchError> {
        if let Some(child) = &mut self.child {
            child.process = OwnChild::spawn(&child.directory, &child.arguments, child.core)?;
            self.pid = Some(child.process.id());
            child.await_start(self.address)?;
        }
        Ok(())
    }

    /// Asks the server that was started here to leave.
    pub(crate) fn terminate(&self) -> Result<(), BenchError> {
        if let Some(child) = &self.child {
            let kill = format!("kill -TERM {}", child.process.id());
            Command::new("sh").args(["-c", &kill]).status()?;
        }
        Ok(())
    }

    /// Whether the server that was started here has ended, and its status.
    pub(crate) fn ended(&mut self) -> Result<Option<i32>, BenchError> {
        let Some(child) = &mut self.child else {
            return Ok(None);
        };
        let status = child.process.try_wait()?;
        Ok(status.map(|status| status.code().unwrap_or(-1)))
    }

    /// Whose CPU time the figures count.
    #[must_use]
    pub(crate) fn cpu(&self) -> Option<CpuSource> {
        self.pid.map(CpuSource::Process)
    }

    /// Memory of the server and of the kernel.
    #[must_use]
    pub(crate) fn memory(&self) -> Memory {
        process::memory(self.pid)
    }
}

fn configuration(args: &Args, address: SocketAddr) -> String {
    let batch = args.batch_delay.map_or_else(String::new, |delay| {
        format!("batch_max_delay = \"{}ms\"", delay.as_millis())
    });
    let cores = args
        .server_core
        .map_or_else(String::new, |core| core.to_string());
    let (shards, reactor, secret, key) = (
        args.shards,
        &args.reactor,
        &args.token_secret,
        &args.api_key,
    );
    let compression = if args.deflate {
        "compression = true"
    } else {
        ""
    };
    let rate = match args.scenario {
        Scenario::Tenants => format!("rate = {}", args.tenants.limit()),
        _ => String::new(),
    };
    let message_max = 65_536.max(args.size * 2 + 4096);
    format!(
        r#"[server]
listen = ["{address}"]
shards = {shards}
reactor = "{reactor}"
cores = [{cores}]

[admin]
listen = ""

[client.token]
hmac_secret_key = "{secret}"

[websocket]
message_size_limit = {message_max}
{compression}

[http_api]
key = "{key}"

[log]
level = "warn"

[[channel.namespaces]]
name = "{NAMESPACE}"
allow_subscribe_for_client = true
allow_publish_for_client = true
{batch}
{rate}

[[channel.namespaces]]
name = "{NAMESPACE_RECOVER}"
allow_subscribe_for_client = true
allow_publish_for_client = true
history_size = 300
history_ttl = "10m"
force_recovery = true
{}"#,
        extras(args)
    )
}

/// What only some clients of the swarm need. Streams could answer a ping only over another connection.
fn extras(args: &Args) -> String {
    let mut text = String::new();
    if args.delta {
        text.push_str(&format!(
            r#"
[[channel.namespaces]]
name = "{NAMESPACE_DELTA}"
allow_subscribe_for_client = true
history_size = 10
history_ttl = "1m"
force_positioning = true
allowed_delta_types = ["fossil"]
delta_publish = true
"#
        ));
    }
    if args.scenario == Scenario::Stalled {
        // Whoever reads nothing answers no ping: it would end by that, before its outbox is full.
        text.push_str(&format!(
            r#"
[[channel.namespaces]]
name = "{NAMESPACE_STALLED}"
allow_subscribe_for_client = true
allow_publish_for_client = true
slow_consumer = "drop_oldest"

[client]
ping_interval = "0s"
queue_max_size = {QUEUE_BYTES_MAX}
"#
        ));
    }
    if matches!(args.scenario, Scenario::Durable | Scenario::Queue) || args.restart {
        text.push_str(&durable(args.durable.nats.as_deref()));
    }
    if args.restart {
        text.push_str("force_recovery = true\n");
    }
    if args.scenario == Scenario::Churn {
        // Clients make these channels, faster than anybody is allowed by default.
        text.push_str(&format!(
            r#"
[[channel.namespaces]]
name = "{NAMESPACE_ONCE}"
allow_subscribe_for_client = true
allow_publish_for_client = true
allow_history_for_client = true
history_size = 1
history_ttl = "1s"

[channel]
new_rate_limit = 0
new_rate_limit_per_user = 0
new_rate_limit_per_prefix = 0
"#
        ));
    }
    if args.scenario == Scenario::Tenants {
        for tenant in 1..=args.tenants.count() {
            let (id, secret) = (Spread::id(tenant), &args.token_secret);
            text.push_str(&format!(
                "\n[[tenants]]\nid = \"{id}\"\n[tenants.token]\nhmac_secret_key = \"{secret}\"\n"
            ));
        }
    }
    if args.scenario == Scenario::Drain {
        let window = args.duration.as_millis();
        text.push_str(&format!(
            "\n[drain]\nnotice = \"0s\"\nwindow = \"{window}ms\"\ngrace = \"5s\"\n"
        ));
    }
    match args.transport {
        Transport::Websocket => {}
        Transport::Sse => text.push_str("\n[sse]\nenabled = true\n"),
        Transport::HttpStream => text.push_str("\n[http_stream]\nenabled = true\n"),
    }
    if args.transport != Transport::Websocket {
        text.push_str("\n[client]\nping_interval = \"0s\"\n");
    }
    text
}

/// The log of the durable scenarios: in the child's own directory unless a NATS server is named.
fn durable(nats: Option<&str>) -> String {
    let log = match nats {
        None => {
            "[durable]\nengine = \"embedded\"\n[durable.embedded]\ndirectory = \"log\"\n".to_owned()
        }
        Some(url) => {
            format!("[durable]\nengine = \"nats\"\n[durable.nats]\nservers = [\"{url}\"]\n")
        }
    };
    format!(
        "\n{log}\n[[channel.namespaces]]\nname = \"{NAMESPACE_DURABLE}\"\ndelivery = \"durable\"\nallow_subscribe_for_client = true\nallow_publish_for_client = true\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_of_a_foreign_server_is_understood_with_and_without_path() {
        let plain = Server::foreign("127.0.0.1:8000", Some(7)).unwrap();
        assert_eq!((plain.address.port(), plain.path), (8000, None));
        let url = Server::foreign("ws://127.0.0.1:9001/topic/a?b=c", None).unwrap();
        assert_eq!(
            (url.host.as_str(), url.path.as_deref()),
            ("127.0.0.1:9001", Some("/topic/a?b=c"))
        );
        assert!(matches!(
            Server::foreign("wss://localhost:1/", None),
            Err(BenchError::Tls)
        ));
        assert!(matches!(
            Server::foreign("nowhere", None),
            Err(BenchError::Address(_))
        ));
    }
}
