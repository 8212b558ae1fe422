//! `ringmain check` and wrong usage: what is printed, and with which status the process ends.

use tempfile::TempDir;

use crate::support::client::Client;
use crate::support::process::{Server, binary, config, read_log};

/// Runs the binary with a configuration file; the status and everything printed.
fn run(arguments: &[&str], config: &str) -> (Option<i32>, String) {
    let directory = TempDir::new().expect("a directory");
    std::fs::write(directory.path().join("ringmain.toml"), config).expect("the file");
    let status = binary(directory.path())
        .args(arguments)
        .status()
        .expect("the binary starts");
    (status.code(), read_log(directory.path()))
}

#[test]
fn check_prints_the_effective_configuration_without_secrets() {
    let (status, printed) = run(&["check"], &config("[client]\nchannel_limit = 77\n"));
    assert_eq!(status, Some(0), "{printed}");
    assert!(printed.contains("channel_limit = 77"), "{printed}");
    assert!(
        printed.contains("stale_close_delay = \"10s\""),
        "defaults too: {printed}"
    );
    assert!(
        !printed.contains("token-secret-of-the-tests") && !printed.contains("api-key-of-the-tests"),
        "{printed}"
    );
}

#[test]
fn unknown_key_is_refused_with_file_line_and_the_nearest_name() {
    for command in [&["check"][..], &["serve"], &[]] {
        let (status, printed) = run(command, "[client]\nchanel_limit = 77\n");
        assert_eq!(status, Some(2), "{command:?}: {printed}");
        assert!(printed.contains("ringmain.toml:2"), "{printed}");
        assert!(
            printed.contains("chanel_limit") && printed.contains("channel_limit"),
            "{printed}"
        );
    }
}

#[test]
fn wrong_usage_ends_with_status_2() {
    for arguments in [
        &["--never"][..],
        &["never"],
        &["--shards", "x"],
        &["--shards", "65"],
        &["--config", "/nowhere.toml"],
    ] {
        let (status, printed) = run(arguments, "");
        assert_eq!(status, Some(2), "{arguments:?}: {printed}");
    }
}

#[test]
fn token_that_the_program_prints_is_accepted_by_it() {
    let (status, printed) = run(&["token", "--user", "ada"], &config(""));
    assert_eq!(status, Some(0), "{printed}");
    let token = printed
        .split_whitespace()
        .find(|word| word.starts_with("ey"))
        .expect("a token");
    let server = Server::start(&config(""));
    let client = Client::with_token(&server, token);
    assert_eq!(client.connected["expires"], true);
}
