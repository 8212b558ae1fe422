//! Answers of backends.

use super::Shard;
use super::connection::State;
use crate::mesh::hook::HookAnswer;
use crate::model::ConnId;
use crate::protocol::disconnect::Disconnect;
use crate::time::Now;

impl Shard {
    /// A backend has answered, or could not be asked.
    pub fn handle_answer(&mut self, now: Now, answer: HookAnswer) {
        self.now = now;
        let is_awaited = self.hooks.returned(&answer.call);
        self.call_over(answer.call.user.tenant());
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
    pub(super) fn decided(&mut self, conn: ConnId, answer: HookAnswer) {
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
