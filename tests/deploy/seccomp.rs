//! The shipped seccomp profile as a real filter around the real binary: a call that it leaves out ends the process here.

use std::collections::BTreeMap;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, apply_filter,
};
use serde_json::{Value, json};

use crate::nats_server::NatsServer;
use crate::support::backend::{Backend, Reply};
use crate::support::client::Client;
use crate::support::http::Http;
use crate::support::process::{Server, Start, config, read_log};
use crate::support::wait;
use crate::tools::text;

/// Number of every call that the profile names.
const NUMBERS: &[(&str, i64)] = &[
    ("accept", libc::SYS_accept),
    ("accept4", libc::SYS_accept4),
    ("access", libc::SYS_access),
    ("arch_prctl", libc::SYS_arch_prctl),
    ("bind", libc::SYS_bind),
    ("brk", libc::SYS_brk),
    ("capget", libc::SYS_capget),
    ("capset", libc::SYS_capset),
    ("chdir", libc::SYS_chdir),
    ("chmod", libc::SYS_chmod),
    ("chown", libc::SYS_chown),
    ("clock_getres", libc::SYS_clock_getres),
    ("clock_gettime", libc::SYS_clock_gettime),
    ("clock_nanosleep", libc::SYS_clock_nanosleep),
    ("clone", libc::SYS_clone),
    ("clone3", libc::SYS_clone3),
    ("close", libc::SYS_close),
    ("close_range", libc::SYS_close_range),
    ("connect", libc::SYS_connect),
    ("copy_file_range", libc::SYS_copy_file_range),
    ("dup", libc::SYS_dup),
    ("dup2", libc::SYS_dup2),
    ("dup3", libc::SYS_dup3),
    ("epoll_create", libc::SYS_epoll_create),
    ("epoll_create1", libc::SYS_epoll_create1),
    ("epoll_ctl", libc::SYS_epoll_ctl),
    ("epoll_pwait", libc::SYS_epoll_pwait),
    ("epoll_pwait2", libc::SYS_epoll_pwait2),
    ("epoll_wait", libc::SYS_epoll_wait),
    ("eventfd", libc::SYS_eventfd),
    ("eventfd2", libc::SYS_eventfd2),
    ("execve", libc::SYS_execve),
    ("exit", libc::SYS_exit),
    ("exit_group", libc::SYS_exit_group),
    ("faccessat", libc::SYS_faccessat),
    ("faccessat2", libc::SYS_faccessat2),
    ("fadvise64", libc::SYS_fadvise64),
    ("fallocate", libc::SYS_fallocate),
    ("fchdir", libc::SYS_fchdir),
    ("fchmod", libc::SYS_fchmod),
    ("fchmodat", libc::SYS_fchmodat),
    ("fchmodat2", libc::SYS_fchmodat2),
    ("fchown", libc::SYS_fchown),
    ("fchownat", libc::SYS_fchownat),
    ("fcntl", libc::SYS_fcntl),
    ("fdatasync", libc::SYS_fdatasync),
    ("flock", libc::SYS_flock),
    ("fstat", libc::SYS_fstat),
    ("fstatfs", libc::SYS_fstatfs),
    ("fsync", libc::SYS_fsync),
    ("ftruncate", libc::SYS_ftruncate),
    ("futex", libc::SYS_futex),
    ("get_robust_list", libc::SYS_get_robust_list),
    ("getcpu", libc::SYS_getcpu),
    ("getcwd", libc::SYS_getcwd),
    ("getdents", libc::SYS_getdents),
    ("getdents64", libc::SYS_getdents64),
    ("getegid", libc::SYS_getegid),
    ("geteuid", libc::SYS_geteuid),
    ("getgid", libc::SYS_getgid),
    ("getgroups", libc::SYS_getgroups),
    ("getpeername", libc::SYS_getpeername),
    ("getpgrp", libc::SYS_getpgrp),
    ("getpid", libc::SYS_getpid),
    ("getppid", libc::SYS_getppid),
    ("getpriority", libc::SYS_getpriority),
    ("getrandom", libc::SYS_getrandom),
    ("getresgid", libc::SYS_getresgid),
    ("getresuid", libc::SYS_getresuid),
    ("getrlimit", libc::SYS_getrlimit),
    ("getrusage", libc::SYS_getrusage),
    ("getsockname", libc::SYS_getsockname),
    ("getsockopt", libc::SYS_getsockopt),
    ("gettid", libc::SYS_gettid),
    ("gettimeofday", libc::SYS_gettimeofday),
    ("getuid", libc::SYS_getuid),
    ("io_uring_enter", libc::SYS_io_uring_enter),
    ("io_uring_register", libc::SYS_io_uring_register),
    ("io_uring_setup", libc::SYS_io_uring_setup),
    ("ioctl", libc::SYS_ioctl),
    ("kill", libc::SYS_kill),
    ("lchown", libc::SYS_lchown),
    ("link", libc::SYS_link),
    ("linkat", libc::SYS_linkat),
    ("listen", libc::SYS_listen),
    ("lseek", libc::SYS_lseek),
    ("lstat", libc::SYS_lstat),
    ("madvise", libc::SYS_madvise),
    ("membarrier", libc::SYS_membarrier),
    ("mincore", libc::SYS_mincore),
    ("mkdir", libc::SYS_mkdir),
    ("mkdirat", libc::SYS_mkdirat),
    ("mlock", libc::SYS_mlock),
    ("mlock2", libc::SYS_mlock2),
    ("mmap", libc::SYS_mmap),
    ("mprotect", libc::SYS_mprotect),
    ("mremap", libc::SYS_mremap),
    ("msync", libc::SYS_msync),
    ("munlock", libc::SYS_munlock),
    ("munmap", libc::SYS_munmap),
    ("nanosleep", libc::SYS_nanosleep),
    ("newfstatat", libc::SYS_newfstatat),
    ("open", libc::SYS_open),
    ("openat", libc::SYS_openat),
    ("openat2", libc::SYS_openat2),
    ("pipe", libc::SYS_pipe),
    ("pipe2", libc::SYS_pipe2),
    ("poll", libc::SYS_poll),
    ("ppoll", libc::SYS_ppoll),
    ("prctl", libc::SYS_prctl),
    ("pread64", libc::SYS_pread64),
    ("preadv", libc::SYS_preadv),
    ("preadv2", libc::SYS_preadv2),
    ("prlimit64", libc::SYS_prlimit64),
    ("pselect6", libc::SYS_pselect6),
    ("pwrite64", libc::SYS_pwrite64),
    ("pwritev", libc::SYS_pwritev),
    ("pwritev2", libc::SYS_pwritev2),
    ("read", libc::SYS_read),
    ("readlink", libc::SYS_readlink),
    ("readlinkat", libc::SYS_readlinkat),
    ("readv", libc::SYS_readv),
    ("recvfrom", libc::SYS_recvfrom),
    ("recvmmsg", libc::SYS_recvmmsg),
    ("recvmsg", libc::SYS_recvmsg),
    ("rename", libc::SYS_rename),
    ("renameat", libc::SYS_renameat),
    ("renameat2", libc::SYS_renameat2),
    ("restart_syscall", libc::SYS_restart_syscall),
    ("rmdir", libc::SYS_rmdir),
    ("rseq", libc::SYS_rseq),
    ("rt_sigaction", libc::SYS_rt_sigaction),
    ("rt_sigpending", libc::SYS_rt_sigpending),
    ("rt_sigprocmask", libc::SYS_rt_sigprocmask),
    ("rt_sigqueueinfo", libc::SYS_rt_sigqueueinfo),
    ("rt_sigreturn", libc::SYS_rt_sigreturn),
    ("rt_sigsuspend", libc::SYS_rt_sigsuspend),
    ("rt_sigtimedwait", libc::SYS_rt_sigtimedwait),
    ("sched_get_priority_max", libc::SYS_sched_get_priority_max),
    ("sched_get_priority_min", libc::SYS_sched_get_priority_min),
    ("sched_getaffinity", libc::SYS_sched_getaffinity),
    ("sched_getparam", libc::SYS_sched_getparam),
    ("sched_getscheduler", libc::SYS_sched_getscheduler),
    ("sched_setaffinity", libc::SYS_sched_setaffinity),
    ("sched_yield", libc::SYS_sched_yield),
    ("select", libc::SYS_select),
    ("sendfile", libc::SYS_sendfile),
    ("sendmmsg", libc::SYS_sendmmsg),
    ("sendmsg", libc::SYS_sendmsg),
    ("sendto", libc::SYS_sendto),
    ("set_robust_list", libc::SYS_set_robust_list),
    ("set_tid_address", libc::SYS_set_tid_address),
    ("setgid", libc::SYS_setgid),
    ("setgroups", libc::SYS_setgroups),
    ("setpriority", libc::SYS_setpriority),
    ("setresgid", libc::SYS_setresgid),
    ("setresuid", libc::SYS_setresuid),
    ("setsockopt", libc::SYS_setsockopt),
    ("setuid", libc::SYS_setuid),
    ("shutdown", libc::SYS_shutdown),
    ("sigaltstack", libc::SYS_sigaltstack),
    ("signalfd4", libc::SYS_signalfd4),
    ("socket", libc::SYS_socket),
    ("socketpair", libc::SYS_socketpair),
    ("stat", libc::SYS_stat),
    ("statfs", libc::SYS_statfs),
    ("statx", libc::SYS_statx),
    ("symlink", libc::SYS_symlink),
    ("symlinkat", libc::SYS_symlinkat),
    ("sync_file_range", libc::SYS_sync_file_range),
    ("sysinfo", libc::SYS_sysinfo),
    ("tgkill", libc::SYS_tgkill),
    ("time", libc::SYS_time),
    ("timerfd_create", libc::SYS_timerfd_create),
    ("timerfd_gettime", libc::SYS_timerfd_gettime),
    ("timerfd_settime", libc::SYS_timerfd_settime),
    ("times", libc::SYS_times),
    ("tkill", libc::SYS_tkill),
    ("truncate", libc::SYS_truncate),
    ("umask", libc::SYS_umask),
    ("uname", libc::SYS_uname),
    ("unlink", libc::SYS_unlink),
    ("unlinkat", libc::SYS_unlinkat),
    ("utimensat", libc::SYS_utimensat),
    ("vfork", libc::SYS_vfork),
    ("wait4", libc::SYS_wait4),
    ("waitid", libc::SYS_waitid),
    ("write", libc::SYS_write),
    ("writev", libc::SYS_writev),
];

