//! The connection: it is made and kept in the background, and the stream behind it is created or checked.
//!
//! Credentials that change get a connection of their own beside the old one. Once the server has taken it, everything that begins goes
//! over it, and the old one stays until what has begun there is over: nothing waits, and nothing is refused.

use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_nats::connection::State;
use async_nats::jetstream::stream::{
    Config, DiscardPolicy, Info, RetentionPolicy, StorageType, Stream,
};
use async_nats::jetstream::{self, ErrorCode, kv};
use async_nats::{Client, ConnectOptions, Event, ServerAddr};
use tokio::sync::{Notify, watch};

use super::credentials::Credentials;
use super::subject::{self, Subjects};
use crate::config::durable::{Durable, Nats};
use crate::mesh::durable::LogError;
use crate::upstream::log::Status;

/// The oldest server that takes ids in atomic batches (2.12.1) and does not lock itself up when many messages are read at
/// once while others are stored (2.12.3).
const OLDEST: (u32, u32, u32) = (2, 12, 3);
/// How often the stream is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// How soon opening is tried again.
const OPEN_AGAIN: Duration = Duration::from_millis(500);
/// How soon a publisher should try again.
pub(super) const RETRY_AFTER: Duration = Duration::from_secs(1);
/// How long a bucket remembers that a value has outlived its age.
const MARKERS: Duration = Duration::from_secs(60);
/// Longest wait for a connection with new credentials.
const RENEW_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest wait for an answer of the server's API.
const API_TIMEOUT: Duration = Duration::from_secs(5);

/// Why a log in NATS cannot even be tried.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// A server's address.
    #[error("durable.nats.servers[{0}]: not an address such as nats://host:4222")]
    Server(usize),
    /// No server.
    #[error("durable.nats.servers: name at least one")]
    NoServer,
    /// A name that NATS does not take.
    #[error(
        "durable.nats.stream: letters, digits, `-` and `_` only, and durable.nats.subject_prefix: tokens between dots, without `*`, `>` and white space"
    )]
    Name,
    /// A number out of range.
    #[error("durable.nats.replicas: 1 to 5")]
    Replicas,
    /// A file.
    #[error("durable.nats.{key}: {path}: {reason}")]
    File {
        /// Which.
        key: &'static str,
        /// Its path.
        path: String,
        /// What is wrong.
        reason: String,
    },
    /// What the client library says.
    #[error("NATS: {0}")]
    Client(String),
}

/// The stream as it was found or made.
pub(super) struct Opened {
    /// Which connection it speaks over.
    pub line: u64,
    /// Identity of the stream: when it was made.
    pub log: u128,
    /// Its name.
    pub name: String,
    /// Sequence of its last message then.
    pub end: u64,
    /// The stream.
    pub stream: Stream<()>,
    /// Small values: groups, lives of channels, what the bridge remembers.
    pub state: kv::Store,
    /// Failures of leased entries.
    pub failures: kv::Store,
    /// Dead letters.
    pub dead: kv::Store,
    /// Publications that wait for their time.
    pub scheduled: Stream<()>,
}

/// What all parts of the log share.
pub(super) struct Link {
    line: watch::Sender<Arc<Line>>,
    pub config: Durable,
    pub subjects: Subjects,
    /// The stream; `None` until it was opened.
    pub opened: watch::Sender<Option<Arc<Opened>>>,
    /// Which stream was opened first: no other one is taken for it.
    identity: OnceLock<u128>,
    pub status: watch::Sender<Status>,
    /// Makes names of batches unlike those of other processes.
    pub process: String,
    events: Arc<Notify>,
    /// Number of the connection in use.
    newest: watch::Sender<u64>,
}

/// A connection.
struct Line {
    /// Counted from 0; those before the last one are on their way out.
    number: u64,
    client: Client,
    js: jetstream::Context,
    /// What it says to the server when it connects the next time.
    credentials: watch::Sender<Credentials>,
}

/// One connection, until it is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Connection {
    line: u64,
    connects: u64,
}

