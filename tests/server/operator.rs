//! Commands for whoever operates a proxy: what is wrong with it, what a maintainer asks for, what a shell completes.

use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::client::Client;
use crate::support::process::{Server, Start, config, signal};
use crate::support::token::{after, sign};
use crate::support::wait;

/// The binary in a directory of its own.
fn ringmain(directory: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringmain"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("RINGMAIN_")) {
        command.env_remove(name);
    }
    command
        .args(arguments)
        .current_dir(directory)
        .stdin(Stdio::null());
    command
}

fn output(mut command: Command) -> Output {
    command.output().expect("the binary starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("text")
}

/// The doctor's findings about a server.
fn examined(server: &Server) -> (Option<i32>, Vec<Value>) {
    let admin = server.admin.to_string();
    let output = output(ringmain(
        &server.directory(),
        &["doctor", "--json", "--address", &admin],
    ));
    let said: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", text(&output.stderr)));
    let findings = said["findings"].as_array().expect("findings").clone();
    let problems = findings.iter().filter(|one| one["state"] == "problem");
    assert_eq!(said["problems"], problems.count());
    (output.status.code(), findings)
}

fn about<'a>(findings: &'a [Value], subject: &str) -> Vec<&'a Value> {
    let its = |one: &&Value| one["subject"] == subject;
    findings.iter().filter(its).collect()
}

const DURABLE: &str = r#"
[client]
insecure = true

[durable.embedded]
directory = "events"

[[channel.namespaces]]
name = "orders"
delivery = "durable"
"#;

#[test]
fn doctor_reads_the_running_proxy_and_the_host_in_one_list() {
    let server = Start::with_config(&config(DURABLE)).shards(2).run();
    let (_, findings) = examined(&server);
    assert_eq!(about(&findings, "kernel").len(), 1, "{findings:#?}");
    let running = about(&findings, "running proxy");
    assert_eq!(running[0]["state"], "fine", "{running:?}");
    let found = running[0]["found"].as_str().expect("text");
    let reactor = format!("reactor {}", server.reactor);
    assert!(
        found.starts_with("serving") && found.contains(&reactor),
        "{found}"
    );
    assert_eq!(about(&findings, "durable log")[0]["state"], "fine");
    let lines = output(ringmain(
        &server.directory(),
        &["doctor", "--address", &server.admin.to_string()],
    ));
    let lines = text(&lines.stdout);
    assert!(lines.contains("fine     running proxy: serving"), "{lines}");
    let kernel = lines
        .find("ListenOverflows")
        .expect("what the kernel dropped");
    assert!(lines[kernel..].contains("none"), "{lines}");
}

#[test]
fn doctor_names_a_group_that_nobody_serves_and_its_dead_letters() {
    let server = Server::start(&config(DURABLE));
    let fetch = json!({ "group": "billing", "channels": ["orders:*"], "max_attempts": 1, "limit": 1, "wait_ms": 5000 });
    for n in 0..3 {
        server.api_result("publish", &json!({ "channel": "orders:1", "data": n }));
    }
    let fetched = server.api_result("queue/fetch", &fetch);
    let delivery = &fetched["deliveries"][0]["delivery"];
    server.api_result(
        "queue/nak",
        &json!({ "delivery": delivery, "reason": "broken" }),
    );
    let group = wait::until("the doctor to see it", || {
        let (status, findings) = examined(&server);
        let group: Vec<Value> = about(&findings, "queue group billing")
            .into_iter()
            .cloned()
            .collect();
        (group.len() == 2).then_some((status, group))
    });
    let (status, group) = group;
    assert_eq!(status, Some(1), "something is wrong: {group:?}");
    let said = |state: &str| {
        let one = group.iter().find(|one| one["state"] == state);
        one.unwrap_or_else(|| panic!("{group:?}")).to_string()
    };
    assert!(said("problem").contains("nobody takes any"));
    assert!(said("advice").contains("ringmain dlq list --group billing"));
}

