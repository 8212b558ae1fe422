//! `ringmain log restore`

use std::path::Path;

use super::progress::Progress;
use super::repository::Repository;
use super::{RestoreArgs, ToolError};
use crate::tools::interrupt::Interrupt;
use crate::tools::when;
use crate::upstream::copy::Frame;
use crate::upstream::embedded::{Rebuild, TRIMS};

/// Runs it.
pub(super) fn run(to: &Path, args: &RestoreArgs) -> Result<(), ToolError> {
    let (repository, manifest) = Repository::open(&args.directory)?;
    let what = format!(
        "{} {} {} {}",
        manifest.line, manifest.end, manifest.unix_ms, args.same_epochs
    );
    let mut rebuild = Rebuild::begin(to, &what, !args.same_epochs)?;
    let kept = manifest.first..=manifest.end;
    let entries: u64 = manifest.entries.iter().map(|part| part.bytes).sum();
    let progress = Progress::new(Some(entries + manifest.state.bytes), "restoring");
    let interrupt = Interrupt::listen();
    // What is known of the channels comes first: their entries follow it.
    for part in std::iter::once(&manifest.state).chain(&manifest.entries) {
        let is_entries = part.file != manifest.state.file;
        if is_entries && rebuild.has(&part.file) {
            progress.add(usize::try_from(part.bytes).unwrap_or(usize::MAX));
            continue;
        }
        let is_whole = repository.read(part, &mut |frame, bytes| {
            progress.add(bytes);
            if let Frame::Rows(rows) = frame
                && &*rows.keyspace != TRIMS
            {
                rebuild.put(&rows, &kept)?;
            }
            Ok(!interrupt.is_asked())
        })?;
        if !is_whole {
            return Err(ToolError::Interrupted(
                "the same command goes on where it ended",
            ));
        }
        if is_entries {
            rebuild.finish_part(&part.file)?;
        }
    }
    rebuild.finish()?;
    drop(progress);
    println!(
        "{}: the log as it was at {}, entries {} to {}",
        to.display(),
        when::shown(manifest.unix_ms),
        manifest.first,
        manifest.end
    );
    Ok(())
}
