//! A client that polls one channel: each request is answered once, with what follows from where it stood.

use serde_json::Value;

use super::client::Scene;
use super::link::Link;
use super::setup::{CHANNELS, is_latest};

/// Channels that are polled: nobody needs a token there.
fn polled() -> Vec<&'static str> {
    let is_public = |channel: &&&str| !channel.starts_with('$') && !channel.starts_with("server:");
    CHANNELS.iter().filter(is_public).copied().collect()
}

#[derive(Default)]
pub struct Poller {
    pub link: Option<usize>,
    channel: String,
    /// Where it stands: epoch and offset.
    position: Option<(String, u64)>,
    /// A request is under way.
    waits: bool,
    bytes: Vec<u8>,
}

impl Poller {
    /// The channel that it waits for a publication of.
    pub fn waits_for(&self) -> Option<&str> {
        self.waits.then_some(self.channel.as_str())
    }

    fn gone(&mut self) {
        self.link = None;
        self.waits = false;
        self.bytes.clear();
    }

    /// Polls, or goes.
    pub fn act(&mut self, links: &mut [Link], scene: &mut Scene<'_>) {
        let Some(link) = self.link else { return };
        match scene.rng.below(100) {
            0 => {
                links[link].up_reset = true;
                links[link].down.clear();
                return self.gone();
            }
            1 => links[link].up_fin = true,
            _ => {}
        }
        if self.waits || links[link].up_fin {
            return;
        }
        if self.channel.is_empty() || scene.rng.below(5) == 0 {
            let polled = polled();
            let channel = polled[scene.rng.below(polled.len() as u64) as usize];
            if self.channel != channel {
                self.channel = channel.to_owned();
                self.position = None;
            }
        }
        let since = match &self.position {
            Some((epoch, offset)) => format!("&epoch={epoch}&offset={offset}"),
            None => String::new(),
        };
        let timeout = 1 + scene.rng.below(20);
        let request = format!(
            "GET /connection/poll?channel={}&timeout={timeout}{since} HTTP/1.1\r\nHost: h\r\n\r\n",
            self.channel
        );
        links[link].up.extend_from_slice(request.as_bytes());
        self.waits = true;
    }

    pub fn read(&mut self, links: &mut [Link], scene: &mut Scene<'_>) {
        let Some(link) = self.link else { return };
        if links[link].down_reset {
            links[link].down.clear();
            return self.gone();
        }
        self.bytes.extend(std::mem::take(&mut links[link].down));
        if let Some(end) = self.bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            let head = String::from_utf8(self.bytes[..end].to_vec()).expect("a head is text");
            let len: usize = head
                .to_ascii_lowercase()
                .split_once("content-length: ")
                .and_then(|(_, rest)| rest.lines().next()?.trim().parse().ok())
                .expect("a response has a length");
            if self.bytes.len() >= end + 4 + len {
                let body: Vec<u8> = self.bytes.drain(..end + 4 + len).skip(end + 4).collect();
                self.answered(&head[9..12], &body, scene);
            }
        }
        if links[link].down_fin {
            assert!(self.bytes.is_empty(), "the server ended within a response");
            self.gone();
        }
    }

    fn answered(&mut self, status: &str, body: &[u8], scene: &mut Scene<'_>) {
        let is_late = status == "408";
        assert!(self.waits || is_late, "an answer that nobody asked for");
        assert!(self.bytes.is_empty(), "two answers to one request");
        self.waits = false;
        if status != "200" {
            scene.truth.count(&format!("poll {status}"));
            // What it knew may be what was refused.
            self.position = None;
            return;
        }
        let value: Value = serde_json::from_slice(body).expect("an answer is JSON");
        let epoch = value["epoch"].as_str().expect("an epoch");
        let top = value["offset"].as_u64().expect("an offset");
        let is_followed = value["recovered"] == true;
        let before = self.position.take();
        let mut next = match (&before, is_followed) {
            (Some((of, offset)), true) => {
                assert_eq!(of, epoch, "recovered into another life: {value}");
                Some(offset + 1)
            }
            _ => None,
        };
        for publication in value["publications"].as_array().into_iter().flatten() {
            let (offset, _) = scene.truth.seen(
                &self.channel,
                Some(epoch).filter(|epoch| !epoch.is_empty()),
                publication,
            );
            if offset == 0 {
                continue;
            }
            scene.truth.count("polled a publication");
            let wanted = next.filter(|_| !is_latest(&self.channel)).unwrap_or(offset);
            assert_eq!(
                offset, wanted,
                "a poll has a hole: {value} after {before:?}"
            );
            next = Some(offset + 1);
        }
        // Where a backend decides, it decides also whether a poll has a position.
        if let Some(next) = next.filter(|_| !epoch.is_empty()) {
            assert_eq!(top, next - 1, "a poll tells where it ends: {value}");
        }
        if !epoch.is_empty() {
            self.position = Some((epoch.to_owned(), top));
        }
        scene.truth.count("poll answered");
    }

    /// Nothing of an answer is left.
    pub fn check_quiet(&self) {
        assert!(self.bytes.is_empty(), "half an answer");
    }
}
