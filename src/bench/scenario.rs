//! The course of an invocation: server and limit in turn, each run from a fresh start.

mod course;
mod stalled;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::child::Server;
use super::driver::{Driver, Step};
use super::limit::{LimitPlan, LimitServer};
use super::payload::{self, Stamp};
use super::process::{self, CpuSource, Facts, Memory};
use super::report::{Report, Run, Subject, Unit};
use super::shape::Shape;
use super::swarm::Plan;
use super::token::Signer;
use super::wire::Wire;
use super::{Args, BenchError, Protocol, Publish, Scenario};
use crate::uring::socket::raise_descriptors_max;
use course::Course;

/// Publications per send of the limit when no server's run has shown one: of `limit --saturate` alone.
const MESSAGES_PER_SEND: u32 = 16;
/// Connections of the limit when publications go to all.
const LIMIT_FAN_OUT_MAX: u32 = 19_900;
/// Tokens of the swarm live this long.
const TOKEN_LIFE: Duration = Duration::from_secs(24 * 3600);

/// What is measured in a run.
pub(super) enum Target {
    Server(Server),
    Limit(LimitServer),
}

impl Target {
    fn subject(&self) -> Subject {
        match self {
            Self::Server(_) => Subject::Server,
            Self::Limit(_) => Subject::Limit,
        }
    }

    fn cpu(&self) -> Option<CpuSource> {
        match self {
            Self::Server(server) => server.cpu(),
            Self::Limit(limit) => limit.cpu(),
        }
    }

    fn memory(&self) -> Memory {
        match self {
            Self::Server(server) => server.memory(),
            // The limit shares its process with the generator: its own pages cannot be told apart.
            Self::Limit(_) => process::memory(None),
        }
    }
}

/// What a run of the server has shown, for the limit to do the same.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Learned {
    /// Bytes of a delivery.
    pub(super) frame_bytes: Option<f64>,
    /// Deliveries in one receive.
    pub(super) messages_per_receive: Option<f64>,
    /// Bytes of the opening.
    pub(super) steps: Option<Vec<Step>>,
}

/// Runs everything that the arguments ask for.
pub(super) fn run(args: &Args) -> Result<Report, BenchError> {
    let mut shape = Shape::of(args)?;
    raise_descriptors_max();
    let mut facts = Facts::read(args.server_core, args.core);
    let saturation = find_saturation(args, &mut shape)?;
    let is_limit = args.scenario == Scenario::Limit;
    let mut series = Series {
        args,
        shape: &shape,
        learned: Learned::default(),
        messages_per_send: None,
    };
    let unbatched = Args {
        batch_delay: None,
        ..args.clone()
    };
    let mut runs = Vec::new();
    for number in 1..=args.runs {
        if !is_limit {
            let plain = match args.batch_delay {
                Some(_) => Some(series.run_server(Server::obtain(&unbatched)?, number)?),
                None => None,
            };
            let server = Server::obtain(args)?;
            facts.link = if server.address.ip().is_loopback() {
                "loopback"
            } else {
                "network"
            };
            let mut run = series.run_server(server, number)?;
            if let Some(saturation) = saturation {
                run.push("saturation, publications", Unit::Rate, saturation);
            }
            if let Some(plain) = plain {
                compare_with_unbatched(&mut run, plain);
            }
            runs.push(run);
        }
        if is_limit || args.with_limit {
            runs.push(series.run_limit(number)?);
        }
    }
    let shape = serde_json::to_value(&shape).map_err(|_| BenchError::Histogram)?;
    Ok(Report {
        scenario: args.scenario.name(),
        shape,
        facts,
        runs,
    })
}

/// With `--batch-delay`: what the same load costs where nobody waits. What was wrong there is wrong with the run.
fn compare_with_unbatched(run: &mut Run, plain: Run) {
    const CPU: &str = "server CPU per delivery";
    let costs = run.figure(CPU).zip(plain.figure(CPU));
    if let Some((batched, unbatched)) = costs.filter(|(_, unbatched)| *unbatched > 0.0) {
        run.push("unbatched: server CPU per delivery", Unit::Time, unbatched);
        let ratio = batched / unbatched;
        run.push("CPU per delivery ÷ unbatched", Unit::Count, ratio);
    }
    for (name, of) in [("unbatched: p50", "p50"), ("unbatched: p99", "p99")] {
        if let Some(value) = plain.figure(of) {
            run.push(name, Unit::Time, value);
        }
    }
    run.disconnected += plain.disconnected;
    run.refused += plain.refused;
    run.ledger.lost += plain.ledger.lost;
    run.ledger.duplicated += plain.ledger.duplicated;
    run.ledger.reordered += plain.ledger.reordered;
}

/// With `--rate-of-saturation`: a closed loop first, whose rate is then the measure of the open one.
fn find_saturation(args: &Args, shape: &mut Shape) -> Result<Option<f64>, BenchError> {
    let Some(share) = args.rate_of_saturation else {
        return Ok(None);
    };
    if shape.rate.is_none() || args.scenario == Scenario::Limit || !(share > 0.0 && share <= 1.0) {
        return Err(BenchError::Usage(
            "--rate-of-saturation takes a share up to 1, for fanout and chat",
        ));
    }
    let closed = Shape {
        rate: None,
        window: Some(args.window),
        ..shape.clone()
    };
    let mut series = Series {
        args,
        shape: &closed,
        learned: Learned::default(),
        messages_per_send: None,
    };
    let run = series.run_server(Server::obtain(args)?, 0)?;
    let rate = run.figure("publications").unwrap_or(0.0);
    if !run.is_clean() || rate < 1.0 {
        return Err(BenchError::Usage(
            "saturation could not be found: publications were lost on the way",
        ));
    }
    shape.rate = Some(rate * share);
    Ok(Some(rate))
}

