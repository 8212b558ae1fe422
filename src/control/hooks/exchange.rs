//! One call over HTTP: bounded in time and bytes, on a pooled connection.

use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::client::legacy;
use tokio::time::{Instant, timeout};

use super::super::clock;
use super::super::http_client::{self, Client};
use super::{answer, request, signature};
use crate::config::hooks::{Signing, Target};
use crate::limits::HOOK_RESPONSE_BYTES_MAX;
use crate::mesh::hook::{Call, Verdict};
use crate::wire::json::Malformed;

/// Idle connections kept for one backend.
const IDLE_KEPT: usize = 64;

/// The client of all targets.
pub(super) fn client() -> Client {
    http_client::client(IDLE_KEPT)
}

/// A target, ready to be called.
pub(super) struct Prepared {
    pub(super) config: Arc<Target>,
    uri: Option<Uri>,
    pub(super) headers: HeaderMap,
    pub(super) signing: Signing,
}

impl Prepared {
    pub(super) fn new(config: &Arc<Target>, of_all: &Signing) -> Self {
        Self {
            config: Arc::clone(config),
            uri: config.endpoint.parse().ok(),
            headers: request::static_headers(&config.static_headers),
            signing: config.signing.or(of_all).clone(),
        }
    }
}

impl Prepared {
    /// A signed request.
    pub(super) fn post(
        &self,
        mut headers: HeaderMap,
        body: Bytes,
    ) -> Result<Request<Full<Bytes>>, Failure> {
        let uri = self
            .uri
            .clone()
            .ok_or_else(|| Failure::Connection("no such URL".to_owned()))?;
        signature::sign(&mut headers, &self.signing, &body, clock::unix_s());
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = uri;
        *request.headers_mut() = headers;
        Ok(request)
    }
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Failure {
    /// Not in time.
    #[error("no answer in time")]
    Timeout,
    /// No connection, or it broke.
    #[error("connection: {0}")]
    Connection(String),
    /// Neither 200 nor transformed.
    #[error("status {0}")]
    Status(u16),
    /// Over `HOOK_RESPONSE_BYTES_MAX`, or it broke within.
    #[error("body: {0}")]
    Body(String),
    /// Not as agreed.
    #[error("the answer is not what was agreed on: {0}")]
    Malformed(Malformed),
}

/// What a target says.
pub(super) enum Answer {
    /// To a shard's call.
    Verdict(Verdict),
    /// To a push, which has its own.
    Pushed,
}

/// A call that is over.
pub(super) struct Done {
    pub(super) result: Result<Answer, Failure>,
    pub(super) took: Duration,
}

/// Makes one call. What its answer has for clients is nested at most `levels` deep.
pub(super) async fn exchange(
    client: Client,
    target: Arc<Prepared>,
    call: &Call,
    levels: usize,
) -> Done {
    let began = Instant::now();
    let result = timeout(target.config.timeout, ask(&client, &target, call, levels))
        .await
        .unwrap_or(Err(Failure::Timeout))
        .map(Answer::Verdict);
    Done {
        result,
        took: began.elapsed(),
    }
}

async fn ask(
    client: &Client,
    target: &Prepared,
    call: &Call,
    levels: usize,
) -> Result<Verdict, Failure> {
    let body = Bytes::from(request::body(call));
    let headers = request::headers(&target.headers, call);
    let response = client
        .request(target.post(headers, body)?)
        .await
        .map_err(|error| Failure::Connection(root_cause(&error)))?;
    let status = response.status();
    let body = Limited::new(response.into_body(), HOOK_RESPONSE_BYTES_MAX)
        .collect()
        .await;
    if status != StatusCode::OK {
        return answer::transformed(&target.config.transforms, &call.event, status.as_u16())
            .ok_or(Failure::Status(status.as_u16()));
    }
    let body = body
        .map_err(|error| Failure::Body(error.to_string()))?
        .to_bytes();
    answer::read(&call.event, &body, levels).map_err(Failure::Malformed)
}

/// The innermost error: the outer ones say only that something is wrong.
pub(super) fn root_cause(error: &legacy::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    debug_assert!(error.source().is_some() || !cause.to_string().is_empty());
    cause.to_string()
}