/// How often it has connected: what was said between two equal answers went over one connection.
pub(super) fn connects(client: &Client) -> u64 {
    client.statistics().connects.load(Ordering::Relaxed)
}

/// How a connection is made.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Attempt {
    /// Again and again, in the background.
    Patient,
    /// Once.
    Once,
}

impl Link {
    /// Starts connecting; it goes on in the background.
    pub(super) async fn connect(config: &Durable) -> Result<Arc<Self>, ConnectError> {
        let nats = &config.nats;
        if !subject::is_stream_name(&nats.stream) || !subject::is_prefix(&nats.subject_prefix) {
            return Err(ConnectError::Name);
        }
        if !(1..=5).contains(&nats.replicas) {
            return Err(ConnectError::Replicas);
        }
        let status = watch::Sender::new(Status {
            down: Some("not connected yet".into()),
            ..Status::default()
        });
        let events = Arc::new(Notify::new());
        let credentials = credentials(nats)?;
        let newest = watch::Sender::new(0);
        let teller = Teller {
            status: status.clone(),
            events: Arc::clone(&events),
            newest: newest.subscribe(),
            number: 0,
        };
        let line = Line::connect(config, credentials, teller, Attempt::Patient).await?;
        let process = line
            .client
            .new_inbox()
            .rsplit('.')
            .next()
            .map_or_else(String::new, str::to_owned);
        Ok(Arc::new(Self {
            line: watch::Sender::new(Arc::new(line)),
            newest,
            config: config.clone(),
            subjects: Subjects::new(&nats.subject_prefix),
            opened: watch::Sender::new(None),
            identity: OnceLock::new(),
            status,
            process,
            events,
        }))
    }

    /// The connection for what begins now.
    pub(super) fn client(&self) -> Client {
        self.line.borrow().client.clone()
    }

    /// The same, for JetStream.
    pub(super) fn js(&self) -> jetstream::Context {
        self.line.borrow().js.clone()
    }

    fn is_connected(&self) -> bool {
        self.line.borrow().client.connection_state() == State::Connected
    }

    /// Number of the connection in use.
    pub(super) fn newest(&self) -> u64 {
        *self.newest.borrow()
    }

    /// Which connection it is now: another one after each loss.
    pub(super) fn connection(&self) -> Connection {
        let line = self.line.borrow();
        Connection {
            line: line.number,
            connects: connects(&line.client),
        }
    }

    /// The stream, if something can be asked of it now.
    pub(super) fn opened(&self) -> Result<Arc<Opened>, LogError> {
        if !self.is_connected() {
            return Err(unavailable("not connected to NATS"));
        }
        match &*self.opened.borrow() {
            Some(opened) => Ok(opened.clone()),
            None => {
                let status = self.status.borrow();
                Err(unavailable(
                    status.down.as_deref().unwrap_or("the stream is not open"),
                ))
            }
        }
    }

    /// Replicas that a question about the newest state must not be asked of.
    pub(super) const fn is_replicated(&self) -> bool {
        self.config.nats.replicas > 1
    }

    /// An error of a request as publishers see it.
    pub(super) fn failed(&self, error: &dyn std::fmt::Display) -> LogError {
        unavailable(&self.redact(&error.to_string()))
    }

    /// Text without what nobody should read.
    fn redact(&self, text: &str) -> String {
        redact(&self.config, &self.line.borrow().credentials.borrow(), text)
    }

    /// Follows the credentials of the configuration, for ever.
    pub(super) async fn follow(self: Arc<Self>, mut configured: watch::Receiver<Nats>) {
        while configured.changed().await.is_ok() {
            let nats = configured.borrow_and_update().clone();
            match self.renew(&nats).await {
                Ok(true) => tracing::info!("NATS: the new credentials are in use"),
                Ok(false) => {}
                Err(reason) => tracing::warn!(
                    "NATS: the new credentials are not used, the old ones stay: {}",
                    self.redact(&reason)
                ),
            }
        }
    }

