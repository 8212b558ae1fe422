//! The durable log as a stream of bytes, for `ringmain log`.

use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use hyper::body::{Body as HttpBody, Frame};
use tokio::sync::{mpsc, oneshot};

use super::{Admin, answer_of_log, no_log};
use crate::mesh::durable::LogError;
use crate::upstream::bridge::CopyWanted;
use crate::upstream::log::Wanted;

/// Where it is asked for.
pub(super) const PATH: &str = "/api/log/copy";
/// Parts that wait until they are taken, a megabyte each.
const PARTS_WAITING: usize = 2;

/// What is asked.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    /// Entries with a greater cursor, decimal; as text, as JSON loses large numbers.
    #[serde(default)]
    after: String,
    /// Bytes a second at most; 0 for no limit.
    #[serde(default)]
    rate: u64,
}

/// Answers with the stream, or with an error where there is none.
pub(super) async fn stream(State(admin): State<Admin>, data: Bytes) -> Response {
    let Some(log) = &admin.log else {
        return no_log();
    };
    let asked = match wanted(&data) {
        Ok(wanted) => wanted,
        Err(says) => return answer_of_log(Err(LogError::BadRequest(says.into()))),
    };
    let (out, mut parts) = mpsc::channel(PARTS_WAITING);
    let (done, outcome) = oneshot::channel();
    let wanted = CopyWanted {
        wanted: asked,
        out,
        done,
    };
    if log.copies.send(wanted).await.is_err() {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    let Some(first) = parts.recv().await else {
        return match outcome.await {
            Ok(Err(error)) => answer_of_log(Err(error)),
            _ => StatusCode::SERVICE_UNAVAILABLE.into_response(),
        };
    };
    let body = Stream {
        first: Some(first),
        parts,
        outcome,
    };
    let headers = [(header::CONTENT_TYPE, "application/octet-stream")];
    (headers, Body::new(body)).into_response()
}

fn wanted(data: &[u8]) -> Result<Wanted, String> {
    let asked: Asked = serde_json::from_slice(data).map_err(|error| error.to_string())?;
    let after = match &*asked.after {
        "" => 0,
        text => text
            .parse()
            .map_err(|_| "after: a cursor is expected, a decimal number as text".to_owned())?,
    };
    Ok(Wanted {
        after,
        rate: asked.rate,
    })
}

/// The parts as they come.
struct Stream {
    first: Option<Bytes>,
    parts: mpsc::Receiver<Bytes>,
    outcome: oneshot::Receiver<Result<(), LogError>>,
}

impl HttpBody for Stream {
    type Data = Bytes;
    type Error = LogError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, LogError>>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(Ok(Frame::data(first))));
        }
        match std::task::ready!(self.parts.poll_recv(cx)) {
            Some(part) => Poll::Ready(Some(Ok(Frame::data(part)))),
            // One that failed is cut off, so that nobody takes it for whole.
            None => Poll::Ready(match self.outcome.try_recv() {
                Ok(Err(error)) => Some(Err(error)),
                Ok(Ok(())) => None,
                Err(_) => Some(Err(LogError::Unavailable {
                    reason: "the durable log is closed".into(),
                    retry_after: std::time::Duration::from_secs(1),
                })),
            }),
        }
    }
}
