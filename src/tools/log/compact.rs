//! `ringmain log compact`

use std::path::Path;

use super::ToolError;
use crate::upstream::embedded::compact;

const MEGABYTE: f64 = (1u64 << 20) as f64;

/// Runs it.
pub(super) fn run(directory: &Path) -> Result<(), ToolError> {
    if !directory.join("format").exists() {
        let text = format!("{} holds no log", directory.display());
        return Err(ToolError::Usage(text));
    }
    let (before, after) = compact(directory)?;
    println!(
        "{}: {:.1} MB before, {:.1} MB now",
        directory.display(),
        before as f64 / MEGABYTE,
        after as f64 / MEGABYTE
    );
    Ok(())
}
