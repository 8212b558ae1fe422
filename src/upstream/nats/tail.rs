//! What is stored, in the order of the stream, each entry once.
//!
//! What this process stores it knows already: the writer says at which places. Only what stands between, which others have
//! stored or whose answer was lost, is read from the stream. So a lone process reads nothing of its own again. That others
//! publish is heard as they do it (the connection does not echo our own), and looked for now and then in any case.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use async_nats::Subscriber;
use futures_util::{FutureExt, StreamExt};
use tokio::sync::{Mutex, mpsc};
use tokio::time::Instant;

use super::link::{Link, Opened, unavailable};
use super::message::{self, Content};
use super::reader;
use crate::mesh::durable::LogError;
use crate::model::Entry;

/// Entries given at once, at most.
const ENTRIES_AT_ONCE: usize = 512;
/// Bytes of records given at once; one entry is given whatever its size.
const BYTES_AT_ONCE: usize = 1 << 20;
/// Parts that wait for whoever reads the tail.
const PARTS_QUEUED: usize = 8;
/// Entries of our own that wait for their turn, and their bytes; what comes beyond is read from the stream.
const OWN_KEPT: (usize, usize) = (65_536, 64 << 20);
/// Of them, runs that were not taken in yet: while the stream is looked at.
const OWN_RUNS_QUEUED: usize = 256;
/// Messages of one look.
const LOOK: usize = 512;
/// How often the stream is looked at while nothing is heard.
const IDLE: Duration = Duration::from_millis(500);
/// How often after something was heard, and how many times: it is stored a little later.
const EAGER: (Duration, u32) = (Duration::from_millis(5), 6);
/// A server may be behind the stream's leader for this long.
const BEHIND: Duration = Duration::from_secs(3);

type Part = Result<Vec<Arc<Entry>>, LogError>;

/// What this process has stored at consecutive places of a stream.
pub(super) struct Own {
    /// Which stream.
    pub log: u128,
    /// First place.
    pub first: u64,
    /// Last place.
    pub last: u64,
    /// Those of them that are entries.
    pub entries: Vec<Arc<Entry>>,
}

impl Own {
    fn bytes(&self) -> usize {
        self.entries.iter().map(|entry| entry.record.bytes()).sum()
    }
}

/// The tail of the log.
pub(super) struct Tail {
    parts: Mutex<mpsc::Receiver<Part>>,
}

impl Tail {
    /// Starts following; it ends when the `Tail` is gone. The writer says there what it has stored.
    pub(super) fn spawn(link: Arc<Link>) -> (Self, mpsc::Sender<Own>) {
        let (sender, parts) = mpsc::channel(PARTS_QUEUED);
        let (own, owns) = mpsc::channel(OWN_RUNS_QUEUED);
        tokio::spawn(follow(link, owns, sender));
        let parts = Mutex::new(parts);
        (Self { parts }, own)
    }

    /// The next entries.
    pub(super) async fn next(&self) -> Part {
        match self.parts.lock().await.recv().await {
            Some(part) => part,
            None => std::future::pending().await,
        }
    }
}

async fn follow(link: Arc<Link>, mut owns: mpsc::Receiver<Own>, parts: mpsc::Sender<Part>) {
    let mut changes = link.opened.subscribe();
    let mut line = link.newest();
    let subjects = link.subjects.publications();
    let Ok(mut heard) = link.client().subscribe(subjects.clone()).await else {
        return;
    };
    let mut following: Option<Following> = None;
    loop {
        let current = changes.borrow_and_update().clone();
        if line != link.newest()
            && let Ok(again) = link.client().subscribe(subjects.clone()).await
        {
            line = link.newest();
            heard = again;
        }
        if let (Some(opened), Some(known)) = (&current, &mut following)
            && known.opened.log == opened.log
        {
            known.opened = opened.clone();
        } else if let Some(opened) = current {
            let is_lost = following.is_some();
            following = Some(Following::new(link.clone(), opened));
            if is_lost
                && parts
                    .send(Err(unavailable("the stream was made anew")))
                    .await
                    .is_err()
            {
                return;
            }
        }
        let Some(following) = &mut following else {
            tokio::select! {
                changed = changes.changed() => if changed.is_err() { return },
                () = parts.closed() => return,
            }
            continue;
        };
        following.advance();
        tokio::select! {
            own = owns.recv() => match own {
                Some(own) => {
                    following.take(own);
                    while let Ok(own) = owns.try_recv() {
                        following.take(own);
                    }
                }
                None => return,
            },
            place = parts.reserve(), if !following.out.is_empty() => match place {
                Ok(place) => place.send(Ok(following.part())),
                Err(_) => return,
            },
            () = tokio::time::sleep_until(following.look_at), if following.out.len() < ENTRIES_AT_ONCE => {
                following.look().await;
            }
            () = hear(&mut heard) => following.is_told(),
            changed = changes.changed() => if changed.is_err() { return },
            () = parts.closed() => return,
        }
    }
}

