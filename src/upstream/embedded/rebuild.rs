//! A log made out of a copy: `ringmain log restore`.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use fjall::{Keyspace, OwnedWriteBatch};
use hashbrown::HashMap;

use super::block::{self, Head};
use super::bytes::Damage;
use super::channels::Row;
use super::core::{LINE, LOG_ID, new_line};
use super::error::{OpenError, words};
use super::look;
use super::segments::{cursor_of, index_key};
use super::store::{self, Directory, SCHEDULED, Store, UNFINISHED};
use crate::mesh::durable::epoch_of;
use crate::model::Epoch;
use crate::upstream::copy::Rows;

/// Bytes of rows that are stored at once.
const BATCH_BYTES: usize = 8 << 20;
/// Memory for what is read back, which is little.
const CACHE_BYTES: u64 = 8 << 20;

/// Why a log is not restored.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// See there.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// Something is there already.
    #[error("{0} holds a log already: move it away, or restore to another directory with --to")]
    NotEmpty(PathBuf),
    /// A restore of something else was begun there.
    #[error(
        "another restore into {0} was begun and not finished: finish that one, or remove the directory"
    )]
    Another(PathBuf),
    /// A row of the copy cannot be.
    #[error("the copy is damaged: {0}")]
    Damaged(#[from] Damage),
    /// The system or the storage library.
    #[error("{directory} cannot be written: {reason}")]
    Write {
        /// Where.
        directory: PathBuf,
        /// Its words.
        reason: String,
    },
}

/// A log on its way. What is put twice is there once, so one that was interrupted begins again.
pub struct Rebuild {
    directory: Directory,
    store: Store,
    batch: OwnedWriteBatch,
    bytes: usize,
    places: HashMap<Box<str>, Place, foldhash::fast::FixedState>,
    /// Number of a channel → its new epoch; `None` keeps what the copy says.
    epochs: Option<HashMap<u64, Epoch, foldhash::fast::FixedState>>,
    log_id: u128,
    /// Parts that were finished by an earlier attempt.
    done: Vec<String>,
}

/// Keyspaces that rows of one name go to.
#[derive(Clone)]
enum Place {
    Rows(Keyspace),
    Blocks { blocks: Keyspace, index: Keyspace },
}

impl Rebuild {
    /// Begins in an empty directory, or goes on where the same restore was begun. `what` tells restores apart. With new epochs
    /// clients learn that the channels are not the ones that they have seen.
    ///
    /// # Errors
    ///
    /// See `RestoreError`.
    pub fn begin(path: &Path, what: &str, new_epochs: bool) -> Result<Self, RestoreError> {
        let directory = Directory::claim(path)?;
        let failed = |error: io::Error| OpenError::of_io(path, &error);
        let mark = path.join(UNFINISHED);
        let done = match fs::read_to_string(&mark) {
            Ok(text) => {
                let mut lines = text.lines().map(str::to_owned);
                if lines.next().as_deref() != Some(what) {
                    return Err(RestoreError::Another(path.to_owned()));
                }
                lines.collect()
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if Directory::has_data(path) {
                    return Err(RestoreError::NotEmpty(path.to_owned()));
                }
                append(&mark, what).map_err(failed)?;
                Vec::new()
            }
            Err(error) => return Err(failed(error).into()),
        };
        let store = Store::open(directory.location(), CACHE_BYTES)?;
        let mut rebuild = Self {
            batch: store.batch(),
            directory,
            store,
            bytes: 0,
            places: HashMap::default(),
            epochs: new_epochs.then(HashMap::default),
            log_id: 0,
            done,
        };
        rebuild.choose_ids()?;
        Ok(rebuild)
    }

    /// The line of the log is a new one, and with new epochs its id is, too: both stay over attempts.
    fn choose_ids(&mut self) -> Result<(), RestoreError> {
        let line = self
            .store
            .state
            .get(LINE)
            .map_err(|e| self.failed(words(&e)))?;
        if line.is_none() {
            let line = new_line().map_err(|reason| self.failed(reason))?;
            self.batch.insert(&self.store.state, LINE, line.as_bytes());
        }
        let id = self
            .store
            .state
            .get(LOG_ID)
            .map_err(|e| self.failed(words(&e)))?;
        if self.epochs.is_some() {
            let known = id.and_then(|id| Some(u128::from_be_bytes(id[..].try_into().ok()?)));
            self.log_id = match known {
                Some(id) => id,
                None => {
                    let line = new_line().map_err(|reason| self.failed(reason))?;
                    u128::from_str_radix(&line, 16).unwrap_or_default()
                }
            };
            let id = self.log_id.to_be_bytes();
            self.batch.insert(&self.store.state, LOG_ID, id);
        }
        self.commit()
    }

    /// Whether this part was finished by an earlier attempt.
    #[must_use]
    pub fn has(&self, part: &str) -> bool {
        self.done.iter().any(|done| done == part)
    }

    /// Takes rows; of entries those in `kept`. Everything that is not a block has to come before the blocks.
    ///
    /// # Errors
    ///
    /// See `RestoreError`.
    pub fn put(
        &mut self,
        rows: &Rows,
        kept: &std::ops::RangeInclusive<u64>,
    ) -> Result<(), RestoreError> {
        match self.place(&rows.keyspace)? {
            Place::Blocks { blocks, index } => {
                for (key, value) in &rows.rows {
                    if kept.contains(&cursor_of(key)) {
                        self.put_block(&blocks, &index, key, value)?;
                    }
                }
            }
            Place::Rows(keyspace) => {
                for (key, value) in &rows.rows {
                    let value = match &*rows.keyspace {
                        "channels" => Some(self.channel(key, value)?),
                        "state" if self.is_own(key) => None,
                        _ => Some(value.clone()),
                    };
                    if let Some(value) = value {
                        self.bytes += key.len() + value.len();
                        self.batch.insert(&keyspace, &key[..], &value[..]);
                    }
                }
            }
        }
        if self.bytes >= BATCH_BYTES {
            self.commit()?;
        }
        Ok(())
    }

