//! Messages from shards, this one included: as owner, as a shard with subscribers, as one that asked.

use std::sync::Arc;

use super::Shard;
use super::connection::State;
use super::owned::Owning;
use crate::broker::followed::Tries;
use crate::mesh::Message;
use crate::mesh::message::{
    AdmitFor, AnswerKind, Interest, InterestFor, Interested, PublishError, PublishFor, Query,
    QueryFor,
};
use crate::model::{ConnId, ShardId, StreamPosition};
use crate::protocol::api::presence_json;
use crate::protocol::error::ClientError;
use crate::protocol::push::ReplyBody;
use crate::session::{Context, Session, published_json};
use crate::speaker::Compression;
use crate::time::Now;
use crate::wire::websocket::Inflater;

/// Messages taken from one peer in one step: between two steps the reactor looks at the clock.
pub(super) const MESSAGES_PER_STEP: usize = 32;
/// Replies to one publisher that are written before its queue is looked at.
const TOLD_TOGETHER: usize = 64;

/// A client that waits for the answer to its publish, and the answer.
pub(super) type PublishedTo = (PublishFor, Result<StreamPosition, PublishError>);

impl Shard {
    /// Takes some of what other shards have sent, as far as there is room for what comes of it: see `has_messages`.
    pub fn handle_mesh(&mut self, now: Now) {
        self.now = now;
        self.taken = 0;
        self.mesh.flush();
        self.take_messages();
        self.wake_askers();
        self.next_parts();
        self.ask_again();
        self.resume_parked();
        self.resume_owing();
        self.feed_workers();
        self.inflate_on();
        self.settle();
        self.owning().tell_behind();
    }

    /// There may be more: the shard wants to be called again at once.
    #[must_use]
    pub const fn has_messages(&self) -> bool {
        self.has_messages
    }

    /// Takes more of it.
    pub fn handle_messages(&mut self, now: Now) {
        self.now = now;
        self.take_messages();
    }

    fn take_messages(&mut self) {
        self.has_messages = false;
        for from in 0..self.mesh.shards() {
            let from = ShardId(from);
            for taken in 0..MESSAGES_PER_STEP {
                if self.is_full() {
                    return;
                }
                let Some(message) = self.mesh.receive(from) else {
                    break;
                };
                self.has_messages |= taken + 1 == MESSAGES_PER_STEP;
                self.dispatch(from, message);
                self.settle();
            }
        }
    }

    pub(super) fn dispatch(&mut self, from: ShardId, message: Message) {
        match message {
            Message::Interest(asker, interest) => {
                self.own_interest(from, asker, interest, Tries::FIRST)
            }
            Message::Leave(leave) => self.owning().leave(from, *leave),
            Message::Publish(publisher, draft) => self.owning().publish(from, publisher, draft),
            Message::Query(asker, query) => self.own_query(from, asker, query, Tries::FIRST),
            Message::Commands(asker, items) => self.own_commands(from, asker, items),
            Message::Emulate(request, emulate) => self.emulate(from, request, &emulate),
            Message::Emulated(request, is_taken) => {
                if let Some(conn) = self.questions.emulations.close(request.0) {
                    self.emulated(conn, is_taken);
                }
            }
            Message::Admit(asker, admit) => {
                let granted = self.own_admit(from, &admit);
                self.mesh.answer(from, Message::Admitted(asker, granted));
            }
            Message::Release(user, conn) => self.people.release(&user, from, conn),
            Message::Displace(conn) => self.displace(conn),
            Message::Enter(asker, prefix) => self.own_enter(from, asker, prefix),
            Message::Exit(prefix) => self.own_exit(prefix.as_deref().copied()),
            Message::Adopt(count) => self.own_adopt(count),
            Message::Entered(ask, result) => self.entered(ask, result),
            Message::Deliver(name, publication) => self.deliver(&name, &publication),
            Message::DeliverMany(many) => {
                for (name, publication) in &many {
                    self.deliver(name, publication);
                }
            }
            Message::Presence(name, info, joined) => self.announce(&name, &info, joined),
            Message::Behind(name, position) => self.behind(&name, position),
            Message::Lost(name) => self.lost(&name),
            Message::Interested(ask, answer) => self.interested(ask, *answer),
            Message::Published(publisher, result) => self.published.push((publisher, result)),
            Message::Answer(asker, answer) => self.answered(asker, *answer),
            Message::Answers(ask, answers) => self.api_answered(ask, answers),
            Message::Admitted(ask, granted) => self.admitted(ask, granted),
        }
    }

