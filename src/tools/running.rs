//! What a running proxy says of itself, and what is wrong with it: limits that are near, what was dropped, queue groups
//! that nobody serves, each with what helps.

use std::time::Duration;

use serde_json::{Value, json};

use super::client::Client;
use super::scrape::Scrape;
use super::{TargetArgs, ToolError, client};
use crate::config::Config;
use crate::doctor::{Finding, State};
use crate::limits::BACKLOG_BYTES_MAX;

/// Between two looks at the counters: what grows meanwhile is wrong now, the rest may be long over.
pub const PAUSE: Duration = Duration::from_secs(1);
/// An event that a group has not done after this time.
const OLD_MS: u64 = 10 * 60 * 1000;

/// Pages of a running proxy, at one time.
#[derive(Clone, Debug)]
pub struct Pages {
    /// Whom they are of.
    pub address: String,
    /// `/metrics`
    pub metrics: String,
    /// `/ready`
    pub ready: Value,
    /// Queue groups; why they are not to be had.
    pub groups: Result<Value, String>,
}

/// Asks a running proxy.
///
/// # Errors
/// When nobody answers, or somebody else.
pub fn pages(config: &Config, target: &TargetArgs) -> Result<Pages, ToolError> {
    let mut client: Client = client(config, target)?;
    let mut page = |path: &str| {
        let (status, body) = client.get(path)?;
        // `/ready` says no with 503, and why in its body.
        if status == 200 || (status == 503 && path == "/ready") {
            return Ok(body);
        }
        Err(ToolError::Status {
            path: path.to_owned(),
            status,
            text: String::from_utf8_lossy(&body)
                .trim()
                .chars()
                .take(200)
                .collect(),
        })
    };
    let ready = page("/ready")?;
    let metrics = page("/metrics")?;
    let ready: Value = serde_json::from_slice(&ready).map_err(|source| ToolError::Answer {
        path: "/ready".to_owned(),
        source,
    })?;
    let mut groups = Ok(Value::Array(Vec::new()));
    if !ready["durable"].is_null() {
        let asked = client.call("queue/groups", &json!({}));
        groups = asked
            .map(|mut result| result["groups"].take())
            .map_err(|error| error.to_string());
    }
    Ok(Pages {
        address: client.address().to_owned(),
        metrics: String::from_utf8_lossy(&metrics).into_owned(),
        ready,
        groups,
    })
}

