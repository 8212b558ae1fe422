//! The durable log in NATS JetStream, where one machine is not enough.
//!
//! One stream keeps all publications, a subject for each channel (`nats/subject`): payload as it is, everything else in
//! headers that people and programs of others can read (`nats/message`). Beside it stand three buckets: `<stream>_STATE`
//! (groups, lives of channels, small values), `<stream>_FAILURES` and `<stream>_DEAD`, and the stream `<stream>_SCHEDULED`. All are
//! created or checked at start,
//! and the connection is made and kept in the background (`nats/link`).
//!
//! - **Two processes never both succeed.** Each append carries the sequence of its subject's last message; the server refuses
//!   it where another message came between. What is appended together is an atomic batch (`nats/writer`, `nats/batch`).
//! - **Idempotency keys** are messages too, one for each key (`<prefix>-keys.<hash>`), stored in the same batch as their
//!   publication with the condition that there is none yet, and forgotten by the server after their time. So a publication
//!   and its key are both there or both not, whoever dies when. A key counts for its time, but no longer than retention
//!   keeps publications.
//! - **A channel of which nothing is left** begins a new epoch (`nats/lives`).
//! - **What waits for its time** is a message with a schedule of the server's (`nats/scheduled`). When that has come, whichever
//!   process gets it publishes it (`nats/due`), once: its key, or its event, is marked in the same batch.
//! - **Namespaces that keep less** are purged by one of the processes (`nats/kept`). What has a time to live stays until retention
//!   takes it, and is passed over by readers: an end of its own would take the last message of a channel, which says where that ends.
//! - **Groups** are durable pull consumers that workers of NATS may share (`nats/groups`).
//!
//! Only this program may publish below the prefix. What others put there is no publication and is skipped; the channel's
//! next publication begins a new epoch.
//!
//! The oldest server is NATS 2.12.3 (`nats/link` says why). Whether a server syncs each message to its disk it tells
//! nobody, so one replica is always warned of.

mod batch;
mod credentials;
mod due;
mod groups;
mod head;
mod kept;
mod letters;
mod link;
mod lives;
mod message;
mod reader;
mod scheduled;
mod subject;
mod tail;
mod values;
mod writer;

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use crate::config::Config;
use crate::config::durable::{Durable, Nats};
use crate::mesh::durable::{Appended, LogError, Read};
use crate::model::{ChannelName, Draft, Entry};
use crate::upstream::log::{Copies, Entries, Forgotten, Log, Scan, Scanned, Slice, Status, Wanted};

pub use link::ConnectError;

use groups::Consumers;
use letters::Known;
use link::Link;
use reader::Reader;
use tail::Tail;
use writer::Writer;

/// Longest wait for the last bytes to go out when the log is closed.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// Longest wait for a count of what an order takes from groups.
const COUNT_TIMEOUT: Duration = Duration::from_millis(500);

/// A log in JetStream. It belongs to the runtime on which it was made.
pub struct Jetstream {
    link: Arc<Link>,
    writer: Writer,
    tail: Tail,
    reader: Reader,
    groups: Consumers,
    /// Dead letters as this process knows them.
    letters: RefCell<Known>,
    /// What namespaces keep less of.
    rules: watch::Sender<Vec<kept::Rule>>,
    /// Purges the rest, once there are rules.
    keeper: OnceLock<JoinHandle<()>>,
    purged: Rc<kept::Purged>,
    /// Publishes what is due, once somebody follows the log.
    due: OnceLock<JoinHandle<()>>,
    supervisor: JoinHandle<()>,
    /// What the configuration says now.
    configured: watch::Sender<Nats>,
    follower: JoinHandle<()>,
}

impl Jetstream {
    /// Starts connecting; until the stream is there, `status().down` says why it is not.
    ///
    /// # Errors
    /// Settings with which no attempt can be made.
    pub async fn connect(config: &Durable) -> Result<Self, ConnectError> {
        let link = Link::connect(config).await?;
        let (tail, own) = Tail::spawn(link.clone());
        let configured = watch::Sender::new(config.nats.clone());
        Ok(Self {
            writer: Writer::spawn(link.clone(), own),
            tail,
            reader: Reader::new(link.clone()),
            groups: Consumers::new(link.clone()),
            letters: RefCell::default(),
            rules: watch::Sender::new(Vec::new()),
            keeper: OnceLock::new(),
            purged: Rc::default(),
            due: OnceLock::new(),
            supervisor: tokio::spawn(link.clone().supervise()),
            follower: tokio::spawn(link.clone().follow(configured.subscribe())),
            configured,
            link,
        })
    }
}

