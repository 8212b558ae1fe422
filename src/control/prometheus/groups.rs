//! What is worked off: queue groups, dead letters, sources.

use super::{LogReport, head, line};
use crate::model::TenantId;
use crate::upstream::desk::GroupReport;
use crate::upstream::desk::join::JoinCounts;
use crate::upstream::sources::SourceReport;

/// A number of a queue group: name, kind, help, access.
type GroupNumber = (
    &'static str,
    &'static str,
    &'static str,
    fn(&GroupReport) -> u64,
);

const GROUPS: [GroupNumber; 18] = [
    (
        "group_workers",
        "gauge",
        "Connections that take from the group.",
        |group| group.workers as u64,
    ),
    (
        "group_waiting",
        "gauge",
        "Fetches that wait for deliveries.",
        |group| group.waiting as u64,
    ),
    (
        "group_in_flight",
        "gauge",
        "Deliveries that are not settled.",
        |group| group.in_flight as u64,
    ),
    (
        "group_held",
        "gauge",
        "Publications that this process has for the group, those in flight included.",
        |group| group.held as u64,
    ),
    (
        "group_paused",
        "gauge",
        "1 while the group gives nothing.",
        |group| u64::from(group.is_paused),
    ),
    (
        "group_ready",
        "gauge",
        "Publications that nobody has and that may be given, as of a few seconds ago.",
        |group| group.ready,
    ),
    (
        "group_delayed",
        "gauge",
        "Publications that wait for their next attempt.",
        |group| group.delayed,
    ),
    (
        "group_desired_workers",
        "gauge",
        "Workers that would work off what waits within a minute, at the pace of those that are there; 0 where that is not known.",
        |group| group.desired_workers.unwrap_or(0),
    ),
    (
        "group_lag",
        "gauge",
        "Publications that are not done: ready, delayed or with a worker. As of a few seconds ago.",
        |group| group.lag,
    ),
    ("group_delivered_total", "counter", "Deliveries.", |group| {
        group.delivered
    }),
    (
        "group_redelivered_total",
        "counter",
        "Deliveries of a publication that was delivered before.",
        |group| group.redelivered,
    ),
    (
        "group_acked_total",
        "counter",
        "Deliveries that were acknowledged.",
        |group| group.acked,
    ),
    (
        "group_naked_total",
        "counter",
        "Deliveries that a worker gave up.",
        |group| group.naked,
    ),
    (
        "group_timed_out_total",
        "counter",
        "Deliveries that were not settled in time.",
        |group| group.timed_out,
    ),
    (
        "group_dead_total",
        "counter",
        "Publications that became dead letters.",
        |group| group.dead,
    ),
    (
        "group_passed_total",
        "counter",
        "Publications of the group's channels that its `tags` or `where` leave out.",
        |group| group.passed,
    ),
    (
        "group_lost_total",
        "counter",
        "Publications that were forgotten before the group was done with them, by retention or by order; about as many.",
        |group| group.lost,
    ),
    (
        "group_held_back_total",
        "counter",
        "Publications that were refused because the group has as much to do as its `lag_max` says.",
        |group| group.held_back,
    ),
];

/// Whose group it is, and which.
fn labels(whole: &str) -> String {
    let (tenant, group) = TenantId::split(whole);
    match tenant.is_default() {
        true => format!("group=\"{group}\""),
        false => format!("tenant=\"{tenant}\",group=\"{group}\""),
    }
}

/// A number of a trigger that joins: name, kind, help, access.
type JoinNumber = (
    &'static str,
    &'static str,
    &'static str,
    fn(&JoinCounts) -> u64,
);

const JOINS: [JoinNumber; 4] = [
    (
        "trigger_joins_open",
        "gauge",
        "Joins of a trigger that wait for parts, in this process.",
        |joins| joins.open,
    ),
    (
        "trigger_join_parts",
        "gauge",
        "Publications that wait in them for others.",
        |joins| joins.parts,
    ),
    (
        "trigger_joins_completed_total",
        "counter",
        "Joins of a trigger that became a publication.",
        |joins| joins.completed,
    ),
    (
        "trigger_joins_expired_total",
        "counter",
        "Joins of a trigger whose parts became dead letters, mostly because some did not come in time.",
        |joins| joins.expired,
    ),
];

/// What triggers join.
pub(super) fn joins(out: &mut String, groups: &[GroupReport]) {
    for (name, kind, help, of) in JOINS {
        let name = format!("ringmain_{name}");
        head(out, &name, kind, help);
        for group in groups {
            if let Some(joins) = &group.joins {
                let number = of(joins);
                line(
                    out,
                    format_args!("{name}{{{}}} {number}", labels(&group.name)),
                );
            }
        }
    }
}

