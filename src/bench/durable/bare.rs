//! The yardstick of an acknowledgement: a write of as many bytes, and the wait until the disk has them. Nothing else.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use super::super::BenchError;
use super::super::ledger::Counts;
use super::super::progress::Progress;
use super::super::report::{Run, Subject, Unit};
use super::super::swarm::histogram;

/// Removed when dropped.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Appends `size` bytes to a file in `directory` and waits for the disk, over and over for this long.
pub(super) fn run(
    directory: &Path,
    size: usize,
    time: Duration,
    label: &str,
) -> Result<Run, BenchError> {
    let path = directory.join(format!("ringmain-bench-{}.bare", std::process::id()));
    let scratch = Scratch(path);
    let mut file: File = OpenOptions::new()
        .create_new(true)
        .append(true)
        .open(&scratch.0)?;
    let bytes = vec![b'x'; size];
    let mut latency: Histogram<u64> = histogram()?;
    let progress = Progress::new(label, time.as_millis() as u64);
    #[expect(clippy::disallowed_methods, reason = "the generator measures time")]
    let started = Instant::now();
    let mut before = Duration::ZERO;
    while before < time {
        file.write_all(&bytes)?;
        file.sync_data()?;
        let after = started.elapsed();
        latency.saturating_record((after - before).as_nanos() as u64);
        progress.set(after.as_millis() as u64);
        before = after;
    }
    let mut run = Run {
        subject: Subject::Limit,
        figures: Vec::new(),
        latency,
        ledger: Counts::default(),
        disconnected: 0,
        refused: 0,
    };
    let commits = run.latency.len() as f64;
    run.push_compared("acknowledged", Unit::Rate, commits / before.as_secs_f64());
    super::push_latency(&mut run);
    Ok(run)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commits_are_counted_and_the_file_is_gone_afterwards() {
        let directory = tempfile::tempdir().unwrap();
        let run = run(directory.path(), 256, Duration::from_millis(50), "").unwrap();
        assert!(run.figure("acknowledged").unwrap() > 1.0 && run.figure("p99").unwrap() > 0.0);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }
}
