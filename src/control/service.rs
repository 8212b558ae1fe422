//! What a service manager is told (`sd_notify(3)`), where one has started this process: its phase, how it does in one line,
//! and that it makes progress.

use std::time::Duration;

use sd_notify::NotifyState;
use tokio::time::Instant;
use tracing::debug;

use super::admin::{Admin, Phase, Readiness};
use super::observe::Observation;
use crate::upstream::bridge::Report as LogReport;

/// It is told how this process does at least this often.
const INTERVAL: Duration = Duration::from_secs(5);
/// The same while draining.
const DRAIN_INTERVAL: Duration = Duration::from_secs(1);
/// What each word while draining gives: a process that says nothing any more is not waited for.
const DRAIN_EXTENSION: Duration = Duration::from_secs(15);
/// Time to close the durable log.
const CLOSE_EXTENSION: Duration = Duration::from_secs(60);
/// The bridge's thread reports far more often than this.
const LOG_SILENCE: Duration = Duration::from_secs(2);
/// Characters of a line that people read.
const LINE_CHARS: usize = 400;

/// The line to the service manager; one that nobody reads where there is none.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Service {
    is_there: bool,
    watchdog: Option<Duration>,
}

impl Service {
    /// What whoever started this process has said of itself.
    pub(super) fn of_environment() -> Self {
        Self {
            is_there: std::env::var_os("NOTIFY_SOCKET").is_some_and(|path| !path.is_empty()),
            watchdog: sd_notify::watchdog_enabled(),
        }
    }

    fn say(self, states: &[NotifyState<'_>]) {
        if self.is_there
            && let Err(error) = sd_notify::notify(states)
        {
            debug!(%error, "the service manager cannot be told");
        }
    }

    /// Everything listens.
    pub(super) fn ready(self) {
        self.say(&[NotifyState::Ready]);
    }

    /// The configuration is read again.
    pub(super) fn reloading(self) {
        let states = NotifyState::monotonic_usec_now().map(|now| [NotifyState::Reloading, now]);
        if let Ok(states) = states {
            self.say(&states);
        }
    }

    /// What came of it.
    pub(super) fn reloaded(self, refused: Option<&str>) {
        match refused {
            None => self.say(&[NotifyState::Ready]),
            Some(reason) => self.say(&[
                NotifyState::Ready,
                NotifyState::Status(&line(&format!("reload refused: {reason}"))),
            ]),
        }
    }

    /// Nothing is reloaded any more.
    pub(super) fn reload_refused_at_the_end(self) {
        self.say(&[NotifyState::Status("reload refused: draining")]);
    }

    /// The process is on its way out.
    pub(super) fn stopping(self) {
        self.say(&[
            NotifyState::Stopping,
            extension(DRAIN_EXTENSION),
            NotifyState::Status("draining"),
        ]);
    }

    /// All shards have ended.
    pub(super) fn closing(self) {
        self.say(&[
            extension(CLOSE_EXTENSION),
            NotifyState::Status("closing what is left"),
        ]);
    }
}

fn extension(time: Duration) -> NotifyState<'static> {
    NotifyState::ExtendTimeoutUsec(u32::try_from(time.as_micros()).unwrap_or(u32::MAX))
}

/// Tells the service manager how this process does, until it ends. A shard, the bridge's thread or the control thread that
/// stands still leaves the watchdog without a word.
pub(super) async fn attend(service: Service, mut admin: Admin) {
    if !service.is_there {
        return;
    }
    let mut log = LogSeen::new();
    loop {
        let observation = admin.observe().await.unwrap_or_default();
        let readiness = admin.readiness.borrow_and_update().clone();
        let report = admin.log.as_mut().map(|log| {
            let has_spoken = log.report.has_changed().unwrap_or(false);
            (log.report.borrow_and_update().clone(), has_spoken)
        });
        let is_log_silent = report
            .as_ref()
            .is_some_and(|(_, has_spoken)| log.is_silent(*has_spoken));
        let report = report.map(|(report, _)| report);
        let text = status(&readiness, &observation, report.as_ref(), is_log_silent);
        let mut states = vec![NotifyState::Status(&text)];
        let is_draining = readiness.phase == Phase::Draining;
        if is_draining {
            states.push(extension(DRAIN_EXTENSION));
        }
        // Shards that have drained answer no more. A drain has a deadline of its own.
        let makes_progress = observation.iter().all(Option::is_some)
            && observation.len() == readiness.shards
            && !is_log_silent;
        if service.watchdog.is_some() && (makes_progress || is_draining) {
            states.push(NotifyState::Watchdog);
        }
        service.say(&states);
        let most = if is_draining {
            DRAIN_INTERVAL
        } else {
            INTERVAL
        };
        let pause = service.watchdog.map_or(most, |limit| most.min(limit / 4));
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            Ok(()) = admin.readiness.changed() => {}
        }
    }
}

