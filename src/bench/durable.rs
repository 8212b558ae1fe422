//! Scenarios of the durable log: `durable` (acknowledged publications) and `queue` (deliveries that workers acknowledge).
//!
//! All clients run on one thread. Beside each run stands a bare loop of write and `fdatasync` on the same disk.

mod bare;
mod books;
mod line;
mod publishers;
mod readers;

use std::cell::{Cell, RefCell};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::Serialize;
use tokio::task::{JoinHandle, LocalSet};

use super::child::{NAMESPACE_DURABLE, Server};
use super::ledger::Counts;
use super::process::{self, CpuSource, Facts};
use super::progress::Progress;
use super::report::{Report, Run, Subject, Unit};
use super::token::Signer;
use super::wire::Kind;
use super::{Args, BenchError, Encoding, Protocol, Publish, Scenario, Transport, payload};
use crate::uring::socket::raise_descriptors_max;
use books::Books;
use line::{Line, Peer};
use publishers::{Publisher, Shared};
use readers::Consume;

/// Queue group of the workers.
const GROUP: &str = "bench";
/// Tokens of the clients live this long.
const TOKEN_LIFE: Duration = Duration::from_secs(24 * 3600);
/// Without any delivery for so long, what is missing is lost.
const PATIENCE: Duration = Duration::from_secs(5);
/// The bare loop runs this long at most.
const BARE_TIME_MAX: Duration = Duration::from_secs(5);
/// How often the course looks at the books.
const STEP: Duration = Duration::from_millis(10);

/// Numbers of one invocation.
#[derive(Clone, Debug, Serialize)]
struct Shape {
    publishers: u32,
    outstanding: u32,
    channels: u32,
    payload_bytes: usize,
    subscribers: u32,
    subscriptions: u32,
    workers: u32,
    credit: u32,
    ordered: bool,
    sync: bool,
    /// Publications that the workers take.
    fill: u64,
    shards: Option<u16>,
    log: &'static str,
    encoding: String,
    seconds: f64,
    #[serde(skip)]
    is_queue: bool,
}

impl Shape {
    fn of(args: &Args) -> Result<Self, BenchError> {
        let is_queue = args.scenario == Scenario::Queue;
        let options = &args.durable;
        let channels = args.channels.unwrap_or(64);
        let shape = Self {
            publishers: options.publishers.unwrap_or(64),
            outstanding: options.outstanding.unwrap_or(32),
            channels,
            payload_bytes: args.size,
            subscribers: options.subscribers.unwrap_or(0),
            subscriptions: args.subscriptions.unwrap_or(1),
            workers: if is_queue {
                options.workers.unwrap_or(1)
            } else {
                0
            },
            credit: options.credit.unwrap_or(256),
            ordered: options.ordered,
            sync: options.sync,
            fill: if is_queue {
                options.fill.unwrap_or(200_000)
            } else {
                0
            },
            shards: args.address.is_none().then_some(args.shards),
            log: match (&args.address, &options.nats) {
                (Some(_), _) => "foreign",
                (None, Some(_)) => "nats",
                (None, None) => "embedded",
            },
            encoding: format!("{:?}", args.encoding).to_lowercase(),
            seconds: args.duration.as_secs_f64(),
            is_queue,
        };
        shape.check(args)?;
        Ok(shape)
    }

    fn check(&self, args: &Args) -> Result<(), BenchError> {
        let options = &args.durable;
        let foreign_load =
            args.rate.is_some() || args.saturate || args.rate_of_saturation.is_some();
        let checks = [
            (
                args.protocol != Protocol::Centrifuge
                    || args.transport != Transport::Websocket
                    || args.publish != Publish::Client
                    || args.deflate
                    || args.delta,
                "durable and queue are measured with Centrifuge clients over WebSocket",
            ),
            (
                foreign_load || args.with_limit || args.connections.is_some(),
                "durable and queue are closed loops: --publishers, --outstanding, --workers and --credit are their load",
            ),
            (
                [
                    self.publishers,
                    self.outstanding,
                    self.channels,
                    self.subscriptions,
                    self.credit,
                ]
                .contains(&0)
                    || args.runs == 0
                    || self.is_queue && (self.workers == 0 || self.fill == 0),
                "0 is no number of publishers, channels, workers or runs",
            ),
            (
                self.publishers > 10_000 || self.subscribers > 10_000 || self.workers > 10_000,
                "at most 10000 publishers, subscribers and workers",
            ),
            (
                self.outstanding > 65_536,
                "at most 65536 outstanding publications",
            ),
            (
                self.subscriptions > self.channels,
                "a subscriber has 1 up to all channels",
            ),
            (
                self.fill > 100_000_000,
                "at most 100 million publications to fill a queue",
            ),
            (
                args.size < payload::SIZE_MIN,
                "the payload must have room for its stamp: at least 42 bytes",
            ),
            (
                self.is_queue && options.subscribers.is_some(),
                "subscribers are measured with durable",
            ),
            (
                !self.is_queue && options.is_of_queues(),
                "--workers, --credit, --ordered, --sync and --fill are for queue",
            ),
        ];
        match checks.into_iter().find(|(wrong, _)| *wrong) {
            Some((_, text)) => Err(BenchError::Usage(text)),
            None => Ok(()),
        }
    }