    /// Goes over to these credentials, if they are others.
    async fn renew(self: &Arc<Self>, nats: &Nats) -> Result<bool, String> {
        let credentials = credentials(nats).map_err(|error| error.to_string())?;
        let old = Arc::clone(&self.line.borrow());
        if *old.credentials.borrow() == credentials {
            return Ok(false);
        }
        if !self.is_connected() {
            // Nothing is to be lost, and the next attempt is soon.
            old.credentials.send_replace(credentials);
            return Ok(true);
        }
        let teller = Teller {
            status: self.status.clone(),
            events: Arc::clone(&self.events),
            newest: self.newest.subscribe(),
            number: old.number + 1,
        };
        let line = Line::connect(&self.config, credentials.clone(), teller, Attempt::Once);
        let line = tokio::time::timeout(RENEW_TIMEOUT, line)
            .await
            .map_err(|_elapsed| "NATS does not answer".to_owned())?
            .map_err(|error| error.to_string())?;
        let known = self.opened.borrow().clone();
        let opened = match known {
            None => None,
            Some(known) => Some(self.open_again(&line, &known).await?),
        };
        let number = line.number;
        self.line.send_replace(Arc::new(line));
        self.newest.send_replace(number);
        match opened {
            Some(opened) => drop(self.opened.send_replace(Some(Arc::new(opened)))),
            None => self.events.notify_one(),
        }
        // Where it is cut off before its end it comes back as whom the server lets in.
        old.credentials.send_replace(credentials);
        // What has begun there ends within this time.
        let grace = self.config.append_timeout + 2 * API_TIMEOUT;
        tokio::spawn(async move {
            tokio::time::sleep(grace).await;
            let _ = old.client.drain().await;
        });
        Ok(true)
    }

    /// The stream that is in use, over another connection: with fewer rights than that one has, it is not gone over to.
    async fn open_again(&self, line: &Line, known: &Opened) -> Result<Opened, String> {
        let found = line.js.get_stream(&known.name).await;
        let found = found.map_err(|error| format!("stream {}: {error}", known.name))?;
        if known.log != identity(found.cached_info()) {
            return Err("they lead to another stream; restart for that".to_owned());
        }
        self.open(line, found.cached_info()).await
    }

