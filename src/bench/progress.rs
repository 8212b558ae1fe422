//! A progress bar on a terminal, nothing elsewhere.

use indicatif::{ProgressBar, ProgressStyle};

/// One phase of a run.
pub(crate) struct Progress(ProgressBar);

impl Progress {
    /// A phase that ends at `len`.
    #[must_use]
    pub(crate) fn new(phase: &str, len: u64) -> Self {
        // Hidden by itself when standard error is no terminal.
        let bar = ProgressBar::new(len);
        if let Ok(style) = ProgressStyle::with_template("{prefix:>24} [{bar:40}] {percent:>3} %") {
            bar.set_style(style);
        }
        bar.set_prefix(phase.to_owned());
        Self(bar)
    }

    /// How far the phase is.
    pub(crate) fn set(&self, position: u64) {
        if position != self.0.position() {
            self.0.set_position(position);
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