impl Drop for Jetstream {
    fn drop(&mut self) {
        for task in [&self.due, &self.keeper] {
            if let Some(task) = task.get() {
                task.abort();
            }
        }
        self.supervisor.abort();
        self.follower.abort();
    }
}

impl Entries for Jetstream {
    const APPENDS_AT_ONCE: usize = 16;
    const APPENDS_PER_BATCH: usize = 256;

    fn status(&self) -> Status {
        Status {
            orphaned_leases: self.groups.orphaned_leases(),
            ..self.link.status.borrow().clone()
        }
    }

    // Not an async fn: the order of the calls is the order of the appends, whenever their futures are polled.
    fn append(&self, batch: Vec<Draft>) -> impl Future<Output = Vec<Result<Appended, LogError>>> {
        let waits: Vec<bool> = batch.iter().map(|draft| draft.due_ms > 0).collect();
        let (later, now) = batch.into_iter().partition(|draft| draft.due_ms > 0);
        let appended = self.writer.append(now);
        async move {
            let (appended, scheduled) =
                tokio::join!(appended, scheduled::schedule(&self.link, later));
            let (mut appended, mut scheduled) = (appended.into_iter(), scheduled.into_iter());
            let next = waits.into_iter().map(|waits| match waits {
                true => scheduled.next(),
                false => appended.next(),
            });
            let lost = || Err(link::unavailable("the append was lost"));
            next.map(|result| result.unwrap_or_else(lost)).collect()
        }
    }

    async fn tail(&self) -> Result<Vec<Arc<Entry>>, LogError> {
        let publish = || tokio::spawn(due::publish(self.link.clone(), self.writer.clone()));
        self.due.get_or_init(publish);
        tokio::select! {
            entries = self.tail.next() => entries,
            () = self.purged.news.notified() => Ok(Vec::new()),
        }
    }

    fn take_forgotten(&self) -> Vec<(ChannelName, Forgotten)> {
        self.purged.take()
    }

    async fn read(&self, read: &Read) -> Result<Slice, LogError> {
        self.reader.read(read).await
    }

    async fn scan(&self, scan: &Scan) -> Result<Scanned, LogError> {
        self.reader.scan(scan).await
    }

    async fn seek(&self, unix_ms: u64) -> Result<u64, LogError> {
        self.reader.seek(unix_ms).await
    }

    async fn trim(&self, channel: &ChannelName) -> Result<(), LogError> {
        let subject = self.link.subjects.channel(channel.whole());
        // What is appended while losses are counted stays.
        let opened = self.link.opened()?;
        let Some(last) = head::last(&self.link, &opened, &subject).await? else {
            return Ok(());
        };
        // Nothing can be counted once it is gone. But no count that takes long, or fails, keeps it from going.
        let counting = self.groups.unread_of(&self.reader, channel, last.sequence);
        let losses = tokio::time::timeout(COUNT_TIMEOUT, counting).await;
        if !self.writer.trim(subject.clone(), last.sequence).await? {
            let older = opened
                .stream
                .purge()
                .filter(subject)
                .sequence(last.sequence + 1);
            older.await.map_err(|error| self.link.failed(&error))?;
        }
        let counted = match losses {
            Ok(Ok(losses)) => self.groups.lose(losses).await,
            Ok(Err(error)) => Err(error),
            Err(_) => return Ok(()),
        };
        if let Err(error) = counted {
            tracing::debug!(%error, "what queue groups lost by an order is not counted");
        }
        Ok(())
    }
}

impl Copies for Jetstream {
    async fn copy(&self, _: Wanted, _: mpsc::Sender<Bytes>) -> Result<(), LogError> {
        let says = "a log in JetStream is copied by its server's own tools (`nats stream backup`), or written as text by `ringmain log export`";
        Err(LogError::BadRequest(says.into()))
    }
}

impl Log for Jetstream {
    fn reload(&self, config: &Config) {
        let nats = &config.durable.nats;
        self.configured.send_if_modified(|known| {
            let is_new = known != nats;
            if is_new {
                known.clone_from(nats);
            }
            is_new
        });
        let rules = kept::rules(&self.link, config);
        if !rules.is_empty() {
            self.keeper.get_or_init(|| {
                let groups = self.groups.beside();
                let purged = Rc::clone(&self.purged);
                let keeper = kept::Keeper::new(self.link.clone(), groups, purged);
                tokio::task::spawn_local(keeper.run(self.rules.subscribe()))
            });
        }
        self.rules.send_replace(rules);
    }

    async fn close(&self) {
        let client = self.link.client();
        // What does not go out in time is delivered again by the server.
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, client.flush()).await;
    }
}
