//! `ringmain log`: the embedded log as a whole. Backups, and what is in them.

mod append;
mod backup;
mod compact;
mod engine;
mod export;
mod import;
mod lines;
mod moving;
mod progress;
mod repository;
mod restore;
mod source;
mod survey;

use std::path::PathBuf;

use super::{TargetArgs, ToolError};
use crate::config::Config;
use crate::config::durable::Engine;

/// `ringmain log`
#[derive(Clone, Debug, clap::Args)]
pub struct LogArgs {
    /// What to do
    #[command(subcommand)]
    pub action: LogAction,
}

/// What is done with a log.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum LogAction {
    /// Back the log of a running proxy up into a directory; what is there already is not read again
    Backup(BackupArgs),
    /// Make a log out of a backup
    Restore(RestoreArgs),
    /// Read every entry of a log or a backup, with its checksum
    Verify(LookArgs),
    /// Say what is in a log or a backup
    Inspect(LookArgs),
    /// Rewrite the files of a log that no process uses, so that they take the least space
    Compact(CompactArgs),
    /// Write entries as text, one JSON object a line, oldest first
    Export(ExportArgs),
    /// Append entries that `export` has written
    Import(ImportArgs),
    /// Move the log, embedded or in JetStream, into that of another configuration
    Move(MoveArgs),
}

/// A first backup holds everything that is kept; each one after it adds what has come since, and forgets what retention has taken.
/// An interrupted one goes on where it ended. Exit status: 0 the backup is complete, 1 it is not, 2 wrong usage.
#[derive(Clone, Debug, clap::Args)]
pub struct BackupArgs {
    /// Where backups of this log are
    #[arg(value_name = "DIR")]
    pub directory: PathBuf,
    /// Back up the log in this directory, which no process uses, instead of a running proxy's
    #[arg(long, value_name = "DIRECTORY", conflicts_with_all = ["address", "key", "api_key"])]
    pub log: Option<PathBuf>,
    /// Megabytes a second at most; 0 for no limit
    #[arg(long, default_value_t = 64, value_name = "MB")]
    pub rate: u64,
    /// Server
    #[command(flatten)]
    pub target: TargetArgs,
}

/// Clients learn that the channels are not the ones that they have seen, because what was published after the backup is gone.
/// With --same-epochs they do not: use that where nothing was published since, as in a move to another disk.
#[derive(Clone, Debug, clap::Args)]
pub struct RestoreArgs {
    /// Where the backup is
    #[arg(value_name = "DIR")]
    pub directory: PathBuf,
    /// Where the log is made [default: durable.embedded.directory]
    #[arg(long, value_name = "DIRECTORY")]
    pub to: Option<PathBuf>,
    /// Keep the epochs of the channels
    #[arg(long)]
    pub same_epochs: bool,
}

/// Exit status: 0 all of it can be read, 1 something is damaged or missing, 2 wrong usage.
#[derive(Clone, Debug, clap::Args)]
pub struct LookArgs {
    /// A backup, or a log that no process uses [default: the log of the running proxy]
    #[arg(value_name = "DIR", conflicts_with_all = ["address", "key", "api_key"])]
    pub directory: Option<PathBuf>,
    /// One JSON object instead of text
    #[arg(long)]
    pub json: bool,
    /// Server
    #[command(flatten)]
    pub target: TargetArgs,
}

/// The log must not be in use.
#[derive(Clone, Debug, clap::Args)]
pub struct CompactArgs {
    /// The log [default: durable.embedded.directory]
    #[arg(value_name = "DIRECTORY")]
    pub directory: Option<PathBuf>,
}

/// With --output, a command that was interrupted goes on behind the last whole line when it is given again with --resume.
#[derive(Clone, Debug, clap::Args)]
pub struct ExportArgs {
    /// A backup, or a log that no process uses [default: the log of the running proxy, or JetStream as configured]
    #[arg(value_name = "DIR", conflicts_with_all = ["address", "key", "api_key"])]
    pub directory: Option<PathBuf>,
    /// Channel, or pattern with `*`; may be repeated [default: all]
    #[arg(long = "channel", value_name = "PATTERN")]
    pub channels: Vec<String>,
    /// Write here instead of standard output
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Go on with a file that an interrupted command has left
    #[arg(long, requires = "output")]
    pub resume: bool,
    /// Server
    #[command(flatten)]
    pub target: TargetArgs,
}

