//! `POST /admin/drain`: begins a drain, or joins the one that is under way, and says how far it is until it is over: one line of JSON a
//! second, the last one is the report.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use hyper::body::{Body as HttpBody, Frame};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::sleep;

use super::super::stage::{Stage, Wanted, Wish, report_line};
use super::Admin;
use crate::config::parse_duration;

/// Where it is asked for.
pub(super) const PATH: &str = "/admin/drain";
/// From one line to the next.
const INTERVAL: Duration = Duration::from_secs(1);
/// Lines that wait until they are taken.
const LINES_WAITING: usize = 2;

/// What is asked; nothing is asked by an empty body.
#[derive(Default, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Asked {
    /// Such as `"30s"`, in place of `drain.window`.
    window: Option<String>,
    /// In place of `drain.deadline`.
    deadline: Option<String>,
}

/// Answers with the lines.
pub(super) async fn begin(State(admin): State<Admin>, data: Bytes) -> Response {
    let wish = match wish(&data) {
        Ok(wish) => wish,
        Err(says) => return (StatusCode::BAD_REQUEST, says + "\n").into_response(),
    };
    let (answer, stage) = oneshot::channel();
    if admin.drains.send(Wanted { wish, answer }).await.is_err() {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    let Ok(stage) = stage.await else {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    };
    let (out, lines) = mpsc::channel(LINES_WAITING);
    tokio::spawn(tell(admin, stage, out));
    let headers = [(header::CONTENT_TYPE, "application/x-ndjson")];
    (headers, Body::new(Lines(lines))).into_response()
}

fn wish(data: &[u8]) -> Result<Wish, String> {
    /// As for the keys.
    const HOURS_3: Duration = Duration::from_secs(3 * 3600);
    let asked: Asked = match data {
        b"" => Asked::default(),
        data => serde_json::from_slice(data).map_err(|error| error.to_string())?,
    };
    let time = |name: &str, text: Option<String>| {
        let Some(text) = text else { return Ok(None) };
        match parse_duration(&text).filter(|time| *time <= HOURS_3) {
            Some(time) => Ok(Some(time)),
            None => Err(format!(
                "{name}: a time such as \"30s\" is expected, up to 3h"
            )),
        }
    };
    Ok(Wish {
        window: time("window", asked.window)?,
        deadline: time("deadline", asked.deadline)?,
    })
}

/// Says how far it is, until it is over or nobody listens.
async fn tell(admin: Admin, mut stage: watch::Receiver<Stage>, out: mpsc::Sender<Bytes>) {
    loop {
        let now = *stage.borrow_and_update();
        let line = match now {
            Stage::Over(report) => report_line(report),
            Stage::Serving | Stage::Notice | Stage::Leaving => {
                let phase = match now {
                    Stage::Leaving => "leaving",
                    _ => "notice",
                };
                let shards = admin.observe().await.unwrap_or_default();
                let of = |count: fn(&crate::metrics::Counters) -> u64| -> u64 {
                    shards.iter().flatten().map(|shard| count(shard)).sum()
                };
                serde_json::json!({
                    "phase": phase,
                    "connections": of(|shard| shard.connections),
                    "told": of(|shard| shard.drain_told),
                })
            }
        };
        let is_last = matches!(now, Stage::Over(_));
        if out.send(format!("{line}\n").into()).await.is_err() || is_last {
            return;
        }
        tokio::select! {
            () = sleep(INTERVAL) => {}
            changed = stage.changed() => if changed.is_err() { return },
        }
    }
}

/// The lines as they come.
struct Lines(mpsc::Receiver<Bytes>);

impl HttpBody for Lines {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let line = std::task::ready!(self.0.poll_recv(cx));
        Poll::Ready(line.map(|line| Ok(Frame::data(line))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wish_is_read_or_refused_with_what_is_expected() {
        assert_eq!(wish(b""), Ok(Wish::default()));
        assert_eq!(
            wish(br#"{"window":"30s","deadline":"1m"}"#),
            Ok(Wish {
                window: Some(Duration::from_secs(30)),
                deadline: Some(Duration::from_secs(60)),
            })
        );
        for (bad, names) in [
            (&br#"{"window":"soon"}"#[..], "window"),
            (br#"{"deadline":"4h"}"#, "deadline"),
            (br#"{"windows":"1s"}"#, "windows"),
            (b"no", "expected"),
        ] {
            let says = wish(bad).unwrap_err();
            assert!(says.contains(names), "{says}");
        }
    }
}
