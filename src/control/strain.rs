//! What is said about limits of the system: before they are reached, while they are, and once when they are far again.

use crate::doctor::{Finding, State};
use crate::mesh::control::Strain;

/// Limits that a shard may be near.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Limit {
    /// Places for connections.
    Connections,
    /// Nobody is accepted.
    Accepting,
    /// Accepts fail.
    Failing,
    /// Places of an accept queue.
    Queue,
    /// Connections were refused by the kernel.
    Dropped,
}

const LIMITS: [Limit; 5] = [
    Limit::Connections,
    Limit::Accepting,
    Limit::Failing,
    Limit::Queue,
    Limit::Dropped,
];

/// How the shards do, by shard.
pub(super) struct Strains {
    shards: Vec<Strain>,
    /// Connections that the configuration gives each shard.
    configured: u32,
    /// Descriptors that the system gives the process.
    descriptors: u64,
    /// Places that the configuration gives each accept queue.
    backlog: u32,
}

/// One line for the log.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// A limit is near.
    Near(String),
    /// It is far again.
    Over(&'static str),
}

impl Strains {
    pub(super) fn new(shards: usize, server: &crate::config::Server, descriptors: u64) -> Self {
        Self {
            shards: vec![Strain::default(); shards],
            configured: server.connections_per_shard_max,
            descriptors,
            backlog: server.backlog,
        }
    }

    /// What a shard says now, and what is to be said about it: once for all shards that are near the same limit.
    pub(super) fn take(&mut self, shard: usize, strain: Strain) -> Vec<Line> {
        let before = LIMITS.map(|limit| self.is_near(limit));
        self.shards[shard] = strain;
        let changed = LIMITS
            .into_iter()
            .zip(before)
            .filter_map(|(limit, before)| match (before, self.is_near(limit)) {
                (false, true) => Some(Line::Near(self.text(limit))),
                (true, false) => Some(Line::Over(over(limit))),
                _ => None,
            });
        changed.collect()
    }

    /// Everything that is near a limit now.
    pub(super) fn warnings(&self) -> Vec<String> {
        let near = LIMITS.into_iter().filter(|limit| self.is_near(*limit));
        near.map(|limit| self.text(limit)).collect()
    }

    fn is_near(&self, limit: Limit) -> bool {
        self.shards.iter().any(|strain| limit.concerns(strain))
    }

    fn text(&self, limit: Limit) -> String {
        let concerned = self
            .shards
            .iter()
            .enumerate()
            .filter(|(_, strain)| limit.concerns(strain));
        let numbers: Vec<String> = concerned.clone().map(|(at, _)| at.to_string()).collect();
        let shards = match numbers.as_slice() {
            [one] => format!("shard {one}"),
            many => format!("shards {}", many.join(", ")),
        };
        let sum = |of: fn(&Strain) -> u32| -> u64 {
            concerned
                .clone()
                .map(|(_, strain)| u64::from(of(strain)))
                .sum()
        };
        let remedy = if self
            .shards
            .iter()
            .any(|strain| strain.open_max >= self.configured)
        {
            "raise server.connections_per_shard_max".to_owned()
        } else {
            format!(
                "the limit of descriptors is {}: raise it (LimitNOFILE=, ulimit -n)",
                self.descriptors
            )
        };
        match limit {
            Limit::Connections => format!(
                "{shards}: {} of {} possible connections; {remedy}",
                sum(|strain| strain.open),
                sum(|strain| strain.open_max)
            ),
            Limit::Accepting => {
                format!("{shards}: accepting is paused, who connects waits for a place; {remedy}")
            }
            Limit::Failing => {
                let errno = concerned.clone().map(|(_, strain)| strain.failed).next();
                let error = std::io::Error::from_raw_os_error(errno.unwrap_or(0));
                format!(
                    "{shards}: accepting fails ({error}); raise LimitNOFILE= or fs.file-max, or give the host memory"
                )
            }
            Limit::Queue => format!(
                "{shards}: {} of {} places of an accept queue are taken; {}",
                sum(|strain| strain.queued),
                sum(|strain| strain.queued_max),
                self.queue_remedy()
            ),
            Limit::Dropped => format!(
                "{shards}: {} connections were refused because an accept queue was full; {}",
                sum(|strain| strain.dropped),
                self.queue_remedy()
            ),
        }
    }

