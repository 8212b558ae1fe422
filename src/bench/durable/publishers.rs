//! Publishers: each keeps its window full. What is refused for a while is published anew after that while.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::super::BenchError;
use super::super::payload::{self, Stamp};
use super::books::Books;
use super::line::{Heard, Line, Peer, Refusal, refused};

/// Codes of errors that pass: internal, too many requests.
const TEMPORARY: [u32; 2] = [100, 111];
/// Wait where the server names no time, and the longest one.
const RETRY_DELAY: Duration = Duration::from_millis(100);
const RETRY_DELAY_MAX: Duration = Duration::from_secs(5);

/// What all clients of a run share.
#[derive(Clone)]
pub(super) struct Shared {
    pub(super) books: Rc<RefCell<Books>>,
    /// No new publication is begun once this is reached.
    pub(super) publications_max: Rc<Cell<u64>>,
    /// Publications begun.
    pub(super) begun: Rc<Cell<u64>>,
    pub(super) started: Instant,
}

impl Shared {
    /// Nanoseconds since the start.
    pub(super) fn clock(&self) -> u64 {
        self.started.elapsed().as_nanos() as u64
    }

    /// Takes the right to begin one publication.
    fn begin(&self) -> bool {
        let may = self.begun.get() < self.publications_max.get();
        if may {
            self.begun.set(self.begun.get() + 1);
        }
        may
    }
}

/// One place of a publisher's window.
#[derive(Clone, Copy)]
enum Slot {
    Free,
    Sent {
        sequence: u32,
        at: u64,
    },
    /// Free from this moment on.
    Waits(u64),
}

/// A client that publishes.
pub(super) struct Publisher {
    line: Line,
    index: u32,
    channel: String,
    size: usize,
    slots: Vec<Slot>,
    /// How often each slot was used: makes ids that no two commands under way share.
    rounds: Vec<u32>,
    sequence: u32,
    under_way: usize,
    shared: Shared,
}

impl Publisher {
    /// Connected, nothing published yet.
    pub(super) async fn open(
        peer: &Peer,
        index: u32,
        channel: String,
        size: usize,
        outstanding: u32,
        shared: Shared,
    ) -> Result<Self, BenchError> {
        Ok(Self {
            line: Line::open(peer).await?,
            index,
            channel,
            size,
            slots: vec![Slot::Free; outstanding as usize],
            rounds: vec![1; outstanding as usize],
            sequence: 0,
            under_way: 0,
            shared,
        })
    }

    /// Publishes until nothing more may be begun and everything is answered.
    pub(super) async fn run(mut self) -> Result<(), BenchError> {
        let mut payload = Vec::new();
        let mut answers: Vec<(u32, Option<Refusal>)> = Vec::new();
        loop {
            let due = self.fill(&mut payload);
            self.line.flush().await?;
            if self.under_way == 0 && due.is_none() {
                return Ok(());
            }
            let receive = self.line.receive(|heard| {
                if let Heard::Reply { id, error } = heard {
                    answers.push((id, error));
                }
            });
            match due {
                None => receive.await?,
                Some(due) => {
                    let wait = due.saturating_sub(self.shared.clock()).max(1);
                    // What is dropped at the deadline has taken nothing.
                    if let Ok(received) =
                        tokio::time::timeout(Duration::from_nanos(wait), receive).await
                    {
                        received?;
                    }
                }
            }
            for (id, error) in answers.drain(..) {
                self.answered(id, error)?;
            }
        }
    }

    /// Publishes into every free slot. When the next waiting one becomes free.
    fn fill(&mut self, payload: &mut Vec<u8>) -> Option<u64> {
        let now = self.shared.clock();
        let mut due: Option<u64> = None;
        for at in 0..self.slots.len() {
            match self.slots[at] {
                Slot::Sent { .. } => continue,
                Slot::Waits(until) if until > now => {
                    due = Some(due.map_or(until, |due| due.min(until)));
                    continue;
                }
                Slot::Free | Slot::Waits(_) => self.slots[at] = Slot::Free,
            }
            if !self.shared.begin() {
                continue;
            }
            let stamp = Stamp {
                channel: self.index,
                sequence: self.sequence,
                intended: now,
            };
            payload.clear();
            payload::write(stamp, self.size, payload);
            let id = self.rounds[at]
                .wrapping_mul(self.slots.len() as u32)
                .wrapping_add(at as u32);
            self.line.publish(id, &self.channel, payload);
            self.slots[at] = Slot::Sent {
                sequence: self.sequence,
                at: now,
            };
            self.sequence += 1;
            self.under_way += 1;
        }
        due
    }

    fn answered(&mut self, id: u32, error: Option<Refusal>) -> Result<(), BenchError> {
        let at = (id % self.slots.len() as u32) as usize;
        let Slot::Sent { sequence, at: sent } = self.slots[at] else {
            return Err(BenchError::Refused(
                "the server answered a command twice".to_owned(),
            ));
        };
        self.under_way -= 1;
        self.rounds[at] = self.rounds[at].wrapping_add(1);
        let now = self.shared.clock();
        self.slots[at] = match error {
            None => {
                self.shared
                    .books
                    .borrow_mut()
                    .acknowledged(self.index, sequence, now - sent);
                Slot::Free
            }
            Some(refusal) if refusal.temporary || TEMPORARY.contains(&refusal.code) => {
                self.shared.books.borrow_mut().temporary += 1;
                self.shared.begun.set(self.shared.begun.get() - 1);
                let delay = refusal
                    .retry_after_ms
                    .map_or(RETRY_DELAY, Duration::from_millis);
                Slot::Waits(now + delay.min(RETRY_DELAY_MAX).as_nanos() as u64)
            }
            Some(refusal) => return Err(refused("a publication", &refusal)),
        };
        Ok(())
    }
}
