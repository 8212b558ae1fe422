//! What goes to the durable log and what comes from it.

use super::Shard;
use super::connection::Connection;
use crate::broker::followed::{PartAsker, Tries};
use crate::limits::PART_BACKLOG_BYTES_MAX;
use crate::mesh::durable::{Appended, FromLog, LogError, RequestId};
use crate::mesh::message::{AnswerKind, Answered};
use crate::model::{AskId, ChannelName, ChosenError, ConnId, HubId};
use crate::protocol::error::ClientError;
use crate::protocol::push::ReplyBody;
use crate::session::{Phase, Waiting, appended_json};
use crate::time::Now;

/// Those who waited for the log and are answered in one turn.
const WOKEN_PER_TURN: usize = 512;
/// Subscribers that ask for their next part in one turn.
const PARTS_PER_TURN: usize = 256;

impl Shard {
    /// The log says something.
    pub fn handle_log(&mut self, now: Now, message: FromLog) {
        self.now = now;
        match message {
            FromLog::Appended(results) => {
                for (id, result) in results {
                    self.appended(id, result);
                }
            }
            FromLog::Stored(publications) => {
                for (name, publication) in publications {
                    self.owning().stored(name, publication);
                }
                self.read_log();
            }
            FromLog::Page(id, result) => self.page_came(id, result),
            FromLog::Answered(id, result) => self.log_answered(id, result),
            FromLog::Deliver(deliveries) => {
                for (conn, data) in deliveries {
                    self.deliver_to_worker(conn, data);
                }
            }
            FromLog::Ended(channel, offsets) => self.owned.ended(&channel, &offsets),
            FromLog::Begins(channel, first) => self.owned.begins(&channel, first),
            FromLog::Restarted => {
                self.owned.restarted();
                self.read_log();
            }
        }
        self.settle();
    }

    /// Sends what owners have to ask of the log.
    pub(super) fn read_log(&mut self) {
        for read in self.owned.take_reads() {
            self.counters.log_reads += 1;
            let channel = read.channel.clone();
            if self.log.read(self.now, read).is_err() {
                self.read_failed(&channel);
            }
        }
    }

    fn read_failed(&mut self, channel: &ChannelName) {
        for (wait, item) in self.owning().read_failed(channel) {
            self.answer_item(wait, item, Answered::Query(AnswerKind::Overloaded));
        }
    }

    fn page_came(
        &mut self,
        id: RequestId,
        result: Result<Box<crate::mesh::durable::Page>, (ChannelName, LogError)>,
    ) {
        if !self.log.was_read(id) {
            self.counters.stale_answers += 1;
            return;
        }
        match result {
            Ok(page) => {
                self.owning().read(*page);
                self.read_log();
            }
            Err((channel, _)) => self.read_failed(&channel),
        }
    }

    /// Answers those who waited for the log, some in each turn.
    pub(super) fn wake_askers(&mut self) {
        for _ in 0..WOKEN_PER_TURN {
            if self.is_full() {
                return;
            }
            let Some((asker, tries)) = self.owned.take_woken() else {
                return;
            };
            match asker {
                PartAsker::Interest(from, asker, interest) => {
                    self.own_interest(from, asker, interest, tries);
                }
                PartAsker::Query(from, asker, query) => self.own_query(from, asker, query, tries),
                PartAsker::Api(wait, item, query) => self.own_history(wait, item, query, tries),
            }
            self.settle();
        }
    }

    /// A question of the server API about a durable channel.
    pub(super) fn own_history(
        &mut self,
        wait: AskId,
        item: u32,
        query: Box<crate::mesh::message::Query>,
        tries: Tries,
    ) {
        let asker = |query| PartAsker::Api(wait, item, query);
        match self.owning().ask(query, asker, tries) {
            Some(what) => self.answer_item(wait, item, Answered::Query(what)),
            None => self.read_log(),
        }
    }

    fn appended(&mut self, id: RequestId, result: Result<Appended, LogError>) {
        let Some(waiting) = self.log.appended(id) else {
            self.counters.stale_answers += 1;
            return;
        };
        match &result {
            Ok(appended) if appended.is_new => self.counters.log_appended += 1,
            Ok(_) => self.counters.log_repeated += 1,
            Err(_) => self.counters.log_refused += 1,
        }
        self.tell_appended(waiting, result);
    }

