//! `ringmain health`, by which a container without a shell is asked how it does.

use std::path::Path;

use crate::support::client::Client;
use crate::support::process::{Server, Start, binary, config, free_port, read_log, signal};
use crate::support::wait;

/// Runs it with this configuration and these arguments; its status and what it printed.
fn ask(config: &str, arguments: &[&str]) -> (Option<i32>, String) {
    let directory = tempfile::tempdir().expect("a directory");
    std::fs::write(directory.path().join("ringmain.toml"), config).expect("the file");
    let status = binary(directory.path())
        .arg("health")
        .args(arguments)
        .status()
        .expect("the binary starts");
    (status.code(), read_log(directory.path()))
}

fn admin_of(server: &Server) -> String {
    format!("[admin]\nlisten = \"{}\"\n", server.admin)
}

#[test]
fn configured_admin_listener_is_asked_and_the_status_says_what_it_answers() {
    let server = Server::start(&config("[drain]\nwindow = \"20s\"\nnotice = \"0s\"\n"));
    let configured = admin_of(&server);
    for arguments in [&[][..], &["--ready"]] {
        let (status, printed) = ask(&configured, arguments);
        assert_eq!(status, Some(0), "{arguments:?}: {printed}");
    }
    // Somebody has to be there for the drain to last.
    let client = Client::user(&server, "u");
    server.signal("TERM");
    let printed = wait::until("/ready to turn", || {
        let (status, printed) = ask(&configured, &["--ready"]);
        (status == Some(1)).then_some(printed)
    });
    assert!(printed.contains("/ready: 503"), "{printed}");
    let (status, printed) = ask(&configured, &[]);
    assert_eq!(status, Some(0), "it still runs: {printed}");
    drop(client);
}

#[test]
fn internal_listener_is_asked_where_there_is_no_admin_listener_and_any_that_is_named() {
    let text = config("[server]\ninternal_listen = [\"127.0.0.1:0\"]\n");
    let server = Server::start(&text);
    let configured = format!(
        "[admin]\nlisten = \"\"\n[server]\ninternal_listen = [\"{}\"]\n",
        server.internal
    );
    let (status, printed) = ask(&configured, &["--ready"]);
    assert_eq!(status, Some(0), "{printed}");
    let (status, printed) = ask("", &["--ready", "--address", &server.admin.to_string()]);
    assert_eq!(status, Some(0), "{printed}");
    let (status, printed) = ask("[admin]\nlisten = \"\"\n", &[]);
    assert_eq!(status, Some(2), "{printed}");
    assert!(printed.contains("--address"), "{printed}");
}

#[test]
fn unix_socket_of_the_admin_listener_is_asked_too() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("admin.sock");
    let listen = format!("unix:{}", path.display());
    let _server = Start::with_config(&config(""))
        .env("RINGMAIN__ADMIN__LISTEN", &listen)
        .run();
    let (status, printed) = ask(&format!("[admin]\nlisten = \"{listen}\"\n"), &["--ready"]);
    assert_eq!(status, Some(0), "{printed}");
    assert!(Path::new(&path).exists());
}

#[test]
fn nobody_there_and_somebody_who_does_not_answer_are_status_1_with_the_reason() {
    let nobody = free_port().to_string();
    let (status, printed) = ask("", &["--address", &nobody]);
    assert_eq!(status, Some(1), "{printed}");
    assert!(printed.contains("cannot reach"), "{printed}");
    let server = Server::start(&config(""));
    signal(server.pid(), "STOP");
    let (status, printed) = ask(&admin_of(&server), &[]);
    signal(server.pid(), "CONT");
    assert_eq!(status, Some(1), "{printed}");
    assert!(printed.contains("no answer came within 5 s"), "{printed}");
}
