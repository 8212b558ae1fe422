//! `ringmain log export`

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, BufWriter, Seek as _, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use super::engine::{self, Use};
use super::progress::Progress;
use super::source::Source;
use super::{ExportArgs, ToolError, lines};
use crate::config::durable::Engine;
use crate::config::namespace::is_queue;
use crate::config::{Config, glob_match};
use crate::model::{Draft, Entry};
use crate::tools::interrupt::Interrupt;
use crate::upstream::copy::{Frame, Rows};
use crate::upstream::embedded::TRIMS;
use crate::upstream::embedded::look::{self, Stored};
use crate::upstream::log::{Log, Page, Scan, Wanted};

/// Bytes of lines that are gathered before they are written.
const BUFFER_BYTES: usize = 1 << 20;
/// Entries that are read at once.
const ENTRIES_AT_ONCE: usize = 1024;
const BYTES_AT_ONCE: usize = 8 << 20;

/// Runs it.
pub(super) fn run(config: &Config, args: &ExportArgs) -> Result<(), ToolError> {
    let (file, after) = Output::open(args)?;
    let mut export = Export {
        wanted: args.channels.clone(),
        trims: HashMap::new(),
        after,
        output: file,
        written: 0,
        progress: Progress::new(None, "exporting"),
        interrupt: Interrupt::listen(),
        is_over: false,
    };
    let is_nats = config.durable.engine == Engine::Nats;
    if is_nats && args.directory.is_none() && args.target.address.is_none() {
        engine::with(
            config,
            None,
            Scanning {
                export: &mut export,
                after,
            },
        )?;
    } else {
        let mut source = Source::of(config, args.directory.as_deref(), &args.target)?;
        let wanted = Wanted { after, rate: 0 };
        source.copy(wanted, &mut |frame, bytes| export.take(frame, bytes))?;
    }
    let written = export.finish()?;
    if let Some(path) = &args.output {
        eprintln!("{}: {written} entries", path.display());
    }
    Ok(())
}

/// Entries on their way into lines.
struct Export {
    wanted: Vec<String>,
    /// Number of a channel → its entries up to this offset were forgotten by order.
    trims: HashMap<u64, u64>,
    /// Entries up to here were written before.
    after: u64,
    output: Output,
    written: u64,
    progress: Progress,
    interrupt: Interrupt,
    is_over: bool,
}

impl Export {
    fn take(&mut self, frame: Frame, bytes: usize) -> Result<bool, ToolError> {
        self.progress.add(bytes);
        match frame {
            Frame::Rows(rows) if &*rows.keyspace == TRIMS => {
                self.trims
                    .extend(rows.rows.iter().filter_map(look::trim_of));
            }
            Frame::Rows(rows) if look::is_blocks(&rows.keyspace) => self.blocks(&rows)?,
            Frame::Rows(rows) => self.scheduled(&rows)?,
            Frame::Start(_) => {}
            Frame::End(_) => self.is_over = true,
        }
        Ok(!self.interrupt.is_asked())
    }

