//! The storage library below the log: one directory, its lock, its version mark, its keyspaces.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsRawFd as _, IntoRawFd as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use fjall::config::{BlockSizePolicy, CompressionPolicy, FilterPolicy};
use fjall::{
    CompressionType, Database, Keyspace, KeyspaceCreateOptions, OwnedWriteBatch, PersistMode,
};

use super::error::OpenError;
use super::{FORMAT, journal};

const FORMAT_FILE: &str = "format";
const LOCK_FILE: &str = "lock";
const DATA: &str = "data";
/// Name of the keyspace of publications that are not due yet.
pub const SCHEDULED: &str = "scheduled";
/// There while a restore into the directory is not finished.
pub const UNFINISHED: &str = "restoring";
const FORMAT_WORDS: &str = "ringmain log ";

/// Memory for blocks that are not yet in a file: each time so many bytes become one. Half as much costs a tenth of the appends.
const BLOCKS_MEMTABLE_BYTES: u64 = 64 << 20;
/// The same for everything small.
const ROWS_MEMTABLE_BYTES: u64 = 8 << 20;
/// Journals are read when the log is opened, so they are kept short: what the memory for blocks needs, and room for one more.
const JOURNAL_BYTES: u64 = 3 * BLOCKS_MEMTABLE_BYTES;
/// How often, and after what pauses, it is looked whether this process still uses the files itself.
const FREE_TRIES: u32 = 250;
const FREE_PAUSE: Duration = Duration::from_millis(20);
/// Open files.
const FILES_KEPT_OPEN: usize = 512;

/// A directory that this process alone uses, until it is dropped.
#[derive(Debug)]
pub struct Directory {
    location: Location,
    lock: File,
}

/// Two names of one directory. The storage library says the path of a file whenever it makes, opens or deletes one, and it
/// counts its files from nought: in a directory that was put in the place of its own it would take the files of another log
/// for its own. So it is given a name that stays with the directory when that is moved, and dies with it.
#[derive(Debug, Clone)]
pub struct Location {
    /// As it is configured.
    path: PathBuf,
    /// As files are reached.
    own: PathBuf,
}

