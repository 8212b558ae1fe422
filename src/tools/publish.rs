//! `ringmain publish` and `ringmain import`: publications out of arguments or of lines of JSON, over the server API.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read as _, Write as _};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::client::Client;
use super::{ApiArgs, ToolError};
use crate::config::glob_match;
use crate::limits::{FETCH_WAIT_MS_MIN, LOG_RECORD_BYTES_MAX};

/// Publications of one request.
const BATCH_LINES: usize = 256;
/// Bytes of one request, about.
const BATCH_BYTES: usize = 256 << 10;
/// Bytes of a line: the largest payload, every byte escaped, and what belongs to it.
const LINE_BYTES_MAX: u64 = 6 * LOG_RECORD_BYTES_MAX as u64;
/// Refused lines that are told one by one.
const TOLD_MAX: u64 = 10;

/// The answer to each publication goes to standard output, one JSON object a line.
///
/// A line of standard input is an object with `data` (or `b64data`), and `channel`, `key`, `tags`, `schema`, `trace` and `ttl_ms` if they are to differ
/// from the options. Exit status: 0 everything was published, 1 something was not, 2 wrong usage.
#[derive(Clone, Debug, clap::Args)]
pub struct PublishArgs {
    /// Channel
    pub channel: String,
    /// Payload, one JSON value; `-` reads lines of JSON from standard input
    #[arg(default_value = "-", allow_hyphen_values = true)]
    pub data: String,
    /// Idempotency key: the same is not published twice
    #[arg(long, value_name = "KEY")]
    pub key: Option<String>,
    /// Tag; may be repeated
    #[arg(long = "tag", value_name = "NAME=VALUE", value_parser = tag)]
    pub tags: Vec<(String, String)>,
    /// Version of the payload, where its namespace has schemas
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub schema: Option<u32>,
    /// Text that travels along
    #[arg(long, value_name = "TEXT")]
    pub trace: Option<String>,
    /// How long it is kept, such as `90s` or `2h`; without it as long as its channel keeps others
    #[arg(long, value_name = "DURATION", value_parser = super::when::milliseconds)]
    pub ttl: Option<u64>,
    /// Server
    #[command(flatten)]
    pub target: ApiArgs,
}

/// A line is what `replay`, `tail` and `log export` write, or an object with `channel` and `data`.
///
/// The same file may be imported again after an error: what it has published is not published twice, as long as idempotency keys
/// are kept. Exit status: 0 everything was published,
/// 1 something was not, 2 wrong usage or a line that is none.
#[derive(Clone, Debug, clap::Args)]
pub struct ImportArgs {
    /// File of lines of JSON; `-` is standard input
    pub file: PathBuf,
    /// Publish everything into this channel, for example one of a sandbox, rather than where it was
    #[arg(long, value_name = "CHANNEL")]
    pub channel: Option<String>,
    /// Queue group that takes it from that channel, for example that of a sandbox; made to begin with it where there is none
    #[arg(long, value_name = "NAME", requires = "channel")]
    pub group: Option<String>,
    /// Server
    #[command(flatten)]
    pub target: ApiArgs,
}

fn tag(text: &str) -> Result<(String, String), &'static str> {
    let (name, value) = text
        .split_once('=')
        .filter(|(name, _)| !name.is_empty())
        .ok_or("NAME=VALUE is expected")?;
    Ok((name.to_owned(), value.to_owned()))
}

/// What a line may say. Where it stood before is known and not used.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line<'a> {
    channel: Option<String>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    b64data: Option<String>,
    #[serde(alias = "idempotency_key")]
    key: Option<String>,
    event_id: Option<String>,
    tags: Option<Tags>,
    schema: Option<u32>,
    trace: Option<String>,
    ttl_ms: Option<u64>,
    #[serde(default)]
    delta: bool,
    #[serde(rename = "cursor")]
    _cursor: Option<Value>,
    #[serde(rename = "epoch")]
    _epoch: Option<String>,
    #[serde(rename = "offset")]
    _offset: Option<u64>,
    #[serde(rename = "published_at")]
    _published_at: Option<u64>,
    #[serde(rename = "publisher")]
    _publisher: Option<Value>,
    #[serde(rename = "tenant")]
    _tenant: Option<String>,
    #[serde(rename = "hops")]
    _hops: Option<u32>,
    #[serde(rename = "origin")]
    _origin: Option<Value>,
}

