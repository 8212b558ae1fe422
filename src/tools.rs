//! The commands that ask a running proxy: `ringmain dlq`, `ringmain replay`, `ringmain queue` and `ringmain scheduled` about its durable log,
//! `ringmain health` how it does, and those through which publications go in and out.
//!
//! They speak HTTP to the admin listener of the configuration, or with a key to the server API of any server.

mod admin;
pub mod bundle;
mod client;
mod dlq;
mod drain;
pub mod examination;
mod health;
mod interrupt;
mod log;
mod publish;
mod queue;
mod replay;
mod resume;
pub mod running;
mod scheduled;
mod scrape;
mod subscribe;
mod table;
mod tail;
mod tenants;
mod when;

use std::path::PathBuf;

use crate::config::{Config, ListenAddr};
use crate::mesh::durable::LogError;
use crate::upstream::copy::CopyError;
use crate::upstream::embedded::{OpenError, RestoreError};
use admin::admin_client;
use client::Client;

pub use admin::AdminArgs;
pub use drain::{DrainArgs, drain};
pub use log::{LogAction, LogArgs, log};
pub use publish::{ImportArgs, PublishArgs};
pub use subscribe::SubscribeArgs;
pub use tail::TailArgs;
pub use tenants::{TenantsAction, TenantsArgs, tenants};
pub use when::When;

/// Which server is asked.
#[derive(Clone, Debug, Default, PartialEq, Eq, clap::Args)]
pub struct TargetArgs {
    /// Server to ask, HOST:PORT or unix:PATH: an admin listener, or with --api-key a server API [default: as configured]
    #[arg(long, value_name = "HOST:PORT")]
    pub address: Option<String>,
    /// Key of the admin listener [default: as configured, if this host is asked]
    #[arg(
        long,
        value_name = "KEY",
        env = "RINGMAIN_ADMIN_KEY",
        hide_env_values = true,
        conflicts_with = "api_key"
    )]
    pub key: Option<String>,
    /// Key of the server API, which is then asked
    #[arg(
        long,
        value_name = "KEY",
        env = "RINGMAIN_API_KEY",
        hide_env_values = true
    )]
    pub api_key: Option<String>,
    /// Whose groups, channels and dead letters are meant [default: those of the tenant `default`]
    #[arg(long, value_name = "ID")]
    pub tenant: Option<String>,
}

/// Which server API is asked.
#[derive(Clone, Debug, Default, PartialEq, Eq, clap::Args)]
pub struct ApiArgs {
    /// Server API to ask, HOST:PORT or unix:PATH [default: as configured]
    #[arg(long, value_name = "HOST:PORT")]
    pub address: Option<String>,
    /// Key of the server API [default: as configured, if this host is asked]
    #[arg(
        long,
        value_name = "KEY",
        env = "RINGMAIN_API_KEY",
        hide_env_values = true
    )]
    pub api_key: Option<String>,
    /// Whose channels are meant [default: those of the tenant `default`]
    #[arg(long, value_name = "ID")]
    pub tenant: Option<String>,
}

/// `ringmain dlq`
#[derive(Clone, Debug, clap::Args)]
pub struct DlqArgs {
    /// What to do
    #[command(subcommand)]
    pub action: DlqAction,
}

/// What is done with dead letters.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum DlqAction {
    /// List dead letters, oldest event first within a group
    List {
        /// Of this group only
        #[arg(long)]
        group: Option<String>,
        /// Which of them
        #[command(flatten)]
        filter: LetterFilter,
        /// At most this many; 0 for all
        #[arg(long, default_value_t = 0, value_name = "N")]
        limit: u64,
        /// One JSON object a line instead of a table
        #[arg(long)]
        json: bool,
        /// Server
        #[command(flatten)]
        target: TargetArgs,
    },
    /// Show one dead letter with its whole history, JSON
    Show {
        /// Whose letter it is
        #[arg(long)]
        group: String,
        /// Event id, as `list` shows it
        event: String,
        /// Server
        #[command(flatten)]
        target: TargetArgs,
    },
    /// Give dead letters back to their group, or elsewhere, with all attempts before them; those of a channel in order
    Retry(RetryArgs),
    /// Forget dead letters
    Drop(Chosen),
}

