//! `ringmain log verify` and `ringmain log inspect`: everything is read, with its checksums.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;

use serde_json::json;

use super::progress::Progress;
use super::source::Source;
use super::{LookArgs, ToolError};
use crate::config::Config;
use crate::model::tenant::shown;
use crate::model::{ChannelName, Entry};
use crate::tools::interrupt::Interrupt;
use crate::tools::table::Table;
use crate::tools::when;
use crate::upstream::copy::{End, Frame, Rows, Start};
use crate::upstream::embedded::look::{self, Stored};
use crate::upstream::log::Wanted;

/// Channels that are named, those with the most bytes first.
const CHANNELS_SHOWN: usize = 10;
/// Channels that are counted one by one.
const CHANNELS_COUNTED: usize = 1_000_000;
/// Problems that are told one by one.
const PROBLEMS_SHOWN: usize = 20;

/// Runs `ringmain log verify`.
pub(super) fn verify(config: &Config, args: &LookArgs) -> Result<(), ToolError> {
    let survey = Survey::make(config, args)?;
    if args.json {
        print(&format!("{}\n", survey.json()))?;
    } else {
        print(&survey.counts())?;
    }
    survey.verdict()
}

/// Runs `ringmain log inspect`.
pub(super) fn inspect(config: &Config, args: &LookArgs) -> Result<(), ToolError> {
    let survey = Survey::make(config, args)?;
    if args.json {
        print(&format!("{}\n", survey.json()))?;
    } else {
        print(&survey.text())?;
    }
    survey.verdict()
}

fn print(text: &str) -> Result<(), ToolError> {
    use std::io::Write as _;
    std::io::stdout()
        .lock()
        .write_all(text.as_bytes())
        .map_err(|error| ToolError::file("standard output", error))
}

/// What was found.
#[derive(Default)]
struct Survey {
    start: Option<Start>,
    end: Option<End>,
    entries: u64,
    bytes: u64,
    blocks: u64,
    keys: u64,
    /// Cursor of the last entry so far.
    last: u64,
    /// Times of the oldest and the newest entry, Unix milliseconds.
    times: Option<(u64, u64)>,
    /// Number of a channel → the last offset of its entries.
    tops: HashMap<u64, u64>,
    /// Where offsets do not go on: the channel, its name, the offsets on both sides.
    holes: Vec<(u64, ChannelName, u64, u64)>,
    /// Number of a channel → entries up to this offset are forgotten; what stands there yet, nobody sees.
    forgotten: HashMap<u64, u64>,
    channels: HashMap<ChannelName, (u64, u64)>,
    /// Channels that the log knows, also without entries.
    known: u64,
    groups: Vec<(Box<str>, Vec<Box<str>>)>,
    letters: BTreeMap<Box<str>, u64>,
    /// Publications that wait for their time.
    scheduled: u64,
    problems: Vec<String>,
    problem_count: u64,
}

impl Survey {
    fn make(config: &Config, args: &LookArgs) -> Result<Self, ToolError> {
        let mut source = Source::of(config, args.directory.as_deref(), &args.target)?;
        let progress = Progress::new(source.bytes(), "reading");
        let interrupt = Interrupt::listen();
        let mut survey = Self::default();
        source.copy(Wanted::default(), &mut |frame, bytes| {
            progress.add(bytes);
            match frame {
                Frame::Start(start) => survey.start = Some(start),
                Frame::Rows(rows) => survey.rows(&rows),
                Frame::End(end) => survey.end = Some(end),
            }
            Ok(!interrupt.is_asked())
        })?;
        if survey.end.is_none() {
            return Err(ToolError::Interrupted("nothing was changed"));
        }
        survey.check_end();
        Ok(survey)
    }