    /// Opens the stream and looks at it from time to time, for ever.
    pub(super) async fn supervise(self: Arc<Self>) {
        loop {
            let pause = if self.is_connected() {
                match self.look().await {
                    Ok(()) => LOOK_EVERY,
                    Err(reason) => {
                        self.down(&self.redact(&reason));
                        OPEN_AGAIN
                    }
                }
            } else {
                LOOK_EVERY
            };
            tokio::select! {
                () = self.events.notified() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    fn down(&self, reason: &str) {
        self.status.send_if_modified(|status| {
            let is_new = status.down.as_deref() != Some(reason);
            status.down = Some(reason.into());
            is_new
        });
    }

    async fn look(&self) -> Result<(), String> {
        let known = self.opened.borrow().clone();
        let line = Arc::clone(&self.line.borrow());
        let mut is_new = false;
        let info = match &known {
            Some(opened) if opened.line == line.number => opened
                .stream
                .get_info()
                .await
                .map_err(|error| self.not_found(&opened.name, &error))?,
            _ => {
                check_version(&line.client.server_info().version)?;
                let (info, is_made) = self.stream(&line).await?;
                is_new = is_made;
                info
            }
        };
        if !self.config.nats.memory_storage
            && let Some(first) = self.identity.get()
            && *first != identity(&info)
        {
            self.opened.send_replace(None);
            return Err(format!(
                "the stream {} has vanished, and another one is in its place: restore it, or restart to use what is there",
                info.config.name
            ));
        }
        if known
            .as_ref()
            .is_none_or(|opened| opened.log != identity(&info) || opened.line != line.number)
        {
            let opened = self.open(&line, &info).await?;
            if known.is_none_or(|known| known.log != opened.log) {
                self.tell(&info, is_new);
                self.status
                    .send_modify(|status| status.end = info.state.last_sequence);
            }
            let _ = self.identity.set(opened.log);
            self.opened.send_replace(Some(Arc::new(opened)));
        }
        let opened = self.opened.borrow().clone();
        let pending = match opened {
            Some(opened) => match opened.scheduled.get_info().await {
                Ok(info) => info.state.messages,
                // Somebody has deleted it: what comes next has a place again.
                Err(error) => {
                    self.scheduled(&line).await?;
                    tracing::warn!(%error, "the stream of what waits for its time was looked for in vain");
                    0
                }
            },
            None => 0,
        };
        self.status.send_modify(|status| {
            status.down = None;
            status.schedule.pending = pending;
            status.bytes = info.state.bytes;
            status.entries = info.state.messages;
            status.end = status.end.max(info.state.last_sequence);
        });
        Ok(())
    }

    /// The next look is soon, and nothing is appended before it.
    pub(super) fn suspect(&self) {
        self.opened.send_replace(None);
        self.down("the stream may be another one, and is looked at again");
        self.events.notify_one();
    }

    /// What a stream's answer about itself failed with.
    fn not_found(&self, name: &str, error: &jetstream::stream::InfoError) -> String {
        let of_server = std::error::Error::source(error)
            .and_then(|source| source.downcast_ref::<jetstream::Error>());
        if of_server.is_none_or(|error| error.error_code() != ErrorCode::STREAM_NOT_FOUND) {
            return error.to_string();
        }
        self.opened.send_replace(None);
        vanished(name)
    }

    /// The stream; `true` if it was made.
    async fn stream(&self, line: &Line) -> Result<(Info, bool), String> {
        let mut is_new = false;
        let wanted = self.wanted();
        let text = |error: &dyn std::fmt::Display| format!("stream {}: {error}", wanted.name);
        let info = match line.js.get_stream(&wanted.name).await {
            Ok(stream) => stream.cached_info().clone(),
            Err(error) => {
                let jetstream::context::GetStreamErrorKind::JetStream(api) = error.kind() else {
                    return Err(text(&error));
                };
                if api.error_code() != ErrorCode::STREAM_NOT_FOUND {
                    return Err(text(&error));
                }
                if self.identity.get().is_some() && !self.config.nats.memory_storage {
                    return Err(vanished(&wanted.name));
                }
                if !self.config.nats.create {
                    return Err(format!(
                        "there is no stream {}, and durable.nats.create is false: restore it, or set durable.nats.create = true for one start",
                        wanted.name
                    ));
                }
                is_new = true;
                let made = line.js.create_stream(wanted.clone()).await;
                made.map_err(|error| text(&error))?.cached_info().clone()
            }
        };
        let mut changed = info.config.clone();
        changed.subjects.clone_from(&wanted.subjects);
        changed.max_age = wanted.max_age;
        changed.max_bytes = wanted.max_bytes;
        changed.duplicate_window = wanted.duplicate_window;
        changed.num_replicas = wanted.num_replicas;
        changed.storage = wanted.storage;
        changed.discard = wanted.discard;
        changed.max_messages = -1;
        changed.max_messages_per_subject = -1;
        changed.deny_delete = false;
        changed.deny_purge = false;
        changed.no_ack = false;
        changed.sealed = false;
        changed.allow_rollup = true;
        changed.allow_direct = true;
        changed.allow_message_ttl = true;
        changed.allow_atomic_publish = true;
        let info = if changed == info.config {
            info
        } else {
            let updated = line.js.update_stream(changed).await;
            updated.map_err(|error| {
                text(&format!(
                    "it differs from durable.nats, and cannot be changed: {error}"
                ))
            })?
        };
        if !info.config.allow_atomic_publish || !info.config.allow_message_ttl {
            return Err(text(&"its server is older than NATS 2.12.3"));
        }
        Ok((info, is_new))
    }

    fn wanted(&self) -> Config {
        let nats = &self.config.nats;
        Config {
            name: nats.stream.clone(),
            description: Some("Durable channels of ringmain".to_owned()),
            subjects: self.subjects.all(),
            num_replicas: nats.replicas as usize,
            storage: self.storage(),
            max_age: self.config.retention_age,
            max_bytes: match i64::try_from(self.config.retention_bytes) {
                Ok(0) | Err(_) => -1,
                Ok(bytes) => bytes,
            },
            max_messages: -1,
            max_messages_per_subject: -1,
            discard: DiscardPolicy::Old,
            duplicate_window: nats.duplicate_window,
            allow_rollup: true,
            allow_direct: true,
            allow_message_ttl: true,
            allow_atomic_publish: true,
            ..Config::default()
        }
    }

    const fn storage(&self) -> StorageType {
        if self.config.nats.memory_storage {
            StorageType::Memory
        } else {
            StorageType::File
        }
    }

    async fn open(&self, line: &Line, info: &Info) -> Result<Opened, String> {
        let stream = line
            .js
            .get_stream_no_info(&info.config.name)
            .await
            .map_err(|error| error.to_string())?;
        Ok(Opened {
            line: line.number,
            log: identity(info),
            name: info.config.name.clone(),
            end: info.state.last_sequence,
            stream,
            state: self.bucket(line, "STATE", Duration::ZERO).await?,
            failures: self
                .bucket(line, "FAILURES", self.config.retention_age)
                .await?,
            dead: self.bucket(line, "DEAD", Duration::ZERO).await?,
            scheduled: self.scheduled(line).await?,
        })
    }

    /// The stream of what waits for its time: the server moves each there when that has come (ADR-51), and forgets it once it is
    /// acknowledged.
    async fn scheduled(&self, line: &Line) -> Result<Stream<()>, String> {
        let name = format!("{}_SCHEDULED", self.config.nats.stream);
        let text = |error: &dyn std::fmt::Display| format!("stream {name}: {error}");
        let config = Config {
            name: name.clone(),
            description: Some("Publications of ringmain that wait for their time".to_owned()),
            subjects: self.subjects.scheduled(),
            num_replicas: self.config.nats.replicas as usize,
            storage: self.storage(),
            retention: RetentionPolicy::WorkQueue,
            max_bytes: -1,
            max_messages: -1,
            max_messages_per_subject: -1,
            discard: DiscardPolicy::Old,
            allow_rollup: true,
            allow_direct: true,
            allow_message_schedules: true,
            ..Config::default()
        };
        let made = line.js.create_or_update_stream(config).await;
        made.map_err(|error| text(&error))?;
        let stream = line.js.get_stream_no_info(&name).await;
        stream.map_err(|error| text(&error))
    }

    async fn bucket(
        &self,
        line: &Line,
        what: &str,
        max_age: Duration,
    ) -> Result<kv::Store, String> {
        let bucket = format!("{}_{what}", self.config.nats.stream);
        let config = kv::Config {
            bucket: bucket.clone(),
            description: "State of ringmain".to_owned(),
            history: 1,
            max_age,
            storage: self.storage(),
            num_replicas: self.config.nats.replicas as usize,
            limit_markers: Some(MARKERS),
            ..kv::Config::default()
        };
        let made = line.js.create_or_update_key_value(config).await;
        made.map_err(|error| format!("bucket {bucket}: {error}"))
    }

    /// Says which stream it is, and what an operator should know of it. That is no alert: it is as the configuration wants it.
    fn tell(&self, info: &Info, is_new: bool) {
        tracing::info!(
            engine = "nats",
            stream = %info.config.name,
            is_new,
            entries = info.state.messages,
            bytes = info.state.bytes,
            oldest_unix_s = (info.state.messages > 0)
                .then(|| info.state.first_timestamp.unix_timestamp()),
            log = %format_args!("{:032x}", identity(info)),
            "the durable log is open"
        );
        let warnings = self.warnings();
        for warning in &warnings {
            tracing::info!("durable log: {warning}");
        }
        self.status.send_modify(|status| status.warnings = warnings);
    }

    fn warnings(&self) -> Vec<Box<str>> {
        let nats = &self.config.nats;
        let mut warnings: Vec<Box<str>> = Vec::new();
        if nats.memory_storage {
            warnings.push("durable.nats.memory_storage: what was acknowledged is in memory only and ends with the NATS servers".into());
        } else if nats.replicas == 1 {
            warnings.push("durable.nats.replicas is 1: unless the NATS server runs with `sync_interval: always`, which it tells nobody, what was acknowledged in the last two minutes may be lost with its machine".into());
        }
        warnings
    }
}

/// Which life of a stream of this name it is.
fn identity(info: &Info) -> u128 {
    info.created.unix_timestamp_nanos().unsigned_abs()
}

pub(super) fn unavailable(reason: &str) -> LogError {
    LogError::Unavailable {
        reason: reason.into(),
        retry_after: RETRY_AFTER,
    }
}

fn vanished(name: &str) -> String {
    format!("the stream {name} has vanished: restore it, or restart to begin an empty log")
}

fn check_version(version: &str) -> Result<(), String> {
    let mut parts = version
        .split(['.', '-'])
        .map_while(|part| part.parse().ok());
    match (parts.next(), parts.next(), parts.next()) {
        (Some(major), Some(minor), Some(patch)) if (major, minor, patch) < OLDEST => Err(format!(
            "the NATS server has version {version}; 2.12.3 is the oldest that can keep durable channels"
        )),
        _ => Ok(()),
    }
}

fn credentials(nats: &Nats) -> Result<Credentials, ConnectError> {
    Credentials::read(nats).map_err(|error| ConnectError::File {
        key: "credentials",
        path: nats.credentials.display().to_string(),
        reason: error.kind().to_string(),
    })
}

fn addresses(config: &Durable) -> Result<Vec<ServerAddr>, ConnectError> {
    let servers = config.nats.servers.iter().enumerate();
    let parsed: Result<Vec<ServerAddr>, ConnectError> = servers
        .map(|(index, server)| server.parse().map_err(|_| ConnectError::Server(index)))
        .collect();
    let parsed = parsed?;
    if parsed.is_empty() {
        return Err(ConnectError::NoServer);
    }
    Ok(parsed)
}

/// Tells others how a connection does, while it is the one in use.
struct Teller {
    status: watch::Sender<Status>,
    events: Arc<Notify>,
    newest: watch::Receiver<u64>,
    number: u64,
}

impl Line {
    async fn connect(
        config: &Durable,
        credentials: Credentials,
        teller: Teller,
        attempt: Attempt,
    ) -> Result<Self, ConnectError> {
        let number = teller.number;
        let servers = addresses(config)?;
        let credentials = watch::Sender::new(credentials);
        let options = options(config, credentials.subscribe(), teller, attempt)?;
        let client = options.connect(servers).await.map_err(|error| {
            ConnectError::Client(redact(config, &credentials.borrow(), &error.to_string()))
        })?;
        let mut js = jetstream::new(client.clone());
        js.set_timeout(API_TIMEOUT);
        Ok(Self {
            number,
            client,
            js,
            credentials,
        })
    }
}

fn options(
    config: &Durable,
    credentials: watch::Receiver<Credentials>,
    teller: Teller,
    attempt: Attempt,
) -> Result<ConnectOptions, ConnectError> {
    let nats = &config.nats;
    let said = credentials.clone();
    let auth = move |nonce: Vec<u8>| std::future::ready(said.borrow().auth(&nonce));
    let mut options = ConnectOptions::with_auth_callback(auth)
        .name("ringmain")
        .no_echo()
        .connection_timeout(API_TIMEOUT)
        .request_timeout(Some(API_TIMEOUT))
        .ping_interval(Duration::from_secs(10))
        .client_capacity(8192)
        .reconnect_delay_callback(|attempt| Duration::from_millis(50 * (attempt as u64).min(20)));
    if attempt == Attempt::Patient {
        options = options.retry_on_initial_connect();
    }
    if !nats.tls_ca.as_os_str().is_empty() {
        std::fs::metadata(&nats.tls_ca).map_err(|error| ConnectError::File {
            key: "tls_ca",
            path: nats.tls_ca.display().to_string(),
            reason: error.kind().to_string(),
        })?;
        options = options
            .add_root_certificates(nats.tls_ca.clone())
            .require_tls(true);
    }
    let config = config.clone();
    Ok(options.event_callback(move |event| {
        let text = redact(&config, &credentials.borrow(), &event.to_string());
        let is_in_use = *teller.newest.borrow() == teller.number;
        let (status, events) = (teller.status.clone(), Arc::clone(&teller.events));
        async move {
            match event {
                _ if !is_in_use => tracing::debug!("NATS, a connection not in use: {text}"),
                Event::Connected => events.notify_one(),
                Event::Disconnected | Event::Closed => {
                    status.send_modify(|status| status.down = Some("not connected to NATS".into()));
                }
                Event::ServerError(_) | Event::ClientError(_) => {
                    status.send_if_modified(|status| {
                        let is_down = status.down.is_some();
                        if is_down {
                            status.down = Some(text.as_str().into());
                        }
                        is_down
                    });
                    tracing::debug!("NATS: {text}");
                }
                Event::SlowConsumer(_) | Event::LameDuckMode | Event::Draining => {
                    tracing::debug!("NATS: {text}");
                }
            }
        }
    }))
}

/// Text without what nobody should read.
fn redact(config: &Durable, credentials: &Credentials, text: &str) -> String {
    let mut text = text.to_owned();
    let in_addresses = config.nats.servers.iter().filter_map(|server| {
        let (_, rest) = server.split_once("://")?;
        let (secret, _) = rest.rsplit_once('@')?;
        Some(secret)
    });
    for secret in in_addresses.chain(credentials.secrets()) {
        if !secret.is_empty() {
            text = text.replace(secret, "***");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Secret;

    #[test]
    fn servers_that_are_too_old_are_refused_by_name() {
        assert!(check_version("2.12.3").is_ok() && check_version("2.15.2").is_ok());
        assert!(check_version("3.0.0-dev").is_ok() && check_version("2.14.0-RC.1").is_ok());
        for old in ["2.12.1", "2.12.0", "2.11.9", "2.9.10", "1.4.1"] {
            let reason = check_version(old).unwrap_err();
            assert!(
                reason.contains(old) && reason.contains("2.12.3"),
                "{reason}"
            );
        }
    }

    #[test]
    fn errors_never_contain_credentials() {
        let mut config = Durable::default();
        config.nats.servers = vec!["nats://ann:geheim@host:1".to_owned()];
        config.nats.user = "ann".to_owned();
        config.nats.password = Secret("p4ss".to_owned());
        let credentials = credentials(&config.nats).expect("credentials");
        let text = redact(
            &config,
            &credentials,
            "nats://ann:geheim@host:1 refused p4ss",
        );
        assert_eq!(text, "nats://***@host:1 refused ***");
    }

    #[tokio::test]
    async fn unusable_settings_are_refused_at_once() {
        let mut config = Durable::default();
        config.nats.servers = vec!["nats://a b:secret@:x".to_owned()];
        let error = Link::connect(&config).await.err().expect("refused");
        assert!(!error.to_string().contains("secret"), "{error}");
        config.nats.servers = vec![];
        assert!(matches!(
            Link::connect(&config).await,
            Err(ConnectError::NoServer)
        ));
        config = Durable::default();
        config.nats.credentials = "does/not/exist".into();
        assert!(matches!(
            Link::connect(&config).await,
            Err(ConnectError::File { .. })
        ));
        config = Durable::default();
        config.nats.stream = "a.b".to_owned();
        assert!(matches!(
            Link::connect(&config).await,
            Err(ConnectError::Name)
        ));
    }
}
