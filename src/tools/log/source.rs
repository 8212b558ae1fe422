//! Where a copy of a log comes from: a running proxy, a directory that no process uses, or a backup.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::task::LocalSet;

use super::ToolError;
use super::repository::{Manifest, Repository};
use crate::config::Config;
use crate::config::durable::{self, Durable};
use crate::tools::client::Client;
use crate::tools::{TargetArgs, client as connect};
use crate::upstream::Embedded;
use crate::upstream::copy::{End, Frame, Frames, Start};
use crate::upstream::log::{Copies as _, Log as _, Wanted};

/// Parts of a megabyte that wait between reading and taking.
const PARTS_WAITING: usize = 2;
/// Error that says that another copy is being made, how often it is asked again, and after which pause.
const BUSY: u32 = 111;
const BUSY_TRIES: u32 = 60;
const BUSY_PAUSE: Duration = Duration::from_millis(500);
/// Memory for what is read twice, which is little.
const CACHE_BYTES: u64 = 8 << 20;

/// Takes a frame and its length; says whether more is wanted.
pub(super) type Each<'a> = &'a mut dyn FnMut(Frame, usize) -> Result<bool, ToolError>;

/// See the module.
pub(super) enum Source {
    Proxy(Box<Client>),
    Directory(PathBuf),
    Backup(Repository, Box<Manifest>),
}

impl Source {
    /// What the arguments name; without a directory the running proxy.
    pub(super) fn of(
        config: &Config,
        directory: Option<&Path>,
        target: &TargetArgs,
    ) -> Result<Self, ToolError> {
        let Some(directory) = directory else {
            return Ok(Self::Proxy(Box::new(connect(config, target)?)));
        };
        if directory.join("format").exists() {
            return Ok(Self::Directory(directory.to_owned()));
        }
        let (repository, manifest) = Repository::open(directory)?;
        Ok(Self::Backup(repository, Box::new(manifest)))
    }

    /// How many bytes will come, as far as that is known.
    pub(super) fn bytes(&self) -> Option<u64> {
        let Self::Backup(_, manifest) = self else {
            return None;
        };
        let entries: u64 = manifest.entries.iter().map(|part| part.bytes).sum();
        Some(entries + manifest.state.bytes)
    }

    /// Gives every frame. What `each` does not want any more ends it.
    pub(super) fn copy(&mut self, wanted: Wanted, each: Each<'_>) -> Result<(), ToolError> {
        match self {
            Self::Proxy(client) => of_proxy(client, wanted, each),
            Self::Directory(path) => of_directory(path, wanted, each),
            Self::Backup(repository, manifest) => {
                of_backup(repository, manifest, wanted.after, each)
            }
        }
    }
}

fn of_proxy(client: &mut Client, wanted: Wanted, each: Each<'_>) -> Result<(), ToolError> {
    let request = json!({ "after": wanted.after.to_string(), "rate": wanted.rate });
    let mut taker = Taker::new("the copy", each);
    let mut tries = 0;
    while let Err(error) = client.stream("log/copy", &request, |bytes| taker.take(bytes)) {
        // One copy is made at a time; that of a command that was killed ends a moment later.
        let is_busy = matches!(&error, ToolError::Refused { code: BUSY, .. });
        tries += 1;
        if !is_busy || tries > BUSY_TRIES {
            return Err(error);
        }
        std::thread::sleep(BUSY_PAUSE);
    }
    taker.finish()
}

fn of_directory(path: &Path, wanted: Wanted, each: Each<'_>) -> Result<(), ToolError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| ToolError::file(path.display(), error))?;
    let log = Embedded::open(&reading(path))?;
    let (out, parts) = mpsc::channel::<Bytes>(PARTS_WAITING);
    let name = path.display().to_string();
    let mut taker = Taker::new(&name, each);
    LocalSet::new().block_on(&runtime, async {
        let taking = async {
            let mut parts = parts;
            while let Some(part) = parts.recv().await {
                if !taker.take(&part)? {
                    // Without whoever takes it the copy ends.
                    break;
                }
            }
            Ok::<(), ToolError>(())
        };
        let (copied, taken) = tokio::join!(log.copy(wanted, out), taking);
        log.close().await;
        taken?;
        copied.map_err(|source| ToolError::Log {
            name: name.clone(),
            source,
        })
    })?;
    taker.finish()
}

/// Whoever looks at a log forgets nothing of it.
pub(super) fn reading(path: &Path) -> Durable {
    Durable {
        retention_age: Duration::MAX,
        retention_bytes: 0,
        embedded: durable::Embedded {
            directory: path.to_owned(),
            create: true,
            cache_bytes: CACHE_BYTES,
        },
        ..Durable::default()
    }
}

fn of_backup(
    repository: &Repository,
    manifest: &Manifest,
    after: u64,
    each: Each<'_>,
) -> Result<(), ToolError> {
    let start = Frame::Start(Start {
        version: manifest.version.clone(),
        line: manifest.line.clone(),
        after,
    });
    if !each(start, 0)? {
        return Ok(());
    }
    let mut rows = |frame: Frame, bytes: usize| match frame {
        Frame::Rows(_) => each(frame, bytes),
        Frame::Start(_) | Frame::End(_) => Ok(true),
    };
    let wanted = manifest.entries.iter().filter(|part| part.last > after);
    for part in std::iter::once(&manifest.state).chain(wanted) {
        if !repository.read(part, &mut rows)? {
            return Ok(());
        }
    }
    let end = Frame::End(End {
        first: manifest.first,
        end: manifest.end,
        unix_ms: manifest.unix_ms,
        damaged: manifest.damaged,
    });
    each(end, 0).map(drop)
}

/// Bytes into frames.
struct Taker<'a> {
    name: &'a str,
    frames: Frames,
    each: Each<'a>,
    /// The last frame has come, or no more is wanted.
    is_over: bool,
}

impl<'a> Taker<'a> {
    fn new(name: &'a str, each: Each<'a>) -> Self {
        Self {
            name,
            frames: Frames::default(),
            each,
            is_over: false,
        }
    }

    fn take(&mut self, bytes: &[u8]) -> Result<bool, ToolError> {
        self.frames.push(bytes);
        while let Some((frame, raw)) = self.frames.take().map_err(|source| self.damaged(source))? {
            let is_end = matches!(frame, Frame::End(_));
            if !(self.each)(frame, raw.len())? {
                self.is_over = true;
                return Ok(false);
            }
            self.is_over |= is_end;
        }
        Ok(true)
    }

    /// A copy that ends early is none.
    fn finish(self) -> Result<(), ToolError> {
        if self.is_over {
            return Ok(());
        }
        let cut = crate::upstream::copy::CopyError::Short(self.frames.at());
        Err(self.damaged(cut))
    }

    fn damaged(&self, source: crate::upstream::copy::CopyError) -> ToolError {
        ToolError::Copy {
            name: self.name.to_owned(),
            source,
        }
    }
}
