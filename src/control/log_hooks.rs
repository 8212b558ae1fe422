//! Hooks of the durable log's side: triggers, and what is told of dead letters. Whoever wants them called waits for the
//! outcome and tries again, so nothing is queued or retried here.

use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Request, header};
use http_body_util::Full;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use super::clock;
use super::hooks::request::static_headers;
use super::hooks::signature::sign;
use super::http_client::{self, Client};
use crate::config::Config;
use crate::config::hooks::{Signing, Target};
use crate::upstream::bridge::HookCall;

/// Idle connections kept for one backend.
const IDLE_KEPT: usize = 16;

/// Calls until nobody asks any more.
pub(super) async fn run(
    mut calls: mpsc::Receiver<HookCall>,
    configs: watch::Receiver<Arc<Config>>,
) {
    let client = http_client::client(IDLE_KEPT);
    while let Some(call) = calls.recv().await {
        let (target, of_all) = {
            let hooks = &configs.borrow().hooks;
            let target = hooks.target(&call.name).cloned();
            (target, hooks.signing.clone())
        };
        let client = client.clone();
        tokio::spawn(async move {
            let outcome = match target {
                Some(target) => post(&client, &target, &of_all, call.body).await,
                None => Err(format!("there is no hook `{}`", call.name)),
            };
            // Whoever asked may have stopped waiting.
            let _ = call.done.send(outcome);
        });
    }
}

async fn post(
    client: &Client,
    target: &Target,
    of_all: &Signing,
    body: Bytes,
) -> Result<(), String> {
    let mut headers = static_headers(&target.static_headers);
    sign(
        &mut headers,
        target.signing.or(of_all),
        &body,
        clock::unix_s(),
    );
    let mut request = Request::new(Full::new(body));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = target
        .endpoint
        .parse()
        .map_err(|_malformed| "no such URL".to_owned())?;
    *request.headers_mut() = headers;
    request.headers_mut().insert(
        header::CONTENT_TYPE,
        header::HeaderValue::from_static("application/json"),
    );
    let response = timeout(target.timeout, client.request(request))
        .await
        .map_err(|_elapsed| "no answer in time".to_owned())?
        .map_err(|error| format!("connection: {error}"))?;
    if response.status().is_success() {
        Ok(())
    } else {
        Err(format!("status {}", response.status().as_u16()))
    }
}
