//! Seeks that came half way: whoever began them was killed.

use std::time::Duration;

use async_nats::jetstream;
use ringmain::mesh::durable::LogError;
use ringmain::upstream::log::{Group, Groups as _};
use serde_json::json;

use crate::lab::{append_one, config, open, publication, run};
use crate::nats_server::NatsServer;
use crate::support::groups;
use crate::support::process::{Server, Start, config as rules};
use crate::support::wait::until;

fn process(nats: &NatsServer) -> Server {
    let rules = rules(&format!(
        r#"
[durable]
engine = "nats"
nats.servers = ["{}"]

[[channel.namespaces]]
name = "orders"
delivery = "durable"
"#,
        nats.url()
    ));
    Start::with_config(&rules).run()
}

/// Four publications, and a group that was about to begin behind the second one when its process was killed. With `is_there` before
/// it came to the consumer, which is where it was.
fn sought_half_way(nats: &NatsServer, is_there: bool) {
    run(async {
        let log = open(&config(nats)).await;
        let group = Group {
            name: "m".into(),
            channels: vec!["orders:*".into()],
            from_beginning: true,
            start_after: None,
            lease: Duration::from_secs(10),
            ordered: false,
        };
        log.open_group(&group).await.expect("made");
        for _ in 0..4 {
            append_one(&log, publication("orders:1", "x"))
                .await
                .expect("stored");
        }
        let js = jetstream::new(async_nats::connect(nats.url()).await.expect("connected"));
        let stream = js.get_stream("RINGMAIN").await.expect("the stream");
        let before = stream
            .consumer_info("m")
            .await
            .expect("the consumer")
            .config;
        js.delete_stream("KV_RINGMAIN_FAILURES")
            .await
            .expect("gone");
        let behind = log.fetch("m", 4).await.expect("fetched")[1].entry.cursor;
        let sought = log.seek_group("m", behind).await;
        assert!(
            matches!(sought, Err(LogError::Unavailable { .. })),
            "{sought:?}"
        );
        let gone = stream.consumer_info("m").await;
        assert!(gone.is_err(), "{gone:?}");
        if is_there {
            stream.create_consumer(before).await.expect("made");
        }
    });
}

#[test]
fn seek_that_was_half_done_when_its_process_was_killed_is_finished_by_the_next_one() {
    for is_there in [false, true] {
        let nats = NatsServer::start();
        sought_half_way(&nats, is_there);
        let server = process(&nats);
        let shown = || {
            let answer = server.api("queue/groups", &json!({}));
            let groups = answer["result"]["groups"].as_array()?;
            groups.iter().find(|group| group["group"] == "m").cloned()
        };
        until("it is said that a seek is under way", || {
            (shown()?["seeking"] == true).then_some(())
        });
        until("the seek is finished", || {
            (shown()?.get("seeking").is_none()).then_some(())
        });
        let request = json!({ "group": "m", "limit": 9, "wait_ms": 5000 });
        let mut given = Vec::new();
        until("what is behind", || {
            given.extend(groups::fetch(&server, &request));
            (given.len() >= 2).then_some(())
        });
        let offsets: Vec<_> = given.iter().map(|one| one["offset"].as_u64()).collect();
        assert_eq!(offsets, [Some(3), Some(4)], "{is_there}");
    }
}