#[test]
fn doctor_says_that_nobody_answers_and_whoever_named_a_proxy_gets_a_problem() {
    let directory = TempDir::new().expect("a directory");
    let nowhere = crate::support::process::free_port().to_string();
    let asked = output(ringmain(
        directory.path(),
        &["doctor", "--address", &nowhere],
    ));
    let said = text(&asked.stdout);
    assert_eq!(asked.status.code(), Some(1), "{said}");
    let line = said.lines().last().expect("a line");
    assert!(line.starts_with("problem  running proxy"), "{said}");
    assert!(said.contains(&nowhere), "{said}");
    let host = output(ringmain(directory.path(), &["doctor", "--host-only"]));
    assert!(!text(&host.stdout).contains("running proxy"));
}

#[test]
fn doctor_sees_a_shard_and_a_reload_that_fail() {
    let server = Start::with_config(&config(DURABLE)).run();
    server.write_config(&config("[client]\nchanel_limit = 3\n"));
    server.signal("HUP");
    wait::until("the refusal", || {
        server.log().contains("reload refused").then_some(())
    });
    server.write_config(&config(DURABLE));
    let (status, findings) = examined(&server);
    assert_eq!(status, Some(1));
    assert_eq!(about(&findings, "last reload")[0]["state"], "problem");
}

/// One of each kind, none of which may be found in a bundle.
const PLANTED: [&str; 9] = [
    "planted-token-secret",
    "planted-api-key",
    "planted-admin-key",
    "planted-nats-password",
    "planted-header-value",
    "planted-query-value",
    "planted-in-environment",
    "planted-on-command-line",
    "planted-previous-secret",
];

fn planted() -> String {
    r#"
[http_api]
key = "planted-api-key"
[admin]
key = "planted-admin-key"
[client.token]
hmac_secret_key = "planted-token-secret"
hmac_previous_secret_key = "planted-previous-secret"
[durable.nats]
user = "edge"
password = "planted-nats-password"
[[proxies]]
name = "auth"
endpoint = "http://127.0.0.1:1/hook?key=planted-query-value"
[proxies.http.static_headers]
Authorization = "Bearer planted-header-value"
"#
    .to_owned()
}

/// The files of an archive.
fn unpacked(path: &Path) -> Vec<(String, String)> {
    let file = std::fs::File::open(path).expect("the bundle");
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(file));
    let entries = archive.entries().expect("entries");
    entries
        .map(|entry| {
            let mut entry = entry.expect("an entry");
            let name = entry.path().expect("a name").display().to_string();
            let mut text = String::new();
            entry.read_to_string(&mut text).expect("text");
            (name, text)
        })
        .collect()
}

