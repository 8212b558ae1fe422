//! Counters as Prometheus text, format 0.0.4.

mod groups;
mod tenants;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use crate::config::TenantRules;
use crate::mem::QuotaLimit;
use crate::metrics::{BUCKETS_US, Counters, DESCRIPTIONS, Histogram, Kind};

use crate::upstream::bridge::Report as LogReport;
use crate::upstream::desk::GroupReport;
use crate::upstream::desk::join::JoinCounts;
use crate::upstream::log::{Cause, Census, Expiries, Status};
use crate::upstream::sources::SourceReport;

use self::groups::{groups, joins, letters, sources};
use super::hooks::Report;
use super::process::{Process, Reload};

/// `Content-Type` of the text.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Everything one scrape shows.
pub struct Snapshot<'a> {
    /// By shard; `None` for a shard that did not answer in time.
    pub shards: &'a [Option<Box<Counters>>],
    /// `uring` or `portable`.
    pub reactor: &'a str,
    /// Clients are served.
    pub ready: bool,
    /// The process is leaving.
    pub draining: bool,
    /// The process as the kernel sees it.
    pub process: Process,
    /// When the configuration was read.
    pub reload: &'a Reload,
    /// Targets of hooks.
    pub hooks: &'a [Report],
    /// The durable log; `None` without one.
    pub durable: Option<LogReport>,
    /// Tenants that are in use, and what they have taken.
    pub tenants: &'a BTreeMap<Box<str>, TenantRules>,
}

/// A histogram of `Counters`: name, help, access.
type Series = (&'static str, &'static str, fn(&Counters) -> &Histogram);

const HISTOGRAMS: [Series; 2] = [
    (
        "turn",
        "Head of a turn to its last submission.",
        |counters| &counters.turn,
    ),
    (
        "fan_out",
        "A publication taken in to its last local subscriber's bytes being with the kernel, the oldest of each burst.",
        |counters| &counters.fan_out,
    ),
];

/// The whole text.
#[must_use]
pub fn render(snapshot: &Snapshot<'_>) -> String {
    let mut out = String::with_capacity(4096 + snapshot.shards.len() * 8192);
    let answered: Vec<(usize, &Counters)> = snapshot
        .shards
        .iter()
        .enumerate()
        .filter_map(|(shard, counters)| Some((shard, counters.as_deref()?)))
        .collect();
    process(&mut out, snapshot);
    head(
        &mut out,
        "ringmain_shard_up",
        "gauge",
        "Whether the shard reported its counters for this scrape.",
    );
    for (shard, counters) in snapshot.shards.iter().enumerate() {
        line(
            &mut out,
            format_args!(
                "ringmain_shard_up{{shard=\"{shard}\"}} {}",
                u8::from(counters.is_some())
            ),
        );
    }
    plain(&mut out, &answered);
    for (name, help, of) in HISTOGRAMS {
        let name = format!("ringmain_{name}_seconds");
        head(&mut out, &name, "histogram", help);
        for &(shard, counters) in &answered {
            histogram(&mut out, &name, &format!("shard=\"{shard}\""), of(counters));
        }
    }
    keys(&mut out, &answered);
    hooks(&mut out, snapshot.hooks);
    tenants::tenants(&mut out, snapshot.tenants);
    if let Some(report) = &snapshot.durable {
        log(&mut out, report);
        groups(&mut out, &report.groups);
        joins(&mut out, &report.groups);
        letters(&mut out, report);
        sources(&mut out, &report.sources);
    }
    out
}

/// Which keys of the server API are in use: what nobody uses can go.
fn keys(out: &mut String, shards: &[(usize, &Counters)]) {
    let mut all = BTreeMap::<&str, u64>::new();
    for (_, counters) in shards {
        for (name, count) in &counters.keys_used {
            *all.entry(name).or_default() += count;
        }
    }
    let name = "ringmain_api_key_requests_total";
    head(
        out,
        name,
        "counter",
        "Server API requests by name of their key; the key of `http_api.key` has none.",
    );
    for (key, count) in all {
        line(out, format_args!("{name}{{key=\"{key}\"}} {count}"));
    }
}

