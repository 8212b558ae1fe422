//! `ringmain replay`: pages of events, the next one asked for while the present one is written.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::client::{self, Client};
use super::interrupt::Interrupt;
use super::resume::{Place, Writer, now};
use super::when::{self, When};
use super::{ReplayArgs, ToolError};

/// Method of the server API.
const PATH: &str = "replay";
/// Events of a page: what the server gives at most.
const PAGE_EVENTS: u64 = 10_000;
/// Bytes of a page's records.
const PAGE_BYTES: u64 = 8 << 20;
/// Pages a second when the rate is limited.
const PAGES_PER_SECOND: u64 = 10;
/// Times that a temporary error is answered by asking again.
const TRIES_MAX: u32 = 30;
/// Wait before asking again where the server names no time, and the longest one.
const RETRY_DELAY: Duration = Duration::from_secs(1);
const RETRY_DELAY_MAX: Duration = Duration::from_secs(30);
/// Codes of errors that pass: internal, too many requests.
const TEMPORARY: [u32; 2] = [100, 111];
/// Waits are looked up this often for Ctrl-C.
const WAIT_STEP: Duration = Duration::from_millis(50);

/// One page as the server gives it.
#[derive(Deserialize)]
struct Answer<'a> {
    #[serde(borrow, default)]
    events: Vec<&'a RawValue>,
    /// Events that the server has stored elsewhere itself.
    #[serde(default)]
    matched: u64,
    /// Events whose payloads the condition could not read.
    #[serde(default)]
    unreadable: u64,
    /// The first of them.
    #[serde(default)]
    unreadable_events: Vec<String>,
    next: String,
    done: bool,
}

/// What is looked at in an event.
#[derive(Deserialize)]
struct Published {
    published_at: Option<u64>,
}

/// One page, ready to be written.
struct Page {
    lines: Vec<u8>,
    events: u64,
    next: String,
    done: bool,
    /// When its last event was published, Unix milliseconds.
    last_ms: Option<u64>,
    /// The same of its first.
    first_ms: Option<u64>,
}

/// Asks for one page after the other.
struct Pages {
    client: Client,
    query: Value,
    cursor: Option<String>,
    limit: u64,
    pace: Option<Pace>,
    interrupt: Interrupt,
}

/// At most so many events a second.
struct Pace {
    rate: u64,
    started: Instant,
    events: u64,
}

/// Runs the command to its end.
pub(super) fn run(client: Client, args: &ReplayArgs) -> Result<(), ToolError> {
    check(args)?;
    let query = query(args);
    let kept = match &args.resume {
        Some(path) => Place::load(path, &query)?,
        None => None,
    };
    let place = kept.unwrap_or_else(|| Place::new(query));
    if place.done {
        eprintln!(
            "ringmain: this replay is complete, {} events; remove the resume file to begin anew",
            place.events
        );
        return Ok(());
    }
    let is_into = args.into.is_some() || args.into_group.is_some();
    let pages = Pages::new(client, &place, args.rate, Interrupt::listen());
    let writer = Writer::open(
        place,
        args.output.as_deref(),
        args.resume.as_deref(),
        is_into,
    )?;
    let progress = Progress::new(writer.place());
    let events = if is_into {
        copy(pages, writer, &progress)
    } else {
        write(pages, writer, &progress)
    };
    progress.clear();
    let (events, elapsed) = (events?, progress.elapsed());
    if events == 0 {
        let text = "nothing is kept there that was asked for: see --channel, --from, --to, --where";
        return Err(ToolError::Nothing(text.to_owned()));
    }
    if is_into {
        eprintln!(
            "ringmain: {events} events replayed in {:.1} s",
            elapsed.as_secs_f64()
        );
    }
    Ok(())
}