#[test]
fn support_bundle_has_what_a_maintainer_wants_and_no_secret() {
    let server = Server::start(&planted());
    let directory = server.directory();
    let log = directory.join("proxy.log");
    let token = sign(&json!({ "sub": "7", "exp": after(600) }));
    let lines = format!(
        "connected with planted-api-key\nnats://user:planted-nats-password@host\ntoken {token}\n{{\"h\":\"Bearer planted-header-value\"}}\n"
    );
    std::fs::write(&log, lines).expect("a log");
    let bundle = directory.join("bundle.tar.gz");
    let admin = server.admin.to_string();
    let mut command = ringmain(
        &directory,
        &[
            "support-bundle",
            "--yes",
            "--address",
            &admin,
            "--log",
            "proxy.log",
            "--output",
            "bundle.tar.gz",
        ],
    );
    command
        .env(
            "RINGMAIN__CLIENT__TOKEN__HMAC_PREVIOUS_SECRET_KEY",
            "planted-in-environment",
        )
        .env("SOME_SECRET", "planted-in-environment")
        .env("RINGMAIN_ADMIN_KEY", "planted-on-command-line");
    let output = output(command);
    let listed = text(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{listed}");
    let mode = std::fs::metadata(&bundle)
        .expect("the bundle")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    let files = unpacked(&bundle);
    for (name, text) in &files {
        for secret in PLANTED {
            assert!(!text.contains(secret), "{name} has {secret}");
        }
        assert!(!text.contains(&token), "{name} has a token");
        let name = name
            .strip_prefix("ringmain-support/")
            .expect("its directory");
        let line = listed
            .lines()
            .find(|line| line.contains(name))
            .expect("it is listed");
        assert!(line.contains(&format!(" {} bytes", text.len())), "{line}");
    }
    let of = |name: &str| {
        let found = files.iter().find(|(path, _)| path.ends_with(name));
        &found.unwrap_or_else(|| panic!("no {name}")).1
    };
    assert!(of("about.txt").contains(env!("CARGO_PKG_VERSION")));
    assert!(of("configuration.toml").contains("hmac_secret_key = \"***\""));
    assert!(of("metrics.txt").contains("ringmain_connections"));
    assert!(of("ready.json").contains("\"phase\":\"serving\""));
    assert!(of("doctor.txt").contains("running proxy"));
    assert!(of("host.txt").contains("Max open files"));
    assert!(of("host.txt").contains(&format!("/proc/{}/limits", server.pid())));
    assert!(of("environment.txt").contains("SOME_SECRET"));
    assert!(of("log.txt").contains("connected with ***"));
}

#[test]
fn support_bundle_is_written_only_after_a_yes() {
    let directory = TempDir::new().expect("a directory");
    std::fs::write(directory.path().join("ringmain.toml"), config("")).expect("a file");
    for (answer, written) in [("", false), ("no\n", false), ("y\n", true)] {
        let mut command = ringmain(directory.path(), &["support-bundle", "--output", "b"]);
        let mut child = command
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let mut input = child.stdin.take().expect("its input");
        std::io::Write::write_all(&mut input, answer.as_bytes()).expect("taken");
        drop(input);
        let output = child.wait_with_output().expect("an end");
        let said = text(&output.stderr);
        assert!(
            said.contains("configuration.toml"),
            "it is listed first: {said}"
        );
        let status = if written { 0 } else { 1 };
        assert_eq!(output.status.code(), Some(status), "{said}");
        assert_eq!(directory.path().join("b").exists(), written, "{said}");
    }
}

#[test]
fn token_is_checked_against_the_configuration() {
    let directory = TempDir::new().expect("a directory");
    std::fs::write(directory.path().join("ringmain.toml"), config("")).expect("a file");
    let check = |token: &str| {
        let output = output(ringmain(directory.path(), &["token", "--check", token]));
        (output.status.code(), text(&output.stdout))
    };
    let (status, said) = check(&sign(&json!({ "sub": "7", "exp": after(600) })));
    assert_eq!(status, Some(0), "{said}");
    assert!(said.starts_with("accepted: for user \"7\""), "{said}");
    let (status, said) = check(&sign(&json!({ "sub": "7", "exp": after(-600) })));
    assert_eq!(status, Some(1), "{said}");
    assert!(said.contains("expired 10 min ago"), "{said}");
    let mut piped = ringmain(directory.path(), &["token", "--check", "-"]);
    let mut child = piped
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    let mut input = child.stdin.take().expect("its input");
    std::io::Write::write_all(&mut input, b"not a token\n").expect("taken");
    drop(input);
    let refused = child.wait_with_output().expect("an end");
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused.stdout).contains("1 parts between dots"));
    let made = output(ringmain(
        directory.path(),
        &["token", "--user", "9", "--channel", "news"],
    ));
    let made = text(&made.stdout);
    let (status, said) = check(made.trim());
    assert_eq!(status, Some(0), "{said}");
    assert!(said.contains("to subscribe to \"news\""), "{said}");
}

