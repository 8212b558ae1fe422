//! One call of a push rule: deliveries of a queue group go out, and what became of them comes back.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, StatusCode, header};
use http_body_util::{BodyExt as _, Limited};
use tokio::time::{Instant, timeout};

use super::super::clock;
use super::super::http_client::Client;
use super::exchange::{Answer, Done, Failure, Prepared, root_cause};
use crate::limits::{PUSH_ANSWER_BYTES_MAX, PUSH_RETRY_AFTER_MAX};
use crate::upstream::desk::Pushed;
use crate::wire::http::date;

/// Makes one call.
pub(super) async fn push(client: &Client, target: &Prepared, body: Bytes) -> (Done, Pushed) {
    let began = Instant::now();
    let outcome = timeout(target.config.timeout, post(client, target, body)).await;
    let (failure, pushed) = outcome.unwrap_or_else(|_elapsed| {
        let reason = "no answer in time".to_owned();
        (Some(Failure::Timeout), failed(reason, None))
    });
    let result = match failure {
        Some(failure) => Err(failure),
        None => Ok(Answer::Pushed),
    };
    let took = began.elapsed();
    (Done { result, took }, pushed)
}

const fn failed(reason: String, retry_after: Option<Duration>) -> Pushed {
    Pushed::Failed {
        reason,
        retry_after,
        is_busy: false,
    }
}

async fn post(client: &Client, target: &Prepared, body: Bytes) -> (Option<Failure>, Pushed) {
    let request = match target.post(target.headers.clone(), body) {
        Ok(request) => request,
        Err(failure) => {
            let reason = failure.to_string();
            return (Some(failure), Pushed::Away(reason, None));
        }
    };
    let response = match client.request(request).await {
        Ok(response) => response,
        Err(error) => {
            let failure = Failure::Connection(root_cause(&error));
            let reason = failure.to_string();
            // It has not got anything, so nothing is said of what it would have got.
            let pushed = match error.is_connect() {
                true => Pushed::Away(reason, None),
                false => failed(reason, None),
            };
            return (Some(failure), pushed);
        }
    };
    let status = response.status();
    let retry_after = retry_after(response.headers(), clock::unix_s());
    let body = Limited::new(response.into_body(), PUSH_ANSWER_BYTES_MAX)
        .collect()
        .await
        .map(http_body_util::Collected::to_bytes);
    if status.is_success() {
        return match body {
            Ok(body) => (None, Pushed::Done(body)),
            Err(error) => {
                let failure = Failure::Body(error.to_string());
                let reason = failure.to_string();
                (Some(failure), failed(reason, None))
            }
        };
    }
    let code = status.as_u16();
    if status == StatusCode::TOO_MANY_REQUESTS {
        let reason = format!("status {code}");
        return (
            Some(Failure::Status(code)),
            Pushed::Away(reason, retry_after),
        );
    }
    let text = body.unwrap_or_default();
    let reason = match text.is_empty() {
        true => format!("status {code}"),
        false => format!("status {code}: {}", String::from_utf8_lossy(&text).trim()),
    };
    if status.is_client_error() && status != StatusCode::REQUEST_TIMEOUT {
        let pushed = Pushed::Refused {
            reason,
            retry_after,
        };
        return (None, pushed);
    }
    let pushed = Pushed::Failed {
        reason,
        retry_after,
        is_busy: status == StatusCode::SERVICE_UNAVAILABLE && retry_after.is_some(),
    };
    (Some(Failure::Status(code)), pushed)
}

/// `Retry-After`, which is seconds or a date.
fn retry_after(headers: &HeaderMap, now_unix_s: u64) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    let seconds = match text.parse::<u64>() {
        Ok(seconds) => seconds,
        Err(_) => date::parse(text)?.saturating_sub(now_unix_s),
    };
    Some(Duration::from_secs(seconds).min(PUSH_RETRY_AFTER_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date_and_bounded() {
        let read = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::RETRY_AFTER, text.parse().expect("a header"));
            retry_after(&headers, 784_111_700)
        };
        assert_eq!(read("7"), Some(Duration::from_secs(7)));
        assert_eq!(
            read("Sun, 06 Nov 1994 08:49:37 GMT"),
            Some(Duration::from_secs(77))
        );
        assert_eq!(read("Sat, 05 Nov 1994 08:49:37 GMT"), Some(Duration::ZERO));
        assert_eq!(read("99999999"), Some(PUSH_RETRY_AFTER_MAX));
        assert_eq!(read("-1"), None);
        assert_eq!(read("soon"), None);
        assert_eq!(retry_after(&HeaderMap::new(), 0), None);
    }
}
