//! What a run has measured, the table at the end, and the raw results as JSON.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Serializer as _, V2Serializer};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::BenchError;
use super::ledger::Counts;
use super::process::Facts;

/// Whose run it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Subject {
    /// The proxy, or any other server.
    Server,
    /// Raw sockets on the same ring.
    Limit,
}

/// How a figure is printed. Values are kept in the base unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    /// Plain number.
    Count,
    /// Per second.
    Rate,
    /// Nanoseconds.
    Time,
    /// Bytes.
    Bytes,
    /// 1.0 is one core, or all.
    Share,
}

/// One measured number.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Figure {
    /// What it is; also the key in the JSON file.
    pub(crate) name: &'static str,
    /// Its value in the base unit.
    pub(crate) value: f64,
    /// How to print it.
    pub(crate) unit: Unit,
    /// Its ratio to the limit's says something.
    pub(crate) is_compared: bool,
}

/// One run of one subject.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    /// Whose.
    pub(crate) subject: Subject,
    /// In the order of the table.
    pub(crate) figures: Vec<Figure>,
    /// Nanoseconds from the intended send time to arrival; empty where nothing is delivered.
    pub(crate) latency: Histogram<u64>,
    /// The checker's books.
    pub(crate) ledger: Counts,
    /// Connections that the server closed although nobody asked.
    pub(crate) disconnected: u64,
    /// Commands that the server refused.
    pub(crate) refused: u64,
}

impl Run {
    /// Adds a figure that stands for itself.
    pub(crate) fn push(&mut self, name: &'static str, unit: Unit, value: f64) {
        self.figures.push(Figure {
            name,
            value,
            unit,
            is_compared: false,
        });
    }

    /// Adds a figure whose ratio to the limit's is printed.
    pub(crate) fn push_compared(&mut self, name: &'static str, unit: Unit, value: f64) {
        self.figures.push(Figure {
            name,
            value,
            unit,
            is_compared: true,
        });
    }

    /// The value of a figure.
    #[must_use]
    pub(crate) fn figure(&self, name: &str) -> Option<f64> {
        self.figures
            .iter()
            .find(|figure| figure.name == name)
            .map(|figure| figure.value)
    }

    /// Nothing happened that the contract does not allow.
    #[must_use]
    pub(crate) const fn is_clean(&self) -> bool {
        self.ledger.is_clean() && self.disconnected == 0 && self.refused == 0
    }
}

/// All runs of one invocation.
pub(crate) struct Report {
    /// Name of the scenario.
    pub(crate) scenario: &'static str,
    /// What was asked for.
    pub(crate) shape: Value,
    /// Where it was measured.
    pub(crate) facts: Facts,
    /// In the order in which they ran.
    pub(crate) runs: Vec<Run>,
}

impl Report {
    /// Nothing happened that the contract does not allow.
    #[must_use]
    pub(crate) fn is_clean(&self) -> bool {
        self.runs.iter().all(Run::is_clean)
    }

    fn values(&self, subject: Subject, name: &str) -> Vec<f64> {
        self.runs
            .iter()
            .filter(|run| run.subject == subject)
            .filter_map(|run| run.figure(name))
            .collect()
    }

    /// Median over the runs of a subject.
    #[must_use]
    pub(crate) fn median(&self, subject: Subject, name: &str) -> Option<f64> {
        median(self.values(subject, name))
    }

    /// Median over the pairs of runs of the server's value ÷ the limit's.
    #[must_use]
    pub(crate) fn ratio(&self, name: &str) -> Option<f64> {
        let server = self.values(Subject::Server, name);
        let limit = self.values(Subject::Limit, name);
        median(
            server
                .iter()
                .zip(&limit)
                .filter(|(_, limit)| **limit > 0.0)
                .map(|(server, limit)| server / limit)
                .collect(),
        )
    }

    /// The figures of all runs in the order of their first appearance.
    fn figures(&self) -> Vec<Figure> {
        let mut all: Vec<Figure> = Vec::new();
        for figure in self.runs.iter().flat_map(|run| &run.figures) {
            if all.iter().all(|known| known.name != figure.name) {
                all.push(*figure);
            }
        }
        all
    }