impl Location {
    /// The directory stays open for the life of the process: the library's threads and whoever reads may outlive the log.
    fn hold(path: &Path) -> io::Result<Self> {
        let directory = File::open(path)?;
        let held = directory.metadata()?;
        let own = PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd()));
        let is_same = |found: fs::Metadata| (found.dev(), found.ino()) == (held.dev(), held.ino());
        let own = if fs::metadata(&own).is_ok_and(is_same) {
            let _ = directory.into_raw_fd();
            own
        } else {
            // No /proc here.
            path.to_owned()
        };
        Ok(Self {
            path: path.to_owned(),
            own,
        })
    }

    /// As it is configured: for people.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Directory {
    /// Makes it or takes it.
    ///
    /// # Errors
    ///
    /// Another process has it, its format is newer, or the system refuses.
    pub fn claim(path: &Path) -> Result<Self, OpenError> {
        let failed = |error: io::Error| OpenError::of_io(path, &error);
        // What is published is nobody else's business on this machine.
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(failed)?;
        let location = Location::hold(path).map_err(failed)?;
        let mut lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(location.own.join(LOCK_FILE))
            .map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => {
                let mut said = String::new();
                let _ = (&mut lock).take(32).read_to_string(&mut said);
                let owner = said.trim().parse::<u32>();
                return Err(OpenError::Locked {
                    directory: path.to_owned(),
                    owner: owner.map_or_else(|_| String::new(), |id| format!(" (process {id})")),
                });
            }
            Err(fs::TryLockError::Error(error)) => return Err(failed(error)),
        }
        Self::check_format(&location)?;
        // Who has it is said for people; a full disk must not keep the log from being read.
        let _ = lock
            .set_len(0)
            .and_then(|()| lock.write_all(std::process::id().to_string().as_bytes()));
        Ok(Self { location, lock })
    }

    fn check_format(location: &Location) -> Result<(), OpenError> {
        let Location { path, own } = location;
        let failed = |error: io::Error| OpenError::of_io(path, &error);
        let mark = own.join(FORMAT_FILE);
        match fs::read_to_string(&mark) {
            Ok(text) => {
                let found = text
                    .trim()
                    .trim_start_matches(FORMAT_WORDS.trim_end())
                    .trim();
                match found.parse::<u32>() {
                    Ok(version) if (1..=FORMAT).contains(&version) => Ok(()),
                    Ok(_) => Err(OpenError::Newer {
                        directory: path.to_owned(),
                        found: found.to_owned(),
                        known: FORMAT,
                    }),
                    Err(_) => Err(OpenError::Corrupt {
                        directory: path.to_owned(),
                        reason: format!("its file {FORMAT_FILE} does not name a format"),
                    }),
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if Self::has_data(own) {
                    return Err(OpenError::Corrupt {
                        directory: path.to_owned(),
                        reason: format!("its file {FORMAT_FILE} is missing"),
                    });
                }
                let draft = own.join("format.new");
                let mut file = File::create(&draft).map_err(failed)?;
                writeln!(file, "{FORMAT_WORDS}{FORMAT}").map_err(failed)?;
                file.sync_all().map_err(failed)?;
                fs::rename(&draft, &mark).map_err(failed)?;
                File::open(own)
                    .and_then(|directory| directory.sync_all())
                    .map_err(failed)
            }
            Err(error) if error.kind() == io::ErrorKind::InvalidData => Err(OpenError::Corrupt {
                directory: path.to_owned(),
                reason: format!("its file {FORMAT_FILE} is no text"),
            }),
            Err(error) => Err(failed(error)),
        }
    }

    /// Whether what was claimed is still in its place.
    ///
    /// # Errors
    ///
    /// What has become of it, and what to do.
    pub fn look(&self) -> Result<(), String> {
        let path = self.path().display();
        let own = self.lock.metadata();
        let own = own.map_err(|error| format!("its lock cannot be looked at: {error}"))?;
        let is_missing = |error: &io::Error| {
            matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            )
        };
        match fs::metadata(self.path().join(LOCK_FILE)) {
            Ok(found) if (found.dev(), found.ino()) != (own.dev(), own.ino()) => {
                return Err(format!(
                    "its directory {path} has vanished, and another one is in its place: put it back, or restart to use what is there"
                ));
            }
            Err(error) if is_missing(&error) => return Err(self.vanished()),
            // Whatever else the system says comes up where something is written.
            Ok(_) | Err(_) => {}
        }
        match fs::metadata(self.path().join(DATA).join("version")) {
            Err(error) if is_missing(&error) => Err(self.vanished()),
            Ok(_) | Err(_) => Ok(()),
        }
    }

    fn vanished(&self) -> String {
        let path = self.path().display();
        format!("its directory {path} has vanished: put it back, or restart to begin an empty log")
    }

    /// A log was opened there before.
    #[must_use]
    pub fn has_data(path: &Path) -> bool {
        path.join(DATA).join("version").exists()
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.location.path
    }

    /// Where its files are reached, whatever is at its path by now.
    #[must_use]
    pub fn location(&self) -> &Location {
        &self.location
    }

    /// Whether something can be written there and kept: what is tried before a log that failed is opened again.
    ///
    /// # Errors
    ///
    /// The system's words.
    pub fn probe(location: &Location) -> io::Result<()> {
        let probe = location.own.join("probe");
        let written = File::create(&probe).and_then(|file| {
            // As much as the library wants at once when it opens.
            for part in 0..16 {
                file.write_all_at(&[1; 64 << 10], part * (64 << 10))?;
            }
            file.sync_all()
        });
        let removed = fs::remove_file(&probe);
        written.and(removed)
    }

    /// Writes what the journals hold once more, in place: after a failed sync the kernel takes pages for written that are
    /// not on the disk.
    ///
    /// # Errors
    ///
    /// The system's words.
    pub fn rewrite_journals(location: &Location) -> io::Result<()> {
        let data = location.own.join(DATA);
        wait_until_free(&data)?;
        let mut buffer = vec![0; 1 << 20];
        for entry in fs::read_dir(data)? {
            let path = entry?.path();
            if path.extension().is_none_or(|extension| extension != "jnl") {
                continue;
            }
            let file = OpenOptions::new().read(true).write(true).open(&path)?;
            let mut at = 0;
            loop {
                let count = file.read_at(&mut buffer, at)?;
                if count == 0 {
                    break;
                }
                // What was never written reads as zeros and needs no place.
                if buffer[..count].iter().any(|byte| *byte != 0) {
                    file.write_all_at(&buffer[..count], at)?;
                }
                at += count as u64;
            }
            file.sync_all()?;
        }
        Ok(())
    }
}