/// Entries keep their ids, times, keys and tags, and get the next offsets of their channels. Lines that are among the last entries of
/// the log already are left out, so an interrupted command may be given again with --resume. Lines of other programs need `channel` and `data`.
#[derive(Clone, Debug, clap::Args)]
pub struct ImportArgs {
    /// What `export` has written; `-` is standard input
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// The embedded log to append to, which no process uses [default: the configured log, embedded or in JetStream]
    #[arg(long, value_name = "DIRECTORY")]
    pub to: Option<PathBuf>,
    /// Go on where an interrupted import of the same file ended
    #[arg(long)]
    pub resume: bool,
}

/// Entries keep their ids, times, keys and tags, and get new offsets and epochs: clients learn that the channels are not the ones that
/// they have seen. Without --finish the entries of a running proxy are copied, as often as you like. With --finish, once it has stopped,
/// the rest follows: queue groups with what they have not done, dead letters, schemas. The log that is moved stays as it is.
#[derive(Clone, Debug, clap::Args)]
pub struct MoveArgs {
    /// Configuration whose durable log is moved into
    #[arg(long, value_name = "CONFIG")]
    pub to: PathBuf,
    /// The proxy has stopped: move what is left
    #[arg(long)]
    pub finish: bool,
    /// Server
    #[command(flatten)]
    pub target: TargetArgs,
}

impl LogArgs {
    /// Which server, where one may be asked.
    #[must_use]
    pub const fn target(&self) -> Option<&TargetArgs> {
        match &self.action {
            LogAction::Backup(args) => Some(&args.target),
            LogAction::Verify(args) | LogAction::Inspect(args) => Some(&args.target),
            LogAction::Export(args) => Some(&args.target),
            LogAction::Move(args) => Some(&args.target),
            LogAction::Restore(_) | LogAction::Compact(_) | LogAction::Import(_) => None,
        }
    }

    /// Whether the configuration matters: else none is needed.
    #[must_use]
    pub const fn needs_configuration(&self) -> bool {
        match &self.action {
            LogAction::Backup(args) => args.log.is_none(),
            LogAction::Verify(args) | LogAction::Inspect(args) => args.directory.is_none(),
            LogAction::Export(args) => args.directory.is_none(),
            LogAction::Restore(args) => args.to.is_none(),
            LogAction::Compact(args) => args.directory.is_none(),
            LogAction::Import(args) => args.to.is_none(),
            LogAction::Move(_) => true,
        }
    }
}

/// Runs `ringmain log`.
///
/// # Errors
/// See `ToolError`.
pub fn log(config: &Config, args: &LogArgs) -> Result<(), ToolError> {
    match &args.action {
        LogAction::Backup(args) => backup::run(config, args),
        LogAction::Restore(args) => restore::run(&directory(config, args.to.as_ref())?, args),
        LogAction::Verify(args) => survey::verify(config, args),
        LogAction::Inspect(args) => survey::inspect(config, args),
        LogAction::Compact(args) => compact::run(&directory(config, args.directory.as_ref())?),
        LogAction::Export(args) => export::run(config, args),
        LogAction::Import(args) => import::run(config, args),
        LogAction::Move(args) => moving::run(config, args),
    }
}

/// The directory of an embedded log: the one that is named, or the configured one.
fn directory(config: &Config, named: Option<&PathBuf>) -> Result<PathBuf, ToolError> {
    match (named, config.durable.engine) {
        (Some(named), _) => Ok(named.clone()),
        (None, Engine::Embedded) => Ok(config.durable.embedded.directory.clone()),
        (None, Engine::Nats) => Err(ToolError::Usage(
            "the configured log is in JetStream: name the directory of an embedded one".to_owned(),
        )),
    }
}
