//! What an interrupted replay remembers, and where its events go.

use std::fs::{File, OpenOptions};
use std::io::{Seek as _, SeekFrom, Stdout, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::ToolError;

/// A file's place is kept this often: what was written since is cut off and written again.
const KEEP_INTERVAL: Duration = Duration::from_secs(1);
/// Bytes of a file with a place.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// How far a replay is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Place {
    /// What is replayed, as the server API takes it.
    pub(super) query: Value,
    /// Behind what is written; `None` before anything is.
    pub(super) cursor: Option<String>,
    /// Events written.
    pub(super) events: u64,
    /// Bytes written.
    pub(super) bytes: u64,
    /// Nothing is left.
    pub(super) done: bool,
}

impl Place {
    /// The beginning.
    pub(super) const fn new(query: Value) -> Self {
        Self {
            query,
            cursor: None,
            events: 0,
            bytes: 0,
            done: false,
        }
    }

    /// What the file holds, if there is one. Times of a new command count for nothing: those of the first one stay.
    pub(super) fn load(path: &Path, query: &Value) -> Result<Option<Self>, ToolError> {
        let len = match std::fs::metadata(path) {
            Ok(metadata) => metadata.len(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(ToolError::file(path.display(), error)),
        };
        let wrong = |text: &str| ToolError::Usage(format!("--resume {}: {text}", path.display()));
        if len > FILE_BYTES_MAX {
            return Err(wrong("this is no file of a replay"));
        }
        let bytes = std::fs::read(path).map_err(|error| ToolError::file(path.display(), error))?;
        let place: Self =
            serde_json::from_slice(&bytes).map_err(|_| wrong("this is no file of a replay"))?;
        for key in ["channels", "where", "into"] {
            if place.query.get(key) != query.get(key) {
                let text = format!(
                    "it belongs to a replay with another {key} ({}); take the same options, or another file",
                    place.query.get(key).unwrap_or(&Value::Null)
                );
                return Err(wrong(&text));
            }
        }
        Ok(Some(place))
    }

    /// The file appears whole or not at all.
    fn store(&self, path: &Path) -> Result<(), ToolError> {
        let mut partial = path.as_os_str().to_owned();
        partial.push(".partial");
        let text = serde_json::to_string(self).unwrap_or_default();
        std::fs::write(&partial, format!("{text}\n"))
            .and_then(|()| std::fs::rename(&partial, path))
            .map_err(|error| ToolError::file(path.display(), error))
    }
}

/// Where events go.
enum Output {
    Stdout(Stdout),
    File(File, PathBuf),
    /// The server appends them itself.
    Server,
}

/// Writes events and keeps the place.
pub(super) struct Writer {
    output: Output,
    resume: Option<PathBuf>,
    place: Place,
    kept: Instant,
}

impl Writer {
    /// Goes on at `place`: what a file has behind it is cut off.
    pub(super) fn open(
        place: Place,
        output: Option<&Path>,
        resume: Option<&Path>,
        is_into: bool,
    ) -> Result<Self, ToolError> {
        let output = match output {
            Some(path) => {
                let error = |error| ToolError::file(path.display(), error);
                let mut options = OpenOptions::new();
                let mut file = options
                    .write(true)
                    .create(true)
                    .truncate(false)
                    .open(path)
                    .map_err(error)?;
                let metadata = file.metadata().map_err(error)?;
                // A pipe or a device has no length to go back to.
                if metadata.is_file() {
                    if metadata.len() < place.bytes {
                        return Err(ToolError::Usage(format!(
                            "--output {}: it is shorter than --resume says; remove the resume file to begin anew",
                            path.display()
                        )));
                    }
                    file.set_len(place.bytes).map_err(error)?;
                    file.seek(SeekFrom::End(0)).map_err(error)?;
                }
                Output::File(file, path.to_owned())
            }
            None if is_into => Output::Server,
            None => Output::Stdout(std::io::stdout()),
        };
        Ok(Self {
            output,
            resume: resume.map(Path::to_owned),
            place,
            kept: now(),
        })
    }