    fn rows(&mut self, rows: &Rows) {
        for (key, value) in &rows.rows {
            if let Some((channel, offset)) = look::forgotten(&rows.keyspace, key, value) {
                self.forgotten.insert(channel, offset);
            }
            match look::look(&rows.keyspace, key, value) {
                Err(damage) => self.problem(format!(
                    "{}, row {}: {damage}",
                    rows.keyspace,
                    shown_key(key)
                )),
                Ok(Stored::Entries(entries)) => {
                    let channel = look::channel_of(value).unwrap_or_default();
                    let name = look::name_of(value);
                    let places = look::cursors_of(key, value).zip(look::offsets_of(value));
                    if let (Some(name), Some((cursors, offsets))) = (name, places) {
                        self.follow(channel, &name, cursors, offsets);
                    }
                    self.block(&entries);
                }
                Ok(Stored::Channel(_)) => self.known += 1,
                Ok(Stored::Key) => self.keys += 1,
                Ok(Stored::Scheduled(_)) => self.scheduled += 1,
                Ok(Stored::Group(group)) => self.groups.push((group.name, group.channels)),
                Ok(Stored::Letter(letter)) => *self.letters.entry(letter.group).or_default() += 1,
                Ok(Stored::Other) => {}
            }
        }
    }

    /// Of two blocks of a channel the second goes on where the first ended. In a block, what has ended before its turn is missing.
    fn follow(
        &mut self,
        channel: u64,
        name: &ChannelName,
        cursors: (u64, u64),
        offsets: (u64, u64),
    ) {
        if cursors.0 <= self.last {
            self.problem(format!("entry {} stands behind {}", cursors.0, self.last));
        }
        self.last = cursors.1;
        let before = self.tops.insert(channel, offsets.1);
        if let Some(before) = before.filter(|before| before + 1 != offsets.0) {
            self.holes.push((channel, name.clone(), before, offsets.0));
        }
    }

    fn block(&mut self, entries: &[std::sync::Arc<Entry>]) {
        self.blocks += 1;
        for entry in entries {
            self.entries += 1;
            let bytes = entry.record.bytes() as u64;
            self.bytes += bytes;
            let ms = entry.record.unix_ms;
            self.times = Some(match self.times {
                Some((oldest, newest)) => (oldest.min(ms), newest.max(ms)),
                None => (ms, ms),
            });
            let name = &entry.record.channel;
            if let Some(counted) = self.channels.get_mut(name) {
                *counted = (counted.0 + 1, counted.1 + bytes);
            } else if self.channels.len() < CHANNELS_COUNTED {
                self.channels.insert(name.clone(), (1, bytes));
            }
        }
    }

    fn check_end(&mut self) {
        for (channel, name, before, offset) in std::mem::take(&mut self.holes) {
            // Behind what is forgotten, there may be nothing.
            let forgotten = self.forgotten.get(&channel).copied().unwrap_or(0);
            if offset <= before || before > forgotten {
                self.problem(format!(
                    "{}: offset {offset} stands behind {before}",
                    name.shown()
                ));
            }
        }
        let Some(end) = self.end.clone() else { return };
        if self.blocks > 0 && self.last != end.end {
            self.problem(format!(
                "the last entry is {}, and it should be {}",
                self.last, end.end
            ));
        }
        if end.damaged > 0 {
            self.problem(format!("{} blocks could not be read", end.damaged));
        }
    }

    fn problem(&mut self, text: String) {
        self.problem_count += 1;
        if self.problems.len() < PROBLEMS_SHOWN {
            self.problems.push(text);
        }
    }

    fn verdict(&self) -> Result<(), ToolError> {
        if self.problem_count == 0 {
            return Ok(());
        }
        let mut text = format!("{} problems:", self.problem_count);
        for problem in &self.problems {
            let _ = write!(text, "\n  {problem}");
        }
        Err(ToolError::Nothing(text))
    }

    fn end(&self) -> End {
        self.end.clone().unwrap_or_default()
    }

