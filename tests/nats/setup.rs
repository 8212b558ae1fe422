//! Starting without a server, with another stream, and what operators are told.

use std::time::Duration;

use async_nats::jetstream;
use ringmain::mesh::durable::LogError;
use ringmain::upstream::log::Entries as _;
use ringmain::upstream::nats::Jetstream;

use crate::lab::{append_one, config, open, publication, run, until};
use crate::nats_server::NatsServer;

#[test]
fn log_that_is_down_at_the_start_says_so_and_comes_up() {
    let mut server = NatsServer::stopped(Vec::new());
    run(async {
        let log = Jetstream::connect(&config(&server))
            .await
            .expect("settings");
        assert!(log.status().down.is_some());
        let refused = append_one(&log, publication("a", "x")).await;
        assert!(
            matches!(refused, Err(LogError::Unavailable { .. })),
            "{refused:?}"
        );
        server.restart();
        until("the log to open", async || {
            log.status().down.is_none().then_some(())
        })
        .await;
        append_one(&log, publication("a", "x"))
            .await
            .expect("stored");
        server.kill();
        until("the loss to be seen", async || log.status().down).await;
        server.restart();
        until("an append", async || {
            append_one(&log, publication("a", "x")).await.ok()
        })
        .await;
    });
}

#[test]
fn one_replica_and_memory_are_warned_of() {
    let server = NatsServer::start();
    run(async {
        let mut config = config(&server);
        let warnings = open(&config).await.status().warnings;
        assert!(
            warnings.len() == 1 && warnings[0].contains("sync_interval"),
            "{warnings:?}"
        );
        config.nats.stream = "OTHER".to_owned();
        config.nats.subject_prefix = "other".to_owned();
        config.nats.memory_storage = true;
        let warnings = open(&config).await.status().warnings;
        assert!(
            warnings.len() == 1 && warnings[0].contains("memory"),
            "{warnings:?}"
        );
    });
}

#[test]
fn stream_is_changed_where_it_can_be_and_else_the_reason_is_told() {
    let server = NatsServer::start();
    run(async {
        let client = async_nats::connect(server.url()).await.expect("connected");
        let js = jetstream::new(client);
        let made = jetstream::stream::Config {
            name: "RINGMAIN".to_owned(),
            subjects: vec!["other.>".to_owned()],
            max_age: Duration::from_secs(60),
            ..Default::default()
        };
        js.create_stream(made).await.expect("a stream");
        let mut config = config(&server);
        let log = open(&config).await;
        append_one(&log, publication("a", "x"))
            .await
            .expect("stored");
        let found = js.get_stream("RINGMAIN").await.expect("the stream");
        assert_eq!(found.cached_info().config.max_age, config.retention_age);
        assert!(found.cached_info().config.allow_atomic_publish);
        config.nats.memory_storage = true;
        let other = Jetstream::connect(&config).await.expect("settings");
        until("the reason", async || {
            other
                .status()
                .down
                .filter(|reason| reason.contains("cannot be changed"))
        })
        .await;
    });
}

#[test]
fn credentials_are_used_and_never_shown() {
    let mut server = NatsServer::stopped(vec!["--user=ann".into(), "--pass=geheim".into()]);
    server.restart();
    run(async {
        let mut config = config(&server);
        config.nats.user = "ann".to_owned();
        config.nats.password.0 = "falsch".to_owned();
        let log = Jetstream::connect(&config).await.expect("settings");
        let reason = until("the refusal", async || {
            log.status()
                .down
                .filter(|reason| reason.contains("uthorization"))
        })
        .await;
        assert!(!reason.contains("falsch"), "{reason}");
        config.nats.password.0 = "geheim".to_owned();
        append_one(&open(&config).await, publication("a", "x"))
            .await
            .expect("stored");
    });
}
