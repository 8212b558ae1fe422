//! Fetches the key sets that tokens are verified with (`spec/centrifuge.md` §6.1), one task for each service.
//!
//! A set is fetched at start (of a tenant: when the first of its tokens comes), before it runs out, and when a shard meets a
//! key id that is not in it. There is one fetch at a time of each service and at most one a second, whoever asks and however
//! often: key ids are the clients' to choose.

use std::collections::BTreeMap;
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
    by_source: BTreeMap<KeySource, Service>,
    /// For all tenants: one of its own would cost each of them much.
    of_tenants: Client,
    results: mpsc::Sender<Fetched>,
}

impl Services {
    /// Nobody is asked yet.
    pub(super) fn new(results: mpsc::Sender<Fetched>) -> Self {
        Self {
            by_source: BTreeMap::new(),
            of_tenants: http_client::client(1),
            results,
        }
    }

    /// Asks the services of a configuration and no others. One that stays the same is left alone.
    pub(super) fn follow(&mut self, config: &Config) {
        let wanted = endpoints(config);
        let mut before = std::mem::take(&mut self.by_source);
        for (source, endpoint) in wanted {
            let service = before
                .remove(&source)
                .filter(|service| service.endpoint == endpoint)
                .unwrap_or_else(|| self.start(source.clone(), endpoint));
            self.by_source.insert(source, service);
        }
    }

    /// A shard has met an unknown key id.
    pub(super) fn want(&self, source: &KeySource) {
        if let Some(service) = self.by_source.get(source) {
            // One that is asked already will not be asked twice.
            let _is_asked = service.wanted.try_send(());
        }
    }
}

/// The services of a configuration, by source.
fn endpoints(config: &Config) -> Vec<(KeySource, &str)> {
    let client = &config.client;
    let of =
        |endpoint: &'_ String| !endpoint.is_empty() && !client.insecure_skip_token_signature_verify;
    let (connection, subscription) = (
        &client.token.jwks_public_endpoint,
        &client.subscription_token.jwks_public_endpoint,
    );
    let is_own = of(subscription) && subscription != connection;
    let mut all = Vec::new();
    all.extend(of(connection).then_some((KeySource::Connection, connection.as_str())));
    all.extend(is_own.then_some((KeySource::Subscription, subscription.as_str())));
    for tenant in &config.tenants.list {
        let endpoint = &tenant.token.jwks_public_endpoint;
        let source = || KeySource::Tenant(tenant.id.as_str().into());
        all.extend(of(endpoint).then(|| (source(), endpoint.as_str())));
    }
    all
}

impl Services {
    fn start(&self, source: KeySource, endpoint: &str) -> Service {
        let (wanted, asked) = mpsc::channel(1);
        let client = match &source {
            KeySource::Connection | KeySource::Subscription => http_client::client(1),
            KeySource::Tenant(_) => self.of_tenants.clone(),
        };
        let fetcher = Fetcher {
            source,
            endpoint: endpoint.to_owned(),
            client,
            failing: false,
        };
        Service {
            endpoint: endpoint.to_owned(),
            wanted,
            task: tokio::spawn(fetcher.run(asked, self.results.clone())),
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
        // A start would ask for the keys of thousands of tenants at once, most of whom nobody comes to.
        if matches!(self.source, KeySource::Tenant(_)) && asked.recv().await.is_none() {
            return;
        }
        loop {
            let began = Instant::now();
            let set = self.fetch().await;
            let again = match set {
                Some(_) => KEY_SET_TTL - REFRESH_MARGIN,
                None => RETRY_INTERVAL,
            };
            // Whoever asked meanwhile is answered by this.
            while asked.try_recv().is_ok() {}
            if results.send((self.source.clone(), set)).await.is_err() {
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
