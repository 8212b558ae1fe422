//! The load generator behind `ringmain bench`. It speaks to the server as a stranger would: over sockets only.
//!
//! A run is made of a [`swarm`] of clients on rings of their own, a [`ledger`] that checks each delivery in band, and
//! readings of the server's CPU time and memory. [`limit`] is the yardstick: the same traffic from raw sockets on
//! a ring set up like a shard's, with no proxy in it.

mod child;
mod churn;
mod driver;
mod durable;
mod frame;
mod ledger;
mod limit;
mod payload;
#[cfg(test)]
mod peer;
mod process;
mod progress;
mod report;
mod scenario;
mod shape;
mod swarm;
mod tenants;
mod token;
mod wire;

use std::path::PathBuf;
use std::time::Duration;

pub use durable::DurableArgs;
pub use tenants::TenantArgs;

/// `ringmain bench`
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// What to measure
    #[arg(value_enum)]
    pub scenario: Scenario,
    /// Server to measure: `host:port` or `ws://host:port/path`. Without it a local server is started,
    /// with `echo --protocol raw` a local `ringmain echo`
    #[arg(long)]
    pub address: Option<String>,
    /// Process id of the server given by `--address`: its CPU time and memory are read
    #[arg(long, requires = "address")]
    pub server_pid: Option<u32>,
    /// Core for the server that is started here, and for the limit
    #[arg(long)]
    pub server_core: Option<usize>,
    /// Core for the generator
    #[arg(long)]
    pub core: Option<usize>,
    /// Shards of the server that is started here
    #[arg(long, default_value_t = 1)]
    pub shards: u16,
    /// Reactor of the server that is started here: auto, uring or portable
    #[arg(long, default_value = "auto")]
    pub reactor: String,
    /// Protocol of the server
    #[arg(long, value_enum, default_value_t = Protocol::Centrifuge)]
    pub protocol: Protocol,
    /// Encoding of subscribers (Centrifuge only); mixed: every other one
    #[arg(long, value_enum, default_value_t = Encoding::Json)]
    pub encoding: Encoding,
    /// Transport of subscribers (Centrifuge only)
    #[arg(long, value_enum, default_value_t = Transport::Websocket)]
    pub transport: Transport,
    /// Subscribers offer permessage-deflate
    #[arg(long)]
    pub deflate: bool,
    /// Subscribers ask for Fossil patches; the channel keeps history then, and publications come over the API
    #[arg(long)]
    pub delta: bool,
    /// Publications of a channel wait so long for others; each run is preceded by one in which they do not, and compared
    #[arg(long, value_parser = duration, conflicts_with_all = ["address", "rate_of_saturation"])]
    pub batch_delay: Option<Duration>,
    /// HMAC secret for tokens; with `--protocol pusher` the app's secret
    #[arg(long, default_value = "bench-secret")]
    pub token_secret: String,
    /// Key of the server API; with `--protocol pusher` the app's key
    #[arg(long, default_value = "bench-key")]
    pub api_key: String,
    /// Who publishes
    #[arg(long, value_enum, default_value_t = Publish::Client)]
    pub publish: Publish,
    /// With `--protocol raw`: path for the publisher, if it is another than the subscribers'
    #[arg(long)]
    pub raw_publish_path: Option<String>,
    /// With `--protocol raw`: text each subscriber sends for each channel; `{channel}` is its number
    #[arg(long, default_value = "")]
    pub raw_subscribe: String,
    /// With `--protocol raw`: text that publishes; `{channel}` and `{data}` are replaced. Default: the payload itself
    #[arg(long, default_value = "")]
    pub raw_publish: String,
    /// Connections [default: fanout and limit 1000, chat 1000, echo 1, idle and drain 15000, storm 5000, stalled 10000; tenants 50 of
    /// each quiet one; churn 5000 a second]
    #[arg(long)]
    pub connections: Option<u32>,
    /// Channels [default: chat 1000, durable and queue 64, echo one each, tenants 5 of each quiet one, churn 10000 a second, otherwise 1]
    #[arg(long)]
    pub channels: Option<u32>,
    /// Channels that each connection subscribes to [default: chat 5, otherwise 1]
    #[arg(long)]
    pub subscriptions: Option<u32>,
    /// Payload bytes; with `durable` and `queue` 256 if nothing is said
    #[arg(long, visible_alias = "payload", default_value_t = 128, default_value_ifs = [("scenario", "durable", "256"), ("scenario", "queue", "256")])]
    pub size: usize,
    /// Publications per second, all channels together [default: fanout and limit 100, chat 1000, stalled 20, tenants 20 of each]
    #[arg(long)]
    pub rate: Option<f64>,
    /// Publish as fast as the slowest subscriber receives
    #[arg(long, conflicts_with = "rate")]
    pub saturate: bool,
    /// Publications in flight with `--saturate`: published and not yet received by all
    #[arg(long, default_value_t = 64)]
    pub window: u32,
    /// Find saturation first, then run at this share of it
    #[arg(long, conflicts_with_all = ["rate", "saturate"], value_name = "SHARE")]
    pub rate_of_saturation: Option<f64>,
    /// Measured time
    #[arg(long, default_value = "10s", value_parser = duration)]
    pub duration: Duration,
    /// Load before the measured time
    #[arg(long, default_value = "2s", value_parser = duration)]
    pub warm_up: Duration,
    /// Runs; figures are medians
    #[arg(long, default_value_t = 1)]
    pub runs: u32,
    /// After each run measure the limit of the same shape
    #[arg(long)]
    pub with_limit: bool,
    /// Publications per send of the limit [default: what has come; with `--saturate` as the server's run has shown, else 16]
    #[arg(long)]
    pub messages_per_send: Option<u32>,
    /// Bytes of a delivery of the limit, frame header included [default: as the server's run has shown]
    #[arg(long)]
    pub frame_bytes: Option<usize>,
    /// Connections that may be in their handshake at once [default: storm 2048, otherwise 512]
    #[arg(long)]
    pub concurrency: Option<u32>,
    /// With `storm`: publications missed while away, to recover
    #[arg(long, default_value_t = 1)]
    pub missed: u32,
    /// With `storm`: the server is killed under its clients and started anew; channels are durable
    #[arg(long, conflicts_with_all = ["address", "with_limit"])]
    pub restart: bool,
    /// What only `durable` and `queue` have
    #[command(flatten)]
    pub durable: DurableArgs,
    /// What only `tenants` has
    #[command(flatten)]
    pub tenants: TenantArgs,
    /// File for the raw results
    #[arg(long)]
    pub json: Option<PathBuf>,
}

