//! From the instant at which a port accepts, signals, reloads and readiness do what they promise.

use std::net::{SocketAddr, TcpStream};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ExitStatus};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::support::http::Http;
use crate::support::process::{
    API_KEY, SECRET, binary, config, free_port, guard, reactor_under_test, read_log,
};
use crate::support::wait::{self, now};

const DURABLE: &str = r#"
[drain]
notice = "0s"
window = "10ms"
grace = "10ms"

[durable.embedded]
directory = "events"

[[channel.namespaces]]
name = "orders"
delivery = "durable"
"#;

/// A process that is starting. Dropping it kills it.
struct Starting {
    child: Child,
    guard: Child,
    directory: TempDir,
    listen: SocketAddr,
    admin: SocketAddr,
}

impl Starting {
    fn new() -> Self {
        let directory = TempDir::new().expect("a directory");
        let listen = free_port();
        // The same one is free twice.
        let admin = std::iter::repeat_with(free_port).find(|admin| *admin != listen);
        let admin = admin.expect("another port");
        std::fs::write(directory.path().join("ringmain.toml"), config(DURABLE)).expect("a file");
        let child = binary(directory.path())
            .args([
                "--listen",
                &listen.to_string(),
                "--admin",
                &admin.to_string(),
            ])
            .args(["--shards", "2", "--reactor", &reactor_under_test()])
            .spawn()
            .expect("the binary starts");
        let guard = guard(child.id());
        Self {
            child,
            guard,
            directory,
            listen,
            admin,
        }
    }

    /// The first connection that is accepted.
    fn first_connection(&self) -> TcpStream {
        let end = now() + wait::DEADLINE;
        loop {
            match TcpStream::connect(self.listen) {
                Ok(stream) => return stream,
                Err(_) => {
                    assert!(now() < end, "{}", self.log());
                    // The log's thread, which the start waits for, gives way to whoever wants a core.
                    std::thread::park_timeout(Duration::from_micros(500));
                }
            }
        }
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        kill_process(pid.expect("a process"), signal).expect("it is there");
    }

    fn status(&mut self) -> ExitStatus {
        wait::until("the end", || self.child.try_wait().expect("a status"))
    }

    fn log(&self) -> String {
        read_log(self.directory.path())
    }
}

impl Drop for Starting {
    fn drop(&mut self) {
        for child in [&mut self.guard, &mut self.child] {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

#[test]
fn signal_to_end_at_the_first_accepted_connection_ends_in_order() {
    for signal in [Signal::TERM, Signal::INT, Signal::TERM, Signal::INT] {
        let mut starting = Starting::new();
        let connection = starting.first_connection();
        starting.signal(signal);
        let status = starting.status();
        assert_eq!(status.code(), Some(0), "{status}: {}", starting.log());
        assert!(starting.log().contains("drained"), "{}", starting.log());
        drop(connection);
    }
}

#[test]
fn reload_at_the_first_accepted_connection_is_honoured() {
    for _ in 0..3 {
        let starting = Starting::new();
        let connection = starting.first_connection();
        let text = config(DURABLE).replace(API_KEY, "another-key");
        assert!(text.contains(SECRET), "only the key differs");
        std::fs::write(starting.directory.path().join("ringmain.toml"), text).expect("a file");
        starting.signal(Signal::HUP);
        wait::until("the new key", || {
            let key = [("X-API-Key", "another-key")];
            let answer = Http::open(starting.listen).post("/api/info", &key, b"{}");
            (answer.status == 200).then_some(())
        });
        drop(connection);
    }
}

#[test]
fn whoever_is_told_that_the_process_is_ready_is_served_by_every_shard() {
    let starting = Starting::new();
    let ready = wait::until("readiness", || {
        let stream = TcpStream::connect(starting.admin).ok()?;
        stream
            .set_read_timeout(Some(wait::DEADLINE))
            .expect("a deadline");
        let answer = Http::over(stream).get("/ready", &[]);
        (answer.status == 200).then_some(answer)
    });
    assert_eq!(ready.json()["shards_ready"], 2);
    for _ in 0..40 {
        let answer =
            Http::open(starting.listen).post("/api/info", &[("X-API-Key", API_KEY)], b"{}");
        assert_eq!(answer.status, 200);
    }
}

#[test]
fn signal_to_end_at_any_moment_of_the_start_ends_cleanly() {
    for step in 0..24 {
        let mut starting = Starting::new();
        let end = now() + Duration::from_millis(step * 3);
        while now() < end {
            std::thread::park_timeout(Duration::from_micros(500));
        }
        starting.signal(Signal::TERM);
        let status = starting.status();
        // Before the program runs there is nobody to obey.
        let is_unborn = status.signal() == Some(15) && starting.log().is_empty();
        assert!(
            status.code() == Some(0) || is_unborn,
            "{step}: {status} {}",
            starting.log()
        );
        let made = starting.directory.path().join("events");
        assert!(!is_unborn || !made.exists(), "{step}: {}", starting.log());
    }
}