/// Letters that are meant, where that is not all.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct LetterFilter {
    /// Only those whose last reason contains this
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
    /// Only those of this class: failed, ack_wait, connection_lost, condition, loop, join or expired
    #[arg(long, value_name = "CLASS")]
    pub class: Option<String>,
    /// Only those of this channel, or of those that match a pattern with `*`
    #[arg(long, value_name = "PATTERN")]
    pub channel: Option<String>,
    /// Only those that were published with this idempotency key
    #[arg(long, value_name = "KEY")]
    pub idempotency_key: Option<String>,
    /// Only those that died then or later: 2026-11-25T08:00:00Z, -2h, Unix milliseconds
    #[arg(long, allow_hyphen_values = true, value_parser = when::time, value_name = "TIME")]
    pub from: Option<u64>,
    /// Only those that died before
    #[arg(long, allow_hyphen_values = true, value_parser = when::time, value_name = "TIME")]
    pub to: Option<u64>,
}

/// `ringmain dlq retry`
#[derive(Clone, Debug, clap::Args)]
pub struct RetryArgs {
    /// Which
    #[command(flatten)]
    pub chosen: Chosen,
    /// New payload of the one letter that is named, JSON
    #[arg(long, value_name = "JSON", conflicts_with = "all")]
    pub data: Option<String>,
    /// Into the queue of this group instead
    #[arg(long, value_name = "GROUP")]
    pub to_group: Option<String>,
    /// Onto this durable channel instead
    #[arg(long, value_name = "CHANNEL", conflicts_with = "to_group")]
    pub to_channel: Option<String>,
}

/// Letters that are meant.
#[derive(Clone, Debug, clap::Args)]
pub struct Chosen {
    /// Whose letters they are
    #[arg(long)]
    pub group: String,
    /// Event ids, as `list` shows them
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    pub events: Vec<String>,
    /// All letters of the group, or those that the following leave
    #[arg(long)]
    pub all: bool,
    /// Which of all
    #[command(flatten)]
    pub filter: LetterFilter,
    /// Server
    #[command(flatten)]
    pub target: TargetArgs,
}

impl DlqArgs {
    /// Which server.
    #[must_use]
    pub const fn target(&self) -> &TargetArgs {
        match &self.action {
            DlqAction::List { target, .. } | DlqAction::Show { target, .. } => target,
            DlqAction::Retry(args) => &args.chosen.target,
            DlqAction::Drop(chosen) => &chosen.target,
        }
    }
}

/// `ringmain scheduled`
#[derive(Clone, Debug, clap::Args)]
pub struct ScheduledArgs {
    /// What to do
    #[command(subcommand)]
    pub action: ScheduledAction,
}

/// What is done with publications that wait for their time.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum ScheduledAction {
    /// List them, the next one first
    List {
        /// Of this channel only
        #[arg(long)]
        channel: Option<String>,
        /// At most this many; 0 for all
        #[arg(long, default_value_t = 0, value_name = "N")]
        limit: u64,
        /// One JSON object a line instead of a table
        #[arg(long)]
        json: bool,
        /// Server
        #[command(flatten)]
        target: TargetArgs,
    },
    /// Forget them: they are not published
    Cancel(ScheduledName),
    /// Publish them at another time
    Change {
        /// Which
        #[command(flatten)]
        name: ScheduledName,
        /// When: RFC 3339 (2026-11-25T08:00:00Z), from now on (+15m, +2h, +3d), Unix milliseconds or `now`
        #[arg(long = "to", value_name = "TIME", value_parser = scheduled::time)]
        at: u64,
    },
}

/// Publications that are meant.
#[derive(Clone, Debug, clap::Args)]
pub struct ScheduledName {
    /// Their channel
    #[arg(long)]
    pub channel: String,
    /// Event ids, as `list` shows them
    #[arg(
        required_unless_present = "idempotency_key",
        conflicts_with = "idempotency_key"
    )]
    pub events: Vec<String>,
    /// The one with this idempotency key
    #[arg(long, value_name = "KEY")]
    pub idempotency_key: Option<String>,
    /// Server
    #[command(flatten)]
    pub target: TargetArgs,
}

impl ScheduledArgs {
    /// Which server.
    #[must_use]
    pub const fn target(&self) -> &TargetArgs {
        match &self.action {
            ScheduledAction::List { target, .. } => target,
            ScheduledAction::Cancel(name) | ScheduledAction::Change { name, .. } => &name.target,
        }
    }
}

impl QueueArgs {
    /// Which server.
    #[must_use]
    pub const fn target(&self) -> &TargetArgs {
        match &self.action {
            QueueAction::Groups { target, .. }
            | QueueAction::Peek { target, .. }
            | QueueAction::Seek { target, .. }
            | QueueAction::Copy { target, .. } => target,
            QueueAction::Workers(named)
            | QueueAction::Pause(named)
            | QueueAction::Resume(named)
            | QueueAction::Purge(named)
            | QueueAction::Delete(named) => &named.target,
        }
    }
}

