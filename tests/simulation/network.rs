//! The mesh between shards as a network: what it passes on, it passes on in order. A faulty one stands still for a while at times,
//! and loses questions and answers: whoever asked must not notice but by an error.

use std::time::Duration;

use ringmain::mem::Rng;
use ringmain::mesh::message::Message;
use ringmain::mesh::{Passed, Wire};
use ringmain::model::ShardId;
use ringmain::time::Instant;

use super::truth::Truth;

/// A wire stands still for so long at most: longer than anybody waits.
const STILL_MS_MAX: u64 = 40_000;

/// See the module.
pub struct Network {
    rng: Rng,
    /// Each with the end of its standstill.
    wires: Vec<(Wire, Instant)>,
    is_faulty: bool,
}

impl Network {
    pub fn new(wires: Vec<Wire>, rng: Rng, is_faulty: bool) -> Self {
        Self {
            rng,
            wires: wires.into_iter().map(|wire| (wire, Instant(0))).collect(),
            is_faulty,
        }
    }

    /// Passes on what shards have sent. Who gets something.
    pub fn pass(&mut self, now: Instant, calm: bool, truth: &mut Truth) -> Vec<ShardId> {
        let is_faulty = self.is_faulty && !calm;
        let rng = &mut self.rng;
        let mut reached = Vec::new();
        for (wire, until) in &mut self.wires {
            if is_faulty && now >= *until && rng.below(3000) == 0 {
                *until = now + Duration::from_millis(rng.below(STILL_MS_MAX));
                truth.count("wire stood still");
            }
            if is_faulty && now < *until {
                continue;
            }
            loop {
                let passed = wire.pass(|message| {
                    let name = name(message).filter(|_| is_faulty && rng.below(150) == 0);
                    if let Some(name) = name {
                        truth.count(&format!("lost {name}"));
                    }
                    name.is_some()
                });
                match passed {
                    Some(Passed::On) => reached.push(wire.to()),
                    Some(Passed::Lost) => {}
                    None => break,
                }
            }
        }
        reached
    }
}

/// What may get lost, as it is counted. The answer of the gate does not: it counts who is in by numbers, and whoever loses a place
/// that was given must say so.
fn name(message: &Message) -> Option<&'static str> {
    Some(match message {
        Message::Interest(..) => "interest",
        Message::Publish(..) => "publish",
        Message::Query(..) => "query",
        Message::Commands(..) => "commands",
        Message::Emulate(..) => "emulate",
        Message::Admit(..) => "admit",
        Message::Enter(..) => "enter",
        Message::Interested(..) => "interested",
        Message::Published(..) => "published",
        Message::Answer(..) => "answer",
        Message::Answers(..) => "answers",
        Message::Emulated(..) => "emulated",
        Message::Admitted(..) => "admitted",
        Message::Entered(..)
        | Message::Leave(_)
        | Message::Release(..)
        | Message::Displace(_)
        | Message::Exit(_)
        | Message::Adopt(_)
        | Message::Deliver(..)
        | Message::DeliverMany(_)
        | Message::Presence(..)
        | Message::Behind(..)
        | Message::Lost(_) => return None,
    })
}