    /// The table for people.
    #[must_use]
    pub(crate) fn table(&self) -> String {
        let mut out = String::new();
        self.write_head(&mut out);
        let count = |subject| {
            self.runs
                .iter()
                .filter(|run| run.subject == subject)
                .count()
        };
        let (servers, limits) = (count(Subject::Server), count(Subject::Limit));
        let _ = writeln!(
            out,
            "medians of {servers} runs of the server and {limits} of the limit\n"
        );
        let _ = writeln!(
            out,
            "{:<34} {:>14} {:>14} {:>8}",
            "", "server", "limit", "ratio"
        );
        for figure in self.figures() {
            let cell = |subject| {
                self.median(subject, figure.name)
                    .map(|value| shown(value, figure.unit))
                    .unwrap_or_default()
            };
            let ratio = self.ratio(figure.name).filter(|_| figure.is_compared);
            let ratio = ratio.map(|ratio| format!("{ratio:.3}")).unwrap_or_default();
            let (server, limit) = (cell(Subject::Server), cell(Subject::Limit));
            let _ = writeln!(
                out,
                "{:<34} {server:>14} {limit:>14} {ratio:>8}",
                figure.name
            );
        }
        let _ = writeln!(out);
        self.write_verdict(&mut out);
        out
    }

    fn write_head(&self, out: &mut String) {
        let Facts {
            kernel,
            processor,
            cores,
            server_core,
            generator_core,
            link,
            descriptors_max,
            congestion_control,
            ..
        } = &self.facts;
        let core =
            |core: &Option<usize>| core.map_or_else(|| "any".to_owned(), |core| core.to_string());
        let _ = writeln!(out, "{}: {}", self.scenario, self.shape);
        let _ = writeln!(
            out,
            "kernel {kernel}, {cores} cores of {processor}, server on core {}, generator on core {}, {link} with {congestion_control}, no TLS, {descriptors_max} descriptors",
            core(server_core),
            core(generator_core),
        );
    }

    fn write_verdict(&self, out: &mut String) {
        for run in self.runs.iter().filter(|run| !run.is_clean()) {
            let Counts {
                lost,
                duplicated,
                reordered,
                ..
            } = run.ledger;
            let _ = writeln!(
                out,
                "VIOLATION ({:?}): {lost} lost, {duplicated} duplicated, {reordered} reordered, {} disconnected, {} refused",
                run.subject, run.disconnected, run.refused
            );
        }
        if self.is_clean() {
            let _ = writeln!(out, "ledger: nothing lost, duplicated or reordered");
        }
    }

    /// The raw results.
    pub(crate) fn json(&self) -> Result<Value, BenchError> {
        let runs = self
            .runs
            .iter()
            .map(run_json)
            .collect::<Result<Vec<_>, _>>()?;
        let mut medians = Map::new();
        for figure in self.figures() {
            let ratio = self.ratio(figure.name).filter(|_| figure.is_compared);
            let (server, limit) = (
                self.median(Subject::Server, figure.name),
                self.median(Subject::Limit, figure.name),
            );
            medians.insert(
                figure.name.to_owned(),
                json!({ "server": server, "limit": limit, "ratio": ratio }),
            );
        }
        let Self {
            scenario,
            shape,
            facts,
            ..
        } = self;
        Ok(json!({
            "scenario": scenario, "shape": shape, "facts": facts, "clean": self.is_clean(), "medians": medians, "runs": runs,
        }))
    }
}

fn run_json(run: &Run) -> Result<Value, BenchError> {
    let figures: Map<String, Value> = run
        .figures
        .iter()
        .map(|figure| (figure.name.to_owned(), json!(figure.value)))
        .collect();
    let mut bytes = Vec::new();
    V2Serializer::new()
        .serialize(&run.latency, &mut bytes)
        .map_err(|_| BenchError::Histogram)?;
    Ok(json!({
        "subject": run.subject,
        "figures": figures,
        "ledger": run.ledger,
        "disconnected": run.disconnected,
        "refused": run.refused,
        "latency_ns_hdr_v2_base64": STANDARD.encode(bytes),
    }))
}

