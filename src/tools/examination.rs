//! `ringmain doctor`: the host, the configuration and the running proxy in one list.

use std::path::Path;

use super::running::{self, PAUSE, Pages};
use super::{TargetArgs, ToolError};
use crate::config::Config;
use crate::doctor::{self, Drops, Finding, State};

/// What was found, and what the running proxy said.
#[derive(Clone, Debug)]
pub struct Examination {
    /// All findings.
    pub findings: Vec<Finding>,
    /// The pages of the proxy; why they are not to be had.
    pub pages: Result<Pages, String>,
}

/// The host and the configuration.
#[must_use]
pub fn host(config: &Config) -> Vec<Finding> {
    let mut findings = doctor::examine(&config.server);
    let drops = drops();
    findings.extend(drops.judge(&drops, 0));
    findings.extend(doubts(config));
    findings
}

/// The host, the configuration, and the proxy that runs.
#[must_use]
pub fn whole(config: &Config, target: &TargetArgs) -> Examination {
    let mut findings = doctor::examine(&config.server);
    findings.extend(doubts(config));
    let drops_before = drops();
    let pages = running::pages(config, target).and_then(|before| {
        std::thread::sleep(PAUSE);
        Ok((before, running::pages(config, target)?))
    });
    // Without a pause there is nothing to compare with.
    let before = pages.as_ref().map_or_else(|_| drops(), |_| drops_before);
    findings.extend(drops().judge(&before, PAUSE.as_secs()));
    let pages = match pages {
        Ok((before, after)) => {
            findings.extend(running::judge(&before, &after));
            Ok(after)
        }
        Err(error) => {
            findings.push(unreachable(&error, target));
            Err(error.to_string())
        }
    };
    Examination { findings, pages }
}

fn drops() -> Drops {
    Drops::read(Path::new("/proc"))
}

/// Whoever names a proxy wants it looked at. Otherwise there may be none yet.
fn unreachable(error: &ToolError, target: &TargetArgs) -> Finding {
    Finding {
        subject: "running proxy".into(),
        found: error.to_string(),
        wanted: "an answer".to_owned(),
        why: "only the host and the configuration were looked at".into(),
        state: if target.address.is_some() {
            State::Problem
        } else {
            State::Advice
        },
    }
}

/// What the configuration says that is probably not meant.
fn doubts(config: &Config) -> Vec<Finding> {
    let all = config.doubts().into_iter().chain(doctor::places(config));
    all.map(|doubt| {
        let (subject, found) = doubt.split_once(": ").unwrap_or(("configuration", &doubt));
        Finding {
            subject: subject.to_owned().into(),
            found: found.to_owned(),
            wanted: "otherwise".to_owned(),
            why: "it is probably not meant".into(),
            state: State::Advice,
        }
    })
    .collect()
}