/// The keyspaces of the log. Cheap to clone; the files stay open until the last clone is gone.
#[derive(Clone)]
pub struct Store {
    /// The library's.
    pub db: Database,
    /// Channel name → `channels::Row`.
    pub channels: Keyspace,
    /// Small things by a letter: `m` of the log itself, `v` of whoever asked, `g`, `r`, `o`, `f` of groups, `t` trims,
    /// `y` the index of dead letters.
    pub state: Keyspace,
    /// Dead letters.
    pub letters: Keyspace,
    /// Publications that are not due yet: see `later`.
    pub scheduled: Keyspace,
}

impl Store {
    /// Opens what is in the directory. May take as long as reading the journals does.
    ///
    /// # Errors
    ///
    /// See `OpenError`.
    pub fn open(location: &Location, cache_bytes: u64) -> Result<Self, OpenError> {
        let Location { path, own } = location;
        let data = own.join(DATA);
        wait_until_free(&data).map_err(|error| OpenError::of_io(path, &error))?;
        journal::inspect(&data)
            .map_err(|error| OpenError::of_io(path, &error))?
            .map_err(|damaged| OpenError::Corrupt {
                directory: path.to_owned(),
                reason: format!(
                    "its journal {} is damaged at byte {}, with {} stored batches behind",
                    damaged.journal, damaged.at, damaged.behind
                ),
            })?;
        // The library panics over some kinds of damage.
        catch_unwind(AssertUnwindSafe(|| Self::build(&data, cache_bytes)))
            .map_err(|panic| OpenError::Corrupt {
                directory: path.to_owned(),
                reason: panic_words(&*panic),
            })?
            .map_err(|error| OpenError::of_fjall(path, &error))
    }

    fn build(data: &Path, cache_bytes: u64) -> fjall::Result<Self> {
        let db = Database::builder(data)
            .cache_size(cache_bytes)
            .journal_compression(CompressionType::None)
            .manual_journal_persist(true)
            .max_journaling_size(JOURNAL_BYTES)
            .max_cached_files(Some(FILES_KEPT_OPEN))
            // One thread flushes and compacts, so that flushes of a keyspace cannot pile up, and the cores are left to shards.
            .worker_threads(1)
            .open()?;
        Ok(Self {
            channels: db.keyspace("channels", rows)?,
            state: db.keyspace("state", rows)?,
            letters: db.keyspace("letters", rows)?,
            scheduled: db.keyspace(SCHEDULED, rows)?,
            db,
        })
    }

    /// An empty batch.
    #[must_use]
    pub fn batch(&self) -> OwnedWriteBatch {
        self.db.batch()
    }

    /// Stores a batch, and waits until the disk has it if `durable`.
    ///
    /// # Errors
    ///
    /// The library's words. Nothing more can be written then: the store has to be opened again.
    pub fn commit(batch: OwnedWriteBatch, durable: bool) -> Result<(), String> {
        let mode = if durable {
            PersistMode::SyncData
        } else {
            PersistMode::Buffer
        };
        guarded(|| batch.durability(Some(mode)).commit())
    }

    /// Waits until the disk has all that was committed.
    ///
    /// # Errors
    ///
    /// See `commit`.
    pub fn sync(&self) -> Result<(), String> {
        guarded(|| self.db.persist(PersistMode::SyncData))
    }