/// `SCENARIO`
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Scenario {
    /// Raw sockets on the ring, no proxy: the shape of `fanout`
    Limit,
    /// Few channels, many subscribers
    Fanout,
    /// Many channels, few subscribers each
    Chat,
    /// Round trip of a client's own publication
    Echo,
    /// Memory per connection
    Idle,
    /// Everybody reconnects at once and recovers
    Storm,
    /// One in ten subscribers stops reading and comes back
    Stalled,
    /// Connections that come and go, channels that are used once: what memory stays. --connections and --channels are rates
    Churn,
    /// Many tenants at equal load, of which one goes to 50 times what it may: what the others notice. --connections, --channels and
    /// --rate are those of each quiet one
    Tenants,
    /// The server drains over `--duration`: when everybody is told to come back elsewhere
    Drain,
    /// Publications that a durable log acknowledges, beside a bare loop of write and fsync
    Durable,
    /// Deliveries that workers of a queue group acknowledge
    Queue,
}

impl Scenario {
    const fn name(self) -> &'static str {
        match self {
            Self::Limit => "limit",
            Self::Fanout => "fanout",
            Self::Chat => "chat",
            Self::Echo => "echo",
            Self::Idle => "idle",
            Self::Storm => "storm",
            Self::Stalled => "stalled",
            Self::Tenants => "tenants",
            Self::Drain => "drain",
            Self::Churn => "churn",
            Self::Durable => "durable",
            Self::Queue => "queue",
        }
    }
}

/// `--protocol`
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Protocol {
    /// Centrifuge v2, JSON over WebSocket
    Centrifuge,
    /// Pusher Channels v7; publishes client events on private channels
    Pusher,
    /// Plain WebSocket: what the publisher sends comes to all (with `echo`: back to the sender)
    Raw,
}

/// `--encoding`
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Encoding {
    /// JSON
    Json,
    /// Protobuf
    Protobuf,
    /// Half of the subscribers JSON, half Protobuf
    Mixed,
}

/// `--transport`
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Transport {
    /// WebSocket
    Websocket,
    /// Server-sent events; subscriptions are made by the server
    Sse,
    /// HTTP streaming; subscriptions are made by the server
    HttpStream,
}

/// `--publish`
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Publish {
    /// A client of the same protocol
    Client,
    /// The HTTP API (Centrifuge only)
    Api,
}