/// Behind this word stands the program that is started under the profile.
const PROGRAM: &str = "--";

fn number(name: &str) -> i64 {
    let found = NUMBERS.iter().find(|(known, _)| *known == name);
    found.unwrap_or_else(|| panic!("{name} is no call")).1
}

fn program(
    rules: BTreeMap<i64, Vec<SeccompRule>>,
    mismatch: SeccompAction,
    matches: SeccompAction,
) -> BpfProgram {
    let arch = TargetArch::try_from(std::env::consts::ARCH).expect("a known machine");
    let filter = SeccompFilter::new(rules, mismatch, matches, arch).expect("a filter");
    filter.try_into().expect("a program")
}

/// The profile as filters: one for each call that gets an error of its own, and one for what is allowed. Where a container
/// gets EPERM for anything else, the process is killed here, so that nothing goes unnoticed.
fn filters() -> Vec<BpfProgram> {
    let profile: Value = serde_json::from_str(&text("seccomp.json")).expect("JSON");
    assert_eq!(profile["defaultAction"], "SCMP_ACT_ERRNO");
    let mut allowed: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    let mut filters = Vec::new();
    for group in profile["syscalls"].as_array().expect("calls") {
        let names = group["names"].as_array().expect("names").iter();
        let calls: Vec<i64> = names
            .map(|name| number(name.as_str().expect("a name")))
            .collect();
        let conditions: Vec<SeccompCondition> = group["args"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|argument| {
                assert_eq!(argument["op"], "SCMP_CMP_MASKED_EQ");
                let number = |key: &str| argument[key].as_u64().expect("a number");
                let index = u8::try_from(number("index")).expect("an argument");
                let op = SeccompCmpOp::MaskedEq(number("value"));
                SeccompCondition::new(index, SeccompCmpArgLen::Qword, op, number("valueTwo"))
                    .expect("a condition")
            })
            .collect();
        for call in calls {
            if group["action"] == "SCMP_ACT_ERRNO" {
                let errno = group["errnoRet"].as_u64().expect("a number");
                let errno = u32::try_from(errno).expect("a number of an error");
                let rules = BTreeMap::from([(call, Vec::new())]);
                let action = SeccompAction::Errno(errno);
                filters.push(program(rules, SeccompAction::Allow, action));
            }
            // Of two filters the stricter one counts.
            let rules = allowed.entry(call).or_default();
            if !conditions.is_empty() {
                rules.push(SeccompRule::new(conditions.clone()).expect("a rule"));
            }
        }
    }
    let (kill, allow) = (SeccompAction::KillProcess, SeccompAction::Allow);
    filters.push(program(allowed, kill, allow));
    filters
}