/// The middle value; the mean of the two middle ones of an even number.
fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let upper = *values.get(values.len() / 2)?;
    let lower = values[(values.len() - 1) / 2];
    Some(f64::midpoint(lower, upper))
}

fn shown(value: f64, unit: Unit) -> String {
    match unit {
        Unit::Count if value.fract() == 0.0 => format!("{value:.0}"),
        Unit::Count => format!("{value:.2}"),
        Unit::Rate => format!("{} /s", scaled(value, 1000.0, &["", "k", "M", "G"])),
        Unit::Time => match value {
            v if v < 1e3 => format!("{v:.0} ns"),
            v if v < 1e6 => format!("{:.2} µs", v / 1e3),
            v if v < 1e9 => format!("{:.2} ms", v / 1e6),
            v => format!("{:.2} s", v / 1e9),
        },
        Unit::Bytes => format!("{}B", scaled(value, 1024.0, &["", "Ki", "Mi", "Gi"])),
        Unit::Share => format!("{:.1} %", value * 100.0),
    }
}

fn scaled(mut value: f64, step: f64, prefixes: &[&str]) -> String {
    let mut prefix = 0;
    while value.abs() >= step * 10.0 && prefix + 1 < prefixes.len() {
        value /= step;
        prefix += 1;
    }
    if prefix == 0 && value.fract() == 0.0 {
        format!("{value:.0} ")
    } else {
        format!("{value:.1} {}", prefixes[prefix])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(subject: Subject, cpu: f64) -> Run {
        let latency = Histogram::new(3).unwrap();
        let mut run = Run {
            subject,
            figures: Vec::new(),
            latency,
            ledger: Counts::default(),
            disconnected: 0,
            refused: 0,
        };
        run.push("connections", Unit::Count, 1000.0);
        run.push_compared("CPU per delivery", Unit::Time, cpu);
        run
    }

    fn report() -> Report {
        let pairs = [(4400.0, 4000.0), (9000.0, 3000.0), (5000.0, 5000.0)];
        let runs = pairs.iter().flat_map(|(server, limit)| {
            [run(Subject::Server, *server), run(Subject::Limit, *limit)]
        });
        Report {
            scenario: "fanout",
            shape: json!({ "connections": 1000 }),
            facts: Facts::read(Some(0), Some(1)),
            runs: runs.collect(),
        }
    }

    #[test]
    fn ratio_is_the_median_of_pairs_of_neighbouring_runs() {
        let report = report();
        assert_eq!(report.ratio("CPU per delivery"), Some(1.1));
        assert_eq!(
            report.median(Subject::Server, "CPU per delivery"),
            Some(5000.0)
        );
        let line = report
            .table()
            .lines()
            .find(|line| line.starts_with("CPU per delivery"))
            .unwrap()
            .to_owned();
        assert!(line.contains("5.00 µs") && line.contains("4.00 µs") && line.ends_with("1.100"));
    }

    #[test]
    fn violation_is_named_in_the_table_and_the_file() {
        let mut report = report();
        assert!(report.is_clean() && report.table().contains("nothing lost"));
        report.runs[2].ledger.lost = 3;
        assert!(!report.is_clean());
        assert!(report.table().contains("VIOLATION (Server): 3 lost"));
        assert_eq!(report.json().unwrap()["clean"], false);
    }

    #[test]
    fn histogram_in_the_file_reads_back() {
        let mut report = report();
        report.runs[0].latency.record(1_234_567).unwrap();
        let json = report.json().unwrap();
        let text = json["runs"][0]["latency_ns_hdr_v2_base64"]
            .as_str()
            .unwrap();
        let bytes = STANDARD.decode(text).unwrap();
        let read: Histogram<u64> = hdrhistogram::serialization::Deserializer::new()
            .deserialize(&mut bytes.as_slice())
            .unwrap();
        assert_eq!(read, report.runs[0].latency);
    }

    #[test]
    fn median_of_none_is_none_and_of_two_their_mean() {
        assert_eq!(median(vec![]), None);
        assert_eq!(median(vec![3.0, 1.0]), Some(2.0));
    }
}