    /// How far it is.
    pub(super) const fn place(&self) -> &Place {
        &self.place
    }

    /// Writes a page, then keeps its end. `false` if the reader of standard output has gone.
    pub(super) fn write(
        &mut self,
        lines: &[u8],
        events: u64,
        next: &str,
        done: bool,
    ) -> Result<bool, ToolError> {
        let is_due = match &mut self.output {
            Output::Stdout(stdout) => {
                let mut lock = stdout.lock();
                match lock.write_all(lines).and_then(|()| lock.flush()) {
                    Ok(()) => {}
                    Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => {
                        return Ok(false);
                    }
                    Err(error) => return Err(ToolError::file("standard output", error)),
                }
                true
            }
            Output::File(file, path) => {
                file.write_all(lines)
                    .map_err(|error| ToolError::file(path.display(), error))?;
                done || self.kept.elapsed() >= KEEP_INTERVAL
            }
            Output::Server => true,
        };
        self.place.cursor = Some(next.to_owned());
        self.place.events += events;
        self.place.bytes += lines.len() as u64;
        self.place.done = done;
        if is_due {
            self.keep()?;
        }
        Ok(true)
    }

    /// Stores the place of what is written.
    pub(super) fn keep(&mut self) -> Result<(), ToolError> {
        if let Output::File(file, path) = &mut self.output
            && (self.resume.is_some() || self.place.done)
            && file.metadata().is_ok_and(|metadata| metadata.is_file())
        {
            file.sync_data()
                .map_err(|error| ToolError::file(path.display(), error))?;
        }
        self.kept = now();
        match &self.resume {
            Some(path) => self.place.store(path),
            None => Ok(()),
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a command line program has a clock"
)]
pub(super) fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_replay_goes_on_where_its_file_says_and_cuts_off_what_came_later() {
        let directory = tempfile::tempdir().unwrap();
        let (output, resume) = (directory.path().join("out"), directory.path().join("place"));
        let query = json!({ "channels": ["a:*"], "to": { "time": 1 } });
        assert_eq!(Place::load(&resume, &query).unwrap(), None);
        let mut writer = Writer::open(
            Place::new(query.clone()),
            Some(&output),
            Some(&resume),
            false,
        )
        .unwrap();
        writer.write(b"one\n", 1, "c1", false).unwrap();
        writer.keep().unwrap();
        writer.write(b"two\n", 1, "c2", false).unwrap();
        drop(writer);
        let later = json!({ "channels": ["a:*"], "to": { "time": 2 } });
        let place = Place::load(&resume, &later).unwrap().unwrap();
        assert_eq!((place.cursor.as_deref(), place.events), (Some("c1"), 1));
        assert_eq!(place.query, query, "the times of the first command stay");
        let mut writer = Writer::open(place, Some(&output), Some(&resume), false).unwrap();
        writer.write(b"TWO\n", 1, "c2", true).unwrap();
        assert_eq!(std::fs::read_to_string(&output).unwrap(), "one\nTWO\n");
        assert!(Place::load(&resume, &query).unwrap().unwrap().done);
    }

    #[test]
    fn a_file_of_another_replay_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("place");
        Place::new(json!({ "channels": ["a:*"] }))
            .store(&path)
            .unwrap();
        let refused = Place::load(&path, &json!({ "channels": ["b:*"] })).unwrap_err();
        assert!(
            refused.is_usage() && refused.to_string().contains("channels"),
            "{refused}"
        );
        std::fs::write(&path, "{}").unwrap();
        assert!(Place::load(&path, &json!({})).unwrap_err().is_usage());
        std::fs::write(directory.path().join("out"), "").unwrap();
        let place = Place {
            bytes: 5,
            ..Place::new(json!({}))
        };
        let output = directory.path().join("out");
        assert!(
            Writer::open(place, Some(&output), None, false)
                .err()
                .unwrap()
                .is_usage()
        );
    }
}
