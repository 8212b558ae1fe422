//! Many tenants at equal load, of which one goes to many times what it may: do the others notice?
//!
//! The quiet ones are a swarm whose latencies are measured. The noisy one is a process of its own with the lowest priority, so that the
//! work of receiving so much is not taken for the server's: `bench fanout` against the path of its tenant. A client of its tenant sees
//! how much of what it publishes the server takes.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::json;

use super::child::{NAMESPACE, Server};
use super::churn::{Line, Peer};
use super::driver::{Driver, Spread};
use super::process::{self, CpuSource, Facts};
use super::progress::Progress;
use super::report::{Report, Run, Subject, Unit};
use super::swarm::{Load, Plan, Stats, Swarm};
use super::token::Signer;
use super::wire::Wire;
use super::{Args, BenchError, Protocol, Publish, payload};
use crate::uring::socket::raise_descriptors_max;

/// The noisy tenant.
const NOISY: u32 = 1;
/// Connections of each quiet tenant, its channels, and its publications a second, if nothing is said.
const CONNECTIONS: u32 = 50;
const CHANNELS: u32 = 5;
const RATE: f64 = 20.0;
/// The noisy tenant publishes so many times as much as it may.
const TIMES: f64 = 50.0;
/// The noisy tenant has joined and publishes, or does not.
const NOISY_TIMEOUT: Duration = Duration::from_secs(120);
/// It is looked at so often.
const LOOK: Duration = Duration::from_millis(100);
/// Time without any arrival after which what is missing counts as lost.
const PATIENCE: Duration = Duration::from_secs(3);
/// Life of the tokens.
const TOKEN_LIFE: Duration = Duration::from_secs(24 * 3600);

/// Options of `tenants`.
#[derive(Clone, Debug, Default, PartialEq, Eq, clap::Args)]
pub struct TenantArgs {
    /// With `tenants`: how many, the noisy one included [default: 20]
    #[arg(long)]
    pub tenants: Option<u32>,
    /// With `tenants`: connections of the noisy one, each subscribed to all of its channels [default: 5000]
    #[arg(long)]
    pub noisy_connections: Option<u32>,
    /// With `tenants`: its channels [default: 4]
    #[arg(long)]
    pub noisy_channels: Option<u32>,
    /// With `tenants`: publications a second that a tenant may have, of which the noisy one tries 50 times as many [default: 20]
    #[arg(long)]
    pub limit: Option<u32>,
}

impl TenantArgs {
    /// Something of it is set.
    pub(super) fn is_set(&self) -> bool {
        *self != Self::default()
    }

    /// All tenants.
    pub(super) fn count(&self) -> u32 {
        self.tenants.unwrap_or(20)
    }

    /// Publications a second of one connection that the server lets through.
    pub(super) fn limit(&self) -> u32 {
        self.limit.unwrap_or(RATE as u32)
    }

    fn noisy_connections(&self) -> u32 {
        self.noisy_connections.unwrap_or(5000)
    }

    fn noisy_channels(&self) -> u32 {
        self.noisy_channels.unwrap_or(4)
    }
}

/// What each quiet tenant has.
struct Quiet {
    tenants: u32,
    connections: u32,
    channels: u32,
    rate: f64,
}

