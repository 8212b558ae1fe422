//! The command as an operator uses it: what goes where, with which status, and a proxy that serves with the output.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::json;
use tempfile::TempDir;

use crate::keys::vector;
use crate::support::client::Client;
use crate::support::process::{Start, binary, read_log};
use crate::support::token;

/// What a run of the importer left.
pub(crate) struct Ran {
    pub(crate) status: Option<i32>,
    pub(crate) output: String,
    pub(crate) errors: String,
}

fn command(directory: &Path) -> Command {
    let mut command = binary(directory);
    command.current_dir(directory).arg("import-centrifugo");
    command
}

fn finish(mut command: Command) -> Ran {
    let done = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .output()
        .expect("the binary starts");
    Ran {
        status: done.status.code(),
        output: String::from_utf8_lossy(&done.stdout).into_owned(),
        errors: String::from_utf8_lossy(&done.stderr).into_owned(),
    }
}

/// Imports a file of this name with these bytes.
pub(crate) fn run_with(
    name: &str,
    bytes: &[u8],
    arguments: &[&str],
    variables: &[(&str, &str)],
) -> Ran {
    let directory = TempDir::new().expect("a directory");
    std::fs::write(directory.path().join(name), bytes).expect("the file");
    let mut command = command(directory.path());
    command.arg(name).args(arguments);
    command.envs(variables.iter().copied());
    finish(command)
}

#[test]
fn status_says_whether_everything_came_along() {
    for (name, status) in [
        ("small-chat.json", 0),
        ("large.yaml", 0),
        ("cluster-pro.toml", 3),
    ] {
        let ran = run_with(name, &vector(name), &[], &[]);
        assert_eq!(ran.status, Some(status), "{name}: {}", ran.errors);
        let stem = name.split('.').next().expect("a name");
        let expected = |kind| vector(&format!("{stem}.expected.{kind}"));
        assert_eq!(ran.output, String::from_utf8_lossy(&expected("toml")));
        assert_eq!(ran.errors, String::from_utf8_lossy(&expected("txt")));
    }
    let refused = br#"{"client": {"channel_limit": 1000000}, "engine": {"type": "redis"}}"#;
    let ran = run_with("refused.json", refused, &[], &[]);
    assert_eq!(ran.status, Some(3));
    assert!(ran.output.contains("[server]"), "the rest: {}", ran.output);
    assert!(
        ran.errors.contains("client.channel_limit: ") && ran.errors.contains("engine.type"),
        "{}",
        ran.errors
    );
    let directory = TempDir::new().expect("a directory");
    let mut missing = command(directory.path());
    missing.arg("nowhere.json");
    assert_eq!(finish(missing).status, Some(2));
}

#[test]
fn check_accepts_every_output_annotated_or_not() {
    for name in ["small-chat.json", "large.yaml", "cluster-pro.toml"] {
        for arguments in [&[][..], &["--annotate"]] {
            let ran = run_with(name, &vector(name), arguments, &[]);
            let directory = TempDir::new().expect("a directory");
            std::fs::write(directory.path().join("ringmain.toml"), &ran.output).expect("the file");
            let status = binary(directory.path())
                .arg("check")
                .status()
                .expect("the binary starts");
            assert!(status.success(), "{name}: {}", read_log(directory.path()));
            if let [_] = arguments {
                for line in ran.errors.lines() {
                    assert!(ran.output.contains(&format!("# {line}")), "{line}");
                }
            }
        }
    }
}

#[test]
fn output_file_is_private_and_not_overwritten_by_chance() {
    let directory = TempDir::new().expect("a directory");
    let path = directory.path().join("ringmain.toml");
    std::fs::write(directory.path().join("c.json"), vector("small-chat.json")).expect("the file");
    let import = |arguments: &[&str]| {
        let mut command = command(directory.path());
        command.args(["c.json", "--output", "ringmain.toml"]);
        command.args(arguments);
        finish(command)
    };
    let ran = import(&[]);
    assert_eq!(
        (ran.status, ran.output.as_str()),
        (Some(0), ""),
        "{}",
        ran.errors
    );
    let mode = std::fs::metadata(&path)
        .expect("the file")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600, "it holds secrets");
    std::fs::write(&path, "mine").expect("the file");
    let ran = import(&[]);
    assert_eq!(ran.status, Some(1));
    assert!(ran.errors.contains("ringmain.toml"), "{}", ran.errors);
    assert_eq!(std::fs::read_to_string(&path).expect("the file"), "mine");
    assert_eq!(import(&["--force"]).status, Some(0));
    let text = std::fs::read_to_string(&path).expect("the file");
    assert!(
        text.contains("token-secret-of-the-tests"),
        "secrets come along"
    );
}

#[test]
fn environment_alone_is_enough_and_is_not_read_unasked() {
    let directory = TempDir::new().expect("a directory");
    let variables = [
        ("CENTRIFUGO_CLIENT_CHANNEL_LIMIT", "77"),
        (
            "CENTRIFUGO_CHANNEL_NAMESPACES",
            r#"[{"name": "chat", "presence": true}]"#,
        ),
    ];
    let mut only = command(directory.path());
    only.arg("--env").envs(variables);
    let ran = finish(only);
    assert_eq!(ran.status, Some(0), "{}", ran.errors);
    assert!(
        ran.output.contains("channel_limit = 77") && ran.output.contains("name = \"chat\""),
        "{}",
        ran.output
    );
    let ran = run_with("c.json", b"{}", &[], &variables);
    assert!(!ran.output.contains("77"), "{}", ran.output);
}

#[test]
fn proxy_serves_with_what_was_imported() {
    for name in ["small-chat.json", "cluster-pro.toml"] {
        let ran = run_with(name, &vector(name), &[], &[]);
        let channel = if name == "small-chat.json" {
            "chat:1"
        } else {
            "prices:1"
        };
        let server = Start::with_config(&ran.output).run();
        let mut client = Client::with_token(&server, &token::user("anna"));
        client.subscribe(channel);
        if channel == "chat:1" {
            assert!(client.push()["join"].is_object(), "join_leave came along");
        }
        server.api_result(
            "publish",
            &json!({ "channel": channel, "data": { "text": "hello" } }),
        );
        assert_eq!(
            client.publication(channel)["data"]["text"],
            "hello",
            "{name}"
        );
    }
}

#[test]
fn options_of_the_command_line_come_along() {
    let directory = TempDir::new().expect("a directory");
    for line in [
        "centrifugo --port 9000 --health --token_hmac_secret_key s3cret",
        "centrifugo -p 9000 --health.enabled --http_api.external=false",
    ] {
        let mut command = command(directory.path());
        command.args(["--args", line]);
        let ran = finish(command);
        assert_eq!(ran.status, Some(0), "{line}: {}", ran.errors);
        assert!(ran.output.contains("0.0.0.0:9000"), "{}", ran.output);
        assert!(
            ran.output.contains("[health]\nenabled = true"),
            "{}",
            ran.output
        );
        assert_eq!(
            ran.output.contains("hmac_secret_key = \"s3cret\""),
            line.contains("s3cret")
        );
        assert!(!ran.errors.contains("s3cret"), "{}", ran.errors);
    }
    let mut wrong = command(directory.path());
    wrong.args(["--args", "'open"]);
    assert_eq!(finish(wrong).status, Some(2));
}
