//! `ringmain` with no configuration: a stranger reaches a delivered publication.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::client::{Client, PATH, upgrade};
use crate::support::http::Http;
use crate::support::process::{binary, guard, reactor_under_test, read_log};
use crate::support::wait;

/// The process in a directory without a configuration, and what it printed.
struct FirstRun {
    child: Child,
    guard: Child,
    printed: String,
}

impl FirstRun {
    fn start(directory: &Path) -> Self {
        let mut command = binary(directory);
        command.args([
            "--listen",
            "127.0.0.1:0",
            "--admin",
            "127.0.0.1:0",
            "--reactor",
            &reactor_under_test(),
        ]);
        let child = command.spawn().expect("the binary starts");
        let guard = guard(child.id());
        let printed = wait::until("the welcome", || {
            let log = read_log(directory);
            (log.contains("curl ") && log.ends_with('\n')).then_some(log)
        });
        Self {
            child,
            guard,
            printed,
        }
    }

    /// The first word with this beginning.
    fn word(&self, start: &str) -> &str {
        let found = self
            .printed
            .split_whitespace()
            .find(|word| word.starts_with(start));
        found.unwrap_or_else(|| panic!("{start} is printed: {}", self.printed))
    }

    fn curl(&self) -> &str {
        self.printed
            .lines()
            .map(str::trim)
            .find(|line| line.starts_with("curl "))
            .expect("a curl line")
    }

    fn address(&self) -> SocketAddr {
        let url = self.word("http://");
        let end = url[7..].find('/').map_or(url.len(), |at| at + 7);
        url[7..end].parse().expect("an address")
    }
}

impl Drop for FirstRun {
    fn drop(&mut self) {
        for child in [&mut self.guard, &mut self.child] {
            if child.kill().is_ok() {
                let ended = child.wait();
                debug_assert!(ended.is_ok(), "a killed child can be awaited");
            }
        }
    }
}

#[test]
fn first_run_prints_url_token_and_a_curl_line_that_work() {
    let directory = TempDir::new().expect("a directory");
    let run = FirstRun::start(directory.path());
    let page = Http::open(run.address()).get("/", &[]);
    assert_eq!(page.status, 200);
    assert!(
        page.header("content-type")
            .is_some_and(|kind| kind.starts_with("text/html"))
    );
    for id in ["status", "publish-form", "messages", "presence", "latency"] {
        assert!(
            page.text().contains(&format!("id=\"{id}\"")),
            "the page has #{id}"
        );
    }
    assert!(
        run.word("http://").contains(run.word("ey")),
        "the URL carries the token"
    );

    let token = run.word("ey");
    let mut client =
        Client::over(upgrade(run.address(), PATH, &[])).connect(&json!({ "token": token }));
    let body: Value = {
        let start = run.curl().find("'{").expect("a body") + 1;
        let end = run.curl()[start..].find('\'').expect("a body") + start;
        serde_json::from_str(&run.curl()[start..end]).expect("JSON")
    };
    let channel = body["channel"].as_str().expect("a channel").to_owned();
    client.subscribe(&channel);
    let answer = Command::new("sh")
        .args(["-c", &format!("{} -s", run.curl())])
        .output()
        .expect("curl is installed");
    let answer: Value = serde_json::from_slice(&answer.stdout).expect("JSON");
    assert!(answer["result"].is_object(), "{answer}");
    let push = loop {
        let push = client.push();
        if push.get("join").is_none() {
            break push;
        }
    };
    assert_eq!(push["pub"]["data"], body["data"]);
}

#[test]
fn first_run_is_safe_and_keeps_its_secrets() {
    let directory = TempDir::new().expect("a directory");
    let run = FirstRun::start(directory.path());
    assert!(run.address().ip().is_loopback());
    assert_eq!(
        Http::open(run.address())
            .post("/api/info", &[], b"{}")
            .status,
        401
    );
    let mut client = Client::over(upgrade(run.address(), PATH, &[]));
    client.send("connect", &json!({}));
    client.ends_with(3501);
    let token = run.word("ey").to_owned();
    let key = run.curl().to_owned();
    drop(run);

    let data = directory.path().join("ringmain-data");
    for entry in std::fs::read_dir(&data).expect("the data directory") {
        let entry = entry.expect("an entry");
        let mode = entry.metadata().expect("metadata").permissions().mode();
        assert_eq!(mode & 0o077, 0, "{:?} is the owner's alone", entry.path());
    }
    let again = FirstRun::start(directory.path());
    let client =
        Client::over(upgrade(again.address(), PATH, &[])).connect(&json!({ "token": token }));
    assert!(
        !client.id.is_empty(),
        "the secrets of the first run are used again"
    );
    let key_of = |line: &str| {
        line.split("X-API-Key: ")
            .nth(1)
            .and_then(|rest| rest.split('\'').next())
            .map(str::to_owned)
    };
    assert_eq!(key_of(again.curl()), key_of(&key));
}

