//! Fetches the key sets that tokens are verified with (`spec/centrifuge.md` §6.1), one task for each service.
//!
//! A set is fetched at start, before it runs out, and when a shard meets a key id that is not in it. There is one fetch
//! at a time and at most one a second, whoever asks and however often: key ids are the clients' to choose.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{StatusCode, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};
use tracing::{info, warn};

use super::http_client::{self, Client};
use crate::auth::token::KEY_SET_TTL;
use crate::config::keys::{KeySet, KeySetError, KeySource};
use crate::config::{Config, shown_url};
use crate::limits::JWKS_BYTES_MAX;

/// One attempt, from connecting to the last byte.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(1);
/// Attempts of one fetch.
const ATTEMPTS: u32 = 2;
/// From the start of one fetch to the start of the next.
const FETCH_INTERVAL: Duration = Duration::from_secs(1);
/// A set is fetched again this long before it runs out.
const REFRESH_MARGIN: Duration = Duration::from_secs(300);
/// A set that could not be fetched is tried again after this, also if nobody asks.
const RETRY_INTERVAL: Duration = Duration::from_secs(10);
/// Results that wait for control.
pub(super) const RESULTS_QUEUED: usize = 8;

/// What a fetch brought; `None` when it failed.
pub(super) type Fetched = (KeySource, Option<Arc<KeySet>>);

/// Why a fetch failed.
#[derive(Debug, thiserror::Error)]
enum FetchError {
    #[error("no answer in time")]
    Timeout,
    #[error("connection: {0}")]
    Connection(String),
    #[error("status {0}")]
    Status(u16),
    #[error("body: {0}")]
    Body(String),
    #[error(transparent)]
    Set(#[from] KeySetError),
}

/// One service and the task that asks it.
struct Service {
    endpoint: String,
    wanted: mpsc::Sender<()>,
    task: JoinHandle<()>,
}

/// All services. Dropping it ends their tasks.
pub(super) struct Services {
    by_source: [Option<Service>; KeySource::ALL.len()],
    results: mpsc::Sender<Fetched>,
}

impl Services {
    /// Nobody is asked yet.
    pub(super) const fn new(results: mpsc::Sender<Fetched>) -> Self {
        Self {
            by_source: [None, None],
            results,
        }
    }

    /// Asks the services of a configuration and no others. One that stays the same is left alone.
    pub(super) fn follow(&mut self, config: &Config) {
        for (source, endpoint) in KeySource::ALL.into_iter().zip(endpoints(config)) {
            let service = &mut self.by_source[source as usize];
            if service.as_ref().map(|service| service.endpoint.as_str()) == endpoint {
                continue;
            }
            *service = endpoint.map(|endpoint| Service::start(source, endpoint, &self.results));
        }
    }

    /// A shard has met an unknown key id.
    pub(super) fn want(&self, source: KeySource) {
        if let Some(service) = &self.by_source[source as usize] {
            // One that is asked already will not be asked twice.
            let _is_asked = service.wanted.try_send(());
        }
    }
}

/// The services of a configuration, by source.
fn endpoints(config: &Config) -> [Option<&str>; KeySource::ALL.len()] {
    let client = &config.client;
    let of =
        |endpoint: &'_ String| !endpoint.is_empty() && !client.insecure_skip_token_signature_verify;
    let (connection, subscription) = (
        &client.token.jwks_public_endpoint,
        &client.subscription_token.jwks_public_endpoint,
    );
    [
        of(connection).then_some(connection.as_str()),
        (of(subscription) && subscription != connection).then_some(subscription.as_str()),
    ]
}

impl Service {
    fn start(source: KeySource, endpoint: &str, results: &mpsc::Sender<Fetched>) -> Self {
        let (wanted, asked) = mpsc::channel(1);
        let fetcher = Fetcher {
            source,
            endpoint: endpoint.to_owned(),
            client: http_client::client(1),
            failing: false,
        };
        Self {
            endpoint: endpoint.to_owned(),
            wanted,
            task: tokio::spawn(fetcher.run(asked, results.clone())),
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Fetcher {
    source: KeySource,
    endpoint: String,
    client: Client,
    /// The last fetch failed: the log has it.
    failing: bool,
}

impl Fetcher {
    async fn run(mut self, mut asked: mpsc::Receiver<()>, results: mpsc::Sender<Fetched>) {
        loop {
            let began = Instant::now();
            let set = self.fetch().await;
            let again = match set {
                Some(_) => KEY_SET_TTL - REFRESH_MARGIN,
                None => RETRY_INTERVAL,
            };
            // Whoever asked meanwhile is answered by this.
            while asked.try_recv().is_ok() {}
            if results.send((self.source, set)).await.is_err() {
                return;
            }
            // Out of time and asked both mean the next fetch; nobody left to ask means the end.
            if let Ok(None) = timeout_at(began + again, asked.recv()).await {
                return;
            }
            sleep_until(began + FETCH_INTERVAL).await;
        }
    }

    async fn fetch(&mut self) -> Option<Arc<KeySet>> {
        let mut result = Err(FetchError::Timeout);
        for _ in 0..ATTEMPTS {
            result = timeout(ATTEMPT_TIMEOUT, self.attempt())
                .await
                .unwrap_or(Err(FetchError::Timeout));
            if result.is_ok() {
                break;
            }
        }
        match result {
            Ok(set) => {
                info!(endpoint = %shown_url(&self.endpoint), keys = set.len(), "token keys fetched");
                self.failing = false;
                Some(Arc::new(set))
            }
            Err(error) => {
                if !self.failing {
                    warn!(endpoint = %shown_url(&self.endpoint), %error, "token keys cannot be fetched");
                }
                self.failing = true;
                None
            }
        }
    }

    async fn attempt(&self) -> Result<KeySet, FetchError> {
        let uri: Uri = self
            .endpoint
            .parse()
            .map_err(|_| FetchError::Connection("no such URL".to_owned()))?;
        let mut request = http::Request::new(Full::<Bytes>::default());
        *request.uri_mut() = uri;
        request.headers_mut().insert(
            http::header::ACCEPT,
            http::HeaderValue::from_static("application/json"),
        );
        let response = self
            .client
            .request(request)
            .await
            .map_err(|error| FetchError::Connection(root_cause(&error)))?;
        if response.status() != StatusCode::OK {
            return Err(FetchError::Status(response.status().as_u16()));
        }
        let body = Limited::new(response.into_body(), JWKS_BYTES_MAX)
            .collect()
            .await
            .map_err(|error| FetchError::Body(error.to_string()))?;
        Ok(KeySet::parse(&body.to_bytes())?)
    }
}

/// The innermost error: the outer ones say only that something is wrong.
fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}