/// The tests beside this one start it with a program behind `--`: then this process becomes that program, under the profile.
#[test]
fn profile_is_a_filter_that_a_program_can_be_started_with() {
    let filters = filters();
    assert!(filters.iter().all(|filter| !filter.is_empty()));
    let arguments: Vec<String> = std::env::args().collect();
    let Some(at) = arguments.iter().position(|argument| argument == PROGRAM) else {
        return;
    };
    let mut command = Command::new(&arguments[at + 1]);
    command.args(&arguments[at + 2..]);
    for filter in filters {
        apply_filter(&filter).expect("the filter is installed");
    }
    let error = command.exec();
    panic!("{}: {error}", arguments[at + 1]);
}

/// What stands before a program for it to run under the profile.
fn launcher() -> Vec<String> {
    let own = std::env::current_exe().expect("this program");
    let name = format!(
        "{}::profile_is_a_filter_that_a_program_can_be_started_with",
        module()
    );
    [
        &own.display().to_string(),
        "--exact",
        "--nocapture",
        &name,
        PROGRAM,
    ]
    .map(str::to_owned)
    .to_vec()
}

/// The name of this module, as the names of its tests have it.
fn module() -> &'static str {
    module_path!()
        .split_once("::")
        .map_or("", |(_, module)| module)
}

