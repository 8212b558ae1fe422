//! `ringmain tail`: publications, the work of a group or dead letters as they come, one JSON object a line.

use std::collections::HashSet;
use std::io::{self, Write as _};
use std::time::Duration;

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::client::{self, Client};
use super::interrupt::Interrupt;
use super::when::When;
use super::{TargetArgs, ToolError};
use crate::wire::condition::Condition;

/// Between two looks for more.
const PAUSE: Duration = Duration::from_millis(250);
/// Waits are looked up this often for Ctrl-C.
const STEP: Duration = Duration::from_millis(50);
/// Lines of a page.
const PAGE: u64 = 500;

/// Publications of durable channels by pattern; with --group the undone work of a group, with --letters dead letters.
///
/// Exit status: 0 there was something, or Ctrl-C ended --follow, 1 there was nothing, 2 wrong usage. TIME is as in `replay`.
#[derive(Clone, Debug, clap::Args)]
pub struct TailArgs {
    /// Channels of durable namespaces, or patterns with `*`
    #[arg(value_name = "PATTERN", required_unless_present_any = ["group", "letters"], conflicts_with_all = ["group", "letters"])]
    pub channels: Vec<String>,
    /// What this group has not done; with --letters its dead letters only
    #[arg(long, value_name = "GROUP")]
    pub group: Option<String>,
    /// Dead letters
    #[arg(long)]
    pub letters: bool,
    /// Those whose JSON payload has this value there: `order.status = "failed"`
    #[arg(long = "where", value_name = "EXPR")]
    pub filter: Option<String>,
    /// Where channels start: TIME, an OFFSET of one channel, `beginning` or `now` [default: -1h]
    #[arg(long, allow_hyphen_values = true, value_parser = When::parse, value_name = "WHEN", conflicts_with_all = ["group", "letters"])]
    pub from: Option<When>,
    /// Go on with what comes, until Ctrl-C
    #[arg(long, short)]
    pub follow: bool,
    /// Server
    #[command(flatten)]
    pub target: TargetArgs,
}

/// What is read again and again.
enum Source<'a> {
    Channels {
        query: Value,
        cursor: Option<String>,
    },
    /// Work of a group, or letters.
    List {
        path: &'static str,
        members: &'static str,
        group: Option<&'a str>,
        /// How two of them are told apart.
        id: fn(&Value) -> String,
        seen: HashSet<String>,
        condition: Option<Condition>,
    },
}

/// A page of a replay.
#[derive(Deserialize)]
struct Answer<'a> {
    #[serde(borrow, default)]
    events: Vec<&'a RawValue>,
    next: String,
    done: bool,
}

/// Runs it.
pub(super) fn run(mut client: Client, args: &TailArgs) -> Result<(), ToolError> {
    let mut source = source(args)?;
    let interrupt = Interrupt::listen();
    let mut count = 0;
    loop {
        let (lines, more) = source.next(&mut client)?;
        count += lines.len();
        if !print(&lines)? {
            return Ok(());
        }
        if more && !interrupt.is_asked() {
            continue;
        }
        if !args.follow {
            break;
        }
        let mut left = PAUSE;
        while !left.is_zero() && !interrupt.is_asked() {
            std::thread::sleep(STEP);
            left = left.saturating_sub(STEP);
        }
        if interrupt.is_asked() {
            return Ok(());
        }
    }
    if count == 0 {
        let text = match &source {
            Source::Channels { .. } => "nothing is kept there: see PATTERN, --from, --where",
            Source::List { .. } => "there is none",
        };
        return Err(ToolError::Nothing(text.to_owned()));
    }
    Ok(())
}

fn source(args: &TailArgs) -> Result<Source<'_>, ToolError> {
    let condition = args.filter.as_deref().map(Condition::parse).transpose();
    let condition = condition.map_err(|error| ToolError::Usage(format!("--where: {error}")))?;
    let list = |path, members, id| Source::List {
        path,
        members,
        group: args.group.as_deref(),
        id,
        seen: HashSet::new(),
        condition: condition.clone(),
    };
    if args.letters {
        return Ok(list("dlq/list", "letters", |letter| {
            format!(
                "{}/{}/{}",
                letter["group"], letter["event_id"], letter["died_at"]
            )
        }));
    }
    if args.group.is_some() {
        return Ok(list("queue/peek", "entries", |entry| {
            entry["event_id"].to_string()
        }));
    }
    let hour = || When::parse("-1h").map_err(ToolError::Usage);
    let from = args.from.map_or_else(hour, Ok)?;
    let from = match from {
        When::Now => json!({ "time": super::when::unix_ms() }),
        from => from.json(),
    };
    let mut query = json!({ "channels": args.channels, "from": from, "to": "now", "limit": PAGE });
    if let Some(filter) = &args.filter {
        query["where"] = json!(filter);
    }
    Ok(Source::Channels {
        query,
        cursor: None,
    })
}

impl Source<'_> {
    /// What is new, and whether there is more at once.
    fn next(&mut self, client: &mut Client) -> Result<(Vec<String>, bool), ToolError> {
        match self {
            Self::Channels { query, cursor } => {
                if let Some(cursor) = &cursor {
                    query["from"] = json!({ "cursor": cursor, "follow": true });
                }
                let body = client.post("replay", query)?;
                let answer: Answer<'_> = client::result("replay", &body)?;
                let lines = answer.events.iter().map(|event| event.get().to_owned());
                let lines = lines.collect();
                *cursor = Some(answer.next);
                Ok((lines, !answer.done))
            }
            Self::List {
                path,
                members,
                group,
                id,
                seen,
                condition,
            } => {
                let mut lines = Vec::new();
                let mut now_there = HashSet::new();
                let mut after = Value::Null;
                loop {
                    let mut request = json!({ "limit": PAGE });
                    if let Some(group) = group {
                        request["group"] = json!(group);
                    }
                    if !after.is_null() {
                        request["after"] = after.clone();
                    }
                    let mut page = client.call(path, &request)?;
                    let Value::Array(all) = page[*members].take() else {
                        break;
                    };
                    for one in &all {
                        let name = id(one);
                        let fits = condition.as_ref().is_none_or(|condition| {
                            let data = one["data"].to_string();
                            condition.matches(data.as_bytes()).unwrap_or(false)
                        });
                        if fits && !seen.contains(&name) {
                            lines.push(one.to_string());
                        }
                        now_there.insert(name);
                    }
                    let next = page["next"].take();
                    if all.is_empty() || next.is_null() || next == "" || next == after {
                        break;
                    }
                    after = next;
                }
                // What has gone is forgotten: where it comes back it is told again.
                *seen = now_there;
                Ok((lines, false))
            }
        }
    }
}

/// `false` when nobody reads any more.
fn print(lines: &[String]) -> Result<bool, ToolError> {
    let mut out = io::stdout().lock();
    for line in lines {
        match writeln!(out, "{line}") {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(false),
            Err(error) => return Err(ToolError::file("standard output", error)),
        }
    }
    Ok(true)
}
