//! What the kernel says about this process.

/// Ticks per second in `/proc/self/stat`: `USER_HZ`, which Linux fixes at 100 on every architecture this program runs on.
const TICKS_PER_SECOND: f64 = 100.0;

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
}

impl Process {
    /// Reads `/proc/self`; what cannot be read is 0.
    #[must_use]
    pub fn read() -> Self {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
        let descriptors =
            std::fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count() as u64);
        Self {
            resident_bytes: resident_bytes(&status).unwrap_or(0),
            cpu_seconds: cpu_seconds(&stat).unwrap_or(0.0),
            descriptors,
            descriptors_max: crate::uring::socket::descriptors_max(),
        }
    }
}

fn resident_bytes(status: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// Fields 14 and 15 of `proc_pid_stat(5)`. The command's name may hold spaces and brackets, so counting starts after the last bracket.
fn cpu_seconds(stat: &str) -> Option<f64> {
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
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
    }

    #[test]
    fn this_process_has_memory_and_descriptors() {
        let process = Process::read();
        assert!(process.resident_bytes > 0 && process.descriptors > 0);
    }
}
