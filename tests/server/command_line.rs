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
fn check_says_in_one_line_what_was_read_and_that_it_is_fine() {
    let (status, printed) = run(&["check"], &config(""));
    assert_eq!(status, Some(0), "{printed}");
    let last = printed.lines().last();
    assert_eq!(last, Some("ringmain: ringmain.toml: fine"), "{printed}");
    let odd = "[server]\nlisten = [\"unix:/nowhere/at/all.sock\"]\n[client.token]\nhmac_secret_key = \"hunter2\\n\"\n";
    let (status, printed) = run(&["check"], odd);
    assert_eq!(status, Some(0), "it may yet be made: {printed}");
    assert!(
        printed.contains("warning: server.listen: the directory /nowhere/at is not there"),
        "{printed}"
    );
    assert!(
        printed.contains("warning: client.token.hmac_secret_key ends with a line break"),
        "{printed}"
    );
    assert!(!printed.contains("hunter2"), "{printed}");
}

#[test]
fn check_refuses_what_a_start_would_refuse() {
    let (status, printed) = run(&["check"], "[server]\ncores = [4000]\n");
    assert_eq!(status, Some(2), "{printed}");
    assert!(printed.contains("server.cores"), "{printed}");
    let schema = "[[channel.namespaces]]\nname = \"safe\"\ndelivery = \"durable\"\n[[channel.namespaces.schema.versions]]\nversion = 1\njson_schema = '{ \"type\": 5 }'\n";
    let (status, printed) = run(&["check"], schema);
    assert_eq!(status, Some(2), "{printed}");
    assert!(
        printed.contains("channel.namespaces (safe).schema.versions (1).json_schema"),
        "{printed}"
    );
    let (status, printed) = run(&["check"], "[client]\nallowed_origins = [\"https://x/\"]\n");
    assert_eq!(status, Some(2), "{printed}");
    assert!(
        printed.contains("ringmain.toml:2") && printed.contains("write \"https://x\""),
        "{printed}"
    );
}

#[test]
fn commands_of_centrifugo_are_met_with_ours() {
    for (line, instead) in [
        ("genconfig", "ringmain.example.toml"),
        ("checkconfig", "ringmain check"),
        ("version", "ringmain --version"),
        ("gentoken --user 42", "ringmain token --user ID"),
        ("gensubtoken --user 42 --channel news", "--channel CHANNEL"),
        ("serve --port 9000", "--listen"),
        ("--address 0.0.0.0", "--listen"),
        ("--admin", "no web interface"),
        ("-c config.json", "--config FILE"),
    ] {
        let arguments: Vec<&str> = line.split(' ').collect();
        let (status, printed) = run(&arguments, &config(""));
        assert_eq!(status, Some(2), "{line}: {printed}");
        assert!(printed.contains(instead), "{line}: {printed}");
    }
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
