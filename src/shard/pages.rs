//! Pages for services and probes at the internal listeners. What only control knows is asked of it, while the connection
//! waits.

use std::time::Duration;

use super::Shard;
use super::answers::TEXT;
use super::connection::State;
use super::route::{Asked, Route, api_route};
use crate::limits::PAGES_MAX;
use crate::mem::TimerWheel;
use crate::mesh::control::{FromShard, Page, PageKind};
use crate::model::ConnId;
use crate::wire::http::{HttpError, Method, RequestHead};

/// Answers always come; this bounds what a bug in that costs.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

impl Shard {
    /// What is asked for at an internal listener.
    pub(super) fn internal_route(&self, head: &RequestHead<'_>, path: &str) -> Asked {
        let route = match path {
            "/health" => Route::Health,
            "/ready" => Route::Control(PageKind::Ready),
            "/metrics" => Route::Control(PageKind::Metrics),
            "/api/openapi.json" => Route::OpenApi,
            "/api" => return api_route(&self.config, head, None).into(),
            _ => {
                return match path.strip_prefix("/api/") {
                    Some(method) => api_route(&self.config, head, Some(method)).into(),
                    None => Route::Refused(HttpError::NotFound).into(),
                };
            }
        };
        if !matches!(head.method, Method::Get | Method::Head) {
            return Route::Refused(HttpError::MethodNotAllowed("GET, HEAD")).into();
        }
        // Health says nothing that a page of a stranger could use.
        if !matches!(route, Route::Health) && !is_no_stranger(&self.config, head) {
            return Route::Refused(HttpError::Forbidden).into();
        }
        route.into()
    }

    pub(super) fn ask_control(&mut self, slot: u32, kind: PageKind) {
        if self.pages >= PAGES_MAX {
            return self.respond(slot, 503, TEXT, b"try again\n");
        }
        self.pages += 1;
        let conn = ConnId {
            slot,
            generation: self.connections.generation(slot),
        };
        self.reports
            .push_back(FromShard::PageWanted(self.id, conn, kind));
        if let Some(connection) = self.connections.at_mut(slot) {
            connection.state = State::Waiting;
        }
        self.connections
            .set_deadline(slot, TimerWheel::tick_after(self.now.at, ANSWER_TIMEOUT));
    }

    pub(super) fn page_answered(&mut self, conn: ConnId, page: &Page) {
        self.pages -= 1;
        let waits = self
            .connections
            .current(conn.slot, conn.generation)
            .is_some_and(|connection| connection.state == State::Waiting && !connection.is_session);
        if waits {
            self.respond(conn.slot, page.status, page.content_type, &page.body);
        }
    }
}

/// Is this a request that no page of a stranger can have made? Where there is no key, a browser on the same host could be
/// sent here.
pub(super) fn is_no_stranger(config: &crate::config::Config, head: &RequestHead<'_>) -> bool {
    config.allows_host(head.host)
        && crate::wire::http::is_same_site(head.host, head.origin, head.header("Sec-Fetch-Site"))
}