fn check(args: &ReplayArgs) -> Result<(), ToolError> {
    let is_offset = |when| matches!(when, When::Offset(_));
    let wrong = |text: &str| Err(ToolError::Usage(text.to_owned()));
    let is_exact = args.channels.len() == 1 && !args.channels[0].contains(['*', '?', '[']);
    if (is_offset(args.from) || is_offset(args.to)) && !is_exact {
        return wrong("an offset is a place in one channel: name it exactly, by one --channel");
    }
    if args.from == When::Now || args.to == When::Beginning {
        return wrong("--from takes no `now`, and --to no `beginning`");
    }
    if let (When::Time(from), When::Time(to)) = (args.from, args.to)
        && from > to
    {
        return wrong("--from is later than --to");
    }
    Ok(())
}

/// The parameters that stay the same for all pages.
fn query(args: &ReplayArgs) -> Value {
    let mut query = json!({
        "channels": args.channels,
        "from": args.from.json(),
        "to": args.to.json(),
    });
    if let Some(filter) = &args.filter {
        query["where"] = json!(filter);
    }
    if let Some(channel) = &args.into {
        query["into"] = json!({ "channel": channel });
    }
    if let Some(group) = &args.into_group {
        query["into"] = json!({ "group": group });
    }
    query
}

/// The server appends: a page is asked for when the place of the last one is kept, lest one comes twice.
fn copy(mut pages: Pages, mut writer: Writer, progress: &Progress) -> Result<u64, ToolError> {
    if pages.cursor.is_none() {
        // A place without events: what is asked for twice from there is stored once, also the first page.
        let Some(start) = pages.start()? else {
            return stopped(&mut writer);
        };
        writer.write(b"", 0, &start.next, false)?;
    }
    while let Some(page) = pages.next()? {
        writer.write(b"", page.events, &page.next, page.done)?;
        progress.set(&page, writer.place());
        if page.done {
            return Ok(writer.place().events);
        }
    }
    stopped(&mut writer)
}

fn stopped(writer: &mut Writer) -> Result<u64, ToolError> {
    writer.keep()?;
    Err(ToolError::Stopped {
        events: writer.place().events,
    })
}

/// A thread reads ahead by one page.
fn write(pages: Pages, mut writer: Writer, progress: &Progress) -> Result<u64, ToolError> {
    let (sender, receiver) = sync_channel(1);
    std::thread::scope(|scope| {
        scope.spawn(move || read_ahead(pages, &sender));
        let outcome = write_pages(&receiver, &mut writer, progress);
        // The reading thread ends when nobody takes its pages.
        drop(receiver);
        if outcome.is_err() {
            writer.keep()?;
        }
        outcome
    })
}

fn read_ahead(mut pages: Pages, sender: &SyncSender<Result<Page, ToolError>>) {
    loop {
        let (page, is_last) = match pages.next() {
            Ok(Some(page)) => {
                let is_last = page.done;
                (Ok(page), is_last)
            }
            Ok(None) => return,
            Err(error) => (Err(error), true),
        };
        if sender.send(page).is_err() || is_last {
            return;
        }
    }
}

fn write_pages(
    pages: &Receiver<Result<Page, ToolError>>,
    writer: &mut Writer,
    progress: &Progress,
) -> Result<u64, ToolError> {
    while let Ok(page) = pages.recv() {
        let page = page?;
        if !writer.write(&page.lines, page.events, &page.next, page.done)? {
            return Ok(writer.place().events);
        }
        progress.set(&page, writer.place());
        if page.done {
            return Ok(writer.place().events);
        }
    }
    stopped(writer)
}

impl Pages {
    fn new(client: Client, place: &Place, rate: Option<u64>, interrupt: Interrupt) -> Self {
        let limit = rate.map_or(PAGE_EVENTS, |rate| rate.div_ceil(PAGES_PER_SECOND));
        Self {
            client,
            query: place.query.clone(),
            cursor: place.cursor.clone(),
            limit: limit.clamp(1, PAGE_EVENTS),
            pace: rate.map(|rate| Pace {
                rate,
                started: now(),
                events: 0,
            }),
            interrupt,
        }
    }

    /// The place before the first page; `None` when the command is to stop.
    fn start(&mut self) -> Result<Option<Page>, ToolError> {
        let page = self.ask(0)?;
        self.cursor = page.as_ref().map(|page| page.next.clone());
        Ok(page)
    }