impl Quiet {
    fn of(args: &Args) -> Result<Self, BenchError> {
        let own = &args.tenants;
        let quiet = Self {
            tenants: own.count().saturating_sub(1),
            connections: args.connections.unwrap_or(CONNECTIONS),
            channels: args.channels.unwrap_or(CHANNELS),
            rate: args.rate.unwrap_or(RATE),
        };
        let Self {
            tenants,
            connections,
            channels,
            rate,
        } = quiet;
        if args.protocol != Protocol::Centrifuge
            || args.address.is_some()
            || args.with_limit
            || args.saturate
            || args.publish != Publish::Client
        {
            return Err(BenchError::Usage(
                "tenants is measured with a server that it starts and clients that publish at a rate, and there is no limit of it",
            ));
        }
        if !(1..=999).contains(&tenants) || own.limit() == 0 || args.runs == 0 {
            return Err(BenchError::Usage(
                "there are 2 up to 1000 tenants, a limit and a run",
            ));
        }
        if channels == 0 || connections < channels || !connections.is_multiple_of(channels) {
            return Err(BenchError::Usage(
                "the connections of a quiet tenant are spread evenly over its channels",
            ));
        }
        if !(rate > 0.0 && rate <= f64::from(own.limit())) {
            return Err(BenchError::Usage(
                "a quiet tenant publishes something, and no more than --limit",
            ));
        }
        if own.noisy_connections() == 0
            || own.noisy_channels() == 0
            || args.size < payload::SIZE_MIN
        {
            return Err(BenchError::Usage(
                "the noisy tenant has a connection and a channel, and a payload at least 42 bytes",
            ));
        }
        Ok(quiet)
    }

    fn plan(&self, args: &Args, server: &Server) -> Plan {
        Plan {
            address: server.address,
            host: server.host.clone(),
            driver: Driver::Centrifuge {
                path: "/connection/websocket".to_owned(),
                signer: signer(args),
                namespace: NAMESPACE,
                recover: false,
                wires: Wire::of(args),
                tenants: Some(Spread {
                    first: NOISY + 1,
                    channels: self.channels,
                }),
            },
            connections: self.tenants * self.connections,
            channels: self.tenants * self.channels,
            subscriptions: 1,
            size: args.size,
            publish_bytes_min: 0,
            api_key: None,
            has_publisher: false,
            concurrency: args.concurrency.unwrap_or(512),
        }
    }
}

fn signer(args: &Args) -> Signer {
    #[expect(clippy::disallowed_methods, reason = "tokens carry an expiry")]
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Signer::new(&args.token_secret, (now + TOKEN_LIFE).as_secs())
}

/// Runs it as often as asked for.
pub(super) fn run(args: &Args) -> Result<Report, BenchError> {
    let quiet = Quiet::of(args)?;
    raise_descriptors_max();
    let facts = Facts::read(args.server_core, args.core);
    let mut runs = Vec::new();
    for number in 1..=args.runs {
        let server = Server::obtain(args)?;
        runs.push(process::on_core(args.core, || {
            Course::new(args, &quiet, &server, number)?.run()
        })?);
    }
    Ok(Report {
        scenario: args.scenario.name(),
        shape: json!({
            "tenants": args.tenants.count(), "connections": quiet.connections, "channels": quiet.channels,
            "rate": quiet.rate, "limit": args.tenants.limit(), "payload_bytes": args.size,
            "noisy_connections": args.tenants.noisy_connections(), "noisy_channels": args.tenants.noisy_channels(),
            "seconds": args.duration.as_secs_f64(), "shards": args.shards,
        }),
        facts,
        runs,
    })
}

/// The noisy tenant's process. It ends when this is dropped.
struct Noise {
    process: Child,
    /// A client of the same tenant.
    spy: Line,
}

impl Drop for Noise {
    fn drop(&mut self) {
        // It may have ended by itself; either way it is reaped.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Noise {
    fn start(args: &Args, server: &Server) -> Result<Self, BenchError> {
        let own = &args.tenants;
        let path = format!("/t/{}/connection/websocket", Spread::id(NOISY));
        let peer = Peer {
            address: server.address,
            host: server.host.clone(),
            path: path.clone(),
            token: signer(args).token("spy", &[])?,
        };
        let mut spy = Line::open(&peer, NOISY)?;
        let subscribe = |channel| {
            json!({ "id": channel + 2, "subscribe": { "channel": format!("{NAMESPACE}:{channel}") } })
                .to_string()
        };
        let all: Vec<String> = (0..own.noisy_channels()).map(subscribe).collect();
        if spy.ask(&all.join("\n"), own.noisy_channels())? > 0 {
            return Err(BenchError::Refused("a subscription".to_owned()));
        }
        let channels = own.noisy_channels().to_string();
        let longest = NOISY_TIMEOUT + args.warm_up + args.duration * 2;
        let process = Command::new("nice")
            .args(["-n", "19"])
            .arg(std::env::current_exe()?)
            .args(["bench", "fanout", "--address"])
            .arg(format!("ws://{}{path}", server.address))
            .args(["--token-secret", &args.token_secret])
            .args(["--connections", &own.noisy_connections().to_string()])
            .args(["--channels", &channels, "--subscriptions", &channels])
            .args(["--rate", &(f64::from(own.limit()) * TIMES).to_string()])
            .args(["--size", &args.size.to_string()])
            .args(["--duration", &format!("{}s", longest.as_secs())])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        Ok(Self { process, spy })
    }
}

/// What was read around a measured time.
struct Window {
    stats: Stats,
    seconds: f64,
    server_ns: Option<f64>,
}

impl Window {
    fn p99(&self) -> f64 {
        self.stats.latency.value_at_quantile(0.99) as f64
    }