fn rules(directory: &Path, backend: &Backend, durable: &str) -> String {
    config(&format!(
        r#"
[server]
internal_listen = ["127.0.0.1:0"]
[client]
allow_anonymous_connect_without_token = true
[rpc.proxy]
endpoint = "http://localhost:{}/rpc"
[rpc.without_namespace]
proxy_enabled = true
[channel.without_namespace]
allow_subscribe_for_client = true
allow_subscribe_for_anonymous = true
[[channel.namespaces]]
name = "orders"
delivery = "durable"
allow_subscribe_for_client = true
allow_subscribe_for_anonymous = true
[durable.embedded]
directory = "{}"
{durable}
"#,
        backend.address.port(),
        directory.display()
    ))
}

fn serves(server: &Server) {
    let mut client = Client::anonymous(server);
    for channel in ["news", "orders:1"] {
        // The connection to the log is made behind the start.
        wait::until("the log", || {
            let reply = client.call("subscribe", &json!({ "channel": channel }));
            reply.get("subscribe").map(|_| ())
        });
        for n in 0..50 {
            let publish = json!({ "channel": channel, "data": n });
            wait::until("the publication to be taken", || {
                let answer = server.api_internal("publish", &publish);
                answer.get("result").is_some().then_some(())
            });
            assert_eq!(client.publication(channel)["data"], n);
        }
    }
    let reply = client.call("rpc", &json!({ "method": "m", "data": {} }));
    assert_eq!(reply["rpc"]["data"], 1, "{reply}");
    assert_eq!(Http::open(server.internal).get("/ready", &[]).status, 200);
}

fn lives_under_the_profile(reactor: &str, durable: &str) {
    let directory = tempfile::tempdir().expect("a directory");
    let backend = Backend::start(|_| Reply::result(json!({ "data": 1 })));
    let text = rules(&directory.path().join("log"), &backend, durable);
    for _ in 0..2 {
        let socket = format!("unix:{}", directory.path().join("edge.sock").display());
        let mut server = Start::with_config(&text)
            .shards(2)
            .reactor(reactor)
            .listen(&format!("127.0.0.1:0,{socket}"))
            .through(launcher())
            .run();
        assert_eq!(server.reactor, reactor);
        serves(&server);
        server.signal("HUP");
        wait::until("the reload", || {
            server
                .log()
                .contains("configuration reloaded")
                .then_some(())
        });
        server.signal("TERM");
        let status = server.exit_status();
        assert_eq!(status.code(), Some(0), "{status}");
    }
}

#[test]
fn embedded_log_on_io_uring_lives_under_the_profile() {
    lives_under_the_profile("uring", "");
}

#[test]
fn embedded_log_on_the_portable_reactor_lives_under_the_profile() {
    lives_under_the_profile("portable", "");
}

#[test]
fn log_in_jetstream_lives_under_the_profile() {
    let nats = NatsServer::start();
    let durable = format!(
        "[durable]\nengine = \"nats\"\n[durable.nats]\nservers = [\"nats://localhost:{}\"]\n",
        nats.port()
    );
    lives_under_the_profile("uring", &durable);
}

#[test]
fn commands_in_a_container_live_under_the_profile() {
    let server = Server::start(&config(""));
    let directory = tempfile::tempdir().expect("a directory");
    let address = server.admin.to_string();
    for arguments in [
        &["health", "--ready", "--address", &address][..],
        &["check"],
        &["--version"],
    ] {
        let launcher = launcher();
        let log = std::fs::File::create(directory.path().join("log")).expect("a log");
        let status = Command::new(&launcher[0])
            .args(&launcher[1..])
            .arg(env!("CARGO_BIN_EXE_ringmain"))
            .args(arguments)
            .current_dir(directory.path())
            .stdout(log.try_clone().expect("the log"))
            .stderr(log)
            .status()
            .expect("it starts");
        let printed = read_log(directory.path());
        assert_eq!(status.code(), Some(0), "{arguments:?}: {printed}");
    }
}

#[test]
fn what_a_proxy_never_does_is_refused() {
    let launcher = launcher();
    let status = Command::new(&launcher[0])
        .args(&launcher[1..])
        .args(["/bin/sh", "-c", "exec unshare --user true"])
        .status()
        .expect("it starts");
    assert!(!status.success(), "a namespace of its own: {status}");
}
