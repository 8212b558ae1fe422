//! The workers of docs/workers.md do what that page says of them. The code is the page's own.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use serde_json::{Value, json};

use crate::support::process::{API_KEY, Server, config, guard, signal};
use crate::support::wait::until;

const RULES: &str = "[[channel.namespaces]]\nname = \"orders\"\ndelivery = \"durable\"\n";
const ACK_WAIT_MS: u64 = 1500;
const ALL: usize = 20;

/// The block of this language.
fn code(language: &str) -> String {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/workers.md");
    let page = fs::read_to_string(page).expect("the page");
    let begin = format!("```{language}\n");
    let (_, rest) = page.split_once(&begin).expect("a block");
    rest.split_once("```\n").expect("its end").0.to_owned()
}

struct Worker {
    child: Child,
    guard: Child,
}

impl Worker {
    fn start(command: &[String], server: &Server, effects: &Path) -> Self {
        let child = Command::new(&command[0])
            .args(&command[1..])
            .env("RINGMAIN_URL", format!("http://{}", server.listen))
            .env("RINGMAIN_API_KEY", API_KEY)
            .env("ACK_WAIT_MS", ACK_WAIT_MS.to_string())
            .env("EFFECTS", effects)
            .spawn()
            .expect("it starts");
        let guard = guard(child.id());
        Self { child, guard }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        for child in [&mut self.guard, &mut self.child] {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn effects_in(directory: &Path) -> BTreeSet<String> {
    let Ok(files) = fs::read_dir(directory) else {
        return BTreeSet::new();
    };
    let name = |file: std::io::Result<fs::DirEntry>| {
        file.expect("a file")
            .file_name()
            .into_string()
            .expect("a name")
    };
    files.map(name).filter(|name| !name.contains('.')).collect()
}

fn group(server: &Server) -> Value {
    let groups = server.api_result("queue/groups", &json!({}));
    groups["groups"][0].clone()
}

/// Slow work is not given to somebody else, a kill loses and doubles nothing, SIGTERM ends it with nothing under way.
fn keeps_its_promises(command: &[String]) {
    let server = Server::start(&config(RULES));
    let place = tempfile::tempdir().expect("a directory");
    let effects = place.path().join("effects");
    let publish = |ms: u64| {
        let one = json!({ "channel": "orders:1", "data": { "ms": ms } });
        let answer = server.api_result("publish", &one);
        answer["event_id"].as_str().expect("an event id").to_owned()
    };
    // Three leases long.
    let slow = publish(3 * ACK_WAIT_MS);
    let mut events: BTreeSet<String> = (1..ALL).map(|_| publish(20)).collect();
    events.insert(slow.clone());
    let first = Worker::start(command, &server, &effects);
    until("the slow one", || {
        effects_in(&effects).contains(&slow).then_some(())
    });
    assert_eq!(group(&server)["redelivered"], 0, "{}", group(&server));
    until("some more", || {
        (effects_in(&effects).len() > 3).then_some(())
    });
    signal(first.child.id(), "KILL");
    drop(first);

    let mut second = Worker::start(command, &server, &effects);
    until("all to be done", || {
        let state = group(&server);
        (state["lag"] == 0 && state["in_flight"] == 0).then_some(())
    });
    assert_eq!(effects_in(&effects), events, "each once");
    for event in &events {
        let text = fs::read_to_string(effects.join(event)).expect("an effect");
        let effect: Value = serde_json::from_str(&text).expect("whole");
        assert!(effect["done"]["ms"].is_u64(), "{effect}");
    }

    let last = publish(ACK_WAIT_MS);
    until("the last one to be taken", || {
        (group(&server)["in_flight"] == 1).then_some(())
    });
    signal(second.child.id(), "TERM");
    let status = until("its end", || second.child.try_wait().expect("asked"));
    assert_eq!(status.code(), Some(0));
    assert!(
        effects_in(&effects).contains(&last),
        "what it had is finished"
    );
    until("nothing to be left", || {
        let state = group(&server);
        (state["lag"] == 0 && state["in_flight"] == 0).then_some(())
    });
}

fn written(directory: &Path, name: &str, language: &str) -> PathBuf {
    let path = directory.join(name);
    fs::write(&path, code(language)).expect("written");
    path
}

fn text(path: &Path) -> String {
    path.to_str().expect("UTF-8").to_owned()
}

#[test]
fn worker_in_python_extends_stops_gently_and_neither_loses_nor_doubles() {
    let place = tempfile::tempdir().expect("a directory");
    let worker = written(place.path(), "worker.py", "python");
    keeps_its_promises(&["python3".to_owned(), text(&worker)]);
}

#[test]
fn worker_in_javascript_extends_stops_gently_and_neither_loses_nor_doubles() {
    let place = tempfile::tempdir().expect("a directory");
    let worker = written(place.path(), "worker.mjs", "js");
    keeps_its_promises(&["node".to_owned(), text(&worker)]);
}

#[test]
fn worker_in_go_extends_stops_gently_and_neither_loses_nor_doubles() {
    let place = tempfile::tempdir().expect("a directory");
    let worker = written(place.path(), "worker.go", "go");
    let program = text(&place.path().join("worker"));
    let built = Command::new("go")
        .args(["build", "-o", &program, &text(&worker)])
        .status();
    assert!(built.expect("go").success(), "it compiles");
    keeps_its_promises(&[program]);
}
