//! `/admin/tenants`: tenants that come, change and go while the proxy runs.

use axum::body::Bytes;
use axum::extract::{Path as PathOf, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot, watch};

use super::super::clock;
use super::super::tenants::{Change, Done, Refused, Tenancy};
use super::{Admin, given_key, json as json_answer};
use crate::config::{Config, KeyVerdict, Tenant, shown_tenants};
use crate::limits::{REQUEST_ID_BYTES_MAX, TENANT_BYTES_MAX};

/// Where they are listed and added.
pub(super) const PATH: &str = "/admin/tenants";
/// Where one is removed.
pub(super) const PATH_OF_ONE: &str = "/admin/tenants/{id}";

/// The way to whoever keeps them.
#[derive(Clone)]
pub(in crate::control) struct Line {
    /// What there is.
    pub(in crate::control) tenancy: watch::Receiver<Tenancy>,
    /// What is to change; `None` without a durable log.
    pub(in crate::control) changes: Option<mpsc::Sender<Change>>,
}

/// All tenants, secrets hidden.
pub(super) async fn list(State(admin): State<Admin>) -> Response {
    let config = admin.config.borrow().clone();
    let tenancy = admin.tenants.tenancy.borrow().clone();
    let mut tenants = shown_tenants(&config);
    for tenant in &mut tenants {
        let id = tenant["id"].as_str().unwrap_or_default();
        let of = match tenancy.kept.get(id) {
            Some(kept) if !tenancy.left_out.contains_key(id) => json!({
                "kept": true,
                "changed_by": kept.by,
                "changed_at": kept.at,
                "request_id": kept.request_id,
            }),
            _ => json!({ "kept": false }),
        };
        if let (Value::Object(tenant), Value::Object(of)) = (tenant, of) {
            tenant.extend(of);
        }
    }
    let left_out = tenancy.left_out.iter();
    let left_out: Vec<Value> = left_out
        .map(|(id, misfit)| json!({ "id": id, "reason": misfit.text }))
        .collect();
    let known = admin.tenants.changes.is_none() || tenancy.is_known;
    json_answer(
        StatusCode::OK,
        &json!({ "tenants": tenants, "left_out": left_out, "complete": known }),
    )
}

/// Adds or changes one.
pub(super) async fn put(State(admin): State<Admin>, headers: HeaderMap, data: Bytes) -> Response {
    let request_id = request_id(&headers);
    match read(&data) {
        Ok((id, text)) => admin.change(id, Some(text), &headers, request_id).await,
        Err(message) => refusal(
            StatusCode::BAD_REQUEST,
            "bad_request",
            &message,
            &request_id,
        ),
    }
}

/// Removes one.
pub(super) async fn remove(
    State(admin): State<Admin>,
    PathOf(id): PathOf<String>,
    headers: HeaderMap,
) -> Response {
    let request_id = request_id(&headers);
    if !Tenant::is_id(&id) {
        return answer(&id, Err(Refused::Unknown), &request_id);
    }
    admin.change(id, None, &headers, request_id).await
}

/// Id and text of a tenant; whether its keys are right is looked at with everything else.
fn read(data: &[u8]) -> Result<(String, String), String> {
    if data.len() > TENANT_BYTES_MAX {
        return Err(format!("a tenant has at most {TENANT_BYTES_MAX} bytes"));
    }
    let value: Value = serde_json::from_slice(data).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        format!("the body is not JSON: line {line}, column {column}")
    })?;
    let id = value["id"].as_str().filter(|id| Tenant::is_id(id));
    let id = id.ok_or("the body is an object with the keys of one of [[tenants]], and its `id` is of lower-case letters, digits and `-`")?;
    Ok((id.to_owned(), value.to_string()))
}

/// What the request is called: as whoever asks calls it, or by a name of its own.
fn request_id(headers: &HeaderMap) -> String {
    let given = headers.get("X-Request-Id").map(|id| id.as_bytes());
    let given = given.filter(|id| (1..=REQUEST_ID_BYTES_MAX).contains(&id.len()));
    let given = given.filter(|id| id.iter().all(u8::is_ascii_graphic));
    match given {
        Some(id) => String::from_utf8_lossy(id).into_owned(),
        // Where the kernel has no randomness the process does not start.
        None => format!("{:016x}", getrandom::u64().unwrap_or_default()),
    }
}