/// For images without a shell. Exit status: 0 the answer was 200, 1 it was another one or none came in five seconds.
#[derive(Clone, Debug, clap::Args)]
pub struct HealthArgs {
    /// Ask whether clients are served, rather than whether the process runs
    #[arg(long)]
    pub ready: bool,
    /// Server to ask, HOST:PORT or unix:PATH [default: admin.listen, else server.internal_listen]
    #[arg(long, value_name = "HOST:PORT")]
    pub address: Option<String>,
}

/// `ringmain queue`
#[derive(Clone, Debug, clap::Args)]
pub struct QueueArgs {
    /// What to do
    #[command(subcommand)]
    pub action: QueueAction,
}

/// What is asked about queue groups.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum QueueAction {
    /// All groups: how far behind they are, what is in flight, what failed
    Groups {
        /// One JSON object a line instead of a table
        #[arg(long)]
        json: bool,
        /// Server
        #[command(flatten)]
        target: TargetArgs,
    },
    /// Who takes from a group, and what each has under way; JSON
    Workers(NamedArgs),
    /// What a group has not done, the oldest first; one JSON object a line
    Peek {
        /// Group
        group: String,
        /// Publications at most; 0 for all
        #[arg(long, default_value_t = 10, value_name = "N")]
        limit: u64,
        /// Server
        #[command(flatten)]
        target: TargetArgs,
    },
    /// Give nothing of a group until it is resumed
    Pause(NamedArgs),
    /// Let a paused group go on
    Resume(NamedArgs),
    /// Let a group begin anew elsewhere: what it had not done is forgotten
    Seek {
        /// Group
        group: String,
        /// Where: TIME, `beginning`, `now`, or an OFFSET with --channel
        #[arg(long, allow_hyphen_values = true, value_parser = When::parse, value_name = "WHEN", required_unless_present = "last")]
        to: Option<When>,
        /// Channel of the offset
        #[arg(long, value_name = "CHANNEL")]
        channel: Option<String>,
        /// With the last so many publications
        #[arg(long, value_name = "N", conflicts_with = "to")]
        last: Option<u64>,
        /// Server
        #[command(flatten)]
        target: TargetArgs,
    },
    /// Make another group with the same rules, which begins with what this one has not done
    Copy {
        /// Group
        group: String,
        /// Name of the new group
        to: String,
        /// Server
        #[command(flatten)]
        target: TargetArgs,
    },
    /// Let a group forget what it has not done
    Purge(NamedArgs),
    /// Forget a group
    Delete(NamedArgs),
}

/// One group.
#[derive(Clone, Debug, clap::Args)]
pub struct NamedArgs {
    /// Group
    pub group: String,
    /// Server
    #[command(flatten)]
    pub target: TargetArgs,
}

/// Events go to standard output, one JSON object a line; how far it is to standard error.
///
/// TIME is RFC 3339 (2026-11-25T08:00:00Z), a time before now (-2h, -15m, -3d) or Unix milliseconds. A number below
/// 100000000000 is an offset, which needs one channel by its exact name. Exit status: 0 everything was replayed, 1 there was
/// nothing, or it ended early (`--resume` goes on there), 2 wrong usage.
#[derive(Clone, Debug, clap::Args)]
pub struct ReplayArgs {
    /// Channel, or pattern with `*`; may be repeated
    #[arg(long = "channel", required = true, value_name = "PATTERN")]
    pub channels: Vec<String>,
    /// Where it starts: TIME, OFFSET or `beginning`
    #[arg(long, default_value = "beginning", allow_hyphen_values = true, value_parser = When::parse, value_name = "WHEN")]
    pub from: When,
    /// Where it ends: TIME, OFFSET or `now`
    #[arg(long, default_value = "now", allow_hyphen_values = true, value_parser = When::parse, value_name = "WHEN")]
    pub to: When,
    /// Events whose JSON payload has this value there: `order.status = "failed"`
    #[arg(long = "where", value_name = "EXPR")]
    pub filter: Option<String>,
    /// Append the events to this durable channel instead of writing them
    #[arg(long, value_name = "CHANNEL", conflicts_with_all = ["into_group", "output"])]
    pub into: Option<String>,
    /// Give the events to this queue group instead of writing them
    #[arg(long, value_name = "GROUP", conflicts_with = "output")]
    pub into_group: Option<String>,
    /// Events per second at most
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub rate: Option<u64>,
    /// Write here instead of standard output
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Keep the place of what is written in this file, and go on from there if it exists
    #[arg(long, value_name = "FILE")]
    pub resume: Option<PathBuf>,
    /// Server
    #[command(flatten)]
    pub target: TargetArgs,
}