/// Why a bench could not be run.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// An operating-system call failed.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// `--address` cannot be resolved.
    #[error("cannot resolve the address {0}")]
    Address(String),
    /// The generator has no TLS.
    #[error("the bench speaks plain TCP only: use ws:// or host:port")]
    Tls,
    /// The child process ended or did not listen in time; holds its log.
    #[error("the server did not start:\n{0}")]
    ServerStart(String),
    /// The kernel refused a ring.
    #[error(transparent)]
    Ring(#[from] crate::uring::SetupError),
    /// A token could not be signed.
    #[error("cannot sign with the token secret")]
    Sign,
    /// A histogram could not be built or written.
    #[error("cannot keep a histogram")]
    Histogram,
    /// Not everybody was connected in time.
    #[error(
        "only {joined} of {wanted} connections were established: {refused} refused, {closed} closed by the server"
    )]
    Connections {
        /// Established.
        joined: u32,
        /// Asked for.
        wanted: u32,
        /// Refused by the protocol.
        refused: u64,
        /// Closed by the server.
        closed: u64,
    },
    /// Options that exclude each other or a value out of range.
    #[error("{0}")]
    Usage(&'static str),
    /// A client of the durable scenarios was refused something.
    #[error("the server refused {0}")]
    Refused(String),
    /// The limit's thread ended early.
    #[error("the limit's server thread failed")]
    Limit,
}

/// Runs a scenario, prints the table and writes the file.
/// The exit status: 0, or 1 when something was lost, duplicated, reordered, refused or cut off.
pub fn run(args: &Args) -> Result<u8, BenchError> {
    let report = match args.scenario {
        Scenario::Durable | Scenario::Queue => durable::run(args)?,
        Scenario::Churn => churn::run(args)?,
        Scenario::Tenants => tenants::run(args)?,
        Scenario::Limit
        | Scenario::Fanout
        | Scenario::Chat
        | Scenario::Echo
        | Scenario::Idle
        | Scenario::Storm
        | Scenario::Stalled
        | Scenario::Drain => scenario::run(args)?,
    };
    print!("{}", report.table());
    if let Some(file) = &args.json {
        let text = serde_json::to_vec_pretty(&report.json()?).map_err(|_| BenchError::Histogram)?;
        std::fs::write(file, text)?;
    }
    Ok(u8::from(!report.is_clean()))
}

/// `250ms`, `10s`, `2m`
fn duration(text: &str) -> Result<Duration, &'static str> {
    let split = text
        .find(|c: char| c.is_ascii_alphabetic())
        .ok_or("a unit is needed: ms, s or m")?;
    let number: f64 = text[..split].parse().map_err(|_| "not a number")?;
    let seconds = match &text[split..] {
        "ms" => number / 1000.0,
        "s" => number,
        "m" => number * 60.0,
        _ => return Err("the unit must be ms, s or m"),
    };
    Duration::try_from_secs_f64(seconds).map_err(|_| "out of range")
}

#[cfg(test)]
#[allow(
    clippy::disallowed_types,
    reason = "tests take turns at what a process has once"
)]
mod tests {
    use std::sync::{Mutex, PoisonError};

    use super::peer::Fault;
    use super::report::{Report, Subject};
    use super::*;
    use crate::uring::{Ring, RingConfig};

    #[test]
    fn durations_need_a_unit() {
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        assert!(duration("10").is_err() && duration("-1s").is_err() && duration("1h").is_err());
    }

    #[derive(clap::Parser)]
    struct Cli {
        #[command(flatten)]
        args: Args,
    }

    fn args(line: &str) -> Args {
        use clap::Parser as _;
        Cli::parse_from(std::iter::once("bench").chain(line.split_whitespace())).args
    }

    #[test]
    fn every_option_parses() {
        use clap::{CommandFactory as _, Parser as _};
        Cli::command().debug_assert();
        let args = args("fanout --saturate --with-limit --duration 3s");
        assert!(args.saturate && args.connections.is_none());
        assert_eq!(args.scenario.name(), "fanout");
        assert!(Cli::try_parse_from(["bench", "fanout", "--saturate", "--rate", "5"]).is_err());
    }

    /// Rings are locked memory, of which all processes of a user together have 8 MiB as a rule: one run has them at a time.
    static RINGS: Mutex<()> = Mutex::new(());

    /// The report, or `None` where the kernel has no ring to give.
    fn report(line: &str) -> Option<Report> {
        let _one = RINGS.lock().unwrap_or_else(PoisonError::into_inner);
        if Ring::new(&RingConfig::shard(8)).is_err() {
            println!("skipped: no io_uring here");
            return None;
        }
        Some(scenario::run(&args(&format!("{line} --duration 300ms --warm-up 50ms"))).unwrap())
    }

