//! Pages for services and probes at the internal listeners. What only control knows is asked of it, while the connection
//! waits.

use std::sync::Arc;

use super::Shard;
use super::answers::TEXT;
use super::connection::State;
use super::route::{JudgedRequest, Route, is_no_stranger};
use crate::config::Tenant;
use crate::limits::CONTROL_TIMEOUT;
use crate::mesh::control::{ControlPage, FromShard, PageFor, PageKind};
use crate::model::ConnId;
use crate::wire::http::{Allow, HttpError, Method, RequestHead};

impl Shard {
    /// What is asked for at an internal listener.
    pub(super) fn internal_route(
        &self,
        head: &RequestHead<'_>,
        tenant: Option<&Arc<Tenant>>,
        path: &str,
    ) -> JudgedRequest {
        let route = match path {
            "/health" => Route::Health,
            "/ready" => Route::Control(PageKind::Ready),
            "/metrics" => Route::Control(PageKind::Metrics),
            "/api/openapi.json" => Route::OpenApi,
            "/api" => return self.api_route(head, tenant, None).into(),
            _ => {
                return match path.strip_prefix("/api/") {
                    Some(method) => self.api_route(head, tenant, Some(method)).into(),
                    None => Route::Refused(HttpError::NotFound).into(),
                };
            }
        };
        if !matches!(head.method, Method::Get | Method::Head) {
            return Route::Refused(HttpError::MethodNotAllowed(Allow::GetHead)).into();
        }
        // Health says nothing that a page of a stranger could use.
        if !matches!(route, Route::Health) && !is_no_stranger(&self.config, head) {
            return Route::Refused(HttpError::Forbidden).into();
        }
        route.into()
    }

    pub(super) fn ask_control(&mut self, slot: u32, kind: PageKind) {
        let conn = ConnId {
            slot,
            generation: self.connections.generation(slot),
        };
        let until = self.now.at + CONTROL_TIMEOUT;
        let Ok(ask) = self.questions.pages.open(until, 0, Some(conn)) else {
            return self.respond(slot, 503, TEXT, b"try again\n");
        };
        self.reports
            .push_back(FromShard::PageWanted(self.id, PageFor(ask), kind));
        let connection = self.connections.of_mut(slot);
        connection.state = State::Waiting;
        self.connections.set_deadline(slot, 0);
    }

    pub(super) fn page_answered(&mut self, ask: PageFor, page: &ControlPage) {
        let Some(conn) = self.questions.pages.close(ask.0).flatten() else {
            self.counters.stale_answers += 1;
            return;
        };
        if self.awaits_answer(conn) {
            self.respond(conn.slot, page.status, page.content_type, &page.body);
        }
    }
}
