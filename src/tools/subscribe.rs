//! `ringmain subscribe`: a client over WebSocket that prints what comes, and recovers what it has missed.

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::time::Duration;

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tungstenite::protocol::WebSocket;
use tungstenite::{Error, Message};

use super::ToolError;
use super::interrupt::Interrupt;

/// Reads are looked up this often for Ctrl-C.
const STEP: Duration = Duration::from_millis(100);
/// Longest wait for a connection or for an answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Before the first attempt to connect again; doubled each time, up to the other one.
const AGAIN: Duration = Duration::from_millis(200);
const AGAIN_MAX: Duration = Duration::from_secs(10);
/// Longest silence of a server that says how often it pings, beyond that time.
const SILENCE: Duration = Duration::from_secs(10);
/// Codes with which a server sends a client away for good.
const FOR_GOOD: [std::ops::Range<u64>; 2] = [3500..4000, 4500..5000];

/// Prints each publication as a line of JSON: its channel, offset and payload. What is missed between two connections is recovered
/// where the namespace keeps it.
///
/// Exit status: 0 Ctrl-C or --count ended it, 1 a channel was refused or the server is not there, 2 wrong usage.
#[derive(Clone, Debug, clap::Args)]
pub struct SubscribeArgs {
    /// Channels
    #[arg(required = true, value_name = "CHANNEL")]
    pub channels: Vec<String>,
    /// Token of the user, as `ringmain token` prints it [default: none, as an anonymous client]
    #[arg(
        long,
        value_name = "TOKEN",
        env = "RINGMAIN_TOKEN",
        hide_env_values = true
    )]
    pub token: Option<String>,
    /// End after so many publications
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,
    /// Server, HOST:PORT of a client listener [default: as configured]
    #[arg(long, value_name = "HOST:PORT")]
    pub address: Option<String>,
}

/// Why a connection is over.
enum Ended {
    /// As many as were wanted have come, or nobody reads them.
    Done,
    /// It may be tried again.
    Broken(String),
    /// It is as good as it gets.
    Refused(ToolError),
}

impl From<Error> for Ended {
    fn from(error: Error) -> Self {
        Self::Broken(error.to_string())
    }
}

/// Where a channel stands.
#[derive(Clone, Debug, Default)]
struct Place {
    offset: u64,
    epoch: String,
    is_known: bool,
}

/// Publications of a line, as they were written: numbers and the order of members stay.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Raw<'a> {
    #[serde(borrow)]
    subscribe: RawMissed<'a>,
    #[serde(borrow)]
    push: RawPush<'a>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawMissed<'a> {
    #[serde(borrow)]
    publications: Vec<&'a RawValue>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawPush<'a> {
    #[serde(rename = "pub", borrow)]
    publication: Option<&'a RawValue>,
}

struct Follower<'a> {
    args: &'a SubscribeArgs,
    address: &'a str,
    path: &'a str,
    places: BTreeMap<String, Place>,
    left: u64,
    interrupt: Interrupt,
    /// The last connection has stood.
    has_stood: bool,
}

/// Runs it.
pub(super) fn run(address: &str, path: &str, args: &SubscribeArgs) -> Result<(), ToolError> {
    let mut follower = Follower {
        args,
        address,
        path,
        places: BTreeMap::new(),
        left: args.count.unwrap_or(u64::MAX),
        interrupt: Interrupt::listen(),
        has_stood: false,
    };
    let mut is_first = true;
    let mut pause = AGAIN;
    loop {
        let why = match follower.connection() {
            Ok(()) | Err(Ended::Done) => return Ok(()),
            Err(Ended::Refused(error)) => return Err(error),
            Err(Ended::Broken(why)) => why,
        };
        if std::mem::take(&mut follower.has_stood) {
            (is_first, pause) = (false, AGAIN);
        }
        if is_first {
            return Err(ToolError::Connection {
                address: address.to_owned(),
                reason: why,
            });
        }
        eprintln!(
            "ringmain: the connection ended ({why}), again in {} ms",
            pause.as_millis()
        );
        let mut left = pause;
        while !left.is_zero() {
            if follower.interrupt.is_asked() {
                return Ok(());
            }
            std::thread::sleep(left.min(STEP));
            left = left.saturating_sub(STEP);
        }
        pause = (pause * 2).min(AGAIN_MAX);
    }
}