    /// The channel that a publisher publishes in.
    const fn channel_of(&self, publisher: u32) -> u32 {
        publisher % self.channels
    }

    /// A subscriber has this channel.
    const fn reads(&self, subscriber: u32, channel: u32) -> bool {
        let first = subscriber as u64 * self.subscriptions as u64 % self.channels as u64;
        (channel as u64 + self.channels as u64 - first) % (self.channels as u64)
            < self.subscriptions as u64
    }

    fn readers(&self) -> u32 {
        self.subscribers.max(self.workers)
    }
}

/// Runs everything that the arguments ask for: the bare loop and the server in turn.
pub(super) fn run(args: &Args) -> Result<Report, BenchError> {
    let shape = Shape::of(args)?;
    raise_descriptors_max();
    let mut facts = Facts::read(args.server_core, args.core);
    let directory = args
        .durable
        .directory
        .clone()
        .unwrap_or_else(std::env::temp_dir);
    let mut runs = Vec::new();
    for number in 1..=args.runs {
        if !shape.is_queue {
            let (time, label) = (
                args.duration.min(BARE_TIME_MAX),
                format!("bare fsync {number}"),
            );
            let bare = || bare::run(&directory, shape.payload_bytes, time, &label);
            runs.push(process::on_core(args.server_core, bare)?);
        }
        let server = Server::obtain(args)?;
        if !server.address.ip().is_loopback() {
            facts.link = "network";
        }
        runs.push(process::on_core(args.core, || {
            generate(args, &shape, &server, number)
        })?);
    }
    let shape = serde_json::to_value(&shape).map_err(|_| BenchError::Histogram)?;
    Ok(Report {
        scenario: args.scenario.name(),
        shape,
        facts,
        runs,
    })
}

fn generate(args: &Args, shape: &Shape, server: &Server, number: u32) -> Result<Run, BenchError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let course = Course::new(args, shape, server, number)?;
    LocalSet::new().block_on(&runtime, async {
        if shape.is_queue {
            course.queue().await
        } else {
            course.durable().await
        }
    })
}

/// One run of the server.
struct Course<'a> {
    args: &'a Args,
    shape: &'a Shape,
    server: &'a Server,
    signer: Signer,
    shared: Shared,
    own_cpu: Option<CpuSource>,
    label: String,
}

/// CPU time and time at one moment.
#[derive(Clone, Copy)]
struct Reading {
    server_ns: Option<u64>,
    own_ns: u64,
    at: u64,
}

impl<'a> Course<'a> {
    fn new(
        args: &'a Args,
        shape: &'a Shape,
        server: &'a Server,
        number: u32,
    ) -> Result<Self, BenchError> {
        #[expect(clippy::disallowed_methods, reason = "tokens carry an expiry")]
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        #[expect(clippy::disallowed_methods, reason = "the generator measures time")]
        let started = Instant::now();
        Ok(Self {
            args,
            shape,
            server,
            signer: Signer::new(&args.token_secret, (now + TOKEN_LIFE).as_secs()),
            shared: Shared {
                books: Rc::new(RefCell::new(Books::new(shape.publishers, shape.readers())?)),
                publications_max: Rc::new(Cell::new(if shape.is_queue {
                    shape.fill
                } else {
                    u64::MAX
                })),
                begun: Rc::new(Cell::new(0)),
                started,
            },
            own_cpu: CpuSource::current_thread(),
            label: format!("{} {number}", args.scenario.name()),
        })
    }

    fn peer(&self, index: u32, token: String) -> Peer {
        let kind = match self.args.encoding {
            Encoding::Json => Kind::Json,
            Encoding::Protobuf => Kind::Protobuf,
            Encoding::Mixed if index.is_multiple_of(2) => Kind::Json,
            Encoding::Mixed => Kind::Protobuf,
        };
        Peer {
            address: self.server.address,
            host: self.server.host.clone(),
            path: self
                .server
                .path
                .clone()
                .unwrap_or_else(|| "/connection/websocket".to_owned()),
            kind,
            token,
        }
    }