    // As owner.

    /// The channels it owns, to do something with them.
    pub(super) fn owning(&mut self) -> Owning<'_> {
        let (now, config) = (self.now, &self.config);
        (self.owned).at_work(now, config, &mut self.mesh, &mut self.counters)
    }

    pub(super) fn own_interest(
        &mut self,
        from: ShardId,
        asker: InterestFor,
        interest: Box<Interest>,
        tries: Tries,
    ) {
        if !self.owning().interest((from, asker), interest, tries) {
            self.read_log();
        }
    }

    pub(super) fn own_query(
        &mut self,
        from: ShardId,
        asker: QueryFor,
        query: Box<Query>,
        tries: Tries,
    ) {
        if !self.owning().query(from, asker, query, tries) {
            self.read_log();
        }
    }

    // As the one who asked.

    fn interested(&mut self, ask: InterestFor, mut answer: Interested) {
        let joined = answer
            .joined
            .take()
            .map(|info| (answer.channel.clone(), info));
        self.subscribed(ask, answer);
        if let Some((channel, info)) = joined {
            self.announce(&channel, &info, true);
        }
    }

    fn subscribed(&mut self, ask: InterestFor, answer: Interested) {
        let hub = answer.hub;
        // Who comes now gets what comes after.
        self.give_run(hub);
        if answer.refused.is_none() && self.local.confirmed(hub, answer.position) {
            self.insufficient(hub, answer.position);
        }
        if let Some(asked) = self.questions.of_sessions.interests.close(ask.0) {
            self.give_up_overtaken(asked);
            self.tell_subscriber(asked, |session, context| {
                session.interested(context, asked.by, answer)
            });
        }
    }

    fn admitted(&mut self, ask: AdmitFor, granted: bool) {
        let Some(asked) = self.questions.of_sessions.admits.close(ask.0) else {
            // It was given back when it was given up.
            return;
        };
        if !self.waits_for_registry(&asked) {
            if granted {
                self.give_back_place(&asked);
            }
            return;
        }
        let slot = asked.conn.slot;
        let result = self.with_session(slot, |session, context| session.admitted(context, granted));
        if let Err(disconnect) = result {
            self.counters.users_refused += 1;
            self.disconnect(slot, &disconnect);
        }
    }

    /// The publishers are answered once their publications have been given to the subscribers, whom they may be among. What one of
    /// them is told about several stands together.
    pub(super) fn tell_published(&mut self) {
        let mut published = std::mem::take(&mut self.published);
        if self.has_tenants() && self.local.has_runs() {
            // Those of tenants who have not been given all of it wait for that.
            published.retain(|told| {
                let connection = self
                    .connections
                    .current(told.0.conn.slot, told.0.conn.generation);
                let waits =
                    connection.is_some_and(|one| self.local.has_runs_of(one.session.tenant()));
                if waits {
                    self.published.push(*told);
                }
                !waits
            });
        }
        let is_same = |(a, _): &PublishedTo, (b, _): &PublishedTo| a.conn == b.conn;
        for told in published.chunk_by(is_same) {
            for told in told.chunks(TOLD_TOGETHER) {
                let conn = told[0].0.conn;
                if self.is_open(conn) {
                    self.with_session(conn.slot, |session, context| {
                        for told in told {
                            tell(session, context, told);
                        }
                    });
                }
            }
        }
        published.clear();
        if self.published.is_empty() {
            self.published = published;
        }
    }

    pub(super) fn reply(&mut self, conn: ConnId, id: u32, body: ReplyBody<'_>) {
        if self.is_open(conn) {
            self.with_session(conn.slot, |_, context| context.reply(id, body));
        }
    }

    fn is_open(&self, conn: ConnId) -> bool {
        let connection = self.connections.current(conn.slot, conn.generation);
        connection.is_some_and(|connection| connection.state == State::Open)
    }

    /// An owner has answered a command, unless it came too late.
    fn reply_awaited(&mut self, conn: ConnId, id: u32, body: ReplyBody<'_>) {
        if self.is_open(conn) {
            self.with_session(conn.slot, |session, context| {
                if session.awaits_reply(id) {
                    context.reply(id, body);
                } else {
                    context.counters.stale_answers += 1;
                }
            });
        }
    }

    fn answered(&mut self, asker: QueryFor, answer: AnswerKind) {
        match asker {
            QueryFor::Client { conn, id } => {
                let body = match &answer {
                    AnswerKind::Presence(list, _) => ReplyBody::Presence(list),
                    AnswerKind::PresenceTooLarge => ReplyBody::Error(ClientError::LimitExceeded),
                    AnswerKind::PresenceStats { clients, users } => ReplyBody::PresenceStats {
                        num_clients: *clients,
                        num_users: *users,
                    },
                    AnswerKind::History(publications, position, _) => ReplyBody::History {
                        publications,
                        position: *position,
                    },
                    AnswerKind::Unrecoverable => {
                        ReplyBody::Error(ClientError::UnrecoverablePosition)
                    }
                    AnswerKind::Removed => return,
                    AnswerKind::Overloaded => ReplyBody::Error(ClientError::Internal),
                };
                self.reply_awaited(conn, id, body);
            }
            QueryFor::Rpc { conn, id } => match &answer {
                AnswerKind::Presence(list, next) => {
                    let json = presence_json(list, *next);
                    self.reply_awaited(conn, id, ReplyBody::Rpc(&json));
                }
                AnswerKind::PresenceTooLarge => {
                    self.reply_awaited(conn, id, ReplyBody::Error(ClientError::LimitExceeded));
                }
                _ => self.reply_awaited(conn, id, ReplyBody::Error(ClientError::Internal)),
            },
            QueryFor::CatchUp(ask) => {
                let Some((hub, round)) = self.questions.catch_ups.close(ask) else {
                    return;
                };
                let missed = match answer {
                    AnswerKind::History(missed, position, span) => Some((missed, position, span)),
                    _ => None,
                };
                self.caught_up(hub, round, missed);
            }
        }
    }

    /// A new configuration: everything that can follow it does.
    pub(super) fn reload(&mut self, config: Arc<crate::config::Config>) {
        self.people.reload(&config);
        self.keys_replaced();
        self.compression = Compression::new(&config.websocket);
        let inflater = Inflater::shared(config.websocket.inflated_bytes_max());
        self.connections.reload(inflater, &config.tenants.weights);
        self.local.reload(&config.channels, &config.tenants.weights);
        self.owned.reload(&config.channels);
        let limits_now =
            config.client.limits_connections() && !self.config.client.limits_connections();
        self.counters.reloads += 1;
        self.counters
            .keep_keys(|name| config.http_api.has_key(name));
        self.config = config;
        for slot in self.connections.pace_anew() {
            let session = &mut self.connections.of_mut(slot).session;
            session.heard_again(self.now, &self.config);
        }
        self.end_what_is_gone();
        if limits_now {
            self.count_insiders();
        }
    }
}

/// Tells a publisher what came of a publication.
/// A publisher is told, unless it was told that it takes too long.
fn tell(session: &Session, context: &mut Context<'_>, (publisher, result): &PublishedTo) {
    let id = publisher.id;
    if !session.awaits_reply(id) {
        context.counters.stale_answers += 1;
        return;
    }
    match result {
        Ok(_) if !publisher.by_rpc => context.reply(id, ReplyBody::Publish),
        Ok(position) => {
            let json = published_json(*position, None);
            context.reply(id, ReplyBody::Rpc(&json));
        }
        Err(why) => context.reply(id, ReplyBody::Error((*why).into())),
    }
}