    fn blocks(&mut self, rows: &Rows) -> Result<(), ToolError> {
        for (key, value) in &rows.rows {
            let found = look::look(&rows.keyspace, key, value);
            let found = found.map_err(|damage| ToolError::Nothing(damage.to_string()))?;
            let channel = look::channel_of(value).unwrap_or_default();
            let trimmed = self.trims.get(&channel).copied().unwrap_or(0);
            if let Stored::Entries(entries) = found {
                for entry in entries {
                    if entry.position.offset.0 > trimmed && entry.cursor > self.after {
                        self.write(&entry)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// What waits for its time comes behind all entries.
    fn scheduled(&mut self, rows: &Rows) -> Result<(), ToolError> {
        for (key, value) in &rows.rows {
            if let Ok(Stored::Scheduled(draft)) = look::look(&rows.keyspace, key, value) {
                self.write_scheduled(&draft)?;
            }
        }
        Ok(())
    }

    fn write_scheduled(&mut self, draft: &Draft) -> Result<(), ToolError> {
        if is_wanted(&self.wanted, draft.record.channel.name()) {
            self.written += 1;
            return self.output.write_scheduled(draft);
        }
        Ok(())
    }

    fn write(&mut self, entry: &Entry) -> Result<(), ToolError> {
        if is_wanted(&self.wanted, entry.record.channel.name()) {
            self.written += 1;
            return self.output.write(entry);
        }
        Ok(())
    }

    fn finish(mut self) -> Result<u64, ToolError> {
        self.output.flush()?;
        if self.is_over {
            Ok(self.written)
        } else {
            Err(ToolError::Interrupted("--resume goes on where it ended"))
        }
    }
}

/// The queues of groups are the program's own: they are left out unless a pattern begins like them, too.
fn is_wanted(wanted: &[String], channel: &str) -> bool {
    let is_own = |text: &str| is_queue(text);
    let fits = |pattern: &String| {
        pattern == channel
            || pattern.contains('*')
                && is_own(pattern) == is_own(channel)
                && glob_match(pattern, channel)
    };
    if wanted.is_empty() {
        !is_own(channel)
    } else {
        wanted.iter().any(fits)
    }
}

/// A log that is read entry by entry.
struct Scanning<'a> {
    export: &'a mut Export,
    after: u64,
}

impl Use for Scanning<'_> {
    type Output = ();

    async fn run(self, log: &impl Log) -> Result<(), ToolError> {
        let Self { export, mut after } = self;
        loop {
            let scan = Scan {
                after,
                channels: Vec::new(),
                limit: ENTRIES_AT_ONCE,
                bytes: BYTES_AT_ONCE,
                looked_at: ENTRIES_AT_ONCE,
            };
            let scanned = engine::retried(async || log.scan(&scan).await).await?;
            for entry in &scanned.entries {
                export.progress.add(entry.record.bytes());
                export.write(entry)?;
            }
            if export.interrupt.is_asked() {
                return Ok(());
            }
            if scanned.at_end {
                break;
            }
            after = scanned.next;
        }
        let mut wanted = Page {
            limit: ENTRIES_AT_ONCE,
            bytes: BYTES_AT_ONCE,
            ..Page::default()
        };
        loop {
            let found = engine::retried(async || log.scheduled(&wanted).await).await?;
            for pending in &found {
                export.write_scheduled(&pending.draft)?;
            }
            let Some(last) = found.last() else {
                export.is_over = true;
                return Ok(());
            };
            if export.interrupt.is_asked() {
                return Ok(());
            }
            wanted.after = Some(last.place);
        }
    }
}

/// Where lines go.
struct Output {
    name: String,
    out: BufWriter<Box<dyn Write>>,
    line: Vec<u8>,
}

impl Output {
    /// Where it is, and behind which cursor it goes on.
    fn open(args: &ExportArgs) -> Result<(Self, u64), ToolError> {
        let (name, out, after): (_, Box<dyn Write>, _) = match &args.output {
            None => ("standard output".to_owned(), Box::new(io::stdout()), 0),
            Some(path) => {
                let failed = |error| ToolError::file(path.display(), error);
                let mut options = File::options();
                let options = options.read(true).write(true).create(true).mode(0o600);
                let mut file = options.truncate(!args.resume).open(path).map_err(failed)?;
                let after = if args.resume {
                    last(&mut file, path)?
                } else {
                    0
                };
                (path.display().to_string(), Box::new(file), after)
            }
        };
        let output = Self {
            name,
            out: BufWriter::with_capacity(BUFFER_BYTES, out),
            line: Vec::new(),
        };
        Ok((output, after))
    }

    fn write(&mut self, entry: &Entry) -> Result<(), ToolError> {
        self.line.clear();
        lines::write(&mut self.line, entry);
        self.put()
    }

    fn write_scheduled(&mut self, draft: &Draft) -> Result<(), ToolError> {
        self.line.clear();
        lines::write_scheduled(&mut self.line, draft);
        self.put()
    }

    fn put(&mut self) -> Result<(), ToolError> {
        self.out
            .write_all(&self.line)
            .map_err(|error| ToolError::file(&self.name, error))
    }

    fn flush(&mut self) -> Result<(), ToolError> {
        self.out
            .flush()
            .map_err(|error| ToolError::file(&self.name, error))
    }
}

/// The cursor of the last whole line of an entry; what is behind it is cut off, and what waited for its time with it: it may not wait
/// any more.
fn last(file: &mut File, path: &Path) -> Result<u64, ToolError> {
    let failed = |error| ToolError::file(path.display(), error);
    let mut reader = BufReader::new(&*file);
    let (mut whole, mut line, mut after) = (0, Vec::new(), 0);
    loop {
        line.clear();
        let count = reader.read_until(b'\n', &mut line).map_err(failed)?;
        if line.last() != Some(&b'\n') {
            break;
        }
        let text = str::from_utf8(&line).unwrap_or_default();
        if lines::is_scheduled(text) {
            break;
        }
        let cursor = lines::cursor(text);
        after = cursor.ok_or_else(|| {
            let says = "it holds a line that export has not written";
            ToolError::Usage(format!("--output {}: {says}", path.display()))
        })?;
        whole += count as u64;
    }
    file.set_len(whole)
        .and_then(|()| file.seek(SeekFrom::End(0)))
        .map_err(failed)?;
    Ok(after)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_channels_are_left_out_unless_they_are_named() {
        let is = |patterns: &[&str], channel| {
            let patterns: Vec<String> = patterns.iter().map(|p| (*p).to_owned()).collect();
            is_wanted(&patterns, channel)
        };
        assert!(is(&[], "a") && !is(&[], "$queue:g") && !is(&["*"], "$queue:g"));
        assert!(is(&["$queue:g"], "$queue:g") && is(&["$queue:*"], "$queue:g"));
        assert!(
            is(&[], "$a:1") && is(&["*"], "$a:1"),
            "a private channel is its users'"
        );
        assert!(is(&["b", "a:*"], "a:1") && !is(&["b", "a:*"], "a"));
    }
}