/// What a scrape shows where there is one of everything: a shard, a key, a target, a group.
#[must_use]
pub fn sample() -> String {
    let mut counters = Box::<Counters>::default();
    counters.key_used("NAME");
    let target = Report {
        tenant: "".into(),
        name: "NAME".to_owned(),
        breaker: "closed",
        in_flight: 0,
        waiting: 0,
        counts: super::hooks::Counts::default(),
    };
    let group = GroupReport {
        joins: Some(JoinCounts::default()),
        name: "NAME".into(),
        oldest_unix_ms: Some(0),
        ..GroupReport::default()
    };
    let source = SourceReport {
        name: "NAME".into(),
        kind: "postgres",
        last_success_unix_ms: Some(0),
        ..SourceReport::default()
    };
    let expiries = Expiries {
        namespace: "NAME".into(),
        ..Expiries::default()
    };
    let status = Status {
        expiries: vec![expiries],
        ..Status::default()
    };
    let tenant = TenantRules {
        rules: Arc::default(),
        limits: Arc::default(),
        quota: Arc::default(),
    };
    tenant.quota.refuse(QuotaLimit::PublishRate);
    render(&Snapshot {
        shards: &[Some(counters)],
        reactor: "uring",
        ready: true,
        draining: false,
        process: Process::default(),
        reload: &Reload::default(),
        hooks: &[target],
        durable: Some(LogReport {
            status,
            groups: vec![group],
            letters: Census {
                counts: BTreeMap::from([(("NAME".into(), Cause::Failed), 1)]),
                ..Census::default()
            },
            sources: vec![source],
            ..LogReport::default()
        }),
        tenants: &BTreeMap::from([("NAME".into(), tenant)]),
    })
}

/// A number of the durable log: name, kind, help, access.
type LogNumber = (
    &'static str,
    &'static str,
    &'static str,
    fn(&LogReport) -> u64,
);

const LOG: [LogNumber; 11] = [
    (
        "durable_up",
        "gauge",
        "Whether publications can be stored.",
        |report| u64::from(report.status.down.is_none()),
    ),
    (
        "durable_bytes",
        "gauge",
        "Bytes that the log keeps.",
        |report| report.status.bytes,
    ),
    (
        "durable_entries",
        "gauge",
        "Publications that the log keeps.",
        |report| report.status.entries,
    ),
    (
        "durable_batches_total",
        "counter",
        "Batches appended.",
        |report| report.batches,
    ),
    (
        "durable_appends_total",
        "counter",
        "Publications in them.",
        |report| report.appends,
    ),
    (
        "durable_schema_refused_total",
        "counter",
        "Publications refused by the schema of their namespace.",
        |report| report.schema_refused,
    ),
    (
        "durable_breaker_state",
        "gauge",
        "0 closed, 1 half-open: appends on trial, 2 open: the log does not answer, and appends are refused at once.",
        |report| breaker_state(report.breaker),
    ),
    (
        "durable_breaker_opened_total",
        "counter",
        "How often the breaker opened.",
        |report| report.breaker_opened,
    ),
    (
        "durable_breaker_refused_total",
        "counter",
        "Publications refused because the breaker was open.",
        |report| report.breaker_refused,
    ),
    (
        "durable_scheduled",
        "gauge",
        "Publications that wait for their time.",
        |report| report.status.schedule.pending,
    ),
    (
        "queue_leases_orphaned_total",
        "counter",
        "Leases of entries of queue groups that nobody in this process knew any more, so that the entries were given again. A fault of this program: it stays 0.",
        |report| report.status.orphaned_leases,
    ),
];

/// A breaker as a number.
fn breaker_state(name: &str) -> u64 {
    match name {
        "open" => 2,
        "half-open" => 1,
        _ => 0,
    }
}

