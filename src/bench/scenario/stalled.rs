//! `stalled`: one in ten subscribers stops reading, and what that costs the others and the server.

use std::time::Duration;

use super::super::BenchError;
use super::super::child::QUEUE_BYTES_MAX;
use super::super::report::{Run, Unit};
use super::super::swarm::Load;
use super::Learned;
use super::course::{Course, PATIENCE, SETTLE};
use crate::limits::BACKLOG_BYTES_MAX;

/// One subscriber in so many stalls.
const ONE_IN: u32 = 10;
/// The server's memory is looked at so often.
const LOOK: Duration = Duration::from_millis(250);

impl Course<'_> {
    /// The same load twice in one run: while all read, and while some do not.
    pub(super) fn stalled(&mut self) -> Result<(Run, Learned), BenchError> {
        self.connect()?;
        self.hold("settles", SETTLE)?;
        self.swarm.set_load(self.shape.load());
        self.hold("warms up", self.shape.warm_up)?;
        let duration = self.shape.duration;
        let without = self.window(|course| course.hold("all read", duration))?;
        let before = self.target.memory().rss;
        let count = self.swarm.stall(ONE_IN)?;
        let mut most = before;
        let with = self.window(|course| {
            for _ in 0..duration.as_millis().div_ceil(LOOK.as_millis()) {
                course.hold("some stall", LOOK)?;
                most = most.max(course.target.memory().rss);
            }
            Ok(())
        })?;
        self.swarm.read_on()?;
        self.swarm.set_load(Load::None);
        self.swarm.settle(PATIENCE)?;
        let growth = most.saturating_sub(before) as f64;
        let of_shards = BACKLOG_BYTES_MAX * usize::from(self.shape.shards.unwrap_or(1));
        let bound = (QUEUE_BYTES_MAX * count as usize).min(of_shards) as f64;
        let p99 =
            |window: &super::course::Window| window.stats.latency.value_at_quantile(0.99) as f64;
        let (p99_without, p99_with) = (p99(&without), p99(&with));
        let mut run = self.finish(with.stats.latency.clone());
        run.push("connections", Unit::Count, f64::from(self.swarm.joined()));
        run.push("stalled", Unit::Count, f64::from(count));
        let rate = with.stats.publications as f64 / with.seconds;
        run.push("publications", Unit::Rate, rate);
        run.push("server RSS before", Unit::Bytes, before as f64);
        run.push("RSS growth", Unit::Bytes, growth);
        run.push("bound", Unit::Bytes, bound);
        run.push("RSS growth ÷ bound", Unit::Count, growth / bound);
        run.push("p99 of the healthy, without", Unit::Time, p99_without);
        run.push("p99 of the healthy, with", Unit::Time, p99_with);
        run.push(
            "p99, with ÷ without",
            Unit::Count,
            p99_with / p99_without.max(1.0),
        );
        let (sent, told) = (self.swarm.published_to_all(), self.swarm.reported());
        run.push("sent", Unit::Count, sent as f64);
        run.push("delivered", Unit::Count, run.ledger.delivered as f64);
        run.push("reported", Unit::Count, told as f64);
        run.push("unexplained", Unit::Count, run.ledger.lost as f64);
        Ok((run, Learned::default()))
    }
}
