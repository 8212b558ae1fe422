//! The log says who it is: what it found at the start, and that it is gone where its place is gone under a running process.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::support::http::Http;
use crate::support::process::{Server, Start, config};
use crate::support::wait::until;

fn rules(directory: &Path, more: &str) -> String {
    config(&format!(
        r#"
[durable.embedded]
directory = "{}"
{more}

[[channel.namespaces]]
name = "orders"
delivery = "durable"
"#,
        directory.display()
    ))
}

fn publish(server: &Server, channel: &str) -> Value {
    server.api("publish", &json!({ "channel": channel, "data": 1 }))
}

fn why_down(server: &Server) -> Option<String> {
    let ready = Http::open(server.admin).get("/ready", &[]).json();
    ready["durable"]["down"].as_str().map(str::to_owned)
}

/// Members of the line that says that the log is open.
fn opened(server: &Server) -> Value {
    let lines: Vec<Value> = server
        .log()
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .filter(|line: &Value| line["message"] == "the durable log is open")
        .collect();
    assert_eq!(lines.len(), 1, "one line at a start: {lines:?}");
    lines[0].clone()
}

/// From now on nothing durable is acknowledged, and `/ready` says why.
fn assert_nothing_is_stored(server: &Server, why: &str) {
    let after_the_end = publish(server, "orders:1");
    assert_eq!(after_the_end["error"]["code"], 100, "{after_the_end}");
    until("the reason", || {
        assert_eq!(publish(server, "orders:new")["error"]["code"], 100);
        why_down(server).filter(|reason| reason.contains(why))
    });
    assert_eq!(publish(server, "orders:1")["error"]["code"], 100);
}

#[test]
fn each_start_says_whether_the_log_was_made_and_what_is_in_it() {
    let place = tempfile::tempdir().expect("a directory");
    let directory = place.path().join("log");
    let mut server = Server::start(&rules(&directory, ""));
    let first = opened(&server);
    assert_eq!(
        (&first["is_new"], &first["entries"]),
        (&json!(true), &json!(0))
    );
    for _ in 0..3 {
        publish(&server, "orders:1");
    }
    server.signal("TERM");
    assert!(server.exit_status().success());
    let second = opened(&Server::start(&rules(&directory, "create = false")));
    assert_eq!(
        (&second["is_new"], &second["entries"]),
        (&json!(false), &json!(3))
    );
    assert_eq!(first["log"], second["log"]);
    assert!(
        second["oldest_unix_s"].as_u64() > Some(1_600_000_000),
        "{second}"
    );
}

#[test]
fn with_create_false_a_missing_log_is_an_error_at_the_start() {
    let place = tempfile::tempdir().expect("a directory");
    let directory = place.path().join("log");
    for is_there in [false, true] {
        if is_there {
            fs::create_dir(&directory)
                .expect("an empty directory, as an unmounted volume leaves it");
        }
        let (status, said) = Start::with_config(&rules(&directory, "create = false")).refused();
        assert_eq!(status, Some(65), "{said}");
        assert!(
            said.contains("durable.embedded.create") && said.contains("no durable log"),
            "{said}"
        );
        assert!(!directory.join("data").exists(), "nothing is made");
    }
}

#[test]
fn deleted_directory_stops_durable_publications_at_once() {
    let place = tempfile::tempdir().expect("a directory");
    let directory = place.path().join("log");
    let mut server = Server::start(&rules(&directory, ""));
    assert_eq!(publish(&server, "orders:1")["result"]["offset"], 1);
    fs::remove_dir_all(&directory).expect("deleted");
    assert_nothing_is_stored(&server, "has vanished");
    assert!(
        !directory.exists(),
        "no other log is made under a running process"
    );
    server.signal("TERM");
    assert!(server.exit_status().success());
}

#[test]
fn idle_process_notices_too_that_its_directory_is_gone() {
    let place = tempfile::tempdir().expect("a directory");
    let directory = place.path().join("log");
    let server = Server::start(&rules(&directory, ""));
    fs::remove_dir_all(&directory).expect("deleted");
    let reason = until("the reason", || why_down(&server));
    assert!(reason.contains("has vanished"), "{reason}");
}

#[test]
fn replaced_directory_is_not_written_and_the_own_one_is_taken_back() {
    let place = tempfile::tempdir().expect("a directory");
    let (directory, aside) = (place.path().join("log"), place.path().join("aside"));
    let server = Server::start(&rules(&directory, ""));
    assert_eq!(publish(&server, "orders:1")["result"]["offset"], 1);
    fs::rename(&directory, &aside).expect("moved away");
    let mut other = Server::start(&rules(&directory, ""));
    assert_eq!(publish(&other, "orders:1")["result"]["offset"], 1);
    assert_nothing_is_stored(&server, "another one is in its place");
    let history = other.api_result("history", &json!({ "channel": "orders:1", "limit": 10 }));
    assert_eq!(
        history["offset"], 1,
        "the other log has what its process wrote"
    );

    other.signal("TERM");
    other.exit_status();
    fs::remove_dir_all(&directory).expect("deleted");
    fs::rename(&aside, &directory).expect("put back");
    let stored = until("the log to come back", || {
        publish(&server, "orders:1")["result"]["offset"].as_u64()
    });
    // The publication that was refused when the directory was found missing had been written already.
    assert!((2..=3).contains(&stored), "{stored}");
}

