//! `ringmain support-bundle`: what a maintainer asks for first, in one file, without secrets. It is listed before it is written.

mod clean;
mod host;

use std::fs;
use std::io::{self, BufRead as _, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;

use super::examination::{self, Examination};
use super::{TargetArgs, ToolError, when};
use crate::config::Config;
use crate::doctor;
use clean::Cleaner;

/// Bytes of the end of a log that go in.
const LOG_BYTES_MAX: u64 = 1 << 20;
/// The directory in the archive.
const INSIDE: &str = "ringmain-support";

/// Secrets of the configuration are taken out of everything, URLs and headers of hooks included. Nothing is sent anywhere.
///
/// Status 0 if the file is written, 1 if it is not.
#[derive(Clone, Debug, clap::Args)]
pub struct BundleArgs {
    /// Where it is written [default: ringmain-support-TIME.tar.gz in this directory]
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// A log file of the proxy, whose last lines go in too
    #[arg(long, value_name = "FILE")]
    pub log: Option<PathBuf>,
    /// Write without asking
    #[arg(long)]
    pub yes: bool,
    /// Server
    #[command(flatten)]
    pub target: TargetArgs,
}

/// What the caller knows.
#[derive(Clone, Debug)]
pub struct About {
    /// Version and commit of this program.
    pub version: String,
    /// Where the configuration was read.
    pub source: String,
    /// Names of the variables of the environment.
    pub variables: Vec<String>,
}

/// A file of the bundle.
struct Part {
    name: &'static str,
    about: &'static str,
    text: String,
}

/// Lists what there is, asks, and writes it.
///
/// # Errors
/// See `ToolError`.
pub fn write(config: &Config, about: &About, args: &BundleArgs) -> Result<(), ToolError> {
    let parts = parts(config, about, args)?;
    let output = args.output.clone().unwrap_or_else(|| {
        let time = when::shown(when::unix_ms()).replace([':', '-'], "");
        PathBuf::from(format!("ringmain-support-{time}.tar.gz"))
    });
    let list = listed(&parts, &output);
    let mut terminal = io::stderr().lock();
    let told = terminal.write_all(list.as_bytes());
    told.map_err(|error| ToolError::file("standard error", error))?;
    if !args.yes && !is_wanted()? {
        return Err(ToolError::Nothing("nothing was written".to_owned()));
    }
    let failed = |error| ToolError::file(output.display(), error);
    archive(&output, &parts).map_err(failed)?;
    let words = format!(
        "ringmain: {} is written; look into it before you send it\n",
        output.display()
    );
    // It is written, whether anybody reads that or not.
    let _ = terminal.write_all(words.as_bytes());
    Ok(())
}

fn listed(parts: &[Part], output: &Path) -> String {
    let mut out = String::from("This goes into the bundle, without secrets:\n\n");
    for Part { name, about, text } in parts {
        out.push_str(&format!("  {:>9} bytes  {name:<20} {about}\n", text.len()));
    }
    out.push_str(&format!("\nIt is written to {}.\n", output.display()));
    out
}

/// An answer that is no yes is a no; so is none.
fn is_wanted() -> Result<bool, ToolError> {
    let failed = |error| ToolError::file("standard input", error);
    io::stderr()
        .write_all(b"Write it? [y/N] ")
        .map_err(|error| ToolError::file("standard error", error))?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer).map_err(failed)?;
    let answer = answer.trim().to_ascii_lowercase();
    Ok(matches!(answer.as_str(), "y" | "yes"))
}