/// Waits until others publish.
async fn hear(heard: &mut Subscriber) {
    match heard.next().await {
        Some(_) => while let Some(Some(_)) = heard.next().now_or_never() {},
        None => std::future::pending().await,
    }
}

struct Following {
    link: Arc<Link>,
    opened: Arc<Opened>,
    /// Everything before this place was given or is in `out`.
    next: u64,
    /// Our own from `next` on, by first place.
    own: BTreeMap<u64, Own>,
    own_entries: usize,
    own_bytes: usize,
    out: VecDeque<Arc<Entry>>,
    look_at: Instant,
    /// Looks that are to follow soon.
    eager: u32,
    /// Since when a server may be behind.
    behind: Option<Instant>,
}

impl Following {
    fn new(link: Arc<Link>, opened: Arc<Opened>) -> Self {
        Self {
            link,
            next: opened.end + 1,
            opened,
            own: BTreeMap::new(),
            own_entries: 0,
            own_bytes: 0,
            out: VecDeque::new(),
            look_at: Instant::now(),
            eager: 0,
            behind: None,
        }
    }

    fn take(&mut self, own: Own) {
        let has_room = self.own_entries < OWN_KEPT.0 && self.own_bytes < OWN_KEPT.1;
        if own.log == self.opened.log && own.last >= self.next && has_room {
            self.own_entries += own.entries.len();
            self.own_bytes += own.bytes();
            self.own.insert(own.first, own);
        }
    }

    fn is_told(&mut self) {
        self.eager = EAGER.1;
        self.look_at = self.look_at.min(Instant::now() + EAGER.0);
    }

    /// Puts out what comes next of our own. What stands before it is looked for at once.
    fn advance(&mut self) {
        while self.out.len() < ENTRIES_AT_ONCE
            && let Some(first) = self.own.first_entry()
        {
            if first.get().last >= self.next && *first.key() > self.next {
                let soon = Instant::now() + EAGER.0;
                self.look_at = self.look_at.min(if self.behind.is_some() {
                    soon
                } else {
                    Instant::now()
                });
                return;
            }
            let own = first.remove();
            self.own_entries -= own.entries.len();
            self.own_bytes -= own.bytes();
            let next = self.next;
            self.out
                .extend(own.entries.into_iter().filter(|entry| entry.cursor >= next));
            self.next = next.max(own.last + 1);
            self.behind = None;
        }
    }

    fn part(&mut self) -> Vec<Arc<Entry>> {
        let mut part = Vec::with_capacity(self.out.len().min(ENTRIES_AT_ONCE));
        let mut bytes = 0;
        while part.len() < ENTRIES_AT_ONCE
            && bytes < BYTES_AT_ONCE
            && let Some(entry) = self.out.pop_front()
        {
            bytes += entry.record.bytes();
            part.push(entry);
        }
        part
    }

    /// Reads what others have stored from `next` on, up to our own.
    async fn look(&mut self) {
        let before = self.next;
        let end = self.own.first_key_value().map(|(first, _)| *first);
        let filter = self.link.subjects.publications();
        let ask = reader::from_sequence(self.next, &filter, LOOK, BYTES_AT_ONCE);
        match reader::direct(&self.link, &self.opened, ask).await {
            Ok(answer) => {
                let has_more = answer.pending > 0;
                let mut is_complete = false;
                for found in answer.messages {
                    if end.is_some_and(|end| found.sequence >= end) {
                        is_complete = true;
                        break;
                    }
                    self.next = found.sequence + 1;
                    let subjects = &self.link.subjects;
                    let sequence = found.sequence;
                    let content = message::decode(
                        subjects,
                        &found.subject,
                        sequence,
                        &found.headers,
                        found.payload,
                    );
                    if let Some(Content::Entry(entry)) = content {
                        self.out.push_back(Arc::from(entry));
                    }
                }
                if let Some(end) = end
                    && (is_complete || !has_more && self.is_believed())
                {
                    self.next = self.next.max(end);
                    self.behind = None;
                }
            }
            Err(error) => tracing::debug!("the tail of the durable log: {error}"),
        }
        if self.next > before {
            self.eager = EAGER.1;
            let last = self.next - 1;
            self.link.status.send_if_modified(|status| {
                status.end = status.end.max(last);
                false
            });
        } else {
            self.eager = self.eager.saturating_sub(1);
        }
        let pause = if self.eager > 0 || self.behind.is_some() {
            EAGER.0
        } else {
            IDLE
        };
        self.look_at = Instant::now() + pause;
    }

    /// Is there nothing before our own where a server has found nothing? One that does not lead the stream may be behind.
    fn is_believed(&mut self) -> bool {
        if !self.link.is_replicated() {
            return true;
        }
        let since = *self.behind.get_or_insert_with(Instant::now);
        since.elapsed() > BEHIND
    }
}
