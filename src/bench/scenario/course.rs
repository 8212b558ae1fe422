//! One run: connect, warm up, measure, settle, close the books.

use std::time::Duration;

use super::super::BenchError;
use super::super::Scenario;
use super::super::driver::Step;
use super::super::process::CpuSource;
use super::super::progress::Progress;
use super::super::report::{Run, Subject, Unit};
use super::super::shape::{ELSEWHERE, Shape};
use super::super::swarm::{Load, Plan, Stats, Swarm, histogram};
use super::{Learned, Target};

/// Time without any arrival after which what is missing counts as lost.
pub(super) const PATIENCE: Duration = Duration::from_secs(3);
/// What is counted of the pace of a drain.
const BIN: Duration = Duration::from_millis(100);
/// A server that drains has ended so long after its window, or does not.
const DRAIN_MARGIN: Duration = Duration::from_secs(15);
/// Kernel memory is freed a little after the close.
pub(super) const SETTLE: Duration = Duration::from_millis(500);
/// A server is quiet when it uses less than this in one `QUIET_WINDOW`.
const QUIET_NS: u64 = 1_000_000;
const QUIET_WINDOW: Duration = Duration::from_millis(100);
/// Windows to wait for quiet at most.
const QUIET_TRIES: u32 = 100;

pub(super) struct Course<'a> {
    pub(super) shape: &'a Shape,
    pub(super) target: Target,
    pub(super) swarm: Swarm,
    own_cpu: Option<CpuSource>,
    label: String,
}

/// What was read around a measured time.
pub(super) struct Window {
    pub(super) stats: Stats,
    pub(super) seconds: f64,
    /// CPU time of the server; `None` where it is not known.
    server_ns: Option<f64>,
    generator_ns: f64,
}

impl<'a> Course<'a> {
    pub(super) fn new(
        shape: &'a Shape,
        target: Target,
        plan: Plan,
        number: u32,
    ) -> Result<Self, BenchError> {
        let subject = match target.subject() {
            Subject::Server => "server",
            Subject::Limit => "limit",
        };
        let label = format!("{} {subject} {number}", shape.scenario.name());
        Ok(Self {
            shape,
            target,
            swarm: Swarm::new(plan)?,
            own_cpu: CpuSource::current_thread(),
            label,
        })
    }

    pub(super) fn run(mut self) -> Result<(Run, Learned), BenchError> {
        let result = match self.shape.scenario {
            Scenario::Limit | Scenario::Fanout | Scenario::Chat | Scenario::Echo => {
                self.deliveries()
            }
            Scenario::Idle => self.idle(),
            Scenario::Storm => self.storm(),
            Scenario::Stalled => self.stalled(),
            Scenario::Drain => self.drain(),
            Scenario::Durable | Scenario::Queue | Scenario::Churn | Scenario::Tenants => {
                Err(ELSEWHERE)
            }
        }?;
        self.swarm.disconnect()?;
        Ok(result)
    }

    pub(super) fn connect(&mut self) -> Result<(), BenchError> {
        let progress = self.progress("connects", u64::from(self.shape.connections));
        self.swarm.connect(&progress)
    }

    fn progress(&self, phase: &str, len: u64) -> Progress {
        Progress::new(&format!("{}: {phase}", self.label), len)
    }

    pub(super) fn hold(&mut self, phase: &str, time: Duration) -> Result<(), BenchError> {
        let progress = self.progress(phase, (time.as_millis() / 100) as u64);
        self.swarm.run(time, &progress)
    }

    fn server_cpu(&self) -> Option<u64> {
        self.target.cpu().and_then(|cpu| cpu.cpu_ns())
    }

    fn own_cpu(&self) -> u64 {
        self.own_cpu
            .as_ref()
            .and_then(CpuSource::cpu_ns)
            .unwrap_or(0)
    }

