//! `ringmain drain`: asks the running proxy to drain, follows it to its end and prints the report.

use std::io::Write as _;

use serde::Deserialize;
use serde_json::{Value, json};

use super::client::Client;
use super::{AdminArgs, ToolError, admin_client};
use crate::config::Config;

/// `ringmain drain`: begins a drain, or joins the one under way, and waits for its end.
///
/// Exit status: 0 everybody was told and left, 3 some connections were cut and nothing accepted was lost, 1 something accepted was not
/// acknowledged, or the drain failed.
#[derive(Clone, Debug, clap::Args)]
pub struct DrainArgs {
    /// Disconnects are spread over this time, such as 30s [default: drain.window]
    #[arg(long, value_name = "TIME")]
    pub window: Option<String>,
    /// It takes no longer than this [default: drain.deadline]
    #[arg(long, value_name = "TIME")]
    pub deadline: Option<String>,
    /// The report as one JSON object, and no progress
    #[arg(long)]
    pub json: bool,
    /// Server
    #[command(flatten)]
    pub target: AdminArgs,
}

/// Drains a running proxy. The exit status.
///
/// # Errors
/// See `ToolError`.
pub fn drain(config: &Config, args: &DrainArgs) -> Result<u8, ToolError> {
    run(admin_client(config, &args.target)?, args)
}

/// Where it is asked for.
const PATH: &str = "/admin/drain";
/// Some connections were cut, and nothing that was accepted is lost.
const FORCED: u8 = 3;

/// A line of the answer.
#[derive(Deserialize)]
#[serde(untagged)]
enum Line {
    Over {
        report: Value,
    },
    Under {
        phase: String,
        connections: u64,
        told: u64,
    },
}

/// The exit status: 0, 1 if something accepted was not acknowledged or the drain failed, 3 if only connections were cut.
fn run(mut client: Client, args: &DrainArgs) -> Result<u8, ToolError> {
    let mut asked = serde_json::Map::new();
    for (name, time) in [("window", &args.window), ("deadline", &args.deadline)] {
        asked.extend(time.as_ref().map(|time| (name.to_owned(), json!(time))));
    }
    let mut rest = Vec::new();
    let mut report = None;
    client.follow(PATH, &Value::Object(asked), |bytes| {
        rest.extend_from_slice(bytes);
        while let Some(end) = rest.iter().position(|&byte| byte == b'\n') {
            let line: Vec<u8> = rest.drain(..=end).collect();
            let understood = serde_json::from_slice(&line).map_err(|source| ToolError::Answer {
                path: PATH.to_owned(),
                source,
            });
            match understood? {
                Line::Under {
                    phase,
                    connections,
                    told,
                } if !args.json => {
                    eprintln!(
                        "{phase}: {connections} connections, {told} told to come back elsewhere"
                    );
                }
                Line::Under { .. } => {}
                Line::Over { report: last } => report = Some(last),
            }
        }
        Ok(report.is_none())
    })?;
    let Some(report) = report else {
        return Err(ToolError::Connection {
            address: client.address().to_owned(),
            reason: "the proxy ended without a report".to_owned(),
        });
    };
    let text = match args.json {
        true => format!("{report}\n"),
        false => written(&report),
    };
    std::io::stdout()
        .lock()
        .write_all(text.as_bytes())
        .map_err(|error| ToolError::file("standard output", error))?;
    Ok(status(&report))
}

fn status(report: &Value) -> u8 {
    match (report["status"].as_u64(), report["forced"].as_u64()) {
        (Some(0), Some(0)) => 0,
        (Some(0), _) => FORCED,
        _ => 1,
    }
}

/// For people.
fn written(report: &Value) -> String {
    let seconds = report["took_ms"].as_f64().unwrap_or_default() / 1000.0;
    if let Some(why) = report["failed"].as_str() {
        return format!("failed after {seconds:.1} s: {why}\n");
    }
    let number = |name: &str| report[name].as_u64().unwrap_or_default();
    let mut out = format!("drained in {seconds:.1} s\n");
    for (name, says) in [
        ("told", "told to come back elsewhere"),
        ("left", "left by themselves"),
        ("forced", "cut at the deadline"),
        ("unanswered", "of these waited for an answer"),
        ("unacked", "publications without acknowledgement"),
        ("returned", "deliveries returned to their groups"),
    ] {
        out.push_str(&format!("{:>8}  {says}\n", number(name)));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_tells_a_loss_from_connections_that_were_cut() {
        for (report, expected) in [
            (json!({ "status": 0, "forced": 0 }), 0),
            (json!({ "status": 0, "forced": 2 }), FORCED),
            (json!({ "status": 1, "forced": 0 }), 1),
            (json!({ "status": 1, "failed": "a shard" }), 1),
        ] {
            assert_eq!(status(&report), expected, "{report}");
        }
    }

    #[test]
    fn the_report_names_every_number() {
        let text = written(&json!({
            "took_ms": 1240, "told": 7, "left": 1, "forced": 2, "unanswered": 1, "unacked": 0, "returned": 3,
        }));
        assert!(text.starts_with("drained in 1.2 s\n"), "{text}");
        assert!(text.contains("       7  told"), "{text}");
        assert!(text.contains("       3  deliveries"), "{text}");
    }
}