/// As replays write them, or as `log export` does.
#[derive(Deserialize)]
#[serde(untagged)]
enum Tags {
    Named(BTreeMap<String, String>),
    Pairs(Vec<(String, String)>),
}

/// How a line becomes a publication.
struct Rules<'a> {
    channel: Option<&'a str>,
    is_channel_forced: bool,
    tags: &'a [(String, String)],
    schema: Option<u32>,
    trace: Option<&'a str>,
    ttl_ms: Option<u64>,
    /// An event's id is its key where the line has no key that counts in the channel.
    keeps_events: bool,
}

impl Rules<'_> {
    /// Parameters of a publish, as JSON.
    fn read(&self, text: &str) -> Result<String, String> {
        let line: Line<'_> = serde_json::from_str(text).map_err(|error| error.to_string())?;
        let own = line.channel.as_deref().filter(|_| !self.is_channel_forced);
        let channel = own
            .or(self.channel)
            .ok_or("without `channel`, and no --channel is given")?;
        let is_moved = line.channel.as_deref() != Some(channel);
        let mut out = json!({ "channel": channel });
        let event = line.event_id.filter(|_| self.keeps_events);
        let key = match (line.key, event) {
            (Some(key), _) if !is_moved || !self.keeps_events => Some(key),
            (_, Some(event)) => Some(format!("import/{event}")),
            (key, None) => key,
        };
        if let Some(key) = key {
            out["idempotency_key"] = json!(key);
        }
        let mut tags: BTreeMap<String, String> = self.tags.iter().cloned().collect();
        match line.tags {
            Some(Tags::Named(more)) => tags.extend(more),
            Some(Tags::Pairs(more)) => tags.extend(more),
            None => {}
        }
        if !tags.is_empty() {
            out["tags"] = json!(tags);
        }
        if let Some(schema) = line.schema.or(self.schema).filter(|schema| *schema > 0) {
            out["schema"] = json!(schema);
        }
        if let Some(trace) = line.trace.as_deref().or(self.trace) {
            out["trace"] = json!(trace);
        }
        if let Some(ttl) = line.ttl_ms.or(self.ttl_ms) {
            out["ttl_ms"] = json!(ttl);
        }
        if line.delta {
            out["delta"] = json!(true);
        }
        let mut out = out.to_string();
        // The payload as it is: numbers and the order of its members stay.
        match (line.data, line.b64data) {
            (Some(data), None) => splice(&mut out, "data", data.get()),
            (None, Some(data)) => splice(&mut out, "b64data", &json!(data).to_string()),
            _ => return Err("exactly one of `data` and `b64data` is expected".to_owned()),
        }
        Ok(out)
    }
}

/// Adds a member to an object that has some.
fn splice(object: &mut String, name: &str, value: &str) {
    object.pop();
    object.push_str(&format!(",\"{name}\":{value}}}"));
}

/// Runs `ringmain publish`.
pub(super) fn publish(client: Client, args: &PublishArgs) -> Result<(), ToolError> {
    let rules = Rules {
        channel: Some(&args.channel),
        is_channel_forced: false,
        tags: &args.tags,
        schema: args.schema,
        trace: args.trace.as_deref(),
        ttl_ms: args.ttl,
        keeps_events: false,
    };
    if args.data == "-" {
        if args.key.is_some() {
            let text = "--key is for one publication: lines of standard input have a `key` each";
            return Err(ToolError::Usage(text.to_owned()));
        }
        let input = Box::new(BufReader::new(io::stdin()));
        return run(client, &rules, input, "standard input", true);
    }
    if serde_json::from_str::<&RawValue>(&args.data).is_err() {
        let text = "DATA: one JSON value is expected, such as '{\"n\":1}' or '\"text\"'";
        return Err(ToolError::Usage(text.to_owned()));
    }
    let mut line = json!({ "channel": args.channel });
    if let Some(key) = &args.key {
        line["key"] = json!(key);
    }
    let mut line = line.to_string();
    splice(&mut line, "data", &args.data);
    run(
        client,
        &rules,
        Box::new(io::Cursor::new(line)),
        "DATA",
        true,
    )
}

