//! `ringmain log move`: from one log into another, of any kind. Entries are copied while the proxy runs, and what is left once it has
//! stopped: then the queue groups with what they have not done, the dead letters, and what waits for its time. The log that was left stays as it is.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use super::append::{Identity, KeyInUse, append, identity, last_entries};
use super::engine::{self, Use};
use super::progress::Progress;
use super::source::Source;
use super::{MoveArgs, ToolError};
use crate::config::Config;
use crate::config::Source as Text;
use crate::config::durable::{Durable, Engine};
use crate::config::namespace::is_queue;
use crate::model::{Draft, Entry, EventId, Terms};
use crate::tools::interrupt::Interrupt;
use crate::tools::when;
use crate::upstream::copy::Frame;
use crate::upstream::desk::into_queue;
use crate::upstream::embedded::TRIMS;
use crate::upstream::embedded::look::{self, Stored};
use crate::upstream::log::{Failure, Group, Leased, Log, Page, Scan, Settled, Wanted};

/// Where the log that is moved to remembers how far it is.
const PLACE: &str = "move/place";
/// How long the key of an entry of a queue is remembered, so that a command that was interrupted adds none twice.
const KEY_TTL: Duration = Duration::from_hours(24);
/// Entries, and bytes of them, that are read at once.
const ENTRIES_AT_ONCE: usize = 1024;
const BYTES_AT_ONCE: usize = 4 << 20;
/// A group gives nothing for so long and is not behind: it has nothing.
const SILENCE: Duration = Duration::from_millis(500);
/// Before a part that found no room is offered again.
const FULL_PAUSE: Duration = Duration::from_millis(1);
/// Parts of a copy that wait until they are stored.
const PARTS_WAITING: usize = 2;
/// Entries of a group that are looked at for those with which something has failed.
const FAILURES_LOOKED_AT: usize = 100_000;

/// Runs it.
pub(super) fn run(config: &Config, args: &MoveArgs) -> Result<(), ToolError> {
    let to = read(&args.to)?;
    let source = name(&config.durable);
    if source == name(&to.durable) {
        let text = format!("--to {}: this is the same log", args.to.display());
        return Err(ToolError::Usage(text));
    }
    let is_embedded = config.durable.engine == Engine::Embedded;
    let moved = if is_embedded && !args.finish {
        let proxy = Source::of(config, None, &args.target)?;
        copy_of_proxy(&to, source, proxy)?
    } else {
        let moving = Moving {
            to: &to,
            source,
            finish: args.finish,
        };
        engine::with(config, None, moving)?
    };
    eprintln!("{} entries copied", moved.entries);
    if moved.is_interrupted {
        return Err(ToolError::Interrupted(
            "the same command goes on where it ended",
        ));
    }
    if args.finish {
        eprintln!(
            "{} queue groups with {} entries that are not done, {} dead letters, {} scheduled publications: start the proxy with {}",
            moved.groups,
            moved.queued,
            moved.letters,
            moved.scheduled,
            args.to.display()
        );
    } else {
        eprintln!("stop the proxy, and give the same command with --finish");
    }
    Ok(())
}

fn read(path: &Path) -> Result<Config, ToolError> {
    let name = path.display().to_string();
    let text = std::fs::read_to_string(path).map_err(|error| ToolError::file(&name, error))?;
    let source = Text {
        name: &name,
        text: &text,
    };
    Config::load(&[source], &[]).map_err(|errors| ToolError::Usage(errors.to_string()))
}

/// Which log a configuration means.
fn name(durable: &Durable) -> String {
    match durable.engine {
        Engine::Embedded => {
            let path = &durable.embedded.directory;
            let path = path.canonicalize().unwrap_or_else(|_| path.clone());
            path.display().to_string()
        }
        Engine::Nats => format!("{} {}", durable.nats.servers.join(","), durable.nats.stream),
    }
}

/// What was moved.
#[derive(Default)]
struct Moved {
    entries: u64,
    groups: u64,
    queued: u64,
    letters: u64,
    scheduled: u64,
    is_interrupted: bool,
}

/// How far a log is that another one is moved into.
#[derive(Serialize, Deserialize)]
struct Place {
    source: String,
    cursor: u64,
}

/// The log that is moved into.
struct Target<'a, L> {
    log: &'a L,
    config: &'a Config,
    place: Place,
    /// What is at its end: what was stored when a command was interrupted before it could say so.
    known: HashSet<Identity>,
    entries: u64,
}