#[test]
fn bash_completes_commands_and_options() {
    let directory = TempDir::new().expect("a directory");
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = output(ringmain(directory.path(), &["completions", shell]));
        assert!(
            script.status.success() && script.stdout.len() > 1000,
            "{shell}"
        );
        std::fs::write(directory.path().join(shell), script.stdout).expect("a file");
    }
    let bash = |script: &str| {
        let output = Command::new("bash")
            .args(["--norc", "-c", script])
            .current_dir(directory.path())
            .output()
            .expect("bash");
        (
            output.status.success(),
            text(&output.stdout),
            text(&output.stderr),
        )
    };
    let (is_read, _, said) = bash("bash -n bash");
    assert!(is_read, "{said}");
    let completed = |words: &str, at: usize, word: &str| {
        let script = format!(
            "source ./bash; COMP_WORDS=({words} {word}); COMP_CWORD={at}; _ringmain ringmain '{word}' \"${{COMP_WORDS[{at}-1]}}\"; printf '%s\\n' \"${{COMPREPLY[@]}}\""
        );
        let (_, out, said) = bash(&script);
        assert!(said.is_empty(), "{said}");
        out.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(completed("ringmain", 1, "che"), ["check"]);
    assert!(completed("ringmain token", 2, "--exp").contains(&"--expire".to_owned()));
}

#[test]
fn manual_is_written_whole_and_read_by_man() {
    let directory = TempDir::new().expect("a directory");
    let written = output(ringmain(directory.path(), &["man", "--output", "pages"]));
    assert!(written.status.success(), "{}", text(&written.stderr));
    for page in [
        "ringmain.1",
        "ringmain-check.1",
        "ringmain-dlq-list.1",
        "ringmain.toml.5",
    ] {
        let path = directory.path().join("pages").join(page);
        let page = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{page}: {error}"));
        assert!(page.contains(".TH"), "{page}");
    }
    for page in std::fs::read_dir(directory.path().join("pages")).expect("pages") {
        let read = Command::new("groff")
            .args(["-k", "-man", "-ww", "-Tutf8", "-z"])
            .arg(page.expect("a page").path())
            .env("LC_ALL", "C.UTF-8")
            .output()
            .expect("groff; the package is groff-base");
        assert_eq!(text(&read.stderr), "");
    }
    let one = output(ringmain(directory.path(), &["man", "token"]));
    assert!(text(&one.stdout).contains("\\-\\-expire"));
    let none = output(ringmain(directory.path(), &["man", "nonsense"]));
    assert_eq!(none.status.code(), Some(2));
}

#[test]
fn log_says_what_operators_and_groups_do() {
    let server = Server::start(&config(DURABLE));
    assert!(server.log().contains("the durable log is open"));
    let token = sign(&json!({ "sub": "w", "exp": after(600), "consume": { "*": ["orders:*"] } }));
    drop(Client::with_token(&server, &token));
    let fetch = json!({ "group": "billing", "channels": ["orders:*"], "max_attempts": 1, "limit": 1, "wait_ms": 5000 });
    server.api_result("publish", &json!({ "channel": "orders:1", "data": 1 }));
    let says = |words: &str| {
        wait::until(words, || {
            let log = server.log();
            log.lines()
                .find(|line| line.contains(words))
                .map(str::to_owned)
        })
    };
    for (method, words) in [
        ("dlq/retry", "dead letters are given back"),
        ("dlq/drop", "dead letters are dropped"),
    ] {
        let fetched = server.api_result("queue/fetch", &fetch);
        let delivery = &fetched["deliveries"][0]["delivery"];
        server.api_result(
            "queue/nak",
            &json!({ "delivery": delivery, "reason": "broken" }),
        );
        let letter = says("a publication became a dead letter");
        assert!(
            letter.contains("billing") && !letter.contains("broken"),
            "{letter}"
        );
        wait::until("the letter", || {
            let all = json!({ "group": "billing", "all": true });
            let answer = server.api(method, &all);
            let count = &answer["result"];
            (count["retried"] == 1 || count["dropped"] == 1).then_some(())
        });
        assert!(says(words).contains("billing"));
    }
    server.api_result("queue/delete", &json!({ "group": "billing" }));
    says("a queue group is deleted");
    says("a queue group is made");
    signal(server.pid(), "TERM");
}