/// Why a command did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum ToolError {
    /// Options that make no sense.
    #[error("{0}")]
    Usage(String),
    /// Nobody listens there.
    #[error(
        "cannot reach {address}: {source}; is the proxy running, and is this its admin.listen? --address names another"
    )]
    Unreachable {
        /// Where.
        address: String,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// The connection broke, or brought something else than HTTP.
    #[error("the connection to {address} failed: {reason}")]
    Connection {
        /// To whom.
        address: String,
        /// How.
        reason: String,
    },
    /// The server answered with an HTTP status.
    #[error("{path}: {status} {}{text}", status_hint(*.status))]
    Status {
        /// What was asked.
        path: String,
        /// HTTP status.
        status: u16,
        /// Start of the body.
        text: String,
    },
    /// The server answered with an error.
    #[error("{path}: {message} (error {code})")]
    Refused {
        /// What was asked.
        path: String,
        /// Number of the error.
        code: u32,
        /// What the server says.
        message: String,
        /// The same may be tried again after so many milliseconds.
        retry_after_ms: Option<u64>,
    },
    /// The answer is not what this program knows.
    #[error("{path}: the answer is not understood: {source}")]
    Answer {
        /// What was asked.
        path: String,
        /// Why.
        source: serde_json::Error,
    },
    /// A file or standard output.
    #[error("{name}: {source}")]
    File {
        /// Which.
        name: String,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// A copy of a log is none.
    #[error("{name}: {source}")]
    Copy {
        /// Which.
        name: String,
        /// How.
        source: CopyError,
    },
    /// A log cannot be used.
    #[error("{name}: {source}")]
    Log {
        /// Which.
        name: String,
        /// Why.
        source: LogError,
    },
    /// A log cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A log cannot be restored.
    #[error(transparent)]
    Restore(#[from] RestoreError),
    /// Ctrl-C, in a command that keeps its place.
    #[error("stopped: {0}")]
    Interrupted(&'static str),
    /// What was asked for is not there.
    #[error("{0}")]
    Nothing(String),
    /// Ctrl-C.
    #[error(
        "stopped after {events} events; with --resume FILE the same command goes on behind them"
    )]
    Stopped {
        /// Events that are written.
        events: u64,
    },
}

impl ToolError {
    /// The command line is wrong, rather than something while it ran.
    #[must_use]
    pub const fn is_usage(&self) -> bool {
        matches!(self, Self::Usage(_))
    }

    fn file(name: impl std::fmt::Display, source: std::io::Error) -> Self {
        Self::File {
            name: name.to_string(),
            source,
        }
    }
}

const fn status_hint(status: u16) -> &'static str {
    match status {
        401 | 403 => {
            "the key is not accepted: --key takes admin.key of the server, --api-key its http_api.key. "
        }
        404 => {
            "not known there: this is no admin listener or server API of a ringmain with a durable log. "
        }
        _ => "",
    }
}

/// Runs `ringmain dlq`.
///
/// # Errors
/// See `ToolError`.
pub fn dlq(config: &Config, args: &DlqArgs) -> Result<(), ToolError> {
    match &args.action {
        DlqAction::List {
            group,
            filter,
            limit,
            json,
            target,
        } => dlq::list(
            &mut client(config, target)?,
            group.as_deref(),
            filter,
            *limit,
            *json,
        ),
        DlqAction::Show {
            group,
            event,
            target,
        } => dlq::show(&mut client(config, target)?, group, event),
        DlqAction::Retry(args) => dlq::retry(&mut client(config, &args.chosen.target)?, args),
        DlqAction::Drop(chosen) => dlq::drop(&mut client(config, &chosen.target)?, chosen),
    }
}

/// Runs `ringmain scheduled`.
///
/// # Errors
/// See `ToolError`.
pub fn scheduled(config: &Config, args: &ScheduledArgs) -> Result<(), ToolError> {
    let client = &mut client(config, args.target())?;
    match &args.action {
        ScheduledAction::List {
            channel,
            limit,
            json,
            ..
        } => scheduled::list(client, channel.as_deref(), *limit, *json),
        ScheduledAction::Cancel(name) => scheduled::cancel(client, name),
        ScheduledAction::Change { name, at } => scheduled::change(client, name, *at),
    }
}