    /// Channels of this run: those of an earlier one on the same server have other names.
    fn channel(&self, channel: u32) -> String {
        format!("{NAMESPACE_DURABLE}:{channel}")
    }

    fn progress(&self, phase: &str, len: u64) -> Progress {
        Progress::new(&format!("{}: {phase}", self.label), len)
    }

    fn read(&self) -> Reading {
        Reading {
            server_ns: self.server.cpu().and_then(|cpu| cpu.cpu_ns()),
            own_ns: self
                .own_cpu
                .as_ref()
                .and_then(CpuSource::cpu_ns)
                .unwrap_or(0),
            at: self.shared.clock(),
        }
    }

    async fn publishers(&self) -> Result<Tasks, BenchError> {
        let mut all = Vec::new();
        for index in 0..self.shape.publishers {
            let peer = self.peer(index, self.signer.token(&format!("p{index}"), &[])?);
            let channel = self.channel(self.shape.channel_of(index));
            let (size, outstanding) = (self.shape.payload_bytes, self.shape.outstanding);
            all.push(
                Publisher::open(
                    &peer,
                    index,
                    channel,
                    size,
                    outstanding,
                    self.shared.clone(),
                )
                .await?,
            );
        }
        Ok(Tasks::start(all.into_iter().map(Publisher::run)))
    }

    async fn subscribers(&self) -> Result<Tasks, BenchError> {
        let mut all = Vec::new();
        for reader in 0..self.shape.subscribers {
            let peer = self.peer(reader, self.signer.token(&format!("s{reader}"), &[])?);
            let channels: Vec<String> = (0..self.shape.channels)
                .filter(|channel| self.shape.reads(reader, *channel))
                .map(|channel| self.channel(channel))
                .collect();
            all.push((readers::subscribe(&peer, &channels).await?, reader));
        }
        let shared = &self.shared;
        Ok(Tasks::start(all.into_iter().map(|(line, reader)| {
            readers::subscriber(line, reader, shared.clone())
        })))
    }

    /// Everybody publishes for a while; what is measured lies in the middle.
    async fn durable(&self) -> Result<Run, BenchError> {
        let mut subscribers = self.subscribers().await?;
        let mut publishers = self.publishers().await?;
        self.hold("warms up", self.args.warm_up, &mut publishers)
            .await?;
        self.shared.books.borrow_mut().is_measuring = true;
        let before = self.read();
        self.hold("measures", self.args.duration, &mut publishers)
            .await?;
        let after = self.read();
        self.shared.books.borrow_mut().is_measuring = false;
        let memory = self.server.memory();
        self.shared.publications_max.set(0);
        publishers.finish().await?;
        let lost = self.settle(&mut subscribers).await?;
        let mut run = self.finish(self.shared.books.borrow().close(lost));
        let books = self.shared.books.borrow();
        let seconds = (after.at - before.at) as f64 / 1e9;
        let acknowledged = books.measured as f64;
        run.push_compared("acknowledged", Unit::Rate, acknowledged / seconds);
        push_latency(&mut run);
        self.push_cpu(
            &mut run,
            before,
            after,
            acknowledged,
            "server CPU per acknowledged",
        );
        if self.shape.subscribers > 0 {
            run.push("deliveries", Unit::Rate, books.delivered as f64 / seconds);
        }
        run.push("temporary errors", Unit::Count, books.temporary as f64);
        if memory.rss > 0 {
            run.push("server RSS", Unit::Bytes, memory.rss as f64);
        }
        Ok(run)
    }