    /// Counts from here to the end of `body`.
    pub(super) fn window(
        &mut self,
        body: impl FnOnce(&mut Self) -> Result<(), BenchError>,
    ) -> Result<Window, BenchError> {
        self.swarm.measure()?;
        let (server, own, start) = (self.server_cpu(), self.own_cpu(), self.swarm.clock());
        body(self)?;
        let (end, own_after, server_after) =
            (self.swarm.clock(), self.own_cpu(), self.server_cpu());
        Ok(Window {
            stats: self.swarm.measure()?,
            seconds: (end - start) as f64 / 1e9,
            server_ns: server_after
                .zip(server)
                .map(|(after, before)| after.saturating_sub(before) as f64),
            generator_ns: (own_after - own) as f64,
        })
    }

    pub(super) fn finish(&self, latency: hdrhistogram::Histogram<u64>) -> Run {
        Run {
            subject: self.target.subject(),
            figures: Vec::new(),
            latency,
            ledger: self.swarm.books(),
            disconnected: self.swarm.disconnected(),
            refused: self.swarm.refused(),
        }
    }

    // --- fanout, chat, echo, limit ---

    fn deliveries(&mut self) -> Result<(Run, Learned), BenchError> {
        self.connect()?;
        // Raw servers do not acknowledge a subscription.
        self.hold("settles", SETTLE)?;
        self.swarm.set_load(self.shape.load());
        self.hold("warms up", self.shape.warm_up)?;
        let duration = self.shape.duration;
        let window = self.window(|course| course.hold("measures", duration))?;
        let memory = self.target.memory();
        self.swarm.set_load(Load::None);
        self.swarm.settle(PATIENCE)?;
        let mut run = self.finish(window.stats.latency.clone());
        let learned = self.delivery_figures(&mut run, &window);
        if memory.rss > 0 {
            run.push("server RSS", Unit::Bytes, memory.rss as f64);
        }
        run.push("kernel slab, both ends", Unit::Bytes, memory.slab as f64);
        Ok((run, learned))
    }

    fn delivery_figures(&self, run: &mut Run, window: &Window) -> Learned {
        let Window {
            stats,
            seconds,
            server_ns,
            generator_ns,
        } = window;
        let deliveries = (stats.deliveries as f64).max(1.0);
        let receives = (stats.receives as f64).max(1.0);
        run.push("connections", Unit::Count, f64::from(self.swarm.joined()));
        run.push(
            "publications",
            Unit::Rate,
            stats.publications as f64 / seconds,
        );
        run.push("deliveries", Unit::Rate, deliveries / seconds);
        if let Some(server_ns) = server_ns.filter(|ns| *ns > 0.0) {
            run.push_compared(
                "server CPU per delivery",
                Unit::Time,
                server_ns / deliveries,
            );
            run.push_compared(
                "deliveries per server CPU second",
                Unit::Rate,
                deliveries * 1e9 / server_ns,
            );
            run.push("server CPU", Unit::Share, server_ns / 1e9 / seconds);
        }
        run.push("generator CPU", Unit::Share, generator_ns / 1e9 / seconds);
        run.push(
            "generator CPU per delivery",
            Unit::Time,
            generator_ns / deliveries,
        );
        run.push("messages per receive", Unit::Count, deliveries / receives);
        run.push(
            "messages per frame",
            Unit::Count,
            deliveries / (stats.frames as f64).max(1.0),
        );
        run.push(
            "bytes per receive",
            Unit::Bytes,
            stats.bytes as f64 / receives,
        );
        run.push(
            "bytes per delivery",
            Unit::Bytes,
            stats.bytes as f64 / deliveries,
        );
        latency_figures(run);
        Learned {
            frame_bytes: Some(stats.bytes as f64 / deliveries),
            messages_per_receive: Some(deliveries / receives),
            steps: None,
        }
    }

    // --- idle ---