    /// Whether the background has failed meanwhile.
    ///
    /// # Errors
    ///
    /// See `commit`.
    pub fn check(&self) -> Result<(), String> {
        guarded(|| self.db.persist(PersistMode::Buffer))
    }
}

/// The library is let go of by the last reader of a store that was closed, which may be a moment later.
fn wait_until_free(data: &Path) -> io::Result<()> {
    let lock = match File::open(data.join(LOCK_FILE)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        lock => lock?,
    };
    for _ in 0..FREE_TRIES {
        match lock.try_lock() {
            Ok(()) => return Ok(()),
            Err(fs::TryLockError::WouldBlock) => std::thread::sleep(FREE_PAUSE),
            Err(fs::TryLockError::Error(error)) => return Err(error),
        }
    }
    Err(io::Error::other("a reader still uses it"))
}

fn guarded<T>(run: impl FnOnce() -> fjall::Result<T>) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(run))
        .map_err(|panic| panic_words(&*panic))?
        .map_err(|error| super::error::words(&error))
}

fn panic_words(panic: &(dyn std::any::Any + Send)) -> String {
    let said = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied());
    format!(
        "it is damaged ({})",
        said.unwrap_or("the storage library gave up")
    )
}

/// Options of a keyspace of small rows.
pub fn rows() -> KeyspaceCreateOptions {
    KeyspaceCreateOptions::default()
        .manual_journal_persist(true)
        .data_block_compression_policy(CompressionPolicy::disabled())
        .max_memtable_size(ROWS_MEMTABLE_BYTES)
}

/// Options of a keyspace of blocks: written once, in the order of their keys, and read in that order, so that files are
/// moved down as they are and never merged.
pub fn blocks() -> KeyspaceCreateOptions {
    KeyspaceCreateOptions::default()
        .manual_journal_persist(true)
        .data_block_compression_policy(CompressionPolicy::all(CompressionType::Lz4))
        .data_block_size_policy(BlockSizePolicy::all(64 << 10))
        .filter_policy(FilterPolicy::disabled())
        .max_memtable_size(BLOCKS_MEMTABLE_BYTES)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const CACHE: u64 = 1 << 20;

    fn files(below: &Path) -> BTreeSet<PathBuf> {
        let mut found = BTreeSet::new();
        let mut open = vec![below.to_owned()];
        while let Some(directory) = open.pop() {
            for entry in fs::read_dir(directory).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    open.push(path);
                } else {
                    found.insert(path);
                }
            }
        }
        found
    }

    fn put_and_flush(store: &Store, name: &str) {
        store.state.insert(name, name).unwrap();
        store.state.rotate_memtable_and_wait().unwrap();
    }

    #[test]
    fn log_whose_directory_was_replaced_leaves_the_files_of_the_other_alone() {
        let parent = tempfile::tempdir().unwrap();
        let (path, aside) = (parent.path().join("log"), parent.path().join("aside"));
        let first = Directory::claim(&path).unwrap();
        let own = Store::open(first.location(), CACHE).unwrap();
        put_and_flush(&own, "own");
        fs::rename(&path, &aside).unwrap();
        let second = Directory::claim(&path).unwrap();
        let other = Store::open(second.location(), CACHE).unwrap();
        put_and_flush(&other, "other");
        put_and_flush(&other, "other, too");
        // Closed, so that it has nothing to tidy up itself while it is looked at.
        drop(other);

        let before = files(&path);
        for name in ["1", "2", "3"] {
            put_and_flush(&own, name);
        }
        own.state.major_compact().unwrap();
        assert_eq!(files(&path), before);
        drop((own, first, second));
        for (at, names) in [(path, ["other", "other, too"]), (aside, ["own", "3"])] {
            let directory = Directory::claim(&at).unwrap();
            let store = Store::open(directory.location(), CACHE).unwrap();
            for name in names {
                let found = store.state.get(name).unwrap();
                assert_eq!(found.as_deref(), Some(name.as_bytes()), "{name}");
            }
        }
    }
}
