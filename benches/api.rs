//! What does one request with 1,000 publications cost, beside 1,000 requests with one each? Two shards in process, no socket.
//!
//! `cargo bench --bench api`; tiny under `cargo test --benches`.

use std::fmt::Write as _;
use std::sync::Arc;

use ringmain::config::{Config, Secret};
use ringmain::mesh::build;
use ringmain::shard::{Mode, Output, Peer, SendBatch, Shard};
use ringmain::time::Now;

/// Key of the server API.
const KEY: &str = "k";
/// Publications of one round.
const PUBLICATIONS: usize = 1000;
/// Samples of which the median and the extremes are reported.
const SAMPLES: usize = 11;

fn main() {
    let rounds = if std::env::args().any(|arg| arg == "--bench") {
        50
    } else {
        1
    };
    let channels: Vec<String> = (0..PUBLICATIONS).map(|n| format!("chat:{n}")).collect();
    let payload = format!(r#"{{"text":"{}"}}"#, "x".repeat(100));
    let singles: Vec<String> = channels
        .iter()
        .map(|channel| {
            request(
                "publish",
                &format!(r#"{{"channel":"{channel}","data":{payload}}}"#),
            )
        })
        .collect();
    let mut commands = String::new();
    for channel in &channels {
        let separator = if commands.is_empty() { "" } else { "," };
        write!(
            commands,
            r#"{separator}{{"publish":{{"channel":"{channel}","data":{payload}}}}}"#
        )
        .expect("a string grows");
    }
    let bulk = [
        (
            "broadcast",
            format!(r#"{{"channels":{channels:?},"data":{payload}}}"#),
        ),
        ("batch", format!(r#"{{"commands":[{commands}]}}"#)),
        (
            "batch, parallel",
            format!(r#"{{"commands":[{commands}],"parallel":true}}"#),
        ),
    ];
    let mut house = House::new();
    report("one by one", rounds, || {
        for request in &singles {
            house.ask(request);
        }
    });
    for (name, body) in bulk {
        let method = name.split(',').next().unwrap_or(name);
        let request = request(method, &body);
        report(name, rounds, || house.ask(&request));
    }
}

fn request(method: &str, body: &str) -> String {
    format!(
        "POST /api/{method} HTTP/1.1\r\nHost: h\r\nX-API-Key: {KEY}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// Two shards and one keep-alive connection of a service to the first.
struct House {
    shards: Vec<Shard>,
    conn: ringmain::model::ConnId,
    input: Vec<u8>,
}

impl House {
    fn new() -> Self {
        let mut config = Config::built_in();
        config.http_api.key = Secret(KEY.to_owned());
        let mut namespace = (*config.channels.without_namespace).clone();
        namespace.name = "chat".to_owned();
        namespace.history_size = 10;
        namespace.history_ttl = std::time::Duration::from_secs(60);
        config.channels.namespaces = vec![Arc::new(namespace)];
        let config = Arc::new(config);
        let mut shards: Vec<Shard> = build(2)
            .into_iter()
            .map(|endpoint| {
                Shard::new(
                    endpoint.shard(),
                    Mode::Proxy,
                    Arc::clone(&config),
                    endpoint,
                    7,
                )
            })
            .collect();
        let conn = shards[0]
            .handle_accepted(
                Now::default(),
                0,
                Peer {
                    ip: None,
                    door: ringmain::shard::Door::Clients,
                },
            )
            .expect("taken");
        Self {
            shards,
            conn,
            input: Vec::new(),
        }
    }

    /// One request and its whole response.
    fn ask(&mut self, request: &str) {
        self.input.clear();
        self.input.extend_from_slice(request.as_bytes());
        self.shards[0].handle_received(Now::default(), self.conn, &mut self.input);
        for _ in 0..2 {
            for shard in &mut self.shards {
                shard.handle_mesh(Now::default());
            }
        }
        let mut bytes = 0;
        loop {
            let mut sent = Vec::new();
            while let Some(output) = self.shards[0].poll_output() {
                if let Output::Transmit { batch, .. } = output {
                    match batch {
                        SendBatch::Ring(range) => bytes += range.len as usize,
                        SendBatch::Owned(owned) => sent.push(owned),
                    }
                }
            }
            self.shards[0].handle_flushed(Now::default());
            if sent.is_empty() {
                break;
            }
            for owned in sent {
                bytes += owned.len();
                let sent = owned.len();
                self.shards[0].handle_sent(
                    Now::default(),
                    self.conn,
                    SendBatch::Owned(owned),
                    Ok(sent),
                );
            }
        }
        assert!(
            bytes > 0,
            "the response is there after one round over the mesh"
        );
        while self.shards[1].poll_output().is_some() {}
        self.shards[1].handle_flushed(Now::default());
    }
}

#[expect(clippy::disallowed_methods, reason = "a bench measures time")]
fn report(what: &str, rounds: u32, mut run: impl FnMut()) {
    let mut samples: Vec<f64> = (0..SAMPLES)
        .map(|_| {
            let start = std::time::Instant::now();
            for _ in 0..rounds {
                run();
            }
            start.elapsed().as_nanos() as f64 / f64::from(rounds) / PUBLICATIONS as f64
        })
        .collect();
    samples.sort_by(f64::total_cmp);
    let [fastest, median, slowest] = [samples[0], samples[SAMPLES / 2], samples[SAMPLES - 1]];
    println!("{what:16} {median:8.1} ns a publication, median; {fastest:.1} to {slowest:.1}");
}