fn log(out: &mut String, report: &LogReport) {
    for (name, kind, help, of) in LOG {
        let name = format!("ringmain_{name}");
        head(out, &name, kind, help);
        line(out, format_args!("{name} {}", of(report)));
    }
    expiries(out, &report.status.expiries);
    let name = "ringmain_durable_append_seconds_total";
    head(
        out,
        name,
        "counter",
        "Time that appending the batches took.",
    );
    let seconds = report.append_ns as f64 / 1e9;
    line(out, format_args!("{name} {seconds}"));
    let schedule = &report.status.schedule;
    let name = "ringmain_durable_scheduled_next_timestamp_seconds";
    head(
        out,
        name,
        "gauge",
        "When the first of them is due, Unix time; 0 while none waits.",
    );
    let next = schedule.next_ms.unwrap_or(0) as f64 / 1e3;
    line(out, format_args!("{name} {next}"));
    late(out, &schedule.late);
}

/// How late what waited for its time was published. The buckets of this process go up to a second; what is later is in the last one.
fn late(out: &mut String, late: &Histogram) {
    let name = "ringmain_durable_scheduled_late_seconds";
    head(
        out,
        name,
        "histogram",
        "How much later than their time publications were published.",
    );
    let mut count = 0;
    for (bound, counted) in BUCKETS_US.iter().zip(&late.counts) {
        count += counted;
        let bound = *bound as f64 / 1e6;
        line(out, format_args!("{name}_bucket{{le=\"{bound}\"}} {count}"));
    }
    line(
        out,
        format_args!("{name}_bucket{{le=\"+Inf\"}} {}", late.count()),
    );
    let sum = late.sum_ns as f64 / 1e9;
    line(out, format_args!("{name}_sum {sum}"));
    line(out, format_args!("{name}_count {}", late.count()));
}

/// What namespaces have forgotten by rules of their own.
fn expiries(out: &mut String, expiries: &[Expiries]) {
    let entries: fn(&Expiries) -> u64 = |one| one.entries;
    let bytes: fn(&Expiries) -> u64 = |one| one.bytes;
    for (name, help, of) in [
        (
            "ringmain_durable_expired_total",
            "Publications that a namespace has forgotten by its `retention_age`, `retention_bytes` or `retention_count`.",
            entries,
        ),
        (
            "ringmain_durable_expired_bytes_total",
            "Bytes of the log that were theirs.",
            bytes,
        ),
    ] {
        head(out, name, "counter", help);
        for one in expiries {
            let labels =
                format_args!("{name}{{namespace=\"{}\"}} {}", one.namespace, of(one)).to_string();
            line(out, format_args!("{labels}"));
        }
    }
}