fn parts(config: &Config, about: &About, args: &BundleArgs) -> Result<Vec<Part>, ToolError> {
    let Examination { findings, pages } = examination::whole(config, &args.target);
    let mut lines = Vec::new();
    doctor::print(&findings, &mut lines).map_err(|error| ToolError::file("memory", error))?;
    let pid = pages.as_ref().ok().and_then(|it| it.ready["pid"].as_u64());
    let mut variables = about.variables.clone();
    variables.sort_unstable();
    let mut parts = vec![
        Part {
            name: "about.txt",
            about: "version, time, and where the configuration is from",
            text: format!(
                "ringmain {}\n{}\nconfiguration: {}\n",
                about.version,
                when::shown(when::unix_ms()),
                about.source
            ),
        },
        Part {
            name: "doctor.txt",
            about: "what ringmain doctor says",
            text: String::from_utf8_lossy(&lines).into_owned(),
        },
        Part {
            name: "doctor.json",
            about: "the same for programs",
            text: doctor::json(&findings),
        },
        Part {
            name: "configuration.toml",
            about: "the configuration as ringmain check prints it",
            text: config.effective(),
        },
        Part {
            name: "host.txt",
            about: "kernel, limits, cgroup, memory, network counters",
            text: host::read(pid),
        },
        Part {
            name: "environment.txt",
            about: "names of variables, no values",
            text: variables.join("\n") + "\n",
        },
    ];
    match pages {
        Err(reason) => parts.push(Part {
            name: "proxy.txt",
            about: "why the running proxy did not answer",
            text: format!("{reason}\n"),
        }),
        Ok(pages) => {
            parts.push(Part {
                name: "ready.json",
                about: "/ready of the running proxy",
                text: pages.ready.to_string(),
            });
            parts.push(Part {
                name: "metrics.txt",
                about: "/metrics of the running proxy",
                text: pages.metrics,
            });
            parts.push(Part {
                name: "groups.json",
                about: "queue groups of the running proxy",
                text: pages
                    .groups
                    .map_or_else(|reason| reason, |groups| groups.to_string()),
            });
        }
    }
    if let Some(path) = &args.log {
        let failed = |error| ToolError::file(path.display(), error);
        parts.push(Part {
            name: "log.txt",
            about: "the last lines of the log",
            text: end_of(path).map_err(failed)?,
        });
    }
    let cleaner = Cleaner::new(config, args);
    for part in &mut parts {
        part.text = cleaner.clean(&part.text);
    }
    Ok(parts)
}

/// Whole lines at the end of a file.
fn end_of(path: &Path) -> io::Result<String> {
    let mut file = fs::File::open(path)?;
    let len = file.metadata()?.len();
    let from = len.saturating_sub(LOG_BYTES_MAX);
    file.seek(SeekFrom::Start(from))?;
    let mut bytes = Vec::new();
    file.take(LOG_BYTES_MAX).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    Ok(match text.split_once('\n') {
        Some((_, lines)) if from > 0 => lines.to_owned(),
        _ => text,
    })
}

/// Only its owner may read it. A file that is there is left alone.
fn archive(output: &Path, parts: &[Part]) -> io::Result<()> {
    let file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(output)?;
    let mut archive = tar::Builder::new(GzEncoder::new(file, Compression::default()));
    for Part { name, text, .. } in parts {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o600);
        header.set_mtime(when::unix_ms() / 1000);
        let path = format!("{INSIDE}/{name}");
        archive.append_data(&mut header, path, text.as_bytes())?;
    }
    archive.into_inner()?.finish()?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_long_log_begins_with_a_whole_line() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let line = "x".repeat(99) + "\n";
        fs::write(&path, line.repeat(20_000)).unwrap();
        let text = end_of(&path).unwrap();
        assert!(text.len() as u64 <= LOG_BYTES_MAX && text.len() > 1_000_000);
        assert!(text.lines().all(|one| one.len() == 99));
        fs::write(&path, "short\n").unwrap();
        assert_eq!(end_of(&path).unwrap(), "short\n");
    }

    #[test]
    fn a_file_that_is_there_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("bundle");
        fs::write(&path, "precious").unwrap();
        assert!(archive(&path, &[]).is_err());
        assert_eq!(fs::read(&path).unwrap(), b"precious");
    }
}