impl Follower<'_> {
    /// One connection, from its start to its end; `Ok` when the command is to stop.
    fn connection(&mut self) -> Result<(), Ended> {
        let mut socket = self.open()?;
        let mut connect = json!({});
        if let Some(token) = &self.args.token {
            connect["token"] = json!(token);
        }
        say(&mut socket, &json!({ "id": 1, "connect": connect }))?;
        let mut due = PATIENCE;
        let mut ping = None;
        let mut silent = Duration::ZERO;
        loop {
            if self.interrupt.is_asked() {
                let _ = socket.close(None);
                return Ok(());
            }
            let text = match socket.read() {
                Ok(Message::Text(text)) => text,
                Ok(Message::Close(frame)) => return Err(closed(frame)),
                Ok(_) => continue,
                Err(Error::Io(error))
                    if matches!(
                        error.kind(),
                        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
                    ) =>
                {
                    silent += STEP;
                    if silent > due {
                        return Err(Ended::Broken("the server is silent".to_owned()));
                    }
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            silent = Duration::ZERO;
            for line in text.lines() {
                let reply: Value = serde_json::from_str(line)
                    .map_err(|_| Ended::Broken("the server does not speak JSON".to_owned()))?;
                if reply == json!({}) {
                    if ping == Some(true) {
                        say(&mut socket, &json!({}))?;
                    }
                } else if let Some(error) = reply.get("error") {
                    return Err(self.refused(&reply["id"], error));
                } else if let Some(connected) = reply.get("connect") {
                    ping = Some(connected["pong"] == true);
                    let every = connected["ping"].as_u64().unwrap_or(0);
                    due = match every {
                        0 => Duration::MAX,
                        every => Duration::from_secs(every) + SILENCE,
                    };
                    self.subscribe(&mut socket)?;
                } else if let Some(subscribed) = reply.get("subscribe") {
                    self.subscribed(&reply["id"], subscribed, &raw(line).subscribe)?;
                } else if let Some(push) = reply.get("push") {
                    self.pushed(push, raw(line).push.publication)?;
                }
            }
        }
    }

    fn open(&self) -> Result<WebSocket<TcpStream>, Ended> {
        let unreachable =
            |source| Ended::Broken(format!("cannot reach {}: {source}", self.address));
        let mut last = io::ErrorKind::AddrNotAvailable.into();
        for address in self.address.to_socket_addrs().map_err(unreachable)? {
            match TcpStream::connect_timeout(&address, PATIENCE) {
                Ok(stream) => {
                    let set = stream
                        .set_nodelay(true)
                        .and_then(|()| stream.set_read_timeout(Some(PATIENCE)))
                        .and_then(|()| stream.set_write_timeout(Some(PATIENCE)));
                    set.map_err(unreachable)?;
                    let target = format!("ws://{}{}", self.address, self.path);
                    let (socket, _) = tungstenite::client(target, stream)
                        .map_err(|error| Ended::Broken(error.to_string()))?;
                    let short = socket.get_ref().set_read_timeout(Some(STEP));
                    short.map_err(unreachable)?;
                    return Ok(socket);
                }
                Err(error) => last = error,
            }
        }
        Err(unreachable(last))
    }

    fn subscribe(&self, socket: &mut WebSocket<TcpStream>) -> Result<(), Ended> {
        for (index, channel) in self.args.channels.iter().enumerate() {
            let mut subscribe = json!({ "channel": channel, "recoverable": true });
            if let Some(place) = self.places.get(channel).filter(|place| place.is_known) {
                subscribe["recover"] = json!(true);
                subscribe["epoch"] = json!(place.epoch);
                subscribe["offset"] = json!(place.offset);
            }
            say(socket, &json!({ "id": index + 2, "subscribe": subscribe }))?;
        }
        Ok(())
    }

    fn channel_of(&self, id: &Value) -> Option<&String> {
        let index = usize::try_from(id.as_u64()?.checked_sub(2)?).ok()?;
        self.args.channels.get(index)
    }

    fn subscribed(
        &mut self,
        id: &Value,
        subscribed: &Value,
        missed: &RawMissed<'_>,
    ) -> Result<(), Ended> {
        let Some(channel) = self.channel_of(id).cloned() else {
            return Ok(());
        };
        self.has_stood = true;
        let before = self
            .places
            .get(&channel)
            .is_some_and(|place| place.is_known);
        if before && subscribed["recovered"] != true {
            eprintln!("ringmain: {channel}: what came meanwhile is not kept any more");
        }
        if !self.places.contains_key(&channel) {
            eprintln!("ringmain: subscribed to {channel}");
        }
        for publication in &missed.publications {
            self.publication(&channel, publication)?;
        }
        let place = self.places.entry(channel).or_default();
        place.is_known = subscribed["recoverable"] == true || subscribed["positioned"] == true;
        subscribed["epoch"]
            .as_str()
            .unwrap_or_default()
            .clone_into(&mut place.epoch);
        place.offset = subscribed["offset"].as_u64().unwrap_or(0);
        Ok(())
    }

    fn pushed(&mut self, push: &Value, publication: Option<&RawValue>) -> Result<(), Ended> {
        let channel = push["channel"].as_str().unwrap_or_default().to_owned();
        if let Some(publication) = publication {
            return self.publication(&channel, publication);
        }
        if let Some(gone) = push.get("unsubscribe") {
            let code = gone["code"].as_u64().unwrap_or(0);
            // From 2500 on a client may subscribe again.
            if code >= 2500 {
                return Err(Ended::Broken(format!("{channel}: unsubscribed ({code})")));
            }
            return Err(Ended::Refused(ToolError::Nothing(format!(
                "{channel}: unsubscribed ({code})"
            ))));
        }
        if let Some(sent) = push.get("disconnect") {
            return Err(sent_away(
                sent["code"].as_u64().unwrap_or(0),
                sent["reason"].as_str().unwrap_or_default(),
            ));
        }
        Ok(())
    }

    fn publication(&mut self, channel: &str, publication: &RawValue) -> Result<(), Ended> {
        #[derive(Deserialize)]
        struct Offset {
            offset: Option<u64>,
        }
        let members = publication.get().trim_start_matches('{');
        let line = format!("{{\"channel\":{},{members}", json!(channel));
        let place = self.places.entry(channel.to_owned()).or_default();
        let parsed = serde_json::from_str::<Offset>(publication.get()).ok();
        if let Some(offset) = parsed.and_then(|parsed| parsed.offset) {
            place.offset = offset;
        }
        let mut out = io::stdout().lock();
        match writeln!(out, "{line}").and_then(|()| out.flush()) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Err(Ended::Done),
            Err(error) => {
                return Err(Ended::Refused(ToolError::file("standard output", error)));
            }
        }
        self.left -= 1;
        if self.left == 0 {
            return Err(Ended::Done);
        }
        Ok(())
    }

    fn refused(&self, id: &Value, error: &Value) -> Ended {
        let code = error["code"].as_u64().unwrap_or(0);
        if error["temporary"] == true || code == 100 {
            return Ended::Broken(format!("error {code}"));
        }
        let what = self.channel_of(id).map_or_else(
            || "connect".to_owned(),
            |channel| format!("subscribe to {channel}"),
        );
        Ended::Refused(ToolError::Refused {
            path: what,
            code: u32::try_from(code).unwrap_or(0),
            message: error["message"].as_str().unwrap_or_default().to_owned(),
            retry_after_ms: None,
        })
    }
}

fn raw(line: &str) -> Raw<'_> {
    serde_json::from_str(line).unwrap_or_default()
}

fn say(socket: &mut WebSocket<TcpStream>, command: &Value) -> Result<(), Ended> {
    Ok(socket.send(Message::Text(command.to_string().into()))?)
}

fn closed(frame: Option<tungstenite::protocol::CloseFrame>) -> Ended {
    match frame {
        Some(frame) => sent_away(u64::from(u16::from(frame.code)), &frame.reason),
        None => Ended::Broken("closed".to_owned()),
    }
}

fn sent_away(code: u64, reason: &str) -> Ended {
    let text = format!("{reason} ({code})");
    if FOR_GOOD.iter().any(|range| range.contains(&code)) {
        return Ended::Refused(ToolError::Nothing(format!(
            "sent away by the server: {text}"
        )));
    }
    Ended::Broken(text)
}