    fn queue_remedy(&self) -> String {
        let places = self.shards.iter().map(|strain| strain.queued_max).max();
        if places.is_some_and(|places| places < self.backlog) {
            format!(
                "net.core.somaxconn cuts server.backlog = {}: raise it",
                self.backlog
            )
        } else {
            "raise server.backlog, or add shards".to_owned()
        }
    }
}

impl Limit {
    const fn concerns(self, strain: &Strain) -> bool {
        match self {
            Self::Connections => strain.is_near,
            Self::Accepting => strain.is_paused,
            Self::Failing => strain.failed != 0,
            Self::Queue => strain.is_crowded,
            Self::Dropped => strain.dropped > 0,
        }
    }
}

const fn over(limit: Limit) -> &'static str {
    match limit {
        Limit::Connections => "there is room for connections again",
        Limit::Accepting => "accepting goes on",
        Limit::Failing => "accepting succeeds again",
        Limit::Queue => "the accept queues have room again",
        Limit::Dropped => "no connection is refused any more",
    }
}

/// What the system cuts of the configuration, as it is known at the start: one line each.
pub(super) fn at_start(findings: Vec<Finding>) -> Vec<String> {
    const SUBJECTS: [&str; 3] = ["RLIMIT_NOFILE", "RLIMIT_MEMLOCK", "net.core.somaxconn"];
    let cut = findings
        .into_iter()
        .filter(|finding| finding.state != State::Fine && SUBJECTS.contains(&&*finding.subject));
    cut.map(|finding| {
        let Finding {
            subject,
            found,
            wanted,
            why,
            ..
        } = finding;
        format!("{subject} is {found}, better {wanted}: {why}")
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Server;

    fn strains() -> Strains {
        Strains::new(2, &Server::default(), 1000)
    }

    fn open(open: u32) -> Strain {
        Strain {
            open,
            open_max: 100,
            is_near: open >= 90,
            ..Strain::default()
        }
    }

    #[test]
    fn a_limit_is_said_once_whatever_the_number_of_shards_and_once_when_it_is_over() {
        let mut strains = strains();
        let lines = strains.take(0, open(90));
        let [Line::Near(text)] = &lines[..] else {
            panic!("{lines:?}");
        };
        assert!(
            text.contains("shard 0: 90 of 100") && text.contains("1000"),
            "{text}"
        );
        assert_eq!(strains.take(1, open(95)), []);
        assert!(strains.warnings()[0].contains("shards 0, 1: 185 of 200"));
        assert_eq!(strains.take(0, open(10)), []);
        let over = Line::Over("there is room for connections again");
        assert_eq!(strains.take(1, open(10)), [over]);
        assert!(strains.warnings().is_empty());
    }

    #[test]
    fn every_limit_says_what_to_do() {
        let mut strains = strains();
        let strain = Strain {
            open: 100,
            open_max: 100,
            is_near: true,
            is_paused: true,
            failed: 24,
            queued: 4096,
            queued_max: 4096,
            is_crowded: true,
            dropped: 7,
        };
        let lines = strains.take(1, strain);
        assert_eq!(lines.len(), LIMITS.len(), "{lines:?}");
        let all = strains.warnings().join("\n");
        for word in [
            "LimitNOFILE",
            "paused",
            "Too many open files",
            "net.core.somaxconn",
            "7 connections",
        ] {
            assert!(all.contains(word), "{word}: {all}");
        }
        let configured = Server {
            connections_per_shard_max: 100,
            backlog: 128,
            ..Server::default()
        };
        let mut strains = Strains::new(2, &configured, 1000);
        strains.take(1, strain);
        let all = strains.warnings().join("\n");
        assert!(all.contains("server.connections_per_shard_max"), "{all}");
        assert!(all.contains("raise server.backlog"), "{all}");
    }
}
