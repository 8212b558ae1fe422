//! A directory of backups of one log, on disk:
//!
//! ```text
//! backup.json                            what the last complete backup is made of; written last, whole or not at all
//! entries-<after>-<last>.copy            blocks with cursors in (after, last]; the next one goes on at its last
//! state-<end>.copy                       everything else, as it was when the last entry was <end>
//! lock                                   held while a command writes
//! ```

use std::fs::{self, DirBuilder, File};
use std::io::{self, BufWriter, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::ToolError;
use crate::upstream::copy::{Frame, Frames, MAGIC};

const MANIFEST: &str = "backup.json";
const LOCK: &str = "lock";
const PARTIAL: &str = ".partial";
/// Manifests that this version knows.
const FORMAT: u32 = 1;
/// Bytes that are read of a file at once.
const READ_BYTES: usize = 1 << 20;

/// What the last complete backup is made of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Manifest {
    /// Of this file.
    pub(super) format: u32,
    /// The program that wrote it.
    pub(super) version: String,
    /// See `Start::line`.
    pub(super) line: String,
    /// Cursors of the oldest and of the last entry.
    pub(super) first: u64,
    pub(super) end: u64,
    /// Everything that was acknowledged up to here is in it, Unix milliseconds.
    pub(super) unix_ms: u64,
    /// Blocks that the log could not read any more.
    pub(super) damaged: u64,
    /// Files with entries, oldest first.
    pub(super) entries: Vec<Part>,
    /// The file with everything else.
    pub(super) state: Part,
}

/// A file of a backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Part {
    pub(super) file: String,
    /// Entries are behind this cursor, up to `last`.
    pub(super) after: u64,
    pub(super) last: u64,
    pub(super) bytes: u64,
}

/// The directory.
#[derive(Debug)]
pub(super) struct Repository {
    path: PathBuf,
    _lock: Option<File>,
}

impl Repository {
    /// For reading. There must be a complete backup.
    pub(super) fn open(path: &Path) -> Result<(Self, Manifest), ToolError> {
        let repository = Self {
            path: path.to_owned(),
            _lock: None,
        };
        let manifest = repository.manifest()?.ok_or_else(|| {
            ToolError::Usage(format!(
                "{} holds no complete backup and no log",
                path.display()
            ))
        })?;
        Ok((repository, manifest))
    }

    /// For writing: it is made if it is not there, and nobody else writes meanwhile.
    pub(super) fn claim(path: &Path) -> Result<(Self, Option<Manifest>), ToolError> {
        let failed = |error| ToolError::file(path.display(), error);
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(failed)?;
        if path.join("format").exists() {
            let text = "it holds a log: backups need a directory of their own";
            return Err(ToolError::Usage(format!("{}: {text}", path.display())));
        }
        let mut options = File::options();
        let lock = options.create(true).append(true).mode(0o600);
        let lock = lock.open(path.join(LOCK)).map_err(failed)?;
        lock.try_lock().map_err(|_| {
            ToolError::Usage(format!("{}: another command uses it", path.display()))
        })?;
        let repository = Self {
            path: path.to_owned(),
            _lock: Some(lock),
        };
        let manifest = repository.manifest()?;
        Ok((repository, manifest))
    }