    /// The next page; `None` when the command is to stop.
    fn next(&mut self) -> Result<Option<Page>, ToolError> {
        if let Some(pace) = &self.pace
            && !wait(pace.due(), &self.interrupt)
        {
            return Ok(None);
        }
        let Some(page) = self.ask(self.limit)? else {
            return Ok(None);
        };
        if !page.done && self.cursor.as_ref() == Some(&page.next) {
            return Err(ToolError::Answer {
                path: format!("/api/{PATH}"),
                source: serde::de::Error::custom("a page that leads to itself"),
            });
        }
        self.cursor = Some(page.next.clone());
        if let Some(pace) = &mut self.pace {
            pace.events += page.events;
        }
        Ok(Some(page))
    }

    /// Asks for a page until there is one, or an error that stays.
    fn ask(&mut self, limit: u64) -> Result<Option<Page>, ToolError> {
        let mut request = self.query.clone();
        if let Some(cursor) = &self.cursor {
            request["from"] = json!({ "cursor": cursor });
        }
        request["limit"] = json!(limit);
        request["bytes"] = json!(PAGE_BYTES);
        let mut tries = 0;
        loop {
            if self.interrupt.is_asked() {
                return Ok(None);
            }
            let answer = self.client.post(PATH, &request);
            match answer.and_then(|body| page(&body)) {
                Ok(page) => return Ok(Some(page)),
                Err(error) => {
                    tries += 1;
                    let Some(delay) = retry_after(&error).filter(|_| tries < TRIES_MAX) else {
                        return Err(error);
                    };
                    if !wait(now() + delay, &self.interrupt) {
                        return Ok(None);
                    }
                }
            }
        }
    }
}

impl Pace {
    /// When the next page may be asked for.
    fn due(&self) -> Instant {
        self.started + Duration::from_secs_f64(self.events as f64 / self.rate as f64)
    }
}

/// Waits for a moment; `false` when the command is to stop.
fn wait(until: Instant, interrupt: &Interrupt) -> bool {
    loop {
        if interrupt.is_asked() {
            return false;
        }
        let left = until.saturating_duration_since(now());
        if left.is_zero() {
            return true;
        }
        std::thread::sleep(left.min(WAIT_STEP));
    }
}

/// After how long an error may have passed; `None` for errors that stay.
fn retry_after(error: &ToolError) -> Option<Duration> {
    match error {
        ToolError::Refused {
            code,
            retry_after_ms,
            ..
        } if TEMPORARY.contains(code) => {
            let delay = retry_after_ms.map_or(RETRY_DELAY, Duration::from_millis);
            Some(delay.min(RETRY_DELAY_MAX))
        }
        _ => None,
    }
}

fn page(body: &[u8]) -> Result<Page, ToolError> {
    let answer: Answer<'_> = client::result(PATH, body)?;
    let mut lines = Vec::with_capacity(body.len());
    for event in &answer.events {
        lines.extend_from_slice(event.get().as_bytes());
        lines.push(b'\n');
    }
    let published = |event: Option<&&RawValue>| {
        let published = serde_json::from_str::<Published>(event?.get()).ok()?;
        published.published_at
    };
    if answer.unreadable > 0 {
        eprintln!(
            "ringmain: {} events are left out, as --where cannot read their payloads: {}",
            answer.unreadable,
            answer.unreadable_events.join(", ")
        );
    }
    Ok(Page {
        lines,
        events: answer.matched.max(answer.events.len() as u64),
        first_ms: published(answer.events.first()),
        last_ms: published(answer.events.last()),
        next: answer.next,
        done: answer.done,
    })
}

/// A bar on a terminal, nothing elsewhere.
struct Progress {
    bar: ProgressBar,
    started: Instant,
    before: u64,
    /// Unix milliseconds of the first event and of the end, where both are known.
    from: std::cell::Cell<Option<u64>>,
    to: Option<u64>,
}

