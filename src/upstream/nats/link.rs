//! The connection: it is made and kept in the background, and the stream behind it is created or checked.

use std::sync::Arc;
use std::time::Duration;

use async_nats::connection::State;
use async_nats::jetstream::stream::{Config, DiscardPolicy, Info, StorageType, Stream};
use async_nats::jetstream::{self, ErrorCode, kv};
use async_nats::{Client, ConnectOptions, Event, ServerAddr};
use tokio::sync::{Notify, watch};

use super::subject::{self, Subjects};
use crate::config::durable::Durable;
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
}

/// What all parts of the log share.
pub(super) struct Link {
    pub client: Client,
    pub js: jetstream::Context,
    pub config: Durable,
    pub subjects: Subjects,
    /// The stream; `None` until it was opened.
    pub opened: watch::Sender<Option<Arc<Opened>>>,
    pub status: watch::Sender<Status>,
    /// Makes names of batches unlike those of other processes.
    pub process: String,
    events: Arc<Notify>,
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
        let servers = addresses(config)?;
        let status = watch::Sender::new(Status {
            down: Some("not connected yet".into()),
            ..Status::default()
        });
        let events = Arc::new(Notify::new());
        let options = options(config, &status, &events).await?;
        let client = options
            .connect(servers)
            .await
            .map_err(|error| ConnectError::Client(redact(config, &error.to_string())))?;
        let mut js = jetstream::new(client.clone());
        js.set_timeout(API_TIMEOUT);
        let process = client
            .new_inbox()
            .rsplit('.')
            .next()
            .map_or_else(String::new, str::to_owned);
        Ok(Arc::new(Self {
            client,
            js,
            config: config.clone(),
            subjects: Subjects::new(&nats.subject_prefix),
            opened: watch::Sender::new(None),
            status,
            process,
            events,
        }))
    }

    /// The stream, if something can be asked of it now.
    pub(super) fn opened(&self) -> Result<Arc<Opened>, LogError> {
        if self.client.connection_state() != State::Connected {
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
        unavailable(&redact(&self.config, &error.to_string()))
    }

    /// Opens the stream and looks at it from time to time, for ever.
    pub(super) async fn supervise(self: Arc<Self>) {
        loop {
            let pause = if self.client.connection_state() == State::Connected {
                match self.look().await {
                    Ok(()) => LOOK_EVERY,
                    Err(reason) => {
                        self.down(&redact(&self.config, &reason));
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
        let info = match &known {
            Some(opened) => opened
                .stream
                .get_info()
                .await
                .map_err(|error| error.to_string())?,
            None => {
                check_version(&self.client.server_info().version)?;
                self.stream().await?
            }
        };
        if known
            .as_ref()
            .is_none_or(|opened| opened.log != identity(&info))
        {
            let opened = self.open(&info).await?;
            let warnings = self.warnings();
            for warning in &warnings {
                tracing::warn!("durable log: {warning}");
            }
            self.status.send_modify(|status| status.warnings = warnings);
            self.opened.send_replace(Some(Arc::new(opened)));
        }
        self.status.send_modify(|status| {
            status.down = None;
            status.bytes = info.state.bytes;
            status.entries = info.state.messages;
            status.end = status.end.max(info.state.last_sequence);
        });
        Ok(())
    }

    async fn stream(&self) -> Result<Info, String> {
        let wanted = self.wanted();
        let text = |error: &dyn std::fmt::Display| format!("stream {}: {error}", wanted.name);
        let info = match self.js.get_stream(&wanted.name).await {
            Ok(stream) => stream.cached_info().clone(),
            Err(error) => {
                let jetstream::context::GetStreamErrorKind::JetStream(api) = error.kind() else {
                    return Err(text(&error));
                };
                if api.error_code() != ErrorCode::STREAM_NOT_FOUND {
                    return Err(text(&error));
                }
                let made = self.js.create_stream(wanted.clone()).await;
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
            let updated = self.js.update_stream(changed).await;
            updated.map_err(|error| {
                text(&format!(
                    "it differs from durable.nats, and cannot be changed: {error}"
                ))
            })?
        };
        if !info.config.allow_atomic_publish || !info.config.allow_message_ttl {
            return Err(text(&"its server is older than NATS 2.12.3"));
        }
        Ok(info)
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

    async fn open(&self, info: &Info) -> Result<Opened, String> {
        let stream = self
            .js
            .get_stream_no_info(&info.config.name)
            .await
            .map_err(|error| error.to_string())?;
        Ok(Opened {
            log: identity(info),
            name: info.config.name.clone(),
            end: info.state.last_sequence,
            stream,
            state: self.bucket("STATE", Duration::ZERO).await?,
            failures: self.bucket("FAILURES", self.config.retention_age).await?,
            dead: self.bucket("DEAD", Duration::ZERO).await?,
        })
    }

    async fn bucket(&self, what: &str, max_age: Duration) -> Result<kv::Store, String> {
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
        let made = self.js.create_or_update_key_value(config).await;
        made.map_err(|error| format!("bucket {bucket}: {error}"))
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

async fn options(
    config: &Durable,
    status: &watch::Sender<Status>,
    events: &Arc<Notify>,
) -> Result<ConnectOptions, ConnectError> {
    let nats = &config.nats;
    let mut options = ConnectOptions::new()
        .name("ringmain")
        .no_echo()
        .retry_on_initial_connect()
        .connection_timeout(API_TIMEOUT)
        .request_timeout(Some(API_TIMEOUT))
        .ping_interval(Duration::from_secs(10))
        .client_capacity(8192)
        .reconnect_delay_callback(|attempt| Duration::from_millis(50 * (attempt as u64).min(20)));
    if !nats.token.0.is_empty() {
        options = options.token(nats.token.0.clone());
    } else if !nats.user.is_empty() {
        options = options.user_and_password(nats.user.clone(), nats.password.0.clone());
    }
    if !nats.credentials.as_os_str().is_empty() {
        let file = std::fs::read_to_string(&nats.credentials);
        let read = file.and_then(|text| options.credentials(&text));
        options = read.map_err(|error| ConnectError::File {
            key: "credentials",
            path: nats.credentials.display().to_string(),
            reason: error.kind().to_string(),
        })?;
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
    let (status, events, config) = (status.clone(), events.clone(), config.clone());
    Ok(options.event_callback(move |event| {
        let text = redact(&config, &event.to_string());
        let (status, events) = (status.clone(), events.clone());
        async move {
            match event {
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
fn redact(config: &Durable, text: &str) -> String {
    let nats = &config.nats;
    let mut text = text.to_owned();
    let in_addresses = nats.servers.iter().filter_map(|server| {
        let (_, rest) = server.split_once("://")?;
        let (secret, _) = rest.rsplit_once('@')?;
        Some(secret.to_owned())
    });
    let secrets = [nats.password.0.clone(), nats.token.0.clone()];
    for secret in in_addresses.chain(secrets) {
        if !secret.is_empty() {
            text = text.replace(&secret, "***");
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
        config.nats.password = Secret("p4ss".to_owned());
        let text = redact(&config, "nats://ann:geheim@host:1 refused p4ss");
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
