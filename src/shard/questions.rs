//! What this shard has asked other shards and control, and what becomes of it where no answer comes in time. Questions to the log
//! and to backends have tables of their own (`session/durable`, `session/hooked`), as have calls of the server API; commands
//! that wait for owners are in their sessions (`session/order`).

use super::Shard;
use super::answers::TEXT;
use super::connection::State;
use crate::image::{ImageError, ImageReader, ImageWriter};
use crate::limits::{ENTERS_MAX, INTERESTS_MAX, PAGES_MAX};
use crate::mem::Asks;
use crate::mesh::Message;
use crate::mesh::message::TurnedAway;
use crate::model::{ConnId, HubId};
use crate::protocol::disconnect::Disconnect;
use crate::session::asked::{Admitting, OpenQuestions, SubscribedBy, Subscribing};
use crate::session::{Context, Phase, Session};
use crate::time::Instant;

/// See the module.
pub(super) struct Questions {
    /// What sessions ask.
    pub(super) of_sessions: OpenQuestions,
    /// To owners: hub channels that lost deliveries, and which time it is.
    pub(super) catch_ups: Asks<(HubId, u32)>,
    /// To shards of sessions: requests with commands.
    pub(super) emulations: Asks<ConnId>,
    /// To the gate: requests of clients.
    pub(super) enters: Asks<ConnId>,
    /// To control: requests for its pages, until it has written them.
    pub(super) pages: Asks<Option<ConnId>>,
}

impl Default for Questions {
    fn default() -> Self {
        Self {
            of_sessions: OpenQuestions::default(),
            catch_ups: Asks::new(INTERESTS_MAX, usize::MAX),
            emulations: Asks::new(ENTERS_MAX, usize::MAX),
            enters: Asks::new(ENTERS_MAX, usize::MAX),
            pages: Asks::new(PAGES_MAX, usize::MAX),
        }
    }
}

impl Questions {
    /// When the next one is given up.
    pub(super) fn next_at(&self) -> Option<Instant> {
        let all = [
            self.of_sessions.interests.next_at(),
            self.of_sessions.admits.next_at(),
            self.catch_ups.next_at(),
            self.emulations.next_at(),
            self.enters.next_at(),
            self.pages.next_at(),
        ];
        all.into_iter().flatten().min()
    }

    /// Questions that are not answered.
    pub(super) const fn len(&self) -> usize {
        self.of_sessions.interests.len()
            + self.of_sessions.admits.len()
            + self.catch_ups.len()
            + self.emulations.len()
            + self.enters.len()
            + self.pages.len()
    }

    /// Answers that came to none.
    pub(super) const fn stale(&self) -> u64 {
        self.of_sessions.interests.stale()
            + self.of_sessions.admits.stale()
            + self.catch_ups.stale()
            + self.emulations.stale()
            + self.enters.stale()
            + self.pages.stale()
    }
}

impl Questions {
    pub(super) fn write_image(&self, out: &mut ImageWriter) {
        let Self {
            of_sessions,
            catch_ups,
            emulations,
            enters,
            pages,
        } = self;
        of_sessions.write(out);
        catch_ups.write(out);
        emulations.write(out);
        enters.write(out);
        pages.write(out);
    }

    pub(super) fn read_image(from: &mut ImageReader<'_>) -> Result<Self, ImageError> {
        Ok(Self {
            of_sessions: OpenQuestions::read(from)?,
            catch_ups: Asks::read(INTERESTS_MAX, usize::MAX, from)?,
            emulations: Asks::read(ENTERS_MAX, usize::MAX, from)?,
            enters: Asks::read(ENTERS_MAX, usize::MAX, from)?,
            pages: Asks::read(PAGES_MAX, usize::MAX, from)?,
        })
    }
}