    pub(super) fn tell_appended(&mut self, waiting: Waiting, result: Result<Appended, LogError>) {
        match (waiting, result) {
            (Waiting::Publish { conn, id }, Ok(_)) => self.reply(conn, id, ReplyBody::Publish),
            (Waiting::RpcPublish { conn, id }, Ok(appended)) => {
                let json = appended_json(appended);
                self.reply(conn, id, ReplyBody::Rpc(&json));
            }
            (
                Waiting::Publish { conn, id }
                | Waiting::RpcPublish { conn, id }
                | Waiting::Rpc { conn, id }
                | Waiting::RpcFetch { conn, id },
                Err(error),
            ) => self.reply_log_error(conn, id, &error),
            (Waiting::Api { call, leaf }, result) => {
                self.api_appended(call, leaf, result);
            }
            (Waiting::Rpc { .. } | Waiting::RpcFetch { .. }, Ok(_)) => {
                unreachable!("no append is made for a question")
            }
        }
    }

    fn reply_log_error(&mut self, conn: ConnId, id: u32, error: &LogError) {
        self.counters.command_errors += 1;
        let plain = ClientError::of_log(error);
        match error {
            LogError::Unavailable { .. }
            | LogError::Busy { .. }
            | LogError::Behind { .. }
            | LogError::NoReply => {
                self.reply(conn, id, ReplyBody::Error(plain));
            }
            LogError::Refused(_)
            | LogError::BadRequest(_)
            | LogError::Forbidden(_)
            | LogError::NotFound(_)
            | LogError::Full(_) => {
                let chosen = ChosenError {
                    code: plain.code(),
                    message: error.to_string().into(),
                    temporary: false,
                };
                self.reply(conn, id, ReplyBody::ChosenError(&chosen));
            }
        }
    }

    fn log_answered(&mut self, request: RequestId, result: Result<bytes::Bytes, LogError>) {
        match self.log.answered(request) {
            Some(waiting) => self.tell_log_answered(request, waiting, result),
            None => self.counters.stale_answers += 1,
        }
    }

    fn tell_log_answered(
        &mut self,
        request: RequestId,
        waiting: Waiting,
        result: Result<bytes::Bytes, LogError>,
    ) {
        match (waiting, result) {
            (Waiting::Rpc { conn, id }, Ok(json)) => {
                self.reply(conn, id, ReplyBody::Rpc(&json));
            }
            (Waiting::RpcFetch { conn, id }, Ok(json)) => {
                self.answer_worker(conn, id, request, json);
            }
            (Waiting::Rpc { conn, id } | Waiting::RpcFetch { conn, id }, Err(error)) => {
                self.reply_log_error(conn, id, &error);
            }
            (Waiting::Api { call, leaf }, result) => {
                self.api_log_answered(request, call, leaf, result);
            }
            (Waiting::Publish { .. } | Waiting::RpcPublish { .. }, _) => {
                unreachable!("no question is asked for a publication")
            }
        }
    }

    /// What the log was asked and has taken too long for: whoever waits is told.
    pub(super) fn log_overdue(&mut self) {
        let error = |reason: &str| LogError::Unavailable {
            reason: reason.into(),
            retry_after: crate::session::TIMEOUT_RETRY,
        };
        while let Some(waiting) = self.log.next_late_append(self.now.at) {
            self.counters.log_overdue += 1;
            let reason = "no answer in time: it may still be stored, and with a key the same again is harmless";
            self.tell_appended(waiting, Err(error(reason)));
        }
        while let Some((request, waiting)) = self.log.next_late_ask(self.now.at) {
            self.counters.asks_overdue += 1;
            let reason = "no answer in time: it may still be carried out";
            self.tell_log_answered(request, waiting, Err(error(reason)));
        }
        while let Some(channel) = self.log.next_late_read(self.now.at) {
            self.counters.asks_overdue += 1;
            self.read_failed(&channel);
        }
    }

    /// Subscribers that got a part of what they missed ask for the next one, once their connection has taken it.
    pub(super) fn next_parts(&mut self) {
        for _ in 0..self.local.parts_ready().min(PARTS_PER_TURN) {
            let Some((conn, hub)) = self.local.next_part() else {
                return;
            };
            let Some(connection) = self.connections.current(conn.slot, conn.generation) else {
                // It has gone meanwhile.
                continue;
            };
            if !takes_parts(connection) {
                self.local.stall_part(conn, hub);
            } else if !self.ask_part(conn, hub) {
                self.local.part_again(conn, hub);
            }
        }
    }

    /// The connection may take parts again for which it had no room.
    pub(super) fn wake_parts(&mut self, slot: u32) {
        if self.local.has_stalled() && takes_parts(self.connections.of(slot)) {
            self.local.wake_parts(slot);
        }
    }

    /// `false` if the owner could not be asked.
    fn ask_part(&mut self, conn: ConnId, hub: HubId) -> bool {
        self.with_session(conn.slot, |session, context| session.ask_part(context, hub))
    }
}

fn takes_parts(connection: &Connection) -> bool {
    connection.backlog_bytes() <= PART_BACKLOG_BYTES_MAX
        && connection.session.phase != Phase::Connecting
}