/// A number of a hook target: name, kind, help, access.
type Number = (&'static str, &'static str, &'static str, fn(&Report) -> u64);

const HOOKS: [Number; 9] = [
    (
        "hook_breaker_state",
        "gauge",
        "0 closed, 1 half-open: calls on trial, 2 open: calls are refused.",
        |report| breaker_state(report.breaker),
    ),
    (
        "hook_in_flight",
        "gauge",
        "Requests to the backend under way.",
        |report| u64::from(report.in_flight),
    ),
    (
        "hook_waiting",
        "gauge",
        "Calls that wait for their turn.",
        |report| u64::from(report.waiting),
    ),
    (
        "hook_calls_total",
        "counter",
        "Requests that are over.",
        |report| report.counts.calls,
    ),
    (
        "hook_failures_total",
        "counter",
        "Requests without an answer as agreed.",
        |report| report.counts.failures,
    ),
    (
        "hook_timeouts_total",
        "counter",
        "Calls without an answer in time, those that waited too long for their turn among them.",
        |report| report.counts.timeouts,
    ),
    (
        "hook_refused_full_total",
        "counter",
        "Calls refused because too many waited.",
        |report| report.counts.refused_full,
    ),
    (
        "hook_refused_open_total",
        "counter",
        "Calls refused because the breaker was open.",
        |report| report.counts.refused_open,
    ),
    (
        "hook_breaker_opened_total",
        "counter",
        "How often the breaker opened.",
        |report| report.counts.opened,
    ),
];

/// Targets of hooks, by name.
fn hooks(out: &mut String, reports: &[Report]) {
    for (name, kind, help, of) in HOOKS {
        head(out, &format!("ringmain_{name}"), kind, help);
        for report in reports {
            let label = target_label(report);
            line(
                out,
                format_args!("ringmain_{name}{{{label}}} {}", of(report)),
            );
        }
    }
    let name = "ringmain_hook_seconds";
    head(
        out,
        name,
        "histogram",
        "Time that requests to the backend took.",
    );
    for report in reports {
        let label = target_label(report);
        histogram(out, name, &label, &report.counts.latency);
    }
}

fn target_label(report: &Report) -> String {
    let Report { tenant, name, .. } = report;
    match tenant.is_empty() {
        true => format!("target=\"{name}\""),
        false => format!("tenant=\"{tenant}\",target=\"{name}\""),
    }
}

fn process(out: &mut String, snapshot: &Snapshot<'_>) {
    let Process {
        resident_bytes,
        cpu_seconds,
        descriptors,
        descriptors_max,
        started_unix_s,
    } = snapshot.process;
    head(
        out,
        "ringmain_build_info",
        "gauge",
        "Which program this is.",
    );
    line(
        out,
        format_args!(
            "ringmain_build_info{{version=\"{}\",commit=\"{}\"}} 1",
            env!("CARGO_PKG_VERSION"),
            option_env!("RINGMAIN_COMMIT").unwrap_or_default()
        ),
    );
    head(
        out,
        "ringmain_reactor",
        "gauge",
        "Which reactor drives the shards.",
    );
    line(
        out,
        format_args!("ringmain_reactor{{kind=\"{}\"}} 1", snapshot.reactor),
    );
    head(
        out,
        "ringmain_ready",
        "gauge",
        "Whether clients are served.",
    );
    line(
        out,
        format_args!("ringmain_ready {}", u8::from(snapshot.ready)),
    );
    head(
        out,
        "ringmain_draining",
        "gauge",
        "Whether the process is leaving.",
    );
    line(
        out,
        format_args!("ringmain_draining {}", u8::from(snapshot.draining)),
    );
    head(
        out,
        "process_resident_memory_bytes",
        "gauge",
        "Resident memory.",
    );
    line(
        out,
        format_args!("process_resident_memory_bytes {resident_bytes}"),
    );
    head(
        out,
        "process_cpu_seconds_total",
        "counter",
        "Processor time of all threads, user and system.",
    );
    line(out, format_args!("process_cpu_seconds_total {cpu_seconds}"));
    head(
        out,
        "process_open_fds",
        "gauge",
        "Open descriptors, direct descriptors of a ring not among them.",
    );
    line(out, format_args!("process_open_fds {descriptors}"));
    head(
        out,
        "process_max_fds",
        "gauge",
        "Descriptors that the process may have.",
    );
    line(out, format_args!("process_max_fds {descriptors_max}"));
    head(
        out,
        "process_start_time_seconds",
        "gauge",
        "When the process was started, Unix time.",
    );
    line(
        out,
        format_args!("process_start_time_seconds {started_unix_s}"),
    );
    head(
        out,
        "ringmain_config_last_reload_successful",
        "gauge",
        "Whether the last reload was taken; 1 where there was none.",
    );
    line(
        out,
        format_args!(
            "ringmain_config_last_reload_successful {}",
            u8::from(snapshot.reload.refused.is_none())
        ),
    );
    head(
        out,
        "ringmain_config_last_reload_success_timestamp_seconds",
        "gauge",
        "When a reload was taken last, or else the process was started, Unix time.",
    );
    line(
        out,
        format_args!(
            "ringmain_config_last_reload_success_timestamp_seconds {}",
            snapshot.reload.taken_unix_s
        ),
    );
}

fn plain(out: &mut String, answered: &[(usize, &Counters)]) {
    let values: Vec<(usize, Vec<u64>)> = answered
        .iter()
        .map(|&(shard, counters)| (shard, counters.values()))
        .collect();
    for (at, &(kind, name, help)) in DESCRIPTIONS.iter().enumerate() {
        let (name, kind) = match kind {
            Kind::Counter => (format!("ringmain_{name}_total"), "counter"),
            Kind::Gauge => (format!("ringmain_{name}"), "gauge"),
        };
        head(out, &name, kind, help.trim());
        for (shard, values) in &values {
            line(
                out,
                format_args!("{name}{{shard=\"{shard}\"}} {}", values[at]),
            );
        }
    }
}

/// Buckets are cumulative and end with `+Inf`.
fn histogram(out: &mut String, name: &str, label: &str, histogram: &Histogram) {
    let mut below = 0;
    for (at, count) in histogram.counts.iter().enumerate() {
        below += count;
        match BUCKETS_US.get(at) {
            Some(&us) => line(
                out,
                format_args!(
                    "{name}_bucket{{{label},le=\"{}\"}} {below}",
                    us as f64 / 1e6
                ),
            ),
            None => line(
                out,
                format_args!("{name}_bucket{{{label},le=\"+Inf\"}} {below}"),
            ),
        }
    }
    line(
        out,
        format_args!("{name}_sum{{{label}}} {}", histogram.sum_ns as f64 / 1e9),
    );
    line(out, format_args!("{name}_count{{{label}}} {below}"));
}

fn head(out: &mut String, name: &str, kind: &str, help: &str) {
    line(out, format_args!("# HELP {name} {help}"));
    line(out, format_args!("# TYPE {name} {kind}"));
}

fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    writeln!(out, "{text}").expect("a String takes every write");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(shards: &[Option<Box<Counters>>]) -> String {
        render(&Snapshot {
            shards,
            reactor: "portable",
            ready: true,
            draining: false,
            process: Process::default(),
            reload: &Reload::default(),
            hooks: &[],
            durable: None,
            tenants: &BTreeMap::new(),
        })
    }

    #[test]
    fn every_counter_of_every_shard_is_shown_under_its_prometheus_name() {
        let counters = Counters {
            connections: 5,
            accepted: 9,
            ..Counters::default()
        };
        let text = text(&[Some(Box::new(counters)), Some(Box::default())]);
        assert!(
            text.contains("\nringmain_connections{shard=\"0\"} 5\n"),
            "{text}"
        );
        assert!(
            text.contains("\nringmain_accepted_total{shard=\"0\"} 9\n"),
            "{text}"
        );
        for &(kind, name, _) in DESCRIPTIONS {
            let suffix = if kind == Kind::Counter { "_total" } else { "" };
            for shard in 0..2 {
                assert!(
                    text.contains(&format!("\nringmain_{name}{suffix}{{shard=\"{shard}\"}} ")),
                    "{name} of shard {shard}"
                );
            }
        }
        assert!(text.contains("ringmain_reactor{kind=\"portable\"} 1"));
    }

    #[test]
    fn buckets_are_cumulative_and_end_with_infinity() {
        let mut counters = Counters::default();
        counters.turn.record(10_000);
        counters.turn.record(20_000);
        counters.turn.record(5_000_000_000);
        let text = text(&[Some(Box::new(counters))]);
        assert!(
            text.contains("ringmain_turn_seconds_bucket{shard=\"0\",le=\"0.00001\"} 1\n"),
            "{text}"
        );
        assert!(text.contains("ringmain_turn_seconds_bucket{shard=\"0\",le=\"0.000025\"} 2\n"));
        assert!(text.contains("ringmain_turn_seconds_bucket{shard=\"0\",le=\"1\"} 2\n"));
        assert!(text.contains("ringmain_turn_seconds_bucket{shard=\"0\",le=\"+Inf\"} 3\n"));
        assert!(text.contains("ringmain_turn_seconds_count{shard=\"0\"} 3\n"));
        assert!(text.contains("ringmain_turn_seconds_sum{shard=\"0\"} 5.00003\n"));
    }

    #[test]
    fn a_silent_shard_is_down_and_has_no_values() {
        let text = text(&[None]);
        assert!(text.contains("ringmain_shard_up{shard=\"0\"} 0\n"));
        assert!(!text.contains("ringmain_connections{"));
    }

    #[test]
    fn every_line_is_a_comment_or_a_sample_and_no_series_appears_twice() {
        let text = text(&[Some(Box::default())]);
        let mut seen = std::collections::BTreeSet::new();
        for line in text.lines().filter(|line| !line.starts_with("# ")) {
            let (series, value) = line.rsplit_once(' ').expect("a series and a value");
            assert!(value.parse::<f64>().is_ok(), "{line}");
            assert!(seen.insert(series.to_owned()), "{line}");
        }
        assert!(text.ends_with('\n'));
    }
}
