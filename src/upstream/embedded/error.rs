//! Why the log cannot be opened or used, in words that say what to do.

use std::io;
use std::path::PathBuf;

/// Why the embedded log was not opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it.
    #[error(
        "the durable log in {directory} is in use by another process{owner}: stop that one, or set durable.embedded.directory"
    )]
    Locked {
        /// Where.
        directory: PathBuf,
        /// ` (process 42)`, if it has said who it is.
        owner: String,
    },
    /// It was written by a later version of this program.
    #[error(
        "the durable log in {directory} has format {found}, and this version knows formats up to {known}: start the version that wrote it, or set durable.embedded.directory to another one"
    )]
    Newer {
        /// Where.
        directory: PathBuf,
        /// What it says it is.
        found: String,
        /// What this version writes.
        known: u32,
    },
    /// It cannot be read.
    #[error(
        "the durable log in {directory} cannot be read: {reason}. Restore it from a copy, or move it away to start with an empty one"
    )]
    Corrupt {
        /// Where.
        directory: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// This process may not use it.
    #[error(
        "the durable log in {directory} may not be used by this process ({reason}): give its user the directory, or set durable.embedded.directory"
    )]
    Permission {
        /// Where.
        directory: PathBuf,
        /// The system's words.
        reason: String,
    },
    /// There is none, and none may be made.
    #[error(
        "there is no durable log in {directory}, and durable.embedded.create is false: mount its volume or restore it, or set durable.embedded.create = true for one start"
    )]
    Missing {
        /// Where.
        directory: PathBuf,
    },
    /// A restore into it was begun.
    #[error(
        "a restore into {directory} is not finished: run the same `ringmain log restore` again, it goes on where it ended"
    )]
    Unfinished {
        /// Where.
        directory: PathBuf,
    },
    /// The disk is full.
    #[error(
        "no space is left for the durable log in {directory} ({reason}): make room, or lower durable.retention_bytes"
    )]
    Full {
        /// Where.
        directory: PathBuf,
        /// The system's words.
        reason: String,
    },
    /// Anything else that the system says.
    #[error("the durable log in {directory} cannot be opened: {reason}")]
    Io {
        /// Where.
        directory: PathBuf,
        /// The system's words.
        reason: String,
    },
}

impl OpenError {
    pub(super) fn of_io(directory: &std::path::Path, error: &io::Error) -> Self {
        let directory = directory.to_owned();
        let reason = error.to_string();
        match error.kind() {
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                Self::Permission { directory, reason }
            }
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Self::Full { directory, reason }
            }
            _ => Self::Io { directory, reason },
        }
    }

    pub(super) fn of_fjall(directory: &std::path::Path, error: &fjall::Error) -> Self {
        match error {
            fjall::Error::Io(error) | fjall::Error::Storage(fjall::LsmError::Io(error)) => {
                Self::of_io(directory, error)
            }
            fjall::Error::Locked => Self::Locked {
                directory: directory.to_owned(),
                owner: String::new(),
            },
            fjall::Error::InvalidVersion(found) => Self::Newer {
                directory: directory.to_owned(),
                found: found.map_or_else(
                    || "of a storage library that is not known".to_owned(),
                    |found| format!("{found} of the storage library"),
                ),
                known: super::FORMAT,
            },
            _ => Self::Corrupt {
                directory: directory.to_owned(),
                reason: words(error),
            },
        }
    }
}

/// What has gone wrong, for people.
pub(super) fn words(error: &fjall::Error) -> String {
    match error {
        fjall::Error::Io(error) | fjall::Error::Storage(fjall::LsmError::Io(error)) => {
            error.to_string()
        }
        fjall::Error::Poisoned => "an earlier write has failed".to_owned(),
        fjall::Error::JournalRecovery(error) => format!("its journal is damaged ({error:?})"),
        fjall::Error::Storage(fjall::LsmError::ChecksumMismatch { .. }) => {
            "a stored block does not have its checksum".to_owned()
        }
        fjall::Error::Unrecoverable | fjall::Error::Storage(fjall::LsmError::Unrecoverable) => {
            "files of it are missing".to_owned()
        }
        _ => format!("it is damaged ({error:?})"),
    }
}