    fn against_peer(line: &str, fault: Fault) -> Option<Report> {
        report(&format!("{line} --address {}", peer::start(fault)))
    }

    #[test]
    fn limit_delivers_everything_at_a_rate_and_at_saturation() {
        let Some(open) = report("limit --connections 20 --rate 200") else {
            return;
        };
        assert!(open.is_clean(), "{}", open.table());
        assert!(open.median(Subject::Limit, "deliveries").unwrap() > 1000.0);
        let closed =
            report("limit --connections 20 --saturate --window 16 --messages-per-send 4").unwrap();
        assert!(closed.is_clean(), "{}", closed.table());
        assert!(
            closed
                .median(Subject::Limit, "messages per receive")
                .unwrap()
                > 1.5
        );
    }

    #[test]
    fn fanout_and_chat_find_nothing_wrong_with_a_server_that_is_right() {
        for line in [
            "fanout --connections 5",
            "chat --connections 6 --channels 4 --subscriptions 2 --rate 200",
        ] {
            let Some(report) = against_peer(&format!("{line} --with-limit"), Fault::None) else {
                return;
            };
            assert!(report.is_clean(), "{}", report.table());
            assert_eq!(report.runs.len(), 2);
            assert!(report.median(Subject::Server, "deliveries").unwrap() > 100.0);
            let bytes = |subject| report.median(subject, "bytes per delivery").unwrap();
            assert!(
                (bytes(Subject::Server) / bytes(Subject::Limit) - 1.0).abs() < 0.1,
                "{}",
                report.table()
            );
        }
    }

    #[test]
    fn saturation_is_found_and_then_run_at_a_share_of_it() {
        let Some(report) = against_peer(
            "fanout --connections 3 --rate-of-saturation 0.5",
            Fault::None,
        ) else {
            return;
        };
        assert!(report.is_clean(), "{}", report.table());
        let run = &report.runs[0];
        let share =
            run.figure("publications").unwrap() / run.figure("saturation, publications").unwrap();
        assert!(share < 0.8, "{}", report.table());
    }

    #[test]
    fn echo_and_idle_run_against_a_server() {
        let Some(echo) = against_peer("echo --connections 2 --with-limit", Fault::None) else {
            return;
        };
        assert!(
            echo.is_clean() && echo.median(Subject::Server, "deliveries").unwrap() > 10.0,
            "{}",
            echo.table()
        );
        let idle = against_peer("idle --connections 10", Fault::None).unwrap();
        assert!(
            idle.is_clean() && idle.median(Subject::Server, "connections") == Some(10.0),
            "{}",
            idle.table()
        );
    }

    #[test]
    fn plain_server_is_measured_without_a_protocol() {
        let Some(fanout) = against_peer(
            "fanout --connections 4 --protocol raw --rate 200",
            Fault::None,
        ) else {
            return;
        };
        assert!(fanout.is_clean(), "{}", fanout.table());
        assert_eq!(
            fanout
                .median(Subject::Server, "bytes per delivery")
                .unwrap()
                .round(),
            132.0
        );
        let echo = against_peer("echo --protocol raw", Fault::None).unwrap();
        assert!(
            echo.is_clean() && echo.median(Subject::Server, "deliveries").unwrap() > 10.0,
            "{}",
            echo.table()
        );
    }

    #[test]
    fn storm_brings_everybody_back_with_what_was_missed() {
        let Some(report) =
            against_peer("storm --connections 8 --missed 3 --with-limit", Fault::None)
        else {
            return;
        };
        assert!(report.is_clean(), "{}", report.table());
        assert_eq!(
            report.median(Subject::Server, "recovered publications"),
            Some(24.0)
        );
        let bytes = |subject| report.median(subject, "bytes received per join").unwrap();
        assert!(
            (bytes(Subject::Server) - bytes(Subject::Limit)).abs() <= 2.0,
            "{}",
            report.table()
        );
    }

    #[test]
    fn faults_of_a_server_are_found() {
        let Some(lossy) = against_peer("fanout --connections 2 --rate 200", Fault::Loses) else {
            return;
        };
        assert!(lossy.runs[0].ledger.lost > 0 && !lossy.is_clean());
        let repeating = against_peer("fanout --connections 2 --rate 200", Fault::Repeats).unwrap();
        assert!(repeating.runs[0].ledger.duplicated > 0 && !repeating.is_clean());
    }
}