/// Lines of a whole life, from the start to the stop, on which somebody might be called.
fn alarms(server: &mut Server) -> Vec<String> {
    server.signal("TERM");
    assert!(server.exit_status().success());
    let log = server.log();
    let is_alarm = |line: &&str| !line.contains("\"level\":\"INFO\"");
    log.lines().filter(is_alarm).map(str::to_owned).collect()
}

#[test]
fn clean_start_and_stop_with_a_log_are_nothing_to_look_at() {
    let place = tempfile::tempdir().expect("a directory");
    let directory = place.path().join("log");
    for _ in 0..2 {
        let mut server = Server::start(&rules(&directory, ""));
        assert!(publish(&server, "orders:1")["result"].is_object());
        assert_eq!(alarms(&mut server), Vec::<String>::new());
    }
}

#[cfg(feature = "nats")]
mod nats {
    use async_nats::jetstream;

    use super::*;
    use crate::nats_server::NatsServer;

    fn rules(server: &NatsServer, more: &str) -> String {
        config(&format!(
            "[durable]\nengine = \"nats\"\n[durable.nats]\nservers = [\"{}\"]\n{more}\n\
             [[channel.namespaces]]\nname = \"orders\"\ndelivery = \"durable\"\n",
            server.url()
        ))
    }

    fn run<T>(server: &NatsServer, test: impl AsyncFnOnce(jetstream::Context) -> T) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        runtime.block_on(async {
            let client = async_nats::connect(server.url()).await.expect("connected");
            test(jetstream::new(client)).await
        })
    }

    fn start(nats: &NatsServer, more: &str) -> Server {
        let server = Server::start(&rules(nats, more));
        until("the log", || {
            publish(&server, "orders:1").get("result").cloned()
        });
        server
    }

    #[test]
    fn clean_start_and_stop_with_jetstream_are_nothing_to_look_at() {
        let nats = NatsServer::start();
        for is_new in [true, false] {
            let mut server = start(&nats, "");
            let line = opened(&server);
            assert_eq!(line["is_new"], is_new);
            assert_eq!(line["oldest_unix_s"].is_u64(), !is_new, "{line}");
            assert_eq!(alarms(&mut server), Vec::<String>::new());
        }
    }

    #[test]
    fn with_create_false_no_stream_is_made_and_ready_says_so() {
        let nats = NatsServer::start();
        let server = Server::start(&rules(&nats, "create = false"));
        let reason = until("the reason", || {
            why_down(&server).filter(|reason| reason.contains("durable.nats.create"))
        });
        assert!(reason.contains("no stream RINGMAIN"), "{reason}");
        assert_eq!(publish(&server, "orders:1")["error"]["code"], 100);
        until("the line", || {
            server.log().contains("durable.nats.create").then_some(())
        });
        run(&nats, async |js| {
            assert!(js.get_stream("RINGMAIN").await.is_err(), "none is made");
        });
        drop(start(&nats, ""));
        drop(start(&nats, "create = false"));
    }

    #[test]
    fn deleted_stream_stops_durable_publications_and_another_one_is_not_taken_for_it() {
        let nats = NatsServer::start();
        let mut server = start(&nats, "");
        run(&nats, async |js| {
            let mut stream = js.get_stream("RINGMAIN").await.expect("it");
            let config = stream.info().await.expect("its state").config.clone();
            js.delete_stream("RINGMAIN").await.expect("deleted");
            assert_nothing_is_stored(&server, "stream RINGMAIN has vanished");
            assert!(
                js.get_stream("RINGMAIN").await.is_err(),
                "none is made again"
            );
            js.create_stream(config).await.expect("another one");
        });
        until("the look at it", || {
            assert_eq!(publish(&server, "orders:x")["error"]["code"], 100);
            why_down(&server).filter(|reason| reason.contains("another one is in its place"))
        });
        server.signal("TERM");
        assert!(server.exit_status().success());
        drop(start(&nats, ""));
    }

    #[test]
    fn stream_that_is_replaced_between_two_looks_gets_no_acknowledgement() {
        let nats = NatsServer::start();
        let server = start(&nats, "");
        run(&nats, async |js| {
            let mut stream = js.get_stream("RINGMAIN").await.expect("it");
            let config = stream.info().await.expect("its state").config.clone();
            js.delete_stream("RINGMAIN").await.expect("deleted");
            js.create_stream(config).await.expect("another one");
        });
        // A channel that is new: no condition of its first publication can tell one empty stream from the other.
        assert_eq!(publish(&server, "orders:first")["error"]["code"], 100);
        until("the look at it", || {
            assert_eq!(publish(&server, "orders:next")["error"]["code"], 100);
            why_down(&server).filter(|reason| reason.contains("another one is in its place"))
        });
    }
}