/// Runs `ringmain import`.
pub(super) fn import(mut client: Client, args: &ImportArgs) -> Result<(), ToolError> {
    let open = |name: &str| File::open(&args.file).map_err(|error| ToolError::file(name, error));
    let is_stdin = args.file.as_os_str() == "-";
    let name = match is_stdin {
        true => "standard input".to_owned(),
        false => args.file.display().to_string(),
    };
    let input: Box<dyn BufRead + Send> = match is_stdin {
        true => Box::new(BufReader::new(io::stdin())),
        false => Box::new(BufReader::new(open(&name)?)),
    };
    if let (Some(group), Some(channel)) = (&args.group, &args.channel) {
        make_group(&mut client, group, channel)?;
    }
    let rules = Rules {
        channel: args.channel.as_deref(),
        is_channel_forced: args.channel.is_some(),
        tags: &[],
        schema: None,
        trace: None,
        ttl_ms: None,
        keeps_events: true,
    };
    run(client, &rules, input, &name, false)
}

/// The group takes from the channel. One that is made begins with what comes next.
fn make_group(client: &mut Client, group: &str, channel: &str) -> Result<(), ToolError> {
    let groups = client.call("queue/groups", &json!({}))?;
    let groups = groups["groups"].as_array().into_iter().flatten();
    if let Some(known) = groups.into_iter().find(|known| known["group"] == group) {
        let mut channels = known["channels"].as_array().into_iter().flatten();
        let takes = |pattern: &Value| {
            let pattern = pattern.as_str().unwrap_or_default();
            glob_match(pattern, channel)
        };
        return match channels.any(takes) {
            true => Ok(()),
            false => Err(ToolError::Nothing(format!(
                "the group `{group}` takes nothing from `{channel}`: name a channel that it takes from, or another group"
            ))),
        };
    }
    // It takes nothing yet, so nothing is fetched.
    let wish = json!({
        "group": group, "channels": [channel], "from": "new", "limit": 1, "wait_ms": FETCH_WAIT_MS_MIN,
    });
    let fetched = client.call("queue/fetch", &wish)?;
    let given = fetched["deliveries"].as_array().into_iter().flatten();
    for given in given {
        // Somebody else has published meanwhile.
        let back = json!({ "delivery": given["delivery"], "delay_ms": 0, "reason": "import" });
        client.call("queue/nak", &back)?;
    }
    Ok(())
}

type Read = Result<(u64, String), ToolError>;

/// Publishes lines in their order. What waits goes out together, and nothing waits for more.
fn run(
    mut client: Client,
    rules: &Rules<'_>,
    input: Box<dyn BufRead + Send>,
    name: &str,
    shows: bool,
) -> Result<(), ToolError> {
    let (sender, lines) = sync_channel(BATCH_LINES);
    let reader_name = name.to_owned();
    // It ends with its input or with this process.
    std::thread::spawn(move || read(input, &reader_name, &sender));
    let (mut published, mut refused) = (0, 0);
    let mut outcome = Ok(());
    while outcome.is_ok() {
        let (batch, ended) = batch(&lines, rules, name);
        if batch.is_empty() && ended.is_ok() {
            break;
        }
        // What stands before a line that is none is published.
        if !batch.is_empty() {
            let bad = send(&mut client, &batch, name, shows, refused)?;
            refused += bad;
            published += batch.len() as u64 - bad;
        }
        outcome = ended;
        if refused > 0 {
            break;
        }
    }
    if !shows {
        eprintln!("{name}: {published} lines published");
    }
    outcome?;
    match refused {
        0 if published == 0 => Err(ToolError::Nothing(format!("{name} has no lines"))),
        0 => Ok(()),
        _ => Err(ToolError::Nothing(format!(
            "{refused} publications were refused, and what stands behind them was not tried"
        ))),
    }
}

fn read(mut input: Box<dyn BufRead + Send>, name: &str, lines: &SyncSender<Read>) {
    let mut number = 0;
    loop {
        let mut line = String::new();
        let read = (&mut input).take(LINE_BYTES_MAX).read_line(&mut line);
        number += 1;
        let line = match read {
            Ok(0) => return,
            Ok(_) if line.trim().is_empty() => continue,
            Ok(_) => Ok((number, line)),
            Err(error) => Err(ToolError::file(name, error)),
        };
        let is_over = line.is_err();
        if lines.send(line).is_err() || is_over {
            return;
        }
    }
}

