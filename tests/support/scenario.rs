//! Scenarios that run on one shard and on several.

use std::net::SocketAddr;
use std::sync::mpsc::{self, Receiver};

use serde_json::{Value, json};

use super::client::Client;
use super::http::Http;
use super::process::{API_KEY, Server};
use super::wait::DEADLINE;

/// Publications of one run of `resubscribe_while_publishing`.
const PUBLICATIONS: u64 = 1000;

/// Publications that the publisher may be ahead of the reader: it is never done while the reader sleeps.
const LEAD: u64 = 100;

/// Publishes 1, 2, 3 … through the API over one connection, several requests ahead of their responses. `read` says how far the reader is.
fn publish_numbers(address: SocketAddr, channel: &str, read: &Receiver<u64>) {
    const AHEAD: u64 = 8;
    let mut at = 0;
    let mut http = Http::open(address);
    let numbers: Vec<u64> = (1..=PUBLICATIONS).collect();
    for batch in numbers.chunks(AHEAD as usize) {
        while batch[0] > at + LEAD {
            at = read.recv_timeout(DEADLINE).expect("the reader goes on");
        }
        let mut bytes = Vec::new();
        for n in batch {
            let body = json!({ "channel": channel, "data": { "n": n } }).to_string();
            bytes.extend(super::http::encode(
                "POST",
                "/api/publish",
                &[("X-API-Key", API_KEY)],
                body.as_bytes(),
            ));
        }
        http.send(&bytes);
        for n in batch {
            let response = http.response().expect("the connection is kept");
            assert_eq!(
                response.json()["result"]["offset"],
                *n,
                "{}",
                response.text()
            );
        }
    }
}

/// Where a subscriber is: what it remembers between subscriptions.
struct Reader {
    epoch: String,
    offset: u64,
}

impl Reader {
    /// Checks that the publication is the next one.
    fn take(&mut self, publication: &Value) {
        assert_eq!(
            publication["offset"],
            self.offset + 1,
            "nothing is lost or repeated: {publication}"
        );
        assert_eq!(publication["data"]["n"], self.offset + 1, "{publication}");
        self.offset += 1;
    }

    /// Subscribes from here. True unless the server has to be asked again later.
    fn subscribe(&mut self, client: &mut Client, channel: &str) {
        let request = json!({
            "channel": channel, "recoverable": true, "recover": true, "epoch": self.epoch, "offset": self.offset,
        });
        let result = client.ok("subscribe", &request);
        assert_eq!(result["recovered"], true, "{result}");
        assert_eq!(
            result["offset"].as_u64().unwrap_or(0),
            self.offset,
            "the request offset: {result}"
        );
        self.epoch = result["epoch"].as_str().expect("an epoch").to_owned();
        for publication in result["publications"].as_array().into_iter().flatten() {
            self.take(publication);
        }
    }
}

/// A subscriber leaves and comes back, by command and by a new connection, while another client publishes:
/// it reads every publication once and in order. The recovery cap must be at least 1,000.
pub(crate) fn resubscribe_while_publishing(server: &Server, channel: &str) {
    let epoch = server.api_result("history", &json!({ "channel": channel }))["epoch"]
        .as_str()
        .unwrap_or("")
        .to_owned();
    let mut reader = Reader { epoch, offset: 0 };
    let address = server.listen;
    let name = channel.to_owned();
    let (progress, read) = mpsc::channel();
    let publisher = std::thread::spawn(move || publish_numbers(address, &name, &read));
    let mut rounds = 0;
    while reader.offset < PUBLICATIONS {
        let mut client = Client::anonymous(server);
        for turn in 0..3 {
            reader.subscribe(&mut client, channel);
            // Nobody hears it when everything is published.
            let _ = progress.send(reader.offset);
            let until = PUBLICATIONS.min(reader.offset + 5 + turn * 7);
            while reader.offset < until {
                let publication = client.publication(channel);
                reader.take(&publication);
            }
            if turn < 2 {
                let id = client.send("unsubscribe", &json!({ "channel": channel }));
                assert_eq!(client.reply(id)["unsubscribe"], json!({}));
                for object in client.unread() {
                    reader.take(&object["push"]["pub"]);
                }
            }
        }
        rounds += 1;
    }
    assert!(
        rounds > 3,
        "the subscriber came back while publications were in flight"
    );
    publisher.join().expect("the publisher succeeds");
}