impl<'a, L: Log> Target<'a, L> {
    async fn open(log: &'a L, config: &'a Config, source: String) -> Result<Self, ToolError> {
        let stored = engine::retried(async || log.get(PLACE).await).await?;
        let place = stored.and_then(|text| serde_json::from_slice::<Place>(&text).ok());
        let place = place.filter(|place| place.source == source);
        Ok(Self {
            log,
            config,
            place: place.unwrap_or(Place { source, cursor: 0 }),
            known: last_entries(log).await?,
            entries: 0,
        })
    }

    /// Stores entries, and that everything up to `next` is stored.
    async fn take(&mut self, entries: &[Arc<Entry>], next: u64) -> Result<(), ToolError> {
        let now_ms = when::unix_ms();
        let is_new = |entry: &&Arc<Entry>| {
            entry.cursor > self.place.cursor
                && !entry.record.is_over(now_ms)
                // What is in the queues of groups goes with the groups.
                && !is_queue(entry.record.channel.whole())
                && !self.known.contains(&identity(&entry.record))
        };
        let drafts: Vec<Draft> = entries
            .iter()
            .filter(is_new)
            .map(|entry| Draft::of(self.terms(entry), entry.record.clone()))
            .collect();
        self.entries += drafts.len() as u64;
        append(self.log, drafts, KeyInUse::Another).await?;
        self.place.cursor = self.place.cursor.max(next);
        let text = serde_json::to_vec(&self.place).unwrap_or_default();
        engine::retried(async || self.log.put(PLACE, Some(&text)).await).await
    }

    /// A key is remembered for what is left of its time: a publisher that has had no answer asks again, and one that has used the
    /// key anew once its time was over means another publication.
    fn terms(&self, entry: &Entry) -> Terms {
        let channel = &entry.record.channel;
        let namespace = self.config.channels.resolve_of(channel);
        let ttl = namespace.map_or(Duration::ZERO, |namespace| namespace.terms().key_ttl);
        let age = when::unix_ms().saturating_sub(entry.record.unix_ms);
        Terms::log(ttl.saturating_sub(Duration::from_millis(age)))
    }
}

/// From a running proxy: its log is read by its own copies, on a thread of its own.
fn copy_of_proxy(to: &Config, source: String, proxy: Source) -> Result<Moved, ToolError> {
    struct Taking<'a> {
        to: &'a Config,
        source: String,
        proxy: Source,
    }
    impl Use for Taking<'_> {
        type Output = Moved;

        async fn run(self, log: &impl Log) -> Result<Moved, ToolError> {
            let mut target = Target::open(log, self.to, self.source).await?;
            let (out, mut parts) = mpsc::channel(PARTS_WAITING);
            let (mut proxy, after) = (self.proxy, target.place.cursor);
            let interrupt = Interrupt::listen();
            let asked = interrupt.clone();
            let reading = std::thread::spawn(move || {
                let progress = Progress::new(None, "copying");
                let mut trims = HashMap::new();
                let wanted = Wanted { after, rate: 0 };
                proxy.copy(wanted, &mut |frame, bytes| {
                    progress.add(bytes);
                    let is_open = match entries(frame, &mut trims)? {
                        Some(entries) => give(&out, entries),
                        None => true,
                    };
                    Ok(is_open && !asked.is_asked())
                })
            });
            while let Some((entries, last)) = parts.recv().await {
                target.take(&entries, last).await?;
            }
            let read = reading.join();
            read.map_err(|_| ToolError::Nothing("the copying has failed".to_owned()))??;
            Ok(Moved {
                entries: target.entries,
                is_interrupted: interrupt.is_asked(),
                ..Moved::default()
            })
        }
    }
    let taking = Taking { to, source, proxy };
    engine::with(to, None, taking)
}

/// Waits until there is room; `false` where nobody takes anything any more. The reader runs inside a runtime of its own, which nothing
/// else needs, and where a channel refuses to wait.
fn give<T>(out: &mpsc::Sender<T>, mut what: T) -> bool {
    loop {
        match out.try_send(what) {
            Ok(()) => return true,
            Err(mpsc::error::TrySendError::Closed(_)) => return false,
            Err(mpsc::error::TrySendError::Full(back)) => {
                what = back;
                std::thread::sleep(FULL_PAUSE);
            }
        }
    }
}

