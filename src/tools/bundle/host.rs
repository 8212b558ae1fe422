//! What this host says of itself, file by file.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

/// Bytes of one file.
const FILE_BYTES: usize = 16 * 1024;
/// Processes of this program that are looked at.
const PROCESSES: usize = 8;
/// Where control groups are.
const CGROUPS: &str = "/sys/fs/cgroup";

const FILES: [&str; 15] = [
    "/proc/version",
    "/etc/os-release",
    "/proc/loadavg",
    "/proc/meminfo",
    "/proc/self/limits",
    "/proc/net/sockstat",
    "/proc/net/netstat",
    "/proc/net/softnet_stat",
    "/proc/pressure/cpu",
    "/proc/pressure/memory",
    "/proc/pressure/io",
    "/proc/sys/kernel/io_uring_disabled",
    "/proc/sys/net/core/somaxconn",
    "/proc/sys/net/ipv4/tcp_mem",
    "/proc/sys/net/ipv4/tcp_wmem",
];

/// Of a process of this program. Not its command line, which may have a key, nor its environment.
const OF_PROCESS: [&str; 4] = ["status", "limits", "cgroup", "sched"];

/// Of a control group.
const OF_CGROUP: [&str; 9] = [
    "cpu.max",
    "cpu.stat",
    "cpuset.cpus.effective",
    "memory.current",
    "memory.max",
    "memory.high",
    "memory.events",
    "pids.current",
    "pids.max",
];

/// `pid` is the process that was asked, where it has said so.
pub(super) fn read(pid: Option<u64>) -> String {
    let mut out = String::new();
    for path in FILES {
        section(&mut out, Path::new(path));
    }
    for process in processes(pid) {
        for file in OF_PROCESS {
            section(&mut out, &process.join(file));
        }
        let cgroup = fs::read_to_string(process.join("cgroup")).unwrap_or_default();
        if let Some(path) = unified(&cgroup) {
            for file in OF_CGROUP {
                section(&mut out, &path.join(file));
            }
        }
    }
    out
}

fn section(out: &mut String, path: &Path) {
    let text = match fs::read(path) {
        Ok(bytes) => String::from_utf8_lossy(&bytes[..bytes.len().min(FILE_BYTES)]).into_owned(),
        Err(error) => format!("({error})"),
    };
    writeln!(out, "== {}\n{}\n", path.display(), text.trim_end())
        .expect("a String takes every write");
}

/// Processes of this program, this one among them: `first` before all others, then the newest.
fn processes(first: Option<u64>) -> Vec<PathBuf> {
    let of = |pid: u64| Path::new("/proc").join(pid.to_string());
    let is_ours = |&pid: &u64| {
        let comm = fs::read_to_string(of(pid).join("comm"));
        comm.is_ok_and(|comm| comm.trim() == "ringmain")
    };
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbers = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let mut found: Vec<u64> = numbers.filter(is_ours).collect();
    found.sort_unstable_by_key(|&pid| (Some(pid) != first, std::cmp::Reverse(pid)));
    found.truncate(PROCESSES);
    found.into_iter().map(of).collect()
}

/// The directory of a group of the second version.
fn unified(cgroup: &str) -> Option<PathBuf> {
    let path = cgroup.lines().find_map(|line| line.strip_prefix("0::/"))?;
    Some(Path::new(CGROUPS).join(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_are_not_there_are_said_to_be_not_there() {
        let text = read(None);
        assert!(text.contains("== /proc/version\nLinux"), "{text}");
        assert_eq!(
            unified("5:cpu:/x\n0::/system.slice/ringmain.service\n"),
            Some(PathBuf::from(
                "/sys/fs/cgroup/system.slice/ringmain.service"
            ))
        );
        assert_eq!(unified("5:cpu:/x\n"), None);
    }
}
