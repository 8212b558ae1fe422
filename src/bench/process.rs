//! What the kernel knows about a process: CPU time, memory; and about itself.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;

/// Whose CPU time is read.
#[derive(Clone, Debug)]
pub(crate) enum CpuSource {
    /// Every thread of a process.
    Process(u32),
    /// These threads: `/proc/PID/task/TID`.
    Threads(Vec<PathBuf>),
}

impl CpuSource {
    /// The calling thread.
    pub(crate) fn current_thread() -> Option<Self> {
        let own = fs::read_link("/proc/thread-self").ok()?;
        Some(Self::Threads(vec![Path::new("/proc").join(own)]))
    }

    /// CPU time so far in nanoseconds, user and system. `None` when the process is gone or not ours to see.
    #[must_use]
    pub(crate) fn cpu_ns(&self) -> Option<u64> {
        match self {
            Self::Threads(tasks) => tasks.iter().map(|task| task_cpu_ns(task)).sum(),
            Self::Process(pid) => {
                let tasks = fs::read_dir(format!("/proc/{pid}/task")).ok()?;
                Some(
                    tasks
                        .flatten()
                        .filter_map(|task| task_cpu_ns(&task.path()))
                        .sum(),
                )
            }
        }
    }
}

/// `schedstat` counts nanoseconds; `stat`, the fallback, ticks of 10 ms.
fn task_cpu_ns(task: &Path) -> Option<u64> {
    if let Ok(text) = fs::read_to_string(task.join("schedstat"))
        && let Some(Ok(ns)) = text.split_ascii_whitespace().next().map(str::parse::<u64>)
    {
        return Some(ns);
    }
    let text = fs::read_to_string(task.join("stat")).ok()?;
    // The command may hold spaces and parentheses; fields are counted from the last one.
    let mut fields = text.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some((user + system) * 10_000_000)
}

/// Runs `body` on a thread of its own, pinned to `core` if one is given. The caller's affinity stays as it is, and with
/// it that of the processes and threads that the caller starts; those that `body` starts inherit the core.
pub(crate) fn on_core<T: Send>(core: Option<usize>, body: impl FnOnce() -> T + Send) -> T {
    let pinned = move || {
        if let Some(id) = core {
            core_affinity::set_for_current(core_affinity::CoreId { id });
        }
        body()
    };
    std::thread::scope(|scope| match scope.spawn(pinned).join() {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}

/// Memory at one moment, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Memory {
    /// Resident set of the server. 0 where it cannot be read.
    pub(crate) rss: u64,
    /// What of it is its own: the rest are pages of its file, which the first connection brings in for all that follow.
    pub(crate) anonymous: u64,
    /// Unreclaimable slab of the whole machine: sockets of the server and of the generator.
    pub(crate) slab: u64,
}

/// The memory of the process and of the kernel now.
#[must_use]
pub(crate) fn memory(pid: Option<u32>) -> Memory {
    let status = pid.and_then(|pid| fs::read_to_string(format!("/proc/{pid}/status")).ok());
    let of_server = |key| (status.as_ref()).and_then(|text| kib_line(text, key));
    Memory {
        rss: of_server("VmRSS:").unwrap_or(0),
        anonymous: of_server("RssAnon:").unwrap_or(0),
        slab: fs::read_to_string("/proc/meminfo")
            .ok()
            .and_then(|text| kib_line(&text, "SUnreclaim:"))
            .unwrap_or(0),
    }
}

fn kib_line(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    let kib: u64 = line.trim().trim_end_matches("kB").trim_end().parse().ok()?;
    Some(kib * 1024)
}

/// Where and under which limits a figure was measured.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Facts {
    /// Kernel release.
    pub(crate) kernel: String,
    /// Processor as the kernel names it.
    pub(crate) processor: String,
    /// Cores this process may use.
    pub(crate) cores: usize,
    /// Core of the server, if pinned by the bench.
    pub(crate) server_core: Option<usize>,
    /// Core of the generator, if pinned.
    pub(crate) generator_core: Option<usize>,
    /// `loopback` or `network`.
    pub(crate) link: &'static str,
    /// Soft limit of open descriptors of the generator.
    pub(crate) descriptors_max: String,
    /// Congestion control of new TCP connections.
    pub(crate) congestion_control: String,
    /// The bench speaks plain TCP.
    pub(crate) tls: bool,
    /// Version of this program.
    pub(crate) version: &'static str,
}

impl Facts {
    /// Reads them from `/proc`.
    #[must_use]
    pub(crate) fn read(server_core: Option<usize>, generator_core: Option<usize>) -> Self {
        let line = |path: &str, key: &str| {
            let text = fs::read_to_string(path).unwrap_or_default();
            let found = text
                .lines()
                .find_map(|line| line.strip_prefix(key).map(str::to_owned));
            found
                .unwrap_or_default()
                .trim_start_matches([' ', '\t', ':'])
                .to_owned()
        };
        let trimmed = |path: &str| {
            fs::read_to_string(path)
                .unwrap_or_default()
                .trim()
                .to_owned()
        };
        let descriptors = line("/proc/self/limits", "Max open files");
        Self {
            kernel: trimmed("/proc/sys/kernel/osrelease"),
            processor: line("/proc/cpuinfo", "model name"),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            server_core,
            generator_core,
            link: "loopback",
            descriptors_max: descriptors
                .split_whitespace()
                .next()
                .unwrap_or_default()
                .to_owned(),
            congestion_control: trimmed("/proc/sys/net/ipv4/tcp_congestion_control"),
            tls: false,
            version: env!("CARGO_PKG_VERSION"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_of_this_thread_grows_with_work() {
        let source = CpuSource::current_thread().unwrap();
        let before = source.cpu_ns().unwrap();
        let mut x = 1_u64;
        while source.cpu_ns().unwrap() == before {
            x = std::hint::black_box(x.wrapping_mul(3));
        }
        assert!(CpuSource::Process(std::process::id()).cpu_ns().unwrap() > 0);
    }

    #[test]
    fn only_the_body_is_pinned() {
        let cores = || {
            std::thread::available_parallelism()
                .map(usize::from)
                .unwrap()
        };
        let before = cores();
        let first = core_affinity::get_core_ids().unwrap()[0].id;
        assert_eq!(on_core(Some(first), cores), 1);
        assert_eq!((on_core(None, cores), cores()), (before, before));
    }

    #[test]
    fn memory_of_this_process_is_read_and_of_a_missing_one_is_zero() {
        let own = memory(Some(std::process::id()));
        assert!(own.rss > own.anonymous && own.anonymous > 0 && own.slab > 0);
        assert_eq!(memory(Some(u32::MAX)).rss, 0);
        assert_eq!(CpuSource::Process(u32::MAX).cpu_ns(), None);
    }

    #[test]
    fn sizes_are_read_in_bytes() {
        assert_eq!(
            kib_line("VmHWM:\t 9 kB\nVmRSS:\t     12 kB\n", "VmRSS:"),
            Some(12_288)
        );
        assert_eq!(kib_line("VmHWM:\t 9 kB\n", "VmRSS:"), None);
    }
}
