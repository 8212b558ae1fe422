//! Control's own listener.

use crate::support::client::Client;
use crate::support::http::Http;
use crate::support::process::{Server, config, reactor_under_test};
use crate::support::wait;

#[test]
fn health_ready_and_metrics_are_on_the_admin_listener_only() {
    let server = Server::start(&config("[client]\ninsecure = true\n"));
    let mut admin = Http::open(server.admin);
    assert_eq!(admin.get("/health", &[]).status, 200);
    assert_eq!(admin.get("/ready", &[]).status, 200);
    let metrics = admin.get("/metrics", &[]);
    assert_eq!(metrics.status, 200);
    assert!(
        metrics
            .header("content-type")
            .is_some_and(|kind| kind.starts_with("text/plain"))
    );
    assert!(
        metrics
            .text()
            .lines()
            .any(|line| line.starts_with("# TYPE ringmain_"))
    );
    assert_eq!(admin.get("/never", &[]).status, 404);
    for path in ["/health", "/ready", "/metrics"] {
        assert_eq!(
            Http::open(server.listen).get(path, &[]).status,
            404,
            "{path} is not for clients"
        );
    }
    assert_eq!(
        server.reactor,
        reactor_under_test(),
        "the tests drive the reactor they are told to"
    );
}

#[test]
fn metrics_follow_the_connections() {
    let server = Server::start(&config("[client]\ninsecure = true\n"));
    let sum = || -> f64 { server.metric("ringmain_connections") };
    let clients: Vec<Client> = (0..7).map(|_| Client::anonymous(&server)).collect();
    wait::until("seven connections in the metrics", || {
        (sum() >= 7.0).then_some(())
    });
    drop(clients);
    wait::until("none in the metrics", || (sum() < 1.0).then_some(()));
}

#[test]
fn secrets_appear_neither_in_metrics_nor_in_the_log() {
    let server = Server::start(&config("[client]\ninsecure = true\n"));
    drop(Client::user(&server, "42"));
    let metrics = Http::open(server.admin).get("/metrics", &[]).text();
    for text in [metrics, server.log()] {
        assert!(!text.contains("token-secret-of-the-tests"));
        assert!(!text.contains("api-key-of-the-tests"));
    }
}