/// Runs `ringmain queue`.
///
/// # Errors
/// See `ToolError`.
pub fn queue(config: &Config, args: &QueueArgs) -> Result<(), ToolError> {
    let client = &mut client(config, args.target())?;
    match &args.action {
        QueueAction::Groups { json, .. } => queue::groups(client, *json),
        QueueAction::Workers(named) => queue::workers(client, &named.group),
        QueueAction::Peek { group, limit, .. } => queue::peek(client, group, *limit),
        QueueAction::Pause(named) => queue::change(client, "pause", &named.group),
        QueueAction::Resume(named) => queue::change(client, "resume", &named.group),
        QueueAction::Purge(named) => queue::change(client, "purge", &named.group),
        QueueAction::Delete(named) => queue::change(client, "delete", &named.group),
        QueueAction::Copy { group, to, .. } => queue::copy(client, group, to),
        QueueAction::Seek {
            group,
            to,
            channel,
            last,
            ..
        } => queue::seek(client, group, *to, channel.as_deref(), *last),
    }
}

/// Runs `ringmain replay`.
///
/// # Errors
/// See `ToolError`.
pub fn replay(config: &Config, args: &ReplayArgs) -> Result<(), ToolError> {
    replay::run(client(config, &args.target)?, args)
}

/// Runs `ringmain tail`.
///
/// # Errors
/// See `ToolError`.
pub fn tail(config: &Config, args: &TailArgs) -> Result<(), ToolError> {
    tail::run(client(config, &args.target)?, args)
}

/// Runs `ringmain publish`.
///
/// # Errors
/// See `ToolError`.
pub fn publish(config: &Config, args: &PublishArgs) -> Result<(), ToolError> {
    publish::publish(api_client(config, &args.target)?, args)
}

/// Runs `ringmain import`.
///
/// # Errors
/// See `ToolError`.
pub fn import(config: &Config, args: &ImportArgs) -> Result<(), ToolError> {
    publish::import(api_client(config, &args.target)?, args)
}

/// Runs `ringmain subscribe`.
///
/// # Errors
/// See `ToolError`.
pub fn subscribe(config: &Config, args: &SubscribeArgs) -> Result<(), ToolError> {
    let address = match &args.address {
        Some(address) => address
            .strip_prefix("http://")
            .unwrap_or(address)
            .to_owned(),
        None => tcp(&config.server.listen)
            .map(reachable)
            .ok_or_else(|| no_tcp("server.listen"))?,
    };
    subscribe::run(&address, &config.websocket.handler_prefix, args)
}

/// Runs `ringmain health`.
///
/// # Errors
/// See `ToolError`.
pub fn health(config: &Config, args: &HealthArgs) -> Result<(), ToolError> {
    let configured = config.admin.listen.iter();
    let address = match &args.address {
        Some(address) => address.clone(),
        None => configured
            .chain(&config.server.internal_listen)
            .next()
            .map(reachable)
            .ok_or_else(|| {
                let text = "the configuration has neither admin.listen nor server.internal_listen: name a listener with --address";
                ToolError::Usage(text.to_owned())
            })?,
    };
    health::ask(Client::new(&address, None)?, args.ready)
}

/// Whom to ask: what the arguments name, else the configured admin listener, else the configured server API. A configured
/// key is shown to this host only: another one has no right to know it.
fn client(config: &Config, args: &TargetArgs) -> Result<Client, ToolError> {
    let own_key = config
        .own_admin_key(when::unix_ms() / 1000)
        .map(|key| key.0.as_str());
    if let Some(address) = &args.address {
        let given = args.key.as_deref().or(args.api_key.as_deref());
        let own_key = own_key.filter(|_| is_this_host(address));
        return Client::new(address, given.or(own_key))?.of(args.tenant.as_deref());
    }
    if let (Some(admin), None) = (&config.admin.listen, &args.api_key) {
        let key = args.key.as_deref().or(own_key);
        return Client::new(&reachable(admin), key)?.of(args.tenant.as_deref());
    }
    api_client(
        config,
        &ApiArgs {
            address: None,
            api_key: args.api_key.clone(),
            tenant: args.tenant.clone(),
        },
    )
}