/// Which key it is. Over a unix socket none is asked for.
fn who(config: &Config, headers: &HeaderMap) -> String {
    let given = given_key(headers).unwrap_or_default();
    match config.judge_admin_key(given, clock::unix_s()) {
        KeyVerdict::Named(key) => key.name.clone(),
        KeyVerdict::Unnamed => "the key without a name".to_owned(),
        KeyVerdict::Expired | KeyVerdict::Unknown => "the unix socket".to_owned(),
    }
}

impl Admin {
    async fn change(
        &self,
        id: String,
        text: Option<String>,
        headers: &HeaderMap,
        request_id: String,
    ) -> Response {
        let Some(changes) = &self.tenants.changes else {
            let why = "tenants of /admin/tenants are kept in the durable log, and there is none: give a namespace `delivery = \"durable\"`, or use `server.tenants_directory`";
            return refusal(StatusCode::NOT_IMPLEMENTED, "no_log", why, &request_id);
        };
        let (answer_in, answered) = oneshot::channel();
        let change = Change {
            id: id.clone(),
            text,
            by: who(&self.config.borrow().clone(), headers),
            request_id: request_id.clone(),
            answer: answer_in,
        };
        let sent = changes.send(change).await.is_ok();
        let outcome = match sent {
            true => answered.await.ok(),
            false => None,
        };
        let ends = || Err(Refused::Unavailable("this process ends".to_owned()));
        answer(&id, outcome.unwrap_or_else(ends), &request_id)
    }
}

fn answer(id: &str, outcome: Result<Done, Refused>, request_id: &str) -> Response {
    let (status, reason, message) = match outcome {
        Ok(Done { change, keys }) => {
            return json_answer(
                StatusCode::OK,
                &json!({ "tenant": id, "change": change, "keys": keys, "request_id": request_id }),
            );
        }
        Err(Refused::Unknown) => (
            StatusCode::NOT_FOUND,
            "unknown",
            "there is no such tenant".to_owned(),
        ),
        Err(Refused::Elsewhere(text)) => (
            StatusCode::CONFLICT,
            "in_file",
            format!("it stands in a file, and is changed there: {text}"),
        ),
        Err(Refused::Misfit(text)) => (StatusCode::UNPROCESSABLE_ENTITY, "refused", text),
        Err(Refused::Unavailable(text)) => (StatusCode::SERVICE_UNAVAILABLE, "unavailable", text),
    };
    refusal(status, reason, &message, request_id)
}

fn refusal(status: StatusCode, reason: &str, message: &str, request_id: &str) -> Response {
    json_answer(
        status,
        &json!({ "error": { "reason": reason, "message": message }, "request_id": request_id }),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_names_a_tenant_or_is_refused_with_what_is_expected() {
        let (id, text) = read(br#"{"id": "acme", "hosts": []}"#).expect("a tenant");
        assert_eq!((&*id, &*text), ("acme", r#"{"hosts":[],"id":"acme"}"#));
        for bad in ["", "[]", "{}", r#"{"id":7}"#, r#"{"id":"A"}"#, r#"{"id":"#] {
            assert!(read(bad.as_bytes()).is_err(), "{bad}");
        }
        let large = format!(r#"{{"id":"a","x":"{}"}}"#, "x".repeat(TENANT_BYTES_MAX));
        assert!(read(large.as_bytes()).is_err());
    }

    #[test]
    fn a_request_keeps_its_name_where_that_is_one() {
        let named = |name: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("X-Request-Id", name.parse().expect("a value"));
            request_id(&headers)
        };
        assert_eq!(named("deploy-7"), "deploy-7");
        for bad in ["", "a b", &"x".repeat(REQUEST_ID_BYTES_MAX + 1)] {
            let made = named(bad);
            assert!(made.len() == 16 && made != bad, "{made}");
        }
    }
}