/// The entries of a frame that were not forgotten by order, and the cursor of the last one.
#[allow(clippy::type_complexity)]
fn entries(
    frame: Frame,
    trims: &mut HashMap<u64, u64>,
) -> Result<Option<(Vec<Arc<Entry>>, u64)>, ToolError> {
    let Frame::Rows(rows) = frame else {
        return Ok(None);
    };
    if &*rows.keyspace == TRIMS {
        trims.extend(rows.rows.iter().filter_map(look::trim_of));
        return Ok(None);
    }
    if !look::is_blocks(&rows.keyspace) {
        return Ok(None);
    }
    let (mut found, mut last) = (Vec::new(), 0);
    for (key, value) in &rows.rows {
        let stored = look::look(&rows.keyspace, key, value);
        let stored = stored.map_err(|damage| ToolError::Nothing(damage.to_string()))?;
        let channel = look::channel_of(value).unwrap_or_default();
        let trimmed = trims.get(&channel).copied().unwrap_or(0);
        if let Stored::Entries(entries) = stored {
            last = entries.last().map_or(last, |entry| entry.cursor);
            let kept = entries.into_iter();
            found.extend(kept.filter(|entry| entry.position.offset.0 > trimmed));
        }
    }
    Ok(Some((found, last)))
}

/// The log that is left, while nobody else uses it, or where it may be shared.
struct Moving<'a> {
    to: &'a Config,
    source: String,
    finish: bool,
}

impl Use for Moving<'_> {
    type Output = Moved;

    async fn run(self, log: &impl Log) -> Result<Moved, ToolError> {
        let into = Into {
            from: log,
            config: self.to,
            source: self.source,
            finish: self.finish,
        };
        engine::within(&self.to.durable, into).await
    }
}

struct Into<'a, S> {
    from: &'a S,
    config: &'a Config,
    source: String,
    finish: bool,
}

impl<S: Log> Use for Into<'_, S> {
    type Output = Moved;

    async fn run(self, log: &impl Log) -> Result<Moved, ToolError> {
        let mut target = Target::open(log, self.config, self.source).await?;
        let mut moved = Moved::default();
        let interrupt = Interrupt::listen();
        let progress = Progress::new(None, "copying");
        loop {
            let scan = Scan {
                after: target.place.cursor,
                channels: Vec::new(),
                limit: ENTRIES_AT_ONCE,
                bytes: BYTES_AT_ONCE,
                looked_at: ENTRIES_AT_ONCE,
            };
            let scanned = engine::retried(async || self.from.scan(&scan).await).await?;
            let bytes = scanned.entries.iter().map(|entry| entry.record.bytes());
            progress.add(bytes.sum());
            target.take(&scanned.entries, scanned.next).await?;
            moved.is_interrupted = interrupt.is_asked();
            if scanned.at_end || moved.is_interrupted {
                break;
            }
        }
        moved.entries = target.entries;
        if self.finish && !moved.is_interrupted {
            schemas(self.from, log, self.config).await?;
            for group in engine::retried(async || self.from.groups().await).await? {
                moved.queued += move_group(self.from, log, &group).await?;
                moved.groups += 1;
            }
            moved.letters = letters(self.from, log).await?;
            moved.scheduled = scheduled(self.from, log).await?;
        }
        Ok(moved)
    }
}

/// What is remembered of the schemas that are configured.
async fn schemas(from: &impl Log, to: &impl Log, config: &Config) -> Result<(), ToolError> {
    for namespace in &config.channels.namespaces {
        for version in &namespace.schema.accepted {
            let key = format!("schema/{}/{}", namespace.name, version.version);
            copy_value(from, to, &key).await?;
        }
    }
    Ok(())
}

async fn copy_value(from: &impl Log, to: &impl Log, key: &str) -> Result<(), ToolError> {
    let Some(value) = engine::retried(async || from.get(key).await).await? else {
        return Ok(());
    };
    engine::retried(async || to.put(key, Some(&value)).await).await
}