struct Series<'a> {
    args: &'a Args,
    shape: &'a Shape,
    learned: Learned,
    /// Of the limit's last run.
    messages_per_send: Option<u32>,
}

impl Series<'_> {
    fn run_server(&mut self, server: Server, number: u32) -> Result<Run, BenchError> {
        let driver = driver(self.args, self.shape, server.path.as_deref());
        let plan = Plan {
            address: server.address,
            host: server.host.clone(),
            driver,
            api_key: (self.args.publish == Publish::Api).then(|| self.args.api_key.clone()),
            publish_bytes_min: 0,
            ..self.plan()
        };
        let (run, learned) = self.generate(Target::Server(server), plan, number)?;
        self.learned = learned;
        Ok(run)
    }

    fn run_limit(&mut self, number: u32) -> Result<Run, BenchError> {
        let (args, shape) = (self.args, self.shape);
        if shape.connections > LIMIT_FAN_OUT_MAX
            && shape.has_publisher()
            && args.scenario != Scenario::Storm
        {
            return Err(BenchError::Usage(
                "the limit fans out from one ring, which holds 19900 connections",
            ));
        }
        let driver = driver(args, shape, None);
        let learned = self.learned.frame_bytes.map(|bytes| bytes.round() as usize);
        let estimate = || {
            let text = shape.payload_bytes + driver.push_overhead();
            text + super::frame::header_len(text)
        };
        let frame_bytes = args.frame_bytes.or(learned).unwrap_or_else(estimate);
        let frame_bytes =
            frame_bytes.max(shape.payload_bytes + super::frame::header_len(shape.payload_bytes));
        let messages_per_send = self.messages_per_send();
        let steps = self
            .learned
            .steps
            .clone()
            .unwrap_or_else(|| vec![Step { write: 8, read: 8 }]);
        let limit = LimitServer::start(&LimitPlan {
            core: args.server_core,
            connections: shape.connections,
            channels: shape.channels,
            subscriptions: shape.subscriptions,
            steps: steps.clone(),
            frame_bytes,
            size: shape.payload_bytes,
            messages_per_send,
            echo: args.scenario == Scenario::Echo,
        })?;
        let plan = Plan {
            address: limit.address,
            driver: Driver::Script { steps },
            publish_bytes_min: publish_bytes(&driver, shape.payload_bytes),
            ..self.plan()
        };
        let (mut run, shown) = self.generate(Target::Limit(limit), plan, number)?;
        let Some(messages_per_send) = messages_per_send.map(f64::from) else {
            return Ok(run);
        };
        run.push("messages per send", Unit::Count, messages_per_send);
        // Sends that meet in a receive count as one there: the next run is nearer to what the server has shown.
        if let (Some(server), Some(limit)) = (
            self.learned.messages_per_receive,
            shown.messages_per_receive,
        ) {
            self.messages_per_send =
                Some((messages_per_send * server / limit.max(1.0)).round() as u32);
        }
        Ok(run)
    }

    fn generate(
        &self,
        target: Target,
        plan: Plan,
        number: u32,
    ) -> Result<(Run, Learned), BenchError> {
        let shape = self.shape;
        process::on_core(self.args.core, || {
            Course::new(shape, target, plan, number)?.run()
        })
    }

    /// As asked for; in a closed loop else as the server's run has shown. In an open loop what has come is sent.
    fn messages_per_send(&self) -> Option<u32> {
        let Some(window) = self.shape.window else {
            return self.args.messages_per_send.map(|count| count.max(1));
        };
        let learned = self
            .learned
            .messages_per_receive
            .map(|count| count.round() as u32);
        let chosen = self
            .args
            .messages_per_send
            .or(self.messages_per_send)
            .or(learned);
        Some(chosen.unwrap_or(MESSAGES_PER_SEND).clamp(1, window))
    }

    fn plan(&self) -> Plan {
        Plan {
            address: ([127, 0, 0, 1], 0).into(),
            host: String::new(),
            driver: Driver::Script { steps: Vec::new() },
            connections: self.shape.connections,
            channels: self.shape.channels,
            subscriptions: self.shape.subscriptions,
            size: self.shape.payload_bytes,
            publish_bytes_min: 0,
            api_key: None,
            has_publisher: self.shape.has_publisher(),
            concurrency: self.shape.concurrency,
        }
    }
}

fn driver(args: &Args, shape: &Shape, path: Option<&str>) -> Driver {
    let path = |default: &str| path.unwrap_or(default).to_owned();
    #[expect(clippy::disallowed_methods, reason = "tokens carry an expiry")]
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let signer = Signer::new(&args.token_secret, (now + TOKEN_LIFE).as_secs());
    match args.protocol {
        Protocol::Centrifuge => Driver::Centrifuge {
            path: path("/connection/websocket"),
            signer,
            namespace: shape.namespace(),
            recover: args.scenario == Scenario::Storm,
            wires: Wire::of(args),
            tenants: None,
        },
        Protocol::Pusher => Driver::Pusher {
            key: args.api_key.clone(),
            signer,
        },
        Protocol::Raw => Driver::Raw {
            publish_path: args.raw_publish_path.clone().unwrap_or_else(|| path("/")),
            path: path("/"),
            subscribe: args.raw_subscribe.clone(),
            publish: args.raw_publish.clone(),
        },
    }
}

fn publish_bytes(driver: &Driver, size: usize) -> usize {
    let mut payload = Vec::new();
    payload::write(
        Stamp {
            channel: 0,
            sequence: 0,
            intended: 0,
        },
        size,
        &mut payload,
    );
    let mut text = Vec::new();
    driver.publish(0, 1000, &payload, &mut text);
    text.len()
}
