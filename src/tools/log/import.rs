//! `ringmain log import`

use std::fs::File;
use std::io::{self, BufRead, BufReader};

use sha2::{Digest as _, Sha256};

use super::append::{KeyInUse, append, identity, last_entries};
use super::engine::{self, Use};
use super::progress::Progress;
use super::{ImportArgs, ToolError, lines};
use crate::config::Config;
use crate::limits::{LOG_NAME_BYTES_MAX, LOG_RECORD_BYTES_MAX};
use crate::model::Draft;
use crate::tools::interrupt::Interrupt;
use crate::tools::when;
use crate::upstream::log::Log;

/// Lines of one batch.
const BATCH_LINES: usize = 2048;
/// Bytes of one batch, about.
const BATCH_BYTES: usize = 4 << 20;
/// Bytes of a line: the largest payload, every byte escaped, and what belongs to it.
const LINE_BYTES_MAX: u64 = 6 * LOG_RECORD_BYTES_MAX as u64;

/// Runs it.
pub(super) fn run(config: &Config, args: &ImportArgs) -> Result<(), ToolError> {
    let is_stdin = args.file.as_os_str() == "-";
    if is_stdin && args.resume {
        let text = "--resume needs a file: standard input cannot be read twice";
        return Err(ToolError::Usage(text.to_owned()));
    }
    let name = if is_stdin {
        "standard input".to_owned()
    } else {
        args.file.display().to_string()
    };
    let (input, bytes): (Box<dyn BufRead>, _) = if is_stdin {
        (Box::new(BufReader::new(io::stdin())), None)
    } else {
        let file = File::open(&args.file).map_err(|error| ToolError::file(&name, error))?;
        let bytes = file.metadata().map(|metadata| metadata.len()).ok();
        (Box::new(BufReader::new(file)), bytes)
    };
    let import = Import {
        input,
        name: name.clone(),
        ahead: None,
        line: 0,
        resume: args.resume,
        progress: Progress::new(bytes, "importing"),
        interrupt: Interrupt::listen(),
    };
    let done = engine::with(config, args.to.as_deref(), import)?;
    eprintln!(
        "{name}: {} lines appended, {} were there already",
        done.appended, done.known
    );
    if done.is_interrupted {
        return Err(ToolError::Interrupted("--resume goes on where it ended"));
    }
    Ok(())
}

struct Import {
    input: Box<dyn BufRead>,
    name: String,
    /// The first line, which was looked at before the others.
    ahead: Option<String>,
    /// Lines read.
    line: u64,
    resume: bool,
    progress: Progress,
    interrupt: Interrupt,
}

#[derive(Default)]
struct Done {
    appended: u64,
    known: u64,
    is_interrupted: bool,
}

impl Use for Import {
    type Output = Done;

    async fn run(mut self, log: &impl Log) -> Result<Done, ToolError> {
        let mut done = Done::default();
        let Some(first) = self.next()? else {
            return Ok(done);
        };
        let place = format!("import/{:x}", Sha256::digest(first.as_bytes()));
        let before = match self.resume {
            true => engine::retried(async || log.get(&place).await).await?,
            false => None,
        };
        let text = before.and_then(|value| String::from_utf8(value).ok());
        let before: u64 = text.and_then(|text| text.parse().ok()).unwrap_or(0);
        let known = last_entries(log).await?;
        self.ahead = Some(first);
        while let Some(mut batch) = self.batch(before)? {
            let read = batch.len();
            batch.retain(|draft| !known.contains(&identity(&draft.record)));
            done.known += (read - batch.len()) as u64;
            done.appended += batch.len() as u64;
            append(log, batch, KeyInUse::Another).await?;
            let value = self.line.to_string();
            engine::retried(async || log.put(&place, Some(value.as_bytes())).await).await?;
            if self.interrupt.is_asked() {
                done.is_interrupted = true;
                return Ok(done);
            }
        }
        engine::retried(async || log.put(&place, None).await).await?;
        Ok(done)
    }
}

impl Import {
    /// The next lines behind the first `before` ones; `None` at the end.
    fn batch(&mut self, before: u64) -> Result<Option<Vec<Draft>>, ToolError> {
        let (mut batch, mut bytes) = (Vec::new(), 0);
        while batch.len() < BATCH_LINES && bytes < BATCH_BYTES {
            let Some(line) = self.next()? else {
                break;
            };
            if self.line > before {
                let draft = self.draft(&line)?;
                bytes += draft.record.bytes();
                batch.push(draft);
            }
        }
        Ok((!batch.is_empty()).then_some(batch))
    }

    fn next(&mut self) -> Result<Option<String>, ToolError> {
        if let Some(line) = self.ahead.take() {
            return Ok(Some(line));
        }
        loop {
            let mut line = String::new();
            let mut part = io::Read::take(&mut self.input, LINE_BYTES_MAX);
            let count = part
                .read_line(&mut line)
                .map_err(|error| ToolError::file(&self.name, error))?;
            if count == 0 {
                return Ok(None);
            }
            self.line += 1;
            self.progress.add(count);
            if !line.trim().is_empty() {
                return Ok(Some(line));
            }
        }
    }

    fn draft(&self, line: &str) -> Result<Draft, ToolError> {
        let mut random = [0; 16];
        getrandom::fill(&mut random)
            .map_err(|error| ToolError::Nothing(format!("no randomness: {error}")))?;
        let draft = lines::read(line.trim(), when::unix_ms(), u128::from_be_bytes(random))
            .map_err(|says| self.wrong(&says))?;
        let name = draft.record.channel.whole();
        if name.is_empty() || name.len() > LOG_NAME_BYTES_MAX {
            return Err(self.wrong("channel: empty or too long"));
        }
        Ok(draft)
    }

    fn wrong(&self, says: &str) -> ToolError {
        ToolError::Usage(format!("{}, line {}: {says}", self.name, self.line))
    }
}