    fn put_block(
        &mut self,
        blocks: &Keyspace,
        index: &Keyspace,
        key: &Bytes,
        value: &Bytes,
    ) -> Result<(), RestoreError> {
        let (id, offset) = Head::place(value).ok_or(Damage::Short)?;
        let epoch = self.epochs.as_ref().and_then(|epochs| epochs.get(&id));
        let value = match epoch {
            Some(epoch) => Bytes::from(block::with_epoch(value, *epoch)?),
            None => value.clone(),
        };
        self.bytes += key.len() + value.len();
        self.batch.insert(blocks, &key[..], &value[..]);
        self.batch.insert(index, index_key(id, offset), &key[..]);
        Ok(())
    }

    /// A channel's row, with the epoch that it has from now on.
    fn channel(&mut self, name: &Bytes, value: &Bytes) -> Result<Bytes, RestoreError> {
        let mut row = Row::decode(value)?;
        let Some(epochs) = &mut self.epochs else {
            return Ok(value.clone());
        };
        let name = str::from_utf8(name).map_err(|_| Damage::Value)?;
        // Lives are counted from here: a channel that is forgotten and comes again has a later one.
        row.epoch = epoch_of(self.log_id, 0, name);
        epochs.insert(row.id, row.epoch);
        Ok(row.encode().into())
    }

    /// Rows of the log itself that the copy does not decide about.
    fn is_own(&self, key: &[u8]) -> bool {
        key == LINE || key == LOG_ID && self.epochs.is_some()
    }

    fn place(&mut self, name: &str) -> Result<Place, RestoreError> {
        if let Some(place) = self.places.get(name) {
            return Ok(place.clone());
        }
        let db = &self.store.db;
        let open = || -> fjall::Result<Place> {
            Ok(match name {
                "channels" => Place::Rows(self.store.channels.clone()),
                "state" => Place::Rows(self.store.state.clone()),
                "letters" => Place::Rows(self.store.letters.clone()),
                SCHEDULED => Place::Rows(self.store.scheduled.clone()),
                _ => match look::index_of(name) {
                    Some(index) => Place::Blocks {
                        blocks: db.keyspace(name, store::blocks)?,
                        index: db.keyspace(&index, store::rows)?,
                    },
                    None => Place::Rows(db.keyspace(name, store::rows)?),
                },
            })
        };
        if !look::is_keyspace(name) {
            return Err(Damage::Value.into());
        }
        let place = open().map_err(|error| self.failed(words(&error)))?;
        self.places.insert(name.into(), place.clone());
        Ok(place)
    }

    fn commit(&mut self) -> Result<(), RestoreError> {
        self.bytes = 0;
        let batch = std::mem::replace(&mut self.batch, self.store.batch());
        Store::commit(batch, false).map_err(|reason| self.failed(reason))
    }

    /// Everything of this part was put: another attempt leaves it out.
    ///
    /// # Errors
    ///
    /// See `RestoreError`.
    pub fn finish_part(&mut self, part: &str) -> Result<(), RestoreError> {
        self.commit()?;
        self.store.sync().map_err(|reason| self.failed(reason))?;
        let mark = self.directory.path().join(UNFINISHED);
        append(&mark, part).map_err(|error| self.failed(error.to_string()))
    }

    /// The log is whole and may be used.
    ///
    /// # Errors
    ///
    /// See `RestoreError`.
    pub fn finish(mut self) -> Result<(), RestoreError> {
        self.commit()?;
        self.store.sync().map_err(|reason| self.failed(reason))?;
        let mark = self.directory.path().join(UNFINISHED);
        fs::remove_file(mark)
            .and_then(|()| File::open(self.directory.path())?.sync_all())
            .map_err(|error| self.failed(error.to_string()))
    }

    fn failed(&self, reason: String) -> RestoreError {
        RestoreError::Write {
            directory: self.directory.path().to_owned(),
            reason,
        }
    }
}

/// Rewrites all files of a log that no process uses; gives its bytes before and after.
///
/// # Errors
///
/// See `RestoreError`.
pub fn compact(path: &Path) -> Result<(u64, u64), RestoreError> {
    let directory = Directory::claim(path)?;
    let store = Store::open(directory.location(), CACHE_BYTES)?;
    let failed = |error: fjall::Error| RestoreError::Write {
        directory: directory.path().to_owned(),
        reason: words(&error),
    };
    let before = store.db.disk_space().map_err(failed)?;
    let names = store.db.list_keyspace_names();
    for name in names {
        let is_blocks = look::is_blocks(&name);
        let options = if is_blocks {
            store::blocks
        } else {
            store::rows
        };
        let keyspace = store.db.keyspace(&name, options).map_err(failed)?;
        keyspace.rotate_memtable_and_wait().map_err(failed)?;
        keyspace.major_compact().map_err(failed)?;
    }
    store.sync().map_err(|reason| RestoreError::Write {
        directory: directory.path().to_owned(),
        reason,
    })?;
    let after = store.db.disk_space().map_err(failed)?;
    Ok((before, after))
}

fn append(path: &Path, line: &str) -> io::Result<()> {
    let mut file = File::options().create(true).append(true).open(path)?;
    writeln!(file, "{line}")?;
    file.sync_all()
}
