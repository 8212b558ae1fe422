//! Where log lines go: standard error, readable on a terminal, one JSON object a line otherwise.

use std::io::{IsTerminal, stderr};

use tracing_subscriber::EnvFilter;

use crate::config::{Log, LogFormat};

/// Changes the level of the running process.
pub type SetLevel = Box<dyn Fn(&Log)>;

/// Installs the subscriber. Called once, before the first line of the log.
#[must_use]
pub fn install(log: &Log) -> SetLevel {
    let terminal = stderr().is_terminal();
    let human = match log.format {
        LogFormat::Auto => terminal,
        LogFormat::Human => true,
        LogFormat::Json => false,
    };
    let builder = tracing_subscriber::fmt().with_writer(stderr);
    // A handle whose subscriber is gone cannot matter: the subscriber lives as long as the process.
    if human {
        let builder = builder
            .with_ansi(terminal)
            .with_target(false)
            .with_env_filter(filter(log))
            .with_filter_reloading();
        let handle = builder.reload_handle();
        builder.init();
        Box::new(move |log| drop(handle.reload(filter(log))))
    } else {
        let builder = builder
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .with_span_list(false);
        let builder = builder.with_env_filter(filter(log)).with_filter_reloading();
        let handle = builder.reload_handle();
        builder.init();
        Box::new(move |log| drop(handle.reload(filter(log))))
    }
}

/// The level is the program's own; libraries speak from `warn` on.
fn filter(log: &Log) -> EnvFilter {
    let library = if log.level == "error" {
        "error"
    } else {
        "warn"
    };
    EnvFilter::new(format!("{library},ringmain={}", log.level))
}