    fn manifest(&self) -> Result<Option<Manifest>, ToolError> {
        let path = self.path.join(MANIFEST);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(ToolError::file(path.display(), error)),
        };
        let wrong = |says: String| ToolError::Usage(format!("{}: {says}", path.display()));
        let manifest: Manifest =
            serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))?;
        if manifest.format != FORMAT {
            let found = manifest.format;
            return Err(wrong(format!(
                "it has format {found}, and this version knows format {FORMAT}: use the version that wrote it"
            )));
        }
        Ok(Some(manifest))
    }

    /// Files with entries that are whole, one going on where the one before ended: also those of a backup that was not finished.
    pub(super) fn parts(&self) -> Result<Vec<Part>, ToolError> {
        let failed = |error| ToolError::file(self.path.display(), error);
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.path).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let file = entry.file_name().to_string_lossy().into_owned();
            if let Some((after, last)) = cursors(&file) {
                let bytes = entry.metadata().map_err(failed)?.len();
                found.push(Part {
                    file,
                    after,
                    last,
                    bytes,
                });
            }
        }
        found.sort_unstable_by_key(|part| (part.after, part.last));
        let mut parts: Vec<Part> = Vec::new();
        for part in found {
            if parts.last().is_none_or(|before| before.last == part.after) {
                parts.push(part);
            }
        }
        Ok(parts)
    }

    /// Begins a file.
    pub(super) fn create(&self, start: &Frame) -> Result<Draft, ToolError> {
        let path = self.path.join(format!("part{PARTIAL}"));
        Draft::create(path, start)
    }

    /// The same for everything that is not entries.
    pub(super) fn create_state(&self, start: &Frame) -> Result<Draft, ToolError> {
        let path = self.path.join(format!("state{PARTIAL}"));
        Draft::create(path, start)
    }

    /// Ends a file of entries.
    pub(super) fn keep(&self, draft: Draft, after: u64, last: u64) -> Result<Part, ToolError> {
        let file = format!("entries-{after:020}-{last:020}.copy");
        self.keep_as(draft, file, after, last)
    }

    /// Ends a file of everything else.
    pub(super) fn keep_state(&self, draft: Draft, end: u64) -> Result<Part, ToolError> {
        self.keep_as(draft, format!("state-{end:020}.copy"), end, end)
    }

    fn keep_as(
        &self,
        draft: Draft,
        file: String,
        after: u64,
        last: u64,
    ) -> Result<Part, ToolError> {
        let bytes = draft.finish(&self.path.join(&file))?;
        Ok(Part {
            file,
            after,
            last,
            bytes,
        })
    }

    /// Makes a backup the last complete one, and removes what belongs to none.
    pub(super) fn complete(&self, manifest: &Manifest) -> Result<(), ToolError> {
        let path = self.path.join(MANIFEST);
        let mut draft = path.clone().into_os_string();
        draft.push(PARTIAL);
        let draft = PathBuf::from(draft);
        let mut text = serde_json::to_string_pretty(manifest).unwrap_or_default();
        text.push('\n');
        self.sync()
            .and_then(|()| {
                let mut file = create(&draft)?;
                file.write_all(text.as_bytes())?;
                file.sync_all()?;
                fs::rename(&draft, &path)
            })
            .and_then(|()| self.sync())
            .map_err(|error| ToolError::file(path.display(), error))?;
        let used = |name: &str| {
            name == manifest.state.file || manifest.entries.iter().any(|part| part.file == name)
        };
        let failed = |error| ToolError::file(self.path.display(), error);
        for entry in fs::read_dir(&self.path).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let is_part = name.ends_with(".copy") || name.ends_with(PARTIAL);
            if is_part && !used(&name) {
                fs::remove_file(entry.path()).map_err(failed)?;
            }
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()
    }

    /// Gives the frames of a file, until `each` says that it is enough. A file that is not as long as it was written is damaged.
    pub(super) fn read(
        &self,
        part: &Part,
        each: &mut dyn FnMut(Frame, usize) -> Result<bool, ToolError>,
    ) -> Result<bool, ToolError> {
        let path = self.path.join(&part.file);
        let failed = |error| ToolError::file(path.display(), error);
        let damaged = |source| ToolError::Copy {
            name: path.display().to_string(),
            source,
        };
        let mut file = File::open(&path).map_err(failed)?;
        let length = file.metadata().map_err(failed)?.len();
        if length != part.bytes {
            let short = crate::upstream::copy::CopyError::Short(length);
            return Err(damaged(short));
        }
        let mut frames = Frames::default();
        let mut buffer = vec![0; READ_BYTES];
        loop {
            let count = file.read(&mut buffer).map_err(failed)?;
            if count == 0 {
                break;
            }
            frames.push(&buffer[..count]);
            while let Some((frame, raw)) = frames.take().map_err(damaged)? {
                if !each(frame, raw.len())? {
                    return Ok(false);
                }
            }
        }
        frames.finish().map_err(damaged)?;
        Ok(true)
    }
}

/// A file that is being written.
pub(super) struct Draft {
    file: BufWriter<File>,
    path: PathBuf,
    bytes: u64,
}

impl Draft {
    fn create(path: PathBuf, start: &Frame) -> Result<Self, ToolError> {
        let file = create(&path).map_err(|error| ToolError::file(path.display(), error))?;
        let mut draft = Self {
            file: BufWriter::with_capacity(READ_BYTES, file),
            path,
            bytes: 0,
        };
        draft.write(MAGIC)?;
        draft.write(&start.encode())?;
        Ok(draft)
    }

    /// Adds a frame.
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), ToolError> {
        self.bytes += bytes.len() as u64;
        self.file
            .write_all(bytes)
            .map_err(|error| ToolError::file(self.path.display(), error))
    }

    /// How long it is.
    pub(super) const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// It is on the disk under its name then.
    fn finish(self, name: &Path) -> Result<u64, ToolError> {
        let failed = |error: io::Error| ToolError::file(name.display(), error);
        let file = self
            .file
            .into_inner()
            .map_err(|error| failed(error.into_error()))?;
        file.sync_all().map_err(failed)?;
        fs::rename(&self.path, name).map_err(failed)?;
        Ok(self.bytes)
    }
}

/// What was published is nobody else's business on this machine.
fn create(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
}

fn cursors(file: &str) -> Option<(u64, u64)> {
    let (after, last) = file
        .strip_prefix("entries-")?
        .strip_suffix(".copy")?
        .split_once('-')?;
    Some((after.parse().ok()?, last.parse().ok()?))
}