    /// Fills the queue, then lets the workers take it all.
    async fn queue(&self) -> Result<Run, BenchError> {
        let mut publishers = self.publishers().await?;
        let filling = self.progress("fills", self.shape.fill);
        while publishers.are_running().await? {
            tokio::time::sleep(STEP).await;
            filling.set(self.shared.books.borrow().acknowledged_all);
        }
        drop(filling);
        let grants = serde_json::json!({ GROUP: [format!("{NAMESPACE_DURABLE}:*")] });
        let mut lines: Vec<Line> = Vec::new();
        for index in 0..self.shape.workers {
            let token = self.signer.worker_token(&format!("w{index}"), &grants)?;
            lines.push(Line::open(&self.peer(index, token)).await?);
        }
        let channels = format!("{NAMESPACE_DURABLE}:*");
        let (wanted, shape) = (self.shape.fill, self.shape);
        self.shared.books.borrow_mut().is_measuring = true;
        let before = self.read();
        let all = (0..).zip(lines).map(|(reader, line)| {
            let (channels, shared) = (channels.clone(), self.shared.clone());
            let (credit, ordered, sync) = (shape.credit, shape.ordered, shape.sync);
            async move {
                let consume = Consume {
                    group: GROUP,
                    channels: &channels,
                    credit,
                    ordered,
                    sync,
                };
                readers::worker(line, reader, consume, wanted, shared).await
            }
        });
        let mut workers = Tasks::start(all.collect::<Vec<_>>().into_iter());
        let taking = self.progress("works off", wanted);
        let mut after = self.read();
        while self.shared.books.borrow().acknowledged_deliveries() < wanted
            && workers.are_running().await?
        {
            tokio::time::sleep(STEP).await;
            taking.set(self.shared.books.borrow().acknowledged_deliveries());
            after = self.read();
        }
        let books = self.shared.books.borrow();
        let mut run = self.finish(books.close(books.missing_everywhere()));
        run.latency = books.worked.clone();
        let acknowledged = books.acknowledged_deliveries() as f64;
        let end = books.last_delivery_at.unwrap_or(after.at);
        let seconds = (end - before.at).max(1) as f64 / 1e9;
        run.push(
            "deliveries acknowledged",
            Unit::Rate,
            acknowledged / seconds,
        );
        push_latency(&mut run);
        self.push_cpu(
            &mut run,
            before,
            after,
            acknowledged,
            "server CPU per delivery",
        );
        run.push("temporary errors", Unit::Count, books.temporary as f64);
        let memory = self.server.memory();
        if memory.rss > 0 {
            run.push("server RSS", Unit::Bytes, memory.rss as f64);
        }
        Ok(run)
    }

    async fn hold(&self, phase: &str, time: Duration, tasks: &mut Tasks) -> Result<(), BenchError> {
        let progress = self.progress(phase, time.as_millis() as u64);
        let start = self.shared.clock();
        let end = start + time.as_nanos() as u64;
        while self.shared.clock() < end {
            tokio::time::sleep(STEP.min(Duration::from_nanos(end - self.shared.clock().min(end))))
                .await;
            tasks.check().await?;
            progress.set((self.shared.clock() - start) / 1_000_000);
        }
        Ok(())
    }

    /// Waits until the subscribers have everything; how much they have not.
    async fn settle(&self, subscribers: &mut Tasks) -> Result<u64, BenchError> {
        let missing = || -> u64 {
            let books = self.shared.books.borrow();
            let of = |reader| {
                books.missing(reader, |publisher| {
                    self.shape.reads(reader, self.shape.channel_of(publisher))
                })
            };
            (0..self.shape.subscribers).map(of).sum()
        };
        let mut last = (missing(), self.shared.clock());
        while last.0 > 0 && self.shared.clock() - last.1 < PATIENCE.as_nanos() as u64 {
            tokio::time::sleep(STEP).await;
            subscribers.check().await?;
            let now = missing();
            if now != last.0 {
                last = (now, self.shared.clock());
            }
        }
        Ok(last.0)
    }

    fn finish(&self, ledger: Counts) -> Run {
        Run {
            subject: Subject::Server,
            figures: Vec::new(),
            latency: self.shared.books.borrow().latency.clone(),
            ledger,
            disconnected: 0,
            refused: 0,
        }
    }

    fn push_cpu(
        &self,
        run: &mut Run,
        before: Reading,
        after: Reading,
        count: f64,
        name: &'static str,
    ) {
        let seconds = (after.at - before.at).max(1) as f64 / 1e9;
        if let (Some(before), Some(after)) = (before.server_ns, after.server_ns) {
            let ns = after.saturating_sub(before) as f64;
            run.push(name, Unit::Time, ns / count.max(1.0));
            run.push("server CPU", Unit::Share, ns / 1e9 / seconds);
        }
        let own = after.own_ns.saturating_sub(before.own_ns) as f64;
        run.push("generator CPU", Unit::Share, own / 1e9 / seconds);
    }
}

/// Percentiles of a run's latency, comparable with those of the bare loop.
fn push_latency(run: &mut Run) {
    for (name, quantile) in [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999)] {
        let value = run.latency.value_at_quantile(quantile) as f64;
        run.push_compared(name, Unit::Time, value);
    }
    let max = run.latency.max() as f64;
    run.push("max", Unit::Time, max);
}

/// Clients that run beside the course; ended when dropped.
struct Tasks(Vec<JoinHandle<Result<(), BenchError>>>);