    fn idle(&mut self) -> Result<(Run, Learned), BenchError> {
        self.hold("settles", SETTLE)?;
        let before = self.target.memory();
        let connections = f64::from(self.shape.connections);
        let joined = self.window(Self::connect)?;
        let duration = self.shape.duration;
        let idle = self.window(|course| course.hold("idles", duration))?;
        let after = self.target.memory();
        let mut run = self.finish(histogram()?);
        run.push("connections", Unit::Count, f64::from(self.swarm.joined()));
        if after.rss > 0 {
            run.push("server RSS before", Unit::Bytes, before.rss as f64);
            run.push("server RSS", Unit::Bytes, after.rss as f64);
            run.push(
                "RSS per connection",
                Unit::Bytes,
                (after.anonymous.saturating_sub(before.anonymous)) as f64 / connections,
            );
        }
        let slab = after.slab.saturating_sub(before.slab) as f64 / connections;
        run.push_compared("slab per connection, both ends", Unit::Bytes, slab);
        if let Some(server_ns) = joined.server_ns {
            run.push_compared("server CPU per join", Unit::Time, server_ns / connections);
        }
        run.push("joins", Unit::Rate, connections / joined.seconds);
        if let Some(server_ns) = idle.server_ns {
            run.push(
                "server CPU when idle",
                Unit::Share,
                server_ns / 1e9 / idle.seconds,
            );
        }
        let steps = self.steps(&joined.stats);
        Ok((
            run,
            Learned {
                steps,
                ..Learned::default()
            },
        ))
    }

    // --- storm ---

    fn storm(&mut self) -> Result<(Run, Learned), BenchError> {
        self.connect()?;
        if self.shape.restart {
            self.lose_server()?;
        } else {
            self.swarm.disconnect()?;
            self.quiet()?;
        }
        // The limit has no history: what a server recovers is in the bytes of its answer already.
        let missed = if self.target.subject() == Subject::Server {
            self.shape.missed.unwrap_or(0)
        } else {
            0
        };
        self.swarm.publish_now(missed);
        self.hold("publishes", SETTLE)?;
        let window = self.window(Self::connect)?;
        self.swarm.settle(PATIENCE)?;
        let connections = f64::from(self.shape.connections);
        let mut run = self.finish(window.stats.joins.clone());
        run.push("connections", Unit::Count, f64::from(self.swarm.joined()));
        if let Some(server_ns) = window.server_ns {
            run.push_compared(
                "server CPU per connection",
                Unit::Time,
                server_ns / connections,
            );
        }
        run.push("all back after", Unit::Time, window.seconds * 1e9);
        run.push("joins", Unit::Rate, connections / window.seconds);
        run.push(
            "generator CPU per connection",
            Unit::Time,
            window.generator_ns / connections,
        );
        run.push(
            "bytes received per join",
            Unit::Bytes,
            window.stats.bytes as f64 / connections,
        );
        run.push(
            "bytes sent per join",
            Unit::Bytes,
            window.stats.sent as f64 / connections,
        );
        run.push(
            "recovered publications",
            Unit::Count,
            window.stats.deliveries as f64,
        );
        latency_figures(&mut run);
        let steps = self.steps(&window.stats);
        Ok((
            run,
            Learned {
                steps,
                ..Learned::default()
            },
        ))
    }

    /// The server is killed under its clients, and comes back without any of them.
    fn lose_server(&mut self) -> Result<(), BenchError> {
        self.swarm.publish_now(1);
        self.swarm.settle(PATIENCE)?;
        self.swarm.expect_loss();
        let Target::Server(server) = &mut self.target else {
            return Err(ELSEWHERE);
        };
        server.kill()?;
        self.swarm.await_loss()?;
        server.start_again()?;
        // Whoever publishes while the others are away is the first to come back.
        self.swarm.connect_publisher()
    }

    // --- drain ---