    fn cpu(&self) -> Option<f64> {
        self.server_ns.map(|ns| ns / 1e9 / self.seconds)
    }
}

struct Course<'a> {
    args: &'a Args,
    quiet: &'a Quiet,
    server: &'a Server,
    swarm: Swarm,
    number: u32,
}

impl<'a> Course<'a> {
    fn new(
        args: &'a Args,
        quiet: &'a Quiet,
        server: &'a Server,
        number: u32,
    ) -> Result<Self, BenchError> {
        Ok(Self {
            args,
            quiet,
            server,
            swarm: Swarm::new(quiet.plan(args, server))?,
            number,
        })
    }

    fn progress(&self, phase: &str, len: u64) -> Progress {
        Progress::new(&format!("tenants server {}: {phase}", self.number), len)
    }

    fn hold(&mut self, phase: &str, time: Duration) -> Result<(), BenchError> {
        let progress = self.progress(phase, (time.as_millis() / 100) as u64);
        self.swarm.run(time, &progress)
    }

    /// The same load twice in one run: alone, and beside the noisy one.
    fn run(mut self) -> Result<Run, BenchError> {
        let Quiet {
            tenants,
            connections,
            rate,
            ..
        } = *self.quiet;
        let progress = self.progress("connects", u64::from(tenants * connections));
        self.swarm.connect(&progress)?;
        drop(progress);
        self.swarm.set_load(Load::Rate(rate * f64::from(tenants)));
        self.hold("warms up", self.args.warm_up)?;
        let (without, _) = self.window("all are quiet", None)?;
        let mut noise = Noise::start(self.args, self.server)?;
        self.await_noise(&mut noise)?;
        self.hold("one is noisy", self.args.warm_up)?;
        noise.spy.published()?;
        let (with, taken) = self.window("one is noisy", Some(&mut noise))?;
        drop(noise);
        self.swarm.set_load(Load::None);
        self.swarm.settle(PATIENCE)?;
        let run = self.figures(&without, &with, taken);
        self.swarm.disconnect()?;
        Ok(run)
    }

    /// Until the noisy one has joined and something that it publishes arrives.
    fn await_noise(&mut self, noise: &mut Noise) -> Result<(), BenchError> {
        let deadline = self.swarm.clock() + NOISY_TIMEOUT.as_nanos() as u64;
        while noise.spy.published()? == 0 {
            self.hold("the noisy one connects", LOOK)?;
            if noise.process.try_wait()?.is_some() || self.swarm.clock() > deadline {
                return Err(BenchError::Refused("the noisy tenant".to_owned()));
            }
        }
        Ok(())
    }

