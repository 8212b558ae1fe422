//! Leases of queue groups that nobody answers for.

use std::time::Duration;

use ringmain::upstream::log::{Entries as _, Groups as _, Settled};

use crate::groups::{events, fetch, fetch_all, group, settle, store};
use crate::lab::{config, open, run};
use crate::nats_server::NatsServer;

#[test]
fn lease_that_nobody_speaks_of_does_not_stay_for_ever() {
    let server = NatsServer::start();
    run(async {
        let log = open(&config(&server)).await;
        log.open_group(&group(&["jobs"])).await.expect("made");
        let stored = store(&log, "jobs", 2).await;
        let fetched = fetch_all(&log, 2).await;
        let kept = async {
            let mut ticks = tokio::time::interval(Duration::from_millis(300));
            loop {
                ticks.tick().await;
                settle(&log, &fetched[0], Settled::Kept).await;
            }
        };
        let again = tokio::select! {
            again = fetch(&log, 2) => again,
            () = kept => Vec::new(),
        };
        assert_eq!(events(&again), stored[1..], "the other one is spoken of");
        assert_ne!(again[0].lease, fetched[1].lease);
        assert_eq!(log.status().orphaned_leases, 1);
        settle(&log, &fetched[1], Settled::Done).await;
        let lag = log.lag("mail/1").await.expect("lag");
        assert_eq!(lag.leased, 2, "it is unknown now");
        for leased in [&fetched[0], &again[0]] {
            settle(&log, leased, Settled::Done).await;
        }
        let lag = log.lag("mail/1").await.expect("lag");
        assert_eq!(lag.entries + lag.leased, 0);
    });
}

#[test]
fn lease_of_before_a_seek_is_no_lease_of_after_it() {
    let server = NatsServer::start();
    run(async {
        let log = open(&config(&server)).await;
        log.open_group(&group(&["jobs"])).await.expect("made");
        store(&log, "jobs", 3).await;
        let before = fetch_all(&log, 3).await;
        log.seek_group("mail/1", 0).await.expect("sought");
        let after = fetch_all(&log, 3).await;
        for leased in &before {
            settle(&log, leased, Settled::Done).await;
        }
        for leased in &after {
            assert!(before.iter().all(|one| one.lease != leased.lease));
        }
        assert_eq!(log.lag("mail/1").await.expect("lag").leased, 3);
    });
}