/// When the bridge's thread was last heard of.
struct LogSeen(Instant);

impl LogSeen {
    fn new() -> Self {
        Self(Instant::now())
    }

    fn is_silent(&mut self, has_spoken: bool) -> bool {
        if has_spoken {
            self.0 = Instant::now();
        }
        self.0.elapsed() > LOG_SILENCE
    }
}

/// One line for whoever asks how the service does: what matters comes first.
fn status(
    readiness: &Readiness,
    observation: &Observation,
    log: Option<&LogReport>,
    is_log_silent: bool,
) -> String {
    let answered = || observation.iter().flatten();
    let connections: u64 = answered().map(|counters| counters.connections).sum();
    let of = |count: u64| match count {
        1 => "1 connection".to_owned(),
        count => format!("{count} connections"),
    };
    let Readiness {
        phase,
        shards,
        shards_ready,
        reactor,
        ref warnings,
        ref reload,
        ..
    } = *readiness;
    let mut parts = vec![match phase {
        Phase::Starting => format!("starting: {shards_ready} of {shards} shards listen"),
        Phase::Serving => {
            let shards = if shards == 1 {
                "1 shard".to_owned()
            } else {
                format!("{shards} shards")
            };
            format!("serving {} on {shards} ({reactor})", of(connections))
        }
        Phase::Draining => format!("draining: {} left", of(connections)),
    }];
    if phase == Phase::Serving {
        let silent = observation.iter().enumerate();
        let silent = silent.filter(|(_, counters)| counters.is_none());
        parts.extend(silent.map(|(shard, _)| format!("shard {shard} does not answer")));
        if is_log_silent {
            parts.push("the thread of the durable log does not answer".to_owned());
        }
    }
    if let Some(LogReport { status, .. }) = log {
        if let Some(reason) = &status.down {
            parts.push(format!("durable log down: {reason}"));
        }
        parts.extend(status.warnings.iter().map(ToString::to_string));
    }
    if let Some(reason) = &reload.refused {
        parts.push(format!("reload refused: {reason}"));
    }
    parts.extend(warnings.iter().cloned());
    line(&parts.join("; "))
}

/// As one line that is not too long. A line break would begin another word to the service manager.
fn line(text: &str) -> String {
    let words: Vec<&str> = text.split_whitespace().collect();
    let text = words.join(" ");
    match text.char_indices().nth(LINE_CHARS) {
        None => text,
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::process::Reload;
    use crate::mesh::control::TableKind;
    use crate::metrics::Counters;

    fn readiness(phase: Phase) -> Readiness {
        Readiness {
            phase,
            shards: 2,
            shards_ready: 2,
            reactor: "uring",
            filling: [0; TableKind::ALL.len()],
            warnings: vec!["shard 0: 90 of 100 possible connections".to_owned()],
            reload: Reload::default(),
        }
    }

    fn counters(connections: u64) -> Option<Box<Counters>> {
        Some(Box::new(Counters {
            connections,
            ..Counters::default()
        }))
    }

    #[test]
    fn the_line_says_what_is_served_and_what_warns() {
        let both = vec![counters(1), counters(6)];
        let text = status(&readiness(Phase::Serving), &both, None, false);
        assert_eq!(
            text,
            "serving 7 connections on 2 shards (uring); shard 0: 90 of 100 possible connections"
        );
        let one = vec![counters(1), None];
        let text = status(&readiness(Phase::Serving), &one, None, true);
        assert!(text.contains("1 connection on"), "{text}");
        assert!(text.contains("shard 1 does not answer"), "{text}");
        assert!(text.contains("thread of the durable log"), "{text}");
        let text = status(&readiness(Phase::Draining), &one, None, false);
        assert!(text.starts_with("draining: 1 connection left"), "{text}");
        assert!(!text.contains("answer"), "it has ended: {text}");
    }

    #[test]
    fn a_refused_reload_stays_in_the_line_and_cannot_say_anything_else() {
        let mut readiness = readiness(Phase::Serving);
        readiness.reload.refused = Some("line 1\nWATCHDOG=1\n".into());
        let text = status(&readiness, &vec![counters(0)], None, false);
        assert!(
            text.contains("reload refused: line 1 WATCHDOG=1"),
            "{text:?}"
        );
        assert!(!text.contains('\n'));
        assert_eq!(line(&"é".repeat(1000)).chars().count(), LINE_CHARS + 1);
    }
}