    fn counts(&self) -> String {
        let end = self.end();
        let letters: u64 = self.letters.values().sum();
        format!(
            "{} entries ({} to {}) in {} blocks, {} channels, {} queue groups, {letters} dead letters, {} scheduled, {} idempotency keys, as it was at {}\n",
            self.entries,
            end.first,
            end.end,
            self.blocks,
            self.known,
            self.groups.len(),
            self.scheduled,
            self.keys,
            when::shown(end.unix_ms)
        )
    }

    fn text(&self) -> String {
        let mut out = self.counts();
        if let Some(start) = &self.start {
            let _ = writeln!(
                out,
                "line {}, copied by version {}",
                start.line, start.version
            );
        }
        if let Some((oldest, newest)) = self.times {
            let _ = writeln!(
                out,
                "published from {} to {}, {} bytes of payloads and what belongs to them",
                when::shown(oldest),
                when::shown(newest),
                self.bytes
            );
        }
        if !self.channels.is_empty() {
            let mut table = Table::new(&["CHANNEL", "ENTRIES", "BYTES"]);
            for (name, entries, bytes) in self.largest() {
                table.push(vec![
                    name.shown().into_owned(),
                    entries.to_string(),
                    bytes.to_string(),
                ]);
            }
            let _ = write!(out, "\n{}", table.text());
        }
        if !self.groups.is_empty() || !self.letters.is_empty() {
            let mut table = Table::new(&["GROUP", "CHANNELS", "DEAD LETTERS"]);
            for (name, channels) in &self.groups {
                let letters = self.letters.get(name).copied().unwrap_or(0);
                let channels: Vec<_> = channels.iter().map(|one| shown(one)).collect();
                table.push(vec![
                    shown(name).into_owned(),
                    channels.join(" "),
                    letters.to_string(),
                ]);
            }
            let is_gone = |name: &str| self.groups.iter().all(|(known, _)| **known != *name);
            for (name, letters) in self.letters.iter().filter(|(name, _)| is_gone(name)) {
                table.push(vec![
                    shown(name).into_owned(),
                    "(deleted)".to_owned(),
                    letters.to_string(),
                ]);
            }
            let _ = write!(out, "\n{}", table.text());
        }
        out
    }

    /// Channels with the most bytes.
    fn largest(&self) -> Vec<(&ChannelName, u64, u64)> {
        let mut all: Vec<_> = self.channels.iter().collect();
        all.sort_unstable_by(|a, b| (b.1.1, a.0.whole()).cmp(&(a.1.1, b.0.whole())));
        all.into_iter()
            .take(CHANNELS_SHOWN)
            .map(|(name, (entries, bytes))| (name, *entries, *bytes))
            .collect()
    }

    fn json(&self) -> serde_json::Value {
        let end = self.end();
        let channels: Vec<_> = self
            .largest()
            .into_iter()
            .map(|(name, entries, bytes)| {
                json!({ "channel": name.shown(), "entries": entries, "bytes": bytes })
            })
            .collect();
        let groups: Vec<_> = self
            .groups
            .iter()
            .map(|(name, channels)| json!({ "group": name, "channels": channels }))
            .collect();
        json!({
            "line": self.start.as_ref().map(|start| &start.line),
            "version": self.start.as_ref().map(|start| &start.version),
            "unix_ms": end.unix_ms,
            "first": end.first,
            "end": end.end,
            "entries": self.entries,
            "blocks": self.blocks,
            "bytes": self.bytes,
            "oldest_unix_ms": self.times.map(|times| times.0),
            "newest_unix_ms": self.times.map(|times| times.1),
            "channels": self.known,
            "largest_channels": channels,
            "idempotency_keys": self.keys,
            "groups": groups,
            "dead_letters": self.letters,
            "scheduled": self.scheduled,
            "problems": self.problem_count,
            "first_problems": self.problems,
        })
    }
}

/// A key for people: a number where it is one, else as much of it as is text.
fn shown_key(key: &[u8]) -> String {
    match <[u8; 8]>::try_from(key) {
        Ok(number) => u64::from_be_bytes(number).to_string(),
        Err(_) => String::from_utf8_lossy(key).chars().take(64).collect(),
    }
}
