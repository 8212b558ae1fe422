//! The HTTP client of the control thread: pooled connections, TLS with the roots that Mozilla trusts.

use std::time::Duration;

use crate::limits::RESPONSE_HEAD_BYTES_MAX;
use bytes::Bytes;
use http_body_util::Full;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};

/// An idle connection is closed after this: shorter than what servers and balancers usually allow.
const IDLE_TIMEOUT: Duration = Duration::from_secs(50);

/// Connections are pooled by scheme, host and port. It follows no redirects.
pub(super) type Client = legacy::Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

/// A client that keeps at most `idle_max` idle connections to one host.
pub(super) fn client(idle_max: usize) -> Client {
    let mut connector = HttpConnector::new();
    connector.enforce_http(false);
    connector.set_nodelay(true);
    let provider = rustls::crypto::ring::default_provider();
    let connector = HttpsConnectorBuilder::new()
        .with_provider_and_webpki_roots(provider)
        .expect("ring has the protocol versions that rustls wants")
        .https_or_http()
        .enable_http1()
        .wrap_connector(connector);
    legacy::Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE_TIMEOUT)
        .pool_max_idle_per_host(idle_max)
        .http1_max_buf_size(RESPONSE_HEAD_BYTES_MAX)
        .build(connector)
}
