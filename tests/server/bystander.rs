//! A well-behaved subscriber on the same server: it must not notice what others do.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::json;

use crate::support::client::Client;
use crate::support::http::{Http, encode};
use crate::support::process::{API_KEY, Server};
use crate::support::wait::now;

/// Publishes through the API and reads its own subscription, one publication after another, until it is told to stop.
pub(crate) struct Bystander {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<Duration>>,
}

/// Longest p99 that counts as "does not notice" on a loaded machine with two cores, where all parts share the cores.
const P99_MAX: Duration = Duration::from_millis(500);

impl Bystander {
    /// Subscribes to a channel with history, so that offsets show a loss.
    pub(crate) fn start(server: &Server, channel: &str) -> Self {
        let mut client = Client::anonymous(server);
        client.subscribe(channel);
        let mut http = Http::open(server.listen);
        let stop = Arc::new(AtomicBool::new(false));
        let stopping = Arc::clone(&stop);
        let channel = channel.to_owned();
        let thread = std::thread::spawn(move || {
            let mut samples = Vec::new();
            while !stopping.load(Ordering::Relaxed) || samples.len() < 20 {
                let body =
                    json!({ "channel": channel, "data": { "n": samples.len() } }).to_string();
                let started = now();
                http.send(&encode(
                    "POST",
                    "/api/publish",
                    &[("X-API-Key", API_KEY)],
                    body.as_bytes(),
                ));
                let publication = client.publication(&channel);
                samples.push(started.elapsed());
                assert_eq!(
                    publication["offset"],
                    samples.len(),
                    "the bystander lost or repeated a publication"
                );
                assert_eq!(http.response().expect("the connection is kept").status, 200);
            }
            samples
        });
        Self { stop, thread }
    }

    /// Ends it: no loss, and the p99 is printed.
    pub(crate) fn finish(self, beside: &str) {
        self.stop.store(true, Ordering::Relaxed);
        let mut samples = self
            .thread
            .join()
            .expect("the bystander sees every publication in order");
        samples.sort_unstable();
        let at = |share: usize| samples[(samples.len() - 1) * share / 100];
        println!(
            "bystander beside {beside}: {} publications, p50 {:?}, p99 {:?}, max {:?}",
            samples.len(),
            at(50),
            at(99),
            at(100)
        );
        assert!(at(99) < P99_MAX, "p99 {:?} beside {beside}", at(99));
    }
}