impl Progress {
    fn new(place: &Place) -> Self {
        let time = |key: &str| place.query[key]["time"].as_u64();
        let end = (place.query["to"] == "now").then(when::unix_ms);
        let bar = ProgressBar::new(1000);
        if let Ok(style) = ProgressStyle::with_template("[{bar:40}] {percent:>3} %  {msg}") {
            bar.set_style(style);
        }
        Self {
            bar,
            started: now(),
            before: place.events,
            from: std::cell::Cell::new(time("from")),
            to: time("to").or(end),
        }
    }

    fn set(&self, page: &Page, place: &Place) {
        if self.from.get().is_none() {
            self.from.set(page.first_ms);
        }
        if let (Some(from), Some(to), Some(last)) = (self.from.get(), self.to, page.last_ms)
            && to > from
        {
            let share = last.saturating_sub(from) as f64 / (to - from) as f64;
            self.bar.set_position((share.min(1.0) * 1000.0) as u64);
        }
        let rate = (place.events - self.before) as f64 / self.elapsed().as_secs_f64().max(1e-3);
        self.bar
            .set_message(format!("{} events, {rate:.0}/s", place.events));
    }

    fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    fn clear(&self) {
        self.bar.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::super::client::tests::{ok, server};
    use super::*;
    use std::sync::mpsc;

    /// Serves `count` events in pages; the cursor is the number of the next event. Tells every request.
    fn log(count: u64) -> (String, mpsc::Receiver<Value>) {
        let (tell, asked) = mpsc::channel();
        let address = server(move |_, request| {
            let from = &request["from"]["cursor"];
            let from: u64 = from.as_str().map_or(0, |text| text.parse().unwrap());
            let end = (from + request["limit"].as_u64().unwrap()).min(count);
            let events: Vec<Value> = (from..end)
                .map(|n| json!({ "offset": n + 1, "published_at": 1000 + n, "data": { "text": "[1,{\"a\":\"}\"}]" } }))
                .collect();
            let is_into = request.get("into").is_some();
            let _ = tell.send(request);
            let mut result =
                json!({ "next": end.to_string(), "done": end == count, "looked_at": end - from });
            if is_into {
                result["matched"] = json!(end - from);
            } else {
                result["events"] = json!(events);
            }
            Some(ok(&json!({ "result": result }).to_string()))
        });
        (address, asked)
    }

    fn args(line: &str) -> ReplayArgs {
        #[derive(clap::Parser)]
        struct Cli {
            #[command(flatten)]
            args: ReplayArgs,
        }
        use clap::Parser as _;
        Cli::parse_from(std::iter::once("replay").chain(line.split_whitespace())).args
    }

    fn start(address: &str, args: &ReplayArgs) -> Result<(), ToolError> {
        run(Client::new(address, None).unwrap(), args)
    }

    #[test]
    fn every_event_is_one_line_and_pages_follow_each_other() {
        let directory = tempfile::tempdir().unwrap();
        let output = directory.path().join("events.ndjson");
        let (address, asked) = log(25_000);
        start(
            &address,
            &args(&format!(
                "--channel a:* --where x=1 --output {}",
                output.display()
            )),
        )
        .unwrap();
        let text = std::fs::read_to_string(&output).unwrap();
        let offsets: Vec<u64> = text
            .lines()
            .map(|line| {
                serde_json::from_str::<Value>(line).unwrap()["offset"]
                    .as_u64()
                    .unwrap()
            })
            .collect();
        assert_eq!(offsets, (1..=25_000).collect::<Vec<_>>());
        let asked: Vec<Value> = asked.try_iter().collect();
        assert_eq!(asked.len(), 3);
        assert_eq!(asked[0]["from"], "beginning");
        assert_eq!(
            (&asked[1]["from"]["cursor"], &asked[1]["where"]),
            (&json!("10000"), &json!("x=1"))
        );
        assert_eq!(asked[0]["to"], asked[2]["to"], "the end does not run away");
    }

    #[test]
    fn an_interrupted_replay_goes_on_without_a_hole_or_a_repeat() {
        let directory = tempfile::tempdir().unwrap();
        let (output, resume) = (directory.path().join("out"), directory.path().join("place"));
        let args = args(&format!(
            "--channel a:1 --output {} --resume {}",
            output.display(),
            resume.display()
        ));
        let (address, _asked) = log(25_000);
        let interrupt = Interrupt::default();
        let place = Place::new(query(&args));
        let mut pages = Pages::new(
            Client::new(&address, None).unwrap(),
            &place,
            None,
            interrupt.clone(),
        );
        let mut writer = Writer::open(place, Some(&output), Some(&resume), false).unwrap();
        let first = pages.next().unwrap().unwrap();
        writer
            .write(&first.lines, first.events, &first.next, first.done)
            .unwrap();
        interrupt.ask();
        let progress = Progress::new(writer.place());
        let stopped = write(pages, writer, &progress).unwrap_err();
        assert!(
            matches!(stopped, ToolError::Stopped { events: 10_000 }),
            "{stopped}"
        );
        // What a killed process had written behind its place.
        use std::io::Write as _;
        std::fs::OpenOptions::new()
            .append(true)
            .open(&output)
            .unwrap()
            .write_all(b"{\"half")
            .unwrap();
        start(&address, &args).unwrap();
        let text = std::fs::read_to_string(&output).unwrap();
        assert_eq!(text.lines().count(), 25_000);
        assert!(
            text.lines()
                .all(|line| serde_json::from_str::<Value>(line).is_ok())
        );
        start(&address, &args).expect("a complete replay is complete");
    }

    #[test]
    fn a_rate_is_kept_and_appended_events_are_counted() {
        let (address, asked) = log(30);
        let begun = now();
        let directory = tempfile::tempdir().unwrap();
        let resume = directory.path().join("place");
        start(
            &address,
            &args(&format!(
                "--channel a:* --into b:1 --rate 100 --resume {}",
                resume.display()
            )),
        )
        .unwrap();
        // Three pages of ten: the third may be asked for after 0.2 s.
        assert!(begun.elapsed() >= Duration::from_millis(200));
        let asked: Vec<Value> = asked.try_iter().collect();
        assert_eq!((asked.len(), &asked[1]["limit"]), (4, &json!(10)));
        assert_eq!(asked[0]["limit"], 0, "a place before anything is stored");
        assert_eq!(asked[0]["into"], json!({ "channel": "b:1" }));
        let place = Place::load(&resume, &query(&args("--channel a:* --into b:1")))
            .unwrap()
            .unwrap();
        assert_eq!((place.events, place.done), (30, true));
    }

    #[test]
    fn a_temporary_error_is_waited_for_and_another_one_is_told() {
        let mut asked = 0;
        let address = server(move |_, _| {
            asked += 1;
            Some(ok(match asked {
                1 => r#"{"error":{"code":100,"message":"busy","retry_after_ms":1}}"#,
                2 => r#"{"result":{"events":[],"next":"c","done":false}}"#,
                _ => r#"{"error":{"code":107,"message":"bad where"}}"#,
            }))
        });
        let refused = start(&address, &args("--channel a:1")).unwrap_err();
        assert!(refused.to_string().contains("bad where"), "{refused}");
    }

    #[test]
    fn a_server_that_leads_in_circles_is_not_followed() {
        let address =
            server(|_, _| Some(ok(r#"{"result":{"events":[],"next":"c","done":false}}"#)));
        assert!(matches!(
            start(&address, &args("--channel a:1")),
            Err(ToolError::Answer { .. })
        ));
    }

    #[test]
    fn options_that_make_no_sense_are_refused() {
        for line in [
            "--channel a:* --from 5",
            "--channel a:1 --channel a:2 --to 5",
            "--channel a:1 --from now",
            "--channel a:1 --from 2025-11-26 --to 2025-11-25",
        ] {
            assert!(
                check(&args(line)).is_err_and(|error| error.is_usage()),
                "{line}"
            );
        }
        assert!(check(&args("--channel a:1 --from 5 --to 9")).is_ok());
        assert!(matches!(args("--channel a --from -2h").from, When::Time(_)));
    }
}