#[test]
fn page_of_another_origin_may_not_connect() {
    let directory = TempDir::new().expect("a directory");
    let run = FirstRun::start(directory.path());
    let origin = format!("http://{}", run.address());
    let status = |origin: &str| {
        let stream = crate::support::client::tcp(run.address());
        crate::support::client::upgrade_over(stream, PATH, &[("Origin", origin)])
            .map_or_else(|status| status, |_| 101)
    };
    assert_eq!(status(&origin), 101);
    assert_eq!(status("https://evil.example.com"), 403);
    assert_eq!(status("null"), 403);
}

#[test]
fn environment_alone_is_production_and_never_the_development_set_up() {
    let directory = TempDir::new().expect("a directory");
    let ready = directory.path().join("ready.json");
    let mut command = binary(directory.path());
    command
        .args(["--reactor", &reactor_under_test(), "--ready-file"])
        .arg(&ready)
        .envs([
            ("RINGMAIN__HTTP_API__KEY", "api-key-of-the-tests"),
            ("RINGMAIN__SERVER__LISTEN", "127.0.0.1:0"),
            ("RINGMAIN__ADMIN__LISTEN", "127.0.0.1:0"),
            (
                "RINGMAIN__CHANNEL__NAMESPACES",
                r#"[{ name = "chat", history_size = 1, history_ttl = "1m" }]"#,
            ),
        ]);
    let child = command.spawn().expect("the binary starts");
    let guard = guard(child.id());
    let said = wait::until("the ready file", || {
        let text = std::fs::read_to_string(&ready).ok()?;
        serde_json::from_str::<Value>(&text).ok()
    });
    let run = FirstRun {
        child,
        guard,
        printed: read_log(directory.path()),
    };
    let address: SocketAddr = said["listen"][0]
        .as_str()
        .and_then(|text| text.parse().ok())
        .expect("an address");
    for secret in ["curl", "development", "token=", "api-key-of-the-tests"] {
        assert!(!run.printed.contains(secret), "{secret}: {}", run.printed);
    }
    assert!(
        !directory.path().join("ringmain-data").exists(),
        "nothing is generated"
    );
    let publish = |key: &str| {
        let body = br#"{"channel":"chat:1","data":{}}"#;
        let headers = [("X-API-Key", key)];
        let mut http = Http::open(address);
        http.post("/api/publish", &headers, body)
    };
    assert_eq!(publish("wrong").status, 401);
    let answer = publish("api-key-of-the-tests");
    assert_eq!(answer.json()["result"]["offset"], 1, "{}", answer.text());
    // What is open to everybody in the development set-up is not here.
    let body = br#"{"channel":"lobby","data":{}}"#;
    let answer = Http::open(address).post(
        "/api/publish",
        &[("X-API-Key", "api-key-of-the-tests")],
        body,
    );
    assert_eq!(
        answer.json()["result"].get("offset"),
        None,
        "{}",
        answer.text()
    );
    let mut client = Client::over(upgrade(address, PATH, &[]));
    client.send("connect", &json!({}));
    client.ends_with(3501);
}

#[test]
fn any_key_in_the_environment_ends_the_development_set_up() {
    for (name, text) in [
        ("RINGMAIN__LOG__LEVEL", "info"),
        ("RINGMAIN__SERVER__SHARDS", "1"),
    ] {
        let directory = TempDir::new().expect("a directory");
        let status = binary(directory.path())
            .arg("check")
            .env(name, text)
            .status()
            .expect("the binary starts");
        let printed = read_log(directory.path());
        assert!(status.success(), "{printed}");
        assert!(
            printed.contains("1 variable of the environment: fine"),
            "{printed}"
        );
        assert!(!directory.path().join("ringmain-data").exists());
    }
}

#[test]
fn development_set_up_is_not_served_to_the_network() {
    for arguments in [
        ["--listen", "0.0.0.0:0"],
        ["--listen", "[::]:0"],
        ["--listen", "192.0.2.1:8000"],
        ["--admin", "0.0.0.0:0"],
    ] {
        let directory = TempDir::new().expect("a directory");
        let status = binary(directory.path())
            .args(arguments)
            .status()
            .expect("the binary starts");
        let said = read_log(directory.path());
        assert_eq!(status.code(), Some(2), "{arguments:?}: {said}");
        assert!(
            said.contains("ringmain.toml") && said.contains(arguments[1]),
            "{said}"
        );
        assert!(
            !directory.path().join("ringmain-data").exists(),
            "nothing is made"
        );
    }
}