/// The server API: what the arguments name, else the configured one. A configured key is shown to this host only.
fn api_client(config: &Config, args: &ApiArgs) -> Result<Client, ToolError> {
    let own_key = config
        .http_api
        .own_key(when::unix_ms() / 1000)
        .map(|key| key.0.as_str());
    if let Some(address) = &args.address {
        let own_key = own_key.filter(|_| is_this_host(address));
        let key = args.api_key.as_deref().or(own_key);
        return Client::new(address, key)?.of(args.tenant.as_deref());
    }
    let server = &config.server;
    let address = tcp(&server.internal_listen)
        .or_else(|| tcp(&server.listen))
        .ok_or_else(|| no_tcp("server.internal_listen or server.listen"))?;
    let Some(key) = args.api_key.as_deref().or(own_key) else {
        let text = "the server API is asked, and the configuration has no key of it that is not hashed: name one with --api-key";
        return Err(ToolError::Usage(text.to_owned()));
    };
    Client::new(&reachable(address), Some(key))?.of(args.tenant.as_deref())
}

fn tcp(listen: &[ListenAddr]) -> Option<&ListenAddr> {
    listen
        .iter()
        .find(|listen| matches!(listen, ListenAddr::Tcp(_)))
}

fn no_tcp(key: &str) -> ToolError {
    ToolError::Usage(format!(
        "the configuration has no TCP address in {key}: name one with --address"
    ))
}

/// Where a listener on every address is reached from this host.
fn reachable(address: &ListenAddr) -> String {
    let ListenAddr::Tcp(mut address) = *address else {
        return address.to_string();
    };
    if address.ip().is_unspecified() {
        address.set_ip(match address {
            std::net::SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
            std::net::SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        });
    }
    address.to_string()
}

/// Does the address never leave this host?
fn is_this_host(address: &str) -> bool {
    let address = address.strip_prefix("http://").unwrap_or(address);
    let address = address.trim_end_matches('/');
    address.starts_with("unix:")
        || address
            .parse::<std::net::SocketAddr>()
            .is_ok_and(|address| address.ip().is_loopback())
        || address
            .rsplit_once(':')
            .is_some_and(|(host, _)| host.eq_ignore_ascii_case("localhost"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Setting;

    fn config(settings: &[(&str, &str)]) -> Config {
        let settings: Vec<Setting> = settings
            .iter()
            .map(|(key, text)| Setting {
                origin: "test".to_owned(),
                key: (*key).to_owned(),
                text: (*text).to_owned(),
            })
            .collect();
        Config::load(&[], &settings).unwrap()
    }

    #[test]
    fn the_admin_listener_is_asked_unless_a_key_or_an_address_is_given() {
        let config = config(&[
            ("admin.listen", "0.0.0.0:8101"),
            ("server.listen", "0.0.0.0:8100"),
            ("http_api.key", "secret"),
            ("admin.key", "own"),
        ]);
        let asked = |address: Option<&str>, key: Option<&str>| {
            let args = TargetArgs {
                address: address.map(str::to_owned),
                api_key: key.map(str::to_owned),
                ..TargetArgs::default()
            };
            let client = client(&config, &args).unwrap();
            (client.address().to_owned(), client.key().map(str::to_owned))
        };
        let own = Some("own".to_owned());
        assert_eq!(
            asked(None, None),
            ("127.0.0.1:8101".to_owned(), own.clone())
        );
        for here in ["127.0.0.1:1", "localhost:1", "[::1]:1", "unix:/run/x/"] {
            assert_eq!(asked(Some(here), None), (here.to_owned(), own.clone()));
        }
        assert_eq!(
            asked(None, Some("k")),
            ("127.0.0.1:8100".to_owned(), Some("k".to_owned()))
        );
        assert_eq!(
            asked(Some("other:1"), None),
            ("other:1".to_owned(), None),
            "another host has no right to the key"
        );
        let args = TargetArgs {
            key: Some("k".to_owned()),
            ..TargetArgs::default()
        };
        let client = client(&config, &args).unwrap();
        assert_eq!(
            (client.address(), client.key()),
            ("127.0.0.1:8101", Some("k"))
        );
    }

    #[test]
    fn without_an_admin_listener_the_configured_key_opens_the_server_api() {
        let args = TargetArgs::default();
        let with_key = config(&[("admin.listen", ""), ("http_api.key", "secret")]);
        assert_eq!(client(&with_key, &args).unwrap().key(), Some("secret"));
        let without = config(&[("admin.listen", "")]);
        assert!(client(&without, &args).err().unwrap().is_usage());
    }
}