    /// Counts for the measured time, and how many publications of the noisy one were taken in it.
    fn window(
        &mut self,
        phase: &str,
        mut noise: Option<&mut Noise>,
    ) -> Result<(Window, u64), BenchError> {
        let cpu = |server: &Server| server.cpu().as_ref().and_then(CpuSource::cpu_ns);
        self.swarm.measure()?;
        let (before, start) = (cpu(self.server), self.swarm.clock());
        let mut taken = 0;
        for _ in 0..self.args.duration.as_millis().div_ceil(LOOK.as_millis()) {
            self.hold(phase, LOOK)?;
            if let Some(noise) = &mut noise {
                taken += noise.spy.published()?;
            }
        }
        let (end, after) = (self.swarm.clock(), cpu(self.server));
        let window = Window {
            stats: self.swarm.measure()?,
            seconds: (end - start) as f64 / 1e9,
            server_ns: (after.zip(before))
                .map(|(after, before)| after.saturating_sub(before) as f64),
        };
        Ok((window, taken))
    }

    fn figures(&self, without: &Window, with: &Window, taken: u64) -> Run {
        let own = &self.args.tenants;
        let mut run = Run {
            subject: Subject::Server,
            figures: Vec::new(),
            latency: with.stats.latency.clone(),
            ledger: self.swarm.books(),
            disconnected: self.swarm.disconnected(),
            refused: self.swarm.refused(),
        };
        let tenants = f64::from(self.quiet.tenants);
        run.push("quiet tenants", Unit::Count, tenants);
        let joined = f64::from(self.swarm.joined());
        run.push("connections of the quiet", Unit::Count, joined);
        for (name, window) in [
            ("deliveries to the quiet, without", without),
            ("deliveries to the quiet, with", with),
        ] {
            let rate = window.stats.deliveries as f64 / window.seconds;
            run.push(name, Unit::Rate, rate);
        }
        let offered = f64::from(own.limit()) * TIMES;
        run.push("the noisy one publishes", Unit::Rate, offered);
        let taken = taken as f64 / with.seconds;
        run.push("of which are taken", Unit::Rate, taken);
        let given = taken * f64::from(own.noisy_connections() + 1);
        run.push("deliveries to the noisy one", Unit::Rate, given);
        for (name, window) in [("server CPU, without", without), ("server CPU, with", with)] {
            if let Some(cpu) = window.cpu() {
                run.push(name, Unit::Share, cpu);
            }
        }
        if let Some(cpu) = with.server_ns {
            let all = given * with.seconds + with.stats.deliveries as f64;
            run.push(
                "server CPU per delivery, with",
                Unit::Time,
                cpu / all.max(1.0),
            );
        }
        for (name, quantile) in [("p50", 0.5), ("p99.9", 0.999), ("max", 1.0)] {
            let value = with.stats.latency.value_at_quantile(quantile) as f64;
            run.push(name, Unit::Time, value);
        }
        run.push("p99 of the quiet, without", Unit::Time, without.p99());
        run.push("p99 of the quiet, with", Unit::Time, with.p99());
        let ratio = with.p99() / without.p99().max(1.0);
        run.push("p99, with ÷ without", Unit::Count, ratio);
        let dropped = run.ledger.lost as f64;
        run.push("drops at the quiet", Unit::Count, dropped);
        run
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(line: &str) -> Args {
        #[derive(clap::Parser)]
        struct Cli {
            #[command(flatten)]
            args: Args,
        }
        use clap::Parser as _;
        Cli::parse_from(std::iter::once("bench").chain(line.split_whitespace())).args
    }

    #[test]
    fn defaults_are_those_of_the_figures() {
        let args = args("tenants");
        let quiet = Quiet::of(&args).unwrap();
        assert_eq!(
            (quiet.tenants, quiet.connections, quiet.channels),
            (19, 50, 5)
        );
        let own = &args.tenants;
        assert_eq!((own.noisy_connections(), own.noisy_channels()), (5000, 4));
    }

    #[test]
    fn what_cannot_be_measured_is_refused() {
        for line in [
            "tenants --tenants 1",
            "tenants --address 127.0.0.1:1",
            "tenants --connections 7 --channels 2",
            "tenants --rate 21",
            "tenants --noisy-channels 0",
            "tenants --size 41",
        ] {
            let wrong = Quiet::of(&args(line));
            assert!(matches!(wrong, Err(BenchError::Usage(_))), "{line}");
        }
    }
}
