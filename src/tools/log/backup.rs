//! `ringmain log backup`

use super::progress::Progress;
use super::repository::{Draft, Manifest, Part, Repository};
use super::source::Source;
use super::{BackupArgs, ToolError};
use crate::config::Config;
use crate::tools::interrupt::Interrupt;
use crate::tools::when;
use crate::upstream::copy::{End, Frame, Rows, Start};
use crate::upstream::embedded::look;
use crate::upstream::log::Wanted;

/// Bytes of a file of entries, about.
const FILE_BYTES: u64 = 128 << 20;
const MEGABYTE: u64 = 1 << 20;

/// Runs it.
pub(super) fn run(config: &Config, args: &BackupArgs) -> Result<(), ToolError> {
    let (repository, before) = Repository::claim(&args.directory)?;
    let parts = repository.parts()?;
    let line = match (&before, parts.last()) {
        (Some(manifest), _) => Some(manifest.line.clone()),
        (None, Some(part)) => line_of(&repository, part)?,
        (None, None) => None,
    };
    let mut source = Source::of(config, args.log.as_deref(), &args.target)?;
    if matches!(source, Source::Backup(..)) {
        let text = "--log: this is a backup; copy it with the tools for files";
        return Err(ToolError::Usage(text.to_owned()));
    }
    let after = parts.last().map_or(0, |part| part.last);
    let wanted = Wanted {
        after,
        rate: args.rate.saturating_mul(MEGABYTE),
    };
    let interrupt = Interrupt::listen();
    let progress = Progress::new(None, "backing up");
    let mut writer = Writer {
        name: args.directory.display().to_string(),
        repository,
        line,
        parts,
        added: 0,
        open: None,
        state: None,
        end: None,
    };
    source.copy(wanted, &mut |frame, bytes| {
        progress.add(bytes);
        writer.take(frame)?;
        Ok(!interrupt.is_asked())
    })?;
    drop(progress);
    if writer.end.is_none() {
        return Err(ToolError::Interrupted(
            "the same command goes on where it ended",
        ));
    }
    let added = writer.added;
    let manifest = writer.finish()?;
    println!(
        "{}: {added} entries more, {} to {}; it holds all that was acknowledged until {}",
        args.directory.display(),
        manifest.first,
        manifest.end,
        when::shown(manifest.unix_ms)
    );
    if manifest.damaged > 0 {
        let damaged = manifest.damaged;
        return Err(ToolError::Nothing(format!(
            "{damaged} blocks of the log are damaged and could not be backed up"
        )));
    }
    Ok(())
}

/// The line of a file of a backup that was not finished.
fn line_of(repository: &Repository, part: &Part) -> Result<Option<String>, ToolError> {
    let mut line = None;
    repository.read(part, &mut |frame, _| {
        if let Frame::Start(start) = frame {
            line = Some(start.line);
        }
        Ok(false)
    })?;
    Ok(line)
}

/// Puts frames into files.
struct Writer {
    name: String,
    repository: Repository,
    /// Of what is there already.
    line: Option<String>,
    parts: Vec<Part>,
    added: u64,
    open: Option<Open>,
    state: Option<Draft>,
    end: Option<(Start, End)>,
}

/// The file of entries that is being written.
struct Open {
    draft: Draft,
    after: u64,
    last: u64,
}

impl Writer {
    fn take(&mut self, frame: Frame) -> Result<(), ToolError> {
        match frame {
            Frame::Start(start) => self.start(start),
            Frame::Rows(rows) if look::is_blocks(&rows.keyspace) => self.entries(rows),
            Frame::Rows(rows) => {
                let state = self.state.as_mut().ok_or_else(|| misplaced(&self.name))?;
                state.write(&Frame::Rows(rows).encode())
            }
            Frame::End(end) => {
                if let Some((_, known)) = &mut self.end {
                    *known = end;
                }
                self.cut()
            }
        }
    }

    fn start(&mut self, start: Start) -> Result<(), ToolError> {
        if self.line.as_ref().is_some_and(|line| *line != start.line) {
            return Err(ToolError::Usage(format!(
                "{} holds backups of another log, or of this one before it was restored: take another directory",
                self.name
            )));
        }
        self.state = Some(self.repository.create_state(&Frame::Start(start.clone()))?);
        self.end = Some((start, End::default()));
        Ok(())
    }

    fn entries(&mut self, rows: Rows) -> Result<(), ToolError> {
        let Some((start, _)) = &self.end else {
            return Err(misplaced(&self.name));
        };
        let mut open = match self.open.take() {
            Some(open) => open,
            None => {
                let after = self.parts.last().map_or(start.after, |part| part.last);
                let start = Start {
                    after,
                    ..start.clone()
                };
                Open {
                    draft: self.repository.create(&Frame::Start(start))?,
                    after,
                    last: after,
                }
            }
        };
        for (key, value) in &rows.rows {
            let (first, last) =
                look::cursors_of(key, value).ok_or_else(|| misplaced(&self.name))?;
            self.added += last + 1 - first;
            open.last = open.last.max(last);
        }
        open.draft.write(&Frame::Rows(rows).encode())?;
        let is_full = open.draft.bytes() >= FILE_BYTES;
        self.open = Some(open);
        if is_full { self.cut() } else { Ok(()) }
    }

    /// Ends the file of entries.
    fn cut(&mut self) -> Result<(), ToolError> {
        if let Some(open) = self.open.take() {
            let part = self.repository.keep(open.draft, open.after, open.last)?;
            self.parts.push(part);
        }
        Ok(())
    }

    fn finish(self) -> Result<Manifest, ToolError> {
        let (Some((start, end)), Some(state)) = (self.end, self.state) else {
            return Err(misplaced(&self.name));
        };
        if end.end < start.after {
            return Err(ToolError::Nothing(format!(
                "the log ends at {} and the backup at {}: it has lost entries, or was made anew. Take another directory",
                end.end, start.after
            )));
        }
        let state = self.repository.keep_state(state, end.end)?;
        let kept = |part: &Part| part.last >= end.first;
        let manifest = Manifest {
            format: 1,
            version: start.version,
            line: start.line,
            first: end.first,
            end: end.end,
            unix_ms: end.unix_ms,
            damaged: end.damaged,
            entries: self.parts.into_iter().filter(kept).collect(),
            state,
        };
        self.repository.complete(&manifest)?;
        Ok(manifest)
    }
}

fn misplaced(name: &str) -> ToolError {
    ToolError::Nothing(format!("{name}: the copy is not in order"))
}
