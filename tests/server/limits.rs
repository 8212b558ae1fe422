//! Limits of the system are seen before they are reached, said once, and cost no one who is connected anything.

use std::net::TcpStream;
use std::time::Duration;

use serde_json::Value;

use crate::support::client::Client;
use crate::support::http::Http;
use crate::support::process::{Server, Start, config};
use crate::support::wait;

/// Nobody is closed for saying nothing while the test runs.
const PATIENT: &str = "handshake_timeout = \"60s\"\n[client]\ninsecure = true\n";

fn warnings(server: &Server) -> Vec<String> {
    let ready = Http::open(server.admin).get("/ready", &[]);
    assert_eq!(ready.status, 200, "who is connected is served");
    let warnings = ready.json()["warnings"].as_array().cloned();
    let warnings = warnings.expect("a list");
    let text = |warning: &Value| warning.as_str().unwrap_or_default().to_owned();
    warnings.iter().map(text).collect()
}

fn open(server: &Server, count: usize) -> Vec<TcpStream> {
    (0..count)
        .map(|_| TcpStream::connect(server.listen).expect("the kernel takes it"))
        .collect()
}

fn lines(server: &Server, word: &str) -> usize {
    server
        .log()
        .lines()
        .filter(|line| line.contains(word))
        .count()
}

#[test]
fn limit_of_descriptors_is_told_before_it_is_reached_and_when_it_is_over() {
    let text = config(&format!("[server]\n{PATIENT}"));
    let server = Start::with_config(&text).descriptors(400).run();
    assert!(
        server.log().contains("RLIMIT_NOFILE is 400"),
        "{}",
        server.log()
    );
    let mut bystander = Client::anonymous(&server);
    let most = wait::until("how many fit", || {
        let most = server.metric("ringmain_connections_max");
        (most > 0.0).then_some(most)
    });
    assert!((200.0..400.0).contains(&most), "{most}");
    assert!((server.metric("process_max_fds") - 400.0).abs() < 1.0);
    let near = most as usize * 92 / 100;
    let mut crowd = open(&server, near);
    wait::until("a word before it is reached", || {
        let warnings = warnings(&server);
        warnings
            .iter()
            .find(|text| text.contains("possible connections"))
            .cloned()
    });
    assert!(server.metric("ringmain_accepting_paused") < 1.0);
    crowd.extend(open(&server, most as usize + 30 - near));
    wait::until("a pause", || {
        (server.metric("ringmain_accepting_paused") >= 1.0).then_some(())
    });
    wait::until("a word about the pause", || {
        warnings(&server)
            .iter()
            .any(|text| text.contains("paused"))
            .then_some(())
    });
    assert!(server.metric("ringmain_connections") <= most);
    // Waiting costs next to nothing, and who is connected notices nothing.
    let cpu = server.metric("process_cpu_seconds_total");
    let end = wait::now() + Duration::from_millis(600);
    while wait::now() < end {
        bystander.subscribe("news");
        bystander.ok("unsubscribe", &serde_json::json!({ "channel": "news" }));
        std::thread::park_timeout(Duration::from_millis(100));
    }
    let spent = server.metric("process_cpu_seconds_total") - cpu;
    assert!(spent < 0.3, "{spent} s of 0.6");
    let late = crowd.pop().expect("the last one");
    drop(crowd);
    wait::until("room again", || warnings(&server).is_empty().then_some(()));
    late.set_read_timeout(Some(wait::DEADLINE))
        .expect("a deadline");
    let served = Http::over(late).get("/", &[]);
    assert_eq!(served.status, 200, "who waited is served");
    for (word, count) in [
        ("possible connections", 1),
        ("room for connections again", 1),
        ("accepting goes on", 1),
    ] {
        assert_eq!(lines(&server, word), count, "{word}: {}", server.log());
    }
    assert!(server.metric("ringmain_accept_pauses_total") >= 1.0);
}

#[test]
fn full_accept_queue_is_counted_and_told() {
    let text = config(&format!(
        "[server]\nbacklog = 4\nconnections_per_shard_max = 8\n{PATIENT}"
    ));
    let server = Start::with_config(&text).run();
    let crowd = open(&server, 8);
    wait::until("a full shard", || {
        (server.metric("ringmain_accepting_paused") >= 1.0).then_some(())
    });
    let waiting: Vec<TcpStream> = (0..9)
        .filter_map(|_| TcpStream::connect_timeout(&server.listen, Duration::from_millis(50)).ok())
        .collect();
    assert!(!waiting.is_empty(), "the queue takes some");
    wait::until("a word about the queue", || {
        let warnings = warnings(&server);
        let of_queue = |text: &String| text.contains("places of an accept queue");
        warnings.iter().any(of_queue).then_some(())
    });
    wait::until("its length", || {
        (server.metric("ringmain_accept_queue") >= 4.0).then_some(())
    });
    assert!((server.metric("ringmain_accept_queue_max") - 4.0).abs() < 0.1);
    wait::until("refused connections", || {
        (server.metric("ringmain_accept_queue_dropped_total") >= 1.0).then_some(())
    });
    assert!(
        (server.metric("ringmain_connections_max") - 8.0).abs() < 0.1,
        "as configured"
    );
    drop(crowd);
    drop(waiting);
    wait::until("room again", || warnings(&server).is_empty().then_some(()));
}

#[test]
fn what_the_system_cuts_is_said_at_the_start() {
    let server = Start::with_config(&config("[server]\nbacklog = 65535\n")).run();
    let somaxconn = std::fs::read_to_string("/proc/sys/net/core/somaxconn").expect("a number");
    let is_cut = somaxconn.trim().parse::<u32>().expect("a number") < 65_535;
    assert_eq!(lines(&server, "net.core.somaxconn is"), usize::from(is_cut));
}
