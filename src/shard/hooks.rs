//! Answers of backends, and what is kept of a request for them.

use super::Shard;
use super::connection::State;
use crate::config::Config;
use crate::limits::{HOOK_HEADERS_BYTES_MAX, USER_ID_BYTES_MAX};
use crate::mesh::hook::{Answer, Header};
use crate::model::ConnId;
use crate::protocol::disconnect::Disconnect;
use crate::session::Session;
use crate::time::Now;
use crate::wire::http::RequestHead;

/// What a transport's request says about its client, for the session that follows.
#[derive(Debug, Default)]
pub(super) struct Kept {
    /// Headers that a target of hooks wants.
    pub(super) headers: Vec<Header>,
    /// From `client.user_id_http_header`; empty when absent.
    pub(super) user: Box<str>,
}

impl Shard {
    /// A backend has answered, or could not be asked.
    pub fn handle_answer(&mut self, now: Now, answer: Answer) {
        self.now = now;
        let is_awaited = self.hooks.returned(&answer.call);
        self.counters.stale_answers += u64::from(!is_awaited);
        let conn = answer.call.conn;
        if is_awaited && self.may_be_told(conn) {
            let result = self.with_session(conn.slot, |session, context| {
                session.answered(context, answer)
            });
            self.follow_answer(conn, result);
        }
        self.settle();
    }

    /// The connection carries a session that hears what backends say.
    fn may_be_told(&self, conn: ConnId) -> bool {
        let connection = self.connections.current(conn.slot, conn.generation);
        connection.is_some_and(|connection| {
            connection.is_session && matches!(connection.state, State::Open | State::Waiting)
        })
    }

    /// Backends that have not answered in time: whoever waits is told.
    pub(super) fn hooks_overdue(&mut self) {
        while let Some(undecided) = self.hooks.next_late(self.now.at) {
            self.counters.asks_overdue += 1;
            let conn = undecided.conn;
            if self.may_be_told(conn) {
                let result = self.with_session(conn.slot, |session, context| {
                    session.undecided(context, &undecided)
                });
                self.follow_answer(conn, result);
            }
        }
    }

    /// A backend's answer came before its command's turn, which is now.
    pub(super) fn decided(&mut self, conn: ConnId, answer: Answer) {
        let result = self.with_session(conn.slot, |session, context| {
            session.decided(context, answer)
        });
        self.follow_answer(conn, result);
    }

    fn follow_answer(&mut self, conn: ConnId, result: Result<(), Disconnect>) {
        if let Err(disconnect) = result {
            self.disconnect(conn.slot, &disconnect);
        }
    }
}

impl Kept {
    /// What is kept of a request. A user id that is too long is none: its client is then not known.
    pub(super) fn of(config: &Config, head: &RequestHead<'_>) -> Self {
        let mut kept = Self::default();
        let name = &config.client.user_id_http_header;
        if !name.is_empty()
            && let Some(user) = head.header(name)
            && user.len() <= USER_ID_BYTES_MAX
        {
            kept.user = user.into();
        }
        let mut room = HOOK_HEADERS_BYTES_MAX;
        for name in config
            .hooks
            .targets()
            .flat_map(|target| &target.http_headers)
        {
            if kept.headers.iter().any(|(one, _)| **one == **name) {
                continue;
            }
            if let Some(value) = head.header(name)
                && name.len() + value.len() <= room
            {
                room -= name.len() + value.len();
                kept.headers.push((name.as_str().into(), value.into()));
            }
        }
        kept
    }

    /// The session knows it from here on.
    pub(super) fn hand_to(self, session: &mut Session) {
        session.user = self.user;
        session.keep_headers(self.headers);
    }
}