impl Tasks {
    fn start<F: Future<Output = Result<(), BenchError>> + 'static>(
        all: impl Iterator<Item = F>,
    ) -> Self {
        Self(all.map(tokio::task::spawn_local).collect())
    }

    /// The error of one that has ended with one.
    async fn check(&mut self) -> Result<(), BenchError> {
        self.are_running().await.map(drop)
    }

    async fn are_running(&mut self) -> Result<bool, BenchError> {
        let mut at = 0;
        while at < self.0.len() {
            if self.0[at].is_finished() {
                outcome(self.0.swap_remove(at)).await?;
            } else {
                at += 1;
            }
        }
        Ok(!self.0.is_empty())
    }

    /// Waits for all.
    async fn finish(&mut self) -> Result<(), BenchError> {
        for task in self.0.drain(..) {
            outcome(task).await?;
        }
        Ok(())
    }
}

async fn outcome(task: JoinHandle<Result<(), BenchError>>) -> Result<(), BenchError> {
    match task.await {
        Ok(result) => result,
        Err(ended) => std::panic::resume_unwind(ended.into_panic()),
    }
}

impl Drop for Tasks {
    fn drop(&mut self) {
        for task in &self.0 {
            task.abort();
        }
    }
}

/// Options of `durable` and `queue`.
#[derive(Clone, Debug, Default, PartialEq, Eq, clap::Args)]
pub struct DurableArgs {
    /// With `durable` and `queue`: clients that publish [default: 64]
    #[arg(long)]
    pub publishers: Option<u32>,
    /// With `durable` and `queue`: publications of each that are not acknowledged yet [default: 32]
    #[arg(long)]
    pub outstanding: Option<u32>,
    /// With `durable`: clients that subscribe, and whose books are compared with what was acknowledged [default: 0]
    #[arg(long)]
    pub subscribers: Option<u32>,
    /// With `queue`: workers of the group [default: 1]
    #[arg(long)]
    pub workers: Option<u32>,
    /// With `queue`: deliveries that a worker may have [default: 256]
    #[arg(long)]
    pub credit: Option<u32>,
    /// With `queue`: one delivery of a channel at a time
    #[arg(long)]
    pub ordered: bool,
    /// With `queue`: an acknowledgement is answered when it is stored, not when it is taken
    #[arg(long)]
    pub sync: bool,
    /// With `queue`: publications that wait for the workers [default: 200000]
    #[arg(long)]
    pub fill: Option<u64>,
    /// With `durable` and `queue`: the server that is started here keeps its log in this NATS server
    #[arg(long, value_name = "URL", conflicts_with = "address")]
    pub nats: Option<String>,
    /// With `durable` and `queue`: directory on the disk that is measured [default: the temporary one]
    #[arg(long, value_name = "DIR")]
    pub directory: Option<PathBuf>,
}

impl DurableArgs {
    fn is_of_queues(&self) -> bool {
        self.workers.is_some()
            || self.credit.is_some()
            || self.ordered
            || self.sync
            || self.fill.is_some()
    }

    /// Something of it is set.
    pub(super) fn is_set(&self) -> bool {
        *self != Self::default()
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
        let shape = Shape::of(&args("durable")).unwrap();
        assert_eq!(
            (shape.publishers, shape.outstanding, shape.payload_bytes),
            (64, 32, 256)
        );
        let shape = Shape::of(&args("queue --payload 300")).unwrap();
        assert_eq!(
            (shape.workers, shape.credit, shape.payload_bytes),
            (1, 256, 300)
        );
        assert_eq!(args("fanout").size, 128);
    }

    #[test]
    fn what_cannot_be_measured_is_refused() {
        for line in [
            "durable --publishers 0",
            "durable --rate 5",
            "durable --saturate",
            "durable --connections 5",
            "durable --workers 5",
            "durable --transport sse",
            "durable --size 41",
            "durable --subscriptions 65",
            "queue --subscribers 3",
            "queue --fill 0",
            "durable --sync",
        ] {
            assert!(
                matches!(Shape::of(&args(line)), Err(BenchError::Usage(_))),
                "{line}"
            );
        }
    }

    #[test]
    fn subscribers_take_turns_in_channels() {
        let shape = Shape::of(&args(
            "durable --channels 3 --subscribers 4 --subscriptions 2",
        ))
        .unwrap();
        let of = |subscriber| {
            (0..3)
                .filter(|channel| shape.reads(subscriber, *channel))
                .collect::<Vec<_>>()
        };
        assert_eq!((of(0), of(1), of(2)), (vec![0, 1], vec![0, 2], vec![1, 2]));
    }
}