/// Waits for a line and takes what has come with it; beside them what ends the input early.
fn batch(
    lines: &Receiver<Read>,
    rules: &Rules<'_>,
    name: &str,
) -> (Vec<(u64, String)>, Result<(), ToolError>) {
    let (mut batch, mut bytes) = (Vec::new(), 0);
    let Ok(mut read) = lines.recv() else {
        return (batch, Ok(()));
    };
    loop {
        let wrong =
            |number: u64, says: String| ToolError::Usage(format!("{name}, line {number}: {says}"));
        let line = read.and_then(|(number, text)| {
            let publish = rules.read(text.trim());
            Ok((number, publish.map_err(|says| wrong(number, says))?))
        });
        match line {
            Ok(line) => {
                bytes += line.1.len();
                batch.push(line);
            }
            Err(error) => return (batch, Err(error)),
        }
        if batch.len() >= BATCH_LINES || bytes >= BATCH_BYTES {
            return (batch, Ok(()));
        }
        match lines.try_recv() {
            Ok(next) => read = next,
            Err(_) => return (batch, Ok(())),
        }
    }
}

/// How many were refused.
fn send(
    client: &mut Client,
    batch: &[(u64, String)],
    name: &str,
    shows: bool,
    told: u64,
) -> Result<u64, ToolError> {
    #[derive(Deserialize)]
    struct Replies {
        replies: Vec<Value>,
    }
    let commands: Vec<String> = batch
        .iter()
        .map(|(_, publish)| format!("{{\"publish\":{publish}}}"))
        .collect();
    let body = format!("{{\"commands\":[{}]}}", commands.join(","));
    let answer = client.post_text("batch", body)?;
    let path = || "/api/batch".to_owned();
    let answer: Replies = serde_json::from_slice(&answer).map_err(|source| ToolError::Answer {
        path: path(),
        source,
    })?;
    if answer.replies.len() != batch.len() {
        return Err(ToolError::Answer {
            path: path(),
            source: serde::de::Error::custom("not as many replies as commands"),
        });
    }
    let mut out = Vec::new();
    let mut refused = 0;
    for ((number, _), reply) in batch.iter().zip(&answer.replies) {
        if let Some(error) = reply.get("error") {
            refused += 1;
            if told + refused <= TOLD_MAX {
                let message = error["message"].as_str().unwrap_or_default();
                eprintln!("{name}, line {number}: {message} (error {})", error["code"]);
            }
        } else if shows {
            out.extend_from_slice(reply["publish"].to_string().as_bytes());
            out.push(b'\n');
        }
    }
    io::stdout()
        .lock()
        .write_all(&out)
        .map_err(|error| ToolError::file("standard output", error))?;
    Ok(refused)
}

#[cfg(test)]
mod tests {
    use super::*;

    const IMPORT: Rules<'_> = Rules {
        channel: None,
        is_channel_forced: false,
        tags: &[],
        schema: None,
        trace: None,
        ttl_ms: None,
        keeps_events: true,
    };

    #[test]
    fn payloads_go_out_as_they_came_in() {
        let text = r#"{"channel":"a","data":{"b":1.10,"a":12345678901234567890123}}"#;
        assert_eq!(IMPORT.read(text).unwrap(), text);
    }

    #[test]
    fn what_is_imported_again_has_the_same_key_and_another_channel_has_another_one() {
        let line = r#"{"event_id":"E","channel":"a","epoch":"e","offset":1,"key":"k","tags":{"t":"1"},"published_at":5,"data":1}"#;
        let key = |rules: &Rules<'_>| {
            let read: Value = serde_json::from_str(&rules.read(line).unwrap()).unwrap();
            (read["channel"].clone(), read["idempotency_key"].clone())
        };
        assert_eq!(key(&IMPORT), (json!("a"), json!("k")));
        let moved = Rules {
            channel: Some("b"),
            is_channel_forced: true,
            ..IMPORT
        };
        assert_eq!(key(&moved), (json!("b"), json!("import/E")));
    }

    #[test]
    fn lines_that_say_what_nobody_knows_are_refused() {
        for line in [
            "1",
            "{}",
            r#"{"channel":"a"}"#,
            r#"{"data":1}"#,
            r#"{"channel":"a","data":1,"b64data":"AA=="}"#,
            r#"{"channel":"a","data":1,"ttl":5}"#,
        ] {
            assert!(IMPORT.read(line).is_err(), "{line}");
        }
    }
}