    fn drain(&mut self) -> Result<(Run, Learned), BenchError> {
        self.connect()?;
        self.quiet()?;
        self.swarm.measure()?;
        let begun = self.swarm.clock();
        let Target::Server(server) = &self.target else {
            return Err(ELSEWHERE);
        };
        server.terminate()?;
        let most = self.shape.duration + DRAIN_MARGIN;
        let status = loop {
            self.hold("drains", BIN)?;
            let Target::Server(server) = &mut self.target else {
                return Err(ELSEWHERE);
            };
            let ended = server.ended()?;
            let waited = Duration::from_nanos(self.swarm.clock() - begun);
            if ended.is_some() || waited > most {
                break ended;
            }
        };
        let took = self.swarm.clock() - begun;
        let told = self.swarm.measure()?.told;
        let mut run = self.finish(histogram()?);
        run.push(
            "connections",
            Unit::Count,
            f64::from(self.shape.connections),
        );
        run.push("told to reconnect (3001)", Unit::Count, told.len() as f64);
        let bins = bins(begun, self.shape.duration, &told);
        let all: u64 = bins.iter().sum();
        let mean = all as f64 / bins.len().max(1) as f64;
        let most = bins.iter().copied().max().unwrap_or(0) as f64;
        run.push("told per 100 ms, mean", Unit::Count, mean);
        run.push("told per 100 ms, max", Unit::Count, most);
        run.push("max ÷ mean", Unit::Share, most / mean.max(1e-9));
        if let (Some(first), Some(last)) = (told.iter().min(), told.iter().max()) {
            run.push("first told after", Unit::Time, (first - begun) as f64);
            run.push("last told after", Unit::Time, (last - begun) as f64);
        }
        run.push("process ended after", Unit::Time, took as f64);
        run.push("exit status", Unit::Count, status.map_or(-1.0, f64::from));
        if told.len() as u64 != u64::from(self.shape.connections) || status != Some(0) {
            // Somebody was cut, or was not told.
            run.refused += 1;
        }
        Ok((run, Learned::default()))
    }

    /// Waits until the server has dealt with what was.
    fn quiet(&mut self) -> Result<(), BenchError> {
        for _ in 0..QUIET_TRIES {
            let before = self.server_cpu();
            self.hold("is quiet", QUIET_WINDOW)?;
            let used = self
                .server_cpu()
                .zip(before)
                .map(|(after, before)| after.saturating_sub(before));
            if used.is_none_or(|used| used < QUIET_NS) {
                break;
            }
        }
        self.hold("settles", SETTLE)
    }

    /// The opening as its bytes were seen, for the limit to repeat.
    fn steps(&self, stats: &Stats) -> Option<Vec<Step>> {
        let each = |all: u64| (all as f64 / f64::from(self.shape.connections)).round() as u32;
        let (request, head) = (each(stats.upgrade_sent), each(stats.upgrade_bytes));
        let join = Step {
            write: each(stats.sent).saturating_sub(request),
            read: each(stats.bytes).saturating_sub(head),
        };
        let upgrade = Step {
            write: request.max(8),
            read: head,
        };
        (head > 0).then(|| {
            [upgrade, join]
                .into_iter()
                .filter(|step| step.read > 0)
                .collect()
        })
    }
}

/// How many were told in each bin of the window. What comes after it counts in the last one.
fn bins(begun: u64, window: Duration, told: &[u64]) -> Vec<u64> {
    let length = BIN.as_nanos() as u64;
    let count = (window.as_nanos() as u64).div_ceil(length).max(1) as usize;
    let mut bins = vec![0; count];
    for at in told {
        let bin = (at.saturating_sub(begun) / length) as usize;
        bins[bin.min(count - 1)] += 1;
    }
    bins
}

pub(super) fn latency_figures(run: &mut Run) {
    for (name, quantile) in [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999), ("max", 1.0)] {
        let value = run.latency.value_at_quantile(quantile) as f64;
        run.push(name, Unit::Time, value);
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::ledger::Counts;
    use super::*;

    #[test]
    fn everybody_who_is_told_is_in_a_bin() {
        let ms = |ms: u64| 1_000 + ms * 1_000_000;
        let told = [ms(10), ms(99), ms(150), ms(950), ms(1200)];
        let bins = bins(1_000, Duration::from_secs(1), &told);
        assert_eq!(bins, [2, 1, 0, 0, 0, 0, 0, 0, 0, 2]);
    }

    #[test]
    fn nothing_measured_gives_figures_without_division_by_zero() {
        let ledger = Counts::default();
        let latency = histogram().unwrap();
        let mut run = Run {
            subject: Subject::Server,
            figures: Vec::new(),
            latency,
            ledger,
            disconnected: 0,
            refused: 0,
        };
        latency_figures(&mut run);
        assert!(run.figures.iter().all(|figure| figure.value == 0.0));
    }
}
