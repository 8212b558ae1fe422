//! What the kernel says about this process, and when it was configured.

use std::sync::Arc;

/// Ticks per second in `/proc/self/stat`: `USER_HZ`, which Linux fixes at 100 on every architecture this program runs on.
const TICKS_PER_SECOND: f64 = 100.0;

/// The last time the configuration was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reload {
    /// When a reload was taken last, or the process was started: Unix time in seconds.
    pub taken_unix_s: u64,
    /// Why the last one was refused, if it was.
    pub refused: Option<Arc<str>>,
}

/// Memory, processor time and descriptors of this process.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Process {
    /// Resident memory in bytes (`VmRSS`).
    pub resident_bytes: u64,
    /// Processor time of all threads, user and system, in seconds.
    pub cpu_seconds: f64,
    /// Open descriptors. Direct descriptors of a ring are not among them.
    pub descriptors: u64,
    /// Descriptors that it may have; a ring has as many direct ones of its own at most.
    pub descriptors_max: u64,
    /// When it was started, Unix time in seconds.
    pub started_unix_s: f64,
}

impl Process {
    /// Reads `/proc/self`; what cannot be read is 0.
    #[must_use]
    pub fn read() -> Self {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
        let system = std::fs::read_to_string("/proc/stat").unwrap_or_default();
        let descriptors =
            std::fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count() as u64);
        Self {
            resident_bytes: resident_bytes(&status).unwrap_or(0),
            cpu_seconds: cpu_seconds(&stat).unwrap_or(0.0),
            descriptors,
            descriptors_max: crate::uring::socket::descriptors_max(),
            started_unix_s: started_unix_s(&stat, &system).unwrap_or(0.0),
        }
    }
}

/// The wall clock in whole seconds.
#[expect(
    clippy::disallowed_methods,
    reason = "operators compare it with their own clock, and this is no core module"
)]
pub(super) fn unix_s() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::SystemTime::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

fn resident_bytes(status: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// Fields of `proc_pid_stat(5)` from number 3 on. The command's name may hold spaces and brackets, so counting starts after the last bracket.
fn fields(stat: &str) -> Option<std::str::SplitAsciiWhitespace<'_>> {
    Some(stat.rsplit_once(')')?.1.split_ascii_whitespace())
}

/// Field 22, ticks after the boot, and the boot as `proc_stat(5)` has it.
fn started_unix_s(stat: &str, system: &str) -> Option<f64> {
    let ticks: f64 = fields(stat)?.nth(19)?.parse().ok()?;
    let boot = system
        .lines()
        .find_map(|line| line.strip_prefix("btime "))?;
    let boot: f64 = boot.trim().parse().ok()?;
    Some(boot + ticks / TICKS_PER_SECOND)
}

/// Fields 14 and 15.
fn cpu_seconds(stat: &str) -> Option<f64> {
    let mut fields = fields(stat)?.skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some((user + system) / TICKS_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_read_whatever_the_command_is_called() {
        assert_eq!(
            resident_bytes("Name:\tx\nVmRSS:\t    1234 kB\n"),
            Some(1234 * 1024)
        );
        let stat = "7 (ring) main) S 1 7 7 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 3 0 99 1000 20";
        assert_eq!(cpu_seconds(stat), Some(3.0));
        assert_eq!(cpu_seconds("nonsense"), None);
        let system = "cpu 1 2\nbtime 1700000000\nprocesses 3\n";
        assert_eq!(started_unix_s(stat, system), Some(1_700_000_000.99));
        assert_eq!(started_unix_s(stat, ""), None);
    }

    #[test]
    fn this_process_has_memory_and_descriptors() {
        let process = Process::read();
        assert!(process.resident_bytes > 0 && process.descriptors > 0);
    }
}
