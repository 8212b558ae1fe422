//! Where the kernel refuses io_uring, `auto` serves on and says so once; `uring` does not start.

use std::collections::BTreeMap;

use seccompiler::{SeccompAction, SeccompFilter, TargetArch};
use serde_json::json;
use tempfile::TempDir;

use crate::support::client::Client;
use crate::support::process::{Start, binary, config, read_log};

/// Runs `action` on a thread whose children may not set up a ring, as container runtimes have it.
fn without_io_uring<T: Send + 'static>(action: impl FnOnce() -> T + Send + 'static) -> T {
    std::thread::spawn(|| {
        let arch = TargetArch::try_from(std::env::consts::ARCH).expect("a known machine");
        // io_uring_setup has one number on all machines.
        let rules = BTreeMap::from([(425, Vec::new())]);
        let eperm = SeccompAction::Errno(1);
        let filter =
            SeccompFilter::new(rules, SeccompAction::Allow, eperm, arch).expect("a filter");
        let program: seccompiler::BpfProgram = filter.try_into().expect("a program");
        seccompiler::apply_filter(&program).expect("the filter is installed");
        action()
    })
    .join()
    .expect("the action succeeds")
}

#[test]
fn auto_falls_back_with_one_warning_that_names_cause_and_remedy() {
    let server = without_io_uring(|| {
        Start::with_config(&config("[client]\ninsecure = true\n"))
            .reactor("auto")
            .shards(2)
            .run()
    });
    assert_eq!(server.reactor, "portable");
    let mut client = Client::anonymous(&server);
    client.subscribe("news");
    server.api_result("publish", &json!({ "channel": "news", "data": 1 }));
    assert_eq!(client.publication("news")["data"], 1);
    let log = server.log();
    let warnings: Vec<&str> = log
        .lines()
        .filter(|line| line.contains("\"WARN\""))
        .collect();
    assert_eq!(warnings.len(), 1, "{log}");
    assert!(
        warnings[0].contains("seccomp"),
        "the cause: {}",
        warnings[0]
    );
}

#[test]
fn uring_refuses_to_start_without_it() {
    let (status, log) = without_io_uring(|| {
        let directory = TempDir::new().expect("a directory");
        let status = binary(directory.path())
            .args([
                "--reactor",
                "uring",
                "--listen",
                "127.0.0.1:0",
                "--admin",
                "127.0.0.1:0",
            ])
            .status()
            .expect("the binary starts");
        (status, read_log(directory.path()))
    });
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains("io_uring"), "{log}");
}

#[test]
fn portable_warns_about_nothing() {
    let server = Start::with_config(&config("[client]\ninsecure = true\n"))
        .reactor("portable")
        .run();
    assert_eq!(server.reactor, "portable");
    assert!(!server.log().contains("\"WARN\""), "{}", server.log());
}