/// Queue groups.
pub(super) fn groups(out: &mut String, groups: &[GroupReport]) {
    for (name, kind, help, of) in GROUPS {
        let name = format!("ringmain_{name}");
        head(out, &name, kind, help);
        for group in groups {
            line(
                out,
                format_args!("{name}{{{}}} {}", labels(&group.name), of(group)),
            );
        }
    }
    let name = "ringmain_group_time_in_queue_seconds";
    head(
        out,
        name,
        "histogram",
        "Time from a publication until its first delivery to a worker of the group.",
    );
    for group in groups {
        let mut all = 0;
        for (bound, count) in group.waits.cumulative() {
            let bound =
                bound.map_or_else(|| "+Inf".to_owned(), |ms| (ms as f64 / 1000.0).to_string());
            all = count;
            line(
                out,
                format_args!(
                    "{name}_bucket{{{},le=\"{bound}\"}} {count}",
                    labels(&group.name)
                ),
            );
        }
        let seconds = group.waits.sum_ms() as f64 / 1000.0;
        line(
            out,
            format_args!("{name}_sum{{{}}} {seconds}", labels(&group.name)),
        );
        line(
            out,
            format_args!("{name}_count{{{}}} {all}", labels(&group.name)),
        );
    }
    let name = "ringmain_group_oldest_unix_seconds";
    head(
        out,
        name,
        "gauge",
        "When the oldest publication that is not done was taken in; absent where all are.",
    );
    for group in groups {
        if let Some(unix_ms) = group.oldest_unix_ms {
            line(
                out,
                format_args!("{name}{{{}}} {}", labels(&group.name), unix_ms / 1000),
            );
        }
    }
}

/// Dead letters.
pub(super) fn letters(out: &mut String, report: &LogReport) {
    let name = "ringmain_dead_letters";
    let help = "Dead letters that there are, by group and class of the last reason, those of deleted groups too.";
    head(out, name, "gauge", help);
    for ((group, cause), count) in &report.letters.counts {
        let (group, class) = (labels(group), cause.name());
        line(
            out,
            format_args!("{name}{{{group},class=\"{class}\"}} {count}"),
        );
    }
    let bytes = (
        "ringmain_dead_letters_bytes",
        "gauge",
        "Bytes of all dead letters, about.",
        report.letters.bytes,
    );
    let expired = (
        "ringmain_dead_letters_expired_total",
        "counter",
        "Dead letters that were forgotten because of their age or because there were more than are kept.",
        report.letters_expired,
    );
    let returned = (
        "ringmain_deliveries_returned_total",
        "counter",
        "Deliveries that go to others because whoever had them is gone.",
        report.returned,
    );
    for (name, kind, help, number) in [bytes, expired, returned] {
        head(out, name, kind, help);
        line(out, format_args!("{name} {number}"));
    }
}

/// A number of a source: name, kind, help, access.
type SourceNumber = (
    &'static str,
    &'static str,
    &'static str,
    fn(&SourceReport) -> u64,
);

const SOURCES: [SourceNumber; 6] = [
    (
        "source_up",
        "gauge",
        "Whether the source reads and publishes.",
        |source| u64::from(source.is_up),
    ),
    (
        "source_published_total",
        "counter",
        "Rows or records that were published.",
        |source| source.published,
    ),
    (
        "source_repeated_total",
        "counter",
        "Rows or records that were published before, and are not stored again.",
        |source| source.repeated,
    ),
    (
        "source_skipped_total",
        "counter",
        "Rows or records that were left out, as they cannot be published.",
        |source| source.skipped,
    ),
    (
        "source_failures_total",
        "counter",
        "Times that the source had to begin anew.",
        |source| source.failures,
    ),
    (
        "source_lag",
        "gauge",
        "Rows or records that are still to be read; of a table they are counted up to 100000.",
        |source| source.lag,
    ),
];

/// Sources.
pub(super) fn sources(out: &mut String, sources: &[SourceReport]) {
    for (name, kind, help, of) in SOURCES {
        let name = format!("ringmain_{name}");
        head(out, &name, kind, help);
        for source in sources {
            let SourceReport {
                name: label, kind, ..
            } = source;
            let value = of(source);
            line(
                out,
                format_args!("{name}{{source=\"{label}\",kind=\"{kind}\"}} {value}"),
            );
        }
    }
    let name = "ringmain_source_last_success_unix_seconds";
    head(
        out,
        name,
        "gauge",
        "When the source was last done with what it had read; absent where it never was.",
    );
    for source in sources {
        if let Some(unix_ms) = source.last_success_unix_ms {
            let SourceReport {
                name: label, kind, ..
            } = source;
            line(
                out,
                format_args!(
                    "{name}{{source=\"{label}\",kind=\"{kind}\"}} {}",
                    unix_ms / 1000
                ),
            );
        }
    }
}