/// A counter that should not grow: its name, what it counts, what helps.
type Lost = (&'static str, &'static str, &'static str);

const LOST: [Lost; 12] = [
    (
        "ringmain_accept_queue_dropped_total",
        "connections refused by the kernel",
        "raise net.core.somaxconn and server.backlog, or add shards",
    ),
    (
        "ringmain_accept_failures_total",
        "accepts that failed",
        "raise LimitNOFILE= or fs.file-max, or give the host memory",
    ),
    (
        "ringmain_input_given_up_total",
        "connections ended for unfinished input",
        "an attack, or server.input_max_size is too small",
    ),
    (
        "ringmain_dropped_mesh_total",
        "deliveries dropped between shards",
        "the shards want more CPU: give them cores of their own, or more of them",
    ),
    (
        "ringmain_refused_mesh_total",
        "commands refused between shards",
        "the shards want more CPU: give them cores of their own, or more of them",
    ),
    (
        "ringmain_asks_overdue_total",
        "questions without an answer in time",
        "look at the CPU, the backends of hooks and the durable log",
    ),
    (
        "ringmain_channels_refused_total",
        "subscriptions and publications refused for want of a channel",
        "raise channel.owned_limit, or add shards",
    ),
    (
        "ringmain_disconnected_slow_total",
        "sessions closed as slow",
        "their readers do not keep up: see docs/overload.md, client.queue_max_size and slow_consumer",
    ),
    (
        "ringmain_key_set_failures_total",
        "key sets that could not be fetched",
        "look at the service at client.token.jwks_public_endpoint",
    ),
    (
        "ringmain_log_overdue_total",
        "publications whose publisher waited too long for the log",
        "look at the disk or NATS, and at durable.append_timeout",
    ),
    (
        "ringmain_hook_timeouts_total",
        "calls to backends without an answer in time",
        "the backend is slow: see its timeout and concurrency, and /ready for which one",
    ),
    (
        "ringmain_group_lost_total",
        "events forgotten before their group was done",
        "add workers, or raise durable.retention_age and retention_bytes",
    ),
];

/// What is to be said of a running proxy that was asked twice.
#[must_use]
pub fn judge(before: &Pages, after: &Pages) -> Vec<Finding> {
    let old = Scrape::read(&before.metrics);
    let new = Scrape::read(&after.metrics);
    let mut findings = Vec::new();
    life(&after.ready, &new, &mut findings);
    limits(&after.ready, &new, &mut findings);
    lost(&old, &new, &mut findings);
    times(&new, &mut findings);
    backends(&after.ready, &mut findings);
    log(&after.ready, &mut findings);
    match &after.groups {
        Ok(groups) => {
            let groups = groups.as_array().into_iter().flatten();
            groups.for_each(|one| group(one, &mut findings));
        }
        Err(reason) => findings.push(finding(
            State::Advice,
            "queue groups",
            format!("not to be seen: {reason}"),
            "their state",
            "give admin.key by the configuration, --key or RINGMAIN_ADMIN_KEY",
        )),
    }
    findings
}

fn finding(
    state: State,
    subject: impl Into<String>,
    found: impl Into<String>,
    wanted: impl Into<String>,
    why: impl Into<String>,
) -> Finding {
    Finding {
        subject: subject.into().into(),
        found: found.into(),
        wanted: wanted.into(),
        why: why.into().into(),
        state,
    }
}

/// Does it serve, all of it?
fn life(ready: &Value, new: &Scrape, findings: &mut Vec<Finding>) {
    let phase = ready["phase"].as_str().unwrap_or("unknown");
    let version = new.by("ringmain_build_info", "version").next();
    let (version, _) = version.unwrap_or(("unknown", 1.0));
    let is_serving = phase == "serving";
    let reactor = ready["reactor"].as_str().unwrap_or("unknown");
    findings.push(finding(
        if is_serving {
            State::Fine
        } else {
            State::Problem
        },
        "running proxy",
        format!("{phase}, version {version}, reactor {reactor}"),
        "serving",
        "while starting and draining nobody new is sent here",
    ));
    for (shard, up) in new.by("ringmain_shard_up", "shard") {
        if up == 0.0 {
            findings.push(finding(
                State::Problem,
                format!("shard {shard}"),
                "does not answer",
                "an answer within a second",
                "look at the CPU of its core, and whether another process has it",
            ));
        }
    }
    if ready["reload_refused"] == true {
        findings.push(finding(
            State::Problem,
            "last reload",
            "refused",
            "taken",
            "the configuration before it is in force: the log has the reason, ringmain check finds most of them",
        ));
    }
}

/// What is near its end.
fn limits(ready: &Value, new: &Scrape, findings: &mut Vec<Finding>) {
    let texts = |value: &Value| {
        let list = value.as_array().into_iter().flatten();
        list.filter_map(|one| one.as_str().map(str::to_owned))
            .collect::<Vec<_>>()
    };
    for warning in texts(&ready["warnings"]) {
        let (found, remedy) = warning
            .split_once("; ")
            .unwrap_or((&warning, "see the log"));
        findings.push(finding(
            State::Problem,
            "limit of the system",
            found,
            "far from it",
            remedy,
        ));
    }
    for table in texts(&ready["filling"]) {
        findings.push(finding(
            State::Problem,
            format!("table {table}"),
            "four fifths full",
            "room",
            "what was not used for longest goes first, then newcomers are refused: see docs/limits.md",
        ));
    }
    let parts = [
        (
            "connections",
            "ringmain_connections",
            "ringmain_connections_max",
            "raise server.connections_per_shard_max and LimitNOFILE=, or add shards",
        ),
        (
            "channels",
            "ringmain_channels_owned",
            "ringmain_channels_owned_limit",
            "raise channel.owned_limit, or lower history_meta_ttl",
        ),
    ];
    for (what, used, most, remedy) in parts {
        for (shard, used) in new.by(used, "shard") {
            let most = new.of(most, "shard", shard).unwrap_or(0.0);
            if let Some(found) = share(used, most) {
                let subject = format!("{what} of shard {shard}");
                findings.push(near(subject, used, most, found, remedy));
            }
        }
    }
    let descriptors = new
        .sum("process_open_fds")
        .zip(new.sum("process_max_fds"))
        .and_then(|(used, most)| Some((used, most, share(used, most)?)));
    if let Some((used, most, found)) = descriptors {
        let remedy = "raise LimitNOFILE=";
        findings.push(near("descriptors".to_owned(), used, most, found, remedy));
    }
    let most = BACKLOG_BYTES_MAX as f64;
    for (shard, used) in new.by("ringmain_backlog_bytes", "shard") {
        if let Some(found) = share(used, most) {
            let subject = format!("unsent bytes of shard {shard}");
            let remedy =
                "slow readers hold them: lower client.queue_max_size, see docs/overload.md";
            findings.push(near(subject, used, most, found, remedy));
        }
    }
}

/// How near, if it is.
fn share(used: f64, most: f64) -> Option<State> {
    match used / most {
        share if share >= 0.9 => Some(State::Problem),
        share if share >= 0.75 => Some(State::Advice),
        _ => None,
    }
}

fn near(subject: String, used: f64, most: f64, state: State, remedy: &str) -> Finding {
    let found = format!("{used} of {most}");
    finding(state, subject, found, "less than three quarters", remedy)
}

/// What grows now is a problem, what once grew is told.
fn lost(old: &Scrape, new: &Scrape, findings: &mut Vec<Finding>) {
    for (name, subject, remedy) in LOST {
        let Some(now) = new.sum(name).filter(|now| *now > 0.0) else {
            continue;
        };
        let fresh = now - old.sum(name).unwrap_or(now);
        let seconds = PAUSE.as_secs();
        let (state, found) = if fresh > 0.0 {
            let found = format!("{now} since the start, {fresh} in the last {seconds} s");
            (State::Problem, found)
        } else {
            let found = format!("{now} since the start, none in the last {seconds} s");
            (State::Advice, found)
        };
        findings.push(finding(state, subject, found, "none", remedy));
    }
}

/// How long things take, since the start.
fn times(new: &Scrape, findings: &mut Vec<Finding>) {
    let most = [
        (
            "ringmain_turn_seconds",
            "turns of shards, the slowest hundredth",
            0.05,
            "the shards want more CPU: give them cores of their own",
        ),
        (
            "ringmain_fan_out_seconds",
            "fan-out, the slowest hundredth",
            0.25,
            "more load than the shards carry, or slow readers: see docs/overload.md",
        ),
    ];
    for (name, subject, most, remedy) in most {
        let Some(found) = new.quantile(name, 0.99) else {
            continue;
        };
        let state = if found > most {
            State::Advice
        } else {
            State::Fine
        };
        let found = if found.is_infinite() {
            "over 1 s".to_owned()
        } else {
            format!("{found} s or less")
        };
        findings.push(finding(
            state,
            subject,
            found,
            format!("{most} s or less"),
            remedy,
        ));
    }
    let time = new.sum("ringmain_durable_append_seconds_total");
    let batches = new.sum("ringmain_durable_batches_total");
    if let (Some(time), Some(batches)) = (time, batches.filter(|batches| *batches > 0.0)) {
        let each = time / batches;
        findings.push(finding(
            if each > 0.05 {
                State::Advice
            } else {
                State::Fine
            },
            "appending to the log, on average",
            format!("{:.1} ms", each * 1000.0),
            "50 ms or less",
            "the disk or NATS is slow: every publisher of a durable channel waits for it",
        ));
    }
}

/// Backends of hooks whose breaker is not closed.
fn backends(ready: &Value, findings: &mut Vec<Finding>) {
    for (name, hook) in ready["hooks"].as_object().into_iter().flatten() {
        let breaker = hook["breaker"].as_str().unwrap_or("closed");
        if breaker != "closed" {
            findings.push(finding(
                State::Problem,
                format!("backend {name}"),
                format!("its breaker is {breaker}"),
                "closed",
                "its last calls failed: look at the backend, and at the log for the reason",
            ));
        }
    }
}

/// The durable log.
fn log(ready: &Value, findings: &mut Vec<Finding>) {
    let durable = &ready["durable"];
    if durable.is_null() {
        return;
    }
    let down = durable["down"].as_str();
    findings.push(finding(
        if down.is_some() {
            State::Problem
        } else {
            State::Fine
        },
        "durable log",
        down.map_or_else(
            || {
                format!(
                    "up, {} entries in {} bytes",
                    durable["entries"], durable["bytes"]
                )
            },
            |reason| format!("down: {reason}"),
        ),
        "up",
        "durable publications are refused until it is up again",
    ));
    if durable["breaker"] == "open" {
        findings.push(finding(
            State::Problem,
            "breaker of the durable log",
            "open",
            "closed",
            "the log does not answer, and appends are refused at once: look at the disk or NATS",
        ));
    }
    for warning in durable["warnings"].as_array().into_iter().flatten() {
        let text = warning.as_str().unwrap_or_default();
        let why = "see docs/durable.md and docs/troubleshooting.md";
        findings.push(finding(
            State::Advice,
            "durable log",
            text,
            "no warning",
            why,
        ));
    }
}

/// One queue group.
fn group(group: &Value, findings: &mut Vec<Finding>) {
    let name = group["group"].as_str().unwrap_or("?");
    let number = |key: &str| group[key].as_u64().unwrap_or(0);
    let lag = number("lag");
    let letters = number("letters");
    let takers = number("workers") + number("fetches");
    let age = group["oldest_age_ms"].as_u64();
    let subject = format!("queue group {name}");
    let before = findings.len();
    if lag > 0 && takers == 0 {
        findings.push(finding(
            State::Problem,
            subject.clone(),
            format!("{lag} events wait and nobody takes any"),
            "workers",
            "start its workers, or delete the group if it is not needed any more",
        ));
    } else if let Some(age) = age.filter(|age| *age > OLD_MS) {
        findings.push(finding(
            State::Problem,
            subject.clone(),
            format!(
                "{lag} events behind, the oldest for {}",
                super::when::age(age)
            ),
            "less than 10 minutes",
            "its workers do not keep up: add some, or see ringmain queue groups for redeliveries",
        ));
    }
    if letters > 0 {
        findings.push(finding(
            State::Advice,
            subject.clone(),
            format!("{letters} dead letters"),
            "none",
            format!("ringmain dlq list --group {name} shows them: retry or drop them"),
        ));
    }
    if findings.len() == before {
        findings.push(finding(
            State::Fine,
            subject,
            format!("{lag} events behind, {takers} workers"),
            "",
            "",
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pages(metrics: &str, ready: &Value, groups: Value) -> Pages {
        let mut full = json!({
            "phase": "serving", "reactor": "uring", "warnings": [], "filling": [], "hooks": {}, "durable": null,
        });
        for (key, value) in ready.as_object().expect("an object") {
            full[key] = value.clone();
        }
        Pages {
            address: "127.0.0.1:1".to_owned(),
            metrics: metrics.to_owned(),
            ready: full,
            groups: Ok(groups),
        }
    }

    fn states(findings: &[Finding]) -> Vec<(String, State)> {
        let wrong = findings.iter().filter(|one| one.state != State::Fine);
        wrong
            .map(|one| (one.subject.to_string(), one.state))
            .collect()
    }

    #[test]
    fn healthy_proxy_gets_no_complaint() {
        let metrics = "ringmain_build_info{version=\"1\",commit=\"\"} 1\nringmain_shard_up{shard=\"0\"} 1\nringmain_connections{shard=\"0\"} 7\nringmain_connections_max{shard=\"0\"} 100\n";
        let group = json!({ "group": "g", "lag": 0, "workers": 1, "fetches": 0, "letters": 0, "oldest_age_ms": null });
        let pages = pages(metrics, &json!({}), json!([group]));
        let findings = judge(&pages, &pages);
        assert_eq!(states(&findings), []);
        assert!(findings[0].found.contains("version 1"), "{findings:?}");
    }

    #[test]
    fn what_grows_is_a_problem_and_what_once_grew_is_told() {
        let of = |overdue: u64| {
            let text = format!(
                "ringmain_asks_overdue_total{{shard=\"0\"}} {overdue}\nringmain_disconnected_slow_total{{shard=\"0\"}} 4\n"
            );
            pages(&text, &json!({}), json!([]))
        };
        let found = states(&judge(&of(1), &of(3)));
        assert!(found.contains(&(
            "questions without an answer in time".to_owned(),
            State::Problem
        )));
        assert!(found.contains(&("sessions closed as slow".to_owned(), State::Advice)));
    }

    #[test]
    fn near_limits_silent_shards_open_breakers_and_idle_groups_are_named() {
        let metrics = "ringmain_shard_up{shard=\"0\"} 1\nringmain_shard_up{shard=\"1\"} 0\n\
            ringmain_connections{shard=\"0\"} 95\nringmain_connections_max{shard=\"0\"} 100\n\
            ringmain_channels_owned{shard=\"0\"} 80\nringmain_channels_owned_limit{shard=\"0\"} 100\n";
        let ready = json!({
            "phase": "draining", "reload_refused": true,
            "warnings": ["shard 0: 95 of 100 possible connections; raise it"], "filling": ["prefixes"],
            "hooks": { "auth": { "breaker": "open" } },
            "durable": { "down": "disk full", "breaker": "open", "warnings": ["nearly full"], "bytes": 1, "entries": 1 },
        });
        let groups = json!([
            { "group": "idle", "lag": 4, "workers": 0, "fetches": 0, "letters": 2 },
            { "group": "late", "lag": 4, "workers": 1, "fetches": 0, "letters": 0, "oldest_age_ms": 3_600_000 },
        ]);
        let pages = pages(metrics, &ready, groups);
        let found = judge(&pages, &pages);
        let letters = found.iter().find(|one| one.why.contains("dlq list"));
        assert_eq!(letters.map(|one| &*one.found), Some("2 dead letters"));
        for (subject, state) in [
            ("running proxy", State::Problem),
            ("shard 1", State::Problem),
            ("last reload", State::Problem),
            ("limit of the system", State::Problem),
            ("table prefixes", State::Problem),
            ("connections of shard 0", State::Problem),
            ("channels of shard 0", State::Advice),
            ("backend auth", State::Problem),
            ("durable log", State::Problem),
            ("durable log", State::Advice),
            ("breaker of the durable log", State::Problem),
            ("queue group idle", State::Problem),
            ("queue group idle", State::Advice),
            ("queue group late", State::Problem),
        ] {
            let pair = (subject.to_owned(), state);
            assert!(states(&found).contains(&pair), "{pair:?}: {found:#?}");
        }
        assert!(
            found
                .iter()
                .all(|one| one.state == State::Fine || !one.why.is_empty())
        );
    }
}
