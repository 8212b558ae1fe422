//! What a source has done and what is wrong with it, for metrics, `/ready` and the log.

use std::cell::RefCell;
use std::fmt::Display;

use tracing::{info, warn};

use super::offer::Fault;
use crate::config::sources::OutboxSource;
use crate::upstream::desk::unix_ms;

/// Rows that one line names of those that are left out.
const NAMED: usize = 10;

/// How a source does, for metrics.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SourceReport {
    /// Name.
    pub name: Box<str>,
    /// `postgres` or `kafka`.
    pub kind: &'static str,
    /// It reads and publishes.
    pub is_up: bool,
    /// Rows or records that it has published.
    pub published: u64,
    /// Of what it read, what was published before.
    pub repeated: u64,
    /// Rows or records that it has left out.
    pub skipped: u64,
    /// Times that it had to begin anew.
    pub failures: u64,
    /// Rows or records that it has still to read, as far as it knows.
    pub lag: u64,
    /// When it last knew that it had published everything up to some point, Unix milliseconds.
    pub last_success_unix_ms: Option<u64>,
}

/// See the module.
pub(super) struct Ledger(RefCell<State>);

struct State {
    report: SourceReport,
    batches: u64,
    /// Why it does not go on.
    trouble: Option<Box<str>>,
    /// What was left out last, and why.
    skipped: Option<Box<str>>,
}

impl Ledger {
    pub(super) fn new(spec: &OutboxSource) -> Self {
        let report = SourceReport {
            name: spec.name.as_str().into(),
            kind: spec.kind.name(),
            ..SourceReport::default()
        };
        Self(RefCell::new(State {
            report,
            batches: 0,
            trouble: None,
            skipped: None,
        }))
    }

    pub(super) fn report(&self) -> SourceReport {
        self.0.borrow().report.clone()
    }

    pub(super) fn warnings(&self) -> Vec<Box<str>> {
        let state = self.0.borrow();
        let name = &state.report.name;
        let trouble = state.trouble.iter();
        let trouble = trouble.map(|why| format!("source {name} does not go on: {why}").into());
        let skipped = state.skipped.iter().map(|what| {
            let count = state.report.skipped;
            format!("source {name} has left out {count} since the start, the last one {what}")
                .into()
        });
        trouble.chain(skipped).collect()
    }

    /// Batches that were read, published and done with, empty ones included.
    pub(super) fn batches(&self) -> u64 {
        self.0.borrow().batches
    }

    /// Counts what came of publications.
    pub(super) fn published(&self, new: u64, repeated: u64) {
        let report = &mut self.0.borrow_mut().report;
        report.published += new;
        report.repeated += repeated;
    }

    /// Counts and names what was left out, with the reasons.
    pub(super) fn skipped<N: Display>(&self, left: &[(N, String)]) {
        let Some((last, why)) = left.last() else {
            return;
        };
        let mut state = self.0.borrow_mut();
        state.report.skipped += left.len() as u64;
        state.skipped = Some(format!("{last}: {why}").into());
        let named: Vec<String> = left
            .iter()
            .take(NAMED)
            .map(|(name, why)| format!("{name} ({why})"))
            .collect();
        let (source, count) = (&state.report.name, left.len());
        let what = named.join(", ");
        warn!(%source, count, %what, "left out, as it cannot be published");
    }

    /// What was left out is read again: it may fit now.
    pub(super) fn tries_again(&self) {
        self.0.borrow_mut().skipped = None;
    }

    /// A batch is done with.
    pub(super) fn went_on(&self) {
        let mut state = self.0.borrow_mut();
        state.batches += 1;
        state.report.is_up = true;
        state.report.last_success_unix_ms = Some(unix_ms());
        if state.trouble.take().is_some() {
            info!(source = %state.report.name, "the source goes on");
        }
    }

    /// What is still to be read.
    pub(super) fn behind(&self, lag: u64) {
        self.0.borrow_mut().report.lag = lag;
    }

    /// It has to begin anew. Said once, until it goes on or fails for another reason.
    pub(super) fn failed(&self, fault: &Fault) {
        let mut state = self.0.borrow_mut();
        state.report.failures += 1;
        state.report.is_up = false;
        let why: Box<str> = fault.to_string().into();
        // A log that is down is said by itself.
        let is_said = state.trouble.as_ref() == Some(&why) || matches!(fault, Fault::Log(_));
        if !is_said {
            warn!(source = %state.report.name, %why, "the source does not go on; it is tried again");
        }
        state.trouble = Some(why);
    }
}