impl Shard {
    /// Questions whose answer did not come in time: whoever waits is told.
    pub(super) fn questions_overdue(&mut self) {
        let now = self.now.at;
        while let Some((_, asked)) = self.questions.of_sessions.interests.next_overdue(now) {
            self.not_subscribed(asked);
        }
        while let Some((_, asked)) = self.questions.of_sessions.admits.next_overdue(now) {
            self.counters.asks_overdue += 1;
            self.not_admitted(asked);
        }
        while let Some((_, (hub, round))) = self.questions.catch_ups.next_overdue(now) {
            self.counters.asks_overdue += 1;
            self.local.could_not_ask(hub, round);
        }
        while let Some((_, conn)) = self.questions.emulations.next_overdue(now) {
            self.counters.asks_overdue += 1;
            self.emulated(conn, false);
        }
        while let Some((_, conn)) = self.questions.enters.next_overdue(now) {
            self.counters.asks_overdue += 1;
            if self.waits_for_gate(conn) {
                self.turn_away(conn.slot, TurnedAway::Busy);
            }
        }
        while let Some((_, waiting)) = self.questions.pages.next_late(now) {
            let conn = waiting.take();
            self.counters.asks_overdue += 1;
            if let Some(conn) = conn.filter(|&conn| self.awaits_answer(conn)) {
                self.respond(conn.slot, 503, TEXT, b"try again\n");
            }
        }
    }

    /// The owner does not answer a subscriber.
    fn not_subscribed(&mut self, asked: Subscribing) {
        self.counters.asks_overdue += 1;
        self.tell_subscriber(asked, |session, context| {
            session.not_subscribed(context, asked.hub, asked.by)
        });
    }

    /// An owner has answered a later subscribe of a client before an earlier one: that one is over, or its reply would keep back
    /// the one that is there, whose subscriber gets publications from now on.
    pub(super) fn give_up_overtaken(&mut self, asked: Subscribing) {
        let SubscribedBy::Command(id) = asked.by else {
            return;
        };
        let ConnId { slot, generation } = asked.conn;
        let overtaken = |shard: &Self| {
            let connection = shard.connections.current(slot, generation)?;
            connection.session.overtaken_by(id)
        };
        while let Some(earlier) = overtaken(self) {
            let earlier = Subscribing {
                by: SubscribedBy::Command(earlier),
                ..asked
            };
            let is_it = |other: &Subscribing| {
                Subscribing {
                    hub: asked.hub,
                    ..*other
                } == earlier
            };
            let interests = &mut self.questions.of_sessions.interests;
            let found = interests.find(is_it).and_then(|ask| interests.close(ask));
            let Some(found) = found else {
                return;
            };
            self.not_subscribed(found);
        }
    }

    /// A request waits on this connection for its answer.
    pub(super) fn awaits_answer(&self, conn: ConnId) -> bool {
        let connection = self.connections.current(conn.slot, conn.generation);
        connection.is_some_and(|one| one.state == State::Waiting && !one.is_session)
    }

    /// A subscriber's question to the owner of its channel has ended.
    pub(super) fn tell_subscriber(
        &mut self,
        asked: Subscribing,
        tell: impl FnOnce(&mut Session, &mut Context<'_>) -> Option<Disconnect>,
    ) {
        if let SubscribedBy::Service(Some(wait)) = asked.by {
            self.answer_waited(wait);
        }
        let ConnId { slot, generation } = asked.conn;
        let connection = self.connections.current(slot, generation);
        if connection.is_some_and(|one| one.session.client == asked.client) {
            let ends = self.with_session(slot, tell);
            if let Some(disconnect) = ends {
                self.disconnect(slot, &disconnect);
            }
        }
    }

    /// The connect command waits for its user's registry.
    pub(super) fn waits_for_registry(&self, asked: &Admitting) -> bool {
        let ConnId { slot, generation } = asked.conn;
        let connection = self.connections.current(slot, generation);
        connection.is_some_and(|one| {
            one.session.client == asked.client && one.session.phase == Phase::Connecting
        })
    }

    /// A user's registry has not answered. It may have given a place, or will: it gets it back.
    fn not_admitted(&mut self, asked: Admitting) {
        let waits = self.waits_for_registry(&asked);
        self.give_back_place(&asked);
        if waits {
            let slot = asked.conn.slot;
            self.with_session(slot, |session, context| session.not_admitted(context));
        }
    }

    /// A place that the registry of a user gave, or may give, is not taken.
    pub(super) fn give_back_place(&mut self, asked: &Admitting) {
        let registry = crate::broker::owner::user_registry(&asked.user, self.mesh.shards());
        let release = Message::Release(asked.user.clone(), asked.conn);
        self.mesh.keep(registry, release);
    }
}