/// A group, and what it has not done; that stays leased where it was until this command ends.
async fn move_group(from: &impl Log, to: &impl Log, group: &Group) -> Result<u64, ToolError> {
    copy_value(from, to, &format!("group/{}", group.name)).await?;
    let at_end = Group {
        from_beginning: false,
        start_after: None,
        ..group.clone()
    };
    engine::retried(async || to.open_group(&at_end).await).await?;
    engine::retried(async || from.release(&group.name, true).await).await?;
    let mut moved = HashSet::new();
    let mut failures = HashMap::new();
    // What a process had that was killed comes once its lease has run out.
    let patience = group.lease + SILENCE * 10;
    let mut since = engine::now();
    loop {
        let fetching = from.fetch(&group.name, ENTRIES_AT_ONCE);
        let Ok(fetched) = tokio::time::timeout(SILENCE, fetching).await else {
            let lag = engine::retried(async || from.lag(&group.name).await).await?;
            if lag.entries + lag.delayed == 0 && lag.leased <= moved.len() as u64 {
                fail_again(to, &group.name, failures).await?;
                return Ok(moved.len() as u64);
            }
            if since.elapsed() > patience {
                return Err(ToolError::Nothing(format!(
                    "the group {} still has workers elsewhere: stop every proxy that uses this log",
                    group.name
                )));
            }
            continue;
        };
        since = engine::now();
        let leased = fetched.map_err(engine::failed)?;
        let drafts: Vec<Draft> = leased.iter().map(|one| queued(group, one)).collect();
        for (one, draft) in leased.into_iter().zip(&drafts) {
            moved.insert(one.entry.cursor);
            if !one.failures.is_empty() && failures.len() < FAILURES_LOOKED_AT {
                failures.insert(draft.record.key.clone(), one.failures);
            }
        }
        append(to, drafts, KeyInUse::Stored).await?;
    }
}

fn queued(group: &Group, leased: &Leased) -> Draft {
    let entry = &leased.entry;
    let key = format!("move/{}/{}", entry.record.event, entry.cursor);
    let mut draft = into_queue(&group.name, entry, key.into(), KEY_TTL);
    // Nobody wants it once more: its time goes on.
    draft.record.ttl_ms = entry.record.ttl_ms;
    draft
}

/// What has failed with entries before, by their keys in the queue of the group: they have as many attempts left as they had.
async fn fail_again(
    to: &impl Log,
    group: &str,
    mut failures: HashMap<Box<str>, Vec<Failure>>,
) -> Result<(), ToolError> {
    let mut given = Vec::new();
    let mut since = engine::now();
    while !failures.is_empty() && given.len() < FAILURES_LOOKED_AT {
        let lag = engine::retried(async || to.lag(group).await).await?;
        // What is asked for beyond what is there would be leased to this command again once it has given it back.
        let waiting = usize::try_from(lag.entries).unwrap_or(usize::MAX);
        if waiting == 0 {
            break;
        }
        let fetching = to.fetch(group, waiting.min(ENTRIES_AT_ONCE));
        let Ok(fetched) = tokio::time::timeout(SILENCE, fetching).await else {
            if since.elapsed() > SILENCE * 10 {
                break;
            }
            continue;
        };
        since = engine::now();
        let leased = fetched.map_err(engine::failed)?;
        let mut settled = Vec::new();
        for one in leased {
            given.push((one.lease, Settled::Returned));
            let known = failures.remove(&one.entry.record.key).unwrap_or_default();
            // A command that was interrupted has said so already.
            let new = known
                .into_iter()
                .filter(|failure| !one.failures.contains(failure));
            settled.extend(new.map(|failure| (one.lease, Settled::Failed(failure))));
        }
        engine::retried(async || to.settle(group, &settled).await).await?;
    }
    engine::retried(async || to.settle(group, &given).await).await?;
    engine::retried(async || to.store_settled(group).await).await
}

/// What waits for its time waits for it there, too.
async fn scheduled(from: &impl Log, to: &impl Log) -> Result<u64, ToolError> {
    let mut count = 0;
    let mut wanted = Page {
        limit: ENTRIES_AT_ONCE,
        bytes: BYTES_AT_ONCE,
        ..Page::default()
    };
    loop {
        let found = engine::retried(async || from.scheduled(&wanted).await).await?;
        let Some(last) = found.last() else {
            return Ok(count);
        };
        wanted.after = Some(last.place);
        count += found.len() as u64;
        let drafts = found.into_iter().map(|pending| pending.draft).collect();
        append(to, drafts, KeyInUse::Another).await?;
    }
}

async fn letters(from: &impl Log, to: &impl Log) -> Result<u64, ToolError> {
    let mut count = 0;
    let mut after: Option<(Box<str>, EventId)> = None;
    loop {
        let place = after.as_ref().map(|(group, event)| (&**group, *event));
        let page = from.dead_letters(None, place, ENTRIES_AT_ONCE).await;
        let page = page.map_err(engine::failed)?;
        let Some(last) = page.last() else {
            return Ok(count);
        };
        after = Some((last.group.clone(), last.entry.record.event));
        for letter in &page {
            engine::retried(async || to.bury(letter).await).await?;
            count += 1;
        }
    }
}
